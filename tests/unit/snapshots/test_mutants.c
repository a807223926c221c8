/* SPDX-License-Identifier: MIT */
/*
 * Mutants of real documents and of an instance (mutate.h). Each is opened, read in whole and
 * verified, in a process of its own batch, so that a crash is counted and the run goes on.
 *
 * Wrong data accepted: a read that worked and gave other bytes than were written; two ways to read
 * that do not agree; a signature or a publisher believed that is none; a verify that finds nothing
 * where reading fails; an instance that is older than it was, without a word. For the attacker, who
 * may write what he likes, not the first one.
 *
 * HSK_LONG=1: 120,000 mutants. HSK_SEED=n: other ones. HSK_MUTANT=n: that one alone, in process.
 * HSK_PLANT=1 is the bug that proves that the run can fail: content is compared after a change.
 */
#include <snapshots/verify.h>

#include <rounds.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include "mutate.h"

enum { BATCH = 500, DISK_PAGES = 12, SECONDS = 60 };

enum outcome { REFUSED, PART_REFUSED, HARMLESS, OLDER, WRONG, OUTCOMES };
static const char *const outcome_names[] = {"not opened", "partly refused", "harmless",
                                            "older generation", "WRONG"};

/* What a batch tells its parent. */
struct report {
    unsigned now, counts[MUTATE_WAYS][OUTCOMES], whole[MUTATE_WAYS];
    char words[200];
};

/* ---- looking at all that a document holds ---- */

struct look {
    const struct world *w; /* NULL: notes the truth instead */
    GHashTable *truth;
    bool compare;
    unsigned good, refused;
    char *wrong;
};

static void saw(struct look *l, const char *what, const void *data, size_t bytes)
{
    uint8_t hash[HSK_HASH_BYTES];
    char hex[2 * HSK_HASH_BYTES + 1];
    hsk_hash(data, bytes, hash);
    hsk_hex(hex, hash, sizeof(hash));
    l->good++;
    if (l->w == NULL) {
        g_hash_table_insert(l->truth, g_strdup(what), g_strdup(hex));
        return;
    }
    const char *want = g_hash_table_lookup(l->truth, what);
    if (l->compare && l->wrong == NULL && g_strcmp0(want, hex) != 0)
        l->wrong = g_strdup_printf("%s is not what was written", what);
}

static void look_at_blob(struct look *l, const char *what, GBytes *bytes)
{
    if (bytes == NULL)
        l->refused++;
    else
        saw(l, what, g_bytes_get_data(bytes, NULL), g_bytes_get_size(bytes));
    if (bytes != NULL)
        g_bytes_unref(bytes);
}

/* Does the frame that an entry speaks of have such a page at all? */
static bool possible(struct hsk_doc *doc, uint64_t entry)
{
    HSK_AUTO(hsk_segment, s) = hsk_content_segment(doc->content, hsk_entry_segment(entry), NULL);
    const struct hsk_frame *f = s == NULL ? NULL : hsk_segment_frame(s, hsk_entry_frame(entry));
    return entry == 0 || (f != NULL && hsk_range_ok((uint64_t)hsk_entry_slot(entry) * HSK_PAGE_SIZE,
                                                    HSK_PAGE_SIZE, f->rawsize));
}

/* Reads the first pages; false: it cannot be read. */
static bool look_at_object(struct look *l, const char *what, struct hsk_doc *doc,
                           const struct hsk_object *o)
{
    uint64_t n = MIN(o->size_bytes / HSK_PAGE_SIZE, DISK_PAGES), entry;
    g_autofree uint8_t *buf = g_malloc(n * HSK_PAGE_SIZE);
    HSK_AUTO(hsk_pagemap, map) = hsk_object_map(doc, o);
    for (uint64_t i = 0; i < n; i++) {
        if (!hsk_pagemap_get(map, i, &entry, NULL) ||
            !hsk_content_page(doc->content, entry, buf + i * HSK_PAGE_SIZE, NULL)) {
            l->refused++;
            return false;
        }
        if (!possible(doc, entry) && l->wrong == NULL)
            l->wrong = g_strdup_printf("%s has a page that is none", what);
    }
    saw(l, what, buf, n * HSK_PAGE_SIZE);
    return true;
}

