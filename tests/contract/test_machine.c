/* SPDX-License-Identifier: MIT */
/*
 * A whole machine on each engine: what was saved loads, saves the same bytes again and goes on, on
 * the same engine and on the other one. A guest of our own runs meanwhile: it counts in registers
 * and memory, and its APIC timer interrupts it. Integer instructions only: a /dev/kvm without VMX
 * or SVM behind it emulates, and knows no SSE.
 */
#include <vmm/cpu_bits.h>

#include <device-ops.h>
#include <fake-machine.h>
#include <skip-kvm.h>
#include <sys/mman.h>

#define CODE 0x100000u
#define LOOPS                                                                                      \
    0x200000u /* 64 bits each: how often the guest went round, and how often it was interrupted */
#define TICKS  0x200008u
#define VECTOR 0x40

asm(".pushsection .rodata\n"
    "machine_guest:\n"
    "  mov $0xfee00000, %ebx\n movl $0x1ff, 0xf0(%rbx)\n movl $0xb, 0x3e0(%rbx)\n movl $0x20040, "
    "0x320(%rbx)\n"
    "  movl $1000000, 0x380(%rbx)\n" /* periodic */
    "  mov $0x200000, %esi\n mov $0x123456789abcdef0, %r15\n mov $0x80000, %esp\n sti\n"
    "1: inc %r8\n mov %r8, (%rsi)\n add %r8, %r9\n rol $3, %r9\n xor %r9, %r15\n push %r9\n pop "
    "%r10\n jmp 1b\n"
    ".balign 16\n"
    "machine_guest_tick:\n"
    "  incq 8(%rsi)\n movl $0, 0xb0(%rbx)\n iretq\n"
    "machine_guest_end:\n"
    ".popsection\n");
extern const uint8_t machine_guest[], machine_guest_tick[], machine_guest_end[];

static struct hsk_machine *make(const struct hsk_engine_ops *engine)
{
    g_autoptr(GError) error = NULL;
    struct hsk_machine_config cfg = fake_config();
    int fd = memfd_create("disk", MFD_CLOEXEC);

    assert_int_equal(ftruncate(fd, 1 << 20), 0);
    cfg.engine = engine;
    cfg.ncpus = 1;
    cfg.tsc_hz = 0;
    cfg.vram_bytes = 16u << 20;
    cfg.disks[0].block = hsk_block_rawfile_new(fd, false, &error);
    assert_non_null(cfg.disks[0].block);
    cfg.ndisks = 1;
    return fake_machine_from(&cfg);
}

static uint64_t word(struct hsk_machine *m, uint64_t at)
{
    return hsk_get64(hsk_machine_memobj(m, "ram")->host + at);
}

static void get_cpu(struct hsk_machine *m, struct hsk_cpu_state *s)
{
    hsk_machine_engine(m)->ops->get_state(hsk_machine_vcpu(m, 0), s);
}

static void set_cpu(struct hsk_machine *m, const struct hsk_cpu_state *s)
{
    g_autoptr(GError) error = NULL;

    if (!hsk_machine_engine(m)->ops->set_state(hsk_machine_vcpu(m, 0), s, &error))
        fail_msg("%s", error->message);
}

/* 64-bit mode; mapped one to one: the first 4 MiB and the APIC's page. */
static void load_guest(struct hsk_machine *m)
{
    struct hsk_cpu_state s __attribute__((aligned(64)));
    uint8_t *ram = hsk_machine_memobj(m, "ram")->host;
    const uint64_t tick = CODE + (uint64_t)(machine_guest_tick - machine_guest);

    hsk_put64(ram + 0x1000, 0x2003);
    hsk_put64(ram + 0x2000, 0x3003);
    hsk_put64(ram + 0x2018, 0x4003);
    hsk_put64(ram + 0x3000, 0x000083);
    hsk_put64(ram + 0x3008, 0x200083);
    hsk_put64(ram + 0x4fb8, 0xfee00093);
    hsk_put64(ram + 0x6008, 0x00af9b000000ffff);
    hsk_put64(ram + 0x6010, 0x00cf93000000ffff);
    hsk_put64(ram + 0x7000 + 16 * VECTOR,
              (tick & 0xffff) | 8u << 16 | 0x8eull << 40 | (tick >> 16) << 48);
    memcpy(ram + CODE, machine_guest, (size_t)(machine_guest_end - machine_guest));
    get_cpu(m, &s);
    s.cr0 = HSK_CR0_PE | HSK_CR0_ET | HSK_CR0_NE | HSK_CR0_WP | HSK_CR0_PG;
    s.cr3 = 0x1000;
    s.cr4 = HSK_CR4_PAE;
    s.efer = HSK_EFER_LME | HSK_EFER_LMA;
    s.gdtr = (struct hsk_dtable){0x6000, 0x17};
    s.idtr = (struct hsk_dtable){0x7000, 0x7ff};
    for (unsigned i = HSK_ES; i <= HSK_GS; i++)
        s.seg[i] = (struct hsk_segment){.limit = 0xffffffff, .selector = 0x10, .attr = 0xc093};
    s.seg[HSK_CS] = (struct hsk_segment){.limit = 0xffffffff, .selector = 8, .attr = 0xa09b};
    s.seg[HSK_TR] = (struct hsk_segment){.limit = 0x67, .attr = 0x8b};
    s.rip = CODE;
    set_cpu(m, &s);
    hsk_machine_engine(m)->ops->flush(hsk_machine_engine(m),
                                      HSK_FLUSH_TLB | HSK_FLUSH_CODE | HSK_FLUSH_WRITES);
}

