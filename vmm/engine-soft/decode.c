/* SPDX-License-Identifier: MIT */
/*
 * Guest instruction bytes to struct soft_x: decoded by Zydis, sorted into kinds, with the
 * arithmetic flags they need and overwrite (SDM vol. 1, appendix A; vol. 2).
 *
 * Pass-through is by allow-list: whole instruction sets whose members are all harmless, and a list
 * of mnemonics for the base sets. What is on no list goes to the system half if it knows it, is #UD
 * if our processor model does not have it, else stops the machine when it is executed. vCPU thread,
 * FPU parked (Zydis may use vector registers).
 */
#include "xlate.h"

int soft_gpr(ZydisRegister r)
{
    if (r >= ZYDIS_REGISTER_RAX && r <= ZYDIS_REGISTER_R15)
        return r - ZYDIS_REGISTER_RAX;
    if (r >= ZYDIS_REGISTER_EAX && r <= ZYDIS_REGISTER_R15D)
        return r - ZYDIS_REGISTER_EAX;
    if (r >= ZYDIS_REGISTER_AX && r <= ZYDIS_REGISTER_R15W)
        return r - ZYDIS_REGISTER_AX;
    if (r >= ZYDIS_REGISTER_AL && r <= ZYDIS_REGISTER_BL)
        return r - ZYDIS_REGISTER_AL;
    if (r >= ZYDIS_REGISTER_AH && r <= ZYDIS_REGISTER_BH)
        return 16 + (r - ZYDIS_REGISTER_AH);
    if (r >= ZYDIS_REGISTER_SPL && r <= ZYDIS_REGISTER_R15B)
        return 4 + (r - ZYDIS_REGISTER_SPL);
    return -1;
}

/* Base instructions that run as they are on mapped registers and a host address. */
static bool base_passes(const struct soft_x *x)
{
    switch (x->in.mnemonic) {
    case ZYDIS_MNEMONIC_MOV:
        for (unsigned i = 0; i < 2; i++)
            if (x->op[i].type == ZYDIS_OPERAND_TYPE_REGISTER && soft_gpr(x->op[i].reg.value) < 0)
                return false;
        return true;
    case ZYDIS_MNEMONIC_ADC:
    case ZYDIS_MNEMONIC_ADD:
    case ZYDIS_MNEMONIC_AND:
    case ZYDIS_MNEMONIC_BSF:
    case ZYDIS_MNEMONIC_BSR:
    case ZYDIS_MNEMONIC_BSWAP:
    case ZYDIS_MNEMONIC_CBW:
    case ZYDIS_MNEMONIC_CDQ:
    case ZYDIS_MNEMONIC_CDQE:
    case ZYDIS_MNEMONIC_CWD:
    case ZYDIS_MNEMONIC_CWDE:
    case ZYDIS_MNEMONIC_CQO:
    case ZYDIS_MNEMONIC_CLC:
    case ZYDIS_MNEMONIC_CMC:
    case ZYDIS_MNEMONIC_STC:
    case ZYDIS_MNEMONIC_CMP:
    case ZYDIS_MNEMONIC_CMPXCHG:
    case ZYDIS_MNEMONIC_CMPXCHG8B:
    case ZYDIS_MNEMONIC_CMPXCHG16B:
    case ZYDIS_MNEMONIC_DEC:
    case ZYDIS_MNEMONIC_DIV:
    case ZYDIS_MNEMONIC_IDIV:
    case ZYDIS_MNEMONIC_IMUL:
    case ZYDIS_MNEMONIC_INC:
    case ZYDIS_MNEMONIC_LAHF:
    case ZYDIS_MNEMONIC_SAHF:
    case ZYDIS_MNEMONIC_MOVSX:
    case ZYDIS_MNEMONIC_MOVSXD:
    case ZYDIS_MNEMONIC_MOVZX:
    case ZYDIS_MNEMONIC_MUL:
    case ZYDIS_MNEMONIC_NEG:
    case ZYDIS_MNEMONIC_NOT:
    case ZYDIS_MNEMONIC_OR:
    case ZYDIS_MNEMONIC_RCL:
    case ZYDIS_MNEMONIC_RCR:
    case ZYDIS_MNEMONIC_ROL:
    case ZYDIS_MNEMONIC_ROR:
    case ZYDIS_MNEMONIC_SAR:
    case ZYDIS_MNEMONIC_SHL:
    case ZYDIS_MNEMONIC_SHR:
    case ZYDIS_MNEMONIC_SHLD:
    case ZYDIS_MNEMONIC_SHRD:
    case ZYDIS_MNEMONIC_SBB:
    case ZYDIS_MNEMONIC_SUB:
    case ZYDIS_MNEMONIC_TEST:
    case ZYDIS_MNEMONIC_XADD:
    case ZYDIS_MNEMONIC_XCHG:
    case ZYDIS_MNEMONIC_XOR:
    case ZYDIS_MNEMONIC_SETB:
    case ZYDIS_MNEMONIC_SETBE:
    case ZYDIS_MNEMONIC_SETL:
    case ZYDIS_MNEMONIC_SETLE:
    case ZYDIS_MNEMONIC_SETNB:
    case ZYDIS_MNEMONIC_SETNBE:
    case ZYDIS_MNEMONIC_SETNL:
    case ZYDIS_MNEMONIC_SETNLE:
    case ZYDIS_MNEMONIC_SETNO:
    case ZYDIS_MNEMONIC_SETNP:
    case ZYDIS_MNEMONIC_SETNS:
    case ZYDIS_MNEMONIC_SETNZ:
    case ZYDIS_MNEMONIC_SETO:
    case ZYDIS_MNEMONIC_SETP:
    case ZYDIS_MNEMONIC_SETS:
    case ZYDIS_MNEMONIC_SETZ:
    case ZYDIS_MNEMONIC_LFENCE:
    case ZYDIS_MNEMONIC_MFENCE:
    case ZYDIS_MNEMONIC_SFENCE:
        return true;
    default:
        return false;
    }
}

