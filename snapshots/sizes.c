/* SPDX-License-Identifier: MIT */
/*
 * How much of the stored bytes goes when a version is dropped (its own), and how much it shares
 * with others or with the present.
 *
 * One walk: each page map node, page and frame remembers the one version that reaches it, or that
 * several do; what is below a node that several reach is reached by several, and is looked at once
 * more at most. So the cost grows with what is stored, not with versions times pages. Threads: as
 * hsk_version_commit.
 */
#include "doc.h"

/* Whose something is: a version's index from 1 on, or: */
#define SHARED UINT32_MAX

struct owned {
    uint32_t owner;
    uint64_t bytes; /* below a node, once it was walked */
};

struct sizes {
    struct hsk_doc *doc;
    uint32_t owner;      /* who is walking */
    GHashTable *nodes;   /* address -> struct owned */
    GHashTable *content; /* entry -> struct owned */
    GHashTable *frames;  /* segment and frame -> stored bytes of a page + 1 */
    GArray *below;       /* uint64_t: bytes below the nodes on the way, and in all */
    bool (*cancelled)(void *opaque);
    void *opaque;
};

static void add(struct sizes *z, uint64_t bytes)
{
    g_array_index(z->below, uint64_t, z->below->len - 1) += bytes;
}

/* Whose it is now; true: more than before, so what is below must be told. */
static bool claim(struct owned *o, uint32_t owner)
{
    if (o->owner == owner || o->owner == SHARED)
        return false;
    o->owner = o->owner == 0 ? owner : SHARED;
    return true;
}

static struct owned *find(GHashTable *where, uint64_t key)
{
    struct owned *o = g_hash_table_lookup(where, GSIZE_TO_POINTER(key));
    if (o == NULL) {
        o = g_new0(struct owned, 1);
        g_hash_table_insert(where, GSIZE_TO_POINTER(key), o);
    }
    return o;
}

static bool enter(void *opaque, const struct hsk_map_ref *ref)
{
    struct sizes *z = opaque;
    const uint64_t none = 0;
    struct owned *o = find(z->nodes, (uint64_t)ref->member << 32 | ref->offset);
    if (!claim(o, z->owner)) {
        add(z, o->bytes);
        return false;
    }
    g_array_append_val(z->below, none);
    return true;
}

static void leave(void *opaque, const struct hsk_map_ref *ref, bool good)
{
    struct sizes *z = opaque;
    struct owned *o = find(z->nodes, (uint64_t)ref->member << 32 | ref->offset);
    o->bytes = g_array_index(z->below, uint64_t, z->below->len - 1);
    g_array_set_size(z->below, z->below->len - 1);
    add(z, o->bytes);
}

/* Stored bytes of a page of the frame, or of all of it. */
static bool stored_bytes(struct sizes *z, uint64_t entry, bool whole, uint64_t *bytes,
                         GError **error)
{
    gpointer key = GSIZE_TO_POINTER(entry >> 8 << 1 | whole);
    gsize known = GPOINTER_TO_SIZE(g_hash_table_lookup(z->frames, key));
    if (known == 0) {
        HSK_AUTO(hsk_segment, s) =
            hsk_content_segment(z->doc->content, hsk_entry_segment(entry), error);
        const struct hsk_frame *f = s == NULL ? NULL : hsk_segment_frame(s, hsk_entry_frame(entry));
        if (s == NULL)
            return false;
        if (f == NULL || f->flags != 0)
            return hsk_damaged(error, z->doc->path,
                               "a page map points at a page that is not there");
        known = 1 + (whole ? f->csize : (gsize)f->csize * HSK_PAGE_SIZE / f->rawsize);
        g_hash_table_insert(z->frames, key, GSIZE_TO_POINTER(known));
    }
    *bytes = known - 1;
    return true;
}

static bool visit(struct sizes *z, uint64_t entry, bool whole, GError **error)
{
    struct owned *o = find(z->content, entry);
    if (o->owner == 0 && !stored_bytes(z, entry, whole, &o->bytes, error))
        return false;
    claim(o, z->owner);
    add(z, o->bytes);
    return true;
}

