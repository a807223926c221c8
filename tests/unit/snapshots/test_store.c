/* SPDX-License-Identifier: MIT */
/*
 * Documents from end to end: create, open, disks, take, read back, revert, publish, go on in a new
 * process's place.
 */
#include "fixture.h"

static void created_document_opens_with_what_was_put_in(void **state)
{
    struct scratch *s = *state;
    assert_ok(make_document(s, NULL, &error));
    struct hsk_doc *doc = open_doc(s);
    const struct hsk_manifest *m = hsk_doc_manifest(doc);
    assert_string_equal(m->name, "work");
    assert_string_equal(m->cmdline, "console=ttyS0");
    assert_int_equal(m->ndisks, 1);
    assert_int_equal(m->disks[0].size_bytes, DISK_BYTES);
    assert_true(hsk_doc_trusted(doc));
    assert_string_equal(hsk_doc_current(doc), "");
    assert_string_equal(hsk_doc_saved(doc), "");
    g_autoptr(GBytes) kernel = hsk_doc_boot_member(doc, "boot/kernel", NULL);
    assert_non_null(kernel);
    assert_memory_equal(g_bytes_get_data(kernel, NULL), "a kernel", 8);
    for (unsigned i = 0; i < RAM_PAGES; i++)
        assert_disk_page(doc, i, 7);
    uint8_t page[HSK_PAGE_SIZE];
    assert_int_equal(
        hsk_disk_read(hsk_doc_disk(doc, 0), DISK_BYTES - sizeof(page), page, sizeof(page)), 0);
    assert_true(hsk_page_is_zero(page));
    assert_int_equal(hsk_disk_read(hsk_doc_disk(doc, 0), DISK_BYTES - 1, page, 2), -EINVAL);
    hsk_doc_close(doc);
    assert_ok(hsk_doc_verify(s->doc, NULL, NULL, &error));
}

static void disk_writes_of_any_range_are_read_back_and_survive_reopening(void **state)
{
    struct scratch *s = *state;
    assert_ok(make_document(s, NULL, &error));
    struct hsk_doc *doc = open_doc(s);
    g_autofree uint8_t *model = g_malloc0(DISK_BYTES);
    g_autofree uint8_t *buf = g_malloc(DISK_BYTES);
    assert_int_equal(hsk_disk_read(hsk_doc_disk(doc, 0), 0, model, DISK_BYTES), 0);
    uint32_t x = 12345;
    for (unsigned i = 0; i < 300; i++) {
        x = x * 1664525 + 1013904223;
        uint64_t off = x % (DISK_BYTES - 20000);
        x = x * 1664525 + 1013904223;
        size_t len = (x >> 8) % 20000;
        if (i % 5 == 4) {
            assert_int_equal(hsk_disk_discard(hsk_doc_disk(doc, 0), off, len), 0);
            uint64_t from = (off + 4095) / 4096 * 4096, to = (off + len) / 4096 * 4096;
            if (to > from)
                memset(model + from, 0, to - from);
        } else {
            memset(buf, (int)i + 1, len);
            memcpy(model + off, buf, len);
            assert_int_equal(hsk_disk_write(hsk_doc_disk(doc, 0), off, buf, len), 0);
        }
        if (i % 100 == 50)
            hsk_take_abandon(hsk_take_begin(doc));
    }
    assert_int_equal(hsk_disk_flush(hsk_doc_disk(doc, 0)), 0);
    assert_true(hsk_doc_live_changed(doc));
    assert_int_equal(hsk_disk_read(hsk_doc_disk(doc, 0), 0, buf, DISK_BYTES), 0);
    assert_memory_equal(buf, model, DISK_BYTES);
    hsk_doc_close(doc);
    doc = open_doc(s);
    assert_true(hsk_doc_live_changed(doc));
    assert_int_equal(hsk_disk_read(hsk_doc_disk(doc, 0), 0, buf, DISK_BYTES), 0);
    assert_memory_equal(buf, model, DISK_BYTES);
    char id[33];
    assert_ok(take(doc, "t", HSK_VERSION_USER, NULL, id, &error));
    assert_false(hsk_doc_live_changed(doc));
    assert_int_equal(hsk_disk_read(hsk_doc_disk(doc, 0), 0, buf, DISK_BYTES), 0);
    assert_memory_equal(buf, model, DISK_BYTES);
    hsk_doc_close(doc);
    doc = open_doc(s);
    assert_int_equal(hsk_disk_read(hsk_doc_disk(doc, 0), 0, buf, DISK_BYTES), 0);
    assert_memory_equal(buf, model, DISK_BYTES);
    hsk_doc_close(doc);
}

