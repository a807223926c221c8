/* SPDX-License-Identifier: MIT */
/* What window.c (the widgets), session.c (the machine's sockets) and acts.c (the actions) share. */
#pragma once

#include <display/screen.h>

#include "control.h"
#include "launch.h"
#include "notice.h"

enum phase {
    PHASE_OPENING, /* no control socket yet */
    PHASE_LIVE,
    PHASE_CLOSING, /* "stop" was asked for, or the keeper said it is closing */
    PHASE_GONE,    /* the keeper is not there */
};

struct machine_window {
    GtkWidget *window;
    GtkWidget *header, *full_header, *hint;
    GtkWidget *progress;
    GtkBox *notices;
    HskScreen *screen;
    GMenu *revert_menu;
    struct hsk_snapshots *snapshots; /* NULL: not opened yet */
    char *path;                      /* absolute */
    char *name;

    enum phase phase;
    bool close_wanted;   /* closed while opening */
    bool died;           /* the machine process, not the keeper */
    char *parting_words; /* what the keeper said when it closed, or NULL: something that the user
                            must read */
    bool fullscreen, roomy;
    bool shaped;          /* the window once took the picture's size */
    char *state;          /* "running", "paused", "off", ... as the keeper says */
    char *busy;           /* what goes on right now: "Taking a snapshot", or NULL */
    gint64 last_snapshot; /* UTC seconds, 0: none */
    struct hsk_launch *launch;
    struct hsk_control *control;
    char *instance_dir;
    unsigned display_tries;
    gint64 display_since; /* monotonic us of the last attach */
    guint display_timer, minute_timer, pulse_timer, reveal_timer, hint_timer;
};

/* window.c */
void hsk_window_update(struct machine_window *w); /* title, sub-line, which actions can be used */
void hsk_window_error(struct machine_window *w, const char *text);
void hsk_window_set_busy(struct machine_window *w, const char *text, bool progress);
void hsk_window_set_fullscreen(struct machine_window *w, bool on);

/* session.c */
/* option: one more for `hva run`, a constant, or NULL. */
void hsk_session_start(struct machine_window *w, const char *option);
void hsk_session_end(struct machine_window *w); /* drops everything, calls nobody back */
/* Sends stop; the window goes when the machine has said that all is saved. */
void hsk_session_close(struct machine_window *w, bool force);
void hsk_session_attach_screen(struct machine_window *w);
void hsk_session_refresh_versions(struct machine_window *w);
/* Calls cmd; an error becomes a notice. */
void hsk_session_call(struct machine_window *w, const char *cmd, json_t *args);

/* acts.c */
void hsk_acts_add(struct machine_window *w);
void hsk_acts_update(struct machine_window *w);
gboolean hsk_acts_host_key(HskScreen *screen, guint code, struct machine_window *w);
