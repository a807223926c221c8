/* SPDX-License-Identifier: MIT */
/*
 * Writing a new document: path.unfinished, sync, rename. Disks go into segments in disk order, holes as
 * hole frames, so that `cat disks/root/... | zstd -d` gives the raw disk back. The file is the
 * owner's alone: it will hold a computer's memory. One thread.
 */
#include <errno.h>
#include <inttypes.h>
#include <sodium.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "doc.h"

enum { CHUNK_BYTES = 128 << 10 };

struct creation {
    const struct hsk_create *c;
    struct hsk_manifest *manifest;
    struct hsk_tar_sink sink;
    struct hsk_root *root;
    GByteArray *maps;
    uint32_t map_number;
    bool (*progress)(void *opaque, double fraction);
    void *opaque;
    uint64_t done_bytes, all_bytes;
};

static void segment_done(void *opaque, const char *name, const struct hsk_segment_id *id,
                         const uint8_t hash[HSK_HASH_BYTES])
{
    struct creation *n = opaque;
    hsk_root_set(n->root, name, hash, id);
}

static bool put(struct creation *n, const char *name, const void *data, size_t bytes,
                GError **error)
{
    uint8_t hash[HSK_HASH_BYTES];
    if (!hsk_sink_put(&n->sink.sink, name, data, bytes, hash, error))
        return false;
    hsk_root_set(n->root, name, hash, NULL);
    return true;
}

static bool put_file(struct creation *n, const char *name, int fd, GError **error)
{
    uint8_t hash[HSK_HASH_BYTES];
    struct stat st;
    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size == 0) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_FAILED,
                    "what shall become %s is empty or not a file", name);
        return false;
    }
    struct hsk_member m = {.fd = fd, .size = (uint64_t)st.st_size};
    if (!hsk_sink_copy(&n->sink.sink, name, &m, hash, error))
        return false;
    hsk_root_set(n->root, name, hash, NULL);
    return true;
}

/* One disk on its way into segments. */
struct disk_writer {
    struct creation *n;
    struct hsk_segment_writer *writer;
    struct hsk_pagemap *map;
    uint64_t hole; /* bytes of hole that wait before the next frame */
};

static bool flush_hole(struct disk_writer *w, GError **error)
{
    while (w->hole > 0) {
        uint32_t bytes = (uint32_t)MIN(w->hole, HSK_HOLE_MAX_BYTES);
        if (!hsk_segment_writer_add_hole(w->writer, bytes, error))
            return false;
        w->hole -= bytes;
    }
    return true;
}

static bool write_chunk(struct disk_writer *w, uint64_t off, const uint8_t *buf, size_t bytes,
                        GError **error)
{
    uint32_t segment = 0, frame = 0;
    bool any = false;
    for (size_t i = 0; i < bytes; i += HSK_PAGE_SIZE)
        any |= !hsk_page_is_zero(buf + i);
    if (!any) {
        w->hole += bytes;
        return true;
    }
    if (!flush_hole(w, error) ||
        !hsk_segment_writer_add(w->writer, buf, bytes, &segment, &frame, error))
        return false;
    for (uint32_t i = 0; i < bytes / HSK_PAGE_SIZE; i++) {
        if (!hsk_page_is_zero(buf + (size_t)i * HSK_PAGE_SIZE) &&
            !hsk_pagemap_set(w->map, off / HSK_PAGE_SIZE + i, hsk_entry(segment, frame, i), error))
            return false;
    }
    return true;
}

/* Where data may begin at or after off; size if there is none. */
static uint64_t next_data(int fd, uint64_t off, uint64_t size)
{
    off_t d = fd < 0 ? -1 : lseek(fd, (off_t)off, SEEK_DATA);
    if (d < 0)
        return fd >= 0 && errno != ENXIO ? off : size;
    return MIN((uint64_t)d / CHUNK_BYTES * CHUNK_BYTES, size);
}

