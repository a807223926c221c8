/* SPDX-License-Identifier: MIT */
/*
 * Running a processor under KVM: exits to the buses, interrupts from our local APIC, HLT, kicks.
 *
 * Kick: a flag, immediate_exit, and a signal that the thread blocks and only KVM_RUN lets in
 * (KVM_SET_SIGNAL_MASK); so it is never lost, whether it comes before, during or after KVM_RUN, and
 * no handler is needed. Threads: the vCPU's, but for kvm_kick (any, async-signal-safe).
 */
#include <vmm/cpu_bits.h>

#include <errno.h>
#include <signal.h>
#include <sys/syscall.h>

#include "kvm.h"

#define KICK_SIGNAL SIGUSR1

enum {
    MSR_SPEC_CTRL = 0x48,
    MSR_PRED_CMD = 0x49,
    MSR_ARCH_CAPABILITIES = 0x10a,
    MSR_TSC_DEADLINE = 0x6e0,
    MSR_X2APIC = 0x800,
    MSR_X2APIC_END = 0x8ff,
};

static enum hsk_exit fail(struct kvm_vcpu *k, char *sentence)
{
    g_free(k->base.error);
    k->base.error = sentence;
    return HSK_EXIT_ERROR;
}

/* --- thread and kick --- */

void kvm_thread_begin(struct hsk_vcpu *v)
{
    struct kvm_vcpu *k = kvm_vcpu_of(v);
    union {
        struct kvm_signal_mask m;
        uint8_t bytes[sizeof(struct kvm_signal_mask) + 8];
    } mask = {.m.len = 8}; /* the kernel's sigset_t */
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, KICK_SIGNAL);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    pthread_sigmask(SIG_BLOCK, NULL, &set);
    sigdelset(&set, KICK_SIGNAL);
    memcpy(mask.m.sigset, &set, 8);
    hsk_assert(ioctl(k->fd, KVM_SET_SIGNAL_MASK, &mask.m) == 0);
    __atomic_store_n(&k->tid, (pid_t)syscall(SYS_gettid), __ATOMIC_SEQ_CST);
}

void kvm_thread_end(struct hsk_vcpu *v)
{
    __atomic_store_n(&kvm_vcpu_of(v)->tid, 0, __ATOMIC_SEQ_CST);
}

