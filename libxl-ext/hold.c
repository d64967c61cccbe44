/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "hold_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/fsio.h"
#include "base/strbuf.h"

#define DRAIN_MS 5000 /* a link that never rests is not waited for longer */
#define STILL_MS 1000 /* nothing moves: a packet was lost between the two ends, the counters never meet; a busy dom0 is slow */
#define BACKLOG  "/proc/sys/net/core/netdev_max_backlog" /* the host's, not a network namespace's */

static const char *tail_of(const char *op_id)
{
    const char *dash = strrchr(op_id, '-');
    return dash ? dash + 1 : op_id;
}

struct molt__ends molt__hold_ends(const char *op_id, int i)
{
    struct molt__ends e;
    snprintf(e.port, sizeof(e.port), "xmh%.8s.%u", tail_of(op_id), (unsigned)i % 1000);
    snprintf(e.out, sizeof(e.out), "xmp%.8s.%u", tail_of(op_id), (unsigned)i % 1000);
    return e;
}

int molt__need_link(struct nl_sock *s, const char *name, struct molt_link *ret, struct molt_error **err)
{
    int r = molt_rtnl_link(s, name, ret, err);
    return r == 0 && ret->index == 0 ? molt_error_set(err, MOLT_E_INTERNAL, "there is no interface %s", name) : r;
}

static int move(struct nl_sock *s, const struct molt_link *l, int master, struct molt_error **err)
{
    return l->master == master ? 0 : molt_rtnl_enslave(s, l->index, master, err);
}

int molt_vif_to_bridge(const char *ifname, const char *bridge, struct molt_error **err)
{
    CLEANUP_RTNL struct nl_sock *s = NULL;
    struct molt_link l, b = {0};
    int r = molt_rtnl_open(&s, err);
    if (r == 0)
        r = molt__need_link(s, ifname, &l, err);
    if (r == 0 && bridge)
        r = molt__need_link(s, bridge, &b, err);
    if (r == 0)
        r = move(s, &l, b.index, err);
    if (r == 0 && bridge)
        r = molt_rtnl_port(s, l.index, true, true, err); /* it may have stood there muted */
    return r < 0 ? molt_error_prefix(err, "%s", ifname) : 0;
}

/* ---- prepare ---- */

static bool vlan_aware(const char *bridge)
{
    CLEANUP_FREE char *path = molt_xasprintf("/sys/class/net/%s/bridge/vlan_filtering", bridge);
    CLEANUP_FREE char *text = NULL;
    return molt_read_file(path, 16, &text, NULL, NULL) == 0 && text[0] == '1';
}

/* All that comes in there is one CPU's: packets that two CPUs took from the queue, each with a backlog of its own, would overtake one another. */
static void keep_order(const char *name)
{
    CLEANUP_FREE char *path = molt_xasprintf("/sys/class/net/%s/queues/rx-0/rps_cpus", name);
    (void)molt_write_file(path, "1\n", 2, 0644, NULL); /* a kernel without RPS has one CPU */
}

static long backlog(void)
{
    CLEANUP_FREE char *text = NULL;
    return molt_read_file(BACKLOG, 32, &text, NULL, NULL) == 0 ? atol(text) : -1;
}

static void set_backlog(long packets)
{
    char text[32];
    int n = snprintf(text, sizeof(text), "%ld\n", packets);
    (void)molt_write_file(BACKLOG, text, (size_t)n, 0644, NULL); /* a loss that it might have prevented is told by the counters */
}

/* What it was stands at the interface, for whoever removes that. */
static void grow_backlog(struct nl_sock *s, int index)
{
    char text[32];
    long was = backlog();
    if (was <= 0 || was >= MOLT_HOLD_BACKLOG)
        return;
    snprintf(text, sizeof(text), "backlog %ld", was);
    if (molt_rtnl_note(s, index, text, NULL) == 0)
        set_backlog(MOLT_HOLD_BACKLOG);
}

static void restore_backlog(struct nl_sock *s, const char *name)
{
    CLEANUP_FREE char *text = molt_rtnl_get_note(s, name);
    long was;
    if (text && sscanf(text, "backlog %ld", &was) == 1 && was > 0 && backlog() == MOLT_HOLD_BACKLOG)
        set_backlog(was);
}

