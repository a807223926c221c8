/* SPDX-License-Identifier: MIT */
/* The pace of the timeline: tables, and hours of guests that write little, much and wildly. */
/* cmocka wants to be last */
/* clang-format off */
#include "common/pace.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
/* clang-format on */

#define MB     1000000
#define FULL   HSK_PACE_SAVINGS
#define SECOND HSK_PACE_BYTES_S
#define MOST   (HSK_PACE_MAX_WAIT_S * SECOND) /* what one point counts */

static void check(const char *name, double is, double expected)
{
    if (is < expected - 0.001 || is > expected + 0.001)
        fail_msg("%s: %f, not %f", name, is, expected);
}

static void purses(void **state)
{
    static const struct {
        const char *name;
        double purse, seconds;
        uint64_t written;
        int64_t freed;
        double expected;
        unsigned every_s;
    } cases[] = {
        {"time earns", 0, 4, 0, 0, 4 * SECOND, 5},
        {"also at a slower step", 0, 4, 0, 0, 4 * SECOND, 60},
        {"five times as much at five times the step", 0, 4, 0, 0, 20 * SECOND, 1},
        {"up to what it holds", FULL - 1, 10, 0, 0, FULL, 5},
        {"and no more before it pays", FULL, 1000, 2 * MB, 0, FULL - 2 * MB, 5},
        {"what comes back goes in", 10 * MB, 0, 2 * MB, 5 * MB, 13 * MB, 5},
        {"not more than it holds", 90 * MB, 0, 0, 500 * MB, FULL, 5},
        {"compacting that took more", 10 * MB, 0, 0, -3 * MB, 7 * MB, 5},
        {"a point may owe", 1 * MB, 0, 3 * MB, 0, -2 * MB, 5},
        {"a huge one counts with two minutes", FULL, 0, 4000ull * MB, 0, FULL - MOST, 5},
        {"no more than that is owed", -10 * MB, 0, 4000ull * MB, -500 * MB, -MOST, 5},
        {"a clock that stood still", 5 * MB, -1, 0, 0, 5 * MB, 5},
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++)
        check(cases[i].name,
              hsk_pace_pay(cases[i].purse, cases[i].every_s, cases[i].seconds, cases[i].written,
                           cases[i].freed),
              cases[i].expected);
}

static void waits(void **state)
{
    static const struct {
        const char *name;
        double purse;
        unsigned every_s;
        double slower, cpu_purse, expected;
    } cases[] = {
        {"nothing owed: the step", 0, 5, 1, 0, 5},
        {"whatever there is", FULL, 5, 1, 0, 5},
        {"another step", 0, 60, 1, 0, 60},
        {"on a battery", 0, 5, 6, 0, 30},
        {"what is owed is earned first", -20 * SECOND, 5, 1, 0, 20},
        {"if that takes longer", -2 * SECOND, 5, 1, 0, 5},
        {"a fast step earns it faster", -20 * SECOND, 1, 1, 0, 4},
        {"processor time", 0, 5, 1, -0.5, 11},
        {"none owed", 0, 5, 1, 0.5, 5},
        {"the longest counts", -20 * SECOND, 5, 6, -0.5, 30},
        {"two minutes at most", -MOST, 5, 1, 0, HSK_PACE_MAX_WAIT_S},
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++)
        check(
            cases[i].name,
            hsk_pace_wait_s(cases[i].purse, cases[i].every_s, cases[i].slower, cases[i].cpu_purse),
            cases[i].expected);
}

/* One point in eight drops others, and takes much longer. */
static void dropping_makes_no_point_late(void **state)
{
    double purse = HSK_PACE_CPU_SAVINGS, all = 0;

    for (unsigned i = 1; i < 720; i++) {
        double cpu_s = i % 8 == 0 ? 0.6 : 0.05;
        purse = hsk_pace_pay_cpu(purse, 5, cpu_s);
        check("no wait", hsk_pace_wait_s(FULL, 5, 1, purse), 5);
    }
    /* but nobody gets more than a share of a processor */
    purse = HSK_PACE_CPU_SAVINGS;
    for (double now = 0, gap = 0; now < 3600; now += gap) {
        purse = hsk_pace_pay_cpu(purse, gap, 2);
        gap = hsk_pace_wait_s(FULL, 5, 1, purse);
        all += 2;
    }
    assert_true(all <= 3600.0 / HSK_PACE_CPU_WAIT + HSK_PACE_CPU_SAVINGS + 2);
}

