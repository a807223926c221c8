/* SPDX-License-Identifier: MIT */
/* 16550A: bytes both ways over pipes, back-pressure, FIFO and loop-back behaviour, interrupts. */
#include <fake-machine.h>
#include <signal.h>

#define COM1 0x3f8

struct fixture {
    struct hsk_machine *m;
    int in, out; /* our ends */
    int guest_in, guest_out;
};

static int setup(void **state)
{
    struct fixture *f = g_new0(struct fixture, 1);
    struct hsk_machine_config cfg = fake_config();
    int a[2], b[2];

    signal(SIGPIPE, SIG_IGN);
    assert_int_equal(pipe2(a, O_CLOEXEC), 0);
    assert_int_equal(pipe2(b, O_CLOEXEC), 0);
    f->in = a[1];
    f->out = b[0];
    cfg.serial_in = f->guest_in = a[0];
    cfg.serial_out = f->guest_out = b[1];
    fcntl(f->out, F_SETFL, O_NONBLOCK);
    f->m = fake_machine_from(&cfg);
    *state = f;
    return 0;
}
static int teardown(void **state)
{
    struct fixture *f = *state;

    hsk_machine_free(f->m);
    assert_int_equal(fcntl(f->guest_out, F_GETFL) & O_NONBLOCK, 0); /* given back as it was */
    close(f->guest_in);
    close(f->guest_out);
    if (f->in >= 0)
        close(f->in);
    if (f->out >= 0)
        close(f->out);
    g_free(f);
    return 0;
}

static uint8_t get(struct fixture *f, unsigned reg)
{
    return in8(f->m, (uint16_t)(COM1 + reg));
}
static void put(struct fixture *f, unsigned reg, uint8_t value)
{
    out8(f->m, (uint16_t)(COM1 + reg), value);
}

static void output_arrives(void **state)
{
    struct fixture *f = *state;
    char buf[32] = {0};

    for (const char *p = "hello\n"; *p; p++) {
        assert_int_equal(get(f, 5) & 0x60, 0x60);
        put(f, 0, (uint8_t)*p);
    }
    run_for_ms(f->m, 5);
    assert_int_equal(read(f->out, buf, sizeof buf), 6);
    assert_string_equal(buf, "hello\n");
}

static void nothing_is_lost_to_a_slow_reader(void **state)
{
    struct fixture *f = *state;
    uint8_t buf[4096];
    unsigned sent = 0, seen = 0;
    ssize_t n;

    /* More than pipe and buffer hold together: at last the transmitter says that it is full. */
    for (int round = 0; round < 100 && (get(f, 5) & 0x20); round++) {
        for (int i = 0; i < 4096 && (get(f, 5) & 0x20); i++)
            put(f, 0, (uint8_t)sent++);
        run_for_ms(f->m, 1);
    }
    assert_int_equal(get(f, 5) & 0x20, 0);
    put(f, 1, 0x02);
    assert_int_equal(get(f, 2), 0x01); /* no interrupt yet */
    for (int idle = 0; idle < 5; idle++) {
        run_for_ms(f->m, 2);
        while ((n = read(f->out, buf, sizeof buf)) > 0) {
            for (ssize_t i = 0; i < n; i++)
                assert_int_equal(buf[i], (uint8_t)seen++);
            idle = 0;
        }
    }
    assert_int_equal(seen, sent);
    assert_int_equal(get(f, 5) & 0x20, 0x20);
    assert_int_equal(get(f, 2), 0x02);
}

static void a_reader_that_went_away_is_an_open_line(void **state)
{
    struct fixture *f = *state;

    close(f->out);
    f->out = -1;
    for (int round = 0; round < 3; round++) {
        put(f, 0, 'x');
        run_for_ms(f->m, 2);
        assert_int_equal(get(f, 5) & 0x60, 0x60);
    }
}

static void input_waits_for_a_listener_and_keeps_its_order(void **state)
{
    struct fixture *f = *state;
    uint8_t sent[100], seen[100];
    unsigned n = 0;

    for (unsigned i = 0; i < sizeof sent; i++)
        sent[i] = (uint8_t)(i + 1);
    assert_int_equal(write(f->in, sent, sizeof sent), sizeof sent);
    run_for_ms(f->m, 2);
    assert_int_equal(get(f, 5) & 1, 0); /* nobody listens yet */
    for (int i = 0; i < 40; i++) {      /* a driver that prints polls, too: once or twice a byte */
        assert_int_equal(get(f, 5) & 0x21, 0x20);
        put(f, 0, '.');
    }
    put(f, 1, 0x05); /* probes, then starts: a moment later the FIFO is reset */
    put(f, 1, 0x00);
    run_for_ms(f->m, 2);
    put(f, 1, 0x05);
    put(f, 2, 0x07);
    put(f, 1, 0x00);
    put(f, 2, 0x01);
    put(f, 4, 0x0b);
    for (int round = 0; round < 50 && n < sizeof seen; round++) {
        run_for_ms(f->m, 2);
        while (n < sizeof seen && (get(f, 5) & 1))
            seen[n++] = get(f, 0);
    }
    assert_int_equal(n, sizeof sent);
    assert_memory_equal(sent, seen, n);
    assert_int_equal(get(f, 5) & 0x02, 0); /* no overrun */
}

/* Linux enables the receive interrupt before it sets line and FIFO; a busy host may stop it there. */
static void input_outlasts_a_long_set_up(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(write(f->in, "one", 3), 3);
    put(f, 2, 0x07);
    put(f, 2, 0x00);
    put(f, 3, 0x03);
    put(f, 1, 0x05);
    run_for_ms(f->m, 10);
    put(f, 3, 0x83);
    put(f, 0, 0x01);
    put(f, 1, 0x00);
    put(f, 3, 0x03);
    put(f, 2, 0x81);
    run_for_ms(f->m, 60);
    for (const char *p = "one"; *p; p++)
        assert_int_equal(get(f, 0), *p);
}

