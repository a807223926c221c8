/* SPDX-License-Identifier: MIT */
/*
 * The timeline of a running document: see timeline.h.
 *
 * - Every second it looks whether a checkpoint is due. Then it asks the machine how much it has
 *   written since the last version: a guest that only keeps its clock gets none.
 * - A checkpoint is an operation like any other, but one that gives way: what the user asks for
 *   cancels its commit (ops.c). While another operation is under way none begins.
 * - What it costs is paid off before the next one (common/pace.h): processor time, of which it
 *   earns 4.5 % of one, and what it owes to the disk, which may get a gigabyte in the first hour:
 *   what was written counts, less what thinning and compacting gave back. On a battery and on a
 *   busy computer the step is longer.
 * - It leaves room on the disk: a full one pauses the guest.
 * - Afterwards the points that are too close together for their age are dropped, many with one
 *   commit. Compacting has to look at all maps of all points first, seconds of work in a large
 *   guest, so it is paid off by itself (0.4 %).
 * - What is larger than the limit is compacted thoroughly, which counts as the point's own work.
 *   If that is not enough the oldest go, a few at a time (common/limit.h).
 *
 * The window's user is told once per machine that memory is kept on the disk.
 *
 * Thread: main, but for the job functions.
 */
#include "timeline.h"

#include <stdlib.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "common/limit.h"
#include "common/pace.h"
#include "common/power.h"
#include "common/thin.h"
#include "common/values.h"
#include "document.h"
#include "document/versions.h"

#define ACTIVE_PAGES   112 /* an idle Linux writes 60 between two looks, and always the same ones */
#define ACTIVE_PER_CPU 16
#define COMPACT_SHARE  250
#define ANSWER_S       10 /* then the process is another one, or hangs: it is asked again */
#define FAILED_WAIT_S  60
#define BATTERY_FACTOR 6
#define BUSY_FACTOR    3
#define DROP_AT_ONCE   8 /* a commit for each would cost more than the points do */
#define DEFAULT_LIMIT  (4ull << 30)
#define SHARE_OF_FREE  10
#define TICK_US        G_USEC_PER_SEC
#define POWER_SUPPLIES "/sys/class/power_supply"

struct hsk_timeline {
    struct hsk_document *d;
    guint source;
    gint64 not_before_us;
    gint64 asked_us; /* the machine has not said yet how active it is; 0: it has */
    gint64 begun_us; /* when it was asked for the point under way: on time, whatever came behind */
    uint64_t disk_writes;
    double purse, cpu_purse;      /* common/pace.h */
    gint64 paid_us;               /* up to when it has earned */
    gint64 compact_not_before_us; /* these three: jobs, one after the other, what follows them */
    uint64_t compact_cpu_ns;      /* of the last checkpoint */
    int64_t freed_bytes;          /* behind it */
    struct hsk_limit limit;       /* jobs only */
    char *trouble;                /* what was said last of checkpoints that failed */
};

/* ---- size ---- */

static uint64_t folder_bytes(const char *instance, const char *name)
{
    g_autofree char *folder = g_build_filename(instance, name, NULL);
    g_autoptr(GDir) dir = g_dir_open(folder, 0, NULL);
    uint64_t sum = 0;
    struct stat st;

    while (dir && (name = g_dir_read_name(dir))) {
        g_autofree char *path = g_build_filename(folder, name, NULL);
        if (stat(path, &st) == 0)
            sum += (uint64_t)st.st_blocks * 512;
    }
    return sum;
}

/* What the instance's own segments and maps take on the disk. */
static uint64_t bytes_on_disk(const char *instance)
{
    return folder_bytes(instance, "data") + folder_bytes(instance, "map");
}

/* What others may still write there; false: unknown. */
static bool free_on_disk(const char *instance, uint64_t *bytes)
{
    struct statvfs fs;

    if (statvfs(instance, &fs) < 0)
        return false;
    *bytes = (uint64_t)fs.f_bavail * fs.f_frsize;
    return true;
}

