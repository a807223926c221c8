/* SPDX-License-Identifier: MIT */
/* Control socket client (control.h). The keeper is ours, but its lines are checked: they may name
 * what a bundle says. */
#include "control.h"

#include <errno.h>
#include <glib-unix.h>
#include <sys/socket.h>

#include "common/rundir.h"

#define MAX_LINE (1u << 20) /* pictures come as base64 in a line */

struct call {
    hsk_control_reply_fn fn;
    void *opaque;
};

struct hsk_control {
    int sock;
    const struct hsk_control_ops *ops;
    void *opaque;
    GByteArray *in, *out;
    guint in_watch, out_watch;
    json_int_t next_id;
    GHashTable *calls; /* id -> struct call, owned */
};

static gboolean on_readable(gint fd, GIOCondition condition, gpointer opaque);

struct hsk_control *hsk_control_new(const char *instance_dir, const struct hsk_control_ops *ops,
                                    void *opaque, GError **error)
{
    HSK_AUTOFD fd = hsk_rundir_connect(instance_dir, "control", SOCK_STREAM);
    struct hsk_control *c;

    if (fd < 0) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_FAILED,
                    "The machine ended before it could be reached.");
        return NULL;
    }
    c = g_new0(struct hsk_control, 1);
    c->sock = hsk_steal_fd(&fd);
    c->ops = ops;
    c->opaque = opaque;
    c->in = g_byte_array_new();
    c->out = g_byte_array_new();
    c->next_id = 1;
    c->calls = g_hash_table_new_full(g_direct_hash, g_direct_equal, NULL, g_free);
    c->in_watch = g_unix_fd_add(c->sock, G_IO_IN | G_IO_HUP, on_readable, c);
    return c;
}

void hsk_control_free(struct hsk_control *c)
{
    if (!c)
        return;
    g_clear_handle_id(&c->in_watch, g_source_remove);
    g_clear_handle_id(&c->out_watch, g_source_remove);
    close(c->sock);
    g_byte_array_unref(c->in);
    g_byte_array_unref(c->out);
    g_hash_table_unref(c->calls);
    g_free(c);
}

/* Everybody who still waits for an answer learns that none will come. */
static void closed(struct hsk_control *c, const char *why)
{
    g_autoptr(GHashTable) calls = g_steal_pointer(&c->calls);
    GHashTableIter iter;
    gpointer value;

    c->calls = g_hash_table_new_full(g_direct_hash, g_direct_equal, NULL, g_free);
    g_clear_handle_id(&c->in_watch, g_source_remove);
    g_clear_handle_id(&c->out_watch, g_source_remove);
    g_hash_table_iter_init(&iter, calls);
    while (g_hash_table_iter_next(&iter, NULL, &value)) {
        struct call *call = value;

        call->fn(call->opaque, NULL, "The machine is not running any more.");
    }
    c->ops->closed(c->opaque, why);
}

static gboolean on_writable(gint fd, GIOCondition condition, gpointer opaque)
{
    struct hsk_control *c = opaque;

    if (c->out->len) {
        ssize_t n = send(c->sock, c->out->data, c->out->len, MSG_NOSIGNAL | MSG_DONTWAIT);

        if (n > 0)
            g_byte_array_remove_range(c->out, 0, (guint)n);
        else if (n < 0 && errno != EAGAIN && errno != EINTR)
            g_byte_array_set_size(c->out, 0); /* reading notices the end */
    }
    if (c->out->len)
        return G_SOURCE_CONTINUE;
    c->out_watch = 0;
    return G_SOURCE_REMOVE;
}

void hsk_control_call(struct hsk_control *c, const char *cmd, json_t *args, hsk_control_reply_fn fn,
                      void *opaque)
{
    json_t *request = args ? args : json_object();
    json_int_t id = c->next_id++;
    char *line;

    json_object_set_new(request, "id", json_integer(id));
    json_object_set_new(request, "cmd", json_string(cmd));
    line = json_dumps(request, JSON_COMPACT);
    json_decref(request);
    if (fn) {
        struct call *call = g_new(struct call, 1);

        *call = (struct call){fn, opaque};
        g_hash_table_insert(c->calls, GINT_TO_POINTER((gint)id), call);
    }
    g_byte_array_append(c->out, (const guint8 *)line, (guint)strlen(line));
    g_byte_array_append(c->out, (const guint8 *)"\n", 1);
    free(line);
    if (!c->out_watch)
        c->out_watch = g_unix_fd_add(c->sock, G_IO_OUT, on_writable, c);
}

static void take_reply(struct hsk_control *c, json_t *object, json_int_t id)
{
    gpointer key = GINT_TO_POINTER((gint)id);
    g_autofree struct call *call = NULL;
    gpointer value;

    if (!g_hash_table_steal_extended(c->calls, key, NULL, &value))
        return;
    call = value;
    if (json_is_true(json_object_get(object, "ok"))) {
        call->fn(call->opaque, object, NULL);
    } else {
        const char *text = json_string_value(json_object_get(object, "error"));

        call->fn(call->opaque, NULL, text ? text : "The machine refused without saying why.");
    }
}

/* false: not the protocol. */
static bool take_line(struct hsk_control *c, const char *line, size_t len)
{
    json_t *object = json_loadb(line, len, JSON_REJECT_DUPLICATES, NULL);
    const char *event = json_string_value(json_object_get(object, "event"));
    bool ok = json_is_object(object);

    if (event)
        c->ops->event(c->opaque, event, object);
    else if (ok)
        take_reply(c, object, json_integer_value(json_object_get(object, "id")));
    json_decref(object);
    return ok;
}

static gboolean on_readable(gint fd, GIOCondition condition, gpointer opaque)
{
    struct hsk_control *c = opaque;
    guint8 buf[16384];
    ssize_t n = recv(c->sock, buf, sizeof(buf), MSG_DONTWAIT);
    const guint8 *end;

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return G_SOURCE_CONTINUE;
    if (n <= 0) {
        c->in_watch = 0;
        closed(c, NULL);
        return G_SOURCE_REMOVE;
    }
    g_byte_array_append(c->in, buf, (guint)n);
    while ((end = memchr(c->in->data, '\n', c->in->len))) {
        guint len = (guint)(end - c->in->data);
        g_autofree char *line = g_strndup((const char *)c->in->data, len);

        g_byte_array_remove_range(c->in, 0, len + 1);
        if (!take_line(c, line, strlen(line))) {
            c->in_watch = 0;
            closed(c, "The machine's keeper sent something that is not its protocol.");
            return G_SOURCE_REMOVE;
        }
    }
    if (c->in->len > MAX_LINE) {
        c->in_watch = 0;
        closed(c, "The machine's keeper sent a line that has no end.");
        return G_SOURCE_REMOVE;
    }
    return G_SOURCE_CONTINUE;
}
