/* SPDX-License-Identifier: MIT */
/*
 * What every device of the board promises, whoever wrote it (house style 3.3 and 3.4;
 * docs/adding-a-device.md): its state table covers its state, saving loses nothing, a changed
 * device saves something else, a damaged state is refused, pausing twice is pausing, reset is like
 * new.
 */
#include <device-ops.h>
#include <fake-machine.h>
#include <rounds.h>
#include <sys/mman.h>

#define STIR_BYTES 20000

static struct hsk_machine *make(void)
{
    g_autoptr(GError) error = NULL;
    struct hsk_machine_config cfg = fake_config();
    int fd = memfd_create("disk", MFD_CLOEXEC);

    assert_int_equal(ftruncate(fd, 1 << 20), 0);
    cfg.vram_bytes = 16u << 20;
    cfg.disks[0].block = hsk_block_rawfile_new(fd, false, &error);
    assert_non_null(cfg.disks[0].block);
    cfg.ndisks = 1;
    return fake_machine_from(&cfg);
}

/* Brings the devices into some state that a guest can bring them into. */
static void stir(struct hsk_machine *m, unsigned seed)
{
    g_autoptr(GRand) rand = g_rand_new_with_seed(seed);
    g_autofree uint8_t *bytes = g_malloc(STIR_BYTES);

    for (unsigned i = 0; i < STIR_BYTES; i++)
        bytes[i] = (uint8_t)g_rand_int(rand);
    device_ops_run(m, bytes, STIR_BYTES);
}

static bool load_one(struct hsk_dev *dev, GBytes *bytes, GError **error)
{
    HSK_AUTO(hsk_state_reader, r) = hsk_state_reader_new(bytes, error);

    return r && hsk_state_get(r, dev->id, &dev->ops->state, hsk_dev_state(dev), error) &&
           (!dev->ops->check || dev->ops->check(dev, error)) && hsk_state_reader_done(r, error);
}

static void every_byte_of_state_is_in_the_table(void **state)
{
    struct hsk_machine *m = make();

    assert_in_range(hsk_machine_ndevs(m), 14, 64);
    for (unsigned i = 0; i < hsk_machine_ndevs(m); i++) {
        struct hsk_dev *dev = hsk_machine_dev(m, i);

        if (hsk_state_uncovered(&dev->ops->state) != 0)
            fail_msg("%s: %u bytes of its state are in no field or in two", dev->id,
                     hsk_state_uncovered(&dev->ops->state));
    }
    assert_int_equal(hsk_state_uncovered(&hsk_cpu_state_desc), 0);
    hsk_machine_free(m);
}

static void saving_and_loading_lose_nothing(void **state)
{
    for (unsigned seed = 1, last = test_rounds(4, 400); seed <= last; seed++) {
        struct hsk_machine *a = make(), *b = make();

        stir(a, seed);
        for (unsigned i = 0; i < hsk_machine_ndevs(a); i++) {
            struct hsk_dev *from = hsk_machine_dev(a, i), *to = hsk_machine_dev(b, i);
            g_autoptr(GBytes) saved = device_save(from), again = NULL;
            g_autoptr(GError) error = NULL;

            if (!load_one(to, saved, &error))
                fail_msg("%s does not load what it saved (seed %u): %s", from->id, seed,
                         error->message);
            again = device_save(to);
            if (!g_bytes_equal(saved, again))
                fail_msg("%s: save, load, save gives other bytes", from->id);
        }
        hsk_machine_free(a);
        hsk_machine_free(b);
    }
}

static void whole_machine_goes_on_after_loading(void **state)
{
    struct hsk_machine *a = make(), *b = make();
    g_autoptr(GBytes) saved = NULL;
    g_autoptr(GError) error = NULL;

    stir(a, 7);
    saved = hsk_machine_save(a);
    if (!hsk_machine_load(b, saved, &error))
        fail_msg("%s", error->message);
    stir(b, 8);
    run_for_ms(b, 2);
    hsk_machine_free(a);
    hsk_machine_free(b);
}

/* Any bit of any element: the saved bytes differ. So no field is a copy that load ignores or save
 * makes up. */
