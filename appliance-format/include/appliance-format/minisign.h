/* SPDX-License-Identifier: MIT */
/*
 * Keys and signatures in minisign's formats (docs/format.md, "ROOT.minisig"): what we write
 * `minisign -V` accepts, and what `minisign -S` writes is accepted here. Only prehashed signatures
 * ("ED": Ed25519 over BLAKE2b-512), never the legacy kind.
 *
 * Threads: plain data. sodium_init() must have been called.
 */
#pragma once

#include <base/util.h>

#define HSK_PUBKEY_TEXT_BYTES  56 /* base64 of algorithm, id and key */
#define HSK_FINGERPRINT_BYTES  39 /* eight groups of four hex digits */
#define HSK_KEY_FILE_MAX_BYTES 16384u
#define HSK_PUBLISHER_MAX      100 /* bytes of a publisher's name */

/* The id is chosen by whoever made the key and proves nothing: keys are compared as a whole. */
struct hsk_pubkey {
    uint8_t id[8], key[32];
};
bool hsk_pubkey_equal(const struct hsk_pubkey *a, const struct hsk_pubkey *b);
/* The line that minisign shows, "RW..."; with a NUL. */
void hsk_pubkey_text(const struct hsk_pubkey *k, char out[HSK_PUBKEY_TEXT_BYTES + 1]);
/* Such a line, or a whole minisign public key file. */
bool hsk_pubkey_parse(const char *text, struct hsk_pubkey *k);
/* The contents of a public key file. */
char *hsk_pubkey_format(const struct hsk_pubkey *k, const char *comment);
/* What people compare: BLAKE2b-128 of id and key. */
void hsk_pubkey_fingerprint(const struct hsk_pubkey *k, char out[HSK_FINGERPRINT_BYTES + 1]);

/* Wipe with hsk_seckey_clear. */
struct hsk_seckey {
    struct hsk_pubkey public;
    uint8_t secret[64];
};
void hsk_seckey_new(struct hsk_seckey *k);
void hsk_seckey_clear(struct hsk_seckey *k);
/* The contents of a secret key file, encrypted unless password is NULL. */
char *hsk_seckey_format(const struct hsk_seckey *k, const char *password, GError **error);
/* Does a key file ask for a password? */
bool hsk_seckey_is_encrypted(const char *text);
/* label names the file in errors. */
bool hsk_seckey_parse(const char *label, const char *text, const char *password,
                      struct hsk_seckey *k, GError **error);

/* A signature file. The trusted comment is covered by the signature. */
struct hsk_signature {
    uint8_t id[8], bytes[64], global[64];
    char *comment;
};
void hsk_signature_free(struct hsk_signature *s);
HSK_DEFINE_AUTO(hsk_signature, hsk_signature_free)
/* Exactly four lines as minisign writes them; nothing else is a signature. */
struct hsk_signature *hsk_signature_parse(const char *label, const char *text, size_t bytes,
                                          GError **error);
/* Signature and trusted comment fit key and data. */
bool hsk_signature_verify(const struct hsk_signature *s, const struct hsk_pubkey *k,
                          const void *data, size_t bytes);
/* The contents of the signature file. comment: no line breaks. */
char *hsk_signature_make(const struct hsk_seckey *k, const void *data, size_t bytes,
                         const char *comment);
