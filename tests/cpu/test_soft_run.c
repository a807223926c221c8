/* SPDX-License-Identifier: MIT */
/*
 * What the translator must get right beside single instructions: self-modifying code, faults that
 * restart, device memory, kicks, writes by devices, 32-bit code, user code at two addresses.
 */
#include <pthread.h>
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

static void put(struct guest *g, uint64_t va, const uint8_t *code, const uint8_t *end)
{
    memcpy(g->mem + (va - GUEST_VA), code, (size_t)(end - code));
}

BLOB(smc_next, "movb $42, 1f+1(%rip)\n1: mov $1, %al\nhlt\n");

static void a_store_changes_the_next_instruction(void **state)
{
    struct guest *g = *state;
    struct hsk_cpu_state s;

    for (unsigned i = 0; i < 3; i++) {
        put(g, GUEST_CODE, smc_next, smc_next_end);
        hsk_engine_soft_ops.flush(g->engine, HSK_FLUSH_CODE);
        guest_state(g, &s);
        assert_int_equal(guest_run(g, &s), HSK_EXIT_HALT);
        assert_int_equal(s.gpr[HSK_RAX] & 0xff, 42);
    }
}

BLOB(smc_loop, "xor %eax, %eax\nmov $200, %ecx\n"
               "0: mov %ecx, 1f+1(%rip)\ncall 1f\nadd %edx, %eax\ndec %ecx\njnz 0b\nhlt\n"
               ".balign 64\n1: .byte 0xba\n.long 0\nret\n");

static void a_patched_function_is_translated_again(void **state)
{
    struct guest *g = *state;
    struct hsk_cpu_state s;

    put(g, GUEST_CODE, smc_loop, smc_loop_end);
    guest_state(g, &s);
    assert_int_equal(guest_run(g, &s), HSK_EXIT_HALT);
    assert_int_equal(s.gpr[HSK_RAX], 200 * 201 / 2);
}

BLOB(beside, "mov $100000, %ecx\n0: incl 2f(%rip)\ncall 1f\ndec %ecx\njnz 0b\nhlt\n"
             "1: mov 2f(%rip), %eax\nret\n.balign 128\n2: .long 0\n");

static void data_beside_code_keeps_both_right(void **state)
{
    struct guest *g = *state;
    struct hsk_cpu_state s;

    put(g, GUEST_CODE, beside, beside_end);
    guest_state(g, &s);
    assert_int_equal(guest_run(g, &s), HSK_EXIT_HALT);
    assert_int_equal(s.gpr[HSK_RAX], 100000);
}

BLOB(one, "mov $1, %eax\nhlt\n");

static void a_device_writes_code(void **state)
{
    struct guest *g = *state;
    struct hsk_cpu_state s;
    uint8_t two = 2;

    put(g, GUEST_CODE, one, one_end);
    guest_state(g, &s);
    assert_int_equal(guest_run(g, &s), HSK_EXIT_HALT);
    assert_int_equal(s.gpr[HSK_RAX], 1);
    assert_true(hsk_ram_write(g->ram, GUEST_CODE - GUEST_VA + 1, &two, 1));
    guest_state(g, &s);
    assert_int_equal(guest_run(g, &s), HSK_EXIT_HALT);
    assert_int_equal(s.gpr[HSK_RAX], 2);
}

BLOB(jump_rax, "mov $3, %ecx\n0: dec %ecx\njz 1f\nlea 0b(%rip), %rdx\njmp *%rdx\n1: jmp *%rax\n");

/* The jump cache marks what is empty by a number that is also the complement of an address. */
static void a_jump_to_the_last_address(void **state)
{
    struct guest *g = *state;
    struct hsk_cpu_state s;

    put(g, GUEST_CODE, jump_rax, jump_rax_end);
    guest_state(g, &s);
    s.gpr[HSK_RAX] = ~0ull;
    assert_int_equal(guest_run(g, &s), HSK_EXIT_HALT);
    assert_int_equal(s.rip, GUEST_TRAPS + 14 * 16 + 1);
    assert_int_equal(s.cr2, ~0ull);
}

BLOB(store8, "mov %rax, (%rdi)\nhlt\n");

static void set_pte(struct guest *g, uint64_t va, uint64_t value)
{
    hsk_put64(g->mem + 0x10000 + 8 * ((va - GUEST_VA) >> 12), value);
}

