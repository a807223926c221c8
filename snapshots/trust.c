/* SPDX-License-Identifier: MIT */
/*
 * "Was this document written here?" A per-user random key ($XDG_DATA_HOME/haversack/key) and, for
 * every ROOT that this user wrote, a record trusted/<hash of ROOT> that holds a keyed BLAKE2b of
 * it. Nothing of this is in a document. Any thread.
 */
#include <errno.h>
#include <sodium.h>
#include <sys/stat.h>

#include "doc.h"

enum { KEY_BYTES = 32 };

char *hsk_data_folder(void)
{
    return g_build_filename(g_get_user_data_dir(), "haversack", NULL);
}

static int open_folder(GError **error)
{
    g_autofree char *path = hsk_data_folder();
    g_autofree char *trusted = g_build_filename(path, "trusted", NULL);
    if (g_mkdir_with_parents(trusted, 0700) < 0) {
        hsk_io_error(error, errno, "make the folder %s", trusted);
        return -1;
    }
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        hsk_io_error(error, errno, "open %s", path);
    return fd;
}

static bool read_exact(int dirfd, const char *name, void *buf, size_t len)
{
    HSK_AUTOFD fd = openat(dirfd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    struct stat st;
    return fd >= 0 && fstat(fd, &st) == 0 && st.st_size == (off_t)len &&
           hsk_pread_all(fd, buf, len, 0) == 0;
}

/* Two programs may start at once: the first link wins. */
static bool make_key(int dirfd, uint8_t key[KEY_BYTES], GError **error)
{
    char tmp[64];
    g_snprintf(tmp, sizeof(tmp), "key.%08x", randombytes_random());
    randombytes_buf(key, KEY_BYTES);
    HSK_AUTOFD fd = hsk_io_create(NULL, dirfd, tmp);
    int r = fd < 0 ? fd : hsk_io_pwrite(NULL, fd, key, KEY_BYTES, 0);
    if (r == 0)
        r = hsk_io_sync(NULL, fd);
    if (r == 0 && linkat(dirfd, tmp, dirfd, "key", 0) < 0 && errno != EEXIST)
        r = -errno;
    unlinkat(dirfd, tmp, 0);
    if (r == 0)
        r = hsk_io_sync(NULL, dirfd);
    if (r == 0 && !read_exact(dirfd, "key", key, KEY_BYTES))
        r = -EIO;
    return r == 0 || hsk_io_error(error, r, "make the key in Haversack's data folder");
}

static void make_tag(const uint8_t key[KEY_BYTES], const uint8_t root_hash[HSK_HASH_BYTES],
                     uint8_t tag[HSK_HASH_BYTES])
{
    crypto_generichash(tag, HSK_HASH_BYTES, root_hash, HSK_HASH_BYTES, key, KEY_BYTES);
}

static void record_name(char out[80], const uint8_t root_hash[HSK_HASH_BYTES])
{
    memcpy(out, "trusted/", 8);
    hsk_hex(out + 8, root_hash, HSK_HASH_BYTES);
}

bool hsk_trust_mark(const uint8_t root_hash[HSK_HASH_BYTES], GError **error)
{
    uint8_t key[KEY_BYTES], tag[HSK_HASH_BYTES];
    char name[80];
    HSK_AUTOFD dirfd = open_folder(error);
    if (dirfd < 0 || (!read_exact(dirfd, "key", key, sizeof(key)) && !make_key(dirfd, key, error)))
        return false;
    make_tag(key, root_hash, tag);
    record_name(name, root_hash);
    int r = hsk_io_replace_file(NULL, dirfd, name, tag, sizeof(tag));
    sodium_memzero(key, sizeof(key));
    return r == 0 || hsk_io_error(error, r, "note that this document was written here");
}

bool hsk_trust_check(const uint8_t root_hash[HSK_HASH_BYTES])
{
    uint8_t key[KEY_BYTES], tag[HSK_HASH_BYTES], got[HSK_HASH_BYTES];
    char name[80];
    g_autofree char *path = hsk_data_folder();
    HSK_AUTOFD dirfd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    record_name(name, root_hash);
    if (dirfd < 0 || !read_exact(dirfd, "key", key, sizeof(key)) ||
        !read_exact(dirfd, name, got, sizeof(got)))
        return false;
    make_tag(key, root_hash, tag);
    sodium_memzero(key, sizeof(key));
    return sodium_memcmp(tag, got, sizeof(tag)) == 0;
}

bool hsk_doc_trusted(struct hsk_doc *doc)
{
    return hsk_trust_check(doc->base_hash);
}
