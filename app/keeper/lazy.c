/* SPDX-License-Identifier: MIT */
/*
 * Guest memory that comes while the guest runs (userfaultfd(2); docs/architecture.md, "Opening").
 * The machine process makes the userfaultfd for its own mapping, registers the object (missing
 * pages) and hands it over; here its faults are answered from the version's frames, and everything
 * else is filled in behind its back: what was needed the last time first, then in stored order.
 *
 * A frame is decoded once and all its pages are put in place at once. A page that is there is never
 * overwritten (the kernel refuses), so nobody has to know who was first. Pages of zeros are made
 * only where somebody waits; when all frames are in place the range is unregistered and they come
 * by themselves, as in any new memory.
 *
 * Threads: one answers faults, FILLERS fill in, and once in, they share only atomics. What the
 * machine says in a fault is an address; it is checked against the range and leads to a page
 * number, nothing else.
 */
#include "lazy.h"

#include <snapshots/fetch.h>

#include <errno.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <stdatomic.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/resource.h>

enum {
    FILLERS = 2,
    ZERO_PAGES = 16,                    /* made at once, where they are in one piece */
    RECORD_US = 10 * G_TIME_SPAN_SECOND /* since the machine has its memory */
};

enum { WAITING, UNDER_WAY, DONE }; /* of a frame */

struct hsk_lazy {
    struct hsk_version *version;
    char *object;
    hsk_lazy_ended_fn ended;
    void *opaque;
    GThread *fillers[FILLERS], *faults;
    GArray *expect; /* of uint32_t */

    /* lock, with changed */
    GMutex lock;
    GCond changed;
    struct hsk_fetch *fetch; /* constant once it is there */
    int uffd;                /* likewise */
    uint64_t address;
    bool over;      /* nothing more is to be done: all there, failed, or not wanted any more */
    GError *error;  /* the first */
    guint source;   /* the callback on its way */
    GArray *needed; /* of uint32_t: faults so far */

    int quit_fd; /* readable: over */
    gint64 attached_us;
    _Atomic uint8_t *state; /* of each frame */
    _Atomic uint32_t next_expected, next_frame, left;
};

static gboolean tell(gpointer opaque)
{
    struct hsk_lazy *l = opaque;

    g_mutex_lock(&l->lock);
    l->source = 0;
    g_mutex_unlock(&l->lock);
    l->ended(l->opaque, l->error);
    return G_SOURCE_REMOVE;
}

/* The first word counts. Takes error; quiet: nobody wants to hear of it. */
static void finish(struct hsk_lazy *l, GError *error, bool quiet)
{
    const uint64_t one = 1;

    g_mutex_lock(&l->lock);
    if (!l->over) {
        l->over = true;
        l->error = g_steal_pointer(&error);
        if (!quiet)
            l->source = g_idle_add(tell, l);
        hsk_assert(write(l->quit_fd, &one, sizeof(one)) == sizeof(one));
        g_cond_broadcast(&l->changed);
    }
    g_mutex_unlock(&l->lock);
    g_clear_error(&error);
}

static bool is_over(struct hsk_lazy *l)
{
    g_mutex_lock(&l->lock);
    bool over = l->over;
    g_mutex_unlock(&l->lock);
    return over;
}

/* ---- pages into place ---- */

/* src NULL: zeros. 0, or a negative errno: -ESRCH, the machine is gone. */
static int place(struct hsk_lazy *l, uint64_t page, uint64_t count, const uint8_t *src)
{
    const uint64_t len = count * HSK_PAGE_SIZE, to = l->address + page * HSK_PAGE_SIZE;

    for (uint64_t at = 0; at < len;) {
        struct uffdio_copy copy = {
            .dst = to + at, .src = (uintptr_t)src + at, .len = len - at, .mode = 0};
        struct uffdio_zeropage zero = {.range = {.start = to + at, .len = len - at}};

        if (ioctl(l->uffd, src ? UFFDIO_COPY : UFFDIO_ZEROPAGE, src ? (void *)&copy : &zero) == 0)
            return 0;
        const int64_t done = src ? copy.copy : zero.zeropage;
        if (done > 0)
            at += (uint64_t)done;
        else if (errno == EEXIST)
            at += HSK_PAGE_SIZE;
        else if (errno == ENOENT)
            return -ESRCH;
        else if (errno != EAGAIN)
            return -errno;
    }
    return 0;
}

static void trouble(struct hsk_lazy *l, int err)
{
    if (err == -ESRCH)
        finish(l, NULL, true);
    else
        finish(l,
               g_error_new(HSK_ERROR, HSK_ERROR_FAILED,
                           "the machine's memory could not be put in place: %s", g_strerror(-err)),
               false);
}

/* Everything is there: no fault is reported any more. */
static void complete(struct hsk_lazy *l)
{
    struct uffdio_range range = {.start = l->address,
                                 .len = hsk_fetch_pages(l->fetch) * HSK_PAGE_SIZE};
    int r = ioctl(l->uffd, UFFDIO_UNREGISTER, &range);

    finish(l, NULL, r < 0); /* else the machine is gone */
}

