/* SPDX-License-Identifier: MIT */
/*
 * Which instance store a document gets: second openers, copies, moves, replaced files, interrupted
 * publishes.
 */
#include "fixture.h"

static void copy_file(const char *from, const char *to)
{
    g_autofree char *contents = NULL;
    gsize bytes;
    assert_true(g_file_get_contents(from, &contents, &bytes, NULL));
    close(make_file(to, contents, bytes));
}

static char *open_with_note(const char *path, char **instance)
{
    char *note = NULL;
    struct hsk_doc *doc;
    assert_ok((doc = hsk_doc_open(path, false, &note, &error)) != NULL);
    *instance = g_strdup(hsk_doc_instance(doc));
    hsk_doc_close(doc);
    return note;
}

static void second_opener_is_told(void **state)
{
    struct scratch *s = *state;
    assert_ok(make_document(s, NULL, &error));
    struct hsk_doc *doc = open_doc(s);
    assert_refused(hsk_doc_open(s->doc, false, NULL, &error), "open already");
    assert_refused(make_document(s, NULL, &error), "is open");
    struct hsk_doc *reader;
    assert_ok((reader = hsk_doc_open(s->doc, true, NULL, &error)) != NULL);
    assert_null(hsk_doc_instance(reader));
    hsk_doc_close(reader);
    hsk_doc_close(doc);
    doc = open_doc(s);
    hsk_doc_close(doc);
}

static void the_same_document_gets_the_same_instance_also_after_a_move(void **state)
{
    struct scratch *s = *state;
    g_autofree char *moved = g_build_filename(s->dir, "moved.hva", NULL);
    g_autofree char *a = NULL, *b = NULL, *c = NULL;
    assert_ok(make_document(s, NULL, &error));
    struct hsk_doc *doc = open_doc(s);
    a = g_strdup(hsk_doc_instance(doc));
    assert_int_equal(write_disk_page(doc, 5, 77), 0);
    hsk_doc_close(doc);
    assert_null(open_with_note(s->doc, &b));
    assert_string_equal(a, b);
    assert_int_equal(rename(s->doc, moved), 0);
    assert_null(open_with_note(moved, &c));
    assert_string_equal(a, c);
    /* to another file system: a copy whose original is gone */
    copy_file(moved, s->doc);
    unlink(moved);
    doc = open_doc(s);
    assert_string_equal(hsk_doc_instance(doc), a);
    assert_disk_page(doc, 5, 77);
    hsk_doc_close(doc);
}

static void a_copy_gets_an_instance_of_its_own(void **state)
{
    struct scratch *s = *state;
    g_autofree char *copy = g_build_filename(s->dir, "copy.hva", NULL);
    assert_ok(make_document(s, NULL, &error));
    struct hsk_doc *doc = open_doc(s);
    assert_int_equal(write_disk_page(doc, 5, 77), 0);
    copy_file(s->doc, copy);
    char *note = NULL;
    struct hsk_doc *other;
    assert_ok((other = hsk_doc_open(copy, false, &note, &error)) !=
              NULL); /* while the original runs */
    assert_null(note);
    assert_string_not_equal(hsk_doc_instance(other), hsk_doc_instance(doc));
    assert_disk_page(other, 5, 7);
    assert_disk_page(doc, 5, 77);
    assert_true(hsk_doc_trusted(other)); /* the same bytes, written here */
    hsk_doc_close(other);
    hsk_doc_close(doc);
}

static void unsaved_changes_of_a_replaced_document_are_put_aside(void **state)
{
    struct scratch *s = *state;
    g_autofree char *first = NULL, *second = NULL, *third = NULL;
    assert_ok(make_document(s, NULL, &error));
    struct hsk_doc *doc = open_doc(s);
    first = g_strdup(hsk_doc_instance(doc));
    assert_int_equal(write_disk_page(doc, 5, 77), 0);
    hsk_doc_close(doc);
    assert_ok(make_document(s, NULL, &error));
    g_autofree char *note = open_with_note(s->doc, &second);
    assert_non_null(note);
    assert_non_null(strstr(note, first));
    assert_string_not_equal(first, second);
    assert_null(open_with_note(s->doc, &third));
    assert_string_equal(second, third);
}

