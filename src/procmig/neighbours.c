/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "procmig/neighbours.h"

#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <netpacket/packet.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/rtreq.h"
#include "base/strbuf.h"

#define MAC_LEN  6
#define MAC_TEXT 18
#define KNOWN    (NUD_REACHABLE | NUD_STALE | NUD_DELAY | NUD_PROBE | NUD_PERMANENT)

struct neighbour {
    int family;
    unsigned char address[16], mac[MAC_LEN];
    unsigned device; /* index */
};

struct neighbours {
    struct neighbour *v;
    size_t n, cap;
};

static size_t len_of(int family)
{
    return family == AF_INET ? 4 : 16;
}

/* ---- asking the kernel ---- */

/* linux/neighbour.h: an ndmsg, and attributes. */
static int note(void *ctx, const struct nlmsghdr *h)
{
    struct neighbours *to = ctx;
    const struct ndmsg *body = NLMSG_DATA(h);
    struct neighbour one = {.family = 0};
    bool has_address = false, has_mac = false;

    if (h->nlmsg_type != RTM_NEWNEIGH || h->nlmsg_len < NLMSG_LENGTH(sizeof(*body)) || to->n == MOLT__NEIGHBOURS_MAX)
        return 0;
    if ((body->ndm_family != AF_INET && body->ndm_family != AF_INET6) || !(body->ndm_state & KNOWN) || (body->ndm_flags & NTF_PROXY))
        return 0;
    one.family = body->ndm_family;
    one.device = (unsigned)body->ndm_ifindex;
    int left = (int)(h->nlmsg_len - NLMSG_LENGTH(sizeof(*body)));

    for (const struct rtattr *a = (const void *)((const char *)body + NLMSG_ALIGN(sizeof(*body))); RTA_OK(a, left); a = RTA_NEXT(a, left))
        if (a->rta_type == NDA_DST && RTA_PAYLOAD(a) == len_of(one.family)) {
            memcpy(one.address, RTA_DATA(a), RTA_PAYLOAD(a));
            has_address = true;
        } else if (a->rta_type == NDA_LLADDR && RTA_PAYLOAD(a) == MAC_LEN) {
            memcpy(one.mac, RTA_DATA(a), MAC_LEN);
            has_mac = true;
        }
    if (has_address && has_mac) {
        MOLT_GROW(to->v, to->n, to->cap);
        to->v[to->n++] = one;
    }
    return 0;
}

static int ask_known(struct neighbours *ret, struct molt_error **err)
{
    const struct ndmsg body = {.ndm_family = AF_UNSPEC};
    struct molt_rtreq m;

    molt_rtreq_begin(&m, RTM_GETNEIGH, 0, &body, sizeof(body));
    int r = molt_rtreq_dump(&m, note, ret);

    if (r == 0)
        return 0;
    errno = -r;
    return molt_error_errno(err, "ask the kernel for its neighbours");
}

static const struct sockaddr_ll *ethernet(const struct ifaddrs *i)
{
    const struct sockaddr_ll *s = (const void *)i->ifa_addr;

    return s && s->sll_family == AF_PACKET && s->sll_halen == MAC_LEN && !(i->ifa_flags & IFF_LOOPBACK) ? s : NULL;
}

/* ---- text ---- */

static void put_mac(char text[MAC_TEXT], const unsigned char *b)
{
    snprintf(text, MAC_TEXT, "%02x:%02x:%02x:%02x:%02x:%02x", b[0], b[1], b[2], b[3], b[4], b[5]);
}

static bool get_mac(const char *text, unsigned char b[MAC_LEN])
{
    int end = 0;

    return text && sscanf(text, "%2hhx:%2hhx:%2hhx:%2hhx:%2hhx:%2hhx%n", &b[0], &b[1], &b[2], &b[3], &b[4], &b[5], &end) == MAC_LEN && end == MAC_TEXT - 1 && !text[end];
}

static bool get_address(const char *text, struct neighbour *to)
{
    to->family = text && strchr(text, ':') ? AF_INET6 : AF_INET;
    return text && inet_pton(to->family, text, to->address) == 1;
}

/* ---- both ends ---- */

struct molt__network {
    struct ifaddrs *devices;
    struct neighbours known;
};

int molt__network_look(bool known, struct molt__network **ret, struct molt_error **err)
{
    struct molt__network *net = molt_xcalloc(1, sizeof(*net));
    int r = getifaddrs(&net->devices) < 0 ? molt_error_errno(err, "look at the network devices") : 0;

    if (r == 0 && known)
        r = ask_known(&net->known, err);
    if (r < 0)
        molt__network_free(MOLT_STEAL_PTR(net));
    *ret = net;
    return r;
}

void molt__network_free(struct molt__network *net)
{
    if (!net)
        return;
    if (net->devices)
        freeifaddrs(net->devices);
    free(net->known.v);
    free(net);
}

