/* SPDX-License-Identifier: MIT */
/* Guest memory: objects, attributes, the copy-before-write hook and the guest-physical map. */
#include <vmm/memory.h>

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#define MIB (1u << 20)

struct fixture {
    struct hsk_memobj *obj;
    struct hsk_ram *ram;
    unsigned hooks, code_writes;
    uint64_t last_page;
    uint8_t byte_at_hook;
};

static void before_write(struct hsk_memobj *obj, uint64_t page, void *opaque)
{
    struct fixture *f = opaque;

    f->hooks++;
    f->last_page = page;
    f->byte_at_hook = obj->host[page * HSK_PAGE_SIZE];
}

static void code_write(void *opaque, struct hsk_memobj *obj, uint64_t page)
{
    struct fixture *f = opaque;

    f->code_writes++;
    f->last_page = page;
}

static int setup(void **state)
{
    struct fixture *f = g_new0(struct fixture, 1);

    f->obj = hsk_memobj_new("ram", 4 * MIB, NULL);
    f->ram = hsk_ram_new();
    assert_non_null(f->obj);
    assert_true(hsk_ram_map_add(
        f->ram, &(struct hsk_ram_region){.gpa = 0, .size_bytes = 2 * MIB, .obj = f->obj}));
    assert_true(hsk_ram_map_add(
        f->ram, &(struct hsk_ram_region){
                    .gpa = 4 * MIB, .size_bytes = 2 * MIB, .offset = 2 * MIB, .obj = f->obj}));
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    hsk_ram_free(f->ram);
    hsk_memobj_free(f->obj);
    g_free(f);
    return 0;
}

static void overlapping_regions_are_refused(void **state)
{
    struct fixture *f = *state;
    struct hsk_ram_region r = {.gpa = 2 * MIB - 4096, .size_bytes = 8192, .obj = f->obj};

    assert_false(hsk_ram_map_add(f->ram, &r));
    r.gpa = 4 * MIB - 4096;
    assert_false(hsk_ram_map_add(f->ram, &r));
    r.gpa = 2 * MIB;
    assert_true(hsk_ram_map_add(f->ram, &r));
    assert_true(hsk_ram_map_del(f->ram, 2 * MIB));
    assert_false(hsk_ram_map_del(f->ram, 2 * MIB));
}

static void reads_and_writes_stop_at_holes(void **state)
{
    struct fixture *f = *state;
    uint64_t v = 0x1122334455667788;

    assert_true(hsk_ram_write(f->ram, 2 * MIB - 8, &v, 8));
    assert_false(hsk_ram_write(f->ram, 2 * MIB - 4, &v, 8));
    assert_false(hsk_ram_read(f->ram, 2 * MIB - 4, &v, 8));
    assert_int_equal(v, 0);
    assert_false(hsk_ram_read(f->ram, UINT64_MAX - 3, &v, 8));
    assert_null(hsk_ram_ptr(f->ram, 2 * MIB - 4, 8));
    assert_non_null(hsk_ram_ptr(f->ram, 2 * MIB - 8, 8));
    assert_true(hsk_ram_write(f->ram, 4 * MIB, &v, 8)); /* the second region continues the object */
    assert_ptr_equal(hsk_ram_ptr(f->ram, 4 * MIB, 8), f->obj->host + 2 * MIB);
}

static void a_write_is_announced_once_per_epoch_and_before_it_is_done(void **state)
{
    struct fixture *f = *state;
    uint8_t b = 7, bitmap[4 * MIB / HSK_PAGE_SIZE / 8];

    f->obj->before_write = before_write;
    f->obj->before_write_opaque = f;
    assert_true(hsk_ram_write(f->ram, 5 * 4096, &b, 1));
    assert_int_equal(f->hooks, 1);
    assert_int_equal(f->last_page, 5);
    assert_int_equal(f->byte_at_hook, 0); /* the old content */
    assert_true(hsk_ram_write(f->ram, 5 * 4096 + 1, &b, 1));
    assert_int_equal(f->hooks, 1);
    assert_int_equal(hsk_memobj_collect(f->obj, HSK_PAGE_DIRTY | HSK_PAGE_SAVED, bitmap), 1);
    assert_int_equal(bitmap[0], 1 << 5);
    assert_true(hsk_ram_write(f->ram, 5 * 4096, &b, 1));
    assert_int_equal(f->hooks, 2);
    assert_int_equal(f->byte_at_hook, 7);
    assert_int_equal(hsk_memobj_collect(f->obj, HSK_PAGE_DIRTY, NULL), 1);
    assert_int_equal(hsk_memobj_collect(f->obj, HSK_PAGE_DIRTY, NULL), 0);
}

static void a_write_across_pages_marks_both(void **state)
{
    struct fixture *f = *state;
    uint8_t bitmap[4 * MIB / HSK_PAGE_SIZE / 8], data[4096] = {1};

    assert_true(hsk_ram_write(f->ram, 4096 * 9 + 1, data, sizeof data));
    assert_int_equal(hsk_memobj_collect(f->obj, HSK_PAGE_DAMAGE, bitmap), 2);
    assert_int_equal(bitmap[1], 6);
}

static void writers_tell_the_engine_about_code_pages(void **state)
{
    struct fixture *f = *state;
    uint8_t b = 1;

    hsk_ram_set_code_write(f->ram, code_write, f);
    assert_true(hsk_ram_write(f->ram, 3 * 4096, &b, 1));
    assert_int_equal(f->code_writes, 0);
    atomic_store(&f->obj->code[3], 1);
    assert_true(hsk_ram_write(f->ram, 3 * 4096, &b, 1));
    assert_int_equal(f->code_writes, 1);
    assert_non_null(hsk_ram_ptr_write(f->ram, 3 * 4096, 4));
    assert_int_equal(f->code_writes, 1);
    hsk_ram_written(f->ram, f->obj, 3 * 4096, 4);
    assert_int_equal(f->code_writes, 2);
    assert_int_equal(f->last_page, 3);
}

static void rom_takes_no_writes(void **state)
{
    struct fixture *f = *state;
    struct hsk_ram_region r = {.gpa = 8 * MIB, .size_bytes = 4096, .obj = f->obj, .readonly = true};
    uint8_t b = 9;

    assert_true(hsk_ram_map_add(f->ram, &r));
    assert_true(hsk_ram_write(f->ram, 8 * MIB, &b, 1));
    assert_int_equal(f->obj->host[0], 0);
    assert_null(hsk_ram_ptr_write(f->ram, 8 * MIB, 1));
}

static void foreign_memory_that_can_shrink_is_refused(void **state)
{
    g_autoptr(GError) error = NULL;
    int fd = hsk_memfd_new("a", MIB, NULL),
        attr = hsk_memfd_new("b", 16, NULL); /* 256 bytes are needed */

    assert_null(hsk_memobj_new_fds("ram", MIB, fd, attr, &error));
    assert_non_null(error);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(overlapping_regions_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(reads_and_writes_stop_at_holes, setup, teardown),
        cmocka_unit_test_setup_teardown(a_write_is_announced_once_per_epoch_and_before_it_is_done,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(a_write_across_pages_marks_both, setup, teardown),
        cmocka_unit_test_setup_teardown(writers_tell_the_engine_about_code_pages, setup, teardown),
        cmocka_unit_test_setup_teardown(rom_takes_no_writes, setup, teardown),
        cmocka_unit_test(foreign_memory_that_can_shrink_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
