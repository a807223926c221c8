/* SPDX-License-Identifier: MIT */
/*
 * hva save-as: the document of a machine that runs goes on in another file (its old one may be
 * gone). hva clone: a new machine from a snapshot of another, or from what the other is now. It has
 * an identity of its own and none of the other's versions but that one. A machine that runs goes
 * on: its keeper makes the clone (app/keeper/clone.c). Ctrl-C leaves nothing. Thread: main.
 *
 * Deliberately missing: sharing storage with the original, for a document is one file.
 */
#include <snapshots/store.h>

#include <signal.h>
#include <stdio.h>

#include "client.h"
#include "common/wire.h"
#include "progress.h"

static void on_progress(void *progress, const json_t *event)
{
    hsk_progress_step(progress, json_number_value(json_object_get(event, "fraction")));
}

static bool ask_keeper(struct hsk_client *c, const char *cmd, const char *version, const char *out,
                       struct hsk_progress *p, GError **error)
{
    g_autofree char *absolute = g_canonicalize_filename(out, NULL);

    /* The keeper cleans up when we are gone. */
    signal(SIGINT, SIG_DFL);
    json_t *r =
        hsk_client_ask_long(c, cmd, json_pack("{s:s, s:s?}", "out", absolute, "version", version),
                            on_progress, p, error);
    json_decref(r);
    return r != NULL;
}

static int make_clone(const char *machine, const char *version, const char *out)
{
    GError *error = NULL;
    struct hsk_progress p;
    HSK_AUTO(hsk_client, c) = hsk_client_find(machine, &error);
    int status = 0;

    hsk_progress_begin(&p, "copying", c ? hsk_json_str(hsk_client_info(c), "path", "") : machine);
    if (!error && c)
        ask_keeper(c, "clone", version, out, &p, &error);
    else if (!error)
        hsk_doc_clone(machine, version, out, hsk_progress_step, &p, &error);
    hsk_progress_end(&p);
    if (error)
        status = p.interrupted ? 130 : hsk_fail(error);
    g_clear_error(&error);
    return status;
}

int hsk_cmd_clone(int argc, char **argv)
{
    char **rest = NULL;
    const GOptionEntry entries[] = {
        {G_OPTION_REMAINING, 0, 0, G_OPTION_ARG_FILENAME_ARRAY, &rest, NULL, NULL},
        {NULL},
    };
    int status = 0;

    if (hsk_parse_options(&argc, &argv,
                          "MACHINE [SNAPSHOT] OUT.hva - make a new machine from this one", entries,
                          &status)) {
        guint n = rest ? g_strv_length(rest) : 0;
        status = n == 2 || n == 3 ? make_clone(rest[0], n == 3 ? rest[1] : NULL, rest[n - 1])
                                  : hsk_usage("usage: hva clone MACHINE [SNAPSHOT] OUT.hva");
    }
    g_strfreev(rest);
    return status;
}

int hsk_cmd_save_as(int argc, char **argv)
{
    struct hsk_args a = {0};
    g_autoptr(GError) error = NULL;
    struct hsk_progress p;
    int status = 0;

    if (hsk_parse_args(&a, &argc, &argv, "MACHINE NEW.hva", 2, 2, &status)) {
        HSK_AUTO(hsk_client, c) = hsk_client_need(a.rest[0], &error);
        hsk_progress_begin(&p, "copying", a.rest[0]);
        if (c)
            ask_keeper(c, "save-as", NULL, a.rest[1], &p, &error);
        hsk_progress_end(&p);
        status = error ? hsk_fail(error) : 0;
    }
    g_strfreev(a.rest);
    return status;
}
