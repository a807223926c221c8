/* SPDX-License-Identifier: MIT */
/*
 * The dispatcher: looks at events, finds or makes the block at rip, enters it, and handles why it
 * left. Faults anywhere below come back to soft_run() by soft_longjmp(), with all state canonical.
 *
 * vCPU thread. The guest's FPU registers are live except where parked; general registers only in
 * this file.
 */
#include <vmm/cpu_bits.h>

#include "xlate.h"

enum { LAND_FAULT = 1, LAND_STOP, LAND_ALONE };

/* --- the FPU --- */

static inline uint32_t xsave_mask(void)
{
    uint32_t lo, hi;

    __asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
    return lo & 7;
}

void soft_fpu_park(struct soft_vcpu *v)
{
    static const uint32_t mxcsr = 0x1f80;

    if (v->fpu_parked)
        return;
    __asm__ volatile("xsave64 %0" : "=m"(v->s.xsave) : "a"(xsave_mask()), "d"(0) : "memory");
    __asm__ volatile("fninit; ldmxcsr %0; vzeroupper" : : "m"(mxcsr));
    v->fpu_parked = 1;
}

void soft_fpu_unpark(struct soft_vcpu *v)
{
    if (!v->fpu_parked)
        return;
    v->fpu_parked = 0;
    __asm__ volatile("xrstor64 %0" : : "m"(v->s.xsave), "a"(xsave_mask()), "d"(0) : "memory");
}

/* --- leaving C --- */

void soft_fault(struct soft_vcpu *v, unsigned vector, int error)
{
    v->exc = (struct soft_exception){
        .vector = vector, .has_error = error >= 0, .error = error >= 0 ? (uint32_t)error : 0};
    soft_longjmp(v, LAND_FAULT);
}

void soft_fault_db(struct soft_vcpu *v, uint64_t dr6)
{
    v->exc = (struct soft_exception){.vector = 1, .payload = dr6};
    soft_longjmp(v, LAND_FAULT);
}

void soft_run_alone(struct soft_vcpu *v)
{
    v->debug_hits = 0;
    soft_longjmp(v, LAND_ALONE);
}

void soft_fault_pf(struct soft_vcpu *v, uint64_t va, uint32_t error)
{
    v->exc = (struct soft_exception){.vector = 14, .has_error = 1, .error = error, .payload = va};
    soft_longjmp(v, LAND_FAULT);
}

void soft_stop(struct soft_vcpu *v, const char *fmt, ...)
{
    va_list ap;

    soft_fpu_park(v);
    g_free(v->base.error);
    va_start(ap, fmt);
    v->base.error = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    v->exit = HSK_EXIT_ERROR;
    soft_longjmp(v, LAND_STOP);
}

void soft_unimplemented(struct soft_vcpu *v, const char *fmt, ...)
{
    g_autofree char *what = NULL;
    va_list ap;

    soft_fpu_park(v);
    va_start(ap, fmt);
    what = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    g_free(v->base.error);
    v->base.error = g_strdup_printf(
        "The software engine stopped: %s is not implemented (at %#" G_GINT64_MODIFIER "x).", what,
        v->rip);
    g_free(g_steal_pointer(&what));
    v->exit = HSK_EXIT_ERROR;
    soft_longjmp(v, LAND_STOP);
}

/* --- called from translated code --- */

static int after_helper(struct soft_vcpu *v, enum soft_next next, uint64_t dropped_before)
{
    if (next == SOFT_NEXT_EXIT)
        return SOFT_NEXT_EXIT;
    if (next == SOFT_NEXT_JUMP || v->debug_hits || v->count.invalidations != dropped_before ||
        atomic_load_explicit(&v->interrupt, memory_order_relaxed))
        return SOFT_NEXT_JUMP;
    soft_fpu_unpark(v);
    return 0;
}

int soft_call_exec(struct soft_vcpu *v, const struct soft_insn *in)
{
    uint64_t dropped = v->count.invalidations;

    v->count.helper_calls++;
    return after_helper(v, soft_exec(v, in), dropped);
}

int soft_call_string(struct soft_vcpu *v, const struct soft_insn *in)
{
    uint64_t dropped = v->count.invalidations;

    v->count.helper_calls++;
    return after_helper(v, soft_exec_string(v, in), dropped);
}

