/* SPDX-License-Identifier: MIT */
/*
 * The list of a machine's snapshots and its timeline, as a window of its own beside the machine's:
 * rename, pin, delete, go back. GTK thread.
 */
#pragma once

struct machine_window;
struct hsk_snapshots;

struct hsk_snapshots *hsk_snapshots_new(struct machine_window *w);
/* After the end of the session: no answer may come any more. */
void hsk_snapshots_free(struct hsk_snapshots *s);
void hsk_snapshots_present(struct hsk_snapshots *s);
/* The versions are others now; s may be NULL. */
void hsk_snapshots_changed(struct hsk_snapshots *s);
/* The machine is not there any more; s may be NULL. */
void hsk_snapshots_end(struct hsk_snapshots *s);
