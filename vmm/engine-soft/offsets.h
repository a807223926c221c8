/* SPDX-License-Identifier: MIT */
/*
 * Offsets into struct soft_vcpu for enter.S. engine.c checks them against the struct at compile
 * time.
 */
#pragma once

#define SOFT_OFF_GPR      0
#define SOFT_OFF_RIP      128
#define SOFT_OFF_RFLAGS   136
#define SOFT_OFF_SCRATCH  208
#define SOFT_OFF_SELF     336
#define SOFT_OFF_HOST_RSP 344
#define SOFT_OFF_EXIT_ARG 352
#define SOFT_OFF_PAGE_VA  368
#define SOFT_OFF_RET_RSP  376
#define SOFT_OFF_RET_BASE 384
#define SOFT_OFF_LANDING  544

/* What soft_enter() returns, beside enum soft_next values of helpers. */
#define SOFT_LEFT_LINK   16 /* a direct edge that is not chained: exit_arg is the link */
#define SOFT_LEFT_LOOKUP 17 /* an indirect jump that missed: rip is set */
#define SOFT_LEFT_TRAP   18 /* the host trapped: the signal handler filled the state and exc */
#define SOFT_LEFT_BRANCH                                                                           \
    19 /* as SOFT_LEFT_LOOKUP, and what the jump was is in branch_pc and branch_undo */
