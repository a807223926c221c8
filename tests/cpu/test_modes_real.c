/* SPDX-License-Identifier: MIT */
/*
 * Real-address mode (SDM vol. 3, 21.1) and what mixes it with protected mode: the vector table and
 * its limit, IRET, far branches, segment loads that keep limits ("unreal" mode), the descriptor
 * table registers, switching PE.
 */
#include "mode_guest.h"

/* --- interrupts --- */

CODE16(int_n, "int $0x21");
CODE16(breakpoint, "int3");
CODE16(into_set, "mov $0x7f, %al\nadd $1, %al\ninto");
CODE16(into_clear, "xor %ax, %ax\ninto\nhlt");
CODE16(int_one, ".byte 0xf1");
CODE16(divide, "nop\nxor %cx, %cx\ndiv %cx");
CODE16(undefined, "nop\nud2");
CODE16(bound_low, "movw $5, 0x10\nmovw $9, 0x12\nmov $4, %ax\nbound %ax, 0x10");
CODE16(ascii_zero, "aam $0");

static void flags_all(struct rig *r)
{
    r->s.rflags |= HSK_FLAG_IF | HSK_FLAG_AC | HSK_FLAG_IOPL | HSK_FLAG_CF;
}
static void frame(struct rig *r, const char *name, unsigned ip, uint64_t flags)
{
    EXPECT(r, name, r->s.gpr[HSK_RSP], TOP - 6);
    EXPECT(r, name, stacked(r, 0, 2), ip);
    EXPECT(r, name, stacked(r, 1, 2), AT_CODE >> 4);
    EXPECT(r, name, stacked(r, 2, 2), flags & 0xffff);
}
static void after_int_n(struct rig *r, const char *name)
{
    frame(r, name, 2, HSK_FLAG_FIXED | HSK_FLAG_IF | HSK_FLAG_IOPL | HSK_FLAG_CF);
    EXPECT(r, name, r->s.rflags, HSK_FLAG_FIXED | HSK_FLAG_IOPL | HSK_FLAG_CF);
    EXPECT(r, name, r->s.seg[HSK_CS].base, AT_TRAPS);
    EXPECT(r, name, r->s.seg[HSK_CS].limit, 0xffff);
}
static void after_1(struct rig *r, const char *name)
{
    frame(r, name, 1, HSK_FLAG_FIXED);
}
static void after_into(struct rig *r, const char *name)
{
    frame(r, name, 5, HSK_FLAG_FIXED | HSK_FLAG_OF | HSK_FLAG_SF | HSK_FLAG_AF);
}
static void after_divide(struct rig *r, const char *name)
{
    frame(r, name, 3,
          HSK_FLAG_FIXED | HSK_FLAG_ZF |
              HSK_FLAG_PF); /* of the DIV; no error code, no RF in 16 bits */
}
static void after_0(struct rig *r, const char *name)
{
    frame(r, name, 0, HSK_FLAG_FIXED);
}

