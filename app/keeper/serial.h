/* SPDX-License-Identifier: MIT */
/*
 * Where the guest's serial port goes: "stdio", "null" or a file.
 *
 * A pipe or a file is handed to the machine as it is (no copy, no extra process in the way). A
 * terminal, a pattern to wait for and consoles that come and go need the relay: the keeper sits
 * between.
 *
 * Thread: the keeper's main thread.
 */
#pragma once

#include <base/util.h>

struct hsk_serial;

struct hsk_serial_config {
    const char *where;           /* "stdio", "null", or a file's path (created or emptied) */
    const char *pattern;         /* regular expression to look for in the guest's output, or NULL */
    bool consoles;               /* hsk_serial_attach will be used */
    void (*seen)(void *opaque);  /* the pattern was there; once */
    void (*leave)(void *opaque); /* Ctrl-A x on the terminal */
    void *opaque;
};

/* Error HSK_ERROR_USAGE for a bad pattern. */
struct hsk_serial *hsk_serial_new(const struct hsk_serial_config *cfg, GError **error);
/* Delivers what is still on its way from a machine that has ended, and gives the terminal back as
 * it was. */
void hsk_serial_free(struct hsk_serial *s);
/* The machine's ends; borrowed; -1: none. */
int hsk_serial_in_fd(struct hsk_serial *s);
int hsk_serial_out_fd(struct hsk_serial *s);
/* Reads what a stopped machine has written so far, so that a pattern in its last words is seen. */
void hsk_serial_drain(struct hsk_serial *s);
/* One more place that sees the output and may type: a connected stream socket, taken. A slow one
 * loses output, not time. */
void hsk_serial_attach(struct hsk_serial *s, int fd);
