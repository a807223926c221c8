/* SPDX-License-Identifier: MIT */
/*
 * Random state for the differential run. Registers that form addresses are solved for a target in
 * the memory that both sides see: mostly inside a page, often over a page's end, into a page that
 * is missing or read-only, or not canonical. Values lean to corners: denormals, NaNs, infinities,
 * sign bits, small numbers, empty x87 registers, unmasked exceptions.
 */
#include "differential.h"

static uint64_t rng_state = 1;

uint64_t diff_random(void)
{
    rng_state ^= rng_state << 13;
    rng_state ^= rng_state >> 7;
    rng_state ^= rng_state << 17;
    return rng_state * 0x2545f4914f6cdd1dull >> 8 | rng_state << 56;
}

void diff_seed(uint64_t seed)
{
    rng_state = (seed + 1) * 0x9e3779b97f4a7c15ull | 1;
    for (unsigned i = 0; i < 4; i++)
        diff_random();
}

static unsigned one_in(unsigned n)
{
    return diff_random() % n == 0;
}

/* --- values --- */

static const uint64_t corners[] = {
    0,         1,          2,      ~0ull,      0x7f,       0x80,       0xff,
    0x7fff,    0x8000,     0xffff, 0x7fffffff, 0x80000000, 0xffffffff, 0x100000000,
    INT64_MAX, 1ull << 63, 31,     32,         63,         64,         0x0101010101010101,
    10};

static uint64_t value64(void)
{
    return one_in(3) ? corners[diff_random() % G_N_ELEMENTS(corners)] : diff_random();
}

/* 16 bytes as some kind of vector. */
static void vector16(uint8_t *p)
{
    static const uint64_t doubles[] = {0,
                                       1ull << 63,
                                       0x3ff0000000000000,
                                       0x7ff0000000000000,
                                       0xfff0000000000000,
                                       0x7ff8000000000000,
                                       0x7ff0000000000001,
                                       1,
                                       0x000fffffffffffff,
                                       0x0010000000000000,
                                       0x7fefffffffffffff,
                                       0x43e0000000000000,
                                       0xc3e0000000000000,
                                       0x3fe0000000000000,
                                       0x41dfffffffc00000};
    static const uint32_t floats[] = {0,          1u << 31,   0x3f800000, 0x7f800000, 0xff800000,
                                      0x7fc00000, 0x7f800001, 1,          0x007fffff, 0x00800000,
                                      0x7f7fffff, 0x4f000000, 0xcf000000, 0x3f000000, 0x5f000000};
    static const uint16_t extended[] = {0,      0x8000, 0x3fff, 0xbfff, 0x7fff,
                                        0xffff, 1,      0x7ffe, 0x403e, 0x4000};

    switch (diff_random() & 7) {
    case 0:
        for (unsigned i = 0; i < 16; i += 8)
            hsk_put64(p + i,
                      one_in(2) ? doubles[diff_random() % G_N_ELEMENTS(doubles)] : diff_random());
        break;
    case 1:
        for (unsigned i = 0; i < 16; i += 4)
            hsk_put32(p + i, one_in(2) ? floats[diff_random() % G_N_ELEMENTS(floats)]
                                       : (uint32_t)diff_random());
        break;
    case 2: /* ordinary numbers */
        for (unsigned i = 0; i < 16; i += 8)
            hsk_put64(p + i, (diff_random() >> 12) | (0x3f8 + diff_random() % 16) << 52);
        break;
    case 3:
        for (unsigned i = 0; i < 16; i += 4)
            hsk_put32(p + i,
                      (uint32_t)((diff_random() & 0x807fffff) | (120 + diff_random() % 16) << 23));
        break;
    case 4: /* x87 */
        hsk_put64(p, one_in(3) ? corners[diff_random() % G_N_ELEMENTS(corners)]
                               : diff_random() | 1ull << 63);
        hsk_put64(p + 8, extended[diff_random() % G_N_ELEMENTS(extended)]);
        break;
    case 5:
        for (unsigned i = 0; i < 16; i += 8)
            hsk_put64(p + i, corners[diff_random() % G_N_ELEMENTS(corners)]);
        break;
    default:
        hsk_put64(p, diff_random());
        hsk_put64(p + 8, diff_random());
        break;
    }
}

/* A piece of a pool, which is made once: that is much faster. */
void diff_memory(uint8_t *memory)
{
    enum { POOL = 1 << 18 };
    static uint8_t pool[POOL];

    if (!hsk_get64(pool)) {
        const uint64_t state = rng_state;

        rng_state = 1;
        for (unsigned i = 0; i < POOL; i += 16)
            vector16(pool + i);
        hsk_put64(pool, 1);
        rng_state = state;
    }
    memcpy(memory, pool + diff_random() % ((POOL - DIFF_MEMORY) / 4) * 4, DIFF_MEMORY);
}

