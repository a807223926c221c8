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

/* Another processor, in real mode, copied to 0x8000. */
        .globl trampoline, trampoline_end
        .balign 16
        .code16
trampoline:
        cli
        xor     %ax, %ax
        mov     %ax, %ds
        lgdtl   gdtr - trampoline + 0x8000
        mov     %cr0, %eax
        or      $1, %al
        mov     %eax, %cr0
        ljmpl   $8, $other_start
        .balign 8
gdt:    .quad   0, 0x00cf9b000000ffff, 0x00cf93000000ffff
gdtr:   .word   gdtr - gdt - 1
        .long   gdt
trampoline_end:
        .code32
other_start:
        mov     $16, %eax
        mov     %eax, %ds
        mov     %eax, %es
        mov     %eax, %ss
        mov     0xfee00020, %eax
        shr     $24, %eax
        mov     %eax, %ecx
        shl     $12, %ecx
        lea     other_stacks(%ecx), %esp
        push    %eax
        call    other_main

        .bss
        .balign 16
other_stacks:                           /* of processors 1 to 7, whose number times 4096 from here is the top */
        .skip   4096 * 7
        .balign 16
        .skip   8192
stack:
        .section .note.GNU-stack, "", @progbits
