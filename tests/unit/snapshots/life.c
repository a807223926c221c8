/* SPDX-License-Identifier: MIT */
/*
 * Lives of documents and the model of what they promise (life.h): the machine's side, which writes,
 * takes and goes back; life-edit.c has what its user does with the versions. One thread.
 */
#include "life-steps.h"

uint64_t life_page(unsigned i)
{
    return i + i / 3;
}

struct life_version *life_version_titled(const struct life *l, const char *title)
{
    unsigned number = title[0] == 'v' ? (unsigned)strtoul(title + 1, NULL, 10) : 0;
    if (number == 0 || number > l->versions->len)
        return NULL;
    struct life_version *v = g_ptr_array_index(l->versions, number - 1);
    for (guint i = 0; i < v->words->len; i++) {
        g_autofree char *name = life_title(v, &g_array_index(v->words, struct life_words, i));
        if (strcmp(name, title) == 0)
            return v;
    }
    return NULL;
}

char *life_title(const struct life_version *v, const struct life_words *w)
{
    return w->name == 0 ? g_strdup_printf("v%u", v->number)
                        : g_strdup_printf("v%u.%u", v->number, w->name);
}

struct life_words *life_words_now(const struct life_version *v)
{
    guint i = v->words->len - 1;
    while (i > 0 && g_array_index(v->words, struct life_words, i).done == NEVER)
        i--;
    return &g_array_index(v->words, struct life_words, i);
}

static void version_free(gpointer p)
{
    g_array_unref(((struct life_version *)p)->words);
    g_free(p);
}

unsigned life_now(struct life *l)
{
    return l->journal != NULL ? journal_now(l->journal) : ++l->clock;
}

static const struct life_disk *disk_now(const struct life *l)
{
    return &g_array_index(l->disks, struct life_disk, l->disks->len - 1);
}

static void add_disk(struct life *l, unsigned at, const uint8_t seed[LIFE_PAGES])
{
    struct life_disk d = {.at = at};
    memcpy(d.seed, seed, LIFE_PAGES);
    g_array_append_val(l->disks, d);
}

void life_promise(struct life *l, unsigned state)
{
    struct life_promise p = {life_now(l), state};
    g_array_append_val(l->promises, p);
}

static void add_current(struct life *l, unsigned begun, unsigned done, unsigned version,
                        unsigned state)
{
    struct life_current c = {begun, done, version, state};
    g_array_append_val(l->currents, c);
}

struct life *life_new(const struct scratch *s, struct journal *journal, uint32_t seed)
{
    struct life *l = g_new0(struct life, 1);
    uint8_t seeds[LIFE_PAGES];
    *l = (struct life){.s = s, .journal = journal, .rand = g_rand_new_with_seed(seed)};
    l->versions = g_ptr_array_new_with_free_func(version_free);
    l->disks = g_array_new(FALSE, FALSE, sizeof(struct life_disk));
    l->promises = g_array_new(FALSE, FALSE, sizeof(struct life_promise));
    l->currents = g_array_new(FALSE, FALSE, sizeof(struct life_current));
    l->clones = g_array_new(FALSE, FALSE, sizeof(struct life_clone));
    l->next_seed = 20;
    memset(seeds, 7, sizeof(seeds));
    add_disk(l, 0, seeds);
    struct life_promise first = {0, 0};
    g_array_append_val(l->promises, first);
    add_current(l, 0, 0, 0, 0);
    memset(l->ram, 1, sizeof(l->ram));
    g_autofree char *data = hsk_data_folder();
    l->own_from = g_file_test(data, G_FILE_TEST_EXISTS) ? 0 : NEVER;
    g_snprintf(l->where, sizeof(l->where), "life %u", seed);
    return l;
}

void life_free(struct life *l)
{
    hsk_doc_close(l->doc);
    for (guint i = 0; i < l->clones->len; i++) {
        g_autofree char *path = life_clone_path(l, i);
        unlink(path);
    }
    g_array_unref(l->clones);
    g_rand_free(l->rand);
    g_ptr_array_unref(l->versions);
    g_array_unref(l->disks);
    g_array_unref(l->promises);
    g_array_unref(l->currents);
    g_free(l);
}

/* ---- steps ---- */

static uint8_t new_seed(struct life *l)
{
    l->next_seed = l->next_seed == 255 ? 20 : l->next_seed + 1;
    return (uint8_t)l->next_seed;
}

unsigned life_chance(struct life *l, unsigned n)
{
    return g_rand_int(l->rand) % n;
}

