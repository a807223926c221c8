/* SPDX-License-Identifier: MIT */
/*
 * ROOT: the one list of what a store consists of, as text that `b2sum -l 256 -c` accepts
 * (docs/format.md, "ROOT").
 *
 * Threads: plain data; belongs to one thread.
 */
#pragma once

#include <appliance-format/pagemap.h>
#include <appliance-format/segment.h>

#define HSK_ROOT_MAX_BYTES  (16u << 20)
#define HSK_OBJECT_NAME_MAX 40

struct hsk_root_entry {
    char *name;
    uint8_t hash[HSK_HASH_BYTES]; /* BLAKE2b-256 of the whole member */
    bool is_segment;
    struct hsk_segment_id segment;
};

/* An object and where its page map is. */
struct hsk_object {
    char name[HSK_OBJECT_NAME_MAX + 1];
    uint64_t size_bytes; /* a multiple of 4096, at most HSK_OBJECT_MAX_BYTES */
    struct hsk_map_ref root;
};

struct hsk_root {
    char *document; /* uuid */
    uint64_t generation;
    char current[33];     /* version id or "" */
    uint32_t next_number; /* of segments and map members; from 1 */
    uint32_t log_number;  /* instance only: first log that counts; 0 = a document without log */
    uint64_t log_seq;     /* sequence number of the first record in it */
    GArray *present;      /* struct hsk_object: what the machine goes on from */
    GPtrArray *entries;   /* struct hsk_root_entry, sorted by name */
    GHashTable *by_name;
};

struct hsk_root *hsk_root_new(const char *document);
void hsk_root_free(struct hsk_root *root);
HSK_DEFINE_AUTO(hsk_root, hsk_root_free)
struct hsk_root *hsk_root_copy(const struct hsk_root *root);
struct hsk_root *hsk_root_parse(const char *text, size_t bytes, const char *label, GError **error);
char *hsk_root_format(const struct hsk_root *root);
/* Adds or replaces. segment NULL: not a segment. */
void hsk_root_set(struct hsk_root *root, const char *name, const uint8_t hash[HSK_HASH_BYTES],
                  const struct hsk_segment_id *segment);
void hsk_root_remove(struct hsk_root *root, const char *name);
const struct hsk_root_entry *hsk_root_find(const struct hsk_root *root, const char *name);
struct hsk_object *hsk_root_present(const struct hsk_root *root, const char *object); /* or NULL */
/* Of a list of struct hsk_object: the one of that name, or NULL; adds or replaces one. */
struct hsk_object *hsk_objects_find(const GArray *objects, const char *name);
void hsk_objects_set(GArray *objects, const struct hsk_object *object);
bool hsk_object_name_ok(const char *name);
