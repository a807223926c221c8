/* SPDX-License-Identifier: MIT */
/*
 * The page walker: 4-level, PAE and 32-bit paging (SDM vol. 3, 4.3-4.7), called on a TLB miss.
 *
 * Accessed and dirty bits are set with compare-exchange after the whole walk has succeeded, so that
 * two processors and the guest's own atomic updates agree; a lost race walks again. Page-table
 * pages that are written are announced. Missing on purpose: 5-level paging and protection keys (not
 * in the model).
 *
 * Thread: the vCPU's, with the guest's FPU registers live; hsk_ram_find is compiled without them
 * too.
 */
#include "system.h"

enum { PTE_P = 1, PTE_W = 2, PTE_U = 4, PTE_A = 0x20, PTE_D = 0x40, PTE_PS = 0x80, PTE_G = 0x100 };
#define PTE_NX       (1ull << 63)
#define PTE_ADDR     (HSK_PHYS_MASK & ~0xfffull)
#define PTE_RESERVED (0x000fffffffffffffull & ~HSK_PHYS_MASK)
#define PTE_IGNORED  (0x7ffull << 52) /* by 4-level paging; reserved with PAE */

enum { PF_P = 1, PF_W = 2, PF_U = 4, PF_RSVD = 8, PF_FETCH = 16 };

#define WALK_AGAIN (-2)

struct entry {
    void *host; /* NULL: not memory, reads all-ones */
    struct hsk_memobj *obj;
    uint64_t page;
    bool readonly;
    uint64_t value;
};

struct walk {
    struct soft_vcpu *v;
    unsigned entry_size; /* 8, or 4 with 32-bit paging */
    unsigned depth;
    struct entry entry[4];
    uint64_t allowed; /* PTE_W | PTE_U of all levels */
    bool nx, large;
};

static uint64_t read_entry(struct walk *w, uint64_t gpa)
{
    const struct hsk_ram_region *r = hsk_ram_find(w->v->base.engine->cfg.ram, gpa);
    struct entry *e = &w->entry[w->depth++];
    uint64_t off;

    if (!r) {
        *e = (struct entry){.value = ~0ull};
        return e->value;
    }
    off = r->offset + (gpa - r->gpa);
    e->host = r->obj->host + off;
    e->obj = r->obj;
    e->page = off >> HSK_PAGE_SHIFT;
    e->readonly = r->readonly;
    e->value = w->entry_size == 8 ? __atomic_load_n((uint64_t *)e->host, __ATOMIC_ACQUIRE)
                                  : __atomic_load_n((uint32_t *)e->host, __ATOMIC_ACQUIRE);
    return e->value;
}

static bool exchange(const struct walk *w, const struct entry *e, uint64_t bits)
{
    uint64_t old = e->value;
    uint32_t old32 = (uint32_t)old;

    if (w->entry_size == 8)
        return __atomic_compare_exchange_n((uint64_t *)e->host, &old, old | bits, false,
                                           __ATOMIC_SEQ_CST, __ATOMIC_RELAXED);
    return __atomic_compare_exchange_n((uint32_t *)e->host, &old32, old32 | (uint32_t)bits, false,
                                       __ATOMIC_SEQ_CST, __ATOMIC_RELAXED);
}

/* A top entry of PAE paging; memory is looked at only if nobody loaded them yet. */
static uint64_t read_pdpte(struct walk *w, unsigned i)
{
    struct soft_vcpu *v = w->v;

    if (!v->pdptes_loaded) {
        for (unsigned n = 0; n < 4; n++) {
            w->depth = 0;
            v->pdpte[n] = read_entry(w, (v->s.cr3 & 0xffffffe0) + 8 * n);
        }
        v->pdptes_loaded = 1;
    }
    w->entry[0] = (struct entry){.value = v->pdpte[i]};
    w->depth = 1;
    return v->pdpte[i];
}

static bool set_bits(struct walk *w, struct entry *e, uint64_t bits)
{
    if ((e->value & bits) == bits || e->readonly || !e->host)
        return true;
    if (e->obj->before_write &&
        !(atomic_load_explicit(&e->obj->attr[e->page], memory_order_relaxed) & HSK_PAGE_SAVED))
        soft_fpu_park(w->v);
    hsk_memobj_will_write(e->obj, e->page);
    if (!exchange(w, e, bits))
        return false;
    if (atomic_load_explicit(&e->obj->code[e->page], memory_order_relaxed)) {
        soft_fpu_park(w->v);
        hsk_ram_written(w->v->base.engine->cfg.ram, e->obj, e->page << HSK_PAGE_SHIFT,
                        HSK_PAGE_SIZE);
    }
    return true;
}

static uint64_t reserved_bits(const struct walk *w, unsigned levels)
{
    return PTE_RESERVED | (w->v->s.efer & HSK_EFER_NXE ? 0 : PTE_NX) |
           (levels == 3 ? PTE_IGNORED : 0);
}

/* Walks down; returns the leaf's physical address of the 4 KiB page, or sets *error to 0 or PF_P |
 * PF_RSVD. */
