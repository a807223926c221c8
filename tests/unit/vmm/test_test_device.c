/* SPDX-License-Identifier: MIT */
/* The test device: its register, its memory, and the lines it sets. */
#include "fake-machine.h"

static void register_is_seen_at_both_places_in_any_width(void **state)
{
    struct hsk_machine *m = fake_machine_new();
    uint64_t v;

    assert_true(hsk_bus_write(hsk_machine_pio(m), 0xe0, 4, 0x12345678));
    assert_true(hsk_bus_read(hsk_machine_pio(m), 0xe9, 2, &v));
    assert_int_equal(v, 0x3456);
    out8(m, 0xeb, 0xab);
    assert_true(hsk_bus_read(hsk_machine_pio(m), 0xe0, 4, &v));
    assert_int_equal(v, 0xab345678);
    assert_false(hsk_bus_read(hsk_machine_pio(m), 0xe3, 2, &v)); /* across its end */
    hsk_machine_reset(m);
    assert_int_equal(in8(m, 0xe0), 0);
    hsk_machine_free(m);
}

static void memory_keeps_what_is_written(void **state)
{
    struct hsk_machine *m = fake_machine_new();
    uint64_t v;

    assert_true(hsk_bus_write(hsk_machine_mmio(m), 0xff00fff8, 8, 0x1122334455667788));
    assert_true(hsk_bus_read(hsk_machine_mmio(m), 0xff00fffc, 2, &v));
    assert_int_equal(v, 0x3344);
    assert_false(hsk_bus_read(hsk_machine_mmio(m), 0xff010000, 1, &v));
    hsk_machine_free(m);
}

static void lines_follow_the_written_bit(void **state)
{
    struct hsk_machine *m = fake_machine_new();

    irq_forget(m);
    out8(m, 0x4d0, 1 << 5); /* level-triggered */
    out8(m, 0x2005, 1);
    assert_true(irq_requested(m, 5));
    out8(m, 0x2005, 0xfe);
    assert_false(irq_requested(m, 5));
    out8(m, 0x2017, 1);
    out8(m, 0x2018, 1); /* no line */
    hsk_machine_free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(register_is_seen_at_both_places_in_any_width),
        cmocka_unit_test(memory_keeps_what_is_written),
        cmocka_unit_test(lines_follow_the_written_bit),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
