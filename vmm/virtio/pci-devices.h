/* SPDX-License-Identifier: MIT */
/*
 * Constructors of the board's PCI devices, and the few calls that the machine makes to them.
 * Private to vmm/.
 *
 * A constructor plugs the function into its slot of bus 0 and returns a device that is yet to be
 * reset or loaded; the caller passes it to hsk_machine_add_dev(). id is the key of the device's
 * section in a saved state. devfn = slot * 8.
 *
 * Order in the board's table: interrupt controllers and ACPI first, then the PCI host, then its
 * functions. INTA-D of slot s are GSIs 16 + (s + pin) % 4: the same rule is in firmware/dsdt.asl.
 */
#pragma once

#include <vmm/block.h>
#include <vmm/device.h>
#include <vmm/input.h>

/* Ports 0xcf8-0xcff, ECAM at HSK_ECAM_BASE and the host bridge 0:0.0. acpi_pm (borrowed, may be
   NULL) gets the byte accesses to the reset register 0xcf9. */
struct hsk_dev *hsk_pci_host_new(struct hsk_machine *m, const char *id, struct hsk_dev *acpi_pm);

/* Takes block (and attaches it to the machine's loop). serial: at most 20 bytes. */
struct hsk_dev *hsk_virtio_blk_new(struct hsk_machine *m, struct hsk_dev *pci_host, const char *id,
                                   unsigned devfn, struct hsk_block *block, const char *serial);

/* Absolute pointer with wheel. The calls: loop thread, no device lock held. */
struct hsk_dev *hsk_virtio_tablet_new(struct hsk_machine *m, struct hsk_dev *pci_host,
                                      const char *id, unsigned devfn);
/* A driver is up: send the pointer here, else to the PS/2 mouse. */
bool hsk_virtio_tablet_ready(struct hsk_dev *tablet);
/* x, y: 0..32767 over the whole screen; buttons: bit 0 left, 1 right, 2 middle. */
void hsk_virtio_tablet_pointer(struct hsk_dev *tablet, uint16_t x, uint16_t y, uint8_t buttons);
void hsk_virtio_tablet_wheel(struct hsk_dev *tablet, int clicks); /* > 0 is up */

/* vram: borrowed; mapped at the guest-physical address in BAR 0. Posts HSK_EVENT_SCANOUT when the
 * picture's geometry changes. */
struct hsk_dev *hsk_bochs_display_new(struct hsk_machine *m, struct hsk_dev *pci_host,
                                      const char *id, unsigned devfn, struct hsk_memobj *vram);
/* Any thread, no device lock held. */
bool hsk_bochs_display_scanout(struct hsk_dev *display, struct hsk_scanout *out);
