/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/rtreq.h"

#include <assert.h>
#include <errno.h>
#include <linux/rtnetlink.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/strbuf.h"

#define ROOM 32768 /* what the kernel sends at once, netlink(7) */

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

/* 1: more is to come, 0: that was the last. */
static int each(const struct nlmsghdr *h, size_t left, int (*fn)(void *ctx, const struct nlmsghdr *h), void *ctx)
{
    for (; NLMSG_OK(h, left); h = NLMSG_NEXT(h, left)) {
        if (h->nlmsg_type == NLMSG_DONE)
            return 0;
        if (h->nlmsg_type == NLMSG_ERROR)
            return h->nlmsg_len >= NLMSG_LENGTH(sizeof(struct nlmsgerr)) ? ((const struct nlmsgerr *)NLMSG_DATA(h))->error : -EBADMSG;
        int r = fn(ctx, h);

        if (r < 0)
            return r;
    }
    return 1;
}

int molt_rtreq_dump(struct molt_rtreq *m, int (*fn)(void *ctx, const struct nlmsghdr *h), void *ctx) { return molt_rtreq_dump_of(NETLINK_ROUTE, m, fn, ctx); }

int molt_rtreq_dump_of(int family, struct molt_rtreq *m, int (*fn)(void *ctx, const struct nlmsghdr *h), void *ctx)
{
    CLEANUP_CLOSE int sk = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, family);
    CLEANUP_FREE char *room = molt_xmalloc(ROOM);
    int r = 1;

    m->h.nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
    if (sk < 0 || send(sk, m, m->h.nlmsg_len, 0) < 0)
        return -errno;
    while (r > 0) {
        ssize_t n = recv(sk, room, ROOM, MSG_TRUNC);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? -errno : -EBADMSG;
        r = n > ROOM ? -EMSGSIZE : each((const struct nlmsghdr *)room, (size_t)n, fn, ctx);
    }
    return r;
}
