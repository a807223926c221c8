/* SPDX-License-Identifier: MIT */
/*
 * Committing a version: pages through the zero test, the index and the packer into segments, page
 * maps on top, the record, then one new ROOT (docs/format.md, "Directory"). Everything before that
 * ROOT is files that nobody lists: a crash leaves litter, which the next opening removes. One
 * thread, beside the disks and readers of versions.
 */
#include <inttypes.h>
#include <sodium.h>
#include <stdio.h>

#include "doc.h"

struct commit {
    struct hsk_doc *doc;
    const struct hsk_take_point *point;
    const struct hsk_take *take;
    struct hsk_root *root; /* the new one */
    struct hsk_record *record;
    GArray *present;  /* struct hsk_object: what it is relative to, then what it makes of it */
    char current[33]; /* likewise */
    bool fold;        /* the disks only, and no version comes of it */
    struct hsk_dir_sink sink;
    struct hsk_segment_writer *writer;
    struct hsk_pack *pack;
    GPtrArray *maps; /* struct hsk_pagemap, as record->objects */
    uint64_t bytes;
};

static void segment_done(void *opaque, const char *name, const struct hsk_segment_id *id,
                         const uint8_t hash[HSK_HASH_BYTES])
{
    struct commit *c = opaque;
    hsk_root_set(c->root, name, hash, id);
    hsk_content_add(c->doc->content, hsk_root_find(c->root, name));
}

static bool becomes_current(enum hsk_version_kind kind)
{
    return kind == HSK_VERSION_USER || kind == HSK_VERSION_SAVED;
}

/* The map that an object of this version begins with: zeros, or, if *has_base, the present's if
 * that fits. */
static struct hsk_pagemap *begin_object(struct commit *c, const char *name, uint64_t size_bytes,
                                        bool *has_base)
{
    const struct hsk_object *base = hsk_objects_find(c->present, name);
    struct hsk_object o = {.size_bytes = size_bytes};
    g_strlcpy(o.name, name, sizeof(o.name));
    *has_base = *has_base && base != NULL && base->size_bytes == size_bytes;
    if (*has_base)
        o.root = base->root;
    struct hsk_pagemap *map = hsk_object_map(c->doc, &o);
    g_ptr_array_add(c->maps, map);
    g_array_append_val(c->record->objects, o);
    return map;
}

/* A page that may be what the base has already: then its entry stays. */
static bool add_page(struct commit *c, struct hsk_pagemap *map, uint64_t page, const uint8_t *src,
                     bool compare, GError **error)
{
    uint8_t old[HSK_PAGE_SIZE];
    uint64_t entry = 0;
    if (compare && !hsk_pagemap_get(map, page, &entry, error))
        return false;
    g_autoptr(GError) unreadable = NULL;
    if (entry != 0 && hsk_content_page(c->doc->content, entry, old, &unreadable) &&
        memcmp(old, src, HSK_PAGE_SIZE) == 0)
        return true;
    return hsk_pack_page(c->pack, map, page, src, error);
}

static bool cancelled(const struct commit *c, GError **error)
{
    if (c->take->cancelled == NULL || !c->take->cancelled(c->take->opaque))
        return false;
    g_set_error(error, HSK_ERROR, HSK_ERROR_CANCELLED, "saving a version of %s was stopped",
                c->doc->path);
    return true;
}

/* The next page from `page` on that may have changed; npages: none. */
static uint64_t next_dirty(const uint8_t *dirty, uint64_t page, uint64_t npages)
{
    while (page < npages && (dirty[page / 8] >> page % 8) == 0)
        page = (page / 8 + 1) * 8;
    while (page < npages && (dirty[page / 8] >> page % 8 & 1) == 0)
        page++;
    return MIN(page, npages);
}

