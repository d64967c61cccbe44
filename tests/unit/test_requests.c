/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* New connections alone are held, in the little network of hold_net.h: single TCP segments of either family, of which only the flags matter. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "divert.h"
#include "hold_net.h"

#define SYN       0x02
#define ACK       0x10
#define SYN_ACK   0x12

struct sender {
    int v4, v6;
};

static struct sender sender_of(struct world *w)
{
    struct sender s;
    assert_true(in_ns(w->client_ns, w->home, "ip -6 addr add fd77::2/64 dev eth0 nodad; ip -6 neigh add fd77::1 lladdr " GUEST_MAC " dev eth0;"
                                             "ip neigh replace 10.9.0.1 lladdr " GUEST_MAC " dev eth0"));
    assert_int_equal(setns(w->client_ns, CLONE_NEWNET), 0);
    s.v4 = socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_TCP);
    s.v6 = socket(AF_INET6, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_TCP);
    assert_int_equal(setns(w->home, CLONE_NEWNET), 0);
    assert_true(s.v4 >= 0 && s.v6 >= 0);
    return s;
}

static void done_with(struct sender *s)
{
    close(s->v4);
    close(s->v6);
}

static void segment(unsigned char tcp[20], int flags)
{
    memset(tcp, 0, 20);
    tcp[1] = 7; /* from port 7 to port 9 */
    tcp[3] = 9;
    tcp[12] = 5 << 4;
    tcp[13] = (unsigned char)flags;
}

static void say4(const struct sender *s, int flags)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(0x0a090001)};
    unsigned char tcp[20];
    segment(tcp, flags);
    assert_int_equal(sendto(s->v4, tcp, sizeof(tcp), 0, (struct sockaddr *)&to, sizeof(to)), sizeof(tcp));
}

static void say6(const struct sender *s, int flags)
{
    struct sockaddr_in6 to = {.sin6_family = AF_INET6};
    unsigned char tcp[20];
    segment(tcp, flags);
    inet_pton(AF_INET6, "fd77::1", &to.sin6_addr);
    assert_int_equal(sendto(s->v6, tcp, sizeof(tcp), 0, (struct sockaddr *)&to, sizeof(to)), sizeof(tcp));
}

/* The next segment at a guest: 4 or 6, and its flags, as "4:02"; "" when none comes for a while. */
static const char *heard(int fd, char buf[8])
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    unsigned char f[2048];
    buf[0] = '\0';
    while (poll(&p, 1, QUIET_MS) == 1) {
        ssize_t n = read(fd, f, sizeof(f));
        int v6 = n >= 74 && f[12] == 0x86 && f[13] == 0xdd && f[20] == IPPROTO_TCP;
        int v4 = n >= 54 && f[12] == 8 && f[13] == 0 && f[23] == IPPROTO_TCP;
        if (!v4 && !v6)
            continue;
        snprintf(buf, 8, "%d:%02x", v6 ? 6 : 4, f[v6 ? 14 + 40 + 13 : 14 + (f[14] & 15) * 4 + 13]);
        return buf;
    }
    return buf;
}

static void expect_segments(int fd, const char *const *want)
{
    char buf[8];
    do
        assert_string_equal(heard(fd, buf), *want);
    while (**want++);
}
#define EXPECT(fd, ...) expect_segments(fd, (const char *const[]){__VA_ARGS__, ""})
#define EXPECT_NONE(fd) expect_segments(fd, (const char *const[]){""})

static void say_all(const struct sender *s)
{
    say4(s, SYN);
    say4(s, ACK);
    say4(s, SYN_ACK);
    say6(s, SYN);
    say6(s, ACK);
    say6(s, SYN_ACK);
}

