/* SPDX-License-Identifier: MIT */
/*
 * The TLB: filled here on a miss, looked up by translated code (layout in soft.h). Also what such a
 * miss may turn out to be: a fault, MMIO, a page-crossing access, or a store into a page that has
 * translations. The last three are done on a bounce buffer: filled here, the instruction runs on
 * it, and soft_slow_writeback() puts it where it belongs.
 *
 * Both pages of a crossing store are looked up before anything is written (SDM vol. 3, 6.5: faults are
 * restartable), and not again behind the instruction: another vCPU may have unmapped them. A locked
 * operation on the bounce buffer is atomic because all other vCPUs stand still from the first look
 * to the write-back. vCPU thread, the guest's FPU registers live; general registers only.
 */
#include "xlate.h"

#include <vmm/cpu_bits.h>

static inline bool canonical(uint64_t va)
{
    return (uint64_t)((int64_t)(va << 16) >> 16) == va;
}

#define COPY_AS(type) *(volatile type *)to = *(const volatile type *)from

/* What the guest accesses at once, others must see at once. */
static void copy(void *to, const void *from, uint64_t n)
{
    typedef uint16_t __attribute__((aligned(1), may_alias)) u16;
    typedef uint32_t __attribute__((aligned(1), may_alias)) u32;
    typedef uint64_t __attribute__((aligned(1), may_alias)) u64;

    switch (n) {
    case 1: COPY_AS(uint8_t); break;
    case 2: COPY_AS(u16); break;
    case 4: COPY_AS(u32); break;
    case 8: COPY_AS(u64); break;
    default: __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(n) : : "memory"); break;
    }
}
#undef COPY_AS

const struct hsk_ram_region *soft_region(struct soft_vcpu *v, uint64_t gpa, uint64_t *page)
{
    const struct hsk_ram_region *r = hsk_ram_find(v->base.engine->cfg.ram, gpa);

    if (r)
        *page = (gpa - r->gpa + r->offset) >> HSK_PAGE_SHIFT;
    return r;
}

static void announce(struct soft_vcpu *v, struct hsk_memobj *obj, uint64_t page)
{
    if (obj->before_write && !(atomic_load_explicit(&obj->attr[page], memory_order_relaxed) & HSK_PAGE_SAVED))
        soft_fpu_park(v);
    hsk_memobj_will_write(obj, page);
    if (v->lockstep)
        soft_lockstep_write(v, obj->host + page * 4096);
}

/* From here to the next safe point the page may be written. To be called before its code mark is looked at (soft_code_claim). */
static void mark_written(struct soft_vcpu *v, uint64_t gpa)
{
    if (!soft_may_write(v->code, gpa))
        atomic_fetch_or(&v->code->written_filter[(gpa >> 18) % SOFT_WRITTEN], 1ull << (gpa >> 12 & 63));
}

static uint8_t code_mark(const struct hsk_ram_region *r, uint64_t page)
{
    return atomic_load_explicit(&r->obj->code[page], memory_order_relaxed);
}

static uint8_t own_bit(const struct soft_vcpu *v)
{
    return (uint8_t)(1u << v->base.index);
}

/* --- which entries allow to write a page --- */

static uint32_t *writers_of(struct soft_code *c, uint64_t gpa)
{
    return &c->writer_first[(gpa >> 12) % SOFT_WRITERS];
}

static void list_writer(struct soft_code *c, unsigned entry, uint64_t gpa)
{
    uint32_t *first = writers_of(c, gpa);

    if (c->writer_next[entry])
        return;
    c->writer_next[entry] = *first ? *first : SOFT_WRITERS_END;
    *first = entry + 1;
}

/* gpa: that under which it was listed. */
static void unlist_writer(struct soft_code *c, unsigned entry, uint64_t gpa)
{
    uint32_t *at = writers_of(c, gpa);

    if (!c->writer_next[entry])
        return;
    while (*at != entry + 1)
        at = &c->writer_next[*at - 1];
    *at = c->writer_next[entry] == SOFT_WRITERS_END && at == writers_of(c, gpa) ? 0 : c->writer_next[entry];
    c->writer_next[entry] = 0;
}

/* --- filling --- */

