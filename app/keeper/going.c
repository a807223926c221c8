/* SPDX-License-Identifier: MIT */
/*
 * Going back in place (revert.c): the machine stops, says that now is a point, and becomes what it
 * was. What it was before is stored behind that.
 *
 * - near: the machine has the pages itself (vmm/near.h): go-back
 * - else, where it is known which pages differ (changes.h): they are read out of the store while
 * the machine runs, then, at the point, those that it has written since: become
 * - then: the disks are switched, it runs -> answer -> job: the point is committed as "before
 *   revert" -> job: publish
 *
 * If neither can be, the point is committed and a new process is built. Thread: main, but for the
 * job functions.
 */
#include "common/values.h"
#include "document.h"

/* It runs. */
static void ran(struct hsk_op *op)
{
    hsk_revert_answer(op);
}

/* The pages of what was parked came in exchange for those of the target: an undo needs them. */
static void keep_parked(struct hsk_op *op)
{
    struct hsk_document *d = op->d;

    g_clear_pointer(&d->parked, hsk_fetched_free);
    g_free(d->parked_id);
    d->parked = g_steal_pointer(&op->fetched);
    d->parked_id = g_strdup(op->new_id);
}

static void kept(struct hsk_op *op)
{
    op->d->undo_lost = false;
    if (!op->d->now.memory.has_near)
        keep_parked(op);
    hsk_document_reload_versions(op->d);
    hsk_revert_publish(op);
}

static void lost(struct hsk_op *op, GError *error)
{
    op->d->undo_lost = true;
    /* It has gone back, whatever comes first: that or the word that it runs. */
    if (!op->answered)
        hsk_revert_answer(op);
    g_prefix_error(&error,
                   "the machine went back to \"%s\", but what it was before could not be kept, so "
                   "this cannot be undone: ",
                   op->target_title);
    hsk_op_fail(op, error);
}

/* The machine is at the point again, and stays what it was. */
static void stay(struct hsk_op *op, GError *error)
{
    struct hsk_document *d = op->d;

    if (d->now.memory.has_near)
        hsk_child_send(d->now.child, json_pack("{s:s, s:b}", "cmd", "release", "failed", 1), -1);
    hsk_take_lost(op);
    hsk_take_clear(op);
    hsk_revert_give_up(op, error);
}

static void cannot(struct hsk_op *op, const json_t *body)
{
    stay(op, g_error_new(HSK_ERROR, HSK_ERROR_FAILED,
                         "\"%s\" could not be resumed (%s); the machine goes on as it was",
                         op->target_title, hsk_json_str(body, "text", "it did not say why")));
}

/* The machine is stopped and what the user wanted. */
static void went(struct hsk_op *op)
{
    struct hsk_document *d = op->d;
    GError *error = NULL;

    if (!hsk_disks_switch(d->doc, op->version, &error)) {
        hsk_child_send(d->now.child, json_pack("{s:s, s:I}", "cmd", "return", "to", op->name), -1);
        stay(op, error);
        return;
    }
    op->is_back = true;
    op->ran = ran;
    op->taken = kept;
    for (unsigned i = 0; i < op->ncaptured; i++) { /* without near versions */
        hsk_memobj_collect(d->now.memory.obj[i], HSK_PAGE_CHANGED, NULL);
        hsk_captured_lend(&op->captured[i], op->fetched->fd,
                          op->fetched->layout.first[i] * HSK_PAGE_SIZE);
    }
    op->base = g_steal_pointer(&d->base);
    d->base = g_strdup(op->target);
    memcpy(d->now.generation, op->next.generation, sizeof(d->now.generation));
    hsk_revert_go_on(op);
    hsk_document_keep_generation(d);
    hsk_take_commit(op, lost);
}

/* ---- with pages out of the store ---- */

static void became(struct hsk_op *op, const json_t *body)
{
    op->back = NULL;
    if (!hsk_json_bool(body, "near")) {
        cannot(op, body);
        return;
    }
    hsk_take_note_way(op, body);
    if (op->d->now.memory.has_near)
        g_hash_table_insert(op->d->near, g_strdup(op->target),
                            GINT_TO_POINTER((gint)op->d->last_point));
    went(op);
}

