/* SPDX-License-Identifier: MIT */
/*
 * Signatures: what we sign minisign verifies, what minisign signs we verify (skipped where it is
 * missing), and the hostile ones (hva-format's list, 12).
 */
#include <appliance-format/minisign.h>

#include <setjmp.h>
#include <sodium.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>
#include <shell.h>

static const char data[] = "# haversack root 1\n";

static struct hsk_seckey new_key(void)
{
    struct hsk_seckey k;
    hsk_seckey_new(&k);
    return k;
}

static void keys_go_through_their_files(void **state)
{
    struct hsk_seckey k = new_key(), back;
    struct hsk_pubkey pub;
    g_autofree char *file = hsk_pubkey_format(&k.public, "somebody");
    assert_true(hsk_pubkey_parse(file, &pub));
    assert_true(hsk_pubkey_equal(&pub, &k.public));
    char text[HSK_PUBKEY_TEXT_BYTES + 1];
    hsk_pubkey_text(&k.public, text);
    assert_true(g_str_has_prefix(text, "RW"));
    assert_true(hsk_pubkey_parse(text, &pub));
    assert_true(hsk_pubkey_equal(&pub, &k.public));

    g_autofree char *plain = hsk_seckey_format(&k, NULL, NULL);
    assert_false(hsk_seckey_is_encrypted(plain));
    assert_true(hsk_seckey_parse("k", plain, NULL, &back, NULL));
    assert_memory_equal(&back, &k, sizeof(k));

    g_autofree char *locked = hsk_seckey_format(&k, "open sesame", NULL);
    g_autoptr(GError) error = NULL;
    assert_true(hsk_seckey_is_encrypted(locked));
    assert_true(hsk_seckey_parse("k", locked, "open sesame", &back, NULL));
    assert_memory_equal(&back, &k, sizeof(k));
    assert_false(hsk_seckey_parse("k", locked, "open barley", &back, &error));
    assert_non_null(strstr(error->message, "password"));
    g_clear_error(&error);
    assert_false(hsk_seckey_parse("k", locked, NULL, &back, &error));
    assert_non_null(strstr(error->message, "--password-file"));
}

static void damaged_key_files_are_refused(void **state)
{
    struct hsk_seckey k = new_key(), back;
    struct hsk_pubkey pub;
    g_autofree char *plain = hsk_seckey_format(&k, NULL, NULL);
    g_autofree char *file = hsk_pubkey_format(&k.public, "x");
    for (size_t cut = 0; cut + 1 < strlen(plain); cut++) {
        g_autofree char *part = g_strndup(plain, cut);
        assert_false(hsk_seckey_parse("k", part, NULL, &back, NULL));
    }
    for (size_t cut = 0; cut + 1 < strlen(file); cut++) {
        g_autofree char *part = g_strndup(file, cut);
        assert_false(hsk_pubkey_parse(part, &pub));
    }
    /* a flipped bit of the key itself */
    char *line = strchr(plain, '\n') + 1;
    line[120] = line[120] == 'A' ? 'B' : 'A';
    assert_false(hsk_seckey_parse("k", plain, NULL, &back, NULL));
    /* costs that nobody pays */
    uint8_t blob[158] = {'E', 'd', 'S', 'c', 'B', '2'};
    memset(blob + 38, 0xff, 16);
    char text[300];
    sodium_bin2base64(text, sizeof(text), blob, sizeof(blob), sodium_base64_VARIANT_ORIGINAL);
    g_autofree char *dear = g_strdup_printf("untrusted comment: x\n%s\n", text);
    g_autoptr(GError) error = NULL;
    assert_false(hsk_seckey_parse("k", dear, "p", &back, &error));
    assert_non_null(strstr(error->message, "cost"));
}

static bool fits(const char *text, const struct hsk_pubkey *k, const char *what)
{
    HSK_AUTO(hsk_signature, s) = hsk_signature_parse("x.hva", text, strlen(text), NULL);
    return s != NULL && hsk_signature_verify(s, k, what, strlen(what));
}

static void signature_fits_its_data_and_key_only(void **state)
{
    struct hsk_seckey k = new_key(), other = new_key();
    g_autofree char *text = hsk_signature_make(&k, data, strlen(data), "timestamp:1\tby:me");
    assert_true(fits(text, &k.public, data));
    HSK_AUTO(hsk_signature, s) = hsk_signature_parse("x", text, strlen(text), NULL);
    assert_string_equal(s->comment, "timestamp:1\tby:me");
    assert_false(fits(text, &k.public, "# haversack root 2\n"));
    assert_false(fits(text, &other.public, data));
    /* another key that calls itself the same */
    memcpy(other.public.id, k.public.id, 8);
    assert_false(fits(text, &other.public, data));
    g_autofree char *forged = hsk_signature_make(&other, data, strlen(data), "timestamp:1\tby:me");
    assert_false(fits(forged, &k.public, data));
}

