/* SPDX-License-Identifier: MIT */
/*
 * Near versions, the machine's side: see vmm/near.h for the idea and the threads, and near-read.c
 * for who reads them.
 *
 * A kept point is a node that leads to the next one on the way to memory; the newest leads to
 * memory itself. Beside its array (page -> slot + 1, shared) a layer has the list of its pages, so
 * that nothing here takes time by the size of memory.
 *
 * Forgetting a point moves what its layer alone has to the one that leads to it, if one does, page
 * by page: between two pages all points but the forgotten one are right, so that this can be done
 * in small pieces. A point to which two lead stays until one of them is forgotten.
 */
#include <errno.h>
#include <pthread.h>
#include <sys/mman.h>

#include "near-priv.h"

#define NONE        (-1)
#define TRIM_PAGES  4096 /* of one call: well under a millisecond */
#define TRIM_HOLES  256
#define LEAST_PAGES 64

struct node {
    bool used, passing;
    bool fading;   /* forgotten, its layer not yet taken apart */
    uint64_t name; /* if not fading */
    int next;      /* node, or NONE: memory */
    GBytes *state;
    uint32_t *pages; /* list; room for all */
    uint64_t npages;
};

struct hsk_near {
    struct hsk_near_layout l;
    struct hsk_memobj *obj[HSK_NEAR_OBJECTS];
    int slots_fd;
    _Atomic uint32_t *index; /* shared: layers, then the bitmap */
    uint8_t *slots, *bitmap;
    uint64_t budget;
    void (*full)(void *opaque);
    void *full_opaque;
    /* loop thread */
    struct node node[HSK_NEAR_POINTS];
    uint64_t pinned_name;
    /* lock: the newest node's list, and: */
    pthread_mutex_t lock;
    int newest; /* changed only while stopped or while nothing is recorded */
    bool recording, pinned, told_full;
    unsigned busy;                /* hooks between their slot and its entry */
    uint64_t held;                /* slots in layers */
    uint32_t *warm, *cold;        /* free slots that have memory, and that have none any more */
    uint64_t nwarm, ncold, fresh; /* fresh: the first slot that was never used */
};

/* ---- slots ---- */

static uint8_t *slot_at(const struct hsk_near *n, uint32_t slot)
{
    return n->slots + (uint64_t)(slot - 1) * HSK_PAGE_SIZE;
}

static _Atomic uint32_t *entry(const struct hsk_near *n, int node, uint64_t number)
{
    return &n->index[(uint64_t)node * n->l.total + number];
}

static uint32_t take_slot_locked(struct hsk_near *n)
{
    n->held++;
    if (n->nwarm)
        return n->warm[--n->nwarm];
    if (n->ncold)
        return n->cold[--n->ncold];
    hsk_assert(n->fresh < n->l.nslots);
    return (uint32_t)++n->fresh;
}

static void give_slot_locked(struct hsk_near *n, uint32_t slot)
{
    n->held--;
    n->warm[n->nwarm++] = slot;
}

/* ---- the hook ---- */

static unsigned object_of(const struct hsk_near *n, const struct hsk_memobj *obj)
{
    return n->l.nobjects > 1 && obj == n->obj[1] ? 1 : 0;
}

/* Under the lock of the page's first write. */
static void before_write(struct hsk_memobj *obj, uint64_t page, void *opaque)
{
    struct hsk_near *n = opaque;
    const uint64_t number = n->l.first[object_of(n, obj)] + page;
    bool tell = false;
    uint32_t slot = 0;
    int to = NONE;

    pthread_mutex_lock(&n->lock);
    if (n->recording && !n->pinned && n->held >= n->budget) {
        tell = !n->told_full;
        n->told_full = true;
        if (n->held >= n->budget + n->budget / 2)
            n->recording = false; /* nobody came to make room: all is forgotten */
    }
    if (n->recording) {
        to = n->newest;
        slot = take_slot_locked(n);
        n->node[to].pages[n->node[to].npages++] = (uint32_t)number;
        n->busy++;
    }
    pthread_mutex_unlock(&n->lock);
    if (slot) {
        memcpy(slot_at(n, slot), obj->host + page * HSK_PAGE_SIZE, HSK_PAGE_SIZE);
        atomic_store_explicit(entry(n, to, number), slot, memory_order_release);
        pthread_mutex_lock(&n->lock);
        n->busy--;
        pthread_mutex_unlock(&n->lock);
    }
    if (tell && n->full)
        n->full(n->full_opaque);
}

