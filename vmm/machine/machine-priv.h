/* SPDX-License-Identifier: MIT */
/* Inside of machine/: the machine's parts. Everyone else sees vmm/machine.h. */
#pragma once

#include <vmm/machine.h>

#define HSK_MAX_CPUS 8

struct hsk_cpu_thread {
    struct hsk_machine *m;
    unsigned index;
    struct hsk_vcpu *vcpu;
    struct hsk_lapic *lapic;
    pthread_t thread;
    bool started;
    /* m->lock */
    pthread_cond_t wake_cond;
    bool parked, wake;
};

struct gsi {
    struct hsk_irq irq;
    struct hsk_machine *m;
    unsigned n;
};

struct hsk_machine {
    /* constant after new */
    struct hsk_machine_config cfg;
    struct hsk_cpuid cpuid;
    struct hsk_clock *clock;
    struct hsk_loop *loop;
    struct hsk_ram *ram;
    struct hsk_bus *pio, *mmio;
    struct hsk_memobj *ram_obj, *vram_obj;
    struct hsk_engine *engine;
    struct hsk_cpu_thread cpu[HSK_MAX_CPUS];
    GPtrArray *devs; /* struct hsk_dev, owned, in load order */
    struct gsi gsi[HSK_NGSI];
    struct hsk_dev *pic, *ioapic, *acpi_pm, *vmgenid, *i8042, *display, *tablet;
    struct hsk_input input;
    /* loop thread */
    bool running;
    bool frozen; /* running, but held for a moment */
    uint8_t buttons;
    /* atomic */
    _Atomic bool reclaim_scheduled;
    /* lock */
    pthread_mutex_t lock;
    pthread_cond_t parked_cond;
    unsigned stop_count; /* > 0: vCPUs stay parked */
    bool quit;
};

/* pc.c: creates all devices of board hv-pc-1.0 in load order. */
bool hsk_pc_create(struct hsk_machine *m, GError **error);
/* irq.c */
void hsk_machine_init_irqs(struct hsk_machine *m);
/* input.c */
void hsk_machine_init_input(struct hsk_machine *m);
