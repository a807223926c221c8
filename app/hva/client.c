/* SPDX-License-Identifier: MIT */
/* Talking to the keepers of running machines: see client.h. */
#include "client.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "common/rundir.h"
#include "common/values.h"
#include "common/wire.h"

#define ANSWER_MAX_BYTES (128u << 20)

struct hsk_client {
    int fd;
    GByteArray *in;
    json_t *info;
};

void hsk_client_free(struct hsk_client *c)
{
    if (!c)
        return;
    if (c->fd >= 0)
        close(c->fd);
    g_byte_array_unref(c->in);
    json_decref(c->info);
    g_free(c);
}

static bool gone(GError **error)
{
    g_set_error(error, HSK_ERROR, HSK_ERROR_FAILED, "the machine ended before it answered");
    return false;
}

/* One line, taken out of the buffer; NULL + error. */
static char *read_line(struct hsk_client *c, GError **error)
{
    size_t seen = 0;

    for (;;) {
        uint8_t *end =
            c->in->len > seen ? memchr(c->in->data + seen, '\n', c->in->len - seen) : NULL;
        uint8_t buf[65536];

        if (end) {
            guint len = (guint)(end - c->in->data);
            char *line = g_strndup((const char *)c->in->data, len);
            g_byte_array_remove_range(c->in, 0, len + 1);
            return line;
        }
        seen = c->in->len;
        ssize_t n = recv(c->fd, buf, sizeof(buf), 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0 || c->in->len > ANSWER_MAX_BYTES) {
            gone(error);
            return NULL;
        }
        g_byte_array_append(c->in, buf, (guint)n);
    }
}

static bool send_all(struct hsk_client *c, const char *text, GError **error)
{
    for (size_t at = 0, len = strlen(text); at < len;) {
        ssize_t n = send(c->fd, text + at, len - at, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return gone(error);
        at += (size_t)n;
    }
    return true;
}

/* Events that come before the answer go to event, or (NULL) nowhere. */
static json_t *read_answer(struct hsk_client *c, void (*event)(void *opaque, const json_t *e),
                           void *opaque, GError **error)
{
    for (;;) {
        g_autofree char *line = read_line(c, error);
        if (!line)
            return NULL;
        json_t *r = json_loads(line, JSON_REJECT_DUPLICATES, NULL);
        if (!json_is_object(r)) {
            json_decref(r);
            g_set_error(error, HSK_ERROR, HSK_ERROR_FAILED,
                        "the machine gave an answer that is none");
            return NULL;
        }
        if (!json_object_get(r, "event"))
            return r;
        if (event)
            event(opaque, r);
        json_decref(r);
    }
}

json_t *hsk_client_ask(struct hsk_client *c, const char *cmd, json_t *args, GError **error)
{
    return hsk_client_ask_long(c, cmd, args, NULL, NULL, error);
}

json_t *hsk_client_ask_long(struct hsk_client *c, const char *cmd, json_t *args,
                            void (*event)(void *opaque, const json_t *e), void *opaque,
                            GError **error)
{
    json_t *q = json_pack("{s:i, s:s}", "id", 1, "cmd", cmd);

    if (args)
        json_object_update_missing(q, args);
    json_decref(args);
    char *text = json_dumps(q, JSON_COMPACT);
    json_decref(q);
    g_autofree char *line = g_strconcat(text, "\n", NULL);
    free(text);
    if (!send_all(c, line, error))
        return NULL;
    json_t *r = read_answer(c, event, opaque, error);
    if (!r)
        return NULL;
    if (!hsk_json_bool(r, "ok")) {
        g_set_error_literal(error, HSK_ERROR, hsk_error_from_word(hsk_json_str(r, "code", "")),
                            hsk_json_str(r, "error", "the machine refused"));
        json_decref(r);
        return NULL;
    }
    json_object_del(r, "id");
    json_object_del(r, "ok");
    return r;
}

static struct hsk_client *connect_to(const char *dir)
{
    const struct timeval patience = {.tv_sec = 5}, for_ever = {0};
    int fd = hsk_rundir_connect(dir, "control", SOCK_STREAM);

    if (fd < 0)
        return NULL;
    struct hsk_client *c = g_new0(struct hsk_client, 1);
    c->fd = fd;
    c->in = g_byte_array_new();
    /* A keeper that hangs must not hang `hva ps`; operations may take long. */
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    c->info = hsk_client_ask(c, "info", NULL, NULL);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &for_ever, sizeof(for_ever));
    if (c->info)
        return c;
    hsk_client_free(c);
    return NULL;
}

