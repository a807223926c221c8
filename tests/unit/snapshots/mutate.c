/* SPDX-License-Identifier: MIT */
/*
 * The ways in which mutants are made (mutate.h). One thread.
 */
#include "mutate.h"

#include <sodium.h>
#include <zstd.h>

/* ---- chance ---- */

static uint64_t next(uint64_t *x)
{
    *x ^= *x << 13;
    *x ^= *x >> 7;
    *x ^= *x << 17;
    return *x * 0x2545F4914F6CDD1Dull >> 16;
}
static uint64_t below(uint64_t *x, uint64_t n)
{
    return n == 0 ? 0 : next(x) % n;
}

/* Numbers that break things. */
static uint64_t odd_number(uint64_t *x)
{
    static const uint64_t odd[] = {0,
                                   1,
                                   2,
                                   127,
                                   128,
                                   255,
                                   4095,
                                   4096,
                                   65535,
                                   65536,
                                   0x7fffffff,
                                   0x80000000,
                                   0xffffffff,
                                   1ull << 32,
                                   1ull << 44,
                                   1ull << 60,
                                   1ull << 63,
                                   ~0ull,
                                   ~0ull - 1,
                                   1ull << 20,
                                   262144,
                                   262145,
                                   0x7fffffffffffffff};
    return below(x, 4) == 0 ? next(x) : odd[below(x, G_N_ELEMENTS(odd))];
}

static void change_bytes(uint8_t *p, size_t n, uint64_t *x)
{
    if (n == 0)
        return;
    size_t at = below(x, n), wish = 1 + below(x, 64), run = MIN(wish, n - at);
    switch (below(x, 6)) {
    case 0:
        p[at] ^= (uint8_t)(1 << below(x, 8));
        break;
    case 1:
        memset(p + at, (int)(below(x, 2) * 255), run);
        break;
    case 2:
        for (size_t i = 0; i < run; i++)
            p[at + i] = (uint8_t)next(x);
        break;
    case 3: /* from elsewhere */
        memmove(p + at, p + below(x, n - run + 1), run);
        break;
    case 4:
        if (n >= 8) {
            at = below(x, n - 7) & ~3ull;
            hsk_put32(p + at, (uint32_t)odd_number(x));
        }
        break;
    default:
        if (n >= 8)
            hsk_put64(p + below(x, n - 7), odd_number(x));
    }
}

/* A number in text becomes another one. */
static void change_number(struct forged_member *m, uint64_t *x)
{
    g_autofree char *text = forge_text(m);
    size_t len = strlen(text), at = below(x, len + 1);
    while (at < len && !g_ascii_isdigit(text[at]))
        at++;
    size_t end = at;
    while (end < len && g_ascii_isdigit(text[end]))
        end++;
    text[at] = '\0';
    g_autofree char *all =
        g_strdup_printf("%s%" PRIu64 "%s", text, odd_number(x), end < len ? text + end : "");
    if (end > at && end < len)
        forge_set(m, all);
}

/* ---- the ways ---- */

static GByteArray *copy_of(const struct world *w, unsigned which)
{
    return g_byte_array_append(g_byte_array_new(), w->files[which], (guint)w->sizes[which]);
}

static GByteArray *flipped_bits(const struct world *w, unsigned which, uint64_t *x)
{
    GByteArray *a = copy_of(w, which);
    for (uint64_t n = 1 + below(x, 3); n > 0; n--)
        a->data[below(x, a->len)] ^= (uint8_t)(1 << below(x, 8));
    return a;
}

static GByteArray *overwritten(const struct world *w, unsigned which, uint64_t *x)
{
    GByteArray *a = copy_of(w, which);
    for (uint64_t n = 1 + below(x, 4); n > 0; n--)
        change_bytes(a->data, a->len, x);
    return a;
}

static GByteArray *tail_bytes(const struct world *w, unsigned which, uint64_t *x)
{
    GByteArray *a = copy_of(w, which);
    size_t n = MIN(a->len, 4096u);
    for (uint64_t k = 1 + below(x, 4); k > 0; k--)
        change_bytes(a->data + a->len - n, n, x);
    return a;
}

static GByteArray *cut_off(const struct world *w, unsigned which, uint64_t *x)
{
    GByteArray *a = copy_of(w, which);
    size_t at = below(x, a->len), missing = (1 + below(x, 8)) * 512;
    if (below(x, 2) != 0)
        at &= ~511ull;
    if (below(x, 3) == 0) /* bytes are missing in the middle */
        g_byte_array_remove_range(a, (guint)at, (guint)MIN(missing, a->len - at));
    else
        g_byte_array_set_size(a, (guint)at);
    if (below(x, 3) == 0) { /* and the end is an end */
        static const uint8_t zeros[1024];
        g_byte_array_append(a, zeros, sizeof(zeros));
    }
    return a;
}

