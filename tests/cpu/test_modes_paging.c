/* SPDX-License-Identifier: MIT */
/*
 * Address translation (SDM vol. 3, 4): 32-bit, PAE and 4-level paging, with every reason for a page
 * fault and its error code, the accessed and dirty bits, large pages; and what a processor refuses
 * in CR0, CR3, CR4, CR8, EFER and other MSRs.
 */
#include "mode_guest.h"

enum { P = 1, W = 2, U = 4, A = 0x20, D = 0x40, PS = 0x80 };
#define NX (1ull << 63)
/* page fault error code */
enum { E_P = 1, E_W = 2, E_U = 4, E_R = 8, E_I = 16 };

enum { TEST_PT = 0x4000, TEST_PD = 0x5000, TEST_PDPT = 0xc000, OFFSET = 0x123 };
enum format { BITS32, PAE, LONG };
enum access { LOAD, STORE, FETCH };

/* The same bytes in 32-bit and 64-bit code; EBX or RBX has the address. */
CODE32(load, "mov (%ebx), %eax\nud2");
CODE32(store, "movl $1, (%ebx)\nud2");
CODE32(fetch, "jmp *%ebx");

struct walk {
    const char *name;
    enum format format;
    unsigned ring;
    enum access access;
    uint64_t cr0, cr4, efer;
    uint64_t top, pdpte, pde, pte; /* of the way to the page; 0: present, writable, user; 1: not
                                      present; top of PAE: its PDPTE */
    int error;                     /* -1: it works */
    uint64_t a_d;                  /* accessed and dirty bits of the leaf afterwards */
};

static uint64_t or_default(uint64_t e, uint64_t usual)
{
    return e == 0 ? usual : e == 1 ? 0 : e;
}

static void identity(struct rig *r, const struct walk *w)
{
    const unsigned user = w->ring ? U : 0;

    memset(r->mem + AT_CR3, 0, 0x1000);
    memset(r->mem + AT_PT, 0, 0x1000);
    if (w->format == BITS32) {
        hsk_put32(r->mem + AT_CR3, AT_PT | P | W | user);
        for (unsigned i = 0; i < 1024; i++)
            hsk_put32(r->mem + AT_PT + 4 * i, i << 12 | P | W | user);
        return;
    }
    for (unsigned i = 0; i < 2; i++)
        hsk_put64(r->mem + AT_PT + 8 * i, 0x200000 * i | P | W | user | PS);
    hsk_put64(r->mem + (w->format == LONG ? AT_PDPT : AT_CR3),
              AT_PT | P | (w->format == LONG ? W | user : 0));
    if (w->format == LONG)
        hsk_put64(r->mem + AT_CR3, AT_PDPT | P | W | user);
}

/* Returns the address to be tried. */
static uint64_t way(struct rig *r, const struct walk *w)
{
    const uint64_t pte = or_default(w->pte, AT_DATA | P | W | U),
                   pde = or_default(w->pde, TEST_PT | P | W | U);

    identity(r, w);
    if (w->format == BITS32) {
        hsk_put32(r->mem + AT_CR3 + 4 * 2, (uint32_t)pde);
        hsk_put32(r->mem + TEST_PT, (uint32_t)pte);
        return 0x800000 + OFFSET;
    }
    hsk_put64(r->mem + TEST_PT, pte);
    hsk_put64(r->mem + TEST_PD, pde);
    if (w->format == PAE) {
        hsk_put64(r->mem + AT_CR3 + 8, or_default(w->top, TEST_PD | P));
        return 0x40000000 + OFFSET;
    }
    hsk_put64(r->mem + TEST_PDPT, or_default(w->pdpte, TEST_PD | P | W | U));
    hsk_put64(r->mem + AT_CR3 + 8, or_default(w->top, TEST_PDPT | P | W | U));
    return 0x8000000000 + OFFSET;
}

