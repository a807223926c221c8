/* SPDX-License-Identifier: MIT */
/*
 * Inside of the translator half: decoded instructions, blocks, the code cache of one vCPU and its
 * files' calls.
 *
 *   decode.c           guest bytes -> struct soft_x (Zydis) and its kind
 *   liveness.c         which flags of a block somebody needs
 *   emit.h             host instruction bytes
 *   translate.c        a block: the driver, calls of C
 *   translate-edge.c   where it goes on: jumps, calls, returns
 *   translate-cold.c   its cold code
 *   translate-mem.c    effective addresses and the inline TLB check
 *   translate-insn.c   pass-through instructions, re-encoded
 *   translate-flow.c   stack and control flow
 *   cache.c            code memory, blocks, chaining, flush
 *   coherence.c        pages that were translated, and their writers
 *   jump.c             targets of indirect branches
 *   tlb.c              TLB: fill, lookup, flush; the pages that code is fetched from
 *   access.c           slow accesses, guest memory for C
 *   run.c signal.c     the dispatcher; faults and host traps
 *   chaos.c            disturbs all of them, for tests
 *   lockstep.c         compares blocks with strict mode, for tests
 *   smp.c              several vCPUs: safe points, start-up
 *
 * All on the vCPU's thread, except soft_code_written(), soft_code_post(), and what smp.c does to
 * stopped vCPUs.
 */
#pragma once

#include <Zydis/Zydis.h>

#include "offsets.h"
#include "soft.h"

#define SOFT_ARITH        0x8d5u /* CF PF AF ZF SF OF */
#define SOFT_MAX_INSNS    64
#define SOFT_MAX_BRANCHES 6 /* conditional jumps that a block goes on behind */
#define SOFT_NO_GPA       (~0ull)

/* Mode word: what a translation depends on beside its bytes and addresses. */
enum {
    SOFT_MODE_MMU = 3,         /* enum soft_mmu */
    SOFT_MODE_CODE32 = 1 << 2, /* 32- or 16-bit code, else 64-bit */
    SOFT_MODE_TS = 1 << 3,     /* CR0.TS: FPU and SIMD instructions raise #NM */
    SOFT_MODE_EM = 1 << 4,     /* CR0.EM */
    SOFT_MODE_SSE = 1 << 5,    /* CR4.OSFXSR */
    SOFT_MODE_AVX = 1 << 6,    /* CR4.OSXSAVE and XCR0 has SSE and AVX */
    SOFT_MODE_SINGLE = 1 << 7, /* one instruction, unchained (TF, interrupt shadow, strict) */
    SOFT_MODE_BASES = 1 << 8,  /* not 64-bit: the base of ES, CS, SS or DS is not 0 */
    SOFT_MODE_PGE = 1 << 9,    /* CR4.PGE: there are global pages */
    SOFT_MODE_CPL0 = 1 << 10,
    SOFT_MODE_SMAP = 1 << 11,    /* CR4.SMAP */
    SOFT_MODE_NOSHARE = 1 << 13, /* each access is checked for itself (translate-window.c); only by
                                    edges with this mode */
    SOFT_MODE_TSC =
        1 << 12, /* rdtsc is allowed, and the guest's TSC is the host's plus tsc_offset */
    SOFT_MODE_CODE16 = 1 << 14,  /* with CODE32: 16-bit code */
    SOFT_MODE_STACK16 = 1 << 15, /* not 64-bit: the stack pointer is SP */
    SOFT_MODE_SEG = 1 << 16, /* << enum hsk_seg: accesses by this segment are checked in C, for it
                                is not a writable (CS: readable) one of 4 GiB; up to bit 21 */
    SOFT_MODE_CHECKED = 1 << 22, /* all accesses are checked in C: alignment, data breakpoints */
    SOFT_MODE_REAL = 1 << 23,    /* real or virtual-8086 mode */
};
#define SOFT_MODE_64K                                                                              \
    (1u << 30) /* all segments of SOFT_MODE_SEG are such, but of at least 64 KiB */
/* Class of the limit of a CS that is not flat (base 0, 4 GiB), 1 to 63: soft_limit_class(). */
#define SOFT_MODE_LIMIT_SHIFT 24
#define SOFT_LIMIT_CLASSES    63u
#define SOFT_MODE_LIMIT       (SOFT_LIMIT_CLASSES << SOFT_MODE_LIMIT_SHIFT)

