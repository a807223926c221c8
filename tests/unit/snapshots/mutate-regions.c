/* SPDX-License-Identifier: MIT */
/*
 * Where a document and an instance have which structure (mutate.h): found with the store's own
 * readers, in files that are as they were written. One thread.
 */
#include "mutate.h"

enum { TABLE_HEADER = 8 + 16, TABLE_ENTRY = 64, NODE = 1024, LOG_HEADER = 64 };

static void add_region(struct world *w, unsigned which, enum part part, size_t off, size_t bytes,
                       size_t table)
{
    struct region r = {part, off, bytes, table};
    if (bytes > 0)
        g_array_append_val(w->regions[which], r);
}

/* Which frames hold state, pictures and needed sets: entry -> part. */
static GHashTable *find_blobs(const struct hsk_doc *doc)
{
    GHashTable *parts = g_hash_table_new(NULL, NULL);
    for (guint i = 0; i < doc->versions->len; i++) {
        const struct hsk_record *r = g_ptr_array_index(doc->versions, i);
        const struct hsk_blob *blobs[] = {&r->state, &r->picture, &r->needed};
        for (unsigned b = 0; b < G_N_ELEMENTS(blobs); b++) {
            for (guint k = 0; blobs[b]->frames != NULL && k < blobs[b]->frames->len; k++)
                g_hash_table_insert(parts,
                                    GSIZE_TO_POINTER(g_array_index(blobs[b]->frames, uint64_t, k)),
                                    GUINT_TO_POINTER(PART_STATE + b));
        }
    }
    return parts;
}

static void know_segment(struct world *w, unsigned which, struct hsk_doc *doc, GHashTable *blobs,
                         uint32_t number, size_t off, size_t bytes)
{
    HSK_AUTO(hsk_segment, s) = hsk_content_segment(doc->content, number, NULL);
    hsk_assert(s != NULL);
    uint32_t n = hsk_segment_nframes(s);
    const struct hsk_frame *last = hsk_segment_frame(s, n - 1);
    size_t table = last->offset + last->csize, entries = table + TABLE_HEADER,
           seek = entries + (size_t)TABLE_ENTRY * n;
    for (uint32_t i = 0; i < n; i++) {
        const struct hsk_frame *f = hsk_segment_frame(s, i);
        size_t entry = off + entries + (size_t)TABLE_ENTRY * i;
        gpointer blob = g_hash_table_lookup(blobs, GSIZE_TO_POINTER(hsk_entry(number, i, 0)));
        enum part part = blob == NULL ? PART_FRAME : (enum part)GPOINTER_TO_UINT(blob);
        add_region(w, which, PART_TABLE, entry, TABLE_ENTRY, 0);
        if (f->flags == 0)
            add_region(w, which, part, off + f->offset, f->csize, entry);
    }
    add_region(w, which, PART_TABLE, off + table, TABLE_HEADER, 0);
    add_region(w, which, PART_SEEK, off + seek, bytes - seek, 0);
}

static void know_member(struct world *w, unsigned which, struct hsk_doc *doc, GHashTable *blobs,
                        const char *name, size_t off, size_t bytes)
{
    const struct hsk_root_entry *e = hsk_root_find(doc->root, name);
    if (strcmp(name, "ROOT") == 0)
        add_region(w, which, PART_ROOT, off, bytes, 0);
    else if (strcmp(name, "ROOT.minisig") == 0)
        add_region(w, which, PART_SIGNATURE, off, bytes, 0);
    else if (strcmp(name, "manifest.json") == 0)
        add_region(w, which, PART_MANIFEST, off, bytes, 0);
    else if (e == NULL)
        return;
    else if (e->is_segment)
        know_segment(w, which, doc, blobs, e->segment.number, off, bytes);
    else if (g_str_has_prefix(name, "boot/"))
        add_region(w, which, PART_BOOT, off, bytes, 0);
    else if (g_str_has_prefix(name, "versions/"))
        add_region(w, which, PART_RECORD, off, bytes, 0);
    else if (g_str_has_prefix(name, "map/"))
        for (size_t at = 0; at < bytes; at += NODE)
            add_region(w, which, PART_NODE, off + at, MIN(NODE, bytes - at), 0);
}