static uint64_t leaf(const struct rig *r, const struct walk *w)
{
    if (w->format == BITS32)
        return hsk_get32(r->mem + (w->pde & PS && w->cr4 & HSK_CR4_PSE ? AT_CR3 + 4 * 2 : TEST_PT));
    return hsk_get64(r->mem + (w->pdpte & PS ? TEST_PDPT : w->pde & PS ? TEST_PD : TEST_PT));
}

static void prepare(struct rig *r, const struct walk *w)
{
    if (w->format == LONG)
        long_mode(r);
    else
        protected_mode(r);
    if (w->ring) {
        user_ring(r);
        if (w->format == LONG)
            r->s.seg[HSK_CS] = segment(get_desc(r, SEL_UCODE64), SEL_UCODE64);
    }
    r->s.gpr[HSK_RBX] = way(r, w);
    r->s.cr0 |= HSK_CR0_PG | w->cr0;
    if (w->format == LONG)
        r->s.cr0 = (r->s.cr0 & ~HSK_CR0_WP) | w->cr0;
    r->s.cr3 = AT_CR3;
    r->s.cr4 = (w->format == BITS32 ? 0 : HSK_CR4_PAE) | w->cr4;
    r->s.efer = (w->format == LONG ? HSK_EFER_LME | HSK_EFER_LMA : 0) | w->efer;
    hsk_put16(r->mem + AT_DATA + OFFSET, 0x0b0f); /* what FETCH finds */
    hsk_put16(r->mem + OFFSET, 0x0b0f);           /* in a large page at 0 */
}

static void run_walk(struct rig *r, const void *row)
{
    const struct walk *w = row;
    const unsigned size = w->format == LONG ? 8 : 4;
    uint64_t va;

    prepare(r, w);
    va = r->s.gpr[HSK_RBX];
    if (w->access == LOAD)
        put_code(r, load, load_end);
    else if (w->access == STORE)
        put_code(r, store, store_end);
    else
        put_code(r, fetch, fetch_end);
    run_to(r, w->name, HSK_EXIT_HALT);
    EXPECT(r, w->name, vector_of(r), w->error < 0 ? 6 : 14);
    if (w->error >= 0) {
        EXPECT(r, w->name, stacked(r, 0, size), (unsigned)w->error);
        EXPECT(r, w->name, r->s.cr2, va);
    } else if (w->access == FETCH) {
        EXPECT(r, w->name, stacked(r, 0, size), va);
    }
    EXPECT(r, w->name, leaf(r, w) & (A | D), w->a_d);
}

static void run_walks(struct rig *r, const struct walk *walks, size_t n)
{
    for (size_t i = 0; i < n; i++)
        try_row(r, walks[i].name, run_walk, &walks[i]);
    end_of_rows(r);
}

/* --- 32-bit paging --- */

