/* SPDX-License-Identifier: MIT */
/*
 * The 8254 programmable interval timer (Intel 8254 data sheet) at 0x40-0x43, and port 0x61 (ICH:
 * NMI status and control): gate and output of channel 2, speaker enable, refresh toggle.
 *
 * Nothing ticks: a channel is its start time and reload count, and counter and output are computed
 * when somebody looks. Only channel 0 has a timer, one event per period.
 *
 * Threads: any, under the device's lock; the timer runs on the loop thread and takes it.
 *
 * Deliberately missing: sound; the low half of channel 0's wave (the line gets a pulse where the
 * output rises: all that an edge-triggered input sees); periods that passed while the host was busy
 * are not made up for; a new count in modes 2 and 3 starts a period at once instead of at the end
 * of the running one.
 */
#include <base/clock.h>
#include <vmm/machine.h>

#include "devices.h"

#define PIT_HZ           1193182u
#define NS_PER_S         1000000000u
#define REFRESH_NS       15085u /* the refresh request toggles with channel 1's classic period */
#define MIN_PERIOD_NS    20000u /* a count of 1 must not occupy the host */
#define CONTROL_GATE2    0x01
#define CONTROL_WRITABLE 0x0f

enum { ACCESS_LATCH, ACCESS_LOW, ACCESS_HIGH, ACCESS_BOTH };

struct pit_state {
    uint64_t start_ns[3]; /* guest time at which the count was (re)started; while running */
    uint64_t elapsed[3];  /* ticks since the start; while not running */
    uint64_t next_irq_ns; /* channel 0's next rise; 0 = none */
    uint32_t count[3];    /* 1..65536; 0 = never set */
    uint16_t latch[3];
    uint16_t control; /* port 0x61, bits 0-3 */
    uint8_t mode[3], access[3], bcd[3], gate[3], running[3];
    uint8_t null_count[3]; /* mode set, count not yet */
    uint8_t latched[3], status_latched[3], status[3];
    uint8_t read_high[3], write_high[3]; /* ACCESS_BOTH: the second byte is next */
    uint8_t write_low[3];
};

struct pit {
    struct hsk_dev dev;
    struct pit_state s; /* device lock */
    struct hsk_irq *irq;
    struct hsk_clock *clock;
    struct hsk_timer *timer;
};

#define F(m, ...)  HSK_F(struct pit_state, m, __VA_ARGS__)
#define FA(m, ...) HSK_FA(struct pit_state, m, __VA_ARGS__)
static const struct hsk_field pit_fields[] = {
    FA(start_ns),
    FA(elapsed),
    F(next_irq_ns),
    FA(count, .max = 65536),
    FA(latch),
    F(control, .max = CONTROL_WRITABLE),
    FA(mode, .max = 5),
    FA(access, .max = 3),
    FA(bcd, .max = 1),
    FA(gate, .max = 1),
    FA(running, .max = 1),
    FA(null_count, .max = 1),
    FA(latched, .max = 1),
    FA(status_latched, .max = 1),
    FA(status),
    FA(read_high, .max = 1),
    FA(write_high, .max = 1),
    FA(write_low),
};
#undef F
#undef FA

enum { REGION_PIT, REGION_CONTROL };

static uint64_t ns_to_ticks(uint64_t ns)
{
    return (uint64_t)((unsigned __int128)ns * PIT_HZ / NS_PER_S);
}

/* Rounded up: at that time the ticks have passed. */
static uint64_t ticks_to_ns(uint64_t ticks)
{
    return (uint64_t)(((unsigned __int128)ticks * NS_PER_S + PIT_HZ - 1) / PIT_HZ);
}

/* Ticks since the count was started. */
static uint64_t ticks(const struct pit *p, unsigned c)
{
    uint64_t now = hsk_clock_ns(p->clock);

    if (!p->s.running[c])
        return p->s.elapsed[c];
    return now > p->s.start_ns[c] ? ns_to_ticks(now - p->s.start_ns[c]) : 0;
}

