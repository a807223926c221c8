/* SPDX-License-Identifier: MIT */
/* Direct boot of multiboot kernels: made-up files, good and hostile, against guest memory alone. */
#include "boot-fixture.h"

#define HEADER_AT 0x80
#define ENTRY     0x200040

static void put_header(GByteArray *a, uint32_t flags)
{
    uint8_t *h = a->data + HEADER_AT;

    hsk_put32(h, 0x1badb002);
    hsk_put32(h + 4, flags);
    hsk_put32(h + 8, 0u - 0x1badb002u - flags);
}

/* An ELF32 executable with a header: one PT_LOAD of 0x100 bytes (memsz 0x1000) at gpa. */
static GByteArray *make_elf(uint32_t gpa)
{
    GByteArray *a = g_byte_array_new();
    uint8_t *p;

    g_byte_array_set_size(a, 0x200);
    p = a->data;
    memset(p, 0, a->len);
    memcpy(p, "\177ELF\1\1\1", 7);
    hsk_put16(p + 16, 2);
    hsk_put16(p + 18, 3);
    hsk_put32(p + 24, gpa + 0x40);
    hsk_put32(p + 28, 52);
    hsk_put16(p + 42, 32);
    hsk_put16(p + 44, 1);
    hsk_put32(p + 52, ELF_PT_LOAD);
    hsk_put32(p + 56, 0x100);
    hsk_put32(p + 64, gpa);
    hsk_put32(p + 68, 0x100);
    hsk_put32(p + 72, 0x1000);
    memset(p + 0x100, 0x90, 0x100);
    put_header(a, 3);
    return a;
}

/* No ELF: 0x200 bytes whose header says that the part from 0x40 on goes to 2 MiB, and 0x1000 bytes
 * are cleared behind it. */
static GByteArray *make_flat(void)
{
    GByteArray *a = g_byte_array_new();
    uint8_t *h;

    g_byte_array_set_size(a, 0x200);
    memset(a->data, 0x90, a->len);
    put_header(a, 0x10003);
    h = a->data + HEADER_AT;
    hsk_put32(h + 12, 0x200000 + HEADER_AT - 0x40);
    hsk_put32(h + 16, 0x200000);
    hsk_put32(h + 20, 0x200180);
    hsk_put32(h + 24, 0x201180);
    hsk_put32(h + 28, ENTRY);
    return a;
}

static void elf_is_entered_with_its_information(void **state)
{
    struct fixture *f = *state;
    g_autoptr(GByteArray) kernel = make_elf(0x200000);
    const struct hsk_cpu_state *s = &f->boot.cpu;
    const uint8_t *info, *ram = f->obj->host, *module, *map;
    uint64_t usable = 0;

    memset(f->obj->host + 0x200000, 0xcc, 0x2000);
    f->cfg.cmdline = "one two";
    f->cfg.initrd = "NR_CPUS=1";
    f->cfg.initrd_bytes = 9;
    assert_true(boot(f, kernel, NULL));
    assert_int_equal(s->rip, ENTRY);
    assert_int_equal(s->gpr[HSK_RAX], 0x2badb002);
    assert_int_equal(s->cr0 & 0x80000001, 1);
    assert_int_equal(s->rflags, 2);
    assert_int_equal(s->seg[HSK_CS].attr, 0xc09b);
    assert_int_equal(s->seg[HSK_CS].selector, 8);
    assert_int_equal(ram64(f, s->gdtr.base + 8), 0x00cf9b000000ffff);
    assert_int_equal(ram64(f, s->gdtr.base + s->seg[HSK_ES].selector), 0x00cf93000000ffff);
    assert_int_equal(s->seg[HSK_SS].limit, 0xffffffff);
    assert_int_equal(ram[0x2000ff], 0x90);
    assert_int_equal(ram[0x200100], 0);
    assert_int_equal(ram[0x200fff], 0);
    assert_int_equal(ram[0x201000], 0xcc);

    info = ram + s->gpr[HSK_RBX];
    assert_int_equal(hsk_get32(info) & 0x4d, 0x4d);
    assert_int_equal(hsk_get32(info + 4), 639);
    assert_int_equal(hsk_get32(info + 8), RAM_BYTES / 1024 - 1024);
    assert_string_equal((const char *)ram + hsk_get32(info + 16), "test.kernel one two");
    assert_int_equal(hsk_get32(info + 20), 1);
    module = ram + hsk_get32(info + 24);
    assert_memory_equal(ram + hsk_get32(module), "NR_CPUS=1", 9);
    assert_int_equal(hsk_get32(module + 4) - hsk_get32(module), 9);
    assert_int_equal(ram[hsk_get32(module + 8)], 0);
    map = ram + hsk_get32(info + 48);
    for (const uint8_t *p = map; p < map + hsk_get32(info + 44); p += hsk_get32(p) + 4)
        if (hsk_get32(p + 20) == 1)
            usable += hsk_get64(p + 12);
    assert_int_equal(usable, RAM_BYTES - 0x100000 + BOOT_EBDA);
}

static void elf_may_lie_in_low_memory(void **state)
{
    struct fixture *f = *state;
    g_autoptr(GByteArray) kernel = make_elf(0x8000);

    assert_true(boot(f, kernel, NULL));
    assert_int_equal(f->boot.cpu.rip, 0x8040);
    assert_int_equal(f->obj->host[0x80ff], 0x90);
}

