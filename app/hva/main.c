/* SPDX-License-Identifier: MIT */
/* hva: the command line's entry: finds the command. Thread: main. */
#include <errno.h>
#include <locale.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/start.h"
#include "common/values.h"
#include "hva.h"

static const struct command {
    const char *name;
    int (*fn)(int argc, char **argv);
    const char *help;
} commands[] = {
    {"boot", hsk_cmd_boot, "boot a kernel in a throw-away machine"},
    {"doctor", hsk_cmd_doctor, "what this computer can do, and what to fix"},
    {"create", hsk_cmd_create, "make a new machine from a kernel and disk images"},
    {"template", hsk_cmd_template, "list the recipes, or make a new machine by one"},
    {"run", hsk_cmd_run, "run a machine"},
    {"ps", hsk_cmd_ps, "list running machines"},
    {"info", hsk_cmd_info, "what is in a machine"},
    {"snapshot", hsk_cmd_control, "keep a running machine as it is now"},
    {"log", hsk_cmd_log, "list a machine's snapshots"},
    {"revert", hsk_cmd_control, "go back to a snapshot"},
    {"undo", hsk_cmd_control, "undo the last revert"},
    {"drop", hsk_cmd_edit, "delete a snapshot"},
    {"rename", hsk_cmd_edit, "give a snapshot another title"},
    {"pin", hsk_cmd_edit, "protect a snapshot from being deleted"},
    {"unpin", hsk_cmd_edit, "end that"},
    {"keep", hsk_cmd_edit, "make a point of the timeline a snapshot"},
    {"pause", hsk_cmd_control, "let a machine stand still"},
    {"resume", hsk_cmd_control, "let it go on"},
    {"reset", hsk_cmd_control, "press its reset button"},
    {"power", hsk_cmd_control, "press its power button"},
    {"stop", hsk_cmd_control, "save a machine's state and close it"},
    {"screenshot", hsk_cmd_screenshot, "write a machine's screen as PNG"},
    {"type", hsk_cmd_control, "type a text"},
    {"key", hsk_cmd_control, "press keys"},
    {"mouse", hsk_cmd_control, "move the pointer, click"},
    {"console", hsk_cmd_console, "a machine's serial line"},
    {"timeline", hsk_cmd_timeline, "automatic checkpoints: on, off, how often, how large"},
    {"clock", hsk_cmd_clock, "what time it is in a machine that goes on"},
    {"verify", hsk_cmd_verify, "check every byte of a document"},
    {"compact", hsk_cmd_compact, "free what no snapshot of a document needs"},
    {"clone", hsk_cmd_clone, "make a new machine from this one, or from a snapshot of it"},
    {"save-as", hsk_cmd_save_as, "let a running machine's document go on in another file"},
    {"sign", hsk_cmd_sign, "sign a document as its publisher"},
    {"publisher", hsk_cmd_publisher, "your signing key, and the publishers that you trust"},
};

/* Part of the design, not of this version. */
static const char *const later[] = {"import", "export", NULL};

static int help(FILE *out, int status)
{
    fprintf(out, "Usage: hva COMMAND ...\n\nA whole computer as one document.\n\n");
    for (unsigned i = 0; i < G_N_ELEMENTS(commands); i++)
        fprintf(out, "  %-11s %s\n", commands[i].name, commands[i].help);
    fprintf(out, "\n\"hva COMMAND --help\" tells more.\n");
    return status;
}

bool hsk_parse_options(int *argc, char ***argv, const char *usage, const GOptionEntry *entries,
                       int *status)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(GOptionContext) ctx = g_option_context_new(usage);

    g_option_context_add_main_entries(ctx, entries, NULL);
    if (g_option_context_parse(ctx, argc, argv, &error))
        return true;
    *status = hsk_usage("%s", error->message);
    return false;
}

bool hsk_parse_args(struct hsk_args *a, int *argc, char ***argv, const char *usage, unsigned min,
                    unsigned max, int *status)
{
    const GOptionEntry entries[] = {
        {"json", 0, 0, G_OPTION_ARG_NONE, &a->json, "machine-readable output", NULL},
        {G_OPTION_REMAINING, 0, 0, G_OPTION_ARG_FILENAME_ARRAY, &a->rest, NULL, NULL},
        {NULL},
    };
    if (!hsk_parse_options(argc, argv, usage, entries, status))
        return false;
    unsigned n = a->rest ? g_strv_length(a->rest) : 0;
    if (n >= min && n <= max)
        return true;
    *status = hsk_usage("usage: %s %s", g_get_prgname(), usage);
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

void hsk_print_json(const json_t *v)
{
    char *text = json_dumps(v, JSON_INDENT(2) | JSON_ENCODE_ANY);
    printf("%s\n", text);
    free(text);
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

static int run(int argc, char **argv)
{
    signal(SIGXFSZ, SIG_IGN); /* a limit on file sizes is an error of the write, with a sentence */
    if (argc < 2)
        return help(stderr, 2);
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 ||
        strcmp(argv[1], "help") == 0)
        return help(stdout, 0);
    if (strcmp(argv[1], "--version") == 0) {
        printf("hva %s\n", HSK_VERSION);
        return 0;
    }
    /* They go on as JSON, which has no other texts. */
    for (int i = 1; i < argc; i++) {
        if (!g_utf8_validate(argv[i], -1, NULL))
            return hsk_usage("the names and texts of the command line must be UTF-8");
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(commands); i++) {
        if (strcmp(argv[1], commands[i].name) == 0) {
            g_autofree char *program = g_strconcat("hva ", argv[1], NULL);
            g_set_prgname(program);
            return commands[i].fn(argc - 1, argv + 1);
        }
    }
    if (g_strv_contains(later, argv[1]))
        return hsk_usage("this version cannot %s yet", argv[1]);
    return hsk_usage("there is no command \"%s\"; \"hva --help\" lists them", argv[1]);
}

int main(int argc, char **argv)
{
    hsk_program_begin();
    setlocale(LC_ALL, "");
    return hsk_program_end(run(argc, argv));
}
