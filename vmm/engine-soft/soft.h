/* SPDX-License-Identifier: MIT */
/*
 * Inside of the software engine: the vCPU as its two halves see it.
 *
 *   translator half: turns guest code into host code and runs it (its files: xlate.h)
 *   system half:     what one guest instruction or event does, in C: walk.c exception.c system.c
 * segment.c string.c fpu.c pv.c
 *
 * Rules of the border
 * - Outside of translated code the state is canonical: gpr[], rip, rflags in struct soft_vcpu; all
 * else in ->s (with the XSAVE image in ->s.xsave only while fpu_parked). rip = the instruction
 * being executed, until the helper advances it.
 * - While translated code or a helper runs, the guest's x87/SSE/AVX registers and MXCSR are in the
 * host's registers. So the files of both halves that run there are compiled with
 * -mgeneral-regs-only (see vmm/CMakeLists.txt) and call no libc. To call anything else (bus, APIC,
 * clock, before_write hook, Zydis, GLib): soft_fpu_park(v) first. It is idempotent and cheap when
 * parked; the way back into translated code loads the registers again.
 * - A fault leaves the helper by soft_fault(): no cleanup runs, so hold no lock and nothing owned
 * across memory accesses.
 * - Guest memory is reached only through soft_ld / soft_st / soft_ptr (they check, fault, announce
 * writes and see MMIO).
 */
#pragma once

#include <vmm/cpu_bits.h>
#include <vmm/engine.h>
#include <vmm/lapic.h>

#include <pthread.h>

/* ---- TLB: one table per MMU index; the layout is read by translated code ---- */

enum soft_mmu {
    SOFT_MMU_KERNEL,      /* CPL 0-2, SMAP off or EFLAGS.AC = 1 */
    SOFT_MMU_KERNEL_SMAP, /* CPL 0-2, SMAP on and AC = 0 */
    SOFT_MMU_USER,        /* CPL 3 */
    SOFT_MMU_PHYS,        /* CR0.PG = 0 */
    SOFT_NMMU,
};

struct soft_tlb_entry {
    uint64_t nvpn_read;  /* -(va >> 12), or SOFT_TLB_NONE */
    uint64_t nvpn_write; /* set only if RAM, writable, D set, announced (hsk_memobj_will_write),
                            nobody's code */
    uint64_t addend;     /* host address - guest linear address */
    uint64_t gpa;        /* page | SOFT_TLB_* */
};
#define SOFT_TLB_GLOBAL 1
#define SOFT_TLB_NONE   1 /* no page's number is -1 */
#define SOFT_TLB_BITS   14
#define SOFT_TLB_SIZE   (1u << SOFT_TLB_BITS)

/* ---- one decoded instruction, as the translator keeps it beside a block for its helper ---- */

enum soft_opk {
    SOFT_OP_NONE,
    SOFT_OP_REG,
    SOFT_OP_MEM,
    SOFT_OP_IMM,
    SOFT_OP_FAR,
    SOFT_OP_SEG,
    SOFT_OP_CR,
    SOFT_OP_DR,
    SOFT_OP_VEC,
};

struct soft_operand {
    uint8_t kind; /* enum soft_opk */
    uint8_t size; /* bytes; 0 for xsave areas etc. */
    uint8_t reg;  /* REG: 0-15, or 16+n for AH CH DH BH (n = 0-3); SEG: enum hsk_seg; CR/DR/VEC:
                     number */
};

#define SOFT_INDEX_XMM 32
#define SOFT_INDEX_YMM 64

struct soft_insn {
    uint16_t mnemonic; /* ZydisMnemonic */
    uint8_t length;
    uint8_t opsize;   /* effective operand size in bytes: 2, 4, 8 */
    uint8_t addrsize; /* 2, 4, 8 */
    uint8_t mode;     /* 2, 4, 8: code size of CS */
    uint8_t rep;      /* 0, 0xf3, 0xf2 */
    uint8_t lock;
    uint8_t seg; /* effective segment of the memory operand (enum hsk_seg), defaults resolved */
    int8_t base, index; /* 0-15, -1 none, 16 = RIP (of the next instruction); index of a gather:
                           SOFT_INDEX_* + register */
    uint8_t scale;      /* 1, 2, 4, 8 */
    uint8_t nops;       /* visible operands */
    uint8_t opcode;     /* last opcode byte */
    uint8_t modrm;
    uint8_t pad;
    int64_t disp;
    int64_t imm[2]; /* FAR: imm[0] offset, imm[1] selector */
    struct soft_operand op[4];
};

/* ---- the vCPU ---- */

