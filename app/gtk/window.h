/* SPDX-License-Identifier: MIT */
/* The window of one machine. It belongs to GTK: destroyed when closed. GTK thread. */
#pragma once

#include <gtk/gtk.h>

/* Opens a window for an .hva at once and the machine in it as soon as it is there. */
GtkWidget *hsk_window_new(GtkApplication *app, const char *path);
/* The window of this application that shows path, or NULL. */
GtkWidget *hsk_window_find(GtkApplication *app, const char *path);