struct hsk_client *hsk_client_find(const char *machine, GError **error)
{
    g_auto(GStrv) dirs = hsk_rundir_list();
    /* Its file may be gone. */
    g_autofree char *absolute = g_canonicalize_filename(machine, NULL);
    char *real = realpath(machine, NULL);
    const char *path = real ? real : absolute;
    struct hsk_client *found = NULL, *named = NULL;
    unsigned n_named = 0;
    struct stat st;
    bool is_file = stat(path, &st) == 0;

    for (char **d = dirs; *d; d++) {
        struct hsk_client *c = connect_to(*d);
        if (!c)
            continue;
        /* Under this name, or under another: linked, mounted twice, renamed while it runs. */
        bool same = is_file &&
                    hsk_json_int(c->info, "device", -1) == (json_int_t)st.st_dev &&
                    hsk_json_int(c->info, "inode", -1) == (json_int_t)st.st_ino;
        bool by_name = strcmp(hsk_json_str(c->info, "name", ""), machine) == 0 ||
                       (strlen(machine) >= 4 &&
                        g_str_has_prefix(hsk_json_str(c->info, "instance", ""), machine));
        if (same || (!found && strcmp(hsk_json_str(c->info, "path", ""), path) == 0)) {
            hsk_client_free(found);
            found = c;
            if (same)
                break;
        } else if (by_name) {
            n_named++;
            hsk_client_free(named);
            named = c;
        } else {
            hsk_client_free(c);
        }
    }
    free(real);
    if (found || n_named <= 1) {
        if (found)
            hsk_client_free(named);
        return found ? found : named;
    }
    hsk_client_free(named);
    g_set_error(error, HSK_ERROR, HSK_ERROR_USAGE,
                "%u running machines are called \"%s\"; give the path of the document", n_named,
                machine);
    return NULL;
}

struct hsk_client *hsk_client_need(const char *machine, GError **error)
{
    GError *failed = NULL;
    struct hsk_client *c = hsk_client_find(machine, &failed);

    if (c)
        return c;
    if (failed)
        g_propagate_error(error, failed);
    else if (g_file_test(machine, G_FILE_TEST_EXISTS))
        g_set_error(error, HSK_ERROR, HSK_ERROR_NOT_FOUND,
                    "%s is not running; start it with \"hva run\" first", machine);
    else
        g_set_error(
            error, HSK_ERROR, HSK_ERROR_NOT_FOUND,
            "there is neither a file nor a running machine \"%s\"; \"hva ps\" lists what runs",
            machine);
    return NULL;
}

void hsk_client_wait_end(struct hsk_client *c)
{
    char *line;

    while ((line = read_line(c, NULL)))
        g_free(line);
}

int hsk_client_steal(struct hsk_client *c)
{
    return hsk_steal_fd(&c->fd);
}

const json_t *hsk_client_info(const struct hsk_client *c)
{
    return c->info;
}

json_t *hsk_client_all(void)
{
    g_auto(GStrv) dirs = hsk_rundir_list();
    json_t *all = json_array();

    for (char **d = dirs; *d; d++) {
        HSK_AUTO(hsk_client, c) = connect_to(*d);
        if (c)
            json_array_append(all, c->info);
    }
    return all;
}
