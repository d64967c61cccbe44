/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Held packets, with the real kernel in network namespaces of our own: a client on a bridge, two "guests" (TAP
 * devices) with one address and MAC. Numbered datagrams show what is lost, doubled or out of order. Needs root; what needs sch_plug is
 * skipped on a kernel without it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_ether.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/fsio.h"
#include "base/strbuf.h"
#include "base/subprocess.h"
#include "divert.h"
#include "hold.h"

#define OP "gu-20260102-030405-7f3a"
#define GUEST_MAC "00:16:3e:00:00:01"
#define PORT 7777
#define TEST_ETHERTYPE 0x88b5 /* for local experiments */
#define HELD 1000
#define QUIET_MS 300 /* nothing came for so long: nothing comes */

struct world {
    int home, client_ns;                 /* network namespaces */
    int client, listener, active, clone; /* sockets of the client; the guests' ends of their vifs */
    uint32_t next;                       /* number of the next datagram */
};

static const struct molt_hold_vif to_active = {.vif = "vifA.0", .bridge = "brT", .mac = {0x00, 0x16, 0x3e, 0, 0, 1}};
static const struct molt_hold_vif to_clone = {.vif = "vifC.0", .bridge = "brT", .mac = {0x00, 0x16, 0x3e, 0, 0, 1}};
static bool have_netns, have_plug;

/* ---- the little network ---- */

static bool sh(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static bool sh(const char *fmt, ...)
{
    CLEANUP_STRBUF struct molt_strbuf b = MOLT_STRBUF_INIT;
    va_list ap;
    va_start(ap, fmt);
    molt_strbuf_vaddf(&b, fmt, ap);
    va_end(ap);
    char *argv[] = {"sh", "-ec", b.s, NULL};
    int status = 1;
    return molt_run(argv, NULL, &status, NULL, NULL) == 0 && status == 0;
}

static bool in_ns(int ns, int home, const char *command)
{
    assert_int_equal(setns(ns, CLONE_NEWNET), 0);
    bool ok = sh("%s", command);
    assert_int_equal(setns(home, CLONE_NEWNET), 0);
    return ok;
}

/* A vif as the backend driver's is: what the bridge sends to it is handed over at once, to the reader of this descriptor. */
static int new_vif(const char *name, const char *bridge)
{
    struct ifreq ifr = {.ifr_flags = IFF_TAP | IFF_NO_PI};
    int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);
    strcpy(ifr.ifr_name, name);
    assert_int_equal(ioctl(fd, TUNSETIFF, &ifr), 0);
    assert_true(sh("ip link set %s address fe:ff:ff:ff:ff:ff txqueuelen 30000 master %s; ip link set %s up", name, bridge, name));
    return fd;
}

static void new_client(struct world *w)
{
    assert_int_equal(unshare(CLONE_NEWNET), 0);
    w->client_ns = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    w->client = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    w->listener = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, htons(TEST_ETHERTYPE));
    assert_int_equal(setns(w->home, CLONE_NEWNET), 0);
    int big = 64 << 20;
    setsockopt(w->client, SOL_SOCKET, SO_SNDBUFFORCE, &big, sizeof(big)); /* a held packet still counts as the sender's */
    assert_true(sh("ip link add client type veth peer name peer; ip link set peer netns /proc/%d/fd/%d; ip link set client master brT;"
                   "ip link set client up", getpid(), w->client_ns));
    assert_true(in_ns(w->client_ns, w->home, "ip link set peer name eth0; ip addr add 10.9.0.2/24 dev eth0; ip link set eth0 up"));
}

static int setup(void **state)
{
    struct world *w = molt_xcalloc(1, sizeof(*w));
    *state = w;
    if (!have_netns)
        return 0;
    assert_int_equal(unshare(CLONE_NEWNET), 0); /* a new one for each test */
    umount2("/sys", MNT_DETACH);
    assert_int_equal(mount("sysfs", "/sys", "sysfs", 0, NULL), 0);
    w->home = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    assert_true(sh("ip link add brT type bridge; ip link add brI type bridge; ip link set brT up; ip link set brI up"));
    new_client(w);
    w->active = new_vif("vifA.0", "brT");
    w->clone = new_vif("vifC.0", "brI");
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;
    if (have_netns)
        for (int *fd = &w->home; fd <= &w->clone; fd++)
            close(*fd);
    free(w);
    return 0;
}

