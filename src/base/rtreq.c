/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/rtreq.h"

#include <assert.h>
#include <errno.h>
#include <linux/rtnetlink.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"

void molt_rtreq_begin(struct molt_rtreq *m, unsigned short type, unsigned short flags, const void *body, size_t len)
{
    assert(NLMSG_LENGTH(len) <= sizeof(*m));
    *m = (struct molt_rtreq){.h = {.nlmsg_len = (unsigned)NLMSG_LENGTH(len), .nlmsg_type = type, .nlmsg_flags = (unsigned short)(flags | NLM_F_REQUEST | NLM_F_ACK)}};
    memcpy(NLMSG_DATA(&m->h), body, len);
}

void molt_rtreq_put(struct molt_rtreq *m, unsigned short type, const void *data, size_t len)
{
    const size_t at = NLMSG_ALIGN(m->h.nlmsg_len);
    const struct rtattr a = {.rta_type = type, .rta_len = (unsigned short)RTA_LENGTH(len)};

    assert(at + RTA_ALIGN(a.rta_len) <= sizeof(*m));
    memcpy((char *)m + at, &a, sizeof(a));
    memcpy((char *)m + at + RTA_LENGTH(0), data, len);
    m->h.nlmsg_len = (unsigned)(at + RTA_ALIGN(a.rta_len));
}

int molt_rtreq_send(const struct molt_rtreq *m)
{
    struct {
        struct nlmsghdr h;
        struct nlmsgerr e;
        char rest[sizeof(*m)]; /* the request once more, behind an error */
    } answer;
    CLEANUP_CLOSE int sk = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    ssize_t n = sk < 0 ? -1 : send(sk, m, m->h.nlmsg_len, 0);

    if (n >= 0)
        n = recv(sk, &answer, sizeof(answer), 0);
    if (n < 0)
        return -errno;
    if ((size_t)n < sizeof(answer.h) + sizeof(answer.e) || answer.h.nlmsg_type != NLMSG_ERROR)
        return -EBADMSG;
    return answer.e.error;
}