/* Every byte counts, but those of the first line, which says so itself. */
static void every_changed_byte_is_noticed(void **state)
{
    struct hsk_seckey k = new_key();
    g_autofree char *text = hsk_signature_make(&k, data, strlen(data), "timestamp:1\tby:me");
    size_t len = strlen(text);
    for (size_t i = (size_t)(strchr(text, '\n') - text); i < len; i++) {
        for (unsigned bit = 0; bit < 8; bit++) {
            g_autofree char *bad = g_strdup(text);
            bad[i] = (char)(bad[i] ^ 1 << bit);
            HSK_AUTO(hsk_signature, s) = hsk_signature_parse("x.hva", bad, len, NULL);
            if (s != NULL && hsk_signature_verify(s, &k.public, data, strlen(data)))
                fail_msg("byte %zu bit %u may be anything", i, bit);
        }
    }
    for (size_t cut = 0; cut < len; cut++) {
        g_autoptr(GError) error = NULL;
        assert_null(hsk_signature_parse("x.hva", text, cut, &error));
        assert_non_null(strstr(error->message, "x.hva"));
    }
}

static void other_shapes_are_refused(void **state)
{
    struct hsk_seckey k = new_key();
    g_autofree char *text = hsk_signature_make(&k, data, strlen(data), "c");
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
    g_autofree char *crlf = g_strjoinv("\r\n", lines);
    g_autofree char *longer = g_strconcat(text, "more\n", NULL);
    g_autofree char *huge = g_strnfill(1 << 20, 'A');
    const char *const bad[] = {crlf, longer, huge, "", "\n\n\n\n"};
    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++)
        assert_null(hsk_signature_parse("x", bad[i], strlen(bad[i]), NULL));
    /* the legacy kind, which signs the data itself */
    uint8_t blob[74];
    assert_int_equal(sodium_base642bin(blob, sizeof(blob), lines[1], strlen(lines[1]), NULL, NULL,
                                       NULL, sodium_base64_VARIANT_ORIGINAL),
                     0);
    blob[1] = 'd';
    char legacy[150];
    sodium_bin2base64(legacy, sizeof(legacy), blob, sizeof(blob), sodium_base64_VARIANT_ORIGINAL);
    g_autofree char *old =
        g_strdup_printf("%s\n%s\n%s\n%s\n", lines[0], legacy, lines[2], lines[3]);
    assert_null(hsk_signature_parse("x", old, strlen(old), NULL));
}

/* ---- the other program ---- */

static void put(const char *dir, const char *name, const char *text)
{
    g_autofree char *path = g_build_filename(dir, name, NULL);
    assert_true(g_file_set_contents(path, text, -1, NULL));
}

static char *get(const char *dir, const char *name)
{
    g_autofree char *path = g_build_filename(dir, name, NULL);
    char *text = NULL;
    assert_true(g_file_get_contents(path, &text, NULL, NULL));
    return text;
}

static void minisign_and_we_agree(void **state)
{
    if (run("command -v minisign >/dev/null") != 0)
        skip(); /* Debian's package minisign */
    g_autofree char *dir = g_dir_make_tmp("hsk-minisign-XXXXXX", NULL);
    put(dir, "ROOT", data);
    /* ours, by its eyes */
    struct hsk_seckey k = new_key(), theirs;
    g_autofree char *pub = hsk_pubkey_format(&k.public, "ours");
    g_autofree char *sig = hsk_signature_make(&k, data, strlen(data), "timestamp:1\tby:me");
    put(dir, "ours.pub", pub);
    put(dir, "ROOT.minisig", sig);
    assert_int_equal(run("cd '%s' && minisign -V -p ours.pub -m ROOT | grep -q by:me", dir), 0);
    assert_int_equal(run("cd '%s' && minisign -V -H -p ours.pub -m ROOT", dir), 0);
    /* its secret key reads ours, its signature passes here */
    const char *const passwords[] = {NULL, "open sesame"};
    for (unsigned i = 0; i < 2; i++) {
        g_autofree char *secret = hsk_seckey_format(&k, passwords[i], NULL);
        put(dir, "ours.key", secret);
        assert_int_equal(run("cd '%s' && rm ROOT.minisig && echo '%s' | minisign -S -s ours.key -m "
                             "ROOT >/dev/null",
                             dir, passwords[i] != NULL ? passwords[i] : ""),
                         0);
        g_autofree char *again = get(dir, "ROOT.minisig");
        assert_true(fits(again, &k.public, data));
    }
    /* a key pair of its own making, without a password (with one it takes a GiB of memory) */
    assert_int_equal(run("cd '%s' && minisign -G -W -p t.pub -s t.key >/dev/null && minisign -S -s "
                         "t.key -m ROOT -t 'my comment' >/dev/null </dev/null",
                         dir),
                     0);
    g_autofree char *their_sig = get(dir, "ROOT.minisig"), *their_pub = get(dir, "t.pub"),
                    *their_key = get(dir, "t.key");
    struct hsk_pubkey p;
    assert_true(hsk_pubkey_parse(their_pub, &p));
    assert_true(fits(their_sig, &p, data));
    assert_true(hsk_seckey_parse("t.key", their_key, NULL, &theirs, NULL));
    assert_true(hsk_pubkey_equal(&theirs.public, &p));
    run("rm -r '%s'", dir);
}

int main(void)
{
    assert_true(sodium_init() >= 0);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keys_go_through_their_files),
        cmocka_unit_test(damaged_key_files_are_refused),
        cmocka_unit_test(signature_fits_its_data_and_key_only),
        cmocka_unit_test(every_changed_byte_is_noticed),
        cmocka_unit_test(other_shapes_are_refused),
        cmocka_unit_test(minisign_and_we_agree),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
