/* SPDX-License-Identifier: MIT */
/*
 * Branches: what the live disks consist of, and what the next version's changes are relative to.
 *
 * A branch is the course of the disks since one version: page maps, and above them layers that say
 * where in the log the newest copy of a page is. A take freezes the newest layer and begins
 * another, so it costs nothing while the machine stands still; its commit folds the frozen layers
 * into page maps. Going on from another version begins a new branch, by a record in the log and
 * nothing else; the old one stays until the takes that were begun on it are committed. ROOT speaks
 * of one branch; whoever opens it replays the log and comes to the last.
 *
 * Threads: everything here holds disk_lock for a short time; frozen layers are read without it.
 */
#include <appliance-format/io.h>

#include "doc.h"

enum { CHUNK_PAGES = 512 };

struct chunk {
    uint64_t loc[CHUNK_PAGES]; /* 0 = not here */
};

struct hsk_layer {
    bool changed;
    GHashTable **disks; /* per disk: page / CHUNK_PAGES -> struct chunk */
    unsigned ndisks;
};

/* The log has a record that goes on from this version, at the end of the file before number. */
struct promise {
    uint32_t number;
    char id[33];
};

static struct hsk_layer *layer_new(unsigned ndisks)
{
    struct hsk_layer *l = g_new0(struct hsk_layer, 1);
    l->ndisks = ndisks;
    l->disks = g_new0(GHashTable *, ndisks);
    for (unsigned i = 0; i < ndisks; i++)
        l->disks[i] = g_hash_table_new_full(NULL, NULL, NULL, g_free);
    return l;
}

static void layer_free(gpointer p)
{
    struct hsk_layer *l = p;
    for (unsigned i = 0; i < l->ndisks; i++)
        g_hash_table_unref(l->disks[i]);
    g_free(l->disks);
    g_free(l);
}

static struct hsk_layer *top(const struct hsk_branch *b)
{
    return g_ptr_array_index(b->layers, b->layers->len - 1);
}

void hsk_branch_put(struct hsk_branch *b, unsigned disk, uint64_t page, uint64_t loc)
{
    struct hsk_layer *l = top(b);
    gpointer key = GSIZE_TO_POINTER(page / CHUNK_PAGES);
    struct chunk *c = g_hash_table_lookup(l->disks[disk], key);
    if (c == NULL) {
        c = g_new0(struct chunk, 1);
        g_hash_table_insert(l->disks[disk], key, c);
    }
    c->loc[page % CHUNK_PAGES] = loc;
    l->changed = true;
}

uint64_t hsk_branch_loc(const struct hsk_branch *b, unsigned disk, uint64_t page)
{
    uint64_t loc = 0;
    for (guint i = b->layers->len; i-- > 0 && loc == 0;) {
        const struct hsk_layer *l = g_ptr_array_index(b->layers, i);
        const struct chunk *c =
            g_hash_table_lookup(l->disks[disk], GSIZE_TO_POINTER(page / CHUNK_PAGES));
        loc = c == NULL ? 0 : c->loc[page % CHUNK_PAGES];
    }
    return loc;
}

bool hsk_branch_may_have(const struct hsk_branch *b, unsigned disk, uint64_t page)
{
    for (guint i = 0; i < b->layers->len; i++) {
        const struct hsk_layer *l = g_ptr_array_index(b->layers, i);
        if (g_hash_table_contains(l->disks[disk], GSIZE_TO_POINTER(page / CHUNK_PAGES)))
            return true;
    }
    return false;
}

/* ---- the list of them ---- */

struct hsk_branch *hsk_branch_live(const struct hsk_doc *doc)
{
    return g_ptr_array_index(doc->branches, doc->branches->len - 1);
}

struct hsk_pagemap *hsk_object_map(struct hsk_doc *doc, const struct hsk_object *o)
{
    struct hsk_map_source source = hsk_content_maps(doc->content);
    return hsk_pagemap_new(&source, &o->root, o->size_bytes / HSK_PAGE_SIZE);
}

