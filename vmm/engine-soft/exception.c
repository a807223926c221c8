/* SPDX-License-Identifier: MIT */
/*
 * Delivery of exceptions and interrupts through the IDT (SDM vol. 3, 6): 64-bit gates with IST,
 * 32-bit and 16-bit gates, stack switches, error codes, double and triple faults, NMI, INT n.
 *
 * Nothing of the state changes before all pushes have succeeded, so a fault during delivery finds
 * the state of the interrupted instruction; v->delivering tells the next soft_deliver() what was
 * being delivered. Real mode and what VME redirects: real.c; task gates switch to another task:
 * task.c.
 *
 * Thread: the vCPU's, with the guest's FPU registers live (parked for calls into the local APIC).
 */
#include <Zydis/Zydis.h>

#include "system.h"

/* v->delivering for external interrupts, NMI and INT n: any fault during their delivery is
 * delivered instead. */
#define DELIVERING_BENIGN 0x101

struct gate {
    uint64_t offset;
    uint16_t selector;
    bool task;
    unsigned ist;
    unsigned size; /* bytes of a pushed word: 8, 4, 2 */
    bool trap;     /* leaves IF alone */
};

static void read_gate(struct soft_vcpu *v, const struct soft_exception *e, unsigned ext,
                      struct gate *g)
{
    const bool lma = soft_lma(v);
    const unsigned bytes = lma ? 16 : 8;
    const unsigned off = e->vector * bytes;
    const int error = (int)(e->vector * 8 + 2);
    uint64_t lo, va = v->s.idtr.base + off;
    unsigned type;

    if (off + bytes - 1 > v->s.idtr.limit)
        soft_fault(v, VEC_GP, error | (int)ext);
    va = soft_sys_va(v, va);
    lo = soft_ld(v, va, 8, soft_sys_mmu(v));
    type = lo >> 40 & 0x1f;
    if (type != 0xe && type != 0xf && (lma || (type != 5 && type != 6 && type != 7)))
        soft_fault(v, VEC_GP, error | (int)ext);
    if (e->soft && (lo >> 45 & 3) < v->cpl)
        soft_fault(v, VEC_GP, error);
    if (!(lo >> 47 & 1))
        soft_fault(v, VEC_NP, error | (int)ext);
    g->task = type == 5;
    g->selector = (uint16_t)(lo >> 16);
    g->offset = (lo & 0xffff) | (lo >> 32 & 0xffff0000);
    if (lma)
        g->offset |= soft_ld(v, va + 8, 4, soft_sys_mmu(v)) << 32;
    g->ist = lma ? lo >> 32 & 7 : 0;
    g->size = lma ? 8 : type & 8 ? 4 : 2;
    if (g->size == 2)
        g->offset &= 0xffff;
    g->trap = type & 1;
}

static void read_handler(struct soft_vcpu *v, const struct gate *g, unsigned ext,
                         struct hsk_segment *cs)
{
    const int error = (g->selector & 0xfffc) | (int)ext;
    uint64_t d;

    if (!(g->selector & 0xfffc))
        soft_fault(v, VEC_GP, (int)ext);
    if (!soft_desc_read(v, g->selector, &d))
        soft_fault(v, VEC_GP, error);
    soft_desc_decode(d, g->selector, cs);
    if (!soft_is_code(cs) || HSK_SEG_DPL(cs->attr) > v->cpl)
        soft_fault(v, VEC_GP, error);
    if (soft_lma(v) && (cs->attr & (HSK_SEG_L | HSK_SEG_DB)) != HSK_SEG_L)
        soft_fault(v, VEC_GP, error);
    if ((v->rflags & HSK_FLAG_VM) && (soft_is_conforming(cs) || HSK_SEG_DPL(cs->attr)))
        soft_fault(v, VEC_GP, error);
    if (!(cs->attr & HSK_SEG_P))
        soft_fault(v, VEC_NP, error);
}