bool life_failed(struct life *l, const char *what, GError **error)
{
    life_must(l, *error != NULL, "%s failed without a sentence", what);
    life_must(l, l->may_fail, "%s: %s", what, (*error)->message);
    g_clear_error(error);
    return false;
}

static void write_page(struct life *l)
{
    uint8_t seed[LIFE_PAGES], page[HSK_PAGE_SIZE];
    unsigned i = life_chance(l, LIFE_PAGES), at = life_now(l);
    struct hsk_disk *disk = hsk_doc_disk(l->doc, 0);
    memcpy(seed, disk_now(l)->seed, sizeof(seed));
    seed[i] = life_chance(l, 8) == 0 ? 0 : new_seed(l);
    fill_page(page, life_page(i), seed[i]);
    int r = seed[i] == 0 ? hsk_disk_discard(disk, life_page(i) * HSK_PAGE_SIZE, HSK_PAGE_SIZE)
                         : hsk_disk_write(disk, life_page(i) * HSK_PAGE_SIZE, page, sizeof(page));
    life_must(l, r == 0 || l->may_fail, "a write failed: %s", g_strerror(-r));
    /* A discard may be in the log already when what it is about cannot be read. */
    if (r == 0 || seed[i] == 0)
        add_disk(l, at, seed);
    if (r != 0 && seed[i] == 0)
        add_disk(l, at, g_array_index(l->disks, struct life_disk, l->disks->len - 2).seed);
}

static void flush(struct life *l)
{
    int r = hsk_disk_flush(hsk_doc_disk(l->doc, 0));
    life_must(l, r == 0 || l->may_fail, "a flush failed: %s", g_strerror(-r));
    if (r == 0)
        life_promise(l, l->disks->len - 1);
}

void life_guest(struct life *l)
{
    if (!l->guest_runs || l->doc == NULL || life_chance(l, 6) != 0)
        return;
    /* The store calls from under its own lock sometimes: the guest would wait there. */
    if (!g_mutex_trylock(&l->doc->disk_lock))
        return;
    g_mutex_unlock(&l->doc->disk_lock);
    uint8_t seed[LIFE_PAGES], page[HSK_PAGE_SIZE];
    unsigned i = life_chance(l, LIFE_PAGES), at = life_now(l);
    memcpy(seed, disk_now(l)->seed, sizeof(seed));
    seed[i] = new_seed(l);
    fill_page(page, life_page(i), seed[i]);
    if (hsk_disk_write(hsk_doc_disk(l->doc, 0), life_page(i) * HSK_PAGE_SIZE, page, sizeof(page)) !=
        0)
        return;
    add_disk(l, at, seed);
    if (life_chance(l, 2) == 0)
        flush(l);
}

static void touch_ram(struct life *l)
{
    for (unsigned n = 1 + life_chance(l, 6); n > 0; n--)
        l->ram[life_chance(l, RAM_PAGES)] = new_seed(l);
}

static bool becomes_current(enum hsk_version_kind kind)
{
    return kind == HSK_VERSION_USER || kind == HSK_VERSION_SAVED;
}

static struct life_version *new_version(struct life *l, enum hsk_version_kind kind)
{
    struct life_version *v = g_new0(struct life_version, 1);
    v->number = l->versions->len + 1;
    v->begun = life_now(l);
    v->done = v->going = v->gone = v->published = NEVER;
    struct life_words w = {.begun = v->begun, .done = NEVER, .published = NEVER, .kind = kind};
    v->words = g_array_new(FALSE, FALSE, sizeof(w));
    g_array_append_val(v->words, w);
    memcpy(v->ram, l->ram, sizeof(v->ram));
    memcpy(v->disk, disk_now(l)->seed, sizeof(v->disk));
    g_ptr_array_add(l->versions, v);
    return v;
}

/* A newer saved state takes the place of the older ones that are not pinned. */
static void replace_saved(struct life *l, const struct life_version *by)
{
    for (guint i = 0; i < l->versions->len; i++) {
        struct life_version *v = g_ptr_array_index(l->versions, i);
        const struct life_words *w = life_words_now(v),
                                *last =
                                    &g_array_index(v->words, struct life_words, v->words->len - 1);
        if (v == by || w->kind != HSK_VERSION_SAVED || v->gone != NEVER || (w->pinned && w == last))
            continue;
        v->going = MIN(v->going, by->begun);
        v->gone = w == last ? by->done : NEVER; /* a pin may have come through or not */
    }
}

