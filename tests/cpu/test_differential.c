/* SPDX-License-Identifier: MIT */
/*
 * The differential run (differential.h). It goes over all forms in rounds until its time is up,
 * prints what it did, and fails on the first differences, or if an instruction that the engine
 * executes never had a case and is not on the list of what is excluded and why.
 *
 * HSK_DIFF_SEED repeats a run, HSK_DIFF_FORM with HSK_DIFF_ROUND one form of it; HSK_DIFF_FORM
 * alone goes over that form, or over HSK_DIFF_FORMS from there on, in all rounds. HSK_DIFF_SECONDS
 * says how long; HSK_LONG=1: 20 minutes.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "differential.h"

#include <cmocka.h>

enum { STATES = 6 };

struct memory {
    uint8_t b[DIFF_MEMORY];
};

static struct {
    uint64_t seed, form, round;
    uint64_t encodings, cases, faults, skipped, bad, max_bad;
    uint64_t vectors[32];
    uint8_t met[ZYDIS_MNEMONIC_MAX_VALUE + 1], ran[ZYDIS_MNEMONIC_MAX_VALUE + 1];
    uint8_t form_ran[DIFF_FORMS];
    unsigned slot;
} run;

/* Executed by the guest, but not compared with the host: what they answer is the machine's own. */
static const struct {
    uint16_t mnemonic;
    const char *why;
} excluded[] = {
    {ZYDIS_MNEMONIC_RDRAND, "random"},
    {ZYDIS_MNEMONIC_RDSEED, "random"},
    {ZYDIS_MNEMONIC_RDTSC, "time"},
    {ZYDIS_MNEMONIC_RDTSCP, "time"},
    {ZYDIS_MNEMONIC_CPUID, "the processor model's, not the host's"},
    {ZYDIS_MNEMONIC_XGETBV, "the host has more state components"},
    {ZYDIS_MNEMONIC_SYSCALL, "enters the host's kernel"},
    {ZYDIS_MNEMONIC_SYSENTER, "enters the host's kernel"},
    {ZYDIS_MNEMONIC_SGDT, "UMIP on the host"},
    {ZYDIS_MNEMONIC_SIDT, "UMIP on the host"},
    {ZYDIS_MNEMONIC_SLDT, "UMIP on the host"},
    {ZYDIS_MNEMONIC_STR, "UMIP on the host"},
    {ZYDIS_MNEMONIC_SMSW, "UMIP on the host"},
    {ZYDIS_MNEMONIC_VMCALL, "a hypercall of the host's hypervisor"},
    {ZYDIS_MNEMONIC_VMMCALL, "a hypercall of the host's hypervisor"},
};

/* #UD in every processor model of ours, whatever the host has: here the manual is the reference. */
static const uint16_t foreign[] = {
    ZYDIS_MNEMONIC_XBEGIN,    ZYDIS_MNEMONIC_XEND,       ZYDIS_MNEMONIC_XABORT,
    ZYDIS_MNEMONIC_XTEST,     ZYDIS_MNEMONIC_PTWRITE,    ZYDIS_MNEMONIC_RDPID,
    ZYDIS_MNEMONIC_ENCLU,     ZYDIS_MNEMONIC_ENCLS,      ZYDIS_MNEMONIC_ENCLV,
    ZYDIS_MNEMONIC_XSAVES,    ZYDIS_MNEMONIC_XSAVES64,   ZYDIS_MNEMONIC_XRSTORS,
    ZYDIS_MNEMONIC_XRSTORS64, ZYDIS_MNEMONIC_CLFLUSHOPT, ZYDIS_MNEMONIC_CLWB,
    ZYDIS_MNEMONIC_MOVDIRI,   ZYDIS_MNEMONIC_MOVDIR64B,  ZYDIS_MNEMONIC_SERIALIZE,
    ZYDIS_MNEMONIC_RDPKRU,    ZYDIS_MNEMONIC_WRPKRU,     ZYDIS_MNEMONIC_TPAUSE,
    ZYDIS_MNEMONIC_UMONITOR,  ZYDIS_MNEMONIC_UMWAIT,     ZYDIS_MNEMONIC_MONITOR,
    ZYDIS_MNEMONIC_MWAIT,     ZYDIS_MNEMONIC_VMFUNC,     ZYDIS_MNEMONIC_VMLAUNCH,
    ZYDIS_MNEMONIC_VMRESUME,  ZYDIS_MNEMONIC_VMXOFF,     ZYDIS_MNEMONIC_PCONFIG,
};

