/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Versions, packages of two systems, build-IDs. */
#include <elf.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "merge/debversion.h"
#include "merge/fileset.h"
#include "procmig/buildid.h"

static int sign(int n) { return (n > 0) - (n < 0); }

/* As `dpkg --compare-versions` has them. */
static void versions(void **state)
{
    static const struct {
        const char *a, *b;
        int order;
    } v[] = {{"1.0", "1.0", 0},          {"1.0~rc1", "1.0", -1},   {"2:1", "1:9", 1},        {"0:1", "1", 0},          {"1.10", "1.9", 1},
             {"1.0", "1.0-0", 0},        {"1.0-1", "1.0-1+b1", -1}, {"1.0-1~", "1.0-1", -1},  {"2.36-9+deb12u4", "2.41-12", -1}, {"1.0a", "1.0", 1},
             {"1.0a", "1.0+", -1},       {"1.002", "1.2", 0},       {"99999999999999999999", "100000000000000000000", -1}, {"", "0", 0}, {"1-2-3", "1-2-4", -1}};

    (void)state;
    for (size_t i = 0; i < sizeof(v) / sizeof(v[0]); i++) {
        assert_int_equal(sign(molt_deb_version_compare(v[i].a, v[i].b)), v[i].order);
        assert_int_equal(sign(molt_deb_version_compare(v[i].b, v[i].a)), -v[i].order);
    }
}

static const char status_a[] = "Package: libc6\nStatus: install ok installed\nArchitecture: amd64\nVersion: 2.36-9\n\n"
                               "Package: old\nStatus: install ok installed\nArchitecture: all\nVersion: 1\n\n"
                               "Package: same\nStatus: install ok installed\nArchitecture: all\nVersion: 3\n\n"
                               "Package: removed\nStatus: deinstall ok config-files\nArchitecture: all\nVersion: 3\n";
static const char status_b[] = "Package: same\nStatus: install ok installed\nArchitecture: all\nVersion: 3\n\n"
                               "Package: libc6\nStatus: install ok installed\nArchitecture: amd64\nVersion: 2.41-12\n\n"
                               "Package: fresh\nStatus: install ok installed\nArchitecture: all\nVersion: 1\n";

static void packages(void **state)
{
    CLEANUP_JSON struct molt_json *a = molt_fileset_packages(status_a), *b = molt_fileset_packages(status_b), *there = molt_fileset_compare(a, b),
                                  *back = molt_fileset_compare(b, a), *none = molt_fileset_compare(a, a), *empty = molt_fileset_compare(NULL, a);
    const struct molt_json *list = molt_json_get(there, "list");

    (void)state;
    assert_int_equal(molt_json_size(a), 3);
    assert_string_equal(molt_json_get_string(there, "level"), "newer");
    assert_string_equal(molt_json_get_string(back, "level"), "older");
    assert_string_equal(molt_json_get_string(none, "level"), "equal");
    assert_int_equal(molt_json_get_int(none, "equal", 0), 3);
    assert_int_equal(molt_json_get_int(empty, "added", 0), 3);
    assert_int_equal(molt_json_get_int(there, "equal", 0), 1);
    assert_int_equal(molt_json_get_int(there, "gone", 0), 1);
    assert_int_equal(molt_json_get_int(there, "added", 0), 1);
    assert_int_equal(molt_json_size(list), 3);
    assert_string_equal(molt_json_get_string(molt_json_at(list, 0), "package"), "fresh:all");
    assert_string_equal(molt_json_get_string(molt_json_at(list, 1), "package"), "libc6:amd64");
    assert_string_equal(molt_json_get_string(molt_json_at(list, 1), "order"), "newer");
    assert_string_equal(molt_json_get_string(molt_json_at(list, 2), "order"), "gone");
}

static void mixed_levels(void **state)
{
    CLEANUP_JSON struct molt_json *a = molt_json_object(), *b = molt_json_object(), *v = NULL;

    (void)state;
    molt_json_set_string(a, "x", "1");
    molt_json_set_string(a, "y", "2");
    molt_json_set_string(b, "y", "1");
    molt_json_set_string(b, "x", "2");
    v = molt_fileset_compare(a, b);
    assert_string_equal(molt_json_get_string(v, "level"), "mixed");
}

static void build_ids(void **state)
{
    unsigned char notes[64] = {0};
    const Elf64_Nhdr other = {.n_namesz = 4, .n_descsz = 3, .n_type = 1}, id = {.n_namesz = 4, .n_descsz = 4, .n_type = NT_GNU_BUILD_ID};
    char text[MOLT_BUILD_ID_MAX + 1];

    (void)state;
    memcpy(notes, &other, sizeof(other));
    memcpy(notes + 12, "GNU", 4);
    memcpy(notes + 20, &id, sizeof(id));
    memcpy(notes + 32, "GNU", 4);
    memcpy(notes + 36, "\x01\xab\xff\x00", 4);
    molt__build_id_of_notes(notes, 40, text);
    assert_string_equal(text, "01abff00");
    for (size_t cut = 0; cut < 40; cut++) {
        molt__build_id_of_notes(notes, cut, text);
        assert_string_equal(text, "");
    }
    memset(notes + 20, 0xff, 12);
    molt__build_id_of_notes(notes, 40, text);
    assert_string_equal(text, "");
    molt_build_id("/proc/self/exe", text); /* the linker's default is to have one */
    assert_true(strlen(text) == 40 || text[0] == '\0');
    molt_build_id("/etc/passwd", text);
    assert_string_equal(text, "");
    molt_build_id("/nowhere", text);
    assert_string_equal(text, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(versions), cmocka_unit_test(packages), cmocka_unit_test(mixed_levels), cmocka_unit_test(build_ids)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