/* dom0 itself must not speak on them, not even to look for neighbours. */
static void silence(const char *name)
{
    CLEANUP_FREE char *path = molt_xasprintf("/proc/sys/net/ipv6/conf/%s/disable_ipv6", name);
    molt_write_file(path, "1", 1, 0644, NULL);
}

int molt__hold_pair(struct nl_sock *s, const struct molt__ends *e, unsigned mtu, struct molt_link *port, struct molt_link *out, struct molt_error **err)
{
    int r = molt_rtnl_veth_add(s, e->port, e->out, mtu, err);
    if (r == 0)
        r = molt__need_link(s, e->port, port, err);
    if (r == 0)
        r = molt__need_link(s, e->out, out, err);
    silence(e->port);
    silence(e->out);
    keep_order(e->out);
    if (r == 0)
        grow_backlog(s, port->index); /* a second pair finds it grown */
    return r < 0 ? r : molt_rtnl_plug_add(s, port->index, MOLT_HOLD_LIMIT, err);
}

static int prepare_one(struct nl_sock *s, const struct molt__ends *e, const struct molt_hold_vif *v, struct molt_error **err)
{
    struct molt_link vif, bridge, port, out;
    int r = molt__need_link(s, v->vif, &vif, err);
    if (r == 0)
        r = molt_rtnl_link(s, v->bridge, &bridge, err);
    if (r == 0 && !bridge.bridge)
        return molt_error_set(err, MOLT_E_UNSUPPORTED, "%s is no bridge of Linux's own", v->bridge);
    if (r == 0 && vlan_aware(v->bridge))
        return molt_error_set(err, MOLT_E_UNSUPPORTED, "bridge %s knows VLANs", v->bridge);
    /* The same size as the vif's: a smaller port would make the bridge smaller, too. */
    if (r == 0)
        r = molt__hold_pair(s, e, vif.mtu, &port, &out, err);
    /* Set anew at the release; asked for now because the kernel may have to load modules for it, or may have none. */
    if (r == 0)
        r = molt_rtnl_redirect_add(s, out.index, v->mac, vif.index, err);
    /* It hears nothing there yet. */
    if (r == 0)
        r = molt_rtnl_enslave(s, port.index, bridge.index, err);
    if (r == 0)
        r = molt_rtnl_port(s, port.index, false, true, err);
    if (r == 0)
        r = molt_rtnl_up(s, out.index, err);
    return r < 0 ? r : molt_rtnl_up(s, port.index, err);
}

int molt_hold_prepare(const char *op_id, const struct molt_hold_vif *v, int n, struct molt_error **err)
{
    CLEANUP_RTNL struct nl_sock *s = NULL;
    int r = molt_hold_remove(op_id, NULL, 0, err);
    if (r == 0)
        r = molt_rtnl_open(&s, err);
    for (int i = 0; r == 0 && i < n; i++) {
        struct molt__ends e = molt__hold_ends(op_id, i);
        if ((r = prepare_one(s, &e, &v[i], err)) < 0)
            molt_error_prefix(err, "%s", v[i].vif);
    }
    if (r < 0)
        molt_hold_remove(op_id, NULL, 0, NULL);
    return r;
}

/* ---- engage and release ---- */

static int look_one(struct nl_sock *s, const struct molt__ends *e, const struct molt_hold_vif *v, struct molt_hold_at *ret, struct molt_error **err)
{
    struct molt_link vif, bridge, port = {0}, out = {0};
    int r = molt__need_link(s, v->vif, &vif, err);
    if (r == 0)
        r = molt__need_link(s, v->bridge, &bridge, err);
    if (r == 0)
        r = molt_rtnl_link(s, e->port, &port, err);
    if (r == 0 && port.index)
        r = molt__need_link(s, e->out, &out, err);
    if (r == 0)
        *ret = (struct molt_hold_at){.vif = vif.index, .bridge = bridge.index, .placed = vif.master == bridge.index, .up = vif.up, .port = port.index, .out = out.index, .held = port.master != 0};
    return r;
}