/* A hint only: it may be missing, but what it holds is what was written. */
static void look_at_needed(struct look *l, struct hsk_version *v)
{
    g_autofree char *what = g_strdup_printf("%s needed", v->id);
    GArray *needed = hsk_version_needed(v);
    if (needed == NULL)
        return;
    if (needed->len > 0)
        saw(l, what, needed->data, needed->len * sizeof(uint32_t));
    if (needed->len > HSK_MAX_NEEDED && l->wrong == NULL)
        l->wrong = g_strdup("more pages are needed than there can be");
    g_array_unref(needed);
}

static void look_at_version(struct look *l, struct hsk_doc *doc, const struct hsk_record *r)
{
    struct hsk_version *v = hsk_version_open(doc, r->info.id, NULL);
    bool readable = true;
    if (v == NULL) {
        l->refused++;
        return;
    }
    g_autofree char *text = hsk_record_format(r);
    g_autofree char *record = g_strdup_printf("%s record", r->info.id);
    g_autofree char *state = g_strdup_printf("%s state", r->info.id);
    g_autofree char *picture = g_strdup_printf("%s picture", r->info.id);
    saw(l, record, text, strlen(text));
    for (guint i = 0; i < r->objects->len; i++) {
        const struct hsk_object *o = &g_array_index(r->objects, struct hsk_object, i);
        g_autofree char *what = g_strdup_printf("%s %s", r->info.id, o->name);
        if (!look_at_object(l, what, doc, o) && strcmp(o->name, "ram") == 0)
            readable = false;
    }
    uint64_t bytes = hsk_version_object_size(v, "ram");
    if (bytes != 0 && bytes <= 16 * RAM_BYTES) { /* the way that a resume takes, too */
        g_autofree uint8_t *host = g_malloc0(bytes);
        g_autofree char *what = g_strdup_printf("%s ram", r->info.id);
        bool filled = hsk_version_fill(v, "ram", host, bytes, NULL);
        if (filled)
            saw(l, what, host, bytes);
        else
            l->refused++;
        if (filled && !readable && l->wrong == NULL)
            l->wrong = g_strdup_printf("%s is filled from what cannot be read", what);
    }
    if (r->info.has_state)
        look_at_blob(l, state, hsk_version_state(v, NULL));
    if (r->picture.frames != NULL)
        look_at_blob(l, picture, hsk_version_picture(v, NULL));
    look_at_needed(l, v);
    hsk_version_free(v);
}

static void look_at_member(struct look *l, const char *hex, struct hsk_doc *doc, const char *name)
{
    g_autofree char *what = g_strdup_printf("%s %s", hex, name);
    look_at_blob(l, what, hsk_doc_boot_member(doc, name, NULL));
}

static void look_at(struct look *l, struct hsk_doc *doc)
{
    char hex[2 * HSK_HASH_BYTES + 1];
    hsk_hex(hex, doc->base_hash, HSK_HASH_BYTES);
    g_autofree char *what = g_strdup_printf("%s manifest", hex);
    g_autofree char *manifest = hsk_manifest_format(doc->manifest, NULL);
    if (manifest != NULL)
        saw(l, what, manifest, strlen(manifest));
    look_at_member(l, hex, doc, "boot/kernel");
    look_at_member(l, hex, doc, "boot/initrd");
    for (guint i = 0; doc->readonly && i < doc->root->present->len; i++) {
        const struct hsk_object *o = &g_array_index(doc->root->present, struct hsk_object, i);
        g_autofree char *present = g_strdup_printf("%s present %s", hex, o->name);
        look_at_object(l, present, doc, o);
    }
    for (guint i = 0; i < doc->versions->len; i++)
        look_at_version(l, doc, g_ptr_array_index(doc->versions, i));
}

