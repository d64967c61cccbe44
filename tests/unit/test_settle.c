/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Connections that no process holds, with this machine's kernel: the workload is this process. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "procmig/settle.h"
#include "lonely_net.h"

struct server {
    int fd;
    struct sockaddr_storage at;
    socklen_t len;
    struct molt_proc proc;
    struct molt_workload w;
    struct molt_listeners *l;
};

static void ok(int r, struct molt_error **err)
{
    if (r < 0)
        fail_msg("%s", molt_error_text(*err));
}

static void serve(struct server *s, int family)
{
    struct molt_workload *list[] = {&s->w};
    struct molt_error *err = NULL;
    int small = 4096;
    memset(s, 0, sizeof(*s));
    s->at.ss_family = (sa_family_t)family;
    s->len = family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6);
    if (family == AF_INET)
        ((struct sockaddr_in *)&s->at)->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    else
        ((struct sockaddr_in6 *)&s->at)->sin6_addr = in6addr_loopback;
    s->fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (s->fd < 0 || bind(s->fd, (struct sockaddr *)&s->at, s->len) < 0)
        skip(); /* no IPv6 here */
    setsockopt(s->fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
    assert_int_equal(listen(s->fd, 8), 0);
    assert_int_equal(getsockname(s->fd, (struct sockaddr *)&s->at, &s->len), 0);
    s->proc.pid = getpid();
    s->w.proc = &s->proc;
    s->w.procs = 1;
    ok(molt_listeners_find(list, 1, NULL, &s->l, &err), &err);
}

static int client(const struct server *s)
{
    int fd = socket(s->at.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0), small = 4096;
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
    assert_int_equal(connect(fd, (const struct sockaddr *)&s->at, s->len), 0);
    return fd;
}

static struct molt_unsettled look(const struct server *s)
{
    struct molt_error *err = NULL;
    struct molt_unsettled u;
    ok(molt_unsettled_look(s->l, &u, &err), &err);
    return u;
}

static void end(struct server *s)
{
    close(s->fd);
    molt_listeners_free(s->l);
}

/* A listener that another process alone holds, and what waits there, is not the workload's. */
static void those_that_wait_are_counted(int family)
{
    struct server s, other;
    serve(&other, family);
    pid_t pid = fork();
    if (pid == 0) {
        pause();
        _exit(0);
    }
    close(other.fd);
    serve(&s, family);
    int a = client(&s), b = client(&s), c = client(&other);
    assert_int_equal(look(&s).waiting, 2);
    close(accept(s.fd, NULL, NULL));
    assert_int_equal(look(&s).waiting, 1);
    close(accept(s.fd, NULL, NULL));
    assert_int_equal(look(&s).waiting, 0);
    close(a);
    close(b);
    close(c);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    molt_listeners_free(other.l);
    end(&s);
}

static void ipv4(void **state)
{
    (void)state;
    those_that_wait_are_counted(AF_INET);
}

static void ipv6(void **state)
{
    (void)state;
    those_that_wait_are_counted(AF_INET6);
}

/* Closed while the peer does not read: the data stays, without a descriptor. */
static void closed_ones_with_data_are_counted(void **state)
{
    static const char data[1 << 20];
    struct server s;
    struct molt_error *err = NULL;
    char buf[65536];
    (void)state;
    serve(&s, AF_INET);
    int c = client(&s), fd = accept(s.fd, NULL, NULL);
    assert_true(send(fd, data, sizeof(data), MSG_DONTWAIT) > 0);
    assert_int_equal(look(&s).closing, 0);
    close(fd);
    struct molt_unsettled u = look(&s);
    assert_int_equal(u.closing, 1);
    assert_int_equal(u.waiting + u.half_open, 0);
    assert_false(molt_is_settled(&u));
    while (recv(c, buf, sizeof(buf), 0) > 0)
        ;
    ok(molt_settle(s.l, &u, &err), &err); /* the last acknowledgement may take a moment */
    assert_true(molt_is_settled(&u));
    close(c);
    end(&s);
}