static bool report(struct creation *n, GError **error)
{
    if (n->progress == NULL ||
        n->progress(n->opaque,
                    n->all_bytes == 0 ? 1.0 : (double)n->done_bytes / (double)n->all_bytes))
        return true;
    g_set_error(error, HSK_ERROR, HSK_ERROR_FAILED, "stopped; nothing was written");
    return false;
}

static bool copy_disk(struct disk_writer *w, int fd, uint64_t file_size, uint64_t size,
                      GError **error)
{
    struct creation *n = w->n;
    g_autofree uint8_t *buf = g_malloc(CHUNK_BYTES);
    uint64_t before = n->done_bytes;
    for (uint64_t off = 0; off < size;) {
        uint64_t data = off < file_size ? next_data(fd, off, size) : size;
        hsk_assert(data >= off);
        w->hole += data - off;
        off = data;
        size_t bytes = MIN(CHUNK_BYTES, size - off),
               have = off < file_size ? MIN(bytes, file_size - off) : 0;
        if (have > 0) {
            int r = hsk_pread_all(fd, buf, have, off);
            if (r < 0)
                return hsk_io_error(error, r, "read the disk image");
            memset(buf + have, 0, bytes - have);
            if (!write_chunk(w, off, buf, bytes, error))
                return false;
            off += bytes;
        }
        n->done_bytes = before + off;
        if (!report(n, error))
            return false;
    }
    return flush_hole(w, error) && hsk_segment_writer_finish(w->writer, error);
}

static bool add_disk(struct creation *n, unsigned index, GError **error)
{
    const struct hsk_manifest_disk *d = &n->manifest->disks[index];
    int fd = n->c->disk_fds != NULL ? n->c->disk_fds[index] : -1;
    struct stat st = {0};
    if (fd >= 0 &&
        (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || (uint64_t)st.st_size > d->size_bytes)) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_FAILED,
                    "the image of disk %s is not a file or larger than the disk", d->id);
        return false;
    }
    g_autofree char *folder = g_strconcat("disks/", d->id, NULL);
    g_autofree char *name = hsk_disk_object_name(d);
    HSK_AUTO(hsk_segment_writer, writer) =
        hsk_segment_writer_new(&n->sink.sink, folder, n->c->level != 0 ? n->c->level : 3,
                               &n->root->next_number, segment_done, n);
    struct hsk_map_source nothing = {.label = d->id};
    struct hsk_object o = {.size_bytes = d->size_bytes};
    HSK_AUTO(hsk_pagemap, map) = hsk_pagemap_new(&nothing, NULL, d->size_bytes / HSK_PAGE_SIZE);
    struct disk_writer w = {.n = n, .writer = writer, .map = map};
    struct hsk_map_writer maps = {n->map_number, n->maps};
    g_strlcpy(o.name, name, sizeof(o.name));
    if (!copy_disk(&w, fd, (uint64_t)st.st_size, d->size_bytes, error) ||
        !hsk_pagemap_write(map, &maps, &o.root, error))
        return false;
    hsk_objects_set(n->root->present, &o);
    return true;
}

static bool add_members(struct creation *n, GError **error)
{
    static const char mime[] = "application/vnd.haversack.appliance";
    const struct hsk_create *c = n->c;
    g_autofree char *manifest = hsk_manifest_format(n->manifest, error);
    if (manifest == NULL)
        return false;
    if (!put(n, "mimetype", mime, sizeof(mime) - 1, error) ||
        !put(n, "manifest.json", manifest, strlen(manifest), error) ||
        (c->icon_png != NULL && !put(n, "icon.png", c->icon_png, c->icon_bytes, error)) ||
        (c->readme != NULL && !put(n, "README.md", c->readme, strlen(c->readme), error)) ||
        (n->manifest->has_kernel && !put_file(n, "boot/kernel", c->kernel_fd, error)) ||
        (n->manifest->has_initrd && !put_file(n, "boot/initrd", c->initrd_fd, error)))
        return false;
    n->map_number = n->root->next_number++;
    for (unsigned i = 0; i < n->manifest->ndisks; i++) {
        if (!add_disk(n, i, error))
            return false;
    }
    char name[32];
    snprintf(name, sizeof(name), "map/%06u", n->map_number);
    return n->maps->len == 0 || put(n, name, n->maps->data, n->maps->len, error);
}

