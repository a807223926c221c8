/* SPDX-License-Identifier: MIT */
/*
 * Going on from a version by a record in the log: the disks change over at once, takes that were
 * begun before are committed as what the disks were, and whatever happens in between, opening again
 * finds what was acknowledged. What the next version's changes count from follows every commit.
 */
#include "fixture.h"

static void go_on_from(struct hsk_doc *doc, const char *id)
{
    struct hsk_version *v;
    assert_ok((v = hsk_version_open(doc, id, &error)) != NULL);
    assert_ok(hsk_disks_switch(doc, v, &error));
    hsk_version_free(v);
}

static bool commit(struct hsk_doc *doc, struct hsk_take_point *p, enum hsk_version_kind kind,
                   char id[33], GError **error)
{
    struct hsk_take t = {.title = "t", .kind = kind};
    return hsk_version_commit(doc, p, &t, id, NULL, error);
}

static void assert_version_disk_page(struct hsk_doc *doc, const char *id, uint64_t number,
                                     unsigned seed)
{
    uint8_t want[HSK_PAGE_SIZE], got[HSK_PAGE_SIZE];
    struct hsk_version *v;
    fill_page(want, number, seed);
    assert_ok((v = hsk_version_open(doc, id, &error)) != NULL);
    assert_ok(hsk_version_read(v, "disk.root", number, 1, got, &error));
    assert_memory_equal(got, want, sizeof(want));
    hsk_version_free(v);
}

/* Page 5: 100 in `first`, 200 now. */
static struct hsk_doc *begin(const struct scratch *s, char first[33])
{
    assert_ok(make_document(s, NULL, &error));
    struct hsk_doc *doc = open_doc(s);
    assert_int_equal(write_disk_page(doc, 5, 100), 0);
    assert_ok(take(doc, "first", HSK_VERSION_USER, NULL, first, &error));
    assert_int_equal(write_disk_page(doc, 5, 200), 0);
    assert_int_equal(write_disk_page(doc, 6, 200), 0);
    return doc;
}

static struct hsk_doc *reopen(const struct scratch *s, struct hsk_doc *doc)
{
    char *orphan = NULL;
    hsk_doc_close(doc);
    assert_ok((doc = hsk_doc_open(s->doc, false, &orphan, &error)) != NULL);
    assert_null(orphan);
    return doc;
}

static void going_on_survives_without_any_commit(void **state)
{
    char first[33];
    struct hsk_doc *doc = begin(*state, first);
    struct hsk_take_point *p = hsk_take_begin(doc);
    go_on_from(doc, first);
    assert_disk_page(doc, 5, 100);
    assert_disk_page(doc, 6, 7);
    assert_false(hsk_doc_live_changed(doc));
    assert_int_equal(write_disk_page(doc, 6, 300), 0);
    assert_int_equal(hsk_disk_flush(hsk_doc_disk(doc, 0)), 0);
    hsk_take_abandon(p);
    for (unsigned i = 0; i < 3; i++) {
        doc = reopen(*state, doc);
        assert_string_equal(hsk_doc_current(doc), first);
        assert_true(hsk_doc_live_changed(doc));
        assert_disk_page(doc, 5, 100);
        assert_disk_page(doc, 6, 300);
    }
    assert_ok(hsk_doc_publish(doc, &error));
    doc = reopen(*state, doc);
    assert_disk_page(doc, 6, 300);
    hsk_doc_close(doc);
}

