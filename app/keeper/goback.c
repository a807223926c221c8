/* SPDX-License-Identifier: MIT */
/*
 * Opening a document at another place than where it was left: at a point of the timeline ("hva run
 * --at"), and what is said of one when the machine was not stopped properly. Thread: main, before
 * the machine runs.
 */
#include "common/values.h"
#include "document.h"

/* The newest version with running state that came after the last stop; NULL: it was stopped
 * properly, or had no time. */
static const json_t *newest_point(const struct hsk_document *d)
{
    for (size_t i = json_array_size(d->versions); i-- > 0;) {
        const json_t *v = json_array_get(d->versions, i);

        if (strcmp(hsk_json_str(v, "kind", ""), "saved") == 0)
            return NULL;
        if (hsk_json_bool(v, "has_state") &&
            strcmp(hsk_json_str(v, "kind", ""), "before-revert") != 0)
            return v;
    }
    return NULL;
}

void hsk_document_offer_point(struct hsk_document *d)
{
    const json_t *v = newest_point(d);

    if (!v)
        return;
    g_autoptr(GDateTime) t = g_date_time_new_from_unix_local(hsk_json_int(v, "time", 0));
    g_autofree char *when = t ? g_date_time_format(t, "%H:%M:%S") : g_strdup("?");
    g_autofree char *text = g_strdup_printf(
        "the machine was not stopped properly; \"hva revert MACHINE %.8s\" brings it back as it "
        "was running at %s (before it is started: \"hva run --at last\")",
        hsk_json_str(v, "id", ""), when);
    hsk_complain(text);
}

static char *target(struct hsk_document *d, int64_t at, GError **error)
{
    struct hsk_version_info *list = hsk_doc_versions(d->doc, error);
    char *id = list ? hsk_point_at(list, at < 0 ? INT64_MAX : at, error) : NULL;

    if (!list && error && !*error)
        g_set_error(error, HSK_ERROR, HSK_ERROR_NOT_FOUND,
                    "there is no point to go back to: this machine never ran here");
    hsk_version_info_free(list);
    return id;
}

/* What is on the disks now and in no version: of a machine that does not run there is no more. */
static bool park_disks(struct hsk_document *d, GError **error)
{
    const struct hsk_take take = {
        .title = "Before going back (disks only)",
        .kind = HSK_VERSION_BEFORE_REVERT,
        .engine = d->engine->name,
    };

    return !hsk_doc_live_changed(d->doc) ||
           hsk_version_commit(d->doc, hsk_take_begin(d->doc), &take, NULL, NULL, error);
}

char *hsk_document_go_back(struct hsk_document *d, int64_t at, GError **error)
{
    g_autofree char *id = target(d, at, error);

    if (!id || !hsk_document_may_resume(d, id, error) || !park_disks(d, error))
        return NULL;
    struct hsk_version *v = hsk_version_open(d->doc, id, error);
    bool good = v && hsk_disks_switch(d->doc, v, error);
    hsk_version_free(v);
    if (!good)
        return NULL;
    hsk_running_new_generation(&d->now);
    hsk_document_keep_generation(d);
    hsk_document_reload_versions(d);
    return g_steal_pointer(&id);
}