/* A field of the current TSS; outside of its limit: #TS. */
static uint64_t tss_read(struct soft_vcpu *v, unsigned off, unsigned size, unsigned ext)
{
    const struct hsk_segment *tr = &v->s.seg[HSK_TR];

    if (!(tr->attr & HSK_SEG_P) || off + size - 1 > tr->limit)
        soft_fault(v, VEC_TS, (tr->selector & 0xfffc) | (int)ext);
    return soft_ld(v, soft_sys_va(v, tr->base + off), size, soft_sys_mmu(v));
}

void soft_inner_stack(struct soft_vcpu *v, unsigned cpl, unsigned ext, struct soft_stack *st)
{
    const unsigned type = v->s.seg[HSK_TR].attr & 0xf;

    st->mmu = soft_mmu_at(v, cpl);
    st->wide = soft_lma(v);
    st->fault_error = (int)ext;
    if (soft_lma(v)) {
        st->sp = tss_read(v, 4 + 8 * cpl, 8, ext);
        st->ss = soft_null_ss(cpl);
        return;
    }
    if (type == 0xb || type == 9) {
        st->sp = tss_read(v, 4 + 8 * cpl, 4, ext);
        soft_load_ss(v, (uint16_t)tss_read(v, 8 + 8 * cpl, 2, ext), cpl, &st->ss, VEC_TS, VEC_SS,
                     ext);
    } else {
        st->sp = tss_read(v, 2 + 4 * cpl, 2, ext);
        soft_load_ss(v, (uint16_t)tss_read(v, 4 + 4 * cpl, 2, ext), cpl, &st->ss, VEC_TS, VEC_SS,
                     ext);
    }
    st->fault_error |= st->ss.selector & 0xfffc;
}

static bool is_fault(const struct soft_exception *e)
{
    if (!e->soft && e->vector == VEC_DB)
        return e->payload &
               HSK_DR6_BD; /* others are traps, or instruction breakpoints, which leave RF alone */
    return !e->soft && e->vector != VEC_NMI && e->vector != VEC_BP && e->vector != VEC_OF &&
           e->vector != VEC_DF && e->vector != VEC_MC && e->vector < 32;
}

/* What an 8086 program's data segments were: saved on the handler's stack and nulled. */
static void push_v86_segments(struct soft_vcpu *v, struct soft_stack *st, unsigned size)
{
    static const uint8_t order[] = {HSK_GS, HSK_FS, HSK_DS, HSK_ES};

    for (unsigned i = 0; i < sizeof(order); i++)
        soft_push(v, st, size, v->s.seg[order[i]].selector);
}

static void null_data_segments(struct soft_vcpu *v)
{
    v->s.seg[HSK_GS] = v->s.seg[HSK_FS] = v->s.seg[HSK_DS] = v->s.seg[HSK_ES] =
        (struct hsk_segment){0};
}

/* The last of a delivery. */
static void arrived(struct soft_vcpu *v)
{
    v->s.interrupt_shadow = 0;
    v->s.activity = HSK_ACT_RUN;
    v->halted = 0;
    v->delivering = 0;
    soft_segments_changed(v);
}

static void use_ist(struct soft_vcpu *v, const struct gate *g, unsigned cpl, unsigned ext,
                    struct soft_stack *st)
{
    st->sp = tss_read(v, 0x24 + 8 * (g->ist - 1), 8, ext);
    st->mmu = soft_mmu_at(v, cpl);
    if (cpl != v->cpl)
        st->ss = soft_null_ss(cpl);
}

static void deliver_to_task(struct soft_vcpu *v, const struct soft_exception *e, uint16_t sel,
                            unsigned ext, uint64_t return_rip, uint64_t flags)
{
    const bool trap = soft_task_switch(v, SOFT_TASK_INT, sel, ext, return_rip, flags);
    struct soft_stack st;

    if (e->has_error) {
        soft_stack_init(v, &st);
        st.fault_error = (int)ext;
        soft_push(v, &st, v->s.seg[HSK_TR].attr & 8 ? 4 : 2, e->error);
        soft_stack_commit(v, &st);
    }
    soft_task_begin(v, trap, ext);
    arrived(v);
}

/* Through the IDT. external: an interrupt or NMI, not caused by an instruction. return_rip: what
 * the handler returns to. */
