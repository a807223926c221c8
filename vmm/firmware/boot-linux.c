/* SPDX-License-Identifier: MIT */
/*
 * Linux bzImage (Documentation/arch/x86/boot.rst and zero-page.rst). The kernel's own decompressor
 * is skipped where that is possible: the payload is unpacked here, which is native speed and not
 * translated guest code, loaded at its linked addresses and entered at its ELF entry: a 64-bit one
 * with the 64-bit boot protocol's registers, page tables and segments, a 32-bit one with the 32-bit
 * protocol's. KASLR lives in the skipped decompressor, so the kernel runs where it was linked. An
 * image without a payload (memtest86+), or one packed with LZO, which is not unpacked here, is
 * entered at the 32-bit entry of its own first code. Deliberately missing: the 16-bit entry, which
 * needs a BIOS, and zImages, which load below 1 MiB.
 */
#include "boot-priv.h"

/* offsets in the file's first sectors, and the same in the zero page */
enum {
    HDR_START = 0x1f1,
    HDR_SETUP_SECTS = 0x1f1,
    HDR_BOOT_FLAG = 0x1fe,
    HDR_JUMP_LEN = 0x201,
    HDR_MAGIC = 0x202,
    HDR_VERSION = 0x206,
    HDR_LOADER = 0x210,
    HDR_LOADFLAGS = 0x211,
    HDR_RAMDISK = 0x218,
    HDR_RAMDISK_SIZE = 0x21c,
    HDR_HEAP_END = 0x224,
    HDR_CMDLINE = 0x228,
    HDR_INITRD_MAX = 0x22c,
    HDR_CMDLINE_SIZE = 0x238,
    HDR_PAYLOAD_OFFSET = 0x248,
    HDR_PAYLOAD_LENGTH = 0x24c,
    HDR_PREF_ADDRESS = 0x258,
    HDR_INIT_SIZE = 0x260,
    HDR_END = 0x264,
    HDR_MAX = 0x290,
};
/* offsets in the zero page only */
enum { ZP_RSDP = 0x70, ZP_E820_COUNT = 0x1e8, ZP_E820 = 0x2d0, ZP_VID_MODE = 0x1fa };

enum { VIDEO_TYPE_VLFB = 0x23 };
#define SCREEN_WIDTH  1024 /* the display adapter's power-on mode */
#define SCREEN_HEIGHT 768

/* The versions of the protocol that brought what is read here. */
enum {
    HAS_CMDLINE = 0x202,
    HAS_INITRD_MAX = 0x203,
    HAS_CMDLINE_SIZE = 0x206,
    HAS_PAYLOAD = 0x208,
    HAS_PREF_ADDRESS = 0x20a
};
#define LOADED_HIGH 1

bool hsk_boot_is_bzimage(const struct hsk_boot_config *cfg)
{
    const uint8_t *p = cfg->kernel;

    return cfg->kernel_bytes >= HDR_MAX && hsk_get16(p + HDR_BOOT_FLAG) == 0xaa55 &&
           memcmp(p + HDR_MAGIC, "HdrS", 4) == 0;
}

static unsigned version(const struct hsk_boot *b)
{
    return hsk_get16((const uint8_t *)b->cfg->kernel + HDR_VERSION);
}

/* A field of 4 bytes, or what it stood for before that version. */
static uint32_t field(const struct hsk_boot *b, unsigned since, unsigned offset, uint32_t before)
{
    return version(b) >= since ? hsk_get32((const uint8_t *)b->cfg->kernel + offset) : before;
}

static bool check_header(const struct hsk_boot *b, GError **error)
{
    const uint8_t *p = b->cfg->kernel;

    if (version(b) >= HAS_CMDLINE && (p[HDR_LOADFLAGS] & LOADED_HIGH))
        return true;
    g_set_error(error, HSK_ERROR, HSK_ERROR_UNSUPPORTED,
                "%s is a Linux zImage, or a kernel from before 2.4, which this version cannot boot",
                b->cfg->kernel_name);
    return false;
}

/* Where the code behind the setup sectors begins. */
static uint64_t code_offset(const struct hsk_boot *b)
{
    const uint8_t *p = b->cfg->kernel;

    return ((p[HDR_SETUP_SECTS] ? p[HDR_SETUP_SECTS] : 4u) + 1) * 512;
}

/* The payload without its 4-byte size trailer, which gzip does not have (its own format ends with
 * the size). */
static bool find_payload(const struct hsk_boot *b, const uint8_t **payload, uint64_t *len,
                         GError **error)
{
    const uint8_t *p = b->cfg->kernel;
    uint64_t start = code_offset(b) + field(b, HAS_PAYLOAD, HDR_PAYLOAD_OFFSET, 0);
    uint64_t n = field(b, HAS_PAYLOAD, HDR_PAYLOAD_LENGTH, 0);

    if (n < 16 || !hsk_range_ok(start, n, b->cfg->kernel_bytes)) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_DAMAGED,
                    "%s is damaged: its compressed kernel lies outside of the file",
                    b->cfg->kernel_name);
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
    static const uint8_t color[8] = {8, 16, 8, 8, 8,
                                     0, 8,  24}; /* size, position of red, green, blue, reserved */

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
    zp[HDR_LOADFLAGS] |= LOADED_HIGH;
    hsk_put16(zp + HDR_HEAP_END, 0);
    hsk_put32(zp + HDR_RAMDISK, (uint32_t)initrd);
    hsk_put32(zp + HDR_RAMDISK_SIZE, initrd ? (uint32_t)b->cfg->initrd_bytes : 0);
    hsk_put32(zp + HDR_CMDLINE, BOOT_CMDLINE);
    return hsk_boot_write(b, BOOT_ZERO_PAGE, zp, sizeof zp, error);
}

