/* SPDX-License-Identifier: MIT */
/*
 * Hardware task switches (SDM vol. 3, 8): by JMP, CALL, INT n, exceptions and IRET, directly and
 * through task gates, to 32-bit and 16-bit TSSs and to virtual-8086 mode; what is saved, loaded and
 * marked busy; which faults find the old task and which the new.
 */
#include "mode_guest.h"

/* The tasks' code: UD2 at LANDING. Task A (SEL_TSS) runs; B has a TSS of 32 bits, C one of 16. */
enum {
    LANDING = AT_CODE + 0x80,
    LANDING_USER = AT_CODE + 0x90,
    B_STACK = AT_STACK + 0x4000,
    B_INNER = AT_INNER + 0x4000
};
enum { F0 = SEL_FREE, F1 = F0 + 8 };

#define TSS_B(off) (r->mem + AT_TSS_B + (off))

static void task_b(struct rig *r)
{
    hsk_put16(r->mem + LANDING, 0x0b0f);
    hsk_put16(r->mem + LANDING_USER, 0x0b0f);
    memset(TSS_B(0), 0, 0x68);
    hsk_put32(TSS_B(4), B_INNER);
    hsk_put16(TSS_B(8), SEL_DATA);
    hsk_put32(TSS_B(0x20), LANDING);
    hsk_put32(TSS_B(0x24), HSK_FLAG_FIXED | HSK_FLAG_CF);
    for (unsigned i = 0; i < 8; i++)
        hsk_put32(TSS_B(0x28 + 4 * i), i == HSK_RSP ? B_STACK : 0xb0b00000 + i);
    for (unsigned i = HSK_ES; i <= HSK_GS; i++)
        hsk_put16(TSS_B(0x48 + 4 * i), i == HSK_CS ? SEL_CODE : SEL_DATA);
    hsk_put16(TSS_B(0x60), SEL_LDT);
    hsk_put16(TSS_B(0x66), 0x68);
}

/* The same in ring 3, so that its faults find a stack whatever is wrong with the task. */
static void task_b_user(struct rig *r)
{
    task_b(r);
    hsk_put32(TSS_B(0x20), LANDING_USER);
    for (unsigned i = HSK_ES; i <= HSK_GS; i++)
        hsk_put16(TSS_B(0x48 + 4 * i), i == HSK_CS ? SEL_UCODE : SEL_UDATA);
}

static void task_c(struct rig *r)
{
    uint8_t *t = r->mem + AT_TSS_C;

    memset(t, 0, 0x2c);
    r->mem[AT_CODE + 0x80] = 0x0f;
    r->mem[AT_CODE + 0x81] = 0x0b;
    hsk_put16(t + 0xe, 0x80);
    hsk_put16(t + 0x10, HSK_FLAG_FIXED | HSK_FLAG_ZF);
    for (unsigned i = 0; i < 8; i++)
        hsk_put16(t + 0x12 + 2 * i, i == HSK_RSP ? 0x6000 : 0xc0c0 + i);
    put_desc(r, F0, descriptor(AT_CODE, 0xffff, 0x9b));
    put_desc(r, F1, descriptor(AT_STACK, 0xffff, 0x93));
    hsk_put16(t + 0x22, SEL_DATA);
    hsk_put16(t + 0x24, F0);
    hsk_put16(t + 0x26, F1);
    hsk_put16(t + 0x28, SEL_DATA);
}

static void registers(struct rig *r)
{
    for (unsigned i = 0; i < 8; i++)
        if (i != HSK_RSP)
            r->s.gpr[i] = 0xa0a00000 + i;
    r->s.rflags |= HSK_FLAG_SF;
    r->s.dr[0] = r->s.dr[1] = 0x123456;
    r->s.dr[7] = HSK_DR7_FIXED | 1 | 8; /* L0, G1; nothing runs there */
    memset(r->mem + AT_TSS + 0x20, 0xcc, 0x40);
}

static void to_b(struct rig *r)
{
    registers(r);
    task_b(r);
}
static void to_c(struct rig *r)
{
    registers(r);
    task_c(r);
}

/* --- what is saved and loaded --- */

