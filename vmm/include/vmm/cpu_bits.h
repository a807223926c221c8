/* SPDX-License-Identifier: MIT */
/*
 * Names of architectural bits (Intel SDM vol. 3: 2, 4, 6; vol. 4 for MSRs), limited to what our
 * processor model has: the *_VALID masks are what a guest may set.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* RFLAGS */
#define HSK_FLAG_CF    0x1ull
#define HSK_FLAG_FIXED 0x2ull
#define HSK_FLAG_PF    0x4ull
#define HSK_FLAG_AF    0x10ull
#define HSK_FLAG_ZF    0x40ull
#define HSK_FLAG_SF    0x80ull
#define HSK_FLAG_TF    0x100ull
#define HSK_FLAG_IF    0x200ull
#define HSK_FLAG_DF    0x400ull
#define HSK_FLAG_OF    0x800ull
#define HSK_FLAG_IOPL  0x3000ull
#define HSK_FLAG_NT    0x4000ull
#define HSK_FLAG_RF    0x10000ull
#define HSK_FLAG_VM    0x20000ull
#define HSK_FLAG_AC    0x40000ull
#define HSK_FLAG_VIF   0x80000ull
#define HSK_FLAG_VIP   0x100000ull
#define HSK_FLAG_ID    0x200000ull
#define HSK_FLAG_ARITH                                                                             \
    (HSK_FLAG_CF | HSK_FLAG_PF | HSK_FLAG_AF | HSK_FLAG_ZF | HSK_FLAG_SF | HSK_FLAG_OF)
#define HSK_FLAG_VALID 0x3f7fd7ull

/* CR0 */
#define HSK_CR0_PE 0x1ull
#define HSK_CR0_MP 0x2ull
#define HSK_CR0_EM 0x4ull
#define HSK_CR0_TS 0x8ull
#define HSK_CR0_ET 0x10ull
#define HSK_CR0_NE 0x20ull
#define HSK_CR0_WP 0x10000ull
#define HSK_CR0_AM 0x40000ull
#define HSK_CR0_NW 0x20000000ull
#define HSK_CR0_CD 0x40000000ull
#define HSK_CR0_PG 0x80000000ull
#define HSK_CR0_VALID                                                                              \
    (HSK_CR0_PE | HSK_CR0_MP | HSK_CR0_EM | HSK_CR0_TS | HSK_CR0_ET | HSK_CR0_NE | HSK_CR0_WP |    \
     HSK_CR0_AM | HSK_CR0_NW | HSK_CR0_CD | HSK_CR0_PG)

/* CR4 */
#define HSK_CR4_VME        0x1ull
#define HSK_CR4_PVI        0x2ull
#define HSK_CR4_TSD        0x4ull
#define HSK_CR4_DE         0x8ull
#define HSK_CR4_PSE        0x10ull
#define HSK_CR4_PAE        0x20ull
#define HSK_CR4_MCE        0x40ull
#define HSK_CR4_PGE        0x80ull
#define HSK_CR4_PCE        0x100ull
#define HSK_CR4_OSFXSR     0x200ull
#define HSK_CR4_OSXMMEXCPT 0x400ull
#define HSK_CR4_FSGSBASE   0x10000ull
#define HSK_CR4_PCIDE      0x20000ull
#define HSK_CR4_OSXSAVE    0x40000ull
#define HSK_CR4_SMEP       0x100000ull
#define HSK_CR4_SMAP       0x200000ull
#define HSK_CR4_VALID                                                                              \
    (HSK_CR4_VME | HSK_CR4_PVI | HSK_CR4_TSD | HSK_CR4_DE | HSK_CR4_PSE | HSK_CR4_PAE |            \
     HSK_CR4_MCE | HSK_CR4_PGE | HSK_CR4_PCE | HSK_CR4_OSFXSR | HSK_CR4_OSXMMEXCPT |               \
     HSK_CR4_FSGSBASE | HSK_CR4_PCIDE | HSK_CR4_OSXSAVE | HSK_CR4_SMEP | HSK_CR4_SMAP)

