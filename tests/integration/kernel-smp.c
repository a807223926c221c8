/* SPDX-License-Identifier: MIT */
/*
 * The other processors of the integration tests' kernel: started with INIT and start-up IPIs, they
 * work for ever, and what they have done can be checked at any time: a ticket counter that all
 * raise atomically against what each counted for itself, and a pair of numbers that only change
 * together, under a lock.
 */
#include "kernel.h"

#define APIC       ((volatile uint32_t *)0xfee00000)
#define TRAMPOLINE 0x8000u
#define MAX_CPUS   8

extern const uint8_t trampoline[], trampoline_end[];
void other_main(uint32_t id);

static volatile uint32_t tickets, own[MAX_CPUS], started, pair[2];
static volatile uint32_t taken;

static void lock(void)
{
    while (__atomic_exchange_n(&taken, 1, __ATOMIC_ACQUIRE))
        __asm__ volatile("pause");
}

static void unlock(void)
{
    __atomic_store_n(&taken, 0, __ATOMIC_RELEASE);
}

void other_main(uint32_t id)
{
    __atomic_fetch_add(&started, 1, __ATOMIC_SEQ_CST);
    for (;;) {
        __atomic_fetch_add(&tickets, 1, __ATOMIC_SEQ_CST);
        own[id % MAX_CPUS]++;
        lock();
        pair[0]++;
        pair[1]++;
        unlock();
    }
}

void smp_start(void)
{
    for (uint32_t i = 0; i < (uint32_t)(trampoline_end - trampoline); i++)
        ((volatile uint8_t *)TRAMPOLINE)[i] = trampoline[i];
    APIC[0xf0 / 4] = 0x1ff;
    APIC[0x300 / 4] = 0xc4500; /* INIT, then the start, to all but this one */
    APIC[0x300 / 4] = 0xc4600 | TRAMPOLINE >> 12;
    APIC[0x300 / 4] = 0xc4600 | TRAMPOLINE >> 12;
}

uint32_t smp_started(void)
{
    return started;
}

uint32_t smp_work(void)
{
    uint32_t before = tickets, sum = 0, work;
    int equal;

    for (uint32_t i = 0; i < MAX_CPUS; i++)
        sum += own[i];
    /* each raises the tickets first; numbers may wrap */
    if ((int32_t)(sum + started - before) < 0 || (int32_t)(tickets - sum) < 0)
        return 0;
    lock();
    equal = pair[0] == pair[1];
    work = pair[0];
    unlock();
    return equal ? work | 1 : 0;
}
