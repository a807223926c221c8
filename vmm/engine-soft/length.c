/* SPDX-License-Identifier: MIT */
/*
 * The length of an encoding by the opcode maps alone (SDM vol. 2, 2.1 and appendix A), for bytes
 * that are no instruction: a processor finds the length first, so too long an encoding is #GP and
 * one that reaches into a missing page #PF, before the opcode is #UD. Undefined opcodes have the
 * form of their neighbours, as measured on Intel processors: 0F 39, 3C and 3D go on like 0F 38, and
 * 0F 3B, 3E and 3F like 0F 3A; a VEX or EVEX map of 0 ends the encoding. Any thread.
 */
#include "xlate.h"

struct cursor {
    const uint8_t *bytes;
    unsigned at, n; /* at > n: it needs more than there are */
    bool op16, addr16, addr32, code64, w;
};

static unsigned next(struct cursor *c)
{
    return c->at++ < c->n ? c->bytes[c->at - 1] : 0;
}

/* Up to the opcode's first byte. */
static unsigned prefixes(struct cursor *c)
{
    const bool op16 = c->op16, addr16 = c->addr16;

    for (;;) {
        const unsigned b = next(c);

        switch (b) {
        case 0x66:
            c->op16 = !op16;
            break;
        case 0x67:
            c->addr16 = !c->code64 && !addr16;
            c->addr32 = !c->addr16;
            break;
        case 0x26:
        case 0x2e:
        case 0x36:
        case 0x3e:
        case 0x64:
        case 0x65:
        case 0xf0:
        case 0xf2:
        case 0xf3:
            break;
        default:
            if (!c->code64 || (b & 0xf0) != 0x40)
                return b;
            c->w = b & 8;
            continue;
        }
        c->w = false; /* a REX prefix counts only as the last one */
    }
}

static unsigned modrm(struct cursor *c)
{
    const unsigned m = next(c), mod = m >> 6, rm = m & 7;

    if (mod == 3)
        return m;
    if (c->addr16)
        c->at += mod == 0 ? (rm == 6 ? 2 : 0) : mod;
    else {
        const unsigned base = rm == 4 ? next(c) & 7 : rm;

        c->at += mod == 0 ? (base == 5 ? 4 : 0) : mod == 1 ? 1 : 4;
    }
    return m;
}

static unsigned imm_z(const struct cursor *c)
{
    return c->op16 && !c->w ? 2 : 4;
}

static void map_0f(struct cursor *c, unsigned op)
{
    switch (op) {
    case 0x04 ... 0x0c:
    case 0x0e:
    case 0x0f:
    case 0x24 ... 0x27:
    case 0x30 ... 0x3f:
    case 0x77:
    case 0xa0 ... 0xa2:
    case 0xa8 ... 0xaa:
    case 0xc8 ... 0xcf:
        return;
    case 0x20 ... 0x23: /* registers, whatever modrm.mod says */
        next(c);
        return;
    case 0x80 ... 0x8f:
        c->at += c->code64 ? 4 : imm_z(c);
        return;
    case 0x70 ... 0x73:
    case 0xa4:
    case 0xac:
    case 0xba:
    case 0xc2:
    case 0xc4 ... 0xc6:
        modrm(c);
        c->at++;
        return;
    default:
        modrm(c);
    }
}

/* 1: 0F, 2: 0F 38, 3: 0F 3A. */
static void map_of(struct cursor *c, unsigned map)
{
    const unsigned op = next(c);

    if (map == 1) {
        map_0f(c, op);
        return;
    }
    modrm(c);
    c->at += map == 3;
}

static void escape(struct cursor *c)
{
    const unsigned op = next(c);

    switch (op) {
    case 0x38:
    case 0x39:
    case 0x3c:
    case 0x3d:
        map_of(c, 2);
        break;
    case 0x3a:
    case 0x3b:
    case 0x3e:
    case 0x3f:
        map_of(c, 3);
        break;
    default:
        map_0f(c, op);
    }
}

/* Of VEX (C4, C5) and EVEX (62), or false: it is LES, LDS or BOUND. */
static bool vector(struct cursor *c, unsigned op)
{
    const unsigned b = next(c);

    if (!c->code64 && b < 0xc0) {
        c->at--;
        return false;
    }
    if (op != 0xc5 && (b & 3) == 0)
        return true;
    c->at += op == 0xc5 ? 0 : op == 0xc4 ? 1 : 2;
    map_of(c, op == 0xc5 ? 1 : b & 3);
    return true;
}

static unsigned immediate(const struct cursor *c, unsigned op, unsigned m)
{
    if (op < 0x40)
        return (op & 7) == 4 ? 1 : (op & 7) == 5 ? imm_z(c) : 0;
    switch (op) {
    case 0x6a:
    case 0x6b:
    case 0x70 ... 0x80:
    case 0x82:
    case 0x83:
    case 0xa8:
    case 0xb0 ... 0xb7:
    case 0xc0:
    case 0xc1:
    case 0xc6:
    case 0xcd:
    case 0xd4:
    case 0xd5:
    case 0xe0 ... 0xe7:
    case 0xeb:
        return 1;
    case 0x68:
    case 0x69:
    case 0x81:
    case 0xa9:
    case 0xc7:
        return imm_z(c);
    case 0xe8:
    case 0xe9:
        return c->code64 ? 4 : imm_z(c);
    case 0xb8 ... 0xbf:
        return c->w ? 8 : imm_z(c);
    case 0x9a:
    case 0xea:
        return imm_z(c) + 2;
    case 0xa0 ... 0xa3: /* an address */
        return c->addr16 ? 2 : c->code64 && !c->addr32 ? 8 : 4;
    case 0xc2:
    case 0xca:
        return 2;
    case 0xc8:
        return 3;
    case 0xf6:
    case 0xf7:
        return m & 0x30 ? 0 : op == 0xf6 ? 1 : imm_z(c);
    default:
        return 0;
    }
}

static bool has_modrm(unsigned op)
{
    if (op < 0x40)
        return (op & 4) == 0;
    switch (op) {
    case 0x62:
    case 0x63:
    case 0x69:
    case 0x6b:
    case 0x80 ... 0x8f:
    case 0xc0:
    case 0xc1:
    case 0xc4 ... 0xc7:
    case 0xd0 ... 0xd3:
    case 0xd8 ... 0xdf:
    case 0xf6:
    case 0xf7:
    case 0xfe:
    case 0xff:
        return true;
    default:
        return false;
    }
}

unsigned soft_length(const uint8_t *bytes, unsigned n, unsigned code_bits)
{
    struct cursor c = {.bytes = bytes,
                       .n = n,
                       .op16 = code_bits == 16,
                       .addr16 = code_bits == 16,
                       .code64 = code_bits == 64};
    unsigned op = prefixes(&c), m = 0;

    if (op == 0x0f) {
        escape(&c);
    } else if ((op != 0x62 && op != 0xc4 && op != 0xc5) || !vector(&c, op)) {
        if (has_modrm(op))
            m = modrm(&c);
        c.at += immediate(&c, op, m);
    }
    return c.at;
}
