/* SPDX-License-Identifier: MIT */
/*
 * manifest.json: what is written reads back; every hostile value is refused (hva-format's list,
 * 13).
 */
#include <appliance-format/manifest.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define UUID "7b0c9f0e-5b1d-4c57-9d55-0f4c6e4f5a11"

/* A manifest whose machine, disks and name can be put in. */
static char *text_of(const char *name, const char *machine, const char *disks, const char *more)
{
    return g_strdup_printf("{\"format\":\"haversack-appliance\",\"formatVersion\":[1,0],"
                           "\"requires\":[],\"uuid\":\"" UUID "\",\"name\":%s,"
                           "\"machine\":{\"type\":\"hv-pc-1.0\",%s},\"disks\":%s%s}",
                           name, machine, disks, more);
}

#define MACHINE "\"cpu\":{\"count\":2,\"model\":\"v2,+aes\"},\"memory\":{\"bytes\":268435456}"
#define DISK    "{\"id\":\"root\",\"bus\":\"virtio\",\"bytes\":1048576}"

static void refused(char *text, const char *words)
{
    g_autoptr(GError) error = NULL;
    assert_null(hsk_manifest_parse("t.hva", text, strlen(text), &error));
    if (strstr(error->message, words) == NULL)
        fail_msg("\"%s\" does not say \"%s\"", error->message, words);
    g_free(text);
}

static void what_is_written_reads_back(void **state)
{
    char name[] = "Débian \"12\" <b>", root[] = "root", data[] = "data-2", virtio[] = "virtio",
         cmdline[] = "console=ttyS0 quiet", cpu[] = "v3";
    struct hsk_manifest_disk disks[] = {{root, 100ull << 30, virtio}, {data, 4096, virtio}};
    struct hsk_manifest m = {.name = name,
                             .cpu = cpu,
                             .ncpus = 4,
                             .memory_bytes = 2ull << 30,
                             .vram_bytes = 16 << 20,
                             .disks = disks,
                             .ndisks = 2,
                             .cmdline = cmdline,
                             .has_kernel = true,
                             .has_initrd = true};
    GError *error = NULL;
    HSK_AUTO(hsk_manifest, copy) = hsk_manifest_copy(&m);
    g_autofree char *text = hsk_manifest_format(copy, &error);
    assert_non_null(text);
    HSK_AUTO(hsk_manifest, got) = hsk_manifest_parse("t.hva", text, strlen(text), &error);
    assert_non_null(got);
    assert_string_equal(got->name, name);
    assert_string_equal(got->uuid, copy->uuid);
    assert_string_equal(got->cpu, "v3");
    assert_string_equal(got->cmdline, cmdline);
    assert_int_equal(got->ncpus, 4);
    assert_int_equal(got->memory_bytes, 2ull << 30);
    assert_int_equal(got->vram_bytes, 16 << 20);
    assert_int_equal(got->ndisks, 2);
    assert_string_equal(got->disks[1].id, "data-2");
    assert_int_equal(got->disks[0].size_bytes, 100ull << 30);
    assert_true(got->has_kernel && got->has_initrd);
}

static void unknown_keys_are_ignored_but_requirements_are_not(void **state)
{
    g_autofree char *text =
        text_of("\"x\"", MACHINE, "[" DISK "]", ",\"x-note\":{\"a\":1},\"requires\":[]");
    assert_null(hsk_manifest_parse("t.hva", text, strlen(text), NULL)); /* "requires" twice */
    g_autofree char *fine =
        text_of("\"x\"", MACHINE ",\"tpm\":true", "[" DISK "]", ",\"x-note\":{\"a\":1}");
    HSK_AUTO(hsk_manifest, m) = hsk_manifest_parse("t.hva", fine, strlen(fine), NULL);
    assert_non_null(m);
    refused(g_strdup("{\"format\":\"haversack-appliance\",\"formatVersion\":[1,0],\"requires\":["
                     "\"quantum-disk\"]}"),
            "needs \"quantum-disk\"");
    refused(g_strdup("{\"format\":\"haversack-appliance\",\"formatVersion\":[1,0],\"requires\":["
                     "\"a\\u202eb\"]}"),
            "a feature without a name");
    refused(
        g_strdup("{\"format\":\"haversack-appliance\",\"formatVersion\":[1,0],\"requires\":\"x\"}"),
        "a feature without a name");
    refused(g_strdup("{\"format\":\"haversack-appliance\",\"formatVersion\":[2,0]}"),
            "format version 2");
    refused(g_strdup("{\"format\":\"other\"}"), "not a Haversack manifest");
    refused(g_strdup("[]"), "no object");
}

