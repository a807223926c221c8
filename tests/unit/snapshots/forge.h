/* SPDX-License-Identifier: MIT */
/*
 * A document in memory, to be changed by somebody who knows the format: members can be rewritten,
 * added, removed and put in another order, and afterwards all hashes are made to fit again, from
 * the frames up to ROOT ("signed attacker"). Works on text and bytes, not with the parsers under
 * test, so that what it makes may be nonsense. One thread.
 */
#pragma once

#include <appliance-format/tar.h>

#include <inttypes.h>
#include <sodium.h>

#include "fixture.h"

struct forged_member {
    char *name;
    char type;
    GByteArray *data;
};

struct forgery {
    GPtrArray *members; /* struct forged_member in file order */
};

G_GNUC_UNUSED static void forged_member_free(gpointer p)
{
    struct forged_member *m = p;
    g_free(m->name);
    g_byte_array_unref(m->data);
    g_free(m);
}

G_GNUC_UNUSED static struct forged_member *forge_add(struct forgery *f, const char *name,
                                                     const void *data, size_t bytes)
{
    struct forged_member *m = g_new0(struct forged_member, 1);
    m->name = g_strdup(name);
    m->type = '0';
    m->data = g_byte_array_append(g_byte_array_new(), data, (guint)bytes);
    g_ptr_array_add(f->members, m);
    return m;
}

G_GNUC_UNUSED static struct forgery *forge_load(const uint8_t *file, size_t bytes)
{
    struct forgery *f = g_new0(struct forgery, 1);
    f->members = g_ptr_array_new_with_free_func(forged_member_free);
    for (size_t pos = 0; pos + 512 <= bytes && file[pos] != 0;) {
        g_autofree char *size = g_strndup((const char *)file + pos + 124, 12);
        size_t n = strtoull(size, NULL, 8);
        hsk_assert(n <= bytes && pos + 512 + n <= bytes);
        if (file[pos + 156] == '0')
            forge_add(f, (const char *)file + pos, file + pos + 512, n);
        pos += 512 + (n + 511) / 512 * 512;
    }
    return f;
}

G_GNUC_UNUSED static void forge_free(struct forgery *f)
{
    g_ptr_array_unref(f->members);
    g_free(f);
}
HSK_DEFINE_AUTO(forgery, forge_free)

/* The last one of that name, or whose name begins so; NULL: none. */
G_GNUC_UNUSED static struct forged_member *forge_find(struct forgery *f, const char *name)
{
    for (guint i = f->members->len; i-- > 0;) {
        struct forged_member *m = g_ptr_array_index(f->members, i);
        if (g_str_has_prefix(m->name, name))
            return m;
    }
    return NULL;
}

G_GNUC_UNUSED static struct forged_member *forge_exact(struct forgery *f, const char *name)
{
    for (guint i = f->members->len; i-- > 0;) {
        struct forged_member *m = g_ptr_array_index(f->members, i);
        if (strcmp(m->name, name) == 0)
            return m;
    }
    return NULL;
}

/* The same, which must be there. */
G_GNUC_UNUSED static struct forged_member *forge_need(struct forgery *f, const char *name)
{
    struct forged_member *m = forge_find(f, name);
    hsk_assert(m != NULL);
    return m;
}

/* ROOT, which must be there. */
G_GNUC_UNUSED static struct forged_member *forge_root(struct forgery *f)
{
    struct forged_member *m = forge_exact(f, "ROOT");
    hsk_assert(m != NULL);
    return m;
}

G_GNUC_UNUSED static void forge_set(struct forged_member *m, const char *text)
{
    g_byte_array_set_size(m->data, 0);
    g_byte_array_append(m->data, (const uint8_t *)text, (guint)strlen(text));
}

G_GNUC_UNUSED static char *forge_text(const struct forged_member *m)
{
    return m->data->len == 0 ? g_strdup("")
                             : g_strndup((const char *)m->data->data, m->data->len);
}

/* Replaces the first occurrence in a text member. */
G_GNUC_UNUSED static void forge_replace(struct forged_member *m, const char *what, const char *with)
{
    g_autofree char *text = forge_text(m);
    char *at = strstr(text, what);
    if (at == NULL)
        fail_msg("%s does not hold \"%s\"", m->name, what);
    else {
        g_autofree char *head = g_strndup(text, (gsize)(at - text));
        g_autofree char *all = g_strconcat(head, with, at + strlen(what), NULL);
        forge_set(m, all);
    }
}

