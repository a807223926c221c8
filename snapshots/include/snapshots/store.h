/* SPDX-License-Identifier: MIT */
/*
 * Documents and their versions, as the keeper sees them: the .hva (tar carrier), the instance's
 * directory store, versions (take, read back), and live disks (log over base). The format is
 * docs/format.md; appliance-format/ has the carriers, segments and page maps; this folder has what
 * a version is and when things become durable.
 *
 * Threads: a document belongs to the keeper. Calls that change it (hsk_version_commit,
 * hsk_doc_fold, hsk_doc_drop..., hsk_doc_publish and so on) come from one thread at a time. While
 * one of them runs, other threads may call:
 * - one disk thread: hsk_disk_*
 * - one thread: hsk_take_begin, hsk_take_abandon, hsk_disks_switch, hsk_doc_versions,
 *   hsk_doc_resolve, hsk_doc_current, hsk_doc_live_changed, hsk_version_open
 * - any: hsk_version_* of a version that only this thread uses
 * Reads and log writes never wait for compression. Errors: one sentence naming the file.
 */
#pragma once

#include <appliance-format/manifest.h>
#include <base/util.h>

struct hsk_doc;
struct hsk_disk;

enum hsk_version_kind {
    HSK_VERSION_USER,
    HSK_VERSION_SAVED,
    HSK_VERSION_BEFORE_REVERT,
    HSK_VERSION_AUTO
};

struct hsk_version_info {
    char id[33];     /* 128-bit random, hex */
    char parent[33]; /* "" = none */
    char *title;
    int64_t time; /* seconds since 1970 UTC */
    enum hsk_version_kind kind;
    bool pinned, has_state; /* has_state: RAM and devices, not only disks */
    bool damaged;           /* its record cannot be read: it can only be dropped */
    char *engine;
    uint64_t bytes; /* stored bytes that this version added */
    uint64_t own_bytes,
        shared_bytes; /* hsk_doc_sizes: what goes when it is dropped, and the rest */
    struct hsk_version_info *next;
};
void hsk_version_info_free(struct hsk_version_info *list);

/* ---- documents ---- */

struct hsk_create {
    const struct hsk_manifest *manifest; /* uuid NULL: a new one */
    int kernel_fd, initrd_fd;            /* or -1 */
    const int *disk_fds; /* one per manifest disk: raw contents (sparse read), or -1 = empty */
    const void *icon_png;
    size_t icon_bytes; /* or NULL */
    const char *readme;
    int level; /* zstd level of disks, 0 = default 3 */
};
/* Writes a new document at path (path.unfinished, fsync, rename; refuses to overwrite unless replace).
 * progress may be NULL; false from it cancels. */
bool hsk_doc_create(const char *path, const struct hsk_create *c, bool replace,
                    bool (*progress)(void *opaque, double fraction), void *opaque, GError **error);

/* Opens .hva or a store directory; takes the flock (HSK_ERROR_BUSY); attaches or makes the instance
   store
   ($XDG_DATA_HOME/haversack/instances); recovers the log. Sets *orphan (or leaves NULL) to a
   sentence if an instance existed that continued another generation and was put aside. readonly:
   info and log only, no instance, no lock. */
struct hsk_doc *hsk_doc_open(const char *path, bool readonly, char **orphan, GError **error);
void hsk_doc_close(struct hsk_doc *doc);
/* Before closing, no version open: removes what had to stay while one was, and notes in the instance
 * whether the document has all that is known of the machine here, but for the timeline. */
void hsk_doc_settle(struct hsk_doc *doc);
/* Removes the instances of documents that were deleted when they had all: with its document goes
 * its timeline. An instance that has more stays, and that of a document whose folder or disk is not
 * there just now. */
void hsk_instances_tidy(void);
const struct hsk_manifest *hsk_doc_manifest(struct hsk_doc *doc);
/* Was the last generation of this document written by this user on this computer (a per-user key in
 * the instance folder)? */
