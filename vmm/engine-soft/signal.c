/* SPDX-License-Identifier: MIT */
/*
 * Faults that the host's processor raises in translated code are the guest's: division, misaligned
 * SSE operands, SIMD and x87 exceptions, undefined opcodes. The handler finds the guest
 * instruction, saves the guest's registers from the signal frame and leaves translated code; the
 * vector registers come back by sigreturn as they were.
 *
 * Signals of the process: the handlers are installed once and look at the thread's own vCPU.
 * Everything else that arrives here is a bug of ours and gets the default action.
 */
#include <signal.h>
#include <ucontext.h>

#include "xlate.h"

static __thread struct soft_vcpu *current_vcpu;

static bool exception_of(const struct soft_vcpu *v, const ucontext_t *uc,
                         struct soft_exception *exc)
{
    uint64_t trap = (uint64_t)uc->uc_mcontext.gregs[REG_TRAPNO];

    switch (trap) {
    case 19: /* whom the guest's system did not ask for #XM gets #UD */
        *exc = (struct soft_exception){.vector = v->s.cr4 & HSK_CR4_OSXMMEXCPT ? 19 : 6};
        return true;
    case 0:
    case 6:
    case 16: /* 16 also with CR0.NE = 0, as under KVM: there is no FERR pin */
        *exc = (struct soft_exception){.vector = (uint32_t)trap};
        return true;
    case 13:
    case 12:
        *exc = (struct soft_exception){.vector = (uint32_t)trap, .has_error = 1};
        return true;
    default:
        return false; /* a page fault on the host: not the guest's doing */
    }
}

static void save_registers(struct soft_vcpu *v, const ucontext_t *uc)
{
    static const uint8_t from[16] = {REG_RAX, REG_R11, REG_RDX, REG_RBX, REG_R8, REG_RBP,
                                     REG_RSI, REG_RDI, 0,       0,       0,      0,
                                     REG_R12, REG_R13, REG_R14, REG_R15};
    const greg_t *g = uc->uc_mcontext.gregs;

    for (unsigned i = 0; i < 16; i++)
        if (i < 8 || i > 11)
            v->gpr[i] = (uint64_t)g[from[i]];
    v->rflags = (v->rflags & ~(uint64_t)SOFT_ARITH) | ((uint64_t)g[REG_EFL] & SOFT_ARITH);
}

static void handler(int sig, siginfo_t *info, void *context)
{
    ucontext_t *uc = context;
    struct soft_vcpu *v = current_vcpu;
    const uint8_t *pc = (const uint8_t *)uc->uc_mcontext.gregs[REG_RIP];
    uint64_t guest_pc;

    if (v && pc >= v->code->rx && pc < v->code->rx + SOFT_CODE_SIZE &&
        (uint8_t *)info->si_addr >= v->code->ret_stack &&
        (uint8_t *)info->si_addr < v->code->ret_stack + SOFT_RET_GUARD &&
        uc->uc_mcontext.gregs[REG_TRAPNO] == 14) {
        /* Calls nested too deep for the return predictions: start anew, and do the push again. */
        uc->uc_mcontext.gregs[REG_RSP] = (greg_t)v->ret_base;
        return;
    }
    if (v && pc >= v->code->rx && pc < v->code->rx + SOFT_CODE_SIZE &&
        soft_code_find_host(v->code, pc, &guest_pc) && exception_of(v, uc, &v->exc)) {
        save_registers(v, uc);
        soft_returns_forget(v);
        v->rip = v->page_va + guest_pc;
        uc->uc_mcontext.gregs[REG_RIP] = (greg_t)(uintptr_t)soft_exit_trap;
        return;
    }
    signal(sig, SIG_DFL); /* returns to the faulting instruction, which then ends the process */
}

bool soft_signals_install(GError **error)
{
    static const int sigs[] = {SIGFPE, SIGSEGV, SIGILL, SIGBUS};
    struct sigaction sa = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | SA_ONSTACK};

    for (unsigned i = 0; i < G_N_ELEMENTS(sigs); i++)
        if (sigaction(sigs[i], &sa, NULL) < 0) {
            g_set_error(error, HSK_ERROR, HSK_ERROR_FAILED,
                        "Signal handlers cannot be installed: %s.", g_strerror(errno));
            return false;
        }
    return true;
}

void soft_signals_thread(struct soft_vcpu *v)
{
    stack_t alt = {.ss_flags = SS_DISABLE};

    if (v)
        alt = (stack_t){.ss_sp = v->code->alt_stack, .ss_size = SOFT_ALT_SIZE};
    sigaltstack(&alt, NULL);
    current_vcpu = v;
}
