/* SPDX-License-Identifier: MIT */
/* Direct boot of Linux and PVH kernels: made-up files, good and hostile, against guest memory
 * alone; and the ACPI tables. */
#include <gio/gio.h>

#include "boot-fixture.h"

#define ENTRY 0x1000040

/* An ELF64 executable: one PT_LOAD of 64 bytes (memsz 4096) at 16 MiB, one PT_NOTE with the PVH
 * entry. */
static GByteArray *make_elf(bool note)
{
    GByteArray *a = g_byte_array_new();
    uint8_t *p, *ph;

    g_byte_array_set_size(a, 0x200);
    p = a->data;
    memset(p, 0, a->len);
    memcpy(p, "\177ELF\2\1\1", 7);
    hsk_put16(p + 16, 2);
    hsk_put16(p + 18, 62);
    hsk_put64(p + 24, ENTRY);
    hsk_put64(p + 32, 64);
    hsk_put16(p + 54, 56);
    hsk_put16(p + 56, note ? 2 : 1);
    ph = p + 64;
    hsk_put32(ph, ELF_PT_LOAD);
    hsk_put64(ph + 8, 0x180);
    hsk_put64(ph + 24, 0x1000000);
    hsk_put64(ph + 32, 0x80);
    hsk_put64(ph + 40, 0x1000);
    ph += 56;
    if (note) {
        hsk_put32(ph, ELF_PT_NOTE);
        hsk_put64(ph + 8, 0x100);
        hsk_put64(ph + 32, 20);
        hsk_put32(p + 0x100, 4);
        hsk_put32(p + 0x104, 4);
        hsk_put32(p + 0x108, 18);
        memcpy(p + 0x10c, "Xen", 4);
        hsk_put32(p + 0x110, ENTRY + 0x10);
    }
    memset(p + 0x180, 0x90, 0x80);
    return a;
}

static GByteArray *make_bzimage(const GByteArray *elf)
{
    g_autoptr(GConverter) gz = G_CONVERTER(g_zlib_compressor_new(G_ZLIB_COMPRESSOR_FORMAT_GZIP, 9));
    GByteArray *a = g_byte_array_new();
    uint8_t *p;
    gsize in = 0, out = 0;

    g_byte_array_set_size(a, 1024 + 4096);
    p = a->data;
    memset(p, 0, a->len);
    assert_int_equal(g_converter_convert(gz, elf->data, elf->len, p + 1024 + 16, 4000,
                                         G_CONVERTER_INPUT_AT_END, &in, &out, NULL),
                     G_CONVERTER_FINISHED);
    p[0x1f1] = 1;
    hsk_put16(p + 0x1fe, 0xaa55);
    p[0x201] = 0x6a;
    memcpy(p + 0x202, "HdrS", 4);
    hsk_put16(p + 0x206, 0x20f);
    p[0x211] = 1;
    hsk_put32(p + 0x22c, 0x7fffffff);
    hsk_put32(p + 0x238, 255);
    hsk_put32(p + 0x248, 16);
    hsk_put32(p + 0x24c, (uint32_t)out);
    hsk_put64(p + 0x258, 0x1000000);
    hsk_put32(p + 0x260, 0x200000);
    return a;
}

