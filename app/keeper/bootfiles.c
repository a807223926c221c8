/* SPDX-License-Identifier: MIT */
/*
 * Kernel and initrd of a direct boot. They are read and checked when a machine begins from
 * power-on; one that was resumed gets them when its guest resets (message "boot-files"), which most
 * never do. Thread: main, but for the job.
 */
#include "common/values.h"
#include "document.h"

bool hsk_boot_files_read(struct hsk_document *d, struct hsk_boot_files *f, GError **error)
{
    const bool has_initrd = hsk_doc_manifest(d->doc)->has_initrd;

    f->kernel = hsk_doc_boot_member(d->doc, "boot/kernel", error);
    if (f->kernel && has_initrd)
        f->initrd = hsk_doc_boot_member(d->doc, "boot/initrd", error);
    return f->kernel && (!has_initrd || f->initrd);
}

void hsk_boot_files_clear(struct hsk_boot_files *f)
{
    g_clear_pointer(&f->kernel, g_bytes_unref);
    g_clear_pointer(&f->initrd, g_bytes_unref);
}

static void read_job(struct hsk_op *op)
{
    hsk_boot_files_read(op->d, &op->boot, &op->error);
}

static bool send_file(struct hsk_document *d, const char *name, GBytes *bytes, GError **error)
{
    if (!bytes)
        return true;
    HSK_AUTOFD fd = hsk_bytes_memfd(name, bytes, error);
    if (fd < 0)
        return false;
    hsk_child_send(d->now.child, json_pack("{s:s, s:s}", "cmd", "boot-file", "name", name), fd);
    return true;
}

/* The kernel comes last: then it boots. */
static void read_done(struct hsk_op *op)
{
    struct hsk_document *d = op->d;
    GError *error = g_steal_pointer(&op->error);

    if (!error && send_file(d, "initrd", op->boot.initrd, &error))
        send_file(d, "kernel", op->boot.kernel, &error);
    if (error) {
        g_autofree char *text = g_strdup_printf(
            "the machine is paused, because it cannot boot again: %s", error->message);
        hsk_document_trouble(d, text);
    }
    g_clear_error(&error);
    hsk_op_finish(op, NULL);
}

void hsk_boot_files_start(struct hsk_op *op)
{
    hsk_op_job(op, read_job, read_done);
}