static void fpu(struct diff_state *s)
{
    uint8_t *x = s->xsave;

    memset(x, 0, sizeof s->xsave);
    hsk_put16(x, (uint16_t)(one_in(3) ? 0x40 | (diff_random() & 0xf3f) : 0x37f));
    hsk_put16(x + 2, (uint16_t)(one_in(2) ? diff_random() & 0x7f7f : diff_random() & 0x3800));
    if (x[2] & ~x[0] & 0x3f)
        hsk_put16(x + 2, hsk_get16(x + 2) | 0x8080);
    x[4] = (uint8_t)(one_in(3) ? diff_random() : one_in(4) ? 0 : 0xff);
    hsk_put32(x + HSK_XSAVE_MXCSR,
              (uint32_t)(one_in(3) ? diff_random() & 0xffff : 0x1f80 | (diff_random() & 0xe03f)));
    for (unsigned i = 0; i < 8; i++) {
        vector16(x + HSK_XSAVE_ST0 + 16 * i);
        memset(x + HSK_XSAVE_ST0 + 16 * i + 10, 0, 6);
    }
    for (unsigned i = 0; i < 256; i += 16) {
        vector16(x + HSK_XSAVE_XMM0 + i);
        vector16(x + HSK_XSAVE_YMM + i);
    }
    hsk_put64(x + HSK_XSAVE_HEADER, 7);
}

/* --- where an operand is to be --- */

static uint64_t locked_target(unsigned size)
{
    const uint64_t r = diff_random();

    return DIFF_RW + 0x400 + 64 * ((r >> 8) % 64) + (r & 1 ? 0 : (r >> 16) % (64 - size + 1));
}

static uint64_t target(unsigned size, bool code32)
{
    const uint64_t r = diff_random();

    size = MIN(MAX(size, 1), 1024);
    switch (r & 31) {
    case 0:
    case 1:
    case 2:
    case 3: /* over the end of a page into the next */
        return DIFF_RW + 4096 - 1 - (r >> 8) % size;
    case 4:
    case 5: /* into a missing page */
        return DIFF_RW_END - (r >> 8) % (size + 1);
    case 6:
        return DIFF_RW - (r >> 8) % (size + 1);
    case 7: /* into a read-only page */
        return DIFF_EDGE - (r >> 8) % (size + 1);
    case 8: /* over its end */
        return DIFF_RO_END - (r >> 8) % (size + 1);
    case 9: /* the hole in the middle of the address space, from both sides */
        if (code32)
            return DIFF_RW + (r >> 8) % 4096;
        return (r >> 40 & 1 ? 1ull << 47 : ~0ull << 47) - (r >> 8) % (size + 1);
    case 10:
        return code32 ? DIFF_RW + (r >> 8) % 4096 : 0x0000800000000000ull + (r >> 9);
    case 11:
    case 12:
    case 13:
    case 14:
        return DIFF_RW + 0x400 + (r >> 8) % 0x1800;
    default:
        return (DIFF_RW + 0x400 + (r >> 8) % 0x1800) & ~(uint64_t)63;
    }
}

uint8_t *diff_byte(uint8_t *memory, uint64_t va, unsigned size)
{
    if (va >= DIFF_RW && va + size <= DIFF_RW_END)
        return memory + (va - DIFF_RW);
    if (va >= DIFF_EDGE - 4096 && va + size <= DIFF_EDGE)
        return memory + 8192 + (va - (DIFF_EDGE - 4096));
    return NULL;
}

static bool is_locked(const struct soft_x *x)
{
    return (x->in.attributes & ZYDIS_ATTRIB_HAS_LOCK) || x->in.mnemonic == ZYDIS_MNEMONIC_XCHG;
}

/* BT, BTS, BTR, BTC mem, reg */
static bool is_bit_string(const struct soft_x *x)
{
    return x->mem >= 0 && x->op[1].type == ZYDIS_OPERAND_TYPE_REGISTER &&
           x->in.mnemonic >= ZYDIS_MNEMONIC_BT && x->in.mnemonic <= ZYDIS_MNEMONIC_BTS;
}

struct solver {
    const struct soft_x *x;
    struct diff_state *s;
    uint8_t *memory;
    uint32_t fixed; /* registers that addresses are made of */
    uint64_t ea;    /* of the explicit operand */
    bool code32;
};

