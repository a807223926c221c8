/* SPDX-License-Identifier: MIT */
/* Pictures come back from their PNG as they went in. */
#include <display/png.h>

#include <png.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static uint8_t *decode(GBytes *bytes, uint32_t *width, uint32_t *height)
{
    png_image image = {.version = PNG_IMAGE_VERSION};
    uint8_t *rgb;

    assert_non_null(bytes);
    assert_true(png_image_begin_read_from_memory(&image, g_bytes_get_data(bytes, NULL),
                                                 g_bytes_get_size(bytes)));
    image.format = PNG_FORMAT_RGB;
    rgb = g_malloc(PNG_IMAGE_SIZE(image));
    assert_true(png_image_finish_read(&image, NULL, rgb, 0, NULL));
    *width = image.width;
    *height = image.height;
    return rgb;
}

static void pixels_survive_with_a_wide_stride(void **state)
{
    static const uint8_t px[2][16] = {{1, 2, 3, 0, 4, 5, 6, 0}, {7, 8, 9, 0, 10, 11, 12, 0}};
    static const uint8_t want[12] = {3, 2, 1, 6, 5, 4, 9, 8, 7, 12, 11, 10};
    g_autoptr(GBytes) png = hsk_png_encode(px[0], 2, 2, 16, NULL);
    uint32_t w, h;
    g_autofree uint8_t *rgb = decode(png, &w, &h);

    assert_int_equal(w, 2);
    assert_int_equal(h, 2);
    assert_memory_equal(rgb, want, sizeof(want));
}

static void a_thumbnail_keeps_the_proportions_and_averages(void **state)
{
    g_autofree uint8_t *px = g_malloc0(1280 * 800 * 4);
    g_autoptr(GBytes) png = NULL;
    g_autofree uint8_t *rgb = NULL;
    uint32_t w, h;

    for (size_t i = 0; i < 1280 * 800; i++)
        px[i * 4 + 1] = i % 2 ? 200 : 100;
    png = hsk_png_encode_thumbnail(px, 1280, 800, 1280 * 4, 320, 320, NULL);
    rgb = decode(png, &w, &h);
    assert_int_equal(w, 320);
    assert_int_equal(h, 200);
    for (size_t i = 0; i < 320 * 200; i++)
        assert_int_equal(rgb[i * 3 + 1], 150);
}

static void no_pixels_are_black_and_nonsense_is_refused(void **state)
{
    g_autoptr(GBytes) png = hsk_png_encode(NULL, 3, 3, 12, NULL);
    static const uint8_t black[27] = {0};
    GError *error = NULL;
    uint32_t w, h;
    g_autofree uint8_t *rgb = decode(png, &w, &h);

    assert_memory_equal(rgb, black, sizeof(black));
    assert_null(hsk_png_encode(black, 0, 3, 12, &error));
    assert_non_null(error);
    g_clear_error(&error);
    assert_null(hsk_png_encode(black, 3, 3, 8, NULL));
    assert_null(hsk_png_encode(NULL, 1u << 30, 1u << 30, UINT32_MAX, NULL));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pixels_survive_with_a_wide_stride),
        cmocka_unit_test(a_thumbnail_keeps_the_proportions_and_averages),
        cmocka_unit_test(no_pixels_are_black_and_nonsense_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
