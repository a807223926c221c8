/* SPDX-License-Identifier: MIT */
/*
 * The TLB: filled here on a miss, looked up by translated code (layout in soft.h) and by access.c;
 * flushed; its entries that allow to write a page are found by the page's address, to take that
 * back. Beside it the pages that code is fetched from. vCPU thread, the guest's FPU registers live;
 * general registers only.
 */
#include <vmm/cpu_bits.h>

#include "xlate.h"

const struct hsk_ram_region *soft_region(struct soft_vcpu *v, uint64_t gpa, uint64_t *page)
{
    const struct hsk_ram_region *r = hsk_ram_find(v->base.engine->cfg.ram, gpa);

    if (r)
        *page = (gpa - r->gpa + r->offset) >> HSK_PAGE_SHIFT;
    return r;
}

static void announce(struct soft_vcpu *v, struct hsk_memobj *obj, uint64_t page)
{
    if (obj->before_write &&
        !(atomic_load_explicit(&obj->attr[page], memory_order_relaxed) & HSK_PAGE_SAVED))
        soft_fpu_park(v);
    hsk_memobj_will_write(obj, page);
    if (v->lockstep)
        soft_lockstep_write(v, obj->host + page * 4096);
}

/* From here to the next safe point the page may be written. To be called before its code mark is
   looked at (soft_code_claim). */
static void mark_written(struct soft_vcpu *v, uint64_t gpa)
{
    if (!soft_may_write(v->code, gpa))
        atomic_fetch_or(&v->code->written_filter[(gpa >> 18) % SOFT_WRITTEN],
                        1ull << (gpa >> 12 & 63));
}

static uint8_t code_mark(const struct hsk_ram_region *r, uint64_t page)
{
    return atomic_load_explicit(&r->obj->code[page], memory_order_relaxed);
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
    *at = c->writer_next[entry] == SOFT_WRITERS_END && at == writers_of(c, gpa)
              ? 0
              : c->writer_next[entry];
    c->writer_next[entry] = 0;
}

/* --- filling --- */

/* Enters a page into the TLB; write: it may be written directly. */
static void fill(struct soft_vcpu *v, uint64_t va, unsigned mmu, const struct soft_walk *w,
                 uint8_t *host, bool write)
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

struct soft_page_ref soft_lookup(struct soft_vcpu *v, uint64_t va, unsigned mmu, bool write,
                                 bool stack)
{
    struct soft_walk w;
    struct soft_page_ref ref = {0};
    const struct hsk_ram_region *r;
    uint64_t page;
    int error;

    if (!hsk_canonical(va))
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

bool soft_open_window(struct soft_vcpu *v, uint64_t va, unsigned size, bool write)
{
    struct soft_walk w;
    const struct hsk_ram_region *r;
    uint64_t page;

    if ((va & 0xfff) + size > 4096 || !hsk_canonical(va))
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
    for (unsigned id = *writers_of(c, gpa); id && id != SOFT_WRITERS_END;
         id = c->writer_next[id - 1]) {
        struct soft_tlb_entry *e = &v->tlb[(id - 1) / SOFT_TLB_SIZE][(id - 1) % SOFT_TLB_SIZE];

        if ((e->gpa & ~0xfffull) == gpa)
            e->nvpn_write = SOFT_TLB_NONE;
        else
            shared |= e->nvpn_write != SOFT_TLB_NONE && ((e->gpa ^ gpa) >> 12 & same_bit) == 0;
    }
    if (!shared)
        atomic_fetch_and(&c->written_filter[(gpa >> 18) % SOFT_WRITTEN],
                         ~(1ull << (gpa >> 12 & 63)));
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

    if (e->vpn == va >> 12 && e->mmu == mmu &&
        e->generation == (e->global ? c->generation_global : c->generation))
        return e;
    if (!hsk_canonical(va)) {
        v->exc = (struct soft_exception){.vector = 13, .has_error = 1};
        return NULL;
    }
    error = soft_walk(v, va, SOFT_ACC_FETCH, mmu, &w);
    if (error >= 0) {
        v->exc = (struct soft_exception){
            .vector = 14, .has_error = 1, .error = (uint32_t)error, .payload = va};
        return NULL;
    }
    r = soft_region(v, w.gpa, &page);
    if (!r)
        soft_unimplemented(v, "running code from the device memory at %#" G_GINT64_MODIFIER "x",
                           w.gpa);
    if (w.large)
        soft_filter_set(c->large[va >> 63], va >> 21);
    *e = (struct soft_itlb){.vpn = va >> 12,
                            .gpa = w.gpa,
                            .host = r->obj->host + page * 4096,
                            .mmu = (uint8_t)mmu,
                            .global = w.global,
                            .generation = w.global ? c->generation_global : c->generation};
    return e;
}
