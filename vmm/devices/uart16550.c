/* SPDX-License-Identifier: MIT */
/*
 * A 16550A (National Semiconductor PC16550D data sheet) with its FIFOs, connected to two host
 * descriptors.
 *
 * Output: the transmitter is as fast as the host. Bytes go into a bounded buffer that the loop
 * thread writes out, so a vCPU never waits for the host; while a slow reader keeps the buffer full,
 * the guest sees a transmitter that is not empty. Input: read from the descriptor only as far as
 * the receive FIFO has room, so nothing is lost, and only while the guest listens (rx_wanted). End
 * of input stops the reading and nothing else.
 *
 * Threads: registers under the device's lock on a vCPU thread; descriptors on the loop thread only,
 * woken by a timer.
 *
 * Deliberately missing: baud rate timing, parity and framing errors, break, DMA mode; the character
 * timeout is immediate.
 */
#include <base/clock.h>
#include <vmm/machine.h>

#include <errno.h>
#include <poll.h>
#include <sys/epoll.h>

#include "devices.h"

#define FIFO_SIZE     16
#define TX_BUFFER     65536u    /* power of two */
#define TX_DELAY_NS   500000    /* bytes are gathered for so long before they are written */
#define RX_SETTLE_NS  2000000u  /* behind the receive interrupt's enabling */
#define SETUP_NS      50000000u /* behind setting up; a busy host may stop the guest in it */
#define POLLS         16
#define FREE_FLUSH_MS 1000 /* what a slow reader gets when the machine ends */

enum { REG_DATA, REG_IER, REG_IIR_FCR, REG_LCR, REG_MCR, REG_LSR, REG_MSR, REG_SCR };

#define IER_RDI      0x01
#define IER_THRI     0x02
#define IER_RLSI     0x04
#define IER_MSI      0x08
#define FCR_ENABLE   0x01
#define FCR_CLEAR_RX 0x02
#define FCR_KEPT     0xc9
#define LCR_DLAB     0x80
#define MCR_DTR      0x01
#define MCR_RTS      0x02
#define MCR_OUT1     0x04
#define MCR_OUT2     0x08
#define MCR_LOOP     0x10
#define LSR_DR       0x01
#define LSR_OE       0x02
#define LSR_THRE     0x20
#define LSR_TEMT     0x40
#define MSR_CTS      0x10
#define MSR_DSR      0x20
#define MSR_RI       0x40
#define MSR_DCD      0x80
#define IIR_NONE     0x01
#define IIR_MSI      0x00
#define IIR_THRI     0x02
#define IIR_RDI      0x04
#define IIR_RLSI     0x06
#define IIR_TIMEOUT  0x0c

struct uart_state {
    uint8_t rx[FIFO_SIZE];
    uint8_t rx_len;
    uint8_t overrun;   /* LSR bit 1 */
    uint8_t thr_event; /* the transmitter became empty and nobody has read so in IIR */
    uint8_t ier, fcr, lcr, mcr, msr, scr;
    uint8_t divisor[2];
    uint8_t polls; /* times that LSR was read in vain since the guest last sent something, up to
                      POLLS */
};

struct uart {
    struct hsk_dev dev;
    /* immutable after new */
    struct hsk_irq *irq;
    struct hsk_loop *loop;
    struct hsk_clock *clock;
    struct hsk_timer *timer, *settled; /* to the loop thread: at once; at listens_ns */
    uint16_t port;
    int in_fd, out_fd, out_flags;
    /* device lock */
    struct uart_state s;
    uint64_t listens_ns; /* guest time from which the receive interrupt is meant as such */
    bool tx_stalled;     /* the guest was told that the transmitter is busy */
    uint32_t tx_head,
        tx_tail; /* free running; head - tail bytes wait. tail: written by the loop thread only */
    uint8_t *tx_buffer;
    /* loop thread only */
    bool in_open, out_open, paused, out_blocked;
};

