/* SPDX-License-Identifier: MIT */
/* String instructions and FPU state of the software engine's system half: against the host's own
 * instructions. */
#include <Zydis/Zydis.h>

#include "soft-fake.h"

#define SRC 0x10000u
#define DST 0x20000u

static struct fake *setup(void)
{
    struct fake *f = fake_new();

    fake_identity(f);
    for (unsigned i = 0; i < 0x20000; i++)
        f->obj->host[SRC + i] = (uint8_t)(i * 7 + (i >> 8));
    f->v.rip = 0x50000;
    return f;
}

static enum fake_end run(struct fake *f, uint16_t mnemonic, uint8_t rep, uint8_t addrsize,
                         enum soft_next *next)
{
    const struct soft_insn in = {.mnemonic = mnemonic,
                                 .length = 2,
                                 .addrsize = addrsize,
                                 .mode = 8,
                                 .rep = rep,
                                 .seg = HSK_DS};
    const int end = setjmp(f->out);

    if (end)
        return (enum fake_end)end;
    *next = soft_exec_string(&f->v, &in);
    return FAKE_DONE;
}

static const uint16_t movs[] = {ZYDIS_MNEMONIC_MOVSB, ZYDIS_MNEMONIC_MOVSW, ZYDIS_MNEMONIC_MOVSD,
                                ZYDIS_MNEMONIC_MOVSQ};

/* All sizes, both directions, overlaps closer than an element, pages crossed anywhere: as one
 * element after the other. */
static void moves_have_the_order_of_elements(void **state)
{
    static const int distances[] = {0x4003, 1, -1, 3, -5, 8, 4096, -4095};
    g_autofree uint8_t *expect = g_malloc(FAKE_RAM_BYTES);
    enum soft_next next;

    for (unsigned c = 0; c < 4 * 2 * G_N_ELEMENTS(distances); c++) {
        struct fake *f = setup();
        const unsigned size = 1u << (c & 3);
        const bool down = c >> 2 & 1;
        const unsigned count = 10000 / size;
        uint64_t src = SRC + 0x2ffd, dst = src + (uint64_t)(int64_t)distances[c >> 3];

        if (down) {
            src += (uint64_t)(count - 1) * size;
            dst += (uint64_t)(count - 1) * size;
            f->v.rflags |= HSK_FLAG_DF;
        }
        memcpy(expect, f->obj->host, FAKE_RAM_BYTES);
        for (unsigned i = 0; i < count; i++) {
            const int64_t off = (int64_t)i * size * (down ? -1 : 1);

            memmove(expect + dst + off, expect + src + off, size);
        }
        f->v.gpr[HSK_RSI] = src;
        f->v.gpr[HSK_RDI] = dst;
        f->v.gpr[HSK_RCX] = count;
        assert_int_equal(run(f, movs[c & 3], 0xf3, 8, &next), FAKE_DONE);
        assert_int_equal(f->v.gpr[HSK_RCX], 0);
        assert_int_equal(f->v.gpr[HSK_RSI],
                         src + (down ? -(uint64_t)count * size : (uint64_t)count * size));
        assert_int_equal(f->v.gpr[HSK_RDI],
                         dst + (down ? -(uint64_t)count * size : (uint64_t)count * size));
        assert_int_equal(f->v.rip, 0x50002);
        for (unsigned i = 0; i < 0x40000; i++)
            if (f->obj->host[i] != expect[i] && i >= 0x9000)
                fail_msg("size %u down %d distance %d: byte 0x%x", size, down, distances[c >> 3],
                         i);
        fake_free(f);
    }
}

