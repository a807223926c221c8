/* SPDX-License-Identifier: MIT */
/*
 * One block: decode until control flow, page end or 64 instructions; find out which flags live
 * (liveness.c); emit; then the edge behind its end and the cold code. vCPU thread, FPU parked.
 */
#include "translate.h"

#include <vmm/cpu_bits.h>

#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

/* --- calls of C --- */

void tx_call(struct tx *t, const void *fn, uint64_t arg)
{
    struct emit *e = &t->e;

    e_call(e, t->c->tramp[SOFT_TRAMP_CALL]);
    e64(e, (uint64_t)(uintptr_t)fn);
    e64(e, t->x->pc);
    e64(e, arg);
}

void tx_raise_gp(struct tx *t)
{
    tx_call(t, (const void *)(uintptr_t)soft_call_raise, 13 | SOFT_RAISE_ERROR_0);
}

void tx_check_target(struct tx *t)
{
    if (t->limit >= UINT32_MAX)
        return;
    tx_call(t, (const void *)(uintptr_t)soft_call_check_target, 0);
    e_ld_gs(&t->e, H_C, TX_OFF(jump_target));
}

void tx_call_insn(struct tx *t, const void *fn)
{
    struct soft_insn *in = soft_code_alloc(t->c, sizeof *in);

    soft_x_insn(t->x, t->mode, in);
    tx_call(t, fn, (uint64_t)(uintptr_t)in);
}

void tx_cold_exec(struct tx *t, uint8_t *site)
{
    struct soft_insn *in = soft_code_alloc(t->c, sizeof *in);

    soft_x_insn(t->x, t->mode, in);
    t->colds[t->ncolds++] = (struct tx_cold){.kind = TX_COLD_CALL,
                                             .site = site,
                                             .op = t->e.p,
                                             .pc = t->x->pc,
                                             .next = (uint64_t)(uintptr_t)in};
}

/* --- the block --- */

/* The vector to raise because the FPU or SIMD state is not to be used, or 0. */
static unsigned fpu_vector(const struct tx *t)
{
    uint32_t m = t->mode;

    switch (t->x->fpu) {
    case SOFT_FPU_X87:
        return m & (SOFT_MODE_TS | SOFT_MODE_EM) ? 7 : 0;
    case SOFT_FPU_MMX:
        return m & SOFT_MODE_EM ? 6 : m & SOFT_MODE_TS ? 7 : 0;
    case SOFT_FPU_SSE:
        return m & SOFT_MODE_EM || !(m & SOFT_MODE_SSE) ? 6 : m & SOFT_MODE_TS ? 7 : 0;
    case SOFT_FPU_AVX:
        return !(m & SOFT_MODE_AVX) ? 6 : m & SOFT_MODE_TS ? 7 : 0;
    default:
        return 0;
    }
}

/* Returns whether nothing of the block follows. */
static bool emit_insn(struct tx *t, uint32_t live)
{
    unsigned vector = fpu_vector(t);

    if (vector) {
        tx_call(t, (const void *)(uintptr_t)soft_call_raise, vector);
        return true;
    }
    switch (t->x->kind) {
    case SOFT_X_PASS:
        if (t->x->in.mnemonic == ZYDIS_MNEMONIC_PAUSE && t->v->base.engine->cfg.ncpus > 1)
            tx_pause(t);
        else
            tx_pass(t);
        return false;
    case SOFT_X_NOP:
        return false;
    case SOFT_X_LEA:
        tx_lea(t);
        return false;
    case SOFT_X_BT:
        tx_bit(t);
        return false;
    case SOFT_X_DF:
        tx_direction(t);
        return false;
    case SOFT_X_STRING:
        tx_string(t);
        return false;
    case SOFT_X_HELPER:
        if (tx_system(t))
            return soft_x_ends(t->x);
        tx_call_insn(t, (const void *)(uintptr_t)soft_call_exec);
        return false;
    case SOFT_X_UD:
        tx_call(t, (const void *)(uintptr_t)soft_call_raise, 6);
        return true;
    case SOFT_X_GP:
        tx_raise_gp(t);
        return true;
    case SOFT_X_UNKNOWN:
        tx_call_insn(t, (const void *)(uintptr_t)soft_call_unknown);
        return true;
    case SOFT_X_PUSH:
    case SOFT_X_POP:
    case SOFT_X_LEAVE:
    case SOFT_X_JCC:
        tx_flow(t, live);
        return false;
    default:
        tx_flow(t, live);
        return true;
    }
}

