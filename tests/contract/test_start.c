/* SPDX-License-Identifier: MIT */
/*
 * Several processors of a machine on each engine: INIT and start-up IPIs through real mode, IPIs in
 * all addressing modes, NMI, a second start, and a machine that is saved while one processor works
 * and one waits, then goes on on the other engine. Integer instructions only: a /dev/kvm without
 * VMX or SVM behind it emulates, and knows no SSE.
 */
#include <vmm/cpu_bits.h>

#include <fake-machine.h>
#include <skip-kvm.h>
#include <unistd.h>

#define NCPUS   3
#define CODE    0x8000u
#define IDT     0x9000u
#define ENTERED 0x10100u /* starts in real mode, all together */
#define STARTED 0x10000u /* per processor, 32 bits each: */
#define PINGS   0x10040u
#define CASTS   0x10080u
#define NMIS    0x100c0u
#define PONGS   0x10200u
#define STAGE   0x10204u /* what the first processor is doing */
#define HOLD    0x10208u /* the test lets it go on */
#define ROUNDS  50

/* Loaded at CODE. rbx is the processor's number, r15 the page of the APICs. */
asm(".pushsection .rodata\n"
    "start_guest:\n"
    ".code16\n"
    "  cli\n mov $0x1000, %ax\n mov %ax, %ds\n lock incl 0x100\n"
    "  xor %ax, %ax\n mov %ax, %ds\n lgdtl start_gdtr - start_guest + 0x8000\n"
    "  mov $0x20, %eax\n mov %eax, %cr4\n mov $0x1000, %eax\n mov %eax, %cr3\n"
    "  mov $0xc0000080, %ecx\n mov $0x100, %eax\n xor %edx, %edx\n wrmsr\n"
    "  mov $0x80000011, %eax\n mov %eax, %cr0\n ljmpl $8, $(start_64 - start_guest + 0x8000)\n"
    ".code64\n"
    "start_64:\n"
    "  mov $0x10, %eax\n mov %eax, %ds\n mov %eax, %es\n mov %eax, %ss\n"
    "  mov $(1f - start_guest + 0x8000), %edi\n jmp start_init\n"
    "1: sti\n hlt\n jmp 1b\n"
    "start_init:\n" /* there is no stack yet */
    "  mov $0xfee00000, %r15d\n mov 0x20(%r15), %ebx\n shr $24, %ebx\n"
    "  mov %ebx, %eax\n shl $12, %eax\n lea 0x20ff0(%rax), %rsp\n"
    "  lidt start_idtr - start_guest + 0x8000\n"
    "  movl $0x1ff, 0xf0(%r15)\n"
    "  mov %ebx, %ecx\n mov $0x1000000, %eax\n shl %cl, %eax\n mov %eax, 0xd0(%r15)\n"
    "  lock incl 0x10000(,%rbx,4)\n jmp *%rdi\n"
    ".balign 16\n"
    "start_ping:\n"
    "  lock incl 0x10040(,%rbx,4)\n movl $0, 0xb0(%r15)\n"
    "  movl $0, 0x310(%r15)\n movl $0x42, 0x300(%r15)\n iretq\n"
    ".balign 16\n"
    "start_pong:\n"
    "  lock incl 0x10200\n movl $0, 0xb0(%r15)\n iretq\n"
    ".balign 16\n"
    "start_cast:\n"
    "  lock incl 0x10080(,%rbx,4)\n movl $0, 0xb0(%r15)\n iretq\n"
    ".balign 16\n"
    "start_nmi:\n"
    "  lock incl 0x100c0(,%rbx,4)\n iretq\n"
    /* the first processor */
    ".balign 16\n"
    "start_first:\n"
    "  mov $(0f - start_guest + 0x8000), %edi\n jmp start_init\n"
    "0: sti\n pause\n cmpl $0, 0x10208\n je 0b\n"
    "  movl $1, 0x10204\n movl $0xc4500, 0x300(%r15)\n movl $0xc4608, 0x300(%r15)\n movl $0xc4608, "
    "0x300(%r15)\n"
    "1: pause\n cmpl $1, 0x10004\n jne 1b\n cmpl $1, 0x10008\n jne 1b\n"
    "  movl $2, 0x10204\n mov $50, %ebp\n xor %edx, %edx\n"
    "2: mov $1, %esi\n"
    "3: mov %esi, %eax\n shl $24, %eax\n mov %eax, 0x310(%r15)\n movl $0x40, 0x300(%r15)\n inc "
    "%edx\n"
    "4: pause\n cmp %edx, 0x10200\n jne 4b\n inc %esi\n cmp $3, %esi\n jne 3b\n dec %ebp\n jnz 2b\n"
    "  movl $3, 0x10204\n movl $0xc0041, 0x300(%r15)\n" /* all but this */
    "5: pause\n cmpl $1, 0x10084\n jne 5b\n cmpl $1, 0x10088\n jne 5b\n"
    "  movl $4, 0x10204\n movl $0x06000000, 0x310(%r15)\n movl $0x841, 0x300(%r15)\n" /* logical: 1
                                                                                         and 2 */
    "6: pause\n cmpl $2, 0x10084\n jne 6b\n cmpl $2, 0x10088\n jne 6b\n"
    "  movl $5, 0x10204\n movl $0x941, 0x300(%r15)\n" /* lowest priority: one of them */
    "7: pause\n mov 0x10084, %eax\n add 0x10088, %eax\n cmp $5, %eax\n jne 7b\n"
    "  movl $6, 0x10204\n movl $0x80041, 0x300(%r15)\n" /* all, this too */
    "8: pause\n mov 0x10080, %eax\n add 0x10084, %eax\n add 0x10088, %eax\n cmp $8, %eax\n jne 8b\n"
    "  movl $7, 0x10204\n movl $0x01000000, 0x310(%r15)\n movl $0x4400, 0x300(%r15)\n"
    "9: pause\n cmpl $1, 0x100c4\n jne 9b\n"
    "  movl $8, 0x10204\n movl $0x4500, 0x300(%r15)\n"
    "  movl $0x02000000, 0x310(%r15)\n movl $0x4608, 0x300(%r15)\n" /* one that runs does not start
                                                                       again */
    "10: pause\n cmpl $2, 0x10208\n jne 10b\n"
    "  movl $0x01000000, 0x310(%r15)\n movl $0x4608, 0x300(%r15)\n"
    "11: pause\n cmpl $2, 0x10004\n jne 11b\n movl $9, 0x10204\n"
    "12: hlt\n jmp 12b\n"
    ".balign 8\n"
    "start_gdt: .quad 0, 0x00af9b000000ffff, 0x00cf93000000ffff\n"
    "start_gdtr: .word 0x17\n .long start_gdt - start_guest + 0x8000\n"
    "start_idtr: .word 0x7ff\n .quad 0x9000\n"
    "start_guest_end:\n"
    ".popsection\n");
