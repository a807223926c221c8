/* SPDX-License-Identifier: MIT */
/*
 * Whose document is it: own, signed by somebody known or not, unsigned; what was seen before and
 * must not change. Another computer is this one with an empty data folder.
 */
#include <errno.h>

#include "fixture.h"

static void another_computer(void)
{
    g_autofree char *data = hsk_data_folder();
    remove_tree(data);
}

/* Takes a version and writes it into the document. */
static void take_and_publish(const struct scratch *s, const char *title, char id[33])
{
    g_autofree uint8_t *ram = make_ram(1);
    struct hsk_doc *doc = open_doc(s);
    assert_ok(take(doc, title, HSK_VERSION_USER, ram, id, &error));
    assert_ok(hsk_doc_publish(doc, &error));
    hsk_doc_close(doc);
}

static struct hsk_seckey sign(const struct scratch *s, const char *publisher)
{
    struct hsk_seckey k;
    hsk_seckey_new(&k);
    assert_ok(hsk_doc_sign(s->doc, &k, publisher, &error));
    return k;
}

static void expect(const struct scratch *s, enum hsk_trust trust, enum hsk_signed sign,
                   unsigned foreign, const char *words)
{
    struct hsk_doc *doc = open_doc(s);
    HSK_AUTO(hsk_trust_report, r) = hsk_doc_trust(doc);
    if (r->trust != trust || r->sign != sign || strstr(r->sentence, words) == NULL)
        fail_msg("trust %d, signature %d: %s", r->trust, r->sign, r->sentence);
    assert_int_equal(g_hash_table_size(hsk_doc_foreign(doc)), foreign);
    hsk_doc_close(doc);
    assert_ok(r->sign == HSK_SIGNED_BAD || hsk_doc_verify(s->doc, NULL, NULL, &error));
}

static void accept_publisher(const struct scratch *s, bool accepted)
{
    struct hsk_doc *doc = open_doc(s);
    HSK_AUTO(hsk_trust_report, r) = hsk_doc_trust(doc);
    assert_ok(hsk_doc_note_publisher(doc, r, accepted, &error));
    hsk_doc_close(doc);
}

static void what_came_along_stays_foreign(void **state)
{
    struct scratch *s = *state;
    char theirs[33], mine[33];
    assert_ok(make_document(s, NULL, &error));
    take_and_publish(s, "theirs", theirs);
    expect(s, HSK_TRUST_OWN, HSK_SIGNED_NOT, 0, "made by you");
    another_computer();
    expect(s, HSK_TRUST_UNSIGNED, HSK_SIGNED_NOT, 1, "somebody else");
    take_and_publish(s, "mine", mine);
    expect(s, HSK_TRUST_OWN, HSK_SIGNED_NOT, 1, "made by you");
    struct hsk_doc *doc = open_doc(s);
    assert_true(g_hash_table_contains(hsk_doc_foreign(doc), theirs));
    assert_false(g_hash_table_contains(hsk_doc_foreign(doc), mine));
    /* until the user takes it over */
    assert_ok(hsk_doc_accept(doc, &error));
    hsk_doc_close(doc);
    expect(s, HSK_TRUST_OWN, HSK_SIGNED_NOT, 0, "made by you");
}

static void a_record_of_trust_cannot_be_forged(void **state)
{
    struct scratch *s = *state;
    char id[33];
    assert_ok(make_document(s, NULL, &error));
    take_and_publish(s, "theirs", id);
    another_computer();
    take_and_publish(s, "mine", id);
    expect(s, HSK_TRUST_OWN, HSK_SIGNED_NOT, 1, "made by you");
    g_autofree char *data = hsk_data_folder();
    g_autofree char *trusted = g_build_filename(data, "trusted", NULL);
    g_autoptr(GDir) dir = g_dir_open(trusted, 0, NULL);
    const char *name = g_dir_read_name(dir);
    g_autofree char *path = g_build_filename(trusted, name, NULL);
    for (unsigned size = 0; size <= 64; size += 16) { /* 32: without the id; 48 is the real one */
        g_autofree char *whole = NULL;
        gsize n;
        assert_true(g_file_get_contents(path, &whole, &n, NULL));
        assert_int_equal(n, 48);
        g_autofree char *forged = g_malloc0(64);
        memcpy(forged, whole, 48);
        forged[47] ^= size == 48;
        assert_true(g_file_set_contents(path, forged, size, NULL));
        expect(s, HSK_TRUST_UNSIGNED, HSK_SIGNED_NOT, 2, "somebody else");
        assert_true(g_file_set_contents(path, whole, (gssize)n, NULL));
    }
    expect(s, HSK_TRUST_OWN, HSK_SIGNED_NOT, 1, "made by you");
}

static unsigned records_of_trust(void)
{
    g_autofree char *data = hsk_data_folder();
    g_autofree char *trusted = g_build_filename(data, "trusted", NULL);
    g_autoptr(GDir) dir = g_dir_open(trusted, 0, NULL);
    unsigned n = 0;
    while (dir != NULL && g_dir_read_name(dir) != NULL)
        n++;
    return n;
}

