/* SPDX-License-Identifier: MIT */
/*
 * The life of a document by chance (disk writes, versions, a timeline, reverts, drops, renames,
 * publishes, compaction, clones, copies beside all that, reopening), with a model of what was
 * promised at each moment; and the question that is asked after it was interrupted at one: is
 * everything there, is nothing there that was never, does it go on?
 *
 * A moment is a number of changes in the journal, or, without a journal, of a clock of its own.
 */
#pragma once

#define RAM_PAGES 64u
#include "fixture.h"
#include "journal.h"

enum { LIFE_PAGES = 24 };

#define NEVER UINT_MAX

/* What a version says of itself, and when it was made to. */
struct life_words {
    unsigned begun, done, published; /* published: in the .hva from then on */
    unsigned name;                   /* title "v<number>", or "v<number>.<name>" */
    enum hsk_version_kind kind;
    bool pinned;
};

/* What the life gave a version, and when. */
struct life_version {
    unsigned number;
    GArray *words; /* struct life_words, oldest first */
    char id[33];
    uint8_t ram[RAM_PAGES], disk[LIFE_PAGES]; /* seeds of the pages */
    unsigned begun, done;                     /* its commit */
    unsigned going, gone;                     /* its drop */
    unsigned published;                       /* in the .hva from then on */
};

/* A new machine that was made: of a version, or (version 0) of the disks. */
struct life_clone {
    unsigned begun, done, version;
    unsigned first, last; /* states of the disk, one of which it has */
};

/* One state of the disk: it may be found if the power fails later than `at`. */
struct life_disk {
    unsigned at;
    uint8_t seed[LIFE_PAGES];
};

/* From `at` on the disk is in state `state` or a later one. */
struct life_promise {
    unsigned at, state;
};

struct life_current {
    unsigned begun, done, version; /* 0: none */
    unsigned state;                /* not 0: done when that state of the disk is durable */
};

struct life {
    const struct scratch *s;
    const struct hsk_io *io; /* or NULL */
    struct journal *journal; /* or NULL */
    struct hsk_doc *doc;
    GRand *rand;
    bool may_fail;   /* failures are expected: they end up in the model */
    bool dies;       /* the process ends: no syncs any more */
    bool guest_runs; /* life_guest may write */
    unsigned clock;
    GPtrArray *versions; /* struct life_version */
    GArray *disks, *promises, *currents, *clones;
    uint8_t ram[RAM_PAGES], base[RAM_PAGES];
    bool base_known;
    unsigned next_seed, generation, generation_at;
    unsigned own_from; /* from that moment on the user has written the document here */
    char where[200];   /* what is being checked */
};

struct life *life_new(const struct scratch *s, struct journal *journal, uint32_t seed);
void life_free(struct life *l);
/* Opens the document and lives for so many steps; closes it. False: it could not be opened. */
bool life_run(struct life *l, unsigned steps);
/* Between two calls of the store: the guest writes and flushes now and then. */
void life_guest(struct life *l);
/* The n-th of the pages that the life looks at: none that fill_page leaves empty. */
uint64_t life_page(unsigned i);
struct life_version *life_version_titled(const struct life *l, const char *title);
/* The words that it has as far as the life knows. */
struct life_words *life_words_now(const struct life_version *v);
char *life_title(const struct life_version *v, const struct life_words *w);
char *life_clone_path(const struct life *l, unsigned index);
/* The files are as they were found after an interruption at that moment. Fails the test if they are
 * not right; else the document works and is closed again. */
void life_check(struct life *l, unsigned now);
/* The oldest state of the disk that may be found at that moment. */
unsigned life_promised(const struct life *l, unsigned at);

/* A file of it is damaged: it does not open, or what it gives is right. The rest is left alone. */
void life_check_damaged(struct life *l);

#define life_must(l, condition, ...)                                                               \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            g_autofree char *text = g_strdup_printf(__VA_ARGS__);                                  \
            fail_msg("%s: %s", (l)->where, text);                                                  \
        }                                                                                          \
    } while (0)
