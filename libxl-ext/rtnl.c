/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "rtnl.h"

#include <arpa/inet.h>
#include <linux/if_bridge.h>
#include <linux/if_ether.h>
#include <linux/neighbour.h>
#include <linux/pkt_cls.h>
#include <linux/pkt_sched.h>
#include <linux/tc_act/tc_mirred.h>
#include <linux/tc_act/tc_skbmod.h>
#include <net/if.h>
#include <netlink/netlink.h>
#include <netlink/route/act/gact.h>
#include <netlink/route/act/mirred.h>
#include <netlink/route/cls/u32.h>
#include <netlink/route/link.h>
#include <netlink/route/link/veth.h>
#include <netlink/route/neighbour.h>
#include <netlink/route/qdisc.h>
#include <netlink/route/qdisc/plug.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>

#include "base/cleanup.h"
#include "base/strbuf.h"

#ifndef NTF_STICKY
#define NTF_STICKY 0x40 /* linux/neighbour.h since 4.20 */
#endif

#define PRIO_OWN 1 /* drops what the guest sent itself */
#define PRIO_REDIRECT 2
#define PRIO_MEANWHILE 3 /* while that one is set anew */
#define PRIO_REQUESTS 1 /* of what leaves: one is for one protocol */
#define PRIO_REQUESTS6 4
#define INGRESS TC_H_MAJ(TC_H_INGRESS)
#define LEAVING TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_EGRESS)

/* With this address a port never becomes the one whose address the bridge takes; vifs have the same. */
static const uint8_t port_mac[MOLT_MAC_LEN] = {0xfe, 0xff, 0xff, 0xff, 0xff, 0xff};

static void put_link(struct rtnl_link **p) { rtnl_link_put(*p); }
static void put_cache(struct nl_cache **p) { nl_cache_put(*p); }
static void put_addr(struct nl_addr **p) { nl_addr_put(*p); }
static void put_neigh(struct rtnl_neigh **p) { rtnl_neigh_put(*p); }
static void put_qdisc(struct rtnl_qdisc **p) { rtnl_qdisc_put(*p); }
static void put_cls(struct rtnl_cls **p) { rtnl_cls_put(*p); }
static void put_act(struct rtnl_act **p) { rtnl_act_put(*p); }
static void put_msg(struct nl_msg **p) { nlmsg_free(*p); }
#define CLEANUP_PUT(what) __attribute__((cleanup(put_##what)))

__attribute__((format(printf, 3, 4))) static int failed(struct molt_error **err, int nlerr, const char *fmt, ...)
{
    CLEANUP_STRBUF struct molt_strbuf b = MOLT_STRBUF_INIT;
    va_list ap;
    if (nlerr >= 0)
        return 0;
    va_start(ap, fmt);
    molt_strbuf_vaddf(&b, fmt, ap);
    va_end(ap);
    return molt_error_set(err, MOLT_E_INTERNAL, "%s: %s", molt_strbuf_str(&b), nl_geterror(nlerr));
}

/* libnl's constructors fail for want of memory only. */
#define NEED(p) ({ __typeof__(p) need__p = (p); if (!need__p) abort(); need__p; })

int molt_rtnl_open(struct nl_sock **ret, struct molt_error **err)
{
    *ret = NEED(nl_socket_alloc());
    int r = failed(err, nl_connect(*ret, NETLINK_ROUTE), "rtnetlink");
    if (r < 0)
        molt_rtnl_close(ret);
    return r;
}

void molt_rtnl_close(struct nl_sock **s)
{
    if (*s)
        nl_socket_free(*s);
    *s = NULL;
}

/* ---- links ---- */

int molt_rtnl_link(struct nl_sock *s, const char *name, struct molt_link *ret, struct molt_error **err)
{
    CLEANUP_PUT(link) struct rtnl_link *l = NULL;
    *ret = (struct molt_link){0};
    int r = rtnl_link_get_kernel(s, 0, name, &l);
    if (r == -NLE_NODEV || r == -NLE_OBJ_NOTFOUND)
        return 0;
    if (r < 0)
        return failed(err, r, "%s", name);
    *ret = (struct molt_link){.index = rtnl_link_get_ifindex(l), .master = rtnl_link_get_master(l), .mtu = rtnl_link_get_mtu(l),
                              .bridge = molt_streq(rtnl_link_get_type(l), "bridge"), .up = (rtnl_link_get_flags(l) & IFF_UP) != 0};
    return 0;
}

