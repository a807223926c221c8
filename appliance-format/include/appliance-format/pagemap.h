/* SPDX-License-Identifier: MIT */
/*
 * Page maps: where the newest copy of each 4 KiB page of an object is. A persistent radix tree of
 * nodes in map members, copied on write, each node reached through a hash of it (docs/format.md,
 * "Page map").
 *
 * Threads: a map belongs to one thread, or to whoever holds the caller's lock.
 */
#pragma once

#include <base/util.h>

#define HSK_MAP_FANOUT       128u
#define HSK_MAP_LEAF_BYTES   (8u * HSK_MAP_FANOUT)
#define HSK_MAP_INNER_BYTES  (32u * HSK_MAP_FANOUT)
#define HSK_OBJECT_MAX_BYTES (1ull << 44)

/* Entry: type:4 | segment:32 | frame:20 | slot:8, type 0 = hole (the whole entry is 0), 1 = page.
 */
static inline uint64_t hsk_entry(uint32_t segment, uint32_t frame, uint32_t slot)
{
    return 1ull << 60 | (uint64_t)segment << 28 | (uint64_t)frame << 8 | slot;
}
static inline uint32_t hsk_entry_segment(uint64_t e)
{
    return (uint32_t)(e >> 28);
}
static inline uint32_t hsk_entry_frame(uint64_t e)
{
    return (uint32_t)(e >> 8) & 0xfffff;
}
static inline uint32_t hsk_entry_slot(uint64_t e)
{
    return (uint32_t)e & 0xff;
}

/* A reference to a node; all zero: everything below is a hole. */
struct hsk_map_ref {
    uint32_t member, offset; /* map/<member>, byte offset */
    uint8_t hash[24];        /* BLAKE2b-192 of the node */
};
bool hsk_map_ref_is_null(const struct hsk_map_ref *ref);
#define HSK_MAP_REF_DIGITS 64
void hsk_map_ref_format(char out[HSK_MAP_REF_DIGITS + 1], const struct hsk_map_ref *ref);
bool hsk_map_ref_parse(const char *text,
                       struct hsk_map_ref *ref); /* exactly 64 digits and the end */

/* Reads len bytes of map/<member>; any failure is an error sentence. */
struct hsk_map_source {
    bool (*load)(void *opaque, uint32_t member, uint32_t offset, void *buf, size_t len,
                 GError **error);
    void *opaque;
    const char *label; /* names the store in errors */
};

struct hsk_pagemap;
struct hsk_pagemap *hsk_pagemap_new(const struct hsk_map_source *source,
                                    const struct hsk_map_ref *root, uint64_t npages);
void hsk_pagemap_free(struct hsk_pagemap *map);
HSK_DEFINE_AUTO(hsk_pagemap, hsk_pagemap_free)
bool hsk_pagemap_get(struct hsk_pagemap *map, uint64_t page, uint64_t *entry, GError **error);
/* Is there any leaf for the HSK_MAP_FANOUT pages around page? */
bool hsk_pagemap_has_leaf(struct hsk_pagemap *map, uint64_t page, bool *has, GError **error);
bool hsk_pagemap_set(struct hsk_pagemap *map, uint64_t page, uint64_t entry, GError **error);

/* Collects the new nodes of one or more maps for one map member. */
struct hsk_map_writer {
    uint32_t member;
    GByteArray *bytes;
};
/* Appends the changed nodes; the new root. */
bool hsk_pagemap_write(struct hsk_pagemap *map, struct hsk_map_writer *w, struct hsk_map_ref *root,
                       GError **error);

/* Walks a stored map, keeping nothing. enter (may be NULL) says whether to look below a node; page
 * sees each page entry; leave (may be NULL) says whether all below a node that was entered was
 * good: the first failure ends the walk. */
struct hsk_map_visitor {
    bool (*enter)(void *opaque, const struct hsk_map_ref *ref);
    bool (*page)(void *opaque, uint64_t page, uint64_t entry, GError **error);
    void *opaque;
    void (*leave)(void *opaque, const struct hsk_map_ref *ref, bool good);
    /* A node is damaged (may be NULL). true: go on, as if there was nothing below it. */
    bool (*damaged)(void *opaque, const struct hsk_map_ref *ref);
};
bool hsk_pagemap_walk(const struct hsk_map_source *source, const struct hsk_map_ref *root,
                      uint64_t npages, const struct hsk_map_visitor *v, GError **error);

/* Writes a stored map anew, with other entries. */
struct hsk_map_rewriter {
    /* true: *now is what takes the place of the node, which need not be looked at */
    bool (*known)(void *opaque, const struct hsk_map_ref *ref, struct hsk_map_ref *now);
    void (*done)(void *opaque, const struct hsk_map_ref *ref, const struct hsk_map_ref *now);
    uint64_t (*entry)(void *opaque, uint64_t entry);
    void *opaque;
    struct hsk_map_writer writer;
};
bool hsk_pagemap_rewrite(const struct hsk_map_source *source, const struct hsk_map_ref *root,
                         uint64_t npages, struct hsk_map_rewriter *rw, struct hsk_map_ref *now,
                         GError **error);
