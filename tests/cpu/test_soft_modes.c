/* SPDX-License-Identifier: MIT */
/*
 * Code that is not flat: real, unreal and 16-bit protected mode, 16-bit stacks in 32-bit code and the reverse, segments
 * with bases and limits, code with a base. Each guest ends in a HLT: its own, or that of the exception that it raises.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "soft_guest.h"

#define BLOB(name, code)                                                                           \
    extern const uint8_t name[], name##_end[];                                                     \
    __asm__(".pushsection .rodata\n.globl " #name ", " #name "_end\n" #name ":\n" code "\n" #name  \
            "_end:\n.popsection\n")
#define BLOB16(name, code) BLOB(name, ".code16\n" code "\n.code64")
#define BLOB32(name, code) BLOB(name, ".code32\n" code "\n.code64")

#define CODE_AT 0x20000u /* physical */
#define DATA_AT 0x30000u
#define STACK_AT 0x40000u
#define TRAPS_AT 0x50000u /* HLT of vector n at + n */

static int setup(void **state)
{
    static struct guest g;

    guest_new(&g, false);
    *state = &g;
    return 0;
}

static int setup_strict(void **state)
{
    static struct guest g;

    guest_new(&g, true);
    *state = &g;
    return 0;
}

static int teardown(void **state)
{
    guest_free(*state);
    return 0;
}

static struct hsk_segment real_segment(uint32_t base, unsigned attr)
{
    return (struct hsk_segment){.base = base, .limit = 0xffff, .selector = (uint16_t)(base >> 4), .attr = (uint16_t)attr};
}

/* Real mode at CODE_AT: CS, DS, ES, SS of their own. */
static void real_state(struct guest *g, struct hsk_cpu_state *s, const uint8_t *code, const uint8_t *end)
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

/* Not the segments' bases only: writes 16 bits at DS:off. */
static void poke(struct guest *g, unsigned off, unsigned value)
{
    hsk_put16(g->mem + DATA_AT + off, (uint16_t)value);
}
static unsigned peek(struct guest *g, unsigned off)
{
    return hsk_get16(g->mem + DATA_AT + off);
}

BLOB16(real_moves, "mov $0x1234, %ax\nmov %ax, 0x10\nmov $2, %bx\nmov $0xe, %si\naddw $0x1111, (%bx,%si)\n"
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

int main(void)
{
#define BOTH(test)                                                                                 \
    cmocka_unit_test_setup_teardown(test, setup, teardown),                                        \
        cmocka_unit_test_setup_teardown(test, setup_strict, teardown)
    const struct CMUnitTest tests[] = {
        BOTH(real_mode_moves_and_calls),
    };

    (void)poke;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
