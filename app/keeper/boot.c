/* SPDX-License-Identifier: MIT */
/*
 * `hva boot`: a throw-away machine without a document. Opens the kernel, the initrd and the disk
 * files, starts hva-machine, and turns the guest's end into an exit status: power-off 0, reset with
 * --on-reset exit 0, --exit-on seen 0, Ctrl-A x 0, --debug-exit (value << 1) | 1, --timeout 124, a
 * machine that stopped with an error or died 1, a signal 128 + its number.
 *
 * Thread: main.
 */
#include <vmm/engine.h>

#include <errno.h>
#include <glib-unix.h>
#include <signal.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "child.h"
#include "common/values.h"
#include "keeper.h"
#include "memory.h"
#include "serial.h"

#define EXIT_TIMEOUT 124

struct boot {
    const json_t *options;
    const struct hsk_engine_ops *engine;
    char *engine_note; /* a sentence about the choice, said when the machine starts; or NULL */
    GMainLoop *loop;
    struct hsk_child *child;
    struct hsk_serial *serial;
    bool ending, ended;
    int status;
    const char *reason; /* for --json */
    gint64 started_us;
};

static bool quit_loop(struct boot *b)
{
    b->ended = true;
    g_main_loop_quit(b->loop);
    return G_SOURCE_REMOVE;
}

static gboolean quit_overdue(gpointer opaque)
{
    quit_loop(opaque);
    return G_SOURCE_REMOVE;
}

/* The first reason to end counts. The machine is asked for its last words and gets a moment for
 * them. */
static void finish(struct boot *b, int status, const char *reason, const char *complaint)
{
    if (b->ending)
        return;
    b->ending = true;
    b->status = status;
    b->reason = reason;
    if (complaint)
        hsk_complain(complaint);
    bool asked = b->started_us && hsk_json_str(b->options, "screenshot", NULL) &&
                 hsk_child_tell(b->child, "stop") && hsk_child_tell(b->child, "screenshot");
    if (!asked && !hsk_child_tell(b->child, "quit"))
        quit_loop(b);
    else
        g_timeout_add_seconds(5, quit_overdue, b);
}

static void write_screenshot(struct boot *b, const json_t *body, int fd)
{
    const char *path = hsk_json_str(b->options, "screenshot", "");
    g_autoptr(GError) error = NULL;
    g_autoptr(GBytes) png = hsk_message_bytes(body, fd, &error);
    gsize n = 0;
    const char *data = png ? g_bytes_get_data(png, &n) : NULL;

    if (!png || !g_file_set_contents(path, data, (gssize)n, &error)) {
        hsk_complain(error->message);
        b->status = b->status ? b->status : 1;
    }
    if (!hsk_child_tell(b->child, "quit"))
        quit_loop(b);
}

static void on_message(void *opaque, struct hsk_child *c, const json_t *body, int *fd)
{
    struct boot *b = opaque;
    const char *event = hsk_json_str(body, "event", "");
    const char *text = hsk_json_str(body, "text", NULL);

    if (strcmp(event, "ready") == 0) {
        if (b->engine_note)
            hsk_complain(b->engine_note);
        b->started_us = g_get_monotonic_time();
        hsk_child_tell(c, "run");
    } else if (strcmp(event, "failed") == 0 || strcmp(event, "error") == 0) {
        finish(b, 1, "error", text ? text : "the machine stopped and did not say why");
    } else if (strcmp(event, "quit") == 0) {
        if (text)
            fprintf(stderr, "%s", text);
        quit_loop(b);
    } else if (strcmp(event, "screenshot") == 0) {
        write_screenshot(b, body, *fd);
    } else if (strcmp(event, "poweroff") == 0) {
        hsk_serial_drain(b->serial);
        finish(b, 0, "poweroff", NULL);
    } else if (strcmp(event, "reset") == 0) {
        if (strcmp(hsk_json_str(b->options, "on_reset", "exit"), "exit") == 0)
            finish(b, 0, "reset", NULL);
    } else if (strcmp(event, "debug-exit") == 0) {
        hsk_serial_drain(b->serial);
        finish(b, (int)((((uint64_t)hsk_json_int(body, "value", 0) << 1) | 1) & 0xff), "debug-exit",
               NULL);
    }
}