/* EFER */
#define HSK_EFER_SCE   0x1ull
#define HSK_EFER_LME   0x100ull
#define HSK_EFER_LMA   0x400ull
#define HSK_EFER_NXE   0x800ull
#define HSK_EFER_VALID (HSK_EFER_SCE | HSK_EFER_LME | HSK_EFER_LMA | HSK_EFER_NXE)

/* debug registers */
#define HSK_DR6_FIXED 0xffff0ff0ull
#define HSK_DR6_VALID 0xffffeffful /* bit 12 is always 0 */
#define HSK_DR6_TRAPS 0xfull
#define HSK_DR6_BD    0x2000ull
#define HSK_DR6_BS    0x4000ull
#define HSK_DR6_BT    0x8000ull
#define HSK_DR7_FIXED 0x400ull
#define HSK_DR7_GD    0x2000ull

/* XCR0 and the standard XSAVE format (SDM vol. 1, 13.4) */
#define HSK_XCR0_X87 1u
#define HSK_XCR0_SSE 2u
#define HSK_XCR0_AVX 4u
#define HSK_XCR0_ALL 7u
enum {
    HSK_XSAVE_FCW = 0,
    HSK_XSAVE_FOP = 6,
    HSK_XSAVE_MXCSR = 24,
    HSK_XSAVE_MXCSR_MASK = 28,
    HSK_XSAVE_ST0 = 32,
    HSK_XSAVE_XMM0 = 160,
    HSK_XSAVE_LEGACY_END = 416,
    HSK_XSAVE_HEADER = 512,
    HSK_XSAVE_YMM = 576,
    HSK_XSAVE_END = 832,
};
#define HSK_MXCSR_VALID 0xffffu

#define HSK_SEG_ATTR_VALID    0xf0ff
#define HSK_MISC_ENABLE_RESET 0x1801ull /* fast strings; BTS and PEBS unavailable */
#define HSK_SPEC_CTRL_VALID   0x407u    /* IBRS, STIBP, SSBD, BHI_DIS_S */

/* IA32_ARCH_CAPABILITIES of the model: RDCL_NO, IBRS_ALL, SKIP_L1DFL_VMENTRY, SSB_NO, MDS_NO,
   PSCHANGE_MC_NO, TAA_NO, SBDR_SSDP_NO, FBSDP_NO, PSDP_NO, BHI_NO, PBRSB_NO, GDS_NO, RFDS_NO,
   ITS_NO */
#define HSK_ARCH_CAPABILITIES                                                                      \
    (1ull << 0 | 1ull << 1 | 1ull << 3 | 1ull << 4 | 1ull << 5 | 1ull << 6 | 1ull << 8 |           \
     1ull << 13 | 1ull << 14 | 1ull << 15 | 1ull << 20 | 1ull << 24 | 1ull << 26 | 1ull << 27 |    \
     1ull << 62)

/* The model (cpuid.c): family 6, model 0x3b, stepping 1; 39 physical and 48 linear address bits.
   Intel never sold this model: programs that choose code by the name of a processor (GCC's
   target_clones) would take its features for granted. */
#define HSK_CPU_SIGNATURE 0x000306b1u
#define HSK_PHYS_BITS     39
#define HSK_PHYS_MASK     ((1ull << HSK_PHYS_BITS) - 1)

static inline bool hsk_canonical(uint64_t va)
{
    return (uint64_t)((int64_t)(va << 16) >> 16) == va;
}

static inline bool hsk_xcr0_valid(uint64_t xcr0)
{
    return !(xcr0 & ~(uint64_t)HSK_XCR0_ALL) && (xcr0 & HSK_XCR0_X87) &&
           (!(xcr0 & HSK_XCR0_AVX) || (xcr0 & HSK_XCR0_SSE));
}

static inline bool hsk_pat_valid(uint64_t pat)
{
    for (unsigned i = 0; i < 8; i++) {
        uint8_t t = pat >> (8 * i);

        if (t > 7 || t == 2 || t == 3)
            return false;
    }
    return true;
}
