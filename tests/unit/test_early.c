/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a restore does with images while others are still written. */
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "lazy_util.h"
#include "procmig/dump.h"
#include "procmig/early.h"

#define PID 77
#define A UINT64_C(0x7f0000000000)
#define END (A + 8 * (uint64_t)MOLT_PAGE)

static char dir[32], carried[64];

struct scene {
    struct molt_restore_spec spec;
    struct molt__early early;
    char *residue;
};

static char *in_dir(const char *name)
{
    return molt_xasprintf("%s/%s", dir, name);
}

static int setup(void **state)
{
    struct scene *s = calloc(1, sizeof(*s));

    strcpy(dir, "/tmp/molt-early.XXXXXX");
    if (!s || !mkdtemp(dir))
        return -1;
    snprintf(carried, sizeof(carried), "/dev/shm/%s", dir + strlen("/tmp/"));
    s->spec = (struct molt_restore_spec){.unit = "a.service", .images = dir, .main_pid = PID};
    s->residue = molt_xasprintf("%s.residue", dir);
    molt__early_begin(&s->early, &s->spec, s->residue, NULL, true);
    *state = s;
    return s->early.watch < 0 ? -1 : 0;
}

static int teardown(void **state)
{
    struct scene *s = *state;

    molt__early_free(&s->early);
    unlink(s->residue);
    free(s->residue);
    free(s);
    unlink(carried);
    return molt_remove_tree(dir, NULL);
}

static void put_text(const char *name, const char *text)
{
    CLEANUP_FREE char *path = in_dir(name);

    assert_int_equal(molt_write_file(path, text, strlen(text), 0600, NULL), 0);
}

static void put_meta(const char *extra)
{
    CLEANUP_FREE char *text = molt_xasprintf("{\"schema\":1,\"main_pid\":%d,\"ids\":[%d],\"sockets\":[],\"sockfiles\":[],\"carry\":[{\"path\":\"%s\",\"file\":\"carry-0\","
                                             "\"mode\":384,\"uid\":0,\"gid\":0,\"dirs\":[]}]%s}", PID, PID, carried, extra);

    put_text(MOLT_DUMP_META, text);
}

static void expect_carried(const char *want)
{
    CLEANUP_FREE char *text = NULL;

    assert_int_equal(molt_read_file(carried, 64, &text, NULL, NULL), 0);
    assert_string_equal(text, want);
}

static void expect_noted(const struct scene *s)
{
    CLEANUP_FREE char *text = NULL;

    assert_int_equal(molt_read_file(s->residue, 4096, &text, NULL, NULL), 0);
    assert_non_null(strstr(text, carried + strlen("/dev/shm/")));
}

static void put_memory(void)
{
    const struct vma vma[] = {{A, END, MAP_ANONYMOUS | MAP_PRIVATE, 0}};
    const struct pe all[] = {{A, 8, PRESENT | LAZY}}, now[] = {{A, 2, PRESENT | LAZY}, {A + 2 * MOLT_PAGE, 6, PARENT}};
    CLEANUP_FREE char *before = in_dir("pre1"), *link = in_dir("parent");

    assert_int_equal(molt_mkdir_p(before, 0700, NULL), 0);
    assert_int_equal(symlink("pre1", link), 0);
    put_pagemap(before, PID, all, 1);
    put_pagemap(dir, PID, now, 2);
    put_mm(dir, PID, vma, 1);
}

static void what_has_arrived_is_done_before_the_rest(void **state)
{
    struct scene *s = *state;
    struct molt_lazy_count count;
    CLEANUP_FREE char *path = molt_xasprintf("%s/pagemap-%d.img", dir, PID);
    struct stat early, late;

    put_text("carry-0", "its content");
    put_meta("");
    molt__early_look(&s->early);
    expect_carried("its content");
    expect_noted(s);
    assert_non_null(s->early.meta);
    put_memory();
    molt__early_look(&s->early);
    assert_int_equal(stat(path, &early), 0);
    molt__early_look(&s->early); /* of what it wrote itself */
    struct pollfd p = {.fd = s->early.watch, .events = POLLIN};

    assert_int_equal(poll(&p, 1, 0), 0);
    /* By others meanwhile: it is not done once more. */
    assert_int_equal(molt_write_file(carried, "newer", 5, 0600, NULL), 0);
    assert_int_equal(molt__early_end(&s->early, &count, NULL), 0);
    expect_carried("newer");
    assert_int_equal(stat(path, &late), 0);
    assert_int_equal(early.st_mtim.tv_nsec, late.st_mtim.tv_nsec);
    assert_int_equal(count.eager, 2);
    assert_int_equal(count.lazy, 6);
}

static void what_nobody_looked_at_is_done_at_the_end(void **state)
{
    struct scene *s = *state;
    struct molt_lazy_count count;

    put_memory();
    put_text("carry-0", "its content");
    put_meta("");
    assert_int_equal(molt__early_end(&s->early, &count, NULL), 0);
    expect_carried("its content");
    expect_noted(s);
    assert_int_equal(count.lazy, 6);
}

/* It came before the file that it names: what is new here was noted, and stays so. */
static void what_could_not_be_done_is_done_at_the_end(void **state)
{
    struct scene *s = *state;
    struct molt_lazy_count count;

    put_meta("");
    molt__early_look(&s->early);
    assert_null(s->early.meta);
    assert_int_equal(access(carried, F_OK), -1);
    put_text("carry-0", "its content");
    put_memory();
    assert_int_equal(molt__early_end(&s->early, &count, NULL), 0);
    expect_carried("its content");
    expect_noted(s);
}

static void what_is_wrong_is_told_at_the_end(void **state)
{
    CLEANUP_ERROR struct molt_error *err = NULL;
    struct scene *s = *state;
    struct molt_lazy_count count;

    put_text(MOLT_DUMP_META, "{\"schema\":1");
    molt__early_look(&s->early);
    assert_int_equal(molt__early_end(&s->early, &count, &err), MOLT_E_PROTOCOL);
    molt_error_clear(&err);
    put_text("carry-0", "");
    put_meta(",\"schema\":2");
    assert_int_equal(molt__early_end(&s->early, &count, &err), MOLT_E_PROTOCOL);
    assert_int_equal(access(carried, F_OK), -1);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(what_has_arrived_is_done_before_the_rest),
        TEST(what_nobody_looked_at_is_done_at_the_end),
        TEST(what_could_not_be_done_is_done_at_the_end),
        TEST(what_is_wrong_is_told_at_the_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
