/* SPDX-License-Identifier: MIT */
/* fuzz-libs: hsk_vmm */
/*
 * Devices against a hostile guest and a hostile file. First byte even: the rest is a stream of
 * accesses, input and time steps. Odd: the rest is loaded as a saved state (if it is one,
 * operations follow); with bit 1 it is laid over a real state first, so that mutations reach the
 * fields behind the framing. Afterwards every device must load what it saves.
 */
#include <stdio.h>
#include <stdlib.h>

#include "../include/device-ops.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* One machine for all inputs (making one takes longer than an input): each begins with a reset at
 * time 0. */
static struct hsk_machine *machine;

static void make(void)
{
    struct hsk_machine_config cfg = fake_config();

    cfg.vram_bytes = 16u << 20;
    machine = hsk_machine_new(&cfg, NULL);
    hsk_assert(machine);
}

static void fresh(void)
{
    struct hsk_clock_state cs;

    hsk_clock_save(hsk_machine_clock(machine), &cs);
    cs.tsc = 0;
    cs.tsc_hz = FAKE_TSC_HZ;
    hsk_assert(hsk_clock_load(hsk_machine_clock(machine), &cs));
    hsk_machine_reset(machine);
}

static void check_save_load(void)
{
    for (unsigned i = 0; i < hsk_machine_ndevs(machine); i++) {
        struct hsk_dev *dev = hsk_machine_dev(machine, i);
        g_autoptr(GBytes) saved = device_save(dev), again = NULL;
        g_autoptr(GError) error = NULL;
        HSK_AUTO(hsk_state_reader, r) = hsk_state_reader_new(saved, &error);

        hsk_assert(r && hsk_state_get(r, dev->id, &dev->ops->state, hsk_dev_state(dev), &error));
        if (dev->ops->check && !dev->ops->check(dev, &error)) {
            fprintf(stderr, "%s refuses what it saved\n", dev->id);
            abort();
        }
        again = device_save(dev);
        hsk_assert(g_bytes_equal(saved, again));
    }
}

/* Pairs of (offset, byte) written over a good state. */
static GBytes *damaged_state(const uint8_t *data, size_t size)
{
    g_autoptr(GBytes) good = hsk_machine_save(machine);
    GByteArray *a = g_byte_array_append(g_byte_array_new(), g_bytes_get_data(good, NULL),
                                        (guint)g_bytes_get_size(good));

    for (size_t i = 0; i + 3 <= size; i += 3)
        a->data[hsk_get16(data + i) % a->len] = data[i + 2];
    return g_byte_array_free_to_bytes(a);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    if (!machine)
        make();
    fresh();
    if (data[0] & 1) {
        g_autoptr(GBytes) state =
            data[0] & 2 ? damaged_state(data + 1, size - 1) : g_bytes_new(data + 1, size - 1);
        g_autoptr(GError) error = NULL;

        if (!hsk_machine_load(machine, state, &error)) {
            hsk_assert(error);
            return 0;
        }
    }
    device_ops_run(machine, data + 1, size - 1);
    check_save_load();
    return 0;
}
