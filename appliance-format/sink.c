/* SPDX-License-Identifier: MIT */
/*
 * Writing members: a tar made from nothing, a tar appended to, files of a directory (carrier.h).
 *
 * The append protocol: `end` is the first zero block of the archive. Everything goes behind it,
 * except the block that belongs exactly there, which is kept in memory; after a sync that one block
 * is written and synced. A tar reader sees the old archive or the new one. One thread.
 */
#include <appliance-format/carrier.h>
#include <appliance-format/tar.h>

#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <sys/stat.h>

enum { MAX_UNSYNCED = 64 /* of files that are held open */ };

static struct hsk_tar_sink *tar_sink(struct hsk_sink *s)
{
    return (struct hsk_tar_sink *)(void *)((char *)s - offsetof(struct hsk_tar_sink, sink));
}
static struct hsk_dir_sink *dir_sink(struct hsk_sink *s)
{
    return (struct hsk_dir_sink *)(void *)((char *)s - offsetof(struct hsk_dir_sink, sink));
}

/* Big members start at a multiple of 4096 (mmap, reflink), by a pax comment in front of their
 * header. */
static bool wants_alignment(const char *name)
{
    return g_str_has_prefix(name, "disks/") || g_str_has_prefix(name, "data/") ||
           g_str_has_prefix(name, "boot/");
}

static bool tar_write(struct hsk_tar_sink *t, const void *buf, size_t len, uint64_t off,
                      GError **error)
{
    if (t->append && off == t->start && len > 0) {
        hsk_assert(len >= HSK_TAR_BLOCK && !t->have_commit_block);
        memcpy(t->commit_block, buf, HSK_TAR_BLOCK);
        t->have_commit_block = true;
        buf = (const uint8_t *)buf + HSK_TAR_BLOCK;
        len -= HSK_TAR_BLOCK;
        off += HSK_TAR_BLOCK;
    }
    int r = len == 0 ? 0 : hsk_io_pwrite(t->sink.io, t->fd, buf, len, off);
    return r == 0 || hsk_io_error(error, r, "write %s", t->sink.label);
}

static bool tar_begin(struct hsk_sink *s, const char *name, int *fd, uint64_t *base, GError **error)
{
    struct hsk_tar_sink *t = tar_sink(s);
    hsk_assert(hsk_tar_name_ok(name) && t->name[0] == '\0');
    t->data = t->pos + HSK_TAR_BLOCK;
    if (wants_alignment(name) && t->data % HSK_PAGE_SIZE != 0) {
        uint8_t block[HSK_PAGE_SIZE + 2 * HSK_TAR_BLOCK];
        uint64_t data =
            (t->pos + 3 * HSK_TAR_BLOCK + HSK_PAGE_SIZE - 1) / HSK_PAGE_SIZE * HSK_PAGE_SIZE;
        size_t body = data - t->pos - 2 * HSK_TAR_BLOCK;
        hsk_tar_header(block, "PaxHeaders/padding", 'x', body);
        hsk_tar_padding(block + HSK_TAR_BLOCK, body);
        if (!tar_write(t, block, HSK_TAR_BLOCK + body, t->pos, error))
            return false;
        t->pos = data - HSK_TAR_BLOCK;
        t->data = data;
    }
    g_strlcpy(t->name, name, sizeof(t->name));
    *fd = t->fd;
    *base = t->data;
    return true;
}

static bool tar_end(struct hsk_sink *s, uint64_t size, GError **error)
{
    struct hsk_tar_sink *t = tar_sink(s);
    static const uint8_t zeros[HSK_TAR_BLOCK];
    uint8_t header[HSK_TAR_BLOCK];
    hsk_assert(t->name[0] != '\0');
    if (size >= 1ull << 33) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_UNSUPPORTED, "%s: %s would be larger than 8 GiB",
                    s->label, t->name);
        return false;
    }
    hsk_tar_header(header, t->name, '0', size);
    uint64_t end = t->data + size;
    size_t pad = (HSK_TAR_BLOCK - end % HSK_TAR_BLOCK) % HSK_TAR_BLOCK;
    if (!tar_write(t, header, sizeof(header), t->pos, error) ||
        !tar_write(t, zeros, pad, end, error))
        return false;
    t->pos = end + pad;
    t->name[0] = '\0';
    return true;
}

void hsk_tar_sink_init(struct hsk_tar_sink *s, const struct hsk_io *io, int fd, const char *label)
{
    *s = (struct hsk_tar_sink){.sink = {io, label, tar_begin, tar_end}, .fd = fd};
}

