/* SPDX-License-Identifier: MIT */
/*
 * Memory that is not there yet when the guest starts (userfaultfd(2)): this process makes the
 * descriptor for its own mapping, while it still may, and gives it to the keeper, which answers the
 * faults (app/keeper/lazy.c).
 *
 * Without privileges the kernel reports faults of user mode only. That is enough for the software
 * engine, which touches guest memory from C and translated code; nothing here hands guest memory to
 * a system call. KVM touches it in the kernel, so it needs the full kind.
 *
 * The descriptor stays open here, too: if only the keeper had it, its death would turn all that is
 * missing into zeros for the moment until this process dies with it. Thread: main.
 */
#include <errno.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>

#include "runner.h"

#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1 /* Linux 5.11 */
#endif

static int make(bool kvm)
{
    int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);

    if (fd < 0 && errno == EPERM && !kvm)
        fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);
    return fd;
}

static bool watch(int fd, struct hsk_memobj *ram)
{
    struct uffdio_api api = {.api = UFFD_API, .features = UFFD_FEATURE_MISSING_SHMEM};
    struct uffdio_register reg = {
        .range = {.start = (uintptr_t)ram->host, .len = ram->size_bytes},
        .mode = UFFDIO_REGISTER_MODE_MISSING,
    };
    const uint64_t needed =
        (uint64_t)1 << _UFFDIO_COPY | (uint64_t)1 << _UFFDIO_ZEROPAGE | (uint64_t)1 << _UFFDIO_WAKE;

    /* A huge page put together by the kernel would have zeros where pages are missing. */
    hsk_memobj_set_huge(ram, false);
    return ioctl(fd, UFFDIO_API, &api) == 0 && ioctl(fd, UFFDIO_REGISTER, &reg) == 0 &&
           (reg.ioctls & needed) == needed;
}

void hsk_runner_offer_memory(struct hsk_runner *r, bool kvm)
{
    struct hsk_memobj *ram = hsk_machine_memobj(r->machine, "ram");
    HSK_AUTOFD fd = make(kvm);

    if (fd >= 0 && watch(fd, ram))
        r->faults = hsk_steal_fd(&fd);
    atomic_store(&ram->incoming, r->faults >= 0);
    hsk_runner_tell(
        r, json_pack("{s:s, s:I}", "event", "memory", "address", (json_int_t)(uintptr_t)ram->host),
        r->faults);
}

bool hsk_runner_wait_for_memory(struct hsk_runner *r, int there, GError **error)
{
    uint64_t n = 0;

    if (r->faults >= 0 || read(there, &n, sizeof(n)) == sizeof(n))
        return true;
    g_set_error(error, HSK_ERROR, HSK_ERROR_FAILED, "the machine's memory did not come: %s",
                g_strerror(errno));
    return false;
}

void hsk_runner_memory_there(struct hsk_runner *r)
{
    struct hsk_memobj *ram = hsk_machine_memobj(r->machine, "ram");

    if (r->faults < 0)
        return;
    close(r->faults);
    r->faults = -1;
    atomic_store(&ram->incoming, false);
    hsk_memobj_set_huge(ram, true);
}
