/* SPDX-License-Identifier: MIT */
/*
 * Accesses to guest memory that translated code does not do itself, and those of C. A miss of the
 * TLB may turn out to be a fault, MMIO, a page-crossing access, or a store into a page that has
 * translations. The last three are done on a bounce buffer: filled here, the instruction runs on
 * it, and soft_slow_writeback() puts it where it belongs.
 *
 * Both pages of a crossing store are looked up before anything is written (SDM vol. 3, 6.5: faults
 * are restartable), and not again behind the instruction: another vCPU may have unmapped them. A
 * locked operation on the bounce buffer is atomic because all other vCPUs stand still from the
 * first look to the write-back. vCPU thread, the guest's FPU registers live; general registers
 * only.
 */
#include <vmm/cpu_bits.h>

#include "xlate.h"

#define COPY_AS(type) *(volatile type *)to = *(const volatile type *)from

/* What the guest accesses at once, others must see at once. */
static void copy(void *to, const void *from, uint64_t n)
{
    typedef uint16_t __attribute__((aligned(1), may_alias)) u16;
    typedef uint32_t __attribute__((aligned(1), may_alias)) u32;
    typedef uint64_t __attribute__((aligned(1), may_alias)) u64;

    switch (n) {
    case 1:
        COPY_AS(uint8_t);
        break;
    case 2:
        COPY_AS(u16);
        break;
    case 4:
        COPY_AS(u32);
        break;
    case 8:
        COPY_AS(u64);
        break;
    default:
        __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(n) : : "memory");
        break;
    }
}
#undef COPY_AS

static uint8_t own_bit(const struct soft_vcpu *v)
{
    return (uint8_t)(1u << v->base.index);
}

static uint64_t mmio_read(struct soft_vcpu *v, uint64_t gpa, unsigned size)
{
    uint64_t value = ~0ull;

    soft_lockstep_cancel(v);
    soft_fpu_park(v);
    hsk_bus_read(v->base.engine->cfg.mmio, gpa, size, &value);
    return value;
}

static void mmio_write(struct soft_vcpu *v, uint64_t gpa, unsigned size, uint64_t value)
{
    soft_lockstep_cancel(v);
    soft_fpu_park(v);
    hsk_bus_write(v->base.engine->cfg.mmio, gpa, size, value);
}

static unsigned piece(uint64_t addr, unsigned n)
{
    unsigned size = n >= 8 ? 8 : n >= 4 ? 4 : n >= 2 ? 2 : 1;

    if (size == n)
        return size; /* a single access is the device's to judge */
    while (addr & (size - 1))
        size /= 2;
    return size;
}

/* [va, va+n) inside one page. */
static void load_part(struct soft_vcpu *v, const struct soft_page_ref *ref, uint64_t va,
                      uint8_t *to, unsigned n)
{
    uint64_t off = va & 0xfff;

    if (ref->host) {
        copy(to, ref->host + off, n);
        return;
    }
    while (n) {
        unsigned size = piece(off, n);
        uint64_t value = mmio_read(v, ref->gpa + off, size);

        copy(to, &value, size);
        to += size;
        off += size;
        n -= size;
    }
}

/* The host address, if the TLB allows the access. */
static inline uint8_t *hit(const struct soft_vcpu *v, uint64_t va, unsigned mmu, bool write)
{
    const struct soft_tlb_entry *e = &v->tlb[mmu][(va >> 12) % SOFT_TLB_SIZE];

    return (write ? e->nvpn_write : e->nvpn_read) + (va >> 12) == 0
               ? (uint8_t *)(uintptr_t)(va + e->addend)
               : NULL;
}

/* The other vCPUs that hold translations of the page drop what they made from [gpa, gpa+n) at their
 * next block head. */
static void tell_others(struct soft_vcpu *v, const struct soft_page_ref *ref, uint64_t gpa,
                        unsigned n)
{
    unsigned holders = ref->code & ~(unsigned)own_bit(v);

    if (!holders)
        return;
    soft_fpu_park(v);
    for (unsigned i = 0; i < G_N_ELEMENTS(v->engine->vcpu); i++)
        if (holders >> i & 1)
            soft_code_post(v->engine->vcpu[i], gpa, n);
}

