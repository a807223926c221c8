/* SPDX-License-Identifier: MIT */
/*
 * Going back to a version of a running machine. The present is parked first as a version of kind
 * "before-revert" (undo goes to it, and a second undo to the one that the first undo made).
 *
 * In place, if that can be: going.c. Else a new machine is built beside the stopped old one; only
 * when it stands complete do the disks change over and the old one ends:
 * - take BEFORE_REVERT
 * - job: fill fresh memory; start a process with it, which loads the state
 * - "ready": the disks are switched -> swap, run -> answer -> job: publish
 *
 * Whatever fails, the old machine goes on.
 *
 * Thread: main, but for the job functions.
 */
#include "common/values.h"
#include "document.h"

#define KEPT_BEFORE_REVERT 5

static void unpark_job(struct hsk_op *op)
{
    g_autoptr(GError) error = NULL;

    if (!hsk_doc_drop(op->d->doc, op->new_id, &error))
        hsk_complain(error->message);
}

static void unparked(struct hsk_op *op)
{
    hsk_op_fail(op, g_steal_pointer(&op->refusal));
}

/* What was parked for nothing goes again: undo would lead to it, and so nowhere. */
void hsk_revert_give_up(struct hsk_op *op, GError *error)
{
    hsk_running_clear(&op->next);
    hsk_op_let_go(op);
    if (!*op->new_id) {
        hsk_op_fail(op, error);
        return;
    }
    op->refusal = error;
    hsk_op_job(op, unpark_job, unparked);
}

static struct hsk_version_info *find(struct hsk_version_info *list, const char *id)
{
    for (struct hsk_version_info *v = list; v; v = v->next) {
        if (strcmp(v->id, id) == 0)
            return v;
    }
    return NULL;
}

/* Without a name: the snapshot that the present comes from; failing that the newest. */
static char *parent_snapshot(struct hsk_op *op, struct hsk_version_info *list, GError **error)
{
    struct hsk_version_info *v = find(list, hsk_doc_current(op->d->doc));

    for (unsigned steps = 0; v && v->kind != HSK_VERSION_USER && steps < 100000; steps++)
        v = find(list, v->parent);
    return v ? g_strdup(v->id) : hsk_doc_resolve(op->d->doc, NULL, error);
}

static char *undo_target(struct hsk_document *d, struct hsk_version_info *list, GError **error)
{
    struct hsk_version_info *last = NULL;

    if (d->undo_lost) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_NOT_FOUND,
                    "what the machine was before the last revert could not be kept, so that cannot "
                    "be undone; \"hva log\" lists what one can go back to");
        return NULL;
    }
    for (struct hsk_version_info *v = list; v; v = v->next) {
        if (v->kind == HSK_VERSION_BEFORE_REVERT)
            last = v;
    }
    if (!last)
        g_set_error(error, HSK_ERROR, HSK_ERROR_NOT_FOUND,
                    "there is nothing to undo: this machine was never reverted");
    return last ? g_strdup(last->id) : NULL;
}

static bool find_target(struct hsk_op *op, GError **error)
{
    struct hsk_document *d = op->d;
    struct hsk_version_info *list = hsk_doc_versions(d->doc, error);

    if (!list && *error)
        return false;
    if (op->kind == HSK_OP_UNDO)
        op->target = undo_target(d, list, error);
    else if (op->at)
        op->target = hsk_point_at(list, op->at, error);
    else if (op->arg)
        op->target = hsk_doc_resolve(d->doc, op->arg, error);
    else
        op->target = parent_snapshot(op, list, error);
    struct hsk_version_info *v = op->target ? find(list, op->target) : NULL;
    if (v)
        op->target_title = g_strdup(v->title);
    if (v && !v->has_state) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_UNSUPPORTED,
                    "\"%s\" holds only disks, no running machine, so one cannot go back to it "
                    "while the machine runs",
                    v->title);
    } else if (v && g_hash_table_contains(d->foreign, v->id)) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_UNTRUSTED,
                    "\"%s\" was made by somebody else, so its running state is not resumed",
                    v->title);
    } else if (op->target && !v) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_NOT_FOUND, "the snapshot %s is not there any more",
                    op->target);
    }
    hsk_version_info_free(list);
    return !*error;
}

/* Keeps the last five of what was parked; never the one to go to, nor the one that the present
 * comes from. */
static void prune(struct hsk_op *op)
{
    g_autoptr(GError) error = NULL;
    struct hsk_version_info *list = hsk_doc_versions(op->d->doc, &error);
    g_autoptr(GPtrArray) ids = g_ptr_array_new();
    unsigned n = 0;

    for (struct hsk_version_info *v = list; v; v = v->next)
        n += v->kind == HSK_VERSION_BEFORE_REVERT;
    for (struct hsk_version_info *v = list; v && n > KEPT_BEFORE_REVERT; v = v->next) {
        if (v->kind != HSK_VERSION_BEFORE_REVERT || strcmp(v->id, op->target) == 0 ||
            strcmp(v->id, hsk_doc_current(op->d->doc)) == 0)
            continue;
        n--;
        g_ptr_array_add(ids, v->id);
    }
    if (ids->len &&
        !hsk_doc_drop_many(op->d->doc, (const char *const *)ids->pdata, ids->len, &error))
        hsk_complain(error->message);
    hsk_version_info_free(list);
}