static bool page(void *opaque, uint64_t number, uint64_t entry, GError **error)
{
    return visit(opaque, entry, false, error);
}

/* Everything below the objects belongs to z->owner, too; *all: how much that is. */
static bool walk(struct sizes *z, const GArray *objects, const struct hsk_record *r, uint64_t *all,
                 GError **error)
{
    struct hsk_map_source source = hsk_content_maps(z->doc->content);
    struct hsk_map_visitor v = {.enter = enter, .page = page, .leave = leave, .opaque = z};
    g_array_set_size(z->below, 0);
    g_array_set_size(z->below, 1);
    for (guint i = 0; i < objects->len; i++) {
        const struct hsk_object *o = &g_array_index(objects, struct hsk_object, i);
        if (z->cancelled != NULL && z->cancelled(z->opaque)) {
            g_set_error(error, HSK_ERROR, HSK_ERROR_CANCELLED, "measuring %s was stopped",
                        z->doc->path);
            return false;
        }
        if (!hsk_pagemap_walk(&source, &o->root, o->size_bytes / HSK_PAGE_SIZE, &v, error))
            return false;
    }
    const struct hsk_blob *blobs[] = {r == NULL ? NULL : &r->state, r == NULL ? NULL : &r->picture,
                                      r == NULL ? NULL : &r->needed};
    for (size_t i = 0; i < G_N_ELEMENTS(blobs); i++) {
        for (guint k = 0; blobs[i] != NULL && blobs[i]->frames != NULL && k < blobs[i]->frames->len;
             k++) {
            if (!visit(z, g_array_index(blobs[i]->frames, uint64_t, k), true, error))
                return false;
        }
    }
    *all = g_array_index(z->below, uint64_t, 0);
    return true;
}

static bool measure(struct sizes *z, struct hsk_version_info *list, GError **error)
{
    g_autoptr(GArray) own = g_array_new(FALSE, TRUE, sizeof(uint64_t));
    uint64_t ignored;
    uint32_t n = 0;
    GHashTableIter it;
    gpointer o;
    for (struct hsk_version_info *v = list; v != NULL; v = v->next) {
        const struct hsk_record *r = hsk_doc_find(z->doc, v->id);
        z->owner = ++n;
        v->shared_bytes = 0;
        if (r != NULL && !walk(z, r->objects, r, &v->shared_bytes, error))
            return false;
    }
    z->owner = SHARED - 1; /* the present */
    if (!walk(z, z->doc->root->present, NULL, &ignored, error))
        return false;
    g_array_set_size(own, n + 1);
    g_hash_table_iter_init(&it, z->content);
    while (g_hash_table_iter_next(&it, NULL, &o)) {
        const struct owned *c = o;
        if (c->owner <= n)
            g_array_index(own, uint64_t, c->owner) += c->bytes;
    }
    n = 0;
    for (struct hsk_version_info *v = list; v != NULL; v = v->next) {
        v->own_bytes = g_array_index(own, uint64_t, ++n);
        v->shared_bytes -= MIN(v->shared_bytes, v->own_bytes);
    }
    return true;
}

bool hsk_doc_sizes(struct hsk_doc *doc, struct hsk_version_info *list,
                   bool (*cancelled)(void *opaque), void *opaque, GError **error)
{
    g_autoptr(GHashTable) nodes = g_hash_table_new_full(NULL, NULL, NULL, g_free);
    g_autoptr(GHashTable) content = g_hash_table_new_full(NULL, NULL, NULL, g_free);
    g_autoptr(GHashTable) frames = g_hash_table_new(NULL, NULL);
    g_autoptr(GArray) below = g_array_new(FALSE, TRUE, sizeof(uint64_t));
    struct sizes z = {.doc = doc,
                      .nodes = nodes,
                      .content = content,
                      .frames = frames,
                      .below = below,
                      .cancelled = cancelled,
                      .opaque = opaque};
    return measure(&z, list, error);
}
