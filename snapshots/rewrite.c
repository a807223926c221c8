/* SPDX-License-Identifier: MIT */
/*
 * Documents made of documents: the same one without what nobody needs (hsk_doc_compact), and a new
 * machine from one version (hsk_doc_clone). Both are written to path.unfinished, synced and
 * renamed, so that there is the old file or the new one.
 *
 * Nothing moves: a frame that is not needed becomes a hole of its size under the same number, so
 * page maps stay as they are, and so does everything that an instance refers to. Members of which
 * nothing is needed are left out. Missing: single dead pages of a needed frame stay.
 *
 * Threads: one; but the copying of a clone (hsk_clone_write) goes on beside everything else. It has
 * its own ROOT and record, reads through content.h, and the version that it opened keeps the files
 * that other threads leave behind.
 */
#include <appliance-format/io.h>

#include "doc.h"

struct rewrite {
    struct hsk_doc *doc;
    char *label;           /* where it is read from, for errors */
    struct hsk_root *root; /* the new one; lists what was written so far */
    struct hsk_tar_sink sink;
    GHashTable *nodes;    /* addresses of needed page map nodes */
    GHashTable *maps;     /* numbers of needed members */
    GHashTable *frames;   /* entries without their slots */
    GHashTable *segments; /* numbers */
    bool (*progress)(void *opaque, double fraction);
    void *opaque;
    uint64_t done, all;
    const struct hsk_segment_id *id; /* what the segment that is written must become */
    bool moved;
};

/* ---- what is needed ---- */

static gpointer key_of(uint64_t n)
{
    return GSIZE_TO_POINTER(n);
}

static bool need_node(void *opaque, const struct hsk_map_ref *ref)
{
    struct rewrite *w = opaque;
    g_hash_table_add(w->maps, key_of(ref->member));
    return g_hash_table_add(w->nodes, key_of((uint64_t)ref->member << 32 | ref->offset));
}

static bool need_page(void *opaque, uint64_t page, uint64_t entry, GError **error)
{
    struct rewrite *w = opaque;
    g_hash_table_add(w->frames, key_of(entry & ~0xffull));
    g_hash_table_add(w->segments, key_of(hsk_entry_segment(entry)));
    return true;
}

static bool need_objects(struct rewrite *w, const GArray *objects, GError **error)
{
    struct hsk_map_source source = hsk_content_maps(w->doc->content);
    struct hsk_map_visitor v = {.enter = need_node, .page = need_page, .opaque = w};
    for (guint i = 0; i < objects->len; i++) {
        const struct hsk_object *o = &g_array_index(objects, struct hsk_object, i);
        if (!hsk_pagemap_walk(&source, &o->root, o->size_bytes / HSK_PAGE_SIZE, &v, error))
            return false;
    }
    return true;
}

static void need_blobs(struct rewrite *w, const struct hsk_blob *state,
                       const struct hsk_blob *picture, const struct hsk_blob *needed)
{
    const struct hsk_blob *blobs[] = {state, picture, needed};
    for (size_t i = 0; i < G_N_ELEMENTS(blobs); i++) {
        for (guint k = 0; blobs[i]->frames != NULL && k < blobs[i]->frames->len; k++)
            need_page(w, 0, g_array_index(blobs[i]->frames, uint64_t, k), NULL);
    }
}

/* ---- copying ---- */

static bool step(struct rewrite *w, uint64_t bytes, GError **error)
{
    w->done += bytes;
    if (w->progress == NULL ||
        w->progress(w->opaque, w->all == 0 ? 1.0 : (double)w->done / (double)w->all))
        return true;
    g_set_error(error, HSK_ERROR, HSK_ERROR_CANCELLED,
                "writing %s was stopped; nothing has changed", w->sink.sink.label);
    return false;
}

static bool put(struct rewrite *w, const char *name, const void *data, size_t bytes, GError **error)
{
    uint8_t hash[HSK_HASH_BYTES];
    if (!hsk_sink_put(&w->sink.sink, name, data, bytes, hash, error))
        return false;
    hsk_root_set(w->root, name, hash, NULL);
    return true;
}

