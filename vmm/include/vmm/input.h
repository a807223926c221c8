/* SPDX-License-Identifier: MIT */
/* What the display side sees of a machine: the picture's place in memory, and where keys and the
 * pointer go. */
#pragma once

#include <vmm/memory.h>

enum hsk_pixel_format { HSK_PIXEL_XRGB8888 = 1 }; /* little-endian: bytes B G R X */

struct hsk_scanout {
    struct hsk_memobj
        *obj; /* the picture is inside this object (HSK_PAGE_DAMAGE tells what changed) */
    uint64_t offset;
    uint32_t width, height, stride_bytes;
    uint32_t format; /* enum hsk_pixel_format */
    bool blank;      /* mode not set yet or display off: show black of this size */
};

/* Loop thread. code: Linux evdev key code; coordinates 0..32767 over the whole screen; buttons: bit
 * 0 left, 1 right, 2 middle. */
struct hsk_input {
    void (*key)(struct hsk_input *in, uint16_t code, bool down);
    void (*pointer_abs)(struct hsk_input *in, uint16_t x, uint16_t y, uint8_t buttons);
    void (*pointer_rel)(struct hsk_input *in, int16_t dx, int16_t dy, uint8_t buttons);
    void (*wheel)(struct hsk_input *in, int16_t clicks);
    void (*release_all)(struct hsk_input *in);
};
