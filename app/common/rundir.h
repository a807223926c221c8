/* SPDX-License-Identifier: MIT */
/*
 * Where running machines are found: $XDG_RUNTIME_DIR/haversack/<instance>/{control,display}
 * (without XDG_RUNTIME_DIR: ~/.cache/haversack-run/<instance>). Folders are 0700 and ours, or they
 * are refused. No state; any thread.
 */
#pragma once

#include <base/util.h>

#include <sys/types.h>

/* The folder of all; made if make. NULL + error. */
char *hsk_rundir_base(bool make, GError **error);
/* The folder of one instance, made. */
char *hsk_rundir_make(const char *instance, GError **error);
/* Names of the folders there: a NULL-terminated list. */
char **hsk_rundir_list(void);
/* Listening socket dir/name (a path of any length); an old one of an ended keeper is replaced. */
int hsk_rundir_listen(const char *dir, const char *name, int type, GError **error);
/* Connected socket or -1 (nobody there). */
int hsk_rundir_connect(const char *dir, const char *name, int type);
/* Is the other end of a connected socket a process of this user? */
bool hsk_peer_is_us(int sock);
