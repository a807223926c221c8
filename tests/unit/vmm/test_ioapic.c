/* SPDX-License-Identifier: MIT */
/* I/O APIC: edges once, levels until they fall, masks, remote IRR. Seen through local APIC 0. */
#include <fake-machine.h>

#include "../../../vmm/devices/devices.h"

#define LEVEL  (1u << 15)
#define MASKED (1u << 16)

static uint32_t reg(struct hsk_machine *m, uint8_t index)
{
    mmio_write32(m, HSK_IOAPIC_BASE, index);
    return mmio_read32(m, HSK_IOAPIC_BASE + 0x10);
}
static void set_reg(struct hsk_machine *m, uint8_t index, uint32_t value)
{
    mmio_write32(m, HSK_IOAPIC_BASE, index);
    mmio_write32(m, HSK_IOAPIC_BASE + 0x10, value);
}
static void line(struct hsk_machine *m, unsigned pin, bool level)
{
    hsk_ioapic_set(hsk_machine_find_dev(m, "ioapic"), pin, level);
}
static int ack(struct hsk_machine *m)
{
    return hsk_lapic_ack(hsk_machine_lapic(m, 0));
}
static void eoi(struct hsk_machine *m)
{
    mmio_write32(m, HSK_LAPIC_BASE + 0xb0, 0);
}

static int setup(void **state)
{
    *state = fake_machine_new();
    mmio_write32(*state, HSK_LAPIC_BASE + 0xf0, 0x1ff);
    return 0;
}
static int teardown(void **state)
{
    hsk_machine_free(*state);
    return 0;
}

static void registers_keep_what_is_writable(void **state)
{
    struct hsk_machine *m = *state;

    assert_int_equal(reg(m, 1), 0x170020);
    assert_int_equal(reg(m, 0x10), MASKED);
    set_reg(m, 0, 0xffffffff);
    assert_int_equal(reg(m, 0), 0x0f000000);
    set_reg(m, 0x12, 0xffffffff);
    set_reg(m, 0x13, 0xffffffff);
    assert_int_equal(reg(m, 0x12), 0x1afff);
    assert_int_equal(reg(m, 0x13), 0xff000000);
    assert_int_equal(reg(m, 0x40), 0xffffffff); /* pin 24 is not there */
    set_reg(m, 0x40, 0);
    set_reg(m, 0xff, 0);
}

static void an_edge_is_delivered_once(void **state)
{
    struct hsk_machine *m = *state;

    set_reg(m, 0x18, 0x44);
    line(m, 4, true);
    line(m, 4, true);
    assert_int_equal(ack(m), 0x44);
    eoi(m);
    assert_int_equal(ack(m), -1);
    line(m, 4, false);
    line(m, 4, true);
    assert_int_equal(ack(m), 0x44);
}

static void an_edge_at_a_masked_pin_is_lost(void **state)
{
    struct hsk_machine *m = *state;

    set_reg(m, 0x18, 0x44 | MASKED);
    line(m, 4, true);
    set_reg(m, 0x18, 0x44);
    assert_int_equal(ack(m), -1);
}

static void a_level_comes_back_until_it_falls(void **state)
{
    struct hsk_machine *m = *state;

    set_reg(m, 0x30, 0x66 | LEVEL);
    line(m, 16, true);
    assert_int_equal(reg(m, 0x30), 0x66 | LEVEL | 1u << 14);
    line(m, 16, false);
    line(m, 16, true); /* in service: nothing new */
    assert_int_equal(ack(m), 0x66);
    assert_int_equal(ack(m), -1);
    eoi(m);
    assert_int_equal(ack(m), 0x66);
    line(m, 16, false);
    eoi(m);
    assert_int_equal(ack(m), -1);
    assert_int_equal(reg(m, 0x30), 0x66 | LEVEL);
}

static void unmasking_delivers_a_waiting_level(void **state)
{
    struct hsk_machine *m = *state;

    line(m, 16, true);
    set_reg(m, 0x30, 0x66 | LEVEL);
    assert_int_equal(ack(m), 0x66);
    mmio_write32(m, HSK_IOAPIC_BASE + 0x40, 0x66); /* its own EOI register */
    eoi(m);
    assert_int_equal(ack(m), 0x66);
}

static void switching_to_edge_clears_remote_irr(void **state)
{
    struct hsk_machine *m = *state;

    set_reg(m, 0x30, 0x66 | LEVEL);
    line(m, 16, true);
    line(m, 16, false);
    set_reg(m, 0x30, 0x66);
    set_reg(m, 0x30, 0x66 | LEVEL);
    assert_int_equal(reg(m, 0x30), 0x66 | LEVEL);
}

static void timer_line_arrives_at_pin_2(void **state)
{
    struct hsk_machine *m = *state;

    set_reg(m, 0x14, 0x30);
    hsk_irq_set(hsk_machine_gsi(m, 0), true);
    assert_int_equal(ack(m), 0x30);
}

static void impossible_states_are_refused(void **state)
{
    struct hsk_machine *m = *state;
    struct hsk_dev *dev = hsk_machine_find_dev(m, "ioapic");

    assert_true(dev->ops->check(dev, NULL));
    poke_field(dev, "rte", 3, 1u << 14); /* remote IRR of an edge pin */
    assert_false(dev->ops->check(dev, NULL));
    poke_field(dev, "rte", 3, 1ull << 40);
    assert_false(dev->ops->check(dev, NULL));
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
int main(void)
{
    const struct CMUnitTest tests[] = {
        T(registers_keep_what_is_writable),    T(an_edge_is_delivered_once),
        T(an_edge_at_a_masked_pin_is_lost),    T(a_level_comes_back_until_it_falls),
        T(unmasking_delivers_a_waiting_level), T(switching_to_edge_clears_remote_irr),
        T(timer_line_arrives_at_pin_2),        T(impossible_states_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
