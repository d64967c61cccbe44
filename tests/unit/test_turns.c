/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The scheduler's settings, in directories that stand for the kernel's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fsio.h"
#include "base/strbuf.h"
#include "procmig/turns.h"

struct kernel {
    char dir[32];
    char *debugfs, *sysctl, *record;
};

static void put(const char *dir, const char *name, const char *text)
{
    CLEANUP_FREE char *path = molt_xasprintf("%s/%s", dir, name);
    assert_int_equal(molt_write_file(path, text, strlen(text), 0600, NULL), 0);
}

static long long number(const char *dir, const char *name)
{
    CLEANUP_FREE char *path = molt_xasprintf("%s/%s", dir, name), *text = NULL;
    assert_int_equal(molt_read_file(path, 64, &text, NULL, NULL), 0);
    return atoll(text);
}

static int setup(void **state)
{
    struct kernel *k = calloc(1, sizeof(*k));
    strcpy(k->dir, "/tmp/test_turns-XXXXXX");
    assert_non_null(mkdtemp(k->dir));
    k->debugfs = molt_xasprintf("%s/debug", k->dir);
    k->sysctl = molt_xasprintf("%s/sysctl", k->dir);
    k->record = molt_xasprintf("%s/record", k->dir);
    CLEANUP_FREE char *sched = molt_xasprintf("%s/sched", k->debugfs);
    assert_int_equal(molt_mkdir_p(sched, 0755, NULL), 0);
    assert_int_equal(molt_mkdir_p(k->sysctl, 0755, NULL), 0);
    *state = k;
    return 0;
}

static int teardown(void **state)
{
    struct kernel *k = *state;
    molt_remove_tree(k->dir, NULL);
    free(k->debugfs);
    free(k->sysctl);
    free(k->record);
    free(k);
    return 0;
}

/* Linux 6.1 has two in debugfs, 6.6 one, 5.10 two sysctls. */
static void test_there_and_back(void **state)
{
    struct kernel *k = *state;
    put(k->debugfs, "sched/min_granularity_ns", "1500000\n");
    put(k->debugfs, "sched/wakeup_granularity_ns", "2000000\n");
    put(k->sysctl, "sched_min_granularity_ns", "3000000\n");
    put(k->sysctl, "sched_latency_ns", "12000000\n");
    assert_int_equal(molt__turns_begin(k->debugfs, k->sysctl, k->record, NULL), 3);
    assert_int_equal(number(k->debugfs, "sched/min_granularity_ns"), MOLT_TURN_NS);
    assert_int_equal(number(k->debugfs, "sched/wakeup_granularity_ns"), MOLT_TURN_NS);
    assert_int_equal(number(k->sysctl, "sched_min_granularity_ns"), MOLT_TURN_NS);
    assert_int_equal(number(k->sysctl, "sched_latency_ns"), 12000000); /* not asked for */
    assert_true(molt_exists(k->record));
    molt__turns_end(k->debugfs, k->sysctl, k->record);
    assert_int_equal(number(k->debugfs, "sched/min_granularity_ns"), 1500000);
    assert_int_equal(number(k->debugfs, "sched/wakeup_granularity_ns"), 2000000);
    assert_int_equal(number(k->sysctl, "sched_min_granularity_ns"), 3000000);
    assert_false(molt_exists(k->record));
    molt__turns_end(k->debugfs, k->sysctl, k->record); /* nothing to give back */
    assert_int_equal(number(k->debugfs, "sched/min_granularity_ns"), 1500000);
}

/* An agent that died in between, and its successor, which begins. */
static void test_begun_twice(void **state)
{
    struct kernel *k = *state;
    put(k->debugfs, "sched/base_slice_ns", "3000000\n");
    assert_int_equal(molt__turns_begin(k->debugfs, NULL, k->record, NULL), 1);
    assert_int_equal(molt__turns_begin(k->debugfs, NULL, k->record, NULL), 1);
    molt__turns_end(k->debugfs, NULL, k->record);
    assert_int_equal(number(k->debugfs, "sched/base_slice_ns"), 3000000);
}

static void test_set_by_others(void **state)
{
    struct kernel *k = *state;
    put(k->debugfs, "sched/min_granularity_ns", "1500000\n");
    put(k->debugfs, "sched/wakeup_granularity_ns", "60000000\n"); /* longer than ours */
    assert_int_equal(molt__turns_begin(k->debugfs, NULL, k->record, NULL), 1);
    assert_int_equal(number(k->debugfs, "sched/wakeup_granularity_ns"), 60000000);
    put(k->debugfs, "sched/min_granularity_ns", "700000\n");
    molt__turns_end(k->debugfs, NULL, k->record);
    assert_int_equal(number(k->debugfs, "sched/min_granularity_ns"), 700000);
    assert_int_equal(number(k->debugfs, "sched/wakeup_granularity_ns"), 60000000);
}

/* A kernel with none of them, one that is no number; a record that cannot be written. */
static void test_without(void **state)
{
    struct kernel *k = *state;
    CLEANUP_ERROR struct molt_error *err = NULL;
    assert_int_equal(molt__turns_begin(NULL, k->sysctl, k->record, NULL), 0);
    put(k->sysctl, "sched_min_granularity_ns", "soon\n");
    assert_int_equal(molt__turns_begin(k->debugfs, k->sysctl, k->record, NULL), 0);
    assert_false(molt_exists(k->record));
    put(k->sysctl, "sched_min_granularity_ns", "3000000\n");
    CLEANUP_FREE char *nowhere = molt_xasprintf("%s/none/record", k->dir);
    assert_true(molt__turns_begin(k->debugfs, k->sysctl, nowhere, &err) < 0);
    assert_non_null(strstr(molt_error_text(err), nowhere));
    assert_int_equal(number(k->sysctl, "sched_min_granularity_ns"), 3000000);
}

/* What a record says is not believed beyond the settings that are ours, and still have our value. */
static void test_odd_record(void **state)
{
    struct kernel *k = *state;
    CLEANUP_FREE char *ours = molt_xasprintf("%d\n", MOLT_TURN_NS);
    put(k->debugfs, "sched/min_granularity_ns", ours);
    put(k->sysctl, "hostname", "web1\n");
    put(k->dir, "record", "hostname 5\n../sysctl/hostname 5\nsched/min_granularity_ns\nsched/min_granularity_ns 1500000\n\n");
    molt__turns_end(k->debugfs, k->sysctl, k->record);
    assert_int_equal(number(k->debugfs, "sched/min_granularity_ns"), 1500000);
    assert_int_equal(number(k->sysctl, "hostname"), 0);
    assert_false(molt_exists(k->record));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_there_and_back, setup, teardown), cmocka_unit_test_setup_teardown(test_begun_twice, setup, teardown),
        cmocka_unit_test_setup_teardown(test_set_by_others, setup, teardown),  cmocka_unit_test_setup_teardown(test_without, setup, teardown),
        cmocka_unit_test_setup_teardown(test_odd_record, setup, teardown),
    };
    return cmocka_run_group_tests_name("turns", tests, NULL, NULL);
}
