/* SPDX-License-Identifier: MIT */
/* Virtio transport and split queues, with the tablet as the device: negotiation, interrupts,
 * hostile rings, saving. */
#include <virtio-driver.h>

#define SLOT   2
#define EVENTS 0

struct fixture {
    struct hsk_machine *m;
    struct vdriver d;
};

static int setup(void **state)
{
    struct fixture *f = g_new0(struct fixture, 1);
    struct hsk_machine_config cfg = fake_config();

    cfg.vram_bytes = 16u << 20;
    f->m = fake_machine_from(&cfg);
    f->d = vdriver(f->m, "virtio-tablet", SLOT);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    hsk_machine_free(f->m);
    g_free(f);
    return 0;
}

/* n buffers of 8 bytes for events. */
static void post_buffers(struct vdriver *d, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        unsigned slot = d->next_desc++ % d->size;

        vdesc(d, ring(EVENTS, 0), slot, VDATA_BASE + 8 * slot, 8, VDESC_WRITE, 0);
        vavail(d, EVENTS, (uint16_t)slot);
    }
}

static void pointer(struct fixture *f, uint16_t x, uint16_t y, uint8_t buttons)
{
    struct hsk_input *in = hsk_machine_input(f->m);

    in->pointer_abs(in, x, y, buttons);
}

static bool intx(struct fixture *f)
{
    return pci_read(f->m, SLOT, 4) >> 16 & 8;
}

static void assert_event(struct vdriver *d, unsigned i, uint16_t type, uint16_t code,
                         uint32_t value)
{
    const uint8_t *e = guest(d, VDATA_BASE + 8 * i);

    assert_int_equal(hsk_get16(e), type);
    assert_int_equal(hsk_get16(e + 2), code);
    assert_int_equal(hsk_get32(e + 4), value);
}

static void driver_that_wants_too_much_is_not_accepted(void **state)
{
    struct fixture *f = *state;
    struct vdriver *d = &f->d;

    assert_true(voffered(d) & VIRTIO_F_VERSION_1);
    vwrite(d, 0x14, 1, 3);
    vwrite(d, 0x08, 4, 1);
    vwrite(d, 0x0c, 4, 1);
    vwrite(d, 0x08, 4, 0);
    vwrite(d, 0x0c, 4, 1u << 27); /* not offered */
    vwrite(d, 0x14, 1, 0x0b);
    assert_int_equal(vstatus(d), 3);
    vwrite(d, 0x0c, 4, 0);
    vwrite(d, 0x14, 1, 0x0b);
    assert_int_equal(vstatus(d), 0x0b);
    vwrite(d, 0x14, 1, 0);
    vwrite(d, 0x14, 1, 0x0b); /* without VERSION_1 */
    assert_int_equal(vstatus(d), 3);
}

static void events_arrive_with_a_report(void **state)
{
    struct fixture *f = *state;
    struct vdriver *d = &f->d;

    pointer(f, 100, 200, 0); /* nobody listens: goes nowhere */
    vstart(d, VIRTIO_F_VERSION_1, 2);
    post_buffers(d, 8);
    pointer(f, 1000, 2000, 1);
    assert_int_equal(vused_idx(d, EVENTS), 4);
    assert_event(d, 0, 3, 0, 1000);
    assert_event(d, 1, 3, 1, 2000);
    assert_event(d, 2, 1, 0x110, 1);
    assert_event(d, 3, 0, 0, 0);
    assert_true(intx(f));
    assert_int_equal(vread(d, V_ISR, 1), 1);
    assert_false(intx(f));
    pointer(f, 1000, 2000, 1); /* nothing new */
    assert_int_equal(vused_idx(d, EVENTS), 4);
    pointer(f, 1000, 2000, 0);
    assert_event(d, 4, 1, 0x110, 0);
    assert_int_equal(vused_idx(d, EVENTS), 6);
}

static void packet_without_room_is_dropped_whole_and_made_good(void **state)
{
    struct fixture *f = *state;
    struct vdriver *d = &f->d;

    vstart(d, VIRTIO_F_VERSION_1, 2);
    post_buffers(d, 3);
    pointer(f, 1, 2, 4); /* needs four */
    assert_int_equal(vused_idx(d, EVENTS), 0);
    post_buffers(d, 4);
    pointer(f, 1, 3, 4);
    assert_int_equal(vused_idx(d, EVENTS), 4);
    assert_event(d, 2, 1, 0x112, 1);
}

