/* SPDX-License-Identifier: MIT */
/* fuzz-libs: hsk_snapshots */
/*
 * A document from a stranger. The first byte chooses what the rest is, and hashes are put right, so
 * that what lies behind them is reached: a whole file (tar checksums and ROOT's own hash
 * recomputed), a ROOT, a segment, a page map.
 */
#include <snapshots/store.h>

#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>

#include "../../snapshots/doc.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Header checksums along the chain of members; the hash in ROOT's last line. */
static void repair_archive(uint8_t *file, size_t size)
{
    for (size_t pos = 0; pos + 512 <= size;) {
        char octal[13] = {0};
        unsigned sum = 0;
        memset(file + pos + 148, ' ', 8);
        for (unsigned i = 0; i < 512; i++)
            sum += file[pos + i];
        if (sum == 8 * ' ') {
            memset(file + pos + 148, 0, 8);
            return;
        }
        snprintf((char *)file + pos + 148, 8, "%06o", sum);
        memcpy(octal, file + pos + 124, 12);
        uint64_t len = strtoull(octal, NULL, 8);
        if (memcmp(file + pos, "ROOT", 5) == 0 && len > 71 && len < size &&
            pos + 512 + len <= size) {
            uint8_t hash[HSK_HASH_BYTES];
            char hex[2 * HSK_HASH_BYTES + 1];
            hsk_hash(file + pos + 512, len - 71, hash);
            hsk_hex(hex, hash, sizeof(hash));
            memcpy(file + pos + 512 + len - 65, hex, 64);
        }
        if (len > size)
            return;
        pos += 512 + (len + 511) / 512 * 512;
    }
}

static void read_some(struct hsk_doc *doc, const char *id)
{
    uint8_t page[HSK_PAGE_SIZE];
    struct hsk_version *v = hsk_version_open(doc, id, NULL);
    if (v == NULL)
        return;
    (void)!hsk_version_read(v, "ram", 0, 1, page, NULL);
    (void)!hsk_version_read(v, "disk.root", 1, 1, page, NULL);
    G_GNUC_UNUSED g_autoptr(GBytes) state = hsk_version_state(v, NULL);
    G_GNUC_UNUSED g_autoptr(GBytes) picture = hsk_version_picture(v, NULL);
    hsk_version_free(v);
}

static void whole_file(const uint8_t *data, size_t size)
{
    g_autofree uint8_t *file = g_memdup2(data, size);
    g_autofree char *path = g_strdup_printf("%s/hsk-fuzz-%d.hva", g_get_tmp_dir(), getpid());
    repair_archive(file, size);
    if (!g_file_set_contents(path, (const char *)file, (gssize)size, NULL))
        return;
    struct hsk_doc *doc = hsk_doc_open(path, true, NULL, NULL);
    if (doc != NULL) {
        struct hsk_version_info *list = hsk_doc_versions(doc, NULL);
        for (const struct hsk_version_info *v = list; v != NULL; v = v->next)
            read_some(doc, v->id);
        hsk_version_info_free(list);
        G_GNUC_UNUSED g_autoptr(GBytes) kernel = hsk_doc_boot_member(doc, "boot/kernel", NULL);
        hsk_doc_close(doc);
        (void)!hsk_doc_verify(path, NULL, NULL, NULL);
    }
    unlink(path);
}

static void root_text(const uint8_t *data, size_t size)
{
    uint8_t hash[HSK_HASH_BYTES];
    char hex[2 * HSK_HASH_BYTES + 1];
    hsk_hash(data, size, hash);
    hsk_hex(hex, hash, sizeof(hash));
    g_autoptr(GString) text = g_string_new_len((const char *)data, (gssize)size);
    g_string_append_printf(text, "# end %s\n", hex);
    HSK_AUTO(hsk_root, root) = hsk_root_parse(text->str, text->len, "fuzz", NULL);
    if (root != NULL) {
        g_autofree char *again = hsk_root_format(root);
        HSK_AUTO(hsk_root, same) = hsk_root_parse(again, strlen(again), "fuzz", NULL);
        hsk_assert(same != NULL);
    }
}