static bool copy_member(struct rewrite *w, const struct hsk_root_entry *e, GError **error)
{
    struct hsk_member m;
    uint8_t hash[HSK_HASH_BYTES];
    if (!hsk_content_member(w->doc->content, e->name, &m, error))
        return false;
    uint64_t bytes = m.size;
    bool ok = hsk_sink_copy(&w->sink.sink, e->name, &m, hash, error);
    hsk_member_close(&m);
    if (ok && memcmp(hash, e->hash, sizeof(hash)) != 0)
        return hsk_damaged(error, w->label, "%s is not the one that was written", e->name);
    if (ok)
        hsk_root_set(w->root, e->name, hash, NULL);
    return ok && step(w, bytes, error);
}

static void segment_done(void *opaque, const char *name, const struct hsk_segment_id *id,
                         const uint8_t hash[HSK_HASH_BYTES])
{
    struct rewrite *w = opaque;
    w->moved |= id->number != w->id->number || id->nframes != w->id->nframes;
    hsk_root_set(w->root, name, hash, id);
}

/* A frame as it is, or a hole in its place if nobody needs it and the hole is smaller. */
static bool copy_frame(struct rewrite *w, struct hsk_segment_writer *out,
                       const struct hsk_segment *s, uint32_t index, GError **error)
{
    const struct hsk_frame *f = hsk_segment_frame(s, index);
    uint32_t raw = (f->rawsize + HSK_PAGE_SIZE - 1) / HSK_PAGE_SIZE * HSK_PAGE_SIZE, a, b;
    bool needed = g_hash_table_contains(w->frames, key_of(hsk_entry(w->id->number, index, 0)));
    if (!needed && f->flags == 0 && hsk_hole_frame_bytes(raw) < f->csize)
        return hsk_segment_writer_add_hole(out, raw, error) && step(w, f->csize, error);
    g_autofree uint8_t *stored = hsk_segment_stored(s, index, error);
    return stored != NULL && hsk_segment_writer_add_stored(out, stored, f, &a, &b, error) &&
           step(w, f->csize, error);
}

static bool copy_segment(struct rewrite *w, const struct hsk_root_entry *e, GError **error)
{
    g_autofree char *folder = g_path_get_dirname(e->name);
    uint32_t number = e->segment.number;
    HSK_AUTO(hsk_segment, s) = hsk_content_segment(w->doc->content, number, error);
    if (s == NULL)
        return false;
    w->id = &e->segment;
    HSK_AUTO(hsk_segment_writer, out) =
        hsk_segment_writer_new(&w->sink.sink, folder, 1, &number, segment_done, w);
    for (uint32_t i = 0; i < e->segment.nframes; i++) {
        if (!copy_frame(w, out, s, i, error))
            return false;
    }
    if (!hsk_segment_writer_finish(out, error))
        return false;
    if (w->moved)
        return hsk_damaged(error, w->label, "segment %06u is larger than it can be",
                           e->segment.number);
    return true;
}

/* The order of members in an archive: what one looks at first comes first. */
static int rank(const char *name)
{
    static const char *const first[] = {"mimetype", "manifest.json", "icon.png", "README.md",
                                        "eula/",    "boot/",         "disks/",   "data/",
                                        "map/",     "versions/"};
    for (unsigned i = 0; i < G_N_ELEMENTS(first); i++) {
        if (g_str_has_prefix(name, first[i]))
            return (int)i;
    }
    return G_N_ELEMENTS(first);
}

static gint by_rank(gconstpointer a, gconstpointer b)
{
    const struct hsk_root_entry *const *x = a, *const *y = b;
    int d = rank((*x)->name) - rank((*y)->name);
    return d != 0 ? d : strcmp((*x)->name, (*y)->name);
}

static bool is_needed(const struct rewrite *w, const struct hsk_root_entry *e)
{
    char id[33];
    /* All of disks/ stays, at least as holes: together it is the raw disk. */
    if (e->is_segment)
        return g_str_has_prefix(e->name, "disks/") ||
               g_hash_table_contains(w->segments, key_of(e->segment.number));
    if (g_str_has_prefix(e->name, "map/"))
        return g_hash_table_contains(w->maps, key_of(g_ascii_strtoull(e->name + 4, NULL, 10)));
    /* Signatures are of a ROOT that this one is not; records are written by the caller. */
    return !hsk_record_is_member(e->name, id) && strcmp(e->name, "manifest.json") != 0;
}

