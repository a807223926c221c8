/* SPDX-License-Identifier: MIT */
/*
 * Unpacks the compressed payload of a bzImage by libarchive's raw reader. Only filters that are libraries are enabled: none
 * that starts a program. The input is hostile: the output is capped, and grows only as far as there is data.
 */
#include "boot-priv.h"

#include <archive.h>
#include <archive_entry.h>
#include <sys/mman.h>

#define CHUNK_BYTES (1u << 20)

HSK_DEFINE_AUTO(archive, archive_read_free)

static bool enable_filters(struct archive *a)
{
    return archive_read_support_format_raw(a) == ARCHIVE_OK && archive_read_support_filter_gzip(a) == ARCHIVE_OK &&
           archive_read_support_filter_xz(a) == ARCHIVE_OK && archive_read_support_filter_lzma(a) == ARCHIVE_OK &&
           archive_read_support_filter_bzip2(a) == ARCHIVE_OK && archive_read_support_filter_lz4(a) == ARCHIVE_OK &&
           archive_read_support_filter_zstd(a) == ARCHIVE_OK;
}

/* Room for CHUNK_BYTES behind what there is, made in one go: a kernel has tens of thousands of pages, and each fault costs. */
static uint8_t *make_room(GByteArray *out)
{
    uintptr_t at, page = HSK_PAGE_SIZE;
    guint len = out->len;

    g_byte_array_set_size(out, len + CHUNK_BYTES);
    at = (uintptr_t)out->data + len;
    madvise((void *)((at + page - 1) & ~(page - 1)), CHUNK_BYTES - page, MADV_POPULATE_WRITE);
    return out->data + len;
}

GByteArray *hsk_boot_unpack(const void *data, uint64_t len, uint64_t max_bytes, const char *name, GError **error)
{
    HSK_AUTO(archive, a) = archive_read_new();
    g_autoptr(GByteArray) out = g_byte_array_new();
    struct archive_entry *entry;
    la_ssize_t n;

    if (!enable_filters(a) || archive_read_open_memory(a, data, len) != ARCHIVE_OK ||
        archive_read_next_header(a, &entry) != ARCHIVE_OK) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_DAMAGED, "The compressed kernel in %s cannot be read: %s", name,
                    archive_error_string(a) ? archive_error_string(a) : "it is empty");
        return NULL;
    }
    do {
        n = archive_read_data(a, make_room(out), CHUNK_BYTES);
        g_byte_array_set_size(out, out->len - CHUNK_BYTES + (guint)MAX(n, 0));
        if (out->len > max_bytes || out->len > G_MAXUINT / 2) {
            g_set_error(error, HSK_ERROR, HSK_ERROR_FAILED,
                        "The kernel in %s is larger than the machine's memory: give it more memory", name);
            return NULL;
        }
    } while (n > 0);
    if (n < 0) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_DAMAGED, "The compressed kernel in %s is damaged: %s", name,
                    archive_error_string(a));
        return NULL;
    }
    return g_steal_pointer(&out);
}
