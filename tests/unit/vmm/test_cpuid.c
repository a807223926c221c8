/* SPDX-License-Identifier: MIT */
/* The CPUID model: specifications, leaves that depend on the processor, what is hidden. */
#include <vmm/cpu_bits.h>
#include <vmm/cpuid.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

static bool build(struct hsk_cpuid *c, const char *spec, char **sentence)
{
    g_autoptr(GError) error = NULL;
    bool ok = hsk_cpuid_build(c, spec, 4, 2600000000, &error);

    assert_int_equal(ok, error == NULL);
    if (sentence)
        *sentence = error ? g_strdup(error->message) : NULL;
    return ok;
}

static void specifications(void **state)
{
    struct hsk_cpuid c;
    g_autofree char *why = NULL;

    assert_true(build(&c, "v2", NULL));
    assert_string_equal(c.model, "v2");
    assert_true(hsk_cpuid_has(&c, "sse4.2"));
    assert_false(hsk_cpuid_has(&c, "avx"));
    assert_int_equal(c.xcr0_mask, 3);
    assert_true(build(&c, "v2,-smap,+pcid", NULL));
    assert_string_equal(c.model, "v2,+pcid,-smap");
    assert_false(hsk_cpuid_has(&c, "smap"));
    assert_true(hsk_cpuid_has(&c, "pcid"));
    assert_false(build(&c, "v2,-sse2", NULL));
    assert_false(build(&c, "v4", NULL));
    assert_false(build(&c, "v2,", NULL));
    assert_false(build(&c, "v2,avx", NULL));
    assert_false(build(&c, "v2,+tsx", &why));
    assert_non_null(strstr(why, "+tsx"));
    assert_false(build(&c, "v2,+invpcid", NULL)); /* needs pcid */
    assert_false(hsk_cpuid_has(&c, "tsx"));
}

static void the_normal_form_builds_the_same_model(void **state)
{
    struct hsk_cpuid a, b;

    if (!build(&a, NULL, NULL))
        skip();
    assert_true(build(&b, a.model, NULL));
    assert_memory_equal(&a, &b, sizeof(a));
    assert_int_equal(a.xcr0_mask, 7);
}

static void leaves_of_one_processor(void **state)
{
    struct hsk_cpuid c;
    uint32_t r[4], top[4];

    assert_true(build(&c, "v2", NULL));
    hsk_cpuid_query(&c, 3, 0, 1, 1, 0, r);
    assert_int_equal(r[0], HSK_CPU_SIGNATURE);
    assert_int_equal(r[1] >> 24, 3);
    assert_int_equal(r[1] >> 16 & 0xff, 4);
    assert_int_equal(r[2] >> 27 & 1, 0);
    assert_int_equal(r[2] >> 31 & 1, 1);
    assert_int_equal(r[2] & (1 << 3 | 1 << 5), 0); /* MONITOR, VMX */
    hsk_cpuid_query(&c, 3, HSK_CR4_OSXSAVE, 1, 1, 0, r);
    assert_int_equal(r[2] >> 27 & 1, 1);
    hsk_cpuid_query(&c, 2, 0, 1, 0xb, 1, r);
    assert_int_equal(r[0], 2);
    assert_int_equal(r[1], 4);
    assert_int_equal(r[2], 0x201);
    assert_int_equal(r[3], 2);
    hsk_cpuid_query(&c, 2, 0, 1, 0xb, 5, r);
    assert_int_equal(r[1], 0);
    assert_int_equal(r[2], 5);
    hsk_cpuid_query(&c, 0, 0, 1, 0x15, 0, r);
    assert_int_equal((uint64_t)r[2] * r[1] / r[0], 2600000000);
    /* out of range: the highest basic leaf */
    hsk_cpuid_query(&c, 0, 0, 1, 0x16, 0, top);
    hsk_cpuid_query(&c, 0, 0, 1, 0x17, 0, r);
    assert_memory_equal(r, top, sizeof(r));
    hsk_cpuid_query(&c, 0, 0, 1, 0xc0000000, 0, r);
    assert_memory_equal(r, top, sizeof(r));
    hsk_cpuid_query(&c, 0, 0, 1, 0x40000000, 0, r);
    assert_memory_equal(&r[1], "KVMKVMKVM\0\0\0", 12);
    hsk_cpuid_query(&c, 0, 0, 1, 5, 0, r);
    assert_int_equal(r[0] | r[1] | r[2] | r[3], 0);
}

static void a_hypervisor_that_lacks_a_feature_is_named(void **state)
{
    struct hsk_cpuid c, offered;

    assert_true(build(&c, "v2", NULL));
    assert_true(build(&offered, "v2", NULL));
    assert_null(hsk_cpuid_lacking(&c, &offered));
    assert_true(build(&offered, "v2,-smap,-bhi-ctrl", NULL));
    assert_string_equal(hsk_cpuid_lacking(&c, &offered), "smap"); /* bhi-ctrl is ours to emulate */
    assert_null(hsk_cpuid_lacking(&offered, &c));
}

static void xsave_sizes_follow_xcr0(void **state)
{
    struct hsk_cpuid c;
    uint32_t r[4];

    if (!build(&c, "v3", NULL))
        skip();
    hsk_cpuid_query(&c, 0, 0, 1, 0xd, 0, r);
    assert_int_equal(r[0], 7);
    assert_int_equal(r[1], 576);
    assert_int_equal(r[2], 832);
    hsk_cpuid_query(&c, 0, 0, 7, 0xd, 0, r);
    assert_int_equal(r[1], 832);
    hsk_cpuid_query(&c, 0, 0, 7, 0xd, 2, r);
    assert_int_equal(r[0], 256);
    assert_int_equal(r[1], 576);
    hsk_cpuid_query(&c, 0, 0, 7, 7, 0, r);
    assert_int_equal(r[1] & (1u << 4 | 1u << 11 | 1u << 16 | 1u << 2 | 1u << 14),
                     0);                             /* TSX, AVX-512F, SGX, MPX */
    assert_int_equal(r[2] & (1u << 3 | 1u << 7), 0); /* PKU, CET */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(specifications),
        cmocka_unit_test(the_normal_form_builds_the_same_model),
        cmocka_unit_test(leaves_of_one_processor),
        cmocka_unit_test(a_hypervisor_that_lacks_a_feature_is_named),
        cmocka_unit_test(xsave_sizes_follow_xcr0),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
