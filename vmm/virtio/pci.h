/* SPDX-License-Identifier: MIT */
/*
 * A PCI function (PCI Local Bus 3.0): configuration space, BARs, INTx and MSI-X. A PCI device
 * embeds struct hsk_pci_dev first in its struct and struct hsk_pci_state in its state struct (with
 * HSK_PCI_FIELDS in its table).
 *
 * Threads: everything under the function's device lock, except where said. Configuration accesses
 * come through the PCI host, which holds its own lock as well: the one nesting of device locks
 * (host, then function); a function never calls the host's lock: interrupt lines go through the
 * host's leaf lock.
 */
#pragma once

#include <vmm/machine.h>

#define HSK_PCI_MAX_BARS     6
#define HSK_PCI_MAX_MSIX     4
#define HSK_PCI_CONFIG_BYTES 256
#define HSK_PCI_UNMAPPED     UINT64_MAX

/* Command register bits. */
#define HSK_PCI_CMD_IO     (1u << 0)
#define HSK_PCI_CMD_MEM    (1u << 1)
#define HSK_PCI_CMD_MASTER (1u << 2)
#define HSK_PCI_CMD_NOINTX (1u << 10)

/* What the guest can change. */
struct hsk_pci_state {
    uint64_t msix_pending;
    uint32_t msix_table[HSK_PCI_MAX_MSIX * 4];
    uint32_t bar[HSK_PCI_MAX_BARS];
    uint16_t command;
    uint16_t msix_control; /* enable 15, function mask 14 */
    uint8_t interrupt_line;
    uint8_t cache_line_size;
    uint8_t latency_timer;
    uint8_t intx; /* level of the function's own interrupt, before the disable bit */
};

#define HSK_PCI_FIELDS(type, m)                                                                    \
    HSK_F(type, m.msix_pending, .max = (1u << HSK_PCI_MAX_MSIX) - 1), HSK_FA(type, m.msix_table),  \
        HSK_FA(type, m.bar), HSK_F(type, m.command, .max = 0x407),                                 \
        HSK_F(type, m.msix_control, .max = 0xc000), HSK_F(type, m.interrupt_line),                 \
        HSK_F(type, m.cache_line_size), HSK_F(type, m.latency_timer),                              \
        HSK_F(type, m.intx, .max = 1)

struct hsk_pci_bar {
    uint32_t size_bytes;    /* power of two, 0: none */
    uint32_t power_on;      /* address after reset: nobody else assigns one before a direct boot */
    struct hsk_memobj *obj; /* memory seen there, or NULL: registers, region = number of the BAR */
};

struct hsk_pci_dev {
    struct hsk_dev dev;
    /* constant after new */
    struct hsk_pci_state *s;
    struct hsk_dev *host;
    unsigned devfn;
    uint8_t config[HSK_PCI_CONFIG_BYTES]; /* the read-only registers */
    struct hsk_pci_bar bar[HSK_PCI_MAX_BARS];
    unsigned next_cap, last_cap;
    unsigned nmsix, msix_cap;
    /* device lock; never saved, follows from s */
    uint64_t mapped[HSK_PCI_MAX_BARS];
};

struct hsk_pci_ids {
    uint16_t vendor, device, subvendor, subdevice;
    uint32_t class_code; /* class, subclass, interface */
    uint8_t revision;
    bool intx; /* uses INTA */
};

/* First in a constructor: initialises the device too. state: inside the device's state struct. host
 * NULL: the host bridge itself. */
void hsk_pci_init(struct hsk_pci_dev *p, const struct hsk_dev_ops *ops, struct hsk_pci_state *state,
                  struct hsk_dev *host, struct hsk_machine *m, const char *id, unsigned devfn,
                  const struct hsk_pci_ids *ids);
/* obj NULL: registers. power_on 0: an address by slot and number (size <= 64 KiB). */
void hsk_pci_set_bar(struct hsk_pci_dev *p, unsigned n, uint32_t size_bytes, uint32_t power_on,
                     struct hsk_memobj *obj);
/* Room for a capability of len bytes (incl. its two header bytes); returns its offset. */
unsigned hsk_pci_add_cap(struct hsk_pci_dev *p, uint8_t id, unsigned len);
/* n vectors; table and pending bits at these offsets of the BAR. */
void hsk_pci_add_msix(struct hsk_pci_dev *p, unsigned n, unsigned bar, uint32_t table,
                      uint32_t pba);
/* Last in a constructor: plugs the function into its slot. */
void hsk_pci_plug(struct hsk_pci_dev *p);

/* From the device's ops. free unplugs and unmaps. */
void hsk_pci_reset(struct hsk_pci_dev *p);
bool hsk_pci_check(struct hsk_pci_dev *p, GError **error);
void hsk_pci_resume(struct hsk_pci_dev *p);
void hsk_pci_finish(struct hsk_pci_dev *p);

/* Interrupts of the function. */
void hsk_pci_set_intx(struct hsk_pci_dev *p, bool level);
void hsk_pci_send_msix(struct hsk_pci_dev *p,
                       unsigned vector); /* a vector that does not exist is ignored */
static inline bool hsk_pci_msix_enabled(const struct hsk_pci_dev *p)
{
    return p->s->msix_control & 0x8000;
}
static inline bool hsk_pci_is_master(const struct hsk_pci_dev *p)
{
    return p->s->command & HSK_PCI_CMD_MASTER;
}
uint32_t hsk_pci_msix_read(struct hsk_pci_dev *p, uint32_t offset); /* in the table; 4 bytes */
void hsk_pci_msix_write(struct hsk_pci_dev *p, uint32_t offset, uint32_t value);
uint64_t hsk_pci_msix_pba(const struct hsk_pci_dev *p);

/* From the host, function's lock held; offset + size <= 256, size 1, 2, 4, naturally aligned. */
uint32_t hsk_pci_config_read(struct hsk_pci_dev *p, unsigned offset, unsigned size);
void hsk_pci_config_write(struct hsk_pci_dev *p, unsigned offset, unsigned size, uint32_t value);

/* pci-host.c. set_line: leaf, with device locks held. */
void hsk_pci_host_plug(struct hsk_dev *host, struct hsk_pci_dev *p);
void hsk_pci_host_unplug(struct hsk_dev *host, struct hsk_pci_dev *p);
void hsk_pci_host_set_line(struct hsk_dev *host, unsigned devfn, bool level);
