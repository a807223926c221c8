/* SPDX-License-Identifier: MIT */
/*
 * What the keeper can ask of the machine, and what the machine reports. Commands: run, stop, reset, power, quit.
 * An answer has the command's name in "event"; run, reset and power have none.
 *
 * Thread: loop thread.
 */
#include "runner.h"

void hsk_runner_tell(struct hsk_runner *r, json_t *body, int fd)
{
    int err = hsk_wire_send(r->wire, body, fd, 0);
    if (err < 0)
        g_debug("the keeper did not take a message: %s", g_strerror(-err));
}

void hsk_runner_tell_text(struct hsk_runner *r, const char *event, const char *text)
{
    g_autofree char *valid = text ? g_utf8_make_valid(text, -1) : NULL;
    hsk_runner_tell(r, json_pack("{s:s, s:s?}", "event", event, "text", valid), -1);
}

static void boot_again(struct hsk_runner *r)
{
    g_autoptr(GError) error = NULL;

    hsk_machine_stop(r->machine);
    if (hsk_runner_power_on(r, &error))
        hsk_machine_run(r->machine);
    else
        hsk_runner_tell_text(r, "error", error->message);
}

void hsk_runner_event(void *opaque, enum hsk_event_kind kind, uint64_t value, const char *text)
{
    struct hsk_runner *r = opaque;

    switch (kind) {
    case HSK_EVENT_POWEROFF:
        hsk_machine_stop(r->machine);
        hsk_runner_tell_text(r, "poweroff", text);
        break;
    case HSK_EVENT_RESET:
        hsk_runner_tell_text(r, "reset", text);
        if (r->reset_in_place)
            boot_again(r);
        else
            hsk_machine_stop(r->machine);
        break;
    case HSK_EVENT_DEBUG_EXIT:
        hsk_machine_stop(r->machine);
        hsk_runner_tell(r, json_pack("{s:s, s:I}", "event", "debug-exit", "value", (json_int_t)(value & 0xffffffff)), -1);
        break;
    case HSK_EVENT_ERROR:
        hsk_machine_stop(r->machine);
        hsk_runner_tell_text(r, "error", text);
        break;
    case HSK_EVENT_SCANOUT:
    case HSK_EVENT_LEDS:
        break;
    }
}

static void cmd_run(struct hsk_runner *r, const struct hsk_wire_msg *msg)
{
    hsk_machine_run(r->machine);
}

static void cmd_stop(struct hsk_runner *r, const struct hsk_wire_msg *msg)
{
    hsk_machine_stop(r->machine);
    hsk_runner_tell_text(r, "stop", NULL);
}

static void cmd_reset(struct hsk_runner *r, const struct hsk_wire_msg *msg)
{
    boot_again(r);
}

static void cmd_power(struct hsk_runner *r, const struct hsk_wire_msg *msg)
{
    hsk_machine_power_button(r->machine);
}

static void cmd_quit(struct hsk_runner *r, const struct hsk_wire_msg *msg)
{
    struct hsk_engine *e = hsk_machine_engine(r->machine);

    hsk_machine_stop(r->machine);
    g_autofree char *stats = e->cfg.stats && e->ops->stats ? e->ops->stats(e) : NULL;
    hsk_runner_tell_text(r, "quit", stats);
    hsk_loop_quit(hsk_machine_loop(r->machine));
}

void hsk_runner_command(struct hsk_runner *r, struct hsk_wire_msg *msg)
{
    static const struct {
        const char *name;
        void (*fn)(struct hsk_runner *r, const struct hsk_wire_msg *msg);
    } table[] = {
        {"run", cmd_run}, {"stop", cmd_stop}, {"reset", cmd_reset}, {"power", cmd_power}, {"quit", cmd_quit},
    };
    const char *cmd = hsk_json_str(msg->body, "cmd", "");

    for (unsigned i = 0; i < G_N_ELEMENTS(table); i++) {
        if (strcmp(table[i].name, cmd) == 0) {
            table[i].fn(r, msg);
            return;
        }
    }
    g_warning("the keeper asked for \"%s\", which this version does not know", cmd);
}
