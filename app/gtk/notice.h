/* SPDX-License-Identifier: MIT */
/* Info bars: what happened, in one sentence, and what can be done about it, as buttons. Never
 * modal. GTK thread. */
#pragma once

#include <gtk/gtk.h>

struct hsk_notice_button {
    const char *label;
    const char *action; /* "win.undo" */
    const char *target; /* string parameter of the action, or NULL */
};

/* Shows a bar in box; one of the same id is replaced. Pressing a button closes it. */
void hsk_notice_show(GtkBox *box, const char *id, GtkMessageType type, const char *text,
                     const struct hsk_notice_button *buttons, unsigned count);
/* id NULL: all of them. */
void hsk_notice_clear(GtkBox *box, const char *id);
