/* SPDX-License-Identifier: MIT */
/* Keyboard controller: the conversation that BIOSes and kernels have with it, keys, the mouse,
 * resets. */
#include <fake-machine.h>
#include <linux/input-event-codes.h>

#include "../../../vmm/devices/devices.h"

struct fixture {
    struct hsk_machine *m;
    struct hsk_dev *dev;
    int kind;
    uint64_t value;
};

static void on_event(void *opaque, enum hsk_event_kind kind, uint64_t value, const char *text)
{
    struct fixture *f = opaque;

    f->kind = (int)kind;
    f->value = value;
}

static int setup(void **state)
{
    struct fixture *f = g_new0(struct fixture, 1);
    struct hsk_machine_config cfg = fake_config();

    f->kind = -1;
    cfg.event = on_event;
    cfg.event_opaque = f;
    f->m = fake_machine_from(&cfg);
    f->dev = hsk_machine_find_dev(f->m, "i8042");
    *state = f;
    return 0;
}
static int teardown(void **state)
{
    struct fixture *f = *state;

    hsk_machine_free(f->m);
    g_free(f);
    return 0;
}

static void command(struct fixture *f, uint8_t value)
{
    out8(f->m, 0x64, value);
}
static void data(struct fixture *f, uint8_t value)
{
    out8(f->m, 0x60, value);
}
static void mouse(struct fixture *f, uint8_t value)
{
    command(f, 0xd4);
    data(f, value);
}
static uint8_t status(struct fixture *f)
{
    return in8(f->m, 0x64);
}
/* All bytes that wait, as text; the mouse's behind a "m". */
static void expect(struct fixture *f, const char *text)
{
    g_autoptr(GString) s = g_string_new(NULL);

    while (status(f) & 1) {
        bool aux = status(f) & 0x20;

        g_string_append_printf(s, "%s%s%02x", s->len ? " " : "", aux ? "m" : "", in8(f->m, 0x60));
    }
    assert_string_equal(s->str, text);
}
static void deliver(struct fixture *f)
{
    hsk_loop_call(hsk_machine_loop(f->m), fake_quit_, hsk_machine_loop(f->m));
    hsk_loop_run(hsk_machine_loop(f->m));
}

static void controller_tests_pass(void **state)
{
    struct fixture *f = *state;

    assert_int_not_equal(status(f), 0xff);
    command(f, 0xaa);
    expect(f, "55");
    command(f, 0xab);
    expect(f, "00");
    command(f, 0xa9);
    expect(f, "00");
    command(f, 0x20);
    expect(f, "65");
    command(f, 0x60);
    data(f, 0x47);
    command(f, 0x20);
    expect(f, "47");
    command(f, 0xa7);
    command(f, 0x20);
    expect(f, "67");
    command(f, 0xd3); /* the loop test by which Linux finds the mouse's port */
    data(f, 0x5a);
    expect(f, "m5a");
    command(f, 0xd2);
    data(f, 0xa5);
    expect(f, "a5");
}

static void keyboard_identifies_itself(void **state)
{
    struct fixture *f = *state;

    data(f, 0xff);
    expect(f, "fa aa");
    data(f, 0xf2);
    expect(f, "fa ab 41");
    command(f, 0x60);
    data(f, 0x05); /* no translation */
    data(f, 0xf2);
    expect(f, "fa ab 83");
    data(f, 0xee);
    expect(f, "ee");
    data(f, 0xf0);
    data(f, 0x00);
    expect(f, "fa fa 02");
    data(f, 0x12);
    expect(f, "fe");
}

static void keys_are_translated_and_interrupt(void **state)
{
    struct fixture *f = *state;

    irq_forget(f->m);
    hsk_i8042_key(f->dev, KEY_A, true);
    assert_true(irq_requested(f->m, 1));
    hsk_i8042_key(f->dev, KEY_A, true); /* the host's repeat */
    hsk_i8042_key(f->dev, KEY_A, false);
    hsk_i8042_key(f->dev, KEY_UP, true);
    hsk_i8042_key(f->dev, KEY_UP, false);
    hsk_i8042_key(f->dev, KEY_B, false); /* never pressed here */
    expect(f, "1e 9e e0 48 e0 c8");
    command(f, 0x60);
    data(f, 0x05);
    hsk_i8042_key(f->dev, KEY_A, true);
    hsk_i8042_key(f->dev, KEY_A, false);
    expect(f, "1c f0 1c");
    data(f, 0xf0);
    data(f, 0x01);
    expect(f, "fa fa");
    hsk_i8042_key(f->dev, KEY_A, true);
    expect(f, "1e");
}

static void every_byte_has_its_edge(void **state)
{
    struct fixture *f = *state;

    hsk_i8042_key(f->dev, KEY_UP, true);
    irq_forget(f->m);
    assert_false(irq_requested(f->m, 1));
    in8(f->m, 0x60); /* the second byte moves in */
    assert_true(irq_requested(f->m, 1));
}

static void release_all_lets_go_of_every_key(void **state)
{
    struct fixture *f = *state;

    hsk_i8042_key(f->dev, KEY_LEFTALT, true);
    hsk_i8042_key(f->dev, KEY_TAB, true);
    hsk_i8042_release_all(f->dev);
    expect(f, "38 0f 8f b8");
    hsk_i8042_release_all(f->dev);
    expect(f, "");
}

