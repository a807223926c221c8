/* SPDX-License-Identifier: MIT */
/*
 * The list of versions, and reading them back. An open version is counted by its document, so that
 * no file that it reads is removed. Threads: a version belongs to one thread; the list is
 * read under the document's lock.
 */
#include "doc.h"

void hsk_version_info_free(struct hsk_version_info *list)
{
    while (list != NULL) {
        struct hsk_version_info *next = list->next;
        g_free(list->title);
        g_free(list->engine);
        g_free(list);
        list = next;
    }
}

/* The nearest ancestor that still exists. */
static void find_parent(GHashTable *ids, const struct hsk_record *r, char parent[33])
{
    parent[0] = '\0';
    for (guint i = 0; i < r->ancestors->len; i++) {
        const char *id = g_ptr_array_index(r->ancestors, i);
        if (g_hash_table_contains(ids, id)) {
            g_strlcpy(parent, id, 33);
            return;
        }
    }
}

struct hsk_version_info *hsk_doc_versions(struct hsk_doc *doc, GError **error)
{
    struct hsk_version_info *list = NULL, **end = &list;
    g_autoptr(GHashTable) ids = g_hash_table_new(g_str_hash, g_str_equal);
    G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&doc->lock);
    for (guint i = 0; i < doc->versions->len; i++) {
        struct hsk_record *r = g_ptr_array_index(doc->versions, i);
        g_hash_table_add(ids, r->info.id);
    }
    for (guint i = 0; i < doc->versions->len; i++) {
        const struct hsk_record *r = g_ptr_array_index(doc->versions, i);
        struct hsk_version_info *v = g_new0(struct hsk_version_info, 1);
        *v = r->info;
        v->title = g_strdup(r->info.title);
        v->engine = g_strdup(r->info.engine);
        v->next = NULL;
        find_parent(ids, r, v->parent);
        *end = v;
        end = &v->next;
    }
    return list;
}

const char *hsk_doc_saved(struct hsk_doc *doc)
{
    return doc->saved;
}

static char *ambiguous(const char *ref, GError **error)
{
    g_set_error(error, HSK_ERROR, HSK_ERROR_USAGE,
                "more than one version is meant by \"%s\"; use its id", ref);
    return NULL;
}

char *hsk_doc_resolve(struct hsk_doc *doc, const char *ref, GError **error)
{
    const struct hsk_record *by_title = NULL, *by_id = NULL, *newest = NULL;
    bool titles = false;
    G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&doc->lock);
    for (guint i = 0; i < doc->versions->len; i++) {
        const struct hsk_record *r = g_ptr_array_index(doc->versions, i);
        if (r->info.kind == HSK_VERSION_USER)
            newest = r;
        if (ref == NULL)
            continue;
        if (strcmp(r->info.id, ref) == 0)
            return g_strdup(ref);
        if (strlen(ref) >= 4 && g_str_has_prefix(r->info.id, ref)) {
            if (by_id != NULL)
                return ambiguous(ref, error);
            by_id = r;
        }
        if (strcmp(r->info.title, ref) == 0) {
            titles = by_title != NULL;
            by_title = r;
        }
    }
    const struct hsk_record *found = ref == NULL ? newest : by_title != NULL ? by_title : by_id;
    if (found == by_title && titles)
        return ambiguous(ref, error);
    if (found != NULL)
        return g_strdup(found->info.id);
    if (ref == NULL)
        g_set_error(error, HSK_ERROR, HSK_ERROR_NOT_FOUND, "%s has no snapshot yet", doc->path);
    else
        g_set_error(error, HSK_ERROR, HSK_ERROR_NOT_FOUND, "%s has no version \"%s\"", doc->path,
                    ref);
    return NULL;
}

