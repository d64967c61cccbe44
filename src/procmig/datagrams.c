/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "procmig/datagrams.h"

#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <netinet/ip6.h>
#include <netinet/udp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fsio.h"
#include "base/strbuf.h"
#include "procmig/inetdiag.h"
#include "procmig/procfs.h"

#define MAGIC     "moltudp1"
#define DATA_MAX  65535
#define TTL       64
#define TRIES_MAX 64 /* at a socket with errors of its own waiting (ICMP) */
#define COUNT_MAX 1000000 /* at one socket: no queue holds as many */

/* The file: this, and records, each followed by its data. IPv4 addresses are mapped ones (RFC 4291, 2.5.5.2); ports in network order. Both guests are of one processor. */
struct head {
    char magic[8];
    uint64_t lost; /* of those that were to be collected */
};

struct record {
    struct in6_addr from, to;
    uint16_t from_port, to_port;
    uint32_t len;
};

/* ---- collecting ---- */

struct collecting {
    struct molt__inodes full; /* UDP sockets at which something waits, whosever they are */
    struct molt_strbuf file;
    struct molt_datagrams count;
    pid_t pid;
};

static void see(void *ctx, const struct inet_diag_msg *m)
{
    struct molt__inodes *full = ctx;

    if (m->idiag_rqueue > 0 && m->idiag_inode) {
        MOLT_GROW(full->v, full->n, full->cap);
        full->v[full->n++] = m->idiag_inode;
    }
}

/* What comes beside the data: the destination, which a socket for any address does not tell; of what the kernel has put together for a socket with UDP_GRO the length of each piece. */
struct beside {
    struct in6_addr to;
    bool has_to;
    size_t piece; /* 0: it is one */
};

static struct beside take_beside(struct msghdr *m)
{
    struct beside b = {.piece = 0};

    for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
        if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_PKTINFO) {
            struct in_pktinfo info;

            memcpy(&info, CMSG_DATA(c), sizeof(info));
            molt__map_ipv4(&info.ipi_addr, &b.to);
            b.has_to = true;
        } else if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_PKTINFO) {
            memcpy(&b.to, CMSG_DATA(c), sizeof(b.to)); /* the first member of struct in6_pktinfo */
            b.has_to = true;
        } else if (c->cmsg_level == IPPROTO_UDP && c->cmsg_type == UDP_GRO) {
            int piece;

            memcpy(&piece, CMSG_DATA(c), sizeof(piece));
            b.piece = piece > 0 ? (size_t)piece : 0;
        }
    }
    return b;
}

static bool take_source(const struct sockaddr_storage *from, struct record *rec)
{
    const struct sockaddr_in *in = (const void *)from;
    const struct sockaddr_in6 *in6 = (const void *)from;

    if (from->ss_family == AF_INET) {
        molt__map_ipv4(&in->sin_addr, &rec->from);
        rec->from_port = in->sin_port;
    } else if (from->ss_family == AF_INET6) {
        rec->from = in6->sin6_addr;
        rec->from_port = in6->sin6_port;
    }
    return from->ss_family == AF_INET || from->ss_family == AF_INET6;
}

static void keep_one(struct collecting *c, const struct record *rec, const void *data)
{
    if (c->file.len + sizeof(*rec) + rec->len > MOLT_DATAGRAMS_SUM_MAX) {
        c->count.lost++;
        return;
    }
    molt_strbuf_add(&c->file, rec, sizeof(*rec));
    molt_strbuf_add(&c->file, data, rec->len);
    c->count.moved++;
}

static void keep(struct collecting *c, struct record rec, const char *data, size_t len, size_t piece)
{
    size_t at = 0;

    do {
        rec.len = (uint32_t)(piece && len - at > piece ? piece : len - at);
        keep_one(c, &rec, data + at);
        at += rec.len;
    } while (at < len);
}

