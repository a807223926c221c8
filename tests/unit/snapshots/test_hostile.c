/* SPDX-License-Identifier: MIT */
/*
 * Documents made to do harm: one row each, under the number that its kind has in the list of
 * hostile inputs (docs/threat-model.md, "Hostile documents"). A row says what is changed, whether
 * all hashes are made to fit afterwards, and words of the one sentence that verify or open must
 * give; no words: it is harmless and must be found whole.
 *
 * `snapshots_test_hostile FOLDER` writes them as files for the test of the programs
 * (tests/integration/test_hostile_documents.py).
 */
#define RAM_PAGES 32u
#include <snapshots/verify.h>

#include <errno.h>
#include <zstd.h>

#include "forge.h"

/* The document that all are made of: two versions, published, signed. */
struct base {
    uint8_t *file;
    gsize bytes;
    struct hsk_seckey key, other;
    char *other_signature; /* of the same ROOT by a key with the same id */
};

struct row;
typedef void (*forge_fn)(struct forgery *f, const struct row *r, const struct base *b);
typedef void (*bytes_fn)(GByteArray *file, const struct row *r);

struct row {
    unsigned item;
    const char *what;
    forge_fn forge;
    bytes_fn bytes;
    const char *arg, *with;
    bool seal;
    const char *words;
};

/* ---- 1 to 6: the container ---- */

static void add_member(struct forgery *f, const struct row *r, const struct base *b)
{
    forge_add(f, r->arg, "x", 1);
}

static void add_kind(struct forgery *f, const struct row *r, const struct base *b)
{
    forge_add(f, "strange", "", 0)->type = r->arg[0];
}

static void add_pax(struct forgery *f, const struct row *r, const struct base *b)
{
    forge_add(f, "pax", r->arg, strlen(r->arg))->type = 'x';
    forge_add(f, "more", "x", 1);
}

static void add_two_pax(struct forgery *f, const struct row *r, const struct base *b)
{
    for (unsigned i = 0; i < 2000; i++)
        forge_add(f, "pax", "6 a=b\n", 6)->type = 'x';
    forge_add(f, "more", "x", 1);
}

static void add_large_pax(struct forgery *f, const struct row *r, const struct base *b)
{
    g_autofree char *large = g_strnfill(1 << 20, 'x');
    forge_add(f, "pax", large, 1 << 20)->type = 'x';
}

static void add_100001_members(struct forgery *f, const struct row *r, const struct base *b)
{
    char name[32];
    for (unsigned i = 0; i <= 100000; i++) {
        g_snprintf(name, sizeof(name), "n%u", i);
        forge_add(f, name, "", 0);
    }
}

static void copy_member(struct forgery *f, const struct row *r, const struct base *b)
{
    const struct forged_member *m = forge_need(f, r->arg);
    forge_add(f, r->with != NULL ? r->with : m->name, m->data->data, m->data->len);
}

/* The header of README.md, the third member. */
static uint8_t *some_header(GByteArray *file)
{
    uint8_t *h = file->data;
    while (strcmp((char *)h, "README.md") != 0)
        h += 512 + (strtoull((char *)h + 124, NULL, 8) + 511) / 512 * 512;
    return h;
}

static void set_size(GByteArray *file, const struct row *r)
{
    uint8_t *h = some_header(file);
    memcpy(h + 124, r->arg, 11);
    forge_checksum(h);
}

static void set_pax_size(GByteArray *file, const struct row *r)
{
    some_header(file)[156] = 'x';
    set_size(file, r);
}

static void break_checksum(GByteArray *file, const struct row *r)
{
    some_header(file)[0] = 'r';
}

static void all_zero(GByteArray *file, const struct row *r)
{
    memset(file->data, 0, file->len);
}

static void cut_to(GByteArray *file, const struct row *r)
{
    g_byte_array_set_size(file, (guint)atoi(r->arg));
}

/* TAIL as a writer would make it for this file, but for the number at offset arg, which is with
 * more. */
static void set_tail(GByteArray *file, const struct row *r)
{
    uint64_t tail = file->len - 1024 - 512, root = 0, root_bytes = 0;
    for (uint64_t pos = 0; file->data[pos] != 0;) {
        uint64_t n = strtoull((char *)file->data + pos + 124, NULL, 8);
        if (strcmp((char *)file->data + pos, "ROOT") == 0) {
            root = pos + 512;
            root_bytes = n;
        }
        pos += 512 + (n + 511) / 512 * 512;
    }
    uint8_t *t = file->data + tail;
    memset(t, 0, 512);
    memcpy(t, "HVATAIL1", 8);
    hsk_put32(t + 8, 1);
    hsk_put64(t + 24, root);
    hsk_put64(t + 32, root_bytes);
    hsk_put64(t + 40, tail);
    hsk_put64(t + 56, file->len);
    unsigned at = (unsigned)atoi(r->arg);
    if (at != 0)
        hsk_put64(t + at, hsk_get64(t + at) + (uint64_t)atoi(r->with));
    hsk_hash(t, 480, t + 480);
    if (at == 0)
        t[480] ^= 1;
}

static void add_tail_last(struct forgery *f, const struct row *r, const struct base *b)
{
    uint8_t tail[512] = {0};
    forge_add(f, "TAIL", tail, sizeof(tail));
}

/* ---- text: ROOT, records, the manifest ---- */

