/* SPDX-License-Identifier: MIT */
/* The display adapter as Linux's bochs-drm finds it: identity, modes, blanking, EDID, and pictures
 * that cannot be. */
#include <virtio-driver.h>

#define SLOT       1
#define VRAM_BYTES (16u << 20)
enum {
    R_ID,
    R_XRES,
    R_YRES,
    R_BPP,
    R_ENABLE,
    R_BANK,
    R_VIRT_WIDTH,
    R_VIRT_HEIGHT,
    R_X_OFFSET,
    R_Y_OFFSET,
    R_MEMORY_64K
};

struct fixture {
    struct hsk_machine *m;
    struct vdriver d;
    unsigned events;
};

static void on_event(void *opaque, enum hsk_event_kind kind, uint64_t value, const char *text)
{
    struct fixture *f = opaque;

    struct hsk_scanout s;

    if (kind == HSK_EVENT_SCANOUT && hsk_machine_scanout(f->m, &s))
        f->events++;
}

static int setup(void **state)
{
    struct fixture *f = g_new0(struct fixture, 1);
    struct hsk_machine_config cfg = fake_config();

    cfg.vram_bytes = VRAM_BYTES;
    cfg.event = on_event;
    cfg.event_opaque = f;
    f->m = fake_machine_from(&cfg);
    f->d = vdriver(f->m, "display", SLOT);
    f->d.bar = pci_read(f->m, SLOT, 0x18);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    run_for_ms(f->m, 1); /* lets the loop deliver what was posted to it */
    hsk_machine_free(f->m);
    g_free(f);
    return 0;
}

static uint16_t vbe_read(struct fixture *f, unsigned reg)
{
    return (uint16_t)vread(&f->d, 0x500 + 2 * reg, 2);
}
static void vbe_write(struct fixture *f, unsigned reg, uint16_t value)
{
    vwrite(&f->d, 0x500 + 2 * reg, 2, value);
}

static struct hsk_scanout scanout(struct fixture *f)
{
    struct hsk_scanout s;

    assert_true(hsk_machine_scanout(f->m, &s));
    return s;
}

static void set_mode(struct fixture *f, uint16_t width, uint16_t height)
{
    vbe_write(f, R_ENABLE, 0);
    vbe_write(f, R_BPP, 32);
    vbe_write(f, R_XRES, width);
    vbe_write(f, R_YRES, height);
    vbe_write(f, R_VIRT_WIDTH, width);
    vbe_write(f, R_X_OFFSET, 0);
    vbe_write(f, R_Y_OFFSET, 0);
    vbe_write(f, R_ENABLE, 0x41);
}

static void comes_up_in_the_mode_that_boot_promises(void **state)
{
    struct fixture *f = *state;
    struct hsk_scanout s = scanout(f);

    assert_int_equal(s.width, 1024);
    assert_int_equal(s.height, 768);
    assert_int_equal(s.stride_bytes, 4096);
    assert_int_equal(s.offset, 0);
    assert_false(s.blank);
    assert_ptr_equal(s.obj, hsk_machine_memobj(f->m, "vram"));
    assert_int_equal(pci_read(f->m, SLOT, 0x10), HSK_VRAM_BASE);
    assert_int_equal(vbe_read(f, R_ID), 0xb0c5);
    assert_int_equal(vbe_read(f, R_MEMORY_64K), VRAM_BYTES >> 16);
}

static void ports_reach_the_same_registers(void **state)
{
    struct fixture *f = *state;
    uint64_t v;

    hsk_bus_write(hsk_machine_pio(f->m), 0x1ce, 2, R_XRES);
    assert_true(hsk_bus_read(hsk_machine_pio(f->m), 0x1cf, 2, &v));
    assert_int_equal(v, 1024);
    hsk_bus_write(hsk_machine_pio(f->m), 0x1cf, 2, 800);
    assert_int_equal(vbe_read(f, R_XRES), 800);
}