static void deliver(struct soft_vcpu *v, const struct soft_exception *e, bool external,
                    uint64_t return_rip)
{
    const unsigned ext = e->soft ? 0 : 1;
    struct hsk_segment cs;
    struct soft_stack st;
    struct gate g;
    unsigned cpl;
    uint64_t flags = v->rflags;
    const bool v86 = v->rflags & HSK_FLAG_VM;
    bool outer;

    if (!(v->s.cr0 & HSK_CR0_PE)) {
        soft_real_interrupt(v, e->vector, return_rip);
        arrived(v);
        return;
    }
    read_gate(v, e, ext, &g);
    if (!external && is_fault(e))
        flags |= HSK_FLAG_RF;
    if (g.task) {
        deliver_to_task(v, e, g.selector, ext, return_rip, flags);
        return;
    }
    read_handler(v, &g, ext, &cs);
    cpl = soft_is_conforming(&cs) ? v->cpl : HSK_SEG_DPL(cs.attr);
    outer = cpl != v->cpl;
    soft_stack_init(v, &st);
    st.wide = soft_lma(v);
    st.fault_error = (int)ext;
    if (g.ist)
        use_ist(v, &g, cpl, ext, &st);
    else if (outer)
        soft_inner_stack(v, cpl, ext, &st);
    if (st.wide)
        st.sp &= ~0xfull;
    soft_stack_room(v, &st, g.size, (outer || st.wide ? 5 : 3) + (v86 ? 4 : 0) + !!e->has_error);
    soft_check_target(v, &cs, g.offset, (int)ext);
    if (v86)
        push_v86_segments(v, &st, g.size);
    if (outer || st.wide) {
        soft_push(v, &st, g.size, v->s.seg[HSK_SS].selector);
        soft_push(v, &st, g.size, v->gpr[HSK_RSP]);
    }
    soft_push(v, &st, g.size, flags);
    soft_push(v, &st, g.size, v->s.seg[HSK_CS].selector);
    soft_push(v, &st, g.size, return_rip);
    if (e->has_error)
        soft_push(v, &st, g.size, e->error);
    soft_desc_accessed(v, g.selector, &cs);

    cs.selector = (uint16_t)((g.selector & ~3u) | cpl);
    v->s.seg[HSK_CS] = cs;
    if (outer)
        v->s.seg[HSK_SS] = st.ss;
    if (v86)
        null_data_segments(v);
    soft_stack_commit(v, &st);
    v->rip = g.offset;
    v->rflags &=
        ~(HSK_FLAG_TF | HSK_FLAG_NT | HSK_FLAG_RF | HSK_FLAG_VM | (g.trap ? 0 : HSK_FLAG_IF));
    arrived(v);
}

static bool contributory(unsigned vector)
{
    return vector == 0 || (vector >= VEC_TS && vector <= VEC_GP);
}

/* Table 6-5 of the SDM: what the second exception becomes. */
static bool combine(unsigned first, struct soft_exception *e)
{
    const bool grave = contributory(e->vector) || e->vector == VEC_PF;

    if (first == VEC_DF)
        return !grave;
    if ((contributory(first) && contributory(e->vector)) || (first == VEC_PF && grave))
        *e = (struct soft_exception){.vector = VEC_DF, .has_error = 1};
    return true;
}

bool soft_deliver(struct soft_vcpu *v)
{
    struct soft_exception e = v->exc;

    if (e.vector == VEC_PF && !e.soft)
        v->s.cr2 = e.payload;
    if (e.vector == VEC_DB && !e.soft) {
        v->s.dr[6] =
            (v->s.dr[6] & ~HSK_DR6_TRAPS) | e.payload; /* the rest is left to software to clear */
        v->s.dr[7] &= ~HSK_DR7_GD;
    }
    if (v->delivering && v->delivering != DELIVERING_BENIGN && !combine(v->delivering - 1, &e)) {
        v->delivering = 0;
        v->s.activity = HSK_ACT_SHUTDOWN;
        return false;
    }
    v->delivering = e.soft ? DELIVERING_BENIGN : 1 + e.vector;
    deliver(v, &e, false, v->rip);
    return true;
}

/* --- interrupts --- */

