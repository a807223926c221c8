/* SPDX-License-Identifier: MIT */
/* RTC: the time in all formats, setting it, flags and their interrupts, CMOS contents. */
#include <base/clock.h>

#include <fake-machine.h>
#include <time.h>

static uint8_t cmos(struct hsk_machine *m, uint8_t reg)
{
    out8(m, 0x70, reg);
    return in8(m, 0x71);
}
static void set_cmos(struct hsk_machine *m, uint8_t reg, uint8_t value)
{
    out8(m, 0x70, reg);
    out8(m, 0x71, value);
}
static unsigned bcd(uint8_t v)
{
    return (v >> 4) * 10u + (v & 15);
}

static uint64_t wall_s(struct hsk_machine *m)
{
    return hsk_clock_wall_ns(hsk_machine_clock(m)) / 1000000000u;
}

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

static void set_time(struct hsk_machine *m, const uint8_t bytes[8])
{
    static const uint8_t regs[8] = {0x32, 9, 8, 7, 6, 4, 2, 0};

    set_cmos(m, 0xb, cmos(m, 0xb) | 0x80);
    for (unsigned i = 0; i < 8; i++)
        set_cmos(m, regs[i], bytes[i]);
    set_cmos(m, 0xb, cmos(m, 0xb) & 0x7f);
}

static void shows_the_guests_utc(void **state)
{
    struct hsk_machine *m = *state;
    time_t before, after, shown;
    unsigned weekday;

    do {
        struct tm tm = {0};

        before = (time_t)wall_s(m);
        tm.tm_sec = (int)bcd(cmos(m, 0));
        tm.tm_min = (int)bcd(cmos(m, 2));
        tm.tm_hour = (int)bcd(cmos(m, 4));
        tm.tm_mday = (int)bcd(cmos(m, 7));
        tm.tm_mon = (int)bcd(cmos(m, 8)) - 1;
        tm.tm_year = (int)(bcd(cmos(m, 0x32)) * 100 + bcd(cmos(m, 9))) - 1900;
        weekday = bcd(cmos(m, 6));
        shown = timegm(&tm);
        after = (time_t)wall_s(m);
    } while (before != after);
    assert_int_equal(shown, before);
    assert_int_equal(weekday, gmtime(&before)->tm_wday + 1);
    assert_int_equal(cmos(m, 0xd), 0x80);
}

static void a_set_time_goes_on_from_there(void **state)
{
    struct hsk_machine *m = *state;

    set_time(m, (const uint8_t[]){0x20, 0x24, 0x02, 0x29, 0x05, 0x23, 0x59, 0x30});
    assert_int_equal(cmos(m, 0x32), 0x20);
    assert_int_equal(cmos(m, 9), 0x24);
    assert_int_equal(cmos(m, 8), 0x02);
    assert_int_equal(cmos(m, 7), 0x29);
    assert_int_equal(cmos(m, 4), 0x23);
    assert_int_equal(cmos(m, 2), 0x59);
    assert_in_range(cmos(m, 0), 0x30, 0x32);
    set_cmos(m, 7, 0x28); /* one register, without SET */
    assert_int_equal(cmos(m, 7), 0x28);
    assert_int_equal(cmos(m, 4), 0x23);
}

static void binary_and_twelve_hours(void **state)
{
    struct hsk_machine *m = *state;

    set_time(m, (const uint8_t[]){0x20, 0x99, 0x12, 0x31, 0x05, 0x13, 0x05, 0x00});
    set_cmos(m, 0xb, 0x04); /* binary, 12 hours */
    assert_int_equal(cmos(m, 4), 0x81);
    assert_int_equal(cmos(m, 7), 31);
    assert_int_equal(cmos(m, 9), 99);
    set_cmos(m, 4, 12); /* midnight */
    set_cmos(m, 0xb, 0x02);
    assert_int_equal(cmos(m, 4), 0x00);
}

static void nonsense_dates_are_some_time(void **state)
{
    struct hsk_machine *m = *state;

    set_time(m, (const uint8_t[]){0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff});
    assert_in_range(bcd(cmos(m, 8)), 1, 12);
    assert_in_range(bcd(cmos(m, 7)), 1, 31);
    assert_in_range(bcd(cmos(m, 4)), 0, 23);
}

static void update_flag_and_interrupt_each_second(void **state)
{
    struct hsk_machine *m = *state;
    uint64_t second;
    uint8_t first, again;

    do {
        cmos(m, 0xc);
        irq_forget(m);
        set_cmos(m, 0xb, 0x12);
        assert_true(run_until_irq(m, 8));
        second = wall_s(m);
        first = cmos(m, 0xc);
        again = cmos(m, 0xc);
        assert_int_equal(first & 0x90, 0x90);
    } while (second != wall_s(m)); /* else the next second's flag may stand already */
    assert_int_equal(again & 0x80, 0);
}

static void alarm_goes_off_at_its_second(void **state)
{
    struct hsk_machine *m = *state;

    set_time(m, (const uint8_t[]){0x20, 0x24, 0x06, 0x15, 0x05, 0x11, 0x59, 0x58});
    set_cmos(m, 1, 0x00);
    set_cmos(m, 3, 0x00);
    set_cmos(m, 5, 0xff); /* any hour */
    cmos(m, 0xc);
    irq_forget(m);
    set_cmos(m, 0xb, 0x22);
    assert_true(run_until_irq(m, 8));
    assert_int_equal(cmos(m, 0xc) & 0xa0, 0xa0);
    assert_int_equal(cmos(m, 4), 0x12); /* and no earlier */
    assert_int_equal(cmos(m, 2), 0x00);
}

static void periodic_interrupt_needs_its_flag_read(void **state)
{
    struct hsk_machine *m = *state;

    set_cmos(m, 0xa, 0x26); /* 1024 Hz */
    set_cmos(m, 0xb, 0x42);
    for (int i = 0; i < 3; i++) {
        cmos(m, 0xc);
        irq_forget(m);
        run_for_ms(m, 5);
        assert_true(irq_requested(m, 8));
    }
    irq_forget(m);
    run_for_ms(m, 5);
    assert_false(irq_requested(m, 8)); /* the line stayed high */
}

static void memory_is_described_and_kept(void **state)
{
    struct hsk_machine *m = *state;

    assert_int_equal(cmos(m, 0x15) | cmos(m, 0x16) << 8, 640);
    assert_int_equal(cmos(m, 0x17) | cmos(m, 0x18) << 8, 31 * 1024);
    assert_int_equal(cmos(m, 0x34) | cmos(m, 0x35) << 8, 16 * 16);
    set_cmos(m, 0x40, 0x5a);
    assert_int_equal(cmos(m, 0xc0), 0x5a); /* bit 7 of the index is the NMI mask */
    out8(m, 0x72, 0x40);
    out8(m, 0x73, 0xa5);
    assert_int_equal(in8(m, 0x73), 0xa5);
    assert_int_equal(cmos(m, 0x40), 0x5a);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
int main(void)
{
    const struct CMUnitTest tests[] = {
        T(shows_the_guests_utc),
        T(a_set_time_goes_on_from_there),
        T(binary_and_twelve_hours),
        T(nonsense_dates_are_some_time),
        T(update_flag_and_interrupt_each_second),
        T(alarm_goes_off_at_its_second),
        T(periodic_interrupt_needs_its_flag_read),
        T(memory_is_described_and_kept),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
