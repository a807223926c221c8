/* SPDX-License-Identifier: MIT */
/*
 * ELF kernels with a PVH entry (xen/include/public/arch-x86/hvm/start_info.h, version 1; the note
 * XEN_ELFNOTE_PHYS32_ENTRY of xen/include/public/elfnote.h): flat 32-bit protected mode without
 * paging, ebx = the start info.
 */
#include "boot-priv.h"

#define NOTE_PHYS32_ENTRY 18
#define START_INFO_MAGIC  0x336ec578

/* The start info, then one module, then the memory map. */
#define INFO_BYTES         56
#define MODULE_GPA         (BOOT_PVH_INFO + 0x40)
#define MODULE_BYTES       32
#define MEMMAP_GPA         (BOOT_PVH_INFO + 0x80)
#define MEMMAP_ENTRY_BYTES 24

bool hsk_boot_is_elf(const struct hsk_boot_config *cfg)
{
    return cfg->kernel_bytes >= 4 && memcmp(cfg->kernel, "\177ELF", 4) == 0;
}

/* Looks through one note segment; notes are aligned to 4 bytes. */
static bool find_note(const uint8_t *p, uint64_t len, uint64_t *entry)
{
    uint64_t off = 0;

    while (hsk_range_ok(off, 12, len)) {
        uint64_t namesz = hsk_get32(p + off), descsz = hsk_get32(p + off + 4);
        uint32_t type = hsk_get32(p + off + 8);
        uint64_t name = off + 12, desc = name + ((namesz + 3) & ~3ull);

        if (!hsk_range_ok(name, namesz, len) || !hsk_range_ok(desc, descsz, len))
            return false;
        if (type == NOTE_PHYS32_ENTRY && namesz == 4 && memcmp(p + name, "Xen", 4) == 0 &&
            (descsz == 4 || descsz == 8)) {
            *entry = descsz == 4 ? hsk_get32(p + desc) : hsk_get64(p + desc);
            return true;
        }
        off = desc + ((descsz + 3) & ~3ull);
    }
    return false;
}

static bool find_entry(const struct hsk_elf *elf, uint64_t *entry, GError **error)
{
    for (unsigned i = 0; i < elf->phnum; i++) {
        struct hsk_elf_segment seg;

        if (!hsk_elf_segment(elf, i, &seg, error))
            return false;
        if (seg.type == ELF_PT_NOTE && find_note(elf->data + seg.offset, seg.filesz, entry))
            return true;
    }
    g_set_error(error, HSK_ERROR, HSK_ERROR_UNSUPPORTED,
                "%s is an ELF file without a PVH entry and without a multiboot header: it is not a "
                "kernel this machine can boot",
                elf->name);
    return false;
}

static bool put_start_info(const struct hsk_boot *b, gpa_t initrd, GError **error)
{
    struct hsk_boot_range range[BOOT_MAX_RANGES];
    unsigned n = hsk_boot_memory_ranges(b, range);
    uint8_t buf[MEMMAP_GPA - BOOT_PVH_INFO + BOOT_MAX_RANGES * MEMMAP_ENTRY_BYTES] = {0};
    uint8_t *module = buf + (MODULE_GPA - BOOT_PVH_INFO), *map = buf + (MEMMAP_GPA - BOOT_PVH_INFO);

    hsk_put32(buf, START_INFO_MAGIC);
    hsk_put32(buf + 4, 1);
    hsk_put32(buf + 12, initrd ? 1 : 0);
    hsk_put64(buf + 16, initrd ? MODULE_GPA : 0);
    hsk_put64(buf + 24, BOOT_CMDLINE);
    hsk_put64(buf + 32, b->rsdp);
    hsk_put64(buf + 40, MEMMAP_GPA);
    hsk_put32(buf + 48, n);
    hsk_put64(module, initrd);
    hsk_put64(module + 8, initrd ? b->cfg->initrd_bytes : 0);
    for (unsigned i = 0; i < n; i++) {
        hsk_put64(map + MEMMAP_ENTRY_BYTES * i, range[i].gpa);
        hsk_put64(map + MEMMAP_ENTRY_BYTES * i + 8, range[i].size_bytes);
        hsk_put32(map + MEMMAP_ENTRY_BYTES * i + 16, range[i].type);
    }
    G_STATIC_ASSERT(INFO_BYTES <= MODULE_GPA - BOOT_PVH_INFO &&
                    MODULE_BYTES <= MEMMAP_GPA - MODULE_GPA);
    return hsk_boot_write(b, BOOT_PVH_INFO, buf, sizeof buf, error);
}

bool hsk_boot_pvh(struct hsk_boot *b, GError **error)
{
    struct hsk_elf elf;
    uint64_t entry = 0;
    gpa_t end, initrd;

    if (!hsk_elf_open(&elf, b->cfg->kernel, b->cfg->kernel_bytes, b->cfg->kernel_name, error) ||
        !find_entry(&elf, &entry, error) || !hsk_elf_load(&elf, b, &end, error))
        return false;
    if (entry < BOOT_KERNEL_MIN || entry >= end) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_DAMAGED,
                    "%s is damaged: its PVH entry lies outside of the kernel", b->cfg->kernel_name);
        return false;
    }
    if (!hsk_boot_put_initrd(b, end, b->lowmem_bytes, &initrd, error) ||
        !hsk_boot_put_cmdline(b, BOOT_CMDLINE, b->cfg->cmdline, BOOT_CMDLINE_MAX - 1, error) ||
        !put_start_info(b, initrd, error) ||
        !hsk_boot_enter_32(b, BOOT_CS_OTHER, (uint32_t)entry, error))
        return false;
    b->cpu.gpr[HSK_RBX] = BOOT_PVH_INFO;
    return true;
}
