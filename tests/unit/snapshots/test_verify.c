/* SPDX-License-Identifier: MIT */
/*
 * Damage is charged to the versions that it affects, and only to them; the others are still read
 * back, the damaged ones can be dropped.
 */
#include <snapshots/verify.h>

#include "fixture.h"

enum { VERSIONS = 3 };

struct history {
    char ids[VERSIONS][33];
};

/* Three versions with nothing in common, each published. */
static void make_history(const struct scratch *s, struct history *h)
{
    assert_ok(make_document(s, NULL, &error));
    struct hsk_doc *doc = open_doc(s);
    for (unsigned i = 0; i < VERSIONS; i++) {
        g_autofree uint8_t *ram = make_ram(10 + i);
        g_autofree char *title = g_strdup_printf("number %u", i);
        assert_ok(take(doc, title, HSK_VERSION_USER, ram, h->ids[i], &error));
        assert_ok(hsk_doc_publish(doc, &error));
    }
    hsk_doc_close(doc);
}

/* Where member name is in the file. */
static struct hsk_member find(const struct scratch *s, const char *name)
{
    struct hsk_member m = {.fd = -1};
    struct hsk_doc *doc;
    assert_ok((doc = hsk_doc_open(s->doc, true, NULL, &error)) != NULL);
    assert_ok(hsk_carrier_member(doc->base, name, &m, &error));
    hsk_doc_close(doc);
    return m;
}

static void flip(const struct scratch *s, uint64_t at)
{
    uint8_t byte;
    HSK_AUTOFD fd = open(s->doc, O_RDWR | O_CLOEXEC);
    assert_int_equal(hsk_pread_all(fd, &byte, 1, at), 0);
    byte ^= 0x40;
    assert_int_equal(hsk_pwrite_all(fd, &byte, 1, at), 0);
}

static struct hsk_check_result *check(const struct scratch *s)
{
    struct hsk_check_result *r;
    assert_ok((r = hsk_doc_check(s->doc, NULL, NULL, &error)) != NULL);
    assert_int_equal(r->versions->len, VERSIONS);
    return r;
}

static bool is_damaged(const struct hsk_check_result *r, const char *id)
{
    for (guint i = 0; i < r->versions->len; i++) {
        const struct hsk_checked_version *v =
            &g_array_index(r->versions, struct hsk_checked_version, i);
        if (strcmp(v->id, id) == 0)
            return v->problem != NULL;
    }
    fail_msg("version %s is missing", id);
    return false;
}

