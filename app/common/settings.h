/* SPDX-License-Identifier: MIT */
/*
 * What this user has set for one machine on this computer. It lies beside the instances, not in the
 * document: $XDG_DATA_HOME/haversack/settings/<uuid>, a key file. A copy of the document has the
 * same settings; a clone, which has a uuid of its own, begins with the defaults.
 *
 * The generation (vmm/machine.h) is the instance's own: a copy of a document, or the document on
 * another computer, has none yet and so becomes another one.
 *
 * Threads: one at a time.
 */
#pragma once

#include <base/util.h>

#define HSK_TIMELINE_EVERY_S     5
#define HSK_TIMELINE_MAX_EVERY_S 3600
#define HSK_TIMELINE_MIN_LIMIT   (16ull << 20)

struct hsk_settings {
    bool timeline;        /* automatic checkpoints; default on */
    bool timeline_told;   /* the user was told that they keep memory on the disk */
    unsigned every_s;     /* 1 .. HSK_TIMELINE_MAX_EVERY_S */
    uint64_t limit_bytes; /* of the timeline on the disk; 0: what the keeper finds reasonable */
    bool catch_up;        /* the guest's clock, hsk_clock_set_catch_up(); default on */
};

/* Defaults for what is not set or makes no sense. */
void hsk_settings_load(const char *uuid, struct hsk_settings *s);
bool hsk_settings_store(const char *uuid, const struct hsk_settings *s, GError **error);

/* false: this instance has none yet. */
bool hsk_generation_load(const char *uuid, const char *instance, uint64_t id[2]);
bool hsk_generation_store(const char *uuid, const char *instance, const uint64_t id[2],
                          GError **error);

/* A file about the document with that uuid in a folder of the user's data; caller frees. The uuid
 * comes from the document: only its letters and digits make the name. */
char *hsk_user_file(const char *folder, const char *uuid);
