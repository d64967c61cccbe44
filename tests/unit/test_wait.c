/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* An operation that waits, whole but for Xen: its runner (upgrade_wait.c) with a real merge behind its channel to the clone,
 * and an admin who asks it. */
#include "test_merge_util.h"

#include <pthread.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "engine/control.h"
#include "proto/msg.h"
#include "proto/resolve.h"
#include "upgrade.h"

/* ---- the clone's agent: the merge's requests, as src/agent/mergeside.c answers them ---- */

struct agent {
    struct trees t;
    struct session s;
    struct molt_policy *decided[8];
    int n_decided;
    struct molt_chan *chan;
    pthread_t thread;
    const char *lie; /* what merge-report and merge-plan say instead */
    bool packages_changed;
};

static int a_pass(struct molt_request *rq, struct molt_json *reply, struct molt_error **err)
{
    struct agent *a = rq->ctx;
    int r = molt_merge_pass(a->s.m, &a->s.vt, MOLT_PASS_NO_SYNC, &a->s.stats, err);
    molt_json_set_int(reply, "number", a->s.stats.number);
    molt_json_set_int(reply, "actions", (int64_t)a->s.stats.actions);
    return r;
}

static int send_json(struct molt_request *rq, struct molt_json *v, struct molt_error **err)
{
    struct agent *a = rq->ctx;
    CLEANUP_FREE char *text = a->lie ? molt_xstrdup(a->lie) : molt_json_print(v, false);
    return molt_request_data(rq, text, strlen(text), err);
}

static int a_report(struct molt_request *rq, struct molt_json *reply, struct molt_error **err)
{
    struct agent *a = rq->ctx;
    CLEANUP_JSON struct molt_json *v = molt_merge_report(a->s.m);
    (void)reply;
    return send_json(rq, v, err);
}

static int a_plan(struct molt_request *rq, struct molt_json *reply, struct molt_error **err)
{
    struct agent *a = rq->ctx;
    CLEANUP_JSON struct molt_json *v = NULL;
    int r = molt_merge_plan(a->s.m, &a->s.vt, &a->s.stats, &v, err);
    (void)reply;
    return r < 0 ? r : send_json(rq, v, err);
}

static int a_resolve(struct molt_request *rq, struct molt_json *reply, struct molt_error **err)
{
    struct agent *a = rq->ctx;
    CLEANUP_RESOLVE struct molt_resolve *v = NULL;
    const char *text = molt_json_get_string(rq->args, "resolve");
    int r = molt_resolve_parse(text, strlen(text), "resolve", &v, err);
    (void)reply;
    if (r < 0)
        return r;
    CLEANUP_FREE struct molt_decision *d = molt_xcalloc(v->n + 1, sizeof(*d));
    for (size_t i = 0; i < v->n; i++)
        d[i] = (struct molt_decision){v->v[i].path, (enum molt_policy_action)molt_policy_action_of(v->v[i].action), v->v[i].line};
    const struct molt_policy *under = a->n_decided ? a->decided[a->n_decided - 1] : a->s.policy;
    a->decided[a->n_decided] = molt_policy_decide(under, d, v->n);
    molt_merge_set_policy(a->s.m, a->decided[a->n_decided++]);
    return 0;
}

static int a_check(struct molt_request *rq, struct molt_json *reply, struct molt_error **err)
{
    struct agent *a = rq->ctx;
    (void)reply;
    return a->packages_changed ? molt_error_set(err, MOLT_E_CONFLICT, "1 packages changed: shop") : 0;
}

static void *agent_thread(void *arg)
{
    static const struct molt_handler handlers[] = {{"merge-pass", a_pass},       {"merge-report", a_report}, {"merge-plan", a_plan},
                                                   {"merge-resolve", a_resolve}, {"merge-check", a_check},   {NULL, NULL}};
    struct agent *a = arg;
    while (molt_serve_one(a->chan, handlers, a, -1, NULL) == 0)
        ;
    return NULL;
}

/* ---- the runner: premerge as in upgrade_move.c ---- */

static struct world {
    struct agent agent;
    struct molt_chan *clone, *active;
    int active_fd; /* the other end of active */
    char dir[64];
    struct molt_engine *engine;
    struct molt_op *op;
    pthread_t thread;
    int result;
    char text[512];
} w;

int64_t up_param_int(struct molt_op *op, const char *key)
{
    return molt_json_get_int(molt_op_params(op), key, 0);
}

void up_note_merge(struct molt_op *op, struct molt_chan *clone)
{
    struct molt_json *v = NULL;
    if (up_guest_json(clone, "merge-report", &v, NULL) == 0)
        molt_op_note(op, "merge", v);
}

