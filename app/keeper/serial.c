/* SPDX-License-Identifier: MIT */
/* Where the guest's serial port goes: see serial.h. */
#include "serial.h"

#include <errno.h>
#include <glib-unix.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <termios.h>

#define PATTERN_WINDOW 8192 /* output that a pattern can reach back over */
#define ESCAPE_KEY     0x01 /* Ctrl-A */

struct hsk_serial {
    struct hsk_serial_config cfg;
    int in_fd, out_fd; /* the machine's ends */
    int out;           /* where the relay's output goes: a dup of stdout, a file, or -1 */
    bool terminal, escaped;
    struct termios saved; /* terminal only */
    int relay;            /* our end of the relay, or -1 */
    guint relay_source, out_source, stdin_source;
    GByteArray *pending; /* read from the machine, not yet taken by out */
    GRegex *pattern;     /* NULL: none, or seen */
    GString *window;
    GList *consoles; /* struct console */
};

struct console {
    struct hsk_serial *serial;
    int fd;
    guint source;
};

static gboolean relay_readable(gint fd, GIOCondition cond, gpointer opaque);

static void look_for_pattern(struct hsk_serial *s, const uint8_t *buf, size_t len)
{
    if (!s->pattern)
        return;
    g_string_append_len(s->window, (const char *)buf, (gssize)len);
    if (s->window->len > PATTERN_WINDOW)
        g_string_erase(s->window, 0, (gssize)(s->window->len - PATTERN_WINDOW));
    if (g_regex_match_full(s->pattern, s->window->str, (gssize)s->window->len, 0, 0, NULL, NULL)) {
        g_clear_pointer(&s->pattern, g_regex_unref);
        s->cfg.seen(s->cfg.opaque);
    }
}

/* Writes what goes without blocking: after POLLOUT a pipe or terminal takes a small piece. false:
 * it would block. */
static bool write_some(struct hsk_serial *s)
{
    while (s->pending->len) {
        struct pollfd p = {.fd = s->out, .events = POLLOUT};
        if (poll(&p, 1, 0) <= 0)
            return false;
        ssize_t n = write(s->out, s->pending->data, MIN(s->pending->len, 1024));
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            return false;
        if (n < 0) {
            /* Nobody reads it any more: the guest goes on, as with a cable that was pulled. */
            g_byte_array_set_size(s->pending, 0);
            return true;
        }
        g_byte_array_remove_range(s->pending, 0, (guint)n);
    }
    return true;
}

static gboolean out_writable(gint fd, GIOCondition cond, gpointer opaque)
{
    struct hsk_serial *s = opaque;

    if (!write_some(s))
        return G_SOURCE_CONTINUE;
    s->out_source = 0;
    s->relay_source = g_unix_fd_add(s->relay, G_IO_IN | G_IO_HUP, relay_readable, s);
    return G_SOURCE_REMOVE;
}

/* One read from the machine to all who listen. false: nothing there. */
static bool pump(struct hsk_serial *s)
{
    uint8_t buf[4096];
    ssize_t n = recv(s->relay, buf, sizeof(buf), MSG_DONTWAIT);

    if (n <= 0)
        return false;
    for (GList *l = s->consoles; l; l = l->next) {
        const struct console *c = l->data;
        ssize_t lost = send(c->fd, buf, (size_t)n, MSG_DONTWAIT | MSG_NOSIGNAL);
        (void)lost;
    }
    if (s->out >= 0)
        g_byte_array_append(s->pending, buf, (guint)n);
    look_for_pattern(s, buf, (size_t)n);
    return true;
}

static gboolean relay_readable(gint fd, GIOCondition cond, gpointer opaque)
{
    struct hsk_serial *s = opaque;

    pump(s);
    if (!write_some(s)) {
        /* The reader is slow: stop taking from the machine until it has caught up. */
        s->relay_source = 0;
        s->out_source = g_unix_fd_add(s->out, G_IO_OUT, out_writable, s);
        return G_SOURCE_REMOVE;
    }
    return G_SOURCE_CONTINUE;
}

