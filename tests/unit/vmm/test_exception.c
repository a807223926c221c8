/* SPDX-License-Identifier: MIT */
/* Exceptions, interrupts, IRET and segment loads of the software engine's system half, without
 * translated code. */
#include <Zydis/Zydis.h>

#include "soft-fake.h"

#define KSTACK  0x20000u
#define IST1    0x28000u
#define USTACK  0x30000u
#define HANDLER 0x40000u

enum {
    SEL_KCS = 0x08,
    SEL_KDS = 0x10,
    SEL_UCS32 = 0x1b,
    SEL_UDS = 0x23,
    SEL_UCS = 0x2b,
    SEL_ABSENT = 0x30,
    SEL_LDT = 0x50
};

static void put_gate(struct fake *f, unsigned vector, unsigned type_dpl_p, unsigned ist)
{
    const uint64_t off = HANDLER + 16 * vector;

    fake_set(f, FAKE_IDT + 16 * vector,
             (off & 0xffff) | SEL_KCS << 16 | (uint64_t)ist << 32 | (uint64_t)type_dpl_p << 40 |
                 (off >> 16) << 48);
    fake_set(f, FAKE_IDT + 16 * vector + 8, off >> 32);
}

static struct fake *setup(void)
{
    static const uint64_t gdt[] = {
        0,
        0x00af9b000000ffff,
        0x00cf93000000ffff,
        0x00cffb000000ffff,
        0x00cff3000000ffff,
        0x00affb000000ffff,
        0x00cf13000000ffff,
    };
    struct fake *f = fake_new();

    fake_identity(f);
    for (unsigned i = 0; i < G_N_ELEMENTS(gdt); i++)
        fake_set(f, FAKE_GDT + 8 * i, gdt[i]);
    fake_set(f, FAKE_TSS + 4, KSTACK);
    fake_set(f, FAKE_TSS + 0x24, IST1);
    for (unsigned i = 0; i < 256; i++)
        put_gate(f, i, 0x8e, 0);
    put_gate(f, 3, 0xee, 0);
    put_gate(f, 0x80, 0xef, 0);
    put_gate(f, 2, 0x8e, 1);
    f->v.rip = 0x50000;
    f->v.gpr[HSK_RSP] = KSTACK - 0x1008;
    return f;
}

static void to_user(struct fake *f)
{
    f->v.s.seg[HSK_CS] =
        (struct hsk_segment){.limit = 0xffffffff, .selector = SEL_UCS, .attr = 0xa0fb};
    f->v.s.seg[HSK_SS] =
        (struct hsk_segment){.limit = 0xffffffff, .selector = SEL_UDS, .attr = 0xc0f3};
    f->v.gpr[HSK_RSP] = USTACK;
    f->v.rflags = HSK_FLAG_FIXED | HSK_FLAG_IF | HSK_FLAG_ZF;
    soft_segments_changed(&f->v);
    assert_int_equal(f->v.cpl, 3);
}

/* As the run loop does: faults during the delivery are delivered in turn. false: triple fault. */
static bool deliver(struct fake *f)
{
    for (volatile int i = 0; i < 5; i++) {
        const int end = setjmp(f->out);

        assert_int_not_equal(end, FAKE_UNIMPLEMENTED);
        if (end == 0)
            return soft_deliver(&f->v);
    }
    fail_msg("exceptions without end");
    return false;
}

static void page_fault_from_user_switches_the_stack(void **state)
{
    struct fake *f = setup();

    to_user(f);
    f->v.exc = (struct soft_exception){
        .vector = VEC_PF, .has_error = 1, .error = 6, .payload = 0xdeadb000};
    assert_true(deliver(f));
    assert_int_equal(f->v.s.cr2, 0xdeadb000);
    assert_int_equal(f->v.rip, HANDLER + 16 * 14);
    assert_int_equal(f->v.cpl, 0);
    assert_int_equal(f->v.mmu, SOFT_MMU_KERNEL);
    assert_int_equal(f->v.gpr[HSK_RSP], KSTACK - 48);
    assert_int_equal(fake_get(f, KSTACK - 48), 6);
    assert_int_equal(fake_get(f, KSTACK - 40), 0x50000);
    assert_int_equal(fake_get(f, KSTACK - 32), SEL_UCS);
    assert_int_equal(fake_get(f, KSTACK - 24),
                     HSK_FLAG_FIXED | HSK_FLAG_IF | HSK_FLAG_ZF | HSK_FLAG_RF);
    assert_int_equal(fake_get(f, KSTACK - 16), USTACK);
    assert_int_equal(fake_get(f, KSTACK - 8), SEL_UDS);
    assert_int_equal(f->v.rflags, HSK_FLAG_FIXED | HSK_FLAG_ZF);
    assert_int_equal(f->v.s.seg[HSK_SS].selector, 0);
    assert_int_equal(f->v.delivering, 0);
    fake_free(f);
}

