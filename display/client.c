/* SPDX-License-Identifier: MIT */
/*
 * A window's end of the surface protocol (client.h). The mapping is read-only and covers only the
 * picture's pages. A memfd that could shrink is refused: reading behind its new end would kill the
 * window with SIGBUS.
 */
#include <display/client.h>

#include <errno.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>

struct hsk_display_client {
    int sock;
    const struct hsk_display_client_ops *ops;
    void *opaque;
    bool greeted;
    void *map;
    size_t map_bytes;
    struct hsk_display_view view;
    bool have_surface;
    uint32_t generation;
    uint32_t unacked_seq; /* 0: none */
    bool owe_ack, owe_release, owe_visible;
    bool visible;
};

static bool send_msg(struct hsk_display_client *c, struct hsk_display_msg *msg)
{
    msg->size_bytes = hsk_display_msg_size(msg->type);
    return send(c->sock, msg, msg->size_bytes, MSG_DONTWAIT | MSG_NOSIGNAL) ==
           (ssize_t)msg->size_bytes;
}

struct hsk_display_client *
hsk_display_client_new(int sock, const struct hsk_display_client_ops *ops, void *opaque)
{
    struct hsk_display_client *c = g_new0(struct hsk_display_client, 1);
    struct hsk_display_msg hello = {
        .type = HSK_DISPLAY_HELLO,
        .hello = {.magic = HSK_DISPLAY_MAGIC, .version = HSK_DISPLAY_VERSION},
    };

    c->sock = sock;
    c->ops = ops;
    c->opaque = opaque;
    /* A machine that is gone already shows in dispatch. */
    (void)send_msg(c, &hello);
    return c;
}

static void drop_map(struct hsk_display_client *c)
{
    if (c->map)
        munmap(c->map, c->map_bytes);
    c->map = NULL;
    memset(&c->view, 0, sizeof(c->view));
}

void hsk_display_client_free(struct hsk_display_client *c)
{
    if (!c)
        return;
    drop_map(c);
    close(c->sock);
    g_free(c);
}

int hsk_display_client_fd(const struct hsk_display_client *c)
{
    return c->sock;
}

struct hsk_display_view hsk_display_client_view(const struct hsk_display_client *c)
{
    return c->view;
}

static bool broken(GError **error, const char *what)
{
    g_set_error(error, HSK_ERROR, HSK_ERROR_FAILED,
                "The machine's screen connection is broken: %s.", what);
    return false;
}

static bool take_surface(struct hsk_display_client *c, const struct hsk_display_msg *msg, int fd,
                         GError **error)
{
    const uint64_t page_mask = (uint64_t)sysconf(_SC_PAGESIZE) - 1;
    uint64_t start = msg->surface.offset & ~page_mask;
    uint64_t end = msg->surface.offset +
                   (uint64_t)msg->surface.stride_bytes * (msg->surface.height - 1) +
                   (uint64_t)msg->surface.width * 4;
    struct stat st;
    void *map;
    int seals;

    if (fd < 0)
        return broken(error, "a picture without memory");
    seals = fcntl(fd, F_GET_SEALS);
    if (seals < 0 || !(seals & F_SEAL_SHRINK))
        return broken(error, "the picture's memory could shrink");
    if (fstat(fd, &st) || st.st_size < 0 ||
        !hsk_display_surface_ok((uint64_t)st.st_size, msg->surface.offset, msg->surface.width,
                                msg->surface.height, msg->surface.stride_bytes,
                                msg->surface.format))
        return broken(error, "a picture outside its memory");
    map = mmap(NULL, end - start, PROT_READ, MAP_SHARED, fd, (off_t)start);
    if (map == MAP_FAILED)
        return broken(error, g_strerror(errno));

    drop_map(c);
    c->map = map;
    c->map_bytes = end - start;
    c->generation = msg->surface.generation;
    c->have_surface = true;
    c->view.width = msg->surface.width;
    c->view.height = msg->surface.height;
    c->view.stride_bytes = msg->surface.stride_bytes;
    if (!msg->surface.blank)
        c->view.pixels = (const uint8_t *)map + (msg->surface.offset - start);
    if (c->ops->surface)
        c->ops->surface(c->opaque);
    return true;
}

static bool take_dirty(struct hsk_display_client *c, const struct hsk_display_msg *msg,
                       GError **error)
{
    struct hsk_display_rect rects[HSK_DISPLAY_MAX_RECTS];
    unsigned n = 0;

    if (!c->have_surface || !msg->dirty.seq || c->unacked_seq)
        return broken(error, "rectangles out of turn");
    c->unacked_seq = msg->dirty.seq;
    for (uint32_t i = 0; i < msg->dirty.count && msg->dirty.generation == c->generation; i++) {
        struct hsk_display_rect r = msg->dirty.rects[i];

        if (r.x >= c->view.width || r.y >= c->view.height)
            continue;
        r.width = MIN(r.width, c->view.width - r.x);
        r.height = MIN(r.height, c->view.height - r.y);
        rects[n++] = r;
    }
    if (n && c->ops->dirty)
        c->ops->dirty(c->opaque, rects, n);
    else
        hsk_display_client_ack(c);
    return true;
}