static bool is_foreign(const struct soft_x *x)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(foreign); i++)
        if (foreign[i] == x->in.mnemonic)
            return true;
    return x->kind == SOFT_X_UD && x->in.length;
}

static const char *why_excluded(const struct soft_x *x)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(excluded); i++)
        if (excluded[i].mnemonic == x->in.mnemonic)
            return excluded[i].why;
    return NULL;
}

/* --- report --- */

static void print_case(const struct soft_x *x, const struct diff_state *in, unsigned how)
{
    char text[128] = "?";
    ZydisFormatter f;

    ZydisFormatterInit(&f, ZYDIS_FORMATTER_STYLE_INTEL);
    if (x->in.length)
        ZydisFormatterFormatInstruction(&f, &x->in, x->op, x->in.operand_count_visible, text,
                                        sizeof text, x->pc, NULL);
    print_error("HSK_DIFF_SEED=%lu HSK_DIFF_ROUND=%lu HSK_DIFF_FORM=%lu: %s [", run.seed, run.round,
                run.form, text);
    for (unsigned i = 0; i < (x->in.length ? x->in.length : 15); i++)
        print_error("%02x%s", ((const uint8_t *)(uintptr_t)in->rip)[i],
                    i + 1 == (x->in.length ? x->in.length : 15) ? "]" : " ");
    print_error(" %s-bit%s%s%s\n", in->sel[HSK_CS] == SEL_USER32 ? "32" : "64",
                how & DIFF_DEAD_FLAGS ? ", dead flags" : "", how & DIFF_KERNEL ? ", kernel" : "",
                "");
}

static void print_state(const char *name, const struct diff_state *s)
{
    print_error("%-10s vector %ld error %lx cr2 %lx rip %lx out %lu flags %lx fs %lx gs %lx sel",
                name, s->vector, s->error, s->cr2, s->rip, s->out, s->rflags, s->fs_base,
                s->gs_base);
    for (unsigned i = 0; i < 6; i++)
        print_error(" %lx", s->sel[i]);
    print_error("\n           ");
    for (unsigned i = 0; i < 16; i++)
        print_error(" %lx%s", s->gpr[i], i == 7 ? "\n           " : "");
    print_error("\n            fcw %x fsw %x ftw %x mxcsr %x\n", hsk_get16(s->xsave),
                hsk_get16(s->xsave + 2), s->xsave[4], hsk_get32(s->xsave + 24));
}

static void print_vectors(const struct diff_state *n, const struct diff_state *g)
{
    for (unsigned i = 0; i < sizeof n->xsave; i += 8)
        if (hsk_get64(n->xsave + i) != hsk_get64(g->xsave + i))
            print_error("            xsave+%u: native %016lx, translated %016lx\n", i,
                        hsk_get64(n->xsave + i), hsk_get64(g->xsave + i));
}

static int64_t first_difference(const uint8_t *m)
{
    struct memory now;

    diff_get_memory(now.b);
    for (unsigned i = 0; i < DIFF_MEMORY; i++)
        if (now.b[i] != m[i])
            return i;
    return -1;
}

/* --- comparison --- */

/* Instruction and data pointers and the last opcode of the x87 are not kept; what lies above a
 * component's end is nobody's. */
static void forget_pointers(uint8_t *x)
{
    memset(x + HSK_XSAVE_FOP, 0, HSK_XSAVE_MXCSR - HSK_XSAVE_FOP);
    hsk_put32(x + HSK_XSAVE_MXCSR_MASK, 0);
    for (unsigned i = 0; i < 8; i++)
        memset(x + HSK_XSAVE_ST0 + 16 * i + 10, 0, 6);
    memset(x + HSK_XSAVE_LEGACY_END, 0, HSK_XSAVE_YMM - HSK_XSAVE_LEGACY_END);
}