/* Each publish leaves a record; of a document only so many stay. */
static void what_was_written_long_ago_is_not_known_for_ever(void **state)
{
    enum { MORE = 5 };
    struct scratch *s = *state;
    g_autofree char *first = NULL, *later = NULL;
    gsize n1 = 0, n2 = 0;
    char id[33];
    struct scratch other = {.dir = s->dir, .doc = g_build_filename(s->dir, "other.hva", NULL)};
    assert_ok(make_document(&other, NULL, &error));
    assert_ok(make_document(s, NULL, &error));
    assert_true(g_file_get_contents(s->doc, &first, &n1, NULL));
    struct hsk_doc *doc = open_doc(s);
    assert_ok(take(doc, "t", HSK_VERSION_USER, NULL, id, &error));
    for (unsigned i = 2; i <= HSK_TRUSTED_KEPT + MORE; i++) {
        assert_ok(hsk_doc_pin(doc, id, i % 2 == 0, &error));
        assert_ok(hsk_doc_publish(doc, &error));
        if (i == MORE + 1)
            assert_true(g_file_get_contents(s->doc, &later, &n2, NULL));
        assert_int_equal(records_of_trust(), 1 + MIN(i, HSK_TRUSTED_KEPT));
    }
    hsk_doc_close(doc);
    expect(s, HSK_TRUST_OWN, HSK_SIGNED_NOT, 0, "made by you");
    expect(&other, HSK_TRUST_OWN, HSK_SIGNED_NOT, 0, "made by you");
    assert_true(g_file_set_contents(s->doc, later, (gssize)n2, NULL));
    expect(s, HSK_TRUST_OWN, HSK_SIGNED_NOT, 0, "made by you");
    assert_true(g_file_set_contents(s->doc, first, (gssize)n1, NULL));
    expect(s, HSK_TRUST_UNSIGNED, HSK_SIGNED_NOT, 0, "somebody else");
    g_free(other.doc);
}

static void publishers_are_asked_for_once(void **state)
{
    struct scratch *s = *state;
    char id[33];
    assert_ok(make_document(s, NULL, &error));
    take_and_publish(s, "theirs", id);
    struct hsk_seckey k = sign(s, "Ada \x1b[2J\xe2\x80\xae Lovelace");
    expect(s, HSK_TRUST_OWN, HSK_SIGNED_GOOD, 0, "\"Ada  [2J  Lovelace\"");
    another_computer();
    expect(s, HSK_TRUST_UNKNOWN, HSK_SIGNED_GOOD, 1, "not known here");
    accept_publisher(s, false); /* seen, but not trusted */
    expect(s, HSK_TRUST_UNKNOWN, HSK_SIGNED_GOOD, 1, "not known here");
    accept_publisher(s, true);
    expect(s, HSK_TRUST_PUBLISHER, HSK_SIGNED_GOOD, 0, "Lovelace");
    accept_publisher(s, false); /* only the generation is noted; what was granted stays */
    expect(s, HSK_TRUST_PUBLISHER, HSK_SIGNED_GOOD, 0, "Lovelace");
    /* a key that is known needs no question */
    another_computer();
    assert_ok(hsk_publisher_add(&k.public, "my friend", &error));
    expect(s, HSK_TRUST_PUBLISHER, HSK_SIGNED_GOOD, 0, "my friend");
    assert_refused(hsk_publisher_forget("nobody", &error), "nobody");
    assert_ok(hsk_publisher_forget("my friend", &error));
    expect(s, HSK_TRUST_UNKNOWN, HSK_SIGNED_GOOD, 1, "not known here");
}

static void own_changes_end_a_signature(void **state)
{
    struct scratch *s = *state;
    char id[33];
    assert_ok(make_document(s, NULL, &error));
    take_and_publish(s, "theirs", id);
    sign(s, "Ada");
    another_computer();
    accept_publisher(s, true);
    take_and_publish(s, "mine", id);
    expect(s, HSK_TRUST_OWN, HSK_SIGNED_BEFORE, 0, "since it was signed");
    another_computer();
    expect(s, HSK_TRUST_UNSIGNED, HSK_SIGNED_BEFORE, 2, "changed since it was signed");
}

static void forget_pin(const struct scratch *s)
{
    struct hsk_doc *doc = open_doc(s);
    g_autofree char *uuid = g_strdup(hsk_doc_manifest(doc)->uuid);
    hsk_doc_close(doc);
    assert_ok(hsk_pin_forget(uuid, &error));
    assert_refused(hsk_pin_forget(uuid, &error), "nothing to forget");
}