static void a_full_queue_keeps_releases(void **state)
{
    struct fixture *f = *state;
    uint8_t last = 0;

    hsk_i8042_key(f->dev, KEY_LEFTSHIFT, true);
    for (int i = 0; i < 500; i++)
        hsk_i8042_key(f->dev, KEY_A, i % 2 == 0);
    hsk_i8042_release_all(f->dev);
    while (status(f) & 1)
        last = in8(f->m, 0x60);
    assert_int_equal(last, 0xaa);
}

static void an_answer_overtakes_keys_without_losing_them(void **state)
{
    struct fixture *f = *state;

    hsk_i8042_key(f->dev, KEY_A, true);
    hsk_i8042_key(f->dev, KEY_A, false);
    command(f, 0x20);
    expect(f, "65 1e 9e");
    hsk_i8042_key(f->dev, KEY_A, true);
    command(f, 0xad); /* keyboard off: what stands in the register stays */
    hsk_i8042_key(f->dev, KEY_A, false);
    expect(f, "1e");
    command(f, 0xae);
    expect(f, "9e");
}

static void lights_are_reported(void **state)
{
    struct fixture *f = *state;

    data(f, 0xed);
    data(f, 0x04);
    expect(f, "fa fa");
    deliver(f);
    assert_int_equal(f->kind, HSK_EVENT_LEDS);
    assert_int_equal(f->value, 4);
}

static void mouse_speaks_three_byte_packets(void **state)
{
    struct fixture *f = *state;

    mouse(f, 0xff);
    expect(f, "mfa maa m00");
    mouse(f, 0xf2);
    expect(f, "mfa m00");
    hsk_i8042_mouse(f->dev, 1, 1, 0, 0); /* nobody listens */
    expect(f, "");
    assert_false(hsk_i8042_mouse_enabled(f->dev));
    mouse(f, 0xf4);
    expect(f, "mfa");
    assert_true(hsk_i8042_mouse_enabled(f->dev));
    command(f, 0x60);
    data(f, 0x47);
    irq_forget(f->m);
    hsk_i8042_mouse(f->dev, 5, -3, 0, 1);
    assert_true(irq_requested(f->m, 12));
    expect(f, "m09 m05 m03");
    hsk_i8042_mouse(f->dev, -2, 4, 1, 0); /* no wheel in this protocol */
    expect(f, "m38 mfe mfc");
    mouse(f, 0xe9);
    expect(f, "mfa m20 m02 m64");
}

static void mouse_learns_the_wheel(void **state)
{
    struct fixture *f = *state;

    for (unsigned i = 0; i < 3; i++) {
        mouse(f, 0xf3);
        mouse(f, (const uint8_t[]){200, 100, 80}[i]);
    }
    expect(f, "mfa mfa mfa mfa mfa mfa");
    mouse(f, 0xf2);
    expect(f, "mfa m03");
    mouse(f, 0xf4);
    expect(f, "mfa");
    hsk_i8042_mouse(f->dev, 0, 0, 2, 2);
    expect(f, "m0a m00 m00 mfe");
}

static void big_motion_is_split_and_a_click_is_not_lost(void **state)
{
    struct fixture *f = *state;

    mouse(f, 0xf4);
    expect(f, "mfa");
    hsk_i8042_mouse(f->dev, 300, 0, 0, 0);
    expect(f, "m08 mff m00 m08 m2d m00");
    hsk_i8042_mouse(f->dev, 0, 0, 0, 1);
    hsk_i8042_mouse(f->dev, 0, 0, 0, 0);
    expect(f, "m09 m00 m00 m08 m00 m00");
}

static void resets_reach_the_owner(void **state)
{
    struct fixture *f = *state;

    command(f, 0xff); /* pulses nothing */
    deliver(f);
    assert_int_equal(f->kind, -1);
    command(f, 0xfe);
    deliver(f);
    assert_int_equal(f->kind, HSK_EVENT_RESET);
    f->kind = -1;
    command(f, 0xd1);
    data(f, 0xdf);
    deliver(f);
    assert_int_equal(f->kind, -1);
    command(f, 0xd1);
    data(f, 0xde);
    deliver(f);
    assert_int_equal(f->kind, HSK_EVENT_RESET);
}

static void impossible_states_are_refused(void **state)
{
    static const struct {
        const char *field;
        uint64_t value;
    } bad[] = {{"dx", 1 << 17},
               {"kbd_set", 0},
               {"config", 0x08},
               {"command", 0x20},
               {"aux_command", 0x01}};
    struct fixture *f = *state;

    assert_true(f->dev->ops->check(f->dev, NULL));
    for (unsigned i = 0; i < G_N_ELEMENTS(bad); i++) {
        hsk_machine_reset(f->m);
        poke_field(f->dev, bad[i].field, 0, bad[i].value);
        assert_false(f->dev->ops->check(f->dev, NULL));
    }
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
int main(void)
{
    const struct CMUnitTest tests[] = {
        T(controller_tests_pass),
        T(keyboard_identifies_itself),
        T(keys_are_translated_and_interrupt),
        T(every_byte_has_its_edge),
        T(release_all_lets_go_of_every_key),
        T(a_full_queue_keeps_releases),
        T(an_answer_overtakes_keys_without_losing_them),
        T(lights_are_reported),
        T(mouse_speaks_three_byte_packets),
        T(mouse_learns_the_wheel),
        T(big_motion_is_split_and_a_click_is_not_lost),
        T(resets_reach_the_owner),
        T(impossible_states_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