struct names {
    const char *prefix;
    char **v;
    int n, cap;
};

static void note_name(struct nl_object *o, void *ctx)
{
    struct names *names = ctx;
    const char *name = rtnl_link_get_name((struct rtnl_link *)o);
    if (!name || strncmp(name, names->prefix, strlen(names->prefix)) != 0)
        return;
    MOLT_GROW(names->v, names->n + 1, names->cap);
    names->v[names->n++] = molt_xstrdup(name);
}

int molt_rtnl_names(struct nl_sock *s, const char *prefix, char ***ret, struct molt_error **err)
{
    CLEANUP_PUT(cache) struct nl_cache *links = NULL;
    struct names names = {.prefix = prefix, .v = molt_xcalloc(16, sizeof(char *)), .cap = 16};
    int r = rtnl_link_alloc_cache(s, AF_UNSPEC, &links);
    if (r == 0)
        nl_cache_foreach(links, note_name, &names);
    names.v[names.n] = NULL;
    *ret = names.v;
    return failed(err, r, "list of interfaces");
}

void molt_rtnl_names_free(char **names)
{
    for (char **p = names; p && *p; p++)
        free(*p);
    free(names);
}

static void describe_end(struct rtnl_link *l, const char *name, unsigned mtu, struct nl_addr *mac)
{
    rtnl_link_set_name(l, name);
    rtnl_link_set_mtu(l, mtu);
    rtnl_link_set_addr(l, mac);
}

int molt_rtnl_veth_add(struct nl_sock *s, const char *name, const char *peer, unsigned mtu, struct molt_error **err)
{
    CLEANUP_PUT(link) struct rtnl_link *l = NEED(rtnl_link_veth_alloc());
    CLEANUP_PUT(link) struct rtnl_link *p = NEED(rtnl_link_veth_get_peer(l));
    CLEANUP_PUT(addr) struct nl_addr *mac = NEED(nl_addr_build(AF_LLC, port_mac, sizeof(port_mac)));
    describe_end(l, name, mtu, mac);
    describe_end(p, peer, mtu, mac);
    return failed(err, rtnl_link_add(s, l, NLM_F_CREATE | NLM_F_EXCL), "make %s", name);
}

static int change(struct nl_sock *s, int index, struct rtnl_link *l)
{
    CLEANUP_PUT(link) struct rtnl_link *which = NEED(rtnl_link_alloc());
    rtnl_link_set_ifindex(which, index);
    return rtnl_link_change(s, which, l, 0);
}

int molt_rtnl_up(struct nl_sock *s, int index, struct molt_error **err)
{
    CLEANUP_PUT(link) struct rtnl_link *l = NEED(rtnl_link_alloc());
    rtnl_link_set_flags(l, IFF_UP);
    return failed(err, change(s, index, l), "interface %d up", index);
}

int molt_rtnl_note(struct nl_sock *s, int index, const char *text, struct molt_error **err)
{
    CLEANUP_PUT(link) struct rtnl_link *l = NEED(rtnl_link_alloc());
    rtnl_link_set_ifalias(l, text);
    return failed(err, change(s, index, l), "note at interface %d", index);
}

char *molt_rtnl_get_note(struct nl_sock *s, const char *name)
{
    CLEANUP_PUT(link) struct rtnl_link *l = NULL;
    if (rtnl_link_get_kernel(s, 0, name, &l) < 0)
        return NULL;
    const char *text = rtnl_link_get_ifalias(l);
    return text ? molt_xstrdup(text) : NULL;
}

int molt_rtnl_down(struct nl_sock *s, int index, struct molt_error **err)
{
    CLEANUP_PUT(link) struct rtnl_link *l = NEED(rtnl_link_alloc());
    rtnl_link_unset_flags(l, IFF_UP);
    return failed(err, change(s, index, l), "interface %d down", index);
}

