/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Which disks are merged and which are handed over; and an agent that lies. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/strbuf.h"
#include "diskplan.h"

#define MOUNT(dir, device, disk, system) \
    "{\"dir\": \"" dir "\", \"type\": \"ext4\", \"below\": \"/\", \"device\": \"" device "\", \"disks\": [\"" disk "\"], \"system\": " system "}"
#define ROOT MOUNT("/", "xvda2", "xvda", "true")

static struct molt_json *parse(const char *text)
{
    struct molt_json *v = NULL;
    CLEANUP_ERROR struct molt_error *err = NULL;
    if (molt_json_parse(text, strlen(text), &v, &err) < 0)
        fail_msg("%s: %s", text, molt_error_text(err));
    return v;
}

/* "xvda xvdb:/srv" (handed over, mounted there) and, behind " | ", what is merged; or the code of the error. */
static char *plan(const char *vdevs, const char *guest, const char *merge)
{
    CLEANUP_JSON struct molt_json *disks = molt_json_array(), *g = parse(guest), *out = NULL, *merged = NULL;
    CLEANUP_FREE char *copy = molt_xstrdup(vdevs);
    CLEANUP_STRBUF struct molt_strbuf b = MOLT_STRBUF_INIT;
    CLEANUP_ERROR struct molt_error *err = NULL;
    char *save = NULL;
    for (char *w = strtok_r(copy, " ", &save); w; w = strtok_r(NULL, " ", &save)) {
        struct molt_json *d = molt_json_object();
        molt_json_set_string(d, "vdev", w);
        molt_json_append(disks, d);
    }
    int r = molt_diskplan(disks, g, merge, &out, &merged, &err);
    if (r < 0) {
        assert_null(out);
        assert_null(merged);
        return molt_xasprintf("%s: %s", molt_code_name(r), molt_error_text(err));
    }
    for (size_t i = 0; i < molt_json_size(out); i++) {
        const struct molt_json *d = molt_json_at(out, i), *dirs = molt_json_get(d, "dirs");
        molt_strbuf_addf(&b, "%s%s%s", i ? " " : "", molt_json_get_string(d, "vdev"), dirs ? ":" : "");
        for (size_t k = 0; k < molt_json_size(dirs); k++)
            molt_strbuf_addf(&b, "%s%s", k ? "," : "", molt_json_str(molt_json_at(dirs, k)));
    }
    molt_strbuf_addf(&b, " |");
    for (size_t i = 0; i < molt_json_size(merged); i++)
        molt_strbuf_addf(&b, " %s", molt_json_str(molt_json_at(merged, i)));
    return molt_strbuf_steal(&b);
}

static void expect(const char *vdevs, const char *guest, const char *merge, const char *want)
{
    CLEANUP_FREE char *got = plan(vdevs, guest, merge);
    assert_string_equal(got, want);
}

/* The error's code, and a word of its text. */
static void refused(const char *vdevs, const char *guest, const char *merge, int code, const char *word)
{
    CLEANUP_FREE char *got = plan(vdevs, guest, merge);
    if (strncmp(got, molt_code_name(code), strlen(molt_code_name(code))) != 0 || !strstr(got, word))
        fail_msg("%s, not %s with %s", got, molt_code_name(code), word);
}

static void test_one_disk(void **state)
{
    (void)state;
    expect("xvda", "{\"mounts\": [" MOUNT("/", "xvda", "xvda", "true") "]}", NULL, "xvda | /");
    expect("hda", "{\"mounts\": [" MOUNT("/", "xvda", "xvda", "true") "]}", NULL, "hda | /");
    expect("xvda1", "{\"mounts\": [" MOUNT("/", "xvda1", "xvda1", "true") "]}", NULL, "xvda1 | /");
}

static void test_partitions(void **state)
{
    (void)state;
    expect("xvda", "{\"mounts\": [" ROOT ", " MOUNT("/boot", "xvda1", "xvda", "true") ", " MOUNT("/home", "xvda4", "xvda", "false") "], \"swaps\": []}", NULL,
           "xvda | / /boot /home");
}

static void test_data_disk(void **state)
{
    static const char guest[] = "{\"mounts\": [" ROOT ", " MOUNT("/srv", "xvdb", "xvdb", "false") ", " MOUNT("/srv/a", "xvdc1", "xvdc", "false") ", " MOUNT("/b", "xvdc2", "xvdc", "false") "]}";
    (void)state;
    expect("xvda xvdb xvdc", guest, NULL, "xvda xvdb:/srv xvdc:/srv/a,/b | /");
    expect("xvda xvdb xvdc", guest, "xvdb", "xvda xvdb xvdc:/srv/a,/b | / /srv");
    expect("xvda xvdb xvdc", guest, "xvdc,xvdb", "xvda xvdb xvdc | / /srv /srv/a /b");
    expect("xvda xvdb xvdc", guest, "xvda", "xvda xvdb:/srv xvdc:/srv/a,/b | /");
    refused("xvda xvdb xvdc", guest, "xvdb,xvd", MOLT_E_USAGE, "xvd ");
}

