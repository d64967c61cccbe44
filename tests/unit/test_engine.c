/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The engine on a toy table whose "world" is a string of marks. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/fsio.h"
#include "base/strbuf.h"
#include "engine/internal.h"

/* What the toy steps see and do; the fixture resets it. */
static struct world {
    char dir[64];
    struct molt_strbuf trace;
    const char *fail_enter, *fail_undo; /* step names */
    bool poll_abort;                    /* step "b" waits until an abort is asked for */
    bool late;                          /* step "b" takes longer than its limit */
    int pivot_enter;                    /* what the pivot's enter returns */
    enum molt_probe pivot_probe;
    int events;
    char last_state[32];
} w;

static void trace(const char *what, const char *name)
{
    molt_strbuf_addf(&w.trace, "%s%s%s", w.trace.len ? " " : "", what, name);
}

static int toy_enter(const char *name, struct molt_error **err)
{
    trace("+", name);
    if (molt_streq(w.fail_enter, name))
        return molt_error_set(err, MOLT_E_RECIPE, "toy failure");
    return 0;
}

static int toy_undo(const char *name, struct molt_error **err)
{
    trace("-", name);
    if (molt_streq(w.fail_undo, name))
        return molt_error_set(err, MOLT_E_INTERNAL, "toy undo failure");
    return 0;
}

static int a_enter(struct molt_op *op, struct molt_error **err)
{
    if (molt_op_put(op, "domid", molt_json_int(7), err) < 0)
        return MOLT_E_INTERNAL;
    molt_op_note(op, "pause_ms", molt_json_int(12));
    molt_op_progress(op, 50, "half of %s", "it");
    return toy_enter("a", err);
}
static int a_undo(struct molt_op *op, struct molt_error **err)
{
    assert_int_equal(molt_json_get_int(molt_op_facts(op), "domid", 0), 7);
    return toy_undo("a", err);
}
static int b_enter(struct molt_op *op, struct molt_error **err)
{
    if (w.late)
        molt_sleep_ms((int)(molt_op_deadline_ms(op) - molt_mono_ms()) + 20);
    for (int i = 0; w.poll_abort; i++) {
        if (molt_op_aborting(op))
            return molt_error_set(err, MOLT_E_ABORTED, "stopped in b");
        assert_true(i < 500);
        molt_sleep_ms(10);
    }
    return toy_enter("b", err);
}
static int b_undo(struct molt_op *op, struct molt_error **err)
{
    assert_false(molt_op_aborting(op));
    return toy_undo("b", err);
}
static int c_enter(struct molt_op *op, struct molt_error **err)
{
    (void)op;
    return toy_enter("c", err);
}
static int p_enter(struct molt_op *op, struct molt_error **err)
{
    (void)op;
    trace("+", "p");
    return w.pivot_enter ? molt_error_set(err, w.pivot_enter, "toy pivot failure") : 0;
}
static int p_probe(struct molt_op *op, enum molt_probe *ret, struct molt_error **err)
{
    (void)op;
    (void)err;
    trace("?", "p");
    *ret = w.pivot_probe;
    return 0;
}
static int f_enter(struct molt_op *op, struct molt_error **err)
{
    (void)op;
    return toy_enter("f", err);
}
static struct molt_json *toy_report(struct molt_op *op)
{
    struct molt_json *v = molt_json_object();

    molt_json_set_string(v, "result", molt_op_state_text(molt_op_state(op)));
    molt_json_set(v, "phases", molt_op_phases(op));
    if (molt_op_failure(op))
        molt_json_set(v, "failure", molt_json_copy(molt_op_failure(op)));
    return v;
}

static const struct molt_step toy_steps[] = {
    {"a", MOLT_STEP_REVERSIBLE, 0, a_enter, a_undo, NULL},
    {"b", MOLT_STEP_REVERSIBLE, 1, b_enter, b_undo, NULL},
    {"c", MOLT_STEP_REVERSIBLE, 0, c_enter, NULL, NULL},
    {"p", MOLT_STEP_PIVOT, 0, p_enter, NULL, p_probe},
    {"f", MOLT_STEP_FORWARD, 0, f_enter, NULL, NULL},
};
static const struct molt_op_table toy = {
    .kind = "toy-kind", .steps = toy_steps, .n_steps = 5, .report = toy_report};
static const struct molt_op_table *const tables[] = {&toy, NULL};

