/* SPDX-License-Identifier: MIT */
/* For the programs that compare single instructions with the processor: what is undefined, and how
 * a difference is told. */
#pragma once

#include <vmm/cpu_bits.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include "engine-soft/xlate.h"

#include <cmocka.h>

static inline uint32_t insn_undefined_flags(const struct soft_x *x)
{
    uint32_t u = x->in.cpu_flags ? x->in.cpu_flags->undefined : 0;

    switch (x->in.mnemonic) { /* depends on the count */
    case ZYDIS_MNEMONIC_SHL:
    case ZYDIS_MNEMONIC_SHR:
    case ZYDIS_MNEMONIC_SAR:
    case ZYDIS_MNEMONIC_SHLD:
    case ZYDIS_MNEMONIC_SHRD:
    case ZYDIS_MNEMONIC_ROL:
    case ZYDIS_MNEMONIC_ROR:
    case ZYDIS_MNEMONIC_RCL:
    case ZYDIS_MNEMONIC_RCR:
        return u | HSK_FLAG_OF | HSK_FLAG_AF;
    default:
        return u;
    }
}

/* Returns 1, the number of differences. */
static inline int insn_show(const struct soft_x *x, uint64_t seed, const char *what, uint64_t want,
                            uint64_t got)
{
    char text[128] = "?";
    ZydisFormatter f;

    ZydisFormatterInit(&f, ZYDIS_FORMATTER_STYLE_INTEL);
    ZydisFormatterFormatInstruction(&f, &x->in, x->op, x->in.operand_count_visible, text,
                                    sizeof text, x->pc, NULL);
    print_error("seed %lu: %s [", seed, text);
    for (unsigned i = 0; i < x->in.length; i++)
        print_error("%02x ", x->raw[i]);
    print_error("]: %s: native %lx, translated %lx\n", what, want, got);
    return 1;
}
