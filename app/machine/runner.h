/* SPDX-License-Identifier: MIT */
/* The inside of hva-machine: one machine, the wire to the keeper, and the files it was handed. */
#pragma once

#include <vmm/boot.h>
#include <vmm/near.h>

#include "common/wire.h"
#include "keeper-disk.h"
#include "screen.h"

struct hsk_contents;

struct hsk_runner {
    int wire;
    GHashTable *fds; /* name -> descriptor + 1; what nobody took is closed at the end */
    struct hsk_machine *machine;
    struct hsk_keeper_disks *disks; /* of a document; NULL: disks are files */
    struct hsk_screen *screen;      /* or NULL: no display */
    struct hsk_near *near;          /* near versions, or NULL: the keeper copies */
    uint64_t point;                 /* name of the newest point, and its state until it runs */
    GBytes *point_state;
    struct hsk_contents *contents; /* what memory had before "become", until it runs */
    int64_t stopped_us;            /* when the take or going back under way stopped it, or 0 */
    bool
        reset_in_place; /* a reset of the guest boots again; else it stops and the keeper decides */
    bool loaded;        /* a saved state that has not run yet */
    int faults;         /* userfaultfd: memory is still coming; or -1 */
    uint8_t generation[HSK_GENERATION_BYTES]; /* if has_generation */
    bool has_generation;
    GBytes *kernel, *initrd; /* or NULL */
    bool boot_later;         /* they come when they are asked for */
    bool boot_wanted;        /* they were */
    char *cmdline, *kernel_name;
};

/* The descriptor handed over as name, now the caller's; -1: there is none. */
int hsk_runner_take_fd(struct hsk_runner *r, const char *name);
/* Builds the machine that cfg (the keeper's config message) describes. */
bool hsk_runner_build(struct hsk_runner *r, const json_t *cfg, GError **error);
/* Power-on: reset, and for a direct boot the kernel into memory. The machine is stopped. */
bool hsk_runner_power_on(struct hsk_runner *r, GError **error);
/* The generation of a machine that goes on from a saved state: two integers, or NULL: none is kept.
 */
void hsk_runner_read_generation(struct hsk_runner *r, const json_t *pair);
/* The other way to start: a saved state. */
bool hsk_runner_load(struct hsk_runner *r, int state_fd, GError **error);
/* The keeper will bring the memory's contents while the machine runs, if this kernel lets it
 * (faults.c). */
void hsk_runner_offer_memory(struct hsk_runner *r, bool kvm);
/* If it does not: waits until all is there, which the keeper says by this eventfd. */
bool hsk_runner_wait_for_memory(struct hsk_runner *r, int there, GError **error);
/* It is. */
void hsk_runner_memory_there(struct hsk_runner *r);
/* Contents of a descriptor, all of it. */
GBytes *hsk_read_fd(int fd, uint64_t max_bytes, const char *what, GError **error);
/* Tells the keeper; a keeper that is gone is noticed by the wire's end of file. */
void hsk_runner_tell(struct hsk_runner *r, json_t *body, int fd);
/* {"event": event, "text": text}; text may be NULL and of any encoding. */
void hsk_runner_tell_text(struct hsk_runner *r, const char *event, const char *text);
/* A disk request could not be done (hsk_keeper_disks_new). */
void hsk_runner_disk_trouble(void *opaque, unsigned disk, int err);
/* What the machine reports (hsk_event_fn); opaque is the runner. */
void hsk_runner_event(void *opaque, enum hsk_event_kind kind, uint64_t value, const char *text);
/* The machine runs: the event "run", with how long a take or going back had stopped it. */
void hsk_runner_ran(struct hsk_runner *r);
/* The commands of takes and of going back (points.c). */
void hsk_runner_point(struct hsk_runner *r, struct hsk_wire_msg *msg);
void hsk_runner_collect(struct hsk_runner *r, struct hsk_wire_msg *msg);
void hsk_runner_release(struct hsk_runner *r, struct hsk_wire_msg *msg);
void hsk_runner_go_back(struct hsk_runner *r, struct hsk_wire_msg *msg);
void hsk_runner_become(struct hsk_runner *r, struct hsk_wire_msg *msg);
void hsk_runner_return(struct hsk_runner *r, struct hsk_wire_msg *msg);
/* Of these: the way to the newest point's pages; a page of memory has changed; the answer "back".
 */
json_t *hsk_runner_way(struct hsk_runner *r);
void hsk_runner_changed(void *opaque, struct hsk_memobj *obj, uint64_t page);
void hsk_runner_tell_back(struct hsk_runner *r, bool near, const char *text);
/* becoming.c: undoes "become"; keeps what that takes (NULL: nothing). */
bool hsk_runner_unbecome(struct hsk_runner *r, GError **error);
void hsk_runner_keep_contents(struct hsk_runner *r, struct hsk_contents *c);
/* Near versions over what the keeper gave for them; true without if it gave nothing. */
bool hsk_runner_near(struct hsk_runner *r, GError **error);
/* Sends contents by descriptor with the fields (taken; NULL: none); if that cannot be, a sentence
 * in their place. */
void hsk_runner_tell_bytes(struct hsk_runner *r, const char *event, GBytes *bytes, json_t *fields);
/* One command of the keeper; takes nothing. */
void hsk_runner_command(struct hsk_runner *r, struct hsk_wire_msg *msg);
