/* SPDX-License-Identifier: MIT */
/* Versions as the programs show them (docs/control.md, "log"). Thread: the document's. */
#pragma once

#include <snapshots/store.h>

#include <jansson.h>

/* A list of {"id", "parent", "title", "time", "kind", "bytes", "has_state", "pinned",
 * "damaged"}, oldest first. Empty on error. */
json_t *hsk_versions_json(struct hsk_doc *doc, GError **error);
/* The same with {"own", "shared"}: hsk_doc_sizes. Takes a while. */
json_t *hsk_versions_sizes_json(struct hsk_doc *doc, bool (*cancelled)(void *opaque), void *opaque,
                                GError **error);
/* Carries out "drop", "rename", "pin", "unpin" or "keep" on the version that ref names. title: of
 * rename and keep, or NULL. force: drop even if pinned. */
bool hsk_version_edit(struct hsk_doc *doc, const char *verb, const char *ref, const char *title,
                      bool force, GError **error);
/* All points of the timeline that are not pinned. */
bool hsk_timeline_drop_all(struct hsk_doc *doc, GError **error);
