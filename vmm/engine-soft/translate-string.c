/* SPDX-License-Identifier: MIT */
/*
 * REP MOVS and REP STOS of 64-bit code that go upwards and stay inside one page of source and
 * destination: the TLB is asked for the first and the last byte, then the host does the same.
 * Kernels fill and copy small structures in this way all the time. Everything else (string.c):
 * other pages, device memory, DF, other string instructions. vCPU thread.
 */
#include <vmm/cpu_bits.h>

#include "translate.h"

#define MAX_SLOW 4

/* DF is set, or it is more than a page holds (then the address of the last byte could wrap). */
static unsigned check_shape(struct tx *t, unsigned scale, uint8_t *slow[])
{
    struct emit *e = &t->e;

    e8(e, 0x65); /* test byte gs:[rflags + 1], DF >> 8 */
    e8(e, 0xf6);
    e_modrm_mem(e, 0, -1, -1, 0, (int32_t)TX_OFF(rflags) + 1);
    e8(e, HSK_FLAG_DF >> 8);
    slow[0] = e_jcc_fwd(e, 5);
    e_alui(e, 1, 7, H_GRCX, (int32_t)(HSK_PAGE_SIZE >> scale));
    slow[1] = e_jcc_fwd(e, 7);
    return 2;
}

/* C = source, T = destination: host addresses. */
static void run(struct tx *t, bool moves, unsigned scale)
{
    struct emit *e = &t->e;

    e_mov(e, H_U, H_RDI);
    e_mov(e, H_RDI, H_T);
    if (moves) {
        e_st_gs(e, H_RSI, TX_SCRATCH(2));
        e_mov(e, H_RSI, H_C);
    }
    e_mov(e, H_C, H_GRCX);
    e8(e, 0xf3);
    e_rex(e, scale == 3, 0, 0, 0);
    e8(e, (moves ? 0xa4u : 0xaau) + (scale != 0));
    if (moves) {
        e_ld_gs(e, H_RSI, TX_SCRATCH(2));
        e_lea(e, 1, H_RSI, H_RSI, H_GRCX, (int)scale, 0);
    }
    e_lea(e, 1, H_RDI, H_U, H_GRCX, (int)scale, 0);
    e_movi(e, H_GRCX, 0);
}

void tx_string(struct tx *t)
{
    const ZydisDecodedInstruction *in = &t->x->in;
    const bool moves = in->opcode == 0xa4 || in->opcode == 0xa5,
               stores = in->opcode == 0xaa || in->opcode == 0xab;
    const unsigned bytes = in->opcode & 1 ? in->operand_width / 8u : 1, scale = bytes == 8   ? 3
                                                                                : bytes == 4 ? 2
                                                                                             : 0;
    struct emit *e = &t->e;
    uint8_t *slow[MAX_SLOW], *done;
    unsigned n;

    if (t->code32 || (t->mode & (SOFT_MODE_SINGLE | SOFT_MODE_CHECKED)) ||
        in->address_width != 64 || bytes == 2 || !(moves || stores) ||
        !(in->attributes & ZYDIS_ATTRIB_HAS_REP) ||
        (in->attributes & (ZYDIS_ATTRIB_HAS_SEGMENT_FS | ZYDIS_ATTRIB_HAS_SEGMENT_GS))) {
        tx_call_insn(t, (const void *)(uintptr_t)soft_call_string);
        return;
    }
    if (t->x->live)
        tx_flags_save(e);
    n = check_shape(t, scale, slow);
    if (moves)
        slow[n++] = tx_check_span(t, H_RSI, scale, SOFT_ACCESS_READ, H_C);
    slow[n++] = tx_check_span(t, H_RDI, scale, SOFT_ACCESS_WRITE, H_T);
    run(t, moves, scale);
    if (t->x->live)
        tx_flags_restore(e);
    done = e_jmp_fwd(e);
    while (n)
        e_resolve(slow[--n], e);
    if (t->x->live)
        tx_flags_restore(e);
    tx_call_insn(t, (const void *)(uintptr_t)soft_call_string);
    e_resolve(done, e);
}