CODE32(jmp_b, "ljmp $0x30, $0x12345678");
CODE32(call_b, "lcall $0x30, $0");
CODE32(jmp_c, "ljmp $0x38, $0");
CODE32(call_c, "lcall $0x38, $0");
CODE32(jmp_gate, "ljmp $0x58, $0");
CODE32(call_gate_, "lcall $0x58, $0");
CODE32(int_task, "int $0x40");
CODE32(div_zero, "xor %ecx, %ecx\ndiv %ecx");
CODE32(gp_fault, "nop\nmov $0x200, %eax\nmov %eax, %ds");
CODE32(plain, "hlt");

static void saved_a(struct rig *r, const char *name, unsigned eip, uint64_t flags)
{
    const uint8_t *t = r->mem + AT_TSS;

    EXPECT(r, name, hsk_get32(t + 0x20), AT_CODE + eip);
    EXPECT(r, name, hsk_get32(t + 0x24), flags);
    EXPECT(r, name, hsk_get32(t + 0x28), 0xa0a00000);
    EXPECT(r, name, hsk_get32(t + 0x38), AT_STACK + TOP);
    EXPECT(r, name, hsk_get32(t + 0x44), 0xa0a00000 + HSK_RDI);
    EXPECT(r, name, hsk_get16(t + 0x48), SEL_DATA);
    EXPECT(r, name, hsk_get16(t + 0x4c), SEL_CODE);
    EXPECT(r, name, hsk_get16(t + 0x50), SEL_DATA);
    EXPECT(r, name, hsk_get16(t + 0x5c), SEL_DATA);
}
/* Task B at its UD2, whose frame is on its stack. */
static void in_b(struct rig *r, const char *name, uint64_t flags)
{
    EXPECT(r, name, r->s.seg[HSK_TR].selector, SEL_TSS_B);
    EXPECT(r, name, r->s.seg[HSK_TR].attr, 0x8b);
    EXPECT(r, name, r->s.seg[HSK_TR].base, AT_TSS_B);
    EXPECT(r, name, get_desc(r, SEL_TSS_B) >> 40 & 0xff, 0x8b);
    EXPECT(r, name, r->s.cr0 & HSK_CR0_TS, HSK_CR0_TS);
    EXPECT(r, name, r->s.gpr[HSK_RAX], 0xb0b00000);
    EXPECT(r, name, r->s.gpr[HSK_RDI], 0xb0b00000 + HSK_RDI);
    EXPECT(r, name, r->s.gpr[HSK_RSP], B_STACK - 12);
    EXPECT(r, name, stacked(r, 0, 4), LANDING);
    EXPECT(r, name, stacked(r, 1, 4), SEL_CODE);
    EXPECT(r, name, stacked(r, 2, 4), flags | HSK_FLAG_RF);
    EXPECT(r, name, r->s.seg[HSK_LDTR].base, AT_LDT);
    EXPECT(r, name, r->s.dr[7] & 0xff,
           r->s.dr[0] ? 8 : 0); /* local breakpoints end with the task */
}
static void after_jmp_b(struct rig *r, const char *name)
{
    saved_a(r, name, 7, HSK_FLAG_FIXED | HSK_FLAG_SF);
    in_b(r, name, HSK_FLAG_FIXED | HSK_FLAG_CF);
    EXPECT(r, name, get_desc(r, SEL_TSS) >> 40 & 0xff, 0x89);
    EXPECT(r, name, hsk_get16(TSS_B(0)), 0);
}
static void after_call_b(struct rig *r, const char *name)
{
    saved_a(r, name, 7, HSK_FLAG_FIXED | HSK_FLAG_SF);
    in_b(r, name, HSK_FLAG_FIXED | HSK_FLAG_CF | HSK_FLAG_NT);
    EXPECT(r, name, get_desc(r, SEL_TSS) >> 40 & 0xff, 0x8b);
    EXPECT(r, name, hsk_get16(TSS_B(0)), SEL_TSS);
}
static void after_int(struct rig *r, const char *name)
{
    saved_a(r, name, 2, HSK_FLAG_FIXED | HSK_FLAG_SF);
    in_b(r, name, HSK_FLAG_FIXED | HSK_FLAG_CF | HSK_FLAG_NT);
    EXPECT(r, name, hsk_get16(TSS_B(0)), SEL_TSS);
}
static void after_jmp_c(struct rig *r, const char *name)
{
    saved_a(r, name, 7, HSK_FLAG_FIXED | HSK_FLAG_SF);
    EXPECT(r, name, r->s.seg[HSK_TR].attr, 0x83);
    EXPECT(r, name, r->s.gpr[HSK_RAX] & 0xffff, 0xc0c0);
    EXPECT(r, name, r->s.gpr[HSK_RSP] & 0xffff, 0x6000 - 12);
    EXPECT(r, name, stacked(r, 0, 4), 0x80);
    EXPECT(r, name, stacked(r, 1, 4), F0);
    EXPECT(r, name, stacked(r, 2, 4), HSK_FLAG_FIXED | HSK_FLAG_ZF | HSK_FLAG_RF);
    EXPECT(r, name, r->s.seg[HSK_FS].selector, 0);
    EXPECT(r, name, r->s.seg[HSK_LDTR].selector, 0);
}
static void gate_b(struct rig *r)
{
    to_b(r);
    put_desc(r, F0, gate(SEL_TSS_B, 0, 0x85, 0));
}
static void gate_b_user(struct rig *r)
{
    to_b(r);
    user_ring(r);
    put_desc(r, F0, gate(SEL_TSS_B, 0, 0xe5, 0)); /* the gate's DPL counts, not the TSS's */
}
static void gate_closed(struct rig *r)
{
    gate_b_user(r);
    put_desc(r, F0, gate(SEL_TSS_B, 0, 0x85, 0));
}
static void gate_absent(struct rig *r)
{
    gate_b(r);
    put_desc(r, F0, gate(SEL_TSS_B, 0, 0x05, 0));
}
static void gate_to_code(struct rig *r)
{
    gate_b(r);
    put_desc(r, F0, gate(SEL_CODE, 0, 0x85, 0));
}
static void gate_to_ldt(struct rig *r)
{
    gate_b(r);
    put_desc(r, F0, gate(0xc, 0, 0x85, 0));
}
static void error_f0(struct rig *r, const char *name)
{
    EXPECT(r, name, stacked(r, 0, 4), F0);
}
static void error_code(struct rig *r, const char *name)
{
    EXPECT(r, name, stacked(r, 0, 4), SEL_CODE);
}
static void error_c(struct rig *r, const char *name)
{
    EXPECT(r, name, stacked(r, 0, 4), 0xc);
}
static void user_saved(struct rig *r, const char *name)
{
    EXPECT(r, name, hsk_get16(r->mem + AT_TSS + 0x4c), SEL_UCODE);
    in_b(r, name, HSK_FLAG_FIXED | HSK_FLAG_CF);
}
static void vector_to_b(struct rig *r, unsigned vector)
{
    hsk_put64(r->mem + AT_IDT + 8 * vector, gate(SEL_TSS_B, 0, 0x85, 0));
}
static void int_40(struct rig *r)
{
    to_b(r);
    vector_to_b(r, 0x40);
}
static void int_40_user(struct rig *r)
{
    int_40(r);
    user_ring(r);
}
static void after_int_closed(struct rig *r, const char *name)
{
    EXPECT(r, name, stacked(r, 0, 4), 0x40 * 8 + 2);
}
static void int_40_busy(struct rig *r)
{
    int_40(r);
    put_desc(r, SEL_TSS_B, descriptor(AT_TSS_B, 0x67, 0x8b));
}
static void after_int_busy(struct rig *r, const char *name)
{
    EXPECT(r, name, stacked(r, 0, 4), SEL_TSS_B); /* no EXT: INT n */
}
static void divide_to_b(struct rig *r)
{
    to_b(r);
    vector_to_b(r, 0);
}
static void after_divide(struct rig *r, const char *name)
{
    EXPECT(r, name, hsk_get32(r->mem + AT_TSS + 0x20), AT_CODE + 2);
    EXPECT(r, name, hsk_get32(r->mem + AT_TSS + 0x24),
           HSK_FLAG_FIXED | HSK_FLAG_ZF | HSK_FLAG_PF | HSK_FLAG_RF);
    in_b(r, name, HSK_FLAG_FIXED | HSK_FLAG_CF | HSK_FLAG_NT);
}
static void divide_to_busy(struct rig *r)
{
    divide_to_b(r);
    put_desc(r, SEL_TSS_B, descriptor(AT_TSS_B, 0x67, 0x8b));
    vector_to_b(r, 0);
}
/* #GP while delivering #DE: contributory both */
static void after_divide_busy(struct rig *r, const char *name)
{
    EXPECT(r, name, stacked(r, 0, 4), 0);
    EXPECT(r, name, stacked(r, 1, 4), AT_CODE + 2);
}
static void gp_to_b(struct rig *r)
{
    to_b(r);
    vector_to_b(r, 13);
}
static void after_gp(struct rig *r, const char *name)
{
    EXPECT(r, name, hsk_get32(r->mem + AT_TSS + 0x20), AT_CODE + 6);
    EXPECT(r, name, r->s.gpr[HSK_RSP], B_STACK - 4 - 12);
    EXPECT(r, name, stacked(r, 3, 4), 0x200); /* the error code, below it UD2's frame */
}
static void double_to_b(struct rig *r)
{
    to_b(r);
    vector_to_b(r, 8);
    hsk_put64(r->mem + AT_IDT + 8 * 13, 0);
    hsk_put64(r->mem + AT_IDT + 8 * 11, 0);
}
static void after_double(struct rig *r, const char *name)
{
    EXPECT(r, name, r->s.gpr[HSK_RSP], B_STACK - 4 - 12);
    EXPECT(r, name, stacked(r, 3, 4), 0);
    EXPECT(r, name, hsk_get16(TSS_B(0)), SEL_TSS);
}
static void external_b(struct rig *r)
{
    to_b(r);
    vector_to_b(r, 0x40);
    r->s.rflags |= HSK_FLAG_IF;
    r->s.interrupt_pending = 1;
    r->s.interrupt_vector = 0x40;
}
static void after_external(struct rig *r, const char *name)
{
    saved_a(r, name, 0, HSK_FLAG_FIXED | HSK_FLAG_SF | HSK_FLAG_IF);
    in_b(r, name, HSK_FLAG_FIXED | HSK_FLAG_CF | HSK_FLAG_NT);
}

