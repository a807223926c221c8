/* SPDX-License-Identifier: MIT */
/*
 * The processor model that guests see: a leaf-by-leaf table (Intel SDM vol. 2, CPUID; KVM leaves:
 * kernel documentation, virt/kvm/x86/cpuid.rst). The same under both engines and on every host, so
 * that a machine can move.
 *
 * Levels are those of the x86-64 psABI. Everything of level v1/v2 and what an operating system
 * expects beside it is in v2. Hidden for good: CET, AMX, PKU, TSX, SGX, MPX, AVX-512, PMU, MONITOR,
 * VMX, XSAVES; a guest gets #UD or #GP for them. ARCH_CAPABILITIES says that the model is not
 * affected by the known flaws, and enhanced IBRS and BHI_DIS_S are offered, so that guests need no
 * retpolines, return thunks or branch history loops: the flaws of the host are the host's to mend.
 *
 * Threads: pure functions on the caller's table.
 */
#include <vmm/cpu_bits.h>
#include <vmm/cpuid.h>

#include <cpuid.h>

enum word {
    W_1_ECX,
    W_1_EDX,
    W_7_EBX,
    W_7_EDX,
    W_72_EDX,
    W_D1_EAX,
    W_X1_ECX,
    W_X1_EDX,
    W_X7_EDX,
    W_6_EAX,
    W_KVM,
    NWORDS
};

enum {
    V2 = 1,     /* part of level v2 */
    V3 = 2,     /* part of level v3 */
    AUTO = 4,   /* in the default model where the host has it */
    HOST = 8,   /* the engines execute it on the host's processor, which must have it */
    FIXED = 16, /* cannot be taken away */
    GUARD = 32, /* the software engine always has it; under KVM a guest that uses it faults where
                   KVM lacks it */
};

struct feature {
    const char *name;
    uint8_t word, bit, flags;
    const char *needs;
};

