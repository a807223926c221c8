/* SPDX-License-Identifier: MIT */
/*
 * Pass-through: the guest's instruction is executed by the host as it is, with registers renamed
 * and its memory operand replaced by [host address]. Bytes are taken over from the guest except
 * prefixes for segments and address size, REX, VEX, modrm, sib and displacement (SDM vol.
 * 2, 2.1-2.3).
 *
 * Two guest registers need care: rcx (host rcx is scratch, so implicit CL/ECX is copied in and out)
 * and AH..BH, which no instruction with a REX prefix can name. vCPU thread.
 */
#include <vmm/cpu_bits.h>

#include "translate.h"

struct fields {
    int reg, rm, v, opcode; /* new host numbers, or -1: take over */
    int address, index;     /* host registers of the memory operand, and what to add to them */
    int32_t disp;
    bool no_rex; /* AH..BH are named */
};

struct writeback {
    int8_t guest, host;
};

struct plan {
    struct fields f;
    struct writeback wb[4];
    unsigned nwb;
    bool high, ch; /* AH..BH, CH is named */
    bool swap_bx;  /* BH stands in for CH, since host rcx has another use */
    bool implicit_rcx;
    bool native_rcx, rcx_out; /* host rcx holds guest rcx (or, with high, rsp) during the
                                 instruction; is changed */
    int native_guest;
    int scratch[3];
    unsigned nscratch, used;
};

static bool written(const ZydisDecodedOperand *o)
{
    return o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;
}

/* Must the old value be there? Only plain moves are trusted to overwrite the whole register (bsf of
 * 0 does not). */
static bool wants_old(const struct soft_x *x, const ZydisDecodedOperand *o)
{
    const ZydisDecodedOperand *other = &x->op[1 - (o->id & 1)];

    if (other->type == ZYDIS_OPERAND_TYPE_REGISTER &&
        soft_gpr(other->reg.value) == soft_gpr(o->reg.value))
        return true;
    switch (x->in.mnemonic) {
    case ZYDIS_MNEMONIC_MOV:
    case ZYDIS_MNEMONIC_MOVZX:
    case ZYDIS_MNEMONIC_MOVSX:
    case ZYDIS_MNEMONIC_MOVSXD:
        return o->id != 0 || o->size < 32;
    default:
        return true;
    }
}

static void scan_registers(const struct soft_x *x, struct plan *p)
{
    bool outside = false;

    for (unsigned i = 0; i < x->in.operand_count; i++) {
        const ZydisDecodedOperand *o = &x->op[i];
        int g = o->type == ZYDIS_OPERAND_TYPE_REGISTER ? soft_gpr(o->reg.value) : -1;

        if (g < 0)
            continue;
        if (g >= 16) {
            p->high = true;
            p->ch |= g == 17;
        } else if (g == HSK_RCX && o->encoding == ZYDIS_OPERAND_ENCODING_NONE) {
            p->implicit_rcx = true;
            p->rcx_out |= written(o);
        } else if (tx_host(g) >= 8 && g < 8) {
            outside = true;
            p->native_guest = g;
        }
    }
    if (p->implicit_rcx || (p->ch && x->mem < 0 && p->native_guest != HSK_RSP)) {
        p->native_rcx = true;
        p->native_guest = HSK_RCX;
    } else if (p->high && outside) {
        p->native_rcx = true;
    }
    p->swap_bx = p->ch && !(p->native_rcx && p->native_guest == HSK_RCX);
}

static int *field_of(struct fields *f, ZydisOperandEncoding enc)
{
    switch (enc) {
    case ZYDIS_OPERAND_ENCODING_MODRM_REG:
        return &f->reg;
    case ZYDIS_OPERAND_ENCODING_MODRM_RM:
        return &f->rm;
    case ZYDIS_OPERAND_ENCODING_NDSNDD:
        return &f->v;
    case ZYDIS_OPERAND_ENCODING_OPCODE:
        return &f->opcode;
    default:
        return NULL;
    }
}

