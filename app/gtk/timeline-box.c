/* SPDX-License-Identifier: MIT */
/* The timeline in the list of snapshots: see timeline-box.h. */
#include "timeline-box.h"

#include <string.h>

#include "ago.h"

#define PREVIEW_WIDTH  128
#define PREVIEW_HEIGHT 80

struct point {
    char *id;
    gint64 time;
};

struct hsk_timeline_box {
    const struct hsk_timeline_box_ops *ops;
    void *opaque;
    GtkWidget *box, *toggle, *what, *purge, *travel, *picture, *slider, *when;
    GArray *points; /* struct point, oldest first */
    char *chosen;   /* id, or NULL: none yet */
    bool filling;   /* changes of the widgets are ours */
};

static void point_clear(gpointer data)
{
    g_free(((struct point *)data)->id);
}

static const struct point *current_point(struct hsk_timeline_box *b)
{
    double at = gtk_range_get_value(GTK_RANGE(b->slider));

    return b->points->len ? &g_array_index(b->points, struct point,
                                           MIN((guint)MAX(at + 0.5, 0), b->points->len - 1))
                          : NULL;
}

/* The user moved the slider, or the points under it did. */
static void show_chosen(struct hsk_timeline_box *b)
{
    const struct point *p = current_point(b);
    g_autoptr(GDateTime) t = p ? g_date_time_new_from_unix_local(p->time) : NULL;
    g_autofree char *clock = t ? g_date_time_format(t, "%H:%M:%S") : g_strdup("");
    g_autofree char *ago = p ? hsk_ago_text(p->time) : g_strdup("");
    g_autofree char *text = g_strdup_printf("%s, %s", clock, ago);

    gtk_label_set_text(GTK_LABEL(b->when), text);
    if (!p || !g_strcmp0(p->id, b->chosen))
        return;
    g_free(b->chosen);
    b->chosen = g_strdup(p->id);
    b->ops->chosen(b->opaque, b->chosen);
}

static void on_slider(GtkRange *range, struct hsk_timeline_box *b)
{
    if (!b->filling)
        show_chosen(b);
}

static void on_go(GtkButton *button, struct hsk_timeline_box *b)
{
    const struct point *p = current_point(b);

    if (p)
        b->ops->go_back(b->opaque, p->id);
}

static void on_keep(GtkButton *button, struct hsk_timeline_box *b)
{
    const struct point *p = current_point(b);

    if (p)
        b->ops->keep(b->opaque, p->id);
}

static void on_purge(GtkButton *button, struct hsk_timeline_box *b)
{
    b->ops->purge(b->opaque);
}

/* The switch moves once the keeper has said so. */
static gboolean on_toggle(GtkSwitch *toggle, gboolean on, struct hsk_timeline_box *b)
{
    if (b->filling)
        return FALSE;
    b->ops->set_on(b->opaque, on);
    return TRUE;
}

/* ---- what it shows ---- */

void hsk_timeline_box_set(struct hsk_timeline_box *b, const json_t *timeline)
{
    bool on = json_is_true(json_object_get(timeline, "on"));
    int every = (int)json_integer_value(json_object_get(timeline, "every"));
    json_int_t points = json_integer_value(json_object_get(timeline, "points"));
    json_int_t bytes = json_integer_value(json_object_get(timeline, "bytes"));
    g_autofree char *size = g_format_size((guint64)MAX(bytes, 0));
    GString *text = g_string_new(NULL);

    if (on)
        g_string_append_printf(text,
                               "While you work, the machine is kept every %d seconds, for some "
                               "hours. What was in its memory then, passwords too, lies on this "
                               "computer's disk, outside of the document",
                               every);
    else
        g_string_append(text, points ? "Nothing more is kept. What was in the machine's memory "
                                       "still lies on this computer's disk"
                                     : "Nothing is kept but the snapshots that you take");
    if (points)
        g_string_append_printf(text, ": %s.", size);
    else
        g_string_append_c(text, '.');
    gtk_label_set_text(GTK_LABEL(b->what), text->str);
    g_string_free(text, TRUE);
    gtk_widget_set_visible(b->purge, points > 0);
    b->filling = true;
    gtk_switch_set_active(GTK_SWITCH(b->toggle), on);
    gtk_switch_set_state(GTK_SWITCH(b->toggle), on);
    b->filling = false;
}

