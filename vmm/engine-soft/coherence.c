/* SPDX-License-Identifier: MIT */
/*
 * The pages that translations were made from: marked, so that whoever writes them says so, and what
 * was made from the written bytes is dropped, on all vCPUs (SDM vol. 3, 9.1.3: self- and
 * cross-modifying code).
 *
 * Bytes are counted by granules of 64. A page that is written beside its code too often loses all
 * its translations. vCPU thread; soft_code_written() and soft_code_post() are for any thread.
 * General registers only (xlate.h).
 */
#include "xlate.h"

static struct soft_page *find_page(const struct soft_code *c, uint64_t gpa)
{
    struct soft_page *p = c->pages[(gpa >> 12) % SOFT_PAGE_HASH];

    while (p && p->gpa != (gpa & ~0xfffull))
        p = p->next;
    return p;
}

static void set_code_attr(struct soft_vcpu *v, uint64_t gpa, bool on)
{
    uint64_t page;
    const struct hsk_ram_region *r = soft_region(v, gpa, &page);

    if (!r)
        return;
    if (on)
        atomic_fetch_or(&r->obj->code[page], (uint8_t)(1u << v->base.index));
    else
        atomic_fetch_and(&r->obj->code[page], (uint8_t) ~(1u << v->base.index));
}

void soft_pages_disclaim(struct soft_vcpu *v)
{
    struct soft_code *c = v->code;

    for (unsigned i = 0; i < SOFT_PAGE_HASH; i++) {
        for (struct soft_page *p = c->pages[i]; p; p = p->next)
            set_code_attr(v, p->gpa, false);
        c->pages[i] = NULL;
    }
}

/*
 * Order against writers: the mark is set, then all permissions to write are taken away, then the
 * page is read. A vCPU that enters a permission does it the other way round (mark in
 * written_filter, look at the page's mark: tlb.c), so one of the two sees the other; one that
 * writes through C, and a device, look at the mark after they wrote.
 */
void soft_code_claim(struct soft_vcpu *v, uint64_t gpa)
{
    struct soft_code *c = v->code;
    struct soft_page *p = find_page(c, gpa);

    if (!p) {
        struct soft_page **head = &c->pages[(gpa >> 12) % SOFT_PAGE_HASH];

        p = soft_code_alloc(c, sizeof *p);
        *p = (struct soft_page){.gpa = gpa & ~0xfffull, .patience = 256, .next = *head};
        *head = p;
    }
    if (p->claimed)
        return;
    p->claimed = true;
    set_code_attr(v, p->gpa, true);
    soft_tlb_drop_write_gpa(v, p->gpa);
    soft_smp_revoke_writes(v, p->gpa);
}

void soft_page_enter(struct soft_vcpu *v, struct soft_block *b, uint64_t gpa, uint64_t granules)
{
    struct soft_page *p = find_page(v->code, gpa);

    hsk_assert(p); /* claimed */
    p->granules |= granules;
    if ((gpa & ~0xfffull) == (b->gpa & ~0xfffull))
        b->page_next = p->blocks;
    else
        b->page_next2 = p->blocks;
    p->blocks = b;
}

static void remove_from_list(struct soft_code *c, struct soft_block *b, uint64_t gpa)
{
    struct soft_page *p = find_page(c, gpa);
    struct soft_block **at = p ? &p->blocks : NULL;

    while (at && *at && *at != b)
        at = ((*at)->gpa & ~0xfffull) == p->gpa ? &(*at)->page_next : &(*at)->page_next2;
    if (at && *at)
        *at = (b->gpa & ~0xfffull) == p->gpa ? b->page_next : b->page_next2;
}

static uint64_t granule_mask(uint64_t gpa, unsigned len)
{
    unsigned first = (unsigned)(gpa & 0xfff) / 64, last = (unsigned)((gpa & 0xfff) + len - 1) / 64;

    return (last == 63 ? ~0ull : (1ull << (last + 1)) - 1) & ~((1ull << first) - 1);
}

bool soft_code_touches(const struct soft_code *c, uint64_t gpa, unsigned len)
{
    const struct soft_page *p = find_page(c, gpa);

    return p && p->granules & granule_mask(gpa, len);
}