static GPtrArray *disk_maps(struct hsk_doc *doc, const GArray *present)
{
    GPtrArray *maps = g_ptr_array_new_with_free_func((GDestroyNotify)hsk_pagemap_free);
    for (unsigned i = 0; i < doc->ndisks; i++)
        g_ptr_array_add(maps, hsk_object_map(doc, hsk_objects_find(present, doc->disks[i].object)));
    return maps;
}

static void branch_free(struct hsk_branch *b)
{
    g_ptr_array_unref(b->layers);
    g_ptr_array_unref(b->maps);
    g_array_unref(b->present);
    g_free(b);
}

/* A branch that only a take point still knows dies with it. */
static void leave(struct hsk_doc *doc, guint index)
{
    struct hsk_branch *b = g_ptr_array_steal_index(doc->branches, index);
    b->gone = true;
    if (b->points == 0)
        branch_free(b);
}

static void begin_branch(struct hsk_doc *doc, const char *current, const GArray *present,
                         uint32_t number, uint64_t seq)
{
    struct hsk_branch *b = g_new0(struct hsk_branch, 1);
    g_strlcpy(b->current, current, sizeof(b->current));
    b->present = g_array_copy((GArray *)present);
    b->maps = disk_maps(doc, present);
    b->layers = g_ptr_array_new_with_free_func(layer_free);
    g_ptr_array_add(b->layers, layer_new(doc->ndisks));
    b->log_number = number;
    b->log_seq = seq;
    g_ptr_array_add(doc->branches, b);
}

/* Memory counts from the current version: nothing runs yet, and nothing else will be resumed. */
static GArray *present_at_opening(struct hsk_doc *doc)
{
    GArray *present = g_array_new(FALSE, TRUE, sizeof(struct hsk_object));
    const struct hsk_record *current = hsk_doc_find(doc, doc->root->current);
    for (guint i = 0; i < doc->root->present->len; i++) {
        const struct hsk_object *o = &g_array_index(doc->root->present, struct hsk_object, i);
        if (g_str_has_prefix(o->name, "disk."))
            hsk_objects_set(present, o);
    }
    for (guint i = 0; current != NULL && i < current->objects->len; i++) {
        const struct hsk_object *o = &g_array_index(current->objects, struct hsk_object, i);
        if (!g_str_has_prefix(o->name, "disk."))
            hsk_objects_set(present, o);
    }
    return present;
}

/* Does that version have every disk of the machine? */
static bool has_disks(struct hsk_doc *doc, const char *id, const GArray *objects, GError **error)
{
    for (unsigned i = 0; i < doc->ndisks; i++) {
        const struct hsk_disk *d = &doc->disks[i];
        const struct hsk_object *o = hsk_objects_find(objects, d->object);
        if (o == NULL || o->size_bytes != d->npages * HSK_PAGE_SIZE)
            return hsk_damaged(error, doc->path,
                               "version %s does not have the machine's disk \"%s\"", id,
                               d->object + 5);
    }
    return true;
}

bool hsk_branches_open(struct hsk_doc *doc, GError **error)
{
    doc->branches = g_ptr_array_new();
    doc->promises = g_array_new(FALSE, FALSE, sizeof(struct promise));
    for (unsigned i = 0; i < doc->ndisks; i++) {
        const struct hsk_object *o = hsk_root_present(doc->root, doc->disks[i].object);
        if (o == NULL || o->size_bytes != doc->disks[i].npages * HSK_PAGE_SIZE)
            return hsk_damaged(error, doc->path, "its ROOT and its manifest disagree about disk %s",
                               doc->disks[i].object + 5);
    }
    g_autoptr(GArray) present = present_at_opening(doc);
    begin_branch(doc, doc->root->current, present, doc->root->log_number, doc->root->log_seq);
    return true;
}

void hsk_branches_close(struct hsk_doc *doc)
{
    while (doc->branches != NULL && doc->branches->len > 0)
        leave(doc, 0);
    g_clear_pointer(&doc->branches, g_ptr_array_unref);
    g_clear_pointer(&doc->promises, g_array_unref);
}

/* ---- going on from a version ---- */

