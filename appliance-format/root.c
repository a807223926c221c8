/* SPDX-License-Identifier: MIT */
/*
 * ROOT as text (root.h; docs/format.md, "ROOT"). What b2sum does not know is in lines that begin
 * with '#'; a line that this reader does not know is an error, so that nothing is dropped silently
 * on the next write. One thread.
 */
#include <appliance-format/root.h>
#include <appliance-format/tar.h>

#include <inttypes.h>
#include <stdio.h>

#define MAX_ENTRIES 100000u
#define MAX_PRESENT 64u

static void entry_free(gpointer p)
{
    struct hsk_root_entry *e = p;
    g_free(e->name);
    g_free(e);
}

struct hsk_root *hsk_root_new(const char *document)
{
    struct hsk_root *root = g_new0(struct hsk_root, 1);
    root->document = g_strdup(document);
    root->next_number = 1;
    root->present = g_array_new(FALSE, TRUE, sizeof(struct hsk_object));
    root->entries = g_ptr_array_new_with_free_func(entry_free);
    root->by_name = g_hash_table_new(g_str_hash, g_str_equal);
    return root;
}

void hsk_root_free(struct hsk_root *root)
{
    if (root == NULL)
        return;
    g_hash_table_unref(root->by_name);
    g_ptr_array_unref(root->entries);
    g_array_unref(root->present);
    g_free(root->document);
    g_free(root);
}

struct hsk_root *hsk_root_copy(const struct hsk_root *root)
{
    struct hsk_root *r = hsk_root_new(root->document);
    r->generation = root->generation;
    memcpy(r->current, root->current, sizeof(r->current));
    r->next_number = root->next_number;
    r->log_number = root->log_number;
    r->log_seq = root->log_seq;
    g_array_append_vals(r->present, root->present->data, root->present->len);
    for (guint i = 0; i < root->entries->len; i++) {
        const struct hsk_root_entry *e = g_ptr_array_index(root->entries, i);
        hsk_root_set(r, e->name, e->hash, e->is_segment ? &e->segment : NULL);
    }
    return r;
}

void hsk_root_set(struct hsk_root *root, const char *name, const uint8_t hash[HSK_HASH_BYTES],
                  const struct hsk_segment_id *segment)
{
    struct hsk_root_entry *e = g_hash_table_lookup(root->by_name, name);
    if (e == NULL) {
        e = g_new0(struct hsk_root_entry, 1);
        e->name = g_strdup(name);
        g_ptr_array_add(root->entries, e);
        g_hash_table_insert(root->by_name, e->name, e);
    }
    memcpy(e->hash, hash, HSK_HASH_BYTES);
    e->is_segment = segment != NULL;
    if (segment != NULL)
        e->segment = *segment;
}

void hsk_root_remove(struct hsk_root *root, const char *name)
{
    struct hsk_root_entry *e = g_hash_table_lookup(root->by_name, name);
    if (e == NULL)
        return;
    g_hash_table_remove(root->by_name, name);
    g_ptr_array_remove(root->entries, e);
}

const struct hsk_root_entry *hsk_root_find(const struct hsk_root *root, const char *name)
{
    return g_hash_table_lookup(root->by_name, name);
}

struct hsk_object *hsk_objects_find(const GArray *objects, const char *name)
{
    for (guint i = 0; i < objects->len; i++) {
        struct hsk_object *o = &g_array_index(objects, struct hsk_object, i);
        if (strcmp(o->name, name) == 0)
            return o;
    }
    return NULL;
}

void hsk_objects_set(GArray *objects, const struct hsk_object *object)
{
    struct hsk_object *o = hsk_objects_find(objects, object->name);
    if (o != NULL)
        *o = *object;
    else
        g_array_append_vals(objects, object, 1);
}

struct hsk_object *hsk_root_present(const struct hsk_root *root, const char *object)
{
    return hsk_objects_find(root->present, object);
}

bool hsk_object_name_ok(const char *name)
{
    size_t n = strlen(name);
    if (n == 0 || n > HSK_OBJECT_NAME_MAX)
        return false;
    for (; *name != '\0'; name++) {
        if (!g_ascii_islower(*name) && !g_ascii_isdigit(*name) && *name != '-' && *name != '.')
            return false;
    }
    return true;
}

static gint by_name(gconstpointer a, gconstpointer b)
{
    const struct hsk_root_entry *const *x = a, *const *y = b;
    return strcmp((*x)->name, (*y)->name);
}

