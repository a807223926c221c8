/* SPDX-License-Identifier: MIT */
/* Versions that came with a document of somebody else's: see foreign.h. One file per document uuid,
 * one id per line. */
#include "foreign.h"

#include <errno.h>
#include <sys/stat.h>

/* The uuid comes from the document: only its letters and digits make the name. */
static char *list_path(const char *uuid)
{
    g_autofree char *name = g_strdup(uuid);

    g_strcanon(name, "0123456789abcdefABCDEF-", '-');
    return g_build_filename(g_get_user_data_dir(), "haversack", "foreign", name, NULL);
}

void hsk_foreign_load(const char *uuid, GHashTable *ids)
{
    g_autofree char *path = list_path(uuid), *text = NULL;

    if (!g_file_get_contents(path, &text, NULL, NULL))
        return;
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
    for (char **l = lines; *l; l++) {
        if (**l)
            g_hash_table_add(ids, g_strdup(*l));
    }
}

bool hsk_foreign_store(const char *uuid, GHashTable *ids, GError **error)
{
    g_autofree char *path = list_path(uuid), *dir = g_path_get_dirname(path);
    g_autoptr(GString) text = g_string_new(NULL);
    GHashTableIter it;
    gpointer id;

    g_hash_table_iter_init(&it, ids);
    while (g_hash_table_iter_next(&it, &id, NULL))
        g_string_append_printf(text, "%s\n", (const char *)id);
    if (g_mkdir_with_parents(dir, 0700) < 0) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_FAILED, "cannot make the folder %s: %s", dir,
                    g_strerror(errno));
        return false;
    }
    return g_file_set_contents_full(path, text->str, (gssize)text->len,
                                    G_FILE_SET_CONTENTS_CONSISTENT | G_FILE_SET_CONTENTS_DURABLE,
                                    0600, error);
}
