/* SPDX-License-Identifier: MIT */
/*
 * The live write log of an instance: guest disk writes in order, before they belong to a version
 * (docs/format.md, "Log").
 *
 * Threads: append, flush, rotate, detach: under the caller's disk lock. hsk_log_read: any thread.
 * hsk_log_discard: any thread, without the lock.
 */
#pragma once

#include <appliance-format/io.h>

/* Where a page's newest copy is: bit 62 = a hole | file number 22 bits | byte offset / 64, 40 bits.
 * 0 = not in the log. */
#define HSK_LOC_HOLE         (1ull << 62)
#define HSK_LOG_RECORD_PAGES 256u
#define HSK_LOG_ID_BYTES     16u /* of a version */

struct hsk_log;
/* dirfd: the instance, borrowed. number, seq: ROOT's log line. */
struct hsk_log *hsk_log_new(const struct hsk_io *io, int dirfd, const char *label, uint32_t number,
                            uint64_t seq);
void hsk_log_free(struct hsk_log *log);
HSK_DEFINE_AUTO(hsk_log, hsk_log_free)
/* The records of the valid prefix, in order. false from a function: it cannot be, stop here. */
struct hsk_log_replay {
    /* loc of the first page (the next page's is +64) or HSK_LOC_HOLE */
    bool (*pages)(void *opaque, uint32_t disk, uint64_t page, uint32_t npages, uint64_t loc);
    /* The disks go on from this version; what follows begins at number and seq. */
    bool (*go_on)(void *opaque, const uint8_t id[HSK_LOG_ID_BYTES], uint32_t number, uint64_t seq);
    void *opaque;
};
/* Replays what is whole and removes what is not, so that new records follow directly. Once, before
 * anything else. */
bool hsk_log_recover(struct hsk_log *log, const struct hsk_log_replay *replay, GError **error);
/* data NULL: a discard. At most HSK_LOG_RECORD_PAGES with data. 0 or a negative errno; after an
 * error the log is as before. */
G_GNUC_WARN_UNUSED_RESULT int hsk_log_append(struct hsk_log *log, uint32_t disk, uint64_t page,
                                             uint32_t npages, const void *data, uint64_t *loc);
/* The disks go on from a version; what they have is not what is written above. The next record
 * opens a new file; tells its number and sequence number. After an error the log is as before. */
G_GNUC_WARN_UNUSED_RESULT int hsk_log_go_on(struct hsk_log *log, const uint8_t id[HSK_LOG_ID_BYTES],
                                            uint32_t *number, uint64_t *seq);
/* -ESTALE: the file has been detached. */
G_GNUC_WARN_UNUSED_RESULT int hsk_log_read(struct hsk_log *log, uint64_t loc, void *page);
/* 0: all appended records are durable. Once a sync has failed it fails for ever with -EIO, and so
 * does hsk_log_append: the kernel may have dropped what it could not write, and hsk_log_read may
 * give something else. */
G_GNUC_WARN_UNUSED_RESULT int hsk_log_flush(struct hsk_log *log);
/* That error, or 0. */
int hsk_log_error(const struct hsk_log *log);
/* The next record opens a new file; tells its number and sequence number. */
void hsk_log_rotate(struct hsk_log *log, uint32_t *number, uint64_t *seq);
/* Takes the files before number out; then removes them, which may take a while. */
GArray *hsk_log_detach_before(struct hsk_log *log, uint32_t number);
void hsk_log_discard(struct hsk_log *log, GArray *detached);
uint64_t hsk_log_bytes(struct hsk_log *log);
/* Nothing can be appended any more: every call fails with err. */
void hsk_log_fail(struct hsk_log *log, int err);
