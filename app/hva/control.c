/* SPDX-License-Identifier: MIT */
/*
 * The commands that talk to a running machine: a table of what each one sends and shows. Those that
 * also work on a document that does not run are in document.c, versions.c and settings.c.
 */
#include <snapshots/store.h>

#include <stdio.h>
#include <stdlib.h>

#include "client.h"
#include "common/values.h"
#include "common/when.h"
#include "common/wire.h"

struct args {
    gboolean json, force, wait;
    char *at;
    char **rest;
};

/* Parses what these commands have in common; argument counts are without the machine. */
static bool parse(struct args *a, int *argc, char ***argv, const char *usage, unsigned min,
                  unsigned max, int *status)
{
    const GOptionEntry entries[] = {
        {"json", 0, 0, G_OPTION_ARG_NONE, &a->json, "machine-readable output", NULL},
        {"force", 0, G_OPTION_FLAG_HIDDEN, G_OPTION_ARG_NONE, &a->force, NULL, NULL},
        {"wait", 0, G_OPTION_FLAG_HIDDEN, G_OPTION_ARG_NONE, &a->wait, NULL, NULL},
        {"at", 0, G_OPTION_FLAG_HIDDEN, G_OPTION_ARG_STRING, &a->at, NULL, NULL},
        {G_OPTION_REMAINING, 0, 0, G_OPTION_ARG_FILENAME_ARRAY, &a->rest, NULL, NULL},
        {NULL},
    };
    if (!hsk_parse_options(argc, argv, usage, entries, status))
        return false;
    unsigned n = a->rest ? g_strv_length(a->rest) : 0;
    if (n >= min + 1 && n <= max + 1)
        return true;
    *status = hsk_usage("usage: %s %s", g_get_prgname(), usage);
    return false;
}

static void show_snapshot(const json_t *r)
{
    printf("%s  \"%s\"  paused %.0f ms, %.1f MB added\n", hsk_json_str(r, "id", ""),
           hsk_json_str(r, "title", ""), json_number_value(json_object_get(r, "pause_ms")),
           (double)hsk_json_int(r, "bytes_added", 0) / 1e6);
}

static void show_gone_back(const json_t *r)
{
    printf("back at \"%s\" (%.0f ms); \"hva undo\" returns\n", hsk_json_str(r, "title", ""),
           json_number_value(json_object_get(r, "pause_ms")));
}

static bool mouse_args(json_t *q, char **rest, GError **error)
{
    static const char *const keys[] = {"x", "y"};

    for (unsigned i = 0; i < 2; i++) {
        char *end = NULL;
        long v = strtol(rest[1 + i], &end, 10);
        if (*end || end == rest[1 + i]) {
            g_set_error(error, HSK_ERROR, HSK_ERROR_USAGE,
                        "mouse takes X and Y in pixels, but \"%s\" was given", rest[1 + i]);
            return false;
        }
        json_object_set_new(q, keys[i], json_integer(v));
    }
    if (rest[3])
        json_object_set_new(q, "button", json_string(rest[3]));
    return true;
}

static bool key_args(json_t *q, char **rest, GError **error)
{
    json_t *keys = json_array();

    for (char **k = rest + 1; *k; k++)
        json_array_append_new(keys, json_string(*k));
    json_object_set_new(q, "keys", keys);
    return true;
}

/* "-30s" and so on are the user's clock's, so they are read here. */
static bool at_arg(json_t *q, const struct args *a, GError **error)
{
    int64_t when = 0;

    if (a->rest[1]) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_USAGE,
                    "--at goes back to a time and \"%s\" names a snapshot; give one of them",
                    a->rest[1]);
        return false;
    }
    if (!hsk_parse_when(a->at, g_get_real_time() / G_USEC_PER_SEC, &when, error))
        return false;
    json_object_set_new(q, "at", json_integer(when));
    return true;
}

static const struct control_command {
    const char *name, *usage;
    unsigned min, max;
    const char *key;                                      /* where the one argument goes, or NULL */
    bool (*fill)(json_t *q, char **rest, GError **error); /* or this one */
    void (*show)(const json_t *reply);
} commands[] = {
    {"pause", "MACHINE", 0, 0, NULL, NULL, NULL},
    {"resume", "MACHINE", 0, 0, NULL, NULL, NULL},
    {"reset", "MACHINE", 0, 0, NULL, NULL, NULL},
    {"power", "MACHINE", 0, 0, NULL, NULL, NULL},
    {"stop", "MACHINE [--force]", 0, 0, NULL, NULL, NULL},
    {"snapshot", "MACHINE [TITLE] [--wait]", 0, 1, "title", NULL, show_snapshot},
    {"revert", "MACHINE [SNAPSHOT | --at TIME]", 0, 1, "to", NULL, show_gone_back},
    {"undo", "MACHINE", 0, 0, NULL, NULL, show_gone_back},
    {"type", "MACHINE TEXT", 1, 1, "text", NULL, NULL},
    {"key", "MACHINE ctrl+alt+delete...", 1, 64, NULL, key_args, NULL},
    {"mouse", "MACHINE X Y [left|right|middle]", 2, 3, NULL, mouse_args, NULL},
};

