/* SPDX-License-Identifier: MIT */
/*
 * The machine becomes another version, with pages and a state that the keeper has out of the store
 * (points.c: become, return). Memory's pages and the keeper's change places, so that the way back
 * is the same. Thread: loop thread.
 */
#include <sys/mman.h>

#include "runner.h"

struct hsk_contents {
    void *map;
    uint64_t bytes;
    const uint32_t *numbers;
    uint64_t npages;
    uint8_t *pages;
    GBytes *state;
};

void hsk_runner_keep_contents(struct hsk_runner *r, struct hsk_contents *c)
{
    struct hsk_contents *old = r->contents;

    r->contents = c;
    if (!old)
        return;
    g_bytes_unref(old->state);
    munmap(old->map, old->bytes);
    g_free(old);
}

/* Takes the message's descriptor apart; NULL: it cannot be. */
static struct hsk_contents *open_contents(struct hsk_wire_msg *msg)
{
    const uint64_t n = (uint64_t)hsk_json_int(msg->body, "pages", -1),
                   state = (uint64_t)hsk_json_int(msg->body, "state", -1);
    const off_t end = msg->fd >= 0 ? lseek(msg->fd, 0, SEEK_END) : -1;

    if (end < 0 || n > 1u << 20 || state > 256u << 20)
        return NULL;
    const uint64_t at = (n * 4 + HSK_PAGE_SIZE - 1) / HSK_PAGE_SIZE * HSK_PAGE_SIZE,
                   bytes = at + n * HSK_PAGE_SIZE + state;
    void *map = bytes <= (uint64_t)end
                    ? mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, msg->fd, 0)
                    : MAP_FAILED;
    if (map == MAP_FAILED)
        return NULL;
    struct hsk_contents *c = g_new0(struct hsk_contents, 1);
    *c = (struct hsk_contents){.map = map,
                               .bytes = bytes,
                               .numbers = map,
                               .npages = n,
                               .pages = (uint8_t *)map + at,
                               .state = g_bytes_new((uint8_t *)map + bytes - state, state)};
    return c;
}

/* Memory's pages and those of the contents change places. */
static void exchange(struct hsk_runner *r, const struct hsk_contents *c)
{
    struct hsk_memobj *objects[HSK_NEAR_OBJECTS] = {hsk_machine_memobj(r->machine, "ram"),
                                                    hsk_machine_memobj(r->machine, "vram")};
    uint64_t sizes[HSK_NEAR_OBJECTS] = {objects[0]->size_bytes,
                                        objects[1] ? objects[1]->size_bytes : 0};
    struct hsk_near_layout l;

    hsk_near_layout(&l, sizes, objects[1] ? 2 : 1);
    for (uint64_t k = 0; k < c->npages; k++) {
        const unsigned i = l.nobjects > 1 && c->numbers[k] >= l.first[1] ? 1 : 0;
        const uint64_t page = c->numbers[k] - l.first[i];
        uint8_t held[HSK_PAGE_SIZE], *from = c->pages + k * HSK_PAGE_SIZE;

        if (page >= l.pages[i])
            continue;
        hsk_memobj_will_write(objects[i], page);
        memcpy(held, from, sizeof(held));
        memcpy(from, objects[i]->host + page * HSK_PAGE_SIZE, HSK_PAGE_SIZE);
        memcpy(objects[i]->host + page * HSK_PAGE_SIZE, held, sizeof(held));
        hsk_runner_changed(r, objects[i], page);
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
                                 ? open_contents(msg)
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
