/* SPDX-License-Identifier: MIT */
/*
 * The list of snapshots (snapshots.h). It shows what the keeper says, asked again whenever versions
 * change and every few seconds while it is open; rows stay the same ones, so that a title can be
 * written in peace. Pictures are asked for one after the other, the timeline's first.
 *
 * Titles and pictures may be a stranger's: text without markup, and PNG only, of small size.
 */
#include "snapshots.h"

#include <gdk/gdkkeysyms.h>

#include "machine-window.h"
#include "snapshot-row.h"
#include "timeline-box.h"

#define AGAIN_S     3
#define WIDTH       500
#define HEIGHT      600
#define MAX_PICTURE 1024 /* pixels each way */
#define POINT_SCALE 4    /* a point's picture, in thirds of a row's */

struct hsk_snapshots {
    struct machine_window *w;
    GtkWidget *window, *list;
    GtkBox *notices;
    struct hsk_timeline_box *timeline;
    GHashTable *rows; /* id -> row */
    GQueue pictures;  /* ids whose picture is still to be asked for */
    char *point;      /* the same of the timeline, or NULL */
    char *asked;      /* whose picture is under way, or NULL */
    guint again;
};

static void call(struct hsk_snapshots *s, const char *cmd, json_t *args, hsk_control_reply_fn fn)
{
    if (s->w->control && s->w->phase == PHASE_LIVE)
        hsk_control_call(s->w->control, cmd, args, fn, s);
    else
        json_decref(args);
}

static const char *string_of(const json_t *object, const char *key)
{
    return json_string_value(json_object_get(object, key));
}

/* ---- pictures ---- */

/* A size of nothing ends the loading, before it takes memory. */
static void on_size(GdkPixbufLoader *loader, int width, int height, gpointer opaque)
{
    if (width > MAX_PICTURE || height > MAX_PICTURE)
        gdk_pixbuf_loader_set_size(loader, 0, 0);
}

static GdkPixbuf *decode(const char *base64)
{
    g_autoptr(GdkPixbufLoader) loader = gdk_pixbuf_loader_new_with_type("png", NULL);
    gsize n = 0;
    g_autofree guchar *png = g_base64_decode(base64, &n);

    if (!loader)
        return NULL;
    g_signal_connect(loader, "size-prepared", G_CALLBACK(on_size), NULL);
    bool good = gdk_pixbuf_loader_write(loader, png, n, NULL);
    good = gdk_pixbuf_loader_close(loader, NULL) && good;
    GdkPixbuf *p = good ? gdk_pixbuf_loader_get_pixbuf(loader) : NULL;
    return p ? g_object_ref(p) : NULL;
}

/* As large as fits. */
static GdkPixbuf *fit(const GdkPixbuf *p, int width, int height)
{
    int w = gdk_pixbuf_get_width(p), h = gdk_pixbuf_get_height(p);
    double scale = MIN((double)width / w, (double)height / h);

    return gdk_pixbuf_scale_simple(p, MAX((int)(w * scale), 1), MAX((int)(h * scale), 1),
                                   GDK_INTERP_BILINEAR);
}

static void next_picture(struct hsk_snapshots *s);

static void on_picture(void *opaque, json_t *reply, const char *error)
{
    struct hsk_snapshots *s = opaque;
    g_autofree char *id = g_steal_pointer(&s->asked);
    const char *base64 = error ? NULL : string_of(reply, "png");
    g_autoptr(GdkPixbuf) picture = base64 ? decode(base64) : NULL;
    GtkWidget *row = id ? g_hash_table_lookup(s->rows, id) : NULL;

    if (picture && row) {
        g_autoptr(GdkPixbuf) small =
            fit(picture, HSK_SNAPSHOT_PICTURE_WIDTH, HSK_SNAPSHOT_PICTURE_HEIGHT);
        hsk_snapshot_row_set_picture(row, small);
    }
    if (id && !row) {
        g_autoptr(GdkPixbuf) larger =
            picture ? fit(picture, HSK_SNAPSHOT_PICTURE_WIDTH * POINT_SCALE / 3,
                          HSK_SNAPSHOT_PICTURE_HEIGHT * POINT_SCALE / 3)
                    : NULL;
        hsk_timeline_box_set_picture(s->timeline, id, larger);
    }
    next_picture(s);
}

