/* SPDX-License-Identifier: MIT */
/*
 * State tables and the saved state of a machine ("stateio").
 *
 * Each device (and the vCPU) has one table that names every field of its state struct. The table
 * drives save, load, range checks and the tests. A state struct holds fixed-width unsigned integers
 * and arrays of them only: no pointer, bool, enum, int or padding; HSK_F does not compile for
 * anything else.
 *
 * A saved state is a sequence of sections, one per device, keyed by the unique device id
 * ("virtio-blk.0"): u32 magic "HSKS", u32 format version 1, then per section u16 id length, id, u16
 * version, u32 payload length, payload payload = per field: u8 name length, name, u32 byte length,
 * little-endian bytes The whole ends with a section of id "end" and no payload. Unknown sections,
 * unknown fields, missing fields (unless their .since is newer than the section's version), wrong
 * lengths and values over .max are errors: a state is hostile input.
 *
 * Threads: a writer or reader belongs to one thread; the devices are stopped.
 */
#pragma once

#include <base/util.h>

struct hsk_field {
    const char *name;
    uint32_t offset; /* in the state struct */
    uint16_t elem;   /* bytes of one element: 1, 2, 4, 8 */
    uint32_t count;  /* elements */
    uint64_t max;    /* 0: no limit beyond the width; else largest legal value of every element */
    uint16_t since;  /* version of the table that brought the field; 0 means 1 */
};

struct hsk_state_desc {
    const char *kind; /* "uart16550" */
    uint16_t version;
    uint32_t size; /* sizeof the state struct */
    const struct hsk_field *fields;
    uint32_t nfields;
};

#define HSK_F_IS_ARRAY_(x) (!__builtin_types_compatible_p(__typeof__(x), __typeof__(&(x)[0])))

/* one integer */
#define HSK_F(type, m, ...)                                                                        \
    {                                                                                              \
        .name = #m, .offset = offsetof(type, m),                                                   \
        .elem = _Generic(((type *)0)->m, uint8_t : 1, uint16_t : 2, uint32_t : 4, uint64_t : 8),   \
        .count = 1, __VA_ARGS__                                                                    \
    }
/* an array of integers (any number of dimensions is flattened by passing the scalar type's width)
 */
#define HSK_FA(type, m, ...)                                                                       \
    {                                                                                              \
        .name = #m, .offset = offsetof(type, m),                                                   \
        .elem = _Generic(&((type *)0)->m[0], uint8_t * : 1, uint16_t * : 2, uint32_t * : 4,        \
                         uint64_t * : 8),                                                          \
        .count = sizeof(((type *)0)->m) / sizeof(((type *)0)->m[0]) +                              \
                 0 * sizeof(char[HSK_F_IS_ARRAY_(((type *)0)->m) ? 1 : -1]),                       \
        __VA_ARGS__                                                                                \
    }

struct hsk_state_writer;
struct hsk_state_reader;

struct hsk_state_writer *hsk_state_writer_new(void);
void hsk_state_writer_free(struct hsk_state_writer *w);
/* Appends the section of one state struct. */
void hsk_state_put(struct hsk_state_writer *w, const char *id, const struct hsk_state_desc *d,
                   const void *state);
/* Writes the end section and returns the whole; the caller owns it, the writer is finished. */
GBytes *hsk_state_writer_finish(struct hsk_state_writer *w);

/* Checks the framing of the whole state first. Keeps a reference to the bytes. NULL + error if it
 * is damaged. */
struct hsk_state_reader *hsk_state_reader_new(GBytes *bytes, GError **error);
void hsk_state_reader_free(struct hsk_state_reader *r);
/* Fills *state (size d->size, zeroed first) from section id; every check above. The section counts
 * as used. */
bool hsk_state_get(struct hsk_state_reader *r, const char *id, const struct hsk_state_desc *d,
                   void *state, GError **error);
/* false + error if a section was not used by anybody (a device that this machine does not have). */
bool hsk_state_reader_done(struct hsk_state_reader *r, GError **error);

/* For the contract tests: number of bytes of the struct that no field covers (must be 0), and of
 * double coverage (must be 0). */
uint32_t hsk_state_uncovered(const struct hsk_state_desc *d);

HSK_DEFINE_AUTO(hsk_state_writer, hsk_state_writer_free)
HSK_DEFINE_AUTO(hsk_state_reader, hsk_state_reader_free)
