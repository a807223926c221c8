/* SPDX-License-Identifier: MIT */
/*
 * 16- and 32-bit code against the processor itself: random encodings run natively, in code and data
 * segments of the process's local descriptor table, and translated, in segments of the same bases,
 * limits and types. Registers, defined flags, vectors, memory and the exception must agree. FS and
 * GS are not touched: the host needs them. HSK_LONG or HSK_INSN_ROUNDS in the environment makes it
 * longer, HSK_INSN_SEED repeats a case.
 */
#include <asm/ldt.h>
#include <rounds.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include "engine-soft/xlate.h"
#include "native_insn.h"
#include "soft_guest.h"

#include <cmocka.h>

#define NATIVE      ((uint8_t *)0x20000000)
#define DATA_SIZE   0x12800u
#define CODE_OFFSET 0x100u /* of the code in its segment, if that has a base */

enum { LDT_CODE, LDT_DS, LDT_ES, LDT_SS, LDT_N };
#define SELECTOR(n) ((n) << 3 | 7)

struct regs {
    uint64_t gpr[16], rflags;
    int vector;
    uint8_t xsave[1024] __attribute__((aligned(64)));
};

/* The segments of a case: of the process and of the guest. */
struct segments {
    bool code16, stack16, flat;
    uint32_t base[LDT_N], limit[LDT_N];
    bool down;  /* DS expands down */
    bool whole; /* each has 64 KiB */
};

static struct {
    struct regs *in, out;
    uint64_t host_rsp, saved_rax;
    uint32_t target_offset;
    uint16_t target_cs, ds, es, ss;
    sigjmp_buf jump;
} native_ctx __attribute__((used));

static uint64_t rng_state;

static uint64_t rng(void)
{
    rng_state ^= rng_state << 13;
    rng_state ^= rng_state >> 7;
    rng_state ^= rng_state << 17;
    return rng_state * 0x2545f4914f6cdd1dull;
}

/* Loads the low eight registers and DS, ES, SS and jumps into the other code segment, which comes
 * back by a far jump. */
void native_go(void);
extern const char native_back[];
__asm__(".pushsection .text\n.globl native_go\nnative_go:\n"
        "push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15\n"
        "lea native_ctx(%rip), %rax\n"
        "mov %rsp, 1280(%rax)\n" /* host_rsp: checked below */
        "mov (%rax), %r15\n"
        "mov $7, %eax; xor %edx, %edx; xrstor64 192(%r15)\n"
        "pushq 128(%r15); popfq\n"
        "mov native_ctx+1302(%rip), %ds; mov native_ctx+1304(%rip), %es; mov "
        "native_ctx+1306(%rip), %ss\n"
        "mov 0(%r15), %rax; mov 8(%r15), %rcx; mov 16(%r15), %rdx; mov 24(%r15), %rbx; mov "
        "32(%r15), %rsp\n"
        "mov 40(%r15), %rbp; mov 48(%r15), %rsi; mov 56(%r15), %rdi\n"
        "ljmpl *native_ctx+1296(%rip)\n"
        "native_back:\n"
        "mov %rax, native_ctx+1288(%rip)\n"
        "lea native_ctx+64(%rip), %rax\n"
        "mov %rcx, 8(%rax); mov %rdx, 16(%rax); mov %rbx, 24(%rax); mov %rsp, 32(%rax); mov %rbp, "
        "40(%rax)\n"
        "mov %rsi, 48(%rax); mov %rdi, 56(%rax)\n"
        "mov $0x2b, %ecx; mov %ecx, %ss\n"
        "mov native_ctx+1280(%rip), %rsp\n"
        "pushfq; popq 128(%rax)\n"
        "mov native_ctx+1288(%rip), %rcx; mov %rcx, 0(%rax)\n"
        "mov %rax, %rcx; mov $7, %eax; xor %edx, %edx; xsave64 192(%rcx)\n"
        "fninit; cld; vzeroupper; xor %eax, %eax; mov %eax, %ds; mov %eax, %es\n"
        "pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx\n"
        "ret\n.popsection");
_Static_assert(offsetof(struct regs, xsave) == 192, "native_go");
_Static_assert(offsetof(typeof(native_ctx), host_rsp) == 1280, "native_go");
_Static_assert(offsetof(typeof(native_ctx), target_offset) == 1296, "native_go");
static const uint32_t default_mxcsr = 0x1f80;

