/* SPDX-License-Identifier: MIT */
/*
 * Compacting an instance: checkpoints leave many small segments and map members, and what is
 * dropped leaves pages that nobody needs in segments that somebody needs. Live pages of small or
 * half-dead segments move together into new ones, all map nodes that only the instance has into one
 * new member, and the records that name them are written anew: everything is new files until one
 * ROOT, as with a version. What the document has stays as it is, and so does what is being read.
 *
 * Every node that points at something that moves must move, and with it whatever points at that
 * node: so nearly all of the instance's maps are written each time, and it is done rarely. Who must
 * give room back asks for it to be thorough: then it begins without much reason, and moves what is
 * a quarter dead, but not what is merely small.
 * Threads: as hsk_version_commit.
 */
#include <stdio.h>

#include "doc.h"

#define SMALL_BYTES (16u << 20)
#define MUCH_BYTES  (64u << 20)

enum { BIN_PAGES = HSK_FRAME_MAX_BYTES / HSK_PAGE_SIZE };

struct compaction {
    struct hsk_doc *doc;
    bool thorough;
    bool (*cancelled)(void *opaque);
    void *opaque;
    struct hsk_root *root; /* the new one */
    struct hsk_dir_sink sink;
    struct hsk_segment_writer *writer;
    GHashTable *visited; /* addresses of nodes */
    GHashTable *pages;   /* entry -> where it is now, itself at first: of the instance's segments */
    GHashTable *blobs;   /* likewise, whole frames */
    GHashTable *own;     /* segments that only the instance has */
    GHashTable *live;    /* segment -> needed pages */
    GPtrArray *memory;   /* what the branches count from (branch.c); the new one */
    GHashTable *victims; /* segments */
    GHashTable *nodes;   /* address -> struct hsk_map_ref: where it is now */
    struct hsk_map_rewriter rewriter;
    GPtrArray *records; /* struct hsk_record: the new ones, in the order of doc->versions */
    /* pages of one new frame */
    unsigned n;
    uint64_t from[BIN_PAGES];
    uint8_t *bin;
};

static bool stopped(const struct compaction *c, GError **error)
{
    if (c->cancelled == NULL || !c->cancelled(c->opaque))
        return false;
    g_set_error(error, HSK_ERROR, HSK_ERROR_CANCELLED, "compacting the store of %s was stopped",
                c->doc->path);
    return true;
}

static gpointer address(const struct hsk_map_ref *ref)
{
    return GSIZE_TO_POINTER((uint64_t)ref->member << 32 | ref->offset);
}

static gpointer key_of(uint64_t n)
{
    return GSIZE_TO_POINTER(n);
}

static uint64_t member_bytes(const struct compaction *c, const char *name)
{
    struct hsk_member m;
    if (!hsk_carrier_member(c->doc->dir, name, &m, NULL))
        return 0;
    hsk_member_close(&m);
    return m.size;
}

/* ---- what lives ---- */

static bool enter(void *opaque, const struct hsk_map_ref *ref)
{
    struct compaction *c = opaque;
    return !g_hash_table_contains(c->doc->base_nodes, address(ref)) &&
           g_hash_table_add(c->visited, address(ref));
}

static void need(struct compaction *c, GHashTable *where, uint64_t entry, gsize pages)
{
    gpointer segment = key_of(hsk_entry_segment(entry));
    if (!g_hash_table_contains(c->own, segment) ||
        !g_hash_table_insert(where, key_of(entry), key_of(entry)))
        return;
    pages += GPOINTER_TO_SIZE(g_hash_table_lookup(c->live, segment));
    g_hash_table_insert(c->live, segment, key_of(pages));
}

static bool need_page(void *opaque, uint64_t page, uint64_t entry, GError **error)
{
    struct compaction *c = opaque;
    need(c, c->pages, entry, 1);
    return true;
}

static bool need_objects(struct compaction *c, const GArray *objects, GError **error)
{
    struct hsk_map_source source = hsk_content_maps(c->doc->content);
    struct hsk_map_visitor v = {.enter = enter, .page = need_page, .opaque = c};
    for (guint i = 0; i < objects->len; i++) {
        const struct hsk_object *o = &g_array_index(objects, struct hsk_object, i);
        if (stopped(c, error) ||
            !hsk_pagemap_walk(&source, &o->root, o->size_bytes / HSK_PAGE_SIZE, &v, error))
            return false;
    }
    return true;
}

