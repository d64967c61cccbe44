/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What lvs says of a volume, by an lvs of our own; the volumes themselves are made in the nested cases rollback and disks. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fsio.h"
#include "base/strbuf.h"
#include "lvm.h"

static char dir[] = "/tmp/test-lvm-XXXXXX";

static int setup(void **state)
{
    (void)state;
    if (!mkdtemp(dir))
        return -1;
    CLEANUP_FREE char *path = molt_xasprintf("%s:%s", dir, getenv("PATH"));
    return setenv("PATH", path, 1);
}

static int teardown(void **state)
{
    (void)state;
    return molt_remove_tree(dir, NULL);
}

/* lvs prints this for a volume, that for a pool. */
static void lvs_says(const char *volume, const char *pool)
{
    CLEANUP_FREE char *path = molt_xasprintf("%s/lvs", dir);
    CLEANUP_FREE char *text = molt_xasprintf("#!/bin/sh\necho '  WARNING: a {warning}' >&2\nfor last; do :; done\n"
                                             "case $last in */pool) echo '%s';; *) echo '%s';; esac\necho ' WARNING: another' >&2\n", pool, volume);
    assert_int_equal(molt_write_file(path, text, strlen(text), 0755, NULL), 0);
}

#define LV(name, size, pool, origin, type, free, percent)                                                                              \
    "{ \"report\": [ { \"lv\": [ {\"vg_name\":\"g\", \"lv_name\":\"" name "\", \"lv_size\":\"" size "\", \"pool_lv\":\"" pool           \
    "\", \"origin\":\"" origin "\", \"segtype\":\"" type "\", \"vg_free\":\"" free "\", \"data_percent\":\"" percent "\"} ] } ] }"

static void test_kinds(void **state)
{
    struct molt_lv lv;
    CLEANUP_ERROR struct molt_error *err = NULL;
    (void)state;
    lvs_says(LV("web1", "4294967296", "pool", "", "thin", "512", "50.00"), LV("pool", "8000000000", "", "", "thin-pool", "512", "25.00"));
    assert_int_equal(molt_lv_of("/dev/g/web1", &lv, &err), 0);
    assert_string_equal(lv.vg, "g");
    assert_string_equal(lv.name, "web1");
    assert_true(lv.thin && lv.size == UINT64_C(4294967296) && lv.free_bytes == UINT64_C(6000000000));
    lvs_says(LV("web1", "4294967296", "", "", "linear", "9000", ""), "");
    assert_int_equal(molt_lv_of("/dev/g/web1", &lv, &err), 0);
    assert_true(!lv.thin && lv.free_bytes == 9000);
    lvs_says(LV("web1", "4294967296", "", "other", "linear", "9000", "3.00"), "");
    assert_int_equal(molt_lv_of("/dev/g/web1", &lv, &err), MOLT_E_UNSUPPORTED);
    assert_non_null(strstr(molt_error_text(err), "itself a snapshot, of other"));
    molt_error_clear(&err);
    lvs_says(LV("web1", "4294967296", "", "", "thin-pool", "9000", "3.00"), "");
    assert_int_equal(molt_lv_of("/dev/g/web1", &lv, &err), MOLT_E_UNSUPPORTED);
    molt_error_clear(&err);
    lvs_says("nothing", "");
    assert_int_equal(molt_lv_of("/dev/g/web1", &lv, &err), MOLT_E_UNSUPPORTED);
    assert_non_null(strstr(molt_error_text(err), "/dev/g/web1 is no volume of LVM"));
}

static void test_names(void **state)
{
    CLEANUP_FREE char *path = molt_xasprintf("%s/lvs", dir), *names = NULL;
    static const char text[] = "#!/bin/sh\ncase $* in *nameprefixes*origin=*web1*) echo \"  LVM2_LV_NAME='backup'\"; echo \"  LVM2_LV_NAME='other'\" ;; *lv_name=*backup*) echo \"  LVM2_LV_NAME='backup'\" ;; esac\n"
                               "echo 'File descriptor 7 (/dev/xen/evtchn) leaked on lvs invocation.' >&2\n";
    (void)state;
    assert_int_equal(molt_write_file(path, text, strlen(text), 0755, NULL), 0);
    assert_int_equal(molt_lv_snapshots("g", "web1", &names, NULL), 0);
    assert_string_equal(names, "backup other");
    assert_int_equal(molt_lv_exists("g", "backup", NULL), 1);
    assert_int_equal(molt_lv_exists("g", "nosuch", NULL), 0);
}

static void test_siblings(void **state)
{
    static const struct {
        const char *path, *what, *want;
    } v[] = {
        {"/dev/g/web1.gu-1-ab.clone", NULL, "/dev/g/web1"},
        {"/dev/g/web1.gu-1-ab.base", "new", "/dev/g/web1.gu-1-ab.new"},
        {"/dev/g/a.b.c.gu-1-ab.base", NULL, "/dev/g/a.b.c"},
        {"/dev/g/web1.clone", NULL, NULL},
        {"/dev/g/web1", NULL, NULL},
        {"/dev/g/.gu-1-ab.clone", NULL, NULL},
        {"/dev/g.x.y/web1", NULL, NULL},
        {"/srv/web1.gu-1-ab.clone", NULL, NULL},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(v) / sizeof(v[0]); i++) {
        CLEANUP_FREE char *got = molt_lv_sibling(v[i].path, v[i].what);
        if (v[i].want)
            assert_string_equal(got, v[i].want);
        else
            assert_null(got);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kinds),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_siblings),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
