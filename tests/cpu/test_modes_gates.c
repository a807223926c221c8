/* SPDX-License-Identifier: MIT */
/*
 * Selectors, gates and rings of 32-bit protected mode (SDM vol. 2: CALL, JMP, RET, IRET, MOV, LTR,
 * LLDT, LAR, LSL, VERR; vol. 3, 5): which descriptors each instruction refuses, with which vector
 * and error code, and where the others lead.
 */
#include "mode_guest.h"

/* Operands at AT_DATA: a far pointer, or a frame that ESP is set to. What succeeds ends at the UD2
 * at LANDING. */
enum { LANDING = AT_CODE + 0x80 };
enum { F0 = SEL_FREE, F1 = F0 + 8, F2 = F1 + 8, F3 = F2 + 8 };

CODE32(call, "lcall *0x30000");
CODE32(jmp, "ljmp *0x30000");
CODE32(mov_ds, "mov 0x30004, %ds\nud2");
CODE32(mov_ss, "mov 0x30004, %ss\nud2");
CODE32(pop_es, "push 0x30004\npop %es\nud2");
CODE32(lfs_, "lfs 0x30000, %eax\nud2");
CODE32(ltr_, "ltr 0x30004\nud2");
CODE32(lldt_, "lldt 0x30004\nud2");
CODE32(ret, "mov $0x30000, %esp\nlret");
CODE32(ret_8, "mov $0x30000, %esp\nlret $8");
CODE32(ret_16, "mov $0x30000, %esp\nlretw");
CODE32(iret_, "mov $0x30000, %esp\niret");
CODE32(iret_16, "mov $0x30000, %esp\niretw");

struct far {
    const char *name;
    const uint8_t *code, *end;
    unsigned ring;
    uint32_t w[6];
    uint64_t d[4]; /* F0, F1, F2, F3 */
    int vector;
    unsigned error; /* or the CS it leads to */
    void (*change)(struct rig *r);
    void (*after)(struct rig *r, const char *name);
};
#define C(name) name, name##_end

static bool has_error(int vector)
{
    return vector == 8 || (vector >= 10 && vector <= 14);
}

static void run_one(struct rig *r, const void *row)
{
    const struct far *f = row;

    protected_mode(r);
    if (f->ring)
        user_ring(r);
    put_code(r, f->code, f->end);
    hsk_put16(r->mem + LANDING, 0x0b0f);
    for (unsigned k = 0; k < 6; k++)
        hsk_put32(r->mem + AT_DATA + 4 * k, f->w[k]);
    for (unsigned k = 0; k < 4; k++)
        put_desc(r, F0 + 8 * k, f->d[k]);
    if (f->change)
        f->change(r);
    run_to(r, f->name, HSK_EXIT_HALT);
    EXPECT(r, f->name, vector_of(r), f->vector);
    if (has_error(f->vector))
        EXPECT(r, f->name, stacked(r, 0, 4), f->error);
    else
        EXPECT(r, f->name, stacked(r, 1, 4), f->error);
    if (f->after)
        f->after(r, f->name);
}

static void run_far(struct rig *r, const struct far *f, size_t n)
{
    for (size_t i = 0; i < n; i++, f++)
        try_row(r, f->name, run_one, f);
    end_of_rows(r);
}

/* the access byte and flags of code and data segments with base 0 */
#define CODE_AT(dpl, extra)      (FLAT_CODE | (uint64_t)(dpl) << 45 | (extra))
#define CONFORMING               (0x4ull << 40)
#define UNREADABLE_CODE(dpl)     (0x00cf99000000ffffull | (uint64_t)(dpl) << 45)
#define ABSENT(d)                ((d) & ~(1ull << 47))
#define READ_ONLY(dpl)           (0x00cf91000000ffffull | (uint64_t)(dpl) << 45)
#define SMALL_CODE               0x00409b0000000fffull
#define GATE32(sel, dpl, params) gate(sel, LANDING, 0x8c | (dpl) << 5, params)

/* --- CALL and JMP to code segments --- */

static void after_call(struct rig *r, const char *name)
{
    EXPECT(r, name, stacked(r, 3, 4), AT_CODE + 6); /* behind UD2's frame: return address and CS */
    EXPECT(r, name, stacked(r, 4, 4), SEL_CODE);
}
static void after_conforming(struct rig *r, const char *name)
{
    EXPECT(r, name, stacked(r, 4, 4), SEL_UDATA);
    EXPECT(r, name, get_desc(r, F0) >> 40 & 1, 1); /* accessed */
}

