/* SPDX-License-Identifier: MIT */
/*
 * Which instance store belongs to which document (docs/format.md, "Directory").
 *
 * $XDG_DATA_HOME/haversack/instances/<id>/origin says which file, which document and which ROOT the
 * instance continues. It is attached only when the ROOT is that one, or the one that a publish was
 * about to write when it was interrupted. An instance whose document was replaced or went on
 * elsewhere is put aside, never mixed in. A copy of a document gets an instance of its own. One
 * thread.
 */
#include <errno.h>
#include <inttypes.h>
#include <sodium.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "doc.h"

#define ORIGIN_MAX_BYTES 65536

struct origin {
    char *path, *document, *root, *next;
    uint64_t dev, ino;
    bool aside, saved;
};

static void origin_clear(struct origin *o)
{
    g_free(o->path);
    g_free(o->document);
    g_free(o->root);
    g_free(o->next);
    memset(o, 0, sizeof(*o));
}

/* Not there is HSK_ERROR_NOT_FOUND, nonsense is HSK_ERROR_DAMAGED; all else may be better the next
 * time. */
static bool origin_load(const char *folder, struct origin *o, GError **error)
{
    HSK_AUTOFD fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return hsk_io_error(error, errno, "open %s", folder);
    HSK_AUTO(hsk_carrier, dir) = hsk_carrier_open_dir(fd, folder);
    g_autoptr(GBytes) text = hsk_carrier_read(dir, "origin", ORIGIN_MAX_BYTES, error);
    g_autoptr(GKeyFile) k = g_key_file_new();
    if (text == NULL)
        return false;
    if (g_bytes_get_size(text) == 0 || !g_key_file_load_from_bytes(k, text, G_KEY_FILE_NONE, NULL))
        return hsk_damaged(error, folder, "its origin cannot be read");
    *o = (struct origin){.path = g_key_file_get_string(k, "origin", "path", NULL),
                         .document = g_key_file_get_string(k, "origin", "document", NULL),
                         .root = g_key_file_get_string(k, "origin", "root", NULL),
                         .next = g_key_file_get_string(k, "origin", "next-root", NULL),
                         .dev = g_key_file_get_uint64(k, "origin", "device", NULL),
                         .ino = g_key_file_get_uint64(k, "origin", "inode", NULL),
                         .aside = g_key_file_get_boolean(k, "origin", "aside", NULL),
                         .saved = g_key_file_get_boolean(k, "origin", "saved", NULL)};
    if (o->path != NULL && o->document != NULL && o->root != NULL && o->next != NULL)
        return true;
    origin_clear(o);
    return hsk_damaged(error, folder, "its origin is not whole");
}

static int origin_save(const struct hsk_io *io, int dirfd, const struct origin *o)
{
    g_autoptr(GKeyFile) k = g_key_file_new();
    g_key_file_set_string(k, "origin", "path", o->path);
    g_key_file_set_string(k, "origin", "document", o->document);
    g_key_file_set_string(k, "origin", "root", o->root);
    g_key_file_set_string(k, "origin", "next-root", o->next);
    g_key_file_set_uint64(k, "origin", "device", o->dev);
    g_key_file_set_uint64(k, "origin", "inode", o->ino);
    g_key_file_set_boolean(k, "origin", "aside", o->aside);
    g_key_file_set_boolean(k, "origin", "saved", o->saved);
    gsize len;
    g_autofree char *text = g_key_file_to_data(k, &len, NULL);
    return hsk_io_replace_file(io, dirfd, "origin", text, len);
}

char *hsk_instance_origin_path(const char *folder)
{
    struct origin o;
    if (!origin_load(folder, &o, NULL))
        return NULL;
    char *path = g_steal_pointer(&o.path);
    origin_clear(&o);
    return path;
}