static void table_elsewhere(struct rig *r)
{
    r->s.idtr = (struct hsk_dtable){0x1000, 0xff};
    hsk_put32(r->mem + 0x1000 + 4 * 0x21, AT_TRAPS << 12 | 16 * 0x77);
}
static void limit_3f(struct rig *r)
{
    r->s.idtr.limit = 0x3f;
}
static void limit_30(struct rig *r)
{
    r->s.idtr.limit = 0x30;
}
static void limit_86(struct rig *r)
{
    r->s.idtr.limit = 0x86; /* one byte short of vector 21 */
}
static void limit_87(struct rig *r)
{
    r->s.idtr.limit = 0x87;
}
static void limit_0(struct rig *r)
{
    r->s.idtr.limit = 0;
}
static void sp_1(struct rig *r)
{
    r->s.gpr[HSK_RSP] = 0xabcd0001;
}
static void sp_4(struct rig *r)
{
    r->s.gpr[HSK_RSP] = 0xabcd0004;
}
static void after_sp_4(struct rig *r, const char *name)
{
    EXPECT(r, name, r->s.gpr[HSK_RSP], 0xabcdfffe);
    EXPECT(r, name, hsk_get16(r->mem + AT_STACK + 0xfffe), 2);
    EXPECT(r, name, hsk_get16(r->mem + AT_STACK), AT_CODE >> 4);
    EXPECT(r, name, hsk_get16(r->mem + AT_STACK + 2), HSK_FLAG_FIXED);
}
static void nmi(struct rig *r)
{
    r->s.nmi_pending = 1;
}
static void after_nmi(struct rig *r, const char *name)
{
    after_0(r, name);
    EXPECT(r, name, r->s.nmi_masked, 1);
}
static void nmi_masked(struct rig *r)
{
    r->s.nmi_masked = 1;
    r->s.nmi_pending = 1;
}
static void after_nmi_at_iret(struct rig *r, const char *name)
{
    EXPECT(r, name, stacked(r, 0, 2), 0x50);
    EXPECT(r, name, r->s.nmi_pending, 0);
}
static void external(struct rig *r)
{
    r->s.rflags |= HSK_FLAG_IF;
    r->s.interrupt_pending = 1;
    r->s.interrupt_vector = 0x66;
}
static void after_external(struct rig *r, const char *name)
{
    frame(r, name, 0, HSK_FLAG_FIXED | HSK_FLAG_IF);
    EXPECT(r, name, r->s.rflags, HSK_FLAG_FIXED);
    EXPECT(r, name, r->s.interrupt_pending, 0);
}

CODE16(plain_hlt, "hlt");
CODE16(iret_unmasks, "push $0\npush $0x2000\npush $0x50\niret");

static void interrupts(void **state)
{
    static const struct row rows[] = {
        ROW(int_n, flags_all, 0x21, after_int_n),
        ROW(int_n, table_elsewhere, 0x77, NULL),
        ROW(int_n, limit_87, 0x21, NULL),
        ROW(int_n, limit_86, 13, after_0),
        ROW(int_n, limit_3f, 13, after_0),
        ROW(int_n, limit_30, 8, after_0),
        ROW(int_n, limit_0, SHUTDOWN, NULL),
        ROW(int_n, sp_1, SHUTDOWN, NULL),
        ROW(int_n, sp_4, 0x21, after_sp_4),
        ROW(breakpoint, NULL, 3, after_1),
        ROW(into_set, NULL, 4, after_into),
        ROW(into_clear, NULL, OWN, NULL),
        ROW(int_one, NULL, 1, after_1),
        ROW(divide, NULL, 0, after_divide),
        ROW(undefined, NULL, 6, after_1),
        ROW(bound_low, NULL, 5, NULL),
        ROW(ascii_zero, NULL, 0, after_0),
        ROW(plain_hlt, nmi, 2, after_nmi),
        ROW(plain_hlt, nmi_masked, OWN, NULL),
        ROW(iret_unmasks, nmi_masked, 2, after_nmi_at_iret),
        ROW(plain_hlt, external, 0x66, after_external),
    };

    run_rows(rig_begin(state), real_mode, rows, G_N_ELEMENTS(rows));
}

/* --- IRET, flags --- */

CODE16(iret_16, "push $0x7fd7\npush $0x2100\npush $0x12\niret");
CODE16(iret_32, "pushl $0x257fd7\npushl $0x12342100\npushl $0x12\niretl");
CODE16(iret_32_far, "pushl $2\npushl $0x2100\npushl $0x10000\niretl");
CODE16(flags_16, "push $0x7ed5\npopf\npushf\npop %ax\npushfl\npop %ebx\nhlt");
CODE16(flags_32, "pushl $0x3f7ed5\npopfl\npushfl\npop %ebx\nhlt");
CODE16(cli_sti, "sti\npushf\npop %ax\ncli\npushf\npop %bx\nhlt");