static GByteArray *rewritten_headers(const struct world *w, unsigned which, uint64_t *x)
{
    GByteArray *a = copy_of(w, which);
    size_t headers[256], n = 0;
    for (size_t pos = 0; pos + 512 <= a->len && a->data[pos] != 0 && n < 256;) {
        g_autofree char *size = g_strndup((const char *)a->data + pos + 124, 12);
        headers[n++] = pos;
        pos += 512 + (strtoull(size, NULL, 8) + 511) / 512 * 512;
    }
    uint8_t *h = a->data + headers[below(x, n)];
    const uint8_t *other = a->data + headers[below(x, n)];
    switch (below(x, 5)) {
    case 0:
        memcpy(h, other, 100); /* another name */
        break;
    case 1:
        memcpy(h + 124, other + 124, 12); /* another size */
        break;
    case 2:
        h[156] = (uint8_t)next(x);
        break;
    case 3:
        h[124 + below(x, 12)] = (uint8_t)('0' + below(x, 8));
        break;
    default:
        change_bytes(h, 512, x);
    }
    forge_checksum(h);
    return a;
}

static GByteArray *shuffled_members(const struct world *w, unsigned which, uint64_t *x)
{
    HSK_AUTO(forgery, f) = forge_load(w->files[which], w->sizes[which]);
    HSK_AUTO(forgery, g) = forge_load(w->files[!which], w->sizes[!which]);
    for (uint64_t k = 1 + below(x, 3); k > 0 && f->members->len > 1; k--) {
        struct forged_member *m = g_ptr_array_index(f->members, below(x, f->members->len)),
                             *o = g_ptr_array_index(f->members, below(x, f->members->len)),
                             *p = g_ptr_array_index(g->members, below(x, g->members->len));
        GByteArray *data = m->data;
        switch (below(x, 6)) {
        case 0: /* contents */
            m->data = o->data;
            o->data = data;
            break;
        case 1: { /* places */
            struct forged_member t = *m;
            *m = *o;
            *o = t;
            break;
        }
        case 2:
            forge_add(f, o->name, o->data->data, o->data->len);
            break;
        case 3: /* of the other document, or of a generation before */
            forge_add(f, p->name, p->data->data, p->data->len);
            break;
        case 4:
            g_byte_array_set_size(m->data, (guint)below(x, m->data->len + 1));
            break;
        default:
            g_ptr_array_remove(f->members, m);
        }
    }
    return forge_file(f);
}

/* ---- one structure of the file, which no hash is made to fit ---- */

static const struct region *some_region(const struct world *w, unsigned which, enum part part,
                                        uint64_t *x)
{
    const struct region *found = NULL;
    unsigned n = 0;
    for (guint i = 0; i < w->regions[which]->len; i++) {
        const struct region *r = &g_array_index(w->regions[which], struct region, i);
        if (r->part == part && below(x, ++n) == 0)
            found = r;
    }
    hsk_assert(found != NULL);
    return found;
}

/* A frame with other content that is as long, packed or not, and a frame in every respect. */
static bool repack(uint8_t *frame, size_t bytes, uint64_t *x)
{
    size_t size = (size_t)ZSTD_getFrameContentSize(frame, bytes);
    g_autofree uint8_t *raw = g_malloc(size + 1), *out = g_malloc(ZSTD_compressBound(size));
    if (ZSTD_decompress(raw, size, frame, bytes) != size || size == 0)
        return false;
    ZSTD_CCtx *c = ZSTD_createCCtx();
    bool same = false;
    ZSTD_CCtx_setParameter(c, ZSTD_c_checksumFlag, 1);
    for (unsigned tries = 0; tries < 12 && !same; tries++) {
        size_t at = below(x, size);
        uint8_t old = raw[at];
        raw[at] ^= (uint8_t)(1 + below(x, 255));
        for (int level = 3; level >= 1 && !same; level -= 2) { /* those of creation and of takes */
            ZSTD_CCtx_setParameter(c, ZSTD_c_compressionLevel, level);
            same = ZSTD_compress2(c, out, ZSTD_compressBound(size), raw, size) == bytes;
        }
        raw[at] = same ? raw[at] : old;
    }
    ZSTD_freeCCtx(c);
    if (same)
        memcpy(frame, out, bytes);
    return same;
}