static void kernel_frame_is_aligned_and_has_its_stack(void **state)
{
    struct fake *f = setup();
    const uint64_t rsp = f->v.gpr[HSK_RSP], top = rsp & ~0xfull;

    f->v.exc = (struct soft_exception){.vector = VEC_UD};
    assert_true(deliver(f));
    assert_int_equal(f->v.gpr[HSK_RSP], top - 40);
    assert_int_equal(fake_get(f, top - 16), rsp);
    assert_int_equal(fake_get(f, top - 8), SEL_KDS);
    assert_int_equal(f->v.s.seg[HSK_SS].selector, SEL_KDS);
    fake_free(f);
}

static void debug_exception_clears_the_matches_of_the_last(void **state)
{
    struct fake *f = setup();

    f->v.s.dr[6] = HSK_DR6_FIXED | HSK_DR6_BS | 2;
    f->v.exc = (struct soft_exception){.vector = VEC_DB, .payload = 4};
    assert_true(deliver(f));
    assert_int_equal(f->v.s.dr[6], HSK_DR6_FIXED | HSK_DR6_BS | 4);
    fake_free(f);
}

static void iret_undoes_a_delivery(void **state)
{
    static const struct soft_insn iretq = {
        .mnemonic = ZYDIS_MNEMONIC_IRETQ, .length = 2, .opsize = 8};
    struct fake *f = setup();
    enum soft_next next = SOFT_NEXT_INSN;

    to_user(f);
    f->v.s.seg[HSK_DS] = (struct hsk_segment){.selector = SEL_KDS,
                                              .attr = 0xc093}; /* must be dropped on the way out */
    f->v.s.seg[HSK_GS] =
        (struct hsk_segment){.base = 0x123456789000, .selector = SEL_KDS, .attr = 0xc093};
    f->v.s.seg[HSK_FS] = (struct hsk_segment){.base = 0x1000, .selector = 3};
    f->v.exc = (struct soft_exception){.vector = VEC_UD};
    assert_true(deliver(f));
    assert_int_equal(fake_exec(f, &iretq, &next), FAKE_DONE);
    assert_int_equal(next, SOFT_NEXT_JUMP);
    assert_int_equal(f->v.rip, 0x50000);
    assert_int_equal(f->v.cpl, 3);
    assert_int_equal(f->v.code_size, 8);
    assert_int_equal(f->v.gpr[HSK_RSP], USTACK);
    assert_int_equal(f->v.rflags, HSK_FLAG_FIXED | HSK_FLAG_IF | HSK_FLAG_ZF | HSK_FLAG_RF);
    assert_int_equal(f->v.s.seg[HSK_DS].selector, 0);
    assert_int_equal(f->v.s.seg[HSK_FS].selector, 0);
    assert_int_equal(f->v.s.seg[HSK_FS].base, 0x1000);
    assert_int_equal(f->v.s.seg[HSK_GS].selector, 0);
    assert_int_equal(f->v.s.seg[HSK_GS].base, 0x123456789000);
    /* the same to 32-bit code */
    f->v.s.seg[HSK_CS].attr = 0xc0fb;
    f->v.s.seg[HSK_CS].selector = SEL_UCS32;
    soft_segments_changed(&f->v);
    assert_int_equal(f->v.code_size, 4);
    f->v.exc = (struct soft_exception){.vector = VEC_UD};
    assert_true(deliver(f));
    assert_int_equal(f->v.code_size, 8);
    assert_int_equal(fake_exec(f, &iretq, &next), FAKE_DONE);
    assert_int_equal(f->v.code_size, 4);
    assert_int_equal(f->v.gpr[HSK_RSP], USTACK);
    fake_free(f);
}