static void hlt_at_2100_12(struct rig *r)
{
    r->mem[0x21012] = 0xf4;
}
static void after_iret_16(struct rig *r, const char *name)
{
    EXPECT(r, name, r->s.rip, 0x13);
    EXPECT(r, name, r->s.seg[HSK_CS].base, 0x21000);
    EXPECT(r, name, r->s.seg[HSK_CS].selector, 0x2100);
    EXPECT(r, name, r->s.gpr[HSK_RSP], TOP);
    EXPECT(r, name, r->s.rflags & ~HSK_FLAG_TF, 0x7ed7);
}
static void after_iret_32(struct rig *r, const char *name)
{
    EXPECT(r, name, r->s.rip, 0x13);
    EXPECT(r, name, r->s.seg[HSK_CS].base, 0x21000);
    EXPECT(r, name, r->s.gpr[HSK_RSP], TOP);
    EXPECT(r, name, r->s.rflags,
           0x247ed7); /* AC, ID; VIF, VIP and VM are not popped; RF lasted for the HLT */
}
static void no_tf_16(struct rig *r)
{
    hlt_at_2100_12(r);
    r->mem[AT_CODE + 2] = 0x7e; /* the pushed flags without TF */
}
static void no_tf_32(struct rig *r)
{
    hlt_at_2100_12(r);
    r->mem[AT_CODE + 3] = 0x7e;
}
static void after_iret_32_far(struct rig *r, const char *name)
{
    EXPECT(r, name, stacked(r, 0, 2), iret_32_far_end - iret_32_far - 2);
    EXPECT(r, name, r->s.gpr[HSK_RSP], TOP - 12 - 6);
}
static void after_flags_16(struct rig *r, const char *name)
{
    EXPECT(r, name, r->s.gpr[HSK_RAX] & 0xffff, 0x7ed7);
    EXPECT(r, name, r->s.gpr[HSK_RBX], 0x7ed7);
}
static void after_flags_32(struct rig *r, const char *name)
{
    EXPECT(r, name, r->s.gpr[HSK_RBX], 0x247ed7);
}
static void after_cli_sti(struct rig *r, const char *name)
{
    EXPECT(r, name, r->s.gpr[HSK_RAX] & 0xffff, 0x202);
    EXPECT(r, name, r->s.gpr[HSK_RBX] & 0xffff, 2);
}

static void flags_and_iret(void **state)
{
    static const struct row rows[] = {
        ROW(iret_16, no_tf_16, OWN, after_iret_16),    ROW(iret_32, no_tf_32, OWN, after_iret_32),
        ROW(iret_32_far, NULL, 13, after_iret_32_far), ROW(flags_16, NULL, OWN, after_flags_16),
        ROW(flags_32, NULL, OWN, after_flags_32),      ROW(cli_sti, NULL, OWN, after_cli_sti),
    };

    run_rows(rig_begin(state), real_mode, rows, G_N_ELEMENTS(rows));
}

/* --- far branches --- */

CODE16(far_call, "lcall $0x2100, $0x12\nhlt");
CODE16(far_call_32, "lcalll $0x2100, $0x12\nhlt");
CODE16(far_call_memory, "movl $0x21000012, 0x20\nlcall *0x20");
CODE16(far_jump, "ljmp $0x2100, $0x12");
CODE16(far_jump_out, "ljmpl $0x2100, $0x10000");
CODE16(far_ret, "push $1\npush $2\npush $0x2100\npush $0x12\nlret $4");

