/* SPDX-License-Identifier: MIT */
/* The window's end of the control socket (docs/control.md): one JSON object per line. GTK thread
 * only, never blocks. */
#pragma once

#include <base/util.h>

#include <jansson.h>

struct hsk_control;

struct hsk_control_ops {
    /* Something nobody asked for: an object with a string "event". */
    void (*event)(void *opaque, const char *name, json_t *object);
    /* The keeper went away, or spoke nonsense (why is a sentence then, else NULL). May free the
     * control. */
    void (*closed)(void *opaque, const char *why);
};

/* reply: the whole object, borrowed, NULL on failure; then error is one sentence. Not called after
 * free. */
typedef void (*hsk_control_reply_fn)(void *opaque, json_t *reply, const char *error);

/* NULL with error set if nobody listens in the instance's folder. */
struct hsk_control *hsk_control_new(const char *instance_dir, const struct hsk_control_ops *ops,
                                    void *opaque, GError **error);
void hsk_control_free(struct hsk_control *c);
/* Takes args (an object, or NULL). fn may be NULL. */
void hsk_control_call(struct hsk_control *c, const char *cmd, json_t *args, hsk_control_reply_fn fn,
                      void *opaque);
