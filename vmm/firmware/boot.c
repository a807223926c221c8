/* SPDX-License-Identifier: MIT */
/*
 * Direct boot (vmm/boot.h): picks the loader by the file's contents, and what the loaders share:
 * memory ranges, command line, initrd, flat segments. Loop thread, machine freshly reset.
 */
#include "boot-priv.h"

#define MIN_LOWMEM_BYTES (4u << 20)

static bool no_memory(gpa_t gpa, GError **error)
{
    g_set_error(error, HSK_ERROR, HSK_ERROR_FAILED,
                "The machine has no memory at 0x%" G_GINT64_MODIFIER "x to boot from", gpa);
    return false;
}

bool hsk_boot_write(const struct hsk_boot *b, gpa_t gpa, const void *buf, uint64_t len,
                    GError **error)
{
    return len == 0 || hsk_ram_write(b->ram, gpa, buf, len) || no_memory(gpa, error);
}

bool hsk_boot_zero(const struct hsk_boot *b, gpa_t gpa, uint64_t len, GError **error)
{
    static const uint8_t zeros[16 * HSK_PAGE_SIZE];

    while (len) {
        uint64_t n = MIN(len, sizeof zeros);

        if (!hsk_boot_write(b, gpa, zeros, n, error))
            return false;
        gpa += n;
        len -= n;
    }
    return true;
}

bool hsk_boot_measure(struct hsk_boot *b, GError **error)
{
    struct hsk_ram_region region[HSK_RAM_MAX_REGIONS];
    unsigned n = hsk_ram_regions(b->ram, region);

    b->lowmem_bytes = b->highmem_bytes = 0;
    for (unsigned i = 0; i < n; i++) {
        if (strcmp(region[i].obj->name, "ram") != 0)
            continue;
        if (region[i].gpa < HSK_HIGHMEM_BASE)
            b->lowmem_bytes = MAX(b->lowmem_bytes, region[i].gpa + region[i].size_bytes);
        else
            b->highmem_bytes += region[i].size_bytes;
    }
    if (b->lowmem_bytes < MIN_LOWMEM_BYTES) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_FAILED,
                    "The machine has too little memory to boot a kernel");
        return false;
    }
    return true;
}

unsigned hsk_boot_memory_ranges(const struct hsk_boot *b,
                                struct hsk_boot_range out[BOOT_MAX_RANGES])
{
    unsigned n = 0;

    out[n++] = (struct hsk_boot_range){0, BOOT_EBDA, BOOT_RANGE_RAM};
    out[n++] = (struct hsk_boot_range){BOOT_EBDA, 0xa0000 - BOOT_EBDA, BOOT_RANGE_RESERVED};
    out[n++] = (struct hsk_boot_range){BOOT_TABLES_BASE, BOOT_TABLES_END - BOOT_TABLES_BASE,
                                       BOOT_RANGE_RESERVED};
    out[n++] =
        (struct hsk_boot_range){BOOT_KERNEL_MIN, b->lowmem_bytes - BOOT_KERNEL_MIN, BOOT_RANGE_RAM};
    /* an OS trusts the MCFG table only if this is reserved */
    out[n++] = (struct hsk_boot_range){HSK_ECAM_BASE, 256u << 20, BOOT_RANGE_RESERVED};
    if (b->highmem_bytes)
        out[n++] = (struct hsk_boot_range){HSK_HIGHMEM_BASE, b->highmem_bytes, BOOT_RANGE_RAM};
    return n;
}

bool hsk_boot_put_cmdline(const struct hsk_boot *b, gpa_t gpa, const char *text, uint64_t max,
                          GError **error)
{
    uint64_t len = text ? strlen(text) : 0;

    if (len > MIN(max, BOOT_CMDLINE_MAX - 1)) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_USAGE,
                    "The command line for %s is longer than the %" G_GUINT64_FORMAT
                    " characters it takes",
                    b->cfg->kernel_name, MIN(max, BOOT_CMDLINE_MAX - 1));
        return false;
    }
    return hsk_boot_write(b, gpa, text ? text : "", len + 1, error);
}

bool hsk_boot_put_initrd(const struct hsk_boot *b, gpa_t kernel_end, gpa_t limit, gpa_t *gpa,
                         GError **error)
{
    uint64_t top = MIN(limit, b->lowmem_bytes);

    *gpa = 0;
    if (!b->cfg->initrd || b->cfg->initrd_bytes == 0)
        return true;
    if (b->cfg->initrd_bytes > top ||
        ((top - b->cfg->initrd_bytes) & ~(uint64_t)(HSK_PAGE_SIZE - 1)) < kernel_end) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_FAILED,
                    "The initial RAM disk (%" G_GUINT64_FORMAT
                    " MiB) does not fit into the machine's memory beside %s",
                    b->cfg->initrd_bytes >> 20, b->cfg->kernel_name);
        return false;
    }
    *gpa = (top - b->cfg->initrd_bytes) & ~(uint64_t)(HSK_PAGE_SIZE - 1);
    return hsk_boot_write(b, *gpa, b->cfg->initrd, b->cfg->initrd_bytes, error);
}

