/* SPDX-License-Identifier: MIT */
/*
 * The opcode maps (SDM vol. 2, appendix A), enumerated: code size, map, opcode, mandatory prefix,
 * REX.W or VEX.W, VEX.L, modrm.reg (an opcode extension in groups) and register or memory form.
 * What remains of an encoding (registers, SIB, displacements, REX.RXB, vvvv, further prefixes,
 * immediates) is random each time.
 */
#include "differential.h"

bool diff_form(unsigned n, struct diff_form *f)
{
    f->mem = n & 1;
    f->reg = n >> 1 & 7;
    f->l = n >> 4 & 1;
    f->w = n >> 5 & 1;
    f->pfx = n >> 6 & 3;
    f->opcode = (uint8_t)(n >> 8);
    n >>= 16;
    f->space = (uint8_t)(n % NSPACES);
    f->code32 = (uint8_t)(n / NSPACES);
    if (f->space < SPACE_VEX1 && (f->l || (f->w && f->code32)))
        return false;
    if (f->space == SPACE_1)
        switch (f->opcode) {
        case 0x0f:
        case 0x26:
        case 0x2e:
        case 0x36:
        case 0x3e:
        case 0x64:
        case 0x65:
        case 0x66:
        case 0x67:
        case 0xf0:
        case 0xf2:
        case 0xf3:
            return false;
        case 0x62:
        case 0xc4:
        case 0xc5:
            return f->code32 && f->mem; /* BOUND, LES, LDS */
        default:
            return f->code32 || (f->opcode & 0xf0) != 0x40;
        }
    return !(f->space == SPACE_0F && (f->opcode == 0x38 || f->opcode == 0x3a));
}

static unsigned random_prefixes(const struct diff_form *f, uint8_t *b)
{
    static const uint8_t segments[] = {0x64, 0x65, 0x64, 0x65, 0x26, 0x2e, 0x36, 0x3e};
    static const uint8_t legacy[] = {0x66, 0xf2, 0xf3};
    const uint64_t r = diff_random();
    unsigned n = 0;

    if ((r & 7) == 0)
        b[n++] = segments[r >> 3 & 7];
    if ((r >> 6 & 7) == 0)
        b[n++] = 0x67;
    if ((r >> 9 & 15) == 0 && f->mem)
        b[n++] = 0xf0;
    if ((r >> 13 & 63) == 0)
        b[n++] = 0xf0;
    if ((r >> 19 & 15) == 0 && f->space < SPACE_VEX1)
        b[n++] = legacy[(r >> 23) % 3];
    return n;
}

static unsigned vex_bytes(const struct diff_form *f, uint8_t *b)
{
    static const uint8_t pp[4] = {0, 1, 2, 3};
    const uint64_t r = diff_random();
    const uint8_t last =
        (uint8_t)((r & 7 ? r >> 3 & 0x78 : 0x78) | (unsigned)f->l << 2 | pp[f->pfx]);
    const uint8_t rxb = (uint8_t)(f->code32 ? 0xe0 : r >> 8 & 0xe0);

    if (f->space == SPACE_VEX1 && !f->w && (r >> 20 & 1)) {
        b[0] = 0xc5;
        b[1] = (uint8_t)((f->code32 ? 0x80 : rxb & 0x80) | last);
        if (f->code32)
            b[1] |= 0xc0;
        b[2] = f->opcode;
        return 3;
    }
    b[0] = 0xc4;
    b[1] = (uint8_t)(rxb | (f->space - SPACE_VEX1 + 1));
    b[2] = (uint8_t)((unsigned)f->w << 7 | last);
    b[3] = f->opcode;
    return 4;
}

static unsigned opcode_bytes(const struct diff_form *f, uint8_t *b)
{
    static const uint8_t mandatory[4] = {0, 0x66, 0xf3, 0xf2};
    const uint64_t r = diff_random();
    unsigned n = 0;

    if (f->pfx)
        b[n++] = mandatory[f->pfx];
    if (!f->code32 && (f->w || (r & 1)))
        b[n++] = (uint8_t)(0x40 | (unsigned)f->w << 3 | (r >> 1 & 7));
    if (f->space != SPACE_1)
        b[n++] = 0x0f;
    if (f->space == SPACE_0F38 || f->space == SPACE_0F3A)
        b[n++] = f->space == SPACE_0F38 ? 0x38 : 0x3a;
    b[n++] = f->opcode;
    return n;
}

bool diff_form_has_rm(const struct diff_form *f)
{
    if (f->mem)
        return false;
    if (f->space == SPACE_1)
        return (f->opcode & 0xf8) == 0xd8 || f->opcode == 0xc6 || f->opcode == 0xc7;
    return f->space == SPACE_0F &&
           (f->opcode == 0x01 || f->opcode == 0xae || f->opcode == 0xc7 || f->opcode == 0x1e);
}

void diff_bytes(const struct diff_form *f, uint8_t *bytes, int rm)
{
    static const uint8_t corners[] = {0, 1, 0x7f, 0x80, 0xff, 31, 32, 63, 64};
    const uint64_t r = diff_random();
    unsigned n = rm >= 0 ? 0 : random_prefixes(f, bytes), head;

    n += f->space >= SPACE_VEX1 ? vex_bytes(f, bytes + n) : opcode_bytes(f, bytes + n);
    head = n;
    bytes[n++] = (uint8_t)((f->mem ? (r & 3) % 3 << 6 : 0xc0u) | (unsigned)f->reg << 3 |
                           (rm >= 0 ? (unsigned)rm : r >> 2 & 7));
    while (n < 15)
        bytes[n++] = (uint8_t)diff_random();
    if ((r >> 5 & 3) == 0) /* an immediate of one byte behind registers */
        bytes[head + 1] = corners[(r >> 8) % sizeof corners];
}
