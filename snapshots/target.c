/* SPDX-License-Identifier: MIT */
/*
 * A document that is written whole, in place of another or as a new one: path.unfinished, synced by
 * whoever writes it, then renamed, so that there is the old file or the new one. One thread.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "doc.h"

void hsk_target_clear(struct hsk_target *t)
{
    if (t->fd >= 0) {
        /* While it is locked: afterwards it may be somebody else's. */
        unlinkat(t->dirfd, t->tmp, 0);
        close(t->fd);
    }
    if (t->dirfd >= 0)
        close(t->dirfd);
    g_free(t->tmp);
    g_free(t->name);
}

bool hsk_target_open(struct hsk_target *t, const char *path, const struct hsk_io *io,
                     GError **error)
{
    g_autofree char *folder = g_path_get_dirname(path);
    t->path = path;
    t->name = g_path_get_basename(path);
    t->tmp = g_strconcat(t->name, HSK_UNFINISHED, NULL);
    t->dirfd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (t->dirfd < 0)
        return hsk_io_error(error, errno, "write to the folder %s", folder);
    t->fd = hsk_io_create_locked(io, t->dirfd, t->tmp);
    if (t->fd == -EWOULDBLOCK) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_BUSY,
                    "%s is being written just now; wait until it is there, or use another name",
                    path);
        return false;
    }
    return t->fd >= 0 || hsk_io_error(error, t->fd, "write %s", path);
}

bool hsk_target_finish(struct hsk_target *t, const struct hsk_io *io, GError **error)
{
    /* It took long: there may be something under that name by now. */
    if (t->is_new && faccessat(t->dirfd, t->name, F_OK, AT_SYMLINK_NOFOLLOW) == 0) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_FAILED, "%s exists already", t->path);
        return false;
    }
    int r = hsk_io_rename(io, t->dirfd, t->tmp, t->name);
    if (r == 0) {
        close(t->fd);
        t->fd = -1;
        r = hsk_io_sync(io, t->dirfd);
    }
    return r == 0 || hsk_io_error(error, r, "write %s", t->path);
}

/* What begins as a document, or with nothing yet. */
static bool is_unfinished(int fd)
{
    static const uint8_t nothing[512];
    uint8_t head[512] = {0};
    struct stat st;
    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) ||
        (st.st_size > 0 && hsk_pread_all(fd, head, MIN((size_t)st.st_size, sizeof(head)), 0) < 0))
        return false;
    return memcmp(head, nothing, sizeof(head)) == 0 || strcmp((char *)head, "mimetype") == 0;
}

void hsk_target_tidy(const char *path)
{
    g_autofree char *tmp = g_strconcat(path, HSK_UNFINISHED, NULL);
    HSK_AUTOFD fd = open(tmp, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0 && is_unfinished(fd))
        unlink(tmp);
}
