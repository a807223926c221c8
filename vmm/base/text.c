/* SPDX-License-Identifier: MIT */
/*
 * Texts from files, guests and command lines, as one line that a terminal or a window can show (see
 * text.h). Any thread.
 */
#include <base/text.h>

static bool showable(gunichar c)
{
    return c >= 0x20 && (c < 0x7f || c >= 0xa0) && (c < 0x200e || c > 0x200f) &&
           (c < 0x2028 || c > 0x202e) && (c < 0x2066 || c > 0x2069);
}

bool hsk_text_ok(const char *s, size_t max)
{
    size_t len = strlen(s);
    if (len == 0 || len > max || !g_utf8_validate(s, -1, NULL))
        return false;
    for (; *s != '\0'; s = g_utf8_next_char(s)) {
        if (!showable(g_utf8_get_char(s)))
            return false;
    }
    return true;
}

char *hsk_text_line(const char *s)
{
    g_autofree char *valid = g_utf8_make_valid(s, -1);
    g_autoptr(GString) out = g_string_new(NULL);
    for (const char *p = valid; *p != '\0'; p = g_utf8_next_char(p)) {
        gunichar c = g_utf8_get_char(p);
        g_string_append_unichar(out, showable(c) ? c : ' ');
    }
    return g_string_free(g_steal_pointer(&out), FALSE);
}

char *hsk_text_clean(const char *s, size_t max)
{
    g_autofree char *line = hsk_text_line(s);
    if (strlen(line) > max)
        *g_utf8_find_prev_char(line, line + max + 1) = '\0';
    return g_strdup(g_strstrip(line));
}
