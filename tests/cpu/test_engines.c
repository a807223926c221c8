/* SPDX-License-Identifier: MIT */
/*
 * One small flat 64-bit guest on both engines: the same port output, the same memory (page tables
 * and exception frames included), the same canonical final state; also when it changes the engine
 * in the middle. Integer instructions only: a /dev/kvm without VMX or SVM behind it emulates, and
 * knows no SSE. No VME, no XSAVEC: test_kvm_svm.py has a processor without them.
 */
#include <vmm/cpu_bits.h>
#include <vmm/engine.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define RAM_BYTES (4u << 20)
#define CODE      0x100000u
#define PORT_OUT  0xe9
#define PORT_IN   0xe8
#define PORT_STOP 0xea

/* Position independent; loaded at CODE, data at 0x200000, stack below 0x80000, IDT at 0x7000. */
asm(".pushsection .rodata\n"
    "guest_code:\n"
    "  mov $0x0123456789abcdef, %rax\n"
    "  xor %ecx, %ecx\n"
    "  mov $0x200000, %edi\n"
    "1: mov %rax, %rdx\n shl $13, %rdx\n xor %rdx, %rax\n mov %rax, %rdx\n shr $7, %rdx\n xor "
    "%rdx, %rax\n"
    "  mov %rax, %rdx\n shl $17, %rdx\n xor %rdx, %rax\n"
    "  mov %rax, (%rdi,%rcx,8)\n inc %ecx\n cmp $2000, %ecx\n jne 1b\n"
    /* arithmetic over the table, with flags carried through memory */
    "  mov $0x200000, %esi\n xor %ebx, %ebx\n xor %r8d, %r8d\n mov $1999, %ecx\n"
    "2: mov (%rsi), %rax\n add 8(%rsi), %rax\n adc $0, %rbx\n sbb %r9, %r9\n imul $77, %rax, %r10\n"
    "  mul %rbx\n xor %rax, %r8\n rol $9, %r8\n cmp %r10, %r8\n setl %r11b\n cmovg %rdx, %r12\n"
    "  lea 5(%r8,%r12,4), %r13\n lock xadd %r13, 0x4000(%rsi)\n bt $5, %r13\n rcr $1, %r14\n"
    "  xchg %r14, 0x8000(%rsi)\n mov %r13, %rax\n lock cmpxchg %r8, 0x4000(%rsi)\n"
    "  add $8, %rsi\n dec %ecx\n jnz 2b\n"
    /* division, its fault and an undefined instruction, whose handlers step over them */
    "  mov %r8, %rax\n xor %edx, %edx\n mov $12345, %ebp\n div %rbp\n mov %rax, %r15\n"
    "  xor %ebp, %ebp\n div %rbp\n ud2\n"
    /* strings both ways, over page borders */
    "  mov $0x210ff5, %edi\n mov $3000, %ecx\n mov $0x5a, %al\n rep stosb\n"
    "  mov $0x200003, %esi\n mov $0x220ffd, %edi\n mov $1500, %ecx\n rep movsq\n"
    "  std\n mov $0x211200, %esi\n mov $0x211203, %edi\n mov $700, %ecx\n rep movsb\n cld\n"
    /* calls, stack, input, output */
    "  mov $0x80000, %esp\n mov $10, %edi\n call 3f\n mov %rax, 0x230000\n"
    "  out %al, $0xea\n"
    "  in $0xe8, %al\n movzbl %al, %ebx\n in $0xe8, %eax\n add %eax, %ebx\n"
    "  mov $0xe9, %edx\n mov $0x200100, %esi\n mov $20, %ecx\n rep outsb\n"
    "  mov %ebx, %eax\n out %eax, %dx\n pushfq\n popq %rsi\n hlt\n"
    "3: cmp $2, %rdi\n jb 4f\n push %rdi\n dec %rdi\n call 3b\n pop %rdi\n push %rax\n lea "
    "-2(%rdi), %rdi\n call 3b\n"
    "  pop %rdx\n add %rdx, %rax\n ret\n"
    "4: mov %rdi, %rax\n ret\n"
    ".balign 16\n"
    "guest_skip3: addq $3, (%rsp)\n iretq\n" /* div %rbp */
    ".balign 16\n"
    "guest_skip2: addq $2, (%rsp)\n iretq\n" /* ud2 */
    "guest_code_end:\n"
    ".popsection\n");
