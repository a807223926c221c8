/* SPDX-License-Identifier: MIT */
/*
 * Taking versions of a running machine.
 *
 * - without near versions (KVM) before that: what is dirty is copied while the machine runs
 *   (precopy.c), so that little is left to copy at the point, where it stands still then
 * - point: the machine says that now is a point, saves its state and goes on; the mark between its
 *   disks' requests says where they were (app/machine/points.c). Nobody waits for anybody.
 * - job: commit -> answer -> job: publish into the .hva. The pages are read meanwhile as they were
 *   at the point (vmm/near.h).
 * - release: the machine need not keep the point for us any more
 *
 * The dirty bits count from the newest version that was committed, or from where a revert led. The
 * point clears them (or the copy before it); if the commit fails, they are set again.
 *
 * Thread: main, but for the job functions.
 */
#include <display/png.h>

#include "common/values.h"
#include "document.h"

/* A machine comes to a point within one; a computer that swaps takes longer. */
#define ANSWER_SECONDS 60

#define THUMBNAIL_WIDTH  320
#define THUMBNAIL_HEIGHT 200

static void forget_question(struct hsk_op *op)
{
    g_clear_handle_id(&op->watchdog, g_source_remove);
    if (op->asked && op->d->now.disks)
        hsk_disk_service_forget_mark(op->d->now.disks);
    op->asked = false;
}

void hsk_take_clear(struct hsk_op *op)
{
    forget_question(op);
    for (unsigned i = 0; i < op->ncaptured; i++)
        hsk_captured_clear(&op->captured[i]);
    op->ncaptured = 0;
    if (op->point)
        hsk_take_abandon(g_steal_pointer(&op->point));
    g_clear_pointer(&op->state, g_bytes_unref);
    g_clear_pointer(&op->pixels, g_free);
}

void hsk_take_lost(struct hsk_op *op)
{
    for (unsigned i = 0; i < op->ncaptured; i++)
        hsk_captured_lost(&op->captured[i]);
}

static double ms_since(gint64 us)
{
    return (double)(g_get_monotonic_time() - us) / 1000;
}

void hsk_op_let_go(struct hsk_op *op)
{
    op->held = false;
    if (op->d->want_run)
        hsk_child_tell(op->d->now.child, "run");
}

/* ---- the commit ---- */

/* What the machine says of it is not believed. */
void hsk_take_picture(struct hsk_op *op)
{
    const struct hsk_shown *s = &op->shown;
    const struct hsk_captured *c = &op->captured[1];
    uint64_t bytes = (uint64_t)s->stride_bytes * s->height;

    if (s->blank || op->ncaptured < 2 || s->stride_bytes < (uint64_t)s->width * 4 || !bytes ||
        !hsk_range_ok(s->offset, bytes, c->memory->obj[1]->size_bytes))
        return;
    op->pixels = g_malloc(bytes);
    for (uint64_t at = 0; at < bytes;) {
        uint8_t page[HSK_PAGE_SIZE];
        uint64_t in_page = (s->offset + at) % HSK_PAGE_SIZE,
                 n = MIN(bytes - at, HSK_PAGE_SIZE - in_page);

        hsk_captured_read((void *)(uintptr_t)c, (s->offset + at) / HSK_PAGE_SIZE, page);
        memcpy(op->pixels + at, page + in_page, n);
        at += n;
    }
}

