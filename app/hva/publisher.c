/* SPDX-License-Identifier: MIT */
/*
 * hva sign, and hva publisher: the user's own signing key and the publishers whose keys he trusts. Keys
 * are minisign's files (appliance-format/minisign.h). Thread: main.
 */
#include <snapshots/trust.h>

#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <sys/stat.h>
#include <termios.h>

#include "common/values.h"
#include "hva.h"
#include "progress.h"

#define PASSWORD_BYTES 1024

/* One line from the terminal that it does not show, or NULL. */
static char *type_password(const char *question)
{
    struct termios shown, hidden;
    char line[PASSWORD_BYTES];

    if (!isatty(STDIN_FILENO) || tcgetattr(STDIN_FILENO, &shown) < 0)
        return NULL;
    hidden = shown;
    hidden.c_lflag &= ~(tcflag_t)ECHO;
    fputs(question, stderr);
    tcsetattr(STDIN_FILENO, TCSAFLUSH, &hidden);
    char *got = fgets(line, sizeof(line), stdin);
    tcsetattr(STDIN_FILENO, TCSAFLUSH, &shown);
    fputc('\n', stderr);
    if (!got)
        return NULL;
    line[strcspn(line, "\r\n")] = 0;
    char *text = g_strdup(line);
    sodium_memzero(line, sizeof(line));
    return text;
}

/* The first line of the file. */
static bool password_from_file(const char *path, char **password, GError **error)
{
    g_autofree char *text = NULL;

    if (!g_file_get_contents(path, &text, NULL, error))
        return false;
    text[strcspn(text, "\r\n")] = 0;
    *password = g_strdup(text);
    sodium_memzero(text, strlen(text));
    return true;
}

static void wipe(char *password)
{
    if (password)
        sodium_memzero(password, strlen(password));
    g_free(password);
}

static bool read_key_file(const char *path, char **text, GError **error)
{
    struct stat st;

    if (stat(path, &st) == 0 && (!S_ISREG(st.st_mode) || st.st_size > HSK_KEY_FILE_MAX_BYTES)) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_USAGE, "%s is not a key file", path);
        return false;
    }
    return g_file_get_contents(path, text, NULL, error);
}

/* ---- hva sign ---- */

struct sign_options {
    char *key, *password_file, *name;
    char **rest;
    gboolean json;
};

/* The key to sign with and the name that goes with it. */
static bool open_key(const struct sign_options *o, struct hsk_seckey *k, char **name,
                     GError **error)
{
    g_autofree char *text = o->key ? NULL : hsk_own_key_read();
    const char *label = o->key ? o->key : "your signing key";
    char *password = NULL;
    bool made = false, good = true;

    if (o->key)
        good = read_key_file(o->key, &text, error);
    if (good && !text) {
        char fingerprint[HSK_FINGERPRINT_BYTES + 1];
        good = hsk_own_key(k, name, &made, error);
        if (good) {
            hsk_pubkey_fingerprint(&k->public, fingerprint);
            g_autofree char *note = g_strdup_printf(
                "a signing key was made for you (%s); \"hva publisher export\" shows the "
                "public part, which others need",
                fingerprint);
            hsk_complain(note);
        }
        return good;
    }
    if (good && o->password_file)
        good = password_from_file(o->password_file, &password, error);
    else if (good && hsk_seckey_is_encrypted(text))
        password = type_password("Password of the key: ");
    good = good && hsk_seckey_parse(label, text, password, k, error);
    wipe(password);
    if (text)
        sodium_memzero(text, strlen(text));
    struct hsk_pubkey own;
    g_autofree char *own_name = NULL;
    if (good && hsk_own_pubkey(&own, &own_name) && hsk_pubkey_equal(&own, &k->public))
        *name = g_steal_pointer(&own_name);
    else if (good)
        *name = g_strdup(g_get_real_name());
    return good;
}

static int sign(const struct sign_options *o)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *key_name = NULL;
    char fingerprint[HSK_FINGERPRINT_BYTES + 1];
    const char *file = o->rest[0];
    struct hsk_seckey k;
    struct hsk_progress p;

    if (!open_key(o, &k, &key_name, &error))
        return hsk_fail(error);
    /* Nobody signs what he has not looked at. */
    hsk_progress_begin(&p, "checking", file);
    bool good = hsk_doc_verify(file, hsk_progress_step, &p, &error);
    hsk_progress_end(&p);
    const char *name = o->name ? o->name : key_name;
    good = good && hsk_doc_sign(file, &k, name, &error);
    hsk_pubkey_fingerprint(&k.public, fingerprint);
    hsk_seckey_clear(&k);
    if (!good)
        return p.interrupted ? 130 : hsk_fail(error);
    if (o->json) {
        json_t *r = json_pack("{s:s, s:s, s:s}", "file", file, "fingerprint", fingerprint,
                              "publisher", name);
        hsk_print_json(r);
        json_decref(r);
    } else {
        hsk_say("%s is signed by \"%s\" (%s)", file, name, fingerprint);
    }
    return 0;
}

