/* SPDX-License-Identifier: MIT */
/*
 * The translated half of the differential run. The guest of soft_guest.h becomes one with user
 * code: selectors and page permissions as the native half has them, every exception and the way out
 * (INT 80h) on a stack of its own, a HLT as handler. State goes straight into the vCPU, past
 * set_state() and its flushes: that is what allows millions of cases.
 */
#include "differential.h"

#define GDT         (GUEST_VA + 0x9000)
#define TSS         (GUEST_VA + 0xa000)
#define IST_TOP     (GUEST_VA + 0xc000)
#define EXIT_VECTOR 0x80

static void put_segment(unsigned sel, uint32_t base, uint32_t attr)
{
    uint8_t *d = (uint8_t *)(uintptr_t)(GDT + (sel & ~7u));

    hsk_put64(d, 0xffffull | (uint64_t)(base & 0xffffff) << 16 | (uint64_t)attr << 40 |
                     0xfull << 48 | (uint64_t)(base >> 24) << 56);
}

static void put_page(struct guest *g, uint64_t va, uint64_t bits)
{
    const uint64_t page = (va - GUEST_VA) >> 12;

    hsk_put64(g->mem + 0x10000 + 8 * page, page << 12 | bits);
}

static void put_tables(struct guest *g)
{
    static const uint8_t absent[] = {0, 3, 6, 7};

    hsk_put64(g->mem + 0x1000, 0x2007);
    hsk_put64(g->mem + 0x2000, 0x3007);
    for (unsigned i = 128; i < 128 + 16; i++)
        hsk_put64(g->mem + 0x3000 + 8 * i, (0x10000 + 0x1000 * (i - 128)) | 7);
    for (unsigned i = 0; i < 16 * 512; i++)
        put_page(g, GUEST_VA + 4096ull * i, 7);
    for (unsigned i = 0; i < G_N_ELEMENTS(absent); i++) {
        put_page(g, DIFF_BASE + 4096ull * absent[i], 0);
        mprotect((void *)(uintptr_t)(DIFF_BASE + 4096ull * absent[i]), 4096, PROT_NONE);
    }
    put_page(g, DIFF_BASE + 0x5000, 5);
    mprotect((void *)(uintptr_t)(DIFF_BASE + 0x5000), 4096, PROT_READ | PROT_EXEC);
    *(volatile uint8_t *)(uintptr_t)(DIFF_BASE + 0x5000); /* so that the host has it mapped, too */
    put_page(g, DIFF_CODE_END, 0);
    mprotect((void *)(uintptr_t)DIFF_CODE_END, 4096, PROT_NONE);
}

void diff_guest_begin(struct guest *g)
{
    guest_new(g, false);
    put_tables(g);
    put_segment(0x08, 0, 0xc09b);
    put_segment(0x10, 0, 0xa09b);
    put_segment(0x18, 0, 0xc093);
    put_segment(SEL_USER32, 0, 0xc0fb);
    put_segment(SEL_USER_DS, 0, 0xc0f3);
    put_segment(SEL_USER64, 0, 0xa0fb);
    put_segment(SEL_TLS0, (uint32_t)DIFF_FS32, 0xc0f3);
    put_segment(SEL_TLS1, (uint32_t)DIFF_GS32, 0xc0f3);
    put_segment(SEL_TLS2, (uint32_t)DIFF_DS32, 0xc0f3);
    hsk_put64((void *)(uintptr_t)(TSS + 4), IST_TOP);
    hsk_put64((void *)(uintptr_t)(TSS + 0x24), IST_TOP);
    hsk_put16((void *)(uintptr_t)(TSS + 0x66), 0x68);
    for (unsigned i = 0; i < 256; i++) {
        uint8_t *d = g->mem + 0x8000 + 16 * i;

        guest_put_gate(g, i);
        hsk_put16(d + 2, 0x10);
        hsk_put16(d + 4, (uint16_t)(0x8e01 | (i == 3 || i == 4 || i == EXIT_VECTOR ? 0x6000 : 0)));
    }
}

static void put_out(uint8_t *at, unsigned how)
{
    if (how & DIFF_DEAD_FLAGS) { /* cmp eax, eax: nobody reads the flags before */
        *at++ = 0x39;
        *at++ = 0xc0;
    }
    at[0] = 0xcd;
    at[1] = EXIT_VECTOR;
}

void diff_guest_outs(uint8_t *slot, unsigned behind, unsigned how)
{
    put_out(slot + DIFF_AT + behind, how);
    put_out(slot + diff_out_at[DIFF_TAKEN - 1], how);
    put_out(slot + diff_out_at[DIFF_BACK - 1], how);
}