bool hsk_instance_expect(struct hsk_doc *doc, const uint8_t next[HSK_HASH_BYTES], GError **error)
{
    char root_hex[2 * HSK_HASH_BYTES + 1], next_hex[2 * HSK_HASH_BYTES + 1] = "";
    struct stat st;
    if (fstat(doc->fd, &st) < 0)
        return hsk_io_error(error, errno, "read %s", doc->path);
    hsk_hex(root_hex, doc->base_hash, HSK_HASH_BYTES);
    if (next != NULL)
        hsk_hex(next_hex, next, HSK_HASH_BYTES);
    struct origin o = {.path = doc->path,
                       .document = doc->manifest->uuid,
                       .root = root_hex,
                       .next = next_hex,
                       .dev = st.st_dev,
                       .ino = st.st_ino};
    int r = origin_save(doc->io, doc->dirfd, &o);
    return r == 0 || hsk_io_error(error, r, "note in its instance what %s is", doc->path);
}

/* ---- finding ---- */

static char *instances_folder(void)
{
    g_autofree char *data = hsk_data_folder();
    return g_build_filename(data, "instances", NULL);
}

static bool folder_has_files(const char *folder, const char *name)
{
    g_autofree char *path = g_build_filename(folder, name, NULL);
    g_autoptr(GDir) dir = g_dir_open(path, 0, NULL);
    return dir != NULL && g_dir_read_name(dir) != NULL;
}

static bool has_unsaved(const char *folder)
{
    return folder_has_files(folder, "data") || folder_has_files(folder, "versions") ||
           folder_has_files(folder, "log");
}

static void remove_instance(const char *folder)
{
    static const char *const files[] = {"origin", "ROOT", "ROOT.prev", "ROOT.tmp", "origin.tmp"};
    static const char *const folders[] = {"map", "data", "versions", "log"};
    for (size_t i = 0; i < G_N_ELEMENTS(files); i++) {
        g_autofree char *path = g_build_filename(folder, files[i], NULL);
        unlink(path);
    }
    for (size_t i = 0; i < G_N_ELEMENTS(folders); i++) {
        g_autofree char *path = g_build_filename(folder, folders[i], NULL);
        g_autoptr(GDir) dir = g_dir_open(path, 0, NULL);
        const char *name;
        while (dir != NULL && (name = g_dir_read_name(dir)) != NULL) {
            g_autofree char *file = g_build_filename(path, name, NULL);
            unlink(file);
        }
        rmdir(path);
    }
    rmdir(folder);
}

/* Is the file that the origin speaks of still where it was? */
static bool original_is_there(const struct origin *o)
{
    struct stat st;
    return stat(o->path, &st) == 0 && (uint64_t)st.st_dev == o->dev &&
           (uint64_t)st.st_ino == o->ino;
}

enum match { MATCH_NONE, MATCH_OURS, MATCH_STALE };

static enum match match(const struct hsk_doc *doc, const struct stat *st, const struct origin *o)
{
    char hash[2 * HSK_HASH_BYTES + 1];
    hsk_hex(hash, doc->base_hash, HSK_HASH_BYTES);
    bool same_file = o->dev == (uint64_t)st->st_dev && o->ino == (uint64_t)st->st_ino;
    bool same_path = strcmp(o->path, doc->path) == 0;
    bool same_document = strcmp(o->document, doc->manifest->uuid) == 0;
    bool fits = same_document && (strcmp(o->root, hash) == 0 || strcmp(o->next, hash) == 0);
    if (o->aside)
        return MATCH_NONE;
    if (fits && (same_file || same_path || !original_is_there(o)))
        return MATCH_OURS;
    return !fits && (same_path || (same_file && same_document)) ? MATCH_STALE : MATCH_NONE;
}

/* Opens and locks an instance's folder; -1 and *busy if somebody has it. */
static int open_instance(const char *folder, bool *busy)
{
    HSK_AUTOFD fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    *busy = fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) < 0;
    return *busy ? -1 : hsk_steal_fd(&fd);
}

