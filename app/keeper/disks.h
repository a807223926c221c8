/* SPDX-License-Identifier: MIT */
/*
 * The document's disks for one machine process: a thread that answers its requests
 * (common/diskwire.h) from the store, and marks the moment of a take where it comes between them.
 * Threads: all calls on the main thread; the service's own calls hsk_disk_* and hsk_take_begin.
 */
#pragma once

#include <snapshots/store.h>

#include "child.h"

struct hsk_disk_service;

/* Gives the machine its ends ("disks", "disks.slots"). The document is borrowed. */
struct hsk_disk_service *hsk_disk_service_new(struct hsk_doc *doc, struct hsk_child *c,
                                              GError **error);
/* The machine will mark the moment of the take with that name: marked is called on the main thread
 * with the point, which it takes. A mark that nobody expects is none. */
void hsk_disk_service_expect_mark(struct hsk_disk_service *s, uint64_t name,
                                  void (*marked)(void *opaque, struct hsk_take_point *point),
                                  void *opaque);
/* Nobody expects it any more. */
void hsk_disk_service_forget_mark(struct hsk_disk_service *s);
/* Writes and discards so far; any thread. */
uint64_t hsk_disk_service_writes(const struct hsk_disk_service *s);
/* Ends the thread after the request under way; the machine gets no more answers. NULL is fine. */
void hsk_disk_service_free(struct hsk_disk_service *s);
