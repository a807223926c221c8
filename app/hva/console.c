/* SPDX-License-Identifier: MIT */
/*
 * hva console: the serial line of a running machine on this terminal, or on a pipe. Raw on a
 * terminal, with Ctrl-A x to leave and Ctrl-A c for Ctrl-A itself. End of input does not end it;
 * the machine's end does. Thread: main.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <termios.h>

#include "client.h"
#include "common/values.h"

#define ESCAPE_KEY 0x01

struct console {
    int sock;
    bool terminal, escaped, input_open;
};

static bool write_all(int fd, const uint8_t *buf, size_t len)
{
    while (len) {
        ssize_t n = write(fd, buf, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        buf += n;
        len -= (size_t)n;
    }
    return true;
}

/* false: leave. */
static bool from_keyboard(struct console *c)
{
    uint8_t buf[512], out[sizeof(buf)];
    size_t n_out = 0;
    ssize_t n = read(STDIN_FILENO, buf, sizeof(buf));

    if (n <= 0) {
        c->input_open = n < 0 && errno == EINTR;
        return true;
    }
    for (ssize_t i = 0; i < n; i++) {
        if (c->escaped) {
            c->escaped = false;
            if (buf[i] == 'x' || buf[i] == 'X')
                return false;
            out[n_out++] = buf[i] == 'c' || buf[i] == 'C' ? ESCAPE_KEY : buf[i];
        } else if (c->terminal && buf[i] == ESCAPE_KEY) {
            c->escaped = true;
        } else {
            out[n_out++] = buf[i];
        }
    }
    return write_all(c->sock, out, n_out);
}

static void relay(struct console *c)
{
    uint8_t buf[4096];

    for (;;) {
        struct pollfd p[2] = {{.fd = c->sock, .events = POLLIN},
                              {.fd = c->input_open ? STDIN_FILENO : -1, .events = POLLIN}};

        if (poll(p, 2, -1) < 0 && errno != EINTR)
            return;
        if (p[0].revents) {
            ssize_t n = recv(c->sock, buf, sizeof(buf), 0);
            if (n <= 0 || !write_all(STDOUT_FILENO, buf, (size_t)n))
                return;
        }
        if (p[1].revents && !from_keyboard(c))
            return;
    }
}

int hsk_cmd_console(int argc, char **argv)
{
    const GOptionEntry entries[] = {{NULL}};
    g_autoptr(GError) error = NULL;
    struct termios saved = {0};
    int status = 0;

    if (!hsk_parse_options(&argc, &argv, "MACHINE - the serial line of a running machine", entries,
                           &status))
        return status;
    if (argc != 2)
        return hsk_usage("usage: hva console MACHINE");
    HSK_AUTO(hsk_client, client) = hsk_client_need(argv[1], &error);
    json_t *r = client ? hsk_client_ask(client, "console", NULL, &error) : NULL;
    if (!r)
        return hsk_fail(error);
    json_decref(r);
    HSK_AUTOFD sock = hsk_client_steal(client);
    struct console c = {.sock = sock, .input_open = true};
    c.terminal = isatty(STDIN_FILENO) && tcgetattr(STDIN_FILENO, &saved) == 0;
    if (c.terminal) {
        struct termios raw = saved;
        cfmakeraw(&raw);
        tcsetattr(STDIN_FILENO, TCSADRAIN, &raw);
    }
    relay(&c);
    if (c.terminal)
        tcsetattr(STDIN_FILENO, TCSADRAIN, &saved);
    return 0;
}