static bool put_aside(struct hsk_doc *doc, const char *folder, struct origin *o, char **orphan,
                      GError **error)
{
    bool busy;
    HSK_AUTOFD fd = open_instance(folder, &busy);
    if (fd < 0)
        return true; /* in use: it is the other one's */
    if (!has_unsaved(folder)) {
        remove_instance(folder);
        return true;
    }
    o->aside = true;
    int r = origin_save(doc->io, fd, o);
    if (r < 0)
        return hsk_io_error(error, r, "put aside %s", folder);
    if (orphan != NULL && *orphan == NULL)
        *orphan = g_strdup_printf("%s was replaced or continued elsewhere. What had not been saved "
                                  "into it here does not fit it any more "
                                  "and was put aside in %s.",
                                  doc->path, folder);
    return true;
}

/* The origin is written last and removed first: a folder without one is what an interrupted making
 * or removing left. */
static void remove_nobodys(const char *folder)
{
    g_autofree char *origin = g_build_filename(folder, "origin", NULL);
    bool busy;
    HSK_AUTOFD fd = open_instance(folder, &busy);
    if (fd >= 0 && access(origin, F_OK) < 0 && errno == ENOENT)
        remove_instance(folder);
}

/* The id of the instance that fits, or NULL; stale ones are put aside. */
static bool find_instance(struct hsk_doc *doc, const char *instances, char **id, char **orphan,
                          GError **error)
{
    struct stat st;
    if (fstat(doc->fd, &st) < 0)
        return hsk_io_error(error, errno, "read %s", doc->path);
    g_autoptr(GDir) dir = g_dir_open(instances, 0, NULL);
    g_autofree char *whose = NULL;
    const char *name;
    bool ok = true;
    while (ok && dir != NULL && (name = g_dir_read_name(dir)) != NULL) {
        g_autofree char *folder = g_build_filename(instances, name, NULL);
        struct origin o;
        if (!hsk_version_id_ok(name))
            continue;
        g_autoptr(GError) unread = NULL;
        if (!origin_load(folder, &o, &unread)) {
            /* It may be this document's, so going on without it is out of the question. */
            ok = g_error_matches(unread, HSK_ERROR, HSK_ERROR_NOT_FOUND) ||
                 g_error_matches(unread, HSK_ERROR, HSK_ERROR_DAMAGED);
            if (!ok)
                g_propagate_error(error, g_steal_pointer(&unread));
            else if (unread->code == HSK_ERROR_NOT_FOUND)
                remove_nobodys(folder);
            else if (whose == NULL)
                whose = g_strdup_printf("%s. If it was this document's, what was not saved into "
                                        "the document is there.",
                                        unread->message);
            continue;
        }
        enum match m = match(doc, &st, &o);
        if (m == MATCH_STALE) {
            ok = put_aside(doc, folder, &o, orphan, error);
        } else if (m == MATCH_OURS && *id == NULL) {
            *id = g_strdup(name);
        }
        origin_clear(&o);
    }
    if (*id == NULL && orphan != NULL && *orphan == NULL)
        *orphan = g_steal_pointer(&whose);
    return ok;
}

/* ---- making and opening ---- */

/* The name of a new instance must outlive a power cut as surely as what is written into it. */
static int sync_folder(const struct hsk_io *io, const char *path)
{
    HSK_AUTOFD fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 ? -errno : hsk_io_sync(io, fd);
}

