/* SPDX-License-Identifier: MIT */
/*
 * Instructions on RFLAGS as a whole: CLI STI PUSHF POPF STAC CLAC CLD STD CLC STC CMC (SDM vol. 2),
 * with the virtual interrupt flag of virtual-8086 mode (CR4.VME) and protected mode (CR4.PVI): vol.
 * 3, 21.3 and 21.4. Thread: the vCPU's, with the guest's FPU registers live.
 */
#include <Zydis/Zydis.h>

#include "system.h"

enum who { OWN_IF, VIRTUAL_IF, NO_IF };

/* Which interrupt flag do CLI and STI change here? */
static enum who interrupt_flag(const struct soft_vcpu *v)
{
    if (!(v->s.cr0 & HSK_CR0_PE))
        return OWN_IF;
    if (v->cpl <= soft_iopl(v))
        return OWN_IF;
    if (v->rflags & HSK_FLAG_VM)
        return v->s.cr4 & HSK_CR4_VME ? VIRTUAL_IF : NO_IF;
    return v->cpl == 3 && (v->s.cr4 & HSK_CR4_PVI) ? VIRTUAL_IF : NO_IF;
}

enum soft_next soft_x_cli(struct soft_vcpu *v, const struct soft_insn *in)
{
    const enum who who = interrupt_flag(v);

    if (who == NO_IF)
        soft_fault(v, VEC_GP, 0);
    v->rflags &= ~(who == OWN_IF ? HSK_FLAG_IF : HSK_FLAG_VIF);
    return soft_done(v, in);
}

enum soft_next soft_x_sti(struct soft_vcpu *v, const struct soft_insn *in)
{
    const enum who who = interrupt_flag(v);

    if (who == NO_IF || (who == VIRTUAL_IF && (v->rflags & HSK_FLAG_VIP)))
        soft_fault(v, VEC_GP, 0);
    if (who == VIRTUAL_IF) {
        v->rflags |= HSK_FLAG_VIF;
        return soft_done(v, in);
    }
    if (v->rflags & HSK_FLAG_IF)
        return soft_done(v, in);
    soft_set_rflags(v, v->rflags | HSK_FLAG_IF);
    v->s.interrupt_shadow = 1;
    return soft_done_jump(v, in);
}

enum soft_next soft_x_flag(struct soft_vcpu *v, const struct soft_insn *in)
{
    switch (in->mnemonic) {
    case ZYDIS_MNEMONIC_CLD:
        v->rflags &= ~HSK_FLAG_DF;
        break;
    case ZYDIS_MNEMONIC_STD:
        v->rflags |= HSK_FLAG_DF;
        break;
    case ZYDIS_MNEMONIC_CLC:
        v->rflags &= ~HSK_FLAG_CF;
        break;
    case ZYDIS_MNEMONIC_STC:
        v->rflags |= HSK_FLAG_CF;
        break;
    default:
        v->rflags ^= HSK_FLAG_CF;
        break;
    }
    return soft_done(v, in);
}

/* STAC, CLAC: offered with SMAP, which CR4 needs not have on. */
enum soft_next soft_x_ac(struct soft_vcpu *v, const struct soft_insn *in)
{
    if (v->cpl != 0)
        soft_fault(v, VEC_UD, -1);
    if (in->mnemonic == ZYDIS_MNEMONIC_STAC)
        v->rflags |= HSK_FLAG_AC;
    else
        v->rflags &= ~HSK_FLAG_AC;
    soft_segments_changed(v);
    return soft_done_jump(v, in);
}

/* Virtual-8086 mode with IOPL < 3, where PUSHF, POPF, INT n and IRET fault or, of 16 bits with VME,
 * work on VIF. */
bool soft_vme_flags(struct soft_vcpu *v, unsigned size)
{
    if (!(v->rflags & HSK_FLAG_VM) || soft_iopl(v) == 3)
        return false;
    if (size != 2 || !(v->s.cr4 & HSK_CR4_VME))
        soft_fault(v, VEC_GP, 0);
    return true;
}

uint64_t soft_vme_pushed(const struct soft_vcpu *v)
{
    return (v->rflags & ~HSK_FLAG_IF) | HSK_FLAG_IOPL |
           (v->rflags & HSK_FLAG_VIF ? HSK_FLAG_IF : 0);
}

uint64_t soft_vme_popped(struct soft_vcpu *v, uint64_t popped)
{
    const uint64_t mask = HSK_FLAG_ARITH | HSK_FLAG_DF | HSK_FLAG_NT | HSK_FLAG_VIF;

    if ((popped & HSK_FLAG_TF) || ((popped & HSK_FLAG_IF) && (v->rflags & HSK_FLAG_VIP)))
        soft_fault(v, VEC_GP, 0);
    popped = (popped & ~HSK_FLAG_VIF) | (popped & HSK_FLAG_IF ? HSK_FLAG_VIF : 0);
    return (v->rflags & ~(mask | HSK_FLAG_TF)) | (popped & mask);
}

enum soft_next soft_x_pushf(struct soft_vcpu *v, const struct soft_insn *in)
{
    const uint64_t flags = soft_vme_flags(v, in->opsize) ? soft_vme_pushed(v) : v->rflags;
    struct soft_stack st;

    soft_stack_init(v, &st);
    soft_push(v, &st, in->opsize, flags & ~(HSK_FLAG_RF | HSK_FLAG_VM));
    soft_stack_commit(v, &st);
    return soft_done(v, in);
}

enum soft_next soft_x_popf(struct soft_vcpu *v, const struct soft_insn *in)
{
    uint64_t mask = HSK_FLAG_ARITH | HSK_FLAG_TF | HSK_FLAG_DF | HSK_FLAG_NT;
    const uint64_t old = v->rflags;
    const bool vme = soft_vme_flags(v, in->opsize);
    struct soft_stack st;
    uint64_t flags;

    soft_stack_init(v, &st);
    flags = soft_pop(v, &st, in->opsize);
    if (in->opsize >= 4)
        mask |= HSK_FLAG_AC | HSK_FLAG_ID;
    if (v->cpl <= soft_iopl(v))
        mask |= HSK_FLAG_IF;
    if (v->cpl == 0)
        mask |= HSK_FLAG_IOPL;
    flags = vme ? soft_vme_popped(v, flags) : (old & ~mask) | (flags & mask);
    soft_stack_commit(v, &st);
    soft_set_rflags(v, flags & ~HSK_FLAG_RF);
    if (!((old ^ v->rflags) & (HSK_FLAG_IF | HSK_FLAG_TF | HSK_FLAG_AC | HSK_FLAG_IOPL)))
        return soft_done(v, in);
    soft_segments_changed(v);
    return soft_done_jump(v, in);
}
