/* SPDX-License-Identifier: MIT */
/*
 * The machine: memory, buses, clock, loop, devices, vCPU threads. The board is the explicit table
 * in machine/pc.c.
 *
 * Threads: the loop thread owns it and makes all calls here unless said otherwise.
 */
#pragma once

#include <vmm/block.h>
#include <vmm/engine.h>
#include <vmm/input.h>
#include <vmm/lapic.h>

/* Fixed addresses of board hv-pc-1.0 (Q35-like). RAM above 3 GiB-256 MiB continues at 4 GiB. */
#define HSK_LOWMEM_MAX    0xb0000000ull
#define HSK_ECAM_BASE     0xb0000000ull /* 256 MiB: buses 0-255 */
#define HSK_PCI_MMIO_BASE 0xc0000000ull
#define HSK_PCI_MMIO_END  0xfec00000ull
#define HSK_VRAM_BASE     0xe0000000ull /* power-on value of the display's BAR 0 */
#define HSK_IOAPIC_BASE   0xfec00000ull
#define HSK_LAPIC_BASE    0xfee00000ull
#define HSK_HIGHMEM_BASE  0x100000000ull
#define HSK_PMBASE                                                                                 \
    0x600 /* ACPI PM block: PM1a evt 0x600, cnt 0x604, timer 0x608, reset reg 0xcf9 */
#define HSK_DEBUG_EXIT_PORT 0xf4
#define HSK_VMGENID_GPA     0xef000ull /* the page of the generation id, behind the ACPI tables */

/* The generation id of a machine: another one whenever it goes on from a state that it, or a copy
 * of it, went on from before. */
#define HSK_GENERATION_BYTES 16

/* GSIs: 0-15 ISA (0 -> I/O APIC pin 2), 16-23 PCI INTA-H. SCI is 9. */
#define HSK_NGSI 24

enum hsk_event_kind {
    HSK_EVENT_POWEROFF,   /* the guest switched itself off (ACPI S5) */
    HSK_EVENT_RESET,      /* the guest asked for reset (0xcf9, 8042, triple fault): the owner calls
                             hsk_machine_reset or ends */
    HSK_EVENT_DEBUG_EXIT, /* value written to the debug-exit port */
    HSK_EVENT_ERROR,      /* text: what is not implemented; vCPUs are stopped */
    HSK_EVENT_SCANOUT,    /* the picture's geometry changed: hsk_machine_scanout() */
    HSK_EVENT_LEDS,       /* value: bit 0 scroll, 1 num, 2 caps */
};
/* Runs on the loop thread. */
typedef void (*hsk_event_fn)(void *opaque, enum hsk_event_kind kind, uint64_t value,
                             const char *text);

struct hsk_disk_config {
    struct hsk_block *block; /* taken */
    char serial[21];
};

struct hsk_machine_config {
    const struct hsk_engine_ops *engine;
    const char *cpu;                      /* model spec or NULL */
    unsigned ncpus;                       /* 1..8 */
    uint64_t memory_bytes;                /* multiple of 1 MiB, 16 MiB..64 GiB */
    uint64_t vram_bytes;                  /* 0 = no display; else 16 MiB is the normal size */
    uint64_t tsc_hz;                      /* 0 = host's */
    const struct hsk_clock_sample *since; /* hsk_clock_new_since(); or NULL; borrowed for new */
    bool debug_exit;                      /* port 0xf4 */
    bool test_device;                     /* devices/test-device.c */
    bool strict, stats;
    int perf_map; /* a descriptor (borrowed) or 0; this and the next two as in struct
                     hsk_engine_config */
    uint64_t chaos;
    unsigned lockstep;
    struct hsk_disk_config disks[8];
    unsigned ndisks;
    int serial_in, serial_out; /* descriptors (borrowed) of COM1 or -1: see devices/uart16550.c */
    int ram_fd, ram_attr_fd, vram_fd,
        vram_attr_fd;                         /* memfds from the keeper (taken), or -1: own ones */
    uint8_t generation[HSK_GENERATION_BYTES]; /* zeros if nothing is ever saved */
    bool catch_up;                            /* hsk_clock_set_catch_up() */
    hsk_event_fn event;
    void *event_opaque;
};

struct hsk_machine;

struct hsk_machine *hsk_machine_new(const struct hsk_machine_config *cfg, GError **error);
void hsk_machine_free(struct hsk_machine *m); /* stops first */