struct soft_exception {
    uint32_t vector;
    uint32_t has_error;
    uint32_t error;
    uint32_t soft;    /* INT n, INT3, INTO: trap, checks gate DPL; rip is advanced already */
    uint64_t payload; /* CR2 for #PF; DR6 bits for #DB */
};

/* What run.c does after a helper returns. */
enum soft_next {
    SOFT_NEXT_INSN, /* rip was advanced; go on behind it (same mode, same block) */
    SOFT_NEXT_JUMP, /* rip, mode or translation changed: look up the block at rip */
    SOFT_NEXT_EXIT, /* leave run(): ->exit says why (HLT, shutdown, error) */
};

/* What --stats adds up over all vCPUs; only the vCPU's own thread counts. */
struct soft_counters {
    uint64_t left[3]; /* why translated code was left: an edge not chained, a jump cache miss, a
                         helper */
    uint64_t blocks, insns, exits, tlb_misses, flushes, interrupts, exceptions, invalidations,
        helper_calls;
    uint64_t dispatches, chaos, compared;
};

struct soft_code; /* code cache and blocks of one vCPU: xlate.h */

/* Jump cache of indirect branches, one per MMU index and code size (64-bit or not). Index: bits 1,
   2 and 4-17 of the target, for functions are aligned to 16 bytes, and bit 46, so that index 0 is
   (nearly) never used. */
struct soft_jump {
    uint64_t not_pc; /* ~target, or 0 = empty */
    uint64_t host;
    uint64_t page_va; /* to be loaded into that of struct soft_vcpu */
};
#define SOFT_JUMP_BITS 16
#define SOFT_JUMP_MASK (1ull << 46 | ((1u << (SOFT_JUMP_BITS - 2)) - 1) << 4 | 6)
#define SOFT_JUMP_SIZE (2u << SOFT_JUMP_BITS)

struct soft_vcpu {
    /* --- offsets are baked into translated code (emit.h) --- */
    uint64_t gpr[16];
    uint64_t rip;
    uint64_t rflags;      /* all of RFLAGS, canonical when not in translated code */
    uint64_t seg_base[6]; /* copy of s.seg[ES..GS].base for address computation;
                             soft_segments_changed() refreshes */
    uint64_t irq_waiting; /* something is pending that RFLAGS.IF = 0 keeps back: STI must go to the
                             dispatcher */
    _Atomic uint32_t interrupt; /* != 0: look at the world at the next block head (SOFT_INT_*) */
    uint32_t fpu_parked;
    uint64_t scratch[16]; /* the translator's own, and all up to the next line (offsets.h, checked
                             in engine.c) */
    struct soft_vcpu *self;
    uint64_t host_rsp; /* in translated code: the C stack to return to */
    uint64_t exit_arg; /* struct soft_link * of a direct exit */
    uint64_t jump_target;
    uint64_t page_va; /* floating code (xlate.h): what its addresses are relative to; else 0 */
    uint64_t ret_rsp; /* the host's rsp in translated code: return predictions (translate-flow.c) */
    uint64_t ret_base;  /* the same while there are none */
    uint64_t jump_mask; /* pext mask of the jump cache; 0 makes every lookup miss, which is how
                           kick() gets in */
    uint64_t tlb_mask, page_mask, bit_mask[3], arith_mask, pushf_mask; /* constants for pext */
    uint64_t window[8];   /* host - guest address of the windows of the block that runs
                             (translate-window.c) */
    uint64_t tsc_offset;  /* guest TSC - host TSC, if SOFT_MODE_TSC */
    uint64_t branch_pc;   /* of an indirect branch in 64-bit code that missed the jump cache (as
                             soft_block.pc) */
    uint64_t branch_undo; /* and what to add to rsp to undo it */
    uint64_t landing[8];  /* soft_setjmp(): where soft_fault() and soft_unimplemented() go */
    uint8_t bounce[192] __attribute__((aligned(64)));
    uint64_t pauses; /* PAUSEs since the thread last let others run */
    /* --- both halves --- */
    struct hsk_vcpu base;
    struct hsk_cpu_state
        s; /* gpr, rip, rflags, seg of the struct: seg[] authoritative here, gpr/rip/rflags above */
    struct soft_exception exc; /* being delivered */
    uint8_t cpl;               /* = SS.DPL */
    uint8_t mmu;               /* enum soft_mmu for data accesses at the current CPL */
    uint8_t code_size;         /* 2, 4, 8 from CS and EFER.LMA */
    uint8_t halted;
    enum hsk_exit exit;
    uint32_t delivering; /* exception nesting: 0, or 1 + vector while delivering (double fault
                            detection) */
    uint8_t tsc_exact;   /* the guest's TSC runs at the host's rate */
    uint8_t no_step; /* this instruction cleared RFLAGS.TF on its way into a handler: no single-step
                        trap after it */
    uint8_t step_now; /* this instruction set RFLAGS.TF and traps at once (SYSRET) */
    unsigned leaps; /* of the clock that the guest was told of */
    uint8_t debug;  /* SOFT_DEBUG_*: breakpoints that are enabled; soft_debug_changed() refreshes */
    uint8_t single; /* the code that runs is one instruction, behind which the dispatcher looks at
                       debug_hits */
    uint32_t
        debug_hits; /* breakpoints (bits of DR6) that the current instruction hit: #DB behind it */
    uint32_t seg_mode; /* what the segments add to the mode word (xlate.h); soft_segments_changed()
                          refreshes */
    uint64_t pdpte[4]; /* PAE outside of long mode: as they were when CR3 was loaded */
    uint8_t pdptes_loaded; /* 0: the state came from elsewhere; the first walk reads them */
    uint32_t refused_msrs[16], nrefused_msrs; /* told on the log already */
    struct soft_engine *engine;
    struct soft_code *code; /* translator half's private state of this vCPU */
    struct soft_counters count;
    struct soft_lockstep *lockstep; /* NULL, or lockstep.c's */
    uint64_t chaos;                 /* state of chaos.c's random numbers, or 0 */
    _Atomic uint32_t inside; /* smp.c: in run(), so that memory may be accessed through the TLB */
    bool exclusive;          /* the others are stopped */
    struct soft_tlb_entry tlb[SOFT_NMMU][SOFT_TLB_SIZE];
    struct soft_jump jump[SOFT_NMMU * 2][SOFT_JUMP_SIZE];
};