/* Each peek shows the next one, since the offset goes on by what was seen (SO_PEEK_OFF). */
static void peek(struct collecting *c, int fd, uint16_t port, char *buf)
{
    for (int errors = 0, count = 0; errors < TRIES_MAX && count < COUNT_MAX;) {
        union {
            struct cmsghdr aligned;
            char bytes[512];
        } control;
        struct sockaddr_storage from = {0};
        struct iovec v = {.iov_base = buf, .iov_len = DATA_MAX};
        struct msghdr m = {.msg_name = &from, .msg_namelen = sizeof(from), .msg_iov = &v, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof(control.bytes)};
        struct record rec = {.to_port = port};
        const ssize_t n = recvmsg(fd, &m, MSG_PEEK | MSG_DONTWAIT);

        if (n < 0 && (errno == EAGAIN || errno == EBADF))
            return;
        if (n < 0) {
            errors++;
            continue;
        }
        const struct beside b = take_beside(&m);

        count++;
        rec.to = b.to;
        if (take_source(&from, &rec) && b.has_to)
            keep(c, rec, buf, (size_t)n, b.piece);
        else
            c->count.lost++;
    }
}

static int get_option(int fd, int level, int name)
{
    int value = 0;
    socklen_t len = sizeof(value);

    return getsockopt(fd, level, name, &value, &len) < 0 ? -1 : value;
}

static bool set_option(int fd, int level, int name, int value)
{
    return setsockopt(fd, level, name, &value, sizeof(value)) == 0;
}

/* The socket is another process's, which may go on with it. */
static void take_socket(struct collecting *c, int fd)
{
    CLEANUP_FREE char *buf = molt_xcalloc(1, DATA_MAX);
    const bool ipv6 = get_option(fd, SOL_SOCKET, SO_DOMAIN) == AF_INET6;
    const int level = ipv6 ? IPPROTO_IPV6 : IPPROTO_IP, name = ipv6 ? IPV6_RECVPKTINFO : IP_PKTINFO;
    const int info = get_option(fd, level, name), off = get_option(fd, SOL_SOCKET, SO_PEEK_OFF);
    struct sockaddr_storage at;
    socklen_t len = sizeof(at);

    if (get_option(fd, SOL_SOCKET, SO_PROTOCOL) != IPPROTO_UDP || getsockname(fd, (struct sockaddr *)&at, &len) < 0)
        return;
    if (set_option(fd, level, name, 1) && set_option(fd, SOL_SOCKET, SO_PEEK_OFF, 0)) /* without an offset each peek would show the first one */
        peek(c, fd, ipv6 ? ((struct sockaddr_in6 *)&at)->sin6_port : ((struct sockaddr_in *)&at)->sin_port, buf);
    else
        c->count.lost++;
    (void)set_option(fd, SOL_SOCKET, SO_PEEK_OFF, off);
    (void)set_option(fd, level, name, info > 0);
}

/* A socket that several descriptors or processes share is taken once. */
static int take_fd(void *ctx, const struct molt__fd *f, struct molt_error **err)
{
    struct collecting *c = ctx;

    (void)err;
    if (!S_ISSOCK(f->st.st_mode))
        return 0;
    for (size_t i = 0; i < c->full.n; i++) {
        if (c->full.v[i] != f->st.st_ino)
            continue;
        CLEANUP_CLOSE int fd = molt__steal_fd(c->pid, f->fd);

        if (fd >= 0)
            take_socket(c, fd);
        else
            c->count.lost++;
        c->full.v[i] = 0;
        return 0;
    }
    return 0;
}

int molt_datagrams_collect(const struct molt_workload *w, const char *dir, struct molt_datagrams *ret, struct molt_error **err)
{
    CLEANUP_FREE char *path = molt_xasprintf("%s/" MOLT_DATAGRAMS, dir);
    struct collecting c = {.file = MOLT_STRBUF_INIT};
    struct head head = {.magic = MAGIC};
    int r = molt__inet_sockets(IPPROTO_UDP, ~0u, see, &c.full, err);

    unlink(path);
    molt_strbuf_add(&c.file, &head, sizeof(head));
    for (size_t i = 0; i < w->procs && r == 0 && c.full.n; i++) {
        c.pid = w->proc[i].pid;
        r = molt__each_fd(c.pid, false, take_fd, &c, err);
    }
    head.lost = c.count.lost;
    memcpy(c.file.s, &head, sizeof(head));
    if (r == 0 && (c.count.moved || c.count.lost))
        r = molt_write_file(path, c.file.s, c.file.len, 0600, err);
    free(c.full.v);
    molt_strbuf_free(&c.file);
    *ret = c.count;
    return r;
}

/* ---- placing ---- */

