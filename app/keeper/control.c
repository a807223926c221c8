/* SPDX-License-Identifier: MIT */
/*
 * The control and display sockets of a running document: see control.h.
 * A client that sends lines over the limit or does not read its answers is dropped: it is one of
 * ours and has a bug.
 */
#include "control.h"

#include <errno.h>
#include <glib-unix.h>
#include <poll.h>
#include <sys/socket.h>

#include "common/rundir.h"
#include "common/values.h"

#define LINE_MAX_BYTES   65536
#define UNSENT_MAX_BYTES (64u << 20)
#define MAX_CONNECTIONS  64

struct hsk_conn {
    unsigned refs;
    struct hsk_control *server; /* NULL: closed */
    int fd;
    guint in_source, out_source;
    GByteArray *in, *out;
    bool subscribed;
};

struct hsk_control {
    const struct hsk_control_ops *ops;
    void *opaque;
    char *dir;
    int control_fd, display_fd;
    guint control_source, display_source;
    GList *conns; /* a reference each */
};

struct hsk_conn *hsk_conn_ref(struct hsk_conn *c)
{
    c->refs++;
    return c;
}

void hsk_conn_unref(struct hsk_conn *c)
{
    if (!c || --c->refs)
        return;
    g_byte_array_unref(c->in);
    g_byte_array_unref(c->out);
    g_free(c);
}

/* Takes the connection off its server and loop; the descriptor stays open. */
static void detach(struct hsk_conn *c)
{
    struct hsk_control *s = g_steal_pointer(&c->server);

    g_clear_handle_id(&c->in_source, g_source_remove);
    g_clear_handle_id(&c->out_source, g_source_remove);
    if (!s)
        return;
    s->conns = g_list_remove(s->conns, c);
    hsk_conn_unref(c);
}

static void drop(struct hsk_conn *c)
{
    int fd = c->fd;

    if (!c->server)
        return;
    c->fd = -1;
    if (c->server->ops->closed)
        c->server->ops->closed(c->server->opaque, c);
    detach(c);
    close(fd);
}

/* false: it was dropped. */
static bool flush(struct hsk_conn *c)
{
    while (c->out->len) {
        ssize_t n = send(c->fd, c->out->data, c->out->len, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            return true;
        if (n < 0) {
            drop(c);
            return false;
        }
        g_byte_array_remove_range(c->out, 0, (guint)n);
    }
    return true;
}

static gboolean conn_writable(gint fd, GIOCondition cond, gpointer opaque)
{
    struct hsk_conn *c = opaque;

    if (!flush(c))
        return G_SOURCE_REMOVE;
    if (c->out->len)
        return G_SOURCE_CONTINUE;
    c->out_source = 0;
    return G_SOURCE_REMOVE;
}

static void send_line(struct hsk_conn *c, const json_t *line)
{
    char *text = json_dumps(line, JSON_COMPACT);

    if (!c->server || !text || c->out->len > UNSENT_MAX_BYTES) {
        free(text);
        drop(c);
        return;
    }
    g_byte_array_append(c->out, (const uint8_t *)text, (guint)strlen(text));
    g_byte_array_append(c->out, (const uint8_t *)"\n", 1);
    free(text);
    if (flush(c) && c->out->len && !c->out_source)
        c->out_source = g_unix_fd_add(c->fd, G_IO_OUT, conn_writable, c);
}

void hsk_conn_reply(struct hsk_conn *c, const json_t *id, json_t *fields)
{
    json_t *line = json_pack("{s:O*, s:b}", "id", id, "ok", 1);

    if (fields)
        json_object_update_missing(line, fields);
    json_decref(fields);
    if (c->server)
        send_line(c, line);
    json_decref(line);
}

void hsk_conn_refuse(struct hsk_conn *c, const json_t *id, const GError *error)
{
    g_autofree char *text = g_utf8_make_valid(error->message, -1);
    json_t *line = json_pack("{s:O*, s:b, s:s, s:s}", "id", id, "ok", 0, "error", text, "code",
                             hsk_error_word(error));

    if (c->server)
        send_line(c, line);
    json_decref(line);
}

void hsk_conn_subscribe(struct hsk_conn *c)
{
    c->subscribed = true;
}

void hsk_conn_tell(struct hsk_conn *c, json_t *event)
{
    if (c->server)
        send_line(c, event);
    json_decref(event);
}

int hsk_conn_steal(struct hsk_conn *c)
{
    if (!c->server || !flush(c))
        return -1;
    int fd = c->fd;
    c->fd = -1;
    detach(c);
    return fd;
}

static void handle_line(struct hsk_conn *c, const char *text, size_t len)
{
    json_t *body = json_loadb(text, len, JSON_REJECT_DUPLICATES, NULL);

    if (json_is_object(body)) {
        c->server->ops->request(c->server->opaque, c, body);
    } else {
        g_autoptr(GError) error = g_error_new(HSK_ERROR, HSK_ERROR_USAGE,
                                              "a request is one JSON object on a line of its own");
        hsk_conn_refuse(c, NULL, error);
    }
    json_decref(body);
}

/* One line out of the buffer. false: there is none. */
static bool next_line(struct hsk_conn *c)
{
    uint8_t *end = c->in->len ? memchr(c->in->data, '\n', c->in->len) : NULL;

    if (!end)
        return false;
    guint len = (guint)(end - c->in->data);
    g_autofree char *line = g_strndup((const char *)c->in->data, len);
    g_byte_array_remove_range(c->in, 0, len + 1);
    handle_line(c, line, strlen(line));
    return true;
}

static gboolean conn_readable(gint fd, GIOCondition cond, gpointer opaque)
{
    struct hsk_conn *c = hsk_conn_ref(opaque);
    uint8_t buf[4096];
    ssize_t n = recv(fd, buf, sizeof(buf), MSG_DONTWAIT);
    bool end = n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR);

    if (n > 0)
        g_byte_array_append(c->in, buf, (guint)n);
    while (c->server && next_line(c))
        ;
    if (c->server && (end || c->in->len > LINE_MAX_BYTES)) {
        c->in_source = 0;
        drop(c);
    }
    gboolean go_on = c->server ? G_SOURCE_CONTINUE : G_SOURCE_REMOVE;
    hsk_conn_unref(c);
    return go_on;
}

