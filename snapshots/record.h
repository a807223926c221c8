/* SPDX-License-Identifier: MIT */
/*
 * versions/<id>.json: what one version consists of (docs/format.md, "Versions").
 *
 * Threads: plain data.
 */
#pragma once

#include <snapshots/store.h>

#include "content.h"

#define HSK_RECORD_MAX_BYTES     (1u << 20)
#define HSK_RECORD_MAX_ANCESTORS 64u
#define HSK_TITLE_BYTES          400u

struct hsk_record {
    struct hsk_version_info info; /* .next unused */
    char *member;                 /* where it is stored */
    bool leaving;                 /* about to be dropped: nobody may begin to use it */
    uint64_t order;               /* of taking, within the document */
    char *cpu;
    GArray *objects; /* struct hsk_object */
    GPtrArray
        *ancestors; /* ids, the parent first: dropped ones leave a gap that the next one fills */
    struct hsk_blob state, picture, needed;
};
struct hsk_record *hsk_record_new(void);
void hsk_record_free(struct hsk_record *r);
HSK_DEFINE_AUTO(hsk_record, hsk_record_free)
/* Everything but member. */
char *hsk_record_format(const struct hsk_record *r);
/* Checks every value; the record must be that of id. */
struct hsk_record *hsk_record_parse(const char *label, const char *id, const void *text,
                                    size_t bytes, GError **error);
bool hsk_version_id_ok(const char *id);
/* The name of a record: the first of its version (number 0), or one that took its place. */
char *hsk_record_member(const char *id, uint32_t number);
bool hsk_record_is_member(const char *name, char id[33]);
