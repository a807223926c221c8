/* SPDX-License-Identifier: MIT */
/* Local APIC: priorities, EOI, IPIs and message routing, x2APIC transitions, the three timer modes.
 */
#include <fake-machine.h>

#define REG(m, r)    mmio_read32(m, HSK_LAPIC_BASE + (r))
#define SET(m, r, v) mmio_write32(m, HSK_LAPIC_BASE + (r), v)
#define APIC_BASE    (HSK_LAPIC_BASE | 0x900)
#define X2APIC       0x400u

static int setup(void **state)
{
    struct hsk_machine *m = fake_machine_new();

    for (unsigned i = 0; i < 2; i++) {
        hsk_lapic_bind_thread(hsk_machine_lapic(m, i));
        SET(m, 0xf0, 0x1ff);
        SET(m, 0xd0, 1u << (24 + i)); /* logical ids 1 and 2 */
    }
    hsk_lapic_bind_thread(hsk_machine_lapic(m, 0));
    *state = m;
    return 0;
}

static int teardown(void **state)
{
    hsk_lapic_bind_thread(NULL);
    hsk_machine_free(*state);
    return 0;
}

static void power_on_values(void **state)
{
    struct hsk_machine *m = *state;

    hsk_machine_reset(m);
    assert_int_equal(REG(m, 0x20), 0);
    assert_int_equal(REG(m, 0x30), 0x50014);
    assert_int_equal(REG(m, 0xf0), 0xff);
    assert_int_equal(REG(m, 0xe0), 0xffffffff);
    assert_int_equal(REG(m, 0x320), 0x10000);
    assert_int_equal(hsk_lapic_get_base(hsk_machine_lapic(m, 0)), APIC_BASE);
    assert_int_equal(hsk_lapic_get_base(hsk_machine_lapic(m, 1)), APIC_BASE & ~0x100ull);
    hsk_lapic_bind_thread(hsk_machine_lapic(m, 1));
    assert_int_equal(REG(m, 0x20), 1u << 24);
}

static void higher_vector_first_and_eoi_reveals_the_lower(void **state)
{
    struct hsk_machine *m = *state;
    struct hsk_lapic *l = hsk_machine_lapic(m, 0);

    SET(m, 0x300, 0x40041); /* self */
    SET(m, 0x300, 0x40062);
    assert_int_equal(hsk_lapic_pending(l), HSK_LAPIC_INTR);
    assert_int_equal(hsk_lapic_ack(l), 0x62);
    assert_int_equal(REG(m, 0xa0), 0x60);
    assert_int_equal(hsk_lapic_pending(l), 0);
    assert_int_equal(hsk_lapic_ack(l), -1);
    SET(m, 0x300, 0x40071); /* interrupts the handler of 0x62 */
    assert_int_equal(hsk_lapic_ack(l), 0x71);
    SET(m, 0xb0, 0);
    assert_int_equal(hsk_lapic_pending(l), 0);
    SET(m, 0xb0, 0);
    assert_int_equal(hsk_lapic_ack(l), 0x41);
    SET(m, 0xb0, 0);
    assert_int_equal(REG(m, 0x120), 0);
}

static void task_priority_holds_back(void **state)
{
    struct hsk_machine *m = *state;
    struct hsk_lapic *l = hsk_machine_lapic(m, 0);

    hsk_lapic_set_cr8(l, 5);
    assert_int_equal(REG(m, 0x80), 0x50);
    SET(m, 0x300, 0x40055);
    assert_int_equal(hsk_lapic_pending(l), 0);
    hsk_lapic_set_cr8(l, 4);
    assert_int_equal(hsk_lapic_pending(l), HSK_LAPIC_INTR);
    SET(m, 0x80, 0x33);
    assert_int_equal(hsk_lapic_get_cr8(l), 3);
}

static void messages_find_their_target(void **state)
{
    struct hsk_machine *m = *state;
    struct hsk_lapic *a = hsk_machine_lapic(m, 0), *b = hsk_machine_lapic(m, 1);

    hsk_msi_send(m, 0xfee01000, 0x51); /* physical 1 */
    assert_int_equal(hsk_lapic_ack(a), -1);
    assert_int_equal(hsk_lapic_ack(b), 0x51);
    hsk_msi_send(m, 0xfee03004, 0x61); /* logical, both */
    assert_int_equal(hsk_lapic_ack(a), 0x61);
    assert_int_equal(hsk_lapic_ack(b), 0x61);
    hsk_msi_send(m, 0xfeeff000, 0x71); /* broadcast */
    assert_int_equal(hsk_lapic_ack(a), 0x71);
    assert_int_equal(hsk_lapic_ack(b), 0x71);
    hsk_lapic_set_cr8(a, 9);
    hsk_msi_send(m, 0xfee03004, 0x181); /* lowest priority: b is the less busy */
    assert_int_equal(hsk_lapic_pending(a), 0);
    assert_int_equal(hsk_lapic_ack(b), 0x81);
    hsk_msi_send(m, 0xfed00000, 0x91); /* no interrupt address */
    hsk_msi_send(m, 0xfee05000, 0x91); /* nobody */
    hsk_msi_send(m, 0xfee01000, 0x05); /* illegal vector */
    assert_int_equal(hsk_lapic_ack(b), -1);
    hsk_lapic_bind_thread(b);
    SET(m, 0x280, 0);
    assert_int_equal(REG(m, 0x280), 0x40);
}

