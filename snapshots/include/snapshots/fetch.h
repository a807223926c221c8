/* SPDX-License-Identifier: MIT */
/*
 * An object of a version frame by frame, for whoever brings it into memory in an order of his own:
 * what a page fault waits for first, the rest later, each frame decoded once.
 *
 * Threads: new and free as the document's other calls; the rest on any thread. The version stays
 * open meanwhile.
 */
#pragma once

#include <snapshots/store.h>

#define HSK_FETCH_BYTES (256u << 10) /* of a frame's content, at most */

/* Pages that follow each other in the object and in their frame. */
struct hsk_fetch_run {
    uint64_t entry; /* of the first one, as in the page map */
    uint32_t page, count;
};

struct hsk_fetch;
/* Reads the whole page map. */
struct hsk_fetch *hsk_fetch_new(struct hsk_version *v, const char *object, GError **error);
void hsk_fetch_free(struct hsk_fetch *f);
uint64_t hsk_fetch_pages(const struct hsk_fetch *f); /* of the object */
/* Frames in the order in which they are stored: 0 .. n-1. */
uint32_t hsk_fetch_frames(const struct hsk_fetch *f);
/* The frame that holds a page of the object; -1: none, the page is zeros. */
int64_t hsk_fetch_frame_of(const struct hsk_fetch *f, uint64_t page);
/* The pages of the object that a frame holds. */
const struct hsk_fetch_run *hsk_fetch_runs(const struct hsk_fetch *f, uint32_t frame, size_t *n);
/* Verified content of a frame into buf of HSK_FETCH_BYTES; where a run's pages are in it: */
bool hsk_fetch_decode(struct hsk_fetch *f, uint32_t frame, uint8_t *buf, GError **error);
const uint8_t *hsk_fetch_at(const struct hsk_fetch_run *run, const uint8_t *buf);