static const struct feature features[] = {
    {"fpu", W_1_EDX, 0, V2 | FIXED},
    {"vme", W_1_EDX, 1, V2 | GUARD},
    {"de", W_1_EDX, 2, V2},
    {"pse", W_1_EDX, 3, V2 | FIXED},
    {"tsc", W_1_EDX, 4, V2 | FIXED},
    {"msr", W_1_EDX, 5, V2 | FIXED},
    {"pae", W_1_EDX, 6, V2 | FIXED},
    {"mce", W_1_EDX, 7, V2 | FIXED},
    {"cx8", W_1_EDX, 8, V2 | FIXED},
    {"apic", W_1_EDX, 9, V2 | FIXED},
    {"sep", W_1_EDX, 11, V2 | FIXED},
    {"mtrr", W_1_EDX, 12, V2 | FIXED},
    {"pge", W_1_EDX, 13, V2 | FIXED},
    {"mca", W_1_EDX, 14, V2 | FIXED},
    {"cmov", W_1_EDX, 15, V2 | FIXED},
    {"pat", W_1_EDX, 16, V2 | FIXED},
    {"pse36", W_1_EDX, 17, V2 | FIXED},
    {"clfsh", W_1_EDX, 19, V2 | FIXED},
    {"mmx", W_1_EDX, 23, V2 | FIXED},
    {"fxsr", W_1_EDX, 24, V2 | FIXED},
    {"sse", W_1_EDX, 25, V2 | FIXED},
    {"sse2", W_1_EDX, 26, V2 | FIXED},
    {"sse3", W_1_ECX, 0, V2 | HOST | FIXED},
    {"pclmul", W_1_ECX, 1, AUTO | HOST},
    {"ssse3", W_1_ECX, 9, V2 | HOST | FIXED},
    {"fma", W_1_ECX, 12, V3 | HOST, "avx"},
    {"cx16", W_1_ECX, 13, V2 | HOST | FIXED},
    {"pcid", W_1_ECX, 17, AUTO | GUARD},
    {"sse4.1", W_1_ECX, 19, V2 | HOST | FIXED},
    {"sse4.2", W_1_ECX, 20, V2 | HOST | FIXED},
    {"x2apic", W_1_ECX, 21, V2},
    {"movbe", W_1_ECX, 22, V3 | HOST},
    {"popcnt", W_1_ECX, 23, V2 | HOST | FIXED},
    {"tsc-deadline", W_1_ECX, 24, V2},
    {"aes", W_1_ECX, 25, AUTO | HOST},
    {"xsave", W_1_ECX, 26, V2 | HOST},
    {"avx", W_1_ECX, 28, V3 | HOST, "xsave"},
    {"f16c", W_1_ECX, 29, V3 | HOST, "avx"},
    {"rdrand", W_1_ECX, 30, V3 | HOST},
    {"hypervisor", W_1_ECX, 31, V2 | FIXED},
    {"fsgsbase", W_7_EBX, 0, V2 | GUARD},
    {"tsc-adjust", W_7_EBX, 1, V2},
    {"bmi1", W_7_EBX, 3, V3 | HOST},
    {"avx2", W_7_EBX, 5, V3 | HOST, "avx"},
    {"smep", W_7_EBX, 7, V2 | GUARD},
    {"bmi2", W_7_EBX, 8, V3 | HOST},
    {"erms", W_7_EBX, 9, V2},
    {"invpcid", W_7_EBX, 10, AUTO | GUARD, "pcid"},
    {"zero-fcs-fds", W_7_EBX, 13, V2 | FIXED},
    {"rdseed", W_7_EBX, 18, HOST},
    {"adx", W_7_EBX, 19, HOST},
    {"smap", W_7_EBX, 20, V2 | GUARD},
    {"sha", W_7_EBX, 29, HOST},
    {"spec-ctrl", W_7_EDX, 26, V2},
    {"arch-capabilities", W_7_EDX, 29, V2 | FIXED},
    {"bhi-ctrl", W_72_EDX, 4, V2, "spec-ctrl"},
    {"xsaveopt", W_D1_EAX, 0, V2 | GUARD, "xsave"},
    {"xsavec", W_D1_EAX, 1, V2 | GUARD, "xsave"},
    {"xgetbv1", W_D1_EAX, 2, V2 | GUARD, "xsave"},
    {"lahf", W_X1_ECX, 0, V2 | FIXED},
    {"lzcnt", W_X1_ECX, 5, V3 | HOST},
    {"3dnowprefetch", W_X1_ECX, 8, V2},
    {"syscall", W_X1_EDX, 11, V2 | FIXED},
    {"nx", W_X1_EDX, 20, V2 | FIXED},
    {"pdpe1gb", W_X1_EDX, 26, V2 | GUARD},
    {"rdtscp", W_X1_EDX, 27, V2 | GUARD},
    {"lm", W_X1_EDX, 29, V2 | FIXED},
    {"invtsc", W_X7_EDX, 8, V2},
    {"arat", W_6_EAX, 2, V2 | FIXED},
    {"kvmclock-old", W_KVM, 0, V2},
    {"kvm-nop-io-delay", W_KVM, 1, V2},
    {"kvmclock", W_KVM, 3, V2},
    {"kvmclock-stable", W_KVM, 24, V2, "kvmclock"},
};

#define NFEATURES G_N_ELEMENTS(features)

static const struct feature *find_feature(const char *name, size_t len)
{
    for (unsigned i = 0; i < NFEATURES; i++)
        if (strlen(features[i].name) == len && !memcmp(features[i].name, name, len))
            return &features[i];
    return NULL;
}

struct leaf_reg {
    uint32_t leaf, subleaf;
    uint8_t reg; /* 0-3: eax ebx ecx edx */
};
static const struct leaf_reg word_place[NWORDS] = {
    [W_1_ECX] = {1, 0, 2},           [W_1_EDX] = {1, 0, 3},
    [W_7_EBX] = {7, 0, 1},           [W_7_EDX] = {7, 0, 3},
    [W_72_EDX] = {7, 2, 3},          [W_D1_EAX] = {0xd, 1, 0},
    [W_X1_ECX] = {0x80000001, 0, 2}, [W_X1_EDX] = {0x80000001, 0, 3},
    [W_X7_EDX] = {0x80000007, 0, 3}, [W_6_EAX] = {6, 0, 0},
    [W_KVM] = {0x40000001, 0, 0},
};

