/* SPDX-License-Identifier: MIT */
/*
 * Compacting: whatever moves, every version and the disks are what they were, what is being read
 * can still be read, and what is dead is gone.
 */
#include <errno.h>
#include <sys/stat.h>

#define RAM_PAGES 128u
#include "fixture.h"

enum { CHECKPOINTS = 300 };

/* What the test knows: seeds of pages of each version. */
struct story {
    struct hsk_doc *doc;
    char ids[CHECKPOINTS + 4][33];
    uint8_t ram[CHECKPOINTS + 4][RAM_PAGES], disk[CHECKPOINTS + 4][8];
    bool dropped[CHECKPOINTS + 4];
    unsigned n;
};

static void page_of(uint8_t *page, unsigned i, unsigned seed)
{
    if (seed == 0)
        memset(page, 0, HSK_PAGE_SIZE);
    else
        fill_page(page, i * 4ull, seed);
}

static void read_page(void *opaque, uint64_t page, void *dst)
{
    page_of(dst, (unsigned)page, ((uint8_t *)opaque)[page]);
}

/* One more version, in which some pages of memory and one of the disk have changed. */
static bool live_on(struct story *t, enum hsk_version_kind kind, GError **error)
{
    unsigned n = t->n;
    uint8_t dirty[RAM_PAGES / 8] = {0};
    if (n > 0) {
        memcpy(t->ram[n], t->ram[n - 1], RAM_PAGES);
        memcpy(t->disk[n], t->disk[n - 1], sizeof(t->disk[n]));
    }
    for (unsigned i = 0; i < 5; i++) {
        unsigned page = (n * 7 + i * i * 3) % RAM_PAGES;
        t->ram[n][page] = (uint8_t)(1 + n % 200);
        dirty[page / 8] |= (uint8_t)(1 << page % 8);
    }
    uint8_t page[HSK_PAGE_SIZE], device[64] = "device state";
    t->disk[n][n % 8] = (uint8_t)(1 + n % 250);
    page_of(page, n % 8, t->disk[n][n % 8]);
    assert_int_equal(
        hsk_disk_write(hsk_doc_disk(t->doc, 0), (500 + n % 8) * HSK_PAGE_SIZE, page, sizeof(page)),
        0);
    struct hsk_version_object o = {.name = "ram",
                                   .size_bytes = RAM_BYTES,
                                   .dirty = dirty,
                                   .from_zeros = n == 0,
                                   .read_page = read_page,
                                   .opaque = t->ram[n]};
    struct hsk_take take = {.title = "t",
                            .kind = kind,
                            .objects = &o,
                            .nobjects = 1,
                            .state = device,
                            .state_bytes = 12};
    if (!hsk_version_commit(t->doc, hsk_take_begin(t->doc), &take, t->ids[n], NULL, error))
        return false;
    t->n++;
    return true;
}

static void check_version(struct story *t, struct hsk_version *v, unsigned n)
{
    uint8_t page[HSK_PAGE_SIZE];
    g_autofree uint8_t *got = g_malloc0(RAM_BYTES);
    assert_ok(hsk_version_fill(v, "ram", got, RAM_BYTES, &error));
    for (unsigned i = 0; i < RAM_PAGES; i++) {
        page_of(page, i, t->ram[n][i]);
        assert_memory_equal(got + (size_t)i * HSK_PAGE_SIZE, page, HSK_PAGE_SIZE);
    }
    assert_ok(hsk_version_read(v, "disk.root", 500, 8, got, &error));
    for (unsigned i = 0; i < 8; i++) {
        page_of(page, i, t->disk[n][i]);
        assert_memory_equal(got + (size_t)i * HSK_PAGE_SIZE, page, HSK_PAGE_SIZE);
    }
    g_autoptr(GBytes) state = hsk_version_state(v, NULL);
    assert_non_null(state);
    assert_memory_equal(g_bytes_get_data(state, NULL), "device state", 12);
}

