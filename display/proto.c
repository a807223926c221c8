/* SPDX-License-Identifier: MIT */
/* Sizes and ranges of the surface protocol's messages (proto.h). Pure functions, any thread. */
#include <display/proto.h>

#define BODY(member)                                                                               \
    (offsetof(struct hsk_display_msg, member) + sizeof(((struct hsk_display_msg *)0)->member))

uint32_t hsk_display_msg_size(uint32_t type)
{
    switch (type) {
    case HSK_DISPLAY_HELLO:
        return BODY(hello);
    case HSK_DISPLAY_SURFACE:
        return BODY(surface);
    case HSK_DISPLAY_DIRTY:
        return BODY(dirty);
    case HSK_DISPLAY_LED:
        return BODY(led);
    case HSK_DISPLAY_MODE:
        return BODY(mode);
    case HSK_DISPLAY_STATE:
        return BODY(state);
    case HSK_DISPLAY_ACK:
        return BODY(ack);
    case HSK_DISPLAY_KEY:
        return BODY(key);
    case HSK_DISPLAY_PTR_ABS:
        return BODY(ptr_abs);
    case HSK_DISPLAY_PTR_REL:
        return BODY(ptr_rel);
    case HSK_DISPLAY_WHEEL:
        return BODY(wheel);
    case HSK_DISPLAY_SIZE_HINT:
        return BODY(size_hint);
    case HSK_DISPLAY_RELEASE_ALL:
        return offsetof(struct hsk_display_msg, hello);
    case HSK_DISPLAY_VISIBLE:
        return BODY(visible);
    default:
        return 0;
    }
}

bool hsk_display_surface_ok(uint64_t fd_size, uint64_t offset, uint32_t width, uint32_t height,
                            uint32_t stride_bytes, uint32_t format)
{
    if (format != HSK_DISPLAY_XRGB8888 || fd_size > HSK_DISPLAY_MAX_BYTES)
        return false;
    if (!width || width > HSK_DISPLAY_MAX_DIM || !height || height > HSK_DISPLAY_MAX_DIM)
        return false;
    /* A line may be longer than the picture (virtual width), not shorter. */
    if (stride_bytes % 4 || offset % 4 || stride_bytes < width * 4 ||
        stride_bytes > HSK_DISPLAY_MAX_DIM * 16)
        return false;
    return hsk_range_ok(offset, (uint64_t)stride_bytes * (height - 1) + (uint64_t)width * 4,
                        fd_size);
}

static bool dirty_ok(const struct hsk_display_msg *msg)
{
    if (!msg->dirty.count || msg->dirty.count > HSK_DISPLAY_MAX_RECTS)
        return false;
    for (uint32_t i = 0; i < msg->dirty.count; i++) {
        const struct hsk_display_rect *r = &msg->dirty.rects[i];

        if (!r->width || !r->height || r->x + r->width > (int)HSK_DISPLAY_MAX_DIM ||
            r->y + r->height > (int)HSK_DISPLAY_MAX_DIM)
            return false;
    }
    return true;
}

static bool from_machine_ok(const struct hsk_display_msg *msg)
{
    switch (msg->type) {
    case HSK_DISPLAY_HELLO:
        return msg->hello.magic == HSK_DISPLAY_MAGIC;
    case HSK_DISPLAY_SURFACE:
        /* The descriptor's size is checked when it is known; here everything else. */
        return msg->surface.blank <= 1 &&
               hsk_display_surface_ok(HSK_DISPLAY_MAX_BYTES, msg->surface.offset,
                                      msg->surface.width, msg->surface.height,
                                      msg->surface.stride_bytes, msg->surface.format);
    case HSK_DISPLAY_DIRTY:
        return dirty_ok(msg);
    case HSK_DISPLAY_LED:
        return msg->led.leds < 8;
    case HSK_DISPLAY_MODE:
        return msg->mode.absolute <= 1;
    case HSK_DISPLAY_STATE:
        return msg->state.state == HSK_DISPLAY_RUNNING || msg->state.state == HSK_DISPLAY_PAUSED;
    default:
        return false;
    }
}

static bool from_window_ok(const struct hsk_display_msg *msg)
{
    switch (msg->type) {
    case HSK_DISPLAY_HELLO:
        return msg->hello.magic == HSK_DISPLAY_MAGIC;
    case HSK_DISPLAY_ACK:
    case HSK_DISPLAY_RELEASE_ALL:
        return true;
    case HSK_DISPLAY_KEY:
        return msg->key.code && msg->key.code <= HSK_DISPLAY_KEY_MAX && msg->key.down <= 1;
    case HSK_DISPLAY_PTR_ABS:
        return msg->ptr_abs.x <= HSK_DISPLAY_ABS_MAX && msg->ptr_abs.y <= HSK_DISPLAY_ABS_MAX &&
               msg->ptr_abs.buttons < 8;
    case HSK_DISPLAY_PTR_REL:
        return msg->ptr_rel.buttons < 8;
    case HSK_DISPLAY_WHEEL:
        return msg->wheel.clicks_120 >= -120 * 100 && msg->wheel.clicks_120 <= 120 * 100;
    case HSK_DISPLAY_SIZE_HINT:
        return msg->size_hint.width && msg->size_hint.width <= HSK_DISPLAY_MAX_DIM &&
               msg->size_hint.height && msg->size_hint.height <= HSK_DISPLAY_MAX_DIM;
    case HSK_DISPLAY_VISIBLE:
        return msg->visible.visible <= 1;
    default:
        return false;
    }
}

bool hsk_display_msg_check(const struct hsk_display_msg *msg, size_t len, bool from_machine)
{
    if (len < offsetof(struct hsk_display_msg, hello) || msg->size_bytes != len ||
        hsk_display_msg_size(msg->type) != len)
        return false;
    return from_machine ? from_machine_ok(msg) : from_window_ok(msg);
}
