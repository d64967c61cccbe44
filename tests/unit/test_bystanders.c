/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Who is stopped beside the workload, and who is not. On a real cgroup v2 where the test may make one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <mntent.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/fsio.h"
#include "base/strbuf.h"
#include "procmig/bystanders.h"

static char dir[] = "/tmp/molt-bystanders.XXXXXX";

static int make_dir(void **state)
{
    (void)state;
    return mkdtemp(dir) ? 0 : -1;
}

static int drop_dir(void **state)
{
    (void)state;
    return molt_remove_tree(dir, NULL);
}

/* A made-up hierarchy of plain files: "frozen" is what is asked, not what a kernel makes of it. */
static void group(const char *cgroup, const char *freeze)
{
    CLEANUP_FREE char *d = molt_xasprintf("%s/root%s", dir, cgroup), *f = molt_xasprintf("%s/cgroup.freeze", d);
    CLEANUP_FREE char *e = molt_xasprintf("%s/cgroup.events", d), *events = molt_xasprintf("populated 1\nfrozen %d\n", !strcmp(cgroup, "/slow") ? 0 : 1);
    assert_int_equal(molt_mkdir_p(d, 0755, NULL), 0);
    assert_int_equal(molt_write_file(f, freeze, strlen(freeze), 0644, NULL), 0);
    assert_int_equal(molt_write_file(e, events, strlen(events), 0644, NULL), 0);
}

static bool is_frozen(const char *cgroup)
{
    CLEANUP_FREE char *f = molt_xasprintf("%s/root%s/cgroup.freeze", dir, cgroup), *text = NULL;
    assert_int_equal(molt_read_file(f, 16, &text, NULL, NULL), 0);
    return text[0] == '1';
}

static void everything_else_is_stopped(void **state)
{
    CLEANUP_FREE char *root = molt_xasprintf("%s/root", dir), *list = molt_xasprintf("%s/list", dir), *late = NULL;
    CLEANUP_FREE char *probe = molt_xasprintf("%s/cgroup.controllers", root);
    const char *keep[] = {"/init.scope", "/system.slice/shop.slice/shop.service", "/system.slice/agent.service", NULL};
    const struct molt_bystanders b = {.root = root, .list = list, .keep = keep, .timeout_ms = 60};
    size_t n = 7;
    (void)state;
    group("/init.scope", "0\n");
    group("/system.slice", "0\n");
    group("/system.slice/agent.service", "0\n");
    group("/system.slice/agent.service/part", "0\n");
    group("/system.slice/agent.service2", "0\n");
    group("/system.slice/shop.slice", "0\n");
    group("/system.slice/shop.slice/shop.service", "0\n");
    group("/system.slice/shop.slice/other.service", "0\n");
    group("/system.slice/paused.service", "1\n");
    group("/user.slice", "0\n");
    group("/user.slice/user-0.slice", "0\n");
    assert_int_equal(molt_bystanders_freeze(&b, &n, &late, NULL), MOLT_E_UNSUPPORTED);
    assert_int_equal(molt_write_file(probe, "", 0, 0644, NULL), 0);

    assert_int_equal(molt_bystanders_freeze(&b, &n, &late, NULL), 0);
    assert_int_equal(n, 3);
    assert_null(late);
    assert_true(is_frozen("/user.slice") && is_frozen("/system.slice/agent.service2") && is_frozen("/system.slice/shop.slice/other.service"));
    assert_false(is_frozen("/init.scope") || is_frozen("/system.slice") || is_frozen("/system.slice/agent.service") ||
                 is_frozen("/system.slice/shop.slice") || is_frozen("/system.slice/shop.slice/shop.service") ||
                 is_frozen("/user.slice/user-0.slice"));
    /* Frozen once more by a session after one that died: what that one froze is still known as ours. */
    assert_int_equal(molt_bystanders_freeze(&b, &n, &late, NULL), 0);
    assert_int_equal(n, 3);
    assert_int_equal(molt_bystanders_thaw(&b, NULL), 0);
    assert_false(is_frozen("/user.slice") || is_frozen("/system.slice/agent.service2") || is_frozen("/system.slice/shop.slice/other.service"));
    assert_true(is_frozen("/system.slice/paused.service"));
    assert_false(molt_exists(list));
    assert_int_equal(molt_bystanders_thaw(&b, NULL), 0);

    group("/slow", "0\n");
    assert_int_equal(molt_bystanders_freeze(&b, &n, &late, NULL), 0);
    assert_int_equal(n, 4);
    assert_string_equal(late, "/slow");
    assert_int_equal(molt_bystanders_thaw(&b, NULL), 0);
}