static bool is_fixed(const struct solver *sv, int g)
{
    return g >= 0 && (sv->fixed >> (g & 15) & 1);
}

static void set_gpr(struct solver *sv, int g, uint64_t value)
{
    sv->s->gpr[g & 15] = value;
}

static uint64_t segment_base(struct solver *sv, ZydisRegister seg)
{
    const uint64_t sel = seg >= ZYDIS_REGISTER_ES && seg <= ZYDIS_REGISTER_GS
                             ? sv->s->sel[seg - ZYDIS_REGISTER_ES]
                             : 0;

    if (!sv->code32)
        return seg == ZYDIS_REGISTER_FS   ? sv->s->fs_base
               : seg == ZYDIS_REGISTER_GS ? sv->s->gs_base
                                          : 0;
    return sel == SEL_TLS0   ? DIFF_FS32
           : sel == SEL_TLS1 ? DIFF_GS32
           : sel == SEL_TLS2 ? DIFF_DS32
                             : 0;
}

static uint64_t inverse(uint64_t odd)
{
    uint64_t r = odd;

    for (unsigned i = 0; i < 6; i++)
        r *= 2 - odd * r;
    return r;
}

/* Gives the base of FS or GS such that offset is at va. False: no base does. */
static bool move_base(struct solver *sv, ZydisRegister seg, uint64_t va, uint64_t offset)
{
    const uint64_t base = va - offset;

    if (sv->code32 || (seg != ZYDIS_REGISTER_FS && seg != ZYDIS_REGISTER_GS))
        return false;
    if ((uint64_t)((int64_t)(base << 16) >> 16) != base)
        return false;
    *(seg == ZYDIS_REGISTER_FS ? &sv->s->fs_base : &sv->s->gs_base) = base;
    return true;
}

/* The stack's own address has the stack's size, whatever prefixes say. */
static unsigned address_width(const struct solver *sv, const ZydisDecodedOperand *o)
{
    if (o->visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN && soft_gpr(o->mem.base) == HSK_RSP)
        return sv->code32 ? 32 : 64;
    return sv->x->in.address_width;
}

/* Chooses base and index registers so that the operand is at va. */
static void solve(struct solver *sv, const ZydisDecodedOperand *o, uint64_t va)
{
    const ZydisDecodedOperandMem *m = &o->mem;
    const unsigned width = address_width(sv, o);
    const uint64_t mask = width == 64 ? ~0ull : (1ull << width) - 1,
                   scale = m->scale ? m->scale : 1;
    const int base = soft_gpr(m->base),
              index = m->type == ZYDIS_MEMOP_TYPE_VSIB ? -1 : soft_gpr(m->index);
    const uint64_t disp = m->disp.has_displacement ? (uint64_t)m->disp.value : 0;
    uint64_t off, low;

    if (m->base == ZYDIS_REGISTER_RIP || m->base == ZYDIS_REGISTER_EIP) {
        move_base(sv, m->segment, va, (disp + sv->x->next) & mask);
        return;
    }
    if (base < 0 && index < 0) {
        move_base(sv, m->segment, va, disp & mask);
        return;
    }
    if (width != 64)
        move_base(sv, m->segment, va, (off = diff_random() & mask));
    off = va - segment_base(sv, m->segment);
    off -= disp;
    if (m->index == ZYDIS_REGISTER_AL) {
        low = off - (sv->s->gpr[HSK_RAX] & 0xff);
        set_gpr(sv, base, (low & mask) | (diff_random() & ~mask));
    } else if (base == index) {
        low = scale == 1 ? off >> 1 : off * inverse(1 + scale);
        set_gpr(sv, base, (low & mask) | (diff_random() & ~mask));
    } else if (base >= 0 && !is_fixed(sv, base)) {
        low = off - (index >= 0 ? sv->s->gpr[index] * scale : 0);
        set_gpr(sv, base, (low & mask) | (diff_random() & ~mask));
    } else if (index >= 0 && !is_fixed(sv, index)) {
        low = (off - (base >= 0 ? sv->s->gpr[base] : 0)) / scale;
        set_gpr(sv, index, (low & mask) | (diff_random() & ~mask));
    }
    sv->fixed |= (base >= 0 ? 1u << base : 0) | (index >= 0 ? 1u << index : 0);
}

