/* SPDX-License-Identifier: MIT */
/* Inside of the KVM engine: shared by its own files and, for the question what this computer can
 * do, by cpu/engine.c. */
#pragma once

#include <vmm/engine.h>
#include <vmm/lapic.h>

#include <linux/kvm.h>
#include <pthread.h>
#include <sys/ioctl.h>

/* Does the processor show VMX or SVM? Without, /dev/kvm may open and only emulate, much slower than
 * the software engine. */
bool hsk_kvm_virtualizes(void);

struct kvm_engine {
    struct hsk_engine base;
    int fd, vm_fd;
    uint64_t run_bytes; /* of the area shared with the kernel, per vCPU */
    bool event_payload; /* KVM_CAP_EXCEPTION_PAYLOAD */
    bool readonly_memory;
    pthread_mutex_t lock; /* slots */
    uint64_t generation;
    struct hsk_ram_region slot[HSK_RAM_MAX_REGIONS]; /* size 0: free */
    uint64_t exits;                                  /* of vCPU 0, for --stats */
};

struct kvm_vcpu {
    struct hsk_vcpu base;
    int fd;
    struct kvm_run *run;
    pid_t tid; /* of its thread, 0 before it runs */
    _Atomic bool kicked;
    bool halted, shutdown;
    bool io_pending; /* the last exit is completed by the next KVM_RUN */
    struct hsk_cpu_state
        shadow; /* what KVM does not keep: MSRs it does not know, activity of waiting processors */
    bool own_spec_ctrl; /* shadow.spec_ctrl is the guest's value: the host's processor refused it */
    struct hsk_clock_tsc_params tsc; /* the clock when the TSC was last set */
    unsigned leaps;                  /* of the clock that the guest was told of */
};

static inline struct kvm_engine *kvm_engine_of(struct hsk_vcpu *v)
{
    return (struct kvm_engine *)v->engine;
}

/* base is the first member; allocated with the alignment of the XSAVE image. */
static inline struct kvm_vcpu *kvm_vcpu_of(struct hsk_vcpu *v)
{
    return (struct kvm_vcpu *)(void *)v;
}

/* memory.c */
bool kvm_memory_update(struct kvm_engine *e, GError **error);
void kvm_dirty_sync(struct kvm_engine *e);
/* state.c */
void kvm_get_state(struct hsk_vcpu *v, struct hsk_cpu_state *s);
bool kvm_set_state(struct hsk_vcpu *v, const struct hsk_cpu_state *s, GError **error);
void kvm_sync_tsc(struct kvm_vcpu *k);
bool kvm_check_model(struct kvm_engine *e, GError **error);
bool kvm_set_cpuid(struct kvm_vcpu *k, GError **error);
/* run.c */
enum hsk_exit kvm_run_vcpu(struct hsk_vcpu *v);
void kvm_kick(struct hsk_vcpu *v);
void kvm_thread_begin(struct hsk_vcpu *v);
void kvm_thread_end(struct hsk_vcpu *v);
/* Completes a port or memory access that KVM is in the middle of, so that the state is that between
 * two instructions. */
void kvm_complete_io(struct kvm_vcpu *k);