static void walks_32(void **state)
{
    static const struct walk walks[] = {
        {"load", BITS32, 3, LOAD, .error = -1, .a_d = A},
        {"store", BITS32, 3, STORE, .error = -1, .a_d = A | D},
        {"fetch", BITS32, 3, FETCH, .error = -1, .a_d = A},
        {"load absent", BITS32, 3, LOAD, .pte = 1, .error = E_U},
        {"load absent table", BITS32, 0, LOAD, .pde = 1, .error = 0},
        {"store absent", BITS32, 3, STORE, .pte = 1, .error = E_U | E_W},
        {"fetch absent", BITS32, 3, FETCH, .pte = 1, .error = E_U}, /* I/D only with SMEP or NXE */
        {"fetch absent, NXE without PAE", BITS32, 3, FETCH, .pte = 1, .efer = HSK_EFER_NXE,
         .error = E_U},
        {"fetch absent, SMEP", BITS32, 0, FETCH, .pte = 1, .cr4 = HSK_CR4_SMEP, .error = E_I},
        {"supervisor page", BITS32, 3, LOAD, .pte = AT_DATA | P | W, .error = E_U | E_P},
        {"supervisor table", BITS32, 3, LOAD, .pde = TEST_PT | P | W, .error = E_U | E_P},
        {"supervisor page in ring 0", BITS32, 0, STORE, .pte = AT_DATA | P | W, .error = -1,
         .a_d = A | D},
        {"read-only page", BITS32, 3, STORE, .pte = AT_DATA | P | U, .error = E_U | E_W | E_P},
        {"read-only table", BITS32, 3, STORE, .pde = TEST_PT | P | U, .error = E_U | E_W | E_P},
        {"read-only in ring 0", BITS32, 0, STORE, .pte = AT_DATA | P, .error = -1, .a_d = A | D},
        {"read-only in ring 0, WP", BITS32, 0, STORE, .cr0 = HSK_CR0_WP, .pte = AT_DATA | P,
         .error = E_W | E_P},
        {"read-only user page in ring 0, WP", BITS32, 0, LOAD, .cr0 = HSK_CR0_WP,
         .pte = AT_DATA | P | U, .error = -1, .a_d = A},
        {"SMEP", BITS32, 0, FETCH, .cr4 = HSK_CR4_SMEP, .error = E_P | E_I},
        {"SMEP, supervisor table", BITS32, 0, FETCH, .cr4 = HSK_CR4_SMEP, .pde = TEST_PT | P | W,
         .error = -1, .a_d = A},
        {"SMAP", BITS32, 0, LOAD, .cr4 = HSK_CR4_SMAP, .error = E_P},
        {"SMAP, store", BITS32, 0, STORE, .cr4 = HSK_CR4_SMAP, .error = E_P | E_W},
        {"SMAP, fetch", BITS32, 0, FETCH, .cr4 = HSK_CR4_SMAP, .error = -1, .a_d = A},
        {"4 MiB", BITS32, 3, STORE, .cr4 = HSK_CR4_PSE, .pde = P | W | U | PS, .error = -1,
         .a_d = A | D},
        {"4 MiB without PSE", BITS32, 3, STORE, .pde = TEST_PT | P | W | U | PS, .error = -1,
         .a_d = A | D},
        {"4 MiB, reserved bit", BITS32, 3, LOAD, .cr4 = HSK_CR4_PSE,
         .pde = P | W | U | PS | 1 << 21, .error = E_U | E_P | E_R},
        {"4 MiB, address too wide", BITS32, 0, STORE, .cr4 = HSK_CR4_PSE,
         .pde = P | W | U | PS | 1 << 20, .error = E_W | E_P | E_R},
        {"4 MiB, supervisor", BITS32, 3, LOAD, .cr4 = HSK_CR4_PSE, .pde = P | W | PS,
         .error = E_U | E_P},
    };

    run_walks(rig_begin(state), walks, G_N_ELEMENTS(walks));
}

/* --- PAE --- */

static void walks_pae(void **state)
{
    static const struct walk walks[] = {
        {"load", PAE, 3, LOAD, .error = -1, .a_d = A},
        {"store", PAE, 3, STORE, .error = -1, .a_d = A | D},
        {"absent top", PAE, 3, LOAD, .top = 1, .error = E_U},
        {"absent table", PAE, 3, STORE, .pde = 1, .error = E_U | E_W},
        {"read-only", PAE, 3, STORE, .pte = AT_DATA | P | U, .error = E_U | E_W | E_P},
        {"NX without NXE", PAE, 3, LOAD, .pte = NX | AT_DATA | P | W | U, .error = E_U | E_P | E_R},
        {"NX in the table without NXE", PAE, 3, FETCH, .pde = NX | TEST_PT | P | W | U,
         .error = E_U | E_P | E_R},
        {"NX", PAE, 3, FETCH, .efer = HSK_EFER_NXE, .pte = NX | AT_DATA | P | W | U,
         .error = E_U | E_P | E_I},
        {"NX of the table", PAE, 3, FETCH, .efer = HSK_EFER_NXE, .pde = NX | TEST_PT | P | W | U,
         .error = E_U | E_P | E_I},
        {"NX, load", PAE, 3, LOAD, .efer = HSK_EFER_NXE, .pte = NX | AT_DATA | P | W | U,
         .error = -1, .a_d = A},
        {"absent, NXE", PAE, 0, FETCH, .efer = HSK_EFER_NXE, .pte = 1, .error = E_I},
        {"reserved address bit", PAE, 3, LOAD, .pte = 1ull << HSK_PHYS_BITS | AT_DATA | P | W | U,
         .error = E_U | E_P | E_R},
        {"bit 62", PAE, 3, LOAD, .pte = 1ull << 62 | AT_DATA | P | W | U, .error = E_U | E_P | E_R},
        {"bit 52 of the table", PAE, 3, LOAD, .pde = 1ull << 52 | TEST_PT | P | W | U,
         .error = E_U | E_P | E_R},
        {"2 MiB", PAE, 3, STORE, .pde = P | W | U | PS, .error = -1, .a_d = A | D},
        {"2 MiB, reserved bit", PAE, 3, STORE, .pde = P | W | U | PS | 1 << 13,
         .error = E_U | E_W | E_P | E_R},
    };

    run_walks(rig_begin(state), walks, G_N_ELEMENTS(walks));
}

