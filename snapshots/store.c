/* SPDX-License-Identifier: MIT */
/*
 * Opening and closing documents: the .hva with its lock, ROOT and manifest; then, unless read-only,
 * the instance store. Nothing is scanned but the tar's headers: the cost grows with the number of
 * members, not with their size. One thread.
 */
#include <errno.h>
#include <sodium.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "doc.h"

#define MANY_MEMBERS 256u
#define MIME_TYPE    "application/vnd.haversack.appliance"

struct hsk_record *hsk_doc_find(struct hsk_doc *doc, const char *id)
{
    for (guint i = 0; i < doc->versions->len; i++) {
        struct hsk_record *r = g_ptr_array_index(doc->versions, i);
        if (strcmp(r->info.id, id) == 0)
            return r;
    }
    return NULL;
}

void hsk_doc_find_saved(struct hsk_doc *doc)
{
    doc->saved[0] = '\0';
    for (guint i = 0; i < doc->versions->len; i++) {
        const struct hsk_record *r = g_ptr_array_index(doc->versions, i);
        if (r->info.kind == HSK_VERSION_SAVED)
            g_strlcpy(doc->saved, r->info.id, sizeof(doc->saved));
    }
}

GBytes *hsk_read_listed(const struct hsk_carrier *c, const struct hsk_root *root, const char *name,
                        size_t max, GError **error)
{
    const struct hsk_root_entry *e = hsk_root_find(root, name);
    uint8_t hash[HSK_HASH_BYTES];
    if (e == NULL) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_NOT_FOUND, "%s has no %s in it",
                    hsk_carrier_label(c), name);
        return NULL;
    }
    g_autoptr(GBytes) bytes = hsk_carrier_read(c, name, max, error);
    if (bytes == NULL)
        return NULL;
    hsk_hash(g_bytes_get_data(bytes, NULL), g_bytes_get_size(bytes), hash);
    if (memcmp(hash, e->hash, sizeof(hash)) != 0) {
        hsk_damaged(error, hsk_carrier_label(c), "%s is not the one that was written", name);
        return NULL;
    }
    return g_steal_pointer(&bytes);
}

static bool check_kind(int fd, const char *path, GError **error)
{
    struct stat st;
    uint8_t head[512];
    if (fstat(fd, &st) < 0)
        return hsk_io_error(error, errno, "open %s", path);
    if (S_ISREG(st.st_mode) && st.st_size >= (off_t)sizeof(head)) {
        int r = hsk_pread_all(fd, head, sizeof(head), 0);
        if (r < 0)
            return hsk_io_error(error, r, "read %s", path);
        if (memcmp(head + 257, "ustar", 5) == 0)
            return true;
    }
    g_set_error(error, HSK_ERROR, HSK_ERROR_DAMAGED, "%s is not a Haversack document", path);
    return false;
}

bool hsk_doc_load_base(int fd, const char *path, struct hsk_carrier **base, struct hsk_root **root,
                       uint8_t hash[HSK_HASH_BYTES], GError **error)
{
    if (!check_kind(fd, path, error))
        return false;
    HSK_AUTO(hsk_carrier, c) = hsk_carrier_open_tar(fd, path, error);
    if (c == NULL)
        return false;
    g_autoptr(GBytes) mime =
        hsk_carrier_has(c, "mimetype") ? hsk_carrier_read(c, "mimetype", 256, NULL) : NULL;
    if (mime == NULL || g_bytes_get_size(mime) != strlen(MIME_TYPE) ||
        memcmp(g_bytes_get_data(mime, NULL), MIME_TYPE, strlen(MIME_TYPE)) != 0) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_DAMAGED,
                    "%s is a tar archive, but not a Haversack document", path);
        return false;
    }
    g_autoptr(GBytes) text = hsk_carrier_read(c, "ROOT", HSK_ROOT_MAX_BYTES, error);
    if (text == NULL)
        return false;
    hsk_hash(g_bytes_get_data(text, NULL), g_bytes_get_size(text), hash);
    HSK_AUTO(hsk_root, r) =
        hsk_root_parse(g_bytes_get_data(text, NULL), g_bytes_get_size(text), path, error);
    if (r == NULL)
        return false;
    if (r->log_number != 0)
        return hsk_damaged(error, path, "its ROOT speaks of a log");
    *base = g_steal_pointer(&c);
    *root = g_steal_pointer(&r);
    return true;
}

