/* SPDX-License-Identifier: MIT */
/*
 * Near versions: random writes, points, ways back and forgetting against a plain model; and a
 * reader beside writing threads, by the protocol that needs no lock.
 */
#include <vmm/near.h>

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/mman.h>

#include "rounds.h"

#include <cmocka.h>

#define RAM_PAGES  1000
#define VRAM_PAGES 100
#define PAGES      (RAM_PAGES + VRAM_PAGES)
#define VERSIONS   400

struct fixture {
    struct hsk_memobj *obj[2];
    struct hsk_near *near;
    struct hsk_near_view view;
    GRand *rng;
    uint64_t stamp;
    uint64_t now[PAGES];  /* the model: what each page holds */
    uint64_t base[PAGES]; /* what DIRTY counts from */
    uint64_t *then[VERSIONS];
    unsigned nthen, changed;
    int index_fd;
};

static uint64_t *words(struct fixture *f, unsigned page)
{
    struct hsk_memobj *obj = f->obj[page >= RAM_PAGES];

    page -= page >= RAM_PAGES ? RAM_PAGES : 0;
    return (uint64_t *)(void *)(obj->host + (uint64_t)page * HSK_PAGE_SIZE);
}

static void put(struct fixture *f, unsigned page, uint64_t stamp)
{
    unsigned in_obj = page >= RAM_PAGES ? page - RAM_PAGES : page;

    hsk_memobj_will_write(f->obj[page >= RAM_PAGES], in_obj);
    words(f, page)[0] = words(f, page)[511] = f->now[page] = stamp;
}

static struct fixture *fixture_new(uint64_t budget)
{
    struct fixture *f = g_new0(struct fixture, 1);
    const uint64_t sizes[] = {RAM_PAGES * HSK_PAGE_SIZE, VRAM_PAGES * HSK_PAGE_SIZE};
    struct hsk_near_layout l;
    g_autoptr(GError) error = NULL;

    f->rng = g_rand_new_with_seed(4711);
    f->obj[0] = hsk_memobj_new("ram", sizes[0], &error);
    f->obj[1] = hsk_memobj_new("vram", sizes[1], &error);
    assert_true(f->obj[0] && f->obj[1]);
    hsk_near_layout(&l, sizes, 2);
    int index = hsk_memfd_new("near", l.index_bytes, &error),
        slots = hsk_memfd_new("near.slots", l.slots_bytes, &error);
    f->index_fd = dup(index);
    assert_true(hsk_near_view_init(&f->view, sizes, 2, index, slots, &error));
    f->near = hsk_near_new(f->obj, 2, index, slots, budget, &error);
    assert_non_null(f->near);
    return f;
}

static void fixture_free(struct fixture *f)
{
    hsk_near_free(f->near);
    hsk_near_view_clear(&f->view);
    hsk_memobj_free(f->obj[0]);
    hsk_memobj_free(f->obj[1]);
    for (unsigned i = 0; i < f->nthen; i++)
        g_free(f->then[i]);
    close(f->index_fd);
    g_rand_free(f->rng);
    g_free(f);
}

static void read_page(struct fixture *f, const uint32_t *way, unsigned nway, unsigned page,
                      uint64_t *out)
{
    unsigned object = page >= RAM_PAGES;

    hsk_near_read(&f->view, way, nway, object, f->obj[object], object ? page - RAM_PAGES : page,
                  out);
}

/* Every kept point reads as it was; returns how many are kept. */
static unsigned check(struct fixture *f)
{
    uint64_t got[512];
    unsigned kept = 0;

    for (unsigned p = 0; p < PAGES; p++) {
        assert_int_equal(words(f, p)[0], f->now[p]);
        assert_int_equal(words(f, p)[511], f->now[p]);
    }
    for (unsigned v = 0; v < f->nthen; v++) {
        uint32_t way[HSK_NEAR_POINTS];
        unsigned nway = hsk_near_way(f->near, v, way);

        if (!nway || !hsk_near_state(f->near, v))
            continue;
        kept++;
        for (unsigned p = 0; p < PAGES; p++) {
            read_page(f, way, nway, p, got);
            assert_int_equal(got[0], f->then[v][p]);
            assert_int_equal(got[511], f->then[v][p]);
        }
    }
    return kept;
}

