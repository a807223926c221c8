/* SPDX-License-Identifier: MIT */
/*
 * A whole machine with the engine that executes nothing, for cmocka tests of devices: registers are
 * reached through the buses, time by setting the stopped clock, timers by letting the machine run
 * for some of the guest's time.
 *
 * A busy host may stop a test for a while at any place: time goes on then while the machine runs,
 * and not while it is stopped. So "not yet" needs a deadline that is seconds away, and "now" needs
 * turns of the loop, not time.
 */
#pragma once

#include <fake-engine.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

/* Reset, stopped at guest time 0. */
static inline struct hsk_machine *fake_machine_from(const struct hsk_machine_config *cfg)
{
    g_autoptr(GError) error = NULL;
    struct hsk_machine *m = hsk_machine_new(cfg, &error);

    if (!m)
        fail_msg("%s", error->message);
    hsk_machine_reset(m);
    return m;
}
static inline struct hsk_machine *fake_machine_new(void)
{
    struct hsk_machine_config cfg = fake_config();

    return fake_machine_from(&cfg);
}

static inline uint8_t in8(struct hsk_machine *m, uint16_t port)
{
    uint64_t v;

    hsk_bus_read(hsk_machine_pio(m), port, 1, &v);
    return (uint8_t)v;
}
static inline void out8(struct hsk_machine *m, uint16_t port, uint8_t value)
{
    hsk_bus_write(hsk_machine_pio(m), port, 1, value);
}
static inline uint32_t mmio_read32(struct hsk_machine *m, uint64_t addr)
{
    uint64_t v;

    hsk_bus_read(hsk_machine_mmio(m), addr, 4, &v);
    return (uint32_t)v;
}
static inline void mmio_write32(struct hsk_machine *m, uint64_t addr, uint32_t value)
{
    hsk_bus_write(hsk_machine_mmio(m), addr, 4, value);
}

/* The PIC's request register shows which ISA lines rose (edge) or are high (level). */
static inline bool irq_requested(struct hsk_machine *m, unsigned line)
{
    return in8(m, line < 8 ? 0x20 : 0xa0) >> (line & 7) & 1;
}
/* Forgets the edges of the past: an ICW1 clears the detectors (and leaves the PIC waiting for
 * ICW2). */
static inline void irq_forget(struct hsk_machine *m)
{
    out8(m, 0x20, 0x11);
    out8(m, 0xa0, 0x11);
}

/* Stopped machine: the guest's time is this now. */
static inline void set_time_ns(struct hsk_machine *m, uint64_t ns)
{
    struct hsk_clock_state s;

    hsk_clock_save(hsk_machine_clock(m), &s);
    s.tsc = ns;
    assert_true(hsk_clock_load(hsk_machine_clock(m), &s));
}

static inline void fake_quit_(void *opaque)
{
    hsk_loop_quit(opaque);
}
/* Clock, loop and timers go on, at the host's pace, until the guest's time has come to a deadline.
 */
static inline void run_until_ns(struct hsk_machine *m, uint64_t ns)
{
    struct hsk_loop *loop = hsk_machine_loop(m);
    struct hsk_timer *t = hsk_timer_new(loop, fake_quit_, loop);

    hsk_machine_run(m);
    hsk_timer_arm(t, ns);
    hsk_loop_run(loop);
    hsk_machine_stop(m);
    hsk_timer_free(t);
}
/* At least so much of the guest's time goes by, in ten jumps: ten turns of the loop at least, and
 * no waiting. */
static inline void run_for_ms(struct hsk_machine *m, unsigned ms)
{
    const uint64_t start = hsk_clock_ns(hsk_machine_clock(m));

    for (unsigned i = 1; i <= 10; i++) {
        const uint64_t at = start + i * ms * 100000ull;

        set_time_ns(m, MAX(at, hsk_clock_ns(hsk_machine_clock(m))));
        run_until_ns(m, at);
    }
}
/* For what depends on the host's time of day: runs at its pace until the line rose; false after 20
 * s. */
static inline bool run_until_irq(struct hsk_machine *m, unsigned line)
{
    for (unsigned i = 0; i < 2000 && !irq_requested(m, line); i++)
        run_until_ns(m, hsk_clock_ns(hsk_machine_clock(m)) + 10000000);
    return irq_requested(m, line);
}

/* Sets an element of a field of the device's state. */
static inline void poke_field(struct hsk_dev *dev, const char *field, unsigned index,
                              uint64_t value)
{
    const struct hsk_state_desc *d = &dev->ops->state;

    for (uint32_t i = 0; i < d->nfields; i++) {
        const struct hsk_field *f = &d->fields[i];

        if (strcmp(f->name, field) == 0) {
            assert_in_range(index, 0, f->count - 1);
            memcpy((char *)hsk_dev_state(dev) + f->offset + index * f->elem, &value, f->elem);
            return;
        }
    }
    fail_msg("%s has no field %s", dev->id, field);
}