/* Returns whether translations were dropped. */
static bool store_part(struct soft_vcpu *v, const struct soft_page_ref *ref, uint64_t va,
                       const uint8_t *from, unsigned n)
{
    uint64_t off = va & 0xfff;

    if (ref->host) {
        bool dropped = false;

        if (ref->readonly)
            return false;
        if (ref->code & own_bit(v))
            dropped = soft_code_invalidate(v, ref->gpa + off, n);
        copy(ref->host + off, from, n);
        tell_others(v, ref, ref->gpa + off, n);
        return dropped;
    }
    while (n) {
        unsigned size = piece(off, n);
        uint64_t value = 0;

        copy(&value, from, size);
        mmio_write(v, ref->gpa + off, size, value);
        from += size;
        off += size;
        n -= size;
    }
    return false;
}

static unsigned first_part(uint64_t va, unsigned n)
{
    unsigned room = 4096 - (unsigned)(va & 0xfff);

    return n < room ? n : room;
}

/* The one or two pages of [va, va+n). Faults. */
static void look_up_pages(struct soft_vcpu *v, uint64_t va, unsigned n, unsigned mmu, bool write,
                          bool stack, struct soft_page_ref ref[2])
{
    ref[0] = soft_lookup(v, va, mmu, write, stack);
    if (first_part(va, n) < n)
        ref[1] = soft_lookup(v, soft_second_page(v, va), mmu, write, stack);
}

static void load_parts(struct soft_vcpu *v, const struct soft_page_ref ref[2], uint64_t va,
                       uint8_t *to, unsigned n)
{
    unsigned n1 = first_part(va, n);

    load_part(v, &ref[0], va, to, n1);
    if (n1 < n)
        load_part(v, &ref[1], soft_second_page(v, va), to + n1, n - n1);
}

static bool store_parts(struct soft_vcpu *v, const struct soft_page_ref ref[2], uint64_t va,
                        const uint8_t *from, unsigned n)
{
    unsigned n1 = first_part(va, n);
    bool dropped = store_part(v, &ref[0], va, from, n1);

    if (n1 < n)
        dropped |= store_part(v, &ref[1], soft_second_page(v, va), from + n1, n - n1);
    return dropped;
}

/* --- from translated code (enter.S) --- */

/* May the store be done at the host address, without looking at translations? */
static bool direct_store(struct soft_vcpu *v, const struct soft_page_ref *ref, uint64_t va,
                         unsigned size)
{
    uint64_t gpa = ref->gpa | (va & 0xfff);

    if (ref->readonly || (ref->code & ~own_bit(v)))
        return false;
    if (!ref->code)
        return true;
    if (soft_code_touches(v->code, gpa, size))
        return false;
    v->code->bounce_leaves = soft_code_bear_write(v, gpa);
    return !v->code->bounce_leaves;
}

static void raise_x87(struct soft_vcpu *v)
{
    uint16_t status;

    __asm__ volatile("fnstsw %0" : "=a"(status));
    if (status & 0x80)
        soft_fault(v, 16, -1);
}

struct soft_slow soft_slow_access(struct soft_vcpu *v, uint64_t va, const struct soft_access *a)
{
    struct soft_code *c = v->code;
    bool write = a->kind & SOFT_ACCESS_WRITE, stack = a->kind & SOFT_ACCESS_STACK;
    unsigned n1 = first_part(va, a->size);
    struct soft_page_ref ref;

