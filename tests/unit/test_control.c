/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The state "waiting", and the socket by which others ask whoever runs an operation. */
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
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/fsio.h"
#include "base/strbuf.h"
#include "engine/control.h"
#include "engine/internal.h"

static struct world {
    char dir[64];
    bool go;
    int calls, undone;
} w;

static int answer(void *ctx, const char *method, const struct molt_json *params, struct molt_json **ret, struct molt_error **err)
{
    (void)ctx;
    w.calls++;
    if (molt_streq(method, "continue"))
        w.go = true;
    if (molt_streq(method, "fail"))
        return molt_error_set(err, MOLT_E_CONFLICT, "two \"paths\"\n are open");
    if (molt_streq(method, "echo")) {
        *ret = molt_json_object();
        molt_json_set(*ret, "got", molt_json_copy(params));
    }
    return 0;
}

static int wait_enter(struct molt_op *op, struct molt_error **err)
{
    int fd = -1, r = molt_control_listen(molt_op_dir(op), &fd, err);
    if (r == 0)
        r = molt_op_wait_begin(op, err);
    while (r == 0 && !w.go) {
        if (molt_op_aborting(op))
            r = molt_error_set(err, MOLT_E_ABORTED, "aborted while it waited");
        else
            molt_control_serve(fd, 50, answer, NULL);
    }
    molt_control_end(molt_op_dir(op), fd);
    return r < 0 ? r : molt_op_wait_end(op, err);
}
static int wait_undo(struct molt_op *op, struct molt_error **err)
{
    (void)op;
    (void)err;
    w.undone++;
    return 0;
}
static int pivot_enter(struct molt_op *op, struct molt_error **err)
{
    (void)op;
    (void)err;
    return 0;
}
static int pivot_probe(struct molt_op *op, enum molt_probe *ret, struct molt_error **err)
{
    (void)op;
    (void)err;
    *ret = MOLT_PROBE_DONE;
    return 0;
}

static const struct molt_step steps[] = {
    {"wait", MOLT_STEP_REVERSIBLE, 1, wait_enter, wait_undo, NULL}, /* waits longer than its limit */
    {"pivot", MOLT_STEP_PIVOT, 0, pivot_enter, NULL, pivot_probe},
};
static const struct molt_op_table table = {.kind = "toy", .steps = steps, .n_steps = 2};
static const struct molt_op_table *const tables[] = {&table, NULL};

static struct molt_engine *engine(void)
{
    struct molt_engine_config c = {.state_dir = w.dir, .tables = tables};
    struct molt_engine *e = NULL;
    assert_int_equal(molt_engine_open(&c, &e, NULL), 0);
    return e;
}

static int setup(void **state)
{
    (void)state;
    memset(&w, 0, sizeof(w));
    strcpy(w.dir, "/tmp/xenmolt-control-XXXXXX");
    return mkdtemp(w.dir) ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    return molt_remove_tree(w.dir, NULL);
}

/* The runner as a process of its own; its exit status is the code of the run, positive. */
static pid_t start_runner(void)
{
    pid_t pid = fork();
    if (pid == 0) {
        struct molt_op *op = NULL;
        struct molt_engine *e = engine();
        int r = molt_op_create(e, "toy", "web1", "key", NULL, &op, NULL);
        if (r == 0)
            r = molt_op_run(op, NULL);
        molt_op_close(op);
        molt_engine_close(e);
        _exit(-r);
    }
    return pid;
}