enum soft_kind {
    SOFT_X_PASS,
    SOFT_X_NOP,
    SOFT_X_LEA,
    SOFT_X_BT,
    SOFT_X_PUSH,
    SOFT_X_POP,
    SOFT_X_LEAVE,
    SOFT_X_CALL,
    SOFT_X_RET,
    SOFT_X_JMP,
    SOFT_X_JCC,
    SOFT_X_LOOP,
    SOFT_X_DF,
    SOFT_X_STRING,
    SOFT_X_HELPER,
    SOFT_X_UD,
    SOFT_X_GP,
    SOFT_X_UNKNOWN,
};

enum { SOFT_FPU_NONE, SOFT_FPU_X87, SOFT_FPU_MMX, SOFT_FPU_SSE, SOFT_FPU_AVX };

struct soft_x {
    ZydisDecodedInstruction in;
    ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];
    uint64_t pc, next;
    uint32_t reads, kills; /* arithmetic flags: needed; overwritten whatever happens */
    uint32_t live;         /* flags somebody needs when it starts */
    uint32_t live_taken;   /* conditional jump: flags somebody needs at its target */
    uint8_t raw[16];
    uint8_t kind, fpu;
    int8_t mem; /* index of the explicit memory operand, or -1 */
};

struct soft_block;

/*
 * Floating code: user code in 64-bit mode is translated once for all the addresses at which a
 * physical page is mapped (shared libraries, position-independent programs, processes). Its guest
 * addresses are relative to the start of the page that the block begins in; struct
 * soft_vcpu.page_va says where that is now. The dispatcher and jump cache set it; edges inside the
 * page keep it. Elsewhere addresses are absolute and page_va is 0.
 */
static inline bool soft_mode_floats(uint32_t mode)
{
    return (mode & (SOFT_MODE_MMU | SOFT_MODE_CODE32)) == SOFT_MMU_USER;
}

/* A direct edge out of a block. site: the rel32 of its jump; stub: where it goes while not chained.
 */
struct soft_link {
    uint8_t *site, *stub; /* executable addresses */
    uint64_t pc;          /* as soft_block.pc */
    uint32_t mode;        /* of the target */
    struct soft_block *from, *to;
    struct soft_link *next_in; /* of the target's incoming links */
    bool cross;                /* another page: only while the mapping holds */
};

struct soft_point {
    uint32_t host;  /* offset in the code cache */
    uint32_t guest; /* offset of the instruction in the block */
};

struct soft_block {
    struct soft_block
        *hash_next; /* this line and the next ones up to mode are what a lookup reads */
    uint64_t pc;    /* rip, or offset in the page if it floats */
    uint64_t gpa;
    uint64_t gpa2; /* second page of a straddling instruction, or SOFT_NO_GPA */
    uint32_t mode;
    uint32_t length, ninsns;
    uint8_t *host;
    uint64_t granules, granules2; /* 64-byte pieces of the pages that it was made from */
    uint32_t jump_slot; /* where it may be in the jump cache; 0: nowhere; SOFT_JUMP_SIZE: in several
                           slots */
    bool valid,
        global; /* global: on a global page, so edges to other such pages outlive CR3 writes */
    struct soft_block *page_next, *page_next2;
    struct soft_link *in;
    struct soft_link *links;
    uint32_t nlinks;
    const struct soft_point *points;
    uint32_t npoints;
    uint32_t host_start, host_end, cold_start, cold_end;
    bool once; /* lockstep.c's: cannot run twice */
};

/* A page that has translations. */
struct soft_page {
    uint64_t gpa, granules;
    struct soft_block *blocks;
    bool claimed;
    uint32_t data_writes,
        patience; /* stores beside the code since it was last dropped; how many are borne */
    struct soft_page *next;
};

struct soft_itlb {
    uint64_t vpn, gpa;
    const uint8_t *host;
    uint64_t generation;
    uint8_t mmu;
    bool global;
};

#define SOFT_CODE_SIZE  (128u << 20)
#define SOFT_COLD_START (SOFT_CODE_SIZE / 2)
#define SOFT_ARENA_SIZE (256u << 20)
#define SOFT_BLOCK_ROOM                                                                            \
    (96u << 10) /* more than one block ever needs in either half, or of the arena */
