/* SPDX-License-Identifier: MIT */
/*
 * Page maps against a plain array, sharing of unchanged nodes, and hostile nodes; ROOT as text.
 */
#include <appliance-format/root.h>

#include <setjmp.h>
#include <sodium.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

struct store {
    GByteArray *members[8];
};

static bool load(void *opaque, uint32_t member, uint32_t offset, void *buf, size_t len,
                 GError **error)
{
    struct store *s = opaque;
    if (member >= 8 || s->members[member] == NULL ||
        !hsk_range_ok(offset, len, s->members[member]->len))
        return hsk_damaged(error, "t.hva", "no such node");
    memcpy(buf, s->members[member]->data + offset, len);
    return true;
}

static int setup(void **state)
{
    *state = g_new0(struct store, 1);
    return 0;
}

static int teardown(void **state)
{
    struct store *s = *state;
    for (unsigned i = 0; i < 8; i++) {
        if (s->members[i] != NULL)
            g_byte_array_unref(s->members[i]);
    }
    g_free(s);
    return 0;
}

static struct hsk_map_source source(struct store *s)
{
    return (struct hsk_map_source){load, s, "t.hva"};
}

static struct hsk_map_ref write_map(struct store *s, uint32_t member, struct hsk_pagemap *map)
{
    struct hsk_map_ref root;
    s->members[member] = g_byte_array_new();
    struct hsk_map_writer w = {member, s->members[member]};
    assert_true(hsk_pagemap_write(map, &w, &root, NULL));
    return root;
}

struct walked {
    const uint64_t *model;
    uint64_t last, n;
};

static bool on_page(void *opaque, uint64_t page, uint64_t entry, GError **error)
{
    struct walked *w = opaque;
    assert_int_equal(entry, w->model[page]);
    assert_true(w->n == 0 || page > w->last);
    w->last = page;
    w->n++;
    return true;
}

static void maps_of_every_depth_agree_with_an_array(void **state)
{
    static const uint64_t sizes[] = {1, 100, 128, 129, 16384, 16385, 100000, 2097152 + 77};
    for (size_t k = 0; k < G_N_ELEMENTS(sizes); k++) {
        struct store s = {{NULL}};
        struct hsk_map_source src = source(&s);
        g_autofree uint64_t *model = g_new0(uint64_t, sizes[k]);
        struct hsk_map_ref root = {0};
        uint64_t x = 99;
        for (uint32_t round = 1; round < 6; round++) {
            HSK_AUTO(hsk_pagemap, map) = hsk_pagemap_new(&src, &root, sizes[k]);
            for (unsigned i = 0; i < 500; i++) {
                x = x * 6364136223846793005ull + 1442695040888963407ull;
                uint64_t page = (x >> 20) % sizes[k],
                         entry = i % 4 == 3 ? 0 : hsk_entry((uint32_t)(x >> 32), i, i % 64);
                assert_true(hsk_pagemap_set(map, page, entry, NULL));
                model[page] = entry;
            }
            root = write_map(&s, round, map);
        }
        HSK_AUTO(hsk_pagemap, map) = hsk_pagemap_new(&src, &root, sizes[k]);
        uint64_t used = 0;
        for (uint64_t p = 0; p<sizes[k]; p += sizes[k]> 200000 ? 61 : 1) {
            uint64_t entry;
            assert_true(hsk_pagemap_get(map, p, &entry, NULL));
            assert_int_equal(entry, model[p]);
        }
        for (uint64_t p = 0; p < sizes[k]; p++)
            used += model[p] != 0;
        struct walked w = {.model = model};
        struct hsk_map_visitor v = {.page = on_page, .opaque = &w};
        assert_true(hsk_pagemap_walk(&src, &root, sizes[k], &v, NULL));
        assert_int_equal(w.n, used);
        for (unsigned i = 0; i < 8; i++) {
            if (s.members[i] != NULL)
                g_byte_array_unref(s.members[i]);
        }
    }
}

