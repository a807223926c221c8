/* SPDX-License-Identifier: MIT */
/*
 * The power fails at every sync, and only what was synced is there afterwards: a file has the
 * content of its last sync, a folder the names of its last sync. Nothing that was promised before
 * may be missing.
 */
#include "story.h"

/* What is on the disk for sure. */
struct shadow {
    GHashTable *files;   /* inode -> GBytes */
    GHashTable *folders; /* path -> GHashTable: name -> inode, 0 for a folder */
    unsigned syncs, cut_after;
    bool cut;
};

static uint64_t *number(uint64_t n)
{
    return g_memdup2(&n, sizeof(n));
}

static void record_file(struct shadow *s, const char *path)
{
    struct stat st;
    char *data;
    gsize bytes;
    assert_int_equal(stat(path, &st), 0);
    assert_true(g_file_get_contents(path, &data, &bytes, NULL));
    g_hash_table_replace(s->files, number(st.st_ino), g_bytes_new_take(data, bytes));
}

static void record_folder(struct shadow *s, const char *path)
{
    GHashTable *names = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
    g_autoptr(GDir) dir = g_dir_open(path, 0, NULL);
    const char *name;
    while (dir != NULL && (name = g_dir_read_name(dir)) != NULL) {
        g_autofree char *child = g_build_filename(path, name, NULL);
        struct stat st;
        assert_int_equal(stat(child, &st), 0);
        g_hash_table_insert(names, g_strdup(name), number(S_ISDIR(st.st_mode) ? 0 : st.st_ino));
    }
    g_hash_table_replace(s->folders, g_strdup(path), names);
}

/* What was there before the story is on the disk. */
static void record_tree(struct shadow *s, const char *path)
{
    g_autoptr(GDir) dir = g_dir_open(path, 0, NULL);
    const char *name;
    record_folder(s, path);
    while (dir != NULL && (name = g_dir_read_name(dir)) != NULL) {
        g_autofree char *child = g_build_filename(path, name, NULL);
        if (g_file_test(child, G_FILE_TEST_IS_DIR))
            record_tree(s, child);
        else
            record_file(s, child);
    }
}

static int on_operation(void *opaque, enum hsk_io_op op, int fd)
{
    struct shadow *s = opaque;
    if (op != HSK_IO_SYNC)
        return 0;
    s->cut = s->syncs++ >= s->cut_after;
    if (s->cut)
        return 0;
    g_autofree char *link = g_strdup_printf("/proc/self/fd/%d", fd);
    g_autofree char *path = g_file_read_link(link, NULL);
    if (g_file_test(path, G_FILE_TEST_IS_DIR))
        record_folder(s, path);
    else
        record_file(s, path);
    return 0;
}

/* Puts the folder into the state that a computer would find after the cut. */
static void restore(const struct shadow *s, const char *path)
{
    GHashTable *names = g_hash_table_lookup(s->folders, path);
    GHashTableIter it;
    gpointer name, inode;
    assert_int_equal(g_mkdir_with_parents(path, 0700), 0);
    if (names == NULL)
        return;
    g_hash_table_iter_init(&it, names);
    while (g_hash_table_iter_next(&it, &name, &inode)) {
        g_autofree char *child = g_build_filename(path, name, NULL);
        GBytes *bytes = g_hash_table_lookup(s->files, inode);
        if (*(uint64_t *)inode == 0)
            restore(s, child);
        else
            close(make_file(child, bytes == NULL ? "" : g_bytes_get_data(bytes, NULL),
                            bytes == NULL ? 0 : g_bytes_get_size(bytes)));
    }
}

/* Runs the story with the cut; returns the number of syncs of the whole story. */
static unsigned run(const struct scratch *s, unsigned cut_after)
{
    g_autoptr(GHashTable) files =
        g_hash_table_new_full(g_int64_hash, g_int64_equal, g_free, (GDestroyNotify)g_bytes_unref);
    g_autoptr(GHashTable) folders =
        g_hash_table_new_full(g_str_hash, g_str_equal, g_free, (GDestroyNotify)g_hash_table_unref);
    struct shadow shadow = {
        .files = files, .folders = folders, .cut_after = cut_after, .cut = cut_after == 0};
    struct hsk_io io = {on_operation, &shadow};
    struct achieved a = {.flushed_seed = 7, .cut = &shadow.cut};
    g_autofree char *data = hsk_data_folder();
    fresh_document(s);
    record_tree(&shadow, s->dir);
    record_tree(&shadow, data);
    story(s, &io, &a);
    remove_tree(data);
    remove_tree(s->dir);
    restore(&shadow, s->dir);
    restore(&shadow, data);
    assert_nothing_lost(s, &a);
    return shadow.syncs;
}

static void nothing_promised_is_missing_after_a_power_cut_at_any_sync(void **state)
{
    unsigned all = run(*state, UINT_MAX);
    assert_true(all > 40);
    for (unsigned n = 0; n < all; n++)
        run(*state, n);
}

int main(void)
{
    g_autofree char *data = scratch_data_home();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(nothing_promised_is_missing_after_a_power_cut_at_any_sync,
                                        scratch_setup, scratch_teardown),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    remove_tree(data);
    return failed;
}
