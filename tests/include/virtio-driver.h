/* SPDX-License-Identifier: MIT */
/* A small virtio driver for tests: sets a device up through PCI as an operating system would, and
 * fills its rings in guest memory. */
#pragma once

#include <fake-machine.h>

#define VIRTIO_F_INDIRECT  (1ull << 28)
#define VIRTIO_F_EVENT_IDX (1ull << 29)
#define VIRTIO_F_VERSION_1 (1ull << 32)

enum { VDESC_NEXT = 1, VDESC_WRITE = 2, VDESC_INDIRECT = 4 };
enum { VSTATUS_OK = 0x0f, VSTATUS_NEEDS_RESET = 0x40 };
/* offsets in BAR 0 */
enum { V_COMMON = 0, V_ISR = 0x1000, V_DEVICE = 0x2000, V_NOTIFY = 0x3000, V_MSIX = 0x4000 };

#define VRING_BASE                                                                                 \
    0x100000 /* + 0x10000 per queue: descriptors, available at 0x4000, used at 0x8000 */
#define VDATA_BASE 0x200000

struct vdriver {
    struct hsk_machine *m;
    struct hsk_dev *dev;
    unsigned slot;
    uint64_t bar;
    uint16_t size;
    uint16_t avail[2], used[2]; /* next indices */
    unsigned next_desc;
};

static inline uint32_t pci_read(struct hsk_machine *m, unsigned slot, unsigned reg)
{
    return mmio_read32(m, HSK_ECAM_BASE + (slot << 15) + reg);
}
static inline void pci_write(struct hsk_machine *m, unsigned slot, unsigned reg, uint32_t value)
{
    mmio_write32(m, HSK_ECAM_BASE + (slot << 15) + reg, value);
}

static inline uint64_t vread(struct vdriver *d, unsigned offset, unsigned size)
{
    uint64_t v;

    assert_true(hsk_bus_read(hsk_machine_mmio(d->m), d->bar + offset, size, &v));
    return v;
}
static inline void vwrite(struct vdriver *d, unsigned offset, unsigned size, uint64_t value)
{
    assert_true(hsk_bus_write(hsk_machine_mmio(d->m), d->bar + offset, size, value));
}

static inline uint8_t *guest(struct vdriver *d, gpa_t gpa)
{
    return hsk_ram_ptr_write(hsk_machine_ram(d->m), gpa, 1);
}
static inline gpa_t ring(unsigned q, unsigned part)
{
    return VRING_BASE + q * 0x10000 + part * 0x4000;
}

static inline uint64_t voffered(struct vdriver *d)
{
    uint64_t f;

    vwrite(d, 0x00, 4, 0);
    f = vread(d, 0x04, 4);
    vwrite(d, 0x00, 4, 1);
    return f | vread(d, 0x04, 4) << 32;
}

static inline void vqueue(struct vdriver *d, unsigned q)
{
    memset(guest(d, ring(q, 0)), 0, 0xc000);
    vwrite(d, 0x16, 2, q);
    vwrite(d, 0x18, 2, d->size);
    vwrite(d, 0x20, 8, ring(q, 0));
    vwrite(d, 0x28, 4, (uint32_t)ring(q, 1)); /* half by half, as 32-bit drivers do */
    vwrite(d, 0x2c, 4, 0);
    vwrite(d, 0x30, 8, ring(q, 2));
    vwrite(d, 0x1c, 2, 1);
}

/* Bus master on, features, queues, DRIVER_OK. */
static inline void vstart(struct vdriver *d, uint64_t features, unsigned nqueues)
{
    pci_write(d->m, d->slot, 4, 0x6);
    vwrite(d, 0x14, 1, 0);
    assert_int_equal(vread(d, 0x14, 1), 0);
    vwrite(d, 0x14, 1, 3);
    vwrite(d, 0x08, 4, 0);
    vwrite(d, 0x0c, 4, (uint32_t)features);
    vwrite(d, 0x08, 4, 1);
    vwrite(d, 0x0c, 4, features >> 32);
    vwrite(d, 0x14, 1, 0x0b);
    assert_int_equal(vread(d, 0x14, 1), 0x0b);
    for (unsigned q = 0; q < nqueues; q++) {
        d->avail[q] = d->used[q] = 0;
        vqueue(d, q);
    }
    d->next_desc = 0;
    vwrite(d, 0x14, 1, VSTATUS_OK);
}

static inline struct vdriver vdriver(struct hsk_machine *m, const char *id, unsigned slot)
{
    struct vdriver d = {.m = m, .dev = hsk_machine_find_dev(m, id), .slot = slot, .size = 16};

    assert_non_null(d.dev);
    d.dev->ops->resume(d.dev);
    d.bar = pci_read(m, slot, 0x10);
    return d;
}

static inline void vdesc(struct vdriver *d, gpa_t table, unsigned i, gpa_t gpa, uint32_t len,
                         uint16_t flags, uint16_t next)
{
    uint8_t *p = guest(d, table + 16 * (gpa_t)i);

    hsk_put64(p, gpa);
    hsk_put32(p + 8, len);
    hsk_put16(p + 12, flags);
    hsk_put16(p + 14, next);
}

static inline void vavail(struct vdriver *d, unsigned q, uint16_t head)
{
    hsk_put16(guest(d, ring(q, 1) + 4 + 2 * (d->avail[q] % d->size)), head);
    d->avail[q]++;
    hsk_put16(guest(d, ring(q, 1) + 2), d->avail[q]);
}
static inline void vkick(struct vdriver *d, unsigned q)
{
    vwrite(d, V_NOTIFY + 4 * q, 2, q);
}
static inline uint16_t vused_idx(struct vdriver *d, unsigned q)
{
    return hsk_get16(guest(d, ring(q, 2) + 2));
}
/* All host I/O done and reported. */
static inline void vsettle(struct vdriver *d)
{
    if (d->dev->ops->pause)
        d->dev->ops->pause(d->dev);
    d->dev->ops->resume(d->dev);
}
static inline uint8_t vstatus(struct vdriver *d)
{
    return (uint8_t)vread(d, 0x14, 1);
}