static void next_picture(struct hsk_snapshots *s)
{
    if (s->asked || s->w->phase != PHASE_LIVE)
        return;
    s->asked = s->point ? g_steal_pointer(&s->point) : g_queue_pop_head(&s->pictures);
    if (s->asked)
        call(s, "picture", json_pack("{s:s}", "version", s->asked), on_picture);
}

/* ---- the list ---- */

static void show_error(struct hsk_snapshots *s, const char *error)
{
    hsk_notice_show(s->notices, "error", GTK_MESSAGE_ERROR, error, NULL, 0);
}

static void on_done(void *opaque, json_t *reply, const char *error)
{
    struct hsk_snapshots *s = opaque;

    if (error)
        show_error(s, error);
    hsk_snapshots_changed(s);
}

static void on_renamed(void *opaque, const char *id, const char *title)
{
    call(opaque, "rename", json_pack("{s:s, s:s}", "version", id, "title", title), on_done);
}

static GtkWidget *new_row(struct hsk_snapshots *s, const char *id)
{
    GtkWidget *row = hsk_snapshot_row_new(id, on_renamed, s);

    g_hash_table_insert(s->rows, g_strdup(id), row);
    gtk_container_add(GTK_CONTAINER(s->list), row);
    g_queue_push_tail(&s->pictures, g_strdup(id));
    return row;
}

/* The saved state is what opening goes on with, no place to go back to. */
static bool is_listed(const json_t *version)
{
    const char *kind = string_of(version, "kind");

    return string_of(version, "id") && g_strcmp0(kind, "auto") && g_strcmp0(kind, "saved") &&
           !json_is_true(json_object_get(version, "damaged"));
}

static void remove_others(struct hsk_snapshots *s, GHashTable *there)
{
    GHashTableIter it;
    gpointer id, row;

    g_hash_table_iter_init(&it, s->rows);
    while (g_hash_table_iter_next(&it, &id, &row)) {
        if (g_hash_table_contains(there, id))
            continue;
        g_hash_table_iter_remove(&it);
        gtk_widget_destroy(row);
    }
}

static void on_versions(void *opaque, json_t *reply, const char *error)
{
    struct hsk_snapshots *s = opaque;
    g_autoptr(GHashTable) there = g_hash_table_new(g_str_hash, g_str_equal);
    const json_t *versions = json_object_get(reply, "versions"), *v;
    const char *current = string_of(reply, "current");
    size_t i;

    if (error)
        return;
    json_array_foreach(versions, i, v)
    {
        const char *id = string_of(v, "id");
        GtkWidget *row;

        if (!is_listed(v))
            continue;
        row = g_hash_table_lookup(s->rows, id);
        hsk_snapshot_row_set(row ? row : new_row(s, id), v, !g_strcmp0(id, current), (int)i);
        g_hash_table_add(there, (gpointer)id);
    }
    remove_others(s, there);
    gtk_list_box_invalidate_sort(GTK_LIST_BOX(s->list));
    hsk_timeline_box_set_points(s->timeline, versions);
    next_picture(s);
}

static void on_timeline(void *opaque, json_t *reply, const char *error)
{
    if (!error)
        hsk_timeline_box_set(((struct hsk_snapshots *)opaque)->timeline, reply);
}

static void ask(struct hsk_snapshots *s, bool sizes)
{
    call(s, "log", NULL, on_versions);
    if (sizes)
        call(s, "log", json_pack("{s:b}", "sizes", 1), on_versions);
    call(s, "timeline", NULL, on_timeline);
}

void hsk_snapshots_changed(struct hsk_snapshots *s)
{
    if (s && gtk_widget_get_visible(s->window))
        ask(s, true);
}

static gboolean on_again(gpointer opaque)
{
    ask(opaque, false); /* the timeline goes on without an event */
    return G_SOURCE_CONTINUE;
}

static int newest_first(GtkListBoxRow *a, GtkListBoxRow *b, gpointer opaque)
{
    return hsk_snapshot_row_order(GTK_WIDGET(b)) - hsk_snapshot_row_order(GTK_WIDGET(a));
}

