/* SPDX-License-Identifier: MIT */
/* Info bars (notice.h). The texts may come from a bundle: they are set as plain text, never as
 * markup. */
#include "notice.h"

#define ID_KEY "hsk-notice-id"

/* What a command prints after its name ("no space left") stands alone here: a capital letter and a
 * full stop. */
static char *sentence(const char *text)
{
    g_autofree char *valid = g_utf8_make_valid(*text ? text : "?", -1);
    g_autofree char *first = g_utf8_strup(valid, g_utf8_next_char(valid) - valid);
    size_t len = strlen(valid);

    return g_strconcat(first, g_utf8_next_char(valid), strchr(".?!:", valid[len - 1]) ? "" : ".",
                       NULL);
}

void hsk_notice_clear(GtkBox *box, const char *id)
{
    g_autoptr(GList) children = gtk_container_get_children(GTK_CONTAINER(box));

    for (GList *l = children; l; l = l->next)
        if (!id || !g_strcmp0(g_object_get_data(l->data, ID_KEY), id))
            gtk_widget_destroy(l->data);
}

static gboolean destroy_later(gpointer bar)
{
    gtk_widget_destroy(bar);
    return G_SOURCE_REMOVE;
}

/* After the button's action has run: the button must still be there while GTK handles the click. */
static void on_done(GtkWidget *widget, GtkWidget *bar)
{
    g_idle_add_full(G_PRIORITY_DEFAULT, destroy_later, g_object_ref(bar), g_object_unref);
}

static void add_button(GtkInfoBar *bar, GtkWidget *button)
{
    gtk_widget_set_focus_on_click(button, FALSE);
    /* After the action that the click stands for. */
    g_signal_connect_after(button, "clicked", G_CALLBACK(on_done), bar);
    gtk_container_add(GTK_CONTAINER(gtk_info_bar_get_action_area(bar)), button);
}

void hsk_notice_show(GtkBox *box, const char *id, GtkMessageType type, const char *text,
                     const struct hsk_notice_button *buttons, unsigned count)
{
    g_autofree char *words = sentence(text);
    GtkWidget *bar = gtk_info_bar_new();
    GtkWidget *label = gtk_label_new(words), *dismiss;

    hsk_notice_clear(box, id);
    g_object_set_data_full(G_OBJECT(bar), ID_KEY, g_strdup(id), g_free);
    gtk_info_bar_set_message_type(GTK_INFO_BAR(bar), type);
    gtk_label_set_line_wrap(GTK_LABEL(label), TRUE);
    gtk_label_set_xalign(GTK_LABEL(label), 0);
    gtk_label_set_selectable(GTK_LABEL(label), type == GTK_MESSAGE_ERROR);
    gtk_widget_set_can_focus(label, FALSE);
    gtk_box_pack_start(GTK_BOX(gtk_info_bar_get_content_area(GTK_INFO_BAR(bar))), label, TRUE, TRUE,
                       0);
    for (unsigned i = 0; i < count; i++) {
        GtkWidget *button = gtk_button_new_with_label(buttons[i].label);

        if (buttons[i].target)
            gtk_actionable_set_action_target(GTK_ACTIONABLE(button), "s", buttons[i].target);
        gtk_actionable_set_action_name(GTK_ACTIONABLE(button), buttons[i].action);
        add_button(GTK_INFO_BAR(bar), button);
    }
    /* GTK's own close button has the name of the window's. */
    dismiss = gtk_button_new_from_icon_name("window-close-symbolic", GTK_ICON_SIZE_BUTTON);
    gtk_button_set_relief(GTK_BUTTON(dismiss), GTK_RELIEF_NONE);
    atk_object_set_name(gtk_widget_get_accessible(dismiss), "Dismiss");
    gtk_widget_set_tooltip_text(dismiss, "Dismiss");
    add_button(GTK_INFO_BAR(bar), dismiss);
    gtk_button_box_set_child_non_homogeneous(
        GTK_BUTTON_BOX(gtk_info_bar_get_action_area(GTK_INFO_BAR(bar))), dismiss, TRUE);
    gtk_widget_show_all(bar);
    gtk_box_pack_start(box, bar, FALSE, FALSE, 0);
}
