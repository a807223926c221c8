/* SPDX-License-Identifier: MIT */
/*
 * The commands of the control socket (docs/control.md). What needs the store becomes an operation
 * (ops.c); the rest is answered at once. Thread: main.
 */
#include <display/keymap.h>

#include <unistd.h>

#include "document.h"

#define MAX_TYPED   4096
#define MAX_STROKES 16384
#define STROKE_MS   5

/* Who waits for a screenshot; the machine answers in the order it was asked. */
struct hsk_screenshot {
    struct hsk_conn *conn;
    json_t *id;
};

static void refuse(struct hsk_conn *c, const json_t *id, int code, const char *text)
{
    g_autoptr(GError) error = g_error_new_literal(HSK_ERROR, code, text);
    hsk_conn_refuse(c, id, error);
}

static void screenshot_free(struct hsk_screenshot *s)
{
    hsk_conn_unref(s->conn);
    json_decref(s->id);
    g_free(s);
}

void hsk_screenshot_message(struct hsk_document *d, const json_t *body, int fd)
{
    struct hsk_screenshot *s = g_queue_pop_head(&d->screenshots);
    g_autoptr(GError) error = NULL;

    if (!s)
        return;
    g_autoptr(GBytes) png = hsk_message_bytes(body, fd, &error);
    if (png) {
        gsize n = 0;
        const void *data = g_bytes_get_data(png, &n);
        g_autofree char *text = g_base64_encode(data, n);
        hsk_conn_reply(s->conn, s->id, json_pack("{s:s}", "png", text));
    } else {
        hsk_conn_refuse(s->conn, s->id, error);
    }
    screenshot_free(s);
}

void hsk_screenshots_refuse(struct hsk_document *d, const char *why)
{
    for (struct hsk_screenshot *s; (s = g_queue_pop_head(&d->screenshots));) {
        refuse(s->conn, s->id, HSK_ERROR_FAILED, why);
        screenshot_free(s);
    }
}

static void queue_op(struct hsk_document *d, enum hsk_op_kind kind, struct hsk_conn *c,
                     const json_t *q, const char *arg)
{
    struct hsk_op *op = hsk_op_new(d, kind, c, json_object_get(q, "id"), arg);

    op->wait = hsk_json_bool(q, "wait");
    hsk_op_queue(op);
}

static void ok(struct hsk_conn *c, const json_t *q)
{
    hsk_conn_reply(c, json_object_get(q, "id"), NULL);
}

static void cmd_info(struct hsk_document *d, struct hsk_conn *c, const json_t *q)
{
    hsk_conn_reply(c, json_object_get(q, "id"), hsk_document_info(d));
}

static void cmd_subscribe(struct hsk_document *d, struct hsk_conn *c, const json_t *q)
{
    hsk_conn_subscribe(c);
    cmd_info(d, c, q);
}

static void cmd_snapshot(struct hsk_document *d, struct hsk_conn *c, const json_t *q)
{
    queue_op(d, HSK_OP_SNAPSHOT, c, q, hsk_json_str(q, "title", NULL));
}

static void cmd_log(struct hsk_document *d, struct hsk_conn *c, const json_t *q)
{
    if (hsk_json_bool(q, "sizes")) {
        queue_op(d, HSK_OP_SIZES, c, q, NULL);
        return;
    }
    const char *current = d->in_job ? "" : hsk_doc_current(d->doc);
    hsk_conn_reply(c, json_object_get(q, "id"),
                   json_pack("{s:O, s:s}", "versions", d->versions, "current", current));
}

static void cmd_revert(struct hsk_document *d, struct hsk_conn *c, const json_t *q)
{
    struct hsk_op *op =
        hsk_op_new(d, HSK_OP_REVERT, c, json_object_get(q, "id"), hsk_json_str(q, "to", NULL));

    op->at = hsk_json_int(q, "at", 0);
    hsk_op_queue(op);
}

static void cmd_undo(struct hsk_document *d, struct hsk_conn *c, const json_t *q)
{
    queue_op(d, HSK_OP_UNDO, c, q, NULL);
}

static const char *needed_version(struct hsk_conn *c, const json_t *q)
{
    const char *version = hsk_json_str(q, "version", NULL);

    if (!version)
        refuse(c, json_object_get(q, "id"), HSK_ERROR_USAGE,
               "which version? \"version\" is missing");
    return version;
}

