/* SPDX-License-Identifier: MIT */
/*
 * Breakpoints of the debug registers (SDM vol. 3, 17.2 and 17.3.1): code, data, ports.
 *
 * While a data breakpoint is enabled, translated code asks C about each access (SOFT_MODE_CHECKED);
 * the instruction that hits one is run alone, and traps behind itself. Pages with instruction
 * breakpoints are run one instruction at a time. What an instruction hit is collected in debug_hits
 * until it has ended; a fault of it forgets that. Only enabled breakpoints are reported in DR6.
 * Missing on purpose: matches of implicit accesses to descriptor tables and the TSS. Thread: the
 * vCPU's, with the guest's FPU registers live.
 */
#include "system.h"

enum { ON_CODE, ON_WRITE, ON_PORT, ON_ACCESS };

static bool enabled(const struct soft_vcpu *v, unsigned i)
{
    return v->s.dr[7] >> (2 * i) & 3;
}

static unsigned kind(const struct soft_vcpu *v, unsigned i)
{
    return v->s.dr[7] >> (16 + 4 * i) & 3;
}

/* Does breakpoint i cover a byte of [at, at+len)? */
static bool covers(const struct soft_vcpu *v, unsigned i, uint64_t at, unsigned len)
{
    static const uint8_t sizes[] = {1, 2, 8, 4};
    const unsigned size = sizes[v->s.dr[7] >> (18 + 4 * i) & 3];
    const uint64_t from = v->s.dr[i] & ~(uint64_t)(size - 1);

    return from - at < len || at - from < size;
}

void soft_debug_changed(struct soft_vcpu *v)
{
    unsigned now = 0;

    for (unsigned i = 0; i < 4; i++)
        if (enabled(v, i))
            now |= kind(v, i) == ON_CODE   ? SOFT_DEBUG_CODE
                   : kind(v, i) == ON_PORT ? SOFT_DEBUG_PORT
                                           : SOFT_DEBUG_DATA;
    if ((now | v->debug) & SOFT_DEBUG_CODE)
        soft_edges_forget(v); /* into the pages where they are, or were */
    v->debug = (uint8_t)now;
}

void soft_debug_access(struct soft_vcpu *v, uint64_t va, unsigned len, bool write)
{
    for (unsigned i = 0; i < 4; i++)
        if (enabled(v, i) && (kind(v, i) == ON_ACCESS || (kind(v, i) == ON_WRITE && write)) &&
            covers(v, i, va, len))
            v->debug_hits |= 1u << i;
}

void soft_debug_port(struct soft_vcpu *v, unsigned port, unsigned len)
{
    if (!(v->debug & SOFT_DEBUG_PORT) || !(v->s.cr4 & HSK_CR4_DE))
        return;
    for (unsigned i = 0; i < 4; i++)
        if (enabled(v, i) && kind(v, i) == ON_PORT && covers(v, i, port, len))
            v->debug_hits |= 1u << i;
}

bool soft_debug_fetch(struct soft_vcpu *v, uint64_t va)
{
    uint32_t hits = 0;
    bool near = false;

    for (unsigned i = 0; i < 4; i++)
        if (enabled(v, i) && kind(v, i) == ON_CODE) {
            hits |= (v->s.dr[i] == va) << i;
            near |= v->s.dr[i] >> 12 == va >> 12;
        }
    if (hits && !(v->rflags & HSK_FLAG_RF) && v->s.interrupt_shadow != 2 /* MOV SS, POP SS */)
        soft_fault_db(v, hits);
    return near;
}