static void versions_hold_ram_and_disk_of_their_moment(void **state)
{
    struct scratch *s = *state;
    char first[33], second[33], parked[33];
    g_autofree uint8_t *ram1 = make_ram(1);
    g_autofree uint8_t *ram2 = make_ram(2);
    assert_ok(make_document(s, NULL, &error));
    struct hsk_doc *doc = open_doc(s);
    assert_int_equal(write_disk_page(doc, 5, 100), 0);
    assert_ok(take(doc, "first", HSK_VERSION_USER, ram1, first, &error));
    assert_int_equal(write_disk_page(doc, 5, 200), 0);
    assert_int_equal(write_disk_page(doc, 1000, 200), 0);
    assert_ok(take(doc, "second", HSK_VERSION_USER, ram2, second, &error));
    assert_int_equal(write_disk_page(doc, 5, 300), 0);
    assert_ok(take(doc, "Before revert", HSK_VERSION_BEFORE_REVERT, ram1, parked, &error));
    assert_string_equal(hsk_doc_current(doc), second);
    assert_version_ram(doc, first, ram1);
    assert_version_ram(doc, second, ram2);
    assert_disk_page(doc, 5, 300);
    struct hsk_version *v;
    assert_ok((v = hsk_version_open(doc, first, &error)) != NULL);
    assert_ok(hsk_disks_switch(doc, v, &error));
    hsk_version_free(v);
    assert_string_equal(hsk_doc_current(doc), first);
    assert_disk_page(doc, 5, 100);
    uint8_t page[HSK_PAGE_SIZE];
    assert_int_equal(hsk_disk_read(hsk_doc_disk(doc, 0), 1000 * HSK_PAGE_SIZE, page, sizeof(page)),
                     0);
    assert_true(hsk_page_is_zero(page));
    assert_int_equal(write_disk_page(doc, 6, 400), 0);
    hsk_doc_close(doc);
    doc = open_doc(s);
    assert_string_equal(hsk_doc_current(doc), first);
    assert_disk_page(doc, 5, 100);
    assert_disk_page(doc, 6, 400);
    assert_ok((v = hsk_version_open(doc, parked, &error)) != NULL);
    assert_ok(hsk_disks_switch(doc, v, &error));
    hsk_version_free(v);
    assert_disk_page(doc, 5, 300);
    assert_disk_page(doc, 1000, 200);
    assert_disk_page(doc, 6, 7);
    hsk_doc_close(doc);
}

static void dirty_pages_apply_to_the_current_version(void **state)
{
    struct scratch *s = *state;
    char first[33], second[33];
    g_autofree uint8_t *ram = make_ram(1);
    g_autofree uint8_t *old = make_ram(1);
    uint8_t dirty[RAM_PAGES / 8] = {0};
    assert_ok(make_document(s, NULL, &error));
    struct hsk_doc *doc = open_doc(s);
    assert_ok(take(doc, "first", HSK_VERSION_USER, ram, first, &error));
    g_autoptr(GByteArray) staging = g_byte_array_new();
    for (unsigned i = 3; i < RAM_PAGES; i += 37) {
        fill_page(ram + (size_t)i * HSK_PAGE_SIZE, i + 1, 9);
        dirty[i / 8] |= (uint8_t)(1 << i % 8);
        g_byte_array_append(staging, ram + (size_t)i * HSK_PAGE_SIZE, HSK_PAGE_SIZE);
    }
    struct hsk_version_object o = {
        .name = "ram", .size_bytes = RAM_BYTES, .dirty = dirty, .pages = staging->data};
    struct hsk_take t = {.title = "second",
                         .objects = &o,
                         .nobjects = 1,
                         .state = "device state",
                         .state_bytes = 12};
    uint64_t added;
    assert_ok(hsk_version_commit(doc, hsk_take_begin(doc), &t, second, &added, &error));
    assert_true(added < 100000);
    assert_version_ram(doc, first, old);
    assert_version_ram(doc, second, ram);
    hsk_doc_close(doc);
}

