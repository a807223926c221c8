/* SPDX-License-Identifier: MIT */
/*
 * Whose document is it? A stranger's runs from power-on only; its saved states are resumed once the
 * user has said so, for the publisher (option trust: the fingerprint of his key) or for what is in
 * the file (trust_state). A document that was signed and no longer is as it was is not opened at
 * all. Thread: main.
 */
#include <snapshots/trust.h>

#include "common/values.h"
#include "document.h"

static bool is_key(const char *text, const struct hsk_trust_report *r)
{
    struct hsk_pubkey k;

    return g_ascii_strcasecmp(text, r->fingerprint) == 0 ||
           (hsk_pubkey_parse(text, &k) && hsk_pubkey_equal(&k, &r->key));
}

bool hsk_document_check_trust(struct hsk_document *d, GError **error)
{
    HSK_AUTO(hsk_trust_report, r) = hsk_doc_trust(d->doc);
    const char *trust = hsk_json_str(d->options, "trust", NULL);
    bool state = hsk_json_bool(d->options, "trust_state");

    d->foreign = hsk_doc_foreign(d->doc);
    if (r->trust == HSK_TRUST_REFUSED) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_UNTRUSTED, "%s", r->sentence);
        return false;
    }
    if (trust && (r->sign != HSK_SIGNED_GOOD || !is_key(trust, r))) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_UNTRUSTED,
                    "%s is not signed by the key %s: it was %s", d->path, trust, r->sentence);
        return false;
    }
    if (r->trust == HSK_TRUST_OWN || r->sign != HSK_SIGNED_GOOD)
        return !state || hsk_doc_accept(d->doc, error);
    return hsk_doc_note_publisher(d->doc, r, trust || state, error);
}

bool hsk_document_may_resume(struct hsk_document *d, const char *id, GError **error)
{
    if (!g_hash_table_contains(d->foreign, id))
        return true;
    HSK_AUTO(hsk_trust_report, r) = hsk_doc_trust(d->doc);
    d->undecided = true;
    if (r->sign == HSK_SIGNED_GOOD)
        g_set_error(error, HSK_ERROR, HSK_ERROR_UNTRUSTED,
                    "%s was saved while it ran, %s; \"hva run --trust %s\" resumes it and trusts "
                    "this publisher with this machine, --fresh starts it from power-on",
                    d->path, r->sentence, r->fingerprint);
    else
        g_set_error(error, HSK_ERROR, HSK_ERROR_UNTRUSTED,
                    "%s was saved while it ran, by somebody else, and nothing proves by whom; "
                    "\"hva run --trust-state\" resumes it all the same, --fresh starts it from "
                    "power-on",
                    d->path);
    return false;
}
