/* SPDX-License-Identifier: MIT */
/*
 * The I/O APIC (Intel 82093AA data sheet; version 0x20 with the EOI register, as in the ICH): 24
 * pins, edge and level.
 *
 * Threads: any. Pins are set with device locks held, so the state has a leaf lock of its own;
 * messages to the local APICs are sent under it (order: I/O APIC, then local APIC).
 *
 * Deliberately missing: the delivery-status bit (always idle) and polarity (lines are logical
 * levels here).
 */
#include <vmm/lapic.h>
#include <vmm/machine.h>

#include "devices.h"

#define NPINS          24
#define VERSION        (0x20u | (NPINS - 1) << 16)
#define RTE_WRITABLE   0xff0000000001afffull
#define RTE_REMOTE_IRR (1ull << 14)
#define RTE_LEVEL      (1ull << 15)
#define RTE_MASKED     (1ull << 16)

enum { MMIO_SELECT = 0x00, MMIO_WINDOW = 0x10, MMIO_EOI = 0x40 };

struct ioapic_state {
    uint64_t rte[NPINS];
    uint32_t lines;  /* levels of the pins */
    uint16_t id;     /* bits 24-27 of register 0 */
    uint16_t select; /* IOREGSEL */
};

struct ioapic {
    struct hsk_dev dev;
    pthread_mutex_t leaf;
    struct ioapic_state s; /* leaf lock */
};

#define F(m, ...)  HSK_F(struct ioapic_state, m, __VA_ARGS__)
#define FA(m, ...) HSK_FA(struct ioapic_state, m, __VA_ARGS__)
static const struct hsk_field ioapic_fields[] = {
    FA(rte),
    F(lines, .max = (1u << NPINS) - 1),
    F(id, .max = 15),
    F(select, .max = 0xff),
};
#undef F
#undef FA

/* Sends what pin has to say: an edge, or a level that is high and not in service. */
static void pin_send_locked(struct ioapic *io, unsigned pin, bool edge)
{
    uint64_t rte = io->s.rte[pin];
    bool level = rte & RTE_LEVEL;

    if (rte & RTE_MASKED)
        return;
    if (level) {
        if (!(io->s.lines >> pin & 1) || (rte & RTE_REMOTE_IRR))
            return;
        io->s.rte[pin] |= RTE_REMOTE_IRR;
    } else if (!edge) {
        return;
    }
    /* An RTE is an MSI in other clothes: bits 0-10 are data bits 0-10, 11 the destination mode,
     * 56-63 the destination. */
    hsk_msi_send(io->dev.machine, HSK_LAPIC_BASE | (rte >> 56) << 12 | (rte >> 11 & 1) << 2,
                 (uint32_t)(rte & 0x7ff) | (level ? 1u << 15 | 1u << 14 : 0));
}

void hsk_ioapic_set(struct hsk_dev *dev, unsigned pin, bool level)
{
    struct ioapic *io = (struct ioapic *)dev;

    if (pin >= NPINS)
        return;
    pthread_mutex_lock(&io->leaf);
    bool was = io->s.lines >> pin & 1;

    io->s.lines = (io->s.lines & ~(1u << pin)) | (uint32_t)level << pin;
    if (level && !was)
        pin_send_locked(io, pin, true);
    pthread_mutex_unlock(&io->leaf);
}

static void eoi(struct ioapic *io, uint8_t vector)
{
    pthread_mutex_lock(&io->leaf);
    for (unsigned pin = 0; pin < NPINS; pin++) {
        uint64_t rte = io->s.rte[pin];

        if ((rte & 0xff) != vector || !(rte & RTE_LEVEL) || !(rte & RTE_REMOTE_IRR))
            continue;
        io->s.rte[pin] = rte & ~RTE_REMOTE_IRR;
        pin_send_locked(io, pin, false);
    }
    pthread_mutex_unlock(&io->leaf);
}

void hsk_ioapic_eoi(struct hsk_machine *m, uint8_t vector)
{
    struct hsk_dev *dev = hsk_machine_find_dev(m, "ioapic");

    if (dev)
        eoi((struct ioapic *)dev, vector);
}

static uint32_t reg_read_locked(const struct ioapic *io)
{
    unsigned reg = io->s.select, pin = (reg - 0x10) / 2;

    switch (reg) {
    case 0: /* ID */
    case 2: /* arbitration ID: follows the ID */
        return (uint32_t)io->s.id << 24;
    case 1:
        return VERSION;
    default:
        if (reg < 0x10 || pin >= NPINS)
            return 0xffffffffu;
        return (uint32_t)(io->s.rte[pin] >> (reg & 1) * 32);
    }
}