extern const uint8_t guest_code[], guest_skip3[], guest_skip2[], guest_code_end[];

struct port_dev {
    struct hsk_dev dev;
    GByteArray *out;
    uint32_t input;
    struct hsk_vcpu *stop_vcpu; /* kicked by a write to PORT_STOP */
};

static uint64_t port_read(struct hsk_dev *dev, unsigned region, uint64_t offset, unsigned size)
{
    struct port_dev *p = (struct port_dev *)dev;

    return p->input += 0x01020304;
}

static void port_write(struct hsk_dev *dev, unsigned region, uint64_t offset, unsigned size,
                       uint64_t value)
{
    struct port_dev *p = (struct port_dev *)dev;
    const uint64_t le = htole64(value);

    if (offset == PORT_STOP - PORT_IN) {
        if (p->stop_vcpu)
            p->stop_vcpu->engine->ops->kick(p->stop_vcpu);
        return;
    }
    g_byte_array_append(p->out, (const uint8_t *)&le, size);
}

static const struct hsk_dev_ops port_ops = {
    .state = {.kind = "port"}, .read = port_read, .write = port_write};

/* One machine: memory, bus, engine. */
struct rig {
    struct hsk_memobj *obj;
    struct hsk_ram *ram;
    struct hsk_bus *pio, *mmio;
    struct hsk_clock *clock;
    struct hsk_cpuid cpuid;
    struct port_dev port;
    struct hsk_engine *engine;
    struct hsk_vcpu *vcpu;
};

static struct rig *rig_new(const struct hsk_engine_ops *ops, bool strict)
{
    struct rig *r = g_new0(struct rig, 1);
    struct hsk_engine_config cfg;
    g_autoptr(GError) error = NULL;

    r->obj = hsk_memobj_new("ram", RAM_BYTES, NULL);
    r->ram = hsk_ram_new();
    assert_true(
        hsk_ram_map_add(r->ram, &(struct hsk_ram_region){.size_bytes = RAM_BYTES, .obj = r->obj}));
    r->pio = hsk_bus_new("pio");
    r->mmio = hsk_bus_new("mmio");
    r->clock = hsk_clock_new(0);
    assert_true(hsk_cpuid_build(&r->cpuid, "v2,-vme,-xsavec", 1, hsk_clock_tsc_hz(r->clock), NULL));
    hsk_dev_init(&r->port.dev, &port_ops, NULL, "port");
    r->port.out = g_byte_array_new();
    assert_true(hsk_bus_map(r->pio, PORT_IN, 8, &r->port.dev, 0));
    cfg = (struct hsk_engine_config){.ram = r->ram,
                                     .pio = r->pio,
                                     .mmio = r->mmio,
                                     .clock = r->clock,
                                     .cpuid = &r->cpuid,
                                     .ncpus = 1,
                                     .strict = strict};
    r->engine = ops->engine_new(&cfg, &error);
    if (!r->engine)
        fail_msg("%s", error->message);
    r->vcpu = ops->vcpu_new(r->engine, &(struct hsk_vcpu_config){0}, &error);
    if (!r->vcpu)
        fail_msg("%s", error->message);
    hsk_clock_start(r->clock);
    ops->thread_begin(r->vcpu);
    return r;
}

static void rig_free(struct rig *r)
{
    const struct hsk_engine_ops *ops = r->engine->ops;

    ops->thread_end(r->vcpu);
    ops->vcpu_free(r->vcpu);
    ops->engine_free(r->engine);
    g_byte_array_unref(r->port.out);
    hsk_dev_finish(&r->port.dev);
    hsk_bus_free(r->pio);
    hsk_bus_free(r->mmio);
    hsk_ram_free(r->ram);
    hsk_memobj_free(r->obj);
    hsk_clock_free(r->clock);
    g_free(r);
}