static void a_document_continued_elsewhere_takes_over_when_nothing_was_unsaved(void **state)
{
    struct scratch *s = *state;
    g_autofree char *copy = g_build_filename(s->dir, "copy.hva", NULL);
    g_autofree uint8_t *ram = make_ram(1);
    g_autofree char *instance = NULL;
    assert_ok(make_document(s, NULL, &error));
    struct hsk_doc *doc = open_doc(s);
    assert_ok(take(doc, "v", HSK_VERSION_SAVED, ram, NULL, &error));
    assert_ok(hsk_doc_publish(doc, &error));
    hsk_doc_close(doc);
    copy_file(s->doc, copy);
    assert_ok((doc = hsk_doc_open(copy, false, NULL, &error)) != NULL);
    assert_ok(take(doc, "elsewhere", HSK_VERSION_USER, ram, NULL, &error));
    assert_ok(hsk_doc_publish(doc, &error));
    hsk_doc_close(doc);
    copy_file(copy, s->doc);
    assert_null(open_with_note(s->doc, &instance));
    doc = open_doc(s);
    g_autofree char *id = hsk_doc_resolve(doc, "elsewhere", NULL);
    assert_non_null(id);
    hsk_doc_close(doc);
}

static void a_publish_cut_off_after_its_commit_is_finished_on_opening(void **state)
{
    struct scratch *s = *state;
    g_autofree uint8_t *ram = make_ram(1);
    g_autofree char *instances =
        g_build_filename(g_getenv("XDG_DATA_HOME"), "haversack", "instances", NULL);
    g_autofree char *origin = NULL;
    char id[33], later[33];
    gsize bytes;
    assert_ok(make_document(s, NULL, &error));
    struct hsk_doc *doc = open_doc(s);
    assert_ok(take(doc, "v", HSK_VERSION_USER, ram, id, &error));
    /* the state of the origin between announcing and adopting */
    g_autofree char *path = g_build_filename(instances, hsk_doc_instance(doc), "origin", NULL);
    assert_true(g_file_get_contents(path, &origin, &bytes, NULL));
    assert_int_equal(write_disk_page(doc, 5, 77), 0);
    assert_ok(hsk_doc_publish(doc, &error));
    g_autoptr(GKeyFile) before = g_key_file_new(), after = g_key_file_new();
    assert_true(g_key_file_load_from_data(before, origin, bytes, 0, NULL));
    assert_true(g_key_file_load_from_file(after, path, 0, NULL));
    g_autofree char *root = g_key_file_get_string(after, "origin", "root", NULL);
    g_key_file_set_string(before, "origin", "next-root", root);
    hsk_doc_close(doc);
    assert_true(g_key_file_save_to_file(before, path, NULL));
    doc = open_doc(s);
    assert_disk_page(doc, 5, 77);
    assert_version_ram(doc, id, ram);
    assert_ok(take(doc, "w", HSK_VERSION_USER, ram, later, &error));
    assert_ok(hsk_doc_publish(doc, &error));
    hsk_doc_close(doc);
    assert_ok(hsk_doc_verify(s->doc, NULL, NULL, &error));
}

static void the_folder_of_an_instance_opens_its_document(void **state)
{
    struct scratch *s = *state;
    assert_ok(make_document(s, NULL, &error));
    struct hsk_doc *doc = open_doc(s);
    g_autofree char *folder = g_build_filename(g_getenv("XDG_DATA_HOME"), "haversack", "instances",
                                               hsk_doc_instance(doc), NULL);
    hsk_doc_close(doc);
    assert_ok((doc = hsk_doc_open(folder, true, NULL, &error)) != NULL);
    hsk_doc_close(doc);
    assert_refused(hsk_doc_open(s->dir, true, NULL, &error), "is a folder");
}