int soft_call_raise(struct soft_vcpu *v, uint64_t vector)
{
    soft_fault(v, (unsigned)vector & 0xff, vector & SOFT_RAISE_ERROR_0 ? 0 : -1);
}

int soft_call_loop_out(struct soft_vcpu *v, const struct soft_insn *in)
{
    const uint64_t mask = in->addrsize == 8 ? ~0ull : (1ull << 8 * in->addrsize) - 1;
    const bool zero = v->rflags & HSK_FLAG_ZF;
    uint64_t count = v->gpr[HSK_RCX] & mask;

    switch (in->mnemonic) {
    case ZYDIS_MNEMONIC_JCXZ:
    case ZYDIS_MNEMONIC_JECXZ:
    case ZYDIS_MNEMONIC_JRCXZ:
        if (count == 0)
            soft_fault(v, 13, 0);
        return 0;
    default:
        break;
    }
    count = (count - 1) & mask;
    if (count &&
        (in->mnemonic == ZYDIS_MNEMONIC_LOOP || (in->mnemonic == ZYDIS_MNEMONIC_LOOPE) == zero))
        soft_fault(v, 13, 0);
    v->gpr[HSK_RCX] = in->addrsize >= 4 ? count : (v->gpr[HSK_RCX] & ~mask) | count;
    return 0;
}

int soft_call_check_target(struct soft_vcpu *v, uint64_t unused)
{
    (void)unused;
    if (v->jump_target > v->s.seg[HSK_CS].limit)
        soft_fault(v, 13, 0);
    return 0;
}

int soft_call_unknown(struct soft_vcpu *v, const struct soft_insn *in)
{
    soft_fpu_park(v);
    soft_unimplemented(v, "the instruction %s (opcode %02x)",
                       ZydisMnemonicGetString((ZydisMnemonic)in->mnemonic), in->opcode);
}

/* --- finding code --- */

/* May translated code access the segment up to offset last without asking? */
static bool open_to(const struct soft_vcpu *v, unsigned i, uint32_t last)
{
    const struct hsk_segment *s = &v->s.seg[i];

    if (s->limit < last)
        return false;
    if (!(v->s.cr0 & HSK_CR0_PE))
        return (s->attr & 0xc) != 4; /* expand-down */
    if ((s->attr & (HSK_SEG_P | HSK_SEG_S)) != (HSK_SEG_P | HSK_SEG_S))
        return false;
    return i == HSK_CS ? (s->attr & 0xa) == 0xa || (v->rflags & HSK_FLAG_VM) : (s->attr & 0xe) == 2;
}

uint32_t soft_segment_mode(const struct soft_vcpu *v)
{
    uint32_t mode = SOFT_MODE_CODE32 | SOFT_MODE_64K;

    if (v->code_size == 2)
        mode |= SOFT_MODE_CODE16;
    if (!(v->s.seg[HSK_SS].attr & HSK_SEG_DB))
        mode |= SOFT_MODE_STACK16;
    if (!(v->s.cr0 & HSK_CR0_PE) || (v->rflags & HSK_FLAG_VM))
        mode |= SOFT_MODE_REAL;
    if (v->seg_base[HSK_ES] | v->seg_base[HSK_CS] | v->seg_base[HSK_SS] | v->seg_base[HSK_DS])
        mode |= SOFT_MODE_BASES;
    for (unsigned i = HSK_ES; i <= HSK_GS; i++)
        if (!open_to(v, i, UINT32_MAX)) {
            mode |= SOFT_MODE_SEG << i;
            if (!open_to(v, i, 0xffff))
                mode &= ~SOFT_MODE_64K;
        }
    return mode;
}

