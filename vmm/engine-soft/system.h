/* SPDX-License-Identifier: MIT */
/* Inside of the system half of the software engine: shared by its own files only. Rules: soft.h. */
#pragma once

#include <vmm/cpu_bits.h>

#include "soft.h"

enum soft_vector {
    VEC_DE = 0,
    VEC_DB = 1,
    VEC_NMI = 2,
    VEC_BP = 3,
    VEC_OF = 4,
    VEC_BR = 5,
    VEC_UD = 6,
    VEC_NM = 7,
    VEC_DF = 8,
    VEC_TS = 10,
    VEC_NP = 11,
    VEC_SS = 12,
    VEC_GP = 13,
    VEC_PF = 14,
    VEC_AC = 17,
    VEC_MC = 18,
};

static inline bool soft_lma(const struct soft_vcpu *v)
{
    return v->s.efer & HSK_EFER_LMA;
}
static inline bool soft_protected(const struct soft_vcpu *v)
{
    return (v->s.cr0 & HSK_CR0_PE) && !(v->rflags & HSK_FLAG_VM);
}
static inline unsigned soft_iopl(const struct soft_vcpu *v)
{
    return v->rflags >> 12 & 3;
}
/* Implicit accesses to descriptor tables and the TSS: supervisor, and SMAP holds whatever EFLAGS.AC
 * is (SDM vol. 3, 4.6.1). */
static inline unsigned soft_sys_mmu(const struct soft_vcpu *v)
{
    if (!(v->s.cr0 & HSK_CR0_PG))
        return SOFT_MMU_PHYS;
    return v->s.cr4 & HSK_CR4_SMAP ? SOFT_MMU_KERNEL_SMAP : SOFT_MMU_KERNEL;
}
/* Addresses outside of 64-bit mode wrap at 4 GiB. */
static inline uint64_t soft_sys_va(const struct soft_vcpu *v, uint64_t va)
{
    return soft_lma(v) ? va : va & 0xffffffff;
}
static inline unsigned soft_mmu_at(const struct soft_vcpu *v, unsigned cpl)
{
    if (!(v->s.cr0 & HSK_CR0_PG))
        return SOFT_MMU_PHYS;
    if (cpl == 3)
        return SOFT_MMU_USER;
    return (v->s.cr4 & HSK_CR4_SMAP) && !(v->rflags & HSK_FLAG_AC) ? SOFT_MMU_KERNEL_SMAP
                                                                   : SOFT_MMU_KERNEL;
}
static inline uint64_t soft_mask(unsigned bytes)
{
    return bytes >= 8 ? ~0ull : (1ull << (8 * bytes)) - 1;
}
static inline void soft_need_cpl0(struct soft_vcpu *v)
{
    if (v->cpl != 0)
        soft_fault(v, VEC_GP, 0);
}
/* The address of the instruction behind this one. */
static inline uint64_t soft_next_rip(const struct soft_vcpu *v, const struct soft_insn *in)
{
    return (v->rip + in->length) & (v->code_size == 8 ? ~0ull : 0xffffffff);
}
static inline enum soft_next soft_done(struct soft_vcpu *v, const struct soft_insn *in)
{
    v->rip = soft_next_rip(v, in);
    return SOFT_NEXT_INSN;
}
/* The same, but the mode or what may interrupt has changed. */
static inline enum soft_next soft_done_jump(struct soft_vcpu *v, const struct soft_insn *in)
{
    v->rip = soft_next_rip(v, in);
    return SOFT_NEXT_JUMP;
}

/* Between the iterations of a repeated instruction: has something happened? Then it stops there,
 * for the time being. */
static inline bool soft_must_look(const struct soft_vcpu *v)
{
    return v->debug_hits || __atomic_load_n((const uint32_t *)&v->interrupt, __ATOMIC_RELAXED);
}
static inline enum soft_next soft_unfinished(struct soft_vcpu *v)
{
    v->rflags |= HSK_FLAG_RF; /* of what is pushed now (SDM vol. 3, 17.3.1.1) */
    return SOFT_NEXT_JUMP;
}

/* --- operand.c --- */

uint64_t soft_reg_get(const struct soft_vcpu *v, unsigned reg, unsigned size);
void soft_reg_set(struct soft_vcpu *v, unsigned reg, unsigned size, uint64_t value);
/* Offset of the memory operand in its segment. */
uint64_t soft_offset(const struct soft_vcpu *v, const struct soft_insn *in);
/* May [off, off+len) of the segment be accessed (canonical, limit, type)? *va is its linear
 * address. */
