/* SPDX-License-Identifier: MIT */
/* evdev codes to scan codes of set 1 and set 2. */
#include <linux/input-event-codes.h>
#include <setjmp.h>
#include <stdarg.h>

#include "../../../vmm/devices/keymap.h"

#include <cmocka.h>

static const struct hsk_key_modifiers none, alt = {.alt = true}, ctrl = {.ctrl = true};

static void check(uint16_t code, bool down, unsigned set, struct hsk_key_modifiers mod,
                  const char *hex)
{
    uint8_t out[HSK_SCANCODE_MAX];
    g_autoptr(GString) s = g_string_new(NULL);
    unsigned n = hsk_keymap_scancode(code, down, set, mod, out);

    for (unsigned i = 0; i < n; i++)
        g_string_append_printf(s, i ? " %02x" : "%02x", out[i]);
    assert_string_equal(s->str, hex);
}

static void plain_keys(void **state)
{
    check(KEY_ESC, true, 1, none, "01");
    check(KEY_ESC, true, 2, none, "76");
    check(KEY_A, true, 1, none, "1e");
    check(KEY_A, false, 1, none, "9e");
    check(KEY_A, true, 2, none, "1c");
    check(KEY_A, false, 2, none, "f0 1c");
    check(KEY_F7, true, 2, none, "83");
    check(KEY_F12, true, 1, none, "58");
    check(KEY_F12, true, 2, none, "07");
    check(KEY_102ND, true, 2, none, "61");
    check(KEY_YEN, true, 1, none, "7d");
    check(KEY_RO, true, 1, none, "73");
    check(KEY_SCROLLLOCK, true, 2, none, "7e");
}

static void extended_keys(void **state)
{
    check(KEY_UP, true, 1, none, "e0 48");
    check(KEY_UP, false, 1, none, "e0 c8");
    check(KEY_UP, true, 2, none, "e0 75");
    check(KEY_UP, false, 2, none, "e0 f0 75");
    check(KEY_RIGHTALT, true, 2, none, "e0 11");
    check(KEY_RIGHTCTRL, true, 2, none, "e0 14");
    check(KEY_LEFTMETA, true, 1, none, "e0 5b");
    check(KEY_RIGHTMETA, true, 1, none, "e0 5c");
    check(KEY_COMPOSE, true, 1, none, "e0 5d");
    check(KEY_KPENTER, true, 2, none, "e0 5a");
    check(KEY_DELETE, true, 2, none, "e0 71");
}

static void odd_keys(void **state)
{
    check(KEY_PAUSE, true, 1, none, "e1 1d 45 e1 9d c5");
    check(KEY_PAUSE, true, 2, none, "e1 14 77 e1 f0 14 f0 77");
    check(KEY_PAUSE, false, 1, none, "");
    check(KEY_PAUSE, true, 1, ctrl, "e0 46 e0 c6");
    check(KEY_PAUSE, true, 2, ctrl, "e0 7e e0 f0 7e");
    check(KEY_SYSRQ, true, 1, none, "e0 37");
    check(KEY_SYSRQ, true, 2, none, "e0 7c");
    check(KEY_SYSRQ, true, 1, alt, "54");
    check(KEY_SYSRQ, false, 2, alt, "f0 84");
    check(KEY_HANGEUL, true, 1, none, "f2");
    check(KEY_HANJA, true, 2, none, "f1");
    check(KEY_HANJA, false, 2, none, "");
}

static void keys_without_a_code_give_nothing(void **state)
{
    check(0, true, 1, none, "");
    check(84, true, 2, none, "");
    check(KEY_MACRO, true, 1, none, "");
    check(BTN_LEFT, true, 1, none, "");
    check(0xffff, true, 2, none, "");
}

static void no_two_keys_share_a_code(void **state)
{
    g_autoptr(GHashTable) seen = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);

    for (unsigned set = 1; set <= 2; set++) {
        g_hash_table_remove_all(seen);
        for (uint16_t code = 0; code < 256; code++) {
            uint8_t out[HSK_SCANCODE_MAX + 1] = {0};

            if (hsk_keymap_scancode(code, true, set, none, out))
                assert_true(g_hash_table_add(seen, g_strdup((char *)out)));
        }
        assert_in_range(g_hash_table_size(seen), 120, 160);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain_keys),
        cmocka_unit_test(extended_keys),
        cmocka_unit_test(odd_keys),
        cmocka_unit_test(keys_without_a_code_give_nothing),
        cmocka_unit_test(no_two_keys_share_a_code),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
