/* SPDX-License-Identifier: MIT */
/*
 * Packing (pack.h). Neighbours stay together: sixteen pages aligned to 64 KiB of which at least
 * half are new become a frame, so that a machine's memory is read back in order; scattered pages
 * are collected into frames of 256 KiB. One thread.
 */
#include "pack.h"

#include <xxhash.h>

enum { GROUP_PAGES = 16, SCATTER_PAGES = HSK_FRAME_MAX_BYTES / HSK_PAGE_SIZE };

/* Sets of four slots, the newest first. */
enum { WAYS = 4, SETS = 1 << 17 };

struct slot {
    uint64_t key;   /* XXH3-64 of the page */
    uint64_t entry; /* 0 = free */
};

struct hsk_index {
    struct slot slots[SETS][WAYS];
};

struct waiting {
    struct hsk_pagemap *map;
    uint64_t page, key;
};

struct bin {
    unsigned n;
    struct waiting w[SCATTER_PAGES];
    uint8_t *pages;
};

struct hsk_pack {
    struct hsk_content *content;
    struct hsk_index *index;
    struct hsk_segment_writer *writer;
    struct bin group, scatter;
    /* the frame that was read back last, of the segment that is being written */
    uint64_t back_entry;
    size_t back_bytes;
    uint8_t *back;
};

struct hsk_index *hsk_index_new(void)
{
    return g_new0(struct hsk_index, 1);
}

void hsk_index_free(struct hsk_index *x)
{
    g_free(x);
}

/* The entry for the key, or 0. */
static uint64_t find(const struct hsk_index *x, uint64_t key)
{
    const struct slot *set = x->slots[key % SETS];
    for (unsigned i = 0; i < WAYS; i++) {
        if (set[i].entry != 0 && set[i].key == key)
            return set[i].entry;
    }
    return 0;
}

static void insert(struct hsk_index *x, uint64_t key, uint64_t entry)
{
    struct slot *set = x->slots[key % SETS];
    unsigned i = 0;
    while (i < WAYS - 1 && set[i].key != key && set[i].entry != 0)
        i++;
    memmove(set + 1, set, i * sizeof(*set));
    set[0] = (struct slot){key, entry};
}

struct hsk_pack *hsk_pack_new(struct hsk_content *content, struct hsk_index *index,
                              struct hsk_segment_writer *writer)
{
    struct hsk_pack *p = g_new0(struct hsk_pack, 1);
    p->content = content;
    p->index = index;
    p->writer = writer;
    p->group.pages = g_malloc((size_t)GROUP_PAGES * HSK_PAGE_SIZE);
    p->scatter.pages = g_malloc((size_t)SCATTER_PAGES * HSK_PAGE_SIZE);
    p->back = g_malloc(HSK_FRAME_MAX_BYTES);
    return p;
}

void hsk_pack_free(struct hsk_pack *p)
{
    if (p == NULL)
        return;
    g_free(p->group.pages);
    g_free(p->scatter.pages);
    g_free(p->back);
    g_free(p);
}

bool hsk_page_is_zero(const uint8_t *page)
{
    return page[0] == 0 && memcmp(page, page + 1, HSK_PAGE_SIZE - 1) == 0;
}

static void put(struct bin *b, const struct waiting *w, const uint8_t *page)
{
    memcpy(b->pages + (size_t)b->n * HSK_PAGE_SIZE, page, HSK_PAGE_SIZE);
    b->w[b->n++] = *w;
}

static bool emit(struct hsk_pack *p, struct bin *b, GError **error)
{
    uint32_t segment, frame;
    if (b->n == 0)
        return true;
    if (!hsk_segment_writer_add(p->writer, b->pages, (size_t)b->n * HSK_PAGE_SIZE, &segment, &frame,
                                error))
        return false;
    for (unsigned i = 0; i < b->n; i++) {
        const struct waiting *w = &b->w[i];
        uint64_t entry = hsk_entry(segment, frame, i);
        if (!hsk_pagemap_set(w->map, w->page, entry, error))
            return false;
        insert(p->index, w->key, entry);
    }
    b->n = 0;
    return true;
}

/* A group that was left behind: a frame of its own, or scattered. */
static bool close_group(struct hsk_pack *p, GError **error)
{
    struct bin *g = &p->group;
    if (g->n >= GROUP_PAGES / 2)
        return emit(p, g, error);
    for (unsigned i = 0; i < g->n; i++) {
        put(&p->scatter, &g->w[i], g->pages + (size_t)i * HSK_PAGE_SIZE);
        if (p->scatter.n == SCATTER_PAGES && !emit(p, &p->scatter, error))
            return false;
    }
    g->n = 0;
    return true;
}

bool hsk_pack_flush(struct hsk_pack *p, GError **error)
{
    return close_group(p, error) && emit(p, &p->scatter, error);
}

/* Is the content at entry the same as src? */
static bool same(struct hsk_pack *p, uint64_t entry, const uint8_t *src)
{
    uint8_t page[HSK_PAGE_SIZE];
    uint64_t frame = entry & ~0xffull, off = (uint64_t)hsk_entry_slot(entry) * HSK_PAGE_SIZE;
    if (entry == 0)
        return false;
    if (frame != p->back_entry &&
        hsk_segment_writer_decode(p->writer, hsk_entry_segment(entry), hsk_entry_frame(entry),
                                  p->back, &p->back_bytes))
        p->back_entry = frame;
    if (frame == p->back_entry)
        return hsk_range_ok(off, HSK_PAGE_SIZE, p->back_bytes) &&
               memcmp(p->back + off, src, HSK_PAGE_SIZE) == 0;
    g_autoptr(GError) ignored = NULL;
    return hsk_content_has(p->content, hsk_entry_segment(entry)) &&
           hsk_content_page(p->content, entry, page, &ignored) &&
           memcmp(page, src, HSK_PAGE_SIZE) == 0;
}

bool hsk_pack_page(struct hsk_pack *p, struct hsk_pagemap *map, uint64_t page, const uint8_t *src,
                   GError **error)
{
    if (hsk_page_is_zero(src))
        return hsk_pagemap_set(map, page, 0, error);
    struct waiting w = {map, page, XXH3_64bits(src, HSK_PAGE_SIZE)};
    uint64_t entry = find(p->index, w.key);
    if (same(p, entry, src))
        return hsk_pagemap_set(map, page, entry, error);
    const struct waiting *last = p->group.n == 0 ? NULL : &p->group.w[p->group.n - 1];
    if (last != NULL &&
        (p->group.n == GROUP_PAGES || last->map != map ||
         last->page / GROUP_PAGES != page / GROUP_PAGES) &&
        !close_group(p, error))
        return false;
    put(&p->group, &w, src);
    return true;
}

bool hsk_pack_blob(struct hsk_segment_writer *writer, const void *data, size_t bytes,
                   struct hsk_blob *out, GError **error)
{
    out->frames = g_array_new(FALSE, FALSE, sizeof(uint64_t));
    out->bytes = bytes;
    for (size_t off = 0; off < bytes; off += HSK_FRAME_MAX_BYTES) {
        uint32_t segment, frame;
        size_t n = MIN(bytes - off, HSK_FRAME_MAX_BYTES);
        if (!hsk_segment_writer_add(writer, (const uint8_t *)data + off, n, &segment, &frame,
                                    error))
            return false;
        uint64_t entry = hsk_entry(segment, frame, 0);
        g_array_append_val(out->frames, entry);
    }
    return true;
}
