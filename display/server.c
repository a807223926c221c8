/* SPDX-License-Identifier: MIT */
/*
 * The machine's end of the surface protocol (server.h).
 *
 * What a window must be told is a set of "owed" messages; a socket that is full is watched for
 * room, so nothing blocks and nothing is lost. Damage is collected for all windows at once into one
 * tile set per window, and leaves as one DIRTY in flight per window. The frame timer is a timerfd,
 * not a loop timer: the loop's clock is the guest's.
 */
#include <display/server.h>

#include <errno.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>

#include "tiles.h"

#define MAX_CLIENTS   8
#define FRAME_FAST_NS 16000000ull
#define FRAME_SLOW_NS 50000000ull
#define FRAME_IDLE_NS 100000000ull
#define QUIET_SLOW    30u /* looks without damage until the timer slows down */
#define QUIET_IDLE    80u

enum {
    OWE_HELLO = 1 << 0,
    OWE_SURFACE = 1 << 1,
    OWE_LEDS = 1 << 2,
    OWE_MODE = 1 << 3,
    OWE_STATE = 1 << 4,
    OWE_ALL = (1 << 5) - 1,
};

struct client {
    struct hsk_display_server *server;
    int sock; /* -1: free slot */
    uint32_t owed;
    bool watching_out;
    bool greeted, visible;
    uint32_t inflight_seq; /* 0: none */
    int32_t wheel_rest;
    struct hsk_tiles tiles;
};

struct hsk_display_server {
    struct hsk_loop *loop;
    const struct hsk_display_server_ops *ops;
    void *opaque;
    struct hsk_display_surface surface;
    bool have_surface;
    uint32_t generation, seq;
    uint8_t *bitmap;
    size_t bitmap_bytes;
    uint32_t leds;
    bool absolute;
    enum hsk_display_state state;
    int timer_fd;
    bool armed;
    uint64_t last_look_ns;
    unsigned quiet;  /* looks that found nothing since the picture last moved */
    bool found_last; /* the last look found damage */
    struct client clients[MAX_CLIENTS];
};

static void on_timer(void *opaque, uint32_t events);
static void on_client(void *opaque, uint32_t events);

static uint64_t now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

struct hsk_display_server *hsk_display_server_new(struct hsk_loop *loop,
                                                  const struct hsk_display_server_ops *ops,
                                                  void *opaque, GError **error)
{
    struct hsk_display_server *s = g_new0(struct hsk_display_server, 1);

    s->loop = loop;
    s->ops = ops;
    s->opaque = opaque;
    s->state = HSK_DISPLAY_PAUSED;
    for (int i = 0; i < MAX_CLIENTS; i++)
        s->clients[i] = (struct client){.server = s, .sock = -1};
    s->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    if (s->timer_fd < 0 || !hsk_loop_watch_fd(loop, s->timer_fd, EPOLLIN, on_timer, s)) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_FAILED, "Cannot make a timer for the screen: %s.",
                    g_strerror(errno));
        if (s->timer_fd >= 0)
            close(s->timer_fd);
        g_free(s);
        return NULL;
    }
    return s;
}

static void detach(struct client *c)
{
    struct hsk_display_server *s = c->server;
    bool greeted = c->greeted;

    hsk_loop_unwatch_fd(s->loop, c->sock);
    close(c->sock);
    hsk_tiles_finish(&c->tiles);
    *c = (struct client){.server = s, .sock = -1};
    /* Its keys are not held any more. */
    if (greeted && s->ops->release_all)
        s->ops->release_all(s->opaque);
}

void hsk_display_server_detach_all(struct hsk_display_server *s)
{
    for (int i = 0; i < MAX_CLIENTS; i++)
        if (s->clients[i].sock >= 0)
            detach(&s->clients[i]);
}

void hsk_display_server_free(struct hsk_display_server *s)
{
    if (!s)
        return;
    hsk_display_server_detach_all(s);
    hsk_loop_unwatch_fd(s->loop, s->timer_fd);
    close(s->timer_fd);
    g_free(s->bitmap);
    g_free(s);
}

unsigned hsk_display_server_clients(const struct hsk_display_server *s)
{
    unsigned n = 0;

    for (int i = 0; i < MAX_CLIENTS; i++)
        n += s->clients[i].sock >= 0;
    return n;
}

