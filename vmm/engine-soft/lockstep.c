/* SPDX-License-Identifier: MIT */
/*
 * Lockstep, for tests: every so many blocks, what the block did is undone and its instructions run
 * once more one by one in strict mode (all flags kept, every access checked for itself, nothing
 * shared). Registers, flags that somebody may read, vector and x87 state and every byte of memory
 * that the block wrote must agree; else the machine stops with a sentence. Both runs begin from the
 * same state and nothing comes between them, so interrupts, clocks and devices need no recording.
 *
 * Not compared: blocks that cannot run twice (ports, MMIO, time, random numbers, MSRs, control
 * registers, HLT) and blocks that raise an exception. Blocks are not chained, so that each of them
 * ends in the dispatcher. Memory is undone by pages, which are kept when the TLB makes them
 * writable: nobody else may write meanwhile, so one processor, and no disks.
 *
 * vCPU thread; the guest's FPU registers are live in soft_lockstep_write() and
 * soft_lockstep_cancel(), parked elsewhere.
 */
#include <vmm/cpu_bits.h>

#include "xlate.h"

enum { PAGES = 96 };
enum { IDLE, FIRST, AGAIN };

struct undo {
    uint8_t *host;
    uint8_t before[HSK_PAGE_SIZE], after[HSK_PAGE_SIZE];
};

struct soft_lockstep {
    unsigned every, next, phase;
    const struct soft_block *block;
    struct hsk_cpu_state before, after, again;
    unsigned npages;
    struct undo page[PAGES];
};

static void copy(void *to, const void *from, uint64_t n)
{
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(n) : : "memory");
}

void soft_lockstep_start(struct soft_vcpu *v)
{
    const unsigned every = v->base.engine->cfg.lockstep;

    if (!every || v->base.engine->cfg.ncpus > 1)
        return;
    v->lockstep = g_new0(struct soft_lockstep, 1);
    v->lockstep->every = v->lockstep->next = every;
}

/* --- translation --- */

static bool repeatable(const struct soft_x *x)
{
    switch (x->in.mnemonic) {
    case ZYDIS_MNEMONIC_RDTSC:
    case ZYDIS_MNEMONIC_RDTSCP:
    case ZYDIS_MNEMONIC_RDRAND:
    case ZYDIS_MNEMONIC_RDSEED:
    case ZYDIS_MNEMONIC_IN:
    case ZYDIS_MNEMONIC_OUT:
    case ZYDIS_MNEMONIC_INSB:
    case ZYDIS_MNEMONIC_INSW:
    case ZYDIS_MNEMONIC_INSD:
    case ZYDIS_MNEMONIC_OUTSB:
    case ZYDIS_MNEMONIC_OUTSW:
    case ZYDIS_MNEMONIC_OUTSD:
    case ZYDIS_MNEMONIC_RDMSR:
    case ZYDIS_MNEMONIC_WRMSR:
    case ZYDIS_MNEMONIC_HLT:
        return false;
    case ZYDIS_MNEMONIC_MOV:
        return x->kind != SOFT_X_HELPER; /* control and debug registers */
    default:
        return true;
    }
}

void soft_lockstep_note(struct soft_block *b, const struct soft_x *x)
{
    for (unsigned i = 0; i < b->ninsns; i++)
        b->once |= !repeatable(&x[i]);
}

/* --- a sample --- */

void soft_lockstep_cancel(struct soft_vcpu *v)
{
    struct soft_lockstep *l = v->lockstep;

    if (!l || l->phase == IDLE)
        return;
    if (l->phase == AGAIN) {
        l->phase = IDLE;
        soft_stop(
            v,
            "The software engine differs from its strict mode: the block at %#" G_GINT64_MODIFIER
            "x raised an exception or reached a device only there.",
            l->before.rip);
    }
    l->phase = IDLE;
}

void soft_lockstep_write(struct soft_vcpu *v, uint8_t *host)
{
    struct soft_lockstep *l = v->lockstep;

    if (l->phase != FIRST)
        return;
    for (unsigned i = 0; i < l->npages; i++)
        if (l->page[i].host == host)
            return;
    if (l->npages == PAGES) {
        l->phase = IDLE;
        return;
    }
    l->page[l->npages].host = host;
    copy(l->page[l->npages].before, host, HSK_PAGE_SIZE);
    l->npages++;
}

static void get(struct soft_vcpu *v, struct hsk_cpu_state *s)
{
    soft_fpu_park(v);
    *s = v->s;
    memcpy(s->gpr, v->gpr, sizeof s->gpr);
    s->rip = v->rip;
    s->rflags = v->rflags;
}

static void put(struct soft_vcpu *v, const struct hsk_cpu_state *s)
{
    soft_fpu_park(v);
    v->s = *s;
    memcpy(v->gpr, s->gpr, sizeof v->gpr);
    v->rip = s->rip;
    v->rflags = s->rflags;
    v->halted = 0;
    v->delivering = 0;
    soft_segments_changed(v);
    soft_returns_forget(v);
}

void soft_lockstep_begin(struct soft_vcpu *v, const struct soft_block *b)
{
    struct soft_lockstep *l = v->lockstep;

    if (--l->next)
        return;
    l->next = l->every;
    if (b->once || (b->mode & SOFT_MODE_SINGLE) || v->s.interrupt_shadow)
        return;
    l->block = b;
    l->npages = 0;
    l->phase = FIRST;
    get(v, &l->before);
    soft_tlb_drop_writes(v);
}

