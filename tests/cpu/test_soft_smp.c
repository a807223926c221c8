/* SPDX-License-Identifier: MIT */
/*
 * Several processors on the software engine, one thread each, all at the same code (rdi = which
 * one, rsi = rounds): sums that only atomic operations give, also across pages and on pages that
 * hold code; code that one writes and another runs; memory order; stops and the copy-before-write
 * hook while all of them write.
 */
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#include "soft_guest.h"

#include <cmocka.h>

#define NCPUS 3
#define BLOB(name, code)                                                                           \
    extern const uint8_t name[], name##_end[];                                                     \
    __asm__(".pushsection .rodata\n.globl " #name ", " #name "_end\n" #name ":\n" code "\n" #name  \
            "_end:\n.popsection\n")
#define PUT(g, va, name) memcpy((g)->mem + ((va)-GUEST_VA), name, (size_t)(name##_end - (name)))

static const struct hsk_engine_ops *const ops = &hsk_engine_soft_ops;

struct cpu {
    struct guest *g;
    unsigned index;
    pthread_t thread;
    struct hsk_cpu_state *s;
    enum hsk_exit exit;
};

static void *cpu_main(void *arg)
{
    struct cpu *c = arg;

    if (c->index)
        ops->thread_begin(c->g->cpu[c->index]);
    c->exit = ops->run(c->g->cpu[c->index]);
    if (c->index)
        ops->thread_end(c->g->cpu[c->index]);
    return NULL;
}

static void begin(struct guest *g, struct cpu *cpus, unsigned n, uint64_t rounds)
{
    for (unsigned i = 0; i < n; i++) {
        GError *error = NULL;

        cpus[i] = (struct cpu){
            .g = g, .index = i, .s = g_aligned_alloc0(1, sizeof(struct hsk_cpu_state), 64)};
        guest_state(g, cpus[i].s);
        cpus[i].s->gpr[HSK_RDI] = i;
        cpus[i].s->gpr[HSK_RSI] = rounds;
        cpus[i].s->gpr[HSK_RSP] = GUEST_STACK - i * 0x10000;
        assert_true(ops->set_state(g->cpu[i], cpus[i].s, &error));
    }
}

static void start(struct cpu *cpus, unsigned n)
{
    for (unsigned i = 1; i < n; i++)
        assert_int_equal(pthread_create(&cpus[i].thread, NULL, cpu_main, &cpus[i]), 0);
    cpu_main(&cpus[0]);
    for (unsigned i = 1; i < n; i++)
        pthread_join(cpus[i].thread, NULL);
}

static void end(struct guest *g, struct cpu *cpus, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        if (cpus[i].exit != HSK_EXIT_HALT)
            fail_msg("processor %u: exit %u, %s", i, (unsigned)cpus[i].exit,
                     g->cpu[i]->error ? g->cpu[i]->error : "");
        ops->get_state(g->cpu[i], cpus[i].s);
        if (cpus[i].s->rip < GUEST_CODE)
            fail_msg("processor %u: exception %u", i,
                     (unsigned)(cpus[i].s->rip - GUEST_TRAPS) / 16);
        g_aligned_free(cpus[i].s);
    }
}

/* Runs n processors from GUEST_CODE to their HLT. */
static void run_all(struct guest *g, unsigned n, uint64_t rounds)
{
    struct cpu cpus[NCPUS];

    begin(g, cpus, n, rounds);
    start(cpus, n);
    end(g, cpus, n);
}

static uint64_t data(const struct guest *g, uint64_t offset)
{
    return hsk_get64(g->mem + (GUEST_DATA - GUEST_VA) + offset);
}

static int setup(void **state)
{
    static struct guest g;

    alarm(120);
    guest_new_cpus(&g, false, NCPUS);
    *state = &g;
    return 0;
}

static int teardown(void **state)
{
    guest_free(*state);
    return 0;
}

/* A barrier: all of rbp processors meet at the counter at rbx, which only grows. Destroys rax. */
#define MEET(label)                                                                                \
    "lock incq (%rbx)\n" label ": pause\nmov (%rbx), %rax\ncmp %rbp, %rax\njb " label              \
    "b\nadd $2, %rbp\n"