static void a_damaged_root_falls_back_to_the_one_before(void **state)
{
    struct scratch *s = *state;
    g_autofree uint8_t *ram = make_ram(1);
    char a[33], b[33];
    assert_ok(make_document(s, NULL, &error));
    struct hsk_doc *doc = open_doc(s);
    assert_ok(take(doc, "a", HSK_VERSION_USER, ram, a, &error));
    assert_ok(take(doc, "b", HSK_VERSION_USER, ram, b, &error));
    g_autofree char *root = g_build_filename(g_getenv("XDG_DATA_HOME"), "haversack", "instances",
                                             hsk_doc_instance(doc), "ROOT", NULL);
    hsk_doc_close(doc);
    assert_int_equal(truncate(root, 100), 0);
    char *note = NULL;
    assert_ok((doc = hsk_doc_open(s->doc, false, &note, &error)) != NULL);
    assert_non_null(note);
    g_free(note);
    assert_version_ram(doc, a, ram);
    hsk_doc_close(doc);
}

static void what_an_interrupted_making_left_is_removed(void **state)
{
    struct scratch *s = *state;
    g_autofree char *data = hsk_data_folder();
    g_autofree char *half =
        g_build_filename(data, "instances", "0123456789abcdef0123456789abcdef", "data", NULL);
    g_autofree char *damaged =
        g_build_filename(data, "instances", "11111111111111111111111111111111", NULL);
    g_autofree char *origin = g_build_filename(damaged, "origin", NULL);
    assert_ok(make_document(s, NULL, &error));
    assert_int_equal(g_mkdir_with_parents(half, 0700), 0);
    assert_int_equal(g_mkdir_with_parents(damaged, 0700), 0);
    close(make_file(origin, "?", 1));
    /* the damaged one may be worth something, and whose it was nobody knows */
    g_autofree char *instance = NULL, *again = NULL;
    g_autofree char *note = open_with_note(s->doc, &instance);
    g_autofree char *folder = g_path_get_dirname(half);
    assert_false(g_file_test(folder, G_FILE_TEST_EXISTS));
    assert_true(g_file_test(damaged, G_FILE_TEST_EXISTS));
    assert_non_null(note);
    assert_non_null(strstr(note, damaged));
    assert_null(open_with_note(s->doc, &again));
    assert_string_equal(instance, again);
}

static void other_files_are_refused_with_a_sentence(void **state)
{
    struct scratch *s = *state;
    static const uint8_t zeros[4096];
    assert_refused(hsk_doc_open(s->doc, false, NULL, &error), "No such file");
    close(make_file(s->doc, "hello", 5));
    assert_refused(hsk_doc_open(s->doc, false, NULL, &error), "not a Haversack document");
    close(make_file(s->doc, zeros, sizeof(zeros)));
    assert_refused(hsk_doc_open(s->doc, false, NULL, &error), "not a Haversack document");
    assert_refused(hsk_doc_open("/dev/null", false, NULL, &error), "not a Haversack document");
}

int main(void)
{
    g_autofree char *data = scratch_data_home();
#define T(f) cmocka_unit_test_setup_teardown(f, scratch_setup, scratch_teardown)
    const struct CMUnitTest tests[] = {
        T(second_opener_is_told),
        T(the_same_document_gets_the_same_instance_also_after_a_move),
        T(a_copy_gets_an_instance_of_its_own),
        T(unsaved_changes_of_a_replaced_document_are_put_aside),
        T(a_document_continued_elsewhere_takes_over_when_nothing_was_unsaved),
        T(a_publish_cut_off_after_its_commit_is_finished_on_opening),
        T(the_folder_of_an_instance_opens_its_document),
        T(a_damaged_root_falls_back_to_the_one_before),
        T(what_an_interrupted_making_left_is_removed),
        T(other_files_are_refused_with_a_sentence),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    remove_tree(data);
    return failed;
}
