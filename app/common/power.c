/* SPDX-License-Identifier: MIT */
/* How much of this computer work in the background may take: see power.h (kernel documentation,
 * ABI/testing/sysfs-class-power). */
#include "common/power.h"

static bool says(const char *supply, const char *key, const char *value)
{
    g_autofree char *path = g_build_filename(supply, key, NULL), *text = NULL;

    return g_file_get_contents(path, &text, NULL, NULL) && strcmp(g_strstrip(text), value) == 0;
}

/* A battery of a mouse ("scope" Device) is none of the computer's. */
bool hsk_on_battery(const char *folder)
{
    g_autoptr(GDir) dir = g_dir_open(folder, 0, NULL);
    const char *name;
    bool discharging = false;

    while (dir && (name = g_dir_read_name(dir))) {
        g_autofree char *supply = g_build_filename(folder, name, NULL);

        if (says(supply, "scope", "Device"))
            continue;
        if (says(supply, "online", "1") && !says(supply, "type", "Battery"))
            return false;
        discharging |= says(supply, "type", "Battery") && says(supply, "status", "Discharging");
    }
    return discharging;
}