/* --- 4-level paging --- */

static void walks_long(void **state)
{
    static const struct walk walks[] = {
        {"load", LONG, 3, LOAD, .error = -1, .a_d = A},
        {"store", LONG, 3, STORE, .error = -1, .a_d = A | D},
        {"absent top", LONG, 3, LOAD, .top = 1, .error = E_U},
        {"large top", LONG, 3, LOAD, .top = TEST_PDPT | P | W | U | PS, .error = E_U | E_P | E_R},
        {"supervisor top", LONG, 3, LOAD, .top = TEST_PDPT | P | W, .error = E_U | E_P},
        {"read-only top", LONG, 3, STORE, .top = TEST_PDPT | P | U, .error = E_U | E_W | E_P},
        {"absent third level", LONG, 0, STORE, .pdpte = 1, .error = E_W},
        {"1 GiB", LONG, 3, STORE, .pdpte = P | W | U | PS, .error = -1, .a_d = A | D},
        {"1 GiB, reserved bit", LONG, 3, STORE, .pdpte = P | W | U | PS | 1 << 29,
         .error = E_U | E_W | E_P | E_R},
        {"2 MiB, reserved bit", LONG, 3, STORE, .pde = P | W | U | PS | 1 << 20,
         .error = E_U | E_W | E_P | E_R},
        {"bits that are free", LONG, 3, LOAD, .pte = 0x7ffull << 52 | AT_DATA | P | W | U,
         .error = -1, .a_d = A},
        {"address too wide", LONG, 3, LOAD, .pte = 1ull << 51 | AT_DATA | P | W | U,
         .error = E_U | E_P | E_R},
        {"NX without NXE", LONG, 3, LOAD, .pte = NX | AT_DATA | P | W | U,
         .error = E_U | E_P | E_R},
        {"NX of the top", LONG, 3, FETCH, .efer = HSK_EFER_NXE, .top = NX | TEST_PDPT | P | W | U,
         .error = E_U | E_P | E_I},
        {"WP", LONG, 0, STORE, .cr0 = HSK_CR0_WP, .pte = AT_DATA | P, .error = E_W | E_P},
        {"no WP", LONG, 0, STORE, .pte = AT_DATA | P, .error = -1, .a_d = A | D},
    };

    run_walks(rig_begin(state), walks, G_N_ELEMENTS(walks));
}

/* --- control registers and MSRs --- */

CODE32(cr0_32, "mov %ebx, %cr0\nud2");
CODE32(cr3_32, "mov %ebx, %cr3\nud2");
CODE32(cr4_32, "mov %ebx, %cr4\nud2");
CODE64(cr0_64, "mov %rbx, %cr0\nud2");
CODE64(cr3_64, "mov %rbx, %cr3\nud2");
CODE64(cr4_64, "mov %rbx, %cr4\nud2");
CODE64(cr8_64, "mov %rbx, %cr8\nud2");
CODE64(dr6_64, "mov %rbx, %dr6\nud2");
CODE64(dr7_64, "mov %rbx, %dr7\nud2");
CODE64(wrmsr_, "mov %ebx, %eax\nmov %rbx, %rdx\nshr $32, %rdx\nwrmsr\nud2");
CODE32(wrmsr_32, "mov %ebx, %eax\nxor %edx, %edx\nwrmsr\nud2");
CODE64(xsetbv_, "mov %ebx, %eax\nxor %edx, %edx\nxsetbv\nud2");
CODE64(cr1_64, ".byte 0x0f, 0x22, 0xcb\nud2");
CODE64(dr4_64, "mov %rbx, %db4\nud2");
CODE64(lock_cr, ".byte 0xf0, 0x0f, 0x20, 0xc0\nud2");

