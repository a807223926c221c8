/* SPDX-License-Identifier: MIT */
/*
 * The software engine as the machine sees it (vmm/engine.h): a translator from x86 to x86 that runs
 * on any x86-64 host. The GS base of a vCPU's thread is its struct soft_vcpu for the thread's life.
 */
#include <asm/prctl.h>
#include <errno.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "xlate.h"

#define CHECK_OFFSET(field, off) _Static_assert(offsetof(struct soft_vcpu, field) == (off), #field)
CHECK_OFFSET(gpr, SOFT_OFF_GPR);
CHECK_OFFSET(rip, SOFT_OFF_RIP);
CHECK_OFFSET(rflags, SOFT_OFF_RFLAGS);
CHECK_OFFSET(scratch, SOFT_OFF_SCRATCH);
CHECK_OFFSET(self, SOFT_OFF_SELF);
CHECK_OFFSET(host_rsp, SOFT_OFF_HOST_RSP);
CHECK_OFFSET(exit_arg, SOFT_OFF_EXIT_ARG);
CHECK_OFFSET(page_va, SOFT_OFF_PAGE_VA);
CHECK_OFFSET(ret_rsp, SOFT_OFF_RET_RSP);
CHECK_OFFSET(ret_base, SOFT_OFF_RET_BASE);
CHECK_OFFSET(landing, SOFT_OFF_LANDING);
_Static_assert(sizeof(struct soft_access) == 16, "enter.S steps over it");

static struct soft_vcpu *soft(struct hsk_vcpu *v)
{
    return (struct soft_vcpu *)(void *)((char *)v - offsetof(struct soft_vcpu, base));
}

static bool probe(char **why)
{
    bool ok = __builtin_cpu_supports("avx2");

    if (why)
        *why = g_strdup(ok ? "The software engine runs on this processor."
                           : "The software engine needs a processor with AVX2.");
    return ok;
}

static struct hsk_engine *engine_new(const struct hsk_engine_config *cfg, GError **error)
{
    struct soft_engine *e;

    if (!soft_signals_install(error))
        return NULL;
    e = g_new0(struct soft_engine, 1);
    e->base.ops = &hsk_engine_soft_ops;
    e->base.cfg = *cfg;
    pthread_mutex_init(&e->world, NULL);
    soft_features(e);
    hsk_ram_set_code_write(cfg->ram, soft_code_written, e);
    return &e->base;
}

static void engine_free(struct hsk_engine *engine)
{
    struct soft_engine *e = (struct soft_engine *)engine;

    if (!e)
        return;
    hsk_ram_set_code_write(engine->cfg.ram, NULL, NULL);
    pthread_mutex_destroy(&e->world);
    g_free(e);
}

static struct hsk_vcpu *vcpu_new(struct hsk_engine *engine, const struct hsk_vcpu_config *cfg,
                                 GError **error)
{
    struct soft_engine *e = (struct soft_engine *)engine;
    struct soft_vcpu *v =
        mmap(NULL, sizeof *v, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (v == MAP_FAILED) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_FAILED, "No memory for a processor: %s.",
                    g_strerror(errno));
        return NULL;
    }
    v->code = soft_code_new(engine->cfg.strict, error);
    if (!v->code) {
        munmap(v, sizeof *v);
        return NULL;
    }
    soft_decoder_model(v->code, engine->cfg.cpuid);
    v->self = v;
    v->base = (struct hsk_vcpu){.engine = engine, .index = cfg->index, .lapic = cfg->lapic};
    v->engine = e;
    v->fpu_parked = 1;
    e->vcpu[cfg->index] = v;
    v->ret_base = (uint64_t)(uintptr_t)(v->code->ret_stack + SOFT_RET_SIZE - 16);
    hsk_put64((void *)(uintptr_t)v->ret_base, (uint64_t)(uintptr_t)soft_exit_sentinel);
    /* not canonical, and chosen by nobody: not to be returned to */
    hsk_put64((void *)(uintptr_t)(v->ret_base + 8), 0xa15f0e63c8d4b297);
    soft_tlb_init(v);
    soft_jump_init(v);
    soft_chaos_start(v);
    soft_lockstep_start(v);
    hsk_cpu_state_reset(&v->s, cfg->index);
    memcpy(v->gpr, v->s.gpr, sizeof v->gpr);
    v->rip = v->s.rip;
    v->rflags = v->s.rflags;
    soft_segments_changed(v);
    return &v->base;
}

static void vcpu_free(struct hsk_vcpu *base)
{
    struct soft_vcpu *v;

    if (!base)
        return;
    v = soft(base);
    v->engine->vcpu[base->index] = NULL;
    soft_code_flush(v); /* clears the pages' attributes */
    soft_code_free(v->code);
    g_free(v->lockstep);
    g_free(base->error);
    munmap(v, sizeof *v);
}

