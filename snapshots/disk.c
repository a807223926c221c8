/* SPDX-License-Identifier: MIT */
/*
 * Live disks: the newest copy of a page is where the live branch's layers say, else where its page
 * map says (branch.c).
 *
 * Threads: everything here holds disk_lock while it looks at branches or writes; the commit thread
 * holds it only to swap. Pages are read and decoded without it.
 */
#include <errno.h>

#include "doc.h"

enum { MAX_RUN = 64 }; /* pages that are looked up at once */

char *hsk_disk_object_name(const struct hsk_manifest_disk *d)
{
    return g_strdup_printf("disk.%s", d->id);
}

static struct hsk_pagemap *base(const struct hsk_disk *d)
{
    return g_ptr_array_index(hsk_branch_live(d->doc)->maps, d->index);
}

static uint64_t find_loc(const struct hsk_disk *d, uint64_t page)
{
    return hsk_branch_loc(hsk_branch_live(d->doc), d->index, page);
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

/* Where a page is: in the log, else in a frame. */
struct place {
    uint64_t loc, entry;
};

static bool locate(struct hsk_disk *d, uint64_t page, struct place *p, GError **error)
{
    *p = (struct place){.loc = find_loc(d, page)};
    return p->loc != 0 || hsk_pagemap_get(base(d), page, &p->entry, error);
}

/* 0 or a negative errno, with error if something is damaged. */
static int fetch(struct hsk_disk *d, const struct place *p, void *dst, GError **error)
{
    if (p->loc != 0 && p->loc != HSK_LOC_HOLE)
        return hsk_log_read(d->doc->log, p->loc, dst);
    return hsk_content_page(d->doc->content, p->entry, dst, error) ? 0 : -EIO;
}

/* Under the lock. */
static int read_page(struct hsk_disk *d, uint64_t page, void *dst)
{
    GError *e = NULL;
    struct place p;
    int r = locate(d, page, &p, &e) ? fetch(d, &p, dst, &e) : -EIO;
    return e != NULL ? damaged(d, e) : r;
}

static int read_pages(struct hsk_disk *d, uint64_t page, unsigned n, uint8_t *dst)
{
    struct place places[MAX_RUN];
    g_autoptr(GError) e = NULL;
    bool ok = true;
    g_mutex_lock(&d->doc->disk_lock);
    for (unsigned i = 0; i < n && ok; i++)
        ok = locate(d, page + i, &places[i], &e);
    g_mutex_unlock(&d->doc->disk_lock);
    for (unsigned i = 0; i < n && ok; i++)
        ok = fetch(d, &places[i], dst + (size_t)i * HSK_PAGE_SIZE, &e) == 0;
    if (ok)
        return 0;
    /* A commit may have taken away what was found; with the lock held it cannot. */
    G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&d->doc->disk_lock);
    for (unsigned i = 0; i < n; i++) {
        int r = read_page(d, page + i, dst + (size_t)i * HSK_PAGE_SIZE);
        if (r < 0)
            return r;
    }
    return 0;
}

