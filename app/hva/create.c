/* SPDX-License-Identifier: MIT */
/*
 * hva create: a new document from a kernel and disk images. hva template: the same by
 * a recipe of templates/NAME/build.sh, which calls hva create. Thread: main.
 */
#include <snapshots/store.h>

#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>

#include "common/values.h"
#include "hva.h"

#define DEFAULT_MEMORY "512M"
#define VRAM_BYTES     (16 << 20)
#define MAX_DISKS      8

struct options {
    char *kernel, *initrd, *append, *memory, *cpu, *name, *template, *iso, *firmware;
    char **disks, **rest;
    int cpus;
    gboolean json, force;
};

static void options_clear(struct options *o)
{
    char *strings[] = {o->kernel, o->initrd,   o->append, o->memory,  o->cpu,
                       o->name,   o->template, o->iso,    o->firmware};

    for (unsigned i = 0; i < G_N_ELEMENTS(strings); i++)
        g_free(strings[i]);
    g_strfreev(o->disks);
    g_strfreev(o->rest);
}

static bool parse(struct options *o, int *argc, char ***argv, int *status)
{
    const GOptionEntry entries[] = {
        {"kernel", 0, 0, G_OPTION_ARG_FILENAME, &o->kernel,
         "Linux bzImage, ELF kernel with a PVH note, or multiboot kernel", "FILE"},
        {"initrd", 0, 0, G_OPTION_ARG_FILENAME, &o->initrd, "initial RAM disk", "FILE"},
        {"append", 0, 0, G_OPTION_ARG_STRING, &o->append, "the kernel's command line", "TEXT"},
        {"disk", 0, 0, G_OPTION_ARG_FILENAME_ARRAY, &o->disks,
         "raw image to take in, or the size of an empty disk; repeatable", "FILE|SIZE"},
        {"memory", 0, 0, G_OPTION_ARG_STRING, &o->memory, "default " DEFAULT_MEMORY, "SIZE"},
        {"cpus", 0, 0, G_OPTION_ARG_INT, &o->cpus, "number of processors", "N"},
        {"cpu", 0, 0, G_OPTION_ARG_STRING, &o->cpu, "v2 or v3, with ,+feature and ,-feature",
         "MODEL"},
        {"name", 0, 0, G_OPTION_ARG_STRING, &o->name, "the machine's name (default: the file's)",
         "NAME"},
        {"template", 0, 0, G_OPTION_ARG_STRING, &o->template,
         "build by a recipe; see hva template list", "NAME"},
        {"force", 0, 0, G_OPTION_ARG_NONE, &o->force, "replace an existing file", NULL},
        {"json", 0, 0, G_OPTION_ARG_NONE, &o->json, "machine-readable output", NULL},
        {"iso", 0, G_OPTION_FLAG_HIDDEN, G_OPTION_ARG_FILENAME, &o->iso, NULL, NULL},
        {"firmware", 0, G_OPTION_FLAG_HIDDEN, G_OPTION_ARG_STRING, &o->firmware, NULL, NULL},
        {G_OPTION_REMAINING, 0, 0, G_OPTION_ARG_FILENAME_ARRAY, &o->rest, NULL, NULL},
        {NULL},
    };
    return hsk_parse_options(argc, argv, "OUT.hva - make a new machine", entries, status);
}

/* Recipes lie beside the installed program or, in a build folder, in the source. */
static char *templates_dir(void)
{
    static const char *const places[] = {"../share/haversack/templates", "../../templates"};

    for (unsigned i = 0; i < G_N_ELEMENTS(places); i++) {
        g_autofree char *dir = hsk_program_path(places[i]);
        if (g_file_test(dir, G_FILE_TEST_IS_DIR))
            return g_steal_pointer(&dir);
    }
    return NULL;
}

