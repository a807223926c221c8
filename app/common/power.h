/* SPDX-License-Identifier: MIT */
/* How much of this computer work in the background may take. */
#pragma once

#include <base/util.h>

/* Is it running on a battery? folder: /sys/class/power_supply. */
bool hsk_on_battery(const char *folder);
