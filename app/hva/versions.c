/* SPDX-License-Identifier: MIT */
/*
 * The versions of a machine, whether it runs or not: log, drop, rename, pin, keep. A running
 * one is asked; of one that does not run the document is opened, and where the instance is needed
 * (the timeline, changes) with its lock. Thread: main.
 */
#include "document/versions.h"

#include <snapshots/store.h>

#include <stdio.h>

#include "client.h"
#include "common/values.h"
#include "common/wire.h"

#define MAX_BRANCHES 32 /* side by side; more are drawn as if they were one */

/* ---- log ---- */

/* What log is about: {"versions": list, "current": id}. */
static json_t *versions_of(const char *machine, bool timeline, bool sizes, GError **error)
{
    GError *failed = NULL;
    HSK_AUTO(hsk_client, c) = hsk_client_find(machine, &failed);

    if (failed) {
        g_propagate_error(error, failed);
        return NULL;
    }
    if (c)
        return hsk_client_ask(c, "log", json_pack("{s:b}", "sizes", sizes), error);
    /* The timeline lies in the instance, and only one may have that. */
    struct hsk_doc *doc = hsk_open_document(machine, !timeline, error);
    if (!doc)
        return NULL;
    json_t *list =
        sizes ? hsk_versions_sizes_json(doc, NULL, NULL, &failed) : hsk_versions_json(doc, &failed);
    json_t *r = json_pack("{s:o, s:s}", "versions", list, "current", hsk_doc_current(doc));
    hsk_doc_settle(doc);
    hsk_doc_close(doc);
    if (failed) {
        json_decref(r);
        g_propagate_error(error, failed);
        return NULL;
    }
    return r;
}

static bool is_auto(const json_t *v)
{
    return strcmp(hsk_json_str(v, "kind", ""), "auto") == 0;
}

static const char *id_of(const json_t *v)
{
    return hsk_json_str(v, "id", "");
}

static void print_version(const json_t *v, bool current, const char *format, const char *graph)
{
    g_autoptr(GDateTime) t = g_date_time_new_from_unix_local(hsk_json_int(v, "time", 0));
    g_autofree char *when = t ? g_date_time_format(t, format) : g_strdup("?");

    printf("%s%c %.12s  %s  %-13s ", graph, current ? '*' : 'o', id_of(v), when,
           hsk_json_str(v, "kind", ""));
    if (json_object_get(v, "own"))
        printf("%8.1f MB own %8.1f MB shared", (double)hsk_json_int(v, "own", 0) / 1e6,
               (double)hsk_json_int(v, "shared", 0) / 1e6);
    else
        printf("%8.1f MB", (double)hsk_json_int(v, "bytes", 0) / 1e6);
    printf("  %s%s\n", hsk_json_str(v, "title", ""),
           hsk_json_bool(v, "pinned") ? "  (pinned)" : "");
}

static void print_flat(const json_t *versions, const char *current)
{
    const json_t *v;
    size_t i;

    json_array_foreach(versions, i, v)
        print_version(v, strcmp(id_of(v), current) == 0, "%Y-%m-%d %H:%M:%S", "");
}

/* The tree: children[i] lists the indexes of what comes from version i. A chain stays in its
 * column; branches off it stand to the right, above what goes on. */
static void draw(const json_t *versions, GArray **children, size_t i, const char *current,
                 const char *first, const char *rest, unsigned depth)
{
    for (const char *lead = first;; lead = rest) {
        const json_t *v = json_array_get(versions, i);
        const GArray *next = children[i];

        print_version(v, strcmp(id_of(v), current) == 0, "%Y-%m-%d %H:%M", lead);
        if (!next)
            return;
        g_autofree char *branch = g_strconcat(rest, depth < MAX_BRANCHES ? "|-" : "", NULL);
        g_autofree char *below = g_strconcat(rest, depth < MAX_BRANCHES ? "| " : "", NULL);
        for (guint k = 0; k + 1 < next->len; k++)
            draw(versions, children, g_array_index(next, size_t, k), current, branch, below,
                 depth + 1);
        i = g_array_index(next, size_t, next->len - 1);
    }
}

static void print_tree(const json_t *versions, const char *current)
{
    size_t n = json_array_size(versions);
    g_autoptr(GHashTable) seen = g_hash_table_new(g_str_hash, g_str_equal);
    g_autofree GArray **children = g_new0(GArray *, n + 1);
    GArray *roots = g_array_new(FALSE, FALSE, sizeof(size_t));
    const json_t *v;
    size_t i;

    /* A parent comes first; what claims another order stands alone. */
    json_array_foreach(versions, i, v)
    {
        gpointer parent = g_hash_table_lookup(seen, hsk_json_str(v, "parent", ""));
        size_t at = GPOINTER_TO_SIZE(parent) - 1;
        if (parent && !children[at])
            children[at] = g_array_new(FALSE, FALSE, sizeof(size_t));
        g_array_append_val(parent ? children[at] : roots, i);
        g_hash_table_insert(seen, (gpointer)id_of(v), GSIZE_TO_POINTER(i + 1));
    }
    for (guint k = 0; k < roots->len; k++)
        draw(versions, children, g_array_index(roots, size_t, k), current, "", "", 0);
    for (i = 0; i < n; i++) {
        if (children[i])
            g_array_unref(children[i]);
    }
    g_array_unref(roots);
}

