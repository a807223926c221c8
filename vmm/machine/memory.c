/* SPDX-License-Identifier: MIT */
/*
 * Guest memory (vmm/memory.h): objects with a byte of attributes per page, and the guest-physical
 * map. The map is an immutable array that is replaced as a whole; an old one stays until the
 * machine passes a safe point, since a reader on another thread may still look at it.
 */
#include <vmm/memory.h>

#include <errno.h>
#include <pthread.h>
#include <sys/mman.h>

/* From here on a write through the descriptor is cheaper than through the mapping: a page that is
   not there yet need not be cleared first, nor mapped before somebody looks at it. Whole pages
   only: the rest of a page that is still to come must come. */
#define BY_DESCRIPTOR (64u << 10)

struct map {
    unsigned n;
    struct hsk_ram_region region[HSK_RAM_MAX_REGIONS]; /* sorted by gpa */
};

struct hsk_ram {
    _Atomic(struct map *) map;
    _Atomic uint64_t generation;
    pthread_mutex_t lock; /* writers of map, and old */
    GPtrArray *old;
    hsk_code_write_fn code_write; /* set before vCPUs run */
    void *code_write_opaque;
};

static bool sealed(int fd, uint64_t size_bytes)
{
    int seals = fcntl(fd, F_GET_SEALS);
    off_t end = lseek(fd, 0, SEEK_END);

    return seals >= 0 && (seals & F_SEAL_SHRINK) && end >= 0 && (uint64_t)end >= size_bytes;
}

struct hsk_memobj *hsk_memobj_new_fds(const char *name, uint64_t size_bytes, int fd, int attr_fd,
                                      GError **error)
{
    struct hsk_memobj *obj = g_new0(struct hsk_memobj, 1);
    void *host, *attr, *code;

    for (unsigned i = 0; i < G_N_ELEMENTS(obj->first_write_lock); i++)
        pthread_mutex_init(&obj->first_write_lock[i], NULL);
    obj->fd = fd;
    obj->attr_fd = attr_fd;
    obj->size_bytes = size_bytes;
    g_strlcpy(obj->name, name, sizeof obj->name);
    if (size_bytes == 0 || size_bytes % HSK_PAGE_SIZE || !sealed(fd, size_bytes) ||
        !sealed(attr_fd, size_bytes / HSK_PAGE_SIZE)) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_FAILED,
                    "The memory given for %s has the wrong size or can shrink", name);
        hsk_memobj_free(obj);
        return NULL;
    }
    host = mmap(NULL, size_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    attr = mmap(NULL, size_bytes / HSK_PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, attr_fd, 0);
    obj->host = host == MAP_FAILED ? NULL : host;
    obj->attr = attr == MAP_FAILED ? NULL : attr;
    code = mmap(NULL, size_bytes / HSK_PAGE_SIZE, PROT_READ | PROT_WRITE,
                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    obj->code = code == MAP_FAILED ? NULL : code;
    if (!obj->host || !obj->attr || !obj->code) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_FAILED,
                    "Cannot map %" G_GUINT64_FORMAT " MiB of memory for the machine: %s",
                    size_bytes >> 20, g_strerror(errno));
        hsk_memobj_free(obj);
        return NULL;
    }
    hsk_memobj_set_huge(obj, true);
    return obj;
}

struct hsk_memobj *hsk_memobj_new(const char *name, uint64_t size_bytes, GError **error)
{
    HSK_AUTOFD fd = hsk_memfd_new(name, size_bytes, error);
    HSK_AUTOFD attr_fd = -1;

    if (fd < 0)
        return NULL;
    attr_fd = hsk_memfd_new("page attributes", MAX(size_bytes / HSK_PAGE_SIZE, 1), error);
    if (attr_fd < 0)
        return NULL;
    return hsk_memobj_new_fds(name, size_bytes, hsk_steal_fd(&fd), hsk_steal_fd(&attr_fd), error);
}

void hsk_memobj_free(struct hsk_memobj *obj)
{
    if (!obj)
        return;
    if (obj->host)
        munmap(obj->host, obj->size_bytes);
    if (obj->attr)
        munmap((void *)(uintptr_t)obj->attr, obj->size_bytes / HSK_PAGE_SIZE);
    if (obj->code)
        munmap((void *)(uintptr_t)obj->code, obj->size_bytes / HSK_PAGE_SIZE);
    for (unsigned i = 0; i < G_N_ELEMENTS(obj->first_write_lock); i++)
        pthread_mutex_destroy(&obj->first_write_lock[i]);
    if (obj->fd >= 0)
        close(obj->fd);
    if (obj->attr_fd >= 0)
        close(obj->attr_fd);
    g_free(obj);
}