static void point(struct fixture *f, bool passing)
{
    g_autoptr(GBytes) state = g_bytes_new(&f->nthen, sizeof f->nthen);

    hsk_near_point(f->near, f->nthen, passing);
    hsk_near_set_state(f->near, state);
    f->then[f->nthen++] = g_memdup2(f->now, sizeof f->now);
    /* What differs from the base is in the bitmap. */
    for (unsigned p = 0; p < PAGES; p++) {
        unsigned object = p >= RAM_PAGES, in_obj = object ? p - RAM_PAGES : p;
        if (f->now[p] != f->base[p])
            assert_true(hsk_near_dirty(&f->view, object)[in_obj / 8] >> (in_obj % 8) & 1);
    }
}

static void count_changed(void *opaque, struct hsk_memobj *obj, uint64_t page)
{
    struct fixture *f = opaque;

    f->changed++;
    assert_true(atomic_load(&obj->attr[page]) & HSK_PAGE_DAMAGE);
    assert_false(atomic_load(&obj->attr[page]) & (HSK_PAGE_DIRTY | HSK_PAGE_SAVED));
}

static void go_back(struct fixture *f, unsigned v)
{
    bool kept = hsk_near_state(f->near, v) != NULL;
    int64_t n;

    f->changed = 0;
    n = hsk_near_go_back(f->near, v, count_changed, f);
    assert_int_equal(n >= 0, kept);
    assert_int_equal(f->changed, MAX(n, 0));
    if (kept)
        memcpy(f->now, f->then[v], sizeof f->now);
}

static void write_some(struct fixture *f, unsigned most)
{
    unsigned n = (unsigned)g_rand_int_range(f->rng, 0, (gint32)most);

    /* half of them in a few hot pages */
    for (unsigned i = 0; i < n; i++)
        put(f,
            (unsigned)(g_rand_boolean(f->rng) ? g_rand_int_range(f->rng, 0, 20)
                                              : g_rand_int_range(f->rng, 0, PAGES)),
            ++f->stamp);
}

/* The end of a commit, good or not: what DIRTY counts from follows. */
static void commit(struct fixture *f, unsigned base, bool failed)
{
    hsk_near_release(f->near, failed);
    if (!failed)
        memcpy(f->base, f->then[base], sizeof f->base);
}

static void story(uint64_t budget, unsigned most)
{
    struct fixture *f = fixture_new(budget);
    unsigned back = 0, kept = 0;

    while (f->nthen < VERSIONS - 2) {
        bool failed = g_rand_int_range(f->rng, 0, 5) == 0;

        write_some(f, most);
        point(f, g_rand_int_range(f->rng, 0, 3) == 0);
        unsigned base = f->nthen - 1;
        if (g_rand_boolean(f->rng)) {
            unsigned v =
                (unsigned)g_rand_int_range(f->rng, MAX(0, (gint32)f->nthen - 9), (gint32)f->nthen);
            if (hsk_near_state(f->near, v)) {
                base = v;
                back++;
            }
            go_back(f, v);
        }
        write_some(f, most);
        kept = MAX(kept, check(f));
        while (g_rand_int_range(f->rng, 0, 4) && hsk_near_trim(f->near))
            ;
        check(f);
        commit(f, base, failed);
        write_some(f, most);
        while (g_rand_int_range(f->rng, 0, 4) && hsk_near_trim(f->near))
            ;
        check(f);
    }
    while (hsk_near_trim(f->near))
        ;
    assert_true(hsk_near_held(f->near) <= MAX(budget, 64));
    assert_true(hsk_near_kept(f->near) <= HSK_NEAR_KEPT);
    assert_true(back > 20);
    assert_true(kept > 2);
    fixture_free(f);
}