static uint64_t descend_wide(struct walk *w, uint64_t va, unsigned levels, int *error)
{
    uint64_t table = w->v->s.cr3 & PTE_ADDR;
    const uint64_t reserved = reserved_bits(w, levels);
    const unsigned no_large = w->v->engine->has & SOFT_HAS_1G_PAGES ? 4 : 3;

    for (unsigned level = levels; level > 0; level--) {
        const unsigned shift = 12 + 9 * (level - 1);
        const bool pae_top = levels == 3 && level == 3;
        const uint64_t e = pae_top ? read_pdpte(w, va >> shift & 3)
                                   : read_entry(w, table + 8 * (va >> shift & 511));
        const bool large = (e & PTE_PS) && (level == 2 || level == 3) && !pae_top;

        if (!(e & PTE_P)) {
            *error = 0;
            return 0;
        }
        if ((e & reserved) || ((e & PTE_PS) && level >= no_large) ||
            (pae_top && (e & (PTE_NX | 0x1e6))) ||
            (large && (e & ((1ull << shift) - 1) & ~0x1fffull))) {
            *error = PF_P | PF_RSVD;
            return 0;
        }
        if (!pae_top) {
            w->allowed &= e;
            w->nx |= (e & PTE_NX) != 0;
        }
        w->large = large;
        if (large || level == 1) {
            const uint64_t page_mask = (1ull << shift) - 1;

            return (e & PTE_ADDR & ~page_mask) | (va & page_mask & ~0xfffull);
        }
        table = e & PTE_ADDR;
    }
    return 0;
}

static uint64_t descend_32(struct walk *w, uint64_t va, int *error)
{
    uint64_t e = read_entry(w, (w->v->s.cr3 & 0xfffff000) + 4 * (va >> 22 & 1023));

    *error = 0;
    if (!(e & PTE_P))
        return 0;
    w->allowed &= e;
    if ((e & PTE_PS) && (w->v->s.cr4 & HSK_CR4_PSE)) {
        /* PSE-36: bits 13-20 are physical bits 32-39, of which the model has 7 (SDM vol. 3, table
         * 4-4) */
        if (e & (1u << 21 | 1u << (13 + HSK_PHYS_BITS - 32))) {
            *error = PF_P | PF_RSVD;
            return 0;
        }
        w->large = true;
        *error = -1;
        return (e & 0xffc00000) | (e >> 13 & 0x7f) << 32 | (va & 0x3ff000);
    }
    e = read_entry(w, (e & 0xfffff000) + 4 * (va >> 12 & 1023));
    if (!(e & PTE_P))
        return 0;
    w->allowed &= e;
    *error = -1;
    return e & 0xfffff000;
}

static bool permitted(const struct walk *w, unsigned access, unsigned mmu, bool *writable)
{
    const struct hsk_cpu_state *s = &w->v->s;
    const bool user = w->allowed & PTE_U;

    if (mmu == SOFT_MMU_USER) {
        *writable = w->allowed & PTE_W;
        if (!user)
            return false;
    } else {
        *writable = (w->allowed & PTE_W) || !(s->cr0 & HSK_CR0_WP);
        if (user &&
            (access & SOFT_ACC_FETCH ? !!(s->cr4 & HSK_CR4_SMEP) : mmu == SOFT_MMU_KERNEL_SMAP))
            return false;
    }
    if (access & SOFT_ACC_FETCH)
        return !w->nx;
    return !(access & SOFT_ACC_WRITE) || *writable;
}

static int walk_once(struct soft_vcpu *v, uint64_t va, unsigned access, unsigned mmu,
                     struct soft_walk *out)
{
    const struct hsk_cpu_state *s = &v->s;
    const bool pae = s->cr4 & HSK_CR4_PAE;
    struct walk w; /* set field by field: a compiler may clear a large struct by libc's memset,
                      which uses vector registers */
    int error = -1;
    bool writable = false;
    uint64_t gpa, leaf;

    w.v = v;
    w.entry_size = pae ? 8 : 4;
    w.depth = 0;
    w.allowed = PTE_W | PTE_U;
    w.nx = w.large = false;
    gpa = pae ? descend_wide(&w, va, s->efer & HSK_EFER_LMA ? 4 : 3, &error)
              : descend_32(&w, va, &error);
    if (error < 0 && !permitted(&w, access, mmu, &writable))
        error = PF_P;
    if (error >= 0) {
        const bool fetch_bit = ((s->efer & HSK_EFER_NXE) && pae) || (s->cr4 & HSK_CR4_SMEP);

        return error | (access & SOFT_ACC_WRITE ? PF_W : 0) | (mmu == SOFT_MMU_USER ? PF_U : 0) |
               ((access & SOFT_ACC_FETCH) && fetch_bit ? PF_FETCH : 0);
    }
    for (unsigned i = 0; i < w.depth; i++) {
        const bool is_leaf = i == w.depth - 1;
        const bool pae_top = pae && !(s->efer & HSK_EFER_LMA) && i == 0;

        if (!pae_top &&
            !set_bits(&w, &w.entry[i], PTE_A | (is_leaf && (access & SOFT_ACC_WRITE) ? PTE_D : 0)))
            return WALK_AGAIN;
    }
    leaf = w.entry[w.depth - 1].value;
    out->gpa = gpa;
    out->writable = writable && ((leaf & PTE_D) || (access & SOFT_ACC_WRITE));
    out->global = (leaf & PTE_G) && (s->cr4 & HSK_CR4_PGE);
    out->user = w.allowed & PTE_U;
    out->large = w.large;
    return -1;
}

int soft_walk(struct soft_vcpu *v, uint64_t va, unsigned access, unsigned mmu,
              struct soft_walk *out)
{
    int r;

    if (mmu == SOFT_MMU_PHYS) {
        *out = (struct soft_walk){.gpa = va & ~0xfffull, .writable = true, .user = true};
        return -1;
    }
    do
        r = walk_once(v, va, access, mmu, out);
    while (r == WALK_AGAIN);
    return r;
}
