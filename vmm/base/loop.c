/* SPDX-License-Identifier: MIT */
/*
 * The event loop (base/loop.h): epoll, one eventfd for other threads, one timerfd for the earliest
 * deadline. Timers stand in an intrusive sorted list: a machine has about a dozen, and arm/disarm
 * must not allocate.
 */
#include <base/clock.h>
#include <base/loop.h>

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <time.h>

struct hsk_timer {
    struct hsk_loop *loop;
    hsk_loop_fn fn;
    void *opaque;
    uint64_t deadline_ns;   /* lock */
    bool armed;             /* lock */
    struct hsk_timer *next; /* lock: sorted by deadline */
};

struct watch {
    int fd;
    hsk_loop_fd_fn fn;
    void *opaque;
    bool dead;
};

struct call {
    hsk_loop_fn fn;
    void *opaque;
};

struct hsk_loop {
    /* constant after new */
    int epoll_fd, event_fd, timer_fd;
    struct hsk_clock *clock;
    /* loop thread only */
    GHashTable *watches; /* fd -> struct watch, owned */
    GPtrArray *dead;     /* watches unwatched during a round of events */
    /* lock */
    pthread_mutex_t lock;
    struct hsk_timer *timers;
    uint64_t timer_ns; /* what the timerfd was last set to */
    GArray *calls;
    /* atomic */
    _Atomic bool quit;
    _Atomic bool woken;
};

static uint64_t now_ns(const struct hsk_loop *loop)
{
    struct timespec t;

    if (loop->clock)
        return hsk_clock_ns(loop->clock);
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}

static void wake(struct hsk_loop *loop)
{
    uint64_t one = 1;

    if (!atomic_exchange(&loop->woken, true) && write(loop->event_fd, &one, sizeof one) < 0)
        hsk_assert(errno == EAGAIN);
}

static void free_watch(void *p)
{
    g_free(p);
}

struct hsk_loop *hsk_loop_new(struct hsk_clock *clock, GError **error)
{
    struct hsk_loop *loop = g_new0(struct hsk_loop, 1);
    struct epoll_event ev = {.events = EPOLLIN, .data.fd = -1};

    loop->clock = clock;
    loop->watches = g_hash_table_new_full(NULL, NULL, NULL, free_watch);
    loop->dead = g_ptr_array_new_with_free_func(free_watch);
    loop->calls = g_array_new(false, false, sizeof(struct call));
    pthread_mutex_init(&loop->lock, NULL);
    loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    loop->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    loop->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    ev.data.fd = loop->event_fd;
    if (loop->epoll_fd < 0 || loop->event_fd < 0 || loop->timer_fd < 0 ||
        epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, loop->event_fd, &ev) < 0) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_FAILED, "Cannot make an event loop: %s",
                    g_strerror(errno));
        hsk_loop_free(loop);
        return NULL;
    }
    ev.data.fd = loop->timer_fd;
    hsk_assert(epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, loop->timer_fd, &ev) == 0);
    return loop;
}

void hsk_loop_free(struct hsk_loop *loop)
{
    if (!loop)
        return;
    hsk_assert(loop->timers == NULL);
    if (loop->epoll_fd >= 0)
        close(loop->epoll_fd);
    if (loop->event_fd >= 0)
        close(loop->event_fd);
    if (loop->timer_fd >= 0)
        close(loop->timer_fd);
    g_hash_table_unref(loop->watches);
    g_ptr_array_unref(loop->dead);
    g_array_unref(loop->calls);
    pthread_mutex_destroy(&loop->lock);
    g_free(loop);
}

/* The earliest deadline, in host time. */
static uint64_t deadline_locked(const struct hsk_loop *loop)
{
    if (!loop->timers)
        return UINT64_MAX;
    return loop->clock ? hsk_clock_host_deadline(loop->clock, loop->timers->deadline_ns)
                       : loop->timers->deadline_ns;
}

/* Under the lock, so that an older view never overwrites a newer one. */
static void set_timerfd_locked(struct hsk_loop *loop, uint64_t at)
{
    struct itimerspec its = {0};

    if (at != UINT64_MAX) {
        its.it_value.tv_sec = (time_t)MIN(at / 1000000000ull, (uint64_t)INT64_MAX / 2);
        its.it_value.tv_nsec = (long)(at % 1000000000ull);
        if (its.it_value.tv_sec == 0 && its.it_value.tv_nsec == 0)
            its.it_value.tv_nsec = 1;
    }
    loop->timer_ns = at;
    timerfd_settime(loop->timer_fd, TFD_TIMER_ABSTIME, &its, NULL);
}

static void run_timers(struct hsk_loop *loop)
{
    for (;;) {
        struct hsk_timer *t;

        if (loop->clock && !hsk_clock_running(loop->clock))
            return;
        pthread_mutex_lock(&loop->lock);
        t = loop->timers;
        if (!t || t->deadline_ns > now_ns(loop)) {
            pthread_mutex_unlock(&loop->lock);
            return;
        }
        loop->timers = t->next;
        t->armed = false;
        pthread_mutex_unlock(&loop->lock);
        t->fn(t->opaque);
    }
}

void hsk_loop_flush_calls(struct hsk_loop *loop)
{
    g_autoptr(GArray) calls = NULL;

    pthread_mutex_lock(&loop->lock);
    if (loop->calls->len) {
        calls = loop->calls;
        loop->calls = g_array_new(false, false, sizeof(struct call));
    }
    pthread_mutex_unlock(&loop->lock);
    for (guint i = 0; calls && i < calls->len; i++) {
        struct call *c = &g_array_index(calls, struct call, i);

        c->fn(c->opaque);
    }
}