static void test_disk_with_a_part_of_the_system(void **state)
{
    (void)state;
    expect("xvda xvdb", "{\"mounts\": [" ROOT ", " MOUNT("/srv", "xvdb1", "xvdb", "false") ", " MOUNT("/var", "xvdb2", "xvdb", "true") "]}", NULL, "xvda xvdb | / /srv /var");
    /* An agent that does not tell: merged. */
    expect("xvda xvdb", "{\"mounts\": [" ROOT ", {\"dir\": \"/srv\", \"type\": \"xfs\", \"below\": \"/\", \"device\": \"xvdb\", \"disks\": [\"xvdb\"]}]}", NULL, "xvda xvdb | / /srv");
}

static void test_swap_and_unused(void **state)
{
    (void)state;
    expect("xvda xvdb xvdc", "{\"mounts\": [" ROOT "], \"swaps\": [{\"device\": \"/dev/xvdb\", \"disks\": [\"xvdb\"]}]}", NULL, "xvda xvdb xvdc: | /");
}

static void test_mapped_devices(void **state)
{
    static const char guest[] = "{\"mounts\": [" MOUNT("/", "dm-0", "xvda", "true") ", {\"dir\": \"/srv\", \"type\": \"ext4\", \"below\": \"/\", \"device\": \"dm-1\", \"disks\": [\"xvdb\", \"xvdc\"], \"system\": false}]}";
    (void)state;
    expect("xvda xvdb xvdc", guest, NULL, "xvda xvdb xvdc | / /srv /srv");
}

static void test_refused(void **state)
{
    (void)state;
    refused("xvda", "{\"mounts\": [" ROOT ", " MOUNT("/mnt", "loop0", "loop0", "false") "]}", NULL, MOLT_E_UNSUPPORTED, "loop0");
    refused("xvda", "{\"mounts\": [" ROOT ", {\"dir\": \"/mnt\", \"type\": \"ext4\", \"below\": \"/srv\", \"device\": \"xvda2\", \"disks\": [\"xvda\"]}]}", NULL, MOLT_E_UNSUPPORTED, "bind mount");
    refused("xvda xvdb", "{\"mounts\": [" ROOT ", {\"dir\": \"/efi\", \"type\": \"vfat\", \"below\": \"/\", \"device\": \"xvdb\", \"disks\": [\"xvdb\"]}]}", NULL, MOLT_E_UNSUPPORTED, "vfat");
    refused("xvda", "{\"mounts\": []}", NULL, MOLT_E_UNSUPPORTED, "root");
}

static void test_hostile(void **state)
{
    static const char *const bad[] = {
        "{}", "{\"mounts\": 7}", "{\"mounts\": [7]}", "{\"mounts\": [{}]}", "{\"mounts\": [{\"dir\": \"relative\", \"type\": \"ext4\", \"below\": \"/\", \"device\": \"xvda\", \"disks\": [\"xvda\"]}]}",
        "{\"mounts\": [{\"dir\": \"/\", \"type\": \"ext4\", \"below\": \"/\", \"device\": \"xvda\", \"disks\": []}]}",
        "{\"mounts\": [{\"dir\": \"/\", \"type\": 1, \"below\": \"/\", \"device\": \"xvda\", \"disks\": [\"xvda\"]}]}",
    };
    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        refused("xvda", bad[i], NULL, MOLT_E_PROTOCOL, "form");
    refused("xvda", "{\"mounts\": [{\"dir\": \"/\", \"type\": \"ext4\", \"below\": \"/\", \"device\": \"xvda\", \"disks\": [3]}]}", NULL, MOLT_E_UNSUPPORTED, "no disk of the domain");
    refused("xvda", "{\"mounts\": [" MOUNT("/", "../../x", "../../x", "true") "]}", NULL, MOLT_E_UNSUPPORTED, "no disk of the domain");
    CLEANUP_STRBUF struct molt_strbuf b = MOLT_STRBUF_INIT;
    molt_strbuf_addf(&b, "{\"mounts\": [" ROOT);
    for (int i = 0; i < 100; i++)
        molt_strbuf_addf(&b, ", " ROOT);
    molt_strbuf_addf(&b, "]}");
    refused("xvda", molt_strbuf_str(&b), NULL, MOLT_E_PROTOCOL, "form");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_disk),  cmocka_unit_test(test_partitions),
        cmocka_unit_test(test_data_disk), cmocka_unit_test(test_disk_with_a_part_of_the_system),
        cmocka_unit_test(test_swap_and_unused), cmocka_unit_test(test_mapped_devices),
        cmocka_unit_test(test_refused),   cmocka_unit_test(test_hostile),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
