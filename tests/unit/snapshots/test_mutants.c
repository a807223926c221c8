/* SPDX-License-Identifier: MIT */
/*
 * Mutants of real documents: bits flipped, bytes overwritten, headers rewritten with good
 * checksums, members swapped, files cut off, and a "signed attacker" who makes every hash fit his
 * nonsense. Each is opened, read in whole and verified, in a process of its own batch, so that a
 * crash is counted and the run goes on.
 *
 * Wrong data accepted: a read that worked and gave other bytes than were written; a publisher
 * believed who has not signed; a verify that finds nothing where reading fails. For the attacker,
 * who may write what he likes, only the last two.
 *
 * HSK_LONG=1: 120,000 mutants. HSK_SEED=n: other ones. HSK_MUTANT=n: that one alone, in process.
 * HSK_PLANT=1 is the bug that proves that the run can fail: content is compared after a change.
 */
#define RAM_PAGES 8u
#include <snapshots/verify.h>

#include <rounds.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include "forge.h"

enum { BATCH = 500, DISK_PAGES = 12, SECONDS = 60 };

enum outcome { REFUSED, PART_REFUSED, HARMLESS, OLDER, WRONG, OUTCOMES };
static const char *const outcome_names[] = {"not opened", "partly refused", "harmless",
                                            "older generation", "WRONG"};

struct world {
    uint8_t *files[2];
    gsize sizes[2];
    GHashTable *truth; /* what -> digest, in hex */
    GHashTable *signed_roots;
    char *newest[2]; /* ROOT's hash */
    struct hsk_seckey publisher, attacker;
    const char *path;
};

/* What a batch tells its parent. */
struct report {
    unsigned now, counts[16][OUTCOMES], whole[16];
    char words[200];
};

/* ---- chance ---- */

static uint64_t next(uint64_t *x)
{
    *x ^= *x << 13;
    *x ^= *x >> 7;
    *x ^= *x << 17;
    return *x * 0x2545F4914F6CDD1Dull >> 16;
}
static uint64_t below(uint64_t *x, uint64_t n)
{
    return n == 0 ? 0 : next(x) % n;
}

/* Numbers that break things. */
static uint64_t odd_number(uint64_t *x)
{
    static const uint64_t odd[] = {0,
                                   1,
                                   2,
                                   127,
                                   128,
                                   255,
                                   4095,
                                   4096,
                                   65535,
                                   65536,
                                   0x7fffffff,
                                   0x80000000,
                                   0xffffffff,
                                   1ull << 32,
                                   1ull << 44,
                                   1ull << 60,
                                   1ull << 63,
                                   ~0ull,
                                   ~0ull - 1,
                                   1ull << 20,
                                   262144,
                                   262145,
                                   0x7fffffffffffffff};
    return below(x, 4) == 0 ? next(x) : odd[below(x, G_N_ELEMENTS(odd))];
}

static void change_bytes(uint8_t *p, size_t n, uint64_t *x)
{
    if (n == 0)
        return;
    size_t at = below(x, n), wish = 1 + below(x, 64), run = MIN(wish, n - at);
    switch (below(x, 6)) {
    case 0:
        p[at] ^= (uint8_t)(1 << below(x, 8));
        break;
    case 1:
        memset(p + at, (int)(below(x, 2) * 255), run);
        break;
    case 2:
        for (size_t i = 0; i < run; i++)
            p[at + i] = (uint8_t)next(x);
        break;
    case 3: /* from elsewhere */
        memmove(p + at, p + below(x, n - run + 1), run);
        break;
    case 4:
        if (n >= 8) {
            at = below(x, n - 7) & ~3ull;
            hsk_put32(p + at, (uint32_t)odd_number(x));
        }
        break;
    default:
        if (n >= 8)
            hsk_put64(p + below(x, n - 7), odd_number(x));
    }
}

/* A number in text becomes another one. */
static void change_number(struct forged_member *m, uint64_t *x)
{
    g_autofree char *text = forge_text(m);
    size_t len = strlen(text), at = below(x, len + 1);
    while (at < len && !g_ascii_isdigit(text[at]))
        at++;
    size_t end = at;
    while (end < len && g_ascii_isdigit(text[end]))
        end++;
    text[at] = '\0';
    g_autofree char *all =
        g_strdup_printf("%s%" PRIu64 "%s", text, odd_number(x), end < len ? text + end : "");
    if (end > at && end < len)
        forge_set(m, all);
}

/* ---- the ways ---- */

static GByteArray *copy_of(const struct world *w, unsigned which)
{
    return g_byte_array_append(g_byte_array_new(), w->files[which], (guint)w->sizes[which]);
}

