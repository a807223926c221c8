/* SPDX-License-Identifier: MIT */
/*
 * Interrupt lines of the board: GSI n goes to the I/O APIC and, for the 16 ISA lines, to the PIC as
 * well; which of them the guest listens to is its choice. ISA IRQ 0 arrives at I/O APIC pin 2 (MADT
 * override), pin 0 is the PIC's and unused. Any thread, with device locks held; takes only the
 * locks of the two interrupt controllers.
 */
#include "devices/devices.h"
#include "machine-priv.h"

static void gsi_set(struct hsk_irq *irq, bool level)
{
    struct gsi *g = hsk_container_of(irq, struct gsi, irq);

    if (g->n < 16 && g->m->pic)
        hsk_pic_set(g->m->pic, g->n, level);
    if (g->m->ioapic && g->n != 2)
        hsk_ioapic_set(g->m->ioapic, g->n == 0 ? 2 : g->n, level);
}

void hsk_machine_init_irqs(struct hsk_machine *m)
{
    for (unsigned i = 0; i < HSK_NGSI; i++)
        m->gsi[i] = (struct gsi){.irq = {.set = gsi_set}, .m = m, .n = i};
}

struct hsk_irq *hsk_machine_gsi(struct hsk_machine *m, unsigned n)
{
    hsk_assert(n < HSK_NGSI);
    return &m->gsi[n].irq;
}