/* The digest of the disk's first pages as the machine sees them; NULL: they cannot be read. */
static char *look_at_disk(struct hsk_doc *doc)
{
    g_autofree uint8_t *pages = g_malloc(DISK_PAGES * HSK_PAGE_SIZE);
    return hsk_disk_read(hsk_doc_disk(doc, 0), 0, pages, DISK_PAGES * HSK_PAGE_SIZE) != 0
               ? NULL
               : g_compute_checksum_for_data(G_CHECKSUM_SHA256, pages, DISK_PAGES * HSK_PAGE_SIZE);
}

/* ---- one mutant ---- */

/* Every so often somebody also works with it. */
static void work_with(const char *path)
{
    struct hsk_doc *doc = hsk_doc_open(path, false, NULL, NULL);
    if (doc == NULL)
        return;
    g_autofree uint8_t *ram = make_ram(3);
    write_disk_page(doc, 1, 99);
    if (take(doc, "work", HSK_VERSION_USER, ram, NULL, NULL))
        (void)!hsk_doc_publish(doc, NULL);
    for (guint i = doc->versions->len; i-- > 0 && doc->versions->len < 10;) {
        const struct hsk_record *r = g_ptr_array_index(doc->versions, i);
        g_autofree char *id = g_strdup(r->info.id);
        (void)!hsk_doc_drop(doc, id, NULL);
    }
    (void)!hsk_doc_publish(doc, NULL);
    hsk_doc_close(doc);
    (void)!hsk_doc_verify(path, NULL, NULL, NULL);
}

/* The document's signature, but for its first line. */
static char *signature_of(const struct hsk_doc *doc)
{
    gsize n = 0;
    g_autoptr(GBytes) bytes = hsk_carrier_read(doc->base, "ROOT.minisig", 1u << 16, NULL);
    const char *text = bytes == NULL ? NULL : g_bytes_get_data(bytes, &n);
    const char *line = text == NULL ? NULL : memchr(text, '\n', n);
    return line == NULL ? g_strdup("") : g_strndup(line, n - (gsize)(line - text));
}

/* What is wrong about the trust in it, or NULL. */
static const char *believed(const struct world *w, struct hsk_doc *doc, const char *hex,
                            bool attacker)
{
    HSK_AUTO(hsk_trust_report, t) = hsk_doc_trust(doc);
    g_autofree char *signature = signature_of(doc);
    if (t->trust == HSK_TRUST_PUBLISHER && !g_hash_table_contains(w->signed_roots, hex))
        return "a publisher is believed who has not signed";
    if (t->sign == HSK_SIGNED_GOOD && !attacker && strcmp(signature, w->signature) != 0)
        return "a signature is believed that nobody made";
    return NULL;
}

/* A mutant of the instance, with the second document. */
static enum outcome judge_own(const struct world *w, unsigned way, char **why)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *orphan = NULL, *disk = NULL;
    struct look l = {.w = w, .truth = w->truth, .compare = true};
    struct hsk_doc *doc = hsk_doc_open(w->path, false, &orphan, &error);
    if (doc == NULL) {
        *why = error == NULL ? g_strdup("refused without a sentence") : NULL;
        return error == NULL ? WRONG : REFUSED;
    }
    look_at(&l, doc);
    disk = look_at_disk(doc);
    unsigned versions = doc->versions->len;
    hsk_doc_close(doc);
    bool newest = g_strcmp0(disk, w->newest_disk) == 0 && versions == w->newest_versions;
    if (l.wrong != NULL)
        *why = g_steal_pointer(&l.wrong);
    else if (disk != NULL && !g_hash_table_contains(w->disks, disk))
        *why = g_strdup("the disk was never that");
    else if (mutate_part_of(way) == PART_OWN_ROOT && disk != NULL && !newest && orphan == NULL)
        *why = g_strdup("an older state, and nobody was told");
    return *why != NULL                    ? WRONG
           : l.refused > 0 || disk == NULL ? PART_REFUSED
           : newest                        ? HARMLESS
                                           : OLDER;
}

