/* SPDX-License-Identifier: MIT */
/*
 * A stream of operations on a machine's devices, from bytes: what a guest, the user's hands and
 * time can do to them. For the fuzz target and the contract tests. The machine is stopped; the
 * clock moves only by steps of the stream.
 */
#pragma once

#include "fake-engine.h"

struct device_range {
    bool mmio;
    uint64_t base;
    uint32_t size;
};

static const struct device_range device_ranges[] = {
    {false, 0x20, 2},
    {false, 0xa0, 2},
    {false, 0x4d0, 2},
    {false, 0x40, 4},
    {false, 0x61, 1},
    {false, 0x70, 4},
    {false, 0x3f8, 8},
    {false, HSK_PMBASE, 16},
    {false, 0x60, 1},
    {false, 0x64, 1},
    {false, HSK_DEBUG_EXIT_PORT, 4},
    {false, 0xe0, 12},
    {false, 0x2000, HSK_NGSI},
    {false, 0xcf8, 8},
    {false, 0x1ce, 4},
    {true, HSK_IOAPIC_BASE, 0x50},
    {true, HSK_LAPIC_BASE, 0x400},
    {true, HSK_ECAM_BASE, 0x80000},
    {true, HSK_PCI_MMIO_BASE, 0x40000},
    {true, HSK_VRAM_BASE, 0x1000},
    {true, 0xff000000, 0x10000},
};

struct device_stream {
    const uint8_t *p, *end;
};

/* Zeros after the end. */
static inline uint64_t stream_take(struct device_stream *s, unsigned bytes)
{
    uint64_t v = 0;

    for (unsigned i = 0; i < bytes && s->p < s->end; i++)
        v |= (uint64_t)*s->p++ << 8 * i;
    return v;
}

static inline void device_ops_quit_(void *opaque)
{
    hsk_loop_quit(opaque);
}

/* One turn of the loop with the clock running: calls, events and timers that are due. */
static inline void device_ops_turn(struct hsk_machine *m)
{
    struct hsk_loop *loop = hsk_machine_loop(m);

    hsk_machine_run(m);
    hsk_loop_call(loop, device_ops_quit_, loop);
    hsk_loop_run(loop);
    hsk_machine_stop(m);
}

static inline void device_ops_step(struct hsk_machine *m, uint64_t ns)
{
    struct hsk_clock_state cs;

    hsk_clock_save(hsk_machine_clock(m), &cs);
    cs.tsc += ns;
    hsk_clock_load(hsk_machine_clock(m), &cs);
    device_ops_turn(m);
}

static inline void device_ops_access(struct hsk_machine *m, struct device_stream *s, bool write)
{
    const struct device_range *r = &device_ranges[stream_take(s, 1) % G_N_ELEMENTS(device_ranges)];
    struct hsk_bus *bus = r->mmio ? hsk_machine_mmio(m) : hsk_machine_pio(m);
    unsigned size = 1u << (stream_take(s, 1) % (r->mmio ? 4 : 3));
    uint64_t addr = r->base + (r->size > 1 ? stream_take(s, r->size > 256 ? 3 : 1) % r->size : 0),
             value;

    if (r->mmio)
        addr &= ~(uint64_t)(size - 1);
    if (write)
        hsk_bus_write(bus, addr, size, stream_take(s, size));
    else
        hsk_bus_read(bus, addr, size, &value);
}

static inline void device_ops_input(struct hsk_machine *m, struct device_stream *s)
{
    struct hsk_input *in = hsk_machine_input(m);
    unsigned what = (unsigned)stream_take(s, 1);
    uint64_t v = stream_take(s, 4);

    switch (what % 6) {
    case 0:
    case 1:
        in->key(in, (uint16_t)v, what & 1);
        break;
    case 2:
        in->pointer_rel(in, (int16_t)v, (int16_t)(v >> 16), (uint8_t)what >> 5);
        break;
    case 3:
        in->pointer_abs(in, v & 0x7fff, v >> 16 & 0x7fff, (uint8_t)what >> 5);
        break;
    case 4:
        in->wheel(in, (int16_t)v);
        break;
    default:
        in->release_all(in);
        break;
    }
}

static inline void device_ops_lapic(struct hsk_machine *m, struct device_stream *s)
{
    struct hsk_lapic *l = hsk_machine_lapic(m, 0);
    unsigned what = (unsigned)stream_take(s, 1), msr = 0x800 + (unsigned)stream_take(s, 1);
    uint64_t v = stream_take(s, 4);
    uint8_t vector;

    switch (what % 8) {
    case 0:
        hsk_lapic_wrmsr(l, what & 0x80 ? 0x6e0 : msr, v);
        break;
    case 1:
        hsk_lapic_rdmsr(l, what & 0x80 ? 0x6e0 : msr, &v);
        break;
    case 2:
        hsk_lapic_ack(l);
        break;
    case 3:
        hsk_lapic_take(l, 1u << (what >> 3 & 3), &vector);
        break;
    case 4:
        hsk_lapic_set_cr8(l, v & 15);
        break;
    case 5:
        hsk_lapic_set_base(l, HSK_LAPIC_BASE | (v & 0xfff));
        break;
    case 6:
        hsk_msi_send(m, HSK_LAPIC_BASE | (v & 0xff000) | (what >> 4 & 4), (uint32_t)v);
        break;
    default:
        hsk_lapic_nmi(l);
        break;
    }
}

/* Does everything that the bytes say. */
static inline void device_ops_run(struct hsk_machine *m, const uint8_t *data, size_t size)
{
    struct device_stream s = {data, data + size};

    while (s.p < s.end) {
        uint8_t op = *s.p++;

        if (op < 0x40)
            device_ops_access(m, &s, false);
        else if (op < 0xd8)
            device_ops_access(m, &s, true);
        else if (op < 0xe4)
            device_ops_lapic(m, &s);
        else if (op < 0xf4)
            device_ops_input(m, &s);
        else if (op < 0xff)
            device_ops_step(m, stream_take(&s, 3) << (op & 7));
        else
            hsk_machine_power_button(m);
    }
    device_ops_turn(m);
}

/* The section of one device alone: the same bytes for the same state. */
static inline GBytes *device_save(struct hsk_dev *dev)
{
    HSK_AUTO(hsk_state_writer, w) = hsk_state_writer_new();

    hsk_state_put(w, dev->id, &dev->ops->state, hsk_dev_state(dev));
    return hsk_state_writer_finish(w);
}
