/* SPDX-License-Identifier: MIT */
/*
 * hva boot: checks the command line of a throw-away machine and becomes the keeper for it
 * (keeper/boot.c has the exit statuses). What architecture.md promises and this version cannot do
 * yet is refused in a sentence.
 */
#include <stdio.h>
#include <stdlib.h>

#include "common/values.h"
#include "hva.h"

#define DEFAULT_MEMORY "512M"
#define VRAM_BYTES     (16 << 20)

struct options {
    char *kernel, *initrd, *append, *memory, *cpu, *engine, *serial, *on_reset, *exit_on,
        *screenshot;
    char *firmware, *floppy, *net;
    char **disks, **cdroms, **rest;
    int cpus, lockstep;
    double timeout;
    gint64 chaos;
    gboolean no_window, debug_exit, test_device, json, stats, strict, perf_map;
};

static void options_clear(struct options *o)
{
    char *strings[] = {o->kernel,   o->initrd, o->append,   o->memory,  o->cpu,
                       o->engine,   o->serial, o->on_reset, o->exit_on, o->screenshot,
                       o->firmware, o->floppy, o->net};
    for (unsigned i = 0; i < G_N_ELEMENTS(strings); i++)
        g_free(strings[i]);
    g_strfreev(o->disks);
    g_strfreev(o->cdroms);
    g_strfreev(o->rest);
}

static bool parse(struct options *o, int *argc, char ***argv, int *status)
{
    const GOptionEntry entries[] = {
        {"kernel", 0, 0, G_OPTION_ARG_FILENAME, &o->kernel,
         "Linux bzImage, ELF kernel with a PVH note, or multiboot kernel", "FILE"},
        {"initrd", 0, 0, G_OPTION_ARG_FILENAME, &o->initrd, "initial RAM disk", "FILE"},
        {"append", 0, 0, G_OPTION_ARG_STRING, &o->append, "the kernel's command line", "TEXT"},
        {"disk", 0, 0, G_OPTION_ARG_FILENAME_ARRAY, &o->disks,
         "raw disk image, written in place; repeatable", "FILE[,if=virtio]"},
        {"memory", 0, 0, G_OPTION_ARG_STRING, &o->memory, "default " DEFAULT_MEMORY, "SIZE"},
        {"cpus", 0, 0, G_OPTION_ARG_INT, &o->cpus, "number of processors", "N"},
        {"cpu", 0, 0, G_OPTION_ARG_STRING, &o->cpu, "v2 or v3, with ,+feature and ,-feature",
         "MODEL"},
        {"engine", 0, 0, G_OPTION_ARG_STRING, &o->engine, "auto, kvm or soft", "ENGINE"},
        {"serial", 0, 0, G_OPTION_ARG_FILENAME, &o->serial, "stdio (default), null or a file",
         "WHERE"},
        {"no-window", 0, 0, G_OPTION_ARG_NONE, &o->no_window, "no window", NULL},
        {"on-reset", 0, 0, G_OPTION_ARG_STRING, &o->on_reset, "exit (default) or reset", "ACTION"},
        {"debug-exit", 0, 0, G_OPTION_ARG_NONE, &o->debug_exit,
         "a write of V to port 0xf4 ends with status V*2+1", NULL},
        {"test-device", 0, 0, G_OPTION_ARG_NONE, &o->test_device,
         "the ports and memory of QEMU's pc-testdev, for test programs", NULL},
        {"exit-on", 0, 0, G_OPTION_ARG_STRING, &o->exit_on,
         "end with 0 when the serial output matches", "REGEX"},
        {"timeout", 0, 0, G_OPTION_ARG_DOUBLE, &o->timeout, "end with 124 after that many seconds",
         "S"},
        {"screenshot-at-exit", 0, 0, G_OPTION_ARG_FILENAME, &o->screenshot,
         "write the last picture", "PNG"},
        {"json", 0, 0, G_OPTION_ARG_NONE, &o->json,
         "one line of JSON about the end, on standard output", NULL},
        {"stats", 0, 0, G_OPTION_ARG_NONE, &o->stats, "the engine's counters, on standard error",
         NULL},
        {"strict", 0, 0, G_OPTION_ARG_NONE, &o->strict,
         "soft engine without short cuts (slow; for tests)", NULL},
        {"perf-map", 0, 0, G_OPTION_ARG_NONE, &o->perf_map,
         "soft engine's code by guest address in /tmp/perf-PID.map, for perf report", NULL},
        {"chaos", 0, 0, G_OPTION_ARG_INT64, &o->chaos,
         "soft engine disturbed at random (slow; for tests)", "SEED"},
        {"lockstep", 0, 0, G_OPTION_ARG_INT, &o->lockstep,
         "soft engine that compares one in N blocks with strict mode (slow; for tests)", "N"},
        {"cdrom", 0, G_OPTION_FLAG_HIDDEN, G_OPTION_ARG_FILENAME_ARRAY, &o->cdroms, NULL, NULL},
        {"floppy", 0, G_OPTION_FLAG_HIDDEN, G_OPTION_ARG_FILENAME, &o->floppy, NULL, NULL},
        {"firmware", 0, G_OPTION_FLAG_HIDDEN, G_OPTION_ARG_STRING, &o->firmware, NULL, NULL},
        {"net", 0, G_OPTION_FLAG_HIDDEN, G_OPTION_ARG_STRING, &o->net, NULL, NULL},
        {G_OPTION_REMAINING, 0, 0, G_OPTION_ARG_FILENAME_ARRAY, &o->rest, NULL, NULL},
        {NULL},
    };
    return hsk_parse_options(argc, argv, "- boot a kernel in a throw-away machine", entries,
                             status);
}

