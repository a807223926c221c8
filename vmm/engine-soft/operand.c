/* SPDX-License-Identifier: MIT */
/*
 * Operands of the instructions that run in C: registers, memory through segments, the stack.
 * SDM vol. 1, 3.7 (operand addressing), vol. 3, 5.3 (limit checking) and 5.5 (type checking).
 * Thread: the vCPU's, possibly with the guest's FPU registers live.
 */
#include "system.h"

/* --- registers --- */

uint64_t soft_reg_get(const struct soft_vcpu *v, unsigned reg, unsigned size)
{
    if (reg >= 16)
        return v->gpr[reg & 3] >> 8 & 0xff;
    return v->gpr[reg] & soft_mask(size);
}

void soft_reg_set(struct soft_vcpu *v, unsigned reg, unsigned size, uint64_t value)
{
    uint64_t *r = &v->gpr[reg >= 16 ? reg & 3 : reg];

    if (reg >= 16)
        *r = (*r & ~0xff00ull) | (value & 0xff) << 8;
    else if (size >= 4)
        *r = value & soft_mask(size);
    else
        *r = (*r & ~soft_mask(size)) | (value & soft_mask(size));
}

/* --- memory --- */

uint64_t soft_offset(const struct soft_vcpu *v, const struct soft_insn *in)
{
    uint64_t off = (uint64_t)in->disp;

    if (in->base == 16)
        off += soft_next_rip(v, in);
    else if (in->base >= 0)
        off += v->gpr[in->base];
    if (in->index >= 0 && in->index < SOFT_INDEX_XMM)
        off += v->gpr[in->index] * in->scale;
    return off & soft_mask(in->addrsize);
}

uint64_t soft_ea(struct soft_vcpu *v, const struct soft_insn *in)
{
    uint64_t va = v->seg_base[in->seg] + soft_offset(v, in);

    return v->code_size == 8 ? va : va & 0xffffffff;
}

static bool limit_ok(const struct hsk_segment *g, uint64_t off, unsigned len)
{
    const uint64_t last = off + len - 1;

    if ((g->attr & (HSK_SEG_S | 0xc)) == (HSK_SEG_S | 4)) /* expand-down data */
        return off > g->limit && last <= (g->attr & HSK_SEG_DB ? 0xffffffff : 0xffff);
    return last <= g->limit;
}

bool soft_seg_ok(const struct soft_vcpu *v, unsigned seg, uint64_t off, unsigned len, bool write,
                 uint64_t *va)
{
    const struct hsk_segment *g = &v->s.seg[seg];

    *va = v->seg_base[seg] + off;
    if (v->code_size == 8)
        return hsk_canonical(*va) && hsk_canonical(*va + len - 1);
    *va &= 0xffffffff;
    if (!(v->s.cr0 & HSK_CR0_PE))
        return limit_ok(g, off, len);
    if (!(g->attr & HSK_SEG_P) || !limit_ok(g, off, len))
        return false;
    return write ? soft_is_writable(g) : !soft_is_code(g) || (g->attr & 2);
}

/* SDM vol. 3, 6.15, #AC: the natural alignment of an operand, but x87's ten bytes want eight. Wider
   ones want none, as on processors of today, unless it is #GP. */
static inline bool misaligned(const struct soft_vcpu *v, uint64_t va, unsigned len)
{
    return soft_checks_alignment(v) && len <= 10 && (va & ((len == 10 ? 8 : len & -len) - 1));
}

static void check_access(struct soft_vcpu *v, uint64_t va, unsigned len, bool write)
{
    if (misaligned(v, va, len))
        soft_fault(v, VEC_AC, 0);
    if (v->debug & SOFT_DEBUG_DATA)
        soft_debug_access(v, va, len, write);
}

uint64_t soft_seg_va(struct soft_vcpu *v, unsigned seg, uint64_t off, unsigned len, bool write)
{
    uint64_t va;

    if (!soft_seg_ok(v, seg, off, len, write, &va)) {
        if (misaligned(v, va, len) &&
            soft_seg_ok(v, seg, off, 1, write,
                        &va)) /* comes before what lies behind the first byte */
            soft_fault(v, VEC_AC, 0);
        soft_fault(v, seg == HSK_SS ? VEC_SS : VEC_GP, 0);
    }
    check_access(v, va, len, write);
    return va;
}

uint64_t soft_mem(struct soft_vcpu *v, const struct soft_insn *in, uint64_t extra, unsigned len,
                  bool write)
{
    return soft_seg_va(v, in->seg, (soft_offset(v, in) + extra) & soft_mask(in->addrsize), len,
                       write);
}

