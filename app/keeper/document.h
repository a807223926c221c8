/* SPDX-License-Identifier: MIT */
/*
 * The inside of a keeper that runs a document: shared by document.c (life), machine.c (start and
 * messages of the machine), take.c and precopy.c (versions), revert.c (going back), commands.c (the
 * control socket's commands).
 *
 * Threads: main, except job functions (hsk_job). The store's calls other than hsk_disk_* are made
 * by the main thread while no job is under way, or by the job: never both. Beside that, copies are
 * written (clone.c).
 */
#pragma once

#include <base/clock.h>
#include <snapshots/store.h>
#include <vmm/engine.h>

#include "changes.h"
#include "child.h"
#include "common/settings.h"
#include "control.h"
#include "disks.h"
#include "lazy.h"
#include "memory.h"
#include "serial.h"
#include "timeline.h"

/* One machine process with what belongs to it. */
struct hsk_running {
    struct hsk_child *child;
    struct hsk_disk_service *disks;
    struct hsk_guest_memory memory;
    char *cpu; /* its processor model: of the version it resumes, else what the process says once it
                  is ready */
    uint64_t generation[2]; /* vmm/machine.h */
    /* while its memory still comes from this version; else NULL */
    struct hsk_version *version;
    struct hsk_lazy *lazy;
    int there; /* eventfd: a machine that cannot begin without its memory waits for this */
};

enum hsk_op_kind {
    HSK_OP_SNAPSHOT,
    HSK_OP_REVERT,
    HSK_OP_UNDO,
    HSK_OP_EDIT,
    HSK_OP_PICTURE,
    HSK_OP_SIZES,
    HSK_OP_CLONE,
    HSK_OP_SAVE_AS,
    HSK_OP_STOP,
    HSK_OP_OFF,
    HSK_OP_FOLD,
    HSK_OP_AUTO,
    HSK_OP_PURGE,
    HSK_OP_BOOT_FILES
};

struct hsk_document;

/* Kernel and initrd, or NULL. */
struct hsk_boot_files {
    GBytes *kernel, *initrd;
};

/* Where the picture was in the display's memory at a point; all zeros: there is none. */
struct hsk_shown {
    uint64_t offset;
    uint32_t width, height, stride_bytes;
    bool blank;
};

/* Something that needs the store; one at a time, in the order they were asked for. */
struct hsk_op {
    enum hsk_op_kind kind;
    struct hsk_document *d;
    struct hsk_conn *conn; /* who waits for the answer, or NULL */
    json_t *id;            /* of the request, or NULL */
    char *arg;             /* title or version */
    const char *verb;      /* of an edit */
    char *words;           /* its title, or NULL */
    bool wait, force;
    gint64 started_us;
    double pause_ms, durable_ms;
    /* taking */
    char *title;
    enum hsk_version_kind version_kind;
    void (*taken)(struct hsk_op *op);  /* main thread, after the commit */
    void (*answer)(struct hsk_op *op); /* main thread, once what was asked for is all there */
    bool asked;                        /* the machine was asked for a point and has not answered */
    bool held;                         /* the machine is held still for this op */
    _Atomic bool cancelled;            /* stop committing */
    guint watchdog;                    /* runs while asked */
    int64_t name;                      /* of the point in the machine, or 0 */
    struct hsk_take_point *point;      /* the disks' */
    struct hsk_captured captured[HSK_MAX_OBJECTS];
    unsigned ncaptured;
    void (*precopied)(struct hsk_op *op); /* main thread, when little is left to copy; or NULL */
    unsigned rounds;                      /* of copies while the machine runs */
    uint64_t copied;                      /* pages in the last one */
    uint64_t copied_before;               /* and in the one before it */
    struct hsk_shown shown;
    uint8_t *pixels; /* what was shown, copied */
    uint32_t way[HSK_NEAR_POINTS];
    unsigned nway;
    GBytes *state;
    GArray *needed; /* of uint32_t: what the next opening reads first, or NULL */
    void (*failed)(struct hsk_op *op, GError *error);    /* the commit */
    void (*ran)(struct hsk_op *op);                      /* the machine goes on; or NULL */
    void (*back)(struct hsk_op *op, const json_t *body); /* answer to "go-back"; or NULL */
    bool is_back;                                        /* it could */
    char *base;                  /* what its dirty pages count from, if not d->base any more */
    struct hsk_fetched *fetched; /* pages that the machine has to get; or NULL */
    char new_id[33];
    uint64_t bytes_added;
    bool answered;
    uint64_t cpu_ns; /* processor time of its jobs */
    /* going back */
    int64_t at; /* to the newest version of that time or before it; 0: by name */
    char *target, *target_title;
    struct hsk_version *version;
    struct hsk_running next;
    GBytes *next_state;
    GError *refusal; /* why it was given up */
    struct hsk_boot_files boot;
    /* result of the job */
    GError *error;
    GBytes *data;
    json_t *versions;
    /* copying */
    char *out; /* the new document's path */
    struct hsk_clone *clone;
    struct hsk_move *move;
    _Atomic int permill;              /* of it that are done */
    guint teller;                     /* tells who waits how far it is */
    void (*again)(struct hsk_op *op); /* how it goes on when its turn comes again, or NULL */
};

