/* SPDX-License-Identifier: MIT */
/*
 * soft_exec(): one guest instruction in C. The table of what this half knows, and the small
 * instructions: CPUID, time, HLT, hypercalls, bit strings, CMPXCHG16B. The larger families have
 * files of their own.
 *
 * What the model does not offer (MONITOR, SVM and VMX, PKU, XSAVES, RDPID ..) raises #UD, as on a
 * processor without it. Thread: the vCPU's, with the guest's FPU registers live.
 */
#include "system.h"

#include <Zydis/Zydis.h>
#include <x86intrin.h>

#define KVM_ENOSYS 1000
#define KVM_EPERM  1

uint64_t soft_rdtsc(struct soft_vcpu *v)
{
    const struct hsk_clock_tsc_params *p = hsk_clock_tsc_params(v->base.engine->cfg.clock);
    const uint64_t delta = __rdtsc() - p->host_base;
    const uint64_t scaled = (uint64_t)((unsigned __int128)delta * p->mult >> 32);

    return p->guest_base + scaled + v->s.tsc_adjust;
}

static enum soft_next x_undefined(struct soft_vcpu *v, const struct soft_insn *in)
{
    soft_fault(v, VEC_UD, -1);
}

static enum soft_next x_nop(struct soft_vcpu *v, const struct soft_insn *in)
{
    return soft_done(v, in);
}

/* Where the translator's own count of them runs over. */
static enum soft_next x_pause(struct soft_vcpu *v, const struct soft_insn *in)
{
    soft_smp_pause(v);
    return soft_done(v, in);
}

/* INVD, WBINVD: the caches are the host's, coherent and none of the guest's business. */
static enum soft_next x_cache(struct soft_vcpu *v, const struct soft_insn *in)
{
    soft_need_cpl0(v);
    return soft_done(v, in);
}

/* --- small ones --- */

static enum soft_next x_cpuid(struct soft_vcpu *v, const struct soft_insn *in)
{
    uint32_t out[4];

    soft_fpu_park(v);
    hsk_cpuid_query(v->base.engine->cfg.cpuid, v->base.index, v->s.cr4, v->s.xcr0,
                    (uint32_t)v->gpr[HSK_RAX], (uint32_t)v->gpr[HSK_RCX], out);
    if ((uint32_t)v->gpr[HSK_RAX] == 1 && v->base.lapic &&
        !(hsk_lapic_get_base(v->base.lapic) & HSK_APIC_BASE_ENABLE))
        out[3] &= ~(1u << 9); /* the APIC is not there while it is disabled */
    v->gpr[HSK_RAX] = out[0];
    v->gpr[HSK_RBX] = out[1];
    v->gpr[HSK_RCX] = out[2];
    v->gpr[HSK_RDX] = out[3];
    return soft_done(v, in);
}

static enum soft_next x_rdtsc(struct soft_vcpu *v, const struct soft_insn *in)
{
    uint64_t tsc;

    if ((v->s.cr4 & HSK_CR4_TSD) && v->cpl != 0)
        soft_fault(v, VEC_GP, 0);
    tsc = soft_rdtsc(v);
    v->gpr[HSK_RAX] = tsc & 0xffffffff;
    v->gpr[HSK_RDX] = tsc >> 32;
    if (in->mnemonic == ZYDIS_MNEMONIC_RDTSCP)
        v->gpr[HSK_RCX] = v->s.tsc_aux & 0xffffffff;
    return soft_done(v, in);
}

/* There are no performance counters. */
static enum soft_next x_rdpmc(struct soft_vcpu *v, const struct soft_insn *in)
{
    soft_fault(v, VEC_GP, 0);
}

static enum soft_next x_hlt(struct soft_vcpu *v, const struct soft_insn *in)
{
    soft_need_cpl0(v);
    v->rip = soft_next_rip(v, in);
    v->halted = 1;
    v->s.activity = HSK_ACT_HALTED;
    v->exit = HSK_EXIT_HALT;
    return SOFT_NEXT_EXIT;
}