/* The members of from that are needed, and the manifest. */
static bool copy_members(struct rewrite *w, const struct hsk_root *from, const char *manifest,
                         GError **error)
{
    g_autoptr(GPtrArray) sorted = g_ptr_array_new();
    for (guint i = 0; i < from->entries->len; i++) {
        const struct hsk_root_entry *e = g_ptr_array_index(from->entries, i);
        struct hsk_member m;
        if (!is_needed(w, e) && strcmp(e->name, "manifest.json") != 0)
            continue;
        if (!hsk_content_member(w->doc->content, e->name, &m, error))
            return false;
        w->all += m.size;
        hsk_member_close(&m);
        g_ptr_array_add(sorted, (gpointer)e);
    }
    g_ptr_array_sort(sorted, by_rank);
    for (guint i = 0; i < sorted->len; i++) {
        const struct hsk_root_entry *e = g_ptr_array_index(sorted, i);
        if (strcmp(e->name, "manifest.json") == 0
                ? !put(w, e->name, manifest, strlen(manifest), error)
            : e->is_segment ? !copy_segment(w, e, error)
                            : !copy_member(w, e, error))
            return false;
    }
    return true;
}

static bool put_record(struct rewrite *w, const struct hsk_record *r, GError **error)
{
    g_autofree char *text = hsk_record_format(r);
    return put(w, r->member, text, strlen(text), error);
}

static void rewrite_init(struct rewrite *w, struct hsk_doc *doc, const char *document)
{
    w->doc = doc;
    w->label = g_strdup(doc->path);
    w->root = hsk_root_new(document);
    w->nodes = g_hash_table_new(NULL, NULL);
    w->maps = g_hash_table_new(NULL, NULL);
    w->frames = g_hash_table_new(NULL, NULL);
    w->segments = g_hash_table_new(NULL, NULL);
}

static void rewrite_clear(struct rewrite *w)
{
    hsk_root_free(w->root);
    g_free(w->label);
    g_hash_table_unref(w->nodes);
    g_hash_table_unref(w->maps);
    g_hash_table_unref(w->frames);
    g_hash_table_unref(w->segments);
}

/* ROOT, TAIL, sync; tells ROOT's hash. */
static bool seal(struct rewrite *w, GHashTable *foreign, uint8_t hash[HSK_HASH_BYTES],
                 GError **error)
{
    bool committed;
    g_autofree char *text = hsk_root_format(w->root);
    hsk_hash(text, strlen(text), hash);
    return hsk_trust_mark(w->root->document, hash, foreign, error) &&
           hsk_tar_sink_commit(&w->sink, text, w->root->generation, &committed, error);
}

/* ---- compacting ---- */

/* What the document lists, and what the instance needs of it. */
static bool need_everything(struct rewrite *w, GPtrArray *records, GError **error)
{
    struct hsk_doc *doc = w->doc;
    g_autoptr(GPtrArray) memory = hsk_branches_memory(doc);
    if (!need_objects(w, doc->root->present, error) ||
        !need_objects(w, doc->base_root->present, error))
        return false;
    for (guint i = 0; i < memory->len; i++) {
        if (!need_objects(w, g_ptr_array_index(memory, i), error))
            return false;
    }
    for (guint i = 0; i < doc->versions->len; i++) {
        struct hsk_record *r = g_ptr_array_index(doc->versions, i);
        if (r->info.damaged)
            return hsk_damaged(error, doc->path,
                               "the record of version %s makes no sense; drop it first",
                               r->info.id);
        need_blobs(w, &r->state, &r->picture, &r->needed);
        if (!need_objects(w, r->objects, error))
            return false;
        if (hsk_root_find(doc->base_root, r->member) != NULL)
            g_ptr_array_add(records, r);
    }
    return true;
}

