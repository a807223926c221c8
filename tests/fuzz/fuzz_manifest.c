/* SPDX-License-Identifier: MIT */
/* fuzz-libs: hsk_snapshots */
/*
 * The JSON of a document: manifest.json and the record of a version. What is accepted must be
 * written and read again.
 */
#include <snapshots/store.h>

#include "../../snapshots/record.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    HSK_AUTO(hsk_manifest, m) = hsk_manifest_parse("fuzz", data, size, NULL);
    if (m != NULL) {
        g_autofree char *text = hsk_manifest_format(m, NULL);
        hsk_assert(text != NULL);
        HSK_AUTO(hsk_manifest, again) = hsk_manifest_parse("fuzz", text, strlen(text), NULL);
        hsk_assert(again != NULL && again->memory_bytes == m->memory_bytes &&
                   again->ndisks == m->ndisks);
    }
    HSK_AUTO(hsk_record, r) =
        hsk_record_parse("fuzz", "00112233445566778899aabbccddeeff", data, size, NULL);
    if (r != NULL) {
        g_autofree char *text = hsk_record_format(r);
        HSK_AUTO(hsk_record, again) =
            hsk_record_parse("fuzz", r->info.id, text, strlen(text), NULL);
        hsk_assert(again != NULL && again->objects->len == r->objects->len);
    }
    return 0;
}