static void disclaim(struct soft_vcpu *v, struct soft_page *p)
{
    p->claimed = false;
    set_code_attr(v, p->gpa, false);
}

bool soft_code_invalidate(struct soft_vcpu *v, uint64_t gpa, unsigned len)
{
    struct soft_code *c = v->code;
    struct soft_page *p = find_page(c, gpa);
    uint64_t mask = granule_mask(gpa, len), left = 0;
    struct soft_block **at;
    bool any = false;

    if (!p || !(p->granules & mask))
        return false;
    at = &p->blocks;
    while (*at) {
        struct soft_block *b = *at;
        bool first = (b->gpa & ~0xfffull) == p->gpa;
        uint64_t g = first ? b->granules : b->granules2;

        if (!(g & mask)) {
            left |= g;
            at = first ? &b->page_next : &b->page_next2;
            continue;
        }
        *at = first ? b->page_next : b->page_next2;
        if (b->gpa2 != SOFT_NO_GPA)
            remove_from_list(c, b, first ? b->gpa2 : b->gpa);
        soft_block_drop(v, b);
        any = true;
    }
    p->granules = left;
    if (!p->blocks)
        disclaim(v, p);
    return any;
}

/* Pages change their use: one that is only data now must not stay slow for code that nobody runs
 * any more. */
bool soft_code_bear_write(struct soft_vcpu *v, uint64_t gpa)
{
    struct soft_page *p = find_page(v->code, gpa);

    if (!p || ++p->data_writes < p->patience)
        return false;
    p->data_writes = 0;
    if (p->patience < 1u << 20)
        p->patience *= 2;
    if (p->blocks)
        return soft_code_invalidate(v, p->gpa, 4096);
    disclaim(v, p); /* its first instruction could not be fetched */
    return false;
}

void soft_code_post(struct soft_vcpu *v, uint64_t gpa, unsigned len)
{
    struct soft_code *c = v->code;
    struct soft_written *w = c->written, *end;

    pthread_mutex_lock(&c->written_lock);
    end = w + MIN(c->nwritten, G_N_ELEMENTS(c->written));
    while (w < end && w->gpa >> 12 != gpa >> 12)
        w++;
    if (w < end) {
        uint64_t last = MAX(w->gpa + w->len, gpa + len);

        w->gpa = MIN(w->gpa, gpa);
        w->len = (uint32_t)(last - w->gpa);
    } else {
        if (c->nwritten < G_N_ELEMENTS(c->written))
            *w = (struct soft_written){gpa, len};
        c->nwritten++;
    }
    pthread_mutex_unlock(&c->written_lock);
    soft_interrupt(v, SOFT_INT_CODE);
}

/* A device wrote a page that has translations. Any thread. */
void soft_code_written(void *opaque, struct hsk_memobj *obj, uint64_t page)
{
    struct soft_engine *e = opaque;
    struct hsk_ram_region r[HSK_RAM_MAX_REGIONS];
    unsigned n = hsk_ram_regions(e->base.cfg.ram, r), holders = atomic_load(&obj->code[page]);

    for (unsigned i = 0; i < n; i++) {
        if (r[i].obj != obj || page * 4096 - r[i].offset >= r[i].size_bytes)
            continue;
        for (unsigned k = 0; k < G_N_ELEMENTS(e->vcpu); k++)
            if (e->vcpu[k] && (holders >> k & 1))
                soft_code_post(e->vcpu[k], r[i].gpa + page * 4096 - r[i].offset, 4096);
    }
}

/* In the dispatcher, FPU parked: does what others asked for since. */
void soft_code_collect_written(struct soft_vcpu *v)
{
    struct soft_code *c = v->code;
    struct soft_written w[G_N_ELEMENTS(c->written)];
    uint32_t n;

    pthread_mutex_lock(&c->written_lock);
    n = c->nwritten;
    for (uint32_t i = 0; i < n && i < G_N_ELEMENTS(w); i++)
        w[i] = c->written[i];
    c->nwritten = 0;
    pthread_mutex_unlock(&c->written_lock);
    if (n > G_N_ELEMENTS(w)) {
        soft_code_flush(v);
        return;
    }
    for (uint32_t i = 0; i < n; i++)
        if (!soft_code_invalidate(v, w[i].gpa, w[i].len))
            soft_code_bear_write(v, w[i].gpa);
}
