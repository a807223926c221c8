/* SPDX-License-Identifier: MIT */
/*
 * What a lazy opening reads: objects frame by frame and in runs of pages, and the pages that were
 * needed the last time, which may say anything.
 */
#define RAM_PAGES 200u
#include <snapshots/fetch.h>

#include "forge.h"

/* Memory whose frames are not full and not in order: every seventh page is another one than in the
 * version before, and one page is there many times. */
static uint8_t *changed_ram(unsigned seed)
{
    uint8_t *ram = make_ram(seed);
    for (unsigned i = 0; i < RAM_PAGES; i += 7)
        fill_page(ram + (size_t)i * HSK_PAGE_SIZE, i, seed + 100);
    for (unsigned i = 40; i < 60; i += 2)
        fill_page(ram + (size_t)i * HSK_PAGE_SIZE, 41, 3);
    return ram;
}

/* A document with two versions, the second one of changed_ram(1). */
static struct hsk_doc *make_versions(const struct scratch *s, char id[33])
{
    g_autofree uint8_t *first = make_ram(1), *second = changed_ram(1);
    assert_ok(make_document(s, NULL, &error));
    struct hsk_doc *doc = open_doc(s);
    assert_ok(take(doc, "first", HSK_VERSION_USER, first, id, &error));
    assert_ok(take(doc, "second", HSK_VERSION_USER, second, id, &error));
    return doc;
}

static void frames_and_runs_are_the_whole_object(void **state)
{
    char id[33];
    struct hsk_doc *doc = make_versions(*state, id);
    g_autofree uint8_t *want = changed_ram(1), *got = g_malloc0(RAM_BYTES);
    g_autofree uint8_t *buf = g_malloc(HSK_FETCH_BYTES);
    bool seen[RAM_PAGES] = {false};
    unsigned several = 0;
    struct hsk_version *v;
    struct hsk_fetch *f;
    assert_ok((v = hsk_version_open(doc, id, &error)) != NULL);
    assert_ok((f = hsk_fetch_new(v, "ram", &error)) != NULL);
    assert_int_equal(hsk_fetch_pages(f), RAM_PAGES);
    for (uint32_t frame = 0; frame < hsk_fetch_frames(f); frame++) {
        size_t n;
        const struct hsk_fetch_run *r = hsk_fetch_runs(f, frame, &n);
        assert_true(n > 0);
        assert_ok(hsk_fetch_decode(f, frame, buf, &error));
        for (; n > 0; n--, r++) {
            several += r->count > 1;
            memcpy(got + (size_t)r->page * HSK_PAGE_SIZE, hsk_fetch_at(r, buf),
                   (size_t)r->count * HSK_PAGE_SIZE);
            for (uint32_t i = 0; i < r->count; i++) {
                assert_false(seen[r->page + i]);
                seen[r->page + i] = true;
                assert_int_equal(hsk_fetch_frame_of(f, r->page + i), frame);
            }
        }
    }
    assert_memory_equal(got, want, RAM_BYTES);
    assert_true(several > 0 && hsk_fetch_frames(f) > 2);
    for (unsigned i = 0; i < RAM_PAGES; i++)
        assert_true(seen[i] == (hsk_fetch_frame_of(f, i) >= 0) && seen[i] == (i % 4 != 3));
    assert_int_equal(hsk_fetch_frame_of(f, RAM_PAGES), -1);
    assert_int_equal(hsk_fetch_frame_of(f, UINT32_MAX), -1);
    assert_int_equal(hsk_fetch_frame_of(f, UINT64_MAX), -1);
    hsk_fetch_free(f);
    assert_refused(hsk_fetch_new(v, "vram", &error) != NULL, "vram");
    hsk_version_free(v);
    hsk_doc_close(doc);
}

