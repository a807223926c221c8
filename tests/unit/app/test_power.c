/* SPDX-License-Identifier: MIT */
/* Is the computer running on a battery? Folders as the kernel shows them. */
/* cmocka wants to be last */
/* clang-format off */
#include "common/power.h"

#include <glib/gstdio.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
/* clang-format on */

static void supplies(void **state)
{
    static const struct {
        const char *name;
        struct {
            const char *type, *key, *value, *scope;
        } supply[3];
        bool battery;
    } cases[] = {
        {"none", {{0}}, false},
        {"mains", {{"Mains", "online", "1\n", NULL}}, false},
        {"discharging",
         {{"Mains", "online", "0\n", NULL}, {"Battery", "status", "Discharging\n", NULL}},
         true},
        {"charging",
         {{"Mains", "online", "1\n", NULL}, {"Battery", "status", "Charging\n", NULL}},
         false},
        {"charges less than is used",
         {{"Battery", "status", "Discharging\n", NULL}, {"USB", "online", "1\n", NULL}},
         false},
        {"a mouse", {{"Battery", "status", "Discharging\n", "Device\n"}}, false},
        {"battery alone", {{"Battery", "status", "Discharging\n", "System\n"}}, true},
    };

    assert_false(hsk_on_battery("/nonexistent"));
    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autofree char *dir = g_dir_make_tmp("supply-XXXXXX", NULL);
        g_autoptr(GPtrArray) made = g_ptr_array_new_with_free_func(g_free);

        for (unsigned k = 0; k < 3 && cases[i].supply[k].type; k++) {
            const char *values[] = {cases[i].supply[k].type, cases[i].supply[k].value,
                                    cases[i].supply[k].scope};
            const char *keys[] = {"type", cases[i].supply[k].key, "scope"};
            char *sub = g_strdup_printf("%s/%u", dir, k);

            assert_int_equal(g_mkdir(sub, 0700), 0);
            g_ptr_array_insert(made, 0, sub);
            for (unsigned f = 0; f < 3 && values[f]; f++) {
                char *path = g_build_filename(sub, keys[f], NULL);

                assert_true(g_file_set_contents(path, values[f], -1, NULL));
                g_ptr_array_insert(made, 0, path);
            }
        }
        if (hsk_on_battery(dir) != cases[i].battery)
            fail_msg("%s", cases[i].name);
        for (unsigned k = 0; k < made->len; k++)
            g_remove(g_ptr_array_index(made, k));
        g_rmdir(dir);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(supplies)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
