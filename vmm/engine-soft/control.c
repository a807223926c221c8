/* SPDX-License-Identifier: MIT */
/*
 * Control, debug and extended control registers, and the TLB instructions. SDM vol. 3: 2.5
 * (CR), 2.6 (XCR0), 4.10.4 (invalidation), 17.2 (debug registers); vol. 2: MOV CR, MOV DR, LMSW,
 * INVLPG, INVPCID. The TLB is not tagged with PCIDs, so every CR3 write drops all non-global
 * entries, also with bit 63 set. Thread: the vCPU's, with the guest's FPU registers live.
 */
#include <Zydis/Zydis.h>

#include "system.h"

/* --- CR0 --- */

/* PAE outside of long mode keeps its four top entries in registers (SDM vol. 3, 4.4.1). */
static void load_pdptes(struct soft_vcpu *v, uint64_t cr3, uint64_t cr0, uint64_t cr4)
{
    uint64_t e[4];

    if (!(cr0 & HSK_CR0_PG) || !(cr4 & HSK_CR4_PAE) || (v->s.efer & HSK_EFER_LME))
        return;
    for (unsigned i = 0; i < 4; i++) {
        e[i] = soft_ld(v, (cr3 & 0xffffffe0) + 8 * i, 8, SOFT_MMU_PHYS);
        if ((e[i] & 1) && (e[i] & (~HSK_PHYS_MASK | 0x1e6)))
            soft_fault(v, VEC_GP, 0);
    }
    for (unsigned i = 0; i < 4; i++)
        v->pdpte[i] = e[i];
    v->pdptes_loaded = 1;
}

void soft_load_pdptes(struct soft_vcpu *v, uint64_t cr3)
{
    load_pdptes(v, cr3, v->s.cr0, v->s.cr4);
}

static void write_cr0(struct soft_vcpu *v, uint64_t value)
{
    const uint64_t old = v->s.cr0;
    uint64_t changed;

    if (value >> 32)
        soft_fault(v, VEC_GP, 0);
    value = (value & HSK_CR0_VALID) | HSK_CR0_ET;
    changed = old ^ value;
    if (((value & HSK_CR0_PG) && !(value & HSK_CR0_PE)) ||
        ((value & HSK_CR0_NW) && !(value & HSK_CR0_CD)))
        soft_fault(v, VEC_GP, 0);
    if (changed & (HSK_CR0_PG | HSK_CR0_CD | HSK_CR0_NW))
        load_pdptes(v, v->s.cr3, value, v->s.cr4);
    if (changed & HSK_CR0_PG) {
        if (value & HSK_CR0_PG) {
            if ((v->s.efer & HSK_EFER_LME) &&
                (!(v->s.cr4 & HSK_CR4_PAE) || (v->s.seg[HSK_CS].attr & HSK_SEG_L) ||
                 (v->s.seg[HSK_TR].attr & 0x9d) == 0x81)) /* a 16-bit TSS */
                soft_fault(v, VEC_GP, 0);
            if (v->s.efer & HSK_EFER_LME)
                v->s.efer |= HSK_EFER_LMA;
        } else {
            if (v->code_size == 8 || (v->s.cr4 & HSK_CR4_PCIDE))
                soft_fault(v, VEC_GP, 0);
            v->s.efer &= ~HSK_EFER_LMA;
        }
    }
    v->s.cr0 = value;
    if (changed & (HSK_CR0_PG | HSK_CR0_PE | HSK_CR0_WP))
        soft_tlb_flush_all(v);
    soft_segments_changed(v);
}

/* --- CR3, CR4, CR8 --- */

static void write_cr3(struct soft_vcpu *v, uint64_t value)
{
    if (v->s.cr4 & HSK_CR4_PCIDE)
        value &= ~(1ull << 63);
    if (soft_lma(v) && (value & ~HSK_PHYS_MASK))
        soft_fault(v, VEC_GP, 0);
    soft_load_pdptes(v, value);
    v->s.cr3 = value & HSK_PHYS_MASK;
    soft_tlb_flush_nonglobal(v);
}

