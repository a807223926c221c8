/* SPDX-License-Identifier: MIT */
/*
 * The command line. Each command is one function; argv[0] is the command's name. Exit status: 0 ok, 1 failed, 2 wrong usage.
 * architecture of the commands: docs/architecture.md, "The command line".
 */
#pragma once

#include <base/util.h>
#include <jansson.h>

int hsk_cmd_boot(int argc, char **argv);

/* Parses options by GLib; wrong usage: the sentence is printed, *status = 2, false. usage: "FILE..." for --help. */
bool hsk_parse_options(int *argc, char ***argv, const char *usage, const GOptionEntry *entries, int *status);
/* Prints the error's sentence; its exit status. */
int hsk_fail(const GError *error);
int hsk_usage(const char *fmt, ...) G_GNUC_PRINTF(1, 2);
/* Becomes hva-keeper; returns only if that cannot be started. Takes options. */
int hsk_exec_keeper(const char *mode, json_t *options);
