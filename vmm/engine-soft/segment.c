/* SPDX-License-Identifier: MIT */
/*
 * Segment registers and descriptors: MOV/PUSH/POP Sreg, LDS.., LGDT.., LLDT, LTR,
 * LAR/LSL/VERR/VERW. SDM vol. 3: 3.4-3.5 (descriptors), 5.6-5.10 (checks); instruction pages of
 * vol. 2 for the order of checks. Thread: the vCPU's, with the guest's FPU registers live. Real and
 * virtual-8086 mode: real.c.
 */
#include <Zydis/Zydis.h>

#include "system.h"

/* --- descriptors --- */

static bool desc_address(struct soft_vcpu *v, uint16_t sel, unsigned bytes, uint64_t *va)
{
    uint64_t base = v->s.gdtr.base, limit = v->s.gdtr.limit;

    if (!(sel & 0xfffc))
        return false;
    if (sel & 4) {
        const struct hsk_segment *ldt = &v->s.seg[HSK_LDTR];

        if (!(ldt->attr & HSK_SEG_P))
            return false;
        base = ldt->base;
        limit = ldt->limit;
    }
    if ((sel & 0xfff8ull) + bytes - 1 > limit)
        return false;
    *va = base + (sel & 0xfff8);
    if (!soft_lma(v))
        *va &= 0xffffffff;
    return true;
}

bool soft_desc_read(struct soft_vcpu *v, uint16_t sel, uint64_t *desc)
{
    uint64_t va;

    if (!desc_address(v, sel, 8, &va))
        return false;
    *desc = soft_ld(v, va, 8, soft_sys_mmu(v));
    return true;
}

bool soft_desc_high(struct soft_vcpu *v, uint16_t sel, uint64_t *high)
{
    uint64_t va;

    if (!desc_address(v, sel, 16, &va))
        return false;
    *high = soft_ld(v, va + 8, 8, soft_sys_mmu(v));
    return true;
}

void soft_desc_decode(uint64_t d, uint16_t sel, struct hsk_segment *out)
{
    uint32_t limit = (d & 0xffff) | (d >> 32 & 0xf0000);

    out->selector = sel;
    out->base = (d >> 16 & 0xffffff) | (d >> 32 & 0xff000000);
    out->attr = d >> 40 & HSK_SEG_ATTR_VALID;
    out->limit = out->attr & HSK_SEG_G ? limit << 12 | 0xfff : limit;
}

void soft_desc_accessed(struct soft_vcpu *v, uint16_t sel, struct hsk_segment *seg)
{
    uint64_t va;

    if ((seg->attr & 1) || !desc_address(v, sel, 8, &va))
        return;
    seg->attr |= 1;
    soft_st(v, va + 5, 1, seg->attr & 0xff, soft_sys_mmu(v));
}

/* --- loading segment registers --- */

void soft_load_ss(struct soft_vcpu *v, uint16_t sel, unsigned cpl, struct hsk_segment *out,
                  unsigned vec_bad, unsigned vec_absent, unsigned ext)
{
    const int error = (sel & 0xfffc) | (int)ext;
    uint64_t d;

    if (!(sel & 0xfffc))
        soft_fault(v, vec_bad, (int)ext);
    if (!soft_desc_read(v, sel, &d))
        soft_fault(v, vec_bad, error);
    soft_desc_decode(d, sel, out);
    if ((sel & 3u) != cpl || HSK_SEG_DPL(out->attr) != cpl || !soft_is_writable(out))
        soft_fault(v, vec_bad, error);
    if (!(out->attr & HSK_SEG_P))
        soft_fault(v, vec_absent, error);
    soft_desc_accessed(v, sel, out);
}

void soft_load_data(struct soft_vcpu *v, unsigned seg, uint16_t sel, unsigned vec_bad, unsigned ext)
{
    struct hsk_segment g = {.selector = sel};
    uint64_t d;

    if (sel & 0xfffc) {
        const int error = (sel & 0xfffc) | (int)ext;
        const unsigned rpl = sel & 3;

        if (!soft_desc_read(v, sel, &d))
            soft_fault(v, vec_bad, error);
        soft_desc_decode(d, sel, &g);
        if (!(g.attr & HSK_SEG_S) || (soft_is_code(&g) && !(g.attr & 2)))
            soft_fault(v, vec_bad, error);
        if (!soft_is_conforming(&g) && HSK_SEG_DPL(g.attr) < MAX(rpl, v->cpl))
            soft_fault(v, vec_bad, error);
        if (!(g.attr & HSK_SEG_P))
            soft_fault(v, VEC_NP, error);
        soft_desc_accessed(v, sel, &g);
    }
    v->s.seg[seg] = g; /* null: base 0, as on Intel processors */
}