static void drain(int fd)
{
    uint64_t n;

    if (read(fd, &n, sizeof n) < 0)
        hsk_assert(errno == EAGAIN || errno == EINTR);
}

static void dispatch(struct hsk_loop *loop, const struct epoll_event *ev)
{
    struct watch *w;

    if (ev->data.fd == loop->event_fd) {
        drain(loop->event_fd);
        atomic_store(&loop->woken, false);
        return;
    }
    if (ev->data.fd == loop->timer_fd) {
        drain(loop->timer_fd);
        return;
    }
    w = g_hash_table_lookup(loop->watches, GINT_TO_POINTER(ev->data.fd));
    if (w && !w->dead)
        w->fn(w->opaque, ev->events);
}

void hsk_loop_run(struct hsk_loop *loop)
{
    while (!atomic_load(&loop->quit)) {
        struct epoll_event ev[16];
        int n;

        pthread_mutex_lock(&loop->lock);
        set_timerfd_locked(loop, deadline_locked(loop));
        pthread_mutex_unlock(&loop->lock);
        n = epoll_wait(loop->epoll_fd, ev, G_N_ELEMENTS(ev), -1);
        hsk_assert(n >= 0 || errno == EINTR);
        for (int i = 0; i < n; i++)
            dispatch(loop, &ev[i]);
        g_ptr_array_set_size(loop->dead, 0);
        hsk_loop_flush_calls(loop);
        run_timers(loop);
    }
    atomic_store(&loop->quit, false); /* it may be run again */
}

void hsk_loop_quit(struct hsk_loop *loop)
{
    atomic_store(&loop->quit, true);
    wake(loop);
}

bool hsk_loop_watch_fd(struct hsk_loop *loop, int fd, uint32_t epoll_events, hsk_loop_fd_fn fn,
                       void *opaque)
{
    struct epoll_event ev = {.events = epoll_events, .data.fd = fd};
    struct watch *w = g_new0(struct watch, 1);
    bool had = g_hash_table_contains(loop->watches, GINT_TO_POINTER(fd));

    if (epoll_ctl(loop->epoll_fd, had ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, &ev) < 0) {
        g_free(w); /* a regular file, for instance, cannot be waited for */
        return false;
    }
    *w = (struct watch){.fd = fd, .fn = fn, .opaque = opaque};
    if (had)
        hsk_loop_unwatch_fd(loop, fd);
    if (had)
        hsk_assert(epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, fd, &ev) == 0);
    g_hash_table_insert(loop->watches, GINT_TO_POINTER(fd), w);
    return true;
}

void hsk_loop_unwatch_fd(struct hsk_loop *loop, int fd)
{
    struct watch *w = g_hash_table_lookup(loop->watches, GINT_TO_POINTER(fd));

    if (!w)
        return;
    /* Its event may still stand in the array of this round: kept until the round is over. */
    w->dead = true;
    g_hash_table_steal(loop->watches, GINT_TO_POINTER(fd));
    g_ptr_array_add(loop->dead, w);
    epoll_ctl(loop->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
}

void hsk_loop_call(struct hsk_loop *loop, hsk_loop_fn fn, void *opaque)
{
    struct call c = {.fn = fn, .opaque = opaque};

    pthread_mutex_lock(&loop->lock);
    g_array_append_val(loop->calls, c);
    pthread_mutex_unlock(&loop->lock);
    wake(loop);
}

struct hsk_timer *hsk_timer_new(struct hsk_loop *loop, hsk_loop_fn fn, void *opaque)
{
    struct hsk_timer *t = g_new0(struct hsk_timer, 1);

    *t = (struct hsk_timer){.loop = loop, .fn = fn, .opaque = opaque};
    return t;
}

static void unlink_locked(struct hsk_timer *t)
{
    struct hsk_timer **p = &t->loop->timers;

    if (!t->armed)
        return;
    while (*p != t)
        p = &(*p)->next;
    *p = t->next;
    t->armed = false;
}

void hsk_timer_free(struct hsk_timer *t)
{
    if (!t)
        return;
    hsk_timer_disarm(t);
    g_free(t);
}

void hsk_timer_arm(struct hsk_timer *t, uint64_t deadline_ns)
{
    struct hsk_loop *loop = t->loop;
    struct hsk_timer **p;

    pthread_mutex_lock(&loop->lock);
    unlink_locked(t);
    for (p = &loop->timers; *p && (*p)->deadline_ns <= deadline_ns; p = &(*p)->next)
        ;
    t->deadline_ns = deadline_ns;
    t->armed = true;
    t->next = *p;
    *p = t;
    /* Directly, without waking the loop thread: a guest arms its timer thousands of times a second.
       A timerfd that is too early, after a disarm or because the guest put its timer off, costs one
       idle wake-up, which sets it right. */
    if (deadline_locked(loop) < loop->timer_ns)
        set_timerfd_locked(loop, deadline_locked(loop));
    pthread_mutex_unlock(&loop->lock);
}

void hsk_timer_disarm(struct hsk_timer *t)
{
    pthread_mutex_lock(&t->loop->lock);
    unlink_locked(t);
    pthread_mutex_unlock(&t->loop->lock);
}

void hsk_loop_clock_changed(struct hsk_loop *loop)
{
    wake(loop);
}