struct hsk_version *hsk_version_open(struct hsk_doc *doc, const char *id, GError **error)
{
    G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&doc->lock);
    const struct hsk_record *r = hsk_doc_find(doc, id);
    if (r == NULL || r->leaving) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_NOT_FOUND, "%s has no version \"%s\"", doc->path,
                    id);
        return NULL;
    }
    if (r->info.damaged) {
        hsk_damaged(error, doc->path, "the record of version %s is not the one that was written",
                    id);
        return NULL;
    }
    struct hsk_version *v = g_new0(struct hsk_version, 1);
    v->doc = doc;
    g_strlcpy(v->id, id, sizeof(v->id));
    v->objects = g_array_ref(r->objects);
    v->cpu = g_strdup(r->cpu);
    v->state = r->state;
    v->picture = r->picture;
    v->needed = r->needed;
    if (v->state.frames != NULL)
        g_array_ref(v->state.frames);
    if (v->picture.frames != NULL)
        g_array_ref(v->picture.frames);
    if (v->needed.frames != NULL)
        g_array_ref(v->needed.frames);
    v->maps =
        g_hash_table_new_full(g_str_hash, g_str_equal, g_free, (GDestroyNotify)hsk_pagemap_free);
    doc->nopen++;
    return v;
}

void hsk_version_free(struct hsk_version *v)
{
    if (v == NULL)
        return;
    g_mutex_lock(&v->doc->lock);
    v->doc->nopen--;
    g_mutex_unlock(&v->doc->lock);
    g_array_unref(v->objects);
    g_free(v->cpu);
    hsk_blob_clear(&v->state);
    hsk_blob_clear(&v->picture);
    hsk_blob_clear(&v->needed);
    g_hash_table_unref(v->maps);
    g_free(v);
}

const char *hsk_version_cpu(struct hsk_version *v)
{
    return v->cpu != NULL && v->cpu[0] != 0 ? v->cpu : NULL;
}

const struct hsk_object *hsk_version_object(const struct hsk_version *v, const char *name,
                                            GError **error)
{
    const struct hsk_object *o = hsk_objects_find(v->objects, name);
    if (o == NULL)
        g_set_error(error, HSK_ERROR, HSK_ERROR_NOT_FOUND, "%s: version %s does not hold \"%s\"",
                    v->doc->path, v->id, name);
    return o;
}

uint64_t hsk_version_object_size(struct hsk_version *v, const char *object)
{
    const struct hsk_object *o = hsk_objects_find(v->objects, object);
    return o == NULL ? 0 : o->size_bytes;
}

struct hsk_pagemap *hsk_version_map(struct hsk_version *v, const struct hsk_object *o)
{
    struct hsk_pagemap *map = g_hash_table_lookup(v->maps, o->name);
    if (map == NULL) {
        map = hsk_object_map(v->doc, o);
        g_hash_table_insert(v->maps, g_strdup(o->name), map);
    }
    return map;
}

bool hsk_version_read(struct hsk_version *v, const char *object, uint64_t page, uint64_t n,
                      void *buf, GError **error)
{
    const struct hsk_object *o = hsk_version_object(v, object, error);
    if (o == NULL)
        return false;
    if (!hsk_range_ok(page, n, o->size_bytes / HSK_PAGE_SIZE)) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_FAILED, "%s: reading behind the end of \"%s\"",
                    v->doc->path, object);
        return false;
    }
    struct hsk_pagemap *map = hsk_version_map(v, o);
    for (uint64_t i = 0; i < n; i++) {
        uint64_t entry;
        if (!hsk_pagemap_get(map, page + i, &entry, error) ||
            !hsk_content_page(v->doc->content, entry, (uint8_t *)buf + i * HSK_PAGE_SIZE, error))
            return false;
    }
    return true;
}

GBytes *hsk_version_state(struct hsk_version *v, GError **error)
{
    return hsk_content_blob(v->doc->content, &v->state, error);
}

GBytes *hsk_version_picture(struct hsk_version *v, GError **error)
{
    return hsk_content_blob(v->doc->content, &v->picture, error);
}

GArray *hsk_version_needed(struct hsk_version *v)
{
    if (v->needed.frames == NULL || v->needed.bytes > HSK_MAX_NEEDED * 4)
        return NULL;
    g_autoptr(GError) unreadable = NULL;
    g_autoptr(GBytes) bytes = hsk_content_blob(v->doc->content, &v->needed, &unreadable);
    GArray *pages = g_array_new(FALSE, FALSE, sizeof(uint32_t));
    gsize n = 0;
    const uint8_t *at = bytes == NULL ? NULL : g_bytes_get_data(bytes, &n);
    for (gsize i = 0; i + 4 <= n; i += 4) {
        uint32_t page = hsk_get32(at + i);
        g_array_append_val(pages, page);
    }
    return pages;
}
