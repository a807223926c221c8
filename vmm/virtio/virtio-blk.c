/* SPDX-License-Identifier: MIT */
/*
 * virtio block device (Virtio 1.1, 5.2) on an asynchronous back end. vCPU threads take requests,
 * the loop thread completes them, both under the device's lock. Data goes through a buffer of ours:
 * guest memory is only touched at those two moments. Only large writes to a back end that gathers
 * are read out of guest memory in place, by its thread: they end before a pause does, and what a
 * driver changes meanwhile it would also have lost on a real disk. pause waits for everything in
 * flight; what waits in the ring is taken after resume. Only a request that the host cannot finish
 * (its disk is full) is still there when the machine is saved: the state names it, and it begins
 * anew after a load. Without VIRTIO_BLK_F_FLUSH a write is flushed before it completes.
 * Deliberately missing: more than one queue, topology, zones, secure erase, a cache mode that the
 * driver can switch.
 */
#include <errno.h>

#include "pci-devices.h"
#include "virtio.h"

#define SECTOR         512u
#define HEADER_BYTES   16u
#define RANGE_BYTES    16u
#define SERIAL_BYTES   20u
#define SEG_MAX        (HSK_VIRTIO_MAX_SIZE - 2u)
#define SIZE_MAX_BYTES (64u << 10)
#define DATA_MAX_BYTES (SEG_MAX * SIZE_MAX_BYTES)
G_STATIC_ASSERT(HSK_VIRTIO_MAX_SIZE <= HSK_BLOCK_MAX_IOV);
/* While so much (or as many requests as the queue has entries) is in flight nothing is taken:
   bounds what a guest can make us allocate. */
#define BUSY_BYTES    (16u << 20)
#define RANGE_SECTORS (4u << 20) /* largest discard or write-zeroes */
/* Large buffers are kept for the next request: fresh memory costs a page fault for every 4 KiB.
   Small ones come from the heap, which has them ready. */
#define SPARES      8u
#define SPARE_BYTES (1u << 20)
#define SMALL_BYTES (64u << 10)

enum { T_IN = 0, T_OUT = 1, T_FLUSH = 4, T_GET_ID = 8, T_DISCARD = 11, T_WRITE_ZEROES = 13 };
enum { S_OK = 0, S_IOERR = 1, S_UNSUPP = 2 };
enum {
    F_SIZE_MAX = 1,
    F_SEG_MAX = 2,
    F_RO = 5,
    F_BLK_SIZE = 6,
    F_FLUSH = 9,
    F_DISCARD = 13,
    F_WRITE_ZEROES = 14
};

#define CONFIG_BYTES 60

struct virtio_blk_state {
    struct hsk_virtio_state virtio;
    uint8_t taken[HSK_VIRTIO_MAX_SIZE / 8]; /* a bit per head of a request in flight */
};

struct virtio_blk {
    struct hsk_virtio v;
    struct virtio_blk_state s;
    /* constant after new */
    struct hsk_block *block;
    char serial[SERIAL_BYTES + 1];
    uint8_t config[CONFIG_BYTES];
    /* device lock */
    unsigned inflight;
    uint64_t inflight_bytes;
    unsigned generation; /* of resets of the whole machine: a request of an older one is nobody's
                            any more */
    bool paused;
    void *spare[SPARES]; /* of SPARE_BYTES each */
    unsigned nspares;
};

struct blk_request {
    struct hsk_block_req req;
    struct virtio_blk *b;
    uint64_t bytes;
    unsigned generation;
    bool write;
    struct iovec *iov;          /* of the request, or NULL */
    struct hsk_virtq_elem elem; /* last, and no longer than its descriptors */
};

static const struct hsk_field blk_fields[] = {
    HSK_VIRTIO_FIELDS(struct virtio_blk_state, virtio),
    HSK_FA(struct virtio_blk_state, taken),
};

static struct virtio_blk *blk_of(struct hsk_virtio *v)
{
    return hsk_container_of(v, struct virtio_blk, v);
}

static struct virtio_blk *blk_of_dev(struct hsk_dev *dev)
{
    return hsk_container_of(dev, struct virtio_blk, v.pci.dev);
}

/* ---- completion ---- */

/* The status is the last byte that the device may write. */
static void finish(struct virtio_blk *b, const struct hsk_virtq_elem *e, uint8_t status,
                   uint64_t data_bytes)
{
    if (!hsk_virtq_write(&b->v, e, e->write_bytes - 1, &status, 1)) {
        hsk_virtio_fail(&b->v);
        return;
    }
    hsk_virtq_push(&b->v, 0, e->head, (uint32_t)data_bytes + 1);
}

