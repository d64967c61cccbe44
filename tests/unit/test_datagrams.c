/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Datagrams that wait at a socket: copied, still there for whom they had come, and coming once more from who had sent them. Needs root, for raw sockets. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/fsio.h"
#include "base/strbuf.h"
#include "procmig/datagrams.h"
#include "lonely_net.h"
#include "own_dir.h"

struct service {
    int fd;
    uint16_t port;
    struct molt_proc proc;
    struct molt_workload w;
};

static void ok(int r, struct molt_error **err)
{
    if (r < 0)
        fail_msg("%s", molt_error_text(*err));
}

/* At all addresses, of both families where it is IPv6; port 0: any. */
static void serve(struct service *s, int family, uint16_t port)
{
    struct sockaddr_storage a = {.ss_family = (sa_family_t)family};
    socklen_t len = family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6);

    memset(s, 0, sizeof(*s));
    ((struct sockaddr_in *)&a)->sin_port = htons(port); /* at the same place in both */
    s->fd = socket(family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (s->fd < 0)
        skip(); /* no IPv6 here */
    assert_int_equal(bind(s->fd, (struct sockaddr *)&a, len), 0);
    assert_int_equal(getsockname(s->fd, (struct sockaddr *)&a, &len), 0);
    s->port = ntohs(((struct sockaddr_in *)&a)->sin_port);
    s->proc.pid = getpid();
    s->w.proc = &s->proc;
    s->w.procs = 1;
}

static int peer_of(const struct service *s, const char *address)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(s->port)};
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_port = htons(s->port)};
    const bool ipv4 = inet_pton(AF_INET, address, &in.sin_addr) == 1;
    int fd = socket(ipv4 ? AF_INET : AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    assert_true(ipv4 || inet_pton(AF_INET6, address, &in6.sin6_addr) == 1);
    assert_int_equal(connect(fd, ipv4 ? (struct sockaddr *)&in : (struct sockaddr *)&in6, ipv4 ? sizeof(in) : sizeof(in6)), 0);
    return fd;
}

static void say(int fd, const char *text)
{
    assert_int_equal(send(fd, text, strlen(text), 0), (ssize_t)strlen(text));
}

/* What is read next is that, and its answer reaches `peer`. */
static void heard(const struct service *s, int peer, const char *text)
{
    char buf[64] = "", answer[64] = "";
    struct sockaddr_storage from;
    socklen_t len = sizeof(from);

    assert_int_equal(recvfrom(s->fd, buf, sizeof(buf) - 1, MSG_DONTWAIT, (struct sockaddr *)&from, &len), (ssize_t)strlen(text));
    assert_string_equal(buf, text);
    assert_int_equal(sendto(s->fd, "to you", 6, 0, (struct sockaddr *)&from, len), 6);
    assert_int_equal(recv(peer, answer, sizeof(answer), MSG_DONTWAIT), 6);
}

static void collect(const struct service *s, size_t moved)
{
    struct molt_error *err = NULL;
    struct molt_datagrams d;

    ok(molt_datagrams_collect(&s->w, dir, &d, &err), &err);
    assert_int_equal(d.moved, moved);
    assert_int_equal(d.lost, 0);
}

static void place(size_t moved, size_t lost)
{
    struct molt_error *err = NULL;
    struct molt_datagrams d;

    ok(molt_datagrams_place(dir, &d, &err), &err);
    assert_int_equal(d.moved, moved);
    assert_int_equal(d.lost, lost);
}

static bool is_file(void)
{
    CLEANUP_FREE char *path = molt_xasprintf("%s/" MOLT_DATAGRAMS, dir);

    return molt_exists(path);
}

/* The socket is closed in between, and another one takes its place, as it is with a move. */
static void they_come_once_more(int family, const char *address)
{
    struct service s, next;
    serve(&s, family, 0);
    int a = peer_of(&s, address), b = peer_of(&s, address);

    say(a, "one");
    say(b, "two");
    say(a, "");
    say(a, "three");
    collect(&s, 4);
    close(s.fd);
    serve(&next, family, s.port);
    place(4, 0);
    heard(&next, a, "one");
    heard(&next, b, "two");
    heard(&next, a, "");
    heard(&next, a, "three");
    assert_int_equal(recv(next.fd, &(char){0}, 1, MSG_DONTWAIT), -1);
    close(a);
    close(b);
    close(next.fd);
}

