/* SPDX-License-Identifier: MIT */
/*
 * The guest of the integration tests: a flat 32-bit kernel, entered by PVH (start_info in ebx),
 * which talks on COM1 by polling.
 *
 * Command line: words done in order at start: "poweroff", "reset", "triple", "exit=N" (debug-exit
 * port), "hang", "smp", "serve". Serve reads commands from COM1 and counts all the time:
 *
 * - wXXXXXXXX: keeps eight characters in memory; p: prints "nonce=XXXXXXXX count=N"
 * - f: fills 4 MiB of memory with a pattern made from the count; v: prints "fill=N" or "fill=bad"
 * - F: fills it, but for some pages that it filled before, one more each time
 * - DXXXXXXXX: writes eight characters to the disk and flushes it; d: prints "disk=XXXXXXXX"
 * - b: writes 512 KiB to the disk with a pattern from the count; B: prints "big=N" or "big=bad"
 * - c: prints "cpus=N work=N" or "work=bad"; the other processors work if "smp" came before "serve"
 * - W: writes all over 32 MiB from now on; S: prints "sum=N" or "sum=bad"
 * - o, r, t: power-off, reset, triple fault
 */
#include "kernel.h"

struct start_info {
    uint32_t magic, version, flags, nr_modules;
    uint64_t modlist, cmdline, rsdp;
};

#define COM1       0x3f8
#define FILL       ((volatile uint32_t *)0x800000)
#define FILL_WORDS (4u << 18)
#define BIG        ((volatile uint32_t *)0x1000000)
#define BIG_WORDS  (512u << 8)

static char nonce[9] = "--------";
static volatile uint32_t count;
static uint32_t filled;
static int writing;
static uint32_t staying;

static void putch(char c)
{
    while (!(inb(COM1 + 5) & 0x20))
        ;
    outb(COM1, (uint8_t)c);
}
static void print(const char *s)
{
    while (*s)
        putch(*s++);
}
static void print_number(uint32_t v)
{
    char buf[11], *p = buf + 10;

    *p = 0;
    do
        *--p = (char)('0' + v % 10);
    while (v /= 10);
    print(p);
}

static int word_is(const char *s, const char *word)
{
    while (*word)
        if (*s++ != *word++)
            return 0;
    return *s == 0 || *s == ' ';
}

static void triple_fault(void)
{
    static const struct {
        uint16_t limit;
        uint32_t base;
    } __attribute__((packed)) none = {0, 0};

    __asm__ volatile("lidt %0; ud2" : : "m"(none));
}

static char getch(void)
{
    while (!(inb(COM1 + 5) & 1)) {
        count++;
        if (writing)
            write_some();
    }
    return (char)inb(COM1);
}

/* Each time one page more stays as it was the last time. */
static void fill_but_some(void)
{
    staying = (staying + 1024) % FILL_WORDS;
    filled = count | 1;
    for (uint32_t i = staying; i < FILL_WORDS; i++)
        FILL[i] = filled + i;
}

static void show_fill(void)
{
    for (uint32_t i = 0; i < FILL_WORDS; i++) {
        if (FILL[i] != (filled ? filled + i : 0)) {
            print("fill=bad\n");
            return;
        }
    }
    print("fill=");
    print_number(filled);
    print("\n");
}

static void get_nonce(char to[8])
{
    for (int i = 0; i < 8; i++)
        to[i] = getch();
}

static void disk_result(int r)
{
    print(r ? "disk-error=" : "ok\n");
    if (r) {
        print_number((uint32_t)-r);
        print("\n");
    }
}

static void write_disk_nonce(void)
{
    static char sector[512] __attribute__((aligned(16)));

    get_nonce(sector);
    int r = disk_io(1, 100, sector, sizeof(sector));
    disk_result(r ? r : disk_flush());
}

static void show_disk_nonce(void)
{
    static char sector[513] __attribute__((aligned(16)));

    if (disk_io(0, 100, sector, 512)) {
        print("disk=error\n");
        return;
    }
    for (int i = 0; i < 8; i++)
        sector[i] = sector[i] ? sector[i] : '-';
    sector[8] = 0;
    print("disk=");
    print(sector);
    print("\n");
}

static void write_big(void)
{
    uint32_t seed = count | 1;

    for (uint32_t i = 0; i < BIG_WORDS; i++)
        BIG[i] = seed + i;
    int r = disk_io(1, 2048, (void *)BIG, BIG_WORDS * 4);
    disk_result(r ? r : disk_flush());
}

static void show_big(void)
{
    int r = disk_io(0, 2048, (void *)BIG, BIG_WORDS * 4);

    for (uint32_t i = 0; !r && i < BIG_WORDS; i++)
        r = BIG[i] != (BIG[0] ? BIG[0] + i : 0);
    print("big=");
    if (r)
        print("bad");
    else
        print_number(BIG[0]);
    print("\n");
}

static void show_work(void)
{
    uint32_t work = smp_work();

    print("cpus=");
    print_number(1 + smp_started());
    print(" work=");
    if (work)
        print_number(work);
    else
        print("bad");
    print("\n");
}

static void show_sum(void)
{
    uint32_t n = written();

    print("sum=");
    if (n)
        print_number(n);
    else
        print("bad");
    print("\n");
}

static void serve(void)
{
    int disk = disk_init();

    print(disk ? "ready, no disk\n" : "ready\n");
    for (;;) {
        switch (getch()) {
        case 'w':
            get_nonce(nonce);
            print("ok\n");
            break;
        case 'p':
            print("nonce=");
            print(nonce);
            print(" count=");
            print_number(count);
            print("\n");
            break;
        case 'f':
            filled = count | 1;
            for (uint32_t i = 0; i < FILL_WORDS; i++)
                FILL[i] = filled + i;
            print("ok\n");
            break;
        case 'F':
            fill_but_some();
            print("ok\n");
            break;
        case 'v':
            show_fill();
            break;
        case 'D':
            write_disk_nonce();
            break;
        case 'd':
            show_disk_nonce();
            break;
        case 'b':
            write_big();
            break;
        case 'B':
            show_big();
            break;
        case 'c':
            show_work();
            break;
        case 'W':
            writing = 1;
            print("ok\n");
            break;
        case 'S':
            show_sum();
            break;
        case 'o':
            outw(0x604, 0x2000);
            break;
        case 'r':
            outb(0xcf9, 6);
            break;
        case 't':
            triple_fault();
            break;
        }
    }
}

void kernel_main(const struct start_info *si);
void kernel_main(const struct start_info *si)
{
    const char *s = (const char *)(uintptr_t)si->cmdline;

    outb(COM1 + 2, 0x07); /* FIFOs on */
    outb(COM1 + 4, 0x03); /* DTR, RTS: the line is open */
    print("hello\n");
    while (s && *s) {
        if (word_is(s, "poweroff")) {
            for (uint32_t type = 0; type < 8; type++)
                outw(0x604, (uint16_t)(0x2000 | type << 10));
        } else if (word_is(s, "reset")) {
            outb(0xcf9, 6);
        } else if (word_is(s, "triple")) {
            triple_fault();
        } else if (s[0] == 'e' && s[4] == '=') {
            outl(0xf4, (uint32_t)(s[5] - '0'));
        } else if (word_is(s, "smp")) {
            smp_start();
        } else if (word_is(s, "serve")) {
            serve();
        } else if (word_is(s, "hang")) {
            for (;;)
                __asm__ volatile("pause");
        }
        while (*s && *s != ' ')
            s++;
        while (*s == ' ')
            s++;
    }
    for (;;)
        __asm__ volatile("cli; hlt");
}
