/* SPDX-License-Identifier: MIT */
/*
 * The control and display sockets of a running document (docs/control.md): connections, lines,
 * replies, events. What a command does is the owner's affair. Thread: main.
 */
#pragma once

#include <base/util.h>

#include <jansson.h>

struct hsk_control;
struct hsk_conn;

struct hsk_control_ops {
    /* A request; body is borrowed. Answer once by hsk_conn_reply or hsk_conn_refuse, now or later.
     */
    void (*request)(void *opaque, struct hsk_conn *c, const json_t *body);
    /* A window connected to the display socket; fd is taken. */
    void (*display)(void *opaque, int fd);
    /* Nobody reads there any more; or NULL. */
    void (*closed)(void *opaque, const struct hsk_conn *c);
};

/* Listens in the folder of the instance. */
struct hsk_control *hsk_control_new(const char *instance, const struct hsk_control_ops *ops,
                                    void *opaque, GError **error);
/* Delivers what is still unsent (for a moment), closes all, removes the folder. */
void hsk_control_free(struct hsk_control *s);
/* {"event": ...} to every connection that subscribed; takes a reference of event. */
void hsk_control_broadcast(struct hsk_control *s, json_t *event);

struct hsk_conn *hsk_conn_ref(struct hsk_conn *c);
void hsk_conn_unref(struct hsk_conn *c);
void hsk_conn_subscribe(struct hsk_conn *c);
/* {"event": ...} to this connection, whether it subscribed or not; takes a reference of event. */
void hsk_conn_tell(struct hsk_conn *c, json_t *event);
/* ok reply to the request with that id (json_t of the request, may be NULL); takes a reference of
 * fields (an object or NULL). */
void hsk_conn_reply(struct hsk_conn *c, const json_t *id, json_t *fields);
void hsk_conn_refuse(struct hsk_conn *c, const json_t *id, const GError *error);
/* The connection stops being one of lines: its socket, the caller's; -1 if it is gone. Call after
 * its last reply. */
int hsk_conn_steal(struct hsk_conn *c);
