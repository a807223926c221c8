/* SPDX-License-Identifier: MIT */
/*
 * A processor with 4 MiB of memory and nothing else, for tests of its modes: each case sets the
 * state and the tables, runs a few bytes of guest code and looks at the state, the stack and the
 * tables afterwards. Every vector ends in a HLT of its own. What is expected is written from the
 * Intel SDM, not from an engine. One thread.
 */
#pragma once

#include <vmm/cpu_bits.h>
#include <vmm/engine.h>

#include <cpuid.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define CODE(name, bits, text)                                                                     \
    extern const uint8_t name[], name##_end[];                                                     \
    __asm__(".pushsection .rodata\n" #name ":\n.code" #bits "\n" text "\n.code64\n" #name          \
            "_end:\n.popsection\n")
#define CODE16(name, text) CODE(name, 16, text)
#define CODE32(name, text) CODE(name, 32, text)
#define CODE64(name, text) CODE(name, 64, text)

#define RAM_BYTES (4u << 20)
enum {
    AT_IVT = 0,
    AT_CR3 = 0x1000,
    AT_PT = 0x2000,
    AT_PDPT = 0x3000,
    AT_GDT = 0x6000,
    AT_IDT = 0x7000,
    AT_TSS = 0x8000,
    AT_TSS_B = 0x9000,
    AT_TSS_C = 0xa000,
    AT_LDT = 0xb000,
    AT_CODE = 0x20000,
    AT_DATA = 0x30000,
    AT_STACK = 0x40000,
    AT_INNER = 0x48000,
    AT_TRAPS = 0x50000,
};
/* The GDT; what a case needs beside it goes to SEL_FREE and behind. */
enum {
    SEL_CODE = 0x08,
    SEL_DATA = 0x10,
    SEL_UCODE = 0x1b,
    SEL_UDATA = 0x23,
    SEL_TSS = 0x28,
    SEL_TSS_B = 0x30,
    SEL_TSS_C = 0x38,
    SEL_LDT = 0x40,
    SEL_CODE64 = 0x48,
    SEL_UCODE64 = 0x53,
    SEL_FREE = 0x58,
    GDT_LIMIT = 0xff,
};
#define FLAT_CODE   0x00cf9b000000ffffull
#define FLAT_DATA   0x00cf93000000ffffull
#define FLAT_UCODE  0x00cffb000000ffffull
#define FLAT_UDATA  0x00cff3000000ffffull
#define FLAT_CODE64 0x00af9b000000ffffull

enum { TOP = 0x8000 }; /* ESP at the start */

/*
 * A row that KVM is not held to, and why: KVM itself does otherwise, or AMD's processors do, or
 * QEMU's translator, which can be a processor with SVM for KVM to run on.
 */
enum { KVM_DOES = 1, AMD_DOES = 2, QEMU_DOES = 4 };
#define QEMU_NO_LIMITS "it knows no segment limits"
struct difference {
    const char *name;
    unsigned who;
    const char *why;
};

struct rig {
    const struct hsk_engine_ops *ops;
    const struct difference *differences; /* ends with a name NULL */
    jmp_buf *next;                        /* where a row that fails goes on */
    unsigned compared, left_out, failed;
    bool spent; /* it shut down or failed: KVM's does not always run again */
    struct hsk_memobj *obj;
    uint8_t *mem;
    struct hsk_ram *ram;
    struct hsk_bus *pio, *mmio;
    struct hsk_clock *clock;
    struct hsk_cpuid cpuid;
    struct hsk_engine *engine;
    struct hsk_vcpu *vcpu;
    struct hsk_cpu_state s;
};

static inline uint64_t descriptor(uint32_t base, uint32_t limit, unsigned attr)
{
    return (limit & 0xffff) | (uint64_t)(base & 0xffffff) << 16 | (uint64_t)(attr & 0xf0ff) << 40 |
           (uint64_t)(limit >> 16 & 15) << 48 | (uint64_t)(base >> 24) << 56;
}
/* type: the access byte; params: of a call gate */
static inline uint64_t gate(unsigned sel, uint32_t offset, unsigned type, unsigned params)
{
    return (offset & 0xffff) | (uint64_t)sel << 16 | (uint64_t)params << 32 | (uint64_t)type << 40 |
           (uint64_t)(offset >> 16) << 48;
}

