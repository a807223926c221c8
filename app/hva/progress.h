/* SPDX-License-Identifier: MIT */
/*
 * How far a long command is: percent, rate and remaining time on a terminal, and Ctrl-C that stops
 * it between two steps, so that it can clean up and leave nothing. Thread: main.
 */
#pragma once

#include <base/util.h>

struct hsk_progress {
    const char *verb, *file;
    uint64_t bytes; /* of the file: what the rate is counted in */
    gint64 started_us, shown_us;
    bool terminal;
    bool interrupted; /* Ctrl-C: the exit status is 130 */
};
/* One at a time. verb: "checking". */
void hsk_progress_begin(struct hsk_progress *p, const char *verb, const char *file);
/* A progress function of the store's: false once Ctrl-C was pressed. */
bool hsk_progress_step(void *progress, double fraction);
/* Clears the line; Ctrl-C ends the program again. */
void hsk_progress_end(struct hsk_progress *p);