/* Enters a page into the TLB; write: it may be written directly. */
static void fill(struct soft_vcpu *v, uint64_t va, unsigned mmu, const struct soft_walk *w, uint8_t *host, bool write)
{
    struct soft_code *c = v->code;
    unsigned slot = (unsigned)(va >> 12) % SOFT_TLB_SIZE;
    struct soft_tlb_entry *e = &v->tlb[mmu][slot];
    uint64_t gpa = w->gpa | (w->global ? SOFT_TLB_GLOBAL : 0);

    if (e->nvpn_read + (va >> 12) != 0 || e->gpa != gpa) {
        struct soft_fills *f = &c->tlb_fills[mmu][w->global];

        e->nvpn_write = SOFT_TLB_NONE;
        unlist_writer(c, mmu * SOFT_TLB_SIZE + slot, e->gpa);
        if (f->n < SOFT_FILLS)
            f->slot[f->n] = (uint16_t)slot;
        f->n++;
    }
    e->nvpn_read = -(va >> 12);
    e->addend = (uint64_t)(uintptr_t)host - (va & ~0xfffull);
    e->gpa = gpa;
    if (write) {
        e->nvpn_write = -(va >> 12);
        list_writer(c, mmu * SOFT_TLB_SIZE + slot, w->gpa);
    }
    if (w->large)
        soft_filter_set(c->large[va >> 63], va >> 21);
}

/* Checks and translates one page; fills the TLB if translated code may use the page directly. Faults. */
static struct soft_page_ref lookup(struct soft_vcpu *v, uint64_t va, unsigned mmu, bool write, bool stack)
{
    struct soft_walk w;
    struct soft_page_ref ref = {0};
    const struct hsk_ram_region *r;
    uint64_t page;
    int error;

    if (!canonical(va))
        soft_fault(v, stack ? 12 : 13, 0);
    v->count.tlb_misses++;
    error = soft_walk(v, va, write ? SOFT_ACC_WRITE : 0, mmu, &w);
    if (error >= 0)
        soft_fault_pf(v, va, (uint32_t)error);
    ref.gpa = w.gpa;
    r = soft_region(v, w.gpa, &page);
    if (!r)
        return ref;
    ref.host = r->obj->host + page * 4096;
    ref.readonly = r->readonly;
    if (write && !r->readonly) {
        announce(v, r->obj, page);
        mark_written(v, w.gpa);
    }
    ref.code = code_mark(r, page);
    fill(v, va, mmu, &w, ref.host, write && !ref.code && !r->readonly);
    return ref;
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
static void load_part(struct soft_vcpu *v, const struct soft_page_ref *ref, uint64_t va, uint8_t *to, unsigned n)
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

    return (write ? e->nvpn_write : e->nvpn_read) + (va >> 12) == 0 ? (uint8_t *)(uintptr_t)(va + e->addend) : NULL;
}

/* The other vCPUs that hold translations of the page drop what they made from [gpa, gpa+n) at their next block head. */
static void tell_others(struct soft_vcpu *v, const struct soft_page_ref *ref, uint64_t gpa, unsigned n)
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
static bool store_part(struct soft_vcpu *v, const struct soft_page_ref *ref, uint64_t va, const uint8_t *from, unsigned n)
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
static void look_up_pages(struct soft_vcpu *v, uint64_t va, unsigned n, unsigned mmu, bool write, bool stack,
                          struct soft_page_ref ref[2])
{
    ref[0] = lookup(v, va, mmu, write, stack);
    if (first_part(va, n) < n)
        ref[1] = lookup(v, soft_second_page(v, va), mmu, write, stack);
}

static void load_parts(struct soft_vcpu *v, const struct soft_page_ref ref[2], uint64_t va, uint8_t *to, unsigned n)
{
    unsigned n1 = first_part(va, n);

    load_part(v, &ref[0], va, to, n1);
    if (n1 < n)
        load_part(v, &ref[1], soft_second_page(v, va), to + n1, n - n1);
}

static bool store_parts(struct soft_vcpu *v, const struct soft_page_ref ref[2], uint64_t va, const uint8_t *from, unsigned n)
{
    unsigned n1 = first_part(va, n);
    bool dropped = store_part(v, &ref[0], va, from, n1);

    if (n1 < n)
        dropped |= store_part(v, &ref[1], soft_second_page(v, va), from + n1, n - n1);
    return dropped;
}

/* --- from translated code (enter.S) --- */

/* Fills the TLB for [va, va+size) if all of it can be accessed directly, without fault and without setting D. */
static bool open_window(struct soft_vcpu *v, uint64_t va, unsigned size, bool write)
{
    struct soft_walk w;
    const struct hsk_ram_region *r;
    uint64_t page;

    if ((va & 0xfff) + size > 4096 || !canonical(va))
        return false;
    v->count.tlb_misses++;
    if (soft_walk(v, va, 0, v->mmu, &w) >= 0)
        return false;
    r = soft_region(v, w.gpa, &page);
    if (!r || (write && (!w.writable || r->readonly)))
        return false;
    if (write) {
        mark_written(v, w.gpa);
        if (code_mark(r, page))
            return false;
        announce(v, r->obj, page);
    }
    fill(v, va, v->mmu, &w, r->obj->host + page * 4096, write);
    return true;
}