static uint64_t where_is(struct solver *sv, const ZydisDecodedOperand *o)
{
    const ZydisDecodedOperandMem *m = &o->mem;
    const unsigned width = address_width(sv, o);
    const uint64_t mask = width == 64 ? ~0ull : (1ull << width) - 1;
    const int base = soft_gpr(m->base),
              index = m->type == ZYDIS_MEMOP_TYPE_VSIB ? -1 : soft_gpr(m->index);
    uint64_t off = m->disp.has_displacement ? (uint64_t)m->disp.value : 0, va;

    if (m->base == ZYDIS_REGISTER_RIP || m->base == ZYDIS_REGISTER_EIP)
        off += sv->x->next;
    else if (base >= 0)
        off += sv->s->gpr[base];
    if (index >= 0)
        off += (m->index == ZYDIS_REGISTER_AL ? sv->s->gpr[0] & 0xff : sv->s->gpr[index]) *
               (m->scale ? m->scale : 1);
    va = segment_base(sv, m->segment) + (off & mask);
    return sv->code32 ? va & UINT32_MAX : va;
}

/* --- instructions whose operands have a meaning --- */

static uint64_t way_out(const struct solver *sv)
{
    return sv->s->rip - DIFF_AT + diff_out_at[diff_random() & 1];
}

static uint16_t selector(void)
{
    static const uint16_t some[] = {0,          3,           SEL_USER_DS, 0x2a,   0x28,
                                    SEL_USER32, SEL_USER64,  0x10,        0x18,   SEL_TLS0,
                                    SEL_TLS1,   SEL_TLS2,    0x80,        0xfff8, 0x2f,
                                    0x07,       SEL_USER_DS, SEL_USER_DS};

    return some[diff_random() % G_N_ELEMENTS(some)];
}

static uint16_t code_selector(const struct solver *sv)
{
    /* never the other code size: the way out is not made for it */
    static const uint16_t bad[] = {0, 3, SEL_USER_DS, 0x10, 0x18, 0x80, 0xfff8, 0x2f};

    return one_in(4)    ? bad[diff_random() % G_N_ELEMENTS(bad)]
           : sv->code32 ? SEL_USER32
                        : SEL_USER64;
}

static void put_n(uint8_t *p, unsigned size, uint64_t value)
{
    if (!p)
        return;
    for (unsigned i = 0; i < size; i++)
        p[i] = (uint8_t)(value >> 8 * i);
}

static uint64_t some_flags(void)
{
    return (diff_random() & (SOFT_ARITH | HSK_FLAG_DF | HSK_FLAG_ID)) | 0x202;
}

/* Bytes that are read, but that are not ours to choose: the read-only page. */
static bool foreign_bytes(uint64_t va, unsigned size)
{
    return va + size > DIFF_EDGE && va < DIFF_RO_END;
}

/* What RET, far RET and IRET find on the stack. */
static bool frame(struct solver *sv)
{
    const unsigned size = sv->x->in.operand_width / 8;
    const uint64_t sp = sv->code32 ? sv->s->gpr[HSK_RSP] & UINT32_MAX : sv->s->gpr[HSK_RSP];
    const bool iret =
        sv->x->in.meta.category == ZYDIS_CATEGORY_RET && sv->x->in.mnemonic != ZYDIS_MNEMONIC_RET;
    const uint64_t words[5] = {way_out(sv), code_selector(sv), iret ? some_flags() : sp + 64,
                               one_in(8) ? value64() : sp + 8 * (diff_random() % 8),
                               one_in(8) ? selector() : SEL_USER_DS};

    for (unsigned i = 0; i < 5; i++)
        put_n(diff_byte(sv->memory, sp + i * size, size), size, words[i]);
    return !foreign_bytes(sp, 5 * size);
}

static void xsave_area(struct solver *sv)
{
    uint8_t *p = diff_byte(sv->memory, sv->ea, 832);

    sv->s->gpr[HSK_RAX] = is_fixed(sv, HSK_RAX)
                              ? sv->s->gpr[HSK_RAX]
                              : (sv->s->gpr[HSK_RAX] & ~0xffffffffull) | (diff_random() & 7);
    if (!p || one_in(5))
        return;
    hsk_put32(p + HSK_XSAVE_MXCSR, (uint32_t)(one_in(8) ? diff_random() : diff_random() & 0xffff));
    memset(p + HSK_XSAVE_HEADER, 0, 64);
    hsk_put64(p + HSK_XSAVE_HEADER, diff_random() & (one_in(8) ? 15 : 7));
    if (one_in(4))
        hsk_put64(p + HSK_XSAVE_HEADER + 8, 1ull << 63 | (diff_random() & 7));
}