static void an_unchanged_map_writes_nothing_and_one_page_writes_its_path(void **state)
{
    struct store *s = *state;
    struct hsk_map_source src = source(s);
    HSK_AUTO(hsk_pagemap, map) = hsk_pagemap_new(&src, NULL, 1 << 20);
    for (uint64_t p = 0; p < 1 << 20; p += 50)
        assert_true(hsk_pagemap_set(map, p, hsk_entry(1, 2, 3), NULL));
    struct hsk_map_ref root = write_map(s, 1, map);
    assert_true(hsk_pagemap_set(map, 50, hsk_entry(1, 2, 3), NULL));
    struct hsk_map_ref same = write_map(s, 2, map);
    assert_int_equal(s->members[2]->len, 0);
    assert_memory_equal(&root, &same, sizeof(root));
    assert_true(hsk_pagemap_set(map, 50, hsk_entry(1, 2, 4), NULL));
    struct hsk_map_ref other = write_map(s, 3, map);
    assert_int_equal(s->members[3]->len, HSK_MAP_LEAF_BYTES + 2 * HSK_MAP_INNER_BYTES);
    assert_memory_not_equal(&root, &other, sizeof(root));
    for (uint64_t p = 0; p < 1 << 20; p += 50)
        assert_true(hsk_pagemap_set(map, p, 0, NULL));
    struct hsk_map_ref empty = write_map(s, 4, map);
    assert_true(hsk_map_ref_is_null(&empty));
}

static bool read_everything(struct store *s, const struct hsk_map_ref *root, uint64_t npages)
{
    struct hsk_map_source src = source(s);
    HSK_AUTO(hsk_pagemap, map) = hsk_pagemap_new(&src, root, npages);
    uint64_t entry;
    bool ok = true;
    for (uint64_t p = 0; p < npages && ok; p++)
        ok = hsk_pagemap_get(map, p, &entry, NULL);
    return ok;
}

static void changed_and_senseless_nodes_are_refused(void **state)
{
    struct store *s = *state;
    struct hsk_map_source src = source(s);
    HSK_AUTO(hsk_pagemap, map) = hsk_pagemap_new(&src, NULL, 1000);
    for (uint64_t p = 0; p < 1000; p++)
        assert_true(hsk_pagemap_set(map, p, hsk_entry(1, 2, 3), NULL));
    struct hsk_map_ref root = write_map(s, 1, map);
    assert_true(read_everything(s, &root, 1000));
    for (guint i = 0; i < s->members[1]->len; i += 7) {
        s->members[1]->data[i] ^= 1;
        assert_false(read_everything(s, &root, 1000));
        s->members[1]->data[i] ^= 1;
    }
    struct hsk_map_ref wrong = root;
    wrong.offset = UINT32_MAX;
    assert_false(read_everything(s, &wrong, 1000));
    wrong = root;
    wrong.member = 7;
    assert_false(read_everything(s, &wrong, 1000));
    /* well hashed: an entry of an unknown type, an entry behind the end of the object */
    uint8_t leaf[HSK_MAP_LEAF_BYTES] = {0};
    s->members[2] = g_byte_array_new();
    const struct {
        unsigned at;
        uint64_t entry;
        bool ok;
    } cases[] = {{99, 1ull << 60, true},
                 {99, 2ull << 60, false},
                 {99, 5, false},
                 {100, 1ull << 60, false},
                 {127, 1ull << 60, false}};
    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        struct hsk_map_ref forged = {.member = 2};
        memset(leaf, 0, sizeof(leaf));
        hsk_put64(leaf + 8 * cases[i].at, cases[i].entry);
        crypto_generichash(forged.hash, sizeof(forged.hash), leaf, sizeof(leaf), NULL, 0);
        g_byte_array_set_size(s->members[2], 0);
        g_byte_array_append(s->members[2], leaf, sizeof(leaf));
        assert_int_equal(read_everything(s, &forged, 100), cases[i].ok);
    }
}

/* ---- ROOT ---- */

static struct hsk_root *make_root(void)
{
    struct hsk_root *r = hsk_root_new("7b0c9f0e-5b1d-4c57-9d55-0f4c6e4f5a11");
    struct hsk_segment_id id = {.number = 7, .nframes = 3, .table_hash = {9}};
    struct hsk_object o = {.name = "disk.root", .size_bytes = 8192, .root = {1, 2, {3}}};
    uint8_t hash[HSK_HASH_BYTES] = {1, 2, 3};
    r->generation = 5;
    r->next_number = 8;
    r->log_number = 2;
    r->log_seq = 77;
    hsk_root_set(r, "manifest.json", hash, NULL);
    hsk_root_set(r, "data/000007.zst", hash, &id);
    hsk_objects_set(r->present, &o);
    return r;
}

