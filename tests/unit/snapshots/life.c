/* SPDX-License-Identifier: MIT */
/*
 * Lives of documents and the model of what they promise (life.h). One thread.
 */
#include "life.h"

uint64_t life_page(unsigned i)
{
    return i + i / 3;
}

struct life_version *life_version_titled(struct life *l, const char *title)
{
    for (guint i = 0; i < l->versions->len; i++) {
        struct life_version *v = g_ptr_array_index(l->versions, i);
        g_autofree char *name = g_strdup_printf("v%u", v->number);
        if (strcmp(name, title) == 0)
            return v;
    }
    return NULL;
}

static unsigned now(struct life *l)
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

/* What the disk was in state `state` is durable. */
static void promise(struct life *l, unsigned state)
{
    struct life_promise p = {now(l), state};
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
    l->versions = g_ptr_array_new_with_free_func(g_free);
    l->disks = g_array_new(FALSE, FALSE, sizeof(struct life_disk));
    l->promises = g_array_new(FALSE, FALSE, sizeof(struct life_promise));
    l->currents = g_array_new(FALSE, FALSE, sizeof(struct life_current));
    l->next_seed = 20;
    memset(seeds, 7, sizeof(seeds));
    add_disk(l, 0, seeds);
    struct life_promise first = {0, 0};
    g_array_append_val(l->promises, first);
    add_current(l, 0, 0, 0, 0);
    memset(l->ram, 1, sizeof(l->ram));
    g_snprintf(l->where, sizeof(l->where), "life %u", seed);
    return l;
}

