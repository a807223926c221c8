/* SPDX-License-Identifier: MIT */
/*
 * From a file to a running machine: finds the instance that has the document open, or starts one
 * with `hva run --no-window --serial null FILE` (the hva beside this program) in a session of its
 * own, so that the machine outlives a crash of the window. GTK thread; searching blocks a worker
 * thread, never the caller.
 */
#pragma once

#include <base/util.h>

struct hsk_launch;

/* instance_dir: the folder with the sockets, or NULL and error is one sentence. Called once, unless
 * freed before. */
typedef void (*hsk_launch_done_fn)(void *opaque, const char *instance_dir, const char *error);

/* option: one more for `hva run`, a constant, or NULL. */
struct hsk_launch *hsk_launch_new(const char *file, const char *option, hsk_launch_done_fn done,
                                  void *opaque);
/* It was not started because the user must say first whether to trust the document. */
bool hsk_launch_undecided(const struct hsk_launch *l);
/* What the machine that was started here has said so far, a sentence per line; "" if it was running
 * before. */
char *hsk_launch_words(const struct hsk_launch *l);
/* Stops waiting; a machine that is starting goes on. Also from inside done. */
void hsk_launch_free(struct hsk_launch *l);
