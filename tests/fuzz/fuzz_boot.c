/* SPDX-License-Identifier: MIT */
/* fuzz-libs: hsk_vmm */
/* Kernel files as they may come: any bytes, alone or behind a header that makes them a bzImage's
   payload, an ELF or a multiboot kernel. */
#include "../../vmm/firmware/boot-priv.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define RAM_BYTES (24u << 20)

static struct hsk_ram *ram;

static void make(void)
{
    struct hsk_memobj *obj = hsk_memobj_new("ram", RAM_BYTES, NULL);

    ram = hsk_ram_new();
    hsk_assert(obj &&
               hsk_ram_map_add(ram, &(struct hsk_ram_region){.size_bytes = RAM_BYTES, .obj = obj}));
}

static void try(const void *kernel, size_t len)
{
    g_autoptr(GError) error = NULL;
    /* a copy of the exact size, so that the sanitizer sees one byte too far */
    g_autofree void *copy = g_memdup2(kernel, len);
    struct hsk_boot_config cfg = {.kernel = copy,
                                  .kernel_bytes = len,
                                  .kernel_name = "fuzz",
                                  .cmdline = "x",
                                  .initrd = "initrd",
                                  .initrd_bytes = 6};
    g_autofree struct hsk_boot *b = g_new0(struct hsk_boot, 1);

    b->cfg = &cfg;
    b->ram = ram;
    hsk_assert(hsk_boot_measure(b, NULL));
    if (hsk_boot_image(b, &error))
        hsk_assert(hsk_boot_kernel_fits(b, b->cpu.rip, 1));
    else
        hsk_assert(error);
}

/* An identification as it should be over the first 20 bytes. */
static void put_ident(uint8_t *p, bool is64)
{
    memcpy(p, "\177ELF", 4);
    p[4] = is64 ? 2 : 1;
    p[5] = 1;
    hsk_put16(p + 16, 2);
    hsk_put16(p + 18, is64 ? 62 : 3);
}

/* The bytes as an ELF of either class: the identification is right, all else is theirs. */
static void try_elf(const uint8_t *data, size_t size)
{
    g_autofree uint8_t *p = g_malloc0(size + 64);

    memcpy(p, data, size);
    put_ident(p, size && !(data[0] & 1));
    try(p, size + 64);
}

/* The first bytes are fields of the setup header, the rest is behind it. */
static void try_bzimage(const uint8_t *data, size_t size)
{
    const size_t header = 1024;
    g_autofree uint8_t *p = g_malloc0(header + size);

    memcpy(p + header, data, size);
    memcpy(p + 0x204, data, MIN(size, 0x80));
    p[0x1f1] = 1;
    hsk_put16(p + 0x1fe, 0xaa55);
    memcpy(p + 0x202, "HdrS", 4);
    p[0x211] |= 1;
    if (size && data[size - 1] & 1) {
        hsk_put16(p + 0x206, 0x20f);
        hsk_put32(p + 0x248, 0);
        hsk_put32(p + 0x24c, (uint32_t)size);
    }
    try(p, header + size);
}

/* An ELF with the header behind it, or what the header itself describes: then the first bytes are
 * its addresses. */
static void try_multiboot(const uint8_t *data, size_t size)
{
    const size_t room = 64;
    g_autofree uint8_t *p = g_malloc0(size + room);
    bool addresses = data[0] & 2;
    uint32_t flags = addresses ? 0x10003 : data[0] & 0x0f;
    size_t at = addresses ? 0 : (size + 3) & ~(size_t)3;

    memcpy(p + (addresses ? 12 : 0), data, size);
    if (!addresses)
        put_ident(p, data[0] & 1);
    hsk_put32(p + at, 0x1badb002);
    hsk_put32(p + at + 4, flags);
    hsk_put32(p + at + 8, 0u - 0x1badb002u - flags);
    try(p, size + room);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!ram)
        make();
    if (size == 0)
        return 0;
    try(data, size);
    try_elf(data, size);
    try_bzimage(data, size);
    try_multiboot(data, size);
    return 0;
}
