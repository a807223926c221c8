/* SPDX-License-Identifier: MIT */
/* fuzz-libs: hsk_vmm */
/*
 * Any bytes as guest code, run for a bounded time in real, 16-, 32- and 64-bit mode, as kernel and
 * as user, translated and strict: run() comes back, the state that it leaves is one that a
 * processor can be in, and the host's own state (FS base, MXCSR, x87 control word, direction flag,
 * signal mask) and the bytes around the guest's memory are as before. A second thread kicks what
 * does not end by itself.
 */
#include <vmm/cpu_bits.h>

#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include "../../vmm/engine-soft/xlate.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
__attribute__((visibility("default"))) const char *__asan_default_options(void);

/* A vCPU is mapped memory, in which the leak checker finds no pointers. */
const char *__asan_default_options(void)
{
    return "detect_leaks=0";
}

#define RAM_BYTES (2u << 20)
enum {
    CR3 = 0x1000,
    PDPT = 0x2000,
    PD = 0x3000,
    PD32 = 0x4000,
    GDT = 0x5000,
    TSS = 0x5800,
    IDT = 0x6000,
    TRAPS = 0x8000,
    CODE = 0x20000,
    STACK = 0x80000
};

static struct hsk_memobj *obj;
static struct hsk_engine *engine[2]; /* as usual, strict */
static struct hsk_vcpu *vcpu[2];
static struct hsk_ram *ram;
static struct hsk_bus *pio, *mmio;
static struct hsk_clock *fuzz_clock;
static struct hsk_cpuid cpuid;
static _Atomic(struct hsk_vcpu *) running;
static uint8_t pristine[RAM_BYTES];

static void *kicker(void *unused)
{
    for (;;) {
        struct hsk_vcpu *v = atomic_load(&running);

        usleep(4000);
        if (v && v == atomic_load(&running))
            hsk_engine_soft_ops.kick(v);
    }
    return unused;
}

static void put_segment(unsigned sel, uint64_t descriptor)
{
    hsk_put64(pristine + GDT + (sel & ~7u), descriptor);
}

static void tables(void)
{
    hsk_put64(pristine + CR3, PDPT | 7);
    hsk_put64(pristine + PDPT, PD | 7);
    hsk_put64(pristine + PD, 0x87);
    hsk_put32(pristine + PD32, 0x87);
    put_segment(0x08, 0x00af9b000000ffff);
    put_segment(0x10, 0x00cf93000000ffff);
    put_segment(0x18, 0x00cf9b000000ffff);
    put_segment(0x20, 0x00affb000000ffff);
    put_segment(0x28, 0x00cff3000000ffff);
    put_segment(0x30, 0x00cffb000000ffff);
    put_segment(0x38, 0x00009b000000ffff);
    put_segment(0x40, 0x000093000000ffff);
    hsk_put64(pristine + TSS + 4, STACK); /* RSP0; in 32-bit mode ESP0 and SS0 */
    for (unsigned i = 0; i < 256; i++)
        pristine[TRAPS + i] = 0xf4;
}

/* The IDT for 64-bit, 32-bit or real mode: a HLT each. */
static void put_idt(uint8_t *m, unsigned bits)
{
    for (unsigned i = 0; i < 256; i++) {
        uint32_t to = TRAPS + i;

        if (bits == 16) {
            hsk_put16(m + 4 * i, (uint16_t)to);
            hsk_put16(m + 4 * i + 2, 0);
        } else {
            uint8_t *d = m + IDT + i * (bits == 64 ? 16 : 8);

            hsk_put16(d, (uint16_t)to);
            hsk_put16(d + 2, bits == 64 ? 0x08 : 0x18);
            hsk_put16(d + 4, 0xee00);
            hsk_put16(d + 6, (uint16_t)(to >> 16));
        }
    }
}

