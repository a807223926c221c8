/* SPDX-License-Identifier: MIT */
/*
 * ELF executables as kernels are (System V ABI, chapters 4 and 5; both classes, little-endian x86):
 * loads PT_LOAD segments at their physical addresses. Every offset and size of the file is checked
 * before use. Deliberately missing: relocations, sections, dynamic linking; a kernel entered in
 * place needs none.
 */
#include "boot-priv.h"

enum { EM_386 = 3, EM_X86_64 = 62, ET_EXEC = 2, ET_DYN = 3 };

static bool damaged(const struct hsk_elf *elf, GError **error, const char *what)
{
    g_set_error(error, HSK_ERROR, HSK_ERROR_DAMAGED, "%s is a damaged ELF kernel: %s", elf->name,
                what);
    return false;
}

bool hsk_elf_open(struct hsk_elf *elf, const void *data, uint64_t len, const char *name,
                  GError **error)
{
    const uint8_t *p = data;
    uint16_t type, machine;

    *elf = (struct hsk_elf){.data = data, .size_bytes = len, .name = name};
    if (len < 64 || memcmp(p, "\177ELF", 4) != 0)
        return damaged(elf, error, "its header is missing");
    if ((p[4] != 1 && p[4] != 2) || p[5] != 1)
        return damaged(elf, error, "its class or byte order is unknown");
    elf->is64 = p[4] == 2;
    type = hsk_get16(p + 16);
    machine = hsk_get16(p + 18);
    if (machine != (elf->is64 ? EM_X86_64 : EM_386) || (type != ET_EXEC && type != ET_DYN)) {
        g_set_error(error, HSK_ERROR, HSK_ERROR_UNSUPPORTED,
                    "%s is an ELF file, but not an x86 kernel", name);
        return false;
    }
    elf->entry = elf->is64 ? hsk_get64(p + 24) : hsk_get32(p + 24);
    elf->phoff = elf->is64 ? hsk_get64(p + 32) : hsk_get32(p + 28);
    elf->phentsize = hsk_get16(p + (elf->is64 ? 54 : 42));
    elf->phnum = hsk_get16(p + (elf->is64 ? 56 : 44));
    if (elf->phentsize < (elf->is64 ? 56u : 32u) || elf->phnum == 0)
        return damaged(elf, error, "it has no program headers");
    if (!hsk_range_ok(elf->phoff, (uint64_t)elf->phnum * elf->phentsize, len))
        return damaged(elf, error, "its program headers lie outside of the file");
    return true;
}

bool hsk_elf_segment(const struct hsk_elf *elf, unsigned i, struct hsk_elf_segment *seg,
                     GError **error)
{
    const uint8_t *p = elf->data + elf->phoff + (uint64_t)i * elf->phentsize;

    seg->type = hsk_get32(p);
    if (elf->is64) {
        seg->offset = hsk_get64(p + 8);
        seg->paddr = hsk_get64(p + 24);
        seg->filesz = hsk_get64(p + 32);
        seg->memsz = hsk_get64(p + 40);
    } else {
        seg->offset = hsk_get32(p + 4);
        seg->paddr = hsk_get32(p + 12);
        seg->filesz = hsk_get32(p + 16);
        seg->memsz = hsk_get32(p + 20);
    }
    if (!hsk_range_ok(seg->offset, seg->filesz, elf->size_bytes))
        return damaged(elf, error, "a segment lies outside of the file");
    return true;
}

/* Segment i, with memsz = 0 if there is nothing to load. */
static bool loaded_segment(const struct hsk_elf *elf, const struct hsk_boot *b, unsigned i,
                           struct hsk_elf_segment *seg, GError **error)
{
    if (!hsk_elf_segment(elf, i, seg, error))
        return false;
    if (seg->type != ELF_PT_LOAD)
        seg->memsz = 0;
    if (seg->memsz == 0)
        return true;
    if (seg->filesz > seg->memsz)
        return damaged(elf, error, "a segment is larger in the file than in memory");
    return hsk_boot_check_fits(b, seg->paddr, seg->memsz, error);
}

bool hsk_elf_put(const struct hsk_elf *elf, const struct hsk_boot *b, const uint8_t *piece,
                 uint64_t offset, uint64_t len, GError **error)
{
    for (unsigned i = 0; i < elf->phnum; i++) {
        struct hsk_elf_segment seg;
        uint64_t from, to;

        if (!loaded_segment(elf, b, i, &seg, error))
            return false;
        from = MAX(offset, seg.offset);
        to = MIN(offset + len, seg.offset + seg.filesz);
        if (seg.memsz && from < to &&
            !hsk_boot_write(b, seg.paddr + (from - seg.offset), piece + (from - offset), to - from,
                            error))
            return false;
    }
    return true;
}

bool hsk_elf_finish(const struct hsk_elf *elf, const struct hsk_boot *b, gpa_t *end, GError **error)
{
    *end = 0;
    for (unsigned i = 0; i < elf->phnum; i++) {
        struct hsk_elf_segment seg;

        if (!loaded_segment(elf, b, i, &seg, error))
            return false;
        if (seg.memsz == 0)
            continue;
        if (!hsk_boot_zero(b, seg.paddr + seg.filesz, seg.memsz - seg.filesz, error))
            return false;
        *end = MAX(*end, seg.paddr + seg.memsz);
    }
    if (*end == 0)
        return damaged(elf, error, "it has nothing to load");
    return true;
}

bool hsk_elf_load(const struct hsk_elf *elf, const struct hsk_boot *b, gpa_t *end, GError **error)
{
    return hsk_elf_put(elf, b, elf->data, 0, elf->size_bytes, error) &&
           hsk_elf_finish(elf, b, end, error);
}
