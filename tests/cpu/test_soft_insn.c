/* SPDX-License-Identifier: MIT */
/*
 * Each pass-through instruction (and the masked moves of bytes) against the processor itself:
 * random encodings run natively and translated on the same registers, flags, vector state and
 * memory; registers, defined flags, vectors, memory and the exception must agree. And no bytes of a
 * guest's program stop the machine as unknown. HSK_LONG or HSK_INSN_ROUNDS in the environment makes
 * it longer, HSK_INSN_SEED repeats a case.
 */
#include <rounds.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <ucontext.h>

#include "engine-soft/xlate.h"
#include "native_insn.h"
#include "soft_guest.h"

#include <cmocka.h>

#define NATIVE ((uint8_t *)0x20000000)

struct regs {
    uint64_t gpr[16], rflags;
    int vector;
    uint8_t xsave[1024] __attribute__((aligned(64)));
};

static struct {
    struct regs *in, out;
    uint64_t host_rsp, saved_rax;
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

/* Loads all registers from native_ctx.in, jumps to NATIVE, which comes back to native_back. */
void native_go(void);
extern const char native_back[];
__asm__(".pushsection .text\n.globl native_go\nnative_go:\n"
        "push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15\n"
        "lea native_ctx(%rip), %rax\n"
        "mov %rsp, 1280(%rax)\n" /* host_rsp: checked below */
        "mov (%rax), %r15\n"
        "mov $7, %eax; xor %edx, %edx; xrstor64 192(%r15)\n"
        "pushq 128(%r15); popfq\n"
        "mov 0(%r15), %rax; mov 8(%r15), %rcx; mov 16(%r15), %rdx; mov 24(%r15), %rbx; mov "
        "32(%r15), %rsp\n"
        "mov 40(%r15), %rbp; mov 48(%r15), %rsi; mov 56(%r15), %rdi; mov 64(%r15), %r8; mov "
        "72(%r15), %r9\n"
        "mov 80(%r15), %r10; mov 88(%r15), %r11; mov 96(%r15), %r12; mov 104(%r15), %r13; mov "
        "112(%r15), %r14\n"
        "mov 120(%r15), %r15\n"
        "jmp *native_at(%rip)\n"
        "native_back:\n"
        "mov %rax, native_ctx+1288(%rip)\n"
        "lea native_ctx+64(%rip), %rax\n"
        "mov %rcx, 8(%rax); mov %rdx, 16(%rax); mov %rbx, 24(%rax); mov %rsp, 32(%rax); mov %rbp, "
        "40(%rax)\n"
        "mov %rsi, 48(%rax); mov %rdi, 56(%rax); mov %r8, 64(%rax); mov %r9, 72(%rax); mov %r10, "
        "80(%rax)\n"
        "mov %r11, 88(%rax); mov %r12, 96(%rax); mov %r13, 104(%rax); mov %r14, 112(%rax); mov "
        "%r15, 120(%rax)\n"
        "mov native_ctx+1280(%rip), %rsp\n"
        "pushfq; popq 128(%rax)\n"
        "mov native_ctx+1288(%rip), %rcx; mov %rcx, 0(%rax)\n"
        "mov %rax, %rcx; mov $7, %eax; xor %edx, %edx; xsave64 192(%rcx)\n"
        "fninit; cld; vzeroupper\n"
        "pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx\n"
        "ret\n"
        ".data\nnative_at: .quad 0x20000000\n.text\n.popsection");
_Static_assert(offsetof(struct regs, xsave) == 192, "native_go");
static const uint32_t default_mxcsr = 0x1f80;

static void on_trap(int sig, siginfo_t *info, void *context)
{
    const ucontext_t *uc = context;
    static const int order[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP,
                                  REG_RSI, REG_RDI, REG_R8,  REG_R9,  REG_R10, REG_R11,
                                  REG_R12, REG_R13, REG_R14, REG_R15};

    (void)sig;
    (void)info;
    for (unsigned i = 0; i < 16; i++)
        native_ctx.out.gpr[i] = (uint64_t)uc->uc_mcontext.gregs[order[i]];
    native_ctx.out.vector = (int)uc->uc_mcontext.gregs[REG_TRAPNO];
    siglongjmp(native_ctx.jump, 1);
}

static void run_native(const uint8_t *code, unsigned n, struct regs *in)
{
    static const int sigs[] = {SIGFPE, SIGSEGV, SIGILL, SIGBUS, SIGTRAP};
    struct sigaction sa = {.sa_sigaction = on_trap, .sa_flags = SA_SIGINFO | SA_ONSTACK}, old[5];

    memcpy(NATIVE, code, n);
    memcpy(NATIVE + n, "\xff\x25\x00\x00\x00\x00", 6);
    hsk_put64(NATIVE + n + 6, (uint64_t)(uintptr_t)native_back);
    native_ctx.in = in;
    native_ctx.out.vector = -1;
    for (unsigned i = 0; i < 5; i++)
        sigaction(sigs[i], &sa, &old[i]);
    if (sigsetjmp(native_ctx.jump, 1) == 0)
        native_go();
    __asm__ volatile("fninit; ldmxcsr %0; vzeroupper" : : "m"(default_mxcsr));
    for (unsigned i = 0; i < 5; i++)
        sigaction(sigs[i], &old[i], NULL);
}

static void random_regs(struct regs *r)
{
    static const uint64_t nice[] = {0,          1,          ~0ull,      0x80, 0x7f, 0x8000,
                                    0x80000000, 0x7fffffff, 1ull << 63, 64,   31};

    memset(r, 0, sizeof *r);
    for (unsigned i = 0; i < 16; i++)
        r->gpr[i] = rng() % 3 ? rng() : nice[rng() % G_N_ELEMENTS(nice)];
    r->gpr[HSK_RSI] = GUEST_DATA + 0x1000 + rng() % 64;
    r->gpr[HSK_RDI] = GUEST_DATA + 0x1000 + 16 * (rng() % 16);
    r->gpr[HSK_R9] = GUEST_DATA + 0x2000 - rng() % 40; /* often over the page's end */
    r->gpr[HSK_RCX] = rng() % 4 ? r->gpr[HSK_RCX] : GUEST_DATA + 0x1800;
    r->gpr[HSK_RSP] = GUEST_DATA + 0x5000 + 8 * (rng() % 32);
    r->gpr[HSK_RBP] = GUEST_DATA + 0x5000 + 8 * (rng() % 32);
    r->gpr[HSK_R12] = GUEST_DATA + 0x1200 + 32 * (rng() % 8);
    r->rflags = (rng() & SOFT_ARITH) | 0x202;
    for (unsigned i = 160; i < 416; i += 8)
        hsk_put64(r->xsave + i, rng());
    for (unsigned i = 576; i < 832; i += 8)
        hsk_put64(r->xsave + i, rng());
    hsk_put16(r->xsave, 0x37f);
    hsk_put32(r->xsave + 24, 0x1f80 | (rng() % 4 << 13));
    hsk_put64(r->xsave + 512, 7);
}

/* A random instruction that our decoder lets pass, with a memory operand that points to data. */
static bool random_insn(struct soft_vcpu *v, uint8_t *code, struct soft_x *x)
{
    static const uint8_t prefixes[] = {0x66, 0xf2, 0xf3, 0xf0, 0x40, 0x41, 0x44,
                                       0x45, 0x48, 0x49, 0x4c, 0x4d, 0x42};
    static const uint8_t bases[] = {6, 7, 4, 5, 1};
    unsigned n = 0;
    bool more;

    memset(code, 0, 24);
    if (rng() % 3 == 0) { /* VEX */
        code[n++] = 0xc4;
        code[n++] = (uint8_t)((rng() & 0xe0) | (1 + rng() % 3));
        code[n++] = (uint8_t)rng();
        code[n++] = (uint8_t)rng();
    } else {
        for (unsigned i = rng() % 3; i > 0; i--)
            code[n++] = prefixes[rng() % G_N_ELEMENTS(prefixes)];
        if (rng() % 2) {
            code[n++] = 0x0f;
            if (rng() % 4 == 0)
                code[n++] = rng() % 2 ? 0x38 : 0x3a;
        }
        code[n++] = (uint8_t)rng();
    }
    if (rng() % 2) {
        code[n++] = (uint8_t)(0xc0 | rng());
    } else { /* [base + disp8] */
        uint8_t base = bases[rng() % G_N_ELEMENTS(bases)];

        code[n++] = (uint8_t)(0x40 | (rng() & 0x38) | base);
        if (base == 4)
            code[n++] = 0x24;
        code[n++] = (uint8_t)(rng() % 32);
    }
    for (unsigned i = 0; i < 8; i++)
        code[n++] = (uint8_t)rng();
    memset(x, 0, sizeof *x);
    if (!soft_decode(v, x, SOFT_MODE_SSE | SOFT_MODE_AVX, code, 15, GUEST_CODE, &more))
        return false;
    if (x->in.mnemonic == ZYDIS_MNEMONIC_RDRAND || x->in.mnemonic == ZYDIS_MNEMONIC_RDSEED)
        return false;
    if (x->mem >= 0 && x->kind != SOFT_X_LEA) {
        const ZydisDecodedOperandMem *m = &x->op[x->mem].mem;
        int g = soft_gpr(m->base);

        if (m->index != ZYDIS_REGISTER_NONE || m->segment >= ZYDIS_REGISTER_FS ||
            x->in.raw.disp.size > 8 || x->in.address_width != 64 ||
            !(g == HSK_RSI || g == HSK_RDI || g == HSK_R9 || g == HSK_RSP || g == HSK_RBP ||
              g == HSK_R12))
            return false;
    }
    if (x->in.raw.disp.size && x->mem >= 0 && x->op[x->mem].mem.base == ZYDIS_REGISTER_RIP)
        return false;
    if (x->in.mnemonic == ZYDIS_MNEMONIC_MASKMOVQ ||
        x->in.mnemonic == ZYDIS_MNEMONIC_MASKMOVDQU) /* in C; rdi points to data */
        return x->in.address_width == 64 && !(x->in.attributes & ZYDIS_ATTRIB_HAS_LOCK);
    return x->kind == SOFT_X_PASS || x->kind == SOFT_X_LEA || x->kind == SOFT_X_PUSH ||
           x->kind == SOFT_X_POP || x->kind == SOFT_X_LEAVE ||
           (x->kind == SOFT_X_BT && x->in.operand_width == 16);
}

/* Returns the number of differences. */
static int compare(const struct soft_x *x, uint64_t seed, const struct regs *n,
                   const struct hsk_cpu_state *s, int vector, const uint8_t *before,
                   const uint8_t *native_mem, const uint8_t *guest_mem)
{
    if (vector != n->vector) {
        insn_show(x, seed, "exception", (uint64_t)n->vector, (uint64_t)vector);
        return 1;
    }
    for (unsigned i = 0; i < 16; i++)
        if (s->gpr[i] != n->gpr[i] && !(vector >= 0 && i == HSK_RSP)) {
            insn_show(x, seed, "register", n->gpr[i], s->gpr[i]);
            return 1;
        }
    if (vector >= 0)
        return 0;
    if (memcmp(native_mem, guest_mem, 0x8000)) {
        unsigned i = 0;

        while (native_mem[i] == guest_mem[i])
            i++;
        insn_show(x, seed, "memory", native_mem[i], guest_mem[i]);
        insn_show(x, seed, "at, was", i, before[i]);
        return 1;
    }
    if ((s->rflags ^ n->rflags) & SOFT_ARITH & ~insn_undefined_flags(x)) {
        insn_show(x, seed, "flags", n->rflags, s->rflags);
        return 1;
    }
    for (unsigned i = 0; i < 832; i++)
        if ((i < 6 || (i >= 24 && i < 28) || (i >= 32 && i < 416) || i >= 576) &&
            s->xsave[i] != n->xsave[i]) {
            insn_show(x, seed, "vector state", n->xsave[i], s->xsave[i]);
            insn_show(x, seed, "offset", i, i);
            return 1;
        }
    return 0;
}

static int one_case(struct guest *g, uint64_t seed, bool flags_after)
{
    static uint8_t before[0x8000], native_mem[0x8000];
    struct soft_vcpu *v =
        (struct soft_vcpu *)(void *)((char *)g->vcpu - offsetof(struct soft_vcpu, base));
    uint8_t *data = (uint8_t *)(uintptr_t)GUEST_DATA, code[24];
    struct hsk_cpu_state s;
    struct soft_x x;
    struct regs r;
    int vector = -1;

    rng_state = seed * 0x9e3779b97f4a7c15ull + 1;
    rng();
    if (!random_insn(v, code, &x))
        return 0;
    random_regs(&r);
    for (unsigned i = 0; i < sizeof before; i++)
        before[i] = (uint8_t)rng();
    memcpy(data, before, sizeof before);
    run_native(code, x.in.length, &r);
    memcpy(native_mem, data, sizeof native_mem);
    memcpy(data, before, sizeof before);

    memcpy((uint8_t *)(uintptr_t)GUEST_CODE, code, x.in.length);
    /* behind it a HLT, which needs all flags, or an ADD that makes them dead */
    memcpy((uint8_t *)(uintptr_t)GUEST_CODE + x.in.length,
           flags_after ? "\xf4" : "\x90\x48\x01\xc0\xf4", flags_after ? 1 : 5);
    hsk_engine_soft_ops.flush(g->engine, HSK_FLUSH_CODE);
    guest_state(g, &s);
    memcpy(s.gpr, r.gpr, sizeof s.gpr);
    s.rflags = (r.rflags & SOFT_ARITH) | 2;
    memcpy(s.xsave, r.xsave, 832);
    if (guest_run(g, &s) != HSK_EXIT_HALT) {
        insn_show(&x, seed, "exit", 0, 1);
        return 1;
    }
    if (s.rip >= GUEST_TRAPS && s.rip < GUEST_TRAPS + 512)
        vector = (int)(s.rip - GUEST_TRAPS) / 16;
    else if (!flags_after) {
        s.rflags = native_ctx.out.rflags;
        s.gpr[HSK_RAX] = native_ctx.out.gpr[HSK_RAX];
    }
    return compare(&x, seed, &native_ctx.out, &s, vector, before, native_mem, data) + 0x10000;
}

/* Would a sequence go on well behind it: pointers stay, nothing divides? */
static bool fits_sequence(const struct soft_x *x)
{
    static const uint8_t kept[] = {HSK_RSI, HSK_RDI, HSK_R9, HSK_RBP, HSK_R12, HSK_RSP};

    if (x->in.mnemonic == ZYDIS_MNEMONIC_DIV || x->in.mnemonic == ZYDIS_MNEMONIC_IDIV ||
        x->kind == SOFT_X_LEAVE || x->fpu == SOFT_FPU_X87 || x->fpu == SOFT_FPU_MMX ||
        x->in.mnemonic == ZYDIS_MNEMONIC_LDMXCSR)
        return false;
    for (unsigned i = 0; i < x->in.operand_count; i++) {
        const ZydisDecodedOperand *o = &x->op[i];
        int g = o->type == ZYDIS_OPERAND_TYPE_REGISTER ? soft_gpr(o->reg.value) : -1;

        for (unsigned k = 0; k < G_N_ELEMENTS(kept); k++)
            if (g == kept[k] && (o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE) &&
                (g != HSK_RSP || i < x->in.operand_count_visible))
                return false;
    }
    return true;
}

/* Now and then, the constants by which compilers move the stack pointer. */
static unsigned stack_move(uint8_t *code)
{
    static const uint8_t moves[4][5] = {{0x48, 0x83, 0xec, 0x18},
                                        {0x48, 0x83, 0xc4, 0x10},
                                        {0x48, 0x8d, 0x64, 0x24, 0xf0},
                                        {0x48, 0x83, 0xc6, 0x08}};
    unsigned k = rng() % 4;

    memcpy(code, moves[k], 5);
    return k == 2 ? 5 : 4;
}

static int one_sequence(struct guest *g, uint64_t seed)
{
    static uint8_t before[0x8000], native_mem[0x8000];
    struct soft_vcpu *v =
        (struct soft_vcpu *)(void *)((char *)g->vcpu - offsetof(struct soft_vcpu, base));
    uint8_t *data = (uint8_t *)(uintptr_t)GUEST_DATA, code[512], one[24];
    unsigned n = 0, want = 2 + seed % 20, have = 0;
    uint32_t undefined = 0;
    struct hsk_cpu_state s;
    struct soft_x x;
    struct regs r;
    int vector = -1, bad;
    enum hsk_exit exit;

    rng_state = seed * 0x9e3779b97f4a7c15ull + 7;
    rng();
    while (have < want) {
        if (rng() % 12 == 0) {
            n += stack_move(code + n);
            have++;
        }
        /* what is undefined may differ, so nobody may read it */
        if (!random_insn(v, one, &x) || !fits_sequence(&x) || (x.reads & undefined))
            continue;
        if (x.in.cpu_flags)
            undefined = (undefined & ~(x.in.cpu_flags->modified | x.in.cpu_flags->set_0 |
                                       x.in.cpu_flags->set_1)) |
                        x.in.cpu_flags->undefined;
        memcpy(code + n, one, x.in.length);
        n += x.in.length;
        have++;
    }
    random_regs(&r);
    if (seed % 4 == 0) /* a frame over a page's end */
        r.gpr[HSK_RSP] = r.gpr[HSK_RBP] = GUEST_DATA + 0x5ff0;
    for (unsigned i = 0; i < sizeof before; i++)
        before[i] = (uint8_t)rng();
    memcpy(data, before, sizeof before);
    run_native(code, n, &r);
    memcpy(native_mem, data, sizeof native_mem);
    memcpy(data, before, sizeof before);
    memcpy((uint8_t *)(uintptr_t)GUEST_CODE, code, n);
    ((uint8_t *)(uintptr_t)GUEST_CODE)[n] = 0xf4;
    hsk_engine_soft_ops.flush(g->engine, HSK_FLUSH_CODE);
    guest_state(g, &s);
    memcpy(s.gpr, r.gpr, sizeof s.gpr);
    s.rflags = (r.rflags & SOFT_ARITH) | 2;
    memcpy(s.xsave, r.xsave, 832);
    exit = guest_run(g, &s);
    if (exit != HSK_EXIT_HALT) {
        insn_show(&x, seed, "exception or exit, rip", (uint64_t)native_ctx.out.vector, s.rip);
        for (unsigned i = 0; i < n; i++)
            print_error("%02x%s", code[i], i == n - 1 ? "\n" : " ");
        return 1;
    }
    if (s.rip >= GUEST_TRAPS && s.rip < GUEST_TRAPS + 512)
        vector = (int)(s.rip - GUEST_TRAPS) / 16;
    if (undefined)
        s.rflags = native_ctx.out.rflags;
    x.in.cpu_flags = NULL;
    bad = compare(&x, seed, &native_ctx.out, &s, vector, before, native_mem, data);
    if (bad)
        for (unsigned i = 0; i < n; i++)
            print_error("%02x%s", code[i], i == n - 1 ? "\n" : " ");
    return bad + (vector < 0 ? 0x10000 : 0);
}

static void random_sequences_agree(void **state)
{
    struct guest g;
    const char *rounds = g_getenv("HSK_INSN_ROUNDS"), *seed = g_getenv("HSK_SEQUENCE_SEED");
    uint64_t first = seed ? g_ascii_strtoull(seed, NULL, 10) : 1,
             n = seed     ? 1
                 : rounds ? g_ascii_strtoull(rounds, NULL, 10) / 10
                          : test_rounds(6000, 200000);
    int bad = 0, whole = 0;

    (void)state;
    guest_new(&g, false);
    for (uint64_t i = first; i < first + n && bad < 5; i++) {
        int r = one_sequence(&g, i);

        whole += r >= 0x10000;
        bad += r & 0xffff;
    }
    guest_free(&g);
    print_message("%d sequences without exception, %d differ\n", whole, bad);
    assert_int_equal(bad, 0);
}

static void random_instructions_agree(void **state)
{
    struct guest g;
    const char *rounds = g_getenv("HSK_INSN_ROUNDS"), *seed = g_getenv("HSK_INSN_SEED");
    uint64_t first = seed ? g_ascii_strtoull(seed, NULL, 10) : 1,
             n = seed     ? 1
                 : rounds ? g_ascii_strtoull(rounds, NULL, 10)
                          : test_rounds(60000, 2000000);
    int bad = 0, ran = 0;
    static uint8_t altstack[65536];
    stack_t ss = {.ss_sp = altstack, .ss_size = sizeof altstack};

    (void)state;
    assert_int_equal(offsetof(typeof(native_ctx), host_rsp), 1280);
    assert_int_equal(sigaltstack(&ss, NULL), 0);
    assert_ptr_equal(mmap(NATIVE, 4096, PROT_READ | PROT_WRITE | PROT_EXEC,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0),
                     NATIVE);
    guest_new(&g, false);
    for (uint64_t i = first; i < first + n && bad < 20; i++) {
        int r = one_case(&g, i, i & 1);

        ran += r >= 0x10000;
        bad += r & 0xffff;
    }
    guest_free(&g);
    print_message("%d instructions ran, %d differ\n", ran, bad);
    assert_int_equal(bad, 0);
    assert_true(seed || ran > 1000);
}

/* A random beginning that reaches all opcode maps, then noise. */
static void random_bytes(uint8_t *b)
{
    static const uint8_t prefixes[] = {0x66, 0xf2, 0xf3, 0xf0};
    const uint64_t how = rng();
    unsigned n = 0;

    for (unsigned i = 0; i < 16; i++)
        b[i] = (uint8_t)(rng() >> 56);
    if ((how & 3) == 0)
        b[n++] = prefixes[how >> 2 & 3];
    switch (how >> 4 & 7) {
    case 0:
    case 1:
    case 2:
        b[n] = 0x0f;
        break;
    case 3:
        b[n++] = 0x0f;
        b[n] = how >> 7 & 1 ? 0x38 : 0x3a;
        break;
    case 4:
        b[n++] = 0xc4;
        b[n] = (uint8_t)((b[n] & 0xe0) | (1 + (how >> 7) % 3));
        break;
    default:
        break;
    }
}

static void no_instruction_is_unknown(void **state)
{
    struct guest g;
    struct soft_vcpu *v;
    unsigned decoded = 0;

    (void)state;
    guest_new(&g, false);
    v = (struct soft_vcpu *)(void *)((char *)g.vcpu - offsetof(struct soft_vcpu, base));
    rng_state = 0x9e3779b97f4a7c15ull;
    for (unsigned i = 0; i < 1000000; i++) {
        uint8_t b[16];
        struct soft_x x;
        bool more;

        random_bytes(b);
        if (!soft_decode(v, &x, i & 1 ? SOFT_MODE_CODE32 : 0, b, 15, GUEST_CODE, &more))
            continue;
        if (x.kind == SOFT_X_UNKNOWN)
            fail_msg("%s (opcode %02x, %u-bit) is unknown", ZydisMnemonicGetString(x.in.mnemonic),
                     x.in.opcode, i & 1 ? 32 : 64);
        decoded += x.kind != SOFT_X_UD;
    }
    guest_free(&g);
    assert_true(decoded > 100000);
}

/* TF traps after an ordinary instruction, but not at the handler that INT3, INT n or SYSCALL goes
 * to. */
static void single_steps_do_not_enter_handlers(void **state)
{
    static const struct {
        uint8_t code[4];
        uint64_t stops; /* behind this HLT */
    } cases[] = {
        {{0x90, 0xf4}, GUEST_TRAPS + 16},
        {{0xcc, 0xf4}, GUEST_TRAPS + 16 * 3},
        {{0xcd, 0x05, 0xf4}, GUEST_TRAPS + 16 * 5},
        {{0x0f, 0x05, 0xf4}, GUEST_TRAPS + 16 * 7},
    };
    struct guest g;

    (void)state;
    guest_new(&g, false);
    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        struct hsk_cpu_state s;

        memcpy((uint8_t *)(uintptr_t)GUEST_CODE, cases[i].code, 4);
        hsk_engine_soft_ops.flush(g.engine, HSK_FLUSH_CODE);
        guest_state(&g, &s);
        s.star = 8ull << 32;
        s.lstar = GUEST_TRAPS + 16 * 7;
        s.sfmask = HSK_FLAG_TF;
        s.rflags |= HSK_FLAG_TF;
        assert_int_equal(guest_run(&g, &s), HSK_EXIT_HALT);
        assert_int_equal(s.rip, cases[i].stops + 1);
    }
    guest_free(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(single_steps_do_not_enter_handlers),
        cmocka_unit_test(no_instruction_is_unknown),
        cmocka_unit_test(random_instructions_agree),
        cmocka_unit_test(random_sequences_agree),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
