/* SPDX-License-Identifier: MIT */
/*
 * Resuming a saved state in a new process before its memory is there (docs/architecture.md,
 * "Opening"): the machine says "memory", with a userfaultfd if it has one, and lazy.c brings it;
 * without one everything is read first. The version stays open until all is in place.
 *
 * A part that cannot be read is nothing that the guest could be told. The process is frozen where
 * it stands, nothing of it is kept, and the document stays as it was. Thread: main.
 */
#include <errno.h>
#include <signal.h>
#include <sys/eventfd.h>

#include "common/values.h"
#include "document.h"

static void forget_version(struct hsk_running *r)
{
    g_clear_pointer(&r->lazy, hsk_lazy_free);
    g_clear_pointer(&r->version, hsk_version_free);
    close(r->there);
}

static void keep_record(struct hsk_document *d)
{
    g_clear_pointer(&d->needed, g_array_unref);
    d->needed = hsk_lazy_record(d->now.lazy);
}

static void unreadable(struct hsk_document *d, const GError *error)
{
    g_autofree char *text =
        g_strdup_printf("the machine is paused for good, because a part of its saved memory cannot "
                        "be read (%s); end it with \"hva stop --force\", then \"hva run --fresh\" "
                        "starts it without its saved state",
                        error->message);

    /* A processor that waits for that memory cannot be asked to stop. */
    if (hsk_child_pid(d->now.child))
        kill(hsk_child_pid(d->now.child), SIGSTOP);
    d->broken = true;
    hsk_document_trouble(d, text);
    hsk_screenshots_refuse(d, text);
}

static void ended(void *opaque, const GError *error)
{
    struct hsk_document *d = opaque;

    if (error) {
        unreadable(d, error);
        return;
    }
    keep_record(d);
    forget_version(&d->now);
    hsk_child_tell(d->now.child, "memory-there");
    hsk_document_tell_state(d);
}

bool hsk_running_lazy(struct hsk_document *d, struct hsk_version *v, GError **error)
{
    struct hsk_running *r = &d->now;
    g_autoptr(GArray) expect = hsk_version_needed(v);

    r->there = eventfd(0, EFD_CLOEXEC);
    if (r->there < 0) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_FAILED, "cannot start a machine process: %s",
                    g_strerror(errno));
        hsk_version_free(v);
        return false;
    }
    r->version = v;
    r->lazy = hsk_lazy_new(v, "ram", expect, ended, d);
    hsk_memobj_set_huge(r->memory.obj[0], false);
    return true;
}

/* No userfaultfd there: as if there were no such thing. */
static bool fill_first(struct hsk_running *r, GError **error)
{
    const struct hsk_memobj *ram = r->memory.obj[0];
    const uint64_t one = 1;

    g_clear_pointer(&r->lazy, hsk_lazy_free);
    bool good = hsk_version_fill(r->version, "ram", ram->host, ram->size_bytes, error);
    if (good)
        hsk_assert(write(r->there, &one, sizeof(one)) == sizeof(one));
    forget_version(r);
    return good;
}

void hsk_running_memory(struct hsk_document *d, const json_t *body, int *fd)
{
    struct hsk_running *r = &d->now;
    g_autoptr(GError) error = NULL;

    if (!r->lazy)
        return;
    if (*fd >= 0 ? hsk_lazy_attach(r->lazy, hsk_steal_fd(fd),
                                   (uint64_t)hsk_json_int(body, "address", 0), &error)
                 : fill_first(r, &error))
        return;
    g_autofree char *text = g_strdup_printf("%s: %s", HSK_NO_RESUME, error->message);
    hsk_complain(text);
    hsk_document_end(d, 1);
}

GArray *hsk_document_needed(struct hsk_document *d)
{
    if (d->now.lazy)
        keep_record(d);
    return d->needed ? g_array_ref(d->needed) : NULL;
}

void hsk_running_forget_memory(struct hsk_running *r)
{
    if (r->lazy)
        forget_version(r);
}