static void load_ss(struct soft_vcpu *v, uint16_t sel)
{
    struct hsk_segment g;

    if (!(sel & 0xfffc) && v->code_size == 8 && v->cpl < 3 && (sel & 3) == v->cpl)
        g = soft_null_ss(v->cpl);
    else
        soft_load_ss(v, sel, v->cpl, &g, VEC_GP, VEC_SS, 0);
    v->s.seg[HSK_SS] = g;
}

static void load_segment(struct soft_vcpu *v, unsigned seg, uint16_t sel)
{
    if (!soft_protected(v))
        soft_real_load(v, seg, sel);
    else if (seg == HSK_SS)
        load_ss(v, sel);
    else
        soft_load_data(v, seg, sel, VEC_GP, 0);
    soft_segments_changed(v);
}

enum soft_next soft_x_mov(struct soft_vcpu *v, const struct soft_insn *in)
{
    const struct soft_operand *dst = &in->op[0], *src = &in->op[1];

    if (dst->kind == SOFT_OP_CR || src->kind == SOFT_OP_CR)
        return soft_x_mov_cr(v, in, dst->kind == SOFT_OP_CR);
    if (dst->kind == SOFT_OP_DR || src->kind == SOFT_OP_DR)
        return soft_x_mov_dr(v, in, dst->kind == SOFT_OP_DR);
    if (dst->kind == SOFT_OP_SEG) {
        if (dst->reg == HSK_CS || dst->reg > HSK_GS)
            soft_fault(v, VEC_UD, -1);
        load_segment(v, dst->reg, (uint16_t)soft_get(v, in, 1, 2));
        if (dst->reg == HSK_SS)
            v->s.interrupt_shadow = 2;
        return soft_done_jump(v, in);
    }
    if (src->kind == SOFT_OP_SEG) {
        /* to memory always 16 bits; to a register the operand size, zero extended */
        if (src->reg > HSK_GS)
            soft_fault(v, VEC_UD, -1);
        soft_put(v, in, 0, dst->kind == SOFT_OP_MEM ? 2 : in->opsize, v->s.seg[src->reg].selector);
        return soft_done(v, in);
    }
    soft_unimplemented(v, "an ordinary MOV that was not translated");
}

enum soft_next soft_x_push_seg(struct soft_vcpu *v, const struct soft_insn *in)
{
    struct soft_stack st;

    soft_stack_init(v, &st);
    if (in->opsize == 4)
        st.sp -= 2; /* a 16-bit store: the upper half of the slot keeps its contents, as on all
                       recent processors */
    soft_push(v, &st, in->opsize == 4 ? 2 : in->opsize, v->s.seg[in->op[0].reg].selector);
    soft_stack_commit(v, &st);
    return soft_done(v, in);
}

enum soft_next soft_x_pop_seg(struct soft_vcpu *v, const struct soft_insn *in)
{
    struct soft_stack st;
    uint16_t sel;

    soft_stack_init(v, &st);
    sel = soft_pop_selector(v, &st, in->opsize);
    load_segment(v, in->op[0].reg, sel);
    soft_stack_commit(v, &st);
    if (in->op[0].reg == HSK_SS)
        v->s.interrupt_shadow = 2;
    return soft_done_jump(v, in);
}

/* LES LDS LSS LFS LGS: m16:16, m16:32, m16:64. */
enum soft_next soft_x_load_far(struct soft_vcpu *v, const struct soft_insn *in)
{
    const unsigned size = in->opsize;
    uint64_t offset;
    unsigned seg;
    uint16_t sel;

    switch (in->mnemonic) {
    case ZYDIS_MNEMONIC_LES:
        seg = HSK_ES;
        break;
    case ZYDIS_MNEMONIC_LDS:
        seg = HSK_DS;
        break;
    case ZYDIS_MNEMONIC_LSS:
        seg = HSK_SS;
        break;
    case ZYDIS_MNEMONIC_LFS:
        seg = HSK_FS;
        break;
    default:
        seg = HSK_GS;
        break;
    }
    if (in->op[1].kind != SOFT_OP_MEM)
        soft_fault(v, VEC_UD, -1);
    offset = soft_ld(v, soft_mem(v, in, 0, size, false), size, v->mmu);
    sel = (uint16_t)soft_ld(v, soft_mem(v, in, size, 2, false), 2, v->mmu);
    load_segment(v, seg, sel);
    soft_reg_set(v, in->op[0].reg, size, offset);
    return soft_done_jump(v, in);
}

