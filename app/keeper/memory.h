/* SPDX-License-Identifier: MIT */
/* Guest memory objects as the keeper makes them for a machine process. */
#pragma once

#include "child.h"

/* Makes an object of zeros ("ram", "vram") and hands it and its attributes to the machine; the keeper keeps nothing of it. */
bool hsk_memory_give_new(struct hsk_child *c, const char *name, uint64_t size_bytes, GError **error);