static void put_gate(struct rig *r, unsigned vector, const uint8_t *handler)
{
    const uint64_t at = CODE + (uint64_t)(handler - guest_code);

    hsk_put64(r->obj->host + 0x7000 + 16 * vector,
              (at & 0xffff) | 8u << 16 | 0x8eull << 40 | (at >> 16) << 48);
}

static void load_guest(struct rig *r)
{
    struct hsk_cpu_state *s = aligned_alloc(64, sizeof(*s));
    g_autoptr(GError) error = NULL;
    uint8_t *m = r->obj->host;

    hsk_put64(m + 0x1000, 0x2003);
    hsk_put64(m + 0x2000, 0x3003);
    hsk_put64(m + 0x3000, 0x000083);
    hsk_put64(m + 0x3008, 0x200083);
    hsk_put64(m + 0x6008, 0x00af9b000000ffff);
    hsk_put64(m + 0x6010, 0x00cf93000000ffff);
    put_gate(r, 0, guest_skip3);
    put_gate(r, 6, guest_skip2);
    memcpy(m + CODE, guest_code, (size_t)(guest_code_end - guest_code));
    hsk_cpu_state_reset(s, 0);
    s->cr0 = HSK_CR0_PE | HSK_CR0_ET | HSK_CR0_NE | HSK_CR0_WP | HSK_CR0_PG;
    s->cr3 = 0x1000;
    s->cr4 = HSK_CR4_PAE;
    s->efer = HSK_EFER_LME | HSK_EFER_LMA;
    s->gdtr = (struct hsk_dtable){0x6000, 0x17};
    s->idtr = (struct hsk_dtable){0x7000, 0xff};
    for (unsigned i = HSK_ES; i <= HSK_GS; i++)
        s->seg[i] = (struct hsk_segment){.limit = 0xffffffff, .selector = 0x10, .attr = 0xc093};
    s->seg[HSK_CS] = (struct hsk_segment){.limit = 0xffffffff, .selector = 8, .attr = 0xa09b};
    s->seg[HSK_TR] = (struct hsk_segment){.limit = 0x67, .attr = 0x8b};
    s->rip = CODE;
    s->gpr[HSK_RSP] = 0x80000;
    if (!r->engine->ops->set_state(r->vcpu, s, &error))
        fail_msg("%s", error->message);
    r->engine->ops->flush(r->engine, HSK_FLUSH_TLB | HSK_FLUSH_CODE | HSK_FLUSH_WRITES);
    free(s);
}

static void run_until(struct rig *r, enum hsk_exit expect)
{
    const enum hsk_exit exit = r->engine->ops->run(r->vcpu);

    if (exit != expect)
        fail_msg("%s: exit %u, %s", r->engine->ops->name, (unsigned)exit,
                 r->vcpu->error ? r->vcpu->error : "no error");
}

/* Names the first field that differs. */
static void compare_states(const struct hsk_cpu_state *a, const struct hsk_cpu_state *b)
{
    const struct hsk_state_desc *d = &hsk_cpu_state_desc;

    for (unsigned i = 0; i < d->nfields; i++) {
        const struct hsk_field *f = &d->fields[i];

        for (unsigned n = 0; n < f->count; n++) {
            const uint8_t *pa = (const uint8_t *)a + f->offset + n * f->elem,
                          *pb = (const uint8_t *)b + f->offset + n * f->elem;

            if (memcmp(pa, pb, f->elem)) {
                uint64_t va = 0, vb = 0;

                memcpy(&va, pa, f->elem);
                memcpy(&vb, pb, f->elem);
                fail_msg("%s[%u]: 0x%llx and 0x%llx", f->name, n, (unsigned long long)va,
                         (unsigned long long)vb);
            }
        }
    }
}

