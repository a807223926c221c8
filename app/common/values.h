/* SPDX-License-Identifier: MIT */
/* Values of the command line, and where the programs are. */
#pragma once

#include <base/util.h>

/* "512M", "1G", "64MiB", "4096K", plain bytes. The error names the option. */
bool hsk_parse_size(const char *option, const char *text, uint64_t *bytes, GError **error);
/* Memory of a machine: a size that is a multiple of 1 MiB, 16 MiB to 64 GiB. */
bool hsk_parse_memory(const char *text, uint64_t *bytes, GError **error);
/* One of the words (NULL-terminated list); the error lists them. */
bool hsk_parse_word(const char *option, const char *text, const char *const *words, GError **error);

/* Path of a program of ours, which lies beside the running one. Caller frees. */
char *hsk_program_path(const char *name);
/* "hva: sentence" on stderr; names in it may be anything, a terminal gets nothing to obey. */
void hsk_complain(const char *sentence);
/* One line on stdout, likewise. */
void hsk_say(const char *fmt, ...) G_GNUC_PRINTF(1, 2);

/* The words of errors in the control socket's replies ("busy"): docs/control.md. Unknown ones are
 * "failed". */
const char *hsk_error_word(const GError *error);
int hsk_error_from_word(const char *word);
/* Exit status of `hva run`: somebody must say first whether to trust the document. */
enum { HSK_EXIT_UNDECIDED = 3 };
