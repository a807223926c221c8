/* SPDX-License-Identifier: MIT */
/*
 * The first and only program of the guest that tests/bench/snapshots.py measures: real data in
 * memory, a heartbeat, and work to order. Static, run as init by a Debian kernel.
 *
 * - Memory: bench_fill MiB (from the kernel's command line, so in the environment) read from
 * /dev/vda. Each page has one word, its mark, that all work changes; the sum of all marks is kept
 * beside them. So at any moment "c" can tell whether every page is of the same instant, and "f"
 * whether every byte is.
 * - Serial port: driven here and not by the kernel, so that nothing lies between a heartbeat and
 * the wire. A byte 0x80 | number every 2 ms, between them lines of ASCII; commands come the same
 * way: w RATE  writes a second, 95 % into 8192 hot pages   s 0|1  counts with what time is left b
 * 0|1   compiles in a loop, each logged and synced  l 0|1  light work: some pages, a ledger on the
 * disk, a program d N     changes N pages, always the same            c, f   checks x TEXT  has
 * another program echo it                 h 0|1  no heartbeat (for figures of CPU time), and again
 *     z       power off
 *   Every 100 ms, without a heartbeat every second: "t WRITES COUNTED COMPILED LIGHT".
 * - Disk: /dev/vdb, ext4, mounted on /disk.
 *
 * Threads: the heartbeat (real time; alone at the port), the worker (main; alone at the data), the
 * compiler, the counter.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/io.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PORT         0x3f8
#define BEAT_NS      2000000
#define PAGE_WORDS   512u
#define HOT_PAGES    8192u
#define CLUSTER      8u       /* pages that are changed together */
#define SPREAD       1000003u /* prime: visits every cluster once */
#define LEDGER_SLOTS 256u

struct line {
    char text[120];
};

static struct {
    pthread_mutex_t lock;
    char out[65536]; /* ring: what waits for the port */
    unsigned head, tail;
    struct line command;
    bool have_command;
} port = {.lock = PTHREAD_MUTEX_INITIALIZER};

static struct {
    uint64_t *words;
    uint64_t pages;
    uint64_t still;   /* sum over everything but the marks, as it was read */
    uint64_t marks;   /* sum over the marks, as it must be */
    uint64_t changes; /* how many there were */
} data;

/* What the ledger on the disk must hold. */
static struct {
    int fd;
    uint64_t *block;
    uint64_t entries, marks;
} ledger = {.fd = -1};

static _Atomic uint64_t writes, counted, compiled, light;
static atomic_bool counting, compiling, beating = true;

static uint64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void sleep_until(uint64_t ns)
{
    struct timespec t = {.tv_sec = (time_t)(ns / 1000000000u), .tv_nsec = (long)(ns % 1000000000u)};

    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR)
        continue;
}

__attribute__((format(printf, 1, 2))) static void say(const char *format, ...)
{
    char text[200];
    va_list args;

    va_start(args, format);
    int n = vsnprintf(text, sizeof(text) - 1, format, args);
    va_end(args);
    if (n > (int)sizeof(text) - 2)
        n = sizeof(text) - 2;
    text[n++] = '\n';
    pthread_mutex_lock(&port.lock);
    for (int i = 0; i < n && port.head - port.tail < sizeof(port.out); i++)
        port.out[port.head++ % sizeof(port.out)] = text[i];
    pthread_mutex_unlock(&port.lock);
}

static void die(const char *what)
{
    say("died: %s: %s", what, strerror(errno));
    for (;;)
        pause();
}

/* ---- the port ---- */

static void port_init(void)
{
    if (iopl(3) < 0)
        reboot(RB_POWER_OFF);
    outb(0x00, PORT + 1);
    outb(0x03, PORT + 3); /* 8n1 */
    outb(0x07, PORT + 2); /* FIFOs on and empty */
    outb(0x03, PORT + 4); /* DTR and RTS; without OUT2 no interrupt goes out */
    outb(0x01, PORT + 1); /* listening: bytes that came early wait on the host's side */
}

