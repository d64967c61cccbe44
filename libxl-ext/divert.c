/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "divert.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

#include "hold_internal.h"

int molt_divert_address(const char *text, struct molt_rtnl_address *ret, struct molt_error **err)
{
    char plain[INET6_ADDRSTRLEN];
    *ret = (struct molt_rtnl_address){.v6 = strchr(text, ':') != NULL};
    snprintf(plain, sizeof(plain), "%.*s", (int)strcspn(text, "/"), text);
    if (inet_pton(ret->v6 ? AF_INET6 : AF_INET, plain, ret->bytes) == 1)
        return 0;
    return molt_error_set(err, MOLT_E_USAGE, "not an address: '%.80s'", text);
}

static int make(struct nl_sock *s, const char *op_id, const struct molt_divert *d, struct molt_error **err)
{
    const struct molt__ends e = molt__hold_ends(op_id, 0);
    struct molt_link from, to, port, out;
    bool hooked = false;
    int r = molt__need_link(s, d->from, &from, err);
    if (r == 0)
        r = molt__need_link(s, d->to, &to, err);
    if (r == 0)
        r = molt_rtnl_hooked(s, from.index, &hooked, err);
    if (r == 0 && hooked)
        return molt_error_set(err, MOLT_E_UNSUPPORTED, "it has filters of somebody else's");
    if (r == 0)
        r = molt__hold_pair(s, &e, from.mtu, &port, &out, err);
    if (r == 0)
        r = molt_rtnl_receive(s, out.index, err);
    if (r == 0)
        r = molt_rtnl_redirect_to(s, out.index, d->to_mac, to.index, err);
    if (r == 0)
        r = molt_rtnl_up(s, out.index, err);
    if (r == 0)
        r = molt_rtnl_up(s, port.index, err);
    if (r < 0)
        return r;
    /* Once for nothing: the kernel may have modules to load, or have none. */
    r = molt_rtnl_divert(s, from.index, &(const struct molt_rtnl_address){.v6 = d->address.v6}, port.index, err);
    int end = molt_rtnl_divert_end(s, from.index, r == 0 ? err : NULL);
    return r < 0 ? r : end;
}

int molt_divert_prepare(const char *op_id, const struct molt_divert *d, struct molt_error **err)
{
    CLEANUP_RTNL struct nl_sock *s = NULL;
    int r = molt_hold_remove(op_id, NULL, 0, err);
    if (r == 0)
        r = molt_rtnl_open(&s, err);
    if (r < 0)
        return r;
    if ((r = make(s, op_id, d, err)) < 0)
        molt_hold_remove(op_id, NULL, 0, NULL);
    return r < 0 ? molt_error_prefix(err, "%s", d->from) : 0;
}

typedef int filter_fn(struct nl_sock *s, int index, const struct molt_rtnl_address *a, int to, struct molt_error **err);

static int hold_by(const char *op_id, const struct molt_divert *d, filter_fn *fn, struct molt_error **err)
{
    CLEANUP_RTNL struct nl_sock *s = NULL;
    const struct molt__ends e = molt__hold_ends(op_id, 0);
    struct molt_link from, port;
    int r = molt_rtnl_open(&s, err);
    if (r == 0)
        r = molt__need_link(s, d->from, &from, err);
    if (r == 0)
        r = molt__need_link(s, e.port, &port, err);
    if (r == 0)
        r = molt_rtnl_plug(s, port.index, false, err);
    if (r == 0)
        r = fn(s, from.index, &d->address, port.index, err);
    return r < 0 ? molt_error_prefix(err, "hold %s", d->from) : 0;
}

int molt_divert_requests(const char *op_id, const struct molt_divert *d, struct molt_error **err)
{
    return hold_by(op_id, d, molt_rtnl_divert_requests, err);
}

int molt_divert_engage(const char *op_id, const struct molt_divert *d, struct molt_error **err)
{
    return hold_by(op_id, d, molt_rtnl_divert, err);
}

