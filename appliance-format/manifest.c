/* SPDX-License-Identifier: MIT */
/*
 * manifest.json (manifest.h; docs/format.md, "manifest.json"). Jansson with duplicate keys refused;
 * every value is checked against a range before anything uses it, because a bundle may come from
 * anybody. Unknown keys are ignored: a newer writer that needs them understood says so in
 * "requires". Any thread.
 */
#include <appliance-format/io.h>
#include <appliance-format/manifest.h>

#include <inttypes.h>
#include <jansson.h>

#define MAX_DEPTH         16
#define MAX_CMDLINE_BYTES 4096
#define MAX_DISKS         16
#define MAX_CPUS          64
#define MAX_MEMORY        (1ull << 40)
#define MAX_VRAM          (1ull << 30)
#define MAX_DISK          (1ull << 44)

void hsk_manifest_free(struct hsk_manifest *m)
{
    if (m == NULL)
        return;
    for (unsigned i = 0; i < m->ndisks; i++) {
        g_free(m->disks[i].id);
        g_free(m->disks[i].interface);
    }
    g_free(m->disks);
    g_free(m->uuid);
    g_free(m->name);
    g_free(m->cpu);
    g_free(m->cmdline);
    g_free(m);
}

struct hsk_manifest *hsk_manifest_copy(const struct hsk_manifest *m)
{
    struct hsk_manifest *c = g_new0(struct hsk_manifest, 1);
    *c = *m;
    c->uuid = m->uuid != NULL ? g_strdup(m->uuid) : g_uuid_string_random();
    c->name = g_strdup(m->name);
    c->cpu = g_strdup(m->cpu);
    c->cmdline = g_strdup(m->cmdline);
    c->disks = g_new0(struct hsk_manifest_disk, m->ndisks);
    for (unsigned i = 0; i < m->ndisks; i++) {
        uint64_t size = m->disks[i].size_bytes;
        c->disks[i].id = g_strdup(m->disks[i].id);
        c->disks[i].interface = g_strdup(m->disks[i].interface);
        c->disks[i].size_bytes =
            size > MAX_DISK ? size : (size + HSK_PAGE_SIZE - 1) / HSK_PAGE_SIZE * HSK_PAGE_SIZE;
    }
    return c;
}

static bool word_ok(const char *s, size_t max, const char *also)
{
    size_t len = strlen(s);
    if (len == 0 || len > max)
        return false;
    for (; *s != '\0'; s++) {
        if (!g_ascii_isalnum(*s) && strchr(also, *s) == NULL)
            return false;
    }
    return true;
}

static bool lower_word_ok(const char *s, size_t max)
{
    if (!word_ok(s, max, "-"))
        return false;
    for (; *s != '\0'; s++) {
        if (g_ascii_isupper(*s))
            return false;
    }
    return true;
}

/* The rules that reader and writer share. */
static const char *broken_rule(const struct hsk_manifest *m)
{
    if (m->uuid == NULL || !g_uuid_string_is_valid(m->uuid))
        return "the uuid is none";
    if (m->name == NULL || !hsk_text_ok(m->name, HSK_MANIFEST_NAME_MAX))
        return "the name is empty, too long or has characters that cannot be shown";
    if (m->ncpus < 1 || m->ncpus > MAX_CPUS)
        return "the number of processors is not between 1 and 64";
    if (m->memory_bytes < (1u << 20) || m->memory_bytes > MAX_MEMORY ||
        m->memory_bytes % HSK_PAGE_SIZE != 0)
        return "the memory size is not between 1 MiB and 1 TiB in steps of 4 KiB";
    if (m->vram_bytes > MAX_VRAM || m->vram_bytes % HSK_PAGE_SIZE != 0)
        return "the size of the screen's memory is not possible";
    if (m->cpu != NULL && !word_ok(m->cpu, 200, "-_.,+"))
        return "the processor model has an impossible name";
    if (m->cmdline != NULL && m->cmdline[0] != '\0' && !hsk_text_ok(m->cmdline, MAX_CMDLINE_BYTES))
        return "the kernel's command line is too long or has characters that do not belong there";
    if ((m->has_initrd || m->cmdline != NULL) && !m->has_kernel)
        return "there is an initrd or a command line but no kernel";
    if (m->ndisks > MAX_DISKS)
        return "there are more than 16 disks";
    for (unsigned i = 0; i < m->ndisks; i++) {
        const struct hsk_manifest_disk *d = &m->disks[i];
        if (d->id == NULL || !lower_word_ok(d->id, 32))
            return "a disk has an impossible id";
        if (d->size_bytes == 0 || d->size_bytes > MAX_DISK || d->size_bytes % HSK_PAGE_SIZE != 0)
            return "a disk has an impossible size";
        if (d->interface == NULL || !lower_word_ok(d->interface, 32))
            return "a disk has an impossible interface";
        for (unsigned k = 0; k < i; k++) {
            if (strcmp(m->disks[k].id, d->id) == 0)
                return "two disks have the same id";
        }
    }
    return NULL;
}