static uint32_t mode_of(struct soft_vcpu *v)
{
    const struct hsk_cpu_state *s = &v->s;
    uint32_t mode = v->mmu | v->seg_mode;

    if (v->code_size != 8 && (s->seg[HSK_CS].limit != UINT32_MAX || v->seg_base[HSK_CS])) {
        soft_fpu_park(v);
        mode |= soft_limit_class(v, s->seg[HSK_CS].limit);
    }
    if (s->cr0 & HSK_CR0_TS)
        mode |= SOFT_MODE_TS;
    if (s->cr0 & HSK_CR0_EM)
        mode |= SOFT_MODE_EM;
    if (s->cr4 & HSK_CR4_OSFXSR)
        mode |= SOFT_MODE_SSE;
    if ((s->cr4 & HSK_CR4_OSXSAVE) && (s->xcr0 & 6) == 6)
        mode |= SOFT_MODE_AVX;
    if (s->cr4 & HSK_CR4_PGE)
        mode |= SOFT_MODE_PGE;
    if (v->cpl == 0)
        mode |= SOFT_MODE_CPL0;
    if (s->cr4 & HSK_CR4_SMAP)
        mode |= SOFT_MODE_SMAP;
    if (v->tsc_exact && (v->cpl == 0 || !(s->cr4 & HSK_CR4_TSD)))
        mode |= SOFT_MODE_TSC;
    if ((v->debug & SOFT_DEBUG_DATA) || soft_checks_alignment(v))
        mode |= SOFT_MODE_CHECKED;
    if (s->interrupt_shadow || (v->rflags & HSK_FLAG_TF) || v->code->strict)
        mode |= SOFT_MODE_SINGLE;
    return mode;
}

/* IRETQ in 64-bit code. 0: in the same mode as before, and with nothing for the dispatcher to look
   at, so that translated code goes on at rip as behind an indirect jump. Linux serializes with it,
   at each place that it patches. */
int soft_call_iret(struct soft_vcpu *v, const struct soft_insn *in)
{
    const uint64_t dropped = v->count.invalidations;
    const uint32_t mode = mode_of(v);
    const bool nmi = v->s.nmi_masked;
    enum soft_next next;

    v->count.helper_calls++;
    next = soft_exec(v, in);
    if (!nmi && !(v->debug & SOFT_DEBUG_CODE) && !(v->rflags & HSK_FLAG_RF) && mode_of(v) == mode)
        next = SOFT_NEXT_INSN;
    return after_helper(v, next, dropped);
}

/* The block at rip; makes it if need be. Faults. */
static struct soft_block *find_block(struct soft_vcpu *v, uint32_t mode)
{
    struct soft_code *c = v->code;
    uint64_t va = soft_linear_pc(v, v->rip), key = soft_mode_floats(mode) ? va & 0xfff : v->rip;
    const struct soft_itlb *page;
    struct soft_block *b;

    if (v->code_size != 8 && v->rip > v->s.seg[HSK_CS].limit)
        soft_fault(v, 13, 0);
    page = soft_fetch_page(v, va, mode & SOFT_MODE_MMU);
    if (!page)
        soft_longjmp(v, LAND_FAULT);
    b = soft_block_find(c, page->gpa | (va & 0xfff), key, mode);
    if (b && b->gpa2 != SOFT_NO_GPA) {
        const struct soft_itlb *second =
            soft_fetch_page(v, soft_second_page(v, va), mode & SOFT_MODE_MMU);

        if (!second)
            soft_longjmp(v, LAND_FAULT);
        while (b && b->gpa2 != second->gpa)
            b = soft_block_next(b);
    }
    if (b)
        return b;
    soft_fpu_park(v);
    if (soft_code_full(c)) {
        soft_code_flush(v);
        v->exit_arg = 0;
    }
    soft_code_make_ready(c);
    /* the second page may have taken the entry's place */
    page = soft_fetch_page(v, va, mode & SOFT_MODE_MMU);
    b = page ? soft_translate(v, v->rip, mode, page) : NULL;
    if (!b)
        soft_longjmp(v, LAND_FAULT);
    return b;
}

static void chain(struct soft_vcpu *v, struct soft_block *b)
{
    struct soft_link *l = (struct soft_link *)(uintptr_t)v->exit_arg;

    v->exit_arg = 0;
    if (!l || l->pc != b->pc || l->mode != b->mode || (b->mode & SOFT_MODE_SINGLE))
        return;
    if (l->cross || b->gpa2 != SOFT_NO_GPA) {
        if (!l->from->global || !b->global)
            return;
        l->cross = true;
    }
    soft_link_chain(v->code, l, b);
}

