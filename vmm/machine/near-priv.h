/* SPDX-License-Identifier: MIT */
/* What both sides of near versions use: see near-read.c. */
#pragma once

#include <vmm/near.h>

/* Maps a descriptor of at least that size which cannot shrink; NULL + error. */
void *hsk_near_map(int fd, uint64_t bytes, int prot, GError **error);