static bool compact_open(struct hsk_doc *doc, struct rewrite *w, struct hsk_target *t,
                         GError **error)
{
    g_autoptr(GPtrArray) records = g_ptr_array_new();
    g_autofree char *manifest = hsk_manifest_format(doc->manifest, error);
    if (manifest == NULL || !need_everything(w, records, error) ||
        !hsk_target_open(t, doc->path, doc->io, error))
        return false;
    hsk_tar_sink_init(&w->sink, doc->io, t->fd, doc->path);
    if (!copy_members(w, doc->base_root, manifest, error))
        return false;
    for (guint i = 0; i < records->len; i++) {
        if (!put_record(w, g_ptr_array_index(records, i), error))
            return false;
    }
    w->root->generation = doc->base_root->generation + 1;
    w->root->next_number = doc->base_root->next_number;
    g_strlcpy(w->root->current, doc->base_root->current, sizeof(w->root->current));
    g_array_append_vals(w->root->present, doc->base_root->present->data,
                        doc->base_root->present->len);
    /* From here on the instance knows both. */
    return seal(w, doc->foreign, doc->next_hash, error) &&
           hsk_instance_expect(doc, doc->next_hash, error) && hsk_target_finish(t, doc->io, error);
}

bool hsk_doc_compact(const char *path, bool (*progress)(void *opaque, double fraction),
                     void *opaque, GError **error)
{
    struct hsk_doc *doc = hsk_doc_open(path, false, NULL, error);
    if (doc == NULL)
        return false;
    struct rewrite w = {.progress = progress, .opaque = opaque};
    struct hsk_target t = HSK_NO_TARGET;
    rewrite_init(&w, doc, doc->manifest->uuid);
    bool ok = hsk_doc_fold(doc, 0, error) && hsk_doc_publish(doc, error) &&
              compact_open(doc, &w, &t, error);
    hsk_target_clear(&t);
    rewrite_clear(&w);
    hsk_doc_close(doc);
    return ok;
}

/* ---- cloning ---- */

struct hsk_clone {
    struct rewrite w;
    struct hsk_version *version; /* NULL: the disks as they are */
    struct hsk_record *record;   /* the only one, in which the machine goes on; or NULL */
    struct hsk_root *from;       /* what holds, as of the beginning */
    GHashTable *foreign;         /* the version, if somebody else made it; or NULL */
    char *out, *manifest;
};

/* A record of that version for a document that has no other: the machine goes on from it. */
static struct hsk_record *only_record(struct hsk_doc *doc, const char *id, GError **error)
{
    G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&doc->lock);
    g_autofree char *text = hsk_record_format(hsk_doc_find(doc, id));
    struct hsk_record *r = hsk_record_parse(doc->path, id, text, strlen(text), error);
    if (r == NULL)
        return NULL;
    r->member = hsk_record_member(id, 0);
    g_ptr_array_set_size(r->ancestors, 0);
    r->order = 1;
    r->info.kind = r->info.has_state ? HSK_VERSION_SAVED : HSK_VERSION_USER;
    r->info.pinned = false;
    return r;
}

/* It is called as its file, if that can be a name. */
static void take_name(struct hsk_manifest *m, const char *out)
{
    g_autofree char *name = g_path_get_basename(out);
    if (g_str_has_suffix(name, ".hva"))
        name[strlen(name) - strlen(".hva")] = '\0';
    if (!hsk_text_ok(name, HSK_MANIFEST_NAME_MAX))
        return;
    g_free(m->name);
    m->name = g_steal_pointer(&name);
}

/* What it is to be. */
static bool describe(struct hsk_clone *c, struct hsk_doc *doc, GError **error)
{
    struct hsk_manifest *m = hsk_manifest_copy(doc->manifest);
    g_free(m->uuid);
    m->uuid = g_uuid_string_random();
    take_name(m, c->out);
    rewrite_init(&c->w, doc, m->uuid);
    c->manifest = hsk_manifest_format(m, error);
    hsk_manifest_free(m);
    c->w.root->generation = 1;
    c->w.root->next_number = doc->root->next_number;
    return c->manifest != NULL;
}

static void set_present(struct hsk_root *root, const GArray *objects, bool disks_only)
{
    for (guint i = 0; i < objects->len; i++) {
        const struct hsk_object *o = &g_array_index(objects, struct hsk_object, i);
        if (!disks_only || g_str_has_prefix(o->name, "disk."))
            hsk_objects_set(root->present, o);
    }
}

