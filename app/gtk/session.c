/* SPDX-License-Identifier: MIT */
/*
 * A window's talk with its machine: opening, events, versions, the screen's socket, closing. GTK
 * thread.
 *
 * The screen's socket ends at every revert (a new machine process takes over), so its end is
 * nothing special: it is connected again, and only when that fails for seconds the user hears of
 * it.
 */
#include <sys/socket.h>

#include "common/rundir.h"
#include "machine-window.h"
#include "snapshots.h"

#define DISPLAY_RETRY_MS  100
#define DISPLAY_TRIES     50
#define DISPLAY_STABLE_US 2000000
#define MENU_VERSIONS     8

static const struct hsk_notice_button open_again[] = {{"Open Again", "win.open-again", NULL}};

static const char *string_of(json_t *object, const char *key)
{
    return json_string_value(json_object_get(object, key));
}

/* ---- versions ---- */

static gint64 time_of(json_t *version)
{
    return json_integer_value(json_object_get(version, "time"));
}

static char *menu_label(json_t *version)
{
    const char *title = string_of(version, "title");
    g_autoptr(GDateTime) date = g_date_time_new_from_unix_local(time_of(version));
    g_autofree char *clock = date ? g_date_time_format(date, "%H:%M") : g_strdup("");
    GString *label = g_string_new(title && *title ? title : "Snapshot");

    g_string_replace(label, "_", "__", 0); /* no mnemonics out of titles */
    if (!strstr(label->str, clock))
        g_string_append_printf(label, "  (%s)", clock);
    return g_string_free(label, FALSE);
}

/* How far the timeline reaches back, in steps that people think in. */
static void add_points(struct machine_window *w, gint64 oldest)
{
    static const struct {
        const char *label;
        int seconds;
    } steps[] = {
        {"30 seconds ago", 30},   {"2 minutes ago", 120}, {"10 minutes ago", 600},
        {"30 minutes ago", 1800}, {"2 hours ago", 7200},  {"6 hours ago", 21600},
    };
    g_autoptr(GMenu) menu = g_menu_new();
    gint64 now = g_get_real_time() / G_USEC_PER_SEC;

    for (size_t i = 0; i < G_N_ELEMENTS(steps) && now - steps[i].seconds >= oldest; i++) {
        g_autoptr(GMenuItem) item = g_menu_item_new(steps[i].label, NULL);
        g_menu_item_set_action_and_target(item, "win.revert-ago", "i", steps[i].seconds);
        g_menu_append_item(menu, item);
    }
    if (g_menu_model_get_n_items(G_MENU_MODEL(menu)))
        g_menu_append_section(w->revert_menu, "Timeline", G_MENU_MODEL(menu));
}

static void add_all(struct machine_window *w)
{
    g_autoptr(GMenu) menu = g_menu_new();

    g_menu_append(menu, "All Snapshots…", "win.snapshots");
    g_menu_append_section(w->revert_menu, NULL, G_MENU_MODEL(menu));
}

static void on_log(void *opaque, json_t *reply, const char *error)
{
    struct machine_window *w = opaque;
    json_t *versions = json_object_get(reply, "versions");
    size_t n = json_array_size(versions);

    if (error)
        return;
    g_menu_remove_all(w->revert_menu);
    gint64 oldest_point = 0;
    w->last_snapshot = 0;
    /* The order is the keeper's, oldest first. */
    for (size_t i = n; i-- > 0;) {
        json_t *version = json_array_get(versions, i);
        const char *id = string_of(version, "id"), *kind = string_of(version, "kind");
        g_autofree char *label = NULL;
        GMenuItem *item;

        if (!id || !g_strcmp0(kind, "saved"))
            continue;
        if (!g_strcmp0(kind, "auto")) {
            oldest_point = time_of(version); /* in the end: the oldest */
            continue;
        }
        if (!g_strcmp0(kind, "user"))
            w->last_snapshot = MAX(w->last_snapshot, time_of(version));
        if (g_menu_model_get_n_items(G_MENU_MODEL(w->revert_menu)) >= MENU_VERSIONS)
            continue;
        label = menu_label(version);
        item = g_menu_item_new(label, NULL);
        g_menu_item_set_action_and_target(item, "win.revert-to", "s", id);
        g_menu_append_item(w->revert_menu, item);
        g_object_unref(item);
    }
    if (oldest_point)
        add_points(w, oldest_point);
    add_all(w);
    hsk_window_update(w);
}

