/* SPDX-License-Identifier: MIT */
/*
 * The local APIC (Intel SDM vol. 3, chapter 11): xAPIC page and x2APIC MSRs, LVT, what is
 * deliverable; IPIs are in lapic-ipi.c, the timer is in lapic-timer.c. One struct per vCPU; all of
 * them share the one MMIO mapping, which belongs to APIC 0: an access reaches the APIC that the
 * accessing thread bound (hsk_lapic_bind_thread).
 *
 * Threads: any. Every entry takes the APIC's leaf lock, never two at once: a sender lets go of its
 * own before it looks at the targets, and EOI lets go before it tells the I/O APIC (whose lock is
 * taken before ours). kick runs with no APIC lock.
 *
 * Deliberately missing: SMI (no SMM), CMCI, focus processor and arbitration registers, remote read,
 * the delivery-status bits (delivery is immediate), ExtINT from the I/O APIC or as MSI (the PIC is
 * wired to LINT0 of APIC 0 only). TSC_ADJUST is the engine's: IA32_TSC_DEADLINE here counts the
 * clock's TSC.
 */
#include "devices.h"
#include "lapic-internal.h"

enum {
    REG_ID = 0x20,
    REG_VERSION = 0x30,
    REG_TPR = 0x80,
    REG_PPR = 0xa0,
    REG_EOI = 0xb0,
    REG_LDR = 0xd0,
    REG_DFR = 0xe0,
    REG_SVR = 0xf0,
    REG_ISR = 0x100,
    REG_TMR = 0x180,
    REG_IRR = 0x200,
    REG_ESR = 0x280,
    REG_ICR_LOW = 0x300,
    REG_ICR_HIGH = 0x310,
    REG_LVT = 0x320,
    REG_LVT_END = 0x370,
    REG_TIMER_INITIAL = 0x380,
    REG_TIMER_CURRENT = 0x390,
    REG_TIMER_DIVIDE = 0x3e0,
    REG_SELF_IPI = 0x3f0, /* x2APIC only */
};

#define BASE_BSP      (1u << 8)
#define BASE_ADDR(b)  ((b) & ~0xfffull)
#define LVT_READ_ONLY (1u << 12 | 1u << 14)
#define ESR_BAD_REG   (1u << 7)
#define ICR_WRITABLE  0x000ccfffu
#define ICR_STATUS    (1u << 12)
#define VERSION       (0x14u | (NLVT - 1) << 16)

static const uint32_t lvt_writable[NLVT] = {0x700ff, 0x107ff, 0x107ff, 0x1a7ff, 0x1a7ff, 0x100ff};

#define F(m, ...)  HSK_F(struct lapic_state, m, __VA_ARGS__)
#define FA(m, ...) HSK_FA(struct lapic_state, m, __VA_ARGS__)
static const struct hsk_field lapic_fields[] = {
    F(base),
    F(deadline_ns),
    F(tsc_deadline),
    FA(isr),
    FA(irr),
    FA(tmr),
    FA(lvt, .max = 0x7ffff),
    F(tpr, .max = 0xff),
    F(ldr),
    F(dfr),
    F(svr, .max = 0x3ff),
    F(esr, .max = 0xff),
    F(esr_pending, .max = 0xff),
    F(icr_low, .max = ICR_WRITABLE),
    F(icr_high),
    F(timer_initial),
    F(timer_divide, .max = 0xb),
    F(nmi, .max = MAX_NMIS),
    F(init, .max = 1),
    F(sipi, .max = 1),
    F(sipi_vector, .max = 0xff),
    F(extint, .max = 1),
};
#undef F
#undef FA

static _Thread_local struct hsk_lapic *bound;

void hsk_lapic_bind_thread(struct hsk_lapic *l)
{
    bound = l;
}

/* ---- what is deliverable ---- */

uint32_t hsk_lapic_ppr_locked(const struct hsk_lapic *l)
{
    int isr = bit_highest(l->s.isr);
    uint32_t isrv = isr < 0 ? 0 : (uint32_t)isr & 0xf0;

    return (l->s.tpr & 0xf0) >= isrv ? l->s.tpr : isrv;
}

static int deliverable_locked(const struct hsk_lapic *l)
{
    int irr = bit_highest(l->s.irr);

    if (irr < 0 || !(l->s.base & BASE_ENABLE) ||
        (uint32_t)(irr & 0xf0) <= (hsk_lapic_ppr_locked(l) & 0xf0))
        return -1;
    return irr;
}

