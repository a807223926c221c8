/* SPDX-License-Identifier: MIT */
/*
 * Operations that need the store, one at a time: the queue, their answers, and the job thread; and
 * what runs beside them for a while, because it does not.
 * Thread: main, but for job functions.
 */
#include <sys/resource.h>
#include <time.h>

#include "common/values.h"
#include "document.h"
#include "document/versions.h"

struct job {
    struct hsk_op *op;
    void (*fn)(struct hsk_op *op);
    void (*done)(struct hsk_op *op);
};

struct hsk_op *hsk_op_new(struct hsk_document *d, enum hsk_op_kind kind, struct hsk_conn *conn,
                          const json_t *id, const char *arg)
{
    struct hsk_op *op = g_new0(struct hsk_op, 1);

    op->kind = kind;
    op->d = d;
    op->conn = conn ? hsk_conn_ref(conn) : NULL;
    op->id = json_deep_copy(id);
    op->arg = g_strdup(arg);
    return op;
}

void hsk_op_free(struct hsk_op *op)
{
    hsk_take_clear(op);
    hsk_running_clear(&op->next);
    hsk_version_free(op->version);
    g_clear_pointer(&op->next_state, g_bytes_unref);
    g_clear_pointer(&op->data, g_bytes_unref);
    g_clear_pointer(&op->needed, g_array_unref);
    json_decref(op->versions);
    hsk_boot_files_clear(&op->boot);
    g_clear_error(&op->error);
    g_clear_error(&op->refusal);
    hsk_conn_unref(op->conn);
    json_decref(op->id);
    hsk_fetched_free(op->fetched);
    g_free(op->base);
    g_clear_handle_id(&op->teller, g_source_remove);
    hsk_clone_free(op->clone);
    hsk_move_free(op->move);
    g_free(op->out);
    g_free(op->arg);
    g_free(op->words);
    g_free(op->title);
    g_free(op->target);
    g_free(op->target_title);
    g_free(op);
}

static void edit_job(struct hsk_op *op)
{
    g_autoptr(GError) unpublished = NULL;

    if (hsk_version_edit(op->d->doc, op->verb, op->arg, op->words, op->force, &op->error) &&
        !hsk_doc_publish(op->d->doc, &unpublished))
        hsk_complain(unpublished->message);
}

static void edit_done(struct hsk_op *op)
{
    GError *e = g_steal_pointer(&op->error);

    if (e) {
        hsk_op_fail(op, e);
        return;
    }
    hsk_control_broadcast(op->d->control,
                          json_pack("{s:s, s:s}", "event", "versions", "did", op->verb));
    hsk_op_finish(op, NULL);
}

static void picture_job(struct hsk_op *op)
{
    struct hsk_version *v = hsk_version_open(op->d->doc, op->target, &op->error);

    if (v)
        op->data = hsk_version_picture(v, &op->error);
    hsk_version_free(v);
}

static void picture_done(struct hsk_op *op)
{
    GError *e = g_steal_pointer(&op->error);
    gsize n = 0;

    if (!op->data) {
        hsk_op_fail(
            op, e ? e : g_error_new(HSK_ERROR, HSK_ERROR_NOT_FOUND, "that version has no picture"));
        return;
    }
    const void *data = g_bytes_get_data(op->data, &n);
    g_autofree char *text = g_base64_encode(data, n);
    hsk_op_finish(op, json_pack("{s:s}", "png", text));
}

bool hsk_op_cancelled(void *opaque)
{
    struct hsk_op *op = opaque;

    return atomic_load(&op->cancelled);
}

static void sizes_job(struct hsk_op *op)
{
    op->versions = hsk_versions_sizes_json(op->d->doc, hsk_op_cancelled, op, &op->error);
}

