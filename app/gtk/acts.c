/* SPDX-License-Identifier: MIT */
/*
 * What a user can do with a machine: the win.* actions (also reachable over D-Bus) and the host
 * key's letters. Snapshot, revert and undo are one click each and never ask; what would lose the
 * running state asks in an info bar.
 */
#include <display/png.h>

#include <linux/input-event-codes.h>

#include "machine-window.h"
#include "snapshots.h"

static void add_string(json_t *args, const char *key, const char *value)
{
    json_object_set_new(args, key, json_string(value));
}

/* ---- snapshot, revert, undo ---- */

static void on_snapshot(void *opaque, json_t *reply, const char *error)
{
    struct machine_window *w = opaque;

    hsk_window_set_busy(w, NULL, false);
    if (error) {
        hsk_window_error(w, error);
    } else {
        /* From here on "undo" would mean something else. */
        hsk_notice_clear(w->notices, "reverted");
        w->last_snapshot = g_get_real_time() / G_USEC_PER_SEC;
    }
    hsk_session_refresh_versions(w);
}

static void act_snapshot(GSimpleAction *action, GVariant *parameter, gpointer opaque)
{
    struct machine_window *w = opaque;
    g_autoptr(GDateTime) now = g_date_time_new_now_local();
    g_autofree char *title = g_date_time_format(now, "Snapshot %H:%M");
    json_t *args = json_object();

    add_string(args, "title", title);
    hsk_window_set_busy(w, "Taking a snapshot", false);
    hsk_control_call(w->control, "snapshot", args, on_snapshot, w);
}

/* What happened is told by the event "reverted", which also comes when somebody else went back. */
static void on_reverted(void *opaque, json_t *reply, const char *error)
{
    struct machine_window *w = opaque;

    hsk_window_set_busy(w, NULL, false);
    if (error)
        hsk_window_error(w, error);
    if (!hsk_screen_attached(w->screen))
        hsk_session_attach_screen(w);
}

static void revert(struct machine_window *w, json_t *args)
{
    hsk_screen_release_keys(w->screen);
    hsk_window_set_busy(w, "Going back", false);
    hsk_control_call(w->control, "revert", args, on_reverted, w);
}

static void act_revert(GSimpleAction *action, GVariant *parameter, gpointer opaque)
{
    revert(opaque, NULL);
}

static void act_revert_to(GSimpleAction *action, GVariant *parameter, gpointer opaque)
{
    json_t *args = json_object();

    add_string(args, "to", g_variant_get_string(parameter, NULL));
    revert(opaque, args);
}

static void act_revert_ago(GSimpleAction *action, GVariant *parameter, gpointer opaque)
{
    json_t *args = json_object();

    json_object_set_new(
        args, "at",
        json_integer(g_get_real_time() / G_USEC_PER_SEC - g_variant_get_int32(parameter)));
    revert(opaque, args);
}

static void act_timeline_off(GSimpleAction *action, GVariant *parameter, gpointer opaque)
{
    struct machine_window *w = opaque;
    json_t *args = json_object();

    json_object_set_new(args, "on", json_false());
    hsk_notice_clear(w->notices, "timeline");
    hsk_session_call(w, "timeline", args);
}

static void act_snapshots(GSimpleAction *action, GVariant *parameter, gpointer opaque)
{
    struct machine_window *w = opaque;

    if (!w->snapshots)
        w->snapshots = hsk_snapshots_new(w);
    hsk_snapshots_present(w->snapshots);
}

static void act_undo(GSimpleAction *action, GVariant *parameter, gpointer opaque)
{
    struct machine_window *w = opaque;

    hsk_screen_release_keys(w->screen);
    hsk_window_set_busy(w, "Undoing", false);
    hsk_control_call(w->control, "undo", NULL, on_reverted, w);
}

/* ---- power ---- */

static void act_pause(GSimpleAction *action, GVariant *value, gpointer opaque)
{
    struct machine_window *w = opaque;

    /* The button shows what the machine says, not what was asked for: the state comes with the
     * event. */
    hsk_session_call(w, g_variant_get_boolean(value) ? "pause" : "resume", NULL);
    hsk_acts_update(w);
}

static void act_power(GSimpleAction *action, GVariant *parameter, gpointer opaque)
{
    hsk_session_call(opaque, "power", NULL);
}