static void set_gs(uint64_t base)
{
    if (getauxval(AT_HWCAP2) & 2) /* FSGSBASE */
        __asm__ volatile("wrgsbase %0" : : "r"(base));
    else
        syscall(SYS_arch_prctl, ARCH_SET_GS, base);
}

static void thread_begin(struct hsk_vcpu *base)
{
    set_gs((uint64_t)(uintptr_t)soft(base));
    soft_signals_thread(soft(base));
}

static void thread_end(struct hsk_vcpu *base)
{
    (void)base;
    soft_signals_thread(NULL);
    set_gs(0);
}

static enum hsk_exit run(struct hsk_vcpu *base)
{
    return soft_run(soft(base));
}

static void kick(struct hsk_vcpu *base)
{
    soft_interrupt(soft(base), SOFT_INT_KICK);
}

static void get_state(struct hsk_vcpu *base, struct hsk_cpu_state *s)
{
    struct soft_vcpu *v = soft(base);

    *s = v->s;
    memcpy(s->gpr, v->gpr, sizeof s->gpr);
    s->rip = v->rip;
    s->rflags = v->rflags;
    s->tsc = hsk_clock_tsc(v->base.engine->cfg.clock) +
             s->tsc_adjust; /* not rdtsc: the clock may stand */
    if (base->lapic)
        s->cr8 = hsk_lapic_get_cr8(base->lapic);
}

static bool set_state(struct hsk_vcpu *base, const struct hsk_cpu_state *s, GError **error)
{
    struct soft_vcpu *v = soft(base);

    if (!hsk_cpu_state_check(s, error))
        return false;
    v->s = *s;
    memcpy(v->gpr, s->gpr, sizeof v->gpr);
    v->rip = s->rip;
    v->rflags = s->rflags;
    v->fpu_parked = 1;
    v->delivering = 0;
    v->pdptes_loaded = 0;
    v->halted = s->activity == HSK_ACT_HALTED || s->activity == HSK_ACT_WAIT_SIPI;
    if (base->lapic)
        hsk_lapic_set_cr8(base->lapic, s->cr8);
    v->debug_hits = 0;
    soft_debug_changed(v);
    soft_segments_changed(v);
    soft_tlb_flush_all(v);
    return true;
}

static void flush(struct hsk_engine *engine, unsigned what)
{
    struct soft_engine *e = (struct soft_engine *)engine;

    for (unsigned i = 0; i < G_N_ELEMENTS(e->vcpu); i++) {
        struct soft_vcpu *v = e->vcpu[i];

        if (!v)
            continue;
        if (what & HSK_FLUSH_WRITES)
            soft_tlb_drop_writes(v);
        if (what & HSK_FLUSH_CODE)
            soft_code_flush(v);
        if (what & HSK_FLUSH_TLB)
            soft_interrupt(v, SOFT_INT_FLUSH);
    }
}

static void dirty_sync(struct hsk_engine *engine)
{
    (void)engine; /* every first write announces itself */
}

static char *stats(struct hsk_engine *engine)
{
#define ROW(name, field)                                                                           \
    {                                                                                              \
        name, offsetof(struct soft_vcpu, count.field)                                              \
    }
    static const struct {
        const char *name;
        size_t offset;
    } rows[] = {
        ROW("blocks", blocks),
        ROW("insns", insns),
        ROW("slow-accesses", exits),
        ROW("tlb-misses", tlb_misses),
        ROW("code-flushes", flushes),
        ROW("interrupts", interrupts),
        ROW("exceptions", exceptions),
        ROW("invalidations", invalidations),
        ROW("helper-calls", helper_calls),
        ROW("dispatches", dispatches),
        ROW("chaos", chaos),
        ROW("compared", compared),
        ROW("left-edge", left[0]),
        ROW("left-jump", left[1]),
        ROW("left-helper", left[2]),
    };
#undef ROW
    const struct soft_engine *e = (const struct soft_engine *)engine;
    GString *s = g_string_new(NULL);

    for (unsigned i = 0; i < G_N_ELEMENTS(rows); i++) {
        uint64_t sum = 0;

        for (unsigned n = 0; n < G_N_ELEMENTS(e->vcpu); n++)
            if (e->vcpu[n])
                sum += *(const uint64_t *)(const void *)((const char *)e->vcpu[n] + rows[i].offset);
        g_string_append_printf(s, "soft-%s %" G_GUINT64_FORMAT "\n", rows[i].name, sum);
    }
    return g_string_free(s, FALSE);
}

const struct hsk_engine_ops hsk_engine_soft_ops = {
    .name = "soft",
    .probe = probe,
    .engine_new = engine_new,
    .engine_free = engine_free,
    .vcpu_new = vcpu_new,
    .vcpu_free = vcpu_free,
    .thread_begin = thread_begin,
    .thread_end = thread_end,
    .run = run,
    .kick = kick,
    .get_state = get_state,
    .set_state = set_state,
    .flush = flush,
    .dirty_sync = dirty_sync,
    .stats = stats,
};