bool hsk_doc_trusted(struct hsk_doc *doc);
/* Contents of member boot/kernel or boot/initrd, verified; NULL + error. */
GBytes *hsk_doc_boot_member(struct hsk_doc *doc, const char *name, GError **error);
/* All versions, oldest first. Owned by the caller. */
struct hsk_version_info *hsk_doc_versions(struct hsk_doc *doc, GError **error);
/* Fills in own_bytes and shared_bytes of a list of hsk_doc_versions; may take a while (threads as
 * hsk_version_commit; cancelled may be NULL, true: HSK_ERROR_CANCELLED). */
bool hsk_doc_sizes(struct hsk_doc *doc, struct hsk_version_info *list,
                   bool (*cancelled)(void *opaque), void *opaque, GError **error);
/* The version the machine's present derives from ("" if none), the newest of kind SAVED ("" if
 * none), and undo's target. */
const char *hsk_doc_current(struct hsk_doc *doc);
const char *hsk_doc_saved(struct hsk_doc *doc);
/* Have the disks been written since the current version? Then its RAM does not belong to them: a
   saved state may be resumed only if it is the current version and this is false; otherwise the
   machine starts cold from its disks, as after a power cut. */
bool hsk_doc_live_changed(struct hsk_doc *doc);
/* The random id of the instance store (32 hex digits); NULL for a document opened read-only. */
const char *hsk_doc_instance(struct hsk_doc *doc);
/* A reference by id, unique prefix of at least 4 characters, exact title, or NULL = newest USER
 * version; error names it. */
char *hsk_doc_resolve(struct hsk_doc *doc, const char *ref, GError **error);
bool hsk_doc_drop(struct hsk_doc *doc, const char *id, GError **error);
/* All of them with one commit, or none. HSK_ERROR_BUSY: the disks were switched to one of them, and
 * a take that was begun before that is still to be committed. */
bool hsk_doc_drop_many(struct hsk_doc *doc, const char *const *ids, unsigned n, GError **error);
bool hsk_doc_rename(struct hsk_doc *doc, const char *id, const char *title, GError **error);
/* A point of the timeline (kind AUTO) becomes a snapshot of the user's, which belongs to the
 * document. title: NULL leaves it. */
bool hsk_doc_keep(struct hsk_doc *doc, const char *id, const char *title, GError **error);
/* A pinned version is never dropped without being named. */
bool hsk_doc_pin(struct hsk_doc *doc, const char *id, bool pinned, GError **error);

/* ---- taking ---- */

struct hsk_version_object {
    const char *name; /* "ram", "vram" */
    uint64_t size_bytes;
    const uint8_t *dirty; /* bit per page: changed since the base; NULL = all may differ */
    bool from_zeros;      /* the base is zeros: power-on. Else what hsk_version_commit says. */
    const uint8_t *pages; /* staging: the dirty pages packed in ascending order, or, with dirty
                             NULL, the whole object; or NULL: */
    void (*read_page)(void *opaque, uint64_t page, void *dst); /* once for each dirty page,
                                                                  ascending, by the commit */
    void *opaque;
};

struct hsk_take {
    const char *title;
    enum hsk_version_kind kind;
    const char *engine, *cpu;
    const struct hsk_version_object *objects;
    unsigned nobjects;
    const void *state;
    size_t state_bytes; /* device state */
    const void *picture_png;
    size_t picture_bytes;
    /* pages of "ram" that the machine needed first after it was opened, in that order, so that the
     * next opening reads them first; or NULL */
    const uint32_t *needed;
    size_t nneeded;                  /* at most HSK_MAX_NEEDED; what is more is left out */
    bool (*cancelled)(void *opaque); /* or NULL; asked often. true: HSK_ERROR_CANCELLED, and nothing
                                        has changed */
    void *opaque;
};
/* Marks the moment of the take for all disks (log position; O(1)); call while the machine is
   stopped and disks are quiet. Returns a token for commit (or hsk_take_abandon). */
