/* SPDX-License-Identifier: MIT */
/*
 * The bus (vmm/device.h): a sorted immutable table of ranges, looked up by binary search and
 * replaced as a whole; an old table stays until the machine passes a safe point, because a vCPU may
 * be in the middle of a lookup. It takes the device's lock around each access and checks size and
 * range, so devices need not.
 */
#include <vmm/device.h>

struct range {
    uint64_t base, size;
    struct hsk_dev *dev;
    unsigned region;
};

struct table {
    unsigned n;
    struct range range[];
};

struct hsk_bus {
    const char *name;
    _Atomic(struct table *) table;
    pthread_mutex_t lock; /* writers, and old */
    GPtrArray *old;
};

void hsk_dev_init(struct hsk_dev *dev, const struct hsk_dev_ops *ops, struct hsk_machine *m,
                  const char *id)
{
    dev->ops = ops;
    dev->machine = m;
    hsk_assert(strlen(id) < sizeof dev->id);
    g_strlcpy(dev->id, id, sizeof dev->id);
    pthread_mutex_init(&dev->lock, NULL);
}

void hsk_dev_finish(struct hsk_dev *dev)
{
    pthread_mutex_destroy(&dev->lock);
}

struct hsk_bus *hsk_bus_new(const char *name)
{
    struct hsk_bus *bus = g_new0(struct hsk_bus, 1);

    bus->name = name;
    atomic_init(&bus->table, g_malloc0(sizeof(struct table)));
    bus->old = g_ptr_array_new_with_free_func(g_free);
    pthread_mutex_init(&bus->lock, NULL);
    return bus;
}

void hsk_bus_free(struct hsk_bus *bus)
{
    if (!bus)
        return;
    g_free(atomic_load(&bus->table));
    g_ptr_array_unref(bus->old);
    pthread_mutex_destroy(&bus->lock);
    g_free(bus);
}

void hsk_bus_reclaim(struct hsk_bus *bus)
{
    pthread_mutex_lock(&bus->lock);
    g_ptr_array_set_size(bus->old, 0);
    pthread_mutex_unlock(&bus->lock);
}

/* Index of the first range that ends after addr. */
static unsigned lower_bound(const struct table *t, uint64_t addr)
{
    unsigned lo = 0, hi = t->n;

    while (lo < hi) {
        unsigned mid = (lo + hi) / 2;

        if (t->range[mid].base + (t->range[mid].size - 1) < addr)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

static void publish_locked(struct hsk_bus *bus, struct table *t)
{
    g_ptr_array_add(bus->old, atomic_exchange(&bus->table, t));
}

bool hsk_bus_map(struct hsk_bus *bus, uint64_t base, uint64_t size, struct hsk_dev *dev,
                 unsigned region)
{
    const struct table *t;
    bool ok = false;
    unsigned i;

    if (size == 0 || base + (size - 1) < base)
        return false;
    pthread_mutex_lock(&bus->lock);
    t = atomic_load(&bus->table);
    i = lower_bound(t, base);
    if (i == t->n || base + (size - 1) < t->range[i].base) {
        struct table *u = g_malloc0(sizeof *u + (t->n + 1) * sizeof u->range[0]);

        u->n = t->n + 1;
        memcpy(u->range, t->range, i * sizeof u->range[0]);
        u->range[i] = (struct range){base, size, dev, region};
        memcpy(u->range + i + 1, t->range + i, (t->n - i) * sizeof u->range[0]);
        publish_locked(bus, u);
        ok = true;
    }
    pthread_mutex_unlock(&bus->lock);
    return ok;
}

bool hsk_bus_unmap(struct hsk_bus *bus, uint64_t base, struct hsk_dev *dev)
{
    const struct table *t;
    bool ok = false;
    unsigned i;

    pthread_mutex_lock(&bus->lock);
    t = atomic_load(&bus->table);
    i = lower_bound(t, base);
    if (i < t->n && t->range[i].base == base && t->range[i].dev == dev) {
        struct table *u = g_malloc0(sizeof *u + t->n * sizeof u->range[0]);

        u->n = t->n - 1;
        memcpy(u->range, t->range, i * sizeof u->range[0]);
        memcpy(u->range + i, t->range + i + 1, (t->n - i - 1) * sizeof u->range[0]);
        publish_locked(bus, u);
        ok = true;
    }
    pthread_mutex_unlock(&bus->lock);
    return ok;
}

/* By value: the device may replace the table while it handles the access. */
static bool find(struct hsk_bus *bus, uint64_t addr, unsigned size, struct range *out)
{
    const struct table *t = atomic_load_explicit(&bus->table, memory_order_acquire);
    unsigned i = lower_bound(t, addr);

    if (i == t->n || addr < t->range[i].base ||
        !hsk_range_ok(addr - t->range[i].base, size, t->range[i].size))
        return false;
    *out = t->range[i];
    return true;
}

static bool size_ok(const struct hsk_dev_ops *ops, unsigned size)
{
    return (!ops->min_size || size >= ops->min_size) && (!ops->max_size || size <= ops->max_size);
}

static uint64_t all_ones(unsigned size)
{
    return size == 8 ? UINT64_MAX : (1ull << (8 * size)) - 1;
}

bool hsk_bus_read(struct hsk_bus *bus, uint64_t addr, unsigned size, uint64_t *value)
{
    struct range r;

    *value = all_ones(size);
    if (!find(bus, addr, size, &r) || !r.dev->ops->read || !size_ok(r.dev->ops, size))
        return false;
    hsk_dev_enter(r.dev);
    *value &= r.dev->ops->read(r.dev, r.region, addr - r.base, size);
    hsk_dev_leave(r.dev);
    return true;
}

bool hsk_bus_write(struct hsk_bus *bus, uint64_t addr, unsigned size, uint64_t value)
{
    struct range r;

    if (!find(bus, addr, size, &r) || !r.dev->ops->write || !size_ok(r.dev->ops, size))
        return false;
    hsk_dev_enter(r.dev);
    r.dev->ops->write(r.dev, r.region, addr - r.base, size, value & all_ones(size));
    hsk_dev_leave(r.dev);
    return true;
}