static void check_all(struct story *t)
{
    for (unsigned n = 0; n < t->n; n++) {
        struct hsk_version *v = hsk_version_open(t->doc, t->ids[n], NULL);
        assert_int_equal(v == NULL, t->dropped[n]);
        if (v != NULL)
            check_version(t, v, n);
        hsk_version_free(v);
    }
    uint8_t got[HSK_PAGE_SIZE], page[HSK_PAGE_SIZE];
    for (unsigned i = 0; i < 8; i++) {
        assert_int_equal(
            hsk_disk_read(hsk_doc_disk(t->doc, 0), (500 + i) * HSK_PAGE_SIZE, got, sizeof(got)), 0);
        page_of(page, i, t->disk[t->n - 1][i]);
        assert_memory_equal(got, page, sizeof(page));
    }
    assert_disk_page(t->doc, 5, 7);
}

static unsigned count(const struct hsk_doc *doc, const char *folder)
{
    unsigned n = 0;
    for (guint i = 0; i < doc->root->entries->len; i++) {
        const struct hsk_root_entry *e = g_ptr_array_index(doc->root->entries, i);
        n += g_str_has_prefix(e->name, folder);
    }
    return n;
}

static unsigned files(const struct hsk_doc *doc, const char *folder)
{
    g_autofree char *path = g_build_filename(hsk_carrier_label(doc->dir), folder, NULL);
    g_autoptr(GDir) dir = g_dir_open(path, 0, NULL);
    unsigned n = 0;
    while (g_dir_read_name(dir) != NULL)
        n++;
    return n;
}

/* A document with many checkpoints, one of them published as a snapshot, some of them dropped. */
static struct story *begin(const struct scratch *s)
{
    struct story *t = g_new0(struct story, 1);
    assert_ok(make_document(s, NULL, &error));
    t->doc = open_doc(s);
    for (unsigned i = 0; i < CHECKPOINTS; i++) {
        assert_ok(live_on(t, i % 100 == 50 ? HSK_VERSION_USER : HSK_VERSION_AUTO, &error));
        if (i == 150)
            assert_ok(hsk_doc_publish(t->doc, &error));
    }
    return t;
}

static void drop_most(struct story *t)
{
    const char *ids[CHECKPOINTS];
    unsigned n = 0;
    for (unsigned i = 0; i < t->n; i++) {
        t->dropped[i] = i % 100 != 50 && i % 7 != 0;
        if (t->dropped[i])
            ids[n++] = t->ids[i];
    }
    assert_ok(hsk_doc_drop_many(t->doc, ids, n, &error));
}

static void end(struct story *t)
{
    hsk_doc_close(t->doc);
    g_free(t);
}

static void compacting_moves_much_and_changes_nothing(void **state)
{
    struct scratch *s = *state;
    struct story *t = begin(s);
    unsigned before = count(t->doc, "data/");
    assert_true(before >= CHECKPOINTS);
    struct hsk_version *reading;
    assert_ok((reading = hsk_version_open(t->doc, t->ids[77], &error)) != NULL);
    assert_ok(hsk_doc_compact_instance(t->doc, false, NULL, NULL, &error));
    assert_true(count(t->doc, "data/") < before / 2); /* what is published stays as it is */
    check_version(t, reading, 77);
    hsk_version_free(reading);
    check_all(t);
    drop_most(t);
    assert_int_equal(files(t->doc, "versions") + 2, count(t->doc, "versions/"));
    check_all(t);
    assert_ok(live_on(t, HSK_VERSION_AUTO, &error));
    check_all(t);
    hsk_doc_close(t->doc);
    t->doc = open_doc(s);
    check_all(t);
    /* the second time there is nothing to do */
    uint32_t next = t->doc->root->next_number;
    assert_ok(hsk_doc_compact_instance(t->doc, false, NULL, NULL, &error));
    assert_int_equal(t->doc->root->next_number, next);
    assert_ok(hsk_doc_publish(t->doc, &error));
    check_all(t);
    end(t);
    assert_ok(hsk_doc_verify(s->doc, NULL, NULL, &error));
}

static uint64_t stored_bytes(const struct hsk_doc *doc)
{
    static const char *const folders[] = {"data", "map"};
    uint64_t sum = 0;
    for (size_t i = 0; i < G_N_ELEMENTS(folders); i++) {
        g_autofree char *path = g_build_filename(hsk_carrier_label(doc->dir), folders[i], NULL);
        g_autoptr(GDir) dir = g_dir_open(path, 0, NULL);
        const char *name;
        struct stat st;
        while ((name = g_dir_read_name(dir)) != NULL) {
            g_autofree char *file = g_build_filename(path, name, NULL);
            assert_int_equal(stat(file, &st), 0);
            sum += (uint64_t)st.st_size;
        }
    }
    return sum;
}