/* drop, rename, pin, unpin, keep */
static void cmd_edit(struct hsk_document *d, struct hsk_conn *c, const json_t *q)
{
    const char *version = needed_version(c, q);

    if (!version)
        return;
    struct hsk_op *op = hsk_op_new(d, HSK_OP_EDIT, c, json_object_get(q, "id"), version);
    op->verb = g_intern_string(hsk_json_str(q, "cmd", ""));
    op->words = g_strdup(hsk_json_str(q, "title", NULL));
    op->force = hsk_json_bool(q, "force");
    hsk_op_queue(op);
}

static void cmd_picture(struct hsk_document *d, struct hsk_conn *c, const json_t *q)
{
    const char *version = needed_version(c, q);

    if (version)
        queue_op(d, HSK_OP_PICTURE, c, q, version);
}

/* clone, save-as */
static void cmd_copy(struct hsk_document *d, struct hsk_conn *c, const json_t *q)
{
    const char *out = hsk_json_str(q, "out", NULL);

    if (!out || !g_path_is_absolute(out)) {
        refuse(c, json_object_get(q, "id"), HSK_ERROR_USAGE,
               "where to? \"out\" is the absolute path of the new document");
        return;
    }
    bool clone = strcmp(hsk_json_str(q, "cmd", ""), "clone") == 0;
    struct hsk_op *op = hsk_op_new(d, clone ? HSK_OP_CLONE : HSK_OP_SAVE_AS, c,
                                   json_object_get(q, "id"), hsk_json_str(q, "version", NULL));
    op->out = g_strdup(out);
    hsk_op_queue(op);
}

/* While an operation holds the machine still, want_run says what happens at its end. */
static void cmd_pause(struct hsk_document *d, struct hsk_conn *c, const json_t *q)
{
    d->want_run = false;
    hsk_child_tell(d->now.child, "stop");
    hsk_document_tell_state(d);
    ok(c, q);
}

static bool held_still(const struct hsk_document *d)
{
    return d->op && d->op->held;
}

static void cmd_resume(struct hsk_document *d, struct hsk_conn *c, const json_t *q)
{
    d->want_run = true;
    g_clear_pointer(&d->trouble, g_free);
    if (!held_still(d))
        hsk_child_tell(d->now.child, "run");
    hsk_document_tell_state(d);
    ok(c, q);
}

static void cmd_reset(struct hsk_document *d, struct hsk_conn *c, const json_t *q)
{
    if (held_still(d)) {
        refuse(c, json_object_get(q, "id"), HSK_ERROR_BUSY,
               "the machine is just being saved or reverted; try again in a moment");
        return;
    }
    d->want_run = true;
    g_clear_pointer(&d->trouble, g_free);
    hsk_child_tell(d->now.child, "reset");
    hsk_document_tell_state(d);
    ok(c, q);
}

static void cmd_power(struct hsk_document *d, struct hsk_conn *c, const json_t *q)
{
    hsk_child_tell(d->now.child, "power");
    ok(c, q);
}

static void cmd_stop(struct hsk_document *d, struct hsk_conn *c, const json_t *q)
{
    queue_op(d, hsk_json_bool(q, "force") ? HSK_OP_OFF : HSK_OP_STOP, c, q, NULL);
}

static void cmd_screenshot(struct hsk_document *d, struct hsk_conn *c, const json_t *q)
{
    struct hsk_screenshot *s = g_new0(struct hsk_screenshot, 1);

    s->conn = hsk_conn_ref(c);
    s->id = json_deep_copy(json_object_get(q, "id"));
    g_queue_push_tail(&d->screenshots, s);
    if (!hsk_child_tell(d->now.child, "screenshot"))
        hsk_screenshots_refuse(d, "the machine process does not answer");
}

/* ---- typing: a keyboard sends one key after the other, and no guest takes a page of them at once
 * ---- */

struct hsk_stroke {
    uint16_t code;
    bool down;
    struct hsk_conn *conn; /* not a key but the end of a request: answer it */
    json_t *id;
};

static void stroke_free(struct hsk_stroke *k)
{
    hsk_conn_unref(k->conn);
    json_decref(k->id);
    g_free(k);
}

static gboolean next_stroke(gpointer opaque)
{
    struct hsk_document *d = opaque;
    struct hsk_stroke *k = g_queue_pop_head(&d->strokes);

    if (!k) {
        d->strokes_source = 0;
        return G_SOURCE_REMOVE;
    }
    if (k->conn)
        hsk_conn_reply(k->conn, k->id, NULL);
    else
        hsk_child_send(
            d->now.child,
            json_pack("{s:s, s:i, s:b}", "cmd", "key", "code", (int)k->code, "down", k->down), -1);
    stroke_free(k);
    return G_SOURCE_CONTINUE;
}