/* Where the code at rip is; page_va is set for it. The jump cache knows best, and gets to know. */
static const void *find_host(struct soft_vcpu *v, uint32_t mode)
{
    const bool cached =
        !(mode & (SOFT_MODE_SINGLE | SOFT_MODE_NOSHARE)) && !(mode & SOFT_MODE_LIMIT);
    const struct soft_jump *j = cached && !v->exit_arg ? soft_jump_find(v, v->rip, mode) : NULL;
    struct soft_block *b;

    if (j) {
        v->page_va = j->page_va;
        return (const void *)(uintptr_t)j->host;
    }
    b = find_block(v, mode);
    v->page_va = soft_mode_floats(mode) ? v->rip & ~0xfffull : 0;
    if (v->lockstep)
        soft_lockstep_begin(v, b);
    if (v->lockstep || (v->chaos && soft_chaos_denies(v)))
        return b->host;
    if (v->exit_arg)
        chain(v, b);
    else if (cached)
        soft_jump_fill(v, v->rip, b);
    return b->host;
}

/* --- events --- */

/* v->interrupt was set. Returns whether run() must return. */
static bool attend(struct soft_vcpu *v)
{
    uint32_t what = atomic_exchange(&v->interrupt, 0);

    atomic_store((_Atomic uint64_t *)&v->jump_mask, SOFT_JUMP_MASK);
    if (atomic_load(&v->interrupt))
        atomic_store((_Atomic uint64_t *)&v->jump_mask, 0);
    if (what & SOFT_INT_STOP) {
        soft_fpu_park(v);
        soft_smp_give_way(v);
    }
    if (what & SOFT_INT_FLUSH)
        soft_tlb_flush_all(v);
    if (what & SOFT_INT_CODE) {
        soft_fpu_park(v);
        v->exit_arg = 0;
        soft_code_collect_written(v);
    }
    if (!(what & SOFT_INT_KICK))
        return false;
    v->exit = HSK_EXIT_KICK;
    return true;
}

static void deliver_saved_exception(struct soft_vcpu *v)
{
    v->s.exception_pending = 0;
    v->exc = (struct soft_exception){.vector = v->s.exception_vector,
                                     .has_error = v->s.exception_has_error,
                                     .error = (uint32_t)v->s.exception_error,
                                     .payload = v->s.exception_payload};
    soft_longjmp(v, LAND_FAULT);
}

/* Another TSC_ADJUST, or a clock that was stopped: where translated code finds the guest's TSC. */
static void refresh_tsc(struct soft_vcpu *v)
{
    const struct hsk_clock_tsc_params *p = hsk_clock_tsc_params(v->base.engine->cfg.clock);

    v->tsc_exact = p->mult == 1ull << 32;
    v->tsc_offset = p->guest_base - p->host_base + v->s.tsc_adjust;
}

static bool something_pending(const struct soft_vcpu *v)
{
    return v->s.interrupt_pending || v->s.nmi_pending ||
           (v->base.lapic && hsk_lapic_pending(v->base.lapic));
}

/* An edge knows the mode behind it. */
static uint32_t next_mode(struct soft_vcpu *v)
{
    const struct soft_link *l = (const struct soft_link *)(uintptr_t)v->exit_arg;

    return l && !(l->mode & SOFT_MODE_SINGLE) ? l->mode : mode_of(v);
}

/* The #DB behind an instruction: single step, and breakpoints that it hit. MOV SS keeps both back.
 */
static void trap_behind(struct soft_vcpu *v, bool stepped)
{
    const uint32_t hits = v->debug_hits;

    if (v->s.interrupt_shadow == 2)
        return;
    v->debug_hits = 0;
    soft_fault_db(v, hits | (stepped ? HSK_DR6_BS : 0));
}

/* Runs translated code until it leaves; rip is set behind it. False: leave run() with v->exit. */
static bool enter(struct soft_vcpu *v, const void *host)
{
    unsigned left;

    soft_fpu_unpark(v);
    left = soft_enter(v, host);
    v->count.left[left < SOFT_LEFT_LINK ? 2 : left & 1]++;
    switch (left) {
    case SOFT_LEFT_LINK:
        v->rip = v->page_va + ((const struct soft_link *)(uintptr_t)v->exit_arg)->pc;
        break;
    case SOFT_LEFT_BRANCH:
        if (!hsk_canonical(v->rip)) {
            v->rip = v->page_va + v->branch_pc;
            v->gpr[HSK_RSP] += v->branch_undo;
            soft_fault(v, 13, 0);
        }
        G_GNUC_FALLTHROUGH;
    case SOFT_LEFT_LOOKUP:
        v->exit_arg = 0;
        break;
    case SOFT_LEFT_TRAP:
        soft_longjmp(v, LAND_FAULT);
    default:
        v->exit_arg = 0;
        refresh_tsc(v);
        if (left == SOFT_NEXT_EXIT &&
            !v->halted) /* HLT: the next turn looks first whether something waits already */
            return false;
        break;
    }
    return true;
}

