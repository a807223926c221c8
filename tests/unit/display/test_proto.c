/* SPDX-License-Identifier: MIT */
/* Messages of the surface protocol: what is refused. */
#include <display/proto.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static struct hsk_display_msg make(uint32_t type)
{
    struct hsk_display_msg m = {.type = type, .size_bytes = hsk_display_msg_size(type)};

    switch (type) {
    case HSK_DISPLAY_HELLO:
        m.hello.magic = HSK_DISPLAY_MAGIC;
        break;
    case HSK_DISPLAY_SURFACE:
        m.surface.width = 640;
        m.surface.height = 400;
        m.surface.stride_bytes = 2560;
        m.surface.format = HSK_DISPLAY_XRGB8888;
        break;
    case HSK_DISPLAY_DIRTY:
        m.dirty.seq = 1;
        m.dirty.count = 1;
        m.dirty.rects[0] = (struct hsk_display_rect){0, 0, 8, 8};
        break;
    case HSK_DISPLAY_STATE:
        m.state.state = HSK_DISPLAY_RUNNING;
        break;
    case HSK_DISPLAY_KEY:
        m.key.code = 30;
        break;
    case HSK_DISPLAY_SIZE_HINT:
        m.size_hint.width = m.size_hint.height = 100;
        break;
    default:
        break;
    }
    return m;
}

static bool ok(const struct hsk_display_msg *m, bool from_machine)
{
    return hsk_display_msg_check(m, m->size_bytes, from_machine);
}

static void each_type_is_accepted_from_its_side_only(void **state)
{
    for (uint32_t type = 0; type < 100; type++) {
        struct hsk_display_msg m = make(type);
        bool known =
            type == HSK_DISPLAY_HELLO || (type >= 16 && type <= 20) || (type >= 64 && type <= 71);

        assert_int_equal(hsk_display_msg_size(type) != 0, known);
        assert_int_equal(ok(&m, true), known && type < 64);
        assert_int_equal(ok(&m, false), known && (type >= 64 || type == HSK_DISPLAY_HELLO));
        if (known) {
            assert_false(hsk_display_msg_check(&m, m.size_bytes - 1, true));
            assert_false(hsk_display_msg_check(&m, m.size_bytes - 1, false));
            m.size_bytes++;
            assert_false(ok(&m, true) || ok(&m, false));
        }
    }
}

static void values_out_of_range_are_refused(void **state)
{
    struct hsk_display_msg m = make(HSK_DISPLAY_DIRTY);

    m.dirty.count = 0;
    assert_false(ok(&m, true));
    m.dirty.count = HSK_DISPLAY_MAX_RECTS + 1;
    assert_false(ok(&m, true));
    m.dirty.count = 1;
    m.dirty.rects[0].width = 0;
    assert_false(ok(&m, true));
    m.dirty.rects[0] = (struct hsk_display_rect){65535, 0, 65535, 1};
    assert_false(ok(&m, true));

    m = make(HSK_DISPLAY_KEY);
    m.key.code = 0;
    assert_false(ok(&m, false));
    m.key.code = HSK_DISPLAY_KEY_MAX + 1;
    assert_false(ok(&m, false));
    m.key.code = 30;
    m.key.down = 2;
    assert_false(ok(&m, false));

    m = make(HSK_DISPLAY_PTR_ABS);
    m.ptr_abs.x = HSK_DISPLAY_ABS_MAX + 1;
    assert_false(ok(&m, false));
    m = make(HSK_DISPLAY_WHEEL);
    m.wheel.clicks_120 = INT32_MIN;
    assert_false(ok(&m, false));
    m = make(HSK_DISPLAY_SIZE_HINT);
    m.size_hint.width = HSK_DISPLAY_MAX_DIM + 1;
    assert_false(ok(&m, false));
    m = make(HSK_DISPLAY_HELLO);
    m.hello.magic ^= 1;
    assert_false(ok(&m, false));
    m = make(HSK_DISPLAY_STATE);
    m.state.state = 3;
    assert_false(ok(&m, true));
}

static void a_picture_must_lie_inside_its_memory(void **state)
{
    const uint32_t f = HSK_DISPLAY_XRGB8888;

    assert_true(hsk_display_surface_ok(640 * 400 * 4, 0, 640, 400, 2560, f));
    assert_false(hsk_display_surface_ok(640 * 400 * 4 - 1, 0, 640, 400, 2560, f));
    assert_false(hsk_display_surface_ok(640 * 400 * 4, 4, 640, 400, 2560, f));
    /* The last line may end with the picture, before its stride does. */
    assert_true(hsk_display_surface_ok(4096 * 9 + 40, 0, 10, 10, 4096, f));
    assert_false(hsk_display_surface_ok(4096 * 9 + 39, 0, 10, 10, 4096, f));
    assert_false(hsk_display_surface_ok(1 << 20, UINT64_MAX - 3, 10, 10, 40, f));
    assert_false(hsk_display_surface_ok(1 << 20, 0, 10, 10, 36, f));
    assert_false(hsk_display_surface_ok(1 << 20, 0, 10, 10, 41, f));
    assert_false(hsk_display_surface_ok(1 << 20, 2, 10, 10, 40, f));
    assert_false(hsk_display_surface_ok(1 << 20, 0, 0, 10, 40, f));
    assert_false(hsk_display_surface_ok(1 << 20, 0, 10, 0, 40, f));
    assert_false(hsk_display_surface_ok(1ull << 30, 0, HSK_DISPLAY_MAX_DIM + 1, 1, 1 << 16, f));
    assert_false(hsk_display_surface_ok(1ull << 30, 0, 10, 10, 40, 2));
    assert_false(hsk_display_surface_ok(HSK_DISPLAY_MAX_BYTES + 1, 0, 10, 10, 40, f));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_type_is_accepted_from_its_side_only),
        cmocka_unit_test(values_out_of_range_are_refused),
        cmocka_unit_test(a_picture_must_lie_inside_its_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
