/* SPDX-License-Identifier: MIT */
/*
 * The commit of an instance: a new ROOT in place of the old one, which is kept as ROOT.prev; and
 * which members a ROOT still needs (docs/format.md, "Directory"). One thread.
 */
#include <errno.h>
#include <stdio.h>

#include "doc.h"

bool hsk_doc_commit_root(struct hsk_doc *doc, struct hsk_root *root, GError **error)
{
    g_autofree char *text = hsk_root_format(root);
    HSK_AUTOFD fd = hsk_io_create(doc->io, doc->dirfd, "ROOT.tmp");
    int r = fd < 0 ? fd : hsk_io_pwrite(doc->io, fd, text, strlen(text), 0);
    if (r == 0)
        r = hsk_io_sync(doc->io, fd);
    if (r == 0) {
        unlinkat(doc->dirfd, "ROOT.prev", 0);
        r = hsk_io_link(doc->dirfd, "ROOT", "ROOT.prev");
        if (r == -ENOENT || r == -EOPNOTSUPP)
            r = 0;
    }
    if (r == 0)
        r = hsk_io_rename(doc->io, doc->dirfd, "ROOT.tmp", "ROOT");
    if (r < 0)
        unlinkat(doc->dirfd, "ROOT.tmp", 0);
    if (r == 0) {
        doc->root_unsure = true;
        r = hsk_io_sync(doc->io, doc->dirfd);
    }
    if (r < 0)
        return hsk_io_error(error, r, "save what changed in %s", doc->path);
    doc->root_unsure = false;
    if (root != doc->root) {
        hsk_root_free(doc->root);
        doc->root = root;
    }
    return true;
}

struct marks {
    struct hsk_doc *doc;
    GHashTable *known; /* nodes that need no look, or NULL */
    GHashTable *nodes; /* address -> nothing: nodes looked at */
    GHashTable *maps;  /* numbers that are needed */
    GHashTable *segments;
    bool incomplete; /* something could not be looked at */
};

static bool mark_node(void *opaque, const struct hsk_map_ref *ref)
{
    struct marks *m = opaque;
    gpointer address = GSIZE_TO_POINTER((uint64_t)ref->member << 32 | ref->offset);
    g_hash_table_add(m->maps, GUINT_TO_POINTER(ref->member));
    return (m->known == NULL || !g_hash_table_contains(m->known, address)) &&
           g_hash_table_add(m->nodes, address);
}

/* What is below a node of the .hva is there or lost; a file of the instance may be repaired, so
 * then nothing goes. */
static bool mark_damaged(void *opaque, const struct hsk_map_ref *ref)
{
    struct marks *m = opaque;
    char name[32];
    snprintf(name, sizeof(name), "map/%06u", ref->member);
    m->incomplete |= hsk_root_find(m->doc->base_root, name) == NULL;
    return true;
}

static bool mark_page(void *opaque, uint64_t page, uint64_t entry, GError **error)
{
    struct marks *m = opaque;
    g_hash_table_add(m->segments, GUINT_TO_POINTER(hsk_entry_segment(entry)));
    return true;
}

static bool mark_object(struct marks *m, const struct hsk_object *o, GError **error)
{
    struct hsk_map_source source = hsk_content_maps(m->doc->content);
    struct hsk_map_visitor v = {
        .enter = mark_node, .page = mark_page, .damaged = mark_damaged, .opaque = m};
    return hsk_pagemap_walk(&source, &o->root, o->size_bytes / HSK_PAGE_SIZE, &v, error);
}

static void mark_blob(struct marks *m, const struct hsk_blob *b)
{
    for (guint i = 0; b->frames != NULL && i < b->frames->len; i++)
        g_hash_table_add(m->segments, GUINT_TO_POINTER(hsk_entry_segment(
                                          g_array_index(b->frames, uint64_t, i))));
}

static bool is_map_number(const char *name, uint32_t *number)
{
    guint64 v;
    if (!g_str_has_prefix(name, "map/") ||
        !g_ascii_string_to_unsigned(name + 4, 10, 1, UINT32_MAX, &v, NULL))
        return false;
    *number = (uint32_t)v;
    return true;
}

static bool mark_objects(struct marks *m, const GArray *objects, GError **error)
{
    for (guint i = 0; i < objects->len; i++) {
        if (!mark_object(m, &g_array_index(objects, struct hsk_object, i), error))
            return false;
    }
    return true;
}

static bool mark_all(struct marks *m, const struct hsk_root *root, const GPtrArray *records,
                     GError **error)
{
    if (!mark_objects(m, root->present, error))
        return false;
    for (guint i = 0; i < records->len; i++) {
        const struct hsk_record *r = g_ptr_array_index(records, i);
        if (hsk_root_find(root, r->member) == NULL)
            continue;
        if (!mark_objects(m, r->objects, error))
            return false;
        mark_blob(m, &r->state);
        mark_blob(m, &r->picture);
        mark_blob(m, &r->needed);
    }
    return true;
}

/* What the .hva's ROOT reaches is in the .hva, and stays. That is not so for all nodes that are in
 * it: a map member that came along may hold the maps of a version that did not. */
bool hsk_doc_know_base(struct hsk_doc *doc, GError **error)
{
    if (doc->base_nodes != NULL)
        return true;
    g_autoptr(GHashTable) nodes = g_hash_table_new(NULL, NULL);
    g_autoptr(GHashTable) maps = g_hash_table_new(NULL, NULL);
    g_autoptr(GHashTable) segments = g_hash_table_new(NULL, NULL);
    struct marks m = {.doc = doc, .nodes = nodes, .maps = maps, .segments = segments};
    if (!mark_all(&m, doc->base_root, doc->versions, error))
        return false;
    doc->base_nodes = g_steal_pointer(&nodes);
    return true;
}

bool hsk_doc_sweep(struct hsk_doc *doc, struct hsk_root *root, const GPtrArray *records,
                   const GPtrArray *memory, GError **error)
{
    g_autoptr(GHashTable) nodes = g_hash_table_new(NULL, NULL);
    g_autoptr(GHashTable) maps = g_hash_table_new(NULL, NULL);
    g_autoptr(GHashTable) segments = g_hash_table_new(NULL, NULL);
    if (!hsk_doc_know_base(doc, error))
        return false;
    struct marks m = {doc, doc->base_nodes, nodes, maps, segments, false};
    if (!mark_all(&m, root, records, error))
        return false;
    for (guint i = 0; memory != NULL && i < memory->len; i++) {
        if (!mark_objects(&m, g_ptr_array_index(memory, i), error))
            return false;
    }
    for (guint i = m.incomplete ? 0 : root->entries->len; i-- > 0;) {
        const struct hsk_root_entry *e = g_ptr_array_index(root->entries, i);
        uint32_t number;
        bool needed = true;
        if (e->is_segment)
            needed = g_hash_table_contains(segments, GUINT_TO_POINTER(e->segment.number));
        else if (is_map_number(e->name, &number))
            needed = g_hash_table_contains(maps, GUINT_TO_POINTER(number));
        if (!needed && hsk_root_find(doc->base_root, e->name) == NULL)
            hsk_root_remove(root, e->name);
    }
    return true;
}