int molt_rtnl_delete(struct nl_sock *s, int index, struct molt_error **err)
{
    CLEANUP_PUT(link) struct rtnl_link *l = NEED(rtnl_link_alloc());
    rtnl_link_set_ifindex(l, index);
    int r = rtnl_link_delete(s, l);
    return r == -NLE_NODEV || r == -NLE_OBJ_NOTFOUND ? 0 : failed(err, r, "delete interface %d", index);
}

int molt_rtnl_enslave(struct nl_sock *s, int index, int master, struct molt_error **err)
{
    CLEANUP_PUT(link) struct rtnl_link *l = NEED(rtnl_link_alloc());
    rtnl_link_set_master(l, master);
    return failed(err, change(s, index, l), "interface %d %s bridge", index, master ? "into its" : "out of its");
}

/* ---- bridge ---- */

int molt_rtnl_fdb(struct nl_sock *s, int port, const uint8_t mac[MOLT_MAC_LEN], bool pinned, struct molt_error **err)
{
    CLEANUP_PUT(neigh) struct rtnl_neigh *n = NEED(rtnl_neigh_alloc());
    CLEANUP_PUT(addr) struct nl_addr *addr = NEED(nl_addr_build(AF_LLC, mac, MOLT_MAC_LEN));
    rtnl_neigh_set_family(n, AF_BRIDGE);
    rtnl_neigh_set_ifindex(n, port);
    rtnl_neigh_set_lladdr(n, addr);
    rtnl_neigh_set_flags(n, pinned ? NTF_MASTER | NTF_STICKY : NTF_MASTER);
    rtnl_neigh_set_state(n, pinned ? NUD_NOARP : NUD_REACHABLE);
    return failed(err, rtnl_neigh_add(s, n, NLM_F_CREATE | NLM_F_REPLACE), "bridge entry of interface %d", port);
}

/* An attribute of a bridge's port (IFLA_BRPORT_*, linux/if_link.h) of one byte. */
struct port_attr {
    int attr;
    uint8_t value;
};

/* What a kernel does not know it passes over. */
static int set_port(struct nl_sock *s, int port, const struct port_attr *v, size_t n, struct molt_error **err)
{
    struct ifinfomsg ifi = {.ifi_family = AF_BRIDGE, .ifi_index = port};
    CLEANUP_PUT(msg) struct nl_msg *m = NEED(nlmsg_alloc_simple(RTM_SETLINK, 0));
    int r = nlmsg_append(m, &ifi, sizeof(ifi), NLMSG_ALIGNTO);
    struct nlattr *info = r == 0 ? nla_nest_start(m, IFLA_PROTINFO | NLA_F_NESTED) : NULL;
    for (size_t i = 0; info && i < n; i++)
        if (nla_put_u8(m, v[i].attr, v[i].value) < 0)
            info = NULL;
    if (!info)
        return failed(err, -NLE_NOMEM, "bridge port");
    nla_nest_end(m, info);
    r = nl_send_sync(s, m); /* frees the message */
    m = NULL;
    return failed(err, r, "what the bridge gives interface %d", port);
}

int molt_rtnl_all_multicast(struct nl_sock *s, int port, struct molt_error **err)
{
    const struct port_attr router = {IFLA_BRPORT_MULTICAST_ROUTER, 2};
    return set_port(s, port, &router, 1, err);
}

int molt_rtnl_port(struct nl_sock *s, int port, bool hears, bool speaks, struct molt_error **err)
{
    const struct port_attr v[] = {{IFLA_BRPORT_LOCKED, !speaks}, {IFLA_BRPORT_UNICAST_FLOOD, hears}, {IFLA_BRPORT_MCAST_FLOOD, hears}, {IFLA_BRPORT_BCAST_FLOOD, hears}};
    return set_port(s, port, v, sizeof(v) / sizeof(v[0]), err);
}

bool molt_rtnl_can_mute(void)
{
    struct utsname u;
    unsigned major, minor;
    return uname(&u) == 0 && sscanf(u.release, "%u.%u", &major, &minor) == 2 && (major > 5 || (major == 5 && minor >= 16));
}

/* ---- queues and filters ---- */

