/* SPDX-License-Identifier: MIT */
/*
 * The jump cache: where the code of an indirect branch's target is (struct soft_jump). Translated
 * code looks into it (translate-edge.c), the dispatcher fills it. One table per MMU index and code
 * size, of targets of one mode.
 *
 * The low bits of a slot are of the offset in the page, so that the entries of a page lie together.
 * vCPU thread; general registers only.
 */
#include "xlate.h"

#define PAGE_SLOTS 1024u /* 4 in 16 bytes */

static unsigned slot_of(uint64_t pc)
{
    return (unsigned)((pc >> 1 & 3) | (pc >> 4 & ((1u << (SOFT_JUMP_BITS - 2)) - 1)) << 2 |
                      (pc >> 46 & 1) << SOFT_JUMP_BITS);
}

static unsigned table_of(uint32_t mode)
{
    return (mode & SOFT_MODE_MMU) * 2 + !!(mode & SOFT_MODE_CODE32);
}

/* The first slot stays empty, since kick() sends all lookups there, and the last one because of the
   address ~0, whose complement means empty: what translated code then takes for a hit must be a
   miss. */
void soft_jump_init(struct soft_vcpu *v)
{
    for (unsigned t = 0; t < G_N_ELEMENTS(v->jump); t++)
        v->jump[t][0].host = v->jump[t][SOFT_JUMP_SIZE - 1].host =
            (uint64_t)(uintptr_t)v->code->tramp[SOFT_TRAMP_LOOKUP];
}

const struct soft_jump *soft_jump_find(const struct soft_vcpu *v, uint64_t pc, uint32_t mode)
{
    const struct soft_jump *j = &v->jump[table_of(mode)][slot_of(pc)];

    return j->not_pc && j->not_pc == ~pc ? j : NULL;
}

void soft_jump_fill(struct soft_vcpu *v, uint64_t pc, struct soft_block *b)
{
    unsigned t = table_of(b->mode), s = slot_of(pc);
    struct soft_jump_fills *f = &v->code->jump_fills[t];
    struct soft_jump *j = &v->jump[t][s];

    if (s == 0 || s == SOFT_JUMP_SIZE - 1)
        return; /* soft_jump_init() */
    if (!j->not_pc) {
        if (f->n < SOFT_JUMP_FILLS)
            f->slot[f->n] = s;
        f->n++;
    }
    if (!b->global)
        v->code->jump_local[t] = true;
    soft_filter_set(v->code->jump_pages[t], pc >> 12);
    if (b->gpa2 != SOFT_NO_GPA)
        soft_filter_set(v->code->jump_pages[t], (pc >> 12) + 1);
    b->jump_slot = b->jump_slot == 0 || b->jump_slot == s ? s : SOFT_JUMP_SIZE;
    j->not_pc = ~pc;
    j->host = (uint64_t)(uintptr_t)b->host;
    j->page_va = v->page_va;
}

void soft_jump_drop(struct soft_vcpu *v, const struct soft_block *b)
{
    struct soft_jump *table = v->jump[table_of(b->mode)];
    const bool several =
        b->jump_slot == SOFT_JUMP_SIZE; /* it floats: they agree in the offset in the page */

    if (b->jump_slot == 0)
        return;
    for (unsigned s = several ? slot_of(b->pc & 0xfff) : b->jump_slot; s < SOFT_JUMP_SIZE;
         s += several ? PAGE_SLOTS : SOFT_JUMP_SIZE)
        if (table[s].host == (uint64_t)(uintptr_t)b->host)
            table[s].not_pc = 0;
}

static void flush_table(struct soft_vcpu *v, unsigned t)
{
    struct soft_jump_fills *f = &v->code->jump_fills[t];
    const bool all = f->n > SOFT_JUMP_FILLS;

    for (unsigned i = 0; i < (all ? SOFT_JUMP_SIZE : f->n); i++)
        v->jump[t][all ? i : f->slot[i]].not_pc = 0;
    f->n = 0;
    v->code->jump_local[t] = false;
    for (unsigned i = 0; i < G_N_ELEMENTS(v->code->jump_pages[t]); i++)
        v->code->jump_pages[t][i] = 0;
}

/* all: else only tables that have targets on pages that are not global. */
void soft_jump_flush(struct soft_vcpu *v, bool all)
{
    for (unsigned t = 0; t < G_N_ELEMENTS(v->jump); t++)
        if (all || v->code->jump_local[t])
            flush_table(v, t);
}

void soft_jump_mode(struct soft_vcpu *v, uint32_t mode)
{
    const uint32_t own = mode & ~(uint32_t)(SOFT_MODE_MMU | SOFT_MODE_CODE32);
    unsigned t = table_of(mode), n = 1;

    /* STAC and CLAC go from one kernel table to the other without the dispatcher */
    if ((mode & SOFT_MODE_MMU) <= SOFT_MMU_KERNEL_SMAP) {
        t &= 1;
        n = 2;
    }
    for (; n > 0; n--, t += 2)
        if (v->code->jump_mode[t] != own) {
            flush_table(v, t);
            v->code->jump_mode[t] = own;
        }
}

/* Also the end of the page before: a block there may go on into this one. */
static void flush_page(struct soft_jump *table, uint64_t va)
{
    const uint64_t start = (va & ~0xfffull) - 16;

    for (unsigned i = 0; i < 16 + 4096; i += i % 16 == 6 ? 10 : 2) {
        struct soft_jump *j = &table[slot_of(start + i)];

        if (~j->not_pc - start < 16 + 4096)
            j->not_pc = 0;
    }
}

void soft_jump_flush_page(struct soft_vcpu *v, uint64_t va)
{
    for (unsigned t = 0; t < G_N_ELEMENTS(v->jump); t++) {
        if (v->code->jump_mode[t] & SOFT_MODE_BASES)
            flush_table(v, t); /* its addresses are not linear */
        else if (soft_filter_has(v->code->jump_pages[t], va >> 12))
            flush_page(v->jump[t], va);
    }
}