/* An entry or a reference of a node takes the place of another one, or is the next one. */
static void other_entry(uint8_t *node, size_t bytes, uint64_t *x)
{
    size_t each = below(x, 2) == 0 ? 8 : 32, n = bytes / each;
    uint8_t *a = node + each * below(x, n), *b = node + each * below(x, n);
    if (each == 8 && below(x, 2) == 0)
        hsk_put64(a, hsk_get64(a) ^ (1ull << below(x, 3)));
    else
        memmove(a, b, each);
}

static void other_digit(uint8_t *text, size_t bytes, uint64_t *x)
{
    size_t at = below(x, bytes);
    for (size_t i = 0; i < bytes; i++, at = (at + 1) % bytes) {
        if (!g_ascii_isdigit(text[at]))
            continue;
        text[at] = (uint8_t)('0' + (text[at] - '0' + 1 + below(x, 9)) % 10);
        return;
    }
}

/* A frame is another one, and its line in the table says so; but ROOT knows the table. */
static bool repack_with_table(const struct world *w, unsigned which, uint8_t *file, uint64_t *x)
{
    const struct region *f = some_region(w, which, PART_FRAME, x);
    uint8_t *entry = file + f->table;
    if (!repack(file + f->off, f->bytes, x))
        return false;
    hsk_hash(file + f->off, f->bytes, entry + 32);
    return true;
}

/* What is still well-formed, so that only a hash can tell. */
static bool well_formed(const struct world *w, unsigned which, enum part part, uint8_t *file,
                        const struct region *r, uint64_t *x)
{
    switch (part) {
    case PART_FRAME:
    case PART_STATE:
    case PART_PICTURE:
    case PART_NEEDED:
        return repack(file + r->off, r->bytes, x);
    case PART_TABLE:
        return repack_with_table(w, which, file, x);
    case PART_NODE:
        other_entry(file + r->off, r->bytes, x);
        return true;
    case PART_ROOT:
    case PART_MANIFEST:
    case PART_RECORD:
    case PART_SIGNATURE:
    case PART_OWN_ROOT:
        other_digit(file + r->off, r->bytes, x);
        return true;
    default:
        return false;
    }
}

static void change_region(const struct world *w, unsigned which, enum part part, uint8_t *file,
                          const struct region *r, uint64_t *x)
{
    const struct region *o = some_region(w, which, part, x);
    uint64_t how = below(x, 4);
    if (how < 2 && well_formed(w, which, part, file, r, x))
        return;
    if (how == 2 && o->bytes == r->bytes)
        memcpy(file + r->off, w->files[which] + o->off, r->bytes);
    else
        change_bytes(file + r->off, r->bytes, x);
}

/* Most of a map is zeros: what changes nothing is no mutant. */
static GByteArray *mutate_part(const struct world *w, unsigned which, uint64_t *x, enum part part)
{
    GByteArray *a = copy_of(w, which);
    do
        change_region(w, which, part, a->data, some_region(w, which, part, x), x);
    while (memcmp(a->data, w->files[which], a->len) == 0);
    return a;
}

/* ---- an attacker, who makes all hashes fit ---- */

static struct forged_member *some_member(struct forgery *f, const char *folder, uint64_t *x)
{
    struct forged_member *m = NULL;
    unsigned n = 0;
    for (guint i = 0; i < f->members->len; i++) {
        struct forged_member *c = g_ptr_array_index(f->members, i);
        if (g_str_has_prefix(c->name, folder) && below(x, ++n) == 0)
            m = c;
    }
    return m;
}

/* One field of an entry of a page map, or of a reference; most of a map is zeros. */
static void change_map(GByteArray *a, uint64_t *x)
{
    static const struct {
        unsigned shift, bits;
    } fields[] = {{60, 4}, {28, 32}, {8, 20}, {0, 8}};
    uint64_t field = below(x, G_N_ELEMENTS(fields)), mask = (1ull << fields[field].bits) - 1;
    uint8_t *p = a->data;
    for (unsigned tries = 0; tries < 200; tries++) {
        p = a->data + 8 * below(x, a->len / 8);
        if (hsk_get64(p) != 0 && (tries > 100 || hsk_get64(p) >> 60 == 1))
            break;
    }
    uint64_t v = hsk_get64(p), now = v >> fields[field].shift & mask;
    uint64_t n = below(x, 2) == 0 ? now + 1 + below(x, 8) : odd_number(x);
    if (v >> 60 != 1) /* a reference: its member and its offset */
        hsk_put32(p + 4 * below(x, 2), (uint32_t)odd_number(x));
    else
        hsk_put64(p, (v & ~(mask << fields[field].shift)) | (n & mask) << fields[field].shift);
}

