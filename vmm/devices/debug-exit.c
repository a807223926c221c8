/* SPDX-License-Identifier: MIT */
/*
 * The debug-exit port of tests: a write of any size tells the owner, who ends with status (value <<
 * 1) | 1 (as QEMU's isa-debug-exit does). Reads give zero, so that a guest can tell it from a port
 * that is not there.
 *
 * Threads: a vCPU's.
 */
#include <vmm/machine.h>

#include "devices.h"

struct debug_exit_state {
    uint32_t value; /* the last write */
};

struct debug_exit {
    struct hsk_dev dev;
    struct debug_exit_state s; /* device lock */
};

static const struct hsk_field debug_exit_fields[] = {HSK_F(struct debug_exit_state, value)};

static uint64_t debug_exit_read(struct hsk_dev *dev, unsigned region, uint64_t offset,
                                unsigned size)
{
    return 0;
}

static void debug_exit_write(struct hsk_dev *dev, unsigned region, uint64_t offset, unsigned size,
                             uint64_t value)
{
    struct debug_exit *d = (struct debug_exit *)dev;

    d->s.value = (uint32_t)value;
    hsk_machine_post_event(dev->machine, HSK_EVENT_DEBUG_EXIT, value, NULL);
}

static void debug_exit_reset(struct hsk_dev *dev)
{
    ((struct debug_exit *)dev)->s.value = 0;
}

static void debug_exit_free(struct hsk_dev *dev)
{
    hsk_bus_unmap(hsk_machine_pio(dev->machine), HSK_DEBUG_EXIT_PORT, dev);
    hsk_dev_finish(dev);
    g_free(dev);
}

static const struct hsk_dev_ops debug_exit_ops = {
    .state = {"debug-exit", 1, sizeof(struct debug_exit_state), debug_exit_fields,
              G_N_ELEMENTS(debug_exit_fields)},
    .state_offset = offsetof(struct debug_exit, s),
    .min_size = 1,
    .max_size = 4,
    .read = debug_exit_read,
    .write = debug_exit_write,
    .reset = debug_exit_reset,
    .free = debug_exit_free,
};

struct hsk_dev *hsk_debug_exit_new(struct hsk_machine *m, const char *id)
{
    struct debug_exit *d = g_new0(struct debug_exit, 1);

    hsk_dev_init(&d->dev, &debug_exit_ops, m, id);
    hsk_assert(hsk_bus_map(hsk_machine_pio(m), HSK_DEBUG_EXIT_PORT, 4, &d->dev, 0));
    return &d->dev;
}
