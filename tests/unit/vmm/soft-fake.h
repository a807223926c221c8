/* SPDX-License-Identifier: MIT */
/*
 * A stand-in for the translator half of the software engine, for tests of the system half: guest
 * memory through the real page walker without a TLB, faults by longjmp, a local APIC that holds one
 * vector. One thread.
 */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "../../../vmm/engine-soft/system.h"

#include <cmocka.h>

#define FAKE_RAM_BYTES (8u << 20)

struct fake {
    struct soft_vcpu v; /* first: found back from it */
    struct soft_engine engine;
    struct hsk_cpuid cpuid;
    struct hsk_memobj *obj;
    jmp_buf out;
    char message[256];
    unsigned flushes_all, flushes_nonglobal, parks;
};

enum fake_end { FAKE_DONE, FAKE_FAULT, FAKE_UNIMPLEMENTED };

static struct fake *fake_of(struct soft_vcpu *v)
{
    return (struct fake *)v;
}

G_NORETURN void soft_fault(struct soft_vcpu *v, unsigned vector, int error)
{
    v->exc = (struct soft_exception){
        .vector = vector, .has_error = error >= 0, .error = error < 0 ? 0 : (uint32_t)error};
    longjmp(fake_of(v)->out, FAKE_FAULT);
}

G_NORETURN void soft_fault_pf(struct soft_vcpu *v, uint64_t va, uint32_t error)
{
    v->exc =
        (struct soft_exception){.vector = VEC_PF, .has_error = 1, .error = error, .payload = va};
    longjmp(fake_of(v)->out, FAKE_FAULT);
}

G_NORETURN void soft_fault_db(struct soft_vcpu *v, uint64_t dr6)
{
    v->exc = (struct soft_exception){.vector = VEC_DB, .payload = dr6};
    longjmp(fake_of(v)->out, FAKE_FAULT);
}

G_NORETURN void soft_unimplemented(struct soft_vcpu *v, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(fake_of(v)->message, sizeof(fake_of(v)->message), fmt, ap);
    va_end(ap);
    longjmp(fake_of(v)->out, FAKE_UNIMPLEMENTED);
}

static uint8_t *fake_host(struct soft_vcpu *v, uint64_t va, bool write, unsigned mmu)
{
    struct soft_walk w;
    int error;

    if (!hsk_canonical(va))
        soft_fault(v, VEC_GP, 0);
    error = soft_walk(v, va, write ? SOFT_ACC_WRITE : 0, mmu, &w);
    if (error >= 0)
        soft_fault_pf(v, va, (uint32_t)error);
    return w.gpa < FAKE_RAM_BYTES ? fake_of(v)->obj->host + w.gpa + (va & 0xfff) : NULL;
}

void *soft_ptr(struct soft_vcpu *v, uint64_t va, unsigned len, bool write, unsigned mmu)
{
    assert_true((va & 0xfff) + len <= HSK_PAGE_SIZE);
    return fake_host(v, va, write, mmu);
}

void soft_probe(struct soft_vcpu *v, uint64_t va, unsigned len, bool write, unsigned mmu)
{
    fake_host(v, va, write, mmu);
    if ((va & 0xfff) + len > HSK_PAGE_SIZE)
        fake_host(v, (va + len - 1) & ~0xfffull, write, mmu);
}

uint64_t soft_ld(struct soft_vcpu *v, uint64_t va, unsigned size, unsigned mmu)
{
    uint64_t value = 0;

    soft_probe(v, va, size, false, mmu);
    for (unsigned i = 0; i < size; i++) {
        const uint8_t *host = fake_host(v, va + i, false, mmu);

        value |= (uint64_t)(host ? *host : 0xff) << (8 * i);
    }
    return value;
}

void soft_st(struct soft_vcpu *v, uint64_t va, unsigned size, uint64_t value, unsigned mmu)
{
    soft_probe(v, va, size, true, mmu);
    for (unsigned i = 0; i < size; i++) {
        uint8_t *host = fake_host(v, va + i, true, mmu);

        if (host)
            *host = (uint8_t)(value >> (8 * i));
    }
}

void soft_tlb_flush_all(struct soft_vcpu *v)
{
    fake_of(v)->flushes_all++;
}
void soft_tlb_flush_nonglobal(struct soft_vcpu *v)
{
    fake_of(v)->flushes_nonglobal++;
}
void soft_tlb_flush_page(struct soft_vcpu *v, uint64_t va)
{
}
void soft_edges_forget(struct soft_vcpu *v)
{
    (void)v;
}
uint32_t soft_segment_mode(const struct soft_vcpu *v)
{
    (void)v;
    return 0;
}
void soft_fpu_park(struct soft_vcpu *v)
{
    fake_of(v)->parks++;
    v->fpu_parked = 1;
}

void soft_smp_stop_others(struct soft_vcpu *v)
{
}
void soft_smp_resume(struct soft_vcpu *v)
{
}
void soft_smp_pause(struct soft_vcpu *v)
{
}

/* --- a local APIC with one slot --- */

struct hsk_lapic {
    unsigned pending;
    int vector;
    uint64_t base;
};

