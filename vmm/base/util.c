/* SPDX-License-Identifier: MIT */
/* Errors, whole-buffer I/O, memfds and descriptor passing. No thread of its own; all functions are
 * reentrant. */
#include <base/util.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>

#define MAX_FDS 8

GQuark hsk_error_quark(void)
{
    return g_quark_from_static_string("hsk-error-quark");
}

void hsk_assert_failed(const char *cond, const char *file, int line, const char *func)
{
    fprintf(stderr, "haversack: internal error: %s:%d: %s: %s does not hold\n", file, line, func,
            cond);
    abort();
}

int hsk_pread_all(int fd, void *buf, size_t len, uint64_t off)
{
    char *p = buf;

    while (len) {
        ssize_t n = pread(fd, p, len, (off_t)off);

        if (n < 0) {
            if (errno == EINTR)
                continue;
            return -errno;
        }
        if (n == 0)
            return -ENODATA;
        p += n;
        off += (uint64_t)n;
        len -= (size_t)n;
    }
    return 0;
}

int hsk_pwrite_all(int fd, const void *buf, size_t len, uint64_t off)
{
    const char *p = buf;

    while (len) {
        ssize_t n = pwrite(fd, p, len, (off_t)off);

        if (n < 0) {
            if (errno == EINTR)
                continue;
            return -errno;
        }
        if (n == 0)
            return -EIO;
        p += n;
        off += (uint64_t)n;
        len -= (size_t)n;
    }
    return 0;
}

int hsk_memfd_new(const char *name, uint64_t size_bytes, GError **error)
{
    HSK_AUTOFD fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);

    /* Sealed, so that a process that maps it cannot be hit by SIGBUS when another one truncates it.
     */
    if (fd < 0 || ftruncate(fd, (off_t)size_bytes) < 0 ||
        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_FAILED,
                    "Cannot get %" G_GUINT64_FORMAT " MiB of shared memory: %s", size_bytes >> 20,
                    g_strerror(errno));
        return -1;
    }
    return hsk_steal_fd(&fd);
}

int hsk_send_fds(int sock, const void *buf, size_t len, const int *fds, unsigned nfds, int flags)
{
    struct iovec iov = {.iov_base = (void *)(uintptr_t)buf, .iov_len = len};
    union {
        char buf[CMSG_SPACE(sizeof(int) * MAX_FDS)];
        struct cmsghdr align;
    } control;
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

    if (nfds > MAX_FDS)
        return -EINVAL;
    if (nfds) {
        struct cmsghdr *c;

        memset(&control, 0, sizeof control);
        msg.msg_control = control.buf;
        msg.msg_controllen = CMSG_SPACE(sizeof(int) * nfds);
        c = CMSG_FIRSTHDR(&msg);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(int) * nfds);
        memcpy(CMSG_DATA(c), fds, sizeof(int) * nfds);
    }
    for (;;) {
        ssize_t n = sendmsg(sock, &msg, flags | MSG_NOSIGNAL);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        return (size_t)n == len ? 0 : -EMSGSIZE;
    }
}

ssize_t hsk_recv_fds(int sock, void *buf, size_t len, int *fds, unsigned *nfds, int flags)
{
    struct iovec iov = {.iov_base = buf, .iov_len = len};
    union {
        char buf[CMSG_SPACE(sizeof(int) * MAX_FDS)];
        struct cmsghdr align;
    } control;
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = control.buf,
                         .msg_controllen = sizeof control.buf};
    unsigned capacity = nfds ? *nfds : 0, count = 0;
    ssize_t n;

    do
        n = recvmsg(sock, &msg, flags | MSG_CMSG_CLOEXEC);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return -errno;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&msg); c; c = CMSG_NXTHDR(&msg, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        for (size_t i = 0; i < (c->cmsg_len - CMSG_LEN(0)) / sizeof(int); i++) {
            int fd;

            memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof fd);
            if (count < capacity)
                fds[count++] = fd;
            else
                close(fd); /* more than we asked for: not ours to keep */
        }
    }
    if (nfds)
        *nfds = count;
    return n;
}