/* What gave way is measured again behind what it gave way to. */
static void sizes_done(struct hsk_op *op)
{
    struct hsk_document *d = op->d;
    GError *e = g_steal_pointer(&op->error);

    if (g_error_matches(e, HSK_ERROR, HSK_ERROR_CANCELLED) && op->conn) {
        g_error_free(e);
        hsk_op_queue(hsk_op_new(d, HSK_OP_SIZES, op->conn, op->id, NULL));
        g_clear_pointer(&op->conn, hsk_conn_unref);
        hsk_op_finish(op, NULL);
    } else if (e) {
        hsk_op_fail(op, e);
    } else {
        hsk_op_finish(op, json_pack("{s:O, s:s}", "versions", op->versions, "current",
                                    hsk_doc_current(d->doc)));
    }
}

#define FOLD_BYTES (1ull << 30)

static void fold_job(struct hsk_op *op)
{
    hsk_doc_fold(op->d->doc, FOLD_BYTES, &op->error);
}

static void fold_done(struct hsk_op *op)
{
    GError *e = g_steal_pointer(&op->error);

    if (e)
        hsk_op_fail(op, e);
    else
        hsk_op_finish(op, NULL);
}

static void start(struct hsk_op *op)
{
    GError *error = NULL;

    if (op->again) {
        op->again(op);
        return;
    }
    op->started_us = g_get_monotonic_time();
    if (op->kind == HSK_OP_PICTURE) {
        op->target = hsk_doc_resolve(op->d->doc, op->arg, &error);
        if (!op->target) {
            hsk_op_fail(op, error);
            return;
        }
    }
    switch (op->kind) {
    case HSK_OP_SNAPSHOT:
        hsk_snapshot_start(op);
        break;
    case HSK_OP_REVERT:
    case HSK_OP_UNDO:
        hsk_revert_start(op);
        break;
    case HSK_OP_EDIT:
        hsk_op_job(op, edit_job, edit_done);
        break;
    case HSK_OP_PICTURE:
        hsk_op_job(op, picture_job, picture_done);
        break;
    case HSK_OP_SIZES:
        hsk_op_job(op, sizes_job, sizes_done);
        break;
    case HSK_OP_CLONE:
        hsk_clone_start(op);
        break;
    case HSK_OP_SAVE_AS:
        hsk_save_as_start(op);
        break;
    case HSK_OP_STOP:
        hsk_stop_start(op);
        break;
    case HSK_OP_OFF:
        hsk_off_start(op);
        break;
    case HSK_OP_FOLD:
        hsk_op_job(op, fold_job, fold_done);
        break;
    case HSK_OP_AUTO:
        hsk_timeline_take(op);
        break;
    case HSK_OP_PURGE:
        hsk_timeline_purge(op);
        break;
    case HSK_OP_BOOT_FILES:
        hsk_boot_files_start(op);
        break;
    }
}

static void start_next(struct hsk_document *d)
{
    if (d->op || d->ending)
        return;
    d->op = g_queue_pop_head(&d->ops);
    if (d->op)
        start(d->op);
}

/* What the computer does by itself gives way to what the user wants, and so does what only looks
 * at all there is. */
static void make_way(const struct hsk_op *op)
{
    struct hsk_op *now = op->d->op;

    if (now && op->kind != HSK_OP_FOLD && op->kind != HSK_OP_SIZES &&
        (now->kind == HSK_OP_AUTO || now->kind == HSK_OP_SIZES))
        atomic_store(&now->cancelled, true);
}

void hsk_op_queue(struct hsk_op *op)
{
    make_way(op);
    g_queue_push_tail(&op->d->ops, op);
    start_next(op->d);
}

static void answer(struct hsk_op *op, json_t *fields, const GError *error)
{
    if (op->conn && !op->answered && error)
        hsk_conn_refuse(op->conn, op->id, error);
    else if (op->conn && !op->answered)
        hsk_conn_reply(op->conn, op->id, json_incref(fields));
    json_decref(fields);
    op->answered = true;
}

static void finish(struct hsk_op *op)
{
    struct hsk_document *d = op->d;

    if (d->op == op)
        d->op = NULL;
    hsk_op_free(op);
    hsk_document_reload_versions(d);
    start_next(d);
}

