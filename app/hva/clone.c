/* SPDX-License-Identifier: MIT */
/*
 * hva clone: a new machine from a snapshot of another, or from its disks as they are. It has an
 * identity of its own and none of the other's versions but that one. Ctrl-C leaves nothing.
 * Thread: main.
 *
 * Deliberately missing: sharing storage with the original, for a document is one file.
 */
#include <snapshots/store.h>

#include <stdio.h>

#include "hva.h"
#include "progress.h"

static int make_clone(const char *file, const char *version, const char *out)
{
    g_autoptr(GError) error = NULL;
    struct hsk_progress p;

    hsk_progress_begin(&p, "copying", file);
    bool good = hsk_doc_clone(file, version, out, hsk_progress_step, &p, &error);
    hsk_progress_end(&p);
    if (!good)
        return p.interrupted ? 130 : hsk_fail(error);
    return 0;
}

int hsk_cmd_clone(int argc, char **argv)
{
    char **rest = NULL;
    const GOptionEntry entries[] = {
        {G_OPTION_REMAINING, 0, 0, G_OPTION_ARG_FILENAME_ARRAY, &rest, NULL, NULL},
        {NULL},
    };
    int status = 0;

    if (hsk_parse_options(&argc, &argv, "FILE [SNAPSHOT] OUT.hva - make a new machine from this one",
                          entries, &status)) {
        guint n = rest ? g_strv_length(rest) : 0;
        status = n == 2 || n == 3 ? make_clone(rest[0], n == 3 ? rest[1] : NULL, rest[n - 1])
                                  : hsk_usage("usage: hva clone FILE [SNAPSHOT] OUT.hva");
    }
    g_strfreev(rest);
    return status;
}