/* One turn. alone: of one instruction. false: leave run() with v->exit. */
static bool step(struct soft_vcpu *v, bool alone)
{
    const void *host;
    uint32_t mode;
    bool trap;

    if (v->chaos)
        soft_chaos(v);
    if (atomic_load_explicit(&v->interrupt, memory_order_relaxed) && attend(v))
        return false;
    if (v->s.exception_pending)
        deliver_saved_exception(v);
    v->irq_waiting = 0;
    if (something_pending(v)) {
        if (v->base.lapic && (hsk_lapic_pending(v->base.lapic) & (HSK_LAPIC_INIT | HSK_LAPIC_SIPI)))
            soft_smp_startup(v);
        if (v->s.activity != HSK_ACT_WAIT_SIPI && soft_deliver_interrupt(v)) {
            v->count.interrupts++;
            v->exit_arg = 0;
        } else {
            v->irq_waiting = 1;
        }
    }
    if (v->halted) {
        v->exit = HSK_EXIT_HALT;
        return false;
    }
    mode = next_mode(v);
    if (alone || (v->debug & SOFT_DEBUG_CODE && soft_debug_fetch(v, soft_linear_pc(v, v->rip))))
        mode |= SOFT_MODE_SINGLE;
    if ((mode & ~(uint32_t)(SOFT_MODE_SINGLE | SOFT_MODE_NOSHARE)) != v->code->mode) {
        soft_returns_forget(v);
        v->code->mode = mode & ~(uint32_t)(SOFT_MODE_SINGLE | SOFT_MODE_NOSHARE);
        soft_jump_mode(v, v->code->mode);
    }
    host = find_host(v, mode);
    v->exit_arg = 0;
    trap = v->rflags & HSK_FLAG_TF;
    v->no_step = v->step_now = 0;
    v->single = !!(mode & SOFT_MODE_SINGLE);
    v->rflags &= ~HSK_FLAG_RF;
    v->s.interrupt_shadow = 0;
    v->count.dispatches++;
    if (!enter(v, host))
        return false;
    if (v->lockstep)
        soft_lockstep_end(v);
    trap = (trap && !v->no_step) || v->step_now;
    if (trap || v->debug_hits)
        trap_behind(v, trap);
    return true;
}

bool soft_step_strictly(struct soft_vcpu *v)
{
    struct soft_block *b;

    v->exit_arg = 0;
    b = find_block(v, mode_of(v) | SOFT_MODE_SINGLE);
    v->page_va = soft_mode_floats(b->mode) ? v->rip & ~0xfffull : 0;
    v->no_step = v->step_now = 0;
    v->single = 1;
    v->rflags &= ~HSK_FLAG_RF;
    v->s.interrupt_shadow = 0;
    return enter(v, b->host);
}

enum hsk_exit soft_run(struct soft_vcpu *v)
{
    int landed = soft_setjmp(v);

    if (!landed)
        soft_smp_enter(v);
    else
        soft_smp_resume(v);
    v->exit_arg = 0;
    refresh_tsc(v);
    if (!landed) {
        soft_returns_forget(v);
        soft_pv_tell_leap(v);
    }
    if (landed)
        soft_lockstep_cancel(v);
    if (landed == LAND_FAULT) {
        v->count.exceptions++;
        v->debug_hits = 0;
        if (!soft_deliver(v)) {
            v->exit = HSK_EXIT_SHUTDOWN;
            landed = LAND_STOP;
        }
    }
    if (landed != LAND_STOP)
        for (bool alone = landed == LAND_ALONE; step(v, alone); alone = false)
            ;
    soft_fpu_park(v);
    soft_smp_leave(v);
    return v->exit;
}
