/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "procmig/worker.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "procmig/criu.h"
#include "procmig/pb.h"

#define MESSAGE_MAX (1u << 20)
#define STAND_BACK  10 /* nice values */

/* criu_req_type */
#define ASK_NOTIFY  6
#define ASK_VERSION 10

/* Fields of criu_req and criu_resp */
#define REQ_TYPE           1
#define REQ_OPTS           2
#define REQ_NOTIFY_SUCCESS 3
#define REQ_KEEP_OPEN      4
#define RESP_TYPE          1
#define RESP_SUCCESS       2
#define RESP_NOTIFY        5
#define RESP_ERRMSG        9
#define NOTIFY_SCRIPT      1

struct response {
    uint64_t type;
    bool success;
    char *step, *why;
};

/* ---- messages ---- */

static int send_request(const struct molt_worker *w, unsigned type, unsigned flag, const struct molt_strbuf *opts, struct molt_error **err)
{
    CLEANUP_STRBUF struct molt_strbuf b = MOLT_STRBUF_INIT;

    molt__pb_int(&b, REQ_TYPE, type);
    if (opts)
        molt__pb_bytes(&b, REQ_OPTS, opts->s, opts->len);
    if (flag)
        molt__pb_int(&b, flag, 1);
    if (send(w->sk, b.s, b.len, MSG_NOSIGNAL) == (ssize_t)b.len)
        return 0;
    return errno == EPIPE || errno == ECONNRESET ? molt_error_set(err, MOLT_E_STATE, "criu has ended") : molt_error_errno(err, "ask criu");
}

/* The string that is field `number` of a message within another. malloc'd or NULL. */
static char *inner_string(const struct molt__pb_field *of, uint64_t number)
{
    struct molt__pb m = molt__pb_over(of->data, of->len);
    struct molt__pb_field f;

    while (molt__pb_next(&m, &f) > 0)
        if (f.number == number && f.is_bytes)
            return molt_xstrndup((const char *)f.data, f.len);
    return NULL;
}

static int parse(const void *data, size_t len, struct response *ret, struct molt_error **err)
{
    struct molt__pb m = molt__pb_over(data, len);
    struct response got = {0};
    struct molt__pb_field f;
    int more;

    while ((more = molt__pb_next(&m, &f)) > 0) {
        if (f.number == RESP_TYPE && !f.is_bytes)
            got.type = f.value;
        else if (f.number == RESP_SUCCESS && !f.is_bytes)
            got.success = f.value != 0;
        else if (f.number == RESP_NOTIFY && f.is_bytes && !got.step)
            got.step = inner_string(&f, NOTIFY_SCRIPT);
        else if (f.number == RESP_ERRMSG && f.is_bytes && !got.why)
            got.why = molt_xstrndup((const char *)f.data, f.len);
    }
    if (more < 0 || got.type == 0 || (got.type == ASK_NOTIFY && !got.step)) {
        free(got.step);
        free(got.why);
        return molt_error_set(err, MOLT_E_PROTOCOL, "criu answered with something else than its protocol has");
    }
    *ret = got;
    return 0;
}

/* 1: there is one, 0: it is gone. */
static int receive(struct molt_worker *w, int timeout_ms, struct response *ret, struct molt_error **err)
{
    CLEANUP_FREE char *buf = NULL;
    int64_t end = molt_mono_ms() + timeout_ms;
    ssize_t n;

    for (;;) {
        struct pollfd p = {.fd = w->sk, .events = POLLIN};
        int64_t now = molt_mono_ms(), until = w->patient && w->patient < end ? w->patient : end;
        int r = poll(&p, 1, until > now ? (int)(until - now) : 0);

        if (r > 0)
            break;
        if (r < 0 && errno != EINTR)
            return molt_error_errno(err, "wait for criu");
        if (w->patient && now >= w->patient)
            molt_worker_hurry(w);
        if (now >= end)
            return molt_error_set(err, MOLT_E_TIMEOUT, "criu did not answer within %d ms", timeout_ms);
    }
    buf = molt_xmalloc(MESSAGE_MAX);
    do
        n = recv(w->sk, buf, MESSAGE_MAX, 0);
    while (n < 0 && errno == EINTR);
    if (n == 0 || (n < 0 && errno == ECONNRESET))
        return 0;
    if (n < 0)
        return molt_error_errno(err, "hear criu");
    return parse(buf, (size_t)n, ret, err) < 0 ? MOLT_E_PROTOCOL : 1;
}

/* ---- the worker ---- */

static void forget(struct molt_worker *w)
{
    if (w->sk >= 0)
        close(w->sk);
    free(w->why);
    *w = (struct molt_worker)MOLT_WORKER_NONE;
}