static void far_to_code(void **state)
{
    static const struct far cases[] = {
        {"call", C(call), 0, {LANDING, SEL_CODE}, {0}, 6, SEL_CODE, NULL, after_call},
        {"jmp", C(jmp), 0, {LANDING, SEL_CODE}, {0}, 6, SEL_CODE},
        {"call null", C(call), 0, {LANDING, 0}, {0}, 13, 0},
        {"call null 3", C(call), 0, {LANDING, 3}, {0}, 13, 0},
        {"call outside", C(call), 0, {LANDING, 0x100}, {0}, 13, 0x100},
        {"call outside LDT", C(call), 0, {LANDING, 0x107}, {0}, 13, 0x104},
        {"call data", C(call), 0, {LANDING, SEL_DATA}, {0}, 13, SEL_DATA},
        {"call outer code", C(call), 0, {LANDING, 0x18}, {0}, 13, 0x18},
        {"call inner code", C(call), 3, {LANDING, SEL_CODE}, {0}, 13, SEL_CODE},
        {"call RPL", C(call), 0, {LANDING, SEL_CODE | 1}, {0}, 13, SEL_CODE},
        {"call absent", C(call), 0, {LANDING, F0}, {ABSENT(FLAT_CODE)}, 11, F0},
        {"call absent outer", C(call), 0, {LANDING, F0}, {ABSENT(FLAT_UCODE)}, 13, F0},
        {"call conforming",
         C(call),
         3,
         {LANDING, F0},
         {(FLAT_CODE | CONFORMING) & ~(1ull << 40)},
         6,
         F0 | 3,
         NULL,
         after_conforming},
        {"call conforming outer", C(call), 0, {LANDING, F0}, {CODE_AT(3, CONFORMING)}, 13, F0},
        {"call beyond the limit", C(call), 0, {0x1000, F0}, {SMALL_CODE}, 13, 0},
        {"jmp beyond the limit", C(jmp), 0, {0x1000, F0}, {SMALL_CODE}, 13, 0},
        {"jmp null", C(jmp), 0, {LANDING, 0}, {0}, 13, 0},
        {"jmp absent", C(jmp), 0, {LANDING, F0}, {ABSENT(FLAT_CODE)}, 11, F0},
        {"jmp LDT descriptor", C(jmp), 0, {0, SEL_LDT}, {0}, 13, SEL_LDT},
        {"jmp interrupt gate", C(jmp), 0, {0, F0}, {0x00008e0000080000}, 13, F0},
        {"jmp type 0", C(jmp), 0, {0, F0}, {0x0000800000080000}, 13, F0},
        {"jmp type 8", C(jmp), 0, {0, F0}, {0x0000880000080000}, 13, F0},
        {"jmp busy TSS", C(jmp), 0, {0, SEL_TSS}, {0}, 13, SEL_TSS},
        {"jmp TSS of ring 0", C(jmp), 3, {0, SEL_TSS_B}, {0}, 13, SEL_TSS_B},
    };

    run_far(rig_begin(state), cases, G_N_ELEMENTS(cases));
}

/* --- call gates --- */

