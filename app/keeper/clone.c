/* SPDX-License-Identifier: MIT */
/*
 * What is written beside the document while its machine goes on. A new machine, from one of its
 * versions or from its present: that is taken as a version first, which is dropped again as soon as
 * the copy has what it needs of it, so that the original stays what it was. And the document itself
 * somewhere else, also when its file was deleted: only this process still has that.
 *
 * Only the beginning and the end need the store; the copying runs beside other operations
 * (hsk_op_beside). Who asked is told how far it is; if he hangs up, or the machine is stopped,
 * nothing is left of it.
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

static void fail(struct hsk_op *op, GError *error)
{
    if (op->d->ending && g_error_matches(error, HSK_ERROR, HSK_ERROR_CANCELLED)) {
        g_clear_error(&error);
        error = g_error_new(HSK_ERROR, HSK_ERROR_CANCELLED,
                            "writing %s was given up because the machine was stopped; nothing is "
                            "left of it",
                            op->out);
    }
    hsk_op_fail(op, error);
}

static void copy_beside(struct hsk_op *op, void (*fn)(struct hsk_op *op),
                        void (*done)(struct hsk_op *op))
{
    GError *error = g_steal_pointer(&op->error);

    if (error) {
        hsk_op_fail(op, error);
        return;
    }
    if (op->conn)
        op->teller = g_timeout_add(TELL_EVERY_MS, tell, op);
    hsk_op_beside(op, fn, done);
}

/* ---- a new machine ---- */

static void clone_job(struct hsk_op *op)
{
    hsk_clone_write(op->clone, step, op, &op->error);
}

static void cloned(struct hsk_op *op)
{
    GError *error = g_steal_pointer(&op->error);

    if (error)
        fail(op, error);
    else
        hsk_op_finish(op, json_pack("{s:s, s:f}", "out", op->out, "pause_ms", op->pause_ms));
}

static void begin_clone_job(struct hsk_op *op)
{
    g_autoptr(GError) left = NULL;

    op->clone =
        hsk_clone_begin(op->d->doc, op->target ? op->target : op->new_id, op->out, &op->error);
    if (!op->target && !hsk_doc_drop(op->d->doc, op->new_id, &left))
        hsk_complain(left->message);
}

static void clone_begun(struct hsk_op *op)
{
    copy_beside(op, clone_job, cloned);
}

static void begin_clone(struct hsk_op *op)
{
    hsk_op_job(op, begin_clone_job, clone_begun);
}

void hsk_clone_start(struct hsk_op *op)
{
    GError *error = NULL;

    if (!op->arg) {
        /* Not one that could get into the document meanwhile. */
        hsk_take_start(op, HSK_VERSION_AUTO, "Clone", begin_clone);
        return;
    }
    op->target = hsk_doc_resolve(op->d->doc, op->arg, &error);
    if (op->target)
        begin_clone(op);
    else
        hsk_op_fail(op, error);
}

/* ---- the document somewhere else ---- */

static void finish_move_job(struct hsk_op *op)
{
    g_autoptr(GError) unpublished = NULL;

    if (hsk_move_finish(op->move, &op->error) && !hsk_doc_publish(op->d->doc, &unpublished))
        hsk_complain(unpublished->message);
}

static void moved(struct hsk_op *op)
{
    struct hsk_document *d = op->d;
    GError *error = g_steal_pointer(&op->error);

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

static void finish_move(struct hsk_op *op)
{
    hsk_op_job(op, finish_move_job, moved);
}

static void move_job(struct hsk_op *op)
{
    hsk_move_copy(op->move, step, op, &op->error);
}

static void copied(struct hsk_op *op)
{
    GError *error = g_steal_pointer(&op->error);

    if (!error && op->d->ending)
        error = g_error_new_literal(HSK_ERROR, HSK_ERROR_CANCELLED, "");
    if (error)
        fail(op, error);
    else
        hsk_op_again(op, finish_move);
}

static void begin_move_job(struct hsk_op *op)
{
    op->move = hsk_move_begin(op->d->doc, op->out, &op->error);
}

static void move_begun(struct hsk_op *op)
{
    copy_beside(op, move_job, copied);
}

void hsk_save_as_start(struct hsk_op *op)
{
    hsk_op_job(op, begin_move_job, move_begun);
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
