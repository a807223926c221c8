/* SPDX-License-Identifier: MIT */
/*
 * The machine window: header bar, notices, the guest's screen; in full screen the header slides in
 * over the screen when the pointer rests at the top edge or the host key is pressed. What it shows
 * follows the keeper's word (session.c).
 */
#include "window.h"

#include "header.h"
#include "machine-window.h"
#include "snapshots.h"

#define DATA_KEY       "hsk-machine-window"
#define REVEAL_REST_MS 300
#define HINT_MS        3000
#define EDGE_PX        2
#define ROOMY_PX       900

/* ---- what is shown ---- */

static char *age_of(gint64 since)
{
    gint64 minutes = (g_get_real_time() / G_USEC_PER_SEC - since) / 60;

    if (minutes < 1)
        return g_strdup("snapshot just now");
    if (minutes < 60)
        return g_strdup_printf("snapshot %d min ago", (int)minutes);
    if (minutes < 48 * 60)
        return g_strdup_printf("snapshot %d h ago", (int)(minutes / 60));
    return g_strdup_printf("snapshot %d days ago", (int)(minutes / (24 * 60)));
}

static char *state_text(struct machine_window *w)
{
    static const struct {
        const char *state, *text;
    } texts[] = {
        {"running", "Running"}, {"paused", "Paused"}, {"saved", "Saved"}, {"off", "Switched off"}};

    if (w->busy)
        return g_strdup_printf("%s…", w->busy);
    if (w->died)
        return g_strdup("Stopped unexpectedly");
    if (w->phase == PHASE_GONE)
        return g_strdup("Not running");
    for (size_t i = 0; i < G_N_ELEMENTS(texts); i++)
        if (!g_strcmp0(w->state, texts[i].state))
            return g_strdup(texts[i].text);
    return g_strdup("");
}

void hsk_window_update(struct machine_window *w)
{
    g_autofree char *state = state_text(w);
    g_autoptr(GString) line = g_string_new(state);
    bool in_guest = gtk_widget_has_focus(GTK_WIDGET(w->screen));

    if (w->phase == PHASE_LIVE && w->last_snapshot && (w->roomy || !in_guest)) {
        g_autofree char *age = age_of(w->last_snapshot);

        g_string_append_printf(line, " · %s", age);
    }
    if (w->phase == PHASE_LIVE && in_guest)
        g_string_append(line, " · Right Ctrl leaves");
    gtk_window_set_title(GTK_WINDOW(w->window), w->name);
    for (int i = 0; i < 2; i++) {
        GtkHeaderBar *header = GTK_HEADER_BAR(i ? w->full_header : w->header);

        gtk_header_bar_set_title(header, w->name);
        gtk_header_bar_set_subtitle(header, line->str);
    }
    hsk_acts_update(w);
}

void hsk_window_error(struct machine_window *w, const char *text)
{
    hsk_notice_show(w->notices, "error", GTK_MESSAGE_ERROR, text, NULL, 0);
}

static gboolean on_pulse(gpointer opaque)
{
    struct machine_window *w = opaque;

    gtk_progress_bar_pulse(GTK_PROGRESS_BAR(w->progress));
    return G_SOURCE_CONTINUE;
}

void hsk_window_set_busy(struct machine_window *w, const char *text, bool progress)
{
    g_free(w->busy);
    w->busy = g_strdup(text);
    gtk_widget_set_visible(w->progress, progress);
    if (!progress)
        g_clear_handle_id(&w->pulse_timer, g_source_remove);
    else if (!w->pulse_timer)
        w->pulse_timer = g_timeout_add(100, on_pulse, w);
    hsk_window_update(w);
}

static gboolean on_minute(gpointer opaque)
{
    hsk_window_update(opaque);
    hsk_session_refresh_versions(opaque); /* the timeline goes on without an event */
    return G_SOURCE_CONTINUE;
}

/* ---- full screen ---- */

static gboolean on_hint_over(gpointer opaque)
{
    struct machine_window *w = opaque;

    w->hint_timer = 0;
    gtk_widget_hide(w->hint);
    return G_SOURCE_REMOVE;
}

static void show_full_header(struct machine_window *w, bool on)
{
    g_clear_handle_id(&w->reveal_timer, g_source_remove);
    gtk_widget_set_visible(w->full_header, on && w->fullscreen);
}

void hsk_window_set_fullscreen(struct machine_window *w, bool on)
{
    if (on == w->fullscreen)
        return;
    if (on)
        gtk_window_fullscreen(GTK_WINDOW(w->window));
    else
        gtk_window_unfullscreen(GTK_WINDOW(w->window));
}

/* The window manager may refuse, or do it by itself: what counts is what it says. */
static gboolean on_window_state(GtkWidget *window, GdkEventWindowState *event,
                                struct machine_window *w)
{
    bool on = event->new_window_state & GDK_WINDOW_STATE_FULLSCREEN;