static void replace(struct forgery *f, const struct row *r, const char *member)
{
    forge_replace(forge_need(f, member), r->arg, r->with);
}
static void in_root(struct forgery *f, const struct row *r, const struct base *b)
{
    struct forged_member *m = forge_find(f, "ROOT.minisig"), *root = forge_root(f);
    if (m != NULL)
        g_ptr_array_remove(f->members, m);
    forge_replace(root, r->arg, r->with);
}
static void no_current(struct forgery *f, const struct row *r, const struct base *b)
{
    g_autofree char *text = forge_text(forge_root(f));
    memset(strstr(text, "# current ") + 10, '0', 32);
    forge_set(forge_root(f), text);
}
static void in_record(struct forgery *f, const struct row *r, const struct base *b)
{
    replace(f, r, "versions/");
}
static void in_manifest(struct forgery *f, const struct row *r, const struct base *b)
{
    replace(f, r, "manifest.json");
}
static void whole_manifest(struct forgery *f, const struct row *r, const struct base *b)
{
    forge_set(forge_need(f, "manifest.json"), r->arg);
}
static void deep_manifest(struct forgery *f, const struct row *r, const struct base *b)
{
    g_autofree char *deep = g_strnfill(1000000, '[');
    forge_set(forge_need(f, "manifest.json"), deep);
}
static void deep_record(struct forgery *f, const struct row *r, const struct base *b)
{
    g_autofree char *deep = g_strnfill(1000000, '[');
    forge_set(forge_need(f, "versions/"), deep);
}

/* ---- 7: page maps ---- */

/* The leaf of the newest version's memory: RAM_PAGES are one leaf. */
static uint8_t *ram_leaf(struct forgery *f)
{
    g_autofree char *text = forge_text(forge_need(f, "versions/"));
    const char *at = strstr(strstr(text, "\"ram\""), "\"map\": \"") + 8;
    struct hsk_map_ref ref;
    g_autofree char *digits = g_strndup(at, HSK_MAP_REF_DIGITS);
    hsk_assert(hsk_map_ref_parse(digits, &ref));
    char name[32];
    g_snprintf(name, sizeof(name), "map/%06u", ref.member);
    return forge_need(f, name)->data->data + ref.offset;
}

static void set_entry(struct forgery *f, const struct row *r, const struct base *b)
{
    uint8_t *leaf = ram_leaf(f);
    unsigned at = (unsigned)atoi(r->arg);
    hsk_put64(leaf + at * 8ul, strtoull(r->with, NULL, 0) ^ (hsk_get64(leaf)));
}

static void plain_entry(struct forgery *f, const struct row *r, const struct base *b)
{
    hsk_put64(ram_leaf(f) + 8ul * (unsigned)atoi(r->arg), strtoull(r->with, NULL, 0));
}

/* In the record: the reference of memory; 8 digits each: member and offset, little-endian. */
static void set_ref(struct forgery *f, const struct row *r, const struct base *b)
{
    struct forged_member *m = forge_need(f, "versions/");
    g_autofree char *text = forge_text(m);
    char *at = strstr(strstr(text, "\"ram\""), "\"map\": \"") + 8;
    memcpy(at + atoi(r->arg), r->with, strlen(r->with));
    forge_set(m, text);
}

/* An object of 2^44 bytes whose every inner node has 128 times the same child: years of work for
 * who looks at each. */
static void endless_object(struct forgery *f, const struct row *r, const struct base *b)
{
    struct forged_member *maps = forge_add(f, "map/000900", "", 0);
    uint8_t leaf[HSK_MAP_LEAF_BYTES], inner[HSK_MAP_INNER_BYTES];
    for (unsigned i = 0; i < HSK_MAP_FANOUT; i++)
        memcpy(leaf + 8 * i, ram_leaf(f), 8);
    g_byte_array_append(maps->data, leaf, sizeof(leaf));
    uint32_t child = 0, top = 0;
    for (unsigned level = 1; level <= 4; level++) {
        unsigned n = level == 4 ? 16 : HSK_MAP_FANOUT; /* 2^32 pages = 16 * 128^4 */
        memset(inner, 0, sizeof(inner));
        for (unsigned i = 0; i < n; i++) {
            hsk_put32(inner + 32 * i, 900);
            hsk_put32(inner + 32 * i + 4, child);
        }
        top = maps->data->len;
        child = top;
        g_byte_array_append(maps->data, inner, sizeof(inner));
    }
    struct hsk_map_ref ref = {900, top, {0}};
    /* sealed by hand, once per node: the general way would take the years */
    uint32_t offsets[] = {0, 1024, 1024 + 4096, 1024 + 2 * 4096, 1024 + 3 * 4096};
    uint8_t hash[24];
    for (unsigned level = 0; level <= 4; level++) {
        uint8_t *node = maps->data->data + offsets[level];
        for (unsigned i = 0; level > 0 && i < HSK_MAP_FANOUT; i++) {
            if (hsk_get32(node + 32 * i) != 0)
                memcpy(node + 32 * i + 8, hash, 24);
        }
        crypto_generichash(hash, sizeof(hash), node, level == 0 ? 1024 : 4096, NULL, 0);
    }
    memcpy(ref.hash, hash, 24);
    char digits[HSK_MAP_REF_DIGITS + 1];
    hsk_map_ref_format(digits, &ref);
    struct forged_member *root = forge_root(f);
    g_autofree char *line =
        g_strdup_printf("# present endless %llu %s\nBLAKE2b-256 (README.md)", 1ull << 44, digits);
    forge_replace(root, "BLAKE2b-256 (README.md)", line);
    uint8_t whole[HSK_HASH_BYTES];
    char hex[2 * HSK_HASH_BYTES + 1];
    hsk_hash(maps->data->data, maps->data->len, whole);
    hsk_hex(hex, whole, sizeof(whole));
    g_autofree char *member =
        g_strdup_printf("BLAKE2b-256 (map/000900) = %s\nBLAKE2b-256 (mimetype)", hex);
    forge_replace(root, "BLAKE2b-256 (mimetype)", member);
    /* ROOT's own hash, nothing else */
    g_autofree char *text = forge_text(root);
    *strstr(text, "# end ") = '\0';
    hsk_hash(text, strlen(text), whole);
    hsk_hex(hex, whole, sizeof(whole));
    g_autofree char *all = g_strdup_printf("%s# end %s\n", text, hex);
    forge_set(root, all);
    g_ptr_array_remove(f->members, forge_need(f, "ROOT.minisig"));
}

