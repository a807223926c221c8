/* SPDX-License-Identifier: MIT */
/*
 * ACPI fixed hardware (ACPI 6.4, 4.8; layout of the ICH's PM block at HSK_PMBASE): PM1a event block
 * +0 (status, enable), PM1a control +4, PM timer +8 (24 bits, 3.579545 MHz), general-purpose events
 * +12 (8 of them: status, enable), and the reset control register 0xcf9, which the PCI host passes
 * on. Always in ACPI mode: SCI_EN reads 1. S5 is the only
 * sleep state that the tables offer, so SLP_EN with any type is it.
 *
 * Threads: registers under the device's lock, the reset register under the PCI host's; the timer
 * runs on the loop thread.
 *
 * Deliberately missing: other sleep states, SMIs, the RTC's status bit (the RTC has its own
 * interrupt), throttling.
 */
#include <base/clock.h>
#include <vmm/machine.h>

#include "devices.h"

#define PM_HZ    3579545u
#define NS_PER_S 1000000000u
#define TOGGLE   23 /* the status bit is set when this bit of the timer changes */

enum { PM1_STATUS = 0, PM1_ENABLE = 2, PM1_CONTROL = 4, PM_TIMER = 8, GPE_STATUS = 12, GPE_ENABLE = 13,
       PM_SIZE = 16 };

#define STS_TIMER      (1u << 0)
#define STS_BUTTON     (1u << 8)
#define STS_ALL        (STS_TIMER | STS_BUTTON)
#define EN_WRITABLE    (STS_ALL | 1u << 5 | 1u << 10)
#define CNT_SCI_EN     (1u << 0)
#define CNT_SLP_EN     (1u << 13)
#define CNT_WRITABLE   (1u << 1 | 7u << 10)
#define RESET_CPU      0x04 /* 0 to 1: reset */
#define RESET_WRITABLE 0x0e

struct acpi_pm_state {
    uint64_t toggles; /* changes of timer bit 23 that are in the status already */
    uint16_t status, enable, control;
    uint16_t reset; /* port 0xcf9 */
    uint32_t gpe_status, gpe_enable; /* bytes; as words they leave no padding */
};

struct acpi_pm {
    struct hsk_dev dev;
    struct acpi_pm_state s; /* device lock; reset: the PCI host's */
    struct hsk_irq *irq;
    struct hsk_clock *clock;
    struct hsk_timer *timer;
};

#define F(m, ...) HSK_F(struct acpi_pm_state, m, __VA_ARGS__)
static const struct hsk_field acpi_pm_fields[] = {
    F(toggles),
    F(status, .max = STS_ALL),
    F(enable, .max = EN_WRITABLE),
    F(control, .max = CNT_WRITABLE),
    F(reset, .max = RESET_WRITABLE),
    F(gpe_status, .max = 0xff),
    F(gpe_enable, .max = 0xff),
};
#undef F

static uint64_t ticks(const struct acpi_pm *p)
{
    return (uint64_t)((unsigned __int128)hsk_clock_ns(p->clock) * PM_HZ / NS_PER_S);
}

/* Brings the timer's status bit up to date, sets the SCI, and waits for the next change if the
 * guest wants to hear of it. */
static void update(struct acpi_pm *p)
{
    struct acpi_pm_state *s = &p->s;
    uint64_t toggles = ticks(p) >> TOGGLE;

    if (toggles != s->toggles) {
        s->toggles = toggles;
        s->status |= STS_TIMER;
    }
    if ((s->enable & STS_TIMER) && !(s->status & STS_TIMER))
        hsk_timer_arm(
            p->timer,
            (uint64_t)(((unsigned __int128)((toggles + 1) << TOGGLE) * NS_PER_S + PM_HZ - 1) /
                       PM_HZ));
    else
        hsk_timer_disarm(p->timer);
    if (p->irq)
        hsk_irq_set(p->irq, (s->status & s->enable) | (s->gpe_status & s->gpe_enable));
}

static void timer_expired(void *opaque)
{
    struct acpi_pm *p = opaque;
    HSK_DEV_GUARD(&p->dev);

    update(p);
}

void hsk_acpi_pm_power_button(struct hsk_dev *dev)
{
    struct acpi_pm *p = (struct acpi_pm *)dev;
    HSK_DEV_GUARD(dev);

    p->s.status |= STS_BUTTON;
    update(p);
}

void hsk_acpi_pm_gpe(struct hsk_dev *dev, unsigned event)
{
    struct acpi_pm *p = (struct acpi_pm *)dev;
    HSK_DEV_GUARD(dev);

    p->s.gpe_status |= 1u << event;
    update(p);
}

uint8_t hsk_acpi_pm_reset_read(struct hsk_dev *dev)
{
    return (uint8_t)((struct acpi_pm *)dev)->s.reset;
}

