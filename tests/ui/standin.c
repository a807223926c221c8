/* SPDX-License-Identifier: MIT */
/*
 * A stand-in for `hva run --no-window --serial null FILE`: control and display sockets as a keeper
 * has them, a test picture instead of a machine. The window's tests use it as the hva beside
 * haversack.
 *
 * The picture is 640x400: all in the colour of the present (black at first, another one after each
 * snapshot), a bar that moves along the bottom 16 lines, and a white square 32x32 at (16 * code %
 * 624, 100) for each key that is held. What arrives is written to $STANDIN_LOG, a line each. FILE's
 * name makes it misbehave: "refuse" does not start, "stubborn" fails its first stop, "cold" says
 * something at its start, "readonly" cannot write its document when it closes; the command "die"
 * plays a crash of the machine. One thread.
 */
#include <base/loop.h>
#include <display/server.h>

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#define W            640u
#define H            400u
#define BAR_TOP      384u
#define SIZE         (W * H * 4)
#define MAX_CONN     8
#define MAX_VERSIONS 32

struct standin;

struct conn {
    struct standin *s;
    int fd; /* -1: free */
    bool subscribed;
    GString *in;
};

struct version {
    char *title;
    bool before_revert;
    uint32_t colour;
};

struct standin {
    struct hsk_loop *loop;
    struct hsk_timer *bar_timer;
    struct hsk_display_server *server;
    FILE *log;
    char *file, *dir;
    bool paused, failed_stop, stopping;
    int memfd;
    uint32_t *px;
    uint8_t written[SIZE / HSK_PAGE_SIZE + 1];
    uint32_t colour, bar_x;
    uint8_t held[HSK_DISPLAY_KEY_MAX + 1];
    struct version versions[MAX_VERSIONS];
    unsigned nversions, current, undo_to; /* numbers from 1, 0: none */
    struct conn conns[MAX_CONN];
    int control, display;
};

static void G_GNUC_PRINTF(2, 3) note(struct standin *s, const char *format, ...)
{
    va_list args;

    if (!s->log)
        return;
    va_start(args, format);
    vfprintf(s->log, format, args);
    va_end(args);
    fputc('\n', s->log);
    fflush(s->log);
}

/* ---- picture ---- */

static void fill(struct standin *s, uint32_t x, uint32_t y, uint32_t w, uint32_t h, uint32_t colour)
{
    for (uint32_t row = y; row < y + h; row++) {
        for (uint32_t column = x; column < x + w; column++)
            s->px[row * W + column] = colour;
        for (uint64_t b = (row * W + x) * 4; b < (row * W + x + w) * 4 + HSK_PAGE_SIZE - 1;
             b += HSK_PAGE_SIZE)
            s->written[MIN(b, (row * W + x + w) * 4 - 1) / HSK_PAGE_SIZE] = 1;
    }
}

static void paint_all(struct standin *s)
{
    fill(s, 0, 0, W, H, s->colour);
    for (uint32_t code = 0; code <= HSK_DISPLAY_KEY_MAX; code++)
        if (s->held[code])
            fill(s, 16 * code % 608, 100, 32, 32, 0xffffff);
}

static void on_bar(void *opaque)
{
    struct standin *s = opaque;

    if (!s->paused) {
        fill(s, s->bar_x, BAR_TOP, 16, 16, s->colour);
        s->bar_x = (s->bar_x + 16) % W;
        fill(s, s->bar_x, BAR_TOP, 16, 16, 0x00ff00);
    }
    hsk_timer_arm(s->bar_timer, (uint64_t)g_get_monotonic_time() * 1000 + 50000000);
}

static void collect(void *opaque, uint8_t *bitmap, size_t bytes)
{
    struct standin *s = opaque;

    for (size_t i = 0; i < SIZE / HSK_PAGE_SIZE; i++) {
        bitmap[i / 8] |= (uint8_t)(s->written[i] << (i % 8));
        s->written[i] = 0;
    }
}

