/* SPDX-License-Identifier: MIT */
/*
 * Long mode (SDM vol. 2 and 3, 6.14): frames and stacks of 64-bit gates, IST, call gates of 16
 * bytes, canonical addresses, IRET, compatibility mode, and the fast system calls as on Intel
 * processors.
 */
#include "mode_guest.h"

enum { F0 = SEL_FREE, F1 = F0 + 8, IST1 = AT_INNER + 0x2000, LANDING = AT_CODE + 0x80 };
#define NOT_CANONICAL 0x0000800000000000ull

CODE64(ud, "ud2");
CODE64(int_40, "int $0x40");
CODE64(bad_load, "mov $0x200, %eax\nmov %eax, %ds");
CODE32(ud_32, "ud2");
CODE64(iretq_, "lea 0x30000, %rsp\niretq");
CODE64(jump, "ljmp *0x30000");
CODE64(call, "lcall *0x30000");
CODE64(call_wide, ".byte 0x48\nlcall *0x30000");
CODE32(call_32, "lcall *0x30000");

static void compat(struct rig *r)
{
    r->s.seg[HSK_CS] = segment(FLAT_CODE, SEL_CODE);
}
static void user(struct rig *r)
{
    user_ring(r);
    r->s.seg[HSK_CS] = segment(get_desc(r, SEL_UCODE64), SEL_UCODE64);
}
static void put_gate(struct rig *r, unsigned vector, uint64_t d, uint32_t high)
{
    hsk_put64(r->mem + AT_IDT + 16 * vector, d);
    hsk_put64(r->mem + AT_IDT + 16 * vector + 8, high);
}
static uint64_t handler(unsigned sel, unsigned vector, unsigned type)
{
    return gate(sel, AT_TRAPS + 16 * vector, type, 0);
}

/* --- frames --- */