static void iret_checks(void **state)
{
    static const struct soft_insn iretq = {
        .mnemonic = ZYDIS_MNEMONIC_IRETQ, .length = 2, .opsize = 8};
    static const struct {
        uint64_t rip, cs, ss;
        unsigned vector, error;
    } bad[] = {
        {0x1000, 0, SEL_UDS, VEC_GP, 0},
        {0x1000, SEL_UDS, SEL_UDS, VEC_GP, SEL_UDS & 0xfffc},
        {0x1000, SEL_UCS & ~3, SEL_UDS, VEC_GP, SEL_UCS & 0xfffc},
        {0x1000, SEL_UCS, SEL_KDS, VEC_GP, SEL_KDS},
        {0x1000, SEL_UCS, 0, VEC_GP, 0},
        {0x1000, 0xff8 | 3, SEL_UDS, VEC_GP, 0xff8},
        {1ull << 47, SEL_UCS, SEL_UDS, VEC_GP, 0},
    };
    enum soft_next next;

    for (unsigned i = 0; i < G_N_ELEMENTS(bad); i++) {
        struct fake *f = setup();
        uint64_t frame[5] = {bad[i].rip, bad[i].cs, 2, USTACK, bad[i].ss};

        memcpy(f->obj->host + 0x10000, frame, sizeof(frame));
        f->v.gpr[HSK_RSP] = 0x10000;
        assert_int_equal(fake_exec(f, &iretq, &next), FAKE_FAULT);
        if (f->v.exc.vector != bad[i].vector || f->v.exc.error != bad[i].error)
            fail_msg("case %u: vector %u error 0x%x", i, f->v.exc.vector, f->v.exc.error);
        assert_int_equal(f->v.gpr[HSK_RSP], 0x10000);
        assert_int_equal(f->v.cpl, 0);
        fake_free(f);
    }
}

static void faults_of_delivery_become_double_and_triple(void **state)
{
    struct fake *f = setup();

    /* #UD (benign) whose gate is absent: #NP(vector, IDT, EXT) */
    put_gate(f, 6, 0x0e, 0);
    f->v.exc = (struct soft_exception){.vector = VEC_UD};
    assert_true(deliver(f));
    assert_int_equal(f->v.rip, HANDLER + 16 * VEC_NP);
    assert_int_equal(fake_get(f, f->v.gpr[HSK_RSP]), 6 * 8 + 3);
    fake_free(f);

    f = setup(); /* #GP whose gate is absent: #DF(0) */
    put_gate(f, 13, 0x0e, 0);
    f->v.exc = (struct soft_exception){.vector = VEC_GP, .has_error = 1};
    assert_true(deliver(f));
    assert_int_equal(f->v.rip, HANDLER + 16 * VEC_DF);
    assert_int_equal(fake_get(f, f->v.gpr[HSK_RSP]), 0);
    assert_int_equal(fake_get(f, f->v.gpr[HSK_RSP] + 8), 0x50000);
    fake_free(f);

    f = setup(); /* the kernel stack is not mapped: #PF in #PF = #DF, which has the same stack:
                    triple fault */
    fake_set(f, 0x100000 + 8 * ((KSTACK - 0x2000) >> 12), 0);
    fake_set(f, 0x100000 + 8 * ((KSTACK - 0x1000) >> 12), 0);
    f->v.exc = (struct soft_exception){.vector = VEC_PF, .has_error = 1, .payload = 0x1234};
    assert_false(deliver(f));
    assert_int_equal(f->v.s.activity, HSK_ACT_SHUTDOWN);
    fake_free(f);

    f = setup(); /* an empty IDT: triple fault at once */
    f->v.s.idtr.limit = 0;
    f->v.exc = (struct soft_exception){.vector = VEC_BP};
    assert_false(deliver(f));
    fake_free(f);
}

