/* SPDX-License-Identifier: MIT */
/*
 * Loaded before everything else into hva-keeper (LD_PRELOAD), this makes calls on files below some folder
 * fail, or wait, as the test says that started it. The file that HVA_FAULTS names is shared with the test:
 * struct control. hva-machine and whatever else is started stays as it is.
 *
 * Any thread.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/types.h>
#include <unistd.h>

enum { OPEN = 1, READ = 2, WRITE = 4, SYNC = 8, NAMES = 16, TRUNCATE = 32 };

/* test_faults.Faults has the same. */
struct control {
    atomic_uint calls;     /* which ones count; 0: none */
    atomic_uint error;     /* errno; 0: they are only counted */
    atomic_uint skip;      /* so many go through first */
    atomic_uint fail;      /* then so many fail */
    atomic_uint counted, failed;
    atomic_uint hold;      /* those wait until this is 0 */
    char below[4096 - 28]; /* the folder */
};

static struct control *control;

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("HVA_FAULTS");
    int fd;

    if (!path || strcmp(program_invocation_short_name, "hva-keeper") != 0)
        return;
    fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return;
    void *p = mmap(NULL, sizeof(*control), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (p != MAP_FAILED)
        control = p;
}

static int is_below(const char *path)
{
    size_t n = strlen(control->below);

    return strncmp(path, control->below, n) == 0;
}

static int strikes(unsigned call)
{
    unsigned n = atomic_fetch_add(&control->counted, 1), skip = atomic_load(&control->skip);

    if (n < skip || n - skip >= atomic_load(&control->fail))
        return 0;
    atomic_fetch_add(&control->failed, 1);
    while (atomic_load(&control->hold))
        usleep(1000);
    errno = (int)atomic_load(&control->error);
    return errno != 0;
}

static int fd_strikes(unsigned call, int fd)
{
    char link[64], path[4096];

    if (!control || !(atomic_load(&control->calls) & call))
        return 0;
    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof(path) - 1);
    if (n < 0)
        return 0;
    path[n] = 0;
    return is_below(path) && strikes(call);
}

static int path_strikes(unsigned call, int dirfd, const char *path)
{
    if (!control || !(atomic_load(&control->calls) & call))
        return 0;
    if (path[0] == '/')
        return is_below(path) && strikes(call);
    return dirfd != AT_FDCWD && fd_strikes(call, dirfd);
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static mode_t mode_of(int flags, va_list ap)
{
    return flags & O_CREAT ? va_arg(ap, mode_t) : 0;
}

int openat64(int dirfd, const char *path, int flags, ...)
{
    va_list ap;

    va_start(ap, flags);
    mode_t mode = mode_of(flags, ap);
    va_end(ap);
    return path_strikes(flags & O_CREAT ? NAMES : OPEN, dirfd, path)
               ? -1
               : REAL(openat64)(dirfd, path, flags, mode);
}

int open64(const char *path, int flags, ...)
{
    va_list ap;

    va_start(ap, flags);
    mode_t mode = mode_of(flags, ap);
    va_end(ap);
    return path_strikes(flags & O_CREAT ? NAMES : OPEN, AT_FDCWD, path)
               ? -1
               : REAL(open64)(path, flags, mode);
}

ssize_t pread64(int fd, void *buf, size_t n, off64_t off)
{
    return fd_strikes(READ, fd) ? -1 : REAL(pread64)(fd, buf, n, off);
}

ssize_t pwrite64(int fd, const void *buf, size_t n, off64_t off)
{
    return fd_strikes(WRITE, fd) ? -1 : REAL(pwrite64)(fd, buf, n, off);
}

int fdatasync(int fd)
{
    return fd_strikes(SYNC, fd) ? -1 : REAL(fdatasync)(fd);
}

int ftruncate64(int fd, off64_t size)
{
    return fd_strikes(TRUNCATE, fd) ? -1 : REAL(ftruncate64)(fd, size);
}

int renameat(int from, const char *a, int to, const char *b)
{
    return path_strikes(NAMES, to, b) ? -1 : REAL(renameat)(from, a, to, b);
}

int linkat(int from, const char *a, int to, const char *b, int flags)
{
    return path_strikes(NAMES, to, b) ? -1 : REAL(linkat)(from, a, to, b, flags);
}
