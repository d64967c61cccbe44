/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Held packets, in the little network of hold_net.h. */
#include <linux/if_ether.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/fsio.h"
#include "base/strbuf.h"
#include "hold_net.h"
#include "rtnl.h"


static bool bridge_leads_to(const char *vif)
{
    return sh("bridge fdb show br brT | grep '^" GUEST_MAC " dev %s ' | grep -v -E 'static|sticky|permanent'", vif);
}

static char *bridge_address(void)
{
    char *text = NULL;
    assert_int_equal(molt_read_file("/sys/class/net/brT/address", 64, &text, NULL, NULL), 0);
    return text;
}

static struct molt_link link_of(const char *name)
{
    CLEANUP_RTNL struct nl_sock *nl = NULL;
    struct molt_link l = {0};
    assert_int_equal(molt_rtnl_open(&nl, NULL), 0);
    assert_int_equal(molt_rtnl_link(nl, name, &l, NULL), 0);
    return l;
}

/* Held, and the guest may still speak. */
static void engage_only(struct world *w, struct molt_hold_vif *seen, struct molt_error **err)
{
    send_some(w, 1, 200); /* the neighbours get to know each other */
    expect(w->active, w->next - 1, w->next);
    send_some(w, 99, 200);
    ok(molt_hold_prepare(OP, &to_active, 1, err), err);
    send_some(w, 100, 200);
    expect(w->active, w->next - 199, w->next);
    *seen = to_active;
    ok(molt_hold_look(OP, seen, 1, err), err);
    int64_t t0 = molt_mono_us();
    ok(molt_hold_engage(OP, seen, 1, err), err);
    print_message("          engage %lld us\n", (long long)(molt_mono_us() - t0));
}

static void engage(struct world *w, struct molt_error **err)
{
    struct molt_hold_vif seen;
    engage_only(w, &seen, err);
    int64_t t0 = molt_mono_us();
    ok(molt_hold_mute(OP, &seen, 1, err), err);
    print_message("          mute %lld us\n", (long long)(molt_mono_us() - t0));
}

static void expect_hears(const char *vif, bool hears)
{
    const char *is = hears ? "on" : "off";
    assert_true(sh("bridge -d link show dev %s | grep -q ' flood %s mcast_flood %s bcast_flood %s '", vif, is, is, is));
}

/* ---- tests ---- */

static void test_to_clone(void **state)
{
    need_plug();
    struct world *w = *state;
    struct molt_hold_stats st;
    CLEANUP_ERROR struct molt_error *err = NULL;
    CLEANUP_FREE char *before = bridge_address();
    engage(w, &err);
    CLEANUP_FREE char *meanwhile = bridge_address();
    assert_string_equal(meanwhile, before);
    uint32_t first = w->next;
    send_some(w, HELD, 200);
    expect_nothing(w->active);
    expect_nothing(w->clone);
    struct molt_hold_vif seen = to_clone;
    ok(molt_hold_place(OP, &seen, 1, &err), &err);
    ok(molt_hold_place(OP, &seen, 1, &err), &err);
    assert_int_equal(link_of("vifC.0").master, link_of("brT").index);
    assert_int_equal(link_of("vifA.0").master, molt_rtnl_can_mute() ? link_of("brT").index : 0); /* mute, it still stands there */
    send_some(w, 20, 200); /* held as well: it hears nothing yet */
    int64_t t0 = molt_mono_us();
    ok(molt_hold_release(OP, &seen, 1, &st, &err), &err);
    int64_t t1 = molt_mono_us();
    send_some(w, 200, 200);
    int64_t t2 = molt_mono_us();
    ok(molt_vif_to_bridge("vifA.0", NULL, &err), &err);
    ok(molt_hold_remove(OP, &to_clone, 1, &err), &err);
    assert_true(bridge_leads_to("vifC.0"));
    expect_hears("vifC.0", true);
    ok(molt_hold_remove(OP, &to_clone, 1, &err), &err);
    print_message("          release %lld us, remove %lld us, held %llu\n", (long long)(t1 - t0), (long long)(molt_mono_us() - t2),
                  (unsigned long long)st.packets);
    assert_true(st.packets >= HELD + 20); /* and maybe a neighbour's question */
    assert_int_equal(st.dropped, 0);
    expect_clean();
    assert_true(bridge_leads_to("vifC.0"));
    send_some(w, 200, 200);
    expect(w->clone, first, w->next);
    expect_nothing(w->clone);
    expect_nothing(w->active);
    CLEANUP_FREE char *after = bridge_address();
    assert_string_equal(after, before);
}

