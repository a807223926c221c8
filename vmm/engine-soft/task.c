/* SPDX-License-Identifier: MIT */
/*
 * Hardware task switch by CALL, JMP, IRET, interrupts and exceptions, between 32-bit and 16-bit
 * TSSs (SDM vol. 3, 8.3).
 *
 * The caller has checked the privilege. All that can fault on the way (both TSSs, the busy bits) is
 * tried before anything changes, so those faults belong to the old task; the new task's segments
 * are loaded when it is the current one, and a fault then finds its selectors in the registers,
 * with nothing behind those that were not loaded yet (table 8-1). General registers from a 16-bit
 * TSS have ones in their upper halves, which the manual leaves open. Thread: the vCPU's, with the
 * guest's FPU registers live.
 */
#include "system.h"

#define DR7_LOCAL 0x155ull /* L0-L3, LE */

enum { TSS16_LIMIT = 43, TSS32_LIMIT = 103 };
enum {
    TSS_LINK = 0,
    TSS32_CR3 = 0x1c,
    TSS32_STATE = 0x20,
    TSS32_LDT = 0x60,
    TSS32_TRAP = 0x64,
    TSS16_STATE = 0x0e,
    TSS16_LDT = 0x2a,
};

struct task {
    struct hsk_segment tr;
    uint64_t rip, flags, cr3;
    uint32_t gpr[8];
    uint16_t sel[HSK_GS + 1], ldt;
    bool trap;
};

static bool is_wide(const struct hsk_segment *tr)
{
    return tr->attr & 8;
}

static uint64_t tss_ld(struct soft_vcpu *v, const struct hsk_segment *tr, unsigned off,
                       unsigned size)
{
    return soft_ld(v, soft_sys_va(v, tr->base + off), size, soft_sys_mmu(v));
}

static void tss_st(struct soft_vcpu *v, const struct hsk_segment *tr, unsigned off, unsigned size,
                   uint64_t value)
{
    soft_st(v, soft_sys_va(v, tr->base + off), size, value, soft_sys_mmu(v));
}

static void tss_probe(struct soft_vcpu *v, const struct hsk_segment *tr, unsigned from, unsigned to,
                      bool write)
{
    soft_probe(v, soft_sys_va(v, tr->base + from), to - from, write, soft_sys_mmu(v));
}

/* The type byte of a descriptor in the GDT, which holds the busy bit. */
static uint64_t type_byte(const struct soft_vcpu *v, uint16_t sel)
{
    return soft_sys_va(v, v->s.gdtr.base + (sel & 0xfff8) + 5);
}

static void set_busy(struct soft_vcpu *v, uint16_t sel, bool busy)
{
    const uint64_t va = type_byte(v, sel);
    const uint64_t old = soft_ld(v, va, 1, soft_sys_mmu(v));

    soft_st(v, va, 1, busy ? old | 2 : old & ~2ull, soft_sys_mmu(v));
}

static void find_tss(struct soft_vcpu *v, enum soft_task_how how, uint16_t sel, unsigned ext,
                     struct hsk_segment *tr)
{
    const unsigned bad = how == SOFT_TASK_IRET ? VEC_TS : VEC_GP;
    const int error = (sel & 0xfffc) | (int)ext;
    const unsigned busy = how == SOFT_TASK_IRET ? 2 : 0;
    uint64_t d;

    if ((sel & 4) || !soft_desc_read(v, sel, &d))
        soft_fault(v, bad, error);
    soft_desc_decode(d, sel, tr);
    if ((tr->attr & 0x17) != (1 | busy))
        soft_fault(v, bad, error);
    if (!(tr->attr & HSK_SEG_P))
        soft_fault(v, VEC_NP, error);
    if (tr->limit < (is_wide(tr) ? TSS32_LIMIT : TSS16_LIMIT))
        soft_fault(v, VEC_TS, error);
}