static void hostile_json_is_refused(void **state)
{
    refused(g_strdup(""), "not valid JSON");
    refused(g_strdup("{\"a\":1,\"a\":2}"), "not valid JSON");
    refused(g_strdup("{\"a\":NaN}"), "not valid JSON");
    refused(g_strdup("{\"a\":\"\\ud800\"}"), "not valid JSON");
    refused(g_strdup("{\"a\":\"\xff\"}"), "not valid JSON");
    refused(g_strnfill(1000000, '['), "not valid JSON");
    refused(g_strnfill(HSK_MANIFEST_MAX_BYTES + 1, ' '), "larger than 1 MiB");
    g_autofree char *open = g_strnfill(17, '['), *close = g_strnfill(17, ']');
    refused(g_strdup_printf("{\"a\":%s%s}", open, close), "too deeply");
}

static void impossible_values_are_refused(void **state)
{
    static const struct {
        const char *name, *machine, *disks, *words;
    } cases[] = {
        {"\"\"", MACHINE, "[]", "name"},
        {"\"a\\nb\"", MACHINE, "[]", "name"},
        {"\"a\\u202eb\"", MACHINE, "[]", "name"},
        {"5", MACHINE, "[]", "wrong kind"},
        {"\"x\"", "\"cpu\":{\"count\":0},\"memory\":{\"bytes\":268435456}", "[]", "processors"},
        {"\"x\"", "\"cpu\":{\"count\":1000000000},\"memory\":{\"bytes\":268435456}", "[]",
         "processors"},
        {"\"x\"", "\"cpu\":{\"count\":4294967297},\"memory\":{\"bytes\":268435456}", "[]",
         "processors"},
        {"\"x\"", "\"cpu\":{\"model\":\"v2;rm\"},\"memory\":{\"bytes\":268435456}", "[]",
         "processor model"},
        {"\"x\"", "\"memory\":{\"bytes\":9223372036854775807}", "[]", "memory size"},
        {"\"x\"", "\"memory\":{\"bytes\":9223372036854775808}", "[]", "JSON"},
        {"\"x\"", "\"memory\":{\"bytes\":1e400}", "[]", "JSON"},
        {"\"x\"", "\"memory\":{\"bytes\":268435456.0}", "[]", "wrong kind"},
        {"\"x\"", "\"memory\":{\"bytes\":268435457}", "[]", "memory size"},
        {"\"x\"", "\"memory\":{\"bytes\":-4096}", "[]", "wrong kind"},
        {"\"x\"", "\"memory\":5", "[]", "memory size"},
        {"\"x\"", MACHINE ",\"vram\":{\"bytes\":1099511627776}", "[]", "screen"},
        {"\"x\"", MACHINE ",\"boot\":{\"kernel\":\"../../etc/shadow\"}", "[]", "wrong kind"},
        {"\"x\"", MACHINE ",\"boot\":{\"initrd\":\"boot/initrd\"}", "[]", "no kernel"},
        {"\"x\"", MACHINE ",\"boot\":{\"kernel\":\"boot/kernel\",\"commandLine\":\"a\\nb\"}", "[]",
         "command line"},
        {"\"x\"", MACHINE, "[" DISK "," DISK "]", "same id"},
        {"\"x\"", MACHINE, "[{\"id\":\"../x\",\"bus\":\"virtio\",\"bytes\":4096}]",
         "impossible id"},
        {"\"x\"", MACHINE, "[{\"id\":\"Root\",\"bus\":\"virtio\",\"bytes\":4096}]",
         "impossible id"},
        {"\"x\"", MACHINE, "[{\"bus\":\"virtio\",\"bytes\":4096}]", "impossible id"},
        {"\"x\"", MACHINE, "[{\"id\":\"a\",\"bus\":\"virtio\",\"bytes\":4097}]", "impossible size"},
        {"\"x\"", MACHINE, "[{\"id\":\"a\",\"bus\":\"virtio\",\"bytes\":9223372036854771712}]",
         "impossible size"},
        {"\"x\"", MACHINE, "[{\"id\":\"a\",\"bus\":\"a b\",\"bytes\":4096}]",
         "impossible interface"},
        {"\"x\"", MACHINE, "{}", "wrong kind"},
        {"\"x\"", MACHINE, "[1,2]", "impossible id"},
    };
    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++)
        refused(text_of(cases[i].name, cases[i].machine, cases[i].disks, ""), cases[i].words);
}

static void the_writer_refuses_what_the_reader_would(void **state)
{
    char name[] = "x";
    struct hsk_manifest m = {.name = name, .ncpus = 1, .memory_bytes = 4096};
    g_autoptr(GError) error = NULL;
    HSK_AUTO(hsk_manifest, copy) = hsk_manifest_copy(&m);
    assert_null(hsk_manifest_format(copy, &error));
    assert_non_null(strstr(error->message, "memory size"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_reads_back),
        cmocka_unit_test(unknown_keys_are_ignored_but_requirements_are_not),
        cmocka_unit_test(hostile_json_is_refused),
        cmocka_unit_test(impossible_values_are_refused),
        cmocka_unit_test(the_writer_refuses_what_the_reader_would),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
