/* SPDX-License-Identifier: MIT */
/*
 * The native half of the differential run: loads all registers, jumps to the bytes and comes back
 * with all registers, by one of the slot's ways out or by the signal that the processor's exception
 * became. 32-bit code runs in compatibility mode, behind a far jump to the kernel's selector 0x23.
 * The FS base of the C library is away meanwhile: the handler puts it back first. One thread.
 */
#include <asm/ldt.h>
#include <signal.h>
#include <ucontext.h>

#include "differential.h"

#define LOW ((uint8_t *)0x30000000) /* below 4 GiB, where 32-bit code can jump to */

/* Known to the assembly below. */
struct native_context {
    const struct diff_state *in;
    struct diff_state *out;
    uint64_t host_rsp, host_fs, host_gs, rax;
    uint64_t target;
    uint32_t far_offset, far_selector;
} diff_native __attribute__((used, visibility("hidden")));

_Static_assert(offsetof(struct diff_state, rip) == 128 &&
                   offsetof(struct diff_state, rflags) == 136 &&
                   offsetof(struct diff_state, fs_base) == 144 &&
                   offsetof(struct diff_state, sel) == 160 &&
                   offsetof(struct diff_state, out) == 232 &&
                   offsetof(struct diff_state, xsave) == 256,
               "diff_native_go");

void diff_native_go(uint64_t far_jump);
extern const char diff_native_trapped[], diff_native_out0[], diff_native_out1[], diff_native_out2[];

__asm__(".pushsection .text\n"
        ".globl diff_native_go\n"
        "diff_native_go:\n"
        "push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15\n"
        "mov %rsp, diff_native+16(%rip)\n"
        "rdfsbase %rax; mov %rax, diff_native+24(%rip)\n"
        "rdgsbase %rax; mov %rax, diff_native+32(%rip)\n"
        "mov diff_native(%rip), %r15\n"
        "mov $7, %eax; xor %edx, %edx; xrstor64 256(%r15)\n"
        "mov 160(%r15), %eax; mov %eax, %es\n"
        "mov 184(%r15), %eax; mov %eax, %ds\n"
        "mov 192(%r15), %eax; mov %eax, %fs\n"
        "mov 200(%r15), %eax; mov %eax, %gs\n"
        "test %rdi, %rdi\n"
        "jnz 1f\n"
        "mov 144(%r15), %rax; wrfsbase %rax\n"
        "mov 152(%r15), %rax; wrgsbase %rax\n"
        "1: mov 0(%r15), %rax; mov %rax, diff_native+40(%rip)\n"
        "mov 8(%r15), %rcx; mov 16(%r15), %rdx; mov 24(%r15), %rbx; mov 40(%r15), %rbp; mov "
        "48(%r15), %rsi\n"
        "mov 64(%r15), %r8; mov 72(%r15), %r9; mov 80(%r15), %r10; mov 88(%r15), %r11; mov "
        "96(%r15), %r12\n"
        "mov 104(%r15), %r13; mov 112(%r15), %r14\n"
        "pushq 136(%r15)\n"
        "test %rdi, %rdi\n"
        "mov 56(%r15), %rdi\n"
        "jnz 2f\n"
        "popfq\n"
        "mov 32(%r15), %rsp\n"
        "mov 120(%r15), %r15\n"
        "mov diff_native+40(%rip), %rax\n"
        "jmp *diff_native+48(%rip)\n"
        "2: popfq\n"
        "mov 32(%r15), %rsp\n"
        "mov 120(%r15), %r15\n"
        "mov diff_native+40(%rip), %rax\n"
        "ljmp *diff_native+56(%rip)\n"

        ".macro OUT n\n"
        "diff_native_out\\n:\n"
        "mov %rax, diff_native+40(%rip)\n"
        "mov diff_native+8(%rip), %rax\n"
        "movq $\\n, 232(%rax)\n"
        "jmp 3f\n"
        ".endm\n"
        "OUT 0\nOUT 1\nOUT 2\n"
        "3: mov %rcx, 8(%rax); mov %rdx, 16(%rax); mov %rbx, 24(%rax); mov %rsp, 32(%rax); mov "
        "%rbp, 40(%rax)\n"
        "mov %rsi, 48(%rax); mov %rdi, 56(%rax); mov %r8, 64(%rax); mov %r9, 72(%rax); mov %r10, "
        "80(%rax)\n"
        "mov %r11, 88(%rax); mov %r12, 96(%rax); mov %r13, 104(%rax); mov %r14, 112(%rax); mov "
        "%r15, 120(%rax)\n"
        "mov diff_native+16(%rip), %rsp\n"
        "pushfq; popq 136(%rax)\n"
        "mov diff_native+40(%rip), %rcx; mov %rcx, (%rax)\n"
        "rdfsbase %rcx; mov %rcx, 144(%rax)\n"
        "rdgsbase %rcx; mov %rcx, 152(%rax)\n"
        "xor %ecx, %ecx\n"
        "mov %es, %ecx; mov %rcx, 160(%rax)\n"
        "mov %ds, %ecx; mov %rcx, 184(%rax)\n"
        "mov %fs, %ecx; mov %rcx, 192(%rax)\n"
        "mov %gs, %ecx; mov %rcx, 200(%rax)\n"
        "mov %ss, %ecx; mov %rcx, 176(%rax)\n"
        "mov %rax, %rcx; mov $7, %eax; xor %edx, %edx; xsave64 256(%rcx)\n"

        "diff_native_trapped:\n"
        "mov diff_native+16(%rip), %rsp\n"
        "fninit; cld; vzeroupper\n"
        "xor %ecx, %ecx; mov %ecx, %fs; mov %ecx, %gs\n"
        "mov $0x2b, %ecx; mov %ecx, %ds; mov %ecx, %es; mov %ecx, %ss\n"
        "mov diff_native+24(%rip), %rcx; wrfsbase %rcx\n"
        "mov diff_native+32(%rip), %rcx; wrgsbase %rcx\n"
        "push $2; popfq\n"
        "pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx\n"
        "ret\n.popsection");