/* A version between its moment and its commit. */
struct taking {
    struct life_version *v;
    enum hsk_version_kind kind;
    struct hsk_take_point *point;
    unsigned state, current; /* of the disk; index of its entry in currents */
    uint8_t base[RAM_PAGES];
    bool base_known, gives_up;
};

static struct taking begin_take(struct life *l, enum hsk_version_kind kind)
{
    struct taking t = {.v = new_version(l, kind),
                       .kind = kind,
                       .state = l->disks->len - 1,
                       .current = l->currents->len,
                       .base_known = l->base_known};
    memcpy(t.base, l->base, sizeof(t.base));
    if (becomes_current(kind))
        add_current(l, t.v->begun, NEVER, t.v->number, 0);
    t.point = hsk_take_begin(l->doc);
    return t;
}

static void read_ram(void *opaque, uint64_t page, void *dst)
{
    const struct taking *t = opaque;
    fill_page(dst, page, t->v->ram[page]);
}

static bool is_cancelled(void *opaque)
{
    return ((struct taking *)opaque)->gives_up;
}

static bool commit(struct life *l, struct taking *t, GError **error)
{
    g_autofree char *title = g_strdup_printf("v%u", t->v->number);
    g_autofree uint8_t *pages = g_malloc(RAM_BYTES);
    uint8_t dirty[(RAM_PAGES + 7) / 8] = {0}, *end = pages;
    bool changes_only = t->base_known && life_chance(l, 4) != 0;
    for (unsigned i = 0; i < RAM_PAGES; i++) {
        if (changes_only && t->v->ram[i] == t->base[i])
            continue;
        dirty[i / 8] |= (uint8_t)(1u << i % 8);
        fill_page(end, i, t->v->ram[i]);
        end += HSK_PAGE_SIZE;
    }
    struct hsk_version_object o = {.name = "ram",
                                   .size_bytes = RAM_BYTES,
                                   .pages = life_chance(l, 2) == 0 ? pages : NULL,
                                   .dirty = changes_only ? dirty : NULL,
                                   .from_zeros = !changes_only && life_chance(l, 2) == 0,
                                   .read_page = read_ram,
                                   .opaque = t};
    struct hsk_take take = {.title = title,
                            .kind = t->kind,
                            .engine = "soft",
                            .cpu = "v2",
                            .objects = &o,
                            .nobjects = 1,
                            .state = "device state",
                            .state_bytes = 12,
                            .picture_png = "png",
                            .picture_bytes = 3,
                            .cancelled = is_cancelled,
                            .opaque = t};
    return hsk_version_commit(l->doc, g_steal_pointer(&t->point), &take, t->v->id, NULL, error);
}

static bool finish_take(struct life *l, struct taking *t)
{
    g_autoptr(GError) error = NULL;
    struct life_version *v = t->v;
    bool ok = commit(l, t, &error);
    if (ok) {
        v->done = g_array_index(v->words, struct life_words, 0).done = life_now(l);
        life_promise(l, t->state);
        if (becomes_current(t->kind))
            g_array_index(l->currents, struct life_current, t->current).done = v->done;
    } else if (g_error_matches(error, HSK_ERROR, HSK_ERROR_CANCELLED)) {
        life_must(l, t->gives_up, "a take: %s", error->message);
        v->going = v->gone = v->begun;
        return false;
    } else {
        life_failed(l, "a take", &error);
    }
    /* One that failed may have come through all the same. */
    if (t->kind == HSK_VERSION_SAVED)
        replace_saved(l, v);
    return ok;
}

/* The guest goes on while the version is stored, unless it was stopped for good. */
static void take_one(struct life *l, enum hsk_version_kind kind)
{
    struct taking t = begin_take(l, kind);
    l->guest_runs = kind == HSK_VERSION_USER || kind == HSK_VERSION_AUTO;
    t.gives_up = kind == HSK_VERSION_AUTO && life_chance(l, 4) == 0;
    if (finish_take(l, &t)) {
        memcpy(l->base, t.v->ram, sizeof(l->base));
        l->base_known = true;
    }
    l->guest_runs = false;
}

void life_work(struct life *l)
{
    write_page(l);
    touch_ram(l);
    take_one(l, HSK_VERSION_USER);
}

/* Everything is what it was in an older version; the guest runs on from there, and what was the
 * present is stored meanwhile. */
