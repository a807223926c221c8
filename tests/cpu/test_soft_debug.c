/* SPDX-License-Identifier: MIT */
/*
 * Debug exceptions: which #DB come, where they say the program was, and what DR6 says. Each case is
 * a piece of code and the list of its #DB, after each of which the test goes on as a handler would,
 * with RF set.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include "soft_guest.h"

#include <cmocka.h>

#define BLOB(name, code)                                                                           \
    extern const uint8_t name[], name##_end[];                                                     \
    __asm__(".pushsection .rodata\n.globl " #name ", " #name "_end\n" #name ":\n" code "\n" #name  \
            "_end:\n.popsection\n")

#define D GUEST_DATA
#define BP(n, type, size)                                                                          \
    (1ull << (2 * (n)) | (uint64_t)((type) | ((size) == 8   ? 2                                    \
                                              : (size) == 4 ? 3                                    \
                                                            : (size)-1)                            \
                                                 << 2)                                             \
                             << (16 + 4 * (n)))
enum { X, W, IO, RW };

struct stop {
    unsigned offset; /* in the code */
    uint64_t dr6;    /* the bits that are set in it */
};

struct scene {
    const char *name;
    const uint8_t *code, *end;
    uint64_t dr[4], dr7, flags;
    struct stop stops[9]; /* up to dr6 = 0 */
    bool user;            /* ends in user mode, which HLT is not for */
};

/* offsets: 0 4 7 9 b 10 14 */
BLOB(stores, "movl $1, (%rdi)\n.byte 0x0f,0x1f,0xc0\nmov %eax, %ebx\n1: mov %al, 3(%rdi)\nmov "
             "(%rdi), %ecx\nmov %rax, -4(%rdi)\nhlt\n");
BLOB(stack_stores, "push %rax\npop %rbx\ncall 1f\nnop\n1: pop %rbx\nhlt\n");
BLOB(strings, "mov $3, %ecx\nrep stosb\nmov $2, %ecx\nrep lodsb\nhlt\n");
BLOB(loop3, "mov $3, %ecx\n1: dec %ecx\njnz 1b\nhlt\n");
BLOB(shadows, "mov %ss, %eax\nmov %eax, %ss\nmov %al, (%rdi)\nnop\nhlt\n");
BLOB(shadow_data, "mov (%rdi), %ss\nnop\nhlt\n");
BLOB(shadow_int1, "mov (%rdi), %ss\n.byte 0xf1\nnop\nhlt\n");
BLOB(flags_in, "pushq $0x102\npopf\nnop\nnop\npushq $2\npopf\nnop\nhlt\n");
BLOB(ports, "in $0x80, %al\nmov $0x7f, %edx\nin (%dx), %eax\nout %al, $0x83\nhlt\n");
BLOB(sse,
     "movups %xmm0, 1(%rdi)\nmovaps (%rdi), %xmm1\nlock incl (%rdi)\nxchg %eax, (%rdi)\nhlt\n");
BLOB(hardware, "mov %dr0, %rax\nhlt\n");
BLOB(returns, "mov $0x302, %r11d\nlea 1f(%rip), %rcx\nsysretq\n1: nop\nhlt\n");

static void one_scene(struct guest *g, const struct scene *c)
{
    struct hsk_cpu_state s;
    unsigned n = 0;

    memcpy(g->mem + (GUEST_CODE - GUEST_VA), c->code, (size_t)(c->end - c->code));
    memset(g->mem + (D - GUEST_VA), 0, 64);
    hsk_put16(g->mem + (D - GUEST_VA), 0x10);
    hsk_engine_soft_ops.flush(g->engine, HSK_FLUSH_CODE);
    guest_state(g, &s);
    memcpy(s.dr, c->dr, sizeof c->dr);
    s.dr[7] = c->dr7 | HSK_DR7_FIXED;
    s.dr[6] = HSK_DR6_FIXED;
    s.cr4 |= HSK_CR4_DE;
    s.gpr[HSK_RDI] = s.gpr[HSK_RSI] = D;
    s.rflags |= c->flags;
    s.star = 8ull << 48;
    s.seg[HSK_TR] = (struct hsk_segment){
        .base = GUEST_VA + 0xa000, .limit = 0x67, .selector = 0x18, .attr = 0x8b};
    hsk_put64(g->mem + 0xa004, GUEST_VA + 0xc000);
    for (unsigned i = 0; i < 16 * 512; i++)
        g->mem[0x10000 + 8 * i] |= 4;
    g->mem[0x1000] |= 4;
    g->mem[0x2000] |= 4;
    for (unsigned i = 128; i < 144; i++)
        g->mem[0x3000 + 8 * i] |= 4;
    for (;;) {
        const uint8_t *frame;
        uint64_t offset, dr6;

        assert_int_equal(guest_run(g, &s), HSK_EXIT_HALT);
        if (s.rip != GUEST_TRAPS + 17)
            break;
        frame = g->mem + (s.gpr[HSK_RSP] - GUEST_VA);
        offset = hsk_get64(frame) - GUEST_CODE;
        dr6 = s.dr[6] & ~HSK_DR6_FIXED;
        if (offset != c->stops[n].offset || dr6 != c->stops[n].dr6)
            fail_msg("%s, DR7 %lx: #DB number %u at offset 0x%lx, DR6 %lx", c->name, c->dr7, n,
                     offset, dr6);
        n++;
        if (hsk_get64(frame) == GUEST_CODE + (uint64_t)(c->end - c->code) && !c->stops[n].dr6)
            return; /* stepped over the HLT */
        s.rip = hsk_get64(frame);
        s.rflags = hsk_get64(frame + 16) | HSK_FLAG_RF;
        s.gpr[HSK_RSP] = hsk_get64(frame + 24);
        if (hsk_get64(frame + 8) & 3) {
            s.seg[HSK_CS].attr |= 0x60;
            s.seg[HSK_CS].selector |= 3;
            s.seg[HSK_SS].attr |= 0x60;
            s.seg[HSK_SS].selector |= 3;
        }
        s.dr[6] = HSK_DR6_FIXED;
        s.activity = HSK_ACT_RUN;
        memcpy(s.dr, c->dr, sizeof c->dr);
    }
    if (c->stops[n].dr6 ||
        s.rip != (c->user ? GUEST_TRAPS + 13 * 16 + 1 : GUEST_CODE + (uint64_t)(c->end - c->code)))
        fail_msg("%s, DR7 %lx: %u #DB, ends at 0x%lx", c->name, c->dr7, n, s.rip);
}