/* Who needs the room gets it, though there are few members and little is dead. */
static void a_thorough_one_gives_room_back(void **state)
{
    struct scratch *s = *state;
    struct story *t = begin(s);
    t->doc->many_members = 100000;
    drop_most(t);
    const uint64_t before = stored_bytes(t->doc);
    uint32_t next = t->doc->root->next_number;
    assert_ok(hsk_doc_compact_instance(t->doc, false, NULL, NULL, &error));
    assert_int_equal(t->doc->root->next_number, next);
    assert_int_equal(stored_bytes(t->doc), before);
    assert_ok(hsk_doc_compact_instance(t->doc, true, NULL, NULL, &error));
    const uint64_t after = stored_bytes(t->doc);
    assert_true(after < before);
    check_all(t);
    /* what is not a quarter dead stays where it is */
    unsigned segments = count(t->doc, "data/");
    assert_ok(hsk_doc_compact_instance(t->doc, true, NULL, NULL, &error));
    assert_int_equal(count(t->doc, "data/"), segments);
    assert_int_equal(stored_bytes(t->doc), after);
    hsk_doc_close(t->doc);
    t->doc = open_doc(s);
    check_all(t);
    end(t);
    assert_ok(hsk_doc_verify(s->doc, NULL, NULL, &error));
}

/* The disks go on from a version while its maps move; a take that was begun before is committed. */
static void branches_move_along(void **state)
{
    struct scratch *s = *state;
    struct story *t = begin(s);
    struct hsk_take take = {.title = "parked", .kind = HSK_VERSION_BEFORE_REVERT};
    struct hsk_version *v;
    char id[33];
    struct hsk_take_point *p = hsk_take_begin(t->doc);
    assert_ok((v = hsk_version_open(t->doc, t->ids[20], &error)) != NULL);
    assert_ok(hsk_disks_switch(t->doc, v, &error));
    hsk_version_free(v);
    assert_ok(hsk_doc_compact_instance(t->doc, false, NULL, NULL, &error));
    memcpy(t->disk[t->n], t->disk[20], 8);
    memcpy(t->ram[t->n], t->ram[20], RAM_PAGES);
    t->dropped[t->n++] = true;
    check_all(t);
    assert_ok(hsk_version_commit(t->doc, p, &take, id, NULL, &error));
    assert_ok(live_on(t, HSK_VERSION_AUTO, &error));
    check_all(t);
    hsk_doc_close(t->doc);
    t->doc = open_doc(s);
    check_all(t);
    end(t);
}

static bool count_down(void *opaque)
{
    unsigned *left = opaque;
    return --*left == 0;
}

static void cancelling_leaves_everything(void **state)
{
    struct scratch *s = *state;
    struct story *t = begin(s);
    for (unsigned at = 1;; at += 311) {
        g_autoptr(GError) error = NULL;
        unsigned left = at, data = files(t->doc, "data"), maps = files(t->doc, "map");
        if (hsk_doc_compact_instance(t->doc, false, count_down, &left, &error))
            break;
        assert_true(g_error_matches(error, HSK_ERROR, HSK_ERROR_CANCELLED));
        assert_int_equal(files(t->doc, "data"), data);
        assert_int_equal(files(t->doc, "map"), maps);
    }
    check_all(t);
    end(t);
}

static int fail_at(void *opaque, enum hsk_io_op op, int fd)
{
    unsigned *left = opaque;
    return *left > 0 && --*left == 0 ? ENOSPC : 0;
}

