/* SPDX-License-Identifier: MIT */
/*
 * Lives of documents: what their users do with versions and whole documents (life.h). One thread.
 */
#include "life-steps.h"

static bool is_there(const struct life_version *v)
{
    return v->done != NEVER && v->going == NEVER;
}

struct life_version *life_any_version(struct life *l)
{
    for (unsigned tries = 0; l->versions->len > 0 && tries < 20; tries++) {
        struct life_version *v = g_ptr_array_index(l->versions, life_chance(l, l->versions->len));
        if (is_there(v))
            return v;
    }
    return NULL;
}

/* ---- dropping ---- */

static bool may_go(const struct life *l, const struct life_version *v)
{
    return v != NULL && is_there(v) && strcmp(v->id, hsk_doc_current(l->doc)) != 0;
}

/* All of them with one commit. */
static void drop_these(struct life *l, const GPtrArray *victims)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(GPtrArray) ids = g_ptr_array_new();
    for (guint i = 0; i < victims->len; i++) {
        struct life_version *v = g_ptr_array_index(victims, i);
        v->going = life_now(l);
        g_ptr_array_add(ids, v->id);
    }
    if (ids->len == 0)
        return;
    bool ok = ids->len == 1
                  ? hsk_doc_drop(l->doc, g_ptr_array_index(ids, 0), &error)
                  : hsk_doc_drop_many(l->doc, (const char *const *)ids->pdata, ids->len, &error);
    /* The log may still go on from it. */
    bool later = !ok && g_error_matches(error, HSK_ERROR, HSK_ERROR_BUSY);
    if (!ok && !later)
        life_failed(l, "a drop", &error);
    for (guint i = 0; i < victims->len; i++) {
        struct life_version *v = g_ptr_array_index(victims, i);
        v->gone = ok ? life_now(l) : NEVER;
        v->going = later ? NEVER : v->going;
    }
}

/* One version or some. */
static void drop(struct life *l)
{
    g_autoptr(GPtrArray) victims = g_ptr_array_new();
    for (unsigned tries = 1 + life_chance(l, 3); tries > 0; tries--) {
        struct life_version *v = life_any_version(l);
        if (may_go(l, v) && !g_ptr_array_find(victims, v, NULL))
            g_ptr_array_add(victims, v);
    }
    drop_these(l, victims);
}

struct patience {
    bool gives_up;
};

static bool is_cancelled(void *opaque)
{
    return ((const struct patience *)opaque)->gives_up;
}

/* The guest goes on meanwhile, and the user may want something else. */
static void compact_instance(struct life *l)
{
    g_autoptr(GError) error = NULL;
    struct patience p = {.gives_up = life_chance(l, 4) == 0};
    l->guest_runs = true;
    if (!hsk_doc_compact_instance(l->doc, life_chance(l, 2) == 0, is_cancelled, &p, &error) &&
        !g_error_matches(error, HSK_ERROR, HSK_ERROR_CANCELLED))
        life_failed(l, "compacting", &error);
    l->guest_runs = false;
}

void life_thin(struct life *l)
{
    g_autoptr(GPtrArray) victims = g_ptr_array_new();
    for (guint i = 0; i < l->versions->len; i++) {
        struct life_version *v = g_ptr_array_index(l->versions, i);
        const struct life_words *w = life_words_now(v);
        if (may_go(l, v) && w->kind == HSK_VERSION_AUTO && !w->pinned && life_chance(l, 3) != 0)
            g_ptr_array_add(victims, v);
    }
    drop_these(l, victims);
    compact_instance(l);
}

/* ---- words ---- */

static struct life_words *new_words(struct life *l, struct life_version *v)
{
    struct life_words w = *life_words_now(v);
    w.begun = life_now(l);
    w.done = w.published = NEVER;
    g_array_append_val(v->words, w);
    return &g_array_index(v->words, struct life_words, v->words->len - 1);
}

static void said(struct life *l, struct life_words *w, bool ok, GError **error)
{
    if (ok)
        w->done = life_now(l);
    else
        life_failed(l, "other words", error);
}