static enum outcome judge(const struct world *w, unsigned way, unsigned which, char **why,
                          bool *whole)
{
    g_autoptr(GError) error = NULL;
    struct hsk_doc *doc = hsk_doc_open(w->path, true, NULL, &error);
    HSK_AUTO(hsk_check_result, r) = hsk_doc_check(w->path, NULL, NULL, NULL);
    *whole = r != NULL && r->whole;
    if (doc == NULL) {
        if (error == NULL || strchr(error->message, '\n') != NULL || r != NULL) {
            *why = g_strdup("refused without one sentence");
            return WRONG;
        }
        return REFUSED;
    }
    char hex[2 * HSK_HASH_BYTES + 1];
    hsk_hex(hex, doc->base_hash, HSK_HASH_BYTES);
    struct look l = {.w = w, .truth = w->truth, .compare = !mutate_by_attacker(way)};
    look_at(&l, doc);
    const char *too_much = believed(w, doc, hex, mutate_by_attacker(way));
    if (l.wrong != NULL)
        *why = g_steal_pointer(&l.wrong);
    else if (too_much != NULL)
        *why = g_strdup(too_much);
    else if (r == NULL || (r->whole && l.refused > 0))
        *why = g_strdup("verify finds nothing, but reading fails");
    hsk_doc_close(doc);
    if (*why != NULL)
        return WRONG;
    if (l.refused > 0)
        return PART_REFUSED;
    return strcmp(hex, w->newest[which]) == 0 || mutate_by_attacker(way) ? HARMLESS : OLDER;
}

static void forget_instances(void)
{
    g_autofree char *data = hsk_data_folder();
    g_autofree char *instances = g_build_filename(data, "instances", NULL);
    remove_tree(instances);
}

static void run_one(const struct world *w, uint64_t seed, unsigned number, struct report *out)
{
    uint64_t x = (seed + 1) * 0x9E3779B97F4A7C15ull ^ (number + 1) * 0xD1B54A32D192ED03ull;
    unsigned way = number % MUTATE_WAYS, which = (unsigned)mutate_below(&x, 2);
    if (mutate_part_of(way) == PART_SIGNATURE)
        which = 0; /* the second one has none */
    g_autoptr(GByteArray) file = mutate(w, way, which, &x);
    g_autofree char *why = NULL;
    bool whole = false;
    bool own = mutate_is_own(way);
    close(make_file(w->path, own ? w->files[1] : file->data, own ? w->sizes[1] : file->len));
    if (own) {
        forget_instances();
        mutate_write_own(w, file);
    }
    alarm(SECONDS);
    enum outcome o = own ? judge_own(w, way, &why) : judge(w, way, which, &why, &whole);
    if (mutate_below(&x, 8) == 0)
        work_with(w->path);
    out->counts[way][o]++;
    out->whole[way] += whole;
    if (why != NULL)
        g_snprintf(out->words, sizeof(out->words), "mutant %u (%s): %s", number, mutate_name(way),
                   why);
}

/* ---- the run ---- */

static void note_truth(struct world *w, const struct scratch *s)
{
    struct look l = {.truth = w->truth};
    struct hsk_doc *doc;
    assert_ok((doc = hsk_doc_open(s->doc, true, NULL, &error)) != NULL);
    look_at(&l, doc);
    assert_int_equal(l.refused, 0);
    hsk_doc_close(doc);
}

static char *root_hash(const struct scratch *s)
{
    char hex[2 * HSK_HASH_BYTES + 1];
    struct hsk_doc *doc;
    assert_ok((doc = hsk_doc_open(s->doc, true, NULL, &error)) != NULL);
    hsk_hex(hex, doc->base_hash, HSK_HASH_BYTES);
    hsk_doc_close(doc);
    return g_strdup(hex);
}