static void init_and_sipi_reach_the_other_processor(void **state)
{
    struct hsk_machine *m = *state;
    struct hsk_lapic *a = hsk_machine_lapic(m, 0), *b = hsk_machine_lapic(m, 1);
    uint8_t vector = 0;

    SET(m, 0x310, 1u << 24);
    SET(m, 0x300, 0xc500); /* INIT assert */
    SET(m, 0x300, 0x8500); /* de-assert: nothing */
    assert_int_equal(hsk_lapic_pending(b), HSK_LAPIC_INIT);
    SET(m, 0x300, 0x469a); /* SIPI 0x9a */
    assert_int_equal(hsk_lapic_pending(b), HSK_LAPIC_INIT | HSK_LAPIC_SIPI);
    assert_int_equal(hsk_lapic_pending(a), 0);
    assert_true(hsk_lapic_take(b, HSK_LAPIC_INIT, NULL));
    assert_false(hsk_lapic_take(b, HSK_LAPIC_INIT, NULL));
    assert_true(hsk_lapic_take(b, HSK_LAPIC_SIPI, &vector));
    assert_int_equal(vector, 0x9a);
    hsk_lapic_bind_thread(b);
    assert_int_equal(REG(m, 0xf0), 0xff); /* INIT reset it */
    hsk_lapic_bind_thread(a);
    SET(m, 0x300, 0xc0400); /* NMI to all but self */
    assert_true(hsk_lapic_take(b, HSK_LAPIC_NMI, NULL));
    assert_false(hsk_lapic_take(a, HSK_LAPIC_NMI, NULL));
}

static void x2apic_follows_the_transition_rules(void **state)
{
    struct hsk_machine *m = *state;
    struct hsk_lapic *l = hsk_machine_lapic(m, 0);
    uint64_t v;

    assert_false(hsk_lapic_rdmsr(l, 0x802, &v));
    assert_false(
        hsk_lapic_set_base(l, HSK_LAPIC_BASE | 0x100 | X2APIC)); /* x2APIC without enable */
    assert_false(hsk_lapic_set_base(l, APIC_BASE | 1));          /* reserved bit */
    assert_true(hsk_lapic_set_base(l, APIC_BASE | X2APIC));
    assert_false(hsk_lapic_set_base(l, APIC_BASE)); /* not straight back */
    assert_int_equal(REG(m, 0x30), 0xffffffff);     /* the page is gone */
    assert_true(hsk_lapic_rdmsr(l, 0x803, &v));
    assert_int_equal(v, 0x50014);
    assert_true(hsk_lapic_rdmsr(l, 0x80d, &v));
    assert_int_equal(v, 1);
    assert_true(hsk_lapic_wrmsr(l, 0x83f, 0x77)); /* self IPI */
    assert_int_equal(hsk_lapic_ack(l), 0x77);
    assert_true(hsk_lapic_wrmsr(l, 0x80b, 0));
    assert_false(hsk_lapic_wrmsr(l, 0x80b, 1));  /* EOI must be 0 */
    assert_false(hsk_lapic_wrmsr(l, 0x802, 0));  /* read-only */
    assert_false(hsk_lapic_wrmsr(l, 0x831, 0));  /* no high half of the ICR */
    assert_false(hsk_lapic_rdmsr(l, 0x80e, &v)); /* no DFR */
    assert_false(hsk_lapic_wrmsr(l, 0x808, 1ull << 32));
    assert_false(hsk_lapic_wrmsr(l, 0x808, 0x100));    /* reserved bits: TPR, */
    assert_false(hsk_lapic_wrmsr(l, 0x80f, 0x400));    /* spurious vector, */
    assert_false(hsk_lapic_wrmsr(l, 0x830, 1u << 16)); /* ICR, */
    assert_false(hsk_lapic_wrmsr(l, 0x832, 0x800));    /* timer, */
    assert_true(hsk_lapic_wrmsr(l, 0x832, 0x110ff));   /* where bit 12 is read-only, */
    assert_false(hsk_lapic_wrmsr(l, 0x83e, 4));        /* divisor, */
    assert_false(hsk_lapic_wrmsr(l, 0x83f, 0x100));    /* self IPI */
    assert_false(hsk_lapic_rdmsr(l, 0x8ff, &v));
    assert_true(hsk_lapic_wrmsr(l, 0x830, 1ull << 32 | 0x92)); /* to APIC 1 */
    assert_int_equal(hsk_lapic_ack(hsk_machine_lapic(m, 1)), 0x92);
    assert_true(hsk_lapic_rdmsr(l, 0x830, &v));
    assert_int_equal(v, 1ull << 32 | 0x92);
    assert_true(hsk_lapic_set_base(l, HSK_LAPIC_BASE | 0x100)); /* off */
    assert_false(hsk_lapic_set_base(l, APIC_BASE | X2APIC));    /* not from off */
    assert_true(hsk_lapic_set_base(l, APIC_BASE));
    assert_int_equal(REG(m, 0xf0), 0xff);
}