static uint32_t flags_compared(const struct soft_x *x, const struct diff_state *n, unsigned how,
                               bool strict)
{
    const uint32_t undefined = x->in.length && x->in.cpu_flags ? x->in.cpu_flags->undefined : 0;
    uint32_t mask = SOFT_ARITH | HSK_FLAG_DF | HSK_FLAG_IF | HSK_FLAG_TF | HSK_FLAG_NT |
                    HSK_FLAG_AC | HSK_FLAG_ID | HSK_FLAG_IOPL;

    if (n->vector >=
        0) /* not exact where nobody would read them (docs/soft-engine.md), except in strict mode */
        return strict ? mask | HSK_FLAG_RF
                      : mask & ~(how & DIFF_DEAD_FLAGS ? SOFT_ARITH : x->kills);
    if (how & DIFF_DEAD_FLAGS)
        mask &= ~SOFT_ARITH;
    return mask & ~undefined;
}

static uint64_t error_compared(const struct diff_state *n, unsigned how)
{
    uint64_t mask = how & DIFF_KERNEL ? ~4ull : ~0ull; /* the native half is always user code */

    /* Linux does not tell user code whether the kernel's addresses are mapped: always "protection"
     */
    return n->vector == 14 && n->cr2 >= 0x7ffffffff000 ? mask & ~1ull : mask;
}

/* Instructions of several accesses, whose order is the implementation's: which fault comes is not
 * compared, only that one does. */
static bool order_is_open(const struct soft_x *x)
{
    switch (x->in.mnemonic) {
    case ZYDIS_MNEMONIC_IRET:
    case ZYDIS_MNEMONIC_IRETD:
    case ZYDIS_MNEMONIC_IRETQ:
    case ZYDIS_MNEMONIC_FNSTENV:
    case ZYDIS_MNEMONIC_FLDENV:
    case ZYDIS_MNEMONIC_FNSAVE:
    case ZYDIS_MNEMONIC_FRSTOR:
    case ZYDIS_MNEMONIC_FXSAVE:
    case ZYDIS_MNEMONIC_FXSAVE64:
    case ZYDIS_MNEMONIC_FXRSTOR:
    case ZYDIS_MNEMONIC_FXRSTOR64:
    case ZYDIS_MNEMONIC_XSAVE:
    case ZYDIS_MNEMONIC_XSAVE64:
    case ZYDIS_MNEMONIC_XSAVEC:
    case ZYDIS_MNEMONIC_XSAVEC64:
    case ZYDIS_MNEMONIC_XSAVEOPT:
    case ZYDIS_MNEMONIC_XSAVEOPT64:
    case ZYDIS_MNEMONIC_XRSTOR:
    case ZYDIS_MNEMONIC_XRSTOR64:
    case ZYDIS_MNEMONIC_PUSHA:
    case ZYDIS_MNEMONIC_PUSHAD:
    case ZYDIS_MNEMONIC_POPA:
    case ZYDIS_MNEMONIC_POPAD:
    case ZYDIS_MNEMONIC_ENTER:
    case ZYDIS_MNEMONIC_LFS:
    case ZYDIS_MNEMONIC_LGS:
    case ZYDIS_MNEMONIC_LSS:
    case ZYDIS_MNEMONIC_LDS:
    case ZYDIS_MNEMONIC_LES:
    case ZYDIS_MNEMONIC_BOUND:
    case ZYDIS_MNEMONIC_FBSTP:
    case ZYDIS_MNEMONIC_VMASKMOVPS:
    case ZYDIS_MNEMONIC_VMASKMOVPD:
    case ZYDIS_MNEMONIC_VPMASKMOVD:
    case ZYDIS_MNEMONIC_VPMASKMOVQ:
    case ZYDIS_MNEMONIC_VGATHERDPS:
    case ZYDIS_MNEMONIC_VGATHERDPD:
    case ZYDIS_MNEMONIC_VGATHERQPS:
    case ZYDIS_MNEMONIC_VGATHERQPD:
    case ZYDIS_MNEMONIC_VPGATHERDD:
    case ZYDIS_MNEMONIC_VPGATHERDQ:
    case ZYDIS_MNEMONIC_VPGATHERQD:
    case ZYDIS_MNEMONIC_VPGATHERQQ:
        return true;
    default:
        return x->in.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR ||
               (x->fpu == SOFT_FPU_X87 && x->mem >= 0 && x->op[x->mem].size == 80);
    }
}

static bool memory_fault(int64_t vector)
{
    return vector >= 12 && vector <= 14;
}