static void switches(void **state)
{
    static const struct row rows[] = {
        ROW(jmp_b, to_b, 6, after_jmp_b),
        ROW(call_b, to_b, 6, after_call_b),
        ROW(jmp_c, to_c, 6, after_jmp_c),
        ROW(jmp_gate, gate_b, 6, after_jmp_b),
        ROW(call_gate_, gate_b, 6, after_call_b),
        ROW(jmp_gate, gate_b_user, 6, user_saved),
        ROW(jmp_gate, gate_closed, 13, error_f0),
        ROW(jmp_gate, gate_absent, 11, error_f0),
        ROW(jmp_gate, gate_to_code, 13, error_code),
        ROW(jmp_gate, gate_to_ldt, 13, error_c),
        ROW(int_task, int_40, 6, after_int),
        ROW(int_task, int_40_user, 13, after_int_closed),
        ROW(int_task, int_40_busy, 13, after_int_busy),
        ROW(div_zero, divide_to_b, 6, after_divide),
        ROW(div_zero, divide_to_busy, 8, after_divide_busy),
        ROW(gp_fault, gp_to_b, 6, after_gp),
        ROW(gp_fault, double_to_b, 6, after_double),
        ROW(plain, external_b, 6, after_external),
    };

    run_rows(rig_begin(state), protected_mode, rows, G_N_ELEMENTS(rows));
}

