/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "hold_net.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fsio.h"
#include "base/strbuf.h"
#include "base/subprocess.h"
#include "rtnl.h"

#define PORT 7777

static bool have_netns, have_plug;
static int first_ns = -1;
static char *first_backlog;

/* ---- the little network ---- */

bool sh(const char *fmt, ...)
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

bool in_ns(int ns, int home, const char *command)
{
    assert_int_equal(setns(ns, CLONE_NEWNET), 0);
    bool ok = sh("%s", command);
    assert_int_equal(setns(home, CLONE_NEWNET), 0);
    return ok;
}

int new_vif(const char *name, const char *bridge)
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

int setup(void **state)
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

int teardown(void **state)
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

void need_netns(void) { need(have_netns, "not root, or no network namespaces"); }

void need_plug(void)
{
    need_netns();
    need(have_plug, "this kernel lacks sch_plug, cls_u32, act_gact or act_mirred");
}

void need_mute(void)
{
    need_plug();
    need(molt_rtnl_can_mute(), "this kernel cannot lock a bridge's port");
}

/* ---- datagrams ---- */

void send_to(struct world *w, const char *address, int n, size_t size)
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

void send_some(struct world *w, int n, size_t size) { send_to(w, "10.9.0.1", n, size); }

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

int heard_ours(int fd)
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

bool receive_as(int fd, int wait_ms, uint32_t *ret, uint8_t mac[6], bool answers)
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

bool receive(int fd, int wait_ms, uint32_t *ret)
{
    uint8_t mac[6];
    return receive_as(fd, wait_ms, ret, mac, true);
}

void expect(int fd, uint32_t from, uint32_t to)
{
    uint32_t got;
    for (uint32_t want = from; want < to; want++) {
        assert_true(receive(fd, 3000, &got));
        assert_int_equal(got, want);
    }
}

void expect_nothing(int fd)
{
    uint32_t got;
    assert_false(receive(fd, QUIET_MS, &got));
}

void ok(int r, struct molt_error **err)
{
    if (r < 0)
        print_error("%s\n", molt_error_text(*err));
    assert_int_equal(r, 0);
}

void expect_clean(void)
{
    assert_true(sh("! ip -o link | grep -E 'xm[hp]'"));
    assert_true(sh("! tc qdisc show | grep -E 'plug|ingress|clsact'"));
    assert_true(sh("! bridge fdb show | grep -E 'xm[hp]|sticky'"));
}

/* ---- for all tests ---- */

#define BACKLOG "/proc/sys/net/core/netdev_max_backlog"

/* Prepare and remove do this, but cannot from within a network namespace. */
static char *grow_backlog(void)
{
    char *was = NULL;
    if (molt_read_file(BACKLOG, 32, &was, NULL, NULL) == 0 && atol(was) < MOLT_HOLD_BACKLOG)
        sh("echo %d >" BACKLOG, MOLT_HOLD_BACKLOG);
    return was;
}

/* By other means than those under test. */
static bool probe_plug(void)
{
    return sh("ip link add probe0 type veth peer name probe1; tc qdisc add dev probe0 root plug limit 1000; tc qdisc add dev probe1 ingress;"
              "tc filter add dev probe1 parent ffff: prio 1 u32 match u32 1 1 action drop;"
              "tc filter add dev probe1 parent ffff: prio 2 u32 match u32 0 0 action mirred egress redirect dev lo; ip link del probe0");
}

int net_up(void **state)
{
    cpu_set_t one;
    (void)state;
    /* The client's own interfaces keep no order between CPUs: it must not change its CPU. */
    CPU_ZERO(&one);
    CPU_SET(sched_getcpu(), &one);
    sched_setaffinity(0, sizeof(one), &one);
    first_backlog = geteuid() == 0 ? grow_backlog() : NULL;
    first_ns = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    have_netns = geteuid() == 0 && unshare(CLONE_NEWNET | CLONE_NEWNS) == 0 && mount("", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
                 sh("command -v tc && ip link add probe0 type veth peer name probe1 && ip link add brP type bridge");
    have_plug = have_netns && sh("ip link del probe0") && probe_plug();
    return 0;
}

int net_down(void **state)
{
    (void)state;
    if (first_backlog && setns(first_ns, CLONE_NEWNET) == 0)
        sh("echo %ld >" BACKLOG, atol(first_backlog));
    free(first_backlog);
    close(first_ns);
    return 0;
}
