/* SPDX-License-Identifier: MIT */
/*
 * ACPI tables (ACPI 6.4, chapter 5): RSDP, XSDT, FADT with its FACS, MADT, MCFG, and the DSDT
 * compiled from dsdt.asl. Built once per boot, below 1 MiB, by the loop thread. Deliberately
 * missing: RSDT (nobody who finds an XSDT reads it), HPET, sleep states but S5, processor objects
 * (the MADT is enough for one to eight plain CPUs).
 */
#include "boot-priv.h"

static const
#include "dsdt.hex"

#define OEM_ID       "HAVSCK"
#define OEM_TABLE_ID "HVPC10\0\0"
#define RSDP_BYTES   36
#define FACS_BYTES   64
#define HEADER_BYTES 36

    struct builder {
    GByteArray *out;
    gpa_t base;
};

/* Room for a table, aligned; returns its offset. Pointers into out are good until the next call. */
static guint reserve(struct builder *t, guint align, guint bytes)
{
    guint at = (t->out->len + align - 1) / align * align;
    guint from = t->out->len;

    g_byte_array_set_size(t->out, at + bytes);
    memset(t->out->data + from, 0, at + bytes - from);
    return at;
}

uint8_t hsk_table_checksum(const uint8_t *p, guint len)
{
    uint8_t sum = 0;

    for (guint i = 0; i < len; i++)
        sum = (uint8_t)(sum + p[i]);
    return (uint8_t)-sum;
}

static uint8_t *begin_table(struct builder *t, const char *signature, uint8_t revision, guint bytes,
                            guint *at)
{
    uint8_t *p;

    *at = reserve(t, 16, bytes);
    p = t->out->data + *at;
    memcpy(p, signature, 4);
    hsk_put32(p + 4, bytes);
    p[8] = revision;
    memcpy(p + 10, OEM_ID, 6);
    memcpy(p + 16, OEM_TABLE_ID, 8);
    hsk_put32(p + 24, 1);
    memcpy(p + 28, "HVSK", 4);
    hsk_put32(p + 32, 1);
    return p;
}

static void end_table(struct builder *t, guint at)
{
    uint8_t *p = t->out->data + at;

    p[9] = hsk_table_checksum(p, hsk_get32(p + 4));
}

/* Generic Address Structure in I/O space. */
static void put_gas_io(uint8_t *p, uint8_t bits, uint8_t access, uint64_t port)
{
    p[0] = 1;
    p[1] = bits;
    p[3] = access;
    hsk_put64(p + 4, port);
}

static guint put_fadt(struct builder *t, gpa_t facs, gpa_t dsdt)
{
    guint at;
    uint8_t *p = begin_table(t, "FACP", 5, 268, &at);

    hsk_put32(p + 36, (uint32_t)facs);
    hsk_put32(p + 40, (uint32_t)dsdt);
    p[45] = 1;                         /* preferred profile: desktop */
    hsk_put16(p + 46, BOOT_SCI_GSI);   /* no SMI command port: ACPI mode is always on */
    hsk_put32(p + 56, HSK_PMBASE);     /* PM1a event block */
    hsk_put32(p + 64, HSK_PMBASE + 4); /* PM1a control block */
    hsk_put32(p + 76, HSK_PMBASE + 8); /* PM timer */
    hsk_put32(p + 80, HSK_PMBASE + 12); /* GPE block */
    p[88] = 4;
    p[89] = 2;
    p[91] = 4;
    p[92] = 2;
    hsk_put16(p + 96, 0x0fff); /* no C2, no C3 */
    hsk_put16(p + 98, 0x0fff);
    p[108] = 0x32;              /* RTC's century byte */
    hsk_put16(p + 109, 0x0007); /* legacy devices, 8042, no VGA text hardware */
    /* WBINVD, C1, no sleep button, RTC wake not in fixed registers, reset register; the PM timer
     * has 24 bits */
    hsk_put32(p + 112, 1 << 0 | 1 << 2 | 1 << 5 | 1 << 6 | 1 << 10);
    put_gas_io(p + 116, 8, 1, 0xcf9);
    p[128] = 0x06; /* full reset */
    hsk_put64(p + 132, facs);
    hsk_put64(p + 140, dsdt);
    put_gas_io(p + 148, 32, 2, HSK_PMBASE);
    put_gas_io(p + 172, 16, 2, HSK_PMBASE + 4);
    put_gas_io(p + 208, 32, 3, HSK_PMBASE + 8);
    put_gas_io(p + 220, 16, 1, HSK_PMBASE + 12);
    end_table(t, at);
    return at;
}