#define F(m, ...)  HSK_F(struct uart_state, m, __VA_ARGS__)
#define FA(m, ...) HSK_FA(struct uart_state, m, __VA_ARGS__)
static const struct hsk_field uart_fields[] = {
    FA(rx),
    F(rx_len, .max = FIFO_SIZE),
    F(overrun, .max = 1),
    F(thr_event, .max = 1),
    F(ier, .max = 0x0f),
    F(fcr, .max = FCR_KEPT),
    F(lcr),
    F(mcr, .max = 0x1f),
    F(msr),
    F(scr),
    FA(divisor),
    F(polls, .max = POLLS),
};
#undef F
#undef FA

/* ---- interrupts ---- */

static uint8_t rx_trigger(const struct uart_state *s)
{
    static const uint8_t level[4] = {1, 4, 8, 14};

    return s->fcr & FCR_ENABLE ? level[s->fcr >> 6] : 1;
}

static uint8_t rx_capacity(const struct uart_state *s)
{
    return s->fcr & FCR_ENABLE ? FIFO_SIZE : 1;
}

/* The reason of highest priority. */
static uint8_t reason(const struct uart_state *s)
{
    if ((s->ier & IER_RLSI) && s->overrun)
        return IIR_RLSI;
    if ((s->ier & IER_RDI) && s->rx_len >= rx_trigger(s))
        return IIR_RDI;
    if ((s->ier & IER_RDI) && s->rx_len)
        return IIR_TIMEOUT;
    if ((s->ier & IER_THRI) && s->thr_event)
        return IIR_THRI;
    if ((s->ier & IER_MSI) && (s->msr & 0x0f))
        return IIR_MSI;
    return IIR_NONE;
}

/* OUT2 connects the interrupt to the PC's line; in loop-back mode all outputs are inactive. */
static void update_irq(struct uart *u)
{
    if (u->irq)
        hsk_irq_set(u->irq,
                    (u->s.mcr & (MCR_OUT2 | MCR_LOOP)) == MCR_OUT2 && reason(&u->s) != IIR_NONE);
}

/* ---- towards the host: loop thread ---- */

static void host_event(void *opaque, uint32_t events);

/*
 * What comes from the host waits there until somebody listens: drivers clear the FIFO while they
 * probe and set up, and a pipe's bytes, unlike a typist's, all come at once. Listening is the
 * receive interrupt, enabled for a moment already and not in the middle of setting up, or polling
 * of LSR with nothing sent in between (a driver that only prints reads LSR once or twice a byte).
 */
static bool rx_wanted(struct uart *u)
{
    const struct uart_state *s = &u->s;
    bool listening = s->ier & IER_RDI ? hsk_clock_ns(u->clock) >= u->listens_ns : s->polls == POLLS;

    return listening && !(s->mcr & MCR_LOOP) && s->rx_len < rx_capacity(s);
}

/* Reads as far as the FIFO has room. */
static void rx_pump(struct uart *u)
{
    uint8_t buf[FIFO_SIZE];
    size_t room;
    ssize_t n;

    hsk_dev_enter(&u->dev);
    room = rx_wanted(u) ? (size_t)(rx_capacity(&u->s) - u->s.rx_len) : 0;
    hsk_dev_leave(&u->dev);
    if (!room)
        return;
    n = read(u->in_fd, buf, room);
    if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
        u->in_open = false;
    if (n <= 0)
        return;
    hsk_dev_enter(&u->dev);
    /* The guest may have reset or shrunk the FIFO meanwhile: then these bytes arrived in that
     * moment and are lost as on a wire. */
    for (ssize_t i = 0; i < n && u->s.rx_len < rx_capacity(&u->s); i++)
        u->s.rx[u->s.rx_len++] = buf[i];
    update_irq(u);
    hsk_dev_leave(&u->dev);
}

/* Writes what waits; stops where the host would block. */
static void tx_flush(struct uart *u)
{
    uint8_t buf[4096];

    u->out_blocked = false;
    while (u->out_open) {
        uint32_t n;
        ssize_t done;

        hsk_dev_enter(&u->dev);
        n = MIN(u->tx_head - u->tx_tail, (uint32_t)sizeof buf);
        for (uint32_t i = 0; i < n; i++)
            buf[i] = u->tx_buffer[(u->tx_tail + i) % TX_BUFFER];
        hsk_dev_leave(&u->dev);
        if (!n)
            return;
        done = write(u->out_fd, buf, n);
        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0 && errno == EAGAIN) {
            u->out_blocked = true;
            return;
        }
        if (done < 0) {
            u->out_open =
                false; /* nobody reads any more: the bytes go nowhere, like on an open line */
            done = n;
        }
        hsk_dev_enter(&u->dev);
        u->tx_tail += (uint32_t)done;
        if (u->tx_stalled) {
            u->tx_stalled = false;
            u->s.thr_event = 1;
            update_irq(u);
        }
        hsk_dev_leave(&u->dev);
    }
    hsk_dev_enter(&u->dev);
    u->tx_tail = u->tx_head;
    hsk_dev_leave(&u->dev);
}

