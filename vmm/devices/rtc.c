/* SPDX-License-Identifier: MIT */
/*
 * The real-time clock and CMOS memory (Motorola MC146818A data sheet; second bank of 128 bytes as
 * in the ICH) at 0x70-0x73.
 *
 * The time is the guest's UTC (hsk_clock_wall_ns) plus what the guest set it off by, in whole
 * seconds; nothing ticks. The flags of register C are brought up to date when somebody looks, and
 * by a timer while an interrupt is enabled.
 *
 * Threads: under the device's lock; the timer runs on the loop thread and takes it.
 *
 * Deliberately missing: stopping the divider chain (register A, bits 4-6), daylight saving
 * (register B, bit 0), square wave, NMI mask (port 0x70, bit 7), day of the week as a value of its
 * own, sub-second phase of a set time.
 */
#include <base/clock.h>
#include <vmm/machine.h>

#include "devices.h"

#define BANK     128
#define NS_PER_S 1000000000ull
#define UIP_NS   244000u /* the update flag stands so long before a second ends */
#define CRYSTAL  32768u
#define DAY_S    86400

enum {
    REG_SECOND,
    REG_SECOND_ALARM,
    REG_MINUTE,
    REG_MINUTE_ALARM,
    REG_HOUR,
    REG_HOUR_ALARM,
    REG_WEEKDAY,
    REG_DAY,
    REG_MONTH,
    REG_YEAR,
    REG_A,
    REG_B,
    REG_C,
    REG_D,
    REG_CENTURY = 0x32,
};

#define A_UIP        0x80
#define B_SET        0x80
#define B_BINARY     0x04
#define B_24H        0x02
#define IRQ_PERIODIC 0x40 /* the same bits enable in B and flag in C */
#define IRQ_ALARM    0x20
#define IRQ_UPDATE   0x10
#define IRQ_ALL      0x70
#define C_IRQF       0x80
#define D_VALID      0x80
#define HOUR_PM      0x80
#define ALARM_ANY    0xc0

struct rtc_state {
    uint64_t offset_s;      /* two's complement: clock - guest UTC */
    uint64_t last_s;        /* second of the last look: the flags know of all before */
    uint64_t last_periodic; /* the same for the periodic tap, in its periods */
    uint32_t index, ext_index;
    uint8_t cmos[BANK]; /* time registers: valid only while B_SET; C: without IRQF */
    uint8_t ext[BANK];
};

struct rtc {
    struct hsk_dev dev;
    struct rtc_state s; /* device lock */
    uint64_t memory_bytes;
    struct hsk_irq *irq;
    struct hsk_clock *clock;
    struct hsk_timer *timer;
};

#define F(m, ...)  HSK_F(struct rtc_state, m, __VA_ARGS__)
#define FA(m, ...) HSK_FA(struct rtc_state, m, __VA_ARGS__)
static const struct hsk_field rtc_fields[] = {
    F(offset_s),
    F(last_s),
    F(last_periodic),
    F(index, .max = BANK - 1),
    F(ext_index, .max = BANK - 1),
    FA(cmos),
    FA(ext),
};
#undef F
#undef FA

/* ---- calendar ---- */

struct civil {
    int64_t year;
    unsigned month, day, hour, minute, second, weekday; /* weekday: 1 = Sunday */
};

