/* SPDX-License-Identifier: MIT */
/*
 * The machine's end of the surface protocol: shows a picture that lives in a memfd to up to eight
 * windows and hands their keys and pointer on.
 *
 * Threads: everything, callbacks included, on the loop thread. Never blocks; has no thread of its
 * own. Its frame timer is host time (a paused guest can be looked at) and runs only while a window
 * is visible and has acknowledged the last rectangles: 60 times a second while the picture moves or
 * input comes, else 20 times, or 10 when nothing changes at all.
 */
#pragma once

#include <base/loop.h>
#include <display/proto.h>

struct hsk_display_server;

/* Any callback may be NULL: then that input is dropped. */
struct hsk_display_server_ops {
    /*
     * Damage: sets a bit (little-endian bit order, as hsk_memobj_collect) for every 4096-byte page
     * of the surface's memfd that was written since the last call. bitmap is zeroed and has a bit
     * for each page of fd_size_bytes. NULL: the owner calls hsk_display_server_damage() itself.
     */
    void (*collect)(void *opaque, uint8_t *bitmap, size_t bitmap_bytes);
    void (*key)(void *opaque, uint16_t code, bool down);
    void (*pointer_abs)(void *opaque, uint16_t x, uint16_t y, uint8_t buttons);
    void (*pointer_rel)(void *opaque, int16_t dx, int16_t dy, uint8_t buttons);
    void (*wheel)(void *opaque, int16_t clicks); /* whole clicks; fractions are added up here */
    void (*release_all)(void *opaque);           /* also when a window goes away */
    void (*size_hint)(void *opaque, uint32_t width, uint32_t height);
};

/* The picture. fd is borrowed until the next set_surface or free; it must be sealed against
 * shrinking. */
struct hsk_display_surface {
    int fd;
    uint64_t fd_size_bytes;
    uint64_t offset;
    uint32_t width, height, stride_bytes;
    bool blank;
};

struct hsk_display_server *hsk_display_server_new(struct hsk_loop *loop,
                                                  const struct hsk_display_server_ops *ops,
                                                  void *opaque, GError **error);
/* Detaches all. NULL is fine. The loop must still be there. */
void hsk_display_server_free(struct hsk_display_server *s);

/* A new picture or a new shape of it. false: it does not fit its memfd; then the old one stays. */
bool hsk_display_server_set_surface(struct hsk_display_server *s,
                                    const struct hsk_display_surface *surface);
/* Part of the picture changed (clipped); 0,0,UINT32_MAX,UINT32_MAX: all of it. */
void hsk_display_server_damage(struct hsk_display_server *s, uint32_t x, uint32_t y, uint32_t width,
                               uint32_t height);

/* A window's connected socket (taken, also on failure). false: no room or no surface set yet. */
bool hsk_display_server_attach(struct hsk_display_server *s, int sock);
void hsk_display_server_detach_all(struct hsk_display_server *s);
unsigned hsk_display_server_clients(const struct hsk_display_server *s);

void hsk_display_server_set_leds(struct hsk_display_server *s, uint32_t leds);
void hsk_display_server_set_mode(struct hsk_display_server *s, bool absolute);
void hsk_display_server_set_state(struct hsk_display_server *s, enum hsk_display_state state);