static void on_event(void *ctx, const struct molt_op_event *ev)
{
    (void)ctx;
    w.events++;
    if (!strcmp(ev->kind, "state"))
        snprintf(w.last_state, sizeof(w.last_state), "%s", ev->name);
}

static int setup(void **state)
{
    struct molt_engine_config cfg = {.state_dir = w.dir, .event = on_event, .tables = tables};
    struct molt_engine *e = NULL;

    memset(&w, 0, sizeof(w));
    strcpy(w.dir, "/tmp/molt-engine-XXXXXX");
    assert_non_null(mkdtemp(w.dir));
    assert_int_equal(molt_engine_open(&cfg, &e, NULL), 0);
    *state = e;
    return 0;
}

static int teardown(void **state)
{
    molt_engine_close(*state);
    molt_strbuf_free(&w.trace);
    return molt_remove_tree(w.dir, NULL);
}

static struct molt_op *create(struct molt_engine *e)
{
    CLEANUP_ERROR struct molt_error *err = NULL;
    CLEANUP_JSON struct molt_json *params = molt_json_object();
    struct molt_op *op = NULL;

    molt_json_set_string(params, "recipe", "toy");
    if (molt_op_create(e, "toy-kind", "web1", "uuid-1", params, &op, &err) < 0)
        fail_msg("%s", molt_error_text(err));
    return op;
}

/* Runs a new operation; *ret_id malloc'd. */
static int run(struct molt_engine *e, char **ret_id, struct molt_error **err)
{
    struct molt_op *op = create(e);
    int r = molt_op_run(op, err);

    *ret_id = molt_xstrdup(molt_op_id(op));
    molt_op_close(op);
    return r;
}

static void assert_shows(struct molt_engine *e, const char *id, const char *key, const char *value)
{
    CLEANUP_JSON struct molt_json *v = NULL;

    assert_int_equal(molt_op_show(e, id, &v, NULL), 0);
    assert_string_equal(molt_json_get_string(v, key), value);
}

/* Leaves an operation as a runner does that is killed: the journal as it is, the lock free. */
static char *leave_dead(struct molt_op *op)
{
    char *id = molt_xstrdup(molt_op_id(op));

    molt__journal_close(&op->journal);
    molt_op_close(op);
    return id;
}

static char *leave_in(struct molt_engine *e, const enum molt_op_state *states, size_t n, const char *intent)
{
    struct molt_op *op = create(e);

    for (size_t i = 0; i < n; i++) {
        if (states[i] == MOLT_OP_PIVOTING || n == 1)
            assert_int_equal(molt__op_record(op, molt__op_rec("intent", intent), MOLT__NOW, NULL), 0);
        assert_int_equal(molt__op_set_state(op, states[i], NULL), 0);
    }
    return leave_dead(op);
}

static void test_order(void **state)
{
    CLEANUP_FREE char *id = NULL;
    CLEANUP_ERROR struct molt_error *err = NULL;

    assert_int_equal(run(*state, &id, &err), 0);
    assert_null(err);
    assert_string_equal(molt_strbuf_str(&w.trace), "+a +b +c +p +f");
    assert_string_equal(w.last_state, "done");
    assert_shows(*state, id, "state", "done");
    assert_memory_equal(id, "tk-20", 5);
}

static void test_undo_order(void **state)
{
    CLEANUP_FREE char *id = NULL;
    CLEANUP_ERROR struct molt_error *err = NULL;

    w.fail_enter = "c";
    assert_int_equal(run(*state, &id, &err), MOLT_E_RECIPE);
    assert_string_equal(molt_error_text(err), "c: toy failure; undone: b, a; the guest runs as before");
    assert_string_equal(molt_strbuf_str(&w.trace), "+a +b +c -b -a");
    assert_shows(*state, id, "state", "failed");
    assert_shows(*state, id, "error", "c: toy failure");
    /* an ended operation is nothing to recover, and does not hold the domain */
    assert_int_equal(molt_op_recover(*state, id, NULL), 0);
    free(MOLT_STEAL_PTR(id));
    w.fail_enter = NULL;
    assert_int_equal(run(*state, &id, NULL), 0);
}

static void test_abort_between(void **state)
{
    struct molt_op *op = create(*state);
    CLEANUP_ERROR struct molt_error *err = NULL;

    assert_int_equal(molt_op_abort(*state, molt_op_id(op), 0, &err), 0);
    assert_int_equal(molt_op_run(op, &err), MOLT_E_ABORTED);
    assert_int_equal(molt_op_state(op), MOLT_OP_ABORTED);
    assert_int_equal(w.trace.len, 0);
    assert_int_equal(molt_op_abort(*state, molt_op_id(op), 0, NULL), MOLT_E_STATE);
    molt_op_close(op);
}