#define SOFT_READY_STEP  (512u << 10)
#define SOFT_HASH_SIZE   (1u << 18)
#define SOFT_PAGE_HASH   (1u << 12)
#define SOFT_ITLB_SIZE   512u
#define SOFT_FILLS       16384u
#define SOFT_JUMP_FILLS  65536u
#define SOFT_WRITTEN     1024u
#define SOFT_WRITERS     4096u
#define SOFT_WRITERS_END UINT32_MAX

#define SOFT_RET_GUARD (64u << 10)
#define SOFT_RET_SIZE  (320u << 10) /* with the guard */
#define SOFT_ALT_SIZE  (64u << 10)
enum {
    SOFT_TRAMP_LINK,
    SOFT_TRAMP_LOOKUP,
    SOFT_TRAMP_BRANCH,
    SOFT_TRAMP_ACCESS,
    SOFT_TRAMP_WRITEBACK,
    SOFT_TRAMP_CALL,
    SOFT_NTRAMP,
};

static inline void soft_filter_set(uint64_t *filter, uint64_t n)
{
    filter[n >> 6 & 63] |= 1ull << (n & 63);
}
static inline bool soft_filter_has(const uint64_t *filter, uint64_t n)
{
    return filter[n >> 6 & 63] >> (n & 63) & 1;
}

/* Slots of a table that were filled since it was last flushed; more than fit = all. */
struct soft_fills {
    uint32_t n;
    uint16_t slot[SOFT_FILLS];
};
struct soft_jump_fills {
    uint32_t n;
    uint32_t slot[SOFT_JUMP_FILLS];
};

/* One page of an access, looked up; good until the next safe point. */
struct soft_page_ref {
    uint8_t *host; /* of the page; NULL: MMIO */
    uint64_t gpa;  /* of the page */
    bool readonly;
    uint8_t code; /* vCPUs that hold translations of it */
};

struct soft_code {
    uint8_t *rx, *rw;                            /* the two mappings of the same pages */
    uint32_t hot, cold;                          /* first free byte of each half */
    uint64_t ready_hot, ready_cold, ready_arena; /* how much has its pages already */
    uint8_t *tramp[SOFT_NTRAMP];
    uint8_t *arena;
    uint64_t arena_used;
    struct soft_block **hash; /* SOFT_HASH_SIZE */
    struct soft_page *pages[SOFT_PAGE_HASH];
    struct soft_block **order; /* all blocks since the last flush, by host address */
    uint32_t nblocks, maxblocks;
    struct soft_link **cross; /* chained edges between global pages */
    uint32_t ncross, maxcross;
    struct soft_itlb itlb[SOFT_ITLB_SIZE];
    uint64_t generation, generation_global;
    struct soft_fills tlb_fills[SOFT_NMMU][2]; /* global */
    struct soft_jump_fills jump_fills[SOFT_NMMU * 2];
    bool jump_local[SOFT_NMMU * 2];    /* the table has targets on pages that are not global */
    uint32_t jump_mode[SOFT_NMMU * 2]; /* what the table's targets were translated for, without MMU
                                          and CODE32 */
    /* Filters (may say yes for nothing) of what INVLPG would have to look for: */
    uint64_t large[2][64];    /* 2 MiB frames of the lower and upper half that have TLB entries of
                                 large pages */
    uint64_t cross_pages[64]; /* pages that are targets of chained edges from other pages */
    uint64_t jump_pages[SOFT_NMMU * 2][64]; /* pages with targets in the jump cache */
    /* Filter of gpa pages that may be written without further question, through nvpn_write or a
       pointer that C holds. Only its own vCPU sets bits; others read it (smp.c). */
    _Atomic uint64_t written_filter[SOFT_WRITTEN];
    /* TLB entries that may have nvpn_write, in lists by their gpa, so that a page's can be found: 1
       + mmu * SOFT_TLB_SIZE + slot. next: 0 = in no list. */
    uint32_t writer_first[SOFT_WRITERS], writer_next[SOFT_NMMU * SOFT_TLB_SIZE];
    bool bmi2, strict, chain;
    uint32_t mode;      /* of the code that ran last, without SINGLE and NOSHARE */
    uint8_t *ret_stack; /* guard pages, then the return predictions */
    uint8_t *alt_stack; /* for signals, since rsp may be near the guard */
    /* the access that is on the bounce buffer */
    uint64_t bounce_va;
    uint8_t *bounce;
    uint32_t bounce_size;
    struct soft_page_ref bounce_page[2];
    bool bounce_leaves; /* translations were dropped already: leave behind the store */
    /* what others wrote: any thread, under the lock */
    pthread_mutex_t written_lock;
    struct soft_written {
        uint64_t gpa; /* inside one page: */
        uint32_t len;
    } written[128];
    uint32_t nwritten;                            /* more than fit = all pages */
    uint32_t limits[SOFT_LIMIT_CLASSES], nlimits; /* of code segments */
    uint32_t lacks; /* of decode.c's optional instruction sets, what the processor model has not */
    ZydisDecoder decoder[3]; /* 64-bit, 32-bit, 16-bit */
    struct soft_x x[SOFT_MAX_INSNS];
    struct tx *tx; /* translate.c's working space */
};