static bool depth_ok(const json_t *v, unsigned depth)
{
    const char *key;
    json_t *child;
    size_t i;
    if (depth > MAX_DEPTH)
        return false;
    if (json_is_object(v)) {
        json_object_foreach((json_t *)v, key, child)
        {
            if (!depth_ok(child, depth + 1))
                return false;
        }
    } else if (json_is_array(v)) {
        json_array_foreach(v, i, child)
        {
            if (!depth_ok(child, depth + 1))
                return false;
        }
    }
    return true;
}

/* false: there, but not a string. NULL result: not there. */
static bool get_string(const json_t *o, const char *key, char **out)
{
    const json_t *v = json_object_get(o, key);
    if (v == NULL || json_is_null(v))
        return true;
    *out = g_strdup(json_string_value(v));
    return *out != NULL;
}

static bool get_size(const json_t *o, const char *key, uint64_t *out)
{
    const json_t *v = json_object_get(o, key);
    if (v == NULL)
        return true;
    if (!json_is_integer(v) || json_integer_value(v) < 0)
        return false;
    *out = (uint64_t)json_integer_value(v);
    return true;
}

static bool read_disks(const json_t *list, struct hsk_manifest *m)
{
    if (list == NULL)
        return true;
    if (!json_is_array(list) || json_array_size(list) > MAX_DISKS)
        return false;
    m->disks = g_new0(struct hsk_manifest_disk, MAX_DISKS);
    size_t i;
    json_t *v;
    json_array_foreach(list, i, v)
    {
        struct hsk_manifest_disk *d = &m->disks[m->ndisks++];
        if (!get_string(v, "id", &d->id) || !get_string(v, "bus", &d->interface) ||
            !get_size(v, "bytes", &d->size_bytes))
            return false;
    }
    return true;
}

/* A boot member has one name only: the manifest cannot point elsewhere. */
static bool read_boot(const json_t *boot, struct hsk_manifest *m)
{
    if (boot == NULL)
        return true;
    g_autofree char *kernel = NULL;
    g_autofree char *initrd = NULL;
    if (!json_is_object(boot) || !get_string(boot, "kernel", &kernel) ||
        !get_string(boot, "initrd", &initrd) || !get_string(boot, "commandLine", &m->cmdline))
        return false;
    m->has_kernel = kernel != NULL;
    m->has_initrd = initrd != NULL;
    return (kernel == NULL || strcmp(kernel, "boot/kernel") == 0) &&
           (initrd == NULL || strcmp(initrd, "boot/initrd") == 0);
}

static bool read_machine(const json_t *o, struct hsk_manifest *m)
{
    const json_t *machine = json_object_get(o, "machine");
    const json_t *cpu = json_object_get(machine, "cpu");
    uint64_t count = 1;
    if (!json_is_object(machine) || !get_string(o, "uuid", &m->uuid) ||
        !get_string(o, "name", &m->name))
        return false;
    if (cpu != NULL && (!json_is_object(cpu) || !get_string(cpu, "model", &m->cpu) ||
                        !get_size(cpu, "count", &count)))
        return false;
    m->ncpus = count > MAX_CPUS ? MAX_CPUS + 1 : (unsigned)count;
    return get_size(json_object_get(machine, "memory"), "bytes", &m->memory_bytes) &&
           get_size(json_object_get(machine, "vram"), "bytes", &m->vram_bytes) &&
           read_boot(json_object_get(machine, "boot"), m) &&
           read_disks(json_object_get(o, "disks"), m);
}

