/* SPDX-License-Identifier: MIT */
/*
 * Is a document after an interruption what its life promised (life.h)? One thread.
 */
#include "life.h"

static void want_page(uint8_t *page, uint64_t number, unsigned seed)
{
    if (seed == 0)
        memset(page, 0, HSK_PAGE_SIZE);
    else
        fill_page(page, number, seed);
}

static void check_content(struct life *l, struct hsk_doc *doc, const char *id,
                          const struct life_version *want, bool by_filling)
{
    g_autoptr(GError) error = NULL;
    g_autofree uint8_t *ram = g_malloc0(RAM_BYTES);
    uint8_t page[HSK_PAGE_SIZE], got[HSK_PAGE_SIZE];
    struct hsk_version *v = hsk_version_open(doc, id, &error);
    life_must(l,
              v != NULL && (by_filling ? hsk_version_fill(v, "ram", ram, RAM_BYTES, &error)
                                       : hsk_version_read(v, "ram", 0, RAM_PAGES, ram, &error)),
              "v%u: %s", want->number, error->message);
    for (unsigned i = 0; i < RAM_PAGES; i++) {
        fill_page(page, i, want->ram[i]);
        life_must(l, memcmp(page, ram + (size_t)i * HSK_PAGE_SIZE, sizeof(page)) == 0,
                  "page %u of the memory of v%u is another one", i, want->number);
    }
    for (unsigned i = 0; i < LIFE_PAGES; i++) {
        life_must(l, hsk_version_read(v, "disk.root", life_page(i), 1, got, &error), "v%u: %s",
                  want->number, error->message);
        want_page(page, life_page(i), want->disk[i]);
        life_must(l, memcmp(page, got, sizeof(page)) == 0,
                  "page %u of the disk of v%u is another one", i, want->number);
    }
    g_autoptr(GBytes) state = hsk_version_state(v, &error);
    life_must(l, state != NULL && g_bytes_get_size(state) == 12, "the state of v%u: %s",
              want->number, error != NULL ? error->message : "another size");
    hsk_version_free(v);
}

/* It says what it was made to say, the newest that was acknowledged or something later. */
static void check_words(struct life *l, const struct hsk_version_info *i,
                        const struct life_version *v, unsigned at, bool in_file)
{
    bool ok = false;
    for (guint k = v->words->len; k-- > 0 && !ok;) {
        const struct life_words *w = &g_array_index(v->words, struct life_words, k);
        g_autofree char *title = life_title(v, w);
        ok = w->begun < at && strcmp(title, i->title) == 0 && w->kind == i->kind &&
             w->pinned == i->pinned;
        if ((in_file ? w->published : w->done) <= at)
            break;
    }
    life_must(l, ok, "v%u is called \"%s\", kind %d, %spinned%s", v->number, i->title, i->kind,
              i->pinned ? "" : "not ", in_file ? " in the document" : "");
}

/* All versions that a document lists are right; the ones that were promised are among them. */
static void check_versions(struct life *l, struct hsk_doc *doc, unsigned at, bool in_file)
{
    g_autoptr(GHashTable) there = g_hash_table_new(NULL, NULL);
    struct hsk_version_info *list = hsk_doc_versions(doc, NULL);
    for (struct hsk_version_info *i = list; i != NULL; i = i->next) {
        struct life_version *v = life_version_titled(l, i->title);
        life_must(l, v != NULL && v->begun < at, "\"%s\" was never taken", i->title);
        check_words(l, i, v, at, in_file);
        life_must(l, in_file || v->gone > at, "v%u was dropped", v->number);
        if (!in_file || v->published <= at)
            check_content(l, doc, i->id, v, in_file);
        g_hash_table_add(there, v);
    }
    hsk_version_info_free(list);
    for (guint i = 0; i < l->versions->len; i++) {
        struct life_version *v = g_ptr_array_index(l->versions, i);
        if ((in_file ? v->published : v->done) <= at && v->going >= at)
            life_must(l, g_hash_table_contains(there, v), "v%u is lost%s", v->number,
                      in_file ? " in the document" : "");
    }
}