static void make(void)
{
    struct hsk_engine_config cfg = {.ncpus = 1};
    struct hsk_vcpu_config vc = {0};
    pthread_t thread;

    obj = hsk_memobj_new("ram", RAM_BYTES, NULL);
    ram = hsk_ram_new();
    hsk_assert(obj &&
               hsk_ram_map_add(ram, &(struct hsk_ram_region){.size_bytes = RAM_BYTES, .obj = obj}));
    pio = hsk_bus_new("pio");
    mmio = hsk_bus_new("mmio");
    fuzz_clock = hsk_clock_new(0);
    hsk_assert(hsk_cpuid_build(&cpuid, "v3", 1, hsk_clock_tsc_hz(fuzz_clock), NULL));
    cfg.ram = ram;
    cfg.pio = pio;
    cfg.mmio = mmio;
    cfg.clock = fuzz_clock;
    cfg.cpuid = &cpuid;
    for (unsigned i = 0; i < 2; i++) {
        cfg.strict = i;
        engine[i] = hsk_engine_soft_ops.engine_new(&cfg, NULL);
        vcpu[i] = hsk_engine_soft_ops.vcpu_new(engine[i], &vc, NULL);
        hsk_assert(vcpu[i]);
    }
    tables();
    pthread_create(&thread, NULL, kicker, NULL);
}

static void set_segments(struct hsk_cpu_state *s, uint16_t cs, uint16_t code, uint16_t ss,
                         uint16_t stack, uint32_t limit)
{
    s->seg[HSK_CS] = (struct hsk_segment){.selector = cs, .attr = code, .limit = limit};
    s->seg[HSK_SS] = (struct hsk_segment){.selector = ss, .attr = stack, .limit = limit};
    s->seg[HSK_DS] = s->seg[HSK_ES] = s->seg[HSK_FS] = s->seg[HSK_GS] = s->seg[HSK_SS];
}

static void start_state(struct hsk_cpu_state *s, uint8_t *m, unsigned how, uint8_t bits)
{
    hsk_cpu_state_reset(s, 0);
    s->cr0 = HSK_CR0_PE | HSK_CR0_NE | HSK_CR0_ET | HSK_CR0_MP;
    s->cr4 = HSK_CR4_OSFXSR | HSK_CR4_OSXMMEXCPT | HSK_CR4_OSXSAVE | HSK_CR4_PSE | HSK_CR4_FSGSBASE;
    s->xcr0 = 7;
    s->gdtr = (struct hsk_dtable){GDT, 0x7f};
    s->idtr = (struct hsk_dtable){IDT, 0xfff};
    s->seg[HSK_TR] =
        (struct hsk_segment){.base = TSS, .limit = 0x67, .selector = 0x48, .attr = 0x8b};
    s->seg[HSK_LDTR] = (struct hsk_segment){0};
    s->rflags = HSK_FLAG_FIXED | (bits & 0xd5) | (bits & 2 ? HSK_FLAG_DF : 0) |
                (bits & 8 ? HSK_FLAG_AC : 0);
    s->rip = CODE;
    put_idt(m, how == 4 ? 16 : how <= 1 || how == 7 ? 64 : 32);
    switch (how) {
    case 0:
    case 1:
    case 7:
        s->cr0 |= HSK_CR0_PG | HSK_CR0_WP | (bits & 0x20 ? HSK_CR0_AM : 0);
        s->cr3 = CR3;
        s->cr4 |= HSK_CR4_PAE;
        s->efer = HSK_EFER_LME | HSK_EFER_LMA | HSK_EFER_NXE | HSK_EFER_SCE;
        set_segments(s, how == 1 ? 0x23 : 0x08, how == 1 ? 0xa0fb : 0xa09b, how == 1 ? 0x2b : 0x10,
                     how == 1 ? 0xc0f3 : 0xc093, UINT32_MAX);
        break;
    case 2:
    case 3:
        if (how == 3) {
            s->cr0 |= HSK_CR0_PG;
            s->cr3 = PD32;
            hsk_put16(m + TSS + 8, 0x10);
        }
        set_segments(s, how == 3 ? 0x33 : 0x18, how == 3 ? 0xc0fb : 0xc09b, how == 3 ? 0x2b : 0x10,
                     how == 3 ? 0xc0f3 : 0xc093, UINT32_MAX);
        break;
    case 4:
        s->cr0 &= ~(uint64_t)HSK_CR0_PE;
        s->idtr = (struct hsk_dtable){0, 0x3ff};
        set_segments(s, CODE >> 4, 0x9b, 0x1000, 0x93, 0xffff);
        s->seg[HSK_CS].base = CODE;
        for (unsigned i = 0; i < HSK_LDTR; i++)
            if (i != HSK_CS)
                s->seg[i].base = 0x10000;
        s->rip = 0;
        break;
    default: /* 16-bit protected */
        set_segments(s, 0x38, 0x9b, 0x40, 0x93, 0xffff);
        s->rip = 0x7000;
        break;
    }
}