struct hsk_take_point *hsk_take_begin(struct hsk_doc *doc);
void hsk_take_abandon(struct hsk_take_point *p);
/* Hashes, deduplicates, compresses, appends and commits: durable when it returns true. Base of the
   dirty bitmaps is the last version committed before, of any kind, or the one that the disks were
   switched to if that was later; after opening it is hsk_doc_current. USER and SAVED become
   hsk_doc_current. Takes are committed in the order in which they were begun. id_out[33],
   bytes_added may be NULL. Takes p. */
bool hsk_version_commit(struct hsk_doc *doc, struct hsk_take_point *p, const struct hsk_take *t,
                        char *id_out, uint64_t *bytes_added, GError **error);
/* The log of disk writes grows until a version is committed. If it is larger than limit_bytes,
   moves its content to where a version's would go, without making one; durable when it returns
   true. Threads as hsk_version_commit; the disks and the machine go on meanwhile. Call it now and
   then, with 1 GiB or so. */
bool hsk_doc_fold(struct hsk_doc *doc, uint64_t limit_bytes, GError **error);

/* Every version leaves members in the instance's store. If there are many small ones, or much of it
 * is needed by no version any more, writes what is needed anew, together; else it does nothing and
 * costs nothing. thorough: gives back all that is worth it, whatever that costs. Threads as
 * hsk_version_commit. cancelled may be NULL; true: HSK_ERROR_CANCELLED. */
bool hsk_doc_compact_instance(struct hsk_doc *doc, bool thorough, bool (*cancelled)(void *opaque),
                              void *opaque, GError **error);

/* ---- going back ---- */

struct hsk_version; /* an opened version */
struct hsk_version *hsk_version_open(struct hsk_doc *doc, const char *id, GError **error);
void hsk_version_free(struct hsk_version *v);
/* Verified pages [page, page+n) into buf; holes are zeros. */
bool hsk_version_read(struct hsk_version *v, const char *object, uint64_t page, uint64_t n,
                      void *buf, GError **error);
/* Some of an object's pages, verified: those with their bit set. Frame by frame, on several
 * threads, each frame decoded once: put is called on any of them, in no certain order, with runs of
 * pages. */
typedef bool (*hsk_pages_put_fn)(void *opaque, uint64_t page, uint64_t n, const void *data,
                                 GError **error);
bool hsk_version_pick(struct hsk_version *v, const char *object, const uint8_t *wanted,
                      hsk_pages_put_fn put, void *opaque, GError **error);
/* Fills a fresh (all-zero) object: skips holes, decodes each frame once, in stored order. host is
 * writable memory of size_bytes. */
bool hsk_version_fill(struct hsk_version *v, const char *object, void *host, uint64_t size_bytes,
                      GError **error);
uint64_t hsk_version_object_size(struct hsk_version *v,
                                 const char *object); /* 0: does not have it */
/* The processor model that it was taken under ("v3,+aes"), or NULL if it does not say. Lives as
 * long as v. */
const char *hsk_version_cpu(struct hsk_version *v);
GBytes *hsk_version_state(struct hsk_version *v, GError **error);
/* As given to the take, of uint32_t; NULL: there is none, or it cannot be read, which is no harm.
 * Page numbers may be anything. */
#define HSK_MAX_NEEDED 4096u
GArray *hsk_version_needed(struct hsk_version *v);
GBytes *hsk_version_picture(struct hsk_version *v, GError **error);
/* The live disks now go on from this version, which is hsk_doc_current and the base of the next
   take's changes. The machine is stopped. O(1): a record in the log, durable with the next flush or
   commit. Takes that were begun before can still be committed, as versions of where the disks
   were; the commit of the last of them lets ROOT go on from here. */
bool hsk_disks_switch(struct hsk_doc *doc, struct hsk_version *v, GError **error);

/* ---- live disks ---- */

