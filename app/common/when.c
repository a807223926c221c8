/* SPDX-License-Identifier: MIT */
/* Moments as people write them: see when.h. */
#include "common/when.h"

#include <stdio.h>
#include <stdlib.h>

static bool relative(const char *text, int64_t now, int64_t *when)
{
    static const struct {
        char letter;
        int64_t seconds;
    } units[] = {{'s', 1}, {'m', 60}, {'h', 3600}, {'d', 86400}};
    char *end = NULL;
    gint64 n;

    if (text[0] != '-' || !g_ascii_isdigit(text[1]))
        return false;
    n = g_ascii_strtoll(text + 1, &end, 10);
    if (n > G_MAXINT32 || end[0] == 0 || end[1] != 0)
        return false;
    for (unsigned i = 0; i < G_N_ELEMENTS(units); i++) {
        if (units[i].letter == end[0]) {
            *when = now - n * units[i].seconds;
            return true;
        }
    }
    return false;
}

static bool clock_time(const char *text, int64_t now, int64_t *when)
{
    unsigned hour, minute, second = 0;
    int used = 0;

    if (sscanf(text, "%2u:%2u%n", &hour, &minute, &used) != 2)
        return false;
    if (text[used] == ':') {
        int more = 0;
        if (sscanf(text + used, ":%2u%n", &second, &more) != 1)
            return false;
        used += more;
    }
    if (text[used] || hour > 23 || minute > 59 || second > 59)
        return false;
    g_autoptr(GDateTime) today = g_date_time_new_from_unix_local(now);
    g_autoptr(GDateTime) at = g_date_time_new_local(
        g_date_time_get_year(today), g_date_time_get_month(today),
        g_date_time_get_day_of_month(today), (int)hour, (int)minute, second);
    if (!at)
        return false;
    g_autoptr(GDateTime) before = g_date_time_add_days(at, -1);
    *when = g_date_time_to_unix(at) <= now ? g_date_time_to_unix(at) : g_date_time_to_unix(before);
    return true;
}

bool hsk_parse_when(const char *text, int64_t now, int64_t *when, GError **error)
{
    if (relative(text, now, when) || clock_time(text, now, when))
        return true;
    g_autoptr(GTimeZone) here = g_time_zone_new_local();
    g_autofree char *iso = g_strdelimit(g_strdup(text), " ", 'T');
    g_autoptr(GDateTime) at = g_date_time_new_from_iso8601(iso, here);
    if (at) {
        *when = g_date_time_to_unix(at);
        return true;
    }
    g_set_error(error, HSK_ERROR, HSK_ERROR_USAGE,
                "\"%s\" is no time; write -30s, -5m, -2h, 14:05:10 or 2026-11-22T14:05:10", text);
    return false;
}
