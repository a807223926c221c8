/* SPDX-License-Identifier: MIT */
/*
 * Reading segments (segment.h; docs/format.md, "Segment"; RFC 8878; zstd's
 * contrib/seekable_format).
 *
 * Order of trust: ROOT's hash of the frame table, then bounds of every entry, then the hash of a
 * frame's stored bytes, then the decoder, which gets exactly one frame and a buffer of exactly the
 * promised size. Any thread.
 */
#include <appliance-format/segment.h>

#include <errno.h>
#include <sodium.h>

#include "segment-layout.h"

struct hsk_segment {
    gint refs; /* atomic */
    struct hsk_member m;
    uint32_t number, nframes;
    char *label;
    struct hsk_frame *frames;
};

/* Offset and length of the skippable frame with our table, for n frames; false if the member cannot
 * hold it. */
static bool table_range(uint64_t size, uint32_t n, uint64_t *off, uint64_t *len)
{
    uint64_t seek = 8 + SEEK_ENTRY_BYTES * (uint64_t)n + SEEK_FOOTER_BYTES;
    *len = 8 + TABLE_HEADER_BYTES + TABLE_ENTRY_BYTES * (uint64_t)n;
    if (size > HSK_SEGMENT_MAX_BYTES || n == 0 || n > HSK_SEGMENT_MAX_FRAMES || seek + *len > size)
        return false;
    *off = size - seek - *len;
    return true;
}

/* Frames must fill the range before the table without gaps, in order. */
static bool parse_entries(struct hsk_segment *s, const uint8_t *entries, uint64_t data_end)
{
    uint64_t pos = 0;
    for (uint32_t i = 0; i < s->nframes; i++) {
        const uint8_t *e = entries + (size_t)TABLE_ENTRY_BYTES * i;
        struct hsk_frame *f = &s->frames[i];
        f->offset = hsk_get32(e);
        f->csize = hsk_get32(e + 4);
        f->rawsize = hsk_get32(e + 8);
        f->flags = hsk_get32(e + 12);
        memcpy(f->cid, e + 16, 16);
        memcpy(f->csum, e + 32, 32);
        bool hole = f->flags == HSK_FRAME_HOLE;
        if (f->offset != pos || f->csize == 0 || f->csize > data_end - pos ||
            f->csize > HSK_FRAME_MAX_STORED || f->rawsize == 0 || f->flags > HSK_FRAME_HOLE ||
            f->rawsize > (hole ? HSK_HOLE_MAX_BYTES : HSK_FRAME_MAX_BYTES))
            return false;
        pos += f->csize;
    }
    return pos == data_end;
}

struct hsk_segment *hsk_segment_open(struct hsk_member *m, const struct hsk_segment_id *id,
                                     const char *label, GError **error)
{
    HSK_AUTO(hsk_segment, s) = g_new0(struct hsk_segment, 1);
    s->refs = 1;
    s->m = *m;
    m->fd = -1;
    s->number = id->number;
    s->nframes = id->nframes;
    s->label = g_strdup_printf("segment %06u of %s", id->number, label);
    uint64_t off = 0, len = 0;
    if (!table_range(s->m.size, s->nframes, &off, &len)) {
        hsk_damaged(error, s->label, "its size does not fit its number of frames");
        return NULL;
    }
    g_autofree uint8_t *buf = g_try_malloc(len);
    s->frames = g_try_new0(struct hsk_frame, s->nframes);
    int r = buf == NULL || s->frames == NULL ? -ENOMEM : hsk_member_read(&s->m, off, buf, len);
    if (r < 0) {
        hsk_io_error(error, r, "read %s", s->label);
        return NULL;
    }
    uint8_t hash[HSK_HASH_BYTES];
    hsk_hash(buf + 8, len - 8, hash);
    if (memcmp(hash, id->table_hash, sizeof(hash)) != 0 || hsk_get32(buf) != TABLE_MAGIC ||
        hsk_get32(buf + 4) != len - 8 || memcmp(buf + 8, "HVAFRMT1", 8) != 0 ||
        hsk_get32(buf + 16) != s->number || hsk_get32(buf + 20) != s->nframes ||
        !parse_entries(s, buf + 8 + TABLE_HEADER_BYTES, off)) {
        hsk_damaged(error, s->label, "its frame table is not the one that was written");
        return NULL;
    }
    return g_steal_pointer(&s);
}

