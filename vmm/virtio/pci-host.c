/* SPDX-License-Identifier: MIT */
/*
 * The PCI host: configuration mechanism 1 (ports 0xcf8-0xcff, PCI 3.0, 3.2.2.3.2), ECAM (PCI
 * Express 4.0, 7.2.2) at HSK_ECAM_BASE, the host bridge 0:0.0 and the four interrupt lines, GSI
 * 16-19, wired-or of the functions. vCPU threads. Holds its own lock while it takes that of the
 * function addressed (see pci.h). Deliberately missing: buses behind bridges, functions other than
 * 0, PCIEXBAR (ECAM does not move), SERR and friends.
 */
#include "../devices/devices.h"
#include "pci-devices.h"
#include "pci.h"

#define SLOTS     32
#define LINES     4
#define FIRST_GSI 16

enum { REGION_PORTS = 16, REGION_ECAM };
enum { PORT_ADDRESS = 0, PORT_RESET = 1, PORT_DATA = 4, PORTS = 8 };
#define ECAM_BYTES (256u << 20)

struct pci_host_state {
    struct hsk_pci_state pci;
    uint32_t address;
    uint32_t reserved; /* 0: fills the struct */
};

struct pci_host {
    struct hsk_pci_dev pci; /* the bridge's own function */
    struct pci_host_state s;
    struct hsk_dev *acpi_pm;
    struct hsk_pci_dev *slot[SLOTS]; /* borrowed; constant while vCPUs run */
    pthread_mutex_t lines_lock;      /* leaf */
    uint32_t lines[LINES]; /* a bit per slot that asserts; follows from the functions' states */
};

static const struct hsk_field host_fields[] = {
    HSK_PCI_FIELDS(struct pci_host_state, pci),
    HSK_F(struct pci_host_state, address),
    HSK_F(struct pci_host_state, reserved),
};

static struct pci_host *host_of(struct hsk_dev *dev)
{
    return hsk_container_of(dev, struct pci_host, pci.dev);
}

void hsk_pci_host_plug(struct hsk_dev *host, struct hsk_pci_dev *p)
{
    struct pci_host *h = host_of(host);

    hsk_assert(p->devfn % 8 == 0 && p->devfn / 8 < SLOTS && !h->slot[p->devfn / 8]);
    h->slot[p->devfn / 8] = p;
}

void hsk_pci_host_unplug(struct hsk_dev *host, struct hsk_pci_dev *p)
{
    struct pci_host *h = host_of(host);

    if (h->slot[p->devfn / 8] == p)
        h->slot[p->devfn / 8] = NULL;
}

/* INTA of slot s is line s % 4: dsdt.asl says the same. */
void hsk_pci_host_set_line(struct hsk_dev *host, unsigned devfn, bool level)
{
    struct pci_host *h = host_of(host);
    unsigned slot = devfn / 8, line = slot % LINES;
    uint32_t old;

    pthread_mutex_lock(&h->lines_lock);
    old = h->lines[line];
    h->lines[line] = level ? old | 1u << slot : old & ~(1u << slot);
    if (!old != !h->lines[line])
        hsk_irq_set(hsk_machine_gsi(host->machine, FIRST_GSI + line), h->lines[line] != 0);
    pthread_mutex_unlock(&h->lines_lock);
}

/* ---- configuration accesses ---- */

/* The function at bus, device, function of an ECAM offset (bus 20-27, device 15-19, function
 * 12-14), or NULL. */
static struct hsk_pci_dev *find(struct pci_host *h, uint32_t ecam)
{
    return (ecam >> 20) == 0 && (ecam >> 12 & 7) == 0 ? h->slot[ecam >> 15 & 31] : NULL;
}

static uint32_t config_read(struct pci_host *h, uint32_t ecam, unsigned size)
{
    struct hsk_pci_dev *p = find(h, ecam);
    unsigned offset = ecam & 0xfff;
    uint32_t v;

    if (!p)
        return UINT32_MAX;
    if (offset >= HSK_PCI_CONFIG_BYTES)
        return 0; /* no extended capabilities */
    if (p == &h->pci)
        return hsk_pci_config_read(p, offset, size);
    hsk_dev_enter(&p->dev);
    v = hsk_pci_config_read(p, offset, size);
    hsk_dev_leave(&p->dev);
    return v;
}

static void config_write(struct pci_host *h, uint32_t ecam, unsigned size, uint32_t value)
{
    struct hsk_pci_dev *p = find(h, ecam);
    unsigned offset = ecam & 0xfff;

    if (!p || offset >= HSK_PCI_CONFIG_BYTES)
        return;
    if (p == &h->pci) {
        hsk_pci_config_write(p, offset, size, value);
        return;
    }
    hsk_dev_enter(&p->dev);
    hsk_pci_config_write(p, offset, size, value);
    hsk_dev_leave(&p->dev);
}

