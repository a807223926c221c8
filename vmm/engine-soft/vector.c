/* SPDX-License-Identifier: MIT */
/*
 * Vector instructions that touch memory element by element, so that a fault may come in the middle:
 * gathers and masked moves (SDM vol. 2: VGATHER.., VPGATHER.., VMASKMOV, VPMASKMOV, MASKMOVQ,
 * MASKMOVDQU). They work on the parked XSAVE image.
 *
 * Only elements that the mask selects are accessed. A gather that faults has done the elements
 * before and cleared their mask, so it goes on where it stopped; a masked move that faults has
 * changed no register. Thread: the vCPU's; parks.
 */
#include <Zydis/Zydis.h>

#include "system.h"

enum { VEC_MF = 16 };

static void need_avx(struct soft_vcpu *v)
{
    const uint64_t both = HSK_XCR0_SSE | HSK_XCR0_AVX;

    if (!(v->s.cr4 & HSK_CR4_OSXSAVE) || (v->s.xcr0 & both) != both)
        soft_fault(v, VEC_UD, -1);
    if (v->s.cr0 & HSK_CR0_TS)
        soft_fault(v, VEC_NM, -1);
}

/* Byte i of a vector register in the image. */
static uint8_t *vec_byte(struct soft_vcpu *v, unsigned reg, unsigned i)
{
    return v->s.xsave + (i < 16 ? HSK_XSAVE_XMM0 : HSK_XSAVE_YMM - 16) + 16 * reg + i;
}

static uint64_t vec_get(struct soft_vcpu *v, unsigned reg, unsigned i, unsigned size)
{
    const uint8_t *p = vec_byte(v, reg, i * size);

    return size == 8 ? hsk_get64(p) : hsk_get32(p);
}

static void vec_set(struct soft_vcpu *v, unsigned reg, unsigned i, unsigned size, uint64_t value)
{
    uint8_t *p = vec_byte(v, reg, i * size);

    if (size == 8)
        hsk_put64(p, value);
    else
        hsk_put32(p, (uint32_t)value);
}

/* VEX instructions clear what lies above their result. */
static void vec_clear_from(struct soft_vcpu *v, unsigned reg, unsigned bytes)
{
    for (unsigned i = bytes; i < 32; i++)
        *vec_byte(v, reg, i) = 0;
}

static bool selected(struct soft_vcpu *v, unsigned mask, unsigned i, unsigned size)
{
    return *vec_byte(v, mask, i * size + size - 1) & 0x80;
}

/* --- gathers --- */

enum soft_next soft_x_gather(struct soft_vcpu *v, const struct soft_insn *in)
{
    const unsigned dst = in->op[0].reg, mask = in->op[2].reg, index = (unsigned)in->index & 15;
    const unsigned index_bytes = in->index >= SOFT_INDEX_YMM ? 32 : 16;
    unsigned data, step, n;

    switch (in->mnemonic) {
    case ZYDIS_MNEMONIC_VGATHERDPS:
    case ZYDIS_MNEMONIC_VPGATHERDD:
        data = 4;
        step = 4;
        break;
    case ZYDIS_MNEMONIC_VGATHERDPD:
    case ZYDIS_MNEMONIC_VPGATHERDQ:
        data = 8;
        step = 4;
        break;
    case ZYDIS_MNEMONIC_VGATHERQPS:
    case ZYDIS_MNEMONIC_VPGATHERQD:
        data = 4;
        step = 8;
        break;
    default:
        data = 8;
        step = 8;
        break;
    }
    need_avx(v);
    if (dst == mask || dst == index || mask == index)
        soft_fault(v, VEC_UD, -1);
    n = MIN(in->op[0].size / data, index_bytes / step);
    soft_fpu_image(v);
    for (unsigned i = 0; i < n; i++) {
        const uint64_t raw = vec_get(v, index, i, step);
        const uint64_t offset = (step == 4 ? (uint64_t)(int32_t)raw : raw) * in->scale;

        if (!selected(v, mask, i, data))
            continue;
        vec_set(v, dst, i, data, soft_ld(v, soft_mem(v, in, offset, data, false), data, v->mmu));
        vec_set(v, mask, i, data, 0);
    }
    vec_clear_from(v, dst, n * data);
    vec_clear_from(v, mask, 0);
    return soft_done(v, in);
}

/* --- masked moves --- */

