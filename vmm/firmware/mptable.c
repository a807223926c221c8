/* SPDX-License-Identifier: MIT */
/*
 * The tables of the MultiProcessor Specification 1.4 (chapter 4), for systems that do without ACPI:
 * floating pointer, processors, buses, the I/O APIC and where the interrupts go. They say the same
 * as acpi.c and dsdt.asl. Built once per boot by the loop thread. Deliberately missing: the
 * extended entries, which describe bridges.
 */
#include "boot-priv.h"

#define POINTER_BYTES 16
#define HEADER_BYTES  44
#define CPU_BYTES     20
#define ENTRY_BYTES   8

#define ISA_LINES 16
#define PCI_SLOTS 32
#define PCI_PINS  4

enum { ENTRY_CPU, ENTRY_BUS, ENTRY_IOAPIC, ENTRY_IO_INTERRUPT, ENTRY_LOCAL_INTERRUPT };
enum { BUS_PCI, BUS_ISA };
enum { TYPE_INT = 0, TYPE_NMI = 1, TYPE_EXTINT = 3 };
#define CONFORMS       0x0 /* as usual on that bus: ISA high and edge, PCI low and level */
#define HIGH_LEVEL     0xd
#define LAPIC_VERSION  0x14
#define IOAPIC_VERSION 0x20
#define CPU_ENABLED    1
#define CPU_BOOTSTRAP  2
#define ALL_LAPICS     0xff

/* A new entry behind the others. Pointers into t are good until the next call. */
static uint8_t *add_entry(GByteArray *t, uint8_t type, guint bytes)
{
    guint at = t->len;

    g_byte_array_set_size(t, at + bytes);
    memset(t->data + at, 0, bytes);
    t->data[at] = type;
    return t->data + at;
}

static void add_cpu(GByteArray *t, unsigned index, uint32_t signature, uint32_t features)
{
    uint8_t *p = add_entry(t, ENTRY_CPU, CPU_BYTES);

    p[1] = (uint8_t)index;
    p[2] = LAPIC_VERSION;
    p[3] = index == 0 ? CPU_ENABLED | CPU_BOOTSTRAP : CPU_ENABLED;
    hsk_put32(p + 4, signature);
    hsk_put32(p + 8, features);
}

static void add_bus(GByteArray *t, uint8_t id, const char name[6])
{
    uint8_t *p = add_entry(t, ENTRY_BUS, ENTRY_BYTES);

    p[1] = id;
    memcpy(p + 2, name, 6);
}

static void add_interrupt(GByteArray *t, uint8_t entry, uint8_t type, uint16_t flags, uint8_t bus,
                          unsigned line, uint8_t apic, unsigned pin)
{
    uint8_t *p = add_entry(t, entry, ENTRY_BYTES);

    p[1] = type;
    hsk_put16(p + 2, flags);
    p[4] = bus;
    p[5] = (uint8_t)line;
    p[6] = apic;
    p[7] = (uint8_t)pin;
}

static void add_interrupts(GByteArray *t)
{
    for (unsigned slot = 0; slot < PCI_SLOTS; slot++)
        for (unsigned pin = 0; pin < PCI_PINS; pin++) /* as virtio/pci.c has it */
            add_interrupt(t, ENTRY_IO_INTERRUPT, TYPE_INT, CONFORMS, BUS_PCI, slot << 2 | pin, 0,
                          16 + (slot + pin) % 4);
    for (unsigned line = 0; line < ISA_LINES; line++)
        if (line != 2) /* the cascade of the 8259s; its pin has the timer */
            add_interrupt(t, ENTRY_IO_INTERRUPT, TYPE_INT,
                          line == BOOT_SCI_GSI ? HIGH_LEVEL : CONFORMS, BUS_ISA, line, 0,
                          line ? line : 2);
    add_interrupt(t, ENTRY_LOCAL_INTERRUPT, TYPE_EXTINT, CONFORMS, BUS_ISA, 0, 0, 0);
    add_interrupt(t, ENTRY_LOCAL_INTERRUPT, TYPE_NMI, CONFORMS, BUS_ISA, 0, ALL_LAPICS, 1);
}

GByteArray *hsk_mptable_build(gpa_t gpa, unsigned ncpus, uint32_t signature, uint32_t features)
{
    GByteArray *t = g_byte_array_new();
    uint8_t *p;

    g_byte_array_set_size(t, POINTER_BYTES + HEADER_BYTES);
    memset(t->data, 0, t->len);
    for (unsigned i = 0; i < ncpus; i++)
        add_cpu(t, i, signature, features);
    add_bus(t, BUS_PCI, "PCI   ");
    add_bus(t, BUS_ISA, "ISA   ");
    p = add_entry(t, ENTRY_IOAPIC, ENTRY_BYTES);
    p[2] = IOAPIC_VERSION;
    p[3] = 1; /* usable */
    hsk_put32(p + 4, (uint32_t)HSK_IOAPIC_BASE);
    add_interrupts(t);

    p = t->data + POINTER_BYTES;
    memcpy(p, "PCMP", 4);
    hsk_put16(p + 4, (uint16_t)(t->len - POINTER_BYTES));
    p[6] = 4; /* specification 1.4 */
    memcpy(p + 8, "HAVSCK  HVPC10      ", 20);
    hsk_put16(p + 34, (uint16_t)(ncpus + 3 + PCI_SLOTS * PCI_PINS + ISA_LINES - 1 + 2));
    hsk_put32(p + 36, (uint32_t)HSK_LAPIC_BASE);
    p[7] = hsk_table_checksum(p, t->len - POINTER_BYTES);

    p = t->data;
    memcpy(p, "_MP_", 4);
    hsk_put32(p + 4, (uint32_t)gpa + POINTER_BYTES);
    p[8] = 1; /* in units of 16 bytes */
    p[9] = 4;
    p[10] = hsk_table_checksum(
        p, POINTER_BYTES); /* features: no default configuration, virtual wire mode, no IMCR */
    return t;
}