/* No hypercall of KVM's is offered; the answer is that of KVM. */
static enum soft_next x_hypercall(struct soft_vcpu *v, const struct soft_insn *in)
{
    soft_reg_set(v, HSK_RAX, v->code_size == 8 ? 8 : 4,
                 (uint64_t)(v->cpl ? -KVM_EPERM : -KVM_ENOSYS));
    return soft_done(v, in);
}

/* --- read-modify-write on memory that the translator does not pass through --- */

/* BT BTS BTR BTC m, r: the bit offset is signed and may lie far outside of the operand. */
enum soft_next soft_x_bit(struct soft_vcpu *v, const struct soft_insn *in)
{
    const unsigned size = in->opsize;
    const bool far = in->op[1].kind == SOFT_OP_REG;
    int64_t bit =
        far ? (int64_t)(soft_reg_get(v, in->op[1].reg, size) << (64 - 8 * size)) >> (64 - 8 * size)
            : in->imm[0];
    const bool write = in->mnemonic != ZYDIS_MNEMONIC_BT;
    uint64_t va, old, mask;
    uint8_t *host;

    if (in->op[0].kind != SOFT_OP_MEM)
        soft_unimplemented(v, "a bit test of a register that was not translated");
    va = soft_mem(v, in,
                  far ? (uint64_t)(bit >> (size == 8   ? 6
                                           : size == 4 ? 5
                                                       : 4)) *
                            size
                      : 0,
                  size, write);
    bit &= 8 * size - 1;
    /* One byte of the operand holds the bit, but all of it must be accessible. */
    soft_probe(v, va, size, write, v->mmu);
    va += (uint64_t)bit >> 3;
    mask = 1ull << (bit & 7);
    host = soft_ptr(v, va, 1, write, v->mmu);
    if (!write) {
        old = host ? *host : soft_ld(v, va, 1, v->mmu);
    } else if (!host) {
        if (in->lock)
            soft_smp_stop_others(v);
        old = soft_ld(v, va, 1, v->mmu);
        soft_st(v, va, 1,
                in->mnemonic == ZYDIS_MNEMONIC_BTS   ? old | mask
                : in->mnemonic == ZYDIS_MNEMONIC_BTR ? old & ~mask
                                                     : old ^ mask,
                v->mmu);
        soft_smp_resume(v);
    } else if (in->mnemonic == ZYDIS_MNEMONIC_BTS) {
        old = __atomic_fetch_or(host, (uint8_t)mask, __ATOMIC_SEQ_CST);
    } else if (in->mnemonic == ZYDIS_MNEMONIC_BTR) {
        old = __atomic_fetch_and(host, (uint8_t)~mask, __ATOMIC_SEQ_CST);
    } else {
        old = __atomic_fetch_xor(host, (uint8_t)mask, __ATOMIC_SEQ_CST);
    }
    v->rflags = (v->rflags & ~HSK_FLAG_CF) | (old & mask ? HSK_FLAG_CF : 0);
    return soft_done(v, in);
}

/* Device memory: nobody else can see it half done. */
static enum soft_next cmpxchg16b_device(struct soft_vcpu *v, const struct soft_insn *in,
                                        uint64_t va)
{
    const uint64_t lo = soft_ld(v, va, 8, v->mmu), hi = soft_ld(v, va + 8, 8, v->mmu);
    const bool equal = lo == v->gpr[HSK_RAX] && hi == v->gpr[HSK_RDX];

    soft_st(v, va, 8, equal ? v->gpr[HSK_RBX] : lo, v->mmu);
    soft_st(v, va + 8, 8, equal ? v->gpr[HSK_RCX] : hi, v->mmu);
    v->gpr[HSK_RAX] = lo;
    v->gpr[HSK_RDX] = hi;
    v->rflags = (v->rflags & ~HSK_FLAG_ZF) | (equal ? HSK_FLAG_ZF : 0);
    return soft_done(v, in);
}

enum soft_next soft_x_cmpxchg16b(struct soft_vcpu *v, const struct soft_insn *in)
{
    const uint64_t va = soft_mem(v, in, 0, 16, true);
    uint64_t lo = v->gpr[HSK_RAX], hi = v->gpr[HSK_RDX];
    uint8_t equal;
    void *host;