/* A disabled APIC passes the PIC's INTR straight to the processor. */
static bool extint_locked(const struct hsk_lapic *l)
{
    uint32_t lint0 = l->s.lvt[LVT_LINT0];

    if (!l->s.extint)
        return false;
    return !(l->s.base & BASE_ENABLE) || (!(lint0 & LVT_MASKED) && (lint0 >> 8 & 7) == MODE_EXTINT);
}

void hsk_lapic_enter(struct hsk_lapic *l)
{
    pthread_mutex_lock(&l->leaf);
}

void hsk_lapic_leave(struct hsk_lapic *l)
{
    unsigned now = 0, old;

    if (deliverable_locked(l) >= 0 || extint_locked(l))
        now |= HSK_LAPIC_INTR;
    if (l->s.nmi)
        now |= HSK_LAPIC_NMI;
    if (l->s.init)
        now |= HSK_LAPIC_INIT;
    if (l->s.sipi)
        now |= HSK_LAPIC_SIPI;
    old = atomic_exchange(&l->pending, now);
    pthread_mutex_unlock(&l->leaf);
    if ((now & ~old) && l->kick)
        l->kick(l->kick_opaque);
}

unsigned hsk_lapic_pending(const struct hsk_lapic *l)
{
    return atomic_load_explicit(&l->pending, memory_order_relaxed);
}

static void lvt_write_locked(struct hsk_lapic *l, unsigned entry, uint32_t value)
{
    unsigned old_mode = hsk_lapic_timer_mode(l);

    if (entry == LVT_TIMER)
        hsk_lapic_timer_due_locked(l);
    value &= lvt_writable[entry];
    if (!(l->s.svr & SVR_ENABLE))
        value |= LVT_MASKED;
    l->s.lvt[entry] = value;
    if (entry == LVT_TIMER &&
        (old_mode == TIMER_TSC_DEADLINE) != (hsk_lapic_timer_mode(l) == TIMER_TSC_DEADLINE)) {
        l->s.deadline_ns = 0;
        l->s.tsc_deadline = 0;
        hsk_lapic_timer_arm_locked(l);
    }
}

/* ---- registers ---- */

/* false: no such register. */
static bool reg_read_locked(struct hsk_lapic *l, unsigned reg, bool x2apic, uint32_t *value)
{
    const struct lapic_state *s = &l->s;
    unsigned word = reg >> 4 & 7;

    *value = 0;
    switch (reg & ~0x7fu) {
    case REG_ISR:
        *value = s->isr[word];
        return true;
    case REG_TMR:
        *value = s->tmr[word];
        return true;
    case REG_IRR:
        *value = s->irr[word];
        return true;
    default:
        break;
    }
    if (reg >= REG_LVT && reg <= REG_LVT_END) {
        *value = s->lvt[(reg - REG_LVT) >> 4];
        return true;
    }
    switch (reg) {
    case REG_ID:
        *value = x2apic ? l->index : l->index << 24;
        return true;
    case REG_VERSION:
        *value = VERSION;
        return true;
    case REG_TPR:
        *value = s->tpr;
        return true;
    case REG_PPR:
        *value = hsk_lapic_ppr_locked(l);
        return true;
    case REG_LDR:
        *value = x2apic ? (l->index >> 4) << 16 | 1u << (l->index & 15) : s->ldr;
        return true;
    case REG_DFR:
        *value = s->dfr;
        return !x2apic;
    case REG_SVR:
        *value = s->svr;
        return true;
    case REG_ESR:
        *value = s->esr;
        return true;
    case REG_ICR_LOW:
        *value = s->icr_low;
        return true;
    case REG_ICR_HIGH:
        *value = s->icr_high;
        return !x2apic;
    case REG_TIMER_INITIAL:
        *value = s->timer_initial;
        return true;
    case REG_TIMER_CURRENT:
        hsk_lapic_timer_due_locked(l);
        *value = hsk_lapic_timer_count_locked(l);
        return true;
    case REG_TIMER_DIVIDE:
        *value = s->timer_divide;
        return true;
    default:
        return false;
    }
}

