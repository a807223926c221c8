/* SPDX-License-Identifier: MIT */
/*
 * The KVM engine: what this computer offers, the virtual machine and its processors (kernel
 * documentation, virt/kvm/api.rst).
 *
 * The local APIC is ours (vmm/lapic.h), in user space; KVM's in-kernel interrupt controllers are
 * not used yet. Threads: as vmm/engine.h says.
 */
#include <cpuid.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "kvm.h"

/* Three pages for real mode on processors without unrestricted guests; in a gap of the board's map.
 */
#define KVM_IDENTITY_PAGE 0xfeffc000ull
#define KVM_TSS_PAGES     0xfeffd000ul

bool hsk_kvm_virtualizes(void)
{
    unsigned a, b, c = 0, d;

    if (__get_cpuid(1, &a, &b, &c, &d) && (c >> 5 & 1))
        return true; /* VMX */
    c = 0;
    return __get_cpuid(0x80000001, &a, &b, &c, &d) && (c >> 2 & 1); /* SVM */
}

/* Returns the descriptor, or -1 with the sentence in *why. */
static int open_kvm(char **why)
{
    HSK_AUTOFD fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);

    *why = NULL;
    if (fd < 0 && (errno == EACCES || errno == EPERM))
        *why = g_strdup_printf("KVM is not accessible: add yourself to the group kvm (sudo usermod "
                               "-aG kvm %s) and log in again.",
                               g_get_user_name());
    else if (fd < 0 && (errno == ENOENT || errno == ENODEV || errno == ENXIO))
        *why = g_strdup("There is no KVM here: switch on virtualization (VT-x or AMD-V) in the "
                        "computer's firmware setup, or load "
                        "the module kvm_intel or kvm_amd.");
    else if (fd < 0)
        *why = g_strdup_printf("/dev/kvm cannot be opened: %s.", g_strerror(errno));
    else if (ioctl(fd, KVM_GET_API_VERSION, 0) != KVM_API_VERSION ||
             ioctl(fd, KVM_CHECK_EXTENSION, KVM_CAP_IMMEDIATE_EXIT) <= 0 ||
             ioctl(fd, KVM_CHECK_EXTENSION, KVM_CAP_XSAVE) <= 0)
        *why = g_strdup("The KVM of this kernel is too old.");
    return *why ? -1 : hsk_steal_fd(&fd);
}

static bool kvm_probe(char **why)
{
    HSK_AUTOFD fd = open_kvm(why);

    if (fd < 0)
        return false;
    if (hsk_kvm_virtualizes())
        *why = g_strdup("KVM works.");
    else
        *why = g_strdup("/dev/kvm opens, but it only emulates here (the processor shows neither "
                        "VT-x nor AMD-V): "
                        "the software engine is faster.");
    return true;
}

/* A KVM that only emulates knows little: see kvm_check_model(). */
static const char *kvm_default_cpu(void)
{
    return hsk_kvm_virtualizes() ? NULL : "v2";
}

static void kvm_engine_free(struct hsk_engine *base)
{
    struct kvm_engine *e = (struct kvm_engine *)base;

    if (!e)
        return;
    if (e->vm_fd >= 0)
        close(e->vm_fd);
    if (e->fd >= 0)
        close(e->fd);
    pthread_mutex_destroy(&e->lock);
    g_free(e);
}

static bool enable(struct kvm_engine *e, uint32_t cap, uint64_t arg)
{
    struct kvm_enable_cap c = {.cap = cap, .args = {arg}};

    return ioctl(e->fd, KVM_CHECK_EXTENSION, cap) > 0 && ioctl(e->vm_fd, KVM_ENABLE_CAP, &c) == 0;
}

/* MSRs of the local APIC come to us: KVM knows none while the APIC is in user space, and ignores
 * TSC_DEADLINE. */
static bool route_msrs(struct kvm_engine *e)
{
    uint8_t denied = 0;
    struct kvm_msr_filter filter = {
        .flags = KVM_MSR_FILTER_DEFAULT_ALLOW,
        .ranges = {{.flags = KVM_MSR_FILTER_READ | KVM_MSR_FILTER_WRITE,
                    .nmsrs = 1,
                    .base = 0x6e0,
                    .bitmap = &denied}},
    };

    return enable(e, KVM_CAP_X86_USER_SPACE_MSR,
                  KVM_MSR_EXIT_REASON_UNKNOWN | KVM_MSR_EXIT_REASON_INVAL |
                      KVM_MSR_EXIT_REASON_FILTER) &&
           ioctl(e->vm_fd, KVM_X86_SET_MSR_FILTER, &filter) == 0;
}