static void on_key(void *opaque, uint16_t code, bool down)
{
    struct standin *s = opaque;

    note(s, "key %u %s", code, down ? "down" : "up");
    s->held[code] = down;
    paint_all(s);
}

static void on_pointer(void *opaque, uint16_t x, uint16_t y, uint8_t buttons)
{
    note(opaque, "pointer %u %u %u", x, y, buttons);
}

static void on_wheel(void *opaque, int16_t clicks)
{
    note(opaque, "wheel %d", clicks);
}

static void on_release_all(void *opaque)
{
    struct standin *s = opaque;

    note(s, "release-all");
    memset(s->held, 0, sizeof(s->held));
    paint_all(s);
}

static const struct hsk_display_server_ops server_ops = {
    .collect = collect,
    .key = on_key,
    .pointer_abs = on_pointer,
    .wheel = on_wheel,
    .release_all = on_release_all,
};

/* ---- control socket ---- */

static void send_line(struct conn *c, json_t *object)
{
    char *line = json_dumps(object, JSON_COMPACT);
    g_autofree char *text = g_strconcat(line, "\n", NULL);

    free(line);
    json_decref(object);
    if (send(c->fd, text, strlen(text), MSG_NOSIGNAL) < 0)
        note(c->s, "send: %s", g_strerror(errno));
}

static void tell(struct standin *s, json_t *event)
{
    for (int i = 0; i < MAX_CONN; i++)
        if (s->conns[i].fd >= 0 && s->conns[i].subscribed)
            send_line(&s->conns[i], json_incref(event));
    json_decref(event);
}

static json_t *info(struct standin *s)
{
    return json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s}", "name", "Stand-in", "uuid", "0",
                     "engine", "none", "engine_note", "the stand-in's engine", "state",
                     s->paused ? "paused" : "running", "path", s->file, "instance", "standin");
}

static unsigned add_version(struct standin *s, const char *title, bool before_revert)
{
    struct version *v = &s->versions[s->nversions];

    if (s->nversions == MAX_VERSIONS)
        exit(3);
    *v = (struct version){
        .title = g_strdup(title), .before_revert = before_revert, .colour = s->colour};
    return ++s->nversions;
}

static json_t *take_snapshot(struct standin *s, json_t *request)
{
    const char *title = json_string_value(json_object_get(request, "title"));
    g_autofree char *id = NULL;

    s->current = add_version(s, title ? title : "Snapshot", false);
    id = g_strdup_printf("v%u", s->current);
    s->colour = (s->nversions * 0x402010) & 0xffffff;
    paint_all(s);
    tell(s, json_pack("{s:s, s:s, s:s, s:b}", "event", "snapshot", "id", id, "title", title,
                      "durable", 0));
    tell(s, json_pack("{s:s, s:s, s:s, s:b}", "event", "snapshot", "id", id, "title", title,
                      "durable", 1));
    return json_pack("{s:s, s:s, s:i, s:i, s:i}", "id", id, "title", title, "pause_ms", 1,
                     "durable_ms", 2, "bytes_added", 3);
}

/* The windows' screen sockets end, as when a new machine takes over. */
static json_t *go_to(struct standin *s, unsigned number, bool undo)
{
    g_autofree char *id = g_strdup_printf("v%u", number);
    const char *title;

    if (!number || number > s->nversions)
        return NULL;
    if (!s->versions[number - 1].before_revert)
        s->current = number;
    s->undo_to = add_version(s, "Before revert", true);
    title = s->versions[number - 1].title;
    s->colour = s->versions[number - 1].colour;
    hsk_display_server_detach_all(s->server);
    memset(s->held, 0, sizeof(s->held));
    paint_all(s);
    tell(s, json_pack("{s:s, s:s, s:s, s:b}", "event", "reverted", "to", id, "title", title, "undo",
                      undo));
    return json_pack("{s:s, s:s, s:i}", "to", id, "title", title, "pause_ms", 1);
}