static void read_points(struct hsk_timeline_box *b, const json_t *versions)
{
    const json_t *v;
    size_t i;

    g_array_set_size(b->points, 0);
    json_array_foreach(versions, i, v)
    {
        const char *id = json_string_value(json_object_get(v, "id"));
        struct point p = {.time = json_integer_value(json_object_get(v, "time"))};

        if (!id || g_strcmp0(json_string_value(json_object_get(v, "kind")), "auto"))
            continue;
        p.id = g_strdup(id);
        g_array_append_val(b->points, p);
    }
}

void hsk_timeline_box_set_points(struct hsk_timeline_box *b, const json_t *versions)
{
    guint last = b->points->len ? b->points->len - 1 : 0, at;
    bool newest = !b->chosen || gtk_range_get_value(GTK_RANGE(b->slider)) + 0.5 >= last;

    read_points(b, versions);
    /* What was chosen stays chosen, and who looks at the newest sees the newest. */
    at = b->points->len ? b->points->len - 1 : 0;
    for (guint i = 0; i < b->points->len && !newest; i++) {
        if (!g_strcmp0(g_array_index(b->points, struct point, i).id, b->chosen))
            at = i;
    }
    b->filling = true;
    gtk_range_set_range(GTK_RANGE(b->slider), 0, MAX((double)b->points->len - 1, 0.001));
    gtk_range_set_value(GTK_RANGE(b->slider), at);
    b->filling = false;
    gtk_widget_set_sensitive(b->slider, b->points->len > 1);
    gtk_widget_set_visible(b->travel, b->points->len > 0);
    if (b->points->len)
        show_chosen(b);
    else
        g_clear_pointer(&b->chosen, g_free);
}

void hsk_timeline_box_set_picture(struct hsk_timeline_box *b, const char *id, GdkPixbuf *picture)
{
    if (g_strcmp0(id, b->chosen))
        return;
    if (picture)
        gtk_image_set_from_pixbuf(GTK_IMAGE(b->picture), picture);
    else
        gtk_image_set_from_icon_name(GTK_IMAGE(b->picture), "video-display-symbolic",
                                     GTK_ICON_SIZE_DIALOG);
}

/* ---- building ---- */

static GtkWidget *build_switch(struct hsk_timeline_box *b)
{
    GtkWidget *top = gtk_box_new(GTK_ORIENTATION_HORIZONTAL, 12);
    GtkWidget *title = gtk_label_new("Timeline");
    PangoAttrList *bold = pango_attr_list_new();

    pango_attr_list_insert(bold, pango_attr_weight_new(PANGO_WEIGHT_BOLD));
    gtk_label_set_attributes(GTK_LABEL(title), bold);
    pango_attr_list_unref(bold);
    gtk_label_set_xalign(GTK_LABEL(title), 0);
    b->toggle = gtk_switch_new();
    atk_object_set_name(gtk_widget_get_accessible(b->toggle), "Timeline");
    gtk_box_pack_start(GTK_BOX(top), title, TRUE, TRUE, 0);
    gtk_box_pack_end(GTK_BOX(top), b->toggle, FALSE, FALSE, 0);
    return top;
}

