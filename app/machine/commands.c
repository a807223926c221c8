/* SPDX-License-Identifier: MIT */
/*
 * What the keeper can ask of the machine, and what the machine reports. Commands:
 *
 * - run, stop, quit: answered by the same word in "event" when done
 * - reset, power: not answered
 * - boot-file {name}: kernel or initrd in the descriptor, asked for by "boot-files" when a machine
 *   that was resumed resets; with the kernel it boots; not answered
 * - collect, point, release, go-back, become, return: see points.c
 * - memory-there: all of the memory that came while the machine ran is there; not answered
 * - screenshot: answers "screenshot" with the picture in the descriptor, or with "text": why not
 * - display: a window's connected socket in the descriptor
 * - activity: answers "activity" with the number of pages written since the last version
 * - clock {policy}: "catch-up" or "frozen"; not answered
 * - key {code, down}, pointer {x, y, buttons}: input; x and y in pixels of the picture
 *
 * Thread: loop thread.
 */
#include "runner.h"

static const char *const objects[] = {"ram", "vram"};

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

static void run(struct hsk_runner *r)
{
    if (r->disks)
        hsk_keeper_disks_retry(r->disks);
    hsk_machine_run(r->machine);
    /* Keys that were down when the state was saved are not held by anybody now. */
    if (r->loaded) {
        struct hsk_input *in = hsk_machine_input(r->machine);
        in->release_all(in);
        r->loaded = false;
    }
    hsk_screen_running(r->screen, true);
}

static void stop(struct hsk_runner *r)
{
    hsk_machine_stop(r->machine);
    hsk_screen_running(r->screen, false);
}

static void boot_again(struct hsk_runner *r)
{
    g_autoptr(GError) error = NULL;

    hsk_machine_stop(r->machine);
    if (r->boot_later) {
        r->boot_wanted = true;
        hsk_runner_tell_text(r, "boot-files", NULL);
        return;
    }
    if (hsk_runner_power_on(r, &error))
        run(r);
    else
        hsk_runner_tell_text(r, "error", error->message);
}

void hsk_runner_event(void *opaque, enum hsk_event_kind kind, uint64_t value, const char *text)
{
    struct hsk_runner *r = opaque;

    switch (kind) {
    case HSK_EVENT_POWEROFF:
        stop(r);
        hsk_runner_tell_text(r, "poweroff", text);
        break;
    case HSK_EVENT_RESET:
        hsk_runner_tell_text(r, "reset", text);
        if (r->reset_in_place)
            boot_again(r);
        else
            stop(r);
        break;
    case HSK_EVENT_DEBUG_EXIT:
        stop(r);
        hsk_runner_tell(r,
                        json_pack("{s:s, s:I}", "event", "debug-exit", "value",
                                  (json_int_t)(value & 0xffffffff)),
                        -1);
        break;
    case HSK_EVENT_ERROR:
        stop(r);
        hsk_runner_tell_text(r, "error", text);
        break;
    case HSK_EVENT_SCANOUT:
        hsk_screen_changed(r->screen);
        break;
    case HSK_EVENT_LEDS:
        hsk_screen_leds(r->screen, value);
        break;
    }
}

void hsk_runner_disk_trouble(void *opaque, unsigned disk, int err)
{
    struct hsk_runner *r = opaque;

    stop(r);
    hsk_runner_tell(
        r, json_pack("{s:s, s:i, s:i}", "event", "disk-trouble", "disk", (int)disk, "errno", -err),
        -1);
}

void hsk_runner_tell_bytes(struct hsk_runner *r, const char *event, GBytes *bytes, json_t *fields)
{
    g_autoptr(GError) error = NULL;
    gsize n = 0;
    const void *data = g_bytes_get_data(bytes, &n);
    HSK_AUTOFD fd = hsk_memfd_new(event, MAX(n, 1), &error);
    json_t *body = fields ? fields : json_object();

    json_object_set_new(body, "event", json_string(event));
    if (fd >= 0 && hsk_pwrite_all(fd, data, n, 0) == 0) {
        json_object_set_new(body, "bytes", json_integer((json_int_t)n));
        hsk_runner_tell(r, body, fd);
    } else {
        json_object_set_new(body, "text",
                            json_string(error ? error->message
                                              : "there is not enough memory for the machine's state"));
        hsk_runner_tell(r, body, -1);
    }
}

static void cmd_run(struct hsk_runner *r, struct hsk_wire_msg *msg)
{
    run(r);
    hsk_runner_ran(r);
}

static void cmd_stop(struct hsk_runner *r, struct hsk_wire_msg *msg)
{
    stop(r);
    hsk_runner_tell_text(r, "stop", NULL);
}

static void cmd_memory_there(struct hsk_runner *r, struct hsk_wire_msg *msg)
{
    hsk_runner_memory_there(r);
}

static void cmd_screenshot(struct hsk_runner *r, struct hsk_wire_msg *msg)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(GBytes) png = hsk_screen_png(r->screen, 0, 0, &error);

    if (png)
        hsk_runner_tell_bytes(r, "screenshot", png, NULL);
    else
        hsk_runner_tell_text(r, "screenshot", error->message);
}