struct hsk_disk *hsk_doc_disk(struct hsk_doc *doc, unsigned index); /* manifest order */
/* Any byte range inside the disk; return 0 or negative errno (-EIO: damaged, message logged once
 * and kept in hsk_disk_error). */
int hsk_disk_read(struct hsk_disk *d, uint64_t off, void *buf, size_t len);
int hsk_disk_write(struct hsk_disk *d, uint64_t off, const void *buf, size_t len);
int hsk_disk_discard(struct hsk_disk *d, uint64_t off, uint64_t len);
/* Everything written so far is on stable storage when this returns 0. -ENOSPC: disk full, nothing
 * lost. */
int hsk_disk_flush(struct hsk_disk *d);
const char *hsk_disk_error(struct hsk_disk *d);

/* Appends what belongs to the document (USER, SAVED, BEFORE_REVERT versions) to the .hva: two
 * fsyncs. */
bool hsk_doc_publish(struct hsk_doc *doc, GError **error);
/* Is every byte as it was written? The first thing that is not is the error; snapshots/verify.h
 * tells more. */
/* Writes the document anew without what no version needs, in place of the old one; the versions,
 * and what this computer knows beyond the document, stay. progress as in hsk_doc_create; after
 * false (HSK_ERROR_CANCELLED) nothing has changed. */
bool hsk_doc_compact(const char *path, bool (*progress)(void *opaque, double fraction),
                     void *opaque, GError **error);
/* A new machine, with an identity of its own and called as its file: from one version of a document
 * (id, prefix or title), in whose state it begins, or (NULL) from what the machine would go on
 * with: its saved state, else its disks as they are now. If somebody has the document open, from
 * what is committed in it. */
bool hsk_doc_clone(const char *path, const char *version, const char *out,
                   bool (*progress)(void *opaque, double fraction), void *opaque, GError **error);
/* The same from one version (its id) of a document that is open, in two steps. Begin reads nothing
 * from the disk; threads as hsk_version_commit. The version may be dropped from then on: what is to
 * be copied stays until the clone is freed. Write is called once, on any thread, beside everything
 * else; progress on the same thread. All clones are freed before the document is closed. */
struct hsk_clone;
struct hsk_clone *hsk_clone_begin(struct hsk_doc *doc, const char *id, const char *out,
                                  GError **error);
bool hsk_clone_write(struct hsk_clone *c, bool (*progress)(void *opaque, double fraction),
                     void *opaque, GError **error);
void hsk_clone_free(struct hsk_clone *c);
HSK_DEFINE_AUTO(hsk_clone, hsk_clone_free)
/* Was its file deleted, or replaced by another, so that only we still have it? */
bool hsk_doc_is_gone(struct hsk_doc *doc);
/* Which file it is, whatever it is called now. */
void hsk_doc_identity(struct hsk_doc *doc, uint64_t *device, uint64_t *inode);
/* The document goes on at out, with all that it has: its file there is a copy of the last committed
 * generation, hsk_doc_publish appends the rest. The old file, if it is still there, is one that
 * stayed behind. In three steps: begin and finish on threads as hsk_version_commit; copy once
 * between them, on any thread, beside everything else. hsk_doc_path says where the document is,
 * also after an error of the last. Freed before the document is closed; what was not finished goes.
 */
struct hsk_move;
struct hsk_move *hsk_move_begin(struct hsk_doc *doc, const char *out, GError **error);
bool hsk_move_copy(struct hsk_move *m, bool (*progress)(void *opaque, double fraction),
                   void *opaque, GError **error);
bool hsk_move_finish(struct hsk_move *m, GError **error);
void hsk_move_free(struct hsk_move *m);
HSK_DEFINE_AUTO(hsk_move, hsk_move_free)
/* Where it is, absolute; lives until it is closed or moved. */
const char *hsk_doc_path(const struct hsk_doc *doc);
bool hsk_doc_verify(const char *path, bool (*progress)(void *, double), void *opaque,
                    GError **error);