static bool periodic(const struct pit_state *s, unsigned c)
{
    return s->mode[c] == 2 || s->mode[c] == 3;
}

static bool output(const struct pit *p, unsigned c)
{
    const struct pit_state *s = &p->s;
    uint64_t t = ticks(p, c), count = s->count[c];

    if (count == 0 || s->null_count[c])
        return s->mode[c] != 0;
    switch (s->mode[c]) {
    case 0:
    case 1:
        return t >= count;
    case 2:
        return !s->gate[c] || t % count != count - 1;
    case 3:
        return !s->gate[c] || t % count < (count + 1) / 2;
    default: /* 4, 5: low for one tick */
        return t != count;
    }
}

static uint16_t to_bcd(uint32_t v)
{
    return (uint16_t)((v / 1000 % 10) << 12 | (v / 100 % 10) << 8 | (v / 10 % 10) << 4 | v % 10);
}

static uint32_t from_bcd(uint32_t v)
{
    return (v >> 12 & 15) * 1000 + (v >> 8 & 15) * 100 + (v >> 4 & 15) * 10 + (v & 15);
}

static uint16_t counter(const struct pit *p, unsigned c)
{
    const struct pit_state *s = &p->s;
    uint64_t t = ticks(p, c), count = s->count[c], modulus = s->bcd[c] ? 10000 : 65536, v;

    if (count == 0)
        return 0;
    if (s->mode[c] == 3)
        v = count - 2 * t % count;
    else if (s->mode[c] == 2)
        v = count - t % count;
    else
        v = count + modulus - t % modulus; /* goes on below zero */
    v %= modulus;
    return s->bcd[c] ? to_bcd((uint32_t)v) : (uint16_t)v;
}

/* ---- channel 0's line ---- */

/* In mode 0 the line is the output; in the others it rests low and is pulsed. */
static void line_publish(struct pit *p)
{
    if (p->irq)
        hsk_irq_set(p->irq, p->s.mode[0] == 0 && output(p, 0));
}

static void timer_arm(struct pit *p)
{
    if (p->s.next_irq_ns)
        hsk_timer_arm(p->timer, p->s.next_irq_ns);
    else
        hsk_timer_disarm(p->timer);
}

/* Channel 0 was reprogrammed. Its gate is always high, so modes 1 and 5 never start. */
static void irq_schedule(struct pit *p)
{
    struct pit_state *s = &p->s;

    s->next_irq_ns = 0;
    if (s->count[0] && !s->null_count[0] && s->running[0])
        s->next_irq_ns = s->start_ns[0] + ticks_to_ns(s->count[0]);
    timer_arm(p);
    line_publish(p);
}

static void timer_expired(void *opaque)
{
    struct pit *p = opaque;
    struct pit_state *s = &p->s;
    HSK_DEV_GUARD(&p->dev);
    uint64_t now = hsk_clock_ns(p->clock), at = s->next_irq_ns;

    if (!at)
        return;
    if (now < at) {
        timer_arm(p);
        return;
    }
    s->next_irq_ns = 0;
    if (periodic(s, 0)) {
        uint64_t periods = ticks(p, 0) / s->count[0] + 1;

        s->next_irq_ns = s->start_ns[0] + ticks_to_ns(periods * s->count[0]);
        hsk_timer_arm(p->timer, MAX(s->next_irq_ns, now + MIN_PERIOD_NS));
    }
    if (p->irq)
        hsk_irq_set(p->irq, true);
    line_publish(p);
}

/* ---- programming ---- */

static void start(struct pit *p, unsigned c, uint64_t elapsed)
{
    p->s.running[c] = 1;
    p->s.elapsed[c] = 0;
    p->s.start_ns[c] = hsk_clock_ns(p->clock) - MIN(ticks_to_ns(elapsed), hsk_clock_ns(p->clock));
}

static void freeze(struct pit *p, unsigned c, uint64_t elapsed)
{
    p->s.running[c] = 0;
    p->s.elapsed[c] = elapsed;
    p->s.start_ns[c] = 0;
}