static bool add_pages(struct commit *c, const struct hsk_version_object *o, bool has_base,
                      struct hsk_pagemap *map, GError **error)
{
    const uint64_t npages = o->size_bytes / HSK_PAGE_SIZE;
    const uint8_t *src = o->pages;
    uint8_t copy[HSK_PAGE_SIZE];
    for (uint64_t page = 0;; page++) {
        page = o->dirty == NULL ? page : next_dirty(o->dirty, page, npages);
        if (page >= npages)
            return true;
        if (cancelled(c, error))
            return false;
        if (o->pages == NULL)
            o->read_page(o->opaque, page, copy);
        if (!add_page(c, map, page, o->pages == NULL ? copy : src, has_base && o->dirty == NULL,
                      error))
            return false;
        src += o->pages == NULL ? 0 : HSK_PAGE_SIZE;
    }
}

static bool add_object(struct commit *c, const struct hsk_version_object *o, GError **error)
{
    bool has_base = !o->from_zeros;
    if (!hsk_object_name_ok(o->name) || g_str_has_prefix(o->name, "disk.") ||
        hsk_objects_find(c->record->objects, o->name) != NULL || o->size_bytes == 0 ||
        o->size_bytes % HSK_PAGE_SIZE != 0 || o->size_bytes > HSK_OBJECT_MAX_BYTES) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_FAILED,
                    "a version cannot hold an object \"%s\" of %" PRIu64 " bytes", o->name,
                    o->size_bytes);
        return false;
    }
    struct hsk_pagemap *map = begin_object(c, o->name, o->size_bytes, &has_base);
    if (o->dirty != NULL && !has_base && !o->from_zeros) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_FAILED,
                    "there is no version that the changes of \"%s\" belong to", o->name);
        return false;
    }
    return add_pages(c, o, has_base, map, error);
}

static bool add_disk(struct commit *c, unsigned index, GError **error)
{
    const struct hsk_manifest_disk *d = &c->doc->manifest->disks[index];
    g_autofree char *name = hsk_disk_object_name(d);
    g_autoptr(GArray) changes = hsk_disk_changes(c->point, index);
    bool has_base = true;
    struct hsk_pagemap *map = begin_object(c, name, d->size_bytes, &has_base);
    hsk_assert(has_base);
    for (guint i = 0; i < changes->len; i++) {
        const struct hsk_changed_page *p = &g_array_index(changes, struct hsk_changed_page, i);
        uint8_t page[HSK_PAGE_SIZE] = {0};
        if (cancelled(c, error))
            return false;
        int r = p->loc == HSK_LOC_HOLE ? 0 : hsk_log_read(c->doc->log, p->loc, page);
        if (r < 0)
            return hsk_io_error(error, r, "read the log of %s", c->doc->path);
        if (!hsk_pack_page(c->pack, map, p->page, page, error))
            return false;
    }
    return true;
}

static bool add_needed(struct commit *c, GError **error)
{
    const size_t n = MIN(c->take->nneeded, HSK_MAX_NEEDED);
    g_autofree uint8_t *raw = g_malloc(n * 4);
    for (size_t i = 0; i < n; i++)
        hsk_put32(raw + 4 * i, c->take->needed[i]);
    return hsk_pack_blob(c->writer, raw, n * 4, &c->record->needed, error);
}

static bool add_content(struct commit *c, GError **error)
{
    const struct hsk_take *t = c->take;
    for (unsigned i = 0; i < t->nobjects; i++) {
        if (!add_object(c, &t->objects[i], error))
            return false;
    }
    for (unsigned i = 0; i < c->doc->ndisks; i++) {
        if (!add_disk(c, i, error))
            return false;
    }
    if (!hsk_pack_flush(c->pack, error))
        return false;
    if (t->state_bytes > HSK_BLOB_MAX_BYTES || t->picture_bytes > HSK_BLOB_MAX_BYTES) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_FAILED,
                    "the device state or the picture is larger than 64 MiB");
        return false;
    }
    if (t->state_bytes > 0 &&
        !hsk_pack_blob(c->writer, t->state, t->state_bytes, &c->record->state, error))
        return false;
    if (t->picture_bytes > 0 &&
        !hsk_pack_blob(c->writer, t->picture_png, t->picture_bytes, &c->record->picture, error))
        return false;
    if (t->nneeded > 0 && !add_needed(c, error))
        return false;
    c->record->info.has_state = t->state_bytes > 0;
    return hsk_segment_writer_finish(c->writer, error);
}