/* Devices' view (any thread; constant after new). */
struct hsk_loop *hsk_machine_loop(struct hsk_machine *m);
struct hsk_clock *hsk_machine_clock(struct hsk_machine *m);
struct hsk_ram *hsk_machine_ram(struct hsk_machine *m);
struct hsk_bus *hsk_machine_pio(struct hsk_machine *m);
struct hsk_bus *hsk_machine_mmio(struct hsk_machine *m);
struct hsk_engine *hsk_machine_engine(struct hsk_machine *m);
const struct hsk_cpuid *hsk_machine_cpuid(struct hsk_machine *m);
unsigned hsk_machine_ncpus(const struct hsk_machine *m);
struct hsk_lapic *hsk_machine_lapic(struct hsk_machine *m, unsigned index);
struct hsk_memobj *hsk_machine_memobj(struct hsk_machine *m,
                                      const char *name); /* "ram", "vram", or NULL */
/* Interrupt line GSI n: drives PIC (n < 16) and I/O APIC. */
struct hsk_irq *hsk_machine_gsi(struct hsk_machine *m, unsigned n);
/* Any thread: delivers the event on the loop thread; POWEROFF, RESET, DEBUG_EXIT and ERROR also
 * stop the vCPUs first. */
void hsk_machine_post_event(struct hsk_machine *m, enum hsk_event_kind kind, uint64_t value,
                            const char *text);
/* Any thread, also a vCPU's in a device handler: the guest-physical map was changed. */
void hsk_machine_memory_changed(struct hsk_machine *m);
/* The board's registry: for save, load, reset. Called by pc.c in new; order = load order. Takes
 * dev. */
void hsk_machine_add_dev(struct hsk_machine *m, struct hsk_dev *dev);
struct hsk_dev *hsk_machine_find_dev(struct hsk_machine *m, const char *id);
unsigned hsk_machine_ndevs(const struct hsk_machine *m);
struct hsk_dev *hsk_machine_dev(struct hsk_machine *m, unsigned i);

/* Life: new -> (reset [+ boot loader sets vCPU 0] | load) -> run -> stop -> ... */
void hsk_machine_reset(struct hsk_machine *m); /* stopped; all devices and vCPUs to power-on */
void hsk_machine_run(struct hsk_machine *m);   /* clock and vCPUs go */
void hsk_machine_stop(
    struct hsk_machine *m); /* vCPUs parked, clock stopped, devices paused; idempotent */
bool hsk_machine_running(const struct hsk_machine *m);
struct hsk_vcpu *hsk_machine_vcpu(struct hsk_machine *m, unsigned index);

/* A short stop of the vCPUs only (clock goes on, devices unaware): for display damage. fn runs with
 * all vCPUs parked. */
void hsk_machine_at_safe_point(struct hsk_machine *m, void (*fn)(void *opaque), void *opaque);

/* The same with the clock held, so that the machine can be saved, and as if nothing had been: when
   it goes on, the guest's time has gone on too. Devices keep what they have in flight, which is
   part of their state. Nothing happens if the machine is stopped. */
void hsk_machine_freeze(struct hsk_machine *m);
void hsk_machine_thaw(struct hsk_machine *m);

/* Everything but memory objects and disks' contents: clock, devices, vCPUs. Stopped or frozen only.
 * Pure: the machine may go on. */
GBytes *hsk_machine_save(struct hsk_machine *m);
/* On a new machine of the same configuration whose memory is already in place. On error the machine
 * must be freed. */
bool hsk_machine_load(struct hsk_machine *m, GBytes *state, GError **error);
/* On a machine that has run and is stopped: it becomes the one that was saved. What changed in its
   memory was told (hsk_ram_written), so that translations of the rest stay. On error another state
   must be loaded. */
bool hsk_machine_load_again(struct hsk_machine *m, GBytes *state, GError **error);

/* After a load, or for a machine that is stopped: it goes on as that generation. If it was another
 * one, the guest is told (ACPI device VGEN). */
void hsk_machine_set_generation(struct hsk_machine *m,
                                const uint8_t generation[HSK_GENERATION_BYTES]);

/* hsk_clock_set_catch_up(), from its next stop on. */
void hsk_machine_set_catch_up(struct hsk_machine *m, bool on);

/* Screen and input. */
bool hsk_machine_scanout(struct hsk_machine *m, struct hsk_scanout *out); /* false: no display */
struct hsk_input *hsk_machine_input(struct hsk_machine *m); /* NULL: no input devices */
void hsk_machine_power_button(struct hsk_machine *m);