struct hsk_segment *hsk_segment_ref(struct hsk_segment *s)
{
    g_atomic_int_inc(&s->refs);
    return s;
}

void hsk_segment_free(struct hsk_segment *s)
{
    if (s == NULL || !g_atomic_int_dec_and_test(&s->refs))
        return;
    hsk_member_close(&s->m);
    g_free(s->frames);
    g_free(s->label);
    g_free(s);
}

uint32_t hsk_segment_nframes(const struct hsk_segment *s)
{
    return s->nframes;
}

const struct hsk_frame *hsk_segment_frame(const struct hsk_segment *s, uint32_t index)
{
    return index < s->nframes ? &s->frames[index] : NULL;
}

uint8_t *hsk_segment_stored(const struct hsk_segment *s, uint32_t index, GError **error)
{
    hsk_assert(index < s->nframes);
    const struct hsk_frame *f = &s->frames[index];
    g_autofree uint8_t *in = g_try_malloc(f->csize);
    int r = in == NULL ? -ENOMEM : hsk_member_read(&s->m, f->offset, in, f->csize);
    if (r < 0) {
        hsk_io_error(error, r, "read %s", s->label);
        return NULL;
    }
    uint8_t hash[HSK_HASH_BYTES];
    hsk_hash(in, f->csize, hash);
    if (memcmp(hash, f->csum, sizeof(hash)) != 0) {
        hsk_damaged(error, s->label, "the bytes of frame %u are not the ones that were written",
                    index);
        return NULL;
    }
    return g_steal_pointer(&in);
}

/* The stored bytes, whose hash fitted, into dst of f->rawsize bytes. */
static bool decode(const struct hsk_segment *s, uint32_t index, const uint8_t *in, void *dst,
                   GError **error)
{
    const struct hsk_frame *f = &s->frames[index];
    /* A hash that fits says who wrote the bytes, not that they mean well. */
    if (f->csize < 4 || hsk_get32(in) != ZSTD_MAGICNUMBER ||
        ZSTD_getFrameContentSize(in, f->csize) != f->rawsize ||
        ZSTD_getDictID_fromFrame(in, f->csize) != 0 ||
        ZSTD_findFrameCompressedSize(in, f->csize) != f->csize)
        return hsk_damaged(error, s->label, "frame %u is not one frame of its size", index);
    size_t n = ZSTD_decompress(dst, f->rawsize, in, f->csize);
    if (ZSTD_isError(n) || n != f->rawsize)
        return hsk_damaged(error, s->label, "frame %u cannot be decoded", index);
    return true;
}

bool hsk_segment_decode_into(const struct hsk_segment *s, uint32_t index, void *dst,
                             size_t dst_bytes, GError **error)
{
    if (index >= s->nframes || s->frames[index].flags == HSK_FRAME_HOLE ||
        s->frames[index].rawsize != dst_bytes)
        return hsk_damaged(error, s->label, "a page map points at a frame that is not there");
    g_autofree uint8_t *in = hsk_segment_stored(s, index, error);
    return in != NULL && decode(s, index, in, dst, error);
}

GBytes *hsk_segment_decode(const struct hsk_segment *s, uint32_t index, GError **error)
{
    size_t n = index < s->nframes ? s->frames[index].rawsize : 0;
    g_autofree void *raw = n <= HSK_FRAME_MAX_BYTES ? g_malloc(n) : NULL;
    if (!hsk_segment_decode_into(s, index, raw, raw == NULL ? 0 : n, error))
        return NULL;
    return g_bytes_new_take(g_steal_pointer(&raw), n);
}