static void save(struct soft_vcpu *v, const struct hsk_segment *tr, uint64_t rip, uint64_t flags)
{
    const unsigned size = is_wide(tr) ? 4 : 2, at = is_wide(tr) ? TSS32_STATE : TSS16_STATE;
    const unsigned last = is_wide(tr) ? HSK_GS : HSK_DS;

    tss_st(v, tr, at, size, rip);
    tss_st(v, tr, at + size, size, flags);
    for (unsigned i = 0; i < 8; i++)
        tss_st(v, tr, at + (2 + i) * size, size, v->gpr[i]);
    for (unsigned i = HSK_ES; i <= last; i++)
        tss_st(v, tr, at + (10 + i) * size, 2, v->s.seg[i].selector);
}

static void load(struct soft_vcpu *v, struct task *t)
{
    const bool wide = is_wide(&t->tr);
    const unsigned size = wide ? 4 : 2, at = wide ? TSS32_STATE : TSS16_STATE;

    t->rip = tss_ld(v, &t->tr, at, size);
    t->flags = tss_ld(v, &t->tr, at + size, size) & HSK_FLAG_VALID;
    for (unsigned i = 0; i < 8; i++)
        t->gpr[i] =
            (uint32_t)tss_ld(v, &t->tr, at + (2 + i) * size, size) | (wide ? 0 : 0xffff0000);
    for (unsigned i = HSK_ES; i <= HSK_GS; i++)
        t->sel[i] = wide || i <= HSK_DS ? (uint16_t)tss_ld(v, &t->tr, at + (10 + i) * size, 2) : 0;
    t->ldt = (uint16_t)tss_ld(v, &t->tr, wide ? TSS32_LDT : TSS16_LDT, 2);
    t->trap = wide && (tss_ld(v, &t->tr, TSS32_TRAP, 1) & 1);
}

/* Everything that memory can refuse, before the first change. */
static void try_all(struct soft_vcpu *v, enum soft_task_how how, struct task *t)
{
    const struct hsk_segment *old = &v->s.seg[HSK_TR];
    const bool wide = is_wide(&t->tr), old_wide = is_wide(old);

    if (!(old->attr & HSK_SEG_P) || old->limit < (old_wide ? TSS32_LIMIT : TSS16_LIMIT))
        soft_fault(v, VEC_TS, old->selector & 0xfffc);
    tss_probe(v, &t->tr, 0, (wide ? TSS32_LIMIT : TSS16_LIMIT) + 1, false);
    tss_probe(v, old, old_wide ? TSS32_STATE : TSS16_STATE, old_wide ? TSS32_LDT : TSS16_LDT, true);
    if (how == SOFT_TASK_CALL || how == SOFT_TASK_INT)
        tss_probe(v, &t->tr, TSS_LINK, 2, true);
    if (how == SOFT_TASK_JMP || how == SOFT_TASK_IRET)
        soft_probe(v, type_byte(v, old->selector), 1, true, soft_sys_mmu(v));
    if (how != SOFT_TASK_IRET)
        soft_probe(v, type_byte(v, t->tr.selector), 1, true, soft_sys_mmu(v));
    t->cr3 = v->s.cr3;
    if (wide && (v->s.cr0 & HSK_CR0_PG)) {
        t->cr3 = tss_ld(v, &t->tr, TSS32_CR3, 4);
        if (t->cr3 != v->s.cr3)
            soft_load_pdptes(v, t->cr3);
    }
}

/* The registers of the new task; its segments are only selectors yet. */
static void become(struct soft_vcpu *v, const struct task *t)
{
    const unsigned dpl = t->flags & HSK_FLAG_VM ? 3 : t->sel[HSK_CS] & 3;

    if (t->cr3 != v->s.cr3) {
        v->s.cr3 = t->cr3;
        soft_tlb_flush_nonglobal(v);
    }
    v->s.seg[HSK_TR] = t->tr;
    v->s.seg[HSK_TR].attr |= 2;
    v->s.cr0 |= HSK_CR0_TS;
    v->s.dr[7] &= ~DR7_LOCAL;
    soft_debug_changed(v);
    v->s.seg[HSK_LDTR] = (struct hsk_segment){.selector = t->ldt};
    for (unsigned i = HSK_ES; i <= HSK_GS; i++)
        v->s.seg[i] = (struct hsk_segment){.selector = t->sel[i]};
    /* The privilege level is that of CS, also while SS is not loaded; the state of a processor
     * always has some CS. */
    v->s.seg[HSK_SS].attr = (uint16_t)(dpl << 5);
    v->s.seg[HSK_CS].attr = (uint16_t)(dpl << 5 | HSK_SEG_P | HSK_SEG_S | 0xb);
    for (unsigned i = 0; i < 8; i++)
        v->gpr[i] = t->gpr[i];
    v->rip = t->rip;
    v->no_step = 1;
    v->halted = 0;
    v->s.activity = HSK_ACT_RUN;
    v->s.interrupt_shadow = 0;
    soft_set_rflags(v, t->flags);
    soft_segments_changed(v);
}

