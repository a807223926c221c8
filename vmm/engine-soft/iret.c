/* SPDX-License-Identifier: MIT */
/*
 * IRET, IRETD, IRETQ (SDM vol. 2): to the same and to outer rings, between 64-bit and compatibility
 * mode. Real mode and from virtual-8086 mode: real.c; to another task: task.c. Thread: the vCPU's,
 * with the guest's FPU registers live.
 */
#include "system.h"

static uint64_t merge_flags(const struct soft_vcpu *v, uint64_t popped, unsigned size)
{
    uint64_t mask = HSK_FLAG_ARITH | HSK_FLAG_TF | HSK_FLAG_DF | HSK_FLAG_NT;

    if (size >= 4)
        mask |= HSK_FLAG_RF | HSK_FLAG_AC | HSK_FLAG_ID;
    if (v->cpl <= soft_iopl(v))
        mask |= HSK_FLAG_IF;
    if (v->cpl == 0)
        mask |= HSK_FLAG_IOPL | (size >= 4 ? HSK_FLAG_VIF | HSK_FLAG_VIP : 0);
    return (v->rflags & ~mask) | (popped & mask);
}

/* NT: back to the task that the link field names. */
static enum soft_next to_task(struct soft_vcpu *v, const struct soft_insn *in)
{
    const uint16_t link =
        (uint16_t)soft_ld(v, soft_sys_va(v, v->s.seg[HSK_TR].base), 2, soft_sys_mmu(v));

    soft_task_begin(
        v, soft_task_switch(v, SOFT_TASK_IRET, link, 0, soft_next_rip(v, in), v->rflags), 0);
    return SOFT_NEXT_JUMP;
}

/* The rest of the frame is the stack and data segments of an 8086 program. */
static enum soft_next to_v86(struct soft_vcpu *v, struct soft_stack *st, uint64_t ip, uint16_t cs,
                             uint64_t flags)
{
    static const uint8_t order[] = {HSK_SS, HSK_ES, HSK_DS, HSK_FS, HSK_GS};
    uint16_t sel[sizeof(order)];
    const uint64_t sp = soft_pop(v, st, 4);

    for (unsigned i = 0; i < sizeof(order); i++)
        sel[i] = soft_pop_selector(v, st, 4);
    if (ip > 0xffff)
        soft_fault(v, VEC_GP, 0);
    soft_set_rflags(v, flags & HSK_FLAG_VALID);
    soft_real_load(v, HSK_CS, cs);
    for (unsigned i = 0; i < sizeof(order); i++)
        soft_real_load(v, order[i], sel[i]);
    v->gpr[HSK_RSP] = sp;
    v->rip = ip;
    soft_segments_changed(v);
    return SOFT_NEXT_JUMP;
}

enum soft_next soft_x_iret(struct soft_vcpu *v, const struct soft_insn *in)
{
    const unsigned size = in->opsize;
    struct hsk_segment cs, ss = {0};
    struct soft_stack st;
    uint64_t rip, flags, rsp = 0;
    uint16_t cs_sel;
    unsigned cpl;
    bool load_stack, to_64;

    if (v->s.nmi_masked) { /* also when it faults (SDM vol. 3, 6.7.1) */
        soft_fpu_park(v);
        v->s.nmi_masked = 0;
        if (v->base.lapic)
            hsk_lapic_nmi_unmasked(v->base.lapic);
    }
    if (!soft_protected(v))
        return soft_real_iret(v, in);
    if (v->rflags & HSK_FLAG_NT) {
        if (soft_lma(v))
            soft_fault(v, VEC_GP, 0);
        return to_task(v, in);
    }
    soft_stack_init(v, &st);
    rip = soft_pop(v, &st, size);
    cs_sel = soft_pop_selector(v, &st, size);
    flags = soft_pop(v, &st, size);
    if ((flags & HSK_FLAG_VM) && v->cpl == 0 && !soft_lma(v) && size == 4)
        return to_v86(v, &st, rip, cs_sel, flags);
    cpl = cs_sel & 3;
    soft_return_code(v, cs_sel, &cs);
    to_64 = soft_lma(v) && (cs.attr & HSK_SEG_L);
    load_stack = v->code_size == 8 || cpl > v->cpl;
    if (load_stack) {
        rsp = soft_pop(v, &st, size);
        soft_return_stack(v, soft_pop_selector(v, &st, size), &cs, cpl, &ss);
    }
    soft_check_target(v, &cs, rip, 0);
    soft_desc_accessed(v, cs_sel, &cs);

    flags = merge_flags(v, flags, size);
    if (load_stack) {
        v->s.seg[HSK_SS] = ss;
        /* To 64-bit code all of RSP is loaded, with its upper bits zero for a 32-bit pop; else what
         * SS.B makes visible. */
        soft_reg_set(v, HSK_RSP, to_64 ? 8 : ss.attr & HSK_SEG_DB ? 4 : 2, rsp);
    } else {
        soft_stack_commit(v, &st);
    }
    v->s.seg[HSK_CS] = cs;
    v->rip = rip;
    if (cpl > v->cpl)
        soft_drop_segments(v, cpl);
    soft_set_rflags(v, flags);
    soft_segments_changed(v);
    return SOFT_NEXT_JUMP;
}
