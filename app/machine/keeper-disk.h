/* SPDX-License-Identifier: MIT */
/* Disks that live in the document: block back ends that ask the keeper (common/diskwire.h). */
#pragma once

#include <vmm/block.h>

struct hsk_keeper_disks;

/* sock and slots_fd are taken. trouble: a request could not be done (-ENOSPC, -EIO ...): it is
   kept, not answered, and waits for hsk_keeper_disks_retry; runs on the loop thread, once until the
   retry. */
struct hsk_keeper_disks *hsk_keeper_disks_new(int sock, int slots_fd,
                                              void (*trouble)(void *opaque, unsigned disk, int err),
                                              void *opaque, GError **error);
/* After the machine (and with it the back ends) is gone. */
void hsk_keeper_disks_free(struct hsk_keeper_disks *k);
/* The back end of disk number index; freed by its device. */
struct hsk_block *hsk_keeper_disk_new(struct hsk_keeper_disks *k, unsigned index,
                                      uint64_t size_bytes, bool readonly);
/* The moment of a take: tells the keeper between the requests that were sent before and those that
 * come after. The machine is stopped or frozen. */
void hsk_keeper_disks_mark(struct hsk_keeper_disks *k, uint64_t name);
/* Loop thread. Requests that are waiting after trouble are asked again; before the machine runs
 * again. */
void hsk_keeper_disks_retry(struct hsk_keeper_disks *k);
/* Is a request waiting after trouble? Then the machine's state is not whole and must not be saved.
 */
bool hsk_keeper_disks_parked(struct hsk_keeper_disks *k);
