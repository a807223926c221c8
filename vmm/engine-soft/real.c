/* SPDX-License-Identifier: MIT */
/*
 * What is different where a selector is a paragraph's number (real-address and virtual-8086 mode;
 * SDM vol. 3, 21): loading a segment register, far branches, interrupts through the vector table at
 * address 0 or IDTR, and IRET.
 *
 * In real mode a load changes base and selector alone: limit and attributes stay what protected
 * mode left ("unreal" mode), and limits hold. In virtual-8086 mode every segment is one of an 8086.
 * Interrupts of virtual-8086 mode leave it through the IDT (exception.c) but for those that VME
 * redirects. Thread: the vCPU's, with the guest's FPU registers live.
 */
#include "system.h"

void soft_real_load(struct soft_vcpu *v, unsigned seg, uint16_t sel)
{
    struct hsk_segment *g = &v->s.seg[seg];

    if (v->rflags & HSK_FLAG_VM)
        *g = (struct hsk_segment){.limit = 0xffff, .attr = HSK_SEG_P | HSK_SEG_S | 3 << 5 | 3};
    else if (!(g->attr & HSK_SEG_P)) /* was a null selector of protected mode */
        *g = (struct hsk_segment){.limit = 0xffff, .attr = HSK_SEG_P | HSK_SEG_S | 3};
    g->selector = sel;
    g->base = (uint64_t)sel << 4;
}

/* CS:IP, the last of a far branch. */
static enum soft_next go(struct soft_vcpu *v, uint16_t sel, uint64_t ip)
{
    soft_real_load(v, HSK_CS, sel);
    v->rip = ip;
    soft_segments_changed(v);
    return SOFT_NEXT_JUMP;
}

enum soft_next soft_real_branch(struct soft_vcpu *v, const struct soft_insn *in, bool call,
                                uint16_t sel, uint64_t ip)
{
    struct soft_stack st;

    soft_stack_init(v, &st);
    if (call) {
        soft_push(v, &st, in->opsize, v->s.seg[HSK_CS].selector);
        soft_push(v, &st, in->opsize, soft_next_rip(v, in));
    }
    soft_check_target(v, &v->s.seg[HSK_CS], ip, 0);
    soft_stack_commit(v, &st);
    return go(v, sel, ip);
}

enum soft_next soft_real_ret(struct soft_vcpu *v, const struct soft_insn *in, unsigned extra)
{
    struct soft_stack st;
    uint64_t ip;
    uint16_t sel;

    soft_stack_init(v, &st);
    ip = soft_pop(v, &st, in->opsize);
    sel = soft_pop_selector(v, &st, in->opsize);
    soft_check_target(v, &v->s.seg[HSK_CS], ip, 0);
    st.sp += extra;
    soft_stack_commit(v, &st);
    return go(v, sel, ip);
}

/* Pushes flags, CS and IP, 16 bits each, and goes where the entry of the vector table points. */
static void through_vector(struct soft_vcpu *v, uint64_t entry_va, unsigned mmu, uint64_t flags,
                           uint64_t return_ip)
{
    struct soft_stack st;
    uint64_t target;

    soft_stack_init(v, &st);
    soft_stack_room(v, &st, 2, 3);
    target = soft_ld(v, entry_va, 4, mmu);
    soft_check_target(v, &v->s.seg[HSK_CS], target & 0xffff, 0);
    soft_push(v, &st, 2, flags);
    soft_push(v, &st, 2, v->s.seg[HSK_CS].selector);
    soft_push(v, &st, 2, return_ip);
    soft_stack_commit(v, &st);
    go(v, (uint16_t)(target >> 16), target & 0xffff);
}

void soft_real_interrupt(struct soft_vcpu *v, unsigned vector, uint64_t return_ip)
{
    if (vector * 4 + 3 > v->s.idtr.limit)
        soft_fault(v, VEC_GP, 0);
    through_vector(v, (v->s.idtr.base + vector * 4) & 0xffffffff, SOFT_MMU_PHYS, v->rflags,
                   return_ip);
    v->rflags &= ~(HSK_FLAG_IF | HSK_FLAG_TF | HSK_FLAG_AC | HSK_FLAG_RF);
}

/*
 * INT n of virtual-8086 mode under VME: handled by the 8086 program itself unless the task's
 * redirection bitmap, the 32 bytes below its I/O permission bitmap, says otherwise. False: it is
 * not redirected.
 */
bool soft_v86_redirect(struct soft_vcpu *v, unsigned vector, uint64_t return_ip)
{
    const bool own_if = soft_iopl(v) == 3;
    uint64_t at;

    if (!(v->s.cr4 & HSK_CR4_VME))
        return false;
    at = soft_io_map(v) - 32 + vector / 8;
    if (at > v->s.seg[HSK_TR].limit)
        soft_fault(v, VEC_GP, 0);
    if (soft_ld(v, (v->s.seg[HSK_TR].base + at) & 0xffffffff, 1, soft_sys_mmu(v)) >> (vector & 7) &
        1)
        return false;
    through_vector(v, vector * 4, v->mmu, own_if ? v->rflags : soft_vme_pushed(v), return_ip);
    v->rflags &= ~(HSK_FLAG_TF | HSK_FLAG_RF | (own_if ? HSK_FLAG_IF : HSK_FLAG_VIF));
    return true;
}

/* Which flags a pop of 16 or 32 bits may change in real mode, and in virtual-8086 mode with IOPL
 * = 3. */
static uint64_t pop_flags(const struct soft_vcpu *v, uint64_t popped, unsigned size)
{
    uint64_t mask = HSK_FLAG_ARITH | HSK_FLAG_TF | HSK_FLAG_IF | HSK_FLAG_DF | HSK_FLAG_NT;

    if (size == 4)
        mask |= HSK_FLAG_RF | HSK_FLAG_AC | HSK_FLAG_ID;
    if (!(v->rflags & HSK_FLAG_VM))
        mask |= HSK_FLAG_IOPL;
    return (v->rflags & ~mask) | (popped & mask);
}

enum soft_next soft_real_iret(struct soft_vcpu *v, const struct soft_insn *in)
{
    const bool vme = soft_vme_flags(v, in->opsize);
    struct soft_stack st;
    uint64_t ip, flags;
    uint16_t sel;

    soft_stack_init(v, &st);
    ip = soft_pop(v, &st, in->opsize);
    sel = soft_pop_selector(v, &st, in->opsize);
    flags = soft_pop(v, &st, in->opsize);
    soft_check_target(v, &v->s.seg[HSK_CS], ip, 0);
    flags = vme ? soft_vme_popped(v, flags) : pop_flags(v, flags, in->opsize);
    soft_stack_commit(v, &st);
    soft_set_rflags(v, flags);
    return go(v, sel, ip);
}