uint64_t soft_get(struct soft_vcpu *v, const struct soft_insn *in, unsigned op, unsigned size)
{
    const struct soft_operand *o = &in->op[op];

    switch (o->kind) {
    case SOFT_OP_REG:
        return soft_reg_get(v, o->reg, size);
    case SOFT_OP_MEM:
        return soft_ld(v, soft_mem(v, in, 0, size, false), size, v->mmu);
    case SOFT_OP_IMM:
        return (uint64_t)in->imm[0] & soft_mask(size);
    default:
        soft_unimplemented(v, "operand kind %u in system instruction %u", o->kind, in->mnemonic);
    }
}

void soft_put(struct soft_vcpu *v, const struct soft_insn *in, unsigned op, unsigned size,
              uint64_t value)
{
    const struct soft_operand *o = &in->op[op];

    if (o->kind == SOFT_OP_REG)
        soft_reg_set(v, o->reg, size, value);
    else if (o->kind == SOFT_OP_MEM)
        soft_st(v, soft_mem(v, in, 0, size, true), size, value & soft_mask(size), v->mmu);
    else
        soft_unimplemented(v, "operand kind %u as destination of system instruction %u", o->kind,
                           in->mnemonic);
}

/* --- the stack --- */

void soft_stack_init(const struct soft_vcpu *v, struct soft_stack *st)
{
    st->ss = v->s.seg[HSK_SS];
    st->sp = v->gpr[HSK_RSP];
    st->mmu = v->mmu;
    st->wide = v->code_size == 8;
    st->fault_error = 0;
}

static uint64_t stack_va(struct soft_vcpu *v, const struct soft_stack *st, uint64_t sp,
                         unsigned size)
{
    if (st->wide) {
        if (!hsk_canonical(sp) || !hsk_canonical(sp + size - 1))
            soft_fault(v, VEC_SS, st->fault_error);
        return sp;
    }
    sp &= st->ss.attr & HSK_SEG_DB ? 0xffffffff : 0xffff;
    if (!limit_ok(&st->ss, sp, size))
        soft_fault(v, VEC_SS, st->fault_error);
    return (st->ss.base + sp) & 0xffffffff;
}

void soft_stack_room(struct soft_vcpu *v, const struct soft_stack *st, unsigned size,
                     unsigned count)
{
    for (unsigned i = 1; i <= count; i++)
        stack_va(v, st, st->sp - (uint64_t)i * size, size);
}

/* An instruction's own accesses; not those of an exception's delivery or of a switch to another
 * stack. */
static uint64_t checked_va(struct soft_vcpu *v, const struct soft_stack *st, uint64_t sp,
                           unsigned size, bool write)
{
    const bool own = !v->delivering && st->mmu == v->mmu;
    uint64_t va;

    if (own && soft_checks_alignment(v) && misaligned(v, stack_va(v, st, sp, 1), size))
        soft_fault(v, VEC_AC, 0);
    va = stack_va(v, st, sp, size);
    if (own && (v->debug & SOFT_DEBUG_DATA))
        soft_debug_access(v, va, size, write);
    return va;
}

void soft_push(struct soft_vcpu *v, struct soft_stack *st, unsigned size, uint64_t value)
{
    soft_st(v, checked_va(v, st, st->sp - size, size, true), size, value & soft_mask(size),
            st->mmu);
    st->sp -= size;
}

uint64_t soft_pop(struct soft_vcpu *v, struct soft_stack *st, unsigned size)
{
    uint64_t value = soft_ld(v, checked_va(v, st, st->sp, size, false), size, st->mmu);

    st->sp += size;
    return value;
}

uint16_t soft_pop_selector(struct soft_vcpu *v, struct soft_stack *st, unsigned size)
{
    const uint16_t sel = (uint16_t)soft_pop(v, st, 2);

    st->sp += size - 2u;
    return sel;
}

void soft_stack_probe(struct soft_vcpu *v, const struct soft_stack *st, unsigned size)
{
    const uint64_t va = stack_va(v, st, st->sp, size);

    if (misaligned(v, va, size))
        soft_fault(v, VEC_AC, 0);
    soft_probe(v, va, size, true, st->mmu);
}

void soft_stack_commit(struct soft_vcpu *v, const struct soft_stack *st)
{
    soft_reg_set(v, HSK_RSP, st->wide ? 8 : st->ss.attr & HSK_SEG_DB ? 4 : 2, st->sp);
}