static void a_fault_leaves_the_registers_at_the_element(void **state)
{
    struct fake *f = setup();
    enum soft_next next;

    fake_set(f, 0x100000 + 8 * ((DST >> 12) + 2), 0); /* the third page of the destination */
    f->v.gpr[HSK_RSI] = SRC;
    f->v.gpr[HSK_RDI] = DST + 4;
    f->v.gpr[HSK_RCX] = 0x3000 / 8;
    assert_int_equal(run(f, ZYDIS_MNEMONIC_MOVSQ, 0xf3, 8, &next), FAKE_FAULT);
    assert_int_equal(f->v.exc.vector, VEC_PF);
    assert_int_equal(f->v.exc.payload, DST + 0x2000);
    assert_int_equal(f->v.gpr[HSK_RDI], DST + 0x1ffc);
    assert_int_equal(f->v.gpr[HSK_RSI], SRC + 0x1ff8);
    assert_int_equal(f->v.gpr[HSK_RCX], (0x3000 - 0x1ff8) / 8);
    assert_int_equal(f->v.rip, 0x50000);
    /* the crossing element was not half written */
    assert_int_equal(f->obj->host[DST + 0x1ffc],
                     (uint8_t)((0x10000 + 0x1ffc) * 7 + (0x11ffc >> 8)));
    fake_set(f, 0x100000 + 8 * ((DST >> 12) + 2), (DST + 0x2000) | 7);
    assert_int_equal(run(f, ZYDIS_MNEMONIC_MOVSQ, 0xf3, 8, &next), FAKE_DONE);
    assert_memory_equal(f->obj->host + DST + 4, f->obj->host + SRC, 0x3000);
    fake_free(f);
}

static void an_interrupt_is_seen_between_chunks(void **state)
{
    struct fake *f = setup();
    enum soft_next next;

    f->v.interrupt = SOFT_INT_KICK;
    f->v.gpr[HSK_RAX] = 0x55;
    f->v.gpr[HSK_RDI] = DST;
    f->v.gpr[HSK_RCX] = 0x2000;
    assert_int_equal(run(f, ZYDIS_MNEMONIC_STOSB, 0xf3, 8, &next), FAKE_DONE);
    assert_int_equal(next, SOFT_NEXT_JUMP);
    assert_int_equal(f->v.rip, 0x50000);
    assert_int_equal(f->v.gpr[HSK_RCX], 0x1000);
    assert_int_equal(run(f, ZYDIS_MNEMONIC_STOSB, 0xf3, 8, &next), FAKE_DONE);
    assert_int_equal(next, SOFT_NEXT_INSN);
    assert_int_equal(f->obj->host[DST + 0x1fff], 0x55);
    fake_free(f);
}

static void a_single_step_is_one_iteration(void **state)
{
    struct fake *f = setup();
    enum soft_next next;

    f->v.rflags |= HSK_FLAG_TF;
    f->v.gpr[HSK_RSI] = SRC;
    f->v.gpr[HSK_RDI] = DST;
    f->v.gpr[HSK_RCX] = 2;
    assert_int_equal(run(f, ZYDIS_MNEMONIC_MOVSB, 0xf3, 8, &next), FAKE_DONE);
    assert_int_equal(next, SOFT_NEXT_JUMP);
    assert_int_equal(f->v.gpr[HSK_RCX], 1);
    assert_int_equal(f->v.rip, 0x50000);
    assert_int_equal(run(f, ZYDIS_MNEMONIC_MOVSB, 0xf3, 8, &next), FAKE_DONE);
    assert_int_equal(f->v.gpr[HSK_RCX], 0);
    assert_int_equal(f->v.rip, 0x50002);
    fake_free(f);
}

/* The flags of a comparison by the host. */
static uint64_t host_flags(uint64_t a, uint64_t b, unsigned size)
{
    uint32_t ax;

    switch (size) {
    case 1:
        asm("cmpb %b2, %b1; lahf; seto %%al" : "=a"(ax) : "q"(a), "q"(b) : "cc");
        break;
    case 2:
        asm("cmpw %w2, %w1; lahf; seto %%al" : "=a"(ax) : "r"(a), "r"(b) : "cc");
        break;
    case 4:
        asm("cmpl %k2, %k1; lahf; seto %%al" : "=a"(ax) : "r"(a), "r"(b) : "cc");
        break;
    default:
        asm("cmpq %2, %1; lahf; seto %%al" : "=a"(ax) : "r"(a), "r"(b) : "cc");
        break;
    }
    return (ax >> 8 & 0xd5) | (ax & 1 ? HSK_FLAG_OF : 0);
}