static void tss_ss_null(struct rig *r)
{
    hsk_put16(r->mem + AT_TSS + 8, 0);
}
static void tss_ss_rpl(struct rig *r)
{
    hsk_put16(r->mem + AT_TSS + 8, F2 | 3);
}
static void tss_ss_f2(struct rig *r)
{
    hsk_put16(r->mem + AT_TSS + 8, F2);
}
static void tss_ss_outside(struct rig *r)
{
    hsk_put16(r->mem + AT_TSS + 8, 0x200);
}
/* #GP and the others need ring 0's stack, so the gates of these cases lead to ring 1. */
static void tss_short(struct rig *r)
{
    r->s.seg[HSK_TR].limit = 0x10; /* ESP0, SS0, and ESP1, but not SS1 */
}
static void ring_1_stack(struct rig *r)
{
    hsk_put32(r->mem + AT_TSS + 0xc, AT_INNER + 0x4000);
    hsk_put16(r->mem + AT_TSS + 0x10, F2 | 1);
}
static void ring_1_small_stack(struct rig *r)
{
    ring_1_stack(r);
    hsk_put32(r->mem + AT_TSS + 0xc, 16); /* room for 4 words, the gate wants 5 */
}
static void parameters(struct rig *r)
{
    for (unsigned i = 0; i < 4; i++)
        hsk_put32(r->mem + AT_STACK + TOP + 4 * i, 0x11110001u * (i + 1));
}
/* The UD2 is in ring 0 then: its frame is below the gate's. */
static void after_parameters(struct rig *r, const char *name)
{
    const uint32_t want[] = {AT_CODE + 6, SEL_UCODE,      0x11110001, 0x22220002,
                             0x33330003,  AT_STACK + TOP, SEL_UDATA};

    EXPECT(r, name, r->s.gpr[HSK_RSP], AT_INNER + TOP - 28 - 12);
    for (unsigned i = 0; i < G_N_ELEMENTS(want); i++)
        EXPECT(r, name, stacked(r, 3 + i, 4), want[i]);
    EXPECT(r, name, r->s.seg[HSK_SS].selector, SEL_DATA);
    EXPECT(r, name, r->s.seg[HSK_DS].selector, SEL_UDATA);
}
static void after_parameters_16(struct rig *r, const char *name)
{
    const uint16_t want[] = {6, SEL_UCODE, 0x0001, 0x1111, (AT_STACK + TOP) & 0xffff, SEL_UDATA};

    EXPECT(r, name, r->s.gpr[HSK_RSP], AT_INNER + TOP - 12 - 12);
    for (unsigned i = 0; i < G_N_ELEMENTS(want); i++)
        EXPECT(r, name, stacked(r, 6 + i, 2), want[i]);
}
static void after_same_16(struct rig *r, const char *name)
{
    EXPECT(r, name, r->s.gpr[HSK_RSP], AT_STACK + TOP - 4 - 12);
    EXPECT(r, name, stacked(r, 6, 2), 6);
    EXPECT(r, name, stacked(r, 7, 2), SEL_CODE);
}
static void after_ring_1(struct rig *r, const char *name)
{
    const uint8_t *top = r->mem + AT_INNER + 0x4000;

    EXPECT(r, name, hsk_get32(top - 4), SEL_UDATA);
    EXPECT(r, name, hsk_get32(top - 8), AT_STACK + TOP);
    EXPECT(r, name, hsk_get32(top - 12), SEL_UCODE);
    EXPECT(r, name, hsk_get32(top - 16), AT_CODE + 6);
    EXPECT(r, name, stacked(r, 4, 4), F2 | 1);
}