/* ---- 8 to 11: segments ---- */

static unsigned frames_of(struct forgery *f, const char *segment)
{
    g_autofree char *text = forge_text(forge_root(f));
    g_autofree char *line = g_strdup_printf("BLAKE2b-256 (%s)", segment);
    return (unsigned)strtoul(strstr(strstr(text, line), " frames ") + 8, NULL, 10);
}

/* The number at offset arg of the first entry in the newest segment's frame table. */
static void set_table(struct forgery *f, const struct row *r, const struct base *b)
{
    struct forged_member *m = forge_need(f, "data/");
    unsigned n = frames_of(f, m->name);
    uint8_t *t = m->data->data + m->data->len - 17 - 8ul * n - 24 - 64ul * n;
    hsk_put32(t + atoi(r->arg), (uint32_t)strtoul(r->with, NULL, 0));
}

static void break_seek_table(struct forgery *f, const struct row *r, const struct base *b)
{
    struct forged_member *m = forge_need(f, "data/");
    m->data->data[m->data->len - 20] ^= 1;
}

static void break_frame(struct forgery *f, const struct row *r, const struct base *b)
{
    struct forged_member *m = forge_need(f, "data/");
    memset(m->data->data + 20, 0x55, 40);
}

/* The newest segment is this frame alone, said to hold rawsize bytes. */
static void one_frame(struct forgery *f, const void *frame, size_t csize, uint32_t rawsize)
{
    struct forged_member *m = forge_need(f, "data/");
    unsigned n = frames_of(f, m->name);
    uint32_t number = (uint32_t)strtoul(m->name + 5, NULL, 10);
    uint8_t table[24 + 64] = {0}, seek[8 + 8 + 9] = {0};
    hsk_put32(table, 0x184D2A5A);
    hsk_put32(table + 4, 80);
    memcpy(table + 8, "HVAFRMT1", 8);
    hsk_put32(table + 16, number);
    hsk_put32(table + 20, 1);
    hsk_put32(table + 28, (uint32_t)csize);
    hsk_put32(table + 32, rawsize);
    g_byte_array_set_size(m->data, 0);
    g_byte_array_append(m->data, frame, (guint)csize);
    g_byte_array_append(m->data, table, sizeof(table));
    g_byte_array_append(m->data, seek, sizeof(seek));
    g_autofree char *was = g_strdup_printf("# segment %u frames %u ", number, n);
    g_autofree char *is = g_strdup_printf("# segment %u frames 1 ", number);
    forge_replace(forge_root(f), was, is);
}

static void bad_zstd(struct forgery *f, const struct row *r, const struct base *b)
{
    g_autofree uint8_t *raw = g_malloc0(1 << 24), *out = g_malloc(1 << 20);
    ZSTD_CCtx *c = ZSTD_createCCtx();
    uint32_t says = 4096;
    size_t n;
    ZSTD_CCtx_setParameter(c, ZSTD_c_checksumFlag, 1);
    switch (r->arg[0]) {
    case 'b': /* a bomb that says its size, and one that does not */
        n = ZSTD_compress2(c, out, 1 << 20, raw, 1 << 24);
        says = r->arg[1] == '1' ? 1 << 24 : 4096;
        break;
    case 'w': /* a window of 2 GiB, single segment off, no content size */
        memcpy(out, (const uint8_t[]){0x28, 0xB5, 0x2F, 0xFD, 0x00, 0xA8, 0x03, 0, 0, 1}, 10);
        n = 10;
        break;
    case 'd': /* a dictionary */
        memcpy(out, (const uint8_t[]){0x28, 0xB5, 0x2F, 0xFD, 0x21, 7, 1, 0x09, 0, 0, 'x'}, 11);
        n = 11;
        says = 1;
        break;
    case 'n': /* no content size */
        ZSTD_CCtx_setParameter(c, ZSTD_c_contentSizeFlag, 0);
        n = ZSTD_compress2(c, out, 1 << 20, raw, 4096);
        break;
    case 's': /* another content size */
        n = ZSTD_compress2(c, out, 1 << 20, raw, 8192);
        break;
    case '2': /* two frames */
        n = ZSTD_compress2(c, out, 1 << 20, raw, 4096);
        memcpy(out + n, out, n);
        n *= 2;
        break;
    case 'k': /* nothing but a skippable frame */
        memcpy(out, (const uint8_t[]){0x50, 0x2A, 0x4D, 0x18, 4, 0, 0, 0, 1, 2, 3, 4}, 12);
        n = 12;
        says = 4;
        break;
    case 't': /* bytes behind it */
        n = ZSTD_compress2(c, out, 1 << 20, raw, 4096);
        out[n++] = 0;
        break;
    default: /* a wrong checksum */
        n = ZSTD_compress2(c, out, 1 << 20, raw, 4096);
        out[n - 1] ^= 1;
    }
    ZSTD_freeCCtx(c);
    hsk_assert(!ZSTD_isError(n));
    one_frame(f, out, n, says);
}