static void on_trap(int sig, siginfo_t *info, void *context)
{
    const ucontext_t *uc = context;
    static const int order[8] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX,
                                 REG_RSP, REG_RBP, REG_RSI, REG_RDI};

    (void)sig;
    (void)info;
    for (unsigned i = 0; i < 8; i++)
        native_ctx.out.gpr[i] = (uint64_t)uc->uc_mcontext.gregs[order[i]];
    native_ctx.out.vector = (int)uc->uc_mcontext.gregs[REG_TRAPNO];
    siglongjmp(native_ctx.jump, 1);
}

static bool set_ldt(const struct segments *g)
{
    for (unsigned i = 0; i < LDT_N; i++) {
        struct user_desc d = {
            .entry_number = i,
            .base_addr = g->base[i],
            .limit = g->flat ? 0xfffff : g->limit[i],
            .limit_in_pages = g->flat,
            .seg_32bit = i == LDT_CODE ? !g->code16
                         : i == LDT_SS ? !g->stack16
                                       : 0,
            .contents = i == LDT_CODE            ? MODIFY_LDT_CONTENTS_CODE
                        : i == LDT_DS && g->down ? MODIFY_LDT_CONTENTS_STACK
                                                 : MODIFY_LDT_CONTENTS_DATA,
            .useable = 1,
        };

        if (syscall(SYS_modify_ldt, 0x11, &d, sizeof d) != 0)
            return false;
    }
    return true;
}

/* The way back to 64-bit code: ljmp 0x33:NATIVE */
static void put_exit(const struct segments *g, uint8_t *p)
{
    if (g->code16)
        *p++ = 0x66;
    *p++ = 0xea;
    hsk_put32(p, (uint32_t)(uintptr_t)NATIVE);
    hsk_put16(p + 4, 0x33);
}

/* What is at CODE_OFFSET of NATIVE. */
static void run_native(const struct segments *g, struct regs *in)
{
    static const int sigs[] = {SIGFPE, SIGSEGV, SIGILL, SIGBUS, SIGTRAP};
    struct sigaction sa = {.sa_sigaction = on_trap, .sa_flags = SA_SIGINFO | SA_ONSTACK}, old[5];

    native_ctx.in = in;
    native_ctx.out.vector = -1;
    native_ctx.target_cs = SELECTOR(LDT_CODE);
    native_ctx.target_offset = g->flat ? (uint32_t)(uintptr_t)NATIVE + CODE_OFFSET : CODE_OFFSET;
    native_ctx.ds = SELECTOR(LDT_DS);
    native_ctx.es = SELECTOR(LDT_ES);
    native_ctx.ss = SELECTOR(LDT_SS);
    for (unsigned i = 0; i < 5; i++)
        sigaction(sigs[i], &sa, &old[i]);
    if (sigsetjmp(native_ctx.jump, 1) == 0)
        native_go();
    __asm__ volatile("fninit; ldmxcsr %0; vzeroupper; cld; mov %1, %%ds; mov %1, %%es"
                     :
                     : "m"(default_mxcsr), "r"(0));
    for (unsigned i = 0; i < 5; i++)
        sigaction(sigs[i], &old[i], NULL);
}

/* Flat, or each data segment with a piece of the data, its end (or start) reached now and then. */
static void random_segments(struct segments *g)
{
    const uint32_t data = (uint32_t)GUEST_DATA;

    *g = (struct segments){.code16 = rng() & 1, .flat = rng() % 4 == 0};
    if (g->flat) {
        g->code16 = false;
        return;
    }
    g->stack16 = rng() & 1;
    g->down = rng() % 4 == 0;
    g->base[LDT_CODE] = (uint32_t)(uintptr_t)NATIVE;
    g->limit[LDT_CODE] = 0xfff;
    g->base[LDT_DS] = g->down ? data - 0x8000 : data;
    g->limit[LDT_DS] = 0x7fff;
    g->base[LDT_ES] = data + 0x1000;
    g->limit[LDT_ES] = 0x5fff;
    g->base[LDT_SS] = data + 0x2004;
    g->limit[LDT_SS] = 0x5000;
    g->whole = !g->down && rng() % 2;
    if (g->whole)
        for (unsigned i = 0; i < LDT_N; i++)
            g->limit[i] = 0xffff;
}

