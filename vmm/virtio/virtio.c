/* SPDX-License-Identifier: MIT */
/*
 * Split virtqueues (Virtio 1.1, 2.6) as the device sees them: chains, indirect tables, used ring,
 * event indices. vCPU threads and the loop thread, under the device's lock. Deliberately missing:
 * packed queues.
 */
#include "virtio.h"

#define DESC_BYTES 16
enum { DESC_NEXT = 1, DESC_WRITE = 2, DESC_INDIRECT = 4 };
#define AVAIL_NO_INTERRUPT 1

struct desc {
    gpa_t gpa;
    uint32_t len;
    uint16_t flags, next;
};

void hsk_virtio_fail(struct hsk_virtio *v)
{
    if (v->s->status & HSK_VIRTIO_NEEDS_RESET)
        return;
    v->s->status |= HSK_VIRTIO_NEEDS_RESET;
    if (v->s->status & HSK_VIRTIO_DRIVER_OK)
        hsk_virtio_interrupt_config(v);
}

static bool read16(struct hsk_virtio *v, gpa_t gpa, uint16_t *value)
{
    uint8_t buf[2];
    bool ok = hsk_ram_read(v->ram, gpa, buf, sizeof buf);

    *value = hsk_get16(buf);
    return ok;
}

static bool write16(struct hsk_virtio *v, gpa_t gpa, uint16_t value)
{
    uint8_t buf[2];

    hsk_put16(buf, value);
    return hsk_ram_write(v->ram, gpa, buf, sizeof buf);
}

static bool read_desc(struct hsk_virtio *v, gpa_t table, unsigned i, struct desc *d)
{
    uint8_t buf[DESC_BYTES];

    if (!hsk_ram_read(v->ram, table + (gpa_t)i * DESC_BYTES, buf, sizeof buf))
        return false;
    d->gpa = hsk_get64(buf);
    d->len = hsk_get32(buf + 8);
    d->flags = hsk_get16(buf + 12);
    d->next = hsk_get16(buf + 14);
    return true;
}

static bool add_seg(struct hsk_virtq_elem *e, const struct desc *d)
{
    unsigned n = e->nread + e->nwrite;

    if (n == G_N_ELEMENTS(e->seg) || d->gpa + d->len < d->gpa)
        return false;
    e->seg[n] = (struct hsk_virtq_seg){.gpa = d->gpa, .len = d->len};
    if (d->flags & DESC_WRITE) {
        e->nwrite++;
        e->write_bytes += d->len;
    } else if (e->nwrite) {
        return false; /* readable ones come first */
    } else {
        e->nread++;
        e->read_bytes += d->len;
    }
    return true;
}

/* Walks a chain through a table of n descriptors. It ends, since each round adds a segment (their
   number is limited) but the one round that replaces the table by an indirect one. */
static bool walk_chain(struct hsk_virtio *v, gpa_t table, unsigned n, unsigned i,
                       struct hsk_virtq_elem *e)
{
    bool indirect = false;

    for (;;) {
        struct desc d;

        if (i >= n || !read_desc(v, table, i, &d))
            return false;
        if (d.flags & DESC_INDIRECT) {
            if (indirect || !(v->s->driver_features & HSK_VIRTIO_F_INDIRECT) ||
                (d.flags & DESC_NEXT) || d.len % DESC_BYTES)
                return false;
            indirect = true;
            table = d.gpa;
            n = d.len / DESC_BYTES;
            i = 0;
            continue;
        }
        if (!add_seg(e, &d))
            return false;
        if (!(d.flags & DESC_NEXT))
            return true;
        i = d.next;
    }
}

/* How many entries wait; negative if the index is nonsense. */
static int count_waiting(struct hsk_virtio *v, unsigned q)
{
    uint16_t idx, n;

    if (!read16(v, v->s->q_avail[q] + 2, &idx))
        return -1;
    n = (uint16_t)(idx - v->s->q_avail_idx[q]);
    return n <= v->s->q_size[q] ? n : -1;
}

unsigned hsk_virtq_waiting(struct hsk_virtio *v, unsigned q)
{
    int n;

    if (!hsk_virtio_active(v) || !v->s->q_enabled[q])
        return 0;
    n = count_waiting(v, q);
    if (n < 0)
        hsk_virtio_fail(v);
    return n < 0 ? 0 : (unsigned)n;
}

/* Empty. With event indices the driver must be asked to kick for the next entry, and one may have
 * come in just then. */
static int still_empty(struct hsk_virtio *v, unsigned q)
{
    if (!(v->s->driver_features & HSK_VIRTIO_F_EVENT_IDX))
        return 0;
    if (!write16(v, v->s->q_used[q] + 4 + 8u * v->s->q_size[q], v->s->q_avail_idx[q]))
        return -1;
    atomic_thread_fence(memory_order_seq_cst);
    return count_waiting(v, q);
}

