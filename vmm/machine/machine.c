/* SPDX-License-Identifier: MIT */
/*
 * The machine (vmm/machine.h): owns memory, buses, clock, loop, devices and the vCPU threads, and
 * stops, runs, saves and loads them in the one legal order (clock, devices, vCPUs).
 *
 * Threads: the loop thread calls everything; a vCPU thread runs its engine and parks while
 * stop_count > 0. Lock order: device -> APIC -> machine lock (leaf; nothing is called with it held
 * but condition variables and kick).
 */
#include <errno.h>

#include "machine-priv.h"

#define PARK_SPIN_US 100

static const struct hsk_field clock_fields[] = {
    HSK_F(struct hsk_clock_state, tsc_hz),
    HSK_F(struct hsk_clock_state, tsc),
    HSK_F(struct hsk_clock_state, wall_ns),
};
static const struct hsk_state_desc clock_desc = {
    "clock", 1, sizeof(struct hsk_clock_state), clock_fields, G_N_ELEMENTS(clock_fields),
};

/* ---- vCPU threads ---- */

/* From the APIC, any thread: something may be deliverable. */
static void cpu_kick(void *opaque)
{
    struct hsk_cpu_thread *c = opaque;

    pthread_mutex_lock(&c->m->lock);
    c->wake = true;
    pthread_cond_signal(&c->wake_cond);
    pthread_mutex_unlock(&c->m->lock);
    c->m->engine->ops->kick(c->vcpu);
}

static void handle_exit(struct hsk_cpu_thread *c, enum hsk_exit exit, bool *halted)
{
    *halted = exit == HSK_EXIT_HALT;
    if (exit == HSK_EXIT_SHUTDOWN)
        hsk_machine_post_event(c->m, HSK_EVENT_RESET, 0,
                               "the processor shut itself down (triple fault)");
    else if (exit == HSK_EXIT_ERROR)
        hsk_machine_post_event(c->m, HSK_EVENT_ERROR, 0, c->vcpu->error);
}

static void *cpu_main(void *arg)
{
    struct hsk_cpu_thread *c = arg;
    struct hsk_machine *m = c->m;
    const struct hsk_engine_ops *ops = m->engine->ops;
    bool halted = false;

    hsk_lapic_bind_thread(c->lapic);
    ops->thread_begin(c->vcpu);
    pthread_mutex_lock(&m->lock);
    while (!m->quit) {
        enum hsk_exit exit;

        if (m->stop_count || (halted && !c->wake)) {
            /* One that has nothing to do is parked, too: it looks here before it runs again. */
            if (!c->parked) {
                c->parked = true;
                if (m->stop_count)
                    pthread_cond_broadcast(&m->parked_cond);
            }
            pthread_cond_wait(&c->wake_cond, &m->lock);
            continue;
        }
        c->parked = false;
        c->wake = false;
        pthread_mutex_unlock(&m->lock);
        exit = ops->run(c->vcpu);
        handle_exit(c, exit, &halted);
        pthread_mutex_lock(&m->lock);
    }
    pthread_mutex_unlock(&m->lock);
    ops->thread_end(c->vcpu);
    return NULL;
}

/* Asks all vCPUs to park; does not wait, so a vCPU may call it. */
static void request_stop(struct hsk_machine *m)
{
    pthread_mutex_lock(&m->lock);
    m->stop_count++;
    pthread_mutex_unlock(&m->lock);
    for (unsigned i = 0; i < m->cfg.ncpus; i++)
        if (m->cpu[i].vcpu)
            m->engine->ops->kick(m->cpu[i].vcpu);
}

static bool all_parked(struct hsk_machine *m)
{
    bool all = true;

    pthread_mutex_lock(&m->lock);
    for (unsigned i = 0; i < m->cfg.ncpus; i++)
        all &= !m->cpu[i].started || m->cpu[i].parked;
    pthread_mutex_unlock(&m->lock);
    return all;
}