static void every_kept_point_is_as_it_was(void **state)
{
    story(1 << 20, 100);
}

static void so_it_is_with_little_room(void **state)
{
    story(300, 200);
    story(64, 60);
}

static void back_and_forth_copies_only_what_differs(void **state)
{
    struct fixture *f = fixture_new(1 << 20);
    unsigned here;

    for (unsigned p = 0; p < PAGES; p++)
        put(f, p, ++f->stamp);
    point(f, false);
    commit(f, 0, false);
    for (unsigned p = 0; p < 50; p++)
        put(f, p * 7, ++f->stamp);
    unsigned there = 0;
    for (unsigned i = 0; i < 100; i++) {
        point(f, false);
        here = f->nthen - 1;
        go_back(f, there);
        assert_int_equal(f->changed, 50);
        check(f);
        commit(f, there, false);
        while (hsk_near_trim(f->near))
            ;
        assert_true(hsk_near_held(f->near) < 50 * HSK_NEAR_POINTS);
        there = here;
    }
    fixture_free(f);
}

static void a_settled_point_leads_back_to_the_one_before(void **state)
{
    struct fixture *f = fixture_new(1 << 20);

    write_some(f, 500);
    point(f, false);
    unsigned b = f->nthen - 1;
    write_some(f, 500); /* another version's contents, from elsewhere */
    hsk_near_settle(f->near, VERSIONS + 1);
    memcpy(f->base, f->now, sizeof f->base);
    for (unsigned p = 0; p < PAGES; p++)
        assert_false(atomic_load(&f->obj[p >= RAM_PAGES]->attr[p % RAM_PAGES]) & HSK_PAGE_DIRTY);
    write_some(f, 500);
    check(f);
    hsk_near_release(f->near, false);
    point(f, false);
    go_back(f, b);
    check(f);
    fixture_free(f);
}

static void full(void *opaque)
{
    ++*(unsigned *)opaque;
}

static void what_nobody_reads_is_forgotten_when_it_grows_too_large(void **state)
{
    struct fixture *f = fixture_new(100);
    unsigned told = 0;

    hsk_near_set_full(f->near, full, &told);
    point(f, false);
    for (unsigned p = 0; p < PAGES; p++)
        put(f, p, ++f->stamp);
    assert_int_equal(told, 0); /* somebody may read it, whatever it takes */
    assert_int_equal(check(f), 1);
    assert_int_equal(hsk_near_held(f->near), PAGES);
    hsk_near_release(f->near, false);
    while (hsk_near_trim(f->near))
        ;
    assert_int_equal(hsk_near_held(f->near), 0);
    assert_int_equal(hsk_near_kept(f->near), 0);

    point(f, false);
    hsk_near_release(f->near, false);
    for (unsigned p = 0; p < PAGES; p++)
        put(f, p, ++f->stamp);
    assert_int_equal(told, 1);
    assert_true(hsk_near_held(f->near) <= 150);
    assert_int_equal(hsk_near_go_back(f->near, f->nthen - 1, NULL, NULL), -1);
    while (hsk_near_trim(f->near))
        ;
    assert_int_equal(hsk_near_held(f->near), 0);
    point(f, false);
    assert_int_equal(check(f), 1);
    fixture_free(f);
}

/* ---- a reader beside writers ---- */

#define WRITERS 4

struct race {
    struct fixture *f;
    pthread_barrier_t parked, go;
    _Atomic bool stop, quit;
    _Atomic unsigned seed;
    _Atomic uint64_t writes;
};