static void bzimage_is_entered_in_long_mode(void **state)
{
    struct fixture *f = *state;
    g_autoptr(GByteArray) elf = make_elf(false);
    g_autoptr(GByteArray) kernel = make_bzimage(elf);
    const struct hsk_cpu_state *s = &f->boot.cpu;
    const uint8_t *zp = f->obj->host + BOOT_ZERO_PAGE;
    uint64_t initrd;

    memset(f->obj->host + 0x1000000, 0xcc, 0x2000); /* as left by an earlier run */
    f->cfg.cmdline = "console=ttyS0";
    f->cfg.initrd = "initial disk";
    f->cfg.initrd_bytes = 12;
    f->boot.vram_bytes = 16u << 20;
    assert_true(boot(f, kernel, NULL));
    assert_int_equal(s->rip, ENTRY);
    assert_int_equal(s->gpr[HSK_RSI], BOOT_ZERO_PAGE);
    assert_int_equal(s->efer & 0x500, 0x500);
    assert_int_equal(s->seg[HSK_CS].selector, 0x10);
    assert_true(s->seg[HSK_CS].attr & HSK_SEG_L);
    assert_int_equal(s->seg[HSK_DS].selector, 0x18);
    assert_true(s->cr0 & 0x80000001);
    /* identity map of an address in the fourth GiB */
    assert_int_equal(ram64(f, s->cr3) & ~0xfffull, BOOT_PAGE_TABLES + 0x1000);
    assert_int_equal(ram64(f, BOOT_PAGE_TABLES + 0x5000 + 8), 0xc0200083);
    /* contents, and the cleared rest */
    assert_int_equal(f->obj->host[0x100007f], 0x90);
    assert_int_equal(f->obj->host[0x1000080], 0);
    assert_int_equal(f->obj->host[0x1000fff], 0);
    assert_int_equal(f->obj->host[0x1001000], 0xcc);
    /* zero page */
    assert_memory_equal(zp + 0x202, "HdrS", 4);
    assert_int_equal(hsk_get64(zp + 0x70), BOOT_TABLES_BASE);
    assert_string_equal((const char *)f->obj->host + hsk_get32(zp + 0x228), "console=ttyS0");
    initrd = hsk_get32(zp + 0x218);
    assert_int_equal(initrd, RAM_BYTES - 4096);
    assert_int_equal(hsk_get32(zp + 0x21c), 12);
    assert_memory_equal(f->obj->host + initrd, "initial disk", 12);
    assert_int_equal(zp[0x1e8], 5);
    assert_int_equal(hsk_get64(zp + 0x2d0 + 60), 0x100000);
    assert_int_equal(hsk_get64(zp + 0x2d0 + 68), RAM_BYTES - 0x100000);
    assert_int_equal(zp[0x0f], 0x23);
    assert_int_equal(hsk_get32(zp + 0x18), HSK_VRAM_BASE);
    assert_int_equal(hsk_get16(zp + 0x24), 4096);
}

/* An ELF32 executable of an i386 kernel: the same PT_LOAD. */
static GByteArray *make_elf32(void)
{
    GByteArray *a = g_byte_array_new();
    uint8_t *p;

    g_byte_array_set_size(a, 0x200);
    p = a->data;
    memset(p, 0, a->len);
    memcpy(p, "\177ELF\1\1\1", 7);
    hsk_put16(p + 16, 2);
    hsk_put16(p + 18, 3);
    hsk_put32(p + 24, ENTRY);
    hsk_put32(p + 28, 52);
    hsk_put16(p + 42, 32);
    hsk_put16(p + 44, 1);
    hsk_put32(p + 52, ELF_PT_LOAD);
    hsk_put32(p + 56, 0x180);
    hsk_put32(p + 64, 0x1000000);
    hsk_put32(p + 68, 0x80);
    hsk_put32(p + 72, 0x1000);
    memset(p + 0x180, 0x90, 0x80);
    return a;
}

/* What the 32-bit boot protocol asks for. */
static void check_entry_32(struct fixture *f, uint32_t entry)
{
    const struct hsk_cpu_state *s = &f->boot.cpu;

    assert_int_equal(s->rip, entry);
    assert_int_equal(s->gpr[HSK_RSI], BOOT_ZERO_PAGE);
    assert_int_equal(s->gpr[HSK_RBX] | s->gpr[HSK_RBP] | s->gpr[HSK_RDI], 0);
    assert_int_equal(s->cr0 & 0x80000001, 1);
    assert_int_equal(s->efer, 0);
    assert_int_equal(s->rflags, 2);
    assert_int_equal(s->seg[HSK_CS].selector, 0x10);
    assert_int_equal(s->seg[HSK_CS].attr, 0xc09b);
    assert_int_equal(s->seg[HSK_DS].selector, 0x18);
    assert_int_equal(s->seg[HSK_SS].attr, 0xc093);
    assert_int_equal(ram64(f, s->gdtr.base + 0x10), 0x00cf9b000000ffff);
    assert_int_equal(ram64(f, s->gdtr.base + 0x18), 0x00cf93000000ffff);
}

