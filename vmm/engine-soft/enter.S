/* SPDX-License-Identifier: MIT */
/*
 * The door between C and translated code, and the thunks that translated code calls.
 *
 * In translated code: rax rdx rbx rbp rsi rdi r12-r15 are the guest's, r11 = guest rcx, r8 = guest rsp, rcx r9 r10 are
 * scratch, guest r8-r11 live in struct soft_vcpu, rsp = the return predictions, gs = struct soft_vcpu, arithmetic flags =
 * the guest's.
 * Runs on the vCPU thread. Compiled C that is called from here uses no vector registers (they are the guest's).
 */
#include "offsets.h"

    .text

/* Guest registers and arithmetic flags to struct soft_vcpu. Keeps rcx; clobbers rax r9. */
    .macro SAVE_GUEST
    movq %rax, %gs:SOFT_OFF_GPR
    movq %r11, %gs:SOFT_OFF_GPR+8
    movq %rdx, %gs:SOFT_OFF_GPR+16
    movq %rbx, %gs:SOFT_OFF_GPR+24
    movq %r8, %gs:SOFT_OFF_GPR+32
    movq %rbp, %gs:SOFT_OFF_GPR+40
    movq %rsi, %gs:SOFT_OFF_GPR+48
    movq %rdi, %gs:SOFT_OFF_GPR+56
    movq %r12, %gs:SOFT_OFF_GPR+96
    movq %r13, %gs:SOFT_OFF_GPR+104
    movq %r14, %gs:SOFT_OFF_GPR+112
    movq %r15, %gs:SOFT_OFF_GPR+120
    lahf
    seto %al
    movzwl %ax, %r9d
    movzbl %al, %eax
    shll $11, %eax
    shrl $8, %r9d
    orl %eax, %r9d
    andl $0x8d5, %r9d
    movq %gs:SOFT_OFF_RFLAGS, %rax
    andq $~0x8d5, %rax
    orq %r9, %rax
    movq %rax, %gs:SOFT_OFF_RFLAGS
    .endm

/* The reverse. Keeps rcx; clobbers r9. */
    .macro LOAD_GUEST
    movq %gs:SOFT_OFF_RFLAGS, %rax
    movl %eax, %r9d
    shrl $11, %r9d
    andl $1, %r9d
    shll $8, %eax
    movb %r9b, %al
    addb $0x7f, %al
    sahf
    movq %gs:SOFT_OFF_GPR+8, %r11
    movq %gs:SOFT_OFF_GPR+16, %rdx
    movq %gs:SOFT_OFF_GPR+24, %rbx
    movq %gs:SOFT_OFF_GPR+32, %r8
    movq %gs:SOFT_OFF_GPR+40, %rbp
    movq %gs:SOFT_OFF_GPR+48, %rsi
    movq %gs:SOFT_OFF_GPR+56, %rdi
    movq %gs:SOFT_OFF_GPR+96, %r12
    movq %gs:SOFT_OFF_GPR+104, %r13
    movq %gs:SOFT_OFF_GPR+112, %r14
    movq %gs:SOFT_OFF_GPR+120, %r15
    movq %gs:SOFT_OFF_GPR, %rax
    .endm

/* Translated code has a stack of its own, of return predictions. C may empty it while it runs. */
    .macro TO_C_STACK
    movq %rsp, %gs:SOFT_OFF_RET_RSP
    movq %gs:SOFT_OFF_HOST_RSP, %rsp
    .endm

    .macro FUNCTION name
    .globl \name
    .hidden \name
    .type \name, @function
    .p2align 4
\name:
    .endm

/* unsigned soft_enter(struct soft_vcpu *v, const void *host): runs translated code until it leaves; why it left. */
FUNCTION soft_enter
    pushq %rbx
    pushq %rbp
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    subq $8, %rsp
    movq %rsp, %gs:SOFT_OFF_HOST_RSP
    movq %rsi, %rcx
    LOAD_GUEST
    movq %gs:SOFT_OFF_RET_RSP, %rsp
    jmp *%rcx

/* A direct edge that is not chained: rcx = its struct soft_link. */
FUNCTION soft_exit_link
    movq %rcx, %gs:SOFT_OFF_EXIT_ARG
    movl $SOFT_LEFT_LINK, %ecx
    jmp leave_saving

/* An indirect jump that missed the jump cache: the target is in rip. */
FUNCTION soft_exit_lookup
    movl $SOFT_LEFT_LOOKUP, %ecx
