/* SPDX-License-Identifier: MIT */
/* The wire between hva-keeper and hva-machine: see wire.h. */
#include "common/wire.h"

#include <errno.h>
#include <sys/socket.h>

int hsk_wire_send(int sock, json_t *body, int fd, int flags)
{
    if (!body)
        return -ENOMEM;
    char *text = json_dumps(body, JSON_COMPACT);
    json_decref(body);
    if (!text)
        return -ENOMEM;
    size_t len = strlen(text);
    int r = len > HSK_WIRE_MAX
                ? -EMSGSIZE
                : hsk_send_fds(sock, text, len, &fd, fd >= 0 ? 1 : 0, flags | MSG_NOSIGNAL);
    free(text);
    return r;
}

int hsk_wire_recv(int sock, struct hsk_wire_msg *msg, int flags)
{
    g_autofree char *buf = g_malloc(HSK_WIRE_MAX);
    int fd = -1;
    unsigned nfds = 1;

    *msg = (struct hsk_wire_msg){.fd = -1};
    ssize_t n = hsk_recv_fds(sock, buf, HSK_WIRE_MAX, &fd, &nfds, flags);
    if (n <= 0)
        return (int)n;
    HSK_AUTOFD owned = nfds ? fd : -1;
    msg->body = json_loadb(buf, (size_t)n, JSON_REJECT_DUPLICATES, NULL);
    if (!json_is_object(msg->body)) {
        json_decref(msg->body);
        msg->body = NULL;
        return -EPROTO;
    }
    msg->fd = hsk_steal_fd(&owned);
    return 1;
}

void hsk_wire_msg_clear(struct hsk_wire_msg *msg)
{
    json_decref(msg->body);
    msg->body = NULL;
    if (msg->fd >= 0)
        close(msg->fd);
    msg->fd = -1;
}

const char *hsk_json_str(const json_t *o, const char *key, const char *fallback)
{
    const char *s = json_string_value(json_object_get(o, key));
    return s ? s : fallback;
}

int64_t hsk_json_int(const json_t *o, const char *key, int64_t fallback)
{
    const json_t *v = json_object_get(o, key);
    return json_is_integer(v) ? json_integer_value(v) : fallback;
}

bool hsk_json_bool(const json_t *o, const char *key)
{
    return json_is_true(json_object_get(o, key));
}