void hsk_session_refresh_versions(struct machine_window *w)
{
    if (w->control)
        hsk_control_call(w->control, "log", NULL, on_log, w);
    hsk_snapshots_changed(w->snapshots);
}

static void show_reverted(struct machine_window *w, const char *to, const char *title, bool undo)
{
    static const struct hsk_notice_button undo_button[] = {{"Undo", "win.undo", NULL}};
    static const struct hsk_notice_button redo_button[] = {{"Go Back Again", "win.undo", NULL}};
    g_autofree char *text = NULL;

    if (undo) {
        text = g_strdup("Undone: the machine is where it was before.");
        hsk_notice_show(w->notices, "reverted", GTK_MESSAGE_INFO, text, redo_button, 1);
    } else {
        text = g_strdup_printf("Went back to “%s”. What you had is kept.", title && *title ? title
                                                                           : to            ? to
                                                                                           : "?");
        hsk_notice_show(w->notices, "reverted", GTK_MESSAGE_INFO, text, undo_button, 1);
    }
    hsk_session_refresh_versions(w);
}

/* ---- calls ---- */

static void on_plain_reply(void *opaque, json_t *reply, const char *error)
{
    if (error)
        hsk_window_error(opaque, error);
}

void hsk_session_call(struct machine_window *w, const char *cmd, json_t *args)
{
    if (w->control && w->phase == PHASE_LIVE)
        hsk_control_call(w->control, cmd, args, on_plain_reply, w);
    else
        json_decref(args);
}

/* ---- the screen's socket ---- */

static gboolean on_display_timer(gpointer opaque)
{
    struct machine_window *w = opaque;

    w->display_timer = 0;
    hsk_session_attach_screen(w);
    return G_SOURCE_REMOVE;
}

void hsk_session_attach_screen(struct machine_window *w)
{
    static const struct hsk_notice_button retry[] = {{"Try Again", "win.show-screen", NULL}};
    gint64 now = g_get_monotonic_time();
    int sock;

    if (w->phase != PHASE_LIVE || w->died || w->display_timer)
        return;
    if (now - w->display_since > DISPLAY_STABLE_US)
        w->display_tries = 0;
    if (w->display_tries++ >= DISPLAY_TRIES) {
        w->display_tries = 0;
        hsk_notice_show(w->notices, "screen", GTK_MESSAGE_ERROR,
                        "The machine does not show its screen. It may still be running.", retry, 1);
        return;
    }
    sock = hsk_rundir_connect(w->instance_dir, "display", SOCK_SEQPACKET);
    w->display_since = now;
    if (sock >= 0)
        hsk_screen_attach(w->screen, sock);
    else
        w->display_timer = g_timeout_add(DISPLAY_RETRY_MS, on_display_timer, w);
}

/* ---- events ---- */

static void set_state(struct machine_window *w, const char *state)
{
    if (!state)
        return;
    g_free(w->state);
    w->state = g_strdup(state);
    hsk_window_update(w);
}

/* The keeper ends after that: what was saved is found again by opening the file. */
static void on_died(struct machine_window *w, const char *text)
{
    w->died = true;
    set_state(w, "off");
    hsk_notice_clear(w->notices, "reverted");
    hsk_notice_show(w->notices, "died", GTK_MESSAGE_ERROR,
                    text ? text : "The machine stopped unexpectedly. Every snapshot is kept.",
                    open_again, 1);
}

/* What the keeper says in brackets is for a terminal. */
static char *without_commands(const char *text)
{
    g_autoptr(GRegex) commands = g_regex_new(" \\(\"hva [^)]*\\)", 0, 0, NULL);

    return g_regex_replace_literal(commands, text, -1, 0, "", 0, NULL);
}