static void build_job(struct hsk_op *op)
{
    struct hsk_guest_memory *mem = &op->next.memory;

    if (!hsk_guest_memory_init(mem, hsk_version_object_size(op->version, "ram"),
                               hsk_version_object_size(op->version, "vram"), &op->error) ||
        !hsk_document_add_near(op->d, &op->next, &op->error))
        return;
    for (unsigned i = 0; i < mem->n; i++) {
        if (!hsk_version_fill(op->version, mem->obj[i]->name, mem->obj[i]->host,
                              mem->obj[i]->size_bytes, &op->error))
            return;
    }
    op->next.cpu = g_strdup(hsk_version_cpu(op->version));
    op->next_state = hsk_version_state(op->version, &op->error);
}

static void built(struct hsk_op *op)
{
    GError *error = g_steal_pointer(&op->error);

    hsk_running_new_generation(&op->next);
    if (!error)
        hsk_running_start(op->d, &op->next, op->next_state, &error);
    if (error)
        hsk_revert_give_up(op, error);
}

static void parked(struct hsk_op *op)
{
    op->d->undo_lost = false;
    hsk_op_job(op, build_job, built);
}

void hsk_revert_anew(struct hsk_op *op)
{
    op->taken = parked;
    hsk_take_commit(op, hsk_revert_give_up);
}

static void publish_job(struct hsk_op *op)
{
    prune(op);
    hsk_doc_publish(op->d->doc, &op->error);
}

static void published(struct hsk_op *op)
{
    if (op->error)
        hsk_complain(op->error->message);
    g_clear_error(&op->error);
    hsk_op_finish(op, NULL);
}

void hsk_revert_publish(struct hsk_op *op)
{
    hsk_op_job(op, publish_job, published);
}

void hsk_revert_go_on(struct hsk_op *op)
{
    struct hsk_document *d = op->d;

    d->want_run = true;
    g_clear_pointer(&d->trouble, g_free);
    hsk_op_let_go(op);
}

void hsk_revert_answer(struct hsk_op *op)
{
    struct hsk_document *d = op->d;

    hsk_control_broadcast(d->control,
                          json_pack("{s:s, s:s, s:s, s:b}", "event", "reverted", "to", op->target,
                                    "title", op->target_title, "undo", op->kind == HSK_OP_UNDO));
    hsk_document_tell_state(d);
    if (op->conn)
        hsk_conn_reply(op->conn, op->id,
                       json_pack("{s:s, s:s, s:f}", "to", op->target, "title", op->target_title,
                                 "pause_ms", op->pause_ms));
    op->answered = true;
}

/* ---- with a new process ---- */

static void change_over(struct hsk_op *op)
{
    struct hsk_document *d = op->d;
    GError *error = NULL;

    if (!hsk_disks_switch(d->doc, op->version, &error)) {
        hsk_revert_give_up(op, error);
        return;
    }
    hsk_running_clear(&d->now);
    d->now = op->next;
    op->next = (struct hsk_running){0};
    hsk_document_keep_generation(d);
    d->from_zeros = false;
    g_hash_table_remove_all(d->near);
    g_free(d->base);
    d->base = g_strdup(op->target);
    hsk_screenshots_refuse(d, "the machine went back to another state; ask again");
    hsk_revert_go_on(op);
    op->pause_ms = (double)(g_get_monotonic_time() - op->started_us) / 1000;
    hsk_document_reload_versions(d);
    hsk_revert_answer(op);
    /* If it has died meanwhile, nobody has said so yet. */
    if (!hsk_child_pid(d->now.child))
        hsk_document_child_ops.ended(d, d->now.child, "ended as soon as it was started");
    hsk_revert_publish(op);
}

void hsk_revert_message(struct hsk_op *op, const char *event, const json_t *body)
{
    const char *text = hsk_json_str(body, "text", "it did not say why");

    if (strcmp(event, "ready") == 0 && !op->d->in_job) {
        hsk_running_ready(&op->next, hsk_json_str(body, "text", NULL));
        change_over(op);
    } else if (strcmp(event, "failed") == 0 && !op->d->in_job)
        hsk_revert_give_up(
            op, g_error_new(HSK_ERROR, HSK_ERROR_FAILED,
                            "\"%s\" could not be resumed (%s); the machine goes on as it was",
                            op->target_title, text));
    else if (strcmp(event, "ended") == 0 && !op->d->in_job)
        hsk_revert_give_up(
            op, g_error_new(HSK_ERROR, HSK_ERROR_FAILED,
                            "the new machine process %s; the machine goes on as it was", text));
}

static void open_job(struct hsk_op *op)
{
    op->version = hsk_version_open(op->d->doc, op->target, &op->error);
}

static void opened(struct hsk_op *op)
{
    if (op->error)
        hsk_op_fail(op, g_steal_pointer(&op->error));
    else
        hsk_going_start(op);
}

void hsk_revert_start(struct hsk_op *op)
{
    GError *error = NULL;

    if (!find_target(op, &error))
        hsk_op_fail(op, error);
    else
        hsk_op_job(op, open_job, opened);
}