#define MEET_START "mov $0x10280000, %ebx\nmov $2, %ebp\n"

/* --- atomic operations --- */

BLOB(sums, "mov $0x10200000, %ebx\n"
           "0: lock incq (%rbx)\n"
           "mov $3, %eax\nlock xadd %rax, 8(%rbx)\n"
           "mov 16(%rbx), %rax\n1: lea 5(%rax), %rdx\nlock cmpxchg %rdx, 16(%rbx)\njnz 1b\n"
           "lock addw $1, 24(%rbx)\nlock subl $7, 28(%rbx)\n"
           "mov %rsi, %rax\nxor %edx, %edx\nmov $64, %ecx\ndiv %rcx\nlock btc %rdx, 32(%rbx)\n"
           "mov 48(%rbx), %rax\nmov 56(%rbx), %rdx\n"
           "push %rbx\npush %rdi\nmov %rbx, %rdi\n"
           "2: mov %rax, %rbx\nadd $1, %rbx\nmov %rdx, %rcx\nadc $2, %rcx\nlock cmpxchg16b "
           "48(%rdi)\njnz 2b\n"
           "pop %rdi\npop %rbx\n"
           "dec %rsi\njnz 0b\nhlt\n");

static void locked_operations_are_atomic(void **state)
{
    struct guest *g = *state;
    const uint64_t n = 40000;

    PUT(g, GUEST_CODE, sums);
    run_all(g, NCPUS, n);
    assert_int_equal(data(g, 0), NCPUS * n);
    assert_int_equal(data(g, 8), NCPUS * n * 3);
    assert_int_equal(data(g, 16), NCPUS * n * 5);
    assert_int_equal(data(g, 24) & 0xffff, (NCPUS * n) & 0xffff);
    assert_int_equal(data(g, 24) >> 32, (uint32_t) - (NCPUS * n * 7));
    assert_int_equal(data(g, 32), NCPUS % 2 && n / 64 % 2 ? UINT64_MAX : 0);
    assert_int_equal(data(g, 48), NCPUS * n);
    assert_int_equal(data(g, 56), NCPUS * n * 2);
}

/* A quadword three bytes before a page's end, the doubleword in it that lies in the second page,
 * xchg as a lock. */
BLOB(crossing, "mov $0x10200ffd, %ebx\n"
               "0: test $1, %edi\njz 1f\nlock incl 3(%rbx)\njmp 2f\n1: lock incq (%rbx)\n"
               "2: mov $1, %eax\nlock xadd %rax, 0x1000(%rbx)\n"
               "3: mov $1, %eax\nxchg %rax, 0x3000(%rbx)\ntest %rax, %rax\njz 4f\npause\njmp 3b\n"
               "4: incq 0x2003(%rbx)\nmovq $0, 0x3000(%rbx)\n"
               "dec %rsi\njnz 0b\nhlt\n");

static void locked_operations_across_pages_are_atomic(void **state)
{
    struct guest *g = *state;
    const uint64_t n = 300;

    PUT(g, GUEST_CODE, crossing);
    run_all(g, NCPUS, n);
    assert_int_equal(data(g, 0xffd), 2 * n + (n << 24)); /* processors 0 and 2, and 1 */
    assert_int_equal(data(g, 0x1ffd), NCPUS * n);
    assert_int_equal(data(g, 0x3000), NCPUS * n);
}

/* Counters in the very line that holds a function which all of them call. */
BLOB(on_code, "0: lock incq 2f(%rip)\ncall 1f\nmov $1, %edx\nlock xadd %rdx, 3f(%rip)\ndec "
              "%rsi\njnz 0b\nhlt\n"
              ".balign 64\n1: mov $1, %eax\nret\n.balign 8\n2: .quad 0\n3: .quad 0\n");

