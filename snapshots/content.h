/* SPDX-License-Identifier: MIT */
/*
 * Content by location: the segments and map members of a document, wherever they are (its instance
 * or the .hva), and the cache of decoded frames.
 *
 * Threads: any; the lock is held for look-ups and page map nodes, never while frames are read or
 * decoded.
 */
#pragma once

#include <appliance-format/root.h>

struct hsk_content;
/* Either carrier may be NULL; dir is looked at first. Both are borrowed. */
struct hsk_content *hsk_content_new(const char *label, const struct hsk_carrier *dir,
                                    const struct hsk_carrier *base);
void hsk_content_free(struct hsk_content *c);
HSK_DEFINE_AUTO(hsk_content, hsk_content_free)
/* The .hva was appended to. */
void hsk_content_set_base(struct hsk_content *c, const struct hsk_carrier *base);
/* Makes a segment of ROOT known; other entries are ignored. */
void hsk_content_add(struct hsk_content *c, const struct hsk_root_entry *e);
/* Forgets all segments that ROOT does not list; with keep they can still be read. */
void hsk_content_retain(struct hsk_content *c, const struct hsk_root *root, bool keep);
/* Does ROOT list the segment? */
bool hsk_content_has(struct hsk_content *c, uint32_t number);
/* A member of either, to be closed; it is read without the lock. */
bool hsk_content_member(struct hsk_content *c, const char *name, struct hsk_member *m,
                        GError **error);
/* A reference to give back with hsk_segment_free. */
struct hsk_segment *hsk_content_segment(struct hsk_content *c, uint32_t number, GError **error);
/* The content of a frame, through the cache; the slot does not matter. */
GBytes *hsk_content_frame(struct hsk_content *c, uint64_t entry, GError **error);
/* One page of a frame; entry 0 gives zeros. */
bool hsk_content_page(struct hsk_content *c, uint64_t entry, void *dst, GError **error);
struct hsk_map_source hsk_content_maps(struct hsk_content *c);

/* A run of bytes kept as frames: device state, a picture. */
#define HSK_BLOB_MAX_BYTES (64u << 20)
struct hsk_blob {
    uint64_t bytes;
    GArray *frames; /* uint64_t page entries with slot 0; NULL = none */
};
void hsk_blob_clear(struct hsk_blob *b);
GBytes *hsk_content_blob(struct hsk_content *c, const struct hsk_blob *b, GError **error);
