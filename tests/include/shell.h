/* SPDX-License-Identifier: MIT */
/* For tests that ask other programs: a line of shell, printf style, and its exit status. After cmocka.h. */
#pragma once

#include <glib.h>
#include <stdarg.h>

static inline int run(const char *fmt, ...) G_GNUC_PRINTF(1, 2);
static inline int run(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    g_autofree char *script = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    char *argv[] = {(char *)"sh", (char *)"-c", script, NULL};
    int status = -1;
    assert_true(
        g_spawn_sync(NULL, argv, NULL, G_SPAWN_SEARCH_PATH, NULL, NULL, NULL, NULL, &status, NULL));
    return status;
}
