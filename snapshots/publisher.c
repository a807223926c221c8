/* SPDX-License-Identifier: MIT */
/*
 * Keys of publishers, and whose document it is (trust.h; docs/format.md, "Trust"). In
 * $XDG_DATA_HOME/haversack: signing.key and signing.pub are the user's own pair, publishers/ holds
 * the public keys that are trusted with everything (minisign's format, the name in its comment),
 * pins/ what was seen of each signed document: its key and generation. Any thread, but for the
 * document's.
 */
#include <errno.h>
#include <inttypes.h>
#include <sodium.h>
#include <sys/stat.h>

#include "doc.h"

/* ---- files of ours ---- */

static char *data_file(const char *folder, const char *name)
{
    g_autofree char *data = hsk_data_folder();
    return g_build_filename(data, folder, name, NULL);
}

/* Replaces $data/<folder>/<name>; folder may be "". */
static bool write_file(const char *folder, const char *name, const char *text, GError **error)
{
    g_autofree char *path = data_file(folder, NULL);
    if (g_mkdir_with_parents(path, 0700) < 0)
        return hsk_io_error(error, errno, "make the folder %s", path);
    HSK_AUTOFD fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int r = fd < 0 ? -errno : hsk_io_replace_file(NULL, fd, name, text, strlen(text));
    return r == 0 || hsk_io_error(error, r, "write %s in %s", name, path);
}

/* At most HSK_KEY_FILE_MAX_BYTES; NULL: there is none. */
static char *read_file(const char *folder, const char *name)
{
    g_autofree char *path = data_file(folder, name);
    HSK_AUTOFD fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size > HSK_KEY_FILE_MAX_BYTES)
        return NULL;
    char *text = g_malloc0((size_t)st.st_size + 1);
    if (hsk_pread_all(fd, text, (size_t)st.st_size, 0) < 0)
        g_clear_pointer(&text, g_free);
    return text;
}

/* A public key file and the name in its comment. */
static bool read_public(const char *folder, const char *file, struct hsk_pubkey *k, char **name)
{
    static const char word[] = "untrusted comment: ";
    g_autofree char *text = read_file(folder, file);
    if (text == NULL || !g_str_has_prefix(text, word) || !hsk_pubkey_parse(text, k))
        return false;
    g_autofree char *line = g_strndup(text + strlen(word), strcspn(text + strlen(word), "\r\n"));
    *name = hsk_text_clean(line, HSK_PUBLISHER_MAX);
    return true;
}

/* ---- the own key ---- */

bool hsk_own_pubkey(struct hsk_pubkey *k, char **name)
{
    return read_public("", "signing.pub", k, name);
}

char *hsk_own_key_read(void)
{
    return read_file("", "signing.key");
}

bool hsk_own_key_set(const struct hsk_seckey *k, const char *password, const char *name,
                     GError **error)
{
    g_autofree char *clean = hsk_text_clean(name, HSK_PUBLISHER_MAX);
    g_autofree char *public = hsk_pubkey_format(&k->public, clean);
    g_autofree char *secret = hsk_seckey_format(k, password, error);
    bool ok = secret != NULL && write_file("", "signing.key", secret, error) &&
              write_file("", "signing.pub", public, error);
    if (secret != NULL)
        sodium_memzero(secret, strlen(secret));
    return ok;
}

static const char *user_name(void)
{
    const char *real = g_get_real_name();
    return real == NULL || real[0] == '\0' || strcmp(real, "Unknown") == 0 ? g_get_user_name()
                                                                           : real;
}

bool hsk_own_key(struct hsk_seckey *k, char **name, bool *made, GError **error)
{
    struct hsk_pubkey pub;
    g_autofree char *text = hsk_own_key_read();
    *made = text == NULL;
    if (text == NULL) {
        hsk_seckey_new(k);
        *name = g_strdup(user_name());
        return hsk_own_key_set(k, NULL, *name, error);
    }
    if (!hsk_own_pubkey(&pub, name))
        *name = g_strdup(user_name());
    bool ok = hsk_seckey_parse("your signing key", text, NULL, k, error);
    sodium_memzero(text, strlen(text));
    return ok;
}

/* ---- publishers ---- */

void hsk_publisher_free(struct hsk_publisher *p)
{
    if (p == NULL)
        return;
    g_free(p->name);
    g_free(p);
}

static gint by_publisher_name(gconstpointer a, gconstpointer b)
{
    const struct hsk_publisher *const *x = a, *const *y = b;
    return strcmp((*x)->name, (*y)->name);
}

