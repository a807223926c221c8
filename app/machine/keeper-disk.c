/* SPDX-License-Identifier: MIT */
/*
 * Disks that live in the document: see keeper-disk.h.
 *
 * A request of the device is cut into pieces of at most one slot; a piece waits in line for a free
 * slot, travels, and comes back. When the last piece of a request is back, its done() runs. A piece
 * that failed for the host's reasons is parked with its request: the guest sees neither an error
 * nor wrong data, only a disk that takes long while the machine is stopped.
 *
 * Threads: submit on any thread; everything else on the loop thread. One lock, never held over
 * done() or a blocking call (the socket's buffer holds more messages than there are slots).
 */
#include "keeper-disk.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include "common/diskwire.h"

struct keeper_block {
    struct hsk_block base;
    struct hsk_keeper_disks *k;
    unsigned index;
};

struct piece {
    struct hsk_block_req *req;
    struct keeper_block *b;
    enum hsk_disk_op op;
    uint64_t offset, len;
    uint8_t *data;
};

struct hsk_keeper_disks {
    /* constant after new */
    int sock;
    uint8_t *slots;
    void (*trouble)(void *opaque, unsigned disk, int err);
    void *opaque;
    struct hsk_loop *loop; /* set by attach */
    /* lock */
    pthread_mutex_t lock;
    struct piece *slot[HSK_DISK_SLOTS];
    GQueue waiting; /* of struct piece: no slot yet */
    GQueue parked;  /* of struct piece: failed, to be asked again */
    unsigned in_flight;
    bool troubled, watched, gone;
};

/* Hands waiting pieces to free slots. */
static void pump_locked(struct hsk_keeper_disks *k)
{
    for (unsigned i = 0; i < HSK_DISK_SLOTS && !g_queue_is_empty(&k->waiting); i++) {
        if (k->slot[i])
            continue;
        struct piece *p = g_queue_pop_head(&k->waiting);
        struct hsk_disk_request q = {
            .disk = p->b->index, .op = p->op, .slot = i, .offset = p->offset, .len = p->len};

        if (p->op == HSK_DISK_OP_WRITE)
            memcpy(k->slots + (size_t)i * HSK_DISK_SLOT_BYTES, p->data, p->len);
        k->slot[i] = p;
        k->in_flight++;
        if (send(k->sock, &q, sizeof(q), MSG_NOSIGNAL) != sizeof(q))
            k->gone = true; /* the keeper has ended, and with it, very soon, this process */
    }
}

static void add_piece(struct hsk_keeper_disks *k, struct keeper_block *b, struct hsk_block_req *req,
                      enum hsk_disk_op op, uint64_t at, uint64_t len)
{
    struct piece *p = g_new0(struct piece, 1);
    *p = (struct piece){.req = req, .b = b, .op = op, .offset = req->offset + at, .len = len};
    if (req->buf)
        p->data = (uint8_t *)req->buf + at;
    g_queue_push_tail(&k->waiting, p);
}

static void set_pending(struct hsk_block_req *req, uintptr_t n)
{
    req->backend = (void *)n;
}

static void submit(struct hsk_block *base, struct hsk_block_req *req)
{
    struct keeper_block *b = (struct keeper_block *)base;
    struct hsk_keeper_disks *k = b->k;
    static const enum hsk_disk_op ops[] = {
        [HSK_BLOCK_READ] = HSK_DISK_OP_READ,    [HSK_BLOCK_WRITE] = HSK_DISK_OP_WRITE,
        [HSK_BLOCK_FLUSH] = HSK_DISK_OP_FLUSH,  [HSK_BLOCK_DISCARD] = HSK_DISK_OP_DISCARD,
        [HSK_BLOCK_ZERO] = HSK_DISK_OP_DISCARD, /* a discarded page reads as zeros */
    };

    pthread_mutex_lock(&k->lock);
    req->result = 0;
    bool data = req->op == HSK_BLOCK_READ || req->op == HSK_BLOCK_WRITE;
    uint64_t step = data ? HSK_DISK_SLOT_BYTES : MAX(req->len, 1), at = 0;
    uintptr_t n = 0;
    do {
        uint64_t len = req->op == HSK_BLOCK_FLUSH ? 0 : MIN(step, req->len - at);
        add_piece(k, b, req, ops[req->op], at, len);
        n++;
        at += step;
    } while (at < req->len);
    set_pending(req, n);
    pump_locked(k);
    pthread_mutex_unlock(&k->lock);
}

/* One answer; returns the request that it completed, or NULL. */
static struct hsk_block_req *
settle_locked(struct hsk_keeper_disks *k, const struct hsk_disk_answer *a, unsigned *disk, int *err)
{
    if (a->slot >= HSK_DISK_SLOTS || !k->slot[a->slot])
        return NULL;
    struct piece *p = g_steal_pointer(&k->slot[a->slot]);
    k->in_flight--;
    if (a->result < 0) {
        *disk = p->b->index;
        *err = a->result;
        g_queue_push_tail(&k->parked, p);
        return NULL;
    }
    if (p->op == HSK_DISK_OP_READ)
        memcpy(p->data, k->slots + (size_t)a->slot * HSK_DISK_SLOT_BYTES, p->len);
    struct hsk_block_req *req = p->req;
    uintptr_t left = (uintptr_t)req->backend - 1;
    set_pending(req, left);
    g_free(p);
    return left == 0 ? req : NULL;
}