bool soft_seg_ok(const struct soft_vcpu *v, unsigned seg, uint64_t off, unsigned len, bool write,
                 uint64_t *va);
/* Linear address of the memory operand (+ extra), checked for [0, len). */
uint64_t soft_mem(struct soft_vcpu *v, const struct soft_insn *in, uint64_t extra, unsigned len,
                  bool write);
uint64_t soft_get(struct soft_vcpu *v, const struct soft_insn *in, unsigned op, unsigned size);
void soft_put(struct soft_vcpu *v, const struct soft_insn *in, unsigned op, unsigned size,
              uint64_t value);

/* A stack being pushed to or popped from; nothing is committed but by the caller:
 * soft_stack_commit(). */
struct soft_stack {
    struct hsk_segment ss;
    uint64_t sp;
    unsigned mmu;
    bool wide;       /* 64-bit: no segmentation */
    int fault_error; /* error code of #SS */
};
void soft_stack_init(const struct soft_vcpu *v, struct soft_stack *st);
void soft_push(struct soft_vcpu *v, struct soft_stack *st, unsigned size, uint64_t value);
uint64_t soft_pop(struct soft_vcpu *v, struct soft_stack *st, unsigned size);
/* Processors read no more than the 16 bits of its slot: it may end at the last byte of a page. */
uint16_t soft_pop_selector(struct soft_vcpu *v, struct soft_stack *st, unsigned size);
/* Raises #SS unless count pushes of size lie within the limit (or are canonical); does not touch
 * memory. */
void soft_stack_room(struct soft_vcpu *v, const struct soft_stack *st, unsigned size,
                     unsigned count);
/* Faults unless the top of the stack can be written. */
void soft_stack_probe(struct soft_vcpu *v, const struct soft_stack *st, unsigned size);
/* Writes the pointer back with the width of the stack. */
void soft_stack_commit(struct soft_vcpu *v, const struct soft_stack *st);

/* --- segment.c --- */

/* Reads a descriptor; false: null selector, no LDT, or outside of the table. */
bool soft_desc_read(struct soft_vcpu *v, uint16_t sel, uint64_t *desc);
/* The upper half of a descriptor of 16 bytes. */
bool soft_desc_high(struct soft_vcpu *v, uint16_t sel, uint64_t *high);
void soft_desc_decode(uint64_t desc, uint16_t sel, struct hsk_segment *out);
/* Sets the accessed bit in memory if it is clear, and in *seg. */
void soft_desc_accessed(struct soft_vcpu *v, uint16_t sel, struct hsk_segment *seg);
static inline bool soft_is_code(const struct hsk_segment *g)
{
    return (g->attr & HSK_SEG_S) && (g->attr & 8);
}
static inline bool soft_is_writable(const struct hsk_segment *g)
{
    return (g->attr & HSK_SEG_S) && (g->attr & 0xa) == 2;
}
static inline bool soft_is_conforming(const struct hsk_segment *g)
{
    return (g->attr & HSK_SEG_S) && (g->attr & 0xc) == 0xc;
}
/* Checks and reads a stack segment for privilege cpl; raises vec_bad(sel|ext) or
 * vec_absent(sel|ext). */
void soft_load_ss(struct soft_vcpu *v, uint16_t sel, unsigned cpl, struct hsk_segment *out,
                  unsigned vec_bad, unsigned vec_absent, unsigned ext);
/* A null SS of 64-bit mode. */
static inline struct hsk_segment soft_null_ss(unsigned cpl)
{
    return (struct hsk_segment){.selector = (uint16_t)cpl, .attr = (uint16_t)(cpl << 5)};
}
/* Loads ES DS FS GS; a selector that is not valid raises vec_bad(sel|ext), an absent segment #NP.
 */
void soft_load_data(struct soft_vcpu *v, unsigned seg, uint16_t sel, unsigned vec_bad,
                    unsigned ext);
/* After a return to an outer ring: data segments that it may not see become null. */
void soft_drop_segments(struct soft_vcpu *v, unsigned cpl);
/* Does the offset lie in a code segment (canonical or in the limit)? Else #GP(error). */
void soft_check_target(struct soft_vcpu *v, const struct hsk_segment *cs, uint64_t rip, int error);

