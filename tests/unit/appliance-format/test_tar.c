/* SPDX-License-Identifier: MIT */
/*
 * The strict tar: what is accepted, and that everything hostile is refused with a sentence
 * (hva-format's list, 1 to 6).
 */
#include <appliance-format/carrier.h>
#include <appliance-format/tar.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

struct archive {
    GByteArray *bytes;
};

static void add_raw(struct archive *a, const char *name, char type, uint64_t size, const void *data,
                    size_t bytes)
{
    static const uint8_t zeros[512];
    uint8_t header[512];
    hsk_tar_header(header, "x", type, size);
    memset(header, 0, 100);
    memcpy(header, name, MIN(strlen(name), 100));
    memset(header + 148, ' ', 8);
    unsigned sum = 0;
    for (unsigned i = 0; i < 512; i++)
        sum += header[i];
    snprintf((char *)header + 148, 8, "%06o", sum);
    header[155] = ' ';
    g_byte_array_append(a->bytes, header, 512);
    g_byte_array_append(a->bytes, data, (guint)bytes);
    g_byte_array_append(a->bytes, zeros, (guint)((512 - bytes % 512) % 512));
}

static void add(struct archive *a, const char *name, const char *text)
{
    add_raw(a, name, '0', strlen(text), text, strlen(text));
}

/* Recomputes the checksum of the last header, which was changed. */
static void reseal(uint8_t *header)
{
    memset(header + 148, ' ', 8);
    unsigned sum = 0;
    for (unsigned i = 0; i < 512; i++)
        sum += header[i];
    snprintf((char *)header + 148, 8, "%06o", sum);
    header[155] = ' ';
}

static GArray *scan(struct archive *a, uint64_t *end, GError **error)
{
    uint8_t zeros[1024] = {0};
    g_byte_array_append(a->bytes, zeros, sizeof(zeros));
    HSK_AUTOFD fd = hsk_memfd_new("tar", a->bytes->len, NULL);
    assert_true(fd >= 0);
    assert_int_equal(hsk_pwrite_all(fd, a->bytes->data, a->bytes->len, 0), 0);
    return hsk_tar_scan(fd, "t.hva", end, error);
}

static void expect_refused(struct archive *a, const char *words)
{
    g_autoptr(GError) error = NULL;
    uint64_t end;
    assert_null(scan(a, &end, &error));
    assert_non_null(error);
    if (strstr(error->message, words) == NULL)
        fail_msg("\"%s\" does not say \"%s\"", error->message, words);
    g_byte_array_set_size(a->bytes, 0);
}

static int setup(void **state)
{
    struct archive *a = g_new0(struct archive, 1);
    a->bytes = g_byte_array_new();
    *state = a;
    return 0;
}

static int teardown(void **state)
{
    struct archive *a = *state;
    g_byte_array_unref(a->bytes);
    g_free(a);
    return 0;
}

static void plain_files_are_listed_with_offsets(void **state)
{
    struct archive *a = *state;
    uint64_t end;
    add(a, "mimetype", "x");
    add_raw(a, "./disks/", '5', 0, "", 0);
    add_raw(a, "pax", 'x', 30, "30 mtime=1234567890.123456789\n", 30);
    add(a, "./disks/root/000001.zst", "yy");
    add(a, "ROOT", "1");
    add(a, "ROOT", "2");
    g_autoptr(GArray) m = scan(a, &end, NULL);
    assert_non_null(m);
    assert_int_equal(m->len, 4);
    assert_string_equal(g_array_index(m, struct hsk_tar_member, 1).name, "disks/root/000001.zst");
    assert_int_equal(g_array_index(m, struct hsk_tar_member, 1).data, 512 * 6);
    assert_int_equal(g_array_index(m, struct hsk_tar_member, 1).size, 2);
    assert_int_equal(end, 512 * 11);
}