static void *writer_main(void *arg)
{
    struct race *r = arg;
    struct fixture *f = r->f;
    unsigned seed = atomic_fetch_add(&r->seed, 77);
    uint64_t n = 0;

    while (!atomic_load(&r->quit)) {
        if (atomic_load(&r->stop)) {
            pthread_barrier_wait(&r->parked);
            pthread_barrier_wait(&r->go);
        }
        for (unsigned i = 0; i < 64; i++, n++) {
            seed = seed * 1103515245 + 12345;
            unsigned page = (seed >> 8) % PAGES, object = page >= RAM_PAGES;
            volatile uint64_t *w = words(f, page);

            hsk_memobj_will_write(f->obj[object], object ? page - RAM_PAGES : page);
            for (unsigned k = 0; k < 512; k += 37)
                w[k] = n << 8 | k;
        }
    }
    atomic_fetch_add(&r->writes, n);
    return NULL;
}

static void a_reader_needs_no_lock(void **state)
{
    struct race r = {.f = fixture_new(64)};
    g_autofree uint8_t *truth = g_malloc(PAGES * HSK_PAGE_SIZE);
    pthread_t thread[WRITERS];
    uint8_t got[HSK_PAGE_SIZE];
    uint32_t way[HSK_NEAR_POINTS];

    pthread_barrier_init(&r.parked, NULL, WRITERS + 1);
    pthread_barrier_init(&r.go, NULL, WRITERS + 1);
    for (unsigned i = 0; i < WRITERS; i++)
        assert_int_equal(pthread_create(&thread[i], NULL, writer_main, &r), 0);
    for (unsigned round = 0; round < test_rounds(60, 2000); round++) {
        atomic_store(&r.stop, true);
        pthread_barrier_wait(&r.parked);
        atomic_store(&r.stop, false);
        hsk_near_point(r.f->near, round, false);
        for (unsigned p = 0; p < PAGES; p++)
            memcpy(truth + (size_t)p * HSK_PAGE_SIZE, words(r.f, p), HSK_PAGE_SIZE);
        unsigned nway = hsk_near_way(r.f->near, round, way);
        pthread_barrier_wait(&r.go);
        for (unsigned p = 0; p < PAGES; p++) {
            read_page(r.f, way, nway, p, (uint64_t *)(void *)got);
            assert_memory_equal(got, truth + (size_t)p * HSK_PAGE_SIZE, HSK_PAGE_SIZE);
        }
        hsk_near_release(r.f->near, round % 3 == 0);
        while (hsk_near_trim(r.f->near))
            ;
    }
    atomic_store(&r.quit, true);
    for (unsigned i = 0; i < WRITERS; i++)
        pthread_join(thread[i], NULL);
    assert_true(atomic_load(&r.writes) > 10000);
    pthread_barrier_destroy(&r.parked);
    pthread_barrier_destroy(&r.go);
    fixture_free(r.f);
}

static void the_index_is_not_believed(void **state)
{
    struct fixture *f = fixture_new(1 << 20);
    const uint32_t way[] = {HSK_NEAR_POINTS, UINT32_MAX, 0};
    uint64_t got[512];

    point(f, false);
    put(f, 3, 1);
    /* The reader's mapping is for reading only; this one is the machine's. */
    void *index =
        mmap(NULL, f->view.layout.index_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, f->index_fd, 0);
    assert_true(index != MAP_FAILED);
    for (uint32_t wrong = UINT32_MAX;; wrong = (uint32_t)f->view.layout.nslots + 1) {
        ((uint32_t *)index)[3] = wrong;
        read_page(f, way, G_N_ELEMENTS(way), 3, got);
        assert_int_equal(got[0], 1);
        if (wrong != UINT32_MAX)
            break;
    }
    munmap(index, f->view.layout.index_bytes);
    fixture_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_kept_point_is_as_it_was),
        cmocka_unit_test(so_it_is_with_little_room),
        cmocka_unit_test(back_and_forth_copies_only_what_differs),
        cmocka_unit_test(a_settled_point_leads_back_to_the_one_before),
        cmocka_unit_test(what_nobody_reads_is_forgotten_when_it_grows_too_large),
        cmocka_unit_test(a_reader_needs_no_lock),
        cmocka_unit_test(the_index_is_not_believed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
