/* SPDX-License-Identifier: MIT */
/*
 * Guest memory of a saved state that is brought in while the machine runs already: see lazy.c.
 * Threads: main.
 */
#pragma once

#include <snapshots/store.h>

struct hsk_lazy;

/* Everything is there; error: something cannot be read, and who needs it waits for ever. Once, on
 * the main thread. */
typedef void (*hsk_lazy_ended_fn)(void *opaque, const GError *error);

/* Begins with what needs no machine. The version is the caller's and stays open until free. expect:
 * pages that are read first (may be NULL). */
struct hsk_lazy *hsk_lazy_new(struct hsk_version *v, const char *object, GArray *expect,
                              hsk_lazy_ended_fn ended, void *opaque);
/* The machine's userfaultfd (taken) and where it has the object mapped: from here on its faults are
 * answered. false: that cannot be. */
bool hsk_lazy_attach(struct hsk_lazy *l, int uffd, uint64_t address, GError **error);
/* No callback any more. The machine is gone or has everything. */
void hsk_lazy_free(struct hsk_lazy *l);
/* The pages to expect the next time: uint32_t numbers, in the order in which they were needed. */
GArray *hsk_lazy_record(struct hsk_lazy *l);