static void software_interrupts_need_the_gates_privilege(void **state)
{
    static const struct soft_insn int80 = {
        .mnemonic = ZYDIS_MNEMONIC_INT, .length = 2, .imm = {0x80}};
    static const struct soft_insn int81 = {
        .mnemonic = ZYDIS_MNEMONIC_INT, .length = 2, .imm = {0x81}};
    struct fake *f = setup();
    enum soft_next next;

    to_user(f);
    assert_int_equal(fake_exec(f, &int81, &next), FAKE_FAULT);
    assert_int_equal(f->v.exc.vector, VEC_GP);
    assert_int_equal(f->v.exc.error, 0x81 * 8 + 2);
    assert_int_equal(f->v.rip, 0x50000);
    assert_true(deliver(f));
    assert_int_equal(f->v.rip, HANDLER + 16 * VEC_GP);
    fake_free(f);

    f = setup();
    to_user(f);
    assert_int_equal(fake_exec(f, &int80, &next), FAKE_DONE);
    assert_int_equal(f->v.rip, HANDLER + 16 * 0x80);
    assert_int_equal(fake_get(f, KSTACK - 40), 0x50002);
    assert_int_equal(fake_get(f, KSTACK - 24) & HSK_FLAG_RF, 0);
    assert_true(f->v.rflags & HSK_FLAG_IF); /* a trap gate */
    fake_free(f);
}

static bool interrupt(struct fake *f)
{
    assert_int_equal(setjmp(f->out), 0);
    return soft_deliver_interrupt(&f->v);
}

static void interrupts_respect_if_shadow_and_nmi_mask(void **state)
{
    struct hsk_lapic lapic = {.pending = HSK_LAPIC_INTR, .vector = 0x31};
    struct fake *f = setup();
    enum soft_next next;
    static const struct soft_insn sti = {.mnemonic = ZYDIS_MNEMONIC_STI, .length = 1};
    static const struct soft_insn hlt = {.mnemonic = ZYDIS_MNEMONIC_HLT, .length = 1};
    static const struct soft_insn iretq = {
        .mnemonic = ZYDIS_MNEMONIC_IRETQ, .length = 2, .opsize = 8};

    f->v.base.lapic = &lapic;
    assert_false(interrupt(f));
    assert_int_equal(fake_exec(f, &sti, &next), FAKE_DONE);
    assert_int_equal(next, SOFT_NEXT_JUMP);
    assert_true(f->v.interrupt & SOFT_INT_APIC);
    assert_false(interrupt(f)); /* one more instruction first */
    assert_int_equal(fake_exec(f, &hlt, &next), FAKE_DONE);
    assert_int_equal(next, SOFT_NEXT_EXIT);
    assert_int_equal(f->v.s.activity, HSK_ACT_HALTED);
    assert_true(interrupt(f));
    assert_int_equal(f->v.s.activity, HSK_ACT_RUN);
    assert_int_equal(f->v.halted, 0);
    assert_int_equal(f->v.rip, HANDLER + 16 * 0x31);
    assert_int_equal(fake_get(f, f->v.gpr[HSK_RSP]), 0x50002);
    assert_int_equal(lapic.pending, 0);

    lapic.pending = HSK_LAPIC_NMI | HSK_LAPIC_INTR;
    assert_true(interrupt(f)); /* although IF = 0; on IST 1 */
    assert_int_equal(f->v.rip, HANDLER + 16 * 2);
    assert_int_equal(f->v.gpr[HSK_RSP], IST1 - 40);
    lapic.pending |= HSK_LAPIC_NMI;
    assert_false(interrupt(f));
    assert_int_equal(fake_exec(f, &iretq, &next), FAKE_DONE);
    assert_true(interrupt(f));
    fake_free(f);
}

