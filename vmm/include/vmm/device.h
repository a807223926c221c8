/* SPDX-License-Identifier: MIT */
/*
 * A device model: one file, one state struct, one table (house style 3.3), and its life cycle
 * (3.4): new -> either reset or (load + check) -> all loaded -> resume -> vCPUs run -> vCPUs
 * stopped -> pause -> save -> free.
 *
 * Threads: the bus takes the device's lock around read/write; timers and fd callbacks take it with
 * hsk_dev_enter/leave (use HSK_DEV_GUARD). Device code takes no other lock, never blocks, and
 * reaches others only through irq lines, guest memory and hsk_loop_call.
 */
#pragma once

#include <base/loop.h>
#include <base/state.h>
#include <vmm/memory.h>

#include <pthread.h>

struct hsk_machine;
struct hsk_dev;

struct hsk_dev_ops {
    struct hsk_state_desc state;
    uint32_t state_offset; /* of the state struct inside the device struct */
    uint8_t min_size,
        max_size; /* accesses of other sizes read all-ones and are not written; 0 = 1..8 */
    /* region: what hsk_bus_map said; offset inside it; size 1, 2, 4, 8, naturally aligned unless
     * the device is PIO */
    uint64_t (*read)(struct hsk_dev *dev, unsigned region, uint64_t offset, unsigned size);
    void (*write)(struct hsk_dev *dev, unsigned region, uint64_t offset, unsigned size,
                  uint64_t value);
    void (*reset)(struct hsk_dev *dev); /* fields only */
    bool (*check)(struct hsk_dev *dev,
                  GError **error); /* after load: refuse what the table cannot say; may be NULL */
    void (*pause)(struct hsk_dev *dev);  /* finish or park host I/O; idempotent; may be NULL */
    void (*resume)(struct hsk_dev *dev); /* after reset or load of all: re-arm timers, publish irq
                                            lines, kick queues */
    void (*free)(struct hsk_dev *dev);   /* everything incl. the struct */
};

struct hsk_dev {
    const struct hsk_dev_ops *ops;
    char id[32]; /* unique in the machine: "uart16550.0" */
    pthread_mutex_t lock;
    struct hsk_machine *machine; /* borrowed */
};

/* Call first in every xxx_new(). */
void hsk_dev_init(struct hsk_dev *dev, const struct hsk_dev_ops *ops, struct hsk_machine *m,
                  const char *id);
/* Call last in ops->free before freeing the struct. */
void hsk_dev_finish(struct hsk_dev *dev);

static inline void *hsk_dev_state(struct hsk_dev *dev)
{
    return (char *)dev + dev->ops->state_offset;
}
static inline void hsk_dev_enter(struct hsk_dev *dev)
{
    pthread_mutex_lock(&dev->lock);
}
static inline void hsk_dev_leave(struct hsk_dev *dev)
{
    pthread_mutex_unlock(&dev->lock);
}
static inline void hsk_dev_leave_(struct hsk_dev **dev)
{
    hsk_dev_leave(*dev);
}
#define HSK_DEV_GUARD(d)                                                                           \
    __attribute__((cleanup(hsk_dev_leave_), unused)) struct hsk_dev *guard_##__LINE__ =            \
        (hsk_dev_enter(d), (d))

/* An interrupt line. set may be called from any thread with a device lock held; it is a leaf (takes
 * only irqchip locks). */
struct hsk_irq {
    void (*set)(struct hsk_irq *irq, bool level);
};
static inline void hsk_irq_set(struct hsk_irq *irq, bool level)
{
    irq->set(irq, level);
}

/* The bus: ports or MMIO. Lookup is an immutable sorted table; map/unmap publish a new one. */
struct hsk_bus;
struct hsk_bus *hsk_bus_new(const char *name);
void hsk_bus_free(struct hsk_bus *bus);
/* false: overlap. dev is borrowed. */
bool hsk_bus_map(struct hsk_bus *bus, uint64_t base, uint64_t size, struct hsk_dev *dev,
                 unsigned region);
bool hsk_bus_unmap(struct hsk_bus *bus, uint64_t base, struct hsk_dev *dev);
/* Frees the tables that map/unmap replaced. Loop thread, all vCPUs parked: nobody may be in the
 * middle of a lookup. */
void hsk_bus_reclaim(struct hsk_bus *bus);
/* Unclaimed: reads give all-ones, writes vanish, and both return false. size 1, 2, 4, 8; an access
   that crosses a mapping's end counts as unclaimed. Calls the device under its lock on the calling
   thread. */
bool hsk_bus_read(struct hsk_bus *bus, uint64_t addr, unsigned size, uint64_t *value);
bool hsk_bus_write(struct hsk_bus *bus, uint64_t addr, unsigned size, uint64_t value);
