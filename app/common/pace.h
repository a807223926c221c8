/* SPDX-License-Identifier: MIT */
/*
 * How often points of a timeline come: pure functions.
 *
 * Bytes are a purse that fills with time, a gigabyte in the first hour, up to HSK_PACE_SAVINGS. A
 * point takes out what it wrote, and what thinning and compacting gave back goes in again: so what
 * counts is what stays on the disk. The next point comes when nothing is owed.
 */
#pragma once

#include <base/util.h>

#define HSK_PACE_SAVINGS     100e6 /* what it has at first, and at most */
#define HSK_PACE_BYTES_S     250e3 /* at the usual step and slower ones; 900 MB an hour */
#define HSK_PACE_MAX_WAIT_S  120   /* a point counts with no more than this time earns */
#define HSK_PACE_CPU_WAIT    22    /* times its processor time: 4.5 % of one */
#define HSK_PACE_CPU_SAVINGS 1.0
#define HSK_PACE_LEAVE_FREE  (64ull << 20)

/* Who wants more points wants more bytes: what a second earns with this step. */
double hsk_pace_bytes_s(unsigned every_s);

/* The purse after seconds and a point that wrote that much; freed < 0: compacting took more. */
double hsk_pace_pay(double purse, unsigned every_s, double seconds, uint64_t written,
                    int64_t freed);

/* Likewise processor time, in seconds of it: what a point took that dropped others, too, is no
 * reason to be late if the ones before it took little. */
double hsk_pace_pay_cpu(double cpu_purse, double seconds, double cpu_s);

/* From the beginning of a point to that of the next one. slower: factor of the step. */
double hsk_pace_wait_s(double purse, unsigned every_s, double slower, double cpu_purse);

/* May so many pages be written, and other bytes, with that much free? It leaves
 * HSK_PACE_LEAVE_FREE even if nothing shrinks. */
bool hsk_pace_room(uint64_t free_bytes, uint64_t pages, uint64_t other_bytes);