static int assign(struct tx *t, struct plan *p, const ZydisDecodedOperand *o, int g)
{
    int h;

    if (g >= 16) {
        if (g == 17 && p->swap_bx)
            return H_RBX + 4;
        if (g == 17)
            p->rcx_out |= written(o);
        return g - 16 + 4;
    }
    if (p->native_rcx && g == p->native_guest) {
        p->rcx_out |= written(o);
        return H_RCX;
    }
    if (tx_host(g) >= 0)
        return tx_host(g);
    for (unsigned i = 0; i < p->nwb; i++)
        if (p->wb[i].guest == g)
            return p->wb[i].host;
    hsk_assert(p->used < p->nscratch);
    h = p->scratch[p->used++];
    if (wants_old(t->x, o))
        e_ld_gs(&t->e, h, TX_GPR(g));
    p->wb[p->nwb++] = (struct writeback){(int8_t)g, (int8_t)h};
    return h;
}

static bool guest_written(const struct soft_x *x, int g)
{
    for (unsigned i = 0; i < x->in.operand_count; i++)
        if (x->op[i].type == ZYDIS_OPERAND_TYPE_REGISTER && soft_gpr(x->op[i].reg.value) == g &&
            written(&x->op[i]))
            return true;
    return false;
}

static bool legacy_prefix(uint8_t b)
{
    switch (b) {
    case 0x2e:
    case 0x36:
    case 0x3e:
    case 0x26:
    case 0x64:
    case 0x65:
    case 0x66:
    case 0x67:
    case 0xf0:
    case 0xf2:
    case 0xf3:
        return true;
    default:
        return false;
    }
}

/* In 16-bit code: does the instruction work on 16 bits because of the code's size or a prefix?
   Vector and x87 instructions do not care. */
static bool is_16bit(const struct soft_x *x)
{
    if (x->fpu != SOFT_FPU_NONE || x->in.operand_width != 16 ||
        x->in.encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY)
        return false;
    for (unsigned i = 0; i < x->in.operand_count; i++)
        if (x->op[i].size == 16)
            return true;
    return false;
}

/* 66h goes over if it chooses the instruction; in 16-bit code its meaning for the operand size is
 * the opposite of here. */
static bool keeps_66(const struct soft_x *x, unsigned i)
{
    return x->in.machine_mode != ZYDIS_MACHINE_MODE_LONG_COMPAT_16 || x->fpu != SOFT_FPU_NONE ||
           x->in.raw.prefixes[i].type == ZYDIS_PREFIX_TYPE_MANDATORY;
}

/* f3 90 is pause whatever REX says, so no repeat prefix before an xchg whose register moves; and
   before bsf and bsr the host may know a newer meaning. */
static bool keeps_repeat(const struct soft_x *x)
{
    return x->in.mnemonic != ZYDIS_MNEMONIC_XCHG && x->in.mnemonic != ZYDIS_MNEMONIC_BSF &&
           x->in.mnemonic != ZYDIS_MNEMONIC_BSR;
}

/* Copies the prefixes that go over; returns the offset of the opcode (or VEX) and the REX bits in
 * force. */
static unsigned put_prefixes(struct emit *e, const struct soft_x *x, unsigned *rex)
{
    const uint8_t *raw = x->raw;
    unsigned i = 0;
    bool long_mode = x->in.machine_mode == ZYDIS_MACHINE_MODE_LONG_64;

    *rex = 0;
    if (x->in.machine_mode == ZYDIS_MACHINE_MODE_LONG_COMPAT_16 && is_16bit(x))
        e8(e, 0x66);
    while (legacy_prefix(raw[i]) || (long_mode && (raw[i] & 0xf0) == 0x40)) {
        if ((raw[i] & 0xf0) == 0x40)
            *rex = raw[i];
        else
            *rex = 0;
        if ((raw[i] == 0x66 && keeps_66(x, i)) || raw[i] == 0xf0 ||
            ((raw[i] == 0xf2 || raw[i] == 0xf3) && keeps_repeat(x)))
            e8(e, raw[i]);
        i++;
    }
    return i;
}

/* Is the immediate a fourth register, of which 32-bit code has eight? */
static bool names_vector(const struct soft_x *x)
{
    return x->in.machine_mode != ZYDIS_MACHINE_MODE_LONG_64 &&
           (x->in.mnemonic == ZYDIS_MNEMONIC_VBLENDVPS ||
            x->in.mnemonic == ZYDIS_MNEMONIC_VBLENDVPD ||
            x->in.mnemonic == ZYDIS_MNEMONIC_VPBLENDVB);
}

