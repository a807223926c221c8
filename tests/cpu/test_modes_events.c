/* SPDX-License-Identifier: MIT */
/*
 * Delivery of events in protected and long mode (SDM vol. 3, 6): gates and their checks, error
 * codes with EXT, contributory and double faults, shutdown, IST, interrupt shadows, NMI; and the
 * fast system calls (vol. 2: SYSENTER, SYSEXIT, SYSCALL, SYSRET).
 */
#include "mode_guest.h"

enum { F0 = SEL_FREE, F1 = F0 + 8, F2 = F1 + 8 };
enum { UNMAPPED = 0x3ff000 };

static void put_gate(struct rig *r, unsigned vector, uint64_t d)
{
    hsk_put64(r->mem + AT_IDT + 8 * vector, d);
}
static uint64_t handler(unsigned sel, unsigned vector, unsigned type)
{
    return gate(sel, AT_TRAPS + 16 * vector, type, 0);
}

CODE32(ud, "ud2");
CODE32(divide, "xor %ecx, %ecx\ndiv %ecx");
CODE32(bad_load, "mov $0x200, %eax\nmov %eax, %ds");
CODE32(int3_, "int3");
CODE32(int_40, "int $0x40");
CODE32(into_, "mov $0x7f, %al\nadd $1, %al\ninto");
CODE32(int1_, ".byte 0xf1");
CODE32(halt, "hlt");
CODE32(unmapped_load, "mov 0x3ff000, %eax");
CODE32(bound_, "mov $7, %eax\nmovl $0, 0x30000\nmovl $6, 0x30004\nbound %eax, 0x30000");

#define GATE(name, vector, d)                                                                      \
    static void name(struct rig *r)                                                                \
    {                                                                                              \
        put_gate(r, vector, d);                                                                    \
    }
#define ERROR(name, value)                                                                         \
    static void name(struct rig *r, const char *row_name)                                          \
    {                                                                                              \
        EXPECT(r, row_name, stacked(r, 0, 4), value);                                              \
    }

/* --- which fault of a delivery becomes what --- */

GATE(ud_absent, 6, handler(SEL_CODE, 6, 0x0e))
GATE(de_absent, 0, handler(SEL_CODE, 0, 0x0e))
GATE(gp_absent, 13, handler(SEL_CODE, 13, 0x0e))
GATE(bp_absent, 3, handler(SEL_CODE, 3, 0x0e))
GATE(i40_absent, 0x40, handler(SEL_CODE, 0x40, 0x0e))
GATE(i40_call_gate, 0x40, handler(SEL_CODE, 0x40, 0x8c))
GATE(i40_64, 0x40, handler(SEL_CODE, 0x40, 0x80))
GATE(ud_null, 6, handler(3, 6, 0x8e))
GATE(ud_outside, 6, handler(0x200, 6, 0x8e))
GATE(ud_data, 6, handler(SEL_DATA, 6, 0x8e))
GATE(ud_outer, 6, handler(0x18, 6, 0x8e))
GATE(i40_data, 0x40, handler(SEL_DATA, 0x40, 0x8e))
static void ud_code_absent(struct rig *r)
{
    put_gate(r, 6, handler(F0, 6, 0x8e));
    put_desc(r, F0, FLAT_CODE & ~(1ull << 47));
}
static void ud_beyond(struct rig *r)
{
    put_gate(r, 6, handler(F0, 6, 0x8e));
    put_desc(r, F0, descriptor(0, 0xfff, 0x409b));
}
static void i40_beyond(struct rig *r)
{
    put_gate(r, 0x40, handler(F0, 0x40, 0x8e));
    put_desc(r, F0, descriptor(0, 0xfff, 0x409b));
}
static void idt_limit(struct rig *r)
{
    r->s.idtr.limit = 0x40 * 8 + 6;
}
static void pending_absent(struct rig *r)
{
    i40_absent(r);
    r->s.rflags |= HSK_FLAG_IF;
    r->s.interrupt_pending = 1;
    r->s.interrupt_vector = 0x40;
}
static void pending_outside(struct rig *r)
{
    pending_absent(r);
    idt_limit(r);
}
static void nmi_absent(struct rig *r)
{
    put_gate(r, 2, 0);
    r->s.nmi_pending = 1;
}
static void gp_and_df_absent(struct rig *r)
{
    gp_absent(r);
    put_gate(r, 8, 0);
}
static void user_int(struct rig *r)
{
    user_ring(r);
}
static void paged(struct rig *r)
{
    hsk_put32(r->mem + AT_CR3, AT_PT | 7);
    for (unsigned i = 0; i < 1024; i++)
        hsk_put32(r->mem + AT_PT + 4 * i, i << 12 | 7);
    hsk_put32(r->mem + AT_PT + 4 * (UNMAPPED >> 12), 0);
    r->s.cr0 |= HSK_CR0_PG;
    r->s.cr3 = AT_CR3;
}
static void pf_absent(struct rig *r)
{
    paged(r);
    put_gate(r, 14, 0);
}
/* The handlers' code segment is in an LDT that is not mapped. */
static void ldt_unmapped(struct rig *r, unsigned vector)
{
    paged(r);
    r->s.seg[HSK_LDTR].base = UNMAPPED;
    put_gate(r, vector, handler(0xc, vector, 0x8e));
}
static void gp_then_pf(struct rig *r)
{
    ldt_unmapped(r, 13);
}
static void de_then_pf(struct rig *r)
{
    ldt_unmapped(r, 0);
}
static void pf_then_pf(struct rig *r)
{
    ldt_unmapped(r, 14);
}
static void pf_pf_pf(struct rig *r)
{
    ldt_unmapped(r, 14);
    put_gate(r, 8, handler(0xc, 8, 0x8e));
}
static void ss_too_small(struct rig *r)
{
    r->s.seg[HSK_SS].limit = 0x100;
    r->s.seg[HSK_SS].attr &= ~HSK_SEG_G;
    r->s.gpr[HSK_RSP] = 8;
}