static void revert(struct life *l, const struct life_version *to)
{
    g_autoptr(GError) error = NULL;
    struct hsk_version *v = to != NULL ? hsk_version_open(l->doc, to->id, &error) : NULL;
    if (v == NULL) {
        if (to != NULL)
            life_failed(l, "opening a version", &error);
        return;
    }
    struct taking t = begin_take(l, HSK_VERSION_BEFORE_REVERT);
    uint8_t before[LIFE_PAGES];
    unsigned begun = life_now(l), state = l->disks->len;
    memcpy(before, disk_now(l)->seed, sizeof(before));
    add_disk(l, begun, to->disk);
    bool switched = hsk_disks_switch(l->doc, v, &error);
    hsk_version_free(v);
    if (!switched) {
        /* The machine goes on as it was. */
        life_failed(l, "a revert", &error);
        add_disk(l, life_now(l), before);
        hsk_take_abandon(t.point);
        return;
    }
    add_current(l, begun, NEVER, to->number, state);
    memcpy(l->ram, to->ram, sizeof(l->ram));
    memcpy(l->base, to->ram, sizeof(l->base));
    l->base_known = true;
    if (life_chance(l, 3) == 0) {
        hsk_take_abandon(t.point);
        return;
    }
    l->guest_runs = true;
    if (finish_take(l, &t))
        life_promise(l, state);
    l->guest_runs = false;
}

void life_end_process(struct life *l)
{
    l->dies = life_chance(l, 2) == 0;
    g_clear_pointer(&l->doc, hsk_doc_close);
    l->dies = false;
}

/* What was not acknowledged may have come through: then it is there from now on. */
static void look_what_came_through(struct life *l)
{
    for (guint i = 0; i < l->doc->versions->len; i++) {
        const struct hsk_record *r = g_ptr_array_index(l->doc->versions, i);
        const struct life_version *v = life_version_titled(l, r->info.title);
        for (guint k = v == NULL ? 0 : v->words->len; k-- > 1;) {
            struct life_words *w = &g_array_index(v->words, struct life_words, k);
            g_autofree char *title = life_title(v, w);
            if (strcmp(title, r->info.title) != 0 || w->kind != r->info.kind ||
                w->pinned != r->info.pinned)
                continue;
            w->done = MIN(w->done, life_now(l));
            break;
        }
    }
}

bool life_begin_process(struct life *l)
{
    g_autoptr(GError) error = NULL;
    char *orphan = NULL;
    l->doc = hsk_doc_open_io(l->s->doc, false, l->io, &orphan, &error);
    life_must(l, orphan == NULL, "something was put aside: %s", orphan);
    l->base_known = false;
    if (l->doc == NULL)
        return life_failed(l, "opening", &error);
    l->doc->many_members = 8;
    look_what_came_through(l);
    /* What a process has read from the disk does not change behind its back. */
    if (!l->may_fail)
        life_promise(l, l->disks->len - 1);
    /* Changes count from the current version again. */
    const struct hsk_record *r = hsk_doc_find(l->doc, hsk_doc_current(l->doc));
    const struct life_version *v = r == NULL ? NULL : life_version_titled(l, r->info.title);
    l->base_known = v != NULL;
    if (v != NULL)
        memcpy(l->base, v->ram, sizeof(l->base));
    return true;
}

/* A point of the timeline; now and then it is thinned. */
static void timeline_step(struct life *l)
{
    write_page(l);
    touch_ram(l);
    take_one(l, HSK_VERSION_AUTO);
    if (life_chance(l, 4) == 0)
        life_thin(l);
}

static void machine_step(struct life *l)
{
    g_autoptr(GError) error = NULL;
    switch (life_chance(l, 14)) {
    case 0:
    case 1:
        take_one(l, HSK_VERSION_USER);
        break;
    case 2:
        take_one(l, HSK_VERSION_SAVED);
        break;
    case 3:
    case 4:
    case 5:
        timeline_step(l);
        break;
    case 6:
    case 7:
        revert(l, life_any_version(l));
        break;
    case 8:
        if (!hsk_doc_fold(l->doc, 4096, &error))
            life_failed(l, "a fold", &error);
        break;
    case 9:
        life_end_process(l);
        life_begin_process(l);
        break;
    case 10:
        flush(l);
        break;
    default:
        write_page(l);
        touch_ram(l);
        break;
    }
}

bool life_run(struct life *l, unsigned steps)
{
    bool open = life_begin_process(l);
    for (unsigned i = 0; i < steps && l->doc != NULL; i++) {
        if (life_chance(l, 3) == 0)
            life_edit_step(l);
        else
            machine_step(l);
    }
    g_clear_pointer(&l->doc, hsk_doc_close);
    return open;
}
