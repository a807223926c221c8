/* SPDX-License-Identifier: MIT */
/*
 * Taking versions of a running machine: stop, copy, go on, store (stop-and-copy; the format needs
 * nothing else).
 *
 * - save: the machine stops and answers with its state
 * - dirty pages are copied, the disks' position is marked; USER: dirty bits cleared, run
 * - job: commit -> answer -> job: publish into the .hva
 *
 * The dirty bits count from the current version. They are cleared only for a version that will
 * become current, and base_known is false from then until its commit has succeeded: if it fails,
 * the next take copies everything.
 *
 * Thread: main, but for the job functions.
 */
#include "common/values.h"
#include "document.h"

/* A stopped machine saves within one; a computer that swaps takes longer. */
#define ANSWER_SECONDS 60

void hsk_take_clear(struct hsk_op *op)
{
    g_clear_handle_id(&op->watchdog, g_source_remove);
    for (unsigned i = 0; i < op->nstaged; i++)
        hsk_staged_clear(&op->staged[i]);
    op->nstaged = 0;
    if (op->point)
        hsk_take_abandon(g_steal_pointer(&op->point));
    g_clear_pointer(&op->state, g_bytes_unref);
    g_clear_pointer(&op->picture, g_bytes_unref);
}

static double ms_since(gint64 us)
{
    return (double)(g_get_monotonic_time() - us) / 1000;
}

static void go_on(struct hsk_document *d)
{
    if (d->want_run)
        hsk_child_tell(d->now.child, "run");
}

static void commit_job(struct hsk_op *op)
{
    struct hsk_version_object objects[HSK_MAX_OBJECTS];
    gsize state_bytes = 0, picture_bytes = 0;
    struct hsk_take take = {
        .title = op->title,
        .kind = op->version_kind,
        .engine = op->d->engine->name,
        .cpu = op->d->now.cpu,
        .objects = objects,
        .nobjects = op->nstaged,
    };

    for (unsigned i = 0; i < op->nstaged; i++) {
        const struct hsk_staged *s = &op->staged[i];
        objects[i] = (struct hsk_version_object){
            .name = s->name, .size_bytes = s->size_bytes, .dirty = s->dirty, .pages = s->pages};
    }
    take.state = op->state ? g_bytes_get_data(op->state, &state_bytes) : NULL;
    take.state_bytes = state_bytes;
    take.picture_png = op->picture ? g_bytes_get_data(op->picture, &picture_bytes) : NULL;
    take.picture_bytes = picture_bytes;
    hsk_version_commit(op->d->doc, g_steal_pointer(&op->point), &take, op->new_id, &op->bytes_added,
                       &op->error);
}

static void committed(struct hsk_op *op)
{
    struct hsk_document *d = op->d;
    GError *error = g_steal_pointer(&op->error);

    op->durable_ms = ms_since(op->started_us);
    hsk_take_clear(op);
    if (error) {
        if (op->version_kind != HSK_VERSION_USER)
            go_on(d);
        hsk_op_fail(op, error);
        return;
    }
    if (op->version_kind == HSK_VERSION_USER)
        d->base_known = true;
    op->taken(op);
}

static void commit(struct hsk_op *op)
{
    op->point = hsk_take_begin(op->d->doc);
    hsk_op_job(op, commit_job, committed);
}

/* The machine has stopped and its state is here. */
static void copy(struct hsk_op *op)
{
    struct hsk_document *d = op->d;
    GError *error = NULL;

    for (unsigned i = 0; i < d->now.memory.n && !error; i++) {
        if (hsk_staged_copy(&op->staged[op->nstaged], d->now.memory.obj[i], !d->base_known, &error))
            op->nstaged++;
    }
    if (error) {
        go_on(d);
        hsk_op_fail(op, error);
        return;
    }
    if (op->version_kind == HSK_VERSION_USER) {
        d->base_known = false;
        hsk_child_tell(d->now.child, "clear-dirty");
    }
    /* The disks' position is marked before the guest can write again. */
    commit(op);
    if (op->version_kind == HSK_VERSION_USER) {
        op->pause_ms = ms_since(op->started_us);
        go_on(d);
    }
}

static gboolean no_answer(gpointer opaque)
{
    struct hsk_op *op = opaque;

    op->watchdog = 0;
    op->asked = false;
    go_on(op->d);
    hsk_op_fail(op, g_error_new(HSK_ERROR, HSK_ERROR_BUSY,
                                "the machine process does not come to a stop; try again, or end it "
                                "with \"hva stop --force\""));
    return G_SOURCE_REMOVE;
}

