/* SPDX-License-Identifier: MIT */
/*
 * Virtual-8086 mode (SDM vol. 3, 21.2-21.4): the instructions that IOPL guards, interrupts and
 * exceptions into a 32-bit or 16-bit handler and IRET from it, the I/O permission bitmap, the
 * virtual interrupt flag and the redirection of INT n (VME), and the virtual interrupt flag of
 * protected mode (PVI).
 */
#include "mode_guest.h"

static void iopl_0(struct rig *r)
{
    r->s.rflags &= ~HSK_FLAG_IOPL;
}

static void gate_3(struct rig *r, unsigned vector, unsigned type)
{
    hsk_put64(r->mem + AT_IDT + 8 * vector, gate(SEL_CODE, AT_TRAPS + 16 * vector, type | 0x60, 0));
}

/* The frame of a handler of 32 bits, behind the error code. */
static void frame(struct rig *r, const char *name, unsigned error, unsigned ip, uint64_t flags)
{
    const uint32_t want[] = {ip,           AT_CODE >> 4,  (uint32_t)flags,
                             TOP,          AT_STACK >> 4, AT_DATA >> 4,
                             AT_DATA >> 4, AT_DATA >> 4,  AT_DATA >> 4};

    EXPECT(r, name, r->s.gpr[HSK_RSP], AT_INNER + TOP - 36 - 4 * error);
    for (unsigned i = 0; i < G_N_ELEMENTS(want); i++)
        EXPECT(r, name, stacked(r, i + error, 4), want[i]);
    EXPECT(r, name, r->s.rflags, HSK_FLAG_FIXED | (flags & HSK_FLAG_IOPL));
    EXPECT(r, name, r->s.seg[HSK_SS].selector, SEL_DATA);
    for (unsigned i = HSK_ES; i <= HSK_GS; i++)
        if (i != HSK_CS && i != HSK_SS) {
            EXPECT(r, name, r->s.seg[i].selector, 0);
            EXPECT(r, name, r->s.seg[i].attr & HSK_SEG_P, 0);
        }
}
static void gp_0(struct rig *r, const char *name)
{
    EXPECT(r, name, stacked(r, 0, 4), 0);
    frame(r, name, 1, 0,
          (r->s.rflags & HSK_FLAG_IOPL) | HSK_FLAG_FIXED | HSK_FLAG_VM | HSK_FLAG_RF);
}
static void ud(struct rig *r, const char *name)
{
    frame(r, name, 0, 0, HSK_FLAG_FIXED | HSK_FLAG_VM | HSK_FLAG_RF | HSK_FLAG_IOPL);
}

/* --- what IOPL guards --- */

CODE16(v_cli, "cli\nint3");
CODE16(v_sti, "sti\nint3");
CODE16(v_pushf, "pushf\nint3");
CODE16(v_pushfl, "pushfl\nint3");
CODE16(v_popf, "popf\nint3");
CODE16(v_popfl, "popfl\nint3");
CODE16(v_int, "int $0x21");
CODE16(v_iret, "iret");
CODE16(v_int3, "int3");
CODE16(v_hlt, "hlt");
CODE16(v_mov_cr, "mov %cr0, %eax");
CODE16(v_lgdt, "lgdt 0x20");
CODE16(v_clts, "clts");
CODE16(v_lar, "lar %ax, %bx");
CODE16(v_str, "str %ax");
CODE16(v_smsw, "smsw %bx\nint3");
CODE16(v_flags,
       "pushl $0x3f7ad5\npopfl\npushfl\npop %ebx\npush $0xad5\npopf\npushf\npop %cx\nint3");
CODE16(v_return, "push $0x0fd7\npush $0x2100\npush $0x12\niret");

