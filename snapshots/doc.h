/* SPDX-License-Identifier: MIT */
/*
 * A document from the inside. store.c opens and closes it, instance.c finds the instance store that
 * belongs to it, take.c commits versions, commit.c makes a new ROOT durable, version.c and fetch.c
 * read versions, edit.c drops them, branch.c and disk.c have the live disks, publish.c appends to
 * the .hva.
 *
 * Threads: as store.h says. lock guards the list of versions, disk_lock the live disks; lock is
 * taken first. All else belongs to the thread that commits.
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
    GPtrArray *left; /* struct hsk_left: where it was before; threads may still read there */
    struct hsk_carrier *base;
    struct hsk_root *base_root; /* what the .hva says */
    GHashTable *base_nodes; /* addresses of the map nodes that it reaches, once they are known */
    uint8_t base_hash[HSK_HASH_BYTES];
    uint8_t next_hash[HSK_HASH_BYTES]; /* of the ROOT that a failed publish may have written all the
                                          same */
    struct hsk_manifest *manifest;
    GHashTable *foreign; /* ids of versions in the .hva that somebody else made */

    /* instance; none for a read-only document */
    char *instance; /* its id */
    int dirfd;
    struct hsk_carrier *dir;
    unsigned many_members; /* so many small ones are worth compacting; tests do not wait so long */

    struct hsk_root *root; /* what holds: the instance's, or a copy of base_root */
    bool
        root_unsure; /* a commit failed so late that the disk may have a newer ROOT than this one */
    GMutex lock;     /* for reading versions on other threads than the one that commits */
    GPtrArray *versions; /* struct hsk_record, oldest first */
    unsigned nopen;      /* opened versions: while there are any, no file is removed */
    char saved[33];
    char current[33]; /* what hsk_doc_current said last */
    struct hsk_content *content;
    struct hsk_index *index;

    /* live disks: disk_lock guards the branches and the log's writing end */
    GMutex disk_lock;
    struct hsk_log *log;
    struct hsk_disk *disks;
    unsigned ndisks;
    GPtrArray *branches; /* struct hsk_branch, oldest first; the last one is live */
    GArray *promises;    /* versions that the log speaks of (branch.c) */
};

struct hsk_disk {
    struct hsk_doc *doc;
    unsigned index;
    uint64_t npages;
    char *object; /* "disk.root" */
    char *error;
};

/* move.c */
void hsk_left_free(gpointer left);

/* publish.c */
/* Is the .hva still the one that was opened, or the one that a publish wrote? */
bool hsk_doc_look_again(struct hsk_doc *doc, GError **error);
/* The document is this file now (base and root are taken): memory and instance follow. */
bool hsk_doc_adopt_base(struct hsk_doc *doc, struct hsk_carrier *base, struct hsk_root *root,
                        const uint8_t hash[HSK_HASH_BYTES], GError **error);

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
void hsk_doc_find_saved(struct hsk_doc *doc);

/* instance.c */
bool hsk_instance_attach(struct hsk_doc *doc, char **orphan, GError **error);
/* The document will have this ROOT next, or (NULL) has just come to have base_hash. */
bool hsk_instance_expect(struct hsk_doc *doc, const uint8_t next[HSK_HASH_BYTES], GError **error);
/* Forgets the content of segments that ROOT does not list; false: versions are open, so it can
 * still be read. */
bool hsk_doc_forget_content(struct hsk_doc *doc);
/* Removes files that ROOT does not list, or that the .hva has too, and forgets their content. While
 * versions are open it waits for the next call. */
void hsk_instance_clean(struct hsk_doc *doc);
char *hsk_data_folder(void);
/* Notes whether the instance can go with its document. */
void hsk_instance_settled(struct hsk_doc *doc, bool saved);
/* The document that the instance in this folder belongs to; NULL if it is no instance. */
char *hsk_instance_origin_path(const char *folder);
/* trust.c */
/* This user has written that ROOT of the document; foreign: the versions in it that he has not (a
 * set of ids; NULL: none). */
bool hsk_trust_mark(const char *document, const uint8_t root_hash[HSK_HASH_BYTES],
                    GHashTable *foreign, GError **error);
/* Has he? Then those ids are added to foreign. */
bool hsk_trust_check(const char *document, const uint8_t root_hash[HSK_HASH_BYTES],
                     GHashTable *foreign);
/* The document has this ROOT now: of those that it had before the last HSK_TRUSTED_KEPT stay known.
 * The others are a stranger's again, so nothing is trusted that was not. */
#define HSK_TRUSTED_KEPT 1000u
void hsk_trust_forget_old(const char *document, const uint8_t newest[HSK_HASH_BYTES]);
void hsk_doc_find_foreign(struct hsk_doc *doc);

/* target.c */
struct hsk_target {
    const char *path;
    char *tmp, *name;
    int dirfd, fd;
    bool is_new; /* it takes nothing's place */
};
#define HSK_NO_TARGET                                                                              \
    {                                                                                              \
        .dirfd = -1, .fd = -1                                                                      \
    }
/* Behind the name of a document that is being written: no name that other programs give. */
#define HSK_UNFINISHED ".unfinished"
/* Removes what was left of a document that was being written anew when its writer was killed. */
void hsk_target_tidy(const char *path);
/* Opens path.unfinished, locked as a document that is open. */
bool hsk_target_open(struct hsk_target *t, const char *path, const struct hsk_io *io,
                     GError **error);
/* What was written, and synced, has the name now; closes it. */
bool hsk_target_finish(struct hsk_target *t, const struct hsk_io *io, GError **error);
/* What was not finished goes. */
void hsk_target_clear(struct hsk_target *t);

