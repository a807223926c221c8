/* SPDX-License-Identifier: MIT */
/*
 * Texts that come from elsewhere, made into one line of UTF-8 without controls (a terminal would
 * obey them) and changes of direction (they make a text look like another). Any thread.
 */
#pragma once

#include <base/util.h>

/* One line of UTF-8, not empty, at most max bytes, that a window or a terminal can show as it is. */
bool hsk_text_ok(const char *s, size_t max);
/* The text with a space for each character that cannot be shown. */
char *hsk_text_line(const char *s);
/* The same, without spaces around it and cut off at max bytes; or "". */
char *hsk_text_clean(const char *s, size_t max);
