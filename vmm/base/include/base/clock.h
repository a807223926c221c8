/* SPDX-License-Identifier: MIT */
/*
 * The guest's time. One time base for everything a guest can see: TSC, kvm-clock, APIC and ACPI
 * timers, PIT, RTC.
 *
 * guest TSC = guest_base + (host TSC - host_base) * mult / 2^32 while running, constant while
 * stopped. guest ns  = guest TSC * 10^9 / tsc_hz, so no two clocks of the guest can drift apart.
 * Starts stopped at 0. The guest's TSC frequency is fixed for its life: a host with another one
 * gets another mult.
 *
 * While stopped the guest's time stands still. What it finds when it goes on is a setting: its own
 * time as it was (UTC too: then the guest lives in the past), or, catching up, all clocks further
 * by what the host's UTC went on meanwhile. That is the same leap for all of them, as after a
 * suspended host, and the only way for a guest without an agent to show the right date.
 *
 * Threads: reading from any thread; start/stop/set only while all vCPUs are stopped.
 */
#pragma once

#include <base/util.h>

struct hsk_clock;

struct hsk_clock_state {
    uint64_t tsc_hz;  /* the guest's */
    uint64_t tsc;     /* guest TSC now */
    uint64_t wall_ns; /* guest's idea of UTC at that TSC, since 1970 */
};

/* One moment on the host's TSC and on CLOCK_MONOTONIC. */
struct hsk_clock_sample {
    uint64_t tsc, ns;
};
void hsk_clock_take_sample(struct hsk_clock_sample *s);

/* tsc_hz 0: the host's frequency. Measuring that takes 20 ms, less what has passed since then (of
 * any process of this host, at most a few seconds ago; or NULL). */
struct hsk_clock *hsk_clock_new_since(uint64_t tsc_hz, const struct hsk_clock_sample *then);
struct hsk_clock *hsk_clock_new(uint64_t tsc_hz);
void hsk_clock_free(struct hsk_clock *c);
void hsk_clock_start(struct hsk_clock *c);
void hsk_clock_stop(struct hsk_clock *c);
/* Takes the last stop back: the guest's time has gone on meanwhile. */
void hsk_clock_go_on(struct hsk_clock *c);
bool hsk_clock_running(const struct hsk_clock *c);

uint64_t hsk_clock_ns(const struct hsk_clock *c);
uint64_t hsk_clock_tsc(const struct hsk_clock *c);
uint64_t hsk_clock_tsc_hz(const struct hsk_clock *c);
uint64_t hsk_clock_tsc_to_ns(const struct hsk_clock *c, uint64_t tsc);
uint64_t hsk_clock_ns_to_tsc(const struct hsk_clock *c, uint64_t ns);
/* Catching up, or (how a clock is made) not. Stopped. */
void hsk_clock_set_catch_up(struct hsk_clock *c, bool on);
/* How often a start has made the guest's time leap by a second or more: then a guest's watchdogs
 * have to be told. */
unsigned hsk_clock_leaps(const struct hsk_clock *c);
/* A saved state that says it is older than this is wrong about the time: no leap then. */
#define HSK_CLOCK_MAX_LEAP_NS (50ull * 365 * 86400 * 1000000000)
/* UTC of the guest in ns: the host's while catching up; else the host's at the making of the clock
 * (or what was loaded), going on with the guest's time. */
uint64_t hsk_clock_wall_ns(const struct hsk_clock *c);
/* The host's CLOCK_MONOTONIC time at which the guest time ns is reached (for sleeping); UINT64_MAX
 * while stopped. */
uint64_t hsk_clock_host_deadline(const struct hsk_clock *c, uint64_t guest_ns);

void hsk_clock_save(const struct hsk_clock *c, struct hsk_clock_state *s);
/* false if the frequency is not plausible (1 MHz..100 GHz). Leaves the clock stopped. */
bool hsk_clock_load(struct hsk_clock *c, const struct hsk_clock_state *s);

/*
 * What translated code reads to compute rdtsc without a call: tsc = base + (((rdtsc - host_base) *
 * mult) >> 32) (128-bit product). The struct lives as long as the clock and is constant while vCPUs
 * run.
 */
struct hsk_clock_tsc_params {
    uint64_t guest_base;
    uint64_t host_base;
    uint64_t mult; /* 32.32; exactly 1 << 32 when the guest has the host's frequency */
};
const struct hsk_clock_tsc_params *hsk_clock_tsc_params(const struct hsk_clock *c);
