/* SPDX-License-Identifier: MIT */
/* Saved states: what goes in comes out, older versions load, and every kind of damage is an error.
 */
#include <base/state.h>

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

struct thing {
    uint64_t big;
    uint32_t words[3];
    uint16_t half;
    uint8_t small, extra;
};

#define F(m, ...)  HSK_F(struct thing, m, __VA_ARGS__)
#define FA(m, ...) HSK_FA(struct thing, m, __VA_ARGS__)
static const struct hsk_field fields[] = {
    F(big), FA(words, .max = 1000), F(half), F(small, .max = 7), F(extra, .since = 2),
};
static const struct hsk_field old_fields[] = {F(big), FA(words, .max = 1000), F(half),
                                              F(small, .max = 7)};
static const struct hsk_state_desc desc = {"thing", 2, sizeof(struct thing), fields,
                                           G_N_ELEMENTS(fields)};
static const struct hsk_state_desc old_desc = {"thing", 1, sizeof(struct thing), old_fields,
                                               G_N_ELEMENTS(old_fields)};

static const struct thing sample = {
    .big = ~0ull, .words = {1, 0, 1000}, .half = 0xbeef, .small = 7, .extra = 9};

static GBytes *save(const struct hsk_state_desc *d, const struct thing *t)
{
    HSK_AUTO(hsk_state_writer, w) = hsk_state_writer_new();

    hsk_state_put(w, "thing.0", d, t);
    return hsk_state_writer_finish(w);
}

/* NULL = fine, else the error. */
static GError *load(GBytes *bytes, const struct hsk_state_desc *d, struct thing *t)
{
    GError *error = NULL;
    HSK_AUTO(hsk_state_reader, r) = hsk_state_reader_new(bytes, &error);

    if (r && hsk_state_get(r, "thing.0", d, t, &error))
        hsk_state_reader_done(r, &error);
    return error;
}

static void assert_refused(GBytes *bytes, const char *because)
{
    struct thing t;
    g_autoptr(GError) error = load(bytes, &desc, &t);

    assert_non_null(error);
    if (because && !strstr(error->message, because))
        fail_msg("\"%s\" does not speak of \"%s\"", error->message, because);
}

static void saved_is_loaded_again(void **state)
{
    g_autoptr(GBytes) bytes = save(&desc, &sample);
    g_autoptr(GBytes) again = NULL;
    struct thing t;

    memset(&t, 0xaa, sizeof t);
    assert_null(load(bytes, &desc, &t));
    assert_memory_equal(&t, &sample, sizeof t);
    again = save(&desc, &t);
    assert_true(g_bytes_equal(bytes, again));
}

static void an_older_version_loads_with_zero(void **state)
{
    g_autoptr(GBytes) bytes = save(&old_desc, &sample);
    struct thing t;

    assert_null(load(bytes, &desc, &t));
    assert_int_equal(t.extra, 0);
    assert_int_equal(t.half, sample.half);
}

static void a_newer_version_is_refused(void **state)
{
    g_autoptr(GBytes) bytes = save(&desc, &sample);
    g_autoptr(GError) error = NULL;
    struct thing t;

    error = load(bytes, &old_desc, &t);
    assert_true(g_error_matches(error, HSK_ERROR, HSK_ERROR_UNSUPPORTED));
}

static void missing_unknown_and_wrong_fields_are_refused(void **state)
{
    struct hsk_state_desc d = desc;
    struct hsk_field f[G_N_ELEMENTS(fields)];
    struct thing t = sample;

    memcpy(f, fields, sizeof f);
    d.fields = f;
    d.nfields--;
    g_autoptr(GBytes) missing = save(&d, &sample);
    assert_refused(missing, "extra is missing");
    d.nfields++;
    f[2].name = "hull";
    g_autoptr(GBytes) unknown = save(&d, &sample);
    assert_refused(unknown, "unknown field hull");
    f[2].name = "big";
    g_autoptr(GBytes) twice = save(&d, &sample);
    assert_refused(twice, "twice the field big");
    memcpy(f, fields, sizeof f);
    f[1].count = 2;
    g_autoptr(GBytes) shorter = save(&d, &sample);
    assert_refused(shorter, "words has 8 bytes instead of 12");
    t.words[2] = 1001;
    g_autoptr(GBytes) over = save(&desc, &t);
    assert_refused(over, "words is out of range");
}