/* ---- what the user does ---- */

static GtkWidget *row_named(struct hsk_snapshots *s, GVariant *id)
{
    return g_hash_table_lookup(s->rows, g_variant_get_string(id, NULL));
}

static void edit(struct hsk_snapshots *s, const char *verb, GVariant *id)
{
    call(s, verb, json_pack("{s:s}", "version", g_variant_get_string(id, NULL)), on_done);
}

static void act_revert(GSimpleAction *action, GVariant *id, gpointer opaque)
{
    struct hsk_snapshots *s = opaque;

    g_action_group_activate_action(G_ACTION_GROUP(s->w->window), "revert-to", id);
}

static void act_clone(GSimpleAction *action, GVariant *id, gpointer opaque)
{
    struct hsk_snapshots *s = opaque;

    g_action_group_activate_action(G_ACTION_GROUP(s->w->window), "clone", id);
}

static void act_rename(GSimpleAction *action, GVariant *id, gpointer opaque)
{
    GtkWidget *row = row_named(opaque, id);

    if (row)
        hsk_snapshot_row_edit(row);
}

static void act_pin(GSimpleAction *action, GVariant *id, gpointer opaque)
{
    edit(opaque, "pin", id);
}

static void act_unpin(GSimpleAction *action, GVariant *id, gpointer opaque)
{
    edit(opaque, "unpin", id);
}

static void act_delete(GSimpleAction *action, GVariant *id, gpointer opaque)
{
    struct hsk_snapshots *s = opaque;
    GtkWidget *row = row_named(s, id);
    const struct hsk_notice_button choice[] = {
        {"Delete", "snapshots.delete-now", row ? hsk_snapshot_row_id(row) : NULL}};
    g_autofree char *text = NULL, *size = NULL;

    if (!row)
        return;
    if (hsk_snapshot_row_pinned(row)) {
        text = g_strdup_printf("“%s” is pinned. Unpin it first.", hsk_snapshot_row_title(row));
        hsk_notice_show(s->notices, "question", GTK_MESSAGE_INFO, text, NULL, 0);
        return;
    }
    size = g_format_size((guint64)MAX(hsk_snapshot_row_own(row), 0));
    text = g_strdup_printf("Delete “%s”? That frees %s and cannot be undone. Other snapshots and "
                           "the machine stay as they are.",
                           hsk_snapshot_row_title(row), size);
    hsk_notice_show(s->notices, "question", GTK_MESSAGE_QUESTION, text, choice, 1);
}

static void act_delete_now(GSimpleAction *action, GVariant *id, gpointer opaque)
{
    edit(opaque, "drop", id);
}

static void act_purge_now(GSimpleAction *action, GVariant *parameter, gpointer opaque)
{
    call(opaque, "timeline", json_pack("{s:b}", "purge", 1), on_done);
}

static const GActionEntry entries[] = {
    {.name = "revert", .activate = act_revert, .parameter_type = "s"},
    {.name = "clone", .activate = act_clone, .parameter_type = "s"},
    {.name = "rename", .activate = act_rename, .parameter_type = "s"},
    {.name = "pin", .activate = act_pin, .parameter_type = "s"},
    {.name = "unpin", .activate = act_unpin, .parameter_type = "s"},
    {.name = "delete", .activate = act_delete, .parameter_type = "s"},
    {.name = "delete-now", .activate = act_delete_now, .parameter_type = "s"},
    {.name = "purge-now", .activate = act_purge_now},
};

static void set_on(void *opaque, bool on)
{
    struct hsk_snapshots *s = opaque;

    hsk_notice_clear(s->w->notices, "timeline"); /* that it was on is no news now */
    call(s, "timeline", json_pack("{s:b}", "on", on), on_done);
}

static void go_back(void *opaque, const char *id)
{
    g_autoptr(GVariant) target = g_variant_ref_sink(g_variant_new_string(id));

    act_revert(NULL, target, opaque);
}

static void keep(void *opaque, const char *id)
{
    call(opaque, "keep", json_pack("{s:s}", "version", id), on_done);
}

