/* SPDX-License-Identifier: MIT */
/*
 * The wrapped calls (wrap.h). The linker sends every call of the store's libraries to __wrap_NAME,
 * and __real_NAME is the C library's. What is set is global because the callers know nothing of it.
 * Missing: calls that the store does not make yet; journal_agrees() tells when one is.
 */
#include "wrap.h"

#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "journal.h"

static const struct wrap_hooks *active;
static __thread bool inside;

void wrap_set(const struct wrap_hooks *hooks)
{
    active = hooks;
}

/* What the hook wants: 0, WRAP_HALF, or an errno that is set. */
static int ask(enum wrap_call call)
{
    if (active == NULL || active->before == NULL || inside)
        return 0;
    inside = true;
    int r = active->before(active->opaque, call);
    inside = false;
    if (r > 0)
        errno = r;
    return r;
}

static struct journal *journal(void)
{
    return active != NULL ? active->journal : NULL;
}

#define WRAP(result, name, ...)                                                                    \
    result __real_##name(__VA_ARGS__);                                                             \
    result __wrap_##name(__VA_ARGS__);                                                             \
    result __wrap_##name(__VA_ARGS__)

/* ---- opening ---- */

int __real_openat64(int dirfd, const char *path, int flags, ...);

static int open_it(int dirfd, const char *path, int flags, mode_t mode)
{
    bool makes = (flags & O_CREAT) != 0;
    struct stat st;
    if (ask(makes ? WRAP_NAMES : WRAP_OPEN) != 0)
        return -1;
    bool was_there = makes && fstatat(dirfd, path, &st, 0) == 0;
    int fd = __real_openat64(dirfd, path, flags, mode);
    if (fd >= 0 && makes && !was_there && journal() != NULL)
        journal_name(journal(), dirfd, path, fd);
    else if (fd >= 0 && (flags & O_TRUNC) != 0 && journal() != NULL)
        journal_size(journal(), fd, 0);
    return fd;
}

static mode_t mode_of(int flags, va_list ap)
{
    return (flags & O_CREAT) != 0 ? va_arg(ap, mode_t) : 0;
}

int __wrap_openat64(int dirfd, const char *path, int flags, ...);
int __wrap_openat64(int dirfd, const char *path, int flags, ...)
{
    va_list ap;
    va_start(ap, flags);
    mode_t mode = mode_of(flags, ap);
    va_end(ap);
    return open_it(dirfd, path, flags, mode);
}

int __wrap_open64(const char *path, int flags, ...);
int __wrap_open64(const char *path, int flags, ...)
{
    va_list ap;
    va_start(ap, flags);
    mode_t mode = mode_of(flags, ap);
    va_end(ap);
    return open_it(AT_FDCWD, path, flags, mode);
}

WRAP(int, fstat64, int fd, struct stat64 *st)
{
    return ask(WRAP_STAT) != 0 ? -1 : __real_fstat64(fd, st);
}

WRAP(int, faccessat, int dirfd, const char *path, int mode, int flags)
{
    return ask(WRAP_STAT) != 0 ? -1 : __real_faccessat(dirfd, path, mode, flags);
}

/* ---- contents ---- */

WRAP(ssize_t, pread64, int fd, void *buf, size_t len, off64_t off)
{
    int r = ask(WRAP_READ);
    return r > 0 ? -1 : __real_pread64(fd, buf, r == WRAP_HALF ? (len + 1) / 2 : len, off);
}

WRAP(ssize_t, pwrite64, int fd, const void *buf, size_t len, off64_t off)
{
    int r = ask(WRAP_WRITE);
    if (r > 0)
        return -1;
    ssize_t n = __real_pwrite64(fd, buf, r == WRAP_HALF ? (len + 1) / 2 : len, off);
    if (n > 0 && journal() != NULL)
        journal_write(journal(), fd, buf, (size_t)n, (uint64_t)off);
    return n;
}

