/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Rounds of memory: when they end, and how their directories hang together. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/fsio.h"
#include "base/strbuf.h"
#include "procmig/predump.h"

static char dir[32];

static int make_dir(void **state)
{
    (void)state;
    strcpy(dir, "/tmp/molt-predump.XXXXXX"); /* each test has its own */
    return mkdtemp(dir) ? 0 : -1;
}

static int drop_dir(void **state)
{
    (void)state;
    return molt_remove_tree(dir, NULL);
}

#define R(pages) {pages, 100000, 90000} /* most of the standstill is memory */

static void rounds_end_when_few_pages_are_left(void **state)
{
    (void)state;
    assert_string_equal(molt_predump_stop((struct molt_round[]){R(MOLT_PREDUMP_FEW)}, 1), "few-pages");
    assert_null(molt_predump_stop((struct molt_round[]){R(MOLT_PREDUMP_FEW + 1)}, 1));
    assert_string_equal(molt_predump_stop((struct molt_round[]){R(80000), R(12)}, 2), "few-pages");
}

/* The second round may be as large as it likes beside the first, which took everything; then they must become smaller. */
static void rounds_end_when_they_gain_nothing(void **state)
{
    (void)state;
    assert_null(molt_predump_stop((struct molt_round[]){R(80000), R(79000)}, 2));
    assert_string_equal(molt_predump_stop((struct molt_round[]){R(80000), R(8000), R(7900)}, 3), "no-gain");
    assert_null(molt_predump_stop((struct molt_round[]){R(80000), R(8000), R(2000)}, 3));
}

/* 500 threads: seconds of standstill for 3000 pages. */
static void rounds_end_when_memory_is_not_what_takes_long(void **state)
{
    (void)state;
    assert_string_equal(molt_predump_stop((struct molt_round[]){R(80000), {3000, 20000000, 900000}}, 2), "small-share");
    assert_null(molt_predump_stop((struct molt_round[]){R(80000), {3000, 20000000, 5000000}}, 2));
    assert_null(molt_predump_stop((struct molt_round[]){R(80000), {MOLT_PREDUMP_SOME + 1, 20000000, 900000}}, 2));
}

static void rounds_end_in_any_case(void **state)
{
    struct molt_round v[MOLT_PREDUMP_MAX];

    (void)state;
    for (unsigned i = 0; i < MOLT_PREDUMP_MAX; i++)
        v[i] = (struct molt_round)R(UINT64_C(1) << (40 - 2 * i));
    assert_null(molt_predump_stop(v, MOLT_PREDUMP_MAX - 1));
    assert_string_equal(molt_predump_stop(v, MOLT_PREDUMP_MAX), "rounds");
}

static void is_link(const char *where, const char *to)
{
    CLEANUP_FREE char *path = molt_xasprintf("%s/%s", dir, where);
    char got[64] = "";

    assert_true(readlink(path, got, sizeof(got) - 1) > 0);
    assert_string_equal(got, to);
}

/* As `criu restore` follows them: from the last images to the first round. */
static void each_round_names_the_one_before(void **state)
{
    CLEANUP_ERROR struct molt_error *err = NULL;
    CLEANUP_FREE char *first = molt_xasprintf("%s/pre1/parent", dir);

    (void)state;
    for (unsigned i = 1; i <= 3; i++)
        assert_int_equal(molt_predump_place(dir, i, &err), 0);
    assert_int_equal(molt_predump_link(dir, 3, &err), 0);
    assert_int_not_equal(access(first, F_OK), 0);
    is_link("pre2/parent", "../pre1");
    is_link("pre3/parent", "../pre2");
    is_link("parent", "pre3");
    assert_int_not_equal(molt_predump_place(dir, 3, &err), 0); /* it is there */
    molt_error_clear(&err);
    assert_int_equal(molt_predump_place(dir, 0, &err), MOLT_E_PROTOCOL);
    molt_error_clear(&err);
    assert_int_equal(molt_predump_place(dir, MOLT_ROUNDS_MAX + 1, &err), MOLT_E_PROTOCOL);
    molt_error_clear(&err);
    assert_int_equal(molt_predump_link(dir, MOLT_ROUNDS_MAX + 1, &err), MOLT_E_PROTOCOL);
    molt_error_clear(&err);
    assert_int_equal(molt_predump_link(dir, 0, &err), 0);
}

/* The list of pages stays, their content goes; sizes stay, for CRIU looks at them. */
static void pages_that_were_sent_need_no_memory(void **state)
{
    CLEANUP_ERROR struct molt_error *err = NULL;
    CLEANUP_FREE char *pages = molt_xasprintf("%s/pre1/pages-1.img", dir), *map = molt_xasprintf("%s/pre1/pagemap-7.img", dir), *data = molt_xcalloc(1, 1 << 20);
    CLEANUP_FREE char *pre = molt_xasprintf("%s/pre1", dir);
    struct stat st;

    (void)state;
    (void)molt_mkdir_p(pre, 0700, NULL);
    memset(data, 'x', 1 << 20);
    assert_int_equal(molt_write_file(pages, data, 1 << 20, 0600, &err), 0);
    assert_int_equal(molt_write_file(map, data, 100, 0600, &err), 0);
    molt_predump_forget_pages(dir, 1);
    assert_int_equal(stat(pages, &st), 0);
    assert_int_equal(st.st_size, 1 << 20);
    assert_int_equal(st.st_blocks, 0);
    assert_int_equal(stat(map, &st), 0);
    assert_int_not_equal(st.st_blocks, 0);
    molt_predump_forget_pages(dir, 2); /* of a round that is not there: nothing */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rounds_end_when_few_pages_are_left),
        cmocka_unit_test(rounds_end_when_they_gain_nothing),
        cmocka_unit_test(rounds_end_when_memory_is_not_what_takes_long),
        cmocka_unit_test(rounds_end_in_any_case),
        cmocka_unit_test_setup_teardown(each_round_names_the_one_before, make_dir, drop_dir),
        cmocka_unit_test_setup_teardown(pages_that_were_sent_need_no_memory, make_dir, drop_dir),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
