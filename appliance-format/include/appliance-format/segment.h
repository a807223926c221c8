/* SPDX-License-Identifier: MIT */
/*
 * Segments: zstd frames back to back, our frame table and the standard seek table, each in a
 * skippable frame (docs/format.md, "Segment"). Reading checks the hash of the stored bytes before
 * the decoder sees them.
 *
 * Threads: an open segment is constant, frames may be decoded from any thread. A writer belongs to
 * one thread.
 */
#pragma once

#include <appliance-format/carrier.h>

#define HSK_SEGMENT_TARGET_BYTES (64u << 20)
#define HSK_SEGMENT_MAX_BYTES    (256u << 20)
#define HSK_SEGMENT_MAX_FRAMES   (1u << 20)
#define HSK_FRAME_MAX_BYTES      (256u << 10) /* raw size of a frame with content */
#define HSK_FRAME_MAX_STORED     (260u << 10) /* what does not shrink grows a little */
#define HSK_HOLE_MAX_BYTES       (1u << 30)

enum hsk_frame_flags { HSK_FRAME_HOLE = 1 };

struct hsk_frame {
    uint32_t offset, csize, rawsize, flags;
    uint8_t cid[16];  /* BLAKE2b-128 of the content */
    uint8_t csum[32]; /* BLAKE2b-256 of the stored bytes */
};

/* What ROOT says of a segment. */
struct hsk_segment_id {
    uint32_t number, nframes;
    uint8_t table_hash[HSK_HASH_BYTES];
};

struct hsk_segment;
/* Takes m (also on failure). Reads and checks the frame table. */
struct hsk_segment *hsk_segment_open(struct hsk_member *m, const struct hsk_segment_id *id,
                                     const char *label, GError **error);
struct hsk_segment *hsk_segment_ref(struct hsk_segment *s);
/* Gives one reference back; with the last one the member is closed. */
void hsk_segment_free(struct hsk_segment *s);
HSK_DEFINE_AUTO(hsk_segment, hsk_segment_free)
uint32_t hsk_segment_nframes(const struct hsk_segment *s);
const struct hsk_frame *hsk_segment_frame(const struct hsk_segment *s,
                                          uint32_t index); /* NULL: no such frame */
/* The content of a frame that is not a hole. */
GBytes *hsk_segment_decode(const struct hsk_segment *s, uint32_t index, GError **error);
/* Decodes into dst, whose size must be the frame's rawsize. */
bool hsk_segment_decode_into(const struct hsk_segment *s, uint32_t index, void *dst,
                             size_t dst_bytes, GError **error);
/* The stored bytes of a frame, csize of them, checked. */
uint8_t *hsk_segment_stored(const struct hsk_segment *s, uint32_t index, GError **error);
/* Everything a reader can check, in one pass: every frame, its content id, the seek table. bad is
 * told of each frame that is damaged; hash is that of all bytes. step (may be NULL) is told of bytes
 * as they are done; false from it ends the check (false without error). */
struct hsk_segment_checker {
    void (*bad)(void *opaque, uint32_t frame, const GError *error);
    bool (*step)(void *opaque, uint64_t bytes);
    void *opaque;
};
bool hsk_segment_check(const struct hsk_segment *s, const struct hsk_segment_checker *c,
                       uint8_t hash[HSK_HASH_BYTES], GError **error);

/* ---- writing ---- */

struct hsk_segment_writer;
/* Called for each segment that is finished: its name, identity and the hash of the whole member. */
typedef void (*hsk_segment_done_fn)(void *opaque, const char *name, const struct hsk_segment_id *id,
                                    const uint8_t hash[HSK_HASH_BYTES]);
/* Members are called <folder>/NNNNNN.zst with numbers from *next_number on. All borrowed until
 * free. */
struct hsk_segment_writer *hsk_segment_writer_new(struct hsk_sink *sink, const char *folder,
                                                  int level, uint32_t *next_number,
                                                  hsk_segment_done_fn done, void *opaque);
void hsk_segment_writer_free(struct hsk_segment_writer *w);
HSK_DEFINE_AUTO(hsk_segment_writer, hsk_segment_writer_free)
/* Compresses one frame of at most HSK_FRAME_MAX_BYTES; tells where it is. */
bool hsk_segment_writer_add(struct hsk_segment_writer *w, const void *raw, size_t bytes,
                            uint32_t *segment, uint32_t *frame, GError **error);
size_t hsk_hole_frame_bytes(uint32_t rawsize); /* what a hole of that size takes */
/* A frame of zeros, a multiple of 4096 and at most HSK_HOLE_MAX_BYTES. */
bool hsk_segment_writer_add_hole(struct hsk_segment_writer *w, uint32_t bytes, GError **error);
/* A frame as it is stored elsewhere, read by hsk_segment_stored. */
bool hsk_segment_writer_add_stored(struct hsk_segment_writer *w, const void *stored,
                                   const struct hsk_frame *f, uint32_t *segment, uint32_t *frame,
                                   GError **error);
/* Reads back a frame with content of the segment that is being written: false if it is of another
 * one or cannot be read. dst has room for HSK_FRAME_MAX_BYTES. */
bool hsk_segment_writer_decode(const struct hsk_segment_writer *w, uint32_t segment, uint32_t frame,
                               void *dst, size_t *bytes);
/* Ends the open segment, if any. */
bool hsk_segment_writer_finish(struct hsk_segment_writer *w, GError **error);
uint64_t hsk_segment_writer_bytes(const struct hsk_segment_writer *w); /* written so far */
