/* SPDX-License-Identifier: MIT */
/* Ends the test at hand as skipped, with the reason, where KVM cannot be used. */
#pragma once

#include <vmm/engine.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static inline void skip_without_kvm(void)
{
    g_autofree char *why = NULL;

    if (hsk_engine_kvm_ops.probe(&why))
        return;
    print_message("skipped: %s\n", why);
    skip();
}