static void odd_stack(struct rig *r)
{
    r->s.gpr[HSK_RSP] = AT_STACK + TOP + 3;
}
static void after_odd(struct rig *r, const char *name)
{
    EXPECT(r, name, r->s.gpr[HSK_RSP], AT_STACK + TOP - 40);
    EXPECT(r, name, stacked(r, 0, 8), AT_CODE);
    EXPECT(r, name, stacked(r, 1, 8), SEL_CODE64);
    EXPECT(r, name, stacked(r, 2, 8), HSK_FLAG_FIXED | HSK_FLAG_RF);
    EXPECT(r, name, stacked(r, 3, 8), AT_STACK + TOP + 3);
    EXPECT(r, name, stacked(r, 4, 8), SEL_DATA);
    EXPECT(r, name, r->s.seg[HSK_SS].selector, SEL_DATA); /* the same ring: SS stays */
}
static void after_error(struct rig *r, const char *name)
{
    EXPECT(r, name, r->s.gpr[HSK_RSP], AT_STACK + TOP - 48);
    EXPECT(r, name, stacked(r, 0, 8), 0x200);
    EXPECT(r, name, stacked(r, 1, 8), AT_CODE + 5);
}
static void after_user(struct rig *r, const char *name)
{
    EXPECT(r, name, r->s.gpr[HSK_RSP], AT_INNER + TOP - 40);
    EXPECT(r, name, stacked(r, 1, 8), SEL_UCODE64);
    EXPECT(r, name, stacked(r, 4, 8), SEL_UDATA);
    EXPECT(r, name, r->s.seg[HSK_SS].selector, 0);
    EXPECT(r, name, r->s.seg[HSK_DS].selector, SEL_UDATA);
}
static void after_compat(struct rig *r, const char *name)
{
    EXPECT(r, name, r->s.gpr[HSK_RSP], AT_STACK + TOP - 40);
    EXPECT(r, name, stacked(r, 1, 8), SEL_CODE);
    EXPECT(r, name, stacked(r, 4, 8), SEL_DATA);
    EXPECT(r, name, r->s.seg[HSK_CS].selector, SEL_CODE64);
}
static void ist(struct rig *r)
{
    hsk_put64(r->mem + AT_TSS + 0x24, IST1 + 8);
    put_gate(r, 6, handler(SEL_CODE64, 6, 0x8e) | 1ull << 32, 0);
}
static void ist_user(struct rig *r)
{
    ist(r);
    user(r);
}
static void after_ist(struct rig *r, const char *name)
{
    EXPECT(r, name, r->s.gpr[HSK_RSP], IST1 - 40); /* aligned, too */
    EXPECT(r, name, stacked(r, 3, 8), AT_STACK + TOP);
}
static void to_32_bit(struct rig *r)
{
    put_gate(r, 6, handler(SEL_CODE, 6, 0x8e), 0);
}
static void gate_16(struct rig *r)
{
    put_gate(r, 0x40, handler(SEL_CODE64, 0x40, 0x86), 0);
}
static void task_gate(struct rig *r)
{
    put_gate(r, 0x40, gate(SEL_TSS_B, 0, 0x85, 0), 0);
}
static void half_a_gate(struct rig *r)
{
    r->s.idtr.limit = 0x40 * 16 + 14;
}
static void far_handler(struct rig *r)
{
    put_gate(r, 6, handler(SEL_CODE64, 6, 0x8e), 0x8000);
    put_gate(r, 0x40, handler(SEL_CODE64, 0x40, 0x8e), 0x8000);
}
static void bad_rsp0(struct rig *r)
{
    user(r);
    hsk_put64(r->mem + AT_TSS + 4, NOT_CANONICAL + 0x100);
    hsk_put64(r->mem + AT_TSS + 0x24, IST1);
    put_gate(r, 12, handler(SEL_CODE64, 12, 0x8e) | 1ull << 32, 0);
}
static void bad_rsp0_everywhere(struct rig *r)
{
    user(r);
    hsk_put64(r->mem + AT_TSS + 4, NOT_CANONICAL + 0x100);
}
static void short_tss(struct rig *r)
{
    ist_user(r);
    r->s.seg[HSK_TR].limit = 0x2a; /* IST1 ends at 2b */
    put_gate(r, 10, handler(SEL_CODE64, 10, 0x8e), 0);
}
#define ERROR(name, value)                                                                         \
    static void name(struct rig *r, const char *row_name)                                          \
    {                                                                                              \
        EXPECT(r, row_name, stacked(r, 0, 8), value);                                              \
    }
ERROR(error_0, 0)
ERROR(error_1, 1)
ERROR(error_code32, SEL_CODE)
ERROR(error_code32_ext, SEL_CODE | 1)
ERROR(error_202, 0x202)
ERROR(error_tss_ext, SEL_TSS | 1)
ERROR(error_f0, F0)
ERROR(error_tss_b, SEL_TSS_B)

static void frames(void **state)
{
    static const struct row rows[] = {
        ROW(ud, odd_stack, 6, after_odd),
        ROW(bad_load, NULL, 13, after_error),
        ROW(ud, user, 6, after_user),
        ROW(ud_32, compat, 6, after_compat),
        ROW(ud, ist, 6, after_ist),
        ROW(ud, ist_user, 6, after_ist),
        ROW(ud, to_32_bit, 13, error_code32_ext),
        ROW(int_40, gate_16, 13, error_202),
        ROW(int_40, task_gate, 13, error_202),
        ROW(int_40, half_a_gate, 13, error_202),
        ROW(int_40, user, 13, error_202),
        ROW(ud, far_handler, 13, error_1),
        ROW(int_40, far_handler, 13, error_0),
        ROW(ud, bad_rsp0, 12, error_1),
        ROW(ud, bad_rsp0_everywhere, SHUTDOWN, NULL),
        ROW(ud, short_tss, 10, error_tss_ext),
    };

    run_rows(rig_begin(state), long_mode, rows, G_N_ELEMENTS(rows));
}

/* --- far branches and IRET --- */

