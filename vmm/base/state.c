/* SPDX-License-Identifier: MIT */
/*
 * Saved state: writes and reads the sections that base/state.h describes. The reader treats its
 * input as hostile: framing is checked once for the whole, each field against the table of the one
 * device that asks for it.
 */
#include <base/state.h>

#define MAGIC          0x534b5348u /* "HSKS" */
#define FORMAT_VERSION 1
#define MAX_SECTIONS   256
#define MAX_BYTES      (16u << 20)
#define MAX_PAYLOAD    (1u << 20)
#define END_ID         "end"

struct hsk_state_writer {
    GByteArray *bytes;
};

struct section {
    char *id;
    uint16_t version;
    const uint8_t *payload;
    uint32_t len;
    bool used;
};

struct hsk_state_reader {
    GBytes *bytes;
    struct section section[MAX_SECTIONS];
    unsigned nsections;
};

static void put_bytes(GByteArray *a, const void *p, size_t n)
{
    g_byte_array_append(a, p, (guint)n);
}
static void put16(GByteArray *a, uint16_t v)
{
    v = htole16(v);
    put_bytes(a, &v, 2);
}
static void put32(GByteArray *a, uint32_t v)
{
    v = htole32(v);
    put_bytes(a, &v, 4);
}

struct hsk_state_writer *hsk_state_writer_new(void)
{
    struct hsk_state_writer *w = g_new0(struct hsk_state_writer, 1);

    w->bytes = g_byte_array_new();
    put32(w->bytes, MAGIC);
    put32(w->bytes, FORMAT_VERSION);
    return w;
}

void hsk_state_writer_free(struct hsk_state_writer *w)
{
    if (!w)
        return;
    g_clear_pointer(&w->bytes, g_byte_array_unref);
    g_free(w);
}

static void put_header(GByteArray *a, const char *id, uint16_t version, uint32_t len)
{
    put16(a, (uint16_t)strlen(id));
    put_bytes(a, id, strlen(id));
    put16(a, version);
    put32(a, len);
}

/* Integers are little-endian in the file; x86 hosts are too, so an element is its bytes. */
G_STATIC_ASSERT(G_BYTE_ORDER == G_LITTLE_ENDIAN);

void hsk_state_put(struct hsk_state_writer *w, const char *id, const struct hsk_state_desc *d,
                   const void *state)
{
    g_autoptr(GByteArray) payload = g_byte_array_new();

    for (uint32_t i = 0; i < d->nfields; i++) {
        const struct hsk_field *f = &d->fields[i];
        uint8_t n = (uint8_t)strlen(f->name);

        put_bytes(payload, &n, 1);
        put_bytes(payload, f->name, n);
        put32(payload, f->elem * f->count);
        put_bytes(payload, (const char *)state + f->offset, (size_t)f->elem * f->count);
    }
    hsk_assert(payload->len <= MAX_PAYLOAD);
    put_header(w->bytes, id, d->version, payload->len);
    put_bytes(w->bytes, payload->data, payload->len);
}

GBytes *hsk_state_writer_finish(struct hsk_state_writer *w)
{
    put_header(w->bytes, END_ID, 0, 0);
    return g_byte_array_free_to_bytes(g_steal_pointer(&w->bytes));
}

static bool damaged(GError **error, const char *what)
{
    g_set_error(error, HSK_ERROR, HSK_ERROR_DAMAGED, "The saved state is damaged: %s", what);
    return false;
}

static bool parse_sections(struct hsk_state_reader *r, GError **error)
{
    gsize size;
    const uint8_t *p = g_bytes_get_data(r->bytes, &size);
    gsize off = 8;

    if (size < 8 || size > MAX_BYTES || hsk_get32(p) != MAGIC)
        return damaged(error, "it does not start as one");
    if (hsk_get32(p + 4) != FORMAT_VERSION) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_UNSUPPORTED,
                    "The saved state has format version %u; this program knows version %u",
                    hsk_get32(p + 4), FORMAT_VERSION);
        return false;
    }
    for (;;) {
        uint32_t idlen, len;
        struct section *s;

        if (!hsk_range_ok(off, 2, size))
            return damaged(error, "it ends too early");
        idlen = hsk_get16(p + off);
        if (idlen == 0 || idlen > 64 || !hsk_range_ok(off + 2, idlen + 6, size))
            return damaged(error, "a section has no proper name");
        len = hsk_get32(p + off + 2 + idlen + 2);
        if (len > MAX_PAYLOAD || !hsk_range_ok(off + 2 + idlen + 6, len, size))
            return damaged(error, "a section is longer than the rest");
        if (r->nsections == MAX_SECTIONS)
            return damaged(error, "it has too many sections");
        s = &r->section[r->nsections];
        s->id = g_strndup((const char *)p + off + 2, idlen);
        r->nsections++;
        s->version = hsk_get16(p + off + 2 + idlen);
        s->payload = p + off + 2 + idlen + 6;
        s->len = len;
        for (unsigned i = 0; i + 1 < r->nsections; i++)
            if (strcmp(r->section[i].id, s->id) == 0)
                return damaged(error, "a section is there twice");
        off += 2 + idlen + 6 + len;
        if (strcmp(s->id, END_ID) == 0) {
            s->used = true;
            return off == size || damaged(error, "something follows its end");
        }
    }
}

