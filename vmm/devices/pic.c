/* SPDX-License-Identifier: MIT */
/*
 * The two cascaded 8259A interrupt controllers (Intel 8259A data sheet) with the ELCR of the ICH
 * (0x4d0, 0x4d1).
 *
 * Threads: any. Lines are set with device locks held, so the state has a leaf lock of its own; the
 * output goes to LINT0 of local APIC 0 under it (order: PIC, then local APIC).
 *
 * Deliberately missing: MCS-80 mode, buffered mode's pin, cascades other than slave on line 2.
 */
#include <vmm/lapic.h>
#include <vmm/machine.h>

#include "devices.h"

struct pic_state {
    uint8_t irr[2], imr[2], isr[2];
    uint8_t lines[2]; /* levels of the inputs (line 2 of the master is the slave's output) */
    uint8_t elcr[2];
    uint8_t base[2];      /* ICW2: bits 3-7 of the vector */
    uint8_t lowest[2];    /* the line of lowest priority (rotation) */
    uint8_t init_step[2]; /* 0 done, else the ICW (2, 3, 4) that comes next */
    uint8_t icw4_needed[2];
    uint8_t icw4[2];
    uint8_t single[2];   /* ICW1 SNGL: no ICW3 */
    uint8_t read_isr[2]; /* OCW3: what a read of the command port gives */
    uint8_t poll[2];     /* OCW3: the next read is a poll */
    uint8_t special_mask[2];
    uint8_t rotate_aeoi[2];
    uint8_t ltim[2]; /* ICW1 LTIM: all lines level triggered */
};

struct pic {
    struct hsk_dev dev;
    pthread_mutex_t leaf;
    struct pic_state s; /* leaf lock */
    bool output;        /* leaf lock; derived: INTR as the local APIC was told last */
};

#define FA(m, ...) HSK_FA(struct pic_state, m, __VA_ARGS__)
static const struct hsk_field pic_fields[] = {
    FA(irr),
    FA(imr),
    FA(isr),
    FA(lines),
    FA(elcr),
    FA(base, .max = 0xf8),
    FA(lowest, .max = 7),
    FA(init_step, .max = 4),
    FA(icw4_needed, .max = 1),
    FA(icw4, .max = 0x1f),
    FA(single, .max = 1),
    FA(read_isr, .max = 1),
    FA(poll, .max = 1),
    FA(special_mask, .max = 1),
    FA(rotate_aeoi, .max = 1),
    FA(ltim, .max = 1),
};
#undef FA

enum { REGION_MASTER, REGION_SLAVE, REGION_ELCR };
#define CASCADE   2
#define ICW4_AEOI 0x02
#define ICW4_SFNM 0x10

/* Lines that follow their level. The slave's output does too: the slave latches edges itself. */
static uint8_t level_lines(const struct pic_state *s, unsigned c)
{
    uint8_t mask = s->ltim[c] ? 0xff : s->elcr[c];

    return c == 0 ? mask | 1u << CASCADE : mask;
}

/* Rank of the highest priority bit in mask (0 is highest), 8 if none. */
static unsigned rank_of(const struct pic_state *s, unsigned c, uint8_t mask)
{
    for (unsigned rank = 0; rank < 8; rank++)
        if (mask >> ((s->lowest[c] + 1 + rank) & 7) & 1)
            return rank;
    return 8;
}

static int line_of_rank(const struct pic_state *s, unsigned c, unsigned rank)
{
    return (int)((s->lowest[c] + 1 + rank) & 7);
}

/* The line that chip c requests service for, or -1. */
static int request(const struct pic_state *s, unsigned c)
{
    unsigned rank = rank_of(s, c, s->irr[c] & (uint8_t)~s->imr[c]);
    uint8_t in_service = s->isr[c];

    if (rank == 8)
        return -1;
    if (s->special_mask[c])
        in_service &= (uint8_t)~s->imr[c];
    if (c == 0 && (s->icw4[0] & ICW4_SFNM))
        in_service &= (uint8_t) ~(1u << CASCADE);
    return rank < rank_of(s, c, in_service) ? line_of_rank(s, c, rank) : -1;
}

static void line_locked(struct pic_state *s, unsigned c, unsigned line, bool level)
{
    uint8_t bit = (uint8_t)(1u << line);

    if (level_lines(s, c) & bit)
        s->irr[c] = level ? s->irr[c] | bit : s->irr[c] & (uint8_t)~bit;
    else if (level && !(s->lines[c] & bit))
        s->irr[c] |= bit;
    s->lines[c] = level ? s->lines[c] | bit : s->lines[c] & (uint8_t)~bit;
}

