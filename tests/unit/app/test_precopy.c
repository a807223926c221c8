/* SPDX-License-Identifier: MIT */
/*
 * Copies in rounds while the guest runs (app/keeper/precopy.c, memory.c). The machine is a fake of
 * two threads that write all the time: one as a guest under KVM does, whose writes are in a log
 * until somebody brings it in, one as a device does, which announces a write before it does it.
 *
 * What has been stored is kept as a second memory. After a take the two must be equal, also
 * when takes before it were cancelled or had no memory: a page that was written between the rounds
 * and forgotten shows.
 */
#include <document.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/resource.h>

#include <cmocka.h>

#define RAM_BYTES  (16u << 20)
#define VRAM_BYTES (1u << 20)
#define RAM_PAGES  (RAM_BYTES / HSK_PAGE_SIZE)

enum fault { NONE, CANCELLED, NO_MEMORY, NO_ANSWER };

struct fake {
    struct hsk_document d;
    uint8_t *stored[HSK_MAX_OBJECTS];
    _Atomic uint8_t log[RAM_PAGES]; /* KVM's */
    pthread_rwlock_t parked;        /* read: a device is at work */
    _Atomic bool running, end;
    _Atomic unsigned writes;
    pthread_t guest, device;
    enum fault fault;
    unsigned fault_round;
    struct rlimit limit;
    bool refused, at_point;
};

static struct fake *fake_of(struct hsk_op *op)
{
    return (struct fake *)(void *)op->d;
}

static void *guest(void *opaque)
{
    struct fake *f = opaque;
    struct hsk_memobj *ram = f->d.now.memory.obj[0];

    for (uint32_t r = 1, n = 0; !f->end;) {
        if (!f->running)
            sched_yield();
        r = r * 1664525 + 1013904223;
        uint32_t page = (r >> 8) % (r & 0x80 ? RAM_PAGES : 64);
        pthread_rwlock_rdlock(&f->parked);
        if (f->running) {
            hsk_put32(ram->host + page * HSK_PAGE_SIZE + (r >> 20) % 1000 * 4, ++n);
            f->log[page] = 1;
            f->writes++;
        }
        pthread_rwlock_unlock(&f->parked);
    }
    return NULL;
}

static void *device(void *opaque)
{
    struct fake *f = opaque;

    for (uint32_t r = 7, n = 0; !f->end;) {
        r = r * 1664525 + 1013904223;
        struct hsk_memobj *obj = f->d.now.memory.obj[r >> 31];
        uint64_t page = (r >> 8) % (obj->size_bytes / HSK_PAGE_SIZE);
        pthread_rwlock_rdlock(&f->parked);
        if (f->running) {
            hsk_memobj_will_write(obj, page);
            sched_yield();
            hsk_put32(obj->host + page * HSK_PAGE_SIZE + (r >> 20) % 1000 * 4, ++n);
        }
        pthread_rwlock_unlock(&f->parked);
    }
    return NULL;
}

static void dirty_sync(struct fake *f)
{
    for (unsigned i = 0; i < RAM_PAGES; i++)
        if (atomic_exchange(&f->log[i], 0))
            atomic_fetch_or(&f->d.now.memory.obj[0]->attr[i], HSK_PAGE_DIRTY);
}

/* ---- what the rounds need of the keeper ---- */

bool hsk_child_give(struct hsk_child *c, const char *name, int fd)
{
    return true;
}

void hsk_op_job(struct hsk_op *op, void (*fn)(struct hsk_op *op), void (*done)(struct hsk_op *op))
{
    fn(op);
    done(op);
}

void hsk_take_refuse(struct hsk_op *op, GError *error)
{
    assert_non_null(error);
    g_error_free(error);
    for (unsigned i = 0; i < op->ncaptured; i++)
        hsk_captured_lost(&op->captured[i]);
    fake_of(op)->refused = true;
}

static void no_more_memory(struct fake *f, bool yes)
{
    struct rlimit none = {.rlim_cur = HSK_PAGE_SIZE, .rlim_max = f->limit.rlim_max};

    assert_int_equal(setrlimit(RLIMIT_FSIZE, yes ? &none : &f->limit), 0);
}

/* The machine's part, as app/machine/points.c does it; meanwhile it is written. */
void hsk_take_question(struct hsk_op *op, json_t *message)
{
    struct fake *f = fake_of(op);
    const bool fault = op->rounds >= f->fault_round;

    json_decref(message);
    dirty_sync(f);
    pthread_rwlock_wrlock(&f->parked);
    for (unsigned i = 0; i < HSK_MAX_OBJECTS; i++)
        hsk_memobj_gather(f->d.now.memory.obj[i]);
    pthread_rwlock_unlock(&f->parked);
    if (f->fault == NO_ANSWER && fault) {
        hsk_take_refuse(op, g_error_new(HSK_ERROR, HSK_ERROR_BUSY, "no answer"));
        return;
    }
    if (f->fault == CANCELLED && fault)
        atomic_store(&op->cancelled, true);
    if (f->fault == NO_MEMORY && fault)
        no_more_memory(f, true);
    hsk_precopy_round(op);
    no_more_memory(f, false);
}

