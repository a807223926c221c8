/* SPDX-License-Identifier: MIT */
/*
 * Inside of the local APIC: its state, and what lapic.c (registers, life cycle, the engine's
 * calls), lapic-ipi.c (accepting and sending interrupts) and lapic-timer.c have in common. Threads
 * and locks: lapic.c. What ends in _locked is called with the leaf lock held.
 */
#pragma once

#include <vmm/lapic.h>
#include <vmm/machine.h>

enum { LVT_TIMER, LVT_THERMAL, LVT_PERF, LVT_LINT0, LVT_LINT1, LVT_ERROR, NLVT };
enum {
    MODE_FIXED,
    MODE_LOWEST,
    MODE_SMI,
    MODE_RESERVED,
    MODE_NMI,
    MODE_INIT,
    MODE_SIPI,
    MODE_EXTINT
};
enum { TIMER_ONESHOT, TIMER_PERIODIC, TIMER_TSC_DEADLINE };

#define BASE_X2APIC (1u << 10)
#define BASE_ENABLE HSK_APIC_BASE_ENABLE
#define SVR_ENABLE  (1u << 8)
#define LVT_MASKED  (1u << 16)
#define MAX_NMIS    2u

struct lapic_state {
    uint64_t base; /* IA32_APIC_BASE */
    uint64_t
        deadline_ns; /* one-shot and periodic: guest time of the next expiry; 0 = not counting */
    uint64_t tsc_deadline; /* IA32_TSC_DEADLINE; 0 = not armed */
    uint64_t extint;       /* level of the PIC's output (64 bits: no padding) */
    uint32_t isr[8], irr[8], tmr[8];
    uint32_t lvt[NLVT];
    uint32_t tpr, ldr, dfr, svr;
    uint32_t esr, esr_pending; /* what a read gives; what the next write latches */
    uint32_t icr_low, icr_high;
    uint32_t timer_initial, timer_divide;
    uint32_t nmi; /* waiting for the vCPU: 0 to MAX_NMIS */
    uint32_t init, sipi, sipi_vector;
};

struct hsk_lapic {
    struct hsk_dev dev;
    /* immutable after new */
    unsigned index;
    uint64_t base_reserved;
    struct hsk_clock *clock;
    struct hsk_timer *timer;
    /* changed only while the vCPUs are stopped */
    void (*kick)(void *opaque);
    void *kick_opaque;
    uint64_t mapped; /* where the page is on the bus; ~0: nowhere */
    /* leaf lock */
    pthread_mutex_t leaf;
    struct lapic_state s;
    /* atomic, written under the leaf lock */
    _Atomic unsigned pending;
};

/* 256-bit registers */

static inline bool bit_test(const uint32_t *r, unsigned n)
{
    return r[n / 32] >> (n % 32) & 1;
}
static inline void bit_set(uint32_t *r, unsigned n)
{
    r[n / 32] |= 1u << (n % 32);
}
static inline void bit_clear(uint32_t *r, unsigned n)
{
    r[n / 32] &= ~(1u << (n % 32));
}
static inline int bit_highest(const uint32_t *r)
{
    for (int i = 7; i >= 0; i--)
        if (r[i])
            return i * 32 + 31 - __builtin_clz(r[i]);
    return -1;
}

static inline unsigned hsk_lapic_timer_mode(const struct hsk_lapic *l)
{
    return l->s.lvt[LVT_TIMER] >> 17 & 3;
}

/* lapic.c */
void hsk_lapic_enter(struct hsk_lapic *l);
/* Lets go of the leaf lock after publishing what waits; wakes the vCPU if something new does. */
void hsk_lapic_leave(struct hsk_lapic *l);
uint32_t hsk_lapic_ppr_locked(const struct hsk_lapic *l);

/* lapic-ipi.c */
void hsk_lapic_accept_locked(struct hsk_lapic *l, unsigned vector, bool level);
void hsk_lapic_error_locked(struct hsk_lapic *l, uint32_t bit);
void hsk_lapic_nmi_locked(struct hsk_lapic *l);
/* An event of our own: timer, LINT0, LINT1. */
void hsk_lapic_local_locked(struct hsk_lapic *l, unsigned entry);
/* l's ICR, read under its lock by the caller; no lock held now. */
void hsk_lapic_send_icr(struct hsk_lapic *l, uint32_t low, uint32_t high, bool x2apic);

/* lapic-timer.c */
uint32_t hsk_lapic_timer_count_locked(const struct hsk_lapic *l);
void hsk_lapic_timer_arm_locked(struct hsk_lapic *l);
void hsk_lapic_timer_start_locked(struct hsk_lapic *l, uint32_t count);
/* Does what is due by the clock, true if something was. The loop's timer may be late: who touches
   the timer must not see that. */
bool hsk_lapic_timer_due_locked(struct hsk_lapic *l);
void hsk_lapic_timer_set_divide_locked(struct hsk_lapic *l, uint32_t value);
/* The loop's timer fired. */
void hsk_lapic_timer_expired(void *opaque);