/* The host's MMX instructions have turned the register stack before a fault of their memory
 * operand; ours have not. */
static void forget_stack(const struct soft_x *x, struct diff_state *n, struct diff_state *g)
{
    bool mmx = false;

    for (unsigned i = 0; i < x->in.operand_count_visible && x->in.length; i++)
        mmx |= x->op[i].type == ZYDIS_OPERAND_TYPE_REGISTER &&
               ZydisRegisterGetClass(x->op[i].reg.value) == ZYDIS_REGCLASS_MMX;
    if (!mmx || !memory_fault(n->vector))
        return;
    n->xsave[3] &= 0xc7;
    g->xsave[3] &= 0xc7;
    memset(n->xsave + HSK_XSAVE_ST0, 0, 128);
    memset(g->xsave + HSK_XSAVE_ST0, 0, 128);
}

/* An x87 store that raises an unmasked exception does not access memory on the host; ours has
 * looked at the page before. */
static bool stored_nothing(const struct soft_x *x, const struct diff_state *n,
                           const struct diff_state *g)
{
    if (x->in.mnemonic == ZYDIS_MNEMONIC_VCVTPS2PH &&
        x->mem >= 0) /* nor does this, or it has set MXCSR before it faults */
        return memory_fault(g->vector) && (memory_fault(n->vector) || n->vector == 19);
    return x->fpu == SOFT_FPU_X87 && x->mem >= 0 &&
           (x->op[x->mem].actions & ZYDIS_OPERAND_ACTION_MASK_WRITE) && n->vector < 0 &&
           memory_fault(g->vector) && (n->xsave[2] & 0x80);
}

/* Whether bytes that the mask leaves out may fault is the implementation's (SDM vol. 2,
 * MASKMOVDQU). */
static bool masked_bytes(const struct soft_x *x)
{
    return x->in.mnemonic == ZYDIS_MNEMONIC_MASKMOVQ ||
           x->in.mnemonic == ZYDIS_MNEMONIC_MASKMOVDQU ||
           x->in.mnemonic == ZYDIS_MNEMONIC_VMASKMOVDQU;
}

/* An interrupt of the host's, between the two, leaves no RPL in a null selector. */
static uint64_t visible_selector(uint64_t sel)
{
    return sel & 0xfffc ? sel : 0;
}

static const char *differs(const struct soft_x *x, const struct diff_state *n,
                           const struct diff_state *g, unsigned how, bool code32, bool strict)
{
    const uint64_t reg_mask = code32 ? UINT32_MAX : ~0ull;

    if (order_is_open(x) && memory_fault(n->vector) && memory_fault(g->vector))
        return n->rip == g->rip ? NULL : "rip";
    if (stored_nothing(x, n, g) ||
        (masked_bytes(x) && (memory_fault(n->vector) || memory_fault(g->vector))))
        return NULL;
    if (n->vector != g->vector)
        return "exception";
    if (n->vector < 0 && n->out != g->out)
        return "where it went";
    if (n->vector >= 0 && n->rip != g->rip)
        return "rip";
    if (n->vector >= 8 && n->vector <= 14 && (n->error ^ g->error) & error_compared(n, how))
        return "error code";
    if (n->vector == 14 && n->cr2 != g->cr2)
        return "cr2";
    for (unsigned i = 0; i < (code32 ? 8 : 16); i++)
        if ((n->gpr[i] ^ g->gpr[i]) & reg_mask)
            return "register";
    if ((n->rflags ^ g->rflags) & flags_compared(x, n, how, strict))
        return "flags";
    if (!code32 && (n->fs_base != g->fs_base || n->gs_base != g->gs_base))
        return "FS or GS base";
    if (!(how & DIFF_KERNEL))
        for (unsigned i = 0; i < 6; i++)
            if (i != HSK_CS && visible_selector(n->sel[i]) != visible_selector(g->sel[i]))
                return "segment";
    return memcmp(n->xsave, g->xsave, sizeof n->xsave) ? "FPU or vector state" : NULL;
}