static void bzimage_of_a_32_bit_kernel_is_entered_flat(void **state)
{
    struct fixture *f = *state;
    g_autoptr(GByteArray) elf = make_elf32();
    g_autoptr(GByteArray) kernel = make_bzimage(elf);

    assert_true(boot(f, kernel, NULL));
    check_entry_32(f, ENTRY);
    assert_int_equal(f->obj->host[0x100007f], 0x90);
    assert_memory_equal(f->obj->host + BOOT_ZERO_PAGE + 0x202, "HdrS", 4);
}

/* memtest86+ is one: nothing to unpack. So is a kernel packed with LZO, which unpacks itself. */
static void bzimage_is_entered_at_its_own_code_if_it_cannot_be_unpacked(void **state)
{
    struct fixture *f = *state;
    g_autoptr(GByteArray) elf = make_elf32();
    g_autoptr(GByteArray) kernel = make_bzimage(elf);

    memset(kernel->data + 1024, 0x11, 16);
    hsk_put64(kernel->data + 0x258, 0x200000);
    hsk_put32(kernel->data + 0x260, 0x300000);
    hsk_put32(kernel->data + 0x24c, 0);
    assert_true(boot(f, kernel, NULL));
    check_entry_32(f, 0x200000);
    assert_int_equal(f->obj->host[0x20000f], 0x11);

    memcpy(kernel->data + 1024 + 16, "\211LZO\0\r\n\32\n", 9);
    hsk_put32(kernel->data + 0x24c, 64);
    assert_true(boot(f, kernel, NULL));
    check_entry_32(f, 0x200000);
    assert_int_equal(f->obj->host[0x200010], 0x89);

    hsk_put16(kernel->data + 0x206,
              0x205); /* before the fields for payload and preferred address */
    assert_true(boot(f, kernel, NULL));
    check_entry_32(f, 0x100000);
}

static void bzimage_without_room_for_its_code_is_refused(void **state)
{
    static const struct {
        uint64_t pref;
        uint32_t init_size;
    } bad[] = {{0x10000, 0x1000},
               {UINT64_MAX - 8, 0x1000},
               {0x100000, 0xffffffff},
               {RAM_BYTES - 0x800, 0x100}};
    struct fixture *f = *state;
    g_autoptr(GByteArray) elf = make_elf32();
    g_autoptr(GByteArray) kernel = make_bzimage(elf);

    hsk_put32(kernel->data + 0x24c, 0);
    for (unsigned i = 0; i < G_N_ELEMENTS(bad); i++) {
        hsk_put64(kernel->data + 0x258, bad[i].pref);
        hsk_put32(kernel->data + 0x260, bad[i].init_size);
        assert_false(boot(f, kernel, NULL));
    }
    hsk_put64(kernel->data + 0x258, 0x100000);
    hsk_put32(kernel->data + 0x260, 0x1000);
    kernel->data[0x1f1] = 200; /* setup sectors: nothing is behind them */
    assert_false(boot(f, kernel, NULL));
    kernel->data[0x1f1] = 1;
    kernel->data[0x211] = 0; /* a zImage */
    assert_false(boot(f, kernel, NULL));
}

static void pvh_kernel_is_entered_flat(void **state)
{
    struct fixture *f = *state;
    g_autoptr(GByteArray) kernel = make_elf(true);
    const struct hsk_cpu_state *s = &f->boot.cpu;
    const uint8_t *info = f->obj->host + BOOT_PVH_INFO;

    f->cfg.initrd = "disk";
    f->cfg.initrd_bytes = 4;
    assert_true(boot(f, kernel, NULL));
    assert_int_equal(s->rip, ENTRY + 0x10);
    assert_int_equal(s->gpr[HSK_RBX], BOOT_PVH_INFO);
    assert_int_equal(s->cr0 & 0x80000001, 1);
    assert_int_equal(s->efer, 0);
    assert_int_equal(s->seg[HSK_CS].attr, 0xc09b);
    assert_int_equal(hsk_get32(info), 0x336ec578);
    assert_int_equal(hsk_get32(info + 12), 1);
    assert_int_equal(hsk_get64(info + 32), BOOT_TABLES_BASE);
    assert_memory_equal(f->obj->host + ram64(f, hsk_get64(info + 16)), "disk", 4);
    assert_int_equal(hsk_get32(info + 48), 5);
}

