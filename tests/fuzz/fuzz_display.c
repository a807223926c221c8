/* SPDX-License-Identifier: MIT */
/* fuzz-libs: hsk_display */
/*
 * Both ends of the surface protocol against a peer that sends anything. Input: packets of one byte
 * what (bit 7: to the window instead of the machine, bit 6: the header as it comes, bits 0-5: index
 * of the type), one byte length, the body.
 */
#include <base/loop.h>
#include <display/client.h>
#include <display/server.h>

#include <sys/socket.h>

#define SIZE (64u << 10)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct fuzz {
    struct hsk_loop *loop;
    struct hsk_display_client *client;
    uint32_t sum;
};

/* Reads what the client hands out, as a window would. */
static void on_dirty(void *opaque, const struct hsk_display_rect *rects, unsigned count)
{
    struct fuzz *f = opaque;
    struct hsk_display_view v = hsk_display_client_view(f->client);

    for (unsigned i = 0; i < count && v.pixels; i++) {
        size_t last = (size_t)(rects[i].y + rects[i].height - 1) * v.stride_bytes +
                      (size_t)(rects[i].x + rects[i].width - 1) * 4;

        hsk_assert(rects[i].x + rects[i].width <= (int)v.width &&
                   rects[i].y + rects[i].height <= (int)v.height);
        f->sum += v.pixels[last + 3];
    }
    hsk_display_client_ack(f->client);
}

static void on_key(void *opaque, uint16_t code, bool down)
{
    hsk_assert(code && code <= HSK_DISPLAY_KEY_MAX);
}

static void on_wheel(void *opaque, int16_t clicks)
{
    hsk_assert(clicks >= -101 && clicks <= 101);
}

static void collect(void *opaque, uint8_t *bitmap, size_t bitmap_bytes)
{
    memset(bitmap, 0x55, bitmap_bytes);
}

static void quit(void *opaque)
{
    hsk_loop_quit(opaque);
}

static size_t make(const uint8_t *data, size_t size, struct hsk_display_msg *msg, size_t *len)
{
    static const uint32_t types[] = {
        HSK_DISPLAY_HELLO,       HSK_DISPLAY_SURFACE, HSK_DISPLAY_DIRTY, HSK_DISPLAY_LED,
        HSK_DISPLAY_MODE,        HSK_DISPLAY_STATE,   HSK_DISPLAY_ACK,   HSK_DISPLAY_KEY,
        HSK_DISPLAY_PTR_ABS,     HSK_DISPLAY_PTR_REL, HSK_DISPLAY_WHEEL, HSK_DISPLAY_SIZE_HINT,
        HSK_DISPLAY_RELEASE_ALL, HSK_DISPLAY_VISIBLE,
    };
    size_t body = MIN(MIN(data[1], size - 2), sizeof(*msg) - 8);

    memset(msg, 0, sizeof(*msg));
    if (data[0] & 0x40) {
        memcpy(msg, data + 2, body);
        *len = MAX(body, 1);
    } else {
        msg->type = types[(data[0] & 0x3f) % G_N_ELEMENTS(types)];
        msg->size_bytes = hsk_display_msg_size(msg->type);
        memcpy((uint8_t *)msg + 8, data + 2, body);
        *len = msg->size_bytes;
    }
    return 2 + body;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct hsk_display_server_ops server_ops = {
        .collect = collect, .key = on_key, .wheel = on_wheel};
    static const struct hsk_display_client_ops client_ops = {.dirty = on_dirty};
    struct hsk_display_surface surface = {
        .fd_size_bytes = SIZE, .width = 100, .height = 100, .stride_bytes = 512};
    struct fuzz f = {.loop = hsk_loop_new(NULL, NULL)};
    struct hsk_display_server *server = hsk_display_server_new(f.loop, &server_ops, &f, NULL);
    int to_server[2], to_client[2];
    bool alive = true;

    surface.fd = hsk_memfd_new("fuzz", SIZE, NULL);
    hsk_assert(!socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, to_server));
    hsk_assert(!socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, to_client));
    hsk_assert(hsk_display_server_set_surface(server, &surface));
    hsk_assert(hsk_display_server_attach(server, to_server[0]));
    f.client = hsk_display_client_new(to_client[1], &client_ops, &f);
    while (size >= 2) {
        struct hsk_display_msg msg;
        size_t len, used = make(data, size, &msg, &len);

        if (data[0] & 0x80)
            (void)!hsk_send_fds(to_client[0], &msg, len, &surface.fd, 1,
                                MSG_DONTWAIT | MSG_NOSIGNAL);
        else
            (void)!send(to_server[1], &msg, len, MSG_DONTWAIT | MSG_NOSIGNAL);
        data += used;
        size -= used;
        alive = alive && hsk_display_client_dispatch(f.client, NULL);
        hsk_loop_call(f.loop, quit, f.loop);
        hsk_loop_run(f.loop);
    }
    hsk_display_client_free(f.client);
    hsk_display_server_free(server);
    close(to_client[0]);
    close(to_server[1]);
    close(surface.fd);
    hsk_loop_free(f.loop);
    return 0;
}
