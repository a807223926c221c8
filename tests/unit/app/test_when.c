/* SPDX-License-Identifier: MIT */
/* Moments as people write them. */
/* cmocka wants to be last */
/* clang-format off */
#include "common/when.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <time.h>

#include <cmocka.h>
/* clang-format on */

#define NOON 1795262400 /* 2026-11-21T12:00:00Z */

static void moments(void **state)
{
    static const struct {
        const char *text;
        int64_t when;
    } good[] = {
        {"-0s", NOON},
        {"-30s", NOON - 30},
        {"-2m", NOON - 120},
        {"-8h", NOON - 28800},
        {"-1d", NOON - 86400},
        {"12:00", NOON},
        {"11:59:30", NOON - 30},
        {"12:00:01", NOON + 1 - 86400},
        {"0:00", NOON - 43200},
        {"2026-11-21T11:00:00", NOON - 3600},
        {"2026-11-21 11:00:00", NOON - 3600},
        {"2026-11-21T12:00:00+01:00", NOON - 3600},
        {"20261121T110000Z", NOON - 3600},
    };
    static const char *const bad[] = {"",      "-",     "30s",      "-30",     "-30x",
                                      "--3s",  "-3s ",  "24:00",    "12:60",   "12:00:60",
                                      "12:0:", "12:00x", "yesterday", "2026-13-01T00:00:00"};

    setenv("TZ", "UTC0", 1);
    tzset();
    for (unsigned i = 0; i < G_N_ELEMENTS(good); i++) {
        g_autoptr(GError) error = NULL;
        int64_t when = 0;

        if (!hsk_parse_when(good[i].text, NOON, &when, &error) || when != good[i].when)
            fail_msg("%s: %ld", good[i].text, (long)(when - NOON));
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(bad); i++) {
        g_autoptr(GError) error = NULL;
        int64_t when = 0;

        if (hsk_parse_when(bad[i], NOON, &when, &error))
            fail_msg("\"%s\" is %ld", bad[i], (long)when);
        assert_true(g_error_matches(error, HSK_ERROR, HSK_ERROR_USAGE));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(moments)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