/* What forget_pointers() forgets, in a copy of the memory. */
static void forget_in_memory(const struct soft_x *x, const struct diff_state *in, uint8_t *memory)
{
    const bool narrow = x->in.operand_width == 16;
    uint8_t *mem = diff_byte(memory, in->ea, 28);

    if (!mem)
        return;
    switch (x->in.mnemonic) {
    case ZYDIS_MNEMONIC_FNSTENV:
    case ZYDIS_MNEMONIC_FNSAVE:
        if (narrow)
            memset(mem + 6, 0, 8);
        else
            memset(mem + 12, 0, 16);
        break;
    case ZYDIS_MNEMONIC_FXSAVE:
    case ZYDIS_MNEMONIC_FXSAVE64:
    case ZYDIS_MNEMONIC_XSAVE:
    case ZYDIS_MNEMONIC_XSAVE64:
    case ZYDIS_MNEMONIC_XSAVEC:
    case ZYDIS_MNEMONIC_XSAVEC64:
    case ZYDIS_MNEMONIC_XSAVEOPT:
    case ZYDIS_MNEMONIC_XSAVEOPT64:
        memset(mem + HSK_XSAVE_FOP, 0, HSK_XSAVE_MXCSR - HSK_XSAVE_FOP);
        hsk_put32(mem + HSK_XSAVE_MXCSR_MASK, 0);
        break;
    default:
        break;
    }
}

static void compare(const struct soft_x *x, const struct diff_state *in, struct diff_state *n,
                    struct diff_state *g, const uint8_t *native_mem, unsigned how)
{
    const bool code32 = in->sel[HSK_CS] == SEL_USER32;
    const char *what;

    forget_pointers(n->xsave);
    forget_pointers(g->xsave);
    forget_stack(x, n, g);
    what = differs(x, n, g, how, code32, run.round % 4 == 3);
    run.cases++;
    if (n->vector >= 0) {
        run.faults++;
        run.vectors[n->vector & 31]++;
    }
    if (!what && !diff_same_memory(native_mem) &&
        !((order_is_open(x) || masked_bytes(x)) && n->vector >= 0)) {
        static struct memory a, b;

        memcpy(a.b, native_mem, sizeof a.b);
        diff_get_memory(b.b);
        forget_in_memory(x, in, a.b);
        forget_in_memory(x, in, b.b);
        what = memcmp(a.b, b.b, sizeof a.b) ? "memory" : NULL;
    }
    if (!what)
        return;
    run.bad++;
    print_case(x, in, how);
    print_error("  %s differs", what);
    if (first_difference(native_mem) >= 0)
        print_error("; memory from byte %lx on", first_difference(native_mem));
    print_error("\n");
    print_state("before", in);
    print_state("native", n);
    print_state("translated", g);
    print_vectors(n, g);
}

/* --- one encoding --- */

/* Does not decode, but may be a hypercall with a prefix. */
static bool group_of_calls(const uint8_t *bytes)
{
    for (unsigned i = 0; i < 12; i++)
        if (bytes[i] == 0x0f && bytes[i + 1] == 0x01 && bytes[i + 2] >= 0xc0)
            return true;
    return false;
}

static bool wants(const struct soft_x *x)
{
    switch (x->kind) {
    case SOFT_X_UD: /* slow, and most of the opcode maps */
        return run.round % 8 == 0 && !why_excluded(x) && (x->in.length || diff_random() % 4 == 0);
    case SOFT_X_UNKNOWN:
        return false;
    default:
        return !why_excluded(x);
    }
}

static unsigned choose_how(const struct soft_x *x)
{
    unsigned how = diff_random() % 3 == 0 ? DIFF_DEAD_FLAGS : 0;

    if (x->kind != SOFT_X_HELPER && x->kind != SOFT_X_UD && diff_random() % 4 == 0)
        how |= DIFF_KERNEL;
    return how;
}

static void new_slots(struct guest *g)
{
    run.slot = 0;
    hsk_engine_soft_ops.flush(g->engine, HSK_FLUSH_CODE);
    diff_vcpu(g)->code->strict = run.round % 4 == 3;
    diff_vcpu(g)->code->chain = run.round % 4 != 3;
}

/* What a processor does with an instruction that it does not have. */
static void undefined(const struct diff_state *in, struct diff_state *out)
{
    *out = *in;
    out->vector = 6;
    out->rflags |= HSK_FLAG_RF;
}

/* User code only; and processors differ in #AC of vectors, of XSAVE's and FXSAVE's areas, and of
 * what far RET and IRET pop. */
