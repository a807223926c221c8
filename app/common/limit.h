/* SPDX-License-Identifier: MIT */
/*
 * What a timeline gives up when it takes more of the disk than it may: pure functions.
 *
 * Nobody knows what dropping a point gives back before a compaction has moved what others need out
 * of the way: who drops by what the points wrote, or at every point until the disk shows it, loses
 * all of them. So first it compacts, for points that were too close to others have left something
 * behind, too. Only if that was not enough the oldest eighth goes, and nothing more until the next
 * compaction has shown what that was worth.
 */
#pragma once

#include <base/util.h>

#define HSK_LIMIT_GROWTH  20 /* the limit's part that use grows by between two compactions */
#define HSK_LIMIT_BLIND   10 /* likewise between two drops, while there is no room to compact */
#define HSK_LIMIT_AT_ONCE 8  /* the points' part that is dropped */

struct hsk_limit {
    uint64_t used; /* when it last compacted or dropped */
    bool dropped;  /* since it compacted */
};

/* Is it time to compact? */
bool hsk_limit_compact(const struct hsk_limit *l, uint64_t used, uint64_t limit);

/* How many of the n points that may go are dropped now, the oldest first; the newest is not one of
 * them. compacted: just before used was measured. */
unsigned hsk_limit_drop(struct hsk_limit *l, uint64_t used, uint64_t limit, bool compacted,
                        unsigned n);