struct picked {
    uint8_t *ram, times[RAM_PAGES]; /* each page comes once, on any thread */
};

static bool put_pages(void *opaque, uint64_t page, uint64_t n, const void *data, GError **error)
{
    struct picked *p = opaque;
    memcpy(p->ram + page * HSK_PAGE_SIZE, data, n * HSK_PAGE_SIZE);
    for (uint64_t i = 0; i < n; i++)
        p->times[page + i]++;
    if (page > 77 || page + n <= 77)
        return true;
    g_set_error(error, HSK_ERROR, HSK_ERROR_FAILED, "there is no place for page 77");
    return false;
}

static void assert_picked(struct hsk_doc *doc, const char *id, const uint8_t *wanted,
                          const uint8_t *ram)
{
    g_autofree uint8_t *got = g_malloc(RAM_BYTES);
    g_autofree struct picked *p = g_new0(struct picked, 1);
    struct hsk_version *v;
    p->ram = got;
    memset(got, 0x55, RAM_BYTES);
    assert_ok((v = hsk_version_open(doc, id, &error)) != NULL);
    assert_ok(hsk_version_pick(v, "ram", wanted, put_pages, p, &error));
    for (unsigned i = 0; i < RAM_PAGES; i++) {
        assert_int_equal(p->times[i], wanted[i / 8] >> i % 8 & 1);
        if (p->times[i])
            assert_memory_equal(got + (size_t)i * HSK_PAGE_SIZE, ram + (size_t)i * HSK_PAGE_SIZE,
                                HSK_PAGE_SIZE);
    }
    hsk_version_free(v);
}

/* Pages of both versions, in frames of their own and in shared ones, and holes. */
static void some_pages_are_picked_out_of_a_version(void **state)
{
    struct scratch *s = *state;
    char id[2][33];
    g_autofree uint8_t *first = make_ram(1);
    g_autofree uint8_t *second = make_ram(1);
    uint8_t wanted[RAM_PAGES / 8];
    assert_ok(make_document(s, NULL, &error));
    struct hsk_doc *doc = open_doc(s);
    for (unsigned i = 100; i < 140; i++) {
        memset(first + (size_t)i * HSK_PAGE_SIZE, 0, HSK_PAGE_SIZE);
        fill_page(second + (size_t)(i * 3 % RAM_PAGES) * HSK_PAGE_SIZE, i, 5);
    }
    assert_ok(take(doc, "first", HSK_VERSION_USER, first, id[0], &error));
    assert_ok(take(doc, "second", HSK_VERSION_USER, second, id[1], &error));
    for (unsigned round = 0; round < 8; round++) {
        memset(wanted, 0, sizeof(wanted));
        for (unsigned i = 0; i < RAM_PAGES; i++)
            if (i != 77 && (round == 7 || (i >> round & 1)))
                wanted[i / 8] |= (uint8_t)(1 << i % 8);
        assert_picked(doc, id[0], wanted, first);
        assert_picked(doc, id[1], wanted, second);
    }
    struct picked p = {.ram = first};
    struct hsk_version *v;
    wanted[77 / 8] |= 1 << 77 % 8;
    assert_ok((v = hsk_version_open(doc, id[1], &error)) != NULL);
    assert_refused(hsk_version_pick(v, "ram", wanted, put_pages, &p, &error), "page 77");
    assert_refused(hsk_version_pick(v, "rom", wanted, put_pages, &p, &error), "rom");
    hsk_version_free(v);
    hsk_doc_close(doc);
}