static bool take_all(struct hsk_doc *doc, enum hsk_version_kind kind, const uint8_t *ram,
                     GError **error)
{
    static const uint32_t needed[] = {5, 1, 2, 70000};
    struct hsk_version_object o = {.name = "ram", .size_bytes = RAM_BYTES, .pages = ram};
    struct hsk_take t = {.title = "t",
                         .kind = kind,
                         .engine = "soft",
                         .cpu = "v2",
                         .objects = &o,
                         .nobjects = 1,
                         .state = ram, /* as hard to pack as memory */
                         .state_bytes = 2000,
                         .picture_png = ram + HSK_PAGE_SIZE,
                         .picture_bytes = 2000,
                         .needed = needed,
                         .nneeded = G_N_ELEMENTS(needed)};
    return hsk_version_commit(doc, hsk_take_begin(doc), &t, NULL, NULL, error);
}

static void note_disk(struct world *w, struct hsk_doc *doc)
{
    g_free(w->newest_disk);
    w->newest_disk = look_at_disk(doc);
    g_hash_table_add(w->disks, g_strdup(w->newest_disk));
}

/* The second document goes on in its instance: a point of the timeline and what came after it. */
static void make_own(struct world *w, const struct scratch *s)
{
    g_autofree uint8_t *ram = make_ram(9);
    g_autofree char *data = hsk_data_folder();
    struct hsk_doc *doc = open_doc(s);
    struct look l = {.truth = w->truth};
    note_disk(w, doc);
    assert_ok(take_all(doc, HSK_VERSION_AUTO, ram, &error));
    for (unsigned i = 0; i < 6; i++) {
        assert_int_equal(write_disk_page(doc, 1 + i % 4 * 2 % 7, 40 + i), 0);
        note_disk(w, doc);
    }
    look_at(&l, doc);
    w->newest_versions = doc->versions->len;
    assert_int_equal(l.refused, 0);
    g_autofree char *folder = g_build_filename(data, "instances", hsk_doc_instance(doc), NULL);
    hsk_doc_close(doc);
    mutate_know_own(w, folder);
}

static void note_signature(struct world *w, const struct scratch *s)
{
    struct hsk_doc *doc;
    assert_ok((doc = hsk_doc_open(s->doc, true, NULL, &error)) != NULL);
    w->signature = signature_of(doc);
    hsk_doc_close(doc);
}

/* Two documents of several generations; the first is signed, and is changed afterwards in the
 * second. */
static void make_world(struct world *w, const struct scratch *s)
{
    w->disks = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    w->truth = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
    w->signed_roots = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    hsk_seckey_new(&w->publisher);
    hsk_seckey_new(&w->attacker);
    memcpy(w->attacker.public.id, w->publisher.public.id, 8); /* "the same key id" */
    assert_ok(make_document(s, NULL, &error));
    note_truth(w, s);
    for (unsigned i = 0; i < 3; i++) {
        g_autofree uint8_t *ram = make_ram(i);
        struct hsk_doc *doc = open_doc(s);
        assert_int_equal(write_disk_page(doc, 5 + i, 20 + i), 0);
        assert_ok(take_all(doc, i == 1 ? HSK_VERSION_SAVED : HSK_VERSION_USER, ram, &error));
        assert_ok(hsk_doc_publish(doc, &error));
        hsk_doc_close(doc);
        note_truth(w, s);
        if (i == 0)
            continue;
        if (i == 1) {
            assert_ok(hsk_doc_sign(s->doc, &w->publisher, "Ada", &error));
            g_hash_table_add(w->signed_roots, root_hash(s));
            note_signature(w, s);
        }
        w->newest[i - 1] = root_hash(s);
        assert_true(g_file_get_contents(s->doc, (char **)&w->files[i - 1], &w->sizes[i - 1], NULL));
        mutate_know(w, i - 1, s->doc);
    }
    make_own(w, s);
    /* the mutants come from elsewhere: nothing of this was written here */
    g_autofree char *data = hsk_data_folder();
    remove_tree(data);
    assert_ok(hsk_publisher_add(&w->publisher.public, "Ada", &error));
}