static void call_gates(void **state)
{
    const uint64_t seg_16 = descriptor(AT_CODE, 0xffff, 0x9b), data_1 = FLAT_DATA | 1ull << 45,
                   code_1 = CODE_AT(1, 0), small_1 = descriptor(AT_INNER, 0xfff, 0x40b3);
    const struct far cases[] = {
        {"same ring", C(call), 0, {0, F0}, {GATE32(SEL_CODE, 0, 5)}, 6, SEL_CODE, NULL, after_call},
        {"jmp same ring", C(jmp), 0, {0, F0}, {GATE32(SEL_CODE, 0, 0)}, 6, SEL_CODE},
        {"same ring, 16 bits",
         C(call),
         0,
         {0, F0},
         {gate(F1, 0x80, 0x84, 0), seg_16},
         6,
         F1,
         NULL,
         after_same_16},
        {"gate's DPL", C(call), 3, {0, F0}, {GATE32(SEL_CODE, 0, 0)}, 13, F0},
        {"gate's DPL against RPL", C(call), 0, {0, F0 | 3}, {GATE32(SEL_CODE, 2, 0)}, 13, F0},
        {"gate absent", C(call), 3, {0, F0}, {ABSENT(GATE32(SEL_CODE, 3, 0))}, 11, F0},
        {"gate absent and closed", C(call), 3, {0, F0}, {ABSENT(GATE32(SEL_CODE, 0, 0))}, 13, F0},
        {"to null", C(call), 3, {0, F0}, {GATE32(0, 3, 0)}, 13, 0},
        {"to outside", C(call), 3, {0, F0}, {GATE32(0x200, 3, 0)}, 13, 0x200},
        {"to data", C(call), 3, {0, F0}, {GATE32(SEL_DATA, 3, 0)}, 13, SEL_DATA},
        {"to absent", C(call), 3, {0, F0}, {GATE32(F1, 3, 0), ABSENT(FLAT_CODE)}, 11, F1},
        {"to outer", C(call), 0, {0, F0}, {GATE32(0x18, 3, 0)}, 13, 0x18},
        {"jmp to inner", C(jmp), 3, {0, F0}, {GATE32(SEL_CODE, 3, 0)}, 13, SEL_CODE},
        {"jmp to conforming",
         C(jmp),
         3,
         {0, F0},
         {GATE32(F1, 3, 0), FLAT_CODE | CONFORMING},
         6,
         F1 | 3},
        {"beyond the limit", C(call), 3, {0, F0}, {GATE32(F1, 3, 0), SMALL_CODE}, 13, 0},
        {"inner ring",
         C(call),
         3,
         {0, F0},
         {GATE32(SEL_CODE | 3, 3, 3)},
         6,
         SEL_CODE,
         parameters,
         after_parameters},
        {"inner ring, 16 bits",
         C(call),
         3,
         {0, F0},
         {gate(F1, 0x80, 0xe4, 2), seg_16},
         6,
         F1,
         parameters,
         after_parameters_16},
        {"ring 1",
         C(call),
         3,
         {0, F0},
         {GATE32(F1, 3, 0), code_1, data_1},
         6,
         F1 | 1,
         ring_1_stack,
         after_ring_1},
        {"TSS too short",
         C(call),
         3,
         {0, F0},
         {GATE32(F1, 3, 0), code_1, data_1},
         10,
         SEL_TSS,
         tss_short},
        {"stack too small",
         C(call),
         3,
         {0, F0},
         {GATE32(F1, 3, 1), code_1, small_1},
         12,
         F2,
         ring_1_small_stack},
        {"stack just enough",
         C(call),
         3,
         {0, F0},
         {GATE32(F1, 3, 0), code_1, small_1},
         6,
         F1 | 1,
         ring_1_small_stack},
        {"stack absent",
         C(call),
         3,
         {0, F0},
         {GATE32(F1, 3, 0), code_1, ABSENT(data_1)},
         12,
         F2,
         ring_1_stack},
        {"stack read-only",
         C(call),
         3,
         {0, F0},
         {GATE32(F1, 3, 0), code_1, READ_ONLY(1)},
         10,
         F2,
         ring_1_stack},
        {"stack of another ring",
         C(call),
         3,
         {0, F0},
         {GATE32(F1, 3, 0), code_1, FLAT_DATA},
         10,
         F2,
         ring_1_stack},
    };

    run_far(rig_begin(state), cases, G_N_ELEMENTS(cases));
}

/* A fault on the way to ring 0's own broken stack cannot be delivered there: double fault, then
 * shutdown. */
static void run_broken(struct rig *r, const void *row)
{
    void (*const *breaks)(struct rig * r) = row;

    protected_mode(r);
    user_ring(r);
    put_code(r, C(call));
    hsk_put32(r->mem + AT_DATA + 4, F0);
    put_desc(r, F0, GATE32(SEL_CODE, 3, 0));
    put_desc(r, F2, READ_ONLY(0));
    (*breaks)(r);
    run_to(r, "inner stack", HSK_EXIT_SHUTDOWN);
}

static void broken_inner_stack(void **state)
{
    static void (*const breaks[])(struct rig * r) = {tss_ss_null, tss_ss_rpl, tss_ss_f2,
                                                     tss_ss_outside};
    struct rig *r = rig_begin(state);

    for (unsigned i = 0; i < G_N_ELEMENTS(breaks); i++)
        try_row(r, "inner stack", run_broken, &breaks[i]);
    end_of_rows(r);
}

/* --- loading segment registers --- */

static void after_ds(struct rig *r, const char *name)
{
    EXPECT(r, name, r->s.seg[HSK_DS].selector, F0);
    EXPECT(r, name, r->s.seg[HSK_DS].base, 0x12345678);
    EXPECT(r, name, r->s.seg[HSK_DS].limit, 0x9abcdfff);
    EXPECT(r, name, get_desc(r, F0) >> 40 & 1, 1);
}
static void after_tr(struct rig *r, const char *name)
{
    EXPECT(r, name, r->s.seg[HSK_TR].selector, SEL_TSS_B);
    EXPECT(r, name, r->s.seg[HSK_TR].attr, 0x8b);
    EXPECT(r, name, get_desc(r, SEL_TSS_B) >> 40 & 0xff, 0x8b);
}
static void after_tr_16(struct rig *r, const char *name)
{
    EXPECT(r, name, r->s.seg[HSK_TR].attr, 0x83);
}
static void after_ldtr(struct rig *r, const char *name)
{
    EXPECT(r, name, r->s.seg[HSK_LDTR].selector, 0);
    EXPECT(r, name, r->s.seg[HSK_LDTR].attr & HSK_SEG_P, 0);
}
static void in_ldt(struct rig *r)
{
    hsk_put64(r->mem + AT_LDT + 8, FLAT_DATA);
}

