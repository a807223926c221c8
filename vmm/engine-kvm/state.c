/* SPDX-License-Identifier: MIT */
/*
 * The canonical processor state to and from KVM, and the CPUID table.
 *
 * The XSAVE image goes through KVM_SET_XSAVE alone: KVM_SET_FPU would not show in it. MSRs go one
 * by one, since an old kernel or processor may not know all: what it does not know keeps the value
 * of struct hsk_cpu_state, unless the guest would depend on it, which is an error. Threads: the
 * vCPU is parked.
 */
#include <vmm/cpu_bits.h>

#include <errno.h>
#include <x86intrin.h>

#include "kvm.h"

/* --- segments --- */

static struct kvm_segment to_kvm_segment(const struct hsk_segment *g, bool code_or_tr)
{
    struct kvm_segment k = {
        .base = g->base,
        .limit = g->limit,
        .selector = g->selector,
        .type = g->attr & HSK_SEG_TYPE,
        .s = (g->attr & HSK_SEG_S) != 0,
        .dpl = HSK_SEG_DPL(g->attr),
        .present = (g->attr & HSK_SEG_P) != 0,
        .avl = g->attr >> 12 & 1,
        .l = (g->attr & HSK_SEG_L) != 0,
        .db = (g->attr & HSK_SEG_DB) != 0,
        .g = (g->attr & HSK_SEG_G) != 0,
        .unusable = !(g->attr & HSK_SEG_P),
    };

    /* VMX checks that granularity and limit agree, and that what is in use was accessed. */
    if ((k.limit & 0xfff) != 0xfff)
        k.g = 0;
    else if (k.limit >> 20)
        k.g = 1;
    if (code_or_tr && k.present && k.s)
        k.type |= 1;
    return k;
}

static struct hsk_segment from_kvm_segment(const struct kvm_segment *k)
{
    return (struct hsk_segment){
        .base = k->base,
        .limit = k->limit,
        .selector = k->selector,
        .attr = (uint16_t)((k->type & 15) | (k->s & 1) << 4 | (k->dpl & 3) << 5 |
                           (k->present && !k->unusable) << 7 | (k->avl & 1) << 12 |
                           (k->l & 1) << 13 | (k->db & 1) << 14 | (k->g & 1) << 15),
    };
}

static struct kvm_segment *kvm_segment_at(struct kvm_sregs *r, unsigned i)
{
    struct kvm_segment *const all[HSK_NSEG] = {
        [HSK_ES] = &r->es, [HSK_CS] = &r->cs, [HSK_SS] = &r->ss,    [HSK_DS] = &r->ds,
        [HSK_FS] = &r->fs, [HSK_GS] = &r->gs, [HSK_LDTR] = &r->ldt, [HSK_TR] = &r->tr,
    };

    return all[i];
}

/* --- MSRs --- */

enum { MSR_SPEC_CTRL = 0x48, MSR_ARCH_CAPABILITIES = 0x10a };

struct msr_field {
    uint32_t msr;
    uint32_t offset;
};
#define M(msr, field)                                                                              \
    {                                                                                              \
        msr, offsetof(struct hsk_cpu_state, field)                                                 \
    }
