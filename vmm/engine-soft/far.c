/* SPDX-License-Identifier: MIT */
/*
 * Far JMP, CALL and RET in protected and long mode (SDM vol. 2): between code segments, through
 * call gates of 16, 32 and 64 bits (also to inner rings, with parameters copied from stack to
 * stack), and to tasks by TSS selector or task gate (task.c). Real and virtual-8086 mode: real.c.
 * Thread: the vCPU's, with the guest's FPU registers live.
 */
#include <Zydis/Zydis.h>

#include "system.h"

enum {
    TYPE_TSS16 = 1,
    TYPE_CALL_GATE16 = 4,
    TYPE_TASK_GATE = 5,
    TYPE_TSS32 = 9,
    TYPE_CALL_GATE = 12
};

struct branch {
    bool call;
    uint16_t sel; /* of the code segment to go to */
    uint64_t target;
    unsigned size; /* of what a CALL pushes */
    uint64_t return_rip;
    struct hsk_segment cs;
};

struct call_gate {
    uint16_t sel;
    uint64_t offset;
    unsigned size, params;
};

/* The last of a branch that stays in its ring. */
static enum soft_next same_ring(struct soft_vcpu *v, struct branch *b)
{
    struct soft_stack st;

    soft_stack_init(v, &st);
    st.wide |= b->size == 8; /* a 64-bit gate, perhaps from 32-bit code */
    if (b->call)
        soft_stack_room(v, &st, b->size, 2);
    soft_check_target(v, &b->cs, b->target, 0);
    if (b->call) {
        soft_push(v, &st, b->size, v->s.seg[HSK_CS].selector);
        soft_push(v, &st, b->size, b->return_rip);
        soft_stack_commit(v, &st);
    }
    b->cs.selector = (uint16_t)((b->sel & ~3u) | v->cpl);
    v->s.seg[HSK_CS] = b->cs;
    v->rip = b->target;
    soft_segments_changed(v);
    return SOFT_NEXT_JUMP;
}

/* Through a call gate to a code segment of the inner ring cpl: the stack is that of the TSS. */
static enum soft_next inner_ring(struct soft_vcpu *v, struct branch *b, unsigned params)
{
    const unsigned cpl = HSK_SEG_DPL(b->cs.attr);
    const uint64_t old_sp = v->gpr[HSK_RSP];
    struct soft_stack old, st;
    uint32_t param[31];

    soft_inner_stack(v, cpl, 0, &st);
    soft_stack_room(v, &st, b->size, 4 + params);
    soft_check_target(v, &b->cs, b->target, 0);
    soft_stack_init(v, &old);
    for (unsigned i = 0; i < params; i++)
        param[i] = (uint32_t)soft_pop(v, &old, b->size);
    soft_push(v, &st, b->size, v->s.seg[HSK_SS].selector);
    soft_push(v, &st, b->size, old_sp);
    for (unsigned i = params; i > 0; i--)
        soft_push(v, &st, b->size, param[i - 1]);
    soft_push(v, &st, b->size, v->s.seg[HSK_CS].selector);
    soft_push(v, &st, b->size, b->return_rip);
    soft_desc_accessed(v, b->sel, &b->cs);
    b->cs.selector = (uint16_t)((b->sel & ~3u) | cpl);
    v->s.seg[HSK_CS] = b->cs;
    v->s.seg[HSK_SS] = st.ss;
    soft_stack_commit(v, &st);
    v->rip = b->target;
    soft_segments_changed(v);
    return SOFT_NEXT_JUMP;
}

static void read_call_gate(struct soft_vcpu *v, uint16_t sel, uint64_t d, struct call_gate *g)
{
    uint64_t high;

    g->sel = (uint16_t)(d >> 16);
    g->offset = (d & 0xffff) | (d >> 32 & 0xffff0000);
    g->params = d >> 32 & 31;
    g->size = (d >> 40 & 0xf) == TYPE_CALL_GATE ? 4 : 2;
    if (g->size == 2)
        g->offset &= 0xffff;
    if (soft_lma(v)) {
        if (!soft_desc_high(v, sel, &high) || (high >> 40 & 0x1f))
            soft_fault(v, VEC_GP, sel & 0xfffc);
        g->offset |= high << 32;
        g->params = 0;
        g->size = 8;
    }
}