static void take_requests(struct virtio_blk *b);

static void set_taken(struct virtio_blk *b, uint16_t head, bool taken)
{
    uint8_t bit = (uint8_t)(1u << (head % 8)),
            *byte = &b->s.taken[head / 8]; /* heads are below the queue's size */

    *byte = taken ? *byte | bit : *byte & (uint8_t)~bit;
}

static bool wants_spare(uint64_t bytes)
{
    return bytes > SMALL_BYTES && bytes <= SPARE_BYTES;
}

static void *take_buffer(struct virtio_blk *b, uint64_t bytes)
{
    if (!wants_spare(bytes))
        return g_try_malloc(bytes);
    return b->nspares ? b->spare[--b->nspares] : g_try_malloc(SPARE_BYTES);
}

static void give_buffer(struct virtio_blk *b, void *buf, uint64_t bytes)
{
    if (buf && wants_spare(bytes) && b->nspares < SPARES)
        b->spare[b->nspares++] = buf;
    else
        g_free(buf);
}

static void free_request(struct blk_request *r)
{
    give_buffer(r->b, r->req.buf, r->bytes);
    g_free(r->iov);
    g_free(r);
}

static void request_done(struct hsk_block_req *req)
{
    struct blk_request *r = req->opaque;
    struct virtio_blk *b = r->b;
    HSK_DEV_GUARD(&b->v.pci.dev);
    bool read = req->op == HSK_BLOCK_READ;

    if (r->write && req->result == 0 && !(b->v.s->driver_features & 1u << F_FLUSH)) {
        r->write = false;
        req->op = HSK_BLOCK_FLUSH;
        req->offset = req->len = 0;
        b->block->ops->submit(b->block, req);
        return;
    }
    b->inflight--;
    b->inflight_bytes -= r->bytes;
    if (r->generation != b->generation) {
        free_request(r);
        return;
    }
    set_taken(b, r->elem.head, false);
    if (b->v.resetting) {
        if (b->inflight == 0)
            hsk_virtio_reset_done(&b->v);
    } else {
        if (read && req->result == 0 && !hsk_virtq_write(&b->v, &r->elem, 0, req->buf, req->len))
            req->result = -EFAULT;
        finish(b, &r->elem, req->result ? S_IOERR : S_OK, read && !req->result ? req->len : 0);
        take_requests(b); /* some may have waited for room */
        hsk_virtq_signal(&b->v, 0);
    }
    free_request(r);
}

/* ---- requests ---- */

/* The data is in buf (of this device's), or in niov pieces of guest memory, or there is none. */
static void submit(struct virtio_blk *b, const struct hsk_virtq_elem *e, enum hsk_block_op op,
                   uint64_t offset, uint64_t len, void *buf, const struct iovec *iov, unsigned niov)
{
    size_t elem_bytes =
        offsetof(struct hsk_virtq_elem, seg) + (e->nread + e->nwrite) * sizeof e->seg[0];
    struct blk_request *r = g_malloc(offsetof(struct blk_request, elem) + elem_bytes);

    r->b = b;
    r->iov = g_memdup2(iov, niov * sizeof *iov);
    memcpy(&r->elem, e, elem_bytes);
    r->generation = b->generation;
    r->bytes = buf || niov ? len : 0;
    r->write = op != HSK_BLOCK_READ && op != HSK_BLOCK_FLUSH;
    r->req = (struct hsk_block_req){.op = op,
                                    .offset = offset,
                                    .len = len,
                                    .buf = buf,
                                    .iov = r->iov,
                                    .niov = niov,
                                    .done = request_done,
                                    .opaque = r};
    set_taken(b, e->head, true);
    b->inflight++;
    b->inflight_bytes += r->bytes;
    b->block->ops->submit(b->block, &r->req);
}

/* sector and bytes of a transfer against the disk's size */
static bool in_disk(const struct virtio_blk *b, uint64_t sector, uint64_t bytes)
{
    return sector <= b->block->size_bytes / SECTOR &&
           hsk_range_ok(sector * SECTOR, bytes, b->block->size_bytes);
}

/* The data of a large write, in place. 0: not to be had so (no gathering back end, a piece is not
 * in one region of memory). */
static unsigned gather(struct virtio_blk *b, const struct hsk_virtq_elem *e, uint64_t bytes,
                       struct iovec *iov)
{
    uint64_t skip = HEADER_BYTES;
    unsigned n = 0;

