/* SPDX-License-Identifier: MIT */
/* One hva-machine process: see child.h. */
#include "child.h"

#include <errno.h>
#include <glib-unix.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "common/values.h"

struct hsk_child {
    const struct hsk_child_ops *ops;
    void *opaque;
    int wire;
    GPid pid; /* 0: reaped */
    int status;
    guint wire_source, pid_source;
    bool eof;
};

extern char **environ;

static char *describe_end(int status)
{
    if (WIFSIGNALED(status))
        return g_strdup_printf("was killed by signal %d (%s)", WTERMSIG(status),
                               g_strsignal(WTERMSIG(status)));
    return g_strdup_printf("ended with status %d", WIFEXITED(status) ? WEXITSTATUS(status) : -1);
}

/* Both the end of the wire and the exit status have been seen: every message is delivered first. */
static void maybe_ended(struct hsk_child *c)
{
    if (c->pid || !c->eof)
        return;
    g_autofree char *how = describe_end(c->status);
    c->ops->ended(c->opaque, c, how);
}

static gboolean wire_readable(gint fd, GIOCondition cond, gpointer opaque)
{
    struct hsk_child *c = opaque;
    struct hsk_wire_msg msg;
    int n = hsk_wire_recv(c->wire, &msg, MSG_DONTWAIT);

    if (n == -EAGAIN || n == -EINTR)
        return G_SOURCE_CONTINUE;
    if (n <= 0) {
        /* A machine that talks nonsense was taken over by its guest or has a bug: it ends here. */
        if (n < 0 && c->pid)
            kill(c->pid, SIGKILL);
        c->wire_source = 0;
        c->eof = true;
        maybe_ended(c);
        return G_SOURCE_REMOVE;
    }
    c->ops->message(c->opaque, c, msg.body, &msg.fd);
    hsk_wire_msg_clear(&msg);
    return G_SOURCE_CONTINUE;
}

static void reaped(GPid pid, gint status, gpointer opaque)
{
    struct hsk_child *c = opaque;

    c->pid = 0;
    c->pid_source = 0;
    c->status = status;
    maybe_ended(c);
}

struct hsk_child *hsk_child_spawn(const struct hsk_child_ops *ops, void *opaque, GError **error)
{
    g_autofree char *path = hsk_program_path("hva-machine");
    char *argv[] = {(char *)"hva-machine", NULL};
    posix_spawn_file_actions_t fa;
    int pair[2];
    pid_t pid = 0;

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_FAILED, "cannot talk to a machine process: %s",
                    g_strerror(errno));
        return NULL;
    }
    posix_spawn_file_actions_init(&fa);
    posix_spawn_file_actions_addopen(&fa, 0, "/dev/null", O_RDWR, 0);
    posix_spawn_file_actions_adddup2(&fa, 0, 1);
    posix_spawn_file_actions_adddup2(&fa, pair[1], HSK_WIRE_FD);
    int r = posix_spawn(&pid, path, &fa, NULL, argv, environ);
    posix_spawn_file_actions_destroy(&fa);
    close(pair[1]);
    if (r != 0) {
        close(pair[0]);
        g_set_error(error, HSK_ERROR, HSK_ERROR_FAILED, "cannot start %s: %s", path, g_strerror(r));
        return NULL;
    }
    struct hsk_child *c = g_new0(struct hsk_child, 1);
    c->ops = ops;
    c->opaque = opaque;
    c->wire = pair[0];
    c->pid = pid;
    c->wire_source = g_unix_fd_add(c->wire, G_IO_IN | G_IO_HUP, wire_readable, c);
    c->pid_source = g_child_watch_add(pid, reaped, c);
    return c;
}

bool hsk_child_give(struct hsk_child *c, const char *name, int fd)
{
    return hsk_wire_send(c->wire, json_pack("{s:s, s:s}", "cmd", "fd", "name", name), fd, 0) == 0;
}

bool hsk_child_send(struct hsk_child *c, json_t *body, int fd)
{
    if (!c) {
        json_decref(body);
        return false;
    }
    return hsk_wire_send(c->wire, body, fd, MSG_DONTWAIT) == 0;
}

bool hsk_child_tell(struct hsk_child *c, const char *cmd)
{
    return hsk_child_send(c, json_pack("{s:s}", "cmd", cmd), -1);
}

GBytes *hsk_message_bytes(const json_t *body, int fd, GError **error)
{
    int64_t n = hsk_json_int(body, "bytes", -1);

    if (fd < 0 || n < 0 || n > 1 << 30) {
        g_set_error_literal(error, HSK_ERROR, HSK_ERROR_FAILED,
                            hsk_json_str(body, "text", "the machine process gave no answer"));
        return NULL;
    }
    void *buf = g_try_malloc(MAX((size_t)n, 1));
    int r = buf ? hsk_pread_all(fd, buf, (size_t)n, 0) : -ENOMEM;
    if (r < 0) {
        g_free(buf);
        g_set_error(error, HSK_ERROR, HSK_ERROR_FAILED,
                    "an answer of the machine process could not be read: %s", g_strerror(-r));
        return NULL;
    }
    return g_bytes_new_take(buf, (gsize)n);
}

pid_t hsk_child_pid(const struct hsk_child *c)
{
    return c->pid;
}

void hsk_child_free(struct hsk_child *c)
{
    if (!c)
        return;
    g_clear_handle_id(&c->wire_source, g_source_remove);
    g_clear_handle_id(&c->pid_source, g_source_remove);
    if (c->pid) {
        kill(c->pid, SIGKILL);
        waitpid(c->pid, NULL, 0);
    }
    close(c->wire);
    g_free(c);
}
