/* SPDX-License-Identifier: MIT */
/* Key codes of the PC keyboard, from Linux evdev codes (linux/input-event-codes.h). Pure functions.
 */
#pragma once

#include <base/util.h>

#define HSK_SCANCODE_MAX 8

/* What the keys held down change about a key's code. */
struct hsk_key_modifiers {
    bool alt, ctrl;
};

/*
 * The bytes that a keyboard in scan code set 1 or 2 sends when evdev key code goes down or up.
 * Returns their number: 0 for keys that a PC keyboard does not have, and for the release of keys
 * that only report being pressed.
 */
unsigned hsk_keymap_scancode(uint16_t code, bool down, unsigned set, struct hsk_key_modifiers mod,
                             uint8_t out[HSK_SCANCODE_MAX]);