static void the_same_memory_again_adds_next_to_nothing(void **state)
{
    struct scratch *s = *state;
    g_autofree uint8_t *ram = make_ram(1);
    char first[33], second[33];
    uint64_t bytes1, bytes2;
    struct hsk_version_object o = {.name = "ram", .size_bytes = RAM_BYTES, .pages = ram};
    struct hsk_take t = {
        .title = "x", .objects = &o, .nobjects = 1, .state = "device state", .state_bytes = 12};
    assert_ok(make_document(s, NULL, &error));
    struct hsk_doc *doc = open_doc(s);
    assert_ok(hsk_version_commit(doc, hsk_take_begin(doc), &t, first, &bytes1, &error));
    hsk_doc_close(doc);
    doc = open_doc(s);
    assert_ok(hsk_version_commit(doc, hsk_take_begin(doc), &t, second, &bytes2, &error));
    assert_true(bytes1 > 300000);
    assert_true(bytes2 < 10000);
    assert_version_ram(doc, second, ram);
    hsk_doc_close(doc);
}

static void published_document_carries_its_versions_to_another_computer(void **state)
{
    struct scratch *s = *state;
    g_autofree uint8_t *ram = make_ram(1);
    g_autofree char *copy = g_build_filename(s->dir, "copy.hva", NULL);
    char user[33], saved[33], automatic[33];
    assert_ok(make_document(s, NULL, &error));
    struct hsk_doc *doc = open_doc(s);
    assert_ok(take(doc, "kept", HSK_VERSION_USER, ram, user, &error));
    assert_ok(take(doc, "timeline", HSK_VERSION_AUTO, ram, automatic, &error));
    assert_ok(hsk_doc_publish(doc, &error));
    assert_int_equal(write_disk_page(doc, 9, 55), 0);
    ram[0] ^= 1;
    assert_ok(take(doc, "", HSK_VERSION_SAVED, ram, saved, &error));
    assert_ok(hsk_doc_publish(doc, &error));
    assert_ok(hsk_doc_publish(doc, &error)); /* nothing to do */
    assert_int_equal(doc->base_root->generation, 3);
    assert_true(hsk_doc_trusted(doc));
    hsk_doc_close(doc);
    assert_ok(hsk_doc_verify(s->doc, NULL, NULL, &error));
    g_autofree char *contents = NULL;
    gsize bytes;
    assert_true(g_file_get_contents(s->doc, &contents, &bytes, NULL));
    assert_true(g_file_set_contents(copy, contents, (gssize)bytes, NULL));
    g_autofree char *data = hsk_data_folder();
    remove_tree(data);
    assert_ok((doc = hsk_doc_open(copy, false, NULL, &error)) != NULL);
    assert_false(hsk_doc_trusted(doc));
    assert_string_equal(hsk_doc_current(doc), saved);
    assert_string_equal(hsk_doc_saved(doc), saved);
    assert_false(hsk_doc_live_changed(doc));
    assert_null(hsk_doc_find(doc, automatic));
    assert_version_ram(doc, saved, ram);
    assert_disk_page(doc, 9, 55);
    ram[0] ^= 1;
    assert_version_ram(doc, user, ram);
    hsk_doc_close(doc);
}

static void only_the_newest_saved_state_is_kept(void **state)
{
    struct scratch *s = *state;
    g_autofree uint8_t *ram1 = make_ram(1);
    g_autofree uint8_t *ram2 = make_ram(2);
    char first[33], second[33], user[33];
    assert_ok(make_document(s, NULL, &error));
    struct hsk_doc *doc = open_doc(s);
    assert_ok(take(doc, "", HSK_VERSION_SAVED, ram1, first, &error));
    assert_ok(take(doc, "child", HSK_VERSION_USER, ram1, user, &error));
    assert_ok(take(doc, "", HSK_VERSION_SAVED, ram2, second, &error));
    assert_null(hsk_doc_find(doc, first));
    assert_string_equal(hsk_doc_saved(doc), second);
    assert_version_ram(doc, user, ram1);
    assert_version_ram(doc, second, ram2);
    hsk_doc_close(doc);
    doc = open_doc(s);
    assert_version_ram(doc, user, ram1);
    struct hsk_version_info *list;
    assert_ok((list = hsk_doc_versions(doc, &error)) != NULL);
    assert_string_equal(list->id, user);
    assert_string_equal(list->parent, "");
    assert_string_equal(list->next->id, second);
    assert_string_equal(list->next->parent, user);
    assert_null(list->next->next);
    hsk_version_info_free(list);
    hsk_doc_close(doc);
}