/* What waits, and what comes, leaves through `name` from now on. */
static int open_to(struct nl_sock *s, const struct molt__ends *e, const uint8_t *mac, const char *name, struct molt_hold_stats *ret, struct molt_error **err)
{
    struct molt_link port, out, to;
    struct molt_queue q = {0};
    int r = molt_rtnl_link(s, e->port, &port, err);
    if (r < 0 || !port.index)
        return r;
    if ((r = molt__need_link(s, e->out, &out, err)) == 0)
        r = molt__need_link(s, name, &to, err);
    if (r == 0)
        r = molt_rtnl_redirect_to(s, out.index, mac, to.index, err);
    if (r == 0)
        r = molt_rtnl_queue(s, port.index, false, &q, err);
    if (r == 0)
        r = molt_rtnl_plug(s, port.index, true, err);
    if (r == 0 && ret)
        *ret = (struct molt_hold_stats){.packets = q.waiting, .bytes = q.waiting_bytes, .dropped = q.dropped};
    return r;
}

int molt_divert_release(const char *op_id, const struct molt_divert *d, struct molt_hold_stats *ret, struct molt_error **err)
{
    CLEANUP_RTNL struct nl_sock *s = NULL;
    const struct molt__ends e = molt__hold_ends(op_id, 0);
    if (ret)
        *ret = (struct molt_hold_stats){0};
    int r = molt_rtnl_open(&s, err);
    if (r == 0)
        r = open_to(s, &e, d->to_mac, d->to, ret, err);
    return r < 0 ? molt_error_prefix(err, "release %s", d->to) : 0;
}

/* Nothing is diverted any more, and what was has passed: ours can go. */
static int end(struct nl_sock *s, const char *op_id, struct molt_error **err)
{
    const struct molt__ends e = molt__hold_ends(op_id, 0);
    struct molt_link port, out;
    int r = molt_rtnl_link(s, e.port, &port, err);
    if (r == 0)
        r = molt_rtnl_link(s, e.out, &out, err);
    if (r == 0 && port.index && out.index)
        r = molt__hold_drain(s, port.index, out.index, err);
    return r < 0 ? r : molt_hold_remove(op_id, NULL, 0, err);
}

/* A guest that is gone has taken its vif, and our filter, along. */
static int end_diversion(struct nl_sock *s, const char *name, struct molt_error **err)
{
    struct molt_link from;
    int r = molt_rtnl_link(s, name, &from, err);
    return r < 0 || !from.index ? r : molt_rtnl_divert_end(s, from.index, err);
}

int molt_divert_return(const char *op_id, const struct molt_divert *d, struct molt_error **err)
{
    CLEANUP_RTNL struct nl_sock *s = NULL;
    const struct molt__ends e = molt__hold_ends(op_id, 0);
    struct molt_link from = {0};
    int r = molt_rtnl_open(&s, err);
    if (r == 0)
        r = molt_rtnl_link(s, d->from, &from, err);
    if (r == 0 && !from.index) /* its guest is gone: there is nobody to give it to */
        return molt_hold_remove(op_id, NULL, 0, err);
    /* First, or what is handed back would be diverted again. */
    if (r == 0)
        r = molt_rtnl_divert_end(s, from.index, err);
    if (r == 0)
        r = open_to(s, &e, NULL, d->from, NULL, err);
    if (r == 0)
        r = end(s, op_id, err);
    return r < 0 ? molt_error_prefix(err, "give back what was held for %s", d->from) : 0;
}

int molt_divert_remove(const char *op_id, const struct molt_divert *d, struct molt_error **err)
{
    CLEANUP_RTNL struct nl_sock *s = NULL;
    int r = molt_rtnl_open(&s, err);
    if (r == 0)
        r = end_diversion(s, d->from, err);
    if (r == 0)
        r = end(s, op_id, err);
    return r < 0 ? molt_error_prefix(err, "held packets") : 0;
}
