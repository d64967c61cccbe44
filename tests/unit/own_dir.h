/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A directory of each test's own, for cmocka_unit_test_setup_teardown. */
#ifndef MOLT_TEST_OWN_DIR_H
#define MOLT_TEST_OWN_DIR_H

#include <stdlib.h>

#include "base/fsio.h"
#include "base/strbuf.h"

static char *dir;

static int in_a_directory(void **state)
{
    char template[] = "/tmp/xenmolt-test-XXXXXX";

    (void)state;
    dir = molt_xstrdup(mkdtemp(template) ? template : "");
    return *dir ? 0 : -1;
}

static int remove_directory(void **state)
{
    int r = molt_remove_tree(dir, NULL);

    (void)state;
    free(dir);
    return r;
}

#endif