static int accept_one(int listener)
{
    HSK_AUTOFD fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    return fd >= 0 && hsk_peer_is_us(fd) ? hsk_steal_fd(&fd) : -1;
}

static gboolean control_connects(gint listener, GIOCondition cond, gpointer opaque)
{
    struct hsk_control *s = opaque;
    int fd = accept_one(listener);

    if (fd < 0)
        return G_SOURCE_CONTINUE;
    if (g_list_length(s->conns) >= MAX_CONNECTIONS) {
        close(fd);
        return G_SOURCE_CONTINUE;
    }
    struct hsk_conn *c = g_new0(struct hsk_conn, 1);
    c->refs = 1;
    c->server = s;
    c->fd = fd;
    c->in = g_byte_array_new();
    c->out = g_byte_array_new();
    c->in_source = g_unix_fd_add(fd, G_IO_IN | G_IO_HUP, conn_readable, c);
    s->conns = g_list_prepend(s->conns, c);
    return G_SOURCE_CONTINUE;
}

static gboolean display_connects(gint listener, GIOCondition cond, gpointer opaque)
{
    struct hsk_control *s = opaque;
    int fd = accept_one(listener);

    if (fd >= 0)
        s->ops->display(s->opaque, fd);
    return G_SOURCE_CONTINUE;
}

struct hsk_control *hsk_control_new(const char *instance, const struct hsk_control_ops *ops,
                                    void *opaque, GError **error)
{
    struct hsk_control *s = g_new0(struct hsk_control, 1);

    s->ops = ops;
    s->opaque = opaque;
    s->control_fd = s->display_fd = -1;
    s->dir = hsk_rundir_make(instance, error);
    if (s->dir)
        s->display_fd = hsk_rundir_listen(s->dir, "display", SOCK_SEQPACKET, error);
    if (s->display_fd >= 0)
        s->control_fd = hsk_rundir_listen(s->dir, "control", SOCK_STREAM, error);
    if (s->control_fd < 0) {
        hsk_control_free(s);
        return NULL;
    }
    s->control_source = g_unix_fd_add(s->control_fd, G_IO_IN, control_connects, s);
    s->display_source = g_unix_fd_add(s->display_fd, G_IO_IN, display_connects, s);
    return s;
}

void hsk_control_broadcast(struct hsk_control *s, json_t *event)
{
    g_autoptr(GList) all = g_list_copy(s->conns);

    for (GList *l = all; l; l = l->next)
        hsk_conn_ref(l->data);
    for (GList *l = all; l; l = l->next) {
        struct hsk_conn *c = l->data;
        if (c->subscribed && c->server)
            send_line(c, event);
        hsk_conn_unref(c);
    }
    json_decref(event);
}

void hsk_control_free(struct hsk_control *s)
{
    static const char *const names[] = {"control", "display"};

    if (!s)
        return;
    g_clear_handle_id(&s->control_source, g_source_remove);
    g_clear_handle_id(&s->display_source, g_source_remove);
    while (s->conns) {
        struct hsk_conn *c = s->conns->data;
        for (unsigned i = 0; i < 20 && c->server && flush(c) && c->out->len; i++) {
            struct pollfd p = {.fd = c->fd, .events = POLLOUT};
            poll(&p, 1, 50);
        }
        drop(c);
    }
    if (s->control_fd >= 0)
        close(s->control_fd);
    if (s->display_fd >= 0)
        close(s->display_fd);
    for (unsigned i = 0; i < G_N_ELEMENTS(names) && s->dir; i++) {
        g_autofree char *path = g_build_filename(s->dir, names[i], NULL);
        unlink(path);
    }
    if (s->dir)
        rmdir(s->dir);
    g_free(s->dir);
    g_free(s);
}