static void cmd_display(struct hsk_runner *r, struct hsk_wire_msg *msg)
{
    if (msg->fd >= 0)
        hsk_screen_attach(r->screen, hsk_steal_fd(&msg->fd));
}

static void cmd_key(struct hsk_runner *r, struct hsk_wire_msg *msg)
{
    struct hsk_input *in = hsk_machine_input(r->machine);
    int64_t code = hsk_json_int(msg->body, "code", 0);

    if (in && code > 0 && code < 768)
        in->key(in, (uint16_t)code, hsk_json_bool(msg->body, "down"));
}

static void cmd_pointer(struct hsk_runner *r, struct hsk_wire_msg *msg)
{
    struct hsk_input *in = hsk_machine_input(r->machine);
    struct hsk_scanout so;

    if (!in || !hsk_machine_scanout(r->machine, &so) || !so.width || !so.height)
        return;
    int64_t x = CLAMP(hsk_json_int(msg->body, "x", 0), 0, (int64_t)so.width - 1);
    int64_t y = CLAMP(hsk_json_int(msg->body, "y", 0), 0, (int64_t)so.height - 1);
    in->pointer_abs(in, (uint16_t)(x * 32767 / MAX(so.width - 1, 1)),
                    (uint16_t)(y * 32767 / MAX(so.height - 1, 1)),
                    (uint8_t)(hsk_json_int(msg->body, "buttons", 0) & 7));
}

static void cmd_reset(struct hsk_runner *r, struct hsk_wire_msg *msg)
{
    boot_again(r);
}

static void cmd_boot_file(struct hsk_runner *r, struct hsk_wire_msg *msg)
{
    const bool kernel = strcmp(hsk_json_str(msg->body, "name", ""), "kernel") == 0;
    GBytes **to = kernel ? &r->kernel : &r->initrd;
    g_autoptr(GError) error = NULL;

    g_clear_pointer(to, g_bytes_unref);
    *to = hsk_read_fd(msg->fd, hsk_machine_memobj(r->machine, "ram")->size_bytes,
                      kernel ? "the kernel" : "the initrd", &error);
    if (!*to) {
        hsk_runner_tell_text(r, "error", error->message);
        return;
    }
    r->boot_later &= !kernel;
    if (kernel && r->boot_wanted)
        boot_again(r);
    r->boot_wanted &= !kernel;
}

static void cmd_power(struct hsk_runner *r, struct hsk_wire_msg *msg)
{
    hsk_machine_power_button(r->machine);
}

static void sync_dirty(void *opaque)
{
    struct hsk_engine *e = opaque;

    e->ops->dirty_sync(e);
}

static void cmd_activity(struct hsk_runner *r, struct hsk_wire_msg *msg)
{
    json_int_t pages = 0;

    hsk_machine_at_safe_point(r->machine, sync_dirty, hsk_machine_engine(r->machine));
    for (unsigned i = 0; i < G_N_ELEMENTS(objects); i++) {
        const struct hsk_memobj *obj = hsk_machine_memobj(r->machine, objects[i]);

        for (uint64_t k = 0; obj && k < obj->size_bytes / HSK_PAGE_SIZE; k++)
            pages +=
                atomic_load_explicit(&obj->attr[k], memory_order_relaxed) & HSK_PAGE_DIRTY ? 1 : 0;
    }
    hsk_runner_tell(r, json_pack("{s:s, s:I}", "event", "activity", "pages", pages), -1);
}

static void cmd_clock(struct hsk_runner *r, struct hsk_wire_msg *msg)
{
    hsk_machine_set_catch_up(r->machine,
                             strcmp(hsk_json_str(msg->body, "policy", ""), "frozen") != 0);
}

static void cmd_quit(struct hsk_runner *r, struct hsk_wire_msg *msg)
{
    struct hsk_engine *e = hsk_machine_engine(r->machine);

    stop(r);
    g_autofree char *stats = e->cfg.stats && e->ops->stats ? e->ops->stats(e) : NULL;
    hsk_runner_tell_text(r, "quit", stats);
    hsk_loop_quit(hsk_machine_loop(r->machine));
}

void hsk_runner_command(struct hsk_runner *r, struct hsk_wire_msg *msg)
{
    static const struct {
        const char *name;
        void (*fn)(struct hsk_runner *r, struct hsk_wire_msg *msg);
    } table[] = {
        {"run", cmd_run},
        {"stop", cmd_stop},
        {"point", hsk_runner_point},
        {"collect", hsk_runner_collect},
        {"release", hsk_runner_release},
        {"go-back", hsk_runner_go_back},
        {"become", hsk_runner_become},
        {"return", hsk_runner_return},
        {"reset", cmd_reset},
        {"power", cmd_power},
        {"boot-file", cmd_boot_file},
        {"display", cmd_display},
        {"screenshot", cmd_screenshot},
        {"key", cmd_key},
        {"pointer", cmd_pointer},
        {"activity", cmd_activity},
        {"clock", cmd_clock},
        {"memory-there", cmd_memory_there},
        {"quit", cmd_quit},
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