static void a_take_begun_before_is_committed_after(void **state)
{
    char first[33], second[33], parked[33], later[33];
    struct hsk_doc *doc = begin(*state, first);
    assert_ok(take(doc, "second", HSK_VERSION_USER, NULL, second, &error));
    assert_int_equal(write_disk_page(doc, 7, 200), 0);
    struct hsk_take_point *p = hsk_take_begin(doc);
    go_on_from(doc, first);
    assert_string_equal(hsk_doc_current(doc), first);
    assert_int_equal(write_disk_page(doc, 6, 300), 0);
    assert_ok(commit(doc, p, HSK_VERSION_BEFORE_REVERT, parked, &error));
    assert_string_equal(doc->root->current, first);
    assert_int_equal(doc->branches->len, 1);
    assert_version_disk_page(doc, parked, 5, 200);
    assert_version_disk_page(doc, parked, 6, 200);
    assert_version_disk_page(doc, parked, 7, 200);
    assert_string_equal(g_ptr_array_index(hsk_doc_find(doc, parked)->ancestors, 0), second);
    assert_disk_page(doc, 5, 100);
    assert_disk_page(doc, 6, 300);
    doc = reopen(*state, doc);
    assert_string_equal(hsk_doc_current(doc), first);
    assert_disk_page(doc, 5, 100);
    assert_disk_page(doc, 6, 300);
    assert_disk_page(doc, 7, 7);
    /* ROOT does not need the record in the log any more, so the version may go */
    assert_ok(hsk_doc_drop(doc, first, &error));
    doc = reopen(*state, doc);
    assert_disk_page(doc, 6, 300);
    assert_ok(take(doc, "later", HSK_VERSION_USER, NULL, later, &error));
    assert_version_disk_page(doc, later, 5, 100);
    assert_version_disk_page(doc, later, 6, 300);
    assert_version_disk_page(doc, parked, 7, 200);
    hsk_doc_close(doc);
}

static void back_and_forth_with_takes_under_way(void **state)
{
    char first[33], a[33], b[33], c[33];
    struct hsk_doc *doc = begin(*state, first);
    struct hsk_take_point *pa = hsk_take_begin(doc);
    assert_int_equal(write_disk_page(doc, 6, 201), 0);
    struct hsk_take_point *pb = hsk_take_begin(doc);
    assert_int_equal(write_disk_page(doc, 6, 202), 0);
    go_on_from(doc, first);
    assert_int_equal(write_disk_page(doc, 6, 301), 0);
    struct hsk_take_point *pc = hsk_take_begin(doc);
    assert_int_equal(write_disk_page(doc, 6, 302), 0);
    go_on_from(doc, first);
    assert_int_equal(write_disk_page(doc, 9, 400), 0);
    assert_int_equal(doc->branches->len, 3);
    assert_ok(commit(doc, pa, HSK_VERSION_AUTO, a, &error));
    assert_int_equal(doc->branches->len, 3);
    assert_ok(commit(doc, pb, HSK_VERSION_BEFORE_REVERT, b, &error));
    assert_int_equal(doc->branches->len, 2);
    /* the log still says to go on from it */
    assert_refused(hsk_doc_drop(doc, first, &error), "try again");
    assert_ok(commit(doc, pc, HSK_VERSION_BEFORE_REVERT, c, &error));
    assert_int_equal(doc->branches->len, 1);
    assert_version_disk_page(doc, a, 6, 200);
    assert_version_disk_page(doc, b, 6, 201);
    assert_version_disk_page(doc, c, 6, 301);
    doc = reopen(*state, doc);
    assert_disk_page(doc, 6, 7);
    assert_disk_page(doc, 9, 400);
    const char *ids[] = {first, a, c};
    assert_ok(hsk_doc_drop_many(doc, ids, 3, &error));
    assert_int_equal(doc->versions->len, 1);
    doc = reopen(*state, doc);
    assert_version_disk_page(doc, b, 6, 201);
    assert_disk_page(doc, 6, 7);
    assert_disk_page(doc, 5, 100);
    hsk_doc_close(doc);
}

