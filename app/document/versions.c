/* SPDX-License-Identifier: MIT */
/* Versions as the programs show them: see versions.h. */
#include "document/versions.h"

static const char *const kinds[] = {
    [HSK_VERSION_USER] = "user",
    [HSK_VERSION_SAVED] = "saved",
    [HSK_VERSION_BEFORE_REVERT] = "before-revert",
    [HSK_VERSION_AUTO] = "auto",
};

static json_t *version_json(const struct hsk_version_info *v)
{
    g_autofree char *title = g_utf8_make_valid(v->title ? v->title : "", -1);

    return json_pack("{s:s, s:s, s:s, s:I, s:s, s:I, s:b, s:b, s:b}", "id", v->id, "parent",
                     v->parent, "title", title, "time", (json_int_t)v->time, "kind", kinds[v->kind],
                     "bytes", (json_int_t)v->bytes, "has_state", v->has_state, "pinned", v->pinned,
                     "damaged", v->damaged);
}

json_t *hsk_versions_json(struct hsk_doc *doc, GError **error)
{
    struct hsk_version_info *list = hsk_doc_versions(doc, error);
    json_t *out = json_array();

    for (struct hsk_version_info *v = list; v; v = v->next)
        json_array_append_new(out, version_json(v));
    hsk_version_info_free(list);
    return out;
}

json_t *hsk_versions_sizes_json(struct hsk_doc *doc, bool (*cancelled)(void *opaque), void *opaque,
                                GError **error)
{
    GError *failed = NULL;
    struct hsk_version_info *list = hsk_doc_versions(doc, &failed);
    json_t *out = json_array();

    if (!failed)
        hsk_doc_sizes(doc, list, cancelled, opaque, &failed);
    for (struct hsk_version_info *v = list; v && !failed; v = v->next) {
        json_t *j = version_json(v);
        json_object_set_new(j, "own", json_integer((json_int_t)v->own_bytes));
        json_object_set_new(j, "shared", json_integer((json_int_t)v->shared_bytes));
        json_array_append_new(out, j);
    }
    hsk_version_info_free(list);
    if (failed)
        g_propagate_error(error, failed);
    return out;
}

bool hsk_timeline_drop_all(struct hsk_doc *doc, GError **error)
{
    GError *failed = NULL;
    struct hsk_version_info *list = hsk_doc_versions(doc, &failed);
    g_autoptr(GPtrArray) ids = g_ptr_array_new();

    for (struct hsk_version_info *v = list; v; v = v->next) {
        if (v->kind == HSK_VERSION_AUTO && !v->pinned)
            g_ptr_array_add(ids, v->id);
    }
    if (ids->len && !failed)
        hsk_doc_drop_many(doc, (const char *const *)ids->pdata, ids->len, &failed);
    hsk_version_info_free(list);
    if (!failed)
        return true;
    g_propagate_error(error, failed);
    return false;
}

static bool may_drop(struct hsk_doc *doc, const char *id, GError **error)
{
    struct hsk_version_info *list = hsk_doc_versions(doc, NULL);
    bool pinned = false;

    for (const struct hsk_version_info *v = list; v && !pinned; v = v->next) {
        pinned = strcmp(v->id, id) == 0 && v->pinned;
        if (pinned)
            g_set_error(error, HSK_ERROR, HSK_ERROR_FAILED,
                        "\"%s\" is pinned; unpin it first, or use --force", v->title);
    }
    hsk_version_info_free(list);
    return !pinned;
}

bool hsk_version_edit(struct hsk_doc *doc, const char *verb, const char *ref, const char *title,
                      bool force, GError **error)
{
    g_autofree char *id = hsk_doc_resolve(doc, ref, error);

    if (!id)
        return false;
    if (strcmp(verb, "drop") == 0)
        return (force || may_drop(doc, id, error)) && hsk_doc_drop(doc, id, error);
    if (strcmp(verb, "rename") == 0)
        return hsk_doc_rename(doc, id, title ? title : "", error);
    if (strcmp(verb, "keep") == 0)
        return hsk_doc_keep(doc, id, title, error);
    return hsk_doc_pin(doc, id, strcmp(verb, "pin") == 0, error);
}