static const struct msr_field msr_fields[] = {
    M(0xc0000081, star),
    M(0xc0000082, lstar),
    M(0xc0000083, cstar),
    M(0xc0000084, sfmask),
    M(0xc0000102, kernel_gs_base),
    M(0x174, sysenter_cs),
    M(0x175, sysenter_esp),
    M(0x176, sysenter_eip),
    M(0x277, pat),
    M(0x3b, tsc_adjust),
    M(0xc0000103, tsc_aux),
    M(0x1a0, misc_enable),
    M(MSR_SPEC_CTRL, spec_ctrl),
    M(0x17a, mcg_status),
    M(0x2ff, mtrr_def_type),
    M(0x250, mtrr_fixed[0]),
    M(0x258, mtrr_fixed[1]),
    M(0x259, mtrr_fixed[2]),
    M(0x268, mtrr_fixed[3]),
    M(0x269, mtrr_fixed[4]),
    M(0x26a, mtrr_fixed[5]),
    M(0x26b, mtrr_fixed[6]),
    M(0x26c, mtrr_fixed[7]),
    M(0x26d, mtrr_fixed[8]),
    M(0x26e, mtrr_fixed[9]),
    M(0x26f, mtrr_fixed[10]),
    M(0x200, mtrr_var[0]),
    M(0x201, mtrr_var[1]),
    M(0x202, mtrr_var[2]),
    M(0x203, mtrr_var[3]),
    M(0x204, mtrr_var[4]),
    M(0x205, mtrr_var[5]),
    M(0x206, mtrr_var[6]),
    M(0x207, mtrr_var[7]),
    M(0x208, mtrr_var[8]),
    M(0x209, mtrr_var[9]),
    M(0x20a, mtrr_var[10]),
    M(0x20b, mtrr_var[11]),
    M(0x20c, mtrr_var[12]),
    M(0x20d, mtrr_var[13]),
    M(0x20e, mtrr_var[14]),
    M(0x20f, mtrr_var[15]),
    M(0x4b564d05, kvm_poll_control),
    M(0x4b564d02, kvm_async_pf_en),
    M(0x4b564d06, kvm_async_pf_int),
    M(0x4b564d03, kvm_steal_time),
    M(0x4b564d04, kvm_pv_eoi),
    M(0x4b564d01, kvm_system_time), /* last: KVM fills the guest's clock page from the TSC */
};

union one_msr {
    struct kvm_msrs m;
    uint8_t bytes[sizeof(struct kvm_msrs) + sizeof(struct kvm_msr_entry)];
};

static bool set_msr(struct kvm_vcpu *k, uint32_t msr, uint64_t value)
{
    union one_msr one = {.m.nmsrs = 1};

    one.m.entries[0] = (struct kvm_msr_entry){.index = msr, .data = value};
    return ioctl(k->fd, KVM_SET_MSRS, &one) == 1;
}

static bool get_msr(struct kvm_vcpu *k, uint32_t msr, uint64_t *value)
{
    union one_msr one = {.m.nmsrs = 1};

    one.m.entries[0].index = msr;
    if (ioctl(k->fd, KVM_GET_MSRS, &one) != 1)
        return false;
    *value = one.m.entries[0].data;
    return true;
}

static uint64_t *field_of(struct hsk_cpu_state *s, const struct msr_field *f)
{
    return (uint64_t *)(void *)((uint8_t *)s + f->offset);
}

static bool set_msrs(struct kvm_vcpu *k, const struct hsk_cpu_state *s, GError **error)
{
    struct hsk_cpu_state reset;

    hsk_cpu_state_reset(&reset, 0);
    k->own_spec_ctrl = false;
    for (unsigned i = 0; i < G_N_ELEMENTS(msr_fields); i++) {
        const uint64_t value =
            *(const uint64_t *)(const void *)((const uint8_t *)s + msr_fields[i].offset);

        if (set_msr(k, msr_fields[i].msr, value) || value == *field_of(&reset, &msr_fields[i]))
            continue;
        if (msr_fields[i].msr == MSR_SPEC_CTRL) {
            k->own_spec_ctrl = true;
            continue;
        }
        g_set_error(error, HSK_ERROR, HSK_ERROR_UNSUPPORTED,
                    "KVM on this computer refuses the value 0x%llx of MSR 0x%x.",
                    (unsigned long long)value, msr_fields[i].msr);
        return false;
    }
    return true;
}

/* --- the guest's TSC follows the machine's clock --- */