/* Watches exactly what can make progress. A descriptor that cannot be watched (a regular file) is
 * always ready. */
static void watch(struct uart *u)
{
    bool want_in, want_out = u->out_open && u->out_blocked;
    uint32_t in_events, out_events = want_out ? EPOLLOUT : 0;

    for (;;) {
        hsk_dev_enter(&u->dev);
        want_in = u->in_open && !u->paused && rx_wanted(u);
        hsk_dev_leave(&u->dev);
        in_events = want_in ? EPOLLIN : 0;
        if (u->in_fd >= 0 && u->in_fd == u->out_fd)
            in_events |= out_events;
        if (u->in_fd >= 0 && !in_events)
            hsk_loop_unwatch_fd(u->loop, u->in_fd);
        if (!in_events || hsk_loop_watch_fd(u->loop, u->in_fd, in_events, host_event, u))
            break;
        rx_pump(u);
    }
    if (u->out_fd < 0 || u->out_fd == u->in_fd)
        return;
    if (!out_events || !hsk_loop_watch_fd(u->loop, u->out_fd, out_events, host_event, u))
        hsk_loop_unwatch_fd(u->loop, u->out_fd);
}

static void host_event(void *opaque, uint32_t events)
{
    struct uart *u = opaque;

    if (events & (EPOLLOUT | EPOLLERR))
        tx_flush(u);
    if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) && u->in_open && !u->paused)
        rx_pump(u);
    watch(u);
}

static void timer_expired(void *opaque)
{
    struct uart *u = opaque;

    tx_flush(u);
    watch(u);
}

/* ---- registers: vCPU thread ---- */

static void wake_loop(struct uart *u, uint64_t delay_ns)
{
    hsk_timer_arm(u->timer, hsk_clock_ns(u->clock) + delay_ns);
}

/* Not before so long from now. */
static void listen_after(struct uart *u, uint64_t delay_ns)
{
    u->listens_ns = MAX(u->listens_ns, hsk_clock_ns(u->clock) + delay_ns);
    hsk_timer_arm(u->settled, u->listens_ns);
}

static bool tx_full(const struct uart *u)
{
    return u->tx_head - u->tx_tail > TX_BUFFER - FIFO_SIZE;
}

static void rx_put_loopback(struct uart_state *s, uint8_t byte)
{
    if (s->rx_len < rx_capacity(s))
        s->rx[s->rx_len++] = byte;
    else
        s->overrun = 1;
}

static void transmit(struct uart *u, uint8_t byte)
{
    /* The line drops and rises again: an edge for every time the transmitter runs empty. */
    u->s.thr_event = 0;
    u->s.polls = 0;
    update_irq(u);
    if (u->s.mcr & MCR_LOOP) {
        rx_put_loopback(&u->s, byte);
    } else if (u->out_fd >= 0 && u->tx_head - u->tx_tail < TX_BUFFER) {
        if (u->tx_head == u->tx_tail)
            wake_loop(u, TX_DELAY_NS);
        else if (u->tx_head - u->tx_tail == TX_BUFFER / 2)
            wake_loop(u, 0);
        u->tx_buffer[u->tx_head++ % TX_BUFFER] = byte;
    }
    if (tx_full(u))
        u->tx_stalled = true;
    else
        u->s.thr_event = 1;
    update_irq(u);
}

static uint8_t receive(struct uart *u)
{
    struct uart_state *s = &u->s;
    uint8_t byte = s->rx[0];

    if (!s->rx_len)
        return 0;
    s->rx_len--;
    memmove(s->rx, s->rx + 1, s->rx_len);
    s->rx[s->rx_len] = 0;
    if (s->rx_len == 0)
        wake_loop(u, 0); /* for more input */
    update_irq(u);
    return byte;
}