struct placing {
    int raw4, raw6;
    struct ifaddrs *addresses;
};

/* An address of this guest's: what is sent to any other one would leave it. */
static bool is_here(const struct placing *p, const struct in6_addr *a, bool ipv4)
{
    if (ipv4 && a->s6_addr[12] == 127)
        return true;
    for (const struct ifaddrs *i = p->addresses; i; i = i->ifa_next) {
        struct in6_addr own;

        if (!i->ifa_addr || i->ifa_addr->sa_family != (ipv4 ? AF_INET : AF_INET6))
            continue;
        if (ipv4)
            molt__map_ipv4(&((const struct sockaddr_in *)i->ifa_addr)->sin_addr, &own);
        else
            own = ((const struct sockaddr_in6 *)i->ifa_addr)->sin6_addr;
        if (!memcmp(&own, a, sizeof(own)))
            return true;
    }
    return false;
}

/* How many datagrams this kernel has dropped, for want of a socket or of room there. */
static uint64_t dropped(void)
{
    CLEANUP_FREE char *snmp = NULL, *snmp6 = NULL;
    unsigned long long in, no_port, bad, out, no_room = 0, no_port4 = 0, no_port6 = 0, no_room6 = 0;
    size_t len;

    if (molt_read_file("/proc/net/snmp", 65536, &snmp, &len, NULL) == 0) {
        const char *names = strstr(snmp, "\nUdp: "), *values = names ? strstr(names + 1, "\nUdp: ") : NULL;

        /* InDatagrams NoPorts InErrors OutDatagrams RcvbufErrors, since 2.6.26 */
        if (values && sscanf(values, "\nUdp: %llu %llu %llu %llu %llu", &in, &no_port, &bad, &out, &no_room) == 5)
            no_port4 = no_port;
    }
    if (molt_read_file("/proc/net/snmp6", 65536, &snmp6, &len, NULL) == 0) {
        const char *a = strstr(snmp6, "\nUdp6NoPorts"), *b = strstr(snmp6, "\nUdp6RcvbufErrors");

        no_port6 = a ? strtoull(a + strlen("\nUdp6NoPorts"), NULL, 10) : 0;
        no_room6 = b ? strtoull(b + strlen("\nUdp6RcvbufErrors"), NULL, 10) : 0;
    }
    return no_port4 + no_room + no_port6 + no_room6;
}

static uint32_t sum16(uint32_t sum, const void *data, size_t len)
{
    const unsigned char *p = data;

    for (size_t i = 0; i < len; i++)
        sum += (uint32_t)p[i] << (i % 2 ? 0 : 8);
    return sum;
}

/* RFC 768 and RFC 8200, 8.1: over the pseudo header, too. */
static uint16_t checksum6(const struct record *rec, const struct udphdr *u, const void *data)
{
    uint32_t sum = sum16(0, &rec->from, 16);

    sum = sum16(sum, &rec->to, 16) + ntohs(u->len) + IPPROTO_UDP;
    sum = sum16(sum16(sum, u, sizeof(*u)), data, rec->len);
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return htons((uint16_t)(sum == 0xffff ? sum : ~sum & 0xffff));
}

static bool send4(int fd, const struct record *rec, const void *data)
{
    struct {
        struct iphdr ip;
        struct udphdr udp;
    } h = {.ip = {.version = 4, .ihl = 5, .ttl = TTL, .protocol = IPPROTO_UDP}}; /* lengths, id and the header's checksum are the kernel's; of UDP none is fine */
    struct sockaddr_in to = {.sin_family = AF_INET};
    struct iovec v[2] = {{.iov_base = &h, .iov_len = sizeof(h)}, {.iov_base = (void *)data, .iov_len = rec->len}};
    const struct msghdr m = {.msg_name = &to, .msg_namelen = sizeof(to), .msg_iov = v, .msg_iovlen = 2};

    memcpy(&h.ip.saddr, rec->from.s6_addr + 12, 4);
    memcpy(&h.ip.daddr, rec->to.s6_addr + 12, 4);
    memcpy(&to.sin_addr, &h.ip.daddr, 4);
    h.udp = (struct udphdr){.source = rec->from_port, .dest = rec->to_port, .len = htons((uint16_t)(sizeof(h.udp) + rec->len))};
    return sendmsg(fd, &m, 0) >= 0;
}

