/* SPDX-License-Identifier: MIT */
/* The raw file back end: contents, holes, limits, order, and what it says about files it cannot
 * use. */
#include <vmm/block.h>

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>

#include <cmocka.h>

#define FILE_BYTES (1u << 20)

struct fixture {
    char *path;
    struct hsk_loop *loop;
    struct hsk_block *block;
};

static int setup(void **state)
{
    struct fixture *f = g_new0(struct fixture, 1);
    int fd = g_file_open_tmp("rawfile-XXXXXX", &f->path, NULL);

    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, FILE_BYTES + 100), 0); /* the odd end is cut off */
    f->loop = hsk_loop_new(NULL, NULL);
    f->block = hsk_block_rawfile_new(fd, false, NULL);
    assert_non_null(f->block);
    hsk_block_attach(f->block, f->loop);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    f->block->ops->free(f->block);
    hsk_loop_free(f->loop);
    unlink(f->path);
    g_free(f->path);
    g_free(f);
    return 0;
}

static void count_done(struct hsk_block_req *req)
{
    ++*(unsigned *)req->opaque;
}

static int run(struct fixture *f, enum hsk_block_op op, uint64_t offset, uint64_t len, void *buf)
{
    unsigned done = 0;
    struct hsk_block_req req = {
        .op = op, .offset = offset, .len = len, .buf = buf, .done = count_done, .opaque = &done};

    f->block->ops->submit(f->block, &req);
    f->block->ops->drain(f->block);
    assert_int_equal(done, 1);
    return req.result;
}

static void what_was_written_is_read(void **state)
{
    struct fixture *f = *state;
    uint8_t out[4096], in[4096];

    assert_int_equal(f->block->size_bytes, FILE_BYTES);
    memset(out, 0x5a, sizeof out);
    assert_int_equal(run(f, HSK_BLOCK_WRITE, FILE_BYTES - sizeof out, sizeof out, out), 0);
    assert_int_equal(run(f, HSK_BLOCK_FLUSH, 0, 0, NULL), 0);
    assert_int_equal(run(f, HSK_BLOCK_READ, FILE_BYTES - sizeof in, sizeof in, in), 0);
    assert_memory_equal(in, out, sizeof in);
}

static void pieces_are_written_in_order(void **state)
{
    struct fixture *f = *state;
    uint8_t a[100], b[3000], c[996], in[4096];
    struct iovec iov[] = {{a, sizeof a}, {b, sizeof b}, {c, sizeof c}};
    unsigned done = 0;
    struct hsk_block_req req = {.op = HSK_BLOCK_WRITE,
                                .offset = 512,
                                .len = sizeof in,
                                .iov = iov,
                                .niov = G_N_ELEMENTS(iov),
                                .done = count_done,
                                .opaque = &done};

    memset(a, 1, sizeof a);
    memset(b, 2, sizeof b);
    memset(c, 3, sizeof c);
    assert_true(f->block->gathers);
    f->block->ops->submit(f->block, &req);
    f->block->ops->drain(f->block);
    assert_int_equal(req.result, 0);
    assert_int_equal(run(f, HSK_BLOCK_READ, 512, sizeof in, in), 0);
    assert_memory_equal(in, a, sizeof a);
    assert_memory_equal(in + sizeof a, b, sizeof b);
    assert_memory_equal(in + sizeof a + sizeof b, c, sizeof c);
}

static void requests_outside_of_the_disk_fail(void **state)
{
    struct fixture *f = *state;
    uint8_t buf[512] = {0};

    assert_int_equal(run(f, HSK_BLOCK_READ, FILE_BYTES, 512, buf), -EINVAL);
    assert_int_equal(run(f, HSK_BLOCK_WRITE, FILE_BYTES - 256, 512, buf), -EINVAL);
    assert_int_equal(run(f, HSK_BLOCK_WRITE, UINT64_MAX - 255, 512, buf), -EINVAL);
    assert_int_equal(run(f, HSK_BLOCK_ZERO, 512, UINT64_MAX, NULL), -EINVAL);
}

static void zeroed_and_discarded_ranges_read_as_zeros(void **state)
{
    struct fixture *f = *state;
    g_autofree uint8_t *buf = g_malloc(FILE_BYTES);
    struct stat st;

    memset(buf, 0xff, FILE_BYTES);
    assert_int_equal(run(f, HSK_BLOCK_WRITE, 0, FILE_BYTES, buf), 0);
    assert_int_equal(run(f, HSK_BLOCK_ZERO, 512, 400000, NULL), 0);
    assert_int_equal(run(f, HSK_BLOCK_DISCARD, 524288, 262144, NULL), 0);
    assert_int_equal(run(f, HSK_BLOCK_READ, 0, FILE_BYTES, buf), 0);
    assert_int_equal(buf[511], 0xff);
    for (unsigned i = 512; i < 400512; i++)
        assert_int_equal(buf[i], 0);
    assert_int_equal(buf[400512], 0xff);
    assert_int_equal(buf[FILE_BYTES - 1], 0xff);
    assert_int_equal(stat(f->path, &st), 0);
    assert_int_equal(st.st_size, FILE_BYTES + 100);
}

struct ended {
    struct hsk_loop *loop;
    unsigned done;
};

static void count_and_quit(struct hsk_block_req *req)
{
    struct ended *e = req->opaque;

    e->done++;
    hsk_loop_quit(e->loop);
}

static void done_runs_on_the_loop(void **state)
{
    struct fixture *f = *state;
    uint8_t buf[512];
    struct ended e = {.loop = f->loop};
    struct hsk_block_req req = {
        .op = HSK_BLOCK_READ, .len = sizeof buf, .buf = buf, .done = count_and_quit, .opaque = &e};

    f->block->ops->submit(f->block, &req);
    assert_int_equal(e.done, 0);
    hsk_loop_run(f->loop);
    assert_int_equal(e.done, 1);
    assert_int_equal(req.result, 0);
}

static void readonly_disk_refuses_writes(void **state)
{
    struct fixture *f = *state;
    struct hsk_block *b = hsk_block_rawfile_new(open(f->path, O_RDONLY | O_CLOEXEC), true, NULL);
    struct fixture g = {.block = b};
    uint8_t buf[512] = {0};

    hsk_block_attach(b, f->loop);
    assert_int_equal(run(&g, HSK_BLOCK_WRITE, 0, 512, buf), -EROFS);
    assert_int_equal(run(&g, HSK_BLOCK_DISCARD, 0, 512, NULL), -EROFS);
    assert_int_equal(run(&g, HSK_BLOCK_FLUSH, 0, 0, NULL), 0);
    assert_int_equal(run(&g, HSK_BLOCK_READ, 0, 512, buf), 0);
    b->ops->free(b);
}

static void unusable_files_are_refused_with_a_sentence(void **state)
{
    g_autoptr(GError) empty = NULL, dir = NULL;
    int fd = hsk_memfd_new("small", 100, NULL);

    assert_null(hsk_block_rawfile_new(fd, false, &empty));
    assert_non_null(strstr(empty->message, "empty"));
    assert_null(hsk_block_rawfile_new(open("/", O_RDONLY | O_CLOEXEC), true, &dir));
    assert_non_null(dir);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(what_was_written_is_read),
        T(pieces_are_written_in_order),
        T(requests_outside_of_the_disk_fail),
        T(zeroed_and_discarded_ranges_read_as_zeros),
        T(done_runs_on_the_loop),
        T(readonly_disk_refuses_writes),
        cmocka_unit_test(unusable_files_are_refused_with_a_sentence),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
