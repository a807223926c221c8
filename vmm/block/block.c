/* SPDX-License-Identifier: MIT */
/* What all block back ends share (vmm/block.h). */
#include <vmm/block.h>

void hsk_block_attach(struct hsk_block *b, struct hsk_loop *loop)
{
    hsk_assert(b->loop == NULL);
    b->loop = loop;
    if (b->ops->attach)
        b->ops->attach(b);
}