int molt__neighbours_collect(const struct molt__network *net, struct molt_json **ret, struct molt_error **err)
{
    CLEANUP_JSON struct molt_json *list = molt_json_array();
    struct neighbours all = {NULL, 0, 0};
    int r = ask_known(&all, err);

    for (size_t i = 0; r == 0 && i < all.n; i++)
        for (const struct ifaddrs *d = net->devices; d; d = d->ifa_next) {
            const struct sockaddr_ll *s = ethernet(d);
            char address[INET6_ADDRSTRLEN], mac[MAC_TEXT], link[MAC_TEXT];

            if (!s || (unsigned)s->sll_ifindex != all.v[i].device)
                continue;
            struct molt_json *o = molt_json_object();

            put_mac(mac, all.v[i].mac);
            put_mac(link, s->sll_addr);
            molt_json_set_string(o, "address", inet_ntop(all.v[i].family, all.v[i].address, address, sizeof(address)));
            molt_json_set_string(o, "mac", mac);
            molt_json_set_string(o, "link", link);
            molt_json_append(list, o);
        }
    free(all.v);
    if (r == 0)
        *ret = MOLT_STEAL_PTR(list);
    return r;
}

static const unsigned char *bytes_of(const struct sockaddr *s)
{
    return s->sa_family == AF_INET ? (const unsigned char *)&((const struct sockaddr_in *)s)->sin_addr : (const unsigned char *)&((const struct sockaddr_in6 *)s)->sin6_addr;
}

static bool in_network(const struct ifaddrs *i, const struct neighbour *one)
{
    if (!i->ifa_addr || !i->ifa_netmask || i->ifa_addr->sa_family != one->family || (i->ifa_flags & IFF_LOOPBACK))
        return false;
    const unsigned char *own = bytes_of(i->ifa_addr), *mask = bytes_of(i->ifa_netmask);
    unsigned bits = 0;

    for (size_t k = 0; k < len_of(one->family); k++) {
        if ((own[k] ^ one->address[k]) & mask[k])
            return false;
        bits |= mask[k];
    }
    return bits != 0;
}

/* Every link has a network fe80::/10 (RFC 4291): it tells of none. */
static bool is_link_local(const struct neighbour *one)
{
    return one->family == AF_INET6 && one->address[0] == 0xfe && (one->address[1] & 0xc0) == 0x80;
}

/* 0: none. */
static unsigned device_for(const struct ifaddrs *devices, const struct neighbour *one, const unsigned char *link)
{
    for (const struct ifaddrs *d = devices; d; d = d->ifa_next) {
        const struct sockaddr_ll *s = ethernet(d);

        if (s && !memcmp(s->sll_addr, link, MAC_LEN))
            return (unsigned)s->sll_ifindex;
    }
    for (const struct ifaddrs *d = devices; d && !is_link_local(one); d = d->ifa_next)
        if (in_network(d, one))
            return if_nametoindex(d->ifa_name);
    return 0;
}

static bool is_known(const struct neighbours *all, const struct neighbour *one)
{
    for (size_t i = 0; i < all->n; i++)
        if (all->v[i].device == one->device && all->v[i].family == one->family && !memcmp(all->v[i].address, one->address, len_of(one->family)))
            return true;
    return false;
}

/* Also over one that the kernel has asked for in vain. */
static bool place(const struct neighbour *one)
{
    const struct ndmsg body = {.ndm_family = (unsigned char)one->family, .ndm_ifindex = (int)one->device, .ndm_state = NUD_STALE};
    struct molt_rtreq m;

    molt_rtreq_begin(&m, RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, &body, sizeof(body));
    molt_rtreq_put(&m, NDA_DST, one->address, len_of(one->family));
    molt_rtreq_put(&m, NDA_LLADDR, one->mac, MAC_LEN);
    return molt_rtreq_send(&m) == 0;
}

int molt__neighbours_place(const struct molt__network *net, const struct molt_json *list, size_t *ret_placed, struct molt_error **err)
{
    const size_t n = molt_json_size(list);
    size_t placed = 0;

    if (n > MOLT__NEIGHBOURS_MAX)
        return molt_error_set(err, MOLT_E_PROTOCOL, "%zu neighbours", n);
    for (size_t i = 0; i < n; i++) {
        const struct molt_json *o = molt_json_at(list, i);
        struct neighbour one = {.family = 0};
        unsigned char link[MAC_LEN];

        if (!get_address(molt_json_get_string(o, "address"), &one) || !get_mac(molt_json_get_string(o, "mac"), one.mac) || !get_mac(molt_json_get_string(o, "link"), link))
            return molt_error_set(err, MOLT_E_PROTOCOL, "malformed list of neighbours");
        one.device = device_for(net->devices, &one, link);
        if (one.device && !is_known(&net->known, &one) && place(&one))
            placed++;
    }
    if (ret_placed)
        *ret_placed = placed;
    return 0;
}