    if (on == w->fullscreen)
        return FALSE;
    w->fullscreen = on;
    hsk_screen_set_fit(w->screen, on);
    show_full_header(w, false);
    g_clear_handle_id(&w->hint_timer, g_source_remove);
    gtk_widget_set_visible(w->hint, on);
    if (on) {
        w->hint_timer = g_timeout_add(HINT_MS, on_hint_over, w);
        gtk_widget_grab_focus(GTK_WIDGET(w->screen));
    }
    hsk_acts_update(w);
    return FALSE;
}

static gboolean on_rested(gpointer opaque)
{
    struct machine_window *w = opaque;

    w->reveal_timer = 0;
    show_full_header(w, true);
    return G_SOURCE_REMOVE;
}

static gboolean on_screen_motion(GtkWidget *screen, GdkEventMotion *event, struct machine_window *w)
{
    if (!w->fullscreen)
        return FALSE;
    if (event->y >= EDGE_PX)
        show_full_header(w, false);
    else if (!w->reveal_timer)
        w->reveal_timer = g_timeout_add(REVEAL_REST_MS, on_rested, w);
    return FALSE;
}

/* The sub-line stands between the buttons: in a small window the keyboard's whereabouts matter more
 * than the age. */
static gboolean on_configure(GtkWidget *window, GdkEventConfigure *event, struct machine_window *w)
{
    bool roomy = event->width >= ROOMY_PX;

    if (roomy != w->roomy) {
        w->roomy = roomy;
        hsk_window_update(w);
    }
    return FALSE;
}

/* ---- the screen ---- */

static void on_screen_leave(HskScreen *screen, struct machine_window *w)
{
    if (w->fullscreen)
        show_full_header(w, true);
    hsk_header_focus(w->fullscreen ? w->full_header : w->header);
}

static void on_screen_lost(HskScreen *screen, const char *why, struct machine_window *w)
{
    if (why)
        g_warning("%s", why);
    hsk_session_attach_screen(w);
}

static gboolean on_screen_focus(GtkWidget *screen, GdkEvent *event, struct machine_window *w)
{
    if (event->focus_change.in)
        show_full_header(w, false);
    hsk_window_update(w);
    return FALSE;
}

/* The first picture gives the window its size; later ones are scaled into what the user made of it.
 */
static void on_screen_shape(HskScreen *screen, struct machine_window *w)
{
    struct hsk_display_view view = hsk_screen_view(screen);
    int factor = gtk_widget_get_scale_factor(w->window), width, height;
    GdkWindow *gdk = gtk_widget_get_window(w->window);
    GdkRectangle area;

    hsk_acts_update(w);
    if (w->shaped || w->fullscreen || !gdk)
        return;
    w->shaped = true;
    gdk_monitor_get_workarea(
        gdk_display_get_monitor_at_window(gtk_widget_get_display(w->window), gdk), &area);
    gtk_window_get_size(GTK_WINDOW(w->window), &width, &height);
    width += (int)view.width / factor - gtk_widget_get_allocated_width(GTK_WIDGET(screen));
    height += (int)view.height / factor - gtk_widget_get_allocated_height(GTK_WIDGET(screen));
    gtk_window_resize(GTK_WINDOW(w->window), CLAMP(width, 400, MAX(area.width * 9 / 10, 400)),
                      CLAMP(height, 300, MAX(area.height * 9 / 10, 300)));
}

/* ---- life ---- */

static gboolean on_delete(GtkWidget *window, GdkEvent *event, struct machine_window *w)
{
    switch (w->phase) {
    case PHASE_GONE:
        return FALSE;
    case PHASE_OPENING:
        /* It is starting and cannot be asked yet: it is saved and closed as soon as it is there. */
        w->close_wanted = true;
        hsk_window_set_busy(w, "Closing", true);
        return TRUE;
    case PHASE_LIVE:
        hsk_session_close(w, false);
        return TRUE;
    default:
        return TRUE;
    }
}

static void on_destroy(GtkWidget *window, struct machine_window *w)
{
    guint *timers[] = {&w->minute_timer, &w->pulse_timer, &w->reveal_timer, &w->hint_timer};

    hsk_session_end(w);
    g_clear_pointer(&w->snapshots, hsk_snapshots_free);
    for (size_t i = 0; i < G_N_ELEMENTS(timers); i++)
        g_clear_handle_id(timers[i], g_source_remove);
    g_signal_handlers_disconnect_by_data(w->screen, w);
    g_signal_handlers_disconnect_by_data(window, w);
}

static void free_window(gpointer data)
{
    struct machine_window *w = data;

    g_object_unref(w->revert_menu);
    g_free(w->path);
    g_free(w->name);
    g_free(w->state);
    g_free(w->busy);
    g_free(w->parting_words);
    g_free(w->instance_dir);
    g_free(w);
}

