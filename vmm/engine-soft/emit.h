/* SPDX-License-Identifier: MIT */
/*
 * Host instruction bytes (SDM vol. 2, 2). Each function appends one instruction; the caller has
 * made sure of room (SOFT_BLOCK_ROOM). Bytes are written through the writable mapping; addresses
 * that code sees are executable ones.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum {
    H_RAX,
    H_RCX,
    H_RDX,
    H_RBX,
    H_RSP,
    H_RBP,
    H_RSI,
    H_RDI,
    H_R8,
    H_R9,
    H_R10,
    H_R11,
    H_R12,
    H_R13,
    H_R14,
    H_R15
};
/* Roles in translated code. */
#define H_C    H_RCX /* scratch: final address, and what jrcxz tests */
#define H_T    H_R9  /* scratch */
#define H_U    H_R10 /* scratch */
#define H_GRCX H_R11 /* guest rcx */
#define H_GRSP H_R8  /* guest rsp */

struct emit {
    uint8_t *p;   /* writable */
    ptrdiff_t rx; /* executable - writable */
};

static inline void e8(struct emit *e, unsigned b)
{
    *e->p++ = (uint8_t)b;
}
static inline void e32(struct emit *e, uint32_t v)
{
    memcpy(e->p, &v, 4);
    e->p += 4;
}
static inline void e64(struct emit *e, uint64_t v)
{
    memcpy(e->p, &v, 8);
    e->p += 8;
}
static inline uint8_t *e_here(const struct emit *e)
{
    return e->p + e->rx;
}
static inline void e_rex(struct emit *e, int w, int reg, int index, int base)
{
    unsigned r = 0x40u | (w ? 8u : 0) | ((reg & 8) ? 4u : 0) | ((index & 8) ? 2u : 0) |
                 ((base & 8) ? 1u : 0);

    if (r != 0x40)
        e8(e, r);
}
/* modrm (and sib, displacement) for [base + index * 2^scale + disp]; base or index -1 = none. */
static inline void e_modrm_mem(struct emit *e, int reg, int base, int index, int scale,
                               int32_t disp)
{
    unsigned r = (unsigned)(reg & 7) << 3, mod;

    if (base < 0) {
        e8(e, r | 4);
        e8(e, (unsigned)scale << 6 | (unsigned)(index < 0 ? 4 : index & 7) << 3 | 5);
        e32(e, (uint32_t)disp);
        return;
    }
    mod = disp == 0 && (base & 7) != 5 ? 0 : disp >= -128 && disp < 128 ? 0x40 : 0x80;
    if (index >= 0 || (base & 7) == 4) {
        e8(e, mod | r | 4);
        e8(e, (unsigned)scale << 6 | (unsigned)(index < 0 ? 4 : index & 7) << 3 |
                  (unsigned)(base & 7));
    } else {
        e8(e, mod | r | (unsigned)(base & 7));
    }
    if (mod == 0x40)
        e8(e, (uint8_t)disp);
    else if (mod == 0x80)
        e32(e, (uint32_t)disp);
}
/* op reg, [base+...] */
static inline void e_op_mem(struct emit *e, int w, unsigned op, int reg, int base, int index,
                            int scale, int32_t disp)
{
    e_rex(e, w, reg, index < 0 ? 0 : index, base < 0 ? 0 : base);
    e8(e, op);
    e_modrm_mem(e, reg, base, index, scale, disp);
}
/* op reg, gs:[index * 2^scale + off] */
static inline void e_op_gs_x(struct emit *e, int w, unsigned op, int reg, int index, int scale,
                             uint64_t off)
{
    e8(e, 0x65);
    e_op_mem(e, w, op, reg, -1, index, scale, (int32_t)off);
}
static inline void e_op_gs(struct emit *e, int w, unsigned op, int reg, uint64_t off)
{
    e_op_gs_x(e, w, op, reg, -1, 0, off);
}
static inline void e_ld_gs(struct emit *e, int reg, uint64_t off)
{
    e_op_gs(e, 1, 0x8b, reg, off);
}
static inline void e_st_gs(struct emit *e, int reg, uint64_t off)
{
    e_op_gs(e, 1, 0x89, reg, off);
}
static inline void e_lea(struct emit *e, int w, int d, int base, int index, int scale, int32_t disp)
{
    e_op_mem(e, w, 0x8d, d, base, index, scale, disp);
}
static inline void e_op_rr(struct emit *e, int w, unsigned op, int reg, int rm)
{
    e_rex(e, w, reg, 0, rm);
    e8(e, op);
    e8(e, 0xc0u | (unsigned)(reg & 7) << 3 | (unsigned)(rm & 7));
}
static inline void e_mov(struct emit *e, int d, int s)
{
    if (d != s)
        e_op_rr(e, 1, 0x89, s, d);
}
static inline void e_mov32(struct emit *e, int d, int s)
{
    e_op_rr(e, 0, 0x89, s, d);
}
static inline void e_movi(struct emit *e, int d, uint64_t v)
{
    if (v <= UINT32_MAX) {
        e_rex(e, 0, 0, 0, d);
        e8(e, 0xb8u + (unsigned)(d & 7));
        e32(e, (uint32_t)v);
    } else if ((uint64_t)(int32_t)v == v) {
        e_rex(e, 1, 0, 0, d);
        e8(e, 0xc7);
        e8(e, 0xc0u | (unsigned)(d & 7));
        e32(e, (uint32_t)v);
    } else {
        e_rex(e, 1, 0, 0, d);
        e8(e, 0xb8u + (unsigned)(d & 7));
        e64(e, v);
    }
}
/* Group 1 (add or adc sbb and sub xor cmp = 0..7) with an immediate. */
static inline void e_alui(struct emit *e, int w, int ext, int r, int32_t v)
{
    e_rex(e, w, 0, 0, r);
    e8(e, v >= -128 && v < 128 ? 0x83 : 0x81);
    e8(e, 0xc0u | (unsigned)ext << 3 | (unsigned)(r & 7));
    if (v >= -128 && v < 128)
        e8(e, (uint8_t)v);
    else
        e32(e, (uint32_t)v);
}
/* Group 2 (shl 4, shr 5, sar 7) by an immediate. */
static inline void e_shift(struct emit *e, int w, int ext, int r, unsigned count)
{
    e_rex(e, w, 0, 0, r);
    e8(e, 0xc1);
    e8(e, 0xc0u | (unsigned)ext << 3 | (unsigned)(r & 7));
    e8(e, count);
}
static inline void e_not(struct emit *e, int r)
{
    e_rex(e, 1, 0, 0, r);
    e8(e, 0xf7);
    e8(e, 0xd0u | (unsigned)(r & 7));
}
/* pext d, s, gs:[off] (BMI2): leaves the flags alone */
static inline void e_pext_gs(struct emit *e, int d, int s, uint64_t off)
{
    e8(e, 0x65);
    e8(e, 0xc4);
    e8(e, (d & 8 ? 0u : 0x80u) | 0x40 | 0x20 | 2);
    e8(e, 0x80u | ((~(unsigned)s & 15) << 3) | 2);
    e8(e, 0xf5);
    e_modrm_mem(e, d, -1, -1, 0, (int32_t)off);
}
/* pdep d, s, gs:[off] (BMI2) */
static inline void e_pdep_gs(struct emit *e, int d, int s, uint64_t off)
{
    e8(e, 0x65);
    e8(e, 0xc4);
    e8(e, (d & 8 ? 0u : 0x80u) | 0x40 | 0x20 | 2);
    e8(e, 0x80u | ((~(unsigned)s & 15) << 3) | 3);
    e8(e, 0xf5);
    e_modrm_mem(e, d, -1, -1, 0, (int32_t)off);
}
/* rorx d32, s32, n (BMI2) */
static inline void e_rorx32(struct emit *e, int d, int s, unsigned n)
{
    e8(e, 0xc4);
    e8(e, (d & 8 ? 0u : 0x80u) | 0x40 | (s & 8 ? 0u : 0x20u) | 3);
    e8(e, 0x7b);
    e8(e, 0xf0);
    e8(e, 0xc0u | (unsigned)(d & 7) << 3 | (unsigned)(s & 7));
    e8(e, n);
}
/* jmp / call to an executable address */
static inline void e_rel32(struct emit *e, const uint8_t *to)
{
    e32(e, (uint32_t)(to - (e_here(e) + 4)));
}
static inline void e_jmp(struct emit *e, const uint8_t *to)
{
    e8(e, 0xe9);
    e_rel32(e, to);
}
static inline void e_call(struct emit *e, const uint8_t *to)
{
    e8(e, 0xe8);
    e_rel32(e, to);
}
/* A forward jump to be resolved: returns the writable address behind its rel32. */
static inline uint8_t *e_jcc_fwd(struct emit *e, unsigned cc)
{
    e8(e, 0x0f);
    e8(e, 0x80u | cc);
    e32(e, 0);
    return e->p;
}
static inline uint8_t *e_jmp_fwd(struct emit *e)
{
    e8(e, 0xe9);
    e32(e, 0);
    return e->p;
}
static inline void e_resolve(uint8_t *after, const struct emit *to)
{
    int32_t rel = (int32_t)(to->p - after);

    memcpy(after - 4, &rel, 4);
}
/* jrcxz over a jmp rel32: goes on behind if rcx is 0, else takes the jump. */
static inline uint8_t *e_jmp_unless_rcxz(struct emit *e)
{
    e8(e, 0xe3);
    e8(e, 5);
    return e_jmp_fwd(e);
}
