/* SPDX-License-Identifier: MIT */
/*
 * Guest addresses in translated code: effective address, inline TLB check. Two forms: one that
 * destroys the arithmetic flags, and one of pext, lea and jrcxz that leaves them alone, for where
 * the guest still needs them. Comparing the page of the LAST byte with the entry of the FIRST one
 * refuses accesses that cross pages at no cost. vCPU thread.
 */
#include "translate.h"

#define FLAGS_RAX TX_SCRATCH(0)
#define FLAGS_AX  TX_SCRATCH(1)

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

static unsigned segment_of(const ZydisDecodedOperand *m)
{
    return m->mem.segment >= ZYDIS_REGISTER_ES && m->mem.segment <= ZYDIS_REGISTER_GS
               ? (unsigned)(m->mem.segment - ZYDIS_REGISTER_ES)
               : HSK_DS;
}

static bool checked(const struct tx *t, unsigned seg, unsigned access)
{
    return (t->mode & SOFT_MODE_CHECKED) ||
           (t->code32 &&
            ((t->mode & SOFT_MODE_SEG << seg) || (seg == HSK_CS && (access & SOFT_ACCESS_WRITE))));
}

bool tx_checked(const struct tx *t, const ZydisDecodedOperand *m, unsigned access)
{
    return checked(t, segment_of(m), access);
}

static bool has_base(const struct tx *t, unsigned seg)
{
    return seg == HSK_FS || seg == HSK_GS || (t->code32 && (t->mode & SOFT_MODE_BASES));
}

static void add_base(struct tx *t, unsigned seg, int d)
{
    if (has_base(t, seg)) {
        t->ea_base = -1;
        e_ld_gs(&t->e, H_T, TX_OFF(seg_base) + 8u * seg);
        e_lea(&t->e, !t->code32, d, d, H_T, 0, 0);
    }
}

static void zero_extend16(struct emit *e, int d) /* movzx d, d16 */
{
    e_rex(e, 0, d, 0, d);
    e8(e, 0x0f);
    e8(e, 0xb7);
    e8(e, 0xc0u | (unsigned)(d & 7) << 3 | (unsigned)(d & 7));
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

    t->ea_base = -1;
    if (m->mem.base == ZYDIS_REGISTER_RIP || m->mem.base == ZYDIS_REGISTER_EIP) {
        tx_address(t, e, d, t->x->next + (uint64_t)disp);
        if (width == 32)
            e_mov32(e, d, d);
    } else if (m->mem.base == ZYDIS_REGISTER_NONE && m->mem.index == ZYDIS_REGISTER_NONE) {
        e_movi(e, d,
               width == 32   ? (uint64_t)disp & UINT32_MAX
               : width == 16 ? (uint64_t)disp & 0xffff
                             : (uint64_t)disp);
    } else {
        if (m->mem.base != ZYDIS_REGISTER_NONE) {
            base = tx_use(t, soft_gpr(m->mem.base), H_T);
            if (base == H_GRSP)
                disp += rsp_adjust;
        }
        if (m->mem.index != ZYDIS_REGISTER_NONE)
            index = tx_use(t, soft_gpr(m->mem.index), H_U);
        e_lea(e, width == 64, d, base, index, scale_bits(m->mem.scale), (int32_t)disp);
        if (width == 64 && index < 0 && base != H_T) {
            t->ea_base = base;
            t->ea_disp = (int32_t)disp;
        }
        if (width == 16)
            zero_extend16(e, d);
    }
}

void tx_ea(struct tx *t, const ZydisDecodedOperand *m, int d, int rsp_adjust)
{
    tx_offset(t, m, d, t->x->in.address_width, rsp_adjust);
    add_base(t, segment_of(m), d);
}

static uint64_t tlb_offset(const struct tx *t)
{
    return TX_OFF(tlb) + (t->mode & SOFT_MODE_MMU) * sizeof(((struct soft_vcpu *)0)->tlb[0]);
}

struct slots {
    uint64_t nvpn, addend; /* offsets of the table's first entry */
};

static struct slots slots_for(const struct tx *t, unsigned access)
{
    uint64_t table = tlb_offset(t);
    uint64_t nvpn = access & SOFT_ACCESS_WRITE ? offsetof(struct soft_tlb_entry, nvpn_write)
                                               : offsetof(struct soft_tlb_entry, nvpn_read);

    return (struct slots){table + nvpn, table + offsetof(struct soft_tlb_entry, addend)};
}

/* T = index of the entry of the address in first; destroys the flags. */
static void find_entry(struct tx *t, int first)
{
    struct emit *e = &t->e;

    if (t->c->bmi2) {
        e_rorx32(e, H_T, first, 7);
    } else {
        e_mov32(e, H_T, first);
        e_shift(e, 0, 5, H_T, 7);
    }
    e_alui(e, 0, 4, H_T, (SOFT_TLB_SIZE - 1) << 5);
}

