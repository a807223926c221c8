/* SPDX-License-Identifier: MIT */
/*
 * Documents of every format version open for ever. tests/compat/document-1: 1 MiB of memory with
 * "hello" at 5000 and "world" at 9000; a disk of 64 KiB that began with "disk " 3000 times, then
 * "new" was written at 4096, zeros and the two words from 20000 on, and the first 8 KiB were
 * discarded.
 */
#include "fixture.h"

static void version_1_opens(void **state)
{
    struct scratch *s = *state;
    g_autofree char *contents = NULL;
    gsize bytes;
    if (!g_file_get_contents("compat/document-1", &contents, &bytes, NULL))
        fail_msg("run this program in the folder tests/");
    close(make_file(s->doc, contents, bytes));
    assert_ok(hsk_doc_verify(s->doc, NULL, NULL, &error));
    struct hsk_doc *doc = open_doc(s);
    assert_string_equal(hsk_doc_manifest(doc)->name, "x");
    assert_false(hsk_doc_trusted(doc));
    g_autofree char *ram = g_malloc0(1 << 20);
    g_autofree char *disk = g_malloc(65536);
    struct hsk_version *v;
    assert_ok((v = hsk_version_open(doc, hsk_doc_current(doc), &error)) != NULL);
    assert_ok(hsk_version_fill(v, "ram", ram, 1 << 20, &error));
    hsk_version_free(v);
    assert_string_equal(ram + 5000, "hello");
    assert_string_equal(ram + 9000, "world");
    assert_int_equal(hsk_disk_read(hsk_doc_disk(doc, 0), 0, disk, 65536), 0);
    for (unsigned i = 0; i < 8192; i++)
        assert_int_equal(disk[i], 0);
    assert_memory_equal(disk + 10000, "disk disk ", 10);
    assert_int_equal(disk[15000], 0);
    assert_string_equal(disk + 25000, "hello");
    assert_string_equal(disk + 29000, "world");
    g_autoptr(GBytes) kernel = hsk_doc_boot_member(doc, "boot/kernel", NULL);
    assert_int_equal(g_bytes_get_size(kernel), 6);
    hsk_doc_close(doc);
}

int main(void)
{
    g_autofree char *data = scratch_data_home();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(version_1_opens, scratch_setup, scratch_teardown),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    remove_tree(data);
    return failed;
}
