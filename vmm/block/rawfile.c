/* SPDX-License-Identifier: MIT */
/*
 * A block back end (vmm/block.h) over a raw image file or a block device: one pool thread does the
 * blocking calls, first come first served, so requests never overtake each other. Completions come
 * back through an eventfd to the loop thread. FLUSH is fdatasync. DISCARD punches a hole, and is
 * allowed to do nothing where the file system cannot.
 */
#include <vmm/block.h>

#include <errno.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#define SECTOR           512u
#define ZERO_CHUNK_BYTES (256u << 10)

struct list {
    struct hsk_block_req *first, **last;
};

struct rawfile {
    struct hsk_block block;
    /* constant after new */
    int fd, event_fd;
    bool is_device;
    pthread_t thread;
    /* lock */
    pthread_mutex_t lock;
    pthread_cond_t work, idle;
    struct list todo, finished;
    bool busy, quit;
    /* loop thread */
    bool watched;
};

static void list_init(struct list *l)
{
    l->first = NULL;
    l->last = &l->first;
}

static void list_add(struct list *l, struct hsk_block_req *req)
{
    req->next = NULL;
    *l->last = req;
    l->last = &req->next;
}

static struct hsk_block_req *list_take(struct list *l)
{
    struct hsk_block_req *req = l->first;

    if (req) {
        l->first = req->next;
        if (!l->first)
            l->last = &l->first;
    }
    return req;
}

static struct rawfile *rawfile_of(struct hsk_block *b)
{
    return hsk_container_of(b, struct rawfile, block);
}

/* ---- the pool thread ---- */

static int write_zeros(const struct rawfile *f, uint64_t offset, uint64_t len)
{
    g_autofree uint8_t *zeros = g_try_malloc0(ZERO_CHUNK_BYTES);
    int r = zeros ? 0 : -ENOMEM;

    while (len && r == 0) {
        uint64_t n = MIN(len, ZERO_CHUNK_BYTES);

        r = hsk_pwrite_all(f->fd, zeros, n, offset);
        offset += n;
        len -= n;
    }
    return r;
}

static int punch(const struct rawfile *f, uint64_t offset, uint64_t len)
{
    uint64_t range[2] = {offset, len};
    int r = f->is_device ? ioctl(f->fd, BLKDISCARD, range)
                         : fallocate(f->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                     (off_t)offset, (off_t)len);

    return r < 0 ? -errno : 0;
}

/* A hole in a file reads as zeros; a discarded range of a device need not. */
static int zero(const struct rawfile *f, uint64_t offset, uint64_t len)
{
    uint64_t range[2] = {offset, len};

    if (f->is_device ? ioctl(f->fd, BLKZEROOUT, range) == 0 : punch(f, offset, len) == 0)
        return 0;
    return write_zeros(f, offset, len);
}

/* A write that the kernel cuts short goes on at the byte it came to. */
static int write_gathered(const struct rawfile *f, const struct hsk_block_req *req)
{
    struct iovec iov[HSK_BLOCK_MAX_IOV], *v = iov, *end = iov + req->niov;
    uint64_t offset = req->offset;

    memcpy(iov, req->iov, req->niov * sizeof *iov);
    while (v < end) {
        ssize_t n = pwritev(f->fd, v, (int)(end - v), (off_t)offset);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? -errno : -EIO;
        offset += (uint64_t)n;
        for (; v < end && (size_t)n >= v->iov_len; v++)
            n -= (ssize_t)v->iov_len;
        if (v < end) {
            v->iov_base = (char *)v->iov_base + n;
            v->iov_len -= (size_t)n;
        }
    }
    return 0;
}

static int perform(const struct rawfile *f, const struct hsk_block_req *req)
{
    int r;

    switch (req->op) {
    case HSK_BLOCK_READ:
        return hsk_pread_all(f->fd, req->buf, req->len, req->offset);
    case HSK_BLOCK_WRITE:
        return req->niov ? write_gathered(f, req)
                         : hsk_pwrite_all(f->fd, req->buf, req->len, req->offset);
    case HSK_BLOCK_FLUSH:
        return f->block.readonly || fdatasync(f->fd) == 0 ? 0 : -errno;
    case HSK_BLOCK_DISCARD:
        r = punch(f, req->offset, req->len);
        return r == -EOPNOTSUPP || r == -ENOSYS || r == -ENODEV ? 0 : r;
    case HSK_BLOCK_ZERO:
        return zero(f, req->offset, req->len);
    }
    return -EINVAL;
}

static void *pool_main(void *arg)
{
    struct rawfile *f = arg;
    struct hsk_block_req *req;
    bool announced;

    pthread_mutex_lock(&f->lock);
    while (!f->quit) {
        req = list_take(&f->todo);
        if (!req) {
            pthread_cond_wait(&f->work, &f->lock);
            continue;
        }
        f->busy = true;
        pthread_mutex_unlock(&f->lock);
        if (req->result == 0) /* else submit has refused it already */
            req->result = perform(f, req);
        pthread_mutex_lock(&f->lock);
        f->busy = false;
        announced =
            f->finished.first != NULL; /* and not yet taken: whoever takes it finds this one too */
        list_add(&f->finished, req);
        pthread_cond_signal(&f->idle);
        if (!announced)
            eventfd_write(f->event_fd, 1);
    }
    pthread_mutex_unlock(&f->lock);
    return NULL;
}