int molt_hold_look(const char *op_id, struct molt_hold_vif *v, int n, struct molt_error **err)
{
    CLEANUP_RTNL struct nl_sock *s = NULL;
    int r = molt_rtnl_open(&s, err);
    for (int i = 0; r == 0 && i < n; i++) {
        struct molt__ends e = molt__hold_ends(op_id, i);
        if ((r = look_one(s, &e, &v[i], &v[i].at, err)) < 0)
            molt_error_prefix(err, "%s", v[i].vif);
    }
    return r;
}

/* As it was seen before, or now. */
static int place_of(struct nl_sock *s, const struct molt__ends *e, const struct molt_hold_vif *v, struct molt_hold_at *ret, struct molt_error **err)
{
    *ret = v->at;
    return v->at.vif ? 0 : look_one(s, e, v, ret, err);
}

int molt_hold_can_requests(const char *op_id, struct molt_hold_vif *v, int n)
{
    CLEANUP_RTNL struct nl_sock *s = NULL;
    int others = 0;
    if (molt_rtnl_open(&s, NULL) < 0)
        return 0;
    for (int i = 0; i < n; i++) {
        struct molt__ends e = molt__hold_ends(op_id, i);
        struct molt_link vif, port;
        bool hooked = true;
        v[i].requests = false;
        if (molt_rtnl_link(s, e.port, &port, NULL) < 0 || !port.index || molt_rtnl_link(s, v[i].vif, &vif, NULL) < 0 || !vif.index ||
            molt_rtnl_hooked(s, vif.index, &hooked, NULL) < 0)
            continue;
        v[i].requests = !hooked;
        others += hooked;
    }
    return others;
}

static int requests_one(struct nl_sock *s, const struct molt__ends *e, const struct molt_hold_vif *v, struct molt_error **err)
{
    struct molt_hold_at at;
    int r = v->requests ? place_of(s, e, v, &at, err) : 0;
    return r < 0 || !v->requests || !at.port ? r : molt_rtnl_divert_requests(s, at.vif, NULL, at.port, err);
}

/* Before anything is given to the vif: it would come back. */
static int end_requests(struct nl_sock *s, const struct molt_hold_vif *v, const struct molt_hold_at *at, struct molt_error **err)
{
    return v->requests ? molt_rtnl_divert_end(s, at->vif, err) : 0;
}

/* Ours hears before the vif grows deaf, so that no packet finds neither; from the pinned entry on they come to ours, and what is for many comes to both for a moment. */
static int engage_one(struct nl_sock *s, const struct molt__ends *e, const struct molt_hold_vif *v, struct molt_error **err)
{
    struct molt_hold_at at;
    int r = place_of(s, e, v, &at, err);
    if (r == 0 && at.port) {
        r = molt_rtnl_plug(s, at.port, false, err);
        if (r == 0)
            r = molt_rtnl_port(s, at.port, true, true, err);
        if (r == 0)
            r = molt_rtnl_fdb(s, at.port, v->mac, true, err);
        if (r == 0)
            molt_rtnl_all_multicast(s, at.port, NULL); /* else some neighbours' questions are lost, as they used to be */
    }
    if (r == 0)
        r = at.port ? molt_rtnl_port(s, at.vif, false, true, err) : molt_rtnl_enslave(s, at.vif, 0, err);
    return r;
}

static int mute_one(struct nl_sock *s, const struct molt__ends *e, const struct molt_hold_vif *v, struct molt_error **err)
{
    struct molt_hold_at at;
    int r = place_of(s, e, v, &at, err);
    if (r == 0)
        r = end_requests(s, v, &at, err); /* nothing comes to it any more */
    if (r < 0)
        return r;
    /* The entry of its address leads to ours. */
    return at.held && molt_rtnl_can_mute() ? molt_rtnl_port(s, at.vif, false, false, err) : molt_rtnl_enslave(s, at.vif, 0, err);
}

