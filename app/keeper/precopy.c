/* SPDX-License-Identifier: MIT */
/*
 * Takes of a machine that keeps no near versions, because its guest writes without asking (KVM):
 * what is dirty is copied in rounds while the guest runs, so that at the point, where it stands
 * still, only what it changed since the last round is left.
 *
 * - The machine brings its dirty log in and turns what is dirty into "gathered" (command
 *   "collect"); the keeper clears that and copies the page. What is written from then on, also
 *   while it is copied, is dirty again, and its copy is replaced in a later round.
 * - A round that finds few pages is the last, as is one that finds no fewer than the one before
 *   it: then the guest writes as fast as we copy.
 * - Copies have their own memory, a place for each page; it never gets larger than the guest's.
 *
 * Whatever ends it in between: all that was copied is dirty again, and what was gathered and not
 * copied belongs to the next take (HSK_PAGE_CHANGED).
 *
 * Thread: main, but for the job function.
 */
#include "document.h"

#define ROUNDS    5
#define FEW_PAGES 500 /* half a millisecond */

bool hsk_precopy_copy(struct hsk_op *op, uint8_t attributes, GError **error)
{
    const struct hsk_guest_memory *m = &op->d->now.memory;

    op->copied = 0;
    for (; op->ncaptured < m->n; op->ncaptured++)
        if (!hsk_captured_begin(&op->captured[op->ncaptured], m, op->ncaptured, error))
            return false;
    for (unsigned i = 0; i < op->ncaptured; i++)
        if (!hsk_captured_copy(&op->captured[i], attributes, &op->copied, error))
            return false;
    return true;
}

static void ask(struct hsk_op *op)
{
    op->rounds++;
    op->copied_before = op->copied;
    op->name = ++op->d->last_point;
    hsk_take_question(op, json_pack("{s:s}", "cmd", "collect"));
}

static void round_job(struct hsk_op *op)
{
    hsk_precopy_copy(op, HSK_PAGE_GATHERED, &op->error);
}

static void enough(struct hsk_op *op)
{
    void (*next)(struct hsk_op * op) = op->precopied;

    op->precopied = NULL;
    next(op);
}

static void round_done(struct hsk_op *op)
{
    GError *error = g_steal_pointer(&op->error);

    if (!error && atomic_load(&op->cancelled))
        error = g_error_new(HSK_ERROR, HSK_ERROR_CANCELLED, "saving a version of %s was stopped",
                            op->d->path);
    if (error)
        hsk_take_refuse(op, error);
    else if (op->copied < FEW_PAGES || op->rounds == ROUNDS ||
             (op->rounds > 1 && op->copied >= op->copied_before))
        enough(op);
    else
        ask(op);
}

void hsk_precopy_round(struct hsk_op *op)
{
    hsk_op_job(op, round_job, round_done);
}

void hsk_precopy_start(struct hsk_op *op, void (*next)(struct hsk_op *op))
{
    op->precopied = next;
    ask(op);
}
