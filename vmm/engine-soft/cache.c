/* SPDX-License-Identifier: MIT */
/*
 * The code cache of one vCPU: its memory, and the blocks in it, found by guest-physical address and
 * chained by patching jumps. What they were made from, and when they are dropped: coherence.c.
 *
 * The code lies in shared memory that is mapped twice, writable and executable, never both. Hot
 * code fills its first half, cold stubs the second. Nothing is freed singly: a full cache is
 * flushed whole. A dropped block is only unreachable, so the code that is running stays intact
 * until the dispatcher is back. vCPU thread. General registers only (xlate.h), except new, free and
 * flush.
 */
#include <sys/mman.h>

#include "translate.h"

/* Blocks of one page are close to each other. */
static uint64_t block_hash(uint64_t gpa, uint64_t pc, uint32_t mode)
{
    uint64_t page = ((gpa >> 12) + mode * 0x2545f491ull) * 0x9e3779b97f4a7c15ull +
                    (pc >> 12) * 0xd6e8feb86659fd93ull;

    return ((page >> 40) + (gpa & 0xfff) / 4) % SOFT_HASH_SIZE;
}

static uint8_t *tramp(struct emit *e, void (*fn)(void))
{
    uint8_t *at = e_here(e);

    e8(e, 0xff); /* jmp [rip+0] */
    e8(e, 0x25);
    e32(e, 0);
    e64(e, (uint64_t)(uintptr_t)fn);
    return at;
}

static void emit_trampolines(struct soft_code *c)
{
    struct emit e = {.p = c->rw, .rx = c->rx - c->rw};

    c->tramp[SOFT_TRAMP_LINK] = tramp(&e, soft_exit_link);
    c->tramp[SOFT_TRAMP_LOOKUP] = tramp(&e, soft_exit_lookup);
    c->tramp[SOFT_TRAMP_BRANCH] = tramp(&e, soft_exit_branch);
    c->tramp[SOFT_TRAMP_ACCESS] = tramp(&e, soft_thunk_access);
    c->tramp[SOFT_TRAMP_WRITEBACK] = tramp(&e, soft_thunk_writeback);
    c->tramp[SOFT_TRAMP_CALL] = tramp(&e, soft_thunk_call);
    c->hot = 256;
    c->cold = SOFT_COLD_START;
}

struct soft_code *soft_code_new(bool strict, GError **error)
{
    struct soft_code *c = g_new0(struct soft_code, 1);