static void any_range_of_pages_can_be_read(void **state)
{
    static const uint64_t behind[][2] = {
        {0, RAM_PAGES + 1}, {RAM_PAGES, 1}, {UINT64_MAX, 2}, {1, UINT64_MAX}, {RAM_PAGES + 1, 0}};
    char id[33];
    struct hsk_doc *doc = make_versions(*state, id);
    g_autofree uint8_t *want = changed_ram(1), *got = g_malloc(RAM_BYTES);
    struct hsk_version *v;
    assert_ok((v = hsk_version_open(doc, id, &error)) != NULL);
    for (uint64_t first = 0; first < RAM_PAGES; first += 13) {
        for (uint64_t n = 0; first + n <= RAM_PAGES; n = n * 2 + 1) {
            memset(got, 0xee, RAM_BYTES);
            assert_ok(hsk_version_read(v, "ram", first, n, got, &error));
            assert_memory_equal(got, want + first * HSK_PAGE_SIZE, n * HSK_PAGE_SIZE);
            assert_true(first + n == RAM_PAGES || got[n * HSK_PAGE_SIZE] == 0xee);
        }
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(behind); i++)
        assert_refused(hsk_version_read(v, "ram", behind[i][0], behind[i][1], got, &error),
                       "behind the end");
    assert_refused(hsk_version_fill(v, "ram", got, RAM_BYTES - HSK_PAGE_SIZE, &error),
                   "another size");
    hsk_version_free(v);
    hsk_doc_close(doc);
}

/* ---- what was needed ---- */

static const uint32_t odd_needs[] = {7, 7, 3, UINT32_MAX, 0, RAM_PAGES, 7, 1u << 31};

static void take_needed(const struct scratch *s, const uint32_t *needed, size_t n, char id[33])
{
    g_autofree uint8_t *ram = make_ram(1);
    struct hsk_version_object o = {.name = "ram", .size_bytes = RAM_BYTES, .pages = ram};
    struct hsk_take t = {.title = "t",
                         .kind = HSK_VERSION_USER,
                         .engine = "soft",
                         .objects = &o,
                         .nobjects = 1,
                         .state = "device state",
                         .state_bytes = 12,
                         .needed = needed,
                         .nneeded = n};
    struct hsk_doc *doc = open_doc(s);
    assert_ok(hsk_version_commit(doc, hsk_take_begin(doc), &t, id, NULL, &error));
    assert_ok(hsk_doc_publish(doc, &error));
    hsk_doc_close(doc);
}

static GArray *read_needed(const struct scratch *s, const char *id)
{
    struct hsk_doc *doc;
    struct hsk_version *v;
    g_autofree uint8_t *ram = make_ram(1);
    assert_ok((doc = hsk_doc_open(s->doc, true, NULL, &error)) != NULL);
    assert_ok((v = hsk_version_open(doc, id, &error)) != NULL);
    GArray *needed = hsk_version_needed(v);
    hsk_version_free(v);
    assert_version_ram(doc, id, ram); /* whatever it says: the rest is as good as ever */
    hsk_doc_close(doc);
    return needed;
}

static void needs_come_back_as_they_were_said(void **state)
{
    struct scratch *s = *state;
    char id[33];
    assert_ok(make_document(s, NULL, &error));
    take_needed(s, odd_needs, G_N_ELEMENTS(odd_needs), id);
    g_autoptr(GArray) needed = read_needed(s, id);
    assert_int_equal(needed->len, G_N_ELEMENTS(odd_needs));
    assert_memory_equal(needed->data, odd_needs, sizeof(odd_needs));
    g_autofree uint32_t *many = g_new0(uint32_t, HSK_MAX_NEEDED + 10);
    for (unsigned i = 0; i < HSK_MAX_NEEDED + 10; i++)
        many[i] = HSK_MAX_NEEDED - i;
    take_needed(s, many, HSK_MAX_NEEDED + 10, id);
    g_autoptr(GArray) most = read_needed(s, id);
    assert_int_equal(most->len, HSK_MAX_NEEDED);
    assert_memory_equal(most->data, many, HSK_MAX_NEEDED * sizeof(uint32_t));
}

