/* SPDX-License-Identifier: MIT */
/*
 * A journal of all changes to some folders, and what a computer finds there after the power failed
 * in the middle: what was synced is there; of everything since the last sync of its file or folder
 * each write, each size and each name is kept, dropped or (writes) torn between sectors of 512
 * bytes, in any combination.
 *
 * So nothing is taken for granted but: a sync works, a rename is one step, a sector is written
 * whole. Threads: the recording functions any; all else one.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct journal;

/* What is below the folders now is on the disk. */
struct journal *journal_new(const char *const *folders);
void journal_free(struct journal *j);
/* How many changes there were so far: a moment. */
unsigned journal_now(struct journal *j);
/* The first sync from that moment on: before it the most is open. Without one: the end. */
unsigned journal_before_sync(struct journal *j, unsigned from);
/* Did it see every change? Compares what it knows with the folders. */
bool journal_agrees(struct journal *j);

/* For wrap.c. Files outside the folders are ignored. */
void journal_write(struct journal *j, int fd, const void *data, size_t len, uint64_t off);
void journal_size(struct journal *j, int fd, uint64_t size);
void journal_sync(struct journal *j, int fd);
/* A new name for a file or folder that is there now; fd: a file that is new, or -1. */
void journal_name(struct journal *j, int dirfd, const char *path, int fd);
void journal_rename(struct journal *j, int from_dir, const char *from, int to_dir, const char *to);
void journal_unlink(struct journal *j, int dirfd, const char *path);

enum journal_cut {
    JOURNAL_LEAST,    /* only what was synced */
    JOURNAL_MOST,     /* everything: the process died, not the computer */
    JOURNAL_NAMES,    /* all names, no contents: what file systems without barriers do */
    JOURNAL_IN_ORDER, /* names up to some change, contents in any combination */
    JOURNAL_ANY,      /* any combination */
    JOURNAL_CUTS
};

/* Makes the folders what they are if the power fails before change `now`. */
void journal_restore(struct journal *j, unsigned now, enum journal_cut cut, uint32_t seed);
