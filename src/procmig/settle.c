/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "procmig/settle.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/rtreq.h"
#include "base/strbuf.h"
#include "procmig/procfs.h"

#define LOOK_EVERY_MS 5
#define SYN_QUEUE     12 /* TCP_NEW_SYN_RECV of the kernel: how it lists requests of a listening socket */
#define STATES        (1u << TCP_LISTEN | 1u << TCP_SYN_RECV | 1u << SYN_QUEUE | 1u << TCP_FIN_WAIT1 | 1u << TCP_CLOSING | 1u << TCP_LAST_ACK)

struct molt_listeners {
    struct molt__inodes own; /* of all sockets that the workloads hold, in order */
    uint16_t *port; /* of those among them that listen */
    size_t ports, port_cap;
};

static int by_number(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

static bool is_own(const struct molt_listeners *l, uint64_t ino)
{
    return l->own.n && bsearch(&ino, l->own.v, l->own.n, sizeof(*l->own.v), by_number);
}

static bool is_port(const struct molt_listeners *l, uint16_t port)
{
    for (size_t i = 0; i < l->ports; i++)
        if (l->port[i] == port)
            return true;
    return false;
}

/* ---- the kernel's list ---- */

struct looking {
    const struct molt_listeners *l;
    struct molt_listeners *found; /* takes the ports; NULL: counts */
    struct molt_unsettled u;
};

static int see(void *ctx, const struct nlmsghdr *h)
{
    struct looking *k = ctx;
    const struct inet_diag_msg *m = NLMSG_DATA(h);

    if (h->nlmsg_len < NLMSG_LENGTH(sizeof(*m)))
        return -EBADMSG;
    const uint16_t port = ntohs(m->id.idiag_sport);

    if (m->idiag_state == TCP_LISTEN) {
        if (!is_own(k->l, m->idiag_inode))
            return 0;
        k->u.waiting += m->idiag_rqueue; /* of a listening socket: how many wait to be accepted */
        if (k->found && !is_port(k->found, port)) {
            MOLT_GROW(k->found->port, k->found->ports, k->found->port_cap);
            k->found->port[k->found->ports++] = port;
        }
    } else if (m->idiag_inode == 0 && is_port(k->l, port)) {
        if (m->idiag_state == TCP_SYN_RECV || m->idiag_state == SYN_QUEUE)
            k->u.half_open++;
        else /* what it wrote, or its end, is not acknowledged */
            k->u.closing++;
    }
    return 0;
}

static int list(struct looking *k, struct molt_error **err)
{
    static const uint8_t families[] = {AF_INET, AF_INET6};

    for (size_t i = 0; i < sizeof(families); i++) {
        const struct inet_diag_req_v2 q = {.sdiag_family = families[i], .sdiag_protocol = IPPROTO_TCP, .idiag_states = STATES};
        struct molt_rtreq m;

        molt_rtreq_begin(&m, SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, &q, sizeof(q));
        int r = molt_rtreq_dump_of(NETLINK_SOCK_DIAG, &m, see, k);

        if (r == -ENOENT) /* a kernel without IPv6; or without tcp_diag, and then CRIU has no TCP connection to move either */
            continue;
        if (r < 0) {
            errno = -r;
            return molt_error_errno(err, "ask the kernel for TCP sockets (tcp_diag)");
        }
    }
    return 0;
}

/* As its control group has them now: some may have come since it was looked at. */
static int note_sockets(struct molt_listeners *l, const struct molt_workload *w, struct molt_error **err)
{
    pid_t *pid = NULL;
    size_t n = 0;
    int r = w->cgroup ? molt__cgroup_pids(w->cgroup, &pid, &n, err) : 0;

    for (size_t i = 0; i < n && r == 0; i++)
        r = molt__socket_inodes(pid[i], &l->own, err);
    for (size_t p = 0; !w->cgroup && p < w->procs && r == 0; p++)
        r = molt__socket_inodes(w->proc[p].pid, &l->own, err);
    free(pid);
    return r;
}

int molt_listeners_find(struct molt_workload *const *w, size_t n, struct molt_listeners **ret, struct molt_error **err)
{
    struct molt_listeners *l = molt_xcalloc(1, sizeof(*l));
    struct looking k = {.l = l, .found = l};
    int r = 0;

    for (size_t i = 0; i < n && r == 0; i++)
        r = note_sockets(l, w[i], err);
    if (r == 0 && l->own.n)
        qsort(l->own.v, l->own.n, sizeof(*l->own.v), by_number);
    if (r == 0)
        r = list(&k, err);
    if (r < 0)
        molt_listeners_free(l);
    else
        *ret = l;
    return r;
}

void molt_listeners_free(struct molt_listeners *l)
{
    if (!l)
        return;
    free(l->own.v);
    free(l->port);
    free(l);
}

int molt_unsettled_look(const struct molt_listeners *l, struct molt_unsettled *ret, struct molt_error **err)
{
    struct looking k = {.l = l};
    int r = list(&k, err);

    *ret = k.u;
    return r;
}

int molt_settle(const struct molt_listeners *l, struct molt_unsettled *ret, struct molt_error **err)
{
    const int64_t begun = molt_mono_ms();

    for (;;) {
        int r = molt_unsettled_look(l, ret, err);
        const int64_t spent = molt_mono_ms() - begun;

        if (r < 0 || molt_is_settled(ret) || spent >= (ret->waiting ? MOLT_SETTLE_MS : MOLT_SETTLE_OTHER_MS))
            return r;
        molt_sleep_ms(LOOK_EVERY_MS);
    }
}