static GBytes *thumbnail(const struct hsk_op *op)
{
    const struct hsk_shown *s = &op->shown;

    if (!s->width || !s->height || s->width > 16384 || s->height > 16384)
        return NULL;
    return hsk_png_encode_thumbnail(op->pixels, s->width, s->height, s->stride_bytes,
                                    THUMBNAIL_WIDTH, THUMBNAIL_HEIGHT, NULL);
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
        .nobjects = op->ncaptured,
        .cancelled = hsk_op_cancelled,
        .opaque = op,
    };

    for (unsigned i = 0; i < op->ncaptured; i++) {
        struct hsk_captured *c = &op->captured[i];
        objects[i] = (struct hsk_version_object){.name = c->memory->obj[i]->name,
                                                 .size_bytes = c->memory->obj[i]->size_bytes,
                                                 .dirty = c->dirty,
                                                 .from_zeros = op->d->from_zeros,
                                                 .read_page = hsk_captured_read,
                                                 .opaque = c};
    }
    if (op->needed) {
        take.needed = (const uint32_t *)(void *)op->needed->data;
        take.nneeded = op->needed->len;
    }
    if (!op->pixels)
        hsk_take_picture(op);
    g_autoptr(GBytes) picture = thumbnail(op);
    take.state = op->state ? g_bytes_get_data(op->state, &state_bytes) : NULL;
    take.state_bytes = state_bytes;
    take.picture_png = picture ? g_bytes_get_data(picture, &picture_bytes) : NULL;
    take.picture_bytes = picture_bytes;
    hsk_version_commit(op->d->doc, g_steal_pointer(&op->point), &take, op->new_id, &op->bytes_added,
                       &op->error);
}

static void committed(struct hsk_op *op)
{
    struct hsk_document *d = op->d;
    GError *error = g_steal_pointer(&op->error);
    const bool near = d->now.memory.has_near && op->name;

    op->durable_ms = ms_since(op->started_us);
    if (near)
        hsk_child_send(d->now.child,
                       json_pack("{s:s, s:b}", "cmd", "release", "failed", error != NULL), -1);
    if (error)
        hsk_take_lost(op);
    else if (op->ncaptured) {
        d->from_zeros = false;
        hsk_changes_add(d->changes, op->new_id, op->base ? op->base : d->base, op->captured,
                        op->ncaptured);
        if (!op->is_back) {
            g_free(d->base);
            d->base = g_strdup(op->new_id);
        }
    }
    hsk_take_clear(op);
    if (error) {
        op->failed(op, error);
        return;
    }
    if (near)
        g_hash_table_insert(d->near, g_strdup(op->new_id), GINT_TO_POINTER((gint)op->name));
    op->taken(op);
}

void hsk_take_commit(struct hsk_op *op, void (*failed)(struct hsk_op *op, GError *error))
{
    const struct hsk_guest_memory *m = &op->d->now.memory;

    op->failed = failed;
    for (unsigned i = 0; m->has_near && i < m->n; i++)
        hsk_captured_point(&op->captured[op->ncaptured++], m, i, op->way, op->nway);
    hsk_op_job(op, commit_job, committed);
}

void hsk_take_refuse(struct hsk_op *op, GError *error)
{
    hsk_take_lost(op);
    if (op->held)
        hsk_op_let_go(op);
    hsk_op_fail(op, error);
}

/* ---- the point ---- */

static bool goes_on(const struct hsk_op *op)
{
    return op->version_kind == HSK_VERSION_USER || op->version_kind == HSK_VERSION_AUTO;
}

/* Without near versions: the machine stands still. */
bool hsk_take_copy(struct hsk_op *op)
{
    GError *error = NULL;

    if (op->d->now.memory.has_near || hsk_precopy_copy(op, HSK_PAGE_CHANGED, &error))
        return true;
    hsk_take_refuse(op, error);
    return false;
}

static void at_point(struct hsk_op *op)
{
    if (!hsk_take_copy(op))
        return;
    if (op->held && goes_on(op)) {
        hsk_take_picture(op);
        hsk_op_let_go(op);
    }
    hsk_take_commit(op, hsk_take_refuse);
}

static void maybe_answered(struct hsk_op *op)
{
    if (!op->asked || !op->state || !op->point)
        return;
    forget_question(op);
    op->answer(op);
}

static void marked(void *opaque, struct hsk_take_point *point)
{
    struct hsk_op *op = opaque;

    op->point = point;
    maybe_answered(op);
}

