/* SPDX-License-Identifier: MIT */
/*
 * Several processors: the safe points at which one of them may be stopped, and what is done while
 * others are.
 *
 * A vCPU is "inside" while it runs translated code or a helper: it may hold host addresses of guest
 * pages, in its TLB, in windows and in C variables. Outside (before and after run(), and wherever
 * the dispatcher serves SOFT_INT_STOP) it holds none but those in its TLB. Who wants others to
 * stand still takes the engine's mutex, asks them to come out, and waits until they have; they
 * cannot go in again until the mutex is free. While a vCPU waits for the mutex it is outside
 * itself, so two that stop each other cannot deadlock. Nobody waits for a vCPU while it is halted
 * or parked.
 *
 * Two things need it: accesses that must be atomic but cannot be one access of the host (SDM vol.
 * 3, 9.1: locked operations across pages, on device memory, on the bounce buffer), and the first
 * translation from a page that another vCPU may be writing through its TLB (docs/soft-engine.md,
 * "Several processors").
 *
 * Also here: INIT and start-up IPIs (SDM vol. 3, 9.4), and the host's processor being given away by
 * a guest that spins. vCPU threads, FPU parked; general libc use is fine.
 */
#include <vmm/cpu_bits.h>

#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>

#include "xlate.h"

enum { OUTSIDE, INSIDE, INSIDE_AND_AWAITED };

/* A vCPU that runs on a host's processor comes out within microseconds; one that does not takes as
 * long as the host likes. */
#define SPINS 2000

static void futex(_Atomic uint32_t *word, int op, uint32_t value)
{
    syscall(SYS_futex, word, op, value, NULL, NULL, 0);
}

static bool alone(const struct soft_vcpu *v)
{
    return v->base.engine->cfg.ncpus < 2;
}

void soft_smp_enter(struct soft_vcpu *v)
{
    if (alone(v))
        return;
    pthread_mutex_lock(&v->engine->world);
    atomic_store(&v->inside, INSIDE);
    pthread_mutex_unlock(&v->engine->world);
}

void soft_smp_leave(struct soft_vcpu *v)
{
    if (!alone(v) && atomic_exchange(&v->inside, OUTSIDE) == INSIDE_AND_AWAITED)
        futex(&v->inside, FUTEX_WAKE_PRIVATE, 1);
}

static void await(struct soft_vcpu *other)
{
    for (unsigned i = 0; i < SPINS; i++) {
        if (atomic_load(&other->inside) == OUTSIDE)
            return;
        __builtin_ia32_pause();
    }
    for (;;) {
        uint32_t now = INSIDE;

        if (!atomic_compare_exchange_strong(&other->inside, &now, INSIDE_AND_AWAITED) &&
            now == OUTSIDE)
            return;
        futex(&other->inside, FUTEX_WAIT_PRIVATE, INSIDE_AND_AWAITED);
    }
}

/* Stops the vCPUs whose bits are set. */
static void stop(struct soft_vcpu *v, unsigned mask)
{
    struct soft_engine *e = v->engine;

    soft_smp_leave(v);
    pthread_mutex_lock(&e->world);
    atomic_store(&v->inside, INSIDE);
    v->exclusive = true;
    for (unsigned i = 0; i < G_N_ELEMENTS(e->vcpu); i++)
        if (mask >> i & 1)
            soft_interrupt(e->vcpu[i], SOFT_INT_STOP);
    for (unsigned i = 0; i < G_N_ELEMENTS(e->vcpu); i++)
        if (mask >> i & 1)
            await(e->vcpu[i]);
}

static unsigned others(const struct soft_vcpu *v)
{
    unsigned mask = 0;

    for (unsigned i = 0; i < G_N_ELEMENTS(v->engine->vcpu); i++)
        if (v->engine->vcpu[i] && v->engine->vcpu[i] != v)
            mask |= 1u << i;
    return mask;
}

void soft_smp_stop_others(struct soft_vcpu *v)
{
    soft_fpu_park(v);
    if (!alone(v) && !v->exclusive)
        stop(v, others(v));
}

void soft_smp_resume(struct soft_vcpu *v)
{
    if (!v->exclusive)
        return;
    soft_fpu_park(v);
    v->exclusive = false;
    pthread_mutex_unlock(&v->engine->world);
}

void soft_smp_give_way(struct soft_vcpu *v)
{
    soft_smp_leave(v);
    soft_smp_enter(v);
}

void soft_smp_revoke_writes(struct soft_vcpu *v, uint64_t gpa)
{
    struct soft_engine *e = v->engine;
    unsigned mask = others(v);

    for (unsigned i = 0; i < G_N_ELEMENTS(e->vcpu); i++)
        if ((mask >> i & 1) && !soft_may_write(e->vcpu[i]->code, gpa))
            mask &= ~(1u << i);
    if (!mask)
        return;
    stop(v, mask);
    for (unsigned i = 0; i < G_N_ELEMENTS(e->vcpu); i++)
        if (mask >> i & 1)
            soft_tlb_drop_write_gpa(e->vcpu[i], gpa);
    soft_smp_resume(v);
}

/* --- INIT and start-up IPIs --- */

static void load_start(struct soft_vcpu *v)
{
    memcpy(v->gpr, v->s.gpr, sizeof v->gpr);
    v->rip = v->s.rip;
    v->rflags = v->s.rflags;
    v->delivering = 0;
    v->exit_arg = 0;
    v->halted = v->s.activity == HSK_ACT_WAIT_SIPI;
    soft_segments_changed(v);
    soft_tlb_flush_all(v);
}

void soft_smp_startup(struct soft_vcpu *v)
{
    struct hsk_lapic *l = v->base.lapic;
    uint8_t vector;

    soft_fpu_park(v);
    if (hsk_lapic_take(l, HSK_LAPIC_INIT, &vector)) {
        hsk_cpu_state_init(&v->s, v->base.index);
        load_start(v);
    }
    if (hsk_lapic_take(l, HSK_LAPIC_SIPI, &vector) && v->s.activity == HSK_ACT_WAIT_SIPI) {
        hsk_cpu_state_sipi(&v->s, vector);
        load_start(v);
    }
}

/* --- PAUSE --- */

void soft_smp_pause(struct soft_vcpu *v)
{
    soft_fpu_park(v);
    v->pauses = 0;
    sched_yield();
}