bool hsk_virtq_retake(struct hsk_virtio *v, unsigned q, uint16_t head, struct hsk_virtq_elem *e)
{
    e->head = head;
    e->nread = e->nwrite = 0;
    e->read_bytes = e->write_bytes = 0;
    if (!hsk_virtio_active(v) || !v->s->q_enabled[q])
        return false;
    if (walk_chain(v, v->s->q_desc[q], v->s->q_size[q], head, e))
        return true;
    hsk_virtio_fail(v);
    return false;
}

bool hsk_virtq_pop(struct hsk_virtio *v, unsigned q, struct hsk_virtq_elem *e)
{
    struct hsk_virtio_state *s = v->s;
    uint16_t head;
    int n;

    if (!hsk_virtio_active(v) || !s->q_enabled[q])
        return false;
    n = count_waiting(v, q);
    if (n == 0)
        n = still_empty(v, q);
    if (n == 0)
        return false;
    atomic_thread_fence(memory_order_acquire); /* the entry after the index */
    if (n < 0 || !read16(v, s->q_avail[q] + 4 + 2u * (s->q_avail_idx[q] % s->q_size[q]), &head)) {
        hsk_virtio_fail(v);
        return false;
    }
    s->q_avail_idx[q]++;
    return hsk_virtq_retake(v, q, head, e);
}

void hsk_virtq_push(struct hsk_virtio *v, unsigned q, uint16_t head, uint32_t written)
{
    struct hsk_virtio_state *s = v->s;
    uint8_t buf[8];

    if (!hsk_virtio_active(v))
        return;
    hsk_put32(buf, head);
    hsk_put32(buf + 4, written);
    if (!hsk_ram_write(v->ram, s->q_used[q] + 4 + 8u * (s->q_used_idx[q] % s->q_size[q]), buf,
                       sizeof buf)) {
        hsk_virtio_fail(v);
        return;
    }
    s->q_used_idx[q]++;
    atomic_thread_fence(memory_order_release); /* the entry before the index */
    if (!write16(v, s->q_used[q] + 2, s->q_used_idx[q]))
        hsk_virtio_fail(v);
}

static bool wants_interrupt(struct hsk_virtio *v, unsigned q)
{
    struct hsk_virtio_state *s = v->s;
    uint16_t event, flags, old = s->q_signalled[q], now = s->q_used_idx[q];

    s->q_signalled[q] = now;
    if (old == now)
        return false;
    if (!(s->driver_features & HSK_VIRTIO_F_EVENT_IDX))
        return read16(v, s->q_avail[q], &flags) && !(flags & AVAIL_NO_INTERRUPT);
    return read16(v, s->q_avail[q] + 4 + 2u * s->q_size[q], &event) &&
           (uint16_t)(now - event - 1) < (uint16_t)(now - old);
}

void hsk_virtq_signal(struct hsk_virtio *v, unsigned q)
{
    if (!hsk_virtio_active(v) || !v->s->q_enabled[q])
        return;
    atomic_thread_fence(
        memory_order_seq_cst); /* the used index is out before we look whether anybody cares */
    if (wants_interrupt(v, q))
        hsk_virtio_interrupt_queue(v, q);
}

/* ---- contents ---- */

static bool copy(struct hsk_virtio *v, const struct hsk_virtq_seg *seg, unsigned n, uint64_t offset,
                 void *read, const void *write, uint64_t len)
{
    for (unsigned i = 0; i < n && len; i++) {
        uint64_t part;

        if (offset >= seg[i].len) {
            offset -= seg[i].len;
            continue;
        }
        part = MIN(len, seg[i].len - offset);
        if (read ? !hsk_ram_read(v->ram, seg[i].gpa + offset, read, part)
                 : !hsk_ram_write(v->ram, seg[i].gpa + offset, write, part))
            return false;
        if (read)
            read = (uint8_t *)read + part;
        else
            write = (const uint8_t *)write + part;
        len -= part;
        offset = 0;
    }
    return len == 0;
}

bool hsk_virtq_read(struct hsk_virtio *v, const struct hsk_virtq_elem *e, uint64_t offset,
                    void *buf, uint64_t len)
{
    return copy(v, e->seg, e->nread, offset, buf, NULL, len);
}

bool hsk_virtq_write(struct hsk_virtio *v, const struct hsk_virtq_elem *e, uint64_t offset,
                     const void *buf, uint64_t len)
{
    return copy(v, e->seg + e->nread, e->nwrite, offset, NULL, buf, len);
}