/* ---- 12: signatures ---- */

static void bad_signature(struct forgery *f, const struct row *r, const struct base *b)
{
    struct forged_member *m = forge_need(f, "ROOT.minisig");
    g_autofree char *text = forge_text(m);
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
    switch (r->arg[0]) {
    case 'o':
        forge_set(m, b->other_signature);
        break;
    case 'l': /* "ED" becomes "Ed": RUR... becomes RWR... */
        lines[1][1] = 'W';
        break;
    case 't':
        lines[1][strlen(lines[1]) - 5] = '\0';
        break;
    case 'a':
        lines[2][strlen(lines[2]) - 1] ^= 1;
        break;
    case 'm':
        lines[4][0] = '\0';
        break;
    default:
        break;
    }
    g_autofree char *all = g_strjoinv(r->arg[0] == 'c' ? "\r\n" : "\n", lines);
    if (r->arg[0] != 'o')
        forge_set(m, all);
    if (r->arg[0] == 'm')
        g_byte_array_append(m->data, (const uint8_t *)"more\n", 5);
}

/* ---- the list ---- */

#define DISK "\"disks\": ["
static const struct row rows[] = {
    /* 1 */
    {1, "a name that climbs", add_member, NULL, "../x", NULL, false, "impossible name"},
    {1, "an absolute name", add_member, NULL, "/abs", NULL, false, "impossible name"},
    {1, "an empty part", add_member, NULL, "a//b", NULL, false, "impossible name"},
    {1, "a dot", add_member, NULL, ".", NULL, false, "impossible name"},
    {1, "climbing inside", add_member, NULL, "a/../b", NULL, false, "impossible name"},
    {1, "no name", add_member, NULL, "\001", NULL, false, "impossible name"},
    {1, "a name of 100 bytes without end", add_member, NULL,
     "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
     "aaaaaa"
     "a",
     NULL, false, "impossible name"},
    {1, "no UTF-8", add_member, NULL, "\xff\xfe", NULL, false, "impossible name"},
    {1, "a space at the end", add_member, NULL, "README.md ", NULL, false, "impossible name"},
    {1, "twins but for the case", add_member, NULL, "readme.md", NULL, false, "same name twice"},
    /* 2 */
    {2, "a hard link", add_kind, NULL, "1", NULL, false, "kind"},
    {2, "a symbolic link", add_kind, NULL, "2", NULL, false, "kind"},
    {2, "a character device", add_kind, NULL, "3", NULL, false, "kind"},
    {2, "a block device", add_kind, NULL, "4", NULL, false, "kind"},
    {2, "a FIFO", add_kind, NULL, "6", NULL, false, "kind"},
    {2, "a GNU long name", add_kind, NULL, "L", NULL, false, "kind"},
    {2, "a GNU long link", add_kind, NULL, "K", NULL, false, "kind"},
    {2, "a GNU sparse file", add_kind, NULL, "S", NULL, false, "kind"},
    {2, "a GNU folder dump", add_kind, NULL, "D", NULL, false, "kind"},
    {2, "a GNU volume", add_kind, NULL, "V", NULL, false, "kind"},
    {2, "a kind that is none", add_kind, NULL, "?", NULL, false, "kind"},
    /* 3 */
    {3, "a negative size", NULL, set_size, "-0000000001", NULL, false, "impossible size"},
    {3, "a base-256 size", NULL, set_size, "\200\0\0\0\0\0\0\0\0\0\1", NULL, false,
     "impossible size"},
    {3, "a size beyond the end", NULL, set_size, "77777777777", NULL, false, "cut off"},
    {3, "letters for a size", NULL, set_size, "0000000x001", NULL, false, "impossible size"},
    {3, "a wrong checksum", NULL, break_checksum, NULL, NULL, false, "wrong checksum"},
    /* 4 */
    {4, "a pax size", add_pax, NULL, "11 size=99\n", NULL, false, "changes a name or a size"},
    {4, "a pax path", add_pax, NULL, "10 path=a\n", NULL, false, "changes a name or a size"},
    {4, "a pax link", add_pax, NULL, "14 linkpath=a\n", NULL, false, "changes a name or a size"},
    {4, "a sparse map", add_pax, NULL, "21 GNU.sparse.name=a\n", NULL, false, "changes a name"},
    {4, "a global pax header", add_kind, NULL, "g", NULL, false, "kind"},
    {4, "a record that is too long", add_pax, NULL, "99 a=b\n", NULL, false, "wrong length"},
    {4, "a record of no length", add_pax, NULL, "0 a=b\n", NULL, false, "wrong length"},
    {4, "a pax header of 8 GiB", NULL, set_pax_size, "77777777777", NULL, false, "cut off"},
    {4, "a pax header of 1 MiB", add_large_pax, NULL, NULL, NULL, false, "too large"},
    {4, "thousands of pax headers in a row", add_two_pax, NULL, NULL, NULL, false, "pax"},
    /* 5 */
    {5, "a member twice", copy_member, NULL, "data/", NULL, false, "same name twice"},
    {5, "another ROOT behind", copy_member, NULL, "README.md", "ROOT", false, "ROOT"},
    {5, "another manifest behind", copy_member, NULL, "README.md", "manifest.json", false,
     "manifest.json"},
    {5, "two TAILs, the last nonsense", add_tail_last, NULL, NULL, NULL, false, "TAIL"},
    {5, "a TAIL with a wrong hash", add_tail_last, set_tail, "0", "0", false, "TAIL"},
    {5, "a TAIL that means another size", add_tail_last, set_tail, "56", "1", false, "TAIL"},
    {5, "a TAIL that points at something else", add_tail_last, set_tail, "24", "512", false,
     "TAIL"},
    {5, "a TAIL of another file, or an older one", add_tail_last, set_tail, "40", "512", false,
     NULL},
    {5, "a commit block in the data", add_tail_last, set_tail, "48", "600", false, NULL},
    /* 6 */
    {6, "100,001 members", add_100001_members, NULL, NULL, NULL, false, "too many members"},
    {6, "nothing but zeros", NULL, all_zero, NULL, NULL, false, "not a Haversack document"},
    {6, "one byte", NULL, cut_to, "1", NULL, false, "not a Haversack document"},
    {6, "nothing", NULL, cut_to, "0", NULL, false, "not a Haversack document"},
    {6, "the first header", NULL, cut_to, "512", NULL, false, "cut off"},
    /* 7, of ROOT, page maps, versions */
    {7, "an object of no pages", in_root, NULL, "# present disk.root 8388608",
     "# present disk.root 0", true, "line that makes no sense"},
    {7, "half a page", in_root, NULL, "# present disk.root 8388608", "# present disk.root 8388609",
     true, "line that makes no sense"},
    {7, "more than there can be", in_root, NULL, "# present disk.root 8388608",
     "# present disk.root 17592186048512", true, "line that makes no sense"},
    {7, "2^63", in_root, NULL, "# present disk.root 8388608",
     "# present disk.root 9223372036854775808", true, "line that makes no sense"},
    {7, "an object twice", in_root, NULL, "# present ram", "# present disk.root", true,
     "line that makes no sense"},
    {7, "an object with a name that is too long", in_root, NULL, "# present ram",
     "# present rammmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmm", true, "line that makes no sense"},
    {7, "a line that nobody knows", in_root, NULL, "# next", "# gonext", true,
     "line that makes no sense"},
    {7, "a log in a document", in_root, NULL, "# next", "# log 1 1\n# next", true, "log"},
    {7, "2^32 frames", in_root, NULL, " frames ", " frames 4294967295", true,
     "line that makes no sense"},
    {7, "no frames", in_root, NULL, " frames ", " frames 0", true, "line that makes no sense"},
    {7, "another document's uuid", in_root, NULL, "# document ",
     "# document 00000000-0000-4000-8000-000000000000 generation 5\n# document ", true, "ROOT"},
    {7, "two current versions", in_root, NULL, "# current ", "# current -\n# current ", true,
     "line that makes no sense"},
    {7, "a current version that is not there", no_current, NULL, NULL, NULL, true,
     "current version"},
    {7, "a map in a member that is not there", set_ref, NULL, "0", "ffffff0f", true, "map/"},
    {7, "a node behind the end of its member", set_ref, NULL, "8", "00ffff0f", true, "map/"},
    {7, "a node that overlaps another", set_ref, NULL, "8", "08000000", true, ""},
    {7, "2^63 bytes of memory", in_record, NULL, "\"bytes\": 131072",
     "\"bytes\": 9223372036854775807", true, "record"},
    {7, "less memory than its map", in_record, NULL, "\"bytes\": 131072", "\"bytes\": 65536", true,
     "makes no sense"},
    {7, "pages behind the end", plain_entry, NULL, "100", "0x1000000010000000", true,
     "makes no sense"},
    {7, "a kind of entry that nobody knows", plain_entry, NULL, "0", "0x2000000010000000", true,
     "makes no sense"},
    {7, "a hole that is something", plain_entry, NULL, "0", "1", true, "makes no sense"},
    {7, "a map that holds itself 128 times over, 2^44 bytes of it", endless_object, NULL, NULL,
     NULL, false, NULL},
    /* 8 */
    {8, "a segment that is not there", plain_entry, NULL, "0", "0x1ffffffff0000000", true,
     "ROOT does not list"},
    {8, "a frame that is not there", set_entry, NULL, "0", "0xfffff00", true, "not there"},
    {8, "a page behind the end of its frame", set_entry, NULL, "0", "0xff", true, "not there"},
    {8, "a frame of no bytes", set_table, NULL, "28", "0", true, "frame table"},
    {8, "a frame that takes 4 GiB", set_table, NULL, "28", "0xffffffff", true, "frame table"},
    {8, "frames that overlap", set_table, NULL, "24", "8", true, "frame table"},
    {8, "a frame that holds nothing", set_table, NULL, "32", "0", true, "frame table"},
    {8, "a frame that holds 4 GiB", set_table, NULL, "32", "0xffffffff", true, "frame table"},
    {8, "a flag that nobody knows", set_table, NULL, "36", "2", true, "frame table"},
    {8, "a frame that becomes a hole", set_table, NULL, "36", "1", true, ""},
    {8, "another number of frames", set_table, NULL, "20", "1", true, "frame table"},
    {8, "another segment's number", set_table, NULL, "16", "1", true, "frame table"},
    /* 9 */
    {9, "a bomb that says its size", bad_zstd, NULL, "b1", NULL, true, "frame table"},
    {9, "a bomb that does not", bad_zstd, NULL, "b2", NULL, true, "not one frame of its size"},
    {9, "a window of 2 GiB", bad_zstd, NULL, "w", NULL, true, "not one frame of its size"},
    {9, "a dictionary", bad_zstd, NULL, "d", NULL, true, "not one frame of its size"},
    {9, "no content size", bad_zstd, NULL, "n", NULL, true, "not one frame of its size"},
    {9, "another content size", bad_zstd, NULL, "s", NULL, true, "not one frame of its size"},
    {9, "two frames", bad_zstd, NULL, "2", NULL, true, "not one frame of its size"},
    {9, "a skippable frame only", bad_zstd, NULL, "k", NULL, true, "not one frame of its size"},
    {9, "bytes behind the frame", bad_zstd, NULL, "t", NULL, true, "not one frame of its size"},
    {9, "a wrong checksum", bad_zstd, NULL, "x", NULL, true, "cannot be decoded"},
    /* 10, 11 */
    {10, "a seek table that disagrees", break_seek_table, NULL, NULL, NULL, true, "seek table"},
    {11, "good hashes over a bad frame", break_frame, NULL, NULL, NULL, true, "frame 0"},
    /* 12 */
    {12, "another key with the same id", bad_signature, NULL, "o", NULL, false, "signature"},
    {12, "the legacy kind", bad_signature, NULL, "l", NULL, false, "signature"},
    {12, "base64 that is cut off", bad_signature, NULL, "t", NULL, false, "signature"},
    {12, "lines that end in CR LF", bad_signature, NULL, "c", NULL, false, "signature"},
    {12, "an altered trusted comment", bad_signature, NULL, "a", NULL, false, "signature"},
    {12, "more behind the signature", bad_signature, NULL, "m", NULL, false, "signature"},
    {12, "the signature of another ROOT", in_record, NULL, "one", "two", true, "signature"},
    {12, "a member that ROOT lists twice", in_root, NULL, "BLAKE2b-256 (mimetype)",
     "BLAKE2b-256 (README.md)", true, "line that makes no sense"},
    /* 13 */
    {13, "a million brackets", deep_manifest, NULL, NULL, NULL, true, "JSON"},
    {13, "a million brackets in a record", deep_record, NULL, NULL, NULL, true, "record"},
    {13, "a key twice", in_manifest, NULL, "{", "{\"name\": \"a\", \"name\": \"b\",", true, "JSON"},
    {13, "a key twice in a record", in_record, NULL, "{", "{\"id\": \"a\",", true, "record"},
    {13, "10^400", in_manifest, NULL, "1048576", "1e400", true, "JSON"},
    {13, "NaN", in_manifest, NULL, "1048576", "NaN", true, "JSON"},
    {13, "2^53 + 1 bytes of memory", in_manifest, NULL, "1048576", "9007199254740993", true,
     "memory"},
    {13, "2^63 bytes of memory", in_manifest, NULL, "1048576", "9223372036854775808", true, "JSON"},
    {13, "half a surrogate", in_manifest, NULL, "\"work\"", "\"\\ud800\"", true, "JSON"},
    {13, "a name of two lines", in_manifest, NULL, "\"work\"", "\"a\\nb\"", true, "name"},
    {13, "a name that runs backwards", in_manifest, NULL, "\"work\"", "\"a\\u202eb\"", true,
     "name"},
    {13, "a title that clears the terminal", in_record, NULL, "\"one\"", "\"\\u001b[2J\"", true,
     "record"},
    {13, "markup in a name: shown as it is", in_manifest, NULL, "\"work\"", "\"<b>&amp;\"", true,
     NULL},
    {13, "a disk without content", in_manifest, NULL, DISK,
     DISK "{\"id\":\"more\",\"bus\":\"virtio\",\"bytes\":4096},", true, "disk"},
    {13, "a disk twice", in_manifest, NULL, DISK,
     DISK "{\"id\":\"root\",\"bus\":\"virtio\",\"bytes\":4096},", true, "same id"},
    {13, "a disk of another size", in_manifest, NULL, "8388608", "4194304", true, "disk"},
    {13, "10^9 processors", in_manifest, NULL, "\"count\": 1", "\"count\": 1000000000", true,
     "processors"},
    {13, "a port forward: no such thing in this format", in_manifest, NULL, "\"name\"",
     "\"forward\": [22], \"name\"", true, NULL},
    {13, "a manifest of one number", whole_manifest, NULL, "5", NULL, true, "JSON"},
    /* 14 */
    {14, "an icon of 65535 x 65535: nothing decodes it", copy_member, NULL, "README.md", "icon.png",
     false, NULL},
    {14, "an SVG icon: nothing reads it", copy_member, NULL, "README.md", "icon.svg", false, NULL},
};

