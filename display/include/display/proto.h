/* SPDX-License-Identifier: MIT */
/*
 * The surface protocol: how a window sees and works a running machine. Fixed-size messages on a
 * connected SOCK_SEQPACKET socket, one message per packet, host byte order (both ends are on one
 * host).
 *
 * Both sides open with HELLO and refuse another version. Then
 *   machine -> window: SURFACE (carries one descriptor: the memfd that holds the picture), DIRTY,
 * LED, MODE, STATE window -> machine: ACK, KEY, PTR_ABS, PTR_REL, WHEEL, SIZE_HINT, RELEASE_ALL,
 * VISIBLE One DIRTY is in flight at a time; damage merges in the machine until it is acknowledged,
 * so a slow or hidden window costs nothing. The machine sends DIRTY only while the window is
 * VISIBLE (it starts invisible).
 *
 * Neither side trusts the other: hsk_display_msg_check() before any use; a bad message ends the
 * connection. Deliberately missing: cursor shapes, clipboard and sound (they get message types of
 * their own).
 */
#pragma once

#include <base/util.h>

#define HSK_DISPLAY_VERSION   1u
#define HSK_DISPLAY_MAGIC     0x644b5348u /* "HSKd" */
#define HSK_DISPLAY_MAX_DIM   8192u
#define HSK_DISPLAY_MAX_BYTES (1ull << 30) /* of the memfd behind a surface */
#define HSK_DISPLAY_MAX_RECTS 16u
#define HSK_DISPLAY_KEY_MAX   0x2ffu /* KEY_MAX of Linux */
#define HSK_DISPLAY_ABS_MAX   32767u /* PTR_ABS: the whole screen is 0..32767 on both axes */

enum hsk_display_type {
    HSK_DISPLAY_HELLO = 1, /* both ways, first */
    /* machine -> window */
    HSK_DISPLAY_SURFACE = 16,
    HSK_DISPLAY_DIRTY,
    HSK_DISPLAY_LED,
    HSK_DISPLAY_MODE,
    HSK_DISPLAY_STATE,
    /* window -> machine */
    HSK_DISPLAY_ACK = 64,
    HSK_DISPLAY_KEY,
    HSK_DISPLAY_PTR_ABS,
    HSK_DISPLAY_PTR_REL,
    HSK_DISPLAY_WHEEL,
    HSK_DISPLAY_SIZE_HINT,
    HSK_DISPLAY_RELEASE_ALL,
    HSK_DISPLAY_VISIBLE,
};

enum hsk_display_format { HSK_DISPLAY_XRGB8888 = 1 }; /* bytes B G R X */

enum hsk_display_state {
    HSK_DISPLAY_RUNNING = 1,
    HSK_DISPLAY_PAUSED,
};

enum {
    HSK_DISPLAY_LED_SCROLL = 1 << 0,
    HSK_DISPLAY_LED_NUM = 1 << 1,
    HSK_DISPLAY_LED_CAPS = 1 << 2,
};

enum {
    HSK_DISPLAY_BUTTON_LEFT = 1 << 0,
    HSK_DISPLAY_BUTTON_RIGHT = 1 << 1,
    HSK_DISPLAY_BUTTON_MIDDLE = 1 << 2,
};

struct hsk_display_rect {
    uint16_t x, y, width, height;
};

/* Every message is exactly this header and its own part of the union. */
struct hsk_display_msg {
    uint32_t type;       /* enum hsk_display_type */
    uint32_t size_bytes; /* of the whole message */
    union {
        struct {
            uint32_t magic, version;
        } hello;
        struct {
            uint64_t offset; /* of the first pixel in the memfd */
            uint32_t width, height, stride_bytes;
            uint32_t format; /* enum hsk_display_format */
            uint32_t blank;  /* 0/1: show black of this size */
            uint32_t generation;
        } surface;
        struct {
            uint32_t seq;
            uint32_t generation; /* of the surface the rectangles belong to */
            uint32_t count;
            uint32_t reserved;
            struct hsk_display_rect rects[HSK_DISPLAY_MAX_RECTS];
        } dirty;
        struct {
            uint32_t leds, reserved;
        } led;
        struct {
            uint32_t absolute, reserved; /* 0/1: the guest has a tablet */
        } mode;
        struct {
            uint32_t state, reserved; /* enum hsk_display_state */
        } state;
        struct {
            uint32_t seq, reserved;
        } ack;
        struct {
            uint16_t code; /* Linux evdev key code */
            uint16_t down; /* 0/1 */
            uint32_t reserved;
        } key;
        struct {
            uint16_t x, y; /* 0..HSK_DISPLAY_ABS_MAX */
            uint32_t buttons;
        } ptr_abs;
        struct {
            int16_t dx, dy;
            uint32_t buttons;
        } ptr_rel;
        struct {
            int32_t
                clicks_120; /* 120 = one click away from the user, as in evdev's REL_WHEEL_HI_RES */
            uint32_t reserved;
        } wheel;
        struct {
            uint32_t width, height; /* pixels the window could show */
        } size_hint;
        struct {
            uint32_t visible, reserved; /* 0/1 */
        } visible;
    };
};

_Static_assert(sizeof(struct hsk_display_rect) == 8, "wire layout");
_Static_assert(offsetof(struct hsk_display_msg, hello) == 8, "wire layout");
_Static_assert(sizeof(struct hsk_display_msg) == 8 + 16 + 8 * HSK_DISPLAY_MAX_RECTS, "wire layout");

/* The size of a message of this type, 0 for an unknown one. */
uint32_t hsk_display_msg_size(uint32_t type);

/*
 * True if the len received bytes are one message that this side may get (from_machine: the window
 * is asking) with all values in range. For DIRTY the rectangles are only checked against
 * HSK_DISPLAY_MAX_DIM: clip them to the surface.
 */
bool hsk_display_msg_check(const struct hsk_display_msg *msg, size_t len, bool from_machine);

/* True if a picture of this shape lies inside a memfd of fd_size bytes. */
bool hsk_display_surface_ok(uint64_t fd_size, uint64_t offset, uint32_t width, uint32_t height,
                            uint32_t stride_bytes, uint32_t format);