static void header_says_what_goes_where(void **state)
{
    struct fixture *f = *state;
    g_autoptr(GByteArray) kernel = make_flat();

    memset(f->obj->host + 0x200000, 0xcc, 0x2000);
    assert_true(boot(f, kernel, NULL));
    assert_int_equal(f->boot.cpu.rip, ENTRY);
    assert_memory_equal(f->obj->host + 0x200000, kernel->data + 0x40, 0x180);
    assert_int_equal(f->obj->host[0x200180], 0);
    assert_int_equal(f->obj->host[0x20117f], 0);
    assert_int_equal(f->obj->host[0x201180], 0xcc);

    hsk_put32(kernel->data + HEADER_AT + 20, 0); /* all of the file, and nothing behind it */
    hsk_put32(kernel->data + HEADER_AT + 24, 0);
    memset(f->obj->host + 0x200000, 0xcc, 0x2000);
    assert_true(boot(f, kernel, NULL));
    assert_memory_equal(f->obj->host + 0x200000, kernel->data + 0x40, 0x1c0);
    assert_int_equal(f->obj->host[0x2001c0], 0xcc);
}

static void what_it_requires_and_is_not_there_is_refused(void **state)
{
    struct fixture *f = *state;
    g_autoptr(GByteArray) kernel = make_elf(0x200000);
    g_autofree char *message = NULL;

    put_header(kernel, 8);
    assert_false(boot(f, kernel, &message));
    assert_non_null(strstr(message, "multiboot"));
    put_header(kernel, 0x80000007); /* flags above 15 are wishes, a video mode is too */
    kernel->data[HEADER_AT + 8] = (uint8_t)(0u - 0x02u - 0x07u);
    hsk_put32(kernel->data + HEADER_AT + 8, 0u - 0x1badb002u - 0x80000007u);
    assert_true(boot(f, kernel, NULL));
}

static void header_counts_only_in_the_first_8_kib_and_with_its_sum(void **state)
{
    struct fixture *f = *state;
    g_autoptr(GByteArray) kernel = make_elf(0x200000);
    g_autofree char *message = NULL;

    kernel->data[HEADER_AT + 8]++;
    assert_false(boot(f, kernel, &message));
    assert_non_null(strstr(message, "PVH"));
    kernel->data[HEADER_AT + 8]--;
    g_byte_array_set_size(kernel, 0x3000);
    memset(kernel->data + 0x200, 0, 0x2e00);
    memcpy(kernel->data + 0x2000, kernel->data + HEADER_AT, 12);
    memset(kernel->data + HEADER_AT, 0, 12);
    assert_false(boot(f, kernel, NULL));
    memcpy(kernel->data + 8192 - 12, kernel->data + 0x2000, 12);
    assert_true(boot(f, kernel, NULL));
}

static void damaged_headers_are_refused(void **state)
{
    static const struct {
        unsigned offset;
        uint32_t value;
    } damage[] = {
        {12, 0x1fffff},   /* header below load */
        {12, 0x300000},   /* load begins before the file */
        {16, 0xffffffff}, /* load above header */
        {20, 0x1fffff},   /* end before begin */
        {20, 0x200200},   /* end behind the file */
        {24, 0xffffffff}, /* more than there is memory */
        {28, 0x1fffff},   /* entry before, */
        {28, 0x200180},   /* and behind it */
    };
    struct fixture *f = *state;

    for (unsigned i = 0; i < G_N_ELEMENTS(damage); i++) {
        g_autoptr(GByteArray) kernel = make_flat();

        hsk_put32(kernel->data + HEADER_AT + damage[i].offset, damage[i].value);
        assert_false(boot(f, kernel, NULL));
    }
}

static void places_of_boot_data_are_refused(void **state)
{
    static const uint32_t gpa[] = {0,       0x800,   BOOT_MULTIBOOT - 0x800, BOOT_EBDA,
                                   0xb8000, 0xff000, RAM_BYTES - 0x800};
    struct fixture *f = *state;

    for (unsigned i = 0; i < G_N_ELEMENTS(gpa); i++) {
        g_autoptr(GByteArray) kernel = make_elf(gpa[i]);

        assert_false(boot(f, kernel, NULL));
    }
}

static void long_command_line_is_refused(void **state)
{
    struct fixture *f = *state;
    g_autoptr(GByteArray) kernel = make_elf(0x200000);
    g_autofree char *line =
        g_strnfill(BOOT_CMDLINE_MAX - 13, 'x'); /* with the name and a blank one too many */

    f->cfg.cmdline = line;
    assert_true(strlen(line) + strlen("test.kernel ") == BOOT_CMDLINE_MAX - 1);
    assert_true(boot(f, kernel, NULL));
    f->cfg.kernel_name = "2test.kernel";
    assert_false(boot(f, kernel, NULL));
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(elf_is_entered_with_its_information),
        T(elf_may_lie_in_low_memory),
        T(header_says_what_goes_where),
        T(what_it_requires_and_is_not_there_is_refused),
        T(header_counts_only_in_the_first_8_kib_and_with_its_sum),
        T(damaged_headers_are_refused),
        T(places_of_boot_data_are_refused),
        T(long_command_line_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
