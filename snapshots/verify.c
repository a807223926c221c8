/* SPDX-License-Identifier: MIT */
/*
 * hva verify: everything that a document says of itself is checked: every listed member as a whole,
 * every frame, every page map and record, the signature (verify.h). A damaged frame or node is
 * charged to the versions that reach it; the others are whole.
 *
 * Page maps are shared between versions, and a hostile one shares with itself: a node that was
 * found good is not looked at again. Only nodes on a path to damage are, so the cost stays linear.
 * What a node may hold depends on where it lies only at the right edge of an object, which is
 * looked at for each object. Opens read-only and needs no instance. One thread.
 */
#include <snapshots/trust.h>
#include <snapshots/verify.h>

#include "doc.h"

struct check {
    struct hsk_doc *doc;
    struct hsk_check_result *r;
    bool (*progress)(void *, double);
    void *opaque;
    bool stopped;
    uint64_t done;
    GHashTable *good;         /* of struct hsk_map_ref: nodes that are good with all below them */
    GHashTable *bad_frames;   /* entry without slot */
    GHashTable *bad_segments; /* number */
    const struct hsk_root_entry *segment; /* under way */
};

static void checked_version_clear(gpointer p)
{
    struct hsk_checked_version *v = p;
    g_free(v->title);
    g_free(v->problem);
}

void hsk_check_result_free(struct hsk_check_result *r)
{
    if (r == NULL)
        return;
    g_ptr_array_unref(r->problems);
    g_array_unref(r->versions);
    g_free(r->present);
    g_free(r);
}

static bool step(void *opaque, uint64_t bytes)
{
    struct check *c = opaque;
    c->done += bytes;
    if (c->progress != NULL && !c->stopped)
        c->stopped =
            !c->progress(c->opaque, c->r->bytes == 0 ? 1.0 : (double)c->done / (double)c->r->bytes);
    return !c->stopped;
}

static void problem(struct check *c, const GError *e)
{
    g_ptr_array_add(c->r->problems, g_strdup(e->message));
}

/* ---- members ---- */

static void bad_frame(void *opaque, uint32_t frame, const GError *error)
{
    struct check *c = opaque;
    gint64 *key = g_new(gint64, 1);
    *key = (gint64)hsk_entry(c->segment->segment.number, frame, 0);
    g_hash_table_add(c->bad_frames, key);
    problem(c, error);
}

static bool hash_in_steps(struct check *c, const struct hsk_member *m, uint8_t hash[HSK_HASH_BYTES])
{
    bool ok = hsk_member_hash(m, hash);
    step(c, m->size);
    return ok;
}

/* true: nothing to say against it. Its frames are told to bad_frame, a table that is none is
 * remembered for all. */
static bool check_segment(struct check *c, const struct hsk_root_entry *e,
                          uint8_t hash[HSK_HASH_BYTES], GError **error)
{
    const struct hsk_segment_checker checker = {bad_frame, step, c};
    HSK_AUTO(hsk_segment, s) = hsk_content_segment(c->doc->content, e->segment.number, error);
    if (s == NULL) {
        g_hash_table_add(c->bad_segments, GUINT_TO_POINTER(e->segment.number));
        return false;
    }
    c->segment = e;
    c->r->frames += hsk_segment_nframes(s);
    return hsk_segment_check(s, &checker, hash, error);
}

static void check_member(struct check *c, const struct hsk_root_entry *e)
{
    struct hsk_member m;
    uint8_t hash[HSK_HASH_BYTES];
    g_autoptr(GError) error = NULL;
    guint told = c->r->problems->len;
    c->r->members++;
    bool ok = hsk_carrier_member(c->doc->base, e->name, &m, &error) &&
              (e->is_segment ? check_segment(c, e, hash, &error) : hash_in_steps(c, &m, hash));
    if (c->stopped || c->r->problems->len > told)
        return;
    if (error == NULL && (!ok || memcmp(hash, e->hash, sizeof(hash)) != 0))
        hsk_damaged(&error, c->doc->path, "%s is not the one that was written", e->name);
    if (error != NULL)
        problem(c, error);
}

/* ---- versions ---- */