void hsk_op_finish(struct hsk_op *op, json_t *fields)
{
    answer(op, fields ? fields : json_object(), NULL);
    finish(op);
}

void hsk_op_fail(struct hsk_op *op, GError *error)
{
    if (op->kind == HSK_OP_AUTO)
        hsk_timeline_failed(op->d->timeline, error);
    else if (!op->conn || op->answered)
        hsk_complain(error->message);
    answer(op, NULL, error);
    g_error_free(error);
    finish(op);
}

static gboolean job_done(gpointer opaque)
{
    struct job *j = opaque;
    struct hsk_document *d = j->op->d;

    d->in_job = false;
    if (d->ending)
        hsk_document_end(d, d->status);
    else
        j->done(j->op);
    g_free(j);
    return G_SOURCE_REMOVE;
}

uint64_t hsk_thread_cpu_ns(void)
{
    struct timespec cpu = {0};

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &cpu);
    return (uint64_t)cpu.tv_sec * 1000000000u + (uint64_t)cpu.tv_nsec;
}

static gpointer job_thread(gpointer opaque)
{
    struct job *j = opaque;

    j->fn(j->op);
    j->op->cpu_ns += hsk_thread_cpu_ns();
    g_idle_add_full(G_PRIORITY_DEFAULT, job_done, j, NULL);
    return NULL;
}

void hsk_op_job(struct hsk_op *op, void (*fn)(struct hsk_op *op), void (*done)(struct hsk_op *op))
{
    struct job *j = g_new0(struct job, 1);

    *j = (struct job){op, fn, done};
    op->d->in_job = true;
    g_thread_unref(g_thread_new("store", job_thread, j));
}

/* ---- beside the others ---- */

static gboolean beside_done(gpointer opaque)
{
    struct job *j = opaque;
    struct hsk_document *d = j->op->d;

    g_queue_remove(&d->beside, j->op);
    g_clear_handle_id(&j->op->teller, g_source_remove);
    j->done(j->op);
    g_free(j);
    if (d->ending)
        hsk_document_end(d, d->status);
    return G_SOURCE_REMOVE;
}

static gpointer beside_thread(gpointer opaque)
{
    struct job *j = opaque;

    /* It has time: the guest and what the user wants go first. */
    setpriority(PRIO_PROCESS, 0, 10);
    j->fn(j->op);
    g_idle_add_full(G_PRIORITY_DEFAULT, beside_done, j, NULL);
    return NULL;
}

void hsk_op_beside(struct hsk_op *op, void (*fn)(struct hsk_op *op),
                   void (*done)(struct hsk_op *op))
{
    struct hsk_document *d = op->d;
    struct job *j = g_new0(struct job, 1);

    *j = (struct job){op, fn, done};
    g_queue_push_tail(&d->beside, op);
    d->op = NULL;
    g_thread_unref(g_thread_new("copy", beside_thread, j));
    hsk_document_reload_versions(d);
    start_next(d);
}

void hsk_op_again(struct hsk_op *op, void (*next)(struct hsk_op *op))
{
    op->again = next;
    hsk_op_queue(op);
}

static void cancel_copy(gpointer data, gpointer conn)
{
    struct hsk_op *op = data;

    if ((op->kind == HSK_OP_CLONE || op->kind == HSK_OP_SAVE_AS) && (!conn || op->conn == conn))
        atomic_store(&op->cancelled, true);
}

void hsk_op_cancel_copies(struct hsk_document *d, const struct hsk_conn *conn)
{
    gpointer who = (gpointer)(uintptr_t)conn;

    if (d->op && conn)
        cancel_copy(d->op, who);
    g_queue_foreach(&d->ops, cancel_copy, who);
    g_queue_foreach(&d->beside, cancel_copy, who);
}

void hsk_document_reload_versions(struct hsk_document *d)
{
    g_autoptr(GError) error = NULL;

    json_decref(d->versions);
    d->versions = hsk_versions_json(d->doc, &error);
    if (error)
        hsk_complain(error->message);
}