/* Kinds that say themselves when they destroy C. */
static bool keeps_c(const struct tx *t, const struct soft_x *x)
{
    switch (x->kind) {
    case SOFT_X_PASS:
    case SOFT_X_LEA:
    case SOFT_X_NOP:
    case SOFT_X_PUSH:
    case SOFT_X_POP:
    case SOFT_X_LEAVE:
    case SOFT_X_CALL:
    case SOFT_X_RET:
        return true;
    case SOFT_X_JCC:
        return tx_target(t, x) > x->pc;
    default:
        return false;
    }
}

static void emit_block(struct tx *t, struct soft_x *x, unsigned n, uint32_t live)
{
    struct soft_code *c = t->c;
    struct soft_block *b = t->b;
    struct soft_point *points;
    bool ended = false;

    c->hot = (c->hot + 15) & ~15u;
    t->e = (struct emit){.p = c->rw + c->hot, .rx = c->rx - c->rw};
    t->cold = (struct emit){.p = c->rw + c->cold, .rx = c->rx - c->rw};
    b->host = e_here(&t->e);
    b->host_start = c->hot;
    b->cold_start = c->cold;
    for (unsigned i = 0; i < n && !ended; i++) {
        t->x = &x[i];
        if (!keeps_c(t, &x[i]))
            t->c_window = -1;
        tx_add_point(t, &t->e, x[i].pc);
        ended = emit_insn(t, live);
    }
    if (!ended)
        tx_jmp(t, x[n - 1].next, live != 0);
    tx_emit_cold(t);
    b->host_end = c->hot = (uint32_t)(t->e.p - c->rw);
    b->cold_end = c->cold = (uint32_t)(t->cold.p - c->rw);
    points = soft_code_alloc(c, t->npoints * sizeof *points);
    memcpy(points, t->points, t->npoints * sizeof *points);
    b->points = points;
    b->npoints = t->npoints;
}

/* Decodes the instruction at pc that reaches into the next page. False: v->exc says why it cannot
 * be fetched. */
static bool decode_straddling(struct tx *t, struct soft_x *x, const struct soft_itlb *page)
{
    uint64_t pc = t->b->pc, room = t->limit - pc + 1;
    unsigned off = tx_page_offset(t, pc), n = 4096 - off;
    uint8_t bytes[32];
    const struct soft_itlb *p2;
    bool more;

    memcpy(bytes, page->host + off, n);
    t->b->global = page->global;
    p2 = soft_fetch_page(t->v, soft_second_page(t->v, t->va), t->mode & SOFT_MODE_MMU);
    if (!p2)
        return false;
    soft_code_claim(t->v, p2->gpa);
    memcpy(bytes + n, p2->host, 15 - n);
    t->b->gpa2 = p2->gpa;
    t->b->granules2 = 1;
    t->b->global &= p2->global;
    if (!soft_decode(t->v, x, t->mode, bytes, room && room < 15 ? (unsigned)room : 15, pc, &more))
        x->kind = SOFT_X_GP; /* beyond the limit */
    return true;
}

/* Does the block go on behind a conditional jump? Not behind a loop's. */
static bool goes_on(const struct tx *t, const struct soft_x *x, unsigned *branches)
{
    return tx_target(t, x) > x->pc && ++*branches <= SOFT_MAX_BRANCHES;
}

/* False: the instruction reaches into the next page. */
static bool decode_here(struct tx *t, struct soft_x *x, const uint8_t *page, unsigned off,
                        uint64_t pc)
{
    uint64_t room = t->limit - pc + 1; /* 0: no limit in 64 bits */
    unsigned n = 4096 - off;
    bool cut = room && room < n, more;

    if (soft_decode(t->v, x, t->mode, page + off, cut ? (unsigned)room : n, pc, &more))
        return true;
    if (!cut)
        return false;
    x->kind = SOFT_X_GP; /* it reaches beyond the limit */
    return true;
}