static void test_back_to_active(void **state)
{
    need_plug();
    struct world *w = *state;
    CLEANUP_ERROR struct molt_error *err = NULL;
    engage(w, &err);
    uint32_t first = w->next;
    send_some(w, HELD, 200);
    expect_nothing(w->active);
    struct molt_hold_vif given_up = to_clone;
    ok(molt_hold_place(OP, &given_up, 1, &err), &err);
    assert_true(given_up.at.aimed);
    ok(molt_hold_release(OP, &to_active, 1, NULL, &err), &err);
    ok(molt_hold_release(OP, &to_active, 1, NULL, &err), &err); /* again, as after a crash in between */
    send_some(w, 50, 200);
    ok(molt_hold_remove(OP, &to_active, 1, &err), &err);
    ok(molt_hold_remove(OP, &to_active, 1, &err), &err);
    send_some(w, 50, 200);
    expect(w->active, first, w->next);
    expect_nothing(w->active);
    expect_nothing(w->clone);
    expect_clean();
    assert_true(bridge_leads_to("vifA.0"));
}

/* A client that never rests: each datagram arrives once and in order, first at the one, then at the other. */
static void test_stream(void **state)
{
    need_plug();
    struct world *w = *state;
    CLEANUP_ERROR struct molt_error *err = NULL;
    int stop[2];
    assert_int_equal(pipe(stop), 0);
    send_some(w, 1, 200);
    expect(w->active, 0, 1);
    pid_t pid = fork();
    if (pid == 0) {
        struct pollfd p = {.fd = stop[0], .events = POLLIN};
        close(stop[1]);
        while (poll(&p, 1, 0) == 0) {
            send_some(w, 5, 200);
            usleep(500);
        }
        _exit(0);
    }
    usleep(100000);
    ok(molt_hold_prepare(OP, &to_active, 1, &err), &err);
    usleep(100000);
    ok(molt_hold_engage(OP, &to_active, 1, &err), &err);
    ok(molt_hold_mute(OP, &to_active, 1, &err), &err);
    usleep(300000);
    ok(molt_hold_release(OP, &to_clone, 1, NULL, &err), &err);
    usleep(20000);
    ok(molt_hold_remove(OP, &to_clone, 1, &err), &err);
    usleep(200000);
    close(stop[1]); /* ends the sender */
    close(stop[0]);
    waitpid(pid, NULL, 0);
    uint32_t got, want = 1;
    while (receive(w->active, QUIET_MS, &got))
        assert_int_equal(got, want++);
    uint32_t moved = want;
    while (receive(w->clone, QUIET_MS, &got))
        assert_int_equal(got, want++);
    print_message("          stream: %u to the active, %u to the clone\n", moved, want - moved);
    assert_true(moved > 0 && want - moved > 200);
    expect_clean();
}

static void test_neighbours(void **state)
{
    need_plug();
    struct world *w = *state;
    CLEANUP_ERROR struct molt_error *err = NULL;
    engage(w, &err);
    assert_true(in_ns(w->client_ns, w->home, "ip neigh flush dev eth0"));
    uint32_t first = w->next;
    send_some(w, 10, 200);
    usleep(100000);
    ok(molt_hold_release(OP, &to_clone, 1, NULL, &err), &err);
    ok(molt_hold_remove(OP, &to_clone, 1, &err), &err);
    expect(w->clone, first, w->next); /* the question was held, too */
    expect_nothing(w->active);
}

static void say_something(int fd)
{
    unsigned char f[60] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
    memcpy(f + 6, to_active.mac, 6);
    f[12] = TEST_ETHERTYPE >> 8;
    f[13] = TEST_ETHERTYPE & 255;
    assert_int_equal(write(fd, f, sizeof(f)), sizeof(f));
}

static int heard(int fd, bool guest)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    unsigned char f[2048];
    int n = 0;
    while (poll(&p, 1, QUIET_MS) == 1)
        if (read(fd, f, sizeof(f)) >= ETH_HLEN)
            n += !guest || memcmp(f + 6, to_active.mac, 6) == 0;
    return n;
}

/* What the stopped guest's kernel still sends goes nowhere; what the new one sends does not come back to it. */
static void test_outgoing(void **state)
{
    need_plug();
    struct world *w = *state;
    CLEANUP_ERROR struct molt_error *err = NULL;
    engage(w, &err);
    assert_int_equal(heard(w->listener, false), 0);
    say_something(w->active);
    assert_int_equal(heard(w->listener, false), 0);
    ok(molt_hold_release(OP, &to_clone, 1, NULL, &err), &err);
    say_something(w->clone);
    assert_int_equal(heard(w->listener, false), 1);
    assert_int_equal(heard(w->clone, true), 0);
    ok(molt_hold_remove(OP, &to_clone, 1, &err), &err);
    expect_clean();
}

