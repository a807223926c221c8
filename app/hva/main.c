/* SPDX-License-Identifier: MIT */
/* hva: the command line's entry: finds the command. Thread: main. */
#include "hva.h"

#include "common/values.h"
#include <errno.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>

static const struct command {
    const char *name;
    int (*fn)(int argc, char **argv);
    const char *help;
} commands[] = {
    {"boot", hsk_cmd_boot, "boot a kernel in a throw-away machine"},
};

static int help(FILE *out, int status)
{
    fprintf(out, "Usage: hva COMMAND ...\n\nA whole computer as one document.\n\n");
    for (unsigned i = 0; i < G_N_ELEMENTS(commands); i++)
        fprintf(out, "  %-11s %s\n", commands[i].name, commands[i].help);
    fprintf(out, "\n\"hva COMMAND --help\" tells more.\n");
    return status;
}

bool hsk_parse_options(int *argc, char ***argv, const char *usage, const GOptionEntry *entries, int *status)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(GOptionContext) ctx = g_option_context_new(usage);

    g_option_context_add_main_entries(ctx, entries, NULL);
    if (g_option_context_parse(ctx, argc, argv, &error))
        return true;
    *status = hsk_usage("%s", error->message);
    return false;
}

int hsk_fail(const GError *error)
{
    hsk_complain(error->message);
    return g_error_matches(error, HSK_ERROR, HSK_ERROR_USAGE) ? 2 : 1;
}

int hsk_usage(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    g_autofree char *text = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    hsk_complain(text);
    return 2;
}

int hsk_exec_keeper(const char *mode, json_t *options)
{
    g_autofree char *path = hsk_program_path("hva-keeper");
    char *text = json_dumps(options, JSON_COMPACT);
    char *argv[] = {(char *)"hva-keeper", (char *)mode, text, NULL};

    json_decref(options);
    execv(path, argv);
    fprintf(stderr, "hva: cannot start %s: %s\n", path, g_strerror(errno));
    free(text);
    return 1;
}

int main(int argc, char **argv)
{
    setlocale(LC_ALL, "");
    if (argc < 2)
        return help(stderr, 2);
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "help") == 0)
        return help(stdout, 0);
    if (strcmp(argv[1], "--version") == 0) {
        printf("hva %s\n", HSK_VERSION);
        return 0;
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(commands); i++) {
        if (strcmp(argv[1], commands[i].name) == 0) {
            g_autofree char *program = g_strconcat("hva ", argv[1], NULL);
            g_set_prgname(program);
            return commands[i].fn(argc - 1, argv + 1);
        }
    }
    return hsk_usage("there is no command \"%s\"; \"hva --help\" lists them", argv[1]);
}