static int ask(const struct control_command *cmd, const struct args *a)
{
    g_autoptr(GError) error = NULL;
    HSK_AUTO(hsk_client, c) = hsk_client_need(a->rest[0], &error);

    if (!c)
        return hsk_fail(error);
    json_t *q = json_object();
    if (cmd->key && a->rest[1])
        json_object_set_new(q, cmd->key, json_string(a->rest[1]));
    if (a->at && !at_arg(q, a, &error)) {
        json_decref(q);
        return hsk_fail(error);
    }
    if (a->force)
        json_object_set_new(q, "force", json_true());
    if (a->wait)
        json_object_set_new(q, "wait", json_true());
    if (cmd->fill && !cmd->fill(q, a->rest, &error)) {
        json_decref(q);
        return hsk_fail(error);
    }
    json_t *r = hsk_client_ask(c, cmd->name, q, &error);
    if (!r)
        return hsk_fail(error);
    if (strcmp(cmd->name, "stop") == 0)
        hsk_client_wait_end(c);
    /* On the socket "id" is the request's; for people it is the version's. */
    json_t *version = json_object_get(r, "version");
    if (version) {
        json_object_set(r, "id", version);
        json_object_del(r, "version");
    }
    if (a->json)
        hsk_print_json(r);
    else if (cmd->show)
        cmd->show(r);
    /* It has stopped, but the file is not what one may take along. */
    const char *unsaved = hsk_json_str(r, "text", NULL);
    if (unsaved)
        hsk_complain(unsaved);
    int status = unsaved && !a->force ? 1 : 0;
    json_decref(r);
    return status;
}

int hsk_cmd_control(int argc, char **argv)
{
    struct args a = {0};
    int status = 2;

    for (unsigned i = 0; i < G_N_ELEMENTS(commands); i++) {
        if (strcmp(commands[i].name, argv[0]) == 0) {
            if (parse(&a, &argc, &argv, commands[i].usage, commands[i].min, commands[i].max,
                      &status))
                status = ask(&commands[i], &a);
            break;
        }
    }
    g_free(a.at);
    g_strfreev(a.rest);
    return status;
}

static int screenshot(const struct args *a)
{
    g_autoptr(GError) error = NULL;
    HSK_AUTO(hsk_client, c) = hsk_client_need(a->rest[0], &error);
    json_t *r = c ? hsk_client_ask(c, "screenshot", NULL, &error) : NULL;
    gsize n = 0;

    if (!r)
        return hsk_fail(error);
    g_autofree guchar *png = g_base64_decode(hsk_json_str(r, "png", ""), &n);
    json_decref(r);
    if (!g_file_set_contents(a->rest[1], (const char *)png, (gssize)n, &error))
        return hsk_fail(error);
    if (a->json) {
        json_t *out = json_pack("{s:s, s:I}", "file", a->rest[1], "bytes", (json_int_t)n);
        hsk_print_json(out);
        json_decref(out);
    }
    return 0;
}

int hsk_cmd_screenshot(int argc, char **argv)
{
    struct args a = {0};
    int status = 0;

    if (parse(&a, &argc, &argv, "MACHINE OUT.png", 1, 1, &status))
        status = screenshot(&a);
    g_strfreev(a.rest);
    return status;
}

int hsk_cmd_ps(int argc, char **argv)
{
    gboolean json = FALSE;
    const GOptionEntry entries[] = {
        {"json", 0, 0, G_OPTION_ARG_NONE, &json, "machine-readable output", NULL}, {NULL}};
    int status = 0;

    if (!hsk_parse_options(&argc, &argv, "- list running machines", entries, &status))
        return status;
    hsk_instances_tidy();
    json_t *all = hsk_client_all(), *m;
    size_t i;
    if (json) {
        hsk_print_json(all);
    } else {
        json_array_foreach(all, i, m)
            hsk_say("%-20s %-8s %-5s %6" G_GINT64_FORMAT " MiB  %s", hsk_json_str(m, "name", ""),
                    hsk_json_str(m, "state", ""), hsk_json_str(m, "engine", ""),
                    hsk_json_int(m, "memory", 0) >> 20, hsk_json_str(m, "path", ""));
    }
    json_decref(all);
    return 0;
}
