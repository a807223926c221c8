/* SPDX-License-Identifier: MIT */
/*
 * Writing segments (segment.h; docs/format.md, "Segment"). A member begins with its first frame, so
 * nothing to write is nothing written; it ends at about 64 MiB. One thread.
 */
#include <inttypes.h>
#include <sodium.h>
#include <stdio.h>

#include "segment-layout.h"

struct hsk_segment_writer {
    struct hsk_sink *sink;
    char *folder;
    int level;
    uint32_t *next_number;
    hsk_segment_done_fn done;
    void *opaque;
    ZSTD_CCtx *cctx;
    uint8_t *out; /* one compressed frame */
    size_t out_bytes;
    /* the open member */
    bool open;
    char name[64];
    uint32_t number;
    int fd;
    uint64_t base, size;
    GArray *frames; /* struct hsk_frame */
    crypto_generichash_state *hash;
    uint64_t total;
};

size_t hsk_hole_frame_bytes(uint32_t rawsize)
{
    size_t blocks = ((size_t)rawsize + HOLE_BLOCK_BYTES - 1) / HOLE_BLOCK_BYTES;
    return HOLE_HEADER_BYTES + 4 * blocks;
}

/* RFC 8878, 3.1.1: magic, descriptor 0xC0 (8-byte content size, window given), window descriptor
 * 0x38 (128 KiB). */
void hsk_hole_frame_make(uint8_t *out, uint32_t rawsize)
{
    static const uint8_t magic[] = {0x28, 0xB5, 0x2F, 0xFD, 0xC0, 0x38};
    memcpy(out, magic, sizeof(magic));
    hsk_put64(out + sizeof(magic), rawsize);
    uint8_t *p = out + HOLE_HEADER_BYTES;
    while (rawsize > 0) {
        uint32_t n = MIN(rawsize, HOLE_BLOCK_BYTES);
        rawsize -= n;
        hsk_put32(p, n << 3 | 1u << 1 |
                         (rawsize == 0 ? 1u : 0u)); /* 3 bytes of block header, then the byte 0 */
        p[3] = 0;
        p += 4;
    }
}

bool hsk_hole_frame_is(const uint8_t *frame, size_t bytes, uint32_t rawsize)
{
    if (bytes != hsk_hole_frame_bytes(rawsize))
        return false;
    g_autofree uint8_t *want = g_malloc(bytes);
    hsk_hole_frame_make(want, rawsize);
    return memcmp(want, frame, bytes) == 0;
}

void hsk_seek_table_make(uint8_t *out, const struct hsk_frame *frames, uint32_t n)
{
    hsk_put32(out, SEEK_MAGIC);
    hsk_put32(out + 4, SEEK_ENTRY_BYTES * n + SEEK_FOOTER_BYTES);
    uint8_t *p = out + 8;
    for (uint32_t i = 0; i < n; i++, p += SEEK_ENTRY_BYTES) {
        hsk_put32(p, frames[i].csize);
        hsk_put32(p + 4, frames[i].rawsize);
    }
    hsk_put32(p, n);
    p[4] = 0;
    hsk_put32(p + 5, SEEK_FOOTER_MAGIC);
}

struct hsk_segment_writer *hsk_segment_writer_new(struct hsk_sink *sink, const char *folder,
                                                  int level, uint32_t *next_number,
                                                  hsk_segment_done_fn done, void *opaque)
{
    struct hsk_segment_writer *w = g_new0(struct hsk_segment_writer, 1);
    *w = (struct hsk_segment_writer){.sink = sink,
                                     .folder = g_strdup(folder),
                                     .level = level,
                                     .next_number = next_number,
                                     .done = done,
                                     .opaque = opaque,
                                     .cctx = ZSTD_createCCtx(),
                                     .fd = -1};
    w->out_bytes =
        MAX(ZSTD_compressBound(HSK_FRAME_MAX_BYTES), hsk_hole_frame_bytes(HSK_HOLE_MAX_BYTES));
    w->out = g_malloc(w->out_bytes);
    w->frames = g_array_new(FALSE, FALSE, sizeof(struct hsk_frame));
    w->hash = g_aligned_alloc(1, sizeof(*w->hash), 64);
    hsk_assert(w->cctx != NULL);
    ZSTD_CCtx_setParameter(w->cctx, ZSTD_c_compressionLevel, level);
    ZSTD_CCtx_setParameter(w->cctx, ZSTD_c_checksumFlag, 1);
    return w;
}

void hsk_segment_writer_free(struct hsk_segment_writer *w)
{
    if (w == NULL)
        return;
    ZSTD_freeCCtx(w->cctx);
    g_aligned_free(w->hash);
    g_array_unref(w->frames);
    g_free(w->out);
    g_free(w->folder);
    g_free(w);
}

static bool put(struct hsk_segment_writer *w, const void *buf, size_t len, GError **error)
{
    int r = hsk_io_pwrite(w->sink->io, w->fd, buf, len, w->base + w->size);
    if (r < 0)
        return hsk_io_error(error, r, "write %s in %s", w->name, w->sink->label);
    crypto_generichash_update(w->hash, buf, len);
    w->size += len;
    w->total += len;
    return true;
}