bool hsk_tar_sink_init_append(struct hsk_tar_sink *s, const struct hsk_io *io, int fd, uint64_t end,
                              const char *label, GError **error)
{
    *s = (struct hsk_tar_sink){.sink = {io, label, tar_begin, tar_end},
                               .fd = fd,
                               .pos = end,
                               .start = end,
                               .append = true};
    /* an append that never came to its commit, or the padding of a re-packed archive */
    int r = hsk_io_truncate(io, fd, end + HSK_TAR_BLOCK);
    return r == 0 || hsk_io_error(error, r, "write %s", label);
}

static void make_tail(uint8_t t[512], const struct hsk_tar_sink *s, uint64_t generation,
                      uint64_t root, uint64_t root_bytes, uint64_t tail)
{
    memset(t, 0, 512);
    memcpy(t, "HVATAIL1", 8);
    hsk_put32(t + 8, 1);
    hsk_put64(t + 16, generation);
    hsk_put64(t + 24, root);
    hsk_put64(t + 32, root_bytes);
    hsk_put64(t + 40, tail);
    hsk_put64(t + 48, s->append ? s->start : 0);
    hsk_put64(t + 56, tail + 512 + 1024);
    hsk_hash(t, 480, t + 480);
}

bool hsk_tar_sink_commit(struct hsk_tar_sink *s, const char *root, uint64_t generation,
                         bool *committed, GError **error)
{
    static const uint8_t zeros[2 * HSK_TAR_BLOCK];
    uint8_t tail[512];
    *committed = false;
    if (!hsk_sink_put(&s->sink, "ROOT", root, strlen(root), NULL, error))
        return false;
    uint64_t root_data = s->data;
    if (s->signature != NULL &&
        !hsk_sink_put(&s->sink, "ROOT.minisig", s->signature, strlen(s->signature), NULL, error))
        return false;
    make_tail(tail, s, generation, root_data, strlen(root), s->pos + HSK_TAR_BLOCK);
    if (!hsk_sink_put(&s->sink, "TAIL", tail, sizeof(tail), NULL, error) ||
        !tar_write(s, zeros, sizeof(zeros), s->pos, error))
        return false;
    int r = hsk_io_sync(s->sink.io, s->fd);
    if (r == 0 && s->append) {
        *committed = true;
        r = hsk_io_pwrite(s->sink.io, s->fd, s->commit_block, HSK_TAR_BLOCK, s->start);
        if (r == 0)
            r = hsk_io_sync(s->sink.io, s->fd);
    }
    if (r == 0)
        *committed = true;
    return r == 0 || hsk_io_error(error, r, "write %s", s->sink.label);
}

void hsk_tar_sink_abort(struct hsk_tar_sink *s)
{
    static const uint8_t zeros[2 * HSK_TAR_BLOCK];
    hsk_assert(s->append);
    /* Best effort: with the commit block still zero the archive is whole either way. */
    if (ftruncate(s->fd, (off_t)(s->start + HSK_TAR_BLOCK)) == 0)
        (void)!hsk_pwrite_all(s->fd, zeros, sizeof(zeros), s->start);
}

static bool dir_begin(struct hsk_sink *s, const char *name, int *fd, uint64_t *base, GError **error)
{
    struct hsk_dir_sink *d = dir_sink(s);
    hsk_assert(hsk_tar_name_ok(name) && d->fd < 0);
    for (const char *p = strchr(name, '/'); p != NULL; p = strchr(p + 1, '/')) {
        g_autofree char *folder = g_strndup(name, (gsize)(p - name));
        if (mkdirat(d->dirfd, folder, 0700) == 0)
            d->made_folder = true;
        else if (errno != EEXIST)
            return hsk_io_error(error, errno, "make the folder %s in %s", folder, s->label);
    }
    d->fd = hsk_io_create(s->io, d->dirfd, name);
    if (d->fd < 0)
        return hsk_io_error(error, d->fd, "make %s in %s", name, s->label);
    g_ptr_array_add(d->written, g_strdup(name));
    *fd = d->fd;
    *base = 0;
    return true;
}

/* Syncs the files from the oldest on until so many are left. */
static bool dir_sync_files(struct hsk_dir_sink *d, guint left, GError **error)
{
    int r = 0;
    while (d->unsynced->len > left && r == 0) {
        int fd = g_array_index(d->unsynced, int, 0);
        r = hsk_io_sync(d->sink.io, fd);
        close(fd);
        g_array_remove_index(d->unsynced, 0);
    }
    return r == 0 || hsk_io_error(error, r, "write %s", d->sink.label);
}