void hsk_acpi_pm_reset_write(struct hsk_dev *dev, uint8_t value)
{
    struct acpi_pm *p = (struct acpi_pm *)dev;
    bool was = p->s.reset & RESET_CPU;

    p->s.reset = value & RESET_WRITABLE;
    if ((value & RESET_CPU) && !was)
        hsk_machine_post_event(dev->machine, HSK_EVENT_RESET, 0,
                               "the guest wrote the reset register");
}

static uint64_t pm_read(struct hsk_dev *dev, unsigned region, uint64_t offset, unsigned size)
{
    struct acpi_pm *p = (struct acpi_pm *)dev;
    uint8_t regs[PM_SIZE + 8] = {0};

    update(p);
    hsk_put16(regs + PM1_STATUS, p->s.status);
    hsk_put16(regs + PM1_ENABLE, p->s.enable);
    hsk_put16(regs + PM1_CONTROL, p->s.control | CNT_SCI_EN);
    hsk_put32(regs + PM_TIMER, (uint32_t)ticks(p) & 0xffffff);
    regs[GPE_STATUS] = (uint8_t)p->s.gpe_status;
    regs[GPE_ENABLE] = (uint8_t)p->s.gpe_enable;
    return hsk_get32(regs + offset);
}

static void control_write(struct acpi_pm *p, uint16_t value)
{
    p->s.control = value & CNT_WRITABLE;
    if (value & CNT_SLP_EN)
        hsk_machine_post_event(p->dev.machine, HSK_EVENT_POWEROFF, 0, NULL);
}

static void pm_write(struct hsk_dev *dev, unsigned region, uint64_t offset, unsigned size,
                     uint64_t value)
{
    struct acpi_pm *p = (struct acpi_pm *)dev;
    struct acpi_pm_state *s = &p->s;
    uint8_t written[PM_SIZE + 8] = {0}, mask[PM_SIZE + 8] = {0};
    uint16_t m;

    memset(mask + offset, 0xff, size);
    for (unsigned i = 0; i < size; i++)
        written[offset + i] = (uint8_t)(value >> 8 * i);
    update(p); /* a change of the timer before this write is in the status that the write clears */
    s->status &= (uint16_t)~hsk_get16(written + PM1_STATUS);
    m = hsk_get16(mask + PM1_ENABLE);
    s->enable = ((s->enable & (uint16_t)~m) | hsk_get16(written + PM1_ENABLE)) & EN_WRITABLE;
    s->gpe_status &= ~(uint32_t)written[GPE_STATUS];
    if (mask[GPE_ENABLE])
        s->gpe_enable = written[GPE_ENABLE];
    m = hsk_get16(mask + PM1_CONTROL);
    if (m)
        control_write(p, (s->control & (uint16_t)~m) | hsk_get16(written + PM1_CONTROL));
    update(p);
}

static void pm_reset(struct hsk_dev *dev)
{
    struct acpi_pm *p = (struct acpi_pm *)dev;

    memset(&p->s, 0, sizeof(p->s));
    p->s.toggles = ticks(p) >> TOGGLE;
}

/* .max cannot say which bits in between are reserved. */
static bool pm_check(struct hsk_dev *dev, GError **error)
{
    const struct acpi_pm_state *s = &((struct acpi_pm *)dev)->s;

    if (!(s->status & ~STS_ALL) && !(s->enable & ~EN_WRITABLE) && !(s->control & ~CNT_WRITABLE) &&
        !(s->reset & ~RESET_WRITABLE))
        return true;
    g_set_error(error, HSK_ERROR, HSK_ERROR_DAMAGED,
                "The saved state of %s is not one that it can have.", dev->id);
    return false;
}

static void pm_resume(struct hsk_dev *dev)
{
    HSK_DEV_GUARD(dev);

    update((struct acpi_pm *)dev);
}

static void pm_free(struct hsk_dev *dev)
{
    hsk_timer_free(((struct acpi_pm *)dev)->timer);
    hsk_bus_unmap(hsk_machine_pio(dev->machine), HSK_PMBASE, dev);
    hsk_dev_finish(dev);
    g_free(dev);
}

static const struct hsk_dev_ops acpi_pm_ops = {
    .state = {"acpi-pm", 1, sizeof(struct acpi_pm_state), acpi_pm_fields,
              G_N_ELEMENTS(acpi_pm_fields)},
    .state_offset = offsetof(struct acpi_pm, s),
    .min_size = 1,
    .max_size = 4,
    .read = pm_read,
    .write = pm_write,
    .reset = pm_reset,
    .check = pm_check,
    .resume = pm_resume,
    .free = pm_free,
};

struct hsk_dev *hsk_acpi_pm_new(struct hsk_machine *m, const char *id, struct hsk_irq *irq)
{
    struct acpi_pm *p = g_new0(struct acpi_pm, 1);

    hsk_dev_init(&p->dev, &acpi_pm_ops, m, id);
    p->irq = irq;
    p->clock = hsk_machine_clock(m);
    p->timer = hsk_timer_new(hsk_machine_loop(m), timer_expired, p);
    hsk_assert(hsk_bus_map(hsk_machine_pio(m), HSK_PMBASE, PM_SIZE, &p->dev, 0));
    return &p->dev;
}
