/* SPDX-License-Identifier: MIT */
/*
 * Checking every byte of a document: what is damaged, and which versions that affects.
 *
 * Threads: one. Reads only.
 */
#pragma once

#include <snapshots/store.h>

struct hsk_checked_version {
    char id[33];
    char *title;
    char *problem; /* a sentence, or NULL: it is whole */
};
struct hsk_check_result {
    bool whole;
    GPtrArray *problems; /* sentences: of members, the signature, TAIL */
    GArray *versions;    /* struct hsk_checked_version, oldest first */
    char *present;       /* what the machine goes on from: a sentence, or NULL: it is whole */
    uint64_t bytes;      /* of all members */
    unsigned members, frames, nodes;
};
void hsk_check_result_free(struct hsk_check_result *r);
HSK_DEFINE_AUTO(hsk_check_result, hsk_check_result_free)
/* NULL + error: it cannot be opened at all, or progress (may be NULL) has said false. */
struct hsk_check_result *hsk_doc_check(const char *path, bool (*progress)(void *, double),
                                       void *opaque, GError **error);
