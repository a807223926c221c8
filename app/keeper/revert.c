/* SPDX-License-Identifier: MIT */
/*
 * Going back to a version of a running machine. The present is parked first as a version of kind
 * "before-revert" (undo goes to it, and a second undo to the one that the first undo made). Then a
 * new machine is built beside the stopped old one; only when it stands complete do the disks change
 * over and the old one ends. Whatever fails, the old one goes on.
 *
 * - take BEFORE_REVERT
 * - job: open the version, fill fresh memory; start a process with it, which loads the state
 * - "ready" -> job: the disks continue from the version -> swap, run -> answer -> job: publish
 *
 * Thread: main, but for the job functions.
 */
#include "common/values.h"
#include "document.h"

#define KEPT_BEFORE_REVERT 5

static void give_up(struct hsk_op *op, GError *error)
{
    struct hsk_document *d = op->d;

    hsk_running_clear(&op->next);
    if (d->want_run)
        hsk_child_tell(d->now.child, "run");
    hsk_op_fail(op, error);
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

static char *undo_target(struct hsk_version_info *list, GError **error)
{
    struct hsk_version_info *last = NULL;

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
        op->target = undo_target(list, error);
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
    unsigned n = 0;

    for (struct hsk_version_info *v = list; v; v = v->next)
        n += v->kind == HSK_VERSION_BEFORE_REVERT;
    for (struct hsk_version_info *v = list; v && n > KEPT_BEFORE_REVERT; v = v->next) {
        if (v->kind != HSK_VERSION_BEFORE_REVERT || strcmp(v->id, op->target) == 0 ||
            strcmp(v->id, hsk_doc_current(op->d->doc)) == 0)
            continue;
        n--;
        if (!hsk_doc_drop(op->d->doc, v->id, &error)) {
            hsk_complain(error->message);
            g_clear_error(&error);
        }
    }
    hsk_version_info_free(list);
}

static void build_job(struct hsk_op *op)
{
    struct hsk_guest_memory *mem = &op->next.memory;

    op->version = hsk_version_open(op->d->doc, op->target, &op->error);
    if (!op->version ||
        !hsk_guest_memory_init(mem, hsk_version_object_size(op->version, "ram"),
                               hsk_version_object_size(op->version, "vram"), &op->error))
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
        give_up(op, error);
}

static void parked(struct hsk_op *op)
{
    hsk_op_job(op, build_job, built);
}

void hsk_revert_start(struct hsk_op *op)
{
    GError *error = NULL;

    if (!find_target(op, &error))
        hsk_op_fail(op, error);
    else
        hsk_take_start(op, HSK_VERSION_BEFORE_REVERT, "Before revert", parked);
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

static void change_disks_job(struct hsk_op *op)
{
    hsk_disks_switch(op->d->doc, op->version, &op->error);
}

static void disks_changed(struct hsk_op *op)
{
    struct hsk_document *d = op->d;
    GError *error = g_steal_pointer(&op->error);

    if (error) {
        give_up(op, error);
        return;
    }
    hsk_running_clear(&d->now);
    d->now = op->next;
    op->next = (struct hsk_running){0};
    hsk_document_keep_generation(d);
    d->base_known = true;
    d->want_run = true;
    g_clear_pointer(&d->trouble, g_free);
    hsk_screenshots_refuse(d, "the machine went back to another state; ask again");
    hsk_child_tell(d->now.child, "run");
    op->pause_ms = (double)(g_get_monotonic_time() - op->started_us) / 1000;
    hsk_document_reload_versions(d);
    hsk_control_broadcast(d->control,
                          json_pack("{s:s, s:s, s:s, s:b}", "event", "reverted", "to", op->target,
                                    "title", op->target_title, "undo", op->kind == HSK_OP_UNDO));
    hsk_document_tell_state(d);
    if (op->conn)
        hsk_conn_reply(op->conn, op->id,
                       json_pack("{s:s, s:s, s:f}", "to", op->target, "title", op->target_title,
                                 "pause_ms", op->pause_ms));
    op->answered = true;
    /* If it has died meanwhile, nobody has said so yet. */
    if (!hsk_child_pid(d->now.child))
        hsk_document_child_ops.ended(d, d->now.child, "ended as soon as it was started");
    hsk_op_job(op, publish_job, published);
}

void hsk_revert_message(struct hsk_op *op, const char *event, const json_t *body)
{
    const char *text = hsk_json_str(body, "text", "it did not say why");

    if (strcmp(event, "ready") == 0 && !op->d->in_job) {
        hsk_running_ready(&op->next, hsk_json_str(body, "text", NULL));
        hsk_op_job(op, change_disks_job, disks_changed);
    } else if (strcmp(event, "failed") == 0 && !op->d->in_job)
        give_up(op, g_error_new(HSK_ERROR, HSK_ERROR_FAILED,
                                "\"%s\" could not be resumed (%s); the machine goes on as it was",
                                op->target_title, text));
    else if (strcmp(event, "ended") == 0 && !op->d->in_job)
        give_up(op, g_error_new(HSK_ERROR, HSK_ERROR_FAILED,
                                "the new machine process %s; the machine goes on as it was", text));
}