struct refusal {
    const char *name;
    const uint8_t *code, *end;
    enum format format;
    uint64_t value;
    uint32_t msr;
    bool ok;
    uint64_t cr4; /* at the start, beside PAE */
    bool no_paging;
};
#define V(code) #code, code, code##_end

static void refusal_name(const struct refusal *c, char name[64])
{
    snprintf(name, 64, "%s %llx (%x)", c->name, (unsigned long long)c->value, c->msr);
}

static void run_refusal(struct rig *r, const void *row)
{
    const struct refusal *c = row;
    const struct walk w = {.format = c->format, .cr4 = c->cr4};
    char name[64];

    refusal_name(c, name);
    prepare(r, &w);
    if (c->no_paging) {
        r->s.cr0 &= ~HSK_CR0_PG;
        r->s.cr4 = c->cr4;
    }
    put_code(r, c->code, c->end);
    hsk_put64(r->mem + AT_DATA + 0x20, P | W); /* no PDPTE */
    r->s.gpr[HSK_RBX] = c->value;
    r->s.gpr[HSK_RCX] = c->msr;
    run_to(r, name, HSK_EXIT_HALT);
    EXPECT(r, name, vector_of(r), c->ok ? 6 : 13);
    if (c->ok)
        EXPECT(r, name, r->s.rip, AT_TRAPS + 16 * 6 + 1);
    else
        EXPECT(r, name, stacked(r, 0, 4), 0);
}

static void run_refusals(struct rig *r, const struct refusal *c, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        char name[64];

        refusal_name(&c[i], name);
        try_row(r, name, run_refusal, &c[i]);
    }
    end_of_rows(r);
}

#define ON (HSK_CR0_PE | HSK_CR0_PG | HSK_CR0_ET)

