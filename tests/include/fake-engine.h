/* SPDX-License-Identifier: MIT */
/* An engine that executes nothing: every vCPU is halted. For tests of devices in a whole machine.
 */
#pragma once

#include <vmm/machine.h>

#define FAKE_TSC_HZ 1000000000u /* so that ticks are nanoseconds */

struct fake_vcpu {
    struct hsk_vcpu vcpu;
    struct hsk_cpu_state *state;
};

static struct hsk_engine *fake_engine_new(const struct hsk_engine_config *cfg, GError **error);
static void fake_engine_free(struct hsk_engine *e)
{
    g_free(e);
}
static struct hsk_vcpu *fake_vcpu_new(struct hsk_engine *e, const struct hsk_vcpu_config *cfg,
                                      GError **error)
{
    struct fake_vcpu *v = g_new0(struct fake_vcpu, 1);

    v->vcpu = (struct hsk_vcpu){.engine = e, .index = cfg->index, .lapic = cfg->lapic};
    v->state = g_aligned_alloc0(1, sizeof *v->state, 64);
    return &v->vcpu;
}
static void fake_vcpu_free(struct hsk_vcpu *v)
{
    g_aligned_free(((struct fake_vcpu *)v)->state);
    g_free(v);
}
static void fake_nothing(struct hsk_vcpu *v)
{
}
static enum hsk_exit fake_run(struct hsk_vcpu *v)
{
    return HSK_EXIT_HALT;
}
static void fake_get_state(struct hsk_vcpu *v, struct hsk_cpu_state *s)
{
    *s = *((struct fake_vcpu *)v)->state;
}
static bool fake_set_state(struct hsk_vcpu *v, const struct hsk_cpu_state *s, GError **error)
{
    *((struct fake_vcpu *)v)->state = *s;
    return true;
}
static void fake_flush(struct hsk_engine *e, unsigned what)
{
}

static const struct hsk_engine_ops fake_engine_ops = {
    .name = "fake",
    .engine_new = fake_engine_new,
    .engine_free = fake_engine_free,
    .vcpu_new = fake_vcpu_new,
    .vcpu_free = fake_vcpu_free,
    .thread_begin = fake_nothing,
    .thread_end = fake_nothing,
    .run = fake_run,
    .kick = fake_nothing,
    .get_state = fake_get_state,
    .set_state = fake_set_state,
    .flush = fake_flush,
};

static struct hsk_engine *fake_engine_new(const struct hsk_engine_config *cfg, GError **error)
{
    struct hsk_engine *e = g_new0(struct hsk_engine, 1);

    e->ops = &fake_engine_ops;
    e->cfg = *cfg;
    return e;
}

static inline struct hsk_machine_config fake_config(void)
{
    return (struct hsk_machine_config){
        .engine = &fake_engine_ops,
        .cpu = "v2",
        .ncpus = 2,
        .memory_bytes = 32u << 20,
        .tsc_hz = FAKE_TSC_HZ,
        .debug_exit = true,
        .test_device = true,
        .serial_in = -1,
        .serial_out = -1,
        .ram_fd = -1,
        .ram_attr_fd = -1,
        .vram_fd = -1,
        .vram_attr_fd = -1,
    };
}
