/* SPDX-License-Identifier: MIT */
/*
 * A PCI function (PCI Local Bus Specification 3.0, chapter 6): type 0 header, 32-bit memory BARs
 * that really move, INTA, MSI-X (6.8.2). vCPU threads through the PCI host, under the function's
 * lock. Deliberately missing: I/O and 64-bit BARs, expansion ROM, MSI, power management, parity
 * errors: no function here has them.
 */
#include "pci.h"

enum {
    CFG_COMMAND = 0x04,
    CFG_STATUS = 0x06,
    CFG_CACHE_LINE = 0x0c,
    CFG_LATENCY = 0x0d,
    CFG_BAR0 = 0x10,
    CFG_BAR_END = 0x28,
    CFG_CAPS = 0x34,
    CFG_IRQ_LINE = 0x3c,
    CFG_IRQ_PIN = 0x3d,
    CFG_FIRST_CAP = 0x40,
};
#define STATUS_INTX   (1u << 3)
#define STATUS_CAPS   (1u << 4)
#define COMMAND_MASK  (HSK_PCI_CMD_IO | HSK_PCI_CMD_MEM | HSK_PCI_CMD_MASTER | HSK_PCI_CMD_NOINTX)
#define MSIX_ENABLE   0x8000u
#define MSIX_MASK_ALL 0x4000u
#define CAP_MSIX      0x11

void hsk_pci_init(struct hsk_pci_dev *p, const struct hsk_dev_ops *ops, struct hsk_pci_state *state,
                  struct hsk_dev *host, struct hsk_machine *m, const char *id, unsigned devfn,
                  const struct hsk_pci_ids *ids)
{
    hsk_dev_init(&p->dev, ops, m, id);
    p->s = state;
    p->host = host ? host : &p->dev;
    p->devfn = devfn;
    p->next_cap = CFG_FIRST_CAP;
    hsk_put16(p->config, ids->vendor);
    hsk_put16(p->config + 2, ids->device);
    hsk_put32(p->config + 8, ids->class_code << 8 | ids->revision);
    hsk_put16(p->config + 0x2c, ids->subvendor);
    hsk_put16(p->config + 0x2e, ids->subdevice);
    p->config[CFG_IRQ_PIN] = ids->intx ? 1 : 0;
    for (unsigned i = 0; i < HSK_PCI_MAX_BARS; i++)
        p->mapped[i] = HSK_PCI_UNMAPPED;
}

void hsk_pci_set_bar(struct hsk_pci_dev *p, unsigned n, uint32_t size_bytes, uint32_t power_on,
                     struct hsk_memobj *obj)
{
    if (!power_on) {
        hsk_assert(size_bytes <= 0x10000);
        power_on = (uint32_t)HSK_PCI_MMIO_BASE + (p->devfn << 17) + (n << 16);
    }
    hsk_assert(n < HSK_PCI_MAX_BARS && (size_bytes & (size_bytes - 1)) == 0 && size_bytes >= 16 &&
               power_on % size_bytes == 0);
    p->bar[n] = (struct hsk_pci_bar){.size_bytes = size_bytes, .power_on = power_on, .obj = obj};
}

unsigned hsk_pci_add_cap(struct hsk_pci_dev *p, uint8_t id, unsigned len)
{
    unsigned at = p->next_cap;

    hsk_assert(at + len <= HSK_PCI_CONFIG_BYTES);
    p->config[at] = id;
    p->config[p->last_cap ? p->last_cap + 1 : CFG_CAPS] = (uint8_t)at;
    p->last_cap = at;
    p->next_cap = (at + len + 3) & ~3u;
    hsk_put16(p->config + CFG_STATUS, STATUS_CAPS);
    return at;
}

void hsk_pci_add_msix(struct hsk_pci_dev *p, unsigned n, unsigned bar, uint32_t table, uint32_t pba)
{
    hsk_assert(n >= 1 && n <= HSK_PCI_MAX_MSIX);
    p->nmsix = n;
    p->msix_cap = hsk_pci_add_cap(p, CAP_MSIX, 12);
    hsk_put16(p->config + p->msix_cap + 2, (uint16_t)(n - 1));
    hsk_put32(p->config + p->msix_cap + 4, table | bar);
    hsk_put32(p->config + p->msix_cap + 8, pba | bar);
}

void hsk_pci_plug(struct hsk_pci_dev *p)
{
    hsk_pci_host_plug(p->host, p);
}

/* ---- where the BARs are ---- */

