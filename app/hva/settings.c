/* SPDX-License-Identifier: MIT */
/*
 * Settings of a machine (common/settings.h): hva clock, hva timeline. A running one is asked, so
 * that it also does what is set. Thread: main.
 */
#include "common/settings.h"

#include <snapshots/store.h>

#include <stdio.h>

#include "client.h"
#include "common/values.h"
#include "common/wire.h"
#include "document/versions.h"

static char *uuid_of(const char *machine, GError **error)
{
    struct hsk_doc *doc = hsk_open_document(machine, true, error);

    if (!doc)
        return NULL;
    char *uuid = g_strdup(hsk_doc_manifest(doc)->uuid);
    hsk_doc_settle(doc);
    hsk_doc_close(doc);
    return uuid;
}

static json_t *set_clock_in_file(const char *machine, const char *policy, GError **error)
{
    g_autofree char *uuid = uuid_of(machine, error);
    struct hsk_settings s;

    if (!uuid)
        return NULL;
    hsk_settings_load(uuid, &s);
    if (policy) {
        s.catch_up = strcmp(policy, "catch-up") == 0;
        if (!hsk_settings_store(uuid, &s, error))
            return NULL;
    }
    return json_pack("{s:s}", "clock", s.catch_up ? "catch-up" : "frozen");
}

static int set_clock(const struct hsk_args *a)
{
    const char *policy = a->rest[1];
    GError *failed = NULL;
    g_autoptr(GError) error = NULL;
    json_t *r = NULL;

    if (policy && strcmp(policy, "catch-up") != 0 && strcmp(policy, "frozen") != 0)
        return hsk_usage("the clock can be catch-up (when the machine goes on after a pause or a "
                         "revert, it shows the right time) or frozen (it goes on in the past)");
    HSK_AUTO(hsk_client, c) = hsk_client_find(a->rest[0], &failed);
    if (failed)
        g_propagate_error(&error, failed);
    else if (c)
        r = hsk_client_ask(c, "clock", policy ? json_pack("{s:s}", "policy", policy) : NULL,
                           &error);
    else
        r = set_clock_in_file(a->rest[0], policy, &error);
    if (error)
        return hsk_fail(error);
    if (a->json)
        hsk_print_json(r);
    else
        printf("%s\n", hsk_json_str(r, "clock", ""));
    json_decref(r);
    return 0;
}

int hsk_cmd_clock(int argc, char **argv)
{
    struct hsk_args a = {0};
    int status = 0;

    if (hsk_parse_args(&a, &argc, &argv, "MACHINE [catch-up|frozen]", 1, 2, &status))
        status = set_clock(&a);
    g_strfreev(a.rest);
    return status;
}

/* ---- timeline ---- */

static const char timeline_usage[] = "MACHINE [on | off | every SECONDS | limit SIZE | purge]";

/* The command's words as the request to a running machine. */
static json_t *timeline_request(char **words, GError **error)
{
    const char *verb = words[0], *value = verb ? words[1] : NULL;
    bool valued = verb && (strcmp(verb, "every") == 0 || strcmp(verb, "limit") == 0);
    guint64 seconds = 0;
    uint64_t bytes = 0;

    if (!verb)
        return json_object();
    if (valued == !value) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_USAGE, "usage: hva timeline %s", timeline_usage);
        return NULL;
    }
    if (strcmp(verb, "on") == 0 || strcmp(verb, "off") == 0)
        return json_pack("{s:b}", "on", strcmp(verb, "on") == 0);
    if (strcmp(verb, "purge") == 0)
        return json_pack("{s:b}", "purge", 1);
    if (strcmp(verb, "every") == 0) {
        if (g_ascii_string_to_unsigned(value, 10, 1, HSK_TIMELINE_MAX_EVERY_S, &seconds, NULL))
            return json_pack("{s:I}", "every", (json_int_t)seconds);
        g_set_error(error, HSK_ERROR, HSK_ERROR_USAGE,
                    "every takes 1 to %d seconds, but \"%s\" was given", HSK_TIMELINE_MAX_EVERY_S,
                    value);
        return NULL;
    }
    if (strcmp(verb, "limit") == 0) {
        if (!hsk_parse_size("limit", value, &bytes, error))
            return NULL;
        if (bytes >= HSK_TIMELINE_MIN_LIMIT && bytes <= INT64_MAX)
            return json_pack("{s:I}", "limit", (json_int_t)bytes);
        g_set_error(error, HSK_ERROR, HSK_ERROR_USAGE,
                    "limit takes a size from 16M on, but \"%s\" was given", value);
        return NULL;
    }
    g_set_error(error, HSK_ERROR, HSK_ERROR_USAGE, "usage: hva timeline %s", timeline_usage);
    return NULL;
}