/* --- there and back --- */

CODE32(there_and_back, "lcall $0x30, $0\nlcall $0x30, $0\npushfl\npop %esi\nhlt");
CODE32(b_loop, "incl 0x30000\niret\nincl 0x30000\nincl 0x30000\niret\n");
CODE32(there_and_back_16, "lcall $0x38, $0\nhlt");
CODE16(c_loop, "incl 0x3000\niret");

static void b_returns(struct rig *r)
{
    to_b(r);
    memcpy(r->mem + LANDING, b_loop, (size_t)(b_loop_end - b_loop));
}
/* The task goes on behind its IRET when it is called again. */
static void after_back(struct rig *r, const char *name)
{
    EXPECT(r, name, hsk_get32(r->mem + AT_DATA), 3);
    EXPECT(r, name, r->s.seg[HSK_TR].selector, SEL_TSS);
    EXPECT(r, name, get_desc(r, SEL_TSS) >> 40 & 0xff, 0x8b);
    EXPECT(r, name, get_desc(r, SEL_TSS_B) >> 40 & 0xff, 0x89);
    EXPECT(r, name, r->s.gpr[HSK_RAX], 0xa0a00000);
    EXPECT(r, name, r->s.gpr[HSK_RSI], HSK_FLAG_FIXED | HSK_FLAG_SF);
    EXPECT(r, name, hsk_get32(TSS_B(0x24)) & HSK_FLAG_NT, 0); /* saved without NT */
    EXPECT(r, name, hsk_get32(TSS_B(0x20)), LANDING + (b_loop_end - b_loop));
    EXPECT(r, name, r->s.gpr[HSK_RSP], AT_STACK + TOP);
}
static void c_returns(struct rig *r)
{
    to_c(r);
    memcpy(r->mem + LANDING, c_loop, (size_t)(c_loop_end - c_loop));
}
static void after_back_16(struct rig *r, const char *name)
{
    EXPECT(r, name, hsk_get32(r->mem + 0x3000), 1);
    EXPECT(r, name, r->s.gpr[HSK_RDI], 0xa0a00000 + HSK_RDI);
    EXPECT(r, name, hsk_get16(r->mem + AT_TSS_C), SEL_TSS);
    EXPECT(r, name, hsk_get16(r->mem + AT_TSS_C + 0xe), 0x80 + (c_loop_end - c_loop));
    EXPECT(r, name, hsk_get16(r->mem + AT_TSS_C + 0x24), F0);
    EXPECT(r, name, get_desc(r, SEL_TSS_C) >> 40 & 0xff, 0x81);
}