int hsk_cmd_sign(int argc, char **argv)
{
    struct sign_options o = {0};
    const GOptionEntry entries[] = {
        {"key", 0, 0, G_OPTION_ARG_FILENAME, &o.key,
         "a minisign secret key (default: your own, made at need)", "FILE"},
        {"password-file", 0, 0, G_OPTION_ARG_FILENAME, &o.password_file,
         "the key's password (default: asked for)", "FILE"},
        {"name", 0, 0, G_OPTION_ARG_STRING, &o.name, "the publisher's name", "NAME"},
        {"json", 0, 0, G_OPTION_ARG_NONE, &o.json, "machine-readable output", NULL},
        {G_OPTION_REMAINING, 0, 0, G_OPTION_ARG_FILENAME_ARRAY, &o.rest, NULL, NULL},
        {NULL},
    };
    int status = 0;

    if (hsk_parse_options(&argc, &argv, "FILE - sign a document as its publisher", entries,
                          &status))
        status = sodium_init() < 0      ? 1
                 : o.rest && !o.rest[1] ? sign(&o)
                                        : hsk_usage("usage: hva sign FILE; see hva sign --help");
    g_free(o.key);
    g_free(o.password_file);
    g_free(o.name);
    g_strfreev(o.rest);
    return status;
}

/* ---- hva publisher ---- */

struct options {
    char *out, *name, *password_file;
    char **rest;
    gboolean no_password, replace, json;
};

static bool new_password(const struct options *o, char **password, GError **error)
{
    if (o->no_password)
        return true;
    if (o->password_file)
        return password_from_file(o->password_file, password, error);
    *password = type_password("Password of the new key (empty: none): ");
    if (!*password) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_USAGE,
                    "there is no terminal to ask for a password; give --password-file or "
                    "--no-password");
        return false;
    }
    if (!**password)
        g_clear_pointer(password, wipe);
    return true;
}

/* FILE and FILE.pub; never over an existing one. */
static bool write_pair(const char *path, const struct hsk_seckey *k, const char *password,
                       const char *name, GError **error)
{
    g_autofree char *pub_path = g_strconcat(path, ".pub", NULL);
    g_autofree char *pub = hsk_pubkey_format(&k->public, name);
    g_autofree char *secret = hsk_seckey_format(k, password, error);

    if (!secret)
        return false;
    HSK_AUTOFD fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    int r = fd < 0 ? -errno : hsk_pwrite_all(fd, secret, strlen(secret), 0);
    if (r == 0 && fsync(fd) < 0)
        r = -errno;
    sodium_memzero(secret, strlen(secret));
    if (r < 0) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_FAILED, "cannot write %s: %s", path,
                    g_strerror(-r));
        return false;
    }
    return g_file_set_contents(pub_path, pub, -1, error);
}

static int do_new(const struct options *o)
{
    g_autoptr(GError) error = NULL;
    char fingerprint[HSK_FINGERPRINT_BYTES + 1];
    g_autofree char *old = hsk_own_key_read();
    const char *name = o->name ? o->name : g_get_real_name();
    char *password = NULL;
    struct hsk_seckey k;

    if (!o->out && old && !o->replace)
        return hsk_usage("you have a signing key already; --out FILE makes another one beside it, "
                         "--replace puts a new one in its place");
    if (!new_password(o, &password, &error))
        return hsk_fail(error);
    hsk_seckey_new(&k);
    hsk_pubkey_fingerprint(&k.public, fingerprint);
    bool good = o->out ? write_pair(o->out, &k, password, name, &error)
                       : hsk_own_key_set(&k, password, name, &error);
    hsk_seckey_clear(&k);
    wipe(password);
    if (!good)
        return hsk_fail(error);
    printf("%s  %s\n", fingerprint, name);
    return 0;
}

/* The public part of the own key, as a minisign file. */
static int do_export(const struct options *o)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *name = NULL;
    struct hsk_pubkey k;

    if (!hsk_own_pubkey(&k, &name))
        return hsk_usage("you have no signing key yet; \"hva publisher new\" makes one");
    g_autofree char *text = hsk_pubkey_format(&k, name);
    if (!o->out)
        fputs(text, stdout);
    else if (!g_file_set_contents(o->out, text, -1, &error))
        return hsk_fail(error);
    return 0;
}

static json_t *key_json(const struct hsk_pubkey *k, const char *name, bool own)
{
    char text[HSK_PUBKEY_TEXT_BYTES + 1], fingerprint[HSK_FINGERPRINT_BYTES + 1];

    hsk_pubkey_text(k, text);
    hsk_pubkey_fingerprint(k, fingerprint);
    return json_pack("{s:s, s:s, s:s, s:b}", "name", name, "fingerprint", fingerprint, "key", text,
                     "own", own);
}