static void after_far_call(struct rig *r, const char *name)
{
    EXPECT(r, name, r->s.rip, 0x13);
    EXPECT(r, name, r->s.seg[HSK_CS].base, 0x21000);
    EXPECT(r, name, r->s.gpr[HSK_RSP], TOP - 4);
    EXPECT(r, name, stacked(r, 0, 2), 5);
    EXPECT(r, name, stacked(r, 1, 2), AT_CODE >> 4);
}
static void after_far_call_32(struct rig *r, const char *name)
{
    EXPECT(r, name, r->s.gpr[HSK_RSP], TOP - 8);
    EXPECT(r, name, stacked(r, 0, 4), 8);
    EXPECT(r, name, stacked(r, 1, 4), AT_CODE >> 4);
}
static void after_far_memory(struct rig *r, const char *name)
{
    EXPECT(r, name, r->s.rip, 0x13);
    EXPECT(r, name, stacked(r, 0, 2), far_call_memory_end - far_call_memory);
}
static void after_far_jump(struct rig *r, const char *name)
{
    EXPECT(r, name, r->s.rip, 0x13);
    EXPECT(r, name, r->s.seg[HSK_CS].selector, 0x2100);
    EXPECT(r, name, r->s.gpr[HSK_RSP], TOP);
}

static void far_branches(void **state)
{
    static const struct row rows[] = {
        ROW(far_call, hlt_at_2100_12, OWN, after_far_call),
        ROW(far_call_32, hlt_at_2100_12, OWN, after_far_call_32),
        ROW(far_call_memory, hlt_at_2100_12, OWN, after_far_memory),
        ROW(far_jump, hlt_at_2100_12, OWN, after_far_jump),
        ROW(far_jump_out, NULL, 13, after_0),
        ROW(far_ret, hlt_at_2100_12, OWN, after_far_jump),
    };

    run_rows(rig_begin(state), real_mode, rows, G_N_ELEMENTS(rows));
}

/* --- segments and limits --- */

CODE16(load_ds,
       "mov $0x1234, %ax\nmov %ax, %ds\nmov $0x4321, %ax\npush %ax\npop %es\nlss 0x30, %sp\nhlt");
CODE16(above_64k, "mov $0x123456, %ebx\nmovl $0x5555, (%ebx)\nhlt");
CODE16(above_64k_ss, "mov $0x123456, %ebp\nmovl $0x5555, (%ebp)\nhlt");
CODE16(last_byte, "mov $0xffff, %bx\nmov (%bx), %al\nmov (%bx), %ax\nhlt");
CODE16(write_cs, "movw $0x9090, %cs:0x80\nhlt");

static void ds_unreal(struct rig *r)
{
    r->s.seg[HSK_DS].limit = 0xffffffff;
    r->s.seg[HSK_DS].attr |= HSK_SEG_G;
}
static void stack_pointer(struct rig *r)
{
    ds_unreal(r);
    hsk_put32(r->mem + 0x12340 + 0x30, 0x40007000);
}
static void after_load_ds(struct rig *r, const char *name)
{
    EXPECT(r, name, r->s.seg[HSK_DS].base, 0x12340);
    EXPECT(r, name, r->s.seg[HSK_DS].selector, 0x1234);
    EXPECT(r, name, r->s.seg[HSK_DS].limit, 0xffffffff); /* kept */
    EXPECT(r, name, r->s.seg[HSK_ES].base, 0x43210);
    EXPECT(r, name, r->s.seg[HSK_ES].limit, 0xffff);
    EXPECT(r, name, r->s.seg[HSK_SS].base, 0x40000);
    EXPECT(r, name, r->s.gpr[HSK_RSP], 0x7000);
}
static void after_above(struct rig *r, const char *name)
{
    EXPECT(r, name, hsk_get32(r->mem + AT_DATA + 0x123456), 0x5555);
}
static void after_last_byte(struct rig *r, const char *name)
{
    EXPECT(r, name, stacked(r, 0, 2), 5);
}
static void after_write_cs(struct rig *r, const char *name)
{
    EXPECT(r, name, hsk_get16(r->mem + AT_CODE + 0x80),
           0x9090); /* real mode checks the limit alone */
}

static void segments(void **state)
{
    static const struct row rows[] = {
        ROW(load_ds, stack_pointer, OWN, after_load_ds),
        ROW(above_64k, ds_unreal, OWN, after_above),
        ROW(above_64k, NULL, 13, NULL),
        ROW(above_64k_ss, NULL, 12, NULL),
        ROW(last_byte, NULL, 13, after_last_byte),
        ROW(write_cs, NULL, OWN, after_write_cs),
    };

    run_rows(rig_begin(state), real_mode, rows, G_N_ELEMENTS(rows));
}