static struct rtnl_qdisc *root_plug(int index)
{
    struct rtnl_qdisc *q = NEED(rtnl_qdisc_alloc());
    rtnl_tc_set_ifindex(TC_CAST(q), index);
    rtnl_tc_set_parent(TC_CAST(q), TC_H_ROOT);
    rtnl_tc_set_handle(TC_CAST(q), TC_HANDLE(1, 0));
    rtnl_tc_set_kind(TC_CAST(q), "plug");
    return q;
}

int molt_rtnl_plug_add(struct nl_sock *s, int index, int limit, struct molt_error **err)
{
    CLEANUP_PUT(qdisc) struct rtnl_qdisc *q = root_plug(index);
    rtnl_qdisc_plug_set_limit(q, limit);
    return failed(err, rtnl_qdisc_add(s, q, NLM_F_CREATE | NLM_F_EXCL), "queueing discipline plug");
}

int molt_rtnl_plug(struct nl_sock *s, int index, bool open, struct molt_error **err)
{
    CLEANUP_PUT(qdisc) struct rtnl_qdisc *q = root_plug(index);
    if (open)
        rtnl_qdisc_plug_release_indefinite(q);
    else
        rtnl_qdisc_plug_buffer(q);
    return failed(err, rtnl_qdisc_add(s, q, 0), "%s plug", open ? "open" : "close");
}

static int add_ingress(struct nl_sock *s, int index)
{
    CLEANUP_PUT(qdisc) struct rtnl_qdisc *q = NEED(rtnl_qdisc_alloc());
    rtnl_tc_set_ifindex(TC_CAST(q), index);
    rtnl_tc_set_parent(TC_CAST(q), TC_H_INGRESS);
    rtnl_tc_set_handle(TC_CAST(q), INGRESS);
    rtnl_tc_set_kind(TC_CAST(q), "ingress");
    return rtnl_qdisc_add(s, q, NLM_F_CREATE);
}

static struct rtnl_cls *filter_at(int index, uint32_t parent, uint16_t prio, uint16_t protocol)
{
    struct rtnl_cls *c = NEED(rtnl_cls_alloc());
    rtnl_tc_set_ifindex(TC_CAST(c), index);
    rtnl_tc_set_parent(TC_CAST(c), parent);
    rtnl_tc_set_kind(TC_CAST(c), "u32");
    rtnl_cls_set_prio(c, prio);
    rtnl_cls_set_protocol(c, protocol);
    return c;
}

static struct rtnl_cls *filter(int index, uint16_t prio) { return filter_at(index, INGRESS, prio, ETH_P_ALL); }

/* Offsets count from the network header: the sender's address is in the 8 bytes before it. */
static int add_drop(struct nl_sock *s, int index, const uint8_t mac[MOLT_MAC_LEN])
{
    CLEANUP_PUT(cls) struct rtnl_cls *c = filter(index, PRIO_OWN);
    CLEANUP_PUT(act) struct rtnl_act *a = NEED(rtnl_act_alloc());
    uint32_t hi = (uint32_t)mac[0] << 24 | (uint32_t)mac[1] << 16 | (uint32_t)mac[2] << 8 | mac[3];
    uint32_t lo = (uint32_t)mac[4] << 24 | (uint32_t)mac[5] << 16;
    int r = rtnl_tc_set_kind(TC_CAST(a), "gact");
    if (r == 0)
        r = rtnl_gact_set_action(a, TC_ACT_SHOT);
    if (r == 0)
        r = rtnl_u32_add_key(c, htonl(hi), htonl(0xffffffff), -8, 0);
    if (r == 0)
        r = rtnl_u32_add_key(c, htonl(lo), htonl(0xffff0000), -4, 0);
    if (r == 0)
        r = rtnl_u32_set_cls_terminal(c);
    if (r == 0)
        r = rtnl_u32_add_action(c, a);
    return r < 0 ? r : rtnl_cls_add(s, c, NLM_F_CREATE);
}

/* What matches c leaves through the interface `to`. */
static int add_mirred(struct nl_sock *s, struct rtnl_cls *c, int to)
{
    CLEANUP_PUT(act) struct rtnl_act *a = NEED(rtnl_act_alloc());
    int r = rtnl_tc_set_kind(TC_CAST(a), "mirred");
    if (r == 0)
        r = rtnl_mirred_set_action(a, TCA_EGRESS_REDIR);
    if (r == 0)
        r = rtnl_mirred_set_policy(a, TC_ACT_STOLEN);
    if (r == 0)
        r = rtnl_mirred_set_ifindex(a, (uint32_t)to);
    if (r == 0)
        r = rtnl_u32_set_cls_terminal(c);
    if (r == 0)
        r = rtnl_u32_add_action(c, a);
    return r < 0 ? r : rtnl_cls_add(s, c, NLM_F_CREATE);
}