static void wait_parked(struct hsk_machine *m)
{
    const gint64 end = g_get_monotonic_time() + PARK_SPIN_US;

    /* Those that run are there in no time: who goes to sleep for that wakes up much later. */
    while (!all_parked(m) && g_get_monotonic_time() < end)
        for (unsigned i = 0; i < 20; i++)
            __builtin_ia32_pause();
    pthread_mutex_lock(&m->lock);
    for (unsigned i = 0; i < m->cfg.ncpus; i++)
        while (m->cpu[i].started && !m->cpu[i].parked)
            pthread_cond_wait(&m->parked_cond, &m->lock);
    pthread_mutex_unlock(&m->lock);
}

static void release_stop(struct hsk_machine *m)
{
    pthread_mutex_lock(&m->lock);
    hsk_assert(m->stop_count > 0);
    m->stop_count--;
    for (unsigned i = 0; i < m->cfg.ncpus; i++) {
        m->cpu[i].wake =
            true; /* a halted vCPU looks again at what waits: the state may be another one */
        pthread_cond_signal(&m->cpu[i].wake_cond);
    }
    pthread_mutex_unlock(&m->lock);
}

/* ---- construction ---- */

static bool map_memory(struct hsk_machine *m)
{
    uint64_t low = MIN(m->cfg.memory_bytes, HSK_LOWMEM_MAX);
    struct hsk_ram_region r = {.gpa = 0, .size_bytes = low, .offset = 0, .obj = m->ram_obj};

    if (!hsk_ram_map_add(m->ram, &r))
        return false;
    if (m->cfg.memory_bytes == low)
        return true;
    r = (struct hsk_ram_region){.gpa = HSK_HIGHMEM_BASE,
                                .size_bytes = m->cfg.memory_bytes - low,
                                .offset = low,
                                .obj = m->ram_obj};
    return hsk_ram_map_add(m->ram, &r);
}

static struct hsk_memobj *make_memobj(const char *name, uint64_t size, int fd, int attr_fd,
                                      GError **error)
{
    return fd >= 0 ? hsk_memobj_new_fds(name, size, fd, attr_fd, error)
                   : hsk_memobj_new(name, size, error);
}

static bool check_config(const struct hsk_machine_config *cfg, GError **error)
{
    if (cfg->ncpus < 1 || cfg->ncpus > HSK_MAX_CPUS) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_USAGE, "A machine has 1 to %u processors, not %u",
                    HSK_MAX_CPUS, cfg->ncpus);
        return false;
    }
    if (cfg->memory_bytes < (16u << 20) || cfg->memory_bytes > (64ull << 30) ||
        cfg->memory_bytes % (1u << 20)) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_USAGE,
                    "A machine has 16 MiB to 64 GiB of memory in whole MiB, not %" G_GUINT64_FORMAT
                    " bytes",
                    cfg->memory_bytes);
        return false;
    }
    return true;
}

static bool create_parts(struct hsk_machine *m, GError **error)
{
    struct hsk_engine_config ec;

    if (!m->cfg.cpu && m->cfg.engine->default_cpu)
        m->cfg.cpu = m->cfg.engine->default_cpu();
    m->clock = hsk_clock_new_since(m->cfg.tsc_hz, m->cfg.since);
    m->cfg.since = NULL;
    hsk_clock_set_catch_up(m->clock, m->cfg.catch_up);
    m->loop = hsk_loop_new(m->clock, error);
    if (!m->loop ||
        !hsk_cpuid_build(&m->cpuid, m->cfg.cpu, m->cfg.ncpus, hsk_clock_tsc_hz(m->clock), error))
        return false;
    m->ram = hsk_ram_new();
    m->pio = hsk_bus_new("ports");
    m->mmio = hsk_bus_new("memory");
    m->ram_obj = make_memobj("ram", m->cfg.memory_bytes, m->cfg.ram_fd, m->cfg.ram_attr_fd, error);
    m->cfg.ram_fd = m->cfg.ram_attr_fd = -1;
    if (!m->ram_obj)
        return false;
    if (m->cfg.vram_bytes) {
        m->vram_obj =
            make_memobj("vram", m->cfg.vram_bytes, m->cfg.vram_fd, m->cfg.vram_attr_fd, error);
        m->cfg.vram_fd = m->cfg.vram_attr_fd = -1;
        if (!m->vram_obj)
            return false;
    }
    hsk_assert(map_memory(m));
    hsk_machine_init_irqs(m);
    ec = (struct hsk_engine_config){.ram = m->ram,
                                    .pio = m->pio,
                                    .mmio = m->mmio,
                                    .clock = m->clock,
                                    .cpuid = &m->cpuid,
                                    .ncpus = m->cfg.ncpus,
                                    .strict = m->cfg.strict,
                                    .chaos = m->cfg.chaos,
                                    .perf_map = m->cfg.perf_map,
                                    .lockstep = m->cfg.lockstep,
                                    .stats = m->cfg.stats};
    m->engine = m->cfg.engine->engine_new(&ec, error);
    return m->engine && hsk_pc_create(m, error);
}

