/* SPDX-License-Identifier: MIT */
/*
 * Segments, map members and decoded frames (content.h). Any thread.
 */
#include "content.h"

#define CACHE_BYTES (64u << 20)
#define MAX_OPEN    256u /* of segments, and of map members */

struct segment_slot {
    char *name;
    struct hsk_segment_id id;
    struct hsk_segment *segment; /* NULL: not opened yet */
    bool gone;                   /* from ROOT */
};

struct cached {
    uint64_t key; /* entry without its slot */
    GBytes *bytes;
};

struct hsk_content {
    char *label;
    GMutex lock; /* guards all below */
    const struct hsk_carrier *dir, *base;
    GHashTable *segments; /* number -> struct segment_slot */
    unsigned open_segments;
    GHashTable *maps;  /* number -> struct hsk_member */
    GHashTable *cache; /* key -> GList in lru */
    GQueue lru;        /* struct cached, the newest first */
    size_t cache_bytes;
};

static void slot_free(gpointer p)
{
    struct segment_slot *s = p;
    hsk_segment_free(s->segment);
    g_free(s->name);
    g_free(s);
}

static void member_free(gpointer p)
{
    hsk_member_close(p);
    g_free(p);
}

static void cached_free(gpointer p)
{
    struct cached *c = p;
    g_bytes_unref(c->bytes);
    g_free(c);
}

struct hsk_content *hsk_content_new(const char *label, const struct hsk_carrier *dir,
                                    const struct hsk_carrier *base)
{
    struct hsk_content *c = g_new0(struct hsk_content, 1);
    c->label = g_strdup(label);
    c->dir = dir;
    c->base = base;
    g_mutex_init(&c->lock);
    c->segments = g_hash_table_new_full(NULL, NULL, NULL, slot_free);
    c->maps = g_hash_table_new_full(NULL, NULL, NULL, member_free);
    c->cache = g_hash_table_new(g_int64_hash, g_int64_equal);
    g_queue_init(&c->lru);
    return c;
}

void hsk_content_free(struct hsk_content *c)
{
    if (c == NULL)
        return;
    g_hash_table_unref(c->cache);
    g_queue_clear_full(&c->lru, cached_free);
    g_hash_table_unref(c->segments);
    g_hash_table_unref(c->maps);
    g_mutex_clear(&c->lock);
    g_free(c->label);
    g_free(c);
}

void hsk_content_set_base(struct hsk_content *c, const struct hsk_carrier *base)
{
    G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&c->lock);
    c->base = base;
}

void hsk_content_add(struct hsk_content *c, const struct hsk_root_entry *e)
{
    if (!e->is_segment)
        return;
    G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&c->lock);
    if (g_hash_table_contains(c->segments, GUINT_TO_POINTER(e->segment.number)))
        return;
    struct segment_slot *s = g_new0(struct segment_slot, 1);
    s->name = g_strdup(e->name);
    s->id = e->segment;
    g_hash_table_insert(c->segments, GUINT_TO_POINTER(e->segment.number), s);
}

/* Numbers are never used twice, but a frame of a segment that is gone must not look alive. */
static void forget_frames(struct hsk_content *c)
{
    for (GList *link = c->lru.head, *next; link != NULL; link = next) {
        struct cached *f = link->data;
        next = link->next;
        if (g_hash_table_contains(c->segments, GUINT_TO_POINTER(hsk_entry_segment(f->key))))
            continue;
        g_hash_table_remove(c->cache, &f->key);
        c->cache_bytes -= g_bytes_get_size(f->bytes);
        g_queue_delete_link(&c->lru, link);
        cached_free(f);
    }
}

bool hsk_content_has(struct hsk_content *c, uint32_t number)
{
    G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&c->lock);
    const struct segment_slot *s = g_hash_table_lookup(c->segments, GUINT_TO_POINTER(number));
    return s != NULL && !s->gone;
}