/* What the workload closes itself has no port of a listener. scope: as for molt_listeners_find. */
static unsigned closing_of(int family, const char *scope)
{
    static const char data[1 << 20];
    struct molt_workload none = {0}, *list[] = {&none};
    struct molt_error *err = NULL;
    struct molt_listeners *l = NULL;
    struct molt_unsettled u;
    struct server peer;
    serve(&peer, family);
    int fd = client(&peer), held = accept(peer.fd, NULL, NULL);
    assert_true(send(fd, data, sizeof(data), MSG_DONTWAIT) > 0);
    close(fd);
    ok(molt_listeners_find(list, 1, scope, &l, &err), &err);
    ok(molt_unsettled_look(l, &u, &err), &err);
    assert_int_equal(u.waiting + u.half_open, 0);
    molt_listeners_free(l);
    close(held); /* resets it */
    end(&peer);
    return u.closing;
}

static void outgoing_ones_are_counted(void **state)
{
    (void)state;
    assert_int_equal(closing_of(AF_INET, NULL), 1);
    assert_int_equal(closing_of(AF_INET, "127.0.0.1/8"), 1);
    assert_int_equal(closing_of(AF_INET6, "::1/128"), 1);
}

static void but_not_those_of_addresses_that_stay(void **state)
{
    (void)state;
    assert_int_equal(closing_of(AF_INET, "127.0.0.2/8"), 0);
    assert_int_equal(closing_of(AF_INET, "::1"), 0);
    assert_int_equal(closing_of(AF_INET, ""), 0);
}

static void a_scope_is_an_address(void **state)
{
    struct molt_workload none = {0}, *list[] = {&none};
    struct molt_error *err = NULL;
    struct molt_listeners *l = NULL;
    (void)state;
    assert_int_equal(molt_listeners_find(list, 1, "eth0", &l, &err), MOLT_E_USAGE);
    assert_non_null(strstr(molt_error_text(err), "eth0"));
    assert_null(l);
    molt_error_free(err);
}

/* How long molt_settle takes, in milliseconds, with one connection that is accepted after a while (0: never). */
static int64_t settle_with(int accept_ms, struct molt_unsettled *u)
{
    struct server s;
    struct molt_error *err = NULL;
    serve(&s, AF_INET);
    int c = client(&s);
    pid_t pid = accept_ms ? fork() : 0;
    if (pid == 0 && accept_ms) {
        molt_sleep_ms(accept_ms);
        close(accept(s.fd, NULL, NULL));
        _exit(0);
    }
    const int64_t begun = molt_mono_ms();
    ok(molt_settle(s.l, u, &err), &err);
    const int64_t took = molt_mono_ms() - begun;
    if (pid > 0)
        waitpid(pid, NULL, 0);
    close(c);
    end(&s);
    return took;
}

static void acceptance_is_waited_for(void **state)
{
    struct molt_unsettled u;
    (void)state;
    assert_in_range(settle_with(300, &u), 250, MOLT_SETTLE_MS - 1);
    assert_true(molt_is_settled(&u));
}

static void but_not_for_ever(void **state)
{
    struct molt_unsettled u;
    (void)state;
    assert_in_range(settle_with(0, &u), MOLT_SETTLE_MS, MOLT_SETTLE_MS + 2000);
    assert_int_equal(u.waiting, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ipv4),
        cmocka_unit_test(ipv6),
        cmocka_unit_test(closed_ones_with_data_are_counted),
        cmocka_unit_test(outgoing_ones_are_counted),
        cmocka_unit_test(but_not_those_of_addresses_that_stay),
        cmocka_unit_test(a_scope_is_an_address),
        cmocka_unit_test(acceptance_is_waited_for),
        cmocka_unit_test(but_not_for_ever),
    };
    (void)lonely_net(); /* else what other programs close by chance is seen, too */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