static void svr_write_locked(struct hsk_lapic *l, uint32_t value)
{
    l->s.svr = value & 0x3ff;
    if (!(value & SVR_ENABLE))
        for (unsigned i = 0; i < NLVT; i++)
            l->s.lvt[i] |= LVT_MASKED;
}

/* Takes the lock. EOI and IPIs reach others only after it is let go. false: no such register to
 * write. */
static bool reg_write(struct hsk_lapic *l, unsigned reg, bool x2apic, uint64_t value64)
{
    struct lapic_state *s = &l->s;
    uint32_t value = (uint32_t)value64;
    int eoi = -1;
    bool ok = true, ipi = false;

    hsk_lapic_enter(l);
    if (reg >= REG_LVT && reg <= REG_LVT_END) {
        lvt_write_locked(l, (reg - REG_LVT) >> 4, value);
        hsk_lapic_leave(l);
        return true;
    }
    switch (reg) {
    case REG_TPR:
        s->tpr = value & 0xff;
        break;
    case REG_EOI:
        eoi = bit_highest(s->isr);
        if (eoi >= 0) {
            bit_clear(s->isr, (unsigned)eoi);
            if (!bit_test(s->tmr, (unsigned)eoi))
                eoi = -1;
        }
        break;
    case REG_LDR:
        s->ldr = value & 0xff000000u;
        ok = !x2apic;
        break;
    case REG_DFR:
        s->dfr = value | 0x0fffffffu;
        ok = !x2apic;
        break;
    case REG_SVR:
        svr_write_locked(l, value);
        break;
    case REG_ESR:
        s->esr = s->esr_pending;
        s->esr_pending = 0;
        break;
    case REG_ICR_LOW:
        s->icr_low = value & ICR_WRITABLE;
        if (x2apic)
            s->icr_high = (uint32_t)(value64 >> 32);
        ipi = true;
        break;
    case REG_ICR_HIGH:
        s->icr_high = value;
        ok = !x2apic;
        break;
    case REG_TIMER_INITIAL:
        hsk_lapic_timer_due_locked(l);
        if (hsk_lapic_timer_mode(l) != TIMER_TSC_DEADLINE) {
            s->timer_initial = value;
            hsk_lapic_timer_start_locked(l, value);
        }
        break;
    case REG_TIMER_DIVIDE:
        hsk_lapic_timer_set_divide_locked(l, value);
        break;
    case REG_SELF_IPI:
        ok = x2apic;
        if (x2apic)
            hsk_lapic_accept_locked(l, value & 0xff, false);
        break;
    default:
        ok = false;
        break;
    }
    value = s->icr_low;
    uint32_t high = s->icr_high;
    hsk_lapic_leave(l);
    if (eoi >= 0)
        hsk_ioapic_eoi(l->dev.machine, (uint8_t)eoi);
    if (ipi)
        hsk_lapic_send_icr(l, value, high, x2apic);
    return ok;
}

/* ---- MMIO ---- */

static struct hsk_lapic *accessor(struct hsk_dev *dev)
{
    return bound && bound->dev.machine == dev->machine ? bound : (struct hsk_lapic *)dev;
}

static uint64_t lapic_mmio_read(struct hsk_dev *dev, unsigned region, uint64_t offset,
                                unsigned size)
{
    struct hsk_lapic *l = accessor(dev);
    uint32_t value = 0;

    hsk_lapic_enter(l);
    if ((l->s.base & (BASE_ENABLE | BASE_X2APIC)) != BASE_ENABLE)
        value = 0xffffffffu;
    else if ((offset & 15) < 4 && !reg_read_locked(l, offset & 0xff0, false, &value))
        hsk_lapic_error_locked(l, ESR_BAD_REG);
    hsk_lapic_leave(l);
    return value >> (offset & 3) * 8;
}

static void lapic_mmio_write(struct hsk_dev *dev, unsigned region, uint64_t offset, unsigned size,
                             uint64_t value)
{
    struct hsk_lapic *l = accessor(dev);

    if (size != 4 || (offset & 15) ||
        (hsk_lapic_get_base(l) & (BASE_ENABLE | BASE_X2APIC)) != BASE_ENABLE)
        return;
    if (!reg_write(l, offset & 0xff0, false, value)) {
        uint32_t ignored;

        /* A write to a read-only register is ignored, one to no register is an error. */
        hsk_lapic_enter(l);
        if (!reg_read_locked(l, offset & 0xff0, false, &ignored))
            hsk_lapic_error_locked(l, ESR_BAD_REG);
        hsk_lapic_leave(l);
    }
}

