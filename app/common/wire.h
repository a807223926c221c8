/* SPDX-License-Identifier: MIT */
/*
 * The wire between hva-keeper and hva-machine: a SOCK_SEQPACKET pair, one JSON object per packet,
 * with at most one descriptor beside it. The machine finds its end as descriptor 3.
 *
 * - keeper -> machine, in this order: {"cmd":"fd","name":N} + descriptor, for each of ram,
 *   ram.attr, vram, vram.attr, kernel, initrd, state, serial.in, serial.out, disk.0 ..., disks,
 *   disks.slots;
 *   {"cmd":"config", ...} (keys: machine/config.c); then, after {"event":"ready"}, the commands of
 *   machine/commands.c
 * - machine -> keeper: {"event": ...}; answers carry the command's name. The keeper trusts none of
 *   it.
 *
 * Threads: none of its own; a socket is used by one thread for sending and one for receiving.
 */
#pragma once

#include <base/util.h>

#include <jansson.h>

#define HSK_WIRE_FD  3
#define HSK_WIRE_MAX 65536

struct hsk_wire_msg {
    json_t *body; /* an object; owned */
    int fd;       /* or -1; owned */
};

/* Takes a reference of body (json_pack's result can be passed at once). flags: MSG_DONTWAIT or 0. 0
 * or a negative errno. */
G_GNUC_WARN_UNUSED_RESULT int hsk_wire_send(int sock, json_t *body, int fd, int flags);
/* 1: a message; 0: the other side is gone; negative errno: -EAGAIN, or -EPROTO for what is no
 * message of this wire. */
G_GNUC_WARN_UNUSED_RESULT int hsk_wire_recv(int sock, struct hsk_wire_msg *msg, int flags);
void hsk_wire_msg_clear(struct hsk_wire_msg *msg);

/* Values of an object that may be missing or of another type: the default then. */
const char *hsk_json_str(const json_t *o, const char *key, const char *fallback);
int64_t hsk_json_int(const json_t *o, const char *key, int64_t fallback);
bool hsk_json_bool(const json_t *o, const char *key);