static bool check_page(void *opaque, uint64_t page, uint64_t entry, GError **error)
{
    struct check *c = opaque;
    struct hsk_doc *doc = c->doc;
    gint64 key = (gint64)(entry & ~0xffull);
    uint32_t number = hsk_entry_segment(entry);
    if (g_hash_table_contains(c->bad_segments, GUINT_TO_POINTER(number)) ||
        g_hash_table_contains(c->bad_frames, &key))
        return hsk_damaged(error, doc->path,
                           "page %" G_GUINT64_FORMAT " lies in what is damaged "
                           "of segment %06u",
                           page, number);
    HSK_AUTO(hsk_segment, s) = hsk_content_segment(doc->content, number, error);
    if (s == NULL)
        return false;
    const struct hsk_frame *f = hsk_segment_frame(s, hsk_entry_frame(entry));
    if (f == NULL || f->flags != 0 ||
        !hsk_range_ok((uint64_t)hsk_entry_slot(entry) * HSK_PAGE_SIZE, HSK_PAGE_SIZE, f->rawsize))
        return hsk_damaged(error, doc->path, "a page map points at a page that is not there");
    return true;
}

static bool enter_node(void *opaque, const struct hsk_map_ref *ref)
{
    struct check *c = opaque;
    return !c->stopped && !g_hash_table_contains(c->good, ref);
}

static void leave_node(void *opaque, const struct hsk_map_ref *ref, bool good)
{
    struct check *c = opaque;
    if (!good)
        return;
    g_hash_table_add(c->good, g_memdup2(ref, sizeof(*ref)));
    if (++c->r->nodes % 1024 == 0)
        step(c, 0);
}

static bool check_object(struct check *c, const struct hsk_object *o, GError **error)
{
    struct hsk_map_source source = hsk_content_maps(c->doc->content);
    struct hsk_map_visitor v = {
        .enter = enter_node, .page = check_page, .opaque = c, .leave = leave_node};
    uint64_t npages = o->size_bytes / HSK_PAGE_SIZE, entry;
    if (!hsk_pagemap_walk(&source, &o->root, npages, &v, error))
        return false;
    HSK_AUTO(hsk_pagemap, map) = hsk_pagemap_new(&source, &o->root, npages);
    return hsk_pagemap_get(map, npages - 1, &entry, error);
}

static bool check_blob(struct check *c, const struct hsk_blob *b, GError **error)
{
    if (b->frames == NULL)
        return true;
    g_autoptr(GBytes) bytes = hsk_content_blob(c->doc->content, b, error);
    return bytes != NULL;
}

static bool check_objects(struct check *c, const GArray *objects, GError **error)
{
    for (guint i = 0; i < objects->len; i++) {
        const struct hsk_object *o = &g_array_index(objects, struct hsk_object, i);
        if (!check_object(c, o, error)) {
            g_prefix_error(error, "%s: ", o->name);
            return false;
        }
    }
    return true;
}

/* Every disk of the manifest, as large as it says there. */
static bool check_disks(struct check *c, const GArray *objects, GError **error)
{
    const struct hsk_manifest *m = c->doc->manifest;
    for (unsigned i = 0; i < m->ndisks; i++) {
        g_autofree char *name = hsk_disk_object_name(&m->disks[i]);
        uint64_t bytes = 0;
        for (guint k = 0; k < objects->len; k++) {
            const struct hsk_object *o = &g_array_index(objects, struct hsk_object, k);
            if (strcmp(o->name, name) == 0)
                bytes = o->size_bytes;
        }
        if (bytes != m->disks[i].size_bytes)
            return hsk_damaged(error, c->doc->path,
                               "the manifest's disk %s is not there in its size", m->disks[i].id);
    }
    return true;
}

static void check_version(struct check *c, const struct hsk_record *r)
{
    g_autoptr(GError) error = NULL;
    struct hsk_checked_version v = {.title = g_strdup(r->info.title)};
    g_strlcpy(v.id, r->info.id, sizeof(v.id));
    if (r->info.damaged)
        v.problem = g_strdup("its record is not the one that was written");
    else if (!check_disks(c, r->objects, &error) || !check_objects(c, r->objects, &error) ||
             !check_blob(c, &r->state, &error) || !check_blob(c, &r->picture, &error) ||
             !check_blob(c, &r->needed, &error))
        v.problem = g_strdup(error->message);
    g_array_append_val(c->r->versions, v);
    c->r->whole &= v.problem == NULL;
}