static inline void put_desc(struct rig *r, unsigned sel, uint64_t d)
{
    hsk_put64(r->mem + AT_GDT + (sel & ~7u), d);
}
static inline uint64_t get_desc(const struct rig *r, unsigned sel)
{
    return hsk_get64(r->mem + AT_GDT + (sel & ~7u));
}
static inline struct hsk_segment segment(uint64_t d, unsigned sel)
{
    const uint16_t attr = d >> 40 & 0xf0ff;
    const uint32_t limit = (d & 0xffff) | (d >> 32 & 0xf0000);

    return (struct hsk_segment){.base = (d >> 16 & 0xffffff) | (d >> 32 & 0xff000000),
                                .selector = (uint16_t)sel,
                                .attr = attr,
                                .limit = attr & HSK_SEG_G ? limit << 12 | 0xfff : limit};
}

/* A row that fails does not end the table: they are told all. */
#define FAILS(r, ...)                                                                              \
    do {                                                                                           \
        if (!(r)->next)                                                                            \
            fail_msg(__VA_ARGS__);                                                                 \
        print_error(__VA_ARGS__);                                                                  \
        print_error("\n");                                                                         \
        longjmp(*(r)->next, 1);                                                                    \
    } while (0)

/* Whose ways the processor has that KVM runs on. */
static inline unsigned kvm_host(void)
{
    unsigned a, b, c, d, who = KVM_DOES;

    __cpuid(0, a, b, c, d);
    if (b == signature_AMD_ebx)
        who |= AMD_DOES;
    __cpuid(0x40000000, a, b, c, d);
    if (b == 0x54474354 && c == 0x43544743) /* TCGTCGTCGTCG */
        who |= QEMU_DOES;
    return who;
}

static inline void processor_new(struct rig *r, bool strict)
{
    const struct hsk_engine_config cfg = {.ram = r->ram,
                                          .pio = r->pio,
                                          .mmio = r->mmio,
                                          .clock = r->clock,
                                          .cpuid = &r->cpuid,
                                          .ncpus = 1,
                                          .strict = strict};
    g_autoptr(GError) error = NULL;

    r->engine = r->ops->engine_new(&cfg, &error);
    if (!r->engine)
        fail_msg("%s", error->message);
    r->vcpu = r->ops->vcpu_new(r->engine, &(struct hsk_vcpu_config){0}, &error);
    if (!r->vcpu)
        fail_msg("%s", error->message);
    r->ops->thread_begin(r->vcpu);
}

static inline void processor_free(struct rig *r)
{
    r->ops->thread_end(r->vcpu);
    r->ops->vcpu_free(r->vcpu);
    r->ops->engine_free(r->engine);
}

static inline void rig_new(struct rig *r, const struct hsk_engine_ops *ops, bool strict)
{
    memset(r, 0, sizeof(*r));
    r->ops = ops;
    r->obj = hsk_memobj_new("ram", RAM_BYTES, NULL);
    r->mem = r->obj->host;
    r->ram = hsk_ram_new();
    assert_true(
        hsk_ram_map_add(r->ram, &(struct hsk_ram_region){.size_bytes = RAM_BYTES, .obj = r->obj}));
    r->pio = hsk_bus_new("pio");
    r->mmio = hsk_bus_new("mmio");
    r->clock = hsk_clock_new(0);
    assert_true(hsk_cpuid_build(
        &r->cpuid,
        ops == &hsk_engine_kvm_ops && (kvm_host() & QEMU_DOES) ? "v2,-vme,-xsavec" : "v2", 1,
        hsk_clock_tsc_hz(r->clock), NULL));
    processor_new(r, strict);
    hsk_clock_start(r->clock);
}

static inline void rig_free(struct rig *r)
{
    processor_free(r);
    hsk_bus_free(r->pio);
    hsk_bus_free(r->mmio);
    hsk_ram_free(r->ram);
    hsk_memobj_free(r->obj);
    hsk_clock_free(r->clock);
}

static inline void put_code(struct rig *r, const uint8_t *code, const uint8_t *end)
{
    memcpy(r->mem + AT_CODE, code, (size_t)(end - code));
}

/* Real mode: CS = 2000, DS = ES = FS = GS = 3000, SS = 4000; vectors at 0, each a HLT. */
static inline void real_mode(struct rig *r)
{
    static const uint32_t at[] = {[HSK_ES] = AT_DATA, [HSK_CS] = AT_CODE, [HSK_SS] = AT_STACK,
                                  [HSK_DS] = AT_DATA, [HSK_FS] = AT_DATA, [HSK_GS] = AT_DATA};

    memset(r->mem, 0, RAM_BYTES);
    hsk_cpu_state_reset(&r->s, 0);
    r->s.cr0 = HSK_CR0_ET;
    for (unsigned i = HSK_ES; i <= HSK_GS; i++)
        r->s.seg[i] = (struct hsk_segment){.base = at[i],
                                           .limit = 0xffff,
                                           .selector = (uint16_t)(at[i] >> 4),
                                           .attr = i == HSK_CS ? 0x9b : 0x93};
    r->s.idtr = (struct hsk_dtable){AT_IVT, 0x3ff};
    for (unsigned i = 0; i < 256; i++) {
        hsk_put32(r->mem + AT_IVT + 4 * i, AT_TRAPS << 12 | 16 * i);
        r->mem[AT_TRAPS + 16 * i] = 0xf4;
    }
    r->s.rip = 0;
    r->s.gpr[HSK_RSP] = TOP;
}

