/* SPDX-License-Identifier: MIT */
/* The two 8259A: vectors, priorities, EOI in all forms, cascade, spurious interrupts, ELCR, poll.
 */
#include <fake-machine.h>

#include "../../../vmm/devices/devices.h"

static void line(struct hsk_machine *m, unsigned n, bool level)
{
    hsk_pic_set(hsk_machine_find_dev(m, "pic"), n, level);
}
static void edge(struct hsk_machine *m, unsigned n)
{
    line(m, n, true);
    line(m, n, false);
}
/* -1: the output is low. */
static int ack(struct hsk_machine *m)
{
    return hsk_lapic_pending(hsk_machine_lapic(m, 0)) & HSK_LAPIC_INTR ? hsk_pic_ack(m) : -1;
}

static void init(struct hsk_machine *m, uint8_t icw4)
{
    static const struct {
        uint8_t port, value;
    } writes[] = {{0x20, 0x11}, {0x21, 0x20}, {0x21, 0x04}, {0x21, 0},
                  {0xa0, 0x11}, {0xa1, 0x28}, {0xa1, 0x02}, {0xa1, 0}};

    for (unsigned i = 0; i < G_N_ELEMENTS(writes); i++)
        out8(m, writes[i].port, i % 4 == 3 ? icw4 : writes[i].value);
}

static int setup(void **state)
{
    *state = fake_machine_new();
    init(*state, 0x01);
    return 0;
}
static int teardown(void **state)
{
    hsk_machine_free(*state);
    return 0;
}

static void nothing_passes_before_it_is_programmed(void **state)
{
    struct hsk_machine *m = *state;

    hsk_machine_reset(m);
    edge(m, 0);
    assert_int_equal(ack(m), -1);
}

static void fixed_priority_and_non_specific_eoi(void **state)
{
    struct hsk_machine *m = *state;

    edge(m, 4);
    edge(m, 1);
    assert_int_equal(ack(m), 0x21);
    assert_int_equal(ack(m), -1); /* 4 waits behind 1 */
    edge(m, 0);
    assert_int_equal(ack(m), 0x20); /* 0 does not */
    out8(m, 0x20, 0x0b);
    assert_int_equal(in8(m, 0x20), 0x03);
    out8(m, 0x20, 0x20);
    assert_int_equal(in8(m, 0x20), 0x02); /* EOI ends the highest */
    out8(m, 0x20, 0x20);
    assert_int_equal(ack(m), 0x24);
    out8(m, 0x20, 0x64); /* specific */
    assert_int_equal(in8(m, 0x20), 0);
}

static void mask_holds_and_releases(void **state)
{
    struct hsk_machine *m = *state;

    out8(m, 0x21, 0x10);
    edge(m, 4);
    assert_int_equal(ack(m), -1);
    assert_int_equal(in8(m, 0x21), 0x10);
    out8(m, 0x21, 0);
    assert_int_equal(ack(m), 0x24);
}

static void slave_needs_both_eois(void **state)
{
    struct hsk_machine *m = *state;

    edge(m, 12);
    edge(m, 8);
    assert_int_equal(ack(m), 0x28);
    assert_int_equal(ack(m), -1);
    out8(m, 0xa0, 0x20);
    assert_int_equal(ack(m), -1); /* the master still serves its line 2 */
    out8(m, 0x20, 0x20);
    assert_int_equal(ack(m), 0x2c);
}

static void a_level_that_fell_is_spurious(void **state)
{
    struct hsk_machine *m = *state;

    out8(m, 0x4d0, 0x20);
    line(m, 5, true);
    line(m, 5, false);
    assert_int_equal(ack(m), -1);
    assert_int_equal(hsk_pic_ack(m), 0x27);
    out8(m, 0x20, 0x0b);
    assert_int_equal(in8(m, 0x20), 0); /* without an in-service bit */
}

static void level_lines_ask_again(void **state)
{
    struct hsk_machine *m = *state;

    out8(m, 0x4d0, 0xff);
    out8(m, 0x4d1, 0xff);
    assert_int_equal(in8(m, 0x4d0), 0xf8); /* 0-2 are always edge */
    assert_int_equal(in8(m, 0x4d1), 0xde); /* 8 and 13 too */
    line(m, 10, true);
    assert_int_equal(ack(m), 0x2a);
    out8(m, 0xa0, 0x20);
    out8(m, 0x20, 0x20);
    assert_int_equal(ack(m), 0x2a);
    line(m, 10, false);
    out8(m, 0xa0, 0x20);
    out8(m, 0x20, 0x20);
    assert_int_equal(ack(m), -1);
}

static void automatic_eoi_leaves_nothing_in_service(void **state)
{
    struct hsk_machine *m = *state;

    init(m, 0x03);
    edge(m, 3);
    edge(m, 6);
    assert_int_equal(ack(m), 0x23);
    assert_int_equal(ack(m), 0x26);
}

static void rotation_makes_the_served_line_last(void **state)
{
    struct hsk_machine *m = *state;

    edge(m, 3);
    assert_int_equal(ack(m), 0x23);
    out8(m, 0x20, 0xa0); /* rotate on EOI */
    edge(m, 3);
    edge(m, 4);
    assert_int_equal(ack(m), 0x24);
    out8(m, 0x20, 0xc7); /* set priority: 7 lowest, as at first */
    assert_int_equal(ack(m), 0x23);
}

static void special_mask_lets_lower_lines_in(void **state)
{
    struct hsk_machine *m = *state;

    edge(m, 1);
    assert_int_equal(ack(m), 0x21);
    edge(m, 6);
    assert_int_equal(ack(m), -1);
    out8(m, 0x21, 0x02);
    out8(m, 0x20, 0x68);
    assert_int_equal(ack(m), 0x26);
}

static void poll_acknowledges(void **state)
{
    struct hsk_machine *m = *state;

    edge(m, 6);
    out8(m, 0x20, 0x0c);
    assert_int_equal(in8(m, 0x20), 0x86);
    assert_int_equal(ack(m), -1);
    out8(m, 0x20, 0x0c);
    assert_int_equal(in8(m, 0x20), 0);
}

static void acknowledged_through_the_apic(void **state)
{
    struct hsk_machine *m = *state;

    edge(m, 4);
    assert_int_equal(hsk_lapic_ack(hsk_machine_lapic(m, 0)), 0x24);
    assert_int_equal(hsk_lapic_pending(hsk_machine_lapic(m, 0)), 0);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
int main(void)
{
    const struct CMUnitTest tests[] = {
        T(nothing_passes_before_it_is_programmed),
        T(fixed_priority_and_non_specific_eoi),
        T(mask_holds_and_releases),
        T(slave_needs_both_eois),
        T(a_level_that_fell_is_spurious),
        T(level_lines_ask_again),
        T(automatic_eoi_leaves_nothing_in_service),
        T(rotation_makes_the_served_line_last),
        T(special_mask_lets_lower_lines_in),
        T(poll_acknowledges),
        T(acknowledged_through_the_apic),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
