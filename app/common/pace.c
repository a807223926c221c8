/* SPDX-License-Identifier: MIT */
/*
 * The pace of a timeline: see pace.h.
 *
 * Points are not to be spaced by what they write: at five seconds a guest that changes pages all
 * over its memory writes more than it keeps, since points soon go that share nearly all of their
 * page maps with the next one. But that comes back late and in large pieces, hence the savings.
 * They are bounded, and so is what one point counts: the first one, which holds all memory, is not
 * paid for hours, and what a guest that writes wildly leaves behind buys no more than a few points.
 */
#include "common/pace.h"

#include "common/settings.h"

double hsk_pace_bytes_s(unsigned every_s)
{
    return HSK_PACE_BYTES_S * MAX(1.0, (double)HSK_TIMELINE_EVERY_S / every_s);
}

double hsk_pace_pay(double purse, unsigned every_s, double seconds, uint64_t written, int64_t freed)
{
    const double earns = hsk_pace_bytes_s(every_s);
    const double costs = MIN((double)written, HSK_PACE_MAX_WAIT_S * earns);

    purse = MIN(purse + MAX(seconds, 0) * earns, HSK_PACE_SAVINGS) - costs + (double)freed;
    return CLAMP(purse, -HSK_PACE_MAX_WAIT_S * earns, HSK_PACE_SAVINGS);
}

double hsk_pace_pay_cpu(double cpu_purse, double seconds, double cpu_s)
{
    return MIN(cpu_purse + MAX(seconds, 0) / HSK_PACE_CPU_WAIT, HSK_PACE_CPU_SAVINGS) - cpu_s;
}

double hsk_pace_wait_s(double purse, unsigned every_s, double slower, double cpu_purse)
{
    const double wait = MAX(every_s * slower, -cpu_purse * HSK_PACE_CPU_WAIT);

    return MAX(wait, -purse / hsk_pace_bytes_s(every_s));
}

bool hsk_pace_room(uint64_t free_bytes, uint64_t pages, uint64_t other_bytes)
{
    /* Each page may need a leaf of the page map of its own. */
    const uint64_t needed = other_bytes + HSK_PACE_LEAVE_FREE;
    const uint64_t page = HSK_PAGE_SIZE + 1024;

    return free_bytes >= needed && (free_bytes - needed) / page >= pages;
}
