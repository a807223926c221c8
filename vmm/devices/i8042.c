/* SPDX-License-Identifier: MIT */
/*
 * The PS/2 keyboard controller (IBM PS/2 hardware interface technical reference; ports 0x60 and
 * 0x64) with a keyboard (MF2, scan code sets 1 and 2) and a mouse (standard and IntelliMouse wheel
 * protocol) behind it.
 *
 * Bytes wait in a queue per device and move into the one output register when the guest has read
 * the last. A controller's answer goes before them: a device's byte that stood there goes back to
 * the head of its queue. Keys are translated to set 1 when they are queued.
 *
 * Threads: registers on a vCPU thread, input on the loop thread; all under the device's lock.
 *
 * Deliberately missing: typematic repeat (the host's keyboard has it off, kernels repeat
 * themselves), scan code set 3, address line 20 (always on), passwords, reading the keyboard's
 * pins.
 */
#include <vmm/machine.h>

#include "devices.h"
#include "keymap.h"

#define KBD_QUEUE  256
#define KBD_ROOM   128 /* beyond this no press is taken: the rest is for releases */
#define AUX_QUEUE  64
#define MOTION_MAX (1 << 16)

enum { PORT_DATA = 0, PORT_COMMAND = 4 };

#define STATUS_OBF  0x01
#define STATUS_SYS  0x04
#define STATUS_A2   0x08
#define STATUS_OPEN 0x10
#define STATUS_AUX  0x20
#define CFG_KBD_INT 0x01
#define CFG_AUX_INT 0x02
#define CFG_SYS     0x04
#define CFG_KBD_OFF 0x10
#define CFG_AUX_OFF 0x20
#define CFG_XLATE   0x40
#define OUT_RUN     0x01 /* output port: 0 holds the processor in reset */
#define OUT_A20     0x02

#define PS2_ACK    0xfa
#define PS2_RESEND 0xfe
#define PS2_OK     0xaa

enum { SRC_NONE, SRC_KBD, SRC_AUX, SRC_CTL, SRC_MAX = SRC_CTL };

struct i8042_state {
    uint32_t dx, dy, dz; /* motion not reported yet, two's complement; dy up, dz towards the user */
    uint16_t kbd_len, aux_len;
    uint16_t kbd_typematic, rate, resolution; /* bytes; as words they leave no padding */
    uint8_t kbd[KBD_QUEUE];
    uint8_t aux[AUX_QUEUE];
    uint8_t down[32]; /* evdev codes 0-255 */
    /* controller */
    uint8_t config, out_byte, out_source,
        out_aux;      /* out_aux: the register shows itself as the mouse's */
    uint8_t command;  /* waits for its data byte; 0 = none */
    uint8_t a2;       /* the last write was a command */
    uint8_t out_port; /* as last written, RUN and A20 */
    /* keyboard */
    uint8_t kbd_command, kbd_scanning, kbd_set, kbd_leds, kbd_last;
    /* mouse */
    uint8_t aux_command, aux_last, reporting, scaling, remote, wrap;
    uint8_t buttons, buttons_sent;
    uint8_t wheel; /* device id 3 instead of 0 */
    uint8_t magic; /* how much of 200, 100, 80 was seen */
};

struct i8042 {
    struct hsk_dev dev;
    struct i8042_state s; /* device lock */
    struct hsk_irq *kbd_irq, *aux_irq;
};

#define F(m, ...)  HSK_F(struct i8042_state, m, __VA_ARGS__)
#define FA(m, ...) HSK_FA(struct i8042_state, m, __VA_ARGS__)
static const struct hsk_field i8042_fields[] = {
    F(dx),
    F(dy),
    F(dz),
    F(kbd_len, .max = KBD_QUEUE),
    F(aux_len, .max = AUX_QUEUE),
    FA(kbd),
    FA(aux),
    FA(down),
    F(config, .max = 0x7f),
    F(out_byte),
    F(out_source, .max = SRC_MAX),
    F(out_aux, .max = 1),
    F(command),
    F(a2, .max = 1),
    F(out_port, .max = OUT_RUN | OUT_A20),
    F(kbd_command),
    F(kbd_scanning, .max = 1),
    F(kbd_set, .max = 2),
    F(kbd_leds, .max = 7),
    F(kbd_typematic, .max = 0x7f),
    F(kbd_last),
    F(aux_command),
    F(aux_last),
    F(reporting, .max = 1),
    F(scaling, .max = 1),
    F(remote, .max = 1),
    F(wrap, .max = 1),
    F(rate, .max = 0xff),
    F(resolution, .max = 3),
    F(buttons, .max = 7),
    F(buttons_sent, .max = 7),
    F(wheel, .max = 1),
    F(magic, .max = 2),
};
#undef F
#undef FA

