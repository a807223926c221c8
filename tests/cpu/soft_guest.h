/* SPDX-License-Identifier: MIT */
/*
 * A guest without a machine for tests of the software engine: 32 MiB of memory seen at 0x10000000
 * in 64-bit mode (also mapped there in the test's own address space, so that the same bytes run
 * natively), every exception a HLT of its own. vCPU thread = the test's thread.
 */
#pragma once

#include <base/util.h>
#include <vmm/cpu_bits.h>

#include <sys/mman.h>

#include "engine-soft/soft.h"

#define GUEST_VA    0x10000000ull
#define GUEST_SIZE  (32ull << 20)
#define GUEST_CODE  (GUEST_VA + 0x100000) /* what is tested; gpa 0x100000 */
#define GUEST_DATA  (GUEST_VA + 0x200000)
#define GUEST_STACK (GUEST_VA + 0x300000) /* top */
#define GUEST_TRAPS (GUEST_VA + 0x80000)  /* HLT of vector n at + n * 16 */

struct guest {
    struct hsk_memobj *obj;
    struct hsk_ram *ram;
    struct hsk_bus *pio, *mmio;
    struct hsk_clock *clock;
    struct hsk_engine *engine;
    struct hsk_vcpu *vcpu, *cpu[8]; /* vcpu = cpu[0] */
    uint8_t *mem;                   /* = GUEST_VA in this process */
};

static inline void guest_put_gate(struct guest *g, unsigned n)
{
    uint8_t *d = g->mem + 0x8000 + 16 * n;
    uint64_t at = GUEST_TRAPS + 16 * n;

    hsk_put16(d, (uint16_t)at);
    hsk_put16(d + 2, 8);
    hsk_put16(d + 4, 0x8e00);
    hsk_put16(d + 6, (uint16_t)(at >> 16));
    hsk_put32(d + 8, (uint32_t)(at >> 32));
    g->mem[GUEST_TRAPS - GUEST_VA + 16 * n] = 0xf4;
}

static inline void guest_tables(struct guest *g)
{
    hsk_put64(g->mem + 0x1000, 0x2003);
    hsk_put64(g->mem + 0x2000, 0x3003);
    for (unsigned i = 0; i < 512;
         i++) /* 4 KiB pages: each 2 MiB of the window has its table at 0x10000 + */
        if (i >= 128 && i < 128 + 16)
            hsk_put64(g->mem + 0x3000 + 8 * i, (0x10000 + 0x1000 * (i - 128)) | 3);
    for (unsigned i = 0; i < 16 * 512; i++)
        hsk_put64(g->mem + 0x10000 + 8 * i, (uint64_t)i * 4096 | 3);
    hsk_put64(g->mem + 0x9000, 0);
    hsk_put64(g->mem + 0x9008, 0x00af9b000000ffff);
    hsk_put64(g->mem + 0x9010, 0x00cf93000000ffff);
    for (unsigned i = 0; i < 32; i++)
        guest_put_gate(g, i);
}

static inline void guest_new_cpus(struct guest *g, bool strict, unsigned ncpus)
{
    GError *error = NULL;
    struct hsk_ram_region r = {.gpa = 0, .size_bytes = GUEST_SIZE};
    struct hsk_engine_config cfg = {.ncpus = ncpus, .strict = strict};

    memset(g->cpu, 0, sizeof g->cpu);
    g->obj = hsk_memobj_new("ram", GUEST_SIZE, &error);
    hsk_assert(g->obj);
    g->mem = mmap((void *)GUEST_VA, GUEST_SIZE, PROT_READ | PROT_WRITE | PROT_EXEC,
                  MAP_SHARED | MAP_FIXED_NOREPLACE, g->obj->fd, 0);
    hsk_assert(g->mem == (void *)GUEST_VA);
    r.obj = g->obj;
    g->ram = hsk_ram_new();
    hsk_assert(hsk_ram_map_add(g->ram, &r));
    g->pio = hsk_bus_new("pio");
    g->mmio = hsk_bus_new("mmio");
    g->clock = hsk_clock_new(0);
    cfg.ram = g->ram;
    cfg.pio = g->pio;
    cfg.mmio = g->mmio;
    cfg.clock = g->clock;
    g->engine = hsk_engine_soft_ops.engine_new(&cfg, &error);
    hsk_assert(g->engine);
    for (unsigned i = 0; i < ncpus; i++) {
        struct hsk_vcpu_config vcfg = {.index = i};

        g->cpu[i] = hsk_engine_soft_ops.vcpu_new(g->engine, &vcfg, &error);
        hsk_assert(g->cpu[i]);
    }
    g->vcpu = g->cpu[0];
    hsk_engine_soft_ops.thread_begin(g->vcpu);
    guest_tables(g);
}