static void notifications_are_suppressed_as_asked(void **state)
{
    struct fixture *f = *state;
    struct vdriver *d = &f->d;

    vstart(d, VIRTIO_F_VERSION_1, 2);
    post_buffers(d, 8);
    hsk_put16(guest(d, ring(EVENTS, 1)), 1); /* NO_INTERRUPT */
    pointer(f, 1, 0, 0);
    assert_int_equal(vused_idx(d, EVENTS), 2);
    assert_false(intx(f));

    vstart(d, VIRTIO_F_VERSION_1 | VIRTIO_F_EVENT_IDX, 2);
    post_buffers(d, 8);
    hsk_put16(guest(d, ring(EVENTS, 1) + 4 + 2 * d->size),
              3); /* used_event: when entry 3 is there */
    pointer(f, 1, 0, 0);
    assert_false(intx(f));
    pointer(f, 2, 0, 0);
    assert_true(intx(f));
}

static void without_bus_mastering_nothing_moves(void **state)
{
    struct fixture *f = *state;
    struct vdriver *d = &f->d;

    vstart(d, VIRTIO_F_VERSION_1, 2);
    post_buffers(d, 8);
    pci_write(f->m, SLOT, 4, 2);
    pointer(f, 5, 5, 0);
    assert_int_equal(vused_idx(d, EVENTS), 0);
}

static void queue_registers_say_what_the_driver_said(void **state)
{
    struct fixture *f = *state;
    struct vdriver *d = &f->d;

    assert_int_equal(vread(d, 0x12, 2), 2);
    vwrite(d, 0x16, 2, 5);
    assert_int_equal(vread(d, 0x18, 2), 0); /* there is no queue 5 */
    vwrite(d, 0x20, 8, 0x1234);
    vwrite(d, 0x16, 2, 1);
    assert_int_equal(vread(d, 0x18, 2), 64);
    vwrite(d, 0x18, 2, 3); /* not a power of two */
    assert_int_equal(vread(d, 0x18, 2), 64);
    vwrite(d, 0x18, 2, 128); /* more than offered */
    assert_int_equal(vread(d, 0x18, 2), 64);
    vwrite(d, 0x20, 4, 0x5000);
    vwrite(d, 0x24, 4, 0x1);
    assert_int_equal(vread(d, 0x20, 8), 0x100005000);
}

static void misplaced_rings_stop_the_device(void **state)
{
    struct fixture *f = *state;
    struct vdriver *d = &f->d;

    vstart(d, VIRTIO_F_VERSION_1, 0);
    vwrite(d, 0x16, 2, 0);
    vwrite(d, 0x20, 8, VRING_BASE + 1);
    vwrite(d, 0x1c, 2, 1);
    assert_true(vstatus(d) & VSTATUS_NEEDS_RESET);
    vwrite(d, 0x14, 1, 0);
    assert_int_equal(vstatus(d), 0);
}

/* What a hostile driver may put into a ring: each ends in NEEDS_RESET, and none in a crash. */
static void nonsense_in_rings_stops_the_device(void **state)
{
    struct fixture *f = *state;
    struct vdriver *d = &f->d;

    for (unsigned i = 0; i < 9; i++) {
        const gpa_t desc = ring(1, 0);

        vstart(d, VIRTIO_F_VERSION_1 | (i < 7 ? VIRTIO_F_INDIRECT : 0), 2);
        vdesc(d, desc, 0, VDATA_BASE, 8, 0, 0);
        vavail(d, 1, 0);
        switch (i) {
        case 0: /* head outside of the table */
            hsk_put16(guest(d, ring(1, 1) + 4), 16);
            break;
        case 1: /* more entries than the queue has */
            hsk_put16(guest(d, ring(1, 1) + 2), 17);
            break;
        case 2: /* a loop */
            vdesc(d, desc, 0, VDATA_BASE, 8, VDESC_NEXT, 0);
            break;
        case 3: /* next outside */
            vdesc(d, desc, 0, VDATA_BASE, 8, VDESC_NEXT, 999);
            break;
        case 4: /* readable behind writable */
            vdesc(d, desc, 0, VDATA_BASE, 8, VDESC_NEXT | VDESC_WRITE, 1);
            vdesc(d, desc, 1, VDATA_BASE, 8, 0, 0);
            break;
        case 5: /* indirect in indirect */
            vdesc(d, desc, 0, VDATA_BASE, 16, VDESC_INDIRECT, 0);
            vdesc(d, VDATA_BASE, 0, VDATA_BASE, 16, VDESC_INDIRECT, 0);
            break;
        case 6: /* half a descriptor */
            vdesc(d, desc, 0, VDATA_BASE, 24, VDESC_INDIRECT, 0);
            break;
        case 7: /* indirect without having asked for it */
            vdesc(d, desc, 0, VDATA_BASE, 16, VDESC_INDIRECT, 0);
            break;
        case 8: /* wraps around the address space */
            vdesc(d, desc, 0, UINT64_MAX - 2, 8, 0, 0);
            break;
        }
        vkick(d, 1);
        if (!(vstatus(d) & VSTATUS_NEEDS_RESET))
            fail_msg("case %u", i);
        assert_int_equal(vread(d, V_ISR, 1) & 2, 2);
    }
    vstart(d, VIRTIO_F_VERSION_1, 2); /* and after a reset it works */
    post_buffers(d, 4);
    pointer(f, 77, 0, 0);
    assert_int_equal(vused_idx(d, EVENTS), 2);
}

