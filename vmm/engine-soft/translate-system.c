/* SPDX-License-Identifier: MIT */
/*
 * The few system instructions that kernels run all the time, inline: interrupt flag, SMAP's AC
 * flag, swapgs, rdtsc, pushf, reading a selector. Each only in the modes in which it cannot fault;
 * else, and for all others, the system half does it. The way back from IRETQ is here, too. vCPU
 * thread.
 */
#include <vmm/cpu_bits.h>

#include "translate.h"

/* Sets or clears a bit of the guest's RFLAGS in memory; the arithmetic flags stay. */
static void change_flag(struct tx *t, uint64_t flag, bool set)
{
    struct emit *e = &t->e;

    if (t->x->live)
        tx_flags_save(e);
    e8(e, 0x65);
    e8(e, 0x81);
    e_modrm_mem(e, set ? 1 : 4, -1, -1, 0, (int32_t)TX_OFF(rflags));
    e32(e, set ? (uint32_t)flag : ~(uint32_t)flag);
    if (t->x->live)
        tx_flags_restore(e);
}

/* The shadow of STI needs nothing here: what is pending by now is in irq_waiting and goes to C,
 * what comes is polled for later. */
static void sti(struct tx *t)
{
    struct emit *e = &t->e;
    uint8_t *waiting;

    e_ld_gs(e, H_C, TX_OFF(irq_waiting));
    waiting = e_jmp_unless_rcxz(e);
    change_flag(t, HSK_FLAG_IF, true);
    tx_cold_exec(t, waiting);
}

static void swapgs(struct emit *e)
{
    e_ld_gs(e, H_T, TX_OFF(s.kernel_gs_base));
    e_ld_gs(e, H_U, TX_OFF(seg_base) + 8 * HSK_GS);
    e_st_gs(e, H_U, TX_OFF(s.kernel_gs_base));
    e_st_gs(e, H_T, TX_OFF(seg_base) + 8 * HSK_GS);
    e_st_gs(e, H_T, TX_OFF(s.seg[HSK_GS].base));
}

static void rdtsc(struct tx *t)
{
    struct emit *e = &t->e;

    if (t->x->live)
        tx_flags_save(e);
    for (unsigned i = 0; i < t->x->in.length; i++)
        e8(e, t->x->raw[i]);
    if (t->x->in.mnemonic == ZYDIS_MNEMONIC_RDTSCP)
        e_op_gs(e, 0, 0x8b, H_GRCX, TX_OFF(s.tsc_aux));
    e_shift(e, 1, 4, H_RDX, 32);
    e_op_rr(e, 1, 0x09, H_RDX, H_RAX);
    e_op_gs(e, 1, 0x03, H_RAX, TX_OFF(tsc_offset));
    e_mov(e, H_RDX, H_RAX);
    e_shift(e, 1, 5, H_RDX, 32);
    e_mov32(e, H_RAX, H_RAX);
    if (t->x->live)
        tx_flags_restore(e);
}

/* mov r, sreg */
static void read_selector(struct tx *t)
{
    unsigned seg = t->x->op[1].reg.value - ZYDIS_REGISTER_ES;
    int g = soft_gpr(t->x->op[0].reg.value), h = tx_host(g), d = h < 0 ? H_T : h;
    struct emit *e = &t->e;

    e8(e, 0x65); /* movzx d32, word gs:[selector] */
    e_rex(e, 0, d, 0, 0);
    e8(e, 0x0f);
    e8(e, 0xb7);
    e_modrm_mem(e, d, -1, -1, 0,
                (int32_t)(TX_OFF(s.seg[0].selector) + seg * sizeof(struct hsk_segment)));
    if (h < 0)
        e_st_gs(e, d, TX_GPR(g));
}

static bool reads_selector(const struct soft_x *x)
{
    return x->op[0].type == ZYDIS_OPERAND_TYPE_REGISTER && x->op[0].size >= 32 &&
           soft_gpr(x->op[0].reg.value) >= 0 && x->op[1].type == ZYDIS_OPERAND_TYPE_REGISTER &&
           x->op[1].reg.value >= ZYDIS_REGISTER_ES && x->op[1].reg.value <= ZYDIS_REGISTER_GS;
}