/* What follows a call of soft_thunk_access. */
struct soft_access {
    uint64_t pc; /* as soft_block.pc */
    uint16_t size;
    uint8_t kind;
    uint8_t seg; /* with SOFT_ACCESS_SEG */
    uint8_t pad[4];
} __attribute__((packed)); /* lies between instructions, at any address */
enum {
    SOFT_ACCESS_READ = 1,
    SOFT_ACCESS_WRITE = 2,
    SOFT_ACCESS_STACK = 4 /* #SS instead of #GP */,
    SOFT_ACCESS_WINDOW = 8 /* no access yet: can all of it be accessed directly? */,
    SOFT_ACCESS_SEG = 16 /* the address is an offset in a segment, to be checked */,
    SOFT_ACCESS_ATOMIC = 32 /* a locked read-modify-write */,
    SOFT_ACCESS_X87 = 64 /* an x87 exception that waits comes before what the access raises */,
    SOFT_ACCESS_ALIGNED = 128 /* #GP if it is not, before the page is looked at */
};
struct soft_slow {
    uint8_t *host;
    uint64_t skip; /* 5: on the bounce buffer, to be written back; the window cannot be used */
};

/* length.c */
/* Of the encoding that begins there; above n: those n bytes are not all of it. code_bits: 16,
 * 32, 64. */
unsigned soft_length(const uint8_t *bytes, unsigned n, unsigned code_bits);

/* decode.c */
void soft_decoder_model(struct soft_code *c, const struct hsk_cpuid *model);
bool soft_decode(struct soft_vcpu *v, struct soft_x *x, uint32_t mode, const uint8_t *bytes,
                 unsigned n, uint64_t pc, bool *more);
bool soft_x_ends(const struct soft_x *x);
void soft_x_insn(const struct soft_x *x, uint32_t mode, struct soft_insn *out);
int soft_gpr(ZydisRegister r); /* 0-15; 16+n for AH CH DH BH; -1 */

/* translate.c: NULL with v->exc set if the first instruction cannot be fetched. page: that of pc's
   linear address. FPU parked. */
struct soft_block *soft_translate(struct soft_vcpu *v, uint64_t pc, uint32_t mode,
                                  const struct soft_itlb *page);

/* cache.c */
struct soft_code *soft_code_new(bool strict, GError **error);
void soft_code_free(struct soft_code *c);
/* Before a translation, if it is not full. FPU parked. */
void soft_code_make_ready(struct soft_code *c);
bool soft_code_full(const struct soft_code *c);
void soft_code_flush(struct soft_vcpu *v);
void *soft_code_alloc(struct soft_code *c, uint64_t size);
struct soft_block *soft_block_find(struct soft_code *c, uint64_t gpa, uint64_t pc, uint32_t mode);
struct soft_block *
soft_block_next(const struct soft_block *b); /* another one with the same key, or NULL */
void soft_block_publish(struct soft_vcpu *v, struct soft_block *b);
void soft_link_chain(struct soft_code *c, struct soft_link *l, struct soft_block *to);
void soft_unchain_cross(struct soft_code *c, uint64_t va, bool all);
/* Makes it unreachable, but for its pages. */
void soft_block_drop(struct soft_vcpu *v, struct soft_block *b);
/* The class of a code segment's limit in the mode word; may flush the code cache. FPU parked. */
uint32_t soft_limit_class(struct soft_vcpu *v, uint32_t limit);
const struct soft_block *soft_code_find_host(const struct soft_code *c, const uint8_t *host,
                                             uint64_t *guest_pc);