/* Bytes behind modrm, sib and displacement: immediates. */
static void put_tail(struct emit *e, const struct soft_x *x)
{
    unsigned at = x->in.raw.modrm.offset + 1u;

    if (x->in.raw.modrm.mod != 3 && x->in.raw.modrm.rm == 4 && x->in.address_width != 16)
        at++;
    at += x->in.raw.disp.size / 8u;
    for (; at < x->in.length; at++)
        e8(e, x->raw[at] & (names_vector(x) ? 0x7f : 0xff));
}

static void put_modrm(struct emit *e, int reg, int rm, const struct fields *f)
{
    if (f->address >= 0)
        e_modrm_mem(e, reg, f->address, f->index, 0, f->disp);
    else
        e8(e, 0xc0u | (unsigned)(reg & 7) << 3 | (unsigned)(rm & 7));
}

/* Does VEX.W mean 64-bit general registers, so that 32-bit code has it ignored? */
static bool vex_w_is_size(const struct soft_x *x)
{
    switch (x->in.mnemonic) {
    case ZYDIS_MNEMONIC_VCVTSI2SS:
    case ZYDIS_MNEMONIC_VCVTSI2SD:
    case ZYDIS_MNEMONIC_VCVTSS2SI:
    case ZYDIS_MNEMONIC_VCVTSD2SI:
    case ZYDIS_MNEMONIC_VCVTTSS2SI:
    case ZYDIS_MNEMONIC_VCVTTSD2SI:
    case ZYDIS_MNEMONIC_VMOVD:
    case ZYDIS_MNEMONIC_VPEXTRD:
    case ZYDIS_MNEMONIC_VPINSRD:
    case ZYDIS_MNEMONIC_VPCMPESTRI:
    case ZYDIS_MNEMONIC_VPCMPESTRM:
        return true;
    default:
        return x->in.meta.isa_set == ZYDIS_ISA_SET_BMI1 || x->in.meta.isa_set == ZYDIS_ISA_SET_BMI2;
    }
}

/* 32-bit code has eight vector registers, so the others keep their values: one by one. */
static void encode_vzero(struct emit *e, const struct soft_x *x)
{
    for (unsigned i = 0; i < 8; i++) {
        const unsigned upper = x->in.mnemonic == ZYDIS_MNEMONIC_VZEROUPPER;

        e8(e, 0xc5);
        e8(e, upper ? 0xf8 : 0x80u | (~i & 15) << 3);
        e8(e, upper ? 0x28 : 0x57); /* vmovaps xmm, xmm; vxorps xmm, xmm, xmm */
        e8(e, 0xc0 | i << 3 | i);
    }
}

static void encode_vex(struct emit *e, const struct soft_x *x, const struct fields *f, unsigned at)
{
    const uint8_t *p = x->raw + at;
    bool two = p[0] == 0xc5;
    unsigned m = two ? 1 : p[1] & 0x1f, w = two ? 0 : p[2] >> 7, last = two ? p[1] : p[2];
    int modrm = x->raw[x->in.raw.modrm.offset];
    int reg = (modrm >> 3 & 7) | (p[1] & 0x80 ? 0 : 8),
        rm = (modrm & 7) | (two || (p[1] & 0x20) ? 0 : 8);
    int vvvv = (int)(~(last >> 3) & 15);

    if (x->in.machine_mode != ZYDIS_MACHINE_MODE_LONG_64) {
        if (!(x->in.attributes & ZYDIS_ATTRIB_HAS_MODRM)) {
            encode_vzero(e, x);
            return;
        }
        reg &= 7;
        rm &= 7;
        vvvv &= 7;
        w &= !vex_w_is_size(x);
    }
    reg = f->reg >= 0 ? f->reg : reg;
    rm = f->address >= 0 ? f->address : f->rm >= 0 ? f->rm : rm;
    vvvv = f->v >= 0 ? f->v : vvvv;
    e8(e, 0xc4);
    e8(e, (reg & 8 ? 0u : 0x80u) | (f->index > 0 && f->index & 8 ? 0u : 0x40u) |
              (rm & 8 ? 0u : 0x20u) | m);
    /* vvvv that names no register must stay 1111 */
    e8(e, w << 7 | ((~(unsigned)vvvv & 15) << 3) | (last & 7));
    e8(e, x->raw[at + (two ? 2 : 3)]);
    if (!(x->in.attributes & ZYDIS_ATTRIB_HAS_MODRM))
        return; /* vzeroupper, vzeroall */
    put_modrm(e, reg, rm, f);
    put_tail(e, x);
}

/* mov between the accumulator and an absolute address (A0-A3) has no modrm: use the ordinary mov.
 */
