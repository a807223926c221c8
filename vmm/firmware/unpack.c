/* SPDX-License-Identifier: MIT */
/*
 * Unpacks the compressed payload of a bzImage by libarchive's raw reader. Only filters that are libraries are enabled: none
 * that starts a program. The input is hostile: the output is capped, and grows only as far as there is data.
 */
#include "boot-priv.h"

#include <archive.h>
#include <archive_entry.h>

#define CHUNK_BYTES (1u << 20)

HSK_DEFINE_AUTO(archive, archive_read_free)

static bool enable_filters(struct archive *a)
{
    return archive_read_support_format_raw(a) == ARCHIVE_OK && archive_read_support_filter_gzip(a) == ARCHIVE_OK &&
           archive_read_support_filter_xz(a) == ARCHIVE_OK && archive_read_support_filter_lzma(a) == ARCHIVE_OK &&
           archive_read_support_filter_bzip2(a) == ARCHIVE_OK && archive_read_support_filter_lz4(a) == ARCHIVE_OK &&
           archive_read_support_filter_zstd(a) == ARCHIVE_OK;
}

GByteArray *hsk_boot_unpack(const void *data, uint64_t len, uint64_t max_bytes, const char *name, GError **error)
{
    HSK_AUTO(archive, a) = archive_read_new();
    g_autoptr(GByteArray) out = g_byte_array_new();
    g_autofree uint8_t *chunk = g_malloc(CHUNK_BYTES);
    struct archive_entry *entry;
    la_ssize_t n;

    if (!enable_filters(a) || archive_read_open_memory(a, data, len) != ARCHIVE_OK ||
        archive_read_next_header(a, &entry) != ARCHIVE_OK) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_DAMAGED, "The compressed kernel in %s cannot be read: %s", name,
                    archive_error_string(a) ? archive_error_string(a) : "it is empty");
        return NULL;
    }
    while ((n = archive_read_data(a, chunk, CHUNK_BYTES)) > 0) {
        if ((uint64_t)n > max_bytes - out->len || (uint64_t)n > G_MAXUINT / 2 - out->len) {
            g_set_error(error, HSK_ERROR, HSK_ERROR_FAILED,
                        "The kernel in %s is larger than the machine's memory: give it more memory", name);
            return NULL;
        }
        g_byte_array_append(out, chunk, (guint)n);
    }
    if (n < 0) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_DAMAGED, "The compressed kernel in %s is damaged: %s", name,
                    archive_error_string(a));
        return NULL;
    }
    return g_steal_pointer(&out);
}
