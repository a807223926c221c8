/* SPDX-License-Identifier: MIT */
/* The keeper's ways of being started; options is the JSON object that hva made of its command line.
 * Return the exit status. */
#pragma once

#include <jansson.h>

int hsk_keeper_boot(const json_t *options);
int hsk_keeper_run(const json_t *options);
