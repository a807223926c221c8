/* SPDX-License-Identifier: MIT */
/*
 * Damage as 64x64 tiles. A page is mapped to the lines it covers; with more dirty areas than a
 * message has room for, the last rectangle grows over the rest: drawing too much is only slower.
 */
#include "tiles.h"

#define TILE 64u

void hsk_tiles_init(struct hsk_tiles *t, uint32_t width, uint32_t height)
{
    t->width = width;
    t->height = height;
    t->columns = (width + TILE - 1) / TILE;
    t->rows = (height + TILE - 1) / TILE;
    t->any = false;
    t->dirty = g_malloc0((size_t)t->columns * t->rows + 1);
}

void hsk_tiles_finish(struct hsk_tiles *t)
{
    g_clear_pointer(&t->dirty, g_free);
}

void hsk_tiles_add(struct hsk_tiles *t, uint32_t x, uint32_t y, uint32_t width, uint32_t height)
{
    uint32_t right, bottom;

    if (x >= t->width || y >= t->height || !width || !height)
        return;
    right = (x + MIN(width, t->width - x) - 1) / TILE;
    bottom = (y + MIN(height, t->height - y) - 1) / TILE;
    for (uint32_t row = y / TILE; row <= bottom; row++)
        memset(t->dirty + (size_t)row * t->columns + x / TILE, 1, right - x / TILE + 1);
    t->any = true;
}

static void add_page(struct hsk_tiles *t, uint64_t page, uint64_t offset, uint32_t stride_bytes)
{
    uint64_t picture_end = (uint64_t)stride_bytes * t->height;
    uint64_t start = page * HSK_PAGE_SIZE, end = start + HSK_PAGE_SIZE;
    uint32_t first, last;

    if (end <= offset || start >= offset + picture_end)
        return;
    start = start > offset ? start - offset : 0;
    end = MIN(end - offset, picture_end);
    first = (uint32_t)(start / stride_bytes);
    last = (uint32_t)((end - 1) / stride_bytes);
    if (first == last) {
        uint32_t left = (uint32_t)(start % stride_bytes) / 4,
                 right = (uint32_t)((end - 1) % stride_bytes) / 4;

        hsk_tiles_add(t, left, first, right - left + 1, 1);
    } else {
        hsk_tiles_add(t, 0, first, t->width, last - first + 1);
    }
}

bool hsk_tiles_add_pages(struct hsk_tiles *t, const uint8_t *bitmap, size_t bitmap_bytes,
                         uint64_t offset, uint32_t stride_bytes)
{
    uint64_t first = offset / HSK_PAGE_SIZE;
    uint64_t end =
        (offset + (uint64_t)stride_bytes * t->height + HSK_PAGE_SIZE - 1) / HSK_PAGE_SIZE;
    bool had = t->any, found;

    t->any = false;
    for (uint64_t page = first; page < MIN(end, (uint64_t)bitmap_bytes * 8); page++)
        if (bitmap[page / 8] & (1u << (page % 8)))
            add_page(t, page, offset, stride_bytes);
    found = t->any;
    t->any = had || found;
    return found;
}

/* Rectangles are collected in tile units; a run that continues the one above it makes that one
 * longer. */
struct run_rects {
    struct {
        uint32_t left, right, top, bottom; /* bottom exclusive */
    } r[HSK_DISPLAY_MAX_RECTS];
    unsigned n;
};

static void add_run(struct run_rects *out, uint32_t row, uint32_t left, uint32_t right)
{
    for (unsigned i = 0; i < out->n; i++) {
        if (out->r[i].bottom == row && out->r[i].left == left && out->r[i].right == right) {
            out->r[i].bottom = row + 1;
            return;
        }
    }
    if (out->n < HSK_DISPLAY_MAX_RECTS) {
        out->r[out->n].left = left;
        out->r[out->n].right = right;
        out->r[out->n].top = row;
        out->r[out->n++].bottom = row + 1;
        return;
    }
    out->r[out->n - 1].left = MIN(out->r[out->n - 1].left, left);
    out->r[out->n - 1].right = MAX(out->r[out->n - 1].right, right);
    out->r[out->n - 1].bottom = row + 1;
}

unsigned hsk_tiles_take(struct hsk_tiles *t, struct hsk_display_rect rects[HSK_DISPLAY_MAX_RECTS])
{
    struct run_rects runs = {.n = 0};

    if (!t->any)
        return 0;
    for (uint32_t row = 0; row < t->rows; row++) {
        const uint8_t *line = t->dirty + (size_t)row * t->columns;

        for (uint32_t c = 0; c < t->columns; c++) {
            uint32_t left = c;

            while (c < t->columns && line[c])
                c++;
            if (c > left)
                add_run(&runs, row, left, c);
        }
    }
    for (unsigned i = 0; i < runs.n; i++) {
        rects[i].x = (uint16_t)(runs.r[i].left * TILE);
        rects[i].y = (uint16_t)(runs.r[i].top * TILE);
        rects[i].width = (uint16_t)(MIN(runs.r[i].right * TILE, t->width) - rects[i].x);
        rects[i].height = (uint16_t)(MIN(runs.r[i].bottom * TILE, t->height) - rects[i].y);
    }
    memset(t->dirty, 0, (size_t)t->columns * t->rows);
    t->any = false;
    return runs.n;
}