static void ask_purge(void *opaque)
{
    static const struct hsk_notice_button choice[] = {{"Delete", "snapshots.purge-now", NULL}};
    struct hsk_snapshots *s = opaque;

    hsk_notice_show(
        s->notices, "question", GTK_MESSAGE_QUESTION,
        "Delete all points of the timeline? Your snapshots stay. This cannot be undone.", choice,
        1);
}

static void point_chosen(void *opaque, const char *id)
{
    struct hsk_snapshots *s = opaque;

    g_free(s->point);
    s->point = g_strdup(id);
    next_picture(s);
}

static const struct hsk_timeline_box_ops timeline_ops = {
    .set_on = set_on, .go_back = go_back, .keep = keep, .purge = ask_purge, .chosen = point_chosen};

/* ---- keys and pointer ---- */

static gboolean on_key(GtkWidget *window, GdkEventKey *event, struct hsk_snapshots *s)
{
    GtkWidget *row = GTK_WIDGET(gtk_list_box_get_selected_row(GTK_LIST_BOX(s->list)));
    g_autoptr(GVariant) id = NULL;

    if (GTK_IS_ENTRY(gtk_window_get_focus(GTK_WINDOW(window))))
        return FALSE;
    if (event->keyval == GDK_KEY_Escape) {
        gtk_window_close(GTK_WINDOW(window));
        return TRUE;
    }
    if (!row || (event->keyval != GDK_KEY_F2 && event->keyval != GDK_KEY_Delete))
        return FALSE;
    id = g_variant_ref_sink(g_variant_new_string(hsk_snapshot_row_id(row)));
    (event->keyval == GDK_KEY_F2 ? act_rename : act_delete)(NULL, id, s);
    return TRUE;
}

static gboolean on_button(GtkWidget *list, GdkEventButton *event, struct hsk_snapshots *s)
{
    GtkListBoxRow *row = gtk_list_box_get_row_at_y(GTK_LIST_BOX(list), (int)event->y);

    if (!row || !gdk_event_triggers_context_menu((GdkEvent *)event) ||
        event->window != gtk_widget_get_window(list))
        return FALSE;
    gtk_list_box_select_row(GTK_LIST_BOX(list), row);
    hsk_snapshot_row_menu(GTK_WIDGET(row), (GdkEvent *)event);
    return TRUE;
}

static gboolean on_popup_key(GtkWidget *list, struct hsk_snapshots *s)
{
    GtkListBoxRow *row = gtk_list_box_get_selected_row(GTK_LIST_BOX(list));

    if (row)
        hsk_snapshot_row_menu(GTK_WIDGET(row), NULL);
    return row != NULL;
}

/* ---- life ---- */

static void forget_pictures(struct hsk_snapshots *s)
{
    g_clear_pointer(&s->asked, g_free);
    g_clear_pointer(&s->point, g_free);
    g_queue_clear_full(&s->pictures, g_free);
}

static gboolean on_delete(GtkWidget *window, GdkEvent *event, struct hsk_snapshots *s)
{
    g_clear_handle_id(&s->again, g_source_remove);
    hsk_notice_clear(s->notices, NULL);
    gtk_widget_hide(window);
    return TRUE;
}

void hsk_snapshots_end(struct hsk_snapshots *s)
{
    if (!s)
        return;
    on_delete(s->window, NULL, s);
    forget_pictures(s);
    g_hash_table_remove_all(s->rows);
    gtk_container_foreach(GTK_CONTAINER(s->list), (GtkCallback)(void (*)(void))gtk_widget_destroy,
                          NULL);
}

void hsk_snapshots_present(struct hsk_snapshots *s)
{
    GtkHeaderBar *header = GTK_HEADER_BAR(gtk_window_get_titlebar(GTK_WINDOW(s->window)));

    gtk_header_bar_set_subtitle(header, s->w->name);
    gtk_window_present(GTK_WINDOW(s->window));
    if (!s->again)
        s->again = g_timeout_add_seconds(AGAIN_S, on_again, s);
    ask(s, true);
}