static bool take_msg(struct hsk_display_client *c, const struct hsk_display_msg *msg, size_t len,
                     int fd, GError **error)
{
    if (!hsk_display_msg_check(msg, len, true))
        return broken(error, "a message it must not send");
    if (c->greeted == (msg->type == HSK_DISPLAY_HELLO))
        return broken(error, "a greeting out of turn");
    switch (msg->type) {
    case HSK_DISPLAY_HELLO:
        if (msg->hello.version != HSK_DISPLAY_VERSION)
            return broken(error, "the machine was started by another version of Haversack");
        c->greeted = true;
        return true;
    case HSK_DISPLAY_SURFACE:
        return take_surface(c, msg, fd, error);
    case HSK_DISPLAY_DIRTY:
        return take_dirty(c, msg, error);
    case HSK_DISPLAY_LED:
        if (c->ops->leds)
            c->ops->leds(c->opaque, msg->led.leds);
        return true;
    case HSK_DISPLAY_MODE:
        if (c->ops->mode)
            c->ops->mode(c->opaque, msg->mode.absolute);
        return true;
    default: /* STATE: the check lets nothing else through */
        if (c->ops->state)
            c->ops->state(c->opaque, (enum hsk_display_state)msg->state.state);
        return true;
    }
}

bool hsk_display_client_dispatch(struct hsk_display_client *c, GError **error)
{
    /* A machine that floods must not keep the window from drawing. */
    for (int i = 0; i < 64; i++) {
        struct hsk_display_msg msg;
        HSK_AUTOFD fd = -1;
        unsigned nfds = 1;
        ssize_t len = hsk_recv_fds(c->sock, &msg, sizeof(msg), &fd, &nfds, MSG_DONTWAIT);

        if (!nfds)
            fd = -1;
        if (len == -EAGAIN || len == -EINTR)
            return true;
        if (len == 0 || len == -ECONNRESET || len == -EPIPE)
            return false;
        if (len < 0)
            return broken(error, g_strerror((int)-len));
        if (!take_msg(c, &msg, (size_t)len, fd, error))
            return false;
    }
    return true;
}

bool hsk_display_client_backlog(const struct hsk_display_client *c)
{
    return c->owe_ack || c->owe_release || c->owe_visible;
}

void hsk_display_client_flush(struct hsk_display_client *c)
{
    struct hsk_display_msg msg = {.type = HSK_DISPLAY_RELEASE_ALL};

    if (c->owe_release)
        c->owe_release = !send_msg(c, &msg);
    if (c->owe_visible) {
        msg = (struct hsk_display_msg){.type = HSK_DISPLAY_VISIBLE,
                                       .visible = {.visible = c->visible}};
        c->owe_visible = !send_msg(c, &msg);
    }
    if (c->owe_ack) {
        msg = (struct hsk_display_msg){.type = HSK_DISPLAY_ACK, .ack = {.seq = c->unacked_seq}};
        c->owe_ack = !send_msg(c, &msg);
        if (!c->owe_ack)
            c->unacked_seq = 0;
    }
}

void hsk_display_client_ack(struct hsk_display_client *c)
{
    c->owe_ack = c->unacked_seq != 0;
    hsk_display_client_flush(c);
}

void hsk_display_client_release_all(struct hsk_display_client *c)
{
    c->owe_release = true;
    hsk_display_client_flush(c);
}

void hsk_display_client_set_visible(struct hsk_display_client *c, bool visible)
{
    if (c->visible == visible && !c->owe_visible)
        return;
    c->visible = visible;
    c->owe_visible = true;
    hsk_display_client_flush(c);
}

/* Input keeps its order: nothing overtakes a "release all" that is still owed. */
static bool send_input(struct hsk_display_client *c, struct hsk_display_msg *msg)
{
    hsk_display_client_flush(c);
    return !c->owe_release && send_msg(c, msg);
}

void hsk_display_client_key(struct hsk_display_client *c, uint16_t code, bool down)
{
    struct hsk_display_msg msg = {.type = HSK_DISPLAY_KEY, .key = {.code = code, .down = down}};

    if (!send_input(c, &msg))
        c->owe_release = true;
}

void hsk_display_client_pointer_abs(struct hsk_display_client *c, uint16_t x, uint16_t y,
                                    uint32_t buttons)
{
    struct hsk_display_msg msg = {.type = HSK_DISPLAY_PTR_ABS,
                                  .ptr_abs = {.x = x, .y = y, .buttons = buttons}};

    (void)send_input(c, &msg);
}

void hsk_display_client_pointer_rel(struct hsk_display_client *c, int16_t dx, int16_t dy,
                                    uint32_t buttons)
{
    struct hsk_display_msg msg = {.type = HSK_DISPLAY_PTR_REL,
                                  .ptr_rel = {.dx = dx, .dy = dy, .buttons = buttons}};

    (void)send_input(c, &msg);
}

void hsk_display_client_wheel(struct hsk_display_client *c, int32_t clicks_120)
{
    struct hsk_display_msg msg = {.type = HSK_DISPLAY_WHEEL, .wheel = {.clicks_120 = clicks_120}};

    (void)send_input(c, &msg);
}

void hsk_display_client_size_hint(struct hsk_display_client *c, uint32_t width, uint32_t height)
{
    struct hsk_display_msg msg = {.type = HSK_DISPLAY_SIZE_HINT,
                                  .size_hint = {.width = width, .height = height}};

    (void)send_input(c, &msg);
}
