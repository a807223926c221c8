/* SPDX-License-Identifier: MIT */
/* One translation in progress, as translate*.c see it. vCPU thread, FPU parked. */
#pragma once

#include "emit.h"
#include "xlate.h"

enum tx_cold_kind {
    TX_COLD_RETURN,
    TX_COLD_BRANCH,
    TX_COLD_ACCESS,
    TX_COLD_LINK,
    TX_COLD_LOOKUP,
    TX_COLD_CALL,
    TX_COLD_WINDOW
};

#define TX_MAX_WINDOWS 8

struct tx_window {
    int8_t guest; /* base register */
    uint8_t access, count, first;
    uint32_t version;
    int64_t lo, hi; /* relative to the base's value when its version began */
    int64_t offset; /* the base's own change at the first access */
};

/* [base + index + disp], host registers; index -1 = none */
struct tx_mem {
    int base, index;
    int32_t disp;
};

/* Something that is emitted behind the hot code. */
struct tx_cold {
    uint8_t kind;
    bool ea_in_u, restore; /* ACCESS: the address is in U; the flags must be restored first */
    bool linear;    /* ACCESS by a segment: the address at site is linear, at site2 an offset */
    int8_t ea_base; /* ACCESS: the address is ea_base + ea_disp, or -1 */
    int32_t ea_disp;
    uint16_t size; /* ACCESS */
    uint8_t access, seg;
    uint8_t edge;          /* LINK: which of the block's links */
    uint8_t *site, *site2; /* writable addresses behind the rel32s to resolve; site2 or NULL */
    uint8_t *op, *op_end;  /* ACCESS: writable bounds of what is done with the host address; WINDOW:
                              op = the check */
    uint64_t pc, next;     /* ACCESS; LOOKUP: pc = target; CALL: pc, next = struct soft_insn * */
    uint32_t mode;         /* LOOKUP: of the target */
};

struct tx {
    struct soft_vcpu *v;
    struct soft_code *c;
    struct soft_block *b;
    const struct soft_x *x; /* the current instruction */
    struct emit e, cold;
    uint32_t mode;
    bool code32, floats; /* code32: not 64-bit */
    uint64_t va;         /* of the block's start */
    uint64_t cs_base;    /* linear address - pc, but for code that floats */
    uint64_t limit;      /* the last pc in the code segment */
    unsigned nlinks, ncolds, npoints, nwindows;
    int ea_base; /* what the address was computed from: a host register and ea_disp, or -1 = more
                    than that */
    int32_t ea_disp;
    int c_window;                     /* the window whose difference is in C, or -1 */
    int8_t window_of[SOFT_MAX_INSNS]; /* by instruction */
    struct tx_window windows[TX_MAX_WINDOWS];
    struct soft_link links[SOFT_MAX_INSNS];
    struct tx_cold colds[4 * SOFT_MAX_INSNS];
    struct soft_point points[6 * SOFT_MAX_INSNS];
};

#define TX_OFF(field) offsetof(struct soft_vcpu, field)
#define TX_GPR(n)     (TX_OFF(gpr) + 8u * (unsigned)(n))
#define TX_SCRATCH(n) (TX_OFF(scratch) + 8u * (unsigned)(n))
/* scratch[0], [1]: tx_flags_save; [2]: a value between two accesses of one instruction */

/* Host register of a guest register, or -1: it lives in memory. */
static inline int tx_host(int g)
{
    static const int8_t map[16] = {H_RAX, H_GRCX, H_RDX, H_RBX, H_GRSP, H_RBP, H_RSI, H_RDI,
                                   -1,    -1,     -1,    -1,    H_R12,  H_R13, H_R14, H_R15};

    return map[g];
}
/* The same, loaded into scratch if it lives in memory. */
static inline int tx_use(struct tx *t, int g, int scratch)
{
    int h = tx_host(g);

    if (h >= 0)
        return h;
    e_ld_gs(&t->e, scratch, TX_GPR(g));
    return scratch;
}

/* Guest address (as soft_block.pc) into d; may destroy T. */
static inline void tx_address(const struct tx *t, struct emit *e, int d, uint64_t pc)
{
    if (!t->floats) {
        e_movi(e, d, pc);
        return;
    }
    if ((uint64_t)(int32_t)pc == pc) {
        e_ld_gs(e, d, TX_OFF(page_va));
        e_lea(e, 1, d, d, -1, 0, (int32_t)pc);
        return;
    }
    e_movi(e, d, pc);
    e_ld_gs(e, H_T, TX_OFF(page_va));
    e_lea(e, 1, d, d, H_T, 0, 0);
}

/* A guest address's offset in its page; do two lie in the same page? */
static inline unsigned tx_page_offset(const struct tx *t, uint64_t pc)
{
    return (unsigned)((pc + t->cs_base) & 0xfff);
}
static inline bool tx_same_page(const struct tx *t, uint64_t a, uint64_t b)
{
    uint64_t diff = (a + t->cs_base) ^ (b + t->cs_base);

    return ((t->code32 ? diff & UINT32_MAX : diff) >> 12) == 0;
}