static void encode_moffs(struct emit *e, const struct soft_x *x, const struct fields *f,
                         unsigned rex)
{
    static const uint8_t op[4] = {0x8a, 0x8b, 0x88, 0x89};

    e_rex(e, rex & 8, 0, 0, f->address);
    e8(e, op[x->in.opcode & 3]);
    e_modrm_mem(e, H_RAX, f->address, -1, 0, 0); /* no base register, so no window */
}

static void encode_plain(struct emit *e, const struct soft_x *x, const struct fields *f,
                         unsigned at, unsigned rex)
{
    bool has_modrm = x->in.attributes & ZYDIS_ATTRIB_HAS_MODRM;
    bool long_mode = x->in.machine_mode == ZYDIS_MACHINE_MODE_LONG_64;
    unsigned nrex = rex & 8, end = has_modrm ? x->in.raw.modrm.offset : x->in.length;
    int modrm = has_modrm ? x->raw[x->in.raw.modrm.offset] : 0, reg = 0, rm = 0;

    if (!has_modrm && x->in.opcode_map == ZYDIS_OPCODE_MAP_DEFAULT &&
        (x->in.opcode & 0xfc) == 0xa0) {
        encode_moffs(e, x, f, rex);
        return;
    }
    if (has_modrm) {
        reg = f->reg >= 0 ? f->reg : (modrm >> 3 & 7) | (rex & 4 ? 8 : 0);
        rm = f->rm >= 0 ? f->rm : (modrm & 7) | (rex & 1 ? 8 : 0);
        nrex |= (reg & 8 ? 4u : 0) | (f->index > 0 && f->index & 8 ? 2u : 0) |
                ((f->address >= 0 ? f->address : rm) & 8 ? 1u : 0);
    } else if (f->opcode >= 0) {
        nrex |= f->opcode & 8 ? 1u : 0;
    }
    if (rex)
        nrex |= 0x40;
    if (nrex && !f->no_rex)
        e8(e, 0x40 | nrex);
    if (!long_mode && !has_modrm && x->in.opcode_map == ZYDIS_OPCODE_MAP_DEFAULT &&
        (x->in.opcode & 0xf0) == 0x40) {
        e8(e, 0xff); /* inc, dec r32: their opcodes are REX prefixes here */
        e8(e, 0xc0u | (x->in.opcode & 8u) | (unsigned)(f->opcode & 7));
        return;
    }
    if (has_modrm) {
        for (; at < end; at++)
            e8(e,
               x->raw[at] == 0x82 && at == end - 1 && x->in.opcode_map == ZYDIS_OPCODE_MAP_DEFAULT
                   ? 0x80
                   : x->raw[at]);
        put_modrm(e, reg, rm, f);
        put_tail(e, x);
        return;
    }
    end = x->in.length - (x->in.raw.imm[0].size + x->in.raw.imm[1].size) / 8u - 1;
    for (; at < x->in.length; at++)
        e8(e, at == end && f->opcode >= 0 ? (x->raw[at] & ~7u) | (unsigned)(f->opcode & 7)
                                          : x->raw[at]);
}

static void encode(struct emit *e, const struct soft_x *x, const struct fields *f)
{
    unsigned rex, at = put_prefixes(e, x, &rex);

    if (x->in.encoding == ZYDIS_INSTRUCTION_ENCODING_VEX)
        encode_vex(e, x, f, at);
    else
        encode_plain(e, x, f, at, rex);
}

static bool waits_for_x87(const struct soft_x *x)
{
    for (unsigned i = 0; i < x->in.operand_count_visible; i++)
        if (x->op[i].type == ZYDIS_OPERAND_TYPE_REGISTER &&
            ZydisRegisterGetClass(x->op[i].reg.value) == ZYDIS_REGCLASS_MMX)
            return true;
    return x->fpu == SOFT_FPU_X87 && x->in.mnemonic != ZYDIS_MNEMONIC_FNSTCW &&
           x->in.mnemonic != ZYDIS_MNEMONIC_FNSTSW;
}

/* SDM vol. 2, 2.4: exception types 1, 2 and 4, but for the instructions that move or look at
 * unaligned data. */