int up_merge_pass(struct molt_op *op, struct molt_chan *clone, struct molt_json **ret, struct molt_error **err)
{
    int r = molt_call(clone, "merge-pass", NULL, NULL, ret, err);
    return r == MOLT_E_CONFLICT ? up_conflict(op, clone, err) : r;
}

static int premerge(struct molt_op *op, struct molt_error **err)
{
    int r = up_merge_pass(op, w.clone, NULL, err);
    if (r != 0 && r != MOLT_E_CONFLICT)
        return r;
    if (up_param_int(op, "wait_hours") == 0)
        return r;
    molt_error_clear(err);
    r = up_wait(op, w.active, w.clone, err);
    if (r == 0) {
        up_note_merge(op, w.clone);
        up_warn_unused(op);
    }
    return r;
}
static int pivot(struct molt_op *op, struct molt_error **err)
{
    (void)op;
    (void)err;
    return 0;
}
static int probe(struct molt_op *op, enum molt_probe *ret, struct molt_error **err)
{
    (void)op;
    (void)err;
    *ret = MOLT_PROBE_NOT_DONE;
    return 0;
}
static const struct molt_step steps[] = {
    {"premerge", MOLT_STEP_REVERSIBLE, 60, premerge, NULL, NULL},
    {"pivot", MOLT_STEP_PIVOT, 0, pivot, NULL, probe},
};
static const struct molt_op_table table = {.kind = "toy", .steps = steps, .n_steps = 2};
static const struct molt_op_table *const tables[] = {&table, NULL};

static void *runner(void *arg)
{
    struct molt_error *err = NULL;
    (void)arg;
    w.result = molt_op_run(w.op, &err);
    snprintf(w.text, sizeof(w.text), "%s", molt_error_text(err));
    molt_error_free(err);
    return NULL;
}

static int setup(void **state)
{
    struct agent *a = &w.agent;
    int p[2];
    (void)state;
    memset(&w, 0, sizeof(w));
    trees_make(&a->t);
    mkdir3(&a->t, "shop");
    put3(&a->t, "shop/prices", "base\n");
    put3(&a->t, "shop/list", "one\ntwo\n");
    put(a->t.a, "shop/prices", "active\n", 2000);
    put(a->t.u, "shop/prices", "upgrade\n", 2000);
    put(a->t.a, "shop/list", "one\nactive\n", 2000);
    put(a->t.u, "shop/list", "one\nupgrade\n", 2000);
    session_start(&a->s, &a->t, NULL, MOLT_ON_CONFLICT_REFUSE);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, p), 0);
    a->chan = molt_chan_from_fd(p[0]);
    w.clone = molt_chan_from_fd(p[1]);
    w.clone->timeout_ms = 20000;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, p), 0);
    w.active = molt_chan_from_fd(p[0]);
    w.active_fd = p[1];
    assert_int_equal(pthread_create(&a->thread, NULL, agent_thread, a), 0);
    strcpy(w.dir, "/tmp/xenmolt-wait-XXXXXX");
    return mkdtemp(w.dir) ? 0 : -1;
}

static int teardown(void **state)
{
    struct agent *a = &w.agent;
    (void)state;
    molt_chan_close(w.clone);
    molt_chan_close(w.active);
    if (w.active_fd >= 0)
        close(w.active_fd);
    pthread_join(a->thread, NULL);
    molt_chan_close(a->chan);
    session_end(&a->s);
    while (a->n_decided)
        molt_policy_free(a->decided[--a->n_decided]);
    trees_remove(&a->t);
    molt_op_close(w.op);
    molt_engine_close(w.engine);
    return molt_remove_tree(w.dir, NULL);
}

static void start(int hours)
{
    struct molt_engine_config c = {.state_dir = w.dir, .tables = tables};
    CLEANUP_JSON struct molt_json *params = molt_json_object();
    molt_json_set_int(params, "wait_hours", hours);
    assert_int_equal(molt_engine_open(&c, &w.engine, NULL), 0);
    assert_int_equal(molt_op_create(w.engine, "toy", "web1", "key", params, &w.op, NULL), 0);
    assert_int_equal(pthread_create(&w.thread, NULL, runner, NULL), 0);
}

static void until_it_waits(void)
{
    for (int i = 0; i < 2000; i++) {
        CLEANUP_JSON struct molt_json *v = NULL;
        assert_int_equal(molt_op_list(w.engine, &v, NULL), 0);
        if (molt_streq(molt_json_get_string(molt_json_at(v, 0), "state"), "waiting"))
            return;
        molt_sleep_ms(10);
    }
    fail_msg("it does not wait");
}

