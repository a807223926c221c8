/* SPDX-License-Identifier: MIT */
/*
 * What the store costs, in processor seconds, bytes and syncs: `bench-store WHAT FOLDER`. Folder:
 * an empty one on the file system to measure; it is left full.
 *
 * commit: versions with 10,000 changed pages of 2 GiB. hour: 720 checkpoints of light work, as the
 * timeline takes them, all of them kept, compacted now and then. back: 10,000 pages out of a
 * version, as going back takes them. read: 4 KiB reads at random places of a disk. sparse: a disk
 * of 100 GB with 60 MB in it. open: a document of 2 GB. One thread, but for `read`'s writer.
 */
#include <snapshots/store.h>

#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "../../snapshots/doc.h"

static char *folder, *path;

static double cpu_seconds(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static double seconds(void)
{
    return (double)g_get_monotonic_time() / 1e6;
}

static unsigned long rss_kb(void)
{
    unsigned long size = 0, rss = 0;
    FILE *f = fopen("/proc/self/statm", "re");
    if (f == NULL || fscanf(f, "%lu %lu", &size, &rss) != 2)
        exit(1);
    fclose(f);
    return rss * 4;
}

static uint64_t random64(void)
{
    static uint64_t x = 88172645463325252ull;
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    return x;
}

/* Compresses about as a guest's memory does, to a third. */
static void make_page(uint8_t *page)
{
    memset(page, 0, HSK_PAGE_SIZE);
    for (unsigned i = 0; i + 64 <= HSK_PAGE_SIZE; i += 64) {
        uint64_t r[2] = {random64(), random64() & 0xffffffull};
        memcpy(page + i, r, sizeof(r));
        memcpy(page + i + 24, r, 8);
    }
}

static void must(bool ok, GError *error)
{
    if (ok)
        return;
    fprintf(stderr, "%s\n", error != NULL ? error->message : "failed");
    exit(1);
}

#define OK(expr)                                                                                   \
    do {                                                                                           \
        GError *error = NULL;                                                                      \
        bool good = (expr);                                                                        \
        must(good, error);                                                                         \
    } while (0)

static unsigned syncs;

static int count(void *opaque, enum hsk_io_op op, int fd)
{
    syncs += op == HSK_IO_SYNC;
    return 0;
}

static const struct hsk_io io = {count, NULL};

static void create(int disk_fd, uint64_t disk_bytes, bool (*progress)(void *, double))
{
    char id[] = "root", name[] = "bench", virtio[] = "virtio";
    struct hsk_manifest_disk disk = {.id = id, .size_bytes = disk_bytes, .interface = virtio};
    struct hsk_manifest m = {
        .name = name, .ncpus = 1, .memory_bytes = 1ull << 31, .disks = &disk, .ndisks = 1};
    struct hsk_create c = {.manifest = &m, .kernel_fd = -1, .initrd_fd = -1, .disk_fds = &disk_fd};
    OK(hsk_doc_create_io(path, &c, true, progress, NULL, &io, &error));
}

static struct hsk_doc *open_doc(void)
{
    struct hsk_doc *doc = NULL;
    OK((doc = hsk_doc_open_io(path, false, &io, NULL, &error)) != NULL);
    return doc;
}

struct memory {
    uint8_t *ram;
    uint8_t *dirty;
    uint64_t npages;
};

static void read_page(void *opaque, uint64_t page, void *dst)
{
    struct memory *m = opaque;
    memcpy(dst, m->ram + page * HSK_PAGE_SIZE, HSK_PAGE_SIZE);
}

static struct memory memory_new(uint64_t bytes, uint64_t used)
{
    struct memory m = {g_malloc0(bytes), g_malloc0(bytes / HSK_PAGE_SIZE / 8),
                       bytes / HSK_PAGE_SIZE};
    for (uint64_t i = 0; i < used / HSK_PAGE_SIZE; i++) {
        make_page(m.ram + i * HSK_PAGE_SIZE);
        m.dirty[i / 8] |= (uint8_t)(1u << i % 8);
    }
    return m;
}

/* Changed pages lie together in runs, as a guest's do. */
static void touch(struct memory *m, uint64_t used, unsigned pages)
{
    memset(m->dirty, 0, m->npages / 8);
    for (unsigned n = 0; n < pages;) {
        uint64_t at = random64() % (used / HSK_PAGE_SIZE - 64);
        for (unsigned k = (unsigned)(1 + random64() % 32); k > 0 && n < pages; k--, at++) {
            if (m->dirty[at / 8] >> at % 8 & 1)
                continue;
            m->dirty[at / 8] |= (uint8_t)(1u << at % 8);
            make_page(m->ram + at * HSK_PAGE_SIZE);
            n++;
        }
    }
}

static uint64_t take(struct hsk_doc *doc, struct memory *m, enum hsk_version_kind kind, bool first)
{
    static uint8_t device[40000];
    static uint8_t picture[30000];
    struct hsk_version_object o = {.name = "ram",
                                   .size_bytes = m->npages * HSK_PAGE_SIZE,
                                   .dirty = m->dirty,
                                   .from_zeros = first,
                                   .read_page = read_page,
                                   .opaque = m};
    struct hsk_take t = {.title = "bench",
                         .kind = kind,
                         .engine = "soft",
                         .cpu = "v2",
                         .objects = &o,
                         .nobjects = 1,
                         .state = device,
                         .state_bytes = sizeof(device),
                         .picture_png = picture,
                         .picture_bytes = sizeof(picture)};
    uint64_t bytes = 0;
    for (unsigned i = 0; i < sizeof(picture); i++)
        picture[i] = (uint8_t)random64();
    device[random64() % sizeof(device)]++;
    OK(hsk_version_commit(doc, hsk_take_begin(doc), &t, NULL, &bytes, &error));
    return bytes;
}

static void bench_commit(void)
{
    const uint64_t used = 1ull << 30;
    create(-1, 1ull << 30, NULL);
    struct hsk_doc *doc = open_doc();
    struct memory m = memory_new(2 * used, used);
    for (unsigned i = 0; i < 10; i++) {
        double wall = seconds(), cpu = cpu_seconds();
        syncs = 0;
        uint64_t bytes = take(doc, &m, HSK_VERSION_USER, i == 0);
        printf("%s: %.3f s, %.3f CPU s, %.1f MB stored, %u syncs, RSS without memory %.0f MB\n",
               i == 0 ? "1 GiB" : "10,000 pages", seconds() - wall, cpu_seconds() - cpu,
               (double)bytes / 1e6, syncs, (double)rss_kb() / 1024 - (double)used / (1 << 20));
        touch(&m, used, 10000);
    }
    hsk_doc_close(doc);
}

/* Always the same pages, in clusters of 8 all over what is used. */
static void touch_clusters(struct memory *m, uint64_t used, unsigned pages)
{
    const uint64_t clusters = used / HSK_PAGE_SIZE / 8;
    memset(m->dirty, 0, m->npages / 8);
    for (uint64_t i = 0; i < pages; i++) {
        uint64_t at = i / 8 * 1000003 % clusters * 8 + i % 8;
        m->dirty[at / 8] |= (uint8_t)(1u << at % 8);
        make_page(m->ram + at * HSK_PAGE_SIZE);
    }
}

static bool put_pages(void *opaque, uint64_t page, uint64_t n, const void *data, GError **error)
{
    struct memory *m = opaque;
    memcpy(m->ram + page * HSK_PAGE_SIZE, data, n * HSK_PAGE_SIZE);
    return true;
}

static void back_to(struct memory *m, unsigned number, const char *what)
{
    struct hsk_doc *doc = open_doc();
    struct hsk_version_info *list = hsk_doc_versions(doc, NULL), *info = list;
    while (number-- > 0)
        info = info->next;
    for (unsigned i = 0; i < 2; i++) {
        struct hsk_version *v = hsk_version_open(doc, info->id, NULL);
        double wall = seconds(), cpu = cpu_seconds();
        OK(hsk_version_pick(v, "ram", m->dirty, put_pages, m, &error));
        printf("10,000 pages of %s, %s: %.3f s, %.3f CPU s\n", what, i == 0 ? "cold" : "again",
               seconds() - wall, cpu_seconds() - cpu);
        hsk_version_free(v);
    }
    hsk_version_info_free(list);
    hsk_doc_close(doc);
}

static void bench_back(void)
{
    const uint64_t used = 1ull << 30;
    create(-1, 1ull << 30, NULL);
    struct hsk_doc *doc = open_doc();
    struct memory m = memory_new(2 * used, used);
    for (unsigned i = 0; i < 3; i++) {
        take(doc, &m, HSK_VERSION_USER, i == 0);
        touch_clusters(&m, used, 10000);
    }
    hsk_doc_close(doc);
    back_to(&m, 0, "a version of all memory");
    back_to(&m, 2, "a version of the same pages");
}

static uint64_t folder_bytes(const char *name, unsigned *files)
{
    g_autoptr(GDir) dir = g_dir_open(name, 0, NULL);
    const char *file;
    uint64_t bytes = 0;
    while (dir != NULL && (file = g_dir_read_name(dir)) != NULL) {
        g_autofree char *child = g_build_filename(name, file, NULL);
        struct stat st;
        if (g_file_test(child, G_FILE_TEST_IS_DIR)) {
            bytes += folder_bytes(child, files);
        } else if (stat(child, &st) == 0) {
            bytes += (uint64_t)st.st_blocks * 512;
            (*files)++;
        }
    }
    return bytes;
}

static void bench_hour(void)
{
    const uint64_t used = 256ull << 20;
    create(-1, 1ull << 30, NULL);
    struct hsk_doc *doc = open_doc();
    struct memory m = memory_new(2 * used, used);
    take(doc, &m, HSK_VERSION_USER, true);
    double wall = seconds(), cpu = cpu_seconds();
    uint8_t page[HSK_PAGE_SIZE];
    syncs = 0;
    for (unsigned i = 1; i <= 720; i++) {
        touch(&m, used, 200);
        for (unsigned k = 0; k < 20; k++) {
            make_page(page);
            must(hsk_disk_write(hsk_doc_disk(doc, 0), random64() % 20000 * HSK_PAGE_SIZE, page,
                                sizeof(page)) == 0,
                 NULL);
        }
        take(doc, &m, HSK_VERSION_AUTO, false);
        if (i % 12 == 0)
            OK(hsk_doc_compact_instance(doc, false, NULL, NULL, &error));
        if (i % 120 == 0) {
            unsigned files = 0;
            g_autofree char *root = hsk_root_format(doc->root);
            uint64_t bytes = folder_bytes(folder, &files);
            printf("%u checkpoints: %.1f s, %.2f CPU s, %u syncs, %u files, %.1f MB, %u members in "
                   "ROOT of %.1f KB, RSS %.0f MB\n",
                   i, seconds() - wall, cpu_seconds() - cpu, syncs, files, (double)bytes / 1e6,
                   doc->root->entries->len, (double)strlen(root) / 1e3, (double)rss_kb() / 1024);
        }
    }
    hsk_doc_close(doc);
}

static int disk_image(uint64_t size, uint64_t used, unsigned parts)
{
    g_autofree char *image = g_build_filename(folder, "disk.raw", NULL);
    g_autofree uint8_t *buf = g_malloc(1u << 20);
    int fd = open(image, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    must(fd >= 0 && ftruncate(fd, (off_t)size) == 0, NULL);
    for (uint64_t i = 0; i < used >> 20; i++) {
        for (unsigned k = 0; k < 256; k++)
            make_page(buf + (size_t)k * HSK_PAGE_SIZE);
        uint64_t at = i % parts * (size / parts) + i / parts * (1u << 20);
        must(hsk_pwrite_all(fd, buf, 1u << 20, at) == 0, NULL);
    }
    return fd;
}

static void bench_sparse(void)
{
    HSK_AUTOFD fd = disk_image(100ull * 1000 * 1000 * 1000 / 4096 * 4096, 60u << 20, 20);
    double wall = seconds(), cpu = cpu_seconds();
    struct stat st;
    create(fd, 100ull * 1000 * 1000 * 1000 / 4096 * 4096, NULL);
    must(stat(path, &st) == 0, NULL);
    printf("100 GB with 60 MiB in it: %.3f s, %.3f CPU s, file of %.1f MB\n", seconds() - wall,
           cpu_seconds() - cpu, (double)st.st_size / 1e6);
}

static void bench_open(void)
{
    HSK_AUTOFD fd = disk_image(8ull << 30, 5ull << 30, 1);
    struct stat st;
    create(fd, 8ull << 30, NULL);
    must(stat(path, &st) == 0, NULL);
    for (unsigned i = 0; i < 5; i++) {
        double wall = seconds(), cpu = cpu_seconds();
        struct hsk_doc *doc = NULL;
        OK((doc = hsk_doc_open(path, i % 2 == 0, NULL, &error)) != NULL);
        printf("opening %.2f GB%s: %.2f ms, %.2f CPU ms\n", (double)st.st_size / 1e9,
               i % 2 == 0 ? " to read" : "", (seconds() - wall) * 1e3, (cpu_seconds() - cpu) * 1e3);
        hsk_doc_close(doc);
    }
}

static void read_random(struct hsk_doc *doc, uint64_t bytes, unsigned n, const char *what)
{
    g_autofree double *us = g_new(double, n);
    uint8_t page[HSK_PAGE_SIZE];
    double cpu = cpu_seconds();
    for (unsigned i = 0; i < n; i++) {
        double t = seconds();
        must(hsk_disk_read(hsk_doc_disk(doc, 0),
                           random64() % (bytes / HSK_PAGE_SIZE) * HSK_PAGE_SIZE, page,
                           sizeof(page)) == 0,
             NULL);
        us[i] = (seconds() - t) * 1e6;
    }
    cpu = (cpu_seconds() - cpu) / n * 1e6;
    for (unsigned i = 1; i < n; i++) {
        double v = us[i];
        unsigned k = i;
        for (; k > 0 && us[k - 1] > v; k--)
            us[k] = us[k - 1];
        us[k] = v;
    }
    printf("4 KiB reads %s: p50 %.0f us, p95 %.0f us, worst %.0f us, %.0f CPU us each\n", what,
           us[n / 2], us[n * 95 / 100], us[n - 1], cpu);
}

static gpointer commit_for_ever(gpointer p)
{
    struct hsk_doc *doc = ((gpointer *)p)[0];
    struct memory *m = ((gpointer *)p)[1];
    for (gint *stop = ((gpointer *)p)[2]; !g_atomic_int_get(stop);) {
        touch(m, 256ull << 20, 10000);
        take(doc, m, HSK_VERSION_AUTO, false);
    }
    return NULL;
}

static void bench_read(void)
{
    const uint64_t bytes = 1ull << 30;
    HSK_AUTOFD fd = disk_image(bytes, bytes, 1);
    gint stop = 0;
    create(fd, bytes, NULL);
    struct hsk_doc *doc = open_doc();
    read_random(doc, bytes, 10000, "of 1 GiB");
    read_random(doc, 32u << 20, 10000, "of 32 MiB");
    read_random(doc, 32u << 20, 10000, "of 32 MiB again");
    struct memory m = memory_new(512ull << 20, 256ull << 20);
    take(doc, &m, HSK_VERSION_USER, true);
    gpointer args[] = {doc, &m, &stop};
    GThread *t = g_thread_new("commit", commit_for_ever, args);
    read_random(doc, bytes, 20000, "of 1 GiB while versions are committed");
    g_atomic_int_set(&stop, 1);
    g_thread_join(t);
    hsk_doc_close(doc);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*run)(void);
    } all[] = {{"commit", bench_commit}, {"hour", bench_hour},     {"back", bench_back},
               {"read", bench_read},     {"sparse", bench_sparse}, {"open", bench_open}};
    if (argc != 3) {
        fprintf(stderr, "usage: bench-store commit|hour|back|read|sparse|open FOLDER\n");
        return 2;
    }
    folder = argv[2];
    path = g_build_filename(folder, "bench.hva", NULL);
    setenv("XDG_DATA_HOME", folder, 1);
    for (size_t i = 0; i < G_N_ELEMENTS(all); i++) {
        if (strcmp(all[i].name, argv[1]) == 0)
            all[i].run();
    }
    g_free(path);
    return 0;
}
