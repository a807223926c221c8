/* SPDX-License-Identifier: MIT */
/*
 * The local APIC's timer (Intel SDM vol. 3, 11.5.4): one-shot, periodic and TSC-deadline mode, by a
 * timer of the machine's loop. Threads: any, with the APIC's leaf lock held but in
 * hsk_lapic_timer_expired(), which is the loop's; see lapic.c.
 */
#include "lapic-internal.h"

/* A periodic timer is not let fire more often than this: a guest's count of 1 must not occupy the
 * host. */
#define MIN_PERIOD_NS 20000u

static uint64_t timer_divide(const struct hsk_lapic *l)
{
    unsigned code = (l->s.timer_divide & 3) | (l->s.timer_divide >> 1 & 4);

    return 1u << ((code + 1) & 7);
}

static uint64_t ticks_to_ns(uint64_t ticks, uint64_t divide)
{
    return ticks * divide * (1000000000u / HSK_LAPIC_TIMER_HZ);
}

uint32_t hsk_lapic_timer_count_locked(const struct hsk_lapic *l)
{
    uint64_t now = hsk_clock_ns(l->clock), left,
             period = ticks_to_ns(l->s.timer_initial, timer_divide(l));

    if (l->s.deadline_ns == 0 || hsk_lapic_timer_mode(l) == TIMER_TSC_DEADLINE)
        return 0;
    if (now < l->s.deadline_ns)
        left = l->s.deadline_ns - now;
    else if (hsk_lapic_timer_mode(l) == TIMER_PERIODIC)
        left = period - (now - l->s.deadline_ns) % period;
    else
        left = 0;
    return (uint32_t)MIN(left / ticks_to_ns(1, timer_divide(l)), l->s.timer_initial);
}

void hsk_lapic_timer_arm_locked(struct hsk_lapic *l)
{
    if (hsk_lapic_timer_mode(l) == TIMER_TSC_DEADLINE && l->s.tsc_deadline)
        hsk_timer_arm(l->timer, hsk_clock_tsc_to_ns(l->clock, l->s.tsc_deadline));
    else if (hsk_lapic_timer_mode(l) != TIMER_TSC_DEADLINE && l->s.deadline_ns)
        hsk_timer_arm(l->timer, l->s.deadline_ns);
    else
        hsk_timer_disarm(l->timer);
}

void hsk_lapic_timer_start_locked(struct hsk_lapic *l, uint32_t count)
{
    l->s.deadline_ns = 0;
    if (count && hsk_lapic_timer_mode(l) != TIMER_TSC_DEADLINE)
        l->s.deadline_ns = hsk_clock_ns(l->clock) + ticks_to_ns(count, timer_divide(l));
    hsk_lapic_timer_arm_locked(l);
}

bool hsk_lapic_timer_due_locked(struct hsk_lapic *l)
{
    uint64_t now = hsk_clock_ns(l->clock), period;

    if (hsk_lapic_timer_mode(l) == TIMER_TSC_DEADLINE) {
        if (!l->s.tsc_deadline || hsk_clock_tsc(l->clock) < l->s.tsc_deadline)
            return false;
        l->s.tsc_deadline = 0;
    } else if (!l->s.deadline_ns || now < l->s.deadline_ns) {
        return false;
    } else if (hsk_lapic_timer_mode(l) == TIMER_PERIODIC) {
        period = ticks_to_ns(l->s.timer_initial, timer_divide(l));
        l->s.deadline_ns += ((now - l->s.deadline_ns) / period + 1) * period;
        hsk_timer_arm(l->timer, MAX(l->s.deadline_ns, now + MIN_PERIOD_NS));
    } else {
        l->s.deadline_ns = 0;
    }
    hsk_lapic_local_locked(l, LVT_TIMER);
    return true;
}

void hsk_lapic_timer_expired(void *opaque)
{
    struct hsk_lapic *l = opaque;

    hsk_lapic_enter(l);
    if (!hsk_lapic_timer_due_locked(l)) {
        /* Nanoseconds are coarser than ticks: a little too early. */
        if (hsk_lapic_timer_mode(l) == TIMER_TSC_DEADLINE && l->s.tsc_deadline)
            hsk_timer_arm(l->timer, MAX(hsk_clock_ns(l->clock) + 1,
                                        hsk_clock_tsc_to_ns(l->clock, l->s.tsc_deadline)));
        else
            hsk_lapic_timer_arm_locked(l);
    }
    hsk_lapic_leave(l);
}

void hsk_lapic_timer_set_divide_locked(struct hsk_lapic *l, uint32_t value)
{
    uint32_t left;

    hsk_lapic_timer_due_locked(l);
    left = hsk_lapic_timer_count_locked(l);
    l->s.timer_divide = value & 0xb;
    if (l->s.deadline_ns)
        hsk_lapic_timer_start_locked(l, MAX(left, 1u));
}
