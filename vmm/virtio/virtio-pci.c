/* SPDX-License-Identifier: MIT */
/*
 * Virtio over PCI (Virtio 1.1, 4.1), modern only: one memory BAR with the common, interrupt status,
 * device and notification structures and the MSI-X table. vCPU threads, under the device's lock.
 * Deliberately missing: the legacy interface, and the window in configuration space (4.1.4.8),
 * which only firmware uses.
 */
#include "virtio.h"

#define VIRTIO_VENDOR     0x1af4
#define VIRTIO_DEVICE     0x1040 /* + device id */
#define BAR               0
#define BAR_BYTES         0x8000
#define NOTIFY_MULTIPLIER 4
enum {
    AT_COMMON = 0x0000,
    AT_ISR = 0x1000,
    AT_DEVICE = 0x2000,
    AT_NOTIFY = 0x3000,
    AT_MSIX = 0x4000,
    AT_PBA = 0x5000
};
#define PART_BYTES 0x1000

enum { CAP_COMMON = 1, CAP_NOTIFY, CAP_ISR, CAP_DEVICE };
#define CAP_VENDOR 0x09

enum { ISR_QUEUE = 1, ISR_CONFIG = 2 };

/* struct virtio_pci_common_cfg */
enum {
    C_DEVICE_SELECT = 0x00,
    C_DEVICE_FEATURES = 0x04,
    C_DRIVER_SELECT = 0x08,
    C_DRIVER_FEATURES = 0x0c,
    C_CONFIG_VECTOR = 0x10,
    C_NUM_QUEUES = 0x12,
    C_STATUS = 0x14,
    C_GENERATION = 0x15,
    C_QUEUE_SELECT = 0x16,
    C_QUEUE_SIZE = 0x18,
    C_QUEUE_VECTOR = 0x1a,
    C_QUEUE_ENABLE = 0x1c,
    C_QUEUE_NOTIFY_OFF = 0x1e,
    C_QUEUE_DESC = 0x20,
    C_QUEUE_AVAIL = 0x28,
    C_QUEUE_USED = 0x30,
    C_END = 0x38,
};

static struct hsk_virtio *virtio_of(struct hsk_dev *dev)
{
    return hsk_container_of(dev, struct hsk_virtio, pci.dev);
}

/* ---- interrupts ---- */

static void interrupt(struct hsk_virtio *v, uint16_t vector, uint8_t isr)
{
    if (hsk_pci_msix_enabled(&v->pci)) {
        hsk_pci_send_msix(&v->pci, vector);
        return;
    }
    v->s->isr |= isr;
    hsk_pci_set_intx(&v->pci, true);
}

void hsk_virtio_interrupt_queue(struct hsk_virtio *v, unsigned q)
{
    interrupt(v, v->s->q_vector[q], ISR_QUEUE);
}

void hsk_virtio_interrupt_config(struct hsk_virtio *v)
{
    v->s->config_generation = (v->s->config_generation + 1) & 0xff;
    interrupt(v, v->s->config_vector, ISR_CONFIG);
}

/* ---- status and queues ---- */

static void driver_state_reset(struct hsk_virtio *v)
{
    struct hsk_virtio_state *s = v->s;
    struct hsk_pci_state pci = s->pci;

    memset(s, 0, sizeof *s);
    s->pci = pci;
    s->config_vector = HSK_VIRTIO_NO_VECTOR;
    for (unsigned q = 0; q < v->cls->nqueues; q++) {
        s->q_size[q] = v->cls->queue_size;
        s->q_vector[q] = HSK_VIRTIO_NO_VECTOR;
    }
}

void hsk_virtio_reset_done(struct hsk_virtio *v)
{
    v->resetting = false;
    driver_state_reset(v);
    hsk_pci_set_intx(&v->pci, false);
}

/* Negotiated features must be among the offered, and there is no legacy interface. */
static bool features_ok(const struct hsk_virtio *v, uint64_t features)
{
    return (features & ~v->features) == 0 && (features & HSK_VIRTIO_F_VERSION_1);
}

static void notify(struct hsk_virtio *v, unsigned q)
{
    if (q < v->cls->nqueues && v->s->q_enabled[q] && hsk_virtio_active(v))
        v->cls->notify(v, q);
}

