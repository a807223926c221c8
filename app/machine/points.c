/* SPDX-License-Identifier: MIT */
/*
 * The machine's part in takes and in going back. Commands:
 *
 * - point {name, passing, go_on}: now is a point (vmm/near.h) with that number. The disks' mark
 * goes to the keeper between their requests, so nobody waits for it. go_on: the machine runs again
 * as soon as its state is saved; else it stays stopped. Answers "point" with the state in the
 *   descriptor, its size in "bytes", the "way" to the point's pages, where the "picture" is in the
 *   display's memory, and "paused_us"; or "text": why not.
 * - collect {name}: without near versions, so that little is left to copy at the point: what is
 *   dirty is to be copied now, while the guest runs (HSK_PAGE_GATHERED). Answers "collected".
 * - release {failed}: the keeper has stored the point, or could not; not answered
 * - go-back {name, to, generation}: stops, point name, and the machine becomes what it was at point
 * to; stays stopped. Answers "back" ("near": false: that point is not kept and nothing was done but
 * the point; "text": why it cannot be resumed, it is as at the new point), then "point" as above.
 *
 * - become {name, state, generation}: at a point, stopped: the machine becomes another version. The
 *   descriptor has the pages that differ and a state of that many bytes (common/contents.h); what
 *   the pages were until then takes their place. Answers "back" with the new "way" to the point, or
 *   "text": why not, it is as it was at the point.
 * - return {to}: after one of these two and before it runs: back to that point; not answered
 *
 * Without near versions (KVM) the keeper looks at the attributes.
 *
 * Thread: loop thread.
 */
#include "runner.h"

#define BUDGET 4 /* near versions may have one part in so many of memory */

static int64_t now_us(void)
{
    return g_get_monotonic_time();
}

void hsk_runner_ran(struct hsk_runner *r)
{
    json_t *body = json_pack("{s:s}", "event", "run");

    if (r->stopped_us)
        json_object_set_new(body, "paused_us", json_integer(now_us() - r->stopped_us));
    r->stopped_us = 0;
    hsk_runner_keep_contents(r, NULL);
    g_clear_pointer(&r->point_state, g_bytes_unref);
    hsk_runner_tell(r, body, -1);
}

/* ---- room ---- */

/* A little at a time: timers wait meanwhile. */
static void trim(void *opaque)
{
    struct hsk_runner *r = opaque;

    if (hsk_near_trim(r->near))
        hsk_loop_call(hsk_machine_loop(r->machine), trim, r);
}

static void trim_soon(void *opaque)
{
    struct hsk_runner *r = opaque;

    hsk_loop_call(hsk_machine_loop(r->machine), trim, r);
}

bool hsk_runner_near(struct hsk_runner *r, GError **error)
{
    struct hsk_memobj *objects[HSK_NEAR_OBJECTS] = {hsk_machine_memobj(r->machine, "ram"),
                                                    hsk_machine_memobj(r->machine, "vram")};
    int index = hsk_runner_take_fd(r, "near"), slots = hsk_runner_take_fd(r, "near.slots");

    if (index < 0 || slots < 0)
        return true;
    r->near = hsk_near_new(objects, objects[1] ? 2 : 1, index, slots,
                           objects[0]->size_bytes / HSK_PAGE_SIZE / BUDGET, error);
    if (r->near)
        hsk_near_set_full(r->near, trim_soon, r);
    return r->near;
}

/* ---- points ---- */

static void gather(void *opaque)
{
    struct hsk_runner *r = opaque;
    struct hsk_engine *e = hsk_machine_engine(r->machine);

    for (unsigned i = 0; i < HSK_NEAR_OBJECTS; i++) {
        struct hsk_memobj *obj = hsk_machine_memobj(r->machine, i ? "vram" : "ram");
        if (obj)
            hsk_memobj_gather(obj);
    }
    e->ops->flush(e, HSK_FLUSH_WRITES);
}

void hsk_runner_collect(struct hsk_runner *r, struct hsk_wire_msg *msg)
{
    struct hsk_engine *e = hsk_machine_engine(r->machine);

    /* The long part needs no stop. */
    e->ops->dirty_sync(e);
    hsk_machine_at_safe_point(r->machine, gather, r);
    hsk_runner_tell(r,
                    json_pack("{s:s, s:I}", "event", "collected", "name",
                              (json_int_t)hsk_json_int(msg->body, "name", 0)),
                    -1);
}

static bool disk_waits(struct hsk_runner *r, const char *event, uint64_t name)
{
    if (!r->disks || !hsk_keeper_disks_parked(r->disks))
        return false;
    hsk_runner_tell(
        r,
        json_pack("{s:s, s:I, s:s}", "event", event, "name", (json_int_t)name, "text",
                  "a disk request is waiting; clear the trouble and resume the machine first"),
        -1);
    return true;
}

/* Stopped or frozen. */
static GBytes *make_point(struct hsk_runner *r, uint64_t name, bool passing)
{
    struct hsk_engine *e = hsk_machine_engine(r->machine);

    if (r->disks)
        hsk_keeper_disks_mark(r->disks, name);
    e->ops->dirty_sync(e);
    if (r->near) {
        hsk_near_point(r->near, name, passing);
        e->ops->flush(e, HSK_FLUSH_WRITES);
    }
    GBytes *state = hsk_machine_save(r->machine);
    if (r->near)
        hsk_near_set_state(r->near, state);
    r->point = name;
    g_clear_pointer(&r->point_state, g_bytes_unref);
    r->point_state = g_bytes_ref(state);
    return state;
}