static bool create_cpus(struct hsk_machine *m, GError **error)
{
    for (unsigned i = 0; i < m->cfg.ncpus; i++) {
        struct hsk_cpu_thread *c = &m->cpu[i];
        struct hsk_vcpu_config vc = {.index = i, .lapic = c->lapic};
        int err;

        c->vcpu = m->engine->ops->vcpu_new(m->engine, &vc, error);
        if (!c->vcpu)
            return false;
        hsk_lapic_set_kick(c->lapic, cpu_kick, c);
        err = pthread_create(&c->thread, NULL, cpu_main, c);
        if (err) {
            g_set_error(error, HSK_ERROR, HSK_ERROR_FAILED, "Cannot start a processor thread: %s",
                        g_strerror(err));
            return false;
        }
        c->started = true;
    }
    return true;
}

struct hsk_machine *hsk_machine_new(const struct hsk_machine_config *cfg, GError **error)
{
    struct hsk_machine *m = g_new0(struct hsk_machine, 1);

    m->cfg = *cfg;
    m->devs = g_ptr_array_new();
    m->stop_count = 1; /* until run */
    pthread_mutex_init(&m->lock, NULL);
    pthread_cond_init(&m->parked_cond, NULL);
    for (unsigned i = 0; i < HSK_MAX_CPUS; i++) {
        m->cpu[i] = (struct hsk_cpu_thread){.m = m, .index = i};
        pthread_cond_init(&m->cpu[i].wake_cond, NULL);
    }
    if (!check_config(cfg, error) || !create_parts(m, error) || !create_cpus(m, error)) {
        hsk_machine_free(m);
        return NULL;
    }
    wait_parked(m);
    hsk_machine_init_input(m);
    return m;
}

static void join_cpus(struct hsk_machine *m)
{
    pthread_mutex_lock(&m->lock);
    m->quit = true;
    for (unsigned i = 0; i < HSK_MAX_CPUS; i++)
        pthread_cond_signal(&m->cpu[i].wake_cond);
    pthread_mutex_unlock(&m->lock);
    for (unsigned i = 0; i < HSK_MAX_CPUS; i++) {
        struct hsk_cpu_thread *c = &m->cpu[i];

        if (c->started)
            pthread_join(c->thread, NULL);
        if (c->lapic)
            hsk_lapic_set_kick(c->lapic, NULL, NULL);
        if (c->vcpu)
            m->engine->ops->vcpu_free(c->vcpu);
        pthread_cond_destroy(&c->wake_cond);
    }
}

static void close_fd(int fd)
{
    if (fd >= 0)
        close(fd);
}

