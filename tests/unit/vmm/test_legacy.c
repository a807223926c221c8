/* SPDX-License-Identifier: MIT */
/* Rare instructions of the software engine's system half: BCD, PUSHA, ENTER, BOUND, gathers, masked
 * moves, CPUID. */
#include <Zydis/Zydis.h>

#include "soft-fake.h"

#define DATA 0x10000u

static struct fake *setup(bool wide)
{
    struct fake *f = fake_new();

    fake_identity(f);
    if (!wide)
        f->v.s.seg[HSK_CS].attr = 0xc09b;
    for (unsigned i = HSK_ES; i <= HSK_DS; i++)
        if (i != HSK_CS)
            f->v.s.seg[i] =
                (struct hsk_segment){.limit = 0xffffffff, .selector = 0x10, .attr = 0xc093};
    f->v.s.cr4 |= HSK_CR4_OSXSAVE;
    f->v.s.xcr0 = 7;
    f->v.rip = 0x50000;
    soft_segments_changed(&f->v);
    return f;
}

static void decimal_adjustment(void **state)
{
    static const struct {
        uint16_t mnemonic, before;
        uint64_t flags;
        uint16_t after;
        bool cf, af;
    } cases[] = {
        {ZYDIS_MNEMONIC_DAA, 0xae, 0, 0x14, true, true},
        {ZYDIS_MNEMONIC_DAA, 0x2e, HSK_FLAG_CF, 0x94, true, true},
        {ZYDIS_MNEMONIC_DAA, 0x99, 0, 0x99, false, false},
        {ZYDIS_MNEMONIC_DAA, 0xfa, 0, 0x60, true, true},
        {ZYDIS_MNEMONIC_DAS, 0xee, 0, 0x88, true, true},
        {ZYDIS_MNEMONIC_DAS, 0x03, HSK_FLAG_AF, 0xfd, true, true},
        {ZYDIS_MNEMONIC_DAS, 0x43, HSK_FLAG_AF, 0x3d, false, true},
        {ZYDIS_MNEMONIC_AAA, 0x010b, 0, 0x0201, true, true},
        {ZYDIS_MNEMONIC_AAA, 0x0109, 0, 0x0109, false, false},
        {ZYDIS_MNEMONIC_AAS, 0x020b, 0, 0x0105, true, true},
        {ZYDIS_MNEMONIC_AAM, 0x0037, HSK_FLAG_CF | HSK_FLAG_AF, 0x0505, false, false},
        {ZYDIS_MNEMONIC_AAD, 0x1158, 0, 0x0002, true, true},
        {ZYDIS_MNEMONIC_AAD, 0x0505, 0, 0x0037, false, false},
    };
    enum soft_next next;

    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        struct fake *f = setup(false);
        const struct soft_insn in = {.mnemonic = cases[i].mnemonic, .length = 1, .imm = {10}};

        f->v.gpr[HSK_RAX] = cases[i].before;
        f->v.rflags |= cases[i].flags;
        assert_int_equal(fake_exec(f, &in, &next), FAKE_DONE);
        if (f->v.gpr[HSK_RAX] != cases[i].after || !!(f->v.rflags & HSK_FLAG_CF) != cases[i].cf ||
            !!(f->v.rflags & HSK_FLAG_AF) != cases[i].af)
            fail_msg("case %u: 0x%llx flags 0x%llx", i, (unsigned long long)f->v.gpr[HSK_RAX],
                     (unsigned long long)f->v.rflags);
        fake_free(f);
    }
}

static void aam_by_zero_is_a_division_error(void **state)
{
    static const struct soft_insn aam = {.mnemonic = ZYDIS_MNEMONIC_AAM, .length = 2};
    struct fake *f = setup(false);
    enum soft_next next;

    assert_int_equal(fake_exec(f, &aam, &next), FAKE_FAULT);
    assert_int_equal(f->v.exc.vector, VEC_DE);
    assert_false(f->v.exc.has_error);
    fake_free(f);
}