struct hsk_state_reader *hsk_state_reader_new(GBytes *bytes, GError **error)
{
    struct hsk_state_reader *r = g_new0(struct hsk_state_reader, 1);

    r->bytes = g_bytes_ref(bytes);
    if (!parse_sections(r, error)) {
        hsk_state_reader_free(r);
        return NULL;
    }
    return r;
}

void hsk_state_reader_free(struct hsk_state_reader *r)
{
    if (!r)
        return;
    for (unsigned i = 0; i < r->nsections; i++)
        g_free(r->section[i].id);
    g_bytes_unref(r->bytes);
    g_free(r);
}

static uint64_t element(const void *p, unsigned elem)
{
    switch (elem) {
    case 1:
        return *(const uint8_t *)p;
    case 2:
        return hsk_get16(p);
    case 4:
        return hsk_get32(p);
    default:
        return hsk_get64(p);
    }
}

static bool get_field(const struct hsk_field *f, const uint8_t *p, uint32_t len, void *state,
                      const char *id, GError **error)
{
    char *dst = (char *)state + f->offset;

    if (len != (uint32_t)f->elem * f->count) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_DAMAGED,
                    "The saved state is damaged: %s.%s has %u bytes instead of %u", id, f->name,
                    len, (uint32_t)f->elem * f->count);
        return false;
    }
    for (uint32_t i = 0; f->max && i < f->count; i++)
        if (element(p + (size_t)i * f->elem, f->elem) > f->max) {
            g_set_error(error, HSK_ERROR, HSK_ERROR_DAMAGED,
                        "The saved state is damaged: %s.%s is out of range", id, f->name);
            return false;
        }
    memcpy(dst, p, len);
    return true;
}

static bool get_fields(const struct section *s, const struct hsk_state_desc *d, void *state,
                       GError **error)
{
    g_autofree bool *seen = g_new0(bool, d->nfields);
    uint32_t off = 0;

    while (off < s->len) {
        uint32_t n = s->payload[off], len, i;

        if (!hsk_range_ok(off + 1, n + 4, s->len))
            return damaged(error, "a field is cut off");
        len = hsk_get32(s->payload + off + 1 + n);
        if (!hsk_range_ok(off + 1 + n + 4, len, s->len))
            return damaged(error, "a field is longer than its section");
        for (i = 0; i < d->nfields; i++)
            if (strlen(d->fields[i].name) == n &&
                memcmp(d->fields[i].name, s->payload + off + 1, n) == 0)
                break;
        if (i == d->nfields || seen[i]) {
            g_set_error(error, HSK_ERROR, HSK_ERROR_DAMAGED,
                        "The saved state is damaged: %s has %s field %.*s", s->id,
                        i == d->nfields ? "an unknown" : "twice the", (int)n,
                        (const char *)s->payload + off + 1);
            return false;
        }
        seen[i] = true;
        if (!get_field(&d->fields[i], s->payload + off + 1 + n + 4, len, state, s->id, error))
            return false;
        off += 1 + n + 4 + len;
    }
    for (uint32_t i = 0; i < d->nfields; i++)
        if (!seen[i] && MAX(d->fields[i].since, 1) <= s->version) {
            g_set_error(error, HSK_ERROR, HSK_ERROR_DAMAGED,
                        "The saved state is damaged: %s.%s is missing", s->id, d->fields[i].name);
            return false;
        }
    return true;
}

bool hsk_state_get(struct hsk_state_reader *r, const char *id, const struct hsk_state_desc *d,
                   void *state, GError **error)
{
    memset(state, 0, d->size);
    for (unsigned i = 0; i < r->nsections; i++) {
        struct section *s = &r->section[i];

        if (strcmp(s->id, id) != 0 || strcmp(id, END_ID) == 0)
            continue;
        if (s->version == 0 || s->version > d->version) {
            g_set_error(
                error, HSK_ERROR, HSK_ERROR_UNSUPPORTED,
                "The state of %s has version %u; this program knows up to %u: use a newer one", id,
                s->version, d->version);
            return false;
        }
        s->used = true;
        return get_fields(s, d, state, error);
    }
    g_set_error(error, HSK_ERROR, HSK_ERROR_DAMAGED,
                "The saved state is damaged: nothing about %s is in it", id);
    return false;
}

bool hsk_state_reader_done(struct hsk_state_reader *r, GError **error)
{
    for (unsigned i = 0; i < r->nsections; i++)
        if (!r->section[i].used) {
            g_set_error(error, HSK_ERROR, HSK_ERROR_DAMAGED,
                        "The saved state has a device that this machine does not have: %s",
                        r->section[i].id);
            return false;
        }
    return true;
}

uint32_t hsk_state_uncovered(const struct hsk_state_desc *d)
{
    g_autofree uint8_t *hits = g_malloc0(MAX(d->size, 1));
    uint32_t bad = 0;

    for (uint32_t i = 0; i < d->nfields; i++)
        for (uint32_t k = 0; k < (uint32_t)d->fields[i].elem * d->fields[i].count; k++)
            if (d->fields[i].offset + k < d->size)
                hits[d->fields[i].offset + k]++;
            else
                bad++;
    for (uint32_t i = 0; i < d->size; i++)
        bad += hits[i] != 1;
    return bad;
}