/* coherence.c */
/* Drops what was translated from [gpa, gpa+len) inside one page; whether there was anything. */
bool soft_code_invalidate(struct soft_vcpu *v, uint64_t gpa, unsigned len);
bool soft_code_touches(const struct soft_code *c, uint64_t gpa, unsigned len);
/* A store beside the code of such a page, which cost a call: too many, and its translations go
 * (true). */
bool soft_code_bear_write(struct soft_vcpu *v, uint64_t gpa);
/* Before the first byte is read from a page for translation: from now on whoever writes it tells
 * us. FPU parked. */
void soft_code_claim(struct soft_vcpu *v, uint64_t gpa);
/* Another thread wrote (or a vCPU is about to write, and has marked in its filter) [gpa, gpa+len)
   of a page that v holds translations of. */
void soft_code_post(struct soft_vcpu *v, uint64_t gpa, unsigned len);
void soft_code_written(void *opaque, struct hsk_memobj *obj, uint64_t page);
void soft_code_collect_written(struct soft_vcpu *v);
/* The block is of these granules of a claimed page. */
void soft_page_enter(struct soft_vcpu *v, struct soft_block *b, uint64_t gpa, uint64_t granules);
/* No page has translations any more. */
void soft_pages_disclaim(struct soft_vcpu *v);

/* jump.c */
void soft_jump_init(struct soft_vcpu *v);
/* The entry for pc, or NULL. The tables are of this mode: soft_jump_mode(). */
const struct soft_jump *soft_jump_find(const struct soft_vcpu *v, uint64_t pc, uint32_t mode);
/* The block was found for pc; page_va is set. */
void soft_jump_fill(struct soft_vcpu *v, uint64_t pc, struct soft_block *b);
void soft_jump_drop(struct soft_vcpu *v, const struct soft_block *b);
void soft_jump_flush(struct soft_vcpu *v, bool all);
void soft_jump_flush_page(struct soft_vcpu *v, uint64_t va);
/* Code of this mode is entered: the tables that it looks into hold no targets of another. */
void soft_jump_mode(struct soft_vcpu *v, uint32_t mode);

/* Forgets the return predictions: mappings or the mode changed. */
static inline void soft_returns_forget(struct soft_vcpu *v)
{
    v->ret_rsp = v->ret_base;
}

/* The linear address of an offset in CS, and that of the page behind va's. */
static inline uint64_t soft_linear_pc(const struct soft_vcpu *v, uint64_t pc)
{
    return v->code_size == 8 ? pc : (pc + v->seg_base[HSK_CS]) & UINT32_MAX;
}
static inline uint64_t soft_second_page(const struct soft_vcpu *v, uint64_t va)
{
    const uint64_t next = (va | 0xfff) + 1;

    return v->code_size == 8 || va > UINT32_MAX
               ? next
               : next & UINT32_MAX; /* beyond: system tables of long mode */
}

/* tlb.c */
void soft_tlb_init(struct soft_vcpu *v);
void soft_tlb_drop_writes(struct soft_vcpu *v);
void soft_tlb_drop_write_gpa(struct soft_vcpu *v, uint64_t gpa);
/* Code page of va: an entry with host bytes, or NULL with v->exc set (#PF, #GP). */
const struct soft_itlb *soft_fetch_page(struct soft_vcpu *v, uint64_t va, unsigned mmu);
const struct hsk_ram_region *soft_region(struct soft_vcpu *v, uint64_t gpa, uint64_t *page);
/* Checks and translates one page; fills the TLB if translated code may use the page directly.
 * Faults. */
struct soft_page_ref soft_lookup(struct soft_vcpu *v, uint64_t va, unsigned mmu, bool write,
                                 bool stack);
/* Fills the TLB for [va, va+size) if all of it can be accessed directly, without fault and without
 * setting D. */
bool soft_open_window(struct soft_vcpu *v, uint64_t va, unsigned size, bool write);

static inline bool soft_may_write(const struct soft_code *c, uint64_t gpa)
{
    return atomic_load(&c->written_filter[(gpa >> 18) % SOFT_WRITTEN]) >> (gpa >> 12 & 63) & 1;
}