static void a_changed_device_saves_other_bytes(void **state)
{
    struct hsk_machine *m = make();

    for (unsigned i = 0; i < hsk_machine_ndevs(m); i++) {
        struct hsk_dev *dev = hsk_machine_dev(m, i);
        const struct hsk_state_desc *d = &dev->ops->state;
        g_autoptr(GBytes) before = device_save(dev);

        for (uint32_t k = 0; k < d->nfields; k++) {
            const struct hsk_field *f = &d->fields[k];
            uint8_t *byte =
                (uint8_t *)hsk_dev_state(dev) + f->offset + (size_t)(f->count - 1) * f->elem;

            *byte ^= 1;
            g_autoptr(GBytes) after = device_save(dev);
            if (g_bytes_equal(before, after))
                fail_msg("%s: a change of %s is not saved", dev->id, f->name);
            *byte ^= 1;
        }
    }
    hsk_machine_free(m);
}

static void values_over_their_limit_are_refused(void **state)
{
    struct hsk_machine *m = make();
    unsigned tried = 0;

    for (unsigned i = 0; i < hsk_machine_ndevs(m); i++) {
        struct hsk_dev *dev = hsk_machine_dev(m, i);
        const struct hsk_state_desc *d = &dev->ops->state;

        for (uint32_t k = 0; k < d->nfields; k++) {
            const struct hsk_field *f = &d->fields[k];
            uint64_t value = f->max + 1;

            if (f->max == 0 || (f->elem < 8 && value >> 8 * f->elem))
                continue;
            hsk_machine_reset(m);
            memcpy((char *)hsk_dev_state(dev) + f->offset + (size_t)(f->count - 1) * f->elem,
                   &value, f->elem);
            g_autoptr(GBytes) bad = device_save(dev);
            g_autoptr(GError) error = NULL;
            if (load_one(dev, bad, &error))
                fail_msg("%s loads %s = %llu", dev->id, f->name, (unsigned long long)value);
            assert_non_null(error);
            tried++;
        }
    }
    assert_in_range(tried, 50, 10000);
    hsk_machine_free(m);
}

static void pausing_twice_is_pausing(void **state)
{
    struct hsk_machine *m = make();

    stir(m, 3);
    for (unsigned i = 0; i < hsk_machine_ndevs(m); i++) {
        struct hsk_dev *dev = hsk_machine_dev(m, i);

        if (!dev->ops->pause)
            continue;
        dev->ops->pause(dev);
        g_autoptr(GBytes) once = device_save(dev);
        dev->ops->pause(dev);
        g_autoptr(GBytes) twice = device_save(dev);
        if (!g_bytes_equal(once, twice))
            fail_msg("%s: a second pause changes it", dev->id);
    }
    hsk_machine_free(m);
}

static void reset_is_like_new(void **state)
{
    struct hsk_machine *a = make(), *b = make();
    struct hsk_clock_state time;

    stir(a, 5);
    /* Machines begin at the time of day they are made at, which the RTC shows: the same for both. */
    set_time_ns(a, 0);
    hsk_clock_save(hsk_machine_clock(a), &time);
    assert_true(hsk_clock_load(hsk_machine_clock(b), &time));
    hsk_machine_reset(a);
    hsk_machine_reset(b);
    for (unsigned i = 0; i < hsk_machine_ndevs(a); i++) {
        g_autoptr(GBytes) used = device_save(hsk_machine_dev(a, i)),
                          fresh = device_save(hsk_machine_dev(b, i));

        if (!g_bytes_equal(used, fresh))
            fail_msg("%s after reset is not like new", hsk_machine_dev(a, i)->id);
    }
    hsk_machine_free(a);
    hsk_machine_free(b);
}

static void saving_changes_nothing(void **state)
{
    struct hsk_machine *m = make();

    stir(m, 6);
    for (unsigned i = 0; i < hsk_machine_ndevs(m); i++) {
        struct hsk_dev *dev = hsk_machine_dev(m, i);
        g_autoptr(GBytes) first = device_save(dev), whole = hsk_machine_save(m),
                          second = device_save(dev);

        assert_non_null(whole);
        assert_true(g_bytes_equal(first, second));
    }
    hsk_machine_free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_byte_of_state_is_in_the_table),
        cmocka_unit_test(saving_and_loading_lose_nothing),
        cmocka_unit_test(whole_machine_goes_on_after_loading),
        cmocka_unit_test(a_changed_device_saves_other_bytes),
        cmocka_unit_test(values_over_their_limit_are_refused),
        cmocka_unit_test(pausing_twice_is_pausing),
        cmocka_unit_test(reset_is_like_new),
        cmocka_unit_test(saving_changes_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