static bool add_maps(struct commit *c, GError **error)
{
    g_autoptr(GByteArray) bytes = g_byte_array_new();
    struct hsk_map_writer w = {c->root->next_number, bytes};
    for (guint i = 0; i < c->maps->len; i++) {
        struct hsk_object *o = &g_array_index(c->record->objects, struct hsk_object, i);
        if (!hsk_pagemap_write(g_ptr_array_index(c->maps, i), &w, &o->root, error))
            return false;
        hsk_objects_set(c->present, o);
    }
    if (bytes->len == 0)
        return true;
    char name[32];
    uint8_t hash[HSK_HASH_BYTES];
    snprintf(name, sizeof(name), "map/%06u", c->root->next_number++);
    if (!hsk_sink_put(&c->sink.sink, name, bytes->data, bytes->len, hash, error))
        return false;
    hsk_root_set(c->root, name, hash, NULL);
    c->bytes += bytes->len;
    return true;
}

/* The record but for its content. */
static void begin_record(struct commit *c)
{
    struct hsk_doc *doc = c->doc;
    struct hsk_record *r = c->record;
    uint8_t id[16];
    randombytes_buf(id, sizeof(id));
    hsk_hex(r->info.id, id, sizeof(id));
    r->info.title = hsk_text_clean(c->take->title != NULL ? c->take->title : "", HSK_TITLE_BYTES);
    r->info.time = g_get_real_time() / G_USEC_PER_SEC;
    r->info.kind = c->take->kind;
    r->info.engine = g_strndup(c->take->engine != NULL ? c->take->engine : "", 100);
    r->cpu = g_strndup(c->take->cpu != NULL ? c->take->cpu : "", 200);
    const struct hsk_record *last =
        doc->versions->len == 0 ? NULL : g_ptr_array_index(doc->versions, doc->versions->len - 1);
    r->order = last == NULL ? 1 : last->order + 1;
    const struct hsk_record *parent = hsk_doc_find(doc, c->current);
    if (parent == NULL)
        return;
    g_ptr_array_add(r->ancestors, g_strdup(parent->info.id));
    for (guint i = 0; i < parent->ancestors->len && r->ancestors->len < HSK_RECORD_MAX_ANCESTORS;
         i++)
        g_ptr_array_add(r->ancestors, g_strdup(g_ptr_array_index(parent->ancestors, i)));
}

static bool add_record(struct commit *c, GError **error)
{
    c->record->info.bytes = c->bytes + hsk_segment_writer_bytes(c->writer);
    g_autofree char *text = hsk_record_format(c->record);
    const char *name = c->record->member = hsk_record_member(c->record->info.id, 0);
    uint8_t hash[HSK_HASH_BYTES];
    if (strlen(text) > HSK_RECORD_MAX_BYTES) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_FAILED,
                    "the record of the version would be too large");
        return false;
    }
    if (!hsk_sink_put(&c->sink.sink, name, text, strlen(text), hash, error))
        return false;
    hsk_root_set(c->root, name, hash, NULL);
    if (becomes_current(c->take->kind))
        g_strlcpy(c->current, c->record->info.id, sizeof(c->current));
    return true;
}

/* One saved state is kept: the older ones go with the commit of a newer one. Folding leaves what
 * was folded before behind. */
static bool drop_unneeded(struct commit *c, GError **error)
{
    g_autoptr(GPtrArray) memory = hsk_branches_memory(c->doc);
    if (c->fold)
        return hsk_doc_sweep(c->doc, c->root, c->doc->versions, memory, error);
    if (c->take->kind != HSK_VERSION_SAVED)
        return true;
    g_autoptr(GPtrArray) records = g_ptr_array_new();
    bool dropped = false;
    for (guint i = 0; i < c->doc->versions->len; i++) {
        struct hsk_record *r = g_ptr_array_index(c->doc->versions, i);
        if (r->info.kind == HSK_VERSION_SAVED && !r->info.pinned &&
            hsk_doc_leave(c->doc, c->root, r)) {
            hsk_root_remove(c->root, r->member);
            dropped = true;
        } else {
            g_ptr_array_add(records, r);
        }
    }
    g_ptr_array_add(records, c->record);
    return !dropped || hsk_doc_sweep(c->doc, c->root, records, memory, error);
}

