/* SPDX-License-Identifier: MIT */
/*
 * A document is files for ordinary tools: tar lists and unpacks it, b2sum -l 256 -c accepts ROOT,
 * zstd -d of the disk's segments gives the raw disk; and an archive that tar packed again still
 * opens. Skipped where the tools are missing.
 */
#include "fixture.h"

#include <shell.h>

/* Three generations: created, a version with a disk change, a saved state. */
static void make_history(const struct scratch *s, uint8_t *ram)
{
    char id[33];
    assert_ok(make_document(s, NULL, &error));
    struct hsk_doc *doc = open_doc(s);
    assert_int_equal(write_disk_page(doc, 3000 % 2048, 44), 0);
    assert_ok(take(doc, "v", HSK_VERSION_USER, ram, id, &error));
    assert_ok(hsk_doc_publish(doc, &error));
    assert_ok(take(doc, "", HSK_VERSION_SAVED, ram, id, &error));
    assert_ok(hsk_doc_publish(doc, &error));
    hsk_doc_close(doc);
}

static void ordinary_tools_accept_the_file(void **state)
{
    struct scratch *s = *state;
    g_autofree uint8_t *ram = make_ram(1);
    make_history(s, ram);
    assert_int_equal(run("cd '%s' && tar tf work.hva >list && head -1 list | grep -qx mimetype && "
                         "grep -qx ROOT list",
                         s->dir),
                     0);
    assert_int_equal(run("cd '%s' && mkdir out && tar xf work.hva -C out && cd out && b2sum -l 256 "
                         "-c ROOT >../sums && "
                         "! grep -v ': OK$' ../sums && test $(grep -c . ../sums) = $(find . -type "
                         "f ! -name ROOT ! -name TAIL | wc -l)",
                         s->dir),
                     0);
    assert_int_equal(run("cd '%s/out' && cat disks/root/*.zst | zstd -dq >../disk.out && cmp "
                         "../disk.out ../disk.raw",
                         s->dir),
                     0);
}

static void repacked_archive_opens(void **state)
{
    struct scratch *s = *state;
    g_autofree uint8_t *ram = make_ram(1);
    make_history(s, ram);
    g_autofree char *data = hsk_data_folder();
    const char *const packers[] = {"tar cf ../work.hva .", "tar cf ../work.hva --format=pax *",
                                   "tar cf ../work.hva --format=ustar *"};
    assert_int_equal(run("cd '%s' && mkdir out && tar xf work.hva -C out", s->dir), 0);
    for (size_t i = 0; i < G_N_ELEMENTS(packers); i++) {
        remove_tree(data);
        assert_int_equal(run("cd '%s/out' && %s", s->dir, packers[i]), 0);
        struct hsk_doc *doc = open_doc(s);
        assert_false(hsk_doc_live_changed(doc));
        assert_version_ram(doc, hsk_doc_saved(doc), ram);
        assert_disk_page(doc, 3000 % 2048, 44);
        assert_ok(take(doc, "more", HSK_VERSION_USER, ram, NULL, &error));
        assert_ok(hsk_doc_publish(doc, &error));
        hsk_doc_close(doc);
        assert_ok(hsk_doc_verify(s->doc, NULL, NULL, &error));
    }
}

int main(void)
{
    if (run("command -v tar b2sum zstd >/dev/null") != 0) {
        puts("skipped: tar, b2sum or zstd is missing");
        return 77;
    }
    g_autofree char *data = scratch_data_home();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(ordinary_tools_accept_the_file, scratch_setup,
                                        scratch_teardown),
        cmocka_unit_test_setup_teardown(repacked_archive_opens, scratch_setup, scratch_teardown),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    remove_tree(data);
    return failed;
}