static void locked_operations_on_code_are_atomic(void **state)
{
    struct guest *g = *state;
    const uint64_t n = 300;
    const uint8_t *at = g->mem + (GUEST_CODE - GUEST_VA) + (on_code_end - on_code) - 16;

    PUT(g, GUEST_CODE, on_code);
    run_all(g, NCPUS, n);
    assert_int_equal(hsk_get64(at), NCPUS * n);
    assert_int_equal(hsk_get64(at + 8), NCPUS * n);
}

/* --- code that others write --- */

/* Processor 0 patches the constant of a function and raises the version; the others serialise, call
 * and compare. */
BLOB(patched,
     MEET_START "test %edi, %edi\njnz 2f\n"
                "mov $1, %ecx\nmovb $0xb8, 0x10240000\nmovb $0xc3, 0x10240005\n"
                "0: mov %ecx, 0x10220000\ntest $1, %cl\njz 5f\n"
                "mov %rsi, %r8\nmov %rcx, %r9\nmov $0x10220000, %esi\nmov $0x10240001, %edi\nmov "
                "$4, %ecx\nrep movsb\n"
                "mov %r9, %rcx\nmov %r8, %rsi\njmp 6f\n"
                "5: mov %ecx, 0x10240001\n6: mov %rcx, 0x10200000\n"
                "1: pause\nmov 0x10200008, %rax\nlea (%rcx,%rcx), %rdx\ncmp %rdx, %rax\njb 1b\n"
                "inc %ecx\ncmp %rsi, %rcx\njbe 0b\nhlt\n"
                "2: mov $1, %r12d\n"
                "3: pause\ncmp %r12, 0x10200000\njb 3b\n"
                "xor %eax, %eax\ncpuid\nmov $0x10240000, %eax\ncall *%rax\ncmp %r12d, %eax\nje "
                "4f\nlock incq 0x10200010\n"
                "4: lock incq 0x10200008\ninc %r12\ncmp %rsi, %r12\njbe 3b\nhlt\n");

static void code_patched_by_another_is_seen_after_serialising(void **state)
{
    struct guest *g = *state;
    const uint64_t n = 1000;
    struct hsk_cpuid *cpuid = g_new0(struct hsk_cpuid, 1);

    g->engine->cfg.cpuid = cpuid;
    PUT(g, GUEST_CODE, patched);
    run_all(g, 3, n);
    assert_int_equal(data(g, 8), 2 * n);
    assert_int_equal(data(g, 16), 0);
    g_free(cpuid);
}

/* Each makes functions of its own (mov $n, %eax; ret), 64 bytes apart in one page, and adds up what
 * they return. */
BLOB(jit, "xor %r12d, %r12d\nmov %edi, %ebx\nshl $6, %ebx\nadd $0x10240000, %ebx\n"
          "0: mov %esi, %eax\nand $7, %eax\nshl $8, %eax\nlea (%rbx,%rax), %rdx\n"
          "movb $0xb8, (%rdx)\nmov %esi, 1(%rdx)\nmovb $0xc3, 5(%rdx)\ncall *%rdx\n"
          "add %rax, %r12\ncall *%rdx\nadd %rax, %r12\ndec %rsi\njnz 0b\n"
          "mov %r12, 0x10200000(,%rdi,8)\nhlt\n");

static void several_make_code_in_one_page(void **state)
{
    struct guest *g = *state;
    const uint64_t n = 1000;

    PUT(g, GUEST_CODE, jit);
    run_all(g, NCPUS, n);
    for (unsigned i = 0; i < NCPUS; i++)
        assert_int_equal(data(g, 8 * i), n * (n + 1));
}

/* Processor 0 makes code on page after page, which the others are writing data to all the time. */
BLOB(recycled,
     "mov $0x10240000, %ebx\ntest %edi, %edi\njnz 2f\n"
     "xor %r12d, %r12d\n"
     "0: mov %esi, %eax\nand $63, %eax\nshl $12, %eax\nlea 0x800(%rbx,%rax), %rdx\n"
     "movl $0xc3c0ff48, (%rdx)\nmov %r12, %rax\ncall *%rdx\nmov %rax, %r12\ndec %rsi\njnz 0b\n"
     "mov %r12, 0x10200000\nmovq $1, 0x10200008\nhlt\n"
     "2: xor %ecx, %ecx\n"
     "3: mov %ecx, %eax\nand $63, %eax\nshl $12, %eax\nincq (%rbx,%rax)\nlock incq "
     "8(%rbx,%rax)\ninc %rcx\n"
     "cmpq $0, 0x10200008\nje 3b\nmov %rcx, 0x10200010(,%rdi,8)\nhlt\n");

