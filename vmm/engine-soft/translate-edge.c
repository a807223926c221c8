/* SPDX-License-Identifier: MIT */
/*
 * The edges of blocks: jumps, calls and returns to guest addresses. Those within a page, and
 * between global pages, are chained by patching their jump (cache.c); others to another page look
 * into the jump cache (jump.c), since mappings may change under them. Pairs of call and return are
 * pairs on the host, too.
 *
 * Interrupts get in at backward edges (a poll) and at indirect jumps (kick() makes the jump cache
 * miss). vCPU thread, FPU parked.
 */
#include "translate.h"

uint64_t tx_target(const struct tx *t, const struct soft_x *x)
{
    uint64_t target = x->next + x->op[0].imm.value.u;

    return x->in.operand_width == 16 ? target & 0xffff : t->code32 ? target & UINT32_MAX : target;
}

static bool may_chain(const struct tx *t, uint64_t target)
{
    if (t->b->gpa2 == SOFT_NO_GPA && tx_same_page(t, target, t->b->pc))
        return tx_page_offset(t, target) < 0xff1 ||
               t->b->global; /* an instruction at the page's end may reach into the next */
    return t->b->global;
}

static uint64_t jump_base(const struct tx *t)
{
    unsigned table = (t->mode & SOFT_MODE_MMU) * 2 + t->code32;

    return TX_OFF(jump) + table * sizeof(((struct soft_vcpu *)0)->jump[0]);
}

/* What is added to rsp if the current branch turns out to go nowhere. */
static int32_t branch_undo(const struct soft_x *x)
{
    int32_t size = x->in.operand_width == 16 ? 2 : 8;

    if (x->kind == SOFT_X_CALL)
        return size;
    if (x->kind == SOFT_X_RET)
        return -size - (x->in.operand_count_visible ? (int32_t)x->op[0].imm.value.u & 0xffff : 0);
    return 0;
}

static void store_imm(struct emit *e, uint64_t off, int64_t value)
{
    if ((int32_t)value != value) {
        e_movi(e, H_C, (uint64_t)value);
        e_st_gs(e, H_C, off);
        return;
    }
    e_op_gs(e, 1, 0xc7, 0, off);
    e32(e, (uint32_t)value);
}

void tx_leave_for_branch(struct tx *t, struct emit *e)
{
    if (t->code32) { /* the target is known to be good */
        e_jmp(e, t->c->tramp[SOFT_TRAMP_LOOKUP]);
        return;
    }
    store_imm(e, TX_OFF(branch_pc), (int64_t)t->x->pc);
    store_imm(e, TX_OFF(branch_undo), branch_undo(t->x));
    e_jmp(e, t->c->tramp[SOFT_TRAMP_BRANCH]);
}

/*
 * The jump cache, inline: C = target; goes on with T = its entry (times 8), or leaves, from cold
 * code if that is not where it is emitted. C is lost.
 */
static void look_up(struct tx *t, struct emit *e, bool direct)
{
    uint8_t *miss;

    e_st_gs(e, H_C, TX_OFF(rip));
    e_pext_gs(e, H_T, H_C, TX_OFF(jump_mask));
    e_lea(e, 1, H_T, H_T, H_T, 1, 0);
    e_op_gs_x(e, 1, 0x8b, H_U, H_T, 3, jump_base(t) + offsetof(struct soft_jump, not_pc));
    e_lea(e, 1, H_C, H_C, H_U, 0, 1);
    miss = e_jmp_unless_rcxz(e);
    if (direct) {
        int32_t rel = (int32_t)(t->c->tramp[SOFT_TRAMP_LOOKUP] - (miss + e->rx));

        memcpy(miss - 4, &rel, 4);
    } else {
        t->colds[t->ncolds++] = (struct tx_cold){.kind = TX_COLD_BRANCH, .site = miss};
    }
}

/* jmp (ext 4) or call (ext 2) to where the entry says */
static void go_to_entry(struct tx *t, struct emit *e, int ext)
{
    if (t->floats) {
        e_op_gs_x(e, 1, 0x8b, H_U, H_T, 3, jump_base(t) + offsetof(struct soft_jump, page_va));
        e_st_gs(e, H_U, TX_OFF(page_va));
    }
    e_op_gs_x(e, 0, 0xff, ext, H_T, 3, jump_base(t) + offsetof(struct soft_jump, host));
}

void tx_jump_to(struct tx *t, struct emit *e, bool direct)
{
    if (t->c->bmi2 && !(t->mode & SOFT_MODE_SINGLE) && t->c->chain &&
        !(t->mode & SOFT_MODE_LIMIT)) {
        look_up(t, e, direct);
        go_to_entry(t, e, 4);
        return;
    }
    e_st_gs(e, H_C, TX_OFF(rip));
    if (direct)
        e_jmp(e, t->c->tramp[SOFT_TRAMP_LOOKUP]);
    else
        tx_leave_for_branch(t, e);
}

void tx_jmp_indirect(struct tx *t)
{
    tx_jump_to(t, &t->e, false);
}

/*
 * Return prediction. A call pushes the guest's return address on the host's stack and then calls; a
 * ret compares it with the address it got from the guest's stack and, if equal, returns behind that
 * call, which the processor has predicted. If not, the predictions are forgotten and the jump cache
 * decides. Pairs never outlive the mapping or mode that they were made in (soft_returns_forget()).
 * With SMAP on, code that runs with AC = 1 takes no part: its returns may cross CLAC.
 */
