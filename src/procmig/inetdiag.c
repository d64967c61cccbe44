/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "procmig/inetdiag.h"

#include <errno.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <string.h>
#include <sys/socket.h>

#include "base/rtreq.h"

struct listing {
    void (*fn)(void *ctx, const struct inet_diag_msg *m);
    void *ctx;
};

static int see(void *ctx, const struct nlmsghdr *h)
{
    const struct listing *l = ctx;

    if (h->nlmsg_len < NLMSG_LENGTH(sizeof(struct inet_diag_msg)))
        return -EBADMSG;
    l->fn(l->ctx, NLMSG_DATA(h));
    return 0;
}

int molt__inet_sockets(uint8_t protocol, uint32_t states, void (*fn)(void *ctx, const struct inet_diag_msg *m), void *ctx, struct molt_error **err)
{
    static const uint8_t families[] = {AF_INET, AF_INET6};
    struct listing l = {fn, ctx};

    for (size_t i = 0; i < sizeof(families); i++) {
        const struct inet_diag_req_v2 q = {.sdiag_family = families[i], .sdiag_protocol = protocol, .idiag_states = states};
        struct molt_rtreq m;

        molt_rtreq_begin(&m, SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, &q, sizeof(q));
        int r = molt_rtreq_dump_of(NETLINK_SOCK_DIAG, &m, see, &l);

        if (r < 0 && r != -ENOENT) {
            errno = -r;
            return molt_error_errno(err, "ask the kernel for sockets (%s)", protocol == IPPROTO_UDP ? "udp_diag" : "tcp_diag");
        }
    }
    return 0;
}

void molt__map_ipv4(const void *ipv4, struct in6_addr *ret)
{
    *ret = (struct in6_addr){.s6_addr = {[10] = 0xff, [11] = 0xff}};
    memcpy(ret->s6_addr + 12, ipv4, 4);
}