static int ended(void)
{
    pthread_join(w.thread, NULL);
    return w.result;
}

static int ask(const char *method, const char *resolve, struct molt_json **ret, char **ret_text)
{
    CLEANUP_JSON struct molt_json *params = molt_json_object();
    CLEANUP_ERROR struct molt_error *err = NULL;
    if (resolve)
        molt_json_set_string(params, "resolve", resolve);
    molt_json_set_string(params, "file", "my-file");
    int r = molt_control_call(molt_op_dir(w.op), method, params, 20000, ret, &err);
    if (ret_text)
        *ret_text = molt_xstrdup(molt_error_text(err));
    return r;
}

static char *op_file(const char *name)
{
    CLEANUP_FREE char *path = molt_xasprintf("%s/%s", molt_op_dir(w.op), name);
    char *text = NULL;
    return molt_read_file(path, 1 << 20, &text, NULL, NULL) < 0 ? NULL : text;
}

/* ---- the tests ---- */

static void a_conflict_leaves_a_file_to_decide_in(void **s)
{
    (void)s;
    start(0);
    assert_int_equal(ended(), MOLT_E_CONFLICT);
    CLEANUP_FREE char *file = op_file("conflicts.resolve");
    assert_non_null(file);
    assert_non_null(strstr(file, "\n#active /shop/prices\n"));
    assert_non_null(strstr(file, "#   upgrade  file, 12 bytes, mode 0644, owner "));
    assert_non_null(strstr(w.text, "/shop/list (changed-both)"));
    assert_non_null(strstr(w.text, "/conflicts.resolve"));
    const struct molt_json *m = molt_json_get(molt_op_notes(w.op), "merge");
    assert_int_equal(molt_json_size(molt_json_get(m, "conflicts")), 2);
    assert_non_null(strstr(molt_json_get_string(m, "resolve_template"), "/conflicts.resolve"));
}

static void decided_while_it_waits(void **s)
{
    (void)s;
    CLEANUP_JSON struct molt_json *plan = NULL, *left = NULL, *pass = NULL;
    CLEANUP_FREE char *why = NULL, *bad = NULL;
    start(1);
    until_it_waits();
    assert_int_equal(ask("plan", NULL, &plan, NULL), 0);
    assert_string_equal(molt_json_get_string(plan, "state"), "waiting");
    assert_int_equal(molt_json_get_int(molt_json_get(plan, "plan"), "conflicts_open", 0), 2);
    assert_non_null(molt_json_get_string(molt_json_at(molt_json_get(molt_json_get(plan, "plan"), "conflicts"), 0), "diff"));
    assert_int_equal(ask("continue", NULL, NULL, &why), MOLT_E_CONFLICT);
    assert_non_null(strstr(why, "waits on"));
    assert_non_null(strstr(why, "/shop/prices"));
    assert_int_equal(ask("pass", NULL, NULL, NULL), MOLT_E_CONFLICT);
    assert_int_equal(ask("resolve", "win /shop/list\n", NULL, &bad), MOLT_E_USAGE);
    assert_non_null(strstr(bad, "my-file:1: unknown action"));
    assert_int_equal(ask("resolve", NULL, NULL, NULL), MOLT_E_USAGE);
    assert_int_equal(ask("no-such-method", NULL, NULL, NULL), MOLT_E_USAGE);
    assert_int_equal(ask("resolve", "upgrade /shop/prices\nactive /no/such\n", &left, NULL), 0);
    assert_int_equal(molt_json_get_int(molt_json_get(left, "plan"), "conflicts_open", 0), 1);
    assert_int_equal(molt_json_size(molt_json_get(molt_json_get(left, "plan"), "unused_decisions")), 1);
    assert_int_equal(ask("resolve", "active /shop/list\n", NULL, NULL), 0);
    assert_int_equal(ask("pass", NULL, &pass, NULL), 0);
    assert_true(molt_json_get_int(molt_json_get(pass, "pass"), "number", 0) == 1);
    assert_file(w.agent.t.u, "shop/list", "one\nactive\n");
    put(w.agent.t.a, "shop/list", "one\nlater\n", 3000);
    assert_int_equal(ask("continue", NULL, NULL, NULL), 0);
    assert_int_equal(ended(), 0);
    assert_int_equal(molt_op_state(w.op), MOLT_OP_DONE);
    assert_file(w.agent.t.u, "shop/list", "one\nlater\n");
    assert_file(w.agent.t.u, "shop/prices", "upgrade\n");
    const struct molt_json *m = molt_json_get(molt_op_notes(w.op), "merge");
    assert_int_equal(molt_json_get_int(m, "conflicts_open", -1), 0);
    assert_int_equal(molt_json_size(molt_json_get(m, "conflicts")), 2);
}

