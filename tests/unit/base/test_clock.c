/* SPDX-License-Identifier: MIT */
/* The guest's clock: it stands while stopped, follows the host while running, scales, and saves
 * what it shows. */
#include <base/clock.h>

#include <setjmp.h>
#include <stdarg.h>
#include <time.h>
#include <x86intrin.h>

#include <cmocka.h>

static uint64_t monotonic_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void sleep_ms(unsigned ms)
{
    struct timespec t = {.tv_nsec = ms * 1000000};

    nanosleep(&t, NULL);
}

static void stands_at_zero_until_started(void **state)
{
    struct hsk_clock *c = hsk_clock_new(0);

    assert_false(hsk_clock_running(c));
    sleep_ms(2);
    assert_int_equal(hsk_clock_tsc(c), 0);
    assert_int_equal(hsk_clock_ns(c), 0);
    assert_true(hsk_clock_host_deadline(c, 5) == UINT64_MAX);
    hsk_clock_free(c);
}

static void runs_with_the_host_and_stops(void **state)
{
    struct hsk_clock *c = hsk_clock_new(0);
    uint64_t before, after, outer_before, outer_after, at;

    outer_before = monotonic_ns();
    hsk_clock_start(c);
    before = monotonic_ns();
    sleep_ms(50);
    after = monotonic_ns();
    hsk_clock_stop(c);
    outer_after = monotonic_ns();
    at = hsk_clock_ns(c);
    /* One percent for the measured host frequency. */
    assert_in_range(at, (after - before) / 100 * 99, (outer_after - outer_before) / 100 * 101);
    sleep_ms(2);
    assert_int_equal(hsk_clock_ns(c), at);
    hsk_clock_start(c);
    assert_in_range(hsk_clock_ns(c), at, at + 10000000000u);
    hsk_clock_free(c);
}

static void another_frequency_is_scaled(void **state)
{
    struct hsk_clock *c = hsk_clock_new(1000000000);
    const struct hsk_clock_tsc_params *p;
    uint64_t a, b, later, before, after, outer_before, outer_after;

    assert_int_equal(hsk_clock_tsc_hz(c), 1000000000);
    outer_before = monotonic_ns();
    hsk_clock_start(c);
    before = monotonic_ns();
    sleep_ms(50);
    after = monotonic_ns();
    a = hsk_clock_tsc(c);
    outer_after = monotonic_ns();
    assert_in_range(a, (after - before) / 100 * 98, (outer_after - outer_before) / 100 * 102);
    /* What translated code computes is the same. */
    p = hsk_clock_tsc_params(c);
    a = hsk_clock_tsc(c);
    b = p->guest_base + (uint64_t)(((unsigned __int128)(__rdtsc() - p->host_base) * p->mult) >> 32);
    later = hsk_clock_tsc(c);
    assert_in_range(b, a, later);
    hsk_clock_free(c);
}

static void time_never_runs_backwards(void **state)
{
    struct hsk_clock *c = hsk_clock_new(0);
    uint64_t last = 0;

    for (int i = 0; i < 1000; i++) {
        uint64_t now;

        hsk_clock_start(c);
        now = hsk_clock_tsc(c);
        assert_true(now >= last);
        hsk_clock_stop(c);
        last = hsk_clock_tsc(c);
        assert_true(last >= now);
    }
    hsk_clock_free(c);
}

static void loaded_is_what_was_saved(void **state)
{
    struct hsk_clock *a = hsk_clock_new(2000000000), *b = hsk_clock_new(0);
    struct hsk_clock_state s, t;

    hsk_clock_start(a);
    sleep_ms(2);
    hsk_clock_stop(a);
    hsk_clock_save(a, &s);
    assert_true(hsk_clock_load(b, &s));
    assert_false(hsk_clock_running(b));
    hsk_clock_save(b, &t);
    assert_int_equal(t.tsc, s.tsc);
    assert_int_equal(t.tsc_hz, 2000000000);
    assert_int_equal(hsk_clock_ns(b), hsk_clock_ns(a));
    hsk_clock_free(a);
    hsk_clock_free(b);
}

static void impossible_frequencies_are_refused(void **state)
{
    static const uint64_t bad[] = {0, 1, 999999, 100000000001ull, UINT64_MAX};
    struct hsk_clock *c = hsk_clock_new(0);

    for (unsigned i = 0; i < G_N_ELEMENTS(bad); i++)
        assert_false(hsk_clock_load(c, &(struct hsk_clock_state){.tsc_hz = bad[i], .tsc = 5}));
    assert_int_equal(hsk_clock_tsc(c), 0);
    hsk_clock_free(c);
}

