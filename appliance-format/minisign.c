/* SPDX-License-Identifier: MIT */
/*
 * minisign's files (minisign.h; format as of minisign 0.11, jedisct1.github.io/minisign).
 *
 *   public key  base64("Ed" id[8] key[32])
 *   secret key  base64("Ed" kdf[2] "B2" salt[32] ops:u64 mem:u64 (id[8] secret[64] check[32]))
 *               kdf "Sc": the part in brackets is XORed with scrypt(password); kdf 0,0: it is plain
 *               check = BLAKE2b-256("Ed" id secret), or zeros in a plain one
 *   signature   base64("ED" id[8] Ed25519(BLAKE2b-512(data)))
 *               base64(Ed25519(signature, trusted comment))
 *
 * A reader of signatures reads hostile input: exact lengths, canonical base64, no CR, nothing
 * behind the fourth line. Any thread.
 */
#include <appliance-format/io.h>
#include <appliance-format/minisign.h>

#include <errno.h>
#include <sodium.h>

#define UNTRUSTED     "untrusted comment: "
#define TRUSTED       "trusted comment: "
#define COMMENT_BYTES 8192u /* minisign reads no longer one */

/* What a new key's password costs: 64 MiB and a fraction of a second. Any file says its own cost;
 * more than minisign's default (1 GiB) is not meant seriously. */
#define KDF_OPS     (1ull << 22)
#define KDF_MEM     (64ull << 20)
#define KDF_OPS_MAX (1ull << 27)
#define KDF_MEM_MAX (1ull << 30)

struct public_blob {
    uint8_t algorithm[2], id[8], key[32];
};
struct secret_blob {
    uint8_t algorithm[2], kdf[2], check_algorithm[2], salt[32], ops[8], mem[8];
    struct {
        uint8_t id[8], secret[64], check[32];
    } body;
};
struct signature_blob {
    uint8_t algorithm[2], id[8], bytes[64];
};
G_STATIC_ASSERT(sizeof(struct public_blob) == 42);
G_STATIC_ASSERT(sizeof(struct secret_blob) == 158);
G_STATIC_ASSERT(sizeof(struct signature_blob) == 74);

static char *base64(const void *bytes, size_t n)
{
    size_t len = sodium_base64_ENCODED_LEN(n, sodium_base64_VARIANT_ORIGINAL);
    char *text = g_malloc(len);
    return sodium_bin2base64(text, len, bytes, n, sodium_base64_VARIANT_ORIGINAL);
}

/* The len characters at text are n bytes in canonical base64 (sodium_base642bin alone takes bytes
 * over 127 for others). */
static bool unbase64(const char *text, size_t len, void *out, size_t n)
{
    size_t got = 0;
    if (sodium_base642bin(out, n, text, len, NULL, &got, NULL, sodium_base64_VARIANT_ORIGINAL) !=
            0 ||
        got != n)
        return false;
    g_autofree char *again = base64(out, n);
    bool same = strlen(again) == len && memcmp(again, text, len) == 0;
    sodium_memzero(again, strlen(again));
    return same;
}

/* The second line of a key file: *len characters. NULL: it is none. */
static const char *second_line(const char *text, size_t *len)
{
    const char *nl = g_str_has_prefix(text, UNTRUSTED) ? strchr(text, '\n') : NULL;
    if (nl == NULL)
        return NULL;
    *len = strcspn(nl + 1, "\r\n");
    return nl + 1;
}

/* ---- public keys ---- */

bool hsk_pubkey_equal(const struct hsk_pubkey *a, const struct hsk_pubkey *b)
{
    return memcmp(a->id, b->id, sizeof(a->id)) == 0 && memcmp(a->key, b->key, sizeof(a->key)) == 0;
}

void hsk_pubkey_text(const struct hsk_pubkey *k, char out[HSK_PUBKEY_TEXT_BYTES + 1])
{
    struct public_blob b = {.algorithm = {'E', 'd'}};
    memcpy(b.id, k->id, sizeof(b.id));
    memcpy(b.key, k->key, sizeof(b.key));
    g_autofree char *text = base64(&b, sizeof(b));
    g_strlcpy(out, text, HSK_PUBKEY_TEXT_BYTES + 1);
}

bool hsk_pubkey_parse(const char *text, struct hsk_pubkey *k)
{
    struct public_blob b;
    size_t len = strcspn(text, "\r\n");
    const char *line = g_str_has_prefix(text, UNTRUSTED) ? second_line(text, &len) : text;
    if (line == NULL || !unbase64(line, len, &b, sizeof(b)) || memcmp(b.algorithm, "Ed", 2) != 0)
        return false;
    memcpy(k->id, b.id, sizeof(k->id));
    memcpy(k->key, b.key, sizeof(k->key));
    return true;
}

char *hsk_pubkey_format(const struct hsk_pubkey *k, const char *comment)
{
    char text[HSK_PUBKEY_TEXT_BYTES + 1];
    hsk_pubkey_text(k, text);
    return g_strdup_printf(UNTRUSTED "%s\n%s\n", comment, text);
}