static void a_crossing_store_faults_before_it_writes(void **state)
{
    struct guest *g = *state;
    struct hsk_cpu_state s;
    uint8_t *frame = g->mem + (GUEST_STACK - GUEST_VA) - 48;

    put(g, GUEST_CODE, store8, store8_end);
    memset(g->mem + (GUEST_DATA - GUEST_VA), 0, 8192);
    set_pte(g, GUEST_DATA + 4096, ((GUEST_DATA + 4096 - GUEST_VA) & ~0xfffull) | 1); /* read-only */
    guest_state(g, &s);
    s.gpr[HSK_RAX] = ~0ull;
    s.gpr[HSK_RDI] = GUEST_DATA + 4096 - 3;
    assert_int_equal(guest_run(g, &s), HSK_EXIT_HALT);
    assert_int_equal(s.rip, GUEST_TRAPS + 14 * 16 + 1);
    assert_int_equal(s.cr2, GUEST_DATA + 4096);
    assert_int_equal(hsk_get64(frame), 3);              /* error: present, write */
    assert_int_equal(hsk_get64(frame + 8), GUEST_CODE); /* restarts the store */
    assert_int_equal(hsk_get32(g->mem + (GUEST_DATA - GUEST_VA) + 4092), 0);
    /* allowed now, the same code does all of it */
    set_pte(g, GUEST_DATA + 4096, ((GUEST_DATA + 4096 - GUEST_VA) & ~0xfffull) | 3);
    guest_state(g, &s);
    s.gpr[HSK_RAX] = 0x0807060504030201;
    s.gpr[HSK_RDI] = GUEST_DATA + 4096 - 3;
    assert_int_equal(guest_run(g, &s), HSK_EXIT_HALT);
    assert_int_equal(hsk_get64(g->mem + (GUEST_DATA - GUEST_VA) + 4093), 0x0807060504030201);
}

/* --- device memory --- */

struct fake {
    struct hsk_dev dev;
    uint64_t value;
    unsigned reads, writes, last_size;
};

static uint64_t fake_read(struct hsk_dev *dev, unsigned region, uint64_t offset, unsigned size)
{
    struct fake *f = (struct fake *)dev;

    (void)region;
    f->reads++;
    f->last_size = size;
    return f->value >> (8 * (offset & 7));
}

static void fake_write(struct hsk_dev *dev, unsigned region, uint64_t offset, unsigned size,
                       uint64_t value)
{
    struct fake *f = (struct fake *)dev;

    (void)region;
    (void)offset;
    f->writes++;
    f->last_size = size;
    f->value = value;
}

static const struct hsk_dev_ops fake_ops = {.read = fake_read, .write = fake_write};

#define MMIO_GPA GUEST_SIZE
#define MMIO_VA  (GUEST_VA + 0x500000)

BLOB(mmio, "mov (%rdi), %eax\n"
           "stc\nmovl $7, (%rdi)\nadcl $5, (%rdi)\n" /* carry lives over a store to the device */
           "pushq (%rdi)\npop %rbx\n"
           "movups (%rdi), %xmm0\nmovq %xmm0, %rcx\n"
           "movb $9, 16(%rdi)\nhlt\n");

static void device_memory_is_read_written_and_modified(void **state)
{
    struct guest *g = *state;
    struct hsk_cpu_state s;
    struct fake f = {.value = 0x11223344};

    hsk_dev_init(&f.dev, &fake_ops, NULL, "fake");
    assert_true(hsk_bus_map(g->mmio, MMIO_GPA, 4096, &f.dev, 0));
    set_pte(g, MMIO_VA, MMIO_GPA | 3);
    put(g, GUEST_CODE, mmio, mmio_end);
    guest_state(g, &s);
    s.gpr[HSK_RDI] = MMIO_VA;
    assert_int_equal(guest_run(g, &s), HSK_EXIT_HALT);
    assert_int_equal(s.gpr[HSK_RAX], 0x11223344);
    assert_int_equal(s.gpr[HSK_RBX], 13);
    assert_int_equal(s.gpr[HSK_RCX], 13);
    assert_int_equal(f.writes, 3);
    assert_int_equal(f.value, 9);
    assert_int_equal(f.last_size, 1);
    assert_true(hsk_bus_unmap(g->mmio, MMIO_GPA, &f.dev));
    hsk_dev_finish(&f.dev);
}

/* --- kicks --- */

BLOB(spin, "0: inc %rax\njmp 0b\n");
BLOB(spin_calls, "0: call 1f\njmp *%rbx\n1: ret\n");

static void *kick_later(void *arg)
{
    struct guest *g = arg;

    g_usleep(20000);
    hsk_engine_soft_ops.kick(g->vcpu);
    return NULL;
}

static void run_until_kicked(struct guest *g, const uint8_t *code, const uint8_t *end)
{
    struct hsk_cpu_state s;
    pthread_t thread;

    put(g, GUEST_CODE, code, end);
    hsk_engine_soft_ops.flush(g->engine, HSK_FLUSH_CODE);
    guest_state(g, &s);
    s.gpr[HSK_RBX] = GUEST_CODE;
    assert_int_equal(pthread_create(&thread, NULL, kick_later, g), 0);
    assert_int_equal(guest_run(g, &s), HSK_EXIT_KICK);
    pthread_join(thread, NULL);
    assert_in_range(s.rip, GUEST_CODE, GUEST_CODE + 16);
}