static void a_later_commit_overtakes_takes_of_older_branches(void **state)
{
    char first[33], id[33];
    struct hsk_doc *doc = begin(*state, first);
    struct hsk_take_point *old = hsk_take_begin(doc);
    go_on_from(doc, first);
    assert_int_equal(write_disk_page(doc, 6, 300), 0);
    assert_ok(take(doc, "new", HSK_VERSION_USER, NULL, id, &error));
    assert_refused(commit(doc, old, HSK_VERSION_BEFORE_REVERT, NULL, &error), "later version");
    assert_int_equal(doc->branches->len, 1);
    doc = reopen(*state, doc);
    assert_version_disk_page(doc, id, 6, 300);
    assert_disk_page(doc, 5, 100);
    hsk_doc_close(doc);
}

static void a_log_that_goes_on_from_nowhere_ends_there(void **state)
{
    struct scratch *s = *state;
    char first[33];
    uint8_t id[HSK_LOG_ID_BYTES] = {0xab};
    uint32_t number;
    uint64_t seq;
    struct hsk_doc *doc = begin(s, first);
    assert_int_equal(hsk_log_go_on(doc->log, id, &number, &seq), 0);
    assert_int_equal(write_disk_page(doc, 6, 300), 0);
    hsk_doc_close(doc);
    g_autofree char *orphan = NULL;
    assert_ok((doc = hsk_doc_open(s->doc, false, &orphan, &error)) != NULL);
    assert_non_null(orphan);
    assert_non_null(strstr(orphan, "goes on from version ab00"));
    assert_disk_page(doc, 5, 200);
    assert_disk_page(doc, 6, 200);
    assert_int_equal(write_disk_page(doc, 6, 301), 0);
    doc = reopen(s, doc);
    assert_disk_page(doc, 6, 301);
    hsk_doc_close(doc);
}

/* ---- what changes count from ---- */

struct memory {
    uint8_t *ram;
    unsigned reads, cancel_at, asked;
};

static void read_page(void *opaque, uint64_t page, void *dst)
{
    struct memory *m = opaque;
    m->reads++;
    memcpy(dst, m->ram + page * HSK_PAGE_SIZE, HSK_PAGE_SIZE);
}

static bool is_cancelled(void *opaque)
{
    struct memory *m = opaque;
    return ++m->asked == m->cancel_at;
}

static bool take_dirty(struct hsk_doc *doc, enum hsk_version_kind kind, const uint8_t *dirty,
                       bool from_zeros, struct memory *m, char id[33], GError **error)
{
    struct hsk_version_object o = {.name = "ram",
                                   .size_bytes = RAM_BYTES,
                                   .dirty = dirty,
                                   .from_zeros = from_zeros,
                                   .read_page = read_page,
                                   .opaque = m};
    struct hsk_take t = {.title = "t",
                         .kind = kind,
                         .objects = &o,
                         .nobjects = 1,
                         .state = "device state",
                         .state_bytes = 12,
                         .cancelled = is_cancelled,
                         .opaque = m};
    return hsk_version_commit(doc, hsk_take_begin(doc), &t, id, NULL, error);
}

static void touch(struct memory *m, uint8_t *dirty, unsigned page, unsigned seed)
{
    fill_page(m->ram + (size_t)page * HSK_PAGE_SIZE, page * 4ull, seed);
    dirty[page / 8] |= (uint8_t)(1 << page % 8);
}