GPtrArray *hsk_publishers(void)
{
    GPtrArray *all = g_ptr_array_new_with_free_func((GDestroyNotify)hsk_publisher_free);
    g_autofree char *path = data_file("publishers", NULL);
    g_autoptr(GDir) dir = g_dir_open(path, 0, NULL);
    const char *file;
    while (dir != NULL && (file = g_dir_read_name(dir)) != NULL) {
        struct hsk_publisher p = {0};
        if (!g_str_has_suffix(file, ".pub") || !read_public("publishers", file, &p.key, &p.name))
            continue;
        hsk_pubkey_fingerprint(&p.key, p.fingerprint);
        g_ptr_array_add(all, g_memdup2(&p, sizeof(p)));
    }
    g_ptr_array_sort(all, by_publisher_name);
    return all;
}

static void publisher_file(const char *fingerprint, char out[64])
{
    g_snprintf(out, 64, "%s.pub", fingerprint);
}

bool hsk_publisher_add(const struct hsk_pubkey *k, const char *name, GError **error)
{
    char fingerprint[HSK_FINGERPRINT_BYTES + 1], file[64];
    g_autofree char *clean = hsk_text_clean(name, HSK_PUBLISHER_MAX);
    hsk_pubkey_fingerprint(k, fingerprint);
    publisher_file(fingerprint, file);
    g_autofree char *text = hsk_pubkey_format(k, clean[0] != '\0' ? clean : fingerprint);
    return write_file("publishers", file, text, error);
}

bool hsk_publisher_forget(const char *which, GError **error)
{
    g_autoptr(GPtrArray) all = hsk_publishers();
    const struct hsk_publisher *found = NULL;
    unsigned n = 0;
    for (guint i = 0; i < all->len; i++) {
        const struct hsk_publisher *p = g_ptr_array_index(all, i);
        if (strcmp(p->name, which) == 0 ||
            (strlen(which) >= 4 && g_str_has_prefix(p->fingerprint, which))) {
            found = p;
            n++;
        }
    }
    if (n != 1) {
        g_set_error(error, HSK_ERROR, n == 0 ? HSK_ERROR_NOT_FOUND : HSK_ERROR_USAGE,
                    n == 0 ? "no publisher \"%s\" is known; \"hva publisher list\" shows them"
                           : "more than one publisher is meant by \"%s\"; use a fingerprint",
                    which);
        return false;
    }
    char file[64];
    publisher_file(found->fingerprint, file);
    g_autofree char *path = data_file("publishers", file);
    return unlink(path) == 0 || hsk_io_error(error, errno, "remove %s", path);
}

/* ---- what was seen of a document ---- */

struct pin {
    struct hsk_pubkey key;
    char *name;
    uint64_t generation;
    bool accepted;
};

/* The uuid is a valid one, so it can be a file's name. */
static char *pin_name(const char *uuid)
{
    return g_ascii_strdown(uuid, -1);
}

static bool pin_load(const char *uuid, struct pin *pin)
{
    g_autofree char *name = pin_name(uuid), *text = read_file("pins", name);
    g_autoptr(GKeyFile) k = g_key_file_new();
    if (text == NULL || !g_key_file_load_from_data(k, text, strlen(text), G_KEY_FILE_NONE, NULL))
        return false;
    g_autofree char *key = g_key_file_get_string(k, "pin", "key", NULL);
    if (key == NULL || !hsk_pubkey_parse(key, &pin->key))
        return false;
    pin->generation = g_key_file_get_uint64(k, "pin", "generation", NULL);
    pin->accepted = g_key_file_get_boolean(k, "pin", "accepted", NULL);
    pin->name = g_key_file_get_string(k, "pin", "name", NULL);
    return true;
}

bool hsk_doc_note_publisher(struct hsk_doc *doc, const struct hsk_trust_report *r, bool accepted,
                            GError **error)
{
    const char *uuid = doc->manifest->uuid;
    struct pin old = {0};
    char key[HSK_PUBKEY_TEXT_BYTES + 1];
    hsk_assert(r->sign == HSK_SIGNED_GOOD);
    bool known = pin_load(uuid, &old) && hsk_pubkey_equal(&old.key, &r->key);
    bool same = known && old.generation == r->generation && (old.accepted || !accepted);
    accepted = accepted || (known && old.accepted);
    g_free(old.name);
    if (accepted)
        g_hash_table_remove_all(doc->foreign);
    if (same)
        return true;
    hsk_pubkey_text(&r->key, key);
    g_autoptr(GKeyFile) k = g_key_file_new();
    g_key_file_set_string(k, "pin", "key", key);
    g_key_file_set_string(k, "pin", "name", r->publisher != NULL ? r->publisher : "");
    g_key_file_set_uint64(k, "pin", "generation", r->generation);
    g_key_file_set_boolean(k, "pin", "accepted", accepted);
    g_autofree char *text = g_key_file_to_data(k, NULL, NULL), *name = pin_name(uuid);
    return write_file("pins", name, text, error);
}

