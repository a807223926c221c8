/* SPDX-License-Identifier: MIT */
/*
 * evdev key codes to scan codes. The table says set 1, which evdev codes 1-83 are by definition;
 * set 2 is what the keyboard controller's translation (IBM PS/2 hardware interface reference,
 * keyboard controller) makes it from.
 */
#include "keymap.h"

#define E0 0x100 /* prefixed by e0 */

enum { KEY_SYSRQ = 99, KEY_PAUSE = 119, KEY_HANGUL = 122, KEY_HANJA = 123 };

/* Set 1 of the evdev codes above 83. */
static const uint16_t set1_high[] = {
    [85 - 84] = 0x76,       [86 - 84] = 0x56,       [87 - 84] = 0x57,       [88 - 84] = 0x58,
    [89 - 84] = 0x73,       [90 - 84] = 0x78,       [91 - 84] = 0x77,       [92 - 84] = 0x79,
    [93 - 84] = 0x70,       [94 - 84] = 0x7b,       [95 - 84] = 0x5c,       [96 - 84] = E0 | 0x1c,
    [97 - 84] = E0 | 0x1d,  [98 - 84] = E0 | 0x35,  [99 - 84] = E0 | 0x37,  [100 - 84] = E0 | 0x38,
    [102 - 84] = E0 | 0x47, [103 - 84] = E0 | 0x48, [104 - 84] = E0 | 0x49, [105 - 84] = E0 | 0x4b,
    [106 - 84] = E0 | 0x4d, [107 - 84] = E0 | 0x4f, [108 - 84] = E0 | 0x50, [109 - 84] = E0 | 0x51,
    [110 - 84] = E0 | 0x52, [111 - 84] = E0 | 0x53, [113 - 84] = E0 | 0x20, [114 - 84] = E0 | 0x2e,
    [115 - 84] = E0 | 0x30, [116 - 84] = E0 | 0x5e, [117 - 84] = 0x59,      [121 - 84] = 0x7e,
    [124 - 84] = 0x7d,      [125 - 84] = E0 | 0x5b, [126 - 84] = E0 | 0x5c, [127 - 84] = E0 | 0x5d,
    [140 - 84] = E0 | 0x21, [142 - 84] = E0 | 0x5f, [143 - 84] = E0 | 0x63, [155 - 84] = E0 | 0x6c,
    [156 - 84] = E0 | 0x66, [157 - 84] = E0 | 0x6b, [158 - 84] = E0 | 0x6a, [159 - 84] = E0 | 0x69,
    [163 - 84] = E0 | 0x19, [164 - 84] = E0 | 0x22, [165 - 84] = E0 | 0x10, [166 - 84] = E0 | 0x24,
    [172 - 84] = E0 | 0x32, [173 - 84] = E0 | 0x67, [183 - 84] = 0x64,      [184 - 84] = 0x65,
    [185 - 84] = 0x66,      [186 - 84] = 0x67,      [187 - 84] = 0x68,      [188 - 84] = 0x69,
    [189 - 84] = 0x6a,      [190 - 84] = 0x6b,      [191 - 84] = 0x6c,      [192 - 84] = 0x6d,
    [193 - 84] = 0x6e,      [217 - 84] = E0 | 0x65, [226 - 84] = E0 | 0x6d,
};

/* Set 2 of each set 1 code. */
static const uint8_t set2_of_set1[128] = {
    0x00, 0x76, 0x16, 0x1e, 0x26, 0x25, 0x2e, 0x36, 0x3d, 0x3e, 0x46, 0x45, 0x4e, 0x55, 0x66, 0x0d,
    0x15, 0x1d, 0x24, 0x2d, 0x2c, 0x35, 0x3c, 0x43, 0x44, 0x4d, 0x54, 0x5b, 0x5a, 0x14, 0x1c, 0x1b,
    0x23, 0x2b, 0x34, 0x33, 0x3b, 0x42, 0x4b, 0x4c, 0x52, 0x0e, 0x12, 0x5d, 0x1a, 0x22, 0x21, 0x2a,
    0x32, 0x31, 0x3a, 0x41, 0x49, 0x4a, 0x59, 0x7c, 0x11, 0x29, 0x58, 0x05, 0x06, 0x04, 0x0c, 0x03,
    0x0b, 0x83, 0x0a, 0x01, 0x09, 0x77, 0x7e, 0x6c, 0x75, 0x7d, 0x7b, 0x6b, 0x73, 0x74, 0x79, 0x69,
    0x72, 0x7a, 0x70, 0x71, 0x84, 0x60, 0x61, 0x78, 0x07, 0x0f, 0x17, 0x1f, 0x27, 0x2f, 0x37, 0x3f,
    0x47, 0x4f, 0x56, 0x5e, 0x08, 0x10, 0x18, 0x20, 0x28, 0x30, 0x38, 0x40, 0x48, 0x50, 0x57, 0x6f,
    0x13, 0x19, 0x39, 0x51, 0x53, 0x5c, 0x5f, 0x62, 0x63, 0x64, 0x65, 0x67, 0x68, 0x6a, 0x6d, 0x6e,
};

static unsigned bytes(uint8_t *out, const uint8_t *from, unsigned n)
{
    memcpy(out, from, n);
    return n;
}

static unsigned pause_scancode(bool down, unsigned set, bool ctrl, uint8_t *out)
{
    static const uint8_t pause[2][8] = {{0xe1, 0x1d, 0x45, 0xe1, 0x9d, 0xc5},
                                        {0xe1, 0x14, 0x77, 0xe1, 0xf0, 0x14, 0xf0, 0x77}};
    static const uint8_t brk[2][5] = {{0xe0, 0x46, 0xe0, 0xc6}, {0xe0, 0x7e, 0xe0, 0xf0, 0x7e}};

    if (!down)
        return 0;
    if (ctrl)
        return bytes(out, brk[set - 1], set == 1 ? 4 : 5);
    return bytes(out, pause[set - 1], set == 1 ? 6 : 8);
}

unsigned hsk_keymap_scancode(uint16_t code, bool down, unsigned set, struct hsk_key_modifiers mod,
                             uint8_t out[HSK_SCANCODE_MAX])
{
    uint16_t key = 0;
    unsigned n = 0;

    hsk_assert(set == 1 || set == 2);
    if (code == KEY_PAUSE)
        return pause_scancode(down, set, mod.ctrl, out);
    if (code == KEY_HANGUL || code == KEY_HANJA) {
        out[0] = code == KEY_HANGUL ? 0xf2 : 0xf1;
        return down;
    }
    if (code >= 1 && code <= 83)
        key = code;
    else if (code >= 84 && code - 84u < G_N_ELEMENTS(set1_high))
        key = set1_high[code - 84];
    if (code == KEY_SYSRQ && mod.alt)
        key = 0x54;
    if (!key)
        return 0;
    if (key & E0)
        out[n++] = 0xe0;
    key &= 0x7f;
    if (set == 2 && !down)
        out[n++] = 0xf0;
    out[n++] = set == 2 ? set2_of_set1[key] : (uint8_t)(key | (down ? 0 : 0x80));
    return n;
}