static void build_full_screen_parts(struct machine_window *w, GtkOverlay *overlay)
{
    w->full_header = hsk_header_new(G_MENU_MODEL(w->revert_menu));
    gtk_widget_show_all(w->full_header);
    gtk_widget_hide(w->full_header);
    gtk_widget_set_no_show_all(w->full_header, TRUE);
    gtk_widget_set_valign(w->full_header, GTK_ALIGN_START);
    gtk_overlay_add_overlay(overlay, w->full_header);

    w->hint = gtk_label_new("Right Ctrl + F leaves full screen. The bar is at the top edge.");
    gtk_widget_set_no_show_all(w->hint, TRUE);
    gtk_widget_set_valign(w->hint, GTK_ALIGN_END);
    gtk_widget_set_halign(w->hint, GTK_ALIGN_CENTER);
    gtk_widget_set_margin_bottom(w->hint, 24);
    gtk_style_context_add_class(gtk_widget_get_style_context(w->hint), "app-notification");
    gtk_overlay_add_overlay(overlay, w->hint);
    gtk_overlay_set_overlay_pass_through(overlay, w->hint, TRUE);
}

static void build(struct machine_window *w)
{
    GtkWidget *box = gtk_box_new(GTK_ORIENTATION_VERTICAL, 0), *overlay = gtk_overlay_new();

    w->header = hsk_header_new(G_MENU_MODEL(w->revert_menu));
    gtk_window_set_titlebar(GTK_WINDOW(w->window), w->header);
    w->progress = gtk_progress_bar_new();
    gtk_style_context_add_class(gtk_widget_get_style_context(w->progress), "osd");
    atk_object_set_name(gtk_widget_get_accessible(w->progress), "Progress");
    gtk_widget_set_no_show_all(w->progress, TRUE);
    w->notices = GTK_BOX(gtk_box_new(GTK_ORIENTATION_VERTICAL, 0));
    w->screen = HSK_SCREEN(hsk_screen_new());
    gtk_widget_set_hexpand(GTK_WIDGET(w->screen), TRUE);
    gtk_widget_set_vexpand(GTK_WIDGET(w->screen), TRUE);
    gtk_container_add(GTK_CONTAINER(overlay), GTK_WIDGET(w->screen));
    build_full_screen_parts(w, GTK_OVERLAY(overlay));
    gtk_box_pack_start(GTK_BOX(box), w->progress, FALSE, FALSE, 0);
    gtk_box_pack_start(GTK_BOX(box), GTK_WIDGET(w->notices), FALSE, FALSE, 0);
    gtk_box_pack_start(GTK_BOX(box), overlay, TRUE, TRUE, 0);
    gtk_container_add(GTK_CONTAINER(w->window), box);

    g_signal_connect(w->screen, "host-key", G_CALLBACK(hsk_acts_host_key), w);
    g_signal_connect(w->screen, "leave", G_CALLBACK(on_screen_leave), w);
    g_signal_connect(w->screen, "lost", G_CALLBACK(on_screen_lost), w);
    g_signal_connect(w->screen, "shape", G_CALLBACK(on_screen_shape), w);
    g_signal_connect(w->screen, "motion-notify-event", G_CALLBACK(on_screen_motion), w);
    g_signal_connect_after(w->screen, "focus-in-event", G_CALLBACK(on_screen_focus), w);
    g_signal_connect_after(w->screen, "focus-out-event", G_CALLBACK(on_screen_focus), w);
    g_signal_connect(w->window, "window-state-event", G_CALLBACK(on_window_state), w);
    g_signal_connect(w->window, "configure-event", G_CALLBACK(on_configure), w);
    g_signal_connect(w->window, "delete-event", G_CALLBACK(on_delete), w);
    g_signal_connect(w->window, "destroy", G_CALLBACK(on_destroy), w);
}

GtkWidget *hsk_window_new(GtkApplication *app, const char *path)
{
    struct machine_window *w = g_new0(struct machine_window, 1);
    char *dot;

    w->path = g_strdup(path);
    w->name = g_path_get_basename(path);
    dot = strrchr(w->name, '.');
    if (dot && dot != w->name && !g_ascii_strcasecmp(dot, ".hva"))
        *dot = 0;
    w->revert_menu = g_menu_new();
    w->window = gtk_application_window_new(app);
    g_object_set_data_full(G_OBJECT(w->window), DATA_KEY, w, free_window);
    gtk_window_set_default_size(GTK_WINDOW(w->window), 800, 600);
    gtk_window_set_icon_name(GTK_WINDOW(w->window), "io.github.haversack.Haversack");
    hsk_acts_add(w);
    build(w);
    w->minute_timer = g_timeout_add_seconds(30, on_minute, w);
    hsk_session_start(w, NULL);
    gtk_widget_show_all(w->window);
    gtk_widget_grab_focus(GTK_WIDGET(w->screen));
    return w->window;
}

GtkWidget *hsk_window_find(GtkApplication *app, const char *path)
{
    for (GList *l = gtk_application_get_windows(app); l; l = l->next) {
        struct machine_window *w = g_object_get_data(l->data, DATA_KEY);

        if (w && !strcmp(w->path, path))
            return w->window;
    }
    return NULL;
}