void hsk_machine_free(struct hsk_machine *m)
{
    if (!m)
        return;
    hsk_machine_stop(m);
    m->cfg.event = NULL;
    if (m->loop)
        hsk_loop_flush_calls(
            m->loop); /* what was posted and not delivered; it may kick the vCPUs */
    join_cpus(m);
    while (m->devs->len) {
        struct hsk_dev *dev = g_ptr_array_steal_index(m->devs, m->devs->len - 1);

        dev->ops->free(dev);
    }
    g_ptr_array_unref(m->devs);
    for (unsigned i = 0; i < m->cfg.ndisks; i++)
        if (m->cfg.disks[i].block) /* not handed to a device yet */
            m->cfg.disks[i].block->ops->free(m->cfg.disks[i].block);
    if (m->engine)
        m->engine->ops->engine_free(m->engine);
    hsk_bus_free(m->pio);
    hsk_bus_free(m->mmio);
    hsk_ram_free(m->ram);
    hsk_memobj_free(m->ram_obj);
    hsk_memobj_free(m->vram_obj);
    close_fd(m->cfg.ram_fd);
    close_fd(m->cfg.ram_attr_fd);
    close_fd(m->cfg.vram_fd);
    close_fd(m->cfg.vram_attr_fd);
    hsk_loop_free(m->loop);
    hsk_clock_free(m->clock);
    pthread_mutex_destroy(&m->lock);
    pthread_cond_destroy(&m->parked_cond);
    g_free(m);
}

/* ---- accessors ---- */

struct hsk_loop *hsk_machine_loop(struct hsk_machine *m)
{
    return m->loop;
}
struct hsk_clock *hsk_machine_clock(struct hsk_machine *m)
{
    return m->clock;
}
struct hsk_ram *hsk_machine_ram(struct hsk_machine *m)
{
    return m->ram;
}
struct hsk_bus *hsk_machine_pio(struct hsk_machine *m)
{
    return m->pio;
}
struct hsk_bus *hsk_machine_mmio(struct hsk_machine *m)
{
    return m->mmio;
}
struct hsk_engine *hsk_machine_engine(struct hsk_machine *m)
{
    return m->engine;
}
const struct hsk_cpuid *hsk_machine_cpuid(struct hsk_machine *m)
{
    return &m->cpuid;
}
unsigned hsk_machine_ncpus(const struct hsk_machine *m)
{
    return m->cfg.ncpus;
}
struct hsk_lapic *hsk_machine_lapic(struct hsk_machine *m, unsigned index)
{
    return index < m->cfg.ncpus ? m->cpu[index].lapic : NULL;
}
struct hsk_vcpu *hsk_machine_vcpu(struct hsk_machine *m, unsigned index)
{
    return index < m->cfg.ncpus ? m->cpu[index].vcpu : NULL;
}
struct hsk_memobj *hsk_machine_memobj(struct hsk_machine *m, const char *name)
{
    if (strcmp(name, "ram") == 0)
        return m->ram_obj;
    return strcmp(name, "vram") == 0 ? m->vram_obj : NULL;
}

void hsk_machine_add_dev(struct hsk_machine *m, struct hsk_dev *dev)
{
    hsk_assert(!hsk_machine_find_dev(m, dev->id));
    g_ptr_array_add(m->devs, dev);
}
struct hsk_dev *hsk_machine_find_dev(struct hsk_machine *m, const char *id)
{
    for (guint i = 0; i < m->devs->len; i++) {
        struct hsk_dev *dev = g_ptr_array_index(m->devs, i);

        if (strcmp(dev->id, id) == 0)
            return dev;
    }
    return NULL;
}
unsigned hsk_machine_ndevs(const struct hsk_machine *m)
{
    return m->devs->len;
}
struct hsk_dev *hsk_machine_dev(struct hsk_machine *m, unsigned i)
{
    return g_ptr_array_index(m->devs, i);
}

/* ---- events ---- */

struct event {
    struct hsk_machine *m;
    enum hsk_event_kind kind;
    uint64_t value;
    char *text;
    bool stops;
};

static void deliver_event(void *opaque)
{
    struct event *e = opaque;
    struct hsk_machine *m = e->m;

    if (e->stops) {
        hsk_machine_stop(m); /* counts one stop of its own: the request's is given back */
        pthread_mutex_lock(&m->lock);
        m->stop_count--;
        pthread_mutex_unlock(&m->lock);
    }
    if (m->cfg.event)
        m->cfg.event(m->cfg.event_opaque, e->kind, e->value, e->text);
    g_free(e->text);
    g_free(e);
}