static bool checks_alignment(const struct soft_x *x, unsigned how)
{
    if ((how & DIFF_KERNEL) || x->fpu != SOFT_FPU_NONE ||
        x->in.encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY)
        return false;
    switch (x->in.meta.category) {
    case ZYDIS_CATEGORY_RET:
    case ZYDIS_CATEGORY_XSAVE:
    case ZYDIS_CATEGORY_XSAVEOPT:
    case ZYDIS_CATEGORY_SSE:
        return x->kind != SOFT_X_HELPER;
    default:
        return true;
    }
}

static bool run_states(struct guest *g, struct soft_x *x, uint8_t *slot, unsigned behind)
{
    static struct memory fresh, before[STATES], after[STATES];
    static struct diff_state in[STATES], native[STATES], ours;
    const bool code32 = x->in.length ? x->in.machine_mode != ZYDIS_MACHINE_MODE_LONG_64
                                     : run.form / (DIFF_FORMS / 2);
    const unsigned how = choose_how(x), want = x->in.length && x->kind != SOFT_X_UD ? STATES : 1;
    unsigned n = 0;

    diff_native_outs(slot, behind, code32);
    diff_memory(fresh.b);
    for (unsigned tries = 0; n < want && tries < 4 * want; tries++) {
        before[n] = fresh;
        in[n].rip = (uint64_t)(uintptr_t)slot + DIFF_AT;
        in[n].behind = behind;
        if (!diff_registers(x, &in[n], before[n].b)) {
            run.skipped++;
            continue;
        }
        if (!checks_alignment(x, how))
            in[n].rflags &= ~HSK_FLAG_AC;
        diff_put_memory(before[n].b);
        if (is_foreign(x))
            undefined(&in[n], &native[n]);
        else
            diff_native_run(&in[n], &native[n], code32);
        diff_get_memory(after[n].b);
        n++;
    }
    diff_guest_outs(slot, behind, how);
    for (unsigned i = 0; i < n && run.bad < run.max_bad; i++) {
        diff_put_memory(before[i].b);
        if (!diff_guest_run(g, &in[i], &ours, code32, how)) {
            print_case(x, &in[i], how);
            run.bad++;
            return true;
        }
        compare(x, &in[i], &native[i], &ours, after[i].b, how);
    }
    if (n) {
        run.encodings++;
        run.ran[x->in.length ? x->in.mnemonic : 0] = 1;
        run.form_ran[run.form] = 1;
    }
    return n;
}

/* False: it is an instruction to be compared, but its operands could not be reached. */
static bool one_form(struct guest *g, const struct diff_form *f, int rm)
{
    struct soft_vcpu *v = diff_vcpu(g);
    const uint32_t mode =
        SOFT_MODE_SSE | SOFT_MODE_AVX | SOFT_MMU_USER | (f->code32 ? SOFT_MODE_CODE32 : 0);
    uint8_t *slot = (uint8_t *)(uintptr_t)(DIFF_CODE + (uint64_t)run.slot * DIFF_SLOT),
            bytes[16] = {0};
    const uint64_t pc = (uint64_t)(uintptr_t)slot + DIFF_AT;
    struct soft_x x = {0};
    bool more, ran;

    diff_bytes(f, bytes, rm);
    if (!soft_decode(v, &x, mode, bytes, 15, pc, &more))
        return true;
    if (x.in.length && diff_place(&x, bytes, pc))
        hsk_assert(soft_decode(v, &x, mode, bytes, 15, pc, &more));
    if (x.in.length && x.kind != SOFT_X_UD)
        run.met[x.in.mnemonic] = 1;
    if (!wants(&x) || (!x.in.length && group_of_calls(bytes)))
        return true;
    memset(slot, 0xcc, DIFF_SLOT);
    memcpy(slot + DIFF_AT, bytes, x.in.length ? x.in.length : 15);
    ran = run_states(g, &x, slot, x.in.length ? x.in.length : 15);
    if (++run.slot == DIFF_SLOTS)
        new_slots(g);
    return ran;
}

/* --- the loop --- */

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

#define SHORT_ROUNDS 10

static uint64_t number(const char *name, uint64_t otherwise)
{
    const char *s = g_getenv(name);

    return s ? g_ascii_strtoull(s, NULL, 10) : otherwise;
}