    if (va & 15)
        soft_fault(v, VEC_GP, 0);
    host = soft_ptr(v, va, 16, true, v->mmu);
    if (!host)
        return cmpxchg16b_device(v, in, va);
    asm volatile("lock cmpxchg16b (%[p])"
                 : "=@ccz"(equal), "+a"(lo), "+d"(hi)
                 : "b"(v->gpr[HSK_RBX]), "c"(v->gpr[HSK_RCX]), [p] "r"(host)
                 : "memory");
    v->gpr[HSK_RAX] = lo;
    v->gpr[HSK_RDX] = hi;
    v->rflags = (v->rflags & ~HSK_FLAG_ZF) | (equal ? HSK_FLAG_ZF : 0);
    return soft_done(v, in);
}

/* --- dispatch --- */

static enum soft_next x_push(struct soft_vcpu *v, const struct soft_insn *in)
{
    if (in->op[0].kind != SOFT_OP_SEG)
        soft_unimplemented(v, "a PUSH that was not translated");
    return soft_x_push_seg(v, in);
}

static enum soft_next x_pop(struct soft_vcpu *v, const struct soft_insn *in)
{
    if (in->op[0].kind != SOFT_OP_SEG)
        soft_unimplemented(v, "a POP that was not translated");
    return soft_x_pop_seg(v, in);
}

static soft_exec_fn lookup_state(uint16_t mnemonic)
{
    switch (mnemonic) {
    case ZYDIS_MNEMONIC_RDMSR:
        return soft_x_rdmsr;
    case ZYDIS_MNEMONIC_WRMSR:
        return soft_x_wrmsr;
    case ZYDIS_MNEMONIC_INVLPG:
        return soft_x_invlpg;
    case ZYDIS_MNEMONIC_INVPCID:
        return soft_x_invpcid;
    case ZYDIS_MNEMONIC_XGETBV:
        return soft_x_xgetbv;
    case ZYDIS_MNEMONIC_XSETBV:
        return soft_x_xsetbv;
    case ZYDIS_MNEMONIC_CLTS:
    case ZYDIS_MNEMONIC_LMSW:
    case ZYDIS_MNEMONIC_SMSW:
        return soft_x_machine_word;
    case ZYDIS_MNEMONIC_FXSAVE:
    case ZYDIS_MNEMONIC_FXSAVE64:
    case ZYDIS_MNEMONIC_FXRSTOR:
    case ZYDIS_MNEMONIC_FXRSTOR64:
    case ZYDIS_MNEMONIC_XSAVE:
    case ZYDIS_MNEMONIC_XSAVE64:
    case ZYDIS_MNEMONIC_XSAVEOPT:
    case ZYDIS_MNEMONIC_XSAVEOPT64:
    case ZYDIS_MNEMONIC_XSAVEC:
    case ZYDIS_MNEMONIC_XSAVEC64:
    case ZYDIS_MNEMONIC_XRSTOR:
    case ZYDIS_MNEMONIC_XRSTOR64:
    case ZYDIS_MNEMONIC_LDMXCSR:
    case ZYDIS_MNEMONIC_STMXCSR:
    case ZYDIS_MNEMONIC_VLDMXCSR:
    case ZYDIS_MNEMONIC_VSTMXCSR:
    case ZYDIS_MNEMONIC_FNSTENV:
    case ZYDIS_MNEMONIC_FLDENV:
    case ZYDIS_MNEMONIC_FNSAVE:
    case ZYDIS_MNEMONIC_FRSTOR:
        return soft_x_fpu;
    case ZYDIS_MNEMONIC_IN:
    case ZYDIS_MNEMONIC_OUT:
        return soft_x_io;
    case ZYDIS_MNEMONIC_INSB:
    case ZYDIS_MNEMONIC_INSW:
    case ZYDIS_MNEMONIC_INSD:
    case ZYDIS_MNEMONIC_OUTSB:
    case ZYDIS_MNEMONIC_OUTSW:
    case ZYDIS_MNEMONIC_OUTSD:
        return soft_x_io_string;
    default:
        return NULL;
    }
}