extern const uint8_t start_guest[], start_ping[], start_pong[], start_cast[], start_nmi[],
    start_first[], start_gdt[], start_guest_end[];

static uint32_t address_of(const uint8_t *label)
{
    return CODE + (uint32_t)(label - start_guest);
}

static uint32_t word(struct hsk_machine *m, uint64_t at)
{
    return __atomic_load_n((uint32_t *)(void *)(hsk_machine_memobj(m, "ram")->host + at),
                           __ATOMIC_ACQUIRE);
}

static void set_word(struct hsk_machine *m, uint64_t at, uint32_t value)
{
    __atomic_store_n((uint32_t *)(void *)(hsk_machine_memobj(m, "ram")->host + at), value,
                     __ATOMIC_RELEASE);
}

static void put_gate(struct hsk_machine *m, unsigned vector, const uint8_t *handler)
{
    uint8_t *d = hsk_machine_memobj(m, "ram")->host + IDT + 16 * vector;

    hsk_put32(d, 8u << 16 | address_of(handler));
    hsk_put32(d + 4, 0x8e00);
}

static void on_event(void *opaque, enum hsk_event_kind kind, uint64_t value, const char *text)
{
    fprintf(stderr, "the machine stopped: %s\n", text ? text : "?");
    _exit(1); /* its clock stands: nobody would come out of the loop */
}

