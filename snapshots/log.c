/* SPDX-License-Identifier: MIT */
/*
 * The write log (log.h; docs/format.md, "Log").
 *
 * Files log/NNNNNN, each begun by a 64-byte header with a random epoch that all its records repeat,
 * so that old bytes of a recycled block never look like a record. Sequence numbers run on over the
 * files. Recovery takes the longest prefix in which every record is whole, cuts the rest off, and
 * goes on in a new file. The log is bounded by taking versions only.
 */
#include "log.h"

#include <errno.h>
#include <inttypes.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#define XXH_STATIC_LINKING_ONLY /* a state on the stack */
#include <xxhash.h>

enum { HEADER_BYTES = 64, TYPE_WRITE = 1, TYPE_DISCARD = 2, TYPE_GO_ON = 3 };
#define RECORD_MAGIC 0x474c5648u /* "HVLG" */
#define MAX_NUMBER   (1u << 22)

struct log_file {
    uint32_t number;
    int fd;
    bool synced;
    uint64_t bytes;
};

struct hsk_log {
    const struct hsk_io *io;
    char *label;
    int dirfd;
    uint32_t first, next_number;
    uint64_t next_seq;
    int sync_error;
    bool names_synced;
    /* the file that is appended to; fd < 0: the next record makes one */
    int fd;
    uint64_t epoch, end;
    GRWLock lock;  /* guards files against hsk_log_read */
    GArray *files; /* struct log_file, ascending */
};

struct hsk_log *hsk_log_new(const struct hsk_io *io, int dirfd, const char *label, uint32_t number,
                            uint64_t seq)
{
    struct hsk_log *log = g_new0(struct hsk_log, 1);
    *log = (struct hsk_log){.io = io,
                            .label = g_strdup(label),
                            .dirfd = dirfd,
                            .first = number,
                            .next_number = number,
                            .next_seq = seq,
                            .names_synced = true,
                            .fd = -1};
    g_rw_lock_init(&log->lock);
    log->files = g_array_new(FALSE, FALSE, sizeof(struct log_file));
    return log;
}

void hsk_log_free(struct hsk_log *log)
{
    if (log == NULL)
        return;
    for (guint i = 0; i < log->files->len; i++)
        close(g_array_index(log->files, struct log_file, i).fd);
    g_array_unref(log->files);
    g_rw_lock_clear(&log->lock);
    g_free(log->label);
    g_free(log);
}

static void file_name(char out[32], uint32_t number)
{
    snprintf(out, 32, "log/%06u", number);
}

static void seal(uint8_t head[HEADER_BYTES], const void *data, size_t bytes, uint8_t out[16])
{
    XXH3_state_t st;
    XXH3_128bits_reset(&st);
    XXH3_128bits_update(&st, head, 48);
    if (bytes > 0)
        XXH3_128bits_update(&st, data, bytes);
    XXH128_canonical_t c;
    XXH128_canonicalFromHash(&c, XXH3_128bits_digest(&st));
    memcpy(out, c.digest, 16);
}

static void add_file(struct hsk_log *log, uint32_t number, int fd, uint64_t bytes)
{
    struct log_file f = {.number = number, .fd = fd, .bytes = bytes};
    G_GNUC_UNUSED g_autoptr(GRWLockWriterLocker) locker = g_rw_lock_writer_locker_new(&log->lock);
    g_array_append_val(log->files, f);
}

static int open_new(struct hsk_log *log)
{
    char name[32];
    uint8_t head[HEADER_BYTES] = {0};
    if (log->next_number >= MAX_NUMBER)
        return -EOVERFLOW;
    file_name(name, log->next_number);
    HSK_AUTOFD fd = hsk_io_create(log->io, log->dirfd, name);
    if (fd < 0)
        return fd;
    randombytes_buf(&log->epoch, sizeof(log->epoch));
    memcpy(head, "HVALOG1", 8);
    hsk_put32(head + 8, log->next_number);
    hsk_put64(head + 16, log->epoch);
    hsk_put64(head + 24, log->next_seq);
    seal(head, NULL, 0, head + 48);
    int r = hsk_io_pwrite(log->io, fd, head, sizeof(head), 0);
    if (r < 0) {
        unlinkat(log->dirfd, name, 0);
        return r;
    }
    log->fd = fd;
    log->end = HEADER_BYTES;
    log->names_synced = false;
    add_file(log, log->next_number++, hsk_steal_fd(&fd), HEADER_BYTES);
    return 0;
}