/* Proleptic Gregorian calendar, in years that begin in March and eras of 400 of them. */
static int64_t days_of(int64_t year, unsigned month, unsigned day)
{
    int64_t y = month <= 2 ? year - 1 : year, era = (y >= 0 ? y : y - 399) / 400;
    int64_t yoe = y - era * 400,
            doy = (153 * (int64_t)(month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1;

    return era * 146097 + yoe * 365 + yoe / 4 - yoe / 100 + doy - 719468;
}

static struct civil civil_of(int64_t seconds)
{
    int64_t days = seconds / DAY_S - (seconds % DAY_S < 0), rest = seconds - days * DAY_S;
    int64_t z = days + 719468, era = (z >= 0 ? z : z - 146096) / 146097, doe = z - era * 146097;
    int64_t yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365,
            doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    int64_t mp = (5 * doy + 2) / 153;
    struct civil c = {
        .day = (unsigned)(doy - (153 * mp + 2) / 5 + 1),
        .month = (unsigned)(mp < 10 ? mp + 3 : mp - 9),
        .hour = (unsigned)(rest / 3600),
        .minute = (unsigned)(rest / 60 % 60),
        .second = (unsigned)(rest % 60),
        .weekday = (unsigned)(((days + 4) % 7 + 7) % 7 + 1),
    };

    c.year = yoe + era * 400 + (c.month <= 2);
    return c;
}

static uint8_t encode(const struct rtc_state *s, unsigned v)
{
    return (uint8_t)(s->cmos[REG_B] & B_BINARY ? v : (v / 10 % 10) << 4 | v % 10);
}

static unsigned decode(const struct rtc_state *s, uint8_t v)
{
    return s->cmos[REG_B] & B_BINARY ? v : (v >> 4) * 10u + (v & 15);
}

static uint8_t encode_hour(const struct rtc_state *s, unsigned hour)
{
    if (s->cmos[REG_B] & B_24H)
        return encode(s, hour);
    return encode(s, hour % 12 ? hour % 12 : 12) | (hour >= 12 ? HOUR_PM : 0);
}

static unsigned decode_hour(const struct rtc_state *s, uint8_t v)
{
    if (s->cmos[REG_B] & B_24H)
        return decode(s, v);
    return decode(s, v & 0x7f) % 12 + (v & HOUR_PM ? 12 : 0);
}

/* ---- time ---- */

static int64_t now_s(const struct rtc *r)
{
    return (int64_t)(hsk_clock_wall_ns(r->clock) / NS_PER_S + r->s.offset_s);
}

static void registers_from_time(struct rtc *r)
{
    struct rtc_state *s = &r->s;
    struct civil c = civil_of(now_s(r));

    s->cmos[REG_SECOND] = encode(s, c.second);
    s->cmos[REG_MINUTE] = encode(s, c.minute);
    s->cmos[REG_HOUR] = encode_hour(s, c.hour);
    s->cmos[REG_WEEKDAY] = encode(s, c.weekday);
    s->cmos[REG_DAY] = encode(s, c.day);
    s->cmos[REG_MONTH] = encode(s, c.month);
    s->cmos[REG_YEAR] = encode(s, (unsigned)((c.year % 100 + 100) % 100));
    s->cmos[REG_CENTURY] = encode(s, (unsigned)((c.year / 100 % 100 + 100) % 100));
}

/* What the guest wrote may be no date at all; any value gives some time. */
static void time_from_registers(struct rtc *r)
{
    struct rtc_state *s = &r->s;
    unsigned month = CLAMP(decode(s, s->cmos[REG_MONTH]), 1u, 12u),
             day = CLAMP(decode(s, s->cmos[REG_DAY]), 1u, 31u);
    unsigned century = decode(s, s->cmos[REG_CENTURY]);
    int64_t year =
        (century >= 19 && century <= 99 ? century : 20) * 100 + decode(s, s->cmos[REG_YEAR]) % 100;
    int64_t t = days_of(year, month, day) * DAY_S + decode_hour(s, s->cmos[REG_HOUR]) * 3600 +
                decode(s, s->cmos[REG_MINUTE]) * 60 + decode(s, s->cmos[REG_SECOND]);

    s->offset_s = (uint64_t)t - hsk_clock_wall_ns(r->clock) / NS_PER_S;
    s->last_s = (uint64_t)t;
}

/* ---- flags and the interrupt ---- */

static bool alarm_field(const struct rtc_state *s, unsigned reg, unsigned value)
{
    uint8_t v = s->cmos[reg];

    if ((v & ALARM_ANY) == ALARM_ANY)
        return true;
    return (reg == REG_HOUR_ALARM ? decode_hour(s, v) : decode(s, v)) == value;
}

/* Does the alarm go off in a second after from, up to and including to? */
static bool alarm_between(const struct rtc_state *s, int64_t from, int64_t to)
{
    if (to - from > DAY_S)
        from = to - DAY_S; /* a day holds every time of day */
    for (int64_t t = from + 1; t <= to; t++) {
        unsigned of_day = (unsigned)((t % DAY_S + DAY_S) % DAY_S);

        if (alarm_field(s, REG_SECOND_ALARM, of_day % 60) &&
            alarm_field(s, REG_MINUTE_ALARM, of_day / 60 % 60) &&
            alarm_field(s, REG_HOUR_ALARM, of_day / 3600))
            return true;
    }
    return false;
}

/* log2 of the periodic tap's period in crystal ticks; -1 = off. */
static int periodic_shift(const struct rtc_state *s)
{
    unsigned rate = s->cmos[REG_A] & 15;

    return rate == 0 ? -1 : rate <= 2 ? (int)rate + 6 : (int)rate - 1;
}

static uint64_t periodic_count(const struct rtc *r)
{
    int shift = periodic_shift(&r->s);

    return shift < 0 ? 0
                     : (uint64_t)((unsigned __int128)hsk_clock_ns(r->clock) * CRYSTAL / NS_PER_S) >>
                           shift;
}

static void timer_arm(struct rtc *r)
{
    const struct rtc_state *s = &r->s;
    uint8_t missing = s->cmos[REG_B] & (uint8_t)~s->cmos[REG_C] & IRQ_ALL;
    uint64_t now = hsk_clock_ns(r->clock), at = UINT64_MAX;
    int shift = periodic_shift(s);

    if ((missing & IRQ_PERIODIC) && shift >= 0)
        at = (uint64_t)(((unsigned __int128)((s->last_periodic + 1) << shift) * NS_PER_S + CRYSTAL -
                         1) /
                        CRYSTAL);
    if ((missing & (IRQ_UPDATE | IRQ_ALARM)) && !(s->cmos[REG_B] & B_SET))
        at = MIN(at, now + NS_PER_S - hsk_clock_wall_ns(r->clock) % NS_PER_S);
    if (at == UINT64_MAX)
        hsk_timer_disarm(r->timer);
    else
        hsk_timer_arm(r->timer, at);
}

/* Brings register C, the line and the timer up to date. */
static void update(struct rtc *r)
{
    struct rtc_state *s = &r->s;
    int64_t now = now_s(r), last = (int64_t)s->last_s;
    uint64_t periods = periodic_count(r);

    if (periods != s->last_periodic) {
        s->last_periodic = periods;
        s->cmos[REG_C] |= IRQ_PERIODIC;
    }
    if (now != last && !(s->cmos[REG_B] & B_SET)) {
        s->cmos[REG_C] |= IRQ_UPDATE;
        /* The host's clock may have been set back: then there is nothing between. */
        if (now > last && alarm_between(s, last, now))
            s->cmos[REG_C] |= IRQ_ALARM;
        s->last_s = (uint64_t)now;
    }
    if (r->irq)
        hsk_irq_set(r->irq, s->cmos[REG_B] & s->cmos[REG_C] & IRQ_ALL);
    timer_arm(r);
}

static void timer_expired(void *opaque)
{
    struct rtc *r = opaque;
    HSK_DEV_GUARD(&r->dev);

    update(r);
}

/* ---- registers ---- */

static bool time_register(unsigned reg)
{
    return reg == REG_SECOND || reg == REG_MINUTE ||
           (reg >= REG_HOUR && reg <= REG_YEAR && reg != REG_HOUR_ALARM) || reg == REG_CENTURY;
}

static uint8_t data_read(struct rtc *r)
{
    struct rtc_state *s = &r->s;
    unsigned reg = s->index;
    uint8_t value;

    update(r);
    switch (reg) {
    case REG_A:
        value = s->cmos[REG_A];
        if (!(s->cmos[REG_B] & B_SET) &&
            hsk_clock_wall_ns(r->clock) % NS_PER_S >= NS_PER_S - UIP_NS)
            value |= A_UIP;
        return value;
    case REG_C:
        value = s->cmos[REG_C] | (s->cmos[REG_B] & s->cmos[REG_C] & IRQ_ALL ? C_IRQF : 0);
        s->cmos[REG_C] = 0;
        update(r);
        return value;
    default:
        if (time_register(reg) && !(s->cmos[REG_B] & B_SET))
            registers_from_time(r);
        return s->cmos[reg];
    }
}

static void control_b_write(struct rtc *r, uint8_t value)
{
    struct rtc_state *s = &r->s;
    bool was_set = s->cmos[REG_B] & B_SET;

    if ((value & B_SET) && !was_set)
        registers_from_time(r);
    if (value & B_SET)
        value &= (uint8_t)~IRQ_UPDATE; /* data sheet: SET clears UIE */
    s->cmos[REG_B] = value;
    if (!(value & B_SET) && was_set)
        time_from_registers(r);
}

static void data_write(struct rtc *r, uint8_t value)
{
    struct rtc_state *s = &r->s;
    unsigned reg = s->index;

    update(r);
    switch (reg) {
    case REG_A:
        s->cmos[REG_A] = value & 0x7f;
        s->last_periodic = periodic_count(r);
        break;
    case REG_B:
        control_b_write(r, value);
        break;
    case REG_C:
    case REG_D:
        break;
    default:
        if (time_register(reg) && !(s->cmos[REG_B] & B_SET)) {
            registers_from_time(r);
            s->cmos[reg] = value;
            time_from_registers(r);
        }
        s->cmos[reg] = value;
        break;
    }
    update(r);
}

static uint64_t rtc_read(struct hsk_dev *dev, unsigned region, uint64_t offset, unsigned size)
{
    struct rtc *r = (struct rtc *)dev;

    switch (offset) {
    case 1:
        return data_read(r);
    case 2:
        return r->s.ext_index;
    case 3:
        return r->s.ext[r->s.ext_index];
    default: /* the index is write-only */
        return 0xff;
    }
}

static void rtc_write(struct hsk_dev *dev, unsigned region, uint64_t offset, unsigned size,
                      uint64_t value)
{
    struct rtc *r = (struct rtc *)dev;

    switch (offset) {
    case 0:
        r->s.index = value & (BANK - 1);
        break;
    case 1:
        data_write(r, (uint8_t)value);
        break;
    case 2:
        r->s.ext_index = value & (BANK - 1);
        break;
    default:
        r->s.ext[r->s.ext_index] = (uint8_t)value;
        break;
    }
}

/* ---- life cycle ---- */

/* What the set-up program of an AT leaves in the memory. */
static void fill_cmos(struct rtc *r)
{
    uint8_t *c = r->s.cmos;
    uint64_t low = MIN(r->memory_bytes, HSK_LOWMEM_MAX);
    uint16_t above_1m_kib = (uint16_t)MIN((low >> 10) - 1024, 0xffff);
    uint16_t above_16m_64k = (uint16_t)MIN((low - (16 << 20)) >> 16, 0xffff);
    uint32_t above_4g_64k = (uint32_t)MIN((r->memory_bytes - low) >> 16, 0xffffff);

    c[REG_A] = 0x26; /* 32.768 kHz, 1024 Hz tap */
    c[REG_B] = B_24H;
    c[REG_D] = D_VALID;
    c[0x14] = 0x06; /* coprocessor and mouse */
    hsk_put16(c + 0x15, 640);
    hsk_put16(c + 0x17, above_1m_kib);
    hsk_put16(c + 0x30, above_1m_kib);
    hsk_put16(c + 0x34, above_16m_64k);
    hsk_put16(c + 0x5b, (uint16_t)above_4g_64k);
    c[0x5d] = (uint8_t)(above_4g_64k >> 16);
}

static void rtc_reset(struct hsk_dev *dev)
{
    struct rtc *r = (struct rtc *)dev;

    memset(&r->s, 0, sizeof(r->s));
    fill_cmos(r);
    r->s.last_s = (uint64_t)now_s(r);
    r->s.last_periodic = periodic_count(r);
}

static bool rtc_check(struct hsk_dev *dev, GError **error)
{
    const struct rtc_state *s = &((struct rtc *)dev)->s;

    if (!(s->cmos[REG_A] & A_UIP) && !(s->cmos[REG_C] & (uint8_t)~IRQ_ALL) &&
        s->cmos[REG_D] == D_VALID && (int64_t)s->offset_s > -(1ll << 40) &&
        (int64_t)s->offset_s < 1ll << 40 && (int64_t)s->last_s > -(1ll << 40) &&
        (int64_t)s->last_s < 1ll << 40)
        return true;
    g_set_error(error, HSK_ERROR, HSK_ERROR_DAMAGED,
                "The saved state of %s is not one that a clock can have.", dev->id);
    return false;
}

static void rtc_resume(struct hsk_dev *dev)
{
    HSK_DEV_GUARD(dev);

    update((struct rtc *)dev);
}

static void rtc_free(struct hsk_dev *dev)
{
    hsk_timer_free(((struct rtc *)dev)->timer);
    hsk_bus_unmap(hsk_machine_pio(dev->machine), 0x70, dev);
    hsk_dev_finish(dev);
    g_free(dev);
}

static const struct hsk_dev_ops rtc_ops = {
    .state = {"rtc", 1, sizeof(struct rtc_state), rtc_fields, G_N_ELEMENTS(rtc_fields)},
    .state_offset = offsetof(struct rtc, s),
    .min_size = 1,
    .max_size = 1,
    .read = rtc_read,
    .write = rtc_write,
    .reset = rtc_reset,
    .check = rtc_check,
    .resume = rtc_resume,
    .free = rtc_free,
};

struct hsk_dev *hsk_rtc_new(struct hsk_machine *m, const char *id, struct hsk_irq *irq,
                            uint64_t memory_bytes)
{
    struct rtc *r = g_new0(struct rtc, 1);

    hsk_dev_init(&r->dev, &rtc_ops, m, id);
    r->irq = irq;
    r->memory_bytes = memory_bytes;
    r->clock = hsk_machine_clock(m);
    r->timer = hsk_timer_new(hsk_machine_loop(m), timer_expired, r);
    hsk_assert(hsk_bus_map(hsk_machine_pio(m), 0x70, 4, &r->dev, 0));
    return &r->dev;
}