/* With SMAP on, AC decides which TLB the following code looks into: another mode. */
static void stac_clac(struct tx *t)
{
    struct emit *e = &t->e;
    bool set = t->x->in.mnemonic == ZYDIS_MNEMONIC_STAC;
    uint32_t mode = t->mode;

    change_flag(t, HSK_FLAG_AC, set);
    if (mode & SOFT_MODE_SMAP) {
        unsigned mmu = set ? SOFT_MMU_KERNEL : SOFT_MMU_KERNEL_SMAP;

        e8(e, 0x65); /* mov byte gs:[mmu], imm8 */
        e8(e, 0xc6);
        e_modrm_mem(e, 0, -1, -1, 0, (int32_t)TX_OFF(mmu));
        e8(e, mmu);
        mode = (mode & ~(uint32_t)SOFT_MODE_MMU) | mmu;
    }
    tx_jmp_mode(t, t->x->next, mode);
}

/* A guest that spins for long gives the host's processor to others: the one that it waits for may
 * need it. */
void tx_pause(struct tx *t)
{
    struct emit *e = &t->e;

    t->c_window = -1;
    e8(e, 0xf3);
    e8(e, 0x90);
    e_ld_gs(e, H_C, TX_OFF(pauses));
    e_lea(e, 1, H_C, H_C, -1, 0, 1);
    e_st_gs(e, H_C, TX_OFF(pauses));
    e8(e, 0x0f); /* movzx ecx, ch: 256 of them */
    e8(e, 0xb6);
    e8(e, 0xcd);
    tx_cold_exec(t, e_jmp_unless_rcxz(e));
}

/* Most returns stay in the mode: an indirect jump. */
static void iretq(struct tx *t)
{
    tx_call_insn(t, (const void *)(uintptr_t)soft_call_iret);
    e_ld_gs(&t->e, H_C, TX_OFF(rip));
    tx_jmp_indirect(t);
}

bool tx_system(struct tx *t)
{
    bool cpl0 = t->mode & SOFT_MODE_CPL0, paging = (t->mode & SOFT_MODE_MMU) != SOFT_MMU_PHYS;

    if ((t->mode & SOFT_MODE_SINGLE) || (t->x->in.attributes & ZYDIS_ATTRIB_HAS_LOCK))
        return false;
    switch (t->x->in.mnemonic) {
    case ZYDIS_MNEMONIC_RDTSC:
    case ZYDIS_MNEMONIC_RDTSCP:
        if (t->mode & SOFT_MODE_TSC)
            rdtsc(t);
        return t->mode & SOFT_MODE_TSC;
    case ZYDIS_MNEMONIC_CLI:
        if (cpl0)
            change_flag(t, HSK_FLAG_IF, false);
        return cpl0;
    case ZYDIS_MNEMONIC_STI:
        if (cpl0)
            sti(t);
        return cpl0;
    default:
        break;
    }
    if (t->code32)
        return false;
    switch (t->x->in.mnemonic) {
    case ZYDIS_MNEMONIC_SWAPGS:
        if (cpl0)
            swapgs(&t->e);
        return cpl0;
    case ZYDIS_MNEMONIC_IRETQ:
        iretq(t);
        return true;
    case ZYDIS_MNEMONIC_STAC:
    case ZYDIS_MNEMONIC_CLAC:
        if (cpl0 && paging)
            stac_clac(t);
        return cpl0 && paging;
    case ZYDIS_MNEMONIC_PUSHFQ:
        if (t->c->bmi2)
            tx_pushf(t);
        return t->c->bmi2;
    case ZYDIS_MNEMONIC_MOV:
        if (reads_selector(t->x))
            read_selector(t);
        return reads_selector(t->x);
    default:
        return false;
    }
}