static void input_comes_when_the_clock_went_back(void **state)
{
    struct fixture *f = *state;

    set_time_ns(f->m, 10000000000u);
    put(f, 2, 0x01);
    put(f, 1, 0x01);
    set_time_ns(f->m, 5000000000u);
    assert_int_equal(write(f->in, "a", 1), 1);
    run_for_ms(f->m, 60);
    assert_int_equal(get(f, 0), 'a');
}

static void end_of_input_is_silence(void **state)
{
    struct fixture *f = *state;

    put(f, 4, 0x03);
    assert_int_equal(write(f->in, "z", 1), 1);
    close(f->in);
    f->in = -1;
    for (int i = 0; i < 100 && !(get(f, 5) & 1); i++)
        run_for_ms(f->m, 1);
    assert_int_equal(get(f, 0), 'z');
    run_for_ms(f->m, 5);
    assert_int_equal(get(f, 5) & 1, 0);
    put(f, 0, 'o');
    run_for_ms(f->m, 5);
    char c = 0;
    assert_int_equal(read(f->out, &c, 1), 1);
}

static void receive_interrupt_by_level_and_by_timeout(void **state)
{
    struct fixture *f = *state;

    put(f, 2, 0x41); /* FIFO, trigger 4 */
    put(f, 1, 0x01);
    put(f, 4, 0x0b);
    irq_forget(f->m);
    assert_int_equal(write(f->in, "abcde", 5), 5);
    run_for_ms(f->m, 60);
    assert_true(irq_requested(f->m, 4));
    assert_int_equal(get(f, 2), 0xc4);
    get(f, 0);
    get(f, 0);
    assert_int_equal(get(f, 2), 0xcc);
    for (int i = 0; i < 3; i++)
        get(f, 0);
    assert_int_equal(get(f, 2), 0xc1);
}

static void transmit_interrupt_is_cleared_by_reading_why(void **state)
{
    struct fixture *f = *state;

    put(f, 4, 0x08);
    irq_forget(f->m);
    put(f, 1, 0x02);
    assert_true(irq_requested(f->m, 4));
    assert_int_equal(get(f, 2), 0x02);
    assert_int_equal(get(f, 2), 0x01);
    irq_forget(f->m);
    put(f, 0, 'x');
    assert_true(irq_requested(f->m, 4));
    put(f, 4, 0x00); /* OUT2 disconnects the line */
    irq_forget(f->m);
    put(f, 0, 'x');
    assert_false(irq_requested(f->m, 4));
}

static void loopback_turns_everything_around(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(get(f, 6) & 0xf0, 0xb0);
    put(f, 4, 0x1a); /* loop, OUT2, RTS: how Linux looks for the chip */
    assert_int_equal(get(f, 6) & 0xf0, 0x90);
    put(f, 4, 0x10);
    assert_int_equal(get(f, 6), 0x09); /* CTS and DCD fell */
    assert_int_equal(get(f, 6), 0x00);
    put(f, 0, 0x5a);
    put(f, 0, 0x5b);
    assert_int_equal(get(f, 5) & 0x03, 0x03); /* overrun without FIFO */
    assert_int_equal(get(f, 5) & 0x02, 0);
    assert_int_equal(get(f, 0), 0x5a);
    put(f, 2, 0x01);
    for (int i = 0; i < 17; i++)
        put(f, 0, (uint8_t)i);
    assert_int_equal(get(f, 5) & 0x02, 0x02);
    for (int i = 0; i < 16; i++)
        assert_int_equal(get(f, 0), i);
    put(f, 0, 1);
    put(f, 2, 0x03); /* clears the receiver */
    assert_int_equal(get(f, 5) & 1, 0);
}

static void divisor_and_scratch_are_kept(void **state)
{
    struct fixture *f = *state;

    put(f, 3, 0x83);
    put(f, 0, 12);
    put(f, 1, 1);
    assert_int_equal(get(f, 0), 12);
    assert_int_equal(get(f, 1), 1);
    put(f, 3, 0x03);
    assert_int_equal(get(f, 1), 0);
    put(f, 7, 0xa5);
    assert_int_equal(get(f, 7), 0xa5);
    put(f, 1, 0xff);
    assert_int_equal(get(f, 1), 0x0f);
}

static void impossible_fifo_length_is_refused(void **state)
{
    struct fixture *f = *state;
    struct hsk_dev *dev = hsk_machine_find_dev(f->m, "uart16550.0");

    assert_true(dev->ops->check(dev, NULL));
    poke_field(dev, "rx_len", 0, 2); /* without FIFO there is one byte */
    assert_false(dev->ops->check(dev, NULL));
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
int main(void)
{
    const struct CMUnitTest tests[] = {
        T(output_arrives),
        T(nothing_is_lost_to_a_slow_reader),
        T(a_reader_that_went_away_is_an_open_line),
        T(input_waits_for_a_listener_and_keeps_its_order),
        T(input_outlasts_a_long_set_up),
        T(input_comes_when_the_clock_went_back),
        T(end_of_input_is_silence),
        T(receive_interrupt_by_level_and_by_timeout),
        T(transmit_interrupt_is_cleared_by_reading_why),
        T(loopback_turns_everything_around),
        T(divisor_and_scratch_are_kept),
        T(impossible_fifo_length_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