/* What a stranger's record says of them; S and F: the segment and frame where they are. */
static const struct {
    const char *text;
    int numbers; /* that are read; -1: none are looked for; -2: the document is refused */
} claims[] = {
    {"null", -1},
    {"{\"bytes\": 32, \"frames\": [[S, F]]}", 8},
    {"{\"bytes\": 64, \"frames\": [[S, F], [S, F]]}", 16},
    {"{\"bytes\": 0, \"frames\": []}", 0},
    {"{\"bytes\": 32, \"frames\": []}", 0},
    {"{\"bytes\": 7, \"frames\": [[S, F]]}", 0},
    {"{\"bytes\": 33, \"frames\": [[S, F]]}", 0},
    {"{\"bytes\": 32, \"frames\": [[4294967295, F]]}", 0},
    {"{\"bytes\": 32, \"frames\": [[S, 1048575]]}", 0},
    {"{\"bytes\": 16388, \"frames\": [[S, F]]}", -1},
    {"{\"bytes\": 67108864, \"frames\": [[S, F]]}", -1},
    {"{\"bytes\": 67108865, \"frames\": [[S, F]]}", -2},
    {"{\"bytes\": -1, \"frames\": [[S, F]]}", -2},
    {"{\"bytes\": 32, \"frames\": [[4294967296, F]]}", -2},
    {"{\"bytes\": 32, \"frames\": [[S, 1048576]]}", -2},
    {"{\"bytes\": 32, \"frames\": [[S]]}", -2},
    {"{\"bytes\": 32, \"frames\": \"S\"}", -2},
    {"[1, 2, 3]", -2},
};

static void claim(const struct scratch *s, const uint8_t *file, size_t bytes, const char *id,
                  const char *text)
{
    HSK_AUTO(forgery, f) = forge_load(file, bytes);
    g_autofree char *name = g_strdup_printf("versions/%s.json", id);
    struct forged_member *m = forge_need(f, name);
    g_autofree char *record = forge_text(m);
    char *at = strstr(record, "\"needed\"");
    assert_non_null(at);
    *at = '\0';
    g_autofree char *all = g_strconcat(record, "\"needed\": ", text, "}\n", NULL);
    forge_set(m, all);
    forge_seal(f, NULL);
    forge_write(f, s->doc);
}

static char *with_number(const char *text, const char *word, uint32_t number)
{
    g_auto(GStrv) parts = g_strsplit(text, word, -1);
    g_autofree char *digits = g_strdup_printf("%u", number);
    return g_strjoinv(digits, parts);
}

static void strange_needs_do_no_harm(void **state)
{
    struct scratch *s = *state;
    char id[33];
    g_autofree char *file = NULL;
    gsize bytes;
    assert_ok(make_document(s, NULL, &error));
    take_needed(s, odd_needs, G_N_ELEMENTS(odd_needs), id);
    assert_true(g_file_get_contents(s->doc, &file, &bytes, NULL));
    struct hsk_doc *doc = open_doc(s);
    uint64_t entry = g_array_index(hsk_doc_find(doc, id)->needed.frames, uint64_t, 0);
    hsk_doc_close(doc);
    for (unsigned i = 0; i < G_N_ELEMENTS(claims); i++) {
        g_autofree char *half = with_number(claims[i].text, "S", hsk_entry_segment(entry));
        g_autofree char *text = with_number(half, "F", hsk_entry_frame(entry));
        claim(s, (const uint8_t *)file, bytes, id, text);
        if (claims[i].numbers == -2) {
            assert_refused(hsk_doc_open(s->doc, true, NULL, &error) != NULL, id);
            continue;
        }
        g_autoptr(GArray) needed = read_needed(s, id);
        if ((needed == NULL ? -1 : (int)needed->len) != claims[i].numbers)
            fail_msg("%s: %d numbers", text, needed == NULL ? -1 : (int)needed->len);
    }
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, scratch_setup, scratch_teardown)
    g_autofree char *data = scratch_data_home();
    const struct CMUnitTest tests[] = {
        T(frames_and_runs_are_the_whole_object),
        T(any_range_of_pages_can_be_read),
        T(needs_come_back_as_they_were_said),
        T(strange_needs_do_no_harm),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    remove_tree(data);
    return failed;
}