static void segment_loads(void **state)
{
    const uint64_t odd = descriptor(0x12345678, 0x9abcd, 0x8092);
    const struct far cases[] = {
        {"DS", C(mov_ds), 0, {0, F0}, {odd}, 6, SEL_CODE, NULL, after_ds},
        {"DS null", C(mov_ds), 0, {0, 0}, {0}, 6, SEL_CODE},
        {"DS outside", C(mov_ds), 0, {0, 0x100}, {0}, 13, 0x100},
        {"DS system", C(mov_ds), 0, {0, SEL_LDT}, {0}, 13, SEL_LDT},
        {"DS code", C(mov_ds), 0, {0, SEL_CODE}, {0}, 6, SEL_CODE},
        {"DS unreadable code", C(mov_ds), 0, {0, F0}, {UNREADABLE_CODE(0)}, 13, F0},
        {"DS absent", C(mov_ds), 0, {0, F0}, {ABSENT(FLAT_DATA)}, 11, F0},
        {"DS of ring 0", C(mov_ds), 3, {0, SEL_DATA}, {0}, 13, SEL_DATA},
        {"DS of ring 0, absent", C(mov_ds), 3, {0, F0}, {ABSENT(FLAT_DATA)}, 13, F0},
        {"DS RPL", C(mov_ds), 0, {0, SEL_DATA | 3}, {0}, 13, SEL_DATA},
        {"DS conforming code", C(mov_ds), 3, {0, F0}, {FLAT_CODE | CONFORMING}, 6, SEL_UCODE},
        {"DS in LDT", C(mov_ds), 0, {0, 0xc}, {0}, 6, SEL_CODE, in_ldt},
        {"DS in LDT, outside", C(mov_ds), 0, {0, 0x10c}, {0}, 13, 0x10c},
        {"ES absent", C(pop_es), 0, {0, F0}, {ABSENT(FLAT_DATA)}, 11, F0},
        {"FS absent", C(lfs_), 0, {0, F0}, {ABSENT(FLAT_DATA)}, 11, F0},
        {"SS", C(mov_ss), 0, {0, F0}, {FLAT_DATA}, 6, SEL_CODE},
        {"SS null", C(mov_ss), 0, {0, 0}, {0}, 13, 0},
        {"SS RPL", C(mov_ss), 0, {0, SEL_DATA | 1}, {0}, 13, SEL_DATA},
        {"SS DPL", C(mov_ss), 0, {0, SEL_UDATA & ~3}, {0}, 13, SEL_UDATA & ~3},
        {"SS read-only", C(mov_ss), 0, {0, F0}, {READ_ONLY(0)}, 13, F0},
        {"SS code", C(mov_ss), 0, {0, SEL_CODE}, {0}, 13, SEL_CODE},
        {"SS absent", C(mov_ss), 0, {0, F0}, {ABSENT(FLAT_DATA)}, 12, F0},
        {"SS absent read-only", C(mov_ss), 0, {0, F0}, {ABSENT(READ_ONLY(0))}, 13, F0},
        {"LTR", C(ltr_), 0, {0, SEL_TSS_B}, {0}, 6, SEL_CODE, NULL, after_tr},
        {"LTR 16 bits", C(ltr_), 0, {0, SEL_TSS_C}, {0}, 6, SEL_CODE, NULL, after_tr_16},
        {"LTR busy", C(ltr_), 0, {0, SEL_TSS}, {0}, 13, SEL_TSS},
        {"LTR null", C(ltr_), 0, {0, 0}, {0}, 13, 0},
        {"LTR LDT", C(ltr_), 0, {0, SEL_LDT}, {0}, 13, SEL_LDT},
        {"LTR in LDT", C(ltr_), 0, {0, 0xc}, {0}, 13, 0xc},
        {"LTR absent", C(ltr_), 0, {0, F0}, {descriptor(AT_TSS, 0x67, 0x09)}, 11, F0},
        {"LTR in ring 3", C(ltr_), 3, {0, SEL_TSS_B}, {0}, 13, 0},
        {"LLDT null", C(lldt_), 0, {0, 0}, {0}, 6, SEL_CODE, NULL, after_ldtr},
        {"LLDT", C(lldt_), 0, {0, SEL_LDT}, {0}, 6, SEL_CODE},
        {"LLDT TSS", C(lldt_), 0, {0, SEL_TSS_B}, {0}, 13, SEL_TSS_B},
        {"LLDT absent", C(lldt_), 0, {0, F0}, {descriptor(AT_LDT, 0xff, 2)}, 11, F0},
        {"LLDT in LDT", C(lldt_), 0, {0, 0xc}, {0}, 13, 0xc},
        {"LLDT in ring 3", C(lldt_), 3, {0, SEL_LDT}, {0}, 13, 0},
    };

    run_far(rig_begin(state), cases, G_N_ELEMENTS(cases));
}

