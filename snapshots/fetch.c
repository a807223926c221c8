/* SPDX-License-Identifier: MIT */
/*
 * An object frame by frame (fetch.h), and on top of it hsk_version_fill; and hsk_version_pick,
 * which does not look at all of the map.
 *
 * The page map is read once and turned round: from pages that name their frame to frames that name
 * their pages, as runs, so that a frame's neighbours go into place at once. Frames are kept in
 * stored order, which is the order to read them in when nobody waits. Any thread after new.
 */
#include <snapshots/fetch.h>

#include "doc.h"

struct hsk_fetch {
    struct hsk_doc *doc;
    uint64_t npages;
    uint32_t *frame_of; /* per page of the object: frame + 1, 0 = zeros */
    GArray *runs;       /* struct hsk_fetch_run, by entry */
    GArray *first;      /* uint32_t: a frame's first run; one more at the end */
};

static struct hsk_fetch_run *run_at(const struct hsk_fetch *f, size_t i)
{
    return &g_array_index(f->runs, struct hsk_fetch_run, i);
}

/* A page of the map, in ascending order: goes on with the last run or begins one. */
static void add_page(GArray *runs, uint64_t page, uint64_t entry)
{
    struct hsk_fetch_run *last =
        runs->len ? &g_array_index(runs, struct hsk_fetch_run, runs->len - 1) : NULL;
    if (last != NULL && last->page + last->count == page && last->entry + last->count == entry &&
        hsk_entry_slot(entry) != 0) {
        last->count++;
        return;
    }
    struct hsk_fetch_run r = {.entry = entry, .page = (uint32_t)page, .count = 1};
    g_array_append_val(runs, r);
}

static bool collect(void *opaque, uint64_t page, uint64_t entry, GError **error)
{
    struct hsk_fetch *f = opaque;
    add_page(f->runs, page, entry);
    return true;
}

static gint by_entry(gconstpointer a, gconstpointer b)
{
    const struct hsk_fetch_run *x = a, *y = b;
    return x->entry != y->entry ? (x->entry > y->entry ? 1 : -1)
                                : (x->page > y->page) - (x->page < y->page);
}

static void group(struct hsk_fetch *f)
{
    g_array_sort(f->runs, by_entry);
    for (guint i = 0; i < f->runs->len; i++) {
        const struct hsk_fetch_run *r = run_at(f, i);
        if (i == 0 || run_at(f, i - 1)->entry >> 8 != r->entry >> 8)
            g_array_append_val(f->first, i);
        for (uint32_t k = 0; k < r->count; k++)
            f->frame_of[r->page + k] = f->first->len;
    }
    g_array_append_val(f->first, f->runs->len);
}

struct hsk_fetch *hsk_fetch_new(struct hsk_version *v, const char *object, GError **error)
{
    const struct hsk_object *o = hsk_version_object(v, object, error);
    if (o == NULL)
        return NULL;
    struct hsk_fetch *f = g_new0(struct hsk_fetch, 1);
    f->doc = v->doc;
    f->npages = o->size_bytes / HSK_PAGE_SIZE;
    f->runs = g_array_new(FALSE, FALSE, sizeof(struct hsk_fetch_run));
    f->first = g_array_new(FALSE, FALSE, sizeof(guint));
    f->frame_of = f->npages > UINT32_MAX ? NULL : g_try_new0(uint32_t, f->npages);
    if (f->frame_of == NULL) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_FAILED,
                    "%s: \"%s\" is too large for this computer's memory", f->doc->path, object);
        hsk_fetch_free(f);
        return NULL;
    }
    struct hsk_map_source source = hsk_content_maps(f->doc->content);
    struct hsk_map_visitor visitor = {.page = collect, .opaque = f};
    if (!hsk_pagemap_walk(&source, &o->root, f->npages, &visitor, error)) {
        hsk_fetch_free(f);
        return NULL;
    }
    group(f);
    return f;
}

void hsk_fetch_free(struct hsk_fetch *f)
{
    if (f == NULL)
        return;
    g_array_unref(f->runs);
    g_array_unref(f->first);
    g_free(f->frame_of);
    g_free(f);
}

uint64_t hsk_fetch_pages(const struct hsk_fetch *f)
{
    return f->npages;
}

uint32_t hsk_fetch_frames(const struct hsk_fetch *f)
{
    return f->first->len - 1;
}

