/* SPDX-License-Identifier: MIT */
/* Server and client joined by a socket pair in one loop: pictures, damage, input, and what happens
 * to liars. */
#include <base/loop.h>
#include <display/client.h>
#include <display/server.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#define W      640u
#define H      400u
#define STRIDE (W * 4)
#define SIZE   (1u << 20)

struct fixture {
    struct hsk_loop *loop;
    struct hsk_timer *deadline;
    bool timed_out;
    struct hsk_display_server *server;
    struct hsk_display_client *client;
    int memfd;
    uint8_t *mem;
    uint8_t pages[SIZE / 4096];
    /* seen by the machine */
    unsigned looks, looks_wanted, keys, releases;
    bool blinking; /* a change at every fifth look */
    uint16_t key, x, y;
    bool down;
    int wheel;
    /* seen by the window */
    unsigned surfaces, dirties;
    bool autoack, gone, absolute;
    uint32_t leds;
    enum hsk_display_state state;
    GError *error;
    struct hsk_display_rect rects[HSK_DISPLAY_MAX_RECTS];
    unsigned nrects;
    bool (*until)(struct fixture *f);
};

static void check_until(struct fixture *f)
{
    if (f->until && f->until(f))
        hsk_loop_quit(f->loop);
}

static void collect(void *opaque, uint8_t *bitmap, size_t bytes)
{
    struct fixture *f = opaque;

    f->looks++;
    assert_true(bytes * 8 >= sizeof(f->pages));
    for (size_t i = 0; i < sizeof(f->pages); i++) {
        bitmap[i / 8] |= (uint8_t)(f->pages[i] << (i % 8));
        f->pages[i] = 0;
    }
    f->pages[0] = f->blinking && f->looks % 5 == 0;
    check_until(f);
}

static void on_key(void *opaque, uint16_t code, bool down)
{
    struct fixture *f = opaque;

    f->keys++;
    f->key = code;
    f->down = down;
    check_until(f);
}

static void on_abs(void *opaque, uint16_t x, uint16_t y, uint8_t buttons)
{
    struct fixture *f = opaque;

    f->x = x;
    f->y = y;
    check_until(f);
}

static void on_wheel(void *opaque, int16_t clicks)
{
    struct fixture *f = opaque;

    f->wheel += clicks;
    check_until(f);
}

static void on_release(void *opaque)
{
    struct fixture *f = opaque;

    f->releases++;
    check_until(f);
}

static const struct hsk_display_server_ops server_ops = {
    .collect = collect,
    .key = on_key,
    .pointer_abs = on_abs,
    .wheel = on_wheel,
    .release_all = on_release,
};

static void on_surface(void *opaque)
{
    ((struct fixture *)opaque)->surfaces++;
}

static void on_dirty(void *opaque, const struct hsk_display_rect *rects, unsigned count)
{
    struct fixture *f = opaque;

    f->dirties++;
    memcpy(f->rects, rects, count * sizeof(*rects));
    f->nrects = count;
    if (f->autoack)
        hsk_display_client_ack(f->client);
}

static void on_leds(void *opaque, uint32_t leds)
{
    ((struct fixture *)opaque)->leds = leds;
}

static void on_mode(void *opaque, bool absolute)
{
    ((struct fixture *)opaque)->absolute = absolute;
}

static void on_state(void *opaque, enum hsk_display_state state)
{
    ((struct fixture *)opaque)->state = state;
}

static const struct hsk_display_client_ops client_ops = {
    .surface = on_surface,
    .dirty = on_dirty,
    .leds = on_leds,
    .mode = on_mode,
    .state = on_state,
};

static void on_client_fd(void *opaque, uint32_t events)
{
    struct fixture *f = opaque;

    if (!hsk_display_client_dispatch(f->client, &f->error)) {
        f->gone = true;
        hsk_loop_unwatch_fd(f->loop, hsk_display_client_fd(f->client));
    }
    check_until(f);
}

static void on_deadline(void *opaque)
{
    struct fixture *f = opaque;

    f->timed_out = true;
    hsk_loop_quit(f->loop);
}

