/* SPDX-License-Identifier: MIT */
/* Settings of one machine: see settings.h. */
#include "common/settings.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/stat.h>

char *hsk_user_file(const char *folder, const char *uuid)
{
    g_autofree char *name = g_strdup(uuid);

    g_strcanon(name, "0123456789abcdefABCDEF-", '-');
    return g_build_filename(g_get_user_data_dir(), "haversack", folder, name, NULL);
}

static GKeyFile *load(const char *uuid)
{
    g_autofree char *path = hsk_user_file("settings", uuid);
    GKeyFile *k = g_key_file_new();

    g_key_file_load_from_file(k, path, G_KEY_FILE_NONE, NULL);
    return k;
}

static bool store(const char *uuid, GKeyFile *k, GError **error)
{
    g_autofree char *path = hsk_user_file("settings", uuid), *dir = g_path_get_dirname(path);
    gsize len = 0;
    g_autofree char *text = g_key_file_to_data(k, &len, NULL);

    if (g_mkdir_with_parents(dir, 0700) < 0) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_FAILED, "cannot make the folder %s: %s", dir,
                    g_strerror(errno));
        return false;
    }
    return g_file_set_contents_full(path, text, (gssize)len, G_FILE_SET_CONTENTS_CONSISTENT, 0600,
                                    error);
}

static bool get_bool(GKeyFile *k, const char *group, const char *key, bool fallback)
{
    g_autoptr(GError) error = NULL;
    bool v = g_key_file_get_boolean(k, group, key, &error);

    return error ? fallback : v;
}

void hsk_settings_load(const char *uuid, struct hsk_settings *s)
{
    g_autoptr(GKeyFile) k = load(uuid);
    uint64_t every = g_key_file_get_uint64(k, "timeline", "every", NULL);

    *s = (struct hsk_settings){
        .timeline = get_bool(k, "timeline", "on", true),
        .timeline_told = get_bool(k, "timeline", "told", false),
        .every_s = every >= 1 && every <= HSK_TIMELINE_MAX_EVERY_S ? (unsigned)every
                                                                   : HSK_TIMELINE_EVERY_S,
        .limit_bytes = g_key_file_get_uint64(k, "timeline", "limit", NULL),
        .catch_up = get_bool(k, "clock", "catch-up", true),
    };
    if (s->limit_bytes && s->limit_bytes < HSK_TIMELINE_MIN_LIMIT)
        s->limit_bytes = HSK_TIMELINE_MIN_LIMIT;
}

bool hsk_settings_store(const char *uuid, const struct hsk_settings *s, GError **error)
{
    g_autoptr(GKeyFile) k = load(uuid);

    g_key_file_set_boolean(k, "timeline", "on", s->timeline);
    g_key_file_set_boolean(k, "timeline", "told", s->timeline_told);
    g_key_file_set_uint64(k, "timeline", "every", s->every_s);
    g_key_file_set_uint64(k, "timeline", "limit", s->limit_bytes);
    g_key_file_set_boolean(k, "clock", "catch-up", s->catch_up);
    return store(uuid, k, error);
}

bool hsk_generation_load(const char *uuid, const char *instance, uint64_t id[2])
{
    g_autoptr(GKeyFile) k = load(uuid);
    g_autofree char *text = g_key_file_get_string(k, "generations", instance, NULL);

    return text && sscanf(text, "%16" SCNx64 ":%16" SCNx64, &id[0], &id[1]) == 2;
}

bool hsk_generation_store(const char *uuid, const char *instance, const uint64_t id[2],
                          GError **error)
{
    g_autoptr(GKeyFile) k = load(uuid);
    g_autofree char *text = g_strdup_printf("%016" PRIx64 ":%016" PRIx64, id[0], id[1]);

    g_key_file_set_string(k, "generations", instance, text);
    return store(uuid, k, error);
}
