/* SPDX-License-Identifier: MIT */
/*
 * Chaos, for tests: between two blocks of guest code, things happen at random that may happen there
 * at any time, only much more often: a look at events for nothing, TLB flushes of all kinds, loss
 * of translations, permission to write withdrawn as by a snapshot, kicks out of run(), the state
 * saved and loaded; and edges are not chained and jump targets not remembered. A guest must not
 * notice. The seed decides what happens at which turn of the dispatcher; when turns come depends on
 * interrupts, too.
 *
 * vCPU thread, in the dispatcher, the guest's FPU registers live.
 */
#include "xlate.h"

static uint64_t random_number(struct soft_vcpu *v)
{
    v->chaos ^= v->chaos << 13;
    v->chaos ^= v->chaos >> 7;
    v->chaos ^= v->chaos << 17;
    return (v->chaos * 0x2545f4914f6cdd1dull) >> 16;
}

void soft_chaos_start(struct soft_vcpu *v)
{
    const uint64_t seed = v->base.engine->cfg.chaos;

    v->chaos = seed ? (seed + v->base.index) * 0x9e3779b97f4a7c15ull | 1 : 0;
}

bool soft_chaos_denies(struct soft_vcpu *v)
{
    return random_number(v) & 3;
}

/* All that a snapshot would keep, and nothing else, survives. */
static void save_and_load(struct soft_vcpu *v)
{
    const struct hsk_engine_ops *ops = v->base.engine->ops;
    GError *error = NULL;
    struct hsk_cpu_state s;

    ops->get_state(&v->base, &s);
    memset(v->gpr, 0xa5, sizeof v->gpr);
    memset(v->scratch, 0xa5, sizeof v->scratch);
    memset(v->window, 0xa5, sizeof v->window);
    v->page_va = v->jump_target = 0xa5a5a5a5a5a5a5a5;
    if (!ops->set_state(&v->base, &s, &error))
        soft_stop(v, "The software engine refused the state that it had saved itself: %s",
                  error->message);
}

static void drop_page(struct soft_vcpu *v, uint64_t va)
{
    struct soft_walk w;

    if ((uint64_t)((int64_t)(va << 16) >> 16) == va &&
        soft_walk(v, soft_linear_pc(v, va), SOFT_ACC_FETCH, v->mmu, &w) < 0)
        soft_code_invalidate(v, w.gpa, HSK_PAGE_SIZE);
}

void soft_chaos(struct soft_vcpu *v)
{
    const uint64_t r = random_number(v);

    if (r & 15)
        return;
    v->count.chaos++;
    soft_fpu_park(v);
    v->exit_arg = 0; /* the edge that led here may not outlive what happens */
    switch (r >> 4 & 31) {
    case 0:
    case 1:
        soft_tlb_flush_all(v);
        break;
    case 2:
    case 3:
    case 4:
        soft_tlb_flush_nonglobal(v);
        break;
    case 5:
    case 6:
        soft_tlb_flush_page(v, soft_linear_pc(v, v->rip));
        break;
    case 7:
    case 8:
    case 9:
        soft_tlb_flush_page(v, v->gpr[r >> 9 & 15]);
        break;
    case 10:
    case 11:
        drop_page(v, v->rip);
        break;
    case 12:
        if ((r >> 9 & 63) == 0)
            soft_code_flush(v);
        break;
    case 13:
    case 14:
        soft_tlb_drop_writes(v);
        break;
    case 15:
    case 16:
        soft_interrupt(v, SOFT_INT_KICK);
        break;
    case 17:
    case 18:
        save_and_load(v);
        break;
    case 19:
    case 20:
        soft_interrupt(v, SOFT_INT_FLUSH | SOFT_INT_CODE);
        break;
    default:
        soft_interrupt(v, SOFT_INT_APIC);
        break;
    }
}