static int build(const char *name, const char *out, bool force)
{
    g_autofree char *dir = templates_dir();
    g_autofree char *recipe = dir ? g_build_filename(dir, name, "build.sh", NULL) : NULL;
    g_autofree char *hva = hsk_program_path("hva");

    if (strchr(name, '/') || name[0] == '.' || !recipe || !g_file_test(recipe, G_FILE_TEST_EXISTS))
        return hsk_usage("there is no template \"%s\"; \"hva template list\" names them", name);
    if (!force && g_file_test(out, G_FILE_TEST_EXISTS)) {
        g_autofree char *text = g_strdup_printf("%s exists already; --force replaces it", out);
        hsk_complain(text);
        return 1;
    }
    g_setenv("HVA", hva, TRUE);
    if (force)
        g_setenv("HVA_FORCE", "1", TRUE);
    execlp("sh", "sh", recipe, out, NULL);
    fprintf(stderr, "hva: cannot run %s: %s\n", recipe, g_strerror(errno));
    return 1;
}

static int list_templates(bool as_json)
{
    g_autofree char *path = templates_dir();
    g_autoptr(GDir) dir = path ? g_dir_open(path, 0, NULL) : NULL;
    json_t *list = json_array();
    for (const char *name; dir && (name = g_dir_read_name(dir));) {
        g_autofree char *recipe = g_build_filename(path, name, "build.sh", NULL);
        if (g_file_test(recipe, G_FILE_TEST_EXISTS)) {
            json_array_append_new(list, json_string(name));
            if (!as_json)
                printf("%s\n", name);
        }
    }
    if (as_json)
        hsk_print_json(list);
    json_decref(list);
    return 0;
}

int hsk_cmd_template(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";
    bool last_json = argc == 3 && strcmp(argv[2], "--json") == 0;
    bool last_force = argc == 5 && strcmp(argv[4], "--force") == 0;

    if (strcmp(what, "list") == 0 && (argc == 2 || last_json))
        return list_templates(last_json);
    if (strcmp(what, "build") == 0 && (argc == 4 || last_force))
        return build(argv[2], argv[3], last_force);
    return hsk_usage(
        "usage: hva template list [--json], or hva template build NAME OUT.hva [--force]");
}

struct building {
    struct hsk_manifest manifest;
    struct hsk_manifest_disk disks[MAX_DISKS];
    int disk_fds[MAX_DISKS];
    int kernel_fd, initrd_fd;
};

static bool open_input(const char *path, int *fd, uint64_t *size, GError **error)
{
    struct stat st;

    *fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (*fd < 0 || fstat(*fd, &st) < 0) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_FAILED, "cannot open %s: %s", path,
                    g_strerror(errno));
        return false;
    }
    if (!S_ISREG(st.st_mode)) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_FAILED, "%s is not a file", path);
        return false;
    }
    if (size)
        *size = (uint64_t)st.st_size;
    return true;
}

static bool add_disk(struct building *b, const char *spec, GError **error)
{
    unsigned n = b->manifest.ndisks;
    struct hsk_manifest_disk *d = &b->disks[n];

    if (n == MAX_DISKS) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_USAGE, "a machine has at most %d disks", MAX_DISKS);
        return false;
    }
    if (g_file_test(spec, G_FILE_TEST_EXISTS)) {
        if (!open_input(spec, &b->disk_fds[n], &d->size_bytes, error))
            return false;
    } else if (!g_ascii_isdigit(spec[0]) || strchr(spec, '/')) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_FAILED, "cannot open %s: %s", spec,
                    g_strerror(ENOENT));
        return false;
    } else if (!hsk_parse_size("--disk", spec, &d->size_bytes, error)) {
        return false;
    }
    if (d->size_bytes == 0) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_USAGE,
                    "the disk %s is empty; give a size, such as --disk 4G", spec);
        return false;
    }
    b->manifest.ndisks++;
    d->size_bytes = (d->size_bytes + HSK_PAGE_SIZE - 1) / HSK_PAGE_SIZE * HSK_PAGE_SIZE;
    d->id = n ? g_strdup_printf("disk%u", n) : g_strdup("root");
    d->interface = (char *)"virtio";
    return true;
}

