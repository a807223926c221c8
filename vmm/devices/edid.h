/* SPDX-License-Identifier: MIT */
/* The description of a monitor that is the window. Private to vmm/. */
#pragma once

#include <base/util.h>

#define HSK_EDID_BYTES 128

/* preferred: the size that a guest should choose by itself; at most 4095 each way. */
void hsk_edid_fill(uint8_t edid[HSK_EDID_BYTES], uint16_t width, uint16_t height);