ERROR(error_0, 0)
ERROR(error_1, 1)
ERROR(error_33, 0x33)
ERROR(error_1a, 0x1a)
ERROR(error_13, 0x13)
ERROR(error_202, 0x202)
ERROR(error_203, 0x203)
ERROR(error_201, 0x201)
ERROR(error_11, SEL_DATA | 1)
ERROR(error_10, SEL_DATA)
ERROR(error_19, 0x19)
ERROR(error_59, F0 | 1)
ERROR(error_0a2, 0x22)
static void pf_at_ldt(struct rig *r, const char *name)
{
    EXPECT(r, name, stacked(r, 0, 4), 0);
    EXPECT(r, name, r->s.cr2, UNMAPPED + 8);
}

static void classes(void **state)
{
    static const struct row rows[] = {
        ROW(ud, ud_absent, 11, error_33),
        ROW(divide, de_absent, 8, error_0),
        ROW(bad_load, gp_absent, 8, error_0),
        ROW(bad_load, gp_and_df_absent, SHUTDOWN, NULL),
        ROW(int3_, bp_absent, 11, error_1a),
        ROW(int_40, i40_absent, 11, error_202),
        ROW(int_40, i40_call_gate, 13, error_202),
        ROW(int_40, i40_64, 13, error_202),
        ROW(int_40, idt_limit, 13, error_202),
        ROW(halt, pending_absent, 11, error_203),
        ROW(halt, pending_outside, 13, error_203),
        ROW(halt, nmi_absent, 13, error_13),
        ROW(ud, ud_null, 13, error_1),
        ROW(ud, ud_outside, 13, error_201),
        ROW(ud, ud_data, 13, error_11),
        ROW(ud, ud_outer, 13, error_19),
        ROW(ud, ud_code_absent, 11, error_59),
        ROW(ud, ud_beyond, 13, error_1),
        ROW(int_40, i40_data, 13, error_10),
        ROW(int_40, i40_beyond, 13, error_0),
        ROW(int_40, user_int, 13, error_202),
        ROW(int3_, user_int, 13, error_1a),
        ROW(into_, user_int, 13, error_0a2),
        ROW(int1_, user_int, 1, NULL),
        ROW(unmapped_load, pf_absent, 8, error_0),
        ROW(bad_load, gp_then_pf, 14, pf_at_ldt),
        ROW(divide, de_then_pf, 14, pf_at_ldt),
        ROW(unmapped_load, pf_then_pf, 8, error_0),
        ROW(unmapped_load, pf_pf_pf, SHUTDOWN, NULL),
        ROW(ud, ss_too_small, SHUTDOWN, NULL),
        ROW(bound_, NULL, 5, NULL),
    };

    run_rows(rig_begin(state), protected_mode, rows, G_N_ELEMENTS(rows));
}