/* --- RET and IRET --- */

static void after_outer(struct rig *r, const char *name)
{
    EXPECT(r, name, stacked(r, 0, 4),
           LANDING); /* UD2 in ring 3: the frame on ring 0's stack has it all */
    EXPECT(r, name, stacked(r, 3, 4), 0x44440);
    EXPECT(r, name, stacked(r, 4, 4), SEL_UDATA);
    EXPECT(r, name, r->s.seg[HSK_DS].selector, 0); /* was of ring 0 */
    EXPECT(r, name, r->s.seg[HSK_DS].attr & HSK_SEG_P, 0);
}
static void after_ret_8(struct rig *r, const char *name)
{
    EXPECT(r, name, stacked(r, 3, 4), 0x44440 + 8);
    EXPECT(r, name, stacked(r, 4, 4), SEL_UDATA);
}
static void after_ret_same_8(struct rig *r, const char *name)
{
    EXPECT(r, name, r->s.gpr[HSK_RSP], AT_DATA + 16 - 12);
}
static void after_iret_same(struct rig *r, const char *name)
{
    EXPECT(r, name, r->s.gpr[HSK_RSP], AT_DATA + 12 - 12);
    EXPECT(r, name, stacked(r, 2, 4), 0x243cd7 | HSK_FLAG_RF);
}
static void after_iret_outer_flags(struct rig *r, const char *name)
{
    after_outer(r, name);
    EXPECT(r, name, stacked(r, 2, 4), 0x243cd7 | HSK_FLAG_VIF | HSK_FLAG_RF);
}
static void iopl_0_flags(struct rig *r)
{
    r->s.rflags |= HSK_FLAG_IF;
}
static void after_iret_ring_3(struct rig *r, const char *name)
{
    EXPECT(r, name, stacked(r, 2, 4), 0x240ed7 | HSK_FLAG_RF); /* IF and IOPL stay */
}
static void nt(struct rig *r)
{
    r->s.rflags |= HSK_FLAG_NT;
    hsk_put16(r->mem + AT_TSS, SEL_TSS_B); /* not busy */
}