static void segment_loads(void **state)
{
    struct soft_insn mov = {.mnemonic = ZYDIS_MNEMONIC_MOV,
                            .length = 2,
                            .opsize = 8,
                            .op = {{SOFT_OP_SEG, 2, HSK_DS}, {SOFT_OP_REG, 2, HSK_RAX}}};
    struct fake *f = setup();
    enum soft_next next;

    f->v.gpr[HSK_RAX] = SEL_KDS;
    assert_int_equal(fake_exec(f, &mov, &next), FAKE_DONE);
    assert_int_equal(f->v.s.seg[HSK_DS].attr, 0xc093);
    assert_int_equal(f->v.s.seg[HSK_DS].limit, 0xffffffff);
    f->v.gpr[HSK_RAX] = SEL_ABSENT;
    assert_int_equal(fake_exec(f, &mov, &next), FAKE_FAULT);
    assert_int_equal(f->v.exc.vector, VEC_NP);
    assert_int_equal(f->v.exc.error, SEL_ABSENT);
    assert_int_equal(f->v.s.seg[HSK_DS].selector, SEL_KDS);
    f->v.gpr[HSK_RAX] = 0x200;
    assert_int_equal(fake_exec(f, &mov, &next), FAKE_FAULT);
    assert_int_equal(f->v.exc.vector, VEC_GP);
    assert_int_equal(f->v.exc.error, 0x200);
    /* SS: shadow, null allowed at CPL 0 */
    mov.op[0].reg = HSK_SS;
    f->v.gpr[HSK_RAX] = 0;
    assert_int_equal(fake_exec(f, &mov, &next), FAKE_DONE);
    assert_int_equal(f->v.s.interrupt_shadow, 2);
    to_user(f);
    assert_int_equal(fake_exec(f, &mov, &next), FAKE_FAULT);
    assert_int_equal(f->v.exc.vector, VEC_GP);
    /* a null selector clears the base of FS */
    mov.op[0].reg = HSK_FS;
    f->v.s.seg[HSK_FS].base = 0x1234;
    assert_int_equal(fake_exec(f, &mov, &next), FAKE_DONE);
    assert_int_equal(f->v.s.seg[HSK_FS].base | f->v.seg_base[HSK_FS], 0);
    fake_free(f);
}

static void syscall_and_sysret(void **state)
{
    static const struct soft_insn syscall = {.mnemonic = ZYDIS_MNEMONIC_SYSCALL, .length = 2};
    static const struct soft_insn sysret = {
        .mnemonic = ZYDIS_MNEMONIC_SYSRET, .length = 3, .opsize = 8};
    struct fake *f = setup();
    enum soft_next next;

    to_user(f);
    f->v.s.star = (uint64_t)0x1b << 48 | (uint64_t)SEL_KCS << 32;
    f->v.s.lstar = 0xffffffff81000000;
    f->v.s.sfmask = HSK_FLAG_IF | HSK_FLAG_DF;
    assert_int_equal(fake_exec(f, &syscall, &next), FAKE_DONE);
    assert_int_equal(f->v.rip, 0xffffffff81000000);
    assert_int_equal(f->v.gpr[HSK_RCX], 0x50002);
    assert_int_equal(f->v.gpr[HSK_R11], HSK_FLAG_FIXED | HSK_FLAG_IF | HSK_FLAG_ZF);
    assert_int_equal(f->v.rflags, HSK_FLAG_FIXED | HSK_FLAG_ZF);
    assert_int_equal(f->v.cpl, 0);
    assert_int_equal(f->v.s.seg[HSK_CS].selector, SEL_KCS);
    assert_int_equal(f->v.s.seg[HSK_SS].selector, SEL_KDS);
    assert_int_equal(fake_exec(f, &sysret, &next), FAKE_DONE);
    assert_int_equal(f->v.rip, 0x50002);
    assert_int_equal(f->v.cpl, 3);
    assert_int_equal(f->v.s.seg[HSK_CS].selector, 0x2b);
    assert_int_equal(f->v.s.seg[HSK_SS].selector, 0x23);
    assert_int_equal(f->v.rflags, HSK_FLAG_FIXED | HSK_FLAG_IF | HSK_FLAG_ZF);
    assert_int_equal(fake_exec(f, &sysret, &next), FAKE_FAULT);
    assert_int_equal(f->v.exc.vector, VEC_GP);
    fake_free(f);
}

static void control_registers_refuse_what_is_reserved(void **state)
{
    struct soft_insn mov = {.mnemonic = ZYDIS_MNEMONIC_MOV,
                            .length = 3,
                            .opsize = 8,
                            .op = {{SOFT_OP_CR, 8, 0}, {SOFT_OP_REG, 8, HSK_RAX}}};
    static const struct {
        unsigned cr;
        uint64_t value;
        bool ok;
    } cases[] = {
        {0, 0x80000033, true},
        {0, 1ull << 32, false},
        {0, 0x80000032, false},
        {0, 0x33, false},
        {0, 0xa0000033, false},
        {3, 0x1000, true},
        {3, 1ull << 45, false},
        {3, 1ull << 63, false},
        {4, HSK_CR4_PAE | HSK_CR4_SMAP, true},
        {4, HSK_CR4_SMAP, false},
        {4, HSK_CR4_PAE | 1 << 22, false},
        {4, HSK_CR4_PAE | 1 << 12, false},
        {8, 15, true},
        {8, 16, false},
    };
    struct fake *f = setup();
    enum soft_next next;

    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        mov.op[0].reg = (uint8_t)cases[i].cr;
        f->v.gpr[HSK_RAX] = cases[i].value;
        if ((fake_exec(f, &mov, &next) == FAKE_DONE) != cases[i].ok)
            fail_msg("CR%u = 0x%llx", cases[i].cr, (unsigned long long)cases[i].value);
    }
    assert_true(f->flushes_nonglobal > 0 && f->flushes_all > 0);
    to_user(f);
    mov.op[0].reg = 3;
    assert_int_equal(fake_exec(f, &mov, &next), FAKE_FAULT);
    assert_int_equal(f->v.exc.vector, VEC_GP);
    fake_free(f);
}