static void comparisons_set_the_hosts_flags(void **state)
{
    static const uint64_t values[] = {0,
                                      1,
                                      0x7f,
                                      0x80,
                                      0xff,
                                      0x0f,
                                      0x10,
                                      0x7fff,
                                      0x8000,
                                      0xffff,
                                      0x7fffffff,
                                      0x80000000,
                                      0xffffffff,
                                      0x7fffffffffffffff,
                                      0x8000000000000000,
                                      ~0ull,
                                      0x123456789abcdef0};
    static const uint16_t scas[] = {ZYDIS_MNEMONIC_SCASB, ZYDIS_MNEMONIC_SCASW,
                                    ZYDIS_MNEMONIC_SCASD, ZYDIS_MNEMONIC_SCASQ};
    struct fake *f = setup();
    enum soft_next next;

    for (unsigned i = 0; i < G_N_ELEMENTS(values); i++)
        for (unsigned j = 0; j < G_N_ELEMENTS(values); j++)
            for (unsigned k = 0; k < 4; k++) {
                f->v.gpr[HSK_RAX] = values[i];
                fake_set(f, DST, values[j]);
                f->v.gpr[HSK_RDI] = DST;
                assert_int_equal(run(f, scas[k], 0, 8, &next), FAKE_DONE);
                assert_int_equal(f->v.rflags & HSK_FLAG_ARITH,
                                 host_flags(values[i], values[j], 1u << k));
            }
    fake_free(f);
}

static void compare_loops_stop_where_they_should(void **state)
{
    struct fake *f = setup();
    enum soft_next next;

    memset(f->obj->host + DST, 'a', 0x3000);
    f->obj->host[DST + 0x1800] = 'b';
    f->v.gpr[HSK_RAX] = 'b';
    f->v.gpr[HSK_RDI] = DST;
    f->v.gpr[HSK_RCX] = 0x3000;
    assert_int_equal(run(f, ZYDIS_MNEMONIC_SCASB, 0xf2, 8, &next), FAKE_DONE);
    assert_int_equal(f->v.gpr[HSK_RDI], DST + 0x1801);
    assert_int_equal(f->v.gpr[HSK_RCX], 0x3000 - 0x1801);
    assert_true(f->v.rflags & HSK_FLAG_ZF);

    memset(f->obj->host + SRC, 'a', 0x3000);
    f->v.gpr[HSK_RSI] = SRC;
    f->v.gpr[HSK_RDI] = DST;
    f->v.gpr[HSK_RCX] = 0x3000;
    assert_int_equal(run(f, ZYDIS_MNEMONIC_CMPSB, 0xf3, 8, &next), FAKE_DONE);
    assert_int_equal(f->v.gpr[HSK_RSI], SRC + 0x1801);
    assert_false(f->v.rflags & HSK_FLAG_ZF);
    assert_true(f->v.rflags & HSK_FLAG_CF);
    /* a count of zero changes nothing, flags included */
    f->v.gpr[HSK_RCX] = 0xffffffff00000000;
    assert_int_equal(run(f, ZYDIS_MNEMONIC_CMPSB, 0xf3, 4, &next), FAKE_DONE);
    assert_int_equal(f->v.gpr[HSK_RSI], SRC + 0x1801);
    assert_true(f->v.rflags & HSK_FLAG_CF);
    fake_free(f);
}

static void device_memory_goes_element_by_element(void **state)
{
    struct fake *f = setup();
    enum soft_next next;

    fake_set(f, 0x100000 + 8 * (DST >> 12), 0x40000007); /* nothing there */
    f->v.gpr[HSK_RSI] = DST;
    f->v.gpr[HSK_RDI] = SRC;
    f->v.gpr[HSK_RCX] = 8;
    assert_int_equal(run(f, ZYDIS_MNEMONIC_MOVSD, 0xf3, 8, &next), FAKE_DONE);
    assert_int_equal(fake_get(f, SRC), ~0ull);
    assert_int_equal(f->v.gpr[HSK_RCX], 0);
    fake_free(f);
}

