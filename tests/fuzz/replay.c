/* SPDX-License-Identifier: MIT */
/* Runs a fuzz target over the files of a corpus folder, then over mutations of them from a fixed
   seed: a quick regression test that needs no libFuzzer. */
#include <base/util.h>

#include <stdio.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static unsigned mutate_and_run(const guint8 *data, gsize size, GRand *rand, unsigned rounds)
{
    for (unsigned i = 0; i < rounds; i++) {
        gsize n = size ? 1 + (gsize)g_rand_int_range(rand, 0, (gint32)MIN(size, 1u << 20)) : 0;
        g_autofree guint8 *copy = g_memdup2(data, MAX(n, 1));

        if (n == 0)
            copy = g_malloc0(1);
        for (unsigned k = 0; n && k < 1 + i % 8; k++)
            copy[g_rand_int_range(rand, 0, (gint32)n)] = (guint8)g_rand_int(rand);
        LLVMFuzzerTestOneInput(copy, n);
    }
    return rounds;
}

int main(int argc, char **argv)
{
    g_autoptr(GRand) rand = g_rand_new_with_seed(1);
    unsigned files = 0, runs = 0;

    for (int i = 1; i < argc; i++) {
        g_autoptr(GDir) dir = g_dir_open(argv[i], 0, NULL);
        const char *name;

        while (dir && (name = g_dir_read_name(dir)) != NULL) {
            g_autofree char *path = g_build_filename(argv[i], name, NULL);
            g_autofree char *data = NULL;
            gsize size;

            if (!g_file_get_contents(path, &data, &size, NULL))
                continue;
            LLVMFuzzerTestOneInput((const uint8_t *)data, size);
            runs += 1 + mutate_and_run((const guint8 *)data, size, rand, 200);
            files++;
        }
    }
    if (files == 0) { /* no corpus: random bytes still must not crash it */
        guint8 bytes[512];

        for (unsigned k = 0; k < 2000; k++) {
            for (unsigned i = 0; i < sizeof bytes; i++)
                bytes[i] = (guint8)g_rand_int(rand);
            LLVMFuzzerTestOneInput(bytes, (size_t)g_rand_int_range(rand, 0, sizeof bytes));
            runs++;
        }
    }
    printf("%u files, %u runs\n", files, runs);
    return 0;
}