static void open_3(struct rig *r)
{
    gate_3(r, 3, 0x8e);
}
static void open_3_iopl_0(struct rig *r)
{
    open_3(r);
    iopl_0(r);
}
static void open_21(struct rig *r)
{
    gate_3(r, 0x21, 0x8e);
}
static void after_smsw(struct rig *r, const char *name)
{
    EXPECT(r, name, r->s.gpr[HSK_RBX] & 0xffff, HSK_CR0_PE | HSK_CR0_ET | HSK_CR0_NE);
}
static void after_int3(struct rig *r, const char *name)
{
    frame(r, name, 0, 1, HSK_FLAG_FIXED | HSK_FLAG_VM);
}
static void after_int(struct rig *r, const char *name)
{
    frame(r, name, 0, 2, HSK_FLAG_FIXED | HSK_FLAG_VM | HSK_FLAG_IOPL);
}
static void after_int_closed(struct rig *r, const char *name)
{
    EXPECT(r, name, stacked(r, 0, 4), 0x21 * 8 + 2);
    EXPECT(r, name, stacked(r, 1, 4), 0);
}
static void after_cli(struct rig *r, const char *name)
{
    EXPECT(r, name, stacked(r, 2, 4), HSK_FLAG_FIXED | HSK_FLAG_VM | HSK_FLAG_IOPL);
}
static void after_sti(struct rig *r, const char *name)
{
    EXPECT(r, name, stacked(r, 2, 4), HSK_FLAG_FIXED | HSK_FLAG_VM | HSK_FLAG_IOPL | HSK_FLAG_IF);
}
static void after_flags(struct rig *r, const char *name)
{
    /* neither RF, VM, VIF, VIP nor IOPL come from the stack */
    EXPECT(r, name, r->s.gpr[HSK_RBX], 0x247ad7 | HSK_FLAG_IOPL);
    EXPECT(r, name, r->s.gpr[HSK_RCX] & 0xffff, 0x3ad7);
}
static void int3_there(struct rig *r)
{
    open_3(r);
    r->mem[0x21012] = 0xcc;
}
static void after_return(struct rig *r, const char *name)
{
    EXPECT(r, name, stacked(r, 0, 4), 0x13);
    EXPECT(r, name, stacked(r, 1, 4), 0x2100);
    EXPECT(r, name, stacked(r, 2, 4), HSK_FLAG_VM | 0x3ed7);
    EXPECT(r, name, stacked(r, 3, 4), TOP);
}
static void no_tf(struct rig *r)
{
    int3_there(r);
    r->mem[AT_CODE + 2] = 0x0e;
}

static void guarded(void **state)
{
    static const struct row rows[] = {
        ROW(v_cli, iopl_0, 13, gp_0),
        ROW(v_sti, iopl_0, 13, gp_0),
        ROW(v_pushf, iopl_0, 13, gp_0),
        ROW(v_pushfl, iopl_0, 13, gp_0),
        ROW(v_popf, iopl_0, 13, gp_0),
        ROW(v_popfl, iopl_0, 13, gp_0),
        ROW(v_int, iopl_0, 13, gp_0),
        ROW(v_iret, iopl_0, 13, gp_0),
        ROW(v_int3, open_3_iopl_0, 3, after_int3),
        ROW(v_hlt, NULL, 13, gp_0),
        ROW(v_mov_cr, NULL, 13, gp_0),
        ROW(v_lgdt, NULL, 13, gp_0),
        ROW(v_clts, NULL, 13, gp_0),
        ROW(v_lar, NULL, 6, ud),
        ROW(v_str, NULL, 6, ud),
        ROW(v_smsw, open_3, 3, after_smsw),
        ROW(v_int, open_21, 0x21, after_int),
        ROW(v_int, NULL, 13, after_int_closed),
        ROW(v_cli, open_3, 3, after_cli),
        ROW(v_sti, open_3, 3, after_sti),
        ROW(v_flags, open_3, 3, after_flags),
        ROW(v_return, no_tf, 3, after_return),
    };

    run_rows(rig_begin(state), v86_mode, rows, G_N_ELEMENTS(rows));
}

/* --- the way out and back --- */