typedef uint8_t (*life_disk_pages)[HSK_PAGE_SIZE];

static void read_disk(struct life *l, struct hsk_doc *doc, life_disk_pages pages)
{
    for (unsigned i = 0; i < LIFE_PAGES; i++) {
        int r = hsk_disk_read(hsk_doc_disk(doc, 0), life_page(i) * HSK_PAGE_SIZE, pages[i],
                              HSK_PAGE_SIZE);
        life_must(l, r == 0, "the disk cannot be read: %s", hsk_disk_error(hsk_doc_disk(doc, 0)));
    }
}

static bool is_state(life_disk_pages pages, const struct life_disk *d)
{
    uint8_t want[HSK_PAGE_SIZE];
    for (unsigned i = 0; i < LIFE_PAGES; i++) {
        want_page(want, life_page(i), d->seed[i]);
        if (memcmp(want, pages[i], HSK_PAGE_SIZE) != 0)
            return false;
    }
    return true;
}

unsigned life_promised(const struct life *l, unsigned at)
{
    unsigned first = 0;
    for (guint i = 0; i < l->promises->len; i++) {
        const struct life_promise *p = &g_array_index(l->promises, struct life_promise, i);
        if (p->at <= at)
            first = MAX(first, p->state);
    }
    return first;
}

/* The disk is in one of its states, not older than what was promised. */
static void check_disk(struct life *l, struct hsk_doc *doc, unsigned at)
{
    g_autofree uint8_t(*pages)[HSK_PAGE_SIZE] = g_malloc_n(LIFE_PAGES, HSK_PAGE_SIZE);
    unsigned first = life_promised(l, at), last = 0, found = NEVER;
    read_disk(l, doc, pages);
    for (guint i = 0; i < l->disks->len; i++) {
        const struct life_disk *d = &g_array_index(l->disks, struct life_disk, i);
        if (i > 0 && d->at >= at)
            break;
        last = i;
        if (is_state(pages, d))
            found = i;
    }
    life_must(l, found != NEVER, "the disk is in no state that it ever was in (%u to %u)", first,
              last);
    life_must(l, found >= first, "the disk is in state %u, but %u to %u were promised", found,
              first, last);
}

static void check_current(struct life *l, struct hsk_doc *doc, unsigned at)
{
    const struct hsk_record *r = hsk_doc_find(doc, hsk_doc_current(doc));
    const struct life_version *v = r != NULL ? life_version_titled(l, r->info.title) : NULL;
    unsigned have = v != NULL ? v->number : 0;
    bool ok = false;
    for (guint i = l->currents->len; i-- > 0 && !ok;) {
        const struct life_current *c = &g_array_index(l->currents, struct life_current, i);
        ok = c->begun < at + 1 && c->version == have;
        if (c->done <= at || (c->state != 0 && c->state <= life_promised(l, at)))
            break;
    }
    life_must(l, ok, "the current version is v%u", have);
}

static void check_folder(struct life *l, struct hsk_doc *doc, const char *folder)
{
    g_autofree char *data = hsk_data_folder();
    g_autofree char *path =
        g_build_filename(data, "instances", hsk_doc_instance(doc), folder, NULL);
    g_autoptr(GDir) dir = g_dir_open(path, 0, NULL);
    const char *name;
    while (dir != NULL && (name = g_dir_read_name(dir)) != NULL) {
        g_autofree char *member = g_strconcat(folder, "/", name, NULL);
        life_must(l, !g_str_has_suffix(name, ".tmp"), "%s was left behind", member);
        if (folder[0] == '\0')
            continue;
        if (strcmp(folder, "log") == 0)
            life_must(l, g_ascii_strtoull(name, NULL, 10) >= doc->root->log_number,
                      "%s was left behind", member);
        else
            life_must(l,
                      hsk_root_find(doc->root, member) != NULL &&
                          hsk_root_find(doc->base_root, member) == NULL,
                      "%s was left behind", member);
    }
}

/* ---- clones ---- */

