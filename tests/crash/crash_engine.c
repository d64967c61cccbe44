/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Kills a runner at every journal record and behind every effect in turn, recovers, and looks at the world:
 * all undone or all done. Then the recovery itself is killed at each of its points, until one gets through.
 * The world is files in a directory: base            there from the start, never to be touched one two three
 * made by the reversible steps; "three" in two halves, so that half a step can be seen owner           "old",
 * and "new" from the pivot on last            made by the forward step
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fsio.h"
#include "base/strbuf.h"
#include "engine/engine.h"

static char root[64];
static bool fail_late; /* the last reversible step fails: the run goes back by itself */

static char *at(const char *name) { return molt_xasprintf("%s/%s", root, name); }

static bool have(const char *name)
{
    CLEANUP_FREE char *path = at(name);

    return molt_exists(path);
}

static int put(const char *name, const char *text, struct molt_error **err)
{
    CLEANUP_FREE char *path = at(name);

    return molt_write_file_atomic(path, text, strlen(text), 0600, err);
}

static int drop(const char *name)
{
    CLEANUP_FREE char *path = at(name);

    unlink(path);
    return 0;
}

static bool owner_is(const char *who)
{
    CLEANUP_FREE char *path = at("owner"), *text = NULL;

    return molt_read_file(path, 100, &text, NULL, NULL) == 0 && !strcmp(text, who);
}

static int one_enter(struct molt_op *op, struct molt_error **err)
{
    return molt_op_put(op, "one", molt_json_string("one"), err) < 0 ? MOLT_E_INTERNAL : put("one", "1", err);
}
static int one_undo(struct molt_op *op, struct molt_error **err)
{
    const char *name = molt_json_get_string(molt_op_facts(op), "one");

    (void)err;
    return name ? drop(name) : 0; /* no fact, no effect */
}
static int two_enter(struct molt_op *op, struct molt_error **err)
{
    (void)op;
    return put("two", "2", err);
}
static int two_undo(struct molt_op *op, struct molt_error **err)
{
    (void)op;
    (void)err;
    if (!have("one"))
        return molt_error_set(err, MOLT_E_INTERNAL, "two is undone after one");
    return drop("two");
}
static int two_probe(struct molt_op *op, enum molt_probe *ret, struct molt_error **err)
{
    (void)op;
    (void)err;
    *ret = have("two") ? MOLT_PROBE_DONE : MOLT_PROBE_NOT_DONE;
    return 0;
}
static int three_enter(struct molt_op *op, struct molt_error **err)
{
    if (put("three", "3", err) < 0 || molt_op_put(op, "half", molt_json_bool(true), err) < 0)
        return MOLT_E_INTERNAL;
    if (fail_late)
        return molt_error_set(err, MOLT_E_RECIPE, "late failure");
    return put("three-b", "3", err);
}
static int three_undo(struct molt_op *op, struct molt_error **err)
{
    (void)op;
    (void)err;
    drop("three-b");
    return drop("three");
}
static int pivot_enter(struct molt_op *op, struct molt_error **err)
{
    (void)op;
    return put("owner", "new", err);
}
static int pivot_probe(struct molt_op *op, enum molt_probe *ret, struct molt_error **err)
{
    (void)op;
    (void)err;
    *ret = owner_is("new") ? MOLT_PROBE_DONE : MOLT_PROBE_NOT_DONE;
    return 0;
}
static int last_enter(struct molt_op *op, struct molt_error **err)
{
    (void)op;
    return put("last", "x", err);
}
static struct molt_json *report(struct molt_op *op)
{
    struct molt_json *v = molt_json_object();

    molt_json_set_string(v, "result", molt_op_state_text(molt_op_state(op)));
    return v;
}

static const struct molt_step steps[] = {
    {"one", MOLT_STEP_REVERSIBLE, 0, one_enter, one_undo, NULL},
    {"two", MOLT_STEP_REVERSIBLE, 0, two_enter, two_undo, two_probe},
    {"three", MOLT_STEP_REVERSIBLE, 0, three_enter, three_undo, NULL},
    {"pivot", MOLT_STEP_PIVOT, 0, pivot_enter, NULL, pivot_probe},
    {"last", MOLT_STEP_FORWARD, 0, last_enter, NULL, NULL},
};
static const struct molt_op_table table = {.kind = "crash", .steps = steps, .n_steps = 5, .report = report};
static const struct molt_op_table *const tables[] = {&table, NULL};

static struct molt_engine *engine(void)
{
    CLEANUP_FREE char *dir = at("state");
    struct molt_engine_config cfg = {.state_dir = dir, .tables = tables};
    struct molt_engine *e = NULL;

    if (molt_engine_open(&cfg, &e, NULL) < 0)
        abort();
    return e;
}

static void run_all(void)
{
    struct molt_engine *e = engine();
    struct molt_op *op = NULL;

    if (molt_op_create(e, "crash", "web1", "key", NULL, &op, NULL) == 0)
        molt_op_run(op, NULL);
    molt_op_close(op);
    molt_engine_close(e);
}