static void handler_ring_1(struct rig *r)
{
    put_desc(r, SEL_FREE, FLAT_CODE | 0x200000000000);
    hsk_put64(r->mem + AT_IDT + 8 * 6, gate(SEL_FREE, AT_TRAPS, 0xee, 0));
}
static void handler_conforming(struct rig *r)
{
    put_desc(r, SEL_FREE, FLAT_CODE | 0x040000000000);
    hsk_put64(r->mem + AT_IDT + 8 * 6, gate(SEL_FREE, AT_TRAPS, 0xee, 0));
}
static void after_bad_handler(struct rig *r, const char *name)
{
    EXPECT(r, name, stacked(r, 0, 4), SEL_FREE | 1);
    frame(r, name, 1, 0, HSK_FLAG_FIXED | HSK_FLAG_VM | HSK_FLAG_RF | HSK_FLAG_IOPL);
}
static void narrow_gate(struct rig *r)
{
    gate_3(r, 3, 0x87); /* 16-bit trap gate; its offset is below 64 KiB of a segment at the traps */
    put_desc(r, SEL_FREE, descriptor(AT_TRAPS, 0xffff, 0x9b));
    hsk_put64(r->mem + AT_IDT + 8 * 3, gate(SEL_FREE, 16 * 3, 0xe7, 0));
    r->s.rflags |= HSK_FLAG_IF;
}
static void after_narrow(struct rig *r, const char *name)
{
    const uint16_t want[] = {1,
                             AT_CODE >> 4,
                             HSK_FLAG_FIXED | HSK_FLAG_IOPL | HSK_FLAG_IF,
                             TOP,
                             AT_STACK >> 4,
                             AT_DATA >> 4,
                             AT_DATA >> 4,
                             AT_DATA >> 4,
                             AT_DATA >> 4};

    EXPECT(r, name, r->s.gpr[HSK_RSP], AT_INNER + TOP - 18);
    for (unsigned i = 0; i < G_N_ELEMENTS(want); i++)
        EXPECT(r, name, stacked(r, i, 2), want[i]);
    EXPECT(r, name, r->s.rflags & HSK_FLAG_IF, HSK_FLAG_IF);
}
static void external(struct rig *r)
{
    r->s.rflags = (r->s.rflags & ~HSK_FLAG_IOPL) | HSK_FLAG_IF;
    r->s.interrupt_pending = 1;
    r->s.interrupt_vector = 0x66;
}
static void after_external(struct rig *r, const char *name)
{
    frame(r, name, 0, 0, HSK_FLAG_FIXED | HSK_FLAG_VM | HSK_FLAG_IF);
}

CODE16(v_ud, "ud2");
CODE16(v_segments,
       "mov $0x1234, %ax\nmov %ax, %ds\nmov $0x2345, %ax\nmov %ax, %fs\nlcall $0x2000, $0x40\n");
CODE16(v_there, "mov $0xffff, %bx\nmov (%bx), %al\nmov %fs:(%bx), %ax\n");

static void put_there(struct rig *r)
{
    memcpy(r->mem + AT_CODE + 0x40, v_there, (size_t)(v_there_end - v_there));
}
static void after_segments(struct rig *r, const char *name)
{
    EXPECT(r, name, stacked(r, 0, 4), 0); /* #GP(0): limits are 64 KiB */
    EXPECT(r, name, stacked(r, 1, 4), 0x45);
    EXPECT(r, name, stacked(r, 4, 4), TOP - 4);
    EXPECT(r, name, stacked(r, 7, 4), 0x1234);
    EXPECT(r, name, stacked(r, 8, 4), 0x2345);
}

static void out_of_it(void **state)
{
    static const struct row rows[] = {
        ROW(v_ud, NULL, 6, ud),
        ROW(v_ud, handler_ring_1, 13, after_bad_handler),
        ROW(v_ud, handler_conforming, 13, after_bad_handler),
        ROW(v_int3, narrow_gate, 3, after_narrow),
        ROW(v_int3, external, 0x66, after_external),
        ROW(v_segments, put_there, 13, after_segments),
    };

    run_rows(rig_begin(state), v86_mode, rows, G_N_ELEMENTS(rows));
}