leave_saving:
    movq %rsp, %gs:SOFT_OFF_RET_RSP
    SAVE_GUEST
    movl %ecx, %eax
leave:
    movq %gs:SOFT_OFF_HOST_RSP, %rsp
    addq $8, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbp
    popq %rbx
    ret

/* The same from 64-bit code, which may have jumped to an address that is not canonical. */
FUNCTION soft_exit_branch
    movl $SOFT_LEFT_BRANCH, %ecx
    jmp leave_saving

/* The host's ret took the last entry of the return predictions, which is not one. */
FUNCTION soft_exit_sentinel
    movq %gs:SOFT_OFF_RET_BASE, %rsp
    jmp soft_exit_lookup

/* The signal handler returns here after it has saved the guest's registers. */
FUNCTION soft_exit_trap
    movl $SOFT_LEFT_TRAP, %eax
    jmp leave

/*
 * A guest access that the inline check refused: rcx = linear address; behind the call is a struct soft_access.
 * Comes back with rcx = host address, behind the struct if the access can be done there, or 5 bytes further if it must
 * be done on the bounce buffer and then written back.
 */
FUNCTION soft_thunk_access
    SAVE_GUEST
    movq %gs:SOFT_OFF_SELF, %rdi
    movq %rcx, %rsi
    popq %rbx
    movq %rbx, %rdx
    TO_C_STACK
    call soft_slow_access
    movq %gs:SOFT_OFF_RET_RSP, %rsp
    leaq 16(%rbx), %rcx
    leaq (%rcx,%rdx), %rcx
    pushq %rcx
    movq %rax, %rcx
    LOAD_GUEST
    ret

/* After such an instruction ran on the bounce buffer; behind the call: the next instruction's rip. */
FUNCTION soft_thunk_writeback
    SAVE_GUEST
    movq %gs:SOFT_OFF_SELF, %rdi
    popq %rbx
    movq (%rbx), %rsi
    addq $8, %rbx
    TO_C_STACK
    call soft_slow_writeback
    jmp after_c

/* Calls C: behind the call are the function, the instruction's rip and an argument. The function returns 0 to go on behind. */
FUNCTION soft_thunk_call
    SAVE_GUEST
    movq %gs:SOFT_OFF_SELF, %rdi
    popq %rbx
    movq 8(%rbx), %rax
    addq %gs:SOFT_OFF_PAGE_VA, %rax
    movq %rax, %gs:SOFT_OFF_RIP
    movq 16(%rbx), %rsi
    TO_C_STACK
    call *(%rbx)
    addq $24, %rbx
after_c:
    testl %eax, %eax
    jnz leave
    movq %gs:SOFT_OFF_RET_RSP, %rsp
    pushq %rbx
    LOAD_GUEST
    ret

/* int soft_setjmp(struct soft_vcpu *v); void soft_longjmp(struct soft_vcpu *v, int value): without libc and its signal mask. */
FUNCTION soft_setjmp
    movq %rbx, SOFT_OFF_LANDING(%rdi)
    movq %rbp, SOFT_OFF_LANDING+8(%rdi)
    movq %r12, SOFT_OFF_LANDING+16(%rdi)
    movq %r13, SOFT_OFF_LANDING+24(%rdi)
    movq %r14, SOFT_OFF_LANDING+32(%rdi)
    movq %r15, SOFT_OFF_LANDING+40(%rdi)
    leaq 8(%rsp), %rax
    movq %rax, SOFT_OFF_LANDING+48(%rdi)
    movq (%rsp), %rax
    movq %rax, SOFT_OFF_LANDING+56(%rdi)
    xorl %eax, %eax
    ret

FUNCTION soft_longjmp
    movq SOFT_OFF_LANDING(%rdi), %rbx
    movq SOFT_OFF_LANDING+8(%rdi), %rbp
    movq SOFT_OFF_LANDING+16(%rdi), %r12
    movq SOFT_OFF_LANDING+24(%rdi), %r13
    movq SOFT_OFF_LANDING+32(%rdi), %r14
    movq SOFT_OFF_LANDING+40(%rdi), %r15
    movl %esi, %eax
    movq SOFT_OFF_LANDING+48(%rdi), %rsp
    jmp *SOFT_OFF_LANDING+56(%rdi)

    .section .note.GNU-stack, "", @progbits
