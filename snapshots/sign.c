/* SPDX-License-Identifier: MIT */
/*
 * Signing a document: its ROOT once more and the signature behind it, appended as every generation
 * is (docs/format.md, "Append"). The ROOT stays the same, so instances stay attached. One thread.
 */
#include <errno.h>
#include <sodium.h>
#include <sys/file.h>

#include "doc.h"

/* What minisign writes there, and what a reader who meets the key for the first time needs. */
static char *make_comment(const struct hsk_seckey *k, const char *publisher)
{
    char key[HSK_PUBKEY_TEXT_BYTES + 1];
    g_autofree char *name = hsk_text_clean(publisher, HSK_PUBLISHER_MAX);
    hsk_pubkey_text(&k->public, key);
    return g_strdup_printf("timestamp:%" G_GINT64_FORMAT
                           "\tfile:ROOT\thashed\tkey:%s\tpublisher:%s",
                           g_get_real_time() / G_USEC_PER_SEC, key, name);
}

static int open_to_sign(const char *path, GError **error)
{
    HSK_AUTOFD fd = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
        hsk_io_error(error, errno, "write to %s", path);
        return -1;
    }
    if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_BUSY, "%s is open; close it there first", path);
        return -1;
    }
    return hsk_steal_fd(&fd);
}

bool hsk_doc_sign_io(const char *path, const struct hsk_seckey *k, const char *publisher,
                     const struct hsk_io *io, GError **error)
{
    HSK_AUTO(hsk_carrier, base) = NULL;
    HSK_AUTO(hsk_root, root) = NULL;
    uint8_t hash[HSK_HASH_BYTES];
    struct hsk_tar_sink sink;
    bool committed = false;
    HSK_AUTOFD fd = open_to_sign(path, error);
    if (fd < 0 || !hsk_doc_load_base(fd, path, &base, &root, hash, error))
        return false;
    g_autofree char *text = hsk_root_format(root), *comment = make_comment(k, publisher);
    uint8_t again[HSK_HASH_BYTES];
    hsk_hash(text, strlen(text), again);
    if (memcmp(hash, again, sizeof(hash)) != 0)
        return hsk_damaged(error, path, "its ROOT is not written as Haversack writes it");
    g_autofree char *signature = hsk_signature_make(k, text, strlen(text), comment);
    if (!hsk_tar_sink_init_append(&sink, io, fd, hsk_carrier_tar_end(base), path, error))
        return false;
    sink.signature = signature;
    if (hsk_tar_sink_commit(&sink, text, root->generation, &committed, error))
        return true;
    if (!committed)
        hsk_tar_sink_abort(&sink);
    return false;
}

bool hsk_doc_sign(const char *path, const struct hsk_seckey *k, const char *publisher,
                  GError **error)
{
    return hsk_doc_sign_io(path, k, publisher, NULL, error);
}