struct hsk_document {
    const json_t *options;
    GMainLoop *loop;
    struct hsk_doc *doc;
    char *path;
    const struct hsk_engine_ops *engine;
    char *engine_note;
    struct hsk_control *control;
    struct hsk_serial *serial;
    struct hsk_running now;
    struct hsk_settings settings;
    uint64_t memory_bytes;
    json_t *versions; /* as in the reply to "log" */
    bool want_run;    /* the user wants it to run (not paused) */
    bool from_zeros;  /* no version yet since power-on: dirty is what is not zeros */
    char *base;       /* id of the version that dirty counts from; "": zeros */
    struct hsk_changes *changes;
    struct hsk_fetched *parked; /* pages of the version that the last revert left behind, or NULL */
    char *parked_id;
    int64_t last_point; /* names of the machine's points count from 1 */
    GHashTable *near;   /* id of a version -> name of its point in the machine that runs now */
    bool told_gone;     /* that the document is not there any more */
    bool undo_lost;     /* what was before the last revert could not be stored */
    char *trouble;      /* why it is paused, or NULL */
    bool broken;        /* for good: a part of its memory cannot be read */
    struct hsk_clock_sample started; /* the keeper's start */
    double start_ms;                 /* from there to the machine's first run; 0: not yet */
    GArray *needed;    /* of uint32_t: pages that the machine needed first, to be kept with a saved
                          state; or NULL */
    GQueue ops;        /* of hsk_op: waiting */
    struct hsk_op *op; /* under way, or NULL */
    bool in_job;       /* a job thread has the store */
    GQueue beside;     /* of hsk_op: what is copied meanwhile, each by a thread of its own */
    bool ending;
    int status;
    GHashTable *foreign; /* ids of versions that somebody else made; the store's */
    bool undecided;      /* it was not started because nobody said whether to trust it */
    GQueue screenshots;  /* of struct hsk_screenshot (commands.c): who waits for one */
    GQueue strokes;      /* of struct hsk_stroke (commands.c): keys still to be pressed */
    guint strokes_source;
    struct hsk_timeline *timeline;
    guint fold_source; /* looks now and then at how long the log of disk writes is */
};

/* ---- machine.c ---- */

/* Starts a process for memory that is in place, with a saved state or (NULL) from power-on. It
 * answers "ready" or "failed". */
bool hsk_running_start(struct hsk_document *d, struct hsk_running *r, GBytes *state,
                       GError **error);
/* Contents in a memfd, so that nobody can change them under the machine; -1: error. */
int hsk_bytes_memfd(const char *name, GBytes *bytes, GError **error);
/* The process is built; model: the processor that it gives the guest. */
void hsk_running_ready(struct hsk_running *r, const char *model);
void hsk_running_clear(struct hsk_running *r);
/* It goes on from a state that was gone on from before: it is another generation. */
void hsk_running_new_generation(struct hsk_running *r);
/* The machine that runs now keeps its generation when it is stopped and resumed. */
void hsk_document_keep_generation(struct hsk_document *d);
extern const struct hsk_child_ops hsk_document_child_ops;