struct hour {
    unsigned points, late; /* late: more than the step after the one before */
    double disk;
};

/* An hour of a guest that writes so much for each point, of which a share comes back each 256
 * points. The first one holds all memory. */
static struct hour live(unsigned every_s, uint64_t first, uint64_t each, double share)
{
    struct hour h = {0};
    double purse = FULL, gap = 0;

    for (double now = 0; now < 3600; now += gap) {
        const uint64_t written = h.points == 0 ? first : each;
        const int64_t freed = ++h.points % 256 == 0 ? (int64_t)(256 * (double)each * share) : 0;

        h.disk += (double)written - (double)freed;
        purse = hsk_pace_pay(purse, every_s, gap, written, freed);
        gap = hsk_pace_wait_s(purse, every_s, 1, 0);
        h.late += gap > every_s;
    }
    return h;
}

/* 100 pages a second all over 1 GiB, of which a quarter comes back. */
static void light_work_gets_all_its_points(void **state)
{
    struct hour h = live(5, 0, 1450000, 0.25);

    assert_int_equal(h.late, 0);
    assert_int_equal(h.points, 720);
    assert_true(h.disk < 1e9);
    /* also behind a first point that holds all memory */
    h = live(5, 400 * MB, 1450000, 0.25);
    assert_int_equal(h.late, 0);
    assert_true(h.disk < 400e6 + 1e9);
    /* and each second, where more of what is written are maps */
    h = live(1, 0, 400000, 0.4);
    assert_int_equal(h.late, 0);
}

static void an_hour_takes_no_more_than_a_gigabyte(void **state)
{
    for (uint64_t mb = 1; mb <= 30; mb++) {
        struct hour h = live(5, 0, mb * MB, 0);
        assert_true(h.disk <= 1e9 + (double)mb * MB);
        /* and what it may have is used */
        assert_true(mb == 1 || h.disk >= 1e9 - (double)mb * MB);
    }
}

static void who_writes_wildly_gets_a_point_in_two_minutes(void **state)
{
    struct hour h = live(5, 400 * MB, 400 * MB, 0);

    assert_in_range(h.points, 3600 / HSK_PACE_MAX_WAIT_S, 3600 / HSK_PACE_MAX_WAIT_S + 4);
    /* even if nearly all comes back */
    h = live(5, 400 * MB, 400 * MB, 0.99);
    assert_in_range(h.points, 3600 / HSK_PACE_MAX_WAIT_S, 3600 / HSK_PACE_MAX_WAIT_S + 4);
}

static void room(void **state)
{
    const uint64_t least = HSK_PACE_LEAVE_FREE;

    assert_true(hsk_pace_room(least, 0, 0));
    assert_false(hsk_pace_room(least - 1, 0, 0));
    assert_false(hsk_pace_room(0, 0, 0));
    assert_false(hsk_pace_room(least, 1, 0));
    assert_true(hsk_pace_room(least + 5120, 1, 0));
    assert_false(hsk_pace_room(least + 5120, 2, 0));
    assert_false(hsk_pace_room(least + 5120, 1, 4096));
    assert_true(hsk_pace_room(least + 5120 + 4096, 1, 4096));
    assert_false(hsk_pace_room(1ull << 40, UINT64_MAX / 4096, 0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(purses),
        cmocka_unit_test(waits),
        cmocka_unit_test(dropping_makes_no_point_late),
        cmocka_unit_test(light_work_gets_all_its_points),
        cmocka_unit_test(an_hour_takes_no_more_than_a_gigabyte),
        cmocka_unit_test(who_writes_wildly_gets_a_point_in_two_minutes),
        cmocka_unit_test(room),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
