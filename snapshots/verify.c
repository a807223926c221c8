/* SPDX-License-Identifier: MIT */
/*
 * hva verify: everything that a document says of itself is checked: every listed member as a whole,
 * every frame, every page map and record. Opens read-only and needs no instance. One thread.
 */
#include "doc.h"

struct check {
    struct hsk_doc *doc;
    bool (*progress)(void *, double);
    void *opaque;
    uint64_t done, all;
    GHashTable
        *nodes; /* addresses of page map nodes that were looked at: shared ones are checked once */
};

static bool report(struct check *c, GError **error)
{
    if (c->progress == NULL ||
        c->progress(c->opaque, c->all == 0 ? 1.0 : (double)c->done / (double)c->all))
        return true;
    g_set_error(error, HSK_ERROR, HSK_ERROR_FAILED, "checking %s was stopped", c->doc->path);
    return false;
}

static bool check_member(struct check *c, const struct hsk_root_entry *e, GError **error)
{
    struct hsk_member m;
    uint8_t hash[HSK_HASH_BYTES];
    if (!hsk_carrier_member(c->doc->base, e->name, &m, error))
        return false;
    if (!hsk_member_hash(&m, hash) || memcmp(hash, e->hash, sizeof(hash)) != 0)
        return hsk_damaged(error, c->doc->path, "%s is not the one that was written", e->name);
    c->done += m.size;
    if (e->is_segment) {
        HSK_AUTO(hsk_segment, s) = hsk_content_segment(c->doc->content, e->segment.number, error);
        if (s == NULL || !hsk_segment_check(s, error))
            return false;
    }
    return report(c, error);
}

static bool check_page(void *opaque, uint64_t page, uint64_t entry, GError **error)
{
    struct hsk_doc *doc = ((struct check *)opaque)->doc;
    HSK_AUTO(hsk_segment, s) = hsk_content_segment(doc->content, hsk_entry_segment(entry), error);
    if (s == NULL)
        return false;
    const struct hsk_frame *f = hsk_segment_frame(s, hsk_entry_frame(entry));
    if (f == NULL || f->flags != 0 ||
        !hsk_range_ok((uint64_t)hsk_entry_slot(entry) * HSK_PAGE_SIZE, HSK_PAGE_SIZE, f->rawsize))
        return hsk_damaged(error, doc->path, "a page map points at a page that is not there");
    return true;
}

static bool check_node(void *opaque, const struct hsk_map_ref *ref)
{
    struct check *c = opaque;
    return g_hash_table_add(c->nodes, GSIZE_TO_POINTER((uint64_t)ref->member << 32 | ref->offset));
}

static bool check_object(struct check *c, const struct hsk_object *o, GError **error)
{
    struct hsk_map_source source = hsk_content_maps(c->doc->content);
    struct hsk_map_visitor v = {check_node, check_page, c};
    return hsk_pagemap_walk(&source, &o->root, o->size_bytes / HSK_PAGE_SIZE, &v, error);
}

static bool check_blob(struct check *c, const struct hsk_blob *b, GError **error)
{
    if (b->frames == NULL)
        return true;
    g_autoptr(GBytes) bytes = hsk_content_blob(c->doc->content, b, error);
    return bytes != NULL;
}

static bool check_all(struct check *c, GError **error)
{
    struct hsk_doc *doc = c->doc;
    const GPtrArray *entries = doc->root->entries;
    for (guint i = 0; i < entries->len; i++) {
        if (!check_member(c, g_ptr_array_index(entries, i), error))
            return false;
    }
    for (guint i = 0; i < doc->root->present->len; i++) {
        if (!check_object(c, &g_array_index(doc->root->present, struct hsk_object, i), error))
            return false;
    }
    for (guint i = 0; i < doc->versions->len; i++) {
        const struct hsk_record *r = g_ptr_array_index(doc->versions, i);
        for (guint k = 0; k < r->objects->len; k++) {
            if (!check_object(c, &g_array_index(r->objects, struct hsk_object, k), error))
                return false;
        }
        if (!check_blob(c, &r->state, error) || !check_blob(c, &r->picture, error))
            return false;
    }
    return hsk_carrier_tar_check_tail(doc->base, error);
}

bool hsk_doc_verify(const char *path, bool (*progress)(void *, double), void *opaque,
                    GError **error)
{
    struct hsk_doc *doc = hsk_doc_open(path, true, NULL, error);
    if (doc == NULL)
        return false;
    struct check c = {
        .doc = doc, .progress = progress, .opaque = opaque, .nodes = g_hash_table_new(NULL, NULL)};
    for (guint i = 0; i < doc->root->entries->len; i++) {
        const struct hsk_root_entry *e = g_ptr_array_index(doc->root->entries, i);
        struct hsk_member m;
        if (hsk_carrier_member(doc->base, e->name, &m, NULL))
            c.all += m.size;
    }
    bool ok = check_all(&c, error);
    g_hash_table_unref(c.nodes);
    hsk_doc_close(doc);
    return ok;
}