static void control_registers(void **state)
{
    static const struct refusal cases[] = {
        {V(cr0_32), BITS32, ON, 0, true},
        {V(cr0_32), BITS32, HSK_CR0_PG | HSK_CR0_ET, 0, false}, /* PG without PE */
        {V(cr0_32), BITS32, ON | HSK_CR0_NW, 0, false},         /* NW without CD */
        {V(cr0_32), BITS32, ON | HSK_CR0_NW | HSK_CR0_CD, 0, true},
        {V(cr0_32), BITS32, ON | 1 << 17, 0, true}, /* reserved bits are ignored */
        {V(cr0_64), LONG, ON | 1ull << 32, 0, false},
        {V(cr0_64), LONG, HSK_CR0_PE | HSK_CR0_ET, 0, false}, /* PG off in 64-bit code */
        {V(cr0_64), LONG, ON, 0, true},
        {V(cr3_32), BITS32, AT_CR3 | 0xfff, 0, true},
        {V(cr3_32), PAE, AT_CR3 | 0x1f, 0, true},
        {V(cr3_32), PAE, AT_DATA + 0x20, 0, false}, /* reserved bits in a PDPTE there */
        {V(cr3_64), LONG, AT_CR3 | 1ull << HSK_PHYS_BITS, 0, false},
        {V(cr3_64), LONG, AT_CR3 | 1ull << 63, 0, false},
        {V(cr3_64), LONG, AT_CR3 | 0x18, 0, true},
        {V(cr4_32), BITS32, HSK_CR4_PSE | HSK_CR4_VME | HSK_CR4_PVI, 0, true},
        {V(cr4_32), BITS32, 1u << 11, 0, false}, /* UMIP: not in the model */
        {V(cr4_32), BITS32, 1u << 13, 0, false}, /* VMXE */
        {V(cr4_32), BITS32, 1u << 31, 0, false},
        {V(cr4_32), BITS32, HSK_CR4_PCIDE, 0, false}, /* not in the model v2 */
        {V(cr4_64), LONG, 0, 0, false},               /* PAE off in long mode */
        {V(cr4_64), LONG, HSK_CR4_PAE | 1ull << 32, 0, false},
        {V(cr4_64), LONG, HSK_CR4_PAE | HSK_CR4_SMEP, 0, true},
        {V(cr8_64), LONG, 15, 0, true},
        {V(cr8_64), LONG, 16, 0, false},
        {V(dr6_64), LONG, 0xffffffff, 0, true},
        {V(dr6_64), LONG, 1ull << 32, 0, false},
        {V(dr7_64), LONG, 1ull << 32, 0, false},
        {V(dr7_64), LONG, 0x400, 0, true},
        {V(dr4_64), LONG, 0xffff0ff0, 0, true},
        {V(xsetbv_), LONG, 3, 0, true, HSK_CR4_OSXSAVE},
        {V(xsetbv_), LONG, 2, 0, false, HSK_CR4_OSXSAVE}, /* without x87 */
        {V(xsetbv_), LONG, 7, 0, false, HSK_CR4_OSXSAVE}, /* AVX: not in v2 */
        {V(xsetbv_), LONG, 3, 1, false, HSK_CR4_OSXSAVE}, /* XCR1 */
    };
    struct rig *r = rig_begin(state);

    run_refusals(r, cases, G_N_ELEMENTS(cases));
}

/* #UD each time: of the instruction, not of the UD2 behind it. */
static void run_unknown(struct rig *r, const void *row)
{
    const struct refusal *c = row;

    run_refusal(r, c);
    EXPECT(r, c->name, stacked(r, 0, 8), AT_CODE + (c->code == xsetbv_ ? 4u : 0u));
}

static void no_such_register(void **state)
{
    static const struct refusal cases[] = {
        {V(cr1_64), LONG, 0, 0, true},
        {V(lock_cr), LONG, 0, 0, true},
        {V(dr4_64), LONG, 0, 0, true, HSK_CR4_DE},
        {V(xsetbv_), LONG, 3, 0, true},
    };
    struct rig *r = rig_begin(state);

    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++)
        try_row(r, cases[i].name, run_unknown, &cases[i]);
    end_of_rows(r);
}

