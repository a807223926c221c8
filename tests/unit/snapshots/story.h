/* SPDX-License-Identifier: MIT */
/*
 * A story of a document (writes, versions, publishes) that tests interrupt in many ways, and the
 * question that is asked afterwards: is everything there that was promised? One thread.
 */
#pragma once

#ifndef RAM_PAGES
#define RAM_PAGES 64u
#endif
#include "fixture.h"

/* What the story achieved, to be found again afterwards. */
struct achieved {
    char version[33];
    unsigned ram_seed;     /* of version */
    unsigned flushed_seed; /* of disk page 5: at least this one */
    bool published;
    const bool *cut; /* not NULL: once it is true nothing counts as achieved any more */
};

G_GNUC_UNUSED static bool counts(const struct achieved *a)
{
    return a->cut == NULL || !*a->cut;
}

G_GNUC_UNUSED static bool step_take(struct hsk_doc *doc, unsigned seed, enum hsk_version_kind kind,
                                    struct achieved *a)
{
    char id[33];
    g_autoptr(GError) error = NULL;
    g_autofree uint8_t *ram = make_ram(seed);
    bool ok = take(doc, "t", kind, ram, id, &error);
    if (!ok) {
        assert_non_null(error);
        return false;
    }
    if (counts(a)) {
        g_strlcpy(a->version, id, sizeof(a->version));
        a->ram_seed = seed;
    }
    return true;
}

G_GNUC_UNUSED static void step_write(struct hsk_doc *doc, unsigned seed, struct achieved *a)
{
    if (write_disk_page(doc, 5, seed) == 0 && hsk_disk_flush(hsk_doc_disk(doc, 0)) == 0 &&
        counts(a))
        a->flushed_seed = seed;
}

G_GNUC_UNUSED static void story(const struct scratch *s, const struct hsk_io *io,
                                struct achieved *a)
{
    g_autoptr(GError) error = NULL;
    struct hsk_doc *doc = hsk_doc_open_io(s->doc, false, io, NULL, &error);
    if (doc == NULL) {
        assert_non_null(error);
        return;
    }
    step_write(doc, 11, a);
    step_take(doc, 1, HSK_VERSION_USER, a);
    a->published = hsk_doc_publish(doc, NULL);
    step_write(doc, 12, a);
    step_take(doc, 2, HSK_VERSION_SAVED, a);
    step_write(doc, 13, a);
    step_take(doc, 3, HSK_VERSION_SAVED, a);
    a->published = hsk_doc_publish(doc, NULL);
    step_write(doc, 14, a);
    hsk_doc_close(doc);
}

G_GNUC_UNUSED static void assert_nothing_lost(const struct scratch *s, const struct achieved *a)
{
    char *orphan = NULL;
    struct hsk_doc *doc;
    assert_ok(hsk_doc_verify(s->doc, NULL, NULL, &error));
    assert_ok((doc = hsk_doc_open(s->doc, false, &orphan, &error)) != NULL);
    assert_null(orphan);
    if (a->version[0] != '\0' && hsk_doc_find(doc, a->version) != NULL) {
        g_autofree uint8_t *ram = make_ram(a->ram_seed);
        assert_version_ram(doc, a->version, ram);
    } else if (a->version[0] != '\0') {
        /* A commit that failed in its last sync may have come through: the next saved state took
         * this one's place. */
        g_autofree uint8_t *ram = make_ram(a->ram_seed + 1);
        assert_version_ram(doc, hsk_doc_saved(doc), ram);
    }
    /* The page holds the flushed content or one that was written after it. */
    uint8_t got[HSK_PAGE_SIZE], want[HSK_PAGE_SIZE];
    bool found = false;
    assert_int_equal(hsk_disk_read(hsk_doc_disk(doc, 0), 5 * HSK_PAGE_SIZE, got, sizeof(got)), 0);
    for (unsigned seed = a->flushed_seed; seed <= 14 && !found; seed = seed == 7 ? 11 : seed + 1) {
        fill_page(want, 5, seed);
        found = memcmp(got, want, sizeof(want)) == 0;
    }
    assert_true(found);
    /* and it works on */
    struct achieved more = {.flushed_seed = 7};
    step_write(doc, 15, &more);
    assert_int_equal(more.flushed_seed, 15);
    assert_true(step_take(doc, 4, HSK_VERSION_USER, &more));
    assert_ok(hsk_doc_publish(doc, &error));
    hsk_doc_close(doc);
    assert_ok(hsk_doc_verify(s->doc, NULL, NULL, &error));
}
