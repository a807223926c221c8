/* SPDX-License-Identifier: MIT */
/*
 * What manifest.json says of the machine (docs/format.md, "manifest.json"). It never speaks of
 * versions.
 *
 * Threads: plain data, no thread of its own. Missing: EULA, firmware, NICs and first use come with
 * the features.
 */
#pragma once

#include <base/util.h>

/* Strings owned by the struct. */
struct hsk_manifest_disk {
    char *id;            /* "root": [a-z0-9-]{1,32} */
    uint64_t size_bytes; /* a multiple of 4096 */
    char *interface;     /* "virtio" */
};
struct hsk_manifest {
    char *uuid, *name;
    char *cpu; /* model spec or NULL = default */
    unsigned ncpus;
    uint64_t memory_bytes, vram_bytes;
    struct hsk_manifest_disk *disks;
    unsigned ndisks;
    char *cmdline; /* direct boot: kernel is member boot/kernel, initrd boot/initrd; NULL = none */
    bool has_kernel, has_initrd;
};
void hsk_manifest_free(struct hsk_manifest *m);
HSK_DEFINE_AUTO(hsk_manifest, hsk_manifest_free)

#define HSK_MANIFEST_NAME_MAX  200 /* bytes */
#define HSK_MANIFEST_MAX_BYTES (1u << 20)

/* Strict: size, depth, duplicate keys, ranges of every value; an unknown entry of "requires" is
 * refused by name. */
struct hsk_manifest *hsk_manifest_parse(const char *label, const void *text, size_t bytes,
                                        GError **error);
/* The text to store; NULL + error if the manifest breaks one of the reader's rules. uuid must be
 * set. */
char *hsk_manifest_format(const struct hsk_manifest *m, GError **error);
/* A deep copy; a NULL uuid becomes a new random one, disk sizes are rounded up to whole pages. */
struct hsk_manifest *hsk_manifest_copy(const struct hsk_manifest *m);
