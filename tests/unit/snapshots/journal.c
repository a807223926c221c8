/* SPDX-License-Identifier: MIT */
/*
 * The journal of changes and its cuts (journal.h). Files and folders are nodes with numbers of
 * their own, because a file system gives the number of a deleted file to the next one.
 */
#include "journal.h"

#include <base/util.h>

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

enum { SECTOR = 512 };

enum change_kind { CHANGE_WRITE, CHANGE_SIZE, CHANGE_NAME, CHANGE_SYNC };

struct change {
    enum change_kind kind;
    unsigned node;      /* the file, or the folder of the name */
    unsigned synced_at; /* the change that made it durable; UINT_MAX: none yet */
    uint64_t off;       /* or the size */
    GBytes *data;
    char *name, *from; /* from: the name that goes away in the same step, or NULL */
    unsigned target;   /* node of name; 0: the name goes away */
};

/* A file or a folder: number 0 is nobody's. */
struct node {
    GByteArray *data;  /* of a file, or NULL */
    GHashTable *names; /* of a folder: name -> node */
};

struct journal {
    GPtrArray *folders; /* paths; node of the n-th is n + 1 */
    GPtrArray *nodes;   /* struct node: at the beginning */
    GPtrArray *changes;
    GHashTable *numbers; /* inode -> node */
    GMutex lock;
};

static struct node *node_new(bool folder)
{
    struct node *n = g_new0(struct node, 1);
    if (folder)
        n->names = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    else
        n->data = g_byte_array_new();
    return n;
}

static void node_free(gpointer p)
{
    struct node *n = p;
    if (n == NULL)
        return;
    g_clear_pointer(&n->data, g_byte_array_unref);
    g_clear_pointer(&n->names, g_hash_table_unref);
    g_free(n);
}

static void change_free(gpointer p)
{
    struct change *c = p;
    g_clear_pointer(&c->data, g_bytes_unref);
    g_free(c->name);
    g_free(c->from);
    g_free(c);
}

static unsigned add_node(struct journal *j, const struct stat *st)
{
    uint64_t inode = st->st_ino;
    g_ptr_array_add(j->nodes, node_new(S_ISDIR(st->st_mode)));
    unsigned number = j->nodes->len - 1;
    g_hash_table_replace(j->numbers, g_memdup2(&inode, sizeof(inode)), GUINT_TO_POINTER(number));
    return number;
}

static unsigned find_node(struct journal *j, const struct stat *st)
{
    uint64_t inode = st->st_ino;
    return GPOINTER_TO_UINT(g_hash_table_lookup(j->numbers, &inode));
}

static unsigned node_of(struct journal *j, int fd)
{
    struct stat st;
    return fstat(fd, &st) == 0 ? find_node(j, &st) : 0;
}

static void load(struct journal *j, const char *path, unsigned number)
{
    struct node *n = g_ptr_array_index(j->nodes, number);
    if (n->data != NULL) {
        g_autofree char *text = NULL;
        gsize len = 0;
        hsk_assert(g_file_get_contents(path, &text, &len, NULL));
        g_byte_array_append(n->data, (const guint8 *)text, (guint)len);
        return;
    }
    g_autoptr(GDir) dir = g_dir_open(path, 0, NULL);
    const char *name;
    while (dir != NULL && (name = g_dir_read_name(dir)) != NULL) {
        g_autofree char *child = g_build_filename(path, name, NULL);
        struct stat st;
        hsk_assert(stat(child, &st) == 0);
        unsigned known = find_node(j, &st), node = known != 0 ? known : add_node(j, &st);
        g_hash_table_insert(n->names, g_strdup(name), GUINT_TO_POINTER(node));
        if (known == 0)
            load(j, child, node);
    }
}