static struct sigaction engine_trap[NSIG];

static bool in_native_code(uint64_t rip)
{
    return rip < (uint64_t)(uintptr_t)diff_native_go ||
           rip > (uint64_t)(uintptr_t)diff_native_trapped;
}

/* No call into the C library and nothing thread-local before the FS base is back. */
__attribute__((no_sanitize("address", "undefined"), noinline)) static void
save_trap(const ucontext_t *uc, struct diff_state *out)
{
    static const uint8_t order[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP,
                                      REG_RSI, REG_RDI, REG_R8,  REG_R9,  REG_R10, REG_R11,
                                      REG_R12, REG_R13, REG_R14, REG_R15};
    const greg_t *r = uc->uc_mcontext.gregs;
    const uint64_t sel = (uint64_t)r[REG_CSGSFS];
    uint32_t ds, es, fs, gs;

    __asm__ volatile("mov %%ds, %0; mov %%es, %1; mov %%fs, %2; mov %%gs, %3"
                     : "=r"(ds), "=r"(es), "=r"(fs), "=r"(gs));
    for (unsigned i = 0; i < 16; i++)
        out->gpr[i] = (uint64_t)r[order[i]];
    out->rip = (uint64_t)r[REG_RIP];
    out->rflags = (uint64_t)r[REG_EFL];
    out->sel[HSK_CS] = sel & 0xffff;
    out->sel[HSK_SS] = sel >> 48;
    out->sel[HSK_DS] = ds & 0xffff;
    out->sel[HSK_ES] = es & 0xffff;
    out->sel[HSK_FS] = fs & 0xffff;
    out->sel[HSK_GS] = gs & 0xffff;
    out->vector = (int64_t)r[REG_TRAPNO];
    out->error = (uint64_t)r[REG_ERR];
    out->cr2 = (uint64_t)r[REG_CR2];
    for (unsigned i = 0; i < sizeof out->xsave / 8; i++)
        ((uint64_t *)(void *)out->xsave)[i] =
            ((const uint64_t *)(const void *)uc->uc_mcontext.fpregs)[i];
}

__attribute__((no_sanitize("address", "undefined"), no_stack_protector)) static void
on_trap(int sig, siginfo_t *info, void *context)
{
    ucontext_t *uc = context;
    greg_t *r = uc->uc_mcontext.gregs;
    uint64_t fs, gs;

    __asm__ volatile(
        "lea -128(%%rsp), %%rsp; pushf; andl $~0x40000, (%%rsp); popf; lea 128(%%rsp), %%rsp"
        :
        :
        : "memory", "cc");
    __asm__ volatile("rdfsbase %0; rdgsbase %1; wrfsbase %2"
                     : "=&r"(fs), "=&r"(gs)
                     : "r"(diff_native.host_fs));
    if (sig != SIGTRAP && (!diff_native.out || !in_native_code((uint64_t)r[REG_RIP]))) {
        engine_trap[sig].sa_sigaction(sig, info,
                                      context); /* translated code, or a fault of the test's own */
        return;
    }
    diff_native.out->fs_base = fs;
    diff_native.out->gs_base = gs;
    save_trap(uc, diff_native.out);
    r[REG_RIP] = (greg_t)(uintptr_t)diff_native_trapped;
    r[REG_CSGSFS] = (greg_t)((uint64_t)SEL_USER_DS << 48 | SEL_USER64);
    r[REG_EFL] = 2;
}

