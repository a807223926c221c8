/* SPDX-License-Identifier: MIT */
/*
 * Live disks: the newest copy of a page is in the newest layer that has it, else where the
 * present's page map says.
 *
 * A layer maps pages to log records since one take; a take freezes the newest layer and begins
 * another, so it costs nothing while the machine stands still. A commit folds the frozen layers
 * into page maps and takes them away. Threads: everything here holds disk_lock; the commit thread
 * holds it only to swap. Reading a page of the base decodes under it, which only the one disk
 * thread waits for.
 */
#include <errno.h>

#include "doc.h"

enum { CHUNK_PAGES = 512 };

struct chunk {
    uint64_t loc[CHUNK_PAGES]; /* 0 = not here */
};

struct hsk_layer {
    bool changed, frozen;
    GHashTable **disks; /* per disk: page / CHUNK_PAGES -> struct chunk */
    unsigned ndisks;
};

struct hsk_disk {
    struct hsk_doc *doc;
    unsigned index;
    uint64_t npages;
    char *object; /* "disk.root" */
    struct hsk_pagemap *base;
    char *error;
};

char *hsk_disk_object_name(const struct hsk_manifest_disk *d)
{
    return g_strdup_printf("disk.%s", d->id);
}

static struct hsk_layer *layer_new(unsigned ndisks)
{
    struct hsk_layer *l = g_new0(struct hsk_layer, 1);
    l->ndisks = ndisks;
    l->disks = g_new0(GHashTable *, ndisks);
    for (unsigned i = 0; i < ndisks; i++)
        l->disks[i] = g_hash_table_new_full(NULL, NULL, NULL, g_free);
    return l;
}

void hsk_layer_free(gpointer p)
{
    struct hsk_layer *l = p;
    for (unsigned i = 0; i < l->ndisks; i++)
        g_hash_table_unref(l->disks[i]);
    g_free(l->disks);
    g_free(l);
}

static uint64_t layer_get(const struct hsk_layer *l, unsigned disk, uint64_t page)
{
    const struct chunk *c =
        g_hash_table_lookup(l->disks[disk], GSIZE_TO_POINTER(page / CHUNK_PAGES));
    return c == NULL ? 0 : c->loc[page % CHUNK_PAGES];
}

static void layer_set(struct hsk_layer *l, unsigned disk, uint64_t page, uint64_t loc)
{
    gpointer key = GSIZE_TO_POINTER(page / CHUNK_PAGES);
    struct chunk *c = g_hash_table_lookup(l->disks[disk], key);
    if (c == NULL) {
        c = g_new0(struct chunk, 1);
        g_hash_table_insert(l->disks[disk], key, c);
    }
    c->loc[page % CHUNK_PAGES] = loc;
    l->changed = true;
}

static struct hsk_layer *top(struct hsk_doc *doc)
{
    return g_ptr_array_index(doc->layers, doc->layers->len - 1);
}

static uint64_t find_loc(struct hsk_disk *d, uint64_t page)
{
    uint64_t loc = 0;
    for (guint i = d->doc->layers->len; i-- > 0 && loc == 0;)
        loc = layer_get(g_ptr_array_index(d->doc->layers, i), d->index, page);
    return loc;
}

static int damaged(struct hsk_disk *d, GError *e)
{
    if (d->error == NULL) {
        d->error = g_strdup(e->message);
        g_warning("%s", e->message);
    }
    g_error_free(e);
    return -EIO;
}

static int read_page(struct hsk_disk *d, uint64_t page, void *dst)
{
    GError *e = NULL;
    uint64_t loc = find_loc(d, page), entry;
    if (loc == HSK_LOC_HOLE) {
        memset(dst, 0, HSK_PAGE_SIZE);
        return 0;
    }
    if (loc != 0)
        return hsk_log_read(d->doc->log, loc, dst);
    if (!hsk_pagemap_get(d->base, page, &entry, &e) ||
        !hsk_content_page(d->doc->content, entry, dst, &e))
        return damaged(d, e);
    return 0;
}

int hsk_disk_read(struct hsk_disk *d, uint64_t off, void *buf, size_t len)
{
    uint8_t *out = buf;
    if (!hsk_range_ok(off, len, d->npages * HSK_PAGE_SIZE))
        return -EINVAL;
    G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&d->doc->disk_lock);
    while (len > 0) {
        uint8_t page[HSK_PAGE_SIZE];
        size_t in = off % HSK_PAGE_SIZE, n = MIN(len, HSK_PAGE_SIZE - in);
        int r = read_page(d, off / HSK_PAGE_SIZE, n == HSK_PAGE_SIZE ? out : page);
        if (r < 0)
            return r;
        if (n != HSK_PAGE_SIZE)
            memcpy(out, page + in, n);
        off += n;
        out += n;
        len -= n;
    }
    return 0;
}

