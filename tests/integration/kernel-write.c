/* SPDX-License-Identifier: MIT */
/*
 * A writer that can be checked at any time: it moves amounts between words all over 32 MiB, one in
 * each page, so that their sum stays zero. Memory that is put together from two moments shows.
 */
#include "kernel.h"

#define TABLE ((volatile uint32_t *)0x1800000)
#define PAGES 8192u

static uint32_t seed = 1, steps;

static uint32_t draw(void)
{
    seed = seed * 1664525 + 1013904223;
    return seed >> 8;
}

static volatile uint32_t *cell(uint32_t page)
{
    return &TABLE[page * 1024 + page * 37 % 1024];
}

void write_some(void)
{
    for (int i = 0; i < 16; i++) {
        /* most of it in few pages, as programs do */
        uint32_t most = draw() & 7 ? 64 : PAGES, amount = draw();

        *cell(draw() % most) += amount;
        *cell(draw() % PAGES) -= amount;
        steps++;
    }
}

uint32_t written(void)
{
    uint32_t sum = 0;

    for (uint32_t page = 0; page < PAGES; page++)
        sum += *cell(page);
    return sum ? 0 : steps | 1;
}