/* Stopped by something that is not the user's wish: says why and waits for a resume. */
void hsk_document_trouble(struct hsk_document *d, const char *text);

/* ---- bootfiles.c ---- */

bool hsk_boot_files_read(struct hsk_document *d, struct hsk_boot_files *f, GError **error);
void hsk_boot_files_clear(struct hsk_boot_files *f);
/* For a resumed machine that wants to boot again. */
void hsk_boot_files_start(struct hsk_op *op);

/* ---- opening.c ---- */

/* What one is told of a saved state that cannot be used. */
#define HSK_NO_RESUME                                                                              \
    "the saved state cannot be resumed (\"hva run --fresh\" starts the machine without it)"

/* The memory of d->now comes from v while it runs already; takes v. After this, start. */
bool hsk_running_lazy(struct hsk_document *d, struct hsk_version *v, GError **error);
/* The machine's message "memory". */
void hsk_running_memory(struct hsk_document *d, const json_t *body, int *fd);
/* It will not be needed any more. */
void hsk_running_forget_memory(struct hsk_running *r);
/* The pages that the machine needed first since it was opened, of uint32_t, or NULL; the caller's.
 */
GArray *hsk_document_needed(struct hsk_document *d);

/* ---- document.c ---- */

/* What its machine needs to keep near versions, if its engine can. */
bool hsk_document_add_near(struct hsk_document *d, struct hsk_running *r, GError **error);
/* Ends the keeper with that status; what is under way in a job is finished first, what is copied is
 * given up. */
void hsk_document_end(struct hsk_document *d, int status);
/* The state event to all windows. text: why, or NULL. */
void hsk_document_tell_state(struct hsk_document *d);
json_t *hsk_document_info(struct hsk_document *d);

/* ---- goback.c ---- */

/* After a crash: says which point of the timeline could be gone back to. */
void hsk_document_offer_point(struct hsk_document *d);
/* The disks go back to the newest version with running state of that time or before it (negative:
 * to the newest); its id, to be resumed. */
char *hsk_document_go_back(struct hsk_document *d, int64_t at, GError **error);

/* ---- trust.c ---- */

/* Whose document is it, and does what was noted of it before still hold? */
bool hsk_document_check_trust(struct hsk_document *d, GError **error);
/* May the running state of that version be resumed? */
bool hsk_document_may_resume(struct hsk_document *d, const char *id, GError **error);

/* ---- ops.c ---- */

/* Queues; takes a reference of conn and id. */
struct hsk_op *hsk_op_new(struct hsk_document *d, enum hsk_op_kind kind, struct hsk_conn *conn,
                          const json_t *id, const char *arg);
void hsk_op_queue(struct hsk_op *op);
/* The end of the op: answers (fields: reply, taken; error: refusal, cleared) unless it was
 * answered, and starts the next. */
void hsk_op_finish(struct hsk_op *op, json_t *fields);
void hsk_op_fail(struct hsk_op *op, GError *error);
/* An op that was not started or will not go on; no answer. */
void hsk_op_free(struct hsk_op *op);
/* Runs fn on a thread of its own, then done on the main thread. */
void hsk_op_job(struct hsk_op *op, void (*fn)(struct hsk_op *op), void (*done)(struct hsk_op *op));
/* The op under way runs fn, which needs nothing of the store that changes, beside those that
 * follow; then done on the main thread. At the end of the document it is cancelled. */
void hsk_op_beside(struct hsk_op *op, void (*fn)(struct hsk_op *op),
                   void (*done)(struct hsk_op *op));
/* After that it needs the store again: goes on with next when its turn comes. */
void hsk_op_again(struct hsk_op *op, void (*next)(struct hsk_op *op));
/* Nobody waits for them any more: those of that connection, or (NULL) all that are copied. */
void hsk_op_cancel_copies(struct hsk_document *d, const struct hsk_conn *conn);
/* For jobs that can give way; opaque is the op. Any thread. */
bool hsk_op_cancelled(void *opaque);
/* Processor time of the calling thread. */
uint64_t hsk_thread_cpu_ns(void);
/* The machine that was held for the op goes on, if the user wants it to. */
void hsk_op_let_go(struct hsk_op *op);
/* Reads the list of versions again. */
void hsk_document_reload_versions(struct hsk_document *d);