/* --- frames of gates of 16 and 32 bits, flags, debug registers --- */

static void all_flags(struct rig *r)
{
    r->s.rflags |=
        HSK_FLAG_IF | HSK_FLAG_NT | HSK_FLAG_IOPL | HSK_FLAG_AC | HSK_FLAG_CF | HSK_FLAG_RF;
}
static void after_interrupt_gate(struct rig *r, const char *name)
{
    EXPECT(r, name, stacked(r, 0, 4), AT_CODE + 2);
    EXPECT(r, name, stacked(r, 1, 4), SEL_CODE);
    EXPECT(r, name, stacked(r, 2, 4),
           HSK_FLAG_FIXED | HSK_FLAG_IF | HSK_FLAG_NT | HSK_FLAG_IOPL | HSK_FLAG_AC | HSK_FLAG_CF);
    EXPECT(r, name, r->s.rflags, HSK_FLAG_FIXED | HSK_FLAG_IOPL | HSK_FLAG_AC | HSK_FLAG_CF);
}
static void trap_gate(struct rig *r)
{
    all_flags(r);
    put_gate(r, 0x40, handler(SEL_CODE, 0x40, 0x8f));
}
static void after_trap_gate(struct rig *r, const char *name)
{
    EXPECT(r, name, r->s.rflags,
           HSK_FLAG_FIXED | HSK_FLAG_IF | HSK_FLAG_IOPL | HSK_FLAG_AC | HSK_FLAG_CF);
}
static void narrow_user(struct rig *r)
{
    user_ring(r);
    put_desc(r, F0, descriptor(AT_TRAPS, 0xffff, 0x9b));
    put_gate(r, 13, gate(F0, 16 * 13, 0x86, 0));
}
static void after_narrow_user(struct rig *r, const char *name)
{
    const uint16_t want[] = {0x200,    5, SEL_UCODE, HSK_FLAG_FIXED, (AT_STACK + TOP) & 0xffff,
                             SEL_UDATA};

    EXPECT(r, name, r->s.gpr[HSK_RSP], AT_INNER + TOP - 12);
    for (unsigned i = 0; i < G_N_ELEMENTS(want); i++)
        EXPECT(r, name, stacked(r, i, 2), want[i]);
}
static void conforming_handler(struct rig *r)
{
    user_ring(r);
    put_desc(r, F0, FLAT_CODE | 0x040000000000);
    put_gate(r, 6, gate(F0, AT_CODE + 0x40, 0x8e, 0));
    hsk_put16(r->mem + AT_CODE + 0x40, 0x1cd); /* INT 1 in ring 3: #GP, on ring 0's stack */
}
static void after_conforming(struct rig *r, const char *name)
{
    EXPECT(r, name, stacked(r, 0, 4), 0xa);
    EXPECT(r, name, stacked(r, 2, 4), F0 | 3); /* the handler ran in ring 3, on its stack */
    EXPECT(r, name, stacked(r, 4, 4), AT_STACK + TOP - 12);
}

CODE32(read_dr, "mov %db7, %eax");
static void general_detect(struct rig *r)
{
    r->s.dr[7] |= HSK_DR7_GD;
}
static void after_detect(struct rig *r, const char *name)
{
    EXPECT(r, name, stacked(r, 0, 4), AT_CODE);
    EXPECT(r, name, stacked(r, 2, 4), HSK_FLAG_FIXED | HSK_FLAG_RF);
    EXPECT(r, name, r->s.dr[6] & HSK_DR6_BD, HSK_DR6_BD);
    EXPECT(r, name, r->s.dr[7] & HSK_DR7_GD, 0);
}

static void frames(void **state)
{
    static const struct row rows[] = {
        ROW(int_40, all_flags, 0x40, after_interrupt_gate),
        ROW(int_40, trap_gate, 0x40, after_trap_gate),
        ROW(bad_load, narrow_user, 13, after_narrow_user),
        ROW(ud, conforming_handler, 13, after_conforming),
        ROW(read_dr, general_detect, 1, after_detect),
    };

    run_rows(rig_begin(state), protected_mode, rows, G_N_ELEMENTS(rows));
}

/* --- shadows, NMI --- */

