/* SPDX-License-Identifier: MIT */
/*
 * Board "hv-pc-1.0": which devices there are, at which fixed addresses, on which lines, in load
 * order. The only place that knows. PCI slots: 0 host bridge, 1 display, 2 tablet, 4-11 disks.
 */
#include "devices/devices.h"
#include "machine-priv.h"
#include "virtio/pci-devices.h"

#define DEVFN(slot)     ((slot) << 3)
#define FIRST_DISK_SLOT 4
#define VMGENID_GPE     5 /* as in firmware/dsdt.asl */

static struct hsk_dev *add(struct hsk_machine *m, struct hsk_dev *dev)
{
    if (dev)
        hsk_machine_add_dev(m, dev);
    return dev;
}

static void create_isa(struct hsk_machine *m)
{
    for (unsigned i = 0; i < m->cfg.ncpus; i++) {
        m->cpu[i].lapic = hsk_lapic_new(m, i);
        add(m, hsk_lapic_dev(m->cpu[i].lapic));
    }
    m->ioapic = add(m, hsk_ioapic_new(m, "ioapic"));
    m->pic = add(m, hsk_pic_new(m, "pic"));
    add(m, hsk_pit_new(m, "pit", hsk_machine_gsi(m, 0)));
    add(m, hsk_rtc_new(m, "rtc", hsk_machine_gsi(m, 8), m->cfg.memory_bytes));
    add(m, hsk_uart16550_new(m, "uart16550.0", 0x3f8, hsk_machine_gsi(m, 4), m->cfg.serial_in,
                             m->cfg.serial_out));
    m->acpi_pm = add(m, hsk_acpi_pm_new(m, "acpi-pm", hsk_machine_gsi(m, 9)));
    m->vmgenid = add(m, hsk_vmgenid_new(m, "vmgenid", m->cfg.generation));
    m->i8042 = add(m, hsk_i8042_new(m, "i8042", hsk_machine_gsi(m, 1), hsk_machine_gsi(m, 12)));
    if (m->cfg.debug_exit)
        add(m, hsk_debug_exit_new(m, "debug-exit"));
    if (m->cfg.test_device)
        add(m, hsk_test_device_new(m, "test-device"));
}

static bool create_pci(struct hsk_machine *m, GError **error)
{
    struct hsk_dev *host = add(m, hsk_pci_host_new(m, "pci-host", m->acpi_pm));

    if (m->vram_obj) {
        m->display = add(m, hsk_bochs_display_new(m, host, "display", DEVFN(1), m->vram_obj));
        m->tablet = add(m, hsk_virtio_tablet_new(m, host, "virtio-tablet", DEVFN(2)));
    }
    for (unsigned i = 0; i < m->cfg.ndisks; i++) {
        g_autofree char *id = g_strdup_printf("virtio-blk.%u", i);
        struct hsk_block *block = g_steal_pointer(&m->cfg.disks[i].block);

        if (!add(m, hsk_virtio_blk_new(m, host, id, DEVFN(FIRST_DISK_SLOT + i), block,
                                       m->cfg.disks[i].serial))) {
            g_set_error(error, HSK_ERROR, HSK_ERROR_FAILED, "Disk %u cannot be attached", i);
            return false;
        }
    }
    return true;
}

bool hsk_pc_create(struct hsk_machine *m, GError **error)
{
    create_isa(m);
    return create_pci(m, error);
}

bool hsk_machine_scanout(struct hsk_machine *m, struct hsk_scanout *out)
{
    return m->display && hsk_bochs_display_scanout(m->display, out);
}

void hsk_machine_power_button(struct hsk_machine *m)
{
    hsk_acpi_pm_power_button(m->acpi_pm);
}

void hsk_machine_set_generation(struct hsk_machine *m,
                                const uint8_t generation[HSK_GENERATION_BYTES])
{
    hsk_assert(!m->running);
    if (hsk_vmgenid_set(m->vmgenid, generation))
        hsk_acpi_pm_gpe(m->acpi_pm, VMGENID_GPE);
}
