/* SPDX-License-Identifier: MIT */
/*
 * Version records as JSON (record.h; docs/format.md, "Versions"). Hostile input like the rest of a
 * document. One thread.
 */
#include "record.h"

#include <jansson.h>

#define MAX_OBJECTS     32u
#define MAX_TITLE_BYTES 1000u

static const char *const kinds[] = {
    [HSK_VERSION_USER] = "user",
    [HSK_VERSION_SAVED] = "saved",
    [HSK_VERSION_BEFORE_REVERT] = "before-revert",
    [HSK_VERSION_AUTO] = "auto",
};

struct hsk_record *hsk_record_new(void)
{
    struct hsk_record *r = g_new0(struct hsk_record, 1);
    r->objects = g_array_new(FALSE, FALSE, sizeof(struct hsk_object));
    r->ancestors = g_ptr_array_new_with_free_func(g_free);
    return r;
}

void hsk_record_free(struct hsk_record *r)
{
    if (r == NULL)
        return;
    g_free(r->member);
    g_free(r->info.title);
    g_free(r->info.engine);
    g_free(r->cpu);
    g_array_unref(r->objects);
    g_ptr_array_unref(r->ancestors);
    hsk_blob_clear(&r->state);
    hsk_blob_clear(&r->picture);
    hsk_blob_clear(&r->needed);
    g_free(r);
}

bool hsk_version_id_ok(const char *id)
{
    uint8_t raw[16];
    return strlen(id) == 32 && hsk_unhex(id, raw, sizeof(raw));
}

char *hsk_record_member(const char *id, uint32_t number)
{
    return number == 0 ? g_strdup_printf("versions/%s.json", id)
                       : g_strdup_printf("versions/%s.%06u.json", id, number);
}

bool hsk_record_is_member(const char *name, char id[33])
{
    guint64 number = 0;
    if (!g_str_has_prefix(name, "versions/") || strlen(name) < 9 + 32 + 5)
        return false;
    g_strlcpy(id, name + 9, 33);
    if (name[41] == '.' && g_ascii_isdigit(name[42]))
        number = g_ascii_strtoull(name + 42, NULL, 10);
    g_autofree char *want = hsk_record_member(id, (uint32_t)MIN(number, UINT32_MAX));
    return strcmp(name, want) == 0 && hsk_version_id_ok(id);
}

static json_t *blob_json(const struct hsk_blob *b)
{
    if (b->frames == NULL)
        return json_null();
    json_t *frames = json_array();
    for (guint i = 0; i < b->frames->len; i++) {
        uint64_t e = g_array_index(b->frames, uint64_t, i);
        json_array_append_new(frames, json_pack("[I,I]", (json_int_t)hsk_entry_segment(e),
                                                (json_int_t)hsk_entry_frame(e)));
    }
    return json_pack("{s:I, s:o}", "bytes", (json_int_t)b->bytes, "frames", frames);
}

char *hsk_record_format(const struct hsk_record *r)
{
    json_t *objects = json_object();
    for (guint i = 0; i < r->objects->len; i++) {
        const struct hsk_object *o = &g_array_index(r->objects, struct hsk_object, i);
        char ref[HSK_MAP_REF_DIGITS + 1];
        hsk_map_ref_format(ref, &o->root);
        json_object_set_new(
            objects, o->name,
            json_pack("{s:I, s:s}", "bytes", (json_int_t)o->size_bytes, "map", ref));
    }
    json_t *ancestors = json_array();
    for (guint i = 0; i < r->ancestors->len; i++)
        json_array_append_new(ancestors, json_string(g_ptr_array_index(r->ancestors, i)));
    json_t *v = json_pack(
        "{s:s, s:I, s:o, s:s, s:I, s:s, s:b, s:b, s:s, s:s, s:I, s:o, s:o, s:o, s:o}", "id",
        r->info.id, "order", (json_int_t)r->order, "ancestors", ancestors, "title", r->info.title,
        "time", (json_int_t)r->info.time, "kind", kinds[r->info.kind], "pinned", r->info.pinned,
        "hasState", r->info.has_state, "engine", r->info.engine, "cpu", r->cpu, "addedBytes",
        (json_int_t)r->info.bytes, "objects", objects, "state", blob_json(&r->state), "picture",
        blob_json(&r->picture), "needed", blob_json(&r->needed));
    hsk_assert(v != NULL);
    char *raw = json_dumps(v, JSON_INDENT(1));
    json_decref(v);
    hsk_assert(raw != NULL);
    char *text = g_strconcat(raw, "\n", NULL);
    free(raw);
    return text;
}

static bool get_uint(const json_t *o, const char *key, uint64_t max, uint64_t *out)
{
    const json_t *v = json_object_get(o, key);
    if (!json_is_integer(v) || json_integer_value(v) < 0 || (uint64_t)json_integer_value(v) > max)
        return false;
    *out = (uint64_t)json_integer_value(v);
    return true;
}

