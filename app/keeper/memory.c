/* SPDX-License-Identifier: MIT */
/* Guest memory as the keeper sees it: see memory.h. */
#include "memory.h"

#include <errno.h>
#include <sys/mman.h>

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

static bool map_pages(struct hsk_captured *c, uint64_t bytes, GError **error)
{
    if (!bytes)
        return true;
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                   -1, 0);
    if (p == MAP_FAILED)
        return no_memory(bytes, error);
    c->pages = p;
    c->pages_bytes = bytes;
    return true;
}

static uint64_t bitmap_bytes(const struct hsk_memobj *obj)
{
    return (obj->size_bytes / HSK_PAGE_SIZE + 7) / 8;
}

bool hsk_captured_copy(struct hsk_captured *c, const struct hsk_guest_memory *m, unsigned object,
                       GError **error)
{
    struct hsk_memobj *obj = m->obj[object];

    *c = (struct hsk_captured){.memory = m, .object = object, .dirty = g_malloc(bitmap_bytes(obj))};
    uint64_t n = hsk_memobj_collect(obj, HSK_PAGE_DIRTY, c->dirty);
    if (!map_pages(c, n * HSK_PAGE_SIZE, error)) {
        hsk_captured_lost(c);
        hsk_captured_clear(c);
        return false;
    }
    uint8_t *to = c->pages;
    for (uint64_t i = 0; n; i++) {
        if (!(c->dirty[i / 8] & (1u << (i % 8))))
            continue;
        memcpy(to, obj->host + i * HSK_PAGE_SIZE, HSK_PAGE_SIZE);
        to += HSK_PAGE_SIZE;
        n--;
    }
    return true;
}

void hsk_captured_point(struct hsk_captured *c, const struct hsk_guest_memory *m, unsigned object,
                        const uint32_t *way, unsigned nway)
{
    *c = (struct hsk_captured){
        .memory = m,
        .object = object,
        .dirty = g_memdup2(hsk_near_dirty(&m->near, object), bitmap_bytes(m->obj[object])),
        .nway = MIN(nway, HSK_NEAR_POINTS)};
    memcpy(c->way, way, c->nway * sizeof way[0]);
}

void hsk_captured_read(void *opaque, uint64_t page, void *dst)
{
    const struct hsk_captured *c = opaque;

    hsk_near_read(&c->memory->near, c->way, c->nway, c->object, c->memory->obj[c->object], page,
                  dst);
}

void hsk_captured_lost(const struct hsk_captured *c)
{
    struct hsk_memobj *obj = c->memory->obj[c->object];

    for (uint64_t i = 0; !c->nway && i < obj->size_bytes / HSK_PAGE_SIZE; i++)
        if (c->dirty[i / 8] & (1u << (i % 8)))
            atomic_fetch_or(&obj->attr[i], HSK_PAGE_DIRTY);
}

void hsk_captured_clear(struct hsk_captured *c)
{
    if (c->pages)
        munmap(c->pages, c->pages_bytes);
    g_free(c->dirty);
    *c = (struct hsk_captured){0};
}
