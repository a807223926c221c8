/* SPDX-License-Identifier: MIT */
/*
 * How interrupts come to a local APIC (Intel SDM vol. 3, 11.6, 11.8, 11.11): accepted, found wrong,
 * sent by the ICR of another one or as a message, in xAPIC and x2APIC mode.
 *
 * Threads: any; see lapic.c. Never two APICs' locks at once. What is deliberately missing: lapic.c.
 */
#include "lapic-internal.h"

#define ICR_LOGICAL    (1u << 11)
#define ICR_ASSERT     (1u << 14)
#define ICR_LEVEL      (1u << 15)
#define ESR_ILLEGAL_TX (1u << 5)
#define ESR_ILLEGAL_RX (1u << 6)

void hsk_lapic_accept_locked(struct hsk_lapic *l, unsigned vector, bool level)
{
    if (!(l->s.base & BASE_ENABLE) || !(l->s.svr & SVR_ENABLE))
        return;
    if (vector < 16) {
        hsk_lapic_error_locked(l, ESR_ILLEGAL_RX);
        return;
    }
    bit_set(l->s.irr, vector);
    if (level)
        bit_set(l->s.tmr, vector);
    else
        bit_clear(l->s.tmr, vector);
}

void hsk_lapic_error_locked(struct hsk_lapic *l, uint32_t bit)
{
    uint32_t lvt = l->s.lvt[LVT_ERROR];
    bool news = !(l->s.esr_pending & bit);

    l->s.esr_pending |= bit;
    /* An illegal vector in the error LVT itself must not come back here for ever. */
    if (news && !(lvt & LVT_MASKED) && (lvt & 0xff) >= 16)
        hsk_lapic_accept_locked(l, lvt & 0xff, false);
}

/* A processor that takes NMIs has taken the first before the second comes, and remembers that; the
   vCPU may be late for the first. */
void hsk_lapic_nmi_locked(struct hsk_lapic *l)
{
    l->s.nmi = MIN(l->s.nmi + 1, MAX_NMIS);
}

static void deliver_locked(struct hsk_lapic *l, unsigned mode, unsigned vector, bool level)
{
    switch (mode) {
    case MODE_FIXED:
    case MODE_LOWEST:
        hsk_lapic_accept_locked(l, vector, level);
        break;
    case MODE_NMI:
        hsk_lapic_nmi_locked(l);
        break;
    case MODE_INIT:
        l->s.init = 1;
        l->s.sipi = 0;
        break;
    case MODE_SIPI:
        l->s.sipi = 1;
        l->s.sipi_vector = vector;
        break;
    default: /* SMI, reserved, ExtINT: see the top */
        break;
    }
}

void hsk_lapic_local_locked(struct hsk_lapic *l, unsigned entry)
{
    uint32_t lvt = l->s.lvt[entry];
    unsigned mode = entry == LVT_TIMER ? MODE_FIXED : lvt >> 8 & 7;

    if ((lvt & LVT_MASKED) || (mode != MODE_FIXED && mode != MODE_NMI))
        return;
    deliver_locked(l, mode, lvt & 0xff, false);
}

struct message {
    uint32_t dest;
    bool logical, wide; /* wide: a 32-bit x2APIC destination */
    bool level;
    uint8_t mode, vector;
};

static bool matches_locked(const struct hsk_lapic *l, const struct message *msg)
{
    uint32_t dest = msg->dest, ldr = l->s.ldr;

    if (!(l->s.base & BASE_ENABLE))
        return false;
    if (dest == (msg->wide ? 0xffffffffu : 0xffu) && (!msg->logical || msg->wide))
        return true;
    if (!msg->logical)
        return dest == l->index;
    if (l->s.base & BASE_X2APIC) {
        ldr = (l->index >> 4) << 16 | 1u << (l->index & 15);
        return dest >> 16 == ldr >> 16 && (dest & ldr & 0xffff);
    }
    if (dest > 0xff)
        return false;
    if (l->s.dfr >> 28 == 0xf)
        return dest & ldr >> 24;
    return (dest >> 4 == 0xf || dest >> 4 == ldr >> 28) && (dest & ldr >> 24 & 0xf);
}

/* No APIC lock held. */
static void send(struct hsk_machine *m, const struct message *msg)
{
    struct hsk_lapic *best = NULL;
    uint32_t best_ppr = 0;
    unsigned n = hsk_machine_ncpus(m);

    for (unsigned i = 0; i < n; i++) {
        struct hsk_lapic *l = hsk_machine_lapic(m, i);

        hsk_lapic_enter(l);
        if (matches_locked(l, msg)) {
            if (msg->mode != MODE_LOWEST) {
                deliver_locked(l, msg->mode, msg->vector, msg->level);
            } else if ((l->s.svr & SVR_ENABLE) && (!best || hsk_lapic_ppr_locked(l) < best_ppr)) {
                best = l;
                best_ppr = hsk_lapic_ppr_locked(l);
            }
        }
        hsk_lapic_leave(l);
    }
    if (best) {
        hsk_lapic_enter(best);
        deliver_locked(best, MODE_FIXED, msg->vector, msg->level);
        hsk_lapic_leave(best);
    }
}

void hsk_msi_send(struct hsk_machine *m, uint64_t addr, uint32_t data)
{
    struct message msg = {
        .dest = addr >> 12 & 0xff,
        .logical = addr >> 2 & 1,
        .level = data >> 15 & 1,
        .mode = data >> 8 & 7,
        .vector = (uint8_t)data,
    };

    /* Anything outside of the interrupt window is an ordinary write of the device's into nowhere.
     */
    if (addr >> 20 == HSK_LAPIC_BASE >> 20)
        send(m, &msg);
}

void hsk_lapic_send_icr(struct hsk_lapic *l, uint32_t low, uint32_t high, bool x2apic)
{
    struct message msg = {
        .dest = x2apic ? high : high >> 24,
        .logical = low & ICR_LOGICAL,
        .wide = x2apic,
        .mode = low >> 8 & 7,
        .vector = (uint8_t)low,
    };
    unsigned shorthand = low >> 18 & 3, n = hsk_machine_ncpus(l->dev.machine);

    /* INIT level de-assert only ever meant something to the arbitration bus of old. */
    if (msg.mode == MODE_INIT && (low & ICR_LEVEL) && !(low & ICR_ASSERT))
        return;
    if (msg.mode <= MODE_LOWEST && msg.vector < 16) {
        hsk_lapic_enter(l);
        hsk_lapic_error_locked(l, ESR_ILLEGAL_TX);
        hsk_lapic_leave(l);
        return;
    }
    if (shorthand == 0) {
        send(l->dev.machine, &msg);
        return;
    }
    for (unsigned i = 0; i < n; i++) {
        struct hsk_lapic *t = hsk_machine_lapic(l->dev.machine, i);

        if (shorthand == 1 ? t != l : shorthand == 3 && t == l)
            continue;
        hsk_lapic_enter(t);
        if (t->s.base & BASE_ENABLE)
            deliver_locked(t, msg.mode, msg.vector, false);
        hsk_lapic_leave(t);
    }
}
