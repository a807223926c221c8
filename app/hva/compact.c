/* SPDX-License-Identifier: MIT */
/*
 * hva compact: a document without what none of its versions needs. Ctrl-C leaves the old one.
 * Thread: main.
 */
#include <snapshots/store.h>

#include <stdio.h>
#include <sys/stat.h>

#include "common/values.h"
#include "hva.h"
#include "progress.h"

static double megabytes(const char *file)
{
    struct stat st;
    return stat(file, &st) == 0 ? (double)st.st_size / 1e6 : 0;
}

static int compact(const char *file)
{
    g_autoptr(GError) error = NULL;
    struct hsk_progress p;
    double before = megabytes(file);

    hsk_progress_begin(&p, "compacting", file);
    bool good = hsk_doc_compact(file, hsk_progress_step, &p, &error);
    hsk_progress_end(&p);
    if (!good)
        return p.interrupted ? 130 : hsk_fail(error);
    hsk_say("%s: %.1f MB, %.1f MB before", file, megabytes(file), before);
    return 0;
}

int hsk_cmd_compact(int argc, char **argv)
{
    char **rest = NULL;
    const GOptionEntry entries[] = {
        {G_OPTION_REMAINING, 0, 0, G_OPTION_ARG_FILENAME_ARRAY, &rest, NULL, NULL},
        {NULL},
    };
    int status = 0;

    if (hsk_parse_options(&argc, &argv, "FILE - free what no snapshot of a document needs", entries,
                          &status))
        status = rest && !rest[1] ? compact(rest[0]) : hsk_usage("usage: hva compact FILE");
    g_strfreev(rest);
    return status;
}