/* The disk of a document that is open for reading only. */
static void read_present(struct life *l, struct hsk_doc *doc, life_disk_pages pages)
{
    g_autoptr(GError) error = NULL;
    const struct hsk_object *o = hsk_objects_find(doc->root->present, "disk.root");
    life_must(l, o != NULL, "a clone has no disk");
    HSK_AUTO(hsk_pagemap, map) = hsk_object_map(doc, o);
    for (unsigned i = 0; i < LIFE_PAGES; i++) {
        uint64_t entry;
        life_must(l,
                  hsk_pagemap_get(map, life_page(i), &entry, &error) &&
                      hsk_content_page(doc->content, entry, pages[i], &error),
                  "a clone: %s", error->message);
    }
}

static void check_clone(struct life *l, const struct life_clone *c, struct hsk_doc *doc)
{
    g_autofree uint8_t(*pages)[HSK_PAGE_SIZE] = g_malloc_n(LIFE_PAGES, HSK_PAGE_SIZE);
    struct hsk_version_info *list = hsk_doc_versions(doc, NULL);
    struct life_version *v = list != NULL ? life_version_titled(l, list->title) : NULL;
    bool ok = false;
    life_must(l, hsk_doc_trusted(doc), "a clone is a stranger's");
    if (c->version != 0)
        life_must(l, v != NULL && v->number == c->version, "a clone of v%u has another version",
                  c->version);
    else if (list != NULL)
        life_must(l, v != NULL && list->kind == HSK_VERSION_SAVED,
                  "a clone of the present goes on with \"%s\"", list->title);
    if (v != NULL) {
        life_must(l, list->next == NULL, "a clone has more than one version");
        check_content(l, doc, list->id, v, true);
    }
    hsk_version_info_free(list);
    read_present(l, doc, pages);
    for (unsigned i = c->first; i <= c->last && c->version == 0 && !ok; i++)
        ok = is_state(pages, &g_array_index(l->disks, struct life_disk, i));
    life_must(l, ok || c->version != 0, "a clone's disk was never that");
}

/* Each is there as a whole, or, before it was acknowledged, not at all. */
static void check_clones(struct life *l, unsigned at)
{
    for (guint i = 0; i < l->clones->len; i++) {
        const struct life_clone *c = &g_array_index(l->clones, struct life_clone, i);
        g_autoptr(GError) error = NULL;
        g_autofree char *path = life_clone_path(l, i);
        if (!g_file_test(path, G_FILE_TEST_EXISTS)) {
            life_must(l, c->done > at, "clone %u is lost", i);
            continue;
        }
        life_must(l, c->begun < at, "clone %u was not made yet", i);
        struct hsk_doc *doc = hsk_doc_open(path, true, NULL, &error);
        life_must(l, doc != NULL, "%s", error->message);
        check_clone(l, c, doc);
        hsk_doc_close(doc);
    }
}

/* ---- all ---- */

/* Nothing lies about that nobody needs. */
static void check_litter(struct life *l, struct hsk_doc *doc)
{
    static const char *const folders[] = {"", "data", "map", "versions", "log"};
    g_autoptr(GError) error = NULL;
    g_autofree char *data = hsk_data_folder();
    g_autofree char *instances = g_build_filename(data, "instances", NULL);
    g_autoptr(GDir) dir = g_dir_open(instances, 0, &error);
    unsigned n = 0;
    g_autofree char *unfinished = g_strconcat(l->s->doc, HSK_UNFINISHED, NULL);
    life_must(l, !g_file_test(unfinished, G_FILE_TEST_EXISTS), "%s was left behind", unfinished);
    for (unsigned i = 0; i < G_N_ELEMENTS(folders); i++)
        check_folder(l, doc, folders[i]);
    while (g_dir_read_name(dir) != NULL)
        n++;
    life_must(l, n == 1, "there are %u instances of one document", n);
}