void hsk_machine_post_event(struct hsk_machine *m, enum hsk_event_kind kind, uint64_t value,
                            const char *text)
{
    struct event *e = g_new0(struct event, 1);

    *e = (struct event){.m = m, .kind = kind, .value = value, .text = g_strdup(text)};
    e->stops = kind == HSK_EVENT_POWEROFF || kind == HSK_EVENT_RESET ||
               kind == HSK_EVENT_DEBUG_EXIT || kind == HSK_EVENT_ERROR;
    if (e->stops)
        request_stop(m);
    hsk_loop_call(m->loop, deliver_event, e);
}

static void reclaim(void *opaque)
{
    struct hsk_machine *m = opaque;

    hsk_bus_reclaim(m->pio);
    hsk_bus_reclaim(m->mmio);
    hsk_ram_reclaim(m->ram);
}

static void reclaim_soon(void *opaque)
{
    struct hsk_machine *m = opaque;

    atomic_store(&m->reclaim_scheduled, false);
    hsk_machine_at_safe_point(m, reclaim, m);
}

void hsk_machine_memory_changed(struct hsk_machine *m)
{
    m->engine->ops->flush(m->engine, HSK_FLUSH_TLB);
    /* A guest may move its BARs for ever: the replaced maps must not pile up. */
    if (!atomic_exchange(&m->reclaim_scheduled, true))
        hsk_loop_call(m->loop, reclaim_soon, m);
}

/* ---- life ---- */

void hsk_machine_stop(struct hsk_machine *m)
{
    if (!m->running)
        return;
    request_stop(m);
    wait_parked(m);
    hsk_clock_stop(m->clock);
    hsk_loop_clock_changed(m->loop);
    for (guint i = 0; i < m->devs->len; i++) {
        struct hsk_dev *dev = g_ptr_array_index(m->devs, i);

        if (dev->ops->pause)
            dev->ops->pause(dev);
    }
    m->running = false;
}

void hsk_machine_run(struct hsk_machine *m)
{
    if (m->running)
        return;
    hsk_clock_start(m->clock);
    for (guint i = 0; i < m->devs->len; i++) {
        struct hsk_dev *dev = g_ptr_array_index(m->devs, i);

        if (dev->ops->resume)
            dev->ops->resume(dev);
    }
    m->running = true;
    hsk_loop_clock_changed(m->loop);
    release_stop(m);
}

void hsk_machine_set_catch_up(struct hsk_machine *m, bool on)
{
    bool running = m->running;

    hsk_machine_stop(m);
    hsk_clock_set_catch_up(m->clock, on);
    if (running)
        hsk_machine_run(m);
}

void hsk_machine_freeze(struct hsk_machine *m)
{
    if (!m->running || m->frozen)
        return;
    request_stop(m);
    wait_parked(m);
    hsk_clock_stop(m->clock);
    m->frozen = true;
}

void hsk_machine_thaw(struct hsk_machine *m)
{
    if (!m->frozen)
        return;
    hsk_clock_go_on(m->clock);
    m->frozen = false;
    release_stop(m);
}

bool hsk_machine_running(const struct hsk_machine *m)
{
    return m->running;
}

void hsk_machine_at_safe_point(struct hsk_machine *m, void (*fn)(void *opaque), void *opaque)
{
    request_stop(m);
    wait_parked(m);
    fn(opaque);
    release_stop(m);
}

static void reset_devices(struct hsk_machine *m)
{
    for (guint i = 0; i < m->devs->len; i++) {
        struct hsk_dev *dev = g_ptr_array_index(m->devs, i);

        dev->ops->reset(dev);
    }
}