static void pusha_and_popa(void **state)
{
    static const struct soft_insn pusha = {
        .mnemonic = ZYDIS_MNEMONIC_PUSHAD, .length = 1, .opsize = 4};
    static const struct soft_insn popa = {
        .mnemonic = ZYDIS_MNEMONIC_POPAD, .length = 1, .opsize = 4};
    struct fake *f = setup(false);
    enum soft_next next;

    for (unsigned i = 0; i < 8; i++)
        f->v.gpr[i] = 0x1000 + i;
    f->v.gpr[HSK_RSP] = DATA;
    assert_int_equal(fake_exec(f, &pusha, &next), FAKE_DONE);
    assert_int_equal(f->v.gpr[HSK_RSP], DATA - 32);
    for (unsigned i = 0; i < 8; i++)
        assert_int_equal(hsk_get32(f->obj->host + DATA - 4 - 4 * i),
                         i == HSK_RSP ? DATA : 0x1000 + i);
    for (unsigned i = 0; i < 8; i++)
        if (i != HSK_RSP)
            f->v.gpr[i] = 0;
    hsk_put32(f->obj->host + DATA - 20, 0xdead); /* the image of ESP is not used */
    assert_int_equal(fake_exec(f, &popa, &next), FAKE_DONE);
    for (unsigned i = 0; i < 8; i++)
        assert_int_equal(f->v.gpr[i], i == HSK_RSP ? DATA : 0x1000 + i);
    fake_free(f);
}

static void enter_makes_a_frame(void **state)
{
    static const struct soft_insn plain = {
        .mnemonic = ZYDIS_MNEMONIC_ENTER, .length = 4, .opsize = 8, .imm = {0x40, 0}};
    static const struct soft_insn nested = {
        .mnemonic = ZYDIS_MNEMONIC_ENTER, .length = 4, .opsize = 8, .imm = {0x10, 3}};
    struct fake *f = setup(true);
    enum soft_next next;

    f->v.gpr[HSK_RSP] = DATA;
    f->v.gpr[HSK_RBP] = 0x1234;
    assert_int_equal(fake_exec(f, &plain, &next), FAKE_DONE);
    assert_int_equal(f->v.gpr[HSK_RBP], DATA - 8);
    assert_int_equal(f->v.gpr[HSK_RSP], DATA - 0x48);
    assert_int_equal(fake_get(f, DATA - 8), 0x1234);

    f->v.gpr[HSK_RSP] = DATA;
    f->v.gpr[HSK_RBP] = 0x20000;
    fake_set(f, 0x20000 - 8, 0xaaaa);
    fake_set(f, 0x20000 - 16, 0xbbbb);
    assert_int_equal(fake_exec(f, &nested, &next), FAKE_DONE);
    assert_int_equal(fake_get(f, DATA - 8), 0x20000);
    assert_int_equal(fake_get(f, DATA - 16), 0xaaaa);
    assert_int_equal(fake_get(f, DATA - 24), 0xbbbb);
    assert_int_equal(fake_get(f, DATA - 32), DATA - 8);
    assert_int_equal(f->v.gpr[HSK_RSP], DATA - 32 - 0x10);
    assert_int_equal(f->v.gpr[HSK_RBP], DATA - 8);
    /* the new top is not writable: nothing changes */
    fake_set(f, 0x100000 + 8 * ((DATA >> 12) - 1), (DATA - 0x1000) | 5);
    f->v.gpr[HSK_RSP] = DATA + 8;
    assert_int_equal(fake_exec(f, &plain, &next), FAKE_FAULT);
    assert_int_equal(f->v.gpr[HSK_RSP], DATA + 8);
    assert_int_equal(f->v.gpr[HSK_RBP], DATA - 8);
    fake_free(f);
}