/* Members of allowed sets that must not run as they are: implicit or per-element memory operands.
 */
static bool set_member_refused(ZydisMnemonic m)
{
    switch (m) {
    case ZYDIS_MNEMONIC_MASKMOVQ:
    case ZYDIS_MNEMONIC_MASKMOVDQU:
    case ZYDIS_MNEMONIC_VMASKMOVDQU:
    case ZYDIS_MNEMONIC_VMASKMOVPS:
    case ZYDIS_MNEMONIC_VMASKMOVPD:
    case ZYDIS_MNEMONIC_VPMASKMOVD:
    case ZYDIS_MNEMONIC_VPMASKMOVQ:
    case ZYDIS_MNEMONIC_FNSAVE:
    case ZYDIS_MNEMONIC_FRSTOR:
    case ZYDIS_MNEMONIC_FNSTENV:
    case ZYDIS_MNEMONIC_FLDENV:
        return true;
    default:
        return false;
    }
}

static bool set_passes(struct soft_x *x)
{
    switch (x->in.meta.isa_set) {
    case ZYDIS_ISA_SET_CMOV:
    case ZYDIS_ISA_SET_LAHF:
    case ZYDIS_ISA_SET_BMI1:
    case ZYDIS_ISA_SET_BMI2:
    case ZYDIS_ISA_SET_LZCNT:
    case ZYDIS_ISA_SET_POPCNT:
    case ZYDIS_ISA_SET_MOVBE:
    case ZYDIS_ISA_SET_ADOX_ADCX:
    case ZYDIS_ISA_SET_RDRAND:
    case ZYDIS_ISA_SET_RDSEED:
    case ZYDIS_ISA_SET_PAUSE:
    case ZYDIS_ISA_SET_CMPXCHG16B:
    case ZYDIS_ISA_SET_CLFSH:
        return true;
    case ZYDIS_ISA_SET_X87:
    case ZYDIS_ISA_SET_FCMOV:
    case ZYDIS_ISA_SET_SSE3X87:
        x->fpu = SOFT_FPU_X87;
        break;
    case ZYDIS_ISA_SET_PENTIUMMMX:
    case ZYDIS_ISA_SET_SSE2MMX:
    case ZYDIS_ISA_SET_SSSE3MMX:
        x->fpu = SOFT_FPU_MMX;
        break;
    case ZYDIS_ISA_SET_SSE:
    case ZYDIS_ISA_SET_SSE2:
    case ZYDIS_ISA_SET_SSE3:
    case ZYDIS_ISA_SET_SSSE3:
    case ZYDIS_ISA_SET_SSE4:
    case ZYDIS_ISA_SET_SSE42:
    case ZYDIS_ISA_SET_AES:
    case ZYDIS_ISA_SET_PCLMULQDQ:
    case ZYDIS_ISA_SET_SHA:
    case ZYDIS_ISA_SET_SSEMXCSR:
        x->fpu = SOFT_FPU_SSE;
        break;
    case ZYDIS_ISA_SET_AVX:
    case ZYDIS_ISA_SET_AVX2:
    case ZYDIS_ISA_SET_AVXAES:
    case ZYDIS_ISA_SET_FMA:
    case ZYDIS_ISA_SET_F16C:
        x->fpu = SOFT_FPU_AVX;
        break;
    case ZYDIS_ISA_SET_PPRO:
        switch (x->in.mnemonic) {
        case ZYDIS_MNEMONIC_FCOMI:
        case ZYDIS_MNEMONIC_FCOMIP:
        case ZYDIS_MNEMONIC_FUCOMI:
        case ZYDIS_MNEMONIC_FUCOMIP:
            x->fpu = SOFT_FPU_X87;
            return true;
        default:
            return false;
        }
    default:
        return false;
    }
    /* general registers and SSE's scalar helpers (crc32, movnti) do not depend on the FPU's state
     */
    if (x->in.mnemonic == ZYDIS_MNEMONIC_CRC32 || x->in.mnemonic == ZYDIS_MNEMONIC_MOVNTI ||
        x->in.mnemonic == ZYDIS_MNEMONIC_POPCNT)
        x->fpu = SOFT_FPU_NONE;
    if (x->in.mnemonic == ZYDIS_MNEMONIC_FISTTP)
        x->fpu = SOFT_FPU_X87;
    return !set_member_refused(x->in.mnemonic);
}