static bool wants_frame(const struct client *c)
{
    return c->sock >= 0 && c->greeted && c->visible && !c->inflight_seq && !c->owed;
}

static void arm(struct hsk_display_server *s, uint64_t interval_ns)
{
    uint64_t at = s->last_look_ns + interval_ns;
    struct itimerspec spec = {
        .it_value = {.tv_sec = (time_t)(at / 1000000000u), .tv_nsec = (long)(at % 1000000000u)},
    };

    timerfd_settime(s->timer_fd, TFD_TIMER_ABSTIME, &spec, NULL);
    s->armed = true;
}

/* Somebody may have something to see soon: look at the next frame. */
static void schedule(struct hsk_display_server *s)
{
    for (int i = 0; i < MAX_CLIENTS; i++) {
        if (wants_frame(&s->clients[i]) && (s->ops->collect || s->clients[i].tiles.any)) {
            arm(s, FRAME_FAST_NS);
            return;
        }
    }
}

/* 1 sent, 0 no room now, -1 the window is gone. */
static int send_msg(struct client *c, struct hsk_display_msg *msg, const int *fd)
{
    int r;

    msg->size_bytes = hsk_display_msg_size(msg->type);
    r = hsk_send_fds(c->sock, msg, msg->size_bytes, fd, fd ? 1 : 0, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (r == -EAGAIN || r == -EINTR || r == -ENOBUFS || r == -ETOOMANYREFS)
        return 0;
    return r < 0 ? -1 : 1;
}

static int send_owed(struct client *c, uint32_t what)
{
    const struct hsk_display_server *s = c->server;
    struct hsk_display_msg msg = {.type = HSK_DISPLAY_HELLO};
    const int *fd = NULL;

    switch (what) {
    case OWE_HELLO:
        msg.hello.magic = HSK_DISPLAY_MAGIC;
        msg.hello.version = HSK_DISPLAY_VERSION;
        break;
    case OWE_SURFACE:
        msg.type = HSK_DISPLAY_SURFACE;
        msg.surface.offset = s->surface.offset;
        msg.surface.width = s->surface.width;
        msg.surface.height = s->surface.height;
        msg.surface.stride_bytes = s->surface.stride_bytes;
        msg.surface.format = HSK_DISPLAY_XRGB8888;
        msg.surface.blank = s->surface.blank;
        msg.surface.generation = s->generation;
        fd = &s->surface.fd;
        break;
    case OWE_LEDS:
        msg.type = HSK_DISPLAY_LED;
        msg.led.leds = s->leds;
        break;
    case OWE_MODE:
        msg.type = HSK_DISPLAY_MODE;
        msg.mode.absolute = s->absolute;
        break;
    default:
        msg.type = HSK_DISPLAY_STATE;
        msg.state.state = s->state;
        break;
    }
    return send_msg(c, &msg, fd);
}

/* Tells the window what it is owed, as far as its socket takes it. false: it was detached. */
static bool pay(struct client *c)
{
    for (uint32_t what = 1; what & OWE_ALL; what <<= 1) {
        if (c->owed & what) {
            int sent = send_owed(c, what);

            if (sent < 0) {
                detach(c);
                return false;
            }
            if (!sent)
                break;
            c->owed &= ~what;
        }
    }
    if (c->watching_out != (c->owed != 0)) {
        c->watching_out = c->owed != 0;
        hsk_loop_watch_fd(c->server->loop, c->sock, EPOLLIN | (c->watching_out ? EPOLLOUT : 0),
                          on_client, c);
    }
    return true;
}

static void owe_everybody(struct hsk_display_server *s, uint32_t what)
{
    for (int i = 0; i < MAX_CLIENTS; i++) {
        if (s->clients[i].sock >= 0) {
            s->clients[i].owed |= what;
            pay(&s->clients[i]);
        }
    }
    schedule(s);
}

static void send_dirty(struct client *c)
{
    struct hsk_display_server *s = c->server;
    struct hsk_display_msg msg = {.type = HSK_DISPLAY_DIRTY};
    int sent;

    if (!++s->seq)
        s->seq = 1;
    msg.dirty.seq = s->seq;
    msg.dirty.generation = s->generation;
    msg.dirty.count = hsk_tiles_take(&c->tiles, msg.dirty.rects);
    sent = send_msg(c, &msg, NULL);
    if (sent < 0) {
        detach(c);
    } else if (sent) {
        c->inflight_seq = s->seq;
    } else {
        /* A window that reads nothing: it gets the whole picture when it does. */
        c->owed |= OWE_STATE;
        hsk_tiles_add(&c->tiles, 0, 0, UINT32_MAX, UINT32_MAX);
        pay(c);
    }
}

static void look_for_damage(struct hsk_display_server *s)
{
    bool found = false;

    if (!s->ops->collect || s->surface.blank)
        return;
    memset(s->bitmap, 0, s->bitmap_bytes);
    s->ops->collect(s->opaque, s->bitmap, s->bitmap_bytes);
    for (int i = 0; i < MAX_CLIENTS; i++)
        if (s->clients[i].sock >= 0)
            found |= hsk_tiles_add_pages(&s->clients[i].tiles, s->bitmap, s->bitmap_bytes,
                                         s->surface.offset, s->surface.stride_bytes);
    /* A picture moves when two looks in a row find something; a blinking cursor alone does not keep
     * up the pace. */
    if (!found)
        s->quiet++;
    else
        s->quiet = s->found_last ? 0 : MIN(s->quiet, QUIET_SLOW);
    s->found_last = found;
}

static void on_timer(void *opaque, uint32_t events)
{
    struct hsk_display_server *s = opaque;
    bool again = false;
    uint64_t expired;

    if (read(s->timer_fd, &expired, sizeof(expired)) != sizeof(expired))
        return;
    s->armed = false;
    for (int i = 0; i < MAX_CLIENTS; i++)
        again |= wants_frame(&s->clients[i]);
    if (!again || !s->have_surface)
        return;
    s->last_look_ns = now_ns();
    look_for_damage(s);
    again = false;
    for (int i = 0; i < MAX_CLIENTS; i++) {
        struct client *c = &s->clients[i];

        if (wants_frame(c) && c->tiles.any && !s->surface.blank)
            send_dirty(c);
        again |= wants_frame(c);
    }
    if (again && s->ops->collect && !s->surface.blank)
        arm(s, s->quiet < QUIET_SLOW   ? FRAME_FAST_NS
               : s->quiet < QUIET_IDLE ? FRAME_SLOW_NS
                                       : FRAME_IDLE_NS);
}

bool hsk_display_server_set_surface(struct hsk_display_server *s,
                                    const struct hsk_display_surface *surface)
{
    if (!hsk_display_surface_ok(surface->fd_size_bytes, surface->offset, surface->width,
                                surface->height, surface->stride_bytes, HSK_DISPLAY_XRGB8888))
        return false;
    s->surface = *surface;
    s->have_surface = true;
    s->generation++;
    s->bitmap_bytes = (surface->fd_size_bytes / HSK_PAGE_SIZE + 8) / 8;
    s->bitmap = g_realloc(s->bitmap, s->bitmap_bytes);
    for (int i = 0; i < MAX_CLIENTS; i++) {
        if (s->clients[i].sock >= 0) {
            hsk_tiles_finish(&s->clients[i].tiles);
            hsk_tiles_init(&s->clients[i].tiles, surface->width, surface->height);
        }
    }
    hsk_display_server_damage(s, 0, 0, UINT32_MAX, UINT32_MAX);
    owe_everybody(s, OWE_SURFACE);
    return true;
}

void hsk_display_server_damage(struct hsk_display_server *s, uint32_t x, uint32_t y, uint32_t width,
                               uint32_t height)
{
    for (int i = 0; i < MAX_CLIENTS; i++)
        if (s->clients[i].sock >= 0)
            hsk_tiles_add(&s->clients[i].tiles, x, y, width, height);
    s->quiet = 0;
    schedule(s);
}

bool hsk_display_server_attach(struct hsk_display_server *s, int sock)
{
    struct client *c = NULL;

    for (int i = 0; i < MAX_CLIENTS && !c; i++)
        if (s->clients[i].sock < 0)
            c = &s->clients[i];
    if (!c || !s->have_surface || !hsk_loop_watch_fd(s->loop, sock, EPOLLIN, on_client, c)) {
        close(sock);
        return false;
    }
    c->sock = sock;
    c->owed = OWE_ALL;
    hsk_tiles_init(&c->tiles, s->surface.width, s->surface.height);
    hsk_tiles_add(&c->tiles, 0, 0, UINT32_MAX, UINT32_MAX);
    return pay(c);
}

void hsk_display_server_set_leds(struct hsk_display_server *s, uint32_t leds)
{
    s->leds = leds & 7;
    owe_everybody(s, OWE_LEDS);
}

void hsk_display_server_set_mode(struct hsk_display_server *s, bool absolute)
{
    s->absolute = absolute;
    owe_everybody(s, OWE_MODE);
}

void hsk_display_server_set_state(struct hsk_display_server *s, enum hsk_display_state state)
{
    s->state = state;
    owe_everybody(s, OWE_STATE);
}

static void take_wheel(struct client *c, int32_t clicks_120)
{
    int32_t clicks;

    c->wheel_rest += clicks_120;
    clicks = c->wheel_rest / 120;
    c->wheel_rest -= clicks * 120;
    if (clicks && c->server->ops->wheel)
        c->server->ops->wheel(c->server->opaque, (int16_t)clicks);
}

static void take_input(struct client *c, const struct hsk_display_msg *msg)
{
    const struct hsk_display_server_ops *ops = c->server->ops;
    void *opaque = c->server->opaque;

    switch (msg->type) {
    case HSK_DISPLAY_KEY:
        if (ops->key)
            ops->key(opaque, msg->key.code, msg->key.down);
        break;
    case HSK_DISPLAY_PTR_ABS:
        if (ops->pointer_abs)
            ops->pointer_abs(opaque, msg->ptr_abs.x, msg->ptr_abs.y, (uint8_t)msg->ptr_abs.buttons);
        break;
    case HSK_DISPLAY_PTR_REL:
        if (ops->pointer_rel)
            ops->pointer_rel(opaque, msg->ptr_rel.dx, msg->ptr_rel.dy,
                             (uint8_t)msg->ptr_rel.buttons);
        break;
    case HSK_DISPLAY_WHEEL:
        take_wheel(c, msg->wheel.clicks_120);
        break;
    case HSK_DISPLAY_RELEASE_ALL:
        if (ops->release_all)
            ops->release_all(opaque);
        break;
    default: /* SIZE_HINT: the caller handled the rest */
        if (ops->size_hint)
            ops->size_hint(opaque, msg->size_hint.width, msg->size_hint.height);
        break;
    }
    /* The guest will probably answer on the screen: look soon. */
    c->server->quiet = 0;
    schedule(c->server);
}

/* false: the window broke the protocol. */
static bool take_msg(struct client *c, const struct hsk_display_msg *msg, size_t len)
{
    if (!hsk_display_msg_check(msg, len, false) || c->greeted == (msg->type == HSK_DISPLAY_HELLO))
        return false;
    switch (msg->type) {
    case HSK_DISPLAY_HELLO:
        c->greeted = true;
        return msg->hello.version == HSK_DISPLAY_VERSION;
    case HSK_DISPLAY_ACK:
        if (!c->inflight_seq || msg->ack.seq != c->inflight_seq)
            return false;
        c->inflight_seq = 0;
        schedule(c->server);
        return true;
    case HSK_DISPLAY_VISIBLE:
        c->visible = msg->visible.visible;
        schedule(c->server);
        return true;
    default:
        take_input(c, msg);
        return true;
    }
}

static void on_client(void *opaque, uint32_t events)
{
    struct client *c = opaque;

    /* Bounded, so that a flooding window does not starve the loop; the rest comes in the next
     * round. */
    for (int i = 0; i < 64; i++) {
        struct hsk_display_msg msg;
        unsigned nfds = 0;
        ssize_t len = hsk_recv_fds(c->sock, &msg, sizeof(msg), NULL, &nfds, MSG_DONTWAIT);

        if (len == -EAGAIN || len == -EINTR)
            break;
        if (len <= 0 || !take_msg(c, &msg, (size_t)len)) {
            detach(c);
            return;
        }
    }
    if (pay(c))
        schedule(c->server);
}