static void msrs(void **state)
{
    static const struct refusal cases[] = {
        {V(wrmsr_), LONG, 0x8000000000000000, 0xc0000082, false}, /* LSTAR: canonical */
        {V(wrmsr_), LONG, 0xffff800000000000, 0xc0000082, true},
        {V(wrmsr_), LONG, 0x0000800000000000, 0xc0000100, false}, /* FS base */
        {V(wrmsr_), LONG, 0x0000800000000000, 0xc0000102, false}, /* kernel GS base */
        {V(wrmsr_), LONG, 0x0000800000000000, 0x175, false},      /* SYSENTER_ESP */
        {V(wrmsr_), LONG, 0x0000800000000000, 0x176, false},
        {V(wrmsr_), LONG, 1, 0x174, true},
        {V(wrmsr_), LONG, 1ull << 32, 0xc0000084, false},   /* SFMASK: 32 bits */
        {V(wrmsr_), LONG, 1ull << 32, 0xc0000103, false},   /* TSC_AUX */
        {V(wrmsr_), LONG, 0x0007040600070406, 0x277, true}, /* PAT */
        {V(wrmsr_), LONG, 0x0007040600070402, 0x277, false},
        {V(wrmsr_), LONG, 0x0807040600070406, 0x277, false},
        {V(wrmsr_), LONG, 0x0606060606060606, 0x250, true}, /* fixed range */
        {V(wrmsr_), LONG, 0x0602060606060606, 0x26f, false},
        {V(wrmsr_), LONG, 0xc06, 0x2ff, true}, /* default type */
        {V(wrmsr_), LONG, 0xc02, 0x2ff, false},
        {V(wrmsr_), LONG, 0x1006, 0x2ff, false},
        {V(wrmsr_), LONG, 0x80000006, 0x200, true},
        {V(wrmsr_), LONG, 0x80000003, 0x200, false},
        {V(wrmsr_), LONG, 0x80000106, 0x200, false},
        {V(wrmsr_), LONG, 0x7f80000800, 0x201, true},
        {V(wrmsr_), LONG, 0x8000000800, 0x201, false}, /* beyond the physical address */
        {V(wrmsr_), LONG, HSK_EFER_LMA | HSK_EFER_LME | HSK_EFER_SCE, 0xc0000080, true},
        {V(wrmsr_), LONG, 0, 0xc0000080, false}, /* LME with paging on */
        {V(wrmsr_), LONG, HSK_EFER_LME | 1 << 12, 0xc0000080, false},
        {V(wrmsr_32), BITS32, HSK_EFER_LME, 0xc0000080, false},
        {V(wrmsr_32), BITS32, HSK_EFER_LME, 0xc0000080, true, 0, true},
        {V(wrmsr_), LONG, 0, 0xfe, false}, /* MTRRCAP is read-only */
        {V(wrmsr_), LONG, 0, 0x12345, false},
    };

    run_refusals(rig_begin(state), cases, G_N_ELEMENTS(cases));
}

/* --- PDPTE registers --- */

CODE32(pdpte_stays, "mov (%ebx), %eax\nmovl $0, 0x1008\ninvlpg (%ebx)\nmov (%ebx), %eax\ninc %ecx\n"
                    "mov %cr3, %eax\nmov %eax, %cr3\nmov (%ebx), %eax\nud2");

static void pdptes_are_those_of_the_last_load(void **state)
{
    struct rig *r = rig_begin(state);
    const struct walk w = {.format = PAE};

    if (leave_out(r, "PDPTE"))
        return;
    prepare(r, &w);
    put_code(r, pdpte_stays, pdpte_stays_end);
    run_to(r, "PDPTE", HSK_EXIT_HALT);
    EXPECT(r, "PDPTE", vector_of(r), 14);
    EXPECT(r, "PDPTE", r->s.gpr[HSK_RCX], 1);
    EXPECT(r, "PDPTE", stacked(r, 0, 4), 0);
}

/* --- into long mode and out of it, step by step --- */

CODE32(enter_long, "mov $0x1000, %eax\nmov %eax, %cr3\nmov $0x20, %eax\nmov %eax, %cr4\n"
                   "mov $0xc0000080, %ecx\nrdmsr\nor $0x100, %eax\nwrmsr\n"
                   "mov %cr0, %eax\nor $0x80000000, %eax\nmov %eax, %cr0\n"
                   "rdmsr\nmov %eax, %esi\n" /* compatibility mode: LMA is on */
                   "ljmp $0x48, $0x20080");
CODE64(in_long, "movabs $0x123456789abcdef0, %r15\nljmp *0x30000");
CODE32(leave_long,
       "mov %cr0, %eax\nand $0x7fffffff, %eax\nmov %eax, %cr0\nrdmsr\nmov %eax, %edi\nhlt");

static void enter_and_leave(void **state)
{
    struct rig *r = rig_begin(state);
    const struct walk w = {.format = LONG};

    if (leave_out(r, "long"))
        return;
    protected_mode(r);
    way(r, &w);
    put_code(r, enter_long, enter_long_end);
    memcpy(r->mem + AT_CODE + 0x80, in_long, (size_t)(in_long_end - in_long));
    memcpy(r->mem + AT_CODE + 0x100, leave_long, (size_t)(leave_long_end - leave_long));
    hsk_put32(r->mem + AT_DATA, AT_CODE + 0x100);
    hsk_put16(r->mem + AT_DATA + 4, SEL_CODE);
    run_to(r, "long", HSK_EXIT_HALT);
    EXPECT(r, "long", vector_of(r), OWN);
    EXPECT(r, "long", r->s.rip, AT_CODE + 0x100 + (unsigned)(leave_long_end - leave_long));
    EXPECT(r, "long", r->s.gpr[HSK_RSI], HSK_EFER_LME | HSK_EFER_LMA);
    EXPECT(r, "long", r->s.gpr[HSK_RDI], HSK_EFER_LME);
    EXPECT(r, "long", r->s.cr0 & HSK_CR0_PG, 0);
}