/* --- descriptor tables, machine status word, protected mode --- */

CODE16(lgdt_16, "lgdtw 0x20\nlidtw 0x28\nsgdtw 0x40\nhlt");
CODE16(lgdt_32, "lgdtl 0x20\nlidtl 0x28\nsidtl 0x40\nhlt");
CODE16(lldt_real, "nop\nlldt %ax");
CODE16(ltr_real, "nop\nltr %ax");
CODE16(str_real, "nop\nstr %ax");
CODE16(lar_real, "nop\nlar %ax, %bx");
CODE16(verr_real, "nop\nverr %ax");
CODE16(arpl_real, "nop\narpl %ax, %bx");
CODE16(sysenter_real, "nop\nsysenter");
CODE16(lmsw_sets, "smsw %bx\nmov $0xf, %ax\nlmsw %ax\nxor %ax, %ax\nlmsw %ax\nsmsw %ecx\nclts\nmov "
                  "%cr0, %edx\nhlt");
CODE16(pe_and_back, "lgdtl %cs:0x100\n"
                    "mov %cr0, %eax\nor $1, %al\nmov %eax, %cr0\n"
                    "mov %cs, %cx\n"                 /* still the real mode's segment */
                    "mov $0x10, %dx\nmov %dx, %ds\n" /* flat */
                    "and $0xfe, %al\nmov %eax, %cr0\n"
                    "mov $0x3000, %dx\nmov %dx, %ds\n"
                    "mov $0x100000, %ebx\nmovl $0x77777777, (%ebx)\n" /* unreal */
                    "hlt");
CODE16(pe_and_32, "lgdtl %cs:0x100\n"
                  "mov %cr0, %eax\nor $1, %al\nmov %eax, %cr0\n"
                  "ljmpl $8, $0x20080");
CODE32(pe_target, "mov $0x10, %eax\nmov %eax, %ss\nmov $0x48000, %esp\npushfl\npush %cs\nlcall "
                  "$0x18, $0x200\nhlt");
CODE16(pe_narrow, "mov %cr0, %eax\ndec %ax\nmov %eax, %cr0\nljmp $0x2000, $0x210");