static uint64_t limit_bytes(const struct hsk_settings *s, const char *instance, uint64_t used)
{
    uint64_t free_bytes;

    if (s->limit_bytes)
        return s->limit_bytes;
    if (!free_on_disk(instance, &free_bytes))
        return DEFAULT_LIMIT;
    return MIN(DEFAULT_LIMIT, MAX((free_bytes + used) / SHARE_OF_FREE, HSK_TIMELINE_MIN_LIMIT));
}

/* Room for a point of so many pages, if none of them shrinks: it holds them, their maps and what
 * the log of the disks has. */
static bool room_for(struct hsk_document *d, int64_t pages, GError **error)
{
    g_autofree char *instance = hsk_user_file("instances", hsk_doc_instance(d->doc));
    uint64_t free_bytes;

    if (!free_on_disk(instance, &free_bytes) ||
        hsk_pace_room(free_bytes, (uint64_t)pages, folder_bytes(instance, "log")))
        return true;
    g_set_error(error, HSK_ERROR, HSK_ERROR_FAILED,
                "the timeline waits: there is too little room for a checkpoint on the disk of %s; "
                "free some space",
                instance);
    return false;
}

/* ---- thinning ---- */

/* The points that may go at all, oldest first: not the one that the present comes from. */
static GPtrArray *points_of(struct hsk_doc *doc, struct hsk_version_info *list)
{
    GPtrArray *points = g_ptr_array_new();

    for (struct hsk_version_info *v = list; v; v = v->next) {
        if (v->kind == HSK_VERSION_AUTO && !v->pinned && strcmp(v->id, hsk_doc_current(doc)) != 0)
            g_ptr_array_add(points, v);
    }
    return points;
}

static void mark_by_age(const GPtrArray *points, bool *drop)
{
    g_autofree int64_t *age = g_new(int64_t, points->len + 1);
    g_autofree bool *mark = g_new0(bool, points->len + 1);
    int64_t now = g_get_real_time() / G_USEC_PER_SEC;

    for (guint i = 0; i < points->len; i++) {
        const struct hsk_version_info *v = g_ptr_array_index(points, points->len - 1 - i);
        age[i] = now - v->time;
    }
    hsk_thin(age, points->len, mark);
    for (guint i = 0; i < points->len; i++)
        drop[points->len - 1 - i] = mark[i];
}

static bool drop_marked(struct hsk_doc *doc, const GPtrArray *points, const bool *drop,
                        unsigned least, GError **error)
{
    g_autoptr(GPtrArray) ids = g_ptr_array_new();

    for (guint i = 0; i < points->len; i++) {
        if (drop[i])
            g_ptr_array_add(ids, ((struct hsk_version_info *)g_ptr_array_index(points, i))->id);
    }
    return ids->len < least || ids->len == 0 ||
           hsk_doc_drop_many(doc, (const char *const *)ids->pdata, ids->len, error);
}

/* compacted: just before used was measured. */
static bool thin(struct hsk_document *d, uint64_t used, uint64_t limit, bool compacted,
                 GError **error)
{
    struct hsk_version_info *list = hsk_doc_versions(d->doc, error);
    g_autoptr(GPtrArray) points = points_of(d->doc, list);
    g_autofree bool *drop = g_new0(bool, points->len + 1);

    mark_by_age(points, drop);
    unsigned oldest = hsk_limit_drop(&d->timeline->limit, used, limit, compacted, points->len);
    for (guint i = 0; i < oldest; i++)
        drop[i] = true;
    bool good = drop_marked(d->doc, points, drop, oldest ? 1 : DROP_AT_ONCE, error);
    hsk_version_info_free(list);
    return good;
}

/* ---- taking ---- */

static bool busy_computer(void)
{
    double load = 0;

    return getloadavg(&load, 1) == 1 && load > 2 * g_get_num_processors();
}