static void every_version_is_the_base_of_the_next(void **state)
{
    static const enum hsk_version_kind kinds[] = {HSK_VERSION_AUTO, HSK_VERSION_BEFORE_REVERT,
                                                  HSK_VERSION_USER, HSK_VERSION_AUTO};
    struct scratch *s = *state;
    char ids[5][33];
    uint8_t *frozen[5];
    g_autofree uint8_t *zeros = g_malloc0(RAM_BYTES);
    struct memory m = {.ram = zeros};
    uint8_t dirty[RAM_PAGES / 8] = {0};
    assert_ok(make_document(s, NULL, &error));
    struct hsk_doc *doc = open_doc(s);
    for (unsigned i = 0; i < RAM_PAGES; i += 3)
        touch(&m, dirty, i, 1);
    /* there is no version yet: only zeros can be the base */
    assert_refused(take_dirty(doc, HSK_VERSION_USER, dirty, false, &m, ids[0], &error),
                   "no version that the changes");
    m.reads = 0;
    assert_ok(take_dirty(doc, HSK_VERSION_USER, dirty, true, &m, ids[0], &error));
    assert_int_equal(m.reads, (RAM_PAGES + 2) / 3);
    frozen[0] = g_memdup2(m.ram, RAM_BYTES);
    for (unsigned i = 1; i < 5; i++) {
        memset(dirty, 0, sizeof(dirty));
        touch(&m, dirty, 7 * i, 10 + i);
        touch(&m, dirty, RAM_PAGES - 1, 20 + i);
        m.reads = 0;
        assert_ok(take_dirty(doc, kinds[i - 1], dirty, false, &m, ids[i], &error));
        assert_int_equal(m.reads, 2);
        frozen[i] = g_memdup2(m.ram, RAM_BYTES);
    }
    assert_string_equal(hsk_doc_current(doc), ids[3]);
    /* power-on again: zeros, whatever was there before */
    memset(m.ram, 0, RAM_BYTES);
    memset(dirty, 0, sizeof(dirty));
    touch(&m, dirty, 3, 99);
    char fresh[33];
    assert_ok(take_dirty(doc, HSK_VERSION_AUTO, dirty, true, &m, fresh, &error));
    assert_version_ram(doc, fresh, m.ram);
    for (unsigned i = 0; i < 5; i++)
        assert_version_ram(doc, ids[i], frozen[i]);
    /* what the timeline remembers stays out of the document, and resuming counts from current */
    assert_ok(hsk_doc_publish(doc, &error));
    doc = reopen(s, doc);
    assert_memory_equal(&hsk_root_present(doc->base_root, "ram")->root,
                        &hsk_objects_find(hsk_doc_find(doc, ids[3])->objects, "ram")->root,
                        sizeof(struct hsk_map_ref));
    memcpy(m.ram, frozen[3], RAM_BYTES);
    memset(dirty, 0, sizeof(dirty));
    touch(&m, dirty, 9, 77);
    assert_ok(take_dirty(doc, HSK_VERSION_AUTO, dirty, false, &m, fresh, &error));
    assert_version_ram(doc, fresh, m.ram);
    hsk_doc_close(doc);
    for (unsigned i = 0; i < 5; i++)
        g_free(frozen[i]);
}

static unsigned count_files(struct hsk_doc *doc)
{
    unsigned n = 0;
    for (const char *const *f = (const char *const[]){"data", "map", "versions", NULL}; *f; f++) {
        g_autofree char *path = g_build_filename(hsk_carrier_label(doc->dir), *f, NULL);
        g_autoptr(GDir) dir = g_dir_open(path, 0, NULL);
        while (g_dir_read_name(dir) != NULL)
            n++;
    }
    return n;
}

static void a_cancelled_take_changes_nothing(void **state)
{
    struct scratch *s = *state;
    char id[33];
    g_autofree uint8_t *ram = make_ram(1);
    struct memory m = {.ram = ram};
    uint8_t dirty[RAM_PAGES / 8];
    memset(dirty, 0xff, sizeof(dirty));
    assert_ok(make_document(s, NULL, &error));
    struct hsk_doc *doc = open_doc(s);
    assert_int_equal(write_disk_page(doc, 5, 100), 0);
    unsigned files = count_files(doc), at = 1;
    for (;; at += 50) {
        g_autoptr(GError) error = NULL;
        m.asked = 0;
        m.cancel_at = at;
        if (take_dirty(doc, HSK_VERSION_AUTO, dirty, true, &m, id, &error))
            break;
        assert_true(g_error_matches(error, HSK_ERROR, HSK_ERROR_CANCELLED));
        assert_int_equal(count_files(doc), files);
        assert_int_equal(doc->versions->len, 0);
        assert_disk_page(doc, 5, 100);
    }
    assert_true(at > RAM_PAGES);
    assert_version_ram(doc, id, ram);
    assert_version_disk_page(doc, id, 5, 100);
    hsk_doc_close(doc);
}