static void ipv4(void **state)
{
    (void)state;
    they_come_once_more(AF_INET, "127.0.0.1");
}

static void ipv6(void **state)
{
    (void)state;
    they_come_once_more(AF_INET6, "::1");
}

static void ipv4_at_a_socket_for_both(void **state)
{
    (void)state;
    they_come_once_more(AF_INET6, "127.0.0.1");
}

/* As a service has it that came by app-migrate: the kernel's way to it is from the first address of the same network. */
static void at_a_second_address(void **state)
{
    (void)state;
    if (system("ip addr add 10.9.0.4/24 dev lo && ip addr add 10.9.0.5/24 dev lo") != 0)
        fail_msg("ip(8) adds no addresses");
    struct service s;
    serve(&s, AF_INET, 0);
    int a = peer_of(&s, "10.9.0.5");

    say(a, "one");
    collect(&s, 1);
    assert_int_equal(recv(s.fd, &(char){0}, 1, MSG_DONTWAIT), 1);
    place(1, 0);
    assert_int_equal(recv(s.fd, &(char){0}, 1, MSG_DONTWAIT), 1);
    close(a);
    close(s.fd);
}

/* Put together by the kernel on their way, as for a server of HTTP/3: apart again. */
static void pieces_are_single_ones_again(void **state)
{
    struct service s, next;
    int on = 1, piece = 4;
    (void)state;
    serve(&s, AF_INET, 0);
    assert_int_equal(setsockopt(s.fd, IPPROTO_UDP, UDP_GRO, &on, sizeof(on)), 0);
    int a = peer_of(&s, "127.0.0.1");

    assert_int_equal(setsockopt(a, IPPROTO_UDP, UDP_SEGMENT, &piece, sizeof(piece)), 0);
    say(a, "one.two.six");
    collect(&s, 3);
    close(s.fd);
    serve(&next, AF_INET, s.port);
    place(3, 0);
    piece = 0;
    assert_int_equal(setsockopt(a, IPPROTO_UDP, UDP_SEGMENT, &piece, sizeof(piece)), 0);
    heard(&next, a, "one.");
    heard(&next, a, "two.");
    heard(&next, a, "six");
    close(a);
    close(next.fd);
}

