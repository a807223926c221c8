/* SPDX-License-Identifier: MIT */
/*
 * Stack and control flow: push, pop, leave, call, ret, jmp, jcc, loop. Operands are read before
 * anything changes, so that a fault restarts the instruction. vCPU thread.
 */
#include "translate.h"

static unsigned stack_size(const struct tx *t)
{
    return t->x->in.operand_width == 16 ? 2 : t->code32 ? 4 : 8;
}

static const struct tx_mem at_c = {H_C, -1, 0};

/* mov [m], src or mov dst, [m] of 2, 4 or 8 bytes */
static void move_sized(struct emit *e, unsigned op, int reg, unsigned size, const struct tx_mem *m)
{
    if (size == 2)
        e8(e, 0x66);
    e_op_mem(e, size == 8, op, reg, m->base, m->index, 0, m->disp);
}

static void read_extended(struct emit *e, int d, unsigned size, const struct tx_mem *m)
{
    if (size == 2) { /* movzx d, word [m] */
        e_rex(e, 0, d, m->index < 0 ? 0 : m->index, m->base);
        e8(e, 0x0f);
        e8(e, 0xb7);
        e_modrm_mem(e, d, m->base, m->index, 0, m->disp);
    } else {
        e_op_mem(e, size == 8, 0x8b, d, m->base, m->index, 0, m->disp);
    }
}

/* rsp = base + n, as wide as the stack pointer is. May destroy U. */
static void set_rsp(struct tx *t, int base, int32_t n)
{
    struct emit *e = &t->e;

    if (!(t->mode & SOFT_MODE_STACK16)) {
        e_lea(e, !t->code32, H_GRSP, base, -1, 0, n);
        return;
    }
    e_lea(e, 0, H_U, base, -1, 0, n);
    e8(e, 0x66);
    e_op_rr(e, 0, 0x89, H_U, H_GRSP);
}

static void add_rsp(struct tx *t, int32_t n)
{
    set_rsp(t, H_GRSP, n);
}

/* Makes room for a store of size bytes below rsp: where. Whoever gets true back calls tx_done(). */
static bool check_push(struct tx *t, unsigned size, uint64_t next, struct tx_mem *m)
{
    if (tx_window(t, m)) {
        m->disp = -(int32_t)size;
        return false;
    }
    *m = at_c;
    tx_stack(t, H_GRSP, -(int32_t)size, size, SOFT_ACCESS_WRITE, next);
    return true;
}

static bool check_pop(struct tx *t, int base, unsigned size, struct tx_mem *m)
{
    if (tx_window(t, m))
        return false;
    *m = at_c;
    tx_stack(t, base, 0, size, SOFT_ACCESS_READ, t->x->next);
    return true;
}

static void done_if(struct tx *t, bool checked)
{
    if (checked)
        tx_done(t);
}

/* Reads the explicit memory operand (zero-extended) into C. */
static void read_operand(struct tx *t, unsigned size)
{
    struct emit *e = &t->e;

    tx_operand(t, &t->x->op[0], size, SOFT_ACCESS_READ, 0);
    read_extended(e, H_C, size, &at_c);
    tx_done(t);
}

static void push_immediate(struct tx *t, int64_t value, unsigned size, const struct tx_mem *m)
{
    struct emit *e = &t->e;

    if (size == 2)
        e8(e, 0x66);
    e_op_mem(e, size == 8, 0xc7, 0, m->base, m->index, 0, m->disp);
    if (size == 2) {
        e8(e, (unsigned)value & 0xff);
        e8(e, (unsigned)(value >> 8) & 0xff);
    } else {
        e32(e, (uint32_t)value);
    }
}

static void push(struct tx *t)
{
    const ZydisDecodedOperand *o = &t->x->op[0];
    struct emit *e = &t->e;
    unsigned size = stack_size(t);
    struct tx_mem m;
    bool checked;

    if (o->type == ZYDIS_OPERAND_TYPE_MEMORY) {
        read_operand(t, size);
        e_st_gs(e, H_C, TX_SCRATCH(2));
    }
    checked = check_push(t, size, t->x->next, &m);
    if (o->type == ZYDIS_OPERAND_TYPE_IMMEDIATE) {
        push_immediate(t, o->imm.value.s, size, &m);
    } else if (o->type == ZYDIS_OPERAND_TYPE_MEMORY) {
        e_ld_gs(e, H_T, TX_SCRATCH(2));
        move_sized(e, 0x89, H_T, size, &m);
    } else {
        move_sized(e, 0x89, tx_use(t, soft_gpr(o->reg.value), H_T), size, &m);
    }
    add_rsp(t, -(int32_t)size);
    done_if(t, checked);
}

