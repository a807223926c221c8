/* SPDX-License-Identifier: MIT */
/*
 * From the keeper's config message to a machine that can run. Keys of the message: engine ("soft",
 * "kvm"), cpu, ncpus, memory, vram, tsc_hz, since (a moment, [TSC, ns]),
 * debug_exit, test_device, strict, chaos, lockstep,
 * stats, generation (two integers), clock ("catch-up", "frozen"), on_reset
 * ("reset" boots again, "stop" leaves it to the keeper), append, kernel_name, disks: list of
 * {"serial", "readonly", "bytes"}. Disks are files (disk.0 ...) or, with the descriptors disks and
 * disks.slots, the keeper's (common/diskwire.h; "bytes" is their size).
 *
 * Thread: the main thread, which later is the loop thread.
 */
#include <errno.h>
#include <sys/stat.h>

#include "runner.h"

int hsk_runner_take_fd(struct hsk_runner *r, const char *name)
{
    gpointer key = NULL, value = NULL;

    if (!g_hash_table_steal_extended(r->fds, name, &key, &value))
        return -1;
    g_free(key);
    return GPOINTER_TO_INT(value) - 1;
}

GBytes *hsk_read_fd(int fd, uint64_t max_bytes, const char *what, GError **error)
{
    struct stat st;

    if (fstat(fd, &st) < 0 || st.st_size < 0 || (uint64_t)st.st_size > max_bytes) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_FAILED,
                    "%s does not fit into the machine's memory; give it more with --memory", what);
        return NULL;
    }
    size_t len = (size_t)st.st_size;
    void *buf = g_try_malloc(len ? len : 1);
    int r = buf ? hsk_pread_all(fd, buf, len, 0) : -ENOMEM;
    if (r < 0) {
        g_free(buf);
        g_set_error(error, HSK_ERROR, HSK_ERROR_FAILED, "%s could not be read: %s", what,
                    g_strerror(-r));
        return NULL;
    }
    return g_bytes_new_take(buf, len);
}

static bool read_member(struct hsk_runner *r, const char *name, uint64_t max, GBytes **out,
                        GError **error)
{
    HSK_AUTOFD fd = hsk_runner_take_fd(r, name);
    if (fd < 0)
        return true;
    g_autofree char *what = g_strdup_printf("the %s", name);
    *out = hsk_read_fd(fd, max, what, error);
    return *out != NULL;
}

static bool open_keeper_disks(struct hsk_runner *r, GError **error)
{
    int sock = hsk_runner_take_fd(r, "disks"), slots = hsk_runner_take_fd(r, "disks.slots");

    if (sock < 0)
        return true;
    r->disks = hsk_keeper_disks_new(sock, slots, hsk_runner_disk_trouble, r, error);
    return r->disks != NULL;
}

static bool add_disks(struct hsk_runner *r, struct hsk_machine_config *mc, const json_t *list,
                      GError **error)
{
    size_t n = json_array_size(list);

    if (n > G_N_ELEMENTS(mc->disks)) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_USAGE,
                    "a machine has at most %zu disks, but %zu were given", G_N_ELEMENTS(mc->disks),
                    n);
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        const json_t *d = json_array_get(list, i);
        g_autofree char *name = g_strdup_printf("disk.%zu", i);
        bool readonly = hsk_json_bool(d, "readonly");

        if (r->disks)
            mc->disks[i].block = hsk_keeper_disk_new(
                r->disks, (unsigned)i, (uint64_t)hsk_json_int(d, "bytes", 0), readonly);
        else
            mc->disks[i].block =
                hsk_block_rawfile_new(hsk_runner_take_fd(r, name), readonly, error);
        if (!mc->disks[i].block)
            return false;
        g_strlcpy(mc->disks[i].serial, hsk_json_str(d, "serial", name),
                  sizeof(mc->disks[i].serial));
        mc->ndisks++;
    }
    return true;
}

void hsk_runner_read_generation(struct hsk_runner *r, const json_t *pair)
{
    r->has_generation = json_array_size(pair) == 2;
    for (size_t i = 0; r->has_generation && i < 2; i++)
        hsk_put64(r->generation + 8 * i, (uint64_t)json_integer_value(json_array_get(pair, i)));
}

