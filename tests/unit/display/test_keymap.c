/* SPDX-License-Identifier: MIT */
/* Key names, combinations and characters. */
#include <display/keymap.h>

#include <linux/input-event-codes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void names_are_found_in_any_case(void **state)
{
    assert_int_equal(hsk_key_from_name("delete"), KEY_DELETE);
    assert_int_equal(hsk_key_from_name("F12"), KEY_F12);
    assert_int_equal(hsk_key_from_name("nosuchkey"), 0);
    assert_int_equal(hsk_key_from_name(""), 0);
    assert_string_equal(hsk_key_name(KEY_LEFTCTRL), "ctrl");
    assert_null(hsk_key_name(0x2ff));
}

static void combinations_keep_their_order(void **state)
{
    uint16_t codes[3];

    assert_int_equal(hsk_key_combo("ctrl+alt+delete", codes, 3), 3);
    assert_int_equal(codes[0], KEY_LEFTCTRL);
    assert_int_equal(codes[1], KEY_LEFTALT);
    assert_int_equal(codes[2], KEY_DELETE);
    assert_int_equal(hsk_key_combo("ctrl+alt+shift+a", codes, 3), 0);
    assert_int_equal(hsk_key_combo("ctrl++a", codes, 3), 0);
    assert_int_equal(hsk_key_combo("", codes, 3), 0);
}

static void every_printable_ascii_character_can_be_typed(void **state)
{
    static const struct {
        char ch;
        uint16_t code;
        bool shift;
    } known[] = {
        {'1', KEY_1, false},        {'=', KEY_EQUAL, false},  {'+', KEY_EQUAL, true},
        {'{', KEY_LEFTBRACE, true}, {'~', KEY_GRAVE, true},   {'\'', KEY_APOSTROPHE, false},
        {'|', KEY_BACKSLASH, true}, {'z', KEY_Z, false},      {'?', KEY_SLASH, true},
        {'L', KEY_L, true},         {'\n', KEY_ENTER, false}, {' ', KEY_SPACE, false},
    };
    struct hsk_keystroke k;

    for (uint32_t ch = 0x20; ch < 0x7f; ch++)
        assert_true(hsk_key_from_char(ch, &k));
    for (size_t i = 0; i < G_N_ELEMENTS(known); i++) {
        assert_true(hsk_key_from_char((uint32_t)known[i].ch, &k));
        assert_int_equal(k.code, known[i].code);
        assert_int_equal(k.shift, known[i].shift);
    }
    assert_false(hsk_key_from_char(0, &k));
    assert_false(hsk_key_from_char(0x7f, &k));
    assert_false(hsk_key_from_char(0xe4, &k));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_are_found_in_any_case),
        cmocka_unit_test(combinations_keep_their_order),
        cmocka_unit_test(every_printable_ascii_character_can_be_typed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
