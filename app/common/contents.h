/* SPDX-License-Identifier: MIT */
/*
 * What the keeper hands a machine that shall become another version ("become",
 * app/machine/points.c): a memfd as large as memory, with each page at its place by its number
 * (vmm/near.h), of which only those that differ are there; behind them a bitmap of these, behind
 * that the state.
 */
#pragma once

#include <vmm/near.h>

#define HSK_CONTENTS_STATE (256u << 20) /* at most */

static inline uint64_t hsk_contents_bitmap(const struct hsk_near_layout *l)
{
    return l->total * HSK_PAGE_SIZE;
}

static inline uint64_t hsk_contents_state(const struct hsk_near_layout *l)
{
    return hsk_contents_bitmap(l) + l->total / 8;
}

static inline uint64_t hsk_contents_bytes(const struct hsk_near_layout *l)
{
    return hsk_contents_state(l) + HSK_CONTENTS_STATE;
}
