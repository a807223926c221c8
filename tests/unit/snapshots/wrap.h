/* SPDX-License-Identifier: MIT */
/*
 * The calls by which the store reaches the disk, wrapped by the linker (ld --wrap, see
 * tests/CMakeLists.txt): a test counts them, makes the n-th one fail, looks in between two of them,
 * or writes them into a journal (journal.h).
 *
 * Calls that GLib makes by itself are not seen, but for g_mkdir_with_parents. Threads: any; hooks
 * run on the calling thread, and calls that they make are not hooked again.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct journal;

enum wrap_call {
    WRAP_OPEN,
    WRAP_STAT,
    WRAP_READ,
    WRAP_WRITE,
    WRAP_SYNC,
    WRAP_SYNC_FOLDER,
    WRAP_NAMES, /* create, rename, mkdir */
    WRAP_LINK,
    WRAP_UNLINK,
    WRAP_TRUNCATE,
    WRAP_ALLOC, /* g_try_malloc and the like */
    WRAP_CALLS
};

#define WRAP_HALF (-1) /* a write or read that moves only some of the bytes */

struct wrap_hooks {
    /* 0, an errno to fail with instead of doing it, or WRAP_HALF. May be NULL. */
    int (*before)(void *opaque, enum wrap_call call);
    void *opaque;
    struct journal *journal; /* or NULL */
};

/* From now on; NULL: no more. One test at a time. */
void wrap_set(const struct wrap_hooks *hooks);
