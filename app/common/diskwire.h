/* SPDX-License-Identifier: MIT */
/*
 * Disk requests from hva-machine to hva-keeper: a SOCK_SEQPACKET pair of its own and a memfd of
 * slots for the data. The machine owns the slots and hands one over with each request; the answer
 * hands it back. The keeper believes nothing: disk, op, slot, offset and len are checked against
 * what it knows before use, and an impossible request ends the machine.
 */
#pragma once

#include <base/util.h>

#define HSK_DISK_SLOTS      64
#define HSK_DISK_SLOT_BYTES 131072u

enum hsk_disk_op {
    HSK_DISK_OP_READ = 1,
    HSK_DISK_OP_WRITE,
    HSK_DISK_OP_FLUSH,
    HSK_DISK_OP_DISCARD,
    HSK_DISK_OP_MARK /* the moment of the take named by offset, between the requests before and
                        behind; no answer */
};

struct hsk_disk_request {
    uint32_t disk;
    uint32_t op;   /* enum hsk_disk_op */
    uint32_t slot; /* its data; also the request's name until the answer */
    uint32_t pad;
    uint64_t offset;
    uint64_t len; /* READ, WRITE: <= HSK_DISK_SLOT_BYTES; DISCARD: any inside the disk; FLUSH: 0 */
};

struct hsk_disk_answer {
    uint32_t slot;
    int32_t result; /* 0 or negative errno */
};

_Static_assert(sizeof(struct hsk_disk_request) == 32, "wire layout");
_Static_assert(sizeof(struct hsk_disk_answer) == 8, "wire layout");
