/* SPDX-License-Identifier: MIT */
/* What firmware leaves in memory is where systems look for it. */
#include "../../../vmm/firmware/boot-priv.h"
#include "fake-machine.h"

static void tables_are_found_without_being_told(void **state)
{
    struct hsk_machine *m = fake_machine_new();
    const uint8_t *ram = hsk_ram_ptr(hsk_machine_ram(m), 0, 1 << 20), *found[2] = {NULL};
    gpa_t rsdp;

    assert_true(hsk_firmware_install_tables(m, &rsdp, NULL));
    for (unsigned at = 0xe0000; at < 0x100000; at += 16) {
        if (memcmp(ram + at, "RSD PTR ", 8) == 0)
            found[0] = ram + at;
        if (at >= 0xf0000 && memcmp(ram + at, "_MP_", 4) == 0)
            found[1] = ram + at;
    }
    assert_ptr_equal(found[0], ram + rsdp);
    assert_non_null(found[1]);
    assert_memory_equal(ram + hsk_get32(found[1] + 4), "PCMP", 4);
    hsk_machine_free(m);
}

static void bios_data_area_says_where_low_memory_ends(void **state)
{
    struct hsk_machine *m = fake_machine_new();
    const uint8_t *ram = hsk_ram_ptr(hsk_machine_ram(m), 0, 1 << 20);
    gpa_t rsdp;

    assert_true(hsk_firmware_install_tables(m, &rsdp, NULL));
    assert_int_equal(hsk_get16(ram + 0x400), 0x3f8);
    assert_int_equal(hsk_get16(ram + 0x413), 639);
    assert_int_equal(hsk_get16(ram + 0x40e), 0x9fc0);
    assert_int_equal(ram[0x9fc00], 1);
    hsk_machine_free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tables_are_found_without_being_told),
        cmocka_unit_test(bios_data_area_says_where_low_memory_ends),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
