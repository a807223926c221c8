/* SPDX-License-Identifier: MIT */
/*
 * Page maps (pagemap.h; docs/format.md, "Page map").
 *
 * In memory a map is the part of the tree that was looked at; nodes are loaded when needed and
 * checked against the hash in their parent, so a cycle cannot exist and a changed byte cannot pass.
 * Set marks the path from the root; write stores the marked nodes, children first, and turns
 * all-hole nodes into null references. One thread.
 */
#include <appliance-format/io.h>
#include <appliance-format/pagemap.h>

#include <sodium.h>

struct node {
    bool dirty;
    unsigned level; /* 0 = leaf */
    union {
        uint64_t entries[HSK_MAP_FANOUT];
        struct {
            struct hsk_map_ref refs[HSK_MAP_FANOUT];
            struct node *children[HSK_MAP_FANOUT];
        } inner;
    };
};

struct hsk_pagemap {
    struct hsk_map_source source;
    uint64_t npages;
    unsigned depth; /* level of the root node */
    struct hsk_map_ref root_ref;
    struct node *root;
};

bool hsk_map_ref_is_null(const struct hsk_map_ref *ref)
{
    static const struct hsk_map_ref null;
    return memcmp(ref, &null, sizeof(null)) == 0;
}

static void ref_put(uint8_t out[32], const struct hsk_map_ref *ref)
{
    hsk_put32(out, ref->member);
    hsk_put32(out + 4, ref->offset);
    memcpy(out + 8, ref->hash, 24);
}

static void ref_get(struct hsk_map_ref *ref, const uint8_t in[32])
{
    ref->member = hsk_get32(in);
    ref->offset = hsk_get32(in + 4);
    memcpy(ref->hash, in + 8, 24);
}

void hsk_map_ref_format(char out[HSK_MAP_REF_DIGITS + 1], const struct hsk_map_ref *ref)
{
    uint8_t raw[32];
    ref_put(raw, ref);
    hsk_hex(out, raw, sizeof(raw));
}

bool hsk_map_ref_parse(const char *text, struct hsk_map_ref *ref)
{
    uint8_t raw[32];
    if (strlen(text) != HSK_MAP_REF_DIGITS || !hsk_unhex(text, raw, sizeof(raw)))
        return false;
    ref_get(ref, raw);
    return true;
}

/* Pages below one child of a node of this level. */
static uint64_t span(unsigned level)
{
    return 1ull << (7 * level);
}

static unsigned depth_of(uint64_t npages)
{
    unsigned d = 0;
    while (npages > span(d + 1))
        d++;
    return d;
}

static struct node *node_new(unsigned level)
{
    size_t bytes =
        level == 0 ? offsetof(struct node, entries) + HSK_MAP_LEAF_BYTES : sizeof(struct node);
    struct node *n = g_malloc0(bytes);
    n->level = level;
    return n;
}

static void node_free(struct node *n)
{
    if (n == NULL)
        return;
    for (unsigned i = 0; n->level > 0 && i < HSK_MAP_FANOUT; i++)
        node_free(n->inner.children[i]);
    g_free(n);
}

static bool entry_ok(uint64_t e)
{
    return e == 0 || e >> 60 == 1;
}

/* Reads and checks the node that starts at page `first` of the object; nothing may lie beyond the
 * object's end. */
static bool node_load(const struct hsk_map_source *src, const struct hsk_map_ref *ref,
                      struct node *n, uint64_t first, uint64_t npages, GError **error)
{
    uint8_t raw[HSK_MAP_INNER_BYTES], hash[24];
    size_t bytes = n->level == 0 ? HSK_MAP_LEAF_BYTES : HSK_MAP_INNER_BYTES;
    if (!src->load(src->opaque, ref->member, ref->offset, raw, bytes, error))
        return false;
    crypto_generichash(hash, sizeof(hash), raw, bytes, NULL, 0);
    if (memcmp(hash, ref->hash, sizeof(hash)) != 0)
        return hsk_damaged(error, src->label,
                           "a page map in map/%06u is not the one that was written", ref->member);
    for (unsigned i = 0; i < HSK_MAP_FANOUT; i++) {
        bool inside = first + i * span(n->level) < npages, empty, ok = true;
        if (n->level == 0) {
            n->entries[i] = hsk_get64(raw + 8 * i);
            empty = n->entries[i] == 0;
            ok = entry_ok(n->entries[i]);
        } else {
            ref_get(&n->inner.refs[i], raw + 32 * i);
            empty = hsk_map_ref_is_null(&n->inner.refs[i]);
        }
        if (!ok || (!inside && !empty))
            return hsk_damaged(error, src->label, "a page map in map/%06u makes no sense",
                               ref->member);
    }
    return true;
}