/* Appends w->out[0..csize) as a frame. */
static bool put_frame(struct hsk_segment_writer *w, size_t csize, uint32_t rawsize, uint32_t flags,
                      const uint8_t *cid, GError **error)
{
    if (w->open &&
        (w->size + csize > HSK_SEGMENT_TARGET_BYTES || w->frames->len == HSK_SEGMENT_MAX_FRAMES) &&
        !hsk_segment_writer_finish(w, error))
        return false;
    if (!w->open) {
        w->number = (*w->next_number)++;
        snprintf(w->name, sizeof(w->name), "%s/%06u.zst", w->folder, w->number);
        if (!w->sink->begin(w->sink, w->name, &w->fd, &w->base, error))
            return false;
        w->open = true;
        w->size = 0;
        g_array_set_size(w->frames, 0);
        crypto_generichash_init(w->hash, NULL, 0, HSK_HASH_BYTES);
    }
    struct hsk_frame f = {
        .offset = (uint32_t)w->size, .csize = (uint32_t)csize, .rawsize = rawsize, .flags = flags};
    memcpy(f.cid, cid, sizeof(f.cid));
    hsk_hash(w->out, csize, f.csum);
    if (!put(w, w->out, csize, error))
        return false;
    g_array_append_val(w->frames, f);
    return true;
}

bool hsk_segment_writer_add(struct hsk_segment_writer *w, const void *raw, size_t bytes,
                            uint32_t *segment, uint32_t *frame, GError **error)
{
    hsk_assert(bytes > 0 && bytes <= HSK_FRAME_MAX_BYTES);
    size_t n = ZSTD_compress2(w->cctx, w->out, w->out_bytes, raw, bytes);
    hsk_assert(!ZSTD_isError(n));
    uint8_t cid[16];
    crypto_generichash(cid, sizeof(cid), raw, bytes, NULL, 0);
    if (!put_frame(w, n, (uint32_t)bytes, 0, cid, error))
        return false;
    *segment = w->number;
    *frame = w->frames->len - 1;
    return true;
}

bool hsk_segment_writer_add_stored(struct hsk_segment_writer *w, const void *stored,
                                   const struct hsk_frame *f, uint32_t *segment, uint32_t *frame,
                                   GError **error)
{
    hsk_assert(f->csize <= w->out_bytes);
    memcpy(w->out, stored, f->csize);
    if (!put_frame(w, f->csize, f->rawsize, f->flags, f->cid, error))
        return false;
    *segment = w->number;
    *frame = w->frames->len - 1;
    return true;
}

bool hsk_segment_writer_decode(const struct hsk_segment_writer *w, uint32_t segment, uint32_t frame,
                               void *dst, size_t *bytes)
{
    if (!w->open || segment != w->number || frame >= w->frames->len)
        return false;
    const struct hsk_frame *f = &g_array_index(w->frames, struct hsk_frame, frame);
    g_autofree uint8_t *in = g_malloc(f->csize);
    *bytes = f->rawsize;
    return f->flags == 0 && hsk_pread_all(w->fd, in, f->csize, w->base + f->offset) == 0 &&
           ZSTD_decompress(dst, HSK_FRAME_MAX_BYTES, in, f->csize) == f->rawsize;
}

bool hsk_segment_writer_add_hole(struct hsk_segment_writer *w, uint32_t bytes, GError **error)
{
    static const uint8_t no_cid[16];
    hsk_assert(bytes > 0 && bytes <= HSK_HOLE_MAX_BYTES && bytes % HSK_PAGE_SIZE == 0);
    hsk_hole_frame_make(w->out, bytes);
    return put_frame(w, hsk_hole_frame_bytes(bytes), bytes, HSK_FRAME_HOLE, no_cid, error);
}

bool hsk_segment_writer_finish(struct hsk_segment_writer *w, GError **error)
{
    if (!w->open)
        return true;
    uint32_t n = w->frames->len;
    const struct hsk_frame *frames = (const struct hsk_frame *)(void *)w->frames->data;
    size_t table = TABLE_HEADER_BYTES + (size_t)TABLE_ENTRY_BYTES * n;
    size_t seek = 8 + (size_t)SEEK_ENTRY_BYTES * n + SEEK_FOOTER_BYTES;
    g_autofree uint8_t *buf = g_malloc0(8 + table + seek);
    hsk_put32(buf, TABLE_MAGIC);
    hsk_put32(buf + 4, (uint32_t)table);
    memcpy(buf + 8, "HVAFRMT1", 8);
    hsk_put32(buf + 16, w->number);
    hsk_put32(buf + 20, n);
    for (uint32_t i = 0; i < n; i++) {
        uint8_t *e = buf + 8 + TABLE_HEADER_BYTES + (size_t)TABLE_ENTRY_BYTES * i;
        hsk_put32(e, frames[i].offset);
        hsk_put32(e + 4, frames[i].csize);
        hsk_put32(e + 8, frames[i].rawsize);
        hsk_put32(e + 12, frames[i].flags);
        memcpy(e + 16, frames[i].cid, 16);
        memcpy(e + 32, frames[i].csum, 32);
    }
    hsk_seek_table_make(buf + 8 + table, frames, n);
    if (!put(w, buf, 8 + table + seek, error) || !w->sink->end(w->sink, w->size, error))
        return false;
    struct hsk_segment_id id = {.number = w->number, .nframes = n};
    hsk_hash(buf + 8, table, id.table_hash);
    uint8_t hash[HSK_HASH_BYTES];
    crypto_generichash_final(w->hash, hash, sizeof(hash));
    w->open = false;
    w->done(w->opaque, w->name, &id, hash);
    return true;
}

uint64_t hsk_segment_writer_bytes(const struct hsk_segment_writer *w)
{
    return w->total;
}
