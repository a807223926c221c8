/* SPDX-License-Identifier: MIT */
/*
 * Small things that every folder uses: errors, descriptors, checked arithmetic, unaligned
 * little-endian access.
 *
 * Errors: host and user errors go up as GError in domain HSK_ERROR; the message is one plain
 * sentence that names the file and what to do. Guest mistakes are never errors of ours (house
 * style 3.5).
 */
#pragma once

#include <endian.h>
#include <fcntl.h>
#include <glib.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#define HSK_ERROR hsk_error_quark()
GQuark hsk_error_quark(void);

enum hsk_error {
    HSK_ERROR_FAILED,      /* anything without a code of its own */
    HSK_ERROR_DAMAGED,     /* a file is not what it says it is */
    HSK_ERROR_UNSUPPORTED, /* a newer format, a missing feature */
    HSK_ERROR_BUSY,        /* somebody else has it open */
    HSK_ERROR_NO_SPACE,    /* disk full */
    HSK_ERROR_UNTRUSTED,   /* a bundle of somebody else's asks for more than it may have */
    HSK_ERROR_USAGE,       /* wrong command line */
    HSK_ERROR_NOT_FOUND,
    HSK_ERROR_CANCELLED, /* the caller asked for it; nothing was changed */
};

/* Our own bug: always on, also in release. Never about a value that came from a guest, a file or
 * the network. */
#define hsk_assert(cond)                                                                           \
    do {                                                                                           \
        if (G_UNLIKELY(!(cond)))                                                                   \
            hsk_assert_failed(#cond, __FILE__, __LINE__, __func__);                                \
    } while (0)
G_NORETURN void hsk_assert_failed(const char *cond, const char *file, int line, const char *func);

/* Closes the descriptor that goes out of scope. */
static inline void hsk_close_fd_(int *fd)
{
    if (*fd >= 0)
        close(*fd);
}
#define HSK_AUTOFD __attribute__((cleanup(hsk_close_fd_))) int

static inline int hsk_steal_fd(int *fd)
{
    int r = *fd;
    *fd = -1;
    return r;
}

/* "Owned until the end of the scope" for our structs: HSK_AUTO(hsk_store, s) = NULL; needs
 * HSK_DEFINE_AUTO(hsk_store, hsk_store_free). */
#define HSK_DEFINE_AUTO(type, free_fn)                                                             \
    static inline void type##_auto_(struct type **p)                                               \
    {                                                                                              \
        free_fn(*p);                                                                               \
    }
#define HSK_AUTO(type, name) __attribute__((cleanup(type##_auto_))) struct type *name

/* The struct that holds ptr as its member. */
#define hsk_container_of(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

/* true if [off, off+len) lies inside [0, size): no overflow for any values. */
static inline bool hsk_range_ok(uint64_t off, uint64_t len, uint64_t size)
{
    return len <= size && off <= size - len;
}

static inline uint16_t hsk_get16(const void *p)
{
    uint16_t v;
    memcpy(&v, p, 2);
    return le16toh(v);
}
static inline uint32_t hsk_get32(const void *p)
{
    uint32_t v;
    memcpy(&v, p, 4);
    return le32toh(v);
}
static inline uint64_t hsk_get64(const void *p)
{
    uint64_t v;
    memcpy(&v, p, 8);
    return le64toh(v);
}
static inline void hsk_put16(void *p, uint16_t v)
{
    v = htole16(v);
    memcpy(p, &v, 2);
}
static inline void hsk_put32(void *p, uint32_t v)
{
    v = htole32(v);
    memcpy(p, &v, 4);
}
static inline void hsk_put64(void *p, uint64_t v)
{
    v = htole64(v);
    memcpy(p, &v, 8);
}

/* Whole-buffer I/O that retries on EINTR and short counts. Return 0 or a negative errno; a short
 * file is -ENODATA. */
G_GNUC_WARN_UNUSED_RESULT int hsk_pread_all(int fd, void *buf, size_t len, uint64_t off);
G_GNUC_WARN_UNUSED_RESULT int hsk_pwrite_all(int fd, const void *buf, size_t len, uint64_t off);

/* A sealed-size memfd (F_SEAL_SHRINK|GROW|SEAL), mapped by nobody yet. Returns a descriptor or -1
 * with error set. */
int hsk_memfd_new(const char *name, uint64_t size_bytes, GError **error);

/* SOCK_SEQPACKET/SOCK_STREAM helper: sends len bytes and up to 8 descriptors; 0 or negative errno.
 * Flags as sendmsg. */
G_GNUC_WARN_UNUSED_RESULT int hsk_send_fds(int sock, const void *buf, size_t len, const int *fds,
                                           unsigned nfds, int flags);
/* Receives one message; *nfds is in: capacity, out: count (all O_CLOEXEC). Returns bytes, 0 at EOF,
 * negative errno. */
G_GNUC_WARN_UNUSED_RESULT ssize_t hsk_recv_fds(int sock, void *buf, size_t len, int *fds,
                                               unsigned *nfds, int flags);

#define HSK_PAGE_SIZE  4096u
#define HSK_PAGE_SHIFT 12