static void changes_of_key_and_generation_are_hard_stops(void **state)
{
    struct scratch *s = *state;
    char id[33];
    g_autofree char *first = NULL, *second = NULL, *stripped = NULL;
    gsize n1, n2, n3;
    assert_ok(make_document(s, NULL, &error));
    sign(s, "Ada");
    assert_true(g_file_get_contents(s->doc, &first, &n1, NULL));
    take_and_publish(s, "newer", id);
    assert_true(g_file_get_contents(s->doc, &stripped, &n3, NULL));
    struct hsk_seckey other = sign(s, "Ada");
    assert_true(g_file_get_contents(s->doc, &second, &n2, NULL));
    another_computer();

    assert_true(g_file_set_contents(s->doc, first, (gssize)n1, NULL));
    accept_publisher(s, true);
    assert_true(g_file_set_contents(s->doc, second, (gssize)n2, NULL));
    expect(s, HSK_TRUST_REFUSED, HSK_SIGNED_GOOD, 1, "another key");
    /* also if the other one is trusted with everything */
    assert_ok(hsk_publisher_add(&other.public, "Ada", &error));
    expect(s, HSK_TRUST_REFUSED, HSK_SIGNED_GOOD, 1, "hva publisher forget");
    assert_true(g_file_set_contents(s->doc, stripped, (gssize)n3, NULL));
    expect(s, HSK_TRUST_REFUSED, HSK_SIGNED_BEFORE, 1, "not any more");
    forget_pin(s);
    expect(s, HSK_TRUST_UNSIGNED, HSK_SIGNED_BEFORE, 1, "somebody else");

    /* back to an older generation by the same key */
    assert_true(g_file_set_contents(s->doc, second, (gssize)n2, NULL));
    assert_true(g_file_set_contents(s->doc, first, (gssize)n1, NULL));
    assert_ok(hsk_doc_sign(s->doc, &other, "Ada", &error));
    g_autofree char *older = NULL;
    gsize n4;
    assert_true(g_file_get_contents(s->doc, &older, &n4, NULL));
    assert_true(g_file_set_contents(s->doc, second, (gssize)n2, NULL));
    accept_publisher(s, true);
    assert_true(g_file_set_contents(s->doc, older, (gssize)n4, NULL));
    expect(s, HSK_TRUST_REFUSED, HSK_SIGNED_GOOD, 0, "is older (generation 1)");
    forget_pin(s);
    expect(s, HSK_TRUST_PUBLISHER, HSK_SIGNED_GOOD, 0, "Ada");
}

/* ---- signing whatever happens ---- */

static int fail_at(void *opaque, enum hsk_io_op op, int fd)
{
    int *left = opaque;
    return (*left)-- == 0 ? EIO : 0;
}

static void a_failed_signing_leaves_the_old_document(void **state)
{
    struct scratch *s = *state;
    g_autofree char *before = NULL;
    gsize n;
    assert_ok(make_document(s, NULL, &error));
    assert_true(g_file_get_contents(s->doc, &before, &n, NULL));
    struct hsk_seckey k;
    hsk_seckey_new(&k);
    bool done = false;
    for (int at = 0; !done; at++) {
        int left = at;
        const struct hsk_io io = {fail_at, &left};
        g_autoptr(GError) failed = NULL;
        done = hsk_doc_sign_io(s->doc, &k, "me", &io, &failed);
        struct hsk_doc *doc = open_doc(s);
        HSK_AUTO(hsk_trust_report, r) = hsk_doc_trust(doc);
        hsk_doc_close(doc);
        assert_true(done ? r->sign == HSK_SIGNED_GOOD
                         : failed != NULL &&
                               (r->sign == HSK_SIGNED_GOOD || r->sign == HSK_SIGNED_NOT));
        assert_ok(hsk_doc_verify(s->doc, NULL, NULL, &error));
        assert_true(g_file_set_contents(s->doc, before, (gssize)n, NULL));
        assert_true(at < 20);
    }
    /* nobody signs under a running machine */
    struct hsk_doc *doc = open_doc(s);
    assert_refused(hsk_doc_sign(s->doc, &k, "me", &error), "is open");
    hsk_doc_close(doc);
}

static void own_key_is_made_at_need(void **state)
{
    struct hsk_seckey first, again;
    g_autofree char *name = NULL, *same = NULL, *third = NULL;
    bool made;
    assert_ok(hsk_own_key(&first, &name, &made, &error));
    assert_true(made);
    assert_true(name[0] != '\0');
    assert_ok(hsk_own_key(&again, &same, &made, &error));
    assert_false(made);
    assert_memory_equal(&first, &again, sizeof(first));
    assert_string_equal(name, same);
    g_autofree char *data = hsk_data_folder();
    g_autofree char *path = g_build_filename(data, "signing.key", NULL);
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_ok(hsk_own_key_set(&first, "secret", "Ada", &error));
    assert_refused(hsk_own_key(&again, &third, &made, &error), "--password-file");
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, scratch_setup, scratch_teardown)
    g_autofree char *data = scratch_data_home();
    const struct CMUnitTest tests[] = {
        T(what_came_along_stays_foreign),
        T(a_record_of_trust_cannot_be_forged),
        T(what_was_written_long_ago_is_not_known_for_ever),
        T(publishers_are_asked_for_once),
        T(own_changes_end_a_signature),
        T(changes_of_key_and_generation_are_hard_stops),
        T(a_failed_signing_leaves_the_old_document),
        T(own_key_is_made_at_need),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    remove_tree(data);
    return failed;
}