static void pointer(struct rig *r, uint32_t offset, unsigned sel)
{
    hsk_put32(r->mem + AT_DATA, offset);
    hsk_put16(r->mem + AT_DATA + 4, (uint16_t)sel);
    hsk_put16(r->mem + LANDING, 0x0b0f);
}
static void to_tss(struct rig *r)
{
    pointer(r, 0, SEL_TSS_B);
}
static void to_task_gate(struct rig *r)
{
    pointer(r, 0, F0);
    put_desc(r, F0, gate(SEL_TSS_B, 0, 0x85, 0));
}
static void call_gate(struct rig *r, unsigned sel, unsigned type, uint64_t high)
{
    pointer(r, 0, F0);
    put_desc(r, F0, gate(sel, LANDING, type, 0));
    put_desc(r, F1, high);
}
static void gate_same(struct rig *r)
{
    call_gate(r, SEL_CODE64, 0x8c, 0);
}
static void gate_inner(struct rig *r)
{
    user(r);
    call_gate(r, SEL_CODE64, 0xec, 0);
}
static void gate_inner_compat(struct rig *r)
{
    user_ring(r);
    call_gate(r, SEL_CODE64, 0xec, 0);
}
static void gate_286(struct rig *r)
{
    call_gate(r, SEL_CODE64, 0x84, 0);
}
static void gate_upper_type(struct rig *r)
{
    call_gate(r, SEL_CODE64, 0x8c, 1ull << 40);
}
static void gate_to_32(struct rig *r)
{
    call_gate(r, SEL_CODE, 0x8c, 0);
}
static void gate_not_canonical(struct rig *r)
{
    call_gate(r, SEL_CODE64, 0x8c, 0x8000);
}
static void code_l_and_d(struct rig *r)
{
    pointer(r, LANDING, F0);
    put_desc(r, F0, FLAT_CODE64 | 1ull << 54);
}
static void to_compat(struct rig *r)
{
    pointer(r, LANDING, SEL_CODE);
}
static void wide_pointer(struct rig *r)
{
    hsk_put64(r->mem + AT_DATA, LANDING);
    hsk_put16(r->mem + AT_DATA + 8, SEL_CODE64);
    hsk_put16(r->mem + LANDING, 0x0b0f);
}
static void wide_not_canonical(struct rig *r)
{
    wide_pointer(r);
    hsk_put64(r->mem + AT_DATA, NOT_CANONICAL);
}
static void after_gate_same(struct rig *r, const char *name)
{
    EXPECT(r, name, stacked(r, 0, 8), LANDING);
    EXPECT(r, name, hsk_get64(r->mem + AT_STACK + TOP - 8), SEL_CODE64);
    EXPECT(r, name, hsk_get64(r->mem + AT_STACK + TOP - 16), AT_CODE + 7);
}
static void after_gate_inner(struct rig *r, const char *name)
{
    const uint8_t *top = r->mem + AT_INNER + TOP;

    EXPECT(r, name, hsk_get64(top - 8), SEL_UDATA);
    EXPECT(r, name, hsk_get64(top - 16), AT_STACK + TOP);
    EXPECT(r, name, hsk_get64(top - 24) & ~0x48ull,
           0x13); /* the 64-bit or the 32-bit code segment of ring 3 */
    EXPECT(r, name, r->s.gpr[HSK_RSP], AT_INNER + TOP - 32 - 40);
    EXPECT(r, name, stacked(r, 1, 8), SEL_CODE64);
    EXPECT(r, name, r->s.seg[HSK_SS].selector, 0);
}
static void after_to_compat(struct rig *r, const char *name)
{
    EXPECT(r, name, stacked(r, 1, 8), SEL_CODE);
}
static void after_wide(struct rig *r, const char *name)
{
    EXPECT(r, name, hsk_get64(r->mem + AT_STACK + TOP - 8), SEL_CODE64);
    EXPECT(r, name, hsk_get64(r->mem + AT_STACK + TOP - 16), AT_CODE + 8);
}