CODE32(to_v86, "pushl $0x1005\npushl $0x1004\npushl $0x1003\npushl $0x1002\npushl $0x4000\npushl "
               "$0xabcd1234\npushl $0x3a3002\n"
               "pushl $0x2000\npushl $0x100\niret");
CODE32(to_v86_far, "pushl $0\npushl $0\npushl $0\npushl $0\npushl $0x4000\npushl $0x1234\npushl "
                   "$0x23002\npushl $0x2000\n"
                   "pushl $0x10000\niret");

static void trap_at_100(struct rig *r)
{
    open_3(r);
    r->mem[AT_CODE + 0x100] = 0xcc;
}
static void after_to_v86(struct rig *r, const char *name)
{
    const uint32_t want[] = {
        0x101, 0x2000, 0x1a3002 | HSK_FLAG_VM, 0xabcd1234, 0x4000, 0x1002, 0x1003, 0x1004, 0x1005};

    EXPECT(r, name, r->s.gpr[HSK_RSP], AT_INNER + TOP - 36);
    for (unsigned i = 0; i < G_N_ELEMENTS(want); i++)
        EXPECT(r, name, stacked(r, i, 4), i == 2 ? want[i] | HSK_FLAG_ID : want[i]);
}
static void after_to_v86_far(struct rig *r, const char *name)
{
    EXPECT(r, name, stacked(r, 0, 4), 0);
    EXPECT(r, name, stacked(r, 1, 4), to_v86_far_end - to_v86_far - 1 + AT_CODE);
    EXPECT(r, name, stacked(r, 2, 4), SEL_CODE);
}

static void into_it(void **state)
{
    static const struct row rows[] = {
        ROW(to_v86, trap_at_100, 3, after_to_v86),
        ROW(to_v86_far, trap_at_100, 13, after_to_v86_far),
    };

    run_rows(rig_begin(state), protected_mode, rows, G_N_ELEMENTS(rows));
}

/* --- the I/O permission bitmap --- */

CODE16(v_in, "mov $0x3f8, %dx\nin %dx, %al\nint3");
CODE16(v_in_word, "mov $0x3ff, %dx\nin %dx, %ax\nint3");
CODE16(v_in_dword, "mov $0x3fe, %dx\nin %dx, %eax\nint3");
CODE16(v_outs, "mov $0x3f8, %dx\nmov $3, %cx\nrep outsb\nint3");

static void bitmap(struct rig *r, unsigned limit)
{
    open_3(r);
    hsk_put16(r->mem + AT_TSS + 0x66, 0x68);
    memset(r->mem + AT_TSS + 0x68, 0xff, 0x100);
    r->mem[AT_TSS + 0x68 + 0x3f8 / 8] = 0; /* 3f8-3ff */
    r->s.seg[HSK_TR].limit = limit;
}
static void allowed(struct rig *r)
{
    bitmap(r, 0x68 + 0x80);
}
static void one_short(struct rig *r)
{
    bitmap(r, 0x68 + 0x3f8 / 8); /* two bytes are read always */
}
static void next_denied(struct rig *r)
{
    bitmap(r, 0x68 + 0x80);
}
static void next_allowed(struct rig *r)
{
    bitmap(r, 0x68 + 0x80);
    r->mem[AT_TSS + 0x68 + 0x80] = 0xfe;
}
static void tss_16(struct rig *r)
{
    bitmap(r, 0x68 + 0x80);
    r->s.seg[HSK_TR].attr = 0x83;
    hsk_put16(r->mem + AT_TSS + 2, 0x7000); /* SP0, SS0 */
    hsk_put16(r->mem + AT_TSS + 4, SEL_DATA);
}
static void after_in(struct rig *r, const char *name)
{
    EXPECT(r, name, r->s.gpr[HSK_RAX] & 0xff, 0xff);
}

