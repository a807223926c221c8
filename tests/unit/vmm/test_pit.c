/* SPDX-License-Identifier: MIT */
/* 8254: counters and outputs at chosen times, latches, gate 2, and channel 0's interrupts. */
#include <fake-machine.h>

#define MS 1000000ull

static int setup(void **state)
{
    *state = fake_machine_new();
    return 0;
}
static int teardown(void **state)
{
    hsk_machine_free(*state);
    return 0;
}

static void program(struct hsk_machine *m, unsigned channel, unsigned mode, uint16_t count)
{
    out8(m, 0x43, (uint8_t)(channel << 6 | 0x30 | mode << 1));
    out8(m, (uint16_t)(0x40 + channel), (uint8_t)count);
    out8(m, (uint16_t)(0x40 + channel), (uint8_t)(count >> 8));
}
static uint16_t counter(struct hsk_machine *m, unsigned channel)
{
    uint8_t low;

    out8(m, 0x43, (uint8_t)(channel << 6));
    low = in8(m, (uint16_t)(0x40 + channel));
    return (uint16_t)(low | in8(m, (uint16_t)(0x40 + channel)) << 8);
}
static bool out2(struct hsk_machine *m)
{
    return in8(m, 0x61) & 0x20;
}

static void rate_generator_counts_down_and_wraps(void **state)
{
    struct hsk_machine *m = *state;

    program(m, 0, 2, 11932); /* 10 ms */
    assert_int_equal(counter(m, 0), 11932);
    set_time_ns(m, 5 * MS);
    assert_in_range(counter(m, 0), 11932 - 5967, 11932 - 5964);
    set_time_ns(m, 15 * MS + 10000);
    assert_in_range(counter(m, 0), 5950, 5968);
}

static void square_wave_counts_by_two(void **state)
{
    struct hsk_machine *m = *state;

    out8(m, 0x61, 1);
    program(m, 2, 3, 10000);
    assert_true(out2(m));
    set_time_ns(m, 4 * MS);
    assert_true(out2(m));
    assert_in_range(counter(m, 2), 10000 - 2 * 4774, 10000 - 2 * 4771);
    set_time_ns(m, 5 * MS);
    assert_false(out2(m));
}

/* What kernels measure the TSC with. */
static void one_shot_on_channel_2_raises_its_output(void **state)
{
    struct hsk_machine *m = *state;

    out8(m, 0x61, 0x01);
    program(m, 2, 0, 59659); /* 50 ms */
    assert_false(out2(m));
    set_time_ns(m, 49 * MS);
    assert_false(out2(m));
    set_time_ns(m, 50 * MS + 1000);
    assert_true(out2(m));
    assert_in_range(counter(m, 2), 0xfff0, 0xffff); /* goes on below zero */
}

static void gate_stops_the_count(void **state)
{
    struct hsk_machine *m = *state;

    program(m, 2, 0, 10000);
    set_time_ns(m, 20 * MS);
    assert_int_equal(counter(m, 2), 10000); /* gate low since power-on */
    out8(m, 0x61, 1);
    set_time_ns(m, 21 * MS);
    assert_in_range(counter(m, 2), 10000 - 1195, 10000 - 1191);
    out8(m, 0x61, 0);
    set_time_ns(m, 40 * MS);
    assert_in_range(counter(m, 2), 10000 - 1195, 10000 - 1191);
    assert_false(out2(m));
}

static void hardware_one_shot_waits_for_the_gate(void **state)
{
    struct hsk_machine *m = *state;

    program(m, 2, 1, 1194);
    assert_true(out2(m));
    out8(m, 0x61, 1);
    assert_false(out2(m));
    set_time_ns(m, 2 * MS);
    assert_true(out2(m));
    out8(m, 0x61, 0);
    out8(m, 0x61, 1); /* again */
    assert_false(out2(m));
}

static void read_back_latches_status_and_count(void **state)
{
    struct hsk_machine *m = *state;

    out8(m, 0x43, 0x34);
    out8(m, 0x43, 0xe2);                  /* status of channel 0 */
    assert_int_equal(in8(m, 0x40), 0xf4); /* output high, count not set yet */
    out8(m, 0x40, 0x34);
    out8(m, 0x40, 0x12);
    out8(m, 0x43, 0xc2); /* status and count */
    set_time_ns(m, MS);
    assert_int_equal(in8(m, 0x40), 0xb4);
    assert_int_equal(in8(m, 0x40), 0x34);
    assert_int_equal(in8(m, 0x40), 0x12);
    assert_int_not_equal(counter(m, 0), 0x1234);
}

static void bcd_counts_in_decimal(void **state)
{
    struct hsk_machine *m = *state;

    out8(m, 0x43, 0x35);
    out8(m, 0x40, 0x00);
    out8(m, 0x40, 0x50);
    assert_int_equal(counter(m, 0), 0x5000);
    set_time_ns(m, 838096); /* 1000 ticks */
    assert_int_equal(counter(m, 0), 0x4000);
}

static void single_byte_access(void **state)
{
    struct hsk_machine *m = *state;

    out8(m, 0x43, 0x14); /* low byte only, mode 2 */
    out8(m, 0x40, 100);
    assert_int_equal(in8(m, 0x40), 100);
    assert_int_equal(in8(m, 0x40), 100);
    out8(m, 0x43, 0x24); /* high byte only */
    out8(m, 0x40, 2);
    assert_int_equal(in8(m, 0x40), 2);
}

static void periodic_interrupts_come_again_and_one_shot_once(void **state)
{
    struct hsk_machine *m = *state;

    program(m, 0, 2, 1193); /* 1 ms */
    for (int i = 0; i < 3; i++) {
        irq_forget(m);
        assert_false(irq_requested(m, 0));
        run_for_ms(m, 5);
        assert_true(irq_requested(m, 0));
    }
    program(m, 0, 0, 1193);
    irq_forget(m);
    run_for_ms(m, 5);
    assert_true(irq_requested(m, 0));
    irq_forget(m);
    run_for_ms(m, 5);
    assert_false(irq_requested(m, 0));
}

static void refresh_bit_toggles(void **state)
{
    struct hsk_machine *m = *state;
    uint8_t first = in8(m, 0x61) & 0x10;

    set_time_ns(m, 15100);
    assert_int_not_equal(in8(m, 0x61) & 0x10, first);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
int main(void)
{
    const struct CMUnitTest tests[] = {
        T(rate_generator_counts_down_and_wraps),
        T(square_wave_counts_by_two),
        T(one_shot_on_channel_2_raises_its_output),
        T(gate_stops_the_count),
        T(hardware_one_shot_waits_for_the_gate),
        T(read_back_latches_status_and_count),
        T(bcd_counts_in_decimal),
        T(single_byte_access),
        T(periodic_interrupts_come_again_and_one_shot_once),
        T(refresh_bit_toggles),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