static void run(struct fixture *f, bool (*until)(struct fixture *), unsigned ms)
{
    f->timed_out = false;
    f->until = until;
    hsk_timer_arm(f->deadline, (uint64_t)g_get_monotonic_time() * 1000 + ms * 1000000ull);
    hsk_loop_run(f->loop);
    hsk_timer_disarm(f->deadline);
    f->until = NULL;
}

#define run_until(f, fn)                                                                           \
    do {                                                                                           \
        run(f, fn, 5000);                                                                          \
        assert_false((f)->timed_out);                                                              \
    } while (0)

static int setup(void **state)
{
    struct fixture *f = g_new0(struct fixture, 1);
    struct hsk_display_surface surface = {
        .fd_size_bytes = SIZE, .width = W, .height = H, .stride_bytes = STRIDE};
    int pair[2];

    f->loop = hsk_loop_new(NULL, NULL);
    f->deadline = hsk_timer_new(f->loop, on_deadline, f);
    f->memfd = surface.fd = hsk_memfd_new("vram", SIZE, NULL);
    f->mem = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, f->memfd, 0);
    f->server = hsk_display_server_new(f->loop, &server_ops, f, NULL);
    assert_non_null(f->server);
    assert_true(hsk_display_server_set_surface(f->server, &surface));
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    assert_true(hsk_display_server_attach(f->server, pair[0]));
    f->client = hsk_display_client_new(pair[1], &client_ops, f);
    hsk_loop_watch_fd(f->loop, pair[1], EPOLLIN, on_client_fd, f);
    f->autoack = true;
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    hsk_display_server_free(f->server);
    if (!f->gone)
        hsk_loop_unwatch_fd(f->loop, hsk_display_client_fd(f->client));
    hsk_display_client_free(f->client);
    hsk_timer_free(f->deadline);
    hsk_loop_free(f->loop);
    munmap(f->mem, SIZE);
    close(f->memfd);
    g_clear_error(&f->error);
    g_free(f);
    return 0;
}

static bool has_state(struct fixture *f)
{
    return f->state != 0;
}
static bool has_dirty(struct fixture *f)
{
    return f->dirties > 0;
}
static bool has_looks(struct fixture *f)
{
    return f->looks >= f->looks_wanted;
}
static bool has_key(struct fixture *f)
{
    return f->keys > 0;
}
static bool has_wheel(struct fixture *f)
{
    return f->wheel != 0;
}
static bool is_gone(struct fixture *f)
{
    return f->gone;
}
static bool has_release(struct fixture *f)
{
    return f->releases > 0;
}
static bool has_two_surfaces(struct fixture *f)
{
    return f->surfaces > 1;
}

static void a_window_gets_picture_mode_and_state(void **state)
{
    struct fixture *f = *state;
    struct hsk_display_view v;

    hsk_display_server_set_leds(f->server, HSK_DISPLAY_LED_CAPS);
    hsk_display_server_set_mode(f->server, true);
    memset(f->mem, 0x5a, 16);
    run_until(f, has_state);
    v = hsk_display_client_view(f->client);
    assert_int_equal(v.width, W);
    assert_int_equal(v.height, H);
    assert_int_equal(v.pixels[15], 0x5a);
    assert_int_equal(f->leds, HSK_DISPLAY_LED_CAPS);
    assert_true(f->absolute);
    assert_int_equal(f->state, HSK_DISPLAY_PAUSED);
    assert_int_equal(f->looks, 0); /* not visible: nobody looks for damage */
}

static void a_visible_window_gets_all_first_and_then_only_what_changed(void **state)
{
    struct fixture *f = *state;

    hsk_display_client_set_visible(f->client, true);
    run_until(f, has_dirty);
    assert_int_equal(f->nrects, 1);
    assert_int_equal(f->rects[0].width, W);
    assert_int_equal(f->rects[0].height, H);

    f->dirties = 0;
    f->pages[100 * STRIDE / 4096] = 1; /* around line 100: tile row 1 */
    run_until(f, has_dirty);
    assert_int_equal(f->nrects, 1);
    assert_int_equal(f->rects[0].y, 64);
    assert_int_equal(f->rects[0].height, 64);
}