/* ---- life ---- */

static uint32_t *list_new(uint64_t entries)
{
    void *p = mmap(NULL, entries * sizeof(uint32_t), PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    return p == MAP_FAILED ? NULL : p;
}

static void list_free(uint32_t *list, uint64_t entries)
{
    if (list)
        munmap(list, entries * sizeof(uint32_t));
}

static bool make_lists(struct hsk_near *n, GError **error)
{
    bool ok = (n->warm = list_new(n->l.nslots)) && (n->cold = list_new(n->l.nslots));

    for (unsigned i = 0; ok && i < HSK_NEAR_POINTS; i++)
        ok = (n->node[i].pages = list_new(n->l.total)) != NULL;
    if (!ok)
        g_set_error(error, HSK_ERROR, HSK_ERROR_FAILED,
                    "There is no memory for going back to earlier moments: %s", g_strerror(errno));
    return ok;
}

struct hsk_near *hsk_near_new(struct hsk_memobj *const *objects, unsigned nobjects, int index_fd,
                              int slots_fd, uint64_t budget_pages, GError **error)
{
    struct hsk_near *n = g_new0(struct hsk_near, 1);
    uint64_t sizes[HSK_NEAR_OBJECTS];
    HSK_AUTOFD index = index_fd;

    hsk_assert(nobjects >= 1 && nobjects <= HSK_NEAR_OBJECTS);
    n->slots_fd = slots_fd;
    n->newest = NONE;
    n->budget = MAX(budget_pages, LEAST_PAGES);
    pthread_mutex_init(&n->lock, NULL);
    for (unsigned i = 0; i < nobjects; i++)
        sizes[i] = objects[i]->size_bytes;
    hsk_near_layout(&n->l, sizes, nobjects);
    if ((n->index = hsk_near_map(index, n->l.index_bytes, PROT_READ | PROT_WRITE, error)))
        n->slots = hsk_near_map(slots_fd, n->l.slots_bytes, PROT_READ | PROT_WRITE, error);
    if (!n->slots || !make_lists(n, error)) {
        hsk_near_free(n);
        return NULL;
    }
    n->bitmap = (uint8_t *)(uintptr_t)n->index + n->l.index_bytes - n->l.total / 8;
    for (unsigned i = 0; i < nobjects; i++) {
        n->obj[i] = objects[i];
        objects[i]->before_write_opaque = n;
        objects[i]->before_write = before_write;
    }
    return n;
}

void hsk_near_free(struct hsk_near *n)
{
    if (!n)
        return;
    for (unsigned i = 0; i < n->l.nobjects && n->obj[i]; i++)
        n->obj[i]->before_write = NULL;
    if (n->index)
        munmap((void *)(uintptr_t)n->index, n->l.index_bytes);
    if (n->slots)
        munmap(n->slots, n->l.slots_bytes);
    for (unsigned i = 0; i < HSK_NEAR_POINTS; i++) {
        list_free(n->node[i].pages, n->l.total);
        g_clear_pointer(&n->node[i].state, g_bytes_unref);
    }
    list_free(n->warm, n->l.nslots);
    list_free(n->cold, n->l.nslots);
    if (n->slots_fd >= 0)
        close(n->slots_fd);
    pthread_mutex_destroy(&n->lock);
    g_free(n);
}

void hsk_near_set_full(struct hsk_near *n, void (*full)(void *opaque), void *opaque)
{
    n->full = full;
    n->full_opaque = opaque;
}

/* ---- points ---- */

static int find(const struct hsk_near *n, uint64_t name)
{
    for (int i = 0; i < HSK_NEAR_POINTS; i++)
        if (n->node[i].used && !n->node[i].fading && n->node[i].name == name)
            return i;
    return NONE;
}

/* How many lead to it; *who is one of them. */
static unsigned leaders(const struct hsk_near *n, int node, int *who)
{
    unsigned count = 0;

    *who = NONE;
    for (int i = 0; i < HSK_NEAR_POINTS; i++)
        if (n->node[i].used && n->node[i].next == node) {
            *who = i;
            count++;
        }
    return count;
}

static void forget(struct hsk_near *n, int node)
{
    n->node[node].fading = true;
    g_clear_pointer(&n->node[node].state, g_bytes_unref);
}

/* Nothing is recorded any more, so no kept point can be reached. false: a hook is at work still. */
static bool forget_all(struct hsk_near *n)
{
    pthread_mutex_lock(&n->lock);
    bool idle = n->busy == 0;
    n->recording = false;
    if (idle)
        n->newest = NONE;
    pthread_mutex_unlock(&n->lock);
    for (int i = 0; idle && i < HSK_NEAR_POINTS; i++)
        if (n->node[i].used)
            forget(n, i);
    return idle;
}

/* Takes up to max pages of a fading node's layer away, and then the node; returns how many. */
static uint64_t fade(struct hsk_near *n, int node, uint64_t max)
{
    struct node *f = &n->node[node];
    uint64_t done = 0;
    int to;

    leaders(n, node, &to);
    pthread_mutex_lock(&n->lock);
    while (f->npages && done < max) {
        const uint64_t number = f->pages[--f->npages];
        const uint32_t slot = atomic_load(entry(n, node, number));

        atomic_store(entry(n, node, number), 0);
        done++;
        if (to != NONE && !atomic_load(entry(n, to, number))) {
            atomic_store(entry(n, to, number), slot);
            n->node[to].pages[n->node[to].npages++] = (uint32_t)number;
        } else {
            give_slot_locked(n, slot);
        }
    }
    pthread_mutex_unlock(&n->lock);
    if (f->npages)
        return done;
    if (to != NONE)
        n->node[to].next = f->next;
    f->used = f->fading = false;
    return done;
}

static int unused(struct hsk_near *n)
{
    for (int i = 0; i < HSK_NEAR_POINTS; i++)
        if (!n->node[i].used)
            return i;
    return NONE;
}

static bool on_way(const struct hsk_near *n, uint64_t name, int node)
{
    int i = find(n, name);

    while (i != NONE && i != node)
        i = n->node[i].next;
    return i == node && i != NONE;
}

/* Which to forget first: what passes, then what is farthest from memory, then the oldest. */
static int weakest(const struct hsk_near *n)
{
    int best = NONE;
    uint64_t best_rank = 0;

    for (int i = 0; i < HSK_NEAR_POINTS; i++) {
        const struct node *c = &n->node[i];
        uint64_t rank = c->passing ? 1000 : 1;
        int who;

        if (!c->used || c->fading || i == n->newest || leaders(n, i, &who) > 1 ||
            (n->pinned && on_way(n, n->pinned_name, i)))
            continue;
        for (int at = c->next; at != NONE; at = n->node[at].next)
            rank++;
        if (best == NONE || rank > best_rank ||
            (rank == best_rank && c->name < n->node[best].name)) {
            best = i;
            best_rank = rank;
        }
    }
    return best;
}

unsigned hsk_near_kept(const struct hsk_near *n)
{
    unsigned count = 0;

    for (int i = 0; i < HSK_NEAR_POINTS; i++)
        count += n->node[i].used && !n->node[i].fading;
    return count;
}

uint64_t hsk_near_held(const struct hsk_near *n)
{
    return n->held;
}

/* A node that leads to memory, with an empty layer, behind the newest. */
static void begin(struct hsk_near *n, uint64_t name, bool passing)
{
    hsk_assert(find(n, name) == NONE);
    if (!n->recording && n->newest != NONE)
        hsk_assert(forget_all(n)); /* stopped: no hook is at work */
    int at = unused(n);
    while (at == NONE) { /* trimming has fallen behind */
        for (int i = 0; i < HSK_NEAR_POINTS; i++)
            if (n->node[i].fading)
                fade(n, i, UINT64_MAX);
        if ((at = unused(n)) != NONE)
            break;
        int victim = weakest(n);
        if (victim == NONE)
            hsk_assert(forget_all(n));
        else
            forget(n, victim);
    }
    if (n->newest != NONE)
        n->node[n->newest].next = at;
    n->node[at].used = true;
    n->node[at].passing = passing;
    n->node[at].name = name;
    n->node[at].next = NONE;
    n->newest = at;
    n->recording = true;
}

void hsk_near_point(struct hsk_near *n, uint64_t name, bool passing)
{
    begin(n, name, passing);
    n->pinned = true;
    n->pinned_name = name;
    for (unsigned i = 0; i < n->l.nobjects; i++)
        hsk_memobj_collect(n->obj[i], HSK_PAGE_DIRTY | HSK_PAGE_SAVED,
                           n->bitmap + n->l.first[i] / 8);
}

void hsk_near_settle(struct hsk_near *n, uint64_t name)
{
    hsk_assert(n->recording);
    begin(n, name, false);
    for (unsigned i = 0; i < n->l.nobjects; i++)
        hsk_memobj_collect(n->obj[i], HSK_PAGE_DIRTY | HSK_PAGE_SAVED, NULL);
}

void hsk_near_set_state(struct hsk_near *n, GBytes *state)
{
    g_clear_pointer(&n->node[n->newest].state, g_bytes_unref);
    n->node[n->newest].state = g_bytes_ref(state);
}

GBytes *hsk_near_state(const struct hsk_near *n, uint64_t name)
{
    int at = n->recording ? find(n, name) : NONE;

    return at == NONE ? NULL : n->node[at].state;
}

unsigned hsk_near_way(const struct hsk_near *n, uint64_t name, uint32_t way[HSK_NEAR_POINTS])
{
    unsigned count = 0;

    for (int i = find(n, name); i != NONE && count < HSK_NEAR_POINTS; i = n->node[i].next)
        way[count++] = (uint32_t)i;
    return count;
}

static void dirty_again(struct hsk_near *n, uint64_t number)
{
    const unsigned i = n->l.nobjects > 1 && number >= n->l.first[1] ? 1 : 0;

    atomic_fetch_or(&n->obj[i]->attr[number - n->l.first[i]], HSK_PAGE_DIRTY);
}

void hsk_near_release(struct hsk_near *n, bool failed)
{
    uint32_t way[HSK_NEAR_POINTS];
    const unsigned count = failed && n->pinned ? hsk_near_way(n, n->pinned_name, way) : 0;

    for (uint64_t at = 0; count && at < n->l.total; at += 64)
        for (uint64_t bits = hsk_get64(n->bitmap + at / 8); bits; bits &= bits - 1)
            dirty_again(n, at + (unsigned)__builtin_ctzll(bits));
    for (unsigned i = 0; i + 1 < count; i++)
        for (uint64_t k = 0; k < n->node[way[i]].npages; k++)
            dirty_again(n, n->node[way[i]].pages[k]);
    pthread_mutex_lock(&n->lock);
    n->pinned = false;
    pthread_mutex_unlock(&n->lock);
}

/* ---- going back ---- */

/* The content of the slot into memory; returns the slot with what memory had. */
static uint32_t exchange(struct hsk_near *n, struct hsk_memobj *obj, uint64_t page, uint32_t slot)
{
    uint8_t *host = obj->host + page * HSK_PAGE_SIZE;
    const uint32_t old = take_slot_locked(n);

    memcpy(slot_at(n, old), host, HSK_PAGE_SIZE);
    memcpy(host, slot_at(n, slot), HSK_PAGE_SIZE);
    atomic_fetch_or(&obj->attr[page], HSK_PAGE_DAMAGE);
    return old;
}

int64_t hsk_near_go_back(struct hsk_near *n, uint64_t name,
                         void (*changed)(void *opaque, struct hsk_memobj *obj, uint64_t page),
                         void *opaque)
{
    const int to = n->recording ? find(n, name) : NONE, from = n->newest;

    if (to == NONE || from == to)
        return to == NONE ? -1 : 0;
    hsk_assert(n->node[from].npages == 0);
    struct node *b = &n->node[from], *v = &n->node[to];
    for (int at = to; at != from; at = n->node[at].next) {
        for (uint64_t k = 0; k < n->node[at].npages; k++) {
            const uint64_t number = n->node[at].pages[k];
            const unsigned i = n->l.nobjects > 1 && number >= n->l.first[1] ? 1 : 0;

            if (atomic_load(entry(n, from, number)))
                continue; /* a layer before has it */
            b->pages[b->npages++] = (uint32_t)number;
            atomic_store(entry(n, from, number), exchange(n, n->obj[i], number - n->l.first[i],
                                                          atomic_load(entry(n, at, number))));
            if (changed)
                changed(opaque, n->obj[i], number - n->l.first[i]);
        }
    }
    /* All that its layer had is in memory now. */
    while (v->npages) {
        const uint64_t number = v->pages[--v->npages];

        give_slot_locked(n, atomic_exchange(entry(n, to, number), 0));
    }
    b->next = to;
    v->next = NONE;
    n->newest = to;
    return (int64_t)b->npages;
}

/* ---- making room ---- */

static bool punch(struct hsk_near *n)
{
    for (unsigned i = 0; i < TRIM_HOLES; i++) {
        pthread_mutex_lock(&n->lock);
        const uint32_t slot = n->nwarm > n->budget / 4 ? n->warm[--n->nwarm] : 0;
        pthread_mutex_unlock(&n->lock);
        if (!slot)
            return false;
        fallocate(n->slots_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                  (off_t)(slot - 1) * HSK_PAGE_SIZE, HSK_PAGE_SIZE);
        pthread_mutex_lock(&n->lock);
        n->cold[n->ncold++] = slot;
        pthread_mutex_unlock(&n->lock);
    }
    return true;
}

/* Decides about one point. true: one more was forgotten. */
static bool forget_one(struct hsk_near *n)
{
    pthread_mutex_lock(&n->lock);
    const bool lost = !n->recording && n->newest != NONE, many = n->held > n->budget;
    n->told_full = false;
    pthread_mutex_unlock(&n->lock);
    if (lost)
        return forget_all(n);
    if (!many && hsk_near_kept(n) <= HSK_NEAR_KEPT)
        return false;
    int victim = weakest(n);
    if (victim != NONE) {
        forget(n, victim);
        return true;
    }
    return many && !n->pinned && n->newest != NONE && forget_all(n);
}

/* The next to be taken apart: rather one whose pages nobody inherits. */
static int fading(const struct hsk_near *n)
{
    int at = NONE, who;

    for (int i = 0; i < HSK_NEAR_POINTS; i++)
        if (n->node[i].used && n->node[i].fading && (at == NONE || leaders(n, i, &who) == 0))
            at = i;
    return at;
}

bool hsk_near_trim(struct hsk_near *n)
{
    uint64_t left = TRIM_PAGES;

    for (;;) {
        int at = fading(n);
        if (at == NONE && !forget_one(n))
            break;
        if (at == NONE)
            continue;
        left -= fade(n, at, left);
        if (left == 0)
            return true;
    }
    return punch(n);
}