/* Where cgroup v2 is mounted and a cgroup can be made; NULL: nowhere. */
static char *own_hierarchy(void)
{
    FILE *f = setmntent("/proc/self/mounts", "r");
    struct mntent *m;
    char *ret = NULL;
    while (f && !ret && (m = getmntent(f)))
        if (!strcmp(m->mnt_type, "cgroup2")) {
            ret = molt_xasprintf("%s/molt-test-%d", m->mnt_dir, (int)getpid());
            CLEANUP_FREE char *freeze = molt_xasprintf("%s/cgroup.freeze", ret);
            if (mkdir(ret, 0755) == 0 && access(freeze, W_OK) == 0)
                break;
            rmdir(ret);
            free(ret);
            ret = NULL;
        }
    if (f)
        endmntent(f);
    return ret;
}

static pid_t counter_in(const char *root, const char *cgroup, volatile unsigned *count)
{
    CLEANUP_FREE char *d = molt_xasprintf("%s%s", root, cgroup), *procs = molt_xasprintf("%s/cgroup.procs", d);
    char text[16];
    assert_int_equal(mkdir(d, 0755), 0);
    pid_t pid = fork();
    if (pid == 0)
        for (;;) {
            (*count)++;
            molt_sleep_ms(1);
        }
    snprintf(text, sizeof(text), "%d", (int)pid);
    assert_int_equal(molt_write_file(procs, text, strlen(text), 0644, NULL), 0);
    return pid;
}

static bool counts(volatile unsigned *count, int ms)
{
    unsigned before = *count;
    molt_sleep_ms(ms);
    return *count != before;
}

static void a_stopped_process_stands_still(void **state)
{
    CLEANUP_FREE char *root = own_hierarchy(), *list = molt_xasprintf("%s/list", dir), *late = NULL;
    (void)state;
    if (!root) {
        print_message("no cgroup v2 here in which this test may make a cgroup\n");
        skip();
    }
    volatile unsigned *count = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    const char *keep[] = {"/kept", NULL};
    const struct molt_bystanders b = {.root = root, .list = list, .keep = keep, .timeout_ms = 5000};
    pid_t pid[2] = {counter_in(root, "/kept", &count[0]), counter_in(root, "/other", &count[1])};
    size_t n = 0;
    assert_true(counts(&count[0], 200) && counts(&count[1], 200));
    assert_int_equal(molt_bystanders_freeze(&b, &n, &late, NULL), 0);
    assert_int_equal(n, 1);
    assert_null(late);
    assert_false(counts(&count[1], 200));
    assert_true(counts(&count[0], 200));
    assert_int_equal(molt_bystanders_thaw(&b, NULL), 0);
    assert_true(counts(&count[1], 200));
    for (int i = 0; i < 2; i++) {
        CLEANUP_FREE char *d = molt_xasprintf("%s%s", root, i ? "/other" : "/kept");
        kill(pid[i], SIGKILL);
        waitpid(pid[i], NULL, 0);
        for (int k = 0; k < 100 && rmdir(d) < 0; k++)
            molt_sleep_ms(10);
    }
    assert_int_equal(rmdir(root), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(everything_else_is_stopped),
        cmocka_unit_test(a_stopped_process_stands_still),
    };
    return cmocka_run_group_tests(tests, make_dir, drop_dir);
}
