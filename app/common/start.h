/* SPDX-License-Identifier: MIT */
/* What every program of ours that a user starts does first and last. Thread: main. */
#pragma once

#include <base/util.h>

/* Before anything is opened. Standard descriptors that are closed would be given to the next files:
 * a sentence for the terminal would be written into a document. Folders in the environment that are
 * not absolute are ignored, as the XDG base directory specification has it: a machine's store would
 * be another one in each working folder. */
void hsk_program_begin(void);
/* Its exit status: not 0 if what it printed did not get where it should. */
int hsk_program_end(int status);