static uint64_t wanted_address(const struct hsk_pci_dev *p, unsigned i)
{
    uint64_t addr = p->s->bar[i], size = p->bar[i].size_bytes;

    /* outside of the window that the host bridge forwards nobody hears the function: least of all
     * on top of memory */
    if (!size || !(p->s->command & HSK_PCI_CMD_MEM) || addr < HSK_PCI_MMIO_BASE ||
        addr + size > HSK_PCI_MMIO_END)
        return HSK_PCI_UNMAPPED;
    return addr;
}

static void unmap(struct hsk_pci_dev *p, unsigned i)
{
    if (p->mapped[i] == HSK_PCI_UNMAPPED)
        return;
    if (p->bar[i].obj)
        hsk_ram_map_del(hsk_machine_ram(p->dev.machine), p->mapped[i]);
    else
        hsk_bus_unmap(hsk_machine_mmio(p->dev.machine), p->mapped[i], &p->dev);
    p->mapped[i] = HSK_PCI_UNMAPPED;
}

/* On top of another function's BAR the first one stays: undefined on hardware, harmless here. */
static void map(struct hsk_pci_dev *p, unsigned i, uint64_t addr)
{
    const struct hsk_pci_bar *bar = &p->bar[i];
    struct hsk_ram_region region = {.gpa = addr, .size_bytes = bar->size_bytes, .obj = bar->obj};
    bool ok =
        bar->obj ? hsk_ram_map_add(hsk_machine_ram(p->dev.machine), &region)
                 : hsk_bus_map(hsk_machine_mmio(p->dev.machine), addr, bar->size_bytes, &p->dev, i);

    if (ok)
        p->mapped[i] = addr;
}

static void update_maps(struct hsk_pci_dev *p)
{
    bool changed = false;

    for (unsigned i = 0; i < HSK_PCI_MAX_BARS; i++) {
        uint64_t addr = wanted_address(p, i);

        if (addr == p->mapped[i])
            continue;
        unmap(p, i);
        if (addr != HSK_PCI_UNMAPPED)
            map(p, i, addr);
        changed = true;
    }
    if (changed)
        hsk_machine_memory_changed(p->dev.machine);
}

/* ---- interrupts ---- */

static void update_intx(struct hsk_pci_dev *p)
{
    if (p->config[CFG_IRQ_PIN])
        hsk_pci_host_set_line(p->host, p->devfn,
                              p->s->intx && !(p->s->command & HSK_PCI_CMD_NOINTX));
}

void hsk_pci_set_intx(struct hsk_pci_dev *p, bool level)
{
    p->s->intx = level;
    update_intx(p);
}

static bool msix_masked(const struct hsk_pci_dev *p, unsigned vector)
{
    return (p->s->msix_control & MSIX_MASK_ALL) || (p->s->msix_table[vector * 4 + 3] & 1);
}

void hsk_pci_send_msix(struct hsk_pci_dev *p, unsigned vector)
{
    const uint32_t *entry;

    if (vector >= p->nmsix || !hsk_pci_msix_enabled(p))
        return;
    if (msix_masked(p, vector)) {
        p->s->msix_pending |= 1u << vector;
        return;
    }
    p->s->msix_pending &= ~(1ull << vector);
    entry = p->s->msix_table + vector * 4;
    hsk_msi_send(p->dev.machine, entry[0] | (uint64_t)entry[1] << 32, entry[2]);
}

/* Sends what waited for a mask that is gone now. */
static void msix_unmasked(struct hsk_pci_dev *p)
{
    for (unsigned i = 0; i < p->nmsix; i++) {
        if ((p->s->msix_pending >> i & 1) && hsk_pci_msix_enabled(p) && !msix_masked(p, i))
            hsk_pci_send_msix(p, i);
    }
}

uint32_t hsk_pci_msix_read(struct hsk_pci_dev *p, uint32_t offset)
{
    return offset / 4 < p->nmsix * 4 ? p->s->msix_table[offset / 4] : 0;
}

void hsk_pci_msix_write(struct hsk_pci_dev *p, uint32_t offset, uint32_t value)
{
    uint32_t i = offset / 4;

    if (i >= p->nmsix * 4)
        return;
    if (i % 4 == 0)
        value &= ~3u;
    else if (i % 4 == 3)
        value &= 1;
    p->s->msix_table[i] = value;
    msix_unmasked(p);
}

uint64_t hsk_pci_msix_pba(const struct hsk_pci_dev *p)
{
    return p->s->msix_pending;
}

/* ---- configuration space ---- */

