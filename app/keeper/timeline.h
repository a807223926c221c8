/* SPDX-License-Identifier: MIT */
/*
 * The timeline: automatic checkpoints (versions of kind "auto") while the guest is active, thinned
 * as they grow older and bounded in size. They stay in the instance and never hold up what the user
 * wants. Thread: main.
 */
#pragma once

#include <jansson.h>

#include "common/settings.h"

struct hsk_conn;
struct hsk_document;
struct hsk_op;
struct hsk_timeline;
struct hsk_version_info;

struct hsk_timeline *hsk_timeline_new(struct hsk_document *d);
void hsk_timeline_free(struct hsk_timeline *t);
/* The machine's answer to "activity". */
void hsk_timeline_message(struct hsk_timeline *t, const json_t *body);
/* Operations HSK_OP_AUTO and HSK_OP_PURGE. */
void hsk_timeline_take(struct hsk_op *op);
void hsk_timeline_purge(struct hsk_op *op);
/* The id of the newest version with running state, but for parked ones, that is not newer than at
 * (seconds since 1970). */
char *hsk_point_at(const struct hsk_version_info *list, int64_t at, GError **error);
/* A checkpoint could not be taken: says why once, and waits. */
void hsk_timeline_failed(struct hsk_timeline *t, const GError *error);
/* The command "timeline" of the control socket, but for purge. */
void hsk_timeline_command(struct hsk_document *d, struct hsk_conn *c, const json_t *q);
