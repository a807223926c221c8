/* SPDX-License-Identifier: MIT */
/*
 * RDMSR and WRMSR (SDM vol. 4; KVM's paravirtual MSRs: kernel documentation, virt/kvm/x86/msr.rst).
 * An MSR that the model does not have raises #GP, as hardware does; guests probe for many. Thread:
 * the vCPU's, with the guest's FPU registers live.
 */
#include "system.h"

enum {
    MSR_P5_MC_ADDR = 0,
    MSR_P5_MC_TYPE = 1,
    MSR_TSC = 0x10,
    MSR_KVM_WALL_CLOCK_OLD = 0x11,
    MSR_KVM_SYSTEM_TIME_OLD = 0x12,
    MSR_PLATFORM_ID = 0x17,
    MSR_APIC_BASE = 0x1b,
    MSR_EBL_CR_POWERON = 0x2a,
    MSR_BBL_CR_CTL3 = 0x11e,
    MSR_PERF_STATUS = 0x198,
    MSR_LAST_BRANCH = 0x1db,
    MSR_FEATURE_CONTROL = 0x3a,
    MSR_TSC_ADJUST = 0x3b,
    MSR_SPEC_CTRL = 0x48,
    MSR_PRED_CMD = 0x49,
    MSR_UCODE_UPDATE = 0x79,
    MSR_UCODE_REV = 0x8b,
    MSR_MTRR_CAP = 0xfe,
    MSR_ARCH_CAPABILITIES = 0x10a,
    MSR_SYSENTER_CS = 0x174,
    MSR_SYSENTER_ESP = 0x175,
    MSR_SYSENTER_EIP = 0x176,
    MSR_MCG_CAP = 0x179,
    MSR_MCG_STATUS = 0x17a,
    MSR_MISC_ENABLE = 0x1a0,
    MSR_DEBUGCTL = 0x1d9,
    MSR_MTRR_VAR = 0x200,
    MSR_MTRR_FIX64K = 0x250,
    MSR_MTRR_FIX16K = 0x258,
    MSR_MTRR_FIX4K = 0x268,
    MSR_PAT = 0x277,
    MSR_MTRR_DEF = 0x2ff,
    MSR_TSC_DEADLINE = 0x6e0,
    MSR_X2APIC = 0x800,
    MSR_X2APIC_END = 0x8ff,
};
#define MSR_EFER            0xc0000080u
#define MSR_STAR            0xc0000081u
#define MSR_LSTAR           0xc0000082u
#define MSR_CSTAR           0xc0000083u
#define MSR_SFMASK          0xc0000084u
#define MSR_FS_BASE         0xc0000100u
#define MSR_GS_BASE         0xc0000101u
#define MSR_KERNEL_GS_BASE  0xc0000102u
#define MSR_TSC_AUX         0xc0000103u
#define MSR_KVM_WALL_CLOCK  0x4b564d00u
#define MSR_KVM_SYSTEM_TIME 0x4b564d01u

/* What old Windows asks of the second-level cache: there, enabled, 256 KiB. */
#define BBL_CR_CTL3 0xbe702111ull
/* Eight variable ranges, fixed ranges, write combining. */
#define MTRR_CAP       0x508ull
#define UCODE_REVISION (1ull << 32)

static bool lapic_msr(uint32_t msr)
{
    return msr == MSR_TSC_DEADLINE || (msr >= MSR_X2APIC && msr <= MSR_X2APIC_END);
}

/* The state field of a plain MSR, and which bits a guest may set; NULL: none. */
static uint64_t *plain_field(struct hsk_cpu_state *s, uint32_t msr, uint64_t *valid, bool *address)
{
    *valid = ~0ull;
    *address = false;
    if (msr >= MSR_MTRR_VAR && msr < MSR_MTRR_VAR + 16) {
        *valid = HSK_PHYS_MASK & (msr & 1 ? ~0x7ffull : ~0xf00ull);
        return &s->mtrr_var[msr - MSR_MTRR_VAR];
    }
    if (msr >= MSR_MTRR_FIX4K && msr < MSR_MTRR_FIX4K + 8)
        return &s->mtrr_fixed[3 + msr - MSR_MTRR_FIX4K];
    switch (msr) {
    case MSR_MTRR_FIX64K:
        return &s->mtrr_fixed[0];
    case MSR_MTRR_FIX16K:
        return &s->mtrr_fixed[1];
    case MSR_MTRR_FIX16K + 1:
        return &s->mtrr_fixed[2];
    case MSR_MTRR_DEF:
        *valid = 0xcff;
        return &s->mtrr_def_type;
    case MSR_STAR:
        return &s->star;
    case MSR_SFMASK:
        *valid = 0xffffffff;
        return &s->sfmask;
    case MSR_TSC_AUX:
        *valid = 0xffffffff;
        return &s->tsc_aux;
    case MSR_SPEC_CTRL:
        *valid = HSK_SPEC_CTRL_VALID;
        return &s->spec_ctrl;
    case MSR_MCG_STATUS:
        *valid = 7;
        return &s->mcg_status;
    case MSR_MISC_ENABLE:
        return &s->misc_enable;
    case MSR_SYSENTER_CS:
        return &s->sysenter_cs;
    default:
        break;
    }
    *address = true;
    switch (msr) {
    case MSR_LSTAR:
        return &s->lstar;
    case MSR_CSTAR:
        return &s->cstar;
    case MSR_KERNEL_GS_BASE:
        return &s->kernel_gs_base;
    case MSR_SYSENTER_ESP:
        return &s->sysenter_esp;
    case MSR_SYSENTER_EIP:
        return &s->sysenter_eip;
    case MSR_FS_BASE:
        return &s->seg[HSK_FS].base;
    case MSR_GS_BASE:
        return &s->seg[HSK_GS].base;
    default:
        return NULL;
    }
}

