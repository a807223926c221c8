/* SPDX-License-Identifier: MIT */
/*
 * The command line. Each command is one function; argv[0] is the command's name. Exit status: 0 ok,
 * 1 failed, 2 wrong usage. architecture of the commands: docs/architecture.md, "The command line".
 */
#pragma once

#include <base/util.h>

#include <jansson.h>

struct hsk_doc;

int hsk_cmd_boot(int argc, char **argv);
int hsk_cmd_clock(int argc, char **argv);
int hsk_cmd_console(int argc, char **argv);
int hsk_cmd_control(
    int argc, char **argv); /* pause, snapshot, key ...: all that only ask a running machine */
int hsk_cmd_create(int argc, char **argv);
int hsk_cmd_doctor(int argc, char **argv);
int hsk_cmd_edit(int argc, char **argv); /* drop, rename, pin, unpin, keep */
int hsk_cmd_info(int argc, char **argv);
int hsk_cmd_publisher(int argc, char **argv);
int hsk_cmd_log(int argc, char **argv);
int hsk_cmd_ps(int argc, char **argv);
int hsk_cmd_run(int argc, char **argv);
int hsk_cmd_screenshot(int argc, char **argv);
int hsk_cmd_sign(int argc, char **argv);
int hsk_cmd_template(int argc, char **argv);
int hsk_cmd_timeline(int argc, char **argv);
int hsk_cmd_verify(int argc, char **argv);
int hsk_cmd_compact(int argc, char **argv);
int hsk_cmd_clone(int argc, char **argv);
int hsk_cmd_save_as(int argc, char **argv);

/* Parses options by GLib; wrong usage: the sentence is printed, *status = 2, false. usage:
 * "FILE..." for --help. */
bool hsk_parse_options(int *argc, char ***argv, const char *usage, const GOptionEntry *entries,
                       int *status);

/* What most commands take: --json, and between min and max arguments. */
struct hsk_args {
    gboolean json;
    char **rest; /* of the caller, by g_strfreev() */
};
bool hsk_parse_args(struct hsk_args *a, int *argc, char ***argv, const char *usage, unsigned min,
                    unsigned max, int *status);
void hsk_print_json(const json_t *v);
/* Prints the error's sentence; its exit status. */
int hsk_fail(const GError *error);
int hsk_usage(const char *fmt, ...) G_GNUC_PRINTF(1, 2);
/* The document that does not run, by its path; NULL + error, also if there is no such file. */
struct hsk_doc *hsk_open_document(const char *path, bool readonly, GError **error);
/* Becomes hva-keeper; returns only if that cannot be started. Takes options. */
int hsk_exec_keeper(const char *mode, json_t *options);

/* ---- trust.c ---- */

struct hsk_trust_answer {
    bool fresh, trust_state;
};
/* Asks the user at the terminal whether a saved state of somebody else's is to be resumed, if there
 * is a terminal and such a state. false: he wants neither. */
bool hsk_ask_trust(const char *path, struct hsk_trust_answer *answer);
/* Signature, publisher and sizes of the document at path, added to what info says. */
void hsk_info_add_trust(json_t *info, const char *path);
void hsk_info_print_trust(const json_t *info);