static uint8_t *put_override(uint8_t *p, uint8_t irq, uint32_t gsi, uint16_t flags)
{
    p[0] = 2;
    p[1] = 10;
    p[3] = irq;
    hsk_put32(p + 4, gsi);
    hsk_put16(p + 8, flags);
    return p + 10;
}

static guint put_madt(struct builder *t, unsigned ncpus)
{
    guint at;
    uint8_t *p = begin_table(t, "APIC", 3, HEADER_BYTES + 8 + 8 * ncpus + 12 + 2 * 10 + 6, &at);

    hsk_put32(p + 36, (uint32_t)HSK_LAPIC_BASE);
    hsk_put32(p + 40, 1); /* there are 8259s too */
    p += 44;
    for (unsigned i = 0; i < ncpus; i++, p += 8) {
        p[1] = 8;
        p[2] = p[3] = (uint8_t)i;
        hsk_put32(p + 4, 1);
    }
    p[0] = 1; /* I/O APIC 0 with GSIs from 0 on */
    p[1] = 12;
    hsk_put32(p + 4, (uint32_t)HSK_IOAPIC_BASE);
    p = put_override(p + 12, 0, 2, 0);
    p = put_override(p, BOOT_SCI_GSI, BOOT_SCI_GSI, 0x000d); /* active high, level */
    p[0] = 4;                                                /* NMI at LINT1 of every CPU */
    p[1] = 6;
    p[2] = 0xff;
    p[5] = 1;
    end_table(t, at);
    return at;
}

static guint put_mcfg(struct builder *t)
{
    guint at;
    uint8_t *p = begin_table(t, "MCFG", 1, HEADER_BYTES + 8 + 16, &at);

    hsk_put64(p + 44, HSK_ECAM_BASE);
    p[54] = 0;
    p[55] = 255;
    end_table(t, at);
    return at;
}

static guint put_xsdt(struct builder *t, const guint *tables, guint n)
{
    guint at;
    uint8_t *p = begin_table(t, "XSDT", 1, HEADER_BYTES + 8 * n, &at);

    for (guint i = 0; i < n; i++)
        hsk_put64(p + HEADER_BYTES + 8 * i, t->base + tables[i]);
    end_table(t, at);
    return at;
}

GByteArray *hsk_acpi_build(gpa_t gpa, unsigned ncpus, gpa_t *rsdp)
{
    struct builder t = {.out = g_byte_array_new(), .base = gpa};
    guint root = reserve(&t, 16, RSDP_BYTES);
    guint facs = reserve(&t, 64, FACS_BYTES);
    guint dsdt = reserve(&t, 16, sizeof dsdt_aml_code), xsdt;
    guint tables[3];
    uint8_t *p;

    memcpy(t.out->data + facs, "FACS", 4);
    hsk_put32(t.out->data + facs + 4, FACS_BYTES);
    t.out->data[facs + 32] = 2;
    memcpy(t.out->data + dsdt, dsdt_aml_code, sizeof dsdt_aml_code);
    tables[0] = put_fadt(&t, gpa + facs, gpa + dsdt);
    tables[1] = put_madt(&t, ncpus);
    tables[2] = put_mcfg(&t);
    xsdt = put_xsdt(&t, tables, G_N_ELEMENTS(tables));

    p = t.out->data + root;
    memcpy(p, "RSD PTR ", 8);
    memcpy(p + 9, OEM_ID, 6);
    p[15] = 2;
    hsk_put32(p + 20, RSDP_BYTES);
    hsk_put64(p + 24, gpa + xsdt);
    p[8] = hsk_table_checksum(p, 20);
    p[32] = hsk_table_checksum(p, RSDP_BYTES);
    *rsdp = gpa + root;
    return t.out;
}