static void reg_write_locked(struct ioapic *io, uint32_t value)
{
    unsigned reg = io->s.select, pin = (reg - 0x10) / 2, shift = (reg & 1) * 32;
    uint64_t rte;

    if (reg == 0)
        io->s.id = value >> 24 & 15;
    if (reg < 0x10 || pin >= NPINS)
        return;
    rte = (io->s.rte[pin] & ~(0xffffffffull << shift)) | (uint64_t)value << shift;
    rte = (rte & RTE_WRITABLE) | (io->s.rte[pin] & RTE_REMOTE_IRR);
    /* Remote IRR has no meaning for an edge pin; kernels switch to edge and back to clear it. */
    if (!(rte & RTE_LEVEL))
        rte &= ~RTE_REMOTE_IRR;
    io->s.rte[pin] = rte;
    pin_send_locked(io, pin, false);
}

static uint64_t ioapic_read(struct hsk_dev *dev, unsigned region, uint64_t offset, unsigned size)
{
    struct ioapic *io = (struct ioapic *)dev;
    uint32_t value = 0xffffffffu;

    pthread_mutex_lock(&io->leaf);
    if (offset == MMIO_SELECT)
        value = io->s.select;
    else if (offset == MMIO_WINDOW)
        value = reg_read_locked(io);
    pthread_mutex_unlock(&io->leaf);
    return value;
}

static void ioapic_write(struct hsk_dev *dev, unsigned region, uint64_t offset, unsigned size,
                         uint64_t value)
{
    struct ioapic *io = (struct ioapic *)dev;

    if (offset == MMIO_EOI) {
        eoi(io, (uint8_t)value);
        return;
    }
    pthread_mutex_lock(&io->leaf);
    if (offset == MMIO_SELECT)
        io->s.select = value & 0xff;
    else if (offset == MMIO_WINDOW && size == 4)
        reg_write_locked(io, (uint32_t)value);
    pthread_mutex_unlock(&io->leaf);
}

static void ioapic_reset(struct hsk_dev *dev)
{
    struct ioapic *io = (struct ioapic *)dev;

    memset(&io->s, 0, sizeof(io->s));
    for (unsigned pin = 0; pin < NPINS; pin++)
        io->s.rte[pin] = RTE_MASKED;
}

static bool ioapic_check(struct hsk_dev *dev, GError **error)
{
    struct ioapic *io = (struct ioapic *)dev;

    for (unsigned pin = 0; pin < NPINS; pin++) {
        uint64_t rte = io->s.rte[pin];

        if ((rte & ~(RTE_WRITABLE | RTE_REMOTE_IRR)) ||
            ((rte & RTE_REMOTE_IRR) && !(rte & RTE_LEVEL))) {
            g_set_error(error, HSK_ERROR, HSK_ERROR_DAMAGED,
                        "The saved state of %s is not one that an I/O APIC can have.", dev->id);
            return false;
        }
    }
    return true;
}

static void ioapic_free(struct hsk_dev *dev)
{
    struct ioapic *io = (struct ioapic *)dev;

    hsk_bus_unmap(hsk_machine_mmio(dev->machine), HSK_IOAPIC_BASE, dev);
    pthread_mutex_destroy(&io->leaf);
    hsk_dev_finish(dev);
    g_free(io);
}

static const struct hsk_dev_ops ioapic_ops = {
    .state = {"ioapic", 1, sizeof(struct ioapic_state), ioapic_fields, G_N_ELEMENTS(ioapic_fields)},
    .state_offset = offsetof(struct ioapic, s),
    .min_size = 1,
    .max_size = 4,
    .read = ioapic_read,
    .write = ioapic_write,
    .reset = ioapic_reset,
    .check = ioapic_check,
    .free = ioapic_free,
};

struct hsk_dev *hsk_ioapic_new(struct hsk_machine *m, const char *id)
{
    struct ioapic *io = g_new0(struct ioapic, 1);

    hsk_dev_init(&io->dev, &ioapic_ops, m, id);
    pthread_mutex_init(&io->leaf, NULL);
    hsk_assert(hsk_bus_map(hsk_machine_mmio(m), HSK_IOAPIC_BASE, HSK_PAGE_SIZE, &io->dev, 0));
    return &io->dev;
}