int64_t hsk_fetch_frame_of(const struct hsk_fetch *f, uint64_t page)
{
    return page < f->npages ? (int64_t)f->frame_of[page] - 1 : -1;
}

const struct hsk_fetch_run *hsk_fetch_runs(const struct hsk_fetch *f, uint32_t frame, size_t *n)
{
    guint from = g_array_index(f->first, guint, frame);
    *n = g_array_index(f->first, guint, frame + 1) - from;
    return run_at(f, from);
}

bool hsk_fetch_decode(struct hsk_fetch *f, uint32_t frame, uint8_t *buf, GError **error)
{
    _Static_assert(HSK_FETCH_BYTES == HSK_FRAME_MAX_BYTES, "any frame fits");
    size_t n;
    const struct hsk_fetch_run *runs = hsk_fetch_runs(f, frame, &n);
    uint32_t index = hsk_entry_frame(runs[0].entry);
    HSK_AUTO(hsk_segment, s) =
        hsk_content_segment(f->doc->content, hsk_entry_segment(runs[0].entry), error);
    if (s == NULL)
        return false;
    const struct hsk_frame *at = hsk_segment_frame(s, index);
    size_t raw = at == NULL || at->rawsize > HSK_FETCH_BYTES ? 0 : at->rawsize;
    for (size_t i = 0; i < n; i++) {
        if (!hsk_range_ok((uint64_t)hsk_entry_slot(runs[i].entry) * HSK_PAGE_SIZE,
                          (uint64_t)runs[i].count * HSK_PAGE_SIZE, raw))
            return hsk_damaged(error, f->doc->path,
                               "a page map points behind the end of a frame in segment %06u",
                               hsk_entry_segment(runs[i].entry));
    }
    return hsk_segment_decode_into(s, index, buf, raw, error);
}

const uint8_t *hsk_fetch_at(const struct hsk_fetch_run *run, const uint8_t *buf)
{
    return buf + (size_t)hsk_entry_slot(run->entry) * HSK_PAGE_SIZE;
}

/* ---- many frames at once ---- */

/* What the threads of one piece of work share. */
struct work {
    bool (*frame)(struct work *w, guint i, uint8_t *buf, GError **error); /* on any thread */
    guint count;
    void *opaque;
    gint next;   /* atomic: the next frame */
    gint failed; /* atomic */
    GMutex lock; /* error */
    GError *error;
};

static gpointer do_frames(gpointer opaque)
{
    struct work *w = opaque;
    g_autofree uint8_t *buf = g_malloc(HSK_FETCH_BYTES);
    GError *error = NULL;
    guint i;
    while (!g_atomic_int_get(&w->failed) && (i = (guint)g_atomic_int_add(&w->next, 1)) < w->count) {
        if (!w->frame(w, i, buf, &error))
            break;
    }
    if (error == NULL)
        return NULL;
    g_atomic_int_set(&w->failed, 1);
    g_mutex_lock(&w->lock);
    if (w->error == NULL)
        w->error = g_steal_pointer(&error);
    g_mutex_unlock(&w->lock);
    g_clear_error(&error);
    return NULL;
}

static bool do_work(struct work *w, GError **error)
{
    enum { MAX_THREADS = 8 };
    GThread *threads[MAX_THREADS];
    unsigned count = MIN(MIN(g_get_num_processors(), MAX_THREADS), w->count / 16 + 1);
    g_mutex_init(&w->lock);
    for (unsigned i = 1; i < count; i++)
        threads[i] = g_thread_try_new("fill", do_frames, w, NULL);
    do_frames(w);
    for (unsigned i = 1; i < count; i++) {
        if (threads[i] != NULL)
            g_thread_join(threads[i]);
    }
    g_mutex_clear(&w->lock);
    if (w->error == NULL)
        return true;
    g_propagate_error(error, w->error);
    return false;
}

struct fill {
    struct hsk_fetch *fetch;
    uint8_t *host;
};

static bool fill_frame(struct work *w, guint i, uint8_t *buf, GError **error)
{
    const struct fill *f = w->opaque;
    size_t n;
    const struct hsk_fetch_run *r = hsk_fetch_runs(f->fetch, i, &n);
    if (!hsk_fetch_decode(f->fetch, i, buf, error))
        return false;
    for (; n > 0; n--, r++)
        memcpy(f->host + (uint64_t)r->page * HSK_PAGE_SIZE, hsk_fetch_at(r, buf),
               (size_t)r->count * HSK_PAGE_SIZE);
    return true;
}