/* So that compare-and-exchange does succeed now and then. */
static void make_equal(struct solver *sv)
{
    const unsigned size = sv->x->op[0].size / 8;
    const uint8_t *p = sv->x->mem >= 0 ? diff_byte(sv->memory, sv->ea, size) : NULL;

    if (!one_in(2) || is_fixed(sv, HSK_RAX))
        return;
    if (!p) {
        const int g = soft_gpr(sv->x->op[0].reg.value);

        if (sv->x->mem < 0 && g >= 0)
            sv->s->gpr[HSK_RAX] = g >= 16 ? sv->s->gpr[g & 3] >> 8 : sv->s->gpr[g];
        return;
    }
    if (size == 16 && !is_fixed(sv, HSK_RDX)) {
        sv->s->gpr[HSK_RAX] = hsk_get64(p);
        sv->s->gpr[HSK_RDX] = hsk_get64(p + 8);
    } else if (sv->x->in.mnemonic == ZYDIS_MNEMONIC_CMPXCHG8B && !is_fixed(sv, HSK_RDX)) {
        sv->s->gpr[HSK_RAX] = hsk_get32(p) | diff_random() << 32;
        sv->s->gpr[HSK_RDX] = hsk_get32(p + 4) | diff_random() << 32;
    } else {
        for (unsigned i = 0; i < size && i < 8; i++)
            sv->s->gpr[HSK_RAX] = (sv->s->gpr[HSK_RAX] & ~(0xffull << 8 * i)) | (uint64_t)p[i]
                                                                                    << 8 * i;
    }
}

static void set_operand(struct solver *sv, unsigned i, uint64_t value, unsigned size)
{
    const ZydisDecodedOperand *o = &sv->x->op[i];
    const int g = o->type == ZYDIS_OPERAND_TYPE_REGISTER ? soft_gpr(o->reg.value) : -1;

    if (g >= 0 && g < 16 && !is_fixed(sv, g))
        sv->s->gpr[g] = (sv->s->gpr[g] & (size == 8 ? 0 : ~((1ull << 8 * size) - 1))) |
                        (size == 8 ? value : value & ((1ull << 8 * size) - 1));
    else if (o->type == ZYDIS_OPERAND_TYPE_MEMORY)
        put_n(diff_byte(sv->memory, sv->ea, size), size, value);
}

/* False: it would go to bytes that are no code. */
static bool branch_operands(struct solver *sv)
{
    const struct soft_x *x = sv->x;
    const unsigned size = x->in.operand_width / 8;

    if (x->mem >= 0 && foreign_bytes(sv->ea, size + 2))
        return false;
    if (x->in.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR) {
        if (x->mem >= 0) {
            set_operand(sv, (unsigned)x->mem, way_out(sv), size);
            put_n(diff_byte(sv->memory, sv->ea + size, 2), 2, code_selector(sv));
        }
    } else if (x->op[0].type != ZYDIS_OPERAND_TYPE_IMMEDIATE) {
        const uint64_t to = way_out(sv);
        const int g = soft_gpr(x->op[0].reg.value);

        set_operand(sv, 0, to, sv->code32 ? 4 : 8);
        return x->mem >= 0 || sv->s->gpr[g & 15] == to;
    }
    return true;
}

/* False: the bit number is an address, too. */
static bool bit_number(struct solver *sv)
{
    const int g = soft_gpr(sv->x->op[1].reg.value);
    const uint64_t mask = sv->x->in.operand_width == 64 ? 0 : ~0ull << sv->x->in.operand_width;

    if (is_fixed(sv, g))
        return false;
    sv->s->gpr[g] = (diff_random() & mask) | ((diff_random() % 8192 - 4096) & ~mask);
    return true;
}

static void count(struct solver *sv)
{
    static const uint64_t few[] = {0, 1, 2, 3, 0x10000, 0x100000000, 0x100000001};

    if (!is_fixed(sv, HSK_RCX))
        sv->s->gpr[HSK_RCX] = few[diff_random() % G_N_ELEMENTS(few)];
}

static void divide(struct solver *sv)
{
    if (one_in(4) || is_fixed(sv, HSK_RDX))
        return;
    sv->s->gpr[HSK_RDX] = one_in(2) ? 0 : sv->s->gpr[HSK_RAX] >> 63 ? ~0ull : diff_random() & 0xff;
    if (sv->x->in.operand_width == 8)
        sv->s->gpr[HSK_RAX] &= ~0xc000ull;
}

/* No single steps and alignment checks: they would go on behind the instruction. */
static bool flags_image(struct solver *sv)
{
    const unsigned size = sv->x->in.operand_width / 8;
    const uint64_t sp = sv->code32 ? sv->s->gpr[HSK_RSP] & UINT32_MAX : sv->s->gpr[HSK_RSP];

    put_n(diff_byte(sv->memory, sp, size), size, some_flags() | (diff_random() & 0x37a28));
    return diff_byte(sv->memory, sp, size) || sp + size <= DIFF_EDGE - 4096 || sp >= DIFF_RO_END;
}

