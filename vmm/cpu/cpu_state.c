/* SPDX-License-Identifier: MIT */
/*
 * The canonical processor state: field table, power-on values, plausibility check, canonical form.
 *
 * Intel SDM vol. 3: 2 (control registers), 3.4 (segments), 10.1 (state after reset), vol. 1: 13
 * (XSAVE area). Threads: any; pure functions. Missing on purpose: SMM and nested virtualisation
 * state, neither of which the model offers.
 */
#include <vmm/cpu_bits.h>
#include <vmm/cpu_state.h>

#define F(m, ...)  HSK_F(struct hsk_cpu_state, m, __VA_ARGS__)
#define FA(m, ...) HSK_FA(struct hsk_cpu_state, m, __VA_ARGS__)
#define SEG_FIELD(label, index, m)                                                                 \
    {                                                                                              \
        .name = label "." #m, .offset = offsetof(struct hsk_cpu_state, seg[index].m),              \
        .elem = sizeof(((struct hsk_cpu_state *)0)->seg[index].m), .count = 1,                     \
    }
#define SEG(label, index)                                                                          \
    SEG_FIELD(label, index, base), SEG_FIELD(label, index, limit),                                 \
        SEG_FIELD(label, index, selector), SEG_FIELD(label, index, attr)

static const struct hsk_field cpu_fields[] = {
    FA(gpr),
    F(rip),
    F(rflags),
    SEG("es", HSK_ES),
    SEG("cs", HSK_CS),
    SEG("ss", HSK_SS),
    SEG("ds", HSK_DS),
    SEG("fs", HSK_FS),
    SEG("gs", HSK_GS),
    SEG("ldtr", HSK_LDTR),
    SEG("tr", HSK_TR),
    F(gdtr.base),
    F(gdtr.limit, .max = 0xffff),
    F(idtr.base),
    F(idtr.limit, .max = 0xffff),
    F(cr0),
    F(cr2),
    F(cr3),
    F(cr4),
    F(cr8, .max = 15),
    F(xcr0),
    FA(dr),
    F(efer),
    F(star),
    F(lstar),
    F(cstar),
    F(sfmask),
    F(kernel_gs_base),
    F(sysenter_cs),
    F(sysenter_esp),
    F(sysenter_eip),
    F(pat),
    F(tsc_adjust),
    F(tsc_aux),
    F(misc_enable),
    F(spec_ctrl),
    F(mtrr_def_type),
    FA(mtrr_fixed),
    FA(mtrr_var),
    F(mcg_status),
    F(kvm_system_time),
    F(kvm_wall_clock),
    F(kvm_poll_control),
    F(kvm_steal_time),
    F(kvm_async_pf_en),
    F(kvm_async_pf_int),
    F(kvm_pv_eoi),
    F(tsc),
    F(activity, .max = HSK_ACT_SHUTDOWN),
    F(exception_pending, .max = 1),
    F(exception_vector, .max = 31),
    F(exception_has_error, .max = 1),
    F(exception_error),
    F(exception_payload),
    F(interrupt_shadow, .max = 2),
    F(nmi_pending, .max = 1),
    F(nmi_masked, .max = 1),
    F(interrupt_pending, .max = 1),
    F(interrupt_vector, .max = 255),
    F(sipi_vector, .max = 255),
    FA(reserved),
    FA(xsave),
};

const struct hsk_state_desc hsk_cpu_state_desc = {
    "cpu", 1, sizeof(struct hsk_cpu_state), cpu_fields, G_N_ELEMENTS(cpu_fields),
};

/* The initial configuration of the XSAVE components (SDM vol. 1, 13.6). */
static void xsave_init(uint8_t *x)
{
    memset(x, 0, HSK_XSAVE_SIZE);
    hsk_put16(x + HSK_XSAVE_FCW, 0x37f);
    hsk_put32(x + HSK_XSAVE_MXCSR, 0x1f80);
    hsk_put32(x + HSK_XSAVE_MXCSR_MASK, HSK_MXCSR_VALID);
}