/* ---- hashes, bottom up ---- */

/* The frames' sums in a segment's table and the hash of the table; false: nothing there to mend. */
G_GNUC_UNUSED static bool forge_seal_segment(struct forged_member *m, uint32_t n, uint8_t table[32])
{
    uint64_t size = m->data->len, seek = 17 + 8ull * n, len = 24 + 64ull * n;
    if (n > 1u << 20 || seek + len > size)
        return false;
    uint8_t *t = m->data->data + (size - seek - len);
    for (uint32_t i = 0; i < n; i++) {
        uint8_t *e = t + 24 + 64ull * i;
        if (hsk_range_ok(hsk_get32(e), hsk_get32(e + 4), size))
            hsk_hash(m->data->data + hsk_get32(e), hsk_get32(e + 4), e + 32);
    }
    hsk_hash(t + 8, len - 8, table);
    return true;
}

/* The hash in a reference to a node of that level, and of all below it. */
G_GNUC_UNUSED static void forge_seal_ref(struct forgery *f, struct hsk_map_ref *ref, unsigned level,
                                         unsigned *budget)
{
    char name[32];
    g_snprintf(name, sizeof(name), "map/%06u", ref->member);
    struct forged_member *m = forge_exact(f, name);
    size_t bytes = level == 0 ? HSK_MAP_LEAF_BYTES : HSK_MAP_INNER_BYTES;
    if (hsk_map_ref_is_null(ref) || m == NULL || !hsk_range_ok(ref->offset, bytes, m->data->len) ||
        *budget == 0)
        return;
    --*budget;
    uint8_t *node = m->data->data + ref->offset;
    for (unsigned i = 0; level > 0 && i < HSK_MAP_FANOUT; i++) {
        struct hsk_map_ref child = {hsk_get32(node + 32 * i), hsk_get32(node + 32 * i + 4), {0}};
        memcpy(child.hash, node + 32 * i + 8, 24);
        forge_seal_ref(f, &child, level - 1, budget);
        memcpy(node + 32 * i + 8, child.hash, 24);
    }
    crypto_generichash(ref->hash, sizeof(ref->hash), node, bytes, NULL, 0);
}

/* A reference in text, 64 digits, to the root of an object of that size. */
G_GNUC_UNUSED static void forge_seal_text_ref(struct forgery *f, char *digits, uint64_t size)
{
    struct hsk_map_ref ref;
    g_autofree char *copy = g_strndup(digits, HSK_MAP_REF_DIGITS);
    unsigned level = 0, budget = 4096;
    uint64_t pages = size / HSK_PAGE_SIZE;
    if (!hsk_map_ref_parse(copy, &ref))
        return;
    while (pages > 1ull << (7 * (level + 1)) && level < 7)
        level++;
    forge_seal_ref(f, &ref, level, &budget);
    char out[HSK_MAP_REF_DIGITS + 1];
    hsk_map_ref_format(out, &ref);
    memcpy(digits, out, HSK_MAP_REF_DIGITS);
}

G_GNUC_UNUSED static void forge_seal_record(struct forgery *f, struct forged_member *m)
{
    g_autofree char *text = forge_text(m);
    uint64_t size = 0;
    for (char *p = text; (p = strstr(p, "\"")) != NULL; p++) {
        if (g_str_has_prefix(p, "\"bytes\": "))
            size = strtoull(p + 9, NULL, 10);
        if (g_str_has_prefix(p, "\"map\": \"") && strlen(p) > 8 + HSK_MAP_REF_DIGITS)
            forge_seal_text_ref(f, p + 8, size);
    }
    memcpy(m->data->data, text, MIN(strlen(text), m->data->len));
}