bool hsk_pin_forget(const char *uuid, GError **error)
{
    g_autofree char *name = pin_name(uuid), *path = data_file("pins", name);
    if (unlink(path) == 0)
        return true;
    if (errno != ENOENT)
        return hsk_io_error(error, errno, "remove %s", path);
    g_set_error(error, HSK_ERROR, HSK_ERROR_NOT_FOUND,
                "no publisher was noted for that document, so there is nothing to forget");
    return false;
}

/* ---- whose document is it? ---- */

void hsk_trust_report_free(struct hsk_trust_report *r)
{
    if (r == NULL)
        return;
    g_free(r->publisher);
    g_free(r->sentence);
    g_free(r);
}

/* The value of "word:..." among the tab-separated fields of a trusted comment, or NULL. */
static char *comment_field(const char *comment, const char *word)
{
    g_auto(GStrv) fields = g_strsplit(comment, "\t", -1);
    for (char **f = fields; *f != NULL; f++) {
        if (g_str_has_prefix(*f, word))
            return hsk_text_clean(*f + strlen(word), HSK_PUBLISHER_MAX);
    }
    return NULL;
}

/* Tries one key; true: it is the one. */
static bool try_key(struct hsk_trust_report *r, const struct hsk_signature *s, GBytes *root,
                    const struct hsk_pubkey *k, const char *name)
{
    if (memcmp(s->id, k->id, sizeof(s->id)) != 0)
        return false;
    r->sign = HSK_SIGNED_BAD; /* unless this or another one fits */
    if (!hsk_signature_verify(s, k, g_bytes_get_data(root, NULL), g_bytes_get_size(root)))
        return false;
    r->sign = HSK_SIGNED_GOOD;
    r->key = *k;
    hsk_pubkey_fingerprint(k, r->fingerprint);
    r->publisher = g_strdup(name);
    return true;
}

/* Known keys, then the one noted for the document, then the one that the signature names. */
static void find_signer(struct hsk_trust_report *r, const struct hsk_signature *s, GBytes *root,
                        const struct pin *pin, bool *known)
{
    struct hsk_pubkey own, named;
    g_autofree char *own_name = NULL;
    g_autoptr(GPtrArray) all = hsk_publishers();
    *known = true;
    if (hsk_own_pubkey(&own, &own_name) && try_key(r, s, root, &own, own_name))
        return;
    for (guint i = 0; i < all->len; i++) {
        const struct hsk_publisher *p = g_ptr_array_index(all, i);
        if (try_key(r, s, root, &p->key, p->name))
            return;
    }
    *known = false;
    g_autofree char *claim = comment_field(s->comment, "publisher:"),
                    *key = comment_field(s->comment, "key:");
    if (pin != NULL && try_key(r, s, root, &pin->key, pin->name))
        return;
    if (key != NULL && hsk_pubkey_parse(key, &named))
        try_key(r, s, root, &named, claim);
}

/* The ROOT that was loaded, once more. */
static GBytes *read_root(struct hsk_doc *doc)
{
    uint8_t hash[HSK_HASH_BYTES];
    g_autoptr(GBytes) text = hsk_carrier_read(doc->base, "ROOT", HSK_ROOT_MAX_BYTES, NULL);
    if (text == NULL)
        return NULL;
    hsk_hash(g_bytes_get_data(text, NULL), g_bytes_get_size(text), hash);
    return memcmp(hash, doc->base_hash, sizeof(hash)) == 0 ? g_steal_pointer(&text) : NULL;
}