/* ---- the output register ---- */

static void irq_publish(struct i8042 *k)
{
    const struct i8042_state *s = &k->s;
    bool full = s->out_source != SRC_NONE;

    if (k->kbd_irq)
        hsk_irq_set(k->kbd_irq, full && !s->out_aux && (s->config & CFG_KBD_INT));
    if (k->aux_irq)
        hsk_irq_set(k->aux_irq, full && s->out_aux && (s->config & CFG_AUX_INT));
}

static uint8_t queue_pop(uint8_t *queue, uint16_t *len)
{
    uint8_t byte = queue[0];

    *len -= 1;
    memmove(queue, queue + 1, *len);
    queue[*len] = 0;
    return byte;
}

/* Into the head; a full queue loses its last byte. */
static void queue_unpop(uint8_t *queue, uint16_t *len, uint16_t size, uint8_t byte)
{
    if (*len == size)
        *len -= 1;
    memmove(queue + 1, queue, *len);
    queue[0] = byte;
    *len += 1;
}

static void mouse_report(struct i8042_state *s);

/* Fills the output register if it is empty and a device that may send has something. */
static void pump(struct i8042 *k)
{
    struct i8042_state *s = &k->s;

    if (s->out_source == SRC_NONE) {
        if (s->aux_len == 0 && s->reporting && !s->remote)
            mouse_report(s);
        if (s->kbd_len && !(s->config & CFG_KBD_OFF)) {
            s->out_byte = s->kbd_last = queue_pop(s->kbd, &s->kbd_len);
            s->out_source = SRC_KBD;
            s->out_aux = 0;
        } else if (s->aux_len && !(s->config & CFG_AUX_OFF)) {
            s->out_byte = s->aux_last = queue_pop(s->aux, &s->aux_len);
            s->out_source = SRC_AUX;
            s->out_aux = 1;
        }
    }
    irq_publish(k);
}

static void controller_answer(struct i8042 *k, uint8_t byte, bool as_aux)
{
    struct i8042_state *s = &k->s;

    if (s->out_source == SRC_KBD)
        queue_unpop(s->kbd, &s->kbd_len, KBD_QUEUE, s->out_byte);
    else if (s->out_source == SRC_AUX)
        queue_unpop(s->aux, &s->aux_len, AUX_QUEUE, s->out_byte);
    s->out_source = SRC_NONE;
    irq_publish(k); /* an edge for the new byte */
    s->out_byte = byte;
    s->out_source = SRC_CTL;
    s->out_aux = as_aux;
    irq_publish(k);
}

/* ---- keyboard ---- */

static void kbd_put(struct i8042_state *s, const uint8_t *bytes, unsigned n)
{
    if (s->kbd_len + n > KBD_QUEUE)
        return;
    memcpy(s->kbd + s->kbd_len, bytes, n);
    s->kbd_len += (uint16_t)n;
}

static void kbd_put1(struct i8042_state *s, uint8_t byte)
{
    kbd_put(s, &byte, 1);
}

static void kbd_clear(struct i8042_state *s)
{
    memset(s->kbd, 0, sizeof s->kbd);
    s->kbd_len = 0;
}

static bool is_down(const struct i8042_state *s, unsigned code)
{
    return s->down[code / 8] >> (code % 8) & 1;
}

static void key_event(struct i8042_state *s, uint16_t code, bool down)
{
    enum { LEFT_CTRL = 29, LEFT_ALT = 56, RIGHT_CTRL = 97, RIGHT_ALT = 100 };
    struct hsk_key_modifiers mod = {
        .alt = is_down(s, LEFT_ALT) || is_down(s, RIGHT_ALT),
        .ctrl = is_down(s, LEFT_CTRL) || is_down(s, RIGHT_CTRL),
    };
    uint8_t bytes[HSK_SCANCODE_MAX];
    unsigned n;

    /* Repeats of the host's keyboard are not presses; a release without a press happened elsewhere.
     */
    if (code > 255 || is_down(s, code) == down)
        return;
    /* A press that finds no room did not happen, nor will its release: so there is always room for
     * the other releases. */
    if (down && s->kbd_len > KBD_ROOM)
        return;
    s->down[code / 8] ^= (uint8_t)(1u << (code % 8));
    if (!s->kbd_scanning)
        return;
    n = hsk_keymap_scancode(code, down, s->config & CFG_XLATE ? 1 : s->kbd_set, mod, bytes);
    kbd_put(s, bytes, n);
}