void hsk_content_retain(struct hsk_content *c, const struct hsk_root *root, bool keep)
{
    G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&c->lock);
    GHashTableIter it;
    gpointer slot;
    bool some = false;
    g_hash_table_iter_init(&it, c->segments);
    while (g_hash_table_iter_next(&it, NULL, &slot)) {
        struct segment_slot *s = slot;
        s->gone = hsk_root_find(root, s->name) == NULL;
        if (!s->gone || keep)
            continue;
        c->open_segments -= s->segment != NULL;
        g_hash_table_iter_remove(&it);
        some = true;
    }
    if (some)
        forget_frames(c);
}

/* What was published goes from the instance at any moment, but then the .hva has it. */
static bool open_member(struct hsk_content *c, const char *name, struct hsk_member *m,
                        GError **error)
{
    g_autoptr(GError) why = NULL;
    if (c->dir != NULL && hsk_carrier_member(c->dir, name, m, &why))
        return true;
    if (c->base != NULL && (why == NULL || g_error_matches(why, HSK_ERROR, HSK_ERROR_NOT_FOUND)))
        return hsk_carrier_member(c->base, name, m, error);
    g_propagate_error(error, g_steal_pointer(&why));
    return false;
}

bool hsk_content_member(struct hsk_content *c, const char *name, struct hsk_member *m,
                        GError **error)
{
    G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&c->lock);
    return open_member(c, name, m, error);
}

/* A session may see many thousand versions: descriptors are not kept for all of them. */
static void close_segments(struct hsk_content *c)
{
    GHashTableIter it;
    gpointer slot;
    g_hash_table_iter_init(&it, c->segments);
    while (g_hash_table_iter_next(&it, NULL, &slot))
        g_clear_pointer(&((struct segment_slot *)slot)->segment, hsk_segment_free);
    c->open_segments = 0;
}

struct hsk_segment *hsk_content_segment(struct hsk_content *c, uint32_t number, GError **error)
{
    G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&c->lock);
    struct segment_slot *s = g_hash_table_lookup(c->segments, GUINT_TO_POINTER(number));
    if (s == NULL) {
        hsk_damaged(error, c->label, "a page map points at segment %06u, which ROOT does not list",
                    number);
        return NULL;
    }
    struct hsk_member m;
    if (s->segment == NULL && c->open_segments >= MAX_OPEN)
        close_segments(c);
    if (s->segment == NULL && open_member(c, s->name, &m, error)) {
        s->segment = hsk_segment_open(&m, &s->id, c->label, error);
        hsk_member_close(&m);
        c->open_segments += s->segment != NULL;
    }
    return s->segment == NULL ? NULL : hsk_segment_ref(s->segment);
}

static GBytes *cache_get(struct hsk_content *c, uint64_t key)
{
    G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&c->lock);
    GList *link = g_hash_table_lookup(c->cache, &key);
    if (link == NULL)
        return NULL;
    g_queue_unlink(&c->lru, link);
    g_queue_push_head_link(&c->lru, link);
    return g_bytes_ref(((struct cached *)link->data)->bytes);
}

static void cache_put(struct hsk_content *c, uint64_t key, GBytes *bytes)
{
    G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&c->lock);
    if (g_hash_table_contains(c->cache, &key))
        return;
    struct cached *n = g_new(struct cached, 1);
    n->key = key;
    n->bytes = g_bytes_ref(bytes);
    g_queue_push_head(&c->lru, n);
    g_hash_table_insert(c->cache, &n->key, c->lru.head);
    c->cache_bytes += g_bytes_get_size(bytes);
    while (c->cache_bytes > CACHE_BYTES) {
        struct cached *old = g_queue_pop_tail(&c->lru);
        g_hash_table_remove(c->cache, &old->key);
        c->cache_bytes -= g_bytes_get_size(old->bytes);
        cached_free(old);
    }
}