/* What is in memory before: a different piece of the same noise each time. */
static void random_data(uint8_t *to)
{
    static uint64_t noise[DATA_SIZE / 8 + 512];

    for (unsigned i = 0; !noise[G_N_ELEMENTS(noise) - 1]; i++)
        noise[i] = (i + 1) * 0x9e3779b97f4a7c15ull;
    memcpy(to, noise + rng() % 512, DATA_SIZE);
}

static void random_regs(struct regs *r, const struct segments *g)
{
    static const uint32_t nice[] = {0, 1, ~0u, 0x80, 0x7f, 0x8000, 0x80000000, 0x7fffffff, 64, 31};
    static const uint8_t pointers[] = {HSK_RBX, HSK_RSI, HSK_RDI, HSK_RBP};

    memset(r, 0, sizeof *r);
    for (unsigned i = 0; i < 8; i++)
        r->gpr[i] = rng() % 3 ? (uint32_t)rng() : nice[rng() % G_N_ELEMENTS(nice)];
    if (g->flat) {
        r->gpr[HSK_RSI] = GUEST_DATA + 0x1000 + rng() % 64;
        r->gpr[HSK_RDI] = GUEST_DATA + 0x1000 + 16 * (rng() % 16);
        r->gpr[HSK_RBX] = GUEST_DATA + 0x2000 - rng() % 40; /* often over the page's end */
        r->gpr[HSK_RBP] = GUEST_DATA + 0x5000 + 8 * (rng() % 32);
        r->gpr[HSK_RSP] = GUEST_DATA + 0x5000 + 8 * (rng() % 32);
        r->gpr[HSK_RCX] = rng() % 64;
    } else {
        for (unsigned i = 0; i < 4; i++) {
            uint64_t at = rng() % 8 ? (rng() & 0xfff) + 0x1000 : 0x8000 - rng() % 32;

            if (g->whole && rng() % 4 == 0)
                at = 0x10000 - rng() % 32;
            if (g->down)
                at += rng() % 4 ? 0x8000 : 0;
            r->gpr[pointers[i]] = (rng() % 4 ? 0 : (uint32_t)rng() << 16) | at;
        }
        r->gpr[HSK_RSP] = rng() % 8   ? 0x2000 + rng() % 0x1000
                          : rng() % 2 ? rng() % 24
                                      : 0x5000 - rng() % 16;
        r->gpr[HSK_RSP] |= rng() % 4 ? 0 : (rng() & 0xffff) << 16;
        if (rng() % 4)
            r->gpr[HSK_RCX] = (r->gpr[HSK_RCX] & 0xffff0000) | rng() % 64;
    }
    r->rflags = (rng() & SOFT_ARITH) | 0x202 | (rng() % 4 ? 0 : HSK_FLAG_DF);
    for (unsigned i = 160; i < 288; i += 8)
        hsk_put64(r->xsave + i, rng());
    for (unsigned i = 576; i < 704; i += 8)
        hsk_put64(r->xsave + i, rng());
    hsk_put16(r->xsave, 0x37f);
    hsk_put32(r->xsave + 24, 0x1f80 | (rng() % 4 << 13));
    hsk_put64(r->xsave + 512, 7);
}

/* Of those done in C, what a program may do without changing its segments. */
static bool harmless_helper(const struct soft_x *x)
{
    switch (x->in.mnemonic) {
    case ZYDIS_MNEMONIC_AAA:
    case ZYDIS_MNEMONIC_AAS:
    case ZYDIS_MNEMONIC_DAA:
    case ZYDIS_MNEMONIC_DAS:
    case ZYDIS_MNEMONIC_AAM:
    case ZYDIS_MNEMONIC_AAD:
    case ZYDIS_MNEMONIC_SALC:
    case ZYDIS_MNEMONIC_PUSHA:
    case ZYDIS_MNEMONIC_PUSHAD:
    case ZYDIS_MNEMONIC_POPA:
    case ZYDIS_MNEMONIC_POPAD:
    case ZYDIS_MNEMONIC_ENTER:
    case ZYDIS_MNEMONIC_BOUND:
    case ZYDIS_MNEMONIC_XLAT:
    case ZYDIS_MNEMONIC_ARPL:
        return true;
    default:
        return false;
    }
}