/* The new ROOT is on the disk: memory follows. */
static void adopt(struct commit *c)
{
    struct hsk_doc *doc = c->doc;
    hsk_doc_adopt_versions(doc, c->fold ? NULL : g_steal_pointer(&c->record));
    hsk_branch_advance(c->point, c->present, c->current);
    if (c->fold || c->take->kind == HSK_VERSION_SAVED)
        hsk_instance_clean(doc);
}

/* After a sync that failed, what was read from the log may not be what was written. */
static bool log_was_good(struct commit *c, GError **error)
{
    G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&c->doc->disk_lock);
    int r = hsk_log_error(c->doc->log);
    return r == 0 || hsk_io_error(error, r, "read what the disks of %s hold", c->doc->path);
}

static bool do_commit(struct commit *c, GError **error)
{
    begin_record(c);
    if (!add_content(c, error) || !add_maps(c, error) || (!c->fold && !add_record(c, error)))
        return false;
    hsk_branch_root(c->point, c->present, c->current, c->root);
    return drop_unneeded(c, error) && hsk_dir_sink_sync(&c->sink, error) && !cancelled(c, error) &&
           log_was_good(c, error) && hsk_doc_commit_root(c->doc, c->root, error);
}

static bool run_commit(struct hsk_doc *doc, struct hsk_take_point *p, const struct hsk_take *t,
                       bool fold, char *id_out, uint64_t *bytes_added, GError **error)
{
    struct commit c = {.doc = doc, .point = p, .take = t, .fold = fold};
    if (!hsk_point_base(p, &c.present, c.current)) {
        hsk_take_abandon(p);
        g_set_error(error, HSK_ERROR, HSK_ERROR_FAILED,
                    "%s: a later version was saved before this one", doc->path);
        return false;
    }
    c.root = hsk_root_copy(doc->root);
    c.record = hsk_record_new();
    c.maps = g_ptr_array_new_with_free_func((GDestroyNotify)hsk_pagemap_free);
    if (doc->index == NULL)
        doc->index = hsk_index_new();
    hsk_dir_sink_init(&c.sink, doc->io, doc->dirfd, doc->path);
    c.writer =
        hsk_segment_writer_new(&c.sink.sink, "data", 1, &c.root->next_number, segment_done, &c);
    c.pack = hsk_pack_new(doc->content, doc->index, c.writer);
    bool ok = do_commit(&c, error);
    hsk_pack_free(c.pack);
    if (ok) {
        if (id_out != NULL)
            g_strlcpy(id_out, c.record->info.id, 33);
        if (bytes_added != NULL)
            *bytes_added = c.record->info.bytes;
        adopt(&c);
    } else {
        /* Numbers are never used twice. */
        doc->root->next_number = c.root->next_number;
        hsk_root_free(c.root);
        hsk_doc_stay(doc);
        hsk_doc_forget_content(doc);
        if (!doc->root_unsure)
            hsk_dir_sink_abort(&c.sink);
    }
    hsk_segment_writer_free(c.writer);
    hsk_dir_sink_finish(&c.sink);
    g_ptr_array_unref(c.maps);
    hsk_record_free(c.record);
    g_array_unref(c.present);
    hsk_take_abandon(p);
    return ok;
}

bool hsk_version_commit(struct hsk_doc *doc, struct hsk_take_point *p, const struct hsk_take *t,
                        char *id_out, uint64_t *bytes_added, GError **error)
{
    return run_commit(doc, p, t, false, id_out, bytes_added, error);
}

bool hsk_doc_fold(struct hsk_doc *doc, uint64_t limit_bytes, GError **error)
{
    const struct hsk_take disks_only = {.kind = HSK_VERSION_AUTO};
    g_mutex_lock(&doc->disk_lock);
    bool needed = hsk_log_bytes(doc->log) > limit_bytes;
    g_mutex_unlock(&doc->disk_lock);
    return !needed || run_commit(doc, hsk_take_begin(doc), &disks_only, true, NULL, NULL, error);
}
