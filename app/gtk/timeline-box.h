/* SPDX-License-Identifier: MIT */
/*
 * The timeline in the list of snapshots: a switch, what it keeps and where, a slider over its
 * points with a button that goes back to the chosen one, and a way to delete them all. GTK thread.
 */
#pragma once

#include <gtk/gtk.h>
#include <jansson.h>
#include <stdbool.h>

struct hsk_timeline_box;

struct hsk_timeline_box_ops {
    void (*set_on)(void *opaque, bool on);
    void (*go_back)(void *opaque, const char *id);
    void (*keep)(void *opaque, const char *id);
    void (*purge)(void *opaque);
    /* Its picture is wanted: hsk_timeline_box_set_picture. */
    void (*chosen)(void *opaque, const char *id);
};

struct hsk_timeline_box *hsk_timeline_box_new(const struct hsk_timeline_box_ops *ops, void *opaque);
void hsk_timeline_box_free(struct hsk_timeline_box *b);
GtkWidget *hsk_timeline_box_widget(struct hsk_timeline_box *b);
/* What the control command "timeline" answers. */
void hsk_timeline_box_set(struct hsk_timeline_box *b, const json_t *timeline);
/* All versions, oldest first; the points are the ones of kind "auto". */
void hsk_timeline_box_set_points(struct hsk_timeline_box *b, const json_t *versions);
/* Of the point with that id; ignored if another one was chosen meanwhile. NULL: it has none. */
void hsk_timeline_box_set_picture(struct hsk_timeline_box *b, const char *id, GdkPixbuf *picture);