static void *abort_thread(void *arg)
{
    struct molt_op *op = arg;

    molt_sleep_ms(100);
    return (void *)(intptr_t)molt_op_abort(op->engine, op->id, 5000, NULL);
}

static void test_abort_polling(void **state)
{
    struct molt_op *op = create(*state);
    CLEANUP_ERROR struct molt_error *err = NULL;
    pthread_t t;
    void *aborted = NULL;

    w.poll_abort = true;
    assert_int_equal(pthread_create(&t, NULL, abort_thread, op), 0);
    assert_int_equal(molt_op_run(op, &err), MOLT_E_ABORTED);
    pthread_join(t, &aborted);
    assert_int_equal((intptr_t)aborted, 0);
    assert_string_equal(molt_strbuf_str(&w.trace), "+a -b -a");
    assert_int_equal(molt_op_state(op), MOLT_OP_ABORTED);
    molt_op_close(op);
}

static void test_abort_dead(void **state)
{
    CLEANUP_FREE char *id = leave_in(*state, (enum molt_op_state[]){MOLT_OP_RUNNING}, 1, "b");

    assert_int_equal(molt_op_abort(*state, id, 0, NULL), 0);
    assert_string_equal(molt_strbuf_str(&w.trace), "-b");
    assert_shows(*state, id, "state", "aborted");
}

static void test_abort_past_pivot(void **state)
{
    CLEANUP_FREE char *id = NULL;
    CLEANUP_ERROR struct molt_error *err = NULL;

    assert_int_equal(run(*state, &id, NULL), 0);
    assert_int_equal(molt_op_abort(*state, id, 0, &err), MOLT_E_STATE);
    assert_non_null(strstr(molt_error_text(err), "op-rollback"));
}

static void test_stuck_undo(void **state)
{
    CLEANUP_FREE char *id = NULL;
    CLEANUP_ERROR struct molt_error *err = NULL;

    w.fail_enter = "c";
    w.fail_undo = "b";
    assert_int_equal(run(*state, &id, &err), MOLT_E_NEEDS_RECOVERY);
    assert_non_null(strstr(molt_error_text(err), "c: toy failure"));
    assert_non_null(strstr(molt_error_text(err), "undo of b: toy undo failure"));
    assert_non_null(strstr(molt_error_text(err), "xenmolt op-recover tk-"));
    assert_string_equal(molt_strbuf_str(&w.trace), "+a +b +c -b");
    assert_shows(*state, id, "state", "stuck");
    w.fail_undo = NULL;
    assert_int_equal(molt_op_recover(*state, id, NULL), 0);
    assert_string_equal(molt_strbuf_str(&w.trace), "+a +b +c -b -b -a");
    assert_shows(*state, id, "state", "failed");
}

static void test_stuck_forward(void **state)
{
    CLEANUP_FREE char *id = NULL;

    w.fail_enter = "f";
    assert_int_equal(run(*state, &id, NULL), MOLT_E_NEEDS_RECOVERY);
    assert_shows(*state, id, "state", "stuck");
    assert_int_equal(molt_op_abort(*state, id, 0, NULL), MOLT_E_STATE);
    w.fail_enter = NULL;
    assert_int_equal(molt_op_recover(*state, id, NULL), 0);
    assert_string_equal(molt_strbuf_str(&w.trace), "+a +b +c +p +f +f");
    assert_shows(*state, id, "state", "done");
}

static void test_time_limit(void **state)
{
    CLEANUP_FREE char *id = NULL;

    w.late = true;
    assert_int_equal(run(*state, &id, NULL), MOLT_E_TIMEOUT);
    assert_string_equal(molt_strbuf_str(&w.trace), "+a +b -b -a");
}

