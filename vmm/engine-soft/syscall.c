/* SPDX-License-Identifier: MIT */
/*
 * Fast system calls and the segment bases they go with: SYSCALL, SYSRET, SYSENTER, SYSEXIT, SWAPGS,
 * RD/WRFSBASE, RD/WRGSBASE. SDM vol. 2; as on Intel processors: SYSCALL and SYSRET only in 64-bit
 * mode. Thread: the vCPU's, with the guest's FPU registers live.
 */
#include <Zydis/Zydis.h>

#include "system.h"

static struct hsk_segment flat(unsigned selector, unsigned attr, unsigned dpl)
{
    return (struct hsk_segment){
        .limit = 0xffffffff,
        .selector = (uint16_t)selector,
        .attr = (uint16_t)(attr | dpl << 5 | HSK_SEG_P | HSK_SEG_S | HSK_SEG_G),
    };
}

#define CODE64 (0xb | HSK_SEG_L)
#define CODE32 (0xb | HSK_SEG_DB)
#define DATA   (3 | HSK_SEG_DB)

enum soft_next soft_x_syscall(struct soft_vcpu *v, const struct soft_insn *in)
{
    const unsigned cs = v->s.star >> 32 & 0xfffc;

    if (v->code_size != 8 || !(v->s.efer & HSK_EFER_SCE))
        soft_fault(v, VEC_UD, -1);
    v->gpr[HSK_RCX] = soft_next_rip(v, in);
    v->gpr[HSK_R11] = v->rflags & ~HSK_FLAG_RF;
    v->rip = v->s.lstar;
    v->rflags = (v->rflags & ~(v->s.sfmask | HSK_FLAG_RF)) | HSK_FLAG_FIXED;
    v->no_step = !(v->rflags & HSK_FLAG_TF);
    v->s.seg[HSK_CS] = flat(cs, CODE64, 0);
    v->s.seg[HSK_SS] = flat(cs + 8, DATA, 0);
    soft_segments_changed(v);
    return SOFT_NEXT_JUMP;
}

enum soft_next soft_x_sysret(struct soft_vcpu *v, const struct soft_insn *in)
{
    const unsigned base = v->s.star >> 48;

    if (v->code_size != 8 || !(v->s.efer & HSK_EFER_SCE))
        soft_fault(v, VEC_UD, -1);
    soft_need_cpl0(v);
    if (in->opsize == 8) {
        if (!hsk_canonical(v->gpr[HSK_RCX]))
            soft_fault(v, VEC_GP, 0);
        v->s.seg[HSK_CS] = flat((base + 16) | 3, CODE64, 3);
        v->rip = v->gpr[HSK_RCX];
    } else {
        v->s.seg[HSK_CS] = flat(base | 3, CODE32, 3);
        v->rip = v->gpr[HSK_RCX] & 0xffffffff;
    }
    v->s.seg[HSK_SS] = flat((base + 8) | 3, DATA, 3);
    soft_set_rflags(v, v->gpr[HSK_R11] & 0x3c7fd7);
    v->step_now = !!(v->rflags & HSK_FLAG_TF);
    v->no_step = 1;
    soft_segments_changed(v);
    return SOFT_NEXT_JUMP;
}

enum soft_next soft_x_sysenter(struct soft_vcpu *v, const struct soft_insn *in)
{
    const unsigned cs = v->s.sysenter_cs & 0xfffc;
    const bool lma = soft_lma(v);

    if (!(v->s.cr0 & HSK_CR0_PE) || !cs)
        soft_fault(v, VEC_GP, 0);
    v->rflags &= ~(HSK_FLAG_VM | HSK_FLAG_IF | HSK_FLAG_RF);
    v->gpr[HSK_RSP] = v->s.sysenter_esp & (lma ? ~0ull : 0xffffffff);
    v->rip = v->s.sysenter_eip & (lma ? ~0ull : 0xffffffff);
    v->s.seg[HSK_CS] = flat(cs, lma ? CODE64 : CODE32, 0);
    v->s.seg[HSK_SS] = flat(cs + 8, DATA, 0);
    soft_segments_changed(v);
    return SOFT_NEXT_JUMP;
}

enum soft_next soft_x_sysexit(struct soft_vcpu *v, const struct soft_insn *in)
{
    const unsigned base = v->s.sysenter_cs & 0xfffc;
    const uint64_t rip = v->gpr[HSK_RDX], rsp = v->gpr[HSK_RCX];

    if (!(v->s.cr0 & HSK_CR0_PE) || !base || v->cpl != 0)
        soft_fault(v, VEC_GP, 0);
    if (in->opsize == 8) {
        if (!hsk_canonical(rip) || !hsk_canonical(rsp))
            soft_fault(v, VEC_GP, 0);
        v->s.seg[HSK_CS] = flat((base + 32) | 3, CODE64, 3);
        v->s.seg[HSK_SS] = flat((base + 40) | 3, DATA, 3);
        v->rip = rip;
        v->gpr[HSK_RSP] = rsp;
    } else {
        v->s.seg[HSK_CS] = flat((base + 16) | 3, CODE32, 3);
        v->s.seg[HSK_SS] = flat((base + 24) | 3, DATA, 3);
        v->rip = rip & 0xffffffff;
        v->gpr[HSK_RSP] = rsp & 0xffffffff;
    }
    soft_segments_changed(v);
    return SOFT_NEXT_JUMP;
}

enum soft_next soft_x_swapgs(struct soft_vcpu *v, const struct soft_insn *in)
{
    const uint64_t old = v->s.seg[HSK_GS].base;

    if (v->code_size != 8)
        soft_fault(v, VEC_UD, -1);
    soft_need_cpl0(v);
    v->s.seg[HSK_GS].base = v->seg_base[HSK_GS] = v->s.kernel_gs_base;
    v->s.kernel_gs_base = old;
    return soft_done(v, in);
}

enum soft_next soft_x_fsgsbase(struct soft_vcpu *v, const struct soft_insn *in)
{
    const bool write =
        in->mnemonic == ZYDIS_MNEMONIC_WRFSBASE || in->mnemonic == ZYDIS_MNEMONIC_WRGSBASE;
    const unsigned seg =
        in->mnemonic == ZYDIS_MNEMONIC_RDFSBASE || in->mnemonic == ZYDIS_MNEMONIC_WRFSBASE ? HSK_FS
                                                                                           : HSK_GS;
    const unsigned size = in->opsize == 8 ? 8 : 4;
    uint64_t base;

    if (v->code_size != 8 || !(v->s.cr4 & HSK_CR4_FSGSBASE))
        soft_fault(v, VEC_UD, -1);
    if (!write) {
        soft_reg_set(v, in->op[0].reg, size, v->s.seg[seg].base);
        return soft_done(v, in);
    }
    base = soft_reg_get(v, in->op[0].reg, size);
    if (!hsk_canonical(base))
        soft_fault(v, VEC_GP, 0);
    v->s.seg[seg].base = v->seg_base[seg] = base;
    return soft_done(v, in);
}