CODE32(sti_nop, "sti\nnop\nnop\nhlt");
CODE32(sti_hlt, "sti\nhlt");
CODE32(mov_ss, "mov %eax, %ss\nnop\nnop\nhlt");
CODE32(pop_ss, "push %ss\npop %ss\nnop\nnop\nhlt");
CODE32(lss_, "lss 0x30000, %esp\nnop\nhlt");
CODE32(popf_if, "pushl $0x202\npopf\nnop\nhlt");
CODE32(iret_faults, "pushl $2\npushl $0\npushl $0\niret");

static void pending(struct rig *r)
{
    r->s.interrupt_pending = 1;
    r->s.interrupt_vector = 0x40;
    r->s.gpr[HSK_RAX] = SEL_DATA;
}
static void nmi(struct rig *r)
{
    r->s.nmi_pending = 1;
    r->s.interrupt_shadow = 2;
    r->s.gpr[HSK_RAX] = SEL_DATA;
}
static void open_at_start(struct rig *r)
{
    pending(r);
    r->s.rflags |= HSK_FLAG_IF;
    r->s.interrupt_shadow = 2; /* as if a MOV SS had been before */
    hsk_put32(r->mem + AT_DATA, AT_STACK + TOP);
    hsk_put16(r->mem + AT_DATA + 4, SEL_DATA);
}
#define AFTER(name, eip)                                                                           \
    static void name(struct rig *r, const char *row_name)                                          \
    {                                                                                              \
        EXPECT(r, row_name, stacked(r, 0, 4), AT_CODE + (eip));                                    \
    }
AFTER(eip_2, 2)
AFTER(eip_3, 3)
AFTER(eip_6, 6)
AFTER(eip_7, 7)
static void nmi_blocked(struct rig *r)
{
    r->s.nmi_pending = r->s.nmi_masked = 1;
}
static void after_iret_faults(struct rig *r, const char *name)
{
    /* IRET unblocks NMI even as it faults: the NMI comes on top of the #GP's handler, before its
     * first instruction */
    EXPECT(r, name, stacked(r, 0, 4), AT_TRAPS + 16 * 13);
    EXPECT(r, name, r->s.nmi_masked, 1);
    EXPECT(r, name, r->s.nmi_pending, 0);
}

CODE32(rep_stos, "rep stosb\nhlt");

/* A single step is one iteration; RF says that the instruction is not over. */
static void step_3(struct rig *r)
{
    r->s.rflags |= HSK_FLAG_TF;
    r->s.gpr[HSK_RCX] = 3;
    r->s.gpr[HSK_RDI] = AT_DATA;
}
static void step_1(struct rig *r)
{
    step_3(r);
    r->s.gpr[HSK_RCX] = 1;
}
static void after_step_3(struct rig *r, const char *name)
{
    EXPECT(r, name, stacked(r, 0, 4), AT_CODE);
    EXPECT(r, name, stacked(r, 2, 4), HSK_FLAG_FIXED | HSK_FLAG_TF | HSK_FLAG_RF);
    EXPECT(r, name, r->s.gpr[HSK_RCX], 2);
    EXPECT(r, name, r->s.dr[6] & HSK_DR6_BS, HSK_DR6_BS);
}
static void after_step_1(struct rig *r, const char *name)
{
    EXPECT(r, name, stacked(r, 0, 4), AT_CODE + 2);
    EXPECT(r, name, stacked(r, 2, 4), HSK_FLAG_FIXED | HSK_FLAG_TF);
}

static void shadows(void **state)
{
    static const struct row rows[] = {
        ROW(sti_nop, pending, 0x40, eip_2),
        ROW(sti_hlt, pending, 0x40, eip_2),
        ROW(popf_if, pending, 0x40, eip_6),
        ROW(mov_ss, nmi, 2, eip_3),
        ROW(mov_ss, open_at_start, 0x40, eip_3),
        ROW(pop_ss, nmi, 2, NULL),
        ROW(lss_, open_at_start, 0x40, eip_7),
        ROW(halt, nmi_blocked, OWN, NULL),
        ROW(iret_faults, nmi_blocked, 2, after_iret_faults),
        ROW(rep_stos, step_3, 1, after_step_3),
        ROW(rep_stos, step_1, 1, after_step_1),
    };

    run_rows(rig_begin(state), protected_mode, rows, G_N_ELEMENTS(rows));
}

/* --- fast system calls of 32-bit code --- */

CODE32(sysenter_, "sysenter");
CODE32(sysexit_, "sysexit");
CODE32(syscall_32, "syscall");

