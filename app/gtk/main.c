/* SPDX-License-Identifier: MIT */
/*
 * haversack: the desktop program. One process for all windows (GApplication is single instance);
 * `haversack FILE.hva` in a second one only tells the first to open the file. Deliberately missing:
 * the library of machines.
 */
#include <gtk/gtk.h>
#include <stdlib.h>

#include "common/start.h"
#include "window.h"

#define APP_ID "io.github.haversack.Haversack"

static void open_path(GtkApplication *app, const char *path)
{
    char *real = realpath(path, NULL);
    const char *use = real ? real : path;
    GtkWidget *window = hsk_window_find(app, use);

    gtk_window_present(GTK_WINDOW(window ? window : hsk_window_new(app, use)));
    free(real);
}

static void on_open(GtkApplication *app, GFile **files, gint count, const char *hint,
                    gpointer opaque)
{
    for (gint i = 0; i < count; i++) {
        g_autofree char *path = g_file_get_path(files[i]);

        if (path)
            open_path(app, path);
        else
            g_printerr("haversack: only files on this computer can be opened.\n");
    }
}

static void on_chosen(GtkNativeDialog *dialog, gint response, gpointer opaque)
{
    g_autofree char *path = response == GTK_RESPONSE_ACCEPT
                                ? gtk_file_chooser_get_filename(GTK_FILE_CHOOSER(dialog))
                                : NULL;
    GtkWidget *welcome = opaque;

    if (path) {
        open_path(GTK_APPLICATION(g_application_get_default()), path);
        gtk_widget_destroy(welcome);
    }
    g_object_unref(dialog);
}

static void on_choose(GtkButton *button, GtkWidget *welcome)
{
    GtkFileChooserNative *dialog = gtk_file_chooser_native_new(
        "Open", GTK_WINDOW(welcome), GTK_FILE_CHOOSER_ACTION_OPEN, "_Open", "_Cancel");
    GtkFileFilter *filter = gtk_file_filter_new();

    gtk_file_filter_set_name(filter, "Haversack appliances");
    gtk_file_filter_add_pattern(filter, "*.hva");
    gtk_file_chooser_add_filter(GTK_FILE_CHOOSER(dialog), filter);
    gtk_native_dialog_set_modal(GTK_NATIVE_DIALOG(dialog), TRUE);
    g_signal_connect(dialog, "response", G_CALLBACK(on_chosen), welcome);
    gtk_native_dialog_show(GTK_NATIVE_DIALOG(dialog));
}

/* Without a file there is one thing to do. */
static void on_activate(GtkApplication *app, gpointer opaque)
{
    GtkWindow *active = gtk_application_get_active_window(app);
    GtkWidget *window, *box, *label, *button;

    if (active) {
        gtk_window_present(active);
        return;
    }
    window = gtk_application_window_new(app);
    gtk_window_set_title(GTK_WINDOW(window), "Haversack");
    gtk_window_set_icon_name(GTK_WINDOW(window), APP_ID);
    gtk_window_set_default_size(GTK_WINDOW(window), 480, 280);
    box = gtk_box_new(GTK_ORIENTATION_VERTICAL, 18);
    gtk_widget_set_valign(box, GTK_ALIGN_CENTER);
    gtk_widget_set_halign(box, GTK_ALIGN_CENTER);
    label = gtk_label_new("A whole computer in one file.");
    button = gtk_button_new_with_label("Open an Appliance…");
    g_signal_connect(button, "clicked", G_CALLBACK(on_choose), window);
    gtk_container_add(GTK_CONTAINER(box), label);
    gtk_container_add(GTK_CONTAINER(box), button);
    gtk_container_add(GTK_CONTAINER(window), box);
    gtk_widget_show_all(window);
}

static void act_about(GSimpleAction *action, GVariant *parameter, gpointer opaque)
{
    gtk_show_about_dialog(gtk_application_get_active_window(opaque), "program-name", "Haversack",
                          "version", HSK_VERSION, "comments", "A whole computer in one file.",
                          "license-type", GTK_LICENSE_MIT_X11, "logo-icon-name", APP_ID, NULL);
}

static void on_startup(GtkApplication *app, gpointer opaque)
{
    static const GActionEntry entries[] = {{.name = "about", .activate = act_about}};
    static const struct {
        const char *action;
        const char *keys[2];
    } keys[] = {
        {"win.fullscreen", {"F11", NULL}},
        {"win.close", {"<Primary>w", NULL}},
    };

    g_action_map_add_action_entries(G_ACTION_MAP(app), entries, G_N_ELEMENTS(entries), app);
    /* These work while the keyboard is not in the guest. */
    for (size_t i = 0; i < G_N_ELEMENTS(keys); i++)
        gtk_application_set_accels_for_action(app, keys[i].action, keys[i].keys);
}

int main(int argc, char **argv)
{
    g_autoptr(GtkApplication) app = NULL;

    hsk_program_begin();
    g_set_prgname("haversack");
    g_set_application_name("Haversack");
    if (argc > 1 && !strcmp(argv[1], "--version")) {
        g_print("haversack %s\n", HSK_VERSION);
        return 0;
    }
    if (!gtk_init_check(&argc, &argv)) {
        g_printerr("haversack: there is no display to open a window on; without one use: hva run "
                   "--no-window FILE\n");
        return 1;
    }
    app = gtk_application_new(APP_ID, G_APPLICATION_HANDLES_OPEN);
    g_signal_connect(app, "startup", G_CALLBACK(on_startup), NULL);
    g_signal_connect(app, "activate", G_CALLBACK(on_activate), NULL);
    g_signal_connect(app, "open", G_CALLBACK(on_open), NULL);
    return g_application_run(G_APPLICATION(app), argc, argv);
}