static json_t *versions(struct standin *s)
{
    json_t *list = json_array();

    for (unsigned i = 0; i < s->nversions; i++) {
        g_autofree char *id = g_strdup_printf("v%u", i + 1);

        json_array_append_new(list,
                              json_pack("{s:s, s:s, s:s, s:s, s:I, s:s, s:i}", "id", id, "parent",
                                        "", "title", s->versions[i].title, "kind",
                                        s->versions[i].before_revert ? "before-revert" : "user",
                                        "time", (json_int_t)(g_get_real_time() / G_USEC_PER_SEC),
                                        "type", "", "bytes", 1));
    }
    return json_pack("{s:o, s:s}", "versions", list, "current", "");
}

static json_t *set_paused(struct standin *s, bool paused)
{
    s->paused = paused;
    hsk_display_server_set_state(s->server, paused ? HSK_DISPLAY_PAUSED : HSK_DISPLAY_RUNNING);
    tell(s, json_pack("{s:s, s:s}", "event", "state", "state", paused ? "paused" : "running"));
    return json_object();
}

static json_t *stop(struct standin *s, json_t *request)
{
    if (strstr(s->file, "stubborn") && !s->failed_stop &&
        !json_is_true(json_object_get(request, "force"))) {
        s->failed_stop = true;
        return NULL;
    }
    tell(s, json_pack("{s:s, s:s?}", "event", "closing", "text",
                      strstr(s->file, "readonly")
                          ? "everything is saved here, but not yet in the document"
                          : NULL));
    s->stopping = true;
    return json_object();
}

static json_t *act(struct standin *s, struct conn *c, const char *cmd, json_t *request)
{
    const char *to = json_string_value(json_object_get(request, "to"));

    if (!strcmp(cmd, "subscribe"))
        c->subscribed = true;
    if (!strcmp(cmd, "info") || !strcmp(cmd, "subscribe"))
        return info(s);
    if (!strcmp(cmd, "snapshot"))
        return take_snapshot(s, request);
    if (!strcmp(cmd, "log"))
        return versions(s);
    if (!strcmp(cmd, "revert"))
        return go_to(s, to ? (unsigned)atoi(to + 1) : s->current, false);
    if (!strcmp(cmd, "undo"))
        return go_to(s, s->undo_to, true);
    if (!strcmp(cmd, "pause") || !strcmp(cmd, "resume"))
        return set_paused(s, !strcmp(cmd, "pause"));
    if (!strcmp(cmd, "stop"))
        return stop(s, request);
    if (!strcmp(cmd, "die")) {
        hsk_display_server_detach_all(s->server);
        tell(s, json_pack("{s:s, s:s}", "event", "machine-died", "text",
                          "the machine crashed; version 1 is kept"));
        s->stopping = true;
    }
    return json_object();
}

static void take_line(struct conn *c, const char *line)
{
    struct standin *s = c->s;
    json_t *request = json_loads(line, 0, NULL);
    const char *cmd = json_string_value(json_object_get(request, "cmd"));
    json_t *reply = NULL;

    if (cmd && strcmp(cmd, "info"))
        note(s, "cmd %s", line);
    reply = cmd ? act(s, c, cmd, request) : NULL;
    if (reply)
        json_object_set_new(reply, "ok", json_true());
    else
        reply = json_pack("{s:b, s:s, s:s}", "ok", 0, "error", "There is nothing to do that with.",
                          "code", "failed");
    json_object_set_new(reply, "id", json_incref(json_object_get(request, "id")));
    send_line(c, reply);
    json_decref(request);
    if (s->stopping)
        hsk_loop_quit(s->loop);
}

static void on_conn(void *opaque, uint32_t events)
{
    struct conn *c = opaque;
    char buf[4096], *end;
    ssize_t n = recv(c->fd, buf, sizeof(buf), MSG_DONTWAIT);

    if (n <= 0) {
        hsk_loop_unwatch_fd(c->s->loop, c->fd);
        close(c->fd);
        c->fd = -1;
        g_string_free(c->in, TRUE);
        return;
    }
    g_string_append_len(c->in, buf, n);
    while ((end = strchr(c->in->str, '\n'))) {
        g_autofree char *line = g_strndup(c->in->str, (gsize)(end - c->in->str));

        g_string_erase(c->in, 0, end - c->in->str + 1);
        take_line(c, line);
    }
}

