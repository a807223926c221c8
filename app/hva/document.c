/* SPDX-License-Identifier: MIT */
/*
 * What is in a machine, whether it runs or not: info. A running one is asked; of one that does not
 * run the document is opened read-only. Thread: main.
 */
#include <snapshots/store.h>

#include <stdio.h>

#include "client.h"
#include "common/values.h"
#include "common/wire.h"
#include "document/versions.h"

static json_t *info_of(struct hsk_doc *doc, const char *path, GError **error)
{
    const struct hsk_manifest *m = hsk_doc_manifest(doc);
    json_t *disks = json_array(), *versions = hsk_versions_json(doc, error), *v;
    size_t i, snapshots = 0;
    const char *state = "off", *engine = NULL;

    for (unsigned n = 0; n < m->ndisks; n++)
        json_array_append_new(disks, json_pack("{s:s, s:I, s:s}", "id", m->disks[n].id, "bytes",
                                               (json_int_t)m->disks[n].size_bytes, "interface",
                                               m->disks[n].interface));
    json_array_foreach(versions, i, v)
    {
        snapshots += strcmp(hsk_json_str(v, "kind", ""), "user") == 0;
        if (strcmp(hsk_json_str(v, "id", ""), hsk_doc_saved(doc)) == 0 &&
            hsk_json_bool(v, "has_state"))
            state = "saved";
    }
    json_t *out = json_pack("{s:s, s:s, s:s?, s:s, s:I, s:i, s:o, s:I, s:s}", "name", m->name,
                            "uuid", m->uuid, "engine", engine, "state", state, "memory",
                            (json_int_t)m->memory_bytes, "cpus", (int)m->ncpus, "disks", disks,
                            "snapshots", (json_int_t)snapshots, "path", path);
    json_decref(versions);
    return out;
}

static void print_info(const json_t *i)
{
    json_t *d;
    size_t n;

    printf("%s: %s", hsk_json_str(i, "name", ""), hsk_json_str(i, "state", ""));
    if (hsk_json_str(i, "text", NULL))
        printf(" (%s)", hsk_json_str(i, "text", ""));
    printf("\n  memory    %" G_GINT64_FORMAT " MiB\n  cpus      %" G_GINT64_FORMAT "\n",
           hsk_json_int(i, "memory", 0) >> 20, hsk_json_int(i, "cpus", 0));
    json_array_foreach(json_object_get(i, "disks"), n, d)
        printf("  disk      %s, %" G_GINT64_FORMAT " MiB\n", hsk_json_str(d, "id", ""),
               hsk_json_int(d, "bytes", 0) >> 20);
    printf("  snapshots %" G_GINT64_FORMAT "\n  uuid      %s\n", hsk_json_int(i, "snapshots", 0),
           hsk_json_str(i, "uuid", ""));
    if (hsk_json_str(i, "engine", NULL))
        printf("  engine    %s\n", hsk_json_str(i, "engine", ""));
    hsk_say("  file      %s", hsk_json_str(i, "path", ""));
    hsk_info_print_trust(i);
}

struct hsk_doc *hsk_open_document(const char *path, bool readonly, GError **error)
{
    g_autofree char *orphan = NULL;

    if (!g_file_test(path, G_FILE_TEST_EXISTS)) {
        g_set_error(
            error, HSK_ERROR, HSK_ERROR_NOT_FOUND,
            "there is neither a file nor a running machine \"%s\"; \"hva ps\" lists what runs",
            path);
        return NULL;
    }
    struct hsk_doc *doc = hsk_doc_open(path, readonly, &orphan, error);
    if (orphan)
        hsk_complain(orphan);
    return doc;
}

/* What a running machine says, or (made by read) what the file says; NULL + error. */
static json_t *look(const char *machine, const char *cmd,
                    json_t *(*read)(struct hsk_doc *doc, const char *path, GError **error),
                    GError **error)
{
    GError *failed = NULL;
    HSK_AUTO(hsk_client, c) = hsk_client_find(machine, &failed);

    if (failed) {
        g_propagate_error(error, failed);
        return NULL;
    }
    if (c)
        return hsk_client_ask(c, cmd, NULL, error);
    struct hsk_doc *doc = hsk_open_document(machine, true, error);
    if (!doc)
        return NULL;
    json_t *r = read(doc, machine, &failed);
    hsk_doc_close(doc);
    if (failed) {
        json_decref(r);
        g_propagate_error(error, failed);
        return NULL;
    }
    return r;
}

int hsk_cmd_info(int argc, char **argv)
{
    struct hsk_args a = {0};
    g_autoptr(GError) error = NULL;
    int status = 0;

    if (hsk_parse_args(&a, &argc, &argv, "MACHINE", 1, 1, &status)) {
        json_t *i = look(a.rest[0], "info", info_of, &error);
        if (i)
            hsk_info_add_trust(i, hsk_json_str(i, "path", ""));
        if (!i)
            status = hsk_fail(error);
        else if (a.json)
            hsk_print_json(i);
        else
            print_info(i);
        json_decref(i);
    }
    g_strfreev(a.rest);
    return status;
}
