/* SPDX-License-Identifier: MIT */
/* Screenshots and thumbnails: XRGB8888 pixels to PNG. Threads: any, no state. */
#pragma once

#include <base/util.h>

/* pixels NULL: black. NULL with error set on failure. */
GBytes *hsk_png_encode(const uint8_t *pixels, uint32_t width, uint32_t height,
                       uint32_t stride_bytes, GError **error);
/* Shrunk (box filter, same proportions) to fit max_width x max_height; never enlarged. */
GBytes *hsk_png_encode_thumbnail(const uint8_t *pixels, uint32_t width, uint32_t height,
                                 uint32_t stride_bytes, uint32_t max_width, uint32_t max_height,
                                 GError **error);
/* Encodes to a file, which is replaced only when the whole picture is written. */
bool hsk_png_write(const char *path, const uint8_t *pixels, uint32_t width, uint32_t height,
                   uint32_t stride_bytes, GError **error);