static void fetch_job(struct hsk_op *op)
{
    hsk_fetched_read(op->fetched, &op->d->now.memory, op->version, &op->error);
    if (!op->error && !op->next_state)
        op->next_state = hsk_version_state(op->version, &op->error);
}

/* All pages are there. */
static void fetched(struct hsk_op *op)
{
    struct hsk_document *d = op->d;
    GError *error = g_steal_pointer(&op->error);

    if (error || !hsk_fetched_finish(op->fetched, op->next_state, &error)) {
        stay(op, error);
        return;
    }
    d->last_point++;
    op->back = became;
    json_t *body =
        json_pack("{s:s, s:I, s:I, s:[I, I]}", "cmd", "become", "name", (json_int_t)d->last_point,
                  "state", (json_int_t)g_bytes_get_size(op->next_state), "generation",
                  (json_int_t)op->next.generation[0], (json_int_t)op->next.generation[1]);
    if (!hsk_child_send(d->now.child, body, op->fetched->fd))
        stay(op, g_error_new(HSK_ERROR, HSK_ERROR_FAILED, "the machine process does not answer"));
}

static void find_difference(struct hsk_op *op)
{
    struct hsk_document *d = op->d;

    op->fetched = hsk_changes_between(d->changes, &d->now.memory, d->base, op->target);
    if (op->fetched && d->parked && strcmp(d->parked_id, op->target) == 0)
        hsk_fetched_take_over(op->fetched, g_steal_pointer(&d->parked));
}

/* The point and its mark are here. */
static void at_point(struct hsk_op *op)
{
    const struct hsk_guest_memory *m = &op->d->now.memory;

    op->back = NULL;
    if (op->is_back) {
        went(op);
        return;
    }
    g_hash_table_remove(op->d->near, op->target);
    if (!op->fetched)
        find_difference(op);
    if (!op->fetched) {
        if (hsk_take_copy(op))
            hsk_revert_anew(op);
        return;
    }
    for (; !m->has_near && op->ncaptured < m->n; op->ncaptured++)
        hsk_captured_changed(&op->captured[op->ncaptured], m, op->ncaptured);
    if (!m->has_near)
        hsk_take_picture(op);
    for (unsigned i = 0; i < m->n; i++)
        hsk_fetched_want(op->fetched, m, i,
                         m->has_near ? hsk_near_dirty(&m->near, i) : op->captured[i].dirty);
    hsk_op_job(op, fetch_job, fetched);
}

/* ---- the start ---- */

static void ask(struct hsk_op *op, json_t *message)
{
    op->version_kind = HSK_VERSION_BEFORE_REVERT;
    op->title = g_strdup("Before revert");
    op->answer = at_point;
    op->held = true;
    json_object_set_new(message, "generation",
                        json_pack("[I, I]", (json_int_t)op->next.generation[0],
                                  (json_int_t)op->next.generation[1]));
    hsk_take_ask(op, message);
}

static void ask_for_point(struct hsk_op *op)
{
    GError *error = g_steal_pointer(&op->error);

    if (error)
        hsk_op_fail(op, error);
    else
        ask(op, json_pack("{s:s, s:b, s:b}", "cmd", "point", "go_on", 0, "passing", 0));
}

/* The answer to "go-back"; the point comes behind it. */
static void back(struct hsk_op *op, const json_t *body)
{
    op->back = NULL;
    op->is_back = hsk_json_bool(body, "near");
    if (json_object_get(body, "text") && !json_is_null(json_object_get(body, "text")))
        cannot(op, body);
}

void hsk_going_start(struct hsk_op *op)
{
    gint to = GPOINTER_TO_INT(g_hash_table_lookup(op->d->near, op->target));

    hsk_running_new_generation(&op->next);
    if (to) {
        op->back = back;
        ask(op, json_pack("{s:s, s:i}", "cmd", "go-back", "to", to));
        return;
    }
    find_difference(op);
    if (op->fetched)
        hsk_op_job(op, fetch_job, ask_for_point);
    else
        ask_for_point(op);
}