void hsk_i8042_key(struct hsk_dev *dev, uint16_t code, bool down)
{
    struct i8042 *k = (struct i8042 *)dev;
    HSK_DEV_GUARD(dev);

    key_event(&k->s, code, down);
    pump(k);
}

static void kbd_defaults(struct i8042_state *s)
{
    s->kbd_set = 2;
    s->kbd_typematic = 0x2b;
    s->kbd_command = 0;
}

/* The data byte of ED, F0, F3. */
static void kbd_argument(struct i8042 *k, uint8_t command, uint8_t value)
{
    struct i8042_state *s = &k->s;

    s->kbd_command = 0;
    switch (command) {
    case 0xed:
        s->kbd_leds = value & 7;
        kbd_put1(s, PS2_ACK);
        hsk_machine_post_event(k->dev.machine, HSK_EVENT_LEDS, s->kbd_leds, NULL);
        break;
    case 0xf0:
        if (value > 2) {
            kbd_put1(s, PS2_RESEND); /* set 3: see the top */
            break;
        }
        kbd_put1(s, PS2_ACK);
        if (value == 0)
            kbd_put1(s, s->config & CFG_XLATE ? (s->kbd_set == 1 ? 0x43 : 0x41) : s->kbd_set);
        else
            s->kbd_set = value;
        break;
    default:
        s->kbd_typematic = value & 0x7f;
        kbd_put1(s, PS2_ACK);
        break;
    }
}

static void kbd_write(struct i8042 *k, uint8_t value)
{
    struct i8042_state *s = &k->s;

    if (s->kbd_command && value < 0xed) {
        kbd_argument(k, s->kbd_command, value);
        return;
    }
    s->kbd_command = 0;
    switch (value) {
    case 0xed:
    case 0xf0:
    case 0xf3:
        s->kbd_command = value;
        kbd_put1(s, PS2_ACK);
        break;
    case 0xee:
        kbd_put1(s, 0xee);
        break;
    case 0xf2:
        /* The controller translates the second byte of the identification too. */
        kbd_put(s, (const uint8_t[]){PS2_ACK, 0xab, s->config & CFG_XLATE ? 0x41 : 0x83}, 3);
        break;
    case 0xf4:
    case 0xf5:
    case 0xf6:
        kbd_clear(s);
        if (value != 0xf4)
            kbd_defaults(s);
        s->kbd_scanning = value != 0xf5;
        kbd_put1(s, PS2_ACK);
        break;
    case 0xfe:
        kbd_put1(s, s->kbd_last);
        break;
    case 0xff:
        kbd_clear(s);
        kbd_defaults(s);
        s->kbd_scanning = 1;
        s->kbd_leds = 0;
        kbd_put(s, (const uint8_t[]){PS2_ACK, PS2_OK}, 2);
        break;
    default:
        kbd_put1(s, PS2_RESEND);
        break;
    }
}

/* ---- mouse ---- */

static void aux_put(struct i8042_state *s, const uint8_t *bytes, unsigned n)
{
    if (s->aux_len + n > AUX_QUEUE)
        return;
    memcpy(s->aux + s->aux_len, bytes, n);
    s->aux_len += (uint16_t)n;
}

static void aux_put1(struct i8042_state *s, uint8_t byte)
{
    aux_put(s, &byte, 1);
}

static void aux_clear(struct i8042_state *s)
{
    memset(s->aux, 0, sizeof s->aux);
    s->aux_len = 0;
    s->dx = s->dy = s->dz = 0;
}

static int32_t take(uint32_t *accumulated, int32_t limit)
{
    int32_t v = CLAMP((int32_t)*accumulated, -limit, limit);

    *accumulated -= (uint32_t)v;
    return v;
}

