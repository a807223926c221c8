/* SPDX-License-Identifier: MIT */
/*
 * Guest addresses in translated code: effective address, inline TLB check. Two forms: one that destroys the arithmetic
 * flags, and one of pext, lea and jrcxz that leaves them alone, for where the guest still needs them.
 * Comparing the page of the LAST byte with the entry of the FIRST one refuses accesses that cross pages at no cost.
 * vCPU thread.
 */
#include "translate.h"

#define FLAGS_RAX TX_SCRATCH(0)
#define FLAGS_AX TX_SCRATCH(1)

/* Parks the arithmetic flags in memory; no register changes. */
void tx_flags_save(struct emit *e)
{
    e_st_gs(e, H_RAX, FLAGS_RAX);
    e8(e, 0x9f); /* lahf */
    e8(e, 0x0f); /* seto al */
    e8(e, 0x90);
    e8(e, 0xc0);
    e_st_gs(e, H_RAX, FLAGS_AX);
    e_ld_gs(e, H_RAX, FLAGS_RAX);
}

void tx_flags_restore(struct emit *e)
{
    e_st_gs(e, H_RAX, FLAGS_RAX);
    e_ld_gs(e, H_RAX, FLAGS_AX);
    e8(e, 0x04); /* add al, 0x7f: OF */
    e8(e, 0x7f);
    e8(e, 0x9e); /* sahf */
    e_ld_gs(e, H_RAX, FLAGS_RAX);
}

int tx_ea_reg(const struct tx *t, bool live)
{
    return live && t->c->bmi2 ? H_U : H_C;
}

static bool has_base(const struct tx *t, unsigned seg)
{
    return seg == HSK_FS || seg == HSK_GS || (t->code32 && (t->mode & SOFT_MODE_BASES));
}

static void add_base(struct tx *t, unsigned seg, int d)
{
    if (has_base(t, seg)) {
        e_ld_gs(&t->e, H_T, TX_OFF(seg_base) + 8u * seg);
        e_lea(&t->e, !t->code32, d, d, H_T, 0, 0);
    }
}

static int scale_bits(unsigned scale)
{
    return scale == 8 ? 3 : scale == 4 ? 2 : scale == 2 ? 1 : 0;
}

void tx_offset(struct tx *t, const ZydisDecodedOperand *m, int d, unsigned width, int rsp_adjust)
{
    struct emit *e = &t->e;
    int64_t disp = m->mem.disp.has_displacement ? m->mem.disp.value : 0;
    int base = -1, index = -1;

    if (m->mem.base == ZYDIS_REGISTER_RIP || m->mem.base == ZYDIS_REGISTER_EIP) {
        tx_address(t, e, d, t->x->next + (uint64_t)disp);
        if (width == 32)
            e_mov32(e, d, d);
    } else if (m->mem.base == ZYDIS_REGISTER_NONE && m->mem.index == ZYDIS_REGISTER_NONE) {
        e_movi(e, d, width == 32 ? (uint64_t)disp & UINT32_MAX : width == 16 ? (uint64_t)disp & 0xffff : (uint64_t)disp);
    } else {
        if (m->mem.base != ZYDIS_REGISTER_NONE) {
            base = tx_use(t, soft_gpr(m->mem.base), H_T);
            if (base == H_GRSP)
                disp += rsp_adjust;
        }
        if (m->mem.index != ZYDIS_REGISTER_NONE)
            index = tx_use(t, soft_gpr(m->mem.index), H_U);
        e_lea(e, width == 64, d, base, index, scale_bits(m->mem.scale), (int32_t)disp);
        if (width == 16) { /* movzx d, d16 */
            e_rex(e, 0, d, 0, d);
            e8(e, 0x0f);
            e8(e, 0xb7);
            e8(e, 0xc0u | (unsigned)(d & 7) << 3 | (unsigned)(d & 7));
        }
    }
}

void tx_ea(struct tx *t, const ZydisDecodedOperand *m, int d, int rsp_adjust)
{
    tx_offset(t, m, d, t->x->in.address_width, rsp_adjust);
    if (m->mem.segment >= ZYDIS_REGISTER_ES && m->mem.segment <= ZYDIS_REGISTER_GS)
        add_base(t, (unsigned)(m->mem.segment - ZYDIS_REGISTER_ES), d);
}

void tx_stack_ea(struct tx *t, int base, int32_t disp, int d)
{
    e_lea(&t->e, !t->code32, d, base, -1, 0, disp);
    add_base(t, HSK_SS, d);
}

static uint64_t tlb_offset(const struct tx *t)
{
    return TX_OFF(tlb) + (t->mode & SOFT_MODE_MMU) * sizeof(((struct soft_vcpu *)0)->tlb[0]);
}