/* ---- takes ---- */

static void at_point(struct hsk_op *op)
{
    fake_of(op)->at_point = true;
}

static void park(struct fake *f, bool yes)
{
    pthread_rwlock_wrlock(&f->parked);
    f->running = !yes;
    pthread_rwlock_unlock(&f->parked);
}

/* The point: what is left is copied, and all of it stored. */
static void finish(struct fake *f, struct hsk_op *op, bool go_on)
{
    GError *error = NULL;

    park(f, true);
    dirty_sync(f);
    if (!hsk_precopy_copy(op, HSK_PAGE_CHANGED, &error))
        fail_msg("%s", error->message);
    park(f, !go_on); /* what is stored was copied */
    for (unsigned i = 0; i < op->ncaptured; i++) {
        const struct hsk_captured *c = &op->captured[i];
        for (uint64_t p = 0; p < c->memory->obj[i]->size_bytes / HSK_PAGE_SIZE; p++)
            if (c->dirty[p / 8] >> p % 8 & 1)
                hsk_captured_read(&op->captured[i], p, f->stored[i] + p * HSK_PAGE_SIZE);
    }
}

static void take(struct fake *f, enum fault fault, unsigned round, bool go_on)
{
    struct hsk_op op = {.d = &f->d};

    f->fault = fault;
    f->fault_round = round;
    f->refused = f->at_point = false;
    for (unsigned seen = f->writes; f->writes < seen + 100;)
        sched_yield();
    hsk_precopy_start(&op, at_point);
    assert_true(f->refused != f->at_point);
    assert_true(f->at_point || fault != NONE);
    if (f->at_point && go_on)
        finish(f, &op, true);
    else if (f->at_point) /* the commit failed */
        for (unsigned i = 0; i < op.ncaptured; i++)
            hsk_captured_lost(&op.captured[i]);
    for (unsigned i = 0; i < op.ncaptured; i++)
        hsk_captured_clear(&op.captured[i]);
}

/* Nothing is written any more: what is stored with the last take is what there is. */
static void compare(struct fake *f)
{
    struct hsk_op op = {.d = &f->d};

    finish(f, &op, false);
    for (unsigned i = 0; i < op.ncaptured; i++) {
        assert_memory_equal(f->stored[i], f->d.now.memory.obj[i]->host,
                            f->d.now.memory.obj[i]->size_bytes);
        hsk_captured_clear(&op.captured[i]);
    }
}

static int setup(void **state)
{
    struct fake *f = g_new0(struct fake, 1);
    GError *error = NULL;

    f->d.path = (char *)"a machine";
    if (!hsk_guest_memory_init(&f->d.now.memory, RAM_BYTES, VRAM_BYTES, &error))
        fail_msg("%s", error->message);
    for (unsigned i = 0; i < HSK_MAX_OBJECTS; i++)
        f->stored[i] = g_malloc0(f->d.now.memory.obj[i]->size_bytes);
    getrlimit(RLIMIT_FSIZE, &f->limit);
    signal(SIGXFSZ, SIG_IGN);
    pthread_rwlock_init(&f->parked, NULL);
    f->running = true;
    pthread_create(&f->guest, NULL, guest, f);
    pthread_create(&f->device, NULL, device, f);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fake *f = *state;

    f->end = true;
    pthread_join(f->guest, NULL);
    pthread_join(f->device, NULL);
    pthread_rwlock_destroy(&f->parked);
    hsk_guest_memory_clear(&f->d.now.memory);
    for (unsigned i = 0; i < HSK_MAX_OBJECTS; i++)
        g_free(f->stored[i]);
    g_free(f);
    return 0;
}

static void nothing_written_between_the_rounds_is_lost(void **state)
{
    for (unsigned i = 0; i < 16; i++) {
        take(*state, NONE, 0, true);
        if (i % 4 == 3)
            compare(*state);
        park(*state, false);
    }
}

static void what_was_not_stored_is_dirty_again(void **state)
{
    static const enum fault faults[] = {CANCELLED, NO_MEMORY, NO_ANSWER, NONE};

    for (unsigned i = 0; i < 12; i++) {
        take(*state, faults[i % 4], 1 + i / 4 % 2, false);
        if (i % 3 == 2)
            compare(*state);
        park(*state, false);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(nothing_written_between_the_rounds_is_lost, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(what_was_not_stored_is_dirty_again, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