static void need(bool have, const char *what)
{
    if (have)
        return;
    print_message("          skipped: %s\n", what);
    skip();
}

#define NEED_PLUG need(have_netns, "not root, or no network namespaces"); need(have_plug, "this kernel lacks sch_plug, cls_u32, act_gact or act_mirred")

/* ---- datagrams ---- */

static void send_to(struct world *w, const char *address, int n, size_t size)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(PORT)};
    char buf[1400] = {0};
    inet_pton(AF_INET, address, &to.sin_addr);
    for (int i = 0; i < n; i++) {
        memcpy(buf, &w->next, sizeof(w->next));
        while (sendto(w->client, buf, size, 0, (struct sockaddr *)&to, sizeof(to)) < 0)
            assert_true(errno == ENOBUFS || errno == EINTR || errno == EAGAIN);
        w->next++;
    }
}

static void send_some(struct world *w, int n, size_t size) { send_to(w, "10.9.0.1", n, size); }

/* As the guest's kernel does. */
static void answer_arp(int fd, const unsigned char *q)
{
    unsigned char a[42];
    memcpy(a, q, sizeof(a));
    memcpy(a, q + 6, 6);
    memcpy(a + 6, to_active.mac, 6);
    a[21] = 2; /* reply */
    memcpy(a + 22, to_active.mac, 6);
    memcpy(a + 28, q + 38, 4);
    memcpy(a + 32, q + 22, 10);
    assert_int_equal(write(fd, a, sizeof(a)), sizeof(a));
}

/* Datagrams of ours, and questions for the guest's address. Others may come: what the vif's own interface says, a report of the client's (IGMP) from before. */
static int heard_ours(int fd)
{
    static const unsigned char address[] = {10, 9, 0, 1};
    struct pollfd p = {.fd = fd, .events = POLLIN};
    unsigned char f[2048];
    int n = 0;
    while (poll(&p, 1, QUIET_MS) == 1) {
        ssize_t len = read(fd, f, sizeof(f));
        n += len >= 42 && f[12] == 8 && f[13] == 6 && f[21] == 1 && !memcmp(f + 38, address, 4);
        n += len >= 46 && f[12] == 8 && f[13] == 0 && f[23] == IPPROTO_UDP;
    }
    return n;
}

/* The number of the next datagram at a guest, and whom it was sent to; frames of other kinds are passed over. A guest answers for 10.9.0.1 and
 * 10.9.0.9. */
static bool receive_as(int fd, int wait_ms, uint32_t *ret, uint8_t mac[6], bool answers)
{
    static const unsigned char net[] = {10, 9, 0};
    struct pollfd p = {.fd = fd, .events = POLLIN};
    unsigned char f[2048];
    while (poll(&p, 1, wait_ms) == 1) {
        ssize_t n = read(fd, f, sizeof(f));
        if (answers && n >= 42 && f[12] == 8 && f[13] == 6 && f[21] == 1 && memcmp(f + 38, net, 3) == 0 && (f[41] == 1 || f[41] == 9))
            answer_arp(fd, f);
        if (n < 46 || f[12] != 8 || f[13] != 0 || f[23] != IPPROTO_UDP || f[36] != PORT >> 8 || f[37] != (PORT & 255))
            continue;
        memcpy(ret, f + 42, sizeof(*ret));
        memcpy(mac, f, 6);
        return true;
    }
    return false;
}

static bool receive(int fd, int wait_ms, uint32_t *ret)
{
    uint8_t mac[6];
    return receive_as(fd, wait_ms, ret, mac, true);
}

/* Exactly these, in this order. */
static void expect(int fd, uint32_t from, uint32_t to)
{
    uint32_t got;
    for (uint32_t want = from; want < to; want++) {
        assert_true(receive(fd, 3000, &got));
        assert_int_equal(got, want);
    }
}

static void expect_nothing(int fd)
{
    uint32_t got;
    assert_false(receive(fd, QUIET_MS, &got));
}

static void ok(int r, struct molt_error **err)
{
    if (r < 0)
        print_error("%s\n", molt_error_text(*err));
    assert_int_equal(r, 0);
}

