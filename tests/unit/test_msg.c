/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Requests and replies over a socket pair; a process at its other end serves. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/json.h"
#include "proto/msg.h"

#define SLOW_MS 1000

static int h_slow(struct molt_request *rq, struct molt_json *reply, struct molt_error **err)
{
    (void)rq;
    (void)reply;
    (void)err;
    molt_sleep_ms(SLOW_MS);
    return 0;
}

static int h_name(struct molt_request *rq, struct molt_json *reply, struct molt_error **err)
{
    (void)err;
    molt_json_set_string(reply, "name", molt_json_get_string(rq->args, "op"));
    return 0;
}

static int h_fails(struct molt_request *rq, struct molt_json *reply, struct molt_error **err)
{
    (void)rq;
    (void)reply;
    return molt_error_set(err, MOLT_E_STATE, "not now");
}

static pid_t server;

static struct molt_chan *served(void)
{
    static const struct molt_handler handlers[] = {{"slow", h_slow}, {"name", h_name}, {"fails", h_fails}, {NULL, NULL}};
    int fds[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    server = fork();
    assert_true(server >= 0);
    if (server == 0) {
        close(fds[0]);
        struct molt_chan *c = molt_chan_from_fd(fds[1]);
        while (molt_serve_one(c, handlers, NULL, -1, NULL) == 0)
            ;
        _exit(0);
    }
    close(fds[1]);
    return molt_chan_from_fd(fds[0]);
}

static void done(struct molt_chan *c)
{
    molt_chan_close(c);
    kill(server, SIGKILL);
    assert_int_equal(waitpid(server, NULL, 0), server);
}

static void expect_name(struct molt_chan *c)
{
    CLEANUP_JSON struct molt_json *v = NULL;
    assert_int_equal(molt_call(c, "name", NULL, NULL, &v, NULL), 0);
    assert_string_equal(molt_json_get_string(v, "name"), "name");
}

static void an_error_is_an_answer(void **state)
{
    struct molt_chan *c = served();
    CLEANUP_ERROR struct molt_error *err = NULL;

    (void)state;
    assert_int_equal(molt_call(c, "fails", NULL, NULL, NULL, &err), MOLT_E_STATE);
    assert_string_equal(molt_error_text(err), "fails: not now");
    molt_error_clear(&err);
    assert_int_equal(molt_call(c, "nobody knows it", NULL, NULL, NULL, &err), MOLT_E_PROTOCOL);
    expect_name(c);
    done(c);
}

static void behind_a_time_out_nothing_is_asked(void **state)
{
    struct molt_chan *c = served();
    CLEANUP_ERROR struct molt_error *err = NULL;
    struct molt_call call = {.timeout_ms = SLOW_MS / 5};

    (void)state;
    expect_name(c);
    assert_int_equal(molt_call(c, "slow", NULL, &call, NULL, &err), MOLT_E_TIMEOUT);
    molt_error_clear(&err);
    int64_t since = molt_mono_ms();
    assert_int_equal(molt_call(c, "name", NULL, NULL, NULL, &err), MOLT_E_TIMEOUT);
    assert_non_null(strstr(molt_error_text(err), "name: a call before this one"));
    assert_true(molt_mono_ms() - since < SLOW_MS / 2);
    done(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_error_is_an_answer),
        cmocka_unit_test(behind_a_time_out_nothing_is_asked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
