/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Whether anybody else wants to run, by what /proc/loadavg says. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/load.h"

static bool idle(const char *text, int processors)
{
    const int file = memfd_create("loadavg", MFD_CLOEXEC);

    assert_true(file >= 0);
    assert_int_equal(write(file, text, strlen(text)), strlen(text));
    const bool first = molt_load_idle(file, processors), second = molt_load_idle(file, processors);
    close(file);
    assert_int_equal(first, second); /* it is read anew each time */
    return first;
}

static void test_who_could_run(void **state)
{
    (void)state;
    assert_true(idle("0.00 0.01 0.05 1/80 1234\n", 1));
    assert_false(idle("0.00 0.01 0.05 2/80 1234\n", 1));
    assert_true(idle("9.00 9.01 9.05 4/80 1234\n", 4));
    assert_false(idle("9.00 9.01 9.05 5/80 1234\n", 4));
}

static void test_nothing_is_known(void **state)
{
    (void)state;
    assert_false(idle("", 8));
    assert_false(idle("0.00 0.01\n", 8));
    assert_false(idle("0.00 0.01 0.05 no\n", 8));
    assert_false(molt_load_idle(-1, 8));
}

static void test_the_kernel_s(void **state)
{
    const int file = molt_load_open();

    (void)state;
    assert_true(file >= 0);
    assert_true(molt_load_idle(file, 1 << 30));
    assert_false(molt_load_idle(file, 0)); /* we run */
    close(file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_who_could_run),
        cmocka_unit_test(test_nothing_is_known),
        cmocka_unit_test(test_the_kernel_s),
    };

    return cmocka_run_group_tests_name("load", tests, NULL, NULL);
}