static void expect_clean(void)
{
    assert_true(sh("! ip -o link | grep -E 'xm[hp]'"));
    assert_true(sh("! tc qdisc show | grep -E 'plug|ingress|clsact'"));
    assert_true(sh("! bridge fdb show | grep -E 'xm[hp]|sticky'"));
}

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
    NEED_PLUG;
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
    NEED_PLUG;
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
    NEED_PLUG;
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
    NEED_PLUG;
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
    NEED_PLUG;
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
    NEED_PLUG;
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
    NEED_PLUG;
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
    NEED_PLUG;
    need(molt_rtnl_can_mute(), "this kernel cannot lock a bridge's port");
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
    NEED_PLUG;
    need(molt_rtnl_can_mute(), "this kernel cannot lock a bridge's port");
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
    NEED_PLUG;
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
    NEED_PLUG;
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
    NEED_PLUG;
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
    need(have_netns, "not root, or no network namespaces");
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

/* By other means than those under test. */
static bool probe_plug(void)
{
    return sh("ip link add probe0 type veth peer name probe1; tc qdisc add dev probe0 root plug limit 1000; tc qdisc add dev probe1 ingress;"
              "tc filter add dev probe1 parent ffff: prio 1 u32 match u32 1 1 action drop;"
              "tc filter add dev probe1 parent ffff: prio 2 u32 match u32 0 0 action mirred egress redirect dev lo; ip link del probe0");
}

/* ---- one address of a guest that goes on ---- */

#define OTHER_MAC {0x00, 0x16, 0x3e, 0, 0, 2}

static struct molt_divert one_address(void)
{
    struct molt_divert d = {.from = "vifA.0", .to = "vifB.0", .to_mac = OTHER_MAC};
    assert_int_equal(molt_divert_address("10.9.0.1/24", &d.address, NULL), 0);
    return d;
}

/* The number of the first datagram that is held; the guest's other address goes on. */
static uint32_t divert(struct world *w, const struct molt_divert *d, struct molt_error **err)
{
    send_some(w, 1, 200);
    expect(w->active, w->next - 1, w->next);
    send_to(w, "10.9.0.9", 1, 200);
    expect(w->active, w->next - 1, w->next);
    ok(molt_divert_prepare(OP, d, err), err);
    send_some(w, 100, 200);
    expect(w->active, w->next - 100, w->next);
    ok(molt_divert_engage(OP, d, err), err);
    uint32_t first = w->next;
    send_some(w, HELD, 200);
    expect_nothing(w->active);
    uint32_t between = w->next;
    send_to(w, "10.9.0.9", 5, 200);
    expect(w->active, between, w->next);
    w->next = between; /* so that the held ones count on */
    return first;
}

static void test_divert(void **state)
{
    NEED_PLUG;
    struct world *w = *state;
    const struct molt_divert d = one_address();
    struct molt_hold_stats st;
    CLEANUP_ERROR struct molt_error *err = NULL;
    uint8_t mac[6], other[] = OTHER_MAC;
    int fd = new_vif("vifB.0", "brT");
    uint32_t first = divert(w, &d, &err), got;
    ok(molt_divert_release(OP, &d, &st, &err), &err);
    ok(molt_divert_release(OP, &d, NULL, &err), &err); /* again, as after a crash in between */
    send_some(w, 50, 200);
    for (uint32_t want = first; want < w->next; want++) {
        assert_true(receive_as(fd, 3000, &got, mac, false));
        assert_int_equal(got, want);
        assert_memory_equal(mac, other, sizeof(mac));
    }
    assert_int_equal(st.packets, HELD);
    expect_nothing(w->active);
    ok(molt_divert_remove(OP, &d, &err), &err);
    ok(molt_divert_remove(OP, &d, &err), &err);
    expect_clean();
    first = w->next;
    send_some(w, 10, 200); /* to whom the client still takes for its neighbour */
    expect(w->active, first, w->next);
    close(fd);
}

