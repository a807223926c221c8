/* SPDX-License-Identifier: MIT */
/* Entry of the integration tests' kernel: 32-bit protected mode, ebx = hvm_start_info (PVH). */
        .section .note.pvh, "a", @note
        .long 4, 4, 18                  /* XEN_ELFNOTE_PHYS32_ENTRY */
        .asciz "Xen"
        .long _start

        .text
        .code32
        .globl _start
_start: cli
        mov     $stack, %esp
        xor     %ebp, %ebp
        push    %ebx
        call    kernel_main
1:      hlt
        jmp     1b

        .bss
        .balign 16
        .skip   8192
stack:
        .section .note.GNU-stack, "", @progbits