void molt_worker_hurry(struct molt_worker *w)
{
    if (w->pid > 0)
        (void)setpriority(PRIO_PROCESS, (id_t)w->pid, getpriority(PRIO_PROCESS, 0));
    w->patient = 0;
}

void molt_worker_linger(const struct molt_worker *w)
{
    if (w->pid > 0)
        (void)sched_setscheduler(w->pid, SCHED_IDLE, &(struct sched_param){0});
}

void molt_worker_kill(struct molt_worker *w)
{
    if (w->pid > 0) {
        kill(w->pid, SIGKILL);
        while (waitpid(w->pid, NULL, 0) < 0 && errno == EINTR)
            ;
    }
    forget(w);
}

/* Its version is nothing that we want to know: who answers has its program and libraries in memory. */
static int wait_alive(struct molt_worker *w, int timeout_ms, struct molt_error **err)
{
    struct response got = {0};
    int r = send_request(w, ASK_VERSION, REQ_KEEP_OPEN, NULL, err);

    if (r == 0)
        r = receive(w, timeout_ms, &got, err);
    free(got.step);
    free(got.why);
    if (r < 0)
        return r;
    if (r == 0 || got.type != ASK_VERSION || !got.success)
        return molt_error_set(err, MOLT_E_STATE, "criu ended before it was asked for anything");
    return 0;
}

static bool stand_back(pid_t pid)
{
    const int own = getpriority(PRIO_PROCESS, 0);

    return setpriority(PRIO_PROCESS, (id_t)pid, own > STAND_BACK ? own : STAND_BACK) == 0;
}

int molt_worker_start(const char *toolbox, pid_t like, int timeout_ms, int patience_ms, struct molt_worker *ret, struct molt_error **err)
{
    struct molt_worker w = MOLT_WORKER_NONE;
    char number[16];
    char *argv[] = {NULL, "swrk", number, NULL};
    int sk[2], r;

    /* Each message whole, and its end told: criu asks the socket for the length of what waits. */
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sk) < 0)
        return molt_error_errno(err, "make a socket for criu");
    w.sk = sk[0];
    snprintf(number, sizeof(number), "%d", sk[1]);
    r = fcntl(sk[1], F_SETFD, 0) < 0 ? molt_error_errno(err, "hand a socket to criu") : molt__criu_start(toolbox, argv, like, &w.pid, err);
    close(sk[1]);
    if (r == 0 && patience_ms > 0 && stand_back(w.pid))
        w.patient = molt_mono_ms() + patience_ms;
    if (r == 0)
        r = wait_alive(&w, timeout_ms, err);
    if (r < 0) {
        molt_worker_kill(&w);
        return r;
    }
    *ret = w;
    return 0;
}

int molt_worker_ask(const struct molt_worker *w, unsigned request, const struct molt_strbuf *opts, struct molt_error **err)
{
    return send_request(w, request, 0, opts, err);
}

int molt_worker_next(struct molt_worker *w, int timeout_ms, char **ret_step, struct molt_error **err)
{
    struct response got = {0};
    int r = receive(w, timeout_ms, &got, err);

    *ret_step = got.step;
    w->well = r > 0 && !got.step && got.success;
    if (got.why) {
        free(w->why);
        w->why = got.why;
    }
    return r < 0 ? r : 0;
}

int molt_worker_go_on(const struct molt_worker *w, const struct molt_strbuf *opts, struct molt_error **err)
{
    return send_request(w, ASK_NOTIFY, REQ_NOTIFY_SUCCESS, opts, err);
}

void molt_worker_abandon(const struct molt_worker *w)
{
    /* What was sent before can still be read, and it can still tell how it ended. */
    (void)shutdown(w->sk, SHUT_WR);
}

int molt_worker_end(struct molt_worker *w, const char *what, int timeout_ms, const char *log_path, struct molt_error **err)
{
    CLEANUP_ERROR struct molt_error *e = NULL;
    int64_t end = molt_mono_ms() + timeout_ms;
    char *step = NULL;
    int r;

    if (w->pid > 0 && sched_getscheduler(w->pid) == SCHED_IDLE) /* it lingered; now it is waited for */
        (void)sched_setscheduler(w->pid, SCHED_OTHER, &(struct sched_param){0});
    do {
        free(step);
        r = molt_worker_next(w, (int)(end - molt_mono_ms()), &step, NULL);
        if (r == 0 && step)
            (void)molt_worker_go_on(w, NULL, NULL); /* where it is gone its exit status tells more */
    } while (r == 0 && step);
    free(step);
    int64_t left = end - molt_mono_ms();
    r = molt__criu_wait(w->pid, what, left > 1 ? (int)left : 1, log_path, &e);
    if (r < 0 && w->why)
        molt_error_set(err, r, "%s (%s)", molt_error_text(e), w->why);
    else if (r < 0)
        molt_error_move(err, MOLT_STEAL_PTR(e));
    forget(w);
    return r;
}