    c->rx = c->rw = c->arena = c->ret_stack = c->alt_stack = MAP_FAILED;
    pthread_mutex_init(&c->written_lock, NULL);
    /* shared and anonymous: perf takes names for code there from its map, but not for code in a
     * memfd */
    c->rw = mmap(NULL, SOFT_CODE_SIZE, PROT_READ | PROT_WRITE,
                 MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (c->rw != MAP_FAILED)
        c->rx = mremap(c->rw, 0, SOFT_CODE_SIZE,
                       MREMAP_MAYMOVE); /* a second mapping of the same pages */
    c->arena = mmap(NULL, SOFT_ARENA_SIZE, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    c->ret_stack =
        mmap(NULL, SOFT_RET_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    c->alt_stack =
        mmap(NULL, SOFT_ALT_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (c->rw == MAP_FAILED || c->rx == MAP_FAILED || c->arena == MAP_FAILED ||
        c->ret_stack == MAP_FAILED || c->alt_stack == MAP_FAILED ||
        mprotect(c->rx, SOFT_CODE_SIZE, PROT_READ | PROT_EXEC) < 0 ||
        mprotect(c->ret_stack, SOFT_RET_GUARD, PROT_NONE) < 0) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_FAILED,
                    "The memory for translated code cannot be mapped: %s.", g_strerror(errno));
        soft_code_free(c);
        return NULL;
    }
    c->strict = strict;
    c->chain = !strict;
    c->bmi2 = __builtin_cpu_supports("bmi2") != 0;
    c->hash = g_new0(struct soft_block *, SOFT_HASH_SIZE);
    c->tx = g_new0(struct tx, 1);
    c->maxblocks = SOFT_ARENA_SIZE / 512;
    c->order = g_new0(struct soft_block *, c->maxblocks);
    c->maxcross = 1u << 17;
    c->cross = g_new0(struct soft_link *, c->maxcross);
    c->generation = c->generation_global = 1;
    ZydisDecoderInit(&c->decoder[0], ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    ZydisDecoderInit(&c->decoder[1], ZYDIS_MACHINE_MODE_LONG_COMPAT_32, ZYDIS_STACK_WIDTH_32);
    ZydisDecoderInit(&c->decoder[2], ZYDIS_MACHINE_MODE_LONG_COMPAT_16, ZYDIS_STACK_WIDTH_16);
    emit_trampolines(c);
    return c;
}

void soft_code_free(struct soft_code *c)
{
    if (!c)
        return;
    if (c->rw != MAP_FAILED)
        munmap(c->rw, SOFT_CODE_SIZE);
    if (c->rx != MAP_FAILED)
        munmap(c->rx, SOFT_CODE_SIZE);
    if (c->arena != MAP_FAILED)
        munmap(c->arena, SOFT_ARENA_SIZE);
    if (c->ret_stack != MAP_FAILED)
        munmap(c->ret_stack, SOFT_RET_SIZE);
    if (c->alt_stack != MAP_FAILED)
        munmap(c->alt_stack, SOFT_ALT_SIZE);
    pthread_mutex_destroy(&c->written_lock);
    g_free(c->tx);
    g_free(c->hash);
    g_free(c->order);
    g_free(c->cross);
    g_free(c);
}

bool soft_code_full(const struct soft_code *c)
{
    return c->hot > SOFT_COLD_START - SOFT_BLOCK_ROOM ||
           c->cold > SOFT_CODE_SIZE - SOFT_BLOCK_ROOM ||
           c->arena_used > SOFT_ARENA_SIZE - SOFT_BLOCK_ROOM || c->nblocks == c->maxblocks ||
           c->ncross == c->maxcross;
}

/* Pages are made by the hundred, which is cheaper than by a fault each. */
static uint64_t make_pages(uint8_t *base, uint64_t ready, uint64_t need, int advice)
{
    while (ready < need) {
        madvise(base + ready, SOFT_READY_STEP, advice);
        ready += SOFT_READY_STEP;
    }
    return ready;
}

void soft_code_make_ready(struct soft_code *c)
{
    const uint64_t hot = c->hot + SOFT_BLOCK_ROOM,
                   cold = c->cold - SOFT_COLD_START + SOFT_BLOCK_ROOM;

    make_pages(c->rw, c->ready_hot, hot, MADV_POPULATE_WRITE);
    c->ready_hot = make_pages(c->rx, c->ready_hot, hot, MADV_POPULATE_READ);
    make_pages(c->rw + SOFT_COLD_START, c->ready_cold, cold, MADV_POPULATE_WRITE);
    c->ready_cold = make_pages(c->rx + SOFT_COLD_START, c->ready_cold, cold, MADV_POPULATE_READ);
    c->ready_arena =
        make_pages(c->arena, c->ready_arena, c->arena_used + SOFT_BLOCK_ROOM, MADV_POPULATE_WRITE);
}

/* Room was checked by soft_code_full(). */
void *soft_code_alloc(struct soft_code *c, uint64_t size)
{
    void *p = c->arena + c->arena_used;

    c->arena_used += (size + 15) & ~15ull;
    return p;
}

/* Everything translated goes. Only the dispatcher may call this: no translated code is running. */
void soft_code_flush(struct soft_vcpu *v)
{
    struct soft_code *c = v->code;

    soft_pages_disclaim(v);
    memset(c->hash, 0, SOFT_HASH_SIZE * sizeof *c->hash);
    c->nblocks = c->ncross = 0;
    c->arena_used = 0;
    c->hot = 256;
    c->cold = SOFT_COLD_START;
    soft_jump_flush(v, true);
    soft_returns_forget(v);
    v->count.flushes++;
}

uint32_t soft_limit_class(struct soft_vcpu *v, uint32_t limit)
{
    struct soft_code *c = v->code;

    for (uint32_t i = 0; i < c->nlimits; i++)
        if (c->limits[i] == limit)
            return (i + 1) << SOFT_MODE_LIMIT_SHIFT;
    if (c->nlimits == SOFT_LIMIT_CLASSES) {
        soft_code_flush(v);
        v->exit_arg = 0;
        c->nlimits = 0;
    }
    c->limits[c->nlimits++] = limit;
    return c->nlimits << SOFT_MODE_LIMIT_SHIFT;
}

static struct soft_block *match(struct soft_block *b, uint64_t gpa, uint64_t pc, uint32_t mode)
{
    while (b && !(b->gpa == gpa && b->pc == pc && b->mode == mode))
        b = b->hash_next;
    return b;
}

struct soft_block *soft_block_next(const struct soft_block *b)
{
    return match(b->hash_next, b->gpa, b->pc, b->mode);
}

struct soft_block *soft_block_find(struct soft_code *c, uint64_t gpa, uint64_t pc, uint32_t mode)
{
    return match(c->hash[block_hash(gpa, pc, mode)], gpa, pc, mode);
}

void soft_block_publish(struct soft_vcpu *v, struct soft_block *b)
{
    struct soft_code *c = v->code;
    struct soft_block **head = &c->hash[block_hash(b->gpa, b->pc, b->mode)];

    b->valid = true;
    b->hash_next = *head;
    *head = b;
    c->order[c->nblocks++] = b;
    soft_page_enter(v, b, b->gpa, b->granules);
    if (b->gpa2 != SOFT_NO_GPA)
        soft_page_enter(v, b, b->gpa2, b->granules2);
    v->count.blocks++;
    v->count.insns += b->ninsns;
}

static void patch(struct soft_code *c, uint8_t *site, const uint8_t *to)
{
    int32_t rel = (int32_t)(to - (site + 4));

    __atomic_store_n((int32_t *)(void *)(c->rw + (site - c->rx)), rel, __ATOMIC_RELEASE);
}

void soft_link_chain(struct soft_code *c, struct soft_link *l, struct soft_block *to)
{
    if (l->to || !l->from->valid || !to->valid)
        return;
    if (l->cross) {
        if (c->ncross == c->maxcross)
            return;
        c->cross[c->ncross++] = l;
        soft_filter_set(c->cross_pages, l->pc >> 12);
        soft_filter_set(c->cross_pages,
                        (l->pc >> 12) + 1); /* where its last instruction may reach */
    }
    l->to = to;
    l->next_in = to->in;
    to->in = l;
    patch(c, l->site, to->host);
}

static void unchain(struct soft_code *c, struct soft_link *l)
{
    struct soft_link **p = &l->to->in;

    while (*p != l)
        p = &(*p)->next_in;
    *p = l->next_in;
    l->to = NULL;
    patch(c, l->site, l->stub);
}

/* The mapping of va's page (or of all) changed: edges from other pages to it must look again. */
void soft_unchain_cross(struct soft_code *c, uint64_t va, bool all)
{
    uint32_t kept = 0;

    for (uint32_t i = 0; i < c->ncross; i++) {
        struct soft_link *l = c->cross[i];

        if (!l->to || !l->cross)
            continue; /* dropped since */
        if (all || l->pc >> 12 == va >> 12 ||
            (l->to->gpa2 != SOFT_NO_GPA && (l->pc >> 12) + 1 == va >> 12))
            unchain(c, l);
        else
            c->cross[kept++] = l;
    }
    c->ncross = kept;
    if (all)
        for (unsigned i = 0; i < G_N_ELEMENTS(c->cross_pages); i++)
            c->cross_pages[i] = 0;
}

void soft_block_drop(struct soft_vcpu *v, struct soft_block *b)
{
    struct soft_code *c = v->code;
    struct soft_block **at = &c->hash[block_hash(b->gpa, b->pc, b->mode)];

    while (*at && *at != b)
        at = &(*at)->hash_next;
    if (*at)
        *at = b->hash_next;
    while (b->in)
        unchain(c, b->in);
    for (unsigned i = 0; i < b->nlinks; i++)
        if (b->links[i].to)
            unchain(c, &b->links[i]);
    soft_jump_drop(v, b);
    b->valid = false;
    v->count.invalidations++;
}

void soft_edges_forget(struct soft_vcpu *v)
{
    soft_unchain_cross(v->code, 0, true);
    soft_jump_flush(v, true);
    soft_returns_forget(v);
}

/* The block that a host address lies in, and the guest instruction there; for the signal handler.
 */
const struct soft_block *soft_code_find_host(const struct soft_code *c, const uint8_t *host,
                                             uint64_t *guest_pc)
{
    uint32_t off = (uint32_t)(host - c->rx), lo = 0, hi = c->nblocks;
    bool cold = off >= SOFT_COLD_START;
    const struct soft_block *b;

    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;

        if ((cold ? c->order[mid]->cold_start : c->order[mid]->host_start) <= off)
            lo = mid + 1;
        else
            hi = mid;
    }
    if (!lo)
        return NULL;
    b = c->order[lo - 1];
    if (off >= (cold ? b->cold_end : b->host_end))
        return NULL;
    for (uint32_t i = b->npoints; i-- > 0;)
        if (b->points[i].host <= off) {
            *guest_pc = b->pc + b->points[i].guest;
            return b;
        }
    return NULL;
}