static void returns(void **state)
{
    static const struct far cases[] = {
        {"RET", C(ret), 0, {LANDING, SEL_CODE}, {0}, 6, SEL_CODE},
        {"RET n", C(ret_8), 0, {LANDING, SEL_CODE}, {0}, 6, SEL_CODE, NULL, after_ret_same_8},
        {"RET null", C(ret), 0, {LANDING, 0}, {0}, 13, 0},
        {"RET outside", C(ret), 0, {LANDING, 0x200}, {0}, 13, 0x200},
        {"RET data", C(ret), 0, {LANDING, SEL_DATA}, {0}, 13, SEL_DATA},
        {"RET gate", C(ret), 0, {LANDING, F0}, {0x0000ec0000080000}, 13, F0},
        {"RET inner", C(ret), 3, {LANDING, SEL_CODE}, {0}, 13, SEL_CODE},
        {"RET DPL", C(ret), 0, {LANDING, SEL_CODE | 1}, {0}, 13, SEL_CODE},
        {"RET conforming DPL", C(ret), 0, {LANDING, F0}, {CODE_AT(1, CONFORMING)}, 13, F0},
        {"RET absent", C(ret), 0, {LANDING, F0}, {ABSENT(FLAT_CODE)}, 11, F0},
        {"RET beyond the limit", C(ret), 0, {0x1000, F0}, {SMALL_CODE}, 13, 0},
        {"RET outer",
         C(ret),
         0,
         {LANDING, SEL_UCODE, 0x44440, SEL_UDATA},
         {0},
         6,
         SEL_UCODE,
         NULL,
         after_outer},
        {"RET n outer",
         C(ret_8),
         0,
         {LANDING, SEL_UCODE, 1, 2, 0x44440, SEL_UDATA},
         {0},
         6,
         SEL_UCODE,
         NULL,
         after_ret_8},
        {"RET outer, SS null", C(ret), 0, {LANDING, SEL_UCODE, 0x44440, 0}, {0}, 13, 0},
        {"RET outer, SS RPL",
         C(ret),
         0,
         {LANDING, SEL_UCODE, 0x44440, SEL_UDATA & ~3},
         {0},
         13,
         SEL_UDATA & ~3},
        {"RET outer, SS of ring 0",
         C(ret),
         0,
         {LANDING, SEL_UCODE, 0x44440, SEL_DATA | 3},
         {0},
         13,
         SEL_DATA},
        {"RET outer, SS absent",
         C(ret),
         0,
         {LANDING, SEL_UCODE, 0x44440, F0 | 3},
         {ABSENT(FLAT_UDATA)},
         12,
         F0},
        {"RET 16 bits", C(ret_16), 0, {SEL_CODE << 16 | 0x80}, {0}, 6, SEL_CODE, NULL, NULL},
        {"IRET",
         C(iret_),
         0,
         {LANDING, SEL_CODE, 0x243ed5 & ~0x200},
         {0},
         6,
         SEL_CODE,
         NULL,
         after_iret_same},
        {"IRET null", C(iret_), 0, {LANDING, 0, 2}, {0}, 13, 0},
        {"IRET inner", C(iret_), 3, {LANDING, SEL_CODE, 2}, {0}, 13, SEL_CODE},
        {"IRET absent", C(iret_), 0, {LANDING, F0, 2}, {ABSENT(FLAT_CODE)}, 11, F0},
        {"IRET beyond the limit", C(iret_), 0, {0x1000, F0, 2}, {SMALL_CODE}, 13, 0},
        {"IRET outer",
         C(iret_),
         0,
         {LANDING, SEL_UCODE, 0x2c3cd7, 0x44440, SEL_UDATA},
         {0},
         6,
         SEL_UCODE,
         NULL,
         after_iret_outer_flags},
        {"IRET outer, SS null", C(iret_), 0, {LANDING, SEL_UCODE, 2, 0x44440, 0}, {0}, 13, 0},
        {"IRET outer, SS absent",
         C(iret_),
         0,
         {LANDING, SEL_UCODE, 2, 0x44440, F0 | 3},
         {ABSENT(FLAT_UDATA)},
         12,
         F0},
        {"IRET in ring 3",
         C(iret_),
         3,
         {LANDING, SEL_UCODE, 0x3f3cd7},
         {0},
         6,
         SEL_UCODE,
         iopl_0_flags,
         after_iret_ring_3},
        {"IRET to a free task", C(iret_), 0, {LANDING, SEL_CODE, 2}, {0}, 10, SEL_TSS_B, nt},
    };
    struct rig *r = rig_begin(state);

    hsk_put16(r->mem + 0x80, 0x0b0f);
    run_far(r, cases, G_N_ELEMENTS(cases));
}

/* --- LAR LSL VERR VERW --- */

CODE32(query, "mov 0x30004, %ecx\nmov $-1, %eax\nmov $-1, %ebx\nlar %ecx, %eax\nsetz %dl\nlsl "
              "%ecx, %ebx\nsetz %dh\n"
              "verr %cx\nsetz 0x30010\nverw %cx\nsetz 0x30011\nud2");

struct query {
    unsigned ring, sel;
    uint64_t d;
    bool lar, lsl, verr, verw;
    uint32_t rights, limit;
};