    v->count.exits++;
    if (a->kind & SOFT_ACCESS_WINDOW) {
        bool ok = soft_open_window(v, va, a->size, write);

        if (v->fpu_parked)
            soft_fpu_unpark(v);
        return (struct soft_slow){NULL, ok ? 0 : 5};
    }
    v->rip = v->page_va + a->pc;
    if (a->kind & SOFT_ACCESS_X87)
        raise_x87(v);
    /* comes before a fault of the segment or the page */
    if ((a->kind & SOFT_ACCESS_ALIGNED) &&
        ((a->kind & SOFT_ACCESS_SEG ? v->seg_base[a->seg] + va : va) & (a->size - 1u)))
        soft_fault(v, 13, 0);
    if (a->kind & SOFT_ACCESS_SEG) {
        uint8_t *host;

        va = soft_seg_va(v, a->seg, va, a->size, write);
        if (v->debug_hits && !v->single)
            soft_run_alone(v);
        n1 = first_part(va, a->size);
        host = n1 == a->size ? hit(v, va, v->mmu, write) : NULL;
        if (host)
            return (struct soft_slow){host, 0};
    }
    if (!hsk_canonical(va + a->size - 1)) /* before any page is looked at */
        soft_fault(v, stack ? 12 : 13, 0);
    ref = soft_lookup(v, va, v->mmu, write, stack);
    if (n1 == a->size && ref.host && !(write && !direct_store(v, &ref, va, n1))) {
        if (v->fpu_parked)
            soft_fpu_unpark(v);
        return (struct soft_slow){ref.host + (va & 0xfff), 0};
    }
    if (a->kind & SOFT_ACCESS_ATOMIC)
        soft_smp_stop_others(v);
    look_up_pages(v, va, a->size, v->mmu, write, stack, c->bounce_page);
    c->bounce = v->bounce + (va & 63); /* keeps the alignment, on which instructions may fault */
    c->bounce_va = va;
    c->bounce_size = a->size;
    if (a->kind & SOFT_ACCESS_READ)
        load_parts(v, c->bounce_page, va, c->bounce, a->size);
    if (v->fpu_parked)
        soft_fpu_unpark(v);
    return (struct soft_slow){c->bounce, write ? 5 : 0};
}

int soft_slow_writeback(struct soft_vcpu *v, uint64_t next)
{
    struct soft_code *c = v->code;
    bool dropped =
        store_parts(v, c->bounce_page, c->bounce_va, c->bounce, c->bounce_size) || c->bounce_leaves;

    c->bounce_leaves = false;
    soft_smp_resume(v);
    if (next != SOFT_NO_GPA &&
        (dropped || atomic_load_explicit(&v->interrupt, memory_order_relaxed))) {
        v->rip = v->page_va + next;
        return SOFT_NEXT_JUMP;
    }
    if (v->fpu_parked)
        soft_fpu_unpark(v);
    return 0;
}

/* --- for the system half --- */

uint64_t soft_ld(struct soft_vcpu *v, uint64_t va, unsigned size, unsigned mmu)
{
    const uint8_t *host = first_part(va, size) == size ? hit(v, va, mmu, false) : NULL;
    struct soft_page_ref ref[2];
    uint64_t value = 0;

    if (host) {
        copy(&value, host, size);
    } else {
        look_up_pages(v, va, size, mmu, false, false, ref);
        load_parts(v, ref, va, (uint8_t *)&value, size);
    }
    return value;
}

void soft_st(struct soft_vcpu *v, uint64_t va, unsigned size, uint64_t value, unsigned mmu)
{
    uint8_t *host = first_part(va, size) == size ? hit(v, va, mmu, true) : NULL;
    struct soft_page_ref ref[2];

    if (host) {
        copy(host, &value, size);
    } else {
        look_up_pages(v, va, size, mmu, true, false, ref);
        store_parts(v, ref, va, (const uint8_t *)&value, size);
    }
}

void *soft_ptr(struct soft_vcpu *v, uint64_t va, unsigned len, bool write, unsigned mmu)
{
    uint8_t *host = hit(v, va, mmu, write);
    struct soft_page_ref ref;

    if (host)
        return host;
    ref = soft_lookup(v, va, mmu, write, false);
    if (!ref.host || (write && ref.readonly))
        return NULL;
    if (write && (ref.code & own_bit(v)) && len)
        soft_code_invalidate(v, ref.gpa | (va & 0xfff), len);
    if (write)
        tell_others(v, &ref, ref.gpa,
                    4096); /* all of it: no claim of theirs passes before this vCPU has written */
    return ref.host + (va & 0xfff);
}

void soft_probe(struct soft_vcpu *v, uint64_t va, unsigned len, bool write, unsigned mmu)
{
    for (uint64_t at = va, left = len; left;) {
        unsigned n = first_part(at, left > 4096 ? 4096 : (unsigned)left);

        soft_lookup(v, at, mmu, write, false);
        at = soft_second_page(v, at);
        left -= n;
    }
}