static uint64_t make_loc(uint32_t number, uint64_t offset)
{
    return (uint64_t)number << 40 | offset / 64;
}

/* A record whose bytes 24 to 39 are in place; tells where it begins. */
static int append(struct hsk_log *log, uint8_t head[HEADER_BYTES], uint32_t type, const void *data,
                  size_t bytes, uint64_t *at)
{
    if (log->sync_error != 0)
        return log->sync_error;
    int r = log->fd < 0 ? open_new(log) : 0;
    if (r < 0)
        return r;
    hsk_put32(head, RECORD_MAGIC);
    hsk_put32(head + 4, type);
    hsk_put64(head + 8, log->epoch);
    hsk_put64(head + 16, log->next_seq);
    seal(head, data, bytes, head + 48);
    /* The header goes last: a record whose payload did not fit is none, and the next one overwrites
     * it. */
    r = bytes == 0 ? 0 : hsk_io_pwrite(log->io, log->fd, data, bytes, log->end + HEADER_BYTES);
    if (r == 0)
        r = hsk_io_pwrite(log->io, log->fd, head, HEADER_BYTES, log->end);
    if (r < 0)
        return r;
    struct log_file *f = &g_array_index(log->files, struct log_file, log->files->len - 1);
    f->synced = false;
    *at = make_loc(f->number, log->end);
    log->end += HEADER_BYTES + bytes;
    f->bytes = log->end;
    log->next_seq++;
    return 0;
}

int hsk_log_append(struct hsk_log *log, uint32_t disk, uint64_t page, uint32_t npages,
                   const void *data, uint64_t *loc)
{
    uint8_t head[HEADER_BYTES] = {0};
    uint64_t at;
    hsk_assert(npages > 0 && (data == NULL || npages <= HSK_LOG_RECORD_PAGES));
    hsk_put32(head + 24, disk);
    hsk_put32(head + 28, npages);
    hsk_put64(head + 32, page);
    int r = append(log, head, data == NULL ? TYPE_DISCARD : TYPE_WRITE, data,
                   data == NULL ? 0 : (size_t)npages * HSK_PAGE_SIZE, &at);
    if (r == 0)
        *loc = data == NULL ? HSK_LOC_HOLE : at + HEADER_BYTES / 64;
    return r;
}

int hsk_log_go_on(struct hsk_log *log, const uint8_t id[HSK_LOG_ID_BYTES], uint32_t *number,
                  uint64_t *seq)
{
    uint8_t head[HEADER_BYTES] = {0};
    uint64_t at;
    memcpy(head + 24, id, HSK_LOG_ID_BYTES);
    int r = append(log, head, TYPE_GO_ON, NULL, 0, &at);
    if (r == 0)
        hsk_log_rotate(log, number, seq);
    return r;
}

int hsk_log_read(struct hsk_log *log, uint64_t loc, void *page)
{
    uint32_t number = (uint32_t)(loc >> 40) & (MAX_NUMBER - 1);
    G_GNUC_UNUSED g_autoptr(GRWLockReaderLocker) locker = g_rw_lock_reader_locker_new(&log->lock);
    for (guint i = log->files->len; i-- > 0;) {
        const struct log_file *f = &g_array_index(log->files, struct log_file, i);
        if (f->number == number)
            return hsk_pread_all(f->fd, page, HSK_PAGE_SIZE, (loc & ((1ull << 40) - 1)) * 64);
    }
    return -ESTALE;
}