/* Down first, so that nothing passes it, and up again where it can be deaf and mute. What cannot be placed is as it was. ret: where it is then. */
static int place_one(struct nl_sock *s, const struct molt__ends *e, const struct molt_hold_vif *v, struct molt_hold_at *ret, struct molt_error **err)
{
    int r = look_one(s, e, v, ret, err);
    if (r < 0 || ret->placed)
        return r;
    if ((r = molt_rtnl_down(s, ret->vif, err)) == 0 && (r = molt_rtnl_enslave(s, ret->vif, ret->bridge, err)) < 0 && ret->up)
        (void)molt_rtnl_up(s, ret->vif, NULL);
    if (r < 0)
        return r;
    ret->placed = true;
    ret->up = false;
    if (!ret->held || !molt_rtnl_can_mute())
        return 0;
    if ((r = molt_rtnl_port(s, ret->vif, false, false, err)) == 0)
        r = molt_rtnl_up(s, ret->vif, err);
    ret->up = r == 0;
    return r;
}

int molt_hold_place(const char *op_id, struct molt_hold_vif *v, int n, struct molt_error **err)
{
    CLEANUP_RTNL struct nl_sock *s = NULL;
    int r = molt_rtnl_open(&s, err);
    for (int i = 0; r == 0 && i < n; i++) {
        struct molt__ends e = molt__hold_ends(op_id, i);
        struct molt_hold_at at = {0};
        r = place_one(s, &e, &v[i], &at, err);
        if (r == 0 && at.held)
            r = molt_rtnl_redirect_to(s, at.out, NULL, at.vif, err);
        if (r < 0)
            return molt_error_prefix(err, "place %s", v[i].vif);
        at.aimed = at.held;
        v[i].at = at;
    }
    return r;
}

/* The vif may send at once. What comes for it takes the way through ours until remove: so nothing overtakes. */
static int release_one(struct nl_sock *s, const struct molt_hold_at *at, struct molt_hold_stats *st, struct molt_error **err)
{
    struct molt_queue q = {0};
    int r = at->placed ? 0 : molt_rtnl_enslave(s, at->vif, at->bridge, err);
    if (r == 0) /* what is for many comes through ours, too: it need not hear that twice */
        r = molt_rtnl_port(s, at->vif, !at->aimed, true, err);
    if (r == 0 && !at->up)
        r = molt_rtnl_up(s, at->vif, err);
    if (r < 0 || !at->held)
        return r;
    if (!at->aimed) {
        r = molt_rtnl_plug(s, at->port, false, err); /* it is open when this is a second try */
        if (r == 0)
            r = molt_rtnl_redirect_to(s, at->out, NULL, at->vif, err);
    }
    if (r == 0)
        r = molt_rtnl_queue(s, at->port, false, &q, err);
    if (r == 0)
        r = molt_rtnl_plug(s, at->port, true, err);
    st->packets += q.waiting;
    st->bytes += q.waiting_bytes;
    st->dropped += q.dropped;
    return r;
}

/* Guard and recovery may be at it together: what failed because the other one had ended it did not fail. */
static bool gone(struct nl_sock *s, const struct molt__ends *e)
{
    struct molt_link l;
    return molt_rtnl_link(s, e->port, &l, NULL) == 0 && l.index == 0;
}

static int each(const char *op_id, const struct molt_hold_vif *v, int n, const char *what,
                int (*fn)(struct nl_sock *s, const struct molt__ends *e, const struct molt_hold_vif *v, struct molt_error **err), struct molt_error **err)
{
    CLEANUP_RTNL struct nl_sock *s = NULL;
    int r = molt_rtnl_open(&s, err);
    for (int i = 0; r == 0 && i < n; i++) {
        struct molt__ends e = molt__hold_ends(op_id, i);
        if ((r = fn(s, &e, &v[i], err)) < 0)
            molt_error_prefix(err, "%s %s", what, v[i].vif);
    }
    return r;
}

int molt_hold_requests(const char *op_id, const struct molt_hold_vif *v, int n, struct molt_error **err)
{
    return each(op_id, v, n, "hold connections for", requests_one, err);
}

int molt_hold_engage(const char *op_id, const struct molt_hold_vif *v, int n, struct molt_error **err)
{
    return each(op_id, v, n, "hold", engage_one, err);
}

int molt_hold_mute(const char *op_id, const struct molt_hold_vif *v, int n, struct molt_error **err)
{
    return each(op_id, v, n, "mute", mute_one, err);
}

