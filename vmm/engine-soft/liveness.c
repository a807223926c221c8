/* SPDX-License-Identifier: MIT */
/*
 * Which arithmetic flags somebody still needs: backward over a block, and from its exits a few
 * instructions forward. What is dead need not be kept over code that destroys it, which the inline
 * TLB checks do (translate-mem.c).
 *
 * Deliberately missing: what lies behind indirect branches and on other pages; there all flags
 * live. vCPU thread, FPU parked.
 */
#include "translate.h"

/* Which arithmetic flags somebody may read at pc: up to 6 instructions of the same page. */
static uint32_t flags_at(struct tx *t, uint64_t pc, const uint8_t *page)
{
    uint32_t pending = SOFT_ARITH, live = 0;
    struct soft_x *x = &t->c->x[SOFT_MAX_INSNS - 1]; /* scratch: the decoder leaves it free */
    bool more;

    for (unsigned i = 0; i < 6 && pending; i++) {
        unsigned off = tx_page_offset(t, pc);

        if (!tx_same_page(t, pc, t->b->pc) || pc > t->limit ||
            !soft_decode(t->v, x, t->mode, page + off, 4096 - off, pc, &more))
            return live | pending;
        t->b->granules |= 1ull << (off / 64) | 1ull << ((off + MAX(x->in.length, 1) - 1) / 64 % 64);
        live |= x->reads & pending;
        pending &= ~x->kills & ~live;
        if (!soft_x_ends(x)) {
            pc = x->next;
        } else if (x->kind == SOFT_X_JMP && x->op[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE) {
            pc = tx_target(t, x);
        } else {
            return live | pending;
        }
    }
    return live | pending;
}

/* Flags that somebody may read behind the block's last instruction. */
static uint32_t live_out(struct tx *t, struct soft_x *last, const uint8_t *page)
{
    switch (last->kind) {
    case SOFT_X_JMP:
    case SOFT_X_CALL:
        return last->op[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE
                   ? flags_at(t, tx_target(t, last), page)
                   : SOFT_ARITH;
    case SOFT_X_RET:
    case SOFT_X_LOOP:
    case SOFT_X_HELPER:
    case SOFT_X_UD:
    case SOFT_X_GP:
    case SOFT_X_UNKNOWN:
        return SOFT_ARITH;
    default:
        return flags_at(t, last->next, page);
    }
}

uint32_t tx_find_live(struct tx *t, struct soft_x *x, unsigned n, const uint8_t *page)
{
    uint32_t out, live;

    if (!page || t->c->strict || (t->mode & SOFT_MODE_SINGLE)) {
        for (unsigned i = 0; i < n; i++)
            x[i].live = x[i].live_taken = SOFT_ARITH;
        return SOFT_ARITH;
    }
    live = out = live_out(t, &x[n - 1], page);
    for (unsigned i = n; i-- > 0;) {
        if (x[i].kind == SOFT_X_JCC) {
            x[i].live_taken = flags_at(t, tx_target(t, &x[i]), page);
            live |= x[i].live_taken;
        }
        live = (live & ~x[i].kills) | x[i].reads;
        x[i].live = live;
    }
    return out;
}