static void bound_checks_signed_limits(void **state)
{
    static const struct soft_insn bound = {.mnemonic = ZYDIS_MNEMONIC_BOUND,
                                           .length = 2,
                                           .opsize = 4,
                                           .addrsize = 4,
                                           .seg = HSK_DS,
                                           .base = -1,
                                           .index = -1,
                                           .scale = 1,
                                           .disp = DATA,
                                           .op = {{SOFT_OP_REG, 4, HSK_RCX}, {SOFT_OP_MEM, 8, 0}}};
    struct fake *f = setup(false);
    enum soft_next next;

    hsk_put32(f->obj->host + DATA, (uint32_t)-5);
    hsk_put32(f->obj->host + DATA + 4, 5);
    f->v.gpr[HSK_RCX] = 0xfffffffb;
    assert_int_equal(fake_exec(f, &bound, &next), FAKE_DONE);
    f->v.gpr[HSK_RCX] = 6;
    assert_int_equal(fake_exec(f, &bound, &next), FAKE_FAULT);
    assert_int_equal(f->v.exc.vector, VEC_BR);
    fake_free(f);
}

/* --- vectors --- */

static uint8_t *ymm(struct fake *f, unsigned reg, unsigned byte)
{
    return f->v.s.xsave + (byte < 16 ? HSK_XSAVE_XMM0 : HSK_XSAVE_YMM - 16) + 16 * reg + byte;
}

static void gather_goes_on_after_a_fault(void **state)
{
    static const struct soft_insn gather = {
        .mnemonic = ZYDIS_MNEMONIC_VGATHERDPS,
        .length = 6,
        .opsize = 4,
        .addrsize = 8,
        .seg = HSK_DS,
        .base = HSK_RSI,
        .index = SOFT_INDEX_YMM + 2,
        .scale = 4,
        .op = {{SOFT_OP_VEC, 32, 0}, {SOFT_OP_MEM, 4, 0}, {SOFT_OP_VEC, 32, 1}}};
    static const int32_t index[8] = {0, 3, -2, 100, 1100, 7, 8, 9};
    struct fake *f = setup(true);
    enum soft_next next;

    hsk_put64(f->v.s.xsave + HSK_XSAVE_HEADER, 7);
    for (unsigned i = 0; i < 0x3000; i += 4)
        hsk_put32(f->obj->host + DATA - 0x1000 + i, i);
    for (unsigned i = 0; i < 8; i++) {
        hsk_put32(ymm(f, 0, 4 * i), 0x77777777);
        hsk_put32(ymm(f, 1, 4 * i), i == 5 ? 0x7fffffff : 0x80000000);
        hsk_put32(ymm(f, 2, 4 * i), (uint32_t)index[i]);
    }
    f->v.gpr[HSK_RSI] = DATA;
    fake_set(f, 0x100000 + 8 * ((DATA >> 12) + 1), 0);
    assert_int_equal(fake_exec(f, &gather, &next), FAKE_FAULT);
    assert_int_equal(f->v.exc.payload, DATA + 4400);
    assert_int_equal(hsk_get32(ymm(f, 0, 12)), 0x1000 + 400);
    assert_int_equal(hsk_get32(ymm(f, 1, 12)), 0);
    assert_int_equal(hsk_get32(ymm(f, 1, 16)), 0x80000000);
    fake_set(f, 0x100000 + 8 * ((DATA >> 12) + 1), (DATA + 0x1000) | 7);
    assert_int_equal(fake_exec(f, &gather, &next), FAKE_DONE);
    for (unsigned i = 0; i < 8; i++) {
        assert_int_equal(hsk_get32(ymm(f, 0, 4 * i)), i == 5 ? 0x77777777 : 0x1000 + 4 * index[i]);
        assert_int_equal(hsk_get32(ymm(f, 1, 4 * i)), 0);
    }
    fake_free(f);
}