/* Host code from here on (e) is of the instruction at pc. */
static inline void tx_add_point(struct tx *t, const struct emit *e, uint64_t pc)
{
    t->points[t->npoints++] =
        (struct soft_point){(uint32_t)(e_here(e) - t->c->rx), (uint32_t)(pc - t->b->pc)};
}

/* liveness.c: sets live and live_taken of x[0..n). page NULL: takes all flags for live everywhere.
   Returns what is live at the end. */
uint32_t tx_find_live(struct tx *t, struct soft_x *x, unsigned n, const uint8_t *page);

/* translate-mem.c */
void tx_flags_save(struct emit *e);
void tx_flags_restore(struct emit *e);
/* The register that tx_check() wants the linear address in. */
int tx_ea_reg(const struct tx *t, bool live);
/* Offset of memory operand m, cut to width bits, into d. rsp_adjust is added if rsp is the base. */
void tx_offset(struct tx *t, const ZydisDecodedOperand *m, int d, unsigned width, int rsp_adjust);
/* Its linear address. */
void tx_ea(struct tx *t, const ZydisDecodedOperand *m, int d, int rsp_adjust);
/* Must C check accesses by the operand's segment? */
bool tx_checked(const struct tx *t, const ZydisDecodedOperand *m, unsigned access);
/* Inline TLB check: leaves the host address in C; next: where to go on if a store hit translated
   code. Then emit what is done with it (it may use T and U, and must be movable), then tx_done().
 */
void tx_check(struct tx *t, unsigned size, unsigned access, bool live, uint64_t next);
void tx_done(struct tx *t);
/* Inline TLB check of rcx elements of 2^scale bytes, at most a page of them, at the address in
   base; destroys the flags, T and U. Leaves the host address in d, which may be T. Returns the site
   of the jump that is taken if it is refused. */
uint8_t *tx_check_span(struct tx *t, int base, unsigned scale, unsigned access, int d);
/* The memory operand of the current instruction: tx_ea() and tx_check(), or a check in C. */
void tx_operand(struct tx *t, const ZydisDecodedOperand *m, unsigned size, unsigned access,
                int rsp_adjust);
/* The same for [base + disp] of the stack. */
void tx_stack(struct tx *t, int base, int32_t disp, unsigned size, unsigned access, uint64_t next);
/* tx_check() of a window at [base + disp]: C = host - guest address. */
void tx_check_window(struct tx *t, int base, int32_t disp, unsigned size, unsigned access);

/* translate-window.c */
void tx_plan_windows(struct tx *t, const struct soft_x *x, unsigned n);
/* If the current instruction's access is in a window: how to address it, without disp. It needs no
 * tx_done(). */
bool tx_window(struct tx *t, struct tx_mem *m);

/* translate.c */
void tx_call(struct tx *t, const void *fn, uint64_t arg);
void tx_call_insn(struct tx *t, const void *fn);
/* soft_call_exec() from cold code, entered by the jump at site; comes back here. */
void tx_cold_exec(struct tx *t, uint8_t *site);
/* Faults unless jump_target lies in the code segment (64-bit code: the dispatcher finds out);
 * leaves it in C. */
void tx_check_target(struct tx *t);
/* Raises #GP(0) at the current instruction. */
void tx_raise_gp(struct tx *t);

/* translate-edge.c */
/* Where a direct branch goes. */
uint64_t tx_target(const struct tx *t, const struct soft_x *x);
/* Edges to a guest address: an unconditional jump, a conditional one (host condition code). live:
 * flags at the target. */
void tx_jmp(struct tx *t, uint64_t target, bool live);
/* The same without a poll, into another mode. */
void tx_jmp_mode(struct tx *t, uint64_t target, uint32_t mode);
void tx_jcc(struct tx *t, unsigned cc, uint64_t target, bool live);
/* The target is in C, and in the code segment: tx_check_target(). */
void tx_jmp_indirect(struct tx *t);
/* Calls whose return address in the guest is ret, and returns to C, with prediction by the host
 * (tx_predicts()). */
bool tx_predicts(const struct tx *t);
void tx_call_direct(struct tx *t, uint64_t target, bool live);
void tx_call_indirect(struct tx *t);
void tx_return(struct tx *t);
/* The target is in C, which is lost: by the jump cache, or the dispatcher. direct: it is that of a
   direct branch, or behind the instruction. */
void tx_jump_to(struct tx *t, struct emit *e, bool direct);
/* The same if the jump cache has it not; the target is in rip. */
void tx_leave_for_branch(struct tx *t, struct emit *e);

/* translate-cold.c: what was recorded in colds. */
void tx_emit_cold(struct tx *t);

/* translate-insn.c */
unsigned tx_access_of(const struct soft_x *x, const ZydisDecodedOperand *m);
void tx_pass(struct tx *t);
void tx_lea(struct tx *t);
void tx_bit(struct tx *t);
void tx_direction(struct tx *t);

/* translate-system.c: emits the instruction inline if it can. */
bool tx_system(struct tx *t);
void tx_pause(struct tx *t);

/* translate-string.c */
void tx_string(struct tx *t);

/* translate-flow.c */
void tx_pushf(struct tx *t);
void tx_flow(struct tx *t, uint32_t live_out); /* of the block */