static gboolean no_answer(gpointer opaque)
{
    struct hsk_op *op = opaque;

    op->watchdog = 0;
    forget_question(op);
    hsk_take_refuse(op, g_error_new(HSK_ERROR, HSK_ERROR_BUSY,
                                    "the machine process does not come to a stop; try again, or "
                                    "end it with \"hva stop --force\""));
    return G_SOURCE_REMOVE;
}

void hsk_take_question(struct hsk_op *op, json_t *message)
{
    json_object_set_new(message, "name", json_integer(op->name));
    op->asked = true;
    op->watchdog = g_timeout_add_seconds(ANSWER_SECONDS, no_answer, op);
    if (hsk_child_send(op->d->now.child, message, -1))
        return;
    forget_question(op);
    hsk_take_refuse(
        op, g_error_new(HSK_ERROR, HSK_ERROR_FAILED, "the machine process does not answer"));
}

void hsk_take_ask(struct hsk_op *op, json_t *message)
{
    struct hsk_document *d = op->d;

    op->name = ++d->last_point;
    hsk_disk_service_expect_mark(d->now.disks, (uint64_t)op->name, marked, op);
    hsk_take_question(op, message);
}

static void ask_for_point(struct hsk_op *op)
{
    op->held = !goes_on(op) || !op->d->now.memory.has_near;
    hsk_take_ask(op, json_pack("{s:s, s:b, s:b}", "cmd", "point", "go_on", !op->held, "passing",
                               op->version_kind == HSK_VERSION_AUTO));
}

void hsk_take_start(struct hsk_op *op, enum hsk_version_kind kind, const char *title,
                    void (*taken)(struct hsk_op *op))
{
    op->version_kind = kind;
    op->title = g_strdup(title);
    op->taken = taken;
    if (op->d->broken) {
        hsk_op_fail(op, g_error_new_literal(HSK_ERROR, HSK_ERROR_DAMAGED, op->d->trouble));
        return;
    }
    op->answer = at_point;
    /* Who ends anyway need not wait for a copy of what it still changes. */
    if (goes_on(op) && !op->d->now.memory.has_near)
        hsk_precopy_start(op, ask_for_point);
    else
        ask_for_point(op);
}

static uint32_t number(const json_t *o, const char *key)
{
    return (uint32_t)CLAMP(hsk_json_int(o, key, 0), 0, (int64_t)UINT32_MAX);
}

void hsk_take_note_way(struct hsk_op *op, const json_t *body)
{
    const json_t *way = json_object_get(body, "way");

    op->nway = (unsigned)MIN(json_array_size(way), HSK_NEAR_POINTS);
    for (unsigned i = 0; i < op->nway; i++)
        op->way[i] = (uint32_t)json_integer_value(json_array_get(way, i)); /* checked at use */
}

static void note_picture(struct hsk_op *op, const json_t *body)
{
    const json_t *shown = json_object_get(body, "picture");

    op->shown = (struct hsk_shown){.offset = (uint64_t)hsk_json_int(shown, "offset", 0),
                                   .width = number(shown, "width"),
                                   .height = number(shown, "height"),
                                   .stride_bytes = number(shown, "stride"),
                                   .blank = hsk_json_bool(shown, "blank")};
}

