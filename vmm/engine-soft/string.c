/* SPDX-License-Identifier: MIT */
/*
 * String instructions: MOVS STOS LODS CMPS SCAS with and without REP (SDM vol. 1, 7.3.9.3; vol. 2).
 *
 * The work is cut into chunks that stay inside one page of source and destination, and a chunk is
 * run by the host's own instruction of the same element size and direction: so overlapping operands
 * see the same order of elements, also when two guest addresses are one physical page. RCX, RSI and
 * RDI are written back after each chunk; a fault or interrupt then restarts the instruction where
 * it stopped. Elements that cross a page or touch device memory go one by one. Thread: the vCPU's,
 * with the guest's FPU registers live.
 */
#include <Zydis/Zydis.h>

#include "system.h"

enum string_op { MOVS, STOS, LODS, CMPS, SCAS };

struct string {
    const struct soft_insn *in;
    enum string_op op;
    unsigned size;
    bool down;
    bool uses_src, uses_dst, writes;
    uint64_t src_off, dst_off; /* of the next element */
    uint64_t src_va, dst_va;
    uint64_t flags; /* of the last comparison: they arrive with the end of the instruction, not with
                       a fault in it */
};

static void classify(struct string *s, uint16_t mnemonic)
{
    switch (mnemonic) {
    case ZYDIS_MNEMONIC_MOVSB:
        s->op = MOVS;
        s->size = 1;
        break;
    case ZYDIS_MNEMONIC_MOVSW:
        s->op = MOVS;
        s->size = 2;
        break;
    case ZYDIS_MNEMONIC_MOVSD:
        s->op = MOVS;
        s->size = 4;
        break;
    case ZYDIS_MNEMONIC_MOVSQ:
        s->op = MOVS;
        s->size = 8;
        break;
    case ZYDIS_MNEMONIC_STOSB:
        s->op = STOS;
        s->size = 1;
        break;
    case ZYDIS_MNEMONIC_STOSW:
        s->op = STOS;
        s->size = 2;
        break;
    case ZYDIS_MNEMONIC_STOSD:
        s->op = STOS;
        s->size = 4;
        break;
    case ZYDIS_MNEMONIC_STOSQ:
        s->op = STOS;
        s->size = 8;
        break;
    case ZYDIS_MNEMONIC_LODSB:
        s->op = LODS;
        s->size = 1;
        break;
    case ZYDIS_MNEMONIC_LODSW:
        s->op = LODS;
        s->size = 2;
        break;
    case ZYDIS_MNEMONIC_LODSD:
        s->op = LODS;
        s->size = 4;
        break;
    case ZYDIS_MNEMONIC_LODSQ:
        s->op = LODS;
        s->size = 8;
        break;
    case ZYDIS_MNEMONIC_CMPSB:
        s->op = CMPS;
        s->size = 1;
        break;
    case ZYDIS_MNEMONIC_CMPSW:
        s->op = CMPS;
        s->size = 2;
        break;
    case ZYDIS_MNEMONIC_CMPSD:
        s->op = CMPS;
        s->size = 4;
        break;
    case ZYDIS_MNEMONIC_CMPSQ:
        s->op = CMPS;
        s->size = 8;
        break;
    case ZYDIS_MNEMONIC_SCASB:
        s->op = SCAS;
        s->size = 1;
        break;
    case ZYDIS_MNEMONIC_SCASW:
        s->op = SCAS;
        s->size = 2;
        break;
    case ZYDIS_MNEMONIC_SCASD:
        s->op = SCAS;
        s->size = 4;
        break;
    default:
        s->op = SCAS;
        s->size = 8;
        break;
    }
    s->uses_src = s->op == MOVS || s->op == LODS || s->op == CMPS;
    s->uses_dst = s->op != LODS;
    s->writes = s->op == MOVS || s->op == STOS;
}

/* Elements from va on (in the string's direction) that lie wholly in va's page; 0: the first one
 * crosses. */