void hsk_cpu_state_reset(struct hsk_cpu_state *s, unsigned index)
{
    memset(s, 0, sizeof(*s));
    s->rip = 0xfff0;
    s->rflags = HSK_FLAG_FIXED;
    s->gpr[HSK_RDX] = HSK_CPU_SIGNATURE;
    for (unsigned i = HSK_ES; i <= HSK_GS; i++)
        s->seg[i] = (struct hsk_segment){.limit = 0xffff, .attr = HSK_SEG_P | HSK_SEG_S | 3};
    s->seg[HSK_CS] = (struct hsk_segment){.base = 0xffff0000,
                                          .limit = 0xffff,
                                          .selector = 0xf000,
                                          .attr = HSK_SEG_P | HSK_SEG_S | 0xb};
    s->seg[HSK_LDTR] = (struct hsk_segment){.limit = 0xffff, .attr = HSK_SEG_P | 2};
    s->seg[HSK_TR] = (struct hsk_segment){.limit = 0xffff, .attr = HSK_SEG_P | 0xb};
    s->gdtr.limit = 0xffff;
    s->idtr.limit = 0xffff;
    s->cr0 = HSK_CR0_CD | HSK_CR0_NW | HSK_CR0_ET;
    s->xcr0 = HSK_XCR0_X87;
    s->dr[6] = HSK_DR6_FIXED;
    s->dr[7] = HSK_DR7_FIXED;
    s->pat = 0x0007040600070406;
    s->misc_enable = HSK_MISC_ENABLE_RESET;
    s->activity = index == 0 ? HSK_ACT_RUN : HSK_ACT_WAIT_SIPI;
    /* As after FNINIT: the 0x40 that the SDM gives as power-on control word is never relied on, and
     * KVM starts so too. */
    xsave_init(s->xsave);
}

/* SDM vol. 3, table 10-1: INIT leaves the FPU, the caches' control, the TSC and model-specific
 * registers alone. */
void hsk_cpu_state_init(struct hsk_cpu_state *s, unsigned index)
{
    struct hsk_cpu_state *fresh = g_aligned_alloc0(1, sizeof *fresh, 64);

    hsk_cpu_state_reset(fresh, index);
    memcpy(s->gpr, fresh->gpr, sizeof s->gpr);
    memcpy(s->seg, fresh->seg, sizeof s->seg);
    memcpy(s->dr, fresh->dr, sizeof s->dr);
    s->rip = fresh->rip;
    s->rflags = fresh->rflags;
    s->gdtr = fresh->gdtr;
    s->idtr = fresh->idtr;
    s->cr0 = HSK_CR0_ET | (s->cr0 & (HSK_CR0_CD | HSK_CR0_NW));
    s->cr2 = s->cr3 = s->cr4 = s->cr8 = s->efer = 0;
    s->kvm_system_time =
        0; /* as KVM does: the guest's structure may be about to become something else */
    s->activity = fresh->activity;
    s->exception_pending = s->interrupt_pending = s->nmi_pending = s->nmi_masked =
        s->interrupt_shadow = 0;
    g_aligned_free(fresh);
}

void hsk_cpu_state_sipi(struct hsk_cpu_state *s, uint8_t vector)
{
    s->seg[HSK_CS].selector = (uint16_t)(vector << 8);
    s->seg[HSK_CS].base = (uint64_t)vector << 12;
    s->rip = 0;
    s->activity = HSK_ACT_RUN;
}

static bool refuse(GError **error, const char *what)
{
    g_set_error(error, HSK_ERROR, HSK_ERROR_DAMAGED,
                "The saved processor state is damaged: %s is not possible.", what);
    return false;
}