static int add_redirect(struct nl_sock *s, int index, uint16_t prio, int to)
{
    CLEANUP_PUT(cls) struct rtnl_cls *c = filter(index, prio);
    int r = rtnl_u32_add_key(c, 0, 0, 0, 0);
    return r < 0 ? r : add_mirred(s, c, to);
}

/* One action of a filter, as number n of its list (tc_act/tc_*.h). */
static int put_action(struct nl_msg *m, int n, const char *kind, int parms, const void *v, size_t len, int extra, const uint8_t *mac)
{
    struct nlattr *one = nla_nest_start(m, n), *options;
    if (!one || nla_put_string(m, TCA_ACT_KIND, kind) < 0 || !(options = nla_nest_start(m, TCA_ACT_OPTIONS)))
        return -NLE_NOMEM;
    if (nla_put(m, parms, (int)len, v) < 0 || (mac && nla_put(m, extra, MOLT_MAC_LEN, mac) < 0))
        return -NLE_NOMEM;
    nla_nest_end(m, options);
    nla_nest_end(m, one);
    return 0;
}

/* libnl knows no action that writes the receiver's address (act_skbmod), so this filter is put together by hand. */
static int add_redirect_as(struct nl_sock *s, int index, uint16_t prio, const uint8_t mac[MOLT_MAC_LEN], int to)
{
    const struct tcmsg t = {.tcm_family = AF_UNSPEC, .tcm_ifindex = index, .tcm_parent = INGRESS, .tcm_info = TC_H_MAKE((uint32_t)prio << 16, htons(ETH_P_ALL))};
    struct { struct tc_u32_sel sel; struct tc_u32_key key; } all = {.sel = {.flags = TC_U32_TERMINAL, .nkeys = 1}};
    const struct tc_skbmod receiver = {.action = TC_ACT_PIPE, .flags = SKBMOD_F_DMAC};
    const struct tc_mirred out = {.action = TC_ACT_STOLEN, .eaction = TCA_EGRESS_REDIR, .ifindex = (uint32_t)to};
    CLEANUP_PUT(msg) struct nl_msg *m = NEED(nlmsg_alloc_simple(RTM_NEWTFILTER, NLM_F_CREATE));
    struct nlattr *options, *actions;
    if (nlmsg_append(m, (void *)&t, sizeof(t), NLMSG_ALIGNTO) < 0 || nla_put_string(m, TCA_KIND, "u32") < 0 ||
        !(options = nla_nest_start(m, TCA_OPTIONS)) || nla_put(m, TCA_U32_SEL, sizeof(all), &all) < 0 || !(actions = nla_nest_start(m, TCA_U32_ACT)))
        return -NLE_NOMEM;
    int r = put_action(m, 1, "skbmod", TCA_SKBMOD_PARMS, &receiver, sizeof(receiver), TCA_SKBMOD_DMAC, mac);
    if (r == 0)
        r = put_action(m, 2, "mirred", TCA_MIRRED_PARMS, &out, sizeof(out), 0, NULL);
    if (r < 0)
        return r;
    nla_nest_end(m, actions);
    nla_nest_end(m, options);
    r = nl_send_sync(s, m); /* frees the message */
    m = NULL;
    return r;
}

int molt_rtnl_redirect_add(struct nl_sock *s, int index, const uint8_t mac[MOLT_MAC_LEN], int to, struct molt_error **err)
{
    int r = failed(err, add_ingress(s, index), "ingress queue");
    if (r == 0)
        r = failed(err, add_drop(s, index, mac), "filter u32 with action gact");
    return r < 0 ? r : failed(err, add_redirect(s, index, PRIO_REDIRECT, to), "filter u32 with action mirred");
}

int molt_rtnl_receive(struct nl_sock *s, int index, struct molt_error **err)
{
    return failed(err, add_ingress(s, index), "ingress queue");
}