static void bring(struct hsk_lazy *l, uint32_t frame, uint8_t *buf)
{
    GError *error = NULL;
    uint8_t was = WAITING;
    size_t n;
    int err = 0;
    const bool mine = atomic_compare_exchange_strong(&l->state[frame], &was, UNDER_WAY);
    const struct hsk_fetch_run *r = hsk_fetch_runs(l->fetch, frame, &n);

    if (!hsk_fetch_decode(l->fetch, frame, buf, &error)) {
        finish(l, error, false);
        return;
    }
    for (; n > 0 && err == 0; n--, r++)
        err = place(l, r->page, r->count, hsk_fetch_at(r, buf));
    if (err < 0) {
        trouble(l, err);
        return;
    }
    if (!mine)
        return;
    atomic_store(&l->state[frame], DONE);
    if (atomic_fetch_sub(&l->left, 1) == 1)
        complete(l);
}

/* ---- filling in ---- */

/* Reads the page map while the machine process is still being started. */
static void prepare(struct hsk_lazy *l)
{
    GError *error = NULL;
    struct hsk_fetch *fetch = hsk_fetch_new(l->version, l->object, &error);

    if (!fetch) {
        finish(l, error, false);
        return;
    }
    l->state = g_malloc0(hsk_fetch_frames(fetch) + 1);
    atomic_store(&l->left, hsk_fetch_frames(fetch));
    g_mutex_lock(&l->lock);
    l->fetch = fetch;
    g_cond_broadcast(&l->changed);
    g_mutex_unlock(&l->lock);
}

/* false: it will not be. */
static bool wait_for_machine(struct hsk_lazy *l)
{
    g_mutex_lock(&l->lock);
    while (!l->over && (!l->fetch || l->uffd < 0))
        g_cond_wait(&l->changed, &l->lock);
    bool go = !l->over;
    g_mutex_unlock(&l->lock);
    return go;
}

/* The next frame that was needed the last time; false: there is none. */
static bool next_expected(struct hsk_lazy *l, uint32_t *frame)
{
    uint32_t i;

    while ((i = atomic_fetch_add(&l->next_expected, 1)) < l->expect->len) {
        int64_t f = hsk_fetch_frame_of(l->fetch, g_array_index(l->expect, uint32_t, i));
        if (f >= 0 && atomic_load(&l->state[f]) == WAITING) {
            *frame = (uint32_t)f;
            return true;
        }
    }
    return false;
}

/* The next in stored order. */
static bool next_frame(struct hsk_lazy *l, uint32_t *frame)
{
    uint32_t i;

    while ((i = atomic_fetch_add(&l->next_frame, 1)) < hsk_fetch_frames(l->fetch)) {
        if (atomic_load(&l->state[i]) == WAITING) {
            *frame = i;
            return true;
        }
    }
    return false;
}

static gpointer filler(gpointer opaque)
{
    struct hsk_lazy *l = opaque;
    g_autofree uint8_t *buf = g_malloc(HSK_FETCH_BYTES);
    uint32_t frame;

    if (!wait_for_machine(l))
        return NULL;
    if (atomic_load(&l->left) == 0)
        complete(l);
    while (!is_over(l) && next_expected(l, &frame))
        bring(l, frame, buf);
    /* The rest has time: the guest and its faults go first. */
    setpriority(PRIO_PROCESS, 0, 10);
    while (!is_over(l) && next_frame(l, &frame))
        bring(l, frame, buf);
    return NULL;
}

static gpointer first_filler(gpointer opaque)
{
    prepare(opaque);
    return filler(opaque);
}

/* ---- faults ---- */

static void remember(struct hsk_lazy *l, uint32_t page)
{
    g_mutex_lock(&l->lock);
    if (l->needed->len < HSK_MAX_NEEDED && g_get_monotonic_time() - l->attached_us < RECORD_US)
        g_array_append_val(l->needed, page);
    g_mutex_unlock(&l->lock);
}

static void zeros(struct hsk_lazy *l, uint64_t page)
{
    uint64_t from = page, to = page + 1;
    const uint64_t group = page / ZERO_PAGES * ZERO_PAGES,
                   end = MIN(group + ZERO_PAGES, hsk_fetch_pages(l->fetch));

    while (from > group && hsk_fetch_frame_of(l->fetch, from - 1) < 0)
        from--;
    while (to < end && hsk_fetch_frame_of(l->fetch, to) < 0)
        to++;
    int err = place(l, from, to - from, NULL);
    if (err < 0)
        trouble(l, err);
}