void kvm_sync_tsc(struct kvm_vcpu *k)
{
    const struct hsk_clock *clock = k->base.engine->cfg.clock;
    const struct hsk_clock_tsc_params *p = hsk_clock_tsc_params(clock);
    uint64_t adjust = 0;

    if (!memcmp(p, &k->tsc, sizeof(*p)))
        return;
    k->tsc = *p;
    if (k->leaps != hsk_clock_leaps(clock)) {
        k->leaps = hsk_clock_leaps(clock);
        ioctl(k->fd, KVM_KVMCLOCK_CTRL, 0); /* a guest that has no kvm-clock refuses */
    }
    if (k->base.index == 0) {
        /* kvm-clock stands still with the machine, too */
        struct kvm_clock_data now = {.clock = hsk_clock_ns(clock)};

        ioctl(kvm_engine_of(&k->base)->vm_fd, KVM_SET_CLOCK, &now);
    }
    get_msr(k, 0x3b, &adjust);
    if (p->mult == 1ull << 32) {
        uint64_t offset = p->guest_base - p->host_base + adjust;
        struct kvm_device_attr attr = {
            .group = KVM_VCPU_TSC_CTRL, .attr = KVM_VCPU_TSC_OFFSET, .addr = (uintptr_t)&offset};

        if (ioctl(k->fd, KVM_SET_DEVICE_ATTR, &attr) == 0)
            return;
    } else {
        /* without TSC scaling KVM refuses, and the guest's rate is the host's; kvm-clock still
         * tells it the time */
        ioctl(k->fd, KVM_SET_TSC_KHZ, (unsigned long)(hsk_clock_tsc_hz(clock) / 1000));
    }
    set_msr(k, 0x10, hsk_clock_tsc(clock) + adjust);
}

/* --- XSAVE, events --- */

static bool set_xsave(struct kvm_vcpu *k, const struct hsk_cpu_state *s)
{
    struct kvm_xcrs xcrs = {.nr_xcrs = 1, .xcrs = {{.xcr = 0, .value = s->xcr0}}};
    struct kvm_xsave x = {0};

    memcpy(x.region, s->xsave, HSK_XSAVE_SIZE);
    if (ioctl(k->fd, KVM_SET_XCRS, &xcrs) < 0 && s->xcr0 != HSK_XCR0_X87)
        return false;
    return ioctl(k->fd, KVM_SET_XSAVE, &x) == 0;
}

static void get_xsave(struct kvm_vcpu *k, struct hsk_cpu_state *s)
{
    struct kvm_xcrs xcrs = {0};
    struct kvm_xsave x = {0};

    hsk_assert(ioctl(k->fd, KVM_GET_XSAVE, &x) == 0);
    memcpy(s->xsave, x.region, HSK_XSAVE_SIZE);
    /* The model has three components; the header beyond XSTATE_BV says only how the kernel keeps
     * them. */
    hsk_put64(s->xsave + HSK_XSAVE_HEADER, hsk_get64(s->xsave + HSK_XSAVE_HEADER) & HSK_XCR0_ALL);
    memset(s->xsave + HSK_XSAVE_HEADER + 8, 0, 56);
    memset(s->xsave + HSK_XSAVE_END, 0, HSK_XSAVE_SIZE - HSK_XSAVE_END);
    s->xcr0 = HSK_XCR0_X87;
    if (ioctl(k->fd, KVM_GET_XCRS, &xcrs) == 0 && xcrs.nr_xcrs > 0)
        s->xcr0 = xcrs.xcrs[0].value;
}

static bool set_events(struct kvm_vcpu *k, const struct hsk_cpu_state *s)
{
    struct kvm_vcpu_events e = {.flags =
                                    KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW};

    e.exception.injected = s->exception_pending != 0;
    e.exception.nr = (uint8_t)s->exception_vector;
    e.exception.has_error_code = s->exception_has_error != 0;
    e.exception.error_code = (uint32_t)s->exception_error;
    e.interrupt.injected = s->interrupt_pending != 0;
    e.interrupt.nr = (uint8_t)s->interrupt_vector;
    e.interrupt.shadow = s->interrupt_shadow == 1   ? KVM_X86_SHADOW_INT_STI
                         : s->interrupt_shadow == 2 ? KVM_X86_SHADOW_INT_MOV_SS
                                                    : 0;
    e.nmi.pending = s->nmi_pending != 0;
    e.nmi.masked = s->nmi_masked != 0;
    if (kvm_engine_of(&k->base)->event_payload)
        e.flags |= KVM_VCPUEVENT_VALID_PAYLOAD; /* none: CR2 and DR6 are set already */
    return ioctl(k->fd, KVM_SET_VCPU_EVENTS, &e) == 0;
}

