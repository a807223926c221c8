/* SPDX-License-Identifier: MIT */
/* Inside of firmware/: what the boot loaders share. They see guest memory only, so that tests need
 * no whole machine. */
#pragma once

#include <vmm/boot.h>

/* Where boot data lies, all below the 0x9fc00 that E820 calls memory. A kernel's segments are
   refused below 1 MiB; a multiboot kernel, whose boot data is all above 0x8f000, may also lie from
   0x1000 to there. */
#define BOOT_GDT         0x500
#define BOOT_PVH_INFO    0x6000
#define BOOT_ZERO_PAGE   0x7000
#define BOOT_PAGE_TABLES 0x9000 /* PML4, PDPT, four page directories */
#define BOOT_CMDLINE     0x20000
#define BOOT_CMDLINE_MAX 0x10000 /* with its 0 */
#define BOOT_MULTIBOOT   0x8f000 /* multiboot's information, and its command line behind it */
#define BOOT_EBDA        0x9fc00
#define BOOT_KERNEL_MIN  0x100000

/* Tables, in the areas where an OS looks for them without being told. */
#define BOOT_TABLES_BASE 0xe0000 /* ACPI, up to HSK_VMGENID_GPA */
#define BOOT_MP_BASE     0xf0000 /* MultiProcessor Specification */
#define BOOT_TABLES_END  0x100000
#define BOOT_SCI_GSI     9

/* The code selector of the GDT that a loader installs; data is the next one. Linux says which; for
   other kernels it is what those that never load CS have come to expect. */
#define BOOT_CS_LINUX 0x10
#define BOOT_CS_OTHER 0x08

struct hsk_boot {
    const struct hsk_boot_config *cfg;
    struct hsk_ram *ram;
    uint64_t lowmem_bytes;  /* end of memory below 4 GiB */
    uint64_t highmem_bytes; /* memory from 4 GiB on */
    uint64_t vram_bytes;    /* 0: no display */
    gpa_t rsdp;
    gpa_t low_begin,
        low_end; /* memory below 1 MiB in which the kernel may lie as well; both 0: none */
    struct hsk_cpu_state cpu; /* out */
};

struct hsk_boot_range {
    gpa_t gpa;
    uint64_t size_bytes;
    uint32_t type;
};
enum { BOOT_RANGE_RAM = 1, BOOT_RANGE_RESERVED = 2 };
#define BOOT_MAX_RANGES 8

/* boot.c */
/* Finds out how much memory there is; false if it is too little to boot anything. */
bool hsk_boot_measure(struct hsk_boot *b, GError **error);
/* Loads cfg's kernel, whichever kind it is, and fills b->cpu. */
bool hsk_boot_image(struct hsk_boot *b, GError **error);
unsigned hsk_boot_memory_ranges(const struct hsk_boot *b,
                                struct hsk_boot_range out[BOOT_MAX_RANGES]);
bool hsk_boot_write(const struct hsk_boot *b, gpa_t gpa, const void *buf, uint64_t len,
                    GError **error);
bool hsk_boot_zero(const struct hsk_boot *b, gpa_t gpa, uint64_t len, GError **error);
/* Copies text, which is the command line (at most max bytes of text), to gpa. */
bool hsk_boot_put_cmdline(const struct hsk_boot *b, gpa_t gpa, const char *text, uint64_t max,
                          GError **error);
/* Copies the initrd as high as it goes between kernel_end and limit; *gpa is 0 if there is none. */
bool hsk_boot_put_initrd(const struct hsk_boot *b, gpa_t kernel_end, gpa_t limit, gpa_t *gpa,
                         GError **error);
/* Whether a kernel may lie there: there is memory, and no boot data. */
bool hsk_boot_kernel_fits(const struct hsk_boot *b, gpa_t gpa, uint64_t len);
/* The same as a sentence. */
bool hsk_boot_check_fits(const struct hsk_boot *b, gpa_t gpa, uint64_t len, GError **error);
/* vCPU 0 at entry, with flat segments and the GDT behind them: 32-bit protected mode without
   paging, or long mode. cs: BOOT_CS_*. */
bool hsk_boot_enter_32(struct hsk_boot *b, uint16_t cs, uint32_t entry, GError **error);
bool hsk_boot_enter_64(struct hsk_boot *b, uint64_t entry, GError **error);

/* boot-linux.c, boot-pvh.c, boot-multiboot.c: is it one of mine? / load it */
bool hsk_boot_is_bzimage(const struct hsk_boot_config *cfg);
bool hsk_boot_bzimage(struct hsk_boot *b, GError **error);
bool hsk_boot_is_elf(const struct hsk_boot_config *cfg);
bool hsk_boot_pvh(struct hsk_boot *b, GError **error);
bool hsk_boot_is_multiboot(const struct hsk_boot_config *cfg);
bool hsk_boot_multiboot(struct hsk_boot *b, GError **error);

/* unpack.c: one compressed stream (xz, zstd, gzip, lz4, lzma, bzip2). At most max_bytes of output,
   piece by piece in order; the first has BOOT_HEAD_BYTES, if there are so many. */
typedef bool (*hsk_boot_piece_fn)(void *opaque, const uint8_t *piece, uint64_t offset, uint64_t len,
                                  GError **error);
bool hsk_boot_unpack(const void *data, uint64_t len, uint64_t max_bytes, const char *name,
                     hsk_boot_piece_fn fn, void *opaque, GError **error);
#define BOOT_HEAD_BYTES 0x10000 /* where an ELF kernel's program headers must be */

/* elf.c */
struct hsk_elf {
    const uint8_t *data;
    uint64_t size_bytes;
    const char *name; /* for error sentences */
    bool is64;
    uint64_t entry, phoff;
    unsigned phnum, phentsize;
};
struct hsk_elf_segment {
    uint32_t type;
    uint64_t offset, paddr, filesz, memsz;
};
enum { ELF_PT_LOAD = 1, ELF_PT_NOTE = 4 };

/* Checks the header and that all program headers lie inside data; x86 executables only. data is the
   file or its head, with size_bytes to be set to the file's. */
bool hsk_elf_open(struct hsk_elf *elf, const void *data, uint64_t len, const char *name,
                  GError **error);
/* Segment i < phnum; its file part is inside the file. false + error if it is not. */
bool hsk_elf_segment(const struct hsk_elf *elf, unsigned i, struct hsk_elf_segment *seg,
                     GError **error);
/* Puts what [offset, offset+len) of the file has of PT_LOAD segments at their physical addresses.
 */
bool hsk_elf_put(const struct hsk_elf *elf, const struct hsk_boot *b, const uint8_t *piece,
                 uint64_t offset, uint64_t len, GError **error);
/* When all of the file was put: zeroes the rest of the segments. *end: behind the last byte. */
bool hsk_elf_finish(const struct hsk_elf *elf, const struct hsk_boot *b, gpa_t *end,
                    GError **error);
/* Both, if all of the file is there. */
bool hsk_elf_load(const struct hsk_elf *elf, const struct hsk_boot *b, gpa_t *end, GError **error);

/* acpi.c: builds all tables for an area that begins at gpa; *rsdp is inside it. */
GByteArray *hsk_acpi_build(gpa_t gpa, unsigned ncpus, gpa_t *rsdp);
/* The byte that makes len bytes, in which it is 0 yet, sum to 0. */
uint8_t hsk_table_checksum(const uint8_t *p, guint len);

/* mptable.c: floating pointer and configuration table; signature and features are CPUID leaf 1's
 * eax and edx. */
GByteArray *hsk_mptable_build(gpa_t gpa, unsigned ncpus, uint32_t signature, uint32_t features);