/* Whole pages. */
static int write_pages(struct hsk_disk *d, uint64_t page, const uint8_t *data, uint64_t n)
{
    while (n > 0) {
        uint32_t k = (uint32_t)MIN(n, HSK_LOG_RECORD_PAGES);
        uint64_t loc;
        int r = hsk_log_append(d->doc->log, d->index, page, k, data, &loc);
        if (r < 0)
            return r;
        for (uint32_t i = 0; i < k; i++)
            layer_set(top(d->doc), d->index, page + i, loc + (uint64_t)i * (HSK_PAGE_SIZE / 64));
        page += k;
        data += (size_t)k * HSK_PAGE_SIZE;
        n -= k;
    }
    return 0;
}

static int write_part(struct hsk_disk *d, uint64_t off, const uint8_t *data, size_t len)
{
    uint8_t page[HSK_PAGE_SIZE];
    int r = read_page(d, off / HSK_PAGE_SIZE, page);
    if (r < 0)
        return r;
    memcpy(page + off % HSK_PAGE_SIZE, data, len);
    return write_pages(d, off / HSK_PAGE_SIZE, page, 1);
}

int hsk_disk_write(struct hsk_disk *d, uint64_t off, const void *buf, size_t len)
{
    const uint8_t *in = buf;
    if (!hsk_range_ok(off, len, d->npages * HSK_PAGE_SIZE))
        return -EINVAL;
    G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&d->doc->disk_lock);
    while (len > 0) {
        size_t skip = off % HSK_PAGE_SIZE, n;
        int r;
        if (skip != 0 || len < HSK_PAGE_SIZE) {
            n = MIN(len, HSK_PAGE_SIZE - skip);
            r = write_part(d, off, in, n);
        } else {
            n = len - len % HSK_PAGE_SIZE;
            r = write_pages(d, off / HSK_PAGE_SIZE, in, n / HSK_PAGE_SIZE);
        }
        if (r < 0)
            return r;
        off += n;
        in += n;
        len -= n;
    }
    return 0;
}

static bool in_any_layer(struct hsk_disk *d, uint64_t page)
{
    for (guint i = 0; i < d->doc->layers->len; i++) {
        const struct hsk_layer *l = g_ptr_array_index(d->doc->layers, i);
        if (g_hash_table_contains(l->disks[d->index], GSIZE_TO_POINTER(page / CHUNK_PAGES)))
            return true;
    }
    return false;
}

static int discard_pages(struct hsk_disk *d, uint64_t page, uint64_t end, GError **error)
{
    for (; page < end; page++) {
        uint64_t loc = find_loc(d, page), entry = 0;
        if (loc == 0 && !hsk_pagemap_get(d->base, page, &entry, error))
            return -EIO;
        if (loc == 0 ? entry != 0 : loc != HSK_LOC_HOLE)
            layer_set(top(d->doc), d->index, page, HSK_LOC_HOLE);
    }
    return 0;
}

/* Marks as holes the pages that are none yet: discarding a large empty disk costs neither memory
 * nor time. */
static int apply_discard(struct hsk_disk *d, uint64_t page, uint64_t n)
{
    GError *e = NULL;
    for (uint64_t end = page + n, next; page < end; page = next) {
        bool has = true;
        next = MIN(end, (page / HSK_MAP_FANOUT + 1) * HSK_MAP_FANOUT);
        if (!in_any_layer(d, page) && !hsk_pagemap_has_leaf(d->base, page, &has, &e))
            return damaged(d, e);
        if (has && discard_pages(d, page, next, &e) < 0)
            return damaged(d, e);
    }
    return 0;
}

int hsk_disk_discard(struct hsk_disk *d, uint64_t off, uint64_t len)
{
    if (!hsk_range_ok(off, len, d->npages * HSK_PAGE_SIZE))
        return -EINVAL;
    G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&d->doc->disk_lock);
    uint64_t page = (off + HSK_PAGE_SIZE - 1) / HSK_PAGE_SIZE, end = (off + len) / HSK_PAGE_SIZE;
    while (page < end) {
        uint32_t n = (uint32_t)MIN(end - page, 1u << 30);
        uint64_t loc;
        int r = hsk_log_append(d->doc->log, d->index, page, n, NULL, &loc);
        if (r == 0)
            r = apply_discard(d, page, n);
        if (r < 0)
            return r;
        page += n;
    }
    return 0;
}

int hsk_disk_flush(struct hsk_disk *d)
{
    G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&d->doc->disk_lock);
    return hsk_log_flush(d->doc->log);
}

const char *hsk_disk_error(struct hsk_disk *d)
{
    return d->error;
}

struct hsk_disk *hsk_doc_disk(struct hsk_doc *doc, unsigned index)
{
    return index < doc->ndisks ? &doc->disks[index] : NULL;
}

/* ---- opening ---- */

static bool replay(void *opaque, uint32_t disk, uint64_t page, uint32_t npages, uint64_t loc)
{
    struct hsk_doc *doc = opaque;
    if (disk >= doc->ndisks || !hsk_range_ok(page, npages, doc->disks[disk].npages))
        return false;
    if (loc == HSK_LOC_HOLE)
        return apply_discard(&doc->disks[disk], page, npages) == 0;
    for (uint32_t i = 0; i < npages; i++)
        layer_set(top(doc), disk, page + i, loc + (uint64_t)i * (HSK_PAGE_SIZE / 64));
    return true;
}