/* Items of the list that concern this format and are tested elsewhere, and where. 16 to 21 are of
 * foreign formats. */
static const struct {
    unsigned item;
    const char *where;
} elsewhere[] = {
    {15, "a_file_changed_under_an_open_document_gives_no_wrong_byte (here), test_document.py"},
    {22, "tests/contract/test_devices.c, tests/unit/base/test_state.c, tests/fuzz/fuzz_devices.c"},
};

static void make_base(struct base *b, const struct scratch *s)
{
    g_autofree uint8_t *ram = make_ram(1), *more = make_ram(2);
    assert_ok(make_document(s, NULL, &error));
    struct hsk_doc *doc = open_doc(s);
    assert_ok(take(doc, "zero", HSK_VERSION_USER, more, NULL, &error));
    assert_ok(hsk_doc_publish(doc, &error));
    assert_ok(take(doc, "one", HSK_VERSION_USER, ram, NULL, &error));
    assert_ok(hsk_doc_publish(doc, &error));
    hsk_doc_close(doc);
    hsk_seckey_new(&b->key);
    hsk_seckey_new(&b->other);
    assert_ok(hsk_doc_sign(s->doc, &b->key, "Ada", &error));
    assert_true(g_file_get_contents(s->doc, (char **)&b->file, &b->bytes, NULL));
    HSK_AUTO(forgery, f) = forge_load(b->file, b->bytes);
    /* only the last ROOT, its signature and no TAIL: rows change what counts */
    g_autofree char *root = forge_text(forge_root(f));
    g_autofree char *signature = forge_text(forge_need(f, "ROOT.minisig"));
    for (guint i = f->members->len; i-- > 0;) {
        const struct forged_member *m = g_ptr_array_index(f->members, i);
        if (g_str_has_prefix(m->name, "ROOT") || strcmp(m->name, "TAIL") == 0)
            g_ptr_array_remove_index(f->members, i);
    }
    forge_add(f, "ROOT", root, strlen(root));
    forge_add(f, "ROOT.minisig", signature, strlen(signature));
    g_autoptr(GByteArray) file = forge_file(f);
    g_free(b->file);
    b->bytes = file->len;
    b->file = g_memdup2(file->data, file->len);
    assert_ok(hsk_publisher_add(&b->key.public, "Ada", &error));
    memcpy(b->other.public.id, b->key.public.id, sizeof(b->key.public.id));
    b->other_signature = hsk_signature_make(&b->other, root, strlen(root), "timestamp:1");
}

