/* SPDX-License-Identifier: MIT */
/* Finding and starting the keeper of a document (launch.h). */
#include "launch.h"

#include <errno.h>
#include <gio/gio.h>
#include <jansson.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include "common/rundir.h"
#include "common/values.h"

#define SEARCH_AGAIN_MS 100
#define ANSWER_SECONDS  1
#define MAX_LINE        65536

struct hsk_launch {
    char *file;         /* absolute, links resolved */
    const char *option; /* or NULL */
    hsk_launch_done_fn done;
    void *opaque;
    GCancellable *cancel;
    GSubprocess *keeper;
    int keeper_errors; /* memfd that is its standard error */
    bool keeper_ended;
    guint timer;
};

static void search(struct hsk_launch *l);

/* ---- searching, on a worker thread ---- */

static json_t *ask_info(const char *instance_dir)
{
    static const char question[] = "{\"id\":1,\"cmd\":\"info\"}\n";
    const struct timeval patience = {.tv_sec = ANSWER_SECONDS};
    HSK_AUTOFD fd = hsk_rundir_connect(instance_dir, "control", SOCK_STREAM);
    g_autofree char *line = g_malloc(MAX_LINE);
    size_t len = 0;

    if (fd < 0)
        return NULL;
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
    if (send(fd, question, sizeof(question) - 1, MSG_NOSIGNAL) != sizeof(question) - 1)
        return NULL;
    while (len < MAX_LINE) {
        ssize_t n = recv(fd, line + len, MAX_LINE - len, 0);
        const char *end;

        if (n <= 0)
            return NULL;
        len += (size_t)n;
        end = memchr(line, '\n', len);
        if (end)
            return json_loadb(line, (size_t)(end - line), JSON_REJECT_DUPLICATES, NULL);
    }
    return NULL;
}

static bool has_document(const char *instance_dir, const char *file)
{
    json_t *info = ask_info(instance_dir);
    const char *path = json_string_value(json_object_get(info, "path"));
    char *real = path ? realpath(path, NULL) : NULL;
    bool same = real && !strcmp(real, file);

    free(real);
    json_decref(info);
    return same;
}

static void search_thread(GTask *task, gpointer source, gpointer data, GCancellable *cancel)
{
    const char *file = data;
    g_auto(GStrv) instances = hsk_rundir_list();

    for (char **i = instances; *i && !g_cancellable_is_cancelled(cancel); i++) {
        if (has_document(*i, file)) {
            g_task_return_pointer(task, g_strdup(*i), g_free);
            return;
        }
    }
    g_task_return_pointer(task, NULL, NULL);
}

/* ---- the rest, on the GTK thread ---- */

static void finish(struct hsk_launch *l, const char *instance_dir, const char *error)
{
    g_clear_handle_id(&l->timer, g_source_remove);
    l->done(l->opaque, instance_dir, error);
}

static gboolean on_timer(gpointer opaque)
{
    struct hsk_launch *l = opaque;

    l->timer = 0;
    search(l);
    return G_SOURCE_REMOVE;
}

char *hsk_launch_words(const struct hsk_launch *l)
{
    char buf[4096];
    ssize_t n = l->keeper_errors >= 0 ? pread(l->keeper_errors, buf, sizeof(buf) - 1, 0) : 0;
    g_auto(GStrv) lines = NULL;
    GString *words = g_string_new(NULL);

    buf[MAX(n, 0)] = 0;
    lines = g_strsplit(buf, "\n", 0);
    for (char **line = lines; *line; line++) {
        const char *text = g_str_has_prefix(*line, "hva: ") ? *line + 5 : *line;

        if (*text)
            g_string_append_printf(words, "%s%s", words->len ? "\n" : "", text);
    }
    return g_string_free(words, FALSE);
}

/* The last that hva said before it gave up. */
static char *last_words(const struct hsk_launch *l)
{
    g_autofree char *words = hsk_launch_words(l);
    const char *last = strrchr(words, '\n');

    last = last ? last + 1 : words;
    return g_strdup(*last ? last : "The machine could not be started and did not say why.");
}