static void rename_it(struct life *l, struct life_version *v)
{
    g_autoptr(GError) error = NULL;
    struct life_words *w = new_words(l, v);
    w->name = v->words->len;
    g_autofree char *title = life_title(v, w);
    said(l, w, hsk_doc_rename(l->doc, v->id, title, &error), &error);
}

static void pin(struct life *l, struct life_version *v)
{
    g_autoptr(GError) error = NULL;
    struct life_words *w = new_words(l, v);
    w->pinned = !w->pinned;
    said(l, w, hsk_doc_pin(l->doc, v->id, w->pinned, &error), &error);
}

static void keep(struct life *l, struct life_version *v)
{
    g_autoptr(GError) error = NULL;
    struct life_words *w = new_words(l, v);
    w->kind = HSK_VERSION_USER;
    w->name = life_chance(l, 2) == 0 ? v->words->len : w->name;
    g_autofree char *title = w->name == v->words->len ? life_title(v, w) : NULL;
    said(l, w, hsk_doc_keep(l->doc, v->id, title, &error), &error);
}

static void other_words(struct life *l)
{
    struct life_version *v = life_any_version(l);
    if (v == NULL)
        return;
    if (life_words_now(v)->kind == HSK_VERSION_AUTO && life_chance(l, 2) == 0)
        keep(l, v);
    else if (life_chance(l, 2) == 0)
        rename_it(l, v);
    else
        pin(l, v);
}

/* ---- documents ---- */

static void was_published(struct life *l, unsigned at)
{
    for (guint i = 0; i < l->versions->len; i++) {
        struct life_version *v = g_ptr_array_index(l->versions, i);
        struct life_words *w = life_words_now(v);
        if (!is_there(v) || w->kind == HSK_VERSION_AUTO)
            continue;
        v->published = MIN(v->published, at);
        w->published = MIN(w->published, at);
    }
    if (l->doc != NULL) {
        l->generation = (unsigned)l->doc->base_root->generation;
        l->generation_at = at;
        if (l->generation > 1)
            l->own_from = MIN(l->own_from, at);
    }
}

static void publish(struct life *l)
{
    g_autoptr(GError) error = NULL;
    if (hsk_doc_publish(l->doc, &error))
        was_published(l, life_now(l));
    else
        life_failed(l, "a publish", &error);
}

static bool goes_on(void *opaque, double fraction)
{
    return !((const struct patience *)opaque)->gives_up || fraction < 0.3;
}

static bool was_stopped(const struct patience *p, const GError *error)
{
    return p->gives_up && g_error_matches(error, HSK_ERROR, HSK_ERROR_CANCELLED);
}

/* Another process does it while this one has the document closed. */
static void compact_document(struct life *l)
{
    g_autoptr(GError) error = NULL;
    struct patience p = {.gives_up = life_chance(l, 4) == 0};
    life_end_process(l);
    bool ok = hsk_doc_compact(l->s->doc, goes_on, &p, &error);
    unsigned at = life_now(l);
    if (!ok && !was_stopped(&p, error))
        life_failed(l, "compacting the document", &error);
    life_begin_process(l);
    if (ok)
        was_published(l, at);
}

char *life_clone_path(const struct life *l, unsigned index)
{
    g_autofree char *name = g_strdup_printf("clone-%u.hva", index);
    return g_build_filename(l->s->dir, name, NULL);
}

/* A new machine from a version or from the disks. */
static void make_clone(struct life *l)
{
    g_autoptr(GError) error = NULL;
    const struct life_version *v = life_chance(l, 2) == 0 ? NULL : life_any_version(l);
    struct patience p = {.gives_up = life_chance(l, 4) == 0};
    struct life_clone c = {
        .version = v == NULL ? 0 : v->number, .last = l->disks->len - 1, .done = NEVER};
    g_autofree char *path = life_clone_path(l, l->clones->len);
    life_end_process(l);
    c.begun = life_now(l);
    c.first = l->may_fail ? life_promised(l, c.begun) : c.last;
    bool ok = hsk_doc_clone(l->s->doc, v == NULL ? NULL : v->id, path, goes_on, &p, &error);
    if (ok)
        c.done = life_now(l);
    else if (!was_stopped(&p, error))
        life_failed(l, "cloning", &error);
    g_array_append_val(l->clones, c);
    life_begin_process(l);
}

