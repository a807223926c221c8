/* SPDX-License-Identifier: MIT */
/*
 * Whose document is it, told and asked at the terminal. The decision is carried out by the keeper
 * (app/keeper/trust.c), which checks by itself. Thread: main.
 */
#include <base/text.h>
#include <snapshots/trust.h>

#include <stdio.h>
#include <sys/stat.h>

#include "common/values.h"
#include "common/wire.h"
#include "hva.h"

/* Does it hold a running state that somebody else made and that run would resume? */
static bool would_resume(struct hsk_doc *doc)
{
    struct hsk_version_info *list = hsk_doc_versions(doc, NULL);
    const char *saved = hsk_doc_saved(doc);
    bool yes = false;

    for (const struct hsk_version_info *v = list; v; v = v->next)
        yes |= strcmp(v->id, saved) == 0 && v->has_state &&
               g_hash_table_contains(hsk_doc_foreign(doc), v->id);
    hsk_version_info_free(list);
    return yes;
}

bool hsk_ask_trust(const char *path, struct hsk_trust_answer *answer)
{
    char line[16];

    if (!isatty(STDIN_FILENO) || !isatty(STDERR_FILENO))
        return true; /* the keeper refuses and names the options */
    struct hsk_doc *doc = hsk_doc_open(path, true, NULL, NULL);
    if (!doc)
        return true; /* the keeper says why */
    HSK_AUTO(hsk_trust_report, r) = hsk_doc_trust(doc);
    bool ask = r->trust != HSK_TRUST_REFUSED && would_resume(doc);
    hsk_doc_close(doc);
    if (!ask)
        return true;
    g_autofree char *shown = hsk_text_line(path);
    fprintf(stderr,
            "%s was saved while it ran, %s.\nResuming it gives its maker's program the machine as "
            "he left it.\n[r]esume %s, [s]tart from power-on, or [q]uit? ",
            shown, r->sentence,
            r->sign == HSK_SIGNED_GOOD ? "and trust this publisher with this machine"
                                       : "all the same");
    if (!fgets(line, sizeof(line), stdin))
        return false;
    answer->trust_state = line[0] == 'r';
    answer->fresh = line[0] == 's';
    return answer->trust_state || answer->fresh;
}

static const char *signature_word(enum hsk_signed s)
{
    static const char *const words[] = {
        [HSK_SIGNED_NOT] = "none",  [HSK_SIGNED_BEFORE] = "ended",
        [HSK_SIGNED_GOOD] = "good", [HSK_SIGNED_WITHOUT_KEY] = "unknown-key",
        [HSK_SIGNED_BAD] = "bad",
    };
    return words[s];
}

static const char *trust_word(enum hsk_trust t)
{
    static const char *const words[] = {
        [HSK_TRUST_OWN] = "own",         [HSK_TRUST_PUBLISHER] = "publisher",
        [HSK_TRUST_UNKNOWN] = "unknown", [HSK_TRUST_UNSIGNED] = "unsigned",
        [HSK_TRUST_REFUSED] = "refused",
    };
    return words[t];
}

void hsk_info_add_trust(json_t *info, const char *path)
{
    struct hsk_doc *doc = hsk_doc_open(path, true, NULL, NULL);
    struct stat st;

    if (!doc)
        return;
    HSK_AUTO(hsk_trust_report, r) = hsk_doc_trust(doc);
    hsk_doc_close(doc);
    if (stat(path, &st) == 0)
        json_object_set_new(info, "file_bytes", json_integer(st.st_size));
    json_object_set_new(info, "generation", json_integer((json_int_t)r->generation));
    json_object_set_new(info, "origin",
                        json_pack("{s:s, s:s, s:s?, s:s?, s:s}", "trust", trust_word(r->trust),
                                  "signature", signature_word(r->sign), "publisher", r->publisher,
                                  "fingerprint", r->fingerprint[0] ? r->fingerprint : NULL, "text",
                                  r->sentence));
}

void hsk_info_print_trust(const json_t *info)
{
    const json_t *o = json_object_get(info, "origin");

    if (!o)
        return;
    printf("  size      %.1f MB, generation %" G_GINT64_FORMAT "\n  origin    %s\n",
           (double)hsk_json_int(info, "file_bytes", 0) / 1e6, hsk_json_int(info, "generation", 0),
           hsk_json_str(o, "text", ""));
}