CODE32(set_nt_iret, "pushfl\norl $0x4000, (%esp)\npopfl\niret");

static void link_b(struct rig *r)
{
    to_b(r);
    hsk_put16(r->mem + AT_TSS, SEL_TSS_B);
    put_desc(r, SEL_TSS_B, descriptor(AT_TSS_B, 0x67, 0x8b));
}
static void link_free(struct rig *r)
{
    to_b(r);
    hsk_put16(r->mem + AT_TSS, SEL_TSS_B);
}
static void link_code(struct rig *r)
{
    to_b(r);
    hsk_put16(r->mem + AT_TSS, SEL_CODE);
}
static void link_absent(struct rig *r)
{
    link_b(r);
    put_desc(r, SEL_TSS_B, descriptor(AT_TSS_B, 0x67, 0x0b));
}
static void after_link(struct rig *r, const char *name)
{
    in_b(r, name, HSK_FLAG_FIXED | HSK_FLAG_CF);
    EXPECT(r, name, get_desc(r, SEL_TSS) >> 40 & 0xff, 0x89);
    EXPECT(r, name, hsk_get32(r->mem + AT_TSS + 0x24), HSK_FLAG_FIXED | HSK_FLAG_SF);
}
static void error_b(struct rig *r, const char *name)
{
    EXPECT(r, name, stacked(r, 0, 4), SEL_TSS_B);
    EXPECT(r, name, r->s.seg[HSK_TR].selector, SEL_TSS);
    EXPECT(r, name, r->s.cr0 & HSK_CR0_TS, 0);
}

static void nesting(void **state)
{
    static const struct row rows[] = {
        ROW(there_and_back, b_returns, OWN, after_back),
        ROW(there_and_back_16, c_returns, OWN, after_back_16),
        ROW(set_nt_iret, link_b, 6, after_link),
        ROW(set_nt_iret, link_free, 10, error_b),
        ROW(set_nt_iret, link_code, 10, error_code),
        ROW(set_nt_iret, link_absent, 11, error_b),
    };

    run_rows(rig_begin(state), protected_mode, rows, G_N_ELEMENTS(rows));
}

