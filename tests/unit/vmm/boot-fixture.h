/* SPDX-License-Identifier: MIT */
/* For the tests of the boot loaders: guest memory without a machine, and a kernel in it. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include "../../../vmm/firmware/boot-priv.h"

#include <cmocka.h>

#define RAM_BYTES (32u << 20)

struct fixture {
    struct hsk_ram *ram;
    struct hsk_memobj *obj;
    struct hsk_boot_config cfg;
    struct hsk_boot boot;
};

static inline int setup(void **state)
{
    struct fixture *f = g_new0(struct fixture, 1);

    f->obj = hsk_memobj_new("ram", RAM_BYTES, NULL);
    f->ram = hsk_ram_new();
    assert_non_null(f->obj);
    assert_true(hsk_ram_map_add(
        f->ram, &(struct hsk_ram_region){.gpa = 0, .size_bytes = RAM_BYTES, .obj = f->obj}));
    f->cfg.kernel_name = "test.kernel";
    f->boot.cfg = &f->cfg;
    f->boot.ram = f->ram;
    f->boot.rsdp = BOOT_TABLES_BASE;
    assert_true(hsk_boot_measure(&f->boot, NULL));
    *state = f;
    return 0;
}

static inline int teardown(void **state)
{
    struct fixture *f = *state;

    hsk_ram_free(f->ram);
    hsk_memobj_free(f->obj);
    g_free(f);
    return 0;
}

static inline bool boot(struct fixture *f, const GByteArray *kernel, char **message)
{
    g_autoptr(GError) error = NULL;
    bool ok;

    f->cfg.kernel = kernel->data;
    f->cfg.kernel_bytes = kernel->len;
    ok = hsk_boot_image(&f->boot, &error);
    assert_true(ok == (error == NULL));
    if (message)
        *message = error ? g_strdup(error->message) : NULL;
    if (error)
        assert_non_null(strstr(error->message, "test.kernel"));
    return ok;
}

static inline uint64_t ram64(struct fixture *f, gpa_t gpa)
{
    return hsk_get64(f->obj->host + gpa);
}