static GtkWidget *build_travel(struct hsk_timeline_box *b)
{
    GtkWidget *side = gtk_box_new(GTK_ORIENTATION_VERTICAL, 6);
    GtkWidget *bottom = gtk_box_new(GTK_ORIENTATION_HORIZONTAL, 6);
    GtkWidget *keep = gtk_button_new_with_label("Keep");
    GtkWidget *go = gtk_button_new_with_label("Go Back Here");

    b->travel = gtk_box_new(GTK_ORIENTATION_HORIZONTAL, 12);
    b->picture = gtk_image_new_from_icon_name("video-display-symbolic", GTK_ICON_SIZE_DIALOG);
    gtk_widget_set_size_request(b->picture, PREVIEW_WIDTH, PREVIEW_HEIGHT);
    b->slider = gtk_scale_new_with_range(GTK_ORIENTATION_HORIZONTAL, 0, 1, 1);
    gtk_scale_set_draw_value(GTK_SCALE(b->slider), FALSE);
    atk_object_set_name(gtk_widget_get_accessible(b->slider), "Point in time");
    b->when = gtk_label_new(NULL);
    gtk_label_set_xalign(GTK_LABEL(b->when), 0);
    gtk_widget_set_tooltip_text(keep, "It becomes a snapshot, which belongs to the document");
    gtk_box_pack_end(GTK_BOX(bottom), go, FALSE, FALSE, 0);
    gtk_box_pack_end(GTK_BOX(bottom), keep, FALSE, FALSE, 0);
    gtk_box_pack_start(GTK_BOX(side), b->when, FALSE, FALSE, 0);
    gtk_box_pack_start(GTK_BOX(side), b->slider, FALSE, FALSE, 0);
    gtk_box_pack_start(GTK_BOX(side), bottom, FALSE, FALSE, 0);
    gtk_widget_set_valign(side, GTK_ALIGN_CENTER);
    gtk_box_pack_start(GTK_BOX(b->travel), b->picture, FALSE, FALSE, 0);
    gtk_box_pack_start(GTK_BOX(b->travel), side, TRUE, TRUE, 0);
    g_signal_connect(keep, "clicked", G_CALLBACK(on_keep), b);
    g_signal_connect(go, "clicked", G_CALLBACK(on_go), b);
    gtk_widget_show_all(b->travel);
    gtk_widget_hide(b->travel);
    gtk_widget_set_no_show_all(b->travel, TRUE);
    return b->travel;
}

static GtkWidget *build_what(struct hsk_timeline_box *b)
{
    GtkWidget *line = gtk_box_new(GTK_ORIENTATION_HORIZONTAL, 12);

    b->what = gtk_label_new(NULL);
    gtk_label_set_line_wrap(GTK_LABEL(b->what), TRUE);
    gtk_label_set_xalign(GTK_LABEL(b->what), 0);
    gtk_label_set_max_width_chars(GTK_LABEL(b->what), 40);
    gtk_style_context_add_class(gtk_widget_get_style_context(b->what), "dim-label");
    b->purge = gtk_button_new_with_label("Delete All…");
    gtk_widget_set_valign(b->purge, GTK_ALIGN_CENTER);
    gtk_widget_set_no_show_all(b->purge, TRUE);
    gtk_box_pack_start(GTK_BOX(line), b->what, TRUE, TRUE, 0);
    gtk_box_pack_end(GTK_BOX(line), b->purge, FALSE, FALSE, 0);
    return line;
}

struct hsk_timeline_box *hsk_timeline_box_new(const struct hsk_timeline_box_ops *ops, void *opaque)
{
    struct hsk_timeline_box *b = g_new0(struct hsk_timeline_box, 1);

    b->ops = ops;
    b->opaque = opaque;
    b->points = g_array_new(FALSE, TRUE, sizeof(struct point));
    g_array_set_clear_func(b->points, point_clear);
    b->box = gtk_box_new(GTK_ORIENTATION_VERTICAL, 6);
    gtk_container_set_border_width(GTK_CONTAINER(b->box), 12);
    gtk_box_pack_start(GTK_BOX(b->box), build_switch(b), FALSE, FALSE, 0);
    gtk_box_pack_start(GTK_BOX(b->box), build_what(b), FALSE, FALSE, 0);
    gtk_box_pack_start(GTK_BOX(b->box), build_travel(b), FALSE, FALSE, 0);
    g_signal_connect(b->toggle, "state-set", G_CALLBACK(on_toggle), b);
    g_signal_connect(b->slider, "value-changed", G_CALLBACK(on_slider), b);
    g_signal_connect(b->purge, "clicked", G_CALLBACK(on_purge), b);
    return b;
}

void hsk_timeline_box_free(struct hsk_timeline_box *b)
{
    g_array_unref(b->points);
    g_free(b->chosen);
    g_free(b);
}

GtkWidget *hsk_timeline_box_widget(struct hsk_timeline_box *b)
{
    return b->box;
}