static void get_events(struct kvm_vcpu *k, struct hsk_cpu_state *s)
{
    struct kvm_vcpu_events e = {0};

    hsk_assert(ioctl(k->fd, KVM_GET_VCPU_EVENTS, &e) == 0);
    s->exception_pending = e.exception.injected || e.exception.pending;
    if (s->exception_pending) {
        s->exception_vector = e.exception.nr & 31;
        s->exception_has_error = e.exception.has_error_code != 0;
        s->exception_error = e.exception.error_code;
        if (e.exception_has_payload)
            s->exception_payload = e.exception_payload;
        else if (e.exception.nr == 14)
            s->exception_payload = s->cr2;
    }
    s->interrupt_pending = e.interrupt.injected != 0;
    s->interrupt_vector = e.interrupt.injected ? e.interrupt.nr : 0;
    /* AMD processors do not tell the two apart and KVM reports both; STI is by far the commoner. */
    s->interrupt_shadow = e.interrupt.shadow & KVM_X86_SHADOW_INT_STI      ? 1
                          : e.interrupt.shadow & KVM_X86_SHADOW_INT_MOV_SS ? 2
                                                                           : 0;
    s->nmi_pending = e.nmi.pending || e.nmi.injected;
    s->nmi_masked = e.nmi.masked != 0;
}

/* --- registers --- */

/* In the order of enum hsk_gpr. */
static void order_gprs(struct kvm_regs *r, __u64 *out[16])
{
    __u64 *const all[16] = {&r->rax, &r->rcx, &r->rdx, &r->rbx, &r->rsp, &r->rbp, &r->rsi, &r->rdi,
                            &r->r8,  &r->r9,  &r->r10, &r->r11, &r->r12, &r->r13, &r->r14, &r->r15};

    memcpy(out, all, sizeof(all));
}

static bool set_regs(struct kvm_vcpu *k, const struct hsk_cpu_state *s)
{
    struct kvm_regs r = {.rip = s->rip, .rflags = s->rflags};
    __u64 *gpr[16];

    order_gprs(&r, gpr);
    for (unsigned i = 0; i < 16; i++)
        *gpr[i] = s->gpr[i];
    return ioctl(k->fd, KVM_SET_REGS, &r) == 0;
}

static void get_regs(struct kvm_vcpu *k, struct hsk_cpu_state *s)
{
    struct kvm_regs r = {0};
    __u64 *gpr[16];

    hsk_assert(ioctl(k->fd, KVM_GET_REGS, &r) == 0);
    order_gprs(&r, gpr);
    for (unsigned i = 0; i < 16; i++)
        s->gpr[i] = *gpr[i];
    s->rip = r.rip;
    s->rflags = r.rflags;
}

static bool set_sregs(struct kvm_vcpu *k, const struct hsk_cpu_state *s)
{
    struct kvm_sregs r = {
        .cr0 = s->cr0,
        .cr2 = s->cr2,
        .cr3 = s->cr3,
        .cr4 = s->cr4,
        .cr8 = s->cr8,
        .efer = s->efer,
        .gdt = {.base = s->gdtr.base, .limit = (uint16_t)s->gdtr.limit},
        .idt = {.base = s->idtr.base, .limit = (uint16_t)s->idtr.limit},
        .apic_base = k->base.lapic ? hsk_lapic_get_base(k->base.lapic) : 0xfee00900,
    };

    if (s->exception_pending && s->exception_vector == 14)
        r.cr2 = s->exception_payload;
    for (unsigned i = 0; i < HSK_NSEG; i++)
        *kvm_segment_at(&r, i) = to_kvm_segment(&s->seg[i], i != HSK_LDTR);
    return ioctl(k->fd, KVM_SET_SREGS, &r) == 0;
}