static bool write_document(struct creation *n, GError **error)
{
    bool committed;
    if (!add_members(n, error))
        return false;
    n->root->generation = 1;
    g_autofree char *text = hsk_root_format(n->root);
    uint8_t hash[HSK_HASH_BYTES];
    hsk_hash(text, strlen(text), hash);
    return hsk_trust_mark(n->root->document, hash, NULL, error) &&
           hsk_tar_sink_commit(&n->sink, text, 1, &committed, error);
}

/* A document that somebody has open is not replaced. */
static bool check_target(const char *path, bool replace, GError **error)
{
    HSK_AUTOFD fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return errno == ENOENT || hsk_io_error(error, errno, "replace %s", path);
    if (!replace) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_FAILED, "%s exists already", path);
        return false;
    }
    if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_BUSY, "%s is open; close it first", path);
        return false;
    }
    return true;
}

static bool move_into_place(const struct hsk_io *io, int dirfd, const char *tmp, const char *name,
                            bool replace, const char *path, GError **error)
{
    int r;
    if (replace) {
        r = hsk_io_rename(io, dirfd, tmp, name);
    } else {
        /* File systems without links (FAT) get a plain rename after the check above. */
        r = hsk_io_link(dirfd, tmp, name);
        if (r == -EOPNOTSUPP)
            r = hsk_io_rename(io, dirfd, tmp, name);
        else if (r == 0)
            unlinkat(dirfd, tmp, 0);
    }
    if (r == 0)
        r = hsk_io_sync(io, dirfd);
    return r == 0 || hsk_io_error(error, r, "write %s", path);
}

bool hsk_doc_create_io(const char *path, const struct hsk_create *c, bool replace,
                       bool (*progress)(void *opaque, double fraction), void *opaque,
                       const struct hsk_io *io, GError **error)
{
    if (sodium_init() < 0 || !check_target(path, replace, error))
        return false;
    g_autofree char *folder = g_path_get_dirname(path);
    g_autofree char *name = g_path_get_basename(path);
    g_autofree char *tmp = g_strconcat(name, HSK_UNFINISHED, NULL);
    HSK_AUTOFD dirfd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dirfd < 0)
        return hsk_io_error(error, errno, "write to the folder %s", folder);
    HSK_AUTOFD fd = hsk_io_create(io, dirfd, tmp);
    if (fd < 0)
        return hsk_io_error(error, fd, "write %s", path);
    /* Not one that somebody left behind: hsk_target_tidy lets it be. */
    if (flock(fd, LOCK_EX | LOCK_NB) < 0)
        return hsk_io_error(error, errno, "lock %s", path);
    struct creation n = {.c = c,
                         .manifest = hsk_manifest_copy(c->manifest),
                         .maps = g_byte_array_new(),
                         .progress = progress,
                         .opaque = opaque};
    n.root = hsk_root_new(n.manifest->uuid);
    for (unsigned i = 0; i < n.manifest->ndisks; i++)
        n.all_bytes += n.manifest->disks[i].size_bytes;
    hsk_tar_sink_init(&n.sink, io, fd, path);
    bool ok =
        write_document(&n, error) && move_into_place(io, dirfd, tmp, name, replace, path, error);
    if (!ok)
        unlinkat(dirfd, tmp, 0);
    hsk_root_free(n.root);
    hsk_manifest_free(n.manifest);
    g_byte_array_unref(n.maps);
    return ok;
}

bool hsk_doc_create(const char *path, const struct hsk_create *c, bool replace,
                    bool (*progress)(void *opaque, double fraction), void *opaque, GError **error)
{
    return hsk_doc_create_io(path, c, replace, progress, opaque, NULL, error);
}