static void masked_load(struct soft_vcpu *v, const struct soft_insn *in, unsigned size)
{
    const unsigned n = in->op[0].size / size, mask = in->op[1].reg;
    uint64_t value[8] = {0};

    for (unsigned i = 0; i < n; i++)
        if (selected(v, mask, i, size))
            value[i] = soft_ld(v, soft_mem(v, in, i * size, size, false), size, v->mmu);
    for (unsigned i = 0; i < n; i++)
        vec_set(v, in->op[0].reg, i, size, value[i]);
    vec_clear_from(v, in->op[0].reg, n * size);
}

static void masked_store(struct soft_vcpu *v, const struct soft_insn *in, unsigned size)
{
    const unsigned n = in->op[2].size / size, mask = in->op[1].reg, src = in->op[2].reg;

    /* all of them are checked before the first is written */
    for (unsigned i = 0; i < n; i++)
        if (selected(v, mask, i, size))
            soft_probe(v, soft_mem(v, in, i * size, size, true), size, true, v->mmu);
    for (unsigned i = 0; i < n; i++)
        if (selected(v, mask, i, size))
            soft_st(v, soft_mem(v, in, i * size, size, true), size, vec_get(v, src, i, size),
                    v->mmu);
}

enum soft_next soft_x_masked_move(struct soft_vcpu *v, const struct soft_insn *in)
{
    const bool wide =
        in->mnemonic == ZYDIS_MNEMONIC_VMASKMOVPD || in->mnemonic == ZYDIS_MNEMONIC_VPMASKMOVQ;

    need_avx(v);
    soft_fpu_image(v);
    if (in->op[0].kind == SOFT_OP_MEM)
        masked_store(v, in, wide ? 8 : 4);
    else
        masked_load(v, in, wide ? 8 : 4);
    return soft_done(v, in);
}

/* MMX after any x87 instruction: the registers count from the physical ones (top of stack 0), and
 * none is empty. */
static void enter_mmx(struct soft_vcpu *v)
{
    uint8_t *x = v->s.xsave, old[128];
    const uint16_t status = hsk_get16(x + 2);
    const unsigned top = status >> 11 & 7;

    memcpy(old, x + HSK_XSAVE_ST0, sizeof(old));
    for (unsigned i = 0; i < 8; i++)
        memcpy(x + HSK_XSAVE_ST0 + 16 * i, old + 16 * ((i - top) & 7), 16);
    hsk_put16(x + 2, (uint16_t)(status & ~0x3800u));
    x[4] = 0xff;
}

static void need_bytes(struct soft_vcpu *v, uint16_t mnemonic)
{
    if (mnemonic == ZYDIS_MNEMONIC_VMASKMOVDQU) {
        need_avx(v);
        return;
    }
    if ((v->s.cr0 & HSK_CR0_EM) ||
        (mnemonic == ZYDIS_MNEMONIC_MASKMOVDQU && !(v->s.cr4 & HSK_CR4_OSFXSR)))
        soft_fault(v, VEC_UD, -1);
    if (v->s.cr0 & HSK_CR0_TS)
        soft_fault(v, VEC_NM, -1);
}

/* MASKMOVQ mm, mask; MASKMOVDQU, VMASKMOVDQU xmm, mask: bytes to DS:rDI. */
enum soft_next soft_x_masked_bytes(struct soft_vcpu *v, const struct soft_insn *in)
{
    const bool mmx = in->mnemonic == ZYDIS_MNEMONIC_MASKMOVQ;
    const uint8_t *src, *mask;
    unsigned top;

    need_bytes(v, in->mnemonic);
    soft_fpu_image(v);
    if (mmx && (hsk_get16(v->s.xsave + 2) & 0x80))
        soft_fault(v, VEC_MF, -1);
    top = hsk_get16(v->s.xsave + 2) >> 11 & 7;
    src = mmx ? v->s.xsave + HSK_XSAVE_ST0 + 16 * ((in->op[0].reg - top) & 7)
              : vec_byte(v, in->op[0].reg, 0);
    mask = mmx ? v->s.xsave + HSK_XSAVE_ST0 + 16 * ((in->op[1].reg - top) & 7)
               : vec_byte(v, in->op[1].reg, 0);
    for (unsigned pass = 0; pass < 2; pass++)
        for (unsigned i = 0; i < (mmx ? 8 : 16); i++) {
            uint64_t va;

            if (!(mask[i] & 0x80))
                continue;
            va = soft_seg_va(v, in->seg, (v->gpr[HSK_RDI] + i) & soft_mask(in->addrsize), 1, true);
            if (pass == 0)
                soft_probe(v, va, 1, true, v->mmu);
            else
                soft_st(v, va, 1, src[i], v->mmu);
        }
    if (mmx)
        enter_mmx(v);
    return soft_done(v, in);
}
