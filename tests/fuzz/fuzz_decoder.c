/* SPDX-License-Identifier: MIT */
/* fuzz-libs: hsk_vmm */
/* Guest code as it may come, decoded in all three code sizes: a length within bounds, a kind, and
 * what the system half gets of it. */
#include "../../vmm/engine-soft/xlate.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct soft_vcpu *make(void)
{
    struct soft_vcpu *v = g_new0(struct soft_vcpu, 1);

    v->engine = g_new0(struct soft_engine, 1);
    v->code = soft_code_new(false, NULL);
    hsk_assert(v->code);
    return v;
}

static void decode(struct soft_vcpu *v, uint32_t mode, const uint8_t *bytes, unsigned n)
{
    struct soft_x x = {0};
    struct soft_insn in;
    bool more;

    if (!soft_decode(v, &x, mode, bytes, n, 0x1000, &more)) {
        hsk_assert(more && n < 15);
        return;
    }
    hsk_assert(x.in.length <= MIN(n, 15u) && x.kind <= SOFT_X_UNKNOWN);
    hsk_assert(x.in.length || x.kind == SOFT_X_UD || x.kind == SOFT_X_GP);
    hsk_assert(x.kind != SOFT_X_UNKNOWN);
    if (!x.in.length)
        return;
    if (x.kind != SOFT_X_UD) /* by the maps, too; other makers' extensions go by other rules */
        hsk_assert(soft_length(bytes, n,
                               mode & SOFT_MODE_CODE16   ? 16
                               : mode & SOFT_MODE_CODE32 ? 32
                                                         : 64) == x.in.length);
    soft_x_insn(&x, mode, &in);
    hsk_assert(in.length == x.in.length && in.nops <= 4);
    for (unsigned i = 0; i < in.nops; i++)
        hsk_assert(in.op[i].kind != SOFT_OP_REG || in.op[i].reg < 20);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint32_t modes[] = {
        0, SOFT_MODE_CODE32, SOFT_MODE_CODE32 | SOFT_MODE_CODE16 | SOFT_MODE_STACK16, SOFT_MMU_USER,
        SOFT_MODE_CODE32 | SOFT_MODE_CODE16 | SOFT_MODE_REAL};
    static struct soft_vcpu *v;
    uint8_t bytes[15];

    if (!v)
        v = make();
    for (size_t at = 0; at < MIN(size, 64u); at++)
        for (unsigned i = 0; i < G_N_ELEMENTS(modes); i++) {
            unsigned n = (unsigned)MIN(size - at, sizeof bytes);

            memcpy(bytes, data + at, n);
            decode(v, modes[i], bytes, n);
        }
    return 0;
}
