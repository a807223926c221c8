/* SPDX-License-Identifier: MIT */
/*
 * virtio input device (Virtio 1.1, 5.8): an absolute pointer with three buttons and a wheel
 * ("tablet"). Events come from the loop thread; the driver's rings are served by vCPU threads; all
 * under the device's lock. An event packet that finds no room in the driver's buffers is dropped as
 * a whole; the buttons that the guest knows are kept, so the next packet repairs them. Deliberately
 * missing: the status queue's contents (there are no lights on a tablet), serial number, device ids
 * beyond one.
 */
#include <linux/input.h>

#include "pci-devices.h"
#include "virtio.h"

enum { Q_EVENT, Q_STATUS, QUEUES };
enum { CFG_NAME = 0x01, CFG_IDS = 0x03, CFG_EV_BITS = 0x11, CFG_ABS_INFO = 0x12 };
#define DATA_AT     8
#define DATA_BYTES  128
#define EVENT_BYTES 8
#define ABS_RANGE   32767
#define NAME        "Haversack tablet"
#define BUTTONS     3
#define PACKET_MAX  8 /* two axes, three buttons, wheel, report */

static const uint16_t button_codes[BUTTONS] = {BTN_LEFT, BTN_RIGHT,
                                               BTN_MIDDLE}; /* as in struct hsk_input */

struct virtio_input_state {
    struct hsk_virtio_state virtio;
    uint16_t x, y; /* as the guest knows them */
    uint8_t buttons;
    uint8_t select, subsel;
    uint8_t reserved; /* 0: fills the struct */
};

struct virtio_input {
    struct hsk_virtio v;
    struct virtio_input_state s;
};

struct packet {
    unsigned n;
    uint8_t event[PACKET_MAX][EVENT_BYTES];
};

static const struct hsk_field input_fields[] = {
    HSK_VIRTIO_FIELDS(struct virtio_input_state, virtio),
    HSK_F(struct virtio_input_state, x, .max = ABS_RANGE),
    HSK_F(struct virtio_input_state, y, .max = ABS_RANGE),
    HSK_F(struct virtio_input_state, buttons, .max = (1u << BUTTONS) - 1),
    HSK_F(struct virtio_input_state, select),
    HSK_F(struct virtio_input_state, subsel),
    HSK_F(struct virtio_input_state, reserved),
};

static struct virtio_input *input_of(struct hsk_dev *dev)
{
    return hsk_container_of(dev, struct virtio_input, v.pci.dev);
}

/* ---- configuration: what the device can do ---- */

static unsigned set_bit(uint8_t *data, unsigned bit, unsigned len)
{
    data[bit / 8] |= (uint8_t)(1u << (bit % 8));
    return MAX(len, bit / 8 + 1);
}

static unsigned event_bits(uint8_t type, uint8_t *data)
{
    unsigned len = 0;

    if (type == EV_KEY) {
        for (unsigned i = 0; i < BUTTONS; i++)
            len = set_bit(data, button_codes[i], len);
    } else if (type == EV_REL) {
        len = set_bit(data, REL_WHEEL, len);
    } else if (type == EV_ABS) {
        len = set_bit(data, ABS_X, len);
        len = set_bit(data, ABS_Y, len);
    }
    return len;
}

/* Fills the data of the selected item; returns its length, 0 if there is no such item. */
static unsigned config_item(const struct virtio_input_state *s, uint8_t data[DATA_BYTES])
{
    memset(data, 0, DATA_BYTES);
    switch (s->select) {
    case CFG_NAME:
        memcpy(data, NAME, sizeof NAME - 1);
        return s->subsel ? 0 : sizeof NAME - 1;
    case CFG_IDS:
        hsk_put16(data, BUS_VIRTUAL);
        hsk_put16(data + 4, 1);
        return s->subsel ? 0 : 8;
    case CFG_EV_BITS:
        return event_bits(s->subsel, data);
    case CFG_ABS_INFO:
        hsk_put32(data + 4, ABS_RANGE);
        return s->subsel == ABS_X || s->subsel == ABS_Y ? 20 : 0;
    default:
        return 0;
    }
}

static uint32_t input_config_read(struct hsk_virtio *v, unsigned offset, unsigned size)
{
    struct virtio_input_state *s = &hsk_container_of(v, struct virtio_input, v)->s;
    uint8_t config[DATA_AT + DATA_BYTES] = {s->select, s->subsel};
    uint8_t *p = config + offset;
    unsigned len = config_item(s, config + DATA_AT);

    config[2] = (uint8_t)len;
    if (len == 0)
        memset(config + DATA_AT, 0, DATA_BYTES);
    return size == 1 ? *p : size == 2 ? hsk_get16(p) : hsk_get32(p);
}

static void input_config_write(struct hsk_virtio *v, unsigned offset, unsigned size, uint32_t value)
{
    struct virtio_input_state *s = &hsk_container_of(v, struct virtio_input, v)->s;

    if (size == 1 && offset == 0)
        s->select = (uint8_t)value;
    else if (size == 1 && offset == 1)
        s->subsel = (uint8_t)value;
}

/* ---- events ---- */

static void add_event(struct packet *p, uint16_t type, uint16_t code, uint32_t value)
{
    uint8_t *e = p->event[p->n++];

    hsk_put16(e, type);
    hsk_put16(e + 2, code);
    hsk_put32(e + 4, value);
}

