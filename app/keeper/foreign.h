/* SPDX-License-Identifier: MIT */
/*
 * Versions that came with a document of somebody else's. Their running state is not resumed, not
 * even after this user has written the document again: the list is kept beside the instances.
 * Thread: main.
 */
#pragma once

#include <base/util.h>

/* Ids on the list of the document with that uuid, added to the set. */
void hsk_foreign_load(const char *uuid, GHashTable *ids);
/* Writes the set as the document's list. */
bool hsk_foreign_store(const char *uuid, GHashTable *ids, GError **error);
