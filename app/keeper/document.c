/* SPDX-License-Identifier: MIT */
/*
 * A keeper that runs a document: opens it, starts its machine (resumed where it was, or from
 * power-on), and lives until the machine is stopped, switched off or dies. Options: path, engine,
 * serial, fresh, discard, at (seconds since 1970, negative: the newest point, 0: where it was
 * left), memory (0: the document's), trust, trust_state (trust.c).
 *
 * Thread: main.
 */
#include "document.h"

#include <glib-unix.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/values.h"
#include "keeper.h"

void hsk_document_end(struct hsk_document *d, int status)
{
    d->ending = true;
    d->status = status;
    hsk_op_cancel_copies(d, NULL);
    if (!d->in_job && g_queue_is_empty(&d->beside))
        g_main_loop_quit(d->loop);
}

json_t *hsk_document_info(struct hsk_document *d)
{
    const struct hsk_manifest *m = hsk_doc_manifest(d->doc);
    json_t *disks = json_array(), *v;
    size_t i, snapshots = 0;

    for (unsigned n = 0; n < m->ndisks; n++)
        json_array_append_new(disks, json_pack("{s:s, s:I, s:s}", "id", m->disks[n].id, "bytes",
                                               (json_int_t)m->disks[n].size_bytes, "interface",
                                               m->disks[n].interface));
    json_array_foreach(d->versions, i, v) snapshots +=
        strcmp(hsk_json_str(v, "kind", ""), "user") == 0;
    uint64_t device, inode;
    hsk_doc_identity(d->doc, &device, &inode);
    return json_pack("{s:s, s:s, s:s, s:s?, s:s, s:s?, s:I, s:i, s:o, s:I, s:s?, s:s, s:b, s:f, "
                     "s:I, s:I}",
                     "name", m->name, "uuid", m->uuid, "engine", d->engine->name, "engine_note",
                     d->engine_note, "state", d->want_run ? "running" : "paused", "text",
                     d->trouble, "memory", (json_int_t)d->memory_bytes, "cpus", (int)m->ncpus,
                     "disks", disks, "snapshots", (json_int_t)snapshots, "instance",
                     hsk_doc_instance(d->doc), "path", d->path, "filling", d->now.lazy != NULL,
                     "start_ms", d->start_ms, "device", (json_int_t)device, "inode",
                     (json_int_t)inode);
}

void hsk_document_tell_state(struct hsk_document *d)
{
    hsk_control_broadcast(d->control,
                          json_pack("{s:s, s:s, s:s?}", "event", "state", "state",
                                    d->want_run ? "running" : "paused", "text", d->trouble));
}

static bool open_document(struct hsk_document *d, GError **error)
{
    g_autofree char *orphan = NULL;

    d->doc = hsk_doc_open(d->path, false, &orphan, error);
    if (orphan)
        hsk_complain(orphan);
    if (!d->doc)
        return false;
    const struct hsk_manifest *m = hsk_doc_manifest(d->doc);
    if (!m->has_kernel) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_UNSUPPORTED,
                    "%s has no kernel of its own, and this version cannot boot from a disk yet",
                    d->path);
        return false;
    }
    /* Not before: a document that was moved has its instance only now. */
    hsk_instances_tidy();
    hsk_settings_load(m->uuid, &d->settings);
    if (!hsk_generation_load(m->uuid, hsk_doc_instance(d->doc), d->now.generation)) {
        hsk_running_new_generation(&d->now);
        hsk_document_keep_generation(d);
    }
    return true;
}

static bool has_state(struct hsk_document *d, const char *id)
{
    const json_t *v;
    size_t i;

    json_array_foreach(d->versions, i, v)
    {
        if (strcmp(hsk_json_str(v, "id", ""), id) == 0)
            return hsk_json_bool(v, "has_state");
    }
    return false;
}