static bool load_manifest(struct hsk_doc *doc, GError **error)
{
    g_autoptr(GBytes) text =
        hsk_read_listed(doc->base, doc->base_root, "manifest.json", HSK_MANIFEST_MAX_BYTES, error);
    if (text == NULL)
        return false;
    doc->manifest =
        hsk_manifest_parse(doc->path, g_bytes_get_data(text, NULL), g_bytes_get_size(text), error);
    if (doc->manifest == NULL)
        return false;
    if (strcmp(doc->manifest->uuid, doc->base_root->document) != 0)
        return hsk_damaged(error, doc->path,
                           "its ROOT and its manifest speak of different machines");
    return true;
}

static gint by_order(gconstpointer a, gconstpointer b)
{
    const struct hsk_record *const *x = a, *const *y = b;
    return ((*x)->order > (*y)->order) - ((*x)->order < (*y)->order);
}

/* One version is lost, the others are not. */
static struct hsk_record *damaged_record(const char *id)
{
    struct hsk_record *r = hsk_record_new();
    g_strlcpy(r->info.id, id, sizeof(r->info.id));
    r->info.title = g_strdup("(damaged)");
    r->info.engine = g_strdup("");
    r->cpu = g_strdup("");
    r->info.damaged = true;
    return r;
}

static bool load_versions(struct hsk_doc *doc, GError **error)
{
    /* A stranger's document may list very many. */
    g_autoptr(GHashTable) seen = g_hash_table_new(g_str_hash, g_str_equal);
    for (guint i = 0; i < doc->root->entries->len; i++) {
        const struct hsk_root_entry *e = g_ptr_array_index(doc->root->entries, i);
        char id[33];
        hsk_content_add(doc->content, e);
        if (!hsk_record_is_member(e->name, id))
            continue;
        const struct hsk_carrier *c =
            doc->dir != NULL && hsk_carrier_has(doc->dir, e->name) ? doc->dir : doc->base;
        g_autoptr(GError) unread = NULL;
        g_autoptr(GBytes) text =
            hsk_read_listed(c, doc->root, e->name, HSK_RECORD_MAX_BYTES, &unread);
        /* What cannot be read just now is not damaged. */
        if (text == NULL && !g_error_matches(unread, HSK_ERROR, HSK_ERROR_DAMAGED) &&
            !g_error_matches(unread, HSK_ERROR, HSK_ERROR_NOT_FOUND)) {
            g_propagate_error(error, g_steal_pointer(&unread));
            return false;
        }
        struct hsk_record *r = text == NULL
                                   ? damaged_record(id)
                                   : hsk_record_parse(doc->path, id, g_bytes_get_data(text, NULL),
                                                      g_bytes_get_size(text), error);
        if (r == NULL)
            return false;
        r->member = g_strdup(e->name);
        g_ptr_array_add(doc->versions, r);
        if (!g_hash_table_add(seen, r->info.id))
            return hsk_damaged(error, doc->path, "its ROOT lists version %s twice", id);
    }
    g_ptr_array_sort(doc->versions, by_order);
    hsk_doc_find_saved(doc);
    if (doc->root->current[0] != '\0' && hsk_doc_find(doc, doc->root->current) == NULL)
        return hsk_damaged(error, doc->path, "its ROOT names a current version that is not there");
    return true;
}

