/* SPDX-License-Identifier: MIT */
/* The canonical processor state: table coverage, reset, check, canonical form. */
#include <vmm/cpu_bits.h>
#include <vmm/cpu_state.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

static void every_byte_is_in_the_table_once(void **state)
{
    const struct hsk_state_desc *d = &hsk_cpu_state_desc;
    g_autofree uint8_t *seen = g_malloc0(d->size);

    assert_int_equal(d->size, sizeof(struct hsk_cpu_state));
    for (unsigned i = 0; i < d->nfields; i++) {
        const struct hsk_field *f = &d->fields[i];

        assert_true(hsk_range_ok(f->offset, (uint64_t)f->elem * f->count, d->size));
        for (unsigned b = 0; b < f->elem * f->count; b++)
            seen[f->offset + b]++;
        for (unsigned j = 0; j < i; j++)
            assert_string_not_equal(f->name, d->fields[j].name);
    }
    for (unsigned b = 0; b < d->size; b++)
        if (seen[b] != 1)
            fail_msg("byte %u is covered %u times", b, seen[b]);
}

static void reset_state_passes_and_survives_saving(void **state)
{
    struct hsk_cpu_state a, b;
    struct hsk_state_writer *w = hsk_state_writer_new();
    g_autoptr(GBytes) bytes = NULL;
    struct hsk_state_reader *r;

    for (unsigned i = 0; i < 2; i++) {
        hsk_cpu_state_reset(&a, i);
        assert_true(hsk_cpu_state_check(&a, NULL));
    }
    assert_int_equal(a.activity, HSK_ACT_WAIT_SIPI);
    hsk_cpu_state_reset(&a, 0);
    assert_int_equal(a.seg[HSK_CS].base + a.rip, 0xfffffff0);
    a.gpr[5] = 0x1122334455667788;
    a.xsave[700] = 9;
    hsk_state_put(w, "cpu.0", &hsk_cpu_state_desc, &a);
    bytes = hsk_state_writer_finish(w);
    r = hsk_state_reader_new(bytes, NULL);
    assert_non_null(r);
    assert_true(hsk_state_get(r, "cpu.0", &hsk_cpu_state_desc, &b, NULL));
    assert_memory_equal(&a, &b, sizeof(a));
    hsk_state_reader_free(r);
    hsk_state_writer_free(w);
}

