/* SPDX-License-Identifier: MIT */
/*
 * Packing (pack.h). Neighbours stay together: sixteen pages aligned to 64 KiB of which at least
 * half are new become a frame, so that a machine's memory is read back in order; scattered pages
 * are collected into frames of 256 KiB. One thread.
 */
#include "pack.h"

#include <xxhash.h>

enum { GROUP_PAGES = 16, SCATTER_PAGES = HSK_FRAME_MAX_BYTES / HSK_PAGE_SIZE };

struct slot {
    XXH128_hash_t key;
    uint64_t entry;     /* 0 = free */
    const uint8_t *src; /* the same bytes in memory, while the pack `owner` lives */
    const struct hsk_pack *owner;
};

struct hsk_index {
    struct slot *slots;
    size_t mask, used;
};

struct waiting {
    struct hsk_pagemap *map;
    uint64_t page;
    XXH128_hash_t key;
    const uint8_t *src;
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
};

struct hsk_index *hsk_index_new(void)
{
    struct hsk_index *x = g_new0(struct hsk_index, 1);
    x->mask = 4095;
    x->slots = g_new0(struct slot, x->mask + 1);
    return x;
}

void hsk_index_free(struct hsk_index *x)
{
    if (x == NULL)
        return;
    g_free(x->slots);
    g_free(x);
}

size_t hsk_index_used(const struct hsk_index *x)
{
    return x->used;
}

/* The slot that holds key, or the free one where it belongs. */
static struct slot *find(const struct hsk_index *x, XXH128_hash_t key)
{
    size_t i = key.low64 & x->mask;
    while (x->slots[i].entry != 0 && !XXH128_isEqual(x->slots[i].key, key))
        i = (i + 1) & x->mask;
    return &x->slots[i];
}

static void insert(struct hsk_index *x, const struct slot *s)
{
    if (x->used > x->mask / 2) {
        struct hsk_index bigger = {.mask = x->mask * 2 + 1};
        bigger.slots = g_new0(struct slot, bigger.mask + 1);
        for (size_t i = 0; i <= x->mask; i++) {
            if (x->slots[i].entry != 0)
                *find(&bigger, x->slots[i].key) = x->slots[i];
        }
        bigger.used = x->used;
        g_free(x->slots);
        *x = bigger;
    }
    struct slot *at = find(x, s->key);
    x->used += at->entry == 0;
    *at = *s;
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
    return p;
}

void hsk_pack_free(struct hsk_pack *p)
{
    if (p == NULL)
        return;
    for (size_t i = 0; i <= p->index->mask; i++) {
        if (p->index->slots[i].owner == p)
            p->index->slots[i].owner = NULL;
    }
    g_free(p->group.pages);
    g_free(p->scatter.pages);
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
        struct slot s = {
            .key = w->key, .entry = hsk_entry(segment, frame, i), .src = w->src, .owner = p};
        if (!hsk_pagemap_set(w->map, w->page, s.entry, error))
            return false;
        insert(p->index, &s);
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

/* Is the content at s the same as src? A frame of a segment that is still being written cannot be
 * read back: then it is not. */
static bool same(struct hsk_pack *p, const struct slot *s, const uint8_t *src)
{
    uint8_t page[HSK_PAGE_SIZE];
    if (s->entry == 0)
        return false;
    if (s->owner == p && s->src != NULL)
        return memcmp(s->src, src, HSK_PAGE_SIZE) == 0;
    if (s->owner == p)
        return false;
    g_autoptr(GError) ignored = NULL;
    return hsk_content_page(p->content, s->entry, page, &ignored) &&
           memcmp(page, src, HSK_PAGE_SIZE) == 0;
}

bool hsk_pack_page(struct hsk_pack *p, struct hsk_pagemap *map, uint64_t page, const uint8_t *src,
                   bool stable, GError **error)
{
    if (hsk_page_is_zero(src))
        return hsk_pagemap_set(map, page, 0, error);
    struct waiting w = {map, page, XXH3_128bits(src, HSK_PAGE_SIZE), stable ? src : NULL};
    const struct slot *s = find(p->index, w.key);
    if (same(p, s, src))
        return hsk_pagemap_set(map, page, s->entry, error);
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