static void write_status(struct hsk_virtio *v, uint8_t value)
{
    struct hsk_virtio_state *s = v->s;

    if (value == 0) {
        /* the driver waits until it reads 0: only then nothing of ours touches its memory or the
         * disk any more */
        v->resetting = true;
        if (!v->cls->driver_reset || v->cls->driver_reset(v))
            hsk_virtio_reset_done(v);
        return;
    }
    if (v->resetting)
        return;
    value &= 0x8f;
    if ((value & HSK_VIRTIO_FEATURES_OK) && !(s->status & HSK_VIRTIO_FEATURES_OK) &&
        !features_ok(v, s->driver_features))
        value &= ~HSK_VIRTIO_FEATURES_OK;
    if ((value & HSK_VIRTIO_DRIVER_OK) && !(value & HSK_VIRTIO_FEATURES_OK))
        value &= ~HSK_VIRTIO_DRIVER_OK;
    s->status = value | (s->status & HSK_VIRTIO_NEEDS_RESET);
}

/* A driver that enables a queue whose rings would wrap around the end of the address space has lost
 * its mind. */
static bool queue_ok(const struct hsk_virtio_state *s, unsigned q)
{
    const uint64_t limit = 1ull << 52, size = s->q_size[q];

    return size && (size & (size - 1)) == 0 && s->q_desc[q] % 16 == 0 && s->q_avail[q] % 2 == 0 &&
           s->q_used[q] % 4 == 0 && s->q_desc[q] < limit && s->q_avail[q] < limit &&
           s->q_used[q] < limit;
}

static void enable_queue(struct hsk_virtio *v, unsigned q)
{
    if (v->s->q_enabled[q])
        return;
    if (!queue_ok(v->s, q)) {
        hsk_virtio_fail(v);
        return;
    }
    v->s->q_enabled[q] = 1;
}

/* ---- common configuration ---- */

static uint16_t valid_vector(const struct hsk_virtio *v, uint32_t vector)
{
    return vector < v->pci.nmsix ? (uint16_t)vector : HSK_VIRTIO_NO_VECTOR;
}

/* The 64-bit register of the selected queue that an offset lies in, or NULL. */
static uint64_t *queue_address(struct hsk_virtio_state *s, unsigned offset)
{
    unsigned q = s->queue_select;

    switch (offset & ~7u) {
    case C_QUEUE_DESC:
        return &s->q_desc[q];
    case C_QUEUE_AVAIL:
        return &s->q_avail[q];
    case C_QUEUE_USED:
        return &s->q_used[q];
    default:
        return NULL;
    }
}

static uint32_t feature_word(uint64_t features, uint32_t select)
{
    return select < 2 ? (uint32_t)(features >> (32 * select)) : 0;
}

static uint32_t read_queue_reg(struct hsk_virtio *v, unsigned offset)
{
    struct hsk_virtio_state *s = v->s;
    unsigned q = s->queue_select;
    const uint64_t *addr;

    if (q >= v->cls->nqueues)
        return 0; /* size 0: there is no such queue */
    switch (offset) {
    case C_QUEUE_SIZE:
        return s->q_size[q];
    case C_QUEUE_VECTOR:
        return s->q_vector[q];
    case C_QUEUE_ENABLE:
        return s->q_enabled[q];
    case C_QUEUE_NOTIFY_OFF:
        return q;
    default:
        addr = queue_address(s, offset);
        return addr ? (uint32_t)(*addr >> (8 * (offset & 4))) : 0;
    }
}

static uint32_t common_read(struct hsk_virtio *v, unsigned offset)
{
    const struct hsk_virtio_state *s = v->s;

    switch (offset) {
    case C_DEVICE_SELECT:
        return s->device_feature_select;
    case C_DEVICE_FEATURES:
        return feature_word(v->features, s->device_feature_select);
    case C_DRIVER_SELECT:
        return s->driver_feature_select;
    case C_DRIVER_FEATURES:
        return feature_word(s->driver_features, s->driver_feature_select);
    case C_CONFIG_VECTOR:
        return s->config_vector;
    case C_NUM_QUEUES:
        return v->cls->nqueues;
    case C_STATUS:
        return s->status;
    case C_GENERATION:
        return s->config_generation;
    case C_QUEUE_SELECT:
        return s->queue_select;
    default:
        return read_queue_reg(v, offset);
    }
}