static void get_sregs(struct kvm_vcpu *k, struct hsk_cpu_state *s)
{
    struct kvm_sregs r = {0};

    hsk_assert(ioctl(k->fd, KVM_GET_SREGS, &r) == 0);
    s->cr0 = r.cr0;
    s->cr2 = r.cr2;
    s->cr3 = r.cr3;
    s->cr4 = r.cr4;
    s->cr8 = r.cr8;
    s->efer = r.efer;
    s->gdtr = (struct hsk_dtable){r.gdt.base, r.gdt.limit};
    s->idtr = (struct hsk_dtable){r.idt.base, r.idt.limit};
    for (unsigned i = 0; i < HSK_NSEG; i++)
        s->seg[i] = from_kvm_segment(kvm_segment_at(&r, i));
}

static bool set_debugregs(struct kvm_vcpu *k, const struct hsk_cpu_state *s)
{
    struct kvm_debugregs d = {
        .db = {s->dr[0], s->dr[1], s->dr[2], s->dr[3]}, .dr6 = s->dr[6], .dr7 = s->dr[7]};

    if (s->exception_pending && s->exception_vector == 1)
        d.dr6 |= s->exception_payload;
    return ioctl(k->fd, KVM_SET_DEBUGREGS, &d) == 0;
}

static void get_debugregs(struct kvm_vcpu *k, struct hsk_cpu_state *s)
{
    struct kvm_debugregs d = {0};

    hsk_assert(ioctl(k->fd, KVM_GET_DEBUGREGS, &d) == 0);
    memcpy(s->dr, d.db, sizeof(d.db));
    s->dr[6] = d.dr6;
    s->dr[7] = d.dr7;
}

/* --- the whole --- */

void kvm_get_state(struct hsk_vcpu *v, struct hsk_cpu_state *s)
{
    struct kvm_vcpu *k = kvm_vcpu_of(v);

    kvm_complete_io(k);
    *s = k->shadow; /* what KVM does not know */
    get_regs(k, s);
    get_sregs(k, s);
    get_xsave(k, s);
    get_events(k, s);
    get_debugregs(k, s);
    for (unsigned i = 0; i < G_N_ELEMENTS(msr_fields); i++)
        get_msr(k, msr_fields[i].msr, field_of(s, &msr_fields[i]));
    if (k->own_spec_ctrl)
        s->spec_ctrl = k->shadow.spec_ctrl;
    s->tsc = hsk_clock_tsc(v->engine->cfg.clock) + s->tsc_adjust;
    if (v->lapic)
        s->cr8 = hsk_lapic_get_cr8(v->lapic);
    if (s->activity != HSK_ACT_WAIT_SIPI)
        s->activity = k->shutdown ? HSK_ACT_SHUTDOWN : k->halted ? HSK_ACT_HALTED : HSK_ACT_RUN;
}

static bool refused(GError **error, const char *what)
{
    g_set_error(error, HSK_ERROR, HSK_ERROR_UNSUPPORTED,
                "KVM on this computer does not accept the machine's state (%s): %s.", what,
                g_strerror(errno));
    return false;
}

bool kvm_set_state(struct hsk_vcpu *v, const struct hsk_cpu_state *s, GError **error)
{
    struct kvm_vcpu *k = kvm_vcpu_of(v);

    if (!hsk_cpu_state_check(s, error))
        return false;
    kvm_complete_io(k);
    k->shadow = *s;
    k->halted = s->activity == HSK_ACT_HALTED;
    k->shutdown = s->activity == HSK_ACT_SHUTDOWN;
    k->run->if_flag = (s->rflags & HSK_FLAG_IF) != 0;
    k->run->ready_for_interrupt_injection = 0;
    if (!set_sregs(k, s))
        return refused(error, "segments and control registers");
    if (!set_xsave(k, s))
        return refused(error, "vector registers");
    if (!set_regs(k, s))
        return refused(error, "registers");
    memset(&k->tsc, 0, sizeof(k->tsc));
    kvm_sync_tsc(k);
    if (!set_msrs(k, s, error))
        return false;
    if (!set_debugregs(k, s))
        return refused(error, "debug registers");
    if (!set_events(k, s))
        return refused(error, "pending events");
    return true;
}