static bool is_nop(const struct soft_x *x)
{
    switch (x->in.meta.isa_set) {
    case ZYDIS_ISA_SET_FAT_NOP:
    case ZYDIS_ISA_SET_PREFETCH_NOP:
    case ZYDIS_ISA_SET_SSE_PREFETCH:
    case ZYDIS_ISA_SET_PREFETCHWT1:
    case ZYDIS_ISA_SET_CLDEMOTE:
    case ZYDIS_ISA_SET_MPX: /* reserved NOPs to a processor without them, like RDSSP */
        return true;
    default:
        return x->in.mnemonic == ZYDIS_MNEMONIC_RDSSPD || x->in.mnemonic == ZYDIS_MNEMONIC_RDSSPQ ||
               x->in.mnemonic == ZYDIS_MNEMONIC_NOP || x->in.mnemonic == ZYDIS_MNEMONIC_ENDBR64 ||
               x->in.mnemonic == ZYDIS_MNEMONIC_ENDBR32;
    }
}

static uint8_t flow_kind(const struct soft_x *x)
{
    const ZydisDecodedInstruction *in = &x->in;
    bool far = in->meta.branch_type == ZYDIS_BRANCH_TYPE_FAR;

    switch (in->mnemonic) {
    case ZYDIS_MNEMONIC_CALL:
        return far ? SOFT_X_HELPER : SOFT_X_CALL;
    case ZYDIS_MNEMONIC_JMP:
        return far ? SOFT_X_HELPER : SOFT_X_JMP;
    case ZYDIS_MNEMONIC_RET:
        return far ? SOFT_X_HELPER : SOFT_X_RET;
    case ZYDIS_MNEMONIC_LOOP:
    case ZYDIS_MNEMONIC_LOOPE:
    case ZYDIS_MNEMONIC_LOOPNE:
    case ZYDIS_MNEMONIC_JCXZ:
    case ZYDIS_MNEMONIC_JECXZ:
    case ZYDIS_MNEMONIC_JRCXZ:
        return SOFT_X_LOOP;
    case ZYDIS_MNEMONIC_LEAVE:
        return SOFT_X_LEAVE;
    case ZYDIS_MNEMONIC_PUSH:
    case ZYDIS_MNEMONIC_POP:
        if (x->op[0].type == ZYDIS_OPERAND_TYPE_REGISTER && soft_gpr(x->op[0].reg.value) < 0)
            return SOFT_X_HELPER; /* segment registers */
        return in->mnemonic == ZYDIS_MNEMONIC_PUSH ? SOFT_X_PUSH : SOFT_X_POP;
    default:
        return in->meta.category == ZYDIS_CATEGORY_COND_BR && in->meta.isa_ext == ZYDIS_ISA_EXT_BASE
                   ? SOFT_X_JCC
                   : SOFT_X_HELPER;
    }
}