static void pages_change_between_data_and_code(void **state)
{
    struct guest *g = *state;
    const uint64_t n = 2000;
    uint64_t plain = 0, locked = 0;

    PUT(g, GUEST_CODE, recycled);
    run_all(g, 2, n);
    assert_int_equal(data(g, 0), n);
    for (unsigned i = 0; i < 64; i++) {
        plain += data(g, 0x40000 + 4096 * i);
        locked += data(g, 0x40000 + 4096 * i + 8);
    }
    assert_int_equal(plain, data(g, 0x18));
    assert_int_equal(locked, data(g, 0x18));
}

static void *writing_device(void *arg)
{
    struct guest *g = arg;

    for (uint32_t i = 1; i <= 500; i++) {
        uint8_t code[6] = {0xb8, 0, 0, 0, 0, 0xc3};

        hsk_put32(code + 1, i);
        assert_true(hsk_ram_write(g->ram, 0x240000, code, sizeof code));
        assert_true(hsk_ram_write(g->ram, 0x200000, &i, sizeof i));
        while (__atomic_load_n((uint32_t *)(void *)(g->mem + 0x200008), __ATOMIC_ACQUIRE) != 2 * i)
            sched_yield();
    }
    return NULL;
}

/* As above, but a device writes the function. */
BLOB(loaded, "mov $1, %r12d\n"
             "0: pause\ncmp %r12d, 0x10200000\njb 0b\n"
             "xor %eax, %eax\ncpuid\nmov $0x10240000, %eax\ncall *%rax\ncmp %r12d, %eax\nje "
             "1f\nlock incq 0x10200010\n"
             "1: lock incl 0x10200008\ninc %r12\ncmp %rsi, %r12\njbe 0b\nhlt\n");

static void code_written_by_a_device_is_seen_by_all(void **state)
{
    struct guest *g = *state;
    struct hsk_cpuid *cpuid = g_new0(struct hsk_cpuid, 1);
    pthread_t thread;

    g->engine->cfg.cpuid = cpuid;
    PUT(g, GUEST_CODE, loaded);
    assert_int_equal(pthread_create(&thread, NULL, writing_device, g), 0);
    run_all(g, 2, 500);
    pthread_join(thread, NULL);
    assert_int_equal(data(g, 16), 0);
    g_free(cpuid);
}

/* --- memory order --- */

/* Store, fence, load of the other's: both loads never find the old value. Counts those in which
 * they do. */
BLOB(dekker, MEET_START
     "mov $0x10200000, %r12d\nlea (%r12,%rdi,8), %r13\nxor $1, %edi\nlea (%r12,%rdi,8), %r14\nxor "
     "$1, %edi\n"
     "0: " MEET("7") "mov %rsi, (%r13)\nmfence\nmov (%r14), %rdx\nmov %rdx, 0x40(%r13)\n" MEET(
         "8") "test %edi, %edi\njnz 1f\ncmp %rsi, 0x40(%r13)\nje 1f\ncmp %rsi, 0x40(%r14)\nje "
              "1f\nlock incq 0x10200100\n"
              "1: " MEET("9") "dec %rsi\njnz 0b\nhlt\n");

static void fences_order_stores_before_loads(void **state)
{
    struct guest *g = *state;

    PUT(g, GUEST_CODE, dekker);
    run_all(g, 2, 3000);
    assert_int_equal(data(g, 0x100), 0);
    assert_int_equal(data(g, 0x80000), 3000 * 3 * 2);
}

/* --- stops --- */

struct stopper {
    struct guest *g;
    struct cpu cpus[NCPUS];
    pthread_barrier_t parked, go;
    _Atomic unsigned calls[8192];
    unsigned running, epochs;
};