    if (!b->block->gathers || bytes <= SMALL_BYTES)
        return 0;
    for (unsigned i = 0; i < e->nread; i++) {
        uint64_t from = MIN(skip, e->seg[i].len), len = e->seg[i].len - from;
        const void *p = len ? hsk_ram_ptr(b->v.ram, e->seg[i].gpa + from, len) : NULL;

        skip -= from;
        if (len == 0)
            continue;
        if (!p)
            return 0;
        iov[n++] = (struct iovec){.iov_base = (void *)(uintptr_t)p, .iov_len = len};
    }
    return n;
}

static uint8_t transfer(struct virtio_blk *b, const struct hsk_virtq_elem *e, bool write,
                        uint64_t sector)
{
    uint64_t bytes = write ? e->read_bytes - HEADER_BYTES : e->write_bytes - 1;
    struct iovec iov[HSK_VIRTIO_MAX_SIZE];
    unsigned niov;
    void *buf;

    if (bytes == 0 || bytes % SECTOR || bytes > DATA_MAX_BYTES || !in_disk(b, sector, bytes) ||
        (write && b->block->readonly))
        return S_IOERR;
    niov = write ? gather(b, e, bytes, iov) : 0;
    if (niov) {
        submit(b, e, HSK_BLOCK_WRITE, sector * SECTOR, bytes, NULL, iov, niov);
        return S_OK;
    }
    buf = take_buffer(b, bytes);
    if (!buf || (write && !hsk_virtq_read(&b->v, e, HEADER_BYTES, buf, bytes))) {
        give_buffer(b, buf, bytes);
        return S_IOERR;
    }
    submit(b, e, write ? HSK_BLOCK_WRITE : HSK_BLOCK_READ, sector * SECTOR, bytes, buf, NULL, 0);
    return S_OK;
}

static uint8_t range_request(struct virtio_blk *b, const struct hsk_virtq_elem *e, bool zero)
{
    uint8_t range[RANGE_BYTES];
    uint64_t sector;
    uint32_t sectors, flags;

    if (e->read_bytes != HEADER_BYTES + RANGE_BYTES ||
        !hsk_virtq_read(&b->v, e, HEADER_BYTES, range, sizeof range))
        return S_IOERR;
    sector = hsk_get64(range);
    sectors = hsk_get32(range + 8);
    flags = hsk_get32(range + 12);
    if (flags & ~(zero ? 1u : 0u))
        return S_UNSUPP;
    if (b->block->readonly || sectors == 0 || sectors > RANGE_SECTORS ||
        !in_disk(b, sector, (uint64_t)sectors * SECTOR))
        return S_IOERR;
    submit(b, e, zero ? HSK_BLOCK_ZERO : HSK_BLOCK_DISCARD, sector * SECTOR,
           (uint64_t)sectors * SECTOR, NULL, NULL, 0);
    return S_OK;
}

/* Starts or answers one request. false: the driver's chain is too short to be one. */
static bool start_request(struct virtio_blk *b, const struct hsk_virtq_elem *e)
{
    uint8_t header[HEADER_BYTES], status = S_UNSUPP;
    unsigned before = b->inflight;
    uint64_t written = 0;

    if (e->read_bytes < HEADER_BYTES || e->write_bytes < 1 ||
        !hsk_virtq_read(&b->v, e, 0, header, sizeof header))
        return false;
    switch (hsk_get32(header)) {
    case T_IN:
        status = transfer(b, e, false, hsk_get64(header + 8));
        break;
    case T_OUT:
        status = transfer(b, e, true, hsk_get64(header + 8));
        break;
    case T_FLUSH:
        submit(b, e, HSK_BLOCK_FLUSH, 0, 0, NULL, NULL, 0);
        break;
    case T_GET_ID:
        written = MIN(SERIAL_BYTES, e->write_bytes - 1);
        status = hsk_virtq_write(&b->v, e, 0, b->serial, written) ? S_OK : S_IOERR;
        break;
    case T_DISCARD:
    case T_WRITE_ZEROES:
        status = range_request(b, e, hsk_get32(header) == T_WRITE_ZEROES);
        break;
    default:
        break;
    }
    if (b->inflight == before)
        finish(b, e, status, written);
    return true;
}

static void take_requests(struct virtio_blk *b)
{
    struct hsk_virtq_elem e;

    while (!b->paused && b->inflight < HSK_VIRTIO_MAX_SIZE && b->inflight_bytes < BUSY_BYTES &&
           hsk_virtq_pop(&b->v, 0, &e)) {
        if (!start_request(b, &e))
            hsk_virtio_fail(&b->v);
    }
}

/* After a load: what had been taken and was not finished. */
static void retake_requests(struct virtio_blk *b)
{
    struct hsk_virtq_elem e;

    for (unsigned head = 0; head < HSK_VIRTIO_MAX_SIZE; head++) {
        if (!(b->s.taken[head / 8] >> (head % 8) & 1))
            continue;
        set_taken(b, (uint16_t)head, false);
        if (hsk_virtq_retake(&b->v, 0, (uint16_t)head, &e) && !start_request(b, &e))
            hsk_virtio_fail(&b->v);
    }
}

