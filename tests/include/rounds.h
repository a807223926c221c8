/* SPDX-License-Identifier: MIT */
/* How often a test of chance repeats: in every run, and with HSK_LONG=1 in the environment (./dev
 * check --long). */
#pragma once

#include <stdlib.h>

static inline unsigned test_rounds(unsigned usual, unsigned in_the_long_run)
{
    return getenv("HSK_LONG") ? in_the_long_run : usual;
}