static void the_page_moves_with_the_base(void **state)
{
    struct hsk_machine *m = *state;
    struct hsk_lapic *l = hsk_machine_lapic(m, 0);

    assert_true(hsk_lapic_set_base(l, 0xfd000000 | 0x900));
    assert_int_equal(mmio_read32(m, 0xfd000030), 0x50014);
    assert_int_equal(REG(m, 0x30), 0xffffffff);
    hsk_machine_reset(m);
    run_for_ms(m, 1);
    assert_int_equal(REG(m, 0x30), 0x50014);
}

static void one_shot_fires_once(void **state)
{
    struct hsk_machine *m = *state;
    struct hsk_lapic *l = hsk_machine_lapic(m, 0);

    SET(m, 0x3e0, 0xb); /* divide by 1 */
    SET(m, 0x320, 0x55);
    SET(m, 0x380, 2000000000);
    assert_int_equal(REG(m, 0x390), 2000000000);
    set_time_ns(m, 500000000);
    assert_int_equal(REG(m, 0x390), 1500000000);
    SET(m, 0x3e0, 0x1); /* divide by 4: the rest takes longer */
    assert_int_equal(REG(m, 0x390), 1500000000);
    run_for_ms(m, 3000);
    assert_int_equal(hsk_lapic_pending(l), 0);
    assert_in_range(REG(m, 0x390), 1, 1500000000 - 3000000000 / 4);
    SET(m, 0x3e0, 0xb);
    run_for_ms(m, 1000);
    assert_int_equal(hsk_lapic_ack(l), 0x55);
    assert_int_equal(REG(m, 0x390), 0);
    SET(m, 0xb0, 0);
    run_for_ms(m, 10);
    assert_int_equal(hsk_lapic_pending(l), 0);
}

static void periodic_fires_again(void **state)
{
    struct hsk_machine *m = *state;
    struct hsk_lapic *l = hsk_machine_lapic(m, 0);

    SET(m, 0x3e0, 0xb);
    SET(m, 0x320, 0x20055);
    SET(m, 0x380, 1000000);
    for (int i = 0; i < 3; i++) {
        run_for_ms(m, 5);
        assert_int_equal(hsk_lapic_ack(l), 0x55);
        SET(m, 0xb0, 0);
    }
    SET(m, 0x380, 0);
    run_for_ms(m, 5);
    assert_int_equal(hsk_lapic_pending(l), 0);
}

static void tsc_deadline_fires_and_reads_zero(void **state)
{
    struct hsk_machine *m = *state;
    struct hsk_lapic *l = hsk_machine_lapic(m, 0);
    uint64_t v;

    assert_true(hsk_lapic_wrmsr(l, 0x6e0, 1000000)); /* ignored in another mode */
    assert_true(hsk_lapic_rdmsr(l, 0x6e0, &v));
    assert_int_equal(v, 0);
    SET(m, 0x320, 0x40066);
    assert_true(hsk_lapic_wrmsr(l, 0x6e0, 100000000000)); /* 100 s */
    assert_true(hsk_lapic_rdmsr(l, 0x6e0, &v));
    assert_int_equal(v, 100000000000);
    run_for_ms(m, 50000);
    assert_int_equal(hsk_lapic_pending(l), 0);
    run_for_ms(m, 50000);
    assert_int_equal(hsk_lapic_ack(l), 0x66);
    assert_true(hsk_lapic_rdmsr(l, 0x6e0, &v));
    assert_int_equal(v, 0);
}

