/* SPDX-License-Identifier: MIT */
/* PCI: both ways into configuration space, BARs that move, the reset register between them,
 * interrupts of a function. */
#include <virtio-driver.h>

#define DISPLAY_SLOT 1
#define TABLET_SLOT  2

static int setup(void **state)
{
    struct hsk_machine_config cfg = fake_config();

    cfg.vram_bytes = 16u << 20;
    *state = fake_machine_from(&cfg);
    for (unsigned i = 0; i < hsk_machine_ndevs(*state); i++) {
        struct hsk_dev *dev = hsk_machine_dev(*state, i);

        if (dev->ops->resume)
            dev->ops->resume(dev);
    }
    hsk_lapic_bind_thread(hsk_machine_lapic(*state, 0));
    return 0;
}

static int teardown(void **state)
{
    hsk_lapic_bind_thread(NULL);
    run_for_ms(*state, 1); /* lets the loop deliver what was posted to it */
    hsk_machine_free(*state);
    return 0;
}

static void out32(struct hsk_machine *m, uint16_t port, uint32_t v)
{
    hsk_bus_write(hsk_machine_pio(m), port, 4, v);
}

static uint64_t in(struct hsk_machine *m, uint16_t port, unsigned size)
{
    uint64_t v;

    hsk_bus_read(hsk_machine_pio(m), port, size, &v);
    return v;
}

static void ports_and_ecam_show_the_same(void **state)
{
    struct hsk_machine *m = *state;

    assert_int_equal(pci_read(m, 0, 0), 0x29c08086);
    assert_int_equal(pci_read(m, DISPLAY_SLOT, 0), 0x11111234);
    assert_int_equal(in(m, 0xcfc, 4), 0xffffffff); /* not enabled */
    out32(m, 0xcf8, 0x80000000 | DISPLAY_SLOT << 11);
    assert_int_equal(in(m, 0xcf8, 4), 0x80000000 | DISPLAY_SLOT << 11);
    assert_int_equal(in(m, 0xcfc, 4), 0x11111234);
    assert_int_equal(in(m, 0xcfe, 2), 0x1111);
    assert_int_equal(in(m, 0xcfd, 1), 0x12);
    assert_int_equal(pci_read(m, 9, 0), 0xffffffff);
    assert_int_equal(mmio_read32(m, HSK_ECAM_BASE + (1 << 12)), 0xffffffff); /* function 1 */
    assert_int_equal(mmio_read32(m, HSK_ECAM_BASE + (1 << 20)), 0xffffffff); /* bus 1 */
    assert_int_equal(pci_read(m, DISPLAY_SLOT, 0x100), 0);
}

static void byte_writes_change_their_byte_only(void **state)
{
    struct hsk_machine *m = *state;
    struct hsk_bus *mmio = hsk_machine_mmio(m);

    hsk_bus_write(mmio, HSK_ECAM_BASE + (DISPLAY_SLOT << 15) + 0x3c, 1, 0xab);
    hsk_bus_write(mmio, HSK_ECAM_BASE + (DISPLAY_SLOT << 15) + 0x3d, 1, 0xff); /* pin: read-only */
    assert_int_equal(pci_read(m, DISPLAY_SLOT, 0x3c), 0xab);
    pci_write(m, DISPLAY_SLOT, 0, 0);
    assert_int_equal(pci_read(m, DISPLAY_SLOT, 0), 0x11111234);
}

static void reset_register_lies_between_the_ports(void **state)
{
    struct hsk_machine *m = *state;

    out32(m, 0xcf8, 0x80000000);
    out8(m, 0xcf9, 0x02);
    assert_int_equal(in8(m, 0xcf9) & 0x02, 0x02);
    assert_int_equal(in(m, 0xcf8, 4), 0x80000000);
}

static void register_bar_moves(void **state)
{
    struct hsk_machine *m = *state;
    uint32_t old = pci_read(m, DISPLAY_SLOT, 0x18);
    uint64_t v;

    assert_int_equal(mmio_read32(m, old), 0xffffff00); /* EDID */
    pci_write(m, DISPLAY_SLOT, 0x18, 0xffffffff);
    assert_int_equal(pci_read(m, DISPLAY_SLOT, 0x18), 0xfffff000);
    assert_false(hsk_bus_read(hsk_machine_mmio(m), old, 4, &v));
    pci_write(m, DISPLAY_SLOT, 0x18, 0xd0000000);
    assert_int_equal(mmio_read32(m, 0xd0000000), 0xffffff00);
    pci_write(m, DISPLAY_SLOT, 4, 0); /* decoding off */
    assert_false(hsk_bus_read(hsk_machine_mmio(m), 0xd0000000, 4, &v));
    pci_write(m, DISPLAY_SLOT, 4, 2);
    assert_int_equal(mmio_read32(m, 0xd0000000), 0xffffff00);
    assert_int_equal(pci_read(m, DISPLAY_SLOT, 0x14), 0); /* no such BAR */
}