enum {
    SOFT_INT_KICK = 1,  /* run() returns HSK_EXIT_KICK */
    SOFT_INT_APIC = 2,  /* hsk_lapic_pending may be non-zero */
    SOFT_INT_FLUSH = 4, /* somebody asked for a TLB flush */
    SOFT_INT_CODE = 8,  /* somebody wrote a page that holds translated code */
    SOFT_INT_STOP = 16, /* another vCPU wants the world for itself */
};

struct soft_engine {
    struct hsk_engine base;
    uint64_t cr4_offered; /* bits that the processor model lets a guest set */
    uint32_t has;         /* SOFT_HAS_* of it */
    struct soft_vcpu *vcpu[8];
    pthread_mutex_t world; /* who holds it may stop the others; smp.c */
};

/* ---- translator half, called by the system half ---- */

/* Raises an exception at v->rip; does not return. error < 0: none. */
G_NORETURN void soft_fault(struct soft_vcpu *v, unsigned vector, int error);
/* #DB: dr6 = the bits that say why. */
G_NORETURN void soft_fault_db(struct soft_vcpu *v, uint64_t dr6);
G_NORETURN void soft_fault_pf(struct soft_vcpu *v, uint64_t va, uint32_t error);
/* Stops the machine: what is not implemented. Names the instruction bytes and rip. Does not return.
 * printf format (parks). */
G_NORETURN void soft_unimplemented(struct soft_vcpu *v, const char *fmt, ...) G_GNUC_PRINTF(2, 3);
/* Guest linear memory at privilege mmu (enum soft_mmu; normally v->mmu, SOFT_MMU_KERNEL for
   descriptor tables and TSS). size 1, 2, 4, 8; page crossing and MMIO handled; fault as the access
   would. */
uint64_t soft_ld(struct soft_vcpu *v, uint64_t va, unsigned size, unsigned mmu);
void soft_st(struct soft_vcpu *v, uint64_t va, unsigned size, uint64_t value, unsigned mmu);
/* Host pointer for [va, va+len) inside one page if it is RAM (announced if write), NULL if it is
 * MMIO; faults. */
void *soft_ptr(struct soft_vcpu *v, uint64_t va, unsigned len, bool write, unsigned mmu);
/* Checks that [va, va+len) can be read/written, without doing it; faults. */
void soft_probe(struct soft_vcpu *v, uint64_t va, unsigned len, bool write, unsigned mmu);
/* TLB maintenance after CR3/CR4/CR0/EFER writes, INVLPG, INVPCID. */
void soft_tlb_flush_all(struct soft_vcpu *v);
void soft_tlb_flush_nonglobal(struct soft_vcpu *v);
void soft_tlb_flush_page(struct soft_vcpu *v, uint64_t va);
/* Forgets which code follows which, where a page was left: the dispatcher sees each such edge
 * again. */
