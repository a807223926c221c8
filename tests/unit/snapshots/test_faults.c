/* SPDX-License-Identifier: MIT */
/*
 * Nothing that was committed or flushed is lost: every n-th write, sync or rename fails; the
 * process is killed at random moments; the file system is full; bits of the document flip.
 */
#include <errno.h>
#include <rounds.h>
#include <signal.h>
#include <sys/resource.h>

#include "life.h"
#include "story.h"
#include "wrap.h"

/* ---- the n-th call fails ---- */

struct fault {
    const char *name;
    unsigned calls; /* bits of enum wrap_call */
    int err;
    bool for_ever;
    /* of one run */
    unsigned count, fail_at;
    bool struck;
};

static int strike(void *opaque, enum wrap_call call)
{
    struct fault *f = opaque;
    if ((f->calls >> call & 1) == 0 || f->fail_at == 0)
        return 0;
    f->count++;
    if (f->count != f->fail_at && (!f->for_ever || f->count < f->fail_at))
        return 0;
    f->struck = true;
    return f->err;
}

/* Lives with the n-th call failing, and asks whether all is there. Returns whether there was an
 * n-th. */
static bool live_with(const struct scratch *s, struct fault *f, uint32_t seed, unsigned n)
{
    struct wrap_hooks hooks = {.before = strike, .opaque = f};
    fresh_document(s);
    struct life *l = life_new(s, NULL, seed);
    g_snprintf(l->where, sizeof(l->where), "life %u, call %u of \"%s\"", seed, n, f->name);
    l->may_fail = true;
    f->count = 0;
    f->fail_at = n;
    f->struck = false;
    wrap_set(&hooks);
    life_run(l, 60);
    wrap_set(NULL);
    f->fail_at = 0;
    life_check(l, NEVER - 1);
    life_free(l);
    return f->struck;
}

/* The earlier the denser; more in the long run. */
static void fail_everywhere(const struct scratch *s, struct fault f)
{
    unsigned runs = 0;
    for (unsigned n = 1, seed = 1; live_with(s, &f, seed, n); runs++)
        n += 1 + n / test_rounds(8, 100);
    print_message("%s: %u runs\n", f.name, runs);
}

#define BIT(call) (1u << WRAP_##call)
#define CHANGES   (BIT(WRITE) | BIT(NAMES) | BIT(LINK) | BIT(TRUNCATE))
#define SYNCS     (BIT(SYNC) | BIT(SYNC_FOLDER))

static void a_full_disk_loses_nothing(void **state)
{
    fail_everywhere(*state, (struct fault){"disk full", CHANGES, ENOSPC, false});
    fail_everywhere(*state, (struct fault){"disk full for ever", CHANGES, ENOSPC, true});
}

static void a_call_that_fails_loses_nothing(void **state)
{
    fail_everywhere(*state, (struct fault){"write error", CHANGES | BIT(UNLINK), EIO, false});
    fail_everywhere(*state, (struct fault){"sync error", SYNCS, EIO, false});
    fail_everywhere(*state, (struct fault){"read error", BIT(READ) | BIT(STAT), EIO, false});
    fail_everywhere(*state, (struct fault){"open error", BIT(OPEN), EMFILE, false});
}

static void a_disk_that_dies_loses_nothing(void **state)
{
    fail_everywhere(*state, (struct fault){"disk dead", ~BIT(ALLOC), EIO, true});
}

static void no_memory_loses_nothing(void **state)
{
    fail_everywhere(*state, (struct fault){"no memory", BIT(ALLOC), ENOMEM, false});
}

static void short_reads_and_writes_are_gone_on_with(void **state)
{
    struct fault f = {"half", BIT(READ) | BIT(WRITE), WRAP_HALF, true};
    assert_true(live_with(*state, &f, 1, 1));
}

/* FAT and many network file systems: no hard links, folders that cannot be synced. */
static int poor(void *opaque, enum wrap_call call)
{
    const int *without_links = opaque;
    return call == WRAP_LINK ? *without_links : call == WRAP_SYNC_FOLDER ? EINVAL : 0;
}

static void a_poor_file_system_will_do(void **state)
{
    static const int says[] = {EPERM, EOPNOTSUPP, ENOSYS};
    for (size_t i = 0; i < G_N_ELEMENTS(says); i++) {
        struct wrap_hooks hooks = {.before = poor, .opaque = (void *)&says[i]};
        g_autofree char *data = hsk_data_folder();
        remove_tree(data);
        wrap_set(&hooks);
        fresh_document(*state);
        struct life *l = life_new(*state, NULL, 21);
        assert_true(life_run(l, 60));
        wrap_set(NULL);
        life_check(l, NEVER - 1);
        life_free(l);
    }
}

/* Opens with every call of it failing in turn. */
static void open_with_faults(const struct scratch *s, struct life *l, struct fault f)
{
    struct wrap_hooks hooks = {.before = strike, .opaque = &f};
    g_autofree char *data = hsk_data_folder();
    const char *const folders[] = {s->dir, data, NULL};
    struct journal *j = journal_new(folders);
    f.struck = true;
    for (unsigned n = 1; f.struck; n++) {
        char *orphan = NULL;
        g_autoptr(GError) error = NULL;
        g_snprintf(l->where, sizeof(l->where), "opening, call %u of \"%s\"", n, f.name);
        f.count = 0;
        f.fail_at = n;
        f.struck = false;
        wrap_set(&hooks);
        struct hsk_doc *doc = hsk_doc_open(s->doc, false, &orphan, &error);
        wrap_set(NULL);
        hsk_doc_close(doc);
        if (orphan != NULL || (doc == NULL && error == NULL))
            fail_msg("%s: %s", l->where, orphan != NULL ? orphan : "no sentence");
        life_check(l, NEVER - 1);
        journal_restore(j, 0, JOURNAL_MOST, 0);
    }
    journal_free(j);
}