static bool is_string(const struct soft_x *x)
{
    switch (x->in.mnemonic) {
    case ZYDIS_MNEMONIC_MOVSB:
    case ZYDIS_MNEMONIC_MOVSW:
    case ZYDIS_MNEMONIC_MOVSQ:
    case ZYDIS_MNEMONIC_STOSB:
    case ZYDIS_MNEMONIC_STOSW:
    case ZYDIS_MNEMONIC_STOSD:
    case ZYDIS_MNEMONIC_STOSQ:
    case ZYDIS_MNEMONIC_LODSB:
    case ZYDIS_MNEMONIC_LODSW:
    case ZYDIS_MNEMONIC_LODSD:
    case ZYDIS_MNEMONIC_LODSQ:
    case ZYDIS_MNEMONIC_SCASB:
    case ZYDIS_MNEMONIC_SCASW:
    case ZYDIS_MNEMONIC_SCASD:
    case ZYDIS_MNEMONIC_SCASQ:
    case ZYDIS_MNEMONIC_CMPSB:
    case ZYDIS_MNEMONIC_CMPSW:
    case ZYDIS_MNEMONIC_CMPSQ:
        return true;
    case ZYDIS_MNEMONIC_MOVSD:
    case ZYDIS_MNEMONIC_CMPSD: /* also names of SSE2 instructions */
        return x->in.meta.category == ZYDIS_CATEGORY_STRINGOP;
    default:
        return false;
    }
}

/* Extensions that no processor model of ours has, although their bytes decode: #UD. */
static bool not_ours(const struct soft_x *x)
{
    switch (x->in.meta.isa_ext) {
    case ZYDIS_ISA_EXT_AMD3DNOW:
    case ZYDIS_ISA_EXT_AMD_INVLPGB:
    case ZYDIS_ISA_EXT_AMX_BF16:
    case ZYDIS_ISA_EXT_AMX_INT8:
    case ZYDIS_ISA_EXT_AMX_TILE:
    case ZYDIS_ISA_EXT_AVX512EVEX:
    case ZYDIS_ISA_EXT_AVX512VEX:
    case ZYDIS_ISA_EXT_AVX_VNNI:
    case ZYDIS_ISA_EXT_ENQCMD:
    case ZYDIS_ISA_EXT_FMA4:
    case ZYDIS_ISA_EXT_GFNI:
    case ZYDIS_ISA_EXT_HRESET:
    case ZYDIS_ISA_EXT_KEYLOCKER:
    case ZYDIS_ISA_EXT_KEYLOCKER_WIDE:
    case ZYDIS_ISA_EXT_KNC:
    case ZYDIS_ISA_EXT_KNCE:
    case ZYDIS_ISA_EXT_KNCV:
    case ZYDIS_ISA_EXT_MCOMMIT:
    case ZYDIS_ISA_EXT_PADLOCK:
    case ZYDIS_ISA_EXT_SNP:
    case ZYDIS_ISA_EXT_SSE4A:
    case ZYDIS_ISA_EXT_TBM:
    case ZYDIS_ISA_EXT_TDX:
    case ZYDIS_ISA_EXT_TSX_LDTRK:
    case ZYDIS_ISA_EXT_UINTR:
    case ZYDIS_ISA_EXT_VAES:
    case ZYDIS_ISA_EXT_VPCLMULQDQ:
    case ZYDIS_ISA_EXT_XOP:
        return true;
    default:
        return false;
    }
}

/* What a processor model may or may not have: the others of its family raise #UD, whatever the
 * host's processor does. */
static const struct {
    ZydisISASet set;
    const char *feature;
} model_sets[] = {
    {ZYDIS_ISA_SET_FMA, "fma"},          {ZYDIS_ISA_SET_MOVBE, "movbe"},
    {ZYDIS_ISA_SET_AES, "aes"},          {ZYDIS_ISA_SET_AVXAES, "aes"},
    {ZYDIS_ISA_SET_PCLMULQDQ, "pclmul"}, {ZYDIS_ISA_SET_AVX, "avx"},
    {ZYDIS_ISA_SET_AVX2, "avx2"},        {ZYDIS_ISA_SET_AVX2GATHER, "avx2"},
    {ZYDIS_ISA_SET_F16C, "f16c"},        {ZYDIS_ISA_SET_RDRAND, "rdrand"},
    {ZYDIS_ISA_SET_RDSEED, "rdseed"},    {ZYDIS_ISA_SET_BMI1, "bmi1"},
    {ZYDIS_ISA_SET_BMI2, "bmi2"},        {ZYDIS_ISA_SET_ADOX_ADCX, "adx"},
    {ZYDIS_ISA_SET_SHA, "sha"},          {ZYDIS_ISA_SET_RDTSCP, "rdtscp"},
    {ZYDIS_ISA_SET_XSAVE, "xsave"},      {ZYDIS_ISA_SET_XSAVEOPT, "xsaveopt"},
    {ZYDIS_ISA_SET_XSAVEC, "xsavec"},    {ZYDIS_ISA_SET_SMAP, "smap"},
};
_Static_assert(G_N_ELEMENTS(model_sets) <= 32, "struct soft_code.lacks");