/* A line of perf's map for each half: "u64_400000" is user code of 64 bits at 400000h, its slow
   paths end with "_cold". Names stay when the cache is flushed, and its room gets new ones. */
static void name_for_perf(struct soft_vcpu *v, const struct soft_block *b, uint64_t va)
{
    const struct soft_code *c = v->code;
    const char ring = (b->mode & SOFT_MODE_MMU) == SOFT_MMU_USER ? 'u' : 'k';
    const unsigned bits = b->mode & SOFT_MODE_CODE16 ? 16 : b->mode & SOFT_MODE_CODE32 ? 32 : 64;
    char lines[200];
    int n =
        snprintf(lines, sizeof lines,
                 "%" PRIxPTR " %x %c%u_%" PRIx64 "\n%" PRIxPTR " %x %c%u_%" PRIx64 "_cold\n",
                 (uintptr_t)(c->rx + b->host_start), b->host_end - b->host_start, ring, bits, va,
                 (uintptr_t)(c->rx + b->cold_start), b->cold_end - b->cold_start, ring, bits, va);

    if (write(v->base.engine->cfg.perf_map, lines, (size_t)n) != n)
        v->base.engine->cfg.perf_map = 0; /* no room: fewer names */
}

struct soft_block *soft_translate(struct soft_vcpu *v, uint64_t pc, uint32_t mode,
                                  const struct soft_itlb *page)
{
    struct soft_code *c = v->code;
    struct soft_block *b = soft_code_alloc(c, sizeof *b);
    struct tx *t = c->tx;
    struct soft_x *x = c->x;
    unsigned off, n = 0, branches = 0,
                  max = mode & SOFT_MODE_SINGLE || c->strict ? 1 : SOFT_MAX_INSNS - 1;
    uint32_t live;

    memset(b, 0, sizeof *b);
    t->v = v;
    t->c = c;
    t->b = b;
    t->mode = mode;
    t->code32 = mode & SOFT_MODE_CODE32;
    t->floats = soft_mode_floats(mode);
    t->va = soft_linear_pc(v, pc);
    t->cs_base = t->code32 ? v->seg_base[HSK_CS] : 0;
    t->limit = t->code32 ? v->s.seg[HSK_CS].limit : ~0ull;
    off = (unsigned)(t->va & 0xfff);
    if (t->floats)
        pc = off;
    t->nlinks = t->ncolds = t->npoints = 0;
    *b = (struct soft_block){.pc = pc,
                             .gpa = page->gpa | off,
                             .gpa2 = SOFT_NO_GPA,
                             .mode = mode,
                             .global = (page->global && !t->cs_base) ||
                                       (mode & SOFT_MODE_MMU) == SOFT_MMU_PHYS};
    soft_code_claim(v, page->gpa);
    while (n < max && off < 4096 && decode_here(t, &x[n], page->host, off, pc)) {
        off += MAX(x[n].in.length, 1u);
        pc = x[n].next;
        n++;
        if (pc < x[n - 1].pc || pc > t->limit)
            break;
        if (x[n - 1].kind == SOFT_X_JCC ? !goes_on(t, &x[n - 1], &branches)
                                        : soft_x_ends(&x[n - 1]))
            break;
    }
    if (n == 0) {
        if (!decode_straddling(t, x, page))
            return NULL;
        n = 1;
        off = 4096;
    }
    b->ninsns = n;
    b->length = (uint32_t)(x[n - 1].next - b->pc);
    for (unsigned g = (unsigned)(b->gpa & 0xfff) / 64; g <= (off - 1) / 64; g++)
        b->granules |= 1ull << g;
    live = tx_find_live(t, x, n, b->gpa2 == SOFT_NO_GPA ? page->host : NULL);
    tx_plan_windows(t, x, n);
    emit_block(t, x, n, live);
    if (v->lockstep)
        soft_lockstep_note(b, x);
    soft_block_publish(v, b);
    if (v->base.engine->cfg.perf_map)
        name_for_perf(v, b, t->va);
    return b;
}