static void nothing_is_sent_or_looked_for_until_the_acknowledgement(void **state)
{
    struct fixture *f = *state;
    unsigned looks;

    f->autoack = false;
    hsk_display_client_set_visible(f->client, true);
    run_until(f, has_dirty);
    looks = f->looks;
    f->pages[0] = 1;
    run(f, NULL, 100);
    assert_int_equal(f->dirties, 1);
    assert_int_equal(f->looks, looks);

    f->dirties = 0;
    f->autoack = true;
    hsk_display_client_ack(f->client);
    run_until(f, has_dirty);
    assert_int_equal(f->rects[0].y, 0);
}

static void a_hidden_window_costs_nothing(void **state)
{
    struct fixture *f = *state;
    unsigned looks;

    hsk_display_client_set_visible(f->client, true);
    run_until(f, has_dirty);
    hsk_display_client_set_visible(f->client, false);
    run(f, NULL, 50);
    looks = f->looks;
    run(f, NULL, 150);
    assert_int_equal(f->looks, looks);
}

/* How long so many looks take, in ms: a busy host can only make it longer. */
static unsigned looks_take_ms(struct fixture *f, unsigned looks)
{
    const gint64 start = g_get_monotonic_time();

    f->looks_wanted = f->looks + looks;
    run(f, has_looks, 30000);
    assert_false(f->timed_out);
    return (unsigned)((g_get_monotonic_time() - start) / 1000);
}

static void an_idle_picture_is_looked_at_less_often(void **state)
{
    struct fixture *f = *state;

    hsk_display_client_set_visible(f->client, true);
    looks_take_ms(f, 83);
    assert_in_range(looks_take_ms(f, 5), 400, 30000); /* ten a second */
}

static void a_blinking_cursor_does_not_keep_up_the_pace(void **state)
{
    struct fixture *f = *state;

    f->blinking = true;
    hsk_display_client_set_visible(f->client, true);
    looks_take_ms(f, 45);
    /* 320 ms at full pace; twenty a second, and one more for each blink, are at least 800. */
    assert_in_range(looks_take_ms(f, 20), 600, 30000);
}

static void input_arrives(void **state)
{
    struct fixture *f = *state;

    hsk_display_client_pointer_abs(f->client, 32767, 5, 0);
    hsk_display_client_key(f->client, 30, true);
    run_until(f, has_key);
    assert_int_equal(f->key, 30);
    assert_true(f->down);
    assert_int_equal(f->x, 32767);
    assert_int_equal(f->y, 5);
    /* Fractions of a wheel click add up. */
    hsk_display_client_wheel(f->client, 60);
    hsk_display_client_wheel(f->client, 60);
    run_until(f, has_wheel);
    assert_int_equal(f->wheel, 1);
}

static void a_key_that_finds_no_room_becomes_release_all(void **state)
{
    struct fixture *f = *state;

    for (int i = 0; i < 5000 && !hsk_display_client_backlog(f->client); i++)
        hsk_display_client_key(f->client, 30, true);
    assert_true(hsk_display_client_backlog(f->client));
    run(f, NULL, 50);
    assert_int_equal(f->releases, 0);
    hsk_display_client_flush(f->client);
    run_until(f, has_release);
    assert_false(hsk_display_client_backlog(f->client));
}

static void a_window_that_goes_releases_its_keys(void **state)
{
    struct fixture *f = *state;

    hsk_display_client_key(f->client, 29, true);
    run_until(f, has_key);
    shutdown(hsk_display_client_fd(f->client), SHUT_RDWR);
    run_until(f, has_release);
    run(f, NULL, 20);
    assert_int_equal(hsk_display_server_clients(f->server), 0);
}

static void a_window_that_lies_is_thrown_out(void **state)
{
    struct fixture *f = *state;
    struct hsk_display_msg m = {.type = HSK_DISPLAY_ACK,
                                .size_bytes = hsk_display_msg_size(HSK_DISPLAY_ACK),
                                .ack = {.seq = 77}};

    assert_true(send(hsk_display_client_fd(f->client), &m, m.size_bytes, 0) > 0);
    run_until(f, is_gone);
    assert_null(f->error);
    assert_int_equal(hsk_display_server_clients(f->server), 0);
}