/* --- FPU state in memory --- */

static enum fake_end fpu(struct fake *f, uint16_t mnemonic, int64_t at)
{
    const struct soft_insn in = {.mnemonic = mnemonic,
                                 .length = 4,
                                 .opsize = 8,
                                 .addrsize = 8,
                                 .mode = 8,
                                 .seg = HSK_DS,
                                 .base = -1,
                                 .index = -1,
                                 .scale = 1,
                                 .disp = at,
                                 .nops = 1,
                                 .op = {{SOFT_OP_MEM, 0, 0}}};
    enum soft_next next;

    return fake_exec(f, &in, &next);
}

static void xsave_and_xrstor(void **state)
{
    struct fake *f = setup();
    uint8_t *m = f->obj->host + DST;
    uint8_t *x = f->v.s.xsave;

    assert_int_equal(fpu(f, ZYDIS_MNEMONIC_XSAVE64, DST), FAKE_FAULT);
    assert_int_equal(f->v.exc.vector, VEC_UD);
    f->v.s.cr4 |= HSK_CR4_OSXSAVE;
    f->v.s.xcr0 = 7;
    f->v.gpr[HSK_RAX] = f->v.gpr[HSK_RDX] = ~0ull;
    hsk_put64(x + HSK_XSAVE_HEADER, HSK_XCR0_SSE | HSK_XCR0_AVX);
    memset(x + HSK_XSAVE_XMM0, 0x11, 256);
    memset(x + HSK_XSAVE_YMM, 0x22, 256);
    hsk_put32(x + HSK_XSAVE_MXCSR, 0x1fa0);
    memset(m, 0xee, 1024);
    memset(m + 512, 0, 64);
    assert_int_equal(fpu(f, ZYDIS_MNEMONIC_XSAVE64, DST), FAKE_DONE);
    assert_int_equal(hsk_get64(m + 512), 6);
    assert_int_equal(hsk_get64(m + 520), 0);
    assert_int_equal(hsk_get16(m), 0x37f);
    assert_int_equal(hsk_get32(m + 24), 0x1fa0);
    assert_int_equal(hsk_get32(m + 28), 0xffff);
    assert_int_equal(m[160], 0x11);
    assert_int_equal(m[416], 0xee);
    assert_int_equal(m[576], 0x22);
    assert_int_equal(m[832], 0xee);
    /* back, with SSE asked for and not in the image: initial, but MXCSR comes from memory in the
     * standard format */
    hsk_put64(m + 512, HSK_XCR0_AVX);
    memset(m + 576, 0x33, 256);
    assert_int_equal(fpu(f, ZYDIS_MNEMONIC_XRSTOR64, DST), FAKE_DONE);
    assert_int_equal(hsk_get64(x + HSK_XSAVE_HEADER), HSK_XCR0_AVX);
    assert_int_equal(hsk_get64(x + HSK_XSAVE_XMM0), 0);
    assert_int_equal(x[HSK_XSAVE_YMM + 100], 0x33);
    assert_int_equal(hsk_get32(x + HSK_XSAVE_MXCSR), 0x1fa0);
    /* compact format */
    assert_int_equal(fpu(f, ZYDIS_MNEMONIC_XSAVEC64, DST), FAKE_DONE);
    assert_int_equal(hsk_get64(m + 520), 7 | 1ull << 63);
    assert_int_equal(hsk_get64(m + 512) & HSK_XCR0_AVX, HSK_XCR0_AVX);
    assert_int_equal(fpu(f, ZYDIS_MNEMONIC_XRSTOR64, DST), FAKE_DONE);
    assert_int_equal(x[HSK_XSAVE_YMM + 100], 0x33);
    fake_free(f);
}