static json_t *picture(struct hsk_runner *r)
{
    struct hsk_scanout so;

    if (!hsk_machine_scanout(r->machine, &so))
        return json_null();
    return json_pack("{s:I, s:I, s:I, s:I, s:b}", "offset", (json_int_t)so.offset, "width",
                     (json_int_t)so.width, "height", (json_int_t)so.height, "stride",
                     (json_int_t)so.stride_bytes, "blank", so.blank);
}

json_t *hsk_runner_way(struct hsk_runner *r)
{
    uint32_t layers[HSK_NEAR_POINTS];
    unsigned n = r->near ? hsk_near_way(r->near, r->point, layers) : 0;
    json_t *list = json_array();

    for (unsigned i = 0; i < n; i++)
        json_array_append_new(list, json_integer(layers[i]));
    return list;
}

/* The way to the point's pages is told when the keeper may begin to read: going back changes it. */
static void tell_point(struct hsk_runner *r, GBytes *state, json_t *shown, int64_t paused_us)
{
    hsk_runner_tell_bytes(r, "point", state,
                          json_pack("{s:I, s:o, s:o, s:I}", "name", (json_int_t)r->point, "way",
                                    hsk_runner_way(r), "picture", shown, "paused_us",
                                    (json_int_t)paused_us));
}

void hsk_runner_point(struct hsk_runner *r, struct hsk_wire_msg *msg)
{
    const bool go_on = hsk_json_bool(msg->body, "go_on");
    const uint64_t name = (uint64_t)hsk_json_int(msg->body, "name", 0);
    const int64_t began = now_us();

    if (go_on)
        hsk_machine_freeze(r->machine);
    else
        hsk_machine_stop(r->machine);
    if (disk_waits(r, "point", name)) {
        hsk_machine_thaw(r->machine);
        return;
    }
    g_autoptr(GBytes) state = make_point(r, name, hsk_json_bool(msg->body, "passing"));
    json_t *shown = picture(r);
    hsk_machine_thaw(r->machine);
    const int64_t paused = now_us() - began;
    if (go_on) {
        g_clear_pointer(&r->point_state, g_bytes_unref);
    } else {
        r->stopped_us = began;
        hsk_screen_running(r->screen, false);
    }
    tell_point(r, state, shown, paused);
    if (r->near)
        trim_soon(r);
}

void hsk_runner_release(struct hsk_runner *r, struct hsk_wire_msg *msg)
{
    if (!r->near)
        return;
    hsk_near_release(r->near, hsk_json_bool(msg->body, "failed"));
    trim_soon(r);
}

/* ---- going back ---- */

void hsk_runner_changed(void *opaque, struct hsk_memobj *obj, uint64_t page)
{
    struct hsk_runner *r = opaque;

    hsk_ram_written(hsk_machine_ram(r->machine), obj, page << HSK_PAGE_SHIFT, HSK_PAGE_SIZE);
}

/* Memory and devices. */
static bool become(struct hsk_runner *r, uint64_t point, GError **error)
{
    g_autoptr(GBytes) state = g_bytes_ref(hsk_near_state(r->near, point));

    hsk_near_go_back(r->near, point, hsk_runner_changed, r);
    return hsk_machine_load_again(r->machine, state, error);
}

void hsk_runner_tell_back(struct hsk_runner *r, bool near, const char *text)
{
    hsk_runner_tell(r,
                    json_pack("{s:s, s:b, s:s?, s:o}", "event", "back", "near", near, "text", text,
                              "way", hsk_runner_way(r)),
                    -1);
}

static void go_to(struct hsk_runner *r, uint64_t from, uint64_t to)
{
    g_autoptr(GError) error = NULL;

    if (!hsk_near_state(r->near, to)) {
        hsk_runner_tell_back(r, false, NULL);
        return;
    }
    r->loaded = true;
    if (become(r, to, &error)) {
        if (r->has_generation)
            hsk_machine_set_generation(r->machine, r->generation);
        hsk_runner_tell_back(r, true, NULL);
        return;
    }
    GError *again = NULL;
    if (!become(r, from, &again)) {
        hsk_runner_tell_text(r, "error", again->message);
        g_error_free(again);
    }
    hsk_runner_tell_back(r, true, error->message);
}

void hsk_runner_go_back(struct hsk_runner *r, struct hsk_wire_msg *msg)
{
    const uint64_t to = (uint64_t)hsk_json_int(msg->body, "to", 0),
                   name = (uint64_t)hsk_json_int(msg->body, "name", 0);

    if (!r->near)
        return;
    r->stopped_us = now_us();
    hsk_machine_stop(r->machine);
    if (disk_waits(r, "back", name))
        return;
    hsk_runner_read_generation(r, json_object_get(msg->body, "generation"));
    g_autoptr(GBytes) state = make_point(r, name, false);
    json_t *shown = picture(r);
    go_to(r, name, to);
    tell_point(r, state, shown, 0);
    trim_soon(r);
}

void hsk_runner_return(struct hsk_runner *r, struct hsk_wire_msg *msg)
{
    const uint64_t to = (uint64_t)hsk_json_int(msg->body, "to", 0);
    g_autoptr(GError) error = NULL;

    if (hsk_machine_running(r->machine) || to != r->point)
        return;
    bool good = r->contents ? hsk_runner_unbecome(r, &error)
                            : r->near && hsk_near_state(r->near, to) && become(r, to, &error);
    if (!good)
        hsk_runner_tell_text(r, "error",
                             error ? error->message : "what the machine was is not kept any more");
}