static void no_kernel_is_refused_with_a_sentence(void **state)
{
    struct fixture *f = *state;
    g_autoptr(GByteArray) text = g_byte_array_new();
    g_autoptr(GByteArray) elf = make_elf(false);
    g_autofree char *message = NULL, *message2 = NULL;

    g_byte_array_append(text, (const guint8 *)"#!/bin/sh\n", 10);
    assert_false(boot(f, text, &message));
    assert_non_null(strstr(message, "not a kernel"));
    assert_false(boot(f, elf, &message2)); /* an ELF without the note */
    assert_non_null(strstr(message2, "PVH"));
}

static void damaged_bzimages_are_refused(void **state)
{
    static const struct {
        unsigned offset;
        uint32_t value;
    } damage[] = {
        {0x24c, 0xffffffff}, {0x24c, 15}, {0x248, 0xfffffff0},
        {0x248, 4000},       {0x24c, 40}, {0x206, 0x0100},
    };
    struct fixture *f = *state;
    g_autoptr(GByteArray) elf = make_elf(false);

    for (unsigned i = 0; i < G_N_ELEMENTS(damage); i++) {
        g_autoptr(GByteArray) kernel = make_bzimage(elf);

        if (damage[i].offset == 0x206)
            hsk_put16(kernel->data + 0x206, (uint16_t)damage[i].value);
        else
            hsk_put32(kernel->data + damage[i].offset, damage[i].value);
        assert_false(boot(f, kernel, NULL));
    }
}

static void damaged_elfs_are_refused(void **state)
{
    static const struct {
        unsigned offset;
        uint64_t value;
    } damage[] = {
        {24, 0x2000000},              /* entry behind the kernel (bzImage) */
        {32, UINT64_MAX - 8},         /* program headers */
        {64 + 8, UINT64_MAX - 4},     /* offset */
        {64 + 24, 0x1000},            /* paddr below 1 MiB */
        {64 + 24, UINT64_MAX - 8},    /* paddr wraps */
        {64 + 24, RAM_BYTES - 0x800}, /* half behind the memory */
        {64 + 32, 0x2000},            /* filesz > file and memsz */
        {64 + 40, 0x10},              /* memsz < filesz */
        {64 + 40, 0},                 /* nothing to load */
        {64, 6},                      /* the same */
    };
    struct fixture *f = *state;

    for (unsigned i = 0; i < G_N_ELEMENTS(damage); i++) {
        g_autoptr(GByteArray) elf = make_elf(false);
        g_autoptr(GByteArray) kernel = NULL;

        hsk_put64(elf->data + damage[i].offset, damage[i].value);
        kernel = make_bzimage(elf);
        assert_false(boot(f, kernel, NULL));
    }
}

static void long_command_line_and_large_initrd_are_refused(void **state)
{
    struct fixture *f = *state;
    g_autoptr(GByteArray) elf = make_elf(false);
    g_autoptr(GByteArray) kernel = make_bzimage(elf);
    g_autofree char *line = g_strnfill(256, 'x');
    g_autofree uint8_t *initrd = g_malloc0(RAM_BYTES);

    f->cfg.cmdline = line;
    assert_false(boot(f, kernel, NULL));
    f->cfg.cmdline = NULL;
    f->cfg.initrd = initrd;
    f->cfg.initrd_bytes = 15u << 20; /* would reach into the kernel's first 2 MiB */
    assert_false(boot(f, kernel, NULL));
    f->cfg.initrd_bytes = 14u << 20;
    assert_true(boot(f, kernel, NULL));
}

