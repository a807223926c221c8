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

void hsk_guest_memory_clear(struct hsk_guest_memory *m)
{
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
}

static bool no_memory(uint64_t bytes, GError **error)
{
    g_set_error(error, HSK_ERROR, HSK_ERROR_FAILED,
                "there is not enough memory to hold %" G_GUINT64_FORMAT
                " MiB of the machine until they are stored; close something and try again",
                bytes >> 20);
    return false;
}

static bool map_pages(struct hsk_staged *s, uint64_t bytes, GError **error)
{
    if (!bytes)
        return true;
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                   -1, 0);
    if (p == MAP_FAILED)
        return no_memory(bytes, error);
    s->pages = p;
    s->pages_bytes = bytes;
    return true;
}

/* Only what the memfd holds: reading a hole through the mapping would allocate it. */
static bool copy_all(struct hsk_staged *s, const struct hsk_memobj *obj, GError **error)
{
    off_t at = 0;

    if (!map_pages(s, obj->size_bytes, error))
        return false;
    while ((at = lseek(obj->fd, at, SEEK_DATA)) >= 0 && (uint64_t)at < obj->size_bytes) {
        off_t end = lseek(obj->fd, at, SEEK_HOLE);
        uint64_t len = MIN((uint64_t)MAX(end, at), obj->size_bytes) - (uint64_t)at;
        if (hsk_pread_all(obj->fd, s->pages + at, len, (uint64_t)at) < 0)
            return no_memory(obj->size_bytes, error);
        at = end;
    }
    return true;
}

static bool copy_dirty(struct hsk_staged *s, const struct hsk_memobj *obj, GError **error)
{
    uint64_t pages = obj->size_bytes / HSK_PAGE_SIZE, n = 0;

    s->dirty = g_malloc0((pages + 7) / 8);
    for (uint64_t i = 0; i < pages; i++) {
        if (atomic_load_explicit(&obj->attr[i], memory_order_relaxed) & HSK_PAGE_DIRTY) {
            s->dirty[i / 8] |= (uint8_t)(1u << (i % 8));
            n++;
        }
    }
    if (!map_pages(s, n * HSK_PAGE_SIZE, error))
        return false;
    uint8_t *to = s->pages;
    for (uint64_t i = 0; i < pages; i++) {
        if (!(s->dirty[i / 8] & (1u << (i % 8))))
            continue;
        memcpy(to, obj->host + i * HSK_PAGE_SIZE, HSK_PAGE_SIZE);
        to += HSK_PAGE_SIZE;
    }
    return true;
}

bool hsk_staged_copy(struct hsk_staged *s, const struct hsk_memobj *obj, bool all, GError **error)
{
    *s = (struct hsk_staged){.name = obj->name, .size_bytes = obj->size_bytes};
    if (all ? copy_all(s, obj, error) : copy_dirty(s, obj, error))
        return true;
    hsk_staged_clear(s);
    return false;
}

void hsk_staged_clear(struct hsk_staged *s)
{
    if (s->pages)
        munmap(s->pages, s->pages_bytes);
    g_free(s->dirty);
    *s = (struct hsk_staged){0};
}
