/* SPDX-License-Identifier: MIT */
/*
 * Guest memory as the keeper sees it: it makes the objects, hands them to the machine, and copies
 * what a version needs. What the machine process writes there is only ever copied, never believed.
 * Threads: one at a time.
 */
#pragma once

#include <vmm/memory.h>

#include "child.h"

#define HSK_MAX_OBJECTS 2

/* The objects of one machine: "ram" and, with a display, "vram". */
struct hsk_guest_memory {
    struct hsk_memobj *obj[HSK_MAX_OBJECTS];
    unsigned n;
};

/* All zeros. vram_bytes 0: no display. */
bool hsk_guest_memory_init(struct hsk_guest_memory *m, uint64_t ram_bytes, uint64_t vram_bytes,
                           GError **error);
void hsk_guest_memory_clear(struct hsk_guest_memory *m);
/* Hands the objects and their attributes to a machine; they stay ours, too. */
void hsk_guest_memory_give(const struct hsk_guest_memory *m, struct hsk_child *c);

/* A copy of an object's pages at one moment, as hsk_version_commit wants it. */
struct hsk_staged {
    const char *name; /* of the object; borrowed from it */
    uint64_t size_bytes;
    uint8_t *dirty; /* bit per page, or NULL: all pages */
    uint8_t *pages; /* mapping of pages_bytes, or NULL if there are none */
    uint64_t pages_bytes;
};
/* all: every page, holes stay holes; else those with HSK_PAGE_DIRTY. The machine is stopped. */
bool hsk_staged_copy(struct hsk_staged *s, const struct hsk_memobj *obj, bool all, GError **error);
void hsk_staged_clear(struct hsk_staged *s);
