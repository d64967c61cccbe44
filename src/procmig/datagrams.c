/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "procmig/datagrams.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <netinet/ip6.h>
#include <netinet/udp.h>
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

/* The destination, which a socket for any address does not tell. */
static bool take_destination(struct msghdr *m, struct in6_addr *to)
{
    for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
        if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_PKTINFO) {
            struct in_pktinfo info;

            memcpy(&info, CMSG_DATA(c), sizeof(info));
            molt__map_ipv4(&info.ipi_addr, to);
            return true;
        }
        if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_PKTINFO) {
            memcpy(to, CMSG_DATA(c), sizeof(*to)); /* the first member of struct in6_pktinfo */
            return true;
        }
    }
    return false;
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

static void keep(struct collecting *c, const struct record *rec, const void *data)
{
    if (c->file.len + sizeof(*rec) + rec->len > MOLT_DATAGRAMS_SUM_MAX) {
        c->count.lost++;
        return;
    }
    molt_strbuf_add(&c->file, rec, sizeof(*rec));
    molt_strbuf_add(&c->file, data, rec->len);
    c->count.moved++;
}

/* Each peek shows the next one, since the offset goes on by what was seen (SO_PEEK_OFF). */
static void peek(struct collecting *c, int fd, uint16_t port, char *buf)
{
    for (int errors = 0; errors < TRIES_MAX;) {
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
        rec.len = (uint32_t)n;
        if (take_source(&from, &rec) && take_destination(&m, &rec.to))
            keep(c, &rec, buf);
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

static void set_option(int fd, int level, int name, int value)
{
    (void)setsockopt(fd, level, name, &value, sizeof(value));
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
    set_option(fd, level, name, 1);
    set_option(fd, SOL_SOCKET, SO_PEEK_OFF, 0);
    peek(c, fd, ipv6 ? ((struct sockaddr_in6 *)&at)->sin6_port : ((struct sockaddr_in *)&at)->sin_port, buf);
    set_option(fd, SOL_SOCKET, SO_PEEK_OFF, off);
    set_option(fd, level, name, info > 0);
}

/* A socket that several descriptors or processes share is taken once. */
static int take_fd(void *ctx, const struct molt__fd *f, struct molt_error **err)
{
    struct collecting *c = ctx;

    if (!S_ISSOCK(f->st.st_mode))
        return 0;
    for (size_t i = 0; i < c->full.n; i++) {
        if (c->full.v[i] != f->st.st_ino)
            continue;
        CLEANUP_CLOSE int fd = molt__steal_fd(c->pid, f->fd);

        if (fd < 0)
            return molt_error_errno(err, "take the socket %d of process %d", f->fd, (int)c->pid);
        take_socket(c, fd);
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
};

/* An address of this guest's. What is sent to any other one would leave it. The way to an address of one's own is from that very address, and no other address has such a way
 * (RFC 6724, rule 1; of 127.0.0.0/8 all are). Whether one could be bound to it says less: ip_nonlocal_bind. */
static bool is_here(const struct in6_addr *a, bool ipv4)
{
    union {
        struct sockaddr any;
        struct sockaddr_in in;
        struct sockaddr_in6 in6;
    } to = {.in6 = {.sin6_family = AF_INET6, .sin6_port = htons(9), .sin6_addr = *a}}, from;
    socklen_t len = ipv4 ? sizeof(to.in) : sizeof(to.in6);
    CLEANUP_CLOSE int fd = socket(ipv4 ? AF_INET : AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    if (ipv4) {
        to.in = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(9)};
        memcpy(&to.in.sin_addr, a->s6_addr + 12, 4);
        if (a->s6_addr[12] == 127)
            return true;
    }
    if (fd < 0 || connect(fd, &to.any, len) < 0 || getsockname(fd, &from.any, &len) < 0) /* sends nothing */
        return false;
    return ipv4 ? from.in.sin_addr.s_addr == to.in.sin_addr.s_addr : !memcmp(&from.in6.sin6_addr, a, sizeof(*a));
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

    if (IN6_IS_ADDR_V4MAPPED(&rec->from) != ipv4 || rec->len + sizeof(struct udphdr) > UINT16_MAX || !is_here(&rec->to, ipv4))
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
    size_t len;
    int r;

    *ret = (struct molt_datagrams){0, 0};
    if (!molt_exists(path))
        return 0;
    CLEANUP_CLOSE int raw4 = socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW), raw6 = socket(AF_INET6, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW);
    const struct placing p = {raw4, raw6};

    if (raw4 < 0)
        return molt_error_errno(err, "open a raw socket");
    r = molt_read_file(path, MOLT_DATAGRAMS_SUM_MAX, &text, &len, err);
    return r < 0 ? r : place_all(&p, text, len, ret, err);
}
