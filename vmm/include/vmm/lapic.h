/* SPDX-License-Identifier: MIT */
/*
 * The local APIC (SDM vol. 3, 11): xAPIC and x2APIC, timer in one-shot, periodic and TSC-deadline
 * mode. One per vCPU, a device like any other ("lapic.N"), plus the calls below for the engine.
 *
 * Threads: every call takes the APIC's own leaf lock; kick is called outside of vCPU context only.
 */
#pragma once

#include <vmm/device.h>

struct hsk_lapic;
struct hsk_vcpu;

struct hsk_lapic *hsk_lapic_new(struct hsk_machine *m, unsigned index);
struct hsk_dev *hsk_lapic_dev(struct hsk_lapic *l);
/* Called when something may have become deliverable (any thread); the machine wires it to wake and
 * kick the vCPU. */
void hsk_lapic_set_kick(struct hsk_lapic *l, void (*kick)(void *opaque), void *opaque);

enum {
    HSK_LAPIC_INTR =
        1 << 0, /* an interrupt (own IRR or the PIC's ExtINT) is deliverable if RFLAGS.IF allows */
    HSK_LAPIC_NMI = 1 << 1,
    HSK_LAPIC_INIT = 1 << 2,
    HSK_LAPIC_SIPI = 1 << 3,
};
/* What waits; one relaxed atomic load, cheap enough for each exit of translated code. */
unsigned hsk_lapic_pending(const struct hsk_lapic *l);
/* Acknowledges the highest interrupt (moves IRR to ISR, or asks the PIC) and returns its vector, or
 * -1. */
int hsk_lapic_ack(struct hsk_lapic *l);
/* Takes NMI / INIT / SIPI (vector in *vector); returns whether there was one and clears it. */
bool hsk_lapic_take(struct hsk_lapic *l, unsigned which, uint8_t *vector);

uint64_t hsk_lapic_get_cr8(struct hsk_lapic *l);
void hsk_lapic_set_cr8(struct hsk_lapic *l, uint64_t v); /* 0..15 */
/* IA32_APIC_BASE (0x1b); set returns false for #GP. The MMIO page moves with it. */
#define HSK_APIC_BASE_ENABLE (1u << 11)
uint64_t hsk_lapic_get_base(struct hsk_lapic *l);
bool hsk_lapic_set_base(struct hsk_lapic *l, uint64_t v);
/* x2APIC MSRs 0x800-0x8ff and IA32_TSC_DEADLINE (0x6e0); false for #GP. */
bool hsk_lapic_rdmsr(struct hsk_lapic *l, uint32_t msr, uint64_t *v);
bool hsk_lapic_wrmsr(struct hsk_lapic *l, uint32_t msr, uint64_t v);

/* From the I/O APIC and MSI writers: address and data as in SDM vol. 3, 11.11. Any thread. */
void hsk_msi_send(struct hsk_machine *m, uint64_t addr, uint32_t data);
/* EOI of a level-triggered vector reaches the I/O APIC through this (lapic.c calls, ioapic.c
 * implements). */
void hsk_ioapic_eoi(struct hsk_machine *m, uint8_t vector);
/* The PIC's output line into LINT0 / virtual wire of the bootstrap APIC, and its acknowledge. */
void hsk_lapic_set_extint(struct hsk_lapic *l, bool level);
int hsk_pic_ack(struct hsk_machine *m);
/* NMI line (watchdog, user), through LINT1: */
void hsk_lapic_nmi(struct hsk_lapic *l);
/* The vCPU takes NMIs again: of those that came while it did not, one is remembered. */
void hsk_lapic_nmi_unmasked(struct hsk_lapic *l);

/* The APIC that this thread's accesses to the MMIO page reach: a vCPU thread binds its own;
 * unbound: APIC 0. */
void hsk_lapic_bind_thread(struct hsk_lapic *l);

/* What the timer counts before the divider. KVM's in-kernel APIC has the same; CPUID leaf 0x15 must
 * give it as crystal. */
#define HSK_LAPIC_TIMER_HZ 1000000000u
