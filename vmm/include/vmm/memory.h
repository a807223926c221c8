/* SPDX-License-Identifier: MIT */
/*
 * Guest memory: objects (memfds with an attribute byte per page) and the guest-physical map of
 * them.
 *
 * An object ("ram", "vram", "nvram") is a MAP_SHARED memfd; its page attributes are a second,
 * shared memfd, so that the keeper can read both. The map says which object is seen at which
 * guest-physical address (the offset in the object is a function of the address); everything else
 * is MMIO and belongs to the bus.
 *
 * Every write to guest memory is announced before it is done: hsk_memobj_will_write() runs the
 * copy-before-write hook once per page and epoch and sets the dirty bits. Engines call it in their
 * slow path only and then may write the page until the next flush(HSK_FLUSH_WRITES) of the engine;
 * device models write through hsk_ram_write()/hsk_ram_ptr_write().
 *
 * Threads: attributes are atomic. The map changes only through hsk_ram_map_add/del (see machine.h
 * for when).
 */
#pragma once

#include <base/util.h>

#include <pthread.h>
#include <stdatomic.h>

typedef uint64_t gpa_t; /* guest-physical address */

enum {
    HSK_PAGE_DIRTY = 1 << 0,  /* written since the last snapshot collected it */
    HSK_PAGE_DAMAGE = 1 << 1, /* written since the display looked (only meaningful for objects that
                                 are scanned out) */
    HSK_PAGE_GATHERED = 1 << 2, /* was dirty when hsk_memobj_gather() was called; not copied yet */
    HSK_PAGE_SAVED = 1 << 3,    /* the copy-before-write hook has run in this epoch */
};

#define HSK_FIRST_WRITE_LOCKS 16

struct hsk_memobj {
    char name[16];
    int fd;                /* memfd of the contents, owned */
    int attr_fd;           /* memfd of the attributes, owned */
    uint8_t *host;         /* the mapping, page aligned */
    uint64_t size_bytes;   /* multiple of 4096 */
    _Atomic uint8_t *attr; /* size_bytes / 4096 entries */
    _Atomic uint8_t *code; /* as many: the vCPUs (bit = index) that hold translations of the page;
                              this process's own */
    /* Copy before write: called before the first write to a page in an epoch (HSK_PAGE_SAVED
       clear), once, before anybody else may write it; NULL = none. Set only while vCPUs are
       stopped. Runs on the writing thread and must not block on it. */
    void (*before_write)(struct hsk_memobj *obj, uint64_t page, void *opaque);
    void *before_write_opaque;
    /* Missing pages come from somebody who waits for faults (userfaultfd). A page is then touched
       before it is marked: what is dirty is there. */
    _Atomic bool incoming;
    pthread_mutex_t first_write_lock[HSK_FIRST_WRITE_LOCKS]; /* by page */
};

/* New object with memfds of its own, zero filled, all pages clean. */
struct hsk_memobj *hsk_memobj_new(const char *name, uint64_t size_bytes, GError **error);
/* The same over given memfds (takes both, also on failure); checks seals and sizes. */
struct hsk_memobj *hsk_memobj_new_fds(const char *name, uint64_t size_bytes, int fd, int attr_fd,
                                      GError **error);
void hsk_memobj_free(struct hsk_memobj *obj);
/* May the kernel use huge pages where it has them for shared memory? New objects: yes. */
void hsk_memobj_set_huge(struct hsk_memobj *obj, bool huge);

/* The first write of an epoch. */
void hsk_memobj_first_write(struct hsk_memobj *obj, uint64_t page);

