/* SPDX-License-Identifier: MIT */
/*
 * Windows: accesses of one block that go through the same base register are checked together.
 * Before a block is emitted, its accesses [base + constant] are collected as long as the base
 * changes only by constants (push, pop, add, lea). The first one of a window checks the whole span
 * and keeps the difference between host and guest address; the others use [difference + base +
 * constant] without any check.
 *
 * If the span does not lie in one page that may be accessed directly (it crosses pages, is device
 * memory, is not writable yet, has translations), execution goes on in another translation of the
 * same code, made with SOFT_MODE_NOSHARE, in which each access is checked for itself. Nothing that
 * changes the TLB can happen inside a block, except in helpers: those end all windows. vCPU thread.
 */
#include "translate.h"

#define SPAN_MAX 512

struct symbol {
    uint32_t version; /* changes when the register gets an unknown value */
    int64_t offset;   /* since then */
};

struct planner {
    struct tx *t;
    struct symbol reg[16];
};

static void forget_all(struct planner *p)
{
    for (unsigned g = 0; g < 16; g++)
        p->reg[g] = (struct symbol){p->reg[g].version + 1, 0};
}

/* Puts access number i, [g + disp], into a window. */
static void collect(struct planner *p, unsigned i, int g, int64_t disp, unsigned size,
                    unsigned access)
{
    struct tx *t = p->t;
    int64_t lo = p->reg[g].offset + disp, hi = lo + size;
    struct tx_window *w;

    for (unsigned k = 0; k < t->nwindows; k++) {
        w = &t->windows[k];
        if (w->guest == g && w->version == p->reg[g].version &&
            MAX(w->hi, hi) - MIN(w->lo, lo) <= SPAN_MAX) {
            w->lo = MIN(w->lo, lo);
            w->hi = MAX(w->hi, hi);
            w->access |= (uint8_t)access;
            w->count++;
            t->window_of[i] = (int8_t)k;
            return;
        }
    }
    if (t->nwindows == TX_MAX_WINDOWS)
        return;
    t->window_of[i] = (int8_t)t->nwindows;
    t->windows[t->nwindows++] = (struct tx_window){.guest = (int8_t)g,
                                                   .version = p->reg[g].version,
                                                   .lo = lo,
                                                   .hi = hi,
                                                   .access = (uint8_t)access,
                                                   .count = 1,
                                                   .first = (uint8_t)i,
                                                   .offset = p->reg[g].offset};
}

static void collect_operand(struct planner *p, unsigned i, const struct soft_x *x)
{
    const ZydisDecodedOperand *m = x->mem >= 0 ? &x->op[x->mem] : NULL;
    int g;

    if (!m || x->in.address_width != 64 || m->mem.index != ZYDIS_REGISTER_NONE ||
        m->mem.base == ZYDIS_REGISTER_RIP || m->mem.segment == ZYDIS_REGISTER_FS ||
        m->mem.segment == ZYDIS_REGISTER_GS)
        return;
    g = soft_gpr(m->mem.base);
    if (g >= 0 && tx_host(g) >= 0)
        collect(p, i, g, m->mem.disp.has_displacement ? m->mem.disp.value : 0, m->size / 8u,
                tx_access_of(x, m));
}

static bool adds_constant(const struct soft_x *x, int *g, int64_t *n)
{
    const ZydisDecodedOperand *d = &x->op[0], *s = &x->op[1];

    if (x->in.operand_width != 64 || d->type != ZYDIS_OPERAND_TYPE_REGISTER)
        return false;
    *g = soft_gpr(d->reg.value);
    if (x->kind == SOFT_X_LEA) {
        *n = s->mem.disp.has_displacement ? s->mem.disp.value : 0;
        return s->mem.base == d->reg.value && s->mem.index == ZYDIS_REGISTER_NONE;
    }
    if ((x->in.mnemonic != ZYDIS_MNEMONIC_ADD && x->in.mnemonic != ZYDIS_MNEMONIC_SUB) ||
        s->type != ZYDIS_OPERAND_TYPE_IMMEDIATE)
        return false;
    *n = x->in.mnemonic == ZYDIS_MNEMONIC_ADD ? s->imm.value.s : -s->imm.value.s;
    return true;
}

