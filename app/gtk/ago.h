/* SPDX-License-Identifier: MIT */
/* Times as people say them. */
#pragma once

#include <glib.h>

/* "14:05", "Yesterday, 14:05", "3 November 2026, 14:05". */
char *hsk_when_text(gint64 time);
/* "just now", "2 minutes ago", "3 hours ago". */
char *hsk_ago_text(gint64 time);