static void update_locked(struct pic *p, bool tell_always)
{
    bool output;

    line_locked(&p->s, 0, CASCADE, request(&p->s, 1) >= 0);
    output = request(&p->s, 0) >= 0;
    if (output != p->output || tell_always)
        hsk_lapic_set_extint(hsk_machine_lapic(p->dev.machine, 0), output);
    p->output = output;
}

void hsk_pic_set(struct hsk_dev *dev, unsigned line, bool level)
{
    struct pic *p = (struct pic *)dev;

    if (line >= 16 || line == CASCADE)
        return;
    pthread_mutex_lock(&p->leaf);
    line_locked(&p->s, line / 8, line % 8, level);
    update_locked(p, false);
    pthread_mutex_unlock(&p->leaf);
}

static void acknowledge_line(struct pic_state *s, unsigned c, unsigned line)
{
    uint8_t bit = (uint8_t)(1u << line);

    if (s->icw4[c] & ICW4_AEOI) {
        if (s->rotate_aeoi[c])
            s->lowest[c] = (uint8_t)line;
    } else {
        s->isr[c] |= bit;
    }
    if (!(level_lines(s, c) & bit))
        s->irr[c] &= (uint8_t)~bit;
}

int hsk_pic_ack(struct hsk_machine *m)
{
    struct pic *p = (struct pic *)hsk_machine_find_dev(m, "pic");
    int line, vector;

    if (!p)
        return -1;
    pthread_mutex_lock(&p->leaf);
    line = request(&p->s, 0);
    if (line == CASCADE) {
        int slave = request(&p->s, 1);

        acknowledge_line(&p->s, 0, CASCADE);
        if (slave >= 0)
            acknowledge_line(&p->s, 1, (unsigned)slave);
        vector = p->s.base[1] + (slave >= 0 ? slave : 7);
    } else {
        /* Nobody asks any more: the spurious interrupt 7, without an in-service bit. */
        if (line >= 0)
            acknowledge_line(&p->s, 0, (unsigned)line);
        vector = p->s.base[0] + (line >= 0 ? line : 7);
    }
    update_locked(p, false);
    pthread_mutex_unlock(&p->leaf);
    return vector;
}

static void icw1(struct pic_state *s, unsigned c, uint8_t value)
{
    s->imr[c] = s->isr[c] = 0;
    s->lowest[c] = 7;
    s->special_mask[c] = s->read_isr[c] = s->poll[c] = s->rotate_aeoi[c] = s->icw4[c] = 0;
    s->icw4_needed[c] = value & 1;
    s->single[c] = value >> 1 & 1;
    s->ltim[c] = value >> 3 & 1;
    /* The edge detectors are cleared: an edge line has to rise again. */
    s->irr[c] = s->lines[c] & level_lines(s, c);
    s->init_step[c] = 2;
}

static void ocw2(struct pic_state *s, unsigned c, uint8_t value)
{
    unsigned command = value >> 5, line = value & 7, rank;

    switch (command) {
    case 0: /* rotate in automatic EOI mode: clear, set */
    case 4:
        s->rotate_aeoi[c] = command == 4;
        break;
    case 1: /* non-specific EOI; 5: and rotate */
    case 5:
        rank = rank_of(s, c, s->special_mask[c] ? s->isr[c] & (uint8_t)~s->imr[c] : s->isr[c]);
        if (rank == 8)
            break;
        line = (unsigned)line_of_rank(s, c, rank);
        s->isr[c] &= (uint8_t) ~(1u << line);
        if (command == 5)
            s->lowest[c] = (uint8_t)line;
        break;
    case 3: /* specific EOI; 7: and rotate */
    case 7:
        s->isr[c] &= (uint8_t) ~(1u << line);
        if (command == 7)
            s->lowest[c] = (uint8_t)line;
        break;
    case 6: /* set priority */
        s->lowest[c] = (uint8_t)line;
        break;
    default: /* 2: no operation */
        break;
    }
}

static void command_write(struct pic_state *s, unsigned c, uint8_t value)
{
    if (value & 0x10) {
        icw1(s, c, value);
    } else if (value & 0x08) {
        s->poll[c] = value >> 2 & 1;
        if (value & 0x02)
            s->read_isr[c] = value & 1;
        if (value & 0x40)
            s->special_mask[c] = value >> 5 & 1;
    } else {
        ocw2(s, c, value);
    }
}

static void data_write(struct pic_state *s, unsigned c, uint8_t value)
{
    switch (s->init_step[c]) {
    case 2:
        s->base[c] = value & 0xf8;
        s->init_step[c] = !s->single[c] ? 3 : s->icw4_needed[c] ? 4 : 0;
        break;
    case 3: /* which line the cascade is on: wired, not programmed */
        s->init_step[c] = s->icw4_needed[c] ? 4 : 0;
        break;
    case 4:
        s->icw4[c] = value & 0x1f;
        s->init_step[c] = 0;
        break;
    default:
        s->imr[c] = value;
        break;
    }
}

