/* SPDX-License-Identifier: MIT */
/* Header bar (header.h). Every button has an accessible name equal to what it does, and a tooltip
 * with its host key. */
#include "header.h"

#define FIRST_KEY "hsk-first-button"

static void describe(GtkWidget *widget, const char *name, const char *tooltip)
{
    atk_object_set_name(gtk_widget_get_accessible(widget), name);
    /* A click leaves the keyboard where it is: in the guest. */
    gtk_widget_set_focus_on_click(widget, FALSE);
    gtk_widget_set_tooltip_text(widget, tooltip);
}

static GtkWidget *text_button(const char *icon, const char *label, const char *action,
                              const char *tooltip)
{
    GtkWidget *button = gtk_button_new_with_label(label);

    gtk_button_set_image(GTK_BUTTON(button),
                         gtk_image_new_from_icon_name(icon, GTK_ICON_SIZE_BUTTON));
    gtk_button_set_always_show_image(GTK_BUTTON(button), TRUE);
    gtk_style_context_add_class(gtk_widget_get_style_context(button), "image-button");
    gtk_actionable_set_action_name(GTK_ACTIONABLE(button), action);
    describe(button, label, tooltip);
    return button;
}

static GtkWidget *icon_toggle(const char *icon, const char *name, const char *action,
                              const char *tooltip)
{
    GtkWidget *button = gtk_toggle_button_new();

    gtk_button_set_image(GTK_BUTTON(button),
                         gtk_image_new_from_icon_name(icon, GTK_ICON_SIZE_BUTTON));
    gtk_actionable_set_action_name(GTK_ACTIONABLE(button), action);
    describe(button, name, tooltip);
    return button;
}

static GtkWidget *menu_button(const char *icon, const char *name, const char *tooltip,
                              GMenuModel *model)
{
    GtkWidget *button = gtk_menu_button_new();

    gtk_button_set_image(GTK_BUTTON(button),
                         gtk_image_new_from_icon_name(icon, GTK_ICON_SIZE_BUTTON));
    gtk_menu_button_set_menu_model(GTK_MENU_BUTTON(button), model);
    describe(button, name, tooltip);
    return button;
}

static GMenuModel *main_menu(void)
{
    GMenu *menu = g_menu_new(), *keys = g_menu_new(), *power = g_menu_new(), *rest = g_menu_new();

    g_menu_append(keys, "Take Screenshot…", "win.screenshot");
    g_menu_append(keys, "Send Ctrl+Alt+Delete", "win.ctrl-alt-delete");
    g_menu_append(keys, "New Machine from This…", "win.clone::");
    g_menu_append(power, "Press Power Button", "win.power");
    g_menu_append(power, "Reset", "win.reset");
    g_menu_append(power, "Power Off", "win.power-off");
    g_menu_append(rest, "About Haversack", "app.about");
    g_menu_append_section(menu, NULL, G_MENU_MODEL(keys));
    g_menu_append_section(menu, NULL, G_MENU_MODEL(power));
    g_menu_append_section(menu, NULL, G_MENU_MODEL(rest));
    g_object_unref(keys);
    g_object_unref(power);
    g_object_unref(rest);
    return G_MENU_MODEL(menu);
}

GtkWidget *hsk_header_new(GMenuModel *revert_menu)
{
    GtkWidget *header = gtk_header_bar_new();
    GtkWidget *snapshot = text_button("camera-photo-symbolic", "Snapshot", "win.snapshot",
                                      "Keep this moment (Right Ctrl + S)");
    GtkWidget *revert =
        text_button("edit-undo-symbolic", "Revert", "win.revert",
                    "Go back to the last snapshot; what you have now is kept (Right Ctrl + Z)");
    GtkWidget *versions =
        menu_button("pan-down-symbolic", "Revert to…", "Go back to an older snapshot", revert_menu);
    GtkWidget *linked = gtk_box_new(GTK_ORIENTATION_HORIZONTAL, 0);
    g_autoptr(GMenuModel) menu = main_menu();

    gtk_style_context_add_class(gtk_widget_get_style_context(linked), "linked");
    gtk_container_add(GTK_CONTAINER(linked), revert);
    gtk_container_add(GTK_CONTAINER(linked), versions);
    gtk_header_bar_pack_start(GTK_HEADER_BAR(header), snapshot);
    gtk_header_bar_pack_start(GTK_HEADER_BAR(header), linked);
    gtk_header_bar_pack_end(GTK_HEADER_BAR(header),
                            menu_button("open-menu-symbolic", "Menu", "Menu", menu));
    gtk_header_bar_pack_end(GTK_HEADER_BAR(header),
                            icon_toggle("view-fullscreen-symbolic", "Full screen", "win.fullscreen",
                                        "Full screen (Right Ctrl + F)"));
    gtk_header_bar_pack_end(GTK_HEADER_BAR(header),
                            icon_toggle("media-playback-pause-symbolic", "Pause", "win.pause",
                                        "Pause (Right Ctrl + P)"));
    gtk_header_bar_set_show_close_button(GTK_HEADER_BAR(header), TRUE);
    g_object_set_data(G_OBJECT(header), FIRST_KEY, snapshot);
    return header;
}

void hsk_header_focus(GtkWidget *header)
{
    gtk_widget_grab_focus(g_object_get_data(G_OBJECT(header), FIRST_KEY));
}