void soft_decoder_model(struct soft_code *c, const struct hsk_cpuid *model)
{
    for (unsigned i = 0; model && i < G_N_ELEMENTS(model_sets); i++)
        if (!hsk_cpuid_has(model, model_sets[i].feature))
            c->lacks |= 1u << i;
    /* without them, their bytes are BSF and BSR behind a prefix that means nothing */
    for (unsigned i = 0; model && i < G_N_ELEMENTS(c->decoder); i++) {
        ZydisDecoderEnableMode(&c->decoder[i], ZYDIS_DECODER_MODE_TZCNT,
                               hsk_cpuid_has(model, "bmi1"));
        ZydisDecoderEnableMode(&c->decoder[i], ZYDIS_DECODER_MODE_LZCNT,
                               hsk_cpuid_has(model, "lzcnt"));
    }
}

static bool lacking(const struct soft_x *x, uint32_t lacks)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(model_sets); i++)
        if ((lacks >> i & 1) && x->in.meta.isa_set == model_sets[i].set)
            return true;
    return false;
}

static uint8_t kind_of(struct soft_x *x, uint32_t mode, uint32_t lacks)
{
    const ZydisDecodedInstruction *in = &x->in;
    uint8_t flow;

    if (lacks && lacking(x, lacks))
        return SOFT_X_UD;
    if (in->encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY &&
        in->encoding != ZYDIS_INSTRUCTION_ENCODING_VEX)
        return SOFT_X_UD; /* EVEX, XOP, 3DNow!: not in our processor model */
    if (in->encoding == ZYDIS_INSTRUCTION_ENCODING_VEX && (mode & SOFT_MODE_REAL))
        return SOFT_X_UD;
    if (is_nop(x))
        return SOFT_X_NOP;
    if (is_string(x))
        return SOFT_X_STRING;
    switch (in->mnemonic) {
    case ZYDIS_MNEMONIC_LEA:
        return SOFT_X_LEA;
    case ZYDIS_MNEMONIC_BT:
    case ZYDIS_MNEMONIC_BTS:
    case ZYDIS_MNEMONIC_BTR:
    case ZYDIS_MNEMONIC_BTC:
        if (x->mem < 0 || x->op[1].type != ZYDIS_OPERAND_TYPE_REGISTER)
            return SOFT_X_PASS;
        /* the bit's address wraps like any other */
        return in->address_width == (in->machine_mode == ZYDIS_MACHINE_MODE_LONG_64 ? 64 : 32)
                   ? SOFT_X_BT
                   : SOFT_X_HELPER;
    case ZYDIS_MNEMONIC_CLD:
    case ZYDIS_MNEMONIC_STD:
        return SOFT_X_DF;
    case ZYDIS_MNEMONIC_UD0:
    case ZYDIS_MNEMONIC_UD1:
    case ZYDIS_MNEMONIC_UD2:
        return SOFT_X_UD;
    default:
        break;
    }
    flow = flow_kind(x);
    if (flow != SOFT_X_HELPER)
        return flow;
    if (base_passes(x) || set_passes(x))
        return SOFT_X_PASS;
    if (soft_exec_knows((uint16_t)in->mnemonic))
        return SOFT_X_HELPER;
    return not_ours(x) ? SOFT_X_UD : SOFT_X_UNKNOWN;
}

