/* SPDX-License-Identifier: MIT */
/*
 * One hva-machine process as the keeper sees it: start, the wire, its end. Used for boot, for
 * documents and, at a revert, for two of them side by side.
 *
 * Threads: the keeper's main thread only; it must be the one that starts the child, because the
 * kernel ties "dies with its parent" to the thread.
 */
#pragma once

#include "common/wire.h"

struct hsk_child;

struct hsk_child_ops {
    /* A message; body is borrowed, fd too (steal it by setting *fd to -1). */
    void (*message)(void *opaque, struct hsk_child *c, const json_t *body, int *fd);
    /* The process has ended, once; all its messages were delivered. how: "was killed by signal 9
     * (Killed)" or "ended with status 1". */
    void (*ended)(void *opaque, struct hsk_child *c, const char *how);
};

struct hsk_child *hsk_child_spawn(const struct hsk_child_ops *ops, void *opaque, GError **error);
/* Hands over a descriptor under a name before the configuration; borrowed. false: the process is
 * gone (ended comes). */
bool hsk_child_give(struct hsk_child *c, const char *name, int fd);
/* Takes a reference of body. Never blocks; false: gone (also: c is NULL) or its queue is full. */
bool hsk_child_send(struct hsk_child *c, json_t *body, int fd);
/* {"cmd": cmd} */
bool hsk_child_tell(struct hsk_child *c, const char *cmd);
/* Kills the process if it lives and forgets it; no callback any more. */
void hsk_child_free(struct hsk_child *c);
/* The contents that came with a message: "bytes" of fd, at most 1 GiB; its "text" is the error if
 * there are none. */
GBytes *hsk_message_bytes(const json_t *body, int fd, GError **error);
pid_t hsk_child_pid(const struct hsk_child *c);