static void on_ended(void *opaque, struct hsk_child *c, const char *how)
{
    struct boot *b = opaque;

    if (!b->ending) {
        b->ending = true;
        b->status = 1;
        b->reason = "died";
        g_autofree char *text =
            g_strdup_printf("the machine process %s; this throw-away machine is lost", how);
        hsk_complain(text);
    }
    quit_loop(b);
}

static void on_pattern(void *opaque)
{
    finish(opaque, 0, "exit-on", NULL);
}

static void on_leave(void *opaque)
{
    finish(opaque, 0, "left", NULL);
}

static gboolean on_timeout(gpointer opaque)
{
    finish(opaque, EXIT_TIMEOUT, "timeout", "the time given by --timeout is over");
    return G_SOURCE_REMOVE;
}

static gboolean on_sigint(gpointer opaque)
{
    finish(opaque, 128 + SIGINT, "signal", NULL);
    return G_SOURCE_CONTINUE;
}

static gboolean on_sigterm(gpointer opaque)
{
    finish(opaque, 128 + SIGTERM, "signal", NULL);
    return G_SOURCE_CONTINUE;
}

static gboolean on_sighup(gpointer opaque)
{
    finish(opaque, 128 + SIGHUP, "signal", NULL);
    return G_SOURCE_CONTINUE;
}

static int open_input(const char *path, int flags, GError **error)
{
    struct stat st;
    int fd = open(path, flags | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);

    if (fd < 0 || fstat(fd, &st) < 0) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_FAILED, "cannot open %s: %s", path,
                    g_strerror(errno));
    } else if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode)) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_FAILED, "%s is neither a file nor a disk", path);
    } else {
        return fd;
    }
    if (fd >= 0)
        close(fd);
    return -1;
}

static bool give_file(struct boot *b, const char *name, GError **error)
{
    const char *path = hsk_json_str(b->options, name, NULL);
    if (!path)
        return true;
    HSK_AUTOFD fd = open_input(path, O_RDONLY, error);
    if (fd < 0)
        return false;
    hsk_child_give(b->child, name, fd);
    return true;
}

/* A file that may only be read becomes a read-only disk. A disk file belongs to one machine at a
 * time. */
static bool give_disks(struct boot *b, json_t *out, GError **error)
{
    size_t i;
    json_t *d;

    json_array_foreach(json_object_get(b->options, "disks"), i, d)
    {
        const char *path = hsk_json_str(d, "file", "");
        bool readonly = access(path, W_OK) < 0 && (errno == EACCES || errno == EROFS);
        HSK_AUTOFD fd = open_input(path, readonly ? O_RDONLY : O_RDWR, error);
        if (fd < 0)
            return false;
        if (flock(fd, (readonly ? LOCK_SH : LOCK_EX) | LOCK_NB) < 0) {
            g_set_error(error, HSK_ERROR, HSK_ERROR_BUSY,
                        "%s is the disk of another running machine; stop that one first", path);
            return false;
        }
        g_autofree char *name = g_strdup_printf("disk.%zu", i);
        g_autofree char *serial = g_strdup_printf("disk%zu", i);
        hsk_child_give(b->child, name, fd);
        json_array_append_new(out, json_pack("{s:s, s:b}", "serial", serial, "readonly", readonly));
    }
    return true;
}

/* Where perf looks for the names of code that a process made. */
static bool give_perf_map(struct boot *b, GError **error)
{
    g_autofree char *path = g_strdup_printf("/tmp/perf-%d.map", (int)hsk_child_pid(b->child));
    HSK_AUTOFD fd =
        open(path, O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_NOFOLLOW | O_CLOEXEC, 0600);

    if (fd < 0) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_FAILED, "%s cannot be made: %s.", path,
                    g_strerror(errno));
        return false;
    }
    hsk_child_give(b->child, "perf.map", fd);
    return true;
}