static void packet(struct i8042_state *s)
{
    int32_t dx = take(&s->dx, 255), dy = take(&s->dy, 255), dz = take(&s->dz, 127);
    uint8_t bytes[4] = {
        (uint8_t)(0x08 | s->buttons | (dx < 0 ? 0x10 : 0) | (dy < 0 ? 0x20 : 0)),
        (uint8_t)dx,
        (uint8_t)dy,
        (uint8_t)dz,
    };

    s->buttons_sent = s->buttons;
    aux_put(s, bytes, s->wheel ? 4 : 3);
}

/* A packet if there is news. A mouse without a wheel has no news of one. */
static void mouse_report(struct i8042_state *s)
{
    if (!s->wheel)
        s->dz = 0;
    if (s->dx || s->dy || s->dz || s->buttons != s->buttons_sent)
        packet(s);
}

static void accumulate(uint32_t *sum, int32_t v)
{
    *sum =
        (uint32_t)CLAMP((int32_t)*sum + CLAMP(v, -MOTION_MAX, MOTION_MAX), -MOTION_MAX, MOTION_MAX);
}

void hsk_i8042_mouse(struct hsk_dev *dev, int dx, int dy, int wheel, uint8_t buttons)
{
    struct i8042 *k = (struct i8042 *)dev;
    struct i8042_state *s = &k->s;
    HSK_DEV_GUARD(dev);
    bool click = (buttons & 7) != s->buttons;

    if (s->reporting || s->remote) {
        accumulate(&s->dx, dx);
        accumulate(&s->dy, -CLAMP(dy, -MOTION_MAX, MOTION_MAX));
        accumulate(&s->dz, -CLAMP(wheel, -MOTION_MAX, MOTION_MAX));
    }
    s->buttons = buttons & 7;
    /* Motion waits until the guest has taken the last packet; a press and its release must not melt
     * into nothing. */
    if (click && s->reporting && !s->remote && s->aux_len < AUX_QUEUE / 2)
        mouse_report(s);
    pump(k);
}

bool hsk_i8042_mouse_enabled(struct hsk_dev *dev)
{
    HSK_DEV_GUARD(dev);

    return ((struct i8042 *)dev)->s.reporting;
}

static void mouse_defaults(struct i8042_state *s)
{
    s->rate = 100;
    s->resolution = 2;
    s->scaling = s->reporting = s->remote = s->wrap = 0;
    s->aux_command = 0;
}

/* The data byte of E8 and F3. */
static void mouse_argument(struct i8042_state *s, uint8_t command, uint8_t value)
{
    static const uint8_t knock[3] = {200, 100, 80};

    s->aux_command = 0;
    aux_put1(s, PS2_ACK);
    if (command == 0xe8) {
        s->resolution = value & 3;
        return;
    }
    s->rate = value;
    s->magic = value == knock[s->magic] ? s->magic + 1 : value == knock[0];
    if (s->magic == 3) {
        s->wheel = 1;
        s->magic = 0;
    }
}

static void mouse_status(struct i8042_state *s)
{
    uint8_t flags =
        (uint8_t)(s->remote << 6 | s->reporting << 5 | s->scaling << 4 | (s->buttons & 1) << 2 |
                  (s->buttons & 4) >> 1 | (s->buttons & 2) >> 1);

    aux_put(s, (const uint8_t[]){PS2_ACK, flags, (uint8_t)s->resolution, (uint8_t)s->rate}, 4);
}

static void mouse_reset(struct i8042_state *s)
{
    aux_clear(s);
    mouse_defaults(s);
    s->wheel = s->magic = 0;
}

