/* SPDX-License-Identifier: MIT */
/* Tables of key names and of the US layout (keymap.h). Codes are those of
 * linux/input-event-codes.h. */
#include <display/keymap.h>

#include <linux/input-event-codes.h>

/* The first name of a code is the one hsk_key_name() gives. */
static const struct {
    char name[14];
    uint16_t code;
} names[] = {
    {"a", KEY_A},
    {"b", KEY_B},
    {"c", KEY_C},
    {"d", KEY_D},
    {"e", KEY_E},
    {"f", KEY_F},
    {"g", KEY_G},
    {"h", KEY_H},
    {"i", KEY_I},
    {"j", KEY_J},
    {"k", KEY_K},
    {"l", KEY_L},
    {"m", KEY_M},
    {"n", KEY_N},
    {"o", KEY_O},
    {"p", KEY_P},
    {"q", KEY_Q},
    {"r", KEY_R},
    {"s", KEY_S},
    {"t", KEY_T},
    {"u", KEY_U},
    {"v", KEY_V},
    {"w", KEY_W},
    {"x", KEY_X},
    {"y", KEY_Y},
    {"z", KEY_Z},
    {"0", KEY_0},
    {"1", KEY_1},
    {"2", KEY_2},
    {"3", KEY_3},
    {"4", KEY_4},
    {"5", KEY_5},
    {"6", KEY_6},
    {"7", KEY_7},
    {"8", KEY_8},
    {"9", KEY_9},
    {"f1", KEY_F1},
    {"f2", KEY_F2},
    {"f3", KEY_F3},
    {"f4", KEY_F4},
    {"f5", KEY_F5},
    {"f6", KEY_F6},
    {"f7", KEY_F7},
    {"f8", KEY_F8},
    {"f9", KEY_F9},
    {"f10", KEY_F10},
    {"f11", KEY_F11},
    {"f12", KEY_F12},
    {"ctrl", KEY_LEFTCTRL},
    {"control", KEY_LEFTCTRL},
    {"ctrl_r", KEY_RIGHTCTRL},
    {"shift", KEY_LEFTSHIFT},
    {"shift_r", KEY_RIGHTSHIFT},
    {"alt", KEY_LEFTALT},
    {"altgr", KEY_RIGHTALT},
    {"alt_r", KEY_RIGHTALT},
    {"super", KEY_LEFTMETA},
    {"win", KEY_LEFTMETA},
    {"meta", KEY_LEFTMETA},
    {"super_r", KEY_RIGHTMETA},
    {"menu", KEY_COMPOSE},
    {"esc", KEY_ESC},
    {"escape", KEY_ESC},
    {"tab", KEY_TAB},
    {"enter", KEY_ENTER},
    {"return", KEY_ENTER},
    {"ret", KEY_ENTER},
    {"space", KEY_SPACE},
    {"spc", KEY_SPACE},
    {"backspace", KEY_BACKSPACE},
    {"delete", KEY_DELETE},
    {"del", KEY_DELETE},
    {"insert", KEY_INSERT},
    {"ins", KEY_INSERT},
    {"home", KEY_HOME},
    {"end", KEY_END},
    {"pageup", KEY_PAGEUP},
    {"pgup", KEY_PAGEUP},
    {"pagedown", KEY_PAGEDOWN},
    {"pgdn", KEY_PAGEDOWN},
    {"up", KEY_UP},
    {"down", KEY_DOWN},
    {"left", KEY_LEFT},
    {"right", KEY_RIGHT},
    {"capslock", KEY_CAPSLOCK},
    {"numlock", KEY_NUMLOCK},
    {"scrolllock", KEY_SCROLLLOCK},
    {"print", KEY_SYSRQ},
    {"sysrq", KEY_SYSRQ},
    {"pause", KEY_PAUSE},
    {"minus", KEY_MINUS},
    {"equal", KEY_EQUAL},
    {"leftbrace", KEY_LEFTBRACE},
    {"rightbrace", KEY_RIGHTBRACE},
    {"semicolon", KEY_SEMICOLON},
    {"apostrophe", KEY_APOSTROPHE},
    {"grave", KEY_GRAVE},
    {"backslash", KEY_BACKSLASH},
    {"comma", KEY_COMMA},
    {"dot", KEY_DOT},
    {"period", KEY_DOT},
    {"slash", KEY_SLASH},
    {"less", KEY_102ND},
    {"kp_0", KEY_KP0},
    {"kp_1", KEY_KP1},
    {"kp_2", KEY_KP2},
    {"kp_3", KEY_KP3},
    {"kp_4", KEY_KP4},
    {"kp_5", KEY_KP5},
    {"kp_6", KEY_KP6},
    {"kp_7", KEY_KP7},
    {"kp_8", KEY_KP8},
    {"kp_9", KEY_KP9},
    {"kp_dot", KEY_KPDOT},
    {"kp_enter", KEY_KPENTER},
    {"kp_plus", KEY_KPPLUS},
    {"kp_minus", KEY_KPMINUS},
    {"kp_multiply", KEY_KPASTERISK},
    {"kp_divide", KEY_KPSLASH},
};

/* The US layout, from code 2 on, row by row; 0 where a key types nothing. */
static const struct {
    uint16_t first_code;
    const char *plain, *shifted;
} rows[] = {
    {KEY_1, "1234567890-=", "!@#$%^&*()_+"},
    {KEY_Q, "qwertyuiop[]", "QWERTYUIOP{}"},
    {KEY_A, "asdfghjkl;'`", "ASDFGHJKL:\"~"},
    {KEY_BACKSLASH, "\\zxcvbnm,./", "|ZXCVBNM<>?"},
};

static const struct {
    char ch;
    uint16_t code;
} controls[] = {
    {'\n', KEY_ENTER},     {'\r', KEY_ENTER}, {'\t', KEY_TAB},
    {'\b', KEY_BACKSPACE}, {0x1b, KEY_ESC},   {' ', KEY_SPACE},
};

uint16_t hsk_key_from_name(const char *name)
{
    for (size_t i = 0; i < G_N_ELEMENTS(names); i++)
        if (!g_ascii_strcasecmp(name, names[i].name))
            return names[i].code;
    return 0;
}

const char *hsk_key_name(uint16_t code)
{
    for (size_t i = 0; i < G_N_ELEMENTS(names); i++)
        if (names[i].code == code)
            return names[i].name;
    return NULL;
}

unsigned hsk_key_combo(const char *combo, uint16_t *codes, unsigned max)
{
    g_auto(GStrv) parts = g_strsplit(combo, "+", (int)max + 1);
    unsigned n = 0;

    for (; parts[n]; n++) {
        if (n == max)
            return 0;
        codes[n] = hsk_key_from_name(parts[n]);
        if (!codes[n])
            return 0;
    }
    return n;
}

bool hsk_key_from_char(uint32_t ch, struct hsk_keystroke *out)
{
    if (!ch || ch > 0x7e)
        return false;
    for (size_t i = 0; i < G_N_ELEMENTS(controls); i++) {
        if ((uint32_t)controls[i].ch == ch) {
            *out = (struct hsk_keystroke){.code = controls[i].code};
            return true;
        }
    }
    for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
        const char *plain = strchr(rows[i].plain, (int)ch),
                   *shifted = strchr(rows[i].shifted, (int)ch);

        if (plain || shifted) {
            size_t column =
                plain ? (size_t)(plain - rows[i].plain) : (size_t)(shifted - rows[i].shifted);

            *out = (struct hsk_keystroke){.code = (uint16_t)(rows[i].first_code + column),
                                          .shift = !plain};
            return true;
        }
    }
    return false;
}
