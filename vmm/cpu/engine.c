/* SPDX-License-Identifier: MIT */
/* Which engine runs a machine: the user's word, else KVM where it really virtualizes, else the
 * software engine. Any thread. */
#include <vmm/engine.h>

#include "engine-kvm/kvm.h"

const struct hsk_engine_ops *hsk_engine_pick(enum hsk_engine_choice choice, char **note,
                                             GError **error)
{
    const bool kvm = choice != HSK_ENGINE_SOFT;
    const struct hsk_engine_ops *ops = kvm ? &hsk_engine_kvm_ops : &hsk_engine_soft_ops;
    g_autofree char *why = NULL;
    bool usable = ops->probe(&why);

    if (note)
        *note = NULL;
    if (choice != HSK_ENGINE_AUTO && !usable) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_UNSUPPORTED, "%s",
                    why ? why : "This engine does not run here.");
        return NULL;
    }
    if (choice == HSK_ENGINE_KVM && !hsk_kvm_virtualizes() && note)
        *note = g_steal_pointer(&why);
    if (choice != HSK_ENGINE_AUTO || (usable && hsk_kvm_virtualizes()))
        return ops;
    if (note)
        *note = g_strdup_printf("Using the software engine. %s", why ? why : "");
    g_clear_pointer(&why, g_free);
    if (hsk_engine_soft_ops.probe(&why))
        return &hsk_engine_soft_ops;
    g_set_error(error, HSK_ERROR, HSK_ERROR_UNSUPPORTED, "%s", why ? why : "No engine runs here.");
    if (note)
        g_clear_pointer(note, g_free);
    return NULL;
}
