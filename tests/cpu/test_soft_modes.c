/* SPDX-License-Identifier: MIT */
/*
 * Code that is not flat: real, unreal and 16-bit protected mode, 16-bit stacks in 32-bit code and
 * the reverse, segments with bases and limits, code with a base. Each guest ends in a HLT: its own,
 * or that of the exception that it raises.
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
#define BLOB16(name, code) BLOB(name, ".code16\n" code "\n.code64")
#define BLOB32(name, code) BLOB(name, ".code32\n" code "\n.code64")

#define CODE_AT  0x20000u /* physical */
#define DATA_AT  0x30000u
#define STACK_AT 0x40000u
#define TRAPS_AT 0x50000u /* HLT of vector n at + n */

static struct hsk_segment real_segment(uint32_t base, unsigned attr)
{
    return (struct hsk_segment){
        .base = base, .limit = 0xffff, .selector = (uint16_t)(base >> 4), .attr = (uint16_t)attr};
}

/* Real mode at CODE_AT: CS, DS, ES, SS of their own. */
static void real_state(struct guest *g, struct hsk_cpu_state *s, const uint8_t *code,
                       const uint8_t *end)
{
    hsk_cpu_state_reset(s, 0);
    s->cr0 = HSK_CR0_ET;
    s->cr4 = HSK_CR4_OSFXSR | HSK_CR4_OSXMMEXCPT | HSK_CR4_OSXSAVE;
    s->xcr0 = 7;
    s->seg[HSK_CS] = real_segment(CODE_AT, 0x9b);
    s->seg[HSK_DS] = real_segment(DATA_AT, 0x93);
    s->seg[HSK_ES] = real_segment(DATA_AT + 0x100, 0x93);
    s->seg[HSK_SS] = real_segment(STACK_AT, 0x93);
    s->seg[HSK_FS] = s->seg[HSK_GS] = s->seg[HSK_ES];
    s->idtr = (struct hsk_dtable){0, 0x3ff};
    s->rip = 0x100;
    s->gpr[HSK_RSP] = 0x8000;
    s->rflags = HSK_FLAG_FIXED;
    for (unsigned i = 0; i < 256; i++) {
        hsk_put32(g->mem + 4 * i, TRAPS_AT << 12 | i);
        g->mem[TRAPS_AT + i] = 0xf4;
    }
    memset(g->mem + DATA_AT, 0, 0x20000);
    memcpy(g->mem + CODE_AT + 0x100, code, (size_t)(end - code));
    hsk_engine_soft_ops.flush(g->engine, HSK_FLUSH_CODE);
}

/* Runs; which exception's HLT ended it (the stack may be one that cannot take its frame), or -1. */
static void guest_run_traps(struct guest *g, struct hsk_cpu_state *s, uint64_t sp, int *vector)
{
    enum hsk_exit e = guest_run(g, s);

    *vector = -1;
    if (e == HSK_EXIT_HALT && s->seg[HSK_CS].base == TRAPS_AT)
        *vector = (int)s->rip - 1;
    else if (e == HSK_EXIT_SHUTDOWN) /* #SS with SP = 1: no handler can be reached */
        *vector = sp < 16 ? 12 : -2;
}

static unsigned peek(struct guest *g, unsigned off)
{
    return hsk_get16(g->mem + DATA_AT + off);
}

BLOB16(real_moves,
       "mov $0x1234, %ax\nmov %ax, 0x10\nmov $2, %bx\nmov $0xe, %si\naddw $0x1111, (%bx,%si)\n"
       "movl $0x89abcdef, 0x20\nmovzbl 0x21, %edx\nmov %es:0x20, %cx\n"
       "push $0x5566\npop %di\npushl $0x778899aa\npop %bp\npop %bp\n"
       "call 1f\nadd $1, %eax\nhlt\n"
       "1: cwde\nret\n");