/* ---- for the engine ---- */

struct hsk_dev *hsk_lapic_dev(struct hsk_lapic *l)
{
    return &l->dev;
}

void hsk_lapic_set_kick(struct hsk_lapic *l, void (*kick)(void *opaque), void *opaque)
{
    l->kick = kick;
    l->kick_opaque = opaque;
}

int hsk_lapic_ack(struct hsk_lapic *l)
{
    int vector;
    bool extint;

    hsk_lapic_enter(l);
    extint = extint_locked(l);
    vector = extint ? -1 : deliverable_locked(l);
    if (vector >= 0) {
        bit_clear(l->s.irr, (unsigned)vector);
        bit_set(l->s.isr, (unsigned)vector);
    }
    hsk_lapic_leave(l);
    return extint ? hsk_pic_ack(l->dev.machine) : vector;
}

/* All registers but the base to their power-on values (SDM 11.4.7.1, 11.4.7.3). */
static void registers_reset_locked(struct hsk_lapic *l)
{
    uint64_t base = l->s.base;
    uint64_t extint = l->s.extint;

    l->s = (struct lapic_state){.base = base, .dfr = 0xffffffffu, .svr = 0xff, .extint = extint};
    for (unsigned i = 0; i < NLVT; i++)
        l->s.lvt[i] = LVT_MASKED;
    /* What firmware leaves behind (MP specification 3.6.2.2, virtual wire mode): a kernel started
     * directly may rely on it. */
    if (base & BASE_BSP)
        l->s.lvt[LVT_LINT0] = MODE_EXTINT << 8;
}

bool hsk_lapic_take(struct hsk_lapic *l, unsigned which, uint8_t *vector)
{
    bool there = false;

    hsk_lapic_enter(l);
    if (which == HSK_LAPIC_NMI) {
        there = l->s.nmi > 0;
        l->s.nmi -= there;
    } else if (which == HSK_LAPIC_SIPI) {
        there = l->s.sipi;
        l->s.sipi = 0;
        if (there && vector)
            *vector = (uint8_t)l->s.sipi_vector;
    } else if (which == HSK_LAPIC_INIT) {
        uint32_t sipi = l->s.sipi, sipi_vector = l->s.sipi_vector;

        there = l->s.init;
        if (there) {
            /* A SIPI after the INIT is for the processor that this INIT makes. */
            registers_reset_locked(l);
            l->s.sipi = sipi;
            l->s.sipi_vector = sipi_vector;
            hsk_lapic_timer_arm_locked(l);
        }
    }
    hsk_lapic_leave(l);
    return there;
}

uint64_t hsk_lapic_get_cr8(struct hsk_lapic *l)
{
    uint64_t v;

    hsk_lapic_enter(l);
    v = l->s.tpr >> 4;
    hsk_lapic_leave(l);
    return v;
}

void hsk_lapic_set_cr8(struct hsk_lapic *l, uint64_t v)
{
    hsk_lapic_enter(l);
    l->s.tpr = (uint32_t)(v & 15) << 4;
    hsk_lapic_leave(l);
}

void hsk_lapic_set_extint(struct hsk_lapic *l, bool level)
{
    hsk_lapic_enter(l);
    if (level && !l->s.extint)
        hsk_lapic_local_locked(
            l, LVT_LINT0); /* programmed as a fixed vector or NMI, LINT0 is edge triggered */
    l->s.extint = level;
    hsk_lapic_leave(l);
}

void hsk_lapic_nmi(struct hsk_lapic *l)
{
    hsk_lapic_enter(l);
    if (l->s.base & BASE_ENABLE)
        hsk_lapic_local_locked(l, LVT_LINT1);
    else
        hsk_lapic_nmi_locked(l);
    hsk_lapic_leave(l);
}

void hsk_lapic_nmi_unmasked(struct hsk_lapic *l)
{
    hsk_lapic_enter(l);
    l->s.nmi = MIN(l->s.nmi, 1u);
    hsk_lapic_leave(l);
}