/* A frame, or one number of what speaks of the frames. */
static void change_segment(GByteArray *a, uint64_t *x)
{
    size_t tables = MIN(a->len, 64u * 12);
    if (below(x, 2) == 0) {
        change_bytes(a->data, a->len, x);
        return;
    }
    uint8_t *p = a->data + a->len - tables + 4 * below(x, tables / 4);
    hsk_put32(p, below(x, 2) == 0 ? hsk_get32(p) + 1 - 2 * (uint32_t)below(x, 2)
                                  : (uint32_t)odd_number(x));
}

static void change_member(struct forged_member *m, uint64_t *x)
{
    bool segment = g_str_has_suffix(m->name, ".zst"), map = g_str_has_prefix(m->name, "map/");
    if (m->data->len < 64 || below(x, 4) == 0)
        change_bytes(m->data->data, m->data->len, x);
    else if (segment)
        change_segment(m->data, x);
    else if (map)
        change_map(m->data, x);
    else
        change_number(m, x);
}

static GByteArray *mutate_attack(const struct world *w, unsigned which, uint64_t *x,
                                 const char *folder)
{
    HSK_AUTO(forgery, f) = forge_load(w->files[which], w->sizes[which]);
    for (uint64_t k = 1 + below(x, 3); k > 0; k--) {
        struct forged_member *m = some_member(f, folder, x);
        if (m != NULL)
            change_member(m, x);
    }
    forge_seal(f, below(x, 2) != 0 ? &w->attacker : NULL);
    return forge_file(f);
}

/* ---- by number ---- */

uint64_t mutate_below(uint64_t *x, uint64_t n)
{
    return below(x, n);
}

typedef GByteArray *(*blind_fn)(const struct world *w, unsigned which, uint64_t *x);

static const struct {
    const char *name;
    blind_fn blind;
    enum part part;
    const char *attack; /* names of members begin so */
} ways[] = {
    {.name = "bits flipped", .blind = flipped_bits},
    {.name = "bytes overwritten", .blind = overwritten},
    {.name = "bytes of the tail", .blind = tail_bytes},
    {.name = "cut off", .blind = cut_off},
    {.name = "headers rewritten", .blind = rewritten_headers},
    {.name = "members shuffled", .blind = shuffled_members},
    {.name = "ROOT", .part = PART_ROOT},
    {.name = "signature", .part = PART_SIGNATURE},
    {.name = "manifest", .part = PART_MANIFEST},
    {.name = "boot files", .part = PART_BOOT},
    {.name = "records", .part = PART_RECORD},
    {.name = "page maps", .part = PART_NODE},
    {.name = "frames", .part = PART_FRAME},
    {.name = "frame tables", .part = PART_TABLE},
    {.name = "seek tables", .part = PART_SEEK},
    {.name = "device state", .part = PART_STATE},
    {.name = "pictures", .part = PART_PICTURE},
    {.name = "needed sets", .part = PART_NEEDED},
    {.name = "log", .part = PART_LOG},
    {.name = "ROOT of the instance", .part = PART_OWN_ROOT},
    {.name = "rest of the instance", .part = PART_OWN},
    {.name = "attacker: frames", .attack = "data/"},
    {.name = "attacker: disk", .attack = "disks/"},
    {.name = "attacker: maps", .attack = "map/"},
    {.name = "attacker: records", .attack = "versions/"},
    {.name = "attacker: ROOT", .attack = "ROOT"},
    {.name = "attacker: manifest", .attack = "manifest.json"},
    {.name = "attacker: anything", .attack = ""},
};
G_STATIC_ASSERT(G_N_ELEMENTS(ways) == MUTATE_WAYS);

const char *mutate_name(unsigned way)
{
    return ways[way].name;
}

bool mutate_by_attacker(unsigned way)
{
    return ways[way].attack != NULL;
}

enum part mutate_part_of(unsigned way)
{
    return ways[way].part;
}

bool mutate_is_own(unsigned way)
{
    return ways[way].part >= PART_LOG;
}

GByteArray *mutate(const struct world *w, unsigned way, unsigned which, uint64_t *x)
{
    return ways[way].blind != NULL ? ways[way].blind(w, which, x)
           : ways[way].attack != NULL
               ? mutate_attack(w, which, x, ways[way].attack)
               : mutate_part(w, mutate_is_own(way) ? OWN : which, x, ways[way].part);
}