/* --- far.c: what far RET and IRET return to --- */

/* Checks and reads the code segment of the selector's RPL. */
void soft_return_code(struct soft_vcpu *v, uint16_t sel, struct hsk_segment *cs);
/* And the stack segment of that ring, which may be null for 64-bit code. */
void soft_return_stack(struct soft_vcpu *v, uint16_t sel, const struct hsk_segment *cs,
                       unsigned cpl, struct hsk_segment *ss);

/* --- exception.c --- */

/* The stack of an inner ring cpl from the TSS, for a gate; st->fault_error = what its #SS says. */
void soft_inner_stack(struct soft_vcpu *v, unsigned cpl, unsigned ext, struct soft_stack *st);

/* --- task.c --- */

enum soft_task_how { SOFT_TASK_JMP, SOFT_TASK_CALL, SOFT_TASK_INT, SOFT_TASK_IRET };
/* Switches to the task of a TSS selector, whose privilege the caller has checked; rip and flags are
   saved as the old task's. Returns the new TSS's T flag, for: */
bool soft_task_switch(struct soft_vcpu *v, enum soft_task_how how, uint16_t sel, unsigned ext,
                      uint64_t rip, uint64_t flags);
/* The last of it, after an error code was pushed: is EIP within CS? And the debug trap. */
void soft_task_begin(struct soft_vcpu *v, bool trap, unsigned ext);

/* --- real.c: not protected mode --- */

void soft_real_load(struct soft_vcpu *v, unsigned seg, uint16_t sel);
enum soft_next soft_real_branch(struct soft_vcpu *v, const struct soft_insn *in, bool call,
                                uint16_t sel, uint64_t ip);
enum soft_next soft_real_ret(struct soft_vcpu *v, const struct soft_insn *in, unsigned extra);
enum soft_next soft_real_iret(struct soft_vcpu *v, const struct soft_insn *in);
bool soft_v86_redirect(struct soft_vcpu *v, unsigned vector, uint64_t return_ip);
/* Real mode: through the vector table at IDTR. */
void soft_real_interrupt(struct soft_vcpu *v, unsigned vector, uint64_t return_ip);

/* --- flags.c: virtual-8086 mode with IOPL < 3 --- */

/* False: not so. Else raises #GP(0), unless VME gives the 16-bit instruction flags of its own: */
bool soft_vme_flags(struct soft_vcpu *v, unsigned size);
uint64_t soft_vme_pushed(const struct soft_vcpu *v);
uint64_t soft_vme_popped(struct soft_vcpu *v, uint64_t popped);

/* --- debug.c --- */

void soft_debug_port(struct soft_vcpu *v, unsigned port, unsigned len);

/* --- others --- */

/* io.c: offset of the I/O permission bitmap in the TSS; #GP(0) if the TSS has none. */
unsigned soft_io_map(struct soft_vcpu *v);
/* control.c: what of the processor model the system half asks for, in a form that needs no search.
 */
enum { SOFT_HAS_INVPCID = 1, SOFT_HAS_1G_PAGES = 2, SOFT_HAS_XSAVE = 4, SOFT_HAS_FSGSBASE = 8 };
/* control.c: PAE outside of long mode: loads the four entries at cr3; #GP(0) if they have reserved
 * bits set. */
void soft_load_pdptes(struct soft_vcpu *v, uint64_t cr3);
/* Sets RFLAGS; if that lets interrupts in, asks for a look at the next block head. Mode changes are
 * the caller's. */
void soft_set_rflags(struct soft_vcpu *v, uint64_t rflags);
/* Something may be deliverable now: asks for a look at the next block head. */
void soft_recheck_interrupts(struct soft_vcpu *v);