static void far_branches(void **state)
{
    static const struct row rows[] = {
        ROW(jump, to_tss, 13, error_tss_b),
        ROW(jump, to_task_gate, 13, error_f0),
        ROW(call, gate_same, 6, after_gate_same),
        ROW(call, gate_inner, 6, after_gate_inner),
        ROW(call_32, gate_inner_compat, 6, after_gate_inner),
        ROW(call, gate_286, 13, error_f0),
        ROW(call, gate_upper_type, 13, error_f0),
        ROW(call, gate_to_32, 13, error_code32),
        ROW(call, gate_not_canonical, 13, error_0),
        ROW(jump, code_l_and_d, 13, error_f0),
        ROW(jump, to_compat, 6, after_to_compat),
        ROW(call_wide, wide_pointer, 6, after_wide),
        ROW(call_wide, wide_not_canonical, 13, error_0),
    };

    run_rows(rig_begin(state), long_mode, rows, G_N_ELEMENTS(rows));
}

static void frame(struct rig *r, uint64_t rip, unsigned cs, uint64_t flags, uint64_t rsp,
                  unsigned ss)
{
    const uint64_t words[] = {rip, cs, flags, rsp, ss};

    for (unsigned i = 0; i < 5; i++)
        hsk_put64(r->mem + AT_DATA + 8 * i, words[i]);
    hsk_put16(r->mem + LANDING, 0x0b0f);
}
static void iret_nt(struct rig *r)
{
    frame(r, LANDING, SEL_CODE64, 2, AT_STACK, SEL_DATA);
    r->s.rflags |= HSK_FLAG_NT;
}
static void iret_same(struct rig *r)
{
    frame(r, LANDING, SEL_CODE64, 0x3f7ad7, AT_STACK + 8,
          0); /* null SS for ring 0; VM is not taken in long mode */
}
static void iret_far(struct rig *r)
{
    frame(r, NOT_CANONICAL, SEL_CODE64, 2, AT_STACK, SEL_DATA);
}
static void iret_user(struct rig *r)
{
    frame(r, LANDING, SEL_UCODE64, 2, NOT_CANONICAL, SEL_UDATA);
}
static void iret_user_null(struct rig *r)
{
    frame(r, LANDING, SEL_UCODE64, 2, AT_STACK, 3);
}
static void iret_compat_null(struct rig *r)
{
    frame(r, LANDING, SEL_CODE, 2, AT_STACK, 0);
}
static void after_iret_same(struct rig *r, const char *name)
{
    EXPECT(r, name, stacked(r, 0, 8), LANDING);
    EXPECT(r, name, stacked(r, 2, 8), 0x3d7ad7); /* all but VM */
    EXPECT(r, name, stacked(r, 3, 8), AT_STACK + 8);
    EXPECT(r, name, stacked(r, 4, 8), 0);
}
static void after_iret_user(struct rig *r, const char *name)
{
    EXPECT(r, name, stacked(r, 3, 8), NOT_CANONICAL); /* nobody looks at RSP before it is used */
}

static void iret(void **state)
{
    static const struct row rows[] = {
        ROW(iretq_, iret_nt, 13, error_0),        ROW(iretq_, iret_same, 6, after_iret_same),
        ROW(iretq_, iret_far, 13, error_0),       ROW(iretq_, iret_user, 6, after_iret_user),
        ROW(iretq_, iret_user_null, 13, error_0), ROW(iretq_, iret_compat_null, 13, error_0),
    };

    run_rows(rig_begin(state), long_mode, rows, G_N_ELEMENTS(rows));
}

/* A hundred to the ring that they come from, so that all but the first find their way known. The
 * last one pops RDX. */
CODE64(iretq_again, "mov $100, %ecx\n"
                    "1: mov $2, %esi\ncmp $1, %ecx\ncmove %edx, %esi\n"
                    "mov %rsp, %rax\nmov %ss, %ebx\npush %rbx\npush %rax\npush %rsi\n"
                    "mov %cs, %ebx\npush %rbx\nlea 2f(%rip), %rbx\npush %rbx\niretq\n"
                    "2: loop 1b\nud2");
enum { AGAIN_BYTES = 39, AGAIN_END = AT_CODE + AGAIN_BYTES, AGAIN_LOOP = AGAIN_END - 2 };

