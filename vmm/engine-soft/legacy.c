/* SPDX-License-Identifier: MIT */
/*
 * Old instructions that compilers no longer make: BCD adjustment, PUSHA, POPA, ENTER, BOUND, ARPL,
 * XLAT, SALC (SDM vol. 2). Flags that the manual calls undefined keep their values. Thread: the
 * vCPU's, with the guest's FPU registers live.
 */
#include <Zydis/Zydis.h>

#include "system.h"

/* --- BCD --- */

static void set_flag(struct soft_vcpu *v, uint64_t flag, bool on)
{
    v->rflags = on ? v->rflags | flag : v->rflags & ~flag;
}

static void flags_of_al(struct soft_vcpu *v)
{
    const uint8_t al = (uint8_t)v->gpr[HSK_RAX];

    set_flag(v, HSK_FLAG_SF, al & 0x80);
    set_flag(v, HSK_FLAG_ZF, al == 0);
    set_flag(v, HSK_FLAG_PF, !__builtin_parity(al));
}

static void adjust_ascii(struct soft_vcpu *v, bool add)
{
    uint16_t ax = (uint16_t)v->gpr[HSK_RAX];
    const bool carry = (ax & 0xf) > 9 || (v->rflags & HSK_FLAG_AF);

    if (carry)
        ax = (uint16_t)(add ? ax + 0x106 : ax - 0x106);
    soft_reg_set(v, HSK_RAX, 2, ax & 0xff0f);
    set_flag(v, HSK_FLAG_AF | HSK_FLAG_CF, carry);
}

static void adjust_decimal(struct soft_vcpu *v, bool add)
{
    const uint8_t old = (uint8_t)v->gpr[HSK_RAX];
    const bool low = (old & 0xf) > 9 || (v->rflags & HSK_FLAG_AF);
    const bool high = old > 0x99 || (v->rflags & HSK_FLAG_CF);
    const uint8_t by = (uint8_t)((low ? 6 : 0) + (high ? 0x60 : 0));

    soft_reg_set(v, HSK_RAX, 1, (uint8_t)(add ? old + by : old - by));
    set_flag(v, HSK_FLAG_AF, low);
    /* subtracting 6 may borrow where adding 6 to such a value cannot carry */
    set_flag(v, HSK_FLAG_CF, high || (!add && low && old < 6));
    flags_of_al(v);
}

static void ascii_multiply_divide(struct soft_vcpu *v, const struct soft_insn *in)
{
    const uint8_t base = (uint8_t)in->imm[0];
    const uint8_t al = (uint8_t)v->gpr[HSK_RAX], ah = (uint8_t)(v->gpr[HSK_RAX] >> 8);

    if (in->mnemonic == ZYDIS_MNEMONIC_AAD) {
        /* the manual leaves CF, OF and AF open; Intel processors add bytes */
        const uint8_t by = (uint8_t)(ah * base);
        const unsigned sum = al + by;

        soft_reg_set(v, HSK_RAX, 2, (uint8_t)sum);
        set_flag(v, HSK_FLAG_CF, sum > 0xff);
        set_flag(v, HSK_FLAG_AF, (al ^ by ^ sum) & 0x10);
        set_flag(v, HSK_FLAG_OF, (al ^ sum) & (by ^ sum) & 0x80);
    } else {
        if (base == 0)
            soft_fault(v, VEC_DE, -1);
        soft_reg_set(v, HSK_RAX, 2, (unsigned)(al / base) << 8 | al % base);
        set_flag(v, HSK_FLAG_CF | HSK_FLAG_AF | HSK_FLAG_OF, false);
    }
    flags_of_al(v);
}

enum soft_next soft_x_bcd(struct soft_vcpu *v, const struct soft_insn *in)
{
    switch (in->mnemonic) {
    case ZYDIS_MNEMONIC_AAA:
        adjust_ascii(v, true);
        break;
    case ZYDIS_MNEMONIC_AAS:
        adjust_ascii(v, false);
        break;
    case ZYDIS_MNEMONIC_DAA:
        adjust_decimal(v, true);
        break;
    case ZYDIS_MNEMONIC_DAS:
        adjust_decimal(v, false);
        break;
    case ZYDIS_MNEMONIC_SALC:
        soft_reg_set(v, HSK_RAX, 1, v->rflags & HSK_FLAG_CF ? 0xff : 0);
        break;
    default:
        ascii_multiply_divide(v, in);
        break;
    }
    return soft_done(v, in);
}