static void acpi_tables_are_linked_and_sum_to_zero(void **state)
{
    struct fixture *f = *state;
    gpa_t rsdp, xsdt, facp;
    g_autoptr(GByteArray) t = hsk_acpi_build(BOOT_TABLES_BASE, 2, &rsdp);
    static const char signatures[3][5] = {"FACP", "APIC", "MCFG"};
    uint8_t sum = 0;

    assert_true(t->len < BOOT_TABLES_END - BOOT_TABLES_BASE);
    memcpy(f->obj->host + BOOT_TABLES_BASE, t->data, t->len);
    for (unsigned i = 0; i < 36; i++)
        sum = (uint8_t)(sum + f->obj->host[rsdp + i]);
    assert_int_equal(sum, 0);
    xsdt = ram64(f, rsdp + 24);
    assert_int_equal(hsk_get32(f->obj->host + xsdt + 4), 36 + 3 * 8);
    for (unsigned i = 0; i < 3; i++) {
        gpa_t table = ram64(f, xsdt + 36 + 8 * i);
        uint32_t len = hsk_get32(f->obj->host + table + 4);

        assert_memory_equal(f->obj->host + table, signatures[i], 4);
        sum = 0;
        for (unsigned k = 0; k < len; k++)
            sum = (uint8_t)(sum + f->obj->host[table + k]);
        assert_int_equal(sum, 0);
    }
    facp = ram64(f, xsdt + 36);
    assert_memory_equal(f->obj->host + ram64(f, facp + 140), "DSDT", 4);
    assert_memory_equal(f->obj->host + ram64(f, facp + 132), "FACS", 4);
    assert_int_equal(ram64(f, facp + 132) % 64, 0);
}

static void mp_table_sums_to_zero_and_names_everything(void **state)
{
    g_autoptr(GByteArray) t = hsk_mptable_build(BOOT_MP_BASE, 3, 0x306a9, 0x1783fbff);
    static const unsigned bytes[5] = {20, 8, 8, 8, 8};
    const uint8_t *p = t->data, *table = p + 16, *entry = table + 44;
    unsigned count[5] = {0}, len = hsk_get16(table + 4);
    uint8_t sum = 0;

    assert_true(t->len <= BOOT_TABLES_END - BOOT_MP_BASE);
    assert_memory_equal(p, "_MP_", 4);
    for (unsigned i = 0; i < 16; i++)
        sum = (uint8_t)(sum + p[i]);
    assert_int_equal(sum, 0);
    assert_int_equal(hsk_get32(p + 4), BOOT_MP_BASE + 16);
    assert_int_equal(t->len, 16 + len);
    for (unsigned i = 0; i < len; i++)
        sum = (uint8_t)(sum + table[i]);
    assert_int_equal(sum, 0);
    assert_memory_equal(table, "PCMP", 4);
    assert_int_equal(hsk_get32(table + 36), HSK_LAPIC_BASE);
    for (unsigned i = 0; i < hsk_get16(table + 34); i++) {
        assert_true(entry[0] < 5 && entry + bytes[entry[0]] <= t->data + t->len);
        count[entry[0]]++;
        if (entry[0] == 0) {
            assert_int_equal(entry[1], count[0] - 1);
            assert_int_equal(entry[3], count[0] == 1 ? 3 : 1);
            assert_int_equal(hsk_get32(entry + 4), 0x306a9);
        }
        if (entry[0] == 2)
            assert_int_equal(hsk_get32(entry + 4), HSK_IOAPIC_BASE);
        entry += bytes[entry[0]];
    }
    assert_ptr_equal(entry, t->data + t->len);
    assert_int_equal(count[0], 3);
    assert_int_equal(count[1], 2);
    assert_int_equal(count[2], 1);
    assert_int_equal(count[3], 15 + 32 * 4);
    assert_int_equal(count[4], 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(bzimage_is_entered_in_long_mode, setup, teardown),
        cmocka_unit_test_setup_teardown(bzimage_of_a_32_bit_kernel_is_entered_flat, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(bzimage_is_entered_at_its_own_code_if_it_cannot_be_unpacked,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(bzimage_without_room_for_its_code_is_refused, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(pvh_kernel_is_entered_flat, setup, teardown),
        cmocka_unit_test_setup_teardown(no_kernel_is_refused_with_a_sentence, setup, teardown),
        cmocka_unit_test_setup_teardown(damaged_bzimages_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(damaged_elfs_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(long_command_line_and_large_initrd_are_refused, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(acpi_tables_are_linked_and_sum_to_zero, setup, teardown),
        cmocka_unit_test(mp_table_sums_to_zero_and_names_everything),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