static void mouse_write(struct i8042_state *s, uint8_t value)
{
    if (s->wrap && value != 0xec && value != 0xff) {
        aux_put1(s, value);
        return;
    }
    if (s->aux_command) {
        mouse_argument(s, s->aux_command, value);
        return;
    }
    switch (value) {
    case 0xe6:
    case 0xe7:
        s->scaling = value == 0xe7;
        aux_put1(s, PS2_ACK);
        break;
    case 0xe8:
    case 0xf3:
        s->aux_command = value;
        aux_put1(s, PS2_ACK);
        break;
    case 0xe9:
        mouse_status(s);
        break;
    case 0xea:
    case 0xf0:
        s->remote = value == 0xf0;
        aux_put1(s, PS2_ACK);
        break;
    case 0xeb:
        aux_put1(s, PS2_ACK);
        packet(s);
        break;
    case 0xec:
    case 0xee:
        s->wrap = value == 0xee;
        aux_put1(s, PS2_ACK);
        break;
    case 0xf2:
        aux_put(s, (const uint8_t[]){PS2_ACK, s->wheel ? 3 : 0}, 2);
        break;
    case 0xf4:
    case 0xf5:
        aux_clear(s);
        s->reporting = value == 0xf4;
        aux_put1(s, PS2_ACK);
        break;
    case 0xf6:
        mouse_defaults(s);
        aux_put1(s, PS2_ACK);
        break;
    case 0xfe:
        aux_put1(s, s->aux_last);
        break;
    case 0xff:
        mouse_reset(s);
        aux_put(s, (const uint8_t[]){PS2_ACK, PS2_OK, 0x00}, 3);
        break;
    default:
        aux_put1(s, PS2_RESEND);
        break;
    }
}

void hsk_i8042_release_all(struct hsk_dev *dev)
{
    struct i8042 *k = (struct i8042 *)dev;
    HSK_DEV_GUARD(dev);

    for (uint16_t code = 0; code < 256; code++)
        key_event(&k->s, code, false);
    k->s.buttons = 0;
    pump(k);
}

/* ---- controller ---- */

static void output_port(struct i8042 *k, uint8_t value)
{
    k->s.out_port = value & (OUT_RUN | OUT_A20);
    if (!(value & OUT_RUN))
        hsk_machine_post_event(k->dev.machine, HSK_EVENT_RESET, 0,
                               "the guest reset itself through the keyboard controller");
}

static void command_write(struct i8042 *k, uint8_t value)
{
    struct i8042_state *s = &k->s;

    s->command = 0;
    switch (value) {
    case 0x20:
        controller_answer(k, s->config, false);
        break;
    case 0x60:
    case 0xd1:
    case 0xd2:
    case 0xd3:
    case 0xd4:
        s->command = value;
        break;
    case 0xa7:
        s->config |= CFG_AUX_OFF;
        break;
    case 0xa8:
        s->config &= (uint8_t)~CFG_AUX_OFF;
        break;
    case 0xa9: /* line tests: fine */
    case 0xab:
        controller_answer(k, 0x00, false);
        break;
    case 0xaa: /* self test: passed */
        s->config |= CFG_SYS;
        controller_answer(k, 0x55, false);
        break;
    case 0xad:
        s->config |= CFG_KBD_OFF;
        break;
    case 0xae:
        s->config &= (uint8_t)~CFG_KBD_OFF;
        break;
    case 0xc0: /* input port: keyboard not locked */
        controller_answer(k, 0x80, false);
        break;
    case 0xd0:
        controller_answer(
            k, s->out_port | (s->out_source != SRC_NONE ? s->out_aux ? 0x20 : 0x10 : 0), false);
        break;
    case 0xdd:
    case 0xdf:
        s->out_port = value == 0xdf ? s->out_port | OUT_A20 : s->out_port & (uint8_t)~OUT_A20;
        break;
    case 0xe0: /* test inputs: both lines low */
        controller_answer(k, 0x00, false);
        break;
    default:
        if (value >= 0xf0 && !(value & 1)) /* pulses output port bit 0 */
            hsk_machine_post_event(k->dev.machine, HSK_EVENT_RESET, 0,
                                   "the guest reset itself through the keyboard controller");
        break;
    }
    pump(k);
}

static void data_write(struct i8042 *k, uint8_t value)
{
    struct i8042_state *s = &k->s;
    uint8_t command = s->command;

    s->command = 0;
    switch (command) {
    case 0x60:
        s->config = value & 0x77;
        break;
    case 0xd1:
        output_port(k, value);
        break;
    case 0xd2:
    case 0xd3:
        controller_answer(k, value, command == 0xd3);
        break;
    case 0xd4:
        s->config &= (uint8_t)~CFG_AUX_OFF;
        mouse_write(s, value);
        break;
    default:
        s->config &= (uint8_t)~CFG_KBD_OFF;
        kbd_write(k, value);
        break;
    }
    pump(k);
}