unsigned hsk_lapic_pending(const struct hsk_lapic *l)
{
    return l->pending;
}
int hsk_lapic_ack(struct hsk_lapic *l)
{
    l->pending &= ~(unsigned)HSK_LAPIC_INTR;
    return l->vector;
}
bool hsk_lapic_take(struct hsk_lapic *l, unsigned which, uint8_t *vector)
{
    bool had = l->pending & which;

    l->pending &= ~which;
    return had;
}
void hsk_lapic_nmi_unmasked(struct hsk_lapic *l)
{
}
uint64_t hsk_lapic_get_cr8(struct hsk_lapic *l)
{
    return 0;
}
void hsk_lapic_set_cr8(struct hsk_lapic *l, uint64_t v)
{
}
uint64_t hsk_lapic_get_base(struct hsk_lapic *l)
{
    return l->base;
}
bool hsk_lapic_set_base(struct hsk_lapic *l, uint64_t v)
{
    return false;
}
bool hsk_lapic_rdmsr(struct hsk_lapic *l, uint32_t msr, uint64_t *v)
{
    return false;
}
bool hsk_lapic_wrmsr(struct hsk_lapic *l, uint32_t msr, uint64_t v)
{
    return false;
}

/* --- the machine around it --- */

/* 64-bit mode at CPL 0, 8 MiB of memory, paging by tables the test makes (cr3 = 0x1000), GDT at
 * 0x6000, IDT at 0x7000. */
#define FAKE_CR3 0x1000u
#define FAKE_GDT 0x6000u
#define FAKE_IDT 0x7000u
#define FAKE_TSS 0x8000u

static struct fake *fake_new(void)
{
    struct fake *f = aligned_alloc(64, (sizeof(*f) + 63) & ~(size_t)63);
    struct hsk_cpu_state *s = &f->v.s;

    memset(f, 0, sizeof(*f));
    f->obj = hsk_memobj_new("ram", FAKE_RAM_BYTES, NULL);
    assert_non_null(f->obj);
    f->engine.base.cfg.ram = hsk_ram_new();
    f->engine.base.cfg.clock = hsk_clock_new(0);
    f->engine.base.cfg.pio = hsk_bus_new("pio");
    f->engine.base.cfg.cpuid = &f->cpuid;
    assert_true(hsk_cpuid_build(&f->cpuid, "v2", 1, 2000000000, NULL));
    assert_true(
        hsk_ram_map_add(f->engine.base.cfg.ram,
                        &(struct hsk_ram_region){.size_bytes = FAKE_RAM_BYTES, .obj = f->obj}));
    f->v.base.engine = &f->engine.base;
    f->v.engine = &f->engine;
    soft_features(&f->engine);
    hsk_cpu_state_reset(s, 0);
    s->cr0 = HSK_CR0_PE | HSK_CR0_ET | HSK_CR0_NE | HSK_CR0_WP | HSK_CR0_PG;
    s->cr4 = HSK_CR4_PAE | HSK_CR4_OSFXSR;
    s->efer = HSK_EFER_LME | HSK_EFER_LMA | HSK_EFER_NXE | HSK_EFER_SCE;
    s->cr3 = FAKE_CR3;
    s->gdtr = (struct hsk_dtable){FAKE_GDT, 0xff};
    s->idtr = (struct hsk_dtable){FAKE_IDT, 0xfff};
    s->seg[HSK_CS] = (struct hsk_segment){.limit = 0xffffffff, .selector = 8, .attr = 0xa09b};
    s->seg[HSK_SS] = (struct hsk_segment){.limit = 0xffffffff, .selector = 0x10, .attr = 0xc093};
    s->seg[HSK_TR] =
        (struct hsk_segment){.base = FAKE_TSS, .limit = 0x67, .selector = 0x40, .attr = 0x8b};
    f->v.rflags = HSK_FLAG_FIXED;
    soft_segments_changed(&f->v);
    return f;
}

static void fake_free(struct fake *f)
{
    hsk_ram_free(f->engine.base.cfg.ram);
    hsk_clock_free(f->engine.base.cfg.clock);
    hsk_bus_free(f->engine.base.cfg.pio);
    hsk_memobj_free(f->obj);
    free(f);
}

static inline uint64_t fake_get(struct fake *f, uint64_t gpa)
{
    return hsk_get64(f->obj->host + gpa);
}
static inline void fake_set(struct fake *f, uint64_t gpa, uint64_t value)
{
    hsk_put64(f->obj->host + gpa, value);
}

/* Identity map of the memory with 4 KiB user pages: tables at 0x1000, 0x2000, 0x3000 and from
 * 0x100000 on. */
static inline void fake_identity(struct fake *f)
{
    fake_set(f, 0x1000, 0x2007);
    fake_set(f, 0x2000, 0x3007);
    for (unsigned i = 0; i < FAKE_RAM_BYTES >> 21; i++)
        fake_set(f, 0x3000 + 8 * i, 0x100007 + 0x1000 * i);
    for (unsigned i = 0; i < FAKE_RAM_BYTES >> 12; i++)
        fake_set(f, 0x100000 + 8 * i, (uint64_t)i << 12 | 7);
}

static inline enum fake_end fake_exec(struct fake *f, const struct soft_insn *in,
                                      enum soft_next *next)
{
    const int end = setjmp(f->out);

    if (end)
        return (enum fake_end)end;
    *next = soft_exec(&f->v, in);
    return FAKE_DONE;
}