static void a_kick_ends_loops_and_calls(void **state)
{
    run_until_kicked(*state, spin, spin_end);
    run_until_kicked(*state, spin_calls, spin_calls_end);
}

/* --- 32-bit code --- */

BLOB(compat, ".code32\n"
             "mov $0x10200000, %esi\ninc %eax\ninc %eax\ndec %ecx\n"
             "push $0x12345678\npop %edx\ncall 1f\n1: pop %ebp\n"
             "movl $5, -0x10(%esi)\nlea 0x7fffffff(%esi,%esi), %edi\n"
             "fldpi\nfstps (%esi)\ncmpxchg8b 64(%esi)\nhlt\n.code64\n");

static void thirty_two_bit_code_runs(void **state)
{
    struct guest *g = *state;
    struct hsk_cpu_state s;

    put(g, GUEST_CODE, compat, compat_end);
    hsk_put64(g->mem + (GUEST_DATA - GUEST_VA) + 64, 0x1122334455667788);
    guest_state(g, &s);
    s.seg[HSK_CS].attr = 0xc09b;
    assert_int_equal(guest_run(g, &s), HSK_EXIT_HALT);
    assert_int_equal(s.gpr[HSK_RAX], 0x55667788);
    assert_int_equal(s.gpr[HSK_RDX], 0x11223344);
    assert_int_equal(s.gpr[HSK_RBP] & ~0xffull, GUEST_CODE);
    assert_int_equal(s.gpr[HSK_RDI], (0x10200000ull * 2 + 0x7fffffff) & UINT32_MAX);
    assert_int_equal(hsk_get32(g->mem + (GUEST_DATA - GUEST_VA)), 0x40490fdb);
    assert_int_equal(hsk_get32(g->mem + (GUEST_DATA - GUEST_VA) - 16), 5);
}

/* --- user code that floats --- */

BLOB(where, "call 1f\n1: pop %rax\nlea 2f(%rip), %rbx\njmp *%rbx\nud2\n2: hlt\n");

static void user_code_knows_where_it_is(void **state)
{
    static const uint64_t at[] = {GUEST_VA + 0x600000, GUEST_VA + 0x777000, GUEST_VA + 0x600000};
    struct guest *g = *state;
    struct hsk_cpu_state s;

    put(g, GUEST_CODE, where, where_end);
    for (unsigned i = 0; i < 1024; i++) /* let user code in; the tables above too */
        g->mem[0x10000 + 8 * 0x200 + 8 * i] |= 4;
    hsk_put64(g->mem + 0x1000, 0x2007);
    hsk_put64(g->mem + 0x2000, 0x3007);
    for (unsigned i = 128; i < 144; i++)
        g->mem[0x3000 + 8 * i] |= 4;
    for (unsigned i = 0; i < 3; i++) {
        set_pte(g, at[i], (GUEST_CODE - GUEST_VA) | 7);
        guest_state(g, &s);
        s.rip = at[i];
        s.seg[HSK_CS].attr |= 0x60;
        s.seg[HSK_CS].selector |= 3;
        s.seg[HSK_SS].attr |= 0x60;
        s.seg[HSK_SS].selector |= 3;
        s.gpr[HSK_RSP] = GUEST_STACK;
        set_pte(g, GUEST_STACK - 4096, (GUEST_STACK - 4096 - GUEST_VA) | 7);
        s.seg[HSK_TR] = (struct hsk_segment){
            .base = GUEST_VA + 0xa000, .limit = 0x67, .selector = 0x18, .attr = 0x8b};
        hsk_put64(g->mem + 0xa004, GUEST_VA + 0xc000);
        /* HLT is not for users: #GP, whose handler halts */
        assert_int_equal(guest_run(g, &s), HSK_EXIT_HALT);
        assert_int_equal(s.rip, GUEST_TRAPS + 13 * 16 + 1);
        assert_int_equal(s.gpr[HSK_RAX], at[i] + 5);
        assert_int_equal(hsk_get64(g->mem + 0xc000 - 40), s.gpr[HSK_RBX]);
        assert_int_equal(s.gpr[HSK_RBX] - at[i], where_end - where - 1);
    }
}

int main(void)
{
#define BOTH(test)                                                                                 \
    cmocka_unit_test_setup_teardown(test, guest_setup, guest_teardown),                            \
        cmocka_unit_test_setup_teardown(test, guest_setup_strict, guest_teardown)
    const struct CMUnitTest tests[] = {
        BOTH(a_store_changes_the_next_instruction),
        BOTH(a_patched_function_is_translated_again),
        BOTH(data_beside_code_keeps_both_right),
        BOTH(a_device_writes_code),
        BOTH(a_jump_to_the_last_address),
        BOTH(a_crossing_store_faults_before_it_writes),
        BOTH(device_memory_is_read_written_and_modified),
        BOTH(a_kick_ends_loops_and_calls),
        BOTH(thirty_two_bit_code_runs),
        BOTH(user_code_knows_where_it_is),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
