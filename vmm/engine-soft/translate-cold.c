/* SPDX-License-Identifier: MIT */
/*
 * The cold code of a block, in the second half of the code cache: slow accesses, instructions done
 * in C after all, edges that are not chained yet. Each is entered by a jump of the hot code that
 * was recorded as struct tx_cold. vCPU thread, FPU parked.
 */
#include "translate.h"

static void cold_access(struct tx *t, const struct tx_cold *k)
{
    struct emit *e = &t->cold;
    ptrdiff_t rx = t->e.rx;

    e_resolve(k->site, e);
    if (k->restore)
        tx_flags_restore(e);
    if ((k->access & SOFT_ACCESS_SEG) &&
        k->linear) { /* back to the offset, which is all that came from site2 */
        int d = k->ea_in_u ? H_U : H_C;

        e_ld_gs(e, H_T, TX_OFF(seg_base) + 8u * k->seg);
        e_not(e, H_T);
        e_lea(e, 0, d, d, H_T, 0, 1);
        if (k->site2)
            e_resolve(k->site2, e);
    }
    if (k->ea_base >= 0)
        e_lea(e, 1, H_C, k->ea_base, -1, 0, k->ea_disp);
    else if (k->ea_in_u)
        e_mov(e, H_C, H_U);
    e_call(e, t->c->tramp[SOFT_TRAMP_ACCESS]);
    e64(e, k->pc);
    e8(e, k->size & 0xff);
    e8(e, k->size >> 8);
    e8(e, k->access);
    e8(e, k->seg);
    e->p += 4;
    e_jmp(e, k->op + rx);
    if (k->kind == TX_COLD_WINDOW) {
        struct soft_link *l = &t->b->links[k->edge];

        e8(e, 0xe9); /* the chained jump itself is in cold code */
        l->site = e_here(e);
        l->stub = l->site + 4;
        e32(e, 0);
        e_movi(e, H_C, (uint64_t)(uintptr_t)l);
        e_jmp(e, t->c->tramp[SOFT_TRAMP_LINK]);
        return;
    }
    if (!(k->access & SOFT_ACCESS_WRITE))
        return;
    tx_add_point(t, e, k->pc);
    memcpy(e->p, k->op, (size_t)(k->op_end - k->op));
    e->p += k->op_end - k->op;
    e_call(e, t->c->tramp[SOFT_TRAMP_WRITEBACK]);
    e64(e, k->next);
    e_jmp(e, k->op_end + rx);
}

static void cold_call(struct tx *t, const struct tx_cold *k)
{
    struct emit *e = &t->cold;

    e_resolve(k->site, e);
    e_call(e, t->c->tramp[SOFT_TRAMP_CALL]);
    e64(e, (uint64_t)(uintptr_t)soft_call_exec);
    e64(e, k->pc);
    e64(e, k->next);
    e_jmp(e, k->op + t->e.rx);
}

void tx_emit_cold(struct tx *t)
{
    struct emit *e = &t->cold;

    t->b->links = soft_code_alloc(t->c, t->nlinks * sizeof *t->links);
    t->b->nlinks = t->nlinks;
    memcpy(t->b->links, t->links, t->nlinks * sizeof *t->links);
    for (unsigned i = 0; i < t->ncolds; i++) {
        const struct tx_cold *k = &t->colds[i];

        if (k->kind == TX_COLD_ACCESS || k->kind == TX_COLD_WINDOW) {
            cold_access(t, k);
            continue;
        }
        if (k->kind == TX_COLD_CALL) {
            cold_call(t, k);
            continue;
        }
        if (k->kind == TX_COLD_RETURN) {
            e_resolve(k->site, e);
            e_ld_gs(e, H_RSP, TX_OFF(ret_base));
            e_ld_gs(e, H_C, TX_OFF(rip));
            tx_jump_to(t, e, false);
            continue;
        }
        if (k->kind == TX_COLD_BRANCH) {
            e_resolve(k->site, e);
            tx_leave_for_branch(t, e);
            continue;
        }
        e_resolve(k->site, e);
        if (k->site2)
            e_resolve(k->site2, e);
        if (k->kind == TX_COLD_LINK) {
            struct soft_link *l = &t->b->links[k->edge];

            l->stub = e_here(e);
            e_movi(e, H_C, (uint64_t)(uintptr_t)l);
            e_jmp(e, t->c->tramp[SOFT_TRAMP_LINK]);
        } else {
            tx_address(t, e, H_C, k->pc);
            if (k->mode == (t->mode & ~(uint32_t)SOFT_MODE_NOSHARE)) {
                tx_jump_to(t, e, true);
            } else {
                e_st_gs(e, H_C, TX_OFF(rip));
                e_jmp(e, t->c->tramp[SOFT_TRAMP_LOOKUP]);
            }
        }
    }
}