static void a_window_that_never_reads_does_not_block(void **state)
{
    struct fixture *f = *state;
    int pair[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    assert_true(hsk_display_server_attach(f->server, pair[0]));
    for (int i = 0; i < 5000; i++)
        hsk_display_server_set_leds(f->server, i & 7);
    run_until(f, has_state);
    hsk_display_client_set_visible(f->client, true);
    run_until(f, has_dirty);
    close(pair[1]);
}

static void a_new_shape_is_told_and_mapped(void **state)
{
    struct fixture *f = *state;
    struct hsk_display_surface s = {.fd = f->memfd,
                                    .fd_size_bytes = SIZE,
                                    .offset = 4100,
                                    .width = 320,
                                    .height = 200,
                                    .stride_bytes = 2048};
    struct hsk_display_surface bad = s;

    bad.offset = SIZE;
    assert_false(hsk_display_server_set_surface(f->server, &bad));
    f->mem[4100] = 0x77;
    assert_true(hsk_display_server_set_surface(f->server, &s));
    run_until(f, has_two_surfaces);
    assert_int_equal(hsk_display_client_view(f->client).width, 320);
    assert_int_equal(hsk_display_client_view(f->client).pixels[0], 0x77);
}

/* The window's side against a machine that does what it wants. */
static void send_raw(int sock, const struct hsk_display_msg *m, int fd)
{
    assert_int_equal(hsk_send_fds(sock, m, m->size_bytes, &fd, fd >= 0 ? 1 : 0, 0), 0);
}

static void a_window_refuses_bad_memory(void **state)
{
    int sealed = hsk_memfd_new("sealed", 4096, NULL),
        open_fd = memfd_create("open", MFD_ALLOW_SEALING);
    const int fds[] = {-1, open_fd, sealed};

    assert_int_equal(ftruncate(open_fd, SIZE), 0);
    for (size_t i = 0; i < G_N_ELEMENTS(fds); i++) {
        struct hsk_display_msg hello = {.type = HSK_DISPLAY_HELLO,
                                        .size_bytes = hsk_display_msg_size(HSK_DISPLAY_HELLO),
                                        .hello = {HSK_DISPLAY_MAGIC, HSK_DISPLAY_VERSION}};
        struct hsk_display_msg surface = {.type = HSK_DISPLAY_SURFACE,
                                          .size_bytes = hsk_display_msg_size(HSK_DISPLAY_SURFACE),
                                          .surface = {0, W, H, STRIDE, HSK_DISPLAY_XRGB8888, 0, 1}};
        static const struct hsk_display_client_ops none = {0};
        struct hsk_display_client *c;
        GError *error = NULL;
        int pair[2];

        assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
        c = hsk_display_client_new(pair[1], &none, NULL);
        send_raw(pair[0], &hello, -1);
        send_raw(pair[0], &surface, fds[i]);
        assert_false(hsk_display_client_dispatch(c, &error));
        assert_non_null(error);
        assert_null(hsk_display_client_view(c).pixels);
        g_clear_error(&error);
        hsk_display_client_free(c);
        close(pair[0]);
    }
    close(sealed);
    close(open_fd);
}

#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(a_window_gets_picture_mode_and_state),
        T(a_visible_window_gets_all_first_and_then_only_what_changed),
        T(nothing_is_sent_or_looked_for_until_the_acknowledgement),
        T(a_hidden_window_costs_nothing),
        T(an_idle_picture_is_looked_at_less_often),
        T(a_blinking_cursor_does_not_keep_up_the_pace),
        T(input_arrives),
        T(a_key_that_finds_no_room_becomes_release_all),
        T(a_window_that_goes_releases_its_keys),
        T(a_window_that_lies_is_thrown_out),
        T(a_window_that_never_reads_does_not_block),
        T(a_new_shape_is_told_and_mapped),
        cmocka_unit_test(a_window_refuses_bad_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