/* A count of 0 leaves the flags alone, so shifts by CL and by 0 overwrite nothing for certain. */
static bool kills_flags(const struct soft_x *x)
{
    const ZydisDecodedOperand *last;

    switch (x->in.mnemonic) {
    case ZYDIS_MNEMONIC_SHL:
    case ZYDIS_MNEMONIC_SHR:
    case ZYDIS_MNEMONIC_SAR:
    case ZYDIS_MNEMONIC_ROL:
    case ZYDIS_MNEMONIC_ROR:
    case ZYDIS_MNEMONIC_RCL:
    case ZYDIS_MNEMONIC_RCR:
    case ZYDIS_MNEMONIC_SHLD:
    case ZYDIS_MNEMONIC_SHRD:
        last = &x->op[x->in.operand_count_visible - 1];
        return last->type == ZYDIS_OPERAND_TYPE_IMMEDIATE && (last->imm.value.u & 31) != 0;
    default:
        return true;
    }
}

/* Of the instructions that C (or translate-system.c) does, those that have nothing to do with the
 * arithmetic flags. */
static bool flags_untouched(ZydisMnemonic m)
{
    switch (m) {
    case ZYDIS_MNEMONIC_CLI:
    case ZYDIS_MNEMONIC_STI:
    case ZYDIS_MNEMONIC_STAC:
    case ZYDIS_MNEMONIC_CLAC:
    case ZYDIS_MNEMONIC_SWAPGS:
    case ZYDIS_MNEMONIC_RDTSC:
    case ZYDIS_MNEMONIC_RDTSCP:
    case ZYDIS_MNEMONIC_MOV: /* of selectors, control and debug registers */
        return true;
    default:
        return false;
    }
}

static void find_flags(struct soft_x *x)
{
    const ZydisAccessedFlags *f = x->in.cpu_flags;

    x->reads = SOFT_ARITH;
    x->kills = 0;
    switch (x->kind) {
    case SOFT_X_HELPER:
        if (flags_untouched(x->in.mnemonic))
            x->reads = 0;
        return;
    case SOFT_X_STRING:
        if (!f || !(f->modified & SOFT_ARITH)) /* else none or all, by the count */
            x->reads = 0;
        return;
    case SOFT_X_UD:
    case SOFT_X_GP:
    case SOFT_X_UNKNOWN:
        return; /* C sees and may change all flags */
    case SOFT_X_NOP:
    case SOFT_X_LEA:
    case SOFT_X_DF:
        x->reads = 0;
        return;
    default:
        x->reads = f ? f->tested & SOFT_ARITH : 0;
        /* #DE is a fault by design: its handler sees the flags that were there. */
        if (x->in.mnemonic == ZYDIS_MNEMONIC_DIV || x->in.mnemonic == ZYDIS_MNEMONIC_IDIV)
            x->reads = SOFT_ARITH;
        if (f && kills_flags(x))
            x->kills = (f->modified | f->set_0 | f->set_1 | f->undefined) & SOFT_ARITH;
        return;
    }
}

/* Where Zydis 4.0 is wrong. */
static void correct(struct soft_x *x)
{
    ZydisDecodedOperandMem *m = x->mem >= 0 ? &x->op[x->mem].mem : NULL;

    /* it reads 16 bits, not 32 */
    if (x->in.mnemonic == ZYDIS_MNEMONIC_MOVSXD && x->in.operand_width == 16)
        x->op[1].size = 16;
    /* it checks a byte, although it flushes a line */
    if (x->in.mnemonic == ZYDIS_MNEMONIC_CLFLUSH && m)
        x->op[x->mem].size = 8;
    /* NOTRACK is a segment prefix as well, where there are segments */
    if (m && (x->in.attributes & ZYDIS_ATTRIB_HAS_NOTRACK) && m->segment == ZYDIS_REGISTER_SS &&
        x->in.machine_mode != ZYDIS_MACHINE_MODE_LONG_64)
        m->segment = ZYDIS_REGISTER_DS;
    /* with an address-size prefix, REX.B makes a base register of what stands for none */
    if (m && (x->in.attributes & ZYDIS_ATTRIB_HAS_SIB) && x->in.raw.modrm.mod == 0 &&
        x->in.raw.sib.base == 5 && m->base != ZYDIS_REGISTER_NONE) {
        m->base = ZYDIS_REGISTER_NONE;
        m->disp.has_displacement = ZYAN_TRUE;
        m->disp.value = x->in.raw.disp.value;
    }
}

/* 0F 1A and 0F 1B are no-operations of any form to a processor without MPX; Zydis refuses some
 * forms: as 0F 1F, then. */