static void test_divert_back(void **state)
{
    NEED_PLUG;
    struct world *w = *state;
    const struct molt_divert d = one_address();
    CLEANUP_ERROR struct molt_error *err = NULL;
    uint8_t mac[6];
    int fd = new_vif("vifB.0", "brT");
    uint32_t first = divert(w, &d, &err), got;
    ok(molt_divert_return(OP, &d, &err), &err);
    ok(molt_divert_return(OP, &d, &err), &err);
    send_some(w, 50, 200);
    expect(w->active, first, w->next);
    expect_nothing(w->active);
    assert_false(receive_as(fd, QUIET_MS, &got, mac, false));
    expect_clean();
    close(fd);
}

/* IPv6 has four words to compare; and a hook that an admin has there is not ours. */
static void test_divert_refused(void **state)
{
    NEED_PLUG;
    struct molt_divert d = one_address();
    CLEANUP_ERROR struct molt_error *err = NULL;
    int fd = new_vif("vifB.0", "brT");
    (void)state;
    assert_int_equal(molt_divert_address("fd00::5/64", &d.address, NULL), 0);
    ok(molt_divert_prepare(OP, &d, &err), &err);
    ok(molt_divert_engage(OP, &d, &err), &err);
    assert_true(sh("tc filter show dev vifA.0 egress | grep -q 'match fd000000/ffffffff at 24'"));
    ok(molt_divert_return(OP, &d, &err), &err);
    expect_clean();
    assert_true(sh("tc qdisc add dev vifA.0 clsact"));
    assert_int_equal(molt_divert_prepare(OP, &d, &err), MOLT_E_UNSUPPORTED);
    assert_true(sh("tc qdisc show dev vifA.0 | grep -q clsact && ! ip -o link | grep -E 'xm[hp]'"));
    assert_int_equal(molt_divert_address("10.9.0", &d.address, NULL), MOLT_E_USAGE);
    close(fd);
}

#define BACKLOG "/proc/sys/net/core/netdev_max_backlog"

/* Prepare and remove do this, but cannot from within a network namespace. */
static char *grow_backlog(void)
{
    char *was = NULL;
    if (molt_read_file(BACKLOG, 32, &was, NULL, NULL) == 0 && atol(was) < MOLT_HOLD_BACKLOG)
        sh("echo %d >" BACKLOG, MOLT_HOLD_BACKLOG);
    return was;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_to_clone, setup, teardown), cmocka_unit_test_setup_teardown(test_back_to_active, setup, teardown),
        cmocka_unit_test_setup_teardown(test_stream, setup, teardown),   cmocka_unit_test_setup_teardown(test_neighbours, setup, teardown),
        cmocka_unit_test_setup_teardown(test_speaks_until_muted, setup, teardown), cmocka_unit_test_setup_teardown(test_back_unmuted, setup, teardown),
        cmocka_unit_test_setup_teardown(test_placed_before, setup, teardown), cmocka_unit_test_setup_teardown(test_placed_given_up, setup, teardown),
        cmocka_unit_test_setup_teardown(test_outgoing, setup, teardown), cmocka_unit_test_setup_teardown(test_limit, setup, teardown),
        cmocka_unit_test_setup_teardown(test_killed, setup, teardown),   cmocka_unit_test_setup_teardown(test_two_at_once, setup, teardown),
        cmocka_unit_test_setup_teardown(test_without, setup, teardown),  cmocka_unit_test_setup_teardown(test_divert, setup, teardown),
        cmocka_unit_test_setup_teardown(test_divert_back, setup, teardown), cmocka_unit_test_setup_teardown(test_divert_refused, setup, teardown),
    };
    cpu_set_t one;
    /* The client's own interfaces keep no order between CPUs: it must not change its CPU. */
    CPU_ZERO(&one);
    CPU_SET(sched_getcpu(), &one);
    sched_setaffinity(0, sizeof(one), &one);
    CLEANUP_FREE char *was = geteuid() == 0 ? grow_backlog() : NULL;
    CLEANUP_CLOSE int home = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    have_netns = geteuid() == 0 && unshare(CLONE_NEWNET | CLONE_NEWNS) == 0 && mount("", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
                 sh("command -v tc && ip link add probe0 type veth peer name probe1 && ip link add brP type bridge");
    have_plug = have_netns && sh("ip link del probe0") && probe_plug();
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    if (was && setns(home, CLONE_NEWNET) == 0)
        sh("echo %ld >" BACKLOG, atol(was));
    return failed;
}