static void port_input(void)
{
    static struct line line;
    static unsigned n;

    for (unsigned i = 0; i < 64 && (inb(PORT + 5) & 0x01); i++) {
        char c = (char)inb(PORT);
        if (c != '\n') {
            if (n < sizeof(line.text) - 1)
                line.text[n++] = c;
            continue;
        }
        line.text[n] = 0;
        n = 0;
        pthread_mutex_lock(&port.lock);
        port.command = line;
        port.have_command = true;
        pthread_mutex_unlock(&port.lock);
    }
}

static void port_output(void)
{
    pthread_mutex_lock(&port.lock);
    for (unsigned i = 0; i < 64 && port.head != port.tail && (inb(PORT + 5) & 0x20); i++)
        outb((unsigned char)port.out[port.tail++ % sizeof(port.out)], PORT);
    pthread_mutex_unlock(&port.lock);
}

static void *heartbeat(void *unused)
{
    uint64_t next = now_ns();

    for (uint8_t number = 0;; number++) {
        if (beating)
            outb(0x80 | number, PORT);
        port_output();
        port_input();
        /* No burst after a pause: each beat tells that the machine runs at that moment. */
        uint64_t now = now_ns();
        next = next + BEAT_NS > now ? next + BEAT_NS : now + BEAT_NS;
        sleep_until(next);
    }
    return unused;
}

/* ---- the data ---- */

static uint64_t mix(uint64_t page, uint64_t value)
{
    uint64_t h = (value ^ (page * 0x9e3779b97f4a7c15u)) * 0xff51afd7ed558ccdu;
    return (h ^ (h >> 32)) * 0xc4ceb9fe1a85ec53u;
}

static uint64_t *mark_of(uint64_t page)
{
    return data.words + page * PAGE_WORDS + (page * 2654435761u >> 7) % PAGE_WORDS;
}

static void change(uint64_t page)
{
    uint64_t *mark = mark_of(page);
    uint64_t value = mix(page, ++data.changes);

    data.marks += mix(page, value) - mix(page, *mark);
    *mark = value;
}

static uint64_t sum_marks(void)
{
    uint64_t sum = 0;

    for (uint64_t p = 0; p < data.pages; p++)
        sum += mix(p, *mark_of(p));
    return sum;
}

static uint64_t sum_still(void)
{
    uint64_t sum = 0;

    for (uint64_t p = 0; p < data.pages; p++) {
        const uint64_t *w = data.words + p * PAGE_WORDS, *mark = mark_of(p);
        uint64_t h = 0;
        for (unsigned i = 0; i < PAGE_WORDS; i++)
            h = (h ^ (w + i == mark ? 0 : w[i])) * 0x9e3779b97f4a7c15u + (h >> 29);
        sum += mix(p, h);
    }
    return sum;
}

/* More memory than data: it is read again and changed a little, or the copies would be stored once.
 */