static void rx_clear(struct uart_state *s)
{
    memset(s->rx, 0, sizeof s->rx);
    s->rx_len = 0;
}

static void fcr_write(struct uart *u, uint8_t value)
{
    struct uart_state *s = &u->s;

    /* Switching the FIFOs on or off empties them. */
    if (((value ^ s->fcr) & FCR_ENABLE) || (value & FCR_CLEAR_RX))
        rx_clear(s);
    s->fcr = value & FCR_ENABLE ? value & FCR_KEPT : 0;
    listen_after(u, SETUP_NS);
    update_irq(u);
    wake_loop(u, 0);
}

/* The modem lines, from the host (always there) or in loop-back mode from MCR; with the delta bits.
 */
static void modem_update(struct uart_state *s)
{
    uint8_t lines = MSR_CTS | MSR_DSR | MSR_DCD, changed;

    if (s->mcr & MCR_LOOP)
        lines = (s->mcr & MCR_RTS ? MSR_CTS : 0) | (s->mcr & MCR_DTR ? MSR_DSR : 0) |
                (s->mcr & MCR_OUT1 ? MSR_RI : 0) | (s->mcr & MCR_OUT2 ? MSR_DCD : 0);
    changed = (lines ^ s->msr) & 0xf0;
    if (lines & MSR_RI)
        changed &= (uint8_t)~MSR_RI; /* only the trailing edge counts */
    s->msr = lines | (s->msr & 0x0f) | changed >> 4;
}

static uint64_t uart_read(struct hsk_dev *dev, unsigned region, uint64_t offset, unsigned size)
{
    struct uart *u = (struct uart *)dev;
    struct uart_state *s = &u->s;
    uint8_t value;

    switch (offset) {
    case REG_DATA:
        return s->lcr & LCR_DLAB ? s->divisor[0] : receive(u);
    case REG_IER:
        return s->lcr & LCR_DLAB ? s->divisor[1] : s->ier;
    case REG_IIR_FCR:
        value = reason(s);
        if (value == IIR_THRI) {
            s->thr_event = 0;
            update_irq(u);
        }
        return value | (s->fcr & FCR_ENABLE ? 0xc0 : 0);
    case REG_LCR:
        return s->lcr;
    case REG_MCR:
        return s->mcr;
    case REG_LSR:
        if (!s->rx_len && s->polls < POLLS && ++s->polls == POLLS)
            wake_loop(u, 0);
        value = (s->rx_len ? LSR_DR : 0) | (s->overrun ? LSR_OE : 0) |
                (tx_full(u) ? 0 : LSR_THRE | LSR_TEMT);
        if (s->overrun) {
            s->overrun = 0;
            update_irq(u);
        }
        return value;
    case REG_MSR:
        value = s->msr;
        s->msr &= 0xf0;
        update_irq(u);
        return value;
    default:
        return s->scr;
    }
}

static void uart_write(struct hsk_dev *dev, unsigned region, uint64_t offset, unsigned size,
                       uint64_t value64)
{
    struct uart *u = (struct uart *)dev;
    struct uart_state *s = &u->s;
    uint8_t value = (uint8_t)value64;

    switch (offset) {
    case REG_DATA:
        if (s->lcr & LCR_DLAB)
            s->divisor[0] = value;
        else
            transmit(u, value);
        break;
    case REG_IER:
        if (s->lcr & LCR_DLAB) {
            s->divisor[1] = value;
            break;
        }
        /* Enabling the interrupt of an empty transmitter raises it. */
        if ((value & IER_THRI) && !(s->ier & IER_THRI) && !tx_full(u))
            s->thr_event = 1;
        if ((value & IER_RDI) && !(s->ier & IER_RDI))
            listen_after(u, RX_SETTLE_NS);
        s->ier = value & 0x0f;
        update_irq(u);
        wake_loop(u, 0);
        break;
    case REG_IIR_FCR:
        fcr_write(u, value);
        break;
    case REG_LCR:
        s->lcr = value;
        listen_after(u, SETUP_NS);
        break;
    case REG_MCR:
        s->mcr = value & 0x1f;
        modem_update(s);
        update_irq(u);
        wake_loop(u, 0);
        break;
    case REG_SCR:
        s->scr = value;
        break;
    default: /* LSR and MSR are read-only (factory test) */
        break;
    }
}