static void conversions_do_not_overflow(void **state)
{
    struct hsk_clock *c = hsk_clock_new(3000000000u);
    uint64_t year_ns = 365ull * 86400 * 1000000000;

    assert_int_equal(hsk_clock_ns_to_tsc(c, 50 * year_ns), 150 * year_ns);
    assert_int_equal(hsk_clock_tsc_to_ns(c, 150 * year_ns), 50 * year_ns);
    hsk_clock_free(c);
}

static uint64_t utc_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_REALTIME, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

#define HOUR_NS 3600000000000ull

static void frozen_goes_on_in_the_past(void **state)
{
    struct hsk_clock *c = hsk_clock_new(1000000000);
    struct hsk_clock_state s = {.tsc_hz = 1000000000, .tsc = 5000, .wall_ns = HOUR_NS};

    assert_true(hsk_clock_load(c, &s));
    assert_true(hsk_clock_wall_ns(c) == HOUR_NS);
    hsk_clock_start(c);
    sleep_ms(2);
    assert_in_range(hsk_clock_wall_ns(c), HOUR_NS + 1000000, HOUR_NS + 60000000000u);
    hsk_clock_stop(c);
    hsk_clock_save(c, &s);
    /* UTC and TSC went on together, and not while it stood */
    sleep_ms(2);
    assert_true(hsk_clock_wall_ns(c) == s.wall_ns);
    assert_in_range(s.wall_ns - HOUR_NS, s.tsc - 5000, s.tsc + 60000000000u);
    assert_int_equal(hsk_clock_leaps(c), 0);
    hsk_clock_free(c);
}

static void catching_up_leaps_by_what_was_missed(void **state)
{
    struct hsk_clock *c = hsk_clock_new(1000000000);
    struct hsk_clock_state s = {
        .tsc_hz = 1000000000, .tsc = 5000, .wall_ns = utc_ns() - 2 * HOUR_NS};

    hsk_clock_set_catch_up(c, true);
    assert_true(hsk_clock_load(c, &s));
    hsk_clock_start(c);
    assert_in_range(hsk_clock_ns(c), 2 * HOUR_NS, 2 * HOUR_NS + 60000000000u);
    assert_in_range(hsk_clock_wall_ns(c), utc_ns() - 60000000000u, utc_ns() + 60000000000u);
    assert_int_equal(hsk_clock_leaps(c), 1);
    /* a moment is made up for, too, but no leap to tell of */
    hsk_clock_stop(c);
    hsk_clock_save(c, &s);
    sleep_ms(20);
    hsk_clock_start(c);
    assert_in_range(hsk_clock_tsc(c), s.tsc + 20000000, s.tsc + 60000000000u);
    assert_int_equal(hsk_clock_leaps(c), 1);
    hsk_clock_free(c);
}

static void no_leap_without_a_reason(void **state)
{
    static const struct {
        uint64_t tsc;
        int64_t ahead_ns;
    } cases[] = {
        {0, -(int64_t)HOUR_NS},                        /* nothing has run yet */
        {5000, (int64_t)HOUR_NS},                      /* the host's clock was set back */
        {5000, -(int64_t)HSK_CLOCK_MAX_LEAP_NS - 1e9}, /* nobody waited so long */
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        struct hsk_clock *c = hsk_clock_new(1000000000);
        struct hsk_clock_state s = {.tsc_hz = 1000000000,
                                    .tsc = cases[i].tsc,
                                    .wall_ns = utc_ns() + (uint64_t)cases[i].ahead_ns};

        hsk_clock_set_catch_up(c, true);
        assert_true(hsk_clock_load(c, &s));
        hsk_clock_start(c);
        assert_in_range(hsk_clock_ns(c), cases[i].tsc, 60000000000u);
        assert_int_equal(hsk_clock_leaps(c), 0);
        hsk_clock_free(c);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stands_at_zero_until_started),
        cmocka_unit_test(runs_with_the_host_and_stops),
        cmocka_unit_test(another_frequency_is_scaled),
        cmocka_unit_test(time_never_runs_backwards),
        cmocka_unit_test(frozen_goes_on_in_the_past),
        cmocka_unit_test(catching_up_leaps_by_what_was_missed),
        cmocka_unit_test(no_leap_without_a_reason),
        cmocka_unit_test(loaded_is_what_was_saved),
        cmocka_unit_test(impossible_frequencies_are_refused),
        cmocka_unit_test(conversions_do_not_overflow),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
