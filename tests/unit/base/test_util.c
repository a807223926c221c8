/* SPDX-License-Identifier: MIT */
/* Small helpers: ranges, whole-buffer I/O, sealed memfds, descriptors over a socket. */
#include <base/util.h>

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <cmocka.h>

static void ranges_do_not_overflow(void **state)
{
    assert_true(hsk_range_ok(0, 0, 0));
    assert_true(hsk_range_ok(4, 4, 8));
    assert_false(hsk_range_ok(5, 4, 8));
    assert_false(hsk_range_ok(9, 0, 8));
    assert_false(hsk_range_ok(UINT64_MAX, 2, 8));
    assert_false(hsk_range_ok(2, UINT64_MAX, 8));
    assert_true(hsk_range_ok(0, UINT64_MAX, UINT64_MAX));
}

static void unaligned_values(void **state)
{
    uint8_t b[9] = {0};

    hsk_put64(b + 1, 0x0123456789abcdefull);
    assert_int_equal(b[1], 0xef);
    assert_int_equal(hsk_get16(b + 1), 0xcdef);
    assert_int_equal(hsk_get32(b + 3), 0x456789ab);
    assert_true(hsk_get64(b + 1) == 0x0123456789abcdefull);
}

static void a_short_file_is_no_data(void **state)
{
    HSK_AUTOFD fd = hsk_memfd_new("test", 8, NULL);
    char buf[8] = {0};

    assert_int_equal(hsk_pwrite_all(fd, "abcd", 4, 4), 0);
    assert_int_equal(hsk_pread_all(fd, buf, 8, 0), 0);
    assert_memory_equal(buf, "\0\0\0\0abcd", 8);
    assert_int_equal(hsk_pread_all(fd, buf, 8, 1), -ENODATA);
    assert_true(hsk_pread_all(-1, buf, 1, 0) == -EBADF);
    assert_true(hsk_pwrite_all(fd, "x", 1, 8) < 0); /* sealed: cannot grow */
}

static void memfds_cannot_shrink(void **state)
{
    HSK_AUTOFD fd = hsk_memfd_new("test", 8192, NULL);
    struct stat st;

    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, 0), -1);
    assert_int_equal(ftruncate(fd, 16384), -1);
    assert_int_equal(fstat(fd, &st), 0);
    assert_int_equal(st.st_size, 8192);
    assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
}

static void descriptors_travel_and_extra_ones_are_closed(void **state)
{
    HSK_AUTOFD file = hsk_memfd_new("test", 4096, NULL);
    int sv[2], send[3] = {file, file, file}, got[2] = {-1, -1};
    unsigned n = 2;
    char buf[16] = {0};

    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv), 0);
    assert_int_equal(hsk_send_fds(sv[0], "hello", 5, send, 3, 0), 0);
    int next = dup(file); /* the number that the first received one would have got */
    close(next);
    assert_int_equal(hsk_recv_fds(sv[1], buf, sizeof buf, got, &n, 0), 5);
    assert_string_equal(buf, "hello");
    assert_int_equal(n, 2);
    assert_int_equal(hsk_pwrite_all(got[0], "x", 1, 0), 0);
    assert_true(fcntl(got[1], F_GETFD) & FD_CLOEXEC);
    close(got[0]);
    close(got[1]);
    int after = dup(file);
    assert_int_equal(after, next); /* nothing leaked */
    close(after);
    assert_int_equal(hsk_send_fds(sv[0], "x", 1, NULL, 0, 0), 0);
    n = 2;
    assert_int_equal(hsk_recv_fds(sv[1], buf, sizeof buf, got, &n, 0), 1);
    assert_int_equal(n, 0);
    close(sv[0]);
    assert_int_equal(hsk_recv_fds(sv[1], buf, sizeof buf, NULL, NULL, 0), 0);
    assert_int_equal(hsk_send_fds(sv[1], "x", 1, NULL, 0, 0), -EPIPE); /* without a signal */
    close(sv[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ranges_do_not_overflow),
        cmocka_unit_test(unaligned_values),
        cmocka_unit_test(a_short_file_is_no_data),
        cmocka_unit_test(memfds_cannot_shrink),
        cmocka_unit_test(descriptors_travel_and_extra_ones_are_closed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