/* In flat segments the operand must be made of a pointer and a small number. */
static bool points_to_data(const struct soft_x *x)
{
    const ZydisDecodedOperandMem *m = &x->op[MAX(x->mem, 0)].mem;
    int base = x->mem >= 0 ? soft_gpr(m->base) : -1;

    if (x->kind == SOFT_X_STRING || x->in.mnemonic == ZYDIS_MNEMONIC_XLAT ||
        x->in.mnemonic == ZYDIS_MNEMONIC_ENTER || x->in.mnemonic == ZYDIS_MNEMONIC_MASKMOVQ ||
        x->in.mnemonic == ZYDIS_MNEMONIC_MASKMOVDQU || x->kind == SOFT_X_BT)
        return false;
    if (x->mem < 0 || x->kind == SOFT_X_LEA)
        return true;
    return m->index == ZYDIS_REGISTER_NONE && x->in.raw.disp.size <= 8 &&
           x->in.address_width == 32 &&
           (base == HSK_RSI || base == HSK_RDI || base == HSK_RBX || base == HSK_RBP ||
            base == HSK_RSP);
}

static bool random_insn(struct soft_vcpu *v, const struct segments *g, uint8_t *code,
                        struct soft_x *x)
{
    static const uint8_t prefixes[] = {0x66, 0x66, 0x67, 0x67, 0xf2, 0xf3, 0xf0, 0x26, 0x36, 0x3e};
    unsigned n = 0;
    bool more;

    memset(code, 0, 24);
    for (unsigned i = rng() % 3; i > 0; i--)
        code[n++] = prefixes[rng() % G_N_ELEMENTS(prefixes)];
    if (rng() % 4 == 0) { /* VEX */
        code[n++] = 0xc4;
        code[n++] = (uint8_t)(0xc0 | (rng() & 0x20) | (1 + rng() % 3));
        code[n++] = (uint8_t)rng();
    } else if (rng() % 2) {
        code[n++] = 0x0f;
        if (rng() % 4 == 0)
            code[n++] = rng() % 2 ? 0x38 : 0x3a;
    }
    code[n++] = (uint8_t)rng();
    code[n++] = (uint8_t)(rng() % 2 ? 0xc0 | rng() : g->flat ? (rng() & 0x3f) | 0x40 : rng());
    for (unsigned i = 0; i < 8; i++)
        code[n++] = (uint8_t)(rng() % 2 ? rng() : rng() % 24);
    memset(x, 0, sizeof *x);
    if (!soft_decode(v, x,
                     SOFT_MODE_CODE32 | (g->code16 ? SOFT_MODE_CODE16 : 0) | SOFT_MODE_SSE |
                         SOFT_MODE_AVX,
                     code, 15, GUEST_CODE, &more))
        return false;
    if (x->in.mnemonic == ZYDIS_MNEMONIC_RDRAND || x->in.mnemonic == ZYDIS_MNEMONIC_RDSEED)
        return false;
    if (g->flat && !points_to_data(x))
        return false;
    for (unsigned i = 0; i < x->in.operand_count; i++) /* CS differs; only data may be written */
        if (x->op[i].type == ZYDIS_OPERAND_TYPE_MEMORY && x->kind != SOFT_X_LEA &&
            (x->op[i].mem.segment == ZYDIS_REGISTER_CS ||
             x->op[i].mem.segment >= ZYDIS_REGISTER_FS))
            return false;
    switch (x->kind) {
    case SOFT_X_PASS:
    case SOFT_X_LEA:
    case SOFT_X_PUSH:
    case SOFT_X_POP:
    case SOFT_X_LEAVE:
    case SOFT_X_BT:
    case SOFT_X_STRING:
    case SOFT_X_DF:
        return true;
    case SOFT_X_HELPER:
        return harmless_helper(x);
    default:
        return false;
    }
}

static bool is_popa(const struct soft_x *x)
{
    return x->in.mnemonic == ZYDIS_MNEMONIC_POPA || x->in.mnemonic == ZYDIS_MNEMONIC_POPAD;
}