static void dropping_versions_frees_their_files_and_keeps_the_others(void **state)
{
    struct scratch *s = *state;
    g_autofree uint8_t *ram1 = make_ram(1);
    g_autofree uint8_t *ram2 = make_ram(2);
    char a[33], b[33], c[33];
    assert_ok(make_document(s, NULL, &error));
    struct hsk_doc *doc = open_doc(s);
    assert_ok(take(doc, "a", HSK_VERSION_USER, ram1, a, &error));
    assert_ok(take(doc, "b", HSK_VERSION_USER, ram2, b, &error));
    assert_ok(take(doc, "c", HSK_VERSION_USER, ram1, c, &error));
    guint before = doc->root->entries->len;
    assert_ok(hsk_doc_drop(doc, b, &error));
    assert_true(doc->root->entries->len < before - 1);
    assert_version_ram(doc, a, ram1);
    assert_version_ram(doc, c, ram1);
    assert_ok(hsk_doc_drop(doc, c, &error));
    assert_string_equal(hsk_doc_current(doc), a);
    assert_ok(hsk_doc_publish(doc, &error));
    hsk_doc_close(doc);
    assert_ok(hsk_doc_verify(s->doc, NULL, NULL, &error));
    doc = open_doc(s);
    assert_version_ram(doc, a, ram1);
    assert_refused(hsk_version_open(doc, b, &error), "no version");
    hsk_doc_close(doc);
}

static void versions_are_found_by_id_prefix_title_or_as_the_newest(void **state)
{
    struct scratch *s = *state;
    char a[33], b[33], prefix[6];
    assert_ok(make_document(s, NULL, &error));
    struct hsk_doc *doc = open_doc(s);
    assert_refused(hsk_doc_resolve(doc, NULL, &error), "no snapshot yet");
    assert_ok(take(doc, "one", HSK_VERSION_USER, NULL, a, &error));
    assert_ok(take(doc, "two", HSK_VERSION_USER, NULL, b, &error));
    g_strlcpy(prefix, a, sizeof(prefix));
    g_autofree char *by_prefix = hsk_doc_resolve(doc, prefix, NULL);
    g_autofree char *by_title = hsk_doc_resolve(doc, "one", NULL);
    g_autofree char *newest = hsk_doc_resolve(doc, NULL, NULL);
    assert_string_equal(by_prefix, a);
    assert_string_equal(by_title, a);
    assert_string_equal(newest, b);
    assert_refused(hsk_doc_resolve(doc, "three", &error), "three");
    assert_ok(take(doc, "one", HSK_VERSION_USER, NULL, b, &error));
    assert_refused(hsk_doc_resolve(doc, "one", &error), "more than one");
    hsk_doc_close(doc);
}

