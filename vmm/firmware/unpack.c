/* SPDX-License-Identifier: MIT */
/*
 * Unpacks the compressed payload of a bzImage by libarchive's raw reader. Only filters that are
 * libraries are enabled: none that starts a program. The input is hostile: the output is capped. It
 * is handed on in pieces that stay in the processor's caches, since a kernel has tens of megabytes.
 */
#include <archive.h>
#include <archive_entry.h>

#include "boot-priv.h"

#define CHUNK_BYTES (256u << 10)

HSK_DEFINE_AUTO(archive, archive_read_free)

static bool enable_filters(struct archive *a)
{
    return archive_read_support_format_raw(a) == ARCHIVE_OK &&
           archive_read_support_filter_gzip(a) == ARCHIVE_OK &&
           archive_read_support_filter_xz(a) == ARCHIVE_OK &&
           archive_read_support_filter_lzma(a) == ARCHIVE_OK &&
           archive_read_support_filter_bzip2(a) == ARCHIVE_OK &&
           archive_read_support_filter_lz4(a) == ARCHIVE_OK &&
           archive_read_support_filter_zstd(a) == ARCHIVE_OK;
}

bool hsk_boot_unpack(const void *data, uint64_t len, uint64_t max_bytes, const char *name,
                     hsk_boot_piece_fn fn, void *opaque, GError **error)
{
    HSK_AUTO(archive, a) = archive_read_new();
    g_autofree uint8_t *chunk = g_malloc(CHUNK_BYTES);
    struct archive_entry *entry;
    uint64_t done = 0;
    la_ssize_t n;

    if (!enable_filters(a) || archive_read_open_memory(a, data, len) != ARCHIVE_OK ||
        archive_read_next_header(a, &entry) != ARCHIVE_OK) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_DAMAGED,
                    "The compressed kernel in %s cannot be read: %s", name,
                    archive_error_string(a) ? archive_error_string(a) : "it is empty");
        return false;
    }
    while ((n = archive_read_data(a, chunk, CHUNK_BYTES)) > 0) {
        if ((uint64_t)n > max_bytes - done) {
            g_set_error(error, HSK_ERROR, HSK_ERROR_FAILED,
                        "The kernel in %s is larger than the machine's memory: give it more memory",
                        name);
            return false;
        }
        if (!fn(opaque, chunk, done, (uint64_t)n, error))
            return false;
        done += (uint64_t)n;
    }
    if (n < 0)
        g_set_error(error, HSK_ERROR, HSK_ERROR_DAMAGED,
                    "The compressed kernel in %s is damaged: %s", name, archive_error_string(a));
    return n == 0;
}