/* --- faults of the old task --- */

static void b_absent(struct rig *r)
{
    to_b(r);
    put_desc(r, SEL_TSS_B, descriptor(AT_TSS_B, 0x67, 0x09));
}
static void b_short(struct rig *r)
{
    to_b(r);
    put_desc(r, SEL_TSS_B, descriptor(AT_TSS_B, 0x66, 0x89));
}
static void c_short(struct rig *r)
{
    to_c(r);
    put_desc(r, SEL_TSS_C, descriptor(AT_TSS_C, 0x2a, 0x81));
}
static void b_busy(struct rig *r)
{
    to_b(r);
    put_desc(r, SEL_TSS_B, descriptor(AT_TSS_B, 0x67, 0x8b));
}
static void b_of_ring_0(struct rig *r)
{
    to_b(r);
    user_ring(r);
}
static void b_of_ring_3(struct rig *r)
{
    to_b(r);
    user_ring(r);
    put_desc(r, SEL_TSS_B, descriptor(AT_TSS_B, 0x67, 0xe9));
}
static void old_frame(struct rig *r, const char *name)
{
    error_b(r, name);
    EXPECT(r, name, stacked(r, 1, 4), AT_CODE);
    EXPECT(r, name, hsk_get32(r->mem + AT_TSS + 0x20), 0xcccccccc); /* nothing was saved */
}
static void c_frame(struct rig *r, const char *name)
{
    EXPECT(r, name, stacked(r, 0, 4), SEL_TSS_C);
}
static void in_b_from_user(struct rig *r, const char *name)
{
    EXPECT(r, name, r->s.seg[HSK_TR].selector, SEL_TSS_B);
}

/* 32-bit paging: an identity map with the page of TSS B missing or read-only. */
static void paged(struct rig *r, uint32_t entry)
{
    to_b(r);
    hsk_put32(r->mem + AT_CR3, AT_PT | 7);
    for (unsigned i = 0; i < 1024; i++)
        hsk_put32(r->mem + AT_PT + 4 * i, i << 12 | 7);
    hsk_put32(r->mem + AT_PT + 4 * (AT_TSS_B >> 12), entry);
    r->s.cr0 |= HSK_CR0_PG | HSK_CR0_WP;
    r->s.cr3 = AT_CR3;
    hsk_put32(TSS_B(0x1c), AT_CR3);
}
static void b_unmapped(struct rig *r)
{
    paged(r, 0);
}
static void b_readonly(struct rig *r)
{
    paged(r, AT_TSS_B | 5);
}
static void b_other_cr3(struct rig *r)
{
    paged(r, AT_TSS_B | 7);
    memcpy(r->mem + AT_PDPT, r->mem + AT_CR3, 0x1000);
    hsk_put32(TSS_B(0x1c), AT_PDPT);
}
static void fault_read(struct rig *r, const char *name)
{
    EXPECT(r, name, stacked(r, 0, 4), 0);
    EXPECT(r, name, r->s.cr2, AT_TSS_B);
    EXPECT(r, name, stacked(r, 1, 4), AT_CODE);
    EXPECT(r, name, r->s.seg[HSK_TR].selector, SEL_TSS);
    EXPECT(r, name, get_desc(r, SEL_TSS) >> 40 & 0xff, 0x8b);
}
static void fault_write(struct rig *r, const char *name)
{
    EXPECT(r, name, stacked(r, 0, 4), 3);
    EXPECT(r, name, r->s.cr2, AT_TSS_B);
    EXPECT(r, name, r->s.seg[HSK_TR].selector, SEL_TSS);
}
static void after_cr3(struct rig *r, const char *name)
{
    EXPECT(r, name, r->s.cr3, AT_PDPT);
}

static void faults_before(void **state)
{
    static const struct row rows[] = {
        ROW(jmp_b, b_absent, 11, old_frame),    ROW(jmp_b, b_short, 10, old_frame),
        ROW(jmp_c, c_short, 10, c_frame),       ROW(call_b, b_busy, 13, old_frame),
        ROW(jmp_b, b_of_ring_0, 13, error_b),   ROW(jmp_b, b_of_ring_3, 6, in_b_from_user),
        ROW(jmp_b, b_unmapped, 14, fault_read), ROW(call_b, b_readonly, 14, fault_write),
        ROW(jmp_b, b_other_cr3, 6, after_cr3),
    };

    run_rows(rig_begin(state), protected_mode, rows, G_N_ELEMENTS(rows));
}