/* What the point cost, and when the next one is due. */
static void pay(struct hsk_timeline *t, const struct hsk_op *op)
{
    const unsigned every_s = t->d->settings.every_s;
    const double passed = (double)(t->begun_us - t->paid_us) / G_USEC_PER_SEC;
    const double slower = hsk_on_battery(POWER_SUPPLIES) ? BATTERY_FACTOR
                          : busy_computer()              ? BUSY_FACTOR
                                                         : 1;
    const double cpu_s = (double)(op->cpu_ns - t->compact_cpu_ns) / 1e9;

    t->purse = hsk_pace_pay(t->purse, every_s, passed, op->bytes_added, t->freed_bytes);
    t->cpu_purse = hsk_pace_pay_cpu(t->cpu_purse, passed, cpu_s);
    t->paid_us = t->begun_us;
    t->not_before_us =
        t->begun_us +
        (gint64)(hsk_pace_wait_s(t->purse, every_s, slower, t->cpu_purse) * G_USEC_PER_SEC);
}

static void tell_once(struct hsk_document *d)
{
    g_autoptr(GError) error = NULL;
    static const char text[] =
        "the timeline is on: what was in this machine's memory in the last hours is kept on this "
        "computer's disk, outside of the document (\"hva timeline MACHINE off\" ends that)";

    if (d->settings.timeline_told)
        return;
    d->settings.timeline_told = true;
    if (!hsk_settings_store(hsk_doc_manifest(d->doc)->uuid, &d->settings, &error))
        hsk_complain(error->message);
    hsk_complain(text);
    hsk_control_broadcast(d->control, json_pack("{s:s, s:s, s:s}", "event", "notice", "about",
                                                "timeline", "text", text));
}

/* What points leave behind in segments that others still need goes by compacting, which may need
 * as much room again. */
static bool room_to_compact(const char *instance, uint64_t used)
{
    uint64_t free_bytes;

    return !free_on_disk(instance, &free_bytes) || hsk_pace_room(free_bytes, 0, used);
}

static void compact(struct hsk_op *op)
{
    struct hsk_timeline *t = op->d->timeline;
    uint64_t before = hsk_thread_cpu_ns();

    hsk_doc_compact_instance(op->d->doc, false, hsk_op_cancelled, op, &op->error);
    t->compact_cpu_ns = hsk_thread_cpu_ns() - before;
    t->compact_not_before_us =
        g_get_monotonic_time() + (gint64)(t->compact_cpu_ns / 1000 * COMPACT_SHARE);
}

static void thin_job(struct hsk_op *op)
{
    struct hsk_timeline *t = op->d->timeline;
    g_autofree char *instance = hsk_user_file("instances", hsk_doc_instance(op->d->doc));
    const uint64_t before = bytes_on_disk(instance);
    const uint64_t limit = limit_bytes(&op->d->settings, instance, before);
    const bool room = room_to_compact(instance, before);
    const bool thorough = room && hsk_limit_compact(&t->limit, before, limit);
    uint64_t used = before;
    g_autoptr(GError) error = NULL;

    t->compact_cpu_ns = 0;
    if (thorough) {
        hsk_doc_compact_instance(op->d->doc, true, hsk_op_cancelled, op, &error);
        used = bytes_on_disk(instance);
    }
    if (!hsk_op_cancelled(op) && thin(op->d, used, limit, thorough && !error, &op->error) &&
        !thorough && room && g_get_monotonic_time() >= t->compact_not_before_us)
        compact(op);
    /* To lose the oldest is no saving: else a small limit would be written full over and over. */
    t->freed_bytes = before > limit ? 0 : (int64_t)before - (int64_t)bytes_on_disk(instance);
    if (!op->error)
        op->error = g_steal_pointer(&error);
    if (g_error_matches(op->error, HSK_ERROR, HSK_ERROR_CANCELLED))
        g_clear_error(&op->error);
}

