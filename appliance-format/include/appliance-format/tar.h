/* SPDX-License-Identifier: MIT */
/*
 * The strict subset of ustar that an .hva is (docs/format.md, "Container"): scanning the headers,
 * making one.
 *
 * Threads: no state. Missing on purpose: everything else a tar can hold is refused, never skipped.
 */
#pragma once

#include <base/util.h>

#define HSK_TAR_BLOCK    512u
#define HSK_TAR_NAME_MAX 99

struct hsk_tar_member {
    char name[HSK_TAR_NAME_MAX + 1];
    uint64_t data, size;
};

/* All members up to the first zero block, in order; names that may repeat (ROOT, TAIL, ...) repeat.
 * *end = that block. */
GArray *hsk_tar_scan(int fd, const char *label, uint64_t *end, GError **error);
/* Is it a name that an .hva may hold? */
bool hsk_tar_name_ok(const char *name);
void hsk_tar_header(uint8_t block[HSK_TAR_BLOCK], const char *name, char type, uint64_t size);
/* Fills body (bytes, a multiple of 512, at least 512) with one pax record "comment=...". */
void hsk_tar_padding(uint8_t *body, size_t bytes);