int molt_hold_release(const char *op_id, const struct molt_hold_vif *v, int n, struct molt_hold_stats *ret, struct molt_error **err)
{
    CLEANUP_RTNL struct nl_sock *s = NULL;
    struct molt_hold_stats st = {0};
    int r = molt_rtnl_open(&s, err);
    for (int i = 0; r == 0 && i < n; i++) {
        struct molt__ends e = molt__hold_ends(op_id, i);
        struct molt_hold_at at;
        if ((r = place_of(s, &e, &v[i], &at, err)) == 0)
            r = end_requests(s, &v[i], &at, err);
        if (r == 0)
            r = release_one(s, &at, &st, err);
        if (r < 0 && gone(s, &e)) {
            molt_error_clear(err);
            r = look_one(s, &e, &v[i], &at, err);
            if (r == 0)
                r = release_one(s, &at, &st, err);
        }
        if (r < 0)
            molt_error_prefix(err, "release %s", v[i].vif);
    }
    if (ret)
        *ret = st;
    return r;
}

/* ---- remove ---- */

int molt__hold_drain(struct nl_sock *s, int port, int out, struct molt_error **err)
{
    int64_t now = molt_mono_ms(), end = now + DRAIN_MS, moved = now;
    uint64_t seen = 0;
    for (;; now = molt_mono_ms()) {
        struct molt_queue in = {0}, through = {0};
        int r = molt_rtnl_queue(s, port, false, &in, err);
        if (r == 0)
            r = molt_rtnl_queue(s, out, true, &through, err);
        if (r < 0)
            return r;
        if (through.passed != seen)
            moved = now;
        seen = through.passed;
        if ((in.waiting == 0 && in.passed == through.passed) || now - moved > STILL_MS || now > end)
            return 0;
        molt_sleep_ms(1);
    }
}

static int straighten(struct nl_sock *s, const struct molt__ends *e, const struct molt_hold_vif *v, struct molt_error **err)
{
    struct molt_link vif, port, out;
    int r = molt_rtnl_link(s, e->port, &port, err);
    if (r == 0)
        r = molt_rtnl_link(s, e->out, &out, err);
    if (r == 0)
        r = molt_rtnl_link(s, v->vif, &vif, err);
    if (r < 0 || !port.master || !out.index || vif.master != port.master)
        return r;
    if ((r = molt__hold_drain(s, port.index, out.index, err)) == 0)
        r = molt_rtnl_fdb(s, vif.index, v->mac, false, err);
    if (r == 0)
        r = molt_rtnl_port(s, vif.index, true, true, err);
    if (r == 0)
        r = move(s, &port, 0, err);
    return r < 0 ? r : molt__hold_drain(s, port.index, out.index, err); /* those that were under way */
}

static int delete_all(struct nl_sock *s, const char *op_id, struct molt_error **err)
{
    CLEANUP_FREE char *prefix = molt_xasprintf("xmh%.8s.", tail_of(op_id));
    char **list = NULL;
    int r = molt_rtnl_names(s, prefix, &list, err);
    for (int i = 0; r == 0 && list[i]; i++) {
        struct molt_link l;
        r = molt_rtnl_link(s, list[i], &l, err);
        if (r == 0)
            restore_backlog(s, list[i]);
        if (r == 0 && l.index)
            r = molt_rtnl_delete(s, l.index, err); /* its other end, queue, filters and bridge entries go with it */
    }
    molt_rtnl_names_free(list);
    return r;
}

static int straighten_all(struct nl_sock *s, const char *op_id, const struct molt_hold_vif *v, int n, struct molt_error **err)
{
    int r = 0;
    for (int i = 0; r == 0 && i < n; i++) {
        struct molt__ends e = molt__hold_ends(op_id, i);
        if ((r = straighten(s, &e, &v[i], err)) < 0 && gone(s, &e)) {
            molt_error_clear(err);
            r = 0;
        }
    }
    return r;
}

int molt_hold_remove(const char *op_id, const struct molt_hold_vif *v, int n, struct molt_error **err)
{
    CLEANUP_RTNL struct nl_sock *s = NULL;
    int r = molt_rtnl_open(&s, err);
    if (r == 0)
        r = straighten_all(s, op_id, v, n, err);
    if (r == 0)
        r = delete_all(s, op_id, err);
    return r < 0 ? molt_error_prefix(err, "held packets") : 0;
}
