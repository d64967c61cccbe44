/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A CRIU that waits for the dump: it passes when it may, and is gone when nobody wants it any more. The CRIU is a script; the gate is the real one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/fsio.h"
#include "base/strbuf.h"
#include "procmig/gate.h"

static char dir[32];
static char self[4096];

static int make_dir(void **state)
{
    (void)state;
    strcpy(dir, "/tmp/molt-gate.XXXXXX");
    return mkdtemp(dir) ? 0 : -1;
}

static int drop_dir(void **state)
{
    (void)state;
    return molt_remove_tree(dir, NULL);
}

static char *at(const char *name)
{
    return molt_xasprintf("%s/%s", dir, name);
}

/* As CRIU does it: the script by its path, the action in the environment; it goes on where the script succeeds. */
static pid_t start(const struct molt_gate *g, const char *action)
{
    pid_t pid = fork();
    if (pid)
        return pid;
    CLEANUP_FREE char *done = at("done");
    close(g->ready); /* as exec would */
    close(g->go);
    setenv("CRTOOLS_SCRIPT_ACTION", action, 1);
    pid_t script = fork();
    if (script == 0) {
        execl(g->script, g->script, (char *)NULL);
        _exit(127);
    }
    int status;
    waitpid(script, &status, 0);
    if (status == 0)
        close(open(done, O_WRONLY | O_CREAT, 0600));
    _exit(WIFEXITED(status) ? WEXITSTATUS(status) : 99);
}

static int end_of(pid_t pid)
{
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static bool passed(void)
{
    CLEANUP_FREE char *done = at("done");
    return access(done, F_OK) == 0;
}

static void make(struct molt_gate *g)
{
    CLEANUP_ERROR struct molt_error *err = NULL;
    CLEANUP_FREE char *where = at("gate");
    if (molt_gate_make(where, self, g, &err) < 0)
        fail_msg("%s", molt_error_text(err));
}

static void waits_until_it_may_pass(void **state)
{
    CLEANUP_ERROR struct molt_error *err = NULL;
    struct molt_gate g;
    (void)state;
    make(&g);
    pid_t pid = start(&g, "pre-dump");
    assert_int_equal(molt_gate_wait(&g, pid, 10000, &err), 0);
    molt_sleep_ms(50);
    assert_false(passed());
    assert_int_equal(waitpid(pid, NULL, WNOHANG), 0);
    assert_int_equal(molt_gate_open(&g, &err), 0);
    molt_gate_close(&g); /* at once: who may pass passes all the same */
    assert_int_equal(end_of(pid), 0);
    assert_true(passed());
}

static void fails_when_nobody_wants_it_any_more(void **state)
{
    CLEANUP_ERROR struct molt_error *err = NULL;
    CLEANUP_FREE char *where = at("gate");
    struct molt_gate g;
    (void)state;
    make(&g);
    pid_t pid = start(&g, "pre-dump");
    assert_int_equal(molt_gate_wait(&g, pid, 10000, &err), 0);
    molt_gate_close(&g);
    assert_int_equal(end_of(pid), 1);
    assert_false(passed());
    assert_int_equal(access(where, F_OK), -1);
}

/* The agent is killed: its descriptors close, the directory stays. */
static void fails_when_we_are_killed(void **state)
{
    struct molt_gate g;
    int told[2], status;
    pid_t criu = 0;
    (void)state;
    assert_int_equal(pipe(told), 0);
    assert_int_equal(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
    pid_t pid = fork();
    if (pid == 0) {
        make(&g);
        criu = start(&g, "pre-dump");
        if (molt_gate_wait(&g, criu, 10000, NULL) < 0 || write(told[1], &criu, sizeof(criu)) < 0)
            _exit(1);
        kill(getpid(), SIGKILL);
    }
    waitpid(pid, &status, 0);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(read(told[0], &criu, sizeof(criu)), sizeof(criu));
    assert_int_equal(end_of(criu), 1); /* we inherit it */
    assert_false(passed());
    make(&g); /* and the next one finds its way */
    molt_gate_close(&g);
    close(told[0]);
    close(told[1]);
}

static void other_actions_do_not_wait(void **state)
{
    struct molt_gate g;
    (void)state;
    make(&g);
    assert_int_equal(end_of(start(&g, "post-dump")), 0);
    molt_gate_close(&g);
}

static void an_end_before_is_told(void **state)
{
    CLEANUP_ERROR struct molt_error *err = NULL;
    struct molt_gate g;
    (void)state;
    make(&g);
    pid_t pid = fork();
    if (pid == 0)
        _exit(1);
    assert_int_equal(molt_gate_wait(&g, pid, 10000, &err), MOLT_E_STATE);
    molt_error_clear(&err);
    end_of(pid);
    pid = fork();
    if (pid == 0) {
        pause();
        _exit(1);
    }
    assert_int_equal(molt_gate_wait(&g, pid, 30, &err), MOLT_E_TIMEOUT);
    kill(pid, SIGKILL);
    end_of(pid);
    molt_gate_close(&g);
}

/* We are the script as well, as the agent is. */
int main(int argc, char *argv[])
{
    (void)argc;
    if (molt_gate_is(argv[0]))
        return molt_gate_main(argv[0]);
    if (readlink("/proc/self/exe", self, sizeof(self) - 1) < 0)
        return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(waits_until_it_may_pass, make_dir, drop_dir),
        cmocka_unit_test_setup_teardown(fails_when_nobody_wants_it_any_more, make_dir, drop_dir),
        cmocka_unit_test_setup_teardown(fails_when_we_are_killed, make_dir, drop_dir),
        cmocka_unit_test_setup_teardown(other_actions_do_not_wait, make_dir, drop_dir),
        cmocka_unit_test_setup_teardown(an_end_before_is_told, make_dir, drop_dir),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
