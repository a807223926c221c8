/* SPDX-License-Identifier: MIT */
/*
 * Settings of a machine (common/settings.h): hva clock. A running one is asked, so that it also
 * does what is set. Thread: main.
 */
#include <snapshots/store.h>

#include <stdio.h>

#include "client.h"
#include "common/settings.h"
#include "common/wire.h"

static char *uuid_of(const char *machine, GError **error)
{
    struct hsk_doc *doc = hsk_open_document(machine, true, error);

    if (!doc)
        return NULL;
    char *uuid = g_strdup(hsk_doc_manifest(doc)->uuid);
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