GBytes *hsk_content_frame(struct hsk_content *c, uint64_t entry, GError **error)
{
    uint64_t key = entry & ~0xffull;
    GBytes *bytes = cache_get(c, key);
    if (bytes != NULL)
        return bytes;
    HSK_AUTO(hsk_segment, s) = hsk_content_segment(c, hsk_entry_segment(entry), error);
    if (s == NULL)
        return NULL;
    bytes = hsk_segment_decode(s, hsk_entry_frame(entry), error);
    if (bytes != NULL)
        cache_put(c, key, bytes);
    return bytes;
}

bool hsk_content_page(struct hsk_content *c, uint64_t entry, void *dst, GError **error)
{
    if (entry == 0) {
        memset(dst, 0, HSK_PAGE_SIZE);
        return true;
    }
    g_autoptr(GBytes) frame = hsk_content_frame(c, entry, error);
    if (frame == NULL)
        return false;
    uint64_t off = (uint64_t)hsk_entry_slot(entry) * HSK_PAGE_SIZE;
    if (!hsk_range_ok(off, HSK_PAGE_SIZE, g_bytes_get_size(frame)))
        return hsk_damaged(error, c->label,
                           "a page map points behind the end of a frame in segment %06u",
                           hsk_entry_segment(entry));
    memcpy(dst, (const uint8_t *)g_bytes_get_data(frame, NULL) + off, HSK_PAGE_SIZE);
    return true;
}

/* Reads under the lock: nodes are small, and no descriptor can be closed under a reader. */
static bool load_map(void *opaque, uint32_t number, uint32_t offset, void *buf, size_t len,
                     GError **error)
{
    struct hsk_content *c = opaque;
    G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&c->lock);
    struct hsk_member *m = g_hash_table_lookup(c->maps, GUINT_TO_POINTER(number));
    if (m == NULL) {
        g_autofree char *name = g_strdup_printf("map/%06u", number);
        struct hsk_member found;
        if (!open_member(c, name, &found, error))
            return false;
        if (g_hash_table_size(c->maps) >= MAX_OPEN)
            g_hash_table_remove_all(c->maps);
        m = g_memdup2(&found, sizeof(found));
        g_hash_table_insert(c->maps, GUINT_TO_POINTER(number), m);
    }
    int r = hsk_member_read(m, offset, buf, len);
    return r == 0 || hsk_io_error(error, r, "read map/%06u of %s", number, c->label);
}

struct hsk_map_source hsk_content_maps(struct hsk_content *c)
{
    return (struct hsk_map_source){.load = load_map, .opaque = c, .label = c->label};
}

void hsk_blob_clear(struct hsk_blob *b)
{
    g_clear_pointer(&b->frames, g_array_unref);
    b->bytes = 0;
}

GBytes *hsk_content_blob(struct hsk_content *c, const struct hsk_blob *b, GError **error)
{
    if (b->frames == NULL) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_NOT_FOUND, "%s: this version holds none", c->label);
        return NULL;
    }
    g_autoptr(GByteArray) out = g_byte_array_new();
    for (guint i = 0; i < b->frames->len; i++) {
        uint64_t entry = g_array_index(b->frames, uint64_t, i);
        HSK_AUTO(hsk_segment, s) = hsk_content_segment(c, hsk_entry_segment(entry), error);
        g_autoptr(GBytes) raw =
            s == NULL ? NULL : hsk_segment_decode(s, hsk_entry_frame(entry), error);
        if (raw == NULL)
            return NULL;
        if (g_bytes_get_size(raw) > b->bytes - out->len) {
            hsk_damaged(error, c->label, "a version's state is longer than it says");
            return NULL;
        }
        g_byte_array_append(out, g_bytes_get_data(raw, NULL), (guint)g_bytes_get_size(raw));
    }
    if (out->len != b->bytes) {
        hsk_damaged(error, c->label, "a version's state is shorter than it says");
        return NULL;
    }
    return g_byte_array_free_to_bytes(g_steal_pointer(&out));
}