void soft_features(struct soft_engine *e)
{
    static const struct {
        const char *name;
        uint64_t cr4;
        uint32_t has;
    } table[] = {
        {"vme", HSK_CR4_VME | HSK_CR4_PVI, 0},
        {"de", HSK_CR4_DE, 0},
        {"smap", HSK_CR4_SMAP, 0},
        {"smep", HSK_CR4_SMEP, 0},
        {"pcid", HSK_CR4_PCIDE, 0},
        {"fsgsbase", HSK_CR4_FSGSBASE, SOFT_HAS_FSGSBASE},
        {"xsave", HSK_CR4_OSXSAVE, SOFT_HAS_XSAVE},
        {"invpcid", 0, SOFT_HAS_INVPCID},
        {"pdpe1gb", 0, SOFT_HAS_1G_PAGES},
    };
    const struct hsk_cpuid *c = e->base.cfg.cpuid;

    e->cr4_offered = HSK_CR4_VALID;
    for (unsigned i = 0; i < G_N_ELEMENTS(table); i++) {
        if (!c || hsk_cpuid_has(c, table[i].name))
            e->has |= table[i].has;
        else
            e->cr4_offered &= ~table[i].cr4;
    }
}

static void write_cr4(struct soft_vcpu *v, uint64_t value)
{
    const uint64_t changed = v->s.cr4 ^ value;
    const uint64_t paging =
        HSK_CR4_PSE | HSK_CR4_PAE | HSK_CR4_PGE | HSK_CR4_PCIDE | HSK_CR4_SMEP | HSK_CR4_SMAP;

    if ((value & ~HSK_CR4_VALID) || (changed & value & ~v->engine->cr4_offered))
        soft_fault(v, VEC_GP, 0);
    if (soft_lma(v) && !(value & HSK_CR4_PAE))
        soft_fault(v, VEC_GP, 0);
    if ((changed & value & HSK_CR4_PCIDE) && (!soft_lma(v) || (v->s.cr3 & 0xfff)))
        soft_fault(v, VEC_GP, 0);
    if (changed & (HSK_CR4_PSE | HSK_CR4_PAE | HSK_CR4_PGE | HSK_CR4_SMEP))
        load_pdptes(v, v->s.cr3, v->s.cr0, value);
    v->s.cr4 = value;
    if (changed & paging)
        soft_tlb_flush_all(v);
    soft_segments_changed(v);
}

static void write_cr8(struct soft_vcpu *v, uint64_t value)
{
    if (value > 15)
        soft_fault(v, VEC_GP, 0);
    v->s.cr8 = value;
    if (v->base.lapic) {
        soft_fpu_park(v);
        hsk_lapic_set_cr8(v->base.lapic, value);
    }
    soft_recheck_interrupts(v);
}

static uint64_t read_cr8(struct soft_vcpu *v)
{
    if (!v->base.lapic)
        return v->s.cr8;
    soft_fpu_park(v);
    return hsk_lapic_get_cr8(v->base.lapic);
}

enum soft_next soft_x_mov_cr(struct soft_vcpu *v, const struct soft_insn *in, bool to_cr)
{
    const unsigned cr = in->op[to_cr ? 0 : 1].reg;
    const unsigned gpr = in->op[to_cr ? 1 : 0].reg;
    const unsigned size = v->code_size == 8 ? 8 : 4;
    uint64_t value;

    if ((cr != 0 && cr != 2 && cr != 3 && cr != 4 && cr != 8))
        soft_fault(v, VEC_UD, -1);
    soft_need_cpl0(v);
    if (!to_cr) {
        switch (cr) {
        case 0:
            value = v->s.cr0;
            break;
        case 2:
            value = v->s.cr2;
            break;
        case 3:
            value = v->s.cr3;
            break;
        case 4:
            value = v->s.cr4;
            break;
        default:
            value = read_cr8(v);
            break;
        }
        soft_reg_set(v, gpr, size, value);
        return soft_done(v, in);
    }
    value = soft_reg_get(v, gpr, size);
    switch (cr) {
    case 0:
        write_cr0(v, value);
        break;
    case 2:
        v->s.cr2 = value;
        break;
    case 3:
        write_cr3(v, value);
        break;
    case 4:
        write_cr4(v, value);
        break;
    default:
        write_cr8(v, value);
        break;
    }
    return soft_done_jump(v, in);
}

/* LMSW, SMSW, CLTS */
enum soft_next soft_x_machine_word(struct soft_vcpu *v, const struct soft_insn *in)
{
    uint64_t value;

    if (in->mnemonic == ZYDIS_MNEMONIC_SMSW) {
        soft_put(v, in, 0, in->op[0].kind == SOFT_OP_MEM ? 2 : in->opsize, v->s.cr0);
        return soft_done(v, in);
    }
    soft_need_cpl0(v);
    if (in->mnemonic == ZYDIS_MNEMONIC_CLTS) {
        v->s.cr0 &= ~HSK_CR0_TS;
    } else {
        /* the low four bits only, and PE cannot be cleared */
        value = soft_get(v, in, 0, 2);
        write_cr0(v, (v->s.cr0 & ~0xeull) | (value & 0xf));
    }
    return soft_done_jump(v, in);
}