void hsk_pubkey_fingerprint(const struct hsk_pubkey *k, char out[HSK_FINGERPRINT_BYTES + 1])
{
    uint8_t all[sizeof(k->id) + sizeof(k->key)], hash[16];
    memcpy(all, k->id, sizeof(k->id));
    memcpy(all + sizeof(k->id), k->key, sizeof(k->key));
    crypto_generichash(hash, sizeof(hash), all, sizeof(all), NULL, 0);
    for (unsigned i = 0; i < 8; i++) {
        hsk_hex(out + (size_t)i * 5, hash + (size_t)i * 2, 2);
        out[i * 5 + 4] = i == 7 ? '\0' : '-';
    }
}

/* ---- secret keys ---- */

void hsk_seckey_new(struct hsk_seckey *k)
{
    randombytes_buf(k->public.id, sizeof(k->public.id));
    crypto_sign_keypair(k->public.key, k->secret);
}

void hsk_seckey_clear(struct hsk_seckey *k)
{
    sodium_memzero(k, sizeof(*k));
}

static void make_check(const struct secret_blob *b, uint8_t check[32])
{
    uint8_t all[sizeof(b->algorithm) + sizeof(b->body.id) + sizeof(b->body.secret)];
    memcpy(all, b->algorithm, 2);
    memcpy(all + 2, b->body.id, 8);
    memcpy(all + 10, b->body.secret, 64);
    crypto_generichash(check, 32, all, sizeof(all), NULL, 0);
    sodium_memzero(all, sizeof(all));
}

/* XORs the body with what the password becomes. */
static bool crypt_body(struct secret_blob *b, const char *password, GError **error)
{
    uint8_t stream[sizeof(b->body)];
    uint8_t *body = (uint8_t *)&b->body;
    if (crypto_pwhash_scryptsalsa208sha256(stream, sizeof(stream), password, strlen(password),
                                           b->salt, hsk_get64(b->ops), hsk_get64(b->mem)) != 0) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_FAILED,
                    "there is not enough memory for the key's password; close something first");
        return false;
    }
    for (size_t i = 0; i < sizeof(stream); i++)
        body[i] ^= stream[i];
    sodium_memzero(stream, sizeof(stream));
    return true;
}

char *hsk_seckey_format(const struct hsk_seckey *k, const char *password, GError **error)
{
    struct secret_blob b = {.algorithm = {'E', 'd'}, .check_algorithm = {'B', '2'}};
    memcpy(b.body.id, k->public.id, sizeof(b.body.id));
    memcpy(b.body.secret, k->secret, sizeof(b.body.secret));
    make_check(&b, b.body.check);
    bool ok = true;
    if (password != NULL) {
        memcpy(b.kdf, "Sc", 2);
        randombytes_buf(b.salt, sizeof(b.salt));
        hsk_put64(b.ops, KDF_OPS);
        hsk_put64(b.mem, KDF_MEM);
        ok = crypt_body(&b, password, error);
    }
    g_autofree char *text = ok ? base64(&b, sizeof(b)) : NULL;
    char *file = ok ? g_strdup_printf(UNTRUSTED "minisign %ssecret key\n%s\n",
                                      password != NULL ? "encrypted " : "", text)
                    : NULL;
    sodium_memzero(&b, sizeof(b));
    if (text != NULL)
        sodium_memzero(text, strlen(text));
    return file;
}

static bool read_secret(const char *text, struct secret_blob *b)
{
    size_t len = 0;
    const char *line = second_line(text, &len);
    return line != NULL && unbase64(line, len, b, sizeof(*b)) &&
           memcmp(b->algorithm, "Ed", 2) == 0 && memcmp(b->check_algorithm, "B2", 2) == 0;
}

bool hsk_seckey_is_encrypted(const char *text)
{
    struct secret_blob b;
    bool yes = read_secret(text, &b) && memcmp(b.kdf, "Sc", 2) == 0;
    sodium_memzero(&b, sizeof(b));
    return yes;
}

static bool open_secret(const char *label, struct secret_blob *b, const char *password,
                        GError **error)
{
    uint8_t check[32];
    if (memcmp(b->kdf, "Sc", 2) == 0) {
        if (hsk_get64(b->ops) > KDF_OPS_MAX || hsk_get64(b->mem) > KDF_MEM_MAX)
            return hsk_damaged(error, label, "its password would cost more than it ever does");
        if (password == NULL) {
            g_set_error(error, HSK_ERROR, HSK_ERROR_USAGE,
                        "%s is encrypted; give its password with --password-file", label);
            return false;
        }
        if (!crypt_body(b, password, error))
            return false;
    } else if (memcmp(b->kdf, "\0\0", 2) != 0) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_UNSUPPORTED,
                    "%s is encrypted in a way that this version does not know", label);
        return false;
    }
    make_check(b, check);
    /* minisign 0.11 leaves the check of a key without password empty */
    if (sodium_memcmp(check, b->body.check, sizeof(check)) == 0 ||
        (memcmp(b->kdf, "Sc", 2) != 0 && sodium_is_zero(b->body.check, sizeof(b->body.check))))
        return true;
    if (memcmp(b->kdf, "Sc", 2) != 0)
        return hsk_damaged(error, label, "it is not the key that was written");
    g_set_error(error, HSK_ERROR, HSK_ERROR_FAILED, "the password of %s is another one", label);
    return false;
}