struct hsk_clone *hsk_clone_begin(struct hsk_doc *doc, const char *id, const char *out,
                                  GError **error)
{
    if (g_file_test(out, G_FILE_TEST_EXISTS)) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_FAILED, "%s exists already", out);
        return NULL;
    }
    HSK_AUTO(hsk_clone, c) = g_new0(struct hsk_clone, 1);
    c->out = g_strdup(out);
    c->from = hsk_root_copy(doc->root);
    if (!describe(c, doc, error))
        return NULL;
    if (id == NULL) {
        set_present(c->w.root, doc->root->present, true);
        return g_steal_pointer(&c);
    }
    if ((c->version = hsk_version_open(doc, id, error)) == NULL ||
        (c->record = only_record(doc, id, error)) == NULL)
        return NULL;
    set_present(c->w.root, c->version->objects, false);
    g_strlcpy(c->w.root->current, id, sizeof(c->w.root->current));
    if (g_hash_table_contains(doc->foreign, id)) {
        c->foreign = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
        g_hash_table_add(c->foreign, g_strdup(id));
    }
    return g_steal_pointer(&c);
}

void hsk_clone_free(struct hsk_clone *c)
{
    if (c == NULL)
        return;
    hsk_version_free(c->version);
    hsk_record_free(c->record);
    hsk_root_free(c->from);
    g_clear_pointer(&c->foreign, g_hash_table_unref);
    if (c->w.root != NULL)
        rewrite_clear(&c->w);
    g_free(c->manifest);
    g_free(c->out);
    g_free(c);
}

static bool write_clone(struct hsk_clone *c, struct hsk_target *t, GError **error)
{
    struct rewrite *w = &c->w;
    const struct hsk_record *r = c->record;
    const struct hsk_io *io = w->doc->io;
    uint8_t hash[HSK_HASH_BYTES];
    if (r != NULL)
        need_blobs(w, &r->state, &r->picture, &r->needed);
    if (!need_objects(w, w->root->present, error) || !hsk_target_open(t, c->out, io, error))
        return false;
    hsk_tar_sink_init(&w->sink, io, t->fd, c->out);
    return copy_members(w, c->from, c->manifest, error) && (r == NULL || put_record(w, r, error)) &&
           seal(w, c->foreign, hash, error) && hsk_target_finish(t, io, error);
}

bool hsk_clone_write(struct hsk_clone *c, bool (*progress)(void *opaque, double fraction),
                     void *opaque, GError **error)
{
    struct hsk_target t = HSK_NO_TARGET;
    t.is_new = true;
    c->w.progress = progress;
    c->w.opaque = opaque;
    bool ok = write_clone(c, &t, error);
    hsk_target_clear(&t);
    return ok;
}

/* What the machine would go on with if it were opened now: a saved state, or (NULL) its disks. */
static char *would_resume(struct hsk_doc *doc)
{
    const char *saved = hsk_doc_saved(doc);
    const struct hsk_record *r = hsk_doc_find(doc, saved);
    bool fits = r != NULL && r->info.has_state && strcmp(saved, hsk_doc_current(doc)) == 0 &&
                !hsk_doc_live_changed(doc);
    return fits ? g_strdup(saved) : NULL;
}

bool hsk_doc_clone(const char *path, const char *version, const char *out,
                   bool (*progress)(void *opaque, double fraction), void *opaque, GError **error)
{
    g_autoptr(GError) busy = NULL;
    struct hsk_doc *doc = hsk_doc_open(path, false, NULL, &busy);
    /* Whoever has it open is left alone: what it has committed is there to be read. */
    bool shared = doc == NULL && g_error_matches(busy, HSK_ERROR, HSK_ERROR_BUSY);
    if (shared)
        doc = hsk_doc_open(path, true, NULL, error);
    else if (doc == NULL)
        g_propagate_error(error, g_steal_pointer(&busy));
    if (doc == NULL)
        return false;
    g_autofree char *id =
        version == NULL ? would_resume(doc) : hsk_doc_resolve(doc, version, error);
    struct hsk_clone *c = NULL;
    bool ok = (version == NULL || id != NULL) &&
              (id != NULL || shared || hsk_doc_fold(doc, 0, error)) &&
              (c = hsk_clone_begin(doc, id, out, error)) != NULL &&
              hsk_clone_write(c, progress, opaque, error);
    hsk_clone_free(c);
    hsk_doc_close(doc);
    return ok;
}