static void act_reset(GSimpleAction *action, GVariant *parameter, gpointer opaque)
{
    static const struct hsk_notice_button choice[] = {{"Reset Now", "win.reset-now", NULL}};
    struct machine_window *w = opaque;

    hsk_notice_show(w->notices, "question", GTK_MESSAGE_QUESTION,
                    "Reset restarts the machine at once. Unsaved work inside it is lost.", choice,
                    1);
}

static void act_reset_now(GSimpleAction *action, GVariant *parameter, gpointer opaque)
{
    hsk_session_call(opaque, "reset", NULL);
}

static void act_power_off(GSimpleAction *action, GVariant *parameter, gpointer opaque)
{
    static const struct hsk_notice_button choice[] = {{"Power Off Now", "win.close-unsaved", NULL}};
    struct machine_window *w = opaque;

    hsk_notice_show(w->notices, "question", GTK_MESSAGE_QUESTION,
                    "Power off cuts the machine's power. Its running state is not saved; its "
                    "snapshots are kept.",
                    choice, 1);
}

static void act_close_unsaved(GSimpleAction *action, GVariant *parameter, gpointer opaque)
{
    hsk_session_close(opaque, true);
}

static void act_open_again(GSimpleAction *action, GVariant *parameter, gpointer opaque)
{
    hsk_session_start(opaque, NULL);
}

static void act_open_fresh(GSimpleAction *action, GVariant *parameter, gpointer opaque)
{
    hsk_session_start(opaque, "--fresh");
}

static void act_open_trusted(GSimpleAction *action, GVariant *parameter, gpointer opaque)
{
    hsk_session_start(opaque, "--trust-state");
}

static void act_show_screen(GSimpleAction *action, GVariant *parameter, gpointer opaque)
{
    hsk_session_attach_screen(opaque);
}

/* ---- screen and keys ---- */

static void act_fullscreen(GSimpleAction *action, GVariant *value, gpointer opaque)
{
    hsk_window_set_fullscreen(opaque, g_variant_get_boolean(value));
}

static void act_ctrl_alt_delete(GSimpleAction *action, GVariant *parameter, gpointer opaque)
{
    json_t *args = json_object();

    json_object_set_new(args, "keys", json_pack("[s]", "ctrl+alt+delete"));
    hsk_session_call(opaque, "key", args);
}

/* The path that was chosen, or NULL; the dialog goes. */
static char *chosen_path(GtkNativeDialog *dialog, gint response)
{
    char *path = response == GTK_RESPONSE_ACCEPT
                     ? gtk_file_chooser_get_filename(GTK_FILE_CHOOSER(dialog))
                     : NULL;

    g_object_unref(dialog);
    return path;
}

static void ask_place(struct machine_window *w, const char *title, const char *name,
                      bool may_replace,
                      void (*placed)(GtkNativeDialog *dialog, gint response, gpointer opaque),
                      gpointer opaque, GClosureNotify opaque_free)
{
    GtkFileChooserNative *dialog = gtk_file_chooser_native_new(
        title, GTK_WINDOW(w->window), GTK_FILE_CHOOSER_ACTION_SAVE, "_Save", "_Cancel");

    gtk_file_chooser_set_current_name(GTK_FILE_CHOOSER(dialog), name);
    gtk_file_chooser_set_do_overwrite_confirmation(GTK_FILE_CHOOSER(dialog), may_replace);
    g_signal_connect_data(dialog, "response", G_CALLBACK(placed), opaque, opaque_free, 0);
    gtk_native_dialog_set_modal(GTK_NATIVE_DIALOG(dialog), TRUE);
    gtk_native_dialog_show(GTK_NATIVE_DIALOG(dialog));
}

static void on_screenshot_place(GtkNativeDialog *dialog, gint response, gpointer opaque)
{
    struct machine_window *w = opaque;
    g_autofree char *path = chosen_path(dialog, response);
    struct hsk_display_view view = hsk_screen_view(w->screen);
    g_autoptr(GError) error = NULL;

    if (path &&
        !hsk_png_write(path, view.pixels, view.width, view.height, view.stride_bytes, &error))
        hsk_window_error(w, error->message);
}