static void test_illegal_state(void **state)
{
    static const enum molt_op_state bad[] = {MOLT_OP_NEW,     MOLT_OP_PIVOTING,      MOLT_OP_FORWARD,
                                             MOLT_OP_UNDOING, MOLT_OP_DONE,          MOLT_OP_COMMITTED,
                                             MOLT_OP_STUCK,   (enum molt_op_state)99};
    struct molt_op *op = create(*state);

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_int_equal(molt__op_set_state(op, bad[i], NULL), MOLT_E_STATE);
    assert_int_equal(molt_op_state(op), MOLT_OP_NEW);
    assert_int_equal(molt_op_run(op, NULL), 0);
    for (unsigned s = 0; s <= MOLT_OP_STUCK; s++) {
        if (s != MOLT_OP_COMMITTED && s != MOLT_OP_ROLLED_BACK)
            assert_int_equal(molt__op_set_state(op, (enum molt_op_state)s, NULL), MOLT_E_STATE);
    }
    assert_int_equal(molt_op_run(op, NULL), MOLT_E_STATE);
    molt_op_close(op);
}

static char *journal_path(const char *id) { return molt_xasprintf("%s/ops/%s/journal", w.dir, id); }

static void test_torn_tail(void **state)
{
    CLEANUP_FREE char *id = leave_in(*state, (enum molt_op_state[]){MOLT_OP_RUNNING}, 1, "a"),
                      *path = journal_path(id);
    CLEANUP_JSON struct molt_json *before = NULL, *after = NULL;
    int fd;

    /* undo of a reads its fact */
    assert_int_equal(molt_op_journal(*state, id, &before, NULL), 0);
    fd = open(path, O_WRONLY | O_APPEND);
    assert_int_equal(write(fd, "{\"type\":\"state\",\"sta", 20), 20);
    close(fd);
    assert_int_equal(molt_op_journal(*state, id, &after, NULL), 0);
    assert_int_equal(molt_json_size(before), molt_json_size(after));
    w.fail_undo = NULL;
    struct molt_op *op = NULL;
    assert_int_equal(molt__op_load_locked(*state, id, &op, NULL), 0);
    assert_int_equal(molt_op_put(op, "domid", molt_json_int(7), NULL), 0);
    assert_int_equal(molt__recover_locked(op, NULL), 0);
    molt_op_close(op);
    assert_shows(*state, id, "state", "failed");
}

static void corrupt(const char *path, off_t at)
{
    int fd = open(path, O_RDWR);
    char c;

    assert_int_equal(pread(fd, &c, 1, at), 1);
    c ^= 1;
    assert_int_equal(pwrite(fd, &c, 1, at), 1);
    close(fd);
}

static void test_damage(void **state)
{
    CLEANUP_FREE char *id = NULL, *path = NULL;
    CLEANUP_ERROR struct molt_error *err = NULL;
    CLEANUP_JSON struct molt_json *list = NULL;
    CLEANUP_FREE char *text = NULL;
    struct molt_op *op = NULL;
    size_t len;

    assert_int_equal(run(*state, &id, NULL), 0);
    path = journal_path(id);
    assert_int_equal(molt_read_file(path, 1 << 20, &text, &len, NULL), 0);
    /* every tenth byte, newlines apart, wherever it stands */
    for (size_t at = 0; at < len; at += 10) {
        if (text[at] == '\n' || (text[at] ^ 1) == '\n' || at + 1 >= len)
            continue;
        corrupt(path, (off_t)at);
        struct molt_json *j = NULL;
        assert_int_equal(molt_op_journal(*state, id, &j, NULL), MOLT_E_PROTOCOL);
        assert_int_equal(molt_op_recover(*state, id, NULL), MOLT_E_PROTOCOL);
        corrupt(path, (off_t)at);
    }
    assert_int_equal(molt_op_recover(*state, id, NULL), 0);
    corrupt(path, (off_t)len - 30);
    assert_int_equal(molt_op_list(*state, &list, NULL), 0);
    assert_string_equal(molt_json_get_string(molt_json_at(list, 0), "state"), "damaged");
    assert_int_equal(molt_op_create(*state, "toy-kind", "web1", "uuid-1", NULL, &op, &err), MOLT_E_BUSY);
    assert_non_null(strstr(molt_error_text(err), "damaged"));
}

static void test_missing_record(void **state)
{
    CLEANUP_FREE char *id = NULL, *path = NULL, *text = NULL;
    CLEANUP_STRBUF struct molt_strbuf cut = MOLT_STRBUF_INIT;
    CLEANUP_JSON struct molt_json *j = NULL;
    size_t len;
    char *second, *third;

    assert_int_equal(run(*state, &id, NULL), 0);
    path = journal_path(id);
    assert_int_equal(molt_read_file(path, 1 << 20, &text, &len, NULL), 0);
    second = strchr(text, '\n') + 1;
    third = strchr(second, '\n') + 1;
    molt_strbuf_add(&cut, text, (size_t)(second - text));
    molt_strbuf_add(&cut, third, len - (size_t)(third - text));
    assert_int_equal(molt_write_file(path, cut.s, cut.len, 0600, NULL), 0);
    assert_int_equal(molt_op_journal(*state, id, &j, NULL), MOLT_E_PROTOCOL);
}