static void a_failing_opening_loses_nothing(void **state)
{
    struct scratch *s = *state;
    fresh_document(s);
    struct life *l = life_new(s, NULL, 5);
    assert_true(life_run(l, 60));
    open_with_faults(s, l, (struct fault){"open error", BIT(OPEN) | BIT(STAT), EIO, false});
    open_with_faults(s, l, (struct fault){"read error", BIT(READ), EIO, false});
    open_with_faults(s, l, (struct fault){"disk full", CHANGES | SYNCS, ENOSPC, true});
    open_with_faults(s, l, (struct fault){"dead", ~BIT(ALLOC), EIO, true});
    open_with_faults(s, l, (struct fault){"no files", BIT(OPEN), EMFILE, true});
    life_free(l);
}

static int before(void *opaque, enum hsk_io_op op, int fd)
{
    struct fault *f = opaque;
    return ++f->count == f->fail_at ? f->err : 0;
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
        g_autofree char *tmp = g_strconcat(s->doc, HSK_UNFINISHED, NULL);
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
    off_t far = test_rounds(40000 - 512, 512);
    for (off_t size = st.st_size - 1025; size >= 0; size -= size > 40000 ? far : 512) {
        assert_int_equal(truncate(s->doc, size), 0);
        g_autoptr(GError) error = NULL;
        assert_null(hsk_doc_open(s->doc, true, NULL, &error));
        assert_non_null(
            strstr(error->message, size < 512 ? "not a Haversack document" : "cut off"));
    }
}

/* Also after a test that failed while calls did. */
static int calls_work_again(void **state)
{
    wrap_set(NULL);
    return scratch_teardown(state);
}

/* Cuts a file off at some places, opens, puts it back: nothing else may have come to harm, unless
 * the file was what says how the rest is to be read. */
static void cut_off(struct life *l, struct journal *j, const char *path, const char *name)
{
    bool log = g_str_has_prefix(name, "log/");
    bool alone = !log && !g_str_has_prefix(name, "ROOT") && strcmp(name, "origin") != 0;
    g_autofree char *contents = NULL;
    gsize bytes;
    assert_true(g_file_get_contents(path, &contents, &bytes, NULL));
    gsize step = log ? 64 : 512, all = (bytes + step - 1) / step,
          every = 1 + all / test_rounds(4, 1000);
    for (gsize i = 0; i < all; i += every) {
        g_snprintf(l->where, sizeof(l->where), "%s cut off at %zu", name, i * step);
        assert_int_equal(truncate(path, (off_t)(i * step)), 0);
        life_check_damaged(l);
        if (alone) {
            close(make_file(path, contents, bytes));
            if (i == 0)
                life_check(l, NEVER - 1);
        }
        journal_restore(j, 0, JOURNAL_MOST, 0);
    }
}

static void a_file_of_the_instance_that_is_cut_off_gives_no_wrong_data(void **state)
{
    static const char *const folders[] = {"", "data", "map", "versions", "log"};
    struct scratch *s = *state;
    g_autofree char *data = hsk_data_folder();
    const char *const both[] = {s->dir, data, NULL};
    fresh_document(s);
    struct life *l = life_new(s, NULL, 11);
    assert_true(life_run(l, 40));
    struct journal *j = journal_new(both);
    struct hsk_doc *doc = open_doc(s);
    g_autofree char *instance = g_build_filename(data, "instances", hsk_doc_instance(doc), NULL);
    hsk_doc_close(doc);
    for (unsigned i = 0; i < G_N_ELEMENTS(folders); i++) {
        g_autofree char *folder = g_build_filename(instance, folders[i], NULL);
        g_autoptr(GPtrArray) names = g_ptr_array_new_with_free_func(g_free);
        g_autoptr(GDir) dir = g_dir_open(folder, 0, NULL);
        for (const char *n; (n = g_dir_read_name(dir)) != NULL;)
            g_ptr_array_add(names, g_build_filename(folders[i], n, NULL));
        for (guint k = 0; k < names->len; k++) {
            const char *name = g_ptr_array_index(names, k);
            g_autofree char *path = g_build_filename(instance, name, NULL);
            if (g_file_test(path, G_FILE_TEST_IS_REGULAR))
                cut_off(l, j, path, name[0] == '/' ? name + 1 : name);
        }
    }
    journal_free(j);
    life_free(l);
}

int main(void)
{
    g_autofree char *data = scratch_data_home();
#define T(f) cmocka_unit_test_setup_teardown(f, scratch_setup, calls_work_again)
    const struct CMUnitTest tests[] = {
        T(a_full_disk_loses_nothing),
        T(a_call_that_fails_loses_nothing),
        T(a_disk_that_dies_loses_nothing),
        T(a_poor_file_system_will_do),
        T(a_failing_opening_loses_nothing),
        T(no_memory_loses_nothing),
        T(short_reads_and_writes_are_gone_on_with),
        T(a_failed_creation_leaves_nothing),
        T(a_publish_that_does_not_fit_says_so_and_keeps_everything),
        T(a_document_that_cannot_be_written_keeps_its_versions_here),
        T(killed_at_any_moment_the_last_version_is_whole),
        T(flipped_bits_never_give_wrong_data),
        T(a_cut_document_is_refused),
        T(a_file_of_the_instance_that_is_cut_off_gives_no_wrong_data),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    remove_tree(data);
    return failed;
}