/* C = address -> C = host address (op 03, add) or the difference (op 8b, mov); destroys T, U and the flags. Returns the site of the jump to the slow path. */
static uint8_t *check_plain(struct tx *t, unsigned size, uint64_t vpn, uint64_t addend, unsigned op)
{
    struct emit *e = &t->e;
    uint8_t *site;

    if (t->c->bmi2) {
        e_rorx32(e, H_T, H_C, 7);
    } else {
        e_mov32(e, H_T, H_C);
        e_shift(e, 0, 5, H_T, 7);
    }
    e_alui(e, 0, 4, H_T, (SOFT_TLB_SIZE - 1) << 5);
    if (size > 1)
        e_lea(e, 1, H_U, H_C, -1, 0, (int32_t)size - 1);
    else
        e_mov(e, H_U, H_C);
    e_shift(e, 1, 5, H_U, 12);
    e_op_gs_x(e, 1, 0x3b, H_U, H_T, 0, vpn);
    site = e_jcc_fwd(e, 5);
    e_op_gs_x(e, 1, op, H_C, H_T, 0, addend);
    return site;
}

/* U = address -> C = host address, or the difference; destroys T only. */
static uint8_t *check_flags(struct tx *t, unsigned size, uint64_t vpn, uint64_t addend, bool window)
{
    struct emit *e = &t->e;
    uint8_t *site;

    e_pext_gs(e, H_T, H_U, TX_OFF(tlb_mask));
    e_lea(e, 1, H_T, -1, H_T, 2, 0);
    e_lea(e, 1, H_C, H_U, -1, 0, (int32_t)size - 1);
    e_pext_gs(e, H_C, H_C, TX_OFF(page_mask));
    e_not(e, H_C);
    e_op_gs_x(e, 1, 0x8b, H_T, H_T, 3, vpn);
    e_lea(e, 1, H_C, H_C, H_T, 0, 1);
    site = e_jmp_unless_rcxz(e);
    e_pext_gs(e, H_T, H_U, TX_OFF(tlb_mask));
    e_lea(e, 1, H_T, -1, H_T, 2, 0);
    e_op_gs_x(e, 1, 0x8b, window ? H_C : H_T, H_T, 3, addend);
    if (!window)
        e_lea(e, 1, H_C, H_U, H_T, 0, 0);
    return site;
}

static struct tx_cold *check(struct tx *t, unsigned size, unsigned access, bool live, bool window)
{
    struct tx_cold *cold = &t->colds[t->ncolds++];
    uint64_t table = tlb_offset(t);
    uint64_t vpn = table + (access & SOFT_ACCESS_WRITE ? offsetof(struct soft_tlb_entry, vpn_write) : offsetof(struct soft_tlb_entry, vpn_read));
    uint64_t addend = table + offsetof(struct soft_tlb_entry, addend);
    unsigned op = window ? 0x8b : 0x03;

    *cold = (struct tx_cold){.kind = TX_COLD_ACCESS, .size = (uint16_t)size, .access = (uint8_t)access, .pc = t->x->pc};
    t->c_window = -1;
    if (!live) {
        cold->site = check_plain(t, size, vpn, addend, op);
    } else if (t->c->bmi2) {
        cold->site = check_flags(t, size, vpn, addend, window);
        cold->ea_in_u = true;
    } else {
        tx_flags_save(&t->e);
        cold->site = check_plain(t, size, vpn, addend, op);
        tx_flags_restore(&t->e);
        cold->restore = true;
    }
    return cold;
}

void tx_check(struct tx *t, unsigned size, unsigned access, bool live, uint64_t next)
{
    struct tx_cold *cold = check(t, size, access, live, false);

    cold->next = next;
    cold->op = t->e.p;
}

void tx_check_window(struct tx *t, unsigned size, unsigned access, bool live, uint8_t *start)
{
    struct tx_cold *cold = check(t, size, access, live, true);

    cold->kind = TX_COLD_WINDOW;
    cold->access |= SOFT_ACCESS_WINDOW;
    cold->op = start;
    cold->edge = (uint8_t)t->nlinks++;
    t->links[cold->edge] = (struct soft_link){.pc = t->x->pc, .mode = t->mode | SOFT_MODE_NOSHARE, .from = t->b};
}

void tx_done(struct tx *t)
{
    t->colds[t->ncolds - 1].op_end = t->e.p;
}

void tx_operand(struct tx *t, const ZydisDecodedOperand *m, unsigned size, unsigned access)
{
    bool live = t->x->live;

    tx_ea(t, m, tx_ea_reg(t, live), 0);
    if (m->mem.segment == ZYDIS_REGISTER_SS)
        access |= SOFT_ACCESS_STACK;
    tx_check(t, size, access, live, t->x->next);
}