struct hsk_pagemap *hsk_pagemap_new(const struct hsk_map_source *source,
                                    const struct hsk_map_ref *root, uint64_t npages)
{
    hsk_assert(npages > 0 && npages <= HSK_OBJECT_MAX_BYTES / HSK_PAGE_SIZE);
    struct hsk_pagemap *map = g_new0(struct hsk_pagemap, 1);
    *map = (struct hsk_pagemap){.source = *source, .npages = npages, .depth = depth_of(npages)};
    if (root != NULL)
        map->root_ref = *root;
    return map;
}

void hsk_pagemap_free(struct hsk_pagemap *map)
{
    if (map == NULL)
        return;
    node_free(map->root);
    g_free(map);
}

/* The child in *slot, loaded or, with create, made; NULL in *out without error if it is a hole. */
static bool descend(struct hsk_pagemap *map, struct node **slot, const struct hsk_map_ref *ref,
                    unsigned level, uint64_t first, bool create, struct node **out, GError **error)
{
    *out = *slot;
    if (*slot != NULL || (!create && hsk_map_ref_is_null(ref)))
        return true;
    struct node *n = node_new(level);
    if (!hsk_map_ref_is_null(ref) && !node_load(&map->source, ref, n, first, map->npages, error)) {
        node_free(n);
        return false;
    }
    *out = *slot = n;
    return true;
}

/* The leaf of a page; with create it exists afterwards and its path is marked. */
static bool find_leaf(struct hsk_pagemap *map, uint64_t page, bool create, struct node **leaf,
                      GError **error)
{
    struct node **slot = &map->root;
    const struct hsk_map_ref *ref = &map->root_ref;
    uint64_t first = 0;
    for (unsigned level = map->depth;; level--) {
        struct node *n;
        if (!descend(map, slot, ref, level, first, create, &n, error))
            return false;
        if (n != NULL && create)
            n->dirty = true;
        if (n == NULL || level == 0) {
            *leaf = n;
            return true;
        }
        uint64_t i = (page - first) / span(level);
        first += i * span(level);
        slot = &n->inner.children[i];
        ref = &n->inner.refs[i];
    }
}

bool hsk_pagemap_get(struct hsk_pagemap *map, uint64_t page, uint64_t *entry, GError **error)
{
    struct node *leaf;
    hsk_assert(page < map->npages);
    if (!find_leaf(map, page, false, &leaf, error))
        return false;
    *entry = leaf == NULL ? 0 : leaf->entries[page % HSK_MAP_FANOUT];
    return true;
}

bool hsk_pagemap_has_leaf(struct hsk_pagemap *map, uint64_t page, bool *has, GError **error)
{
    struct node *leaf;
    hsk_assert(page < map->npages);
    if (!find_leaf(map, page, false, &leaf, error))
        return false;
    *has = leaf != NULL;
    return true;
}

bool hsk_pagemap_set(struct hsk_pagemap *map, uint64_t page, uint64_t entry, GError **error)
{
    struct node *leaf;
    uint64_t old;
    hsk_assert(page < map->npages && entry_ok(entry));
    if (!hsk_pagemap_get(map, page, &old, error))
        return false;
    if (old == entry)
        return true;
    if (!find_leaf(map, page, true, &leaf, error))
        return false;
    leaf->entries[page % HSK_MAP_FANOUT] = entry;
    return true;
}

/* Appends a node; all zero: the null reference. */
static bool emit(struct hsk_map_writer *w, const uint8_t *raw, size_t bytes,
                 struct hsk_map_ref *ref, GError **error)
{
    memset(ref, 0, sizeof(*ref));
    if (raw[0] == 0 && memcmp(raw, raw + 1, bytes - 1) == 0)
        return true;
    if (w->bytes->len > UINT32_MAX - bytes) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_UNSUPPORTED,
                    "the page maps of one version would be larger than 4 GiB");
        return false;
    }
    ref->member = w->member;
    ref->offset = w->bytes->len;
    crypto_generichash(ref->hash, sizeof(ref->hash), raw, bytes, NULL, 0);
    g_byte_array_append(w->bytes, raw, (guint)bytes);
    return true;
}

