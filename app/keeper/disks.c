/* SPDX-License-Identifier: MIT */
/* The document's disks for one machine process: see disks.h. */
#include "disks.h"

#include <errno.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include "common/diskwire.h"

struct hsk_disk_service {
    struct hsk_doc *doc;
    int sock;
    uint8_t *slots;
    GThread *thread;
    unsigned ndisks;
    uint64_t size[8]; /* bytes, per disk */
    /* lock */
    GMutex lock;
    bool expected;
    uint64_t name;
    struct hsk_take_point *point; /* on its way to the main thread */
    guint idle;
    /* main thread */
    void (*marked)(void *opaque, struct hsk_take_point *point);
    void *opaque;
    _Atomic uint64_t writes;
};

static bool possible(const struct hsk_disk_service *s, const struct hsk_disk_request *q)
{
    if (q->op == HSK_DISK_OP_MARK)
        return true;
    if (q->disk >= s->ndisks || q->slot >= HSK_DISK_SLOTS)
        return false;
    switch (q->op) {
    case HSK_DISK_OP_READ:
    case HSK_DISK_OP_WRITE:
        return q->len <= HSK_DISK_SLOT_BYTES && hsk_range_ok(q->offset, q->len, s->size[q->disk]);
    case HSK_DISK_OP_DISCARD:
        return hsk_range_ok(q->offset, q->len, s->size[q->disk]);
    case HSK_DISK_OP_FLUSH:
        return true;
    default:
        return false;
    }
}

static gboolean hand_over(gpointer opaque)
{
    struct hsk_disk_service *s = opaque;

    g_mutex_lock(&s->lock);
    struct hsk_take_point *point = g_steal_pointer(&s->point);
    s->idle = 0;
    g_mutex_unlock(&s->lock);
    s->marked(s->opaque, point);
    return G_SOURCE_REMOVE;
}

static void mark(struct hsk_disk_service *s, uint64_t name)
{
    g_mutex_lock(&s->lock);
    if (s->expected && s->name == name) {
        s->expected = false;
        s->point = hsk_take_begin(s->doc);
        s->idle = g_idle_add_full(G_PRIORITY_HIGH, hand_over, s, NULL);
    }
    g_mutex_unlock(&s->lock);
}

static int serve(struct hsk_disk_service *s, const struct hsk_disk_request *q)
{
    struct hsk_disk *d = hsk_doc_disk(s->doc, q->disk);
    uint8_t *data = s->slots + (size_t)q->slot * HSK_DISK_SLOT_BYTES;

    if (q->op == HSK_DISK_OP_WRITE || q->op == HSK_DISK_OP_DISCARD)
        atomic_fetch_add_explicit(&s->writes, 1, memory_order_relaxed);
    switch (q->op) {
    case HSK_DISK_OP_READ:
        return hsk_disk_read(d, q->offset, data, q->len);
    case HSK_DISK_OP_WRITE:
        return hsk_disk_write(d, q->offset, data, q->len);
    case HSK_DISK_OP_DISCARD:
        return hsk_disk_discard(d, q->offset, q->len);
    default:
        return hsk_disk_flush(d);
    }
}

static gpointer disk_thread(gpointer opaque)
{
    struct hsk_disk_service *s = opaque;
    struct hsk_disk_request q;

    for (;;) {
        ssize_t n = recv(s->sock, &q, sizeof(q), MSG_TRUNC);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return NULL;
        if (n != sizeof(q) || !possible(s, &q)) {
            /* The machine process was taken over or has a bug. Without its disks it comes to a stop
             * by itself. */
            g_warning("the machine process asked for something impossible of its disks; it gets no "
                      "answers any more");
            shutdown(s->sock, SHUT_RDWR);
            return NULL;
        }
        if (q.op == HSK_DISK_OP_MARK) {
            mark(s, q.offset);
            continue;
        }
        struct hsk_disk_answer a = {.slot = q.slot, .result = serve(s, &q)};
        if (send(s->sock, &a, sizeof(a), MSG_NOSIGNAL) < 0)
            return NULL;
    }
}

struct hsk_disk_service *hsk_disk_service_new(struct hsk_doc *doc, struct hsk_child *c,
                                              GError **error)
{
    const struct hsk_manifest *m = hsk_doc_manifest(doc);
    const size_t bytes = (size_t)HSK_DISK_SLOTS * HSK_DISK_SLOT_BYTES;
    int pair[2];

    HSK_AUTOFD slots = hsk_memfd_new("disks", bytes, error);
    if (slots < 0)
        return NULL;
    void *map = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, slots, 0);
    if (map == MAP_FAILED || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_FAILED, "cannot make the disks' buffers: %s",
                    g_strerror(errno));
        if (map != MAP_FAILED)
            munmap(map, bytes);
        return NULL;
    }
    struct hsk_disk_service *s = g_new0(struct hsk_disk_service, 1);
    g_mutex_init(&s->lock);
    s->doc = doc;
    s->sock = pair[0];
    s->slots = map;
    s->ndisks = MIN(m->ndisks, G_N_ELEMENTS(s->size));
    for (unsigned i = 0; i < s->ndisks; i++)
        s->size[i] = m->disks[i].size_bytes;
    hsk_child_give(c, "disks", pair[1]);
    hsk_child_give(c, "disks.slots", slots);
    close(pair[1]);
    s->thread = g_thread_new("disks", disk_thread, s);
    return s;
}

void hsk_disk_service_expect_mark(struct hsk_disk_service *s, uint64_t name,
                                  void (*marked)(void *opaque, struct hsk_take_point *point),
                                  void *opaque)
{
    hsk_disk_service_forget_mark(s);
    g_mutex_lock(&s->lock);
    s->marked = marked;
    s->opaque = opaque;
    s->expected = true;
    s->name = name;
    g_mutex_unlock(&s->lock);
}

void hsk_disk_service_forget_mark(struct hsk_disk_service *s)
{
    g_mutex_lock(&s->lock);
    s->expected = false;
    if (s->idle)
        g_source_remove(s->idle);
    s->idle = 0;
    if (s->point)
        hsk_take_abandon(g_steal_pointer(&s->point));
    g_mutex_unlock(&s->lock);
}

uint64_t hsk_disk_service_writes(const struct hsk_disk_service *s)
{
    return atomic_load_explicit(&s->writes, memory_order_relaxed);
}

void hsk_disk_service_free(struct hsk_disk_service *s)
{
    if (!s)
        return;
    shutdown(s->sock, SHUT_RDWR);
    g_thread_join(s->thread);
    hsk_disk_service_forget_mark(s);
    g_mutex_clear(&s->lock);
    close(s->sock);
    munmap(s->slots, (size_t)HSK_DISK_SLOTS * HSK_DISK_SLOT_BYTES);
    g_free(s);
}