void kvm_kick(struct hsk_vcpu *v)
{
    struct kvm_vcpu *k = kvm_vcpu_of(v);
    const pid_t tid = __atomic_load_n(&k->tid, __ATOMIC_SEQ_CST);

    atomic_store(&k->kicked, true);
    __atomic_store_n(&k->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
    if (tid)
        syscall(SYS_tgkill, getpid(), tid, KICK_SIGNAL);
}

static bool take_kick(struct kvm_vcpu *k)
{
    const struct timespec now = {0};
    sigset_t set;

    if (!atomic_exchange(&k->kicked, false))
        return false;
    __atomic_store_n(&k->run->immediate_exit, 0, __ATOMIC_SEQ_CST);
    sigemptyset(&set);
    sigaddset(&set, KICK_SIGNAL);
    while (sigtimedwait(&set, NULL, &now) == KICK_SIGNAL)
        ;
    return true;
}

/* --- exits --- */

static void handle_io(struct kvm_vcpu *k)
{
    struct hsk_bus *bus = k->base.engine->cfg.pio;
    const struct kvm_run *r = k->run;
    uint8_t *data = (uint8_t *)k->run + r->io.data_offset;

    for (uint32_t i = 0; i < r->io.count; i++, data += r->io.size) {
        uint64_t value = ~0ull;

        if (r->io.direction == KVM_EXIT_IO_IN) {
            hsk_bus_read(bus, r->io.port, r->io.size, &value);
            value = htole64(value);
            memcpy(data, &value, r->io.size);
        } else {
            value = 0;
            memcpy(&value, data, r->io.size);
            hsk_bus_write(bus, r->io.port, r->io.size, le64toh(value));
        }
    }
}

static void mmio_piece(struct hsk_bus *bus, bool write, uint64_t addr, uint8_t *data, unsigned size)
{
    uint64_t value = ~0ull;

    if (write) {
        value = 0;
        memcpy(&value, data, size);
        hsk_bus_write(bus, addr, size, le64toh(value));
    } else {
        hsk_bus_read(bus, addr, size, &value);
        value = htole64(value);
        memcpy(data, &value, size);
    }
}

/* KVM gives up to 8 bytes, of any length where an access crosses a page. */
static void handle_mmio(struct kvm_vcpu *k)
{
    uint64_t addr = k->run->mmio.phys_addr;
    uint8_t *data = k->run->mmio.data;
    unsigned left = MIN(k->run->mmio.len, 8);

    while (left) {
        const unsigned size = left >= 8 ? 8 : left >= 4 ? 4 : left >= 2 ? 2 : 1;

        mmio_piece(k->base.engine->cfg.mmio, k->run->mmio.is_write, addr, data, size);
        addr += size;
        data += size;
        left -= size;
    }
}

/* MSRs that KVM or the host's processor does not have but the model has, and those of the local
 * APIC. */
static bool model_msr(struct kvm_vcpu *k, uint32_t msr, bool write, uint64_t *value)
{
    struct hsk_lapic *l = k->base.lapic;

    switch (msr) {
    case MSR_SPEC_CTRL:
        if (write && (*value & ~(uint64_t)HSK_SPEC_CTRL_VALID))
            return false;
        if (write)
            k->shadow.spec_ctrl = *value;
        else
            *value = k->shadow.spec_ctrl;
        k->own_spec_ctrl = true;
        return true;
    case MSR_PRED_CMD:
        return write && !(*value & ~1ull);
    case MSR_ARCH_CAPABILITIES:
        *value = HSK_ARCH_CAPABILITIES;
        return !write;
    default:
        if (!l || (msr != MSR_TSC_DEADLINE && (msr < MSR_X2APIC || msr > MSR_X2APIC_END)))
            return false;
        return write ? hsk_lapic_wrmsr(l, msr, *value) : hsk_lapic_rdmsr(l, msr, value);
    }
}

static void handle_msr(struct kvm_vcpu *k, bool write)
{
    uint64_t value = write ? k->run->msr.data : 0;

    k->run->msr.error = !model_msr(k, k->run->msr.index, write, &value); /* #GP */
    if (!write)
        k->run->msr.data = value;
}

static char *describe_error(struct kvm_vcpu *k)
{
    const struct kvm_run *r = k->run;
    struct kvm_regs regs = {0};
    g_autoptr(GString) bytes = g_string_new(NULL);

    ioctl(k->fd, KVM_GET_REGS, &regs);
    if (r->exit_reason == KVM_EXIT_FAIL_ENTRY)
        return g_strdup_printf(
            "The processor refused the machine's state (hardware reason 0x%llx, rip 0x%llx).",
            (unsigned long long)r->fail_entry.hardware_entry_failure_reason,
            (unsigned long long)regs.rip);
    if (r->exit_reason != KVM_EXIT_INTERNAL_ERROR)
        return g_strdup_printf("KVM stopped the machine with exit reason %u at rip 0x%llx, which "
                               "Haversack does not handle.",
                               r->exit_reason, (unsigned long long)regs.rip);
    if (r->internal.suberror != KVM_INTERNAL_ERROR_EMULATION)
        return g_strdup_printf("KVM failed inside (error %u) at rip 0x%llx.", r->internal.suberror,
                               (unsigned long long)regs.rip);
    if (r->emulation_failure.ndata >= 3 &&
        (r->emulation_failure.flags & KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES))
        for (unsigned i = 0; i < MIN(r->emulation_failure.insn_size, 15); i++)
            g_string_append_printf(bytes, " %02x", r->emulation_failure.insn_bytes[i]);
    return g_strdup_printf("KVM on this computer cannot run the instruction at rip 0x%llx "
                           "(bytes%s): use --engine soft.",
                           (unsigned long long)regs.rip, bytes->len ? bytes->str : " unknown");
}

/* Handles what needs no decision; false: the caller looks at exit_reason. */
static bool handle_device_exit(struct kvm_vcpu *k)
{
    switch (k->run->exit_reason) {
    case KVM_EXIT_IO:
        handle_io(k);
        break;
    case KVM_EXIT_MMIO:
        handle_mmio(k);
        break;
    case KVM_EXIT_X86_RDMSR:
        handle_msr(k, false);
        break;
    case KVM_EXIT_X86_WRMSR:
        handle_msr(k, true);
        break;
    default:
        return false;
    }
    k->io_pending = true;
    return true;
}

/* --- interrupts of our local APIC --- */

static void before_entry(struct kvm_vcpu *k)
{
    struct hsk_lapic *l = k->base.lapic;
    unsigned pending;
    uint8_t unused;

    k->run->request_interrupt_window = 0;
    if (!l)
        return;
    k->run->cr8 = hsk_lapic_get_cr8(l);
    k->run->apic_base = hsk_lapic_get_base(l);
    pending = hsk_lapic_pending(l);
    if ((pending & HSK_LAPIC_NMI) && hsk_lapic_take(l, HSK_LAPIC_NMI, &unused))
        ioctl(k->fd, KVM_NMI, 0);
    if (!(pending & HSK_LAPIC_INTR))
        return;
    if (k->run->ready_for_interrupt_injection) {
        const int vector = hsk_lapic_ack(l);

        if (vector >= 0) {
            struct kvm_interrupt irq = {.irq = (uint32_t)vector};

            hsk_assert(ioctl(k->fd, KVM_INTERRUPT, &irq) == 0);
            k->run->ready_for_interrupt_injection = 0;
        }
    }
    k->run->request_interrupt_window = (hsk_lapic_pending(l) & HSK_LAPIC_INTR) != 0;
}

static void after_exit(struct kvm_vcpu *k)
{
    struct hsk_lapic *l = k->base.lapic;

    if (!l)
        return;
    if (k->run->cr8 != hsk_lapic_get_cr8(l))
        hsk_lapic_set_cr8(l, k->run->cr8 & 15);
    if (k->run->apic_base != hsk_lapic_get_base(l))
        hsk_lapic_set_base(l, k->run->apic_base);
}

/* INIT and start-up IPIs are between our local APIC and us: KVM's own, which would do it, is not in
 * use. */
static bool startup(struct kvm_vcpu *k, GError **error)
{
    struct hsk_lapic *l = k->base.lapic;
    struct hsk_cpu_state s;
    uint8_t vector;

    if (hsk_lapic_take(l, HSK_LAPIC_INIT, &vector)) {
        kvm_get_state(&k->base, &s);
        hsk_cpu_state_init(&s, k->base.index);
        if (!kvm_set_state(&k->base, &s, error))
            return false;
    }
    if (!hsk_lapic_take(l, HSK_LAPIC_SIPI, &vector) || k->shadow.activity != HSK_ACT_WAIT_SIPI)
        return true;
    kvm_get_state(&k->base, &s);
    hsk_cpu_state_sipi(&s, vector);
    return kvm_set_state(&k->base, &s, error);
}

/* A halted processor goes on when an interrupt or NMI can be delivered. */
static bool still_halted(struct kvm_vcpu *k)
{
    const unsigned pending = k->base.lapic ? hsk_lapic_pending(k->base.lapic) : 0;

    if ((pending & HSK_LAPIC_NMI) || ((pending & HSK_LAPIC_INTR) && k->run->if_flag))
        k->halted = false;
    return k->halted;
}

void kvm_complete_io(struct kvm_vcpu *k)
{
    while (k->io_pending) {
        k->io_pending = false;
        __atomic_store_n(&k->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
        /* A string instruction may come back with its next element. */
        if (ioctl(k->fd, KVM_RUN, 0) == 0)
            handle_device_exit(k);
    }
    __atomic_store_n(&k->run->immediate_exit, atomic_load(&k->kicked), __ATOMIC_SEQ_CST);
}

enum hsk_exit kvm_run_vcpu(struct hsk_vcpu *v)
{
    struct kvm_vcpu *k = kvm_vcpu_of(v);
    g_autoptr(GError) error = NULL;

    kvm_sync_tsc(k);
    for (;;) {
        if (take_kick(k)) {
            kvm_complete_io(k);
            return HSK_EXIT_KICK;
        }
        if (v->lapic && (hsk_lapic_pending(v->lapic) & (HSK_LAPIC_INIT | HSK_LAPIC_SIPI)) &&
            !startup(k, &error))
            return fail(k, g_strdup(error->message));
        if (k->shutdown)
            return HSK_EXIT_SHUTDOWN;
        if (k->shadow.activity == HSK_ACT_WAIT_SIPI || (k->halted && still_halted(k)))
            return HSK_EXIT_HALT;
        before_entry(k);
        k->io_pending = false;
        if (ioctl(k->fd, KVM_RUN, 0) < 0) {
            if (errno == EINTR || errno == EAGAIN)
                continue;
            return fail(k, g_strdup_printf("KVM cannot run the machine: %s.", g_strerror(errno)));
        }
        if (v->index == 0)
            kvm_engine_of(v)->exits++;
        after_exit(k);
        if (handle_device_exit(k))
            continue;
        switch (k->run->exit_reason) {
        case KVM_EXIT_INTR:
        case KVM_EXIT_IRQ_WINDOW_OPEN:
        case KVM_EXIT_SET_TPR:
            break;
        case KVM_EXIT_HLT:
            k->halted = true;
            break;
        case KVM_EXIT_SHUTDOWN:
            k->shutdown = true;
            break;
        default:
            return fail(k, describe_error(k));
        }
    }
}