/* It works on, and is the same after a proper end. */
static void check_goes_on(struct life *l, struct hsk_doc *doc)
{
    g_autoptr(GError) error = NULL;
    g_autofree uint8_t *ram = make_ram(99);
    char id[33];
    life_must(l, write_disk_page(doc, 2, 99) == 0 && hsk_disk_flush(hsk_doc_disk(doc, 0)) == 0,
              "the disk does not go on");
    life_must(l, take(doc, "later", HSK_VERSION_USER, ram, id, &error), "a later version: %s",
              error->message);
    life_must(l, hsk_doc_publish(doc, &error), "a later publish: %s", error->message);
    check_litter(l, doc);
    hsk_doc_close(doc);
    doc = hsk_doc_open(l->s->doc, false, NULL, &error);
    life_must(l, doc != NULL, "%s", error->message);
    assert_disk_page(doc, 2, 99);
    life_must(l, strcmp(hsk_doc_current(doc), id) == 0, "the later version is not current");
    hsk_doc_close(doc);
}

void life_check(struct life *l, unsigned at)
{
    g_autoptr(GError) error = NULL;
    char *orphan = NULL;
    struct hsk_doc *doc = hsk_doc_open(l->s->doc, true, NULL, &error);
    life_must(l, doc != NULL, "%s", error->message);
    life_must(l, l->own_from > at || hsk_doc_trusted(doc), "the document is a stranger's");
    life_must(l, l->generation_at > at || doc->base_root->generation >= l->generation,
              "generation %u is lost", l->generation);
    check_versions(l, doc, at, true);
    hsk_doc_close(doc);
    check_clones(l, at);
    doc = hsk_doc_open(l->s->doc, false, &orphan, &error);
    life_must(l, doc != NULL, "%s", error->message);
    life_must(l, orphan == NULL, "something was put aside: %s", orphan);
    check_versions(l, doc, at, false);
    check_disk(l, doc, at);
    check_current(l, doc, at);
    check_goes_on(l, doc);
    life_must(l, hsk_doc_verify(l->s->doc, NULL, NULL, &error), "%s", error->message);
}

/* ---- damage ---- */

static void check_what_is_left(struct life *l, struct hsk_doc *doc, const char *id,
                               const struct life_version *want)
{
    uint8_t page[HSK_PAGE_SIZE], got[HSK_PAGE_SIZE];
    struct hsk_version *v = hsk_version_open(doc, id, NULL);
    for (unsigned i = 0; v != NULL && i < RAM_PAGES; i++) {
        g_autoptr(GError) error = NULL;
        bool ok = hsk_version_read(v, "ram", i, 1, got, &error);
        life_must(l, ok || error != NULL, "no sentence");
        fill_page(page, i, want->ram[i]);
        life_must(l, !ok || memcmp(page, got, sizeof(page)) == 0,
                  "page %u of the memory of v%u is another one", i, want->number);
    }
    hsk_version_free(v);
}

void life_check_damaged(struct life *l)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *orphan = NULL;
    struct hsk_doc *doc = hsk_doc_open(l->s->doc, false, &orphan, &error);
    life_must(l, doc != NULL || error != NULL, "no sentence");
    struct hsk_version_info *list = doc == NULL ? NULL : hsk_doc_versions(doc, NULL);
    for (struct hsk_version_info *i = list; i != NULL; i = i->next) {
        const struct life_version *v = life_version_titled(l, i->title);
        life_must(l, v != NULL || i->damaged, "\"%s\" was never taken", i->title);
        if (v != NULL)
            check_what_is_left(l, doc, i->id, v);
    }
    hsk_version_info_free(list);
    uint8_t page[HSK_PAGE_SIZE], want[HSK_PAGE_SIZE];
    for (unsigned i = 0; doc != NULL && i < LIFE_PAGES; i++) {
        if (hsk_disk_read(hsk_doc_disk(doc, 0), life_page(i) * HSK_PAGE_SIZE, page, sizeof(page)) !=
            0)
            continue;
        bool ok = false;
        for (guint k = 0; k < l->disks->len && !ok; k++) {
            want_page(want, life_page(i), g_array_index(l->disks, struct life_disk, k).seed[i]);
            ok = memcmp(page, want, sizeof(page)) == 0;
        }
        life_must(l, ok, "page %u of the disk was never that", i);
    }
    hsk_doc_close(doc);
}
