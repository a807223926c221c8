/* SPDX-License-Identifier: MIT */
/*
 * Changes to the list of versions: dropping some. What only they held goes with the same ROOT.
 * Threads: as hsk_version_commit.
 */
#include "doc.h"

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
        g_autofree char *name = hsk_version_member(r->info.id);
        if (hsk_root_find(doc->root, name) == NULL)
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
        struct hsk_record *r = hsk_doc_find(doc, ids[i]);
        if (r == NULL) {
            g_set_error(error, HSK_ERROR, HSK_ERROR_NOT_FOUND, "%s has no version \"%s\"",
                        doc->path, ids[i]);
            return false;
        }
        if (!hsk_doc_leave(doc, root, r)) {
            g_set_error(error, HSK_ERROR, HSK_ERROR_BUSY,
                        "%s: \"%s\" was gone back to a moment ago and is still needed; try again",
                        doc->path, r->info.title);
            return false;
        }
        g_autofree char *name = hsk_version_member(r->info.id);
        hsk_root_remove(root, name);
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
    if (!begin_drop(doc, root, ids, n, error) ||
        !hsk_doc_sweep(doc, root, doc->versions, true, error) ||
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
