/* SPDX-License-Identifier: MIT */
/*
 * The write calls of the store with their fault hook, error sentences, hashing and hex (see io.h).
 * Any thread.
 */
#include <appliance-format/io.h>

#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>

static int before(const struct hsk_io *io, enum hsk_io_op op, int fd)
{
    return io != NULL && io->before != NULL ? -io->before(io->opaque, op, fd) : 0;
}

int hsk_io_create(const struct hsk_io *io, int dirfd, const char *name)
{
    int r = before(io, HSK_IO_CREATE, dirfd);
    if (r < 0)
        return r;
    int fd = openat(dirfd, name, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    return fd < 0 ? -errno : fd;
}

int hsk_io_create_locked(const struct hsk_io *io, int dirfd, const char *name)
{
    int r = before(io, HSK_IO_CREATE, dirfd);
    if (r < 0)
        return r;
    /* More often than that: a file system that cannot say which file it is. */
    for (unsigned tries = 0; tries < 1000; tries++) {
        HSK_AUTOFD fd =
            openat(dirfd, name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
        struct stat mine, named;
        if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) < 0 || fstat(fd, &mine) < 0)
            return -errno;
        /* Who had it has given it another name, or removed it, before he let it go. */
        if (fstatat(dirfd, name, &named, AT_SYMLINK_NOFOLLOW) < 0) {
            if (errno != ENOENT)
                return -errno;
            continue;
        }
        if (mine.st_dev != named.st_dev || mine.st_ino != named.st_ino)
            continue;
        if (mine.st_size > 0 && ftruncate(fd, 0) < 0)
            return -errno;
        return hsk_steal_fd(&fd);
    }
    return -EWOULDBLOCK;
}

int hsk_io_pwrite(const struct hsk_io *io, int fd, const void *buf, size_t len, uint64_t off)
{
    int r = before(io, HSK_IO_WRITE, fd);
    return r < 0 ? r : hsk_pwrite_all(fd, buf, len, off);
}

int hsk_io_sync(const struct hsk_io *io, int fd)
{
    int r = before(io, HSK_IO_SYNC, fd);
    if (r < 0)
        return r;
    if (fdatasync(fd) == 0)
        return 0;
    r = -errno;
    /* A file system that cannot sync folders keeps them in order in its own way, or not at all. */
    struct stat st;
    return r == -EINVAL && fstat(fd, &st) == 0 && S_ISDIR(st.st_mode) ? 0 : r;
}

int hsk_io_link(int dirfd, const char *from, const char *to)
{
    if (linkat(dirfd, from, dirfd, to, 0) == 0)
        return 0;
    /* What file systems without links say: FAT, network file systems, FUSE. */
    return errno == EPERM || errno == EOPNOTSUPP || errno == ENOSYS ? -EOPNOTSUPP : -errno;
}

int hsk_io_rename(const struct hsk_io *io, int dirfd, const char *from, const char *to)
{
    int r = before(io, HSK_IO_RENAME, dirfd);
    if (r < 0)
        return r;
    return renameat(dirfd, from, dirfd, to) < 0 ? -errno : 0;
}

int hsk_io_truncate(const struct hsk_io *io, int fd, uint64_t size)
{
    int r = before(io, HSK_IO_TRUNCATE, fd);
    if (r < 0)
        return r;
    return ftruncate(fd, (off_t)size) < 0 ? -errno : 0;
}

int hsk_io_replace_file(const struct hsk_io *io, int dirfd, const char *name, const void *buf,
                        size_t len)
{
    g_autofree char *tmp = g_strconcat(name, ".tmp", NULL);
    HSK_AUTOFD fd = hsk_io_create(io, dirfd, tmp);
    if (fd < 0)
        return fd;
    int r = hsk_io_pwrite(io, fd, buf, len, 0);
    if (r == 0)
        r = hsk_io_sync(io, fd);
    if (r == 0)
        r = hsk_io_rename(io, dirfd, tmp, name);
    if (r < 0) {
        unlinkat(dirfd, tmp, 0);
        return r;
    }
    return hsk_io_sync(io, dirfd);
}

bool hsk_io_error(GError **error, int err, const char *fmt, ...)
{
    err = err < 0 ? -err : err;
    enum hsk_error code = HSK_ERROR_FAILED;
    const char *reason = g_strerror(err);
    if (err == ENOSPC || err == EDQUOT) {
        code = HSK_ERROR_NO_SPACE;
        reason = "the disk is full; nothing that was saved before is lost";
    } else if (err == EFBIG) {
        code = HSK_ERROR_NO_SPACE;
        reason =
            "the file would be larger than allowed here; nothing that was saved before is lost";
    } else if (err == ENODATA) {
        reason = "the file is shorter than it was";
    } else if (err == ENOENT) {
        code = HSK_ERROR_NOT_FOUND;
    }
    va_list ap;
    va_start(ap, fmt);
    g_autofree char *what = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    g_set_error(error, HSK_ERROR, (int)code, "cannot %s: %s", what, reason);
    return false;
}

bool hsk_damaged(GError **error, const char *label, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    g_autofree char *what = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    g_set_error(error, HSK_ERROR, HSK_ERROR_DAMAGED, "%s is damaged: %s", label, what);
    return false;
}

void hsk_hash(const void *buf, size_t len, uint8_t out[HSK_HASH_BYTES])
{
    crypto_generichash(out, HSK_HASH_BYTES, buf, len, NULL, 0);
}

void hsk_hex(char *out, const uint8_t *bytes, size_t n)
{
    sodium_bin2hex(out, 2 * n + 1, bytes, n);
}

bool hsk_unhex(const char *text, uint8_t *out, size_t n)
{
    for (size_t i = 0; i < 2 * n; i++) {
        char c = text[i];
        uint8_t digit;
        if (c >= '0' && c <= '9')
            digit = (uint8_t)(c - '0');
        else if (c >= 'a' && c <= 'f')
            digit = (uint8_t)(c - 'a' + 10);
        else
            return false;
        out[i / 2] = (uint8_t)(i % 2 == 0 ? digit << 4 : out[i / 2] | digit);
    }
    return true;
}