static void real_mode_moves_and_calls(void **state)
{
    struct guest *g = *state;
    struct hsk_cpu_state s;

    real_state(g, &s, real_moves, real_moves_end);
    hsk_put16(g->mem + DATA_AT + 0x120, 0xbeef);
    s.gpr[HSK_RAX] = s.gpr[HSK_RDI] = s.gpr[HSK_RCX] = 0xffffffff;
    assert_int_equal(guest_run(g, &s), HSK_EXIT_HALT);
    assert_int_equal(s.rip, 0x100 + (real_moves_end - real_moves) - 3);
    assert_int_equal(peek(g, 0x10), 0x2345);
    assert_int_equal(hsk_get32(g->mem + DATA_AT + 0x20), 0x89abcdef);
    assert_int_equal(s.gpr[HSK_RAX], 0x1235);
    assert_int_equal(s.gpr[HSK_RDX], 0xcd);
    assert_int_equal(s.gpr[HSK_RCX], 0xffffbeef);
    assert_int_equal(s.gpr[HSK_RDI], 0xffff5566);
    assert_int_equal(s.gpr[HSK_RBP], 0x7788);
    assert_int_equal(s.gpr[HSK_RSP], 0x8000);
    assert_int_equal(hsk_get16(g->mem + STACK_AT + 0x7ffc), 0x99aa);
}

/* --- ends of segments --- */

struct end_case {
    const char *name;
    uint8_t code[12];
    uint64_t bx, sp;
    int vector; /* or -1 */
};

/* At offset 0x100 of a segment of 64 KiB, followed by HLT; SP and BX as said. */
static void accesses_end_at_the_limit(void **state)
{
    static const struct end_case cases[] = {
        {"mov (%bx), %al", {0x8a, 0x07}, 0xffff, 0x100, -1},
        {"mov (%bx), %ax", {0x8b, 0x07}, 0xffff, 0x100, 13},
        {"mov %ax, (%bx)", {0x89, 0x07}, 0xfffe, 0x100, -1},
        {"mov %eax, (%bx)", {0x66, 0x89, 0x07}, 0xfffd, 0x100, 13},
        {"mov %ss:(%bx), %ax", {0x36, 0x8b, 0x07}, 0xffff, 0x100, 12},
        {"mov (%ebx), %al", {0x67, 0x8a, 0x03}, 0x10000, 0x100, 13},
        {"mov 1(%bx), %al", {0x8a, 0x47, 0x01}, 0xffff, 0x100, -1}, /* the offset wraps */
        {"push %ax", {0x50}, 0, 0, -1},
        {"push %ax", {0x50}, 0, 1, 12},
        {"push %eax", {0x66, 0x50}, 0, 2, 12},
        {"pop %ax", {0x58}, 0, 0xffff, 12},
        {"call", {0xe8, 0x00, 0x00}, 0, 1, 12},
        {"lodsw", {0xad}, 0, 0x100, 13},
        {"pusha", {0x60}, 0, 0xf, 12},
        {"movups", {0x0f, 0x10, 0x07}, 0xfff1, 0x100, 13},
        {"fldl", {0xdd, 0x07}, 0xfff8, 0x100, -1},
        {"jmp 0xffff, behind which the segment ends", {0xe9, 0xfc, 0xfe}, 0, 0x100, 13},
    };
    struct guest *g = *state;
    struct hsk_cpu_state s;

    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        const struct end_case *c = &cases[i];
        int vector;

        real_state(g, &s, c->code, c->code + sizeof c->code);
        for (unsigned k = sizeof c->code; k > 0 && !c->code[k - 1]; k--)
            g->mem[CODE_AT + 0x100 + k - 1] = 0xf4;
        if (c->code[0] == 0xe8)
            memset(g->mem + CODE_AT + 0x101, 0, 2);
        g->mem[CODE_AT + 0xffff] = 0x90;
        g->mem[CODE_AT + 0x10000] = 0xf4;
        s.gpr[HSK_RBX] = c->bx;
        s.gpr[HSK_RSP] = c->sp;
        s.gpr[HSK_RSI] = 0xffff;
        if (c->vector == 12)
            s.seg[HSK_SS].limit = 0xffff;
        guest_run_traps(g, &s, c->sp, &vector);
        if (vector != c->vector)
            fail_msg("%s: exception %d, not %d", c->name, vector, c->vector);
    }
}

BLOB16(aliases, "xor %cx, %cx\nmov $50, %dx\n"
                "0: call 1f\nadd %bx, %cx\ndec %dx\njnz 0b\nhlt\n"
                "1: pop %bx\npush %bx\nret\n");

/* The same bytes at several CS:IP of the same linear address, with bases that do not lie on pages.
 */
static void code_has_a_base(void **state)
{
    struct guest *g = *state;
    struct hsk_cpu_state s;

    for (unsigned i = 0; i < 40; i++) {
        const unsigned base = CODE_AT - 0x370 * (i % 5) - 0x10 * (i % 3);

        real_state(g, &s, aliases, aliases_end);
        s.seg[HSK_CS] = real_segment(base, 0x9b);
        s.rip = CODE_AT + 0x100 - base;
        assert_int_equal(guest_run(g, &s), HSK_EXIT_HALT);
        assert_int_equal(s.gpr[HSK_RCX], ((CODE_AT + 0x108 - base) * 50) & 0xffff);
    }
}