static void final_state(struct rig *r, struct hsk_cpu_state *s)
{
    r->engine->ops->get_state(r->vcpu, s);
    hsk_cpu_state_canonicalise(s);
}

static void compare_rigs(struct rig *a, struct rig *b)
{
    struct hsk_cpu_state sa, sb;

    assert_int_equal(a->port.out->len, b->port.out->len);
    assert_memory_equal(a->port.out->data, b->port.out->data, a->port.out->len);
    final_state(a, &sa);
    final_state(b, &sb);
    compare_states(&sa, &sb);
    for (unsigned i = 0; i < RAM_BYTES; i += 8)
        if (memcmp(a->obj->host + i, b->obj->host + i, 8))
            fail_msg("memory at 0x%x: 0x%llx and 0x%llx", i,
                     (unsigned long long)hsk_get64(a->obj->host + i),
                     (unsigned long long)hsk_get64(b->obj->host + i));
}

/* Runs the guest; a second engine takes over where it stops in the middle. */
static struct rig *run_guest(const struct hsk_engine_ops *first,
                             const struct hsk_engine_ops *second, bool strict)
{
    struct rig *r = rig_new(first, strict), *next;
    struct hsk_cpu_state s;
    g_autoptr(GError) error = NULL;

    load_guest(r);
    if (!second) {
        run_until(r, HSK_EXIT_HALT);
        return r;
    }
    r->port.stop_vcpu = r->vcpu;
    run_until(r, HSK_EXIT_KICK);
    r->engine->ops->get_state(r->vcpu, &s);
    next = rig_new(second, strict);
    memcpy(next->obj->host, r->obj->host, RAM_BYTES);
    next->port.input = r->port.input;
    g_byte_array_append(next->port.out, r->port.out->data, r->port.out->len);
    if (!next->engine->ops->set_state(next->vcpu, &s, &error))
        fail_msg("%s", error->message);
    next->engine->ops->flush(next->engine, HSK_FLUSH_TLB | HSK_FLUSH_CODE | HSK_FLUSH_WRITES);
    rig_free(r);
    run_until(next, HSK_EXIT_HALT);
    return next;
}

static void both_engines_agree(void **state)
{
    struct rig *soft = run_guest(&hsk_engine_soft_ops, NULL, false);
    struct rig *kvm = run_guest(&hsk_engine_kvm_ops, NULL, false);

    assert_int_equal(hsk_get64(soft->obj->host + 0x230000), 55); /* fib(10): it did run */
    assert_int_equal(soft->port.out->len, 24);
    compare_rigs(soft, kvm);
    rig_free(soft);
    rig_free(kvm);
}

static void strict_mode_agrees(void **state)
{
    struct rig *a = run_guest(&hsk_engine_soft_ops, NULL, false);
    struct rig *b = run_guest(&hsk_engine_soft_ops, NULL, true);

    compare_rigs(a, b);
    rig_free(a);
    rig_free(b);
}

static void a_guest_can_change_the_engine(void **state)
{
    struct rig *plain = run_guest(&hsk_engine_soft_ops, NULL, false);
    struct rig *there = run_guest(&hsk_engine_soft_ops, &hsk_engine_kvm_ops, false);
    struct rig *back = run_guest(&hsk_engine_kvm_ops, &hsk_engine_soft_ops, false);

    compare_rigs(plain, there);
    compare_rigs(plain, back);
    rig_free(plain);
    rig_free(there);
    rig_free(back);
}