/* May the store be done at the host address, without looking at translations? */
static bool direct_store(struct soft_vcpu *v, const struct soft_page_ref *ref, uint64_t va, unsigned size)
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
        bool ok = open_window(v, va, a->size, write);

        if (v->fpu_parked)
            soft_fpu_unpark(v);
        return (struct soft_slow){NULL, ok ? 0 : 5};
    }
    v->rip = v->page_va + a->pc;
    if (a->kind & SOFT_ACCESS_X87)
        raise_x87(v);
    /* comes before a fault of the segment or the page */
    if ((a->kind & SOFT_ACCESS_ALIGNED) && ((a->kind & SOFT_ACCESS_SEG ? v->seg_base[a->seg] + va : va) & (a->size - 1u)))
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
    if (!canonical(va + a->size - 1)) /* before any page is looked at */
        soft_fault(v, stack ? 12 : 13, 0);
    ref = lookup(v, va, v->mmu, write, stack);
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
    bool dropped = store_parts(v, c->bounce_page, c->bounce_va, c->bounce, c->bounce_size) || c->bounce_leaves;

    c->bounce_leaves = false;
    soft_smp_resume(v);
    if (next != SOFT_NO_GPA && (dropped || atomic_load_explicit(&v->interrupt, memory_order_relaxed))) {
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
    ref = lookup(v, va, mmu, write, false);
    if (!ref.host || (write && ref.readonly))
        return NULL;
    if (write && (ref.code & own_bit(v)) && len)
        soft_code_invalidate(v, ref.gpa | (va & 0xfff), len);
    if (write)
        tell_others(v, &ref, ref.gpa, 4096); /* all of it: then no claim of theirs passes before this vCPU has written */
    return ref.host + (va & 0xfff);
}

void soft_probe(struct soft_vcpu *v, uint64_t va, unsigned len, bool write, unsigned mmu)
{
    for (uint64_t at = va, left = len; left;) {
        unsigned n = first_part(at, left > 4096 ? 4096 : (unsigned)left);

        lookup(v, at, mmu, write, false);
        at = soft_second_page(v, at);
        left -= n;
    }
}

/* --- flushes --- */

static void clear_entry(struct soft_tlb_entry *e)
{
    e->nvpn_read = e->nvpn_write = SOFT_TLB_NONE;
}

/* Clears the entries of one kind, which were listed as they were filled. */
static void clear_fills(struct soft_vcpu *v, unsigned mmu, bool global)
{
    struct soft_fills *f = &v->code->tlb_fills[mmu][global];
    const bool all = f->n > SOFT_FILLS;

    for (unsigned i = 0; i < (all ? SOFT_TLB_SIZE : f->n); i++) {
        struct soft_tlb_entry *e = &v->tlb[mmu][all ? i : f->slot[i]];

        if (!(e->gpa & SOFT_TLB_GLOBAL) == !global)
            clear_entry(e);
    }
    f->n = 0;
}

/* Others look at it, but this can only show them too much for a moment: the entries went first. */
static void clear_written_filter(struct soft_code *c)
{
    for (unsigned i = 0; i < SOFT_WRITTEN; i++)
        atomic_store_explicit(&c->written_filter[i], 0, memory_order_relaxed);
}

void soft_tlb_init(struct soft_vcpu *v)
{
    v->tlb_mask = (uint64_t)(SOFT_TLB_SIZE - 1) << 12;
    v->page_mask = ~0xfffull;
    v->bit_mask[0] = 15;
    v->bit_mask[1] = 31;
    v->bit_mask[2] = 63;
    v->arith_mask = SOFT_ARITH;
    v->pushf_mask = ~(uint64_t)(SOFT_ARITH | HSK_FLAG_RF | HSK_FLAG_VM);
    v->jump_mask = SOFT_JUMP_MASK;
    for (unsigned mmu = 0; mmu < SOFT_NMMU; mmu++)
        for (unsigned i = 0; i < SOFT_TLB_SIZE; i++)
            clear_entry(&v->tlb[mmu][i]);
    soft_tlb_flush_all(v);
}

