/* SPDX-License-Identifier: MIT */
/* fuzz-libs: hsk_snapshots */
/*
 * A write log that anything may have happened to, with its checksums put right along the chain of
 * records. Recovery gives records that can be read, and a second recovery gives the same ones.
 */
#include <snapshots/store.h>

#include <stdio.h>
#include <sys/stat.h>
#include <xxhash.h>

#include "../../snapshots/log.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void seal(uint8_t *head, size_t bytes)
{
    /* the payload follows the header: hash both parts as one buffer without the 16 bytes between
     * them */
    g_autofree uint8_t *all = g_malloc(48 + bytes);
    XXH128_canonical_t c;
    memcpy(all, head, 48);
    memcpy(all + 48, head + 64, bytes);
    XXH128_canonicalFromHash(&c, XXH3_128bits(all, 48 + bytes));
    memcpy(head + 48, c.digest, 16);
}

static void repair(uint8_t *file, size_t size)
{
    size_t pos = 64;
    if (size < 64)
        return;
    seal(file, 0);
    while (pos + 64 <= size) {
        size_t bytes =
            hsk_get32(file + pos + 4) == 1 ? (size_t)hsk_get32(file + pos + 28) * HSK_PAGE_SIZE : 0;
        if (bytes > size - pos - 64)
            return;
        seal(file + pos, bytes);
        pos += 64 + bytes;
    }
}

struct seen {
    unsigned n;
    uint64_t last;
    struct hsk_log *log;
};

static bool on_record(void *opaque, uint32_t disk, uint64_t page, uint32_t npages, uint64_t loc)
{
    struct seen *s = opaque;
    if (disk > 3 || !hsk_range_ok(page, npages, 1u << 20))
        return false;
    s->n++;
    if (loc != HSK_LOC_HOLE)
        s->last = loc + (uint64_t)(npages - 1) * (HSK_PAGE_SIZE / 64);
    return true;
}

static bool on_go_on(void *opaque, const uint8_t id[HSK_LOG_ID_BYTES], uint32_t number,
                     uint64_t seq)
{
    struct seen *s = opaque;
    s->n++;
    return id[0] % 2 == 0;
}

static unsigned recover(int dirfd)
{
    uint8_t page[HSK_PAGE_SIZE];
    HSK_AUTO(hsk_log, log) = hsk_log_new(NULL, dirfd, "fuzz", 1, 1);
    struct seen s = {.log = log};
    struct hsk_log_replay replay = {on_record, on_go_on, &s};
    hsk_assert(hsk_log_recover(log, &replay, NULL));
    hsk_assert(s.last == 0 || hsk_log_read(log, s.last, page) == 0);
    return s.n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    g_autofree uint8_t *file = g_memdup2(data, size);
    g_autofree char *dir = g_strdup_printf("%s/hsk-fuzz-log-%d", g_get_tmp_dir(), getpid());
    g_autofree char *log = g_build_filename(dir, "log", NULL);
    g_autofree char *name = g_build_filename(log, "000001", NULL);
    if (size == 0 || g_mkdir_with_parents(log, 0700) < 0)
        return 0;
    repair(file, size);
    HSK_AUTOFD fd = open(name, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    HSK_AUTOFD dirfd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0 && dirfd >= 0 && hsk_pwrite_all(fd, file, size, 0) == 0) {
        unsigned n = recover(dirfd);
        hsk_assert(recover(dirfd) == n);
    }
    unlink(name);
    rmdir(log);
    rmdir(dir);
    return 0;
}
