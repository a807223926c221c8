/* SPDX-License-Identifier: MIT */
/*
 * An open document goes on in another file: its last committed generation is copied as it is, byte
 * for byte, also when the old file has no name any more; its instance follows. Publishing appends
 * the rest there. The old file stays open until the document is closed, for other threads read in
 * it.
 *
 * The copy has the ROOT that the instance continues, so after a crash in between it is found by
 * whichever of the two files is still there. Threads: as hsk_version_commit.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "doc.h"

#define PIECE (1u << 20)

struct hsk_left {
    char *path;
    int fd;
};

void hsk_left_free(gpointer left)
{
    struct hsk_left *l = left;
    close(l->fd);
    g_free(l->path);
    g_free(l);
}

static bool copy_bytes(struct hsk_doc *doc, const struct hsk_target *t,
                       bool (*progress)(void *opaque, double fraction), void *opaque,
                       GError **error)
{
    g_autofree uint8_t *piece = g_malloc(PIECE);
    struct stat st;
    if (fstat(doc->fd, &st) < 0)
        return hsk_io_error(error, errno, "read %s", doc->path);
    const uint64_t all = (uint64_t)st.st_size;
    for (uint64_t at = 0, n; at < all; at += n) {
        n = MIN(all - at, PIECE);
        int r = hsk_pread_all(doc->fd, piece, n, at);
        if (r < 0)
            return hsk_io_error(error, r, "read %s", doc->path);
        r = hsk_io_pwrite(doc->io, t->fd, piece, n, at);
        if (r < 0)
            return hsk_io_error(error, r, "write %s", t->path);
        if (progress != NULL && !progress(opaque, (double)(at + n) / (double)all)) {
            g_set_error(error, HSK_ERROR, HSK_ERROR_CANCELLED,
                        "writing %s was stopped; nothing has changed", t->path);
            return false;
        }
    }
    int r = hsk_io_sync(doc->io, t->fd);
    return r == 0 || hsk_io_error(error, r, "write %s", t->path);
}

/* From here on it is that file. */
static void change_over(struct hsk_doc *doc, char *path, int fd)
{
    struct hsk_left *l = g_new(struct hsk_left, 1);
    g_mutex_lock(&doc->lock);
    g_mutex_lock(&doc->disk_lock);
    *l = (struct hsk_left){.path = doc->path, .fd = doc->fd};
    doc->path = path;
    doc->fd = fd;
    doc->fd_writable = true;
    g_mutex_unlock(&doc->disk_lock);
    g_mutex_unlock(&doc->lock);
    (void)flock(l->fd, LOCK_UN); /* whoever still finds it may open it */
    if (doc->left == NULL)
        doc->left = g_ptr_array_new_with_free_func(hsk_left_free);
    g_ptr_array_add(doc->left, l);
}

static bool go_there(struct hsk_doc *doc, struct hsk_target *t, GError **error)
{
    HSK_AUTOFD fd = fcntl(t->fd, F_DUPFD_CLOEXEC, 3);
    HSK_AUTO(hsk_carrier, base) = NULL;
    HSK_AUTO(hsk_root, root) = NULL;
    uint8_t hash[HSK_HASH_BYTES];
    if (fd < 0)
        return hsk_io_error(error, errno, "write %s", t->path);
    if (!hsk_doc_load_base(fd, t->path, &base, &root, hash, error))
        return false;
    if (memcmp(hash, doc->base_hash, sizeof(hash)) != 0)
        return hsk_damaged(error, t->path, "it is not what was written there");
    if (!hsk_target_finish(t, doc->io, error))
        return false;
    char *real = realpath(t->path, NULL);
    change_over(doc, g_strdup(real != NULL ? real : t->path), hsk_steal_fd(&fd));
    free(real);
    return hsk_doc_adopt_base(doc, g_steal_pointer(&base), g_steal_pointer(&root), hash, error);
}

bool hsk_doc_move(struct hsk_doc *doc, const char *out,
                  bool (*progress)(void *opaque, double fraction), void *opaque, GError **error)
{
    struct hsk_target t = HSK_NO_TARGET;
    hsk_assert(!doc->readonly);
    if (g_file_test(out, G_FILE_TEST_EXISTS)) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_FAILED, "%s exists already", out);
        return false;
    }
    bool ok = hsk_doc_look_again(doc, error) && hsk_target_open(&t, out, doc->io, error) &&
              copy_bytes(doc, &t, progress, opaque, error) && go_there(doc, &t, error);
    hsk_target_clear(&t);
    return ok;
}

const char *hsk_doc_path(const struct hsk_doc *doc)
{
    return doc->path;
}
