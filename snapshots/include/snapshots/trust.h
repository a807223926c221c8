/* SPDX-License-Identifier: MIT */
/*
 * Whose document is it? Signatures, publishers whose keys this user knows, and what was seen of a
 * document before (docs/format.md, "Trust"). Nothing here is ever read from a document but its
 * signature.
 *
 * Threads: as store.h. Errors: one sentence.
 */
#pragma once

#include <appliance-format/minisign.h>
#include <snapshots/store.h>

enum hsk_trust {
    HSK_TRUST_OWN,       /* its last generation was written by this user on this computer */
    HSK_TRUST_PUBLISHER, /* signed by a publisher whose key is known */
    HSK_TRUST_UNKNOWN,   /* signed by a key that is not known */
    HSK_TRUST_UNSIGNED,
    HSK_TRUST_REFUSED, /* must not be opened: sentence says why and what to do */
};
enum hsk_signed {
    HSK_SIGNED_NOT,
    HSK_SIGNED_BEFORE, /* changed since it was signed */
    HSK_SIGNED_GOOD,
    HSK_SIGNED_WITHOUT_KEY, /* by a key that is neither known nor named in the signature */
    HSK_SIGNED_BAD,
};
struct hsk_trust_report {
    enum hsk_trust trust;
    enum hsk_signed sign;
    struct hsk_pubkey key;                       /* of a good signature */
    char fingerprint[HSK_FINGERPRINT_BYTES + 1]; /* of it, or "" */
    char *publisher; /* our name for a known one; an unknown one's own claim; or NULL */
    char *sentence;  /* for people */
    uint64_t generation;
};
void hsk_trust_report_free(struct hsk_trust_report *r);
HSK_DEFINE_AUTO(hsk_trust_report, hsk_trust_report_free)
struct hsk_trust_report *hsk_doc_trust(struct hsk_doc *doc);

/* Notes key and generation of a signed document, to notice when they change. accepted: this
 * publisher is trusted with this document from now on. */
bool hsk_doc_note_publisher(struct hsk_doc *doc, const struct hsk_trust_report *r, bool accepted,
                            GError **error);
/* The user takes over everything in it, as if written here. */
bool hsk_doc_accept(struct hsk_doc *doc, GError **error);
/* Ids of versions that somebody made who is not trusted: a set, the document's. */
GHashTable *hsk_doc_foreign(struct hsk_doc *doc);

/* ---- signing ---- */

/* Appends a signature of the document's ROOT. publisher: the name that goes with it. */
bool hsk_doc_sign(const char *path, const struct hsk_seckey *k, const char *publisher,
                  GError **error);

/* ---- keys of this user's ---- */

/* The user's own signing key; made, without a password, if there is none (*made). Its name is the
 * user's. */
bool hsk_own_key(struct hsk_seckey *k, char **name, bool *made, GError **error);
/* Is there one? Its public part and name. */
bool hsk_own_pubkey(struct hsk_pubkey *k, char **name);
bool hsk_own_key_set(const struct hsk_seckey *k, const char *password, const char *name,
                     GError **error);
/* The contents of the own key's file (secret), or NULL. */
char *hsk_own_key_read(void);

struct hsk_publisher {
    struct hsk_pubkey key;
    char *name;
    char fingerprint[HSK_FINGERPRINT_BYTES + 1];
};
void hsk_publisher_free(struct hsk_publisher *p);
/* Those that are trusted with every document: of struct hsk_publisher, by name. */
GPtrArray *hsk_publishers(void);
bool hsk_publisher_add(const struct hsk_pubkey *k, const char *name, GError **error);
/* By name, fingerprint or the start of one; HSK_ERROR_NOT_FOUND if there is none. */
bool hsk_publisher_forget(const char *which, GError **error);
/* What was noted of the document with that uuid; false: nothing was. */
bool hsk_pin_forget(const char *uuid, GError **error);