static bool check_control(const struct hsk_cpu_state *s, GError **error)
{
    if ((s->cr0 & ~HSK_CR0_VALID) || !(s->cr0 & HSK_CR0_ET) ||
        ((s->cr0 & HSK_CR0_PG) && !(s->cr0 & HSK_CR0_PE)) ||
        ((s->cr0 & HSK_CR0_NW) && !(s->cr0 & HSK_CR0_CD)))
        return refuse(error, "this CR0");
    if (s->cr4 & ~HSK_CR4_VALID)
        return refuse(error, "this CR4");
    if (s->efer & ~HSK_EFER_VALID)
        return refuse(error, "this EFER");
    if (!!(s->efer & HSK_EFER_LMA) != ((s->efer & HSK_EFER_LME) && (s->cr0 & HSK_CR0_PG)))
        return refuse(error, "EFER.LMA against EFER.LME and CR0.PG");
    if ((s->efer & HSK_EFER_LMA) && !(s->cr4 & HSK_CR4_PAE))
        return refuse(error, "long mode without CR4.PAE");
    if ((s->cr4 & HSK_CR4_PCIDE) && !(s->efer & HSK_EFER_LMA))
        return refuse(error, "CR4.PCIDE outside of long mode");
    if (s->cr3 >> HSK_PHYS_BITS)
        return refuse(error, "this CR3");
    if (!hsk_xcr0_valid(s->xcr0))
        return refuse(error, "this XCR0");
    if (s->cr8 > 15 || (s->dr[6] >> 32) || (s->dr[7] >> 32) || s->dr[4] || s->dr[5])
        return refuse(error, "CR8 or a debug register");
    if (!hsk_pat_valid(s->pat))
        return refuse(error, "this PAT");
    return true;
}

static bool check_segments(const struct hsk_cpu_state *s, GError **error)
{
    const uint16_t cs = s->seg[HSK_CS].attr;
    const bool lma = s->efer & HSK_EFER_LMA;

    for (unsigned i = 0; i < HSK_NSEG; i++) {
        const struct hsk_segment *g = &s->seg[i];
        const bool wide = i == HSK_FS || i == HSK_GS || i == HSK_LDTR || i == HSK_TR;

        if (g->attr & ~HSK_SEG_ATTR_VALID)
            return refuse(error, "a segment's attribute");
        if (wide ? !hsk_canonical(g->base) : g->base >> 32)
            return refuse(error, "a segment's base");
    }
    if (!hsk_canonical(s->gdtr.base) || !hsk_canonical(s->idtr.base) || s->gdtr.limit > 0xffff ||
        s->idtr.limit > 0xffff)
        return refuse(error, "GDTR or IDTR");
    if (!(cs & HSK_SEG_P) || !(cs & HSK_SEG_S))
        return refuse(error, "CS");
    if (lma && (cs & HSK_SEG_L) && (cs & HSK_SEG_DB))
        return refuse(error, "CS with both L and D");
    if (!hsk_canonical(s->rip) || (!(lma && (cs & HSK_SEG_L)) && s->rip >> 32))
        return refuse(error, "this RIP");
    return true;
}

static bool check_xsave(const struct hsk_cpu_state *s, GError **error)
{
    const uint8_t *header = s->xsave + HSK_XSAVE_HEADER;

    if (hsk_get64(header) & ~(uint64_t)HSK_XCR0_ALL)
        return refuse(error, "XSTATE_BV");
    for (unsigned i = 8; i < 64; i++)
        if (header[i])
            return refuse(error, "the XSAVE header");
    if (hsk_get32(s->xsave + HSK_XSAVE_MXCSR) & ~HSK_MXCSR_VALID)
        return refuse(error, "MXCSR");
    return true;
}

bool hsk_cpu_state_check(const struct hsk_cpu_state *s, GError **error)
{
    const uint64_t msr_addresses[] = {s->lstar, s->cstar, s->kernel_gs_base, s->sysenter_esp,
                                      s->sysenter_eip};

    if ((s->rflags & ~HSK_FLAG_VALID) || !(s->rflags & HSK_FLAG_FIXED) ||
        ((s->rflags & HSK_FLAG_VM) && ((s->efer & HSK_EFER_LMA) || !(s->cr0 & HSK_CR0_PE))))
        return refuse(error, "RFLAGS");
    for (unsigned i = 0; i < G_N_ELEMENTS(msr_addresses); i++)
        if (!hsk_canonical(msr_addresses[i]))
            return refuse(error, "an address in an MSR");
    if ((s->sfmask >> 32) || (s->tsc_aux >> 32) || (s->spec_ctrl & ~(uint64_t)HSK_SPEC_CTRL_VALID))
        return refuse(error, "an MSR");
    if (s->activity > HSK_ACT_SHUTDOWN || s->exception_pending > 1 || s->exception_vector > 31 ||
        s->exception_has_error > 1 || s->interrupt_shadow > 2 || s->nmi_pending > 1 ||
        s->nmi_masked > 1 || s->interrupt_pending > 1 || s->interrupt_vector > 255 ||
        s->sipi_vector > 255 || (s->exception_error >> 32))
        return refuse(error, "a pending event");
    if (s->reserved[0] || s->reserved[1])
        return refuse(error, "a reserved field");
    return check_control(s, error) && check_segments(s, error) && check_xsave(s, error);
}

