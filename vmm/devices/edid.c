/* SPDX-License-Identifier: MIT */
/*
 * EDID 1.4 base block (VESA E-EDID A2) of a digital monitor without extensions: one detailed timing
 * for the preferred size, the common standard timings, a range and a name. Pure function.
 */
#include "edid.h"

#define DETAILED_AT 54
#define RANGE_AT    72
#define NAME_AT     90
#define SERIAL_AT   108
#define STANDARD_AT 38
#define REFRESH_HZ  60

/* established timings of 640x480, 800x600 and 1024x768 at 60 Hz */
static const uint8_t established[3] = {0x21, 0x08, 0x00};
/* width, and aspect ratio as the format codes it: 0 16:10, 1 4:3, 2 5:4, 3 16:9 */
static const struct {
    uint16_t width;
    uint8_t aspect;
} standard[8] = {{1280, 3}, {1280, 0}, {1280, 2}, {1440, 0},
                 {1600, 3}, {1680, 0}, {1920, 3}, {1920, 0}};

/* Detailed timing descriptor (3.10.2) with reduced blanking: 160 pixels, and 3 % of the lines. */
static void put_detailed(uint8_t *d, uint16_t width, uint16_t height)
{
    const unsigned hblank = 160, vblank = MAX(height * 3u / 100, 10);
    const unsigned hfront = 48, hsync = 32, vfront = 3, vsync = 5;
    const unsigned width_mm = width * 254u / 960, height_mm = height * 254u / 960; /* at 96 dpi */

    hsk_put16(d, (uint16_t)((width + hblank) * (height + vblank) * REFRESH_HZ / 10000));
    d[2] = (uint8_t)width;
    d[3] = hblank;
    d[4] = (uint8_t)(width >> 8 << 4);
    d[5] = (uint8_t)height;
    d[6] = (uint8_t)vblank;
    d[7] = (uint8_t)(height >> 8 << 4);
    d[8] = hfront;
    d[9] = hsync;
    d[10] = vfront << 4 | vsync;
    d[12] = (uint8_t)width_mm;
    d[13] = (uint8_t)height_mm;
    d[14] = (uint8_t)((width_mm >> 8) << 4 | height_mm >> 8);
    d[17] = 0x1e; /* digital separate sync, both positive */
}

static void put_text(uint8_t *d, uint8_t tag, const char *text)
{
    size_t len = strlen(text);

    hsk_assert(len <= 12);
    d[3] = tag;
    memset(d + 5, ' ', 13);
    memcpy(d + 5, text, len);
    d[5 + len] = '\n';
}

void hsk_edid_fill(uint8_t edid[HSK_EDID_BYTES], uint16_t width, uint16_t height)
{
    static const uint8_t header[8] = {0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0};
    /* sRGB primaries and white point (3.7) */
    static const uint8_t chroma[10] = {0xee, 0x91, 0xa3, 0x54, 0x4c, 0x99, 0x26, 0x0f, 0x50, 0x54};
    uint8_t sum = 0, *range = edid + RANGE_AT;

    hsk_assert(width >= 640 && width <= 4095 && height >= 480 && height <= 4095);
    memset(edid, 0, HSK_EDID_BYTES);
    memcpy(edid, header, sizeof header);
    edid[8] = 0x22; /* manufacturer "HSK", five bits a letter */
    edid[9] = 0x6b;
    hsk_put16(edid + 10, 1);
    edid[16] = 1;
    edid[17] = 34; /* 2024 */
    edid[18] = 1;
    edid[19] = 4;
    edid[20] = 0xa5; /* digital, 8 bits per color, DisplayPort */
    edid[21] = (uint8_t)(width * 254u / 9600);
    edid[22] = (uint8_t)(height * 254u / 9600);
    edid[23] = 120;  /* gamma 2.2 */
    edid[24] = 0x06; /* sRGB, the first detailed timing is the native one */
    memcpy(edid + 25, chroma, sizeof chroma);
    memcpy(edid + 35, established, sizeof established);
    for (unsigned i = 0; i < G_N_ELEMENTS(standard); i++) {
        edid[STANDARD_AT + 2 * i] = (uint8_t)(standard[i].width / 8 - 31);
        edid[STANDARD_AT + 2 * i + 1] = (uint8_t)(standard[i].aspect << 6 | (REFRESH_HZ - 60));
    }
    put_detailed(edid + DETAILED_AT, width, height);
    range[3] = 0xfd;
    range[5] = 50; /* vertical 50-125 Hz, horizontal 30-160 kHz, 600 MHz */
    range[6] = 125;
    range[7] = 30;
    range[8] = 160;
    range[9] = 60;
    range[10] = 0x01;
    range[11] = '\n';
    memset(range + 12, ' ', 6);
    put_text(edid + NAME_AT, 0xfc, "Haversack");
    put_text(edid + SERIAL_AT, 0xff, "1");
    for (unsigned i = 0; i < HSK_EDID_BYTES - 1; i++)
        sum = (uint8_t)(sum + edid[i]);
    edid[HSK_EDID_BYTES - 1] = (uint8_t)-sum;
}
