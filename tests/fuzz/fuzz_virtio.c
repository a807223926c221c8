/* SPDX-License-Identifier: MIT */
/* fuzz-libs: hsk_vmm */
/*
 * A hostile virtio driver: both virtio devices are set up properly, then the input fills rings and
 * descriptors with what it likes, kicks, pokes registers, and lets I/O finish. Afterwards the
 * device's own state must pass its own check.
 */
#include <stdlib.h>

#include "../include/fake-engine.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define RINGS      0x100000u /* 64 KiB a queue: descriptors, +0x4000 available, +0x8000 used */
#define RING_BYTES 0x10000u
#define DISK_BYTES (1u << 20)
#define OPS_MAX    256

struct input {
    const uint8_t *p;
    size_t left;
};

static struct hsk_machine *machine; /* one for all inputs: making one takes longer than an input */
static const struct {
    const char *id;
    unsigned slot, nqueues;
} targets[2] = {{"virtio-blk.0", 4, 1}, {"virtio-tablet", 2, 2}};

static uint64_t take(struct input *in, unsigned bytes)
{
    uint8_t buf[8] = {0};
    size_t n = MIN(bytes, in->left);

    if (n)
        memcpy(buf, in->p, n);
    in->p += n;
    in->left -= n;
    return hsk_get64(buf);
}

static void make(void)
{
    struct hsk_machine_config cfg = fake_config();
    int fd = hsk_memfd_new("disk", DISK_BYTES, NULL);

    cfg.vram_bytes = 16u << 20;
    cfg.ndisks = 1;
    cfg.disks[0].block = hsk_block_rawfile_new(fd, false, NULL);
    hsk_assert(cfg.disks[0].block);
    machine = hsk_machine_new(&cfg, NULL);
    hsk_assert(machine);
}

static void reg_write(uint64_t bar, unsigned offset, unsigned size, uint64_t value)
{
    hsk_bus_write(hsk_machine_mmio(machine), bar + offset, size, value);
}

static uint64_t bar_of(unsigned slot)
{
    uint64_t v;

    hsk_bus_read(hsk_machine_mmio(machine), HSK_ECAM_BASE + (slot << 15) + 0x10, 4, &v);
    return v;
}

static void start_driver(uint64_t bar, unsigned nqueues, uint32_t features)
{
    reg_write(bar, 0x14, 1, 0);
    reg_write(bar, 0x14, 1, 3);
    reg_write(bar, 0x08, 4, 0);
    reg_write(bar, 0x0c, 4, features & 0x30006266);
    reg_write(bar, 0x08, 4, 1);
    reg_write(bar, 0x0c, 4, 1);
    reg_write(bar, 0x14, 1, 0x0b);
    for (unsigned q = 0; q < nqueues; q++) {
        reg_write(bar, 0x16, 2, q);
        reg_write(bar, 0x18, 2, 16);
        reg_write(bar, 0x20, 8, RINGS + q * RING_BYTES);
        reg_write(bar, 0x28, 8, RINGS + q * RING_BYTES + 0x4000);
        reg_write(bar, 0x30, 8, RINGS + q * RING_BYTES + 0x8000);
        reg_write(bar, 0x1c, 2, 1);
    }
    reg_write(bar, 0x14, 1, 0x0f);
}

static void settle(struct hsk_dev *dev)
{
    if (dev->ops->pause)
        dev->ops->pause(dev);
    dev->ops->resume(dev);
}

/* A descriptor made of input bytes, but with an address and flags that often mean something. */
static void write_desc(struct input *in, unsigned q)
{
    unsigned i = (unsigned)take(in, 1) % 16, next = (unsigned)take(in, 1);
    uint64_t gpa = take(in, 1) & 1 ? take(in, 8) : RINGS + take(in, 2);
    uint8_t d[16];

    hsk_put64(d, gpa);
    hsk_put32(d + 8, (uint32_t)take(in, 3));
    hsk_put16(d + 12, (uint16_t)(take(in, 1) & 7));
    hsk_put16(d + 14, (uint16_t)(next % 17));
    hsk_ram_write(hsk_machine_ram(machine), RINGS + q * RING_BYTES + 16 * i, d, sizeof d);
}

static void write_avail(struct input *in, unsigned q)
{
    uint8_t v[2];
    gpa_t avail = RINGS + q * RING_BYTES + 0x4000;

    hsk_put16(v, (uint16_t)(take(in, 1) % 17));
    hsk_ram_write(hsk_machine_ram(machine), avail + 4 + 2 * (take(in, 1) % 16), v, 2);
    hsk_put16(v, (uint16_t)take(in, 1));
    hsk_ram_write(hsk_machine_ram(machine), avail + 2, v, 2);
}

static void write_raw(struct input *in)
{
    gpa_t at = RINGS + take(in, 2);
    uint8_t buf[8];

    hsk_put64(buf, take(in, 8));
    hsk_ram_write(hsk_machine_ram(machine), at, buf, sizeof buf);
}

static void operate(struct input *in, unsigned t, struct hsk_dev *dev, uint64_t bar)
{
    unsigned op = (unsigned)take(in, 1), q = op >> 7;

    switch (op % 8) {
    case 0:
    case 1:
        write_desc(in, q);
        break;
    case 2:
        write_avail(in, q);
        break;
    case 3:
        write_raw(in);
        break;
    case 4:
        reg_write(bar, 0x3000 + 4 * q, 2, q);
        break;
    case 5:
        settle(dev);
        break;
    case 6:
        reg_write(bar, (unsigned)take(in, 1) & 0x3f, 1u << (take(in, 1) & 3), take(in, 8));
        break;
    default:
        if (op & 0x40)
            start_driver(bar, targets[t].nqueues, (uint32_t)take(in, 4));
        else
            hsk_machine_input(machine)->pointer_abs(
                hsk_machine_input(machine), (uint16_t)take(in, 2), (uint16_t)take(in, 2), 1);
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = {data, size};
    unsigned t = (unsigned)take(&in, 1) & 1;
    struct hsk_dev *dev;
    uint64_t bar;

    if (!machine)
        make();
    hsk_machine_reset(machine);
    dev = hsk_machine_find_dev(machine, targets[t].id);
    dev->ops->resume(dev);
    bar = bar_of(targets[t].slot);
    hsk_bus_write(hsk_machine_mmio(machine), HSK_ECAM_BASE + (targets[t].slot << 15) + 4, 2, 6);
    memset(hsk_ram_ptr_write(hsk_machine_ram(machine), RINGS, 2 * RING_BYTES), 0, 2 * RING_BYTES);
    start_driver(bar, targets[t].nqueues, (uint32_t)take(&in, 4));
    for (unsigned i = 0; i < OPS_MAX && in.left; i++)
        operate(&in, t, dev, bar);
    settle(dev);
    dev->ops->pause ? dev->ops->pause(dev) : (void)0;
    if (!dev->ops->check(dev, NULL))
        abort();
    return 0;
}