static bool memory_type(uint64_t type)
{
    return type == 0 || type == 1 || (type >= 4 && type <= 6);
}

/* MTRRs hold memory types, of which some numbers are reserved (SDM vol. 3, 12.11). */
static bool types_valid(uint32_t msr, uint64_t value)
{
    if (msr == MSR_MTRR_DEF || (msr >= MSR_MTRR_VAR && msr < MSR_MTRR_VAR + 16 && !(msr & 1)))
        return memory_type(value & 0xff);
    if (msr < MSR_MTRR_FIX64K || msr >= MSR_MTRR_FIX4K + 8)
        return true;
    for (unsigned i = 0; i < 8; i++)
        if (!memory_type(value >> (8 * i) & 0xff))
            return false;
    return true;
}

static bool read_lapic(struct soft_vcpu *v, uint32_t msr, uint64_t *value)
{
    if (!v->base.lapic)
        return false;
    soft_fpu_park(v);
    if (msr == MSR_APIC_BASE) {
        *value = hsk_lapic_get_base(v->base.lapic);
        return true;
    }
    return hsk_lapic_rdmsr(v->base.lapic, msr, value);
}

static bool read_msr(struct soft_vcpu *v, uint32_t msr, uint64_t *value)
{
    uint64_t valid;
    bool address;
    const uint64_t *field = plain_field(&v->s, msr, &valid, &address);

    if (field) {
        *value = *field;
        return true;
    }
    if (lapic_msr(msr) || msr == MSR_APIC_BASE)
        return read_lapic(v, msr, value);
    switch (msr) {
    case MSR_EFER:
        *value = v->s.efer;
        return true;
    case MSR_TSC:
        *value = soft_rdtsc(v);
        return true;
    case MSR_TSC_ADJUST:
        *value = v->s.tsc_adjust;
        return true;
    case MSR_PAT:
        *value = v->s.pat;
        return true;
    case MSR_FEATURE_CONTROL:
        *value = 1;
        return true; /* locked, nothing enabled */
    case MSR_UCODE_REV:
        *value = UCODE_REVISION;
        return true;
    case MSR_MTRR_CAP:
        *value = MTRR_CAP;
        return true;
    case MSR_ARCH_CAPABILITIES:
        *value = HSK_ARCH_CAPABILITIES;
        return true;
    case MSR_PLATFORM_ID:
    case MSR_MCG_CAP:
    case MSR_DEBUGCTL:
    case MSR_P5_MC_ADDR:
    case MSR_P5_MC_TYPE:
    case MSR_EBL_CR_POWERON:
    case MSR_PERF_STATUS:
    case MSR_LAST_BRANCH:
    case MSR_LAST_BRANCH + 1:
    case MSR_LAST_BRANCH + 2:
    case MSR_LAST_BRANCH + 3:
        *value = 0;
        return true;
    case MSR_BBL_CR_CTL3:
        *value = BBL_CR_CTL3;
        return true;
    case MSR_KVM_SYSTEM_TIME:
    case MSR_KVM_SYSTEM_TIME_OLD:
        *value = v->s.kvm_system_time;
        return true;
    case MSR_KVM_WALL_CLOCK:
    case MSR_KVM_WALL_CLOCK_OLD:
        *value = v->s.kvm_wall_clock;
        return true;
    default:
        return false;
    }
}