static void changed_packages_keep_it_waiting(void **s)
{
    (void)s;
    CLEANUP_FREE char *why = NULL;
    w.agent.packages_changed = true;
    start(1);
    until_it_waits();
    assert_int_equal(ask("resolve", "upgrade /shop/prices\nupgrade /shop/list\n", NULL, NULL), 0);
    assert_int_equal(ask("continue", NULL, NULL, &why), MOLT_E_CONFLICT);
    assert_non_null(strstr(why, "shop"));
    w.agent.packages_changed = false;
    assert_int_equal(ask("continue", NULL, NULL, NULL), 0);
    assert_int_equal(ended(), 0);
}

static void a_file_that_is_edited_is_not_written_again(void **s)
{
    (void)s;
    CLEANUP_JSON struct molt_json *plan = NULL;
    start(1);
    until_it_waits();
    CLEANUP_FREE char *path = molt_xasprintf("%s/conflicts.resolve", molt_op_dir(w.op));
    assert_int_equal(molt_write_file(path, "upgrade /shop/prices\n", 21, 0600, NULL), 0);
    assert_int_equal(ask("plan", NULL, &plan, NULL), 0);
    CLEANUP_FREE char *kept = op_file("conflicts.resolve"), *second = op_file("conflicts-2.resolve");
    assert_string_equal(kept, "upgrade /shop/prices\n");
    assert_non_null(second);
    assert_non_null(strstr(molt_json_get_string(plan, "resolve_template"), "/conflicts-2.resolve"));
    assert_int_equal(molt_op_abort(w.engine, molt_op_id(w.op), 20000, NULL), 0);
    assert_int_equal(ended(), MOLT_E_ABORTED);
    CLEANUP_FREE char *socket = molt_xasprintf("%s/control", molt_op_dir(w.op));
    assert_false(molt_exists(socket));
}

static void who_goes_away_ends_it(void **s)
{
    (void)s;
    start(1);
    until_it_waits();
    close(w.active_fd);
    w.active_fd = -1;
    assert_int_equal(ended(), MOLT_E_NO_AGENT);
    assert_non_null(strstr(w.text, "agent of web1 went away"));
    assert_int_equal(molt_op_state(w.op), MOLT_OP_FAILED);
}

/* A clone's agent that lies harms neither terminal nor file, and nonsense is refused. */
static void lies_of_the_clone(void **s)
{
    (void)s;
    CLEANUP_JSON struct molt_json *plan = NULL;
    start(1);
    until_it_waits();
    static const char *const nonsense[] = {"", "x", "[]", "{\"conflicts\":", "\"text\"", "{\"a\":\"\xff\"}"};
    for (size_t i = 0; i < sizeof(nonsense) / sizeof(nonsense[0]); i++) {
        w.agent.lie = nonsense[i];
        assert_int_equal(ask("plan", NULL, NULL, NULL), MOLT_E_PROTOCOL);
    }
    w.agent.lie = "{\"conflicts_open\":1,\"conflicts\":[{\"path\":\"/x\\u001b[2J\\nupgrade /etc/shadow\",\"diff\":\"+\\u0007\\n\","
                  "\"active\":5,\"upgrade\":[]},7,null],\"actions\":\"many\"}";
    assert_int_equal(ask("plan", NULL, &plan, NULL), 0);
    const struct molt_json *c = molt_json_at(molt_json_get(molt_json_get(plan, "plan"), "conflicts"), 0);
    assert_string_equal(molt_json_get_string(c, "path"), "/x?[2J?upgrade /etc/shadow");
    assert_string_equal(molt_json_get_string(c, "diff"), "+?\n");
    CLEANUP_FREE char *file = op_file("conflicts.resolve");
    assert_null(strchr(file, '\033'));
    assert_null(strstr(file, "\nupgrade"));
    CLEANUP_STRBUF struct molt_strbuf huge = MOLT_STRBUF_INIT;
    while (huge.len <= UP_REPORT_MAX)
        molt_strbuf_addf(&huge, "                                                                                ");
    w.agent.lie = huge.s;
    assert_int_equal(ask("plan", NULL, NULL, NULL), MOLT_E_PROTOCOL); /* and the channel is given up */
    assert_int_equal(ended(), MOLT_E_NO_AGENT);
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_conflict_leaves_a_file_to_decide_in), TEST(decided_while_it_waits), TEST(changed_packages_keep_it_waiting),
        TEST(a_file_that_is_edited_is_not_written_again), TEST(who_goes_away_ends_it), TEST(lies_of_the_clone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