static ZyanStatus decode_hint(const ZydisDecoder *d, const uint8_t *bytes, unsigned n,
                              ZyanStatus st, struct soft_x *x)
{
    uint8_t copy[15];

    for (unsigned i = 0; i + 1 < n; i++) {
        if (bytes[i] != 0x0f || (bytes[i + 1] != 0x1a && bytes[i + 1] != 0x1b))
            continue;
        memcpy(copy, bytes, n);
        copy[i + 1] = 0x1f;
        return ZydisDecoderDecodeFull(d, copy, n, &x->in, x->op);
    }
    return st;
}

bool soft_decode(struct soft_vcpu *v, struct soft_x *x, uint32_t mode, const uint8_t *bytes,
                 unsigned n, uint64_t pc, bool *more)
{
    const ZydisDecoder *decoder =
        &v->code->decoder[mode & SOFT_MODE_CODE16 ? 2 : !!(mode & SOFT_MODE_CODE32)];
    unsigned needs;
    ZyanStatus st;

    n = MIN(n, 15u);
    st = ZydisDecoderDecodeFull(decoder, bytes, n, &x->in, x->op);
    if (!ZYAN_SUCCESS(st) && st != ZYDIS_STATUS_NO_MORE_DATA)
        st = decode_hint(decoder, bytes, n, st, x);

    needs = ZYAN_SUCCESS(st) ? n
                             : soft_length(bytes, n,
                                           mode & SOFT_MODE_CODE16   ? 16
                                           : mode & SOFT_MODE_CODE32 ? 32
                                                                     : 64);
    *more = needs > n && n < 15;
    x->pc = pc;
    x->fpu = SOFT_FPU_NONE;
    x->mem = -1;
    if (!ZYAN_SUCCESS(st)) {
        x->kind = needs > 15 ? SOFT_X_GP : SOFT_X_UD;
        x->in.length = 0;
        x->next = pc;
        x->reads = SOFT_ARITH;
        x->kills = 0;
        return !*more;
    }
    memcpy(x->raw, bytes, x->in.length);
    x->next = pc + x->in.length;
    if (mode & SOFT_MODE_CODE32)
        x->next &= UINT32_MAX;
    for (unsigned i = 0; i < x->in.operand_count_visible; i++)
        if (x->op[i].type == ZYDIS_OPERAND_TYPE_MEMORY && x->mem < 0)
            x->mem = (int8_t)i;
    correct(x);
    x->kind = kind_of(x, mode, v->code->lacks);
    find_flags(x);
    return true;
}

/* After these nothing of the block follows. */
bool soft_x_ends(const struct soft_x *x)
{
    switch (x->kind) {
    case SOFT_X_CALL:
    case SOFT_X_RET:
    case SOFT_X_JMP:
    case SOFT_X_JCC:
    case SOFT_X_LOOP:
    case SOFT_X_UD:
    case SOFT_X_GP:
    case SOFT_X_UNKNOWN:
        return true;
    case SOFT_X_HELPER:
        switch (x->in.meta.category) {
        case ZYDIS_CATEGORY_CALL:
        case ZYDIS_CATEGORY_RET:
        case ZYDIS_CATEGORY_UNCOND_BR:
        case ZYDIS_CATEGORY_INTERRUPT:
        case ZYDIS_CATEGORY_SYSCALL:
        case ZYDIS_CATEGORY_SYSRET:
            return true;
        default:
            return x->in.mnemonic == ZYDIS_MNEMONIC_HLT || x->in.mnemonic == ZYDIS_MNEMONIC_STAC ||
                   x->in.mnemonic == ZYDIS_MNEMONIC_CLAC;
        }
    default:
        return false;
    }
}

static uint8_t segment_of(ZydisRegister r)
{
    return r >= ZYDIS_REGISTER_ES && r <= ZYDIS_REGISTER_GS ? (uint8_t)(r - ZYDIS_REGISTER_ES)
                                                            : HSK_DS;
}

static int8_t address_gpr(ZydisRegister r)
{
    if (r >= ZYDIS_REGISTER_XMM0 && r <= ZYDIS_REGISTER_XMM15) /* of a gather */
        return (int8_t)(SOFT_INDEX_XMM + (r - ZYDIS_REGISTER_XMM0));
    if (r >= ZYDIS_REGISTER_YMM0 && r <= ZYDIS_REGISTER_YMM15)
        return (int8_t)(SOFT_INDEX_YMM + (r - ZYDIS_REGISTER_YMM0));
    return r == ZYDIS_REGISTER_RIP || r == ZYDIS_REGISTER_EIP ? 16 : (int8_t)soft_gpr(r);
}