/* No socket, and one whose queue is full. */
static void what_nobody_gets_is_told(void **state)
{
    struct service s, next;
    char big[2000];
    int small = 1;
    (void)state;
    serve(&s, AF_INET6, 0);
    int a = peer_of(&s, "::1"), b = peer_of(&s, "127.0.0.1");

    memset(big, 'x', sizeof(big) - 1);
    big[sizeof(big) - 1] = 0;
    for (int i = 0; i < 8; i++)
        say(i % 2 ? a : b, big);
    collect(&s, 8);
    close(s.fd);
    place(0, 8);
    serve(&next, AF_INET6, s.port);
    setsockopt(next.fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
    struct molt_datagrams d;
    ok(molt_datagrams_place(dir, &d, NULL), NULL);
    assert_int_equal(d.moved + d.lost, 8);
    assert_in_range(d.lost, 1, 7);
    size_t got = 0;
    while (recv(next.fd, big, sizeof(big), MSG_DONTWAIT) > 0)
        got++;
    assert_int_equal(got, d.moved);
    close(a);
    close(b);
    close(next.fd);
}

/* The move is undone: the service reads them, and its socket is as it was. */
static void they_are_still_there(void **state)
{
    struct service s;
    int value = 0;
    socklen_t len = sizeof(value);
    (void)state;
    serve(&s, AF_INET, 0);
    int a = peer_of(&s, "127.0.0.1");

    say(a, "one");
    say(a, "two");
    collect(&s, 2);
    collect(&s, 2);
    heard(&s, a, "one");
    heard(&s, a, "two");
    assert_int_equal(getsockopt(s.fd, IPPROTO_IP, IP_PKTINFO, &value, &len), 0);
    assert_int_equal(value, 0);
    assert_int_equal(getsockopt(s.fd, SOL_SOCKET, SO_PEEK_OFF, &value, &len), 0);
    assert_int_equal(value, -1);
    close(a);
    close(s.fd);
}

static void none_are_no_file(void **state)
{
    struct service s;
    (void)state;
    serve(&s, AF_INET, 0);
    collect(&s, 0);
    assert_false(is_file());
    place(0, 0);
    close(s.fd);
}

/* A process that has nothing waiting; another one's does not count. */
static void only_its_own(void **state)
{
    struct service s;
    (void)state;
    serve(&s, AF_INET, 0);
    int a = peer_of(&s, "127.0.0.1");

    say(a, "one");
    s.proc.pid = 1;
    if (getpid() != 1)
        collect(&s, 0);
    close(a);
    close(s.fd);
}

/* Who had sent it need not be known here, and it goes to nobody who is not here. */
static void who_is_far_away(void **state)
{
    CLEANUP_FREE char *path = molt_xasprintf("%s/" MOLT_DATAGRAMS, dir), *text = NULL;
    char buf[16] = "", from[32] = "";
    struct sockaddr_in at;
    socklen_t len = sizeof(at);
    struct molt_error *err = NULL;
    struct service s;
    size_t size;
    (void)state;
    serve(&s, AF_INET, 0);
    int a = peer_of(&s, "127.0.0.1");

    say(a, "far");
    collect(&s, 1);
    assert_int_equal(recv(s.fd, buf, sizeof(buf), 0), 3);
    ok(molt_read_file(path, 4096, &text, &size, &err), &err);
    inet_pton(AF_INET, "192.0.2.7", text + 16 + 12); /* behind the head: from; the last four bytes of it */
    ok(molt_write_file(path, text, size, 0600, &err), &err);
    place(1, 0);
    assert_int_equal(recvfrom(s.fd, buf, sizeof(buf), MSG_DONTWAIT, (struct sockaddr *)&at, &len), 3);
    assert_string_equal(inet_ntop(AF_INET, &at.sin_addr, from, sizeof(from)), "192.0.2.7");
    inet_pton(AF_INET, "192.0.2.8", text + 16 + 16 + 12);
    ok(molt_write_file(path, text, size, 0600, &err), &err);
    place(0, 1);
    inet_pton(AF_INET, "224.0.0.9", text + 16 + 16 + 12);
    ok(molt_write_file(path, text, size, 0600, &err), &err);
    place(0, 1);
    close(a);
    close(s.fd);
}

static void what_is_no_such_file_is_refused(void **state)
{
    CLEANUP_FREE char *path = molt_xasprintf("%s/" MOLT_DATAGRAMS, dir);
    char bad[80] = "moltudp1";
    struct molt_datagrams d;
    (void)state;
    ok(molt_write_file(path, "nonsense", 8, 0600, NULL), NULL);
    assert_int_equal(molt_datagrams_place(dir, &d, NULL), MOLT_E_PROTOCOL);
    ok(molt_write_file(path, bad, 28, 0600, NULL), NULL);
    assert_int_equal(molt_datagrams_place(dir, &d, NULL), MOLT_E_PROTOCOL);
    memset(bad + 16, 0xff, sizeof(bad) - 16);
    ok(molt_write_file(path, bad, sizeof(bad), 0600, NULL), NULL);
    assert_int_equal(molt_datagrams_place(dir, &d, NULL), MOLT_E_PROTOCOL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(ipv4, in_a_directory, remove_directory),
        cmocka_unit_test_setup_teardown(ipv6, in_a_directory, remove_directory),
        cmocka_unit_test_setup_teardown(ipv4_at_a_socket_for_both, in_a_directory, remove_directory),
        cmocka_unit_test_setup_teardown(at_a_second_address, in_a_directory, remove_directory),
        cmocka_unit_test_setup_teardown(pieces_are_single_ones_again, in_a_directory, remove_directory),
        cmocka_unit_test_setup_teardown(what_nobody_gets_is_told, in_a_directory, remove_directory),
        cmocka_unit_test_setup_teardown(they_are_still_there, in_a_directory, remove_directory),
        cmocka_unit_test_setup_teardown(none_are_no_file, in_a_directory, remove_directory),
        cmocka_unit_test_setup_teardown(only_its_own, in_a_directory, remove_directory),
        cmocka_unit_test_setup_teardown(who_is_far_away, in_a_directory, remove_directory),
        cmocka_unit_test_setup_teardown(what_is_no_such_file_is_refused, in_a_directory, remove_directory),
    };

    if (!lonely_net()) {
        printf("skip: needs a network namespace of its own\n");
        return 77;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
