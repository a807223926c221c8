/* SPDX-License-Identifier: MIT */
/*
 * HskScreen: the guest's screen as a GTK 3 widget on top of display/client.h.
 *
 * While it has the focus every key of its window goes to the guest, except the host key (Right
 * Ctrl): held with another key it emits "host-key", pressed alone it emits "leave" (or takes the
 * focus back). Threads: the GTK thread.
 *
 * Signals:
 *   "host-key" (guint evdev code) -> gboolean: handled
 *   "leave": the host key was pressed alone inside the guest; move the focus elsewhere
 *   "lost" (const char *why or NULL): the machine's socket ended; the last picture stays, dimmed
 *   "shape": the picture has another size
 */
#pragma once

#include <display/client.h>

#include <gtk/gtk.h>

#define HSK_TYPE_SCREEN hsk_screen_get_type()
G_DECLARE_FINAL_TYPE(HskScreen, hsk_screen, HSK, SCREEN, GtkDrawingArea)

GtkWidget *hsk_screen_new(void);
/* A connected display socket (taken). The old picture stays until the new machine's first one. */
void hsk_screen_attach(HskScreen *s, int sock);
bool hsk_screen_attached(HskScreen *s);
/* false: whole-number zoom, or smaller to fit; true: as large as fits. */
void hsk_screen_set_fit(HskScreen *s, bool fit);
/* Lifts all keys that the guest believes to be held. */
void hsk_screen_release_keys(HskScreen *s);
struct hsk_display_view hsk_screen_view(HskScreen *s);