/* The first sync of several files that are on their way to the disk already pays for all of them:
 * a file system commits its journal once. */
static bool dir_end(struct hsk_sink *s, uint64_t size, GError **error)
{
    struct hsk_dir_sink *d = dir_sink(s);
    (void)sync_file_range(d->fd, 0, 0, SYNC_FILE_RANGE_WRITE); /* begins; only a sync says more */
    g_array_append_val(d->unsynced, d->fd);
    d->fd = -1;
    return dir_sync_files(d, MAX_UNSYNCED, error);
}

void hsk_dir_sink_init(struct hsk_dir_sink *s, const struct hsk_io *io, int dirfd,
                       const char *label)
{
    *s = (struct hsk_dir_sink){.sink = {io, label, dir_begin, dir_end},
                               .dirfd = dirfd,
                               .fd = -1,
                               .written = g_ptr_array_new_with_free_func(g_free),
                               .unsynced = g_array_new(FALSE, FALSE, sizeof(int))};
}

bool hsk_dir_sink_sync(struct hsk_dir_sink *s, GError **error)
{
    g_autoptr(GHashTable) folders = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    for (guint i = 0; i < s->written->len; i++)
        g_hash_table_add(folders, g_path_get_dirname(g_ptr_array_index(s->written, i)));
    if (s->made_folder)
        g_hash_table_add(folders, g_strdup("."));
    if (!dir_sync_files(s, 0, error))
        return false;
    GHashTableIter it;
    gpointer name;
    g_hash_table_iter_init(&it, folders);
    while (g_hash_table_iter_next(&it, &name, NULL)) {
        HSK_AUTOFD fd = openat(s->dirfd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        int r = fd < 0 ? -errno : hsk_io_sync(s->sink.io, fd);
        if (r < 0)
            return hsk_io_error(error, r, "write %s", s->sink.label);
    }
    return true;
}

void hsk_dir_sink_abort(struct hsk_dir_sink *s)
{
    for (guint i = 0; i < s->written->len; i++)
        unlinkat(s->dirfd, g_ptr_array_index(s->written, i), 0);
}

void hsk_dir_sink_finish(struct hsk_dir_sink *s)
{
    if (s->fd >= 0)
        close(s->fd);
    s->fd = -1;
    for (guint i = 0; i < s->unsynced->len; i++)
        close(g_array_index(s->unsynced, int, i));
    g_clear_pointer(&s->unsynced, g_array_unref);
    g_clear_pointer(&s->written, g_ptr_array_unref);
}

bool hsk_sink_put(struct hsk_sink *s, const char *name, const void *buf, size_t len,
                  uint8_t hash[HSK_HASH_BYTES], GError **error)
{
    int fd;
    uint64_t base;
    if (!s->begin(s, name, &fd, &base, error))
        return false;
    int r = len == 0 ? 0 : hsk_io_pwrite(s->io, fd, buf, len, base);
    if (r < 0)
        return hsk_io_error(error, r, "write %s in %s", name, s->label);
    if (hash != NULL)
        hsk_hash(buf, len, hash);
    return s->end(s, len, error);
}

bool hsk_sink_copy(struct hsk_sink *s, const char *name, const struct hsk_member *from,
                   uint8_t hash[HSK_HASH_BYTES], GError **error)
{
    int fd;
    uint64_t base;
    if (!s->begin(s, name, &fd, &base, error))
        return false;
    g_autofree uint8_t *buf = g_malloc(1u << 20);
    crypto_generichash_state st;
    crypto_generichash_init(&st, NULL, 0, HSK_HASH_BYTES);
    for (uint64_t off = 0; off < from->size;) {
        size_t n = MIN(from->size - off, 1u << 20);
        int r = hsk_member_read(from, off, buf, n);
        if (r < 0)
            return hsk_io_error(error, r, "read %s", name);
        r = hsk_io_pwrite(s->io, fd, buf, n, base + off);
        if (r < 0)
            return hsk_io_error(error, r, "write %s in %s", name, s->label);
        crypto_generichash_update(&st, buf, n);
        off += n;
    }
    crypto_generichash_final(&st, hash, HSK_HASH_BYTES);
    return s->end(s, from->size, error);
}