/* --- faults of the new task --- */

static void user_with(struct rig *r, unsigned off, unsigned sel)
{
    registers(r);
    task_b_user(r);
    hsk_put16(TSS_B(off), (uint16_t)sel);
}
#define BAD(name, off, sel, d)                                                                     \
    static void name(struct rig *r)                                                                \
    {                                                                                              \
        user_with(r, off, sel);                                                                    \
        put_desc(r, F0, d);                                                                        \
    }
BAD(ldt_code, 0x60, SEL_CODE, 0)
BAD(ldt_absent, 0x60, F0, descriptor(AT_LDT, 0xff, 2))
BAD(ldt_in_ldt, 0x60, 0xc, 0)
BAD(cs_null, 0x4c, 3, 0)
BAD(cs_data, 0x4c, SEL_UDATA, 0)
BAD(cs_dpl, 0x4c, SEL_CODE | 3, 0)
BAD(cs_absent, 0x4c, F0 | 3, FLAT_UCODE & ~(1ull << 47))
BAD(ss_null, 0x50, 0, 0)
BAD(ss_dpl, 0x50, SEL_DATA | 3, 0)
BAD(ss_rpl, 0x50, SEL_UDATA & ~3, 0)
BAD(ss_absent, 0x50, F0 | 3, FLAT_UDATA & ~(1ull << 47))
BAD(ds_inner, 0x54, SEL_DATA, 0)
BAD(ds_absent, 0x54, F0 | 3, FLAT_UDATA & ~(1ull << 47))
BAD(gs_outside, 0x5c, 0x203, 0)

static void new_frame(struct rig *r, const char *name, unsigned error)
{
    EXPECT(r, name, r->s.gpr[HSK_RSP], B_INNER - 24);
    EXPECT(r, name, stacked(r, 0, 4), error);
    EXPECT(r, name, stacked(r, 1, 4), LANDING_USER);
    EXPECT(r, name, stacked(r, 2, 4), hsk_get16(TSS_B(0x4c)));
    EXPECT(r, name, stacked(r, 3, 4), HSK_FLAG_FIXED | HSK_FLAG_CF | HSK_FLAG_RF);
    EXPECT(r, name, stacked(r, 4, 4), B_STACK);
    EXPECT(r, name, stacked(r, 5, 4), hsk_get16(TSS_B(0x50)));
    EXPECT(r, name, r->s.seg[HSK_TR].selector, SEL_TSS_B);
    EXPECT(r, name, hsk_get32(r->mem + AT_TSS + 0x20), AT_CODE + 7);
}
static void new_0(struct rig *r, const char *name)
{
    new_frame(r, name, 0);
}
static void new_code(struct rig *r, const char *name)
{
    new_frame(r, name, SEL_CODE);
}
static void new_data(struct rig *r, const char *name)
{
    new_frame(r, name, SEL_DATA);
}
static void new_udata(struct rig *r, const char *name)
{
    new_frame(r, name, SEL_UDATA & ~3u);
}
static void new_f0(struct rig *r, const char *name)
{
    new_frame(r, name, F0);
}
static void new_c(struct rig *r, const char *name)
{
    new_frame(r, name, 0xc);
}
static void new_200(struct rig *r, const char *name)
{
    new_frame(r, name, 0x200);
}
static void eip_outside(struct rig *r)
{
    user_with(r, 0x4c, F0 | 3);
    put_desc(r, F0, descriptor(0, 0x1ffff, 0x40fb));
}

