/* SPDX-License-Identifier: MIT */
/*
 * A virtio device (Virtio 1.1): split virtqueues (virtio.c) and the PCI transport (virtio-pci.c). A
 * device embeds struct hsk_virtio first in its struct, and struct hsk_virtio_state in its state
 * struct (with HSK_VIRTIO_FIELDS in its table).
 *
 * What the driver puts into a ring is hostile: a descriptor is copied out of guest memory once and
 * only the copy is used; a ring that cannot be right sets NEEDS_RESET and is not looked at again.
 *
 * Threads: everything under the device's lock.
 */
#pragma once

#include "pci.h"

#define HSK_VIRTIO_MAX_QUEUES 2
#define HSK_VIRTIO_MAX_SIZE   512 /* entries of a queue, and so of a chain of descriptors */
#define HSK_VIRTIO_NO_VECTOR  0xffff

#define HSK_VIRTIO_F_INDIRECT  (1ull << 28)
#define HSK_VIRTIO_F_EVENT_IDX (1ull << 29)
#define HSK_VIRTIO_F_VERSION_1 (1ull << 32)

#define HSK_VIRTIO_DRIVER_OK   4u
#define HSK_VIRTIO_FEATURES_OK 8u
#define HSK_VIRTIO_NEEDS_RESET 64u

/* After hsk_pci_state in every device's state. */
struct hsk_virtio_state {
    struct hsk_pci_state pci;
    uint64_t driver_features;
    uint64_t q_desc[HSK_VIRTIO_MAX_QUEUES], q_avail[HSK_VIRTIO_MAX_QUEUES],
        q_used[HSK_VIRTIO_MAX_QUEUES];
    uint32_t device_feature_select, driver_feature_select;
    uint16_t q_size[HSK_VIRTIO_MAX_QUEUES], q_vector[HSK_VIRTIO_MAX_QUEUES];
    uint16_t q_avail_idx[HSK_VIRTIO_MAX_QUEUES]; /* next entry to take */
    uint16_t q_used_idx[HSK_VIRTIO_MAX_QUEUES];  /* next entry to fill */
    uint16_t
        q_signalled[HSK_VIRTIO_MAX_QUEUES]; /* used index at the last look whether to interrupt */
    uint16_t config_vector, queue_select, config_generation;
    uint8_t q_enabled[HSK_VIRTIO_MAX_QUEUES];
    uint8_t status, isr;
    uint8_t reserved[2]; /* 0: fills the struct */
};

#define HSK_VIRTIO_FIELDS(type, m)                                                                 \
    HSK_PCI_FIELDS(type, m.pci), HSK_F(type, m.driver_features), HSK_FA(type, m.q_desc),           \
        HSK_FA(type, m.q_avail), HSK_FA(type, m.q_used), HSK_F(type, m.device_feature_select),     \
        HSK_F(type, m.driver_feature_select), HSK_FA(type, m.q_size, .max = HSK_VIRTIO_MAX_SIZE),  \
        HSK_FA(type, m.q_vector), HSK_FA(type, m.q_avail_idx), HSK_FA(type, m.q_used_idx),         \
        HSK_FA(type, m.q_signalled), HSK_F(type, m.config_vector), HSK_F(type, m.queue_select),    \
        HSK_F(type, m.config_generation), HSK_FA(type, m.q_enabled, .max = 1),                     \
        HSK_F(type, m.status), HSK_F(type, m.isr, .max = 3), HSK_FA(type, m.reserved)

struct hsk_virtio;

struct hsk_virtio_class {
    uint16_t device_id; /* Virtio 1.1, 5 */
    uint32_t pci_class;
    unsigned nqueues;
    uint16_t queue_size;   /* power of two, the largest a driver may choose */
    uint64_t features;     /* the device's own; the transport adds its */
    unsigned config_bytes; /* of the device's configuration, at most 256 */
    /* size 1, 2, 4, in range and naturally aligned; write may be NULL */
    uint32_t (*config_read)(struct hsk_virtio *v, unsigned offset, unsigned size);
    void (*config_write)(struct hsk_virtio *v, unsigned offset, unsigned size, uint32_t value);
    void (*notify)(struct hsk_virtio *v,
                   unsigned q); /* there may be something in an active queue */
    /* The driver resets. false: requests are in flight, hsk_virtio_reset_done() follows. May be
     * NULL. */
    bool (*driver_reset)(struct hsk_virtio *v);
};