void life_free(struct life *l)
{
    hsk_doc_close(l->doc);
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

static unsigned chance(struct life *l, unsigned n)
{
    return g_rand_int(l->rand) % n;
}

/* A step that failed for a reason: counted where failures are expected, else the test's failure. */
static bool failed(struct life *l, const char *what, GError **error)
{
    life_must(l, *error != NULL, "%s failed without a sentence", what);
    life_must(l, l->may_fail, "%s: %s", what, (*error)->message);
    g_clear_error(error);
    return false;
}

static void write_page(struct life *l)
{
    uint8_t seed[LIFE_PAGES], page[HSK_PAGE_SIZE];
    unsigned i = chance(l, LIFE_PAGES), at = now(l);
    struct hsk_disk *disk = hsk_doc_disk(l->doc, 0);
    memcpy(seed, disk_now(l)->seed, sizeof(seed));
    seed[i] = chance(l, 8) == 0 ? 0 : new_seed(l);
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
        promise(l, l->disks->len - 1);
}

void life_guest(struct life *l)
{
    if (!l->guest_runs || l->doc == NULL || chance(l, 6) != 0)
        return;
    /* The store calls from under its own lock sometimes: the guest would wait there. */
    if (!g_mutex_trylock(&l->doc->disk_lock))
        return;
    g_mutex_unlock(&l->doc->disk_lock);
    uint8_t seed[LIFE_PAGES], page[HSK_PAGE_SIZE];
    unsigned i = chance(l, LIFE_PAGES), at = now(l);
    memcpy(seed, disk_now(l)->seed, sizeof(seed));
    seed[i] = new_seed(l);
    fill_page(page, life_page(i), seed[i]);
    if (hsk_disk_write(hsk_doc_disk(l->doc, 0), life_page(i) * HSK_PAGE_SIZE, page, sizeof(page)) !=
        0)
        return;
    add_disk(l, at, seed);
    if (chance(l, 2) == 0)
        flush(l);
}

static void touch_ram(struct life *l)
{
    for (unsigned n = 1 + chance(l, 6); n > 0; n--)
        l->ram[chance(l, RAM_PAGES)] = new_seed(l);
}

static bool becomes_current(enum hsk_version_kind kind)
{
    return kind == HSK_VERSION_USER || kind == HSK_VERSION_SAVED;
}

static struct life_version *new_version(struct life *l, enum hsk_version_kind kind)
{
    struct life_version *v = g_new0(struct life_version, 1);
    v->number = l->versions->len + 1;
    v->kind = kind;
    v->begun = now(l);
    v->done = v->going = v->gone = v->published = NEVER;
    memcpy(v->ram, l->ram, sizeof(v->ram));
    memcpy(v->disk, disk_now(l)->seed, sizeof(v->disk));
    g_ptr_array_add(l->versions, v);
    return v;
}

/* A newer saved state takes the place of the older ones. */
static void replace_saved(struct life *l, const struct life_version *by)
{
    for (guint i = 0; i < l->versions->len; i++) {
        struct life_version *v = g_ptr_array_index(l->versions, i);
        if (v == by || v->kind != HSK_VERSION_SAVED || v->gone != NEVER)
            continue;
        v->going = MIN(v->going, by->begun);
        v->gone = by->done;
    }
}

/* A version between its moment and its commit. */
struct taking {
    struct life_version *v;
    struct hsk_take_point *point;
    unsigned state, current; /* of the disk; index of its entry in currents */
    uint8_t base[RAM_PAGES];
    bool base_known, gives_up;
};

static struct taking begin_take(struct life *l, enum hsk_version_kind kind)
{
    struct taking t = {.v = new_version(l, kind),
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
    bool changes_only = t->base_known && chance(l, 4) != 0;
    for (unsigned i = 0; i < RAM_PAGES; i++) {
        if (changes_only && t->v->ram[i] == t->base[i])
            continue;
        dirty[i / 8] |= (uint8_t)(1u << i % 8);
        fill_page(end, i, t->v->ram[i]);
        end += HSK_PAGE_SIZE;
    }
    struct hsk_version_object o = {.name = "ram",
                                   .size_bytes = RAM_BYTES,
                                   .pages = chance(l, 2) == 0 ? pages : NULL,
                                   .dirty = changes_only ? dirty : NULL,
                                   .from_zeros = !changes_only && chance(l, 2) == 0,
                                   .read_page = read_ram,
                                   .opaque = t};
    struct hsk_take take = {.title = title,
                            .kind = t->v->kind,
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
        v->done = now(l);
        promise(l, t->state);
        if (becomes_current(v->kind))
            g_array_index(l->currents, struct life_current, t->current).done = v->done;
    } else if (g_error_matches(error, HSK_ERROR, HSK_ERROR_CANCELLED)) {
        life_must(l, t->gives_up, "a take: %s", error->message);
        v->going = v->gone = v->begun;
        return false;
    } else {
        failed(l, "a take", &error);
    }
    /* One that failed may have come through all the same. */
    if (v->kind == HSK_VERSION_SAVED)
        replace_saved(l, v);
    return ok;
}

/* The guest goes on while the version is stored, unless it was stopped for good. */
static void take_one(struct life *l, enum hsk_version_kind kind)
{
    struct taking t = begin_take(l, kind);
    l->guest_runs = kind == HSK_VERSION_USER || kind == HSK_VERSION_AUTO;
    t.gives_up = kind == HSK_VERSION_AUTO && chance(l, 4) == 0;
    if (finish_take(l, &t)) {
        memcpy(l->base, t.v->ram, sizeof(l->base));
        l->base_known = true;
    }
    l->guest_runs = false;
}

static bool is_there(const struct life_version *v)
{
    return v->done != NEVER && v->going == NEVER;
}

static struct life_version *any_version(struct life *l)
{
    for (unsigned tries = 0; l->versions->len > 0 && tries < 20; tries++) {
        struct life_version *v = g_ptr_array_index(l->versions, chance(l, l->versions->len));
        if (is_there(v))
            return v;
    }
    return NULL;
}

/* Everything is what it was in an older version; the guest runs on from there, and what was the
 * present is stored meanwhile. */
static void revert(struct life *l, const struct life_version *to)
{
    g_autoptr(GError) error = NULL;
    struct hsk_version *v = to != NULL ? hsk_version_open(l->doc, to->id, &error) : NULL;
    if (v == NULL) {
        if (to != NULL)
            failed(l, "opening a version", &error);
        return;
    }
    struct taking t = begin_take(l, HSK_VERSION_BEFORE_REVERT);
    uint8_t before[LIFE_PAGES];
    unsigned begun = now(l), state = l->disks->len;
    memcpy(before, disk_now(l)->seed, sizeof(before));
    add_disk(l, begun, to->disk);
    bool switched = hsk_disks_switch(l->doc, v, &error);
    hsk_version_free(v);
    if (!switched) {
        /* The machine goes on as it was. */
        failed(l, "a revert", &error);
        add_disk(l, now(l), before);
        hsk_take_abandon(t.point);
        return;
    }
    add_current(l, begun, NEVER, to->number, state);
    memcpy(l->ram, to->ram, sizeof(l->ram));
    memcpy(l->base, to->ram, sizeof(l->base));
    l->base_known = true;
    if (chance(l, 3) == 0) {
        hsk_take_abandon(t.point);
        return;
    }
    l->guest_runs = true;
    if (finish_take(l, &t))
        promise(l, state);
    l->guest_runs = false;
}

/* One version or some. */
static void drop(struct life *l)
{
    enum { AT_ONCE = 3 };
    g_autoptr(GError) error = NULL;
    struct life_version *gone[AT_ONCE];
    const char *ids[AT_ONCE];
    unsigned n = 0;
    for (unsigned tries = 1 + chance(l, AT_ONCE); tries > 0; tries--) {
        struct life_version *v = any_version(l);
        if (v == NULL || strcmp(v->id, hsk_doc_current(l->doc)) == 0)
            continue;
        v->going = now(l);
        gone[n] = v;
        ids[n++] = v->id;
    }
    if (n == 0)
        return;
    bool ok =
        n == 1 ? hsk_doc_drop(l->doc, ids[0], &error) : hsk_doc_drop_many(l->doc, ids, n, &error);
    /* The log may still go on from it. */
    bool later = !ok && strstr(error->message, "try again") != NULL;
    if (!ok && !later)
        failed(l, "a drop", &error);
    for (unsigned i = 0; i < n; i++) {
        gone[i]->gone = ok ? now(l) : NEVER;
        gone[i]->going = later ? NEVER : gone[i]->going;
    }
}

static void publish(struct life *l)
{
    g_autoptr(GError) error = NULL;
    if (!hsk_doc_publish(l->doc, &error)) {
        failed(l, "a publish", &error);
        return;
    }
    unsigned at = now(l);
    for (guint i = 0; i < l->versions->len; i++) {
        struct life_version *v = g_ptr_array_index(l->versions, i);
        if (is_there(v) && v->kind != HSK_VERSION_AUTO && v->published == NEVER)
            v->published = at;
    }
    l->generation = (unsigned)l->doc->base_root->generation;
    l->generation_at = at;
}

static bool reopen(struct life *l)
{
    g_autoptr(GError) error = NULL;
    l->dies = chance(l, 2) == 0;
    g_clear_pointer(&l->doc, hsk_doc_close);
    l->dies = false;
    char *orphan = NULL;
    l->doc = hsk_doc_open_io(l->s->doc, false, l->io, &orphan, &error);
    life_must(l, orphan == NULL, "something was put aside: %s", orphan);
    /* Changes count from the current version again. */
    const struct hsk_record *r =
        l->doc == NULL ? NULL : hsk_doc_find(l->doc, hsk_doc_current(l->doc));
    const struct life_version *v = r == NULL ? NULL : life_version_titled(l, r->info.title);
    l->base_known = v != NULL;
    if (v != NULL)
        memcpy(l->base, v->ram, sizeof(l->base));
    return l->doc != NULL || failed(l, "opening", &error);
}

/* The guest goes on meanwhile, and the user may want something else. */
static void compact(struct life *l)
{
    g_autoptr(GError) error = NULL;
    struct taking t = {.gives_up = chance(l, 4) == 0};
    l->guest_runs = true;
    if (!hsk_doc_compact_instance(l->doc, is_cancelled, &t, &error) &&
        !g_error_matches(error, HSK_ERROR, HSK_ERROR_CANCELLED))
        failed(l, "compacting", &error);
    l->guest_runs = false;
}

static void pin(struct life *l, const struct life_version *v)
{
    g_autoptr(GError) error = NULL;
    if (v != NULL && v->kind != HSK_VERSION_SAVED &&
        !hsk_doc_pin(l->doc, v->id, chance(l, 2) == 0, &error))
        failed(l, "pinning", &error);
}

static void step(struct life *l)
{
    g_autoptr(GError) error = NULL;
    switch (chance(l, 19)) {
    case 0:
    case 1:
        take_one(l, HSK_VERSION_USER);
        break;
    case 2:
        take_one(l, HSK_VERSION_SAVED);
        break;
    case 3:
        take_one(l, HSK_VERSION_AUTO);
        break;
    case 4:
    case 5:
        revert(l, any_version(l));
        break;
    case 6:
        drop(l);
        break;
    case 7:
    case 8:
        publish(l);
        break;
    case 9:
        if (!hsk_doc_fold(l->doc, 4096, &error))
            failed(l, "a fold", &error);
        break;
    case 10:
        reopen(l);
        break;
    case 11:
        flush(l);
        break;
    case 12:
    case 13:
        compact(l);
        break;
    case 14:
        pin(l, any_version(l));
        break;
    default:
        write_page(l);
        touch_ram(l);
        break;
    }
}

bool life_run(struct life *l, unsigned steps)
{
    bool open = reopen(l);
    for (unsigned i = 0; i < steps && l->doc != NULL; i++)
        step(l);
    g_clear_pointer(&l->doc, hsk_doc_close);
    return open;
}