static struct hsk_machine *make(const struct hsk_engine_ops *engine)
{
    struct hsk_machine_config cfg = fake_config();

    cfg.engine = engine;
    cfg.ncpus = NCPUS;
    cfg.tsc_hz = 0;
    cfg.event = on_event;
    return fake_machine_from(&cfg);
}

static void load_guest(struct hsk_machine *m)
{
    const struct hsk_engine_ops *ops = hsk_machine_engine(m)->ops;
    struct hsk_cpu_state s __attribute__((aligned(64)));
    uint8_t *ram = hsk_machine_memobj(m, "ram")->host;
    g_autoptr(GError) error = NULL;

    hsk_put64(ram + 0x1000, 0x2003); /* the first 2 MiB and the APICs' page, one to one */
    hsk_put64(ram + 0x2000, 0x3003);
    hsk_put64(ram + 0x2018, 0x4003);
    hsk_put64(ram + 0x3000, 0x000083);
    hsk_put64(ram + 0x4fb8, 0xfee00093);
    memcpy(ram + CODE, start_guest, (size_t)(start_guest_end - start_guest));
    put_gate(m, 2, start_nmi);
    put_gate(m, 0x40, start_ping);
    put_gate(m, 0x41, start_cast);
    put_gate(m, 0x42, start_pong);
    ops->get_state(hsk_machine_vcpu(m, 0), &s);
    s.cr0 = HSK_CR0_PE | HSK_CR0_ET | HSK_CR0_PG;
    s.cr3 = 0x1000;
    s.cr4 = HSK_CR4_PAE;
    s.efer = HSK_EFER_LME | HSK_EFER_LMA;
    s.gdtr = (struct hsk_dtable){address_of(start_gdt), 0x17};
    for (unsigned i = HSK_ES; i <= HSK_GS; i++)
        s.seg[i] = (struct hsk_segment){.limit = 0xffffffff, .selector = 0x10, .attr = 0xc093};
    s.seg[HSK_CS] = (struct hsk_segment){.limit = 0xffffffff, .selector = 8, .attr = 0xa09b};
    s.seg[HSK_TR] = (struct hsk_segment){.limit = 0x67, .attr = 0x8b};
    s.rip = address_of(start_first);
    if (!ops->set_state(hsk_machine_vcpu(m, 0), &s, &error))
        fail_msg("%s", error->message);
}

/* Until the first processor has come so far. */
static void runs_to(struct hsk_machine *m, uint32_t stage)
{
    for (unsigned i = 0; i < 6000 && word(m, STAGE) < stage; i++)
        run_until_ns(m, hsk_clock_ns(hsk_machine_clock(m)) + 10000000);
    assert_int_equal(word(m, STAGE), stage);
}

static uint32_t activity(struct hsk_machine *m, unsigned index)
{
    struct hsk_cpu_state s __attribute__((aligned(64)));

    hsk_machine_engine(m)->ops->get_state(hsk_machine_vcpu(m, index), &s);
    return s.activity;
}

/* A machine of that engine with memory and state of another, which goes. */
static struct hsk_machine *moved(const struct hsk_engine_ops *engine, struct hsk_machine *from)
{
    struct hsk_machine *m = make(engine);
    const struct hsk_memobj *ram = hsk_machine_memobj(from, "ram");
    g_autoptr(GBytes) saved = hsk_machine_save(from);
    g_autoptr(GError) error = NULL;

