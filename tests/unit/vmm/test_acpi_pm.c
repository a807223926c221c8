/* SPDX-License-Identifier: MIT */
/* ACPI fixed hardware, the reset register and the debug-exit port: what they count, raise and tell
 * the owner. */
#include <fake-machine.h>

#include "../../../vmm/devices/devices.h"

struct fixture {
    struct hsk_machine *m;
    int kind; /* last event, -1 = none */
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

static uint16_t in16(struct hsk_machine *m, uint16_t port)
{
    uint64_t v;

    hsk_bus_read(hsk_machine_pio(m), port, 2, &v);
    return (uint16_t)v;
}
static void out16(struct hsk_machine *m, uint16_t port, uint16_t value)
{
    hsk_bus_write(hsk_machine_pio(m), port, 2, value);
}
static uint32_t pm_timer(struct hsk_machine *m)
{
    uint64_t v;

    hsk_bus_read(hsk_machine_pio(m), HSK_PMBASE + 8, 4, &v);
    return (uint32_t)v;
}
/* Lets the loop deliver what was posted. */
static void deliver(struct fixture *f)
{
    hsk_loop_call(hsk_machine_loop(f->m), fake_quit_, hsk_machine_loop(f->m));
    hsk_loop_run(hsk_machine_loop(f->m));
}
static bool sci(struct fixture *f)
{
    irq_forget(f->m);
    out8(f->m, 0x4d1, 0x02); /* GSI 9 as a level */
    return irq_requested(f->m, 9);
}

static void timer_counts_24_bits(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(pm_timer(f->m), 0);
    set_time_ns(f->m, 1000000000);
    assert_int_equal(pm_timer(f->m), 3579545);
    set_time_ns(f->m, 5000000000);
    assert_int_equal(pm_timer(f->m), 5 * 3579545 - (1 << 24));
}

static void carry_sets_status_and_interrupts_if_enabled(void **state)
{
    struct fixture *f = *state;

    set_time_ns(f->m, 2343000000);
    assert_int_equal(in16(f->m, HSK_PMBASE) & 1, 0);
    out16(f->m, HSK_PMBASE + 2, 1);
    assert_false(sci(f));
    run_for_ms(f->m, 20); /* bit 23 changes at 2.3435 s */
    assert_true(sci(f));
    assert_int_equal(in16(f->m, HSK_PMBASE) & 1, 1);
    out16(f->m, HSK_PMBASE, 1);
    assert_false(sci(f));
    assert_int_equal(in16(f->m, HSK_PMBASE) & 1, 0);
}

static void power_button_raises_the_sci(void **state)
{
    struct fixture *f = *state;

    hsk_machine_power_button(f->m);
    assert_int_equal(in16(f->m, HSK_PMBASE), 0x100);
    assert_false(sci(f));
    out16(f->m, HSK_PMBASE + 2, 0x100);
    assert_true(sci(f));
    out8(f->m, HSK_PMBASE + 1, 0x01); /* the high byte alone */
    assert_int_equal(in16(f->m, HSK_PMBASE), 0);
    assert_false(sci(f));
    assert_int_equal(in16(f->m, HSK_PMBASE + 2), 0x100);
}

static void sleep_enable_powers_off(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(in16(f->m, HSK_PMBASE + 4), 1); /* always ACPI mode */
    out16(f->m, HSK_PMBASE + 4, 5 << 10);
    deliver(f);
    assert_int_equal(f->kind, -1);
    out16(f->m, HSK_PMBASE + 4, 5 << 10 | 1 << 13);
    deliver(f);
    assert_int_equal(f->kind, HSK_EVENT_POWEROFF);
    assert_int_equal(in16(f->m, HSK_PMBASE + 4), 5 << 10 | 1);
}

static void reset_register_resets_on_the_rising_bit(void **state)
{
    struct fixture *f = *state;
    struct hsk_dev *pm = hsk_machine_find_dev(f->m, "acpi-pm");

    hsk_acpi_pm_reset_write(pm, 0x02);
    deliver(f);
    assert_int_equal(f->kind, -1);
    hsk_acpi_pm_reset_write(pm, 0x06);
    deliver(f);
    assert_int_equal(f->kind, HSK_EVENT_RESET);
    assert_int_equal(hsk_acpi_pm_reset_read(pm), 0x06);
}

static void debug_exit_tells_its_value(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(in8(f->m, HSK_DEBUG_EXIT_PORT), 0);
    hsk_bus_write(hsk_machine_pio(f->m), HSK_DEBUG_EXIT_PORT, 4, 0x12345);
    deliver(f);
    assert_int_equal(f->kind, HSK_EVENT_DEBUG_EXIT);
    assert_int_equal(f->value, 0x12345);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
int main(void)
{
    const struct CMUnitTest tests[] = {
        T(timer_counts_24_bits),
        T(carry_sets_status_and_interrupts_if_enabled),
        T(power_button_raises_the_sci),
        T(sleep_enable_powers_off),
        T(reset_register_resets_on_the_rising_bit),
        T(debug_exit_tells_its_value),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
