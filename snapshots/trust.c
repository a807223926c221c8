/* SPDX-License-Identifier: MIT */
/*
 * "Was this document written here, and what in it was not?" A per-user random key
 * ($XDG_DATA_HOME/haversack/key) and, for every ROOT that this user wrote, a record
 * trusted/<document>.<hash of ROOT>: the ids of versions in it that came from somebody else, behind
 * a keyed BLAKE2b of both. Nothing of this is in a document. Any thread.
 */
#include <errno.h>
#include <sodium.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "doc.h"

enum { KEY_BYTES = 32, ID_BYTES = 16, MAX_RECORD_BYTES = 4 << 20 };

char *hsk_data_folder(void)
{
    return g_build_filename(g_get_user_data_dir(), "haversack", NULL);
}

/* $data, or a folder in it, which is made. */
static int open_folder(const char *name, GError **error)
{
    g_autofree char *data = hsk_data_folder();
    g_autofree char *path = g_build_filename(data, name, NULL);
    if (g_mkdir_with_parents(path, 0700) < 0) {
        hsk_io_error(error, errno, "make the folder %s", path);
        return -1;
    }
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        hsk_io_error(error, errno, "open %s", path);
    return fd;
}

/* Makes the name of the data folder durable, and what is in it. */
static int sync_names(int dirfd)
{
    HSK_AUTOFD above = open(g_get_user_data_dir(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int r = above < 0 ? -errno : hsk_io_sync(NULL, above);
    return r < 0 ? r : hsk_io_sync(NULL, dirfd);
}

static bool read_exact(int dirfd, const char *name, void *buf, size_t len)
{
    HSK_AUTOFD fd = openat(dirfd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    struct stat st;
    return fd >= 0 && fstat(fd, &st) == 0 && st.st_size == (off_t)len &&
           hsk_pread_all(fd, buf, len, 0) == 0;
}

/* Two programs may start at once: the first one's counts. Where there is a key, there is surely the
 * folder for what it seals. */
static bool make_key(int dirfd, uint8_t key[KEY_BYTES], GError **error)
{
    int r = flock(dirfd, LOCK_EX) < 0 ? -errno : 0;
    if (r == 0 && faccessat(dirfd, "key", F_OK, 0) < 0) {
        r = errno == ENOENT ? sync_names(dirfd) : -errno;
        randombytes_buf(key, KEY_BYTES);
        if (r == 0)
            r = hsk_io_replace_file(NULL, dirfd, "key", key, KEY_BYTES);
    }
    if (r == 0 && !read_exact(dirfd, "key", key, KEY_BYTES))
        r = -EIO;
    return r == 0 || hsk_io_error(error, r, "make the key in Haversack's data folder");
}

static void make_tag(const uint8_t key[KEY_BYTES], const uint8_t root_hash[HSK_HASH_BYTES],
                     const uint8_t *ids, size_t bytes, uint8_t tag[HSK_HASH_BYTES])
{
    crypto_generichash_state st;
    crypto_generichash_init(&st, key, KEY_BYTES, HSK_HASH_BYTES);
    crypto_generichash_update(&st, root_hash, HSK_HASH_BYTES);
    crypto_generichash_update(&st, ids, bytes);
    crypto_generichash_final(&st, tag, HSK_HASH_BYTES);
}

/* The uuid is a valid one, so it can be a part of a file's name. */
static char *record_name(const char *document, const uint8_t root_hash[HSK_HASH_BYTES])
{
    char hex[2 * HSK_HASH_BYTES + 1];
    g_autofree char *uuid = g_ascii_strdown(document, -1);
    hsk_hex(hex, root_hash, HSK_HASH_BYTES);
    return g_strconcat(uuid, ".", hex, NULL);
}

struct record_file {
    char *name;
    int64_t time_ns;
};

static void record_file_clear(gpointer p)
{
    g_free(((struct record_file *)p)->name);
}

static gint newest_first(gconstpointer a, gconstpointer b)
{
    int64_t x = ((const struct record_file *)a)->time_ns,
            y = ((const struct record_file *)b)->time_ns;
    return (x < y) - (x > y);
}

void hsk_trust_forget_old(const char *document, const uint8_t newest[HSK_HASH_BYTES])
{
    g_autofree char *data = hsk_data_folder();
    g_autofree char *path = g_build_filename(data, "trusted", NULL);
    g_autofree char *uuid = g_ascii_strdown(document, -1);
    g_autofree char *stays = record_name(document, newest);
    HSK_AUTOFD trusted = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    g_autoptr(GDir) dir = g_dir_open(path, 0, NULL);
    g_autoptr(GArray) files = g_array_new(FALSE, FALSE, sizeof(struct record_file));
    const char *name;
    struct stat st;
    g_array_set_clear_func(files, record_file_clear);
    while (dir != NULL && (name = g_dir_read_name(dir)) != NULL) {
        if (!g_str_has_prefix(name, uuid) || strcmp(name, stays) == 0 ||
            fstatat(trusted, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
            continue;
        struct record_file f = {.name = g_strdup(name),
                                .time_ns =
                                    st.st_mtim.tv_sec * INT64_C(1000000000) + st.st_mtim.tv_nsec};
        g_array_append_val(files, f);
    }
    g_array_sort(files, newest_first);
    for (guint i = HSK_TRUSTED_KEPT - 1; i < files->len; i++)
        unlinkat(trusted, g_array_index(files, struct record_file, i).name, 0);
}

bool hsk_trust_mark(const char *document, const uint8_t root_hash[HSK_HASH_BYTES],
                    GHashTable *foreign, GError **error)
{
    uint8_t key[KEY_BYTES], tag[HSK_HASH_BYTES] = {0}, raw[ID_BYTES];
    g_autofree char *name = record_name(document, root_hash);
    HSK_AUTOFD trusted = open_folder("trusted", error);
    HSK_AUTOFD dirfd = trusted < 0 ? -1 : open_folder("", error);
    if (dirfd < 0 || (!read_exact(dirfd, "key", key, sizeof(key)) && !make_key(dirfd, key, error)))
        return false;
    g_autoptr(GByteArray) record = g_byte_array_new();
    g_byte_array_append(record, tag, sizeof(tag));
    GHashTableIter it;
    gpointer id;
    if (foreign != NULL)
        g_hash_table_iter_init(&it, foreign);
    while (foreign != NULL && g_hash_table_iter_next(&it, &id, NULL)) {
        if (hsk_unhex(id, raw, sizeof(raw)))
            g_byte_array_append(record, raw, sizeof(raw));
    }
    make_tag(key, root_hash, record->data + sizeof(tag), record->len - sizeof(tag), record->data);
    int r = hsk_io_replace_file(NULL, trusted, name, record->data, record->len);
    sodium_memzero(key, sizeof(key));
    return r == 0 || hsk_io_error(error, r, "note that this document was written here");
}

bool hsk_trust_check(const char *document, const uint8_t root_hash[HSK_HASH_BYTES],
                     GHashTable *foreign)
{
    uint8_t key[KEY_BYTES], tag[HSK_HASH_BYTES];
    char id[2 * ID_BYTES + 1];
    struct stat st;
    g_autofree char *path = hsk_data_folder();
    HSK_AUTOFD dirfd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    g_autofree char *record_file = record_name(document, root_hash);
    g_autofree char *name = g_strconcat("trusted/", record_file, NULL);
    HSK_AUTOFD fd = dirfd < 0 ? -1 : openat(dirfd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0 || fstat(fd, &st) < 0 || st.st_size < HSK_HASH_BYTES ||
        st.st_size > MAX_RECORD_BYTES || (st.st_size - HSK_HASH_BYTES) % ID_BYTES != 0 ||
        !read_exact(dirfd, "key", key, sizeof(key)))
        return false;
    size_t bytes = (size_t)st.st_size - HSK_HASH_BYTES;
    g_autofree uint8_t *record = g_malloc(bytes + HSK_HASH_BYTES);
    if (hsk_pread_all(fd, record, bytes + HSK_HASH_BYTES, 0) < 0)
        return false;
    make_tag(key, root_hash, record + HSK_HASH_BYTES, bytes, tag);
    sodium_memzero(key, sizeof(key));
    if (sodium_memcmp(tag, record, sizeof(tag)) != 0)
        return false;
    for (size_t i = 0; foreign != NULL && i < bytes; i += ID_BYTES) {
        hsk_hex(id, record + HSK_HASH_BYTES + i, ID_BYTES);
        g_hash_table_add(foreign, g_strdup(id));
    }
    return true;
}

bool hsk_doc_trusted(struct hsk_doc *doc)
{
    return hsk_trust_check(doc->base_root->document, doc->base_hash, NULL);
}

GHashTable *hsk_doc_foreign(struct hsk_doc *doc)
{
    return doc->foreign;
}

/* Of what the .hva holds; what the instance adds was made here. */
void hsk_doc_find_foreign(struct hsk_doc *doc)
{
    doc->foreign = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    if (hsk_trust_check(doc->base_root->document, doc->base_hash, doc->foreign))
        return;
    HSK_AUTO(hsk_trust_report, r) = hsk_doc_trust(doc);
    for (guint i = 0; r->trust != HSK_TRUST_PUBLISHER && i < doc->base_root->entries->len; i++) {
        const struct hsk_root_entry *e = g_ptr_array_index(doc->base_root->entries, i);
        char id[33];
        if (hsk_record_is_member(e->name, id))
            g_hash_table_add(doc->foreign, g_strdup(id));
    }
}

bool hsk_doc_accept(struct hsk_doc *doc, GError **error)
{
    if (!hsk_trust_mark(doc->base_root->document, doc->base_hash, NULL, error))
        return false;
    g_hash_table_remove_all(doc->foreign);
    return true;
}
