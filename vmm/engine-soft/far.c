/* SPDX-License-Identifier: MIT */
/*
 * Far JMP, CALL and RET between code segments (SDM vol. 2). Real and virtual-8086 mode: real.c. Missing: call gates, task
 * gates and TSS selectors (they stop the machine with a sentence).
 * Thread: the vCPU's, with the guest's FPU registers live.
 */
#include <Zydis/Zydis.h>

#include "system.h"

static void check_code(struct soft_vcpu *v, uint16_t sel, struct hsk_segment *cs)
{
    const int error = sel & 0xfffc;
    const unsigned rpl = sel & 3;
    uint64_t d;

    if (!error)
        soft_fault(v, VEC_GP, 0);
    if (!soft_desc_read(v, sel, &d))
        soft_fault(v, VEC_GP, error);
    soft_desc_decode(d, sel, cs);
    if (!(cs->attr & HSK_SEG_S))
        soft_unimplemented(v, "far branch through the gate or task at selector 0x%x", sel);
    if (!soft_is_code(cs))
        soft_fault(v, VEC_GP, error);
    if (soft_lma(v) && (cs->attr & HSK_SEG_L) && (cs->attr & HSK_SEG_DB))
        soft_fault(v, VEC_GP, error);
    if (soft_is_conforming(cs) ? HSK_SEG_DPL(cs->attr) > v->cpl : rpl > v->cpl || HSK_SEG_DPL(cs->attr) != v->cpl)
        soft_fault(v, VEC_GP, error);
    if (!(cs->attr & HSK_SEG_P))
        soft_fault(v, VEC_NP, error);
}

enum soft_next soft_x_far_branch(struct soft_vcpu *v, const struct soft_insn *in)
{
    const unsigned size = in->opsize;
    struct hsk_segment cs;
    struct soft_stack st;
    uint64_t target;
    uint16_t sel;

    if (in->op[0].kind == SOFT_OP_MEM) {
        target = soft_ld(v, soft_mem(v, in, 0, size, false), size, v->mmu);
        sel = (uint16_t)soft_ld(v, soft_mem(v, in, size, 2, false), 2, v->mmu);
    } else {
        target = (uint64_t)in->imm[0] & soft_mask(size);
        sel = (uint16_t)in->imm[1];
    }
    if (!soft_protected(v))
        return soft_real_branch(v, in, in->mnemonic == ZYDIS_MNEMONIC_CALL, sel, target);
    check_code(v, sel, &cs);
    soft_stack_init(v, &st);
    if (in->mnemonic == ZYDIS_MNEMONIC_CALL) {
        soft_push(v, &st, size, v->s.seg[HSK_CS].selector);
        soft_push(v, &st, size, soft_next_rip(v, in));
    }
    soft_check_target(v, &cs, target, 0);
    soft_desc_accessed(v, sel, &cs);
    if (in->mnemonic == ZYDIS_MNEMONIC_CALL)
        soft_stack_commit(v, &st);
    cs.selector = (uint16_t)((sel & ~3u) | v->cpl);
    v->s.seg[HSK_CS] = cs;
    v->rip = target;
    soft_segments_changed(v);
    return SOFT_NEXT_JUMP;
}

enum soft_next soft_x_far_ret(struct soft_vcpu *v, const struct soft_insn *in)
{
    const unsigned size = in->opsize;
    const uint64_t extra = in->nops && in->op[0].kind == SOFT_OP_IMM ? (uint64_t)in->imm[0] & 0xffff : 0;
    struct hsk_segment cs, ss = {0};
    struct soft_stack st;
    uint64_t rip, rsp = 0, d;
    uint16_t sel, ss_sel;
    unsigned cpl;
    bool to_64;
    int error;

    if (!soft_protected(v))
        return soft_real_ret(v, in, (unsigned)extra);
    soft_stack_init(v, &st);
    rip = soft_pop(v, &st, size);
    sel = (uint16_t)soft_pop(v, &st, size);
    error = sel & 0xfffc;
    cpl = sel & 3;
    if (!error)
        soft_fault(v, VEC_GP, 0);
    if (!soft_desc_read(v, sel, &d) || cpl < v->cpl)
        soft_fault(v, VEC_GP, error);
    soft_desc_decode(d, sel, &cs);
    if (!soft_is_code(&cs) || (soft_is_conforming(&cs) ? HSK_SEG_DPL(cs.attr) > cpl : HSK_SEG_DPL(cs.attr) != cpl))
        soft_fault(v, VEC_GP, error);
    to_64 = soft_lma(v) && (cs.attr & HSK_SEG_L);
    if (to_64 && (cs.attr & HSK_SEG_DB))
        soft_fault(v, VEC_GP, error);
    if (!(cs.attr & HSK_SEG_P))
        soft_fault(v, VEC_NP, error);
    st.sp += extra;
    if (cpl > v->cpl) {
        rsp = soft_pop(v, &st, size);
        ss_sel = (uint16_t)soft_pop(v, &st, size);
        if (!(ss_sel & 0xfffc) && to_64 && cpl != 3 && (ss_sel & 3) == cpl)
            ss = soft_null_ss(cpl);
        else
            soft_load_ss(v, ss_sel, cpl, &ss, VEC_GP, VEC_SS, 0);
    }
    soft_check_target(v, &cs, rip, 0);
    soft_desc_accessed(v, sel, &cs);
    if (cpl > v->cpl) {
        v->s.seg[HSK_SS] = ss;
        soft_reg_set(v, HSK_RSP, to_64 ? 8 : ss.attr & HSK_SEG_DB ? 4 : 2, rsp + extra);
        soft_drop_segments(v, cpl);
    } else {
        soft_stack_commit(v, &st);
    }
    v->s.seg[HSK_CS] = cs;
    v->rip = rip;
    soft_segments_changed(v);
    return SOFT_NEXT_JUMP;
}
