/* SPDX-License-Identifier: MIT */
/*
 * Guest memory of the KVM engine: the regions of struct hsk_ram as KVM memory slots, and KVM's
 * dirty log.
 *
 * KVM lets the guest write without asking, so the copy-before-write hook does not run for the
 * guest's writes: a snapshot under this engine stops the machine and copies. Dirty attributes are
 * right after dirty_sync(). Threads: any; slots are under the engine's lock.
 */
#include <errno.h>

#include "kvm.h"

static bool same_region(const struct hsk_ram_region *a, const struct hsk_ram_region *b)
{
    return a->gpa == b->gpa && a->size_bytes == b->size_bytes && a->offset == b->offset &&
           a->obj == b->obj && a->readonly == b->readonly;
}

static bool set_slot(struct kvm_engine *e, unsigned slot, const struct hsk_ram_region *r,
                     uint64_t size_bytes)
{
    struct kvm_userspace_memory_region m = {
        .slot = slot,
        .flags = size_bytes ? KVM_MEM_LOG_DIRTY_PAGES | (r->readonly ? KVM_MEM_READONLY : 0) : 0,
        .guest_phys_addr = r->gpa,
        .memory_size = size_bytes,
        .userspace_addr = (uintptr_t)(r->obj->host + r->offset),
    };

    if (r->readonly && !e->readonly_memory)
        return true; /* not in the map: reads and writes come out as MMIO, which is slow and right
                      */
    return ioctl(e->vm_fd, KVM_SET_USER_MEMORY_REGION, &m) == 0;
}

/* Pages that the guest wrote since the last time become dirty and damaged. */
static void collect_slot(struct kvm_engine *e, unsigned slot)
{
    const struct hsk_ram_region *r = &e->slot[slot];
    const uint64_t pages = r->size_bytes >> HSK_PAGE_SHIFT;
    g_autofree uint64_t *bitmap = NULL;
    struct kvm_dirty_log log = {.slot = slot};

    if (r->readonly)
        return;
    bitmap = g_new0(uint64_t, (pages + 63) / 64);
    log.dirty_bitmap = bitmap;
    hsk_assert(ioctl(e->vm_fd, KVM_GET_DIRTY_LOG, &log) == 0);
    for (uint64_t w = 0; w < (pages + 63) / 64; w++)
        for (uint64_t bits = bitmap[w]; bits; bits &= bits - 1) {
            const uint64_t page =
                (r->offset >> HSK_PAGE_SHIFT) + w * 64 + (unsigned)__builtin_ctzll(bits);

            atomic_fetch_or(&r->obj->attr[page], HSK_PAGE_DIRTY | HSK_PAGE_DAMAGE);
        }
}

void kvm_dirty_sync(struct kvm_engine *e)
{
    pthread_mutex_lock(&e->lock);
    for (unsigned i = 0; i < HSK_RAM_MAX_REGIONS; i++)
        if (e->slot[i].size_bytes)
            collect_slot(e, i);
    pthread_mutex_unlock(&e->lock);
}

static bool wanted(const struct hsk_ram_region *slot, struct hsk_ram_region *now, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        if (now[i].size_bytes && same_region(slot, &now[i])) {
            now[i].size_bytes = 0; /* has its slot */
            return true;
        }
    return false;
}

static bool update_locked(struct kvm_engine *e, GError **error)
{
    struct hsk_ram_region now[HSK_RAM_MAX_REGIONS];
    const uint64_t generation = hsk_ram_generation(e->base.cfg.ram);
    unsigned n, free_slot = 0;
    bool ok = true;

    if (generation == e->generation)
        return true;
    n = hsk_ram_regions(e->base.cfg.ram, now);
    for (unsigned i = 0; i < HSK_RAM_MAX_REGIONS; i++) {
        if (!e->slot[i].size_bytes || wanted(&e->slot[i], now, n))
            continue;
        collect_slot(e, i);
        ok &= set_slot(e, i, &e->slot[i], 0);
        e->slot[i].size_bytes = 0;
    }
    for (unsigned i = 0; i < n; i++) {
        if (!now[i].size_bytes)
            continue;
        while (e->slot[free_slot].size_bytes)
            free_slot++;
        ok &= set_slot(e, free_slot, &now[i], now[i].size_bytes);
        e->slot[free_slot] = now[i];
    }
    e->generation = generation;
    if (!ok)
        g_set_error(error, HSK_ERROR, HSK_ERROR_FAILED,
                    "KVM does not accept the machine's memory map: %s.", g_strerror(errno));
    return ok;
}

bool kvm_memory_update(struct kvm_engine *e, GError **error)
{
    bool ok;

    pthread_mutex_lock(&e->lock);
    ok = update_locked(e, error);
    pthread_mutex_unlock(&e->lock);
    return ok;
}