/* Everything that says "you would go wrong with this". */
static bool check_compatible(const json_t *o, const char *label, GError **error)
{
    const char *format = json_string_value(json_object_get(o, "format"));
    const json_t *version = json_object_get(o, "formatVersion");
    const json_t *requires = json_object_get(o, "requires");
    const char *type = json_string_value(json_object_get(json_object_get(o, "machine"), "type"));
    if (format == NULL || strcmp(format, "haversack-appliance") != 0 ||
        !json_is_integer(json_array_get(version, 0)))
        return hsk_damaged(error, label, "its manifest is not a Haversack manifest");
    if (json_integer_value(json_array_get(version, 0)) != 1) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_UNSUPPORTED,
                    "%s is in format version %" JSON_INTEGER_FORMAT
                    "; this Haversack knows version 1",
                    label, json_integer_value(json_array_get(version, 0)));
        return false;
    }
    if (requires != NULL && (!json_is_array(requires) || json_array_size(requires) > 0)) {
        const char *what = json_string_value(json_array_get(requires, 0));
        g_autofree char *shown = what != NULL && hsk_text_ok(what, 80)
                                     ? g_strdup_printf("\"%s\"", what)
                                     : g_strdup("a feature without a name");
        g_set_error(error, HSK_ERROR, HSK_ERROR_UNSUPPORTED,
                    "%s needs %s, which this Haversack does not know", label, shown);
        return false;
    }
    if (type == NULL || strcmp(type, "hv-pc-1.0") != 0) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_UNSUPPORTED,
                    "%s needs another kind of machine than hv-pc-1.0", label);
        return false;
    }
    return true;
}

static struct hsk_manifest *from_json(const json_t *o, const char *label, GError **error)
{
    if (!json_is_object(o) || !depth_ok(o, 1)) {
        hsk_damaged(error, label, "its manifest is nested too deeply or no object");
        return NULL;
    }
    if (!check_compatible(o, label, error))
        return NULL;
    HSK_AUTO(hsk_manifest, m) = g_new0(struct hsk_manifest, 1);
    const char *why = read_machine(o, m) ? broken_rule(m) : "a value is of the wrong kind";
    if (why != NULL) {
        hsk_damaged(error, label, "in its manifest %s", why);
        return NULL;
    }
    return g_steal_pointer(&m);
}

struct hsk_manifest *hsk_manifest_parse(const char *label, const void *text, size_t bytes,
                                        GError **error)
{
    if (bytes > HSK_MANIFEST_MAX_BYTES) {
        hsk_damaged(error, label, "its manifest is larger than 1 MiB");
        return NULL;
    }
    json_error_t err;
    json_t *o = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, &err);
    if (o == NULL) {
        hsk_damaged(error, label, "its manifest is not valid JSON (line %d)", err.line);
        return NULL;
    }
    struct hsk_manifest *m = from_json(o, label, error);
    json_decref(o);
    return m;
}

static json_t *boot_json(const struct hsk_manifest *m)
{
    json_t *boot = json_pack("{s:s}", "kernel", "boot/kernel");
    if (m->has_initrd)
        json_object_set_new(boot, "initrd", json_string("boot/initrd"));
    if (m->cmdline != NULL)
        json_object_set_new(boot, "commandLine", json_string(m->cmdline));
    return boot;
}

char *hsk_manifest_format(const struct hsk_manifest *m, GError **error)
{
    const char *why = broken_rule(m);
    if (why != NULL) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_USAGE, "such a machine cannot be: %s", why);
        return NULL;
    }
    json_t *disks = json_array();
    for (unsigned i = 0; i < m->ndisks; i++) {
        const struct hsk_manifest_disk *d = &m->disks[i];
        json_array_append_new(disks, json_pack("{s:s, s:s, s:I}", "id", d->id, "bus", d->interface,
                                               "bytes", (json_int_t)d->size_bytes));
    }
    json_t *cpu = json_pack("{s:i}", "count", (int)m->ncpus);
    if (m->cpu != NULL)
        json_object_set_new(cpu, "model", json_string(m->cpu));
    json_t *machine = json_pack("{s:s, s:o, s:{s:I}}", "type", "hv-pc-1.0", "cpu", cpu, "memory",
                                "bytes", (json_int_t)m->memory_bytes);
    if (m->vram_bytes > 0)
        json_object_set_new(machine, "vram",
                            json_pack("{s:I}", "bytes", (json_int_t)m->vram_bytes));
    if (m->has_kernel)
        json_object_set_new(machine, "boot", boot_json(m));
    json_t *o = json_pack("{s:s, s:[i,i], s:[], s:s, s:s, s:o, s:o}", "format",
                          "haversack-appliance", "formatVersion", 1, 0, "requires", "uuid", m->uuid,
                          "name", m->name, "machine", machine, "disks", disks);
    hsk_assert(o != NULL);
    char *raw = json_dumps(o, JSON_INDENT(2));
    hsk_assert(raw != NULL);
    json_decref(o);
    char *text = g_strconcat(raw, "\n", NULL);
    free(raw);
    return text;
}