/* Only the 32-bit system call (243) exists, for a structure below 4 GiB. */
static void set_tls(unsigned entry, uint32_t base)
{
    struct user_desc *d = (struct user_desc *)(void *)(LOW + 512);
    long result;

    *d = (struct user_desc){.entry_number = entry,
                            .base_addr = base,
                            .limit = 0xfffff,
                            .seg_32bit = 1,
                            .limit_in_pages = 1};

    __asm__ volatile("int $0x80"
                     : "=a"(result)
                     : "a"(243), "b"(d)
                     : "memory", "r8", "r9", "r10", "r11");
    hsk_assert(result == 0);
}

/* jmp *[rip]; the three ways back for 32-bit code. */
static void put_low(void)
{
    static const char *const to[DIFF_NOUTS] = {diff_native_out0, diff_native_out1,
                                               diff_native_out2};

    hsk_assert(mmap(LOW, 4096, PROT_READ | PROT_WRITE | PROT_EXEC,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) == LOW);
    for (unsigned i = 0; i < DIFF_NOUTS; i++) {
        memcpy(LOW + 16 * i, "\xff\x25\x02\x00\x00\x00", 6);
        hsk_put64(LOW + 16 * i + 8, (uint64_t)(uintptr_t)to[i]);
    }
}

void diff_native_begin(void)
{
    static const int sigs[] = {SIGFPE, SIGSEGV, SIGILL, SIGBUS,
                               SIGTRAP}; /* the engine has no SIGTRAP */
    static uint8_t altstack[1 << 16];
    struct sigaction sa = {.sa_sigaction = on_trap,
                           .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER};
    stack_t ss = {.ss_sp = altstack, .ss_size = sizeof altstack};

    hsk_assert(sigaltstack(&ss, NULL) == 0);
    for (unsigned i = 0; i < G_N_ELEMENTS(sigs); i++)
        sigaction(sigs[i], &sa, &engine_trap[sigs[i]]);
    put_low();
    set_tls(SEL_TLS0 >> 3, (uint32_t)DIFF_FS32);
    set_tls(SEL_TLS1 >> 3, (uint32_t)DIFF_GS32);
    set_tls(SEL_TLS2 >> 3, (uint32_t)DIFF_DS32);
}

static void put_out(uint8_t *at, unsigned n, bool code32)
{
    static const char *const to[DIFF_NOUTS] = {diff_native_out0, diff_native_out1,
                                               diff_native_out2};

    if (code32) {
        *at = 0xea;
        hsk_put32(at + 1, (uint32_t)(uintptr_t)(LOW + 16 * n));
        hsk_put16(at + 5, SEL_USER64);
        return;
    }
    const unsigned pad = -(unsigned)(uintptr_t)(at + 6) & 7; /* EFLAGS.AC may be set */

    memcpy(at, "\xff\x25\x00\x00\x00\x00", 6);
    at[2] = (uint8_t)pad;
    hsk_put64(at + 6 + pad, (uint64_t)(uintptr_t)to[n]);
}

void diff_native_outs(uint8_t *slot, unsigned behind, bool code32)
{
    put_out(slot + DIFF_AT + behind, DIFF_BEHIND, code32);
    put_out(slot + diff_out_at[DIFF_TAKEN - 1], DIFF_TAKEN, code32);
    put_out(slot + diff_out_at[DIFF_BACK - 1], DIFF_BACK, code32);
}

void diff_native_run(const struct diff_state *in, struct diff_state *out, bool code32)
{
    out->vector = -1;
    out->error = out->cr2 = out->rip = 0;
    out->out = DIFF_NOUTS;
    out->sel[HSK_CS] = in->sel[HSK_CS];
    diff_native.in = in;
    diff_native.out = out;
    diff_native.target = in->rip;
    diff_native.far_offset = (uint32_t)in->rip;
    diff_native.far_selector = SEL_USER32;
    diff_native_go(code32);
    diff_native.out = NULL;
}
