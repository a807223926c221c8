/* SPDX-License-Identifier: MIT */
/*
 * The timeline of a running document: see timeline.h.
 *
 * - Every second it looks whether a checkpoint is due. Then it asks the machine how much it has
 *   written since the last version: a guest that only keeps its clock gets none.
 * - A checkpoint is an operation like any other, but one that gives way: what the user asks for
 *   cancels its commit (ops.c). While another operation is under way none begins.
 * - What it costs is paid off before the next one: 22 times its processor time (4.5 % of one), and
 *   as long as its bytes take at the rate that a gigabyte an hour is (at 5 s steps). On a battery
 *   and on a busy computer all takes longer.
 * - Afterwards the points that are too close together for their age are dropped, many with one
 *   commit, and the oldest while all are larger than the limit. Compacting has to look at all maps
 *   of all points first, seconds of work in a large guest, so it is paid off by itself (0.4 %).
 *
 * The window's user is told once per machine that memory is kept on the disk.
 *
 * Thread: main, but for the job functions.
 */
#include "timeline.h"

#include <stdlib.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "common/power.h"
#include "common/thin.h"
#include "common/values.h"
#include "document.h"
#include "document/versions.h"

#define ACTIVE_PAGES   112 /* an idle Linux writes 60 between two looks, and always the same ones */
#define ACTIVE_PER_CPU 16
#define CPU_SHARE      22
#define COMPACT_SHARE  250
#define BYTES_PER_S    (1000000000 / 3600)
#define MAX_BYTES_WAIT 120
#define ANSWER_S       10 /* then the process is another one, or hangs: it is asked again */
#define FAILED_WAIT_S  60
#define BATTERY_FACTOR 6
#define BUSY_FACTOR    3
#define DROP_AT_ONCE   8 /* a commit for each would cost more than the points do */
#define DEFAULT_LIMIT  (4ull << 30)
#define SHARE_OF_FREE  10
#define POWER_SUPPLIES "/sys/class/power_supply"

struct hsk_timeline {
    struct hsk_document *d;
    guint source;
    gint64 not_before_us;
    gint64 asked_us; /* the machine has not said yet how active it is; 0: it has */
    uint64_t disk_writes;
    gint64 compact_not_before_us; /* these two: jobs, one after the other, and what follows them */
    uint64_t compact_cpu_ns;      /* of the last checkpoint */
    char *trouble; /* what was said last of checkpoints that failed */
};

/* ---- size ---- */

/* What the instance's own segments and maps take on the disk. */
static uint64_t bytes_on_disk(const char *instance)
{
    static const char *const folders[] = {"data", "map"};
    uint64_t sum = 0;

    for (unsigned i = 0; i < G_N_ELEMENTS(folders); i++) {
        g_autofree char *folder = g_build_filename(instance, folders[i], NULL);
        g_autoptr(GDir) dir = g_dir_open(folder, 0, NULL);
        const char *name;
        struct stat st;

        while (dir && (name = g_dir_read_name(dir))) {
            g_autofree char *path = g_build_filename(folder, name, NULL);
            if (stat(path, &st) == 0)
                sum += (uint64_t)st.st_blocks * 512;
        }
    }
    return sum;
}