static void msrs(void **state)
{
    static const struct soft_insn rdmsr = {.mnemonic = ZYDIS_MNEMONIC_RDMSR, .length = 2};
    static const struct soft_insn wrmsr = {.mnemonic = ZYDIS_MNEMONIC_WRMSR, .length = 2};
    static const struct {
        uint32_t msr;
        uint64_t value;
        bool ok;
    } cases[] = {
        {0xc0000082, 0xffffffff81000000, true},
        {0xc0000082, 1ull << 47, false},
        {0xc0000080, 0xd01, true},
        {0xc0000080, 0x1d01, false},
        {0xc0000080, 0x801, false},
        {0x277, 0x0007040600070406, true},
        {0x277, 2, false},
        {0x48, 1, true},
        {0x48, 8, false},
        {0xc0000103, 1ull << 32, false},
        {0x12345, 0, false},
        {0xfe, 0, false},
    };
    struct fake *f = setup();
    enum soft_next next;

    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        f->v.gpr[HSK_RCX] = cases[i].msr;
        f->v.gpr[HSK_RAX] = cases[i].value & 0xffffffff;
        f->v.gpr[HSK_RDX] = cases[i].value >> 32;
        if ((fake_exec(f, &wrmsr, &next) == FAKE_DONE) != cases[i].ok)
            fail_msg("MSR 0x%x = 0x%llx", cases[i].msr, (unsigned long long)cases[i].value);
        if (!cases[i].ok)
            continue;
        assert_int_equal(fake_exec(f, &rdmsr, &next), FAKE_DONE);
        assert_int_equal(f->v.gpr[HSK_RAX] | f->v.gpr[HSK_RDX] << 32, cases[i].value);
    }
    /* kvm-clock: an even version, the stable bit, and no write outside of memory */
    f->v.gpr[HSK_RCX] = 0x4b564d01;
    f->v.gpr[HSK_RAX] = 0x9001;
    f->v.gpr[HSK_RDX] = 0;
    assert_int_equal(fake_exec(f, &wrmsr, &next), FAKE_DONE);
    assert_int_equal(hsk_get32(f->obj->host + 0x9000) & 1, 0);
    assert_int_not_equal(hsk_get32(f->obj->host + 0x9000), 0);
    assert_int_equal(f->obj->host[0x9000 + 29], 1);
    assert_int_equal(hsk_get64(f->obj->host + 0x9008),
                     f->v.s.tsc_adjust); /* where time begins, for all processors */
    assert_int_equal(hsk_get64(f->obj->host + 0x9010), 0);
    f->v.gpr[HSK_RDX] = 0x100;
    assert_int_equal(fake_exec(f, &wrmsr, &next), FAKE_DONE);
    fake_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(page_fault_from_user_switches_the_stack),
        cmocka_unit_test(kernel_frame_is_aligned_and_has_its_stack),
        cmocka_unit_test(debug_exception_clears_the_matches_of_the_last),
        cmocka_unit_test(iret_undoes_a_delivery),
        cmocka_unit_test(iret_checks),
        cmocka_unit_test(faults_of_delivery_become_double_and_triple),
        cmocka_unit_test(software_interrupts_need_the_gates_privilege),
        cmocka_unit_test(interrupts_respect_if_shadow_and_nmi_mask),
        cmocka_unit_test(segment_loads),
        cmocka_unit_test(syscall_and_sysret),
        cmocka_unit_test(control_registers_refuse_what_is_reserved),
        cmocka_unit_test(msrs),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