static enum soft_next through_gate(struct soft_vcpu *v, struct branch *b, uint64_t gate)
{
    struct call_gate g;
    uint64_t d;
    int error;
    bool inner;

    read_call_gate(v, b->sel, gate, &g);
    error = g.sel & 0xfffc;
    if (!soft_desc_read(v, g.sel, &d))
        soft_fault(v, VEC_GP, error);
    soft_desc_decode(d, g.sel, &b->cs);
    if (!soft_is_code(&b->cs) || HSK_SEG_DPL(b->cs.attr) > v->cpl)
        soft_fault(v, VEC_GP, error);
    inner = !soft_is_conforming(&b->cs) && HSK_SEG_DPL(b->cs.attr) < v->cpl;
    if (inner && !b->call)
        soft_fault(v, VEC_GP, error);
    if (soft_lma(v) && (b->cs.attr & (HSK_SEG_L | HSK_SEG_DB)) != HSK_SEG_L)
        soft_fault(v, VEC_GP, error);
    if (!(b->cs.attr & HSK_SEG_P))
        soft_fault(v, VEC_NP, error);
    b->sel = g.sel;
    b->target = g.offset;
    b->size = g.size;
    if (inner)
        return inner_ring(v, b, g.params);
    soft_desc_accessed(v, b->sel, &b->cs);
    return same_ring(v, b);
}

static enum soft_next to_task(struct soft_vcpu *v, const struct branch *b, uint16_t sel)
{
    soft_task_begin(v,
                    soft_task_switch(v, b->call ? SOFT_TASK_CALL : SOFT_TASK_JMP, sel, 0,
                                     b->return_rip, v->rflags),
                    0);
    return SOFT_NEXT_JUMP;
}

/* The selector is not one of a code or data segment. */
static enum soft_next system_branch(struct soft_vcpu *v, struct branch *b, uint64_t d)
{
    const unsigned type = b->cs.attr & HSK_SEG_TYPE;
    const int error = b->sel & 0xfffc;
    const bool lma = soft_lma(v);

    switch (type) {
    case TYPE_CALL_GATE:
        break;
    case TYPE_CALL_GATE16:
    case TYPE_TASK_GATE:
    case TYPE_TSS16:
    case TYPE_TSS32:
        if (!lma)
            break;
        G_GNUC_FALLTHROUGH;
    default:
        soft_fault(v, VEC_GP, error);
    }
    if (HSK_SEG_DPL(b->cs.attr) < MAX(v->cpl, b->sel & 3u))
        soft_fault(v, VEC_GP, error);
    if (type == TYPE_TSS16 || type == TYPE_TSS32)
        return to_task(v, b, b->sel);
    if (!(b->cs.attr & HSK_SEG_P))
        soft_fault(v, VEC_NP, error);
    return type == TYPE_TASK_GATE ? to_task(v, b, (uint16_t)(d >> 16)) : through_gate(v, b, d);
}

enum soft_next soft_x_far_branch(struct soft_vcpu *v, const struct soft_insn *in)
{
    struct branch b = {.call = in->mnemonic == ZYDIS_MNEMONIC_CALL,
                       .size = in->opsize,
                       .return_rip = soft_next_rip(v, in)};
    uint64_t d;
    int error;