/* ---- copies of a document that is open ---- */

struct beside {
    struct life *l;
    struct life_version *copied;
    unsigned steps, until; /* given up after so many */
};

/* Each step of the copy something else happens, also to what is copied. */
static bool something_else(void *opaque, double fraction)
{
    struct beside *b = opaque;
    struct life *l = b->l;
    g_autoptr(GPtrArray) victims = g_ptr_array_new();
    switch (b->steps++) {
    case 0:
        if (may_go(l, b->copied) && life_chance(l, 2) == 0)
            g_ptr_array_add(victims, b->copied);
        drop_these(l, victims);
        break;
    case 1:
        life_work(l);
        break;
    case 2:
        publish(l);
        break;
    case 3:
        compact_instance(l);
        break;
    default:
        break;
    }
    return b->steps < b->until;
}

static void nothing_is_left(struct life *l, const char *path)
{
    g_autofree char *tmp = g_strconcat(path, HSK_UNFINISHED, NULL);
    life_must(l, l->may_fail || !g_file_test(tmp, G_FILE_TEST_EXISTS), "%s was left behind", tmp);
}

static unsigned how_long(struct life *l)
{
    return life_chance(l, 3) == 0 ? 1 + life_chance(l, 6) : NEVER;
}

/* A new machine from a version, while this one goes on. */
static void clone_beside(struct life *l)
{
    g_autoptr(GError) error = NULL;
    struct beside b = {.l = l, .copied = life_any_version(l), .until = how_long(l)};
    if (b.copied == NULL)
        return;
    struct life_clone c = {.begun = life_now(l), .done = NEVER, .version = b.copied->number};
    unsigned index = l->clones->len;
    g_autofree char *path = life_clone_path(l, index);
    g_array_append_val(l->clones, c);
    HSK_AUTO(hsk_clone, clone) = hsk_clone_begin(l->doc, b.copied->id, path, &error);
    if (clone != NULL && hsk_clone_write(clone, something_else, &b, &error))
        g_array_index(l->clones, struct life_clone, index).done = life_now(l);
    else if (b.steps < b.until || !g_error_matches(error, HSK_ERROR, HSK_ERROR_CANCELLED))
        life_failed(l, "cloning while it is open", &error);
    nothing_is_left(l, path);
}

/* The document was to go on elsewhere, but nobody waited for that. */
static void give_up_move(struct life *l)
{
    g_autoptr(GError) error = NULL;
    struct beside b = {.l = l, .until = how_long(l)};
    g_autofree char *path = g_build_filename(l->s->dir, "elsewhere.hva", NULL);
    struct hsk_move *move = hsk_move_begin(l->doc, path, &error);
    if ((move == NULL || !hsk_move_copy(move, something_else, &b, &error)) &&
        (b.steps < b.until || !g_error_matches(error, HSK_ERROR, HSK_ERROR_CANCELLED)))
        life_failed(l, "copying the document", &error);
    hsk_move_free(move);
    nothing_is_left(l, path);
    life_must(l, !g_file_test(path, G_FILE_TEST_EXISTS), "%s is there", path);
}

static void copy_something(struct life *l)
{
    switch (life_chance(l, 4)) {
    case 0:
        give_up_move(l);
        break;
    case 1:
        make_clone(l);
        break;
    default:
        clone_beside(l);
        break;
    }
}

void life_edit_step(struct life *l)
{
    switch (life_chance(l, 10)) {
    case 0:
    case 1:
        drop(l);
        break;
    case 2:
    case 3:
    case 4:
        other_words(l);
        break;
    case 5:
    case 6:
        publish(l);
        break;
    case 7:
        compact_instance(l);
        break;
    case 8:
        compact_document(l);
        break;
    default:
        copy_something(l);
        break;
    }
}