static GByteArray *flipped_bits(const struct world *w, unsigned which, uint64_t *x)
{
    GByteArray *a = copy_of(w, which);
    for (uint64_t n = 1 + below(x, 3); n > 0; n--)
        a->data[below(x, a->len)] ^= (uint8_t)(1 << below(x, 8));
    return a;
}

static GByteArray *overwritten(const struct world *w, unsigned which, uint64_t *x)
{
    GByteArray *a = copy_of(w, which);
    for (uint64_t n = 1 + below(x, 4); n > 0; n--)
        change_bytes(a->data, a->len, x);
    return a;
}

static GByteArray *tail_bytes(const struct world *w, unsigned which, uint64_t *x)
{
    GByteArray *a = copy_of(w, which);
    size_t n = MIN(a->len, 4096u);
    for (uint64_t k = 1 + below(x, 4); k > 0; k--)
        change_bytes(a->data + a->len - n, n, x);
    return a;
}

static GByteArray *cut_off(const struct world *w, unsigned which, uint64_t *x)
{
    GByteArray *a = copy_of(w, which);
    size_t at = below(x, a->len), missing = (1 + below(x, 8)) * 512;
    if (below(x, 2) != 0)
        at &= ~511ull;
    if (below(x, 3) == 0) /* bytes are missing in the middle */
        g_byte_array_remove_range(a, (guint)at, (guint)MIN(missing, a->len - at));
    else
        g_byte_array_set_size(a, (guint)at);
    if (below(x, 3) == 0) { /* and the end is an end */
        static const uint8_t zeros[1024];
        g_byte_array_append(a, zeros, sizeof(zeros));
    }
    return a;
}

static GByteArray *rewritten_headers(const struct world *w, unsigned which, uint64_t *x)
{
    GByteArray *a = copy_of(w, which);
    size_t headers[256], n = 0;
    for (size_t pos = 0; pos + 512 <= a->len && a->data[pos] != 0 && n < 256;) {
        g_autofree char *size = g_strndup((const char *)a->data + pos + 124, 12);
        headers[n++] = pos;
        pos += 512 + (strtoull(size, NULL, 8) + 511) / 512 * 512;
    }
    uint8_t *h = a->data + headers[below(x, n)];
    const uint8_t *other = a->data + headers[below(x, n)];
    switch (below(x, 5)) {
    case 0:
        memcpy(h, other, 100); /* another name */
        break;
    case 1:
        memcpy(h + 124, other + 124, 12); /* another size */
        break;
    case 2:
        h[156] = (uint8_t)next(x);
        break;
    case 3:
        h[124 + below(x, 12)] = (uint8_t)('0' + below(x, 8));
        break;
    default:
        change_bytes(h, 512, x);
    }
    forge_checksum(h);
    return a;
}

static GByteArray *shuffled_members(const struct world *w, unsigned which, uint64_t *x)
{
    HSK_AUTO(forgery, f) = forge_load(w->files[which], w->sizes[which]);
    HSK_AUTO(forgery, g) = forge_load(w->files[!which], w->sizes[!which]);
    for (uint64_t k = 1 + below(x, 3); k > 0 && f->members->len > 1; k--) {
        struct forged_member *m = g_ptr_array_index(f->members, below(x, f->members->len)),
                             *o = g_ptr_array_index(f->members, below(x, f->members->len)),
                             *p = g_ptr_array_index(g->members, below(x, g->members->len));
        GByteArray *data = m->data;
        switch (below(x, 6)) {
        case 0: /* contents */
            m->data = o->data;
            o->data = data;
            break;
        case 1: { /* places */
            struct forged_member t = *m;
            *m = *o;
            *o = t;
            break;
        }
        case 2:
            forge_add(f, o->name, o->data->data, o->data->len);
            break;
        case 3: /* of the other document, or of a generation before */
            forge_add(f, p->name, p->data->data, p->data->len);
            break;
        case 4:
            g_byte_array_set_size(m->data, (guint)below(x, m->data->len + 1));
            break;
        default:
            g_ptr_array_remove(f->members, m);
        }
    }
    return forge_file(f);
}

static struct forged_member *some_member(struct forgery *f, const char *folder, uint64_t *x)
{
    struct forged_member *m = NULL;
    unsigned n = 0;
    for (guint i = 0; i < f->members->len; i++) {
        struct forged_member *c = g_ptr_array_index(f->members, i);
        if (g_str_has_prefix(c->name, folder) && below(x, ++n) == 0)
            m = c;
    }
    return m;
}