/* What a machine does whose guest shuts its processor down: the same vCPU begins anew. */
static void a_vcpu_begins_anew_after_a_triple_fault(void **state)
{
    const struct hsk_engine_ops *const engines[] = {&hsk_engine_soft_ops, &hsk_engine_kvm_ops};
    struct rig *plain = run_guest(&hsk_engine_soft_ops, NULL, false);

    for (unsigned e = 0; e < 2; e++) {
        struct rig *r = rig_new(engines[e], false);

        for (unsigned round = 0; round < 3; round++) {
            struct hsk_cpu_state s;
            g_autoptr(GError) error = NULL;

            load_guest(r);
            hsk_put16(r->obj->host + CODE, 0x0b0f); /* UD2, without an IDT */
            r->engine->ops->get_state(r->vcpu, &s);
            s.idtr.limit = 0;
            assert_true(r->engine->ops->set_state(r->vcpu, &s, &error));
            r->engine->ops->flush(r->engine, HSK_FLUSH_CODE);
            run_until(r, HSK_EXIT_SHUTDOWN);
            run_until(r, HSK_EXIT_SHUTDOWN); /* and stays so */
        }
        memset(r->obj->host, 0, RAM_BYTES);
        load_guest(r);
        run_until(r, HSK_EXIT_HALT);
        compare_rigs(plain, r);
        rig_free(r);
    }
    rig_free(plain);
}

static void state_survives_set_and_get(void **state)
{
    const struct hsk_engine_ops *const engines[] = {&hsk_engine_soft_ops, &hsk_engine_kvm_ops};

    for (unsigned e = 0; e < 2; e++) {
        struct rig *r = rig_new(engines[e], false);
        struct hsk_cpu_state a, b;
        g_autoptr(GError) error = NULL;

        load_guest(r);
        r->engine->ops->get_state(r->vcpu, &a);
        for (unsigned i = 0; i < 16; i++)
            a.gpr[i] = 0x1111111111111111ull * i;
        for (unsigned i = 0; i < 256; i++)
            a.xsave[HSK_XSAVE_XMM0 + i] = (uint8_t)i;
        hsk_put64(a.xsave + HSK_XSAVE_HEADER, HSK_XCR0_SSE);
        hsk_put32(a.xsave + HSK_XSAVE_MXCSR, 0x1fa0);
        a.lstar = 0xffffffff81000000;
        a.star = 0x0023001000000000;
        a.kernel_gs_base = 0xffff888000000000;
        a.pat = 0x0606060606060606;
        a.interrupt_shadow = 1;
        a.rflags |= HSK_FLAG_IF;
        a.nmi_masked = 1;
        a.activity = HSK_ACT_HALTED;
        if (!r->engine->ops->set_state(r->vcpu, &a, &error))
            fail_msg("%s", error->message);
        r->engine->ops->get_state(r->vcpu, &b);
        hsk_cpu_state_canonicalise(&a);
        hsk_cpu_state_canonicalise(&b);
        compare_states(&a, &b);
        rig_free(r);
    }
}

static void dirty_pages_are_found(void **state)
{
    const struct hsk_engine_ops *const engines[] = {&hsk_engine_soft_ops, &hsk_engine_kvm_ops};

    for (unsigned e = 0; e < 2; e++) {
        struct rig *r = run_guest(engines[e], NULL, false);

        if (r->engine->ops->dirty_sync)
            r->engine->ops->dirty_sync(r->engine);
        assert_true(r->obj->attr[0x200] & HSK_PAGE_DIRTY);
        assert_true(r->obj->attr[0x211] & HSK_PAGE_DIRTY);
        assert_true(r->obj->attr[0x230] & HSK_PAGE_DIRTY);
        assert_true(r->obj->attr[0x7f] & HSK_PAGE_DIRTY);
        assert_false(r->obj->attr[0x250] & HSK_PAGE_DIRTY);
        assert_false(r->obj->attr[0x300] & HSK_PAGE_DIRTY);
        rig_free(r);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_engines_agree),
        cmocka_unit_test(strict_mode_agrees),
        cmocka_unit_test(a_guest_can_change_the_engine),
        cmocka_unit_test(a_vcpu_begins_anew_after_a_triple_fault),
        cmocka_unit_test(state_survives_set_and_get),
        cmocka_unit_test(dirty_pages_are_found),
    };
    g_autofree char *why = NULL;

    if (!hsk_engine_kvm_ops.probe(&why)) {
        printf("skipped: %s\n", why);
        return 77;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