static void faults_after(void **state)
{
    static const struct row rows[] = {
        ROW(jmp_b, ldt_code, 10, new_code), ROW(jmp_b, ldt_absent, 10, new_f0),
        ROW(jmp_b, ldt_in_ldt, 10, new_c),  ROW(jmp_b, cs_null, 10, new_0),
        ROW(jmp_b, cs_data, 10, new_udata), ROW(jmp_b, cs_dpl, 10, new_code),
        ROW(jmp_b, cs_absent, 11, new_f0),  ROW(jmp_b, ss_null, 10, new_0),
        ROW(jmp_b, ss_dpl, 10, new_data),   ROW(jmp_b, ss_rpl, 10, new_udata),
        ROW(jmp_b, ss_absent, 12, new_f0),  ROW(jmp_b, ds_inner, 10, new_data),
        ROW(jmp_b, ds_absent, 11, new_f0),  ROW(jmp_b, gs_outside, 10, new_200),
        ROW(jmp_b, eip_outside, 13, new_0),
    };

    run_rows(rig_begin(state), protected_mode, rows, G_N_ELEMENTS(rows));
}

/* --- the debug trap, virtual-8086 tasks --- */

static void b_trap(struct rig *r)
{
    to_b(r);
    r->mem[AT_TSS_B + 0x64] = 1;
}
static void after_trap(struct rig *r, const char *name)
{
    EXPECT(r, name, r->s.dr[6] & (HSK_DR6_BT | HSK_DR6_BS), HSK_DR6_BT);
    EXPECT(r, name, stacked(r, 0, 4), LANDING);
    EXPECT(r, name, stacked(r, 2, 4), HSK_FLAG_FIXED | HSK_FLAG_CF);
}
static void b_v86(struct rig *r)
{
    to_b(r);
    hsk_put32(TSS_B(0x20), 0x80);
    hsk_put32(TSS_B(0x24), HSK_FLAG_FIXED | HSK_FLAG_VM | HSK_FLAG_IOPL);
    hsk_put32(TSS_B(0x38), 0x1234);
    for (unsigned i = HSK_ES; i <= HSK_GS; i++)
        hsk_put16(TSS_B(0x48 + 4 * i), i == HSK_CS ? AT_CODE >> 4 : 0x1000 + i);
}
static void after_v86(struct rig *r, const char *name)
{
    const uint32_t want[] = {0x80,
                             AT_CODE >> 4,
                             HSK_FLAG_FIXED | HSK_FLAG_VM | HSK_FLAG_IOPL | HSK_FLAG_RF,
                             0x1234,
                             0x1000 + HSK_SS,
                             0x1000 + HSK_ES,
                             0x1000 + HSK_DS,
                             0x1000 + HSK_FS,
                             0x1000 + HSK_GS};

    for (unsigned i = 0; i < G_N_ELEMENTS(want); i++)
        EXPECT(r, name, stacked(r, i, 4), want[i]);
}
static void from_v86(struct rig *r)
{
    v86_mode(r);
    memcpy(r->mem + AT_CODE, int_task, (size_t)(int_task_end - int_task));
    task_b(r);
    hsk_put64(r->mem + AT_IDT + 8 * 0x40, gate(SEL_TSS_B, 0, 0xe5, 0));
}
static void after_from_v86(struct rig *r, const char *name)
{
    EXPECT(r, name, hsk_get32(r->mem + AT_TSS + 0x20), 2);
    EXPECT(r, name, hsk_get32(r->mem + AT_TSS + 0x24),
           HSK_FLAG_FIXED | HSK_FLAG_VM | HSK_FLAG_IOPL);
    EXPECT(r, name, hsk_get16(r->mem + AT_TSS + 0x4c), AT_CODE >> 4);
    in_b(r, name, HSK_FLAG_FIXED | HSK_FLAG_CF | HSK_FLAG_NT);
}

static void traps_and_8086(void **state)
{
    static const struct row rows[] = {
        ROW(jmp_b, b_trap, 1, after_trap),
        ROW(jmp_b, b_v86, 6, after_v86),
        ROW(int_task, from_v86, 6, after_from_v86),
    };

    run_rows(rig_begin(state), protected_mode, rows, G_N_ELEMENTS(rows));
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(switches),       cmocka_unit_test(nesting),
        cmocka_unit_test(faults_before),  cmocka_unit_test(faults_after),
        cmocka_unit_test(traps_and_8086),
    };

    return run_lanes(tests, G_N_ELEMENTS(tests), false,
                     NULL); /* KVM switches tasks in software of its own */
}