/* 0, or the exit status after a sentence. */
static int check_not_yet(const struct options *o)
{
    if (o->cdroms || o->floppy)
        return hsk_usage(
            "this version has no CD-ROM and floppy drives yet; give a raw image with --disk");
    if (o->firmware)
        return hsk_usage(
            "this version has no BIOS and UEFI firmware yet; boot a kernel directly with --kernel");
    if (o->net && strcmp(o->net, "none") != 0)
        return hsk_usage("this version has no network yet; use --net none or leave it out");
    if (!o->kernel)
        return hsk_usage("--kernel FILE is missing: this version boots a kernel directly, and not "
                         "yet from a disk");
    if (o->lockstep < 0 || (o->lockstep && (o->cpus != 1 || o->disks)))
        return hsk_usage("--lockstep takes a number, and a machine of one processor without disks");
    if (o->cpus < 1 || o->cpus > 8)
        return hsk_usage("--cpus takes 1 to 8, but %d was given", o->cpus);
    return 0;
}

static int check(const struct options *o, uint64_t *memory)
{
    static const char *const engines[] = {"auto", "kvm", "soft", NULL};
    static const char *const resets[] = {"exit", "reset", NULL};
    g_autoptr(GError) error = NULL;

    if (o->rest)
        return hsk_usage("\"%s\" is no option of hva boot; see hva boot --help", o->rest[0]);
    int status = check_not_yet(o);
    if (status)
        return status;
    if (!hsk_parse_memory(o->memory ? o->memory : DEFAULT_MEMORY, memory, &error) ||
        (o->engine && !hsk_parse_word("--engine", o->engine, engines, &error)) ||
        (o->on_reset && !hsk_parse_word("--on-reset", o->on_reset, resets, &error)))
        return hsk_fail(error);
    if (o->timeout < 0 || o->timeout > 1000000)
        return hsk_usage("--timeout takes a number of seconds, but %g was given", o->timeout);
    return 0;
}

/* "FILE[,if=virtio]": only a known tail is an option, so that a comma may be in a file's name. */
static int add_disk(json_t *disks, const char *spec)
{
    const char *tail = g_strrstr(spec, ",if=");
    g_autofree char *file = tail ? g_strndup(spec, (gsize)(tail - spec)) : g_strdup(spec);

    if (tail && (strcmp(tail, ",if=ide") == 0 || strcmp(tail, ",if=nvme") == 0))
        return hsk_usage("this version has no %s disks yet; use if=virtio", tail + 4);
    if (tail && strcmp(tail, ",if=virtio") != 0)
        return hsk_usage("a disk's interface is virtio, but \"%s\" was given", tail + 4);
    json_array_append_new(disks, json_pack("{s:s}", "file", file));
    return 0;
}

static int boot(struct options *o)
{
    uint64_t memory = 0;
    int status = check(o, &memory);

    if (status)
        return status;
    json_t *disks = json_array();
    for (char **d = o->disks; d && *d && !status; d++)
        status = add_disk(disks, *d);
    if (status) {
        json_decref(disks);
        return status;
    }
    if (!o->no_window)
        fprintf(stderr, "hva: a throw-away machine has no window in this version; going on without "
                        "(--serial says where its text goes)\n");
    /* Without a window and a picture at the end nobody would see a screen, so the machine gets no
     * display adapter. */
    int64_t vram = o->no_window && !o->screenshot ? 0 : VRAM_BYTES;
    json_t *opts = json_pack(
        "{s:s, s:s?, s:s?, s:o, s:I, s:I, s:i, s:s?, s:s, s:s, s:s, s:b, s:s?, s:f, s:s?, s:b, "
        "s:b, s:b, s:b, s:I, s:i, s:b}",
        "kernel", o->kernel, "initrd", o->initrd, "append", o->append, "disks", disks, "memory",
        (json_int_t)memory, "vram", (json_int_t)vram, "cpus", o->cpus, "cpu", o->cpu, "engine",
        o->engine ? o->engine : "auto", "serial", o->serial ? o->serial : "stdio", "on_reset",
        o->on_reset ? o->on_reset : "exit", "debug_exit", o->debug_exit, "exit_on", o->exit_on,
        "timeout", o->timeout, "screenshot", o->screenshot, "json", o->json, "stats", o->stats,
        "strict", o->strict, "test_device", o->test_device, "chaos", (json_int_t)o->chaos,
        "lockstep", o->lockstep, "perf_map", o->perf_map);
    if (!opts)
        return hsk_usage("the names and texts of the command line must be UTF-8");
    return hsk_exec_keeper("boot", opts);
}

int hsk_cmd_boot(int argc, char **argv)
{
    struct options o = {.cpus = 1};
    int status = 0;

    if (parse(&o, &argc, &argv, &status))
        status = boot(&o);
    options_clear(&o);
    return status;
}
