/* SPDX-License-Identifier: MIT */
/*
 * Instructions that save and load the FPU state: FXSAVE, FXRSTOR, XSAVE, XSAVEOPT, XSAVEC, XRSTOR,
 * LDMXCSR, STMXCSR, FNSTENV, FLDENV, FNSAVE, FRSTOR (SDM vol. 1, 10.5 and 13.7-13.12; vol. 2).
 *
 * The guest's registers are parked into the XSAVE image of the state, and memory is filled from
 * that image: the host's XCR0 and the host's instruction pointers never show. x87 instruction and
 * data pointers are always zero. Thread: the vCPU's; parks.
 */
#include <Zydis/Zydis.h>

#include "system.h"

enum { VEC_MF = 16, FXSAVE_BYTES = 512 };
#define COMPACT (1ull << 63)

static void need_fpu(struct soft_vcpu *v, bool fxsave)
{
    if (fxsave && (v->s.cr0 & HSK_CR0_EM))
        soft_fault(v, VEC_UD, -1);
    if (v->s.cr0 & HSK_CR0_TS)
        soft_fault(v, VEC_NM, -1);
}

/* Guest memory [va, va+len) from or to a buffer. The range was probed, or the fault leaves nothing
 * half done that matters. */
static void copy_guest(struct soft_vcpu *v, uint64_t va, uint8_t *buf, unsigned len, bool write)
{
    while (len) {
        const unsigned room = HSK_PAGE_SIZE - (va & 0xfff);
        const unsigned n = MIN(len, room);
        uint8_t *host = soft_ptr(v, va, n, write, v->mmu);

        if (host) {
            void *to = write ? host : buf;
            const void *from = write ? buf : host;
            uint64_t count = n;

            asm volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(count) : : "memory");
        }
        for (unsigned i = 0; !host && i < n; i++) {
            if (write)
                soft_st(v, va + i, 1, buf[i], v->mmu);
            else
                buf[i] = (uint8_t)soft_ld(v, va + i, 1, v->mmu);
        }
        va += n;
        buf += n;
        len -= n;
    }
}

static uint64_t area(struct soft_vcpu *v, const struct soft_insn *in, unsigned len, unsigned align,
                     bool write)
{
    const uint64_t va = soft_mem(v, in, 0, len, write);

    if (va & (align - 1))
        soft_fault(v, VEC_GP, 0);
    return va;
}

/* Of an area's bytes the processor touches the last one and then the first one before it moves any.
 */
static void probe_ends(struct soft_vcpu *v, uint64_t va, unsigned first, unsigned len, bool write)
{
    soft_probe(v, va + len - 1, 1, write, v->mmu);
    soft_probe(v, va + first, 1, write, v->mmu);
}

/* The initial values of component bits (FCW 37F, everything else zero) into a standard-format
   image, of vector registers so many bytes. MXCSR is left alone. */
static void init_components(uint8_t *x, uint64_t components, unsigned bytes)
{
    if (components & HSK_XCR0_X87) {
        memset(x, 0, HSK_XSAVE_MXCSR);
        memset(x + HSK_XSAVE_ST0, 0, HSK_XSAVE_XMM0 - HSK_XSAVE_ST0);
        hsk_put16(x, 0x37f);
    }
    if (components & HSK_XCR0_SSE)
        memset(x + HSK_XSAVE_XMM0, 0, bytes);
    if (components & HSK_XCR0_AVX)
        memset(x + HSK_XSAVE_YMM, 0, bytes);
}

uint64_t soft_fpu_image(struct soft_vcpu *v)
{
    uint8_t *x = v->s.xsave;
    uint64_t in_use;

    soft_fpu_park(v);
    in_use = hsk_get64(x + HSK_XSAVE_HEADER);
    init_components(x, ~in_use, 256);
    hsk_put64(x + HSK_XSAVE_HEADER, HSK_XCR0_ALL);
    memset(x + HSK_XSAVE_FOP, 0, HSK_XSAVE_MXCSR - HSK_XSAVE_FOP);
    return in_use;
}

