/* SPDX-License-Identifier: MIT */
/*
 * Appending to the .hva what belongs to the document: versions that the user took, the saved state,
 * and the present of the disks as of the last version (docs/format.md, "Append"). The live log and
 * the timeline stay in the instance.
 *
 * The instance notes the hash of the ROOT to come before the commit block is written, so that after
 * a crash between the two it still knows the document. One thread.
 */
#include <errno.h>
#include <sys/stat.h>

#include "doc.h"

/* The timeline stays here: the nearest ancestor that goes along is the current version there. */
static void find_current(struct hsk_doc *doc, struct hsk_root *root)
{
    const struct hsk_record *now = hsk_doc_find(doc, root->current);
    if (now == NULL || now->info.kind != HSK_VERSION_AUTO)
        return;
    root->current[0] = '\0';
    for (guint i = 0; i < now->ancestors->len && root->current[0] == '\0'; i++) {
        const struct hsk_record *r = hsk_doc_find(doc, g_ptr_array_index(now->ancestors, i));
        if (r != NULL && r->info.kind != HSK_VERSION_AUTO)
            g_strlcpy(root->current, r->info.id, sizeof(root->current));
    }
}

/* Memory counts from the current version there: the timeline's stays here. */
static void find_memory(struct hsk_doc *doc, struct hsk_root *root)
{
    const struct hsk_record *now = hsk_doc_find(doc, root->current);
    for (guint i = root->present->len; i-- > 0;) {
        const struct hsk_object *o = &g_array_index(root->present, struct hsk_object, i);
        if (!g_str_has_prefix(o->name, "disk."))
            g_array_remove_index(root->present, i);
    }
    for (guint i = 0; now != NULL && i < now->objects->len; i++) {
        const struct hsk_object *o = &g_array_index(now->objects, struct hsk_object, i);
        if (!g_str_has_prefix(o->name, "disk."))
            hsk_objects_set(root->present, o);
    }
}

/* The instance's ROOT speaks of the live branch, so that the document's can. */
static bool settle(struct hsk_doc *doc, GError **error)
{
    HSK_AUTO(hsk_root, root) = hsk_root_copy(doc->root);
    if (!hsk_branches_settle(doc, root) || root->log_number == doc->root->log_number)
        return true;
    if (!hsk_doc_commit_root(doc, root, error))
        return false;
    g_steal_pointer(&root);
    hsk_branches_settled(doc);
    return true;
}

/* What the .hva's ROOT shall be; NULL in *root: it says so already. */
static bool make_root(struct hsk_doc *doc, struct hsk_root **out, GError **error)
{
    HSK_AUTO(hsk_root, root) = hsk_root_copy(doc->root);
    for (guint i = 0; i < doc->versions->len; i++) {
        const struct hsk_record *r = g_ptr_array_index(doc->versions, i);
        if (r->info.kind == HSK_VERSION_AUTO)
            hsk_root_remove(root, r->member);
    }
    find_current(doc, root);
    find_memory(doc, root);
    if (!hsk_doc_sweep(doc, root, doc->versions, NULL, error))
        return false;
    root->log_number = 0;
    root->log_seq = 0;
    uint32_t next = root->next_number;
    root->next_number = doc->base_root->next_number;
    root->generation = doc->base_root->generation;
    g_autofree char *now = hsk_root_format(doc->base_root);
    g_autofree char *then = hsk_root_format(root);
    root->next_number = next;
    root->generation++;
    *out = strcmp(now, then) == 0 ? NULL : g_steal_pointer(&root);
    return true;
}

static bool copy_members(struct hsk_doc *doc, const struct hsk_root *root, struct hsk_sink *sink,
                         GError **error)
{
    for (guint i = 0; i < root->entries->len; i++) {
        const struct hsk_root_entry *e = g_ptr_array_index(root->entries, i);
        struct hsk_member m;
        uint8_t hash[HSK_HASH_BYTES];
        if (hsk_root_find(doc->base_root, e->name) != NULL)
            continue;
        if (!hsk_carrier_member(doc->dir, e->name, &m, error))
            return false;
        bool ok = hsk_sink_copy(sink, e->name, &m, hash, error);
        hsk_member_close(&m);
        if (!ok)
            return false;
        if (memcmp(hash, e->hash, sizeof(hash)) != 0)
            return hsk_damaged(error, hsk_carrier_label(doc->dir),
                               "%s is not the one that was written", e->name);
    }
    return true;
}