/* Until it stands still: what it sends goes out, what comes for it does not come, neither what is for it alone nor what is for all. */
static void test_speaks_until_muted(void **state)
{
    need_plug();
    struct world *w = *state;
    CLEANUP_ERROR struct molt_error *err = NULL;
    struct molt_hold_vif seen;
    engage_only(w, &seen, &err);
    ok(molt_hold_engage(OP, &seen, 1, &err), &err); /* again */
    uint32_t first = w->next;
    expect_hears("vifA.0", false);
    say_something(w->active);
    assert_int_equal(heard(w->listener, false), 1);
    assert_true(sh("bridge fdb show br brT | grep '^" GUEST_MAC " dev xmh' | grep -q sticky")); /* having spoken, it is still not whom the bridge sends to */
    (void)heard_ours(w->active); /* what came before */
    assert_true(in_ns(w->client_ns, w->home, "ip neigh flush dev eth0"));
    send_some(w, 50, 200); /* behind a question to all */
    assert_int_equal(heard_ours(w->active), 0);
    ok(molt_hold_mute(OP, &seen, 1, &err), &err);
    ok(molt_hold_mute(OP, &seen, 1, &err), &err);
    say_something(w->active);
    assert_int_equal(heard(w->listener, false), 0);
    ok(molt_hold_release(OP, &to_clone, 1, NULL, &err), &err);
    ok(molt_hold_remove(OP, &to_clone, 1, &err), &err);
    expect(w->clone, first, w->next);
    expect_nothing(w->active);
    expect_clean();
}

/* Given up before it stood still: it hears again. */
static void test_back_unmuted(void **state)
{
    need_plug();
    struct world *w = *state;
    CLEANUP_ERROR struct molt_error *err = NULL;
    struct molt_hold_vif seen;
    engage_only(w, &seen, &err);
    uint32_t first = w->next;
    send_some(w, 50, 200);
    expect_hears("vifA.0", false);
    ok(molt_hold_release(OP, &to_active, 1, NULL, &err), &err);
    expect_hears("vifA.0", true);
    ok(molt_hold_release(OP, &to_active, 1, NULL, &err), &err);
    ok(molt_hold_remove(OP, &to_active, 1, &err), &err);
    assert_true(in_ns(w->client_ns, w->home, "ip neigh flush dev eth0"));
    send_some(w, 10, 200);
    expect(w->active, first, w->next);
    expect_clean();
    assert_true(bridge_leads_to("vifA.0"));
    say_something(w->active);
    assert_int_equal(heard(w->listener, false), 1);
}

static int changes(const char *vif)
{
    CLEANUP_FREE char *path = molt_xasprintf("/sys/class/net/%s/carrier_changes", vif), *text = NULL;
    assert_int_equal(molt_read_file(path, 32, &text, NULL, NULL), 0);
    return atoi(text);
}

/* The clone's vif in the guest's bridge long before the pause: the one goes on as if it were not there, the other neither hears nor speaks. From there to the release none
 * leaves, enters, or goes up or down. */
static void test_placed_before(void **state)
{
    need_mute();
    struct world *w = *state;
    CLEANUP_ERROR struct molt_error *err = NULL;
    struct molt_hold_vif active = to_active, clone = to_clone;
    struct molt_hold_stats st;
    send_some(w, 100, 200);
    expect(w->active, 0, 100);
    ok(molt_hold_prepare(OP, &to_active, 1, &err), &err);
    ok(molt_hold_place(OP, &clone, 1, &err), &err);
    expect_hears("vifC.0", false);
    (void)heard_ours(w->clone); /* what its own interface says */
    assert_true(in_ns(w->client_ns, w->home, "ip neigh flush dev eth0"));
    send_some(w, 100, 200); /* behind a question to all */
    expect(w->active, 100, 200);
    assert_int_equal(heard_ours(w->clone), 0);
    say_something(w->clone); /* from the address of them both */
    assert_int_equal(heard(w->listener, false), 0);
    assert_true(bridge_leads_to("vifA.0"));
    say_something(w->active);
    assert_int_equal(heard(w->listener, false), 1);
    int before[] = {changes("vifA.0"), changes("vifC.0"), link_of("vifA.0").master, link_of("vifC.0").master};
    ok(molt_hold_look(OP, &active, 1, &err), &err);
    ok(molt_hold_engage(OP, &active, 1, &err), &err);
    ok(molt_hold_mute(OP, &active, 1, &err), &err);
    send_some(w, 100, 200);
    expect_nothing(w->active);
    say_something(w->active);
    say_something(w->clone);
    assert_int_equal(heard(w->listener, false), 0);
    ok(molt_hold_release(OP, &clone, 1, &st, &err), &err);
    int after[] = {changes("vifA.0"), changes("vifC.0"), link_of("vifA.0").master, link_of("vifC.0").master};
    assert_memory_equal(before, after, sizeof(before));
    assert_true(st.packets >= 100);
    say_something(w->clone);
    say_something(w->active);
    assert_int_equal(heard(w->listener, false), 1);
    send_some(w, 10, 200);
    ok(molt_vif_to_bridge("vifA.0", NULL, &err), &err);
    ok(molt_hold_remove(OP, &to_clone, 1, &err), &err);
    send_some(w, 10, 200);
    expect(w->clone, 200, w->next);
    expect_nothing(w->clone);
    expect_nothing(w->active);
    expect_hears("vifC.0", true);
    expect_clean();
}

