/* SPDX-License-Identifier: MIT */
/*
 * kvm-clock: the guest's time as a linear function of its TSC (kernel documentation,
 * virt/kvm/x86/msr.rst; struct pvclock_vcpu_time_info and pvclock_wall_clock). The guest's TSC rate
 * never changes, so one structure is right until TSC_ADJUST moves. Time begins at the machine's TSC
 * 0 on all processors: they round alike, so that it never goes back between two of them, which the
 * flag says. Thread: the vCPU's; FPU registers parked.
 */
#include "system.h"

#define PVCLOCK_BYTES 32
#define TSC_STABLE    1
#define GUEST_STOPPED 2 /* the guest clears it, and forgives its watchdogs once */
#define FLAGS_OFFSET  29

/* ns = (tsc << shift) * mul >> 32, with mul in [2^31, 2^32) */
static void scale_of(uint64_t tsc_hz, uint32_t *mul, int8_t *shift)
{
    uint64_t hz = tsc_hz;
    int8_t s = 0;

    while (hz > 2000000000ull) {
        hz >>= 1;
        s--;
    }
    while (hz <= 1000000000ull) {
        hz <<= 1;
        s++;
    }
    *mul = (uint32_t)((unsigned __int128)1000000000ull * (1ull << 32) * (s >= 0 ? 1 : 1ull << -s) /
                      (s >= 0 ? tsc_hz << s : tsc_hz));
    *shift = s;
}

void soft_pv_write_system_time(struct soft_vcpu *v, uint64_t msr)
{
    const struct hsk_engine_config *cfg = &v->base.engine->cfg;
    uint8_t info[PVCLOCK_BYTES] = {0};
    uint8_t version_bytes[4];
    uint32_t version, mul;
    uint64_t gpa = msr & ~1ull;
    int8_t shift;

    soft_fpu_park(v);
    v->s.kvm_system_time = msr;
    if (!(msr & 1) || !hsk_ram_read(cfg->ram, gpa, version_bytes, sizeof(version_bytes)))
        return;
    /* odd while it changes */
    version = (hsk_get32(version_bytes) | 1) + 2;
    scale_of(hsk_clock_tsc_hz(cfg->clock), &mul, &shift);
    hsk_put32(info, version);
    hsk_put64(info + 8, v->s.tsc_adjust);
    hsk_put32(info + 24, mul);
    info[28] = (uint8_t)shift;
    info[FLAGS_OFFSET] = TSC_STABLE;
    hsk_ram_write(cfg->ram, gpa, info, sizeof(info));
    hsk_put32(version_bytes, version + 1);
    hsk_ram_write(cfg->ram, gpa, version_bytes, sizeof(version_bytes));
}

void soft_pv_tell_leap(struct soft_vcpu *v)
{
    const struct hsk_engine_config *cfg = &v->base.engine->cfg;
    uint64_t at = (v->s.kvm_system_time & ~1ull) + FLAGS_OFFSET;
    unsigned leaps = hsk_clock_leaps(cfg->clock);
    uint8_t flags;

    if (v->leaps == leaps)
        return;
    v->leaps = leaps;
    if (!(v->s.kvm_system_time & 1) || !hsk_ram_read(cfg->ram, at, &flags, 1))
        return;
    soft_fpu_park(v);
    flags |= GUEST_STOPPED;
    hsk_ram_write(cfg->ram, at, &flags, 1);
}

void soft_pv_write_wall_clock(struct soft_vcpu *v, uint64_t msr)
{
    const struct hsk_engine_config *cfg = &v->base.engine->cfg;
    uint8_t info[12];
    uint8_t version_bytes[4];
    uint64_t boot_ns;

    soft_fpu_park(v);
    v->s.kvm_wall_clock = msr;
    if (!hsk_ram_read(cfg->ram, msr, version_bytes, sizeof(version_bytes)))
        return;
    /* UTC at guest time 0; read once by the guest while nobody changes it, so an even version in
     * one write is enough */
    boot_ns = hsk_clock_wall_ns(cfg->clock) - hsk_clock_ns(cfg->clock);
    hsk_put32(info, (hsk_get32(version_bytes) | 1) + 1);
    hsk_put32(info + 4, (uint32_t)(boot_ns / 1000000000));
    hsk_put32(info + 8, (uint32_t)(boot_ns % 1000000000));
    hsk_ram_write(cfg->ram, msr, info, sizeof(info));
}
