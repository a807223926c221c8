/* SPDX-License-Identifier: MIT */
/* Which pages differ between versions: see changes.h. */
#include "changes.h"

#include <errno.h>

#include "common/contents.h"

#define MAX_BYTES (64u << 20) /* of bitmaps; the oldest go first */

struct change {
    char *id, *base;
    uint8_t *bitmap[HSK_MAX_OBJECTS];
    uint64_t bytes[HSK_MAX_OBJECTS];
};

struct hsk_changes {
    GHashTable *by_id; /* id -> struct change */
    GQueue order;      /* of the same, oldest first */
    uint64_t bytes;
};

static void change_free(struct change *c)
{
    for (unsigned i = 0; i < HSK_MAX_OBJECTS; i++)
        g_free(c->bitmap[i]);
    g_free(c->id);
    g_free(c->base);
    g_free(c);
}

struct hsk_changes *hsk_changes_new(void)
{
    struct hsk_changes *c = g_new0(struct hsk_changes, 1);

    c->by_id = g_hash_table_new(g_str_hash, g_str_equal);
    g_queue_init(&c->order);
    return c;
}

void hsk_changes_free(struct hsk_changes *c)
{
    g_hash_table_unref(c->by_id);
    g_queue_clear_full(&c->order, (GDestroyNotify)change_free);
    g_free(c);
}

static uint64_t bitmap_bytes(const struct hsk_memobj *obj)
{
    return (obj->size_bytes / HSK_PAGE_SIZE + 7) / 8;
}

void hsk_changes_add(struct hsk_changes *c, const char *id, const char *base,
                     const struct hsk_captured *captured, unsigned n)
{
    struct change *new = g_new0(struct change, 1);

    new->id = g_strdup(id);
    new->base = g_strdup(base);
    for (unsigned i = 0; i < n; i++) {
        new->bytes[i] = bitmap_bytes(captured[i].memory->obj[i]);
        new->bitmap[i] = g_memdup2(captured[i].dirty, new->bytes[i]);
        c->bytes += new->bytes[i];
    }
    g_hash_table_insert(c->by_id, new->id, new);
    g_queue_push_tail(&c->order, new);
    while (c->bytes > MAX_BYTES) {
        struct change *old = g_queue_pop_head(&c->order);

        g_hash_table_remove(c->by_id, old->id);
        for (unsigned i = 0; i < HSK_MAX_OBJECTS; i++)
            c->bytes -= old->bytes[i];
        change_free(old);
    }
}

static void add_bits(uint8_t *to, const uint8_t *from, uint64_t bytes)
{
    for (uint64_t i = 0; i < bytes; i++)
        to[i] |= from[i];
}

static uint8_t *part(const struct hsk_fetched *f, uint8_t *bitmap, unsigned object)
{
    return bitmap + f->layout.first[object] / 8;
}

/* Adds what changed on the way from a version to one that it was taken over, directly or not. */
static bool add_way(const struct hsk_changes *c, struct hsk_fetched *f,
                    const struct hsk_guest_memory *m, const char *from, const char *to)
{
    while (strcmp(from, to) != 0) {
        const struct change *step = g_hash_table_lookup(c->by_id, from);

        if (!step)
            return false;
        for (unsigned i = 0; i < m->n; i++) {
            if (step->bytes[i] != bitmap_bytes(m->obj[i]))
                return false;
            add_bits(part(f, f->wanted, i), step->bitmap[i], step->bytes[i]);
        }
        from = step->base;
    }
    return true;
}

/* The newest version that both were taken over. */
static const char *common(const struct hsk_changes *c, const char *a, const char *b)
{
    g_autoptr(GHashTable) seen = g_hash_table_new(g_str_hash, g_str_equal);
    const struct change *step;

    for (const char *at = a; at;
         at = (step = g_hash_table_lookup(c->by_id, at)) ? step->base : NULL)
        if (!g_hash_table_add(seen, (gpointer)(uintptr_t)at))
            break;
    for (const char *at = b; at;
         at = (step = g_hash_table_lookup(c->by_id, at)) ? step->base : NULL)
        if (g_hash_table_contains(seen, at))
            return at;
    return NULL;
}

static uint64_t count(const struct hsk_fetched *f)
{
    uint64_t n = 0;

    for (uint64_t k = 0; k < f->layout.total / 8; k++)
        n += (uint64_t)__builtin_popcount(f->wanted[k]);
    return n;
}