void soft_recheck_interrupts(struct soft_vcpu *v)
{
    if (v->s.interrupt_pending || v->s.nmi_pending ||
        (v->base.lapic && hsk_lapic_pending(v->base.lapic)))
        __atomic_fetch_or((uint32_t *)&v->interrupt, SOFT_INT_APIC, __ATOMIC_RELAXED);
}

void soft_set_rflags(struct soft_vcpu *v, uint64_t rflags)
{
    const bool opened = (rflags & ~v->rflags) & HSK_FLAG_IF;

    v->rflags = rflags | HSK_FLAG_FIXED;
    if (opened)
        soft_recheck_interrupts(v);
}

static void deliver_external(struct soft_vcpu *v, unsigned vector)
{
    struct soft_exception e = {.vector = vector};

    v->delivering = DELIVERING_BENIGN;
    deliver(v, &e, true, v->rip);
}

static bool take_nmi(struct soft_vcpu *v, unsigned pending)
{
    uint8_t unused;

    if (v->s.nmi_masked)
        return false;
    if (v->s.nmi_pending) {
        v->s.nmi_pending = 0;
    } else {
        if (!(pending & HSK_LAPIC_NMI))
            return false;
        soft_fpu_park(v);
        if (!hsk_lapic_take(v->base.lapic, HSK_LAPIC_NMI, &unused))
            return false;
    }
    v->s.nmi_masked = 1;
    deliver_external(v, VEC_NMI);
    return true;
}

bool soft_deliver_interrupt(struct soft_vcpu *v)
{
    unsigned pending;
    int vector;

    if (v->s.interrupt_shadow)
        return false;
    pending = v->base.lapic ? hsk_lapic_pending(v->base.lapic) : 0;
    if (take_nmi(v, pending))
        return true;
    if (!(v->rflags & HSK_FLAG_IF))
        return false;
    if (v->s.interrupt_pending) {
        v->s.interrupt_pending = 0;
        deliver_external(v, v->s.interrupt_vector);
        return true;
    }
    if (!(pending & HSK_LAPIC_INTR))
        return false;
    soft_fpu_park(v);
    vector = hsk_lapic_ack(v->base.lapic);
    if (vector < 0)
        return false;
    deliver_external(v, (unsigned)vector);
    return true;
}

/* --- INT n, INT3, INTO, INT1 --- */

enum soft_next soft_x_int(struct soft_vcpu *v, const struct soft_insn *in)
{
    struct soft_exception e = {.soft = 1};
    const bool int_n = in->mnemonic == ZYDIS_MNEMONIC_INT;

    switch (in->mnemonic) {
    case ZYDIS_MNEMONIC_INT3:
        e.vector = VEC_BP;
        break;
    case ZYDIS_MNEMONIC_INTO:
        if (!(v->rflags & HSK_FLAG_OF))
            return soft_done(v, in);
        e.vector = VEC_OF;
        break;
    case ZYDIS_MNEMONIC_INT1: /* a #DB trap that no gate DPL can refuse */
        e.vector = VEC_DB;
        e.soft = 0;
        v->s.dr[7] &= ~HSK_DR7_GD;
        /* what a MOV SS before it has hit comes with this one, and not once more in the handler */
        v->s.dr[6] = (v->s.dr[6] & ~HSK_DR6_TRAPS) | v->debug_hits;
        v->debug_hits = 0;
        break;
    default:
        e.vector = (uint32_t)in->imm[0] & 0xff;
        break;
    }
    /* A fault of the delivery (gate missing, its DPL) is a fault of this instruction: rip is not
     * advanced before. */
    v->delivering = DELIVERING_BENIGN;
    if (int_n && (v->rflags & HSK_FLAG_VM) &&
        soft_v86_redirect(v, e.vector, soft_next_rip(v, in))) {
        arrived(v);
    } else {
        if (int_n && (v->rflags & HSK_FLAG_VM) && soft_iopl(v) < 3)
            soft_fault(v, VEC_GP, 0);
        deliver(v, &e, false, soft_next_rip(v, in));
    }
    v->no_step = 1;
    return SOFT_NEXT_JUMP;
}