/* A write that does not fit leaves no half record behind, and the journal goes on once there is room again.
 */
static void test_full_disk(void **state)
{
    struct molt_op *op = create(*state);
    CLEANUP_JSON struct molt_json *j = NULL;
    CLEANUP_FREE char *path = journal_path(molt_op_id(op));
    CLEANUP_FREE char *big = molt_xcalloc(1, 5000);
    struct rlimit old, small;

    memset(big, 'x', 4999);
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    small = (struct rlimit){.rlim_cur = 2000, .rlim_max = old.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    assert_int_equal(molt_op_put(op, "big", molt_json_string(big), NULL), MOLT_E_INTERNAL);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    assert_null(molt_json_get(molt_op_facts(op), "big"));
    assert_int_equal(molt_op_journal(*state, molt_op_id(op), &j, NULL), 0);
    assert_int_equal(molt_json_size(j), 1);
    assert_int_equal(molt_op_run(op, NULL), 0);
    molt_op_close(op);
}

static void test_busy(void **state)
{
    struct molt_op *op = create(*state), *second = NULL, *other = NULL;
    CLEANUP_ERROR struct molt_error *err = NULL;

    assert_int_equal(molt_op_create(*state, "toy-kind", "web1", "uuid-1", NULL, &second, &err), MOLT_E_BUSY);
    assert_non_null(strstr(molt_error_text(err), molt_op_id(op)));
    assert_non_null(strstr(molt_error_text(err), "run by process"));
    assert_int_equal(molt_op_recover(*state, molt_op_id(op), NULL), MOLT_E_BUSY);
    assert_int_equal(molt_op_create(*state, "toy-kind", "web2", "uuid/2", NULL, &other, NULL), 0);
    molt_op_close(other);
    molt_op_close(op); /* never run: holds nothing */
    op = create(*state);
    molt_op_close(op);
}

static void test_unfinished_blocks(void **state)
{
    CLEANUP_FREE char *id = leave_in(*state, (enum molt_op_state[]){MOLT_OP_RUNNING}, 1, "b");
    CLEANUP_ERROR struct molt_error *err = NULL;
    CLEANUP_FREE char *want = molt_xasprintf("xenmolt op-recover %s", id);
    struct molt_op *op = NULL;

    assert_int_equal(molt_op_create(*state, "toy-kind", "web1", "uuid-1", NULL, &op, &err), MOLT_E_BUSY);
    assert_non_null(strstr(molt_error_text(err), want));
    assert_int_equal(molt_op_recover(*state, id, NULL), 0);
    assert_string_equal(molt_strbuf_str(&w.trace), "-b");
    op = create(*state);
    molt_op_close(op);
}

static void test_pivot_probe(void **state)
{
    static const enum molt_op_state to_pivot[] = {MOLT_OP_RUNNING, MOLT_OP_PIVOTING};
    CLEANUP_FREE char *id = leave_in(*state, to_pivot, 2, "p");

    w.pivot_probe = MOLT_PROBE_PARTIAL;
    assert_int_equal(molt_op_abort(*state, id, 0, NULL), MOLT_E_STATE);
    assert_int_equal(molt_op_recover(*state, id, NULL), MOLT_E_NEEDS_RECOVERY);
    assert_shows(*state, id, "state", "stuck");
    w.pivot_probe = MOLT_PROBE_DONE;
    assert_int_equal(molt_op_recover(*state, id, NULL), 0);
    assert_shows(*state, id, "state", "done");
    free(MOLT_STEAL_PTR(id));
    id = leave_in(*state, to_pivot, 2, "p");
    w.pivot_probe = MOLT_PROBE_NOT_DONE;
    assert_int_equal(molt_op_recover(*state, id, NULL), 0);
    assert_shows(*state, id, "state", "failed");
    assert_string_equal(molt_strbuf_str(&w.trace), "?p ?p +f ?p");
}

static void test_pivot_enter_fails(void **state)
{
    CLEANUP_FREE char *id = NULL, *id2 = NULL;
    CLEANUP_ERROR struct molt_error *err = NULL;

    w.pivot_enter = MOLT_E_INTERNAL;
    w.pivot_probe = MOLT_PROBE_NOT_DONE;
    assert_int_equal(run(*state, &id, &err), MOLT_E_INTERNAL);
    assert_string_equal(molt_strbuf_str(&w.trace), "+a +b +c +p ?p -b -a");
    w.pivot_probe = MOLT_PROBE_DONE;
    assert_int_equal(run(*state, &id2, NULL), 0);
    assert_shows(*state, id2, "state", "done");
}

static int count_calls(struct molt_op *op, struct molt_error **err)
{
    trace("commit", "");
    return molt_json_get_int(molt_op_facts(op), "domid", 0) == 7
               ? 0
               : molt_error_set(err, MOLT_E_INTERNAL, "no fact");
}

static void test_views(void **state)
{
    CLEANUP_FREE char *id = NULL;
    CLEANUP_JSON struct molt_json *list = NULL, *show = NULL, *journal = NULL;
    const struct molt_json *phases, *first;

    assert_int_equal(run(*state, &id, NULL), 0);
    assert_true(w.events > 10);
    assert_int_equal(molt_op_list(*state, &list, NULL), 0);
    assert_int_equal(molt_json_size(list), 1);
    first = molt_json_at(list, 0);
    assert_string_equal(molt_json_get_string(first, "id"), id);
    assert_string_equal(molt_json_get_string(first, "subject"), "web1");
    assert_int_equal(molt_json_type(molt_json_get(first, "runner")), MOLT_JSON_NULL);
    assert_int_equal(molt_op_show(*state, "tk-", &show, NULL), 0); /* a unique prefix will do */
    assert_string_equal(molt_json_get_string(molt_json_get(show, "params"), "recipe"), "toy");
    assert_int_equal(molt_json_get_int(molt_json_get(show, "facts"), "domid", 0), 7);
    assert_int_equal(molt_json_get_int(molt_json_get(show, "notes"), "pause_ms", 0), 12);
    assert_string_equal(molt_json_get_string(molt_json_get(show, "report"), "result"), "done");
    phases = molt_json_get(show, "phases");
    assert_int_equal(molt_json_size(phases), 5);
    for (size_t i = 0; i < 5; i++)
        assert_non_null(molt_json_get_string(molt_json_at(phases, i), "ended"));
    assert_int_equal(molt_op_journal(*state, id, &journal, NULL), 0);
    assert_string_equal(molt_json_get_string(molt_json_at(journal, 0), "type"), "create");
    assert_int_equal(molt_json_get_int(molt_json_at(journal, molt_json_size(journal) - 1), "seq", 0),
                     (int64_t)molt_json_size(journal));
    assert_int_equal(molt_op_show(*state, "nothing", &show, NULL), MOLT_E_NO_OPERATION);
    assert_int_equal(molt_op_show(*state, "../locks", &show, NULL), MOLT_E_NO_OPERATION);
    assert_int_equal(molt_op_show(*state, "", &show, NULL), MOLT_E_NO_OPERATION);
    assert_int_equal(molt_op_settle(*state, id, MOLT_OP_COMMITTED, count_calls, NULL), 0);
    assert_shows(*state, id, "state", "committed");
    assert_int_equal(molt_op_settle(*state, id, MOLT_OP_COMMITTED, count_calls, NULL), MOLT_E_STATE);
}

static void test_runner_shown(void **state)
{
    struct molt_op *op = create(*state);
    CLEANUP_JSON struct molt_json *show = NULL;

    assert_int_equal(molt_op_show(*state, molt_op_id(op), &show, NULL), 0);
    assert_int_equal(molt_json_get_int(show, "runner", 0), getpid());
    molt_op_close(op);
}

#define T(name) cmocka_unit_test_setup_teardown(test_##name, setup, teardown)
int main(void)
{
    const struct CMUnitTest tests[] = {
        T(order),          T(undo_order),        T(abort_between), T(abort_polling),
        T(abort_dead),     T(abort_past_pivot),  T(stuck_undo),    T(stuck_forward),
        T(time_limit),     T(illegal_state),     T(torn_tail),     T(damage),
        T(missing_record), T(full_disk),         T(busy),          T(unfinished_blocks),
        T(pivot_probe),    T(pivot_enter_fails), T(views),         T(runner_shown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