static void a_full_disk_leaves_everything(void **state)
{
    struct scratch *s = *state;
    struct story *t = begin(s);
    unsigned left = 0;
    struct hsk_io io = {fail_at, &left};
    t->doc->io = &io;
    for (unsigned at = 1;; at = at < 10 ? at + 1 : at * 2) {
        g_autoptr(GError) e = NULL;
        left = at;
        if (hsk_doc_compact_instance(t->doc, false, NULL, NULL, &e) && left > 0)
            break;
        assert_true(e == NULL || g_error_matches(e, HSK_ERROR, HSK_ERROR_NO_SPACE));
        left = 0;
        assert_ok(live_on(t, HSK_VERSION_AUTO, &error));
        if (t->n == CHECKPOINTS + 2)
            break;
    }
    left = 0;
    check_all(t);
    hsk_doc_close(t->doc);
    t->doc = open_doc(s);
    check_all(t);
    end(t);
}

/* Every step fails once: then it is in one of the two places, whole, and goes on there. */
static void a_document_goes_on_elsewhere(void **state)
{
    struct scratch *s = *state;
    struct story *t = begin(s);
    unsigned left = 0;
    struct hsk_io io = {fail_at, &left};
    bool moved = false;
    assert_ok(hsk_doc_publish(t->doc, &error));
    assert_ok(live_on(t, HSK_VERSION_USER, &error));
    assert_int_equal(unlink(s->doc), 0);
    assert_true(hsk_doc_is_gone(t->doc));
    assert_refused(hsk_doc_publish(t->doc, &error), "deleted or replaced");
    t->doc->io = &io;
    for (unsigned at = 1; !moved; at++) {
        g_autoptr(GError) e = NULL;
        g_autofree char *out = g_strdup_printf("%s/out%u.hva", s->dir, at);
        g_autofree char *tmp = g_strconcat(out, HSK_UNFINISHED, NULL);
        left = at;
        HSK_AUTO(hsk_move, m) = hsk_move_begin(t->doc, out, &e);
        moved = m != NULL && hsk_move_copy(m, NULL, NULL, &e) && hsk_move_finish(m, &e);
        assert_true(moved || g_error_matches(e, HSK_ERROR, HSK_ERROR_NO_SPACE));
        left = 0;
        hsk_move_free(g_steal_pointer(&m));
        assert_false(g_file_test(tmp, G_FILE_TEST_EXISTS));
        bool there = strcmp(hsk_doc_path(t->doc), out) == 0;
        assert_true(there || !moved);
        assert_int_equal(hsk_doc_is_gone(t->doc), !there);
        moved |= there;
        check_all(t);
    }
    t->doc->io = NULL;
    assert_ok(live_on(t, HSK_VERSION_USER, &error));
    assert_ok(hsk_doc_publish(t->doc, &error));
    check_all(t);
    g_autofree char *path = g_strdup(hsk_doc_path(t->doc));
    hsk_doc_close(t->doc);
    assert_ok(hsk_doc_verify(path, NULL, NULL, &error));
    char *orphan = NULL;
    assert_ok((t->doc = hsk_doc_open(path, false, &orphan, &error)) != NULL);
    assert_null(orphan);
    check_all(t);
    end(t);
}

static bool not_now(void *opaque, double fraction)
{
    return false;
}

/* What is appended while it is copied comes along, in as many pieces as it likes. */
static void a_document_grows_while_it_is_copied(void **state)
{
    struct scratch *s = *state;
    struct story *t = begin(s);
    g_autofree char *out = g_build_filename(s->dir, "out.hva", NULL);
    g_autofree char *tmp = g_strconcat(out, HSK_UNFINISHED, NULL);
    assert_ok(hsk_doc_publish(t->doc, &error));
    HSK_AUTO(hsk_move, m) = hsk_move_begin(t->doc, out, NULL);
    assert_refused(hsk_move_copy(m, not_now, NULL, &error), "stopped");
    hsk_move_free(g_steal_pointer(&m));
    assert_false(g_file_test(tmp, G_FILE_TEST_EXISTS));
    assert_ok((m = hsk_move_begin(t->doc, out, &error)) != NULL);
    for (unsigned i = 0; i < 2; i++) {
        assert_ok(live_on(t, HSK_VERSION_USER, &error));
        assert_ok(hsk_doc_publish(t->doc, &error));
        if (i == 0)
            assert_ok(hsk_move_copy(m, NULL, NULL, &error));
    }
    assert_ok(hsk_move_finish(m, &error));
    hsk_move_free(g_steal_pointer(&m));
    assert_string_equal(hsk_doc_path(t->doc), out);
    assert_ok(live_on(t, HSK_VERSION_USER, &error));
    assert_ok(hsk_doc_publish(t->doc, &error));
    check_all(t);
    assert_ok(hsk_doc_verify(s->doc, NULL, NULL, &error));
    hsk_doc_close(t->doc);
    assert_ok(hsk_doc_verify(out, NULL, NULL, &error));
    assert_ok((t->doc = hsk_doc_open(out, false, NULL, &error)) != NULL);
    check_all(t);
    end(t);
}