void hsk_memobj_set_huge(struct hsk_memobj *obj, bool huge)
{
    madvise(obj->host, obj->size_bytes, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
}

void hsk_memobj_first_write(struct hsk_memobj *obj, uint64_t page)
{
    pthread_mutex_t *lock = &obj->first_write_lock[page % G_N_ELEMENTS(obj->first_write_lock)];

    pthread_mutex_lock(lock);
    if (!(atomic_load(&obj->attr[page]) & HSK_PAGE_SAVED)) {
        obj->before_write(obj, page, obj->before_write_opaque);
        atomic_fetch_or(&obj->attr[page], HSK_PAGE_SAVED);
    }
    pthread_mutex_unlock(lock);
}

/* Eight pages at a time, for most have nothing to tell: 4 GiB have a million. */
uint64_t hsk_memobj_collect(struct hsk_memobj *obj, uint8_t bits, uint8_t *bitmap)
{
    const uint64_t pages = obj->size_bytes / HSK_PAGE_SIZE, mask = bits * 0x0101010101010101ull;
    _Atomic uint64_t *words = (_Atomic uint64_t *)(void *)obj->attr; /* whole pages are mapped */
    uint64_t count = 0;

    for (uint64_t i = 0; i < (pages + 7) / 8; i++) {
        uint64_t found = atomic_load_explicit(&words[i], memory_order_relaxed) & mask;
        uint8_t byte = 0;

        if (found) {
            found = atomic_fetch_and(&words[i], ~mask) & mask;
            for (unsigned k = 0; k < 8; k++, found >>= 8)
                if (found & 0xff) {
                    byte |= (uint8_t)(1u << k);
                    count++;
                }
        }
        if (bitmap)
            bitmap[i] = byte;
    }
    return count;
}

void hsk_memobj_gather(struct hsk_memobj *obj)
{
    const uint64_t words = (obj->size_bytes / HSK_PAGE_SIZE + 7) / 8,
                   mask = HSK_PAGE_DIRTY * 0x0101010101010101ull;
    _Atomic uint64_t *attr = (_Atomic uint64_t *)(void *)obj->attr;

    for (uint64_t i = 0; i < words; i++) {
        uint64_t found = atomic_load_explicit(&attr[i], memory_order_relaxed) & mask;

        if (!found)
            continue;
        atomic_fetch_or(&attr[i], found * (HSK_PAGE_GATHERED / HSK_PAGE_DIRTY));
        atomic_fetch_and(&attr[i], ~found);
    }
}

struct hsk_ram *hsk_ram_new(void)
{
    struct hsk_ram *ram = g_new0(struct hsk_ram, 1);

    atomic_init(&ram->map, g_new0(struct map, 1));
    ram->old = g_ptr_array_new_with_free_func(g_free);
    pthread_mutex_init(&ram->lock, NULL);
    return ram;
}

void hsk_ram_free(struct hsk_ram *ram)
{
    if (!ram)
        return;
    g_free(atomic_load(&ram->map));
    g_ptr_array_unref(ram->old);
    pthread_mutex_destroy(&ram->lock);
    g_free(ram);
}

static void publish_locked(struct hsk_ram *ram, struct map *m)
{
    g_ptr_array_add(ram->old, atomic_exchange(&ram->map, m));
    atomic_fetch_add(&ram->generation, 1);
}

bool hsk_ram_map_add(struct hsk_ram *ram, const struct hsk_ram_region *r)
{
    g_autofree struct map *m = NULL;
    bool ok = false;
    unsigned i;

    hsk_assert(r->size_bytes && r->gpa % HSK_PAGE_SIZE == 0 && r->size_bytes % HSK_PAGE_SIZE == 0 &&
               r->gpa + r->size_bytes > r->gpa &&
               hsk_range_ok(r->offset, r->size_bytes, r->obj->size_bytes));
    pthread_mutex_lock(&ram->lock);
    m = g_memdup2(atomic_load(&ram->map), sizeof *m);
    for (i = 0; i < m->n && m->region[i].gpa + m->region[i].size_bytes <= r->gpa; i++)
        ;
    if (m->n < HSK_RAM_MAX_REGIONS && (i == m->n || r->gpa + r->size_bytes <= m->region[i].gpa)) {
        memmove(&m->region[i + 1], &m->region[i], (m->n - i) * sizeof m->region[0]);
        m->region[i] = *r;
        m->n++;
        publish_locked(ram, g_steal_pointer(&m));
        ok = true;
    }
    pthread_mutex_unlock(&ram->lock);
    return ok;
}

bool hsk_ram_map_del(struct hsk_ram *ram, gpa_t gpa)
{
    g_autofree struct map *m = NULL;
    bool ok = false;
    unsigned i;

    pthread_mutex_lock(&ram->lock);
    m = g_memdup2(atomic_load(&ram->map), sizeof *m);
    for (i = 0; i < m->n && m->region[i].gpa != gpa; i++)
        ;
    if (i < m->n) {
        memmove(&m->region[i], &m->region[i + 1], (m->n - i - 1) * sizeof m->region[0]);
        m->n--;
        publish_locked(ram, g_steal_pointer(&m));
        ok = true;
    }
    pthread_mutex_unlock(&ram->lock);
    return ok;
}

void hsk_ram_reclaim(struct hsk_ram *ram)
{
    pthread_mutex_lock(&ram->lock);
    g_ptr_array_set_size(ram->old, 0);
    pthread_mutex_unlock(&ram->lock);
}

uint64_t hsk_ram_generation(const struct hsk_ram *ram)
{
    return atomic_load(&ram->generation);
}

void hsk_ram_set_code_write(struct hsk_ram *ram, hsk_code_write_fn fn, void *opaque)
{
    ram->code_write = fn;
    ram->code_write_opaque = opaque;
}

const struct hsk_ram_region *hsk_ram_find(const struct hsk_ram *ram, gpa_t gpa)
{
    const struct map *m = atomic_load_explicit(&ram->map, memory_order_acquire);

    for (unsigned i = 0; i < m->n; i++)
        if (gpa - m->region[i].gpa < m->region[i].size_bytes)
            return &m->region[i];
    return NULL;
}

unsigned hsk_ram_regions(const struct hsk_ram *ram, struct hsk_ram_region out[HSK_RAM_MAX_REGIONS])
{
    const struct map *m = atomic_load(&ram->map);

    memcpy(out, m->region, m->n * sizeof out[0]);
    return m->n;
}

/* Before anything but an engine writes [offset, offset+len) of an object. */
static void announce(struct hsk_memobj *obj, uint64_t offset, uint64_t len)
{
    for (uint64_t page = offset >> HSK_PAGE_SHIFT; page <= (offset + len - 1) >> HSK_PAGE_SHIFT;
         page++)
        hsk_memobj_will_write(obj, page);
}

/* After the write: a translator marks a page before it reads it, so either it has read what was
 * written or the mark is seen. */
void hsk_ram_written(struct hsk_ram *ram, struct hsk_memobj *obj, uint64_t offset, uint64_t len)
{
    atomic_thread_fence(memory_order_seq_cst);
    for (uint64_t page = offset >> HSK_PAGE_SHIFT;
         len && page <= (offset + len - 1) >> HSK_PAGE_SHIFT; page++)
        if (atomic_load(&obj->code[page]) && ram->code_write)
            ram->code_write(ram->code_write_opaque, obj, page);
}

static void write_host(struct hsk_memobj *obj, uint64_t offset, const char *p, uint64_t n)
{
    const uint64_t head = MIN(-offset % HSK_PAGE_SIZE, n),
                   body = (n - head) / HSK_PAGE_SIZE * HSK_PAGE_SIZE;

    if (n < BY_DESCRIPTOR ||
        pwrite(obj->fd, p + head, body, (off_t)(offset + head)) != (ssize_t)body) {
        memcpy(obj->host + offset, p, n);
        return;
    }
    memcpy(obj->host + offset, p, head);
    memcpy(obj->host + offset + head + body, p + head + body, n - head - body);
}

/* The part of [gpa, gpa+len) that lies in gpa's region; NULL if there is none. */
static const struct hsk_ram_region *piece(struct hsk_ram *ram, gpa_t gpa, uint64_t len,
                                          uint64_t *offset, uint64_t *n)
{
    const struct hsk_ram_region *r = hsk_ram_find(ram, gpa);

    if (r) {
        *offset = r->offset + (gpa - r->gpa);
        *n = MIN(len, r->size_bytes - (gpa - r->gpa));
    }
    return r;
}

bool hsk_ram_read(struct hsk_ram *ram, gpa_t gpa, void *buf, uint64_t len)
{
    char *p = buf;
    uint64_t left = len;

    while (left) {
        uint64_t offset, n;
        const struct hsk_ram_region *r = piece(ram, gpa, left, &offset, &n);

        if (!r) {
            memset(buf, 0, len);
            return false;
        }
        memcpy(p, r->obj->host + offset, n);
        p += n;
        gpa += n;
        left -= n;
    }
    return true;
}

bool hsk_ram_write(struct hsk_ram *ram, gpa_t gpa, const void *buf, uint64_t len)
{
    const char *p = buf;

    while (len) {
        uint64_t offset, n;
        const struct hsk_ram_region *r = piece(ram, gpa, len, &offset, &n);

        if (!r)
            return false;
        if (!r->readonly) {
            announce(r->obj, offset, n);
            write_host(r->obj, offset, p, n);
            hsk_ram_written(ram, r->obj, offset, n);
        }
        p += n;
        gpa += n;
        len -= n;
    }
    return true;
}

const void *hsk_ram_ptr(struct hsk_ram *ram, gpa_t gpa, uint64_t len)
{
    uint64_t offset, n;
    const struct hsk_ram_region *r = piece(ram, gpa, len, &offset, &n);

    return r && n == len ? r->obj->host + offset : NULL;
}

void *hsk_ram_ptr_write(struct hsk_ram *ram, gpa_t gpa, uint64_t len)
{
    uint64_t offset, n;
    const struct hsk_ram_region *r = piece(ram, gpa, len, &offset, &n);

    if (!r || n != len || len == 0 || r->readonly)
        return NULL;
    announce(r->obj, offset, n);
    return r->obj->host + offset;
}