#define SCENE(blob) #blob, blob, blob##_end
#define BS          HSK_DR6_BS

static void debug_exceptions_are_exact(void **state)
{
    const struct scene scenes[] = {
        {SCENE(stores), {D}, BP(0, W, 4), 0, {{6, 1}, {14, 1}, {20, 1}}},
        {SCENE(stores), {D}, BP(0, RW, 4), 0, {{6, 1}, {14, 1}, {16, 1}, {20, 1}}},
        {SCENE(stores),
         {D + 3, D + 2},
         BP(0, W, 1) | BP(1, RW, 1),
         0,
         {{6, 3}, {14, 1}, {16, 2}, {20, 3}}},
        {SCENE(stores), {D + 8, D - 1}, BP(0, RW, 8) | BP(1, W, 2), 0, {{20, 2}}},
        {SCENE(stores),
         {D + 7},
         BP(0, RW, 8),
         0,
         {{6, 1}, {14, 1}, {16, 1}, {20, 1}}}, /* covers D to D + 7 */
        {SCENE(stores), {D}, BP(0, W, 4) & ~0xffull, 0, {{0, 0}}},
        {SCENE(stores), {D}, BP(0, W, 4) << 1 & 0xff, 0, {{0, 0}}},
        {SCENE(stack_stores), {GUEST_STACK - 8}, BP(0, W, 8), 0, {{1, 1}, {8, 1}}},
        {SCENE(stack_stores), {GUEST_STACK - 8}, BP(0, RW, 8), 0, {{1, 1}, {2, 1}, {8, 1}, {9, 1}}},
        {SCENE(strings), {0, D + 1, D + 1}, BP(1, W, 1) | BP(2, RW, 1), 0, {{5, 6}, {14, 4}}},
        {SCENE(loop3), {GUEST_CODE + 5}, BP(0, X, 1), 0, {{5, 1}, {5, 1}, {5, 1}}},
        {SCENE(loop3),
         {GUEST_CODE, GUEST_CODE + 9},
         BP(0, X, 1) | BP(1, X, 1),
         0,
         {{0, 1}, {9, 2}}},
        {SCENE(loop3), {GUEST_CODE + 6}, BP(0, X, 1), 0, {{0, 0}}},
        {SCENE(shadows), {0}, 0, HSK_FLAG_TF, {{2, BS}, {6, BS}, {7, BS}, {8, BS}}},
        {SCENE(shadows), {GUEST_CODE + 4, D}, BP(0, X, 1) | BP(1, W, 1), 0, {{6, 2}}},
        {SCENE(shadow_data), {D}, BP(0, RW, 2), 0, {{3, 1}}},
        {SCENE(shadow_int1), {D}, BP(0, RW, 2), 0, {{3, 1}}},
        {SCENE(flags_in), {0}, 0, 0, {{7, BS}, {8, BS}, {10, BS}, {11, BS}}},
        {SCENE(ports), {0x80}, BP(0, IO, 1), 0, {{2, 1}, {8, 1}}},
        {SCENE(ports), {0x80, 0x83}, BP(0, IO, 4) | BP(1, IO, 1), 0, {{2, 1}, {8, 1}, {10, 3}}},
        {SCENE(sse), {D + 16}, BP(0, RW, 1), 0, {{4, 1}}},
        {SCENE(sse), {D}, BP(0, W, 1), 0, {{10, 1}, {12, 1}}},
        {SCENE(hardware), {0}, HSK_DR7_GD, 0, {{0, HSK_DR6_BD}}},
        {SCENE(returns), {0}, 0, 0, {{0x10, BS}, {0x11, BS}}, true},
        {SCENE(strings),
         {0},
         0,
         HSK_FLAG_TF,
         {{5, BS}, {5, BS}, {5, BS}, {7, BS}, {12, BS}, {12, BS}, {14, BS}, {15, BS}}},
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(scenes); i++)
        one_scene(*state, &scenes[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(debug_exceptions_are_exact, guest_setup, guest_teardown),
        cmocka_unit_test_setup_teardown(debug_exceptions_are_exact, guest_setup_strict,
                                        guest_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