    memcpy(hsk_machine_memobj(m, "ram")->host, ram->host, ram->size_bytes);
    if (!hsk_machine_load(m, saved, &error))
        fail_msg("%s", error->message);
    hsk_machine_free(from);
    return m;
}

static void starts_and_talks(const struct hsk_engine_ops *first,
                             const struct hsk_engine_ops *second)
{
    struct hsk_machine *m = make(first);

    load_guest(m);
    run_until_ns(m, 1000000);
    assert_int_equal(activity(m, 1), HSK_ACT_WAIT_SIPI); /* before any INIT */
    m = moved(second, m);
    assert_int_equal(activity(m, 2), HSK_ACT_WAIT_SIPI);
    set_word(m, HOLD, 1);
    runs_to(m, 8);
    run_until_ns(m, hsk_clock_ns(hsk_machine_clock(m)) + 10000000);
    assert_int_equal(word(m, ENTERED), NCPUS - 1);
    assert_int_equal(word(m, STARTED), 1);
    assert_int_equal(word(m, STARTED + 4), 1);
    assert_int_equal(word(m, STARTED + 8), 1);
    assert_int_equal(word(m, PINGS + 4), ROUNDS);
    assert_int_equal(word(m, PINGS + 8), ROUNDS);
    assert_int_equal(word(m, PONGS), 2 * ROUNDS);
    assert_int_equal(word(m, CASTS), 1);
    assert_int_equal(word(m, CASTS + 4) + word(m, CASTS + 8), 7);
    assert_int_equal(word(m, NMIS + 4), 1);
    assert_int_equal(word(m, NMIS) + word(m, NMIS + 8), 0);
    assert_int_equal(activity(m, 1), HSK_ACT_WAIT_SIPI); /* after its INIT */
    assert_int_equal(activity(m, 2), HSK_ACT_HALTED);
    m = moved(first, m);
    set_word(m, HOLD, 2);
    runs_to(m, 9);
    assert_int_equal(word(m, ENTERED), NCPUS);
    assert_int_equal(word(m, STARTED + 4), 2);
    assert_int_equal(word(m, STARTED + 8), 1);
    hsk_machine_free(m);
}

static void starts_again_after_a_reset(const struct hsk_engine_ops *engine)
{
    struct hsk_machine *m = make(engine);

    for (unsigned i = 0; i < 2; i++) {
        memset(hsk_machine_memobj(m, "ram")->host + STARTED, 0, HSK_PAGE_SIZE);
        hsk_machine_reset(m); /* the second time while one halts and one waits */
        load_guest(m);
        set_word(m, HOLD, 1);
        assert_int_equal(activity(m, 1), HSK_ACT_WAIT_SIPI);
        assert_int_equal(activity(m, 2), HSK_ACT_WAIT_SIPI);
        runs_to(m, 8);
        assert_int_equal(word(m, ENTERED), NCPUS - 1);
    }
    hsk_machine_free(m);
}

static void on_the_software_engine(void **state)
{
    starts_and_talks(&hsk_engine_soft_ops, &hsk_engine_soft_ops);
    starts_again_after_a_reset(&hsk_engine_soft_ops);
}

static void on_kvm(void **state)
{
    skip_without_kvm();
    starts_and_talks(&hsk_engine_kvm_ops, &hsk_engine_kvm_ops);
    starts_again_after_a_reset(&hsk_engine_kvm_ops);
}

static void from_software_to_kvm_and_back(void **state)
{
    skip_without_kvm();
    starts_and_talks(&hsk_engine_soft_ops, &hsk_engine_kvm_ops);
}

static void from_kvm_to_software_and_back(void **state)
{
    skip_without_kvm();
    starts_and_talks(&hsk_engine_kvm_ops, &hsk_engine_soft_ops);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(on_the_software_engine),
        cmocka_unit_test(on_kvm),
        cmocka_unit_test(from_software_to_kvm_and_back),
        cmocka_unit_test(from_kvm_to_software_and_back),
    };

    alarm(300);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
