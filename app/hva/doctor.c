/* SPDX-License-Identifier: MIT */
/* hva doctor: what this computer can do, and what to fix. Thread: main. */
#include <vmm/engine.h>

#include <stdio.h>
#include <sys/statvfs.h>

#include "hva.h"

static json_t *engine(const struct hsk_engine_ops *ops)
{
    g_autofree char *why = NULL;
    bool usable = ops->probe(&why);

    return json_pack("{s:s, s:b, s:s?}", "name", ops->name, "usable", usable, "why", why);
}

/* Where instances live: their disk is the one that fills up. */
static json_t *storage(void)
{
    struct statvfs st;
    const char *dir = g_get_user_data_dir();
    double free_gb = statvfs(dir, &st) == 0 ? (double)st.f_bavail * (double)st.f_frsize / 1e9 : -1;

    return json_pack("{s:s, s:f}", "folder", dir, "free_gb", free_gb);
}

int hsk_cmd_doctor(int argc, char **argv)
{
    gboolean as_json = FALSE;
    const GOptionEntry entries[] = {
        {"json", 0, 0, G_OPTION_ARG_NONE, &as_json, "machine-readable output", NULL}, {NULL}};
    const char *display =
        g_getenv("WAYLAND_DISPLAY") ? g_getenv("WAYLAND_DISPLAY") : g_getenv("DISPLAY");
    int status = 0;

    if (!hsk_parse_options(&argc, &argv, "- what this computer can do", entries, &status))
        return status;
    json_t *report =
        json_pack("{s:[o,o], s:s?, s:o}", "engines", engine(&hsk_engine_kvm_ops),
                  engine(&hsk_engine_soft_ops), "display", display, "storage", storage());
    if (as_json) {
        hsk_print_json(report);
    } else {
        json_t *e, *s = json_object_get(report, "storage");
        size_t i;

        json_array_foreach(json_object_get(report, "engines"), i, e)
            printf("engine %-5s %-4s %s\n", json_string_value(json_object_get(e, "name")),
                   json_is_true(json_object_get(e, "usable")) ? "ok" : "no",
                   json_string_value(json_object_get(e, "why")));
        printf("display      %-4s %s\n", display ? "ok" : "no",
               display ? display
                       : "neither WAYLAND_DISPLAY nor DISPLAY is set: no window, use --no-window");
        printf("storage      %-4s %.1f GB free for machines in %s\n", "",
               json_number_value(json_object_get(s, "free_gb")),
               json_string_value(json_object_get(s, "folder")));
    }
    json_decref(report);
    return 0;
}