static uint64_t limit_bytes(const struct hsk_settings *s, const char *instance, uint64_t used)
{
    struct statvfs fs;

    if (s->limit_bytes)
        return s->limit_bytes;
    if (statvfs(instance, &fs) < 0)
        return DEFAULT_LIMIT;
    uint64_t free_bytes = (uint64_t)fs.f_bavail * fs.f_frsize + used;
    return MIN(DEFAULT_LIMIT, MAX(free_bytes / SHARE_OF_FREE, HSK_TIMELINE_MIN_LIMIT));
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

/* The oldest go, as many as came with what is too much; the newest stays. true: some do. */
static bool mark_by_size(const GPtrArray *points, uint64_t excess, bool *drop)
{
    uint64_t gone = 0;
    bool some = false;

    for (guint i = 0; i + 1 < points->len && gone < excess; i++) {
        const struct hsk_version_info *v = g_ptr_array_index(points, i);
        gone += v->bytes;
        some = drop[i] = true;
    }
    return some;
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

static bool thin(struct hsk_document *d, GError **error)
{
    g_autofree char *instance = hsk_user_file("instances", hsk_doc_instance(d->doc));
    uint64_t used = bytes_on_disk(instance), limit = limit_bytes(&d->settings, instance, used);
    struct hsk_version_info *list = hsk_doc_versions(d->doc, error);
    g_autoptr(GPtrArray) points = points_of(d->doc, list);
    g_autofree bool *drop = g_new0(bool, points->len + 1);

    mark_by_age(points, drop);
    /* With some air, so that not every point after it drops again. */
    bool large = used > limit && mark_by_size(points, used - limit + limit / 10, drop);
    bool good = drop_marked(d->doc, points, drop, large ? 1 : DROP_AT_ONCE, error);
    hsk_version_info_free(list);
    return good;
}

/* ---- taking ---- */

static bool busy_computer(void)
{
    double load = 0;

    return getloadavg(&load, 1) == 1 && load > 2 * g_get_num_processors();
}

static double wait_s(const struct hsk_document *d, double cpu_s, uint64_t bytes)
{
    double wait = d->settings.every_s;
    /* Who wants more points wants more bytes. */
    double bytes_s = (double)bytes / BYTES_PER_S * d->settings.every_s / HSK_TIMELINE_EVERY_S;

    wait *= hsk_on_battery(POWER_SUPPLIES) ? BATTERY_FACTOR : busy_computer() ? BUSY_FACTOR : 1;
    wait = MAX(wait, cpu_s * CPU_SHARE);
    return MAX(wait, MIN(bytes_s, MAX_BYTES_WAIT));
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

/* What points leave behind in segments that others still need goes by compacting. */
static void compact(struct hsk_op *op)
{
    struct hsk_timeline *t = op->d->timeline;
    uint64_t before = hsk_thread_cpu_ns();

    if (g_get_monotonic_time() < t->compact_not_before_us)
        return;
    hsk_doc_compact_instance(op->d->doc, hsk_op_cancelled, op, &op->error);
    t->compact_cpu_ns = hsk_thread_cpu_ns() - before;
    t->compact_not_before_us =
        g_get_monotonic_time() + (gint64)(t->compact_cpu_ns / 1000 * COMPACT_SHARE);
}

static void thin_job(struct hsk_op *op)
{
    op->d->timeline->compact_cpu_ns = 0;
    if (!hsk_op_cancelled(op) && thin(op->d, &op->error))
        compact(op);
    if (g_error_matches(op->error, HSK_ERROR, HSK_ERROR_CANCELLED))
        g_clear_error(&op->error);
}

static void thinned(struct hsk_op *op)
{
    struct hsk_document *d = op->d;
    GError *error = g_steal_pointer(&op->error);

    const uint64_t cpu_ns = op->cpu_ns - d->timeline->compact_cpu_ns;
    d->timeline->not_before_us =
        op->started_us +
        (gint64)(wait_s(d, (double)cpu_ns / 1e9, op->bytes_added) * G_USEC_PER_SEC);
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

    gint64 now = g_get_monotonic_time();

    if (!may_begin(t->d) || now < t->not_before_us ||
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
    t->asked_us = 0;
    struct hsk_document *d = t->d;
    bool active = hsk_json_int(body, "pages", 0) >=
                  ACTIVE_PAGES + ACTIVE_PER_CPU * hsk_doc_manifest(d->doc)->ncpus;
    if (!may_begin(d))
        return;
    if (active || hsk_disk_service_writes(d->now.disks) != t->disk_writes)
        hsk_op_queue(hsk_op_new(d, HSK_OP_AUTO, NULL, NULL, NULL));
    else
        t->not_before_us = g_get_monotonic_time() + d->settings.every_s * G_USEC_PER_SEC;
}

struct hsk_timeline *hsk_timeline_new(struct hsk_document *d)
{
    struct hsk_timeline *t = g_new0(struct hsk_timeline, 1);

    t->d = d;
    t->not_before_us = g_get_monotonic_time() + d->settings.every_s * G_USEC_PER_SEC;
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
