/* SPDX-License-Identifier: MIT */
/*
 * The document's disks for one machine process: a thread that answers its requests
 * (common/diskwire.h) from the store. Threads: new and free on the main thread; the thread calls
 * hsk_disk_* only.
 */
#pragma once

#include <snapshots/store.h>

#include "child.h"

struct hsk_disk_service;

/* Gives the machine its ends ("disks", "disks.slots"). The document is borrowed. */
struct hsk_disk_service *hsk_disk_service_new(struct hsk_doc *doc, struct hsk_child *c,
                                              GError **error);
/* Ends the thread after the request under way; the machine gets no more answers. NULL is fine. */
void hsk_disk_service_free(struct hsk_disk_service *s);