/* Given up with the clone's vif in the bridge, before the pause and in it: it says nothing, and goes with its domain. */
static void test_placed_given_up(void **state)
{
    need_mute();
    struct world *w = *state;
    CLEANUP_ERROR struct molt_error *err = NULL;
    for (int held = 0; held < 2; held++) {
        struct molt_hold_vif clone = to_clone;
        uint32_t first = w->next;
        ok(molt_hold_prepare(OP, &to_active, 1, &err), &err);
        ok(molt_hold_place(OP, &clone, 1, &err), &err);
        if (held) {
            ok(molt_hold_engage(OP, &to_active, 1, &err), &err);
            ok(molt_hold_mute(OP, &to_active, 1, &err), &err);
            send_some(w, 50, 200);
            ok(molt_hold_release(OP, &to_active, 1, NULL, &err), &err);
            ok(molt_hold_remove(OP, &to_active, 1, &err), &err);
        }
        ok(molt_hold_remove(OP, NULL, 0, &err), &err);
        expect_clean();
        say_something(w->clone);
        assert_int_equal(heard(w->listener, false), 0);
        say_something(w->active);
        assert_int_equal(heard(w->listener, false), 1);
        send_some(w, 50, 200);
        expect(w->active, first, w->next);
        expect_hears("vifA.0", true);
        ok(molt_vif_to_bridge("vifC.0", "brI", &err), &err);
    }
}

/* More than there is room for: the first ones are kept, in order, and the rest is dropped. */
static void test_limit(void **state)
{
    need_plug();
    struct world *w = *state;
    struct molt_hold_stats st;
    CLEANUP_ERROR struct molt_error *err = NULL;
    engage(w, &err);
    uint32_t first = w->next, got, n = 0;
    send_some(w, MOLT_HOLD_LIMIT / 1400 + 1000, 1400);
    ok(molt_hold_release(OP, &to_clone, 1, &st, &err), &err);
    ok(molt_hold_remove(OP, &to_clone, 1, &err), &err);
    assert_true(st.dropped > 0 && st.bytes <= MOLT_HOLD_LIMIT && st.bytes > MOLT_HOLD_LIMIT - 3000);
    while (receive(w->clone, QUIET_MS, &got))
        assert_int_equal(got, first + n++);
    print_message("          limit: %llu held, %llu dropped, %u delivered\n", (unsigned long long)st.packets, (unsigned long long)st.dropped, n);
    assert_true(n >= w->next - first - st.dropped);
}

static void die_after(void (*fn)(void))
{
    int status;
    pid_t pid = fork();
    if (pid == 0) {
        fn();
        kill(getpid(), SIGKILL);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status));
}

static void do_prepare(void) { molt_hold_prepare(OP, &to_active, 1, NULL); }
static void do_engage(void) { molt_hold_engage(OP, &to_active, 1, NULL); }
static void do_mute(void) { molt_hold_mute(OP, &to_active, 1, NULL); }
static void do_release(void) { molt_hold_release(OP, &to_active, 1, NULL, NULL); }

