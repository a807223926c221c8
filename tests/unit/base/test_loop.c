/* SPDX-License-Identifier: MIT */
/* The event loop: calls in order, timers in order and in guest time, descriptors, other threads. */
#include <base/clock.h>
#include <base/loop.h>

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/epoll.h>

#include <cmocka.h>

struct fixture {
    struct hsk_clock *clock;
    struct hsk_loop *loop;
    GString *log;
    int pipe[2];
    struct hsk_timer *timer[3];
};

static int setup(void **state)
{
    struct fixture *f = g_new0(struct fixture, 1);

    f->clock = hsk_clock_new(1000000000);
    f->loop = hsk_loop_new(f->clock, NULL);
    assert_non_null(f->loop);
    f->log = g_string_new(NULL);
    assert_int_equal(pipe2(f->pipe, O_CLOEXEC | O_NONBLOCK), 0);
    *state = f;
    return 0;
}
static int teardown(void **state)
{
    struct fixture *f = *state;

    for (unsigned i = 0; i < G_N_ELEMENTS(f->timer); i++)
        hsk_timer_free(f->timer[i]);
    hsk_loop_free(f->loop);
    hsk_clock_free(f->clock);
    g_string_free(f->log, TRUE);
    close(f->pipe[0]);
    if (f->pipe[1] >= 0)
        close(f->pipe[1]);
    g_free(f);
    return 0;
}

static void log_a(void *opaque)
{
    g_string_append_c(((struct fixture *)opaque)->log, 'a');
}
static void log_b(void *opaque)
{
    g_string_append_c(((struct fixture *)opaque)->log, 'b');
}
static void log_q(void *opaque)
{
    struct fixture *f = opaque;

    g_string_append_c(f->log, 'q');
    hsk_loop_quit(f->loop);
}

static void calls_run_in_order(void **state)
{
    struct fixture *f = *state;

    hsk_loop_call(f->loop, log_a, f);
    hsk_loop_call(f->loop, log_b, f);
    hsk_loop_call(f->loop, log_a, f);
    hsk_loop_call(f->loop, log_q, f);
    hsk_loop_run(f->loop);
    assert_string_equal(f->log->str, "abaq");
    hsk_loop_call(f->loop, log_q, f); /* it may run again */
    hsk_loop_run(f->loop);
    assert_string_equal(f->log->str, "abaqq");
}

static void timers_fire_in_order_of_their_deadlines(void **state)
{
    struct fixture *f = *state;

    f->timer[0] = hsk_timer_new(f->loop, log_q, f);
    f->timer[1] = hsk_timer_new(f->loop, log_b, f);
    f->timer[2] = hsk_timer_new(f->loop, log_a, f);
    hsk_timer_arm(f->timer[0], 9000000);
    hsk_timer_arm(f->timer[1], 6000000);
    hsk_timer_arm(f->timer[2], 1000000);
    hsk_clock_start(f->clock);
    hsk_loop_clock_changed(f->loop);
    hsk_loop_run(f->loop);
    assert_string_equal(f->log->str, "abq");
    assert_true(hsk_clock_ns(f->clock) >= 9000000);
}

static void rearmed_and_disarmed_timers(void **state)
{
    struct fixture *f = *state;

    hsk_clock_start(f->clock);
    f->timer[0] = hsk_timer_new(f->loop, log_q, f);
    f->timer[1] = hsk_timer_new(f->loop, log_a, f);
    f->timer[2] = hsk_timer_new(f->loop, log_b, f);
    hsk_timer_arm(f->timer[1], 3000000);
    hsk_timer_arm(f->timer[1], 1000000); /* earlier */
    hsk_timer_arm(f->timer[2], 2000000);
    hsk_timer_disarm(f->timer[2]);
    hsk_timer_disarm(f->timer[2]);
    hsk_timer_arm(f->timer[0], 8000000);
    hsk_loop_run(f->loop);
    assert_string_equal(f->log->str, "aq");
}

static void timers_rest_while_the_clock_is_stopped(void **state)
{
    struct fixture *f = *state;
    struct timespec wait = {.tv_nsec = 5000000};

    f->timer[0] = hsk_timer_new(f->loop, log_a, f);
    hsk_timer_arm(f->timer[0], 0); /* in the past, but time stands */
    nanosleep(&wait, NULL);
    hsk_loop_call(f->loop, log_q, f);
    hsk_loop_run(f->loop);
    assert_string_equal(f->log->str, "q");
    hsk_clock_start(f->clock);
    hsk_loop_clock_changed(f->loop);
    f->timer[1] = hsk_timer_new(f->loop, log_q, f);
    hsk_timer_arm(f->timer[1], 1000000);
    hsk_loop_run(f->loop);
    assert_string_equal(f->log->str, "qaq");
}

static void on_readable(void *opaque, uint32_t events)
{
    struct fixture *f = opaque;
    char c;

    if (!(events & EPOLLIN) || read(f->pipe[0], &c, 1) <= 0)
        c = '-';
    g_string_append_c(f->log, c);
    if (c == '!')
        hsk_loop_quit(f->loop);
    if (c == '-') {
        hsk_loop_unwatch_fd(f->loop, f->pipe[0]);
        hsk_loop_quit(f->loop);
    }
}

static void descriptors_are_watched_until_unwatched(void **state)
{
    struct fixture *f = *state;

    assert_true(hsk_loop_watch_fd(f->loop, f->pipe[0], EPOLLIN, on_readable, f));
    assert_int_equal(write(f->pipe[1], "xy!", 3), 3);
    hsk_loop_run(f->loop);
    assert_string_equal(f->log->str, "xy!");
    /* watching again replaces the watch */
    assert_true(hsk_loop_watch_fd(f->loop, f->pipe[0], EPOLLIN, on_readable, f));
    close(f->pipe[1]);
    f->pipe[1] = -1;
    hsk_loop_run(f->loop);
    assert_string_equal(f->log->str, "xy!-");
    hsk_loop_call(f->loop, log_q, f);
    hsk_loop_run(f->loop);
    assert_string_equal(f->log->str, "xy!-q");
}

static void a_regular_file_cannot_be_watched(void **state)
{
    struct fixture *f = *state;
    HSK_AUTOFD fd = hsk_memfd_new("file", 4096, NULL);

    assert_false(hsk_loop_watch_fd(f->loop, fd, EPOLLIN, on_readable, f));
}

#define CALLS 1000
static void *caller(void *opaque)
{
    for (int i = 0; i < CALLS; i++)
        hsk_loop_call(((struct fixture *)opaque)->loop, log_a, opaque);
    hsk_loop_call(((struct fixture *)opaque)->loop, log_q, opaque);
    return NULL;
}

static void other_threads_reach_the_loop(void **state)
{
    struct fixture *f = *state;
    pthread_t t;

    assert_int_equal(pthread_create(&t, NULL, caller, f), 0);
    hsk_loop_run(f->loop);
    pthread_join(t, NULL);
    assert_int_equal(f->log->len, CALLS + 1);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
int main(void)
{
    const struct CMUnitTest tests[] = {
        T(calls_run_in_order),
        T(timers_fire_in_order_of_their_deadlines),
        T(rearmed_and_disarmed_timers),
        T(timers_rest_while_the_clock_is_stopped),
        T(descriptors_are_watched_until_unwatched),
        T(a_regular_file_cannot_be_watched),
        T(other_threads_reach_the_loop),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
