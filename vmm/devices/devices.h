/* SPDX-License-Identifier: MIT */
/*
 * Constructors of the board's fixed devices, and the few calls between them. Private to vmm/.
 *
 * A constructor maps the device's ports or pages on the machine's buses; it needs the machine's
 * loop, clock and buses, and returns a device that is yet to be reset or loaded. The caller passes
 * it to hsk_machine_add_dev(). id is the key of the device's section in a saved state. An irq may
 * be NULL: not connected.
 *
 * Order in the board's table: local APICs, I/O APIC and PIC before everything that has an interrupt
 * line.
 */
#pragma once

#include <vmm/device.h>

/* Interrupt controllers. The calls *_set are leaves: any thread, with device locks held. Ids must
 * be "ioapic" and "pic". */
struct hsk_dev *hsk_ioapic_new(struct hsk_machine *m,
                               const char *id); /* HSK_IOAPIC_BASE, 24 pins */
void hsk_ioapic_set(struct hsk_dev *ioapic, unsigned pin, bool level);
struct hsk_dev *hsk_pic_new(struct hsk_machine *m,
                            const char *id); /* 0x20, 0xa0, 0x4d0; output into lapic 0 */
void hsk_pic_set(struct hsk_dev *pic, unsigned line, bool level);

/* 8254 at 0x40-0x43 and the system control port 0x61. irq: GSI 0. */
struct hsk_dev *hsk_pit_new(struct hsk_machine *m, const char *id, struct hsk_irq *irq);

/* MC146818 and CMOS memory at 0x70-0x73. memory_bytes fills the memory-size bytes. irq: GSI 8. */
struct hsk_dev *hsk_rtc_new(struct hsk_machine *m, const char *id, struct hsk_irq *irq,
                            uint64_t memory_bytes);

/* 16550A at port..port+7. Descriptors are borrowed until free (each may be -1; both may be the
 * same), set non-blocking. */
struct hsk_dev *hsk_uart16550_new(struct hsk_machine *m, const char *id, uint16_t port,
                                  struct hsk_irq *irq, int in_fd, int out_fd);

/*
 * ACPI fixed hardware at HSK_PMBASE. irq: the SCI (GSI 9, level).
 * The reset register 0xcf9 lies inside the PCI configuration ports: who owns 0xcf8-0xcff passes
 * one-byte accesses of 0xcf9 to these two (leaves: any thread, device locks held).
 */
struct hsk_dev *hsk_acpi_pm_new(struct hsk_machine *m, const char *id, struct hsk_irq *irq);
void hsk_acpi_pm_power_button(struct hsk_dev *pm); /* any thread, no device lock held */
/* General-purpose event 0-7 (\_GPE._E00 ...): the same. */
void hsk_acpi_pm_gpe(struct hsk_dev *pm, unsigned event);
uint8_t hsk_acpi_pm_reset_read(struct hsk_dev *pm);
void hsk_acpi_pm_reset_write(struct hsk_dev *pm, uint8_t value);

/* The generation id (HSK_GENERATION_BYTES) at HSK_VMGENID_GPA. */
struct hsk_dev *hsk_vmgenid_new(struct hsk_machine *m, const char *id,
                                const uint8_t *generation);
/* Loop thread, stopped, no device lock held. Whether it was another one before. */
bool hsk_vmgenid_set(struct hsk_dev *vmgenid, const uint8_t *generation);

/* Port HSK_DEBUG_EXIT_PORT: a write posts HSK_EVENT_DEBUG_EXIT. */
struct hsk_dev *hsk_debug_exit_new(struct hsk_machine *m, const char *id);

/* For test programs: a latch, interrupt lines to set, and memory behind a device (see the file for
 * addresses). */
struct hsk_dev *hsk_test_device_new(struct hsk_machine *m, const char *id);

/* Keyboard controller, keyboard and mouse at 0x60 and 0x64. irqs: GSI 1 and 12. Input: loop thread,
 * no device lock held. */
struct hsk_dev *hsk_i8042_new(struct hsk_machine *m, const char *id, struct hsk_irq *kbd_irq,
                              struct hsk_irq *mouse_irq);
void hsk_i8042_key(struct hsk_dev *i8042, uint16_t code,
                   bool down); /* Linux evdev code; unknown ones are ignored */
/* Relative motion (dy > 0 is down), wheel clicks (> 0 is up), buttons: bit 0 left, 1 right, 2
 * middle. */
void hsk_i8042_mouse(struct hsk_dev *i8042, int dx, int dy, int wheel, uint8_t buttons);
/* Whether the guest listens to the mouse at all (it enabled data reporting). */
bool hsk_i8042_mouse_enabled(struct hsk_dev *i8042);
void hsk_i8042_release_all(struct hsk_dev *i8042);
