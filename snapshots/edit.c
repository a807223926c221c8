/* SPDX-License-Identifier: MIT */
/*
 * Changes to the list of versions: dropping some, with what only they held; other words for people
 * on one. Each is one new ROOT. Threads: as hsk_version_commit.
 */
#include "doc.h"

static struct hsk_record *need(struct hsk_doc *doc, const char *id, GError **error)
{
    struct hsk_record *r = hsk_doc_find(doc, id);
    if (r == NULL)
        g_set_error(error, HSK_ERROR, HSK_ERROR_NOT_FOUND, "%s has no version \"%s\"", doc->path,
                    id);
    return r;
}

bool hsk_doc_leave(struct hsk_doc *doc, const struct hsk_root *root, struct hsk_record *r)
{
    G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&doc->lock);
    r->leaving = !hsk_branch_promised(doc, root, r->info.id);
    return r->leaving;
}

void hsk_doc_stay(struct hsk_doc *doc)
{
    G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&doc->lock);
    for (guint i = 0; i < doc->versions->len; i++)
        ((struct hsk_record *)g_ptr_array_index(doc->versions, i))->leaving = false;
}

void hsk_doc_adopt_versions(struct hsk_doc *doc, struct hsk_record *added)
{
    G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&doc->lock);
    if (added != NULL)
        g_ptr_array_add(doc->versions, added);
    for (guint i = doc->versions->len; i-- > 0;) {
        const struct hsk_record *r = g_ptr_array_index(doc->versions, i);
        if (hsk_root_find(doc->root, r->member) == NULL)
            g_ptr_array_remove_index(doc->versions, i);
    }
    hsk_doc_find_saved(doc);
}

/* The nearest ancestor that stays, or "". */
static const char *staying_ancestor(struct hsk_doc *doc, const char *id)
{
    const struct hsk_record *r = hsk_doc_find(doc, id);
    for (guint i = 0; r != NULL && i < r->ancestors->len; i++) {
        const struct hsk_record *a = hsk_doc_find(doc, g_ptr_array_index(r->ancestors, i));
        if (a != NULL && !a->leaving)
            return a->info.id;
    }
    return "";
}

/* Marks them and takes them out of root. */
static bool begin_drop(struct hsk_doc *doc, struct hsk_root *root, const char *const *ids,
                       unsigned n, GError **error)
{
    hsk_branches_settle(doc, root);
    for (unsigned i = 0; i < n; i++) {
        struct hsk_record *r = need(doc, ids[i], error);
        if (r == NULL)
            return false;
        if (!hsk_doc_leave(doc, root, r)) {
            g_set_error(error, HSK_ERROR, HSK_ERROR_BUSY,
                        "%s: \"%s\" was gone back to a moment ago and is still needed; try again",
                        doc->path, r->info.title);
            return false;
        }
        hsk_root_remove(root, r->member);
    }
    if (root->current[0] != '\0' && hsk_doc_find(doc, root->current)->leaving)
        g_strlcpy(root->current, staying_ancestor(doc, root->current), sizeof(root->current));
    return true;
}

/* Branches that come from a version that goes come from its ancestor. */
static void move_branches(struct hsk_doc *doc, const char *const *ids, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        hsk_branches_rename_current(doc, ids[i], staying_ancestor(doc, ids[i]));
}

bool hsk_doc_drop_many(struct hsk_doc *doc, const char *const *ids, unsigned n, GError **error)
{
    HSK_AUTO(hsk_root, root) = hsk_root_copy(doc->root);
    g_autoptr(GPtrArray) memory = hsk_branches_memory(doc);
    if (!begin_drop(doc, root, ids, n, error) ||
        !hsk_doc_sweep(doc, root, doc->versions, memory, error) ||
        !hsk_doc_commit_root(doc, root, error)) {
        hsk_doc_stay(doc);
        return false;
    }
    g_steal_pointer(&root);
    move_branches(doc, ids, n);
    hsk_branches_settled(doc);
    hsk_doc_adopt_versions(doc, NULL);
    hsk_instance_clean(doc);
    return true;
}

bool hsk_doc_drop(struct hsk_doc *doc, const char *id, GError **error)
{
    return hsk_doc_drop_many(doc, &id, 1, error);
}

/* ---- titles and pins ---- */

bool hsk_record_rewrite(struct hsk_sink *sink, struct hsk_root *root, struct hsk_record *r,
                        GError **error)
{
    uint8_t hash[HSK_HASH_BYTES];
    g_autofree char *text = hsk_record_format(r);
    g_autofree char *name = hsk_record_member(r->info.id, root->next_number++);
    if (strlen(text) > HSK_RECORD_MAX_BYTES) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_FAILED,
                    "the record of the version would be too large");
        return false;
    }
    if (!hsk_sink_put(sink, name, text, strlen(text), hash, error))
        return false;
    hsk_root_remove(root, r->member);
    hsk_root_set(root, name, hash, NULL);
    g_free(r->member);
    r->member = g_steal_pointer(&name);
    return true;
}

/* A version gets a new record with this title, kind and pin; everything else stays. */
static bool change(struct hsk_doc *doc, struct hsk_record *r, const char *title,
                   enum hsk_version_kind kind, bool pinned, GError **error)
{
    struct hsk_record next = *r;
    struct hsk_dir_sink sink;
    if (r->info.damaged)
        return hsk_damaged(error, doc->path, "the record of version %s makes no sense", r->info.id);
    HSK_AUTO(hsk_root, root) = hsk_root_copy(doc->root);
    next.info.title = hsk_text_clean(title, HSK_TITLE_BYTES);
    next.info.kind = kind;
    next.info.pinned = pinned;
    next.member = g_strdup(r->member);
    hsk_dir_sink_init(&sink, doc->io, doc->dirfd, doc->path);
    bool ok = hsk_record_rewrite(&sink.sink, root, &next, error) &&
              hsk_dir_sink_sync(&sink, error) && hsk_doc_commit_root(doc, root, error);
    if (ok) {
        g_steal_pointer(&root);
        g_mutex_lock(&doc->lock);
        char *old_title = r->info.title, *old_member = r->member;
        *r = next;
        g_mutex_unlock(&doc->lock);
        next.info.title = old_title;
        next.member = old_member;
        hsk_instance_clean(doc);
    } else {
        doc->root->next_number = root->next_number;
        if (!doc->root_unsure)
            hsk_dir_sink_abort(&sink);
    }
    hsk_dir_sink_finish(&sink);
    g_free(next.info.title);
    g_free(next.member);
    return ok;
}

bool hsk_doc_rename(struct hsk_doc *doc, const char *id, const char *title, GError **error)
{
    struct hsk_record *r = need(doc, id, error);
    return r != NULL && change(doc, r, title, r->info.kind, r->info.pinned, error);
}

bool hsk_doc_pin(struct hsk_doc *doc, const char *id, bool pinned, GError **error)
{
    struct hsk_record *r = need(doc, id, error);
    return r != NULL &&
           (r->info.pinned == pinned || change(doc, r, r->info.title, r->info.kind, pinned, error));
}

bool hsk_doc_keep(struct hsk_doc *doc, const char *id, const char *title, GError **error)
{
    struct hsk_record *r = need(doc, id, error);
    if (r == NULL)
        return false;
    if (r->info.kind != HSK_VERSION_AUTO) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_USAGE,
                    "\"%s\" is kept already: it is no point of the timeline", r->info.title);
        return false;
    }
    return change(doc, r, title != NULL ? title : r->info.title, HSK_VERSION_USER, r->info.pinned,
                  error);
}