static int do_list(const struct options *o)
{
    g_autoptr(GPtrArray) all = hsk_publishers();
    g_autofree char *name = NULL;
    json_t *list = json_array(), *v;
    struct hsk_pubkey own;
    size_t i;

    if (hsk_own_pubkey(&own, &name))
        json_array_append_new(list, key_json(&own, name, true));
    for (guint n = 0; n < all->len; n++) {
        const struct hsk_publisher *p = g_ptr_array_index(all, n);
        json_array_append_new(list, key_json(&p->key, p->name, false));
    }
    if (o->json) {
        hsk_print_json(list);
    } else {
        json_array_foreach(list, i, v)
            printf("%s  %s%s\n", json_string_value(json_object_get(v, "fingerprint")),
                   json_string_value(json_object_get(v, "name")),
                   json_is_true(json_object_get(v, "own")) ? " (your own)" : "");
    }
    json_decref(list);
    return 0;
}

/* KEY: a line "RW...", or a file that holds one. */
static int do_trust(const struct options *o)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *text = NULL;
    char fingerprint[HSK_FINGERPRINT_BYTES + 1];
    const char *what = o->rest[1];
    struct hsk_pubkey k;

    if (!hsk_pubkey_parse(what, &k) &&
        (!read_key_file(what, &text, &error) || !hsk_pubkey_parse(text, &k)))
        return error ? hsk_fail(error)
                     : hsk_usage("%s is neither a minisign public key nor a file with one", what);
    hsk_pubkey_fingerprint(&k, fingerprint);
    if (!hsk_publisher_add(&k, o->rest[2] ? o->rest[2] : fingerprint, &error))
        return hsk_fail(error);
    printf("%s  %s\n", fingerprint, o->rest[2] ? o->rest[2] : "");
    return 0;
}

/* A publisher, or what was noted of a document. */
static int do_forget(const struct options *o)
{
    g_autoptr(GError) error = NULL;
    const char *what = o->rest[1];

    if (!g_file_test(what, G_FILE_TEST_EXISTS))
        return hsk_publisher_forget(what, &error) ? 0 : hsk_fail(error);
    struct hsk_doc *doc = hsk_doc_open(what, true, NULL, &error);
    bool good = doc && hsk_pin_forget(hsk_doc_manifest(doc)->uuid, &error);
    hsk_doc_close(doc);
    return good ? 0 : hsk_fail(error);
}

int hsk_cmd_publisher(int argc, char **argv)
{
    static const struct {
        const char *name;
        unsigned min, max;
        int (*fn)(const struct options *o);
    } verbs[] = {
        {"new", 0, 0, do_new},     {"export", 0, 0, do_export}, {"list", 0, 0, do_list},
        {"trust", 1, 2, do_trust}, {"forget", 1, 1, do_forget},
    };
    struct options o = {0};
    const GOptionEntry entries[] = {
        {"out", 0, 0, G_OPTION_ARG_FILENAME, &o.out, "where to put the key", "FILE"},
        {"name", 0, 0, G_OPTION_ARG_STRING, &o.name, "your name as a publisher", "NAME"},
        {"password-file", 0, 0, G_OPTION_ARG_FILENAME, &o.password_file,
         "the new key's password (default: asked for)", "FILE"},
        {"no-password", 0, 0, G_OPTION_ARG_NONE, &o.no_password, "a key without one", NULL},
        {"replace", 0, 0, G_OPTION_ARG_NONE, &o.replace, "put a new key in place of yours", NULL},
        {"json", 0, 0, G_OPTION_ARG_NONE, &o.json, "machine-readable output", NULL},
        {G_OPTION_REMAINING, 0, 0, G_OPTION_ARG_FILENAME_ARRAY, &o.rest, NULL, NULL},
        {NULL},
    };
    int status = -1;

    if (!hsk_parse_options(&argc, &argv,
                           "new | export | list | trust KEY [NAME] | forget PUBLISHER|FILE",
                           entries, &status))
        return status;
    unsigned n = o.rest ? g_strv_length(o.rest) : 0;
    for (unsigned i = 0; i < G_N_ELEMENTS(verbs) && n > 0; i++) {
        if (strcmp(verbs[i].name, o.rest[0]) == 0 && n > verbs[i].min && n <= verbs[i].max + 1)
            status = sodium_init() < 0 ? 1 : verbs[i].fn(&o);
    }
    if (status < 0)
        status = hsk_usage(
            "usage: hva publisher new | export | list | trust KEY [NAME] | forget PUBLISHER|FILE");
    g_free(o.out);
    g_free(o.name);
    g_free(o.password_file);
    g_strfreev(o.rest);
    return status;
}