void soft_tlb_flush_all(struct soft_vcpu *v)
{
    struct soft_code *c = v->code;

    for (unsigned mmu = 0; mmu < SOFT_NMMU; mmu++) {
        clear_fills(v, mmu, false);
        clear_fills(v, mmu, true);
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(c->large[0]); i++)
        c->large[0][i] = c->large[1][i] = 0;
    clear_written_filter(c);
    c->generation++;
    c->generation_global++;
    soft_edges_forget(v);
}

void soft_tlb_flush_nonglobal(struct soft_vcpu *v)
{
    struct soft_code *c = v->code;

    for (unsigned mmu = 0; mmu < SOFT_MMU_PHYS; mmu++)
        clear_fills(v, mmu, false);
    c->generation++;
    soft_jump_flush(v, false);
    soft_returns_forget(v);
}

void soft_tlb_flush_page(struct soft_vcpu *v, uint64_t va)
{
    struct soft_code *c = v->code;

    if (soft_filter_has(c->large[va >> 63], va >> 21)) {
        soft_tlb_flush_all(v);
        return;
    }
    for (unsigned mmu = 0; mmu < SOFT_NMMU; mmu++) {
        struct soft_tlb_entry *e = &v->tlb[mmu][(va >> 12) % SOFT_TLB_SIZE];

        if (e->nvpn_read + (va >> 12) == 0)
            clear_entry(e);
    }
    c->itlb[(va >> 12) % SOFT_ITLB_SIZE].generation = 0;
    soft_returns_forget(v);
    if (soft_filter_has(c->cross_pages, va >> 12))
        soft_unchain_cross(c, va, false);
    soft_jump_flush_page(v, va);
}

/* A new epoch: whoever wants to write has to announce it again. */
void soft_tlb_drop_writes(struct soft_vcpu *v)
{
    for (unsigned mmu = 0; mmu < SOFT_NMMU; mmu++)
        for (unsigned i = 0; i < SOFT_TLB_SIZE; i++)
            v->tlb[mmu][i].nvpn_write = SOFT_TLB_NONE;
    clear_written_filter(v->code);
}

/* The page gets its first translation, of v or of another vCPU while v stands still. */
void soft_tlb_drop_write_gpa(struct soft_vcpu *v, uint64_t gpa)
{
    struct soft_code *c = v->code;
    const uint64_t same_bit = 64 * SOFT_WRITTEN - 1;
    bool shared = false; /* the filter's bit, with a page that may still be written */

    if (!soft_may_write(c, gpa))
        return;
    for (unsigned id = *writers_of(c, gpa); id && id != SOFT_WRITERS_END; id = c->writer_next[id - 1]) {
        struct soft_tlb_entry *e = &v->tlb[(id - 1) / SOFT_TLB_SIZE][(id - 1) % SOFT_TLB_SIZE];

        if ((e->gpa & ~0xfffull) == gpa)
            e->nvpn_write = SOFT_TLB_NONE;
        else
            shared |= e->nvpn_write != SOFT_TLB_NONE && ((e->gpa ^ gpa) >> 12 & same_bit) == 0;
    }
    if (!shared)
        atomic_fetch_and(&c->written_filter[(gpa >> 18) % SOFT_WRITTEN], ~(1ull << (gpa >> 12 & 63)));
}

/* --- fetch --- */

const struct soft_itlb *soft_fetch_page(struct soft_vcpu *v, uint64_t va, unsigned mmu)
{
    struct soft_code *c = v->code;
    struct soft_itlb *e = &c->itlb[(va >> 12) % SOFT_ITLB_SIZE];
    const struct hsk_ram_region *r;
    struct soft_walk w;
    uint64_t page;
    int error;

    if (e->vpn == va >> 12 && e->mmu == mmu && e->generation == (e->global ? c->generation_global : c->generation))
        return e;
    if (!canonical(va)) {
        v->exc = (struct soft_exception){.vector = 13, .has_error = 1};
        return NULL;
    }
    error = soft_walk(v, va, SOFT_ACC_FETCH, mmu, &w);
    if (error >= 0) {
        v->exc = (struct soft_exception){.vector = 14, .has_error = 1, .error = (uint32_t)error, .payload = va};
        return NULL;
    }
    r = soft_region(v, w.gpa, &page);
    if (!r)
        soft_unimplemented(v, "running code from the device memory at %#" G_GINT64_MODIFIER "x", w.gpa);
    if (w.large)
        soft_filter_set(c->large[va >> 63], va >> 21);
    *e = (struct soft_itlb){.vpn = va >> 12, .gpa = w.gpa, .host = r->obj->host + page * 4096, .mmu = (uint8_t)mmu,
                            .global = w.global, .generation = w.global ? c->generation_global : c->generation};
    return e;
}
