/* SPDX-License-Identifier: MIT */
/* Guest memory objects as the keeper makes them: see memory.h. Thread: main. */
#include "memory.h"

#include <vmm/memory.h>

bool hsk_memory_give_new(struct hsk_child *c, const char *name, uint64_t size_bytes, GError **error)
{
    g_autofree char *attr = g_strconcat(name, ".attr", NULL);
    struct hsk_memobj *obj = hsk_memobj_new(name, size_bytes, error);

    if (!obj)
        return false;
    hsk_child_give(c, name, obj->fd);
    hsk_child_give(c, attr, obj->attr_fd);
    hsk_memobj_free(obj);
    return true;
}
