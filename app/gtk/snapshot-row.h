/* SPDX-License-Identifier: MIT */
/*
 * A row of the list of snapshots: picture, title (which becomes an entry while it is renamed), when
 * and how large, a pin, and a menu of what can be done. Titles may come from a stranger's bundle:
 * they are set as plain text. GTK thread.
 */
#pragma once

#include <gtk/gtk.h>
#include <jansson.h>
#include <stdbool.h>

#define HSK_SNAPSHOT_PICTURE_WIDTH  96
#define HSK_SNAPSHOT_PICTURE_HEIGHT 60

/* The user gave it another title. */
typedef void (*hsk_snapshot_renamed_fn)(void *opaque, const char *id, const char *title);

/* A GtkListBoxRow. The menu's actions are snapshots.* with the id as their target. */
GtkWidget *hsk_snapshot_row_new(const char *id, hsk_snapshot_renamed_fn renamed, void *opaque);
/* version: as "log" tells it, perhaps without sizes; order: rows with a higher one come first. */
void hsk_snapshot_row_set(GtkWidget *row, const json_t *version, bool current, int order);
void hsk_snapshot_row_set_picture(GtkWidget *row, GdkPixbuf *picture);
/* The title becomes an entry. */
void hsk_snapshot_row_edit(GtkWidget *row);
/* At the pointer of event, or (NULL) at the row's button. */
void hsk_snapshot_row_menu(GtkWidget *row, const GdkEvent *event);

const char *hsk_snapshot_row_id(GtkWidget *row);
const char *hsk_snapshot_row_title(GtkWidget *row);
bool hsk_snapshot_row_pinned(GtkWidget *row);
/* What goes when it is deleted; -1: not known yet. */
gint64 hsk_snapshot_row_own(GtkWidget *row);
int hsk_snapshot_row_order(GtkWidget *row);