struct host {
    uint64_t fs, flags;
    uint32_t mxcsr;
    uint16_t fcw;
    sigset_t signals;
};

static void get_host(struct host *h)
{
    memset(h, 0, sizeof *h);
    __asm__ volatile("rdfsbase %0; stmxcsr %1; fnstcw %2; pushfq; pop %3"
                     : "=r"(h->fs), "=m"(h->mxcsr), "=m"(h->fcw), "=r"(h->flags));
    h->flags &= HSK_FLAG_DF | HSK_FLAG_AC | HSK_FLAG_TF;
    h->mxcsr &= ~0x3fu;
    pthread_sigmask(SIG_SETMASK, NULL, &h->signals);
}

static void random_registers(struct hsk_cpu_state *s, uint32_t seed)
{
    static const uint64_t nice[] = {STACK, CODE,     0x60000,  0,          1,
                                    ~0ull, 0x1ffff8, 0x200000, 1ull << 47, 0x80000000};

    for (unsigned i = 0; i < 16; i++) {
        seed = seed * 1664525 + 1013904223;
        s->gpr[i] = seed >> 28 < 10 ? nice[seed >> 28] + (seed >> 20 & 0xff)
                                    : (uint64_t)seed << (seed >> 27);
    }
    s->gpr[HSK_RSP] = s->rip < CODE ? 0x8000 : STACK - 0x100;
    if (!(s->cr0 & HSK_CR0_PG))
        for (unsigned i = 0; i < 16; i++)
            s->gpr[i] &= UINT32_MAX;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct hsk_cpu_state s;
    struct host before, after;
    g_autoptr(GError) error = NULL;
    enum hsk_exit e;
    unsigned how, strict;

    if (size < 6)
        return 0;
    if (!obj)
        make();
    how = data[0] & 7;
    strict = data[0] >> 3 & 1;
    memcpy(obj->host, pristine, RAM_BYTES);
    start_state(&s, obj->host, how, data[1]);
    random_registers(&s, hsk_get32(data + 2));
    memcpy(obj->host + (s.rip == CODE || how == 4 ? CODE : s.rip), data + 6,
           MIN(size - 6, 0x8000u));
    get_host(&before);
    hsk_engine_soft_ops.thread_begin(vcpu[strict]);
    hsk_engine_soft_ops.flush(engine[strict], HSK_FLUSH_CODE | HSK_FLUSH_WRITES);
    if (!hsk_engine_soft_ops.set_state(vcpu[strict], &s, &error))
        g_error("%s", error->message);
    atomic_store(&running, vcpu[strict]);
    e = hsk_engine_soft_ops.run(vcpu[strict]);
    atomic_store(&running, NULL);
    hsk_engine_soft_ops.get_state(vcpu[strict], &s);
    hsk_engine_soft_ops.thread_end(vcpu[strict]);
    get_host(&after);
    hsk_assert(!memcmp(&before, &after, sizeof before));
    hsk_assert(e == HSK_EXIT_KICK || e == HSK_EXIT_HALT || e == HSK_EXIT_SHUTDOWN ||
               (e == HSK_EXIT_ERROR && vcpu[strict]->error));
    if (e != HSK_EXIT_ERROR && !hsk_cpu_state_check(&s, &error))
        g_error("left in a state that no processor is in: %s", error->message);
    return 0;
}