static void bad_fpu_images_raise_gp_and_change_nothing(void **state)
{
    static const struct {
        unsigned offset;
        uint64_t value;
    } bad[] = {{512, 8}, {520, 1}, {528, 1}, {520, 1ull << 63 | 8}, {24, 1ull << 16}};

    for (unsigned i = 0; i < G_N_ELEMENTS(bad); i++) {
        struct fake *f = setup();
        uint8_t before[HSK_XSAVE_SIZE];

        f->v.s.cr4 |= HSK_CR4_OSXSAVE;
        f->v.s.xcr0 = 7;
        f->v.gpr[HSK_RAX] = 7;
        memcpy(before, f->v.s.xsave, sizeof(before));
        memset(f->obj->host + DST, 0, 1024);
        fake_set(f, DST + bad[i].offset, bad[i].value);
        assert_int_equal(fpu(f, ZYDIS_MNEMONIC_XRSTOR64, DST), FAKE_FAULT);
        assert_int_equal(f->v.exc.vector, VEC_GP);
        assert_memory_equal(before, f->v.s.xsave, sizeof(before));
        assert_int_equal(fpu(f, ZYDIS_MNEMONIC_XRSTOR64, DST + 8), FAKE_FAULT);
        f->v.s.cr0 |= HSK_CR0_TS;
        assert_int_equal(fpu(f, ZYDIS_MNEMONIC_FXSAVE64, DST), FAKE_FAULT);
        assert_int_equal(f->v.exc.vector, VEC_NM);
        fake_free(f);
    }
}

static void x87_environment_keeps_registers(void **state)
{
    struct fake *f = setup();
    uint8_t *m = f->obj->host + DST;
    uint8_t *x = f->v.s.xsave;

    hsk_put64(x + HSK_XSAVE_HEADER, 3);
    hsk_put16(x, 0x27f);
    hsk_put16(x + 2, 7 << 11);
    x[4] = 0x80;
    memcpy(x + HSK_XSAVE_ST0, "\0\0\0\0\0\0\0\x80\xff\x3f", 10); /* 1.0 */
    x[HSK_XSAVE_XMM0] = 0x5a;
    f->v.fpu_parked = 1;
    memset(m, 0xee, 256);
    assert_int_equal(fpu(f, ZYDIS_MNEMONIC_FNSAVE, DST), FAKE_DONE);
    assert_int_equal(hsk_get16(m), 0x27f);
    assert_int_equal(hsk_get16(m + 4), 7 << 11);
    assert_int_equal(hsk_get16(m + 8), 0x3fff);
    assert_int_equal(hsk_get64(m + 12) | hsk_get64(m + 20), 0);
    assert_memory_equal(m + 28, "\0\0\0\0\0\0\0\x80\xff\x3f", 10);
    assert_int_equal(m[108], 0xee);
    assert_int_equal(hsk_get16(x), 0x37f);
    assert_int_equal(x[HSK_XSAVE_XMM0], 0x5a);
    assert_int_equal(fpu(f, ZYDIS_MNEMONIC_FRSTOR, DST), FAKE_DONE);
    assert_int_equal(hsk_get16(x), 0x27f);
    assert_int_equal(x[4], 0x80);
    assert_memory_equal(x + HSK_XSAVE_ST0, "\0\0\0\0\0\0\0\x80\xff\x3f", 10);
    fake_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(moves_have_the_order_of_elements),
        cmocka_unit_test(a_fault_leaves_the_registers_at_the_element),
        cmocka_unit_test(an_interrupt_is_seen_between_chunks),
        cmocka_unit_test(a_single_step_is_one_iteration),
        cmocka_unit_test(comparisons_set_the_hosts_flags),
        cmocka_unit_test(compare_loops_stop_where_they_should),
        cmocka_unit_test(device_memory_goes_element_by_element),
        cmocka_unit_test(xsave_and_xrstor),
        cmocka_unit_test(bad_fpu_images_raise_gp_and_change_nothing),
        cmocka_unit_test(x87_environment_keeps_registers),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
