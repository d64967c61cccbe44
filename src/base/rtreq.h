/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* One small request to the kernel's rtnetlink(7), for programs that carry no library for it: starting ip(8) takes a guest a hundred times as long. */
#ifndef MOLT_BASE_RTREQ_H
#define MOLT_BASE_RTREQ_H

#include <linux/netlink.h>
#include <stddef.h>

struct molt_rtreq {
    struct nlmsghdr h;
    char rest[256]; /* the body and the attributes */
};

/* type: RTM_NEWADDR, ...; flags besides NLM_F_REQUEST and NLM_F_ACK; body: struct ifaddrmsg, struct tcmsg, ..., of `len` bytes. */
void molt_rtreq_begin(struct molt_rtreq *m, unsigned short type, unsigned short flags, const void *body, size_t len);
/* All of them, and the body, have to fit. */
void molt_rtreq_put(struct molt_rtreq *m, unsigned short type, const void *data, size_t len);
/* 0, or the kernel's errno, negative (-EBADMSG: no answer to this). */
int molt_rtreq_send(const struct molt_rtreq *m);
/* For a request that lists (RTM_GETNEIGH, ...): fn for each answer, which ends it with a negative number. 0, or that, or the kernel's errno, negative. */
int molt_rtreq_dump(struct molt_rtreq *m, int (*fn)(void *ctx, const struct nlmsghdr *h), void *ctx);
/* The same of another of the kernel's families (NETLINK_SOCK_DIAG, ...). */
int molt_rtreq_dump_of(int family, struct molt_rtreq *m, int (*fn)(void *ctx, const struct nlmsghdr *h), void *ctx);

#endif
