/* SPDX-License-Identifier: MIT */
/*
 * Members over a tar or a directory (carrier.h). The tar's table is what one walk over the headers
 * found, the last of equal names winning; the TAIL is a hint for readers that have only the end of
 * the file (HTTP) and is checked, not relied upon.
 */
#include <appliance-format/carrier.h>
#include <appliance-format/tar.h>

#include <errno.h>
#include <inttypes.h>
#include <sodium.h>
#include <sys/stat.h>

struct hsk_carrier {
    char *label;
    int fd;
    bool tar;
    GArray *members;     /* tar: struct hsk_tar_member in file order */
    GHashTable *by_name; /* tar: name -> struct hsk_tar_member, inside members */
    uint64_t end;        /* tar */
};

void hsk_member_close(struct hsk_member *m)
{
    if (m->owns_fd && m->fd >= 0)
        close(m->fd);
    m->fd = -1;
}

int hsk_member_read(const struct hsk_member *m, uint64_t off, void *buf, size_t len)
{
    if (!hsk_range_ok(off, len, m->size))
        return -EINVAL;
    return hsk_pread_all(m->fd, buf, len, m->base + off);
}

struct hsk_carrier *hsk_carrier_open_tar(int fd, const char *label, GError **error)
{
    uint64_t end = 0;
    GArray *members = hsk_tar_scan(fd, label, &end, error);
    if (members == NULL)
        return NULL;
    struct hsk_carrier *c = g_new0(struct hsk_carrier, 1);
    *c = (struct hsk_carrier){
        .label = g_strdup(label), .fd = fd, .tar = true, .members = members, .end = end};
    c->by_name = g_hash_table_new(g_str_hash, g_str_equal);
    for (guint i = 0; i < members->len; i++) {
        struct hsk_tar_member *m = &g_array_index(members, struct hsk_tar_member, i);
        g_hash_table_replace(c->by_name, m->name, m);
    }
    return c;
}

struct hsk_carrier *hsk_carrier_open_dir(int dirfd, const char *label)
{
    struct hsk_carrier *c = g_new0(struct hsk_carrier, 1);
    *c = (struct hsk_carrier){.label = g_strdup(label), .fd = dirfd};
    return c;
}

void hsk_carrier_free(struct hsk_carrier *c)
{
    if (c == NULL)
        return;
    g_clear_pointer(&c->by_name, g_hash_table_unref);
    if (c->members != NULL)
        g_array_unref(c->members);
    g_free(c->label);
    g_free(c);
}

const char *hsk_carrier_label(const struct hsk_carrier *c)
{
    return c->label;
}

bool hsk_carrier_has(const struct hsk_carrier *c, const char *name)
{
    if (c->tar)
        return g_hash_table_contains(c->by_name, name);
    /* Who opens it is told if it is another error. */
    return faccessat(c->fd, name, F_OK, 0) == 0 || (errno != ENOENT && errno != ENOTDIR);
}

bool hsk_carrier_member(const struct hsk_carrier *c, const char *name, struct hsk_member *out,
                        GError **error)
{
    hsk_assert(hsk_tar_name_ok(name));
    if (c->tar) {
        const struct hsk_tar_member *m = g_hash_table_lookup(c->by_name, name);
        if (m == NULL) {
            g_set_error(error, HSK_ERROR, HSK_ERROR_NOT_FOUND, "%s has no %s in it", c->label,
                        name);
            return false;
        }
        *out = (struct hsk_member){.fd = c->fd, .base = m->data, .size = m->size};
        return true;
    }
    HSK_AUTOFD fd = openat(c->fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0)
        return hsk_io_error(error, errno, "open %s in %s", name, c->label);
    struct stat st;
    if (fstat(fd, &st) < 0)
        return hsk_io_error(error, errno, "read %s in %s", name, c->label);
    if (!S_ISREG(st.st_mode))
        return hsk_damaged(error, c->label, "%s is not a file", name);
    *out =
        (struct hsk_member){.fd = hsk_steal_fd(&fd), .size = (uint64_t)st.st_size, .owns_fd = true};
    return true;
}

GBytes *hsk_carrier_read(const struct hsk_carrier *c, const char *name, size_t max, GError **error)
{
    struct hsk_member m;
    if (!hsk_carrier_member(c, name, &m, error))
        return NULL;
    if (m.size > max) {
        hsk_damaged(error, c->label, "%s is larger than it can be", name);
        hsk_member_close(&m);
        return NULL;
    }
    void *buf = g_try_malloc(m.size + 1);
    int r = buf == NULL ? -ENOMEM : hsk_member_read(&m, 0, buf, m.size);
    size_t size = m.size;
    hsk_member_close(&m);
    if (r < 0) {
        g_free(buf);
        hsk_io_error(error, r, "read %s in %s", name, c->label);
        return NULL;
    }
    return g_bytes_new_take(buf, size);
}

uint64_t hsk_carrier_tar_end(const struct hsk_carrier *c)
{
    hsk_assert(c->tar);
    return c->end;
}

/* TAIL: docs/format.md, "TAIL". A re-packed archive carries the TAIL of the original, whose offsets
 * no longer hold. */
bool hsk_carrier_tar_check_tail(const struct hsk_carrier *c, GError **error)
{
    const struct hsk_tar_member *tail = g_hash_table_lookup(c->by_name, "TAIL");
    const struct hsk_tar_member *root = g_hash_table_lookup(c->by_name, "ROOT");
    uint8_t t[512], hash[HSK_HASH_BYTES];
    if (tail == NULL)
        return true; /* nobody but a reader over HTTP misses it */
    if (tail->size != sizeof(t) || root == NULL)
        return hsk_damaged(error, c->label, "its TAIL is not whole");
    int r = hsk_pread_all(c->fd, t, sizeof(t), tail->data);
    if (r < 0)
        return hsk_io_error(error, r, "read %s", c->label);
    hsk_hash(t, 480, hash);
    if (memcmp(t, "HVATAIL1", 8) != 0 || memcmp(hash, t + 480, HSK_HASH_BYTES) != 0)
        return hsk_damaged(error, c->label, "its TAIL is not whole");
    if (hsk_get64(t + 40) != tail->data)
        return true;
    if (hsk_get64(t + 24) != root->data || hsk_get64(t + 32) != root->size ||
        hsk_get64(t + 56) != c->end + 1024)
        return hsk_damaged(error, c->label, "its TAIL does not point at its ROOT");
    return true;
}

bool hsk_member_hash(const struct hsk_member *m, uint8_t hash[HSK_HASH_BYTES])
{
    g_autofree uint8_t *buf = g_malloc(1u << 20);
    crypto_generichash_state st;
    crypto_generichash_init(&st, NULL, 0, HSK_HASH_BYTES);
    for (uint64_t off = 0; off < m->size;) {
        size_t n = MIN(m->size - off, 1u << 20);
        if (hsk_member_read(m, off, buf, n) < 0)
            return false;
        crypto_generichash_update(&st, buf, n);
        off += n;
    }
    crypto_generichash_final(&st, hash, HSK_HASH_BYTES);
    return true;
}
