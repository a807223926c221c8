/* SPDX-License-Identifier: MIT */
/*
 * What is written beside the document while its machine goes on. A new machine, from one of its
 * versions or from its present: that is taken as a version first and dropped again when it was
 * copied, so that the original stays what it was. And the document itself somewhere else, also when
 * its file was deleted: only this process still has that. Who asked is told how far it is; if he
 * hangs up, nothing is left of it. Other operations wait until it is written.
 *
 * Thread: main, but for the job functions.
 */
#include "common/values.h"
#include "document.h"

#define TELL_EVERY_MS 200

static bool step(void *opaque, double fraction)
{
    struct hsk_op *op = opaque;

    atomic_store(&op->permill, (int)(fraction * 1000));
    return !atomic_load(&op->cancelled);
}

static gboolean tell(gpointer opaque)
{
    struct hsk_op *op = opaque;

    hsk_conn_tell(op->conn, json_pack("{s:s, s:f}", "event", "progress", "fraction",
                                      atomic_load(&op->permill) / 1000.0));
    return G_SOURCE_CONTINUE;
}

static void clone_job(struct hsk_op *op)
{
    g_autoptr(GError) left = NULL;

    hsk_doc_clone_version(op->d->doc, op->target ? op->target : op->new_id, op->out, step, op,
                          &op->error);
    if (!op->target && !hsk_doc_drop(op->d->doc, op->new_id, &left))
        hsk_complain(left->message);
}

static void cloned(struct hsk_op *op)
{
    GError *error = g_steal_pointer(&op->error);

    g_clear_handle_id(&op->teller, g_source_remove);
    if (error)
        hsk_op_fail(op, error);
    else
        hsk_op_finish(op, json_pack("{s:s, s:f}", "out", op->out, "pause_ms", op->pause_ms));
}

static void begin(struct hsk_op *op, void (*fn)(struct hsk_op *op), void (*done)(struct hsk_op *op))
{
    op->teller = g_timeout_add(TELL_EVERY_MS, tell, op);
    hsk_op_job(op, fn, done);
}

static void copy(struct hsk_op *op)
{
    begin(op, clone_job, cloned);
}

void hsk_clone_start(struct hsk_op *op)
{
    GError *error = NULL;

    if (!op->arg) {
        hsk_take_start(op, HSK_VERSION_USER, "Clone", copy);
        return;
    }
    op->target = hsk_doc_resolve(op->d->doc, op->arg, &error);
    if (op->target)
        copy(op);
    else
        hsk_op_fail(op, error);
}

/* ---- the document somewhere else ---- */

static void move_job(struct hsk_op *op)
{
    g_autoptr(GError) unpublished = NULL;

    if (hsk_doc_move(op->d->doc, op->out, step, op, &op->error) &&
        !hsk_doc_publish(op->d->doc, &unpublished))
        hsk_complain(unpublished->message);
}

static void moved(struct hsk_op *op)
{
    struct hsk_document *d = op->d;
    GError *error = g_steal_pointer(&op->error);

    g_clear_handle_id(&op->teller, g_source_remove);
    if (strcmp(d->path, hsk_doc_path(d->doc)) != 0) {
        g_free(d->path);
        d->path = g_strdup(hsk_doc_path(d->doc));
        d->told_gone = false;
        hsk_control_broadcast(d->control,
                              json_pack("{s:s, s:s}", "event", "moved", "path", d->path));
    }
    if (error)
        hsk_op_fail(op, error);
    else
        hsk_op_finish(op, json_pack("{s:s}", "out", d->path));
}

void hsk_save_as_start(struct hsk_op *op)
{
    begin(op, move_job, moved);
}

GError *hsk_document_gone_error(struct hsk_document *d)
{
    g_autofree char *name = g_path_get_basename(d->path);

    return hsk_doc_is_gone(d->doc)
               ? g_error_new(
                     HSK_ERROR, HSK_ERROR_NOT_FOUND,
                     "%s was deleted or replaced while its machine ran; save it elsewhere "
                     "(\"hva save-as %s NEW.hva\"), or give it up (\"hva stop --force %s\")",
                     d->path, name, name)
               : NULL;
}

void hsk_document_look_after(struct hsk_document *d)
{
    g_autoptr(GError) gone = d->told_gone ? NULL : hsk_document_gone_error(d);

    if (!gone)
        return;
    d->told_gone = true;
    hsk_complain(gone->message);
    hsk_control_broadcast(d->control, json_pack("{s:s, s:s, s:s}", "event", "notice", "about",
                                                "document", "text", gone->message));
}
