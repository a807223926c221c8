/* SPDX-License-Identifier: MIT */
/*
 * Multiboot kernels (Multiboot Specification 0.6.96, the one of GRUB Legacy): a header in the first
 * 8 KiB of an ELF file, or of any file if the header itself says what goes where; flat 32-bit
 * protected mode without paging, ebx = the information. The initial RAM disk is the one module. The
 * command line begins with the kernel's name, as kernels of this kind expect. Deliberately missing:
 * symbols, drives, APM and VBE information; the kernel sees in the flags that they are not there. A
 * wish for a video mode is met by the mode that the display has.
 */
#include "boot-priv.h"

#define SEARCH_BYTES 8192
#define HEADER_MAGIC 0x1badb002
#define LOADER_MAGIC 0x2badb002

/* The header, and flags in it. 0-15 must be understood. */
enum {
    HDR_FLAGS = 4,
    HDR_CHECKSUM = 8,
    HDR_BASIC_BYTES = 12,
    HDR_ADDR = 12,
    HDR_LOAD = 16,
    HDR_LOAD_END = 20,
    HDR_BSS_END = 24,
    HDR_ENTRY = 28,
    HDR_BYTES = 32
};
enum {
    WANTS_ALIGNED_MODULES = 1 << 0,
    WANTS_MEMORY = 1 << 1,
    WANTS_VIDEO = 1 << 2,
    HAS_ADDRESSES = 1 << 16
};
#define MUST_UNDERSTAND 0xffffu

/* The information, and flags in it. */
enum {
    INFO_FLAGS = 0,
    INFO_MEM_LOWER = 4,
    INFO_MEM_UPPER = 8,
    INFO_CMDLINE = 16,
    INFO_MODS_COUNT = 20,
    INFO_MODS = 24,
    INFO_MMAP_BYTES = 44,
    INFO_MMAP = 48,
    INFO_LOADER = 64,
    INFO_BYTES = 120
};
enum {
    GIVES_MEMORY = 1 << 0,
    GIVES_CMDLINE = 1 << 2,
    GIVES_MODULES = 1 << 3,
    GIVES_MMAP = 1 << 6,
    GIVES_LOADER = 1 << 9
};

/* Behind the information: the module and its text, the loader's name, the memory map, the command
 * line. */
#define MODULE_AT        0x80
#define TEXT_AT          0x90
#define LOADER_AT        0x98
#define MMAP_AT          0xb0
#define MMAP_ENTRY_BYTES 24
#define CMDLINE_AT       0x200

#define LOW_BEGIN 0x1000 /* above the GDT */

G_STATIC_ASSERT(INFO_BYTES <= MODULE_AT &&
                MMAP_AT + BOOT_MAX_RANGES * MMAP_ENTRY_BYTES <= CMDLINE_AT);
G_STATIC_ASSERT(BOOT_MULTIBOOT + CMDLINE_AT + BOOT_CMDLINE_MAX <= BOOT_EBDA);

static bool find_header(const struct hsk_boot_config *cfg, uint64_t *at)
{
    const uint8_t *p = cfg->kernel;
    uint64_t len = MIN(cfg->kernel_bytes, SEARCH_BYTES);

    for (*at = 0; hsk_range_ok(*at, HDR_BASIC_BYTES, len); *at += 4) {
        const uint8_t *h = p + *at;

        if (hsk_get32(h) == HEADER_MAGIC &&
            HEADER_MAGIC + hsk_get32(h + HDR_FLAGS) + hsk_get32(h + HDR_CHECKSUM) == 0)
            return true;
    }
    return false;
}

bool hsk_boot_is_multiboot(const struct hsk_boot_config *cfg)
{
    uint64_t at;

    return find_header(cfg, &at);
}

static bool damaged(const struct hsk_boot *b, GError **error, const char *what)
{
    g_set_error(error, HSK_ERROR, HSK_ERROR_DAMAGED, "%s is a damaged multiboot kernel: %s",
                b->cfg->kernel_name, what);
    return false;
}

/* A file whose header says which part of it goes where ("a.out kludge"). */
static bool load_addresses(const struct hsk_boot *b, uint64_t at, uint64_t *entry, gpa_t *end,
                           GError **error)
{
    const uint8_t *p = b->cfg->kernel, *h = p + at;
    uint64_t header, load, load_end, bss_end, start;

    if (!hsk_range_ok(at, HDR_BYTES, b->cfg->kernel_bytes))
        return damaged(b, error, "its header is cut off");
    header = hsk_get32(h + HDR_ADDR);
    load = hsk_get32(h + HDR_LOAD);
    if (load > header || header - load > at)
        return damaged(b, error, "it begins before its file");
    start = at - (header - load);
    load_end = hsk_get32(h + HDR_LOAD_END);
    if (load_end == 0)
        load_end = load + (b->cfg->kernel_bytes - start);
    if (load_end < load || !hsk_range_ok(start, load_end - load, b->cfg->kernel_bytes))
        return damaged(b, error, "it ends behind its file");
    bss_end = MAX(hsk_get32(h + HDR_BSS_END), load_end);
    *entry = hsk_get32(h + HDR_ENTRY);
    *end = bss_end;
    if (*entry < load || *entry >= load_end)
        return damaged(b, error, "its entry lies outside of it");
    return hsk_boot_check_fits(b, load, bss_end - load, error) &&
           hsk_boot_write(b, load, p + start, load_end - load, error) &&
           hsk_boot_zero(b, load_end, bss_end - load_end, error);
}

