/* SPDX-License-Identifier: MIT */
/*
 * hva-keeper: what stands behind one machine. `hva` and the window start it as "hva-keeper MODE
 * OPTIONS", where OPTIONS is one JSON object (hva/boot.c, hva/run.c make it): a private interface,
 * checked there, so a wrong value here is only refused.
 *
 * Thread: main. Missing on purpose: parsing of a command line for people.
 */
#include <signal.h>
#include <stdio.h>

#include "common/start.h"
#include "common/values.h"
#include "keeper.h"

int main(int argc, char **argv)
{
    hsk_program_begin();
    json_t *options = argc == 3 ? json_loads(argv[2], JSON_REJECT_DUPLICATES, NULL) : NULL;
    int status = 2;

    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); /* a limit on file sizes is an error of the write, with a sentence */
    if (json_is_object(options) && strcmp(argv[1], "boot") == 0)
        status = hsk_keeper_boot(options);
    else if (json_is_object(options) && strcmp(argv[1], "run") == 0)
        status = hsk_keeper_run(options);
    else
        fprintf(stderr,
                "hva-keeper is started by hva and haversack; use \"hva run\" or \"hva boot\"\n");
    json_decref(options);
    return status;
}