static int drop_redirect(struct nl_sock *s, int index, uint16_t prio)
{
    CLEANUP_PUT(cls) struct rtnl_cls *old = filter(index, prio);
    int r = rtnl_cls_delete(s, old, 0);
    return r == -NLE_OBJ_NOTFOUND ? 0 : r;
}

static int put_redirect(struct nl_sock *s, int index, uint16_t prio, const uint8_t *mac, int to)
{
    int r = drop_redirect(s, index, prio);
    if (r == 0)
        r = mac ? add_redirect_as(s, index, prio, mac, to) : add_redirect(s, index, prio, to);
    return r;
}

/* Packets may be on their way: there is always one that takes them. */
int molt_rtnl_redirect_to(struct nl_sock *s, int index, const uint8_t *mac, int to, struct molt_error **err)
{
    int r = put_redirect(s, index, PRIO_MEANWHILE, mac, to);
    if (r == 0)
        r = put_redirect(s, index, PRIO_REDIRECT, mac, to);
    if (r == 0)
        r = drop_redirect(s, index, PRIO_MEANWHILE);
    return failed(err, r, "redirect to interface %d", to);
}

/* ---- what leaves for one address ---- */

int molt_rtnl_hooked(struct nl_sock *s, int index, bool *ret, struct molt_error **err)
{
    CLEANUP_PUT(cache) struct nl_cache *all = NULL;
    int r = rtnl_qdisc_alloc_cache(s, &all);
    CLEANUP_PUT(qdisc) struct rtnl_qdisc *q = r == 0 ? rtnl_qdisc_get_by_parent(all, index, TC_H_CLSACT) : NULL;
    *ret = q != NULL;
    return failed(err, r, "list of queues");
}

static struct rtnl_qdisc *clsact(int index)
{
    struct rtnl_qdisc *q = NEED(rtnl_qdisc_alloc());
    rtnl_tc_set_ifindex(TC_CAST(q), index);
    rtnl_tc_set_parent(TC_CAST(q), TC_H_CLSACT);
    rtnl_tc_set_handle(TC_CAST(q), TC_HANDLE(0xffff, 0));
    rtnl_tc_set_kind(TC_CAST(q), "clsact");
    return q;
}

static int add_hook(struct nl_sock *s, int index, int flags, struct molt_error **err)
{
    CLEANUP_PUT(qdisc) struct rtnl_qdisc *q = clsact(index);
    return failed(err, rtnl_qdisc_add(s, q, NLM_F_CREATE | flags), "hook of interface %d", index);
}

/* Where the header has its receiver. */
static int add_receiver(struct rtnl_cls *c, const struct molt_rtnl_address *a)
{
    int r = 0;
    for (int i = 0; i < (a->v6 ? 4 : 1) && r == 0; i++) {
        uint32_t word;
        memcpy(&word, a->bytes + 4 * i, sizeof(word));
        r = rtnl_u32_add_key(c, word, 0xffffffff, (a->v6 ? 24 : 16) + 4 * i, 0);
    }
    return r;
}

int molt_rtnl_divert(struct nl_sock *s, int index, const struct molt_rtnl_address *a, int to, struct molt_error **err)
{
    CLEANUP_PUT(cls) struct rtnl_cls *c = filter_at(index, LEAVING, PRIO_REDIRECT, a->v6 ? ETH_P_IPV6 : ETH_P_IP);
    int r = add_hook(s, index, 0, err);
    if (r < 0)
        return r;
    r = add_receiver(c, a);
    return failed(err, r < 0 ? r : add_mirred(s, c, to), "divert an address of interface %d", index);
}

struct word { /* of a packet, as in its comment */
    uint32_t value, mask;
    int offset;
};
/* RFC 791, RFC 8200, RFC 9293: a header without options, no later fragment, TCP; of its flags SYN without ACK. */
static const struct word request4[] = {{0x05000000, 0x0f000000, 0}, {0, 0x00001fff, 4}, {0x00060000, 0x00ff0000, 8}, {0x00020000, 0x00120000, 32}};
static const struct word request6[] = {{0x00000600, 0x0000ff00, 4}, {0x00020000, 0x00120000, 52}};

