/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "procmig/settle.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/strbuf.h"
#include "procmig/inetdiag.h"
#include "procmig/procfs.h"

#define LOOK_EVERY_MS 5
#define RETRANSMITS   1  /* idiag_timer: the one that sends again is set (sock_diag(7)) */
#define SYN_QUEUE     12 /* TCP_NEW_SYN_RECV of the kernel: how it lists requests of a listening socket */
#define STATES        (1u << TCP_LISTEN | 1u << TCP_SYN_RECV | 1u << SYN_QUEUE | 1u << TCP_FIN_WAIT1 | 1u << TCP_CLOSING | 1u << TCP_LAST_ACK)

enum scope { ALL, ONE_ADDRESS, NONE }; /* whose closed connections count */

struct molt_listeners {
    enum scope scope;
    struct in6_addr address; /* of ONE_ADDRESS; IPv4 mapped */
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

static int set_scope(struct molt_listeners *l, const char *address, struct molt_error **err)
{
    CLEANUP_FREE char *plain = address ? molt_xstrndup(address, strcspn(address, "/")) : NULL;
    struct in_addr ipv4;

    l->scope = !address ? ALL : *address ? ONE_ADDRESS : NONE;
    if (l->scope != ONE_ADDRESS)
        return 0;
    if (inet_pton(AF_INET, plain, &ipv4) == 1)
        molt__map_ipv4(&ipv4, &l->address);
    else if (inet_pton(AF_INET6, plain, &l->address) != 1)
        return molt_error_set(err, MOLT_E_USAGE, "%s is not an address", address);
    return 0;
}

static bool is_in_scope(const struct molt_listeners *l, const struct inet_diag_msg *m)
{
    struct in6_addr from;

    if (l->scope != ONE_ADDRESS)
        return l->scope == ALL;
    if (m->idiag_family == AF_INET)
        molt__map_ipv4(m->id.idiag_src, &from);
    else
        memcpy(&from, m->id.idiag_src, sizeof(from)); /* a mapped one of a socket for both families is one already */
    return !memcmp(&from, &l->address, sizeof(from));
}

/* ---- the kernel's list ---- */

struct looking {
    const struct molt_listeners *l;
    struct molt_listeners *found; /* takes the ports; NULL: counts */
    struct molt_unsettled u;
};

static void see(void *ctx, const struct inet_diag_msg *m)
{
    struct looking *k = ctx;
    const uint16_t port = ntohs(m->id.idiag_sport);

    if (m->idiag_state == TCP_LISTEN) {
        if (!is_own(k->l, m->idiag_inode))
            return;
        k->u.waiting += m->idiag_rqueue; /* of a listening socket: how many wait to be accepted */
        if (k->found && !is_port(k->found, port)) {
            MOLT_GROW(k->found->port, k->found->ports, k->found->port_cap);
            k->found->port[k->found->ports++] = port;
        }
    } else if (m->idiag_inode != 0) {
        return; /* somebody holds it */
    } else if (m->idiag_state == TCP_SYN_RECV || m->idiag_state == SYN_QUEUE) {
        k->u.half_open += is_port(k->l, port);
    } else { /* what was written, or its end, is not acknowledged */
        const bool silent = m->idiag_timer == RETRANSMITS && m->idiag_retrans > 1;

        *(silent ? &k->u.silent : &k->u.closing) += is_in_scope(k->l, m);
    }
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

int molt_listeners_find(struct molt_workload *const *w, size_t n, const char *address, struct molt_listeners **ret, struct molt_error **err)
{
    struct molt_listeners *l = molt_xcalloc(1, sizeof(*l));
    struct looking k = {.l = l, .found = l};
    int r = set_scope(l, address, err);

    for (size_t i = 0; i < n && r == 0; i++)
        r = note_sockets(l, w[i], err);
    if (r == 0 && l->own.n)
        qsort(l->own.v, l->own.n, sizeof(*l->own.v), by_number);
    if (r == 0)
        r = molt__inet_sockets(IPPROTO_TCP, STATES, see, &k, err);
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
    int r = molt__inet_sockets(IPPROTO_TCP, STATES, see, &k, err);

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