static uint64_t pic_read(struct hsk_dev *dev, unsigned region, uint64_t offset, unsigned size)
{
    struct pic *p = (struct pic *)dev;
    struct pic_state *s = &p->s;
    uint8_t value;
    int line;

    pthread_mutex_lock(&p->leaf);
    if (region == REGION_ELCR) {
        value = s->elcr[offset];
    } else if (s->poll[region]) {
        s->poll[region] = 0;
        line = request(s, region);
        value = line >= 0 ? (uint8_t)(0x80 | line) : 0;
        if (line >= 0)
            acknowledge_line(s, region, (unsigned)line);
        update_locked(p, false);
    } else if (offset == 1) {
        value = s->imr[region];
    } else {
        value = s->read_isr[region] ? s->isr[region] : s->irr[region];
    }
    pthread_mutex_unlock(&p->leaf);
    return value;
}

static void pic_write(struct hsk_dev *dev, unsigned region, uint64_t offset, unsigned size,
                      uint64_t value)
{
    struct pic *p = (struct pic *)dev;
    struct pic_state *s = &p->s;

    pthread_mutex_lock(&p->leaf);
    if (region == REGION_ELCR) {
        uint8_t level;

        /* Timer, keyboard, cascade, RTC and coprocessor are always edge (ICH9 data
         * sheet, 13.8.2.10). */
        s->elcr[offset] = (uint8_t)value & (offset == 0 ? 0xf8 : 0xde);
        level = level_lines(s, (unsigned)offset);
        s->irr[offset] = (s->irr[offset] & (uint8_t)~level) | (s->lines[offset] & level);
    } else if (offset == 1) {
        data_write(s, region, (uint8_t)value);
    } else {
        command_write(s, region, (uint8_t)value);
    }
    update_locked(p, false);
    pthread_mutex_unlock(&p->leaf);
}

static void pic_reset(struct hsk_dev *dev)
{
    struct pic *p = (struct pic *)dev;

    memset(&p->s, 0, sizeof(p->s));
    p->s.lowest[0] = p->s.lowest[1] = 7;
    /* Not defined by the data sheet; firmware left out, nothing may interrupt before somebody sets
     * the vectors. */
    p->s.imr[0] = p->s.imr[1] = 0xff;
}

static bool pic_check(struct hsk_dev *dev, GError **error)
{
    struct pic *p = (struct pic *)dev;
    const struct pic_state *s = &p->s;
    bool ok = !(s->elcr[0] & ~0xf8) && !(s->elcr[1] & ~0xde);

    for (unsigned c = 0; c < 2; c++)
        if (s->init_step[c] == 1 || (s->base[c] & 7))
            ok = false;
    if (!ok)
        g_set_error(error, HSK_ERROR, HSK_ERROR_DAMAGED,
                    "The saved state of %s is not one that a PIC can have.", dev->id);
    return ok;
}

static void pic_resume(struct hsk_dev *dev)
{
    struct pic *p = (struct pic *)dev;

    pthread_mutex_lock(&p->leaf);
    update_locked(p, true);
    pthread_mutex_unlock(&p->leaf);
}

static void pic_free(struct hsk_dev *dev)
{
    struct pic *p = (struct pic *)dev;
    struct hsk_bus *pio = hsk_machine_pio(dev->machine);

    hsk_bus_unmap(pio, 0x20, dev);
    hsk_bus_unmap(pio, 0xa0, dev);
    hsk_bus_unmap(pio, 0x4d0, dev);
    pthread_mutex_destroy(&p->leaf);
    hsk_dev_finish(dev);
    g_free(p);
}

static const struct hsk_dev_ops pic_ops = {
    .state = {"pic", 1, sizeof(struct pic_state), pic_fields, G_N_ELEMENTS(pic_fields)},
    .state_offset = offsetof(struct pic, s),
    .min_size = 1,
    .max_size = 1,
    .read = pic_read,
    .write = pic_write,
    .reset = pic_reset,
    .check = pic_check,
    .resume = pic_resume,
    .free = pic_free,
};

struct hsk_dev *hsk_pic_new(struct hsk_machine *m, const char *id)
{
    struct pic *p = g_new0(struct pic, 1);
    struct hsk_bus *pio = hsk_machine_pio(m);

    hsk_dev_init(&p->dev, &pic_ops, m, id);
    pthread_mutex_init(&p->leaf, NULL);
    hsk_assert(hsk_bus_map(pio, 0x20, 2, &p->dev, REGION_MASTER));
    hsk_assert(hsk_bus_map(pio, 0xa0, 2, &p->dev, REGION_SLAVE));
    hsk_assert(hsk_bus_map(pio, 0x4d0, 2, &p->dev, REGION_ELCR));
    return &p->dev;
}
