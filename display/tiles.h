/* SPDX-License-Identifier: MIT */
/* Damage of one picture as a set of 64x64 tiles, and its rectangles. Internal to display/. No
 * thread of its own. */
#pragma once

#include <display/proto.h>

struct hsk_tiles {
    uint32_t width, height; /* of the picture in pixels */
    uint32_t columns, rows;
    bool any;
    uint8_t *dirty; /* columns * rows */
};

void hsk_tiles_init(struct hsk_tiles *t, uint32_t width, uint32_t height);
void hsk_tiles_finish(struct hsk_tiles *t);
/* Clips. */
void hsk_tiles_add(struct hsk_tiles *t, uint32_t x, uint32_t y, uint32_t width, uint32_t height);
/* Marks what the written pages of a memfd (bit per 4096 bytes) hold of a picture at offset; returns
 * whether any. */
bool hsk_tiles_add_pages(struct hsk_tiles *t, const uint8_t *bitmap, size_t bitmap_bytes,
                         uint64_t offset, uint32_t stride_bytes);
/* Empties the set into rectangles that cover it; returns their number. */
unsigned hsk_tiles_take(struct hsk_tiles *t, struct hsk_display_rect rects[HSK_DISPLAY_MAX_RECTS]);