void hsk_machine_reset(struct hsk_machine *m)
{
    hsk_assert(!m->running);
    reset_devices(m);
    for (unsigned i = 0; i < m->cfg.ncpus; i++) {
        struct hsk_cpu_state *s = g_aligned_alloc0(1, sizeof *s, 64);
        g_autoptr(GError) error = NULL;

        hsk_cpu_state_reset(s, i);
        s->tsc = hsk_clock_tsc(m->clock);
        hsk_assert(m->engine->ops->set_state(m->cpu[i].vcpu, s, &error));
        g_aligned_free(s);
    }
    m->engine->ops->flush(m->engine, HSK_FLUSH_TLB | HSK_FLUSH_CODE | HSK_FLUSH_WRITES);
}

/* ---- save and load ---- */

static void cpu_section(unsigned index, char id[16])
{
    g_snprintf(id, 16, "cpu.%u", index);
}

GBytes *hsk_machine_save(struct hsk_machine *m)
{
    HSK_AUTO(hsk_state_writer, w) = hsk_state_writer_new();
    struct hsk_clock_state cs;

    hsk_assert(!m->running || m->frozen);
    hsk_clock_save(m->clock, &cs);
    hsk_state_put(w, "clock", &clock_desc, &cs);
    for (guint i = 0; i < m->devs->len; i++) {
        struct hsk_dev *dev = g_ptr_array_index(m->devs, i);

        hsk_state_put(w, dev->id, &dev->ops->state, hsk_dev_state(dev));
    }
    for (unsigned i = 0; i < m->cfg.ncpus; i++) {
        struct hsk_cpu_state *s = g_aligned_alloc0(1, sizeof *s, 64);
        char id[16];

        cpu_section(i, id);
        m->engine->ops->get_state(m->cpu[i].vcpu, s);
        hsk_state_put(w, id, &hsk_cpu_state_desc, s);
        g_aligned_free(s);
    }
    return hsk_state_writer_finish(w);
}

static bool load_devices(struct hsk_machine *m, struct hsk_state_reader *r, GError **error)
{
    for (guint i = 0; i < m->devs->len; i++) {
        struct hsk_dev *dev = g_ptr_array_index(m->devs, i);

        if (!hsk_state_get(r, dev->id, &dev->ops->state, hsk_dev_state(dev), error))
            return false;
        if (dev->ops->check && !dev->ops->check(dev, error)) {
            g_prefix_error(error, "The state of %s is damaged: ", dev->id);
            return false;
        }
    }
    return true;
}

static bool load_cpu(struct hsk_machine *m, struct hsk_state_reader *r, unsigned index,
                     GError **error)
{
    struct hsk_cpu_state *s = g_aligned_alloc0(1, sizeof *s, 64);
    char id[16];
    bool ok;

    cpu_section(index, id);
    ok = hsk_state_get(r, id, &hsk_cpu_state_desc, s, error) && hsk_cpu_state_check(s, error) &&
         m->engine->ops->set_state(m->cpu[index].vcpu, s, error);
    g_aligned_free(s);
    return ok;
}

static bool load(struct hsk_machine *m, GBytes *state, unsigned flush, GError **error)
{
    HSK_AUTO(hsk_state_reader, r) = hsk_state_reader_new(state, error);
    struct hsk_clock_state cs;

    hsk_assert(!m->running);
    if (!r || !hsk_state_get(r, "clock", &clock_desc, &cs, error))
        return false;
    if (!hsk_clock_load(m->clock, &cs)) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_DAMAGED,
                    "The saved state is damaged: its clock rate is impossible");
        return false;
    }
    if (!load_devices(m, r, error))
        return false;
    m->engine->ops->flush(m->engine, flush);
    for (unsigned i = 0; i < m->cfg.ncpus; i++)
        if (!load_cpu(m, r, i, error))
            return false;
    return hsk_state_reader_done(r, error);
}

bool hsk_machine_load(struct hsk_machine *m, GBytes *state, GError **error)
{
    return load(m, state, HSK_FLUSH_TLB | HSK_FLUSH_CODE | HSK_FLUSH_WRITES, error);
}

bool hsk_machine_load_again(struct hsk_machine *m, GBytes *state, GError **error)
{
    reset_devices(m); /* what is no part of their state, too */
    return load(m, state, HSK_FLUSH_TLB | HSK_FLUSH_WRITES, error);
}