/* Components that are not in use have their initial values; the x87's pointers are not kept. */
static void comparable(struct hsk_cpu_state *s)
{
    hsk_cpu_state_canonicalise(s);
    memset(s->xsave + HSK_XSAVE_FOP, 0, HSK_XSAVE_MXCSR - HSK_XSAVE_FOP);
    hsk_put32(s->xsave + HSK_XSAVE_MXCSR_MASK, 0);
    hsk_put64(s->xsave + HSK_XSAVE_HEADER, 0);
}

/* Which of the pending arithmetic flags somebody may read from pc on, in its page: looked up anew,
   further than the translator does. */
static uint32_t live_from(struct soft_vcpu *v, const uint8_t *page, uint64_t pc, uint32_t mode,
                          uint32_t pending, unsigned depth)
{
    const uint64_t first = pc & ~0xfffull;
    uint32_t live = 0;
    struct soft_x x;
    bool more;

    for (unsigned i = 0; i < SOFT_MAX_INSNS && pending && (pc & ~0xfffull) == first; i++) {
        if (!soft_decode(v, &x, mode, page + (pc & 0xfff), 4096 - (pc & 0xfff), pc, &more))
            break;
        live |= x.reads & pending;
        pending &= ~x.kills & ~live;
        if (x.kind == SOFT_X_JCC && depth && v->code_size == 8) {
            const uint64_t taken = x.next + x.op[0].imm.value.u;

            live |= (taken & ~0xfffull) == first
                        ? live_from(v, page, taken, mode, pending, depth - 1)
                        : pending;
            pending &= ~live;
            pc = x.next;
        } else if (!soft_x_ends(&x)) {
            pc = x.next;
        } else if (x.kind == SOFT_X_JMP && x.op[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE &&
                   v->code_size == 8) {
            pc = x.next + x.op[0].imm.value.u;
        } else {
            break;
        }
    }
    return live | pending;
}

static uint32_t live_at(struct soft_vcpu *v, uint64_t rip, uint32_t mode)
{
    const uint64_t pc = soft_linear_pc(v, rip);
    const struct soft_itlb *page = soft_fetch_page(v, pc, mode & SOFT_MODE_MMU);

    if (!page || (v->code_size != 8) != !!(mode & SOFT_MODE_CODE32))
        return SOFT_ARITH;
    return live_from(v, page->host, pc, mode, SOFT_ARITH, 1);
}

static bool same(struct soft_vcpu *v)
{
    const struct soft_lockstep *l = v->lockstep;
    struct hsk_cpu_state a = l->after, b = l->again;
    const uint64_t differ = (a.rflags ^ b.rflags) & ~(uint64_t)HSK_FLAG_RF;

    if ((differ & ~(uint64_t)SOFT_ARITH) ||
        (differ && (differ & live_at(v, a.rip, l->block->mode))))
        return false;
    a.rflags = b.rflags;
    comparable(&a);
    comparable(&b);
    if (memcmp(&a, &b, sizeof a))
        return false;
    for (unsigned i = 0; i < l->npages; i++)
        if (memcmp(l->page[i].after, l->page[i].host, HSK_PAGE_SIZE))
            return false;
    return true;
}

G_NORETURN static void report(struct soft_vcpu *v)
{
    struct soft_lockstep *l = v->lockstep;
    g_autoptr(GString) s = g_string_new(NULL);
    const struct hsk_cpu_state *a = &l->after, *b = &l->again;

    for (unsigned i = 0; i < 16; i++)
        if (a->gpr[i] != b->gpr[i])
            g_string_append_printf(s, " register %u: %#lx, strictly %#lx;", i, a->gpr[i],
                                   b->gpr[i]);
    if (a->rip != b->rip)
        g_string_append_printf(s, " rip: %#lx, strictly %#lx;", a->rip, b->rip);
    if (a->rflags != b->rflags)
        g_string_append_printf(s, " flags: %#lx, strictly %#lx;", a->rflags, b->rflags);
    for (unsigned i = 0; i < l->npages; i++)
        for (unsigned k = 0; k < HSK_PAGE_SIZE; k++)
            if (l->page[i].after[k] != l->page[i].host[k]) {
                g_string_append_printf(s, " byte %#x of a page: %#x, strictly %#x;", k,
                                       l->page[i].after[k], l->page[i].host[k]);
                break;
            }
    if (!s->len)
        g_string_append(s, " vector, x87 or system state");
    soft_stop(v,
              "The software engine differs from its strict mode in the block of %u instructions at "
              "%#lx:%s",
              l->block->ninsns, l->before.rip, s->str);
}

void soft_lockstep_end(struct soft_vcpu *v)
{
    struct soft_lockstep *l = v->lockstep;

    if (l->phase != FIRST)
        return;
    if (atomic_load(&v->interrupt)) { /* it may have ended a string early */
        l->phase = IDLE;
        return;
    }
    get(v, &l->after);
    for (unsigned i = 0; i < l->npages; i++) {
        memcpy(l->page[i].after, l->page[i].host, HSK_PAGE_SIZE);
        memcpy(l->page[i].host, l->page[i].before, HSK_PAGE_SIZE);
    }
    put(v, &l->before);
    l->phase = AGAIN;
    for (unsigned n = 0; n <= l->block->ninsns; n++) {
        get(v, &l->again);
        if (l->again.rip == l->after.rip && same(v)) {
            l->phase = IDLE;
            v->count.compared++;
            return;
        }
        if (n < l->block->ninsns && !soft_step_strictly(v))
            break;
    }
    l->phase = IDLE;
    if (!atomic_load(&v->interrupt))
        report(v);
    put(v, &l->after);
    for (unsigned i = 0; i < l->npages; i++)
        memcpy(l->page[i].host, l->page[i].after, HSK_PAGE_SIZE);
}