static void again(struct rig *r)
{
    r->s.gpr[HSK_RDX] = 0x8d7;
}
static void again_step(struct rig *r)
{
    r->s.gpr[HSK_RDX] = 0x102;
}
static void again_open(struct rig *r)
{
    r->s.gpr[HSK_RDX] = 0x202;
    r->s.interrupt_pending = 1;
    r->s.interrupt_vector = 0x40;
}
static void again_nt(struct rig *r)
{
    r->s.gpr[HSK_RDX] = 2 | HSK_FLAG_NT;
}
/* The handler's frame: where, and what RCX and the flags are. */
static void expect_again(struct rig *r, const char *name, uint64_t rip, uint64_t rcx,
                         uint64_t flags)
{
    EXPECT(r, name, stacked(r, 0, 8), rip);
    EXPECT(r, name, stacked(r, 2, 8) & ~(uint64_t)HSK_FLAG_RF, flags);
    EXPECT(r, name, r->s.gpr[HSK_RCX], rcx);
}
static void after_again(struct rig *r, const char *name)
{
    expect_again(r, name, AGAIN_END, 0, 0x8d7);
}
static void after_again_step(struct rig *r, const char *name)
{
    expect_again(r, name, AGAIN_END, 0, 0x102);
}
static void after_again_open(struct rig *r, const char *name)
{
    expect_again(r, name, AGAIN_LOOP, 1, 0x202);
}
static void after_again_nt(struct rig *r, const char *name)
{
    expect_again(r, name, AGAIN_END, 0, 2 | HSK_FLAG_NT);
}

static void iret_again(void **state)
{
    static const struct row rows[] = {
        ROW(iretq_again, again, 6, after_again),
        ROW(iretq_again, again_step, 1, after_again_step),
        ROW(iretq_again, again_open, 0x40, after_again_open),
        ROW(iretq_again, again_nt, 6, after_again_nt),
    };

    assert_int_equal(iretq_again_end - iretq_again, AGAIN_BYTES + 2);
    run_rows(rig_begin(state), long_mode, rows, G_N_ELEMENTS(rows));
}

/* --- canonical addresses, SYSCALL and its kin --- */

CODE64(push_far, "push %rax");
CODE64(load_far, "mov (%rbx), %eax");
CODE64(load_stack_far, "mov (%rsp), %eax");
CODE64(jump_far, "jmp *%rbx");
CODE64(invlpg_far, "invlpg (%rbx)\nud2");
CODE64(syscall_, "syscall");
CODE32(syscall_32, "syscall");
CODE64(sysret_, "sysretq");
CODE64(sysret_32, "sysretl");
CODE64(swapgs_, "swapgs");
CODE32(sysenter_32, "sysenter");
CODE64(sysexit_wide, ".byte 0x48\nsysexit");
CODE64(ltr_, "mov $0x58, %eax\nltr %ax\nud2");
CODE64(mov_ss_null, "xor %eax, %eax\nmov %eax, %ss\nud2");
CODE64(mov_ss_null_3, "mov $3, %eax\nmov %eax, %ss\nud2");

