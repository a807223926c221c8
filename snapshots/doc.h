/* SPDX-License-Identifier: MIT */
/*
 * A document from the inside. store.c opens and closes it, instance.c finds the instance store that
 * belongs to it, commit.c makes a new ROOT durable, version.c takes and reads versions, disk.c has
 * the live disks, publish.c appends to the .hva.
 *
 * Threads: as store.h says; only what is under disk_lock is shared.
 */
#pragma once

#include <snapshots/store.h>
#include <snapshots/trust.h>

#include "log.h"
#include "pack.h"
#include "record.h"

struct hsk_doc {
    const struct hsk_io *io;
    bool readonly;
    char *path; /* absolute */
    int fd;     /* of the .hva, locked */
    bool fd_writable;
    struct hsk_carrier *base;
    struct hsk_root *base_root; /* what the .hva says */
    uint8_t base_hash[HSK_HASH_BYTES];
    uint8_t next_hash[HSK_HASH_BYTES]; /* of the ROOT that a failed publish may have written all the
                                          same */
    struct hsk_manifest *manifest;
    GHashTable *foreign; /* ids of versions in the .hva that somebody else made */

    /* instance; none for a read-only document */
    char *instance; /* its id */
    int dirfd;
    struct hsk_carrier *dir;

    struct hsk_root *root; /* what holds: the instance's, or a copy of base_root */
    bool
        root_unsure; /* a commit failed so late that the disk may have a newer ROOT than this one */
    GPtrArray *versions; /* struct hsk_record, oldest first */
    char saved[33];
    struct hsk_content *content;
    struct hsk_index *index;

    /* live disks: disk_lock guards the disks' maps, the layers and the log's writing end */
    GMutex disk_lock;
    struct hsk_log *log;
    struct hsk_disk *disks;
    unsigned ndisks;
    GPtrArray *layers; /* struct hsk_layer, oldest first; the last one is written to */
};

/* store.c */
struct hsk_doc *hsk_doc_open_io(const char *path, bool readonly, const struct hsk_io *io,
                                char **orphan, GError **error);
bool hsk_doc_create_io(const char *path, const struct hsk_create *c, bool replace,
                       bool (*progress)(void *opaque, double fraction), void *opaque,
                       const struct hsk_io *io, GError **error);
/* Reads the member table, ROOT and its hash of the open .hva. */
bool hsk_doc_load_base(int fd, const char *path, struct hsk_carrier **base, struct hsk_root **root,
                       uint8_t hash[HSK_HASH_BYTES], GError **error);
/* A member that ROOT lists, whole and verified. */
GBytes *hsk_read_listed(const struct hsk_carrier *c, const struct hsk_root *root, const char *name,
                        size_t max, GError **error);
struct hsk_record *hsk_doc_find(struct hsk_doc *doc, const char *id); /* or NULL */
char *hsk_version_member(const char *id);
void hsk_doc_find_saved(struct hsk_doc *doc);
bool hsk_is_version_member(const char *name, char id[33]);

/* instance.c */
bool hsk_instance_attach(struct hsk_doc *doc, char **orphan, GError **error);
/* The document will have this ROOT next, or (NULL) has just come to have base_hash. */
bool hsk_instance_expect(struct hsk_doc *doc, const uint8_t next[HSK_HASH_BYTES], GError **error);
/* Removes files that ROOT does not list, or that the .hva has too. */
void hsk_instance_clean(struct hsk_doc *doc);
char *hsk_data_folder(void);
/* The document that the instance in this folder belongs to; NULL if it is no instance. */
char *hsk_instance_origin_path(const char *folder);
/* trust.c */
/* This user has written that ROOT; foreign: the versions in it that he has not (a set of ids; NULL:
 * none). */
bool hsk_trust_mark(const uint8_t root_hash[HSK_HASH_BYTES], GHashTable *foreign, GError **error);
/* Has he? Then those ids are added to foreign. */
bool hsk_trust_check(const uint8_t root_hash[HSK_HASH_BYTES], GHashTable *foreign);
void hsk_doc_find_foreign(struct hsk_doc *doc);

/* sign.c */
bool hsk_doc_sign_io(const char *path, const struct hsk_seckey *k, const char *publisher,
                     const struct hsk_io *io, GError **error);

/* commit.c */
/* Makes root the instance's ROOT. On success it replaces doc->root (which is freed). When it fails
   with doc->root_unsure set, the new ROOT may be on the disk: until the next success no file that
   it lists may go. */
bool hsk_doc_commit_root(struct hsk_doc *doc, struct hsk_root *root, GError **error);
/* Marks what root, its present and the given records reach; removes instance members that nothing
 * reaches from root. */
bool hsk_doc_sweep(struct hsk_doc *doc, struct hsk_root *root, const GPtrArray *records,
                   GError **error);

/* disk.c */
struct hsk_layer;
bool hsk_disks_open(struct hsk_doc *doc, GError **error);
void hsk_disks_close(struct hsk_doc *doc);
void hsk_layer_free(gpointer p);
bool hsk_disks_changed(struct hsk_doc *doc);
bool hsk_layer_is_live(struct hsk_doc *doc, const struct hsk_layer *layer);
struct hsk_take_point {
    struct hsk_doc *doc;
    struct hsk_layer *layer; /* the last one that belongs to the take */
    uint32_t log_number;
    uint64_t log_seq;
};
/* The changed pages of one disk up to the point, ascending. */
struct hsk_changed_page {
    uint64_t page, loc;
};
GArray *hsk_disk_changes(const struct hsk_take_point *p, unsigned disk);
/* A fresh map of the disk's present object. */
struct hsk_pagemap *hsk_object_map(struct hsk_doc *doc, const struct hsk_object *o);
/* The disks go on from root's present; layers up to last (NULL: all) and older logs are gone. */
void hsk_disks_rebase(struct hsk_doc *doc, const struct hsk_root *root, struct hsk_layer *last);
char *hsk_disk_object_name(const struct hsk_manifest_disk *d);