/* Takes all answers that are there. */
static void take_answers(struct hsk_keeper_disks *k)
{
    for (;;) {
        struct hsk_disk_answer a;
        struct hsk_block_req *req;
        unsigned disk = 0;
        int err = 0;
        ssize_t n = recv(k->sock, &a, sizeof(a), MSG_DONTWAIT);

        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        pthread_mutex_lock(&k->lock);
        if (n != sizeof(a))
            k->gone = true;
        bool gone = k->gone;
        req = gone ? NULL : settle_locked(k, &a, &disk, &err);
        bool tell = err && !k->troubled;
        if (err)
            k->troubled = true;
        pump_locked(k);
        pthread_mutex_unlock(&k->lock);
        if (gone) {
            if (k->watched)
                hsk_loop_unwatch_fd(k->loop, k->sock);
            k->watched = false;
            return;
        }
        if (req)
            req->done(req);
        if (tell)
            k->trouble(k->opaque, disk, err);
    }
}

static void readable(void *opaque, uint32_t events)
{
    take_answers(opaque);
}

static void drain(struct hsk_block *base)
{
    struct hsk_keeper_disks *k = ((struct keeper_block *)base)->k;

    for (;;) {
        pthread_mutex_lock(&k->lock);
        bool idle = k->gone || (k->in_flight == 0 && g_queue_is_empty(&k->waiting));
        pthread_mutex_unlock(&k->lock);
        if (idle)
            return;
        struct pollfd p = {.fd = k->sock, .events = POLLIN};
        poll(&p, 1, -1);
        take_answers(k);
    }
}

static void block_free(struct hsk_block *base)
{
    g_free(base);
}

/* All disks share one socket: the first one watches it. */
static void attach(struct hsk_block *base)
{
    struct hsk_keeper_disks *k = ((struct keeper_block *)base)->k;

    if (k->loop)
        return;
    k->loop = base->loop;
    k->watched = hsk_loop_watch_fd(k->loop, k->sock, EPOLLIN, readable, k);
}

static const struct hsk_block_ops keeper_block_ops = {
    .attach = attach, .submit = submit, .drain = drain, .free = block_free};

struct hsk_block *hsk_keeper_disk_new(struct hsk_keeper_disks *k, unsigned index,
                                      uint64_t size_bytes, bool readonly)
{
    struct keeper_block *b = g_new0(struct keeper_block, 1);

    b->base = (struct hsk_block){
        .ops = &keeper_block_ops, .size_bytes = size_bytes, .readonly = readonly};
    b->k = k;
    b->index = index;
    return &b->base;
}

struct hsk_keeper_disks *hsk_keeper_disks_new(int sock, int slots_fd,
                                              void (*trouble)(void *opaque, unsigned disk, int err),
                                              void *opaque, GError **error)
{
    HSK_AUTOFD slots = slots_fd;
    void *map = mmap(NULL, (size_t)HSK_DISK_SLOTS * HSK_DISK_SLOT_BYTES, PROT_READ | PROT_WRITE,
                     MAP_SHARED, slots, 0);

    if (map == MAP_FAILED) {
        close(sock);
        g_set_error(error, HSK_ERROR, HSK_ERROR_FAILED, "cannot map the disks' buffers: %s",
                    g_strerror(errno));
        return NULL;
    }
    struct hsk_keeper_disks *k = g_new0(struct hsk_keeper_disks, 1);
    k->sock = sock;
    k->slots = map;
    k->trouble = trouble;
    k->opaque = opaque;
    pthread_mutex_init(&k->lock, NULL);
    g_queue_init(&k->waiting);
    g_queue_init(&k->parked);
    return k;
}

void hsk_keeper_disks_retry(struct hsk_keeper_disks *k)
{
    pthread_mutex_lock(&k->lock);
    k->troubled = false;
    for (struct piece *p; (p = g_queue_pop_head(&k->parked));)
        g_queue_push_tail(&k->waiting, p);
    pump_locked(k);
    pthread_mutex_unlock(&k->lock);
}

void hsk_keeper_disks_mark(struct hsk_keeper_disks *k, uint64_t name)
{
    const struct hsk_disk_request q = {.op = HSK_DISK_OP_MARK, .offset = name};

    pthread_mutex_lock(&k->lock);
    if (send(k->sock, &q, sizeof(q), MSG_NOSIGNAL) != sizeof(q))
        k->gone = true;
    pthread_mutex_unlock(&k->lock);
}

bool hsk_keeper_disks_parked(struct hsk_keeper_disks *k)
{
    pthread_mutex_lock(&k->lock);
    bool parked = !g_queue_is_empty(&k->parked);
    pthread_mutex_unlock(&k->lock);
    return parked;
}

void hsk_keeper_disks_free(struct hsk_keeper_disks *k)
{
    if (!k)
        return;
    for (unsigned i = 0; i < HSK_DISK_SLOTS; i++)
        g_free(k->slot[i]);
    g_queue_clear_full(&k->waiting, g_free);
    g_queue_clear_full(&k->parked, g_free);
    munmap(k->slots, (size_t)HSK_DISK_SLOTS * HSK_DISK_SLOT_BYTES);
    close(k->sock);
    pthread_mutex_destroy(&k->lock);
    g_free(k);
}