/* Protected mode at CPL 0, flat, with GDT, IDT of 32-bit interrupt gates, and three TSSs. */
static inline void protected_mode(struct rig *r)
{
    struct hsk_cpu_state *s = &r->s;

    real_mode(r);
    s->cr0 = HSK_CR0_PE | HSK_CR0_ET | HSK_CR0_NE;
    put_desc(r, SEL_CODE, FLAT_CODE);
    put_desc(r, SEL_DATA, FLAT_DATA);
    put_desc(r, SEL_UCODE, FLAT_UCODE);
    put_desc(r, SEL_UDATA, FLAT_UDATA);
    put_desc(r, SEL_TSS, descriptor(AT_TSS, 0x67, 0x8b));
    put_desc(r, SEL_TSS_B, descriptor(AT_TSS_B, 0x67, 0x89));
    put_desc(r, SEL_TSS_C, descriptor(AT_TSS_C, 0x2b, 0x81));
    put_desc(r, SEL_LDT, descriptor(AT_LDT, 0xff, 0x82));
    put_desc(r, SEL_CODE64, FLAT_CODE64);
    put_desc(r, SEL_UCODE64, FLAT_CODE64 | 0x600000000000);
    for (unsigned i = 0; i < 256; i++)
        hsk_put64(r->mem + AT_IDT + 8 * i, gate(SEL_CODE, AT_TRAPS + 16 * i, 0x8e, 0));
    hsk_put32(r->mem + AT_TSS + 4, AT_INNER + TOP);
    hsk_put16(r->mem + AT_TSS + 8, SEL_DATA);
    hsk_put16(r->mem + AT_TSS + 0x66, 0x68); /* no I/O permission bitmap */
    s->gdtr = (struct hsk_dtable){AT_GDT, GDT_LIMIT};
    s->idtr = (struct hsk_dtable){AT_IDT, 0x7ff};
    for (unsigned i = HSK_ES; i <= HSK_GS; i++)
        s->seg[i] = segment(FLAT_DATA, SEL_DATA);
    s->seg[HSK_CS] = segment(FLAT_CODE, SEL_CODE);
    s->seg[HSK_TR] = segment(get_desc(r, SEL_TSS), SEL_TSS);
    s->seg[HSK_LDTR] = segment(get_desc(r, SEL_LDT), SEL_LDT);
    s->rip = AT_CODE;
    s->gpr[HSK_RSP] = AT_STACK + TOP;
}

static inline void user_ring(struct rig *r)
{
    for (unsigned i = HSK_ES; i <= HSK_GS; i++)
        r->s.seg[i] = segment(FLAT_UDATA, SEL_UDATA);
    r->s.seg[HSK_CS] = segment(FLAT_UCODE, SEL_UCODE);
}

/* An 8086 program with IOPL = 3 under the tables of protected_mode(): segments as in real_mode().
 */
static inline void v86_mode(struct rig *r)
{
    struct hsk_segment real[6];

    real_mode(r);
    memcpy(real, r->s.seg, sizeof(real));
    protected_mode(r);
    memcpy(r->s.seg, real, sizeof(real));
    for (unsigned i = HSK_ES; i <= HSK_GS; i++)
        r->s.seg[i].attr = 0xf3;
    r->s.rflags |= HSK_FLAG_VM | HSK_FLAG_IOPL;
    r->s.rip = 0;
    r->s.gpr[HSK_RSP] = TOP;
}

