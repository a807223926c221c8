/* SPDX-License-Identifier: MIT */
/*
 * hva run: opens a document and runs its machine. With a window it becomes the desktop program,
 * which starts a keeper of its own; without one it becomes the keeper itself, in the foreground.
 * Thread: main.
 */
#include <errno.h>
#include <stdio.h>

#include "client.h"
#include "common/values.h"
#include "common/when.h"
#include "common/wire.h"

struct options {
    char *engine, *serial, *memory, *trust, *at;
    char **rest;
    int cpus;
    gint64 chaos;
    gboolean no_window, player, fresh, discard, trust_state, json;
};

static bool parse(struct options *o, int *argc, char ***argv, int *status)
{
    const GOptionEntry entries[] = {
        {"engine", 0, 0, G_OPTION_ARG_STRING, &o->engine, "auto, kvm or soft", "ENGINE"},
        {"no-window", 0, 0, G_OPTION_ARG_NONE, &o->no_window,
         "no window; Ctrl-C or hva stop saves and ends", NULL},
        {"player", 0, 0, G_OPTION_ARG_NONE, &o->player, "full screen without a desktop", NULL},
        {"serial", 0, 0, G_OPTION_ARG_FILENAME, &o->serial,
         "without a window: stdio (default), null or a file", "WHERE"},
        {"fresh", 0, 0, G_OPTION_ARG_NONE, &o->fresh,
         "start from power-on and leave the saved state alone", NULL},
        {"discard", 0, 0, G_OPTION_ARG_NONE, &o->discard,
         "delete the saved state and start from power-on", NULL},
        {"at", 0, 0, G_OPTION_ARG_STRING, &o->at,
         "go on from the checkpoint or snapshot of that time (-2m, 14:05:10), or from the last",
         "TIME|last"},
        {"trust", 0, 0, G_OPTION_ARG_STRING, &o->trust,
         "trust the publisher with this key with this machine", "FINGERPRINT"},
        {"trust-state", 0, 0, G_OPTION_ARG_NONE, &o->trust_state,
         "resume a saved state although somebody else made it", NULL},
        {"memory", 0, 0, G_OPTION_ARG_STRING, &o->memory, "another memory size, from power-on only",
         "SIZE"},
        {"cpus", 0, 0, G_OPTION_ARG_INT, &o->cpus, "another number of processors", "N"},
        {"chaos", 0, G_OPTION_FLAG_HIDDEN, G_OPTION_ARG_INT64, &o->chaos, NULL, NULL},
        {"json", 0, G_OPTION_FLAG_HIDDEN, G_OPTION_ARG_NONE, &o->json, NULL, NULL},
        {G_OPTION_REMAINING, 0, 0, G_OPTION_ARG_FILENAME_ARRAY, &o->rest, NULL, NULL},
        {NULL},
    };
    return hsk_parse_options(argc, argv, "MACHINE - run a machine", entries, status);
}

/* Seconds since 1970, or -1: the newest point. */
static bool parse_at(const struct options *o, int64_t *at, GError **error)
{
    if (strcmp(o->at, "last") == 0)
        *at = -1;
    else if (!hsk_parse_when(o->at, g_get_real_time() / G_USEC_PER_SEC, at, error))
        return false;
    if (!o->fresh && !o->discard && !o->memory)
        return true;
    g_set_error(error, HSK_ERROR, HSK_ERROR_USAGE,
                "--at goes on from a running state, so it does not go together with --fresh, "
                "--discard or --memory");
    return false;
}

static int check(const struct options *o, uint64_t *memory, int64_t *at)
{
    static const char *const engines[] = {"auto", "kvm", "soft", NULL};
    g_autoptr(GError) error = NULL;

    if (!o->rest || !o->rest[0] || o->rest[1])
        return hsk_usage("usage: hva run MACHINE; see hva run --help");
    if (o->player)
        return hsk_usage(
            "this version has no full-screen player yet; use the window, or --no-window");
    if (o->cpus)
        return hsk_usage("this version takes the number of processors from the document, where "
                         "\"hva create --cpus\" put it");
    if ((o->engine && !hsk_parse_word("--engine", o->engine, engines, &error)) ||
        (o->memory && !hsk_parse_memory(o->memory, memory, &error)) ||
        (o->at && !parse_at(o, at, &error)))
        return hsk_fail(error);
    return 0;
}

static int open_window(const char *file)
{
    g_autofree char *program = hsk_program_path("haversack");

    execl(program, "haversack", file, NULL);
    fprintf(stderr, "hva: cannot start %s: %s; use --no-window\n", program, g_strerror(errno));
    return 1;
}

static int run(const struct options *o)
{
    const char *file = o->rest[0];
    g_autoptr(GError) error = NULL;
    uint64_t memory = 0;
    int64_t at = 0;
    int status = check(o, &memory, &at);

    if (status)
        return status;
    HSK_AUTO(hsk_client, running) = hsk_client_find(file, &error);
    if (error)
        return hsk_fail(error);
    bool has_display = g_getenv("DISPLAY") || g_getenv("WAYLAND_DISPLAY");
    bool plain = !o->fresh && !o->discard && !o->engine && !o->memory && !o->serial && !o->trust &&
                 !o->trust_state && !o->at;
    if (running && o->no_window) {
        g_autofree char *text =
            g_strdup_printf("%s is running already; \"hva console\" shows its serial line and "
                            "\"hva stop\" saves and ends it",
                            file);
        hsk_complain(text);
        return 1;
    }
    if (!o->no_window && has_display && plain)
        return open_window(running ? hsk_json_str(hsk_client_info(running), "path", file) : file);
    if (running)
        return hsk_usage("%s is running already, so it cannot be started with other options", file);
    if (!o->no_window)
        fprintf(
            stderr,
            "hva: %s, so there is no window; Ctrl-C or \"hva stop\" saves and ends the machine\n",
            has_display ? "these options are for running without one" : "there is no display");
    struct hsk_trust_answer answer = {.fresh = o->fresh, .trust_state = o->trust_state};
    if (!o->fresh && !o->discard && !o->trust && !o->trust_state && !hsk_ask_trust(file, &answer))
        return HSK_EXIT_UNDECIDED;
    json_t *opts = json_pack(
        "{s:s, s:s, s:s, s:b, s:b, s:I, s:s?, s:b, s:I, s:I}", "path", file, "engine",
        o->engine ? o->engine : "auto", "serial", o->serial ? o->serial : "stdio", "fresh",
        answer.fresh, "discard", o->discard, "memory", (json_int_t)memory, "trust", o->trust,
        "trust_state", answer.trust_state, "chaos", (json_int_t)o->chaos, "at", (json_int_t)at);
    return hsk_exec_keeper("run", opts);
}

int hsk_cmd_run(int argc, char **argv)
{
    struct options o = {0};
    int status = 0;

    if (parse(&o, &argc, &argv, &status))
        status = run(&o);
    g_free(o.at);
    g_free(o.engine);
    g_free(o.serial);
    g_free(o.memory);
    g_free(o.trust);
    g_strfreev(o.rest);
    return status;
}