/* What asks for a connection waits; all else comes. */
static void hold_requests(struct world *w, const struct sender *s, struct molt_hold_vif *v, struct molt_error **err)
{
    *v = to_active;
    ok(molt_hold_prepare(OP, v, 1, err), err);
    assert_int_equal(molt_hold_can_requests(OP, v, 1), 0);
    assert_true(v->requests);
    say_all(s);
    EXPECT(w->active, "4:02", "4:10", "4:12", "6:02", "6:10", "6:12");
    ok(molt_hold_requests(OP, v, 1, err), err);
    say_all(s);
    EXPECT(w->active, "4:10", "4:12", "6:10", "6:12");
}

static void test_requests_to_clone(void **state)
{
    need_plug();
    struct world *w = *state;
    struct sender s = sender_of(w);
    struct molt_hold_vif v;
    CLEANUP_ERROR struct molt_error *err = NULL;
    struct molt_hold_stats st;
    hold_requests(w, &s, &v, &err);
    ok(molt_hold_look(OP, &v, 1, &err), &err);
    ok(molt_hold_engage(OP, &v, 1, &err), &err);
    ok(molt_hold_mute(OP, &v, 1, &err), &err);
    assert_true(sh("! tc qdisc show dev vifA.0 | grep -q clsact"));
    say4(&s, ACK); /* behind the two that wait */
    say6(&s, SYN);
    EXPECT_NONE(w->active);
    ok(molt_hold_release(OP, &to_clone, 1, &st, &err), &err);
    EXPECT(w->clone, "4:02", "6:02", "4:10", "6:02");
    assert_true(st.packets >= 4); /* the client's kernel looks for neighbours now and then */
    ok(molt_hold_remove(OP, &to_clone, 1, &err), &err);
    expect_clean();
    done_with(&s);
}

/* Where the workload did not accept what waited: nothing else was held. */
static void test_requests_given_back(void **state)
{
    need_plug();
    struct world *w = *state;
    struct sender s = sender_of(w);
    struct molt_hold_vif v;
    CLEANUP_ERROR struct molt_error *err = NULL;
    hold_requests(w, &s, &v, &err);
    ok(molt_hold_release(OP, &v, 1, NULL, &err), &err);
    ok(molt_hold_release(OP, &v, 1, NULL, &err), &err); /* the guard, and then recovery */
    EXPECT(w->active, "4:02", "6:02");
    ok(molt_hold_remove(OP, &v, 1, &err), &err);
    say4(&s, SYN);
    EXPECT(w->active, "4:02");
    expect_clean();
    done_with(&s);
}

/* The vif has filters of an admin's: they stay, and requests come. */
static void test_requests_not_here(void **state)
{
    need_plug();
    struct world *w = *state;
    struct sender s = sender_of(w);
    struct molt_hold_vif v = to_active;
    CLEANUP_ERROR struct molt_error *err = NULL;
    assert_true(sh("tc qdisc add dev vifA.0 clsact"));
    ok(molt_hold_prepare(OP, &v, 1, &err), &err);
    assert_int_equal(molt_hold_can_requests(OP, &v, 1), 1);
    assert_false(v.requests);
    ok(molt_hold_requests(OP, &v, 1, &err), &err);
    say4(&s, SYN);
    EXPECT(w->active, "4:02");
    ok(molt_hold_release(OP, &v, 1, NULL, &err), &err);
    ok(molt_hold_remove(OP, &v, 1, &err), &err);
    assert_true(sh("tc qdisc show dev vifA.0 | grep -q clsact"));
    assert_true(sh("tc qdisc del dev vifA.0 clsact"));
    expect_clean();
    done_with(&s);
}