static GByteArray *make_row(const struct base *b, const struct row *r)
{
    HSK_AUTO(forgery, f) = forge_load(b->file, b->bytes);
    if (r->forge != NULL)
        r->forge(f, r, b);
    bool other_root = r->item == 12 && r->forge == in_record;
    if (r->seal && r->forge != in_root && !other_root && forge_find(f, "ROOT.minisig") != NULL)
        g_ptr_array_remove(f->members, forge_need(f, "ROOT.minisig"));
    if (r->seal)
        forge_seal(f, NULL);
    GByteArray *file = forge_file(f);
    if (r->bytes != NULL)
        r->bytes(file, r);
    return file;
}

/* What verify says, all sentences. */
static char *verify(const char *path, bool *whole)
{
    g_autoptr(GError) error = NULL;
    HSK_AUTO(hsk_check_result, r) = hsk_doc_check(path, NULL, NULL, &error);
    *whole = r != NULL && r->whole;
    if (r == NULL)
        return g_strdup(error->message);
    g_autoptr(GString) all = g_string_new(r->present);
    for (guint i = 0; i < r->problems->len; i++)
        g_string_append_printf(all, "|%s", (char *)g_ptr_array_index(r->problems, i));
    for (guint i = 0; i < r->versions->len; i++)
        g_string_append_printf(
            all, "|%s",
            g_array_index(r->versions, struct hsk_checked_version, i).problem != NULL
                ? g_array_index(r->versions, struct hsk_checked_version, i).problem
                : "");
    return g_strdup(all->str);
}

