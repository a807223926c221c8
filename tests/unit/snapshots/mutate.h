/* SPDX-License-Identifier: MIT */
/*
 * Mutants of a document and of its instance, by the number of the way in which they are made: blind
 * (bits, bytes, lengths, headers, members), in one structure of the file without any hash being
 * made to fit, or by an attacker who makes all of them fit. One thread.
 */
#pragma once

#define RAM_PAGES 8u
#include "forge.h"

enum { MUTATE_WAYS = 28, OWN = 2 /* the instance, among the files */ };

enum part {
    PART_NONE,
    PART_ROOT,
    PART_SIGNATURE,
    PART_MANIFEST,
    PART_BOOT,
    PART_RECORD,
    PART_NODE,
    PART_FRAME,
    PART_TABLE,
    PART_SEEK,
    PART_STATE,
    PART_PICTURE,
    PART_NEEDED,
    PART_LOG,      /* of the instance, as what follows */
    PART_OWN_ROOT, /* ROOT, but not ROOT.prev */
    PART_OWN,
    PARTS
};

/* Where the document as it is now has a structure. */
struct region {
    enum part part;
    size_t off, bytes;
    size_t table; /* of a frame: its entry in the table */
};

/* One file of the instance, which are kept one behind the other. */
struct own_file {
    char *name;
    size_t off, bytes;
};

struct world {
    uint8_t *files[3];
    gsize sizes[3];
    GArray *regions[3]; /* struct region */
    GArray *own;        /* struct own_file */
    char *instance;     /* its folder */
    GHashTable *truth;  /* what -> digest, in hex */
    GHashTable *signed_roots;
    GHashTable *disks; /* digests of what the disk was in the instance */
    char *newest_disk;
    unsigned newest_versions; /* in the instance */
    char *newest[2];          /* ROOT's hash */
    char *signature;          /* all but its first line, which is anybody's */
    struct hsk_seckey publisher, attacker;
    const char *path;
};

/* Finds the regions of a document that was stored in files[which]. */
void mutate_know(struct world *w, unsigned which, const char *path);
/* Takes the folder of an instance as files[OWN], with its regions. */
void mutate_know_own(struct world *w, const char *folder);
void mutate_forget(struct world *w);

/* A number by chance, less than n. */
uint64_t mutate_below(uint64_t *x, uint64_t n);
const char *mutate_name(unsigned way);
bool mutate_by_attacker(unsigned way);
enum part mutate_part_of(unsigned way);
bool mutate_is_own(unsigned way);
/* which: one of the two documents; not looked at if the way is one of the instance. */
GByteArray *mutate(const struct world *w, unsigned way, unsigned which, uint64_t *x);
/* Puts a mutant of the instance in its place. */
void mutate_write_own(const struct world *w, const GByteArray *mutant);