/* ---- the other side ---- */

static void complete(struct rawfile *f)
{
    for (;;) {
        struct hsk_block_req *req;

        pthread_mutex_lock(&f->lock);
        req = list_take(&f->finished);
        pthread_mutex_unlock(&f->lock);
        if (!req)
            return;
        req->done(req);
    }
}

static void event_ready(void *opaque, uint32_t epoll_events)
{
    struct rawfile *f = opaque;
    eventfd_t count;

    (void)eventfd_read(f->event_fd, &count);
    complete(f);
}

static int refuse(const struct hsk_block *b, const struct hsk_block_req *req)
{
    if (req->op == HSK_BLOCK_FLUSH)
        return 0;
    hsk_assert(req->niov <= HSK_BLOCK_MAX_IOV);
    if (!hsk_range_ok(req->offset, req->len, b->size_bytes))
        return -EINVAL;
    return b->readonly && req->op != HSK_BLOCK_READ ? -EROFS : 0;
}

static void rawfile_submit(struct hsk_block *b, struct hsk_block_req *req)
{
    struct rawfile *f = rawfile_of(b);

    req->result = refuse(b, req);
    pthread_mutex_lock(&f->lock);
    list_add(&f->todo, req);
    pthread_cond_signal(&f->work);
    pthread_mutex_unlock(&f->lock);
}

/* A completion may submit again (a flush after a write), so look until nothing is left. */
static void rawfile_drain(struct hsk_block *b)
{
    struct rawfile *f = rawfile_of(b);
    bool idle = false;

    while (!idle) {
        pthread_mutex_lock(&f->lock);
        while (f->busy || f->todo.first)
            pthread_cond_wait(&f->idle, &f->lock);
        idle = !f->finished.first;
        pthread_mutex_unlock(&f->lock);
        complete(f);
    }
}

static void rawfile_free(struct hsk_block *b)
{
    struct rawfile *f = rawfile_of(b);

    if (f->watched)
        hsk_loop_unwatch_fd(b->loop, f->event_fd);
    pthread_mutex_lock(&f->lock);
    f->quit = true;
    pthread_cond_signal(&f->work);
    pthread_mutex_unlock(&f->lock);
    pthread_join(f->thread, NULL);
    pthread_cond_destroy(&f->work);
    pthread_cond_destroy(&f->idle);
    pthread_mutex_destroy(&f->lock);
    close(f->event_fd);
    close(f->fd);
    g_free(f);
}

static void rawfile_attach(struct hsk_block *b)
{
    struct rawfile *f = rawfile_of(b);

    f->watched = hsk_loop_watch_fd(b->loop, f->event_fd, EPOLLIN, event_ready, f);
    hsk_assert(f->watched);
}

static const struct hsk_block_ops rawfile_ops = {
    .attach = rawfile_attach,
    .submit = rawfile_submit,
    .drain = rawfile_drain,
    .free = rawfile_free,
};

static bool file_size(int fd, uint64_t *size_bytes, bool *is_device, GError **error)
{
    struct stat st;

    if (fstat(fd, &st) < 0) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_FAILED, "The disk image cannot be examined: %s",
                    g_strerror(errno));
        return false;
    }
    *is_device = S_ISBLK(st.st_mode);
    if (!*is_device && !S_ISREG(st.st_mode)) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_FAILED,
                    "The disk image is neither a file nor a block device");
        return false;
    }
    *size_bytes = (uint64_t)st.st_size;
    if (*is_device && ioctl(fd, BLKGETSIZE64, size_bytes) < 0) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_FAILED,
                    "The size of the block device cannot be found: %s", g_strerror(errno));
        return false;
    }
    *size_bytes -= *size_bytes % SECTOR;
    if (*size_bytes == 0) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_FAILED,
                    "The disk image is empty: it has no whole sector of 512 bytes");
        return false;
    }
    return true;
}

struct hsk_block *hsk_block_rawfile_new(int fd, bool readonly, GError **error)
{
    HSK_AUTOFD own_fd = fd;
    HSK_AUTOFD event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    struct rawfile *f;
    uint64_t size_bytes;
    bool is_device;
    int r;

    if (!file_size(own_fd, &size_bytes, &is_device, error))
        return NULL;
    f = g_new0(struct rawfile, 1);
    f->block = (struct hsk_block){
        .ops = &rawfile_ops, .size_bytes = size_bytes, .readonly = readonly, .gathers = true};
    f->fd = own_fd;
    f->event_fd = event_fd;
    f->is_device = is_device;
    list_init(&f->todo);
    list_init(&f->finished);
    pthread_mutex_init(&f->lock, NULL);
    pthread_cond_init(&f->work, NULL);
    pthread_cond_init(&f->idle, NULL);
    r = event_fd < 0 ? errno : pthread_create(&f->thread, NULL, pool_main, f);
    if (r) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_FAILED, "The disk's thread cannot be started: %s",
                    g_strerror(r));
        pthread_cond_destroy(&f->work);
        pthread_cond_destroy(&f->idle);
        pthread_mutex_destroy(&f->lock);
        g_free(f);
        return NULL;
    }
    hsk_steal_fd(&own_fd);
    hsk_steal_fd(&event_fd);
    return &f->block;
}