char *hsk_root_format(const struct hsk_root *root)
{
    GString *s = g_string_new("# haversack root 1\n");
    char hex[2 * HSK_HASH_BYTES + 1];
    g_string_append_printf(s, "# document %s generation %" PRIu64 "\n", root->document,
                           root->generation);
    g_string_append_printf(s, "# current %s\n", root->current[0] == '\0' ? "-" : root->current);
    g_string_append_printf(s, "# next %u\n", root->next_number);
    if (root->log_number != 0)
        g_string_append_printf(s, "# log %u %" PRIu64 "\n", root->log_number, root->log_seq);
    for (guint i = 0; i < root->present->len; i++) {
        const struct hsk_object *o = &g_array_index(root->present, struct hsk_object, i);
        char ref[HSK_MAP_REF_DIGITS + 1];
        hsk_map_ref_format(ref, &o->root);
        g_string_append_printf(s, "# present %s %" PRIu64 " %s\n", o->name, o->size_bytes, ref);
    }
    g_autoptr(GPtrArray) sorted = g_ptr_array_copy(root->entries, NULL, NULL);
    g_ptr_array_set_free_func(sorted, NULL);
    g_ptr_array_sort(sorted, by_name);
    for (guint i = 0; i < sorted->len; i++) {
        const struct hsk_root_entry *e = g_ptr_array_index(sorted, i);
        hsk_hex(hex, e->hash, HSK_HASH_BYTES);
        g_string_append_printf(s, "BLAKE2b-256 (%s) = %s\n", e->name, hex);
        if (e->is_segment) {
            hsk_hex(hex, e->segment.table_hash, HSK_HASH_BYTES);
            g_string_append_printf(s, "# segment %u frames %u table %s\n", e->segment.number,
                                   e->segment.nframes, hex);
        }
    }
    uint8_t hash[HSK_HASH_BYTES];
    hsk_hash(s->str, s->len, hash);
    hsk_hex(hex, hash, sizeof(hash));
    g_string_append_printf(s, "# end %s\n", hex);
    return g_string_free(s, FALSE);
}

/* Canonical decimal number at *p up to max, then the character stop; moves *p behind it. */
static bool number(const char **p, uint64_t max, char stop, uint64_t *out)
{
    if (!g_ascii_isdigit(**p) || (**p == '0' && g_ascii_isdigit((*p)[1])))
        return false;
    uint64_t v = 0;
    for (; g_ascii_isdigit(**p); (*p)++) {
        unsigned digit = (unsigned)(**p - '0');
        if (v > (max - digit) / 10)
            return false;
        v = v * 10 + digit;
    }
    *out = v;
    if (**p != stop)
        return false;
    if (stop != '\0')
        (*p)++;
    return true;
}

static bool skip(const char **p, const char *word)
{
    if (!g_str_has_prefix(*p, word))
        return false;
    *p += strlen(word);
    return true;
}

static bool parse_present(struct hsk_root *root, const char *p)
{
    struct hsk_object o = {0};
    const char *space = strchr(p, ' ');
    if (space == NULL || space - p > HSK_OBJECT_NAME_MAX || root->present->len == MAX_PRESENT)
        return false;
    memcpy(o.name, p, (size_t)(space - p));
    p = space + 1;
    if (!hsk_object_name_ok(o.name) || hsk_root_present(root, o.name) != NULL)
        return false;
    if (!number(&p, HSK_OBJECT_MAX_BYTES, ' ', &o.size_bytes) || o.size_bytes == 0 ||
        o.size_bytes % HSK_PAGE_SIZE != 0)
        return false;
    if (!hsk_map_ref_parse(p, &o.root))
        return false;
    hsk_objects_set(root->present, &o);
    return true;
}

/* The line behind a segment's: its number must be the one in its name. */
static bool parse_segment(struct hsk_root_entry *e, const char *p)
{
    uint64_t n, frames;
    if (e == NULL || e->is_segment || !number(&p, UINT32_MAX, ' ', &n) || !skip(&p, "frames ") ||
        !number(&p, HSK_SEGMENT_MAX_FRAMES, ' ', &frames) || !skip(&p, "table ") ||
        strlen(p) != 2 * HSK_HASH_BYTES)
        return false;
    g_autofree char *tail = g_strdup_printf("/%06u.zst", (uint32_t)n);
    if (n == 0 || frames == 0 || !g_str_has_suffix(e->name, tail) ||
        !hsk_unhex(p, e->segment.table_hash, HSK_HASH_BYTES))
        return false;
    e->is_segment = true;
    e->segment.number = (uint32_t)n;
    e->segment.nframes = (uint32_t)frames;
    return true;
}

static bool parse_member(struct hsk_root *root, const char *p)
{
    const char *close = strstr(p, ") = ");
    if (close == NULL || root->entries->len == MAX_ENTRIES)
        return false;
    g_autofree char *name = g_strndup(p, (gsize)(close - p));
    uint8_t hash[HSK_HASH_BYTES];
    p = close + 4;
    if (!hsk_tar_name_ok(name) || hsk_root_find(root, name) != NULL ||
        strlen(p) != 2 * HSK_HASH_BYTES || !hsk_unhex(p, hash, sizeof(hash)))
        return false;
    hsk_root_set(root, name, hash, NULL);
    return true;
}