static uint64_t i8042_read(struct hsk_dev *dev, unsigned region, uint64_t offset, unsigned size)
{
    struct i8042 *k = (struct i8042 *)dev;
    struct i8042_state *s = &k->s;
    uint8_t byte;

    if (region == PORT_COMMAND)
        return (s->out_source != SRC_NONE ? STATUS_OBF | (s->out_aux ? STATUS_AUX : 0) : 0) |
               (s->config & CFG_SYS ? STATUS_SYS : 0) | (s->a2 ? STATUS_A2 : 0) | STATUS_OPEN;
    byte = s->out_byte;
    s->out_source = SRC_NONE;
    irq_publish(k);
    pump(k);
    return byte;
}

static void i8042_write(struct hsk_dev *dev, unsigned region, uint64_t offset, unsigned size,
                        uint64_t value)
{
    struct i8042 *k = (struct i8042 *)dev;

    k->s.a2 = region == PORT_COMMAND;
    if (region == PORT_COMMAND)
        command_write(k, (uint8_t)value);
    else
        data_write(k, (uint8_t)value);
}

/* ---- life cycle ---- */

static void i8042_reset(struct hsk_dev *dev)
{
    struct i8042_state *s = &((struct i8042 *)dev)->s;

    memset(s, 0, sizeof *s);
    /* As firmware leaves it: translation on, keyboard working, mouse not. */
    s->config = CFG_XLATE | CFG_SYS | CFG_KBD_INT | CFG_AUX_OFF;
    s->out_port = OUT_RUN | OUT_A20;
    kbd_defaults(s);
    s->kbd_scanning = 1;
    mouse_reset(s);
}

static bool motion_ok(uint32_t v)
{
    return (int32_t)v >= -MOTION_MAX && (int32_t)v <= MOTION_MAX;
}

static bool i8042_check(struct hsk_dev *dev, GError **error)
{
    const struct i8042_state *s = &((struct i8042 *)dev)->s;
    bool ok =
        s->kbd_set >= 1 && !(s->config & ~0x77) && motion_ok(s->dx) && motion_ok(s->dy) &&
        motion_ok(s->dz) &&
        (s->command == 0 || s->command == 0x60 || (s->command >= 0xd1 && s->command <= 0xd4)) &&
        (s->kbd_command == 0 || s->kbd_command == 0xed || s->kbd_command == 0xf0 ||
         s->kbd_command == 0xf3) &&
        (s->aux_command == 0 || s->aux_command == 0xe8 || s->aux_command == 0xf3);

    if (!ok)
        g_set_error(error, HSK_ERROR, HSK_ERROR_DAMAGED,
                    "The saved state of %s is not one that a keyboard can have.", dev->id);
    return ok;
}

static void i8042_resume(struct hsk_dev *dev)
{
    struct i8042 *k = (struct i8042 *)dev;
    HSK_DEV_GUARD(dev);

    /* A new machine's lights are off. */
    if (k->s.kbd_leds)
        hsk_machine_post_event(dev->machine, HSK_EVENT_LEDS, k->s.kbd_leds, NULL);
    pump(k);
}

static void i8042_free(struct hsk_dev *dev)
{
    hsk_bus_unmap(hsk_machine_pio(dev->machine), 0x60, dev);
    hsk_bus_unmap(hsk_machine_pio(dev->machine), 0x64, dev);
    hsk_dev_finish(dev);
    g_free(dev);
}

static const struct hsk_dev_ops i8042_ops = {
    .state = {"i8042", 1, sizeof(struct i8042_state), i8042_fields, G_N_ELEMENTS(i8042_fields)},
    .state_offset = offsetof(struct i8042, s),
    .min_size = 1,
    .max_size = 1,
    .read = i8042_read,
    .write = i8042_write,
    .reset = i8042_reset,
    .check = i8042_check,
    .resume = i8042_resume,
    .free = i8042_free,
};

struct hsk_dev *hsk_i8042_new(struct hsk_machine *m, const char *id, struct hsk_irq *kbd_irq,
                              struct hsk_irq *mouse_irq)
{
    struct i8042 *k = g_new0(struct i8042, 1);

    hsk_dev_init(&k->dev, &i8042_ops, m, id);
    k->kbd_irq = kbd_irq;
    k->aux_irq = mouse_irq;
    hsk_assert(hsk_bus_map(hsk_machine_pio(m), 0x60, 1, &k->dev, PORT_DATA));
    hsk_assert(hsk_bus_map(hsk_machine_pio(m), 0x64, 1, &k->dev, PORT_COMMAND));
    return &k->dev;
}