static void insn_operand(const ZydisDecodedOperand *o, struct soft_insn *out, unsigned i,
                         unsigned *nimm)
{
    struct soft_operand *s = &out->op[i];
    int g;

    s->size = (uint8_t)(o->size / 8);
    switch (o->type) {
    case ZYDIS_OPERAND_TYPE_MEMORY:
        s->kind = SOFT_OP_MEM;
        out->base = address_gpr(o->mem.base);
        out->index = address_gpr(o->mem.index);
        out->scale = o->mem.scale ? o->mem.scale : 1;
        out->disp = o->mem.disp.has_displacement ? o->mem.disp.value : 0;
        out->seg = segment_of(o->mem.segment);
        return;
    case ZYDIS_OPERAND_TYPE_IMMEDIATE:
        s->kind = SOFT_OP_IMM;
        if (*nimm < 2)
            out->imm[(*nimm)++] = o->imm.value.s;
        return;
    case ZYDIS_OPERAND_TYPE_POINTER:
        s->kind = SOFT_OP_FAR;
        out->imm[0] = o->ptr.offset;
        out->imm[1] = o->ptr.segment;
        return;
    case ZYDIS_OPERAND_TYPE_REGISTER:
        break;
    default:
        return;
    }
    g = soft_gpr(o->reg.value);
    if (g >= 0) {
        s->kind = SOFT_OP_REG;
        s->reg = (uint8_t)g;
        return;
    }
    switch (ZydisRegisterGetClass(o->reg.value)) {
    case ZYDIS_REGCLASS_SEGMENT:
        s->kind = SOFT_OP_SEG;
        s->reg = segment_of(o->reg.value);
        return;
    case ZYDIS_REGCLASS_CONTROL:
        s->kind = SOFT_OP_CR;
        break;
    case ZYDIS_REGCLASS_DEBUG:
        s->kind = SOFT_OP_DR;
        break;
    default:
        s->kind = SOFT_OP_VEC;
        break;
    }
    s->reg = (uint8_t)ZydisRegisterGetId(o->reg.value);
}

/* The decoded instruction as the system half wants it. */
void soft_x_insn(const struct soft_x *x, uint32_t mode, struct soft_insn *out)
{
    const ZydisDecodedInstruction *in = &x->in;
    unsigned nimm = 0;

    memset(out, 0, sizeof *out);
    out->mnemonic = (uint16_t)in->mnemonic;
    out->length = in->length;
    out->opsize = in->operand_width / 8;
    out->addrsize = in->address_width / 8;
    out->mode = mode & SOFT_MODE_CODE16 ? 2 : mode & SOFT_MODE_CODE32 ? 4 : 8;
    out->rep = in->attributes & (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE) ? 0xf3
               : in->attributes & ZYDIS_ATTRIB_HAS_REPNE                       ? 0xf2
                                                                               : 0;
    out->lock = !!(in->attributes & ZYDIS_ATTRIB_HAS_LOCK);
    out->opcode = in->opcode;
    out->modrm = in->attributes & ZYDIS_ATTRIB_HAS_MODRM ? x->raw[in->raw.modrm.offset] : 0;
    out->base = out->index = -1;
    out->scale = 1;
    out->seg = HSK_DS;
    if (in->attributes & ZYDIS_ATTRIB_HAS_SEGMENT_FS)
        out->seg = HSK_FS;
    else if (in->attributes & ZYDIS_ATTRIB_HAS_SEGMENT_GS)
        out->seg = HSK_GS;
    else if (mode & SOFT_MODE_CODE32)
        out->seg = in->attributes & ZYDIS_ATTRIB_HAS_SEGMENT_CS   ? HSK_CS
                   : in->attributes & ZYDIS_ATTRIB_HAS_SEGMENT_SS ? HSK_SS
                   : in->attributes & ZYDIS_ATTRIB_HAS_SEGMENT_ES ? HSK_ES
                                                                  : HSK_DS;
    out->nops = in->operand_count_visible > 4 ? 4 : in->operand_count_visible;
    for (unsigned i = 0; i < out->nops; i++) {
        if (x->kind == SOFT_X_STRING && x->op[i].type == ZYDIS_OPERAND_TYPE_MEMORY) {
            out->op[i].kind = SOFT_OP_MEM;
            out->op[i].size = (uint8_t)(x->op[i].size / 8);
            continue; /* rsi and rdi are known; seg is the source's */
        }
        insn_operand(&x->op[i], out, i, &nimm);
    }
}