static void show_notice(struct machine_window *w, const char *about, const char *text)
{
    static const struct hsk_notice_button off[] = {{"Switch Off", "win.timeline-off", NULL}};
    static const struct hsk_notice_button save[] = {{"Save As…", "win.save-as", NULL}};
    g_autofree char *words = without_commands(text);

    if (!g_strcmp0(about, "document"))
        hsk_notice_show(w->notices, "document", GTK_MESSAGE_WARNING, words, save, 1);
    else
        hsk_notice_show(w->notices, "timeline", GTK_MESSAGE_INFO, words, off, 1);
}

static void on_moved(struct machine_window *w, const char *path)
{
    g_autofree char *text = g_strdup_printf("The document is now %s", path);

    hsk_notice_clear(w->notices, "document");
    hsk_notice_clear(w->notices, "close");
    g_free(w->path);
    w->path = g_strdup(path);
    hsk_notice_show(w->notices, "moved", GTK_MESSAGE_INFO, text, NULL, 0);
}

static void on_event(void *opaque, const char *name, json_t *event)
{
    struct machine_window *w = opaque;

    if (!strcmp(name, "state")) {
        const char *text = string_of(event, "text");

        set_state(w, string_of(event, "state"));
        if (text && *text)
            hsk_notice_show(w->notices, "state", GTK_MESSAGE_WARNING, text, NULL, 0);
    } else if (!strcmp(name, "snapshot")) {
        hsk_session_refresh_versions(w);
    } else if (!strcmp(name, "reverted")) {
        show_reverted(w, string_of(event, "to"), string_of(event, "title"),
                      json_is_true(json_object_get(event, "undo")));
    } else if (!strcmp(name, "versions")) {
        hsk_session_refresh_versions(w);
    } else if (!strcmp(name, "notice") && string_of(event, "text")) {
        show_notice(w, string_of(event, "about"), string_of(event, "text"));
    } else if (!strcmp(name, "moved") && string_of(event, "path")) {
        on_moved(w, string_of(event, "path"));
    } else if (!strcmp(name, "machine-died")) {
        on_died(w, string_of(event, "text"));
    } else if (!strcmp(name, "closing")) {
        g_free(w->parting_words);
        w->parting_words = g_strdup(string_of(event, "text"));
        w->phase = PHASE_CLOSING;
        hsk_window_set_busy(w, "Closing", true);
    }
}

static void on_closed(void *opaque, const char *why)
{
    struct machine_window *w = opaque;

    if (w->phase == PHASE_CLOSING && !w->parting_words) {
        gtk_widget_destroy(w->window);
        return;
    }
    if (w->parting_words)
        why = w->parting_words;
    w->phase = PHASE_GONE;
    hsk_snapshots_end(w->snapshots);
    hsk_notice_clear(w->notices, "close");
    hsk_window_set_busy(w, NULL, false);
    if (w->died)
        return;
    hsk_notice_show(w->notices, "gone", GTK_MESSAGE_ERROR,
                    why ? why
                        : "The machine ended unexpectedly. What was saved last is in the file.",
                    open_again, 1);
}

static const struct hsk_control_ops control_ops = {.event = on_event, .closed = on_closed};

/* ---- opening ---- */

/* What it said at its start, e.g. that it starts cold and why. Its choice of an engine is no news:
 * the tooltip has it. */
static void show_first_words(struct machine_window *w, const char *engine_note)
{
    g_autofree char *words = hsk_launch_words(w->launch);
    g_auto(GStrv) lines = g_strsplit(words, "\n", 0);

    for (char **line = lines; *line; line++)
        if (**line && g_strcmp0(*line, engine_note))
            hsk_notice_show(w->notices, *line, GTK_MESSAGE_WARNING, *line, NULL, 0);
}

static void on_subscribed(void *opaque, json_t *info, const char *error)
{
    struct machine_window *w = opaque;
    const char *name, *note;

    if (error) {
        hsk_window_error(w, error);
        return;
    }
    name = string_of(info, "name");
    if (name && *name) {
        g_free(w->name);
        w->name = g_strdup(name);
    }
    note = string_of(info, "engine_note");
    gtk_widget_set_tooltip_text(w->header, note);
    show_first_words(w, note);
    set_state(w, string_of(info, "state"));
    hsk_session_refresh_versions(w);
}

/* Somebody else made it, and it was saved while it ran. words: the keeper's, with what to do at a
 * terminal. */