/* Until the guest went round and was interrupted again: that it lives. */
static void runs_on(struct hsk_machine *m)
{
    const uint64_t loops = word(m, LOOPS), ticks = word(m, TICKS);

    for (unsigned i = 0; i < 3000 && (word(m, LOOPS) <= loops || word(m, TICKS) <= ticks + 1); i++)
        run_until_ns(m, hsk_clock_ns(hsk_machine_clock(m)) + 10000000);
    assert_true(word(m, LOOPS) > loops);
    assert_true(word(m, TICKS) > ticks + 1);
}

/* The same bytes in all sections, or the name of what differs. Engines code some of a processor's
 * parts differently. */
static void assert_same(struct hsk_machine *a, struct hsk_machine *b, GBytes *saved)
{
    const bool one_engine = hsk_machine_engine(a)->ops == hsk_machine_engine(b)->ops;
    g_autoptr(GBytes) again = hsk_machine_save(b);
    struct hsk_cpu_state s __attribute__((aligned(64))), t __attribute__((aligned(64)));
    const struct hsk_state_desc *d = &hsk_cpu_state_desc;

    if (g_bytes_equal(saved, again))
        return;
    for (unsigned i = 0; i < hsk_machine_ndevs(a); i++) {
        g_autoptr(GBytes) x = device_save(hsk_machine_dev(a, i)),
                          y = device_save(hsk_machine_dev(b, i));

        if (!g_bytes_equal(x, y))
            fail_msg("%s saves other bytes than it loaded", hsk_machine_dev(a, i)->id);
    }
    get_cpu(a, &s);
    get_cpu(b, &t);
    if (!one_engine) {
        hsk_cpu_state_canonicalise(&s);
        hsk_cpu_state_canonicalise(&t);
    }
    for (unsigned i = 0; i < d->nfields; i++) {
        const size_t at = d->fields[i].offset,
                     bytes = (size_t)d->fields[i].elem * d->fields[i].count;

        if (memcmp((char *)&s + at, (char *)&t + at, bytes))
            fail_msg("the processor's %s is not what was loaded", d->fields[i].name);
    }
    if (one_engine)
        fail_msg("the clock saves other bytes than it loaded");
}

/* A machine of that engine with memory and state of another. */
static struct hsk_machine *loaded(const struct hsk_engine_ops *engine, struct hsk_machine *from,
                                  GBytes *saved)
{
    struct hsk_machine *m = make(engine);
    const struct hsk_memobj *ram = hsk_machine_memobj(from, "ram");
    g_autoptr(GError) error = NULL;

    memcpy(hsk_machine_memobj(m, "ram")->host, ram->host, ram->size_bytes);
    if (!hsk_machine_load(m, saved, &error))
        fail_msg("%s", error->message);
    return m;
}

static void saves_what_it_loaded(const struct hsk_engine_ops *first,
                                 const struct hsk_engine_ops *second)
{
    struct hsk_machine *a = make(first), *b;
    g_autoptr(GBytes) saved = NULL, twice = NULL;

    load_guest(a);
    runs_on(a);
    saved = hsk_machine_save(a);
    twice = hsk_machine_save(a);
    assert_true(g_bytes_equal(saved, twice));
    b = loaded(second, a, saved);
    assert_same(a, b, saved);
    runs_on(b);
    runs_on(a); /* saving and loading left it as it was */
    hsk_machine_free(a);
    hsk_machine_free(b);
}

/* Devices in states that a guest can bring them into, beside a processor that stands still. */
static void saves_stirred_devices(const struct hsk_engine_ops *engine)
{
    enum { BYTES = 4000 };
    struct hsk_cpu_state s __attribute__((aligned(64)));
    uint8_t bytes[BYTES];

    for (unsigned seed = 1; seed <= 3; seed++) {
        struct hsk_machine *a = make(engine), *b;
        g_autoptr(GRand) rand = g_rand_new_with_seed(seed);
        g_autoptr(GBytes) saved = NULL;

        get_cpu(a, &s);
        s.activity = HSK_ACT_HALTED;
        set_cpu(a, &s);
        for (unsigned i = 0; i < BYTES; i++)
            bytes[i] = (uint8_t)g_rand_int(rand);
        device_ops_run(a, bytes, BYTES);
        saved = hsk_machine_save(a);
        b = loaded(engine, a, saved);
        assert_same(a, b, saved);
        hsk_machine_free(a);
        hsk_machine_free(b);
    }
}

static void software_saves_what_it_loaded(void **state)
{
    saves_what_it_loaded(&hsk_engine_soft_ops, &hsk_engine_soft_ops);
    saves_stirred_devices(&hsk_engine_soft_ops);
}

static void kvm_saves_what_it_loaded(void **state)
{
    skip_without_kvm();
    saves_what_it_loaded(&hsk_engine_kvm_ops, &hsk_engine_kvm_ops);
    saves_stirred_devices(&hsk_engine_kvm_ops);
}

static void kvm_goes_on_with_what_software_saved(void **state)
{
    skip_without_kvm();
    saves_what_it_loaded(&hsk_engine_soft_ops, &hsk_engine_kvm_ops);
}

static void software_goes_on_with_what_kvm_saved(void **state)
{
    skip_without_kvm();
    saves_what_it_loaded(&hsk_engine_kvm_ops, &hsk_engine_soft_ops);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(software_saves_what_it_loaded),
        cmocka_unit_test(kvm_saves_what_it_loaded),
        cmocka_unit_test(kvm_goes_on_with_what_software_saved),
        cmocka_unit_test(software_goes_on_with_what_kvm_saved),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