/* Is the last byte, whose address is in U, in the page of that entry? Else jump. */
static uint8_t *check_last(struct tx *t, const struct slots *s)
{
    struct emit *e = &t->e;

    e_shift(e, 1, 5, H_U, 12);
    e_op_gs_x(e, 1, 0x03, H_U, H_T, 0, s->nvpn); /* page + -page */
    return e_jcc_fwd(e, 5);
}

/* T = index of the entry; jump if it is not that of the last byte; destroys U and the flags. [base
 * + disp], base may be C. */
static uint8_t *check_plain(struct tx *t, int base, int32_t disp, unsigned size,
                            const struct slots *s)
{
    struct emit *e = &t->e;
    int first = base;

    if (disp) {
        e_lea(e, 1, H_C, base, -1, 0, disp);
        first = H_C;
    }
    find_entry(t, first);
    if (size > 1)
        e_lea(e, 1, H_U, first, -1, 0, (int32_t)size - 1);
    else
        e_mov(e, H_U, first);
    return check_last(t, s);
}

uint8_t *tx_check_span(struct tx *t, int base, unsigned scale, unsigned access, int d)
{
    struct slots s = slots_for(t, access);
    struct emit *e = &t->e;
    uint8_t *site;

    find_entry(t, base);
    e_lea(e, 1, H_U, base, H_GRCX, (int)scale, -1);
    site = check_last(t, &s);
    e_op_gs_x(e, 1, 0x8b, d, H_T, 0, s.addend);
    e_lea(e, 1, d, d, base, 0, 0);
    return site;
}

/* The same for the address in U, leaving the flags alone; T = index in quarters. Destroys C, and U
 * or (keep) T. */
static uint8_t *check_flags(struct tx *t, unsigned size, const struct slots *s, bool keep)
{
    struct emit *e = &t->e;
    int entry = keep ? H_T : H_U;

    e_pext_gs(e, H_T, H_U, TX_OFF(tlb_mask));
    e_lea(e, 1, H_T, -1, H_T, 2, 0);
    if (size > 1)
        e_lea(e, 1, H_C, H_U, -1, 0, (int32_t)size - 1);
    e_pext_gs(e, H_C, size > 1 ? H_C : H_U, TX_OFF(page_mask));
    e_op_gs_x(e, 1, 0x8b, entry, H_T, 3, s->nvpn);
    e_lea(e, 1, H_C, H_C, entry, 0, 0);
    return e_jmp_unless_rcxz(e);
}

static struct tx_cold *new_access(struct tx *t, unsigned size, unsigned access)
{
    struct tx_cold *cold = &t->colds[t->ncolds++];

    if ((t->x->in.attributes & ZYDIS_ATTRIB_HAS_LOCK) || t->x->in.mnemonic == ZYDIS_MNEMONIC_XCHG)
        access |= SOFT_ACCESS_ATOMIC;
    *cold = (struct tx_cold){.kind = TX_COLD_ACCESS,
                             .size = (uint16_t)size,
                             .access = (uint8_t)access,
                             .pc = t->x->pc,
                             .ea_base = -1};
    t->c_window = -1;
    return cold;
}

void tx_check(struct tx *t, unsigned size, unsigned access, bool live, uint64_t next)
{
    struct tx_cold *cold = new_access(t, size, access);
    struct slots s = slots_for(t, access);
    struct emit *e = &t->e;

    cold->next = next;
    if (live && t->c->bmi2) {
        bool keep = t->ea_base < 0;

        cold->site = check_flags(t, size, &s, keep);
        cold->ea_in_u = keep;
        cold->ea_base = (int8_t)t->ea_base;
        cold->ea_disp = t->ea_disp;
        if (keep) {
            e_pext_gs(e, H_T, H_U, TX_OFF(tlb_mask));
            e_lea(e, 1, H_T, -1, H_T, 2, 0);
            e_op_gs_x(e, 1, 0x8b, H_T, H_T, 3, s.addend);
            e_lea(e, 1, H_C, H_U, H_T, 0, 0);
        } else {
            e_op_gs_x(e, 1, 0x8b, H_C, H_T, 3, s.addend);
            e_lea(e, 1, H_C, H_C, t->ea_base, 0, t->ea_disp);
        }
    } else {
        if (live)
            tx_flags_save(e);
        cold->site = check_plain(t, H_C, 0, size, &s);
        e_op_gs_x(e, 1, 0x03, H_C, H_T, 0, s.addend);
        if (live)
            tx_flags_restore(e);
        cold->restore = live;
    }
    cold->op = t->e.p;
}

