/* SPDX-License-Identifier: MIT */
/*
 * The event loop of hva-machine: descriptors (epoll), calls from other threads, and timers in guest
 * time.
 *
 * Threads: hsk_loop_run runs on one thread, the loop thread; callbacks run there. hsk_loop_call,
 * timer arm/disarm and hsk_loop_quit may be called from any thread. Nothing here allocates in
 * arm/disarm, so a vCPU may call them.
 */
#pragma once

#include <base/util.h>

struct hsk_loop;
struct hsk_timer;
struct hsk_clock;

typedef void (*hsk_loop_fd_fn)(void *opaque, uint32_t epoll_events);
typedef void (*hsk_loop_fn)(void *opaque);

/* clock: the time base of all timers; NULL = host CLOCK_MONOTONIC. Borrowed until free. */
struct hsk_loop *hsk_loop_new(struct hsk_clock *clock, GError **error);
void hsk_loop_free(struct hsk_loop *loop);
/* Runs until hsk_loop_quit. */
void hsk_loop_run(struct hsk_loop *loop);
void hsk_loop_quit(struct hsk_loop *loop);

/* Watches fd (not owned) for epoll events; fn is called on the loop thread. Replaces an earlier
 * watch of the fd. */
bool hsk_loop_watch_fd(struct hsk_loop *loop, int fd, uint32_t epoll_events, hsk_loop_fd_fn fn,
                       void *opaque);
/* Loop thread only. */
void hsk_loop_unwatch_fd(struct hsk_loop *loop, int fd);

/* Runs fn(opaque) once on the loop thread, soon. */
void hsk_loop_call(struct hsk_loop *loop, hsk_loop_fn fn, void *opaque);

/* Runs the calls that wait now, before the loop goes away. Loop thread. */
void hsk_loop_flush_calls(struct hsk_loop *loop);

/* A one-shot timer; fn runs on the loop thread when the loop's clock has reached the deadline. */
struct hsk_timer *hsk_timer_new(struct hsk_loop *loop, hsk_loop_fn fn, void *opaque);
void hsk_timer_free(struct hsk_timer *t);
/* (Re)arms at an absolute time of the loop's clock; a deadline in the past fires at once. */
void hsk_timer_arm(struct hsk_timer *t, uint64_t deadline_ns);
void hsk_timer_disarm(struct hsk_timer *t);
/* The clock stopped, went on or jumped: look at all deadlines again. Any thread. */
void hsk_loop_clock_changed(struct hsk_loop *loop);