static void go_on(struct hsk_doc *doc, const char *id, const GArray *objects, uint32_t number,
                  uint64_t seq)
{
    struct promise p = {.number = number};
    g_strlcpy(p.id, id, sizeof(p.id));
    g_array_append_val(doc->promises, p);
    begin_branch(doc, id, objects, number, seq);
    if (((struct hsk_branch *)g_ptr_array_index(doc->branches, doc->branches->len - 2))->points ==
        0)
        leave(doc, doc->branches->len - 2);
}

bool hsk_branch_replay_go_on(struct hsk_doc *doc, const char *id, uint32_t number, uint64_t seq,
                             GError **error)
{
    const struct hsk_record *r = hsk_doc_find(doc, id);
    if (r == NULL)
        return hsk_damaged(error, doc->path,
                           "its log goes on from version %s, which is not there; what was written "
                           "to the disks after that is left out",
                           id);
    if (!has_disks(doc, id, r->objects, error))
        return false;
    go_on(doc, id, r->objects, number, seq);
    return true;
}

bool hsk_disks_switch(struct hsk_doc *doc, struct hsk_version *v, GError **error)
{
    const char *id = v->id;
    uint8_t raw[HSK_LOG_ID_BYTES];
    uint32_t number;
    uint64_t seq;
    hsk_assert(!doc->readonly && hsk_unhex(id, raw, sizeof(raw)));
    G_GNUC_UNUSED g_autoptr(GMutexLocker) list = g_mutex_locker_new(&doc->lock);
    const struct hsk_record *r = hsk_doc_find(doc, id);
    if (r == NULL || r->leaving) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_NOT_FOUND, "%s has no version \"%s\"", doc->path,
                    id);
        return false;
    }
    if (!has_disks(doc, id, r->objects, error))
        return false;
    G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&doc->disk_lock);
    int res = hsk_log_go_on(doc->log, raw, &number, &seq);
    if (res < 0)
        return hsk_io_error(error, res, "write the log of %s", doc->path);
    go_on(doc, id, r->objects, number, seq);
    return true;
}

bool hsk_branch_promised(struct hsk_doc *doc, const struct hsk_root *root, const char *id)
{
    G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&doc->disk_lock);
    for (guint i = 0; i < doc->promises->len; i++) {
        const struct promise *p = &g_array_index(doc->promises, struct promise, i);
        if (p->number > root->log_number && strcmp(p->id, id) == 0)
            return true;
    }
    return false;
}

/* ---- taking ---- */

struct hsk_take_point *hsk_take_begin(struct hsk_doc *doc)
{
    hsk_assert(!doc->readonly);
    struct hsk_take_point *p = g_new0(struct hsk_take_point, 1);
    G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&doc->disk_lock);
    p->doc = doc;
    p->branch = hsk_branch_live(doc);
    p->branch->points++;
    p->layer = top(p->branch);
    hsk_log_rotate(doc->log, &p->log_number, &p->log_seq);
    g_ptr_array_add(p->branch->layers, layer_new(doc->ndisks));
    return p;
}

void hsk_take_abandon(struct hsk_take_point *p)
{
    struct hsk_doc *doc = p->doc;
    struct hsk_branch *b = p->branch;
    G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&doc->disk_lock);
    guint i;
    /* The layer of the live branch stays where it is, below the newer ones: the next commit folds
     * it. */
    b->points--;
    if (b->gone && b->points == 0)
        branch_free(b);
    else if (b->points == 0 && b != hsk_branch_live(doc) && g_ptr_array_find(doc->branches, b, &i))
        leave(doc, i);
    g_free(p);
}

bool hsk_point_base(const struct hsk_take_point *p, GArray **present, char current[33])
{
    G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&p->doc->disk_lock);
    if (p->branch->gone || !g_ptr_array_find(p->branch->layers, p->layer, NULL))
        return false;
    *present = g_array_copy(p->branch->present);
    g_strlcpy(current, p->branch->current, 33);
    return true;
}

static gint by_page(gconstpointer a, gconstpointer b)
{
    const struct hsk_changed_page *x = a, *y = b;
    return (x->page > y->page) - (x->page < y->page);
}