static void *stopped_main(void *arg)
{
    struct cpu *c = arg;
    struct stopper *p =
        (struct stopper *)(void *)((char *)(c - c->index) - offsetof(struct stopper, cpus));

    ops->thread_begin(c->g->cpu[c->index]);
    for (unsigned i = 0; i < p->epochs; i++) {
        c->exit = ops->run(c->g->cpu[c->index]);
        pthread_barrier_wait(&p->parked);
        pthread_barrier_wait(&p->go);
    }
    ops->thread_end(c->g->cpu[c->index]);
    return NULL;
}

static void before_write(struct hsk_memobj *obj, uint64_t page, void *opaque)
{
    struct stopper *p = opaque;

    p->calls[page]++;
    sched_yield(); /* two that come at once find each other here */
}

/* Writes through many pages, alone and locked, for ever; each counts its rounds in r15. */
BLOB(writers, "0: mov $0x10240000, %ebx\nmov $64, %ecx\n"
              "1: lock incq (%rbx)\nmov %rdi, 8(%rbx,%rdi,8)\nadd $4096, %rbx\ndec %ecx\njnz "
              "1b\ninc %r15\njmp 0b\n");

static void the_hook_runs_once_for_each_page_and_epoch(void **state)
{
    struct stopper *p = g_new0(struct stopper, 1);
    uint64_t rounds = 0;

    p->g = *state;
    p->epochs = 30;
    PUT(p->g, GUEST_CODE, writers);
    pthread_barrier_init(&p->parked, NULL, NCPUS + 1);
    pthread_barrier_init(&p->go, NULL, NCPUS + 1);
    begin(p->g, p->cpus, NCPUS, 0);
    p->g->obj->before_write = before_write;
    p->g->obj->before_write_opaque = p;
    ops->thread_end(p->g->vcpu); /* its thread is another one now */
    for (unsigned i = 0; i < NCPUS; i++)
        assert_int_equal(pthread_create(&p->cpus[i].thread, NULL, stopped_main, &p->cpus[i]), 0);
    for (unsigned e = 0; e < p->epochs; e++) {
        for (unsigned i = 0; i < 64; i++)
            while (!atomic_load(&p->calls[0x240 + i]))
                usleep(100);
        for (unsigned i = 0; i < NCPUS; i++)
            ops->kick(p->g->cpu[i]);
        pthread_barrier_wait(&p->parked);
        for (unsigned i = 0; i < 64; i++) {
            assert_int_equal(p->calls[0x240 + i], 1);
            p->calls[0x240 + i] = 0;
        }
        hsk_memobj_collect(p->g->obj, HSK_PAGE_SAVED, NULL);
        ops->flush(p->g->engine, HSK_FLUSH_WRITES | (e % 2 ? HSK_FLUSH_TLB : HSK_FLUSH_CODE));
        pthread_barrier_wait(&p->go);
    }
    for (unsigned i = 0; i < NCPUS; i++) {
        pthread_join(p->cpus[i].thread, NULL);
        assert_int_equal(p->cpus[i].exit, HSK_EXIT_KICK);
        ops->get_state(p->g->cpu[i], p->cpus[i].s);
        rounds += p->cpus[i].s->gpr[15];
    }
    ops->thread_begin(p->g->vcpu);
    assert_in_range(data(p->g, 0x40000), rounds, rounds + NCPUS);
    for (unsigned i = 0; i < NCPUS; i++)
        g_aligned_free(p->cpus[i].s);
    pthread_barrier_destroy(&p->parked);
    pthread_barrier_destroy(&p->go);
    g_free(p);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(locked_operations_are_atomic),
        TEST(locked_operations_across_pages_are_atomic),
        TEST(locked_operations_on_code_are_atomic),
        TEST(code_patched_by_another_is_seen_after_serialising),
        TEST(several_make_code_in_one_page),
        TEST(pages_change_between_data_and_code),
        TEST(code_written_by_a_device_is_seen_by_all),
        TEST(fences_order_stores_before_loads),
        TEST(the_hook_runs_once_for_each_page_and_epoch),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