static void folding_the_log_changes_nothing_but_its_size(void **state)
{
    struct scratch *s = *state;
    char id[33], automatic[33];
    assert_ok(make_document(s, NULL, &error));
    struct hsk_doc *doc = open_doc(s);
    assert_ok(take(doc, "first", HSK_VERSION_USER, NULL, id, &error));
    assert_false(hsk_doc_live_changed(doc));
    for (unsigned i = 0; i < 500; i++)
        assert_int_equal(write_disk_page(doc, 5 + i % 3, i), 0);
    uint64_t before = hsk_log_bytes(doc->log);
    assert_ok(hsk_doc_fold(doc, 1 << 30, &error));
    assert_int_equal(hsk_log_bytes(doc->log), before);
    assert_ok(hsk_doc_fold(doc, 1 << 20, &error));
    assert_int_equal(hsk_log_bytes(doc->log), 0);
    assert_true(hsk_doc_live_changed(doc));
    guint members = doc->root->entries->len;
    for (unsigned i = 0; i < 500; i++)
        assert_int_equal(write_disk_page(doc, 5 + i % 3, i + 3), 0);
    assert_ok(hsk_doc_fold(doc, 1 << 20, &error));
    assert_int_equal(doc->root->entries->len, members); /* what was folded first is gone */
    for (unsigned i = 0; i < 500; i++)
        assert_int_equal(write_disk_page(doc, 5 + i % 3, i), 0);
    assert_ok(hsk_doc_fold(doc, 1 << 20, &error));
    assert_int_equal(doc->versions->len, 1);
    assert_string_equal(hsk_doc_current(doc), id);
    hsk_doc_close(doc);
    doc = open_doc(s);
    assert_true(hsk_doc_live_changed(doc));
    assert_disk_page(doc, 5, 498);
    assert_disk_page(doc, 6, 499);
    assert_disk_page(doc, 7, 497);
    assert_ok(take(doc, "timeline", HSK_VERSION_AUTO, NULL, automatic, &error));
    struct hsk_version *v;
    assert_ok((v = hsk_version_open(doc, automatic, &error)) != NULL);
    assert_ok(hsk_disks_switch(doc, v, &error));
    hsk_version_free(v);
    /* the timeline stays here: the document goes on from its own last version */
    assert_ok(hsk_doc_publish(doc, &error));
    assert_string_equal(hsk_doc_current(doc), automatic);
    assert_string_equal(doc->base_root->current, id);
    hsk_doc_close(doc);
    assert_ok(hsk_doc_verify(s->doc, NULL, NULL, &error));
    assert_ok((doc = hsk_doc_open(s->doc, true, NULL, &error)) != NULL);
    hsk_doc_close(doc);
}

/* The maps of a version of the timeline lie beside those of the disks, which the document gets. */
static void what_stays_here_is_not_taken_to_be_in_the_document(void **state)
{
    struct scratch *s = *state;
    char automatic[33], other[33];
    g_autofree uint8_t *ram = make_ram(3);
    assert_ok(make_document(s, NULL, &error));
    struct hsk_doc *doc = open_doc(s);
    assert_int_equal(write_disk_page(doc, 5, 1), 0);
    assert_ok(take(doc, "timeline", HSK_VERSION_AUTO, ram, automatic, &error));
    assert_ok(take(doc, "other", HSK_VERSION_USER, NULL, other, &error));
    assert_ok(hsk_doc_publish(doc, &error));
    assert_ok(hsk_doc_drop(doc, other, &error));
    assert_version_ram(doc, automatic, ram);
    hsk_doc_close(doc);
    doc = open_doc(s);
    assert_version_ram(doc, automatic, ram);
    hsk_doc_close(doc);
}

/* ---- a disk thread beside commits ---- */

struct writer {
    struct hsk_doc *doc;
    uint8_t *model; /* of the disk */
    int stop;
};

static gpointer work_on_disk(gpointer p)
{
    struct writer *w = p;
    struct hsk_disk *d = hsk_doc_disk(w->doc, 0);
    g_autofree uint8_t *buf = g_malloc(40000);
    uint32_t x = 4711;
    while (!g_atomic_int_get(&w->stop)) {
        x = x * 1664525 + 1013904223;
        uint64_t off = (x >> 4) % (DISK_BYTES - 40000);
        size_t len = 1 + x % 30000;
        if (x >> 30 == 3) {
            if (hsk_disk_read(d, off, buf, len) != 0 || memcmp(buf, w->model + off, len) != 0)
                return GINT_TO_POINTER(1);
            continue;
        }
        memset(buf, (int)(x >> 16), len);
        memcpy(w->model + off, buf, len);
        if (hsk_disk_write(d, off, buf, len) != 0)
            return GINT_TO_POINTER(2);
    }
    return NULL;
}