/* Only APIC 0 has the page on the bus. */
static void page_publish(struct hsk_lapic *l)
{
    struct hsk_bus *bus = hsk_machine_mmio(l->dev.machine);
    uint64_t want = BASE_ADDR(hsk_lapic_get_base(l));

    if (l->index != 0 || want == l->mapped)
        return;
    if (l->mapped != UINT64_MAX)
        hsk_bus_unmap(bus, l->mapped, &l->dev);
    l->mapped = hsk_bus_map(bus, want, HSK_PAGE_SIZE, &l->dev, 0) ? want : UINT64_MAX;
    hsk_machine_memory_changed(l->dev.machine);
    if (l->mapped == UINT64_MAX)
        hsk_machine_post_event(l->dev.machine, HSK_EVENT_ERROR, want,
                               "The guest moved its local APIC onto another device's address, "
                               "which is not supported.");
}

uint64_t hsk_lapic_get_base(struct hsk_lapic *l)
{
    uint64_t v;

    hsk_lapic_enter(l);
    v = l->s.base;
    hsk_lapic_leave(l);
    return v;
}

/* x2APIC without enable is no state (SDM 11.12.1, table 11-5). */
static bool base_legal(const struct hsk_lapic *l, uint64_t v)
{
    return !(v & l->base_reserved) && ((v & BASE_ENABLE) || !(v & BASE_X2APIC));
}

bool hsk_lapic_set_base(struct hsk_lapic *l, uint64_t v)
{
    bool ok;

    hsk_lapic_enter(l);
    uint64_t old = l->s.base;
    bool was_x2apic = old & BASE_X2APIC, was_enabled = old & BASE_ENABLE;
    /* Transitions of figure 11-29: x2APIC is entered from xAPIC and left by disabling. */
    ok = base_legal(l, v) && !(was_x2apic && (v & BASE_ENABLE) && !(v & BASE_X2APIC)) &&
         !(!was_enabled && (v & BASE_X2APIC));
    if (ok) {
        l->s.base = v;
        if (was_enabled && !(v & BASE_ENABLE)) {
            registers_reset_locked(l);
            hsk_lapic_timer_arm_locked(l);
        }
        if (!was_x2apic && (v & BASE_X2APIC))
            l->s.icr_high = 0;
    }
    hsk_lapic_leave(l);
    if (ok)
        page_publish(l);
    return ok;
}

bool hsk_lapic_rdmsr(struct hsk_lapic *l, uint32_t msr, uint64_t *v)
{
    uint32_t low = 0;
    bool ok = false;

    hsk_lapic_enter(l);
    if (msr == 0x6e0) {
        hsk_lapic_timer_due_locked(l);
        *v = l->s.tsc_deadline;
        ok = true;
    } else if (msr >= 0x800 && msr <= 0x8ff && (l->s.base & BASE_X2APIC)) {
        unsigned reg = (msr - 0x800) << 4;

        ok = reg < 0x400 && reg_read_locked(l, reg, true, &low);
        *v = low;
        if (reg == REG_ICR_LOW)
            *v |= (uint64_t)l->s.icr_high << 32;
    }
    hsk_lapic_leave(l);
    return ok;
}

/* The bits that a WRMSR in x2APIC mode may set: reserved ones are #GP (11.12.1.3). Read-only bits
 * of an entry are not. */
static uint64_t x2apic_legal(unsigned reg)
{
    if (reg >= REG_LVT && reg <= REG_LVT_END)
        return lvt_writable[(reg - REG_LVT) >> 4] | LVT_READ_ONLY;
    switch (reg) {
    case REG_EOI:
    case REG_ESR:
        return 0;
    case REG_TPR:
    case REG_SELF_IPI:
        return 0xff;
    case REG_SVR:
        return 0x3ff;
    case REG_ICR_LOW:
        return 0xffffffffull << 32 | ICR_WRITABLE | ICR_STATUS;
    case REG_TIMER_DIVIDE:
        return 0xb;
    default:
        return 0xffffffffu;
    }
}

bool hsk_lapic_wrmsr(struct hsk_lapic *l, uint32_t msr, uint64_t v)
{
    unsigned reg = (msr - 0x800) << 4;

    if (msr == 0x6e0) {
        hsk_lapic_enter(l);
        if (hsk_lapic_timer_mode(l) ==
            TIMER_TSC_DEADLINE) { /* ignored in the other modes (11.5.4.1) */
            hsk_lapic_timer_due_locked(l);
            l->s.tsc_deadline = v;
            hsk_lapic_timer_due_locked(l);
            hsk_lapic_timer_arm_locked(l);
        }
        hsk_lapic_leave(l);
        return true;
    }
    if (msr < 0x800 || reg >= 0x400 || !(hsk_lapic_get_base(l) & BASE_X2APIC))
        return false;
    if (v & ~x2apic_legal(reg))
        return false;
    if (reg == REG_LDR || reg == REG_DFR || reg == REG_ICR_HIGH)
        return false;
    return reg_write(l, reg, true, v);
}