static void tables(struct rig *r)
{
    hsk_put16(r->mem + AT_DATA + 0x20, 0x1111);
    hsk_put32(r->mem + AT_DATA + 0x22, 0x89abcdef);
    hsk_put16(r->mem + AT_DATA + 0x28, 0x2222);
    hsk_put32(r->mem + AT_DATA + 0x2a, 0x12345678);
}
static void after_lgdt_16(struct rig *r, const char *name)
{
    EXPECT(r, name, r->s.gdtr.limit, 0x1111);
    EXPECT(r, name, r->s.gdtr.base, 0xabcdef);
    EXPECT(r, name, r->s.idtr.limit, 0x2222);
    EXPECT(r, name, r->s.idtr.base, 0x345678);
    EXPECT(r, name, hsk_get32(r->mem + AT_DATA + 0x42), 0xabcdef);
}
static void after_lgdt_32(struct rig *r, const char *name)
{
    EXPECT(r, name, r->s.gdtr.base, 0x89abcdef);
    EXPECT(r, name, r->s.idtr.base, 0x12345678);
    EXPECT(r, name, hsk_get16(r->mem + AT_DATA + 0x40), 0x2222);
    EXPECT(r, name, hsk_get32(r->mem + AT_DATA + 0x42), 0x12345678);
}
static void after_lmsw(struct rig *r, const char *name)
{
    EXPECT(r, name, r->s.gpr[HSK_RBX] & 0xffff, HSK_CR0_ET);
    EXPECT(r, name, r->s.gpr[HSK_RCX] & 0xffff, HSK_CR0_ET | HSK_CR0_PE); /* LMSW cannot clear PE */
    EXPECT(r, name, r->s.gpr[HSK_RDX], HSK_CR0_ET | HSK_CR0_PE);
}
static void small_gdt(struct rig *r)
{
    hsk_put16(r->mem + AT_CODE + 0x100, 0x1f);
    hsk_put32(r->mem + AT_CODE + 0x102, AT_GDT);
    put_desc(r, SEL_CODE, FLAT_CODE);
    put_desc(r, SEL_DATA, FLAT_DATA);
    put_desc(r, 0x18, descriptor(AT_CODE, 0xffff, 0x9b));
    memcpy(r->mem + AT_CODE + 0x80, pe_target, (size_t)(pe_target_end - pe_target));
    memcpy(r->mem + AT_CODE + 0x200, pe_narrow, (size_t)(pe_narrow_end - pe_narrow));
    r->mem[AT_CODE + 0x210] = 0xf4;
}
static void after_pe_and_back(struct rig *r, const char *name)
{
    EXPECT(r, name, r->s.gpr[HSK_RCX] & 0xffff, AT_CODE >> 4);
    EXPECT(r, name, r->s.seg[HSK_DS].base, AT_DATA);
    EXPECT(r, name, r->s.seg[HSK_DS].limit, 0xffffffff);
    EXPECT(r, name, hsk_get32(r->mem + AT_DATA + 0x100000), 0x77777777);
}
static void after_pe_and_32(struct rig *r, const char *name)
{
    EXPECT(r, name, r->s.rip, 0x211);
    EXPECT(r, name, r->s.cr0 & HSK_CR0_PE, 0);
    EXPECT(r, name, r->s.seg[HSK_CS].base, AT_CODE);
    EXPECT(r, name, r->s.seg[HSK_CS].limit, 0xffff);
    EXPECT(r, name, r->s.gpr[HSK_RSP], 0x48000 - 16); /* a 32-bit far call to 16-bit code */
    EXPECT(r, name, stacked(r, 2, 4), SEL_CODE);
}

static void switching(void **state)
{
    static const struct row rows[] = {
        ROW(lgdt_16, tables, OWN, after_lgdt_16),
        ROW(lgdt_32, tables, OWN, after_lgdt_32),
        ROW(lldt_real, NULL, 6, after_1),
        ROW(ltr_real, NULL, 6, after_1),
        ROW(str_real, NULL, 6, after_1),
        ROW(lar_real, NULL, 6, after_1),
        ROW(verr_real, NULL, 6, after_1),
        ROW(arpl_real, NULL, 6, after_1),
        ROW(sysenter_real, NULL, 13, after_1),
        ROW(lmsw_sets, NULL, OWN, after_lmsw),
        ROW(pe_and_back, small_gdt, OWN, after_pe_and_back),
        ROW(pe_and_32, small_gdt, OWN, after_pe_and_32),
    };

    run_rows(rig_begin(state), real_mode, rows, G_N_ELEMENTS(rows));
}

int main(void)
{
    static const struct difference differences[] = {
        {"int_n sp_1", QEMU_DOES, QEMU_NO_LIMITS},
        {"int_one NULL", QEMU_DOES, "it does not know INT1"},
        {"iret_32_far NULL", QEMU_DOES, QEMU_NO_LIMITS},
        {"far_jump_out NULL", QEMU_DOES, QEMU_NO_LIMITS},
        {"above_64k NULL", QEMU_DOES, QEMU_NO_LIMITS},
        {"above_64k_ss NULL", QEMU_DOES, QEMU_NO_LIMITS},
        {"last_byte NULL", QEMU_DOES, QEMU_NO_LIMITS},
        {NULL, 0, NULL},
    };
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(interrupts),   cmocka_unit_test(flags_and_iret),
        cmocka_unit_test(far_branches), cmocka_unit_test(segments),
        cmocka_unit_test(switching),
    };

    return run_lanes(tests, G_N_ELEMENTS(tests), true, differences);
}