/* Without points of the timeline; what comes from one comes from where that came from. */
static json_t *without_points(const json_t *versions)
{
    g_autoptr(GHashTable) instead = g_hash_table_new(g_str_hash, g_str_equal);
    json_t *out = json_array(), *v;
    size_t i;

    json_array_foreach(versions, i, v)
    {
        const char *parent = hsk_json_str(v, "parent", "");
        const char *shown = g_hash_table_lookup(instead, parent);

        if (is_auto(v)) {
            g_hash_table_insert(instead, (gpointer)id_of(v), (gpointer)(shown ? shown : parent));
            continue;
        }
        json_t *copy = json_copy(v);
        if (shown)
            json_object_set_new(copy, "parent", json_string(shown));
        json_array_append_new(out, copy);
    }
    return out;
}

struct log_args {
    gboolean json, timeline, sizes;
    char **rest;
};

static int show_log(const struct log_args *a)
{
    g_autoptr(GError) error = NULL;
    json_t *r = versions_of(a->rest[0], a->timeline, a->sizes, &error);

    if (!r)
        return hsk_fail(error);
    json_t *all = json_object_get(r, "versions");
    json_t *shown = a->timeline ? json_incref(all) : without_points(all);
    if (a->json)
        hsk_print_json(shown);
    else if (a->timeline)
        print_flat(shown, hsk_json_str(r, "current", ""));
    else
        print_tree(shown, hsk_json_str(r, "current", ""));
    json_decref(shown);
    json_decref(r);
    return 0;
}

int hsk_cmd_log(int argc, char **argv)
{
    struct log_args a = {0};
    const GOptionEntry entries[] = {
        {"json", 0, 0, G_OPTION_ARG_NONE, &a.json, "machine-readable output", NULL},
        {"timeline", 0, 0, G_OPTION_ARG_NONE, &a.timeline,
         "with the automatic checkpoints, in the order of time", NULL},
        {"sizes", 0, 0, G_OPTION_ARG_NONE, &a.sizes,
         "what would go with each, and what it shares (reads all that is listed)", NULL},
        {G_OPTION_REMAINING, 0, 0, G_OPTION_ARG_FILENAME_ARRAY, &a.rest, NULL, NULL},
        {NULL},
    };
    int status = 0;

    if (hsk_parse_options(&argc, &argv, "MACHINE - list a machine's snapshots", entries, &status))
        status = a.rest && a.rest[0] && !a.rest[1]
                     ? show_log(&a)
                     : hsk_usage("usage: hva log MACHINE [--timeline] [--sizes]");
    g_strfreev(a.rest);
    return status;
}

/* ---- drop, rename, pin, unpin, keep ---- */

static const struct edit {
    const char *verb, *usage;
    unsigned min, max;
} edits[] = {
    {"drop", "MACHINE SNAPSHOT [--force]", 2, 2},
    {"rename", "MACHINE SNAPSHOT TITLE", 3, 3},
    {"pin", "MACHINE SNAPSHOT", 2, 2},
    {"unpin", "MACHINE SNAPSHOT", 2, 2},
    {"keep", "MACHINE POINT [TITLE]", 2, 3},
};

struct edit_args {
    gboolean json, force;
    char **rest;
};

static bool edit_in_file(const struct edit *e, const struct edit_args *a, GError **error)
{
    struct hsk_doc *doc = hsk_open_document(a->rest[0], false, error);

    if (!doc)
        return false;
    bool good = hsk_version_edit(doc, e->verb, a->rest[1], a->rest[2], a->force, error);
    if (good && !hsk_doc_publish(doc, error)) {
        g_prefix_error(error, "it is noted on this computer, but not in the document: ");
        good = false;
    }
    hsk_doc_settle(doc);
    hsk_doc_close(doc);
    return good;
}

static int edit(const struct edit *e, const struct edit_args *a)
{
    g_autoptr(GError) error = NULL;
    HSK_AUTO(hsk_client, c) = hsk_client_find(a->rest[0], &error);

    if (!c)
        return !error && edit_in_file(e, a, &error) ? 0 : hsk_fail(error);
    json_t *r = hsk_client_ask(c, e->verb,
                               json_pack("{s:s, s:s?, s:b}", "version", a->rest[1], "title",
                                         a->rest[2], "force", a->force),
                               &error);
    if (!r)
        return hsk_fail(error);
    json_decref(r);
    return 0;
}

/* main.c calls for these only. */
static const struct edit *find_edit(const char *verb)
{
    const struct edit *e = edits;

    while (strcmp(e->verb, verb) != 0)
        e++;
    return e;
}

int hsk_cmd_edit(int argc, char **argv)
{
    const struct edit *e = find_edit(argv[0]);
    struct edit_args a = {0};
    const GOptionEntry entries[] = {
        {"json", 0, G_OPTION_FLAG_HIDDEN, G_OPTION_ARG_NONE, &a.json, NULL, NULL},
        {"force", 0, 0, G_OPTION_ARG_NONE, &a.force, "drop: even a pinned one", NULL},
        {G_OPTION_REMAINING, 0, 0, G_OPTION_ARG_FILENAME_ARRAY, &a.rest, NULL, NULL},
        {NULL},
    };
    int status = 0;

    if (hsk_parse_options(&argc, &argv, e->usage, entries, &status)) {
        unsigned n = a.rest ? g_strv_length(a.rest) : 0;
        status = n >= e->min && n <= e->max ? edit(e, &a)
                                            : hsk_usage("usage: hva %s %s", e->verb, e->usage);
    }
    g_strfreev(a.rest);
    return status;
}