static void mode_set_clears_and_tells(void **state)
{
    struct fixture *f = *state;
    struct hsk_memobj *vram = hsk_machine_memobj(f->m, "vram");
    struct hsk_scanout s;

    memset(vram->host, 0xee, VRAM_BYTES);
    atomic_store(&vram->attr[10], 0);
    run_for_ms(f->m, 5);
    f->events = 0;
    set_mode(f, 1280, 1024);
    s = scanout(f);
    assert_int_equal(s.width, 1280);
    assert_int_equal(s.height, 1024);
    assert_int_equal(s.stride_bytes, 5120);
    assert_false(s.blank);
    assert_int_equal(vram->host[1280 * 1024 * 4 - 1], 0);
    assert_int_equal(vram->host[1280 * 1024 * 4], 0xee);
    assert_true(atomic_load(&vram->attr[10]) & HSK_PAGE_DAMAGE);
    run_until_ns(f->m, hsk_clock_ns(hsk_machine_clock(f->m)) + 5000000);
    assert_int_equal(f->events, 2); /* one for all the registers, one for going on */
}

static void scrolling_moves_the_picture(void **state)
{
    struct fixture *f = *state;
    struct hsk_scanout s;

    set_mode(f, 800, 600);
    vbe_write(f, R_VIRT_WIDTH, 1000);
    vbe_write(f, R_X_OFFSET, 10);
    vbe_write(f, R_Y_OFFSET, 20);
    s = scanout(f);
    assert_int_equal(s.stride_bytes, 4000);
    assert_int_equal(s.offset, 20 * 4000 + 40);
    assert_int_equal(vbe_read(f, R_VIRT_HEIGHT), VRAM_BYTES / 4000);
}

static void picture_outside_of_the_memory_is_blank(void **state)
{
    struct fixture *f = *state;
    struct hsk_scanout s;

    set_mode(f, 2560, 1600);
    assert_false(scanout(f).blank);
    vbe_write(f, R_Y_OFFSET, 100);
    s = scanout(f);
    assert_true(s.blank);
    assert_true(hsk_range_ok(s.offset, (uint64_t)s.stride_bytes * s.height, VRAM_BYTES));
    vbe_write(f, R_Y_OFFSET, 0xffff);
    vbe_write(f, R_VIRT_WIDTH, 0xffff);
    assert_true(scanout(f).blank);
    vbe_write(f, R_XRES, 5000); /* more than it can */
    assert_int_equal(vbe_read(f, R_XRES), 2560);
}

static void attribute_register_blanks(void **state)
{
    struct fixture *f = *state;

    vread(&f->d, 0x400 + 0x1a, 1); /* as bochs-drm does */
    vwrite(&f->d, 0x400, 1, 0);
    assert_true(scanout(f).blank);
    vread(&f->d, 0x400 + 0x1a, 1);
    vwrite(&f->d, 0x400, 1, 0x20);
    assert_false(scanout(f).blank);
    vwrite(&f->d, 0x400, 1, 0); /* data of the attribute, not its index */
    assert_false(scanout(f).blank);
    vbe_write(f, R_ENABLE, 0);
    assert_true(scanout(f).blank);
}

static void edid_is_whole(void **state)
{
    struct fixture *f = *state;
    uint8_t sum = 0;

    assert_int_equal(vread(&f->d, 0, 8), 0x00ffffffffffff00);
    for (unsigned i = 0; i < 128; i++)
        sum = (uint8_t)(sum + vread(&f->d, i, 1));
    assert_int_equal(sum, 0);
    assert_int_equal(vread(&f->d, 54 + 2, 1) | (vread(&f->d, 54 + 4, 1) >> 4) << 8, 1024);
    assert_int_equal(vread(&f->d, 54 + 5, 1) | (vread(&f->d, 54 + 7, 1) >> 4) << 8, 768);
    assert_int_equal(vread(&f->d, 0x600, 4), 8);
    assert_int_equal(vread(&f->d, 0x604, 4), 0x1e1e1e1e);
}

static void strange_accesses_read_as_nothing(void **state)
{
    struct fixture *f = *state;

    for (unsigned at = 0; at < 0x1000; at += 8) {
        for (unsigned size = 1; size <= 8; size *= 2) {
            vread(&f->d, at, size);
            vwrite(&f->d, at, size, UINT64_MAX);
        }
    }
    scanout(f);
    assert_true(hsk_machine_find_dev(f->m, "display")
                    ->ops->check(hsk_machine_find_dev(f->m, "display"), NULL));
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(comes_up_in_the_mode_that_boot_promises),
        T(ports_reach_the_same_registers),
        T(mode_set_clears_and_tells),
        T(scrolling_moves_the_picture),
        T(picture_outside_of_the_memory_is_blank),
        T(attribute_register_blanks),
        T(edid_is_whole),
        T(strange_accesses_read_as_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