void hsk_strokes_clear(struct hsk_document *d)
{
    g_clear_handle_id(&d->strokes_source, g_source_remove);
    g_queue_clear_full(&d->strokes, (GDestroyNotify)stroke_free);
}

static void push_stroke(struct hsk_document *d, struct hsk_stroke stroke)
{
    struct hsk_stroke *k = g_new(struct hsk_stroke, 1);

    *k = stroke;
    g_queue_push_tail(&d->strokes, k);
    if (!d->strokes_source)
        d->strokes_source = g_timeout_add(STROKE_MS, next_stroke, d);
}

static void send_key(struct hsk_document *d, uint16_t code, bool down)
{
    push_stroke(d, (struct hsk_stroke){.code = code, .down = down});
}

/* Answers when all keys before it are sent. */
static void ok_when_typed(struct hsk_document *d, struct hsk_conn *c, const json_t *q)
{
    push_stroke(d, (struct hsk_stroke){.conn = hsk_conn_ref(c),
                                       .id = json_deep_copy(json_object_get(q, "id"))});
}

static bool keyboard_busy(struct hsk_document *d, struct hsk_conn *c, const json_t *q)
{
    if (g_queue_get_length(&d->strokes) < MAX_STROKES)
        return false;
    refuse(c, json_object_get(q, "id"), HSK_ERROR_BUSY,
           "too much is still being typed; try again in a moment");
    return true;
}

static void cmd_key(struct hsk_document *d, struct hsk_conn *c, const json_t *q)
{
    const json_t *list = json_object_get(q, "keys"), *v;
    size_t i;

    if (keyboard_busy(d, c, q))
        return;
    json_array_foreach(list, i, v)
    {
        uint16_t codes[8];
        const char *name = json_string_value(v);
        unsigned n = name ? hsk_key_combo(name, codes, G_N_ELEMENTS(codes)) : 0;

        if (n == 0) {
            g_autofree char *text = g_strdup_printf(
                "there is no key \"%s\"; names are like ctrl+alt+delete, f5, a", name ? name : "");
            refuse(c, json_object_get(q, "id"), HSK_ERROR_USAGE, text);
            return;
        }
        for (unsigned k = 0; k < n; k++)
            send_key(d, codes[k], true);
        for (unsigned k = n; k > 0; k--)
            send_key(d, codes[k - 1], false);
    }
    ok_when_typed(d, c, q);
}

static void type_char(struct hsk_document *d, const struct hsk_keystroke *k)
{
    const uint16_t shift = hsk_key_from_name("shift");

    if (k->shift)
        send_key(d, shift, true);
    send_key(d, k->code, true);
    send_key(d, k->code, false);
    if (k->shift)
        send_key(d, shift, false);
}

static void cmd_type(struct hsk_document *d, struct hsk_conn *c, const json_t *q)
{
    const char *text = hsk_json_str(q, "text", "");
    struct hsk_keystroke k;

    if (keyboard_busy(d, c, q))
        return;
    if (strlen(text) > MAX_TYPED) {
        refuse(c, json_object_get(q, "id"), HSK_ERROR_USAGE,
               "that is too long to be typed at once");
        return;
    }
    for (const char *p = text; *p; p = g_utf8_next_char(p)) {
        if (!hsk_key_from_char(g_utf8_get_char(p), &k)) {
            g_autofree char *why =
                g_strdup_printf("the US keyboard has no key for \"%.*s\", so nothing was typed",
                                (int)(g_utf8_next_char(p) - p), p);
            refuse(c, json_object_get(q, "id"), HSK_ERROR_USAGE, why);
            return;
        }
    }
    for (const char *p = text; *p; p = g_utf8_next_char(p)) {
        if (hsk_key_from_char(g_utf8_get_char(p), &k))
            type_char(d, &k);
    }
    ok_when_typed(d, c, q);
}

static void cmd_mouse(struct hsk_document *d, struct hsk_conn *c, const json_t *q)
{
    static const char *const names[] = {"left", "right", "middle"};
    const char *button = hsk_json_str(q, "button", NULL);
    int64_t x = hsk_json_int(q, "x", -1), y = hsk_json_int(q, "y", -1);
    int bits = 0;

    for (unsigned i = 0; button && i < G_N_ELEMENTS(names); i++) {
        if (strcmp(button, names[i]) == 0)
            bits = 1 << i;
    }
    if (x < 0 || y < 0 || (button && !bits)) {
        refuse(c, json_object_get(q, "id"), HSK_ERROR_USAGE,
               "mouse takes x and y in pixels, and a button: left, right or middle");
        return;
    }
    /* Move there; with a button: press and release it. */
    const int presses[] = {0, bits, 0};
    for (unsigned i = 0; i < (bits ? 3u : 1u); i++)
        hsk_child_send(d->now.child,
                       json_pack("{s:s, s:I, s:I, s:i}", "cmd", "pointer", "x", (json_int_t)x, "y",
                                 (json_int_t)y, "buttons", presses[i]),
                       -1);
    ok(c, q);
}

