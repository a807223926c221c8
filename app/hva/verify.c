/* SPDX-License-Identifier: MIT */
/*
 * hva verify: checks every byte of a document and says what is damaged and which snapshots that
 * affects. Exit status 0: whole, 1: damaged, 130: Ctrl-C. Thread: main.
 */
#include <snapshots/trust.h>
#include <snapshots/verify.h>

#include <stdio.h>

#include "common/values.h"
#include "hva.h"
#include "progress.h"

static json_t *json_of(const struct hsk_check_result *r, double seconds)
{
    json_t *problems = json_array(), *versions = json_array();

    for (guint i = 0; i < r->problems->len; i++)
        json_array_append_new(problems, json_string(g_ptr_array_index(r->problems, i)));
    for (guint i = 0; i < r->versions->len; i++) {
        const struct hsk_checked_version *v =
            &g_array_index(r->versions, struct hsk_checked_version, i);
        json_array_append_new(versions,
                              json_pack("{s:s, s:s, s:b, s:s?}", "id", v->id, "title", v->title,
                                        "whole", !v->problem, "problem", v->problem));
    }
    return json_pack("{s:b, s:I, s:i, s:i, s:i, s:f, s:o, s:s?, s:o}", "whole", r->whole, "bytes",
                     (json_int_t)r->bytes, "members", (int)r->members, "frames", (int)r->frames,
                     "nodes", (int)r->nodes, "seconds", seconds, "problems", problems, "present",
                     r->present, "versions", versions);
}

/* One sentence first, then the list. */
static void print(const struct hsk_check_result *r, const char *file, double seconds)
{
    unsigned bad = 0;

    for (guint i = 0; i < r->versions->len; i++)
        bad += g_array_index(r->versions, struct hsk_checked_version, i).problem != NULL;
    if (r->whole) {
        hsk_say("%s is whole: %.1f MB, %u members, %u frames, %u snapshots, %.0f MB/s", file,
                (double)r->bytes / 1e6, r->members, r->frames, r->versions->len,
                seconds > 0 ? (double)r->bytes / seconds / 1e6 : 0);
        return;
    }
    g_autofree char *text =
        bad == 0 && !r->present
            ? g_strdup_printf("%s is damaged, but no snapshot needs what is", file)
            : g_strdup_printf(
                  "%s is damaged: %u of its %u snapshots%s cannot be used; \"hva drop\" "
                  "removes a snapshot, the others are whole",
                  file, bad, r->versions->len, r->present ? ", and what it goes on from," : "");
    hsk_complain(text);
    for (guint i = 0; i < r->versions->len; i++) {
        const struct hsk_checked_version *v =
            &g_array_index(r->versions, struct hsk_checked_version, i);
        hsk_say("%.12s  %-8s %s%s%s", v->id, v->problem ? "damaged" : "whole", v->title,
                v->problem ? ": " : "", v->problem ? v->problem : "");
    }
    if (r->present)
        hsk_say("present       damaged  %s", r->present);
    for (guint i = 0; i < r->problems->len; i++)
        hsk_say("%s", (const char *)g_ptr_array_index(r->problems, i));
}

static int verify(const char *file, bool json)
{
    g_autoptr(GError) error = NULL;
    struct hsk_progress p;

    hsk_progress_begin(&p, "checking", file);
    HSK_AUTO(hsk_check_result, r) = hsk_doc_check(file, hsk_progress_step, &p, &error);
    double seconds = (double)(g_get_monotonic_time() - p.started_us) / 1e6;
    hsk_progress_end(&p);
    if (!r && p.interrupted)
        return 130;
    if (!r) {
        if (json)
            printf("{\"whole\": false}\n");
        return hsk_fail(error);
    }
    if (json) {
        json_t *j = json_of(r, seconds);
        hsk_print_json(j);
        json_decref(j);
    } else {
        print(r, file, seconds);
    }
    return r->whole ? 0 : 1;
}

int hsk_cmd_verify(int argc, char **argv)
{
    gboolean json = FALSE;
    char **rest = NULL;
    const GOptionEntry entries[] = {
        {"json", 0, 0, G_OPTION_ARG_NONE, &json, "machine-readable output", NULL},
        {G_OPTION_REMAINING, 0, 0, G_OPTION_ARG_FILENAME_ARRAY, &rest, NULL, NULL},
        {NULL},
    };
    int status = 0;

    if (hsk_parse_options(&argc, &argv, "FILE - check every byte of a document", entries, &status))
        status = rest && !rest[1] ? verify(rest[0], json) : hsk_usage("usage: hva verify FILE");
    g_strfreev(rest);
    return status;
}