static void child(const struct world *w, uint64_t seed, unsigned from, unsigned to,
                  struct report *out)
{
    if (getenv("HSK_PLANT") != NULL) { /* as if a reader accepted other bytes */
        GHashTableIter it;
        gpointer digest;
        g_hash_table_iter_init(&it, w->truth);
        g_hash_table_iter_next(&it, NULL, &digest);
        ((char *)digest)[0] ^= 1;
    }
    for (unsigned i = from; i < to; i++) {
        out->now = i;
        run_one(w, seed, i, out);
    }
    g_autofree char *data = hsk_data_folder();
    g_autofree char *trusted = g_build_filename(data, "trusted", NULL);
    forget_instances();
    remove_tree(trusted);
    _exit(0);
}

static void print(const struct report *r, unsigned n, unsigned crashes, double cpu)
{
    unsigned sum[OUTCOMES] = {0};
    printf("%-22s", "");
    for (unsigned o = 0; o < OUTCOMES; o++)
        printf(" %16s", outcome_names[o]);
    printf(" %16s\n", "verify: whole");
    for (unsigned i = 0; i < MUTATE_WAYS; i++) {
        printf("%-22s", mutate_name(i));
        for (unsigned o = 0; o < OUTCOMES; o++) {
            printf(" %16u", r->counts[i][o]);
            sum[o] += r->counts[i][o];
        }
        printf(" %16u\n", r->whole[i]);
    }
    printf("%-22s", "all");
    for (unsigned o = 0; o < OUTCOMES; o++)
        printf(" %16u", sum[o]);
    printf("\n%u mutants, wrong data accepted %u, crashes %u, %.0f CPU s\n", n, sum[WRONG], crashes,
           cpu);
}

/* Not a cmocka test: that catches signals, and a mutant's crash is to end its process. */
static bool no_mutant_is_believed(const struct scratch *s)
{
    struct world w = {0};
    const char *seed_text = getenv("HSK_SEED"), *only = getenv("HSK_MUTANT");
    uint64_t seed = seed_text != NULL ? strtoull(seed_text, NULL, 10) : 1;
    unsigned n = test_rounds(4200, 120008), crashes = 0, wrong = 0;
    struct report *r =
        mmap(NULL, sizeof(*r), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(r != MAP_FAILED);
    make_world(&w, s);
    w.path = s->doc;
    if (only != NULL) {
        run_one(&w, seed, (unsigned)strtoul(only, NULL, 10), r);
        printf("%s\n", r->words);
        return r->words[0] == '\0';
    }
    for (unsigned from = 0; from < n && crashes < 20;) {
        unsigned to = MIN(from + BATCH, n);
        fflush(stdout);
        pid_t pid = fork();
        int status;
        if (pid == 0)
            child(&w, seed, from, to, r);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        from = to;
        if (status != 0) {
            printf("mutant %u: %s\n", r->now,
                   WIFSIGNALED(status) ? strsignal(WTERMSIG(status)) : "the process ended");
            crashes++;
            from = r->now + 1;
        }
        if (r->words[0] != '\0')
            printf("%s\n", r->words);
        r->words[0] = '\0';
    }
    struct rusage used;
    getrusage(RUSAGE_CHILDREN, &used);
    for (unsigned i = 0; i < MUTATE_WAYS; i++)
        wrong += r->counts[i][WRONG];
    print(r, n, crashes, (double)used.ru_utime.tv_sec + (double)used.ru_stime.tv_sec);
    munmap(r, sizeof(*r));
    mutate_forget(&w);
    return wrong == 0 && crashes == 0;
}

int main(void)
{
    g_autofree char *data = scratch_data_home();
    void *state;
    scratch_setup(&state);
    bool ok = no_mutant_is_believed(state);
    scratch_teardown(&state);
    remove_tree(data);
    return ok ? 0 : 1;
}
