/* SPDX-License-Identifier: MIT */
/*
 * Numbers of the segment layout that reader and writer share (docs/format.md, "Segment"). No
 * thread, no state.
 */
#pragma once

#include <appliance-format/segment.h>

#include <zstd.h>

#define TABLE_MAGIC       0x184D2A5Au /* skippable frame 10: our frame table */
#define SEEK_MAGIC        0x184D2A5Eu /* skippable frame 14: the seek table of zstd's seekable format */
#define SEEK_FOOTER_MAGIC 0x8F92EAB1u
enum {
    TABLE_HEADER_BYTES = 16,
    TABLE_ENTRY_BYTES = 64,
    SEEK_ENTRY_BYTES = 8,
    SEEK_FOOTER_BYTES = 9
};

/* A hole frame: header with an 8-byte content size and a window of 128 KiB, then one RLE block of
 * zeros per 128 KiB. */
enum { HOLE_HEADER_BYTES = 14, HOLE_BLOCK_BYTES = 131072 };
void hsk_hole_frame_make(uint8_t *out, uint32_t rawsize);
bool hsk_hole_frame_is(const uint8_t *frame, size_t bytes, uint32_t rawsize);
/* 8 + 8 n + 9 bytes */
void hsk_seek_table_make(uint8_t *out, const struct hsk_frame *frames, uint32_t n);