/* The command dies after each of the calls; what another process then does needs no more than the operation's id. */
static void test_killed(void **state)
{
    need_plug();
    struct world *w = *state;
    CLEANUP_ERROR struct molt_error *err = NULL;
    void (*const upto[])(void) = {do_prepare, do_engage, do_mute, do_release};
    send_some(w, 1, 200);
    expect(w->active, 0, 1);
    for (int last = 0; last < 4; last++) {
        uint32_t first = w->next;
        for (int i = 0; i <= last; i++)
            die_after(upto[i]);
        send_some(w, 100, 200);
        ok(molt_hold_release(OP, &to_active, 1, NULL, &err), &err);
        ok(molt_hold_remove(OP, &to_active, 1, &err), &err);
        send_some(w, 10, 200);
        expect(w->active, first, w->next);
        expect_clean();
        expect_hears("vifA.0", true);
        assert_true(bridge_leads_to("vifA.0"));
    }
    die_after(do_prepare); /* and without the vifs: nothing is left, and the guest is cut off as it was */
    die_after(do_engage);
    die_after(do_mute);
    ok(molt_hold_remove(OP, NULL, 0, &err), &err);
    expect_clean();
    say_something(w->active);
    assert_int_equal(heard(w->listener, false), 0);
    ok(molt_vif_to_bridge("vifA.0", "brT", &err), &err);
    say_something(w->active);
    assert_int_equal(heard(w->listener, false), 1);
}

/* Guard and op-recover at once. */
static void test_two_at_once(void **state)
{
    need_plug();
    struct world *w = *state;
    CLEANUP_ERROR struct molt_error *err = NULL;
    for (int round = 0; round < 20; round++) {
        do_prepare();
        do_engage();
        if (round % 2)
            do_mute();
        pid_t pid = fork();
        if (pid == 0)
            _exit(molt_hold_release(OP, &to_active, 1, NULL, NULL) < 0 || molt_hold_remove(OP, &to_active, 1, NULL) < 0);
        ok(molt_hold_release(OP, &to_active, 1, NULL, &err), &err);
        ok(molt_hold_remove(OP, &to_active, 1, &err), &err);
        int status;
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_int_equal(status, 0);
        expect_clean();
    }
    send_some(w, 10, 200);
    expect(w->active, 0, 10);
}

/* Where packets cannot be held the vifs are moved all the same. */
static void test_without(void **state)
{
    need_netns();
    struct world *w = *state;
    CLEANUP_ERROR struct molt_error *err = NULL;
    struct molt_hold_stats st;
    if (sh("ip link set brT type bridge vlan_filtering 1")) /* not every kernel can */
        assert_int_equal(molt_hold_prepare(OP, &to_active, 1, &err), MOLT_E_UNSUPPORTED);
    const struct molt_hold_vif no_bridge = {.vif = "vifA.0", .bridge = "client"};
    assert_int_equal(molt_hold_prepare(OP, &no_bridge, 1, &err), MOLT_E_UNSUPPORTED);
    expect_clean();
    molt_error_clear(&err);
    send_some(w, 10, 200);
    expect(w->active, 0, 10);
    ok(molt_hold_engage(OP, &to_active, 1, &err), &err);
    ok(molt_hold_engage(OP, &to_active, 1, &err), &err);
    send_some(w, 10, 200);
    expect_nothing(w->active);
    ok(molt_hold_release(OP, &to_clone, 1, &st, &err), &err);
    ok(molt_hold_remove(OP, &to_clone, 1, &err), &err);
    assert_int_equal(st.packets, 0);
    send_some(w, 10, 200);
    expect(w->clone, 20, 30);
    const struct molt_hold_vif missing = {.vif = "vifX.0", .bridge = "brT"};
    assert_true(molt_hold_release(OP, &missing, 1, &st, &err) < 0);
    assert_non_null(strstr(molt_error_text(err), "vifX.0"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_to_clone, setup, teardown),
        cmocka_unit_test_setup_teardown(test_back_to_active, setup, teardown),
        cmocka_unit_test_setup_teardown(test_stream, setup, teardown),
        cmocka_unit_test_setup_teardown(test_neighbours, setup, teardown),
        cmocka_unit_test_setup_teardown(test_speaks_until_muted, setup, teardown),
        cmocka_unit_test_setup_teardown(test_back_unmuted, setup, teardown),
        cmocka_unit_test_setup_teardown(test_placed_before, setup, teardown),
        cmocka_unit_test_setup_teardown(test_placed_given_up, setup, teardown),
        cmocka_unit_test_setup_teardown(test_outgoing, setup, teardown),
        cmocka_unit_test_setup_teardown(test_limit, setup, teardown),
        cmocka_unit_test_setup_teardown(test_killed, setup, teardown),
        cmocka_unit_test_setup_teardown(test_two_at_once, setup, teardown),
        cmocka_unit_test_setup_teardown(test_without, setup, teardown),
    };
    return cmocka_run_group_tests(tests, net_up, net_down);
}
