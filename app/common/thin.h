/* SPDX-License-Identifier: MIT */
/* Which points of a timeline can go: a pure function. */
#pragma once

#include <base/util.h>

#define HSK_THIN_ALL_S    60              /* the last minute stays whole */
#define HSK_THIN_OLDEST_S (8 * 60 * 60)   /* nothing is older */
#define HSK_THIN_OCTAVE   12              /* the gap between two points is about their age / 12 */

/* Ages in seconds, ascending (the newest first); drop[i] is set for each. Applied again and again
 * as the points grow older, it keeps a gap below age / HSK_THIN_OCTAVE, and so 8 to 17 points per
 * doubling of age if there were that many; a gap that was there before stays. Returns how many go.
 */
unsigned hsk_thin(const int64_t *age_s, unsigned n, bool *drop);