/* --- debug registers --- */

enum soft_next soft_x_mov_dr(struct soft_vcpu *v, const struct soft_insn *in, bool to_dr)
{
    unsigned dr = in->op[to_dr ? 0 : 1].reg;
    const unsigned gpr = in->op[to_dr ? 1 : 0].reg;
    const unsigned size = v->code_size == 8 ? 8 : 4;
    uint64_t value;

    if (dr > 7 || ((dr == 4 || dr == 5) && (v->s.cr4 & HSK_CR4_DE)))
        soft_fault(v, VEC_UD, -1);
    soft_need_cpl0(v);
    if (v->s.dr[7] & HSK_DR7_GD)
        soft_fault_db(v, HSK_DR6_BD);
    if (dr == 4 || dr == 5)
        dr += 2;
    if (!to_dr) {
        soft_reg_set(v, gpr, size, v->s.dr[dr]);
        return soft_done(v, in);
    }
    value = soft_reg_get(v, gpr, size);
    if (dr >= 6 && value >> 32)
        soft_fault(v, VEC_GP, 0);
    if (dr == 7)
        v->s.dr[7] = (value & ~0xd800ull) | HSK_DR7_FIXED;
    else
        v->s.dr[dr] = dr == 6 ? (value | HSK_DR6_FIXED) & HSK_DR6_VALID : value;
    soft_debug_changed(v);
    return soft_done_jump(v, in);
}

/* --- extended control register --- */

enum soft_next soft_x_xgetbv(struct soft_vcpu *v, const struct soft_insn *in)
{
    const uint32_t index = (uint32_t)v->gpr[HSK_RCX];
    uint64_t value = v->s.xcr0;

    if (!(v->s.cr4 & HSK_CR4_OSXSAVE))
        soft_fault(v, VEC_UD, -1);
    if (index > 1)
        soft_fault(v, VEC_GP, 0);
    if (index == 1) {
        soft_fpu_park(v);
        value &= hsk_get64(v->s.xsave + HSK_XSAVE_HEADER);
    }
    v->gpr[HSK_RAX] = value & 0xffffffff;
    v->gpr[HSK_RDX] = value >> 32;
    return soft_done(v, in);
}

enum soft_next soft_x_xsetbv(struct soft_vcpu *v, const struct soft_insn *in)
{
    const uint64_t value = (v->gpr[HSK_RAX] & 0xffffffff) | v->gpr[HSK_RDX] << 32;

    if (!(v->s.cr4 & HSK_CR4_OSXSAVE))
        soft_fault(v, VEC_UD, -1);
    soft_need_cpl0(v);
    if ((uint32_t)v->gpr[HSK_RCX] != 0 || !hsk_xcr0_valid(value) ||
        (value & ~v->base.engine->cfg.cpuid->xcr0_mask))
        soft_fault(v, VEC_GP, 0);
    v->s.xcr0 = value;
    return soft_done_jump(v, in);
}

/* --- TLB --- */

enum soft_next soft_x_invlpg(struct soft_vcpu *v, const struct soft_insn *in)
{
    soft_need_cpl0(v);
    soft_tlb_flush_page(v, soft_ea(v, in));
    return soft_done_jump(v, in);
}

enum soft_next soft_x_invpcid(struct soft_vcpu *v, const struct soft_insn *in)
{
    const uint64_t type = soft_reg_get(v, in->op[0].reg, v->code_size == 8 ? 8 : 4);
    uint64_t pcid, va;

    if (!(v->engine->has & SOFT_HAS_INVPCID))
        soft_fault(v, VEC_UD, -1);
    soft_need_cpl0(v);
    pcid = soft_ld(v, soft_mem(v, in, 0, 8, false), 8, v->mmu);
    va = soft_ld(v, soft_mem(v, in, 8, 8, false), 8, v->mmu);
    if (type > 3 || (pcid >> 12) || (type <= 1 && pcid && !(v->s.cr4 & HSK_CR4_PCIDE)) ||
        (type == 0 && !hsk_canonical(va)))
        soft_fault(v, VEC_GP, 0);
    if (type == 0)
        soft_tlb_flush_page(v, va);
    else if (type == 2)
        soft_tlb_flush_all(v);
    else
        soft_tlb_flush_nonglobal(v);
    return soft_done_jump(v, in);
}