static void masked_moves_touch_only_what_is_selected(void **state)
{
    struct soft_insn move = {
        .mnemonic = ZYDIS_MNEMONIC_VMASKMOVPD,
        .length = 5,
        .opsize = 8,
        .addrsize = 8,
        .seg = HSK_DS,
        .base = -1,
        .index = -1,
        .scale = 1,
        .disp = DATA + 0x1000 - 16,
        .op = {{SOFT_OP_MEM, 32, 0}, {SOFT_OP_VEC, 32, 1}, {SOFT_OP_VEC, 32, 2}}};
    struct fake *f = setup(true);
    enum soft_next next;

    hsk_put64(f->v.s.xsave + HSK_XSAVE_HEADER, 7);
    memset(f->obj->host + DATA, 0, 0x2000);
    for (unsigned i = 0; i < 32; i++)
        *ymm(f, 2, i) = (uint8_t)(0x40 + i);
    *ymm(f, 1, 7) =
        0x80; /* the first element alone; the last two are on a page that is not there */
    fake_set(f, 0x100000 + 8 * ((DATA >> 12) + 1), 0);
    assert_int_equal(fake_exec(f, &move, &next), FAKE_DONE);
    assert_int_equal(fake_get(f, DATA + 0x1000 - 16), 0x4746454443424140);
    assert_int_equal(fake_get(f, DATA + 0x1000 - 8), 0);
    /* the third as well: a fault before anything is written */
    *ymm(f, 1, 23) = 0x80;
    fake_set(f, DATA + 0x1000 - 16, 0);
    assert_int_equal(fake_exec(f, &move, &next), FAKE_FAULT);
    assert_int_equal(f->v.exc.payload, DATA + 0x1000);
    assert_int_equal(fake_get(f, DATA + 0x1000 - 16), 0);
    /* load: the others become zero */
    fake_set(f, 0x100000 + 8 * ((DATA >> 12) + 1), (DATA + 0x1000) | 7);
    fake_set(f, DATA + 0x1000, 0x1122334455667788);
    move.op[0] = (struct soft_operand){SOFT_OP_VEC, 32, 3};
    move.op[2] = (struct soft_operand){SOFT_OP_MEM, 32, 0};
    memset(ymm(f, 3, 0), 0xff, 16);
    assert_int_equal(fake_exec(f, &move, &next), FAKE_DONE);
    assert_int_equal(hsk_get64(ymm(f, 3, 16)), 0x1122334455667788);
    assert_int_equal(hsk_get64(ymm(f, 3, 8)), 0);
    fake_free(f);
}

static void cpuid_hides_a_disabled_apic(void **state)
{
    struct fake *f = setup(true);
    const struct soft_insn in = {.mnemonic = ZYDIS_MNEMONIC_CPUID, .length = 2};
    struct hsk_lapic lapic = {.base = HSK_APIC_BASE_ENABLE};
    enum soft_next next;

    f->v.base.lapic = &lapic;
    f->v.gpr[HSK_RAX] = 1;
    assert_int_equal(fake_exec(f, &in, &next), FAKE_DONE);
    assert_true(f->v.gpr[HSK_RDX] >> 9 & 1);
    lapic.base = 0;
    f->v.gpr[HSK_RAX] = 1;
    assert_int_equal(fake_exec(f, &in, &next), FAKE_DONE);
    assert_false(f->v.gpr[HSK_RDX] >> 9 & 1);
    fake_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(decimal_adjustment),
        cmocka_unit_test(aam_by_zero_is_a_division_error),
        cmocka_unit_test(pusha_and_popa),
        cmocka_unit_test(enter_makes_a_frame),
        cmocka_unit_test(bound_checks_signed_limits),
        cmocka_unit_test(gather_goes_on_after_a_fault),
        cmocka_unit_test(masked_moves_touch_only_what_is_selected),
        cmocka_unit_test(cpuid_hides_a_disabled_apic),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
