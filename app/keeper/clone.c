/* SPDX-License-Identifier: MIT */
/*
 * A new machine from one that runs, which goes on meanwhile: from one of its versions, or from its
 * present. The present is taken as a version first and dropped again when it was copied, so that
 * the original stays what it was. Who asked is told how far it is; if he hangs up, nothing is left
 * of it. Other operations wait until it is written.
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

static void copy(struct hsk_op *op)
{
    op->teller = g_timeout_add(TELL_EVERY_MS, tell, op);
    hsk_op_job(op, clone_job, cloned);
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