void hsk_take_start(struct hsk_op *op, enum hsk_version_kind kind, const char *title,
                    void (*taken)(struct hsk_op *op))
{
    GError *error = NULL;

    op->version_kind = kind;
    op->title = g_strdup(title);
    op->taken = taken;
    op->asked = hsk_child_tell(op->d->now.child, "save");
    if (op->asked) {
        op->watchdog = g_timeout_add_seconds(ANSWER_SECONDS, no_answer, op);
        return;
    }
    error = g_error_new(HSK_ERROR, HSK_ERROR_FAILED, "the machine process does not answer");
    hsk_op_fail(op, error);
}

void hsk_take_message(struct hsk_op *op, const char *event, const json_t *body, int fd)
{
    GError *error = NULL;

    if (strcmp(event, "run") == 0 && op->version_kind == HSK_VERSION_USER && !op->answered) {
        op->pause_ms = ms_since(op->started_us);
        return;
    }
    if (strcmp(event, "picture") == 0 && op->asked && !op->picture) {
        op->picture = hsk_message_bytes(body, fd, NULL);
        return;
    }
    /* Only the answer to the question under way counts. */
    if (strcmp(event, "save") != 0 || !op->asked)
        return;
    op->asked = false;
    g_clear_handle_id(&op->watchdog, g_source_remove);
    op->state = hsk_message_bytes(body, fd, &error);
    if (op->state) {
        copy(op);
        return;
    }
    go_on(op->d);
    hsk_op_fail(op, error);
}

/* ---- snapshot ---- */

static void publish_job(struct hsk_op *op)
{
    hsk_doc_publish(op->d->doc, &op->error);
}

static json_t *snapshot_fields(const struct hsk_op *op)
{
    return json_pack("{s:s, s:s, s:f, s:f, s:I}", "version", op->new_id, "title", op->title,
                     "pause_ms", op->pause_ms, "durable_ms", op->durable_ms, "bytes_added",
                     (json_int_t)op->bytes_added);
}

/* The instance has it already; a document that cannot be written now gets it the next time. */
static void published(struct hsk_op *op)
{
    if (op->error)
        hsk_complain(op->error->message);
    g_clear_error(&op->error);
    hsk_op_finish(op, snapshot_fields(op));
}

static void snapshot_taken(struct hsk_op *op)
{
    struct hsk_document *d = op->d;

    hsk_document_reload_versions(d);
    hsk_control_broadcast(d->control, json_pack("{s:s, s:s, s:s, s:b}", "event", "snapshot", "id",
                                                op->new_id, "title", op->title, "durable", 1));
    if (!op->wait && op->conn) {
        hsk_conn_reply(op->conn, op->id, snapshot_fields(op));
        op->answered = true;
    }
    hsk_op_job(op, publish_job, published);
}

void hsk_snapshot_start(struct hsk_op *op)
{
    g_autofree char *title = op->arg ? g_strdup(op->arg) : NULL;

    if (!title) {
        g_autoptr(GDateTime) now = g_date_time_new_now_local();
        title = g_date_time_format(now, "Snapshot %H:%M");
    }
    hsk_take_start(op, HSK_VERSION_USER, title, snapshot_taken);
}

/* ---- stop and power-off ---- */

static void tidy_job(struct hsk_op *op)
{
    g_autoptr(GError) error = NULL;
    struct hsk_version_info *list = hsk_doc_versions(op->d->doc, &error);

    for (struct hsk_version_info *v = list; v; v = v->next) {
        if (v->kind == HSK_VERSION_SAVED && strcmp(v->id, op->new_id) != 0 &&
            !hsk_doc_drop(op->d->doc, v->id, &error)) {
            hsk_complain(error->message);
            g_clear_error(&error);
        }
    }
    hsk_version_info_free(list);
    hsk_doc_publish(op->d->doc, &op->error);
}

static void tidied(struct hsk_op *op)
{
    struct hsk_document *d = op->d;
    g_autofree char *text = NULL;

    if (op->error) {
        text = g_strdup_printf(
            "everything is saved in this computer's own store, but not in the document: %s",
            op->error->message);
        hsk_complain(text);
    }
    g_clear_error(&op->error);
    hsk_control_broadcast(d->control, json_pack("{s:s, s:s?}", "event", "closing", "text", text));
    /* No next operation: the end comes first. */
    d->ending = true;
    hsk_op_finish(op, NULL);
    hsk_document_end(d, 0);
}

static void saved(struct hsk_op *op)
{
    hsk_op_job(op, tidy_job, tidied);
}

void hsk_stop_start(struct hsk_op *op)
{
    hsk_take_start(op, HSK_VERSION_SAVED, "Saved state", saved);
}

/* Off: nothing of the running state is kept, only the disks. */
void hsk_off_start(struct hsk_op *op)
{
    struct hsk_document *d = op->d;

    d->want_run = false;
    hsk_running_clear(&d->now);
    op->version_kind = HSK_VERSION_SAVED;
    op->title = g_strdup("Switched off");
    op->taken = saved;
    commit(op);
}