static inline void hsk_memobj_will_write(struct hsk_memobj *obj, uint64_t page)
{
    uint8_t a = atomic_load_explicit(&obj->attr[page], memory_order_relaxed);
    const uint8_t all = HSK_PAGE_DIRTY | HSK_PAGE_DAMAGE | HSK_PAGE_SAVED;

    if ((a & all) == all)
        return;
    if (atomic_load_explicit(&obj->incoming, memory_order_relaxed))
        (void)*(volatile const uint8_t *)(obj->host + page * HSK_PAGE_SIZE);
    if (obj->before_write && !(a & HSK_PAGE_SAVED))
        hsk_memobj_first_write(obj, page);
    atomic_fetch_or(&obj->attr[page], all);
}

/* Clears attribute bits of all pages and, if bitmap is not NULL, sets a bit per page that had any
   of them (little-endian bit order, (pages + 7) / 8 bytes). Call with all vCPUs stopped; then flush
   the engine's writers. */
uint64_t hsk_memobj_collect(struct hsk_memobj *obj, uint8_t bits, uint8_t *bitmap);
/* Dirty pages become gathered ones, to be copied by another process while the guest goes on: what
   is written from here on is dirty again. A device announces a write before it does it, so nobody
   but the one who parked them all can clear the bit: conditions as above. */
void hsk_memobj_gather(struct hsk_memobj *obj);

#define HSK_RAM_MAX_REGIONS 16

struct hsk_ram_region {
    gpa_t gpa;
    uint64_t size_bytes;
    uint64_t offset; /* in the object */
    struct hsk_memobj *obj;
    bool readonly; /* guest writes are ignored (ROM) */
};

struct hsk_ram; /* the guest-physical memory map */

/* Tells an engine that somebody else wrote a page that it holds translations of. */
typedef void (*hsk_code_write_fn)(void *opaque, struct hsk_memobj *obj, uint64_t page);

struct hsk_ram *hsk_ram_new(void);
void hsk_ram_free(struct hsk_ram *ram); /* not the objects */
bool hsk_ram_map_add(struct hsk_ram *ram,
                     const struct hsk_ram_region *r); /* false: overlap or full */
bool hsk_ram_map_del(struct hsk_ram *ram, gpa_t gpa);
/* Frees the maps that add/del replaced. Loop thread, all vCPUs parked. */
void hsk_ram_reclaim(struct hsk_ram *ram);
/* Changes each time the map changes. */
uint64_t hsk_ram_generation(const struct hsk_ram *ram);
void hsk_ram_set_code_write(struct hsk_ram *ram, hsk_code_write_fn fn, void *opaque);
/* [offset, offset+len) of the object was written by somebody who had announced it: tells holders of
 * translations. */
void hsk_ram_written(struct hsk_ram *ram, struct hsk_memobj *obj, uint64_t offset, uint64_t len);

/* The region that holds gpa, or NULL (MMIO or nothing). Valid until the map changes. Lock-free. */
const struct hsk_ram_region *hsk_ram_find(const struct hsk_ram *ram, gpa_t gpa);
unsigned hsk_ram_regions(const struct hsk_ram *ram, struct hsk_ram_region out[HSK_RAM_MAX_REGIONS]);

/* Copies; the range may cross regions. false (and for reads: zeros) if any byte of it is not
 * memory. Device DMA. */
bool hsk_ram_read(struct hsk_ram *ram, gpa_t gpa, void *buf, uint64_t len);
/* Announces the write (hook, dirty bits), copies, then tells holders of translations. Writes to
 * read-only regions are ignored and count as true. */
bool hsk_ram_write(struct hsk_ram *ram, gpa_t gpa, const void *buf, uint64_t len);
/* A host pointer to [gpa, gpa+len) if that lies in one region, else NULL. The pointer is good until
 * the map changes. */
const void *hsk_ram_ptr(struct hsk_ram *ram, gpa_t gpa, uint64_t len);
/* The same for writing (NULL too if read-only): announces all pages first. Use the pointer at once,
   not over a snapshot, and call hsk_ram_written() behind it. */
void *hsk_ram_ptr_write(struct hsk_ram *ram, gpa_t gpa, uint64_t len);