static void sizes_tell_what_dropping_frees(void **state)
{
    struct scratch *s = *state;
    char ids[3][33];
    g_autofree uint8_t *a = make_ram(1), *b = make_ram(1);
    assert_ok(make_document(s, NULL, &error));
    struct hsk_doc *doc = open_doc(s);
    /* b differs in half of its pages; the third version is the second again */
    for (unsigned i = 0; i < RAM_PAGES / 2; i++)
        fill_page(b + (size_t)i * HSK_PAGE_SIZE, i, 99);
    assert_ok(take(doc, "a", HSK_VERSION_USER, a, ids[0], &error));
    assert_ok(take(doc, "b", HSK_VERSION_USER, b, ids[1], &error));
    assert_ok(take(doc, "c", HSK_VERSION_USER, b, ids[2], &error));
    struct hsk_version_info *list = hsk_doc_versions(doc, NULL);
    assert_ok(hsk_doc_sizes(doc, list, NULL, NULL, &error));
    const struct hsk_version_info *v[] = {list, list->next, list->next->next};
    uint64_t half = RAM_BYTES / 2 / 2 * 3 / 4; /* half of the bytes are random, a quarter zeros */
    assert_in_range(v[0]->own_bytes, half, half * 5 / 4);
    assert_in_range(v[0]->shared_bytes, half, half * 8);
    assert_in_range(v[1]->own_bytes, 0, 1000);
    assert_in_range(v[2]->own_bytes, 0, 1000);
    assert_in_range(v[1]->shared_bytes, half * 2, half * 8);
    hsk_version_info_free(list);
    assert_ok(hsk_doc_drop(doc, ids[1], &error));
    assert_ok(hsk_doc_drop(doc, ids[2], &error));
    list = hsk_doc_versions(doc, NULL);
    assert_ok(hsk_doc_sizes(doc, list, NULL, NULL, &error));
    assert_null(list->next);
    assert_in_range(list->own_bytes, half, half * 5 / 4); /* the present still shares the rest */
    hsk_version_info_free(list);
    hsk_doc_close(doc);
}

static off_t size_of(const char *path)
{
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    return st.st_size;
}

static bool stop_at_once(void *opaque, double fraction)
{
    return false;
}

static void a_compacted_document_has_only_what_is_needed(void **state)
{
    struct scratch *s = *state;
    struct story *t = begin(s);
    drop_most(t);
    assert_ok(live_on(t, HSK_VERSION_USER, &error));
    hsk_doc_close(t->doc);
    assert_refused(hsk_doc_compact(s->doc, stop_at_once, NULL, &error), "stopped");
    g_autofree char *tmp = g_strconcat(s->doc, HSK_UNFINISHED, NULL);
    assert_false(g_file_test(tmp, G_FILE_TEST_EXISTS));
    off_t before = size_of(s->doc);
    assert_ok(hsk_doc_compact(s->doc, NULL, NULL, &error));
    assert_false(g_file_test(tmp, G_FILE_TEST_EXISTS));
    assert_true(size_of(s->doc) < before);
    assert_ok(hsk_doc_verify(s->doc, NULL, NULL, &error));
    for (unsigned i = 0; i < 2; i++) {
        char *orphan = NULL;
        assert_ok((t->doc = hsk_doc_open(s->doc, false, &orphan, &error)) != NULL);
        assert_null(orphan);
        check_all(t);
        assert_ok(live_on(t, HSK_VERSION_USER, &error));
        assert_ok(hsk_doc_publish(t->doc, &error));
        check_all(t);
        hsk_doc_close(t->doc);
        if (i == 0)
            assert_ok(hsk_doc_compact(s->doc, NULL, NULL, &error));
    }
    assert_ok(hsk_doc_verify(s->doc, NULL, NULL, &error));
    g_free(t);
}

