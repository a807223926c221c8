/* SPDX-License-Identifier: MIT */
/* The page walker of the software engine: permissions, reserved bits, large pages, accessed and
 * dirty bits. */
#include "soft-fake.h"

enum { P = 1, W = 2, U = 4, A = 0x20, D = 0x40, PS = 0x80, G = 0x100 };
#define NX (1ull << 63)
enum { WR = SOFT_ACC_WRITE, EX = SOFT_ACC_FETCH };
enum { EP = 1, EW = 2, EU = 4, ER = 8, EI = 16 };
enum { KERNEL = SOFT_MMU_KERNEL, KSMAP = SOFT_MMU_KERNEL_SMAP, USER = SOFT_MMU_USER };

struct walk_case {
    const char *name;
    uint64_t pml4, pdpt, pd, pt; /* flags of the entries */
    uint64_t cr0_clear, cr4_set, efer_clear;
    unsigned access, mmu;
    int expect;
};

static const struct walk_case cases[] = {
    {"all rights, user write", P | W | U, P | W | U, P | W | U, P | W | U, 0, 0, 0, WR, USER, -1},
    {"not present leaf", P | W | U, P | W | U, P | W | U, 0, 0, 0, 0, WR, USER, EW | EU},
    {"not present top", 0, 0, 0, 0, 0, 0, 0, 0, KERNEL, 0},
    {"user on supervisor page", P | W | U, P | W, P | W | U, P | W | U, 0, 0, 0, 0, USER, EP | EU},
    {"user write on read-only directory", P | W | U, P | W | U, P | U, P | W | U, 0, 0, 0, WR, USER,
     EP | EW | EU},
    {"supervisor write on read-only, WP", P | W, P | W, P | W, P, 0, 0, 0, WR, KERNEL, EP | EW},
    {"supervisor write on read-only, no WP", P | W, P | W, P | W, P, HSK_CR0_WP, 0, 0, WR, KERNEL,
     -1},
    {"fetch from NX leaf", P | W, P | W, P | W, P | NX, 0, 0, 0, EX, KERNEL, EP | EI},
    {"fetch from NX top", P | W | NX, P | W, P | W, P, 0, 0, 0, EX, KERNEL, EP | EI},
    {"NX without NXE is reserved", P | W, P | W, P | W, P | NX, 0, 0, HSK_EFER_NXE, 0, KERNEL,
     EP | ER},
    {"no fetch bit without NXE and SMEP", P | W, P | W, P | W, 0, 0, 0, HSK_EFER_NXE, EX, KERNEL,
     0},
    {"SMEP: supervisor fetch from user page", P | U, P | U, P | U, P | U, 0, HSK_CR4_SMEP, 0, EX,
     KERNEL, EP | EI},
    {"no SMEP: supervisor fetch from user page", P | U, P | U, P | U, P | U, 0, 0, 0, EX, KERNEL,
     -1},
    {"SMAP: supervisor read of user page", P | U, P | U, P | U, P | U, 0, HSK_CR4_SMAP, 0, 0, KSMAP,
     EP},
    {"SMAP with AC: allowed", P | U, P | U, P | U, P | U, 0, HSK_CR4_SMAP, 0, 0, KERNEL, -1},
    {"SMAP: supervisor page is fine", P | W | U, P | W | U, P | W | U, P | W, 0, HSK_CR4_SMAP, 0,
     WR, KSMAP, -1},
    {"SMAP does not concern fetches", P | U, P | U, P | U, P | U, 0, HSK_CR4_SMAP, 0, EX, KSMAP,
     -1},
    {"address bit beyond MAXPHYADDR", P | W, P | W, P | W | 1ull << 40, P, 0, 0, 0, WR, KERNEL,
     EP | EW | ER},
    {"PS in the top level", P | W | PS, P | W, P | W, P, 0, 0, 0, 0, KERNEL, EP | ER},
};

static void put_tables(struct fake *f, uint64_t va, uint64_t pml4, uint64_t pdpt, uint64_t pd,
                       uint64_t pt)
{
    fake_set(f, 0x1000 + 8 * (va >> 39 & 511), pml4 ? 0x2000 | pml4 : 0);
    fake_set(f, 0x2000 + 8 * (va >> 30 & 511), 0x3000 | pdpt);
    fake_set(f, 0x3000 + 8 * (va >> 21 & 511), pd & PS ? 0x200000 | pd : 0x4000 | pd);
    fake_set(f, 0x4000 + 8 * (va >> 12 & 511), pt ? 0x55000 | pt : 0);
}

static const uint64_t VA = 0xffff812345678000;

static void four_levels_give_the_right_error(void **state)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        const struct walk_case *c = &cases[i];
        struct fake *f = fake_new();
        struct soft_walk w;
        int r;

        f->v.s.cr0 &= ~c->cr0_clear;
        f->v.s.cr4 |= c->cr4_set;
        f->v.s.efer &= ~c->efer_clear;
        put_tables(f, VA, c->pml4, c->pdpt, c->pd, c->pt);
        r = soft_walk(&f->v, VA + 0x123, c->access, c->mmu, &w);
        if (r != c->expect)
            fail_msg("%s: got %d, expected %d", c->name, r, c->expect);
        if (r < 0)
            assert_int_equal(w.gpa, 0x55000);
        fake_free(f);
    }
}

