/* SPDX-License-Identifier: MIT */
/*
 * The power fails in the middle of a document's life: whatever of the changes since the last syncs
 * reached the disk, the document opens, holds everything that was promised, nothing else, and goes
 * on. A life is lived once and cut at many moments; the opening after a cut is cut as well.
 */
#include <errno.h>
#include <rounds.h>

#include "life.h"
#include "wrap.h"

static int guest(void *opaque, enum wrap_call call)
{
    /* Not where the store holds what a disk write needs. */
    if (call == WRAP_WRITE || call == WRAP_SYNC || call == WRAP_SYNC_FOLDER || call == WRAP_NAMES ||
        call == WRAP_LINK)
        life_guest(opaque);
    bool syncs = call == WRAP_SYNC || call == WRAP_SYNC_FOLDER;
    return syncs && ((struct life *)opaque)->dies ? EIO : 0;
}

static const char *const cut_names[JOURNAL_CUTS] = {"least", "most", "names", "in order", "any"};

/* What is found after a cut is opened, and the power fails again. */
static void cut_the_opening(struct life *l, unsigned at, uint32_t seed)
{
    const char *const folders[] = {l->s->dir, g_get_user_data_dir(), NULL};
    struct journal *j = journal_new(folders);
    struct wrap_hooks hooks = {.journal = j};
    wrap_set(&hooks);
    struct hsk_doc *doc = hsk_doc_open(l->s->doc, false, NULL, NULL);
    wrap_set(NULL);
    hsk_doc_close(doc);
    assert_true(journal_agrees(j));
    unsigned all = journal_now(j);
    journal_restore(j, all == 0 ? 0 : seed % (all + 1), seed % JOURNAL_CUTS, seed);
    journal_free(j);
}

/* Lives once, cuts it `cuts` times. Every other document came from another computer. */
static void cut_a_life(const struct scratch *s, uint32_t seed, unsigned steps, unsigned cuts)
{
    g_autofree char *data = hsk_data_folder();
    const char *const folders[] = {s->dir, g_get_user_data_dir(), NULL};
    fresh_document(s);
    if (seed % 2 == 0)
        remove_tree(data);
    struct journal *j = journal_new(folders);
    struct life *l = life_new(s, j, seed);
    struct wrap_hooks hooks = {guest, l, j};
    wrap_set(&hooks);
    assert_true(life_run(l, steps));
    wrap_set(NULL);
    assert_true(journal_agrees(j));
    unsigned all = journal_now(j);
    GRand *rand = g_rand_new_with_seed(seed);
    for (unsigned i = 0; i < cuts; i++) {
        uint32_t how = g_rand_int(rand);
        unsigned at = g_rand_int(rand) % (all + 1);
        if (i % 4 < 2)
            at = journal_before_sync(j, at);
        enum journal_cut cut = i % 2 == 0 ? JOURNAL_ANY : how % JOURNAL_CUTS;
        g_snprintf(l->where, sizeof(l->where), "life %u (%u changes), cut at %u, %s, seed %u%s",
                   seed, all, at, cut_names[cut], how, i % 4 == 3 ? ", twice" : "");
        journal_restore(j, at, cut, how);
        if (i % 4 == 3)
            cut_the_opening(l, at, how);
        life_check(l, at);
    }
    g_rand_free(rand);
    life_free(l);
    journal_free(j);
}

/* Once it is acknowledged it is there; before, it is whole or not there. On a computer that never
 * saw Haversack before. */
static void a_new_document_is_whole_or_not_there(void **state)
{
    const struct scratch *s = *state;
    g_autofree char *data = hsk_data_folder();
    const char *const folders[] = {s->dir, g_get_user_data_dir(), NULL};
    unsigned cuts = test_rounds(100, 1000);
    remove_tree(data);
    struct journal *j = journal_new(folders);
    struct wrap_hooks hooks = {.journal = j};
    wrap_set(&hooks);
    bool made = make_document(s, NULL, NULL);
    wrap_set(NULL);
    assert_true(made && journal_agrees(j));
    unsigned all = journal_now(j);
    for (unsigned i = 0; i < cuts; i++) {
        g_autoptr(GError) why = NULL;
        unsigned at = i % 4 == 0 ? all : all - i % (all + 1);
        journal_restore(j, at, i % JOURNAL_CUTS, i);
        if (at < all && !g_file_test(s->doc, G_FILE_TEST_EXISTS))
            continue;
        struct hsk_doc *doc = hsk_doc_open(s->doc, true, NULL, &why);
        if (doc == NULL)
            fail_msg("cut %u at %u of %u: %s", i, at, all, why->message);
        assert_true(hsk_doc_trusted(doc));
        hsk_doc_close(doc);
        assert_ok(hsk_doc_verify(s->doc, NULL, NULL, &error));
    }
    journal_free(j);
}

static void nothing_promised_is_missing_after_a_power_cut(void **state)
{
    unsigned lives = test_rounds(6, 200), first = 1;
    const char *one = getenv("HSK_SEED");
    if (one != NULL) {
        first = (unsigned)atoi(one);
        lives = 1;
    }
    for (unsigned i = 0; i < lives; i++) {
        cut_a_life(*state, first + i, 60, 50);
        if (i % 20 == 19)
            print_message("%u power cuts\n", (i + 1) * 50);
    }
    print_message("%u power cuts in the lives %u to %u\n", lives * 50, first, first + lives - 1);
}

int main(void)
{
    g_autofree char *data = scratch_data_home();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(nothing_promised_is_missing_after_a_power_cut,
                                        scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(a_new_document_is_whole_or_not_there, scratch_setup,
                                        scratch_teardown),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    remove_tree(data);
    return failed;
}