/* What it says of a timeline whose machine does not run. */
static json_t *timeline_info(struct hsk_doc *doc, const struct hsk_settings *s, GError **error)
{
    struct hsk_version_info *list = hsk_doc_versions(doc, error);
    json_int_t points = 0, bytes = 0;

    for (const struct hsk_version_info *v = list; v; v = v->next) {
        points += v->kind == HSK_VERSION_AUTO;
        bytes += v->kind == HSK_VERSION_AUTO ? (json_int_t)v->bytes : 0;
    }
    hsk_version_info_free(list);
    return json_pack("{s:b, s:i, s:I, s:I, s:I}", "on", s->timeline, "every", (int)s->every_s,
                     "limit", (json_int_t)s->limit_bytes, "points", points, "bytes", bytes);
}

static bool apply(struct hsk_doc *doc, const json_t *q, struct hsk_settings *s, GError **error)
{
    const json_t *on = json_object_get(q, "on");

    if (hsk_json_bool(q, "purge"))
        return hsk_timeline_drop_all(doc, error);
    if (json_object_size(q) == 0)
        return true;
    if (on)
        s->timeline = json_is_true(on);
    s->every_s = (unsigned)hsk_json_int(q, "every", s->every_s);
    s->limit_bytes = (uint64_t)hsk_json_int(q, "limit", (int64_t)s->limit_bytes);
    return hsk_settings_store(hsk_doc_manifest(doc)->uuid, s, error);
}

static json_t *timeline_in_file(const char *machine, const json_t *q, GError **error)
{
    struct hsk_doc *doc = hsk_open_document(machine, false, error);
    struct hsk_settings s;

    if (!doc)
        return NULL;
    hsk_settings_load(hsk_doc_manifest(doc)->uuid, &s);
    json_t *r = apply(doc, q, &s, error) ? timeline_info(doc, &s, error) : NULL;
    hsk_doc_settle(doc);
    hsk_doc_close(doc);
    return r;
}

static json_t *ask_timeline(const char *machine, json_t *q, GError **error)
{
    GError *failed = NULL;
    HSK_AUTO(hsk_client, c) = hsk_client_find(machine, &failed);

    if (failed) {
        g_propagate_error(error, failed);
        return NULL;
    }
    if (!c)
        return timeline_in_file(machine, q, error);
    json_t *r = hsk_client_ask(c, "timeline", json_incref(q), error);
    if (!r || !hsk_json_bool(q, "purge"))
        return r;
    json_decref(r);
    return hsk_client_ask(c, "timeline", NULL, error);
}

static void print_timeline(const json_t *r)
{
    int64_t limit = hsk_json_int(r, "limit", 0);

    printf("%s, every %" G_GINT64_FORMAT " s while the guest is active; ",
           hsk_json_bool(r, "on") ? "on" : "off", hsk_json_int(r, "every", 0));
    if (limit)
        printf("at most %.1f GB; ", (double)limit / 1e9);
    printf("%" G_GINT64_FORMAT " points, %.1f MB on this computer's disk\n",
           hsk_json_int(r, "points", 0), (double)hsk_json_int(r, "bytes", 0) / 1e6);
}

int hsk_cmd_timeline(int argc, char **argv)
{
    struct hsk_args a = {0};
    g_autoptr(GError) error = NULL;
    int status = 0;

    if (hsk_parse_args(&a, &argc, &argv, timeline_usage, 1, 3, &status)) {
        json_t *q = timeline_request(a.rest + 1, &error);
        json_t *r = q ? ask_timeline(a.rest[0], q, &error) : NULL;

        if (!r)
            status = hsk_fail(error);
        else if (a.json)
            hsk_print_json(r);
        else
            print_timeline(r);
        json_decref(r);
        json_decref(q);
    }
    g_strfreev(a.rest);
    return status;
}
