/* SPDX-License-Identifier: MIT */
/*
 * What the processor model offers and what the software engine lets pass agree: an instruction of a
 * feature that the model has not is #UD, or, where the architecture gives its bytes an older
 * meaning, that.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include "engine-soft/xlate.h"

#include <cmocka.h>

static const struct {
    const char *feature;
    uint8_t bytes[8];
} instructions[] = {
    {"fma", {0xc4, 0xe2, 0xf1, 0x98, 0xc2}},
    {"movbe", {0x0f, 0x38, 0xf0, 0x06}},
    {"aes", {0x66, 0x0f, 0x38, 0xdc, 0xc1}},
    {"aes", {0xc4, 0xe2, 0x71, 0xdc, 0xc2}},
    {"pclmul", {0x66, 0x0f, 0x3a, 0x44, 0xc1, 0x00}},
    {"avx", {0xc5, 0xf0, 0x58, 0xc2}},
    {"avx2", {0xc5, 0xf5, 0xfe, 0xc2}},
    {"avx2", {0xc4, 0xe2, 0x6d, 0x90, 0x1c, 0x86}},
    {"f16c", {0xc4, 0xe2, 0x79, 0x13, 0xc1}},
    {"rdrand", {0x0f, 0xc7, 0xf0}},
    {"rdseed", {0x0f, 0xc7, 0xf8}},
    {"bmi1", {0xc4, 0xe2, 0x78, 0xf2, 0xc1}},
    {"bmi2", {0xc4, 0xe2, 0x7b, 0xf6, 0xc1}},
    {"adx", {0x66, 0x0f, 0x38, 0xf6, 0xc1}},
    {"sha", {0x0f, 0x38, 0xc8, 0xc1}},
    {"rdtscp", {0x0f, 0x01, 0xf9}},
    {"xsave", {0x0f, 0xae, 0x26}},
    {"xsaveopt", {0x0f, 0xae, 0x36}},
    {"xsavec", {0x0f, 0xc7, 0x26}},
    {"smap", {0x0f, 0x01, 0xca}},
};

/* In no model: AVX-512, VAES, VPCLMULQDQ, GFNI, AVX-VNNI, TSX, RDPID, SERIALIZE, MOVDIRI,
 * CLFLUSHOPT. */
static const uint8_t foreign[][8] = {
    {0x62, 0xf1, 0x74, 0x48, 0x58, 0xc2},
    {0xc4, 0xe2, 0x75, 0xdc, 0xc2},
    {0xc4, 0xe3, 0x75, 0x44, 0xc2, 0x00},
    {0x66, 0x0f, 0x38, 0xcf, 0xc1},
    {0xc4, 0xe2, 0x71, 0x50, 0xc2},
    {0xc7, 0xf8, 0, 0, 0, 0},
    {0xf3, 0x0f, 0xc7, 0xf8},
    {0x0f, 0x01, 0xe8},
    {0x0f, 0x38, 0xf9, 0x06},
    {0x66, 0x0f, 0xae, 0x3e},
};

static struct soft_vcpu *with_model(const char *spec)
{
    struct soft_vcpu *v = g_new0(struct soft_vcpu, 1);
    struct hsk_cpuid cpuid;

    if (!hsk_cpuid_build(&cpuid, spec, 1, 2000000000, NULL))
        fail_msg("no model %s", spec);
    v->code = soft_code_new(false, NULL);
    assert_non_null(v->code);
    soft_decoder_model(v->code, &cpuid);
    return v;
}

static void free_model(struct soft_vcpu *v)
{
    soft_code_free(v->code);
    g_free(v);
}

static struct soft_x decoded(struct soft_vcpu *v, const uint8_t *bytes)
{
    struct soft_x x = {0};
    bool more;

    assert_true(soft_decode(v, &x, SOFT_MODE_SSE | SOFT_MODE_AVX, bytes, 8, 0x1000, &more));
    return x;
}

static bool undefined(const struct soft_x *x)
{
    /* those that the system half knows as undefined it raises #UD for itself */
    return x->kind == SOFT_X_UD ||
           (x->kind == SOFT_X_HELPER && x->in.meta.isa_ext != ZYDIS_ISA_EXT_BASE);
}

static void features_decide(void **state)
{
    (void)state;
    for (unsigned i = 0; i < G_N_ELEMENTS(instructions); i++) {
        const char *f = instructions[i].feature;
        bool in_v2 = !strcmp(f, "rdtscp") || g_str_has_prefix(f, "xsave") || !strcmp(f, "smap");
        g_autofree char *with = !strcmp(f, "avx2") || !strcmp(f, "fma") || !strcmp(f, "f16c")
                                    ? g_strdup_printf("v2,+avx,+%s", f)
                                : in_v2 ? g_strdup("v2")
                                        : g_strdup_printf("v2,+%s", f);
        g_autofree char *without =
            in_v2 ? g_strdup_printf("v2,-%s%s", f,
                                    !strcmp(f, "xsave") ? ",-xsaveopt,-xsavec,-xgetbv1" : "")
                  : g_strdup("v2");
        struct soft_vcpu *a = with_model(without), *b;
        struct soft_x x = decoded(a, instructions[i].bytes);

        assert_int_equal(x.kind, SOFT_X_UD);
        free_model(a);
        if (instructions[i].bytes[1] == 0xe2 && instructions[i].bytes[3] == 0xdc)
            continue; /* wants two features */
        b = with_model(with);
        x = decoded(b, instructions[i].bytes);
        if (x.kind == SOFT_X_UD)
            fail_msg("%s is #UD with %s", f, with);
        free_model(b);
    }
}

static void no_model_has_them(void **state)
{
    struct soft_vcpu *v = with_model("v3");

    (void)state;
    for (unsigned i = 0; i < G_N_ELEMENTS(foreign); i++) {
        struct soft_x x = decoded(v, foreign[i]);

        assert_true(undefined(&x));
    }
    free_model(v);
}

static void older_meanings(void **state)
{
    static const uint8_t lzcnt[8] = {0xf3, 0x0f, 0xbd, 0xc1}, tzcnt[8] = {0xf3, 0x0f, 0xbc, 0xc1};
    struct soft_vcpu *v2 = with_model("v2"), *v3 = with_model("v3");

    (void)state;
    assert_int_equal(decoded(v2, lzcnt).in.mnemonic, ZYDIS_MNEMONIC_BSR);
    assert_int_equal(decoded(v2, tzcnt).in.mnemonic, ZYDIS_MNEMONIC_BSF);
    assert_int_equal(decoded(v3, lzcnt).in.mnemonic, ZYDIS_MNEMONIC_LZCNT);
    assert_int_equal(decoded(v3, tzcnt).in.mnemonic, ZYDIS_MNEMONIC_TZCNT);
    free_model(v2);
    free_model(v3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(features_decide),
        cmocka_unit_test(no_model_has_them),
        cmocka_unit_test(older_meanings),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
