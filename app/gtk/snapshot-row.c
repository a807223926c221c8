/* SPDX-License-Identifier: MIT */
/* A row of the list of snapshots: see snapshot-row.h. */
#include "snapshot-row.h"

#include "ago.h"

#define ROW_KEY "hsk-snapshot-row"

struct row {
    char *id, *title;
    bool pinned;
    gint64 own; /* -1: not known */
    int order;
    GtkWidget *picture, *stack, *label, *entry, *line, *pin, *menu_button;
    GMenu *menu;
    hsk_snapshot_renamed_fn renamed;
    void *opaque;
};

static struct row *row_of(GtkWidget *row)
{
    return g_object_get_data(G_OBJECT(row), ROW_KEY);
}

static void row_free(gpointer data)
{
    struct row *r = data;

    g_object_unref(r->menu);
    g_free(r->id);
    g_free(r->title);
    g_free(r);
}

/* ---- the title as an entry ---- */

static void end_edit(struct row *r)
{
    gtk_stack_set_visible_child(GTK_STACK(r->stack), r->label);
}

static void on_entry_done(GtkEntry *entry, GtkWidget *row)
{
    struct row *r = row_of(row);
    g_autofree char *title = g_strstrip(g_strdup(gtk_entry_get_text(entry)));

    end_edit(r);
    gtk_widget_grab_focus(row);
    if (*title && strcmp(title, r->title) != 0)
        r->renamed(r->opaque, r->id, title);
}

static gboolean on_entry_key(GtkWidget *entry, GdkEventKey *event, GtkWidget *row)
{
    if (event->keyval != GDK_KEY_Escape)
        return FALSE;
    end_edit(row_of(row));
    gtk_widget_grab_focus(row);
    return TRUE;
}

static gboolean on_entry_left(GtkWidget *entry, GdkEvent *event, GtkWidget *row)
{
    end_edit(row_of(row));
    return FALSE;
}

void hsk_snapshot_row_edit(GtkWidget *row)
{
    struct row *r = row_of(row);

    gtk_entry_set_text(GTK_ENTRY(r->entry), r->title);
    gtk_stack_set_visible_child(GTK_STACK(r->stack), r->entry);
    gtk_widget_grab_focus(r->entry);
}

/* ---- what it shows ---- */

static void fill_menu(struct row *r)
{
    const struct {
        const char *label, *action;
    } items[] = {
        {"Go Back to It", "snapshots.revert"},
        {"Rename", "snapshots.rename"},
        {"New Machine from It…", "snapshots.clone"},
        {r->pinned ? "Unpin" : "Pin", r->pinned ? "snapshots.unpin" : "snapshots.pin"},
        {"Delete", "snapshots.delete"},
    };

    g_menu_remove_all(r->menu);
    for (size_t i = 0; i < G_N_ELEMENTS(items); i++) {
        g_autoptr(GMenuItem) item = g_menu_item_new(items[i].label, NULL);

        g_menu_item_set_action_and_target(item, items[i].action, "s", r->id);
        g_menu_append_item(r->menu, item);
    }
}

static char *describe(const json_t *version, const struct row *r, bool current)
{
    gint64 time = json_integer_value(json_object_get(version, "time"));
    g_autofree char *when = hsk_when_text(time);
    GString *line = g_string_new(when);
    const json_t *shared = json_object_get(version, "shared");

    if (r->own >= 0) {
        g_autofree char *own = g_format_size((guint64)r->own);
        g_autofree char *rest = g_format_size((guint64)MAX(json_integer_value(shared), 0));

        g_string_append_printf(line, " · %s, %s shared", own, rest);
    }
    if (!json_is_true(json_object_get(version, "has_state")))
        g_string_append(line, " · disks only");
    if (current)
        g_string_append(line, " · current");
    return g_string_free(line, FALSE);
}

void hsk_snapshot_row_set(GtkWidget *row, const json_t *version, bool current, int order)
{
    struct row *r = row_of(row);
    const char *title = json_string_value(json_object_get(version, "title"));
    const json_t *own = json_object_get(version, "own");
    bool pinned = json_is_true(json_object_get(version, "pinned"));
    g_autofree char *line = NULL;

    g_free(r->title);
    r->title = g_strdup(title && *title ? title : "Snapshot");
    r->order = order;
    if (own)
        r->own = json_integer_value(own);
    if (pinned != r->pinned) {
        r->pinned = pinned;
        fill_menu(r);
    }
    gtk_label_set_text(GTK_LABEL(r->label), r->title);
    if (own || r->own < 0) {
        line = describe(version, r, current);
        gtk_label_set_text(GTK_LABEL(r->line), line);
    }
    gtk_widget_set_visible(r->pin, pinned);
    atk_object_set_name(gtk_widget_get_accessible(row), r->title);
}

void hsk_snapshot_row_set_picture(GtkWidget *row, GdkPixbuf *picture)
{
    gtk_image_set_from_pixbuf(GTK_IMAGE(row_of(row)->picture), picture);
}

void hsk_snapshot_row_menu(GtkWidget *row, const GdkEvent *event)
{
    struct row *r = row_of(row);
    GtkWidget *menu;

    if (!event) {
        gtk_button_clicked(GTK_BUTTON(r->menu_button));
        return;
    }
    menu = gtk_menu_new_from_model(G_MENU_MODEL(r->menu));
    gtk_menu_attach_to_widget(GTK_MENU(menu), row, NULL);
    g_signal_connect(menu, "selection-done", G_CALLBACK(gtk_widget_destroy), NULL);
    gtk_menu_popup_at_pointer(GTK_MENU(menu), event);
}