static void thinned(struct hsk_op *op)
{
    struct hsk_document *d = op->d;
    GError *error = g_steal_pointer(&op->error);

    pay(d->timeline, op);
    tell_once(d);
    /* The disks are just being switched: the next time. */
    if (error && g_error_matches(error, HSK_ERROR, HSK_ERROR_BUSY))
        g_clear_error(&error);
    if (error)
        hsk_op_fail(op, error);
    else
        hsk_op_finish(op, NULL);
}

static void taken(struct hsk_op *op)
{
    g_clear_pointer(&op->d->timeline->trouble, g_free);
    hsk_op_job(op, thin_job, thinned);
}

void hsk_timeline_take(struct hsk_op *op)
{
    g_autoptr(GDateTime) now = g_date_time_new_now_local();
    g_autofree char *title = g_date_time_format(now, "%H:%M:%S");

    op->d->timeline->disk_writes = hsk_disk_service_writes(op->d->now.disks);
    hsk_take_start(op, HSK_VERSION_AUTO, title, taken);
}

void hsk_timeline_failed(struct hsk_timeline *t, const GError *error)
{
    t->not_before_us = g_get_monotonic_time() + FAILED_WAIT_S * G_USEC_PER_SEC;
    /* The user wanted something else: as soon as that is done. */
    if (g_error_matches(error, HSK_ERROR, HSK_ERROR_CANCELLED))
        t->not_before_us = g_get_monotonic_time() + t->d->settings.every_s * G_USEC_PER_SEC;
    else if (g_strcmp0(t->trouble, error->message) != 0) {
        g_free(t->trouble);
        t->trouble = g_strdup(error->message);
        hsk_complain(error->message);
    }
}

char *hsk_point_at(const struct hsk_version_info *list, int64_t at, GError **error)
{
    const struct hsk_version_info *best = NULL, *oldest = NULL;

    for (const struct hsk_version_info *v = list; v; v = v->next) {
        /* What was parked is not on the way that the machine went on: undo goes there. */
        if (!v->has_state || v->kind == HSK_VERSION_BEFORE_REVERT)
            continue;
        if (!oldest || v->time < oldest->time)
            oldest = v;
        if (v->time <= at && (!best || v->time >= best->time))
            best = v;
    }
    if (best)
        return g_strdup(best->id);
    g_autoptr(GDateTime) t = oldest ? g_date_time_new_from_unix_local(oldest->time) : NULL;
    g_autofree char *when = t ? g_date_time_format(t, "%Y-%m-%d %H:%M:%S") : NULL;
    if (when)
        g_set_error(error, HSK_ERROR, HSK_ERROR_NOT_FOUND,
                    "nothing was kept of that time; the oldest point is of %s", when);
    else
        g_set_error(error, HSK_ERROR, HSK_ERROR_NOT_FOUND,
                    "there is no point to go back to; \"hva log --timeline\" lists what there is");
    return NULL;
}

/* ---- when ---- */

static bool may_begin(const struct hsk_document *d)
{
    return d->settings.timeline && d->want_run && !d->ending && !d->broken && !d->op &&
           d->now.child && d->now.cpu && !d->ops.length;
}

static gboolean look(gpointer opaque)
{
    struct hsk_timeline *t = opaque;

    /* A look may come a little early; without this the next one would be a second late. */
    gint64 now = g_get_monotonic_time();

    if (!may_begin(t->d) || now + TICK_US / 2 < t->not_before_us ||
        (t->asked_us && now - t->asked_us < ANSWER_S * G_USEC_PER_SEC))
        return G_SOURCE_CONTINUE;
    if (hsk_child_tell(t->d->now.child, "activity"))
        t->asked_us = now;
    return G_SOURCE_CONTINUE;
}

