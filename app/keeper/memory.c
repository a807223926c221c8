/* SPDX-License-Identifier: MIT */
/* Guest memory as the keeper sees it: see memory.h. */
#include "memory.h"

bool hsk_guest_memory_init(struct hsk_guest_memory *m, uint64_t ram_bytes, uint64_t vram_bytes,
                           GError **error)
{
    *m = (struct hsk_guest_memory){0};
    m->obj[0] = hsk_memobj_new("ram", ram_bytes, error);
    if (!m->obj[0])
        return false;
    m->n = 1;
    if (!vram_bytes)
        return true;
    m->obj[1] = hsk_memobj_new("vram", vram_bytes, error);
    if (!m->obj[1]) {
        hsk_guest_memory_clear(m);
        return false;
    }
    m->n = 2;
    return true;
}

bool hsk_guest_memory_add_near(struct hsk_guest_memory *m, GError **error)
{
    uint64_t sizes[HSK_MAX_OBJECTS];
    struct hsk_near_layout l;

    for (unsigned i = 0; i < m->n; i++)
        sizes[i] = m->obj[i]->size_bytes;
    hsk_near_layout(&l, sizes, m->n);
    HSK_AUTOFD index = hsk_memfd_new("near", l.index_bytes, error);
    if (index < 0)
        return false;
    HSK_AUTOFD slots = hsk_memfd_new("near.slots", l.slots_bytes, error);
    if (slots < 0 || !hsk_near_view_init(&m->near, sizes, m->n, index, slots, error))
        return false;
    m->near_fd = hsk_steal_fd(&index);
    m->slots_fd = hsk_steal_fd(&slots);
    m->has_near = true;
    return true;
}

void hsk_guest_memory_clear(struct hsk_guest_memory *m)
{
    if (m->has_near) {
        hsk_near_view_clear(&m->near);
        close(m->near_fd);
        close(m->slots_fd);
    }
    m->has_near = false;
    for (unsigned i = 0; i < m->n; i++)
        hsk_memobj_free(m->obj[i]);
    m->n = 0;
}

void hsk_guest_memory_give(const struct hsk_guest_memory *m, struct hsk_child *c)
{
    for (unsigned i = 0; i < m->n; i++) {
        g_autofree char *attr = g_strconcat(m->obj[i]->name, ".attr", NULL);
        hsk_child_give(c, m->obj[i]->name, m->obj[i]->fd);
        hsk_child_give(c, attr, m->obj[i]->attr_fd);
    }
    if (m->has_near) {
        hsk_child_give(c, "near", m->near_fd);
        hsk_child_give(c, "near.slots", m->slots_fd);
    }
}

static bool no_memory(uint64_t bytes, GError **error)
{
    g_set_error(error, HSK_ERROR, HSK_ERROR_FAILED,
                "there is not enough memory to hold %" G_GUINT64_FORMAT
                " MiB of the machine until they are stored; close something and try again",
                bytes >> 20);
    return false;
}

static uint64_t bitmap_bytes(const struct hsk_memobj *obj)
{
    return (obj->size_bytes / HSK_PAGE_SIZE + 7) / 8;
}

bool hsk_captured_begin(struct hsk_captured *c, const struct hsk_guest_memory *m, unsigned object,
                        GError **error)
{
    const struct hsk_memobj *obj = m->obj[object];

    *c =
        (struct hsk_captured){.memory = m, .object = object, .dirty = g_malloc0(bitmap_bytes(obj))};
    c->copies = hsk_memfd_new("copies", obj->size_bytes, error);
    if (c->copies >= 0)
        return true;
    hsk_captured_clear(c);
    return false;
}

void hsk_captured_changed(struct hsk_captured *c, const struct hsk_guest_memory *m, unsigned object)
{
    struct hsk_memobj *obj = m->obj[object];

    *c = (struct hsk_captured){
        .memory = m, .object = object, .dirty = g_malloc(bitmap_bytes(obj)), .copies = -1};
    hsk_memobj_collect(obj, HSK_PAGE_CHANGED, c->dirty);
}

void hsk_captured_lend(struct hsk_captured *c, int fd, uint64_t at)
{
    c->copies = fd;
    c->copies_at = at;
    c->lent = true;
}

static bool has_page(const uint8_t *bitmap, uint64_t page)
{
    return bitmap[page / 8] >> page % 8 & 1;
}

/* The next pages of a bitmap from *page on, as many as follow each other; there are some. */
static uint64_t next_run(const uint8_t *bitmap, uint64_t *page, uint64_t npages)
{
    uint64_t end;

    while (!has_page(bitmap, *page))
        *page += *page % 8 == 0 && !bitmap[*page / 8] ? 8 : 1;
    for (end = *page; end < npages && has_page(bitmap, end); end++)
        ;
    return end - *page;
}

/* By system calls: what cannot be had is an error then, and not the end. */
static bool copy_pages(const struct hsk_captured *c, const uint8_t *bitmap, uint64_t n,
                       GError **error)
{
    const struct hsk_memobj *obj = c->memory->obj[c->object];

    for (uint64_t page = 0, run; n; page += run, n -= run) {
        run = next_run(bitmap, &page, obj->size_bytes / HSK_PAGE_SIZE);
        if (hsk_pwrite_all(c->copies, obj->host + page * HSK_PAGE_SIZE, run * HSK_PAGE_SIZE,
                           page * HSK_PAGE_SIZE) < 0)
            return no_memory(n * HSK_PAGE_SIZE, error);
    }
    return true;
}

bool hsk_captured_copy(struct hsk_captured *c, uint8_t attributes, uint64_t *n, GError **error)
{
    struct hsk_memobj *obj = c->memory->obj[c->object];
    g_autofree uint8_t *found = g_malloc(bitmap_bytes(obj));
    const uint64_t count = hsk_memobj_collect(obj, attributes, found);

    *n += count;
    for (uint64_t i = 0; i < bitmap_bytes(obj); i++)
        c->dirty[i] |= found[i];
    return copy_pages(c, found, count, error);
}

void hsk_captured_point(struct hsk_captured *c, const struct hsk_guest_memory *m, unsigned object,
                        const uint32_t *way, unsigned nway)
{
    *c = (struct hsk_captured){
        .memory = m,
        .object = object,
        .copies = -1,
        .dirty = g_memdup2(hsk_near_dirty(&m->near, object), bitmap_bytes(m->obj[object])),
        .nway = MIN(nway, HSK_NEAR_POINTS)};
    memcpy(c->way, way, c->nway * sizeof way[0]);
}

void hsk_captured_read(void *opaque, uint64_t page, void *dst)
{
    const struct hsk_captured *c = opaque;

    if (c->copies >= 0 && has_page(c->dirty, page))
        hsk_assert(
            hsk_pread_all(c->copies, dst, HSK_PAGE_SIZE, c->copies_at + page * HSK_PAGE_SIZE) == 0);
    else
        hsk_near_read(&c->memory->near, c->way, c->nway, c->object, c->memory->obj[c->object], page,
                      dst);
}

void hsk_captured_lost(const struct hsk_captured *c)
{
    struct hsk_memobj *obj = c->memory->obj[c->object];

    for (uint64_t i = 0; !c->nway && i < obj->size_bytes / HSK_PAGE_SIZE; i++)
        if (has_page(c->dirty, i))
            atomic_fetch_or(&obj->attr[i], HSK_PAGE_DIRTY);
}

void hsk_captured_clear(struct hsk_captured *c)
{
    if (c->copies >= 0 && !c->lent)
        close(c->copies);
    g_free(c->dirty);
    *c = (struct hsk_captured){0};
}