void soft_drop_segments(struct soft_vcpu *v, unsigned cpl)
{
    static const uint8_t regs[] = {HSK_ES, HSK_DS, HSK_FS, HSK_GS};

    for (unsigned i = 0; i < sizeof(regs); i++) {
        struct hsk_segment *g = &v->s.seg[regs[i]];

        /* A null selector loses its RPL. 64-bit code goes on using the base of FS and GS. */
        if (!(g->selector & 0xfffc) ||
            ((g->attr & HSK_SEG_P) && !soft_is_conforming(g) && HSK_SEG_DPL(g->attr) < cpl))
            *g = (struct hsk_segment){.base = g->base};
    }
}

void soft_check_target(struct soft_vcpu *v, const struct hsk_segment *cs, uint64_t rip, int error)
{
    const bool wide = soft_lma(v) && (cs->attr & HSK_SEG_L);

    if (wide ? !hsk_canonical(rip) : rip > cs->limit)
        soft_fault(v, VEC_GP, error);
}

/* --- descriptor table registers --- */

static void load_dtable(struct soft_vcpu *v, const struct soft_insn *in, struct hsk_dtable *t)
{
    const unsigned size = v->code_size == 8 ? 8 : 4;
    uint64_t limit, base;

    soft_need_cpl0(v);
    limit = soft_ld(v, soft_mem(v, in, 0, 2, false), 2, v->mmu);
    base = soft_ld(v, soft_mem(v, in, 2, size, false), size, v->mmu);
    if (size == 8 && !hsk_canonical(base))
        soft_fault(v, VEC_GP, 0);
    if (size == 4 && in->opsize == 2)
        base &= 0xffffff;
    t->limit = limit;
    t->base = base;
}

static void store_dtable(struct soft_vcpu *v, const struct soft_insn *in,
                         const struct hsk_dtable *t)
{
    const unsigned size = v->code_size == 8 ? 8 : 4;

    soft_st(v, soft_mem(v, in, 0, 2, true), 2, t->limit, v->mmu);
    soft_st(v, soft_mem(v, in, 2, size, true), size, t->base & soft_mask(size), v->mmu);
}

/* LLDT, LTR: system descriptors are 16 bytes long in IA-32e mode. */
static void load_system_segment(struct soft_vcpu *v, const struct soft_insn *in, unsigned seg)
{
    struct hsk_segment g;
    uint64_t va, d, high = 0;
    unsigned type;
    uint16_t sel;
    int error;

    soft_need_cpl0(v);
    sel = (uint16_t)soft_get(v, in, 0, 2);
    error = sel & 0xfffc;
    if (!error && seg == HSK_LDTR) {
        v->s.seg[HSK_LDTR] = (struct hsk_segment){.selector = sel};
        return;
    }
    if ((sel & 4) || !desc_address(v, sel, soft_lma(v) ? 16 : 8, &va))
        soft_fault(v, VEC_GP, error);
    d = soft_ld(v, va, 8, soft_sys_mmu(v));
    if (soft_lma(v))
        high = soft_ld(v, va + 8, 8, soft_sys_mmu(v));
    soft_desc_decode(d, sel, &g);
    type = g.attr & 0x1f;
    if (seg == HSK_LDTR ? type != 2 : type != 9 && (type != 1 || soft_lma(v)))
        soft_fault(v, VEC_GP, error);
    if (high >> 32 & 0x1f00)
        soft_fault(v, VEC_GP, error);
    if (!(g.attr & HSK_SEG_P))
        soft_fault(v, VEC_NP, error);
    g.base |= high << 32;
    if (!hsk_canonical(g.base) && soft_lma(v))
        soft_fault(v, VEC_GP, error);
    if (seg == HSK_TR) {
        g.attr |= 2; /* busy, also in memory */
        soft_st(v, va + 5, 1, g.attr & 0xff, soft_sys_mmu(v));
    }
    v->s.seg[seg] = g;
}