static void answer(struct hsk_lazy *l, uint64_t address, uint8_t *buf)
{
    const uint64_t page = (address - l->address) / HSK_PAGE_SIZE;

    if (page >= hsk_fetch_pages(l->fetch))
        return;
    const int64_t frame = hsk_fetch_frame_of(l->fetch, page);
    if (frame < 0) {
        zeros(l, page);
    } else if (atomic_load(&l->state[frame]) == DONE) {
        /* It came between the fault and this. */
        struct uffdio_range range = {.start = l->address + page * HSK_PAGE_SIZE,
                                     .len = HSK_PAGE_SIZE};
        if (ioctl(l->uffd, UFFDIO_WAKE, &range) < 0)
            trouble(l, -ESRCH);
    } else {
        remember(l, (uint32_t)page);
        /* A filler that has begun with it may have to wait for a processor: not so the guest. */
        bring(l, (uint32_t)frame, buf);
    }
}

static gpointer faults(gpointer opaque)
{
    struct hsk_lazy *l = opaque;
    g_autofree uint8_t *buf = g_malloc(HSK_FETCH_BYTES);
    struct pollfd p[] = {{.fd = l->uffd, .events = POLLIN}, {.fd = l->quit_fd, .events = POLLIN}};

    if (!wait_for_machine(l))
        return NULL;
    while (!is_over(l)) {
        struct uffd_msg msg[16];

        if (poll(p, G_N_ELEMENTS(p), -1) < 0 && errno != EINTR)
            break;
        ssize_t n = p[0].revents ? read(l->uffd, msg, sizeof(msg)) : 0;
        for (ssize_t i = 0; i < n / (ssize_t)sizeof(msg[0]); i++) {
            if (msg[i].event == UFFD_EVENT_PAGEFAULT)
                answer(l, msg[i].arg.pagefault.address, buf);
        }
        if (n == 0 && p[0].revents)
            finish(l, NULL, true); /* the machine is gone */
    }
    return NULL;
}

/* ---- life ---- */

struct hsk_lazy *hsk_lazy_new(struct hsk_version *v, const char *object, GArray *expect,
                              hsk_lazy_ended_fn ended, void *opaque)
{
    struct hsk_lazy *l = g_new0(struct hsk_lazy, 1);

    l->version = v;
    l->object = g_strdup(object);
    l->ended = ended;
    l->opaque = opaque;
    l->expect = expect ? g_array_ref(expect) : g_array_new(FALSE, FALSE, sizeof(uint32_t));
    l->needed = g_array_new(FALSE, FALSE, sizeof(uint32_t));
    l->uffd = -1;
    l->quit_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    hsk_assert(l->quit_fd >= 0);
    g_mutex_init(&l->lock);
    g_cond_init(&l->changed);
    l->fillers[0] = g_thread_new("fill", first_filler, l);
    for (unsigned i = 1; i < FILLERS; i++)
        l->fillers[i] = g_thread_new("fill", filler, l);
    return l;
}

static bool is_userfaultfd(int fd)
{
    g_autofree char *link = g_strdup_printf("/proc/self/fd/%d", fd);
    g_autofree char *what = g_file_read_link(link, NULL);

    return g_strcmp0(what, "anon_inode:[userfaultfd]") == 0;
}

bool hsk_lazy_attach(struct hsk_lazy *l, int uffd, uint64_t address, GError **error)
{
    HSK_AUTOFD fd = uffd;

    /* A descriptor of another kind could do anything with the requests made of it. */
    if (l->uffd >= 0 || !is_userfaultfd(fd) || address % HSK_PAGE_SIZE || address >> 47) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_FAILED,
                    "the machine process handed over its memory in a way that cannot be");
        return false;
    }
    l->attached_us = g_get_monotonic_time();
    g_mutex_lock(&l->lock);
    l->address = address;
    l->uffd = hsk_steal_fd(&fd);
    g_cond_broadcast(&l->changed);
    g_mutex_unlock(&l->lock);
    l->faults = g_thread_new("faults", faults, l);
    return true;
}

void hsk_lazy_free(struct hsk_lazy *l)
{
    if (!l)
        return;
    finish(l, NULL, true);
    for (unsigned i = 0; i < FILLERS; i++)
        g_thread_join(l->fillers[i]);
    if (l->faults)
        g_thread_join(l->faults);
    g_clear_handle_id(&l->source, g_source_remove);
    if (l->uffd >= 0)
        close(l->uffd);
    close(l->quit_fd);
    hsk_fetch_free(l->fetch);
    g_free((void *)l->state);
    g_array_unref(l->expect);
    g_array_unref(l->needed);
    g_clear_error(&l->error);
    g_mutex_clear(&l->lock);
    g_cond_clear(&l->changed);
    g_free(l->object);
    g_free(l);
}

GArray *hsk_lazy_record(struct hsk_lazy *l)
{
    GArray *all = g_array_copy(l->expect);

    g_mutex_lock(&l->lock);
    g_array_append_vals(all, l->needed->data, l->needed->len);
    g_mutex_unlock(&l->lock);
    /* What is not needed any more goes as new ones come; what is, comes back by a fault. */
    if (all->len > HSK_MAX_NEEDED)
        g_array_remove_range(all, 0, all->len - HSK_MAX_NEEDED);
    return all;
}