static int end_of(pid_t pid)
{
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* The only operation; waits until it is in that state. Its id and directory are malloc'd. */
static void reach(struct molt_engine *e, const char *state, char **ret_id, char **ret_dir)
{
    for (int i = 0; i < 1000; i++) {
        CLEANUP_JSON struct molt_json *v = NULL, *show = NULL;
        assert_int_equal(molt_op_list(e, &v, NULL), 0);
        const struct molt_json *op = molt_json_at(v, 0);
        if (molt_streq(molt_json_get_string(op, "state"), state)) {
            *ret_id = molt_xstrdup(molt_json_get_string(op, "id"));
            assert_int_equal(molt_op_show(e, *ret_id, &show, NULL), 0);
            *ret_dir = molt_xstrdup(molt_json_get_string(show, "dir"));
            return;
        }
        molt_sleep_ms(10);
    }
    fail_msg("not %s", state);
}

static void asked_and_told_to_go_on(void **s)
{
    (void)s;
    struct molt_engine *e = engine();
    pid_t pid = start_runner();
    CLEANUP_FREE char *id = NULL, *dir = NULL, *id2 = NULL, *dir2 = NULL;
    reach(e, "waiting", &id, &dir);
    CLEANUP_JSON struct molt_json *params = molt_json_object(), *v = NULL;
    molt_json_set_string(params, "text", "line\nline");
    assert_int_equal(molt_control_call(dir, "echo", params, 5000, &v, NULL), 0);
    assert_string_equal(molt_json_get_string(molt_json_get(v, "got"), "text"), "line\nline");
    CLEANUP_ERROR struct molt_error *err = NULL;
    assert_int_equal(molt_control_call(dir, "fail", NULL, 5000, NULL, &err), MOLT_E_CONFLICT);
    assert_string_equal(molt_error_text(err), "two \"paths\"  are open");
    /* It cannot be recovered under the runner's hands, and holds its domain. */
    assert_int_equal(molt_op_recover(e, id, NULL), MOLT_E_BUSY);
    struct molt_op *other = NULL;
    assert_int_equal(molt_op_create(e, "toy", "web1", "key", NULL, &other, NULL), MOLT_E_BUSY);
    struct stat st;
    CLEANUP_FREE char *path = molt_xasprintf("%s/control", dir);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    molt_sleep_ms(1200); /* past the step's limit: the wait does not count */
    assert_int_equal(molt_control_call(dir, "continue", NULL, 5000, NULL, NULL), 0);
    assert_int_equal(end_of(pid), 0);
    reach(e, "done", &id2, &dir2);
    assert_int_equal(molt_control_call(dir, "echo", NULL, 5000, NULL, NULL), MOLT_E_STATE);
    assert_false(molt_exists(path));
    molt_engine_close(e);
}

static void aborted_while_it_waits(void **s)
{
    (void)s;
    struct molt_engine *e = engine();
    pid_t pid = start_runner();
    CLEANUP_FREE char *id = NULL, *dir = NULL, *id2 = NULL, *dir2 = NULL;
    reach(e, "waiting", &id, &dir);
    assert_int_equal(molt_op_abort(e, id, 10000, NULL), 0);
    assert_int_equal(end_of(pid), -MOLT_E_ABORTED);
    reach(e, "aborted", &id2, &dir2);
    molt_engine_close(e);
}

static void killed_while_it_waits(void **s)
{
    (void)s;
    for (int by_abort = 0; by_abort < 2; by_abort++) {
        if (by_abort) {
            teardown(s);
            setup(s);
        }
        struct molt_engine *e = engine();
        pid_t pid = start_runner();
        CLEANUP_FREE char *id = NULL, *dir = NULL, *id2 = NULL, *dir2 = NULL;
        reach(e, "waiting", &id, &dir);
        kill(pid, SIGKILL);
        assert_int_equal(end_of(pid), 128 + SIGKILL);
        assert_int_equal(molt_control_call(dir, "echo", NULL, 5000, NULL, NULL), MOLT_E_STATE);
        assert_int_equal(by_abort ? molt_op_abort(e, id, 0, NULL) : molt_op_recover(e, id, NULL), 0);
        assert_int_equal(w.undone, 1);
        reach(e, by_abort ? "aborted" : "failed", &id2, &dir2);
        molt_engine_close(e);
    }
}

/* ---- askers that do not behave ---- */

struct server {
    int fd;
    bool stop;
    pthread_t thread;
};

static void *serve(void *arg)
{
    struct server *x = arg;
    while (!__atomic_load_n(&x->stop, __ATOMIC_ACQUIRE))
        molt_control_serve(x->fd, 20, answer, NULL);
    return NULL;
}

static void server_start(struct server *x)
{
    *x = (struct server){.fd = -1};
    assert_int_equal(molt_control_listen(w.dir, &x->fd, NULL), 0);
    assert_int_equal(pthread_create(&x->thread, NULL, serve, x), 0);
}

static void server_stop(struct server *x)
{
    __atomic_store_n(&x->stop, true, __ATOMIC_RELEASE);
    pthread_join(x->thread, NULL);
    molt_control_end(w.dir, x->fd);
}

static int raw(void)
{
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    snprintf(sa.sun_path, sizeof(sa.sun_path), "%s/control", w.dir);
    assert_int_equal(connect(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
    return fd;
}

/* What comes back for these bytes. */
static char *reply_to(const char *bytes, size_t len)
{
    char buf[4096];
    struct molt_strbuf b = MOLT_STRBUF_INIT;
    CLEANUP_CLOSE int fd = raw();
    ssize_t n = send(fd, bytes, len, MSG_NOSIGNAL);
    (void)n;
    shutdown(fd, SHUT_WR);
    while ((n = read(fd, buf, sizeof(buf))) > 0)
        molt_strbuf_add(&b, buf, (size_t)n);
    return molt_strbuf_steal(&b);
}

static void hostile_requests(void **s)
{
    (void)s;
    static const char *const bad[] = {
        "",     "\n",   "x\n",  "{}\n", "[]\n", "5\n", "{\"method\":\"echo\"}\n", "{\"jsonrpc\":\"2.0\"}\n", "{\"jsonrpc\":\"1.0\",\"method\":\"echo\"}\n",
        "{\"jsonrpc\":\"2.0\",\"method\":7}\n", "{\"jsonrpc\":\"2.0\",\"method\":\"echo\"", "\xff\xfe\n", "{\"a\":\"\x01\"}\n",
    };
    struct server x;
    server_start(&x);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        CLEANUP_FREE char *r = reply_to(bad[i], strlen(bad[i]));
        if (!strstr(r, "\"error\"") || !strstr(r, "PROTOCOL"))
            fail_msg("%s: %s", bad[i], r);
    }
    assert_int_equal(w.calls, 0);
    /* Deep, and long. */
    CLEANUP_STRBUF struct molt_strbuf b = MOLT_STRBUF_INIT;
    for (int i = 0; i < 5000; i++)
        molt_strbuf_addf(&b, "[");
    molt_strbuf_addf(&b, "\n");
    CLEANUP_FREE char *deep = reply_to(b.s, b.len);
    assert_non_null(strstr(deep, "PROTOCOL"));
    while (b.len <= MOLT_CONTROL_REQUEST_MAX + 100000)
        molt_strbuf_addf(&b, "                                                                ");
    CLEANUP_FREE char *longer = reply_to(b.s, b.len);
    assert_int_equal(w.calls, 0);
    /* One that says nothing, one that is gone before its answer: the next is served all the same. */
    int silent = raw(), gone = raw();
    const char *echo = "{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"echo\",\"params\":{}}\n";
    assert_true(send(gone, echo, strlen(echo), MSG_NOSIGNAL) > 0);
    close(gone);
    int64_t start = molt_mono_ms();
    assert_int_equal(molt_control_call(w.dir, "echo", NULL, 20000, NULL, NULL), 0);
    assert_true(molt_mono_ms() - start < 2 * MOLT_CONTROL_PEER_MS);
    close(silent);
    CLEANUP_FREE char *r = reply_to(echo, strlen(echo));
    assert_string_equal(r, "{\"jsonrpc\":\"2.0\",\"id\":7,\"result\":{\"got\":{}}}\n");
    server_stop(&x);
}

/* A long answer; a state directory too deep for a socket's address; a runner that hangs. */
static void edges(void **s)
{
    (void)s;
    struct server x;
    server_start(&x);
    CLEANUP_STRBUF struct molt_strbuf b = MOLT_STRBUF_INIT;
    while (b.len < MOLT_CONTROL_REQUEST_MAX / 2)
        molt_strbuf_addf(&b, "a long text, ");
    CLEANUP_JSON struct molt_json *params = molt_json_object(), *v = NULL;
    molt_json_set_string(params, "text", b.s);
    assert_int_equal(molt_control_call(w.dir, "echo", params, 20000, &v, NULL), 0);
    assert_string_equal(molt_json_get_string(molt_json_get(v, "got"), "text"), b.s);
    server_stop(&x);
    CLEANUP_STRBUF struct molt_strbuf deep = MOLT_STRBUF_INIT;
    molt_strbuf_addf(&deep, "%s", w.dir);
    for (int i = 0; i < 20; i++)
        molt_strbuf_addf(&deep, "/a-directory-name");
    assert_int_equal(molt_mkdir_p(deep.s, 0700, NULL), 0);
    int fd = -1;
    assert_int_equal(molt_control_listen(deep.s, &fd, NULL), 0);
    CLEANUP_ERROR struct molt_error *err = NULL;
    assert_int_equal(molt_control_call(deep.s, "echo", NULL, 300, NULL, &err), MOLT_E_TIMEOUT); /* nobody serves */
    molt_control_end(deep.s, fd);
    assert_int_equal(molt_control_call(deep.s, "echo", NULL, 300, NULL, &err), MOLT_E_STATE);
    assert_int_equal(molt_control_call("/no/such/directory", "echo", NULL, 300, NULL, NULL), MOLT_E_INTERNAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(asked_and_told_to_go_on, setup, teardown),
        cmocka_unit_test_setup_teardown(aborted_while_it_waits, setup, teardown),
        cmocka_unit_test_setup_teardown(killed_while_it_waits, setup, teardown),
        cmocka_unit_test_setup_teardown(hostile_requests, setup, teardown),
        cmocka_unit_test_setup_teardown(edges, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
