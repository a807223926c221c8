/* SPDX-License-Identifier: MIT */
/*
 * The machine process of a document: start, and what it says. A message of a process that is not
 * the current one belongs to a revert under way (revert.c). Thread: main.
 */
#include <errno.h>
#include <stdio.h>
#include <sys/random.h>

#include "common/values.h"
#include "document.h"

int hsk_bytes_memfd(const char *name, GBytes *bytes, GError **error)
{
    gsize n = 0;
    const void *data = g_bytes_get_data(bytes, &n);
    HSK_AUTOFD fd = hsk_memfd_new(name, n, error);

    if (fd < 0)
        return -1;
    int r = hsk_pwrite_all(fd, data, n, 0);
    if (r < 0) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_FAILED, "there is not enough memory for the %s: %s",
                    name, g_strerror(-r));
        return -1;
    }
    return hsk_steal_fd(&fd);
}

static bool give_bytes(struct hsk_child *c, const char *name, GBytes *bytes, GError **error)
{
    HSK_AUTOFD fd = bytes ? hsk_bytes_memfd(name, bytes, error) : -1;

    if (fd >= 0)
        hsk_child_give(c, name, fd);
    return !bytes || fd >= 0;
}

static bool give_boot_files(struct hsk_document *d, struct hsk_child *c, GError **error)
{
    struct hsk_boot_files boot = {0};
    bool good = hsk_boot_files_read(d, &boot, error) &&
                give_bytes(c, "kernel", boot.kernel, error) &&
                give_bytes(c, "initrd", boot.initrd, error);

    hsk_boot_files_clear(&boot);
    return good;
}

static json_t *config_message(struct hsk_document *d, const struct hsk_running *r)
{
    const struct hsk_manifest *m = hsk_doc_manifest(d->doc);
    json_t *disks = json_array();

    for (unsigned i = 0; i < m->ndisks; i++)
        json_array_append_new(disks,
                              json_pack("{s:s, s:b, s:I}", "serial", m->disks[i].id, "readonly", 0,
                                        "bytes", (json_int_t)m->disks[i].size_bytes));
    return json_pack(
        "{s:s, s:s, s:s?, s:i, s:I, s:I, s:s, s:s?, s:s, s:o, s:s, s:[I, I], s:I, s:[I, I]}", "cmd",
        "config", "engine", d->engine->name, "cpu", r->cpu ? r->cpu : m->cpu, "ncpus",
        (int)m->ncpus, "memory", (json_int_t)r->memory.obj[0]->size_bytes, "vram",
        (json_int_t)(r->memory.n > 1 ? r->memory.obj[1]->size_bytes : 0), "on_reset", "reset",
        "append", m->cmdline, "kernel_name", "the document's kernel", "disks", disks, "clock",
        d->settings.catch_up ? "catch-up" : "frozen", "generation", (json_int_t)r->generation[0],
        (json_int_t)r->generation[1], "chaos", (json_int_t)hsk_json_int(d->options, "chaos", 0),
        "since", (json_int_t)d->started.tsc, (json_int_t)d->started.ns);
}

void hsk_running_new_generation(struct hsk_running *r)
{
    if (getrandom(r->generation, sizeof(r->generation), 0) != sizeof(r->generation))
        hsk_complain("this computer gives no random numbers, so the machine is not told that it "
                     "went back");
}

void hsk_document_keep_generation(struct hsk_document *d)
{
    g_autoptr(GError) error = NULL;

    if (!hsk_generation_store(hsk_doc_manifest(d->doc)->uuid, hsk_doc_instance(d->doc),
                              d->now.generation, &error))
        hsk_complain(error->message);
}

void hsk_running_ready(struct hsk_running *r, const char *model)
{
    g_free(r->cpu);
    r->cpu =
        g_strndup(model ? model : "",
                  127); /* the process is not trusted: bounded, and only ever given back to one */
}

bool hsk_running_start(struct hsk_document *d, struct hsk_running *r, GBytes *state, GError **error)
{
    r->child = hsk_child_spawn(&hsk_document_child_ops, d, error);
    if (!r->child)
        return false;
    hsk_guest_memory_give(&r->memory, r->child);
    if (state ? !give_bytes(r->child, "state", state, error) : !give_boot_files(d, r->child, error))
        return false;
    if (r->lazy)
        hsk_child_give(r->child, "memory.there", r->there);
    r->disks = hsk_disk_service_new(d->doc, r->child, error);
    if (!r->disks)
        return false;
    if (hsk_serial_in_fd(d->serial) >= 0)
        hsk_child_give(r->child, "serial.in", hsk_serial_in_fd(d->serial));
    if (hsk_serial_out_fd(d->serial) >= 0)
        hsk_child_give(r->child, "serial.out", hsk_serial_out_fd(d->serial));
    hsk_child_send(r->child, config_message(d, r), -1);
    return true;
}

