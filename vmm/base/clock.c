/* SPDX-License-Identifier: MIT */
/*
 * The guest's clock: a linear function of the host's invariant TSC. See base/clock.h for the
 * contract. Host frequency: CPUID leaf 15h where it says one (SDM vol. 2A, CPUID), else measured
 * against CLOCK_MONOTONIC_RAW once.
 */
#include <base/clock.h>

#include <cpuid.h>
#include <time.h>
#include <x86intrin.h>

#define NS_PER_S 1000000000ull

struct hsk_clock {
    struct hsk_clock_tsc_params p;
    uint64_t tsc_hz, host_hz;
    uint64_t stopped_tsc;     /* guest TSC while stopped */
    uint64_t stopped_wall_ns; /* the guest's UTC then */
    bool catch_up;
    unsigned leaps;
    bool running;
};

static uint64_t mul_div(uint64_t a, uint64_t b, uint64_t c)
{
    return (uint64_t)((unsigned __int128)a * b / c);
}

static uint64_t host_ns(clockid_t id)
{
    struct timespec t;

    clock_gettime(id, &t);
    return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

/* Best of a few tries: the sample with the shortest clock_gettime is the one that was not
 * interrupted. */
void hsk_clock_take_sample(struct hsk_clock_sample *s)
{
    uint64_t best = UINT64_MAX;

    for (int i = 0; i < 8; i++) {
        uint64_t a = __rdtsc(), n = host_ns(CLOCK_MONOTONIC), b = __rdtsc();

        if (b - a < best) {
            best = b - a;
            s->tsc = a + (b - a) / 2;
            s->ns = n;
        }
    }
}

static uint64_t host_tsc_hz(const struct hsk_clock_sample *then)
{
    const uint64_t enough_ns = NS_PER_S / 50;
    struct hsk_clock_sample from, to;
    unsigned a, b, c, d;

    if (__get_cpuid_count(0x15, 0, &a, &b, &c, &d) && a && b && c)
        return mul_div(c, b, a);
    hsk_clock_take_sample(&from);
    /* An older one may be of before a sleep of the computer, which only one of both counts. */
    if (then && then->ns <= from.ns && from.ns - then->ns < 10 * NS_PER_S && then->tsc <= from.tsc)
        from = *then;
    hsk_clock_take_sample(&to);
    if (to.ns - from.ns < enough_ns) {
        struct timespec wait = {.tv_nsec = (long)(enough_ns - (to.ns - from.ns))};
        nanosleep(&wait, NULL);
        hsk_clock_take_sample(&to);
    }
    const uint64_t hz = mul_div(to.tsc - from.tsc, NS_PER_S, MAX(to.ns - from.ns, 1));
    /* Rounded, so that two starts on one host agree and the multiplier stays exactly 1. */
    return (hz + 500000) / 1000000 * 1000000;
}

static void set_rate(struct hsk_clock *c)
{
    c->p.mult = c->tsc_hz == c->host_hz
                    ? 1ull << 32
                    : (uint64_t)(((unsigned __int128)c->tsc_hz << 32) / c->host_hz);
}

struct hsk_clock *hsk_clock_new(uint64_t tsc_hz)
{
    return hsk_clock_new_since(tsc_hz, NULL);
}

struct hsk_clock *hsk_clock_new_since(uint64_t tsc_hz, const struct hsk_clock_sample *then)
{
    struct hsk_clock *c = g_new0(struct hsk_clock, 1);

    c->host_hz = host_tsc_hz(then);
    c->tsc_hz = tsc_hz ? tsc_hz : c->host_hz;
    c->stopped_wall_ns = host_ns(CLOCK_REALTIME);
    set_rate(c);
    return c;
}

void hsk_clock_set_catch_up(struct hsk_clock *c, bool on)
{
    hsk_assert(!c->running);
    c->catch_up = on;
}

unsigned hsk_clock_leaps(const struct hsk_clock *c)
{
    return c->leaps;
}

void hsk_clock_free(struct hsk_clock *c)
{
    g_free(c);
}

static uint64_t scaled(const struct hsk_clock *c, uint64_t host_tsc)
{
    return c->p.guest_base +
           (uint64_t)(((unsigned __int128)(host_tsc - c->p.host_base) * c->p.mult) >> 32);
}

/* All of the guest's clocks go on by what the host's UTC has gone on since the stop, as if the
 * processors had not been served for so long: what guests know from a host that was suspended. A
 * host whose clock was set back must not turn the guest's. */
static void catch_up(struct hsk_clock *c)
{
    uint64_t now = host_ns(CLOCK_REALTIME);

    if (now <= c->stopped_wall_ns || now - c->stopped_wall_ns > HSK_CLOCK_MAX_LEAP_NS)
        return;
    /* At TSC 0 nothing has run yet: a machine begins at 0. */
    if (c->stopped_tsc)
        c->stopped_tsc += hsk_clock_ns_to_tsc(c, now - c->stopped_wall_ns);
    c->leaps += c->stopped_tsc && now - c->stopped_wall_ns >= NS_PER_S;
    c->stopped_wall_ns = now;
}

void hsk_clock_start(struct hsk_clock *c)
{
    if (c->running)
        return;
    if (c->catch_up)
        catch_up(c);
    c->p.guest_base = c->stopped_tsc;
    c->p.host_base = __rdtsc();
    c->running = true;
}

void hsk_clock_stop(struct hsk_clock *c)
{
    if (!c->running)
        return;
    uint64_t tsc = hsk_clock_tsc(c);
    c->stopped_wall_ns = hsk_clock_wall_ns(c);
    c->stopped_tsc = tsc;
    c->running = false;
}

void hsk_clock_go_on(struct hsk_clock *c)
{
    c->running = true;
}

bool hsk_clock_running(const struct hsk_clock *c)
{
    return c->running;
}

uint64_t hsk_clock_tsc(const struct hsk_clock *c)
{
    uint64_t now;

    if (!c->running)
        return c->stopped_tsc;
    now = __rdtsc();
    /* Another core's TSC may be behind by a few cycles: time never runs backwards. */
    return now < c->p.host_base ? c->p.guest_base : scaled(c, now);
}

uint64_t hsk_clock_tsc_hz(const struct hsk_clock *c)
{
    return c->tsc_hz;
}

uint64_t hsk_clock_tsc_to_ns(const struct hsk_clock *c, uint64_t tsc)
{
    return mul_div(tsc, NS_PER_S, c->tsc_hz);
}

uint64_t hsk_clock_ns_to_tsc(const struct hsk_clock *c, uint64_t ns)
{
    return mul_div(ns, c->tsc_hz, NS_PER_S);
}

uint64_t hsk_clock_ns(const struct hsk_clock *c)
{
    return hsk_clock_tsc_to_ns(c, hsk_clock_tsc(c));
}

uint64_t hsk_clock_wall_ns(const struct hsk_clock *c)
{
    if (!c->running)
        return c->stopped_wall_ns;
    if (c->catch_up)
        return host_ns(CLOCK_REALTIME);
    return c->stopped_wall_ns + hsk_clock_tsc_to_ns(c, hsk_clock_tsc(c) - c->stopped_tsc);
}

uint64_t hsk_clock_host_deadline(const struct hsk_clock *c, uint64_t guest_ns)
{
    uint64_t now = hsk_clock_ns(c);

    if (!c->running)
        return UINT64_MAX;
    return host_ns(CLOCK_MONOTONIC) + (guest_ns > now ? guest_ns - now : 0);
}

void hsk_clock_save(const struct hsk_clock *c, struct hsk_clock_state *s)
{
    s->tsc_hz = c->tsc_hz;
    s->tsc = hsk_clock_tsc(c);
    s->wall_ns = hsk_clock_wall_ns(c);
}

bool hsk_clock_load(struct hsk_clock *c, const struct hsk_clock_state *s)
{
    if (s->tsc_hz < 1000000 || s->tsc_hz > 100 * NS_PER_S)
        return false;
    c->running = false;
    c->tsc_hz = s->tsc_hz;
    c->stopped_tsc = s->tsc;
    c->stopped_wall_ns = s->wall_ns;
    set_rate(c);
    return true;
}

const struct hsk_clock_tsc_params *hsk_clock_tsc_params(const struct hsk_clock *c)
{
    return &c->p;
}