static soft_exec_fn lookup_flow(uint16_t mnemonic)
{
    switch (mnemonic) {
    case ZYDIS_MNEMONIC_SYSCALL:
        return soft_x_syscall;
    case ZYDIS_MNEMONIC_SYSRET:
        return soft_x_sysret;
    case ZYDIS_MNEMONIC_SYSENTER:
        return soft_x_sysenter;
    case ZYDIS_MNEMONIC_SYSEXIT:
        return soft_x_sysexit;
    case ZYDIS_MNEMONIC_SWAPGS:
        return soft_x_swapgs;
    case ZYDIS_MNEMONIC_RDFSBASE:
    case ZYDIS_MNEMONIC_RDGSBASE:
    case ZYDIS_MNEMONIC_WRFSBASE:
    case ZYDIS_MNEMONIC_WRGSBASE:
        return soft_x_fsgsbase;
    case ZYDIS_MNEMONIC_INT:
    case ZYDIS_MNEMONIC_INT1:
    case ZYDIS_MNEMONIC_INT3:
    case ZYDIS_MNEMONIC_INTO:
        return soft_x_int;
    case ZYDIS_MNEMONIC_IRET:
    case ZYDIS_MNEMONIC_IRETD:
    case ZYDIS_MNEMONIC_IRETQ:
        return soft_x_iret;
    case ZYDIS_MNEMONIC_JMP:
    case ZYDIS_MNEMONIC_CALL:
        return soft_x_far_branch;
    case ZYDIS_MNEMONIC_RET:
        return soft_x_far_ret;
    case ZYDIS_MNEMONIC_MOV:
        return soft_x_mov;
    case ZYDIS_MNEMONIC_PUSH:
        return x_push;
    case ZYDIS_MNEMONIC_POP:
        return x_pop;
    case ZYDIS_MNEMONIC_LDS:
    case ZYDIS_MNEMONIC_LES:
    case ZYDIS_MNEMONIC_LFS:
    case ZYDIS_MNEMONIC_LGS:
    case ZYDIS_MNEMONIC_LSS:
        return soft_x_load_far;
    case ZYDIS_MNEMONIC_LGDT:
    case ZYDIS_MNEMONIC_LIDT:
    case ZYDIS_MNEMONIC_SGDT:
    case ZYDIS_MNEMONIC_SIDT:
    case ZYDIS_MNEMONIC_LLDT:
    case ZYDIS_MNEMONIC_LTR:
    case ZYDIS_MNEMONIC_SLDT:
    case ZYDIS_MNEMONIC_STR:
        return soft_x_dtable;
    case ZYDIS_MNEMONIC_LAR:
    case ZYDIS_MNEMONIC_LSL:
    case ZYDIS_MNEMONIC_VERR:
    case ZYDIS_MNEMONIC_VERW:
        return soft_x_seg_query;
    default:
        return NULL;
    }
}

static soft_exec_fn lookup_small(uint16_t mnemonic)
{
    switch (mnemonic) {
    case ZYDIS_MNEMONIC_CLI:
        return soft_x_cli;
    case ZYDIS_MNEMONIC_STI:
        return soft_x_sti;
    case ZYDIS_MNEMONIC_CLD:
    case ZYDIS_MNEMONIC_STD:
    case ZYDIS_MNEMONIC_CLC:
    case ZYDIS_MNEMONIC_STC:
    case ZYDIS_MNEMONIC_CMC:
        return soft_x_flag;
    case ZYDIS_MNEMONIC_STAC:
    case ZYDIS_MNEMONIC_CLAC:
        return soft_x_ac;
    case ZYDIS_MNEMONIC_PUSHF:
    case ZYDIS_MNEMONIC_PUSHFD:
    case ZYDIS_MNEMONIC_PUSHFQ:
        return soft_x_pushf;
    case ZYDIS_MNEMONIC_POPF:
    case ZYDIS_MNEMONIC_POPFD:
    case ZYDIS_MNEMONIC_POPFQ:
        return soft_x_popf;
    case ZYDIS_MNEMONIC_CPUID:
        return x_cpuid;
    case ZYDIS_MNEMONIC_RDTSC:
    case ZYDIS_MNEMONIC_RDTSCP:
        return x_rdtsc;
    case ZYDIS_MNEMONIC_RDPMC:
        return x_rdpmc;
    case ZYDIS_MNEMONIC_HLT:
        return x_hlt;
    case ZYDIS_MNEMONIC_INVD:
    case ZYDIS_MNEMONIC_WBINVD:
        return x_cache;
    case ZYDIS_MNEMONIC_NOP:
        return x_nop;
    case ZYDIS_MNEMONIC_PAUSE:
        return x_pause;
    case ZYDIS_MNEMONIC_VMCALL:
    case ZYDIS_MNEMONIC_VMMCALL:
        return x_hypercall;
    case ZYDIS_MNEMONIC_BT:
    case ZYDIS_MNEMONIC_BTS:
    case ZYDIS_MNEMONIC_BTR:
    case ZYDIS_MNEMONIC_BTC:
        return soft_x_bit;
    case ZYDIS_MNEMONIC_CMPXCHG16B:
        return soft_x_cmpxchg16b;
    default:
        return NULL;
    }
}