static void need_blob(struct compaction *c, const struct hsk_blob *b)
{
    for (guint i = 0; b->frames != NULL && i < b->frames->len; i++)
        need(c, c->blobs, g_array_index(b->frames, uint64_t, i),
             (gsize)(b->bytes / b->frames->len / HSK_PAGE_SIZE) + 1);
}

static bool find_live(struct compaction *c, GError **error)
{
    if (!hsk_doc_know_base(c->doc, error) || !need_objects(c, c->doc->root->present, error))
        return false;
    for (guint i = 0; i < c->memory->len; i++) {
        if (!need_objects(c, g_ptr_array_index(c->memory, i), error))
            return false;
    }
    for (guint i = 0; i < c->doc->versions->len; i++) {
        const struct hsk_record *r = g_ptr_array_index(c->doc->versions, i);
        if (!need_objects(c, r->objects, error))
            return false;
        need_blob(c, &r->state);
        need_blob(c, &r->picture);
        need_blob(c, &r->needed);
    }
    return true;
}

/* Finds the instance's own segments. Is there so much that a closer look is worth it? */
static bool look_around(struct compaction *c)
{
    uint64_t bytes = 0;
    unsigned maps = 0;
    for (guint i = 0; i < c->doc->root->entries->len; i++) {
        const struct hsk_root_entry *e = g_ptr_array_index(c->doc->root->entries, i);
        if (hsk_root_find(c->doc->base_root, e->name) != NULL)
            continue;
        maps += g_str_has_prefix(e->name, "map/");
        if (!e->is_segment)
            continue;
        g_hash_table_insert(c->own, key_of(e->segment.number), (gpointer)e);
        bytes += member_bytes(c, e->name);
    }
    unsigned many = c->doc->many_members;
    if (c->thorough)
        return maps + g_hash_table_size(c->own) > 0;
    return maps >= many || g_hash_table_size(c->own) >= many || bytes >= MUCH_BYTES;
}

static uint64_t pages_of(const struct hsk_segment *s)
{
    uint64_t pages = 0;
    for (uint32_t i = 0; i < hsk_segment_nframes(s); i++)
        pages += (hsk_segment_frame(s, i)->rawsize + HSK_PAGE_SIZE - 1) / HSK_PAGE_SIZE;
    return pages;
}

/* Which segments are not worth keeping as they are; is there reason to begin? */
static bool find_victims(struct compaction *c, bool *reason, GError **error)
{
    uint64_t dead = 0, all = 0;
    unsigned small = 0, maps = 0, many = c->doc->many_members;
    const uint64_t small_bytes = c->thorough && g_hash_table_size(c->own) < many ? 0 : SMALL_BYTES;
    GHashTableIter it;
    gpointer key, value;
    g_hash_table_iter_init(&it, c->own);
    while (g_hash_table_iter_next(&it, &key, &value)) {
        const struct hsk_root_entry *e = value;
        uint64_t bytes = member_bytes(c, e->name),
                 needed = GPOINTER_TO_SIZE(g_hash_table_lookup(c->live, key));
        uint64_t live = 0;
        /* One of which nothing is needed may be gone: a compaction of the document leaves it out,
         * and our ROOT lists it until the next sweep. */
        if (needed != 0) {
            HSK_AUTO(hsk_segment, s) =
                hsk_content_segment(c->doc->content, e->segment.number, error);
            if (s == NULL)
                return false;
            live = MIN(bytes, bytes * needed / pages_of(s));
        }
        all += bytes;
        dead += bytes - live;
        small += bytes < SMALL_BYTES;
        if (bytes < small_bytes || live < (c->thorough ? bytes - bytes / 4 : bytes / 2))
            g_hash_table_add(c->victims, key);
    }
    for (guint i = 0; i < c->doc->root->entries->len; i++) {
        const struct hsk_root_entry *e = g_ptr_array_index(c->doc->root->entries, i);
        maps += g_str_has_prefix(e->name, "map/");
    }
    *reason =
        c->thorough || small >= many || maps >= many || (dead >= MUCH_BYTES && dead > all / 2);
    return true;
}

/* ---- moving pages ---- */

