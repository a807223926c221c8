/* SPDX-License-Identifier: MIT */
/* Names and characters to Linux evdev key codes, for `hva key`, `hva type` and the host key. No
 * state, any thread. */
#pragma once

#include <base/util.h>

/* "ctrl", "a", "f5", "delete", "kp_enter"... (case does not matter), or 0. */
uint16_t hsk_key_from_name(const char *name);
/* The first name of a code, or NULL. */
const char *hsk_key_name(uint16_t code);
/* "ctrl+alt+delete" to codes in the order given. Returns the count, 0 if a name is unknown or there
 * are more than max. */
unsigned hsk_key_combo(const char *combo, uint16_t *codes, unsigned max);

struct hsk_keystroke {
    uint16_t code;
    bool shift;
};
/* A character of the US layout (printable ASCII, \n, \t, \b, ESC). false: not on that keyboard. */
bool hsk_key_from_char(uint32_t ch, struct hsk_keystroke *out);