static void act_screenshot(GSimpleAction *action, GVariant *parameter, gpointer opaque)
{
    struct machine_window *w = opaque;
    g_autoptr(GDateTime) now = g_date_time_new_now_local();
    g_autofree char *stamp = g_date_time_format(now, "%Y-%m-%d %H-%M-%S");
    g_autofree char *name = g_strdup_printf("%s %s.png", w->name, stamp);

    g_strdelimit(name, "/", '-');
    ask_place(w, "Take Screenshot", name, true, on_screenshot_place, w, NULL);
}

static void on_saved_as(void *opaque, json_t *reply, const char *error)
{
    hsk_window_set_busy(opaque, NULL, false);
    if (error)
        hsk_window_error(opaque, error);
}

/* The keeper refuses what is there already: nothing is overwritten. */
static void on_save_as_place(GtkNativeDialog *dialog, gint response, gpointer opaque)
{
    struct machine_window *w = opaque;
    g_autofree char *path = chosen_path(dialog, response);
    json_t *args;

    if (!path || w->phase != PHASE_LIVE)
        return;
    args = json_object();
    add_string(args, "out", path);
    hsk_window_set_busy(w, "Saving", true);
    hsk_control_call(w->control, "save-as", args, on_saved_as, w);
}

static void act_save_as(GSimpleAction *action, GVariant *parameter, gpointer opaque)
{
    struct machine_window *w = opaque;
    g_autofree char *name = g_path_get_basename(w->path);

    ask_place(w, "Save As", name, false, on_save_as_place, w, NULL);
}

/* ---- a new machine from this one ---- */

struct cloning {
    struct machine_window *w;
    char *version; /* "": the present */
};

static void cloning_free(gpointer data, GClosure *closure)
{
    struct cloning *c = data;

    g_free(c->version);
    g_free(c);
}

static void on_cloned(void *opaque, json_t *reply, const char *error)
{
    struct machine_window *w = opaque;
    const char *out = json_string_value(json_object_get(reply, "out"));
    const struct hsk_notice_button open[] = {{"Open", "win.open-other", out}};
    g_autofree char *text = NULL;

    hsk_window_set_busy(w, NULL, false);
    if (error || !out) {
        hsk_window_error(w, error ? error : "The machine did not say where the new one is.");
        return;
    }
    text = g_strdup_printf("A new machine is in %s", out);
    hsk_notice_show(w->notices, "cloned", GTK_MESSAGE_INFO, text, open, 1);
}

static void on_clone_place(GtkNativeDialog *dialog, gint response, gpointer opaque)
{
    struct cloning *c = opaque;
    struct machine_window *w = c->w;
    g_autofree char *path = NULL;
    json_t *args = json_object();

    if (*c->version)
        add_string(args, "version", c->version);
    path = chosen_path(dialog, response); /* c goes with the dialog */
    if (!path || w->phase != PHASE_LIVE) {
        json_decref(args);
        return;
    }
    add_string(args, "out", path);
    hsk_window_set_busy(w, "Making a new machine", true);
    hsk_control_call(w->control, "clone", args, on_cloned, w);
}

static void act_clone(GSimpleAction *action, GVariant *version, gpointer opaque)
{
    struct machine_window *w = opaque;
    struct cloning *c = g_new(struct cloning, 1);
    g_autofree char *name = g_strdup_printf("Copy of %s.hva", w->name);

    *c = (struct cloning){.w = w, .version = g_variant_dup_string(version, NULL)};
    g_strdelimit(name, "/", '-');
    ask_place(w, "New Machine", name, false, on_clone_place, c, cloning_free);
}

static void act_open_other(GSimpleAction *action, GVariant *path, gpointer opaque)
{
    struct machine_window *w = opaque;
    GtkApplication *app = gtk_window_get_application(GTK_WINDOW(w->window));
    g_autoptr(GFile) file = g_file_new_for_path(g_variant_get_string(path, NULL));

    g_application_open(G_APPLICATION(app), &file, 1, "");
}

static void act_close(GSimpleAction *action, GVariant *parameter, gpointer opaque)
{
    gtk_window_close(GTK_WINDOW(((struct machine_window *)opaque)->window));
}

/* ---- the set ---- */

