/* SPDX-License-Identifier: MIT */
/*
 * The machine becomes another version, with pages and a state that the keeper has out of the store
 * (points.c: become, return). Memory's pages and the keeper's change places, so that the way back
 * is the same. Thread: loop thread.
 */
#include "common/contents.h"
#include "runner.h"

#define AT_ONCE 16 /* pages: they stay in the cache */

struct hsk_contents {
    int fd;
    struct hsk_near_layout layout;
    uint8_t *bitmap;
    GBytes *state;
};

static void contents_free(struct hsk_contents *c)
{
    g_clear_pointer(&c->state, g_bytes_unref);
    close(c->fd);
    g_free(c->bitmap);
    g_free(c);
}

void hsk_runner_keep_contents(struct hsk_runner *r, struct hsk_contents *c)
{
    if (r->contents)
        contents_free(r->contents);
    r->contents = c;
}

static unsigned objects_of(struct hsk_runner *r, struct hsk_memobj *objects[HSK_NEAR_OBJECTS])
{
    objects[0] = hsk_machine_memobj(r->machine, "ram");
    objects[1] = hsk_machine_memobj(r->machine, "vram");
    return objects[1] ? 2 : 1;
}

/* Takes the message's descriptor apart; NULL: it cannot be. */
static struct hsk_contents *open_contents(struct hsk_runner *r, struct hsk_wire_msg *msg)
{
    const uint64_t n = (uint64_t)hsk_json_int(msg->body, "state", -1);
    struct hsk_memobj *objects[HSK_NEAR_OBJECTS];
    const unsigned nobjects = objects_of(r, objects);
    uint64_t sizes[HSK_NEAR_OBJECTS] = {objects[0]->size_bytes,
                                        nobjects > 1 ? objects[1]->size_bytes : 0};

    if (msg->fd < 0 || n > HSK_CONTENTS_STATE)
        return NULL;
    struct hsk_contents *c = g_new0(struct hsk_contents, 1);
    c->fd = hsk_steal_fd(&msg->fd);
    hsk_near_layout(&c->layout, sizes, nobjects);
    c->bitmap = g_malloc(c->layout.total / 8);
    uint8_t *state = g_malloc(MAX(n, 1));
    int r1 = hsk_pread_all(c->fd, c->bitmap, c->layout.total / 8, hsk_contents_bitmap(&c->layout)),
        r2 = hsk_pread_all(c->fd, state, n, hsk_contents_state(&c->layout));
    c->state = g_bytes_new_take(state, n);
    if (r1 == 0 && r2 == 0)
        return c;
    contents_free(c);
    return NULL;
}

static bool has_page(const struct hsk_contents *c, uint64_t number)
{
    return c->bitmap[number / 8] >> number % 8 & 1;
}

/* Memory's pages and those of the descriptor change places. No system call is given guest memory:
 * it may be missing (faults.c). The descriptor has all of its pages, so none can fail. */
static void exchange_run(struct hsk_runner *r, const struct hsk_contents *c, struct hsk_memobj *obj,
                         uint64_t page, uint64_t n, uint64_t at)
{
    uint8_t old[AT_ONCE * HSK_PAGE_SIZE], new[AT_ONCE * HSK_PAGE_SIZE];
    uint8_t *host = obj->host + page * HSK_PAGE_SIZE;

    for (uint64_t k = 0; k < n; k++)
        hsk_memobj_will_write(obj, page + k);
    memcpy(old, host, n * HSK_PAGE_SIZE);
    hsk_assert(hsk_pread_all(c->fd, new, n * HSK_PAGE_SIZE, at) == 0 &&
               hsk_pwrite_all(c->fd, old, n * HSK_PAGE_SIZE, at) == 0);
    memcpy(host, new, n * HSK_PAGE_SIZE);
    for (uint64_t k = 0; k < n; k++)
        hsk_runner_changed(r, obj, page + k);
}

static void exchange(struct hsk_runner *r, const struct hsk_contents *c)
{
    struct hsk_memobj *objects[HSK_NEAR_OBJECTS];
    const unsigned nobjects = objects_of(r, objects);

    for (unsigned i = 0; i < nobjects; i++) {
        const uint64_t first = c->layout.first[i], end = first + c->layout.pages[i];

        for (uint64_t number = first, n; number < end; number += n) {
            n = number % 8 == 0 && !c->bitmap[number / 8] ? 8 : 1;
            if (!has_page(c, number))
                continue;
            while (n < AT_ONCE && number + n < end && has_page(c, number + n))
                n++;
            exchange_run(r, c, objects[i], number - first, n, number * HSK_PAGE_SIZE);
        }
    }
}

bool hsk_runner_unbecome(struct hsk_runner *r, GError **error)
{
    exchange(r, r->contents);
    hsk_runner_keep_contents(r, NULL);
    return hsk_machine_load_again(r->machine, r->point_state, error);
}

void hsk_runner_become(struct hsk_runner *r, struct hsk_wire_msg *msg)
{
    g_autoptr(GError) error = NULL, again = NULL;
    struct hsk_contents *c = r->point_state && !hsk_machine_running(r->machine) && !r->contents
                                 ? open_contents(r, msg)
                                 : NULL;

    if (!c) {
        hsk_runner_tell_back(r, false, "it did not get what it has to become");
        return;
    }
    hsk_runner_keep_contents(r, c);
    hsk_runner_read_generation(r, json_object_get(msg->body, "generation"));
    r->loaded = true;
    exchange(r, c);
    if (!hsk_machine_load_again(r->machine, c->state, &error)) {
        if (!hsk_runner_unbecome(r, &again))
            hsk_runner_tell_text(r, "error", again->message);
        hsk_runner_tell_back(r, false, error->message);
        return;
    }
    if (r->near) {
        hsk_near_settle(r->near, (uint64_t)hsk_json_int(msg->body, "name", 0));
        hsk_near_set_state(r->near, c->state);
    }
    if (r->has_generation)
        hsk_machine_set_generation(r->machine, r->generation);
    hsk_runner_tell_back(r, true, NULL);
}