/* access.c */
struct soft_slow soft_slow_access(struct soft_vcpu *v, uint64_t va, const struct soft_access *a);
int soft_slow_writeback(struct soft_vcpu *v, uint64_t next);

/* smp.c */
void soft_smp_enter(struct soft_vcpu *v);
void soft_smp_leave(struct soft_vcpu *v);
/* Lets those that wait for v to stand still have their turn. */
void soft_smp_give_way(struct soft_vcpu *v);
/* Takes away from all others the permission to write the page through their TLBs; v's own code mark
 * is set already. */
void soft_smp_revoke_writes(struct soft_vcpu *v, uint64_t gpa);
/* INIT or a start-up IPI waits. */
void soft_smp_startup(struct soft_vcpu *v);

/* Any thread: v looks at the world at its next block head. */
static inline void soft_interrupt(struct soft_vcpu *v, uint32_t what)
{
    atomic_fetch_or(&v->interrupt, what);
    atomic_store((_Atomic uint64_t *)&v->jump_mask, 0);
}

/* run.c */
enum hsk_exit soft_run(struct soft_vcpu *v);
/* Runs one instruction at rip, strictly. False: it left run(). */
bool soft_step_strictly(struct soft_vcpu *v);
/* Stops the machine with a sentence. Does not return. */
G_NORETURN void soft_stop(struct soft_vcpu *v, const char *fmt, ...) G_GNUC_PRINTF(2, 3);
void soft_fpu_unpark(struct soft_vcpu *v);
int soft_call_exec(struct soft_vcpu *v, const struct soft_insn *in);
int soft_call_string(struct soft_vcpu *v, const struct soft_insn *in);
/* 0: go on at v->rip. */
int soft_call_iret(struct soft_vcpu *v, const struct soft_insn *in);
#define SOFT_RAISE_ERROR_0 0x100u /* with an error code, which is 0 */
int soft_call_raise(struct soft_vcpu *v, uint64_t vector);
/* The current instruction is to be run again, alone. */
G_NORETURN void soft_run_alone(struct soft_vcpu *v);
/* LOOP or JCXZ whose target lies outside of the code segment: faults if it is taken. */
int soft_call_loop_out(struct soft_vcpu *v, const struct soft_insn *in);
/* Faults unless jump_target lies in the code segment. */
int soft_call_check_target(struct soft_vcpu *v, uint64_t unused);
int soft_call_unknown(struct soft_vcpu *v, const struct soft_insn *in);

/* chaos.c: at block heads, if the engine was made with a seed. */
void soft_chaos_start(struct soft_vcpu *v);
void soft_chaos(struct soft_vcpu *v);
/* Is this edge to stay a turn of the dispatcher? */
bool soft_chaos_denies(struct soft_vcpu *v);

/* lockstep.c: blocks compared with strict mode, if the engine was made so. */
void soft_lockstep_start(struct soft_vcpu *v);
/* Before the block that is looked up at rip is entered. */
void soft_lockstep_begin(struct soft_vcpu *v, const struct soft_block *b);
/* Behind it, rip set: runs it again in strict mode. */
void soft_lockstep_end(struct soft_vcpu *v);
/* What it did cannot be done twice (or raised an exception, the first time): no comparison. */
void soft_lockstep_cancel(struct soft_vcpu *v);
/* A page is about to become writable. */
void soft_lockstep_write(struct soft_vcpu *v, uint8_t *host);
/* Can the block that is being translated run twice? */
void soft_lockstep_note(struct soft_block *b, const struct soft_x *x);

/* signal.c */
bool soft_signals_install(GError **error);
void soft_signals_thread(struct soft_vcpu *v);

/* enter.S */
unsigned soft_enter(struct soft_vcpu *v, const void *host);
__attribute__((returns_twice)) int soft_setjmp(struct soft_vcpu *v);
G_NORETURN void soft_longjmp(struct soft_vcpu *v, int value);
void soft_exit_link(void);
void soft_exit_lookup(void);
void soft_exit_branch(void);
void soft_exit_sentinel(void);
void soft_exit_trap(void);
void soft_thunk_access(void);
void soft_thunk_writeback(void);
void soft_thunk_call(void);
