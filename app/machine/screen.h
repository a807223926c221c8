/* SPDX-License-Identifier: MIT */
/* The picture and the input of the machine, for windows (display/server.h) and for the keeper's
 * commands: see screen.c. */
#pragma once

#include <vmm/machine.h>

#include "common/wire.h"

struct hsk_screen;

/* NULL without error: the machine has no display. */
struct hsk_screen *hsk_screen_new(struct hsk_machine *m, GError **error);
/* Before the machine is freed. */
void hsk_screen_free(struct hsk_screen *s);
/* The geometry changed (HSK_EVENT_SCANOUT). */
void hsk_screen_changed(struct hsk_screen *s);
void hsk_screen_leds(struct hsk_screen *s, uint64_t leds);
/* The machine runs or is stopped: windows are told. */
void hsk_screen_running(struct hsk_screen *s, bool running);
/* A window's socket; taken. */
void hsk_screen_attach(struct hsk_screen *s, int sock);
/* The picture as PNG; max_width 0: full size, else shrunk to fit. */
GBytes *hsk_screen_png(struct hsk_screen *s, uint32_t max_width, uint32_t max_height,
                       GError **error);