/* Long mode over the same segments: identity map, 64-bit gates. CS is 64-bit code. */
static inline void long_mode(struct rig *r)
{
    struct hsk_cpu_state *s = &r->s;

    protected_mode(r);
    hsk_put64(r->mem + AT_CR3, AT_PDPT | 7);
    hsk_put64(r->mem + AT_PDPT, AT_PT | 7);
    for (unsigned i = 0; i < 2; i++)
        hsk_put64(r->mem + AT_PT + 8 * i, 0x200000 * i | 0x87);
    memset(r->mem + AT_IDT, 0, 0x1000);
    for (unsigned i = 0; i < 256; i++)
        hsk_put64(r->mem + AT_IDT + 16 * i, gate(SEL_CODE64, AT_TRAPS + 16 * i, 0x8e, 0));
    memset(r->mem + AT_TSS, 0, 0x68);
    hsk_put64(r->mem + AT_TSS + 4, AT_INNER + TOP);
    hsk_put16(r->mem + AT_TSS + 0x66, 0x68);
    s->cr0 |= HSK_CR0_PG | HSK_CR0_WP;
    s->cr3 = AT_CR3;
    s->cr4 = HSK_CR4_PAE;
    s->efer = HSK_EFER_LME | HSK_EFER_LMA | HSK_EFER_NXE | HSK_EFER_SCE;
    s->idtr.limit = 0xfff;
    s->seg[HSK_CS] = segment(FLAT_CODE64, SEL_CODE64);
}

/* Runs until a HLT, or whatever exit is expected. */
static inline void run_to(struct rig *r, const char *name, enum hsk_exit expect)
{
    g_autoptr(GError) error = NULL;
    enum hsk_exit exit;

    if (r->ops == &hsk_engine_kvm_ops && (kvm_host() & QEMU_DOES))
        r->s.seg[HSK_TR].attr &=
            ~2u; /* it ends at a change of rings with the busy type, which it never loads itself */
    if (!r->ops->set_state(r->vcpu, &r->s, &error))
        fail_msg("%s", error->message);
    r->ops->flush(r->engine, HSK_FLUSH_TLB | HSK_FLUSH_CODE | HSK_FLUSH_WRITES);
    exit = r->ops->run(r->vcpu);
    r->ops->get_state(r->vcpu, &r->s);
    r->spent = exit != HSK_EXIT_HALT;
    if (exit != expect)
        FAILS(r, "%s: %s: exit %u at %llx, %s", r->ops->name, name, (unsigned)exit,
              (unsigned long long)r->s.rip, r->vcpu->error ? r->vcpu->error : "no error");
}

/* Which vector's HLT stopped it, or -1: the code's own. */
static inline int vector_of(const struct rig *r)
{
    const uint64_t at = r->s.seg[HSK_CS].base + r->s.rip - 1;

    return at >= AT_TRAPS && at < AT_TRAPS + 0x1000 && (at & 15) == 0 ? (int)(at - AT_TRAPS) / 16
                                                                      : -1;
}

static inline uint64_t linear_sp(const struct rig *r)
{
    const struct hsk_segment *ss = &r->s.seg[HSK_SS];

    if (r->s.efer & HSK_EFER_LMA)
        return r->s.gpr[HSK_RSP];
    return ss->base + (r->s.gpr[HSK_RSP] & (ss->attr & HSK_SEG_DB ? 0xffffffff : 0xffff));
}
/* The n-th value on the stack, of size bytes. */
static inline uint64_t stacked(const struct rig *r, unsigned n, unsigned size)
{
    const uint8_t *p = r->mem + linear_sp(r) + (uint64_t)n * size;

    return size == 8 ? hsk_get64(p) : size == 4 ? hsk_get32(p) : hsk_get16(p);
}

/* QEMU stacks no RF. */
static inline bool no_rf(const struct rig *r, uint64_t got, uint64_t want)
{
    return (got | HSK_FLAG_RF) == want && r->ops == &hsk_engine_kvm_ops && (kvm_host() & QEMU_DOES);
}

#define EXPECT(r, row_, what, value)                                                               \
    do {                                                                                           \
        const uint64_t got_ = (what), want_ = (value);                                             \
        if (got_ != want_ && !no_rf(r, got_, want_))                                               \
            FAILS(r, "%s: %s: %s is 0x%llx, not 0x%llx", (r)->ops->name, row_, #what,              \
                  (unsigned long long)got_, (unsigned long long)want_);                            \
    } while (0)

enum { OWN = -1, SHUTDOWN = -2 };

/* A case: in the mode of the table, some code; where it must end, and what must be true then. */
struct row {
    const char *name;
    const uint8_t *code, *end;
    void (*before)(struct rig *r);
    int vector;
    void (*after)(struct rig *r, const char *name);
};
#define ROW(code, before, vector, after)                                                           \
    {                                                                                              \
#code " " #before, code, code##_end, before, vector, after                                 \
    }

/* Is KVM not held to this row? */
static inline bool leave_out(struct rig *r, const char *name)
{
    for (const struct difference *d = r->differences; d && d->name; d++)
        if (strcmp(d->name, name) == 0 && (d->who & kvm_host())) {
            print_message("left out on KVM: %s: %s\n", name, d->why);
            r->left_out++;
            return true;
        }
    r->compared++;
    return false;
}