static bool meanings(struct solver *sv)
{
    const struct soft_x *x = sv->x;
    struct diff_state *s = sv->s;

    switch (x->in.mnemonic) {
    case ZYDIS_MNEMONIC_BT:
    case ZYDIS_MNEMONIC_BTS:
    case ZYDIS_MNEMONIC_BTR:
    case ZYDIS_MNEMONIC_BTC:
        return !is_bit_string(x) || bit_number(sv);
    case ZYDIS_MNEMONIC_DIV:
    case ZYDIS_MNEMONIC_IDIV:
        divide(sv);
        break;
    case ZYDIS_MNEMONIC_LOOP:
    case ZYDIS_MNEMONIC_LOOPE:
    case ZYDIS_MNEMONIC_LOOPNE:
    case ZYDIS_MNEMONIC_JCXZ:
    case ZYDIS_MNEMONIC_JECXZ:
    case ZYDIS_MNEMONIC_JRCXZ:
        count(sv);
        break;
    case ZYDIS_MNEMONIC_CMPXCHG:
    case ZYDIS_MNEMONIC_CMPXCHG8B:
    case ZYDIS_MNEMONIC_CMPXCHG16B:
        make_equal(sv);
        break;
    case ZYDIS_MNEMONIC_XSAVE:
    case ZYDIS_MNEMONIC_XSAVE64:
    case ZYDIS_MNEMONIC_XSAVEC:
    case ZYDIS_MNEMONIC_XSAVEC64:
    case ZYDIS_MNEMONIC_XSAVEOPT:
    case ZYDIS_MNEMONIC_XSAVEOPT64:
    case ZYDIS_MNEMONIC_XRSTOR:
    case ZYDIS_MNEMONIC_XRSTOR64:
        xsave_area(sv);
        return (s->gpr[HSK_RAX] & 0xffffffff) < 8;
    case ZYDIS_MNEMONIC_FXRSTOR:
    case ZYDIS_MNEMONIC_FXRSTOR64:
        if (!one_in(8))
            put_n(diff_byte(sv->memory, sv->ea + HSK_XSAVE_MXCSR, 4), 4, diff_random() & 0xffff);
        break;
    case ZYDIS_MNEMONIC_LDMXCSR:
    case ZYDIS_MNEMONIC_VLDMXCSR:
        if (!one_in(4))
            put_n(diff_byte(sv->memory, sv->ea, 4), 4, diff_random() & 0xffff);
        break;
    case ZYDIS_MNEMONIC_POPF:
    case ZYDIS_MNEMONIC_POPFD:
    case ZYDIS_MNEMONIC_POPFQ:
        return flags_image(sv);
    case ZYDIS_MNEMONIC_RET:
    case ZYDIS_MNEMONIC_IRET:
    case ZYDIS_MNEMONIC_IRETD:
    case ZYDIS_MNEMONIC_IRETQ:
        return frame(sv);
    case ZYDIS_MNEMONIC_CALL:
    case ZYDIS_MNEMONIC_JMP:
        return branch_operands(sv);
    case ZYDIS_MNEMONIC_MOV:
        if (x->op[0].type == ZYDIS_OPERAND_TYPE_REGISTER && soft_gpr(x->op[0].reg.value) < 0) {
            set_operand(sv, 1, selector(), 2);
            return x->mem < 0 || !foreign_bytes(sv->ea, 2);
        }
        break;
    case ZYDIS_MNEMONIC_POP:
        if (x->op[0].type == ZYDIS_OPERAND_TYPE_REGISTER && soft_gpr(x->op[0].reg.value) < 0) {
            const uint64_t sp = sv->code32 ? s->gpr[HSK_RSP] & UINT32_MAX : s->gpr[HSK_RSP];

            put_n(diff_byte(sv->memory, sp, 2), 2, selector());
            return !foreign_bytes(sp, 2);
        }
        break;
    case ZYDIS_MNEMONIC_LDS:
    case ZYDIS_MNEMONIC_LES:
    case ZYDIS_MNEMONIC_LFS:
    case ZYDIS_MNEMONIC_LGS:
    case ZYDIS_MNEMONIC_LSS:
        put_n(diff_byte(sv->memory, sv->ea + x->in.operand_width / 8, 2), 2, selector());
        return !foreign_bytes(sv->ea, x->in.operand_width / 8 + 2);
    case ZYDIS_MNEMONIC_LAR:
    case ZYDIS_MNEMONIC_LSL:
        set_operand(sv, 1, selector(), 2);
        return x->mem < 0 || !foreign_bytes(sv->ea, 2);
    case ZYDIS_MNEMONIC_VERR:
    case ZYDIS_MNEMONIC_VERW:
        set_operand(sv, 0, selector(), 2);
        return x->mem < 0 || !foreign_bytes(sv->ea, 2);
    case ZYDIS_MNEMONIC_WRFSBASE:
    case ZYDIS_MNEMONIC_WRGSBASE:
        if (!one_in(3))
            set_operand(sv, 0, (uint64_t)((int64_t)diff_random() >> 17), 8);
        break;
    default:
        if (x->in.attributes &
            (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE | ZYDIS_ATTRIB_HAS_REPNE))
            if (!is_fixed(sv, HSK_RCX) && x->kind == SOFT_X_STRING)
                s->gpr[HSK_RCX] =
                    diff_random() % 24 | (x->in.address_width == 64 ? 0 : diff_random() << 32);
        break;
    }
    return true;
}