static void bad_names_are_refused(void **state)
{
    static const char *const names[] = {"../x",   "/abs", "a//b", ".",         "",
                                        "a/../b", "a/.",  "a/",   "trailing ", "caf\xc3\xa9",
                                        "a\\b",   "a\nb", "..",   "././x"};
    struct archive *a = *state;
    for (size_t i = 0; i < G_N_ELEMENTS(names); i++) {
        add(a, names[i], "x");
        expect_refused(a, "impossible name");
    }
    char unterminated[101];
    memset(unterminated, 'a', 100);
    unterminated[100] = '\0';
    add(a, unterminated, "x");
    expect_refused(a, "impossible name");
    add(a, "ok", "x");
    memcpy(a->bytes->data + 345, "prefix", 6);
    reseal(a->bytes->data);
    expect_refused(a, "impossible name");
}

static void other_kinds_of_members_are_refused(void **state)
{
    struct archive *a = *state;
    for (const char *kind = "12346789LKSDVMNgXA"; *kind != '\0'; kind++) {
        add_raw(a, "x", *kind, 0, "", 0);
        expect_refused(a, "kind that does not belong here");
    }
    add(a, "ok", "x");
    memcpy(a->bytes->data + 157, "link", 4);
    reseal(a->bytes->data);
    expect_refused(a, "kind that does not belong here");
}

static void bad_sizes_and_checksums_are_refused(void **state)
{
    static const char *const sizes[] = {"-0000000001", "\200\0\0\0\0\0\0\0\0\0\1", "0000000x001",
                                        "           ", "00000000018"};
    struct archive *a = *state;
    for (size_t i = 0; i < G_N_ELEMENTS(sizes); i++) {
        add(a, "ok", "x");
        memcpy(a->bytes->data + 124, sizes[i], 11);
        reseal(a->bytes->data);
        expect_refused(a, "impossible size");
    }
    add(a, "ok", "x");
    memcpy(a->bytes->data + 124, "77777777777", 12);
    reseal(a->bytes->data);
    expect_refused(a, "cut off");
    add(a, "ok", "x");
    a->bytes->data[0] = 'p';
    expect_refused(a, "wrong checksum");
}

static void pax_records_that_change_anything_are_refused(void **state)
{
    static const struct {
        const char *body, *words;
    } cases[] = {
        {"11 size=99\n", "changes a name or a size"},
        {"10 path=a\n", "changes a name or a size"},
        {"14 linkpath=a\n", "changes a name or a size"},
        {"20 GNU.sparse.name=a\n", "wrong length"},
        {"21 GNU.sparse.name=a\n", "changes a name or a size"},
        {"99 comment=x\n", "wrong length"},
        {"5 a=\n3", "wrong length"},
        {"0 a=b\n", "wrong length"},
        {"4 a\n", "wrong length"},
        {"x", "wrong length"},
        {"99999999999999999999 a=b\n", "wrong length"},
    };
    struct archive *a = *state;
    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        add_raw(a, "pax", 'x', strlen(cases[i].body), cases[i].body, strlen(cases[i].body));
        add(a, "ok", "x");
        expect_refused(a, cases[i].words);
    }
    add_raw(a, "pax", 'x', 6, "6 a=b\n", 6);
    add_raw(a, "pax", 'x', 6, "6 a=b\n", 6);
    add(a, "ok", "x");
    expect_refused(a, "");
    g_autofree char *large = g_strnfill(70000, 'x');
    add_raw(a, "pax", 'x', 70000, large, 70000);
    expect_refused(a, "too large");
}

static void the_same_name_twice_is_refused(void **state)
{
    struct archive *a = *state;
    add(a, "data/000001.zst", "x");
    add(a, "data/000001.zst", "y");
    expect_refused(a, "same name twice");
    add(a, "data/000001.zst", "x");
    add(a, "data/000001.ZST", "y");
    expect_refused(a, "same name twice");
}

static void too_many_members_are_refused(void **state)
{
    struct archive *a = *state;
    char name[32];
    for (unsigned i = 0; i <= 100000; i++) {
        snprintf(name, sizeof(name), "n%u", i);
        add(a, name, "");
    }
    expect_refused(a, "too many members");
}