static bool create_vm(struct kvm_engine *e, GError **error)
{
    const uint64_t identity = KVM_IDENTITY_PAGE;
    g_autofree char *why = NULL;
    int bytes;

    e->fd = open_kvm(&why);
    if (e->fd < 0) {
        g_set_error_literal(error, HSK_ERROR, HSK_ERROR_UNSUPPORTED, why);
        return false;
    }
    do
        e->vm_fd = ioctl(e->fd, KVM_CREATE_VM, 0);
    while (e->vm_fd < 0 && errno == EINTR);
    bytes = ioctl(e->fd, KVM_GET_VCPU_MMAP_SIZE, 0);
    if (e->vm_fd < 0 || bytes < (int)sizeof(struct kvm_run)) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_FAILED, "KVM cannot make a virtual machine: %s.",
                    g_strerror(errno));
        return false;
    }
    e->run_bytes = (uint64_t)bytes;
    e->readonly_memory = ioctl(e->fd, KVM_CHECK_EXTENSION, KVM_CAP_READONLY_MEM) > 0;
    e->event_payload = enable(e, KVM_CAP_EXCEPTION_PAYLOAD, 1);
    enable(e, KVM_CAP_EXIT_ON_EMULATION_FAILURE, 1); /* only for better sentences */
    /* Needed by Intel processors without unrestricted guests; others ignore it. */
    ioctl(e->vm_fd, KVM_SET_IDENTITY_MAP_ADDR, &identity);
    ioctl(e->vm_fd, KVM_SET_TSS_ADDR, KVM_TSS_PAGES);
    if (!route_msrs(e)) {
        g_set_error_literal(error, HSK_ERROR, HSK_ERROR_UNSUPPORTED,
                            "The KVM of this kernel cannot pass MSRs to user space.");
        return false;
    }
    return true;
}

static struct hsk_engine *kvm_engine_new(const struct hsk_engine_config *cfg, GError **error)
{
    struct kvm_engine *e = g_new0(struct kvm_engine, 1);

    e->base.ops = &hsk_engine_kvm_ops;
    e->base.cfg = *cfg;
    e->fd = e->vm_fd = -1;
    e->generation = ~0ull;
    pthread_mutex_init(&e->lock, NULL);
    if (!create_vm(e, error) || !kvm_check_model(e, error) || !kvm_memory_update(e, error)) {
        kvm_engine_free(&e->base);
        return NULL;
    }
    return &e->base;
}

static void kvm_vcpu_free(struct hsk_vcpu *v)
{
    struct kvm_vcpu *k = kvm_vcpu_of(v);

    if (!k)
        return;
    if (k->run)
        munmap(k->run, kvm_engine_of(v)->run_bytes);
    if (k->fd >= 0)
        close(k->fd);
    g_free(v->error);
    free(k);
}

static struct hsk_vcpu *kvm_vcpu_new(struct hsk_engine *base, const struct hsk_vcpu_config *cfg,
                                     GError **error)
{
    struct kvm_engine *e = (struct kvm_engine *)base;
    struct kvm_vcpu *k = aligned_alloc(64, (sizeof(*k) + 63) & ~(size_t)63);
    void *run = MAP_FAILED;

    hsk_assert(k);
    memset(k, 0, sizeof(*k));
    k->base = (struct hsk_vcpu){.engine = base, .index = cfg->index, .lapic = cfg->lapic};
    k->fd = ioctl(e->vm_fd, KVM_CREATE_VCPU, (unsigned long)cfg->index);
    if (k->fd >= 0)
        run = mmap(NULL, e->run_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, k->fd, 0);
    if (run == MAP_FAILED) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_FAILED, "KVM cannot make a processor: %s.",
                    g_strerror(errno));
        kvm_vcpu_free(&k->base);
        return NULL;
    }
    k->run = run;
    hsk_cpu_state_reset(&k->shadow, cfg->index);
    if (!kvm_set_cpuid(k, error) || !kvm_set_state(&k->base, &k->shadow, error)) {
        kvm_vcpu_free(&k->base);
        return NULL;
    }
    return &k->base;
}

static void kvm_flush(struct hsk_engine *base, unsigned what)
{
    g_autoptr(GError) error = NULL;

    /* Write permissions and translations are the kernel's. Only the map is ours to pass on. */
    if ((what & HSK_FLUSH_TLB) && !kvm_memory_update((struct kvm_engine *)base, &error))
        g_warning("%s", error->message);
}

static void kvm_dirty_sync_op(struct hsk_engine *base)
{
    kvm_dirty_sync((struct kvm_engine *)base);
}

static char *kvm_stats(struct hsk_engine *base)
{
    return g_strdup_printf("exits %" G_GUINT64_FORMAT "\n", ((struct kvm_engine *)base)->exits);
}

const struct hsk_engine_ops hsk_engine_kvm_ops = {
    .name = "kvm",
    .probe = kvm_probe,
    .default_cpu = kvm_default_cpu,
    .engine_new = kvm_engine_new,
    .engine_free = kvm_engine_free,
    .vcpu_new = kvm_vcpu_new,
    .vcpu_free = kvm_vcpu_free,
    .thread_begin = kvm_thread_begin,
    .thread_end = kvm_thread_end,
    .run = kvm_run_vcpu,
    .kick = kvm_kick,
    .get_state = kvm_get_state,
    .set_state = kvm_set_state,
    .flush = kvm_flush,
    .dirty_sync = kvm_dirty_sync_op,
    .stats = kvm_stats,
};