static struct hsk_fetched *fetched_new(const struct hsk_guest_memory *m)
{
    struct hsk_fetched *f = g_new0(struct hsk_fetched, 1);
    uint64_t sizes[HSK_MAX_OBJECTS];

    for (unsigned i = 0; i < m->n; i++)
        sizes[i] = m->obj[i]->size_bytes;
    hsk_near_layout(&f->layout, sizes, m->n);
    f->wanted = g_malloc0(f->layout.total / 8);
    f->there = g_malloc0(f->layout.total / 8);
    f->fd = -1;
    return f;
}

struct hsk_fetched *hsk_changes_between(const struct hsk_changes *c,
                                        const struct hsk_guest_memory *m, const char *from,
                                        const char *to)
{
    const char *both = common(c, from, to);

    if (!both)
        return NULL;
    struct hsk_fetched *f = fetched_new(m);
    if (add_way(c, f, m, from, both) && add_way(c, f, m, to, both) &&
        count(f) < MIN(m->obj[0]->size_bytes / 4, 1u << 30) / HSK_PAGE_SIZE)
        return f;
    hsk_fetched_free(f);
    return NULL;
}

void hsk_fetched_free(struct hsk_fetched *f)
{
    if (!f)
        return;
    if (f->fd >= 0)
        close(f->fd);
    g_free(f->wanted);
    g_free(f->there);
    g_free(f);
}

void hsk_fetched_want(struct hsk_fetched *f, const struct hsk_guest_memory *m, unsigned object,
                      const uint8_t *dirty)
{
    add_bits(part(f, f->wanted, object), dirty, bitmap_bytes(m->obj[object]));
}

void hsk_fetched_take_over(struct hsk_fetched *f, struct hsk_fetched *other)
{
    if (f->fd < 0 && f->layout.total == other->layout.total) {
        f->fd = hsk_steal_fd(&other->fd);
        memcpy(f->there, other->there, f->layout.total / 8);
    }
    hsk_fetched_free(other);
}

static bool no_memory(int err, GError **error)
{
    g_set_error(error, HSK_ERROR, HSK_ERROR_FAILED, "there is not enough memory to go back: %s",
                g_strerror(-err));
    return false;
}

struct place {
    int fd;
    uint64_t at;
};

static bool put_pages(void *opaque, uint64_t page, uint64_t n, const void *data, GError **error)
{
    const struct place *p = opaque;
    int r = hsk_pwrite_all(p->fd, data, n * HSK_PAGE_SIZE, p->at + page * HSK_PAGE_SIZE);

    return r == 0 || no_memory(r, error);
}

bool hsk_fetched_read(struct hsk_fetched *f, const struct hsk_guest_memory *m,
                      struct hsk_version *v, GError **error)
{
    if (f->fd < 0)
        f->fd = hsk_memfd_new("pages", hsk_contents_bytes(&f->layout), error);
    if (f->fd < 0)
        return false;
    for (unsigned i = 0; i < m->n; i++) {
        const uint64_t bytes = bitmap_bytes(m->obj[i]);
        uint8_t *wanted = part(f, f->wanted, i), *there = part(f, f->there, i);
        g_autofree uint8_t *missing = g_malloc(bytes);
        struct place p = {f->fd, f->layout.first[i] * HSK_PAGE_SIZE};

        for (uint64_t k = 0; k < bytes; k++)
            missing[k] = wanted[k] & (uint8_t)~there[k];
        if (!hsk_version_pick(v, m->obj[i]->name, missing, put_pages, &p, error))
            return false;
        add_bits(there, missing, bytes);
    }
    return true;
}

bool hsk_fetched_finish(struct hsk_fetched *f, GBytes *state, GError **error)
{
    gsize n = 0;
    const void *data = g_bytes_get_data(state, &n);
    int r = n > HSK_CONTENTS_STATE ? -EFBIG
                                   : hsk_pwrite_all(f->fd, f->wanted, f->layout.total / 8,
                                                    hsk_contents_bitmap(&f->layout));

    if (r == 0)
        r = hsk_pwrite_all(f->fd, data, n, hsk_contents_state(&f->layout));
    return r == 0 || no_memory(r, error);
}
