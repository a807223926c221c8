/* SPDX-License-Identifier: MIT */
/*
 * A window's end of the surface protocol on a connected socket: maps the machine's picture,
 * acknowledges, sends input. No GTK, no SDL. The machine is not trusted: descriptors must be sealed
 * memfds, every value is checked.
 *
 * Threads: one, the caller's. Nothing blocks; the caller polls hsk_display_client_fd() for reading
 * and calls dispatch.
 */
#pragma once

#include <display/proto.h>

struct hsk_display_client;

/* Any callback may be NULL. They run inside dispatch and must not free the client. */
struct hsk_display_client_ops {
    void (*surface)(void *opaque); /* new picture: look at hsk_display_client_view() */
    /* Clipped to the surface, never empty. Draw, then hsk_display_client_ack(). */
    void (*dirty)(void *opaque, const struct hsk_display_rect *rects, unsigned count);
    void (*leds)(void *opaque, uint32_t leds);
    void (*mode)(void *opaque, bool absolute);
    void (*state)(void *opaque, enum hsk_display_state state);
};

/* The picture: valid until the next dispatch that announces a surface. pixels NULL: blank or none
 * yet. */
struct hsk_display_view {
    const uint8_t *pixels;
    uint32_t width, height, stride_bytes;
};

/* Takes sock; says HELLO. */
struct hsk_display_client *
hsk_display_client_new(int sock, const struct hsk_display_client_ops *ops, void *opaque);
void hsk_display_client_free(struct hsk_display_client *c);
int hsk_display_client_fd(const struct hsk_display_client *c);
/* Handles all that has arrived. false: the machine went away (no error set) or broke the protocol
 * (error set). */
bool hsk_display_client_dispatch(struct hsk_display_client *c, GError **error);
struct hsk_display_view hsk_display_client_view(const struct hsk_display_client *c);

/*
 * All senders drop what the socket does not take, except that an acknowledgement, "release all" and
 * visibility are remembered: while hsk_display_client_backlog() is true, call
 * hsk_display_client_flush() now and then. A key that could not be sent becomes "release all", so
 * no key can hang.
 */
void hsk_display_client_ack(struct hsk_display_client *c);
void hsk_display_client_key(struct hsk_display_client *c, uint16_t code, bool down);
void hsk_display_client_pointer_abs(struct hsk_display_client *c, uint16_t x, uint16_t y,
                                    uint32_t buttons);
void hsk_display_client_pointer_rel(struct hsk_display_client *c, int16_t dx, int16_t dy,
                                    uint32_t buttons);
void hsk_display_client_wheel(struct hsk_display_client *c, int32_t clicks_120);
void hsk_display_client_size_hint(struct hsk_display_client *c, uint32_t width, uint32_t height);
void hsk_display_client_release_all(struct hsk_display_client *c);
void hsk_display_client_set_visible(struct hsk_display_client *c, bool visible);
bool hsk_display_client_backlog(const struct hsk_display_client *c);
void hsk_display_client_flush(struct hsk_display_client *c);