static void write_queue_reg(struct hsk_virtio *v, unsigned offset, uint32_t value)
{
    struct hsk_virtio_state *s = v->s;
    unsigned q = s->queue_select;
    uint64_t *addr;

    if (q >= v->cls->nqueues)
        return;
    if (offset == C_QUEUE_VECTOR) {
        s->q_vector[q] = valid_vector(v, value);
    } else if (s->q_enabled[q]) {
        return; /* the rest may not change any more */
    } else if (offset == C_QUEUE_SIZE) {
        if (value && value <= v->cls->queue_size && (value & (value - 1)) == 0)
            s->q_size[q] = (uint16_t)value;
    } else if (offset == C_QUEUE_ENABLE) {
        if (value == 1)
            enable_queue(v, q);
    } else if ((addr = queue_address(s, offset)) != NULL) {
        unsigned shift = 8 * (offset & 4);

        *addr = (*addr & ~(0xffffffffull << shift)) | (uint64_t)value << shift;
    }
}

static void common_write(struct hsk_virtio *v, unsigned offset, uint32_t value)
{
    struct hsk_virtio_state *s = v->s;

    switch (offset) {
    case C_DEVICE_SELECT:
        s->device_feature_select = value;
        break;
    case C_DRIVER_SELECT:
        s->driver_feature_select = value;
        break;
    case C_DRIVER_FEATURES:
        if (s->driver_feature_select < 2 && !(s->status & HSK_VIRTIO_FEATURES_OK)) {
            unsigned shift = 32 * s->driver_feature_select;

            s->driver_features = (s->driver_features & ~(0xffffffffull << shift)) | (uint64_t)value
                                                                                        << shift;
        }
        break;
    case C_CONFIG_VECTOR:
        s->config_vector = valid_vector(v, value);
        break;
    case C_STATUS:
        write_status(v, (uint8_t)value);
        break;
    case C_QUEUE_SELECT:
        s->queue_select = (uint16_t)value;
        break;
    default:
        write_queue_reg(v, offset, value);
        break;
    }
}

/* ---- the BAR ---- */

static uint32_t read_part(struct hsk_virtio *v, unsigned part, unsigned offset, unsigned size)
{
    uint32_t value = 0;

    switch (part) {
    case AT_COMMON:
        value = common_read(v, offset);
        break;
    case AT_ISR:
        if (offset == 0) {
            value = v->s->isr;
            v->s->isr = 0;
            hsk_pci_set_intx(&v->pci, false);
        }
        break;
    case AT_DEVICE:
        if (hsk_range_ok(offset, size, v->cls->config_bytes))
            value = v->cls->config_read(v, offset, size);
        break;
    case AT_MSIX:
        value = size == 4 ? hsk_pci_msix_read(&v->pci, offset) : 0;
        break;
    case AT_PBA:
        value = offset == 0 ? (uint32_t)hsk_pci_msix_pba(&v->pci) : 0;
        break;
    default:
        break;
    }
    return value;
}

static void write_part(struct hsk_virtio *v, unsigned part, unsigned offset, unsigned size,
                       uint32_t value)
{
    switch (part) {
    case AT_COMMON:
        common_write(v, offset, value);
        break;
    case AT_DEVICE:
        if (v->cls->config_write && hsk_range_ok(offset, size, v->cls->config_bytes))
            v->cls->config_write(v, offset, size, value);
        break;
    case AT_NOTIFY:
        notify(v, offset / NOTIFY_MULTIPLIER);
        break;
    case AT_MSIX:
        if (size == 4)
            hsk_pci_msix_write(&v->pci, offset, value);
        break;
    default:
        break;
    }
}

uint64_t hsk_virtio_read(struct hsk_dev *dev, unsigned region, uint64_t offset, unsigned size)
{
    struct hsk_virtio *v = virtio_of(dev);
    unsigned part = (unsigned)offset & ~(PART_BYTES - 1), at = (unsigned)offset & (PART_BYTES - 1);

    if (size == 8)
        return read_part(v, part, at, 4) | (uint64_t)read_part(v, part, at + 4, 4) << 32;
    return read_part(v, part, at, size);
}

void hsk_virtio_write(struct hsk_dev *dev, unsigned region, uint64_t offset, unsigned size,
                      uint64_t value)
{
    struct hsk_virtio *v = virtio_of(dev);
    unsigned part = (unsigned)offset & ~(PART_BYTES - 1), at = (unsigned)offset & (PART_BYTES - 1);

    write_part(v, part, at, MIN(size, 4), (uint32_t)value);
    if (size == 8)
        write_part(v, part, at + 4, 4, (uint32_t)(value >> 32));
}