/* What the kernel uses, from where it prefers to be, before it reads the memory map. */
static gpa_t used_end(const struct hsk_boot *b)
{
    gpa_t pref = version(b) >= HAS_PREF_ADDRESS
                     ? hsk_get64((const uint8_t *)b->cfg->kernel + HDR_PREF_ADDRESS)
                     : 0;
    uint64_t init_size = field(b, HAS_PREF_ADDRESS, HDR_INIT_SIZE, 0);

    return hsk_range_ok(pref, init_size, b->lowmem_bytes) ? pref + init_size : 0;
}

struct image {
    const struct hsk_boot *b;
    struct hsk_elf elf;
    uint64_t size_bytes;
    uint8_t head[BOOT_HEAD_BYTES];
};

static bool put_piece(void *opaque, const uint8_t *piece, uint64_t offset, uint64_t len,
                      GError **error)
{
    struct image *im = opaque;
    uint64_t head = MIN(len, sizeof im->head);

    if (offset == 0) {
        memcpy(im->head, piece, head);
        if (!hsk_elf_open(&im->elf, im->head, head, im->b->cfg->kernel_name, error))
            return false;
        im->elf.size_bytes = im->b->lowmem_bytes; /* the most that it may turn out to be */
    }
    im->size_bytes = offset + len;
    return hsk_elf_put(&im->elf, im->b, piece, offset, len, error);
}

/* Unpacks the kernel in the payload to where it belongs. *elf_class: 0 if the kernel must unpack
 * itself. */
static bool load_payload(struct hsk_boot *b, unsigned *elf_class, uint64_t *entry, gpa_t *end,
                         GError **error)
{
    const char *name = b->cfg->kernel_name;
    g_autofree struct image *im = g_new0(struct image, 1);
    const uint8_t *payload;
    uint64_t len;

    *elf_class = 0;
    if (!find_payload(b, &payload, &len, error))
        return false;
    if (memcmp(payload, "\211LZO", 4) == 0)
        return true;
    im->b = b;
    im->elf.name = name;
    if (!hsk_boot_unpack(payload, len, b->lowmem_bytes, name, put_piece, im, error))
        return false;
    im->elf.size_bytes = im->size_bytes;
    if (!hsk_elf_finish(&im->elf, b, end, error))
        return false;
    if (im->elf.entry < BOOT_KERNEL_MIN || im->elf.entry >= *end) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_DAMAGED,
                    "%s is damaged: its entry lies outside of the kernel", name);
        return false;
    }
    *elf_class = im->elf.is64 ? 64 : 32;
    *entry = im->elf.entry;
    return true;
}

/* The code behind the setup sectors as it is: where it prefers to be, and entered at its first
 * byte. */
static bool load_code(struct hsk_boot *b, uint64_t *entry, gpa_t *end, GError **error)
{
    const uint8_t *p = b->cfg->kernel;
    gpa_t gpa = version(b) >= HAS_PREF_ADDRESS ? hsk_get64(p + HDR_PREF_ADDRESS) : BOOT_KERNEL_MIN;
    uint64_t at = code_offset(b), len;

    if (at >= b->cfg->kernel_bytes) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_DAMAGED,
                    "%s is damaged: there is nothing behind its setup code", b->cfg->kernel_name);
        return false;
    }
    len = b->cfg->kernel_bytes - at;
    *entry = gpa;
    *end = gpa + MAX(len, field(b, HAS_PREF_ADDRESS, HDR_INIT_SIZE, 0));
    return hsk_boot_check_fits(b, gpa, *end - gpa, error) &&
           hsk_boot_write(b, gpa, p + at, len, error);
}

bool hsk_boot_bzimage(struct hsk_boot *b, GError **error)
{
    unsigned elf_class = 0;
    uint64_t entry = 0;
    gpa_t end = 0, initrd;

    if (!check_header(b, error))
        return false;
    if (field(b, HAS_PAYLOAD, HDR_PAYLOAD_LENGTH, 0) &&
        !load_payload(b, &elf_class, &entry, &end, error))
        return false;
    if (elf_class == 0 && !load_code(b, &entry, &end, error))
        return false;
    if (!hsk_boot_put_initrd(b, MAX(end, used_end(b)),
                             (gpa_t)field(b, HAS_INITRD_MAX, HDR_INITRD_MAX, 0x37ffffff) + 1,
                             &initrd, error) ||
        !hsk_boot_put_cmdline(b, BOOT_CMDLINE, b->cfg->cmdline,
                              field(b, HAS_CMDLINE_SIZE, HDR_CMDLINE_SIZE, 255), error) ||
        !put_zero_page(b, initrd, error))
        return false;
    b->cpu.gpr[HSK_RSI] = BOOT_ZERO_PAGE;
    return elf_class == 64 ? hsk_boot_enter_64(b, entry, error)
                           : hsk_boot_enter_32(b, BOOT_CS_LINUX, (uint32_t)entry, error);
}
