/* SPDX-License-Identifier: MIT */
/*
 * Port input and output: IN, OUT, INS, OUTS with the privilege check of SDM vol. 1, 19.5 (IOPL, I/O
 * permission bitmap). String forms go element by element and can be interrupted between elements.
 * Thread: the vCPU's; parks before it calls the bus.
 */
#include <Zydis/Zydis.h>

#include "system.h"

unsigned soft_io_map(struct soft_vcpu *v)
{
    const struct hsk_segment *tr = &v->s.seg[HSK_TR];
    const unsigned type = tr->attr & 0xf;

    if (!(tr->attr & HSK_SEG_P) || (type != 9 && type != 0xb) || tr->limit < 103)
        soft_fault(v, VEC_GP, 0);
    return (unsigned)soft_ld(v, soft_sys_va(v, tr->base + 0x66), 2, soft_sys_mmu(v));
}

static void check_port(struct soft_vcpu *v, unsigned port, unsigned size)
{
    const struct hsk_segment *tr = &v->s.seg[HSK_TR];
    uint64_t map, bits;

    if (!(v->s.cr0 & HSK_CR0_PE) || (v->cpl <= soft_iopl(v) && !(v->rflags & HSK_FLAG_VM)))
        return;
    map = soft_io_map(v) + port / 8;
    if (map + 1 > tr->limit)
        soft_fault(v, VEC_GP, 0);
    bits = soft_ld(v, soft_sys_va(v, tr->base + map), 2, soft_sys_mmu(v));
    if (bits >> (port & 7) & ((1u << size) - 1))
        soft_fault(v, VEC_GP, 0);
}

static uint64_t port_in(struct soft_vcpu *v, unsigned port, unsigned size)
{
    uint64_t value = ~0ull;

    soft_debug_port(v, port, size);
    soft_fpu_park(v);
    hsk_bus_read(v->base.engine->cfg.pio, port, size, &value);
    return value & soft_mask(size);
}

static void port_out(struct soft_vcpu *v, unsigned port, unsigned size, uint64_t value)
{
    soft_debug_port(v, port, size);
    soft_fpu_park(v);
    hsk_bus_write(v->base.engine->cfg.pio, port, size, value & soft_mask(size));
}

enum soft_next soft_x_io(struct soft_vcpu *v, const struct soft_insn *in)
{
    const unsigned size = in->opcode & 1 ? (in->opsize == 2 ? 2 : 4) : 1;
    const unsigned port = in->opcode & 8 ? v->gpr[HSK_RDX] & 0xffff : (unsigned)in->imm[0] & 0xff;

    check_port(v, port, size);
    if (in->mnemonic == ZYDIS_MNEMONIC_IN)
        soft_reg_set(v, HSK_RAX, size, port_in(v, port, size));
    else
        port_out(v, port, size, v->gpr[HSK_RAX]);
    /* a device may have raised or lowered an interrupt line */
    soft_recheck_interrupts(v);
    return soft_done(v, in);
}

static unsigned element_size(uint16_t mnemonic)
{
    switch (mnemonic) {
    case ZYDIS_MNEMONIC_INSB:
    case ZYDIS_MNEMONIC_OUTSB:
        return 1;
    case ZYDIS_MNEMONIC_INSW:
    case ZYDIS_MNEMONIC_OUTSW:
        return 2;
    default:
        return 4;
    }
}

static void one_element(struct soft_vcpu *v, const struct soft_insn *in, bool input, unsigned size)
{
    const unsigned port = v->gpr[HSK_RDX] & 0xffff;
    const unsigned reg = input ? HSK_RDI : HSK_RSI;
    const uint64_t off = soft_reg_get(v, reg, in->addrsize);
    const uint64_t va = soft_seg_va(v, input ? HSK_ES : in->seg, off, size, input);

    if (input) {
        soft_probe(v, va, size, true, v->mmu);
        soft_st(v, va, size, port_in(v, port, size), v->mmu);
    } else {
        port_out(v, port, size, soft_ld(v, va, size, v->mmu));
    }
    soft_reg_set(v, reg, in->addrsize, v->rflags & HSK_FLAG_DF ? off - size : off + size);
}

enum soft_next soft_x_io_string(struct soft_vcpu *v, const struct soft_insn *in)
{
    const unsigned size = element_size(in->mnemonic);
    const bool input = in->mnemonic == ZYDIS_MNEMONIC_INSB || in->mnemonic == ZYDIS_MNEMONIC_INSW ||
                       in->mnemonic == ZYDIS_MNEMONIC_INSD;
    uint64_t count;

    check_port(v, v->gpr[HSK_RDX] & 0xffff, size);
    if (!in->rep) {
        one_element(v, in, input, size);
        return soft_done(v, in);
    }
    while ((count = soft_reg_get(v, HSK_RCX, in->addrsize)) != 0) {
        one_element(v, in, input, size);
        soft_reg_set(v, HSK_RCX, in->addrsize, count - 1);
        /* a single step is one iteration */
        if (count > 1 && ((v->rflags & HSK_FLAG_TF) || soft_must_look(v)))
            return soft_unfinished(v);
    }
    return soft_done(v, in);
}
