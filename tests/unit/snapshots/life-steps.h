/* SPDX-License-Identifier: MIT */
/* What the parts of a life share (life.c, life-edit.c). One thread. */
#pragma once

#include "life.h"

unsigned life_now(struct life *l);
unsigned life_chance(struct life *l, unsigned n);
/* A step that failed for a reason: counted where failures are expected, else the test's failure.
 * Returns false. */
bool life_failed(struct life *l, const char *what, GError **error);
/* What the disk was in state `state` is durable. */
void life_promise(struct life *l, unsigned state);
/* One that was acknowledged and not dropped, or NULL. */
struct life_version *life_any_version(struct life *l);

/* The process ends (half the time without another sync), and another one opens the document. */
void life_end_process(struct life *l);
bool life_begin_process(struct life *l);

/* The guest writes, and a version is taken of that. */
void life_work(struct life *l);
/* Drops points of the timeline and compacts what they leave. */
void life_thin(struct life *l);
/* Something that the user does with versions. */
void life_edit_step(struct life *l);