static void update_registers(struct planner *p, const struct soft_x *x)
{
    int64_t n;
    int g;

    if (adds_constant(x, &g, &n)) {
        p->reg[g].offset += n;
        return;
    }
    for (unsigned i = 0; i < x->in.operand_count; i++) {
        const ZydisDecodedOperand *o = &x->op[i];

        if (o->type != ZYDIS_OPERAND_TYPE_REGISTER ||
            !(o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE))
            continue;
        g = soft_gpr(o->reg.value);
        if (g >= 0) {
            g = g >= 16 ? g - 16 : g;
            p->reg[g] = (struct symbol){p->reg[g].version + 1, 0};
        }
    }
}

static void plan_stack(struct planner *p, unsigned i, const struct soft_x *x)
{
    struct symbol rsp = p->reg[HSK_RSP];
    bool memory = x->in.operand_count_visible && x->op[0].type == ZYDIS_OPERAND_TYPE_MEMORY;

    if (x->in.operand_width != 64 || (memory && x->kind != SOFT_X_CALL)) {
        update_registers(p, x);
        return;
    }
    switch (x->kind) {
    case SOFT_X_PUSH:
        collect(p, i, HSK_RSP, -8, 8, SOFT_ACCESS_WRITE);
        p->reg[HSK_RSP].offset = rsp.offset - 8;
        return;
    case SOFT_X_POP:
        collect(p, i, HSK_RSP, 0, 8, SOFT_ACCESS_READ);
        update_registers(p, x);
        if (soft_gpr(x->op[0].reg.value) != HSK_RSP)
            p->reg[HSK_RSP] = (struct symbol){rsp.version, rsp.offset + 8};
        return;
    case SOFT_X_CALL:
        if (!memory)
            collect(p, i, HSK_RSP, -8, 8, SOFT_ACCESS_WRITE);
        return;
    case SOFT_X_RET:
        collect(p, i, HSK_RSP, 0, 8, SOFT_ACCESS_READ);
        return;
    default: /* leave */
        collect(p, i, HSK_RBP, 0, 8, SOFT_ACCESS_READ);
        update_registers(p, x);
        return;
    }
}

static void plan_insn(struct planner *p, unsigned i, const struct soft_x *x)
{
    switch (x->kind) {
    case SOFT_X_PASS:
        collect_operand(p, i, x);
        update_registers(p, x);
        return;
    case SOFT_X_PUSH:
    case SOFT_X_POP:
    case SOFT_X_LEAVE:
    case SOFT_X_CALL:
    case SOFT_X_RET:
        plan_stack(p, i, x);
        return;
    case SOFT_X_LEA:
    case SOFT_X_BT:
    case SOFT_X_NOP:
    case SOFT_X_JCC:
    case SOFT_X_DF:
    case SOFT_X_JMP:
        update_registers(p, x);
        return;
    default:
        forget_all(p);
        return;
    }
}

void tx_plan_windows(struct tx *t, const struct soft_x *x, unsigned n)
{
    struct planner p = {.t = t};

    memset(t->window_of, -1, sizeof t->window_of);
    t->nwindows = 0;
    t->c_window = -1;
    if (t->code32 || t->c->strict ||
        (t->mode & (SOFT_MODE_SINGLE | SOFT_MODE_NOSHARE | SOFT_MODE_CHECKED)) ||
        t->b->gpa2 != SOFT_NO_GPA)
        return;
    for (unsigned i = 0; i < n; i++)
        plan_insn(&p, i, &x[i]);
    for (unsigned i = 0; i < n; i++) {
        int k = t->window_of[i];

        /* alone, or where the edge to the other translation could not be chained */
        if (k >= 0 && (t->windows[k].count < 2 ||
                       ((x[t->windows[k].first].pc & 0xfff) >= 0xff1 && !t->b->global)))
            t->window_of[i] = -1;
    }
}

/* The first access of window k: C = host - guest address, also kept in window[k]. */
static void open_window(struct tx *t, unsigned k)
{
    const struct tx_window *w = &t->windows[k];

    tx_check_window(t, tx_host(w->guest), (int32_t)(w->lo - w->offset), (unsigned)(w->hi - w->lo),
                    w->access);
    e_st_gs(&t->e, H_C, TX_OFF(window) + 8 * k);
}

bool tx_window(struct tx *t, struct tx_mem *m)
{
    unsigned i = (unsigned)(t->x - t->c->x);
    int k = t->window_of[i];

    if (k < 0)
        return false;
    if (t->windows[k].first == i)
        open_window(t, (unsigned)k);
    else if (t->c_window != k)
        e_ld_gs(&t->e, H_C, TX_OFF(window) + 8u * (unsigned)k);
    t->c_window = k;
    *m = (struct tx_mem){.base = H_C, .index = tx_host(t->windows[k].guest)};
    return true;
}
