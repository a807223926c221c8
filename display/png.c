/* SPDX-License-Identifier: MIT */
/* PNG by libpng: 8-bit RGB, fast compression. See png.h. */
#include <display/png.h>

#include <errno.h>
#include <png.h>
#include <stdio.h>

#define MAX_DIM 16384u

static void on_write(png_structp png, png_bytep data, size_t len)
{
    g_byte_array_append(png_get_io_ptr(png), data, (guint)len);
}

static void on_flush(png_structp png)
{
}

static void on_error(png_structp png, png_const_charp text)
{
    longjmp(png_jmpbuf(png), 1);
}

static void on_warning(png_structp png, png_const_charp text)
{
}

/* The part between setjmp and the end: keeps no local that longjmp could spoil. */
static bool write_rows(png_structp png, png_infop info, const uint8_t *rgb, uint32_t width,
                       uint32_t height)
{
    if (setjmp(png_jmpbuf(png)))
        return false;
    png_set_IHDR(png, info, width, height, 8, PNG_COLOR_TYPE_RGB, PNG_INTERLACE_NONE,
                 PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
    png_set_compression_level(png, 3);
    png_write_info(png, info);
    for (uint32_t y = 0; y < height; y++)
        png_write_row(png, rgb + (size_t)y * width * 3);
    png_write_end(png, info);
    return true;
}

static GBytes *encode_rgb(const uint8_t *rgb, uint32_t width, uint32_t height, GError **error)
{
    g_autoptr(GByteArray) out = g_byte_array_new();
    png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, NULL, on_error, on_warning);
    png_infop info = png ? png_create_info_struct(png) : NULL;
    bool ok = false;

    if (info) {
        png_set_write_fn(png, out, on_write, on_flush);
        ok = write_rows(png, info, rgb, width, height);
    }
    png_destroy_write_struct(&png, &info);
    if (!ok) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_FAILED,
                    "The picture of the screen could not be encoded.");
        return NULL;
    }
    return g_byte_array_free_to_bytes(g_steal_pointer(&out));
}

/* The average of the source pixels that fall into each target pixel. */
static void shrink(uint8_t *rgb, uint32_t out_width, uint32_t out_height, const uint8_t *pixels,
                   uint32_t width, uint32_t height, uint32_t stride_bytes)
{
    for (uint32_t y = 0; y < out_height; y++) {
        uint32_t top = (uint32_t)((uint64_t)y * height / out_height);
        uint32_t bottom = MAX((uint32_t)((uint64_t)(y + 1) * height / out_height), top + 1);

        for (uint32_t x = 0; x < out_width; x++) {
            uint32_t left = (uint32_t)((uint64_t)x * width / out_width);
            uint32_t right = MAX((uint32_t)((uint64_t)(x + 1) * width / out_width), left + 1);
            uint64_t sum[3] = {0}, n = (uint64_t)(bottom - top) * (right - left);

            for (uint32_t sy = top; sy < bottom; sy++) {
                const uint8_t *p = pixels + (size_t)sy * stride_bytes + (size_t)left * 4;

                for (uint32_t sx = left; sx < right; sx++, p += 4) {
                    sum[0] += p[2];
                    sum[1] += p[1];
                    sum[2] += p[0];
                }
            }
            for (int i = 0; i < 3; i++)
                *rgb++ = (uint8_t)(sum[i] / n);
        }
    }
}

GBytes *hsk_png_encode_thumbnail(const uint8_t *pixels, uint32_t width, uint32_t height,
                                 uint32_t stride_bytes, uint32_t max_width, uint32_t max_height,
                                 GError **error)
{
    uint32_t out_width = width, out_height = height;
    g_autofree uint8_t *rgb = NULL;

    if (!width || !height || width > MAX_DIM || height > MAX_DIM || stride_bytes < width * 4 ||
        !max_width || !max_height) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_FAILED, "A picture of %ux%u cannot be saved.",
                    width, height);
        return NULL;
    }
    if (out_width > max_width) {
        out_height = MAX((uint32_t)((uint64_t)out_height * max_width / out_width), 1);
        out_width = max_width;
    }
    if (out_height > max_height) {
        out_width = MAX((uint32_t)((uint64_t)out_width * max_height / out_height), 1);
        out_height = max_height;
    }
    rgb = g_try_malloc0((size_t)out_width * out_height * 3);
    if (!rgb) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_FAILED, "Not enough memory for a picture of %ux%u.",
                    width, height);
        return NULL;
    }
    if (pixels)
        shrink(rgb, out_width, out_height, pixels, width, height, stride_bytes);
    return encode_rgb(rgb, out_width, out_height, error);
}

GBytes *hsk_png_encode(const uint8_t *pixels, uint32_t width, uint32_t height,
                       uint32_t stride_bytes, GError **error)
{
    return hsk_png_encode_thumbnail(pixels, width, height, stride_bytes, width, height, error);
}

bool hsk_png_write(const char *path, const uint8_t *pixels, uint32_t width, uint32_t height,
                   uint32_t stride_bytes, GError **error)
{
    g_autoptr(GBytes) png = hsk_png_encode(pixels, width, height, stride_bytes, error);
    gsize size;
    const void *data;

    if (!png)
        return false;
    data = g_bytes_get_data(png, &size);
    return g_file_set_contents(path, data, (gssize)size, error);
}