static void check_signature(struct hsk_doc *doc, struct hsk_trust_report *r, const struct pin *pin,
                            bool *known)
{
    *known = false;
    if (!hsk_carrier_has(doc->base, "ROOT.minisig"))
        return;
    g_autoptr(GBytes) root = read_root(doc);
    g_autoptr(GBytes) text =
        hsk_carrier_read(doc->base, "ROOT.minisig", HSK_KEY_FILE_MAX_BYTES, NULL);
    gsize n = 0;
    const char *p = text != NULL ? g_bytes_get_data(text, &n) : NULL;
    if (text != NULL && n == 0) {
        r->sign = HSK_SIGNED_BEFORE;
        return;
    }
    HSK_AUTO(hsk_signature, s) =
        root != NULL && text != NULL ? hsk_signature_parse(doc->path, p, n, NULL) : NULL;
    r->sign = s != NULL ? HSK_SIGNED_WITHOUT_KEY : HSK_SIGNED_BAD;
    if (s != NULL)
        find_signer(r, s, root, pin, known);
}

/* Against what was seen before: a sentence that says what is wrong, or NULL. */
static char *compare_with_pin(struct hsk_doc *doc, const struct hsk_trust_report *r,
                              const struct pin *pin)
{
    char was[HSK_FINGERPRINT_BYTES + 1];
    g_autofree char *way_out = g_strdup_printf(
        "if you know that this is right, \"hva publisher forget %s\" makes it new to you",
        doc->path);
    hsk_pubkey_fingerprint(&pin->key, was);
    if (r->sign != HSK_SIGNED_GOOD)
        return g_strdup_printf("%s was signed by \"%s\" (%s) before and is not any more: somebody "
                               "else has changed it; %s",
                               doc->path, pin->name != NULL ? pin->name : "", was, way_out);
    if (!hsk_pubkey_equal(&r->key, &pin->key))
        return g_strdup_printf("%s is signed by another key (%s) than before (%s): somebody may "
                               "pass his machine off as \"%s\"'s; %s",
                               doc->path, r->fingerprint, was, pin->name != NULL ? pin->name : "",
                               way_out);
    if (r->generation < pin->generation)
        return g_strdup_printf("%s is older (generation %" PRIu64 ") than what was opened here "
                               "before (generation %" PRIu64 "); %s",
                               doc->path, r->generation, pin->generation, way_out);
    return NULL;
}

static char *describe(const struct hsk_trust_report *r)
{
    const char *name = r->publisher != NULL ? r->publisher : "";
    if (r->sign == HSK_SIGNED_GOOD)
        return g_strdup_printf(r->trust == HSK_TRUST_UNKNOWN
                                   ? "signed by a key that is not known here, %s, of somebody else "
                                     "who calls himself \"%s\""
                                   : "signed, key %s, by \"%s\"",
                               r->fingerprint, name);
    if (r->trust == HSK_TRUST_OWN)
        return g_strdup(r->sign == HSK_SIGNED_BEFORE
                            ? "changed by you on this computer since it was signed"
                            : "made by you on this computer, not signed");
    if (r->sign == HSK_SIGNED_BEFORE)
        return g_strdup("made by somebody else, and changed since it was signed");
    if (r->sign == HSK_SIGNED_WITHOUT_KEY)
        return g_strdup("made by somebody else and signed by a key that is not known here");
    return g_strdup("made by somebody else and not signed");
}

struct hsk_trust_report *hsk_doc_trust(struct hsk_doc *doc)
{
    struct hsk_trust_report *r = g_new0(struct hsk_trust_report, 1);
    struct pin pin = {0};
    bool known, pinned = pin_load(doc->manifest->uuid, &pin);
    r->generation = doc->base_root->generation;
    check_signature(doc, r, pinned ? &pin : NULL, &known);
    if (hsk_trust_check(doc->base_root->document, doc->base_hash, NULL))
        r->trust = HSK_TRUST_OWN;
    else if (r->sign == HSK_SIGNED_BAD ||
             (pinned && (r->sentence = compare_with_pin(doc, r, &pin)) != NULL))
        r->trust = HSK_TRUST_REFUSED;
    else if (r->sign != HSK_SIGNED_GOOD)
        r->trust = HSK_TRUST_UNSIGNED;
    else
        r->trust = known || (pinned && pin.accepted) ? HSK_TRUST_PUBLISHER : HSK_TRUST_UNKNOWN;
    if (r->sign == HSK_SIGNED_BAD && r->sentence == NULL)
        r->sentence = g_strdup_printf("%s has a signature that does not fit: it is damaged, or "
                                      "somebody has changed it; get it again from its publisher",
                                      doc->path);
    if (r->sentence == NULL)
        r->sentence = describe(r);
    g_free(pin.name);
    return r;
}