/* ---- asked by the list ---- */

const char *hsk_snapshot_row_id(GtkWidget *row)
{
    return row_of(row)->id;
}

const char *hsk_snapshot_row_title(GtkWidget *row)
{
    return row_of(row)->title;
}

bool hsk_snapshot_row_pinned(GtkWidget *row)
{
    return row_of(row)->pinned;
}

gint64 hsk_snapshot_row_own(GtkWidget *row)
{
    return row_of(row)->own;
}

int hsk_snapshot_row_order(GtkWidget *row)
{
    return row_of(row)->order;
}

/* ---- building ---- */

static GtkWidget *build_words(struct row *r)
{
    GtkWidget *words = gtk_box_new(GTK_ORIENTATION_VERTICAL, 3);
    GtkWidget *top = gtk_box_new(GTK_ORIENTATION_HORIZONTAL, 6);
    PangoAttrList *bold = pango_attr_list_new();

    pango_attr_list_insert(bold, pango_attr_weight_new(PANGO_WEIGHT_BOLD));
    r->label = gtk_label_new(NULL);
    gtk_label_set_attributes(GTK_LABEL(r->label), bold);
    pango_attr_list_unref(bold);
    gtk_label_set_ellipsize(GTK_LABEL(r->label), PANGO_ELLIPSIZE_END);
    gtk_label_set_xalign(GTK_LABEL(r->label), 0);
    r->entry = gtk_entry_new();
    gtk_entry_set_max_length(GTK_ENTRY(r->entry), 200);
    atk_object_set_name(gtk_widget_get_accessible(r->entry), "Title");
    r->stack = gtk_stack_new();
    gtk_stack_set_vhomogeneous(GTK_STACK(r->stack), FALSE);
    gtk_container_add(GTK_CONTAINER(r->stack), r->label);
    gtk_container_add(GTK_CONTAINER(r->stack), r->entry);
    r->pin = gtk_image_new_from_icon_name("view-pin-symbolic", GTK_ICON_SIZE_BUTTON);
    gtk_widget_set_tooltip_text(r->pin, "Pinned: it is not deleted");
    atk_object_set_name(gtk_widget_get_accessible(r->pin), "Pinned");
    gtk_widget_set_no_show_all(r->pin, TRUE);
    gtk_box_pack_start(GTK_BOX(top), r->stack, TRUE, TRUE, 0);
    gtk_box_pack_end(GTK_BOX(top), r->pin, FALSE, FALSE, 0);
    r->line = gtk_label_new(NULL);
    gtk_label_set_xalign(GTK_LABEL(r->line), 0);
    gtk_label_set_ellipsize(GTK_LABEL(r->line), PANGO_ELLIPSIZE_END);
    gtk_style_context_add_class(gtk_widget_get_style_context(r->line), "dim-label");
    gtk_box_pack_start(GTK_BOX(words), top, FALSE, FALSE, 0);
    gtk_box_pack_start(GTK_BOX(words), r->line, FALSE, FALSE, 0);
    gtk_widget_set_valign(words, GTK_ALIGN_CENTER);
    return words;
}

GtkWidget *hsk_snapshot_row_new(const char *id, hsk_snapshot_renamed_fn renamed, void *opaque)
{
    GtkWidget *row = gtk_list_box_row_new(), *box = gtk_box_new(GTK_ORIENTATION_HORIZONTAL, 12);
    struct row *r = g_new0(struct row, 1);

    *r = (struct row){.id = g_strdup(id),
                      .title = g_strdup(""),
                      .own = -1,
                      .menu = g_menu_new(),
                      .renamed = renamed,
                      .opaque = opaque};
    g_object_set_data_full(G_OBJECT(row), ROW_KEY, r, row_free);
    fill_menu(r);
    r->picture = gtk_image_new_from_icon_name("video-display-symbolic", GTK_ICON_SIZE_DIALOG);
    gtk_widget_set_size_request(r->picture, HSK_SNAPSHOT_PICTURE_WIDTH,
                                HSK_SNAPSHOT_PICTURE_HEIGHT);
    r->menu_button = gtk_menu_button_new();
    gtk_button_set_image(GTK_BUTTON(r->menu_button),
                         gtk_image_new_from_icon_name("view-more-symbolic", GTK_ICON_SIZE_BUTTON));
    gtk_button_set_relief(GTK_BUTTON(r->menu_button), GTK_RELIEF_NONE);
    gtk_widget_set_valign(r->menu_button, GTK_ALIGN_CENTER);
    gtk_menu_button_set_menu_model(GTK_MENU_BUTTON(r->menu_button), G_MENU_MODEL(r->menu));
    atk_object_set_name(gtk_widget_get_accessible(r->menu_button), "What to do with it");
    gtk_container_set_border_width(GTK_CONTAINER(box), 6);
    gtk_box_pack_start(GTK_BOX(box), r->picture, FALSE, FALSE, 0);
    gtk_box_pack_start(GTK_BOX(box), build_words(r), TRUE, TRUE, 0);
    gtk_box_pack_end(GTK_BOX(box), r->menu_button, FALSE, FALSE, 0);
    gtk_container_add(GTK_CONTAINER(row), box);
    g_signal_connect(r->entry, "activate", G_CALLBACK(on_entry_done), row);
    g_signal_connect(r->entry, "key-press-event", G_CALLBACK(on_entry_key), row);
    g_signal_connect_after(r->entry, "focus-out-event", G_CALLBACK(on_entry_left), row);
    gtk_widget_show_all(row);
    return row;
}
