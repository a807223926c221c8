/* SPDX-License-Identifier: MIT */
/*
 * Near versions: the last few moments ("points") of a machine's memory, kept as the old contents of
 * the pages that were written since. A point costs nothing but a new epoch of the copy-before-write
 * hook (memory.h); a point can be read by another process while the machine runs, and memory can be
 * made again what it was at a point, back and forth, for the price of copying what differs.
 *
 * Each kept point has a layer: page -> slot with the content that the page had at that point, for
 * the pages that changed until the next point on the way to memory. So the content of a page at a
 * point is in the first layer on its way that has the page, and else in memory:
 *
 *     point 1 -> point 2 -> newest -> memory      (the newest one's layer is what the hook fills)
 *
 * Going back from a newest point B (just taken, its layer empty) to V swaps contents between memory
 * and layers and turns the way round: B now leads to V, and V to memory; whatever led to B or to V
 * still does. Every slot belongs to one layer.
 *
 * Two memfds are shared with the process that reads (hsk_near_read): the slots, and the index: the
 * layers, and a bitmap of the pages that were dirty at the newest point.
 *
 * Threads: the hook on any writing thread; all else on the loop thread, or, hsk_near_read, in
 * another process. Layers are flat arrays of 32-bit numbers,
 * whose pages exist only where they are used.
 */
#pragma once

#include <vmm/memory.h>

#define HSK_NEAR_POINTS  10 /* layers; a few more than are kept, for points to come */
#define HSK_NEAR_KEPT    6
#define HSK_NEAR_OBJECTS 2

/* Where things are in the two memfds; pages of all objects are numbered through. */
struct hsk_near_layout {
    unsigned nobjects;
    uint64_t first[HSK_NEAR_OBJECTS]; /* number of the object's first page; a multiple of 64 */
    uint64_t pages[HSK_NEAR_OBJECTS];
    uint64_t total;  /* page numbers */
    uint64_t nslots; /* that there can be at most */
    uint64_t index_bytes, slots_bytes;
};
void hsk_near_layout(struct hsk_near_layout *l, const uint64_t *size_bytes, unsigned nobjects);

/* ---- the machine's side ---- */

struct hsk_near;

/* Takes the descriptors, also on failure. budget_pages: what layers may hold while nobody reads
 * them. */
struct hsk_near *hsk_near_new(struct hsk_memobj *const *objects, unsigned nobjects, int index_fd,
                              int slots_fd, uint64_t budget_pages, GError **error);
void hsk_near_free(struct hsk_near *n);
/* Layers hold more than they may: hsk_near_trim() should run soon. Called once, by a writing
 * thread. */
void hsk_near_set_full(struct hsk_near *n, void (*full)(void *opaque), void *opaque);

/* Now is a point, with a name that no kept one has; stopped. Clears DIRTY and SAVED (flush the
   engine's writers behind it) and writes the bitmap of what was dirty. passing: the first to be
   forgotten. From here to hsk_near_release() the point can be read. */
void hsk_near_point(struct hsk_near *n, uint64_t name, bool passing);
/* What belongs to the newest point (the devices' state); a reference is taken. */
void hsk_near_set_state(struct hsk_near *n, GBytes *state);
/* The state of a kept point, borrowed; NULL: it is not kept. */
GBytes *hsk_near_state(const struct hsk_near *n, uint64_t name);
/* The layers on the way from the point to memory, for hsk_near_read; 0: not kept. */
unsigned hsk_near_way(const struct hsk_near *n, uint64_t name, uint32_t way[HSK_NEAR_POINTS]);
/* Nobody reads the point any more. failed: what the bitmap says, and what going back has changed
   since, is dirty again. */
void hsk_near_release(struct hsk_near *n, bool failed);

/* Memory becomes what it was at the point. Stopped since the newest point was made (so nothing was
   written after it). changed is told of each page; may be NULL. Number of pages, or -1: not kept,
   nothing was done. DIRTY stays clear: the pages count from the point gone back to. */
int64_t hsk_near_go_back(struct hsk_near *n, uint64_t name,
                         void (*changed)(void *opaque, struct hsk_memobj *obj, uint64_t page),
                         void *opaque);

/* What was written since the newest point made memory that of a version which is not kept: a point
   like hsk_near_point(), but the bitmap and what can be read stay those of the one before. Stopped.
 */
void hsk_near_settle(struct hsk_near *n, uint64_t name);

/* Forgets what is too much, and gives back memory. A little at a time; true: call again. The
 * machine may run. */
bool hsk_near_trim(struct hsk_near *n);
/* Pages held in layers, and points kept (for statistics and tests). */
uint64_t hsk_near_held(const struct hsk_near *n);
unsigned hsk_near_kept(const struct hsk_near *n);

/* ---- the reader's side ---- */

/* Mappings of the two memfds; what is in them is checked at each use, for the machine is not
 * trusted. */
struct hsk_near_view {
    struct hsk_near_layout layout;
    _Atomic uint32_t *index;
    const uint8_t *slots, *bitmap;
};
bool hsk_near_view_init(struct hsk_near_view *v, const uint64_t *size_bytes, unsigned nobjects,
                        int index_fd, int slots_fd, GError **error);
void hsk_near_view_clear(struct hsk_near_view *v);
/* The page as it was at the point whose way that is. No lock, at any time before
 * hsk_near_release(). */
void hsk_near_read(const struct hsk_near_view *v, const uint32_t *way, unsigned nway,
                   unsigned object, const struct hsk_memobj *obj, uint64_t page, void *dst);
/* The bitmap of an object, (pages + 7) / 8 bytes. */
const uint8_t *hsk_near_dirty(const struct hsk_near_view *v, unsigned object);