static bool send6(int fd, const struct record *rec, const void *data)
{
    struct {
        struct ip6_hdr ip;
        struct udphdr udp;
    } h = {.ip = {.ip6_src = rec->from, .ip6_dst = rec->to}};
    struct sockaddr_in6 to = {.sin6_family = AF_INET6, .sin6_addr = rec->to};
    struct iovec v[2] = {{.iov_base = &h, .iov_len = sizeof(h)}, {.iov_base = (void *)data, .iov_len = rec->len}};
    const struct msghdr m = {.msg_name = &to, .msg_namelen = sizeof(to), .msg_iov = v, .msg_iovlen = 2};
    const uint16_t len = htons((uint16_t)(sizeof(h.udp) + rec->len));

    h.ip.ip6_flow = htonl(6u << 28);
    h.ip.ip6_plen = len;
    h.ip.ip6_nxt = IPPROTO_UDP;
    h.ip.ip6_hlim = TTL;
    h.udp = (struct udphdr){.source = rec->from_port, .dest = rec->to_port, .len = len};
    h.udp.check = checksum6(rec, &h.udp, data);
    return sendmsg(fd, &m, 0) >= 0;
}

/* A length that does not fit into the header is no datagram's. */
static bool place_one(const struct placing *p, const struct record *rec, const void *data)
{
    const bool ipv4 = IN6_IS_ADDR_V4MAPPED(&rec->to);

    if (IN6_IS_ADDR_V4MAPPED(&rec->from) != ipv4 || rec->len + sizeof(struct udphdr) > UINT16_MAX || !is_here(p, &rec->to, ipv4))
        return false;
    return ipv4 ? send4(p->raw4, rec, data) : send6(p->raw6, rec, data);
}

static int place_all(const struct placing *p, const char *text, size_t len, struct molt_datagrams *count, struct molt_error **err)
{
    struct head head;

    if (len < sizeof(head) || memcmp(text, MAGIC, sizeof(head.magic)))
        return molt_error_set(err, MOLT_E_PROTOCOL, "the images have no valid %s", MOLT_DATAGRAMS);
    memcpy(&head, text, sizeof(head));
    count->lost += (size_t)head.lost;
    for (size_t at = sizeof(head); at < len;) {
        struct record rec;

        if (len - at < sizeof(rec))
            return molt_error_set(err, MOLT_E_PROTOCOL, "the images have no whole %s", MOLT_DATAGRAMS);
        memcpy(&rec, text + at, sizeof(rec));
        at += sizeof(rec);
        if (rec.len > len - at)
            return molt_error_set(err, MOLT_E_PROTOCOL, "the images have no whole %s", MOLT_DATAGRAMS);
        if (place_one(p, &rec, text + at))
            count->moved++;
        else
            count->lost++;
        at += rec.len;
    }
    return 0;
}

int molt_datagrams_place(const char *dir, struct molt_datagrams *ret, struct molt_error **err)
{
    CLEANUP_FREE char *path = molt_xasprintf("%s/" MOLT_DATAGRAMS, dir), *text = NULL;
    struct placing p = {.addresses = NULL};
    size_t len;
    int r;

    *ret = (struct molt_datagrams){0, 0};
    if (!molt_exists(path))
        return 0;
    const uint64_t before = dropped();

    r = molt_read_file(path, MOLT_DATAGRAMS_SUM_MAX, &text, &len, err);
    if (r == 0 && getifaddrs(&p.addresses) < 0)
        r = molt_error_errno(err, "list the addresses");
    p.raw4 = socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW);
    p.raw6 = socket(AF_INET6, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW);
    if (r == 0) /* without a socket each is a lost one */
        r = place_all(&p, text, len, ret, err);
    /* What is sent over the loopback device has arrived, or not, when sendmsg(2) returns. */
    const uint64_t now = dropped(), gone = now > before ? now - before : 0, lost = gone < ret->moved ? gone : ret->moved;

    ret->moved -= (size_t)lost;
    ret->lost += (size_t)lost;
    if (p.raw4 >= 0)
        close(p.raw4);
    if (p.raw6 >= 0)
        close(p.raw6);
    freeifaddrs(p.addresses);
    return r;
}