static soft_exec_fn lookup_rare(uint16_t mnemonic)
{
    switch (mnemonic) {
    case ZYDIS_MNEMONIC_AAA:
    case ZYDIS_MNEMONIC_AAS:
    case ZYDIS_MNEMONIC_DAA:
    case ZYDIS_MNEMONIC_DAS:
    case ZYDIS_MNEMONIC_AAM:
    case ZYDIS_MNEMONIC_AAD:
    case ZYDIS_MNEMONIC_SALC:
        return soft_x_bcd;
    case ZYDIS_MNEMONIC_PUSHA:
    case ZYDIS_MNEMONIC_PUSHAD:
        return soft_x_pusha;
    case ZYDIS_MNEMONIC_POPA:
    case ZYDIS_MNEMONIC_POPAD:
        return soft_x_popa;
    case ZYDIS_MNEMONIC_ENTER:
        return soft_x_enter;
    case ZYDIS_MNEMONIC_BOUND:
        return soft_x_bound;
    case ZYDIS_MNEMONIC_ARPL:
        return soft_x_arpl;
    case ZYDIS_MNEMONIC_XLAT:
        return soft_x_xlat;
    case ZYDIS_MNEMONIC_VGATHERDPS:
    case ZYDIS_MNEMONIC_VGATHERDPD:
    case ZYDIS_MNEMONIC_VGATHERQPS:
    case ZYDIS_MNEMONIC_VGATHERQPD:
    case ZYDIS_MNEMONIC_VPGATHERDD:
    case ZYDIS_MNEMONIC_VPGATHERDQ:
    case ZYDIS_MNEMONIC_VPGATHERQD:
    case ZYDIS_MNEMONIC_VPGATHERQQ:
        return soft_x_gather;
    case ZYDIS_MNEMONIC_VMASKMOVPS:
    case ZYDIS_MNEMONIC_VMASKMOVPD:
    case ZYDIS_MNEMONIC_VPMASKMOVD:
    case ZYDIS_MNEMONIC_VPMASKMOVQ:
        return soft_x_masked_move;
    case ZYDIS_MNEMONIC_MASKMOVQ:
    case ZYDIS_MNEMONIC_MASKMOVDQU:
    case ZYDIS_MNEMONIC_VMASKMOVDQU:
        return soft_x_masked_bytes;
    default:
        return NULL;
    }
}

