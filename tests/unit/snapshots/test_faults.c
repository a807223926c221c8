/* SPDX-License-Identifier: MIT */
/*
 * Nothing that was committed or flushed is lost: every n-th write, sync or rename fails; the
 * process is killed at random moments; the file system is full; bits of the document flip.
 */
#include <errno.h>
#include <rounds.h>
#include <signal.h>
#include <sys/resource.h>

#include "story.h"

/* ---- the n-th operation fails ---- */

struct fault {
    unsigned count, fail_at;
    bool for_ever;
    int err;
};

static int before(void *opaque, enum hsk_io_op op, int fd)
{
    struct fault *f = opaque;
    f->count++;
    return f->count == f->fail_at || (f->for_ever && f->count > f->fail_at) ? f->err : 0;
}

static unsigned count_operations(const struct scratch *s)
{
    struct fault f = {0};
    struct hsk_io io = {before, &f};
    struct achieved a = {.flushed_seed = 7};
    fresh_document(s);
    story(s, &io, &a);
    assert_int_equal(a.ram_seed, 3);
    assert_int_equal(a.flushed_seed, 14);
    assert_true(a.published);
    return f.count;
}

static void fail_everywhere(const struct scratch *s, int err, bool for_ever)
{
    unsigned all = count_operations(s);
    assert_true(all > 100);
    for (unsigned n = 1; n <= all; n++) {
        struct fault f = {.fail_at = n, .for_ever = for_ever, .err = err};
        struct hsk_io io = {before, &f};
        struct achieved a = {.flushed_seed = 7};
        fresh_document(s);
        story(s, &io, &a);
        assert_nothing_lost(s, &a);
    }
}

static void one_full_disk_error_anywhere_loses_nothing(void **state)
{
    fail_everywhere(*state, ENOSPC, false);
}

static void a_disk_that_dies_anywhere_loses_nothing(void **state)
{
    fail_everywhere(*state, EIO, true);
}

static void a_failed_creation_leaves_nothing(void **state)
{
    struct scratch *s = *state;
    struct fault f = {0};
    struct hsk_io io = {before, &f};
    assert_ok(make_document(s, &io, &error));
    unsigned all = f.count;
    unlink(s->doc);
    for (unsigned n = 1; n < all; n++) {
        f = (struct fault){.fail_at = n, .err = ENOSPC};
        assert_refused(make_document(s, &io, &error), "disk is full");
        assert_false(g_file_test(s->doc, G_FILE_TEST_EXISTS));
        g_autofree char *tmp = g_strconcat(s->doc, ".tmp", NULL);
        assert_false(g_file_test(tmp, G_FILE_TEST_EXISTS));
    }
}

/* ---- a file size limit, by the kernel ---- */

static void a_publish_that_does_not_fit_says_so_and_keeps_everything(void **state)
{
    struct scratch *s = *state;
    struct achieved a = {.flushed_seed = 7};
    struct stat st;
    fresh_document(s);
    struct hsk_doc *doc = open_doc(s);
    assert_true(step_take(doc, 1, HSK_VERSION_USER, &a));
    assert_int_equal(stat(s->doc, &st), 0);
    struct rlimit old, limit;
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &old);
    limit = old;
    limit.rlim_cur = (rlim_t)st.st_size + 20000;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
    assert_refused(hsk_doc_publish(doc, &error), "larger than allowed");
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    assert_ok(hsk_doc_verify(s->doc, NULL, NULL, &error));
    hsk_doc_close(doc);
    assert_nothing_lost(s, &a);
}

static void a_document_that_cannot_be_written_keeps_its_versions_here(void **state)
{
    struct scratch *s = *state;
    struct achieved a = {.flushed_seed = 7};
    fresh_document(s);
    struct hsk_doc *doc = open_doc(s);
    doc->fd_writable = false; /* chmod does not stop root */
    assert_true(step_take(doc, 1, HSK_VERSION_USER, &a));
    assert_refused(hsk_doc_publish(doc, &error), "cannot be written to");
    hsk_doc_close(doc);
    assert_nothing_lost(s, &a);
}

/* ---- kill -9 ---- */

/* Works until it is killed; tells each thing that is done, after it is. */
static void child_works(const struct scratch *s, int pipe_fd)
{
    struct achieved a = {.flushed_seed = 7};
    struct hsk_doc *doc = hsk_doc_open(s->doc, false, NULL, NULL);
    if (doc == NULL)
        _exit(1);
    for (unsigned i = 0;; i++) {
        step_write(doc, 11 + i % 4, &a);
        if (!step_take(doc, 1 + i % 3, i % 2 == 0 ? HSK_VERSION_USER : HSK_VERSION_SAVED, &a))
            _exit(2);
        if (write(pipe_fd, &a, sizeof(a)) != (ssize_t)sizeof(a))
            _exit(3);
        if (i % 3 == 2 && !hsk_doc_publish(doc, NULL))
            _exit(4);
    }
}