static void fill(uint64_t mib)
{
    const size_t step = 4u << 20;
    int fd = open("/dev/vda", O_RDONLY | O_DIRECT);
    off_t size = fd < 0 ? 0 : lseek(fd, 0, SEEK_END);

    if (size < (off_t)step)
        die("/dev/vda");
    data.pages = mib * 256;
    data.words =
        mmap(NULL, data.pages * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (data.words == MAP_FAILED)
        die("memory");
    for (uint64_t at = 0; at < data.pages * 4096; at += step) {
        uint64_t *part = data.words + at / 8;
        uint64_t round = at / ((uint64_t)size / step * step);
        if (pread(fd, part, step, (off_t)(at % ((uint64_t)size / step * step))) != (ssize_t)step)
            die("reading /dev/vda");
        for (size_t i = 0; round && i < step / 8; i++)
            part[i] ^= part[i] ? round * 0x0101010101010101u : 0;
    }
    close(fd);
    data.marks = sum_marks();
    data.still = sum_still();
}

/* ---- the disk ---- */

static void ledger_open(void)
{
    mkdir("/disk", 0755);
    if (mount("/dev/vdb", "/disk", "ext4", MS_NOATIME, NULL) < 0)
        die("mounting /dev/vdb");
    ledger.fd = open("/disk/ledger", O_RDWR | O_CREAT | O_DIRECT | O_DSYNC, 0644);
    if (ledger.fd < 0 || posix_memalign((void **)&ledger.block, 4096, 4096))
        die("/disk/ledger");
    memset(ledger.block, 0, 4096);
    for (unsigned i = 0; i < LEDGER_SLOTS; i++) {
        if (pwrite(ledger.fd, ledger.block, 4096, (off_t)i * 4096) != 4096)
            die("/disk/ledger");
    }
}

static void ledger_write(void)
{
    ledger.entries++;
    ledger.marks = data.marks;
    ledger.block[0] = ledger.entries;
    ledger.block[1] = ledger.marks;
    if (pwrite(ledger.fd, ledger.block, 4096, (off_t)(ledger.entries % LEDGER_SLOTS) * 4096) !=
        4096)
        die("/disk/ledger");
}

/* The disk holds the last entry that memory knows of, and none after it. */
static bool ledger_fits(void)
{
    bool fits = true;

    if (pread(ledger.fd, ledger.block, 4096, (off_t)((ledger.entries + 1) % LEDGER_SLOTS) * 4096) !=
            4096 ||
        ledger.block[0] > ledger.entries)
        fits = false;
    if (pread(ledger.fd, ledger.block, 4096, (off_t)(ledger.entries % LEDGER_SLOTS) * 4096) !=
            4096 ||
        ledger.block[0] != ledger.entries || ledger.block[1] != ledger.marks)
        fits = false;
    return fits;
}

/* ---- work ---- */

static uint64_t draw(void)
{
    static uint64_t x = 88172645463325252u;

    x ^= x << 13;
    x ^= x >> 7;
    return x ^= x << 17;
}

static void write_some(unsigned n)
{
    uint64_t clusters = data.pages / CLUSTER,
             apart = data.pages / HOT_PAGES ? data.pages / HOT_PAGES : 1;

    for (unsigned i = 0; i < n; i++) {
        uint64_t r = draw();
        if (r % 100 < 5) {
            change((r >> 8) % data.pages);
        } else {
            uint64_t hot = (r >> 8) % HOT_PAGES;
            change((hot / CLUSTER * apart % clusters) * CLUSTER + hot % CLUSTER);
        }
    }
    writes += n;
}

static void change_exactly(uint64_t n)
{
    uint64_t clusters = data.pages / CLUSTER;

    for (uint64_t i = 0; i < n && i < data.pages; i++)
        change(i / CLUSTER * SPREAD % clusters * CLUSTER + i % CLUSTER);
}

static int run(char *const argv[], const char *out)
{
    int status = -1;
    pid_t pid = fork();

    if (pid == 0) {
        struct sched_param other = {0};
        sched_setscheduler(0, SCHED_OTHER, &other);
        int fd = open(out, O_WRONLY | O_CREAT | O_TRUNC, 0644);
        dup2(fd, 1);
        dup2(fd, 2);
        execv(argv[0], argv);
        _exit(127);
    }
    waitpid(pid, &status, 0);
    return status;
}

static void *compiler(void *unused)
{
    char *const argv[] = {"/bench/cc1",   "-quiet", "-fpreprocessed", "-O0",
                          "/bench/job.i", "-o",     "/tmp/job.s",     NULL};
    int log = open("/disk/log", O_WRONLY | O_CREAT | O_APPEND, 0644);

    for (;;) {
        if (!compiling) {
            usleep(20000);
            continue;
        }
        int status = run(argv, "/tmp/job.out");
        char text[80];
        int n = snprintf(text, sizeof(text), "compiled %llu, status %d\n",
                         (unsigned long long)compiled, status);
        if (status || write(log, text, (size_t)n) != n || fsync(log) < 0)
            die("compiling");
        compiled++;
    }
    return unused;
}

static void *counter(void *unused)
{
    struct sched_param none = {0};

    sched_setscheduler(0, SCHED_IDLE, &none);
    for (;;) {
        if (!counting)
            usleep(20000);
        for (unsigned i = 0; counting && i < 10000; i++)
            __asm__ volatile("" : : "r"(i));
        counted += counting;
    }
    return unused;
}

/* Some pages four times a second, the ledger once, a program every five. */
static void light_step(void)
{
    char *const argv[] = {"/bin/busybox", "awk",
                          "{ n[length($0)]++ } END { for (i in n) print i, n[i] }", "/bench/job.i",
                          NULL};

    for (unsigned i = 0; i < 25; i++)
        change(draw() % data.pages);
    light++;
    if (light % 4 == 0)
        ledger_write();
    if (light % 20 == 0)
        run(argv, "/tmp/light.out");
}

static void echo(const char *text)
{
    char *const argv[] = {"/bin/busybox", "echo", (char *)text, NULL};
    char answer[120] = "";

    run(argv, "/tmp/echo");
    int fd = open("/tmp/echo", O_RDONLY);
    if (fd >= 0) {
        ssize_t n = read(fd, answer, sizeof(answer) - 1);
        answer[n > 0 ? n - 1 : 0] = 0;
        close(fd);
    }
    say("x %s", answer);
}

static void check(bool whole)
{
    bool marks = sum_marks() == data.marks, still = !whole || sum_still() == data.still;
    bool disk = ledger_fits();

    say("%c %s marks=%016llx changes=%llu ledger=%llu%s%s%s", whole ? 'f' : 'c',
        marks && still && disk ? "ok" : "BAD", (unsigned long long)data.marks,
        (unsigned long long)data.changes, (unsigned long long)ledger.entries,
        marks ? "" : " (marks)", still ? "" : " (data)", disk ? "" : " (disk)");
}

static struct {
    uint64_t rate, start_ns, done; /* the writer */
    bool light;
    uint64_t light_ns;
} work;

static void obey(const char *text)
{
    long n = text[0] ? strtol(text + 1, NULL, 10) : 0;

    switch (text[0]) {
    case 'w':
        work.rate = (uint64_t)n;
        work.start_ns = now_ns();
        work.done = 0;
        break;
    case 's':
        counting = n;
        break;
    case 'b':
        compiling = n;
        break;
    case 'h':
        beating = n;
        break;
    case 'l':
        work.light = n;
        work.light_ns = now_ns();
        break;
    case 'd':
        change_exactly((uint64_t)n);
        break;
    case 'c':
    case 'f':
        check(text[0] == 'f');
        return;
    case 'x':
        echo(text + 1 + (text[1] == ' '));
        return;
    case 'z':
        sync();
        reboot(RB_POWER_OFF);
        break;
    default:
        say("what? %s", text);
        return;
    }
    say("ok %s", text);
}

/* A writer that fell behind by more than 50 ms does not catch up: what a pause took is missing in
 * its count. */
static void write_what_is_due(uint64_t now)
{
    uint64_t due = (now - work.start_ns) / 1000 * work.rate / 1000000;

    if (due > work.done + work.rate / 20)
        work.done = due - work.rate / 20;
    while (work.done < due) {
        unsigned n = due - work.done > 500 ? 500 : (unsigned)(due - work.done);
        write_some(n);
        work.done += n;
    }
}

static void work_for_ever(void)
{
    uint64_t next = now_ns(), told = next;

    for (;;) {
        struct line line;
        pthread_mutex_lock(&port.lock);
        bool have = port.have_command;
        line = port.command;
        port.have_command = false;
        pthread_mutex_unlock(&port.lock);
        if (have)
            obey(line.text);
        uint64_t now = now_ns();
        if (work.rate)
            write_what_is_due(now);
        if (work.light && now >= work.light_ns) {
            light_step();
            work.light_ns = now + 250000000;
        }
        if (now >= told + (beating ? 100000000 : 1000000000)) {
            told = now;
            say("t %llu %llu %llu %llu", (unsigned long long)writes, (unsigned long long)counted,
                (unsigned long long)compiled, (unsigned long long)light);
        }
        next = next + 1000000 > now ? next + 1000000 : now + 1000000;
        sleep_until(next);
    }
}

static void start(void *(*thread)(void *), int priority)
{
    pthread_t id;
    struct sched_param param = {.sched_priority = priority};

    if (pthread_create(&id, NULL, thread, NULL) ||
        (priority && pthread_setschedparam(id, SCHED_FIFO, &param)))
        die("threads");
}

int main(void)
{
    const char *mib = getenv("bench_fill");

    mount("proc", "/proc", "proc", 0, NULL);
    mount("tmp", "/tmp", "tmpfs", 0, NULL);
    port_init();
    start(heartbeat, 50);
    ledger_open();
    fill(mib ? strtoul(mib, NULL, 10) : 64);
    start(compiler, 0);
    start(counter, 0);
    say("ready %llu pages", (unsigned long long)data.pages);
    work_for_ever();
}