static void foreign_and_absent_devices_are_refused(void **state)
{
    HSK_AUTO(hsk_state_writer, w) = hsk_state_writer_new();
    g_autoptr(GBytes) two = NULL, other = NULL;

    hsk_state_put(w, "thing.0", &desc, &sample);
    hsk_state_put(w, "thing.1", &desc, &sample);
    two = hsk_state_writer_finish(w);
    assert_refused(two, "thing.1");
    HSK_AUTO(hsk_state_writer, v) = hsk_state_writer_new();
    hsk_state_put(v, "thing.1", &desc, &sample);
    other = hsk_state_writer_finish(v);
    assert_refused(other, "nothing about thing.0");
    HSK_AUTO(hsk_state_writer, u) = hsk_state_writer_new();
    hsk_state_put(u, "thing.0", &desc, &sample);
    hsk_state_put(u, "thing.0", &desc, &sample);
    g_autoptr(GBytes) same = hsk_state_writer_finish(u);
    assert_refused(same, "twice");
}

static void every_truncation_is_refused(void **state)
{
    g_autoptr(GBytes) bytes = save(&desc, &sample);

    for (gsize n = 0; n < g_bytes_get_size(bytes); n++) {
        /* A heap copy of exactly this size, so that a sanitizer sees a read beyond it. */
        g_autoptr(GBytes) part = g_bytes_new(g_bytes_get_data(bytes, NULL), n);

        assert_refused(part, NULL);
    }
    g_autoptr(GByteArray) longer = g_byte_array_append(
        g_byte_array_new(), g_bytes_get_data(bytes, NULL), (guint)g_bytes_get_size(bytes));
    g_byte_array_append(longer, (const guint8 *)"", 1);
    g_autoptr(GBytes) tail = g_bytes_new(longer->data, longer->len);
    assert_refused(tail, "follows its end");
}

/* No damaged byte crashes the loader, and none leads to a value beyond its limit. */
static void every_damaged_byte_is_survived(void **state)
{
    g_autoptr(GBytes) bytes = save(&desc, &sample);
    gsize size = g_bytes_get_size(bytes);

    for (gsize i = 0; i < size; i++)
        for (unsigned v = 1; v < 256; v <<= 1) {
            g_autofree uint8_t *copy = g_memdup2(g_bytes_get_data(bytes, NULL), size);
            struct thing t;

            copy[i] ^= (uint8_t)v;
            g_autoptr(GBytes) bad = g_bytes_new(copy, size);
            g_autoptr(GError) error = load(bad, &desc, &t);
            if (!error) {
                assert_in_range(t.small, 0, 7);
                assert_in_range(t.words[0], 0, 1000);
            }
        }
}

static void the_cover_is_counted(void **state)
{
    struct hsk_state_desc d = desc;
    struct hsk_field f[G_N_ELEMENTS(fields)];

    assert_int_equal(hsk_state_uncovered(&desc), 0);
    assert_int_equal(hsk_state_uncovered(&old_desc), 1);
    memcpy(f, fields, sizeof f);
    d.fields = f;
    f[3] = f[2]; /* half twice: 2 bytes double, small uncovered */
    assert_int_equal(hsk_state_uncovered(&d), 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(saved_is_loaded_again),
        cmocka_unit_test(an_older_version_loads_with_zero),
        cmocka_unit_test(a_newer_version_is_refused),
        cmocka_unit_test(missing_unknown_and_wrong_fields_are_refused),
        cmocka_unit_test(foreign_and_absent_devices_are_refused),
        cmocka_unit_test(every_truncation_is_refused),
        cmocka_unit_test(every_damaged_byte_is_survived),
        cmocka_unit_test(the_cover_is_counted),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