void mutate_know(struct world *w, unsigned which, const char *path)
{
    const uint8_t *file = w->files[which];
    g_autoptr(GHashTable) last =
        g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL); /* name -> header */
    struct hsk_doc *doc = hsk_doc_open(path, true, NULL, NULL);
    hsk_assert(doc != NULL);
    g_autoptr(GHashTable) blobs = find_blobs(doc);
    w->regions[which] = g_array_new(FALSE, FALSE, sizeof(struct region));
    for (size_t pos = 0; pos + 512 <= w->sizes[which] && file[pos] != 0;) {
        g_autofree char *size = g_strndup((const char *)file + pos + 124, 12);
        g_hash_table_insert(last, g_strdup((const char *)file + pos), GSIZE_TO_POINTER(pos));
        pos += 512 + (strtoull(size, NULL, 8) + 511) / 512 * 512;
    }
    GHashTableIter it;
    gpointer name, pos;
    g_hash_table_iter_init(&it, last);
    while (g_hash_table_iter_next(&it, &name, &pos)) {
        size_t off = GPOINTER_TO_SIZE(pos);
        g_autofree char *size = g_strndup((const char *)file + off + 124, 12);
        know_member(w, which, doc, blobs, name, off + 512, strtoull(size, NULL, 8));
    }
    hsk_doc_close(doc);
}

/* ---- the instance ---- */

static void know_log(struct world *w, size_t off, size_t bytes)
{
    const uint8_t *file = w->files[OWN] + off;
    add_region(w, OWN, PART_LOG, off, LOG_HEADER, 0);
    for (size_t at = LOG_HEADER; at + LOG_HEADER <= bytes;) {
        size_t payload =
            hsk_get32(file + at + 4) == 1 ? hsk_get32(file + at + 28) * HSK_PAGE_SIZE : 0;
        add_region(w, OWN, PART_LOG, off + at, LOG_HEADER, 0);
        add_region(w, OWN, PART_LOG, off + at, LOG_HEADER + payload, 0);
        at += LOG_HEADER + payload;
    }
}

static void take_files(struct world *w, GByteArray *all, const char *folder, const char *name)
{
    g_autofree char *path = g_build_filename(folder, name, NULL);
    g_autoptr(GDir) dir = g_dir_open(path, 0, NULL);
    const char *child;
    while (dir != NULL && (child = g_dir_read_name(dir)) != NULL) {
        g_autofree char *below = g_build_filename(name, child, NULL);
        take_files(w, all, folder, below);
    }
    if (dir != NULL)
        return;
    struct own_file f = {.name = g_strdup(name), .off = all->len};
    g_autofree char *text = NULL;
    hsk_assert(g_file_get_contents(path, &text, &f.bytes, NULL));
    g_byte_array_append(all, (const guint8 *)text, (guint)f.bytes);
    g_array_append_val(w->own, f);
}

void mutate_know_own(struct world *w, const char *folder)
{
    GByteArray *all = g_byte_array_new();
    w->own = g_array_new(FALSE, FALSE, sizeof(struct own_file));
    w->regions[OWN] = g_array_new(FALSE, FALSE, sizeof(struct region));
    w->instance = g_strdup(folder);
    take_files(w, all, folder, "");
    w->sizes[OWN] = all->len;
    w->files[OWN] = g_byte_array_free(all, FALSE);
    for (guint i = 0; i < w->own->len; i++) {
        const struct own_file *f = &g_array_index(w->own, struct own_file, i);
        if (g_str_has_prefix(f->name, "log/"))
            know_log(w, f->off, f->bytes);
        else
            add_region(w, OWN, strcmp(f->name, "ROOT") == 0 ? PART_OWN_ROOT : PART_OWN, f->off,
                       f->bytes, 0);
    }
}

void mutate_write_own(const struct world *w, const GByteArray *mutant)
{
    for (guint i = 0; i < w->own->len; i++) {
        const struct own_file *f = &g_array_index(w->own, struct own_file, i);
        g_autofree char *path = g_build_filename(w->instance, f->name, NULL);
        g_autofree char *folder = g_path_get_dirname(path);
        hsk_assert(g_mkdir_with_parents(folder, 0700) == 0);
        close(make_file(path, mutant->data + f->off, f->bytes));
    }
}

void mutate_forget(struct world *w)
{
    for (guint i = 0; i < w->own->len; i++)
        g_free(g_array_index(w->own, struct own_file, i).name);
    g_array_unref(w->own);
    for (unsigned i = 0; i <= OWN; i++) {
        g_array_unref(w->regions[i]);
        g_free(w->files[i]);
    }
    g_free(w->instance);
    g_free(w->newest[0]);
    g_free(w->newest[1]);
    g_free(w->newest_disk);
    g_free(w->signature);
    g_hash_table_unref(w->truth);
    g_hash_table_unref(w->signed_roots);
    g_hash_table_unref(w->disks);
}