void hsk_running_clear(struct hsk_running *r)
{
    g_clear_pointer(&r->child, hsk_child_free);
    hsk_running_forget_memory(r);
    g_clear_pointer(&r->disks, hsk_disk_service_free);
    g_clear_pointer(&r->cpu, g_free);
    hsk_guest_memory_clear(&r->memory);
}

void hsk_document_trouble(struct hsk_document *d, const char *text)
{
    d->want_run = false;
    g_free(d->trouble);
    d->trouble = g_strdup(text);
    hsk_complain(text);
    hsk_document_tell_state(d);
}

static void disk_trouble(struct hsk_document *d, const json_t *body)
{
    int64_t disk = hsk_json_int(body, "disk", -1), err = hsk_json_int(body, "errno", EIO);
    const struct hsk_manifest *m = hsk_doc_manifest(d->doc);
    const char *id = disk >= 0 && disk < m->ndisks ? m->disks[disk].id : "?";
    const char *known =
        disk >= 0 && disk < m->ndisks ? hsk_disk_error(hsk_doc_disk(d->doc, (unsigned)disk)) : NULL;
    g_autofree char *text = NULL;

    if (err == ENOSPC || err == EDQUOT)
        text = g_strdup_printf("the computer's disk is full, so the machine is paused and nothing "
                               "is lost; free some space, then resume it");
    else
        text = g_strdup_printf("the machine is paused, because its disk \"%s\" cannot be used: %s",
                               id, known ? known : g_strerror((int)err));
    hsk_document_trouble(d, text);
}

static void machine_ready(struct hsk_document *d)
{
    if (d->broken)
        return;
    if (d->engine_note)
        hsk_complain(d->engine_note);
    d->want_run = true;
    hsk_child_tell(d->now.child, "run");
    hsk_document_tell_state(d);
}

static void message(void *opaque, struct hsk_child *c, const json_t *body, int *fd)
{
    struct hsk_document *d = opaque;
    const char *event = hsk_json_str(body, "event", "");
    const char *text = hsk_json_str(body, "text", NULL);

    if (d->op && c == d->op->next.child) {
        hsk_revert_message(d->op, event, body);
        return;
    }
    if (strcmp(event, "run") == 0 && !d->start_ms)
        d->start_ms = (double)g_get_monotonic_time() / 1000 - (double)d->started.ns / 1e6;
    if (strcmp(event, "memory") == 0) {
        hsk_running_memory(d, body, fd);
    } else if (strcmp(event, "boot-files") == 0) {
        hsk_op_queue(hsk_op_new(d, HSK_OP_BOOT_FILES, NULL, NULL, NULL));
    } else if (strcmp(event, "ready") == 0) {
        hsk_running_ready(&d->now, text);
        machine_ready(d);
    } else if (strcmp(event, "failed") == 0) {
        hsk_complain(text ? text : "the machine did not start and did not say why");
        hsk_document_end(d, 1);
    } else if (strcmp(event, "screenshot") == 0) {
        hsk_screenshot_message(d, body, *fd);
    } else if (strcmp(event, "activity") == 0) {
        hsk_timeline_message(d->timeline, body);
    } else if (strcmp(event, "poweroff") == 0) {
        hsk_op_queue(hsk_op_new(d, HSK_OP_OFF, NULL, NULL, NULL));
    } else if (strcmp(event, "error") == 0) {
        hsk_document_trouble(d, text ? text : "the machine stopped and did not say why");
    } else if (strcmp(event, "disk-trouble") == 0) {
        disk_trouble(d, body);
    } else if (d->op) {
        hsk_take_message(d->op, event, body, *fd);
    }
}

static void ended(void *opaque, struct hsk_child *c, const char *how)
{
    struct hsk_document *d = opaque;

    if (d->op && c == d->op->next.child) {
        json_t *body = json_pack("{s:s}", "text", how);
        hsk_revert_message(d->op, "ended", body);
        json_decref(body);
        return;
    }
    if (d->ending)
        return;
    const json_t *last = NULL, *v;
    size_t i;
    json_array_foreach(d->versions, i, v)
    {
        if (strcmp(hsk_json_str(v, "kind", ""), "user") == 0)
            last = v;
    }
    g_autofree char *text = last ? g_strdup_printf("the machine process %s; everything saved is "
                                                   "kept, and the newest snapshot is \"%s\"",
                                                   how, hsk_json_str(last, "title", ""))
                                 : g_strdup_printf("the machine process %s; its disks are kept, "
                                                   "but it has no snapshot to go back to",
                                                   how);
    hsk_complain(text);
    hsk_screenshots_refuse(d, text);
    hsk_control_broadcast(d->control,
                          json_pack("{s:s, s:s}", "event", "machine-died", "text", text));
    hsk_document_end(d, 1);
}

const struct hsk_child_ops hsk_document_child_ops = {.message = message, .ended = ended};