static int compare(const struct soft_x *x, uint64_t seed, const struct regs *n,
                   const struct hsk_cpu_state *s, int vector, const uint8_t *native_mem,
                   const uint8_t *guest_mem)
{
    if (vector != n->vector)
        return insn_show(x, seed, "exception", (uint64_t)n->vector, (uint64_t)vector);
    for (unsigned i = 0; i < 8 && !(vector >= 0 && is_popa(x));
         i++) /* which may have loaded some before it faults */
        if ((uint32_t)s->gpr[i] != (uint32_t)n->gpr[i] && !(vector >= 0 && i == HSK_RSP))
            return insn_show(x, seed, "register", n->gpr[i], s->gpr[i]) +
                   insn_show(x, seed, "number", i, i);
    for (unsigned i = 0; i < DATA_SIZE; i++)
        if (native_mem[i] != guest_mem[i])
            return insn_show(x, seed, "memory", native_mem[i], guest_mem[i]) +
                   insn_show(x, seed, "at", i, i);
    if (vector >= 0)
        return 0;
    if ((s->rflags ^ n->rflags) & SOFT_ARITH & ~insn_undefined_flags(x))
        return insn_show(x, seed, "flags", n->rflags, s->rflags);
    for (unsigned i = 0; i < 704; i++)
        if ((i < 6 || (i >= 24 && i < 28) || (i >= 32 && i < 288) || i >= 576) &&
            s->xsave[i] != n->xsave[i])
            return insn_show(x, seed, "vector state", n->xsave[i], s->xsave[i]) +
                   insn_show(x, seed, "offset", i, i);
    return 0;
}

static struct hsk_segment guest_segment(const struct segments *g, unsigned i, unsigned type)
{
    if (g->flat)
        return (struct hsk_segment){
            .limit = UINT32_MAX, .selector = 16, .attr = (uint16_t)(0xc090 | type)};
    return (struct hsk_segment){
        .base = g->base[i], .limit = g->limit[i], .selector = 16, .attr = (uint16_t)(0x90 | type)};
}

static void guest_segments(struct hsk_cpu_state *s, const struct segments *g)
{
    s->seg[HSK_CS] = guest_segment(g, LDT_CODE, 0xb);
    s->seg[HSK_CS].selector = 8;
    if (!g->flat)
        s->seg[HSK_CS].base = GUEST_CODE;
    if (!g->code16)
        s->seg[HSK_CS].attr |= HSK_SEG_DB;
    s->seg[HSK_DS] = guest_segment(g, LDT_DS, g->down ? 7 : 3);
    s->seg[HSK_ES] = guest_segment(g, LDT_ES, 3);
    s->seg[HSK_SS] = guest_segment(g, LDT_SS, 3);
    if (!g->stack16)
        s->seg[HSK_SS].attr |= HSK_SEG_DB;
    s->rip = g->flat ? GUEST_CODE + CODE_OFFSET : CODE_OFFSET;
    /* exceptions use a stack of their own */
    s->seg[HSK_TR] = (struct hsk_segment){
        .base = GUEST_VA + 0xa000, .limit = 0x67, .selector = 0x18, .attr = 0x8b};
}

/* The guest's turn with what is at GUEST_CODE; returns the exception, -1 for none, -2 for another
 * end than HLT. */
static int run_guest(struct guest *g, struct hsk_cpu_state *s, const struct segments *segs,
                     const struct regs *r)
{
    hsk_engine_soft_ops.flush(g->engine, HSK_FLUSH_CODE);
    guest_state(g, s);
    guest_segments(s, segs);
    memcpy(s->gpr, r->gpr, sizeof s->gpr);
    s->rflags = (r->rflags & (SOFT_ARITH | HSK_FLAG_DF)) | 2;
    memcpy(s->xsave, r->xsave, 832);
    if (guest_run(g, s) != HSK_EXIT_HALT)
        return -2;
    return s->rip >= GUEST_TRAPS && s->rip < GUEST_TRAPS + 512 ? (int)(s->rip - GUEST_TRAPS) / 16
                                                               : -1;
}