static const GActionEntry entries[] = {
    {.name = "snapshot", .activate = act_snapshot},
    {.name = "revert", .activate = act_revert},
    {.name = "revert-to", .activate = act_revert_to, .parameter_type = "s"},
    {.name = "revert-ago", .activate = act_revert_ago, .parameter_type = "i"},
    {.name = "snapshots", .activate = act_snapshots},
    {.name = "timeline-off", .activate = act_timeline_off},
    {.name = "undo", .activate = act_undo},
    {.name = "pause", .state = "false", .change_state = act_pause},
    {.name = "fullscreen", .state = "false", .change_state = act_fullscreen},
    {.name = "power", .activate = act_power},
    {.name = "reset", .activate = act_reset},
    {.name = "reset-now", .activate = act_reset_now},
    {.name = "power-off", .activate = act_power_off},
    {.name = "close-unsaved", .activate = act_close_unsaved},
    {.name = "open-again", .activate = act_open_again},
    {.name = "open-fresh", .activate = act_open_fresh},
    {.name = "open-trusted", .activate = act_open_trusted},
    {.name = "show-screen", .activate = act_show_screen},
    {.name = "screenshot", .activate = act_screenshot},
    {.name = "save-as", .activate = act_save_as},
    {.name = "clone", .activate = act_clone, .parameter_type = "s"},
    {.name = "open-other", .activate = act_open_other, .parameter_type = "s"},
    {.name = "ctrl-alt-delete", .activate = act_ctrl_alt_delete},
    {.name = "close", .activate = act_close},
};

void hsk_acts_add(struct machine_window *w)
{
    g_action_map_add_action_entries(G_ACTION_MAP(w->window), entries, G_N_ELEMENTS(entries), w);
}

static GSimpleAction *lookup(struct machine_window *w, const char *name)
{
    return G_SIMPLE_ACTION(g_action_map_lookup_action(G_ACTION_MAP(w->window), name));
}

void hsk_acts_update(struct machine_window *w)
{
    static const char *const on_machine[] = {"snapshot", "pause",     "power",
                                             "reset",    "reset-now", "ctrl-alt-delete"};
    static const char *const on_keeper[] = {
        "revert",    "revert-to",     "revert-ago",  "snapshots", "timeline-off", "undo",
        "power-off", "close-unsaved", "show-screen", "save-as",   "clone"};
    static const char *const on_nothing[] = {"open-again", "open-fresh", "open-trusted"};
    bool live = w->phase == PHASE_LIVE, machine = live && !w->died && g_strcmp0(w->state, "off");

    for (size_t i = 0; i < G_N_ELEMENTS(on_machine); i++)
        g_simple_action_set_enabled(lookup(w, on_machine[i]), machine);
    for (size_t i = 0; i < G_N_ELEMENTS(on_keeper); i++)
        g_simple_action_set_enabled(lookup(w, on_keeper[i]), live);
    for (size_t i = 0; i < G_N_ELEMENTS(on_nothing); i++)
        g_simple_action_set_enabled(lookup(w, on_nothing[i]), w->phase == PHASE_GONE);
    g_simple_action_set_enabled(lookup(w, "screenshot"), hsk_screen_view(w->screen).width != 0);
    g_simple_action_set_state(lookup(w, "pause"),
                              g_variant_new_boolean(!g_strcmp0(w->state, "paused")));
    g_simple_action_set_state(lookup(w, "fullscreen"), g_variant_new_boolean(w->fullscreen));
}

static void toggle(struct machine_window *w, const char *name)
{
    GAction *action = G_ACTION(lookup(w, name));
    g_autoptr(GVariant) state = g_action_get_state(action);

    if (g_action_get_enabled(action))
        g_action_change_state(action, g_variant_new_boolean(!g_variant_get_boolean(state)));
}

gboolean hsk_acts_host_key(HskScreen *screen, guint code, struct machine_window *w)
{
    static const struct {
        guint code;
        const char *action;
    } keys[] = {
        {KEY_S, "snapshot"},
        {KEY_Z, "revert"},
        {KEY_L, "snapshots"},
        {KEY_Q, "close"},
        {KEY_DELETE, "ctrl-alt-delete"},
    };

    if (code == KEY_F || code == KEY_P) {
        toggle(w, code == KEY_F ? "fullscreen" : "pause");
        return TRUE;
    }
    if (code == KEY_M) {
        gtk_window_iconify(GTK_WINDOW(w->window));
        return TRUE;
    }
    for (size_t i = 0; i < G_N_ELEMENTS(keys); i++) {
        if (keys[i].code == code) {
            g_action_group_activate_action(G_ACTION_GROUP(w->window), keys[i].action, NULL);
            return TRUE;
        }
    }
    return FALSE;
}