GArray *hsk_disk_changes(const struct hsk_take_point *p, unsigned disk)
{
    GArray *out = g_array_new(FALSE, FALSE, sizeof(struct hsk_changed_page));
    g_autoptr(GHashTable) newest = g_hash_table_new_full(NULL, NULL, NULL, NULL);
    GHashTableIter it;
    gpointer key, value;
    /* Frozen layers do not change any more; only the list of them needs the lock. */
    g_mutex_lock(&p->doc->disk_lock);
    g_autoptr(GPtrArray) layers = g_ptr_array_new();
    for (guint i = 0; i < p->branch->layers->len; i++) {
        g_ptr_array_add(layers, g_ptr_array_index(p->branch->layers, i));
        if (g_ptr_array_index(p->branch->layers, i) == p->layer)
            break;
    }
    g_mutex_unlock(&p->doc->disk_lock);
    for (guint i = layers->len; i-- > 0;) {
        const struct hsk_layer *l = g_ptr_array_index(layers, i);
        g_hash_table_iter_init(&it, l->disks[disk]);
        while (g_hash_table_iter_next(&it, &key, &value)) {
            const struct chunk *c = value;
            for (unsigned k = 0; k < CHUNK_PAGES; k++) {
                struct hsk_changed_page cp = {GPOINTER_TO_SIZE(key) * CHUNK_PAGES + k, c->loc[k]};
                if (cp.loc != 0 &&
                    (layers->len == 1 || g_hash_table_add(newest, GSIZE_TO_POINTER(cp.page + 1))))
                    g_array_append_val(out, cp);
            }
        }
    }
    g_array_sort(out, by_page);
    return out;
}

/* ---- ROOT ---- */

static void set_root(struct hsk_root *root, const char *current, const GArray *present,
                     uint32_t number, uint64_t seq)
{
    g_strlcpy(root->current, current, sizeof(root->current));
    g_array_set_size(root->present, 0);
    g_array_append_vals(root->present, present->data, present->len);
    root->log_number = number;
    root->log_seq = seq;
}

void hsk_branch_root(const struct hsk_take_point *p, const GArray *present, const char *current,
                     struct hsk_root *root)
{
    struct hsk_doc *doc = p->doc;
    G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&doc->disk_lock);
    guint i;
    hsk_assert(g_ptr_array_find(doc->branches, p->branch, &i));
    if (p->branch->points > 1 || i + 1 == doc->branches->len) {
        set_root(root, current, present, p->log_number, p->log_seq);
        return;
    }
    /* The last take of a branch that the disks have left: nobody needs to replay the way there. */
    const struct hsk_branch *next = g_ptr_array_index(doc->branches, i + 1);
    set_root(root, next->current, next->present, next->log_number, next->log_seq);
}

/* The log before ROOT's line is not needed any more. */
static GArray *forget_log(struct hsk_doc *doc)
{
    for (guint i = doc->promises->len; i-- > 0;) {
        if (g_array_index(doc->promises, struct promise, i).number <= doc->root->log_number)
            g_array_remove_index(doc->promises, i);
    }
    return hsk_log_detach_before(doc->log, doc->root->log_number);
}

void hsk_branch_advance(const struct hsk_take_point *p, const GArray *present, const char *current)
{
    struct hsk_doc *doc = p->doc;
    struct hsk_branch *b = p->branch;
    g_autoptr(GPtrArray) folded = g_ptr_array_new_with_free_func(layer_free);
    g_autoptr(GPtrArray) maps = disk_maps(doc, present);
    g_mutex_lock(&doc->disk_lock);
    while (g_ptr_array_index(doc->branches, 0) != b)
        leave(doc, 0);
    g_strlcpy(b->current, current, sizeof(b->current));
    g_array_set_size(b->present, 0);
    g_array_append_vals(b->present, present->data, present->len);
    GPtrArray *old = b->maps;
    b->maps = g_steal_pointer(&maps);
    while (folded->len == 0 || g_ptr_array_index(folded, folded->len - 1) != p->layer)
        g_ptr_array_add(folded, g_ptr_array_steal_index(b->layers, 0));
    GArray *files = forget_log(doc);
    g_mutex_unlock(&doc->disk_lock);
    g_ptr_array_unref(old);
    hsk_log_discard(doc->log, files);
}