static void on_control(void *opaque, uint32_t events)
{
    struct standin *s = opaque;
    int fd = accept4(s->control, NULL, NULL, SOCK_CLOEXEC);

    for (int i = 0; i < MAX_CONN && fd >= 0; i++) {
        if (s->conns[i].fd < 0) {
            s->conns[i] = (struct conn){.s = s, .fd = fd, .in = g_string_new(NULL)};
            hsk_loop_watch_fd(s->loop, fd, EPOLLIN, on_conn, &s->conns[i]);
            return;
        }
    }
}

static void on_display(void *opaque, uint32_t events)
{
    struct standin *s = opaque;
    int fd = accept4(s->display, NULL, NULL, SOCK_CLOEXEC);

    note(s, "screen attached");
    if (fd >= 0)
        hsk_display_server_attach(s->server, fd);
}

static int listen_on(struct standin *s, const char *name, int type)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    g_snprintf(addr.sun_path, sizeof(addr.sun_path), "%s/%s", s->dir, name);
    unlink(addr.sun_path);
    if (fd < 0 || bind(fd, (struct sockaddr *)&addr, sizeof(addr)) || listen(fd, 8)) {
        fprintf(stderr, "standin: %s: %s\n", addr.sun_path, g_strerror(errno));
        exit(1);
    }
    return fd;
}

static void remove_socket(struct standin *s, const char *name)
{
    g_autofree char *path = g_build_filename(s->dir, name, NULL);

    unlink(path);
}

static void start(struct standin *s)
{
    struct hsk_display_surface surface = {
        .fd_size_bytes = SIZE, .width = W, .height = H, .stride_bytes = W * 4};

    s->loop = hsk_loop_new(NULL, NULL);
    s->memfd = surface.fd = hsk_memfd_new("picture", SIZE, NULL);
    s->px = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, s->memfd, 0);
    if (!s->loop || s->px == MAP_FAILED)
        exit(1);
    s->server = hsk_display_server_new(s->loop, &server_ops, s, NULL);
    paint_all(s);
    hsk_display_server_set_surface(s->server, &surface);
    hsk_display_server_set_mode(s->server, true);
    hsk_display_server_set_state(s->server, HSK_DISPLAY_RUNNING);
    s->bar_timer = hsk_timer_new(s->loop, on_bar, s);
    on_bar(s);
    g_mkdir_with_parents(s->dir, 0700);
    s->display = listen_on(s, "display", SOCK_SEQPACKET);
    s->control = listen_on(s, "control", SOCK_STREAM);
    hsk_loop_watch_fd(s->loop, s->display, EPOLLIN, on_display, s);
    hsk_loop_watch_fd(s->loop, s->control, EPOLLIN, on_control, s);
}

int main(int argc, char **argv)
{
    g_autofree struct standin *s = g_new0(struct standin, 1);
    const char *log = getenv("STANDIN_LOG");
    g_autofree char *instance = g_strdup_printf("standin-%d", (int)getpid());

    s->file = realpath(argv[argc - 1], NULL);
    if (!s->file || strstr(s->file, "refuse")) {
        fprintf(stderr, "hva: The appliance is damaged and was left as it is.\n");
        return 1;
    }
    if (strstr(s->file, "cold"))
        fprintf(stderr, "hva: the stand-in's engine\nhva: this machine starts cold\n");
    for (int i = 0; i < MAX_CONN; i++)
        s->conns[i].fd = -1;
    s->log = log ? fopen(log, "a") : NULL;
    s->dir = g_build_filename(g_get_user_runtime_dir(), "haversack", instance, NULL);
    start(s);
    hsk_loop_run(s->loop);
    note(s, "stopped");
    remove_socket(s, "control");
    remove_socket(s, "display");
    rmdir(s->dir);
    return 0;
}