static void rings_outside_of_memory_stop_the_device(void **state)
{
    struct fixture *f = *state;
    struct vdriver *d = &f->d;

    vstart(d, VIRTIO_F_VERSION_1, 0);
    vwrite(d, 0x16, 2, 1);
    vwrite(d, 0x20, 8, 0x90000000);
    vwrite(d, 0x28, 8, 0x90001000);
    vwrite(d, 0x30, 8, 0x90002000);
    vwrite(d, 0x1c, 2, 1);
    vkick(d, 1);
    assert_true(vstatus(d) & VSTATUS_NEEDS_RESET);
}

static void saved_and_loaded_queue_goes_on(void **state)
{
    struct fixture *f = *state;
    struct hsk_machine_config cfg = fake_config();
    struct hsk_memobj *ram = hsk_machine_memobj(f->m, "ram");
    struct fixture g = {0};
    g_autoptr(GBytes) saved = NULL;
    g_autoptr(GError) error = NULL;

    vstart(&f->d, VIRTIO_F_VERSION_1, 2);
    post_buffers(&f->d, 16);
    pointer(f, 10, 20, 2);
    saved = hsk_machine_save(f->m);
    cfg.vram_bytes = 16u << 20;
    g.m = hsk_machine_new(&cfg, &error);
    assert_non_null(g.m);
    memcpy(hsk_machine_memobj(g.m, "ram")->host, ram->host, ram->size_bytes);
    if (!hsk_machine_load(g.m, saved, &error))
        fail_msg("%s", error->message);
    g.d = f->d;
    g.d.m = g.m;
    g.d.dev = hsk_machine_find_dev(g.m, "virtio-tablet");
    g.d.dev->ops->resume(g.d.dev);
    assert_true(intx(&g));
    pointer(&g, 10, 21, 2); /* only y is new to the guest */
    assert_int_equal(vused_idx(&g.d, EVENTS), 6);
    assert_event(&g.d, 4, 3, 1, 21);
    hsk_machine_free(g.m);
}

static void configuration_tells_what_the_tablet_has(void **state)
{
    struct fixture *f = *state;
    struct vdriver *d = &f->d;

    vwrite(d, V_DEVICE, 1, 1);
    assert_int_equal(vread(d, V_DEVICE + 2, 1), strlen("Haversack tablet"));
    assert_int_equal(vread(d, V_DEVICE + 8, 1), 'H');
    vwrite(d, V_DEVICE, 1, 0x12);
    vwrite(d, V_DEVICE + 1, 1, 1);
    assert_int_equal(vread(d, V_DEVICE + 2, 1), 20);
    assert_int_equal(vread(d, V_DEVICE + 12, 4), 32767);
    vwrite(d, V_DEVICE + 1, 1, 2); /* no third axis */
    assert_int_equal(vread(d, V_DEVICE + 2, 1), 0);
    assert_int_equal(vread(d, V_DEVICE + 12, 4), 0);
    vwrite(d, V_DEVICE, 1, 0x11);
    vwrite(d, V_DEVICE + 1, 1, 1);
    assert_int_equal(vread(d, V_DEVICE + 8 + 0x110 / 8, 1), 7);
    assert_int_equal(vread(d, V_DEVICE + 0xffc, 4), 0);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(driver_that_wants_too_much_is_not_accepted),
        T(events_arrive_with_a_report),
        T(packet_without_room_is_dropped_whole_and_made_good),
        T(notifications_are_suppressed_as_asked),
        T(without_bus_mastering_nothing_moves),
        T(queue_registers_say_what_the_driver_said),
        T(misplaced_rings_stop_the_device),
        T(nonsense_in_rings_stops_the_device),
        T(rings_outside_of_memory_stop_the_device),
        T(saved_and_loaded_queue_goes_on),
        T(configuration_tells_what_the_tablet_has),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