void hsk_timeline_message(struct hsk_timeline *t, const json_t *body)
{
    if (!t || !t->asked_us)
        return;
    t->begun_us = t->asked_us;
    t->asked_us = 0;
    struct hsk_document *d = t->d;
    const int64_t pages = MAX(hsk_json_int(body, "pages", 0), 0);
    bool active = pages >= ACTIVE_PAGES + ACTIVE_PER_CPU * hsk_doc_manifest(d->doc)->ncpus;
    g_autoptr(GError) error = NULL;
    if (!may_begin(d))
        return;
    if (!active && hsk_disk_service_writes(d->now.disks) == t->disk_writes)
        t->not_before_us = g_get_monotonic_time() + d->settings.every_s * G_USEC_PER_SEC;
    else if (room_for(d, pages, &error))
        hsk_op_queue(hsk_op_new(d, HSK_OP_AUTO, NULL, NULL, NULL));
    else
        hsk_timeline_failed(t, error);
}

struct hsk_timeline *hsk_timeline_new(struct hsk_document *d)
{
    struct hsk_timeline *t = g_new0(struct hsk_timeline, 1);

    t->d = d;
    t->purse = HSK_PACE_SAVINGS;
    t->cpu_purse = HSK_PACE_CPU_SAVINGS;
    t->paid_us = g_get_monotonic_time();
    t->not_before_us = t->paid_us + d->settings.every_s * G_USEC_PER_SEC;
    t->source = g_timeout_add_seconds(1, look, t);
    return t;
}

void hsk_timeline_free(struct hsk_timeline *t)
{
    if (!t)
        return;
    g_clear_handle_id(&t->source, g_source_remove);
    g_free(t->trouble);
    g_free(t);
}

/* ---- what the user says ---- */

static void purge_job(struct hsk_op *op)
{
    hsk_timeline_drop_all(op->d->doc, &op->error);
}

static void purged(struct hsk_op *op)
{
    GError *error = g_steal_pointer(&op->error);

    if (error)
        hsk_op_fail(op, error);
    else
        hsk_op_finish(op, NULL);
}

void hsk_timeline_purge(struct hsk_op *op)
{
    hsk_op_job(op, purge_job, purged);
}

static json_t *timeline_info(struct hsk_document *d)
{
    g_autofree char *instance = hsk_user_file("instances", hsk_doc_instance(d->doc));
    uint64_t used = bytes_on_disk(instance);
    json_int_t points = 0, bytes = 0;
    const json_t *v;
    size_t i;

    json_array_foreach(d->versions, i, v)
    {
        if (strcmp(hsk_json_str(v, "kind", ""), "auto") != 0)
            continue;
        points++;
        bytes += hsk_json_int(v, "bytes", 0);
    }
    return json_pack("{s:b, s:i, s:I, s:I, s:I}", "on", d->settings.timeline, "every",
                     (int)d->settings.every_s, "limit",
                     (json_int_t)limit_bytes(&d->settings, instance, used), "points", points,
                     "bytes", bytes);
}

void hsk_timeline_command(struct hsk_document *d, struct hsk_conn *c, const json_t *q)
{
    const json_t *id = json_object_get(q, "id"), *on = json_object_get(q, "on");
    struct hsk_settings s = d->settings;
    g_autoptr(GError) error = NULL;

    if (json_is_boolean(on))
        s.timeline = json_is_true(on);
    s.every_s = (unsigned)CLAMP(hsk_json_int(q, "every", s.every_s), 1, HSK_TIMELINE_MAX_EVERY_S);
    s.limit_bytes = (uint64_t)MAX(hsk_json_int(q, "limit", (int64_t)s.limit_bytes), 0);
    if (s.limit_bytes && s.limit_bytes < HSK_TIMELINE_MIN_LIMIT)
        s.limit_bytes = HSK_TIMELINE_MIN_LIMIT;
    bool set = on || json_object_get(q, "every") || json_object_get(q, "limit");
    if (set && !hsk_settings_store(hsk_doc_manifest(d->doc)->uuid, &s, &error)) {
        hsk_conn_refuse(c, id, error);
        return;
    }
    if (s.every_s < d->settings.every_s)
        d->timeline->not_before_us = 0;
    d->settings = s;
    hsk_conn_reply(c, id, timeline_info(d));
}