static void a_clone_is_a_machine_of_its_own(void **state)
{
    struct scratch *s = *state;
    struct story *t = begin(s);
    hsk_doc_close(t->doc);
    g_autofree char *out = g_build_filename(s->dir, "clone.hva", NULL);
    assert_ok(hsk_doc_clone(s->doc, t->ids[50], out, NULL, NULL, &error));
    assert_refused(hsk_doc_clone(s->doc, t->ids[50], out, NULL, NULL, &error), "exists already");
    assert_ok(hsk_doc_verify(out, NULL, NULL, &error));
    assert_ok((t->doc = hsk_doc_open(out, false, NULL, &error)) != NULL);
    assert_int_equal(t->doc->versions->len, 1);
    assert_string_equal(hsk_doc_saved(t->doc), t->ids[50]);
    assert_string_equal(hsk_doc_current(t->doc), t->ids[50]);
    assert_false(hsk_doc_live_changed(t->doc));
    struct hsk_version *v;
    assert_ok((v = hsk_version_open(t->doc, t->ids[50], &error)) != NULL);
    check_version(t, v, 50);
    hsk_version_free(v);
    struct hsk_doc *first = open_doc(s);
    assert_string_not_equal(hsk_doc_manifest(first)->uuid, hsk_doc_manifest(t->doc)->uuid);
    hsk_doc_close(first);
    hsk_doc_close(t->doc);
    /* the disks of now, without any version */
    g_autofree char *other = g_build_filename(s->dir, "other.hva", NULL);
    assert_ok(hsk_doc_clone(s->doc, NULL, other, NULL, NULL, &error));
    assert_ok(hsk_doc_verify(other, NULL, NULL, &error));
    assert_true(size_of(other) < size_of(s->doc));
    assert_ok((t->doc = hsk_doc_open(other, false, NULL, &error)) != NULL);
    assert_int_equal(t->doc->versions->len, 0);
    for (unsigned i = 0; i < t->n; i++)
        t->dropped[i] = true;
    check_all(t);
    end(t);
}

struct meanwhile {
    struct story *t;
    const char *out;
    unsigned steps;
};

/* Each step of the copy, something else happens to what it is copied from. */
static bool meanwhile(void *opaque, double fraction)
{
    struct meanwhile *w = opaque;
    struct story *t = w->t;
    switch (w->steps++) {
    case 0:
        t->dropped[51] = true;
        assert_ok(hsk_doc_drop(t->doc, t->ids[51], &error));
        break;
    case 1:
        assert_ok(live_on(t, HSK_VERSION_USER, &error));
        assert_ok(hsk_doc_publish(t->doc, &error));
        break;
    case 2:
        t->doc->many_members = 0;
        assert_ok(hsk_doc_compact_instance(t->doc, false, NULL, NULL, &error));
        break;
    case 3: {
        HSK_AUTO(hsk_clone, other) = hsk_clone_begin(t->doc, t->ids[70], w->out, NULL);
        assert_refused(hsk_clone_write(other, NULL, NULL, &error), "being written");
        break;
    }
    default:
        break;
    }
    return true;
}

static void a_clone_is_written_beside_everything(void **state)
{
    struct scratch *s = *state;
    struct story *t = begin(s);
    g_autofree char *out = g_build_filename(s->dir, "clone.hva", NULL);
    struct meanwhile w = {.t = t, .out = out};
    HSK_AUTO(hsk_clone, c) = hsk_clone_begin(t->doc, t->ids[50], out, NULL);
    assert_non_null(c);
    t->dropped[50] = true;
    assert_ok(hsk_doc_drop(t->doc, t->ids[50], &error));
    assert_ok(hsk_doc_compact_instance(t->doc, false, NULL, NULL, &error));
    assert_ok(hsk_clone_write(c, meanwhile, &w, &error));
    assert_true(w.steps > 4);
    /* what only the copy needed was kept, and goes */
    unsigned kept = files(t->doc, "data");
    assert_true(kept > count(t->doc, "data/"));
    hsk_clone_free(g_steal_pointer(&c));
    assert_ok(live_on(t, HSK_VERSION_AUTO, &error));
    hsk_instance_clean(t->doc);
    assert_true(files(t->doc, "data") < kept);
    check_all(t);
    hsk_doc_close(t->doc);
    assert_ok(hsk_doc_verify(out, NULL, NULL, &error));
    assert_ok((t->doc = hsk_doc_open(out, false, NULL, &error)) != NULL);
    assert_string_equal(hsk_doc_saved(t->doc), t->ids[50]);
    struct hsk_version *v = hsk_version_open(t->doc, t->ids[50], NULL);
    check_version(t, v, 50);
    hsk_version_free(v);
    end(t);
}