static soft_exec_fn lookup_undefined(uint16_t mnemonic)
{
    switch (mnemonic) {
    case ZYDIS_MNEMONIC_UD0:
    case ZYDIS_MNEMONIC_UD1:
    case ZYDIS_MNEMONIC_UD2:
    case ZYDIS_MNEMONIC_MONITOR:
    case ZYDIS_MNEMONIC_MWAIT:
    case ZYDIS_MNEMONIC_MONITORX:
    case ZYDIS_MNEMONIC_MWAITX:
    case ZYDIS_MNEMONIC_UMONITOR:
    case ZYDIS_MNEMONIC_UMWAIT:
    case ZYDIS_MNEMONIC_TPAUSE:
    case ZYDIS_MNEMONIC_RDPKRU:
    case ZYDIS_MNEMONIC_WRPKRU:
    case ZYDIS_MNEMONIC_RDPID:
    case ZYDIS_MNEMONIC_RDPRU:
    case ZYDIS_MNEMONIC_XSAVES:
    case ZYDIS_MNEMONIC_XSAVES64:
    case ZYDIS_MNEMONIC_XRSTORS:
    case ZYDIS_MNEMONIC_XRSTORS64:
    case ZYDIS_MNEMONIC_RSM:
    case ZYDIS_MNEMONIC_GETSEC:
    case ZYDIS_MNEMONIC_ENCLS:
    case ZYDIS_MNEMONIC_ENCLU:
    case ZYDIS_MNEMONIC_ENCLV:
    case ZYDIS_MNEMONIC_VMXON:
    case ZYDIS_MNEMONIC_VMXOFF:
    case ZYDIS_MNEMONIC_VMCLEAR:
    case ZYDIS_MNEMONIC_VMPTRLD:
    case ZYDIS_MNEMONIC_VMPTRST:
    case ZYDIS_MNEMONIC_VMREAD:
    case ZYDIS_MNEMONIC_VMWRITE:
    case ZYDIS_MNEMONIC_VMLAUNCH:
    case ZYDIS_MNEMONIC_VMRESUME:
    case ZYDIS_MNEMONIC_VMFUNC:
    case ZYDIS_MNEMONIC_INVEPT:
    case ZYDIS_MNEMONIC_INVVPID:
    case ZYDIS_MNEMONIC_VMRUN:
    case ZYDIS_MNEMONIC_VMLOAD:
    case ZYDIS_MNEMONIC_VMSAVE:
    case ZYDIS_MNEMONIC_STGI:
    case ZYDIS_MNEMONIC_CLGI:
    case ZYDIS_MNEMONIC_SKINIT:
    case ZYDIS_MNEMONIC_INVLPGA:
    case ZYDIS_MNEMONIC_INVLPGB:
    case ZYDIS_MNEMONIC_XBEGIN:
    case ZYDIS_MNEMONIC_XEND:
    case ZYDIS_MNEMONIC_XABORT:
    case ZYDIS_MNEMONIC_XTEST:
    case ZYDIS_MNEMONIC_SERIALIZE:
    case ZYDIS_MNEMONIC_PCONFIG:
    case ZYDIS_MNEMONIC_CLZERO:
    case ZYDIS_MNEMONIC_CLWB:
    case ZYDIS_MNEMONIC_CLFLUSHOPT:
    case ZYDIS_MNEMONIC_MOVDIRI:
    case ZYDIS_MNEMONIC_MOVDIR64B:
    case ZYDIS_MNEMONIC_PTWRITE:
    case ZYDIS_MNEMONIC_INCSSPD:
    case ZYDIS_MNEMONIC_INCSSPQ:
    case ZYDIS_MNEMONIC_SAVEPREVSSP:
    case ZYDIS_MNEMONIC_RSTORSSP:
    case ZYDIS_MNEMONIC_WRSSD:
    case ZYDIS_MNEMONIC_WRSSQ:
    case ZYDIS_MNEMONIC_WRUSSD:
    case ZYDIS_MNEMONIC_WRUSSQ:
    case ZYDIS_MNEMONIC_SETSSBSY:
    case ZYDIS_MNEMONIC_CLRSSBSY:
        return x_undefined;
    default:
        return NULL;
    }
}

static soft_exec_fn lookup(uint16_t mnemonic)
{
    soft_exec_fn fn = lookup_small(mnemonic);

    if (!fn)
        fn = lookup_flow(mnemonic);
    if (!fn)
        fn = lookup_state(mnemonic);
    if (!fn)
        fn = lookup_rare(mnemonic);
    return fn ? fn : lookup_undefined(mnemonic);
}

bool soft_exec_knows(uint16_t mnemonic)
{
    return lookup(mnemonic) != NULL;
}

enum soft_next soft_exec(struct soft_vcpu *v, const struct soft_insn *in)
{
    const soft_exec_fn fn = lookup(in->mnemonic);

    if (!fn)
        soft_unimplemented(v, "instruction %u", in->mnemonic);
    if (in->lock && fn != soft_x_bit && fn != soft_x_cmpxchg16b)
        soft_fault(v, VEC_UD, -1);
    /* The shadow of the instruction before covers this one alone. */
    v->s.interrupt_shadow = 0;
    return fn(v, in);
}