static void pop_register(struct tx *t, int g, unsigned size)
{
    struct emit *e = &t->e;
    int h = tx_host(g), d = h < 0 ? H_T : h;
    struct tx_mem m;
    bool checked = check_pop(t, H_GRSP, size, &m);

    if (g != HSK_RSP || size == 2) {
        if (h < 0 && size == 2)
            e_ld_gs(e, H_T, TX_GPR(g));
        if (g == HSK_RSP)
            add_rsp(t, 2); /* 16 bits are never in a window */
        move_sized(e, 0x8b, d, size, &m);
        if (h < 0)
            e_st_gs(e, H_T, TX_GPR(g));
        if (g != HSK_RSP)
            add_rsp(t, (int32_t)size);
    } else {
        move_sized(e, 0x8b, H_GRSP, size, &m);
    }
    done_if(t, checked);
}

static void pop(struct tx *t)
{
    const ZydisDecodedOperand *o = &t->x->op[0];
    struct emit *e = &t->e;
    unsigned size = stack_size(t);
    struct tx_mem m;

    if (o->type == ZYDIS_OPERAND_TYPE_REGISTER) {
        pop_register(t, soft_gpr(o->reg.value), size);
        return;
    }
    check_pop(t, H_GRSP, size, &m);
    move_sized(e, 0x8b, H_C, size, &m);
    tx_done(t);
    e_st_gs(e, H_C, TX_SCRATCH(2));
    tx_operand(t, o, size, SOFT_ACCESS_WRITE,
               (int)size); /* an address made with rsp uses the new rsp */
    e_ld_gs(e, H_T, TX_SCRATCH(2));
    move_sized(e, 0x89, H_T, size, &at_c);
    add_rsp(t, (int32_t)size);
    tx_done(t);
}

static void leave(struct tx *t)
{
    struct emit *e = &t->e;
    unsigned size = stack_size(t);
    struct tx_mem m;
    bool checked = check_pop(t, H_RBP, size, &m);

    if (size == 2) {
        set_rsp(t, H_RBP, 2);
        move_sized(e, 0x8b, H_RBP, 2, &m);
    } else {
        move_sized(e, 0x8b, H_T, size, &m);
        set_rsp(t, H_RBP, (int32_t)size);
        e_mov(e, H_RBP, H_T);
    }
    done_if(t, checked);
}

/* May an indirect branch go beyond the limit of CS? Not with 16 bits, if that has 64 KiB. */
static bool may_leave(const struct tx *t)
{
    return t->limit < (t->x->in.operand_width == 16 ? 0xffff : UINT32_MAX);
}

/*
 * Pushes the return address. next: where execution goes on behind the store, or SOFT_NO_GPA. Like
 * the processor, checks the target (indirect: in jump_target) between the store and the change of
 * the stack pointer.
 */
static void push_return(struct tx *t, uint64_t next, bool out)
{
    struct emit *e = &t->e;
    unsigned size = stack_size(t);
    uint64_t ret = t->x->next;
    struct tx_mem m;
    bool checked = check_push(t, size, next, &m);

    if (size == 8 && (t->floats || (uint64_t)(int32_t)ret != ret)) {
        tx_address(t, e, H_T, ret);
        move_sized(e, 0x89, H_T, 8, &m);
    } else {
        push_immediate(t, (int64_t)ret, size, &m);
    }
    if (may_leave(t) && next == SOFT_NO_GPA) {
        done_if(t, checked);
        if (out)
            tx_raise_gp(t);
        else
            tx_check_target(t);
        add_rsp(t, -(int32_t)size);
        return;
    }
    add_rsp(t, -(int32_t)size);
    done_if(t, checked);
}

static void load_target(struct tx *t)
{
    const ZydisDecodedOperand *o = &t->x->op[0];
    struct emit *e = &t->e;
    unsigned size = t->x->in.operand_width / 8u;

    if (o->type == ZYDIS_OPERAND_TYPE_MEMORY) {
        read_operand(t, size);
        return;
    }
    t->c_window = -1;
    e_mov(e, H_C, tx_use(t, soft_gpr(o->reg.value), H_C));
    if (size == 2) { /* movzx ecx, cx */
        e8(e, 0x0f);
        e8(e, 0xb7);
        e8(e, 0xc9);
    } else if (size == 4) {
        e_mov32(e, H_C, H_C);
    }
}