/* ---- take.c ---- */

/* Takes a version and commits it; then op->taken. Fails the op otherwise. With USER and AUTO the
   machine goes on at once, else it is held. */
void hsk_take_start(struct hsk_op *op, enum hsk_version_kind kind, const char *title,
                    void (*taken)(struct hsk_op *op));
/* Asks the machine for a point by that message (taken; without its name) and expects the disks'
 * mark; then op->answer. */
void hsk_take_ask(struct hsk_op *op, json_t *message);
/* Asks something of the machine, by op->name, which it has to answer within a minute. */
void hsk_take_question(struct hsk_op *op, json_t *message);
/* It fails, and the machine goes on with all that is dirty. */
void hsk_take_refuse(struct hsk_op *op, GError *error);
/* Keeps the picture at the point, while the machine is still there. */
void hsk_take_picture(struct hsk_op *op);
/* What was captured is dirty again. */
void hsk_take_lost(struct hsk_op *op);
/* Without near versions: copies what is dirty, while the machine is held. false: op has failed. */
bool hsk_take_copy(struct hsk_op *op);
/* Commits what was captured; then op->taken, or failed. */
void hsk_take_commit(struct hsk_op *op, void (*failed)(struct hsk_op *op, GError *error));
/* "way" of a message: to the pages of the point under way. */
void hsk_take_note_way(struct hsk_op *op, const json_t *body);
/* Messages "point", "back" and "run" of the machine for the op under way. */
void hsk_take_message(struct hsk_op *op, const char *event, const json_t *body, int fd);
void hsk_snapshot_start(struct hsk_op *op);
void hsk_stop_start(struct hsk_op *op);
void hsk_off_start(struct hsk_op *op);
void hsk_take_clear(struct hsk_op *op);

/* ---- precopy.c ---- */

/* Copies most of what is dirty while the machine runs; then next, or the op fails. */
void hsk_precopy_start(struct hsk_op *op, void (*next)(struct hsk_op *op));
/* The machine's answer to "collect". */
void hsk_precopy_round(struct hsk_op *op);
/* Copies the pages with these attributes into the capture, which is begun if there is none. */
bool hsk_precopy_copy(struct hsk_op *op, uint8_t attributes, GError **error);

/* ---- revert.c ---- */

void hsk_revert_start(struct hsk_op *op);
/* The machine is held at a point that is not stored yet: it is, and a new process is built. */
void hsk_revert_anew(struct hsk_op *op);
/* The machine goes on as it was; the op has failed. */
void hsk_revert_give_up(struct hsk_op *op, GError *error);
/* The machine is what the user wanted and goes on; tells everybody; the end of the op. */
void hsk_revert_go_on(struct hsk_op *op);
void hsk_revert_answer(struct hsk_op *op);
void hsk_revert_publish(struct hsk_op *op);
/* The new machine said "ready" or "failed", or died (event "ended"). */
void hsk_revert_message(struct hsk_op *op, const char *event, const json_t *body);

/* ---- going.c ---- */

/* The version is open: goes back to it in place, if that can be, else by hsk_revert_anew(). */
void hsk_going_start(struct hsk_op *op);

/* ---- clone.c ---- */

void hsk_clone_start(struct hsk_op *op);
void hsk_save_as_start(struct hsk_op *op);
/* Is the document still there? If not, the user is told once what to do. */
void hsk_document_look_after(struct hsk_document *d);
/* NULL: it is there, so it can be closed. Else why not. */
GError *hsk_document_gone_error(struct hsk_document *d);

/* ---- commands.c ---- */

extern const struct hsk_control_ops hsk_document_control_ops;
void hsk_screenshot_message(struct hsk_document *d, const json_t *body, int fd);
void hsk_strokes_clear(struct hsk_document *d);
void hsk_screenshots_refuse(struct hsk_document *d, const char *why);