static bool host_has(const struct feature *f)
{
    const struct leaf_reg *p = &word_place[f->word];
    uint32_t r[4] = {0};

    if (!__get_cpuid_count(p->leaf, p->subleaf, &r[0], &r[1], &r[2], &r[3]))
        return false;
    return r[p->reg] >> f->bit & 1;
}

/* --- the model's text: "v3,+aes,-pcid" -> set of features --- */

static bool parse_item(const char *item, size_t len, bool *on, GError **error)
{
    const struct feature *f =
        len > 1 && (item[0] == '+' || item[0] == '-') ? find_feature(item + 1, len - 1) : NULL;

    if (!f) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_USAGE,
                    "The processor model has no feature \"%.*s\".", (int)MIN(len, 40), item);
        return false;
    }
    if (item[0] == '-' && (f->flags & FIXED)) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_USAGE,
                    "The feature %s cannot be taken away from the processor model.", f->name);
        return false;
    }
    on[f - features] = item[0] == '+';
    return true;
}

static bool parse_spec(const char *spec, bool *on, unsigned *level, GError **error)
{
    const char *p = spec ? spec : "v3";
    bool automatic = !spec;
    size_t len = strcspn(p, ",");

    if (len == 2 && !memcmp(p, "v2", 2)) {
        *level = 2;
    } else if (len == 2 && !memcmp(p, "v3", 2)) {
        *level = 3;
    } else {
        g_set_error(error, HSK_ERROR, HSK_ERROR_USAGE,
                    "Unknown processor model \"%.*s\": use v2 or v3, with ,+feature or ,-feature "
                    "behind it.",
                    (int)MIN(len, 40), p);
        return false;
    }
    for (unsigned i = 0; i < NFEATURES; i++)
        on[i] = (features[i].flags & V2) || (*level == 3 && (features[i].flags & V3)) ||
                (automatic && (features[i].flags & AUTO) && host_has(&features[i]));
    for (p += len; *p; p += len) {
        len = strcspn(++p, ",");
        if (!parse_item(p, len, on, error))
            return false;
    }
    return true;
}

static bool check_features(const bool *on, GError **error)
{
    for (unsigned i = 0; i < NFEATURES; i++) {
        const struct feature *f = &features[i];

        if (!on[i])
            continue;
        if (f->needs && !on[find_feature(f->needs, strlen(f->needs)) - features]) {
            g_set_error(error, HSK_ERROR, HSK_ERROR_USAGE,
                        "The feature %s needs %s: add both or neither.", f->name, f->needs);
            return false;
        }
        if ((f->flags & HOST) && !host_has(f)) {
            g_set_error(
                error, HSK_ERROR, HSK_ERROR_UNSUPPORTED,
                "The machine's processor model has %s, which this computer's processor lacks.",
                f->name);
            return false;
        }
    }
    return true;
}

static bool normalise(struct hsk_cpuid *out, const bool *on, unsigned level, GError **error)
{
    g_autoptr(GString) text = g_string_new(level == 3 ? "v3" : "v2");

    for (unsigned i = 0; i < NFEATURES; i++) {
        bool base = (features[i].flags & V2) || (level == 3 && (features[i].flags & V3));

        if (on[i] != base)
            g_string_append_printf(text, ",%c%s", on[i] ? '+' : '-', features[i].name);
    }
    if (text->len >= sizeof(out->model)) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_USAGE,
                    "The processor model changes too many features: %s", text->str);
        return false;
    }
    memcpy(out->model, text->str, text->len + 1);
    return true;
}

/* --- the leaves --- */

static void add(struct hsk_cpuid *c, uint32_t leaf, int subleaf, uint32_t eax, uint32_t ebx,
                uint32_t ecx, uint32_t edx)
{
    hsk_assert(c->count < HSK_CPUID_MAX);
    c->leaf[c->count++] = (struct hsk_cpuid_leaf){
        .leaf = leaf,
        .subleaf = subleaf < 0 ? 0 : (uint32_t)subleaf,
        .has_subleaf = subleaf >= 0,
        .eax = eax,
        .ebx = ebx,
        .ecx = ecx,
        .edx = edx,
    };
}

static uint32_t text32(const char *s)
{
    return hsk_get32(s);
}

