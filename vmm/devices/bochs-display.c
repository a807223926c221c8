/* SPDX-License-Identifier: MIT */
/*
 * Display adapter compatible with the Bochs VBE extensions (bochs: iodev/display/vga.h; QEMU:
 * docs/specs/standard-vga.rst), PCI 1234:1111: BAR 0 is the linear framebuffer, BAR 2 has EDID, the
 * one VGA register that blanks, the VBE registers and QEMU's byte-order register; the VBE registers
 * are at ports 0x1ce/0x1cf too. It comes up in 1024x768x32, so that a kernel entered directly can
 * draw at once. vCPU threads under the device's lock; the display side asks for the scanout.
 * Deliberately missing: VGA text and planar modes, depths other than 32 bits, banked access: a
 * write that asks for one is ignored.
 */
#include "edid.h"
#include "virtio/pci-devices.h"
#include "virtio/pci.h"

enum { BAR_VRAM = 0, BAR_REGS = 2, REGION_PORTS = 16 };
#define REGS_BYTES 0x1000u
enum {
    AT_EDID = 0x000,
    AT_VGA = 0x400,
    VGA_BYTES = 0x20,
    AT_VBE = 0x500,
    VBE_BYTES = 0x16,
    AT_EXT = 0x600,
    EXT_BYTES = 8
};
#define PORT_BASE  0x1ce
#define PORT_BYTES 3
enum { PORT_INDEX = 0, PORT_DATA = 1 };

/* VBE registers */
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
    R_MEMORY_64K,
    R_COUNT
};
enum { ENABLE_ON = 0x01, ENABLE_GETCAPS = 0x02, ENABLE_LFB = 0x40, ENABLE_NOCLEAR = 0x80 };
#define ID_FIRST 0xb0c0
#define ID_LAST  0xb0c5

/* offsets in the window of VGA ports 0x3c0-0x3df */
enum { VGA_ATTR_INDEX = 0x00, VGA_STATUS1 = 0x1a };
#define ATTR_SCREEN_ON 0x20

#define EXT_LITTLE_ENDIAN 0x1e1e1e1e

#define POWER_ON_WIDTH  1024
#define POWER_ON_HEIGHT 768
#define MAX_WIDTH       2560
#define MAX_HEIGHT      1600
#define BYTES_PER_PIXEL 4u

struct bochs_display_state {
    struct hsk_pci_state pci;
    uint16_t index;
    uint16_t id;
    uint16_t xres, yres;
    uint16_t enable, bank;
    uint16_t virt_width;
    uint16_t x_offset, y_offset;
    uint16_t attr_index; /* of the VGA attribute controller: bit 5 shows the screen */
    uint16_t
        attr_data_next; /* flip-flop: the next write to the attribute port is data, not index */
    uint16_t reserved;  /* 0: fills the struct */
};

struct bochs_display {
    struct hsk_pci_dev pci;
    struct bochs_display_state s;
    /* constant after new */
    struct hsk_memobj *vram;
    uint64_t vram_bytes;
    uint8_t edid[HSK_EDID_BYTES];
    /* device lock */
    bool told; /* of a change since somebody last asked for the scanout: a guest cannot flood the
                  loop */
};

#define F(m, ...) HSK_F(struct bochs_display_state, m, __VA_ARGS__)
static const struct hsk_field display_fields[] = {
    HSK_PCI_FIELDS(struct bochs_display_state, pci),
    F(index),
    F(id, .max = ID_LAST),
    F(xres, .max = MAX_WIDTH),
    F(yres, .max = MAX_HEIGHT),
    F(enable, .max = 0xff),
    F(bank),
    F(virt_width),
    F(x_offset),
    F(y_offset),
    F(attr_index, .max = 0x3f),
    F(attr_data_next, .max = 1),
    F(reserved),
};
#undef F

static struct bochs_display *display_of(struct hsk_dev *dev)
{
    return hsk_container_of(dev, struct bochs_display, pci.dev);
}

/* ---- the picture ---- */

