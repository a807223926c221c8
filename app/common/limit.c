/* SPDX-License-Identifier: MIT */
/* The size limit of a timeline: see limit.h. */
#include "common/limit.h"

bool hsk_limit_compact(const struct hsk_limit *l, uint64_t used, uint64_t limit)
{
    return used > limit && (l->dropped || used >= l->used + limit / HSK_LIMIT_GROWTH);
}

unsigned hsk_limit_drop(struct hsk_limit *l, uint64_t used, uint64_t limit, bool compacted,
                        unsigned n)
{
    const bool blind = !compacted && used >= l->used + limit / HSK_LIMIT_BLIND;

    if (compacted)
        *l = (struct hsk_limit){.used = used};
    if (used <= limit || n < 2 || !(compacted || blind))
        return 0;
    *l = (struct hsk_limit){.used = used, .dropped = true};
    return MAX(n / HSK_LIMIT_AT_ONCE, 1);
}
