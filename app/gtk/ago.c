/* SPDX-License-Identifier: MIT */
/* Times as people say them: see ago.h. */
#include "ago.h"

#define DAY_S (24 * 3600)

char *hsk_when_text(gint64 time)
{
    g_autoptr(GDateTime) t = g_date_time_new_from_unix_local(time);
    g_autoptr(GDateTime) now = g_date_time_new_now_local();
    g_autoptr(GDateTime) today =
        g_date_time_new_local(g_date_time_get_year(now), g_date_time_get_month(now),
                              g_date_time_get_day_of_month(now), 0, 0, 0);
    gint64 midnight = g_date_time_to_unix(today);

    if (!t) /* of a year that is none */
        return g_strdup("");
    if (time >= midnight && time < midnight + DAY_S)
        return g_date_time_format(t, "%H:%M");
    if (time < midnight && time >= midnight - DAY_S)
        return g_date_time_format(t, "Yesterday, %H:%M");
    return g_date_time_format(t, "%-e %B %Y, %H:%M");
}

char *hsk_ago_text(gint64 time)
{
    gint64 seconds = g_get_real_time() / G_USEC_PER_SEC - time;

    if (seconds < 5)
        return g_strdup("just now");
    if (seconds < 120)
        return g_strdup_printf("%d seconds ago", (int)seconds);
    if (seconds < 120 * 60)
        return g_strdup_printf("%d minutes ago", (int)(seconds / 60));
    return g_strdup_printf("%d hours ago", (int)MIN(seconds / 3600, 100000));
}