WRAP(int, ftruncate64, int fd, off64_t size)
{
    if (ask(WRAP_TRUNCATE) != 0)
        return -1;
    int r = __real_ftruncate64(fd, size);
    if (r == 0 && journal() != NULL)
        journal_size(journal(), fd, (uint64_t)size);
    return r;
}

/* Nothing that a test makes needs to reach a real disk. */
static int sync_it(int fd)
{
    struct stat st;
    if (ask(fstat(fd, &st) == 0 && S_ISDIR(st.st_mode) ? WRAP_SYNC_FOLDER : WRAP_SYNC) != 0)
        return -1;
    if (journal() != NULL)
        journal_sync(journal(), fd);
    return 0;
}

int __wrap_fdatasync(int fd);
int __wrap_fdatasync(int fd)
{
    return sync_it(fd);
}

int __wrap_fsync(int fd);
int __wrap_fsync(int fd)
{
    return sync_it(fd);
}

/* ---- names ---- */

WRAP(int, renameat, int from_dir, const char *from, int to_dir, const char *to)
{
    if (ask(WRAP_NAMES) != 0)
        return -1;
    int r = __real_renameat(from_dir, from, to_dir, to);
    if (r == 0 && journal() != NULL)
        journal_rename(journal(), from_dir, from, to_dir, to);
    return r;
}

WRAP(int, linkat, int from_dir, const char *from, int to_dir, const char *to, int flags)
{
    if (ask(WRAP_LINK) != 0)
        return -1;
    int r = __real_linkat(from_dir, from, to_dir, to, flags);
    if (r == 0 && journal() != NULL)
        journal_name(journal(), to_dir, to, -1);
    return r;
}

WRAP(int, unlinkat, int dirfd, const char *path, int flags)
{
    if (ask(WRAP_UNLINK) != 0)
        return -1;
    int r = __real_unlinkat(dirfd, path, flags);
    if (r == 0 && journal() != NULL)
        journal_unlink(journal(), dirfd, path);
    return r;
}

int __wrap_unlink(const char *path);
int __wrap_unlink(const char *path)
{
    return __wrap_unlinkat(AT_FDCWD, path, 0);
}

int __wrap_rmdir(const char *path);
int __wrap_rmdir(const char *path)
{
    return __wrap_unlinkat(AT_FDCWD, path, AT_REMOVEDIR);
}

WRAP(int, mkdirat, int dirfd, const char *path, mode_t mode)
{
    if (ask(WRAP_NAMES) != 0)
        return -1;
    int r = __real_mkdirat(dirfd, path, mode);
    if (r == 0 && journal() != NULL)
        journal_name(journal(), dirfd, path, -1);
    return r;
}

int __wrap_mkdir(const char *path, mode_t mode);
int __wrap_mkdir(const char *path, mode_t mode)
{
    return __wrap_mkdirat(AT_FDCWD, path, mode);
}

int __wrap_g_mkdir_with_parents(const char *path, int mode);
int __wrap_g_mkdir_with_parents(const char *path, int mode)
{
    struct stat st;
    if (stat(path, &st) == 0)
        return 0;
    g_autofree char *parent = g_path_get_dirname(path);
    return __wrap_g_mkdir_with_parents(parent, mode) < 0
               ? -1
               : __wrap_mkdirat(AT_FDCWD, path, (mode_t)mode);
}

/* ---- memory ---- */

WRAP(gpointer, g_try_malloc, gsize bytes)
{
    return ask(WRAP_ALLOC) != 0 ? NULL : __real_g_try_malloc(bytes);
}

WRAP(gpointer, g_try_malloc0, gsize bytes)
{
    return ask(WRAP_ALLOC) != 0 ? NULL : __real_g_try_malloc0(bytes);
}

WRAP(gpointer, g_try_malloc_n, gsize n, gsize bytes)
{
    return ask(WRAP_ALLOC) != 0 ? NULL : __real_g_try_malloc_n(n, bytes);
}

WRAP(gpointer, g_try_malloc0_n, gsize n, gsize bytes)
{
    return ask(WRAP_ALLOC) != 0 ? NULL : __real_g_try_malloc0_n(n, bytes);
}