/* The attacker changes a member of that folder and makes all hashes fit; or not all. */
static GByteArray *attacked(const struct world *w, unsigned which, uint64_t *x, const char *folder)
{
    HSK_AUTO(forgery, f) = forge_load(w->files[which], w->sizes[which]);
    for (uint64_t k = 1 + below(x, 3); k > 0; k--) {
        struct forged_member *m = some_member(f, folder, x);
        if (m == NULL)
            break;
        if (below(x, 3) == 0 && (m->data->len < 16 || m->data->data[0] < 0x80))
            change_number(m, x);
        else if (g_str_has_suffix(folder, "zst") || strcmp(folder, "data/") == 0 ||
                 strcmp(folder, "disks/") == 0) {
            size_t tables = MIN(m->data->len, 64u * 12); /* frames, or what speaks of them */
            bool table = below(x, 2) != 0;
            change_bytes(m->data->data + (table ? m->data->len - tables : 0),
                         table ? tables : m->data->len, x);
        } else {
            change_bytes(m->data->data, m->data->len, x);
        }
    }
    forge_seal(f, below(x, 2) != 0 ? &w->attacker : NULL);
    return forge_file(f);
}

#define ATTACK(name, folder)                                                                       \
    static GByteArray *name(const struct world *w, unsigned which, uint64_t *x)                    \
    {                                                                                              \
        return attacked(w, which, x, folder);                                                      \
    }
ATTACK(attacked_data, "data/")
ATTACK(attacked_disks, "disks/")
ATTACK(attacked_maps, "map/")
ATTACK(attacked_records, "versions/")
ATTACK(attacked_roots, "ROOT")
ATTACK(attacked_manifests, "manifest.json")
ATTACK(attacked_anything, "")

static const struct {
    const char *name;
    GByteArray *(*make)(const struct world *w, unsigned which, uint64_t *x);
    bool attacker; /* every hash may be right */
} ways[] = {
    {"bits flipped", flipped_bits, false},
    {"bytes overwritten", overwritten, false},
    {"bytes of the tail", tail_bytes, false},
    {"cut off", cut_off, false},
    {"headers rewritten", rewritten_headers, false},
    {"members shuffled", shuffled_members, false},
    {"attacker: frames", attacked_data, true},
    {"attacker: disk", attacked_disks, true},
    {"attacker: maps", attacked_maps, true},
    {"attacker: records", attacked_records, true},
    {"attacker: ROOT", attacked_roots, true},
    {"attacker: manifest", attacked_manifests, true},
    {"attacker: anything", attacked_anything, true},
};
G_STATIC_ASSERT(G_N_ELEMENTS(ways) <= 16);

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

static void look_at_object(struct look *l, const char *what, struct hsk_doc *doc,
                           const struct hsk_object *o)
{
    uint64_t n = MIN(o->size_bytes / HSK_PAGE_SIZE, DISK_PAGES), entry;
    g_autofree uint8_t *buf = g_malloc(n * HSK_PAGE_SIZE);
    HSK_AUTO(hsk_pagemap, map) = hsk_object_map(doc, o);
    for (uint64_t i = 0; i < n; i++) {
        if (!hsk_pagemap_get(map, i, &entry, NULL) ||
            !hsk_content_page(doc->content, entry, buf + i * HSK_PAGE_SIZE, NULL)) {
            l->refused++;
            return;
        }
    }
    saw(l, what, buf, n * HSK_PAGE_SIZE);
}

static void look_at_version(struct look *l, struct hsk_doc *doc, const struct hsk_record *r)
{
    struct hsk_version *v = hsk_version_open(doc, r->info.id, NULL);
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
        look_at_object(l, what, doc, o);
    }
    uint64_t bytes = hsk_version_object_size(v, "ram");
    if (bytes != 0 && bytes <= 16 * RAM_BYTES) { /* the way that a resume takes, too */
        g_autofree uint8_t *host = g_malloc0(bytes);
        g_autofree char *what = g_strdup_printf("%s ram", r->info.id);
        if (hsk_version_fill(v, "ram", host, bytes, NULL))
            saw(l, what, host, bytes);
        else
            l->refused++;
    }
    if (r->info.has_state)
        look_at_blob(l, state, hsk_version_state(v, NULL));
    if (r->picture.frames != NULL)
        look_at_blob(l, picture, hsk_version_picture(v, NULL));
    /* a hint only: it may be missing or nonsense, but not harmful */
    GArray *needed = hsk_version_needed(v);
    if (needed != NULL)
        g_array_unref(needed);
    hsk_version_free(v);
}