static inline void guest_new(struct guest *g, bool strict)
{
    guest_new_cpus(g, strict, 1);
}

static inline void guest_free(struct guest *g)
{
    hsk_engine_soft_ops.thread_end(g->vcpu);
    for (unsigned i = 0; i < G_N_ELEMENTS(g->cpu); i++) {
        hsk_engine_soft_ops.vcpu_free(g->cpu[i]);
        g->cpu[i] = NULL;
    }
    hsk_engine_soft_ops.engine_free(g->engine);
    hsk_bus_free(g->pio);
    hsk_bus_free(g->mmio);
    hsk_clock_free(g->clock);
    hsk_ram_free(g->ram);
    munmap(g->mem, GUEST_SIZE);
    hsk_memobj_free(g->obj);
}

/* cmocka fixtures: *state is a guest. */
static inline int guest_setup_as(void **state, bool strict)
{
    static struct guest g;

    guest_new(&g, strict);
    *state = &g;
    return 0;
}

static inline int guest_setup(void **state)
{
    return guest_setup_as(state, false);
}

static inline int guest_setup_strict(void **state)
{
    return guest_setup_as(state, true);
}

static inline int guest_teardown(void **state)
{
    guest_free(*state);
    return 0;
}

/* 64-bit mode, CPL 0, all of SSE and AVX on, at GUEST_CODE. */
static inline void guest_state(struct guest *g, struct hsk_cpu_state *s)
{
    hsk_cpu_state_reset(s, 0);
    s->cr0 = HSK_CR0_PE | HSK_CR0_PG | HSK_CR0_NE | HSK_CR0_WP | HSK_CR0_ET | HSK_CR0_MP;
    s->cr3 = 0x1000;
    s->cr4 = HSK_CR4_PAE | HSK_CR4_OSFXSR | HSK_CR4_OSXMMEXCPT | HSK_CR4_OSXSAVE;
    s->xcr0 = 7;
    s->efer = HSK_EFER_LME | HSK_EFER_LMA | HSK_EFER_NXE | HSK_EFER_SCE;
    s->seg[HSK_CS] = (struct hsk_segment){.limit = UINT32_MAX, .selector = 8, .attr = 0xa09b};
    s->seg[HSK_SS] = (struct hsk_segment){.limit = UINT32_MAX, .selector = 16, .attr = 0xc093};
    s->seg[HSK_DS] = s->seg[HSK_ES] = s->seg[HSK_FS] = s->seg[HSK_GS] = s->seg[HSK_SS];
    s->gdtr = (struct hsk_dtable){GUEST_VA + 0x9000, 0x17};
    s->idtr = (struct hsk_dtable){GUEST_VA + 0x8000, 0x1ff};
    s->rip = GUEST_CODE;
    s->gpr[HSK_RSP] = GUEST_STACK;
    s->rflags = HSK_FLAG_FIXED;
}

static inline enum hsk_exit guest_run(struct guest *g, struct hsk_cpu_state *s)
{
    GError *error = NULL;
    enum hsk_exit e;

    if (!hsk_engine_soft_ops.set_state(g->vcpu, s, &error))
        g_error("state refused: %s", error->message);
    e = hsk_engine_soft_ops.run(g->vcpu);
    hsk_engine_soft_ops.get_state(g->vcpu, s);
    if (e == HSK_EXIT_ERROR)
        g_printerr("%s\n", g->vcpu->error);
    return e;
}
