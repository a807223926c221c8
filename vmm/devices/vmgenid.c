/* SPDX-License-Identifier: MIT */
/*
 * The generation id (Microsoft, "Virtual Machine Generation ID", 2012): 16 bytes of guest memory that
 * become others whenever the machine goes on from a state that it, or a copy of it, went on from
 * before. Guests then renew what must not be used twice: random numbers, leases, sequence numbers.
 * The ACPI device VGEN (firmware/dsdt.asl) says where they are, and a general-purpose event that
 * they changed. Who keeps the id, and knows when it changes, is the owner of the machine.
 *
 * Threads: loop.
 */
#include <vmm/machine.h>

#include "devices.h"

struct vmgenid_state {
    uint8_t id[HSK_GENERATION_BYTES];
};

struct vmgenid {
    struct hsk_dev dev;
    struct vmgenid_state s; /* device lock */
    uint8_t power_on[HSK_GENERATION_BYTES];
};

static const struct hsk_field vmgenid_fields[] = {HSK_FA(struct vmgenid_state, id)};

static void vmgenid_reset(struct hsk_dev *dev)
{
    struct vmgenid *g = (struct vmgenid *)dev;

    memcpy(g->s.id, g->power_on, sizeof(g->s.id));
}

/* Into memory, which power-on has cleared and a guest may write; not touched if it is there. */
static void vmgenid_resume(struct hsk_dev *dev)
{
    struct vmgenid *g = (struct vmgenid *)dev;
    struct hsk_ram *ram = hsk_machine_ram(dev->machine);
    uint8_t now[HSK_GENERATION_BYTES];
    HSK_DEV_GUARD(dev);

    if (hsk_ram_read(ram, HSK_VMGENID_GPA, now, sizeof(now)) &&
        memcmp(now, g->s.id, sizeof(now)) != 0)
        hsk_ram_write(ram, HSK_VMGENID_GPA, g->s.id, sizeof(g->s.id));
}

bool hsk_vmgenid_set(struct hsk_dev *dev, const uint8_t *generation)
{
    struct vmgenid *g = (struct vmgenid *)dev;
    HSK_DEV_GUARD(dev);
    bool other = memcmp(g->s.id, generation, sizeof(g->s.id)) != 0;

    memcpy(g->s.id, generation, sizeof(g->s.id));
    memcpy(g->power_on, generation, sizeof(g->power_on));
    return other;
}

static void vmgenid_free(struct hsk_dev *dev)
{
    hsk_dev_finish(dev);
    g_free(dev);
}

static const struct hsk_dev_ops vmgenid_ops = {
    .state = {"vmgenid", 1, sizeof(struct vmgenid_state), vmgenid_fields,
              G_N_ELEMENTS(vmgenid_fields)},
    .state_offset = offsetof(struct vmgenid, s),
    .reset = vmgenid_reset,
    .resume = vmgenid_resume,
    .free = vmgenid_free,
};

struct hsk_dev *hsk_vmgenid_new(struct hsk_machine *m, const char *id,
                                const uint8_t *generation)
{
    struct vmgenid *g = g_new0(struct vmgenid, 1);

    hsk_dev_init(&g->dev, &vmgenid_ops, m, id);
    memcpy(g->power_on, generation, sizeof(g->power_on));
    return &g->dev;
}
