/* SPDX-License-Identifier: MIT */
/*
 * Where keys and the pointer go: keys to the i8042; the absolute pointer to the tablet once the
 * guest's driver listens, else relative motion to the PS/2 mouse. Loop thread only.
 */
#include "devices/devices.h"
#include "machine-priv.h"
#include "virtio/pci-devices.h"

static struct hsk_machine *machine_of(struct hsk_input *in)
{
    return hsk_container_of(in, struct hsk_machine, input);
}

static void input_key(struct hsk_input *in, uint16_t code, bool down)
{
    hsk_i8042_key(machine_of(in)->i8042, code, down);
}

static void input_abs(struct hsk_input *in, uint16_t x, uint16_t y, uint8_t buttons)
{
    struct hsk_machine *m = machine_of(in);

    m->buttons = buttons;
    if (m->tablet && hsk_virtio_tablet_ready(m->tablet))
        hsk_virtio_tablet_pointer(m->tablet, x, y, buttons);
}

static void input_rel(struct hsk_input *in, int16_t dx, int16_t dy, uint8_t buttons)
{
    struct hsk_machine *m = machine_of(in);

    m->buttons = buttons;
    hsk_i8042_mouse(m->i8042, dx, dy, 0, buttons);
}

static void input_wheel(struct hsk_input *in, int16_t clicks)
{
    struct hsk_machine *m = machine_of(in);

    if (m->tablet && hsk_virtio_tablet_ready(m->tablet))
        hsk_virtio_tablet_wheel(m->tablet, clicks);
    else
        hsk_i8042_mouse(m->i8042, 0, 0, clicks, m->buttons);
}

static void input_release_all(struct hsk_input *in)
{
    struct hsk_machine *m = machine_of(in);

    m->buttons = 0;
    hsk_i8042_release_all(m->i8042);
}

void hsk_machine_init_input(struct hsk_machine *m)
{
    m->input = (struct hsk_input){.key = input_key,
                                  .pointer_abs = input_abs,
                                  .pointer_rel = input_rel,
                                  .wheel = input_wheel,
                                  .release_all = input_release_all};
}

struct hsk_input *hsk_machine_input(struct hsk_machine *m)
{
    return m->i8042 ? &m->input : NULL;
}