bool hsk_version_fill(struct hsk_version *v, const char *object, void *host, uint64_t size_bytes,
                      GError **error)
{
    if (hsk_version_object_size(v, object) != size_bytes) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_FAILED,
                    "%s: \"%s\" of the version has another size than the machine's", v->doc->path,
                    object);
        return false;
    }
    struct fill f = {.fetch = hsk_fetch_new(v, object, error), .host = host};
    if (f.fetch == NULL)
        return false;
    struct work w = {.frame = fill_frame, .count = hsk_fetch_frames(f.fetch), .opaque = &f};
    bool good = do_work(&w, error);
    hsk_fetch_free(f.fetch);
    return good;
}

/* ---- picking some pages ---- */

struct pick {
    struct hsk_content *content;
    const char *path;
    GArray *runs;  /* struct hsk_fetch_run, by entry */
    GArray *first; /* guint: a frame's first; one more at the end */
    hsk_pages_put_fn put;
    void *opaque;
};

/* The frame may well be in the cache: going back and forth needs it again and again. */
static bool pick_frame(struct work *w, guint i, uint8_t *buf, GError **error)
{
    const struct pick *p = w->opaque;
    const guint from = g_array_index(p->first, guint, i),
                to = g_array_index(p->first, guint, i + 1);
    const struct hsk_fetch_run *r = &g_array_index(p->runs, struct hsk_fetch_run, from);
    const bool zeros = r->entry == 0;
    g_autoptr(GBytes) frame = zeros
                                  ? g_bytes_new_static(memset(buf, 0, HSK_PAGE_SIZE), HSK_PAGE_SIZE)
                                  : hsk_content_frame(p->content, r->entry, error);
    if (frame == NULL)
        return false;
    for (const struct hsk_fetch_run *end = r + (to - from); r < end; r++) {
        const uint64_t off = (uint64_t)hsk_entry_slot(r->entry) * HSK_PAGE_SIZE,
                       bytes = (uint64_t)r->count * HSK_PAGE_SIZE;
        if (!hsk_range_ok(off, bytes, g_bytes_get_size(frame)))
            return hsk_damaged(error, p->path,
                               "a page map points behind the end of a frame in segment %06u",
                               hsk_entry_segment(r->entry));
        if (!p->put(p->opaque, r->page, r->count,
                    (const uint8_t *)g_bytes_get_data(frame, NULL) + off, error))
            return false;
    }
    return true;
}

/* Where the wanted pages are, in the order in which they are stored. */
static bool find_pages(struct pick *p, struct hsk_pagemap *map, const uint8_t *wanted,
                       uint64_t npages, GError **error)
{
    for (uint64_t page = 0; page < npages; page++) {
        uint64_t entry;
        if (wanted[page / 8] == 0) {
            page |= 7;
            continue;
        }
        if ((wanted[page / 8] >> page % 8 & 1) == 0)
            continue;
        if (!hsk_pagemap_get(map, page, &entry, error))
            return false;
        add_page(p->runs, page, entry);
    }
    g_array_sort(p->runs, by_entry);
    for (guint i = 0; i < p->runs->len; i++) {
        const struct hsk_fetch_run *r = &g_array_index(p->runs, struct hsk_fetch_run, i);
        if (i == 0 || r[-1].entry >> 8 != r->entry >> 8)
            g_array_append_val(p->first, i);
    }
    g_array_append_val(p->first, p->runs->len);
    return true;
}

bool hsk_version_pick(struct hsk_version *v, const char *object, const uint8_t *wanted,
                      hsk_pages_put_fn put, void *opaque, GError **error)
{
    const struct hsk_object *o = hsk_version_object(v, object, error);
    struct hsk_pagemap *map = o == NULL ? NULL : hsk_version_map(v, o);
    if (map == NULL)
        return false;
    struct pick p = {.content = v->doc->content,
                     .path = v->doc->path,
                     .runs = g_array_new(FALSE, FALSE, sizeof(struct hsk_fetch_run)),
                     .first = g_array_new(FALSE, FALSE, sizeof(guint)),
                     .put = put,
                     .opaque = opaque};
    bool good = find_pages(&p, map, wanted, o->size_bytes / HSK_PAGE_SIZE, error);
    struct work w = {.frame = pick_frame, .count = good ? p.first->len - 1 : 0, .opaque = &p};
    good = good && do_work(&w, error);
    g_array_unref(p.runs);
    g_array_unref(p.first);
    return good;
}