static bool open_locked(struct hsk_doc *doc, GError **error)
{
    if (!doc->readonly)
        doc->fd = open(doc->path, O_RDWR | O_CLOEXEC | O_NONBLOCK);
    doc->fd_writable = doc->fd >= 0;
    if (doc->fd < 0)
        doc->fd = open(doc->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (doc->fd < 0)
        return hsk_io_error(error, errno, "open %s", doc->path);
    if (!doc->readonly && flock(doc->fd, LOCK_EX | LOCK_NB) < 0) {
        if (errno != EWOULDBLOCK)
            return hsk_io_error(error, errno, "lock %s", doc->path);
        g_set_error(error, HSK_ERROR, HSK_ERROR_BUSY, "%s is open already; close it there first",
                    doc->path);
        return false;
    }
    return true;
}

static bool do_open(struct hsk_doc *doc, char **orphan, GError **error)
{
    if (!open_locked(doc, error) ||
        !hsk_doc_load_base(doc->fd, doc->path, &doc->base, &doc->base_root, doc->base_hash,
                           error) ||
        !load_manifest(doc, error))
        return false;
    if (!doc->readonly)
        hsk_target_tidy(doc->path);
    if (doc->readonly)
        doc->root = hsk_root_copy(doc->base_root);
    else if (!hsk_instance_attach(doc, orphan, error))
        return false;
    doc->content = hsk_content_new(doc->path, doc->dir, doc->base);
    if (!load_versions(doc, error))
        return false;
    hsk_doc_find_foreign(doc);
    if (doc->readonly)
        return true;
    hsk_instance_clean(doc);
    return hsk_disks_open(doc, orphan, error);
}

/* A folder of the instances stands for the document that it belongs to. */
static char *document_path(const char *path, GError **error)
{
    g_autofree char *real = realpath(path, NULL);
    if (real == NULL) {
        hsk_io_error(error, errno, "open %s", path);
        return NULL;
    }
    if (!g_utf8_validate(real, -1, NULL)) {
        /* It goes into the instance's origin and through the control socket. */
        g_autofree char *shown = hsk_text_line(real);
        g_set_error(error, HSK_ERROR, HSK_ERROR_FAILED,
                    "the name of %s, or of a folder on the way to it, is not UTF-8; rename it",
                    shown);
        return NULL;
    }
    if (!g_file_test(real, G_FILE_TEST_IS_DIR))
        return g_strdup(real);
    g_autofree char *origin = hsk_instance_origin_path(real);
    if (origin == NULL)
        g_set_error(error, HSK_ERROR, HSK_ERROR_DAMAGED, "%s is a folder, not a Haversack document",
                    path);
    return g_steal_pointer(&origin);
}

struct hsk_doc *hsk_doc_open_io(const char *path, bool readonly, const struct hsk_io *io,
                                char **orphan, GError **error)
{
    g_autofree char *real = document_path(path, error);
    if (real == NULL)
        return NULL;
    if (sodium_init() < 0) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_FAILED, "libsodium does not work on this computer");
        return NULL;
    }
    struct hsk_doc *doc = g_new0(struct hsk_doc, 1);
    *doc = (struct hsk_doc){
        .io = io,
        .readonly = readonly,
        .path = g_steal_pointer(&real),
        .fd = -1,
        .dirfd = -1,
        .many_members = MANY_MEMBERS,
    };
    doc->versions = g_ptr_array_new_with_free_func((GDestroyNotify)hsk_record_free);
    g_mutex_init(&doc->lock);
    g_mutex_init(&doc->disk_lock);
    if (!do_open(doc, orphan, error)) {
        hsk_doc_close(doc);
        return NULL;
    }
    return doc;
}

struct hsk_doc *hsk_doc_open(const char *path, bool readonly, char **orphan, GError **error)
{
    return hsk_doc_open_io(path, readonly, NULL, orphan, error);
}

void hsk_doc_close(struct hsk_doc *doc)
{
    if (doc == NULL)
        return;
    if (doc->log != NULL)
        (void)!hsk_log_flush(doc->log);
    hsk_disks_close(doc);
    hsk_index_free(doc->index);
    hsk_content_free(doc->content);
    g_clear_pointer(&doc->foreign, g_hash_table_unref);
    g_ptr_array_unref(doc->versions);
    hsk_root_free(doc->root);
    hsk_root_free(doc->base_root);
    g_clear_pointer(&doc->base_nodes, g_hash_table_unref);
    hsk_carrier_free(doc->dir);
    hsk_carrier_free(doc->base);
    hsk_manifest_free(doc->manifest);
    hsk_assert(doc->nopen == 0);
    g_mutex_clear(&doc->lock);
    g_mutex_clear(&doc->disk_lock);
    g_clear_pointer(&doc->left, g_ptr_array_unref);
    if (doc->dirfd >= 0)
        close(doc->dirfd);
    if (doc->fd >= 0)
        close(doc->fd);
    g_free(doc->instance);
    g_free(doc->path);
    g_free(doc);
}

const struct hsk_manifest *hsk_doc_manifest(struct hsk_doc *doc)
{
    return doc->manifest;
}

const char *hsk_doc_instance(struct hsk_doc *doc)
{
    return doc->instance;
}

GBytes *hsk_doc_boot_member(struct hsk_doc *doc, const char *name, GError **error)
{
    if (strcmp(name, "boot/kernel") != 0 && strcmp(name, "boot/initrd") != 0) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_NOT_FOUND, "%s has no %s in it", doc->path, name);
        return NULL;
    }
    return hsk_read_listed(doc->base, doc->base_root, name, 1u << 30, error);
}