/* A 16-bit TSS cannot be taken along. */
static void no_long_mode_with_a_16_bit_tss(void **state)
{
    struct rig *r = rig_begin(state);
    const struct walk w = {.format = LONG};

    if (leave_out(r, "TSS"))
        return;
    protected_mode(r);
    way(r, &w);
    put_code(r, enter_long, enter_long_end);
    r->s.seg[HSK_TR] = segment(descriptor(AT_TSS_C, 0x2b, 0x83), SEL_TSS_C);
    run_to(r, "TSS", HSK_EXIT_HALT);
    EXPECT(r, "TSS", vector_of(r), 13);
}

int main(void)
{
    static const struct difference differences[] = {
        {"4 MiB, reserved bit", QEMU_DOES, "it leaves out P where a bit is reserved"},
        {"NX without NXE", QEMU_DOES, "it leaves out P where a bit is reserved"},
        {"NX in the table without NXE", QEMU_DOES, "it leaves out P where a bit is reserved"},
        {"bit 62", QEMU_DOES, "it leaves out P where a bit is reserved"},
        {"bit 52 of the table", QEMU_DOES, "it leaves out P where a bit is reserved"},
        {"2 MiB, reserved bit", QEMU_DOES, "it leaves out P where a bit is reserved"},
        {"large top", QEMU_DOES, "it leaves out P where a bit is reserved"},
        {"1 GiB, reserved bit", QEMU_DOES, "it leaves out P where a bit is reserved"},
        {"address too wide", QEMU_DOES, "it leaves out P where a bit is reserved"},
        {"4 MiB, address too wide", QEMU_DOES, "its physical addresses have 40 bits"},
        {"reserved address bit", QEMU_DOES, "its physical addresses have 40 bits"},
        {"cr0_64 180000011 (0)", QEMU_DOES, "it ignores the upper half of CR0"},
        {"cr3_32 30020 (0)", QEMU_DOES, "it looks at a PDPTE when that is used"},
        {"cr3_64 8000001000 (0)", QEMU_DOES, "its physical addresses have 40 bits"},
        {"cr3_64 8000000000001000 (0)", QEMU_DOES, "it leaves the bit to KVM, which stops"},
        {"cr4_64 100000020 (0)", QEMU_DOES, "it ignores the upper half of CR4"},
        {"xsetbv_ 7 (0)", QEMU_DOES, "it has AVX, whatever the model"},
        {"lock_cr", QEMU_DOES, "LOCK and MOV CR0 is CR8 there, as on AMD's"},
        {"PDPTE", QEMU_DOES, "it reads the PDPTE from memory each time"},
        {"TSS", QEMU_DOES, "it takes a 16-bit TSS along"},
        {NULL, 0, NULL},
    };
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(walks_32),         cmocka_unit_test(walks_pae),
        cmocka_unit_test(walks_long),       cmocka_unit_test(control_registers),
        cmocka_unit_test(no_such_register), cmocka_unit_test(pdptes_are_those_of_the_last_load),
        cmocka_unit_test(enter_and_leave),  cmocka_unit_test(no_long_mode_with_a_16_bit_tss),
    };

    /* There KVM's program decides what an MSR takes, not the processor. */
    static const struct CMUnitTest soft_tests[] = {cmocka_unit_test(msrs)};

    return run_lanes(soft_tests, G_N_ELEMENTS(soft_tests), false, NULL) +
           run_lanes(tests, G_N_ELEMENTS(tests), true, differences);
}