static void far_rbx(struct rig *r)
{
    r->s.gpr[HSK_RBX] = NOT_CANONICAL;
}
static void far_rsp(struct rig *r)
{
    r->s.gpr[HSK_RSP] = NOT_CANONICAL + 8;
    hsk_put64(r->mem + AT_TSS + 0x24, IST1);
    put_gate(r, 12, handler(SEL_CODE64, 12, 0x8e) | 1ull << 32, 0);
}
static void edge_rsp(struct rig *r)
{
    far_rsp(r);
    r->s.gpr[HSK_RSP] = 0xffff800000000000; /* the push would go below */
}
static void at_code(struct rig *r, const char *name)
{
    EXPECT(r, name, stacked(r, 0, 8), 0);
    EXPECT(r, name, stacked(r, 1, 8), AT_CODE);
}
static void calls(struct rig *r)
{
    user(r);
    r->s.star = (uint64_t)SEL_CODE64 << 32 | (uint64_t)0x13 << 48;
    r->s.lstar = LANDING;
    r->s.sfmask = HSK_FLAG_IF | HSK_FLAG_TF;
    r->s.rflags |= HSK_FLAG_IF | HSK_FLAG_CF;
    r->mem[LANDING] = 0xf4;
}
static void calls_32(struct rig *r)
{
    calls(r);
    r->s.seg[HSK_CS] = segment(FLAT_UCODE, SEL_UCODE);
}
static void calls_off(struct rig *r)
{
    calls(r);
    r->s.efer &= ~HSK_EFER_SCE;
}
static void after_syscall(struct rig *r, const char *name)
{
    EXPECT(r, name, r->s.rip, LANDING + 1);
    EXPECT(r, name, r->s.gpr[HSK_RCX], AT_CODE + 2);
    EXPECT(r, name, r->s.gpr[HSK_R11], HSK_FLAG_FIXED | HSK_FLAG_IF | HSK_FLAG_CF);
    EXPECT(r, name, r->s.rflags, HSK_FLAG_FIXED | HSK_FLAG_CF);
    EXPECT(r, name, r->s.seg[HSK_CS].selector, SEL_CODE64);
    EXPECT(r, name, r->s.seg[HSK_SS].selector, SEL_CODE64 + 8);
}
static void back(struct rig *r)
{
    r->s.star = (uint64_t)0x40 << 48; /* CS = 50 | 3, SS = 48 | 3 whatever the table says */
    r->s.gpr[HSK_RCX] = LANDING;
    r->s.gpr[HSK_R11] = 0x3f7cd7;
    hsk_put16(r->mem + LANDING, 0x0b0f);
}
static void back_far(struct rig *r)
{
    back(r);
    r->s.gpr[HSK_RCX] = NOT_CANONICAL;
}
static void after_sysret(struct rig *r, const char *name)
{
    EXPECT(r, name, stacked(r, 0, 8), LANDING);
    EXPECT(r, name, stacked(r, 1, 8), 0x53);
    EXPECT(r, name, stacked(r, 2, 8), 0x3d7cd7); /* without VM; UD2's own RF is there */
    EXPECT(r, name, stacked(r, 4, 8), 0x4b);
}
static void after_sysret_32(struct rig *r, const char *name)
{
    EXPECT(r, name, stacked(r, 1, 8), 0x43);
}
static void enter(struct rig *r)
{
    user_ring(r);
    r->s.sysenter_cs = SEL_CODE64;
    r->s.sysenter_esp = 0xffff800000001000;
    r->s.sysenter_eip = LANDING;
    r->mem[LANDING] = 0xf4;
}
static void after_enter(struct rig *r, const char *name)
{
    EXPECT(r, name, r->s.rip, LANDING + 1);
    EXPECT(r, name, r->s.gpr[HSK_RSP], 0xffff800000001000);
    EXPECT(r, name, r->s.seg[HSK_CS].attr, 0xa09b);
}
static void leave(struct rig *r)
{
    r->s.sysenter_cs = SEL_CODE;
    r->s.gpr[HSK_RDX] = LANDING;
    r->s.gpr[HSK_RCX] = AT_STACK;
    hsk_put16(r->mem + LANDING, 0x0b0f);
}
static void leave_far(struct rig *r)
{
    leave(r);
    r->s.gpr[HSK_RCX] = NOT_CANONICAL;
}
static void after_leave(struct rig *r, const char *name)
{
    EXPECT(r, name, stacked(r, 1, 8), (SEL_CODE + 32) | 3);
    EXPECT(r, name, stacked(r, 4, 8), (SEL_CODE + 40) | 3);
}
static void wide_tss(struct rig *r, uint64_t high)
{
    put_desc(r, F0, descriptor(AT_TSS, 0x67, 0x89));
    put_desc(r, F1, high);
}
static void tss_high(struct rig *r)
{
    wide_tss(r, 0xffff8000);
}
static void tss_far(struct rig *r)
{
    wide_tss(r, 0x8000);
}
static void tss_type(struct rig *r)
{
    wide_tss(r, 1ull << 40);
}
static void after_ltr(struct rig *r, const char *name)
{
    EXPECT(r, name, r->s.seg[HSK_TR].base, 0xffff800000000000 + AT_TSS);
    EXPECT(r, name, get_desc(r, F0) >> 40 & 0xff, 0x8b);
}