static bool write_efer(struct soft_vcpu *v, uint64_t value)
{
    const uint64_t changed = (v->s.efer ^ value) & ~HSK_EFER_LMA;

    if ((value & ~HSK_EFER_VALID) || ((changed & HSK_EFER_LME) && (v->s.cr0 & HSK_CR0_PG)))
        return false;
    v->s.efer = (value & ~HSK_EFER_LMA) | (v->s.efer & HSK_EFER_LMA);
    if (changed & HSK_EFER_NXE)
        soft_tlb_flush_all(v);
    soft_segments_changed(v);
    return true;
}

/* The TSC is the machine's clock plus TSC_ADJUST, so a write of either moves the other (SDM vol.
 * 3, 18.17.3). */
static void set_tsc_adjust(struct soft_vcpu *v, uint64_t value)
{
    v->s.tsc_adjust = value;
    if (v->s.kvm_system_time & 1)
        soft_pv_write_system_time(v, v->s.kvm_system_time);
}

static bool write_lapic(struct soft_vcpu *v, uint32_t msr, uint64_t value)
{
    bool ok;

    if (!v->base.lapic)
        return false;
    soft_fpu_park(v);
    ok = msr == MSR_APIC_BASE ? hsk_lapic_set_base(v->base.lapic, value)
                              : hsk_lapic_wrmsr(v->base.lapic, msr, value);
    soft_recheck_interrupts(v);
    return ok;
}

static bool write_msr(struct soft_vcpu *v, uint32_t msr, uint64_t value)
{
    uint64_t valid;
    bool address;
    uint64_t *field = plain_field(&v->s, msr, &valid, &address);

    if (field) {
        if ((value & ~valid) || (address && !hsk_canonical(value)) || !types_valid(msr, value))
            return false;
        *field = value;
        if (msr == MSR_FS_BASE || msr == MSR_GS_BASE)
            v->seg_base[msr == MSR_FS_BASE ? HSK_FS : HSK_GS] = value;
        return true;
    }
    if (lapic_msr(msr) || msr == MSR_APIC_BASE)
        return write_lapic(v, msr, value);
    switch (msr) {
    case MSR_EFER:
        return write_efer(v, value);
    case MSR_TSC:
        set_tsc_adjust(v, v->s.tsc_adjust + value - soft_rdtsc(v));
        return true;
    case MSR_TSC_ADJUST:
        set_tsc_adjust(v, value);
        return true;
    case MSR_PAT:
        if (!hsk_pat_valid(value))
            return false;
        v->s.pat = value;
        return true;
    case MSR_PRED_CMD:
        return !(value & ~1ull);
    case MSR_UCODE_UPDATE:
    case MSR_UCODE_REV:
        return true;
    case MSR_DEBUGCTL:
        return value == 0;
    case MSR_KVM_SYSTEM_TIME:
    case MSR_KVM_SYSTEM_TIME_OLD:
        soft_pv_write_system_time(v, value);
        return true;
    case MSR_KVM_WALL_CLOCK:
    case MSR_KVM_WALL_CLOCK_OLD:
        soft_pv_write_wall_clock(v, value);
        return true;
    default:
        return false;
    }
}

/* Says so once for each MSR, and not for more than a few. */
static G_NORETURN void refuse(struct soft_vcpu *v, const char *what, uint32_t msr)
{
    unsigned i = 0;

    while (i < v->nrefused_msrs && v->refused_msrs[i] != msr)
        i++;
    if (i == v->nrefused_msrs && i < G_N_ELEMENTS(v->refused_msrs)) {
        v->refused_msrs[v->nrefused_msrs++] = msr;
        soft_fpu_park(v);
        g_info("The guest's %s of MSR 0x%x at 0x%llx was refused (#GP): not in the processor "
               "model, or not such a value.",
               what, msr, (unsigned long long)v->rip);
    }
    soft_fault(v, VEC_GP, 0);
}

enum soft_next soft_x_rdmsr(struct soft_vcpu *v, const struct soft_insn *in)
{
    const uint32_t msr = (uint32_t)v->gpr[HSK_RCX];
    uint64_t value = 0;

    soft_need_cpl0(v);
    if (!read_msr(v, msr, &value))
        refuse(v, "read", msr);
    v->gpr[HSK_RAX] = value & 0xffffffff;
    v->gpr[HSK_RDX] = value >> 32;
    return soft_done(v, in);
}

enum soft_next soft_x_wrmsr(struct soft_vcpu *v, const struct soft_insn *in)
{
    const uint32_t msr = (uint32_t)v->gpr[HSK_RCX];

    soft_need_cpl0(v);
    if (!write_msr(v, msr, (v->gpr[HSK_RAX] & 0xffffffff) | v->gpr[HSK_RDX] << 32))
        refuse(v, "write", msr);
    return soft_done_jump(v, in);
}
