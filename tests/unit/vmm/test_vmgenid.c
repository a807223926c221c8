/* SPDX-License-Identifier: MIT */
/* The generation id: where the guest finds it, when it changes, and how the guest hears of it. */
#include <fake-machine.h>

#define GPE_STATUS (HSK_PMBASE + 12)
#define GPE_ENABLE (HSK_PMBASE + 13)
#define GPE_5      0x20

static const uint8_t first[HSK_GENERATION_BYTES] = "first generation",
                     second[HSK_GENERATION_BYTES] = "and another one.";

static struct hsk_machine *make(void)
{
    struct hsk_machine_config cfg = fake_config();

    memcpy(cfg.generation, first, sizeof(first));
    return fake_machine_from(&cfg);
}

static void assert_id(struct hsk_machine *m, const uint8_t *id)
{
    uint8_t now[HSK_GENERATION_BYTES];

    assert_true(hsk_ram_read(hsk_machine_ram(m), HSK_VMGENID_GPA, now, sizeof(now)));
    assert_memory_equal(now, id, sizeof(now));
}

static void is_in_memory_before_the_guest_runs(void **state)
{
    struct hsk_machine *m = make();

    run_for_ms(m, 1);
    assert_id(m, first);
    assert_true(hsk_ram_write(hsk_machine_ram(m), HSK_VMGENID_GPA, second, sizeof(second)));
    run_for_ms(m, 1);
    assert_id(m, first);
    hsk_machine_free(m);
}

static void the_same_line_goes_on_quietly(void **state)
{
    struct hsk_machine *m = make();
    g_autoptr(GError) error = NULL;
    g_autoptr(GBytes) saved = hsk_machine_save(m);

    assert_true(hsk_machine_load(m, saved, &error));
    hsk_machine_set_generation(m, first);
    run_for_ms(m, 1);
    assert_id(m, first);
    assert_int_equal(in8(m, GPE_STATUS), 0);
    hsk_machine_free(m);
}

static void another_generation_is_announced(void **state)
{
    struct hsk_machine *m = make();
    g_autoptr(GError) error = NULL;

    out8(m, GPE_ENABLE, GPE_5);
    irq_forget(m);
    g_autoptr(GBytes) saved = hsk_machine_save(m);
    assert_true(hsk_machine_load(m, saved, &error));
    hsk_machine_set_generation(m, second);
    run_for_ms(m, 1);
    assert_id(m, second);
    assert_int_equal(in8(m, GPE_STATUS), GPE_5);
    assert_true(irq_requested(m, 9));
    out8(m, GPE_STATUS, GPE_5);
    assert_int_equal(in8(m, GPE_STATUS), 0);
    assert_int_equal(in8(m, GPE_ENABLE), GPE_5);
    /* power-on keeps it */
    hsk_machine_reset(m);
    run_for_ms(m, 1);
    assert_id(m, second);
    assert_int_equal(in8(m, GPE_STATUS) | in8(m, GPE_ENABLE), 0);
    hsk_machine_free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(is_in_memory_before_the_guest_runs),
        cmocka_unit_test(the_same_line_goes_on_quietly),
        cmocka_unit_test(another_generation_is_announced),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
