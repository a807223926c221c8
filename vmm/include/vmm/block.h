/* SPDX-License-Identifier: MIT */
/*
 * The asynchronous block back end: what a disk device talks to. Implementations: block/rawfile.c (a
 * file, a pool thread), and the keeper's disks (app), which speak to the store. Sizes and offsets
 * in bytes; a disk's size is a multiple of 512.
 *
 * A request's buffer belongs to the back end from submit until done(). done() runs on the loop
 * thread, never inside submit(). FLUSH completes after everything completed before it is durable.
 * Requests may complete out of order.
 *
 * Threads: submit from the loop thread or a vCPU thread under the device's lock.
 */
#pragma once

#include <base/loop.h>

#include <sys/uio.h>

#define HSK_BLOCK_MAX_IOV 512

struct hsk_block;

enum hsk_block_op {
    HSK_BLOCK_READ,
    HSK_BLOCK_WRITE,
    HSK_BLOCK_FLUSH,
    HSK_BLOCK_DISCARD,
    HSK_BLOCK_ZERO
};

struct hsk_block_req {
    enum hsk_block_op op;
    uint64_t offset;
    uint64_t
        len; /* READ/WRITE: bytes in buf; DISCARD/ZERO: range; checked against the size by submit */
    void *buf; /* owned by the caller */
    /* Of a WRITE to a back end that gathers: the data, len bytes in all, instead of buf (which is
       NULL). Owned by the caller; may be guest memory, which can change at any time: read once. */
    const struct iovec *iov;
    unsigned niov; /* at most HSK_BLOCK_MAX_IOV */
    int result;    /* 0 or negative errno, set before done */
    void (*done)(struct hsk_block_req *req);
    void *opaque;               /* caller's */
    void *backend;              /* back end's */
    struct hsk_block_req *next; /* back end's */
};

struct hsk_block_ops {
    void (*attach)(struct hsk_block *b); /* b->loop is known now; may be NULL. Loop thread. */
    void (*submit)(struct hsk_block *b, struct hsk_block_req *req);
    /* Waits until nothing is in flight and every done() has run, here if need be; only requests
       that cannot go on for the host's reasons may be left. Loop thread, no device lock held. */
    void (*drain)(struct hsk_block *b);
    void (*free)(struct hsk_block *b);
};

struct hsk_block {
    const struct hsk_block_ops *ops;
    struct hsk_loop *loop; /* set by hsk_block_attach */
    uint64_t size_bytes;
    bool readonly;
    bool gathers; /* takes iov */
};

/* fd is taken. Size from the file (regular file or block device), rounded down to 512. */
struct hsk_block *hsk_block_rawfile_new(int fd, bool readonly, GError **error);
/* Before the first submit: where done() is called. */
void hsk_block_attach(struct hsk_block *b, struct hsk_loop *loop);