static bool load_elf(const struct hsk_boot *b, uint64_t *entry, gpa_t *end, GError **error)
{
    struct hsk_elf elf;

    if (!hsk_elf_open(&elf, b->cfg->kernel, b->cfg->kernel_bytes, b->cfg->kernel_name, error) ||
        !hsk_elf_load(&elf, b, end, error))
        return false;
    *entry = elf.entry;
    return hsk_boot_kernel_fits(b, elf.entry, 1) ||
           damaged(b, error, "its entry lies outside of memory");
}

static bool put_info(const struct hsk_boot *b, gpa_t initrd, GError **error)
{
    struct hsk_boot_range range[BOOT_MAX_RANGES];
    unsigned n = hsk_boot_memory_ranges(b, range);
    uint8_t buf[CMDLINE_AT] = {0};

    hsk_put32(buf + INFO_FLAGS,
              GIVES_MEMORY | GIVES_CMDLINE | GIVES_MODULES | GIVES_MMAP | GIVES_LOADER);
    hsk_put32(buf + INFO_MEM_LOWER, BOOT_EBDA / 1024);
    hsk_put32(buf + INFO_MEM_UPPER, (uint32_t)((b->lowmem_bytes - BOOT_KERNEL_MIN) / 1024));
    hsk_put32(buf + INFO_CMDLINE, BOOT_MULTIBOOT + CMDLINE_AT);
    hsk_put32(buf + INFO_MODS_COUNT, initrd ? 1 : 0);
    hsk_put32(buf + INFO_MODS, BOOT_MULTIBOOT + MODULE_AT);
    hsk_put32(buf + INFO_LOADER, BOOT_MULTIBOOT + LOADER_AT);
    hsk_put32(buf + INFO_MMAP_BYTES, n * MMAP_ENTRY_BYTES);
    hsk_put32(buf + INFO_MMAP, BOOT_MULTIBOOT + MMAP_AT);
    if (initrd) {
        hsk_put32(buf + MODULE_AT, (uint32_t)initrd);
        hsk_put32(buf + MODULE_AT + 4, (uint32_t)(initrd + b->cfg->initrd_bytes));
        hsk_put32(buf + MODULE_AT + 8, BOOT_MULTIBOOT + TEXT_AT);
    }
    g_strlcpy((char *)buf + LOADER_AT, "Haversack", MMAP_AT - LOADER_AT);
    for (unsigned i = 0; i < n; i++) {
        uint8_t *p = buf + MMAP_AT + i * MMAP_ENTRY_BYTES;

        hsk_put32(p, MMAP_ENTRY_BYTES - 4); /* does not count itself */
        hsk_put64(p + 4, range[i].gpa);
        hsk_put64(p + 12, range[i].size_bytes);
        hsk_put32(p + 20, range[i].type);
    }
    return hsk_boot_write(b, BOOT_MULTIBOOT, buf, sizeof buf, error);
}

bool hsk_boot_multiboot(struct hsk_boot *b, GError **error)
{
    g_autofree char *name = g_path_get_basename(b->cfg->kernel_name);
    g_autofree char *cmdline = g_strjoin(b->cfg->cmdline ? " " : NULL, name, b->cfg->cmdline, NULL);
    uint64_t at = 0, entry = 0;
    gpa_t end = 0, initrd;
    uint32_t flags;

    hsk_assert(find_header(b->cfg, &at));
    flags = hsk_get32((const uint8_t *)b->cfg->kernel + at + HDR_FLAGS);
    if (flags & MUST_UNDERSTAND & ~(uint32_t)(WANTS_ALIGNED_MODULES | WANTS_MEMORY | WANTS_VIDEO)) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_UNSUPPORTED,
                    "%s is a multiboot kernel that requires more of its loader than this version "
                    "has (flags 0x%x)",
                    b->cfg->kernel_name, flags);
        return false;
    }
    b->low_begin = LOW_BEGIN;
    b->low_end = BOOT_MULTIBOOT;
    if (!(flags & HAS_ADDRESSES ? load_addresses(b, at, &entry, &end, error)
                                : load_elf(b, &entry, &end, error)) ||
        !hsk_boot_put_initrd(b, MAX(end, BOOT_KERNEL_MIN), b->lowmem_bytes, &initrd, error) ||
        !hsk_boot_put_cmdline(b, BOOT_MULTIBOOT + CMDLINE_AT, cmdline, BOOT_CMDLINE_MAX - 1,
                              error) ||
        !put_info(b, initrd, error))
        return false;
    b->cpu.gpr[HSK_RAX] = LOADER_MAGIC;
    b->cpu.gpr[HSK_RBX] = BOOT_MULTIBOOT;
    return hsk_boot_enter_32(b, BOOT_CS_OTHER, (uint32_t)entry, error);
}