static void addresses_and_calls(void **state)
{
    static const struct row rows[] = {
        ROW(push_far, far_rsp, 12, at_code),       ROW(push_far, edge_rsp, 12, at_code),
        ROW(load_stack_far, far_rsp, 12, at_code), ROW(load_far, far_rbx, 13, at_code),
        ROW(jump_far, far_rbx, 13, at_code),       ROW(invlpg_far, far_rbx, 6, NULL),
        ROW(syscall_, calls, OWN, after_syscall),  ROW(syscall_, calls_off, 6, NULL),
        ROW(syscall_32, calls_32, 6, NULL),        ROW(sysret_, back, 6, after_sysret),
        ROW(sysret_, back_far, 13, error_0),       ROW(sysret_32, back, 6, after_sysret_32),
        ROW(sysret_, user, 13, error_0),           ROW(swapgs_, user, 13, error_0),
        ROW(sysenter_32, enter, OWN, after_enter), ROW(sysexit_wide, leave, 6, after_leave),
        ROW(sysexit_wide, leave_far, 13, error_0), ROW(ltr_, tss_high, 6, after_ltr),
        ROW(ltr_, tss_far, 13, error_f0),          ROW(ltr_, tss_type, 13, error_f0),
        ROW(mov_ss_null, NULL, 6, NULL),           ROW(mov_ss_null_3, user, 13, error_0),
    };

    run_rows(rig_begin(state), long_mode, rows, G_N_ELEMENTS(rows));
}

int main(void)
{
    static const struct difference differences[] = {
        {"ud to_32_bit", QEMU_DOES, "it never sets EXT"},
        {"ud far_handler", QEMU_DOES, "it never sets EXT"},
        {"ud bad_rsp0", QEMU_DOES, "it never sets EXT"},
        {"ud short_tss", QEMU_DOES, "it never sets EXT"},
        {"int_40 gate_16", QEMU_DOES, "its error code is 16 times the vector"},
        {"int_40 task_gate", QEMU_DOES, "its error code is 16 times the vector"},
        {"int_40 half_a_gate", QEMU_DOES, "its error code is 16 times the vector"},
        {"int_40 user", QEMU_DOES, "its error code is 16 times the vector"},
        {"jump code_l_and_d", QEMU_DOES, "it allows L and D"},
        {"iretq_ iret_same", QEMU_DOES, "it has no VIF and VIP"},
        {"iretq_again again_open", KVM_DOES,
         "it delivers an acknowledged interrupt whatever IF says"},
        {"iretq_ iret_compat_null", QEMU_DOES, "it allows that"},
        {"push_far far_rsp", QEMU_DOES, "it looks for no canonical addresses"},
        {"push_far edge_rsp", QEMU_DOES, "it looks for no canonical addresses"},
        {"load_stack_far far_rsp", QEMU_DOES, "it looks for no canonical addresses"},
        {"jump_far far_rbx", QEMU_DOES, "it jumps there first"},
        {"syscall_ calls", QEMU_DOES, "it clears the arithmetic flags"},
        {"sysret_ back", QEMU_DOES, "it has no VIF and VIP"},
        {"ltr_ tss_far", QEMU_DOES, "it looks for no canonical addresses"},
        {"sysenter_32 enter", AMD_DOES, "SYSENTER_ESP has 32 bits"},
        {NULL, 0, NULL},
    };
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(frames),     cmocka_unit_test(far_branches),        cmocka_unit_test(iret),
        cmocka_unit_test(iret_again), cmocka_unit_test(addresses_and_calls),
    };

    return run_lanes(tests, G_N_ELEMENTS(tests), true, differences);
}