typedef enum soft_next (*soft_exec_fn)(struct soft_vcpu *v, const struct soft_insn *in);
enum soft_next soft_x_cli(struct soft_vcpu *v, const struct soft_insn *in);
enum soft_next soft_x_sti(struct soft_vcpu *v, const struct soft_insn *in);
enum soft_next soft_x_flag(struct soft_vcpu *v, const struct soft_insn *in);
enum soft_next soft_x_ac(struct soft_vcpu *v, const struct soft_insn *in);
enum soft_next soft_x_pushf(struct soft_vcpu *v, const struct soft_insn *in);
enum soft_next soft_x_popf(struct soft_vcpu *v, const struct soft_insn *in);
enum soft_next soft_x_iret(struct soft_vcpu *v, const struct soft_insn *in);
enum soft_next soft_x_int(struct soft_vcpu *v, const struct soft_insn *in);
enum soft_next soft_x_mov(struct soft_vcpu *v, const struct soft_insn *in);
enum soft_next soft_x_push_seg(struct soft_vcpu *v, const struct soft_insn *in);
enum soft_next soft_x_pop_seg(struct soft_vcpu *v, const struct soft_insn *in);
enum soft_next soft_x_load_far(struct soft_vcpu *v, const struct soft_insn *in);
enum soft_next soft_x_far_branch(struct soft_vcpu *v, const struct soft_insn *in);
enum soft_next soft_x_far_ret(struct soft_vcpu *v, const struct soft_insn *in);
enum soft_next soft_x_dtable(struct soft_vcpu *v, const struct soft_insn *in);
enum soft_next soft_x_seg_query(struct soft_vcpu *v, const struct soft_insn *in);
enum soft_next soft_x_syscall(struct soft_vcpu *v, const struct soft_insn *in);
enum soft_next soft_x_sysret(struct soft_vcpu *v, const struct soft_insn *in);
enum soft_next soft_x_sysenter(struct soft_vcpu *v, const struct soft_insn *in);
enum soft_next soft_x_sysexit(struct soft_vcpu *v, const struct soft_insn *in);
enum soft_next soft_x_swapgs(struct soft_vcpu *v, const struct soft_insn *in);
enum soft_next soft_x_fsgsbase(struct soft_vcpu *v, const struct soft_insn *in);
enum soft_next soft_x_mov_cr(struct soft_vcpu *v, const struct soft_insn *in, bool to_cr);
enum soft_next soft_x_mov_dr(struct soft_vcpu *v, const struct soft_insn *in, bool to_dr);
enum soft_next soft_x_machine_word(struct soft_vcpu *v, const struct soft_insn *in);
enum soft_next soft_x_invlpg(struct soft_vcpu *v, const struct soft_insn *in);
enum soft_next soft_x_invpcid(struct soft_vcpu *v, const struct soft_insn *in);
enum soft_next soft_x_xgetbv(struct soft_vcpu *v, const struct soft_insn *in);
enum soft_next soft_x_xsetbv(struct soft_vcpu *v, const struct soft_insn *in);
enum soft_next soft_x_rdmsr(struct soft_vcpu *v, const struct soft_insn *in);
enum soft_next soft_x_wrmsr(struct soft_vcpu *v, const struct soft_insn *in);
enum soft_next soft_x_fpu(struct soft_vcpu *v, const struct soft_insn *in);
enum soft_next soft_x_io(struct soft_vcpu *v, const struct soft_insn *in);
enum soft_next soft_x_io_string(struct soft_vcpu *v, const struct soft_insn *in);
enum soft_next soft_x_bit(struct soft_vcpu *v, const struct soft_insn *in);
enum soft_next soft_x_cmpxchg16b(struct soft_vcpu *v, const struct soft_insn *in);

enum soft_next soft_x_bcd(struct soft_vcpu *v, const struct soft_insn *in);
enum soft_next soft_x_pusha(struct soft_vcpu *v, const struct soft_insn *in);
enum soft_next soft_x_popa(struct soft_vcpu *v, const struct soft_insn *in);
enum soft_next soft_x_enter(struct soft_vcpu *v, const struct soft_insn *in);
enum soft_next soft_x_bound(struct soft_vcpu *v, const struct soft_insn *in);
enum soft_next soft_x_arpl(struct soft_vcpu *v, const struct soft_insn *in);
enum soft_next soft_x_xlat(struct soft_vcpu *v, const struct soft_insn *in);
enum soft_next soft_x_gather(struct soft_vcpu *v, const struct soft_insn *in);
enum soft_next soft_x_masked_move(struct soft_vcpu *v, const struct soft_insn *in);
enum soft_next soft_x_masked_bytes(struct soft_vcpu *v, const struct soft_insn *in);

/* fpu.c: parks and makes every component of the image explicit (XSTATE_BV all set); returns which
 * were in use. */
uint64_t soft_fpu_image(struct soft_vcpu *v);

/* pv.c: both park. */
void soft_pv_write_system_time(struct soft_vcpu *v, uint64_t msr);
void soft_pv_write_wall_clock(struct soft_vcpu *v, uint64_t msr);