static unsigned xmm_bytes(const struct soft_vcpu *v)
{
    return v->code_size == 8 ? 256 : 128;
}

/* --- FXSAVE, FXRSTOR --- */

static void fxsave(struct soft_vcpu *v, const struct soft_insn *in)
{
    uint64_t va;
    uint8_t *x = v->s.xsave;

    need_fpu(v, true);
    va = area(v, in, FXSAVE_BYTES, 16, true);
    probe_ends(v, va, 0, FXSAVE_BYTES, true);
    soft_fpu_image(v);
    hsk_put32(x + HSK_XSAVE_MXCSR_MASK, HSK_MXCSR_VALID);
    copy_guest(v, va, x, HSK_XSAVE_XMM0, true);
    if (v->s.cr4 & HSK_CR4_OSFXSR)
        copy_guest(v, va + HSK_XSAVE_XMM0, x + HSK_XSAVE_XMM0, xmm_bytes(v), true);
}

static void fxrstor(struct soft_vcpu *v, const struct soft_insn *in)
{
    uint8_t buf[HSK_XSAVE_LEGACY_END];
    uint64_t va;
    const bool sse = v->s.cr4 & HSK_CR4_OSFXSR;

    need_fpu(v, true);
    va = area(v, in, FXSAVE_BYTES, 16, false);
    probe_ends(v, va, 0, FXSAVE_BYTES, false); /* what is behind the registers, too */
    soft_fpu_park(v);
    copy_guest(v, va, buf, sizeof(buf), false);
    if (sse && (hsk_get32(buf + HSK_XSAVE_MXCSR) & ~HSK_MXCSR_VALID))
        soft_fault(v, VEC_GP, 0);
    soft_fpu_image(v);
    memcpy(v->s.xsave, buf, HSK_XSAVE_MXCSR);
    memcpy(v->s.xsave + HSK_XSAVE_ST0, buf + HSK_XSAVE_ST0, HSK_XSAVE_XMM0 - HSK_XSAVE_ST0);
    if (sse) {
        memcpy(v->s.xsave + HSK_XSAVE_MXCSR, buf + HSK_XSAVE_MXCSR, 4);
        memcpy(v->s.xsave + HSK_XSAVE_XMM0, buf + HSK_XSAVE_XMM0, xmm_bytes(v));
    }
}

/* --- XSAVE family --- */

static uint64_t requested(const struct soft_vcpu *v)
{
    return ((v->gpr[HSK_RAX] & 0xffffffff) | v->gpr[HSK_RDX] << 32) & v->s.xcr0;
}

/* Where an area with these components begins, in use or not. */
static unsigned first_byte(uint64_t rfbm, bool compact)
{
    const uint64_t with_mxcsr = compact ? HSK_XCR0_SSE : HSK_XCR0_SSE | HSK_XCR0_AVX;

    return rfbm & HSK_XCR0_X87 ? 0 : rfbm & with_mxcsr ? HSK_XSAVE_MXCSR : HSK_XSAVE_HEADER;
}

static void need_xsave(struct soft_vcpu *v)
{
    if (!(v->s.cr4 & HSK_CR4_OSXSAVE))
        soft_fault(v, VEC_UD, -1);
    if (v->s.cr0 & HSK_CR0_TS)
        soft_fault(v, VEC_NM, -1);
}