static void ports(void **state)
{
    static const struct row rows[] = {
        ROW(v_in, allowed, 3, after_in),         ROW(v_in, one_short, 13, NULL),
        ROW(v_in_word, next_denied, 13, NULL),   ROW(v_in_word, next_allowed, 3, NULL),
        ROW(v_in_dword, next_allowed, 13, NULL), ROW(v_in, tss_16, 13, NULL),
        ROW(v_outs, allowed, 3, NULL),           ROW(v_outs, one_short, 13, NULL),
    };

    run_rows(rig_begin(state), v86_mode, rows, G_N_ELEMENTS(rows));
}

/* --- VME --- */

CODE16(e_flags,
       "sti\npushf\npop %ax\ncli\npushf\npop %bx\npush $0x0ed7\npopf\npushf\npop %cx\nint3");
CODE16(e_popf_tf, "push $0x102\npopf");
CODE16(e_popf_if, "push $0x202\npopf");
CODE16(e_iret, "push $0x0ed7\npush $0x2100\npush $0x12\niret");
CODE16(e_int, "sti\nint $0x21");
CODE16(e_int_plain, "int $0x21");

/* The redirection bitmap is at 68, the I/O permission bitmap behind it. */
static void vme(struct rig *r)
{
    open_3(r);
    iopl_0(r);
    r->s.cr4 |= HSK_CR4_VME;
    r->s.seg[HSK_TR].limit = 0x68 + 32 + 8;
    hsk_put16(r->mem + AT_TSS + 0x66, 0x68 + 32);
    hsk_put32(r->mem + AT_IVT + 4 * 0x21, 0x2100 << 16 | 0x12);
    r->mem[0x21012] = 0xcc;
}
static void vme_vip(struct rig *r)
{
    vme(r);
    r->s.rflags |= HSK_FLAG_VIP;
}
static void vme_iopl_3(struct rig *r)
{
    vme(r);
    r->s.rflags |= HSK_FLAG_IOPL | HSK_FLAG_IF;
}
static void vme_refused(struct rig *r)
{
    vme(r);
    r->mem[AT_TSS + 0x68 + 0x21 / 8] = 1 << (0x21 & 7);
}
static void vme_outside(struct rig *r)
{
    vme(r);
    r->s.seg[HSK_TR].limit = 0x67;
}
static void after_e_flags(struct rig *r, const char *name)
{
    EXPECT(r, name, r->s.gpr[HSK_RAX] & 0xffff, 0x3202); /* IF = VIF, IOPL reads as 3 */
    EXPECT(r, name, r->s.gpr[HSK_RBX] & 0xffff, 0x3002);
    EXPECT(r, name, r->s.gpr[HSK_RCX] & 0xffff, 0x3ed7);
    EXPECT(r, name, stacked(r, 2, 4), HSK_FLAG_VM | HSK_FLAG_VIF | 0xcd7);
}
static void after_e_iret(struct rig *r, const char *name)
{
    EXPECT(r, name, stacked(r, 0, 4), 0x13);
    EXPECT(r, name, stacked(r, 1, 4), 0x2100);
    EXPECT(r, name, stacked(r, 2, 4), HSK_FLAG_VM | HSK_FLAG_VIF | 0xcd7);
}
static void after_e_int(struct rig *r, const char *name)
{
    const uint8_t *frame16 = r->mem + AT_STACK + TOP - 6;

    EXPECT(r, name, stacked(r, 0, 4), 0x13);
    EXPECT(r, name, stacked(r, 1, 4), 0x2100);
    EXPECT(r, name, stacked(r, 2, 4), HSK_FLAG_VM | HSK_FLAG_FIXED); /* VIF is cleared */
    EXPECT(r, name, stacked(r, 3, 4), TOP - 6);
    EXPECT(r, name, hsk_get16(frame16), 3);
    EXPECT(r, name, hsk_get16(frame16 + 2), 0x2000);
    EXPECT(r, name, hsk_get16(frame16 + 4), 0x3202); /* VIF as IF, IOPL as 3 */
}
static void after_e_int_iopl_3(struct rig *r, const char *name)
{
    EXPECT(r, name, stacked(r, 2, 4), HSK_FLAG_VM | HSK_FLAG_FIXED | HSK_FLAG_IOPL);
    EXPECT(r, name, hsk_get16(r->mem + AT_STACK + TOP - 2), 0x3202);
}