/* ---- life cycle ---- */

static void lapic_reset(struct hsk_dev *dev)
{
    struct hsk_lapic *l = (struct hsk_lapic *)dev;

    l->s.base = HSK_LAPIC_BASE | BASE_ENABLE | (l->index == 0 ? BASE_BSP : 0);
    l->s.extint = 0;
    registers_reset_locked(l);
}

static bool lapic_check(struct hsk_dev *dev, GError **error)
{
    struct hsk_lapic *l = (struct hsk_lapic *)dev;
    const struct lapic_state *s = &l->s;
    bool ok = base_legal(l, s->base) && !((s->isr[0] | s->irr[0] | s->tmr[0]) & 0xffff) &&
              (s->deadline_ns == 0 || s->timer_initial != 0) && (s->timer_divide & ~0xbu) == 0 &&
              (s->icr_low & ~ICR_WRITABLE) == 0 && (s->dfr & 0x0fffffffu) == 0x0fffffffu &&
              !(s->ldr & 0xffffffu);

    for (unsigned i = 0; i < NLVT; i++)
        if ((s->lvt[i] & ~(lvt_writable[i] | LVT_MASKED)) ||
            (!(s->svr & SVR_ENABLE) && i != LVT_LINT0 && !(s->lvt[i] & LVT_MASKED)))
            ok = false;
    if (!ok)
        g_set_error(error, HSK_ERROR, HSK_ERROR_DAMAGED,
                    "The saved state of %s is not one that a local APIC can have.", dev->id);
    return ok;
}

static void lapic_resume(struct hsk_dev *dev)
{
    struct hsk_lapic *l = (struct hsk_lapic *)dev;

    page_publish(l);
    hsk_lapic_enter(l);
    hsk_lapic_timer_arm_locked(l);
    hsk_lapic_leave(l);
}

static void lapic_free(struct hsk_dev *dev)
{
    struct hsk_lapic *l = (struct hsk_lapic *)dev;

    if (bound == l)
        bound = NULL;
    hsk_timer_free(l->timer);
    if (l->mapped != UINT64_MAX)
        hsk_bus_unmap(hsk_machine_mmio(dev->machine), l->mapped, dev);
    pthread_mutex_destroy(&l->leaf);
    hsk_dev_finish(dev);
    g_free(l);
}

static const struct hsk_dev_ops lapic_ops = {
    .state = {"lapic", 1, sizeof(struct lapic_state), lapic_fields, G_N_ELEMENTS(lapic_fields)},
    .state_offset = offsetof(struct hsk_lapic, s),
    .min_size = 1,
    .max_size = 4,
    .read = lapic_mmio_read,
    .write = lapic_mmio_write,
    .reset = lapic_reset,
    .check = lapic_check,
    .resume = lapic_resume,
    .free = lapic_free,
};

struct hsk_lapic *hsk_lapic_new(struct hsk_machine *m, unsigned index)
{
    struct hsk_lapic *l = g_new0(struct hsk_lapic, 1);
    g_autofree char *id = g_strdup_printf("lapic.%u", index);
    uint32_t out[4] = {0};

    hsk_dev_init(&l->dev, &lapic_ops, m, id);
    pthread_mutex_init(&l->leaf, NULL);
    l->index = index;
    l->clock = hsk_machine_clock(m);
    l->timer = hsk_timer_new(hsk_machine_loop(m), hsk_lapic_timer_expired, l);
    l->mapped = UINT64_MAX;
    hsk_cpuid_query(hsk_machine_cpuid(m), index, 0, 0, 0x80000008u, 0, out);
    l->base_reserved = ~(((1ull << CLAMP(out[0] & 0xff, 36, 52)) - 1) & ~0xfffull) &
                       ~(uint64_t)(BASE_BSP | BASE_X2APIC | BASE_ENABLE);
    l->s.base = HSK_LAPIC_BASE | BASE_ENABLE;
    page_publish(l);
    return l;
}