bool hsk_runner_build(struct hsk_runner *r, const json_t *cfg, GError **error)
{
    struct hsk_machine_config mc = {
        .engine = strcmp(hsk_json_str(cfg, "engine", ""), "kvm") == 0 ? &hsk_engine_kvm_ops
                                                                      : &hsk_engine_soft_ops,
        .cpu = hsk_json_str(cfg, "cpu", NULL),
        .ncpus = (unsigned)hsk_json_int(cfg, "ncpus", 1),
        .memory_bytes = (uint64_t)hsk_json_int(cfg, "memory", 0),
        .vram_bytes = (uint64_t)hsk_json_int(cfg, "vram", 0),
        .tsc_hz = (uint64_t)hsk_json_int(cfg, "tsc_hz", 0),
        .debug_exit = hsk_json_bool(cfg, "debug_exit"),
        .test_device = hsk_json_bool(cfg, "test_device"),
        .strict = hsk_json_bool(cfg, "strict"),
        .chaos = (uint64_t)hsk_json_int(cfg, "chaos", 0),
        .lockstep = (unsigned)hsk_json_int(cfg, "lockstep", 0),
        .stats = hsk_json_bool(cfg, "stats"),
        .catch_up = strcmp(hsk_json_str(cfg, "clock", ""), "frozen") != 0,
    };

    const json_t *since = json_object_get(cfg, "since");
    const struct hsk_clock_sample sample = {
        .tsc = (uint64_t)json_integer_value(json_array_get(since, 0)),
        .ns = (uint64_t)json_integer_value(json_array_get(since, 1)),
    };

    mc.since = &sample;
    hsk_runner_read_generation(r, json_object_get(cfg, "generation"));
    memcpy(mc.generation, r->generation, sizeof(mc.generation));

    r->reset_in_place = strcmp(hsk_json_str(cfg, "on_reset", "stop"), "reset") == 0;
    r->cmdline = g_strdup(hsk_json_str(cfg, "append", NULL));
    r->kernel_name = g_strdup(hsk_json_str(cfg, "kernel_name", "the kernel"));
    if (!open_keeper_disks(r, error) || !add_disks(r, &mc, json_object_get(cfg, "disks"), error) ||
        !read_member(r, "kernel", mc.memory_bytes, &r->kernel, error) ||
        !read_member(r, "initrd", mc.memory_bytes, &r->initrd, error)) {
        for (unsigned i = 0; i < mc.ndisks; i++)
            mc.disks[i].block->ops->free(mc.disks[i].block);
        return false;
    }
    mc.ram_fd = hsk_runner_take_fd(r, "ram");
    mc.ram_attr_fd = hsk_runner_take_fd(r, "ram.attr");
    mc.vram_fd = hsk_runner_take_fd(r, "vram");
    mc.vram_attr_fd = hsk_runner_take_fd(r, "vram.attr");
    /* The UART borrows these two: they live as long as the process. */
    mc.serial_in = hsk_runner_take_fd(r, "serial.in");
    mc.serial_out = hsk_runner_take_fd(r, "serial.out");
    mc.perf_map = hsk_runner_take_fd(r, "perf.map"); /* this one, too */
    if (mc.perf_map < 0)
        mc.perf_map = 0;
    mc.event = hsk_runner_event;
    mc.event_opaque = r;
    r->machine = hsk_machine_new(&mc, error);
    if (!r->machine)
        return false;
    GError *failed = NULL;
    if (!hsk_runner_near(r, error))
        return false;
    r->screen = hsk_screen_new(r->machine, &failed);
    if (failed)
        g_propagate_error(error, failed);
    return !failed;
}

bool hsk_runner_power_on(struct hsk_runner *r, GError **error)
{
    hsk_machine_reset(r->machine);
    if (!r->kernel)
        return true;
    struct hsk_boot_config boot = {.kernel_name = r->kernel_name, .cmdline = r->cmdline};
    gsize n = 0;
    boot.kernel = g_bytes_get_data(r->kernel, &n);
    boot.kernel_bytes = n;
    if (r->initrd) {
        boot.initrd = g_bytes_get_data(r->initrd, &n);
        boot.initrd_bytes = n;
    }
    return hsk_boot_load(r->machine, &boot, error);
}

bool hsk_runner_load(struct hsk_runner *r, int state_fd, GError **error)
{
    g_autoptr(GBytes) state = hsk_read_fd(state_fd, 256 << 20, "the saved state", error);
    r->loaded = state && hsk_machine_load(r->machine, state, error);
    if (r->loaded && r->has_generation)
        hsk_machine_set_generation(r->machine, r->generation);
    return r->loaded;
}
