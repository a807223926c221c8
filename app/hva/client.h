/* SPDX-License-Identifier: MIT */
/* Talking to the keepers of running machines (docs/control.md): blocking, one question at a time.
 * Thread: main. */
#pragma once

#include "hva.h"

struct hsk_client;

/* The running machine called that: a document's path, a machine's name, or the start of an instance
   id. NULL without error: none is running; NULL with error: the name means several. */
struct hsk_client *hsk_client_find(const char *machine, GError **error);
/* The same; that it does not run is an error, which says what to do. */
struct hsk_client *hsk_client_need(const char *machine, GError **error);
void hsk_client_free(struct hsk_client *c);
/* Asks and waits for the answer: {"ok":true, ...} without id and ok, owned; else the refusal as
 * error. Takes a reference of args. */
json_t *hsk_client_ask(struct hsk_client *c, const char *cmd, json_t *args, GError **error);
/* The same for what takes long: events that come before the answer go to event. */
json_t *hsk_client_ask_long(struct hsk_client *c, const char *cmd, json_t *args,
                            void (*event)(void *opaque, const json_t *e), void *opaque,
                            GError **error);
/* Waits until the keeper has closed the document and is gone. */
void hsk_client_wait_end(struct hsk_client *c);
/* The connection itself, for the console; the client keeps nothing. */
int hsk_client_steal(struct hsk_client *c);
/* What info said when the machine was found. */
const json_t *hsk_client_info(const struct hsk_client *c);
/* info of every running machine: an array, owned. */
json_t *hsk_client_all(void);

HSK_DEFINE_AUTO(hsk_client, hsk_client_free)
