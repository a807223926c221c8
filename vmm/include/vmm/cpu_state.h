/* SPDX-License-Identifier: MIT */
/*
 * The canonical state of one vCPU: what both engines load and save, and what a snapshot carries
 * (its field table is in cpu/cpu_state.c). Architectural state only (Intel SDM vol. 3); nothing of
 * how an engine codes it.
 */
#pragma once

#include <base/state.h>

enum hsk_gpr {
    HSK_RAX,
    HSK_RCX,
    HSK_RDX,
    HSK_RBX,
    HSK_RSP,
    HSK_RBP,
    HSK_RSI,
    HSK_RDI,
    HSK_R8,
    HSK_R9,
    HSK_R10,
    HSK_R11,
    HSK_R12,
    HSK_R13,
    HSK_R14,
    HSK_R15
};
enum hsk_seg { HSK_ES, HSK_CS, HSK_SS, HSK_DS, HSK_FS, HSK_GS, HSK_LDTR, HSK_TR, HSK_NSEG };

/* attr: bits as in bytes 5-6 of a descriptor (SDM vol. 3, 3.4.5): type 0-3, S 4, DPL 5-6, P 7, AVL
   12, L 13, D/B 14, G 15. A null (unusable) segment has P = 0. limit is in bytes, already scaled by
   G. */
struct hsk_segment {
    uint64_t base;
    uint32_t limit;
    uint16_t selector;
    uint16_t attr;
};
#define HSK_SEG_TYPE      0x000f
#define HSK_SEG_S         0x0010
#define HSK_SEG_DPL(attr) (((attr) >> 5) & 3)
#define HSK_SEG_P         0x0080
#define HSK_SEG_L         0x2000
#define HSK_SEG_DB        0x4000
#define HSK_SEG_G         0x8000

struct hsk_dtable {
    uint64_t base;
    uint64_t limit; /* 16 bits used */
};

#define HSK_XSAVE_SIZE 1024 /* standard format: legacy 512, header 64, AVX 256; rest zero */

struct hsk_cpu_state {
    uint64_t gpr[16];
    uint64_t rip;
    uint64_t rflags;
    struct hsk_segment seg[HSK_NSEG];
    struct hsk_dtable gdtr, idtr;
    uint64_t cr0, cr2, cr3, cr4, cr8, xcr0;
    uint64_t dr[8]; /* 0-3, 6, 7; 4 and 5 unused and 0 */
    /* MSRs */
    uint64_t efer, star, lstar, cstar, sfmask, kernel_gs_base;
    uint64_t sysenter_cs, sysenter_esp, sysenter_eip;
    uint64_t pat, tsc_adjust, tsc_aux, misc_enable, spec_ctrl;
    uint64_t mtrr_def_type, mtrr_fixed[11], mtrr_var[16]; /* var: base0, mask0, base1, ... */
    uint64_t mcg_status;
    uint64_t kvm_system_time, kvm_wall_clock, kvm_poll_control, kvm_steal_time, kvm_async_pf_en,
        kvm_async_pf_int, kvm_pv_eoi;
    uint64_t tsc; /* guest TSC of this vCPU when saved (clock + tsc_adjust) */
    /* events (SDM vol. 3, 6; KVM_GET_VCPU_EVENTS has the same) */
    uint32_t activity;          /* enum hsk_activity */
    uint32_t exception_pending; /* 0 or 1: an exception to deliver before the next instruction */
    uint32_t exception_vector;
    uint32_t exception_has_error;
    uint64_t exception_error;
    uint64_t exception_payload; /* CR2 for #PF, DR6 bits for #DB */
    uint32_t interrupt_shadow;  /* 0 none, 1 after STI, 2 after MOV SS / POP SS */
    uint32_t nmi_pending, nmi_masked;
    uint32_t
        interrupt_pending; /* 0 or 1: an acknowledged interrupt that was not delivered yet (KVM) */
    uint32_t interrupt_vector;
    uint32_t sipi_vector;
    uint64_t reserved[2]; /* zero; fills the gap before xsave, so that the field table covers every
                             byte */
    uint8_t xsave[HSK_XSAVE_SIZE] __attribute__((aligned(64)));
};

enum hsk_activity { HSK_ACT_RUN, HSK_ACT_HALTED, HSK_ACT_WAIT_SIPI, HSK_ACT_SHUTDOWN };

extern const struct hsk_state_desc hsk_cpu_state_desc;

/* Power-on state of the bootstrap (index 0: running at f000:fff0) or an application processor
 * (waiting for SIPI); SDM vol. 3, 10.1.1. */
void hsk_cpu_state_reset(struct hsk_cpu_state *s, unsigned index);
/* What an INIT makes of a state, and then a start-up IPI, for which the processor waits (SDM vol.
 * 3, 10.1.3 and 9.4.4). */
void hsk_cpu_state_init(struct hsk_cpu_state *s, unsigned index);
void hsk_cpu_state_sipi(struct hsk_cpu_state *s, uint8_t vector);
/* Refuses a state that no processor of our model can be in (reserved bits, XSAVE header, canonical
 * addresses). */
bool hsk_cpu_state_check(const struct hsk_cpu_state *s, GError **error);
/* The canonical form for comparing engines: accessed bits and unusable segments normalised,
 * XSTATE_BV, RFLAGS bit 1, TSC = 0. */
void hsk_cpu_state_canonicalise(struct hsk_cpu_state *s);