/* Bits of an APIC id that number the processors of the package. */
static unsigned core_bits(unsigned ncpus)
{
    unsigned bits = 0;

    while ((1u << bits) < ncpus)
        bits++;
    return bits;
}

static void add_caches(struct hsk_cpuid *c, unsigned ncpus)
{
    const uint32_t cores = ((1u << core_bits(ncpus)) - 1) << 26;

    /* type | level << 5 | self-initialising | sharing; ways, line size 64; sets: 32 KiB, 32 KiB, 1
     * MiB, 16 MiB shared */
    add(c, 4, 0, cores | 1 | 1 << 5 | 1 << 8, 7u << 22 | 63, 63, 0);
    add(c, 4, 1, cores | 2 | 1 << 5 | 1 << 8, 7u << 22 | 63, 63, 0);
    add(c, 4, 2, cores | 3 | 2 << 5 | 1 << 8, 15u << 22 | 63, 1023, 0);
    add(c, 4, 3, cores | 3 | 3 << 5 | 1 << 8 | ((1u << core_bits(ncpus)) - 1) << 14, 15u << 22 | 63,
        16383, 4);
    add(c, 4, 4, 0, 0, 0, 0);
}

static void add_time(struct hsk_cpuid *c, uint64_t tsc_hz)
{
    const uint32_t mhz = (uint32_t)MIN(tsc_hz / 1000000, 65535);

    /* The crystal is what the APIC timer counts: 1 GHz. A TSC that is no whole number of MHz cannot
       be told without overflowing the guests' 32-bit arithmetic; they calibrate then. */
    if (tsc_hz % 1000000 == 0)
        add(c, 0x15, -1, 1000, mhz, 1000000000, 0);
    else
        add(c, 0x15, -1, 0, 0, 0, 0);
    add(c, 0x16, -1, mhz, mhz, 100, 0);
}

static void add_leaves(struct hsk_cpuid *c, const uint32_t *w, unsigned ncpus, uint64_t tsc_hz)
{
    const char brand[48] = "Haversack Virtual Processor";
    const bool xsave = w[W_1_ECX] >> 26 & 1;
    const unsigned bits = core_bits(ncpus);

    add(c, 0, -1, 0x16, text32("Genu"), text32("ntel"), text32("ineI"));
    add(c, 1, -1, HSK_CPU_SIGNATURE, 8 << 8 | (1u << bits) << 16, w[W_1_ECX],
        w[W_1_EDX] | (ncpus > 1 ? 1u << 28 : 0));
    add(c, 2, -1, 0x00feff01, 0, 0, 0); /* TLB and caches: see leaf 4 */
    add_caches(c, ncpus);
    add(c, 6, -1, w[W_6_EAX], 0, 0, 0);
    add(c, 7, 0, 2, w[W_7_EBX], 0, w[W_7_EDX]);
    add(c, 7, 1, 0, 0, 0, 0);
    add(c, 7, 2, 0, 0, 0, w[W_72_EDX]);
    add(c, 0xb, 0, 0, 1, 0x100, 0);
    add(c, 0xb, 1, bits, ncpus, 0x201, 0);
    if (xsave) {
        add(c, 0xd, 0, (uint32_t)c->xcr0_mask, 0,
            c->xcr0_mask & HSK_XCR0_AVX ? HSK_XSAVE_END : HSK_XSAVE_YMM, 0);
        add(c, 0xd, 1, w[W_D1_EAX], 0, 0, 0);
        if (c->xcr0_mask & HSK_XCR0_AVX)
            add(c, 0xd, 2, 256, HSK_XSAVE_YMM, 0, 0);
    }
    add_time(c, tsc_hz);
    add(c, 0x40000000, -1, 0x40000010, text32("KVMK"), text32("VMKV"), text32("M\0\0"));
    add(c, 0x40000001, -1, w[W_KVM], 0, 0, 0);
    add(c, 0x40000010, -1, (uint32_t)(tsc_hz / 1000), 1000000, 0, 0);
    add(c, 0x80000000, -1, 0x80000008, 0, 0, 0);
    add(c, 0x80000001, -1, 0, 0, w[W_X1_ECX], w[W_X1_EDX]);
    for (unsigned i = 0; i < 3; i++)
        add(c, 0x80000002 + i, -1, text32(brand + 16 * i), text32(brand + 16 * i + 4),
            text32(brand + 16 * i + 8), text32(brand + 16 * i + 12));
    add(c, 0x80000006, -1, 0, 0, 1024 << 16 | 6 << 12 | 64, 0);
    add(c, 0x80000007, -1, 0, 0, 0, w[W_X7_EDX]);
    add(c, 0x80000008, -1, 48 << 8 | HSK_PHYS_BITS, 0, 0, 0);
}