static void accessed_and_dirty_are_set_only_by_success(void **state)
{
    struct fake *f = fake_new();
    struct soft_walk w;

    put_tables(f, VA, P | W, P | W, P | W, P);
    assert_int_equal(soft_walk(&f->v, VA, WR, KERNEL, &w), EP | EW);
    assert_int_equal(fake_get(f, 0x4000 + 8 * (VA >> 12 & 511)), 0x55000 | P);

    put_tables(f, VA, P | W, P | W, P | W, P | W | G);
    f->v.s.cr4 |= HSK_CR4_PGE;
    assert_int_equal(soft_walk(&f->v, VA, 0, KERNEL, &w), -1);
    assert_false(w.writable);
    assert_true(w.global);
    assert_false(w.user);
    assert_int_equal(fake_get(f, 0x1000 + 8 * (VA >> 39 & 511)), 0x2000 | P | W | A);
    assert_int_equal(fake_get(f, 0x4000 + 8 * (VA >> 12 & 511)), 0x55000 | P | W | G | A);
    /* the page of the table that changed is announced, others are not */
    assert_int_equal(f->obj->attr[4], HSK_PAGE_DIRTY | HSK_PAGE_DAMAGE | HSK_PAGE_SAVED);
    assert_int_equal(f->obj->attr[5], 0);
    assert_int_equal(f->obj->attr[0x55], 0);

    assert_int_equal(soft_walk(&f->v, VA, WR, KERNEL, &w), -1);
    assert_true(w.writable);
    assert_int_equal(fake_get(f, 0x4000 + 8 * (VA >> 12 & 511)), 0x55000 | P | W | G | A | D);
    fake_free(f);
}

static void large_pages(void **state)
{
    struct fake *f = fake_new();
    struct soft_walk w;

    put_tables(f, VA, P | W, P | W, P | W | PS, 0);
    assert_int_equal(soft_walk(&f->v, VA, WR, KERNEL, &w), -1);
    assert_int_equal(w.gpa, 0x200000 | (VA & 0x1ff000));
    assert_true(w.large);
    assert_int_equal(fake_get(f, 0x3000 + 8 * (VA >> 21 & 511)), 0x200000 | P | W | PS | A | D);
    /* bits 13-20 of a 2 MiB entry are reserved, bit 12 is PAT */
    fake_set(f, 0x3000 + 8 * (VA >> 21 & 511), 0x200000 | 1 << 13 | P | PS);
    assert_int_equal(soft_walk(&f->v, VA, 0, KERNEL, &w), EP | ER);
    fake_set(f, 0x3000 + 8 * (VA >> 21 & 511), 0x200000 | 1 << 12 | P | PS);
    assert_int_equal(soft_walk(&f->v, VA, 0, KERNEL, &w), -1);
    /* 1 GiB */
    fake_set(f, 0x2000 + 8 * (VA >> 30 & 511), 0x40000000 | P | W | PS);
    assert_int_equal(soft_walk(&f->v, VA, 0, KERNEL, &w), -1);
    assert_int_equal(w.gpa, 0x40000000 | (VA & 0x3ffff000));
    fake_free(f);
}

static void legacy_paging(void **state)
{
    struct fake *f = fake_new();
    struct soft_walk w;

    f->v.s.efer = 0;
    /* PAE: the top entries have no rights and no accessed bit */
    fake_set(f, 0x1000 + 8 * 3, 0x2001);
    fake_set(f, 0x2000 + 8 * 5, 0x3007);
    fake_set(f, 0x3000 + 8 * 7, 0x77007);
    assert_int_equal(soft_walk(&f->v, 0xc0a07000, WR, USER, &w), -1);
    assert_int_equal(w.gpa, 0x77000);
    assert_int_equal(fake_get(f, 0x1000 + 8 * 3), 0x2001);
    /* they are registers: memory counts when CR3 is loaded */
    fake_set(f, 0x1000 + 8 * 3, 0x2003);
    assert_int_equal(soft_walk(&f->v, 0xc0a07000, WR, USER, &w), -1);
    f->v.pdptes_loaded = 0;
    assert_int_equal(soft_walk(&f->v, 0xc0a07000, WR, USER, &w), EP | EW | EU | ER);
    /* 32-bit: 4 KiB and 4 MiB pages */
    f->v.s.cr4 = HSK_CR4_PSE;
    hsk_put32(f->obj->host + 0x1000 + 4 * 0x301, 0x3007);
    hsk_put32(f->obj->host + 0x3000 + 4 * 7, 0x66005);
    assert_int_equal(soft_walk(&f->v, 0xc0407000, WR, USER, &w), EP | EW | EU);
    assert_int_equal(soft_walk(&f->v, 0xc0407000, 0, USER, &w), -1);
    assert_int_equal(w.gpa, 0x66000);
    hsk_put32(f->obj->host + 0x1000 + 4 * 0x302, 0x800000 | 3 << 13 | P | W | U | PS);
    assert_int_equal(soft_walk(&f->v, 0xc0823000, WR, USER, &w), -1);
    assert_int_equal(w.gpa, 0x300823000);
    assert_int_equal(hsk_get32(f->obj->host + 0x1000 + 4 * 0x302),
                     0x800000 | 3 << 13 | P | W | U | PS | A | D);
    fake_free(f);
}

static void tables_outside_of_memory_are_reserved_faults(void **state)
{
    struct fake *f = fake_new();
    struct soft_walk w;

    fake_set(f, 0x1000 + 8 * (VA >> 39 & 511), 0x70000000 | P | W);
    assert_int_equal(soft_walk(&f->v, VA, 0, KERNEL, &w), EP | ER);
    fake_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(four_levels_give_the_right_error),
        cmocka_unit_test(accessed_and_dirty_are_set_only_by_success),
        cmocka_unit_test(large_pages),
        cmocka_unit_test(legacy_paging),
        cmocka_unit_test(tables_outside_of_memory_are_reserved_faults),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