static bool discard_saved(struct hsk_document *d, GError **error)
{
    const char *saved = hsk_doc_saved(d->doc);

    if (!*saved)
        return true;
    g_autofree char *id = g_strdup(saved);
    if (!hsk_doc_drop(d->doc, id, error))
        return false;
    hsk_document_reload_versions(d);
    /* A document that cannot be written keeps it there; this computer's store has forgotten it all
     * the same. */
    g_autoptr(GError) unpublished = NULL;
    if (!hsk_doc_publish(d->doc, &unpublished))
        hsk_complain(unpublished->message);
    return true;
}

/* The id of the state to resume, or NULL: start cold; a sentence says why if that may surprise. */
static const char *state_to_resume(struct hsk_document *d)
{
    const char *saved = hsk_doc_saved(d->doc);

    if (hsk_json_bool(d->options, "fresh") || hsk_json_bool(d->options, "discard"))
        return NULL;
    hsk_document_offer_point(d);
    if (!*saved || !has_state(d, saved))
        return NULL;
    if (strcmp(saved, hsk_doc_current(d->doc)) != 0 || hsk_doc_live_changed(d->doc)) {
        hsk_complain("the machine was not stopped properly and its disks have changed since it was "
                     "saved; starting it cold, as after a power cut");
        return NULL;
    }
    return saved;
}

bool hsk_document_add_near(struct hsk_document *d, struct hsk_running *r, GError **error)
{
    return d->engine != &hsk_engine_soft_ops || hsk_guest_memory_add_near(&r->memory, error);
}

static bool resume(struct hsk_document *d, const char *id, GError **error)
{
    struct hsk_guest_memory *mem = &d->now.memory;
    struct hsk_version *v = hsk_version_open(d->doc, id, error);
    g_autoptr(GBytes) state = NULL;
    bool good = v && hsk_guest_memory_init(mem, hsk_version_object_size(v, "ram"),
                                           hsk_version_object_size(v, "vram"), error);

    good = good && hsk_running_lazy(d, g_steal_pointer(&v), error);
    /* The screen is looked at before the machine runs. */
    if (good && mem->n > 1)
        good = hsk_version_fill(d->now.version, mem->obj[1]->name, mem->obj[1]->host,
                                mem->obj[1]->size_bytes, error);
    if (good)
        state = hsk_version_state(d->now.version, error);
    if (state)
        d->now.cpu = g_strdup(hsk_version_cpu(d->now.version));
    hsk_version_free(v);
    if (!state) {
        g_prefix_error(error, "%s: ", HSK_NO_RESUME);
        return false;
    }
    g_free(d->base);
    d->base = g_strdup(id);
    return hsk_document_add_near(d, &d->now, error) && hsk_running_start(d, &d->now, state, error);
}

static bool start_machine(struct hsk_document *d, GError **error)
{
    const struct hsk_manifest *m = hsk_doc_manifest(d->doc);
    uint64_t memory = (uint64_t)hsk_json_int(d->options, "memory", 0);

    if (hsk_json_bool(d->options, "discard") && !discard_saved(d, error))
        return false;
    int64_t at = hsk_json_int(d->options, "at", 0);
    g_autofree char *id = at ? hsk_document_go_back(d, at, error) : g_strdup(state_to_resume(d));
    if (at && !id)
        return false;
    if (id && !hsk_document_may_resume(d, id, error))
        return false;
    if (id && memory && memory != m->memory_bytes) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_USAGE,
                    "a saved machine keeps its memory; use --fresh with --memory to start it anew");
        return false;
    }
    d->memory_bytes = memory ? memory : m->memory_bytes;
    if (id) {
        bool good = resume(d, id, error);
        if (good)
            d->memory_bytes = d->now.memory.obj[0]->size_bytes;
        return good;
    }
    d->from_zeros = true;
    return hsk_guest_memory_init(&d->now.memory, d->memory_bytes, m->vram_bytes, error) &&
           hsk_document_add_near(d, &d->now, error) && hsk_running_start(d, &d->now, NULL, error);
}

static void on_leave(void *opaque)
{
    hsk_op_queue(hsk_op_new(opaque, HSK_OP_STOP, NULL, NULL, NULL));
}

/* Somebody wants the keeper to go: as if the window was closed. */
static gboolean on_signal(gpointer opaque)
{
    on_leave(opaque);
    return G_SOURCE_CONTINUE;
}