static void small_indices(struct solver *sv, ZydisRegister r)
{
    const unsigned n = (unsigned)ZydisRegisterGetId(r);

    for (unsigned i = 0; i < 32; i += 8) {
        uint8_t *p =
            sv->s->xsave + (i < 16 ? HSK_XSAVE_XMM0 + 16 * n + i : HSK_XSAVE_YMM + 16 * n + i - 16);
        const uint64_t v = diff_random();

        if (v & 1) /* two of 32 bits, or one of 64 */
            hsk_put64(p, (uint64_t)(uint32_t)((int32_t)(v >> 8) >> 24) |
                             (v & 2 ? 0 : (uint64_t)((int32_t)v >> 24) << 32));
        else
            hsk_put64(p, (uint64_t)((int64_t)v >> 56));
    }
}

/* Or outside of the guest's memory altogether: that faults. */
static bool is_compared(uint64_t va)
{
    return va + 0x10000 < GUEST_VA || va >= GUEST_VA + GUEST_SIZE ||
           (va >= DIFF_BASE && va <= DIFF_RO_END + 64);
}

/* No operand in memory of the guest that is neither set up nor compared. */
static bool reachable(struct solver *sv)
{
    for (unsigned i = 0; i < sv->x->in.operand_count; i++) {
        const ZydisDecodedOperand *o = &sv->x->op[i];
        uint64_t va;

        if (o->type != ZYDIS_OPERAND_TYPE_MEMORY)
            continue;
        va = where_is(sv, o);
        if (!is_compared(va))
            return false;
    }
    return true;
}

/* The memory operand; of a bit string, where the bit is. */
static uint64_t accessed_address(const struct solver *sv)
{
    const struct soft_x *x = sv->x;
    const unsigned size = x->op[x->mem].size / 8, shift = 64 - 8 * size;
    int64_t bit;

    if (!is_bit_string(x))
        return sv->ea;
    bit = (int64_t)(sv->s->gpr[soft_gpr(x->op[1].reg.value) & 15] << shift) >> shift;
    return sv->ea + ((uint64_t)(bit >> 3) & ~(uint64_t)(size - 1));
}

/* Linux puts a process to sleep for 10 ms when a locked access crosses a cache line: that must stay
 * rare. */
static bool splits_line(const struct solver *sv)
{
    static unsigned n;

    if (!is_locked(sv->x) || sv->x->mem < 0)
        return false;
    return accessed_address(sv) % 64 + sv->x->op[sv->x->mem].size / 8 > 64 && ++n % 1024;
}

/* A bit string may begin in the compared memory and have the bit beside it. */
static bool bit_reachable(const struct solver *sv)
{
    return !is_bit_string(sv->x) ||
           is_compared(sv->code32 ? accessed_address(sv) & UINT32_MAX : accessed_address(sv));
}