static void extensions(void **state)
{
    static const struct row rows[] = {
        ROW(e_flags, vme, 3, after_e_flags),
        ROW(v_pushfl, vme, 13, gp_0),
        ROW(v_popfl, vme, 13, gp_0),
        ROW(e_popf_tf, vme, 13, NULL),
        ROW(e_popf_if, vme_vip, 13, NULL),
        ROW(v_sti, vme_vip, 13, NULL),
        ROW(v_cli, vme_vip, 3, NULL),
        ROW(e_iret, vme, 3, after_e_iret),
        ROW(e_int, vme, 3, after_e_int),
        ROW(e_int_plain, vme_iopl_3, 3, after_e_int_iopl_3),
        ROW(e_int_plain, vme_refused, 13, gp_0),
        ROW(e_int_plain, vme_outside, 13, gp_0),
        ROW(v_int3, vme, 3, after_int3),
    };

    run_rows(rig_begin(state), v86_mode, rows, G_N_ELEMENTS(rows));
}

CODE32(p_sti, "sti\ncli\nsti\nint3");
CODE32(p_popf, "pushf\norl $0x200, (%esp)\npopf\nint3");

static void pvi(struct rig *r)
{
    user_ring(r);
    open_3(r);
    r->s.cr4 |= HSK_CR4_PVI;
}
static void no_pvi(struct rig *r)
{
    pvi(r);
    r->s.cr4 = 0;
}
static void pvi_vip(struct rig *r)
{
    pvi(r);
    r->s.rflags |= HSK_FLAG_VIP;
}
static void after_p_sti(struct rig *r, const char *name)
{
    EXPECT(r, name, stacked(r, 2, 4), HSK_FLAG_FIXED | HSK_FLAG_VIF);
}
static void after_p_popf(struct rig *r, const char *name)
{
    EXPECT(r, name, stacked(r, 2, 4), HSK_FLAG_FIXED);
}

static void protected_extensions(void **state)
{
    static const struct row rows[] = {
        ROW(p_sti, pvi, 3, after_p_sti),
        ROW(p_sti, no_pvi, 13, NULL),
        ROW(p_sti, pvi_vip, 13, NULL),
        ROW(p_popf, pvi, 3, after_p_popf),
    };

    run_rows(rig_begin(state), protected_mode, rows, G_N_ELEMENTS(rows));
}

int main(void)
{
    static const struct difference differences[] = {
        {"v_segments put_there", QEMU_DOES, QEMU_NO_LIMITS},
        {"v_ud handler_ring_1", QEMU_DOES, "#TS where ring 0 is missing in the TSS"},
        {"v_ud handler_conforming", QEMU_DOES, "it never sets EXT"},
        {NULL, 0, NULL},
    };
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(guarded),
        cmocka_unit_test(out_of_it),
    };
    /* Not every KVM has a processor with VME; one on QEMU's does not come back from some of these.
     */
    static const struct CMUnitTest soft_tests[] = {
        cmocka_unit_test(into_it),
        cmocka_unit_test(ports),
        cmocka_unit_test(extensions),
        cmocka_unit_test(protected_extensions),
    };

    return run_lanes(soft_tests, G_N_ELEMENTS(soft_tests), false, NULL) +
           run_lanes(tests, G_N_ELEMENTS(tests), true, differences);
}