/* What KVM can give a guest, as far as hsk_cpuid_lacking() looks at it. */
static bool offered_by_kvm(struct kvm_engine *e, struct hsk_cpuid *out)
{
    const uint32_t max = 256;
    g_autofree struct kvm_cpuid2 *t = g_malloc0(sizeof(*t) + max * sizeof(t->entries[0]));

    memset(out, 0, sizeof(*out));
    t->nent = max;
    if (ioctl(e->fd, KVM_GET_SUPPORTED_CPUID, t) < 0)
        return false;
    for (uint32_t i = 0; i < t->nent && out->count < HSK_CPUID_MAX; i++) {
        const struct kvm_cpuid_entry2 *k = &t->entries[i];

        if (k->function == 1 || k->function == 7 || (k->function == 0xd && k->index == 1) ||
            k->function == 0x80000001)
            out->leaf[out->count++] = (struct hsk_cpuid_leaf){
                .leaf = k->function,
                .subleaf = k->index,
                .has_subleaf = (k->flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX) != 0,
                .eax = k->eax,
                .ebx = k->ebx,
                .ecx = k->ecx,
                .edx = k->edx};
    }
    return true;
}

bool kvm_check_model(struct kvm_engine *e, GError **error)
{
    const struct hsk_cpuid *c = e->base.cfg.cpuid;
    struct hsk_cpuid offered;
    const char *lacking;

    /* A KVM that only emulates stops with a sentence at what it does not know, but takes LZCNT and
     * TZCNT for BSR and BSF. */
    if (!hsk_kvm_virtualizes()) {
        if (!hsk_cpuid_has(c, "lzcnt") && !hsk_cpuid_has(c, "bmi1"))
            return true;
        g_set_error(error, HSK_ERROR, HSK_ERROR_UNSUPPORTED,
                    "KVM only emulates on this computer, and does so wrongly for the machine's "
                    "processor model (%s): use --engine soft or --cpu v2.",
                    c->model);
        return false;
    }
    if (!offered_by_kvm(e, &offered)) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_FAILED, "KVM does not say what it offers: %s.",
                    g_strerror(errno));
        return false;
    }
    lacking = hsk_cpuid_lacking(c, &offered);
    if (lacking) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_UNSUPPORTED,
                    "The machine's processor model (%s) has %s, which KVM on this computer lacks: "
                    "use --engine soft, or --cpu with "
                    ",-%s for a new machine.",
                    c->model, lacking, lacking);
        return false;
    }
    return true;
}

bool kvm_set_cpuid(struct kvm_vcpu *k, GError **error)
{
    const struct hsk_cpuid *c = k->base.engine->cfg.cpuid;
    g_autofree struct kvm_cpuid2 *t = g_malloc0(sizeof(*t) + HSK_CPUID_MAX * sizeof(t->entries[0]));

    t->nent = c->count;
    for (unsigned i = 0; i < c->count; i++) {
        const struct hsk_cpuid_leaf *l = &c->leaf[i];
        uint32_t out[4];

        hsk_cpuid_query(c, k->base.index, 0, HSK_XCR0_X87, l->leaf, l->subleaf, out);
        t->entries[i] = (struct kvm_cpuid_entry2){
            .function = l->leaf,
            .index = l->subleaf,
            .flags = l->has_subleaf ? KVM_CPUID_FLAG_SIGNIFCANT_INDEX : 0,
            .eax = out[0],
            .ebx = out[1],
            .ecx = out[2],
            .edx = out[3],
        };
    }
    if (ioctl(k->fd, KVM_SET_CPUID2, t) < 0) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_UNSUPPORTED,
                    "KVM on this computer does not accept the processor model %s: %s.", c->model,
                    g_strerror(errno));
        return false;
    }
    set_msr(k, MSR_ARCH_CAPABILITIES, HSK_ARCH_CAPABILITIES); /* an old KVM asks run.c instead */
    return true;
}