bool diff_registers(const struct soft_x *x, struct diff_state *s, uint8_t *memory)
{
    struct solver sv = {.x = x,
                        .s = s,
                        .memory = memory,
                        .code32 = x->in.machine_mode != ZYDIS_MACHINE_MODE_LONG_64};

    for (unsigned i = 0; i < 16; i++)
        s->gpr[i] = value64();
    s->gpr[HSK_RSP] = DIFF_RW + 0x1800 + 8 * (diff_random() % 32);
    s->rflags = (diff_random() & SOFT_ARITH) | 0x202 | (one_in(4) ? HSK_FLAG_DF : 0) |
                (one_in(8) ? HSK_FLAG_AC : 0);
    for (unsigned i = 0; i < 6; i++)
        s->sel[i] = SEL_USER_DS;
    s->sel[HSK_CS] = sv.code32 ? SEL_USER32 : SEL_USER64;
    s->sel[HSK_FS] = sv.code32 ? SEL_TLS0 : 0;
    s->sel[HSK_GS] = sv.code32 ? SEL_TLS1 : 0;
    if (sv.code32 && one_in(4))
        s->sel[HSK_DS] = s->sel[HSK_ES] = SEL_TLS2;
    s->fs_base = sv.code32   ? 0
                 : one_in(2) ? diff_random() & 0xffff
                             : (uint64_t)((int64_t)diff_random() >> 17);
    s->gs_base = sv.code32   ? 0
                 : one_in(2) ? diff_random() & 0xffff
                             : (uint64_t)((int64_t)diff_random() >> 17);
    fpu(s);
    for (unsigned i = 0; i < x->in.operand_count; i++) {
        const ZydisDecodedOperand *o = &x->op[i];

        if (o->type != ZYDIS_OPERAND_TYPE_MEMORY || is_fixed(&sv, soft_gpr(o->mem.base)))
            continue;
        solve(&sv, o,
              is_locked(x) && o->size <= 512 ? locked_target(MAX(o->size / 8u, 1))
                                             : target(o->size / 8u, sv.code32));
        if (o->mem.type == ZYDIS_MEMOP_TYPE_VSIB)
            small_indices(&sv, o->mem.index);
    }
    if (x->in.mnemonic == ZYDIS_MNEMONIC_ENTER) {
        /* Whose frames must not overlap: the host may have to bring in the page of the new stack
         * pointer, and then it begins again with what it wrote before. */
        s->gpr[HSK_RBP] = DIFF_RW + 0x1000 + diff_random() % 512;
        if (s->gpr[HSK_RSP] + 1024 > s->gpr[HSK_RBP] && s->gpr[HSK_RSP] < s->gpr[HSK_RBP] + 1024)
            return false;
    }
    if (x->mem >= 0)
        sv.ea = where_is(&sv, &x->op[x->mem]);
    s->ea = sv.ea;
    if (sv.code32)
        for (unsigned i = 0; i < 8; i++)
            s->gpr[i] &= UINT32_MAX;
    return reachable(&sv) && meanings(&sv) && bit_reachable(&sv) && !splits_line(&sv);
}

/* --- what is fixed by the bytes --- */

static void put_field(uint8_t *bytes, unsigned offset, unsigned bits, uint64_t value)
{
    for (unsigned i = 0; i < bits / 8; i++)
        bytes[offset + i] = (uint8_t)(value >> 8 * i);
}

bool diff_place(const struct soft_x *x, uint8_t *bytes, uint64_t pc)
{
    const bool code32 = x->in.machine_mode != ZYDIS_MACHINE_MODE_LONG_64;
    const uint64_t next = pc + x->in.length, out = pc - DIFF_AT + diff_out_at[diff_random() & 1];
    bool changed = false;

    for (unsigned i = 0; i < 2; i++)
        if (x->in.raw.imm[i].is_relative) {
            put_field(bytes, x->in.raw.imm[i].offset, x->in.raw.imm[i].size, out - next);
            changed = true;
        }
    if (x->op[0].type == ZYDIS_OPERAND_TYPE_POINTER) {
        put_field(bytes, x->in.length - 2u, 16, one_in(4) ? selector() & ~0x10u : SEL_USER32);
        put_field(bytes, x->in.length - 2u - x->in.operand_width / 8u, x->in.operand_width, out);
        changed = true;
    }
    if (x->in.mnemonic == ZYDIS_MNEMONIC_INT && bytes[x->in.length - 1] == 0x80) {
        bytes[x->in.length - 1] = 0x81;
        changed = true;
    }
    if (x->mem >= 0 && x->in.raw.disp.size) {
        const ZydisDecodedOperand *o = &x->op[x->mem];
        const bool rip = o->mem.base == ZYDIS_REGISTER_RIP || o->mem.base == ZYDIS_REGISTER_EIP;

        if (rip || (soft_gpr(o->mem.base) < 0 && soft_gpr(o->mem.index) < 0)) {
            uint64_t va =
                is_locked(x) ? locked_target(MAX(o->size / 8u, 1)) : target(o->size / 8u, true);

            if (code32)
                va -= o->mem.segment == ZYDIS_REGISTER_FS   ? DIFF_FS32
                      : o->mem.segment == ZYDIS_REGISTER_GS ? DIFF_GS32
                                                            : 0;
            put_field(bytes, x->in.raw.disp.offset, x->in.raw.disp.size, rip ? va - next : va);
            changed = true;
        }
    }
    return changed;
}