static bool check(const struct hsk_segment *s, GError **error)
{
    static const struct hsk_segment_checker nobody;
    uint8_t hash[HSK_HASH_BYTES];
    return hsk_segment_check(s, &nobody, hash, error);
}

/* The frame table's entries get the hashes of what they point at, then the table gets its own. */
static void segment_file(const uint8_t *data, size_t size)
{
    if (size < 5)
        return;
    struct hsk_segment_id id = {.number = 1, .nframes = hsk_get16(data)};
    g_autofree uint8_t *file = g_memdup2(data + 4, size - 4);
    uint64_t bytes = size - 4, seek = 8 + 8ull * id.nframes + 9,
             table = 8 + 16 + 64ull * id.nframes;
    if (seek + table > bytes)
        return;
    uint8_t *t = file + bytes - seek - table;
    for (uint32_t i = 0; i < id.nframes; i++) {
        uint8_t *e = t + 24 + 64ull * i;
        if (hsk_range_ok(hsk_get32(e), hsk_get32(e + 4), bytes))
            hsk_hash(file + hsk_get32(e), hsk_get32(e + 4), e + 32);
    }
    hsk_hash(t + 8, table - 8, id.table_hash);
    HSK_AUTOFD fd = hsk_memfd_new("segment", bytes, NULL);
    if (fd < 0 || hsk_pwrite_all(fd, file, bytes, 0) < 0)
        return;
    struct hsk_member m = {.fd = fd, .size = bytes};
    HSK_AUTO(hsk_segment, s) = hsk_segment_open(&m, &id, "fuzz", NULL);
    for (uint32_t i = 0; s != NULL && i < id.nframes; i++) {
        G_GNUC_UNUSED g_autoptr(GBytes) raw = hsk_segment_decode(s, i, NULL);
    }
    if (s != NULL)
        (void)!check(s, NULL);
}

struct nodes {
    const uint8_t *data;
    size_t size;
};

static bool load(void *opaque, uint32_t member, uint32_t offset, void *buf, size_t len,
                 GError **error)
{
    const struct nodes *n = opaque;
    if (!hsk_range_ok(offset, len, n->size))
        return hsk_damaged(error, "fuzz", "no such node");
    memcpy(buf, n->data + offset, len);
    return true;
}

static bool on_page(void *opaque, uint64_t page, uint64_t entry, GError **error)
{
    hsk_assert(page < *(const uint64_t *)opaque && entry >> 60 == 1);
    return true;
}

static void page_map(const uint8_t *data, size_t size)
{
    if (size < 3)
        return;
    uint64_t npages = 1 + hsk_get16(data);
    struct nodes n = {data + 3, size - 3};
    struct hsk_map_source source = {load, &n, "fuzz"};
    struct hsk_map_ref root = {.member = 1};
    size_t bytes = npages <= HSK_MAP_FANOUT ? HSK_MAP_LEAF_BYTES : HSK_MAP_INNER_BYTES;
    if (n.size < bytes)
        return;
    crypto_generichash(root.hash, sizeof(root.hash), n.data, bytes, NULL, 0);
    struct hsk_map_visitor v = {.page = on_page, .opaque = &npages};
    (void)!hsk_pagemap_walk(&source, &root, npages, &v, NULL);
    HSK_AUTO(hsk_pagemap, map) = hsk_pagemap_new(&source, &root, npages);
    uint64_t entry;
    (void)!hsk_pagemap_get(map, data[2] % npages, &entry, NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static void (*const kinds[])(const uint8_t *, size_t) = {whole_file, root_text, segment_file,
                                                             page_map};
    if (size > 1)
        kinds[data[0] % G_N_ELEMENTS(kinds)](data + 1, size - 1);
    return 0;
}