static GtkWidget *build_list(struct hsk_snapshots *s)
{
    GtkWidget *scrolled = gtk_scrolled_window_new(NULL, NULL);
    GtkWidget *nothing = gtk_label_new("No snapshots yet.\nThe button Snapshot keeps a moment.");

    s->list = gtk_list_box_new();
    gtk_label_set_justify(GTK_LABEL(nothing), GTK_JUSTIFY_CENTER);
    gtk_style_context_add_class(gtk_widget_get_style_context(nothing), "dim-label");
    gtk_widget_show(nothing);
    gtk_list_box_set_placeholder(GTK_LIST_BOX(s->list), nothing);
    gtk_list_box_set_activate_on_single_click(GTK_LIST_BOX(s->list), FALSE);
    gtk_list_box_set_sort_func(GTK_LIST_BOX(s->list), newest_first, NULL, NULL);
    atk_object_set_name(gtk_widget_get_accessible(s->list), "Snapshots");
    gtk_scrolled_window_set_policy(GTK_SCROLLED_WINDOW(scrolled), GTK_POLICY_NEVER,
                                   GTK_POLICY_AUTOMATIC);
    gtk_container_add(GTK_CONTAINER(scrolled), s->list);
    g_signal_connect(s->list, "button-press-event", G_CALLBACK(on_button), s);
    g_signal_connect(s->list, "popup-menu", G_CALLBACK(on_popup_key), s);
    return scrolled;
}

static void build(struct hsk_snapshots *s)
{
    GtkWidget *header = gtk_header_bar_new(), *box = gtk_box_new(GTK_ORIENTATION_VERTICAL, 0);
    g_autoptr(GSimpleActionGroup) actions = g_simple_action_group_new();

    s->window = gtk_window_new(GTK_WINDOW_TOPLEVEL);
    gtk_header_bar_set_title(GTK_HEADER_BAR(header), "Snapshots");
    gtk_header_bar_set_show_close_button(GTK_HEADER_BAR(header), TRUE);
    gtk_window_set_titlebar(GTK_WINDOW(s->window), header);
    gtk_window_set_title(GTK_WINDOW(s->window), "Snapshots");
    gtk_window_set_default_size(GTK_WINDOW(s->window), WIDTH, HEIGHT);
    gtk_window_set_transient_for(GTK_WINDOW(s->window), GTK_WINDOW(s->w->window));
    g_action_map_add_action_entries(G_ACTION_MAP(actions), entries, G_N_ELEMENTS(entries), s);
    gtk_widget_insert_action_group(s->window, "snapshots", G_ACTION_GROUP(actions));
    s->notices = GTK_BOX(gtk_box_new(GTK_ORIENTATION_VERTICAL, 0));
    s->timeline = hsk_timeline_box_new(&timeline_ops, s);
    gtk_box_pack_start(GTK_BOX(box), GTK_WIDGET(s->notices), FALSE, FALSE, 0);
    gtk_box_pack_start(GTK_BOX(box), build_list(s), TRUE, TRUE, 0);
    gtk_box_pack_start(GTK_BOX(box), gtk_separator_new(GTK_ORIENTATION_HORIZONTAL), FALSE, FALSE,
                       0);
    gtk_box_pack_start(GTK_BOX(box), hsk_timeline_box_widget(s->timeline), FALSE, FALSE, 0);
    gtk_container_add(GTK_CONTAINER(s->window), box);
    g_signal_connect(s->window, "key-press-event", G_CALLBACK(on_key), s);
    g_signal_connect(s->window, "delete-event", G_CALLBACK(on_delete), s);
    gtk_widget_show_all(header);
    gtk_widget_show_all(box);
}

struct hsk_snapshots *hsk_snapshots_new(struct machine_window *w)
{
    struct hsk_snapshots *s = g_new0(struct hsk_snapshots, 1);

    s->w = w;
    s->rows = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    build(s);
    return s;
}

void hsk_snapshots_free(struct hsk_snapshots *s)
{
    if (!s)
        return;
    g_clear_handle_id(&s->again, g_source_remove);
    forget_pictures(s);
    gtk_widget_destroy(s->window);
    hsk_timeline_box_free(s->timeline);
    g_hash_table_unref(s->rows);
    g_free(s);
}