static void on_keeper_ended(GObject *source, GAsyncResult *result, gpointer opaque)
{
    g_autoptr(GError) error = NULL;
    struct hsk_launch *l = opaque;

    g_subprocess_wait_finish(G_SUBPROCESS(source), result, &error);
    if (g_error_matches(error, G_IO_ERROR, G_IO_ERROR_CANCELLED))
        return;
    /* The next search still finds a machine that somebody else has started meanwhile. */
    l->keeper_ended = true;
}

static void own_session(gpointer data)
{
    setsid();
}

static bool start_keeper(struct hsk_launch *l, GError **error)
{
    g_autofree char *self = g_file_read_link("/proc/self/exe", error);
    g_autoptr(GSubprocessLauncher) launcher =
        g_subprocess_launcher_new(G_SUBPROCESS_FLAGS_STDOUT_SILENCE);
    g_autofree char *folder = NULL, *program = NULL;

    if (!self)
        return false;
    folder = g_path_get_dirname(self);
    program = g_build_filename(folder, "hva", NULL);
    /* Not a pipe: the machine may outlive this window and must not die of a closed one. */
    l->keeper_errors = memfd_create("hva-errors", MFD_CLOEXEC);
    if (l->keeper_errors < 0) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_FAILED, "Cannot start the machine: %s.",
                    g_strerror(errno));
        return false;
    }
    g_subprocess_launcher_take_stderr_fd(launcher, fcntl(l->keeper_errors, F_DUPFD_CLOEXEC, 3));
    g_subprocess_launcher_set_child_setup(launcher, own_session, NULL, NULL);
    l->keeper = g_subprocess_launcher_spawn(launcher, error, program, "run", "--no-window",
                                            "--serial", "null", l->file, l->option, NULL);
    if (!l->keeper)
        return false;
    g_subprocess_wait_async(l->keeper, l->cancel, on_keeper_ended, l);
    return true;
}

static void on_searched(GObject *source, GAsyncResult *result, gpointer opaque)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *instance = g_task_propagate_pointer(G_TASK(result), &error);
    struct hsk_launch *l = opaque;

    if (g_error_matches(error, G_IO_ERROR, G_IO_ERROR_CANCELLED))
        return;
    if (instance) {
        finish(l, instance, NULL);
    } else if (l->keeper && l->keeper_ended) {
        g_autofree char *sentence = last_words(l);

        finish(l, NULL, sentence);
    } else if (!l->keeper && !start_keeper(l, &error)) {
        finish(l, NULL, error->message);
    } else {
        l->timer = g_timeout_add(SEARCH_AGAIN_MS, on_timer, l);
    }
}

static void search(struct hsk_launch *l)
{
    g_autoptr(GTask) task = g_task_new(NULL, l->cancel, on_searched, l);

    g_task_set_task_data(task, g_strdup(l->file), g_free);
    g_task_run_in_thread(task, search_thread);
}

bool hsk_launch_undecided(const struct hsk_launch *l)
{
    return l->keeper_ended && g_subprocess_get_if_exited(l->keeper) &&
           g_subprocess_get_exit_status(l->keeper) == HSK_EXIT_UNDECIDED;
}

struct hsk_launch *hsk_launch_new(const char *file, const char *option, hsk_launch_done_fn done,
                                  void *opaque)
{
    struct hsk_launch *l = g_new0(struct hsk_launch, 1);
    char *real = realpath(file, NULL);

    l->file = g_strdup(real ? real : file);
    free(real);
    l->option = option;
    l->done = done;
    l->opaque = opaque;
    l->cancel = g_cancellable_new();
    l->keeper_errors = -1;
    search(l);
    return l;
}

void hsk_launch_free(struct hsk_launch *l)
{
    if (!l)
        return;
    g_cancellable_cancel(l->cancel);
    g_object_unref(l->cancel);
    g_clear_handle_id(&l->timer, g_source_remove);
    g_clear_object(&l->keeper);
    if (l->keeper_errors >= 0)
        close(l->keeper_errors);
    g_free(l->file);
    g_free(l);
}