static bool make_instance(struct hsk_doc *doc, const char *instances, GError **error)
{
    static const char *const folders[] = {"data", "map", "versions", "log"};
    uint8_t raw[16];
    char id[33];
    randombytes_buf(raw, sizeof(raw));
    hsk_hex(id, raw, sizeof(raw));
    g_autofree char *folder = g_build_filename(instances, id, NULL);
    if (mkdir(folder, 0700) < 0)
        return hsk_io_error(error, errno, "make the folder %s", folder);
    doc->instance = g_strdup(id);
    bool busy;
    doc->dirfd = open_instance(folder, &busy);
    if (doc->dirfd < 0)
        return hsk_io_error(error, errno, "open %s", folder);
    for (size_t i = 0; i < G_N_ELEMENTS(folders); i++) {
        if (mkdirat(doc->dirfd, folders[i], 0700) < 0)
            return hsk_io_error(error, errno, "make the folder %s/%s", folder, folders[i]);
    }
    doc->root = hsk_root_copy(doc->base_root);
    doc->root->log_number = 1;
    doc->root->log_seq = 1;
    /* The origin comes last: a folder without one is nobody's. */
    if (!hsk_doc_commit_root(doc, doc->root, error) || !hsk_instance_expect(doc, NULL, error))
        return false;
    g_autofree char *data = hsk_data_folder();
    const char *const names[] = {instances, data, g_get_user_data_dir()};
    int r = 0;
    for (size_t i = 0; i < G_N_ELEMENTS(names) && r == 0; i++)
        r = sync_folder(doc->io, names[i]);
    return r == 0 || hsk_io_error(error, r, "write %s", instances);
}

static struct hsk_root *read_root(struct hsk_doc *doc, const char *name, GError **error)
{
    g_autoptr(GBytes) text = hsk_carrier_read(doc->dir, name, HSK_ROOT_MAX_BYTES, error);
    if (text == NULL)
        return NULL;
    HSK_AUTO(hsk_root, root) = hsk_root_parse(g_bytes_get_data(text, NULL), g_bytes_get_size(text),
                                              hsk_carrier_label(doc->dir), error);
    if (root != NULL &&
        (root->log_number == 0 || strcmp(root->document, doc->manifest->uuid) != 0)) {
        hsk_damaged(error, hsk_carrier_label(doc->dir), "its %s is another machine's", name);
        return NULL;
    }
    return g_steal_pointer(&root);
}

/* A document that was compacted has the same members with holes in them. */
static void follow_document(struct hsk_doc *doc)
{
    for (guint i = 0; i < doc->base_root->entries->len; i++) {
        const struct hsk_root_entry *e = g_ptr_array_index(doc->base_root->entries, i);
        if (hsk_root_find(doc->root, e->name) != NULL)
            hsk_root_set(doc->root, e->name, e->hash, e->is_segment ? &e->segment : NULL);
    }
}

static bool load_instance(struct hsk_doc *doc, const char *folder, char **orphan, GError **error)
{
    bool busy;
    doc->dirfd = open_instance(folder, &busy);
    if (busy) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_BUSY, "%s is open already; close it there first",
                    doc->path);
        return false;
    }
    if (doc->dirfd < 0)
        return hsk_io_error(error, errno, "open %s", folder);
    doc->dir = hsk_carrier_open_dir(doc->dirfd, folder);
    g_autoptr(GError) first = NULL;
    doc->root = read_root(doc, "ROOT", &first);
    if (doc->root == NULL) {
        /* Only if it is gone: what cannot be read just now holds what was promised. */
        if (g_error_matches(first, HSK_ERROR, HSK_ERROR_DAMAGED) ||
            g_error_matches(first, HSK_ERROR, HSK_ERROR_NOT_FOUND))
            doc->root = read_root(doc, "ROOT.prev", NULL);
        if (doc->root == NULL) {
            g_propagate_error(error, g_steal_pointer(&first));
            return false;
        }
        if (orphan != NULL && *orphan == NULL)
            *orphan = g_strdup_printf("%s; the state before the last saved one was opened.",
                                      first->message);
    }
    follow_document(doc);
    return hsk_instance_expect(doc, NULL, error);
}

