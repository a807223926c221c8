/* SPDX-License-Identifier: MIT */
/*
 * What a system finds in memory about its machine without asking firmware: the ACPI tables, the MP
 * table, and of the BIOS data area (IBM PC AT technical reference) what is read without calling a
 * BIOS: the serial port, the size of low memory and where the extended area begins. Deliberately
 * missing: everything that only a BIOS uses itself. Loop thread.
 */
#include "boot-priv.h"

#define BDA            0x400
#define BDA_BYTES      0x100
#define BDA_COM1       0x00
#define BDA_EBDA       0x0e /* as a segment */
#define BDA_EQUIPMENT  0x10
#define BDA_MEMORY_KIB 0x13

static bool put_bda(struct hsk_ram *ram)
{
    const uint8_t ebda_kib = 1;
    uint8_t bda[BDA_BYTES] = {0};

    hsk_put16(bda + BDA_COM1, 0x3f8);
    hsk_put16(bda + BDA_EBDA, BOOT_EBDA >> 4);
    hsk_put16(bda + BDA_EQUIPMENT,
              1 << 1 | 1 << 2 | 1 << 9); /* FPU, pointing device, one serial port */
    hsk_put16(bda + BDA_MEMORY_KIB, BOOT_EBDA >> 10);
    return hsk_ram_write(ram, BDA, bda, sizeof bda) && hsk_ram_write(ram, BOOT_EBDA, &ebda_kib, 1);
}

bool hsk_firmware_install_tables(struct hsk_machine *m, gpa_t *rsdp, GError **error)
{
    struct hsk_ram *ram = hsk_machine_ram(m);
    unsigned ncpus = hsk_machine_ncpus(m);
    g_autoptr(GByteArray) acpi = hsk_acpi_build(BOOT_TABLES_BASE, ncpus, rsdp);
    g_autoptr(GByteArray) mp = NULL;
    uint32_t leaf1[4];

    hsk_cpuid_query(hsk_machine_cpuid(m), 0, 0, 0, 1, 0, leaf1);
    mp = hsk_mptable_build(BOOT_MP_BASE, ncpus, leaf1[0], leaf1[3]);
    hsk_assert(acpi->len <= HSK_VMGENID_GPA - BOOT_TABLES_BASE &&
               mp->len <= BOOT_TABLES_END - BOOT_MP_BASE);
    if (!hsk_ram_write(ram, BOOT_TABLES_BASE, acpi->data, acpi->len) ||
        !hsk_ram_write(ram, BOOT_MP_BASE, mp->data, mp->len) || !put_bda(ram)) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_FAILED,
                    "The machine has no memory for the tables of its firmware");
        return false;
    }
    return true;
}