static uint64_t in_page(const struct string *s, uint64_t va)
{
    const unsigned off = va & 0xfff;

    if (off + s->size > HSK_PAGE_SIZE)
        return 0;
    return s->down ? off / s->size + 1 : (HSK_PAGE_SIZE - off) / s->size;
}

/* The whole chunk must be allowed by the segment and must not wrap in the address size; else one
 * element at a time. */
static bool span_ok(const struct soft_vcpu *v, const struct string *s, unsigned seg, uint64_t off,
                    uint64_t n, bool write)
{
    const uint64_t extra = (n - 1) * s->size;
    const uint64_t low = s->down ? off - extra : off;
    uint64_t va;

    if (s->down ? extra > off
                : off + extra + s->size - 1 > soft_mask(s->in->addrsize) || off + extra < off)
        return false;
    return soft_seg_ok(v, seg, low, (unsigned)(extra + s->size), write, &va);
}

static uint64_t chunk_length(struct soft_vcpu *v, const struct string *s, uint64_t count)
{
    uint64_t n = count;

    if (s->uses_src)
        n = MIN(n, in_page(s, s->src_va));
    if (s->uses_dst)
        n = MIN(n, in_page(s, s->dst_va));
    if (n > 1 && s->uses_src && !span_ok(v, s, s->in->seg, s->src_off, n, false))
        n = 0;
    if (n > 1 && s->uses_dst && !span_ok(v, s, HSK_ES, s->dst_off, n, s->writes))
        n = 0;
    return n;
}

/* --- one element through the checked accessors --- */

static void compare_flags(struct string *s, uint64_t a, uint64_t b)
{
    uint32_t ax;
    const unsigned shift = 64 - 8 * s->size;

    /* Shifted to the top, size-wide flags equal 64-bit ones, but for AF and PF, which look at the
     * low byte. */
    asm("cmp %[b], %[a]; lahf; seto %%al"
        : "=a"(ax)
        : [a] "r"(a << shift), [b] "r"(b << shift)
        : "cc");
    s->flags &= ~HSK_FLAG_ARITH;
    s->flags |= ax >> 8 & (HSK_FLAG_CF | HSK_FLAG_ZF | HSK_FLAG_SF);
    s->flags |= ax & 1 ? HSK_FLAG_OF : 0;
    s->flags |= __builtin_parity((unsigned)(a - b) & 0xff) ? 0 : HSK_FLAG_PF;
    s->flags |= (a ^ b ^ (a - b)) & HSK_FLAG_AF;
}

/* CMPS reads its second operand first, as the processor does. */
static void one_element(struct soft_vcpu *v, struct string *s)
{
    const unsigned size = s->size;
    const uint64_t b = s->op == CMPS || s->op == SCAS ? soft_ld(v, s->dst_va, size, v->mmu) : 0;
    uint64_t a = soft_reg_get(v, HSK_RAX, size);

    if (s->uses_src)
        a = soft_ld(v, s->src_va, size, v->mmu);
    switch (s->op) {
    case MOVS:
    case STOS:
        soft_st(v, s->dst_va, size, a, v->mmu);
        break;
    case LODS:
        soft_reg_set(v, HSK_RAX, size, a);
        break;
    case CMPS:
    case SCAS:
        compare_flags(s, a, b);
        break;
    }
}

/* --- a chunk by the host's instruction --- */

#define BY_SIZE(run)                                                                               \
    switch (size) {                                                                                \
    case 1:                                                                                        \
        run("b");                                                                                  \
        break;                                                                                     \
    case 2:                                                                                        \
        run("w");                                                                                  \
        break;                                                                                     \
    case 4:                                                                                        \
        run("l");                                                                                  \
        break;                                                                                     \
    default:                                                                                       \
        run("q");                                                                                  \
        break;                                                                                     \
    }

static void host_movs(void *dst, const void *src, uint64_t n, unsigned size, bool down)
{
#define RUN_UP(x) asm volatile("rep movs" x : "+D"(dst), "+S"(src), "+c"(n) : : "memory")
#define RUN_DOWN(x)                                                                                \
    asm volatile("std; rep movs" x "; cld" : "+D"(dst), "+S"(src), "+c"(n) : : "memory", "cc")
    if (down)
        BY_SIZE(RUN_DOWN)
    else
        BY_SIZE(RUN_UP)
#undef RUN_UP
#undef RUN_DOWN
}