bool hsk_doc_adopt_base(struct hsk_doc *doc, struct hsk_carrier *base, struct hsk_root *root,
                        const uint8_t hash[HSK_HASH_BYTES], GError **error)
{
    hsk_content_set_base(doc->content, base);
    hsk_carrier_free(doc->base);
    doc->base = base;
    hsk_root_free(doc->base_root);
    doc->base_root = root;
    g_clear_pointer(&doc->base_nodes, g_hash_table_unref);
    memcpy(doc->base_hash, hash, HSK_HASH_BYTES);
    if (!hsk_instance_expect(doc, NULL, error))
        return false;
    hsk_trust_forget_old(root->document, hash);
    hsk_instance_clean(doc);
    return true;
}

bool hsk_doc_look_again(struct hsk_doc *doc, GError **error)
{
    HSK_AUTO(hsk_carrier, base) = NULL;
    HSK_AUTO(hsk_root, root) = NULL;
    uint8_t hash[HSK_HASH_BYTES];
    if (!hsk_doc_load_base(doc->fd, doc->path, &base, &root, hash, error))
        return false;
    if (memcmp(hash, doc->base_hash, sizeof(hash)) == 0)
        return true;
    if (memcmp(hash, doc->next_hash, sizeof(hash)) == 0)
        return hsk_doc_adopt_base(doc, g_steal_pointer(&base), g_steal_pointer(&root), hash, error);
    g_set_error(
        error, HSK_ERROR, HSK_ERROR_FAILED,
        "%s was changed by another program; what changed here is kept on this computer only",
        doc->path);
    return false;
}

bool hsk_doc_is_gone(struct hsk_doc *doc)
{
    struct stat st;
    return fstat(doc->fd, &st) == 0 && st.st_nlink == 0;
}

void hsk_doc_identity(struct hsk_doc *doc, uint64_t *device, uint64_t *inode)
{
    struct stat st = {0};
    (void)fstat(doc->fd, &st);
    *device = st.st_dev;
    *inode = st.st_ino;
}

static bool reload(struct hsk_doc *doc, GError **error)
{
    if (!hsk_doc_is_gone(doc))
        return hsk_doc_look_again(doc, error);
    g_set_error(error, HSK_ERROR, HSK_ERROR_FAILED,
                "%s was deleted or replaced while it was open; what changed is kept on this "
                "computer only",
                doc->path);
    return false;
}

static bool append(struct hsk_doc *doc, const struct hsk_root *root, const char *text,
                   GError **error)
{
    struct hsk_tar_sink sink;
    bool committed = false;
    if (!hsk_tar_sink_init_append(&sink, doc->io, doc->fd, hsk_carrier_tar_end(doc->base),
                                  doc->path, error))
        return false;
    /* What was signed is not what it will be. */
    if (hsk_carrier_has(doc->base, "ROOT.minisig"))
        sink.signature = "";
    if (copy_members(doc, root, &sink.sink, error) &&
        hsk_tar_sink_commit(&sink, text, root->generation, &committed, error))
        return true;
    if (!committed)
        hsk_tar_sink_abort(&sink);
    return false;
}

bool hsk_doc_publish(struct hsk_doc *doc, GError **error)
{
    HSK_AUTO(hsk_root, root) = NULL;
    if (doc->readonly || !doc->fd_writable) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_FAILED,
                    "%s cannot be written to; what changed is kept on this computer only",
                    doc->path);
        return false;
    }
    if (!reload(doc, error) || !settle(doc, error) || !make_root(doc, &root, error))
        return false;
    if (root == NULL)
        return true;
    g_autofree char *text = hsk_root_format(root);
    hsk_hash(text, strlen(text), doc->next_hash);
    return hsk_trust_mark(root->document, doc->next_hash, doc->foreign, error) &&
           hsk_instance_expect(doc, doc->next_hash, error) && append(doc, root, text, error) &&
           reload(doc, error);
}

void hsk_doc_settle(struct hsk_doc *doc)
{
    HSK_AUTO(hsk_root, root) = NULL;
    if (doc->instance == NULL)
        return;
    bool saved = !hsk_doc_live_changed(doc) && make_root(doc, &root, NULL) && root == NULL;
    /* What was to go while a version was open. */
    hsk_instance_clean(doc);
    hsk_instance_settled(doc, saved);
}