static bool wants_alignment(const struct soft_x *x, const ZydisDecodedOperand *m)
{
    switch (x->in.meta.exception_class) {
    case ZYDIS_EXCEPTION_CLASS_AVX1:
        return true;
    case ZYDIS_EXCEPTION_CLASS_SSE1:
    case ZYDIS_EXCEPTION_CLASS_SSE2:
    case ZYDIS_EXCEPTION_CLASS_SSE4:
        break;
    default:
        return x->in.mnemonic == ZYDIS_MNEMONIC_CMPXCHG16B ||
               x->in.mnemonic == ZYDIS_MNEMONIC_CVTPD2PI ||
               x->in.mnemonic == ZYDIS_MNEMONIC_CVTTPD2PI;
    }
    switch (x->in.mnemonic) {
    case ZYDIS_MNEMONIC_MOVUPS:
    case ZYDIS_MNEMONIC_MOVUPD:
    case ZYDIS_MNEMONIC_MOVDQU:
    case ZYDIS_MNEMONIC_LDDQU:
    case ZYDIS_MNEMONIC_PCMPESTRI:
    case ZYDIS_MNEMONIC_PCMPESTRM:
    case ZYDIS_MNEMONIC_PCMPISTRI:
    case ZYDIS_MNEMONIC_PCMPISTRM:
        return false;
    default:
        return m->size == 128;
    }
}

unsigned tx_access_of(const struct soft_x *x, const ZydisDecodedOperand *m)
{
    unsigned a = written(m) ? SOFT_ACCESS_WRITE : 0;

    if (!a || (m->actions & ZYDIS_OPERAND_ACTION_MASK_READ) ||
        (m->actions & ZYDIS_OPERAND_ACTION_CONDWRITE))
        a |= SOFT_ACCESS_READ;
    if (waits_for_x87(x))
        a |= SOFT_ACCESS_X87 |
             SOFT_ACCESS_READ; /* a store that raises an exception stores nothing */
    if (wants_alignment(x, m))
        a |= SOFT_ACCESS_ALIGNED;
    return a;
}

/* Everything behind the check; position-independent, since stores to awkward places run a copy of
 * it. */
static void emit_operation(struct tx *t, struct plan *p)
{
    struct emit *e = &t->e;
    const struct soft_x *x = t->x;

    if (p->native_rcx) {
        if (x->mem >= 0)
            e_mov(e, H_T, H_C);
        e_mov(e, H_RCX, tx_host(p->native_guest));
    }
    if (p->swap_bx) {
        e_mov(e, H_T, H_RBX);
        e_mov(e, H_RBX, H_GRCX);
    }
    for (unsigned i = 0; i < x->in.operand_count; i++) {
        const ZydisDecodedOperand *o = &x->op[i];
        int g = o->type == ZYDIS_OPERAND_TYPE_REGISTER ? soft_gpr(o->reg.value) : -1;
        int *field = g >= 0 ? field_of(&p->f, o->encoding) : NULL;

        if (field)
            *field = assign(t, p, o, g);
    }
    encode(e, x, &p->f);
    for (unsigned i = 0; i < p->nwb; i++)
        if (guest_written(x, p->wb[i].guest))
            e_st_gs(e, p->wb[i].host, TX_GPR(p->wb[i].guest));
    if (p->swap_bx) {
        e_mov(e, H_GRCX, H_RBX);
        e_mov(e, H_RBX, H_T);
    }
    if (p->native_rcx && p->rcx_out)
        e_mov(e, tx_host(p->native_guest), H_RCX);
}

void tx_pass(struct tx *t)
{
    const struct soft_x *x = t->x;
    const ZydisDecodedOperand *m = x->mem >= 0 ? &x->op[x->mem] : NULL;
    struct plan p = {.f = {-1, -1, -1, -1, -1, -1, 0, false}};
    struct tx_mem w;

    scan_registers(x, &p);
    p.f.no_rex = p.high;
    if (!m) {
        p.nscratch = p.native_rcx ? 2 : 3;
        p.scratch[0] = H_U;
        p.scratch[1] = H_T;
        p.scratch[2] = H_C;
        emit_operation(t, &p);
        if (p.native_rcx || p.used == 3)
            t->c_window = -1;
        return;
    }
    p.f.address = p.native_rcx ? H_T : H_C;
    p.nscratch = p.native_rcx ? 1 : 2;
    p.scratch[0] = H_U;
    p.scratch[1] = H_T;
    if (tx_window(t, &w)) {
        p.f.index = w.index;
        p.f.disp = m->mem.disp.has_displacement ? (int32_t)m->mem.disp.value : 0;
        if (p.high || p.swap_bx) { /* no REX, so plain [rcx] */
            e_lea(&t->e, 1, H_C, H_C, p.f.index, 0, p.f.disp);
            p.f.index = -1;
            p.f.disp = 0;
        }
        emit_operation(t, &p);
        if (p.native_rcx || p.high)
            t->c_window = -1;
        return;
    }
    tx_operand(t, m, m->size / 8u, tx_access_of(x, m), 0);
    emit_operation(t, &p);
    tx_done(t);
}

