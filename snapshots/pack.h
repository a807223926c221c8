/* SPDX-License-Identifier: MIT */
/*
 * Pages on their way into a version: zero test, deduplication, packing into frames.
 *
 * Threads: one.
 */
#pragma once

#include "content.h"

/* Where a page with a given content was stored lately. 8 MiB of memory for half a million pages;
   newer ones take the place of others. It may know pages that are gone, and its keys can collide:
   every hit is read and compared byte by byte. */
struct hsk_index;
struct hsk_index *hsk_index_new(void);
void hsk_index_free(struct hsk_index *index);
HSK_DEFINE_AUTO(hsk_index, hsk_index_free)

struct hsk_pack;
/* All borrowed until free. */
struct hsk_pack *hsk_pack_new(struct hsk_content *content, struct hsk_index *index,
                              struct hsk_segment_writer *writer);
void hsk_pack_free(struct hsk_pack *p);
HSK_DEFINE_AUTO(hsk_pack, hsk_pack_free)
/* Sets the page in map, now or at the next flush. */
bool hsk_pack_page(struct hsk_pack *p, struct hsk_pagemap *map, uint64_t page, const uint8_t *src,
                   GError **error);
/* Writes out what waits; call it before a map is used or freed. */
bool hsk_pack_flush(struct hsk_pack *p, GError **error);
/* Bytes as frames of their own. */
bool hsk_pack_blob(struct hsk_segment_writer *writer, const void *data, size_t bytes,
                   struct hsk_blob *out, GError **error);
bool hsk_page_is_zero(const uint8_t *page);
