/* SPDX-License-Identifier: MIT */
/*
 * Which pages differ between versions that were taken of one machine while this keeper ran: each
 * says what it changed against the one that it was taken over. So going back to a version that the
 * machine does not keep near takes those pages out of the store, and not all of memory.
 *
 * Threads: one at a time.
 */
#pragma once

#include <snapshots/store.h>

#include "memory.h"

struct hsk_changes;

struct hsk_changes *hsk_changes_new(void);
void hsk_changes_free(struct hsk_changes *c);
/* Version id was taken over base ("": zeros). The bitmaps of what was captured are copied. */
void hsk_changes_add(struct hsk_changes *c, const char *id, const char *base,
                     const struct hsk_captured *captured, unsigned n);

/* Pages out of the store, for the machine, each at its place in a memfd. The machine puts what
 * these pages were in their place. */
struct hsk_fetched {
    struct hsk_near_layout layout;
    uint8_t *wanted, *there; /* bitmaps of page numbers; there: has been read */
    int fd;                  /* or -1; hsk_contents_bytes() */
};

/* What differs between the two; NULL: not known, or not worth it. */
struct hsk_fetched *hsk_changes_between(const struct hsk_changes *c,
                                        const struct hsk_guest_memory *m, const char *from,
                                        const char *to);
void hsk_fetched_free(struct hsk_fetched *f);
/* Takes what another one (taken) has of the same version. */
void hsk_fetched_take_over(struct hsk_fetched *f, struct hsk_fetched *other);
/* These are wanted, too. */
void hsk_fetched_want(struct hsk_fetched *f, const struct hsk_guest_memory *m, unsigned object,
                      const uint8_t *dirty);
/* Reads what is wanted and not there yet. */
bool hsk_fetched_read(struct hsk_fetched *f, const struct hsk_guest_memory *m,
                      struct hsk_version *v, GError **error);
/* Puts what else the machine needs beside the pages in f->fd. */
bool hsk_fetched_finish(struct hsk_fetched *f, GBytes *state, GError **error);