static void load_segment(struct hsk_segment *s, uint64_t sel)
{
    const uint64_t d =
        (sel & ~3ull) ? hsk_get64((const void *)(uintptr_t)(GDT + (sel & ~7ull))) : 0;

    *s = (struct hsk_segment){.selector = (uint16_t)sel};
    if (!d)
        return;
    s->base = (d >> 16 & 0xffffff) | (d >> 56 << 24);
    s->limit = UINT32_MAX;
    s->attr = (uint16_t)(d >> 40 & 0xf0ff);
}

static void load(struct soft_vcpu *v, const struct hsk_cpu_state *base, const struct diff_state *in,
                 bool code32, unsigned how)
{
    v->s = *base;
    memcpy(v->gpr, in->gpr, sizeof v->gpr);
    v->rip = in->rip;
    v->rflags = in->rflags;
    v->halted = 0;
    v->delivering = 0;
    v->fpu_parked = 1;
    memcpy(v->s.xsave, in->xsave, sizeof in->xsave);
    for (unsigned i = 0; i < 6; i++)
        load_segment(&v->s.seg[i], in->sel[i]);
    if (!code32) {
        v->s.seg[HSK_FS].base = in->fs_base;
        v->s.seg[HSK_GS].base = in->gs_base;
    }
    if (how & DIFF_KERNEL) {
        load_segment(&v->s.seg[HSK_CS], code32 ? 0x08 : 0x10);
        load_segment(&v->s.seg[HSK_SS], 0x18);
    }
    soft_segments_changed(v);
}

static void which_out(struct diff_state *out, uint64_t slot, uint64_t rip, unsigned behind,
                      unsigned how)
{
    rip -= slot + 2 + (how & DIFF_DEAD_FLAGS ? 2 : 0);
    out->out = rip == DIFF_AT + behind              ? DIFF_BEHIND
               : rip == diff_out_at[DIFF_TAKEN - 1] ? DIFF_TAKEN
               : rip == diff_out_at[DIFF_BACK - 1]  ? DIFF_BACK
                                                    : DIFF_NOUTS;
}

bool diff_guest_run(struct guest *g, const struct diff_state *in, struct diff_state *out,
                    bool code32, unsigned how)
{
    static struct hsk_cpu_state base;
    struct soft_vcpu *v = diff_vcpu(g);
    const uint8_t *frame = (const uint8_t *)(uintptr_t)(IST_TOP - 40);
    enum hsk_exit e;
    uint64_t vector;

    if (!base.cr3) {
        guest_state(g, &base);
        base.cr4 |= HSK_CR4_FSGSBASE;
        base.cr0 |= HSK_CR0_AM;
        base.gdtr = (struct hsk_dtable){GDT, 0x7f};
        base.idtr = (struct hsk_dtable){GUEST_VA + 0x8000, 0xfff};
        base.seg[HSK_LDTR] = (struct hsk_segment){0};
        base.seg[HSK_TR] =
            (struct hsk_segment){.base = TSS, .limit = 0x67, .selector = 0x40, .attr = 0x8b};
    }
    load(v, &base, in, code32, how);
    e = soft_run(v);
    if (e != HSK_EXIT_HALT) {
        g_printerr("%s (exit %d)\n", v->base.error ? v->base.error : "the engine left run()", e);
        return false;
    }
    vector = (v->rip - 1 - GUEST_TRAPS) / 16;
    hsk_assert(vector < 256);
    memcpy(out->gpr, v->gpr, sizeof v->gpr);
    out->gpr[HSK_RSP] = hsk_get64(frame + 24);
    out->rflags = hsk_get64(frame + 16);
    out->rip = hsk_get64(frame);
    out->error = v->gpr[HSK_RSP] == IST_TOP - 48 ? hsk_get64(frame - 8) : 0;
    out->cr2 = vector == 14 ? v->s.cr2 : 0;
    out->vector = vector == EXIT_VECTOR ? -1 : (int64_t)vector;
    for (unsigned i = 0; i < 6; i++)
        out->sel[i] = v->s.seg[i].selector;
    out->sel[HSK_CS] = hsk_get64(frame + 8);
    out->sel[HSK_SS] = hsk_get64(frame + 32);
    out->fs_base = v->s.seg[HSK_FS].base;
    out->gs_base = v->s.seg[HSK_GS].base;
    memcpy(out->xsave, v->s.xsave, sizeof out->xsave);
    out->out = 0;
    if (out->vector < 0)
        which_out(out, in->rip - DIFF_AT, out->rip, (unsigned)in->behind, how);
    return true;
}