static void host_stos(void *dst, uint64_t a, uint64_t n, unsigned size, bool down)
{
#define RUN_UP(x) asm volatile("rep stos" x : "+D"(dst), "+c"(n) : "a"(a) : "memory")
#define RUN_DOWN(x)                                                                                \
    asm volatile("std; rep stos" x "; cld" : "+D"(dst), "+c"(n) : "a"(a) : "memory", "cc")
    if (down)
        BY_SIZE(RUN_DOWN)
    else
        BY_SIZE(RUN_UP)
#undef RUN_UP
#undef RUN_DOWN
}

static uint64_t load(const void *p, unsigned size)
{
    switch (size) {
    case 1:
        return *(const uint8_t *)p;
    case 2:
        return hsk_get16(p);
    case 4:
        return hsk_get32(p);
    default:
        return hsk_get64(p);
    }
}

/* CMPS and SCAS: elements until the condition of the prefix ends the loop; returns how many were
 * done. */
static uint64_t host_compare(struct soft_vcpu *v, struct string *s, const uint8_t *src,
                             const uint8_t *dst, uint64_t n)
{
    const int64_t step = s->down ? -(int64_t)s->size : (int64_t)s->size;
    const bool while_equal = s->in->rep == 0xf3;
    uint64_t a = soft_reg_get(v, HSK_RAX, s->size), b = 0, i = 0;

    do {
        if (src)
            a = load(src + (int64_t)i * step, s->size);
        b = load(dst + (int64_t)i * step, s->size);
        i++;
    } while (i < n && (a == b) == while_equal);
    compare_flags(s, a, b);
    return i;
}

/* Tries n elements at once; returns how many were done, 0 if it cannot (device memory). */
static uint64_t run_chunk(struct soft_vcpu *v, struct string *s, uint64_t n)
{
    const uint64_t back = s->down ? (n - 1) * s->size : 0;
    const unsigned len = (unsigned)(n * s->size);
    uint8_t *src = NULL, *dst = NULL;

    /* where the first element is; a fault names its address, also in a string that goes down */
    if (s->op == CMPS && !(dst = soft_ptr(v, s->dst_va, s->size, false, v->mmu)))
        return 0;
    if (s->uses_src && !(src = soft_ptr(v, s->src_va, s->size, false, v->mmu)))
        return 0;
    if (s->uses_dst && !dst && !(dst = soft_ptr(v, s->dst_va, s->size, s->writes, v->mmu)))
        return 0;
    if (s->writes && !(dst = soft_ptr(v, s->dst_va - back, len, true, v->mmu)))
        return 0;
    if (s->writes)
        dst += back;
    switch (s->op) {
    case MOVS:
        host_movs(dst, src, n, s->size, s->down);
        return n;
    case STOS:
        host_stos(dst, v->gpr[HSK_RAX], n, s->size, s->down);
        return n;
    case LODS:
        soft_reg_set(v, HSK_RAX, s->size,
                     load(s->down ? src - back : src + (n - 1) * s->size, s->size));
        return n;
    default:
        return host_compare(v, s, src, dst, n);
    }
}

/* --- the instruction --- */

static void locate_dst(struct soft_vcpu *v, struct string *s)
{
    if (s->uses_dst)
        s->dst_va = soft_seg_va(v, HSK_ES, s->dst_off, s->size, s->writes);
}

/* One operand after the other, with all checks. */
static void locate_in_order(struct soft_vcpu *v, struct string *s)
{
    if (s->op == CMPS) {
        locate_dst(v, s);
        soft_probe(v, s->dst_va, s->size, false, v->mmu);
    }
    if (s->uses_src)
        s->src_va = soft_seg_va(v, s->in->seg, s->src_off, s->size, false);
    if (s->op == MOVS)
        soft_probe(v, s->src_va, s->size, false, v->mmu);
    if (s->op != CMPS)
        locate_dst(v, s);
}