static bool takes_the_name(void *opaque, double fraction)
{
    return g_file_set_contents(opaque, "mine", 4, NULL);
}

/* What came to be there while it was copied is not written over. */
static void a_copy_takes_nothings_place(void **state)
{
    struct scratch *s = *state;
    struct story *t = begin(s);
    g_autofree char *out = g_build_filename(s->dir, "out.hva", NULL), *there = NULL;
    g_autofree char *tmp = g_strconcat(out, HSK_UNFINISHED, NULL);
    HSK_AUTO(hsk_clone, c) = hsk_clone_begin(t->doc, t->ids[50], out, NULL);
    assert_refused(hsk_clone_write(c, takes_the_name, out, &error), "exists already");
    hsk_clone_free(g_steal_pointer(&c));
    unlink(out);
    HSK_AUTO(hsk_move, m) = hsk_move_begin(t->doc, out, NULL);
    assert_ok(hsk_move_copy(m, takes_the_name, out, &error));
    assert_refused(hsk_move_finish(m, &error), "exists already");
    hsk_move_free(g_steal_pointer(&m));
    assert_true(g_file_get_contents(out, &there, NULL, NULL));
    assert_string_equal(there, "mine");
    assert_false(g_file_test(tmp, G_FILE_TEST_EXISTS));
    assert_string_equal(hsk_doc_path(t->doc), s->doc);
    check_all(t);
    end(t);
}

/* Whoever has it has it alone, from opening to giving up. */
static gpointer writes_the_same(gpointer opaque)
{
    unsigned shared = 0;
    for (unsigned i = 0; i < 2000; i++) {
        struct hsk_target t = HSK_NO_TARGET;
        struct stat mine = {0}, named = {0};
        if (hsk_target_open(&t, opaque, NULL, NULL)) {
            (void)!pwrite(t.fd, "x", 1, 0);
            g_thread_yield();
            shared += fstat(t.fd, &mine) < 0 || fstatat(t.dirfd, t.tmp, &named, 0) < 0 ||
                      mine.st_size != 1 || mine.st_ino != named.st_ino;
        }
        hsk_target_clear(&t);
    }
    return GUINT_TO_POINTER(shared);
}

static void one_at_a_time_writes_a_file(void **state)
{
    const struct scratch *s = *state;
    g_autofree char *out = g_build_filename(s->dir, "out.hva", NULL);
    GThread *threads[4];
    for (size_t i = 0; i < G_N_ELEMENTS(threads); i++)
        threads[i] = g_thread_new(NULL, writes_the_same, out);
    for (size_t i = 0; i < G_N_ELEMENTS(threads); i++)
        assert_int_equal(GPOINTER_TO_UINT(g_thread_join(threads[i])), 0);
}

int main(void)
{
    g_autofree char *data = scratch_data_home();
#define T(f) cmocka_unit_test_setup_teardown(f, scratch_setup, scratch_teardown)
    const struct CMUnitTest tests[] = {
        T(compacting_moves_much_and_changes_nothing),
        T(a_thorough_one_gives_room_back),
        T(branches_move_along),
        T(cancelling_leaves_everything),
        T(a_full_disk_leaves_everything),
        T(a_document_goes_on_elsewhere),
        T(sizes_tell_what_dropping_frees),
        T(a_compacted_document_has_only_what_is_needed),
        T(a_clone_is_a_machine_of_its_own),
        T(a_document_grows_while_it_is_copied),
        T(a_clone_is_written_beside_everything),
        T(a_copy_takes_nothings_place),
        T(one_at_a_time_writes_a_file),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    remove_tree(data);
    return failed;
}