/* What a guest does not take in time is lost, as on a wire without flow control. */
static void to_guest(struct hsk_serial *s, const uint8_t *buf, size_t len)
{
    ssize_t lost = send(s->relay, buf, len, MSG_DONTWAIT | MSG_NOSIGNAL);
    (void)lost;
}

static gboolean stdin_readable(gint fd, GIOCondition cond, gpointer opaque)
{
    struct hsk_serial *s = opaque;
    uint8_t buf[512], out[sizeof(buf)];
    size_t n_out = 0;
    ssize_t n = read(fd, buf, sizeof(buf));

    if (n < 0 && errno == EINTR)
        return G_SOURCE_CONTINUE;
    if (n <= 0) {
        /* End of input is no end of the machine. */
        s->stdin_source = 0;
        return G_SOURCE_REMOVE;
    }
    for (ssize_t i = 0; i < n; i++) {
        if (s->terminal && s->escaped) {
            s->escaped = false;
            if (buf[i] == 'x' || buf[i] == 'X') {
                s->cfg.leave(s->cfg.opaque);
                continue;
            }
            if (buf[i] == 'c' || buf[i] == 'C')
                buf[i] = ESCAPE_KEY;
        } else if (s->terminal && buf[i] == ESCAPE_KEY) {
            s->escaped = true;
            continue;
        }
        out[n_out++] = buf[i];
    }
    if (n_out)
        to_guest(s, out, n_out);
    return G_SOURCE_CONTINUE;
}

static void console_free(struct console *c)
{
    g_clear_handle_id(&c->source, g_source_remove);
    close(c->fd);
    g_free(c);
}

static gboolean console_readable(gint fd, GIOCondition cond, gpointer opaque)
{
    struct console *c = opaque;
    uint8_t buf[512];
    ssize_t n = recv(fd, buf, sizeof(buf), MSG_DONTWAIT);

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return G_SOURCE_CONTINUE;
    if (n <= 0) {
        c->source = 0;
        c->serial->consoles = g_list_remove(c->serial->consoles, c);
        console_free(c);
        return G_SOURCE_REMOVE;
    }
    to_guest(c->serial, buf, (size_t)n);
    return G_SOURCE_CONTINUE;
}

void hsk_serial_attach(struct hsk_serial *s, int fd)
{
    struct console *c = g_new0(struct console, 1);
    c->serial = s;
    c->fd = fd;
    c->source = g_unix_fd_add(fd, G_IO_IN | G_IO_HUP, console_readable, c);
    s->consoles = g_list_prepend(s->consoles, c);
}

static bool start_relay(struct hsk_serial *s, GError **error)
{
    int pair[2];

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_FAILED, "cannot make a serial line: %s",
                    g_strerror(errno));
        return false;
    }
    s->relay = pair[0];
    s->in_fd = pair[1];
    s->out_fd = pair[1];
    s->pending = g_byte_array_new();
    s->relay_source = g_unix_fd_add(s->relay, G_IO_IN | G_IO_HUP, relay_readable, s);
    return true;
}

static void make_raw(struct hsk_serial *s)
{
    struct termios raw = s->saved;

    cfmakeraw(&raw);
    tcsetattr(STDIN_FILENO, TCSADRAIN, &raw);
}

/* Descriptors for the machine itself: fresh file descriptions, so that its non-blocking mode stays
 * its own. */
static void direct_stdio(struct hsk_serial *s, mode_t in_mode)
{
    if (S_ISFIFO(in_mode))
        s->in_fd = open("/proc/self/fd/0", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    struct stat st;
    if (fstat(STDOUT_FILENO, &st) == 0 && S_ISFIFO(st.st_mode))
        s->out_fd = open("/proc/self/fd/1", O_WRONLY | O_NONBLOCK | O_CLOEXEC);
    if (s->out_fd < 0)
        s->out_fd = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3);
}