static void load_ldt(struct soft_vcpu *v, uint16_t sel, unsigned ext)
{
    const int error = (sel & 0xfffc) | (int)ext;
    struct hsk_segment ldt;
    uint64_t d;

    if (!(sel & 0xfffc))
        return;
    if ((sel & 4) || !soft_desc_read(v, sel, &d))
        soft_fault(v, VEC_TS, error);
    soft_desc_decode(d, sel, &ldt);
    if ((ldt.attr & 0x1f) != 2 || !(ldt.attr & HSK_SEG_P))
        soft_fault(v, VEC_TS, error);
    v->s.seg[HSK_LDTR] = ldt;
}

static void load_cs(struct soft_vcpu *v, uint16_t sel, unsigned ext)
{
    const int error = (sel & 0xfffc) | (int)ext;
    struct hsk_segment cs;
    uint64_t d;

    if (!soft_desc_read(v, sel, &d))
        soft_fault(v, VEC_TS, error);
    soft_desc_decode(d, sel, &cs);
    if (!soft_is_code(&cs) || (soft_is_conforming(&cs) ? HSK_SEG_DPL(cs.attr) > (sel & 3u)
                                                       : HSK_SEG_DPL(cs.attr) != (sel & 3u)))
        soft_fault(v, VEC_TS, error);
    if (!(cs.attr & HSK_SEG_P))
        soft_fault(v, VEC_NP, error);
    soft_desc_accessed(v, sel, &cs);
    v->s.seg[HSK_CS] = cs;
}

static void load_segments(struct soft_vcpu *v, const struct task *t, unsigned ext)
{
    static const uint8_t data[] = {HSK_DS, HSK_ES, HSK_FS, HSK_GS};
    struct hsk_segment ss;

    load_ldt(v, t->ldt, ext);
    if (t->flags & HSK_FLAG_VM) {
        for (unsigned i = HSK_ES; i <= HSK_GS; i++)
            soft_real_load(v, i, t->sel[i]);
    } else {
        load_cs(v, t->sel[HSK_CS], ext);
        soft_load_ss(v, t->sel[HSK_SS], t->sel[HSK_CS] & 3, &ss, VEC_TS, VEC_SS, ext);
        v->s.seg[HSK_SS] = ss;
        for (unsigned i = 0; i < sizeof(data); i++)
            soft_load_data(v, data[i], t->sel[data[i]], VEC_TS, ext);
    }
    soft_segments_changed(v);
}

bool soft_task_switch(struct soft_vcpu *v, enum soft_task_how how, uint16_t sel, unsigned ext,
                      uint64_t rip, uint64_t flags)
{
    const bool nest = how == SOFT_TASK_CALL || how == SOFT_TASK_INT;
    const struct hsk_segment old = v->s.seg[HSK_TR];
    struct task t;

    find_tss(v, how, sel, ext, &t.tr);
    try_all(v, how, &t);
    if (!nest)
        set_busy(v, old.selector, false);
    save(v, &old, rip, how == SOFT_TASK_IRET ? flags & ~HSK_FLAG_NT : flags);
    if (nest)
        tss_st(v, &t.tr, TSS_LINK, 2, old.selector);
    if (how != SOFT_TASK_IRET)
        set_busy(v, sel, true);
    load(v, &t);
    if (nest)
        t.flags |= HSK_FLAG_NT;
    become(v, &t);
    load_segments(v, &t, ext);
    return t.trap;
}

void soft_task_begin(struct soft_vcpu *v, bool trap, unsigned ext)
{
    soft_check_target(v, &v->s.seg[HSK_CS], v->rip, (int)ext);
    if (!trap)
        return;
    v->delivering = 0;
    soft_fault_db(v, HSK_DR6_BT);
}