/* One frame in memory: its hash, and that it is what the table says. raw: HSK_FRAME_MAX_BYTES. */
static bool check_frame(const struct hsk_segment *s, uint32_t index, const uint8_t *in,
                        uint8_t *raw, GError **error)
{
    const struct hsk_frame *f = &s->frames[index];
    uint8_t hash[HSK_HASH_BYTES], cid[16];
    hsk_hash(in, f->csize, hash);
    if (memcmp(hash, f->csum, sizeof(hash)) != 0)
        return hsk_damaged(error, s->label,
                           "the bytes of frame %u are not the ones that were "
                           "written",
                           index);
    if (f->flags == HSK_FRAME_HOLE) {
        if (f->rawsize % HSK_PAGE_SIZE != 0 || !hsk_hole_frame_is(in, f->csize, f->rawsize))
            return hsk_damaged(error, s->label, "frame %u is not the hole that it says it is",
                               index);
        return true;
    }
    if (!decode(s, index, in, raw, error))
        return false;
    crypto_generichash(cid, sizeof(cid), raw, f->rawsize, NULL, 0);
    if (memcmp(cid, f->cid, sizeof(cid)) != 0)
        return hsk_damaged(error, s->label, "the content of frame %u is not what its identity says",
                           index);
    return true;
}

/* What lies behind the frames, into the hash; the seek table must agree with ours. */
static bool check_tables(const struct hsk_segment *s, uint64_t frames_end,
                         crypto_generichash_state *st, GError **error)
{
    size_t len = (size_t)(s->m.size - frames_end),
           seek = 8 + SEEK_ENTRY_BYTES * (size_t)s->nframes + SEEK_FOOTER_BYTES;
    g_autofree uint8_t *got = g_malloc(len);
    g_autofree uint8_t *want = g_malloc(seek);
    int r = hsk_member_read(&s->m, frames_end, got, len);
    if (r < 0)
        return hsk_io_error(error, r, "read %s", s->label);
    crypto_generichash_update(st, got, len);
    hsk_seek_table_make(want, s->frames, s->nframes);
    if (memcmp(got + len - seek, want, seek) != 0)
        return hsk_damaged(error, s->label, "its seek table disagrees with its frame table");
    return true;
}

bool hsk_segment_check(const struct hsk_segment *s, const struct hsk_segment_checker *c,
                       uint8_t hash[HSK_HASH_BYTES], GError **error)
{
    crypto_generichash_state st;
    crypto_generichash_init(&st, NULL, 0, HSK_HASH_BYTES);
    g_autoptr(GError) first = NULL;
    g_autofree uint8_t *raw = g_malloc(HSK_FRAME_MAX_BYTES);
    uint64_t end = 0;
    for (uint32_t i = 0; i < s->nframes; i++) {
        const struct hsk_frame *f = &s->frames[i];
        g_autoptr(GError) failed = NULL;
        g_autofree uint8_t *in = g_try_malloc(f->csize);
        int r = in == NULL ? -ENOMEM : hsk_member_read(&s->m, f->offset, in, f->csize);
        if (r < 0)
            hsk_io_error(&failed, r, "read %s", s->label);
        else
            crypto_generichash_update(&st, in, f->csize);
        if (r == 0)
            (void)!check_frame(s, i, in, raw, &failed);
        if (failed != NULL && c->bad != NULL)
            c->bad(c->opaque, i, failed);
        if (failed != NULL && first == NULL)
            first = g_steal_pointer(&failed);
        end = f->offset + (uint64_t)f->csize;
        if (c->step != NULL && !c->step(c->opaque, f->csize))
            return false;
    }
    (void)!check_tables(s, end, &st, first == NULL ? &first : NULL);
    crypto_generichash_final(&st, hash, HSK_HASH_BYTES);
    bool ok = first == NULL;
    if (!ok)
        g_propagate_error(error, g_steal_pointer(&first));
    return ok;
}