static bool setup_stdio(struct hsk_serial *s, GError **error)
{
    struct stat in = {0};
    bool have_in = fstat(STDIN_FILENO, &in) == 0;

    s->terminal = isatty(STDIN_FILENO) && tcgetattr(STDIN_FILENO, &s->saved) == 0;
    /* /dev/null and other devices have nothing to say; a file cannot be waited for by the machine's
     * loop. */
    bool needs_relay = s->cfg.pattern || s->cfg.consoles || s->terminal || isatty(STDOUT_FILENO) ||
                       (have_in && (S_ISREG(in.st_mode) || S_ISSOCK(in.st_mode)));
    if (!needs_relay) {
        direct_stdio(s, in.st_mode);
        return true;
    }
    if (!start_relay(s, error))
        return false;
    s->out = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3);
    if (s->terminal ||
        (have_in && (S_ISREG(in.st_mode) || S_ISFIFO(in.st_mode) || S_ISSOCK(in.st_mode))))
        s->stdin_source = g_unix_fd_add(STDIN_FILENO, G_IO_IN | G_IO_HUP, stdin_readable, s);
    if (s->terminal)
        make_raw(s);
    return true;
}

static bool setup(struct hsk_serial *s, GError **error)
{
    if (s->cfg.pattern) {
        s->pattern = g_regex_new(s->cfg.pattern, G_REGEX_RAW | G_REGEX_MULTILINE | G_REGEX_OPTIMIZE,
                                 0, NULL);
        if (!s->pattern) {
            g_set_error(error, HSK_ERROR, HSK_ERROR_USAGE,
                        "--exit-on: \"%s\" is no regular expression", s->cfg.pattern);
            return false;
        }
        s->window = g_string_new(NULL);
    }
    if (strcmp(s->cfg.where, "stdio") == 0)
        return setup_stdio(s, error);
    bool null = strcmp(s->cfg.where, "null") == 0;
    int fd = null ? -1 : open(s->cfg.where, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (!null && fd < 0) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_FAILED, "cannot write the serial output to %s: %s",
                    s->cfg.where, g_strerror(errno));
        return false;
    }
    if (!s->pattern && !s->cfg.consoles) {
        s->out_fd = fd;
        return true;
    }
    s->out = fd;
    return start_relay(s, error);
}

struct hsk_serial *hsk_serial_new(const struct hsk_serial_config *cfg, GError **error)
{
    struct hsk_serial *s = g_new0(struct hsk_serial, 1);

    s->cfg = *cfg;
    s->in_fd = s->out_fd = s->out = s->relay = -1;
    if (setup(s, error))
        return s;
    hsk_serial_free(s);
    return NULL;
}

int hsk_serial_in_fd(struct hsk_serial *s)
{
    return s->in_fd;
}

int hsk_serial_out_fd(struct hsk_serial *s)
{
    return s->out_fd;
}

void hsk_serial_drain(struct hsk_serial *s)
{
    while (s->relay >= 0 && pump(s))
        write_some(s);
}

void hsk_serial_free(struct hsk_serial *s)
{
    if (!s)
        return;
    g_clear_handle_id(&s->relay_source, g_source_remove);
    g_clear_handle_id(&s->out_source, g_source_remove);
    g_clear_handle_id(&s->stdin_source, g_source_remove);
    if (s->relay >= 0) {
        s->cfg.seen = NULL;
        g_clear_pointer(&s->pattern, g_regex_unref);
        hsk_serial_drain(s);
        /* A reader that is merely slow gets the last words too; one that is stuck does not hold us
         * for ever. */
        for (unsigned i = 0; i < 20 && !write_some(s); i++) {
            struct pollfd p = {.fd = s->out, .events = POLLOUT};
            poll(&p, 1, 50);
        }
        close(s->relay);
    }
    g_list_free_full(g_steal_pointer(&s->consoles), (GDestroyNotify)console_free);
    if (s->terminal)
        tcsetattr(STDIN_FILENO, TCSADRAIN, &s->saved);
    if (s->in_fd >= 0)
        close(s->in_fd);
    if (s->out_fd >= 0 && s->out_fd != s->in_fd)
        close(s->out_fd);
    if (s->out >= 0)
        close(s->out);
    if (s->pending)
        g_byte_array_unref(s->pending);
    if (s->window)
        g_string_free(s->window, TRUE);
    g_clear_pointer(&s->pattern, g_regex_unref);
    g_free(s);
}