bool hsk_seckey_parse(const char *label, const char *text, const char *password,
                      struct hsk_seckey *k, GError **error)
{
    struct secret_blob b;
    if (!read_secret(text, &b)) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_DAMAGED, "%s is not a minisign secret key", label);
        return false;
    }
    bool ok = open_secret(label, &b, password, error);
    if (ok) {
        memcpy(k->public.id, b.body.id, sizeof(k->public.id));
        memcpy(k->secret, b.body.secret, sizeof(k->secret));
        crypto_sign_ed25519_sk_to_pk(k->public.key, k->secret);
    }
    sodium_memzero(&b, sizeof(b));
    return ok;
}

/* ---- signatures ---- */

static void hash512(const void *data, size_t bytes, uint8_t out[crypto_generichash_BYTES_MAX])
{
    crypto_generichash(out, crypto_generichash_BYTES_MAX, data, bytes, NULL, 0);
}

/* What the second signature is of. */
static GByteArray *global_data(const uint8_t signature[64], const char *comment)
{
    GByteArray *a = g_byte_array_new();
    g_byte_array_append(a, signature, 64);
    return g_byte_array_append(a, (const uint8_t *)comment, (guint)strlen(comment));
}

void hsk_signature_free(struct hsk_signature *s)
{
    if (s == NULL)
        return;
    g_free(s->comment);
    g_free(s);
}

static bool parse_signature(char **lines, struct hsk_signature *s)
{
    struct signature_blob b;
    if (g_strv_length(lines) != 5 || lines[4][0] != '\0' ||
        !g_str_has_prefix(lines[0], UNTRUSTED) || !g_str_has_prefix(lines[2], TRUSTED) ||
        !unbase64(lines[1], strlen(lines[1]), &b, sizeof(b)) ||
        !unbase64(lines[3], strlen(lines[3]), s->global, sizeof(s->global)) ||
        memcmp(b.algorithm, "ED", 2) != 0)
        return false;
    memcpy(s->id, b.id, sizeof(s->id));
    memcpy(s->bytes, b.bytes, sizeof(s->bytes));
    s->comment = g_strdup(lines[2] + strlen(TRUSTED));
    return strlen(s->comment) < COMMENT_BYTES;
}

struct hsk_signature *hsk_signature_parse(const char *label, const char *text, size_t bytes,
                                          GError **error)
{
    HSK_AUTO(hsk_signature, s) = g_new0(struct hsk_signature, 1);
    g_autofree char *copy = bytes <= HSK_KEY_FILE_MAX_BYTES ? g_strndup(text, bytes) : NULL;
    if (copy != NULL && strlen(copy) == bytes && strchr(copy, '\r') == NULL) {
        g_auto(GStrv) lines = g_strsplit(copy, "\n", 6);
        if (parse_signature(lines, s))
            return g_steal_pointer(&s);
    }
    hsk_damaged(error, label, "its signature (ROOT.minisig) is not one that minisign writes");
    return NULL;
}

bool hsk_signature_verify(const struct hsk_signature *s, const struct hsk_pubkey *k,
                          const void *data, size_t bytes)
{
    uint8_t hash[crypto_generichash_BYTES_MAX];
    if (memcmp(s->id, k->id, sizeof(s->id)) != 0)
        return false;
    hash512(data, bytes, hash);
    g_autoptr(GByteArray) all = global_data(s->bytes, s->comment);
    return crypto_sign_verify_detached(s->bytes, hash, sizeof(hash), k->key) == 0 &&
           crypto_sign_verify_detached(s->global, all->data, all->len, k->key) == 0;
}

char *hsk_signature_make(const struct hsk_seckey *k, const void *data, size_t bytes,
                         const char *comment)
{
    struct signature_blob b = {.algorithm = {'E', 'D'}};
    uint8_t hash[crypto_generichash_BYTES_MAX], global[64];
    hsk_assert(strpbrk(comment, "\r\n") == NULL && strlen(comment) < COMMENT_BYTES);
    memcpy(b.id, k->public.id, sizeof(b.id));
    hash512(data, bytes, hash);
    crypto_sign_detached(b.bytes, NULL, hash, sizeof(hash), k->secret);
    g_autoptr(GByteArray) all = global_data(b.bytes, comment);
    crypto_sign_detached(global, NULL, all->data, all->len, k->secret);
    g_autofree char *first = base64(&b, sizeof(b)), *second = base64(global, sizeof(global));
    return g_strdup_printf(UNTRUSTED "signature of a Haversack document's ROOT\n%s\n" TRUSTED
                                     "%s\n%s\n",
                           first, comment, second);
}