static void disks_work_while_versions_are_committed(void **state)
{
    struct scratch *s = *state;
    g_autofree uint8_t *ram = make_ram(1);
    g_autofree uint8_t *model = g_malloc(DISK_BYTES);
    g_autofree uint8_t *got = g_malloc(DISK_BYTES);
    char ids[6][33];
    uint8_t *frozen[6];
    assert_ok(make_document(s, NULL, &error));
    struct hsk_doc *doc = open_doc(s);
    assert_int_equal(hsk_disk_read(hsk_doc_disk(doc, 0), 0, model, DISK_BYTES), 0);
    for (unsigned i = 0; i < 6; i++) {
        /* the disk is quiet at the moment of the take, and busy while it is committed */
        struct writer w = {doc, model, 0};
        struct hsk_take_point *p = hsk_take_begin(doc);
        struct hsk_version_object o = {.name = "ram", .size_bytes = RAM_BYTES, .pages = ram};
        struct hsk_take t = {.title = "t",
                             .kind = i % 2 == 0 ? HSK_VERSION_USER : HSK_VERSION_AUTO,
                             .objects = &o,
                             .nobjects = 1};
        frozen[i] = g_memdup2(model, DISK_BYTES);
        GThread *thread = g_thread_new("disk", work_on_disk, &w);
        g_usleep(20000);
        assert_ok(hsk_version_commit(doc, p, &t, ids[i], NULL, &error));
        g_usleep(20000);
        g_atomic_int_set(&w.stop, 1);
        assert_null(g_thread_join(thread));
    }
    for (unsigned i = 0; i < 6; i++) {
        struct hsk_version *v;
        assert_ok((v = hsk_version_open(doc, ids[i], &error)) != NULL);
        assert_ok(hsk_version_read(v, "disk.root", 0, DISK_BYTES / HSK_PAGE_SIZE, got, &error));
        assert_memory_equal(got, frozen[i], DISK_BYTES);
        hsk_version_free(v);
        g_clear_pointer(&frozen[i], g_free);
    }
    hsk_doc_close(doc);
    doc = open_doc(s);
    assert_int_equal(hsk_disk_read(hsk_doc_disk(doc, 0), 0, got, DISK_BYTES), 0);
    assert_memory_equal(got, model, DISK_BYTES);
    hsk_doc_close(doc);
}

static void takes_are_committed_in_order_or_not_at_all(void **state)
{
    struct scratch *s = *state;
    struct hsk_take t = {.title = "t"};
    assert_ok(make_document(s, NULL, &error));
    struct hsk_doc *doc = open_doc(s);
    struct hsk_take_point *first = hsk_take_begin(doc);
    assert_int_equal(write_disk_page(doc, 5, 1), 0);
    struct hsk_take_point *second = hsk_take_begin(doc);
    assert_int_equal(write_disk_page(doc, 5, 2), 0);
    assert_ok(hsk_version_commit(doc, second, &t, NULL, NULL, &error));
    assert_refused(hsk_version_commit(doc, first, &t, NULL, NULL, &error), "later version");
    assert_disk_page(doc, 5, 2);
    hsk_doc_close(doc);
}

static void a_document_replaced_while_open_is_not_written_to(void **state)
{
    struct scratch *s = *state;
    assert_ok(make_document(s, NULL, &error));
    struct hsk_doc *doc = open_doc(s);
    assert_ok(take(doc, "t", HSK_VERSION_USER, NULL, NULL, &error));
    unlink(s->doc);
    assert_refused(hsk_doc_publish(doc, &error), "deleted or replaced");
    hsk_doc_close(doc);
}

int main(void)
{
    g_autofree char *data = scratch_data_home();
#define T(f) cmocka_unit_test_setup_teardown(f, scratch_setup, scratch_teardown)
    const struct CMUnitTest tests[] = {
        T(created_document_opens_with_what_was_put_in),
        T(disk_writes_of_any_range_are_read_back_and_survive_reopening),
        T(versions_hold_ram_and_disk_of_their_moment),
        T(dirty_pages_apply_to_the_current_version),
        T(some_pages_are_picked_out_of_a_version),
        T(the_same_memory_again_adds_next_to_nothing),
        T(published_document_carries_its_versions_to_another_computer),
        T(only_the_newest_saved_state_is_kept),
        T(dropping_versions_frees_their_files_and_keeps_the_others),
        T(versions_are_found_by_id_prefix_title_or_as_the_newest),
        T(folding_the_log_changes_nothing_but_its_size),
        T(what_stays_here_is_not_taken_to_be_in_the_document),
        T(disks_work_while_versions_are_committed),
        T(takes_are_committed_in_order_or_not_at_all),
        T(a_document_replaced_while_open_is_not_written_to),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    remove_tree(data);
    return failed;
}