static void what_is_due_happens_when_the_guest_looks(void **state)
{
    struct hsk_machine *m = *state;
    struct hsk_lapic *l = hsk_machine_lapic(m, 0);
    uint64_t v;

    SET(m, 0x3e0, 0xb); /* the loop does not run here */
    SET(m, 0x320, 0x55);
    SET(m, 0x380, 1000);
    set_time_ns(m, 2000);
    assert_int_equal(hsk_lapic_pending(l), 0);
    SET(m, 0x320, 0x20055); /* one-shot had counted to the end: periodic does not begin */
    assert_int_equal(REG(m, 0x390), 0);
    assert_int_equal(hsk_lapic_ack(l), 0x55);
    SET(m, 0xb0, 0);
    set_time_ns(m, 10000);
    assert_int_equal(REG(m, 0x390), 0);
    assert_int_equal(hsk_lapic_pending(l), 0);
    SET(m, 0x320, 0x40066);
    assert_true(hsk_lapic_wrmsr(l, 0x6e0, 10000)); /* a deadline that is over */
    assert_int_equal(hsk_lapic_ack(l), 0x66);
    SET(m, 0xb0, 0);
    assert_true(hsk_lapic_wrmsr(l, 0x6e0, 20000));
    set_time_ns(m, 30000);
    assert_true(hsk_lapic_rdmsr(l, 0x6e0, &v));
    assert_int_equal(v, 0);
    assert_int_equal(hsk_lapic_ack(l), 0x66);
}

static void disabled_apic_passes_the_pic(void **state)
{
    struct hsk_machine *m = *state;
    struct hsk_lapic *l = hsk_machine_lapic(m, 0);

    SET(m, 0x350, 0x10000);
    hsk_lapic_set_extint(l, true);
    assert_int_equal(hsk_lapic_pending(l), 0);
    SET(m, 0x350, 0x700);
    assert_int_equal(hsk_lapic_pending(l), HSK_LAPIC_INTR);
    SET(m, 0x350, 0x10000);
    assert_true(hsk_lapic_set_base(l, HSK_LAPIC_BASE | 0x100));
    assert_int_equal(hsk_lapic_pending(l), HSK_LAPIC_INTR);
    hsk_lapic_set_extint(l, false);
    assert_int_equal(hsk_lapic_pending(l), 0);
}

static void software_disable_masks_and_refuses(void **state)
{
    struct hsk_machine *m = *state;
    struct hsk_lapic *l = hsk_machine_lapic(m, 0);

    SET(m, 0x320, 0x55);
    SET(m, 0xf0, 0xff);
    assert_int_equal(REG(m, 0x320), 0x10055);
    SET(m, 0x320, 0x55);
    assert_int_equal(REG(m, 0x320), 0x10055);
    hsk_msi_send(m, 0xfee00000, 0x51);
    assert_int_equal(hsk_lapic_pending(l), 0);
    hsk_msi_send(m, 0xfee00000, 0x400); /* NMI comes through */
    hsk_msi_send(m, 0xfee00000, 0x400); /* so does another before the first is taken, */
    hsk_msi_send(m, 0xfee00000, 0x400); /* and no more */
    assert_true(hsk_lapic_take(l, HSK_LAPIC_NMI, NULL));
    hsk_msi_send(m, 0xfee00000, 0x400); /* two came while NMIs were masked: one is remembered */
    hsk_lapic_nmi_unmasked(l);
    assert_true(hsk_lapic_take(l, HSK_LAPIC_NMI, NULL));
    assert_false(hsk_lapic_take(l, HSK_LAPIC_NMI, NULL));
    hsk_msi_send(m, 0xfee00000, 0x400);
    assert_int_equal(hsk_lapic_pending(l), HSK_LAPIC_NMI);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(power_on_values, setup, teardown),
        cmocka_unit_test_setup_teardown(higher_vector_first_and_eoi_reveals_the_lower, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(task_priority_holds_back, setup, teardown),
        cmocka_unit_test_setup_teardown(messages_find_their_target, setup, teardown),
        cmocka_unit_test_setup_teardown(init_and_sipi_reach_the_other_processor, setup, teardown),
        cmocka_unit_test_setup_teardown(x2apic_follows_the_transition_rules, setup, teardown),
        cmocka_unit_test_setup_teardown(the_page_moves_with_the_base, setup, teardown),
        cmocka_unit_test_setup_teardown(one_shot_fires_once, setup, teardown),
        cmocka_unit_test_setup_teardown(periodic_fires_again, setup, teardown),
        cmocka_unit_test_setup_teardown(tsc_deadline_fires_and_reads_zero, setup, teardown),
        cmocka_unit_test_setup_teardown(what_is_due_happens_when_the_guest_looks, setup, teardown),
        cmocka_unit_test_setup_teardown(disabled_apic_passes_the_pic, setup, teardown),
        cmocka_unit_test_setup_teardown(software_disable_masks_and_refuses, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