void soft_edges_forget(struct soft_vcpu *v);
/* Part of the mode word for the current segments. */
uint32_t soft_segment_mode(const struct soft_vcpu *v);
/* Saves the guest's FPU registers into s.xsave and gives C code sane host ones; the way back
 * reloads. Idempotent. */
void soft_fpu_park(struct soft_vcpu *v);
/* pv.c: at the beginning of run(): the guest's time may have leapt since the last one. */
void soft_pv_tell_leap(struct soft_vcpu *v);

/* ---- several vCPUs (smp.c) ---- */

/* Until soft_smp_resume() no other vCPU accesses guest memory: what is done in between is atomic.
   Parks. To be called before the access is checked and translated; a fault resumes the others. */
void soft_smp_stop_others(struct soft_vcpu *v);
void soft_smp_resume(struct soft_vcpu *v);
/* The guest has been spinning for a while. Parks. */
void soft_smp_pause(struct soft_vcpu *v);

/* ---- system half, called by the translator half ---- */

/* Executes one instruction that is not translated, on canonical state; v->rip at it. Advances or
 * sets rip. May soft_fault. */
enum soft_next soft_exec(struct soft_vcpu *v, const struct soft_insn *in);
/* Is this mnemonic handled by soft_exec? What neither half handles raises soft_unimplemented when
   executed (#UD only where the SDM says so). */
bool soft_exec_knows(uint16_t mnemonic);
/* String instructions (MOVS STOS LODS CMPS SCAS, any rep), restartable per page chunk; called like
 * soft_exec. */
enum soft_next soft_exec_string(struct soft_vcpu *v, const struct soft_insn *in);
/* Delivers v->exc through the IDT (nesting, double and triple fault) and leaves rip at the handler;
 * false = triple fault. */
bool soft_deliver(struct soft_vcpu *v);
/* At a block head with v->interrupt & SOFT_INT_APIC: takes NMI or an interrupt if the state allows.
   Returns true if rip changed. */
bool soft_deliver_interrupt(struct soft_vcpu *v);
/* Once, for a new engine: what its processor model offers. */
void soft_features(struct soft_engine *e);
/* Recomputes cpl, mmu, code_size, seg_base from the state. */
void soft_segments_changed(struct soft_vcpu *v);

enum { SOFT_ACC_WRITE = 1, SOFT_ACC_FETCH = 2 };
struct soft_walk {
    uint64_t gpa;  /* of the 4 KiB page */
    bool writable; /* at this mmu, D already set or set by this walk */
    bool global;
    bool user;
    bool large; /* the leaf maps more than 4 KiB: INVLPG anywhere in it drops all of it */
};
/* Page walk for va at privilege mmu: sets A (and D for writes) with compare-exchange on guest
   memory, announced. Returns -1 on success, else the #PF error code. Non-canonical addresses are
   the caller's (#GP/#SS before). */
int soft_walk(struct soft_vcpu *v, uint64_t va, unsigned access, unsigned mmu,
              struct soft_walk *out);
/* RDTSC value for the guest. */
uint64_t soft_rdtsc(struct soft_vcpu *v);
/* The linear address of the memory operand, segment base added, no access check. */
uint64_t soft_ea(struct soft_vcpu *v, const struct soft_insn *in);
/* Breakpoints (debug.c). DR0-3 or DR7 changed: */
enum { SOFT_DEBUG_CODE = 1, SOFT_DEBUG_DATA = 2, SOFT_DEBUG_PORT = 4 };
void soft_debug_changed(struct soft_vcpu *v);
/* With SOFT_DEBUG_DATA: does the access hit one? */
void soft_debug_access(struct soft_vcpu *v, uint64_t va, unsigned len, bool write);
/* With SOFT_DEBUG_CODE, before the instruction at the linear address va: #DB if there is one; true
 * if one is in its page. */
bool soft_debug_fetch(struct soft_vcpu *v, uint64_t va);
/* Are misaligned accesses to be refused? */
static inline bool soft_checks_alignment(const struct soft_vcpu *v)
{
    return v->cpl == 3 && (v->rflags & HSK_FLAG_AC) && (v->s.cr0 & HSK_CR0_AM);
}
/* The linear address of [off, off+len) of a segment; raises #SS(0), #GP(0) or #AC(0) if it may not
   be accessed (canonical, limit, type, alignment), and notes what breakpoints it hits. */
uint64_t soft_seg_va(struct soft_vcpu *v, unsigned seg, uint64_t off, unsigned len, bool write);