/* One line of ROOT; segment: the entry before. */
G_GNUC_UNUSED static void forge_seal_line(struct forgery *f, char *line,
                                          struct forged_member **last)
{
    uint8_t hash[HSK_HASH_BYTES];
    char hex[2 * HSK_HASH_BYTES + 1];
    size_t len = strlen(line);
    if (g_str_has_prefix(line, "BLAKE2b-256 (") && len > 13 + 68 &&
        strncmp(line + len - 68, ") = ", 4) == 0) {
        g_autofree char *name = g_strndup(line + 13, len - 13 - 68);
        *last = forge_exact(f, name);
        if (*last == NULL)
            return;
        hsk_hash((*last)->data->data, (*last)->data->len, hash);
    } else if (g_str_has_prefix(line, "# segment ") && *last != NULL && len > 64) {
        const char *n = strstr(line, " frames ");
        if (n == NULL || !forge_seal_segment(*last, (uint32_t)strtoul(n + 8, NULL, 10), hash))
            return;
    } else if (g_str_has_prefix(line, "# present ") && len > 64) {
        const char *size = strchr(line + 10, ' ');
        if (size != NULL)
            forge_seal_text_ref(f, line + len - 64, strtoull(size, NULL, 10));
        return;
    } else {
        return;
    }
    hsk_hex(hex, hash, sizeof(hash));
    memcpy(line + len - 64, hex, 64);
}

/* Makes every hash fit what is there now. k (may be NULL): signs, too. */
G_GNUC_UNUSED static void forge_seal(struct forgery *f, const struct hsk_seckey *k)
{
    struct forged_member *root = forge_exact(f, "ROOT"), *last = NULL;
    if (root == NULL)
        return;
    g_autofree char *text = forge_text(root);
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
    /* segments and maps first: members are hashed with what is in them */
    for (unsigned round = 0; round < 2; round++) {
        for (char **l = lines; *l != NULL; l++)
            forge_seal_line(f, *l, &last);
        for (guint i = 0; i < f->members->len; i++) {
            struct forged_member *m = g_ptr_array_index(f->members, i);
            if (g_str_has_prefix(m->name, "versions/"))
                forge_seal_record(f, m);
        }
    }
    for (char **l = lines; *l != NULL; l++)
        forge_seal_line(f, *l, &last);
    GString *out = g_string_new(NULL);
    for (char **l = lines; *l != NULL && !g_str_has_prefix(*l, "# end "); l++)
        g_string_append_printf(out, "%s\n", *l);
    uint8_t hash[HSK_HASH_BYTES];
    char hex[2 * HSK_HASH_BYTES + 1];
    hsk_hash(out->str, out->len, hash);
    hsk_hex(hex, hash, sizeof(hash));
    g_string_append_printf(out, "# end %s\n", hex);
    forge_set(root, out->str);
    struct forged_member *sig = forge_exact(f, "ROOT.minisig");
    if (k != NULL) {
        g_autofree char *s = hsk_signature_make(k, out->str, out->len, "timestamp:1");
        if (sig == NULL)
            sig = forge_add(f, "ROOT.minisig", "", 0);
        forge_set(sig, s);
    }
    g_string_free(out, TRUE);
}

/* ---- the file ---- */

G_GNUC_UNUSED static void forge_checksum(uint8_t *header)
{
    unsigned sum = 0;
    memset(header + 148, ' ', 8);
    for (unsigned i = 0; i < 512; i++)
        sum += header[i];
    g_snprintf((char *)header + 148, 8, "%06o", sum & 0777777);
    header[155] = ' ';
}

G_GNUC_UNUSED static GByteArray *forge_file(const struct forgery *f)
{
    static const uint8_t zeros[1024];
    GByteArray *out = g_byte_array_new();
    for (guint i = 0; i < f->members->len; i++) {
        const struct forged_member *m = g_ptr_array_index(f->members, i);
        uint8_t header[512];
        hsk_tar_header(header, "x", m->type, m->data->len);
        memset(header, 0, 100);
        memcpy(header, m->name, MIN(strlen(m->name), 100));
        forge_checksum(header);
        g_byte_array_append(out, header, 512);
        g_byte_array_append(out, m->data->data, m->data->len);
        g_byte_array_append(out, zeros, (512 - m->data->len % 512) % 512);
    }
    return g_byte_array_append(out, zeros, sizeof(zeros));
}

G_GNUC_UNUSED static void forge_write(const struct forgery *f, const char *path)
{
    g_autoptr(GByteArray) file = forge_file(f);
    assert_true(g_file_set_contents(path, (const char *)file->data, file->len, NULL));
}