CODE32(
    touch,
    "xor %eax, %eax\n1: lock orl $0, (%eax)\nadd $0x1000, %eax\ncmp $0x400000, %eax\njb 1b\nhlt");

/* Else an INT that first touches its table may leave and be injected anew, by a KVM that takes its
 * address for the next one's. */
static inline void touch_memory(struct rig *r)
{
    protected_mode(r);
    put_code(r, touch, touch_end);
    run_to(r, "touch", HSK_EXIT_HALT);
}

typedef void row_fn(struct rig *r, const void *row);

static inline void try_row(struct rig *r, const char *name, row_fn *run, const void *row)
{
    jmp_buf next;

    if (leave_out(r, name))
        return;
    r->next = &next;
    if (setjmp(next))
        r->failed++;
    else
        run(r, row);
    r->next = NULL;
    if (r->spent && r->ops == &hsk_engine_kvm_ops) {
        processor_free(r);
        processor_new(r, false);
        touch_memory(r);
    }
    r->spent = false;
}

static inline void end_of_rows(struct rig *r)
{
    if (r->failed)
        fail_msg("%u rows failed", r->failed);
}

static inline void run_row(struct rig *r, const void *p)
{
    const struct row *row = p;

    put_code(r, row->code, row->end);
    if (row->before)
        row->before(r);
    run_to(r, row->name, row->vector == SHUTDOWN ? HSK_EXIT_SHUTDOWN : HSK_EXIT_HALT);
    if (row->vector != SHUTDOWN)
        EXPECT(r, row->name, vector_of(r), row->vector);
    if (row->after)
        row->after(r, row->name);
}

static inline void run_rows(struct rig *r, void (*mode)(struct rig *r), const struct row *rows,
                            size_t n)
{
    for (size_t i = 0; i < n; i++) {
        mode(r);
        try_row(r, rows[i].name, run_row, &rows[i]);
    }
    end_of_rows(r);
}

/* Each test runs on the engine, on its strict mode, and on KVM where that runs guests on hardware.
 */
struct lane {
    const struct hsk_engine_ops *ops;
    bool strict;
    const struct difference *differences;
};

/* In the test itself, not in its setup function: cmocka takes the signals between the two, and the
 * engine needs them. */
static inline struct rig *rig_begin(void **state)
{
    const struct lane *lane = *state;
    struct rig *r = aligned_alloc(64, sizeof(*r));

    *state = NULL; /* should that fail */
    rig_new(r, lane->ops, lane->strict);
    r->differences = lane->differences;
    if (r->ops == &hsk_engine_kvm_ops)
        touch_memory(r);
    *state = r;
    return r;
}

static inline int lane_teardown(void **state)
{
    struct rig *r = *state;

    if (!r)
        return 0;
    if (r->ops == &hsk_engine_kvm_ops)
        print_message("on KVM: %u rows compared, %u left out\n", r->compared, r->left_out);
    rig_free(r);
    free(r);
    return 0;
}

/* HSK_LANE=kvm: only there, and it has to be there. */
static inline int run_lanes(const struct CMUnitTest *tests, size_t n, bool on_kvm,
                            const struct difference *differences)
{
    const struct lane soft = {&hsk_engine_soft_ops, false, NULL},
                      strict = {&hsk_engine_soft_ops, true, NULL},
                      kvm = {&hsk_engine_kvm_ops, false, differences};
    const struct lane *lanes[] = {&soft, &strict, &kvm};
    g_autofree char *note = NULL;
    g_autoptr(GError) error = NULL;
    const bool hardware = hsk_engine_pick(HSK_ENGINE_AUTO, &note, &error) == &hsk_engine_kvm_ops;
    const bool only_kvm = g_strcmp0(g_getenv("HSK_LANE"), "kvm") == 0;
    int failed = 0;

    for (unsigned l = only_kvm ? 2 : 0; l < (hardware && on_kvm ? 3 : 2); l++) {
        struct CMUnitTest *copy = g_memdup2(tests, n * sizeof(*tests));

        for (size_t i = 0; i < n; i++) {
            copy[i].teardown_func = lane_teardown;
            copy[i].initial_state = (void *)lanes[l];
        }
        failed += _cmocka_run_group_tests(lanes[l]->ops->name, copy, n, NULL, NULL);
        g_free(copy);
    }
    if (!hardware && on_kvm) {
        printf("skipped: KVM. %s\n", note ? note : "");
        failed += only_kvm;
    }
    return failed;
}