void tx_lea(struct tx *t)
{
    const struct soft_x *x = t->x;
    struct emit *e = &t->e;
    unsigned width = x->in.operand_width == 16 ? x->in.address_width
                                               : MIN(x->in.operand_width, x->in.address_width);
    int g = soft_gpr(x->op[0].reg.value), h = tx_host(g),
        d = h >= 0 && x->in.operand_width != 16 ? h : H_C;

    if (d == H_C)
        t->c_window = -1;
    tx_offset(t, &x->op[1], d, width, 0);
    if (x->in.operand_width == 16) {
        e8(e, 0x66);
        if (h < 0)
            e_op_gs(e, 0, 0x89, H_C, TX_GPR(g));
        else
            e_op_rr(e, 0, 0x89, H_C, h);
    } else if (h < 0) {
        e_st_gs(e, H_C, TX_GPR(g));
    }
}

static void sign_extended(struct tx *t, int g, unsigned size, int d)
{
    struct emit *e = &t->e;
    int s = tx_use(t, g, d);

    if (size == 8) {
        e_mov(e, d, s);
    } else if (size == 4) {
        e_op_rr(e, 1, 0x63, d, s);
    } else { /* movsx d, s16 */
        e_rex(e, 1, d, 0, s);
        e8(e, 0x0f);
        e8(e, 0xbf);
        e8(e, 0xc0u | (unsigned)(d & 7) << 3 | (unsigned)(s & 7));
    }
}

/* bt/bts/btr/btc [mem], reg: the bit number reaches beyond the operand, in both directions. */
void tx_bit(struct tx *t)
{
    const struct soft_x *x = t->x;
    struct emit *e = &t->e;
    const ZydisDecodedOperand *m = &x->op[0];
    unsigned size = x->in.operand_width / 8u, access = tx_access_of(x, m),
             log = size == 8   ? 3
                   : size == 4 ? 2
                               : 1;
    int g = soft_gpr(x->op[1].reg.value), ea = tx_ea_reg(t, x->live);
    struct fields f = {.reg = H_T, .rm = -1, .v = -1, .opcode = -1, .address = H_C, .index = -1};

    if (tx_checked(t, m, access) || x->in.address_width == 16 || (t->mode & SOFT_MODE_CODE16)) {
        tx_call_insn(t, (const void *)(uintptr_t)soft_call_exec);
        return;
    }
    tx_ea(t, m, ea, 0);
    if (x->live)
        tx_flags_save(e);
    sign_extended(t, g, size, H_T);
    e_shift(e, 1, 7, H_T, 3 + log);
    if (x->live)
        tx_flags_restore(e);
    e_lea(e, !t->code32, ea, ea, H_T, (int)log, 0);
    t->ea_base = -1;
    if (m->mem.segment == ZYDIS_REGISTER_SS)
        access |= SOFT_ACCESS_STACK;
    tx_check(t, size, access, x->live, x->next);
    if (x->live)
        tx_flags_save(e);
    e_mov(e, H_T, tx_use(t, g, H_T));
    e_alui(e, 0, 4, H_T, (int32_t)size * 8 - 1);
    if (x->live)
        tx_flags_restore(e);
    encode(e, x, &f);
    tx_done(t);
}

/* cld, std: the guest's direction flag is in memory only. */
void tx_direction(struct tx *t)
{
    struct emit *e = &t->e;

    if (t->x->live)
        tx_flags_save(e);
    e8(e, 0x65);
    e8(e, 0x81);
    if (t->x->in.mnemonic == ZYDIS_MNEMONIC_CLD) {
        e_modrm_mem(e, 4, -1, -1, 0, (int32_t)TX_OFF(rflags));
        e32(e, (uint32_t)~HSK_FLAG_DF);
    } else {
        e_modrm_mem(e, 1, -1, -1, 0, (int32_t)TX_OFF(rflags));
        e32(e, HSK_FLAG_DF);
    }
    if (t->x->live)
        tx_flags_restore(e);
}