static void segment_done(void *opaque, const char *name, const struct hsk_segment_id *id,
                         const uint8_t hash[HSK_HASH_BYTES])
{
    struct compaction *c = opaque;
    hsk_root_set(c->root, name, hash, id);
    hsk_content_add(c->doc->content, hsk_root_find(c->root, name));
}

static gint by_number(gconstpointer a, gconstpointer b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* What must move, in stored order: neighbours stay neighbours. */
static GArray *victims_of(const struct compaction *c, GHashTable *where)
{
    GArray *out = g_array_new(FALSE, FALSE, sizeof(uint64_t));
    GHashTableIter it;
    gpointer key;
    g_hash_table_iter_init(&it, where);
    while (g_hash_table_iter_next(&it, &key, NULL)) {
        uint64_t entry = GPOINTER_TO_SIZE(key);
        if (g_hash_table_contains(c->victims, key_of(hsk_entry_segment(entry))))
            g_array_append_val(out, entry);
    }
    g_array_sort(out, by_number);
    return out;
}

static bool flush_bin(struct compaction *c, GError **error)
{
    uint32_t segment, frame;
    if (c->n == 0)
        return true;
    if (!hsk_segment_writer_add(c->writer, c->bin, (size_t)c->n * HSK_PAGE_SIZE, &segment, &frame,
                                error))
        return false;
    for (unsigned i = 0; i < c->n; i++)
        g_hash_table_insert(c->pages, key_of(c->from[i]), key_of(hsk_entry(segment, frame, i)));
    c->n = 0;
    return true;
}

/* A frame all of which is needed, as it is stored. */
static bool move_frame(struct compaction *c, const struct hsk_segment *s, uint64_t entry,
                       uint64_t *now, GError **error)
{
    uint32_t segment, frame;
    const struct hsk_frame *f = hsk_segment_frame(s, hsk_entry_frame(entry));
    if (f == NULL || f->flags != 0)
        return hsk_damaged(error, c->doc->path, "a version points at a frame that is not there");
    g_autofree uint8_t *stored = hsk_segment_stored(s, hsk_entry_frame(entry), error);
    if (stored == NULL ||
        !hsk_segment_writer_add_stored(c->writer, stored, f, &segment, &frame, error))
        return false;
    *now = hsk_entry(segment, frame, 0);
    return true;
}

/* Pages of one frame. */
static bool move_pages(struct compaction *c, const uint64_t *entries, unsigned n, GError **error)
{
    HSK_AUTO(hsk_segment, s) =
        hsk_content_segment(c->doc->content, hsk_entry_segment(entries[0]), error);
    uint64_t now;
    if (s == NULL || stopped(c, error))
        return false;
    const struct hsk_frame *f = hsk_segment_frame(s, hsk_entry_frame(entries[0]));
    if (f != NULL && f->flags == 0 && f->rawsize == n * HSK_PAGE_SIZE) {
        if (!move_frame(c, s, entries[0], &now, error))
            return false;
        for (unsigned i = 0; i < n; i++)
            g_hash_table_insert(c->pages, key_of(entries[i]),
                                key_of(now | hsk_entry_slot(entries[i])));
        return true;
    }
    for (unsigned i = 0; i < n; i++) {
        if (!hsk_content_page(c->doc->content, entries[i], c->bin + (size_t)c->n * HSK_PAGE_SIZE,
                              error))
            return false;
        c->from[c->n++] = entries[i];
        if (c->n == BIN_PAGES && !flush_bin(c, error))
            return false;
    }
    return true;
}

static bool move_content(struct compaction *c, GError **error)
{
    g_autoptr(GArray) pages = victims_of(c, c->pages);
    g_autoptr(GArray) blobs = victims_of(c, c->blobs);
    const uint64_t *e = (const uint64_t *)(void *)pages->data;
    for (guint i = 0, n; i < pages->len; i += n) {
        for (n = 1; i + n < pages->len && e[i + n] >> 8 == e[i] >> 8; n++)
            ;
        if (!move_pages(c, e + i, n, error))
            return false;
    }
    if (!flush_bin(c, error))
        return false;
    for (guint i = 0; i < blobs->len; i++) {
        uint64_t entry = g_array_index(blobs, uint64_t, i), now;
        HSK_AUTO(hsk_segment, s) =
            hsk_content_segment(c->doc->content, hsk_entry_segment(entry), error);
        if (s == NULL || stopped(c, error) || !move_frame(c, s, entry, &now, error))
            return false;
        g_hash_table_insert(c->blobs, key_of(entry), key_of(now));
    }
    return hsk_segment_writer_finish(c->writer, error);
}

/* ---- maps and records ---- */

static bool known_node(void *opaque, const struct hsk_map_ref *ref, struct hsk_map_ref *now)
{
    struct compaction *c = opaque;
    const struct hsk_map_ref *moved = g_hash_table_lookup(c->nodes, address(ref));
    if (moved != NULL)
        *now = *moved;
    return moved != NULL || g_hash_table_contains(c->doc->base_nodes, address(ref));
}

static void node_moved(void *opaque, const struct hsk_map_ref *ref, const struct hsk_map_ref *now)
{
    struct compaction *c = opaque;
    g_hash_table_insert(c->nodes, address(ref), g_memdup2(now, sizeof(*now)));
}

static uint64_t now_at(void *opaque, uint64_t entry)
{
    struct compaction *c = opaque;
    uint64_t now = GPOINTER_TO_SIZE(g_hash_table_lookup(c->pages, key_of(entry)));
    return now == 0 ? entry : now;
}

static bool move_objects(struct compaction *c, GArray *objects, GError **error)
{
    struct hsk_map_source source = hsk_content_maps(c->doc->content);
    for (guint i = 0; i < objects->len; i++) {
        struct hsk_object *o = &g_array_index(objects, struct hsk_object, i);
        struct hsk_map_ref old = o->root;
        if (stopped(c, error) || !hsk_pagemap_rewrite(&source, &old, o->size_bytes / HSK_PAGE_SIZE,
                                                      &c->rewriter, &o->root, error))
            return false;
    }
    return true;
}

static void move_blob(struct compaction *c, struct hsk_blob *b)
{
    if (b->frames == NULL)
        return;
    GArray *frames = g_array_copy(b->frames);
    for (guint i = 0; i < frames->len; i++) {
        uint64_t *e = &g_array_index(frames, uint64_t, i);
        gpointer now = g_hash_table_lookup(c->blobs, key_of(*e));
        *e = now == NULL ? *e : GPOINTER_TO_SIZE(now);
    }
    b->frames = frames;
}

static void record_free(gpointer p)
{
    struct hsk_record *r = p;
    g_array_unref(r->objects);
    hsk_blob_clear(&r->state);
    hsk_blob_clear(&r->picture);
    hsk_blob_clear(&r->needed);
    g_free(r->member);
    g_free(r);
}

static bool same_array(const GArray *a, const GArray *b, size_t size)
{
    return a == b || (a->len == b->len && memcmp(a->data, b->data, a->len * size) == 0);
}

/* A copy that shares with the old one what does not change. */
static bool move_record(struct compaction *c, const struct hsk_record *old, GError **error)
{
    struct hsk_record *r = g_memdup2(old, sizeof(*old));
    r->member = g_strdup(old->member);
    r->objects = g_array_copy(old->objects);
    move_blob(c, &r->state);
    move_blob(c, &r->picture);
    move_blob(c, &r->needed);
    g_ptr_array_add(c->records, r);
    if (!move_objects(c, r->objects, error))
        return false;
    return (same_array(r->objects, old->objects, sizeof(struct hsk_object)) &&
            same_array(r->state.frames, old->state.frames, sizeof(uint64_t)) &&
            same_array(r->picture.frames, old->picture.frames, sizeof(uint64_t)) &&
            same_array(r->needed.frames, old->needed.frames, sizeof(uint64_t))) ||
           hsk_record_rewrite(&c->sink.sink, c->root, r, error);
}

static bool move_maps(struct compaction *c, GError **error)
{
    struct hsk_map_writer *w = &c->rewriter.writer;
    w->member = c->root->next_number++;
    if (!move_objects(c, c->root->present, error))
        return false;
    for (guint i = 0; i < c->memory->len; i++) {
        if (!move_objects(c, g_ptr_array_index(c->memory, i), error))
            return false;
    }
    for (guint i = 0; i < c->doc->versions->len; i++) {
        if (!move_record(c, g_ptr_array_index(c->doc->versions, i), error))
            return false;
    }
    if (w->bytes->len == 0)
        return true;
    char name[32];
    uint8_t hash[HSK_HASH_BYTES];
    snprintf(name, sizeof(name), "map/%06u", w->member);
    if (!hsk_sink_put(&c->sink.sink, name, w->bytes->data, w->bytes->len, hash, error))
        return false;
    hsk_root_set(c->root, name, hash, NULL);
    return true;
}

/* ---- the whole ---- */

static void move_object(void *opaque, struct hsk_object *o)
{
    struct compaction *c = opaque;
    struct hsk_map_ref now;
    if (!hsk_map_ref_is_null(&o->root) && known_node(c, &o->root, &now) &&
        g_hash_table_contains(c->nodes, address(&o->root)))
        o->root = now;
}

/* The new ROOT is on the disk: memory follows. */
static void adopt(struct compaction *c)
{
    struct hsk_doc *doc = c->doc;
    g_mutex_lock(&doc->lock);
    for (guint i = 0; i < c->records->len; i++) {
        struct hsk_record *r = g_ptr_array_index(doc->versions, i), old = *r;
        struct hsk_record *now = g_ptr_array_index(c->records, i);
        r->member = now->member;
        r->objects = now->objects;
        r->state = now->state;
        r->picture = now->picture;
        r->needed = now->needed;
        now->member = old.member;
        now->objects = old.objects;
        now->state = old.state;
        now->picture = old.picture;
        now->needed = old.needed;
    }
    hsk_branches_move(doc, move_object, c);
    g_mutex_unlock(&doc->lock);
    hsk_instance_clean(doc);
}

static bool compact(struct compaction *c, GError **error)
{
    bool reason = look_around(c);
    if (reason && (!find_live(c, error) || !find_victims(c, &reason, error)))
        return false;
    if (!reason)
        return true;
    bool ok = move_content(c, error) && move_maps(c, error) &&
              hsk_doc_sweep(c->doc, c->root, c->records, c->memory, error) &&
              hsk_dir_sink_sync(&c->sink, error) && !stopped(c, error) &&
              hsk_doc_commit_root(c->doc, c->root, error);
    if (ok) {
        c->root = NULL;
        adopt(c);
        return true;
    }
    c->doc->root->next_number = c->root->next_number;
    hsk_doc_forget_content(c->doc);
    if (!c->doc->root_unsure)
        hsk_dir_sink_abort(&c->sink);
    return false;
}

bool hsk_doc_compact_instance(struct hsk_doc *doc, bool thorough, bool (*cancelled)(void *opaque),
                              void *opaque, GError **error)
{
    g_autoptr(GHashTable) visited = g_hash_table_new(NULL, NULL);
    g_autoptr(GHashTable) pages = g_hash_table_new(NULL, NULL);
    g_autoptr(GHashTable) blobs = g_hash_table_new(NULL, NULL);
    g_autoptr(GHashTable) own = g_hash_table_new(NULL, NULL);
    g_autoptr(GPtrArray) memory = hsk_branches_memory(doc);
    g_autoptr(GHashTable) live = g_hash_table_new(NULL, NULL);
    g_autoptr(GHashTable) victims = g_hash_table_new(NULL, NULL);
    g_autoptr(GHashTable) nodes = g_hash_table_new_full(NULL, NULL, NULL, g_free);
    g_autoptr(GPtrArray) records = g_ptr_array_new_with_free_func(record_free);
    g_autoptr(GByteArray) maps = g_byte_array_new();
    g_autofree uint8_t *bin = g_malloc(HSK_FRAME_MAX_BYTES);
    struct compaction c = {.doc = doc,
                           .thorough = thorough,
                           .cancelled = cancelled,
                           .opaque = opaque,
                           .root = hsk_root_copy(doc->root),
                           .visited = visited,
                           .pages = pages,
                           .blobs = blobs,
                           .own = own,
                           .memory = memory,
                           .live = live,
                           .victims = victims,
                           .nodes = nodes,
                           .rewriter = {.known = known_node,
                                        .done = node_moved,
                                        .entry = now_at,
                                        .opaque = &c,
                                        .writer = {.bytes = maps}},
                           .records = records,
                           .bin = bin};
    hsk_dir_sink_init(&c.sink, doc->io, doc->dirfd, doc->path);
    c.writer =
        hsk_segment_writer_new(&c.sink.sink, "data", 1, &c.root->next_number, segment_done, &c);
    bool ok = compact(&c, error);
    hsk_segment_writer_free(c.writer);
    hsk_dir_sink_finish(&c.sink);
    hsk_root_free(c.root);
    return ok;
}
