/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The guest's hooks: which are run, what they are told, what becomes of a failure. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "agent/hooks.h"
#include "base/cleanup.h"
#include "base/fsio.h"
#include "base/strbuf.h"

static char dir[64];

static int setup(void **state)
{
    (void)state;
    strcpy(dir, "/tmp/xenmolt-hooks-XXXXXX");
    return mkdtemp(dir) && chmod(dir, 0755) == 0 ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    return molt_remove_tree(dir, NULL);
}

static void hook(const char *name, mode_t mode, const char *body)
{
    CLEANUP_FREE char *path = molt_xasprintf("%s/%s", dir, name), *text = molt_xasprintf("#!/bin/sh\n%s\n", body);
    assert_int_equal(molt_write_file(path, text, strlen(text), mode, NULL), 0);
    assert_int_equal(chmod(path, mode), 0);
}

static char *seen(void)
{
    CLEANUP_FREE char *path = molt_xasprintf("%s.seen", dir);
    char *text = NULL;
    if (molt_read_file(path, 4096, &text, NULL, NULL) < 0)
        return molt_xstrdup("");
    unlink(path);
    return text;
}

static int run(bool stop, struct molt_json *list, struct molt_error **err)
{
    CLEANUP_FREE char *where = molt_xasprintf("SEEN=%s.seen", dir);
    char *env[] = {"PATH=/usr/bin:/bin", where, "XENMOLT_UNITS=a.service b.service", NULL};
    return hooks_run(dir, "before-freeze", env, 1, stop, list, err);
}

static const char *at(const struct molt_json *list, size_t i, const char *key)
{
    return molt_json_get_string(molt_json_at(list, i), key);
}

static void they_run_in_order(void **state)
{
    CLEANUP_JSON struct molt_json *list = molt_json_array();
    CLEANUP_FREE char *text = NULL;
    (void)state;
    if (getuid() != 0)
        skip(); /* only root's are run */
    hook("20-b", 0755, "echo second $1 \"$XENMOLT_UNITS\" ${HOME:-none} >>$SEEN");
    hook("10-a", 0755, "echo first >>$SEEN; echo one; echo two");
    hook("10-a.dpkg-old", 0755, "echo never >>$SEEN");
    hook("15-c~", 0755, "echo never >>$SEEN");
    hook(".hidden", 0755, "echo never >>$SEEN");
    assert_int_equal(run(true, list, NULL), 0);
    text = seen();
    assert_string_equal(text, "first\nsecond before-freeze a.service b.service none\n");
    assert_int_equal(molt_json_size(list), 2);
    assert_string_equal(at(list, 0, "name"), "10-a");
    assert_string_equal(at(list, 0, "said"), "two");
    assert_int_equal(molt_json_get_int(molt_json_at(list, 0), "status", -2), 0);
}

static void a_failure_stops_or_not(void **state)
{
    CLEANUP_JSON struct molt_json *list = molt_json_array(), *again = molt_json_array();
    CLEANUP_ERROR struct molt_error *err = NULL;
    CLEANUP_FREE char *text = NULL;
    (void)state;
    if (getuid() != 0)
        skip(); /* only root's are run */
    hook("10-bad", 0755, "echo the disk is on fire; exit 3");
    hook("20-next", 0755, "echo next >>$SEEN");
    assert_int_equal(run(true, list, &err), MOLT_E_HOOK);
    assert_non_null(strstr(molt_error_text(err), "10-bad ended with status 3 at before-freeze: the disk is on fire"));
    assert_int_equal(molt_json_size(list), 1);
    assert_int_equal(run(false, again, NULL), MOLT_E_HOOK);
    assert_int_equal(molt_json_size(again), 2);
    text = seen();
    assert_string_equal(text, "next\n");
}

static void one_that_hangs_is_ended(void **state)
{
    CLEANUP_JSON struct molt_json *list = molt_json_array();
    CLEANUP_ERROR struct molt_error *err = NULL;
    (void)state;
    if (getuid() != 0)
        skip(); /* only root's are run */
    hook("10-hang", 0755, "sleep 100 & sleep 100");
    assert_int_equal(run(true, list, &err), MOLT_E_HOOK);
    assert_non_null(strstr(molt_error_text(err), "did not end within 1 s"));
    assert_int_equal(molt_json_get_int(molt_json_at(list, 0), "status", 0), -1);
}

static void only_what_nobody_else_can_write(void **state)
{
    CLEANUP_JSON struct molt_json *list = molt_json_array(), *none = molt_json_array();
    CLEANUP_ERROR struct molt_error *err = NULL;
    CLEANUP_FREE char *text = NULL;
    (void)state;
    if (getuid() != 0)
        skip(); /* only root's are run */
    hook("10-open", 0777, "echo never >>$SEEN");
    hook("20-plain", 0644, "echo never >>$SEEN");
    hook("30-other", 0755, "echo never >>$SEEN");
    CLEANUP_FREE char *other = molt_xasprintf("%s/30-other", dir), *sub = molt_xasprintf("%s/40-dir", dir);
    assert_int_equal(chown(other, 1, 1), 0);
    assert_int_equal(mkdir(sub, 0755), 0);
    assert_int_equal(run(true, list, NULL), 0);
    text = seen();
    assert_string_equal(text, "");
    assert_string_equal(at(list, 0, "skipped"), "writable by others than root");
    assert_string_equal(at(list, 1, "skipped"), "not executable");
    assert_string_equal(at(list, 2, "skipped"), "not owned by root");
    assert_string_equal(at(list, 3, "skipped"), "not a regular file");
    assert_int_equal(chmod(dir, 0777), 0);
    assert_int_equal(run(true, none, &err), MOLT_E_HOOK);
    assert_non_null(strstr(molt_error_text(err), "writable by others"));
}

static void no_directory_is_no_hook(void **state)
{
    CLEANUP_JSON struct molt_json *list = molt_json_array();
    (void)state;
    assert_int_equal(hooks_run("/nowhere/hooks.d", "on-error", NULL, 1, false, list, NULL), 0);
    assert_int_equal(molt_json_size(list), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(they_run_in_order, setup, teardown),
        cmocka_unit_test_setup_teardown(a_failure_stops_or_not, setup, teardown),
        cmocka_unit_test_setup_teardown(one_that_hangs_is_ended, setup, teardown),
        cmocka_unit_test_setup_teardown(only_what_nobody_else_can_write, setup, teardown),
        cmocka_unit_test(no_directory_is_no_hook),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