static void what_is_being_read_is_not_swept_away(void **state)
{
    struct scratch *s = *state;
    char a[33], b[33];
    g_autofree uint8_t *ram1 = make_ram(1);
    g_autofree uint8_t *ram2 = make_ram(2);
    g_autofree uint8_t *got = g_malloc0(RAM_BYTES);
    struct hsk_version *v;
    assert_ok(make_document(s, NULL, &error));
    struct hsk_doc *doc = open_doc(s);
    assert_ok(take(doc, "a", HSK_VERSION_AUTO, ram1, a, &error));
    assert_ok(take(doc, "b", HSK_VERSION_USER, ram2, b, &error));
    assert_ok((v = hsk_version_open(doc, a, &error)) != NULL);
    assert_ok(hsk_doc_drop(doc, a, &error));
    assert_refused(hsk_version_open(doc, a, &error), "no version");
    assert_refused(hsk_disks_switch(doc, v, &error), "no version");
    assert_ok(hsk_version_fill(v, "ram", got, RAM_BYTES, &error));
    assert_memory_equal(got, ram1, RAM_BYTES);
    g_autoptr(GBytes) device = hsk_version_state(v, NULL);
    assert_non_null(device);
    unsigned files = count_files(doc);
    hsk_version_free(v);
    assert_ok(hsk_doc_publish(doc, &error)); /* not what is only being read */
    assert_ok(hsk_doc_drop(doc, b, &error));
    assert_true(count_files(doc) < files);
    hsk_doc_close(doc);
}

static void names_and_pins_change_and_stay(void **state)
{
    struct scratch *s = *state;
    char id[33], other[33];
    g_autofree uint8_t *ram = make_ram(1);
    struct hsk_doc *doc = begin(s, other);
    assert_ok(take(doc, "old", HSK_VERSION_USER, ram, id, &error));
    assert_ok(hsk_doc_publish(doc, &error));
    assert_ok(hsk_doc_rename(doc, id, "new\nname", &error));
    assert_ok(hsk_doc_pin(doc, id, true, &error));
    assert_refused(hsk_doc_rename(doc, "nobody", "x", &error), "no version");
    for (unsigned i = 0; i < 3; i++) {
        const struct hsk_record *r = hsk_doc_find(doc, id);
        assert_non_null(r);
        assert_true(r->info.pinned);
        assert_true(g_str_has_prefix(r->info.title, "new"));
        assert_null(strchr(r->info.title, '\n'));
        assert_version_ram(doc, id, ram);
        if (i == 1)
            assert_ok(hsk_doc_publish(doc, &error));
        doc = reopen(s, doc);
    }
    assert_int_equal(doc->versions->len, 2);
    hsk_doc_close(doc);
    assert_ok(hsk_doc_verify(s->doc, NULL, NULL, &error));
    assert_ok((doc = hsk_doc_open(s->doc, true, NULL, &error)) != NULL);
    assert_true(hsk_doc_find(doc, id)->info.pinned);
    hsk_doc_close(doc);
}

int main(void)
{
    g_autofree char *data = scratch_data_home();
#define T(f) cmocka_unit_test_setup_teardown(f, scratch_setup, scratch_teardown)
    const struct CMUnitTest tests[] = {
        T(going_on_survives_without_any_commit),
        T(a_take_begun_before_is_committed_after),
        T(back_and_forth_with_takes_under_way),
        T(a_later_commit_overtakes_takes_of_older_branches),
        T(a_log_that_goes_on_from_nowhere_ends_there),
        T(every_version_is_the_base_of_the_next),
        T(a_cancelled_take_changes_nothing),
        T(what_is_being_read_is_not_swept_away),
        T(names_and_pins_change_and_stay),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    remove_tree(data);
    return failed;
}