static bool node_write(struct node *n, struct hsk_map_writer *w, struct hsk_map_ref *ref,
                       GError **error)
{
    uint8_t raw[HSK_MAP_INNER_BYTES];
    size_t bytes = n->level == 0 ? HSK_MAP_LEAF_BYTES : HSK_MAP_INNER_BYTES;
    for (unsigned i = 0; i < HSK_MAP_FANOUT; i++) {
        if (n->level == 0) {
            hsk_put64(raw + 8 * i, n->entries[i]);
            continue;
        }
        struct node *child = n->inner.children[i];
        if (child != NULL && child->dirty && !node_write(child, w, &n->inner.refs[i], error))
            return false;
        ref_put(raw + 32 * i, &n->inner.refs[i]);
    }
    n->dirty = false;
    return emit(w, raw, bytes, ref, error);
}

bool hsk_pagemap_write(struct hsk_pagemap *map, struct hsk_map_writer *w, struct hsk_map_ref *root,
                       GError **error)
{
    if (map->root != NULL && map->root->dirty && !node_write(map->root, w, &map->root_ref, error))
        return false;
    *root = map->root_ref;
    return true;
}

static bool walk(const struct hsk_map_source *src, const struct hsk_map_ref *ref, unsigned level,
                 uint64_t first, uint64_t npages, const struct hsk_map_visitor *v, GError **error)
{
    if (hsk_map_ref_is_null(ref) || (v->enter != NULL && !v->enter(v->opaque, ref)))
        return true;
    struct node *n = node_new(level);
    GError *e = NULL;
    bool good = node_load(src, ref, n, first, npages, &e), ok = good;
    if (!good && v->damaged != NULL && g_error_matches(e, HSK_ERROR, HSK_ERROR_DAMAGED) &&
        v->damaged(v->opaque, ref)) {
        g_clear_error(&e);
        ok = true;
    }
    if (!ok)
        g_propagate_error(error, e);
    for (unsigned i = 0; good && ok && i < HSK_MAP_FANOUT; i++) {
        if (level > 0)
            ok = walk(src, &n->inner.refs[i], level - 1, first + i * span(level), npages, v, error);
        else if (n->entries[i] != 0)
            ok = v->page(v->opaque, first + i, n->entries[i], error);
    }
    node_free(n);
    if (v->leave != NULL)
        v->leave(v->opaque, ref, ok);
    return ok;
}

bool hsk_pagemap_walk(const struct hsk_map_source *source, const struct hsk_map_ref *root,
                      uint64_t npages, const struct hsk_map_visitor *v, GError **error)
{
    hsk_assert(npages > 0 && npages <= HSK_OBJECT_MAX_BYTES / HSK_PAGE_SIZE);
    return walk(source, root, depth_of(npages), 0, npages, v, error);
}

static bool rewrite(const struct hsk_map_source *src, const struct hsk_map_ref *ref, unsigned level,
                    uint64_t first, uint64_t npages, struct hsk_map_rewriter *rw,
                    struct hsk_map_ref *now, GError **error)
{
    *now = *ref;
    if (hsk_map_ref_is_null(ref) || rw->known(rw->opaque, ref, now))
        return true;
    struct node *n = node_new(level);
    uint8_t raw[HSK_MAP_INNER_BYTES];
    bool ok = node_load(src, ref, n, first, npages, error);
    for (unsigned i = 0; ok && i < HSK_MAP_FANOUT; i++) {
        struct hsk_map_ref child;
        if (level == 0) {
            hsk_put64(raw + 8 * i, n->entries[i] == 0 ? 0 : rw->entry(rw->opaque, n->entries[i]));
            continue;
        }
        ok = rewrite(src, &n->inner.refs[i], level - 1, first + i * span(level), npages, rw, &child,
                     error);
        if (ok)
            ref_put(raw + 32 * i, &child);
    }
    node_free(n);
    if (!ok ||
        !emit(&rw->writer, raw, level == 0 ? HSK_MAP_LEAF_BYTES : HSK_MAP_INNER_BYTES, now, error))
        return false;
    rw->done(rw->opaque, ref, now);
    return true;
}

bool hsk_pagemap_rewrite(const struct hsk_map_source *source, const struct hsk_map_ref *root,
                         uint64_t npages, struct hsk_map_rewriter *rw, struct hsk_map_ref *now,
                         GError **error)
{
    hsk_assert(npages > 0 && npages <= HSK_OBJECT_MAX_BYTES / HSK_PAGE_SIZE);
    return rewrite(source, root, depth_of(npages), 0, npages, rw, now, error);
}
