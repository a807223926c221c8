/* SPDX-License-Identifier: MIT */
/* Which pages differ between versions: see changes.h. */
#include "changes.h"

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
            add_bits(f->wanted[i], step->bitmap[i], step->bytes[i]);
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

static uint64_t count(const struct hsk_fetched *f, const struct hsk_guest_memory *m)
{
    uint64_t n = 0;

    for (unsigned i = 0; i < m->n; i++)
        for (uint64_t k = 0; k < bitmap_bytes(m->obj[i]); k++)
            n += (uint64_t)__builtin_popcount(f->wanted[i][k]);
    return n;
}

struct hsk_fetched *hsk_changes_between(const struct hsk_changes *c,
                                        const struct hsk_guest_memory *m, const char *from,
                                        const char *to)
{
    const char *both = common(c, from, to);

    if (!both)
        return NULL;
    struct hsk_fetched *f = g_new0(struct hsk_fetched, 1);
    for (unsigned i = 0; i < m->n; i++)
        f->wanted[i] = g_malloc0(bitmap_bytes(m->obj[i]));
    f->numbers = g_array_new(FALSE, FALSE, sizeof(uint32_t));
    f->pages = g_byte_array_new();
    if (add_way(c, f, m, from, both) && add_way(c, f, m, to, both) &&
        count(f, m) < MIN(m->obj[0]->size_bytes / 4, 1u << 30) / HSK_PAGE_SIZE)
        return f;
    hsk_fetched_free(f);
    return NULL;
}

void hsk_fetched_free(struct hsk_fetched *f)
{
    if (!f)
        return;
    for (unsigned i = 0; i < HSK_MAX_OBJECTS; i++)
        g_free(f->wanted[i]);
    g_array_unref(f->numbers);
    g_byte_array_unref(f->pages);
    g_free(f);
}

void hsk_fetched_want(struct hsk_fetched *f, const struct hsk_guest_memory *m, unsigned object,
                      const uint8_t *dirty)
{
    add_bits(f->wanted[object], dirty, bitmap_bytes(m->obj[object]));
}

bool hsk_fetched_read(struct hsk_fetched *f, const struct hsk_guest_memory *m,
                      struct hsk_version *v, GError **error)
{
    struct hsk_near_layout l;
    uint64_t sizes[HSK_MAX_OBJECTS];

    for (unsigned i = 0; i < m->n; i++)
        sizes[i] = m->obj[i]->size_bytes;
    hsk_near_layout(&l, sizes, m->n);
    g_autofree uint8_t *there = g_malloc0(l.total / 8);
    for (guint k = 0; k < f->numbers->len; k++) {
        uint32_t number = g_array_index(f->numbers, uint32_t, k);
        there[number / 8] |= (uint8_t)(1u << number % 8);
    }
    for (unsigned i = 0; i < m->n; i++) {
        for (uint64_t page = 0; page < l.pages[i]; page++) {
            uint32_t number = (uint32_t)(l.first[i] + page);
            uint8_t data[HSK_PAGE_SIZE];

            if (!(f->wanted[i][page / 8] >> page % 8 & 1) || (there[number / 8] >> number % 8 & 1))
                continue;
            if (!hsk_version_read(v, m->obj[i]->name, page, 1, data, error))
                return false;
            g_array_append_val(f->numbers, number);
            g_byte_array_append(f->pages, data, sizeof(data));
        }
    }
    return true;
}

int hsk_fetched_give(const struct hsk_fetched *f, GBytes *state, GError **error)
{
    const uint64_t numbers = f->numbers->len * sizeof(uint32_t),
                   pages = (numbers + HSK_PAGE_SIZE - 1) / HSK_PAGE_SIZE * HSK_PAGE_SIZE,
                   end = pages + f->pages->len;
    gsize n = 0;
    const void *data = g_bytes_get_data(state, &n);
    HSK_AUTOFD fd = hsk_memfd_new("pages", end + n, error);

    if (fd < 0)
        return -1;
    int r = hsk_pwrite_all(fd, f->numbers->data, numbers, 0);
    if (r == 0)
        r = hsk_pwrite_all(fd, f->pages->data, f->pages->len, pages);
    if (r == 0)
        r = hsk_pwrite_all(fd, data, n, end);
    if (r == 0)
        return hsk_steal_fd(&fd);
    g_set_error(error, HSK_ERROR, HSK_ERROR_FAILED, "there is not enough memory to go back: %s",
                g_strerror(-r));
    return -1;
}
