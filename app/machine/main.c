/* SPDX-License-Identifier: MIT */
/*
 * hva-machine: the only process that touches a guest. Started by hva-keeper with the wire as
 * descriptor 3 (common/wire.h); takes its descriptors and its configuration, builds the machine,
 * locks itself in, and then does what the keeper says.
 *
 * Life: fd* config -> build -> sandbox lock -> power-on or load (memory may come later: faults.c)
 * -> {"event":"ready"} -> commands until quit or end of file. Threads: main is the loop thread; the
 * machine has one per vCPU.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>

#include "runner.h"
#include "sandbox.h"

static void close_slot(void *p)
{
    int fd = GPOINTER_TO_INT(p) - 1;
    if (fd >= 0)
        close(fd);
}

/* Reads messages up to the configuration. NULL: the keeper is gone or speaks something else. */
static json_t *receive_config(struct hsk_runner *r)
{
    for (;;) {
        struct hsk_wire_msg msg;

        if (hsk_wire_recv(r->wire, &msg, 0) <= 0)
            return NULL;
        const char *cmd = hsk_json_str(msg.body, "cmd", "");
        if (strcmp(cmd, "config") == 0) {
            json_t *cfg = json_incref(msg.body);
            hsk_wire_msg_clear(&msg);
            return cfg;
        }
        if (strcmp(cmd, "fd") == 0 && msg.fd >= 0)
            g_hash_table_insert(r->fds, g_strdup(hsk_json_str(msg.body, "name", "")),
                                GINT_TO_POINTER(hsk_steal_fd(&msg.fd) + 1));
        hsk_wire_msg_clear(&msg);
    }
}

static void wire_ready(void *opaque, uint32_t events)
{
    struct hsk_runner *r = opaque;
    struct hsk_wire_msg msg;
    int n = hsk_wire_recv(r->wire, &msg, MSG_DONTWAIT);

    if (n == -EAGAIN || n == -EINTR)
        return;
    if (n <= 0) {
        hsk_loop_quit(hsk_machine_loop(r->machine));
        return;
    }
    hsk_runner_command(r, &msg);
    hsk_wire_msg_clear(&msg);
}

static bool start(struct hsk_runner *r, const json_t *cfg, GError **error)
{
    const bool kvm = strcmp(hsk_json_str(cfg, "engine", ""), "kvm") == 0;
    HSK_AUTOFD there = hsk_runner_take_fd(r, "memory.there");

    if (!hsk_sandbox_enter(kvm, error) || !hsk_runner_build(r, cfg, error))
        return false;
    if (there >= 0)
        hsk_runner_offer_memory(r, kvm);
    if (!hsk_sandbox_lock(error) || (there >= 0 && !hsk_runner_wait_for_memory(r, there, error)))
        return false;
    HSK_AUTOFD state = hsk_runner_take_fd(r, "state");
    r->boot_later = state >= 0;
    return state >= 0 ? hsk_runner_load(r, state, error) : hsk_runner_power_on(r, error);
}

int main(void)
{
    struct hsk_runner r = {.wire = HSK_WIRE_FD, .faults = -1};
    g_autoptr(GError) error = NULL;
    int type = 0;
    socklen_t len = sizeof(type);

    if (getsockopt(HSK_WIRE_FD, SOL_SOCKET, SO_TYPE, &type, &len) < 0 || type != SOCK_SEQPACKET) {
        fprintf(stderr, "hva-machine is started by hva-keeper; use \"hva run\" or \"hva boot\"\n");
        return 2;
    }
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    signal(SIGPIPE, SIG_IGN);
    /* Ctrl-C on the terminal is the keeper's affair. */
    signal(SIGINT, SIG_IGN);
    r.fds = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, close_slot);
    json_t *cfg = receive_config(&r);
    if (!cfg)
        return 1;
    bool ok = start(&r, cfg, &error);
    json_decref(cfg);
    if (ok) {
        struct hsk_loop *loop = hsk_machine_loop(r.machine);

        hsk_loop_watch_fd(loop, r.wire, EPOLLIN, wire_ready, &r);
        hsk_runner_tell_text(&r, "ready", hsk_machine_cpuid(r.machine)->model);
        hsk_loop_run(loop);
    } else {
        hsk_runner_tell_text(&r, "failed", error->message);
    }
    if (r.machine)
        hsk_machine_stop(r.machine);
    hsk_screen_free(r.screen);
    hsk_near_free(r.near);
    hsk_machine_free(r.machine);
    hsk_keeper_disks_free(r.disks);
    g_clear_pointer(&r.kernel, g_bytes_unref);
    g_clear_pointer(&r.initrd, g_bytes_unref);
    g_free(r.cmdline);
    g_free(r.kernel_name);
    g_hash_table_unref(r.fds);
    /* Not exit(): handlers of libraries and sanitizers want system calls that the filter has taken
     * away. */
    _exit(ok ? 0 : 1);
}