static void run_query(struct rig *r, const void *row)
{
    const struct query *c = row;
    char name[64];

    snprintf(name, sizeof(name), "query of %x (%llx)", c->sel, (unsigned long long)c->d);
    protected_mode(r);
    if (c->ring)
        user_ring(r);
    put_code(r, C(query));
    put_desc(r, F0, c->d);
    hsk_put32(r->mem + AT_DATA + 4, c->sel);
    run_to(r, name, HSK_EXIT_HALT);
    EXPECT(r, name, vector_of(r), 6);
    EXPECT(r, name, r->s.gpr[HSK_RDX] & 0xff, c->lar);
    EXPECT(r, name, r->s.gpr[HSK_RDX] >> 8 & 0xff, c->lsl);
    EXPECT(r, name, r->mem[AT_DATA + 0x10], c->verr);
    EXPECT(r, name, r->mem[AT_DATA + 0x11], c->verw);
    EXPECT(r, name, c->lar ? r->s.gpr[HSK_RAX] & 0xf0ff00 : r->s.gpr[HSK_RAX],
           c->lar ? c->rights : 0xffffffff);
    EXPECT(r, name, r->s.gpr[HSK_RBX], c->lsl ? c->limit : 0xffffffff);
}

static void queries(void **state)
{
    static const struct query cases[] = {
        {0, 0, 0, false, false, false, false, 0, 0},
        {0, 0x200, 0, false, false, false, false, 0, 0},
        {0, SEL_DATA, 0, true, true, true, true, 0xc09300, 0xffffffff},
        {0, SEL_CODE, 0, true, true, true, false, 0xc09b00, 0xffffffff},
        {3, SEL_DATA, 0, false, false, false, false, 0, 0},
        {0, SEL_DATA | 3, 0, false, false, false, false, 0, 0},
        {3, SEL_UDATA, 0, true, true, true, true, 0xc0f300, 0xffffffff},
        {3, F0, FLAT_CODE | CONFORMING, true, true, true, false, 0xc09f00, 0xffffffff},
        {0, F0, UNREADABLE_CODE(0), true, true, false, false, 0xc09900, 0xffffffff},
        {0, F0, READ_ONLY(0), true, true, true, false, 0xc09100, 0xffffffff},
        {0, F0, 0x0040120000000123, true, true, true, true, 0x401200, 0x123}, /* absent */
        {0, SEL_TSS, 0, true, true, false, false, 0x008b00, 0x67},
        {0, SEL_TSS_C, 0, true, true, false, false, 0x008100, 0x2b},
        {0, SEL_LDT, 0, true, true, false, false, 0x008200, 0xff},
        {0, F0, 0x00008c0000080000, true, false, false, false, 0x008c00, 0},
        {0, F0, 0x0000840000080000, true, false, false, false, 0x008400, 0},
        {0, F0, 0x0000850000080000, true, false, false, false, 0x008500, 0},
        {0, F0, 0x00008e0000080000, false, false, false, false, 0, 0},
        {0, F0, 0x0000870000080000, false, false, false, false, 0, 0},
        {0, F0, 0x0000800000080000, false, false, false, false, 0, 0},
    };
    struct rig *r = rig_begin(state);

    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        char name[32];

        snprintf(name, sizeof(name), "query %u", i);
        try_row(r, name, run_query, &cases[i]);
    }
    end_of_rows(r);
}

int main(void)
{
    static const struct difference differences[] = {
        {"call conforming", QEMU_DOES, "it marks no code segment accessed"},
        {"call beyond the limit", QEMU_DOES, "its error code is the selector"},
        {"beyond the limit", QEMU_DOES, QEMU_NO_LIMITS},
        {"stack too small", QEMU_DOES, QEMU_NO_LIMITS},
        {"stack absent", QEMU_DOES, "#TS"},
        {"LTR null", QEMU_DOES, "it allows that"},
        {"LLDT null", QEMU_DOES, "the old descriptor stays"},
        {"RET beyond the limit", QEMU_DOES, QEMU_NO_LIMITS},
        {"RET outer, SS absent", QEMU_DOES, "#NP"},
        {"IRET beyond the limit", QEMU_DOES, QEMU_NO_LIMITS},
        {"IRET outer", QEMU_DOES, "it has no VIF"},
        {"IRET outer, SS absent", QEMU_DOES, "#NP"},
        {"IRET in ring 3", QEMU_DOES, "it enters virtual-8086 mode from ring 3"},
        {NULL, 0, NULL},
    };
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(far_to_code),
        cmocka_unit_test(call_gates),
        cmocka_unit_test(broken_inner_stack),
        cmocka_unit_test(segment_loads),
        cmocka_unit_test(returns),
        cmocka_unit_test(queries),
    };

    return run_lanes(tests, G_N_ELEMENTS(tests), true, differences);
}