/* Somebody puts filters there while ours are: ours alone go. And a hook that comes between the look and ours is not taken for ours. */
static void test_requests_beside_others(void **state)
{
    need_plug();
    struct world *w = *state;
    struct sender s = sender_of(w);
    struct molt_hold_vif v;
    CLEANUP_ERROR struct molt_error *err = NULL;
    hold_requests(w, &s, &v, &err);
    assert_true(sh("tc filter add dev vifA.0 egress prio 50 protocol ip u32 match ip dport 1 0xffff action pass"));
    ok(molt_hold_release(OP, &v, 1, NULL, &err), &err);
    EXPECT(w->active, "4:02", "6:02");
    ok(molt_hold_remove(OP, &v, 1, &err), &err);
    assert_true(sh("tc filter show dev vifA.0 egress | grep -q 'pref 50' && ! tc filter show dev vifA.0 egress | grep -q mirred"));
    v.requests = true;
    ok(molt_hold_prepare(OP, &v, 1, &err), &err);
    assert_true(molt_hold_requests(OP, &v, 1, &err) < 0);
    ok(molt_hold_release(OP, &v, 1, NULL, NULL), &err);
    molt_hold_remove(OP, &v, 1, NULL);
    assert_true(sh("tc filter show dev vifA.0 egress | grep -q 'pref 50'"));
    assert_true(sh("tc qdisc del dev vifA.0 clsact"));
    expect_clean();
    done_with(&s);
}

/* The first guest is gone, and its vif: there is nobody to give anything back to, and nothing of ours stays. */
static void test_returned_to_nobody(void **state)
{
    need_plug();
    struct molt_divert d = {.from = "vifG.0", .to = "vifB.0", .to_mac = {0x00, 0x16, 0x3e, 0, 0, 2}};
    CLEANUP_ERROR struct molt_error *err = NULL;
    int fd = new_vif("vifB.0", "brT"), gone = new_vif("vifG.0", "brT");
    (void)state;
    ok(molt_divert_address("10.9.0.1/24", &d.address, &err), &err);
    ok(molt_divert_prepare(OP, &d, &err), &err);
    ok(molt_divert_engage(OP, &d, &err), &err);
    close(gone);
    ok(molt_divert_return(OP, &d, &err), &err);
    expect_clean();
    close(fd);
}

/* Of one address alone: the guest's others go on. */
static void test_requests_of_an_address(void **state)
{
    need_plug();
    struct world *w = *state;
    struct sender s = sender_of(w);
    struct molt_divert d = {.from = "vifA.0", .to = "vifB.0", .to_mac = {0x00, 0x16, 0x3e, 0, 0, 2}};
    CLEANUP_ERROR struct molt_error *err = NULL;
    int fd = new_vif("vifB.0", "brT");
    assert_true(sh("bridge fdb replace " GUEST_MAC " dev vifA.0 master dynamic")); /* else both would hear all of it */
    ok(molt_divert_address("10.9.0.1/24", &d.address, &err), &err);
    ok(molt_divert_prepare(OP, &d, &err), &err);
    ok(molt_divert_requests(OP, &d, &err), &err);
    say_all(&s);
    EXPECT(w->active, "4:10", "4:12", "6:02", "6:10", "6:12");
    ok(molt_divert_engage(OP, &d, &err), &err);
    say_all(&s);
    EXPECT(w->active, "6:02", "6:10", "6:12");
    ok(molt_divert_return(OP, &d, &err), &err);
    EXPECT(w->active, "4:02", "4:02", "4:10", "4:12");
    expect_clean();
    ok(molt_divert_address("fd77::1/64", &d.address, &err), &err);
    ok(molt_divert_prepare(OP, &d, &err), &err);
    ok(molt_divert_requests(OP, &d, &err), &err);
    say_all(&s);
    EXPECT(w->active, "4:02", "4:10", "4:12", "6:10", "6:12");
    ok(molt_divert_release(OP, &d, NULL, &err), &err);
    EXPECT(fd, "6:02");
    ok(molt_divert_remove(OP, &d, &err), &err);
    expect_clean();
    close(fd);
    done_with(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_requests_to_clone, setup, teardown),
        cmocka_unit_test_setup_teardown(test_requests_given_back, setup, teardown),
        cmocka_unit_test_setup_teardown(test_requests_not_here, setup, teardown),
        cmocka_unit_test_setup_teardown(test_requests_beside_others, setup, teardown),
        cmocka_unit_test_setup_teardown(test_returned_to_nobody, setup, teardown),
        cmocka_unit_test_setup_teardown(test_requests_of_an_address, setup, teardown),
    };
    return cmocka_run_group_tests(tests, net_up, net_down);
}