static void call(struct tx *t, bool live_out)
{
    if (t->x->op[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE) {
        uint64_t target = tx_target(t, t->x);

        push_return(t, target > t->limit ? SOFT_NO_GPA : target, target > t->limit);
        if (target > t->limit)
            return;
        if (tx_predicts(t))
            tx_call_direct(t, target, live_out);
        else
            tx_jmp(t, target, live_out);
        return;
    }
    load_target(t);
    e_st_gs(&t->e, H_C, TX_OFF(jump_target));
    push_return(t, SOFT_NO_GPA, false);
    e_ld_gs(&t->e, H_C, TX_OFF(jump_target));
    if (tx_predicts(t))
        tx_call_indirect(t);
    else
        tx_jmp_indirect(t);
}

static void ret(struct tx *t)
{
    const ZydisDecodedOperand *o = &t->x->op[0];
    struct emit *e = &t->e;
    unsigned size = stack_size(t);
    int32_t extra = o->type == ZYDIS_OPERAND_TYPE_IMMEDIATE && t->x->in.operand_count_visible
                        ? (int32_t)o->imm.value.u & 0xffff
                        : 0;
    struct tx_mem m;
    bool checked;

    checked = check_pop(t, H_GRSP, size, &m);
    read_extended(e, H_C, size, &m);
    done_if(t, checked);
    if (may_leave(t)) {
        e_st_gs(e, H_C, TX_OFF(jump_target));
        tx_check_target(t);
    }
    add_rsp(t, (int32_t)size + extra);
    if (tx_predicts(t))
        tx_return(t);
    else
        tx_jmp_indirect(t);
}

/* loop, loope, loopne, jcxz: the count is in r11; nothing here may change the flags. */
static void loop(struct tx *t)
{
    struct emit *e = &t->e;
    unsigned width = t->x->in.address_width;
    ZydisMnemonic m = t->x->in.mnemonic;
    bool jcxz = m == ZYDIS_MNEMONIC_JCXZ || m == ZYDIS_MNEMONIC_JECXZ || m == ZYDIS_MNEMONIC_JRCXZ;
    uint64_t target = tx_target(t, t->x);
    uint8_t *zero, *other = NULL;

    if (target > t->limit) {
        tx_call_insn(t, (const void *)(uintptr_t)soft_call_loop_out);
        tx_jmp(t, t->x->next, true);
        return;
    }
    if (!jcxz) {
        e_lea(e, width == 64, H_C, H_GRCX, -1, 0, -1);
        if (width == 16) {
            e8(e, 0x66);
            e_op_rr(e, 0, 0x89, H_C, H_GRCX);
        } else {
            e_mov(e, H_GRCX, H_C);
        }
    }
    if (width == 64) {
        e_mov(e, H_C, H_GRCX);
    } else if (width == 32) {
        e_mov32(e, H_C, H_GRCX);
    } else { /* movzx ecx, r11w */
        e_rex(e, 0, H_C, 0, H_GRCX);
        e8(e, 0x0f);
        e8(e, 0xb7);
        e8(e, 0xc0u | (unsigned)(H_C & 7) << 3 | (unsigned)(H_GRCX & 7));
    }
    /* zero: where to go if the count is 0 */
    e8(e, 0xe3);
    e8(e, 2);
    e8(e, 0xeb); /* not 0: over the jump */
    e8(e, 5);
    zero = e_jmp_fwd(e);
    if (m == ZYDIS_MNEMONIC_LOOPE)
        other = e_jcc_fwd(e, 5);
    else if (m == ZYDIS_MNEMONIC_LOOPNE)
        other = e_jcc_fwd(e, 4);
    tx_jmp(t, jcxz ? t->x->next : target, true);
    e_resolve(zero, e);
    if (other)
        e_resolve(other, e);
    tx_jmp(t, jcxz ? target : t->x->next, true);
}

/* d = gs:[off] masked, without touching the flags */
static void mask(struct emit *e, int d, uint64_t off)
{
    e_pext_gs(e, d, d, off);
    e_pdep_gs(e, d, d, off);
}

/* pushfq: the arithmetic flags from the host's, the rest from memory. */
void tx_pushf(struct tx *t)
{
    struct emit *e = &t->e;
    struct tx_mem m;

    check_push(t, 8, t->x->next, &m);
    e8(e, 0x9c); /* pushfq; pop r9: on the host's stack */
    e8(e, 0x41);
    e8(e, 0x59);
    mask(e, H_T, TX_OFF(arith_mask));
    e_ld_gs(e, H_U, TX_OFF(rflags));
    mask(e, H_U, TX_OFF(pushf_mask));
    e_lea(e, 1, H_T, H_T, H_U, 0, 0);
    move_sized(e, 0x89, H_T, 8, &m);
    add_rsp(t, -8);
    tx_done(t);
}

void tx_flow(struct tx *t, uint32_t live_out)
{
    switch (t->x->kind) {
    case SOFT_X_PUSH:
        push(t);
        return;
    case SOFT_X_POP:
        pop(t);
        return;
    case SOFT_X_LEAVE:
        leave(t);
        return;
    case SOFT_X_CALL:
        call(t, live_out != 0);
        return;
    case SOFT_X_RET:
        ret(t);
        return;
    case SOFT_X_LOOP:
        loop(t);
        return;
    case SOFT_X_JCC:
        tx_jcc(t, t->x->in.opcode & 15, tx_target(t, t->x), t->x->live_taken != 0);
        return;
    default: /* SOFT_X_JMP */
        if (t->x->op[0].type != ZYDIS_OPERAND_TYPE_IMMEDIATE) {
            load_target(t);
            if (may_leave(t)) {
                e_st_gs(&t->e, H_C, TX_OFF(jump_target));
                tx_check_target(t);
            }
            tx_jmp_indirect(t);
        } else if (tx_target(t, t->x) > t->limit) {
            tx_raise_gp(t);
        } else {
            tx_jmp(t, tx_target(t, t->x), live_out != 0);
        }
        return;
    }
}
