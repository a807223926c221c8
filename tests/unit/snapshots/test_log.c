/* SPDX-License-Identifier: MIT */
/*
 * The write log: whatever happens to its end, recovery gives a prefix of what was written that
 * holds everything flushed before the cut, and goes on from there.
 */
#include <errno.h>

#include "fixture.h"

enum { RECORDS = 12 };

struct seen {
    struct hsk_log *log;
    unsigned n;
    uint64_t loc[64];
    uint32_t npages[64];
};

static bool collect(void *opaque, uint32_t disk, uint64_t page, uint32_t npages, uint64_t loc)
{
    struct seen *s = opaque;
    if (disk == 99)
        return false;
    assert_true(s->n < G_N_ELEMENTS(s->loc));
    assert_int_equal(page, s->n * 10);
    assert_int_equal(disk, s->n % 2);
    s->loc[s->n] = loc;
    s->npages[s->n++] = npages;
    return true;
}

static bool nowhere_to_go(void *opaque, const uint8_t id[HSK_LOG_ID_BYTES], uint32_t number,
                          uint64_t seq)
{
    return false;
}

/* Record n: disk n % 2, page 10 n, one to three pages of pattern n; every fifth is a discard. */
static void append(struct hsk_log *log, unsigned n)
{
    uint8_t pages[3 * HSK_PAGE_SIZE];
    uint64_t loc;
    for (unsigned i = 0; i < 3; i++)
        fill_page(pages + (size_t)i * HSK_PAGE_SIZE, 1 + 4ull * i, n);
    assert_int_equal(hsk_log_append(log, n % 2, n * 10, n % 3 + 1, n % 5 == 4 ? NULL : pages, &loc),
                     0);
}

static struct hsk_log *open_log(int dirfd)
{
    return hsk_log_new(NULL, dirfd, "the test", 1, 1);
}

/* Recovers and checks that the records are the first n ones, each with its content; returns n. */
static unsigned recover(struct hsk_log *log)
{
    struct seen s = {log, 0, {0}, {0}};
    struct hsk_log_replay replay = {collect, nowhere_to_go, &s};
    assert_ok(hsk_log_recover(log, &replay, &error));
    for (unsigned n = 0; n < s.n; n++) {
        assert_int_equal(s.npages[n], n % 3 + 1);
        assert_int_equal(s.loc[n] == HSK_LOC_HOLE, n % 5 == 4);
        for (unsigned i = 0; s.loc[n] != HSK_LOC_HOLE && i < s.npages[n]; i++) {
            uint8_t got[HSK_PAGE_SIZE], want[HSK_PAGE_SIZE];
            assert_int_equal(hsk_log_read(log, s.loc[n] + i * (HSK_PAGE_SIZE / 64), got), 0);
            fill_page(want, 1 + 4ull * i, n);
            assert_memory_equal(got, want, sizeof(want));
        }
    }
    return s.n;
}

