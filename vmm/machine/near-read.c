/* SPDX-License-Identifier: MIT */
/*
 * Near versions, the reader's side, and the layout of what both sides share: see vmm/near.h.
 *
 * The reader's order: it copies the page out of memory, then looks at SAVED; the hook copies into
 * the slot, enters that, sets SAVED (memory.c), and the guest writes last. So a copy that has
 * anything of the guest's write is followed by a SAVED that is seen, and the slot is whole by then.
 *
 * Thread: any of the reader's process.
 */
#include <errno.h>
#include <sys/mman.h>

#include "near-priv.h"

void hsk_near_layout(struct hsk_near_layout *l, const uint64_t *size_bytes, unsigned nobjects)
{
    *l = (struct hsk_near_layout){.nobjects = MIN(nobjects, HSK_NEAR_OBJECTS)};
    for (unsigned i = 0; i < l->nobjects; i++) {
        l->first[i] = l->total;
        l->pages[i] = size_bytes[i] / HSK_PAGE_SIZE;
        l->total += (l->pages[i] + 63) / 64 * 64;
    }
    /* The hook's layer and that of going back can have all pages each while they are read, and what
     * is kept beside them less than half of it. */
    l->nslots = 3 * l->total;
    l->index_bytes = HSK_NEAR_POINTS * l->total * sizeof(uint32_t) + l->total / 8;
    l->slots_bytes = l->nslots * HSK_PAGE_SIZE;
}

void *hsk_near_map(int fd, uint64_t bytes, int prot, GError **error)
{
    off_t end = lseek(fd, 0, SEEK_END);
    void *p = end >= 0 && (uint64_t)end >= bytes && (fcntl(fd, F_GET_SEALS) & F_SEAL_SHRINK)
                  ? mmap(NULL, bytes, prot, MAP_SHARED | MAP_NORESERVE, fd, 0)
                  : MAP_FAILED;

    if (p != MAP_FAILED)
        return p;
    g_set_error(error, HSK_ERROR, HSK_ERROR_FAILED,
                "The memory for going back to earlier moments cannot be mapped: %s",
                g_strerror(errno));
    return NULL;
}

static const void *at_byte(const void *p, uint64_t bytes)
{
    return (const uint8_t *)p + bytes;
}

bool hsk_near_view_init(struct hsk_near_view *v, const uint64_t *size_bytes, unsigned nobjects,
                        int index_fd, int slots_fd, GError **error)
{
    hsk_near_layout(&v->layout, size_bytes, nobjects);
    v->index = hsk_near_map(index_fd, v->layout.index_bytes, PROT_READ, error);
    v->slots = v->index ? hsk_near_map(slots_fd, v->layout.slots_bytes, PROT_READ, error) : NULL;
    if (!v->slots) {
        hsk_near_view_clear(v);
        return false;
    }
    v->bitmap = at_byte((void *)(uintptr_t)v->index, v->layout.index_bytes - v->layout.total / 8);
    return true;
}

void hsk_near_view_clear(struct hsk_near_view *v)
{
    if (v->index)
        munmap((void *)(uintptr_t)v->index, v->layout.index_bytes);
    if (v->slots)
        munmap((void *)(uintptr_t)v->slots, v->layout.slots_bytes);
    *v = (struct hsk_near_view){0};
}

static bool read_slot(const struct hsk_near_view *v, uint32_t layer, uint64_t number, void *dst)
{
    uint32_t slot = layer < HSK_NEAR_POINTS
                        ? atomic_load_explicit(&v->index[layer * v->layout.total + number],
                                               memory_order_acquire)
                        : 0;

    if (!slot || slot > v->layout.nslots)
        return false;
    memcpy(dst, v->slots + (uint64_t)(slot - 1) * HSK_PAGE_SIZE, HSK_PAGE_SIZE);
    return true;
}

void hsk_near_read(const struct hsk_near_view *v, const uint32_t *way, unsigned nway,
                   unsigned object, const struct hsk_memobj *obj, uint64_t page, void *dst)
{
    const uint64_t number = v->layout.first[object] + page;

    for (unsigned i = 0; i + 1 < nway; i++)
        if (read_slot(v, way[i], number, dst))
            return;
    memcpy(dst, obj->host + page * HSK_PAGE_SIZE, HSK_PAGE_SIZE);
    atomic_thread_fence(memory_order_seq_cst);
    if (nway && (atomic_load(&obj->attr[page]) & HSK_PAGE_SAVED))
        read_slot(v, way[nway - 1], number, dst);
}

const uint8_t *hsk_near_dirty(const struct hsk_near_view *v, unsigned object)
{
    return v->bitmap + v->layout.first[object] / 8;
}