/* sign.c */
bool hsk_doc_sign_io(const char *path, const struct hsk_seckey *k, const char *publisher,
                     const struct hsk_io *io, GError **error);

/* commit.c */
/* Makes root the instance's ROOT. On success it replaces doc->root (which is freed). When it fails
   with doc->root_unsure set, the new ROOT may be on the disk: until the next success no file that
   it lists may go. */
bool hsk_doc_commit_root(struct hsk_doc *doc, struct hsk_root *root, GError **error);
/* Fills base_nodes. */
bool hsk_doc_know_base(struct hsk_doc *doc, GError **error);
/* Marks what root, its present and the given records reach, and memory (NULL, or lists of struct
 * hsk_object); removes instance members that nothing reaches from root. */
bool hsk_doc_sweep(struct hsk_doc *doc, struct hsk_root *root, const GPtrArray *records,
                   const GPtrArray *memory, GError **error);

/* version.c */
struct hsk_version {
    struct hsk_doc *doc;
    char id[33];
    GArray *objects; /* struct hsk_object, shared with the record */
    char *cpu;
    struct hsk_blob state, picture, needed;
    GHashTable *maps; /* name -> struct hsk_pagemap */
};
/* Its page map; the version's. */
struct hsk_pagemap *hsk_version_map(struct hsk_version *v, const struct hsk_object *o);
const struct hsk_object *hsk_version_object(const struct hsk_version *v, const char *name,
                                            GError **error);

/* edit.c */
/* The record is about to be dropped with this ROOT; false: it must stay. hsk_doc_stay takes all
 * such marks back. */
bool hsk_doc_leave(struct hsk_doc *doc, const struct hsk_root *root, struct hsk_record *r);
void hsk_doc_stay(struct hsk_doc *doc);
/* Gives the record another member: what it says now. */
bool hsk_record_rewrite(struct hsk_sink *sink, struct hsk_root *root, struct hsk_record *r,
                        GError **error);
/* The list of versions follows doc->root: added (or NULL) is new, what ROOT does not list goes. */
void hsk_doc_adopt_versions(struct hsk_doc *doc, struct hsk_record *added);

/* branch.c */
struct hsk_layer;
struct hsk_branch {
    unsigned points; /* takes that were begun on it and have not ended */
    bool gone;       /* a later version was committed */
    char current[33];
    GArray *present;   /* struct hsk_object: what the next version's changes are relative to */
    GPtrArray *maps;   /* struct hsk_pagemap per disk */
    GPtrArray *layers; /* struct hsk_layer, oldest first; the last one is written to */
    uint32_t log_number;
    uint64_t log_seq; /* where its log begins */
};
struct hsk_take_point {
    struct hsk_doc *doc;
    struct hsk_branch *branch;
    struct hsk_layer *layer; /* the last one that belongs to the take */
    uint32_t log_number;
    uint64_t log_seq;
};
bool hsk_branches_open(struct hsk_doc *doc, GError **error);
void hsk_branches_close(struct hsk_doc *doc);
struct hsk_branch *hsk_branch_live(const struct hsk_doc *doc);
/* Where the log has the page (log.h), or 0. */
uint64_t hsk_branch_loc(const struct hsk_branch *b, unsigned disk, uint64_t page);
void hsk_branch_put(struct hsk_branch *b, unsigned disk, uint64_t page, uint64_t loc);
/* false: the log has none of the pages near this one. */
bool hsk_branch_may_have(const struct hsk_branch *b, unsigned disk, uint64_t page);
bool hsk_branch_replay_go_on(struct hsk_doc *doc, const char *id, uint32_t number, uint64_t seq,
                             GError **error);
/* Does the log that root leaves standing go on from this version? Then it must stay. */
bool hsk_branch_promised(struct hsk_doc *doc, const struct hsk_root *root, const char *id);
/* What a take is relative to; false: a later one was committed before it. */
bool hsk_point_base(const struct hsk_take_point *p, GArray **present, char current[33]);
/* The changed pages of one disk up to the point, ascending. */
struct hsk_changed_page {
    uint64_t page, loc;
};
GArray *hsk_disk_changes(const struct hsk_take_point *p, unsigned disk);
/* Gives root the lines current, present and log for the commit of the take, after which its branch
 * has these ones. */
void hsk_branch_root(const struct hsk_take_point *p, const GArray *present, const char *current,
                     struct hsk_root *root);
/* The same in memory, after the commit. */
void hsk_branch_advance(const struct hsk_take_point *p, const GArray *present, const char *current);
/* A ROOT without a take speaks of the live branch, unless a take of an older one is under way:
 * false. The second call is for after the commit. */
bool hsk_branches_settle(struct hsk_doc *doc, struct hsk_root *root);
void hsk_branches_settled(struct hsk_doc *doc);
/* The memory that the next version's changes are relative to, of each branch: lists of struct
 * hsk_object. (Their disks are in ROOT's present, or in a version that must stay.) */
GPtrArray *hsk_branches_memory(struct hsk_doc *doc);
/* Objects are stored elsewhere now: move gives each its new root. */
void hsk_branches_move(struct hsk_doc *doc, void (*move)(void *opaque, struct hsk_object *o),
                       void *opaque);
void hsk_branches_rename_current(struct hsk_doc *doc, const char *from, const char *to);
/* A fresh map of an object. */
struct hsk_pagemap *hsk_object_map(struct hsk_doc *doc, const struct hsk_object *o);

/* disk.c */
bool hsk_disks_open(struct hsk_doc *doc, char **orphan, GError **error);
void hsk_disks_close(struct hsk_doc *doc);
char *hsk_disk_object_name(const struct hsk_manifest_disk *d);