/* As run does: with an instance, all disks and versions read. No words expected: it only must not
 * break. */
static void use(const char *path)
{
    struct hsk_doc *doc = hsk_doc_open(path, false, NULL, NULL);
    if (doc == NULL)
        return;
    g_autofree uint8_t *ram = g_malloc0(RAM_BYTES);
    uint8_t page[HSK_PAGE_SIZE];
    for (unsigned i = 0; i < doc->ndisks; i++)
        (void)!hsk_disk_read(hsk_doc_disk(doc, i), 0, page, sizeof(page));
    for (guint i = 0; i < doc->versions->len; i++) {
        const struct hsk_record *r = g_ptr_array_index(doc->versions, i);
        struct hsk_version *v = hsk_version_open(doc, r->info.id, NULL);
        if (v == NULL)
            continue;
        (void)!hsk_version_fill(v, "ram", ram, RAM_BYTES, NULL);
        g_autoptr(GBytes) state = hsk_version_state(v, NULL);
        g_autoptr(GBytes) picture = hsk_version_picture(v, NULL);
        (void)state;
        (void)picture;
        hsk_version_free(v);
    }
    (void)!take(doc, "mine", HSK_VERSION_USER, ram, NULL, NULL);
    (void)!hsk_doc_publish(doc, NULL);
    hsk_doc_close(doc);
}

static void every_hostile_document_is_refused_with_a_sentence(void **state)
{
    struct scratch *s = *state;
    struct base b;
    unsigned wrong = 0;
    make_base(&b, s);
    for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
        const struct row *r = &rows[i];
        g_autoptr(GByteArray) file = make_row(&b, r);
        bool whole;
        assert_true(g_file_set_contents(s->doc, (char *)file->data, file->len, NULL));
        g_autofree char *said = verify(s->doc, &whole);
        if (whole != (r->words == NULL) || (r->words != NULL && strstr(said, r->words) == NULL) ||
            strchr(said, '\n') != NULL) {
            print_error("%u, %s: %s \"%s\"\n", r->item, r->what, whole ? "whole" : "damaged", said);
            wrong++;
        }
        use(s->doc);
    }
    g_free(b.file);
    g_free(b.other_signature);
    assert_int_equal(wrong, 0);
}