void hsk_take_message(struct hsk_op *op, const char *event, const json_t *body, int fd)
{
    GError *error = NULL;
    const double paused_ms = (double)hsk_json_int(body, "paused_us", 0) / 1000;

    if (strcmp(event, "run") == 0 && paused_ms > 0 && !op->answered) {
        op->pause_ms = paused_ms;
        if (op->ran)
            op->ran(op);
        return;
    }
    if (strcmp(event, "back") == 0 && op->back) {
        op->back(op, body);
        return;
    }
    /* Only the answer to the question under way counts. */
    if (!op->asked || op->state || hsk_json_int(body, "name", 0) != op->name)
        return;
    if (strcmp(event, "collected") == 0 && op->precopied) {
        forget_question(op);
        hsk_precopy_round(op);
        return;
    }
    if (strcmp(event, "point") != 0)
        return;
    op->state = hsk_message_bytes(body, fd, &error);
    if (!op->state) {
        forget_question(op);
        hsk_take_refuse(op, error);
        return;
    }
    hsk_take_note_way(op, body);
    note_picture(op, body);
    op->pause_ms = paused_ms;
    maybe_answered(op);
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
    GError *unpublished = g_steal_pointer(&op->error);

    hsk_document_look_after(op->d);
    if (unpublished && op->wait) {
        g_prefix_error(&unpublished,
                       "the snapshot is kept on this computer, but it is not in the document: ");
        hsk_op_fail(op, unpublished);
        return;
    }
    if (unpublished)
        hsk_complain(unpublished->message);
    g_clear_error(&unpublished);
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
        if (v->kind == HSK_VERSION_SAVED && !v->pinned && strcmp(v->id, op->new_id) != 0 &&
            !hsk_doc_drop(op->d->doc, v->id, &error)) {
            hsk_complain(error->message);
            g_clear_error(&error);
        }
    }
    hsk_version_info_free(list);
    hsk_doc_publish(op->d->doc, &op->error);
}

/* The end. text: what did not go well, or NULL. */
static void close_document(struct hsk_op *op, const char *text)
{
    struct hsk_document *d = op->d;

    if (text)
        hsk_complain(text);
    hsk_control_broadcast(d->control, json_pack("{s:s, s:s?}", "event", "closing", "text", text));
    /* No next operation: the end comes first. */
    d->ending = true;
    hsk_op_finish(op, text ? json_pack("{s:s}", "text", text) : NULL);
    hsk_document_end(d, 0);
}

static void tidied(struct hsk_op *op)
{
    g_autofree char *text = NULL;

    if (op->error)
        text = g_strdup_printf(
            "everything is saved in this computer's own store, but not in the document: %s",
            op->error->message);
    g_clear_error(&op->error);
    close_document(op, text);
}

static void saved(struct hsk_op *op)
{
    hsk_op_job(op, tidy_job, tidied);
}

void hsk_stop_start(struct hsk_op *op)
{
    /* There is nothing to save, and who wants to leave has been told why. */
    if (op->d->broken && !op->conn) {
        hsk_document_end(op->d, 1);
        return;
    }
    /* With us the last of it would end. Whoever cannot be asked is not. */
    GError *gone = op->conn ? hsk_document_gone_error(op->d) : NULL;
    if (gone) {
        hsk_op_fail(op, gone);
        return;
    }
    op->needed = hsk_document_needed(op->d);
    hsk_take_start(op, HSK_VERSION_SAVED, "Saved state", saved);
}

/* The disks' log has what was written; there is no machine any more that could go on. */
static void off_only(struct hsk_op *op, GError *error)
{
    g_autofree char *text = g_strdup_printf(
        "the machine is off, and its disks are kept in this computer's own store only: %s",
        error->message);

    g_error_free(error);
    close_document(op, text);
}

/* Off: nothing of the running state is kept, only the disks. */
void hsk_off_start(struct hsk_op *op)
{
    struct hsk_document *d = op->d;

    /* Its saved state stays: it may be the stick that is bad, or not plugged in. */
    if (d->broken) {
        d->ending = true;
        hsk_op_finish(op, NULL);
        hsk_document_end(d, 1);
        return;
    }
    d->want_run = false;
    hsk_running_clear(&d->now);
    op->version_kind = HSK_VERSION_SAVED;
    op->title = g_strdup("Switched off");
    op->taken = saved;
    op->point = hsk_take_begin(d->doc);
    hsk_take_commit(op, off_only);
}
