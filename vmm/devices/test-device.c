/* SPDX-License-Identifier: MIT */
/*
 * What test programs for processors and interrupt controllers ask of a machine, at the addresses
 * where QEMU's pc-testdev has it:
 *
 *   0xe0-0xe3, 0xe8-0xeb   one register of four bytes, at two places: any bytes of it can be
 * written and read back 0xe4-0xe7              a write says that a page changed its meaning; there
 * is nothing to do for it here 0x2000-0x2017          a write sets interrupt line GSI 0-23 to the
 * written bit 0 0xff000000-0xff00ffff  64 KiB of memory that is a device: every access is an exit
 * from the guest
 *
 * Not saved: the levels of the lines, which belong to the controllers.
 *
 * Threads: a vCPU's.
 */
#include <vmm/machine.h>

#include "devices.h"

#define MEMORY_BASE  0xff000000ull
#define MEMORY_BYTES 0x10000

enum { REGION_LATCH, REGION_PAGE, REGION_LINES, REGION_MEMORY };

static const struct {
    bool mmio;
    uint64_t base, size;
    unsigned region;
} ranges[] = {
    {false, 0xe0, 4, REGION_LATCH},
    {false, 0xe4, 4, REGION_PAGE},
    {false, 0xe8, 4, REGION_LATCH},
    {false, 0x2000, HSK_NGSI, REGION_LINES},
    {true, MEMORY_BASE, MEMORY_BYTES, REGION_MEMORY},
};

struct test_device_state {
    uint8_t latch[4];
    uint8_t memory[MEMORY_BYTES];
};

struct test_device {
    struct hsk_dev dev;
    struct test_device_state s; /* device lock */
};

static const struct hsk_field test_device_fields[] = {
    HSK_FA(struct test_device_state, latch),
    HSK_FA(struct test_device_state, memory),
};

/* The bytes that an access means; the bus lets none leave its region. */
static uint8_t *bytes_of(struct test_device *d, unsigned region, uint64_t offset)
{
    return region == REGION_LATCH ? &d->s.latch[offset] : &d->s.memory[offset];
}

static uint64_t test_device_read(struct hsk_dev *dev, unsigned region, uint64_t offset,
                                 unsigned size)
{
    uint64_t value = 0;

    if (region == REGION_LATCH || region == REGION_MEMORY)
        memcpy(&value, bytes_of((struct test_device *)dev, region, offset), size);
    return le64toh(value);
}

static void test_device_write(struct hsk_dev *dev, unsigned region, uint64_t offset, unsigned size,
                              uint64_t value)
{
    uint64_t raw = htole64(value);

    if (region == REGION_LINES)
        hsk_irq_set(hsk_machine_gsi(dev->machine, (unsigned)offset), value & 1);
    else if (region != REGION_PAGE)
        memcpy(bytes_of((struct test_device *)dev, region, offset), &raw, size);
}

static void test_device_reset(struct hsk_dev *dev)
{
    struct test_device *d = (struct test_device *)dev;

    memset(&d->s, 0, sizeof d->s);
}

static struct hsk_bus *bus_of(struct hsk_machine *m, unsigned i)
{
    return ranges[i].mmio ? hsk_machine_mmio(m) : hsk_machine_pio(m);
}

static void test_device_free(struct hsk_dev *dev)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(ranges); i++)
        hsk_bus_unmap(bus_of(dev->machine, i), ranges[i].base, dev);
    hsk_dev_finish(dev);
    g_free(dev);
}

static const struct hsk_dev_ops test_device_ops = {
    .state = {"test-device", 1, sizeof(struct test_device_state), test_device_fields,
              G_N_ELEMENTS(test_device_fields)},
    .state_offset = offsetof(struct test_device, s),
    .read = test_device_read,
    .write = test_device_write,
    .reset = test_device_reset,
    .free = test_device_free,
};

struct hsk_dev *hsk_test_device_new(struct hsk_machine *m, const char *id)
{
    struct test_device *d = g_new0(struct test_device, 1);

    hsk_dev_init(&d->dev, &test_device_ops, m, id);
    for (unsigned i = 0; i < G_N_ELEMENTS(ranges); i++)
        hsk_assert(
            hsk_bus_map(bus_of(m, i), ranges[i].base, ranges[i].size, &d->dev, ranges[i].region));
    return &d->dev;
}
