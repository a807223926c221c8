/* SPDX-License-Identifier: MIT */
/* Shared by the files of the integration tests' kernel. */
#pragma once

#include <stdint.h>

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
static inline uint32_t inl(uint16_t port)
{
    uint32_t v;
    __asm__ volatile("inl %1, %0" : "=a"(v) : "Nd"(port));
    return v;
}

/* kernel-smp.c */
void smp_start(void);
uint32_t smp_started(void); /* other processors that are at work */
uint32_t smp_work(void);    /* a number that grows with what they have done, or 0: it is wrong */

/* kernel-write.c */
void write_some(void);
uint32_t written(void); /* a number that grows with what it has done, or 0: memory is not whole */

/* kernel-disk.c: the first virtio disk. 0 or a negative number that says where it failed. */
int disk_init(void);
int disk_io(int write, uint64_t sector, void *buf, uint32_t bytes);
int disk_flush(void);
