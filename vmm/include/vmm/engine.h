/* SPDX-License-Identifier: MIT */
/*
 * The seam between a machine and what executes its processors. Two engines implement it: engine-kvm
 * and engine-soft.
 *
 * An engine calls port and MMIO handlers itself through the buses it was given, reads and writes
 * guest memory through struct hsk_ram, and asks the local APIC for interrupts. So run() returns
 * only for the reasons of enum hsk_exit.
 *
 * Threads: run() belongs to the vCPU's thread. kick() is for any thread, async-signal-safe.
 * Everything else is called only while no vCPU is inside run() (all parked), except where said.
 */
#pragma once

#include <base/clock.h>
#include <vmm/cpu_state.h>
#include <vmm/cpuid.h>
#include <vmm/device.h>
#include <vmm/memory.h>

struct hsk_engine;
struct hsk_vcpu;
struct hsk_lapic;

enum hsk_exit {
    HSK_EXIT_KICK,     /* somebody called kick(): look at the machine's flags */
    HSK_EXIT_HALT,     /* HLT and nothing to deliver: sleep until kicked */
    HSK_EXIT_SHUTDOWN, /* triple fault */
    HSK_EXIT_ERROR,    /* cannot go on; the vCPU's error has the sentence (names the instruction or
                          feature) */
};

enum {
    HSK_FLUSH_WRITES = 1 << 0, /* drop cached permission to write pages without announcing (snapshot
                                  epoch, display) */
    HSK_FLUSH_TLB = 1 << 1,  /* the guest-physical map changed, or memory contents were replaced */
    HSK_FLUSH_CODE = 1 << 2, /* memory contents were replaced: drop all translations */
};

struct hsk_engine_config {
    struct hsk_ram *ram;
    struct hsk_bus *pio, *mmio;
    struct hsk_clock *clock;
    const struct hsk_cpuid *cpuid;
    unsigned ncpus;
    bool strict;       /* soft: one-instruction blocks, all flags kept, no chaining */
    unsigned lockstep; /* soft: one in so many blocks is run again in strict mode and compared; 0 =
                          none */
    int perf_map;      /* soft: descriptor to name translations in, for perf; 0 = none */
    uint64_t chaos;    /* soft: seed of random disturbances between blocks; 0 = none */
    bool stats;
};

struct hsk_vcpu_config {
    unsigned index;
    struct hsk_lapic *lapic; /* borrowed; its owner sets hsk_vcpu_irq via kick */
};

struct hsk_engine_ops {
    const char *name; /* "soft", "kvm" */
    /* Can it run here? why = one sentence for the user in both cases (owned by caller). */
    bool (*probe)(char **why);
    /* The model for a machine that asks for none, where the usual one would not do; NULL = the
     * usual one. May be NULL. */
    const char *(*default_cpu)(void);
    struct hsk_engine *(*engine_new)(const struct hsk_engine_config *cfg, GError **error);
    void (*engine_free)(struct hsk_engine *e);
    struct hsk_vcpu *(*vcpu_new)(struct hsk_engine *e, const struct hsk_vcpu_config *cfg,
                                 GError **error);
    void (*vcpu_free)(struct hsk_vcpu *v);
    /* Once on the vCPU's thread before the first run(), and at its end. */
    void (*thread_begin)(struct hsk_vcpu *v);
    void (*thread_end)(struct hsk_vcpu *v);
    enum hsk_exit (*run)(struct hsk_vcpu *v);
    void (*kick)(struct hsk_vcpu *v);
    void (*get_state)(struct hsk_vcpu *v, struct hsk_cpu_state *s);
    bool (*set_state)(struct hsk_vcpu *v, const struct hsk_cpu_state *s, GError **error);
    /* All vCPUs parked, except HSK_FLUSH_TLB, which is for any thread and takes effect at the next
     * block head. */
    void (*flush)(struct hsk_engine *e, unsigned what);
    /* Brings dirty attributes up to date (KVM's dirty log); the soft engine has nothing to do. The
     * guest may run meanwhile: what it writes from here on is found the next time. Any thread. */
    void (*dirty_sync)(struct hsk_engine *e);
    /* Text lines "name value" for --stats, or NULL. Caller frees. */
    char *(*stats)(struct hsk_engine *e);
};

struct hsk_engine {
    const struct hsk_engine_ops *ops;
    struct hsk_engine_config cfg;
};

struct hsk_vcpu {
    struct hsk_engine *engine;
    unsigned index;
    struct hsk_lapic *lapic;
    char *error; /* sentence after HSK_EXIT_ERROR; owned */
};

extern const struct hsk_engine_ops hsk_engine_soft_ops;
extern const struct hsk_engine_ops hsk_engine_kvm_ops;

enum hsk_engine_choice { HSK_ENGINE_AUTO, HSK_ENGINE_KVM, HSK_ENGINE_SOFT };
/* auto: KVM if it really virtualizes (VMX or SVM behind it), else soft. *note: a sentence for the
 * user or NULL; caller frees. */
const struct hsk_engine_ops *hsk_engine_pick(enum hsk_engine_choice choice, char **note,
                                             GError **error);