struct journal *journal_new(const char *const *folders)
{
    struct journal *j = g_new0(struct journal, 1);
    j->folders = g_ptr_array_new_with_free_func(g_free);
    j->nodes = g_ptr_array_new_with_free_func(node_free);
    j->changes = g_ptr_array_new_with_free_func(change_free);
    j->numbers = g_hash_table_new_full(g_int64_hash, g_int64_equal, g_free, NULL);
    g_mutex_init(&j->lock);
    g_ptr_array_add(j->nodes, NULL);
    for (unsigned i = 0; folders[i] != NULL; i++) {
        struct stat st;
        hsk_assert(stat(folders[i], &st) == 0);
        g_ptr_array_add(j->folders, g_strdup(folders[i]));
        add_node(j, &st);
    }
    for (unsigned i = 0; i < j->folders->len; i++)
        load(j, g_ptr_array_index(j->folders, i), i + 1);
    return j;
}

void journal_free(struct journal *j)
{
    g_ptr_array_unref(j->folders);
    g_ptr_array_unref(j->nodes);
    g_ptr_array_unref(j->changes);
    g_hash_table_unref(j->numbers);
    g_mutex_clear(&j->lock);
    g_free(j);
}

unsigned journal_now(struct journal *j)
{
    G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&j->lock);
    return j->changes->len;
}

unsigned journal_before_sync(struct journal *j, unsigned from)
{
    while (from < j->changes->len &&
           ((const struct change *)g_ptr_array_index(j->changes, from))->kind != CHANGE_SYNC)
        from++;
    return from;
}

/* ---- recording ---- */

static struct change *add_change(struct journal *j, enum change_kind kind, unsigned node)
{
    struct change *c = g_new0(struct change, 1);
    c->kind = kind;
    c->node = node;
    c->synced_at = UINT_MAX;
    g_ptr_array_add(j->changes, c);
    return c;
}

void journal_write(struct journal *j, int fd, const void *data, size_t len, uint64_t off)
{
    G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&j->lock);
    unsigned node = node_of(j, fd);
    if (node == 0)
        return;
    struct change *c = add_change(j, CHANGE_WRITE, node);
    c->off = off;
    c->data = g_bytes_new(data, len);
}

void journal_size(struct journal *j, int fd, uint64_t size)
{
    G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&j->lock);
    unsigned node = node_of(j, fd);
    if (node != 0)
        add_change(j, CHANGE_SIZE, node)->off = size;
}

void journal_sync(struct journal *j, int fd)
{
    G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&j->lock);
    unsigned node = node_of(j, fd);
    if (node == 0)
        return;
    for (guint i = 0; i < j->changes->len; i++) {
        struct change *c = g_ptr_array_index(j->changes, i);
        if (c->node == node && c->synced_at == UINT_MAX)
            c->synced_at = j->changes->len;
    }
    add_change(j, CHANGE_SYNC, node);
}

/* The folder that a path's last name is in, or 0. */
static unsigned folder_of(struct journal *j, int dirfd, const char *path)
{
    g_autofree char *folder = g_path_get_dirname(path);
    struct stat st;
    return fstatat(dirfd, folder, &st, 0) == 0 ? find_node(j, &st) : 0;
}