static uint64_t stride_of(const struct bochs_display_state *s)
{
    return (uint64_t)MAX(s->virt_width, s->xres) * BYTES_PER_PIXEL;
}

static void get_scanout(const struct bochs_display *d, struct hsk_scanout *out)
{
    const struct bochs_display_state *s = &d->s;
    uint64_t stride = stride_of(s),
             offset = s->y_offset * stride + (uint64_t)s->x_offset * BYTES_PER_PIXEL;
    bool on = (s->enable & ENABLE_ON) && (s->attr_index & ATTR_SCREEN_ON) && s->xres && s->yres;

    *out = (struct hsk_scanout){
        .obj = d->vram,
        .offset = offset,
        .width = s->xres ? s->xres : POWER_ON_WIDTH,
        .height = s->yres ? s->yres : POWER_ON_HEIGHT,
        .stride_bytes = (uint32_t)stride,
        .format = HSK_PIXEL_XRGB8888,
    };
    /* a picture that reaches over the end of the memory is not shown */
    out->blank =
        !on || !hsk_range_ok(offset, (s->yres - 1) * stride + (uint64_t)s->xres * BYTES_PER_PIXEL,
                             d->vram_bytes);
    if (out->blank) {
        out->offset = 0;
        out->stride_bytes = out->width * BYTES_PER_PIXEL;
    }
}

static bool same_scanout(const struct hsk_scanout *a, const struct hsk_scanout *b)
{
    return a->offset == b->offset && a->width == b->width && a->height == b->height &&
           a->stride_bytes == b->stride_bytes && a->blank == b->blank;
}

bool hsk_bochs_display_scanout(struct hsk_dev *display, struct hsk_scanout *out)
{
    struct bochs_display *d = display_of(display);
    HSK_DEV_GUARD(display);

    d->told = false;
    get_scanout(d, out);
    return true;
}

static void geometry_changed(struct bochs_display *d)
{
    if (!d->told)
        hsk_machine_post_event(d->pci.dev.machine, HSK_EVENT_SCANOUT, 0, NULL);
    d->told = true;
}

static void clear_picture(struct bochs_display *d)
{
    uint64_t len = MIN(stride_of(&d->s) * d->s.yres, d->vram_bytes), gpa = d->pci.mapped[BAR_VRAM];
    void *picture = gpa != HSK_PCI_UNMAPPED
                        ? hsk_ram_ptr_write(hsk_machine_ram(d->pci.dev.machine), gpa, len)
                        : NULL;

    if (!picture) {
        for (uint64_t at = 0; at < len; at += HSK_PAGE_SIZE)
            hsk_memobj_will_write(d->vram, at / HSK_PAGE_SIZE);
        picture = d->vram->host;
    }
    memset(picture, 0, len);
    hsk_ram_written(hsk_machine_ram(d->pci.dev.machine), d->vram, 0, len);
}

/* ---- VBE registers ---- */

static uint16_t read_vbe(const struct bochs_display *d, unsigned index)
{
    const struct bochs_display_state *s = &d->s;
    bool caps = s->enable & ENABLE_GETCAPS;

    switch (index) {
    case R_ID:
        return s->id;
    case R_XRES:
        return caps ? MAX_WIDTH : s->xres;
    case R_YRES:
        return caps ? MAX_HEIGHT : s->yres;
    case R_BPP:
        return 8 * BYTES_PER_PIXEL;
    case R_ENABLE:
        return s->enable;
    case R_BANK:
        return s->bank;
    case R_VIRT_WIDTH:
        return (uint16_t)(stride_of(s) / BYTES_PER_PIXEL);
    case R_VIRT_HEIGHT:
        return (uint16_t)MIN(d->vram_bytes / MAX(stride_of(s), 1), UINT16_MAX);
    case R_X_OFFSET:
        return s->x_offset;
    case R_Y_OFFSET:
        return s->y_offset;
    case R_MEMORY_64K:
        return (uint16_t)(d->vram_bytes >> 16);
    default:
        return 0;
    }
}

