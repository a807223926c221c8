/* SPDX-License-Identifier: MIT */
/*
 * Segments: what is written reads back, also by plain zstd; damage and frames that lie are refused
 * (hva-format's list, 8 to 11).
 */
#include <appliance-format/segment.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <zstd.h>

#include <cmocka.h>

struct box {
    char *dir;
    int dirfd;
    struct hsk_dir_sink sink;
    uint32_t next;
    struct hsk_segment_id ids[8];
    uint8_t hashes[8][HSK_HASH_BYTES];
    unsigned n;
};

static void done(void *opaque, const char *name, const struct hsk_segment_id *id,
                 const uint8_t hash[HSK_HASH_BYTES])
{
    struct box *b = opaque;
    assert_true(b->n < 8);
    memcpy(b->hashes[b->n], hash, HSK_HASH_BYTES);
    b->ids[b->n++] = *id;
}

static int setup(void **state)
{
    struct box *b = g_new0(struct box, 1);
    b->dir = g_dir_make_tmp("hsk-seg-XXXXXX", NULL);
    b->dirfd = open(b->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    b->next = 5;
    hsk_dir_sink_init(&b->sink, NULL, b->dirfd, "t.hva");
    *state = b;
    return 0;
}

static int teardown(void **state)
{
    struct box *b = *state;
    g_autofree char *data = g_build_filename(b->dir, "data", NULL);
    hsk_dir_sink_abort(&b->sink);
    hsk_dir_sink_finish(&b->sink);
    close(b->dirfd);
    rmdir(data);
    rmdir(b->dir);
    g_free(b->dir);
    g_free(b);
    return 0;
}

static struct hsk_segment *open_segment(struct box *b, const struct hsk_segment_id *id,
                                        GError **error)
{
    g_autofree char *name = g_strdup_printf("data/%06u.zst", id->number);
    struct hsk_carrier *c = hsk_carrier_open_dir(b->dirfd, "t.hva");
    struct hsk_member m;
    assert_true(hsk_carrier_member(c, name, &m, NULL));
    hsk_carrier_free(c);
    return hsk_segment_open(&m, id, "t.hva", error);
}

static void write_three(struct box *b, uint8_t *content)
{
    uint32_t segment, frame;
    for (size_t i = 0; i < HSK_FRAME_MAX_BYTES; i++)
        content[i] = (uint8_t)(i * i >> 7);
    HSK_AUTO(hsk_segment_writer, w) =
        hsk_segment_writer_new(&b->sink.sink, "data", 1, &b->next, done, b);
    assert_true(hsk_segment_writer_add(w, content, HSK_FRAME_MAX_BYTES, &segment, &frame, NULL));
    assert_int_equal(segment, 5);
    assert_int_equal(frame, 0);
    assert_true(hsk_segment_writer_add_hole(w, (1u << 30) - 4096, NULL));
    assert_true(hsk_segment_writer_add(w, content, 100, &segment, &frame, NULL));
    assert_int_equal(frame, 2);
    assert_true(hsk_segment_writer_finish(w, NULL));
    assert_int_equal(b->n, 1);
    assert_int_equal(b->next, 6);
}

static bool check(const struct hsk_segment *s, GError **error)
{
    static const struct hsk_segment_checker nobody;
    uint8_t hash[HSK_HASH_BYTES];
    return hsk_segment_check(s, &nobody, hash, error);
}

static void frames_read_back(void **state)
{
    struct box *b = *state;
    g_autofree uint8_t *content = g_malloc(HSK_FRAME_MAX_BYTES);
    GError *error = NULL;
    write_three(b, content);
    HSK_AUTO(hsk_segment, s) = open_segment(b, &b->ids[0], &error);
    assert_non_null(s);
    assert_int_equal(hsk_segment_nframes(s), 3);
    g_autoptr(GBytes) first = hsk_segment_decode(s, 0, &error);
    assert_int_equal(g_bytes_get_size(first), HSK_FRAME_MAX_BYTES);
    assert_memory_equal(g_bytes_get_data(first, NULL), content, HSK_FRAME_MAX_BYTES);
    assert_null(hsk_segment_decode(s, 1, NULL)); /* a hole has no content */
    assert_null(hsk_segment_decode(s, 3, NULL));
    assert_int_equal(hsk_segment_frame(s, 1)->flags, HSK_FRAME_HOLE);
    assert_null(hsk_segment_frame(s, 3));
    assert_true(check(s, &error));
}

static void a_plain_zstd_decoder_reads_the_whole_file(void **state)
{
    struct box *b = *state;
    g_autofree uint8_t *content = g_malloc(HSK_FRAME_MAX_BYTES);
    g_autofree char *file = NULL;
    gsize bytes;
    write_three(b, content);
    g_autofree char *path = g_build_filename(b->dir, "data", "000005.zst", NULL);
    assert_true(g_file_get_contents(path, &file, &bytes, NULL));
    uint8_t hash[HSK_HASH_BYTES];
    hsk_hash(file, bytes, hash);
    assert_memory_equal(hash, b->hashes[0], HSK_HASH_BYTES);
    ZSTD_DCtx *d = ZSTD_createDCtx();
    g_autofree uint8_t *out = g_malloc(1 << 20);
    ZSTD_inBuffer in = {file, bytes, 0};
    uint64_t total = 0;
    while (in.pos < in.size) {
        ZSTD_outBuffer o = {out, 1 << 20, 0};
        assert_false(ZSTD_isError(ZSTD_decompressStream(d, &o, &in)));
        for (size_t i = 0; i < o.pos; i++) {
            uint64_t at = total + i, hole = HSK_FRAME_MAX_BYTES + (1ull << 30) - 4096;
            uint8_t want = at < HSK_FRAME_MAX_BYTES ? content[at]
                           : at < hole              ? 0
                                                    : content[at - hole];
            if (out[i] != want)
                fail_msg("wrong byte at %lu", (unsigned long)at);
        }
        total += o.pos;
    }
    ZSTD_freeDCtx(d);
    assert_int_equal(total, HSK_FRAME_MAX_BYTES + (1ull << 30) - 4096 + 100);
}

static void every_flipped_byte_is_noticed(void **state)
{
    struct box *b = *state;
    uint32_t segment, frame;
    uint8_t content[3000];
    GError *error = NULL;
    for (size_t i = 0; i < sizeof(content); i++)
        content[i] = (uint8_t)(i * 31 >> 3);
    HSK_AUTO(hsk_segment_writer, w) =
        hsk_segment_writer_new(&b->sink.sink, "data", 1, &b->next, done, b);
    assert_true(hsk_segment_writer_add(w, content, sizeof(content), &segment, &frame, NULL));
    assert_true(hsk_segment_writer_add_hole(w, 1 << 20, NULL));
    assert_true(hsk_segment_writer_finish(w, NULL));
    HSK_AUTOFD fd = openat(b->dirfd, "data/000005.zst", O_RDWR | O_CLOEXEC);
    off_t size = lseek(fd, 0, SEEK_END);
    for (off_t at = 0; at < size; at++) {
        uint8_t byte;
        assert_int_equal(hsk_pread_all(fd, &byte, 1, (uint64_t)at), 0);
        byte ^= 0x10;
        assert_int_equal(hsk_pwrite_all(fd, &byte, 1, (uint64_t)at), 0);
        HSK_AUTO(hsk_segment, s) = open_segment(b, &b->ids[0], NULL);
        if (s != NULL && check(s, NULL))
            fail_msg("byte %ld may be anything", (long)at);
        byte ^= 0x10;
        assert_int_equal(hsk_pwrite_all(fd, &byte, 1, (uint64_t)at), 0);
    }
    HSK_AUTO(hsk_segment, s) = open_segment(b, &b->ids[0], &error);
    assert_true(check(s, &error));
}

static void wrong_identities_are_refused(void **state)
{
    struct box *b = *state;
    g_autofree uint8_t *content = g_malloc(HSK_FRAME_MAX_BYTES);
    write_three(b, content);
    const uint32_t counts[] = {
        0, 1, 2, 4, 1000, HSK_SEGMENT_MAX_FRAMES, HSK_SEGMENT_MAX_FRAMES + 1, UINT32_MAX};
    for (size_t i = 0; i < G_N_ELEMENTS(counts); i++) {
        struct hsk_segment_id id = b->ids[0];
        id.nframes = counts[i];
        assert_null(open_segment(b, &id, NULL));
    }
}

/* A segment of one frame made by somebody who knows the format and computes every hash. */
static struct hsk_segment *forge(struct box *b, const void *frame, uint32_t csize, uint32_t rawsize,
                                 uint32_t offset, uint32_t flags)
{
    uint8_t table[8 + 16 + 64] = {0}, seek[8 + 8 + 9] = {0};
    struct hsk_segment_id id = {.number = 5, .nframes = 1};
    hsk_put32(table, 0x184D2A5A);
    hsk_put32(table + 4, 80);
    memcpy(table + 8, "HVAFRMT1", 8);
    hsk_put32(table + 16, 5);
    hsk_put32(table + 20, 1);
    hsk_put32(table + 24, offset);
    hsk_put32(table + 28, csize);
    hsk_put32(table + 32, rawsize);
    hsk_put32(table + 36, flags);
    hsk_hash(frame, csize, table + 56);
    hsk_hash(table + 8, 80, id.table_hash);
    g_autoptr(GByteArray) file = g_byte_array_new();
    g_byte_array_append(file, frame, csize);
    g_byte_array_append(file, table, sizeof(table));
    g_byte_array_append(file, seek, sizeof(seek));
    assert_true(hsk_sink_put(&b->sink.sink, "data/000005.zst", file->data, file->len, NULL, NULL));
    return open_segment(b, &id, NULL);
}

static void well_hashed_lies_are_refused(void **state)
{
    struct box *b = *state;
    uint8_t raw[8192] = {1, 2, 3}, frame[20000];
    ZSTD_CCtx *c = ZSTD_createCCtx();
    size_t n = ZSTD_compress2(c, frame, sizeof(frame), raw, 4096);
    g_autoptr(GBytes) out = NULL;
    HSK_AUTO(hsk_segment, good) = forge(b, frame, (uint32_t)n, 4096, 0, 0);
    assert_non_null(good);
    out = hsk_segment_decode(good, 0, NULL);
    assert_non_null(out);
    /* the table: sizes and offsets that do not fit, unknown flags */
    assert_null(forge(b, frame, (uint32_t)n, HSK_FRAME_MAX_BYTES + 1, 0, 0));
    assert_null(forge(b, frame, (uint32_t)n, 0, 0, 0));
    assert_null(forge(b, frame, (uint32_t)n, 4096, 1, 0));
    assert_null(forge(b, frame, (uint32_t)n, 4096, 0, 2));
    assert_null(forge(b, frame, (uint32_t)n, HSK_HOLE_MAX_BYTES + 1, 0, HSK_FRAME_HOLE));
    /* the frame: another size than promised, two frames, trailing bytes, no content size,
     * skippable, a dictionary, not zstd */
    HSK_AUTO(hsk_segment, wrong_size) = forge(b, frame, (uint32_t)n, 8192, 0, 0);
    assert_null(hsk_segment_decode(wrong_size, 0, NULL));
    memcpy(frame + n, frame, n);
    HSK_AUTO(hsk_segment, twice) = forge(b, frame, (uint32_t)(2 * n), 8192, 0, 0);
    assert_null(hsk_segment_decode(twice, 0, NULL));
    HSK_AUTO(hsk_segment, trailing) = forge(b, frame, (uint32_t)n + 1, 4096, 0, 0);
    assert_null(hsk_segment_decode(trailing, 0, NULL));
    ZSTD_CCtx_setParameter(c, ZSTD_c_contentSizeFlag, 0);
    n = ZSTD_compress2(c, frame, sizeof(frame), raw, 4096);
    HSK_AUTO(hsk_segment, unsized) = forge(b, frame, (uint32_t)n, 4096, 0, 0);
    assert_null(hsk_segment_decode(unsized, 0, NULL));
    const uint8_t skippable[] = {0x50, 0x2A, 0x4D, 0x18, 4, 0, 0, 0, 1, 2, 3, 4};
    HSK_AUTO(hsk_segment, skipped) = forge(b, skippable, sizeof(skippable), 4, 0, 0);
    assert_null(hsk_segment_decode(skipped, 0, NULL));
    const uint8_t dictionary[] = {0x28, 0xB5, 0x2F, 0xFD, 0x21, 7, 1, 0x09, 0, 0, 'x'};
    HSK_AUTO(hsk_segment, dict) = forge(b, dictionary, sizeof(dictionary), 1, 0, 0);
    assert_null(hsk_segment_decode(dict, 0, NULL));
    HSK_AUTO(hsk_segment, text) = forge(b, "hello", 5, 4096, 0, 0);
    assert_null(hsk_segment_decode(text, 0, NULL));
    /* a bomb says its size, which is over the limit of a frame; a hole that is none */
    g_autofree uint8_t *zeros = g_malloc0(1 << 24);
    ZSTD_CCtx_setParameter(c, ZSTD_c_contentSizeFlag, 1);
    n = ZSTD_compress2(c, frame, sizeof(frame), zeros, 1 << 24);
    HSK_AUTO(hsk_segment, bomb) = forge(b, frame, (uint32_t)n, 4096, 0, 0);
    assert_null(hsk_segment_decode(bomb, 0, NULL));
    HSK_AUTO(hsk_segment, hole) = forge(b, frame, (uint32_t)n, 1 << 24, 0, HSK_FRAME_HOLE);
    assert_false(check(hole, NULL));
    ZSTD_freeCCtx(c);
}

static void many_frames_go_into_several_segments(void **state)
{
    struct box *b = *state;
    g_autofree uint8_t *noise = g_malloc(HSK_FRAME_MAX_BYTES);
    uint64_t x = 1;
    uint32_t segment = 0, frame = 0;
    HSK_AUTO(hsk_segment_writer, w) =
        hsk_segment_writer_new(&b->sink.sink, "data", 1, &b->next, done, b);
    for (unsigned i = 0; i < 300; i++) {
        for (size_t k = 0; k < HSK_FRAME_MAX_BYTES; k += 8) {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            memcpy(noise + k, &x, 8);
        }
        assert_true(hsk_segment_writer_add(w, noise, HSK_FRAME_MAX_BYTES, &segment, &frame, NULL));
    }
    assert_true(hsk_segment_writer_finish(w, NULL));
    assert_int_equal(b->n, 2);
    assert_int_equal(segment, 6);
    HSK_AUTO(hsk_segment, s) = open_segment(b, &b->ids[1], NULL);
    g_autoptr(GBytes) last = hsk_segment_decode(s, frame, NULL);
    assert_memory_equal(g_bytes_get_data(last, NULL), noise, HSK_FRAME_MAX_BYTES);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(frames_read_back),
        T(a_plain_zstd_decoder_reads_the_whole_file),
        T(every_flipped_byte_is_noticed),
        T(wrong_identities_are_refused),
        T(well_hashed_lies_are_refused),
        T(many_frames_go_into_several_segments),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