struct hsk_virtio {
    struct hsk_pci_dev pci;
    /* constant after new */
    struct hsk_virtio_state *s;
    const struct hsk_virtio_class *cls;
    uint64_t features; /* offered */
    struct hsk_ram *ram;
    /* device lock; never saved: pause waits for it */
    bool resetting;
};

struct hsk_virtq_seg {
    gpa_t gpa;
    uint32_t len;
};

/* One request: its descriptors, those the device reads first, then those it writes. */
struct hsk_virtq_elem {
    uint16_t head;
    unsigned nread, nwrite;
    uint64_t read_bytes, write_bytes;
    struct hsk_virtq_seg seg[HSK_VIRTIO_MAX_SIZE];
};

static inline bool hsk_virtio_active(const struct hsk_virtio *v)
{
    return (v->s->status & HSK_VIRTIO_DRIVER_OK) && !(v->s->status & HSK_VIRTIO_NEEDS_RESET) &&
           !v->resetting && hsk_pci_is_master(&v->pci);
}

/* Takes the next request of an active queue. false: there is none, or the ring was found to be
 * nonsense. */
bool hsk_virtq_pop(struct hsk_virtio *v, unsigned q, struct hsk_virtq_elem *e);
/* The same for a chain that was taken already, before the machine was saved. */
bool hsk_virtq_retake(struct hsk_virtio *v, unsigned q, uint16_t head, struct hsk_virtq_elem *e);
/* Entries that wait, not yet taken. */
unsigned hsk_virtq_waiting(struct hsk_virtio *v, unsigned q);
/* Gives a request back, with the bytes that were written into it; then once after a batch:
 * interrupt if the driver wants one. */
void hsk_virtq_push(struct hsk_virtio *v, unsigned q, uint16_t head, uint32_t written);
void hsk_virtq_signal(struct hsk_virtio *v, unsigned q);
/* Copies from the readable, or into the writable part at offset; false if it is too short or not
 * memory. */
bool hsk_virtq_read(struct hsk_virtio *v, const struct hsk_virtq_elem *e, uint64_t offset,
                    void *buf, uint64_t len);
bool hsk_virtq_write(struct hsk_virtio *v, const struct hsk_virtq_elem *e, uint64_t offset,
                     const void *buf, uint64_t len);
/* The driver broke the rules: NEEDS_RESET, and nothing is done any more until it resets. */
void hsk_virtio_fail(struct hsk_virtio *v);

/* virtio-pci.c. state: inside the device's state struct; features beyond cls->features may be added
 * before plugging. */
void hsk_virtio_init(struct hsk_virtio *v, const struct hsk_dev_ops *ops,
                     const struct hsk_virtio_class *cls, struct hsk_virtio_state *state,
                     struct hsk_dev *host, struct hsk_machine *m, const char *id, unsigned devfn);
uint64_t hsk_virtio_read(struct hsk_dev *dev, unsigned region, uint64_t offset, unsigned size);
void hsk_virtio_write(struct hsk_dev *dev, unsigned region, uint64_t offset, unsigned size,
                      uint64_t value);
void hsk_virtio_reset(struct hsk_virtio *v);
bool hsk_virtio_check(struct hsk_virtio *v, GError **error);
void hsk_virtio_resume(
    struct hsk_virtio *v); /* notifies all enabled queues: a kick may have come before the save */
void hsk_virtio_reset_done(struct hsk_virtio *v);
/* Interrupts for a queue, or for a configuration change. */
void hsk_virtio_interrupt_queue(struct hsk_virtio *v, unsigned q);
void hsk_virtio_interrupt_config(struct hsk_virtio *v);
