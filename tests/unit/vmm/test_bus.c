/* SPDX-License-Identifier: MIT */
/* The bus: lookup, sizes, overlaps, moving a range. */
#include <vmm/device.h>

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

struct probe {
    struct hsk_dev dev;
    unsigned region, size;
    uint64_t offset, value;
};

static uint64_t probe_read(struct hsk_dev *dev, unsigned region, uint64_t offset, unsigned size)
{
    struct probe *p = (struct probe *)dev;

    p->region = region;
    p->offset = offset;
    p->size = size;
    return 0x8877665544332211;
}

static void probe_write(struct hsk_dev *dev, unsigned region, uint64_t offset, unsigned size,
                        uint64_t value)
{
    struct probe *p = (struct probe *)dev;

    p->offset = offset;
    p->size = size;
    p->value = value;
}

static const struct hsk_dev_ops probe_ops = {
    .min_size = 1, .max_size = 4, .read = probe_read, .write = probe_write};

static void accesses_reach_the_device_with_offset_and_mask(void **state)
{
    struct hsk_bus *bus = hsk_bus_new("test");
    struct probe a = {0}, b = {0};
    uint64_t v;

    hsk_dev_init(&a.dev, &probe_ops, NULL, "a");
    hsk_dev_init(&b.dev, &probe_ops, NULL, "b");
    assert_true(hsk_bus_map(bus, 0x100, 8, &a.dev, 3));
    assert_true(hsk_bus_map(bus, 0x108, 8, &b.dev, 4));
    assert_false(hsk_bus_map(bus, 0x107, 2, &b.dev, 5));
    assert_false(hsk_bus_map(bus, UINT64_MAX - 1, 4, &b.dev, 5)); /* wraps */
    assert_true(hsk_bus_read(bus, 0x104, 2, &v));
    assert_int_equal(v, 0x2211);
    assert_int_equal(a.region, 3);
    assert_int_equal(a.offset, 4);
    assert_true(hsk_bus_write(bus, 0x108, 1, 0xabcd));
    assert_int_equal(b.value, 0xcd);
    assert_int_equal(b.offset, 0);

    /* crossing an end, too wide, unclaimed: all ones and no call */
    a.size = 0;
    assert_false(hsk_bus_read(bus, 0x106, 4, &v));
    assert_int_equal(v, 0xffffffff);
    assert_false(hsk_bus_read(bus, 0x100, 8, &v));
    assert_true(v == UINT64_MAX);
    assert_false(hsk_bus_read(bus, 0xff, 1, &v));
    assert_false(hsk_bus_write(bus, 0x110, 1, 1));
    assert_int_equal(a.size, 0);

    assert_false(hsk_bus_unmap(bus, 0x100, &b.dev));
    assert_true(hsk_bus_unmap(bus, 0x100, &a.dev));
    assert_false(hsk_bus_read(bus, 0x100, 1, &v));
    assert_true(hsk_bus_map(bus, 0x200, 8, &a.dev, 7)); /* moved */
    assert_true(hsk_bus_read(bus, 0x207, 1, &v));
    assert_int_equal(a.region, 7);
    hsk_bus_free(bus);
    hsk_dev_finish(&a.dev);
    hsk_dev_finish(&b.dev);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(accesses_reach_the_device_with_offset_and_mask)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
