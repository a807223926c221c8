/* SPDX-License-Identifier: MIT */
/*
 * An open document goes on in another file: its last committed generation is copied as it is, byte
 * for byte, also when the old file has no name any more; its instance follows. Publishing appends
 * the rest there. The old file stays open until the document is closed, for other threads read in
 * it.
 *
 * What comes before the end of the archive never changes while we have it open, so it is copied
 * beside everything else; what was appended meanwhile comes at the end, when nobody appends.
 *
 * The copy has the ROOT that the instance continues, so after a crash in between it is found by
 * whichever of the two files is still there. Threads: as store.h says.
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

struct hsk_move {
    struct hsk_doc *doc;
    char *label, *out; /* where it is read from, for errors; where to */
    int from;          /* the document keeps it open */
    uint64_t end;      /* of the archive at the beginning */
    struct hsk_target target;
};

struct hsk_move *hsk_move_begin(struct hsk_doc *doc, const char *out, GError **error)
{
    hsk_assert(!doc->readonly);
    if (g_file_test(out, G_FILE_TEST_EXISTS)) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_FAILED, "%s exists already", out);
        return NULL;
    }
    HSK_AUTO(hsk_move, m) = g_new0(struct hsk_move, 1);
    m->doc = doc;
    m->label = g_strdup(doc->path);
    m->out = g_strdup(out);
    m->target = (struct hsk_target)HSK_NO_TARGET;
    m->target.is_new = true;
    if (!hsk_doc_look_again(doc, error) || !hsk_target_open(&m->target, m->out, doc->io, error))
        return NULL;
    m->from = doc->fd;
    m->end = hsk_carrier_tar_end(doc->base);
    return g_steal_pointer(&m);
}

void hsk_move_free(struct hsk_move *m)
{
    if (m == NULL)
        return;
    hsk_target_clear(&m->target);
    g_free(m->label);
    g_free(m->out);
    g_free(m);
}

static bool copy_bytes(struct hsk_move *m, int from, uint64_t at, uint64_t end,
                       bool (*progress)(void *opaque, double fraction), void *opaque,
                       GError **error)
{
    g_autofree uint8_t *piece = g_malloc(PIECE);
    for (uint64_t n; at < end; at += n) {
        n = MIN(end - at, PIECE);
        int r = hsk_pread_all(from, piece, n, at);
        if (r < 0)
            return hsk_io_error(error, r, "read %s", m->label);
        r = hsk_io_pwrite(m->doc->io, m->target.fd, piece, n, at);
        if (r < 0)
            return hsk_io_error(error, r, "write %s", m->out);
        if (progress != NULL && !progress(opaque, (double)(at + n) / (double)end)) {
            g_set_error(error, HSK_ERROR, HSK_ERROR_CANCELLED,
                        "writing %s was stopped; nothing has changed", m->out);
            return false;
        }
    }
    int r = hsk_io_sync(m->doc->io, m->target.fd);
    return r == 0 || hsk_io_error(error, r, "write %s", m->out);
}

bool hsk_move_copy(struct hsk_move *m, bool (*progress)(void *opaque, double fraction),
                   void *opaque, GError **error)
{
    return copy_bytes(m, m->from, 0, m->end, progress, opaque, error);
}

static bool copy_rest(struct hsk_move *m, GError **error)
{
    struct stat st;
    if (fstat(m->doc->fd, &st) < 0)
        return hsk_io_error(error, errno, "read %s", m->label);
    return copy_bytes(m, m->doc->fd, m->end, (uint64_t)st.st_size, NULL, NULL, error);
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

bool hsk_move_finish(struct hsk_move *m, GError **error)
{
    return hsk_doc_look_again(m->doc, error) && copy_rest(m, error) &&
           go_there(m->doc, &m->target, error);
}

const char *hsk_doc_path(const struct hsk_doc *doc)
{
    return doc->path;
}