static int divert_requests(struct nl_sock *s, int index, bool v6, const struct molt_rtnl_address *a, int to)
{
    CLEANUP_PUT(cls) struct rtnl_cls *c = filter_at(index, LEAVING, v6 ? PRIO_REQUESTS6 : PRIO_REQUESTS, v6 ? ETH_P_IPV6 : ETH_P_IP);
    const struct word *w = v6 ? request6 : request4;
    const size_t n = v6 ? sizeof(request6) / sizeof(*w) : sizeof(request4) / sizeof(*w);
    int r = a ? add_receiver(c, a) : 0;
    for (size_t i = 0; i < n && r == 0; i++)
        r = rtnl_u32_add_key(c, htonl(w[i].value), htonl(w[i].mask), w[i].offset, 0);
    return r < 0 ? r : add_mirred(s, c, to);
}

int molt_rtnl_divert_requests(struct nl_sock *s, int index, const struct molt_rtnl_address *a, int to, struct molt_error **err)
{
    int r = add_hook(s, index, NLM_F_EXCL, err);
    if (r < 0)
        return r;
    if (!a || !a->v6)
        r = divert_requests(s, index, false, a, to);
    if (r == 0 && (!a || a->v6))
        r = divert_requests(s, index, true, a, to);
    return failed(err, r, "divert connections of interface %d", index);
}

static bool none_there(int r) { return r == -NLE_OBJ_NOTFOUND || r == -NLE_INVAL || r == -NLE_NODEV || r == -NLE_OPNOTSUPP; }

/* Whether anybody has a filter at one side of the hook. */
static bool has_filters(struct nl_sock *s, int index, uint32_t side)
{
    CLEANUP_PUT(cache) struct nl_cache *all = NULL;
    return rtnl_cls_alloc_cache(s, index, side, &all) == 0 && nl_cache_nitems(all) > 0;
}

int molt_rtnl_divert_end(struct nl_sock *s, int index, struct molt_error **err)
{
    static const struct { uint16_t prio, protocol; } ours[] = {
        {PRIO_REQUESTS, ETH_P_IP}, {PRIO_REDIRECT, ETH_P_IP}, {PRIO_REDIRECT, ETH_P_IPV6}, {PRIO_REQUESTS6, ETH_P_IPV6}};
    CLEANUP_PUT(qdisc) struct rtnl_qdisc *q = clsact(index);
    int r = 0;
    for (size_t i = 0; i < sizeof(ours) / sizeof(ours[0]); i++) {
        CLEANUP_PUT(cls) struct rtnl_cls *c = filter_at(index, LEAVING, ours[i].prio, ours[i].protocol);
        r = rtnl_cls_delete(s, c, 0);
        if (r < 0 && !none_there(r))
            return failed(err, r, "filters of interface %d", index);
    }
    /* Somebody may have put others there meanwhile. */
    if (has_filters(s, index, LEAVING) || has_filters(s, index, TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_INGRESS)))
        return 0;
    r = rtnl_qdisc_delete(s, q);
    return none_there(r) ? 0 : failed(err, r, "hook of interface %d", index);
}

int molt_rtnl_queue(struct nl_sock *s, int index, bool ingress, struct molt_queue *ret, struct molt_error **err)
{
    CLEANUP_PUT(cache) struct nl_cache *all = NULL;
    int r = rtnl_qdisc_alloc_cache(s, &all);
    if (r < 0)
        return failed(err, r, "list of queues");
    CLEANUP_PUT(qdisc) struct rtnl_qdisc *q = rtnl_qdisc_get_by_parent(all, index, ingress ? TC_H_INGRESS : TC_H_ROOT);
    if (!q)
        return failed(err, -NLE_OBJ_NOTFOUND, "queue of interface %d", index);
    *ret = (struct molt_queue){.waiting = rtnl_tc_get_stat(TC_CAST(q), RTNL_TC_QLEN),
                               .waiting_bytes = rtnl_tc_get_stat(TC_CAST(q), RTNL_TC_BACKLOG),
                               .dropped = rtnl_tc_get_stat(TC_CAST(q), RTNL_TC_DROPS),
                               .passed = rtnl_tc_get_stat(TC_CAST(q), RTNL_TC_PACKETS)};
    return 0;
}