static void count_write(struct pit *p, unsigned c, uint32_t value)
{
    struct pit_state *s = &p->s;

    if (s->bcd[c])
        value = from_bcd(value);
    s->count[c] = value ? value : s->bcd[c] ? 10000 : 65536;
    s->null_count[c] = 0;
    if (s->mode[c] == 1 || s->mode[c] == 5)
        freeze(p, c, s->count[c] + 1u); /* waits for the gate to rise; output is high */
    else if (s->gate[c])
        start(p, c, 0);
    else
        freeze(p, c, 0);
    if (c == 0)
        irq_schedule(p);
}

static void gate_write(struct pit *p, unsigned c, bool gate)
{
    struct pit_state *s = &p->s;

    if (gate == s->gate[c])
        return;
    if (!gate && s->mode[c] != 1 && s->mode[c] != 5)
        freeze(p, c, ticks(p, c));
    s->gate[c] = gate;
    if (gate && s->count[c] && !s->null_count[c])
        start(p, c, s->mode[c] == 0 || s->mode[c] == 4 ? s->elapsed[c] : 0);
}

static void latch_count(struct pit *p, unsigned c)
{
    if (p->s.latched[c])
        return;
    p->s.latch[c] = counter(p, c);
    p->s.latched[c] = 1;
}

static void latch_status(struct pit *p, unsigned c)
{
    struct pit_state *s = &p->s;

    if (s->status_latched[c])
        return;
    s->status[c] = (uint8_t)(output(p, c) << 7 | s->null_count[c] << 6 | s->access[c] << 4 |
                             s->mode[c] << 1 | s->bcd[c]);
    s->status_latched[c] = 1;
}

static void control_word(struct pit *p, uint8_t value)
{
    struct pit_state *s = &p->s;
    unsigned c = value >> 6, access = value >> 4 & 3, mode = value >> 1 & 7;

    if (c == 3) { /* read-back */
        for (unsigned i = 0; i < 3; i++) {
            if (!(value >> (i + 1) & 1))
                continue;
            if (!(value & 0x20))
                latch_count(p, i);
            if (!(value & 0x10))
                latch_status(p, i);
        }
        return;
    }
    if (access == ACCESS_LATCH) {
        latch_count(p, c);
        return;
    }
    s->access[c] = (uint8_t)access;
    s->mode[c] = (uint8_t)(mode > 5 ? mode - 4 : mode); /* 6 and 7 are 2 and 3 */
    s->bcd[c] = value & 1;
    s->null_count[c] = 1;
    s->latched[c] = s->status_latched[c] = s->read_high[c] = s->write_high[c] = 0;
    if (c == 0)
        irq_schedule(p);
}

static uint8_t channel_read(struct pit *p, unsigned c)
{
    struct pit_state *s = &p->s;
    uint16_t value;
    bool high;

    if (s->status_latched[c]) {
        s->status_latched[c] = 0;
        return s->status[c];
    }
    value = s->latched[c] ? s->latch[c] : counter(p, c);
    high = s->access[c] == ACCESS_HIGH || (s->access[c] == ACCESS_BOTH && s->read_high[c]);
    if (s->access[c] == ACCESS_BOTH)
        s->read_high[c] ^= 1;
    if (s->access[c] != ACCESS_BOTH || high)
        s->latched[c] = 0;
    return (uint8_t)(high ? value >> 8 : value);
}

static void channel_write(struct pit *p, unsigned c, uint8_t value)
{
    struct pit_state *s = &p->s;

    if (s->access[c] == ACCESS_LOW) {
        count_write(p, c, value);
    } else if (s->access[c] == ACCESS_HIGH) {
        count_write(p, c, (uint32_t)value << 8);
    } else if (!s->write_high[c]) {
        s->write_low[c] = value;
        s->write_high[c] = 1;
    } else {
        s->write_high[c] = 0;
        count_write(p, c, (uint32_t)value << 8 | s->write_low[c]);
    }
}