bool tx_predicts(const struct tx *t)
{
    unsigned mmu = t->mode & SOFT_MODE_MMU;

    if (!t->c->bmi2 || !t->c->chain || t->code32 || (t->mode & SOFT_MODE_SINGLE) ||
        t->x->in.operand_width != 64)
        return false;
    return mmu == SOFT_MMU_USER || mmu == SOFT_MMU_KERNEL_SMAP ||
           (mmu == SOFT_MMU_KERNEL && !(t->mode & SOFT_MODE_SMAP));
}

/* The guest's return address on the host's stack; destroys C. */
static void push_prediction(struct tx *t)
{
    struct emit *e = &t->e;
    uint64_t ret = t->x->next;

    if (!t->floats && (uint64_t)(int32_t)ret == ret) {
        e8(e, 0x68);
        e32(e, (uint32_t)ret);
        return;
    }
    tx_address(t, e, H_C, ret);
    e8(e, 0x51); /* push rcx */
}

/* Behind the call: where the host's ret comes back to. */
static void continuation(struct tx *t)
{
    struct emit *e = &t->e;

    e8(e, 0x59); /* pop rcx: the return address */
    if (t->floats) {
        e_lea(e, 1, H_C, H_C, -1, 0, -(int32_t)t->x->next);
        e_st_gs(e, H_C, TX_OFF(page_va));
    }
    tx_jmp(t, t->x->next, true);
}

void tx_call_indirect(struct tx *t)
{
    look_up(t, &t->e, false);
    push_prediction(t);
    go_to_entry(t, &t->e, 2);
    continuation(t);
}

void tx_return(struct tx *t)
{
    struct emit *e = &t->e;

    e_st_gs(e, H_C, TX_OFF(rip));
    e_op_mem(e, 1, 0x8b, H_T, H_RSP, -1, 0, 8);
    e_not(e, H_T);
    e_lea(e, 1, H_C, H_C, H_T, 0, 1);
    t->colds[t->ncolds++] = (struct tx_cold){.kind = TX_COLD_RETURN, .site = e_jmp_unless_rcxz(e)};
    e8(e, 0xc3);
}

/* A cold record for leaving to target through the jump at site (and site2). */
static void leave_by(struct tx *t, uint64_t target, uint32_t mode, uint8_t *site, uint8_t *site2)
{
    struct tx_cold *cold = &t->colds[t->ncolds++];

    *cold = (struct tx_cold){
        .kind = TX_COLD_LOOKUP, .site = site, .site2 = site2, .pc = target, .mode = mode};
    if (may_chain(t, target)) {
        struct soft_link *l = &t->links[t->nlinks];

        cold->kind = TX_COLD_LINK;
        cold->edge = (uint8_t)t->nlinks++;
        *l = (struct soft_link){.site = site + t->e.rx - 4,
                                .pc = target,
                                .mode = mode,
                                .from = t->b,
                                .cross = !tx_same_page(t, target, t->b->pc) ||
                                         t->b->gpa2 != SOFT_NO_GPA};
    }
}

/* Interrupts get in at backward edges. The site of the jump that leaves, or NULL. */
static uint8_t *poll_at(struct tx *t, uint64_t target, bool live)
{
    struct emit *e = &t->e;

    if (target > t->x->pc)
        return NULL;
    if (live) {
        e_op_gs(e, 0, 0x8b, H_C, TX_OFF(interrupt));
        return e_jmp_unless_rcxz(e);
    }
    e8(e, 0x65); /* cmp dword gs:[interrupt], 0 */
    e8(e, 0x83);
    e_modrm_mem(e, 7, -1, -1, 0, (int32_t)TX_OFF(interrupt));
    e8(e, 0);
    return e_jcc_fwd(e, 5);
}

void tx_call_direct(struct tx *t, uint64_t target, bool live)
{
    uint8_t *poll = poll_at(t, target, live), *site;

    push_prediction(t);
    site = e_jmp_fwd(&t->e);
    site[-5] = 0xe8; /* call */
    leave_by(t, target, t->mode & ~(uint32_t)SOFT_MODE_NOSHARE, site, poll);
    continuation(t);
}

void tx_jmp(struct tx *t, uint64_t target, bool live)
{
    uint8_t *poll = poll_at(t, target, live), *site = e_jmp_fwd(&t->e);

    leave_by(t, target, t->mode & ~(uint32_t)SOFT_MODE_NOSHARE, site, poll);
}

void tx_jmp_mode(struct tx *t, uint64_t target, uint32_t mode)
{
    leave_by(t, target, mode & ~(uint32_t)SOFT_MODE_NOSHARE, e_jmp_fwd(&t->e), NULL);
}

void tx_jcc(struct tx *t, unsigned cc, uint64_t target, bool live)
{
    struct emit *e = &t->e;
    uint8_t *around;

    if (target > t->limit) {
        around = e_jcc_fwd(e, cc ^ 1);
        tx_raise_gp(t);
        e_resolve(around, e);
        return;
    }
    if (target > t->x->pc) {
        leave_by(t, target, t->mode & ~(uint32_t)SOFT_MODE_NOSHARE, e_jcc_fwd(e, cc), NULL);
        return;
    }
    around = e_jcc_fwd(e, cc ^ 1);
    tx_jmp(t, target, live);
    e_resolve(around, e);
}