static void ask_trust(struct machine_window *w, const char *words)
{
    static const struct hsk_notice_button choices[] = {
        {"Start from Power-On", "win.open-fresh", NULL},
        {"Trust and Resume", "win.open-trusted", NULL},
    };

    const char *terminal = strstr(words, "; \"hva run");
    g_autofree char *what =
        terminal ? g_strndup(words, (gsize)(terminal - words)) : g_strdup(words);
    g_autofree char *question = g_strdup_printf(
        "%s. What ran in it goes on if you resume it, so do that only if you trust where it comes "
        "from.",
        what);

    hsk_notice_show(w->notices, "gone", GTK_MESSAGE_QUESTION, question, choices,
                    G_N_ELEMENTS(choices));
}

static void on_launched(void *opaque, const char *instance_dir, const char *error)
{
    struct machine_window *w = opaque;
    g_autoptr(GError) gerror = NULL;

    hsk_window_set_busy(w, NULL, false);
    if (instance_dir) {
        w->control = hsk_control_new(instance_dir, &control_ops, w, &gerror);
        if (!w->control)
            error = gerror->message;
    }
    if (error) {
        w->phase = PHASE_GONE;
        hsk_window_update(w);
        if (w->close_wanted)
            gtk_widget_destroy(w->window);
        else if (hsk_launch_undecided(w->launch))
            ask_trust(w, error);
        else
            hsk_notice_show(w->notices, "gone", GTK_MESSAGE_ERROR, error, open_again, 1);
        return;
    }
    g_free(w->instance_dir);
    w->instance_dir = g_strdup(instance_dir);
    w->phase = PHASE_LIVE;
    if (w->close_wanted) {
        hsk_session_close(w, false);
        return;
    }
    hsk_control_call(w->control, "subscribe", NULL, on_subscribed, w);
    hsk_session_attach_screen(w);
    hsk_window_update(w);
}

void hsk_session_start(struct machine_window *w, const char *option)
{
    hsk_session_end(w);
    hsk_notice_clear(w->notices, NULL);
    w->died = false;
    g_clear_pointer(&w->parting_words, g_free);
    if (!g_file_test(w->path, G_FILE_TEST_EXISTS)) {
        g_autofree char *text = g_strdup_printf("There is no file %s.", w->path);

        w->phase = PHASE_GONE;
        hsk_notice_show(w->notices, "gone", GTK_MESSAGE_ERROR, text, open_again, 1);
        hsk_window_update(w);
        return;
    }
    w->phase = PHASE_OPENING;
    hsk_window_set_busy(w, "Opening", true);
    w->launch = hsk_launch_new(w->path, option, on_launched, w);
}

void hsk_session_end(struct machine_window *w)
{
    g_clear_pointer(&w->launch, hsk_launch_free);
    g_clear_pointer(&w->control, hsk_control_free);
    hsk_snapshots_end(w->snapshots);
    g_clear_handle_id(&w->display_timer, g_source_remove);
    w->display_tries = 0;
}

/* ---- closing ---- */

static void on_stopped(void *opaque, json_t *reply, const char *error)
{
    static const struct hsk_notice_button choices[] = {
        {"Save As…", "win.save-as", NULL}, {"Close Without Saving", "win.close-unsaved", NULL}};
    struct machine_window *w = opaque;
    g_autofree char *text = NULL, *words = NULL;

    if (!error)
        return; /* the keeper ends now, which destroys the window */
    w->phase = PHASE_LIVE;
    hsk_window_set_busy(w, NULL, false);
    words = without_commands(error);
    text = g_strdup_printf("The machine could not be saved and stays open. %s", words);
    hsk_notice_show(w->notices, "close", GTK_MESSAGE_ERROR, text, choices, G_N_ELEMENTS(choices));
}

void hsk_session_close(struct machine_window *w, bool force)
{
    json_t *args = json_object();

    if (force)
        json_object_set_new(args, "force", json_true());
    hsk_notice_clear(w->notices, "close");
    hsk_screen_release_keys(w->screen);
    w->phase = PHASE_CLOSING;
    hsk_window_set_busy(w, force ? "Switching off" : "Saving", true);
    hsk_control_call(w->control, "stop", args, on_stopped, w);
}
