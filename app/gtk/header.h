/* SPDX-License-Identifier: MIT */
/* The machine window's header bar. There are two of them with the same actions: the window's, and
 * full screen's. */
#pragma once

#include <gtk/gtk.h>

/* revert_menu: the model behind the arrow beside Revert. The buttons act through win.* actions. */
GtkWidget *hsk_header_new(GMenuModel *revert_menu);
/* Where the focus goes when the host key leaves the guest. */
void hsk_header_focus(GtkWidget *header);