/* ---- life cycle ---- */

static unsigned add_cap(struct hsk_virtio *v, uint8_t type, unsigned len, uint32_t offset,
                        uint32_t bytes)
{
    unsigned at = hsk_pci_add_cap(&v->pci, CAP_VENDOR, len);
    uint8_t *p = v->pci.config + at;

    p[2] = (uint8_t)len;
    p[3] = type;
    p[4] = BAR;
    hsk_put32(p + 8, offset);
    hsk_put32(p + 12, bytes);
    return at;
}

void hsk_virtio_init(struct hsk_virtio *v, const struct hsk_dev_ops *ops,
                     const struct hsk_virtio_class *cls, struct hsk_virtio_state *state,
                     struct hsk_dev *host, struct hsk_machine *m, const char *id, unsigned devfn)
{
    const struct hsk_pci_ids ids = {
        .vendor = VIRTIO_VENDOR,
        .device = VIRTIO_DEVICE + cls->device_id,
        .subvendor = VIRTIO_VENDOR,
        .subdevice = cls->device_id,
        .class_code = cls->pci_class,
        .revision = 1,
        .intx = true,
    };
    unsigned at;

    hsk_assert(cls->nqueues <= HSK_VIRTIO_MAX_QUEUES && cls->queue_size <= HSK_VIRTIO_MAX_SIZE);
    hsk_pci_init(&v->pci, ops, &state->pci, host, m, id, devfn, &ids);
    v->s = state;
    v->cls = cls;
    v->features =
        cls->features | HSK_VIRTIO_F_INDIRECT | HSK_VIRTIO_F_EVENT_IDX | HSK_VIRTIO_F_VERSION_1;
    v->ram = hsk_machine_ram(m);
    hsk_pci_set_bar(&v->pci, BAR, BAR_BYTES, 0, NULL);
    add_cap(v, CAP_COMMON, 16, AT_COMMON, C_END);
    add_cap(v, CAP_ISR, 16, AT_ISR, 4);
    add_cap(v, CAP_DEVICE, 16, AT_DEVICE, cls->config_bytes);
    at = add_cap(v, CAP_NOTIFY, 20, AT_NOTIFY, cls->nqueues * NOTIFY_MULTIPLIER);
    hsk_put32(v->pci.config + at + 16, NOTIFY_MULTIPLIER);
    hsk_pci_add_msix(&v->pci, cls->nqueues + 1, BAR, AT_MSIX, AT_PBA);
    hsk_pci_plug(&v->pci);
}

void hsk_virtio_reset(struct hsk_virtio *v)
{
    v->resetting = false;
    hsk_pci_reset(&v->pci);
    driver_state_reset(v);
}

bool hsk_virtio_check(struct hsk_virtio *v, GError **error)
{
    const struct hsk_virtio_state *s = v->s;
    bool ok = (s->driver_features & ~v->features) == 0 || !(s->status & HSK_VIRTIO_FEATURES_OK);

    ok = ok && (s->status & ~0xcfu) == 0 && s->reserved[0] == 0 && s->reserved[1] == 0;
    ok =
        ok && s->config_generation <= 0xff && valid_vector(v, s->config_vector) == s->config_vector;
    for (unsigned q = 0; q < HSK_VIRTIO_MAX_QUEUES; q++) {
        if (q >= v->cls->nqueues) {
            ok = ok && !s->q_enabled[q] && !s->q_size[q];
            continue;
        }
        ok = ok && s->q_size[q] && s->q_size[q] <= v->cls->queue_size &&
             (s->q_size[q] & (s->q_size[q] - 1)) == 0;
        ok = ok && (!s->q_enabled[q] || queue_ok(s, q)) &&
             valid_vector(v, s->q_vector[q]) == s->q_vector[q];
    }
    if (!ok) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_DAMAGED,
                    "The saved virtio registers of %s are damaged", v->pci.dev.id);
        return false;
    }
    return hsk_pci_check(&v->pci, error);
}

void hsk_virtio_resume(struct hsk_virtio *v)
{
    hsk_pci_resume(&v->pci);
    for (unsigned q = 0; q < v->cls->nqueues; q++)
        notify(v, q);
}