void tx_check_window(struct tx *t, int base, int32_t disp, unsigned size, unsigned access)
{
    bool live = t->x->live, flags = live && t->c->bmi2;
    struct tx_cold *cold = new_access(t, size, access | SOFT_ACCESS_WINDOW);
    struct slots s = slots_for(t, access);
    struct emit *e = &t->e;

    cold->kind = TX_COLD_WINDOW;
    cold->op = e->p; /* to be tried again from here */
    cold->ea_base = (int8_t)base;
    cold->ea_disp = disp;
    cold->edge = (uint8_t)t->nlinks++;
    t->links[cold->edge] =
        (struct soft_link){.pc = t->x->pc, .mode = t->mode | SOFT_MODE_NOSHARE, .from = t->b};
    if (flags) {
        e_lea(e, 1, H_U, base, -1, 0, disp);
        cold->site = check_flags(t, size, &s, false);
        e_op_gs_x(e, 1, 0x8b, H_C, H_T, 3, s.addend);
        return;
    }
    if (live)
        tx_flags_save(e);
    cold->site = check_plain(t, base, disp, size, &s);
    e_op_gs_x(e, 1, 0x8b, H_C, H_T, 0, s.addend);
    if (live)
        tx_flags_restore(e);
    cold->restore = live;
}

void tx_done(struct tx *t)
{
    t->colds[t->ncolds - 1].op_end = t->e.p;
}

/* May the offset of 16 bits be checked inline? */
static bool fits_64k(const struct tx *t, unsigned seg, unsigned access)
{
    return (t->mode & (SOFT_MODE_64K | SOFT_MODE_CHECKED)) == SOFT_MODE_64K &&
           (t->c->bmi2 || !t->x->live) &&
           (seg != HSK_CS || !(access & SOFT_ACCESS_WRITE) || (t->mode & SOFT_MODE_REAL));
}

/* The offset is in d, where tx_check() wants the address: only what goes beyond 64 KiB is for C to
 * judge. */
static void check_64k(struct tx *t, int d, unsigned size, unsigned access, unsigned seg,
                      uint64_t next)
{
    struct emit *e = &t->e;
    uint8_t *beyond = NULL;
    struct tx_cold *cold;

    if (size > 1 && d == H_C) {
        e_alui(e, 0, 7, H_C, (int32_t)(0x10000 - size));
        beyond = e_jcc_fwd(e, 7);
    } else if (size > 1) {
        e_lea(e, 0, H_C, d, -1, 0, (int32_t)size - 1);
        e_rorx32(e, H_C, H_C, 16);
        zero_extend16(e, H_C);
        beyond = e_jmp_unless_rcxz(e);
    }
    t->ea_base = -1;
    e_ld_gs(e, H_T, TX_OFF(seg_base) + 8u * seg);
    e_lea(e, 0, d, d, H_T, 0, 0);
    tx_check(t, size, access, t->x->live, next);
    cold = &t->colds[t->ncolds - 1];
    cold->access |= SOFT_ACCESS_SEG;
    cold->seg = (uint8_t)seg;
    cold->site2 = beyond;
    cold->linear = true;
}

/* The offset is in C: C code checks the segment and looks into the TLB. */
static void check_in_c(struct tx *t, unsigned size, unsigned access, unsigned seg, uint64_t next)
{
    struct tx_cold *cold = new_access(t, size, access | SOFT_ACCESS_SEG);

    cold->seg = (uint8_t)seg;
    cold->next = next;
    cold->site = e_jmp_fwd(&t->e);
    cold->op = t->e.p;
}

void tx_operand(struct tx *t, const ZydisDecodedOperand *m, unsigned size, unsigned access,
                int rsp_adjust)
{
    bool live = t->x->live;

    if (m->mem.segment == ZYDIS_REGISTER_SS)
        access |= SOFT_ACCESS_STACK;
    if (!tx_checked(t, m, access)) {
        tx_ea(t, m, tx_ea_reg(t, live), rsp_adjust);
        tx_check(t, size, access, live, t->x->next);
    } else if (t->x->in.address_width == 16 && fits_64k(t, segment_of(m), access)) {
        tx_offset(t, m, tx_ea_reg(t, live), 16, rsp_adjust);
        check_64k(t, tx_ea_reg(t, live), size, access, segment_of(m), t->x->next);
    } else {
        tx_offset(t, m, H_C, t->x->in.address_width, rsp_adjust);
        check_in_c(t, size, access, segment_of(m), t->x->next);
    }
}

void tx_stack(struct tx *t, int base, int32_t disp, unsigned size, unsigned access, uint64_t next)
{
    bool live = t->x->live, limited = checked(t, HSK_SS, access),
         in_c = limited && !((t->mode & SOFT_MODE_STACK16) && fits_64k(t, HSK_SS, access));
    int d = in_c ? H_C : tx_ea_reg(t, live);

    access |= SOFT_ACCESS_STACK;
    e_lea(&t->e, !t->code32, d, base, -1, 0, disp);
    if (t->mode & SOFT_MODE_STACK16)
        zero_extend16(&t->e, d);
    if (in_c) {
        check_in_c(t, size, access, HSK_SS, next);
        return;
    }
    if (limited) {
        check_64k(t, d, size, access, HSK_SS, next);
        return;
    }
    t->ea_base = t->code32 ? -1 : base;
    t->ea_disp = disp;
    add_base(t, HSK_SS, d);
    tx_check(t, size, access, live, next);
}