#define REFUSED(change)                                                                            \
    do {                                                                                           \
        g_autoptr(GError) error = NULL;                                                            \
        struct hsk_cpu_state s;                                                                    \
        hsk_cpu_state_reset(&s, 0);                                                                \
        change;                                                                                    \
        if (hsk_cpu_state_check(&s, &error))                                                       \
            fail_msg("not refused: %s", #change);                                                  \
        assert_non_null(error);                                                                    \
    } while (0)

/* SDM vol. 3, table 10-1 and 9.4.4 */
static void init_keeps_what_it_must_and_sipi_starts(void **state)
{
    struct hsk_cpu_state s, fresh;

    for (unsigned index = 0; index < 2; index++) {
        hsk_cpu_state_reset(&fresh, index);
        hsk_cpu_state_reset(&s, index);
        s.gpr[HSK_RAX] = 1;
        s.rip = 0x1234;
        s.rflags |= HSK_FLAG_IF;
        s.cr0 = HSK_CR0_PE | HSK_CR0_PG | HSK_CR0_ET | HSK_CR0_CD;
        s.cr2 = s.cr3 = 0x1000;
        s.cr4 = HSK_CR4_PAE;
        s.efer = HSK_EFER_LME | HSK_EFER_LMA;
        s.dr[7] |= 1;
        s.nmi_masked = s.interrupt_pending = s.exception_pending = 1;
        s.activity = HSK_ACT_HALTED;
        s.xcr0 = 7;
        s.tsc_adjust = 5;
        s.lstar = 0xffffffff81000000;
        s.mtrr_def_type = 0x806;
        s.xsave[HSK_XSAVE_XMM0] = 0x42;
        hsk_cpu_state_init(&s, index);
        assert_memory_equal(s.gpr, fresh.gpr, sizeof s.gpr);
        assert_memory_equal(s.seg, fresh.seg, sizeof s.seg);
        assert_memory_equal(s.dr, fresh.dr, sizeof s.dr);
        assert_int_equal(s.rip, 0xfff0);
        assert_int_equal(s.rflags, HSK_FLAG_FIXED);
        assert_int_equal(s.cr0, HSK_CR0_ET | HSK_CR0_CD);
        assert_int_equal(s.cr2 | s.cr3 | s.cr4 | s.efer, 0);
        assert_int_equal(s.nmi_masked | s.interrupt_pending | s.exception_pending, 0);
        assert_int_equal(s.activity, index ? HSK_ACT_WAIT_SIPI : HSK_ACT_RUN);
        assert_int_equal(s.xcr0, 7);
        assert_int_equal(s.tsc_adjust, 5);
        assert_int_equal(s.lstar, 0xffffffff81000000);
        assert_int_equal(s.mtrr_def_type, 0x806);
        assert_int_equal(s.xsave[HSK_XSAVE_XMM0], 0x42);
        assert_true(hsk_cpu_state_check(&s, NULL));
    }
    hsk_cpu_state_sipi(&s, 0x9a);
    assert_int_equal(s.seg[HSK_CS].selector, 0x9a00);
    assert_int_equal(s.seg[HSK_CS].base, 0x9a000);
    assert_int_equal(s.rip, 0);
    assert_int_equal(s.activity, HSK_ACT_RUN);
    assert_true(hsk_cpu_state_check(&s, NULL));
}

static void impossible_states_are_refused(void **state)
{
    REFUSED(s.rflags = 0);
    REFUSED(s.rflags |= 1ull << 15);
    REFUSED(s.rflags |= HSK_FLAG_VM);
    REFUSED(s.cr0 |= HSK_CR0_PG);
    REFUSED(s.cr0 |= 1ull << 32);
    REFUSED(s.cr4 |= 1ull << 12);
    REFUSED(s.cr3 = 1ull << 60);
    REFUSED(s.efer |= HSK_EFER_LMA);
    REFUSED(s.xcr0 = 0);
    REFUSED(s.xcr0 = 5);
    REFUSED(s.xcr0 = 0xe7);
    REFUSED(s.lstar = 1ull << 50);
    REFUSED(s.seg[HSK_GS].base = 1ull << 50);
    REFUSED(s.seg[HSK_DS].base = 1ull << 32);
    REFUSED(s.seg[HSK_DS].attr = 0x100);
    REFUSED(s.seg[HSK_CS].attr = 0);
    REFUSED(s.rip = 1ull << 40);
    REFUSED(s.pat = 2);
    REFUSED(s.dr[6] |= 1ull << 33);
    REFUSED(s.cr8 = 16);
    REFUSED(s.activity = 4);
    REFUSED(s.interrupt_vector = 256);
    REFUSED(s.exception_vector = 32);
    REFUSED(hsk_put64(s.xsave + HSK_XSAVE_HEADER, 8));
    REFUSED(hsk_put64(s.xsave + HSK_XSAVE_HEADER + 8, 1ull << 63));
    REFUSED(hsk_put32(s.xsave + HSK_XSAVE_MXCSR, 0x10000));
    REFUSED(s.reserved[1] = 1);
}

static void equal_states_in_two_codings_become_equal(void **state)
{
    struct hsk_cpu_state a, b;

    hsk_cpu_state_reset(&a, 0);
    b = a;
    /* the same registers said otherwise: components explicit, accessed bits, leftovers of a null
     * segment, FIP */
    hsk_put64(b.xsave + HSK_XSAVE_HEADER, 7);
    hsk_put64(b.xsave + 8, 0x123456);
    b.seg[HSK_DS].attr &= ~1;
    a.seg[HSK_ES] = (struct hsk_segment){.selector = 3};
    b.seg[HSK_ES] = (struct hsk_segment){.selector = 3, .base = 77, .limit = 5, .attr = 0x13};
    b.tsc = 12345;
    hsk_cpu_state_canonicalise(&a);
    hsk_cpu_state_canonicalise(&b);
    assert_memory_equal(&a, &b, sizeof(a));
    /* a real difference stays one */
    b.xsave[HSK_XSAVE_YMM + 9] = 1;
    hsk_put64(b.xsave + HSK_XSAVE_HEADER, HSK_XCR0_AVX);
    hsk_cpu_state_canonicalise(&b);
    assert_int_equal(hsk_get64(b.xsave + HSK_XSAVE_HEADER), HSK_XCR0_AVX);
    assert_int_equal(b.xsave[HSK_XSAVE_YMM + 9], 1);
    assert_int_not_equal(memcmp(&a, &b, sizeof(a)), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_byte_is_in_the_table_once),
        cmocka_unit_test(reset_state_passes_and_survives_saving),
        cmocka_unit_test(init_keeps_what_it_must_and_sipi_starts),
        cmocka_unit_test(impossible_states_are_refused),
        cmocka_unit_test(equal_states_in_two_codings_become_equal),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