static void write_enable(struct bochs_display *d, uint16_t value)
{
    struct bochs_display_state *s = &d->s;
    bool was_on = s->enable & ENABLE_ON;

    s->enable = value & (ENABLE_ON | ENABLE_GETCAPS | ENABLE_LFB | ENABLE_NOCLEAR | 0x20);
    if ((value & ENABLE_ON) && !was_on) {
        s->virt_width = s->xres;
        s->x_offset = s->y_offset = 0;
        if (!(value & ENABLE_NOCLEAR))
            clear_picture(d);
    }
}

static void write_vbe(struct bochs_display *d, unsigned index, uint16_t value)
{
    struct bochs_display_state *s = &d->s;
    struct hsk_scanout before, after;

    get_scanout(d, &before);
    switch (index) {
    case R_ID:
        if (value >= ID_FIRST && value <= ID_LAST)
            s->id = value;
        break;
    case R_XRES:
        if (value <= MAX_WIDTH)
            s->xres = value;
        break;
    case R_YRES:
        if (value <= MAX_HEIGHT)
            s->yres = value;
        break;
    case R_ENABLE:
        write_enable(d, value);
        break;
    case R_BANK:
        s->bank = value;
        break;
    case R_VIRT_WIDTH:
        s->virt_width = value;
        break;
    case R_X_OFFSET:
        s->x_offset = value;
        break;
    case R_Y_OFFSET:
        s->y_offset = value;
        break;
    default:
        break;
    }
    get_scanout(d, &after);
    if (!same_scanout(&before, &after))
        geometry_changed(d);
}

/* ---- the VGA attribute port: the index register's bit 5 shows the screen ---- */

static uint8_t read_vga(struct bochs_display *d, unsigned offset)
{
    if (offset == VGA_STATUS1) {
        d->s.attr_data_next = 0;
        return 0;
    }
    return offset == VGA_ATTR_INDEX ? (uint8_t)d->s.attr_index : 0;
}

static void write_vga(struct bochs_display *d, unsigned offset, uint8_t value)
{
    struct bochs_display_state *s = &d->s;
    uint16_t old = s->attr_index;

    if (offset != VGA_ATTR_INDEX)
        return;
    if (!s->attr_data_next)
        s->attr_index = value & 0x3f;
    s->attr_data_next ^= 1;
    if ((old ^ s->attr_index) & ATTR_SCREEN_ON)
        geometry_changed(d);
}

/* ---- accesses ---- */

static uint64_t read_regs(struct bochs_display *d, uint64_t offset, unsigned size)
{
    uint64_t value = 0;

    if (hsk_range_ok(offset - AT_VBE, size, VBE_BYTES) && size == 2)
        return read_vbe(d, (unsigned)(offset - AT_VBE) / 2);
    if (offset == AT_EXT && size == 4)
        return EXT_BYTES;
    if (offset == AT_EXT + 4 && size == 4)
        return EXT_LITTLE_ENDIAN;
    if (hsk_range_ok(offset - AT_VGA, size, VGA_BYTES))
        return size == 1 ? read_vga(d, (unsigned)(offset - AT_VGA)) : 0;
    if (hsk_range_ok(offset - AT_EDID, size, sizeof d->edid))
        memcpy(&value, d->edid + offset, size);
    return value;
}

static uint64_t display_read(struct hsk_dev *dev, unsigned region, uint64_t offset, unsigned size)
{
    struct bochs_display *d = display_of(dev);

    if (region == BAR_REGS)
        return read_regs(d, offset, size);
    if (size != 2)
        return UINT64_MAX;
    return offset == PORT_INDEX ? d->s.index : read_vbe(d, d->s.index);
}