static void locate(struct soft_vcpu *v, struct string *s)
{
    bool src_ok = true, dst_ok = true;

    s->src_off = soft_reg_get(v, HSK_RSI, s->in->addrsize);
    s->dst_off = soft_reg_get(v, HSK_RDI, s->in->addrsize);
    if (soft_checks_alignment(v) || (v->debug & SOFT_DEBUG_DATA)) {
        locate_in_order(v, s);
        return;
    }
    if (s->uses_src)
        src_ok = soft_seg_ok(v, s->in->seg, s->src_off, s->size, false, &s->src_va);
    if (s->uses_dst)
        dst_ok = soft_seg_ok(v, HSK_ES, s->dst_off, s->size, s->writes, &s->dst_va);
    if (src_ok && dst_ok)
        return;
    /* what is accessed first faults first, if it does */
    if (s->op == MOVS && src_ok)
        soft_probe(v, s->src_va, s->size, false, v->mmu);
    if (s->op == CMPS && dst_ok)
        soft_probe(v, s->dst_va, s->size, false, v->mmu);
    soft_fault(v, (s->op == CMPS ? dst_ok : !src_ok) && s->in->seg == HSK_SS ? VEC_SS : VEC_GP, 0);
}

static void advance(struct soft_vcpu *v, const struct string *s, uint64_t n)
{
    const uint64_t bytes = s->down ? -(n * s->size) : n * s->size;

    if (s->uses_src)
        soft_reg_set(v, HSK_RSI, s->in->addrsize, s->src_off + bytes);
    if (s->uses_dst)
        soft_reg_set(v, HSK_RDI, s->in->addrsize, s->dst_off + bytes);
}

static bool loop_ends(const struct string *s)
{
    if (s->op != CMPS && s->op != SCAS)
        return false;
    return !(s->flags & HSK_FLAG_ZF) == (s->in->rep == 0xf3);
}

/* With 32-bit addresses in 64-bit code, what a repetition counts in has no upper half afterwards,
   even if it repeats nothing; REP MOVS and REP STOS cut the pointers, too. */
static void cut_registers(struct soft_vcpu *v, const struct string *s)
{
    if (s->in->addrsize != 4)
        return;
    soft_reg_set(v, HSK_RCX, 4, v->gpr[HSK_RCX]);
    if (s->writes)
        soft_reg_set(v, HSK_RDI, 4, v->gpr[HSK_RDI]);
    if (s->writes && s->uses_src)
        soft_reg_set(v, HSK_RSI, 4, v->gpr[HSK_RSI]);
}

enum soft_next soft_exec_string(struct soft_vcpu *v, const struct soft_insn *in)
{
    struct string s = {.in = in, .down = v->rflags & HSK_FLAG_DF, .flags = v->rflags};
    const bool single = v->rflags & HSK_FLAG_TF; /* a single step is one iteration */
    uint64_t count, n;

    v->s.interrupt_shadow = 0;
    classify(&s, in->mnemonic);
    if (!in->rep) {
        locate(v, &s);
        one_element(v, &s);
        advance(v, &s, 1);
        v->rflags = s.flags;
        return soft_done(v, in);
    }
    cut_registers(v, &s);
    while ((count = soft_reg_get(v, HSK_RCX, in->addrsize)) != 0) {
        locate(v, &s);
        n = single || (v->debug & SOFT_DEBUG_DATA) ? 0 : chunk_length(v, &s, count);
        n = n > 1 ? run_chunk(v, &s, n) : 0;
        if (n == 0) {
            one_element(v, &s);
            n = 1;
        }
        advance(v, &s, n);
        soft_reg_set(v, HSK_RCX, in->addrsize, count - n);
        if (loop_ends(&s))
            break;
        if (n < count && (single || soft_must_look(v))) {
            v->rflags = s.flags;
            return soft_unfinished(v);
        }
    }
    v->rflags = s.flags;
    return soft_done(v, in);
}