static void a_file_cut_anywhere_is_refused(void **state)
{
    struct archive *a = *state;
    add(a, "mimetype", "x");
    add(a, "data", "some data");
    g_autofree char *path = g_build_filename(g_get_tmp_dir(), "hsk-tar-XXXXXX", NULL);
    HSK_AUTOFD file = g_mkstemp(path);
    unlink(path);
    for (guint cut = 0; cut <= a->bytes->len; cut += 128) {
        g_autoptr(GError) error = NULL;
        uint64_t end;
        assert_int_equal(ftruncate(file, 0), 0);
        assert_int_equal(hsk_pwrite_all(file, a->bytes->data, cut, 0), 0);
        assert_null(hsk_tar_scan(file, "t.hva", &end, &error));
        assert_non_null(strstr(error->message, "cut off"));
    }
}

static void written_archives_are_aligned_and_appended_to_in_one_step(void **state)
{
    g_autofree char *path = g_build_filename(g_get_tmp_dir(), "hsk-tar-XXXXXX", NULL);
    HSK_AUTOFD fd = g_mkstemp(path);
    unlink(path);
    struct hsk_tar_sink t;
    uint64_t end;
    bool committed;
    GError *error = NULL;
    hsk_tar_sink_init(&t, NULL, fd, "t.hva");
    assert_true(hsk_sink_put(&t.sink, "mimetype", "m", 1, NULL, &error));
    assert_true(hsk_sink_put(&t.sink, "data/000001.zst", "one", 3, NULL, &error));
    assert_true(hsk_tar_sink_commit(&t, "root one", 1, &committed, &error));
    g_autoptr(GArray) one = hsk_tar_scan(fd, "t.hva", &end, &error);
    assert_int_equal(one->len, 4);
    assert_int_equal(g_array_index(one, struct hsk_tar_member, 1).data % 4096, 0);
    assert_int_equal(lseek(fd, 0, SEEK_END), end + 1024);
    for (unsigned round = 0; round < 2; round++) {
        assert_true(hsk_tar_sink_init_append(&t, NULL, fd, end, "t.hva", &error));
        assert_true(hsk_sink_put(&t.sink, "data/000002.zst", "two", 3, NULL, &error));
        /* not committed: the old archive */
        uint64_t now;
        g_autoptr(GArray) still = hsk_tar_scan(fd, "t.hva", &now, &error);
        assert_int_equal(still->len, 4);
        assert_int_equal(now, end);
        if (round == 0)
            hsk_tar_sink_abort(&t);
    }
    assert_true(hsk_tar_sink_commit(&t, "root two", 2, &committed, &error));
    assert_true(committed);
    struct hsk_carrier *c = hsk_carrier_open_tar(fd, "t.hva", &error);
    assert_non_null(c);
    g_autoptr(GBytes) root = hsk_carrier_read(c, "ROOT", 100, &error);
    assert_int_equal(g_bytes_get_size(root), 8);
    assert_memory_equal(g_bytes_get_data(root, NULL), "root two", 8);
    assert_true(hsk_carrier_tar_check_tail(c, &error));
    struct hsk_member m;
    assert_true(hsk_carrier_member(c, "data/000002.zst", &m, &error));
    char byte;
    assert_int_equal(hsk_member_read(&m, 3, &byte, 1), -22);
    assert_int_equal(hsk_member_read(&m, UINT64_MAX, &byte, 2), -22);
    hsk_carrier_free(c);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(plain_files_are_listed_with_offsets),
        T(bad_names_are_refused),
        T(other_kinds_of_members_are_refused),
        T(bad_sizes_and_checksums_are_refused),
        T(pax_records_that_change_anything_are_refused),
        T(the_same_name_twice_is_refused),
        T(too_many_members_are_refused),
        T(a_file_cut_anywhere_is_refused),
        T(written_archives_are_aligned_and_appended_to_in_one_step),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
