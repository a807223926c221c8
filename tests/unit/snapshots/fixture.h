/* SPDX-License-Identifier: MIT */
/*
 * What the tests of documents share: a scratch folder with its own XDG_DATA_HOME, a small document
 * with one disk, guest memory with a known pattern. One thread.
 */
#pragma once

#include <snapshots/store.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "../../../snapshots/doc.h"

#include <cmocka.h>

#ifndef RAM_PAGES
#define RAM_PAGES 256u
#endif
#define RAM_BYTES  ((uint64_t)RAM_PAGES * HSK_PAGE_SIZE)
#define DISK_BYTES (8u << 20)

#define assert_ok(expr)                                                                            \
    do {                                                                                           \
        GError *error = NULL;                                                                      \
        if (!(expr))                                                                               \
            fail_msg("%s: %s", #expr, error != NULL ? error->message : "no sentence");             \
    } while (0)

/* The sentence must hold the words. */
#define assert_refused(expr, words)                                                                \
    do {                                                                                           \
        GError *error = NULL;                                                                      \
        if (expr)                                                                                  \
            fail_msg("%s was not refused", #expr);                                                 \
        if (error == NULL || strstr(error->message, words) == NULL)                                \
            fail_msg("%s: \"%s\" does not say \"%s\"", #expr, error == NULL ? "" : error->message, \
                     words);                                                                       \
        g_clear_error(&error);                                                                     \
    } while (0)

struct scratch {
    char *dir, *doc;
};

G_GNUC_UNUSED static void remove_tree(const char *path)
{
    g_autoptr(GDir) dir =
        g_file_test(path, G_FILE_TEST_IS_SYMLINK) ? NULL : g_dir_open(path, 0, NULL);
    const char *name;
    while (dir != NULL && (name = g_dir_read_name(dir)) != NULL) {
        g_autofree char *child = g_build_filename(path, name, NULL);
        remove_tree(child);
    }
    remove(path);
}

/* g_get_user_data_dir() looks once, so all tests of a program share one data folder; call first in
 * main. */
G_GNUC_UNUSED static char *scratch_data_home(void)
{
    if (access("/dev/shm", W_OK) == 0)
        setenv("TMPDIR", "/dev/shm", 0); /* thousands of syncs */
    char *dir = g_dir_make_tmp("hsk-data-XXXXXX", NULL);
    setenv("XDG_DATA_HOME", dir, 1);
    return dir;
}

G_GNUC_UNUSED static int scratch_setup(void **state)
{
    struct scratch *s = g_new0(struct scratch, 1);
    s->dir = g_dir_make_tmp("hsk-test-XXXXXX", NULL);
    s->doc = g_build_filename(s->dir, "work.hva", NULL);
    *state = s;
    return 0;
}

G_GNUC_UNUSED static int scratch_teardown(void **state)
{
    struct scratch *s = *state;
    g_autofree char *data = hsk_data_folder();
    remove_tree(data);
    remove_tree(s->dir);
    g_free(s->dir);
    g_free(s->doc);
    g_free(s);
    return 0;
}

/* Page content that depends on page and seed; every fourth page is zero. */
G_GNUC_UNUSED static void fill_page(uint8_t *page, uint64_t number, unsigned seed)
{
    memset(page, 0, HSK_PAGE_SIZE);
    if (number % 4 == 3)
        return;
    uint64_t x = number * 0x9E3779B97F4A7C15ull + seed * 0xD1B54A32D192ED03ull + 1;
    for (unsigned i = 0; i < HSK_PAGE_SIZE / 2; i += 8) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        memcpy(page + i, &x, 8);
    }
}

G_GNUC_UNUSED static uint8_t *make_ram(unsigned seed)
{
    uint8_t *ram = g_malloc(RAM_BYTES);
    for (unsigned i = 0; i < RAM_PAGES; i++)
        fill_page(ram + (size_t)i * HSK_PAGE_SIZE, i, seed);
    return ram;
}

G_GNUC_UNUSED static int make_file(const char *path, const void *data, size_t bytes)
{
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(hsk_pwrite_all(fd, data, bytes, 0), 0);
    return fd;
}

/* A document with a kernel, an initrd and a disk whose first 1 MiB is the pattern of seed 7, the
 * rest a hole. */
G_GNUC_UNUSED static bool make_document(const struct scratch *s, const struct hsk_io *io,
                                        GError **error)
{
    g_autofree char *kernel = g_build_filename(s->dir, "vmlinuz", NULL);
    g_autofree char *initrd = g_build_filename(s->dir, "initrd", NULL);
    g_autofree char *image = g_build_filename(s->dir, "disk.raw", NULL);
    g_autofree uint8_t *pages = make_ram(7);
    HSK_AUTOFD kernel_fd = make_file(kernel, "a kernel", 8);
    HSK_AUTOFD initrd_fd = make_file(initrd, "an initrd", 9);
    HSK_AUTOFD disk_fd = make_file(image, pages, RAM_BYTES);
    assert_int_equal(ftruncate(disk_fd, DISK_BYTES), 0);
    char id[] = "root", name[] = "work", virtio[] = "virtio", cmdline[] = "console=ttyS0";
    struct hsk_manifest_disk disk = {.id = id, .size_bytes = DISK_BYTES, .interface = virtio};
    struct hsk_manifest m = {.name = name,
                             .ncpus = 1,
                             .memory_bytes = 1u << 20,
                             .disks = &disk,
                             .ndisks = 1,
                             .cmdline = cmdline,
                             .has_kernel = true,
                             .has_initrd = true};
    int fds[] = {disk_fd};
    struct hsk_create c = {.manifest = &m,
                           .kernel_fd = kernel_fd,
                           .initrd_fd = initrd_fd,
                           .disk_fds = fds,
                           .readme = "# work\n"};
    return hsk_doc_create_io(s->doc, &c, true, NULL, NULL, io, error);
}

/* The same, and nothing is known of any other. */
G_GNUC_UNUSED static void fresh_document(const struct scratch *s)
{
    g_autofree char *data = hsk_data_folder();
    remove_tree(data);
    assert_ok(make_document(s, NULL, &error));
}

G_GNUC_UNUSED static struct hsk_doc *open_doc(const struct scratch *s)
{
    struct hsk_doc *doc;
    assert_ok((doc = hsk_doc_open(s->doc, false, NULL, &error)) != NULL);
    return doc;
}

/* Takes a version of the whole RAM. */
G_GNUC_UNUSED static bool take(struct hsk_doc *doc, const char *title, enum hsk_version_kind kind,
                               const uint8_t *ram, char id[33], GError **error)
{
    struct hsk_version_object o = {.name = "ram", .size_bytes = RAM_BYTES, .pages = ram};
    struct hsk_take t = {.title = title,
                         .kind = kind,
                         .engine = "soft",
                         .cpu = "v2",
                         .objects = &o,
                         .nobjects = ram != NULL ? 1 : 0,
                         .state = "device state",
                         .state_bytes = ram != NULL ? 12 : 0,
                         .picture_png = "png",
                         .picture_bytes = 3};
    return hsk_version_commit(doc, hsk_take_begin(doc), &t, id, NULL, error);
}

G_GNUC_UNUSED static void assert_version_ram(struct hsk_doc *doc, const char *id,
                                             const uint8_t *want)
{
    struct hsk_version *v;
    g_autofree uint8_t *got = g_malloc0(RAM_BYTES);
    assert_ok((v = hsk_version_open(doc, id, &error)) != NULL);
    assert_ok(hsk_version_fill(v, "ram", got, RAM_BYTES, &error));
    assert_memory_equal(got, want, RAM_BYTES);
    memset(got, 0xee, RAM_BYTES);
    assert_ok(hsk_version_read(v, "ram", 0, RAM_PAGES, got, &error));
    assert_memory_equal(got, want, RAM_BYTES);
    g_autoptr(GBytes) state = hsk_version_state(v, NULL);
    assert_non_null(state);
    assert_int_equal(g_bytes_get_size(state), 12);
    assert_memory_equal(g_bytes_get_data(state, NULL), "device state", 12);
    hsk_version_free(v);
}

/* One page of disk 0 has the pattern of seed. */
G_GNUC_UNUSED static void assert_disk_page(struct hsk_doc *doc, uint64_t number, unsigned seed)
{
    uint8_t want[HSK_PAGE_SIZE], got[HSK_PAGE_SIZE];
    fill_page(want, number, seed);
    assert_int_equal(hsk_disk_read(hsk_doc_disk(doc, 0), number * HSK_PAGE_SIZE, got, sizeof(got)),
                     0);
    assert_memory_equal(got, want, sizeof(want));
}

G_GNUC_UNUSED static int write_disk_page(struct hsk_doc *doc, uint64_t number, unsigned seed)
{
    uint8_t page[HSK_PAGE_SIZE];
    fill_page(page, number, seed);
    return hsk_disk_write(hsk_doc_disk(doc, 0), number * HSK_PAGE_SIZE, page, sizeof(page));
}