static void entry(struct rig *r)
{
    user_ring(r);
    r->s.rflags |= HSK_FLAG_IF;
    r->s.sysenter_cs = SEL_CODE | 3;
    r->s.sysenter_esp = AT_INNER;
    r->s.sysenter_eip = AT_CODE + 0x40;
    r->mem[AT_CODE + 0x40] = 0xf4;
}
static void entry_null(struct rig *r)
{
    entry(r);
    r->s.sysenter_cs = 3;
}
static void after_sysenter(struct rig *r, const char *name)
{
    EXPECT(r, name, r->s.rip, AT_CODE + 0x41);
    EXPECT(r, name, r->s.gpr[HSK_RSP], AT_INNER);
    EXPECT(r, name, r->s.seg[HSK_CS].selector, SEL_CODE);
    EXPECT(r, name, r->s.seg[HSK_CS].attr, 0xc09b);
    EXPECT(r, name, r->s.seg[HSK_SS].selector, SEL_DATA);
    EXPECT(r, name, r->s.rflags, HSK_FLAG_FIXED);
}
static void leave(struct rig *r)
{
    r->s.sysenter_cs = SEL_CODE;
    r->s.gpr[HSK_RCX] = AT_STACK;
    r->s.gpr[HSK_RDX] = AT_CODE + 0x40;
    hsk_put16(r->mem + AT_CODE + 0x40, 0x0b0f);
}
static void leave_user(struct rig *r)
{
    leave(r);
    user_ring(r);
}
static void after_sysexit(struct rig *r, const char *name)
{
    const uint32_t want[] = {AT_CODE + 0x40, SEL_UCODE, HSK_FLAG_FIXED | HSK_FLAG_RF, AT_STACK,
                             SEL_UDATA};

    for (unsigned i = 0; i < G_N_ELEMENTS(want); i++)
        EXPECT(r, name, stacked(r, i, 4), want[i]);
}

static void fast_calls(void **state)
{
    static const struct row rows[] = {
        ROW(sysenter_, entry, OWN, after_sysenter),
        ROW(sysenter_, entry_null, 13, error_0),
        ROW(sysenter_, NULL, 13, error_0),
        ROW(sysexit_, leave, 6, after_sysexit),
        ROW(sysexit_, leave_user, 13, error_0),
        ROW(sysexit_, NULL, 13, error_0),
        ROW(syscall_32, NULL, 6, NULL),
    };

    run_rows(rig_begin(state), protected_mode, rows, G_N_ELEMENTS(rows));
}

int main(void)
{
    static const struct difference differences[] = {
        {"ud ud_absent", QEMU_DOES, "it never sets EXT"},
        {"halt pending_absent", QEMU_DOES, "it never sets EXT"},
        {"halt pending_outside", QEMU_DOES, "it never sets EXT"},
        {"halt nmi_absent", QEMU_DOES, "it never sets EXT"},
        {"ud ud_null", QEMU_DOES, "it never sets EXT"},
        {"ud ud_outside", QEMU_DOES, "it never sets EXT"},
        {"ud ud_data", QEMU_DOES, "it never sets EXT"},
        {"ud ud_outer", QEMU_DOES, "it never sets EXT"},
        {"ud ud_code_absent", QEMU_DOES, "it never sets EXT"},
        {"ud ud_beyond", QEMU_DOES, QEMU_NO_LIMITS},
        {"int_40 i40_beyond", QEMU_DOES, QEMU_NO_LIMITS},
        {"int1_ user_int", QEMU_DOES, "it does not know INT1"},
        {"ud ss_too_small", QEMU_DOES, QEMU_NO_LIMITS},
        {"int_40 all_flags", QEMU_DOES, "it stacks the RF that INT was entered with"},
        {"read_dr general_detect", QEMU_DOES, "it does not report that to KVM"},
        {"sysenter_ entry_null", QEMU_DOES, "it takes 3 for no null selector"},
        {NULL, 0, NULL},
    };
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(classes),
        cmocka_unit_test(frames),
        cmocka_unit_test(fast_calls),
    };
    /* KVM delivers an acknowledged interrupt whatever IF and the shadow say. */
    static const struct CMUnitTest soft_tests[] = {cmocka_unit_test(shadows)};

    return run_lanes(soft_tests, G_N_ELEMENTS(soft_tests), false, NULL) +
           run_lanes(tests, G_N_ELEMENTS(tests), true, differences);
}
