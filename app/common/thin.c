/* SPDX-License-Identifier: MIT */
/*
 * Thinning of a timeline: see thin.h.
 *
 * A rule by fixed slots (one point for each slot of age) would let points that move from slot to
 * slot fight for the same one. So a point goes if its neighbours that stay are near enough to each
 * other without it; two gaps side by side are then always wider together than the limit, which
 * bounds their number.
 */
#include "common/thin.h"

unsigned hsk_thin(const int64_t *age_s, unsigned n, bool *drop)
{
    unsigned dropped = 0;
    int64_t kept = 0; /* age of the last point that stays */

    for (unsigned i = 0; i < n; i++) {
        int64_t age = age_s[i];

        if (age > HSK_THIN_OLDEST_S)
            drop[i] = true;
        else if (age <= HSK_THIN_ALL_S || i + 1 == n || age_s[i + 1] > HSK_THIN_OLDEST_S)
            drop[i] = false;
        else
            drop[i] = (age_s[i + 1] - kept) * HSK_THIN_OCTAVE <= age;
        dropped += drop[i];
        if (!drop[i])
            kept = age;
    }
    return dropped;
}
