/* SPDX-License-Identifier: MIT */
/*
 * Guest memory as the keeper sees it: it makes the objects, hands them to the machine, and copies
 * what a version needs. What the machine process writes there is only ever copied, never believed.
 * Threads: one at a time.
 */
#pragma once

#include <vmm/near.h>

#include "child.h"

#define HSK_MAX_OBJECTS 2

/* The objects of one machine: "ram" and, with a display, "vram". */
struct hsk_guest_memory {
    struct hsk_memobj *obj[HSK_MAX_OBJECTS];
    unsigned n;
    int near_fd, slots_fd; /* near versions (vmm/near.h); has_near */
    bool has_near;
    struct hsk_near_view near;
};

/* All zeros. vram_bytes 0: no display. */
bool hsk_guest_memory_init(struct hsk_guest_memory *m, uint64_t ram_bytes, uint64_t vram_bytes,
                           GError **error);
/* And what the machine needs to keep near versions. */
bool hsk_guest_memory_add_near(struct hsk_guest_memory *m, GError **error);
void hsk_guest_memory_clear(struct hsk_guest_memory *m);
/* Hands the objects and their attributes to a machine; they stay ours, too. */
void hsk_guest_memory_give(const struct hsk_guest_memory *m, struct hsk_child *c);

/* What a take has to store: also what a collection under way, or one that came to nothing, left. */
#define HSK_PAGE_CHANGED (HSK_PAGE_DIRTY | HSK_PAGE_GATHERED)

/* An object's pages at one moment, as hsk_version_commit wants them: those that are dirty, copied,
 * or to be read from the machine's near versions while the machine goes on. */
struct hsk_captured {
    const struct hsk_guest_memory *memory;
    unsigned object;
    uint8_t *dirty;     /* bit per page */
    int copies;         /* memfd: each of the dirty ones at its place; -1: no copies but the way */
    uint64_t copies_at; /* place of the object's first page */
    bool lent;          /* copies is somebody else's */
    uint32_t way[HSK_NEAR_POINTS];
    unsigned nway;
};
/* No pages yet. */
bool hsk_captured_begin(struct hsk_captured *c, const struct hsk_guest_memory *m, unsigned object,
                        GError **error);
/* What has changed since the last time, without copies yet; somebody else has them. */
void hsk_captured_changed(struct hsk_captured *c, const struct hsk_guest_memory *m,
                          unsigned object);
void hsk_captured_lend(struct hsk_captured *c, int fd, uint64_t at);
/* Adds the pages that have one of these attributes, which are cleared, and counts them in *n. What
 * there was of such a page is replaced. HSK_PAGE_GATHERED: while the guest runs; CHANGED: while it
 * does not. On error they belong to the capture, without a copy. */
bool hsk_captured_copy(struct hsk_captured *c, uint8_t attributes, uint64_t *n, GError **error);
/* The point under way (hsk_near_point); nothing is copied. */
void hsk_captured_point(struct hsk_captured *c, const struct hsk_guest_memory *m, unsigned object,
                        const uint32_t *way, unsigned nway);
/* One page of it, or, before the guest runs on, any other; opaque is the capture. */
void hsk_captured_read(void *opaque, uint64_t page, void *dst);
/* It was not stored: its pages are dirty again. */
void hsk_captured_lost(const struct hsk_captured *c);
void hsk_captured_clear(struct hsk_captured *c);