static void blk_notify(struct hsk_virtio *v, unsigned q)
{
    struct virtio_blk *b = blk_of(v);

    take_requests(b);
    hsk_virtq_signal(v, q); /* for what was answered at once */
}

static bool blk_driver_reset(struct hsk_virtio *v)
{
    return blk_of(v)->inflight == 0;
}

/* ---- configuration ---- */

static uint32_t blk_config_read(struct hsk_virtio *v, unsigned offset, unsigned size)
{
    const uint8_t *p = blk_of(v)->config + offset;

    return size == 1 ? *p : size == 2 ? hsk_get16(p) : hsk_get32(p);
}

static void fill_config(struct virtio_blk *b)
{
    uint8_t *c = b->config;

    hsk_put64(c, b->block->size_bytes / SECTOR);
    hsk_put32(c + 8, SIZE_MAX_BYTES);
    hsk_put32(c + 12, SEG_MAX);
    hsk_put32(c + 20, SECTOR);
    hsk_put32(c + 36, RANGE_SECTORS);
    hsk_put32(c + 40, 1);
    hsk_put32(c + 44, HSK_PAGE_SIZE / SECTOR);
    hsk_put32(c + 48, RANGE_SECTORS);
    hsk_put32(c + 52, 1);
    c[56] = 1;
}

static const struct hsk_virtio_class blk_class = {
    .device_id = 2,
    .pci_class = 0x010000,
    .nqueues = 1,
    .queue_size = HSK_VIRTIO_MAX_SIZE,
    .features = 1u << F_SIZE_MAX | 1u << F_SEG_MAX | 1u << F_BLK_SIZE | 1u << F_FLUSH,
    .config_bytes = CONFIG_BYTES,
    .config_read = blk_config_read,
    .notify = blk_notify,
    .driver_reset = blk_driver_reset,
};

/* ---- life cycle ---- */

static void blk_reset(struct hsk_dev *dev)
{
    struct virtio_blk *b = blk_of_dev(dev);

    b->generation++;
    hsk_virtio_reset(&b->v);
    memset(b->s.taken, 0, sizeof b->s.taken);
}

static bool blk_check(struct hsk_dev *dev, GError **error)
{
    return hsk_virtio_check(&blk_of_dev(dev)->v, error);
}

static void blk_pause(struct hsk_dev *dev)
{
    struct virtio_blk *b = blk_of_dev(dev);

    hsk_dev_enter(dev);
    b->paused = true;
    hsk_dev_leave(dev);
    b->block->ops->drain(b->block); /* completions take the lock */
}

static void blk_resume(struct hsk_dev *dev)
{
    struct virtio_blk *b = blk_of_dev(dev);
    HSK_DEV_GUARD(dev);

    b->paused = false;
    if (b->inflight == 0)
        retake_requests(b);
    hsk_virtio_resume(&b->v);
}

static void blk_free(struct hsk_dev *dev)
{
    struct virtio_blk *b = blk_of_dev(dev);

    blk_pause(dev);
    b->block->ops->free(b->block);
    while (b->nspares)
        g_free(b->spare[--b->nspares]);
    hsk_pci_finish(&b->v.pci);
    g_free(b);
}

static const struct hsk_dev_ops blk_ops = {
    .state = {"virtio-blk", 1, sizeof(struct virtio_blk_state), blk_fields,
              G_N_ELEMENTS(blk_fields)},
    .state_offset = offsetof(struct virtio_blk, s),
    .read = hsk_virtio_read,
    .write = hsk_virtio_write,
    .reset = blk_reset,
    .check = blk_check,
    .pause = blk_pause,
    .resume = blk_resume,
    .free = blk_free,
};

struct hsk_dev *hsk_virtio_blk_new(struct hsk_machine *m, struct hsk_dev *pci_host, const char *id,
                                   unsigned devfn, struct hsk_block *block, const char *serial)
{
    struct virtio_blk *b = g_new0(struct virtio_blk, 1);

    b->block = block;
    hsk_block_attach(block, hsk_machine_loop(m));
    g_strlcpy(b->serial, serial, sizeof b->serial);
    fill_config(b);
    hsk_virtio_init(&b->v, &blk_ops, &blk_class, &b->s.virtio, pci_host, m, id, devfn);
    b->v.features |= block->readonly ? 1u << F_RO : 1u << F_DISCARD | 1u << F_WRITE_ZEROES;
    return &b->v.pci.dev;
}