/* --- stack --- */

enum soft_next soft_x_pusha(struct soft_vcpu *v, const struct soft_insn *in)
{
    const uint64_t sp = v->gpr[HSK_RSP];
    struct soft_stack st;

    soft_stack_init(v, &st);
    for (unsigned i = 0; i < 8; i++)
        soft_push(v, &st, in->opsize, i == HSK_RSP ? sp : v->gpr[i]);
    soft_stack_commit(v, &st);
    return soft_done(v, in);
}

enum soft_next soft_x_popa(struct soft_vcpu *v, const struct soft_insn *in)
{
    uint64_t values[8];
    struct soft_stack st;

    soft_stack_init(v, &st);
    for (int i = 7; i >= 0; i--)
        values[i] = soft_pop(v, &st, in->opsize);
    for (unsigned i = 0; i < 8; i++)
        if (i != HSK_RSP)
            soft_reg_set(v, i, in->opsize, values[i]);
    soft_stack_commit(v, &st);
    return soft_done(v, in);
}

enum soft_next soft_x_enter(struct soft_vcpu *v, const struct soft_insn *in)
{
    const unsigned size = in->opsize, level = (unsigned)in->imm[1] & 31;
    const bool sp16 = v->code_size != 8 && !(v->s.seg[HSK_SS].attr & HSK_SEG_DB);
    struct soft_stack st, frame;
    uint64_t frame_pointer;

    soft_stack_init(v, &st);
    soft_push(v, &st, size, v->gpr[HSK_RBP]);
    /* the bits above a 16-bit SP go along, if BP is 32 bits wide */
    frame_pointer = sp16 ? (v->gpr[HSK_RSP] & ~0xffffull) | (st.sp & 0xffff) : st.sp;
    frame = st;
    frame.sp = v->gpr[HSK_RBP];
    for (unsigned i = 1; i < level; i++) {
        frame.sp -= size;
        const uint64_t sp = frame.sp;

        soft_push(v, &st, size, soft_pop(v, &frame, size));
        frame.sp = sp;
    }
    if (level)
        soft_push(v, &st, size, frame_pointer);
    st.sp -= (uint64_t)in->imm[0] & 0xffff;
    soft_stack_probe(v, &st, size);
    soft_reg_set(v, HSK_RBP, size, frame_pointer);
    soft_stack_commit(v, &st);
    return soft_done(v, in);
}

/* --- the rest --- */

enum soft_next soft_x_bound(struct soft_vcpu *v, const struct soft_insn *in)
{
    const unsigned size = in->opsize, shift = 64 - 8 * size;
    const int64_t index = (int64_t)(soft_reg_get(v, in->op[0].reg, size) << shift) >> shift;
    int64_t low, high;

    low = (int64_t)(soft_ld(v, soft_mem(v, in, 0, size, false), size, v->mmu) << shift) >> shift;
    if (index < low)
        soft_fault(v, VEC_BR, -1);
    high =
        (int64_t)(soft_ld(v, soft_mem(v, in, size, size, false), size, v->mmu) << shift) >> shift;
    if (index > high)
        soft_fault(v, VEC_BR, -1);
    return soft_done(v, in);
}

enum soft_next soft_x_arpl(struct soft_vcpu *v, const struct soft_insn *in)
{
    uint64_t dst, src;

    if (!soft_protected(v))
        soft_fault(v, VEC_UD, -1);
    dst = soft_get(v, in, 0, 2);
    src = soft_get(v, in, 1, 2);
    if ((dst & 3) < (src & 3))
        soft_put(v, in, 0, 2, (dst & ~3ull) | (src & 3));
    set_flag(v, HSK_FLAG_ZF, (dst & 3) < (src & 3));
    return soft_done(v, in);
}

enum soft_next soft_x_xlat(struct soft_vcpu *v, const struct soft_insn *in)
{
    const uint64_t off = (v->gpr[HSK_RBX] + (v->gpr[HSK_RAX] & 0xff)) & soft_mask(in->addrsize);

    soft_reg_set(v, HSK_RAX, 1, soft_ld(v, soft_seg_va(v, in->seg, off, 1, false), 1, v->mmu));
    return soft_done(v, in);
}