bool hsk_branches_settle(struct hsk_doc *doc, struct hsk_root *root)
{
    G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&doc->disk_lock);
    const struct hsk_branch *live = hsk_branch_live(doc);
    if (doc->branches->len > 1)
        return false;
    if (live->log_number > root->log_number)
        set_root(root, live->current, live->present, live->log_number, live->log_seq);
    return true;
}

void hsk_branches_settled(struct hsk_doc *doc)
{
    g_mutex_lock(&doc->disk_lock);
    GArray *files = forget_log(doc);
    g_mutex_unlock(&doc->disk_lock);
    hsk_log_discard(doc->log, files);
}

GPtrArray *hsk_branches_memory(struct hsk_doc *doc)
{
    GPtrArray *lists = g_ptr_array_new_with_free_func((GDestroyNotify)g_array_unref);
    G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&doc->disk_lock);
    for (guint i = 0; i < doc->branches->len; i++) {
        const struct hsk_branch *b = g_ptr_array_index(doc->branches, i);
        GArray *memory = g_array_new(FALSE, FALSE, sizeof(struct hsk_object));
        for (guint k = 0; k < b->present->len; k++) {
            const struct hsk_object *o = &g_array_index(b->present, struct hsk_object, k);
            if (!g_str_has_prefix(o->name, "disk."))
                g_array_append_vals(memory, o, 1);
        }
        g_ptr_array_add(lists, memory);
    }
    return lists;
}

void hsk_branches_move(struct hsk_doc *doc, void (*move)(void *opaque, struct hsk_object *o),
                       void *opaque)
{
    g_autoptr(GPtrArray) old = g_ptr_array_new_with_free_func((GDestroyNotify)g_ptr_array_unref);
    G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&doc->disk_lock);
    for (guint i = 0; i < doc->branches->len; i++) {
        struct hsk_branch *b = g_ptr_array_index(doc->branches, i);
        for (guint k = 0; k < b->present->len; k++)
            move(opaque, &g_array_index(b->present, struct hsk_object, k));
        g_ptr_array_add(old, b->maps);
        b->maps = disk_maps(doc, b->present);
    }
}

void hsk_branches_rename_current(struct hsk_doc *doc, const char *from, const char *to)
{
    G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&doc->disk_lock);
    for (guint i = 0; i < doc->branches->len; i++) {
        struct hsk_branch *b = g_ptr_array_index(doc->branches, i);
        if (strcmp(b->current, from) == 0)
            g_strlcpy(b->current, to, sizeof(b->current));
    }
}

const char *hsk_doc_current(struct hsk_doc *doc)
{
    if (doc->branches == NULL)
        return doc->root->current;
    G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&doc->disk_lock);
    g_strlcpy(doc->current, hsk_branch_live(doc)->current, sizeof(doc->current));
    return doc->current;
}

bool hsk_doc_live_changed(struct hsk_doc *doc)
{
    g_autofree char *id = g_strdup(hsk_doc_current(doc));
    G_GNUC_UNUSED g_autoptr(GMutexLocker) list = g_mutex_locker_new(&doc->lock);
    G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&doc->disk_lock);
    const struct hsk_branch *b = doc->branches == NULL ? NULL : hsk_branch_live(doc);
    const GArray *present = b == NULL ? doc->root->present : b->present;
    const struct hsk_record *r = hsk_doc_find(doc, id);
    for (guint i = 0; b != NULL && i < b->layers->len; i++) {
        if (((const struct hsk_layer *)g_ptr_array_index(b->layers, i))->changed)
            return true;
    }
    for (guint i = 0; r != NULL && i < present->len; i++) {
        const struct hsk_object *now = &g_array_index(present, struct hsk_object, i);
        const struct hsk_object *then = hsk_objects_find(r->objects, now->name);
        if (g_str_has_prefix(now->name, "disk.") &&
            (then == NULL || memcmp(&then->root, &now->root, sizeof(now->root)) != 0))
            return true;
    }
    return false;
}