void journal_name(struct journal *j, int dirfd, const char *path, int fd)
{
    G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&j->lock);
    unsigned folder = folder_of(j, dirfd, path), target;
    struct stat st;
    if (folder == 0 || fstatat(dirfd, path, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return;
    target = fd < 0 && !S_ISDIR(st.st_mode) ? find_node(j, &st) : add_node(j, &st);
    struct change *c = add_change(j, CHANGE_NAME, folder);
    c->name = g_path_get_basename(path);
    c->target = target;
}

void journal_rename(struct journal *j, int from_dir, const char *from, int to_dir, const char *to)
{
    G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&j->lock);
    unsigned folder = folder_of(j, to_dir, to);
    struct stat st;
    if (folder == 0 || fstatat(to_dir, to, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return;
    hsk_assert(folder_of(j, from_dir, from) == folder);
    struct change *c = add_change(j, CHANGE_NAME, folder);
    c->name = g_path_get_basename(to);
    c->from = g_path_get_basename(from);
    c->target = find_node(j, &st);
}

void journal_unlink(struct journal *j, int dirfd, const char *path)
{
    G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&j->lock);
    unsigned folder = folder_of(j, dirfd, path);
    if (folder != 0)
        add_change(j, CHANGE_NAME, folder)->name = g_path_get_basename(path);
}

/* ---- cuts ---- */

struct cutter {
    struct journal *j;
    GPtrArray *nodes; /* struct node: as they are found */
    unsigned now;
    enum journal_cut cut;
    unsigned names_until; /* JOURNAL_IN_ORDER */
    GRand *rand;
};

static bool coin(struct cutter *k)
{
    return g_rand_boolean(k->rand);
}

static void put(GByteArray *a, uint64_t off, const uint8_t *data, size_t len)
{
    if (off + len > a->len) {
        guint old = a->len;
        g_byte_array_set_size(a, (guint)(off + len));
        memset(a->data + old, 0, off + len - old);
    }
    if (len > 0)
        memcpy(a->data + off, data, len);
}

/* A write that was not synced: whole, not at all, some sectors, or only the longer file. */
static void tear(struct cutter *k, GByteArray *a, const struct change *c)
{
    gsize len;
    const uint8_t *data = g_bytes_get_data(c->data, &len);
    guint32 how = g_rand_int(k->rand) % 8;
    if (how < 2) {
        put(a, c->off, data, len);
    } else if (how == 2) {
        put(a, c->off + len, NULL, 0);
    } else if (how < 6) {
        for (uint64_t at = 0, n; at < len; at += n) {
            n = MIN(SECTOR - (c->off + at) % SECTOR, len - at);
            if (coin(k))
                put(a, c->off + at, data + at, n);
        }
    }
}

static void apply_content(struct cutter *k, struct node *n, const struct change *c, bool sure)
{
    gsize len;
    if (c->kind == CHANGE_WRITE) {
        const uint8_t *data = g_bytes_get_data(c->data, &len);
        if (sure || k->cut == JOURNAL_MOST)
            put(n->data, c->off, data, len);
        else if (k->cut == JOURNAL_ANY || k->cut == JOURNAL_IN_ORDER)
            tear(k, n->data, c);
    } else if (sure || k->cut == JOURNAL_MOST || (k->cut != JOURNAL_LEAST && coin(k))) {
        if (c->off < n->data->len)
            g_byte_array_set_size(n->data, (guint)c->off);
        else
            put(n->data, c->off, NULL, 0);
    }
}

static void apply_name(struct node *n, const struct change *c)
{
    if (c->from != NULL)
        g_hash_table_remove(n->names, c->from);
    if (c->target != 0)
        g_hash_table_replace(n->names, g_strdup(c->name), GUINT_TO_POINTER(c->target));
    else
        g_hash_table_remove(n->names, c->name);
}

static bool name_stays(struct cutter *k, unsigned index)
{
    switch (k->cut) {
    case JOURNAL_LEAST:
        return false;
    case JOURNAL_IN_ORDER:
        return index < k->names_until;
    case JOURNAL_ANY:
        return coin(k);
    default:
        return true;
    }
}

static struct node *copy_node(const struct node *from)
{
    struct node *n = node_new(from->names != NULL);
    GHashTableIter it;
    gpointer name, target;
    if (from->data != NULL) {
        g_byte_array_append(n->data, from->data->data, from->data->len);
        return n;
    }
    g_hash_table_iter_init(&it, from->names);
    while (g_hash_table_iter_next(&it, &name, &target))
        g_hash_table_insert(n->names, g_strdup(name), target);
    return n;
}

static void apply_all(struct cutter *k)
{
    k->nodes = g_ptr_array_new_with_free_func(node_free);
    g_ptr_array_add(k->nodes, NULL);
    for (guint i = 1; i < k->j->nodes->len; i++)
        g_ptr_array_add(k->nodes, copy_node(g_ptr_array_index(k->j->nodes, i)));
    k->names_until = k->now == 0 ? 0 : g_rand_int(k->rand) % (k->now + 1);
    for (unsigned i = 0; i < k->now; i++) {
        const struct change *c = g_ptr_array_index(k->j->changes, i);
        struct node *n = g_ptr_array_index(k->nodes, c->node);
        bool sure = c->synced_at < k->now;
        if (c->kind == CHANGE_NAME && (sure || name_stays(k, i)))
            apply_name(n, c);
        else if (c->kind == CHANGE_WRITE || c->kind == CHANGE_SIZE)
            apply_content(k, n, c, sure);
    }
}

static void remove_below(const char *path)
{
    g_autoptr(GDir) dir = g_dir_open(path, 0, NULL);
    const char *name;
    while (dir != NULL && (name = g_dir_read_name(dir)) != NULL) {
        g_autofree char *child = g_build_filename(path, name, NULL);
        remove_below(child);
        remove(child);
    }
}

static void build(struct cutter *k, const char *path, unsigned number)
{
    const struct node *n = g_ptr_array_index(k->nodes, number);
    GHashTableIter it;
    gpointer name, target;
    if (n->data != NULL) {
        HSK_AUTOFD fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        hsk_assert(fd >= 0 && hsk_pwrite_all(fd, n->data->data, n->data->len, 0) == 0);
        return;
    }
    hsk_assert(g_mkdir_with_parents(path, 0700) == 0);
    g_hash_table_iter_init(&it, n->names);
    while (g_hash_table_iter_next(&it, &name, &target)) {
        g_autofree char *child = g_build_filename(path, name, NULL);
        build(k, child, GPOINTER_TO_UINT(target));
    }
}

void journal_restore(struct journal *j, unsigned now, enum journal_cut cut, uint32_t seed)
{
    struct cutter k = {.j = j, .now = now, .cut = cut, .rand = g_rand_new_with_seed(seed)};
    apply_all(&k);
    for (guint i = 0; i < j->folders->len; i++) {
        remove_below(g_ptr_array_index(j->folders, i));
        build(&k, g_ptr_array_index(j->folders, i), i + 1);
    }
    g_ptr_array_unref(k.nodes);
    g_rand_free(k.rand);
}

static bool same(struct cutter *k, const char *path, unsigned number)
{
    const struct node *n = g_ptr_array_index(k->nodes, number);
    if (n->data != NULL) {
        g_autofree char *text = NULL;
        gsize len = 0;
        return g_file_get_contents(path, &text, &len, NULL) && len == n->data->len &&
               (len == 0 || memcmp(text, n->data->data, len) == 0);
    }
    g_autoptr(GDir) dir = g_dir_open(path, 0, NULL);
    const char *name;
    unsigned names = 0;
    while (dir != NULL && (name = g_dir_read_name(dir)) != NULL) {
        g_autofree char *child = g_build_filename(path, name, NULL);
        unsigned target = GPOINTER_TO_UINT(g_hash_table_lookup(n->names, name));
        if (target == 0 || !same(k, child, target)) {
            g_printerr("the journal does not know what became of %s\n", child);
            return false;
        }
        names++;
    }
    return names == g_hash_table_size(n->names);
}

bool journal_agrees(struct journal *j)
{
    struct cutter k = {
        .j = j, .now = j->changes->len, .cut = JOURNAL_MOST, .rand = g_rand_new_with_seed(0)};
    bool ok = true;
    apply_all(&k);
    for (guint i = 0; i < j->folders->len && ok; i++)
        ok = same(&k, g_ptr_array_index(j->folders, i), i + 1);
    g_ptr_array_unref(k.nodes);
    g_rand_free(k.rand);
    return ok;
}