static void save_components(struct soft_vcpu *v, uint64_t va, uint64_t which, bool mxcsr)
{
    uint8_t *x = v->s.xsave;

    hsk_put32(x + HSK_XSAVE_MXCSR_MASK, HSK_MXCSR_VALID);
    if (which & HSK_XCR0_X87) {
        copy_guest(v, va, x, HSK_XSAVE_MXCSR, true);
        copy_guest(v, va + HSK_XSAVE_ST0, x + HSK_XSAVE_ST0, HSK_XSAVE_XMM0 - HSK_XSAVE_ST0, true);
    }
    if (mxcsr)
        copy_guest(v, va + HSK_XSAVE_MXCSR, x + HSK_XSAVE_MXCSR, 8, true);
    if (which & HSK_XCR0_SSE)
        copy_guest(v, va + HSK_XSAVE_XMM0, x + HSK_XSAVE_XMM0, xmm_bytes(v), true);
    /* the first extended component has the same place in both formats */
    if (which & HSK_XCR0_AVX)
        copy_guest(v, va + HSK_XSAVE_YMM, x + HSK_XSAVE_YMM, xmm_bytes(v), true);
}

static void xsave(struct soft_vcpu *v, const struct soft_insn *in, bool compact, bool skip_initial)
{
    const uint64_t rfbm = requested(v);
    const unsigned len = rfbm & HSK_XCR0_AVX ? HSK_XSAVE_END : HSK_XSAVE_YMM;
    uint64_t va, in_use, old, bv;
    uint8_t header[16];

    need_xsave(v);
    va = area(v, in, len, 64, true);
    probe_ends(v, va, first_byte(rfbm, compact), len, true);
    in_use = soft_fpu_image(v);
    if (compact) {
        if (hsk_get32(v->s.xsave + HSK_XSAVE_MXCSR) != 0x1f80)
            in_use |= HSK_XCR0_SSE;
        bv = in_use & rfbm;
        save_components(v, va, bv, bv & HSK_XCR0_SSE);
        hsk_put64(header, bv);
        hsk_put64(header + 8, rfbm | COMPACT);
        copy_guest(v, va + HSK_XSAVE_HEADER, header, 16, true);
        return;
    }
    save_components(v, va, skip_initial ? rfbm & in_use : rfbm,
                    rfbm & (HSK_XCR0_SSE | HSK_XCR0_AVX));
    copy_guest(v, va + HSK_XSAVE_HEADER, header, 8, false);
    old = hsk_get64(header);
    hsk_put64(header, (old & ~rfbm) | (in_use & rfbm));
    copy_guest(v, va + HSK_XSAVE_HEADER, header, 8, true);
}

/* Checks the header (SDM vol. 1, 13.8); returns XSTATE_BV. */
static uint64_t check_header(struct soft_vcpu *v, const uint8_t *header, bool *compact)
{
    const uint64_t bv = hsk_get64(header), comp = hsk_get64(header + 8);
    bool bad;

    *compact = comp & COMPACT;
    if (*compact)
        bad = (comp & ~COMPACT & ~v->s.xcr0) || (bv & ~comp);
    else
        bad = comp || (bv & ~v->s.xcr0) || hsk_get64(header + 16);
    for (unsigned i = 24; *compact && i < 64; i += 8)
        bad |= hsk_get64(header + i) != 0;
    if (*compact && hsk_get64(header + 16))
        bad = true;
    if (bad)
        soft_fault(v, VEC_GP, 0);
    return bv;
}