/* People see these: as in a manifest, nothing that a terminal would obey. */
static bool get_text(const json_t *o, const char *key, size_t max, char **out)
{
    const char *s = json_string_value(json_object_get(o, key));
    if (s == NULL || (s[0] != '\0' && !hsk_text_ok(s, max)))
        return false;
    *out = g_strdup(s);
    return true;
}

static bool read_blob(const json_t *v, struct hsk_blob *b)
{
    if (json_is_null(v))
        return true;
    const json_t *frames = json_object_get(v, "frames");
    if (!json_is_array(frames) ||
        json_array_size(frames) > HSK_BLOB_MAX_BYTES / HSK_FRAME_MAX_BYTES ||
        !get_uint(v, "bytes", HSK_BLOB_MAX_BYTES, &b->bytes))
        return false;
    b->frames = g_array_new(FALSE, FALSE, sizeof(uint64_t));
    for (size_t i = 0; i < json_array_size(frames); i++) {
        const json_t *pair = json_array_get(frames, i);
        json_int_t segment = json_integer_value(json_array_get(pair, 0)),
                   frame = json_integer_value(json_array_get(pair, 1));
        if (json_array_size(pair) != 2 || segment < 1 || segment > UINT32_MAX || frame < 0 ||
            frame >= (json_int_t)HSK_SEGMENT_MAX_FRAMES)
            return false;
        uint64_t entry = hsk_entry((uint32_t)segment, (uint32_t)frame, 0);
        g_array_append_val(b->frames, entry);
    }
    return true;
}

static bool read_objects(json_t *objects, struct hsk_record *r)
{
    const char *name;
    json_t *v;
    if (!json_is_object(objects) || json_object_size(objects) > MAX_OBJECTS)
        return false;
    json_object_foreach(objects, name, v)
    {
        struct hsk_object o = {0};
        const char *ref = json_string_value(json_object_get(v, "map"));
        if (!hsk_object_name_ok(name) || ref == NULL || !hsk_map_ref_parse(ref, &o.root) ||
            !get_uint(v, "bytes", HSK_OBJECT_MAX_BYTES, &o.size_bytes) || o.size_bytes == 0 ||
            o.size_bytes % HSK_PAGE_SIZE != 0)
            return false;
        g_strlcpy(o.name, name, sizeof(o.name));
        g_array_append_val(r->objects, o);
    }
    return true;
}

static bool read_ancestors(const json_t *list, struct hsk_record *r)
{
    if (!json_is_array(list) || json_array_size(list) > HSK_RECORD_MAX_ANCESTORS)
        return false;
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *id = json_string_value(json_array_get(list, i));
        if (id == NULL || !hsk_version_id_ok(id))
            return false;
        g_ptr_array_add(r->ancestors, g_strdup(id));
    }
    return true;
}

static bool read_record(const json_t *o, const char *id, struct hsk_record *r)
{
    const char *got = json_string_value(json_object_get(o, "id")),
               *kind = json_string_value(json_object_get(o, "kind"));
    uint64_t time;
    if (got == NULL || strcmp(got, id) != 0 || kind == NULL)
        return false;
    g_strlcpy(r->info.id, id, sizeof(r->info.id));
    unsigned k = 0;
    while (k < G_N_ELEMENTS(kinds) && strcmp(kinds[k], kind) != 0)
        k++;
    if (k == G_N_ELEMENTS(kinds) || !get_uint(o, "time", 1ull << 40, &time))
        return false;
    r->info.kind = (enum hsk_version_kind)k;
    r->info.time = (int64_t)time;
    r->info.pinned = json_is_true(json_object_get(o, "pinned"));
    r->info.has_state = json_is_true(json_object_get(o, "hasState"));
    return get_uint(o, "order", UINT64_MAX / 16, &r->order) &&
           get_uint(o, "addedBytes", UINT64_MAX / 16, &r->info.bytes) &&
           get_text(o, "title", MAX_TITLE_BYTES, &r->info.title) &&
           get_text(o, "engine", 100, &r->info.engine) && get_text(o, "cpu", 200, &r->cpu) &&
           read_ancestors(json_object_get(o, "ancestors"), r) &&
           read_objects(json_object_get(o, "objects"), r) &&
           read_blob(json_object_get(o, "state"), &r->state) &&
           read_blob(json_object_get(o, "picture"), &r->picture) &&
           (json_object_get(o, "needed") == NULL ||
            read_blob(json_object_get(o, "needed"), &r->needed)) &&
           r->info.has_state == (r->state.frames != NULL);
}

struct hsk_record *hsk_record_parse(const char *label, const char *id, const void *text,
                                    size_t bytes, GError **error)
{
    HSK_AUTO(hsk_record, r) = hsk_record_new();
    json_t *o =
        bytes > HSK_RECORD_MAX_BYTES ? NULL : json_loadb(text, bytes, JSON_REJECT_DUPLICATES, NULL);
    bool ok = json_is_object(o) && read_record(o, id, r);
    json_decref(o);
    if (!ok) {
        hsk_damaged(error, label, "the record of version %s makes no sense", id);
        return NULL;
    }
    return g_steal_pointer(&r);
}