static void one_round(struct guest *g, uint64_t first, uint64_t end, double until)
{
    new_slots(g);
    for (uint64_t i = first; i < end && run.bad < run.max_bad; i++) {
        struct diff_form f;

        run.form = i;
        if (!diff_form((unsigned)i, &f))
            continue;
        if (run.round && !(i & 0xff) && now() > until)
            return;
        diff_seed(run.seed * 1000003 + run.round * DIFF_FORMS + i);
        if (run.round) {
            one_form(g, &f, -1);
            continue;
        }
        /* the first round meets every instruction */
        for (unsigned k = 0; k < 8; k++)
            if (one_form(g, &f, (int)(i + k) % 8) && !diff_form_has_rm(&f))
                break;
    }
}

static unsigned report(double seconds)
{
    unsigned forms = 0, missing = 0;

    for (unsigned i = 0; i < DIFF_FORMS; i++)
        forms += run.form_ran[i];
    print_message("differential run: %lu encodings of %u forms, %lu cases (%lu exceptions), %lu "
                  "differ; %.0f s, %.1f million cases a minute\n",
                  run.encodings, forms, run.cases, run.faults, run.bad, seconds,
                  (double)run.cases / seconds * 60e-6);
    for (unsigned i = 0; i < G_N_ELEMENTS(run.vectors); i++)
        if (run.vectors[i])
            print_message("  exception %u: %lu\n", i, run.vectors[i]);
    for (unsigned i = 0; i < G_N_ELEMENTS(excluded); i++)
        print_message("  excluded: %s (%s)\n", ZydisMnemonicGetString(excluded[i].mnemonic),
                      excluded[i].why);
    for (unsigned i = 0; i <= ZYDIS_MNEMONIC_MAX_VALUE; i++) {
        bool out = false;

        for (unsigned k = 0; k < G_N_ELEMENTS(excluded); k++)
            out |= excluded[k].mnemonic == i;
        if (out ? !run.met[i] : run.met[i] && !run.ran[i]) {
            print_error("%s %s\n", ZydisMnemonicGetString((ZydisMnemonic)i),
                        out ? "is excluded, but does not exist" : "had no case");
            missing++;
        }
    }
    return missing;
}

static void all_encodings_agree(void **state)
{
    const uint64_t form = number("HSK_DIFF_FORM", DIFF_FORMS),
                   one_round_only = number("HSK_DIFF_ROUND", UINT64_MAX);
    const uint64_t first = form < DIFF_FORMS ? form : 0;
    const uint64_t end =
        form < DIFF_FORMS ? MIN(form + number("HSK_DIFF_FORMS", 1), DIFF_FORMS) : DIFF_FORMS;
    const double start = now();
    const double until =
        start + (double)number("HSK_DIFF_SECONDS", g_getenv("HSK_LONG") ? 1200 : 60);
    /* short runs are the same each time, so that a failure speaks of the last change; long ones
     * look for what is new */
    const bool is_short = !g_getenv("HSK_LONG") && !g_getenv("HSK_DIFF_SEED");
    const uint64_t rounds = is_short ? SHORT_ROUNDS : UINT64_MAX;
    static struct guest g;
    unsigned missing;

    (void)state;
    run.max_bad = number("HSK_DIFF_BAD", 12);
    run.seed = number("HSK_DIFF_SEED", is_short ? 1 : (uint64_t)time(NULL));
    print_message("HSK_DIFF_SEED=%lu\n", run.seed);
    diff_guest_begin(&g);
    diff_native_begin();
    if (one_round_only != UINT64_MAX) {
        run.round = one_round_only;
        one_round(&g, first, end, until);
    } else {
        for (; run.bad < run.max_bad && (run.round == 0 || (run.round < rounds && now() < until));
             run.round++)
            one_round(&g, first, end, until);
    }
    missing = report(now() - start);
    guest_free(&g);
    assert_int_equal(run.bad, 0);
    assert_true(form < DIFF_FORMS || missing == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(all_encodings_agree)};

#ifdef __SANITIZE_ADDRESS__
    print_message("skipped: the shadow memory of AddressSanitizer lies where 32-bit addresses must "
                  "find nothing\n");
    return 77;
#endif
    return cmocka_run_group_tests(tests, NULL, NULL);
}