bool hsk_cpuid_build(struct hsk_cpuid *out, const char *spec, unsigned ncpus, uint64_t tsc_hz,
                     GError **error)
{
    bool on[NFEATURES];
    uint32_t words[NWORDS] = {0};
    unsigned level;

    memset(out, 0, sizeof(*out));
    if (!parse_spec(spec, on, &level, error) || !check_features(on, error) ||
        !normalise(out, on, level, error))
        return false;
    for (unsigned i = 0; i < NFEATURES; i++)
        if (on[i])
            words[features[i].word] |= 1u << features[i].bit;
    if (words[W_1_ECX] >> 26 & 1)
        out->xcr0_mask =
            HSK_XCR0_X87 | HSK_XCR0_SSE | (words[W_1_ECX] >> 28 & 1 ? HSK_XCR0_AVX : 0);
    add_leaves(out, words, MAX(ncpus, 1), tsc_hz);
    return true;
}

static const struct hsk_cpuid_leaf *find_leaf(const struct hsk_cpuid *c, uint32_t leaf,
                                              uint32_t subleaf)
{
    for (unsigned i = 0; i < c->count; i++)
        if (c->leaf[i].leaf == leaf && (!c->leaf[i].has_subleaf || c->leaf[i].subleaf == subleaf))
            return &c->leaf[i];
    return NULL;
}

void hsk_cpuid_query(const struct hsk_cpuid *c, unsigned index, uint64_t cr4, uint64_t xcr0,
                     uint32_t leaf, uint32_t subleaf, uint32_t out[4])
{
    const uint32_t area = xcr0 & HSK_XCR0_AVX ? HSK_XSAVE_END : HSK_XSAVE_YMM;
    const struct hsk_cpuid_leaf *l;

    memset(out, 0, 16);
    /* A leaf beyond the last of its range answers as the highest basic leaf (SDM vol. 2, CPUID). */
    if ((leaf > 0x16 && leaf < 0x40000000) || (leaf > 0x40000010 && leaf < 0x80000000) ||
        leaf > 0x80000008)
        leaf = 0x16;
    l = find_leaf(c, leaf, subleaf);
    if (l) {
        out[0] = l->eax;
        out[1] = l->ebx;
        out[2] = l->ecx;
        out[3] = l->edx;
    }
    switch (leaf) {
    case 1:
        out[1] |= index << 24;
        if (cr4 & HSK_CR4_OSXSAVE)
            out[2] |= 1u << 27;
        break;
    case 0xb:
        if (!l)
            out[2] = subleaf & 0xff;
        out[3] = index;
        break;
    case 0xd:
        if (l && subleaf <= 1)
            out[1] = area;
        break;
    default:
        break;
    }
}

static bool has(const struct hsk_cpuid *c, const struct feature *f)
{
    const struct leaf_reg *p = &word_place[f->word];
    const struct hsk_cpuid_leaf *l = find_leaf(c, p->leaf, p->subleaf);
    uint32_t r[4];

    if (!l)
        return false;
    r[0] = l->eax;
    r[1] = l->ebx;
    r[2] = l->ecx;
    r[3] = l->edx;
    return r[p->reg] >> f->bit & 1;
}

bool hsk_cpuid_has(const struct hsk_cpuid *c, const char *feature)
{
    const struct feature *f = find_feature(feature, strlen(feature));

    return f && has(c, f);
}

const char *hsk_cpuid_lacking(const struct hsk_cpuid *c, const struct hsk_cpuid *offered)
{
    for (unsigned i = 0; i < NFEATURES; i++)
        if ((features[i].flags & (HOST | GUARD)) && has(c, &features[i]) &&
            !has(offered, &features[i]))
            return features[i].name;
    return NULL;
}