static void root_text_reads_back(void **state)
{
    HSK_AUTO(hsk_root, r) = make_root();
    g_autofree char *text = hsk_root_format(r);
    GError *error = NULL;
    HSK_AUTO(hsk_root, got) = hsk_root_parse(text, strlen(text), "t.hva", &error);
    assert_non_null(got);
    g_autofree char *again = hsk_root_format(got);
    assert_string_equal(text, again);
    assert_int_equal(hsk_root_find(got, "data/000007.zst")->segment.nframes, 3);
    assert_int_equal(hsk_root_present(got, "disk.root")->root.offset, 2);
    HSK_AUTO(hsk_root, copy) = hsk_root_copy(got);
    hsk_root_remove(copy, "manifest.json");
    assert_null(hsk_root_find(copy, "manifest.json"));
    assert_non_null(hsk_root_find(got, "manifest.json"));
}

static char *seal(const char *body)
{
    uint8_t hash[HSK_HASH_BYTES];
    char hex[2 * HSK_HASH_BYTES + 1];
    hsk_hash(body, strlen(body), hash);
    hsk_hex(hex, hash, sizeof(hash));
    return g_strdup_printf("%s# end %s\n", body, hex);
}

static void changed_and_senseless_roots_are_refused(void **state)
{
#define HEAD "# haversack root 1\n# document 7b0c9f0e-5b1d-4c57-9d55-0f4c6e4f5a11 generation 1\n"
#define HASH "0000000000000000000000000000000000000000000000000000000000000000"
    static const char *const bad[] = {
        "",
        "# haversack root 1\n",
        HEAD "\n",
        HEAD "# unknown\n",
        HEAD "x",
        HEAD "BLAKE2b-256 (../x) = " HASH "\n",
        HEAD "BLAKE2b-256 (a) = " HASH "0\n",
        HEAD "BLAKE2b-256 (a) = 12\n",
        HEAD "BLAKE2b-256 (a) = " HASH "\nBLAKE2b-256 (a) = " HASH "\n",
        HEAD "# segment 1 frames 1 table " HASH "\n",
        HEAD "BLAKE2b-256 (data/000001.zst) = " HASH "\n# segment 2 frames 1 table " HASH "\n",
        HEAD "BLAKE2b-256 (data/000001.zst) = " HASH "\n# segment 1 frames 0 table " HASH "\n",
        HEAD "BLAKE2b-256 (data/000001.zst) = " HASH "\n# segment 1 frames 99999999 table " HASH
             "\n",
        HEAD "# present ram 4096\n",
        HEAD "# present ram 4097 " HASH "\n",
        HEAD "# present ram 0 " HASH "\n",
        HEAD "# present ../x 4096 " HASH "\n",
        HEAD "# present ram 36028797018963968 " HASH "\n",
        HEAD "# present ram 4096 " HASH "\n# present ram 4096 " HASH "\n",
        HEAD "# next 0\n",
        HEAD "# next 01\n",
        HEAD "# next 4294967296\n",
        HEAD "# next 99999999999999999999999\n",
        HEAD "# current x\n",
        HEAD "# log 0 1\n",
        HEAD HEAD,
        "# haversack root 1\n# document x generation 1\n",
    };
    HSK_AUTO(hsk_root, r) = make_root();
    g_autofree char *text = hsk_root_format(r);
    size_t len = strlen(text);
    for (size_t i = 0; i < len; i++) {
        text[i] ^= 1;
        assert_null(hsk_root_parse(text, len, "t.hva", NULL));
        text[i] ^= 1;
        assert_null(hsk_root_parse(text, i, "t.hva", NULL));
    }
    g_autofree char *good = seal(HEAD);
    HSK_AUTO(hsk_root, fine) = hsk_root_parse(good, strlen(good), "t.hva", NULL);
    assert_non_null(fine);
    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
        g_autofree char *sealed = seal(bad[i]);
        if (hsk_root_parse(sealed, strlen(sealed), "t.hva", NULL) != NULL)
            fail_msg("accepted: %s", bad[i]);
    }
    g_autofree char *newer = seal("# haversack root 2\n");
    g_autoptr(GError) error = NULL;
    assert_null(hsk_root_parse(newer, strlen(newer), "t.hva", &error));
    assert_non_null(strstr(error->message, "newer Haversack"));
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(maps_of_every_depth_agree_with_an_array),
        T(an_unchanged_map_writes_nothing_and_one_page_writes_its_path),
        T(changed_and_senseless_nodes_are_refused),
        T(root_text_reads_back),
        T(changed_and_senseless_roots_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