/* A guest that writes for days without a snapshot must not fill the computer's disk with its log.
 */
static gboolean now_and_then(gpointer opaque)
{
    struct hsk_document *d = opaque;

    hsk_document_look_after(d);
    if (!d->op)
        hsk_op_queue(hsk_op_new(d, HSK_OP_FOLD, NULL, NULL, NULL));
    return G_SOURCE_CONTINUE;
}

static bool open_all(struct hsk_document *d, GError **error)
{
    const char *engine = hsk_json_str(d->options, "engine", "auto");
    const struct hsk_serial_config sc = {
        .where = hsk_json_str(d->options, "serial", "null"),
        .consoles = true,
        .leave = on_leave,
        .opaque = d,
    };

    d->engine = hsk_engine_pick(strcmp(engine, "kvm") == 0    ? HSK_ENGINE_KVM
                                : strcmp(engine, "soft") == 0 ? HSK_ENGINE_SOFT
                                                              : HSK_ENGINE_AUTO,
                                &d->engine_note, error);
    if (!d->engine || !open_document(d, error))
        return false;
    hsk_document_reload_versions(d);
    if (!hsk_document_check_trust(d, error))
        return false;
    d->serial = hsk_serial_new(&sc, error);
    if (!d->serial || !start_machine(d, error))
        return false;
    d->control = hsk_control_new(hsk_doc_instance(d->doc), &hsk_document_control_ops, d, error);
    d->timeline = hsk_timeline_new(d);
    d->fold_source = g_timeout_add_seconds(60, now_and_then, d);
    return d->control != NULL;
}

static void close_all(struct hsk_document *d)
{
    hsk_screenshots_refuse(d, "the machine is closing");
    hsk_strokes_clear(d);
    g_clear_handle_id(&d->fold_source, g_source_remove);
    g_clear_pointer(&d->timeline, hsk_timeline_free);
    hsk_running_clear(&d->now);
    /* Nobody waits any more: unanswered requests end with their connections. */
    if (d->op)
        g_queue_push_head(&d->ops, g_steal_pointer(&d->op));
    for (struct hsk_op *op; (op = g_queue_pop_head(&d->ops));)
        hsk_op_free(op);
    hsk_serial_free(d->serial);
    /* The document is free before the sockets close: who waits for their end may open it. */
    if (d->doc) {
        hsk_doc_settle(d->doc);
        hsk_doc_close(d->doc);
    }
    hsk_control_free(d->control);
    g_clear_pointer(&d->needed, g_array_unref);
    hsk_changes_free(d->changes);
    hsk_fetched_free(d->parked);
    g_free(d->parked_id);
    g_hash_table_unref(d->near);
    g_free(d->base);
    json_decref(d->versions);
    g_free(d->path);
    g_free(d->engine_note);
    g_free(d->trouble);
}

int hsk_keeper_run(const json_t *options)
{
    g_autoptr(GMainLoop) loop = g_main_loop_new(NULL, FALSE);
    g_autoptr(GError) error = NULL;
    struct hsk_document d = {.options = options, .loop = loop};
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP};
    char *real = realpath(hsk_json_str(options, "path", ""), NULL);

    hsk_clock_take_sample(&d.started);
    d.path = g_strdup(real ? real : hsk_json_str(options, "path", ""));
    free(real);
    d.changes = hsk_changes_new();
    d.base = g_strdup("");
    d.near = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    g_queue_init(&d.ops);
    g_queue_init(&d.beside);
    g_queue_init(&d.screenshots);
    g_queue_init(&d.strokes);
    for (unsigned i = 0; i < G_N_ELEMENTS(signals); i++)
        g_unix_signal_add(signals[i], on_signal, &d);
    bool good = open_all(&d, &error);
    if (good)
        g_main_loop_run(loop);
    close_all(&d);
    if (!good) {
        hsk_complain(error->message);
        if (d.undecided)
            return HSK_EXIT_UNDECIDED;
        return g_error_matches(error, HSK_ERROR, HSK_ERROR_USAGE) ? 2 : 1;
    }
    return d.status;
}