static bool parse_document(struct hsk_root *root, const char *p)
{
    const char *space = strchr(p, ' ');
    if (root->document != NULL || space == NULL || space - p != 36)
        return false;
    root->document = g_strndup(p, 36);
    p = space;
    return g_uuid_string_is_valid(root->document) && skip(&p, " generation ") &&
           number(&p, UINT64_MAX / 16, '\0', &root->generation);
}

static bool parse_current(struct hsk_root *root, const char *p)
{
    uint8_t id[16];
    if (strcmp(p, "-") == 0)
        return true;
    if (strlen(p) != 32 || !hsk_unhex(p, id, sizeof(id)))
        return false;
    g_strlcpy(root->current, p, sizeof(root->current));
    return true;
}

/* Lines that may be there once. */
enum { SEEN_CURRENT = 1, SEEN_NEXT = 2, SEEN_LOG = 4 };

static bool once(unsigned *seen, unsigned what)
{
    bool first = !(*seen & what);
    *seen |= what;
    return first;
}

static bool parse_line(struct hsk_root *root, const char *line, unsigned *seen)
{
    uint64_t n = 0;
    const char *p = line;
    if (skip(&p, "BLAKE2b-256 ("))
        return parse_member(root, p);
    if (skip(&p, "# segment "))
        return parse_segment(root->entries->len == 0
                                 ? NULL
                                 : g_ptr_array_index(root->entries, root->entries->len - 1),
                             p);
    if (skip(&p, "# present "))
        return parse_present(root, p);
    if (skip(&p, "# document "))
        return parse_document(root, p);
    if (skip(&p, "# current "))
        return once(seen, SEEN_CURRENT) && parse_current(root, p);
    if (skip(&p, "# next ")) {
        bool ok = once(seen, SEEN_NEXT) && number(&p, UINT32_MAX, '\0', &n) && n > 0;
        root->next_number = (uint32_t)(ok ? n : 1);
        return ok;
    }
    if (skip(&p, "# log ")) {
        bool ok = once(seen, SEEN_LOG) && number(&p, UINT32_MAX, ' ', &n) && n > 0 &&
                  number(&p, UINT64_MAX / 16, '\0', &root->log_seq);
        root->log_number = (uint32_t)(ok ? n : 0);
        return ok;
    }
    return false;
}

/* The last line holds the hash of all before it. Cuts it off. */
static bool check_end(char *text, size_t bytes)
{
    static const char word[] = "# end ";
    const size_t len = sizeof(word) - 1 + 2 * HSK_HASH_BYTES + 1;
    uint8_t want[HSK_HASH_BYTES], got[HSK_HASH_BYTES];
    if (bytes < len || memchr(text, '\0', bytes) != NULL || text[bytes - 1] != '\n')
        return false;
    char *line = text + bytes - len;
    if (line == text || line[-1] != '\n' || memcmp(line, word, sizeof(word) - 1) != 0 ||
        !hsk_unhex(line + sizeof(word) - 1, want, sizeof(want)))
        return false;
    hsk_hash(text, bytes - len, got);
    *line = '\0';
    return memcmp(want, got, sizeof(got)) == 0;
}

struct hsk_root *hsk_root_parse(const char *text, size_t bytes, const char *label, GError **error)
{
    if (bytes > HSK_ROOT_MAX_BYTES) {
        hsk_damaged(error, label, "its ROOT is larger than it can be");
        return NULL;
    }
    g_autofree char *copy = g_strndup(text, bytes);
    char *p = copy;
    if (bytes >= 17 && memcmp(text, "# haversack root ", 17) == 0 &&
        (bytes < 19 || memcmp(text + 17, "1\n", 2) != 0)) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_UNSUPPORTED,
                    "%s was made by a newer Haversack; update this one to open it", label);
        return NULL;
    }
    /* strndup stops at a NUL; check_end must see the same bytes */
    if (strlen(copy) != bytes || !check_end(copy, bytes) ||
        !skip((const char **)&p, "# haversack root 1\n")) {
        hsk_damaged(error, label, "its ROOT is not whole");
        return NULL;
    }
    HSK_AUTO(hsk_root, root) = hsk_root_new(NULL);
    unsigned seen = 0;
    while (*p != '\0') {
        char *nl = strchr(p, '\n');
        *nl = '\0'; /* check_end saw one before the last line */
        if (!parse_line(root, p, &seen)) {
            hsk_damaged(error, label, "its ROOT has a line that makes no sense");
            return NULL;
        }
        p = nl + 1;
    }
    if (root->document == NULL) {
        hsk_damaged(error, label, "its ROOT names no document");
        return NULL;
    }
    return g_steal_pointer(&root);
}
