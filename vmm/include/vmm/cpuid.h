/* SPDX-License-Identifier: MIT */
/*
 * The one CPU model that guests see under both engines: "--cpu v2|v3[,+feat,-feat]", vendor
 * GenuineIntel, one fixed family and model (architecture.md). A leaf-by-leaf table; nothing of the
 * host shines through but what the table allows.
 */
#pragma once

#include <base/util.h>

struct hsk_cpuid_leaf {
    uint32_t leaf, subleaf;
    uint32_t has_subleaf; /* 0: any subleaf */
    uint32_t eax, ebx, ecx, edx;
};

#define HSK_CPUID_MAX 64

struct hsk_cpuid {
    char model[128]; /* normalised text, e.g. "v3,+aes,+pclmul": recorded in every version */
    struct hsk_cpuid_leaf leaf[HSK_CPUID_MAX];
    uint32_t count;
    uint64_t xcr0_mask; /* what XSETBV may set */
};

/* spec: NULL = default (v3 plus AES and PCLMUL where the host has them). Refuses, naming the
   feature, what the model promises and the host lacks. ncpus and tsc_hz go into the topology and
   0x15/0x16 leaves. */
bool hsk_cpuid_build(struct hsk_cpuid *out, const char *spec, unsigned ncpus, uint64_t tsc_hz,
                     GError **error);
/* What CPUID returns for vCPU index (APIC id, OSXSAVE from cr4, XSAVE size from xcr0 filled in).
 * Intel rule for leaves out of range. */
void hsk_cpuid_query(const struct hsk_cpuid *c, unsigned index, uint64_t cr4, uint64_t xcr0,
                     uint32_t leaf, uint32_t subleaf, uint32_t out[4]);
/* Feature test by name ("avx2", "smap"): does the model have it? */
bool hsk_cpuid_has(const struct hsk_cpuid *c, const char *feature);
/* The first feature that the model has, a guest would fault on, and offered (the leaves of a
 * hypervisor) has not; or NULL. */
const char *hsk_cpuid_lacking(const struct hsk_cpuid *c, const struct hsk_cpuid *offered);