/* Sends the packet with the report behind it; false if the driver's buffers do not hold it. */
static bool send_packet(struct virtio_input *in, struct packet *p)
{
    struct hsk_virtq_elem e;

    add_event(p, EV_SYN, SYN_REPORT, 0);
    if (hsk_virtq_waiting(&in->v, Q_EVENT) < p->n)
        return false;
    for (unsigned i = 0; i < p->n; i++) {
        if (!hsk_virtq_pop(&in->v, Q_EVENT, &e))
            return false;
        if (!hsk_virtq_write(&in->v, &e, 0, p->event[i], EVENT_BYTES)) {
            hsk_virtio_fail(&in->v);
            return false;
        }
        hsk_virtq_push(&in->v, Q_EVENT, e.head, EVENT_BYTES);
    }
    hsk_virtq_signal(&in->v, Q_EVENT);
    return true;
}

bool hsk_virtio_tablet_ready(struct hsk_dev *tablet)
{
    HSK_DEV_GUARD(tablet);

    return hsk_virtio_active(&input_of(tablet)->v);
}

void hsk_virtio_tablet_pointer(struct hsk_dev *tablet, uint16_t x, uint16_t y, uint8_t buttons)
{
    struct virtio_input *in = input_of(tablet);
    struct packet p = {0};
    HSK_DEV_GUARD(tablet);

    x = MIN(x, ABS_RANGE);
    y = MIN(y, ABS_RANGE);
    buttons &= (1u << BUTTONS) - 1;
    if (x != in->s.x)
        add_event(&p, EV_ABS, ABS_X, x);
    if (y != in->s.y)
        add_event(&p, EV_ABS, ABS_Y, y);
    for (unsigned i = 0; i < BUTTONS; i++) {
        if ((in->s.buttons ^ buttons) >> i & 1)
            add_event(&p, EV_KEY, button_codes[i], buttons >> i & 1);
    }
    if (p.n == 0 || !send_packet(in, &p))
        return;
    in->s.x = x;
    in->s.y = y;
    in->s.buttons = buttons;
}

void hsk_virtio_tablet_wheel(struct hsk_dev *tablet, int clicks)
{
    struct virtio_input *in = input_of(tablet);
    struct packet p = {0};
    HSK_DEV_GUARD(tablet);

    if (clicks == 0)
        return;
    add_event(&p, EV_REL, REL_WHEEL, (uint32_t)clicks);
    send_packet(in, &p);
}

/* New buffers for events need nothing done; status buffers go back unread. */
static void input_notify(struct hsk_virtio *v, unsigned q)
{
    struct hsk_virtq_elem e;

    if (q != Q_STATUS)
        return;
    for (unsigned i = 0; i < v->s->q_size[q] && hsk_virtq_pop(v, q, &e); i++)
        hsk_virtq_push(v, q, e.head, 0);
    hsk_virtq_signal(v, q);
}

/* A driver that starts anew knows nothing of the pointer. */
static bool input_driver_reset(struct hsk_virtio *v)
{
    struct virtio_input_state *s = &hsk_container_of(v, struct virtio_input, v)->s;

    s->x = s->y = 0;
    s->buttons = 0;
    s->select = s->subsel = 0;
    return true;
}

static const struct hsk_virtio_class input_class = {
    .device_id = 18,
    .pci_class = 0x098000,
    .nqueues = QUEUES,
    .queue_size = 64,
    .config_bytes = DATA_AT + DATA_BYTES,
    .config_read = input_config_read,
    .config_write = input_config_write,
    .notify = input_notify,
    .driver_reset = input_driver_reset,
};

/* ---- life cycle ---- */

static void input_reset(struct hsk_dev *dev)
{
    struct virtio_input *in = input_of(dev);

    hsk_virtio_reset(&in->v);
    input_driver_reset(&in->v);
    in->s.reserved = 0;
}

static bool input_check(struct hsk_dev *dev, GError **error)
{
    struct virtio_input *in = input_of(dev);

    if (in->s.reserved) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_DAMAGED, "The saved registers of %s are damaged",
                    dev->id);
        return false;
    }
    return hsk_virtio_check(&in->v, error);
}

static void input_resume(struct hsk_dev *dev)
{
    HSK_DEV_GUARD(dev);

    hsk_virtio_resume(&input_of(dev)->v);
}

static void input_free(struct hsk_dev *dev)
{
    struct virtio_input *in = input_of(dev);

    hsk_pci_finish(&in->v.pci);
    g_free(in);
}

static const struct hsk_dev_ops input_ops = {
    .state = {"virtio-input", 1, sizeof(struct virtio_input_state), input_fields,
              G_N_ELEMENTS(input_fields)},
    .state_offset = offsetof(struct virtio_input, s),
    .read = hsk_virtio_read,
    .write = hsk_virtio_write,
    .reset = input_reset,
    .check = input_check,
    .resume = input_resume,
    .free = input_free,
};

struct hsk_dev *hsk_virtio_tablet_new(struct hsk_machine *m, struct hsk_dev *pci_host,
                                      const char *id, unsigned devfn)
{
    struct virtio_input *in = g_new0(struct virtio_input, 1);

    hsk_virtio_init(&in->v, &input_ops, &input_class, &in->s.virtio, pci_host, m, id, devfn);
    return &in->v.pci.dev;
}