/* Components not in XSTATE_BV are in their initial configuration, and those that are in it leave
 * XSTATE_BV. */
static void canonicalise_xsave(uint8_t *x)
{
    uint8_t init[HSK_XSAVE_SIZE];
    uint64_t bv = hsk_get64(x + HSK_XSAVE_HEADER);

    xsave_init(init);
    hsk_put32(x + HSK_XSAVE_MXCSR_MASK, HSK_MXCSR_VALID);
    memset(x + HSK_XSAVE_LEGACY_END, 0, HSK_XSAVE_HEADER - HSK_XSAVE_LEGACY_END);
    if (!(bv & HSK_XCR0_X87)) {
        memcpy(x, init, HSK_XSAVE_MXCSR);
        memcpy(x + HSK_XSAVE_ST0, init + HSK_XSAVE_ST0, HSK_XSAVE_XMM0 - HSK_XSAVE_ST0);
    }
    if (!(bv & HSK_XCR0_SSE))
        memset(x + HSK_XSAVE_XMM0, 0, HSK_XSAVE_LEGACY_END - HSK_XSAVE_XMM0);
    if (!(bv & HSK_XCR0_AVX))
        memset(x + HSK_XSAVE_YMM, 0, 256);
    /* The last x87 opcode and instruction pointers are the host's under the software engine; nobody
     * may depend on them. */
    memset(x + HSK_XSAVE_FOP, 0, HSK_XSAVE_MXCSR - HSK_XSAVE_FOP);
    for (unsigned i = 0; i < 8; i++)
        memset(x + HSK_XSAVE_ST0 + 16 * i + 10, 0, 6);

    bv = 0;
    if (memcmp(x, init, HSK_XSAVE_MXCSR) ||
        memcmp(x + HSK_XSAVE_ST0, init + HSK_XSAVE_ST0, HSK_XSAVE_XMM0 - HSK_XSAVE_ST0))
        bv |= HSK_XCR0_X87;
    if (memcmp(x + HSK_XSAVE_XMM0, init + HSK_XSAVE_XMM0, HSK_XSAVE_LEGACY_END - HSK_XSAVE_XMM0))
        bv |= HSK_XCR0_SSE;
    if (memcmp(x + HSK_XSAVE_YMM, init + HSK_XSAVE_YMM, 256))
        bv |= HSK_XCR0_AVX;
    hsk_put64(x + HSK_XSAVE_HEADER, bv);
    memset(x + HSK_XSAVE_HEADER + 8, 0, 56);
    memset(x + HSK_XSAVE_YMM + 256, 0, HSK_XSAVE_SIZE - HSK_XSAVE_YMM - 256);
}

void hsk_cpu_state_canonicalise(struct hsk_cpu_state *s)
{
    for (unsigned i = 0; i < HSK_NSEG; i++) {
        struct hsk_segment *g = &s->seg[i];

        if (!(g->attr & HSK_SEG_P)) {
            /* Loading a null selector leaves the hidden part to the implementation, but for the
             * 64-bit FS and GS bases. */
            if (i != HSK_FS && i != HSK_GS)
                g->base = 0;
            g->limit = 0;
            g->attr = 0;
        } else if (g->attr & HSK_SEG_S) {
            g->attr |= 1;
        }
    }
    s->rflags |= HSK_FLAG_FIXED;
    s->cr0 |= HSK_CR0_ET;
    s->dr[6] = (s->dr[6] | HSK_DR6_FIXED) & HSK_DR6_VALID;
    s->dr[7] = (s->dr[7] | HSK_DR7_FIXED) & 0xffffffff;
    s->tsc = 0;
    if (!s->exception_pending) {
        s->exception_vector = s->exception_has_error = 0;
        s->exception_error = s->exception_payload = 0;
    }
    if (!s->interrupt_pending)
        s->interrupt_vector = 0;
    canonicalise_xsave(s->xsave);
}