/* The ECAM offset that the address register and a data port name, if enabled and naturally aligned.
 */
static bool data_target(const struct pci_host *h, uint64_t port, unsigned size, uint32_t *ecam)
{
    if (!(h->s.address & 0x80000000) || port < PORT_DATA || port % size != 0)
        return false;
    *ecam = (h->s.address & 0x00ffff00) << 4 | (h->s.address & 0xfc) | (uint32_t)(port & 3);
    return true;
}

static uint64_t host_read(struct hsk_dev *dev, unsigned region, uint64_t offset, unsigned size)
{
    struct pci_host *h = host_of(dev);
    uint32_t ecam;

    if (region == REGION_ECAM)
        return config_read(h, (uint32_t)offset, size);
    if (offset == PORT_ADDRESS && size == 4)
        return h->s.address;
    if (offset == PORT_RESET && size == 1 && h->acpi_pm)
        return hsk_acpi_pm_reset_read(h->acpi_pm);
    return data_target(h, offset, size, &ecam) ? config_read(h, ecam, size) : UINT64_MAX;
}

static void host_write(struct hsk_dev *dev, unsigned region, uint64_t offset, unsigned size,
                       uint64_t value)
{
    struct pci_host *h = host_of(dev);
    uint32_t ecam;

    if (region == REGION_ECAM)
        config_write(h, (uint32_t)offset, size, (uint32_t)value);
    else if (offset == PORT_ADDRESS && size == 4)
        h->s.address = (uint32_t)value & 0x80fffffc;
    else if (offset == PORT_RESET && size == 1 && h->acpi_pm)
        hsk_acpi_pm_reset_write(h->acpi_pm, (uint8_t)value);
    else if (data_target(h, offset, size, &ecam))
        config_write(h, ecam, size, (uint32_t)value);
}

static void host_reset(struct hsk_dev *dev)
{
    struct pci_host *h = host_of(dev);

    memset(&h->s, 0, sizeof h->s);
    hsk_pci_reset(&h->pci);
}

static bool host_check(struct hsk_dev *dev, GError **error)
{
    struct pci_host *h = host_of(dev);

    if ((h->s.address & ~0x80fffffc) || h->s.reserved) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_DAMAGED,
                    "The saved PCI registers of %s are damaged", dev->id);
        return false;
    }
    return hsk_pci_check(&h->pci, error);
}

static void host_resume(struct hsk_dev *dev)
{
    hsk_pci_resume(&host_of(dev)->pci);
}

static void host_free(struct hsk_dev *dev)
{
    struct pci_host *h = host_of(dev);

    hsk_bus_unmap(hsk_machine_pio(dev->machine), 0xcf8, dev);
    hsk_bus_unmap(hsk_machine_mmio(dev->machine), HSK_ECAM_BASE, dev);
    hsk_pci_finish(&h->pci);
    pthread_mutex_destroy(&h->lines_lock);
    g_free(h);
}

static const struct hsk_dev_ops host_ops = {
    .state = {"pci-host", 1, sizeof(struct pci_host_state), host_fields, G_N_ELEMENTS(host_fields)},
    .state_offset = offsetof(struct pci_host, s),
    .min_size = 1,
    .max_size = 4,
    .read = host_read,
    .write = host_write,
    .reset = host_reset,
    .check = host_check,
    .resume = host_resume,
    .free = host_free,
};

struct hsk_dev *hsk_pci_host_new(struct hsk_machine *m, const char *id, struct hsk_dev *acpi_pm)
{
    static const struct hsk_pci_ids ids = {
        .vendor = 0x8086, .device = 0x29c0, .class_code = 0x060000}; /* Q35 */
    struct pci_host *h = g_new0(struct pci_host, 1);

    hsk_pci_init(&h->pci, &host_ops, &h->s.pci, NULL, m, id, 0, &ids);
    pthread_mutex_init(&h->lines_lock, NULL);
    h->acpi_pm = acpi_pm;
    hsk_assert(hsk_bus_map(hsk_machine_pio(m), 0xcf8, PORTS, &h->pci.dev, REGION_PORTS));
    hsk_assert(
        hsk_bus_map(hsk_machine_mmio(m), HSK_ECAM_BASE, ECAM_BYTES, &h->pci.dev, REGION_ECAM));
    hsk_pci_plug(&h->pci);
    return &h->pci.dev;
}