enum soft_next soft_x_dtable(struct soft_vcpu *v, const struct soft_insn *in)
{
    switch (in->mnemonic) {
    case ZYDIS_MNEMONIC_LGDT:
        load_dtable(v, in, &v->s.gdtr);
        break;
    case ZYDIS_MNEMONIC_LIDT:
        load_dtable(v, in, &v->s.idtr);
        break;
    case ZYDIS_MNEMONIC_SGDT:
        store_dtable(v, in, &v->s.gdtr);
        break;
    case ZYDIS_MNEMONIC_SIDT:
        store_dtable(v, in, &v->s.idtr);
        break;
    default:
        if (!soft_protected(v))
            soft_fault(v, VEC_UD, -1);
        if (in->mnemonic == ZYDIS_MNEMONIC_LLDT || in->mnemonic == ZYDIS_MNEMONIC_LTR) {
            load_system_segment(v, in, in->mnemonic == ZYDIS_MNEMONIC_LTR ? HSK_TR : HSK_LDTR);
        } else {
            const uint16_t sel =
                v->s.seg[in->mnemonic == ZYDIS_MNEMONIC_STR ? HSK_TR : HSK_LDTR].selector;

            soft_put(v, in, 0, in->op[0].kind == SOFT_OP_MEM ? 2 : in->opsize, sel);
        }
        break;
    }
    return soft_done(v, in);
}

/* --- LAR LSL VERR VERW: only ZF and perhaps the destination change --- */

static bool query_visible(const struct soft_vcpu *v, uint16_t sel, const struct hsk_segment *g)
{
    return soft_is_conforming(g) || HSK_SEG_DPL(g->attr) >= MAX(sel & 3u, v->cpl);
}

static bool query_type(const struct soft_vcpu *v, uint16_t mnemonic, const struct hsk_segment *g)
{
    const unsigned type = g->attr & HSK_SEG_TYPE;

    if (mnemonic == ZYDIS_MNEMONIC_VERR)
        return (g->attr & HSK_SEG_S) && (!soft_is_code(g) || (type & 2));
    if (mnemonic == ZYDIS_MNEMONIC_VERW)
        return soft_is_writable(g);
    if (g->attr & HSK_SEG_S)
        return true;
    /* system segments: LDT and TSS for both; gates for LAR alone */
    if (type == 2 || type == 9 || type == 11)
        return true;
    if (!soft_lma(v) && (type == 1 || type == 3))
        return true;
    if (mnemonic != ZYDIS_MNEMONIC_LAR)
        return false;
    return type == 12 || (!soft_lma(v) && (type == 4 || type == 5));
}

enum soft_next soft_x_seg_query(struct soft_vcpu *v, const struct soft_insn *in)
{
    const bool has_dst = in->mnemonic == ZYDIS_MNEMONIC_LAR || in->mnemonic == ZYDIS_MNEMONIC_LSL;
    struct hsk_segment g = {0};
    uint64_t d;
    uint16_t sel;
    bool ok;

    if (!soft_protected(v))
        soft_fault(v, VEC_UD, -1);
    sel = (uint16_t)soft_get(v, in, has_dst ? 1 : 0, 2);
    ok = soft_desc_read(v, sel, &d);
    if (ok) {
        soft_desc_decode(d, sel, &g);
        ok = query_type(v, in->mnemonic, &g) && query_visible(v, sel, &g);
    }
    v->rflags = (v->rflags & ~HSK_FLAG_ZF) | (ok ? HSK_FLAG_ZF : 0);
    if (ok && in->mnemonic == ZYDIS_MNEMONIC_LAR)
        soft_reg_set(v, in->op[0].reg, in->opsize, d >> 32 & 0x00ffff00 & soft_mask(in->opsize));
    else if (ok && in->mnemonic == ZYDIS_MNEMONIC_LSL)
        soft_reg_set(v, in->op[0].reg, in->opsize, g.limit & soft_mask(in->opsize));
    return soft_done(v, in);
}

/* --- derived state --- */

void soft_segments_changed(struct soft_vcpu *v)
{
    const uint16_t cs = v->s.seg[HSK_CS].attr;

    if (soft_lma(v) && (cs & HSK_SEG_L))
        v->code_size = 8;
    else
        v->code_size = cs & HSK_SEG_DB ? 4 : 2;
    if (!(v->s.cr0 & HSK_CR0_PE))
        v->cpl = 0;
    else
        v->cpl = v->rflags & HSK_FLAG_VM ? 3 : HSK_SEG_DPL(v->s.seg[HSK_SS].attr);
    v->mmu = (uint8_t)soft_mmu_at(v, v->cpl);
    for (unsigned i = HSK_ES; i <= HSK_GS; i++)
        v->seg_base[i] = v->code_size == 8 && i < HSK_FS ? 0 : v->s.seg[i].base;
    v->seg_mode = v->code_size == 8 ? 0 : soft_segment_mode(v);
}