/* The aligned 32-bit register as the guest sees it. */
static uint32_t read_reg(const struct hsk_pci_dev *p, unsigned reg)
{
    const struct hsk_pci_state *s = p->s;
    uint32_t v = hsk_get32(p->config + reg);

    if (reg == CFG_COMMAND)
        return v | s->command | (uint32_t)(s->intx ? STATUS_INTX : 0) << 16;
    if (reg == CFG_CACHE_LINE)
        return v | s->cache_line_size | (uint32_t)s->latency_timer << 8;
    if (reg >= CFG_BAR0 && reg < CFG_BAR_END)
        return s->bar[(reg - CFG_BAR0) / 4];
    if (reg == CFG_IRQ_LINE)
        return v | s->interrupt_line;
    if (p->msix_cap && reg == p->msix_cap)
        return v | (uint32_t)s->msix_control << 16;
    return v;
}

static void write_reg(struct hsk_pci_dev *p, unsigned reg, uint32_t value)
{
    struct hsk_pci_state *s = p->s;

    if (reg == CFG_COMMAND) {
        s->command = value & COMMAND_MASK;
        update_maps(p);
        update_intx(p);
    } else if (reg == CFG_CACHE_LINE) {
        s->cache_line_size = (uint8_t)value;
        s->latency_timer = (uint8_t)(value >> 8);
    } else if (reg >= CFG_BAR0 && reg < CFG_BAR_END) {
        unsigned i = (reg - CFG_BAR0) / 4;

        s->bar[i] = p->bar[i].size_bytes ? value & ~(p->bar[i].size_bytes - 1) : 0;
        update_maps(p);
    } else if (reg == CFG_IRQ_LINE) {
        s->interrupt_line = (uint8_t)value;
    } else if (p->msix_cap && reg == p->msix_cap) {
        s->msix_control = (uint16_t)(value >> 16) & (MSIX_ENABLE | MSIX_MASK_ALL);
        msix_unmasked(p);
    }
}

uint32_t hsk_pci_config_read(struct hsk_pci_dev *p, unsigned offset, unsigned size)
{
    uint32_t v = read_reg(p, offset & ~3u) >> (8 * (offset & 3));

    return size == 4 ? v : v & ((1u << (8 * size)) - 1);
}

void hsk_pci_config_write(struct hsk_pci_dev *p, unsigned offset, unsigned size, uint32_t value)
{
    unsigned shift = 8 * (offset & 3);
    uint32_t mask = (size == 4 ? UINT32_MAX : (1u << (8 * size)) - 1) << shift;
    uint32_t old = read_reg(p, offset & ~3u);

    write_reg(p, offset & ~3u, (old & ~mask) | ((value << shift) & mask));
}

/* ---- life cycle ---- */

void hsk_pci_reset(struct hsk_pci_dev *p)
{
    memset(p->s, 0, sizeof *p->s);
    for (unsigned i = 0; i < HSK_PCI_MAX_BARS; i++)
        p->s->bar[i] = p->bar[i].power_on;
    for (unsigned i = 0; i < p->nmsix; i++)
        p->s->msix_table[i * 4 + 3] = 1;
    p->s->command = HSK_PCI_CMD_MEM;
}

bool hsk_pci_check(struct hsk_pci_dev *p, GError **error)
{
    bool ok = (p->s->command & ~COMMAND_MASK) == 0 &&
              (p->s->msix_control & ~(MSIX_ENABLE | MSIX_MASK_ALL)) == 0 &&
              (p->nmsix || p->s->msix_control == 0) && p->s->msix_pending >> p->nmsix == 0;

    for (unsigned i = 0; i < HSK_PCI_MAX_BARS; i++) {
        uint32_t mask = p->bar[i].size_bytes ? p->bar[i].size_bytes - 1 : UINT32_MAX;

        ok = ok && (p->s->bar[i] & mask) == 0;
    }
    for (unsigned i = 0; i < HSK_PCI_MAX_MSIX * 4; i++) {
        uint32_t reserved = i >= p->nmsix * 4 ? UINT32_MAX : i % 4 == 0 ? 3 : i % 4 == 3 ? ~1u : 0;

        ok = ok && (p->s->msix_table[i] & reserved) == 0;
    }
    if (!ok)
        g_set_error(error, HSK_ERROR, HSK_ERROR_DAMAGED,
                    "The saved PCI registers of %s are damaged", p->dev.id);
    return ok;
}

void hsk_pci_resume(struct hsk_pci_dev *p)
{
    update_maps(p);
    update_intx(p);
}

void hsk_pci_finish(struct hsk_pci_dev *p)
{
    for (unsigned i = 0; i < HSK_PCI_MAX_BARS; i++)
        unmap(p, i);
    hsk_pci_host_unplug(p->host, p);
    hsk_dev_finish(&p->dev);
}
