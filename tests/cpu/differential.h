/* SPDX-License-Identifier: MIT */
/*
 * The differential run: every encoding that a guest's user code can execute, on the host's
 * processor and through the software engine from the same state; the whole state must agree.
 *
 *   differential-native.c   executes bytes on the host, in 64-bit and in 32-bit mode
 *   differential-guest.c    the same in a guest of its own
 *   differential-forms.c    enumerates the opcode maps
 *   differential-state.c    random registers and memory that make an instruction's operands
 * reachable test_differential.c     the loop, comparison and report
 *
 * Both sides see the same memory at the same addresses (soft_guest.h). One thread.
 */
#pragma once

#include "engine-soft/xlate.h"
#include "soft_guest.h"

/* --- the memory that both see --- */

/* Pages around GUEST_DATA: unmapped, two to write, unmapped, one to write, one to read, unmapped.
 */
#define DIFF_PAGES  8
#define DIFF_BASE   (GUEST_DATA - 0x1000)
#define DIFF_RW     (DIFF_BASE + 0x1000) /* two pages */
#define DIFF_RW_END (DIFF_BASE + 0x3000)
#define DIFF_EDGE   (DIFF_BASE + 0x5000) /* a writable page below, a read-only page above */
#define DIFF_RO_END (DIFF_BASE + 0x6000)
#define DIFF_MEMORY (3 * 4096) /* bytes of the pages that can be written */

/* A case's code: the instruction in the middle of a slot, ways out before and behind it. */
#define DIFF_SLOT     128
#define DIFF_SLOTS    (GUEST_SIZE / 4 / DIFF_SLOT)
#define DIFF_CODE     (GUEST_VA + 0x400000) /* slots; the page behind the last is unmapped */
#define DIFF_CODE_END (DIFF_CODE + DIFF_SLOTS * DIFF_SLOT)
enum {
    DIFF_BEHIND,
    DIFF_TAKEN,
    DIFF_BACK,
    DIFF_NOUTS
}; /* where it went: on, or to one of two targets */
#define DIFF_AT 48
static const unsigned diff_out_at[2] = {[DIFF_TAKEN - 1] = 96, [DIFF_BACK - 1] = 8};

/* Selectors as Linux has them, so that they mean the same in the guest. */
enum {
    SEL_USER32 = 0x23,
    SEL_USER_DS = 0x2b,
    SEL_USER64 = 0x33,
    SEL_TLS0 = 0x63,
    SEL_TLS1 = 0x6b,
    SEL_TLS2 = 0x73
};
#define DIFF_FS32 (GUEST_DATA - 0x8000) /* base of FS in 32-bit code */
#define DIFF_GS32 (GUEST_DATA - 0x3000)
#define DIFF_DS32 (GUEST_DATA - 0x5000) /* base of DS and ES where they are not flat */

struct diff_state {
    uint64_t gpr[16];
    uint64_t rip; /* in: of the instruction; out: where it stopped, if vector >= 0 */
    uint64_t rflags;
    uint64_t fs_base, gs_base;
    uint64_t sel[6];     /* by enum hsk_seg */
    int64_t vector;      /* out: -1 or the exception */
    uint64_t error, cr2; /* out: of the exception */
    uint64_t out;        /* out: which way it left, if vector < 0 */
    uint64_t behind;     /* in: bytes of the instruction */
    uint64_t ea;         /* in: where its memory operand is */
    uint8_t xsave[832] __attribute__((aligned(64)));
};

/* --- differential-native.c --- */

void diff_native_begin(void);
void diff_native_outs(uint8_t *slot, unsigned behind, bool code32);
void diff_native_run(const struct diff_state *in, struct diff_state *out, bool code32);

/* --- differential-forms.c --- */

enum { SPACE_1, SPACE_0F, SPACE_0F38, SPACE_0F3A, SPACE_VEX1, SPACE_VEX2, SPACE_VEX3, NSPACES };

/* One corner of the opcode maps; what it leaves open is random. */
struct diff_form {
    uint8_t code32, space, opcode, pfx, w, l, reg, mem;
};
#define DIFF_FORMS (2 * NSPACES * 256 * 4 * 2 * 2 * 8 * 2)
bool diff_form(unsigned n, struct diff_form *f); /* false: not a form of its own */
/* 15 bytes of it. rm: -1, or modrm.rm without prefixes that the form does not ask for. */
void diff_bytes(const struct diff_form *f, uint8_t *bytes, int rm);
/* Is modrm.rm of its register form an opcode extension, too? */
bool diff_form_has_rm(const struct diff_form *f);

/* --- differential-state.c --- */

uint64_t diff_random(void);
void diff_seed(uint64_t seed);
/* Displacements that only the encoding can put right, immediates of jumps. Returns whether the
 * bytes changed. */
bool diff_place(const struct soft_x *x, uint8_t *bytes, uint64_t pc);
void diff_memory(uint8_t *memory);
/* The byte of such a copy of the memory that an address means, or NULL. */
uint8_t *diff_byte(uint8_t *memory, uint64_t va, unsigned size);
/* False: no registers make this instruction's operands reachable. */
bool diff_registers(const struct soft_x *x, struct diff_state *s, uint8_t *memory);

/* --- differential-guest.c --- */

enum { DIFF_DEAD_FLAGS = 1, DIFF_KERNEL = 2 };

void diff_guest_begin(struct guest *g);
void diff_guest_outs(uint8_t *slot, unsigned behind, unsigned how);
/* False: the engine stopped, and said why on stderr. */
bool diff_guest_run(struct guest *g, const struct diff_state *in, struct diff_state *out,
                    bool code32, unsigned how);

static inline struct soft_vcpu *diff_vcpu(struct guest *g)
{
    return (struct soft_vcpu *)(void *)((char *)g->vcpu - offsetof(struct soft_vcpu, base));
}

/* The writable pages as one piece of memory: from and to the guest. */
static inline void diff_put_memory(const uint8_t *from)
{
    memcpy((void *)(uintptr_t)DIFF_RW, from, 8192);
    memcpy((void *)(uintptr_t)(DIFF_EDGE - 4096), from + 8192, 4096);
}
static inline void diff_get_memory(uint8_t *to)
{
    memcpy(to, (const void *)(uintptr_t)DIFF_RW, 8192);
    memcpy(to + 8192, (const void *)(uintptr_t)(DIFF_EDGE - 4096), 4096);
}
static inline bool diff_same_memory(const uint8_t *m)
{
    return !memcmp(m, (const void *)(uintptr_t)DIFF_RW, 8192) &&
           !memcmp(m + 8192, (const void *)(uintptr_t)(DIFF_EDGE - 4096), 4096);
}