static void cmd_timeline(struct hsk_document *d, struct hsk_conn *c, const json_t *q)
{
    if (hsk_json_bool(q, "purge"))
        queue_op(d, HSK_OP_PURGE, c, q, NULL);
    else
        hsk_timeline_command(d, c, q);
}

/* Without "policy": only tells. */
static void cmd_clock(struct hsk_document *d, struct hsk_conn *c, const json_t *q)
{
    const char *policy = hsk_json_str(q, "policy", NULL);
    const json_t *id = json_object_get(q, "id");
    g_autoptr(GError) error = NULL;

    if (policy && strcmp(policy, "catch-up") != 0 && strcmp(policy, "frozen") != 0) {
        refuse(c, id, HSK_ERROR_USAGE, "the clock can be catch-up or frozen");
        return;
    }
    if (policy) {
        d->settings.catch_up = strcmp(policy, "catch-up") == 0;
        if (!hsk_settings_store(hsk_doc_manifest(d->doc)->uuid, &d->settings, &error)) {
            hsk_conn_refuse(c, id, error);
            return;
        }
        hsk_child_send(d->now.child, json_pack("{s:s, s:s}", "cmd", "clock", "policy", policy), -1);
    }
    hsk_conn_reply(c, id,
                   json_pack("{s:s}", "clock", d->settings.catch_up ? "catch-up" : "frozen"));
}

static void cmd_console(struct hsk_document *d, struct hsk_conn *c, const json_t *q)
{
    struct hsk_conn *held = hsk_conn_ref(c);

    ok(c, q);
    int fd = hsk_conn_steal(c);
    if (fd >= 0)
        hsk_serial_attach(d->serial, fd);
    hsk_conn_unref(held);
}

static void request(void *opaque, struct hsk_conn *c, const json_t *body)
{
    static const struct {
        const char *name;
        void (*fn)(struct hsk_document *d, struct hsk_conn *c, const json_t *q);
        bool machine; /* it must answer, or do something */
    } table[] = {
        {"info", cmd_info, false},        {"subscribe", cmd_subscribe, false},
        {"snapshot", cmd_snapshot, true}, {"log", cmd_log, false},
        {"revert", cmd_revert, true},     {"undo", cmd_undo, true},
        {"drop", cmd_edit, false},        {"picture", cmd_picture, false},
        {"rename", cmd_edit, false},      {"keep", cmd_edit, false},
        {"pin", cmd_edit, false},         {"unpin", cmd_edit, false},
        {"pause", cmd_pause, true},       {"resume", cmd_resume, true},
        {"reset", cmd_reset, true},       {"power", cmd_power, true},
        {"clone", cmd_copy, false},       {"save-as", cmd_copy, false},
        {"stop", cmd_stop, false},        {"screenshot", cmd_screenshot, true},
        {"key", cmd_key, true},           {"type", cmd_type, true},
        {"mouse", cmd_mouse, true},       {"console", cmd_console, false},
        {"clock", cmd_clock, false},      {"timeline", cmd_timeline, false},
    };
    struct hsk_document *d = opaque;
    const char *cmd = hsk_json_str(body, "cmd", "");

    for (unsigned i = 0; i < G_N_ELEMENTS(table); i++) {
        if (strcmp(table[i].name, cmd) != 0)
            continue;
        if (table[i].machine && d->broken)
            refuse(c, json_object_get(body, "id"), HSK_ERROR_DAMAGED, d->trouble);
        else
            table[i].fn(d, c, body);
        return;
    }
    refuse(c, json_object_get(body, "id"), HSK_ERROR_USAGE,
           "there is no such command; docs/control.md lists them");
}

static void display(void *opaque, int fd)
{
    struct hsk_document *d = opaque;

    if (d->now.child)
        hsk_child_send(d->now.child, json_pack("{s:s}", "cmd", "display"), fd);
    close(fd);
}

/* Nobody wants a copy that nobody waits for. */
static void closed(void *opaque, const struct hsk_conn *c)
{
    hsk_op_cancel_copies(opaque, c);
}

const struct hsk_control_ops hsk_document_control_ops = {
    .request = request, .display = display, .closed = closed};