static void display_write(struct hsk_dev *dev, unsigned region, uint64_t offset, unsigned size,
                          uint64_t value)
{
    struct bochs_display *d = display_of(dev);

    if (region == BAR_REGS) {
        if (size == 2 && hsk_range_ok(offset - AT_VBE, size, VBE_BYTES))
            write_vbe(d, (unsigned)(offset - AT_VBE) / 2, (uint16_t)value);
        else if (size == 1 && hsk_range_ok(offset - AT_VGA, size, VGA_BYTES))
            write_vga(d, (unsigned)(offset - AT_VGA), (uint8_t)value);
    } else if (size == 2) {
        if (offset == PORT_INDEX)
            d->s.index = (uint16_t)value;
        else
            write_vbe(d, d->s.index, (uint16_t)value);
    }
}

/* ---- life cycle ---- */

static void display_reset(struct hsk_dev *dev)
{
    struct bochs_display *d = display_of(dev);

    memset(&d->s, 0, sizeof d->s);
    hsk_pci_reset(&d->pci);
    d->s.id = ID_LAST;
    d->s.xres = d->s.virt_width = POWER_ON_WIDTH;
    d->s.yres = POWER_ON_HEIGHT;
    d->s.enable = ENABLE_ON | ENABLE_LFB;
    d->s.attr_index = ATTR_SCREEN_ON;
}

static bool display_check(struct hsk_dev *dev, GError **error)
{
    struct bochs_display *d = display_of(dev);

    if (d->s.id < ID_FIRST || d->s.reserved) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_DAMAGED, "The saved registers of %s are damaged",
                    dev->id);
        return false;
    }
    return hsk_pci_check(&d->pci, error);
}

static void display_resume(struct hsk_dev *dev)
{
    struct bochs_display *d = display_of(dev);
    HSK_DEV_GUARD(dev);

    hsk_pci_resume(&d->pci);
    d->told = false;
    geometry_changed(d);
}

static void display_free(struct hsk_dev *dev)
{
    struct bochs_display *d = display_of(dev);

    hsk_bus_unmap(hsk_machine_pio(dev->machine), PORT_BASE, dev);
    hsk_pci_finish(&d->pci);
    g_free(d);
}

static const struct hsk_dev_ops display_ops = {
    .state = {"bochs-display", 1, sizeof(struct bochs_display_state), display_fields,
              G_N_ELEMENTS(display_fields)},
    .state_offset = offsetof(struct bochs_display, s),
    .min_size = 1,
    .max_size = 8,
    .read = display_read,
    .write = display_write,
    .reset = display_reset,
    .check = display_check,
    .resume = display_resume,
    .free = display_free,
};

struct hsk_dev *hsk_bochs_display_new(struct hsk_machine *m, struct hsk_dev *pci_host,
                                      const char *id, unsigned devfn, struct hsk_memobj *vram)
{
    static const struct hsk_pci_ids ids = {.vendor = 0x1234,
                                           .device = 0x1111,
                                           .subvendor = 0x1af4,
                                           .subdevice = 0x1100,
                                           .class_code = 0x038000,
                                           .revision = 2};
    struct bochs_display *d = g_new0(struct bochs_display, 1);
    uint32_t bar_bytes = 1u << 20;

    while (bar_bytes < 1u << 28 && 2ull * bar_bytes <= vram->size_bytes)
        bar_bytes *= 2;
    hsk_assert(bar_bytes <= vram->size_bytes);
    d->vram = vram;
    d->vram_bytes = bar_bytes;
    hsk_edid_fill(d->edid, POWER_ON_WIDTH, POWER_ON_HEIGHT);
    hsk_pci_init(&d->pci, &display_ops, &d->s.pci, pci_host, m, id, devfn, &ids);
    hsk_pci_set_bar(&d->pci, BAR_VRAM, bar_bytes, (uint32_t)HSK_VRAM_BASE, vram);
    hsk_pci_set_bar(&d->pci, BAR_REGS, REGS_BYTES, 0, NULL);
    hsk_assert(hsk_bus_map(hsk_machine_pio(m), PORT_BASE, PORT_BYTES, &d->pci.dev, REGION_PORTS));
    hsk_pci_plug(&d->pci);
    return &d->pci.dev;
}
