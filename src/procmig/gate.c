/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Connections between services that are restored one after another: until all are there none may speak. */
#include "procmig/gate.h"

#include <errno.h>
#include <linux/pkt_sched.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"

struct message {
    struct nlmsghdr h;
    struct tcmsg t;
    char attr[128];
};

static void put(struct message *m, unsigned short type, const void *data, size_t len)
{
    struct rtattr *a = (struct rtattr *)((char *)m + NLMSG_ALIGN(m->h.nlmsg_len));
    a->rta_type = type;
    a->rta_len = (unsigned short)RTA_LENGTH(len);
    memcpy(RTA_DATA(a), data, len);
    m->h.nlmsg_len = (unsigned)(NLMSG_ALIGN(m->h.nlmsg_len) + RTA_ALIGN(a->rta_len));
}

/* 0, or the kernel's errno, negative. */
static int exchange(int sk, const struct message *m)
{
    struct {
        struct nlmsghdr h;
        struct nlmsgerr e;
        char rest[256];
    } answer;
    ssize_t n = send(sk, m, m->h.nlmsg_len, 0);
    if (n >= 0)
        n = recv(sk, &answer, sizeof(answer), 0);
    if (n < 0)
        return -errno;
    if ((size_t)n < sizeof(answer.h) + sizeof(answer.e) || answer.h.nlmsg_type != NLMSG_ERROR)
        return -EBADMSG;
    return answer.e.error;
}

int molt_loopback_gate(bool close, struct molt_error **err)
{
    const struct tc_fifo_qopt one_byte = {.limit = 1};
    struct message m = {
        .h = {.nlmsg_len = NLMSG_LENGTH(sizeof(struct tcmsg)), .nlmsg_type = close ? RTM_NEWQDISC : RTM_DELQDISC, .nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK},
        .t = {.tcm_ifindex = (int)if_nametoindex("lo"), .tcm_parent = TC_H_ROOT},
    };
    CLEANUP_CLOSE int sk = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    if (sk < 0)
        return molt_error_errno(err, "open a netlink socket");
    if (close) {
        m.h.nlmsg_flags |= NLM_F_CREATE | NLM_F_REPLACE;
        m.t.tcm_handle = 0x58450000; /* its number 5845: */
        put(&m, TCA_KIND, "bfifo", 6);
        put(&m, TCA_OPTIONS, &one_byte, sizeof(one_byte));
    }
    int r = exchange(sk, &m);
    if (r == 0 || (!close && (r == -ENOENT || r == -EINVAL))) /* there is none to be removed */
        return 0;
    errno = -r;
    return molt_error_errno(err, "%s the loopback device", close ? "hold back what is sent over" : "open");
}