static int one_case(struct guest *g, uint64_t seed)
{
    static uint8_t before[DATA_SIZE], native_mem[DATA_SIZE];
    struct soft_vcpu *v =
        (struct soft_vcpu *)(void *)((char *)g->vcpu - offsetof(struct soft_vcpu, base));
    uint8_t *data = (uint8_t *)(uintptr_t)GUEST_DATA,
            *at = (uint8_t *)(uintptr_t)GUEST_CODE + CODE_OFFSET, code[24];
    struct hsk_cpu_state s;
    struct segments segs;
    struct soft_x x;
    struct regs r;
    int vector;

    rng_state = seed * 0x9e3779b97f4a7c15ull + 1;
    rng();
    random_segments(&segs);
    if (!random_insn(v, &segs, code, &x))
        return 0;
    if (!set_ldt(&segs))
        return -1;
    random_regs(&r, &segs);
    random_data(before);
    memcpy(data, before, DATA_SIZE);
    memcpy(NATIVE + CODE_OFFSET, code, x.in.length);
    put_exit(&segs, NATIVE + CODE_OFFSET + x.in.length);
    run_native(&segs, &r);
    memcpy(native_mem, data, DATA_SIZE);
    memcpy(data, before, DATA_SIZE);

    memcpy(at, code, x.in.length);
    at[x.in.length] = 0xf4;
    vector = run_guest(g, &s, &segs, &r);
    return compare(&x, seed, &native_ctx.out, &s, vector, native_mem, data) + 0x10000;
}

/* --- branches --- */

#define PADS      48u /* each sets EBX to its number and ends */
#define PAD(i)    (0x400u + 24u * (i))
#define SHORT_PAD 0x40u /* this far from CODE_OFFSET in both directions is one, too */

/* Near branches with targets on pads, beyond the limit of CS or over the end of 64 KiB, at
 * CODE_OFFSET of both. */
static unsigned random_branch(const struct segments *g, uint8_t *code, uint32_t target,
                              struct regs *r, uint8_t *data)
{
    const bool p66 = rng() % 4 == 0, p67 = rng() % 4 == 0, o16 = g->code16 != p66,
               a16 = g->code16 != p67;
    const uint64_t how = rng() % 8;
    unsigned n = 0, rel;

    if (p66)
        code[n++] = 0x66;
    if (p67)
        code[n++] = 0x67;
    if (how < 4) { /* jcc, jmp and call with a long displacement, loop and jcxz with a short one */
        if (how == 0) {
            code[n++] = 0x0f;
            code[n++] = (uint8_t)(0x80 | rng() % 16);
        } else {
            code[n++] = (uint8_t)(how == 1 ? 0xe8 : how == 2 ? 0xe9 : 0xe0 + rng() % 4);
        }
        rel = target - CODE_OFFSET - n;
        if (how == 3)
            code[n] = (uint8_t)(rng() % 2 ? SHORT_PAD - n - 1 : -SHORT_PAD - n - 1);
        else if (o16)
            hsk_put16(code + n, (uint16_t)(rel - 2));
        else
            hsk_put32(code + n, rel - 4);
        return n + (how == 3 ? 1 : o16 ? 2 : 4);
    }
    if (how < 6) { /* ret, ret imm16 */
        hsk_put32(data + g->base[LDT_SS] - GUEST_DATA + 0x2800, target);
        r->gpr[HSK_RSP] = (g->stack16 ? r->gpr[HSK_RSP] & 0xffff0000 : 0) | 0x2800;
        code[n++] = how == 4 ? 0xc3 : 0xc2;
        hsk_put16(code + n, (uint16_t)rng() & 0xff);
        return n + (how == 4 ? 0 : 2);
    }
    code[n++] = 0xff;
    if (how == 6) { /* call or jmp [disp] */
        code[n++] = (uint8_t)((rng() % 2 ? 0x10 : 0x20) | (a16 ? 6 : 5));
        hsk_put32(data + 0x1800, target);
        hsk_put32(code + n, 0x1800);
        if (g->down)
            hsk_put32(code + n, 0x9800);
        return n + (a16 ? 2 : 4);
    }
    code[n++] = (uint8_t)(0xc0 | (rng() % 2 ? 0x10 : 0x20) | HSK_RDX);
    r->gpr[HSK_RDX] = target | (rng() % 4 ? 0 : rng() << 16 & 0xffff0000);
    return n;
}

