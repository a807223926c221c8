/* SPDX-License-Identifier: MIT */
/*
 * The picture and the input of the machine: connects display/server.h to the machine's scanout,
 * page damage and input.
 *
 * Damage is collected with the vCPUs parked for a moment (vmm/memory.h asks for it); afterwards the
 * engine has to announce writes again. Thread: loop thread.
 */
#include "screen.h"

#include <display/png.h>
#include <display/server.h>

struct hsk_screen {
    struct hsk_machine *m;
    struct hsk_display_server *server;
    struct hsk_memobj *obj; /* what is shown now */
    uint8_t *bitmap;        /* of the call to collect under way */
};

static void collect_parked(void *opaque)
{
    struct hsk_screen *s = opaque;
    struct hsk_engine *e = hsk_machine_engine(s->m);

    e->ops->dirty_sync(e);
    if (hsk_memobj_collect(s->obj, HSK_PAGE_DAMAGE, s->bitmap))
        e->ops->flush(e, HSK_FLUSH_WRITES);
}

static void collect(void *opaque, uint8_t *bitmap, size_t bitmap_bytes)
{
    struct hsk_screen *s = opaque;

    if (!s->obj || bitmap_bytes < (s->obj->size_bytes / HSK_PAGE_SIZE + 7) / 8)
        return;
    s->bitmap = bitmap;
    if (hsk_machine_running(s->m))
        hsk_machine_at_safe_point(s->m, collect_parked, s);
    else
        collect_parked(s);
}

static void key(void *opaque, uint16_t code, bool down)
{
    struct hsk_input *in = hsk_machine_input(((struct hsk_screen *)opaque)->m);
    in->key(in, code, down);
}

static void pointer_abs(void *opaque, uint16_t x, uint16_t y, uint8_t buttons)
{
    struct hsk_input *in = hsk_machine_input(((struct hsk_screen *)opaque)->m);
    in->pointer_abs(in, x, y, buttons);
}

static void pointer_rel(void *opaque, int16_t dx, int16_t dy, uint8_t buttons)
{
    struct hsk_input *in = hsk_machine_input(((struct hsk_screen *)opaque)->m);
    in->pointer_rel(in, dx, dy, buttons);
}

static void wheel(void *opaque, int16_t clicks)
{
    struct hsk_input *in = hsk_machine_input(((struct hsk_screen *)opaque)->m);
    in->wheel(in, clicks);
}

static void release_all(void *opaque)
{
    struct hsk_input *in = hsk_machine_input(((struct hsk_screen *)opaque)->m);
    in->release_all(in);
}

void hsk_screen_changed(struct hsk_screen *s)
{
    struct hsk_scanout so;

    if (!s || !hsk_machine_scanout(s->m, &so))
        return;
    s->obj = so.obj;
    const struct hsk_display_surface surface = {
        .fd = so.obj->fd,
        .fd_size_bytes = so.obj->size_bytes,
        .offset = so.offset,
        .width = so.width,
        .height = so.height,
        .stride_bytes = so.stride_bytes,
        .blank = so.blank,
    };
    if (!hsk_display_server_set_surface(s->server, &surface))
        g_warning("the guest asked for a picture of %ux%u that does not fit its memory; the old "
                  "one stays",
                  so.width, so.height);
}

struct hsk_screen *hsk_screen_new(struct hsk_machine *m, GError **error)
{
    static const struct hsk_display_server_ops with_input = {
        .collect = collect,
        .key = key,
        .pointer_abs = pointer_abs,
        .pointer_rel = pointer_rel,
        .wheel = wheel,
        .release_all = release_all,
    };
    static const struct hsk_display_server_ops without_input = {.collect = collect};
    struct hsk_scanout so;

    if (!hsk_machine_scanout(m, &so))
        return NULL;
    struct hsk_screen *s = g_new0(struct hsk_screen, 1);
    s->m = m;
    s->server = hsk_display_server_new(
        hsk_machine_loop(m), hsk_machine_input(m) ? &with_input : &without_input, s, error);
    if (!s->server) {
        g_free(s);
        return NULL;
    }
    hsk_screen_changed(s);
    hsk_display_server_set_mode(s->server, true);
    return s;
}

void hsk_screen_free(struct hsk_screen *s)
{
    if (!s)
        return;
    hsk_display_server_free(s->server);
    g_free(s);
}

void hsk_screen_leds(struct hsk_screen *s, uint64_t leds)
{
    if (s)
        hsk_display_server_set_leds(s->server, (uint32_t)leds);
}

void hsk_screen_running(struct hsk_screen *s, bool running)
{
    if (s)
        hsk_display_server_set_state(s->server, running ? HSK_DISPLAY_RUNNING : HSK_DISPLAY_PAUSED);
}

void hsk_screen_attach(struct hsk_screen *s, int sock)
{
    if (!s)
        close(sock);
    else if (!hsk_display_server_attach(s->server, sock))
        g_warning("there is no room for one more window");
}

GBytes *hsk_screen_png(struct hsk_screen *s, uint32_t max_width, uint32_t max_height,
                       GError **error)
{
    struct hsk_scanout so;

    if (!s || !hsk_machine_scanout(s->m, &so)) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_NOT_FOUND,
                    "this machine has no display, so there is no picture of it");
        return NULL;
    }
    bool inside =
        !so.blank && so.stride_bytes >= (uint64_t)so.width * 4 &&
        hsk_range_ok(so.offset, (uint64_t)so.stride_bytes * so.height, so.obj->size_bytes);
    const uint8_t *pixels = inside ? so.obj->host + so.offset : NULL;
    if (max_width)
        return hsk_png_encode_thumbnail(pixels, so.width, so.height, so.stride_bytes, max_width,
                                        max_height, error);
    return hsk_png_encode(pixels, so.width, so.height, so.stride_bytes, error);
}
