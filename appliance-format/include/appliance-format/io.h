/* SPDX-License-Identifier: MIT */
/*
 * Every write to a document or an instance store goes through these few calls, so that a test can
 * make the n-th one fail.
 *
 * Threads: any; a struct hsk_io is constant while in use. NULL stands for "never fails on purpose".
 */
#pragma once

#include <base/text.h>
#include <base/util.h>

enum hsk_io_op { HSK_IO_CREATE, HSK_IO_WRITE, HSK_IO_SYNC, HSK_IO_RENAME, HSK_IO_TRUNCATE };

struct hsk_io {
    /* 0, or the errno to fail with instead of doing it. fd: what is written, synced or truncated,
     * or the folder. */
    int (*before)(void *opaque, enum hsk_io_op op, int fd);
    void *opaque;
};

/* All return 0 or a negative errno, hsk_io_create... a descriptor or a negative errno. */
G_GNUC_WARN_UNUSED_RESULT int hsk_io_create(const struct hsk_io *io, int dirfd, const char *name);
/* Locked (flock) before anything of what was there is lost, for who writes for long: -EWOULDBLOCK
 * if somebody is at it. To be given up by removing the name before the descriptor is closed. */
G_GNUC_WARN_UNUSED_RESULT int hsk_io_create_locked(const struct hsk_io *io, int dirfd,
                                                   const char *name);
G_GNUC_WARN_UNUSED_RESULT int hsk_io_pwrite(const struct hsk_io *io, int fd, const void *buf,
                                            size_t len, uint64_t off);
/* fdatasync, or fsync of a directory where the file system has that */
G_GNUC_WARN_UNUSED_RESULT int hsk_io_sync(const struct hsk_io *io, int fd);
G_GNUC_WARN_UNUSED_RESULT int hsk_io_rename(const struct hsk_io *io, int dirfd, const char *from,
                                            const char *to);
/* Never overwrites (-EEXIST); -EOPNOTSUPP: the file system has no hard links. */
G_GNUC_WARN_UNUSED_RESULT int hsk_io_link(int dirfd, const char *from, const char *to);
G_GNUC_WARN_UNUSED_RESULT int hsk_io_truncate(const struct hsk_io *io, int fd, uint64_t size);
/* name.tmp, sync, rename, sync of the directory. */
G_GNUC_WARN_UNUSED_RESULT int hsk_io_replace_file(const struct hsk_io *io, int dirfd,
                                                  const char *name, const void *buf, size_t len);

/* Sets a sentence "cannot <what>: <reason>" with the code that fits err (positive or negative
 * errno). Returns false. */
bool hsk_io_error(GError **error, int err, const char *fmt, ...) G_GNUC_PRINTF(3, 4);
/* Sets HSK_ERROR_DAMAGED "<label> is damaged: <what>". Returns false. */
bool hsk_damaged(GError **error, const char *label, const char *fmt, ...) G_GNUC_PRINTF(3, 4);

#define HSK_HASH_BYTES 32
/* BLAKE2b-256 */
void hsk_hash(const void *buf, size_t len, uint8_t out[HSK_HASH_BYTES]);
/* 2 * n digits and a NUL */
void hsk_hex(char *out, const uint8_t *bytes, size_t n);
/* Exactly 2 * n lower-case digits at text; false otherwise. Looks at no more than that. */
bool hsk_unhex(const char *text, uint8_t *out, size_t n);
