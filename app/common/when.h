/* SPDX-License-Identifier: MIT */
/* Moments as people write them: "-30s", "-2m", "-1h", "-3d", "14:05", "14:05:10", and ISO 8601 with
 * date ("2026-11-22T14:05:10", in local time if it says no zone). */
#pragma once

#include <base/util.h>

/* Seconds since 1970; now: the same. A clock time is the last one that was, today's or
 * yesterday's. */
bool hsk_parse_when(const char *text, int64_t now, int64_t *when, GError **error);