static bool start_machine(struct boot *b, GError **error)
{
    static const struct hsk_child_ops ops = {.message = on_message, .ended = on_ended};
    const json_t *o = b->options;
    uint64_t memory = (uint64_t)hsk_json_int(o, "memory", 0),
             vram = (uint64_t)hsk_json_int(o, "vram", 0);

    b->child = hsk_child_spawn(&ops, b, error);
    if (!b->child)
        return false;
    struct hsk_guest_memory mem;
    if (!hsk_guest_memory_init(&mem, memory, vram, error))
        return false;
    hsk_guest_memory_give(&mem, b->child);
    hsk_guest_memory_clear(&mem);
    if (!give_file(b, "kernel", error) || !give_file(b, "initrd", error))
        return false;
    json_t *disks = json_array();
    if (!give_disks(b, disks, error)) {
        json_decref(disks);
        return false;
    }
    if (hsk_serial_in_fd(b->serial) >= 0)
        hsk_child_give(b->child, "serial.in", hsk_serial_in_fd(b->serial));
    if (hsk_serial_out_fd(b->serial) >= 0)
        hsk_child_give(b->child, "serial.out", hsk_serial_out_fd(b->serial));
    if (hsk_json_bool(o, "perf_map") && !give_perf_map(b, error)) {
        json_decref(disks);
        return false;
    }
    json_t *cfg = json_pack(
        "{s:s, s:s, s:s?, s:I, s:I, s:I, s:b, s:b, s:b, s:I, s:I, s:b, s:s, s:s?, s:s?, s:o}",
        "cmd", "config", "engine", b->engine->name, "cpu", hsk_json_str(o, "cpu", NULL), "ncpus",
        (json_int_t)hsk_json_int(o, "cpus", 1), "memory", (json_int_t)memory, "vram",
        (json_int_t)vram, "debug_exit", hsk_json_bool(o, "debug_exit"), "test_device",
        hsk_json_bool(o, "test_device"), "strict", hsk_json_bool(o, "strict"), "chaos",
        (json_int_t)hsk_json_int(o, "chaos", 0), "lockstep",
        (json_int_t)hsk_json_int(o, "lockstep", 0), "stats", hsk_json_bool(o, "stats"), "on_reset",
        strcmp(hsk_json_str(o, "on_reset", ""), "reset") == 0 ? "reset" : "stop", "append",
        hsk_json_str(o, "append", NULL), "kernel_name", hsk_json_str(o, "kernel", NULL), "disks",
        disks);
    /* false: it died already, and on_ended says so. */
    hsk_child_send(b->child, cfg, -1);
    return true;
}

static bool pick_engine(struct boot *b, GError **error)
{
    const char *name = hsk_json_str(b->options, "engine", "auto");
    enum hsk_engine_choice choice = strcmp(name, "kvm") == 0    ? HSK_ENGINE_KVM
                                    : strcmp(name, "soft") == 0 ? HSK_ENGINE_SOFT
                                                                : HSK_ENGINE_AUTO;

    b->engine = hsk_engine_pick(choice, &b->engine_note, error);
    return b->engine != NULL;
}

static void print_result(const struct boot *b)
{
    if (!hsk_json_bool(b->options, "json"))
        return;
    double seconds = b->started_us ? (double)(g_get_monotonic_time() - b->started_us) / 1e6 : 0;
    printf("{\"reason\": \"%s\", \"exit\": %d, \"engine\": \"%s\", \"seconds\": %.3f}\n", b->reason,
           b->status, b->engine->name, seconds);
    fflush(stdout);
}

int hsk_keeper_boot(const json_t *options)
{
    struct boot b = {.options = options, .reason = "error", .status = 1};
    g_autoptr(GError) error = NULL;
    g_autoptr(GMainLoop) loop = g_main_loop_new(NULL, FALSE);
    struct hsk_serial_config sc = {
        .where = hsk_json_str(options, "serial", "stdio"),
        .pattern = hsk_json_str(options, "exit_on", NULL),
        .seen = on_pattern,
        .leave = on_leave,
        .opaque = &b,
    };
    double timeout = json_number_value(json_object_get(options, "timeout"));

    b.loop = loop;
    g_unix_signal_add(SIGINT, on_sigint, &b);
    g_unix_signal_add(SIGTERM, on_sigterm, &b);
    g_unix_signal_add(SIGHUP, on_sighup, &b);
    bool ok = pick_engine(&b, &error);
    if (ok)
        ok = (b.serial = hsk_serial_new(&sc, &error)) != NULL;
    if (ok && timeout > 0)
        g_timeout_add((guint)(timeout * 1000), on_timeout, &b);
    if (ok)
        ok = start_machine(&b, &error);
    if (ok)
        g_main_loop_run(loop);
    hsk_child_free(b.child);
    hsk_serial_free(b.serial);
    g_free(b.engine_note);
    if (!ok) {
        hsk_complain(error->message);
        return g_error_matches(error, HSK_ERROR, HSK_ERROR_USAGE) ? 2 : 1;
    }
    print_result(&b);
    return b.status;
}
