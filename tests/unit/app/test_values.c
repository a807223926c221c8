/* SPDX-License-Identifier: MIT */
/* Sizes and words of the command line; messages of the wire between keeper and machine. */
/* cmocka wants to be last */
/* clang-format off */
#include "common/values.h"
#include "common/wire.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/socket.h>

#include <cmocka.h>
/* clang-format on */

static void sizes(void **state)
{
    static const struct {
        const char *text;
        uint64_t bytes;
    } good[] = {
        {"0", 0},
        {"512", 512},
        {"4K", 4096},
        {"512M", 512ull << 20},
        {"2g", 2ull << 30},
        {"1GiB", 1ull << 30},
        {"3MB", 3 << 20},
        {"1T", 1ull << 40},
        {"18446744073709551615", UINT64_MAX},
    };
    static const char *const bad[] = {"",
                                      "M",
                                      "-1",
                                      "+1",
                                      " 1",
                                      "1X",
                                      "1MM",
                                      "1M ",
                                      "1.5G",
                                      "0x10",
                                      "18446744073709551616",
                                      "16777216T",
                                      "1i"};
    uint64_t bytes = 0;

    for (unsigned i = 0; i < G_N_ELEMENTS(good); i++) {
        assert_true(hsk_parse_size("--disk", good[i].text, &bytes, NULL));
        assert_true(bytes == good[i].bytes);
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(bad); i++) {
        g_autoptr(GError) error = NULL;
        assert_false(hsk_parse_size("--disk", bad[i], &bytes, &error));
        assert_true(g_error_matches(error, HSK_ERROR, HSK_ERROR_USAGE));
        assert_non_null(strstr(error->message, "--disk"));
    }
}

static void memory(void **state)
{
    static const char *const good[] = {"16M", "512M", "64G", "17825792"};
    static const char *const bad[] = {"15M", "65G", "16777217", "1", "x"};
    uint64_t bytes = 0;

    for (unsigned i = 0; i < G_N_ELEMENTS(good); i++)
        assert_true(hsk_parse_memory(good[i], &bytes, NULL));
    for (unsigned i = 0; i < G_N_ELEMENTS(bad); i++)
        assert_false(hsk_parse_memory(bad[i], &bytes, NULL));
}

static void words(void **state)
{
    static const char *const choice[] = {"auto", "soft", NULL};
    g_autoptr(GError) error = NULL;

    assert_true(hsk_parse_word("--engine", "soft", choice, NULL));
    assert_false(hsk_parse_word("--engine", "sof", choice, &error));
    assert_string_equal(error->message, "--engine takes one of auto, soft, but \"sof\" was given");
}

struct pair {
    int fd[2];
};

static int open_pair(void **state)
{
    struct pair *p = g_new0(struct pair, 1);

    *state = p;
    return socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, p->fd);
}

static int close_pair(void **state)
{
    struct pair *p = *state;

    for (unsigned i = 0; i < 2; i++) {
        if (p->fd[i] >= 0)
            close(p->fd[i]);
    }
    g_free(p);
    return 0;
}

static void message_and_descriptor_arrive(void **state)
{
    struct pair *p = *state;
    struct hsk_wire_msg msg;
    HSK_AUTOFD fd = hsk_memfd_new("x", 4096, NULL);

    assert_int_equal(
        hsk_wire_send(p->fd[0], json_pack("{s:s, s:i, s:b}", "cmd", "fd", "n", 7, "yes", 1), fd, 0),
        0);
    assert_int_equal(hsk_wire_recv(p->fd[1], &msg, 0), 1);
    assert_string_equal(hsk_json_str(msg.body, "cmd", ""), "fd");
    assert_int_equal(hsk_json_int(msg.body, "n", 0), 7);
    assert_true(hsk_json_bool(msg.body, "yes"));
    assert_true(msg.fd >= 0 && msg.fd != fd);
    hsk_wire_msg_clear(&msg);
    assert_int_equal(msg.fd, -1);
}

static void missing_and_wrong_values_are_the_default(void **state)
{
    json_t *o = json_pack("{s:i, s:s, s:n}", "number", 5, "text", "t", "null");

    assert_string_equal(hsk_json_str(o, "number", "d"), "d");
    assert_string_equal(hsk_json_str(o, "null", "d"), "d");
    assert_int_equal(hsk_json_int(o, "text", -3), -3);
    assert_false(hsk_json_bool(o, "text"));
    assert_false(hsk_json_bool(o, "nothing"));
    json_decref(o);
}

static void what_is_no_object_is_refused(void **state)
{
    static const char *const bad[] = {"[]",       "1",     "{",   "{\"a\":1,\"a\":2}",
                                      "\xff\xff", "{} {}", "null"};
    struct pair *p = *state;
    struct hsk_wire_msg msg;

    for (unsigned i = 0; i < G_N_ELEMENTS(bad); i++) {
        HSK_AUTOFD fd = hsk_memfd_new("x", 4096, NULL);
        assert_int_equal(hsk_send_fds(p->fd[0], bad[i], strlen(bad[i]), &fd, 1, 0), 0);
        assert_int_equal(hsk_wire_recv(p->fd[1], &msg, 0), -EPROTO);
        assert_null(msg.body);
        assert_int_equal(msg.fd, -1);
    }
}

static void empty_wire_and_its_end(void **state)
{
    struct pair *p = *state;
    struct hsk_wire_msg msg;

    assert_int_equal(hsk_wire_recv(p->fd[1], &msg, MSG_DONTWAIT), -EAGAIN);
    close(p->fd[0]);
    p->fd[0] = -1;
    assert_int_equal(hsk_wire_recv(p->fd[1], &msg, 0), 0);
    assert_int_equal(hsk_wire_send(p->fd[1], json_object(), -1, 0), -EPIPE);
}

static void too_long_is_not_sent(void **state)
{
    struct pair *p = *state;
    g_autofree char *text = g_strnfill(HSK_WIRE_MAX, 'x');

    assert_int_equal(hsk_wire_send(p->fd[0], json_pack("{s:s}", "cmd", text), -1, 0), -EMSGSIZE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes),
        cmocka_unit_test(memory),
        cmocka_unit_test(words),
        cmocka_unit_test(missing_and_wrong_values_are_the_default),
        cmocka_unit_test_setup_teardown(message_and_descriptor_arrive, open_pair, close_pair),
        cmocka_unit_test_setup_teardown(what_is_no_object_is_refused, open_pair, close_pair),
        cmocka_unit_test_setup_teardown(empty_wire_and_its_end, open_pair, close_pair),
        cmocka_unit_test_setup_teardown(too_long_is_not_sent, open_pair, close_pair),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