BLOB16(unreal, "mov $0x1fff00, %edi\nmov $0x12345678, %eax\nmov %eax, (%edi)\nmov $0x40, %ecx\n"
               "rep stosl (%edi)\nmov 0x1fff04, %edx\nhlt\n");

static void unreal_mode_reaches_beyond_64k(void **state)
{
    struct guest *g = *state;
    struct hsk_cpu_state s;

    real_state(g, &s, unreal, unreal_end);
    s.seg[HSK_DS] = s.seg[HSK_ES] = (struct hsk_segment){.limit = UINT32_MAX, .attr = 0x8093};
    assert_int_equal(guest_run(g, &s), HSK_EXIT_HALT);
    assert_int_equal(s.rip, 0x100 + (unreal_end - unreal));
    assert_int_equal(hsk_get32(g->mem + 0x1fff00), 0x12345678);
    assert_int_equal(s.gpr[HSK_RDI], 0x200000);
}

BLOB32(stack16, "push $0x11223344\npushw $0x5566\npop %eax\ncall 1f\nhlt\n1: mov %esp, %ebx\nenter "
                "$8, $1\nleave\nret\n");

/* SP, not ESP, in 32-bit code: it wraps at 64 KiB, and the upper half stays. */
static void a_16_bit_stack_in_32_bit_code(void **state)
{
    struct guest *g = *state;
    struct hsk_cpu_state s;

    real_state(g, &s, stack16, stack16_end);
    s.cr0 |= HSK_CR0_PE;
    s.seg[HSK_CS].attr |= HSK_SEG_DB;
    s.gpr[HSK_RSP] = 0xabcd0006;
    s.gpr[HSK_RBP] = 0x77770000;
    assert_int_equal(guest_run(g, &s), HSK_EXIT_HALT);
    assert_int_equal(s.gpr[HSK_RSP], 0xabcd0004);
    assert_int_equal(s.gpr[HSK_RBX], 0xabcd0000);
    assert_int_equal(s.gpr[HSK_RAX], 0x33445566);
    assert_int_equal(s.gpr[HSK_RBP], 0x77770000);
    assert_int_equal(hsk_get32(g->mem + STACK_AT), 0x10f);
    assert_int_equal(hsk_get32(g->mem + STACK_AT + 0xfff8), 0xabcdfffc);
}

/* --- modes and the jump cache --- */

BLOB(fpu_off, "mov $20, %ebp\nlea 2f(%rip), %rbx\n"
              "0: call *%rbx\nlea 1f(%rip), %rcx\njmp *%rcx\n1: dec %ebp\njnz 0b\n"
              "mov %cr0, %rax\nor $8, %eax\nmov %rax, %cr0\ncall *%rbx\nhlt\n"
              "2: addps %xmm0, %xmm1\nret\n");

/* What was translated with CR0.TS clear is not run after it was set, whoever remembers it. */
static void code_of_another_mode_is_not_entered(void **state)
{
    struct guest *g = *state;
    struct hsk_cpu_state s;

    memcpy(g->mem + (GUEST_CODE - GUEST_VA), fpu_off, (size_t)(fpu_off_end - fpu_off));
    hsk_engine_soft_ops.flush(g->engine, HSK_FLUSH_CODE);
    guest_state(g, &s);
    assert_int_equal(guest_run(g, &s), HSK_EXIT_HALT);
    assert_int_equal(s.gpr[HSK_RBP], 0);
    assert_int_equal(s.rip, GUEST_TRAPS + 7 * 16 + 1);
}

int main(void)
{
#define BOTH(test)                                                                                 \
    cmocka_unit_test_setup_teardown(test, guest_setup, guest_teardown),                            \
        cmocka_unit_test_setup_teardown(test, guest_setup_strict, guest_teardown)
    const struct CMUnitTest tests[] = {
        BOTH(real_mode_moves_and_calls),
        BOTH(accesses_end_at_the_limit),
        BOTH(code_has_a_base),
        BOTH(unreal_mode_reaches_beyond_64k),
        BOTH(a_16_bit_stack_in_32_bit_code),
        BOTH(code_of_another_mode_is_not_entered),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