static void check_frame_of_file(struct check *c)
{
    struct hsk_doc *doc = c->doc;
    g_autoptr(GError) error = NULL;
    HSK_AUTO(hsk_trust_report, r) = hsk_doc_trust(doc);
    if (r->sign == HSK_SIGNED_BAD)
        g_ptr_array_add(c->r->problems,
                        g_strdup_printf("%s is damaged: its signature does not fit", doc->path));
    if (!hsk_carrier_tar_check_tail(doc->base, &error))
        problem(c, error);
}

static void check_all(struct check *c)
{
    struct hsk_doc *doc = c->doc;
    const GPtrArray *entries = doc->root->entries;
    g_autoptr(GError) error = NULL;
    for (guint i = 0; i < entries->len && !c->stopped; i++)
        check_member(c, g_ptr_array_index(entries, i));
    if (!c->stopped && (!check_disks(c, doc->root->present, &error) ||
                        !check_objects(c, doc->root->present, &error)))
        c->r->present = g_strdup(error->message);
    for (guint i = 0; i < doc->versions->len && !c->stopped; i++)
        check_version(c, g_ptr_array_index(doc->versions, i));
    check_frame_of_file(c);
    c->r->whole &= c->r->problems->len == 0 && c->r->present == NULL;
}

/* Of equal nodes at many addresses, too. */
static guint ref_hash(gconstpointer p)
{
    const struct hsk_map_ref *ref = p;
    return hsk_get32(ref->hash) ^ ref->offset * 0x9E3779B1u ^ ref->member * 0x85EBCA6Bu;
}
static gboolean ref_equal(gconstpointer a, gconstpointer b)
{
    return memcmp(a, b, sizeof(struct hsk_map_ref)) == 0;
}

struct hsk_check_result *hsk_doc_check(const char *path, bool (*progress)(void *, double),
                                       void *opaque, GError **error)
{
    struct hsk_doc *doc = hsk_doc_open(path, true, NULL, error);
    if (doc == NULL)
        return NULL;
    HSK_AUTO(hsk_check_result, r) = g_new0(struct hsk_check_result, 1);
    *r = (struct hsk_check_result){
        .whole = true,
        .problems = g_ptr_array_new_with_free_func(g_free),
        .versions = g_array_new(FALSE, FALSE, sizeof(struct hsk_checked_version))};
    g_array_set_clear_func(r->versions, checked_version_clear);
    struct check c = {.doc = doc,
                      .r = r,
                      .progress = progress,
                      .opaque = opaque,
                      .good = g_hash_table_new_full(ref_hash, ref_equal, g_free, NULL),
                      .bad_frames =
                          g_hash_table_new_full(g_int64_hash, g_int64_equal, g_free, NULL),
                      .bad_segments = g_hash_table_new(NULL, NULL)};
    for (guint i = 0; i < doc->root->entries->len; i++) {
        const struct hsk_root_entry *e = g_ptr_array_index(doc->root->entries, i);
        struct hsk_member m;
        if (hsk_carrier_member(doc->base, e->name, &m, NULL))
            r->bytes += m.size;
    }
    check_all(&c);
    g_hash_table_unref(c.good);
    g_hash_table_unref(c.bad_frames);
    g_hash_table_unref(c.bad_segments);
    hsk_doc_close(doc);
    if (c.stopped) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_FAILED, "checking %s was stopped", path);
        return NULL;
    }
    return g_steal_pointer(&r);
}

bool hsk_doc_verify(const char *path, bool (*progress)(void *, double), void *opaque,
                    GError **error)
{
    HSK_AUTO(hsk_check_result, r) = hsk_doc_check(path, progress, opaque, error);
    if (r == NULL || r->whole)
        return r != NULL;
    const char *what = r->problems->len > 0 ? g_ptr_array_index(r->problems, 0) : r->present;
    for (guint i = 0; what == NULL; i++)
        what = g_array_index(r->versions, struct hsk_checked_version, i).problem;
    g_set_error(error, HSK_ERROR, HSK_ERROR_DAMAGED, "%s", what);
    return false;
}