int hsk_disk_read(struct hsk_disk *d, uint64_t off, void *buf, size_t len)
{
    uint8_t *out = buf;
    if (!hsk_range_ok(off, len, d->npages * HSK_PAGE_SIZE))
        return -EINVAL;
    while (len > 0) {
        uint8_t page[HSK_PAGE_SIZE];
        size_t in = off % HSK_PAGE_SIZE, n = MIN(len, HSK_PAGE_SIZE - in);
        bool whole = n == HSK_PAGE_SIZE;
        unsigned run = whole ? (unsigned)MIN(len / HSK_PAGE_SIZE, MAX_RUN) : 1;
        int r = read_pages(d, off / HSK_PAGE_SIZE, run, whole ? out : page);
        if (r < 0)
            return r;
        if (!whole)
            memcpy(out, page + in, n);
        n = whole ? (size_t)run * HSK_PAGE_SIZE : n;
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
            hsk_branch_put(hsk_branch_live(d->doc), d->index, page + i,
                           loc + (uint64_t)i * (HSK_PAGE_SIZE / 64));
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

static int discard_pages(struct hsk_disk *d, uint64_t page, uint64_t end, GError **error)
{
    for (; page < end; page++) {
        uint64_t loc = find_loc(d, page), entry = 0;
        if (loc == 0 && !hsk_pagemap_get(base(d), page, &entry, error))
            return -EIO;
        if (loc == 0 ? entry != 0 : loc != HSK_LOC_HOLE)
            hsk_branch_put(hsk_branch_live(d->doc), d->index, page, HSK_LOC_HOLE);
    }
    return 0;
}

/* Marks as holes the pages that are none yet: discarding a large empty disk costs neither memory
 * nor time. */
static bool apply_discard(struct hsk_disk *d, uint64_t page, uint64_t n, GError **error)
{
    for (uint64_t end = page + n, next; page < end; page = next) {
        bool has = true;
        next = MIN(end, (page / HSK_MAP_FANOUT + 1) * HSK_MAP_FANOUT);
        if (!hsk_branch_may_have(hsk_branch_live(d->doc), d->index, page) &&
            !hsk_pagemap_has_leaf(base(d), page, &has, error))
            return false;
        if (has && discard_pages(d, page, next, error) < 0)
            return false;
    }
    return true;
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
        GError *e = NULL;
        if (r == 0 && !apply_discard(d, page, n, &e))
            r = damaged(d, e);
        if (r < 0)
            return r;
        page += n;
    }
    return 0;
}

int hsk_disk_flush(struct hsk_disk *d)
{
    G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&d->doc->disk_lock);
    int r = hsk_log_flush(d->doc->log);
    if (hsk_log_error(d->doc->log) != 0 && d->error == NULL)
        d->error = g_strdup("this computer's disk failed to keep what was written last; end the "
                            "machine with \"hva stop --force\" and start it again, as after a "
                            "power cut");
    return r;
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

struct replaying {
    struct hsk_doc *doc;
    GError *error;      /* why it stopped, if that needs saying */
    GError *unreadable; /* opening must not go on */
};

static bool replay_pages(void *opaque, uint32_t disk, uint64_t page, uint32_t npages, uint64_t loc)
{
    struct replaying *r = opaque;
    struct hsk_doc *doc = r->doc;
    if (disk >= doc->ndisks || !hsk_range_ok(page, npages, doc->disks[disk].npages))
        return false;
    /* Damage below what was discarded is for who reads it. In no case does the log end here. */
    if (loc == HSK_LOC_HOLE) {
        GError *e = NULL;
        if (!apply_discard(&doc->disks[disk], page, npages, &e) && r->unreadable == NULL &&
            !g_error_matches(e, HSK_ERROR, HSK_ERROR_DAMAGED))
            r->unreadable = g_steal_pointer(&e);
        g_clear_error(&e);
        return true;
    }
    for (uint32_t i = 0; i < npages; i++)
        hsk_branch_put(hsk_branch_live(doc), disk, page + i,
                       loc + (uint64_t)i * (HSK_PAGE_SIZE / 64));
    return true;
}

static bool replay_go_on(void *opaque, const uint8_t raw[HSK_LOG_ID_BYTES], uint32_t number,
                         uint64_t seq)
{
    struct replaying *r = opaque;
    char id[2 * HSK_LOG_ID_BYTES + 1];
    hsk_hex(id, raw, HSK_LOG_ID_BYTES);
    return hsk_branch_replay_go_on(r->doc, id, number, seq, &r->error);
}

bool hsk_disks_open(struct hsk_doc *doc, char **orphan, GError **error)
{
    const struct hsk_manifest *m = doc->manifest;
    doc->disks = g_new0(struct hsk_disk, m->ndisks);
    for (unsigned i = 0; i < m->ndisks; i++) {
        doc->disks[i] = (struct hsk_disk){.doc = doc,
                                          .index = i,
                                          .object = hsk_disk_object_name(&m->disks[i]),
                                          .npages = m->disks[i].size_bytes / HSK_PAGE_SIZE};
        doc->ndisks++;
    }
    if (!hsk_branches_open(doc, error))
        return false;
    doc->log =
        hsk_log_new(doc->io, doc->dirfd, doc->path, doc->root->log_number, doc->root->log_seq);
    struct replaying r = {.doc = doc};
    struct hsk_log_replay replay = {replay_pages, replay_go_on, &r};
    bool ok = hsk_log_recover(doc->log, &replay, error);
    if (r.error != NULL && orphan != NULL && *orphan == NULL)
        *orphan = g_strdup_printf("%s.", r.error->message);
    g_clear_error(&r.error);
    if (ok && r.unreadable != NULL) {
        g_propagate_error(error, g_steal_pointer(&r.unreadable));
        return false;
    }
    g_clear_error(&r.unreadable);
    return ok;
}

void hsk_disks_close(struct hsk_doc *doc)
{
    hsk_log_free(doc->log);
    hsk_branches_close(doc);
    for (unsigned i = 0; i < doc->ndisks; i++) {
        g_free(doc->disks[i].object);
        g_free(doc->disks[i].error);
    }
    g_free(doc->disks);
}