bool hsk_instance_attach(struct hsk_doc *doc, char **orphan, GError **error)
{
    g_autofree char *instances = instances_folder();
    g_autofree char *id = NULL;
    if (g_mkdir_with_parents(instances, 0700) < 0)
        return hsk_io_error(error, errno, "make the folder %s", instances);
    /* Held to the end: nobody takes an instance that another one is making for nobody's. */
    HSK_AUTOFD all = open(instances, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (all < 0 || flock(all, LOCK_EX) < 0)
        return hsk_io_error(error, errno, "open %s", instances);
    if (!find_instance(doc, instances, &id, orphan, error))
        return false;
    if (id == NULL && !make_instance(doc, instances, error)) {
        if (doc->instance != NULL) {
            g_autofree char *half = g_build_filename(instances, doc->instance, NULL);
            remove_instance(half);
        }
        return false;
    }
    if (id == NULL) {
        g_autofree char *folder = g_build_filename(instances, doc->instance, NULL);
        doc->dir = hsk_carrier_open_dir(doc->dirfd, folder);
        return true;
    }
    g_autofree char *folder = g_build_filename(instances, id, NULL);
    doc->instance = g_steal_pointer(&id);
    return load_instance(doc, folder, orphan, error);
}

bool hsk_doc_forget_content(struct hsk_doc *doc)
{
    g_mutex_lock(&doc->lock);
    bool wait = doc->nopen > 0;
    g_mutex_unlock(&doc->lock);
    hsk_content_retain(doc->content, doc->root, wait);
    return !wait;
}

void hsk_instance_clean(struct hsk_doc *doc)
{
    static const char *const folders[] = {"data", "map", "versions"};
    if (doc->root_unsure)
        return;
    if (!hsk_doc_forget_content(doc))
        return;
    for (size_t i = 0; i < G_N_ELEMENTS(folders); i++) {
        g_autofree char *path = g_build_filename(hsk_carrier_label(doc->dir), folders[i], NULL);
        g_autoptr(GDir) dir = g_dir_open(path, 0, NULL);
        const char *file;
        while (dir != NULL && (file = g_dir_read_name(dir)) != NULL) {
            g_autofree char *name = g_strconcat(folders[i], "/", file, NULL);
            if (hsk_root_find(doc->root, name) == NULL ||
                hsk_root_find(doc->base_root, name) != NULL)
                unlinkat(doc->dirfd, name, 0);
        }
    }
}

/* ---- going with the document ---- */

void hsk_instance_settled(struct hsk_doc *doc, bool saved)
{
    g_autoptr(GError) error = NULL;
    struct origin o;
    if (!origin_load(hsk_carrier_label(doc->dir), &o, &error))
        return;
    o.saved = saved;
    if (origin_save(doc->io, doc->dirfd, &o) < 0)
        g_debug("the origin of %s was not written", doc->path);
    origin_clear(&o);
}

/* The file is not there, but the folder that it was in is, on the same disk: nobody has only pulled
 * out a stick. */
static bool was_deleted(const struct origin *o)
{
    g_autofree char *parent = g_path_get_dirname(o->path);
    struct stat st;
    return stat(o->path, &st) < 0 && errno == ENOENT && stat(parent, &st) == 0 &&
           (uint64_t)st.st_dev == o->dev;
}

void hsk_instances_tidy(void)
{
    g_autofree char *instances = instances_folder();
    g_autoptr(GDir) dir = g_dir_open(instances, 0, NULL);
    const char *name;
    while (dir != NULL && (name = g_dir_read_name(dir)) != NULL) {
        g_autofree char *folder = g_build_filename(instances, name, NULL);
        struct origin o;
        bool busy;
        if (!hsk_version_id_ok(name) || !origin_load(folder, &o, NULL))
            continue;
        if (o.saved && !o.aside && was_deleted(&o)) {
            HSK_AUTOFD fd = open_instance(folder, &busy);
            if (fd >= 0)
                remove_instance(folder);
        }
        origin_clear(&o);
    }
}