int hsk_log_flush(struct hsk_log *log)
{
    for (guint i = 0; i < log->files->len && log->sync_error == 0; i++) {
        struct log_file *f = &g_array_index(log->files, struct log_file, i);
        if (f->synced)
            continue;
        /* Whatever the reason is: it is not one that goes away. */
        log->sync_error = hsk_io_sync(log->io, f->fd) < 0 ? -EIO : 0;
        f->synced = log->sync_error == 0;
    }
    if (log->sync_error == 0 && !log->names_synced) {
        HSK_AUTOFD dir = openat(log->dirfd, "log", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (dir < 0)
            return -errno;
        log->sync_error = hsk_io_sync(log->io, dir) < 0 ? -EIO : 0;
        log->names_synced = log->sync_error == 0;
    }
    return log->sync_error;
}

int hsk_log_error(const struct hsk_log *log)
{
    return log->sync_error;
}

uint64_t hsk_log_bytes(struct hsk_log *log)
{
    uint64_t bytes = 0;
    for (guint i = 0; i < log->files->len; i++)
        bytes += g_array_index(log->files, struct log_file, i).bytes;
    return bytes;
}

void hsk_log_fail(struct hsk_log *log, int err)
{
    log->sync_error = err;
}

void hsk_log_rotate(struct hsk_log *log, uint32_t *number, uint64_t *seq)
{
    log->fd = -1; /* the table of files owns it */
    *number = log->next_number;
    *seq = log->next_seq;
}

GArray *hsk_log_detach_before(struct hsk_log *log, uint32_t number)
{
    GArray *out = g_array_new(FALSE, FALSE, sizeof(struct log_file));
    G_GNUC_UNUSED g_autoptr(GRWLockWriterLocker) locker = g_rw_lock_writer_locker_new(&log->lock);
    while (log->files->len > 0 && g_array_index(log->files, struct log_file, 0).number < number) {
        const struct log_file *f = &g_array_index(log->files, struct log_file, 0);
        if (f->fd == log->fd)
            log->fd = -1;
        g_array_append_vals(out, f, 1);
        g_array_remove_index(log->files, 0);
    }
    log->first = MAX(log->first, number);
    return out;
}

void hsk_log_discard(struct hsk_log *log, GArray *detached)
{
    for (guint i = 0; i < detached->len; i++) {
        const struct log_file *f = &g_array_index(detached, struct log_file, i);
        char name[32];
        file_name(name, f->number);
        close(f->fd);
        unlinkat(log->dirfd, name, 0);
    }
    g_array_unref(detached);
}

/* ---- recovery ---- */

struct replay {
    struct hsk_log *log;
    const struct hsk_log_replay *to;
    uint8_t *buf; /* one record's payload */
};

/* Is there a record whose type and counts can be? Tells the length of its payload. */
static bool possible(const struct replay *rp, const uint8_t *head, uint64_t epoch, size_t *bytes)
{
    uint32_t type = hsk_get32(head + 4), npages = hsk_get32(head + 28);
    *bytes = type == TYPE_WRITE ? (size_t)npages * HSK_PAGE_SIZE : 0;
    return hsk_get32(head) == RECORD_MAGIC && hsk_get64(head + 8) == epoch &&
           hsk_get64(head + 16) == rp->log->next_seq &&
           (type == TYPE_GO_ON ||
            (npages > 0 &&
             (type == TYPE_DISCARD || (type == TYPE_WRITE && npages <= HSK_LOG_RECORD_PAGES))));
}

/* One record at off: its whole length, 0 if there is no valid record, or a negative errno. */
static int64_t replay_record(struct replay *rp, int fd, uint32_t number, uint64_t epoch,
                             uint64_t off, uint64_t size, bool *last)
{
    uint8_t head[HEADER_BYTES], want[16];
    size_t bytes;
    if (!hsk_range_ok(off, HEADER_BYTES, size))
        return 0;
    int r = hsk_pread_all(fd, head, sizeof(head), off);
    if (r < 0)
        return r;
    if (!possible(rp, head, epoch, &bytes) || !hsk_range_ok(off + HEADER_BYTES, bytes, size))
        return 0;
    r = bytes == 0 ? 0 : hsk_pread_all(fd, rp->buf, bytes, off + HEADER_BYTES);
    if (r < 0)
        return r;
    seal(head, rp->buf, bytes, want);
    if (memcmp(want, head + 48, 16) != 0)
        return 0;
    uint32_t type = hsk_get32(head + 4);
    uint64_t loc = type == TYPE_DISCARD ? HSK_LOC_HOLE : make_loc(number, off + HEADER_BYTES);
    *last = type == TYPE_GO_ON;
    if (*last ? !rp->to->go_on(rp->to->opaque, head + 24, number + 1, rp->log->next_seq + 1)
              : !rp->to->pages(rp->to->opaque, hsk_get32(head + 24), hsk_get64(head + 32),
                               hsk_get32(head + 28), loc))
        return 0;
    rp->log->next_seq++;
    return (int64_t)(HEADER_BYTES + bytes);
}

/* Replays one file and cuts off what is not whole. *bytes: what is left, 0 if it does not continue
 * the files before it. */
static int replay_file(struct replay *rp, int fd, uint32_t number, uint64_t *bytes)
{
    uint8_t head[HEADER_BYTES], want[16];
    struct stat st;
    *bytes = 0;
    if (fstat(fd, &st) < 0)
        return -errno;
    uint64_t size = (uint64_t)st.st_size;
    if (size < HEADER_BYTES)
        return 0;
    int r = hsk_pread_all(fd, head, sizeof(head), 0);
    if (r < 0)
        return r;
    seal(head, NULL, 0, want);
    if (memcmp(head, "HVALOG1", 8) != 0 || hsk_get32(head + 8) != number ||
        memcmp(want, head + 48, 16) != 0 || hsk_get64(head + 24) != rp->log->next_seq)
        return 0;
    uint64_t off = HEADER_BYTES;
    for (bool last = false; !last;) {
        int64_t n = replay_record(rp, fd, number, hsk_get64(head + 16), off, size, &last);
        if (n < 0)
            return (int)n;
        if (n == 0)
            break;
        off += (uint64_t)n;
    }
    *bytes = off;
    return ftruncate(fd, (off_t)off) < 0 ? -errno : 0;
}

static gint by_number(gconstpointer a, gconstpointer b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static GArray *list_files(int dirfd)
{
    g_autofree char *path = g_strdup_printf("/proc/self/fd/%d/log", dirfd);
    GArray *numbers = g_array_new(FALSE, FALSE, sizeof(uint32_t));
    g_autoptr(GDir) dir = g_dir_open(path, 0, NULL);
    const char *name;
    while (dir != NULL && (name = g_dir_read_name(dir)) != NULL) {
        guint64 v;
        if (g_ascii_string_to_unsigned(name, 10, 1, MAX_NUMBER - 1, &v, NULL)) {
            uint32_t n = (uint32_t)v;
            g_array_append_val(numbers, n);
        }
    }
    g_array_sort(numbers, by_number);
    return numbers;
}

bool hsk_log_recover(struct hsk_log *log, const struct hsk_log_replay *replay, GError **error)
{
    g_autoptr(GArray) numbers = list_files(log->dirfd);
    g_autofree uint8_t *buf = g_malloc((size_t)HSK_LOG_RECORD_PAGES * HSK_PAGE_SIZE);
    struct replay rp = {log, replay, buf};
    bool stop = false;
    for (guint i = 0; i < numbers->len; i++) {
        uint32_t number = g_array_index(numbers, uint32_t, i);
        char name[32];
        file_name(name, number);
        log->next_number = MAX(log->next_number, number + 1);
        if (number < log->first || stop) {
            unlinkat(log->dirfd, name, 0);
            continue;
        }
        HSK_AUTOFD fd = openat(log->dirfd, name, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
        uint64_t bytes = 0;
        int r = fd < 0 ? -errno : replay_file(&rp, fd, number, &bytes);
        if (r < 0)
            return hsk_io_error(error, r, "read %s of %s", name, log->label);
        if (bytes > 0) {
            add_file(log, number, hsk_steal_fd(&fd), bytes);
        } else {
            stop = true;
            unlinkat(log->dirfd, name, 0);
        }
    }
    /* What was cut off must stay cut off before anything new is written behind it. */
    log->names_synced = false;
    int r = hsk_log_flush(log);
    return r == 0 || hsk_io_error(error, r, "write the log of %s", log->label);
}
