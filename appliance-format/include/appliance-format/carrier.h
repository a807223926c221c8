/* SPDX-License-Identifier: MIT */
/*
 * The two carriers of a store, seen alike: named members to read, and a sink that new members are
 * written to. Member names are the same as files of a directory store and as members of the .hva
 * tar. A name never becomes a path that the file chose: only names that this program makes up are
 * looked for.
 *
 * Threads: a carrier's member table is constant after opening; reading members from any thread. A
 * sink belongs to one thread.
 */
#pragma once

#include <appliance-format/io.h>

/* A byte range of a descriptor. */
struct hsk_member {
    int fd;
    uint64_t base, size;
    bool owns_fd;
};
void hsk_member_close(struct hsk_member *m);
/* 0 or a negative errno; a range outside the member is -EINVAL. */
G_GNUC_WARN_UNUSED_RESULT int hsk_member_read(const struct hsk_member *m, uint64_t off, void *buf,
                                              size_t len);

struct hsk_carrier;
/* Reads the member table (tar.c). Keeps fd, which stays the caller's. label names the file in
 * errors. */
struct hsk_carrier *hsk_carrier_open_tar(int fd, const char *label, GError **error);
struct hsk_carrier *hsk_carrier_open_dir(int dirfd, const char *label);
void hsk_carrier_free(struct hsk_carrier *c);
HSK_DEFINE_AUTO(hsk_carrier, hsk_carrier_free)
const char *hsk_carrier_label(const struct hsk_carrier *c);
bool hsk_carrier_has(const struct hsk_carrier *c, const char *name);
/* HSK_ERROR_NOT_FOUND if there is none. */
bool hsk_carrier_member(const struct hsk_carrier *c, const char *name, struct hsk_member *out,
                        GError **error);
/* The whole member, at most max bytes. */
GBytes *hsk_carrier_read(const struct hsk_carrier *c, const char *name, size_t max, GError **error);
/* tar only: where the first zero block is, and TAIL's claims if it is the last member */
uint64_t hsk_carrier_tar_end(const struct hsk_carrier *c);
bool hsk_carrier_tar_check_tail(const struct hsk_carrier *c, GError **error);

/* ---- writing ---- */

/* Members are written one after another: begin, pwrite at base.., end. */
struct hsk_sink {
    const struct hsk_io *io;
    const char *label;
    bool (*begin)(struct hsk_sink *s, const char *name, int *fd, uint64_t *base, GError **error);
    /* The member has size bytes. */
    bool (*end)(struct hsk_sink *s, uint64_t size, GError **error);
};

/* A new archive from offset 0, or an append (docs/format.md, "Append"): the first block of what is
   appended is held back until hsk_tar_sink_commit, so that the archive is the old one until then.
 */
struct hsk_tar_sink {
    struct hsk_sink sink;
    int fd;
    uint64_t pos;   /* next header */
    uint64_t start; /* where this sink began */
    bool append;
    uint8_t commit_block[512];
    bool have_commit_block;
    char name[100];
    uint64_t data; /* of the open member */
    /* ROOT.minisig, which goes with ROOT: NULL: none; "": the one before holds no more */
    const char *signature;
};
void hsk_tar_sink_init(struct hsk_tar_sink *s, const struct hsk_io *io, int fd, const char *label);
bool hsk_tar_sink_init_append(struct hsk_tar_sink *s, const struct hsk_io *io, int fd, uint64_t end,
                              const char *label, GError **error);
/* ROOT, signature and TAIL, end of archive, sync; append: then the held-back block, sync.
   *committed tells the caller of a failed commit whether the new archive may already be what is on
   the disk. */
bool hsk_tar_sink_commit(struct hsk_tar_sink *s, const char *root, uint64_t generation,
                         bool *committed, GError **error);
/* Append only: takes everything back. */
void hsk_tar_sink_abort(struct hsk_tar_sink *s);

/* Files in a directory; folders are made as needed. Nothing waits for the disk before
 * hsk_dir_sink_sync, when most of it is there already. */
struct hsk_dir_sink {
    struct hsk_sink sink;
    int dirfd, fd;
    bool made_folder;
    GPtrArray *written; /* names, for abort */
    GArray *unsynced;   /* descriptors of files that are whole */
};
void hsk_dir_sink_init(struct hsk_dir_sink *s, const struct hsk_io *io, int dirfd,
                       const char *label);
/* Makes all members and their names durable. */
bool hsk_dir_sink_sync(struct hsk_dir_sink *s, GError **error);
/* Removes what was written. */
void hsk_dir_sink_abort(struct hsk_dir_sink *s);
void hsk_dir_sink_finish(struct hsk_dir_sink *s);

/* One whole member; hash may be NULL. */
bool hsk_sink_put(struct hsk_sink *s, const char *name, const void *buf, size_t len,
                  uint8_t hash[HSK_HASH_BYTES], GError **error);
/* Copies a range of a descriptor, hashing it. */
bool hsk_sink_copy(struct hsk_sink *s, const char *name, const struct hsk_member *from,
                   uint8_t hash[HSK_HASH_BYTES], GError **error);
/* BLAKE2b-256 of a whole member. */
bool hsk_member_hash(const struct hsk_member *m, uint8_t hash[HSK_HASH_BYTES]);