static uint64_t pit_read(struct hsk_dev *dev, unsigned region, uint64_t offset, unsigned size)
{
    struct pit *p = (struct pit *)dev;

    if (region == REGION_CONTROL)
        return (uint64_t)(p->s.control | (hsk_clock_ns(p->clock) / REFRESH_NS & 1) << 4 |
                          (unsigned)output(p, 2) << 5);
    return offset < 3 ? channel_read(p, (unsigned)offset) : 0xff;
}

static void pit_write(struct hsk_dev *dev, unsigned region, uint64_t offset, unsigned size,
                      uint64_t value)
{
    struct pit *p = (struct pit *)dev;

    if (region == REGION_CONTROL) {
        p->s.control = value & CONTROL_WRITABLE;
        gate_write(p, 2, value & CONTROL_GATE2);
    } else if (offset == 3) {
        control_word(p, (uint8_t)value);
    } else {
        channel_write(p, (unsigned)offset, (uint8_t)value);
    }
}

/* ---- life cycle ---- */

static void pit_reset(struct hsk_dev *dev)
{
    struct pit *p = (struct pit *)dev;

    memset(&p->s, 0, sizeof(p->s));
    for (unsigned c = 0; c < 3; c++) {
        p->s.access[c] = ACCESS_BOTH;
        p->s.gate[c] = c != 2;
    }
}

static bool pit_check(struct hsk_dev *dev, GError **error)
{
    struct pit *p = (struct pit *)dev;
    const struct pit_state *s = &p->s;
    bool ok = s->gate[0] && s->gate[1] && s->gate[2] == (s->control & CONTROL_GATE2);

    for (unsigned c = 0; c < 3; c++)
        if (s->access[c] == ACCESS_LATCH ||
            (s->bcd[c] && !s->null_count[c] && s->count[c] > 16665) ||
            (s->running[c] && !s->count[c]))
            ok = false;
    if (s->next_irq_ns && (!s->running[0] || s->null_count[0]))
        ok = false;
    if (!ok)
        g_set_error(error, HSK_ERROR, HSK_ERROR_DAMAGED,
                    "The saved state of %s is not one that a PIT can have.", dev->id);
    return ok;
}

static void pit_resume(struct hsk_dev *dev)
{
    struct pit *p = (struct pit *)dev;
    HSK_DEV_GUARD(dev);

    timer_arm(p);
    line_publish(p);
}

static void pit_free(struct hsk_dev *dev)
{
    struct pit *p = (struct pit *)dev;

    hsk_timer_free(p->timer);
    hsk_bus_unmap(hsk_machine_pio(dev->machine), 0x40, dev);
    hsk_bus_unmap(hsk_machine_pio(dev->machine), 0x61, dev);
    hsk_dev_finish(dev);
    g_free(p);
}

static const struct hsk_dev_ops pit_ops = {
    .state = {"pit", 1, sizeof(struct pit_state), pit_fields, G_N_ELEMENTS(pit_fields)},
    .state_offset = offsetof(struct pit, s),
    .min_size = 1,
    .max_size = 1,
    .read = pit_read,
    .write = pit_write,
    .reset = pit_reset,
    .check = pit_check,
    .resume = pit_resume,
    .free = pit_free,
};

struct hsk_dev *hsk_pit_new(struct hsk_machine *m, const char *id, struct hsk_irq *irq)
{
    struct pit *p = g_new0(struct pit, 1);

    hsk_dev_init(&p->dev, &pit_ops, m, id);
    p->irq = irq;
    p->clock = hsk_machine_clock(m);
    p->timer = hsk_timer_new(hsk_machine_loop(m), timer_expired, p);
    hsk_assert(hsk_bus_map(hsk_machine_pio(m), 0x40, 4, &p->dev, REGION_PIT));
    hsk_assert(hsk_bus_map(hsk_machine_pio(m), 0x61, 1, &p->dev, REGION_CONTROL));
    return &p->dev;
}