static char *only_op(struct molt_json **ret_op)
{
    struct molt_engine *e = engine();
    CLEANUP_JSON struct molt_json *list = NULL;
    char *id = NULL;

    assert_int_equal(molt_op_list(e, &list, NULL), 0);
    assert_true(molt_json_size(list) <= 1);
    if (molt_json_size(list)) {
        id = molt_xstrdup(molt_json_get_string(molt_json_at(list, 0), "id"));
        if (ret_op)
            *ret_op = molt_json_copy(molt_json_at(list, 0));
    }
    molt_engine_close(e);
    return id;
}

static void recover_all(void)
{
    struct molt_engine *e = engine();
    CLEANUP_FREE char *id = only_op(NULL);
    CLEANUP_ERROR struct molt_error *err = NULL;

    if (id && molt_op_recover(e, id, &err) < 0) {
        fprintf(stderr, "recovery of %s: %s\n", id, molt_error_text(err));
        _exit(3);
    }
    molt_engine_close(e);
}

/* Runs fn in a child that dies at its n-th crash point (0: lives). True when it was killed. */
static bool killed_at(void (*fn)(void), int n)
{
    char spec[40];
    int status;
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (pid == 0) {
        snprintf(spec, sizeof(spec), "point:%d=kill", n);
        if (n)
            setenv("MOLT_FAULT", spec, 1);
        fn();
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (WIFSIGNALED(status)) {
        assert_int_equal(WTERMSIG(status), SIGKILL);
        return true;
    }
    assert_int_equal(WEXITSTATUS(status), 0);
    return false;
}

static void fresh_world(void)
{
    strcpy(root, "/tmp/molt-crash-XXXXXX");
    assert_non_null(mkdtemp(root));
    put("base", "base", NULL);
    put("owner", "old", NULL);
}

static void assert_world(int n)
{
    CLEANUP_JSON struct molt_json *op = NULL;
    CLEANUP_FREE char *id = only_op(&op);
    const char *state = molt_json_get_string(op, "state");
    bool forward = owner_is("new");

    print_message("killed at point %d: %s\n", n, state ? state : "no operation");
    assert_true(have("base"));
    assert_true(owner_is(forward ? "new" : "old"));
    assert_int_equal(have("one"), forward);
    assert_int_equal(have("two"), forward);
    assert_int_equal(have("three"), forward);
    assert_int_equal(have("three-b"), forward);
    assert_int_equal(have("last"), forward);
    if (id) {
        CLEANUP_FREE char *path = molt_xasprintf("%s/state/ops/%s/report.json", root, id);

        assert_string_equal(state, forward ? "done" : "failed");
        assert_true(molt_json_get_string(op, "step") == NULL);
        if (forward)
            assert_true(molt_exists(path));
    } else {
        assert_false(forward);
    }
}

/* A new operation on the same subject must be possible, and end as asked. */
static void assert_not_blocked(void)
{
    struct molt_engine *e = engine();
    CLEANUP_ERROR struct molt_error *err = NULL;
    struct molt_op *op = NULL;

    if (molt_op_create(e, "crash", "web1", "key", NULL, &op, &err) < 0)
        fail_msg("%s", molt_error_text(err));
    molt_op_close(op);
    molt_engine_close(e);
    CLEANUP_FREE char *ops = at("state/ops");
    CLEANUP_CLOSEDIR DIR *d = opendir(ops);
    for (struct dirent *ent; (ent = readdir(d));)
        assert_true(strncmp(ent->d_name, ".new", 4) != 0); /* nothing half-born stays */
}

static int sweep(void)
{
    int n;

    for (n = 1;; n++) {
        fresh_world();
        bool killed = killed_at(run_all, n);

        /* The recovery dies at its first point, the next one at its second, and so on until one lives. */
        for (int k = 1; killed_at(recover_all, k); k++)
            assert_true(k < 100);
        assert_world(n);
        assert_not_blocked();
        assert_int_equal(molt_remove_tree(root, NULL), 0);
        if (!killed)
            return n - 1;
    }
}

/* Recovery that is let through at once, after each kill. */
static int sweep_single(void)
{
    int n;

    for (n = 1;; n++) {
        fresh_world();
        bool killed = killed_at(run_all, n);

        assert_false(killed_at(recover_all, 0));
        assert_world(n);
        assert_false(killed_at(recover_all, 0)); /* a second time: nothing happens */
        assert_world(n);
        assert_int_equal(molt_remove_tree(root, NULL), 0);
        if (!killed)
            return n - 1;
    }
}

static void test_forward(void **state)
{
    (void)state;
    fail_late = false;
    int n = sweep();
    assert_true(n >= 22); /* create, 4 states, 2 records and an effect a step, 2 facts */
    assert_int_equal(sweep_single(), n);
}

static void test_back(void **state)
{
    (void)state;
    fail_late = true;
    int n = sweep();
    assert_true(n >= 22);
    assert_int_equal(sweep_single(), n);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_forward), cmocka_unit_test(test_back)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
