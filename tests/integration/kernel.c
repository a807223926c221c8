/* SPDX-License-Identifier: MIT */
/*
 * The guest of the integration tests: a flat 32-bit kernel, entered by PVH (start_info in ebx), which talks on COM1 by polling.
 *
 * Command line: words done in order at start: "poweroff", "reset", "triple", "exit=N" (debug-exit port), "hang", "serve".
 * serve: reads one-letter commands from COM1 and counts all the time:
 *   w XXXXXXXX   keeps eight characters in memory       p   prints "nonce=XXXXXXXX count=N"
 *   f            fills 4 MiB of memory with a pattern that depends on the count    v   prints "fill=N" or "fill=bad"
 *   o r t        power-off, reset, triple fault
 */
#include <stdint.h>

struct start_info {
    uint32_t magic, version, flags, nr_modules;
    uint64_t modlist, cmdline, rsdp;
};

#define COM1       0x3f8
#define FILL       ((volatile uint32_t *)0x800000)
#define FILL_WORDS (4u << 18)

static char nonce[9] = "--------";
static volatile uint32_t count;
static uint32_t filled;

static inline void outb(uint16_t port, uint8_t v)
{
    __asm__ volatile("outb %0, %1" : : "a"(v), "Nd"(port));
}
static inline void outw(uint16_t port, uint16_t v)
{
    __asm__ volatile("outw %0, %1" : : "a"(v), "Nd"(port));
}
static inline void outl(uint16_t port, uint32_t v)
{
    __asm__ volatile("outl %0, %1" : : "a"(v), "Nd"(port));
}
static inline uint8_t inb(uint16_t port)
{
    uint8_t v;
    __asm__ volatile("inb %1, %0" : "=a"(v) : "Nd"(port));
    return v;
}

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
    while (!(inb(COM1 + 5) & 1))
        count++;
    return (char)inb(COM1);
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

static void serve(void)
{
    print("ready\n");
    for (;;) {
        switch (getch()) {
        case 'w':
            for (int i = 0; i < 8; i++)
                nonce[i] = getch();
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
        case 'v':
            show_fill();
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