static void memory_bar_moves_and_never_covers_memory(void **state)
{
    struct hsk_machine *m = *state;
    struct hsk_ram *ram = hsk_machine_ram(m);
    struct hsk_memobj *vram = hsk_machine_memobj(m, "vram"), *main = hsk_machine_memobj(m, "ram");

    assert_ptr_equal(hsk_ram_find(ram, HSK_VRAM_BASE)->obj, vram);
    pci_write(m, DISPLAY_SLOT, 0x10, 0xc8000000);
    assert_ptr_equal(hsk_ram_find(ram, 0xc8ffffff)->obj, vram);
    assert_null(hsk_ram_find(ram, HSK_VRAM_BASE));
    pci_write(m, DISPLAY_SLOT, 0x10, 0x01000000); /* inside of the machine's memory */
    assert_ptr_equal(hsk_ram_find(ram, 0x01000000)->obj, main);
    assert_null(hsk_ram_find(ram, 0xc8000000));
    pci_write(m, DISPLAY_SLOT, 0x10, 0xfe000000); /* reaches up to the I/O APIC */
    assert_null(hsk_ram_find(ram, 0xfe000000));
    pci_write(m, DISPLAY_SLOT, 0x10, (uint32_t)HSK_VRAM_BASE);
    assert_ptr_equal(hsk_ram_find(ram, HSK_VRAM_BASE)->obj, vram);
}

static void overlapping_bars_do_no_harm(void **state)
{
    struct hsk_machine *m = *state;
    uint64_t v;

    pci_write(m, DISPLAY_SLOT, 0x18, 0xd0000000);
    pci_write(m, TABLET_SLOT, 0x10, 0xd0000000);
    assert_int_equal(mmio_read32(m, 0xd0000000), 0xffffff00);
    pci_write(m, TABLET_SLOT, 0x10, 0xd1000000);
    assert_int_equal(mmio_read32(m, 0xd0000000), 0xffffff00);
    assert_true(hsk_bus_read(hsk_machine_mmio(m), 0xd1000012, 2, &v));
    assert_int_equal(v, 2); /* number of queues */
}

static void capabilities_form_a_list(void **state)
{
    struct hsk_machine *m = *state;
    unsigned at = pci_read(m, TABLET_SLOT, 0x34), n = 0, msix = 0;

    assert_true(pci_read(m, TABLET_SLOT, 4) & 0x100000);
    while (at) {
        uint32_t v = pci_read(m, TABLET_SLOT, at);

        assert_int_equal(at % 4, 0);
        if ((v & 0xff) == 0x11)
            msix = at;
        at = v >> 8 & 0xff;
        assert_true(++n <= 8);
    }
    assert_int_equal(n, 5);
    assert_true(msix);
    assert_int_equal(pci_read(m, TABLET_SLOT, msix) >> 16 & 0x7ff, 2); /* three vectors */
}

static void masked_msix_waits_until_unmasked(void **state)
{
    struct hsk_machine *m = *state;
    struct vdriver d = vdriver(m, "virtio-tablet", TABLET_SLOT);
    unsigned cap = pci_read(m, TABLET_SLOT, 0x34);

    while ((pci_read(m, TABLET_SLOT, cap) & 0xff) != 0x11)
        cap = pci_read(m, TABLET_SLOT, cap) >> 8 & 0xff;
    mmio_write32(m, HSK_LAPIC_BASE + 0xf0, 0x1ff);
    pci_write(m, TABLET_SLOT, cap, 0x80000000);
    vwrite(&d, V_MSIX + 0, 4, (uint32_t)HSK_LAPIC_BASE);
    vwrite(&d, V_MSIX + 8, 4, 0x41);
    assert_int_equal(vread(&d, V_MSIX + 12, 4), 1); /* masked after reset */
    vstart(&d, VIRTIO_F_VERSION_1, 2);
    vwrite(&d, 0x10, 2, 0);
    assert_int_equal(vread(&d, 0x10, 2), 0);
    vwrite(&d, 0x10, 2, 7); /* no such vector */
    assert_int_equal(vread(&d, 0x10, 2), 0xffff);
    vwrite(&d, 0x10, 2, 0);
    hsk_put16(guest(&d, ring(1, 1) + 2), 1000); /* nonsense: configuration interrupt */
    vkick(&d, 1);
    assert_true(vstatus(&d) & VSTATUS_NEEDS_RESET);
    assert_int_equal(vread(&d, 0x5000, 8), 1);
    assert_int_equal(hsk_lapic_pending(hsk_machine_lapic(m, 0)) & HSK_LAPIC_INTR, 0);
    vwrite(&d, V_MSIX + 12, 4, 0);
    assert_int_equal(vread(&d, 0x5000, 8), 0);
    assert_int_equal(hsk_lapic_pending(hsk_machine_lapic(m, 0)) & HSK_LAPIC_INTR, HSK_LAPIC_INTR);
    assert_int_equal(hsk_lapic_ack(hsk_machine_lapic(m, 0)), 0x41);
}

static void damaged_state_is_refused(void **state)
{
    struct hsk_machine *m = *state;
    struct hsk_dev *dev = hsk_machine_find_dev(m, "display");

    assert_true(dev->ops->check(dev, NULL));
    poke_field(dev, "pci.bar", 0, 0xe0000004);
    assert_false(dev->ops->check(dev, NULL));
    dev->ops->reset(dev);
    poke_field(dev, "pci.msix_control", 0, 0x8000);
    assert_false(dev->ops->check(dev, NULL));
    dev->ops->reset(dev);
    assert_true(dev->ops->check(dev, NULL));
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(ports_and_ecam_show_the_same),
        T(byte_writes_change_their_byte_only),
        T(reset_register_lies_between_the_ports),
        T(register_bar_moves),
        T(memory_bar_moves_and_never_covers_memory),
        T(overlapping_bars_do_no_harm),
        T(capabilities_form_a_list),
        T(masked_msix_waits_until_unmasked),
        T(damaged_state_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