static int one_branch(struct guest *g, uint64_t seed)
{
    static uint8_t before[DATA_SIZE], native_mem[DATA_SIZE];
    uint8_t *data = (uint8_t *)(uintptr_t)GUEST_DATA, *at = (uint8_t *)(uintptr_t)GUEST_CODE,
            code[24] = {0};
    struct soft_x x = {.in.length = 12}; /* for insn_show() */
    uint32_t target;
    struct hsk_cpu_state s;
    struct segments segs;
    struct regs r;
    unsigned n;
    int vector;

    rng_state = seed * 0x9e3779b97f4a7c15ull + 3;
    do
        random_segments(&segs);
    while (segs.flat || segs.whole);
    if (!set_ldt(&segs))
        return -1;
    random_regs(&r, &segs);
    random_data(before);
    target = rng() % 4   ? PAD(rng() % PADS)
             : rng() % 2 ? 0x1000 + (uint32_t)rng() % 8
                         : (uint32_t)rng() | 0x1000;
    n = random_branch(&segs, code, target, &r, before);
    memset(NATIVE + 64, 0xcc, 4096 - 64);
    memset(at, 0xcc, 4096);
    for (unsigned i = 0; i < PADS + 3; i++) {
        unsigned pad = i < PADS        ? PAD(i)
                       : i == PADS     ? CODE_OFFSET + n
                       : i == PADS + 1 ? CODE_OFFSET + SHORT_PAD
                                       : CODE_OFFSET - SHORT_PAD;
        uint8_t mov[2] = {0xb3, (uint8_t)i};

        memcpy(NATIVE + pad, mov, 2);
        memcpy(at + pad, mov, 2);
        put_exit(&segs, NATIVE + pad + 2);
        at[pad + 2] = 0xf4;
    }
    memcpy(NATIVE + CODE_OFFSET, code, n);
    memcpy(at + CODE_OFFSET, code, n);
    memcpy(x.raw, code, sizeof x.raw);
    memcpy(data, before, DATA_SIZE);
    run_native(&segs, &r);
    memcpy(native_mem, data, DATA_SIZE);
    memcpy(data, before, DATA_SIZE);
    vector = run_guest(g, &s, &segs, &r);
    return compare(&x, seed, &native_ctx.out, &s, vector, native_mem, data) + 0x10000;
}

/* --- */

static void many(int (*one)(struct guest *g, uint64_t seed), const char *what, uint64_t usual)
{
    const char *rounds = g_getenv("HSK_INSN_ROUNDS"), *seed = g_getenv("HSK_INSN_SEED");
    uint64_t first = seed ? g_ascii_strtoull(seed, NULL, 10) : 1,
             n = seed     ? 1
                 : rounds ? g_ascii_strtoull(rounds, NULL, 10)
                          : test_rounds((unsigned)usual, (unsigned)usual * 30);
    int bad = 0, ran = 0;
    struct guest g;

    guest_new(&g, false);
    for (unsigned i = 0; i < 32; i++)
        g.mem[0x8000 + 16 * i + 4] = 1; /* IST 1 */
    hsk_put64(g.mem + 0xa000 + 0x24, GUEST_VA + 0xc000);
    for (uint64_t i = first; i < first + n && bad < 20; i++) {
        int r = one(&g, i);

        if (r < 0) {
            print_message("skipped: this kernel has no local descriptor tables\n");
            guest_free(&g);
            skip();
        }
        ran += r >= 0x10000;
        bad += r & 0xffff;
    }
    guest_free(&g);
    print_message("%d %s ran, %d differ\n", ran, what, bad);
    assert_int_equal(bad, 0);
    assert_true(seed || ran > 1000);
}

static void random_instructions_agree(void **state)
{
    (void)state;
    many(one_case, "instructions", 60000);
}

static void random_branches_agree(void **state)
{
    (void)state;
    many(one_branch, "branches", 10000);
}

static int setup(void **state)
{
    static uint8_t altstack[65536];
    stack_t ss = {.ss_sp = altstack, .ss_size = sizeof altstack};

    (void)state;
    assert_int_equal(sigaltstack(&ss, NULL), 0);
    assert_ptr_equal(mmap(NATIVE, 4096, PROT_READ | PROT_WRITE | PROT_EXEC,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0),
                     NATIVE);
    memcpy(NATIVE, "\xff\x25\x00\x00\x00\x00", 6); /* jmp native_back */
    hsk_put64(NATIVE + 6, (uint64_t)(uintptr_t)native_back);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_instructions_agree),
        cmocka_unit_test(random_branches_agree),
    };

    return cmocka_run_group_tests(tests, setup, NULL);
}
