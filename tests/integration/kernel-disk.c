/* SPDX-License-Identifier: MIT */
/*
 * The smallest virtio-blk driver that works (Virtio 1.1, 4.1 and 5.2): one queue, one request at a
 * time, polling. There is no firmware, so it gives the device its address itself.
 */
#include "kernel.h"

#define BAR_AT    0xc1000000u
#define QUEUE_LEN 8

struct desc {
    uint64_t addr;
    uint32_t len;
    uint16_t flags, next;
};
static struct desc desc[QUEUE_LEN] __attribute__((aligned(16)));
static struct {
    uint16_t flags, idx, ring[QUEUE_LEN];
} avail __attribute__((aligned(2)));
static volatile struct {
    uint16_t flags, idx;
    struct {
        uint32_t id, len;
    } ring[QUEUE_LEN];
} used __attribute__((aligned(4)));
static struct {
    uint32_t type, reserved;
    uint64_t sector;
} header;
static volatile uint8_t status;
static volatile uint8_t *common, *notify;

static uint32_t config_read(uint32_t dev, uint32_t reg)
{
    outl(0xcf8, 0x80000000u | dev << 11 | (reg & 0xfc));
    return inl(0xcfc) >> (reg & 3) * 8;
}

static void config_write(uint32_t dev, uint32_t reg, uint32_t v)
{
    outl(0xcf8, 0x80000000u | dev << 11 | reg);
    outl(0xcfc, v);
}

#define REG8(at)  (*(volatile uint8_t *)(common + (at)))
#define REG16(at) (*(volatile uint16_t *)(common + (at)))
#define REG32(at) (*(volatile uint32_t *)(common + (at)))

static void set64(uint32_t at, const volatile void *p)
{
    REG32(at) = (uint32_t)(uintptr_t)p;
    REG32(at + 4) = 0;
}

static int find_structures(uint32_t dev)
{
    uint32_t multiplier = 0, notify_at = 0;

    for (uint32_t cap = config_read(dev, 0x34) & 0xff; cap;
         cap = config_read(dev, cap + 1) & 0xff) {
        if ((config_read(dev, cap) & 0xff) != 9)
            continue;
        uint32_t type = config_read(dev, cap + 3) & 0xff, offset = config_read(dev, cap + 8);
        if (type == 1)
            common = (volatile uint8_t *)(BAR_AT + offset);
        if (type == 2) {
            notify_at = BAR_AT + offset;
            multiplier = config_read(dev, cap + 16);
        }
    }
    if (!common || !notify_at)
        return -2;
    REG16(0x16) = 0;
    notify = (volatile uint8_t *)(notify_at + REG16(0x1e) * multiplier);
    return 0;
}

int disk_init(void)
{
    uint32_t dev = 0;

    while (dev < 32 && config_read(dev, 0) != 0x10421af4u)
        dev++;
    if (dev == 32)
        return -1;
    config_write(dev, 0x10, BAR_AT);
    config_write(dev, 0x14, 0);
    config_write(dev, 0x04, 6); /* memory, bus master */
    int r = find_structures(dev);
    if (r)
        return r;
    REG8(0x14) = 0;
    while (REG8(0x14))
        ;
    REG8(0x14) = 3; /* acknowledge, driver */
    REG32(0x08) = 0;
    REG32(0x0c) = 1u << 9; /* flush */
    REG32(0x08) = 1;
    REG32(0x0c) = 1; /* version 1 */
    REG8(0x14) = 11;
    if (!(REG8(0x14) & 8))
        return -3;
    REG16(0x16) = 0;
    REG16(0x18) = QUEUE_LEN;
    set64(0x20, desc);
    set64(0x28, &avail);
    set64(0x30, &used);
    REG16(0x1c) = 1;
    REG8(0x14) = 15;
    return 0;
}

static int request(uint32_t type, uint64_t sector, void *buf, uint32_t bytes, int device_writes)
{
    uint16_t n = 0, before = used.idx;

    header.type = type;
    header.sector = sector;
    status = 0xff;
    desc[n] = (struct desc){(uintptr_t)&header, sizeof(header), 1, (uint16_t)(n + 1)};
    n++;
    if (bytes) {
        desc[n] = (struct desc){(uintptr_t)buf, bytes, (uint16_t)(1 | (device_writes ? 2 : 0)),
                                (uint16_t)(n + 1)};
        n++;
    }
    desc[n] = (struct desc){(uintptr_t)&status, 1, 2, 0};
    avail.ring[avail.idx % QUEUE_LEN] = 0;
    __asm__ volatile("" : : : "memory");
    avail.idx++;
    __asm__ volatile("lock; addl $0, (%%esp)" : : : "memory");
    *(volatile uint16_t *)notify = 0;
    while (used.idx == before)
        __asm__ volatile("pause");
    return status ? -4 : 0;
}

int disk_io(int write, uint64_t sector, void *buf, uint32_t bytes)
{
    return request(write ? 1 : 0, sector, buf, bytes, !write);
}

int disk_flush(void)
{
    return request(4, 0, 0, 0, 0);
}
