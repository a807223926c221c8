/* SPDX-License-Identifier: MIT */
/* Where running machines are found: see rundir.h. */
#include "common/rundir.h"

#include <errno.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

static bool make_private(const char *dir, bool make, GError **error)
{
    struct stat st;

    if (make && mkdir(dir, 0700) < 0 && errno != EEXIST) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_FAILED, "cannot make the folder %s: %s", dir,
                    g_strerror(errno));
        return false;
    }
    if (lstat(dir, &st) < 0) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_NOT_FOUND, "there is no folder %s: %s", dir,
                    g_strerror(errno));
        return false;
    }
    if (!S_ISDIR(st.st_mode) || st.st_uid != getuid() || (st.st_mode & 077)) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_FAILED,
                    "%s is not a folder that only you can use; remove it or set XDG_RUNTIME_DIR",
                    dir);
        return false;
    }
    return true;
}

char *hsk_rundir_base(bool make, GError **error)
{
    const char *given = g_getenv("XDG_RUNTIME_DIR");
    /* Without one GLib names the cache folder, where "haversack" holds other things that are not
     * private. */
    g_autofree char *dir = g_build_filename(
        g_get_user_runtime_dir(), given && given[0] ? "haversack" : "haversack-run", NULL);

    if (make)
        g_mkdir_with_parents(g_get_user_runtime_dir(), 0700);
    return make_private(dir, make, error) ? g_steal_pointer(&dir) : NULL;
}

char *hsk_rundir_make(const char *instance, GError **error)
{
    g_autofree char *base = hsk_rundir_base(true, error);
    if (!base)
        return NULL;
    g_autofree char *dir = g_build_filename(base, instance, NULL);
    return make_private(dir, true, error) ? g_steal_pointer(&dir) : NULL;
}

char **hsk_rundir_list(void)
{
    g_autofree char *base = hsk_rundir_base(false, NULL);
    g_autoptr(GDir) dir = base ? g_dir_open(base, 0, NULL) : NULL;
    GPtrArray *list = g_ptr_array_new();

    for (const char *name; dir && (name = g_dir_read_name(dir));)
        g_ptr_array_add(list, g_build_filename(base, name, NULL));
    g_ptr_array_add(list, NULL);
    return (char **)g_ptr_array_free(list, FALSE);
}

/* A socket's address has room for 107 bytes, a folder's name for more: the way is by the folder's
 * descriptor. */
static int address(const char *dir, const char *name, struct sockaddr_un *sa)
{
    int fd = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);

    *sa = (struct sockaddr_un){.sun_family = AF_UNIX};
    snprintf(sa->sun_path, sizeof(sa->sun_path), "/proc/self/fd/%d/%s", fd, name);
    return fd;
}

int hsk_rundir_listen(const char *dir, const char *name, int type, GError **error)
{
    struct sockaddr_un sa;
    HSK_AUTOFD at = address(dir, name, &sa);
    HSK_AUTOFD sock = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (at >= 0)
        unlinkat(at, name, 0);
    if (at < 0 || sock < 0 || bind(sock, (struct sockaddr *)&sa, sizeof(sa)) < 0 ||
        listen(sock, 16) < 0) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_FAILED, "cannot listen on %s/%s: %s", dir, name,
                    g_strerror(errno));
        return -1;
    }
    return hsk_steal_fd(&sock);
}

int hsk_rundir_connect(const char *dir, const char *name, int type)
{
    struct sockaddr_un sa;
    HSK_AUTOFD at = address(dir, name, &sa);
    HSK_AUTOFD sock = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);

    if (at < 0 || sock < 0 || connect(sock, (struct sockaddr *)&sa, sizeof(sa)) < 0 ||
        !hsk_peer_is_us(sock))
        return -1;
    return hsk_steal_fd(&sock);
}

bool hsk_peer_is_us(int sock)
{
    struct ucred cred;
    socklen_t len = sizeof(cred);

    return getsockopt(sock, SOL_SOCKET, SO_PEERCRED, &cred, &len) == 0 && cred.uid == getuid();
}