static void xrstor(struct soft_vcpu *v, const struct soft_insn *in)
{
    const uint64_t rfbm = requested(v);
    const unsigned len = rfbm & HSK_XCR0_AVX ? HSK_XSAVE_END : HSK_XSAVE_YMM;
    uint8_t buf[HSK_XSAVE_END];
    uint8_t *x = v->s.xsave;
    uint64_t va, bv, load, in_use;
    bool compact, mxcsr;
    unsigned first;

    need_xsave(v);
    va = area(v, in, len, 64, false);
    soft_fpu_park(v);
    copy_guest(v, va + HSK_XSAVE_HEADER, buf + HSK_XSAVE_HEADER, HSK_XSAVE_YMM - HSK_XSAVE_HEADER,
               false);
    bv = check_header(v, buf + HSK_XSAVE_HEADER, &compact);
    first = first_byte(rfbm, compact);
    probe_ends(v, va, first, len, false);
    if (first < HSK_XSAVE_HEADER)
        copy_guest(v, va + first, buf + first, HSK_XSAVE_HEADER - first, false);
    copy_guest(v, va + HSK_XSAVE_YMM, buf + HSK_XSAVE_YMM, len - HSK_XSAVE_YMM, false);
    load = bv & rfbm;
    mxcsr = compact ? load & HSK_XCR0_SSE : rfbm & (HSK_XCR0_SSE | HSK_XCR0_AVX);
    if (mxcsr && (hsk_get32(buf + HSK_XSAVE_MXCSR) & ~HSK_MXCSR_VALID))
        soft_fault(v, VEC_GP, 0);
    in_use = soft_fpu_image(v);
    init_components(x, rfbm & ~load, xmm_bytes(v));
    if (compact && (rfbm & ~load & HSK_XCR0_SSE))
        hsk_put32(x + HSK_XSAVE_MXCSR, 0x1f80);
    if (mxcsr)
        memcpy(x + HSK_XSAVE_MXCSR, buf + HSK_XSAVE_MXCSR, 4);
    if (load & HSK_XCR0_X87) {
        memcpy(x, buf, HSK_XSAVE_MXCSR);
        memcpy(x + HSK_XSAVE_ST0, buf + HSK_XSAVE_ST0, HSK_XSAVE_XMM0 - HSK_XSAVE_ST0);
    }
    if (load & HSK_XCR0_SSE)
        memcpy(x + HSK_XSAVE_XMM0, buf + HSK_XSAVE_XMM0, xmm_bytes(v));
    if (load & HSK_XCR0_AVX)
        memcpy(x + HSK_XSAVE_YMM, buf + HSK_XSAVE_YMM, xmm_bytes(v));
    if (v->code_size != 8) /* registers 8-15 keep what they have */
        load |= in_use & (HSK_XCR0_SSE | HSK_XCR0_AVX);
    hsk_put64(x + HSK_XSAVE_HEADER, ((in_use & ~rfbm) | load) & HSK_XCR0_ALL);
}

/* --- MXCSR --- */

static void mxcsr(struct soft_vcpu *v, const struct soft_insn *in)
{
    uint32_t value;

    if ((v->s.cr0 & HSK_CR0_EM) || !(v->s.cr4 & HSK_CR4_OSFXSR))
        soft_fault(v, VEC_UD, -1);
    need_fpu(v, false);
    soft_fpu_park(v);
    if (in->mnemonic == ZYDIS_MNEMONIC_STMXCSR || in->mnemonic == ZYDIS_MNEMONIC_VSTMXCSR) {
        soft_put(v, in, 0, 4, hsk_get32(v->s.xsave + HSK_XSAVE_MXCSR));
        return;
    }
    value = (uint32_t)soft_get(v, in, 0, 4);
    if (value & ~HSK_MXCSR_VALID)
        soft_fault(v, VEC_GP, 0);
    hsk_put32(v->s.xsave + HSK_XSAVE_MXCSR, value);
}

/* --- x87 environment: by the host's instruction, on the parked image --- */

struct x87_env {
    uint8_t bytes[128] __attribute__((aligned(16)));
};

