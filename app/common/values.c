/* SPDX-License-Identifier: MIT */
/* Values of the command line: see values.h. */
#include "common/values.h"

#include <base/text.h>

#include <errno.h>
#include <stdio.h>

bool hsk_parse_size(const char *option, const char *text, uint64_t *bytes, GError **error)
{
    static const char units[] = "KMGT";
    char *end = NULL;
    unsigned shift = 0;

    errno = 0;
    uint64_t n = g_ascii_strtoull(text, &end, 10);
    bool ok = errno == 0 && end != text && g_ascii_isdigit(text[0]);
    if (ok && *end) {
        const char *u = strchr(units, g_ascii_toupper(*end));
        if (u) {
            shift = 10 * (unsigned)(u - units + 1);
            end++;
            if (g_ascii_strcasecmp(end, "iB") == 0 || g_ascii_strcasecmp(end, "B") == 0)
                end += strlen(end);
        }
        ok = *end == 0 && n <= UINT64_MAX >> shift;
    }
    if (!ok) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_USAGE,
                    "%s needs a size such as 512M or 2G, but \"%s\" was given", option, text);
        return false;
    }
    *bytes = n << shift;
    return true;
}

bool hsk_parse_memory(const char *text, uint64_t *bytes, GError **error)
{
    const uint64_t mib = 1 << 20;

    if (!hsk_parse_size("--memory", text, bytes, error))
        return false;
    if (*bytes % mib || *bytes < 16 * mib || *bytes > 65536 * mib) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_USAGE,
                    "--memory takes 16M to 64G in steps of 1M, but \"%s\" was given", text);
        return false;
    }
    return true;
}

bool hsk_parse_word(const char *option, const char *text, const char *const *words, GError **error)
{
    if (g_strv_contains(words, text))
        return true;
    g_autofree char *list = g_strjoinv(", ", (char **)words);
    g_set_error(error, HSK_ERROR, HSK_ERROR_USAGE, "%s takes one of %s, but \"%s\" was given",
                option, list, text);
    return false;
}

char *hsk_program_path(const char *name)
{
    g_autofree char *self = g_file_read_link("/proc/self/exe", NULL);
    g_autofree char *dir = self ? g_path_get_dirname(self) : g_strdup(".");
    return g_build_filename(dir, name, NULL);
}

void hsk_complain(const char *sentence)
{
    g_autofree char *line = hsk_text_line(sentence);
    fprintf(stderr, "hva: %s\n", line);
}

void hsk_say(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    g_autofree char *text = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    g_autofree char *line = hsk_text_line(text);
    puts(line);
}

static const char *const error_words[] = {
    [HSK_ERROR_FAILED] = "failed",
    [HSK_ERROR_DAMAGED] = "damaged",
    [HSK_ERROR_UNSUPPORTED] = "unsupported",
    [HSK_ERROR_BUSY] = "busy",
    [HSK_ERROR_NO_SPACE] = "no-space",
    [HSK_ERROR_UNTRUSTED] = "untrusted",
    [HSK_ERROR_USAGE] = "usage",
    [HSK_ERROR_NOT_FOUND] = "not-found",
    [HSK_ERROR_CANCELLED] = "cancelled",
};

const char *hsk_error_word(const GError *error)
{
    bool ours = error->domain == HSK_ERROR && (unsigned)error->code < G_N_ELEMENTS(error_words);

    return error_words[ours ? error->code : HSK_ERROR_FAILED];
}

int hsk_error_from_word(const char *word)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(error_words); i++) {
        if (strcmp(error_words[i], word) == 0)
            return (int)i;
    }
    return HSK_ERROR_FAILED;
}