bool hsk_boot_kernel_fits(const struct hsk_boot *b, gpa_t gpa, uint64_t len)
{
    if (gpa >= BOOT_KERNEL_MIN)
        return hsk_range_ok(gpa, len, b->lowmem_bytes);
    return gpa >= b->low_begin && hsk_range_ok(gpa, len, b->low_end);
}

bool hsk_boot_check_fits(const struct hsk_boot *b, gpa_t gpa, uint64_t len, GError **error)
{
    if (hsk_boot_kernel_fits(b, gpa, len))
        return true;
    if (gpa < BOOT_KERNEL_MIN)
        g_set_error(error, HSK_ERROR, HSK_ERROR_UNSUPPORTED,
                    "%s wants to be at 0x%" G_GINT64_MODIFIER
                    "x, which this machine needs for the data it boots with",
                    b->cfg->kernel_name, gpa);
    else
        g_set_error(error, HSK_ERROR, HSK_ERROR_FAILED,
                    "%s wants to be at 0x%" G_GINT64_MODIFIER
                    "x, where this machine has no memory for it: give it more memory",
                    b->cfg->kernel_name, gpa);
    return false;
}

/* The GDT, and what a load from it gives. The TSS is there because a processor in protected mode
 * has one. */
static bool put_segments(struct hsk_boot *b, uint16_t cs, uint64_t code, GError **error)
{
    const uint16_t ds = cs + 8, tss = ds + 8;
    struct hsk_cpu_state *s = &b->cpu;
    static const uint8_t data_segs[] = {HSK_ES, HSK_SS, HSK_DS, HSK_FS, HSK_GS};
    uint8_t gdt[BOOT_CS_LINUX + 4 * 8] = {0};

    hsk_put64(gdt + cs, code);
    hsk_put64(gdt + ds, 0x00cf93000000ffff);
    hsk_put64(gdt + tss, 0x00008b0000000067); /* a 64-bit one has a second half, which is 0 */
    for (unsigned i = 0; i < G_N_ELEMENTS(data_segs); i++)
        s->seg[data_segs[i]] =
            (struct hsk_segment){.limit = 0xffffffff, .selector = ds, .attr = 0xc093};
    s->seg[HSK_CS] = (struct hsk_segment){
        .limit = 0xffffffff, .selector = cs, .attr = (uint32_t)(code >> 40) & 0xf0ff};
    s->seg[HSK_TR] = (struct hsk_segment){.limit = 0x67, .selector = tss, .attr = 0x008b};
    s->seg[HSK_LDTR] = (struct hsk_segment){0};
    s->gdtr = (struct hsk_dtable){.base = BOOT_GDT, .limit = sizeof gdt - 1};
    s->idtr = (struct hsk_dtable){0};
    s->rflags = 2;
    s->activity = HSK_ACT_RUN;
    return hsk_boot_write(b, BOOT_GDT, gdt, sizeof gdt, error);
}

bool hsk_boot_enter_32(struct hsk_boot *b, uint16_t cs, uint32_t entry, GError **error)
{
    b->cpu.cr0 = 0x11; /* ET, PE */
    b->cpu.cr3 = b->cpu.cr4 = b->cpu.efer = 0;
    b->cpu.rip = entry;
    return put_segments(b, cs, 0x00cf9b000000ffff, error);
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

bool hsk_boot_enter_64(struct hsk_boot *b, uint64_t entry, GError **error)
{
    b->cpu.cr0 = 0x80000033; /* PG, NE, ET, MP, PE */
    b->cpu.cr3 = BOOT_PAGE_TABLES;
    b->cpu.cr4 = 0x20;   /* PAE */
    b->cpu.efer = 0x500; /* LMA, LME */
    b->cpu.rip = entry;
    return put_page_tables(b, error) && put_segments(b, BOOT_CS_LINUX, 0x00af9b000000ffff, error);
}

bool hsk_boot_image(struct hsk_boot *b, GError **error)
{
    if (hsk_boot_is_bzimage(b->cfg))
        return hsk_boot_bzimage(b, error);
    if (hsk_boot_is_multiboot(b->cfg))
        return hsk_boot_multiboot(b, error);
    if (hsk_boot_is_elf(b->cfg))
        return hsk_boot_pvh(b, error);
    g_set_error(error, HSK_ERROR, HSK_ERROR_UNSUPPORTED,
                "%s is not a kernel this machine can boot: neither a Linux bzImage, nor an ELF "
                "kernel with a PVH entry, nor a multiboot kernel",
                b->cfg->kernel_name);
    return false;
}

bool hsk_boot_load(struct hsk_machine *m, const struct hsk_boot_config *cfg, GError **error)
{
    const struct hsk_memobj *vram = hsk_machine_memobj(m, "vram");
    g_autofree struct hsk_boot *b = g_new0(struct hsk_boot, 1);

    b->cfg = cfg;
    b->ram = hsk_machine_ram(m);
    b->vram_bytes = vram ? vram->size_bytes : 0;
    if (!hsk_boot_measure(b, error) || !hsk_firmware_install_tables(m, &b->rsdp, error))
        return false;
    hsk_cpu_state_reset(&b->cpu, 0);
    if (!hsk_boot_image(b, error))
        return false;
    return hsk_machine_engine(m)->ops->set_state(hsk_machine_vcpu(m, 0), &b->cpu, error);
}