static void x87_memory(struct soft_vcpu *v, const struct soft_insn *in)
{
    const bool all = in->mnemonic == ZYDIS_MNEMONIC_FNSAVE || in->mnemonic == ZYDIS_MNEMONIC_FRSTOR;
    const bool store =
        in->mnemonic == ZYDIS_MNEMONIC_FNSAVE || in->mnemonic == ZYDIS_MNEMONIC_FNSTENV;
    const bool narrow = in->opsize == 2;
    const unsigned env = narrow ? 14 : 28;
    const unsigned len = env + (all ? 80 : 0);
    uint8_t *x = v->s.xsave;
    struct x87_env buf = {0};
    uint64_t va;

    if (v->s.cr0 & (HSK_CR0_EM | HSK_CR0_TS))
        soft_fault(v, VEC_NM, -1);
    soft_fpu_park(v);
    if (!store && (hsk_get16(x + 2) & 0x80) && (hsk_get64(x + HSK_XSAVE_HEADER) & HSK_XCR0_X87))
        soft_fault(v, VEC_MF, -1); /* waits: the pending exception comes first */
    va = soft_mem(v, in, 0, len, store);
    if (store)
        soft_probe(v, va, len, true, v->mmu);
    soft_fpu_image(v);
    if (!store)
        copy_guest(v, va, buf.bytes, len, false);
    /* fxrstor and fxsave move the SSE registers too, unchanged; the host's own x87 state and MXCSR
     * are set back at the end */
    asm volatile("fxrstor64 (%0)" : : "r"(x) : "memory");
    if (store && all)
        asm volatile("fnsave (%0)" : : "r"(buf.bytes) : "memory");
    else if (store)
        asm volatile("fnstenv (%0)" : : "r"(buf.bytes) : "memory");
    else if (narrow && all)
        asm volatile(".byte 0x66; frstor (%0)" : : "r"(buf.bytes) : "memory");
    else if (narrow)
        asm volatile(".byte 0x66; fldenv (%0)" : : "r"(buf.bytes) : "memory");
    else if (all)
        asm volatile("frstor (%0)" : : "r"(buf.bytes) : "memory");
    else
        asm volatile("fldenv (%0)" : : "r"(buf.bytes) : "memory");
    asm volatile("fxsave64 (%0); fninit; ldmxcsr %1"
                 :
                 : "r"(x), "m"((const uint32_t){0x1f80})
                 : "memory");
    memset(x + HSK_XSAVE_FOP, 0, HSK_XSAVE_MXCSR - HSK_XSAVE_FOP);
    if (!store)
        return;
    if (narrow) {
        memcpy(buf.bytes + 2, buf.bytes + 4, 2);
        memcpy(buf.bytes + 4, buf.bytes + 8, 2);
        memmove(buf.bytes + 14, buf.bytes + 28, 80);
        memset(buf.bytes + 6, 0, 8);
    } else {
        memset(buf.bytes + 12, 0, 16);
    }
    copy_guest(v, va, buf.bytes, len, true);
}

enum soft_next soft_x_fpu(struct soft_vcpu *v, const struct soft_insn *in)
{
    switch (in->mnemonic) {
    case ZYDIS_MNEMONIC_FXSAVE:
    case ZYDIS_MNEMONIC_FXSAVE64:
        fxsave(v, in);
        break;
    case ZYDIS_MNEMONIC_FXRSTOR:
    case ZYDIS_MNEMONIC_FXRSTOR64:
        fxrstor(v, in);
        break;
    case ZYDIS_MNEMONIC_XSAVE:
    case ZYDIS_MNEMONIC_XSAVE64:
        xsave(v, in, false, false);
        break;
    case ZYDIS_MNEMONIC_XSAVEOPT:
    case ZYDIS_MNEMONIC_XSAVEOPT64:
        xsave(v, in, false, true);
        break;
    case ZYDIS_MNEMONIC_XSAVEC:
    case ZYDIS_MNEMONIC_XSAVEC64:
        xsave(v, in, true, true);
        break;
    case ZYDIS_MNEMONIC_XRSTOR:
    case ZYDIS_MNEMONIC_XRSTOR64:
        xrstor(v, in);
        break;
    case ZYDIS_MNEMONIC_FNSTENV:
    case ZYDIS_MNEMONIC_FLDENV:
    case ZYDIS_MNEMONIC_FNSAVE:
    case ZYDIS_MNEMONIC_FRSTOR:
        x87_memory(v, in);
        break;
    default:
        mxcsr(v, in);
        break;
    }
    return soft_done(v, in);
}