static bool fill(struct building *b, const struct options *o, GError **error)
{
    if (!hsk_parse_memory(o->memory ? o->memory : DEFAULT_MEMORY, &b->manifest.memory_bytes, error))
        return false;
    if (!open_input(o->kernel, &b->kernel_fd, NULL, error) ||
        (o->initrd && !open_input(o->initrd, &b->initrd_fd, NULL, error)))
        return false;
    b->manifest.has_kernel = true;
    b->manifest.has_initrd = o->initrd != NULL;
    for (char **d = o->disks; d && *d; d++) {
        if (!add_disk(b, *d, error))
            return false;
    }
    return true;
}

static bool progress(void *opaque, double fraction)
{
    fprintf(stderr, "\r%3.0f %%%s", fraction * 100, fraction >= 1 ? "\n" : "");
    return true;
}

static char *default_name(const char *path)
{
    char *name = g_path_get_basename(path);

    if (g_str_has_suffix(name, ".hva"))
        name[strlen(name) - 4] = 0;
    return name;
}

static int create(const struct options *o, const char *out)
{
    g_autofree char *name = o->name ? g_strdup(o->name) : default_name(out);
    struct building b = {.kernel_fd = -1, .initrd_fd = -1};
    g_autoptr(GError) error = NULL;

    b.manifest = (struct hsk_manifest){.name = name,
                                       .cpu = o->cpu,
                                       .ncpus = (unsigned)o->cpus,
                                       .vram_bytes = VRAM_BYTES,
                                       .disks = b.disks,
                                       .cmdline = o->append ? o->append : (char *)""};
    for (unsigned i = 0; i < MAX_DISKS; i++)
        b.disk_fds[i] = -1;
    bool good = fill(&b, o, &error);
    if (good) {
        const struct hsk_create c = {.manifest = &b.manifest,
                                     .kernel_fd = b.kernel_fd,
                                     .initrd_fd = b.initrd_fd,
                                     .disk_fds = b.disk_fds};
        good = hsk_doc_create(out, &c, o->force, isatty(STDERR_FILENO) ? progress : NULL, NULL,
                              &error);
    }
    for (unsigned i = 0; i < MAX_DISKS; i++) {
        if (b.disk_fds[i] >= 0)
            close(b.disk_fds[i]);
        g_free(b.disks[i].id);
    }
    if (b.kernel_fd >= 0)
        close(b.kernel_fd);
    if (b.initrd_fd >= 0)
        close(b.initrd_fd);
    if (!good)
        return hsk_fail(error);
    if (o->json) {
        json_t *r = json_pack("{s:s, s:s}", "file", out, "name", name);
        hsk_print_json(r);
        json_decref(r);
    }
    return 0;
}

static int check(const struct options *o)
{
    if (!o->rest || !o->rest[0] || o->rest[1])
        return hsk_usage("usage: hva create OUT.hva --kernel FILE [--initrd FILE] [--append TEXT] "
                         "[--disk FILE|SIZE]...");
    if (o->iso)
        return hsk_usage("this version has no CD-ROM drive yet; give a raw image with --disk");
    if (o->firmware)
        return hsk_usage("this version has no BIOS and UEFI firmware yet; give the machine a "
                         "kernel with --kernel");
    if (o->template)
        return o->kernel ? hsk_usage("--template and --kernel exclude each other") : 0;
    if (!o->kernel)
        return hsk_usage("--kernel FILE is missing: this version boots a kernel directly, and not "
                         "yet from a disk");
    if (o->cpus < 1 || o->cpus > 8)
        return hsk_usage("--cpus takes 1 to 8, but %d was given", o->cpus);
    return 0;
}

int hsk_cmd_create(int argc, char **argv)
{
    struct options o = {.cpus = 1};
    int status = 0;

    if (parse(&o, &argc, &argv, &status) && !(status = check(&o)))
        status = o.template ? build(o.template, o.rest[0], o.force) : create(&o, o.rest[0]);
    options_clear(&o);
    return status;
}