static gint by_name(gconstpointer a, gconstpointer b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Only these versions are damaged (a bit each). */
static void expect_damaged(const struct scratch *s, const struct history *h, unsigned damaged)
{
    HSK_AUTO(hsk_check_result, r) = check(s);
    assert_false(r->whole);
    for (unsigned i = 0; i < VERSIONS; i++) {
        if (is_damaged(r, h->ids[i]) != (damaged >> i & 1))
            fail_msg("version %u is not what it should be", i);
    }
}

static void others_are_still_there(const struct scratch *s, const struct history *h,
                                   unsigned damaged)
{
    struct hsk_doc *doc = open_doc(s);
    for (unsigned i = 0; i < VERSIONS; i++) {
        g_autofree uint8_t *ram = make_ram(10 + i), *got = g_malloc0(RAM_BYTES);
        g_autoptr(GError) e = NULL;
        struct hsk_version *v = hsk_version_open(doc, h->ids[i], &e);
        if (!(damaged >> i & 1))
            assert_version_ram(doc, h->ids[i], ram);
        else if (v != NULL && hsk_version_fill(v, "ram", got, RAM_BYTES, &e))
            fail_msg("version %u was read", i);
        hsk_version_free(v);
    }
    for (unsigned i = 0; i < VERSIONS; i++) {
        if (damaged >> i & 1)
            assert_ok(hsk_doc_drop(doc, h->ids[i], &error));
    }
    assert_ok(hsk_doc_publish(doc, &error));
    hsk_doc_close(doc);
    HSK_AUTO(hsk_check_result, r) = hsk_doc_check(s->doc, NULL, NULL, NULL);
    for (guint i = 0; i < r->versions->len; i++)
        assert_null(g_array_index(r->versions, struct hsk_checked_version, i).problem);
    assert_null(r->present);
}

/* The members that version i added, of a folder. */
static char *member_of(const struct scratch *s, const char *folder, unsigned i)
{
    struct hsk_doc *doc;
    char *name = NULL;
    assert_ok((doc = hsk_doc_open(s->doc, true, NULL, &error)) != NULL);
    g_autoptr(GPtrArray) names = g_ptr_array_new();
    for (guint k = 0; k < doc->root->entries->len; k++) {
        const struct hsk_root_entry *e = g_ptr_array_index(doc->root->entries, k);
        if (g_str_has_prefix(e->name, folder))
            g_ptr_array_add(names, e->name);
    }
    g_ptr_array_sort(names, by_name);
    assert_true(names->len >= VERSIONS);
    name = g_strdup(g_ptr_array_index(names, names->len - VERSIONS + i));
    hsk_doc_close(doc);
    return name;
}

static void a_whole_document_is_whole(void **state)
{
    struct scratch *s = *state;
    struct history h;
    make_history(s, &h);
    HSK_AUTO(hsk_check_result, r) = check(s);
    assert_true(r->whole);
    assert_true(r->frames > 3 && r->nodes > 3 && r->members > 8 && r->bytes > 10000);
}

static void damaged_frames_affect_their_version(void **state)
{
    struct scratch *s = *state;
    struct history h;
    make_history(s, &h);
    g_autofree char *name = member_of(s, "data/", 0);
    struct hsk_member m = find(s, name);
    flip(s, m.base + 100);
    expect_damaged(s, &h, 1);
    others_are_still_there(s, &h, 1);
}

static void a_damaged_frame_table_affects_its_version(void **state)
{
    struct scratch *s = *state;
    struct history h;
    make_history(s, &h);
    g_autofree char *name = member_of(s, "data/", 1);
    struct hsk_member m = find(s, name);
    flip(s, m.base + m.size - 200); /* before the seek table */
    expect_damaged(s, &h, 2);
    others_are_still_there(s, &h, 2);
}

static void damaged_maps_affect_their_version(void **state)
{
    struct scratch *s = *state;
    struct history h;
    make_history(s, &h);
    g_autofree char *name = member_of(s, "map/", 1);
    struct hsk_member m = find(s, name);
    flip(s, m.base + 8);
    expect_damaged(s, &h, 2);
    others_are_still_there(s, &h, 2);
}

static void a_damaged_record_is_one_version(void **state)
{
    struct scratch *s = *state;
    struct history h;
    make_history(s, &h);
    g_autofree char *name = hsk_record_member(h.ids[1], 0);
    struct hsk_member m = find(s, name);
    flip(s, m.base + 20);
    expect_damaged(s, &h, 2);
    struct hsk_doc *doc = open_doc(s);
    assert_refused(hsk_version_open(doc, h.ids[1], &error), "not the one that was written");
    hsk_doc_close(doc);
    others_are_still_there(s, &h, 2);
}

static bool stop_soon(void *opaque, double fraction)
{
    assert_true(fraction >= 0 && fraction <= 1);
    return --*(int *)opaque > 0;
}

static void it_stops_when_told(void **state)
{
    struct scratch *s = *state;
    struct history h;
    int left = 3;
    make_history(s, &h);
    assert_refused(hsk_doc_check(s->doc, stop_soon, &left, &error), "was stopped");
    left = 1000000;
    assert_ok(hsk_doc_verify(s->doc, stop_soon, &left, &error));
    assert_true(left < 999990);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, scratch_setup, scratch_teardown)
    g_autofree char *data = scratch_data_home();
    const struct CMUnitTest tests[] = {
        T(a_whole_document_is_whole),
        T(damaged_frames_affect_their_version),
        T(a_damaged_frame_table_affects_its_version),
        T(damaged_maps_affect_their_version),
        T(a_damaged_record_is_one_version),
        T(it_stops_when_told),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    remove_tree(data);
    return failed;
}