/* ---- life cycle ---- */

static void uart_reset(struct hsk_dev *dev)
{
    struct uart *u = (struct uart *)dev;

    memset(&u->s, 0, sizeof u->s);
    u->s.msr = MSR_CTS | MSR_DSR | MSR_DCD;
    u->s.divisor[0] = 1;
    u->listens_ns = 0;
}

static bool uart_check(struct hsk_dev *dev, GError **error)
{
    const struct uart_state *s = &((struct uart *)dev)->s;

    if (s->rx_len <= rx_capacity(s) && !(s->fcr & ~FCR_KEPT))
        return true;
    g_set_error(error, HSK_ERROR, HSK_ERROR_DAMAGED,
                "The saved state of %s is not one that a UART can have.", dev->id);
    return false;
}

static void uart_pause(struct hsk_dev *dev)
{
    struct uart *u = (struct uart *)dev;

    u->paused = true;
    tx_flush(u);
    watch(u);
}

static void uart_resume(struct hsk_dev *dev)
{
    struct uart *u = (struct uart *)dev;

    u->paused = false;
    hsk_dev_enter(dev);
    /* The guest's clock may have gone back. */
    if (u->listens_ns > hsk_clock_ns(u->clock) + SETUP_NS)
        u->listens_ns = 0;
    update_irq(u);
    hsk_dev_leave(dev);
    timer_expired(u);
}

static void uart_free(struct hsk_dev *dev)
{
    struct uart *u = (struct uart *)dev;
    gint64 end = g_get_monotonic_time() + FREE_FLUSH_MS * 1000;

    u->paused = true;
    tx_flush(u);
    while (u->out_blocked && g_get_monotonic_time() < end) {
        struct pollfd p = {.fd = u->out_fd, .events = POLLOUT};

        poll(&p, 1, 50);
        tx_flush(u);
    }
    u->in_open = u->out_blocked = false;
    watch(u);
    if (u->out_fd >= 0)
        fcntl(u->out_fd, F_SETFL, u->out_flags);
    hsk_timer_free(u->settled);
    hsk_timer_free(u->timer);
    hsk_bus_unmap(hsk_machine_pio(dev->machine), u->port, dev);
    hsk_dev_finish(dev);
    g_free(u->tx_buffer);
    g_free(u);
}

static const struct hsk_dev_ops uart_ops = {
    .state = {"uart16550", 1, sizeof(struct uart_state), uart_fields, G_N_ELEMENTS(uart_fields)},
    .state_offset = offsetof(struct uart, s),
    .min_size = 1,
    .max_size = 1,
    .read = uart_read,
    .write = uart_write,
    .reset = uart_reset,
    .check = uart_check,
    .pause = uart_pause,
    .resume = uart_resume,
    .free = uart_free,
};

struct hsk_dev *hsk_uart16550_new(struct hsk_machine *m, const char *id, uint16_t port,
                                  struct hsk_irq *irq, int in_fd, int out_fd)
{
    struct uart *u = g_new0(struct uart, 1);

    hsk_dev_init(&u->dev, &uart_ops, m, id);
    u->irq = irq;
    u->loop = hsk_machine_loop(m);
    u->clock = hsk_machine_clock(m);
    u->timer = hsk_timer_new(u->loop, timer_expired, u);
    u->settled = hsk_timer_new(u->loop, timer_expired, u);
    u->port = port;
    u->in_fd = in_fd;
    u->out_fd = out_fd;
    u->in_open = in_fd >= 0;
    u->out_open = out_fd >= 0;
    u->paused = true;
    u->tx_buffer = g_malloc(TX_BUFFER);
    if (out_fd >= 0) {
        u->out_flags = fcntl(out_fd, F_GETFL);
        fcntl(out_fd, F_SETFL, u->out_flags | O_NONBLOCK);
    }
    hsk_assert(hsk_bus_map(hsk_machine_pio(m), port, 8, &u->dev, 0));
    return &u->dev;
}