static int open_dir(const struct scratch *s)
{
    g_autofree char *path = g_build_filename(s->dir, "log", NULL);
    remove_tree(path);
    assert_int_equal(mkdir(path, 0700), 0);
    return open(s->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

static void write_records(int dirfd)
{
    struct hsk_log *log = open_log(dirfd);
    assert_int_equal(recover(log), 0);
    for (unsigned n = 0; n < RECORDS; n++)
        append(log, n);
    assert_int_equal(hsk_log_flush(log), 0);
    hsk_log_free(log);
}

/* How many whole records fit into size bytes of the file. */
static unsigned whole_records(uint64_t size)
{
    uint64_t end = 64;
    for (unsigned n = 0; n < RECORDS; n++) {
        end += 64 + (n % 5 == 4 ? 0 : (n % 3 + 1) * (uint64_t)HSK_PAGE_SIZE);
        if (end > size)
            return n;
    }
    return RECORDS;
}

static void a_log_cut_anywhere_gives_the_whole_records_before_the_cut(void **state)
{
    struct scratch *s = *state;
    g_autofree char *path = g_build_filename(s->dir, "log", "000001", NULL);
    struct stat st;
    HSK_AUTOFD dirfd = open_dir(s);
    write_records(dirfd);
    assert_int_equal(stat(path, &st), 0);
    g_autofree char *contents = NULL;
    gsize bytes;
    assert_true(g_file_get_contents(path, &contents, &bytes, NULL));
    for (gsize cut = 0; cut <= bytes; cut += 64) {
        for (unsigned garbage = 0; garbage < 2; garbage++) {
            /* what is behind the cut: nothing, or a sector of something else */
            HSK_AUTOFD fd = make_file(path, contents, cut);
            if (garbage == 1)
                assert_int_equal(hsk_pwrite_all(fd, contents + 64, MIN(512, bytes - 64), cut), 0);
            unsigned want = whole_records(cut);
            struct hsk_log *log = open_log(dirfd);
            assert_int_equal(recover(log), want);
            if (want < RECORDS && cut % 512 == 0) {
                append(log, want);
                assert_int_equal(hsk_log_flush(log), 0);
                want++;
            }
            hsk_log_free(log);
            log = open_log(dirfd);
            assert_int_equal(recover(log), want);
            hsk_log_free(log);
            g_autofree char *second = g_build_filename(s->dir, "log", "000002", NULL);
            unlink(second);
        }
    }
}

static void a_flipped_bit_ends_the_log_before_its_record(void **state)
{
    struct scratch *s = *state;
    g_autofree char *path = g_build_filename(s->dir, "log", "000001", NULL);
    HSK_AUTOFD dirfd = open_dir(s);
    write_records(dirfd);
    g_autofree char *contents = NULL;
    gsize bytes;
    assert_true(g_file_get_contents(path, &contents, &bytes, NULL));
    for (gsize at = 0; at < bytes; at += 97) {
        contents[at] ^= 4;
        close(make_file(path, contents, bytes));
        contents[at] ^= 4;
        struct hsk_log *log = open_log(dirfd);
        assert_int_equal(recover(log), at < 64 ? 0 : whole_records(at));
        hsk_log_free(log);
    }
}

static void records_run_on_over_files_and_old_files_go(void **state)
{
    struct scratch *s = *state;
    uint32_t number = 0;
    uint64_t seq = 0;
    HSK_AUTOFD dirfd = open_dir(s);
    struct hsk_log *log = open_log(dirfd);
    assert_int_equal(recover(log), 0);
    for (unsigned n = 0; n < 6; n++) {
        append(log, n);
        if (n % 2 == 1)
            hsk_log_rotate(log, &number, &seq);
    }
    assert_int_equal(number, 4);
    assert_int_equal(seq, 7);
    hsk_log_free(log);
    log = open_log(dirfd);
    assert_int_equal(recover(log), 6);
    hsk_log_discard(log, hsk_log_detach_before(log, 3));
    hsk_log_free(log);
    assert_int_equal(faccessat(dirfd, "log/000002", F_OK, 0), -1);
    assert_int_equal(faccessat(dirfd, "log/000003", F_OK, 0), 0);
    /* the records that ROOT does not know of any more do not come back */
    log = hsk_log_new(NULL, dirfd, "the test", 1, 1);
    assert_int_equal(recover(log), 0);
    hsk_log_free(log);
}

static void a_missing_file_in_the_middle_ends_the_log(void **state)
{
    struct scratch *s = *state;
    uint32_t number = 0;
    uint64_t seq = 0;
    HSK_AUTOFD dirfd = open_dir(s);
    struct hsk_log *log = open_log(dirfd);
    assert_int_equal(recover(log), 0);
    for (unsigned n = 0; n < 6; n++) {
        append(log, n);
        hsk_log_rotate(log, &number, &seq);
    }
    hsk_log_free(log);
    unlinkat(dirfd, "log/000004", 0);
    log = open_log(dirfd);
    assert_int_equal(recover(log), 3);
    append(log, 3);
    hsk_log_free(log);
    log = open_log(dirfd);
    assert_int_equal(recover(log), 4);
    hsk_log_free(log);
}

static int fail_write(void *opaque, enum hsk_io_op op, int fd)
{
    unsigned *left = opaque;
    return op == HSK_IO_WRITE && *left > 0 && --*left == 0 ? ENOSPC : 0;
}

static void a_write_that_does_not_fit_leaves_no_trace(void **state)
{
    struct scratch *s = *state;
    HSK_AUTOFD dirfd = open_dir(s);
    /* the file's header, a record's payload, its header: each fails once */
    for (unsigned k = 1; k <= 3; k++) {
        unsigned left = 0;
        struct hsk_io io = {fail_write, &left};
        uint8_t page[HSK_PAGE_SIZE] = {1};
        uint64_t loc;
        struct hsk_log *log = hsk_log_new(&io, dirfd, "the test", 1, 1);
        assert_int_equal(recover(log), (k - 1) * 2);
        left = k;
        assert_int_equal(hsk_log_append(log, 0, 0, 1, page, &loc), -ENOSPC);
        append(log, (k - 1) * 2);
        append(log, (k - 1) * 2 + 1);
        hsk_log_free(log);
    }
}

int main(void)
{
    g_autofree char *data = scratch_data_home();
#define T(f) cmocka_unit_test_setup_teardown(f, scratch_setup, scratch_teardown)
    const struct CMUnitTest tests[] = {
        T(a_log_cut_anywhere_gives_the_whole_records_before_the_cut),
        T(a_flipped_bit_ends_the_log_before_its_record),
        T(records_run_on_over_files_and_old_files_go),
        T(a_missing_file_in_the_middle_ends_the_log),
        T(a_write_that_does_not_fit_leaves_no_trace),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    remove_tree(data);
    return failed;
}