static void look_at(struct look *l, struct hsk_doc *doc)
{
    char hex[2 * HSK_HASH_BYTES + 1];
    hsk_hex(hex, doc->base_hash, HSK_HASH_BYTES);
    g_autofree char *kernel = g_strdup_printf("%s kernel", hex);
    g_autofree char *name = g_strdup_printf("%s name", hex);
    saw(l, name, doc->manifest->name, strlen(doc->manifest->name));
    look_at_blob(l, kernel, hsk_doc_boot_member(doc, "boot/kernel", NULL));
    for (guint i = 0; i < doc->root->present->len; i++) {
        const struct hsk_object *o = &g_array_index(doc->root->present, struct hsk_object, i);
        g_autofree char *what = g_strdup_printf("%s present %s", hex, o->name);
        look_at_object(l, what, doc, o);
    }
    for (guint i = 0; i < doc->versions->len; i++)
        look_at_version(l, doc, g_ptr_array_index(doc->versions, i));
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
    struct look l = {.w = w, .truth = w->truth, .compare = !ways[way].attacker};
    look_at(&l, doc);
    HSK_AUTO(hsk_trust_report, t) = hsk_doc_trust(doc);
    if (l.wrong != NULL)
        *why = g_steal_pointer(&l.wrong);
    else if (t->trust == HSK_TRUST_PUBLISHER && !g_hash_table_contains(w->signed_roots, hex))
        *why = g_strdup("a publisher is believed who has not signed");
    else if (r == NULL || (r->whole && l.refused > 0))
        *why = g_strdup("verify finds nothing, but reading fails");
    hsk_doc_close(doc);
    if (*why != NULL)
        return WRONG;
    if (l.refused > 0)
        return PART_REFUSED;
    return strcmp(hex, w->newest[which]) == 0 || ways[way].attacker ? HARMLESS : OLDER;
}

static void run_one(const struct world *w, uint64_t seed, unsigned number, struct report *out)
{
    uint64_t x = (seed + 1) * 0x9E3779B97F4A7C15ull ^ (number + 1) * 0xD1B54A32D192ED03ull;
    unsigned way = number % G_N_ELEMENTS(ways), which = (unsigned)below(&x, 2);
    g_autoptr(GByteArray) file = ways[way].make(w, which, &x);
    g_autofree char *why = NULL;
    bool whole = false;
    HSK_AUTOFD fd = open(w->path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    hsk_assert(fd >= 0 && hsk_pwrite_all(fd, file->data, file->len, 0) == 0);
    alarm(SECONDS);
    enum outcome o = judge(w, way, which, &why, &whole);
    if (number % 64 < G_N_ELEMENTS(ways))
        work_with(w->path);
    out->counts[way][o]++;
    out->whole[way] += whole;
    if (why != NULL)
        g_snprintf(out->words, sizeof(out->words), "mutant %u (%s): %s", number, ways[way].name,
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

/* Two documents of several generations; the first is signed, and is changed afterwards in the
 * second. */
static void make_world(struct world *w, const struct scratch *s)
{
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
        assert_ok(take(doc, "t", i == 1 ? HSK_VERSION_SAVED : HSK_VERSION_USER, ram, NULL, &error));
        assert_ok(hsk_doc_publish(doc, &error));
        hsk_doc_close(doc);
        note_truth(w, s);
        if (i == 0)
            continue;
        if (i == 1) {
            assert_ok(hsk_doc_sign(s->doc, &w->publisher, "Ada", &error));
            g_hash_table_add(w->signed_roots, root_hash(s));
        }
        w->newest[i - 1] = root_hash(s);
        assert_true(g_file_get_contents(s->doc, (char **)&w->files[i - 1], &w->sizes[i - 1], NULL));
    }
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
    g_autofree char *instances = g_build_filename(data, "instances", NULL);
    g_autofree char *trusted = g_build_filename(data, "trusted", NULL);
    remove_tree(instances);
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
    for (unsigned i = 0; i < G_N_ELEMENTS(ways); i++) {
        printf("%-22s", ways[i].name);
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
    unsigned n = test_rounds(3900, 120120), crashes = 0, wrong = 0;
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
    for (unsigned i = 0; i < G_N_ELEMENTS(ways); i++)
        wrong += r->counts[i][WRONG];
    print(r, n, crashes, (double)used.ru_utime.tv_sec + (double)used.ru_stime.tv_sec);
    munmap(r, sizeof(*r));
    for (unsigned i = 0; i < 2; i++) {
        g_free(w.files[i]);
        g_free(w.newest[i]);
    }
    g_hash_table_unref(w.truth);
    g_hash_table_unref(w.signed_roots);
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