    if (in->op[0].kind == SOFT_OP_MEM) {
        b.target = soft_ld(v, soft_mem(v, in, 0, b.size, false), b.size, v->mmu);
        b.sel = (uint16_t)soft_ld(v, soft_mem(v, in, b.size, 2, false), 2, v->mmu);
    } else {
        b.target = (uint64_t)in->imm[0] & soft_mask(b.size);
        b.sel = (uint16_t)in->imm[1];
    }
    if (!soft_protected(v))
        return soft_real_branch(v, in, b.call, b.sel, b.target);
    error = b.sel & 0xfffc;
    if (!soft_desc_read(v, b.sel, &d))
        soft_fault(v, VEC_GP, error);
    soft_desc_decode(d, b.sel, &b.cs);
    if (!(b.cs.attr & HSK_SEG_S))
        return system_branch(v, &b, d);
    if (!soft_is_code(&b.cs))
        soft_fault(v, VEC_GP, error);
    if (soft_lma(v) && (b.cs.attr & HSK_SEG_L) && (b.cs.attr & HSK_SEG_DB))
        soft_fault(v, VEC_GP, error);
    if (soft_is_conforming(&b.cs) ? HSK_SEG_DPL(b.cs.attr) > v->cpl
                                  : (b.sel & 3) > v->cpl || HSK_SEG_DPL(b.cs.attr) != v->cpl)
        soft_fault(v, VEC_GP, error);
    if (!(b.cs.attr & HSK_SEG_P))
        soft_fault(v, VEC_NP, error);
    soft_desc_accessed(v, b.sel, &b.cs);
    return same_ring(v, &b);
}

void soft_return_code(struct soft_vcpu *v, uint16_t sel, struct hsk_segment *cs)
{
    const int error = sel & 0xfffc;
    const unsigned cpl = sel & 3;
    uint64_t d;

    if (!soft_desc_read(v, sel, &d) || cpl < v->cpl)
        soft_fault(v, VEC_GP, error);
    soft_desc_decode(d, sel, cs);
    if (!soft_is_code(cs) ||
        (soft_is_conforming(cs) ? HSK_SEG_DPL(cs->attr) > cpl : HSK_SEG_DPL(cs->attr) != cpl))
        soft_fault(v, VEC_GP, error);
    if (soft_lma(v) && (cs->attr & HSK_SEG_L) && (cs->attr & HSK_SEG_DB))
        soft_fault(v, VEC_GP, error);
    if (!(cs->attr & HSK_SEG_P))
        soft_fault(v, VEC_NP, error);
}

void soft_return_stack(struct soft_vcpu *v, uint16_t sel, const struct hsk_segment *cs,
                       unsigned cpl, struct hsk_segment *ss)
{
    const bool to_64 = soft_lma(v) && (cs->attr & HSK_SEG_L);

    if (!(sel & 0xfffc) && to_64 && cpl != 3 && (sel & 3) == cpl)
        *ss = soft_null_ss(cpl);
    else
        soft_load_ss(v, sel, cpl, ss, VEC_GP, VEC_SS, 0);
}

enum soft_next soft_x_far_ret(struct soft_vcpu *v, const struct soft_insn *in)
{
    const unsigned size = in->opsize;
    const uint64_t extra =
        in->nops && in->op[0].kind == SOFT_OP_IMM ? (uint64_t)in->imm[0] & 0xffff : 0;
    struct hsk_segment cs, ss = {0};
    struct soft_stack st;
    uint64_t rip, rsp = 0;
    uint16_t sel;
    unsigned cpl;
    bool to_64;

    if (!soft_protected(v))
        return soft_real_ret(v, in, (unsigned)extra);
    soft_stack_init(v, &st);
    rip = soft_pop(v, &st, size);
    sel = soft_pop_selector(v, &st, size);
    cpl = sel & 3;
    soft_return_code(v, sel, &cs);
    to_64 = soft_lma(v) && (cs.attr & HSK_SEG_L);
    st.sp += extra;
    if (cpl > v->cpl) {
        rsp = soft_pop(v, &st, size);
        soft_return_stack(v, soft_pop_selector(v, &st, size), &cs, cpl, &ss);
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
    cs.selector = sel;
    v->s.seg[HSK_CS] = cs;
    v->rip = rip;
    soft_segments_changed(v);
    return SOFT_NEXT_JUMP;
}