static void killed_at_any_moment_the_last_version_is_whole(void **state)
{
    struct scratch *s = *state;
    fresh_document(s);
    for (unsigned round = 0, rounds = test_rounds(50, 1000); round < rounds; round++) {
        struct achieved a = {.flushed_seed = 7}, got;
        int fds[2];
        assert_int_equal(pipe(fds), 0);
        pid_t pid = fork();
        if (pid == 0)
            child_works(s, fds[1]);
        close(fds[1]);
        g_usleep(3000 + (gulong)g_random_int_range(0, 60000));
        kill(pid, SIGKILL);
        int status;
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFSIGNALED(status));
        while (read(fds[0], &got, sizeof(got)) == (ssize_t)sizeof(got))
            a = got;
        close(fds[0]);
        struct hsk_doc *doc = open_doc(s);
        if (a.version[0] != '\0' && hsk_doc_find(doc, a.version) != NULL) {
            g_autofree uint8_t *ram = make_ram(a.ram_seed);
            assert_version_ram(doc, a.version, ram);
        } else if (a.version[0] != '\0') {
            /* only a saved state may be gone, replaced by a newer one that had no time to be told
             */
            assert_string_not_equal(hsk_doc_saved(doc), "");
        }
        if (doc->versions->len > 20)
            assert_ok(hsk_doc_drop(
                doc, ((struct hsk_record *)g_ptr_array_index(doc->versions, 0))->info.id, &error));
        hsk_doc_close(doc);
        assert_ok(hsk_doc_verify(s->doc, NULL, NULL, &error));
        if (round % 10 == 9)
            fresh_document(s);
    }
}

/* ---- damage ---- */

/* Reads everything; data that comes out must be right. Returns whether all came out. */
static bool read_all(const char *path, const uint8_t *ram, const uint8_t *disk)
{
    g_autofree uint8_t *buf = g_malloc0(MAX(RAM_BYTES, DISK_BYTES));
    struct hsk_doc *doc = hsk_doc_open(path, true, NULL, NULL);
    if (doc == NULL)
        return false;
    bool all = true;
    struct hsk_version *v = hsk_version_open(doc, doc->root->current, NULL);
    if (v != NULL && hsk_version_fill(v, "ram", buf, RAM_BYTES, NULL))
        assert_memory_equal(buf, ram, RAM_BYTES);
    else
        all = false;
    if (v != NULL && hsk_version_read(v, "disk.root", 0, DISK_BYTES / HSK_PAGE_SIZE, buf, NULL))
        assert_memory_equal(buf, disk, DISK_BYTES);
    else
        all = false;
    g_autoptr(GBytes) device = v != NULL ? hsk_version_state(v, NULL) : NULL;
    if (device != NULL)
        assert_memory_equal(g_bytes_get_data(device, NULL), "device state", 12);
    hsk_version_free(v);
    hsk_doc_close(doc);
    return all && device != NULL;
}

static void flipped_bits_never_give_wrong_data(void **state)
{
    struct scratch *s = *state;
    struct achieved a = {.flushed_seed = 7};
    fresh_document(s);
    struct hsk_doc *doc = open_doc(s);
    step_write(doc, 11, &a);
    assert_true(step_take(doc, 1, HSK_VERSION_USER, &a));
    assert_ok(hsk_doc_publish(doc, &error));
    g_autofree uint8_t *disk = g_malloc(DISK_BYTES);
    assert_int_equal(hsk_disk_read(hsk_doc_disk(doc, 0), 0, disk, DISK_BYTES), 0);
    hsk_doc_close(doc);
    g_autofree uint8_t *ram = make_ram(1);
    g_autofree char *contents = NULL;
    gsize bytes;
    assert_true(g_file_get_contents(s->doc, &contents, &bytes, NULL));
    assert_true(read_all(s->doc, ram, disk));
    HSK_AUTOFD fd = open(s->doc, O_RDWR | O_CLOEXEC);
    unsigned refused = 0, rounds = test_rounds(400, 20000);
    uint64_t x = 88172645463325252ull;
    for (unsigned i = 0; i < rounds; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        /* half of them anywhere, half in the last 64 KiB, where ROOT and maps are */
        uint64_t off = i % 2 == 0 ? x % bytes : bytes - 1 - x % 65536;
        char flipped = (char)(contents[off] ^ (1 << (x >> 40) % 8));
        assert_int_equal(hsk_pwrite_all(fd, &flipped, 1, off), 0);
        refused += !read_all(s->doc, ram, disk);
        if (refused > 0 && i % 40 == 0)
            (void)!hsk_doc_verify(s->doc, NULL, NULL, NULL);
        assert_int_equal(hsk_pwrite_all(fd, &contents[off], 1, off), 0);
    }
    assert_true(refused > rounds / 4);
    assert_true(read_all(s->doc, ram, disk));
}

static void a_cut_document_is_refused(void **state)
{
    struct scratch *s = *state;
    struct stat st;
    fresh_document(s);
    assert_int_equal(stat(s->doc, &st), 0);
    for (off_t size = st.st_size - 1025; size >= 0; size -= size > 40000 ? 40000 - 512 : 512) {
        assert_int_equal(truncate(s->doc, size), 0);
        g_autoptr(GError) error = NULL;
        assert_null(hsk_doc_open(s->doc, true, NULL, &error));
        assert_non_null(
            strstr(error->message, size < 512 ? "not a Haversack document" : "cut off"));
    }
}

int main(void)
{
    g_autofree char *data = scratch_data_home();
#define T(f) cmocka_unit_test_setup_teardown(f, scratch_setup, scratch_teardown)
    const struct CMUnitTest tests[] = {
        T(one_full_disk_error_anywhere_loses_nothing),
        T(a_disk_that_dies_anywhere_loses_nothing),
        T(a_failed_creation_leaves_nothing),
        T(a_publish_that_does_not_fit_says_so_and_keeps_everything),
        T(a_document_that_cannot_be_written_keeps_its_versions_here),
        T(killed_at_any_moment_the_last_version_is_whole),
        T(flipped_bits_never_give_wrong_data),
        T(a_cut_document_is_refused),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    remove_tree(data);
    return failed;
}
