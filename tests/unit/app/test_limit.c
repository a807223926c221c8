/* SPDX-License-Identifier: MIT */
/* The size limit of the timeline: tables, and hours of a timeline that is larger than it may be. */
/* cmocka wants to be last */
/* clang-format off */
#include "common/limit.h"

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include "common/thin.h"

#include <cmocka.h>
/* clang-format on */

#define MB         1000000ull
#define MAX_POINTS 8192

static void compacts(void **state)
{
    static const struct {
        const char *name;
        struct hsk_limit l;
        uint64_t used;
        bool expected;
    } cases[] = {
        {"below the limit", {0, false}, 1000, false},
        {"whatever was dropped", {500, true}, 1000, false},
        {"for the first time", {0, false}, 1001, true},
        {"not again", {1001, false}, 1001, false},
        {"nor when it grew a little", {1001, false}, 1050, false},
        {"but when it grew more", {1001, false}, 1051, true},
        {"and behind what was dropped", {1001, true}, 1001, true},
        {"even if that gave something back", {1200, true}, 1001, true},
        {"not below what there was", {1200, false}, 1100, false},
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        if (hsk_limit_compact(&cases[i].l, cases[i].used, 1000) != cases[i].expected)
            fail_msg("%s", cases[i].name);
    }
}

static void drops(void **state)
{
    static const struct {
        const char *name;
        struct hsk_limit l;
        uint64_t used;
        bool compacted;
        unsigned n, expected;
        struct hsk_limit then;
    } cases[] = {
        {"below the limit", {0, false}, 1000, false, 80, 0, {0, false}},
        {"compacting was enough", {1100, true}, 1000, true, 80, 0, {1000, false}},
        {"it was not", {1100, false}, 1001, true, 80, 10, {1001, true}},
        {"nor what was dropped", {1100, true}, 1099, true, 80, 10, {1099, true}},
        {"few points", {0, false}, 2000, true, 7, 1, {2000, true}},
        {"the newest stays", {0, false}, 2000, true, 1, 0, {2000, false}},
        {"there is none", {0, false}, 2000, true, 0, 0, {2000, false}},
        {"nobody knows yet", {1100, true}, 1150, false, 80, 0, {1100, true}},
        {"nor now", {1100, false}, 1150, false, 80, 0, {1100, false}},
        {"no room to compact", {1100, true}, 1200, false, 80, 10, {1200, true}},
        {"none at first", {0, false}, 1001, false, 80, 10, {1001, true}},
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        struct hsk_limit l = cases[i].l;
        unsigned n = hsk_limit_drop(&l, cases[i].used, 1000, cases[i].compacted, cases[i].n);
        if (n != cases[i].expected || l.used != cases[i].then.used ||
            l.dropped != cases[i].then.dropped)
            fail_msg("%s: %u", cases[i].name, n);
    }
}

/* What a machine that runs for hours has on the disk, each step a point of so many bytes. When one
 * goes, the next one needs half of what it had; the rest lies there until something compacts. */
struct store {
    const char *name;
    uint64_t limit, first, each;
    unsigned seconds, step;
    bool room; /* to compact */
    unsigned n, compactions;
    int64_t time[MAX_POINTS]; /* the oldest first */
    uint64_t bytes[MAX_POINTS], live, dead, peak;
    struct hsk_limit state;
};

static void drop(struct store *s, unsigned i)
{
    uint64_t gone = i + 1 < s->n ? s->bytes[i] / 2 : s->bytes[i];

    if (i + 1 < s->n)
        s->bytes[i + 1] += s->bytes[i] - gone;
    s->live -= gone;
    /* a file here and there has nothing that others need */
    s->dead += gone - gone / 20;
    s->n--;
    memmove(s->time + i, s->time + i + 1, (s->n - i) * sizeof(*s->time));
    memmove(s->bytes + i, s->bytes + i + 1, (s->n - i) * sizeof(*s->bytes));
}

static void thin(struct store *s, int64_t now)
{
    static int64_t age[MAX_POINTS];
    static bool mark[MAX_POINTS];

    for (unsigned i = 0; i < s->n; i++)
        age[i] = now - s->time[s->n - 1 - i];
    if (hsk_thin(age, s->n, mark) < 8)
        return;
    for (unsigned i = 0, n = s->n; i < n; i++) {
        if (mark[i])
            drop(s, n - 1 - i);
    }
}

static void point(struct store *s, int64_t now)
{
    const uint64_t new = s->n ? s->each : s->first;

    s->time[s->n] = now;
    s->bytes[s->n++] = new;
    s->live += new;
    s->peak = MAX(s->peak, s->live + s->dead);
    bool compacted = s->room && hsk_limit_compact(&s->state, s->live + s->dead, s->limit);
    if (compacted) {
        s->compactions++;
        s->dead /= 10; /* what is not worth it */
    }
    thin(s, now);
    unsigned n = hsk_limit_drop(&s->state, s->live + s->dead, s->limit, compacted, s->n - 1);
    assert_true(n <= s->n / HSK_LIMIT_AT_ONCE + 1);
    for (unsigned i = 0; i < n; i++)
        drop(s, 0);
}

static void live(struct store *s)
{
    unsigned least = UINT_MAX;
    int64_t shortest = INT64_MAX;

    for (int64_t now = 0; now < s->seconds; now += s->step) {
        point(s, now);
        /* from when it is full for the first time */
        if (s->peak <= s->limit)
            continue;
        least = MIN(least, s->n);
        shortest = MIN(shortest, now - s->time[0]);
    }
    /* what there is fits, and is most of what does */
    if (s->peak > s->limit + s->limit / 4 + s->each)
        fail_msg("%s: %" PRIu64 " bytes", s->name, s->peak);
    if (s->room && s->live < s->limit / 10 * 6)
        fail_msg("%s: only %" PRIu64 " bytes needed", s->name, s->live);
    if (s->room && (least < 40 || shortest < 300))
        fail_msg("%s: %u points of %" PRId64 " s", s->name, least, shortest);
    if (s->compactions * (s->limit / HSK_LIMIT_GROWTH) > 2 * s->each * (s->seconds / s->step))
        fail_msg("%s: compacted %u times", s->name, s->compactions);
}

static void history_stays(void **state)
{
    static struct store cases[] = {
        {"the default", 4096 * MB, 400 * MB, 12 * MB, 12 * 3600, 5, .room = true},
        {"a guest that writes much", 4096 * MB, 1000 * MB, 30 * MB, 12 * 3600, 30, .room = true},
        {"a tenth of a small disk", 1000 * MB, 200 * MB, 5 * MB, 8 * 3600, 5, .room = true},
        {"each second", 1000 * MB, 100 * MB, 2 * MB, 4 * 3600, 1, .room = true},
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++)
        live(&cases[i]);
}

/* Then what was dropped stays on the disk, and others must follow; but not at each point. */
static void without_room_it_goes_slowly(void **state)
{
    static struct store s = {"no room", 1000 * MB, 100 * MB, 5 * MB, .step = 5};
    unsigned least = UINT_MAX;

    for (int64_t now = 0; now < 1800; now += s.step) {
        point(&s, now);
        if (now > 1500)
            least = MIN(least, s.n);
    }
    assert_int_equal(s.compactions, 0);
    assert_true(s.peak > s.limit);
    assert_true(least > 40);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(compacts),
        cmocka_unit_test(drops),
        cmocka_unit_test(history_stays),
        cmocka_unit_test(without_room_it_goes_slowly),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
