/* SPDX-License-Identifier: MIT */
/*
 * Linux bzImage (Documentation/arch/x86/boot.rst and zero-page.rst): the kernel's own decompressor is skipped. The payload
 * is unpacked here, which is native speed and not translated guest code, loaded at its linked addresses and entered at its
 * 64-bit ELF entry with the boot protocol's registers, identity-mapped page tables and segments. KASLR lives in the skipped
 * decompressor, so the kernel runs where it was linked. Deliberately missing: the 16-bit and 32-bit entries.
 */
#include "boot-priv.h"

/* offsets in the file's first sectors, and the same in the zero page */
enum {
    HDR_START = 0x1f1, HDR_SETUP_SECTS = 0x1f1, HDR_BOOT_FLAG = 0x1fe, HDR_JUMP_LEN = 0x201, HDR_MAGIC = 0x202,
    HDR_VERSION = 0x206, HDR_LOADER = 0x210, HDR_LOADFLAGS = 0x211, HDR_RAMDISK = 0x218, HDR_RAMDISK_SIZE = 0x21c,
    HDR_HEAP_END = 0x224, HDR_CMDLINE = 0x228, HDR_INITRD_MAX = 0x22c, HDR_CMDLINE_SIZE = 0x238, HDR_PAYLOAD_OFFSET = 0x248,
    HDR_PAYLOAD_LENGTH = 0x24c, HDR_PREF_ADDRESS = 0x258, HDR_INIT_SIZE = 0x260, HDR_END = 0x264, HDR_MAX = 0x290,
};
/* offsets in the zero page only */
enum { ZP_RSDP = 0x70, ZP_E820_COUNT = 0x1e8, ZP_E820 = 0x2d0, ZP_VID_MODE = 0x1fa };

enum { VIDEO_TYPE_VLFB = 0x23 };
#define SCREEN_WIDTH  1024 /* the display adapter's power-on mode */
#define SCREEN_HEIGHT 768

#define PROTOCOL_PAYLOAD 0x20a /* 2.08 has the payload fields, 2.10 pref_address and init_size */

bool hsk_boot_is_bzimage(const struct hsk_boot_config *cfg)
{
    const uint8_t *p = cfg->kernel;

    return cfg->kernel_bytes >= HDR_MAX && hsk_get16(p + HDR_BOOT_FLAG) == 0xaa55 && memcmp(p + HDR_MAGIC, "HdrS", 4) == 0;
}

/* The payload without its 4-byte size trailer, which gzip does not have (its own format ends with the size). */
static bool find_payload(const struct hsk_boot_config *cfg, const uint8_t **payload, uint64_t *len, GError **error)
{
    const uint8_t *p = cfg->kernel;
    uint64_t sects = p[HDR_SETUP_SECTS] ? p[HDR_SETUP_SECTS] : 4;
    uint64_t start, n = hsk_get32(p + HDR_PAYLOAD_LENGTH);

    if (hsk_get16(p + HDR_VERSION) < PROTOCOL_PAYLOAD) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_UNSUPPORTED, "%s is a Linux kernel from before 2.6.31, which this version cannot boot",
                    cfg->kernel_name);
        return false;
    }
    start = (sects + 1) * 512 + hsk_get32(p + HDR_PAYLOAD_OFFSET);
    if (n < 16 || !hsk_range_ok(start, n, cfg->kernel_bytes)) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_DAMAGED, "%s is damaged: its compressed kernel lies outside of the file",
                    cfg->kernel_name);
        return false;
    }
    *payload = p + start;
    *len = hsk_get16(p + start) == 0x8b1f ? n : n - 4;
    return true;
}

static void put_e820(uint8_t *zp, const struct hsk_boot *b)
{
    struct hsk_boot_range range[BOOT_MAX_RANGES];
    unsigned n = hsk_boot_memory_ranges(b, range);

    zp[ZP_E820_COUNT] = (uint8_t)n;
    for (unsigned i = 0; i < n; i++) {
        hsk_put64(zp + ZP_E820 + 20 * i, range[i].gpa);
        hsk_put64(zp + ZP_E820 + 20 * i + 8, range[i].size_bytes);
        hsk_put32(zp + ZP_E820 + 20 * i + 16, range[i].type);
    }
}

/* struct screen_info of a linear framebuffer, as a VESA boot would have left it. */
static void put_screen_info(uint8_t *zp, uint64_t vram_bytes)
{
    static const uint8_t color[8] = {8, 16, 8, 8, 8, 0, 8, 24}; /* size, position of red, green, blue, reserved */

    zp[0x07] = 80; /* text columns and lines: dummies that text consoles divide by */
    zp[0x0e] = 25;
    zp[0x0f] = VIDEO_TYPE_VLFB;
    hsk_put16(zp + 0x10, 16);
    hsk_put16(zp + 0x12, SCREEN_WIDTH);
    hsk_put16(zp + 0x14, SCREEN_HEIGHT);
    hsk_put16(zp + 0x16, 32);
    hsk_put32(zp + 0x18, (uint32_t)HSK_VRAM_BASE);
    hsk_put32(zp + 0x1c, (uint32_t)(vram_bytes >> 16));
    hsk_put16(zp + 0x24, SCREEN_WIDTH * 4);
    memcpy(zp + 0x26, color, sizeof color);
    hsk_put16(zp + 0x32, 1);
}

