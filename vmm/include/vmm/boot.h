/* SPDX-License-Identifier: MIT */
/*
 * Direct boot: puts a kernel into a freshly reset machine's memory and sets vCPU 0 to its entry.
 * Linux bzImage (Documentation/arch/x86/boot.rst; the compressed payload is unpacked on the host
 * and entered at its ELF entry, 64-bit or 32-bit; an image without one at its 32-bit entry), ELF
 * kernels with a PVH note (32-bit entry, xen/include/public/arch-x86/hvm/start_info.h), and
 * multiboot kernels (Multiboot Specification 0.6.96). The files are hostile: every size is checked,
 * output is capped by the guest's memory.
 */
#pragma once

#include <vmm/machine.h>

struct hsk_boot_config {
    const void *kernel; /* file contents */
    uint64_t kernel_bytes;
    const char *kernel_name; /* for error sentences */
    const void *initrd;      /* or NULL */
    uint64_t initrd_bytes;
    const char *cmdline; /* or NULL */
};

/* ACPI tables, MP table and BIOS data area, where boot and (later) firmware find them. Called by
 * hsk_boot_load too. */
bool hsk_firmware_install_tables(struct hsk_machine *m, gpa_t *rsdp, GError **error);
bool hsk_boot_load(struct hsk_machine *m, const struct hsk_boot_config *cfg, GError **error);