static void every_item_of_the_list_has_a_row(void **state)
{
    for (unsigned item = 1; item <= 22; item++) {
        bool found = item >= 16 && item <= 21;
        for (size_t i = 0; i < G_N_ELEMENTS(rows); i++)
            found |= rows[i].item == item;
        for (size_t i = 0; i < G_N_ELEMENTS(elsewhere); i++)
            found |= elsewhere[i].item == item && elsewhere[i].where != NULL;
        if (!found)
            fail_msg("item %u has no test", item);
    }
}

/* 6: truncated at every 512 bytes, and one byte off. */
static void a_document_cut_anywhere_is_refused(void **state)
{
    struct scratch *s = *state;
    struct base b;
    make_base(&b, s);
    for (size_t at = 0; at + 1024 < b.bytes; at += 512) {
        for (size_t off = 0; off < 2; off++) {
            g_autoptr(GError) e = NULL;
            assert_true(g_file_set_contents(s->doc, (char *)b.file, (gssize)(at + off), NULL));
            struct hsk_doc *doc = hsk_doc_open(s->doc, true, NULL, &e);
            if (doc != NULL)
                fail_msg("cut at %zu it opens", at + off);
            assert_true(e != NULL && strchr(e->message, '\n') == NULL &&
                        strstr(e->message, s->doc) != NULL);
        }
    }
    g_free(b.file);
    g_free(b.other_signature);
}

static bool drop_pages(void *opaque, uint64_t page, uint64_t n, const void *data, GError **error)
{
    return true;
}

/* 15: the stick is pulled, the file is cut off or overwritten while the document is open: errors
 * with a sentence, the page that was written, or an error; never other bytes, never a signal. */
static void a_file_changed_under_an_open_document_gives_no_wrong_byte(void **state)
{
    struct scratch *s = *state;
    struct base b;
    make_base(&b, s);
    for (unsigned how = 0; how < 3; how++) {
        assert_true(g_file_set_contents(s->doc, (char *)b.file, (gssize)b.bytes, NULL));
        struct hsk_doc *doc = open_doc(s);
        HSK_AUTOFD fd = open(s->doc, O_RDWR | O_CLOEXEC);
        g_autofree uint8_t *junk = g_malloc(b.bytes);
        memset(junk, how == 1 ? 0 : 0xa5, b.bytes);
        assert_int_equal(how == 0 ? ftruncate(fd, 0) : hsk_pwrite_all(fd, junk, b.bytes, 0), 0);
        uint8_t page[HSK_PAGE_SIZE];
        struct hsk_disk *d = hsk_doc_disk(doc, 0);
        assert_int_equal(hsk_disk_read(d, 0, page, sizeof(page)), -EIO);
        assert_non_null(strstr(hsk_disk_error(d), s->doc));
        for (guint i = 0; i < doc->versions->len; i++) {
            const struct hsk_record *r = g_ptr_array_index(doc->versions, i);
            g_autofree uint8_t *ram = g_malloc0(RAM_BYTES);
            uint8_t all[RAM_PAGES / 8];
            struct hsk_version *v;
            memset(all, 0xff, sizeof(all));
            assert_ok((v = hsk_version_open(doc, r->info.id, &error)) != NULL);
            assert_refused(hsk_version_fill(v, "ram", ram, RAM_BYTES, &error), s->doc);
            assert_refused(hsk_version_read(v, "ram", 0, 1, ram, &error), s->doc);
            assert_refused(hsk_version_pick(v, "ram", all, drop_pages, NULL, &error), s->doc);
            hsk_version_free(v);
        }
        /* what is written goes on being there */
        assert_int_equal(write_disk_page(doc, 5, 50), 0);
        assert_int_equal(hsk_disk_flush(d), 0);
        assert_disk_page(doc, 5, 50);
        assert_refused(hsk_doc_publish(doc, &error), s->doc);
        hsk_doc_close(doc);
        g_autofree char *data = hsk_data_folder();
        remove_tree(data);
    }
    g_free(b.file);
    g_free(b.other_signature);
}

static int write_files(const char *folder)
{
    void *state;
    struct base b;
    scratch_setup(&state);
    make_base(&b, state);
    for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
        g_autoptr(GByteArray) file = make_row(&b, &rows[i]);
        g_autofree char *path = g_strdup_printf("%s/%02u-%03zu-%s.hva", folder, rows[i].item, i,
                                                rows[i].words == NULL ? "whole" : "bad");
        hsk_assert(g_file_set_contents(path, (char *)file->data, file->len, NULL));
    }
    g_free(b.file);
    g_free(b.other_signature);
    scratch_teardown(&state);
    return 0;
}

int main(int argc, char **argv)
{
#define T(f) cmocka_unit_test_setup_teardown(f, scratch_setup, scratch_teardown)
    g_autofree char *data = scratch_data_home();
    const struct CMUnitTest tests[] = {
        T(every_hostile_document_is_refused_with_a_sentence),
        T(every_item_of_the_list_has_a_row),
        T(a_document_cut_anywhere_is_refused),
        T(a_file_changed_under_an_open_document_gives_no_wrong_byte),
    };
    int failed = argc > 1 ? write_files(argv[1]) : cmocka_run_group_tests(tests, NULL, NULL);
    remove_tree(data);
    return failed;
}