static bool put_zero_page(const struct hsk_boot *b, gpa_t initrd, GError **error)
{
    const uint8_t *p = b->cfg->kernel;
    unsigned end = MIN(HDR_MAGIC + p[HDR_JUMP_LEN], HDR_MAX);
    uint8_t zp[HSK_PAGE_SIZE] = {0};

    memcpy(zp + HDR_START, p + HDR_START, MAX(end, HDR_END) - HDR_START);
    if (b->vram_bytes >= SCREEN_WIDTH * SCREEN_HEIGHT * 4)
        put_screen_info(zp, b->vram_bytes);
    hsk_put64(zp + ZP_RSDP, b->rsdp);
    put_e820(zp, b);
    hsk_put16(zp + ZP_VID_MODE, 0xffff);
    zp[HDR_LOADER] = 0xff; /* a loader without an assigned number */
    zp[HDR_LOADFLAGS] |= 1;
    hsk_put16(zp + HDR_HEAP_END, 0);
    hsk_put32(zp + HDR_RAMDISK, (uint32_t)initrd);
    hsk_put32(zp + HDR_RAMDISK_SIZE, initrd ? (uint32_t)b->cfg->initrd_bytes : 0);
    hsk_put32(zp + HDR_CMDLINE, BOOT_CMDLINE);
    return hsk_boot_write(b, BOOT_ZERO_PAGE, zp, sizeof zp, error);
}

/* The first 4 GiB identity-mapped by 2 MiB pages. */
static bool put_page_tables(const struct hsk_boot *b, GError **error)
{
    g_autofree uint8_t *t = g_malloc0(6 * HSK_PAGE_SIZE);

    hsk_put64(t, (BOOT_PAGE_TABLES + HSK_PAGE_SIZE) | 3);
    for (uint64_t i = 0; i < 4; i++)
        hsk_put64(t + HSK_PAGE_SIZE + 8 * i, (BOOT_PAGE_TABLES + (2 + i) * HSK_PAGE_SIZE) | 3);
    for (uint64_t i = 0; i < 4 * 512; i++)
        hsk_put64(t + 2 * HSK_PAGE_SIZE + 8 * i, (i << 21) | 0x83);
    return hsk_boot_write(b, BOOT_PAGE_TABLES, t, 6 * HSK_PAGE_SIZE, error);
}

static bool enter_long_mode(struct hsk_boot *b, uint64_t entry, GError **error)
{
    if (!put_page_tables(b, error) || !hsk_boot_put_segments(b, BOOT_CS64, error))
        return false;
    b->cpu.cr0 = 0x80000033; /* PG, NE, ET, MP, PE */
    b->cpu.cr3 = BOOT_PAGE_TABLES;
    b->cpu.cr4 = 0x20;       /* PAE */
    b->cpu.efer = 0x500;     /* LMA, LME */
    b->cpu.rip = entry;
    b->cpu.gpr[HSK_RSI] = BOOT_ZERO_PAGE;
    return true;
}

bool hsk_boot_bzimage(struct hsk_boot *b, GError **error)
{
    const struct hsk_boot_config *cfg = b->cfg;
    const uint8_t *p = cfg->kernel, *payload;
    g_autoptr(GByteArray) image = NULL;
    struct hsk_elf elf;
    uint64_t len, pref, init_size;
    gpa_t end, initrd;

    if (!find_payload(cfg, &payload, &len, error))
        return false;
    image = hsk_boot_unpack(payload, len, b->lowmem_bytes, cfg->kernel_name, error);
    if (!image || !hsk_elf_open(&elf, image->data, image->len, cfg->kernel_name, error))
        return false;
    if (!elf.is64) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_UNSUPPORTED, "%s is a 32-bit Linux kernel, which this version cannot boot",
                    cfg->kernel_name);
        return false;
    }
    if (!hsk_elf_load(&elf, b, &end, error))
        return false;
    if (elf.entry < BOOT_KERNEL_MIN || elf.entry >= end) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_DAMAGED, "%s is damaged: its entry lies outside of the kernel", cfg->kernel_name);
        return false;
    }
    /* what the kernel uses before it reads the memory map */
    pref = hsk_get64(p + HDR_PREF_ADDRESS);
    init_size = hsk_get32(p + HDR_INIT_SIZE);
    if (hsk_range_ok(pref, init_size, b->lowmem_bytes))
        end = MAX(end, pref + init_size);
    if (!hsk_boot_put_initrd(b, end, (gpa_t)hsk_get32(p + HDR_INITRD_MAX) + 1, &initrd, error) ||
        !hsk_boot_put_cmdline(b, hsk_get32(p + HDR_CMDLINE_SIZE), error) || !put_zero_page(b, initrd, error))
        return false;
    return enter_long_mode(b, elf.entry, error);
}
