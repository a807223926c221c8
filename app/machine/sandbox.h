/* SPDX-License-Identifier: MIT */
/* How hva-machine locks itself in: see sandbox.c. */
#pragma once

#include <base/util.h>

/* First thing in main: dies with the keeper, no core files, no new privileges, no files but (engine
 * kvm) /dev/kvm. */
bool hsk_sandbox_enter(bool needs_kvm, GError **error);
/* After the machine is built and before the first byte of a kernel, a bundle or the guest is
   interpreted: the system-call filter, on all threads. Nothing can be opened, connected or executed
   from here on. */
bool hsk_sandbox_lock(GError **error);