struct hsk_pagemap *hsk_object_map(struct hsk_doc *doc, const struct hsk_object *o)
{
    struct hsk_map_source source = hsk_content_maps(doc->content);
    return hsk_pagemap_new(&source, &o->root, o->size_bytes / HSK_PAGE_SIZE);
}

bool hsk_disks_open(struct hsk_doc *doc, GError **error)
{
    const struct hsk_manifest *m = doc->manifest;
    doc->disks = g_new0(struct hsk_disk, m->ndisks);
    doc->layers = g_ptr_array_new_with_free_func(hsk_layer_free);
    g_ptr_array_add(doc->layers, layer_new(m->ndisks));
    for (unsigned i = 0; i < m->ndisks; i++) {
        struct hsk_disk *d = &doc->disks[i];
        d->doc = doc;
        d->index = i;
        d->object = hsk_disk_object_name(&m->disks[i]);
        d->npages = m->disks[i].size_bytes / HSK_PAGE_SIZE;
        doc->ndisks++;
        const struct hsk_object *o = hsk_root_present(doc->root, d->object);
        if (o == NULL || o->size_bytes != m->disks[i].size_bytes)
            return hsk_damaged(error, doc->path, "its ROOT and its manifest disagree about disk %s",
                               m->disks[i].id);
        d->base = hsk_object_map(doc, o);
    }
    doc->log =
        hsk_log_new(doc->io, doc->dirfd, doc->path, doc->root->log_number, doc->root->log_seq);
    return hsk_log_recover(doc->log, replay, doc, error);
}

void hsk_disks_close(struct hsk_doc *doc)
{
    hsk_log_free(doc->log);
    for (unsigned i = 0; i < doc->ndisks; i++) {
        hsk_pagemap_free(doc->disks[i].base);
        g_free(doc->disks[i].object);
        g_free(doc->disks[i].error);
    }
    g_free(doc->disks);
    if (doc->layers != NULL)
        g_ptr_array_unref(doc->layers);
}

/* ---- taking ---- */

bool hsk_disks_changed(struct hsk_doc *doc)
{
    G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&doc->disk_lock);
    for (guint i = 0; doc->layers != NULL && i < doc->layers->len; i++) {
        if (((const struct hsk_layer *)g_ptr_array_index(doc->layers, i))->changed)
            return true;
    }
    return false;
}

bool hsk_layer_is_live(struct hsk_doc *doc, const struct hsk_layer *layer)
{
    G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&doc->disk_lock);
    return g_ptr_array_find(doc->layers, layer, NULL);
}

struct hsk_take_point *hsk_take_begin(struct hsk_doc *doc)
{
    hsk_assert(!doc->readonly);
    struct hsk_take_point *p = g_new0(struct hsk_take_point, 1);
    G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&doc->disk_lock);
    p->doc = doc;
    p->layer = top(doc);
    p->layer->frozen = true;
    hsk_log_rotate(doc->log, &p->log_number, &p->log_seq);
    g_ptr_array_add(doc->layers, layer_new(doc->ndisks));
    return p;
}

void hsk_take_abandon(struct hsk_take_point *p)
{
    /* The layer stays where it is, below the newer ones: the next commit folds it. */
    g_free(p);
}

static gint by_page(gconstpointer a, gconstpointer b)
{
    const struct hsk_changed_page *x = a, *y = b;
    return (x->page > y->page) - (x->page < y->page);
}

GArray *hsk_disk_changes(const struct hsk_take_point *p, unsigned disk)
{
    struct hsk_doc *doc = p->doc;
    GArray *out = g_array_new(FALSE, FALSE, sizeof(struct hsk_changed_page));
    g_autoptr(GHashTable) newest = g_hash_table_new_full(NULL, NULL, NULL, NULL);
    GHashTableIter it;
    gpointer key, value;
    /* Frozen layers do not change any more; only the list of them needs the lock. */
    g_mutex_lock(&doc->disk_lock);
    g_autoptr(GPtrArray) layers = g_ptr_array_new();
    for (guint i = 0; i < doc->layers->len; i++) {
        g_ptr_array_add(layers, g_ptr_array_index(doc->layers, i));
        if (g_ptr_array_index(doc->layers, i) == p->layer)
            break;
    }
    g_mutex_unlock(&doc->disk_lock);
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

void hsk_disks_rebase(struct hsk_doc *doc, const struct hsk_root *root, struct hsk_layer *last)
{
    G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&doc->disk_lock);
    for (unsigned i = 0; i < doc->ndisks; i++) {
        struct hsk_disk *d = &doc->disks[i];
        hsk_pagemap_free(d->base);
        d->base = hsk_object_map(doc, hsk_root_present(root, d->object));
    }
    bool more = true;
    while (more) {
        more = doc->layers->len > 1 && g_ptr_array_index(doc->layers, 0) != last;
        g_ptr_array_remove_index(doc->layers, 0);
    }
    if (doc->layers->len == 0)
        g_ptr_array_add(doc->layers, layer_new(doc->ndisks));
    hsk_log_drop_before(doc->log, root->log_number);
}
