/* SPDX-License-Identifier: MIT */
/* Thinning of the timeline: tables of ages, and a machine that runs for days. */
/* cmocka wants to be last */
/* clang-format off */
#include "common/thin.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>
/* clang-format on */

#define MAX_POINTS 8192

static void tables(void **state)
{
    static const struct {
        const char *name;
        int64_t age[10];
        const char *drop; /* one letter per point: k stays, d goes */
    } cases[] = {
        {"none", {0}, ""},
        {"one, old", {20000}, "k"},
        {"one, too old", {28801}, "d"},
        {"the last minute stays", {0, 5, 10, 55, 60}, "kkkkk"},
        {"behind it the gap may be a twelfth", {58, 60, 61, 62, 63, 64}, "kkdddk"},
        {"a little wider", {66, 69, 72, 75, 78}, "kkdkk"},
        {"gaps that are there stay", {100, 5000, 10000, 28800}, "kkkk"},
        {"what is too old is no neighbour", {3600, 3700, 28801}, "kkd"},
        {"a clock that was set back", {-100, -50, 0, 30}, "kkkk"},
        {"several at one moment", {3600, 3600, 3600, 3600}, "kddk"},
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        unsigned n = (unsigned)strlen(cases[i].drop), expected = 0;
        bool drop[10];
        unsigned dropped = hsk_thin(cases[i].age, n, drop);

        for (unsigned k = 0; k < n; k++) {
            expected += cases[i].drop[k] == 'd';
            if (drop[k] != (cases[i].drop[k] == 'd'))
                fail_msg("%s: point %u", cases[i].name, k);
        }
        assert_int_equal(dropped, expected);
    }
}

/* A point every step seconds for days, thinned after each: the newest first in time[]. */
static unsigned live(int64_t step, int64_t seconds, int64_t *time)
{
    unsigned n = 0;

    for (int64_t now = 0; now <= seconds; now += step) {
        int64_t age[MAX_POINTS];
        bool drop[MAX_POINTS];
        unsigned kept = 0;

        memmove(time + 1, time, n * sizeof(*time));
        time[0] = now;
        n++;
        assert_in_range(n, 1, MAX_POINTS - 1);
        for (unsigned i = 0; i < n; i++)
            age[i] = now - time[i];
        hsk_thin(age, n, drop);
        for (unsigned i = 0; i < n; i++) {
            if (!drop[i])
                time[kept++] = time[i];
        }
        n = kept;
    }
    return n;
}

static void days_leave_about_twelve_per_doubling(void **state)
{
    static const int64_t steps[] = {1, 5, 7, 30};

    for (unsigned s = 0; s < G_N_ELEMENTS(steps); s++) {
        static int64_t time[MAX_POINTS];
        const int64_t day = 86400 / steps[s] * steps[s];
        unsigned n = live(steps[s], day, time), in_octave[12] = {0}, minute = 0;

        for (unsigned i = 0; i < n; i++) {
            int64_t age = day - time[i], next = i + 1 < n ? day - time[i + 1] : age;
            unsigned octave = 0;

            minute += age <= HSK_THIN_ALL_S;
            if (age > HSK_THIN_ALL_S)
                assert_true((next - age) * HSK_THIN_OCTAVE <=
                            MAX(next, HSK_THIN_OCTAVE * steps[s]));
            for (int64_t a = age; a > HSK_THIN_ALL_S * 2; a /= 2)
                octave++;
            in_octave[octave] += age > HSK_THIN_ALL_S;
        }
        assert_int_equal(minute, HSK_THIN_ALL_S / steps[s] + 1);
        /* from 16 minutes on, whatever the step */
        for (unsigned k = 4; k < 8; k++)
            assert_in_range(in_octave[k], 8, 17);
        assert_in_range(day - time[n - 1], HSK_THIN_OLDEST_S / 10 * 9, HSK_THIN_OLDEST_S);
        assert_in_range(n, 50, 220);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tables),
        cmocka_unit_test(days_leave_about_twelve_per_doubling),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
